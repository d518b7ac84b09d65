/* A Vulkan device, its queue and its memory. Nothing above host/ calls a vk function. */
#ifndef VKM_HOST_DEVICE_H
#define VKM_HOST_DEVICE_H

#include "caps.h"

/* What the caps are once clamped; valid as long as the device. */
const struct vkm_caps *vkm_device_caps(const vkm_device *device);
void vkm_logf(const vkm_device *device, vkm_log_level level, const char *fmt, ...) VKM_PRINTF(3, 4);

/* ------------------------------------------------ buffers: few and large, each its own allocation, nothing is suballocated by Vulkan objects */

typedef struct vkm_buffer vkm_buffer;
enum vkm_buffer_kind {
    VKM_BUFFER_DEVICE,      /* device-local, mapped only where memory is unified */
    VKM_BUFFER_READBACK     /* host-visible, cached where there is such memory; the host may read and write it */
};
/* Storage + indirect + transfer usage. Content undefined. name is for debuggers and errors, copied. */
vkm_result vkm_buffer_create(vkm_device *device, enum vkm_buffer_kind kind, uint64_t bytes, const char *name, vkm_buffer **buffer, vkm_error *err);
void vkm_buffer_destroy(vkm_buffer *buffer);
uint64_t vkm_buffer_size(const vkm_buffer *buffer);
uint64_t vkm_buffer_address(const vkm_buffer *buffer);   /* of its first byte, for kernels; 0 unless caps.scalar_loads */
/* NULL unless mapped. READBACK buffers always are; call invalidate after the device wrote, flush after the host wrote (no-ops on coherent memory). */
void *vkm_buffer_map(vkm_buffer *buffer);
vkm_result vkm_buffer_invalidate(vkm_buffer *buffer, uint64_t offset, uint64_t bytes, vkm_error *err);
vkm_result vkm_buffer_flush(vkm_buffer *buffer, uint64_t offset, uint64_t bytes, vkm_error *err);

/* Bytes that can still be allocated from the largest device-local heap: VK_EXT_memory_budget where present, else heap size less what this device has
 * allocated through us. An estimate, to fail early with a clear message. */
uint64_t vkm_device_budget(const vkm_device *device);
uint64_t vkm_device_allocated(const vkm_device *device);
/* What a buffer of so many bytes will be counted as in there. */
vkm_result vkm_buffer_needs(vkm_device *device, enum vkm_buffer_kind kind, uint64_t bytes, uint64_t *needs, vkm_error *err);

/* ------------------------------------------------ uploads: a staging ring, or straight into mapped memory */

typedef struct vkm_uploader vkm_uploader;
vkm_result vkm_uploader_create(vkm_device *device, uint64_t ring_bytes, vkm_uploader **uploader, vkm_error *err);
void vkm_uploader_destroy(vkm_uploader *uploader);   /* waits for what is in flight */
/* Where to write the bytes that shall land at [offset, offset + bytes) of `to`: the mapped buffer itself, or a piece of the ring (waiting for it to come free).
 * bytes <= ring_bytes / 2 and a multiple of 4. The pointer is write-only: it may be write-combined memory; any thread may write there until the region is ended.
 * Up to 64 regions are open at a time, n of at most b bytes for sure where ring_bytes >= (n + 1) b; without room it is VKM_ERR_ARGUMENT. */
vkm_result vkm_upload_begin(vkm_uploader *uploader, vkm_buffer *to, uint64_t offset, uint64_t bytes, void **where, vkm_error *err);
/* Ends the region that was opened first. */
vkm_result vkm_upload_end(vkm_uploader *uploader, vkm_error *err);
vkm_result vkm_upload_finish(vkm_uploader *uploader, vkm_error *err);  /* everything has arrived */
/* One region by an uploader of its own, with a ring of at most VKM_UPLOAD_RING bytes; it has arrived when this returns. */
#define VKM_UPLOAD_RING (4u << 20)
vkm_result vkm_upload_all(vkm_device *device, vkm_buffer *to, uint64_t offset, const void *from, uint64_t bytes, vkm_error *err);

#endif
