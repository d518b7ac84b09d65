/* Uploads: into mapped buffers directly, into others through a ring of host memory that the queue copies from. */
#include "internal.h"
#include <stdlib.h>

#define PIECES 64   /* of the ring in flight; more than there can be large ones */

struct piece { uint64_t begin, end, ticket; };

struct vkm_uploader {
    vkm_device *device;
    vkm_buffer *ring;                          /* made when first needed: unified memory never does */
    uint64_t ring_bytes, head;                 /* next free byte */
    struct piece pieces[PIECES];               /* in flight, oldest first, from `first` on */
    uint32_t first, n;
    vkm_buffer *to;                            /* the open region; NULL: none */
    uint64_t offset, bytes, at;
};

vkm_result vkm_uploader_create(vkm_device *device, uint64_t ring_bytes, vkm_uploader **uploader, vkm_error *err)
{
    if (ring_bytes < 4096) return vkm_fail(err, VKM_ERR_ARGUMENT, "an upload ring of %llu bytes is too small", (unsigned long long)ring_bytes);
    vkm_uploader *u = calloc(1, sizeof *u);
    if (!u) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making an uploader");
    u->device = device;
    u->ring_bytes = ring_bytes;
    *uploader = u;
    return VKM_OK;
}

void vkm_uploader_destroy(vkm_uploader *u)
{
    if (!u) return;
    vkm_queue_idle(u->device, NULL);
    vkm_buffer_destroy(u->ring);
    free(u);
}

static vkm_result retire(vkm_uploader *u, vkm_error *err)
{
    vkm_result r = vkm_wait(u->device, u->pieces[u->first].ticket, err);
    u->first = (u->first + 1) % PIECES;
    u->n--;
    return r;
}

/* Finds room for the open region's bytes after `head`, or at the ring's begin, waiting for the pieces that still lie there. */
static vkm_result reserve(vkm_uploader *u, vkm_error *err)
{
    if (!u->ring) {
        vkm_result r = vkm_buffer_create(u->device, VKM_BUFFER_READBACK, u->ring_bytes, "upload ring", &u->ring, err);
        if (r) return r;
    }
    u->at = vkm_align(u->head, u->device->caps.copy_align);
    if (u->at > u->ring_bytes || u->bytes > u->ring_bytes - u->at) u->at = 0;
    for (uint32_t i = 0; i < u->n;) {   /* pieces retire in order: up to the last that overlaps */
        const struct piece *p = &u->pieces[(u->first + i) % PIECES];
        if (p->begin >= u->at + u->bytes || p->end <= u->at) { i++; continue; }
        for (; ; i--) {
            vkm_result r = retire(u, err);
            if (r) return r;
            if (!i) break;
        }
    }
    return u->n == PIECES ? retire(u, err) : VKM_OK;
}

vkm_result vkm_upload_begin(vkm_uploader *u, vkm_buffer *to, uint64_t offset, uint64_t bytes, void **where, vkm_error *err)
{
    vkm_result r = vkm_device_alive(u->device, err);
    if (r) return r;
    if (u->to) return vkm_fail(err, VKM_ERR_ARGUMENT, "uploading to %s: the upload to %s is still open", to->name, u->to->name);
    if (!bytes || bytes % 4 || offset % 4 || bytes > u->ring_bytes / 2 || offset > to->bytes || bytes > to->bytes - offset)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "uploading %llu bytes to %llu of %s (%llu bytes): not words inside it, or more than half the ring",
                        (unsigned long long)bytes, (unsigned long long)offset, to->name, (unsigned long long)to->bytes);
    u->offset = offset;
    u->bytes = bytes;
    if (to->map) {   /* what is queued may still write or read there */
        if ((r = vkm_queue_idle(u->device, err))) return r;
        *where = (char *)to->map + offset;
    } else {
        if ((r = reserve(u, err))) return r;
        *where = (char *)u->ring->map + u->at;
    }
    u->to = to;
    return VKM_OK;
}

vkm_result vkm_upload_end(vkm_uploader *u, vkm_error *err)
{
    if (!u->to) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_upload_end: no upload is open");
    vkm_buffer *to = u->to;
    u->to = NULL;
    if (to->map) return vkm_buffer_flush(to, u->offset, u->bytes, err);
    VkCommandBuffer commands;
    vkm_result r = vkm_buffer_flush(u->ring, u->at, u->bytes, err);
    if (!r) r = vkm_transient_begin(u->device, &commands, err);
    if (r) return r;
    u->device->vk.vkCmdCopyBuffer(commands, u->ring->handle, to->handle, 1, &(VkBufferCopy){.srcOffset = u->at, .dstOffset = u->offset, .size = u->bytes});
    struct piece *p = &u->pieces[(u->first + u->n) % PIECES];
    if ((r = vkm_queue_flush(u->device, &p->ticket, err))) return r;
    p->begin = u->at;
    p->end = u->head = u->at + u->bytes;
    u->n++;
    return VKM_OK;
}

vkm_result vkm_upload_finish(vkm_uploader *u, vkm_error *err)
{
    return vkm_queue_idle(u->device, err);
}
