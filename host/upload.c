/* Uploads: into mapped buffers directly, into others through a ring of host memory that the queue copies from. */
#include "internal.h"
#include <stdlib.h>
#include <string.h>

#define PIECES 64   /* regions that are open or in flight; more than there can be large ones */

struct piece {
    vkm_buffer *to;
    uint64_t offset, bytes;
    uint64_t begin, end;                       /* of the ring; both 0: written in place */
    uint64_t ticket;                           /* once it is in flight; 0 is done */
};

struct vkm_uploader {
    vkm_device *device;
    vkm_buffer *ring;                          /* made when first needed: unified memory never does */
    uint64_t ring_bytes, head;                 /* next free byte */
    struct piece pieces[PIECES];               /* oldest first, from `first` on: n_flight that were ended, then n_open that were not */
    uint32_t first, n_flight, n_open;
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

static struct piece *piece_at(vkm_uploader *u, uint32_t i) { return &u->pieces[(u->first + i) % PIECES]; }

static vkm_result retire(vkm_uploader *u, vkm_error *err)
{
    vkm_result r = vkm_wait(u->device, piece_at(u, 0)->ticket, err);
    u->first = (u->first + 1) % PIECES;
    u->n_flight--;
    return r;
}

/* Finds room for `bytes` after `head`, or at the ring's begin, waiting for the pieces that still lie there. */
static vkm_result reserve(vkm_uploader *u, uint64_t bytes, uint64_t *at, vkm_error *err)
{
    if (!u->ring) {
        vkm_result r = vkm_buffer_create(u->device, VKM_BUFFER_READBACK, u->ring_bytes, "upload ring", &u->ring, err);
        if (r) return r;
    }
    *at = vkm_align(u->head, u->device->caps.copy_align);
    if (*at > u->ring_bytes || bytes > u->ring_bytes - *at) *at = 0;
    uint32_t go = 0;                           /* pieces go in order: up to the last that overlaps */
    for (uint32_t i = 0; i < u->n_flight + u->n_open; i++)
        if (piece_at(u, i)->begin < *at + bytes && piece_at(u, i)->end > *at) go = i + 1;
    if (go > u->n_flight) return vkm_fail(err, VKM_ERR_ARGUMENT, "the upload ring of %llu bytes has no room beside %u open regions", (unsigned long long)u->ring_bytes, u->n_open);
    for (; go > 0; go--) {
        vkm_result r = retire(u, err);
        if (r) return r;
    }
    return VKM_OK;
}

vkm_result vkm_upload_begin(vkm_uploader *u, vkm_buffer *to, uint64_t offset, uint64_t bytes, void **where, vkm_error *err)
{
    vkm_result r = vkm_device_alive(u->device, err);
    if (r) return r;
    if (!bytes || bytes % 4 || offset % 4 || bytes > u->ring_bytes / 2 || offset > to->bytes || bytes > to->bytes - offset)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "uploading %llu bytes to %llu of %s (%llu bytes): not words inside it, or more than half the ring",
                        (unsigned long long)bytes, (unsigned long long)offset, to->name, (unsigned long long)to->bytes);
    if (u->n_open == PIECES) return vkm_fail(err, VKM_ERR_ARGUMENT, "uploading to %s: %u regions are open", to->name, u->n_open);
    if (u->n_flight + u->n_open == PIECES && (r = retire(u, err))) return r;
    uint64_t at = 0;
    if (to->map) r = vkm_queue_idle(u->device, err);   /* what is queued may still write or read there */
    else         r = reserve(u, bytes, &at, err);
    if (r) return r;
    *where = to->map ? (char *)to->map + offset : (char *)u->ring->map + at;
    struct piece *p = piece_at(u, u->n_flight + u->n_open++);
    *p = (struct piece){.to = to, .offset = offset, .bytes = bytes};
    if (to->map) return VKM_OK;
    p->begin = at;
    p->end = u->head = at + bytes;
    return VKM_OK;
}

vkm_result vkm_upload_end(vkm_uploader *u, vkm_error *err)
{
    if (!u->n_open) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_upload_end: no upload is open");
    struct piece *p = piece_at(u, u->n_flight++);
    u->n_open--;
    if (p->to->map) return vkm_buffer_flush(p->to, p->offset, p->bytes, err);
    VkCommandBuffer commands;
    vkm_result r = vkm_buffer_flush(u->ring, p->begin, p->bytes, err);
    if (!r) r = vkm_transient_begin(u->device, &commands, err);
    if (r) return r;
    u->device->vk.vkCmdCopyBuffer(commands, u->ring->handle, p->to->handle, 1, &(VkBufferCopy){.srcOffset = p->begin, .dstOffset = p->offset, .size = p->bytes});
    return vkm_queue_flush(u->device, &p->ticket, err);
}

vkm_result vkm_upload_finish(vkm_uploader *u, vkm_error *err)
{
    return vkm_queue_idle(u->device, err);
}

vkm_result vkm_upload_all(vkm_device *device, vkm_buffer *to, uint64_t offset, const void *from, uint64_t bytes, vkm_error *err)
{
    const uint64_t part = bytes > VKM_UPLOAD_RING / 4 ? VKM_UPLOAD_RING / 4 : bytes < 1024 ? 1024 : bytes;
    vkm_uploader *u = NULL;
    vkm_result r = vkm_uploader_create(device, 4 * part, &u, err);
    for (uint64_t at = 0; !r && at < bytes; at += part) {
        uint64_t n = bytes - at < part ? bytes - at : part;
        void *where = NULL;
        r = vkm_upload_begin(u, to, offset + at, n, &where, err);
        if (r) break;
        memcpy(where, (const char *)from + at, n);
        r = vkm_upload_end(u, err);
    }
    if (!r) r = vkm_upload_finish(u, err);
    vkm_uploader_destroy(u);
    return r;
}
