/* A sequence as bytes and back: a header, its tokens, the residual row after the last one if it is kept, then unit by unit (a layer's keys, its values) and kv head by kv head what the cache has.
 * Keys are in whole rounds of 32; nothing in them depends on n_ctx or on where a unit lies. Numbers are as the machine has them: the magic tells other byte orders. */
#include "session.h"
#include "host/slice.h"
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define MAGIC UINT64_C(0x716573656f6d6b76)
#define VERSION 1u
#define STAGING_BYTES (16u << 20)              /* units that travel together */

struct header {
    uint64_t magic;
    uint32_t version, header_bytes;
    uint64_t model, bytes, checksum;           /* bytes: of all; checksum: of what follows the header */
    uint32_t kv16, n_layer, n_head_kv, head, n_embd, n_past, n_kv, has_last;
};
_Static_assert(sizeof(struct header) == 72, "no padding");

static uint32_t unit_rows(uint32_t unit, uint32_t n_kv) { return unit % 2 ? n_kv : (uint32_t)vkm_align(n_kv, 32); }
static uint64_t token_bytes(const struct vkm_session *s) { return (uint64_t)s->model->h.head * (s->kv16 ? 2 : 4); }
static uint64_t unit_bytes(const struct vkm_session *s, uint32_t unit, uint32_t n_kv) { return s->model->h.n_head_kv * token_bytes(s) * unit_rows(unit, n_kv); }

static uint64_t saved_bytes(const struct vkm_session *s, uint32_t n_past, uint32_t n_kv, bool has_last)
{
    const struct vkm_hparams *h = &s->model->h;
    return sizeof(struct header) + 4ull * n_past + (has_last ? 4ull * h->n_embd : 0) + h->n_layer * (unit_bytes(s, 0, n_kv) + unit_bytes(s, 1, n_kv));
}

static vkm_result run_copies(struct vkm_session *s, vkm_error *err)
{
    uint64_t ticket;
    TRY(vkm_commands_submit(s->model->device, &ticket, err));
    return vkm_wait(s->model->device, ticket, err);
}

/* Keys behind the last belong to nobody, or to what was there before. */
static void clear_rest(const struct vkm_session *s, uint32_t unit, uint32_t n_kv, uint8_t *keys)
{
    uint32_t words = (uint32_t)(token_bytes(s) / 4), used = n_kv % 32;
    if (unit % 2 || !used) return;
    for (uint32_t i = 0; i < s->model->h.n_head_kv; i++) {
        uint8_t *round = keys + (i + 1) * token_bytes(s) * unit_rows(unit, n_kv) - 32 * token_bytes(s);
        for (uint32_t w = 0; w < words; w++) memset(round + (w * 32 + used) * 4, 0, (32 - used) * 4);
    }
}

/* Queues the copies of a unit between its place and `offset` of staging. */
static vkm_result copy_unit(struct vkm_session *s, uint32_t seq, uint32_t unit, uint32_t n_kv, vkm_buffer *staging, uint64_t offset, bool save, struct vkm_part *parts, vkm_error *err)
{
    const struct vkm_kv *l = &s->layers[unit / 2];
    uint64_t piece = token_bytes(s) * unit_rows(unit, n_kv);
    vkm_buffer *cache, *same;
    vkm_session_unit_parts(s, l, unit % 2 ? l->v_unit : l->k_unit, seq, seq, unit_rows(unit, n_kv), parts, &cache, &same);
    for (uint32_t i = 0; i < s->model->h.n_head_kv; i++) {
        if (save) parts[i].to = offset + i * piece;
        else      parts[i].from = offset + i * piece;
    }
    return vkm_buffer_copy(s->model->device, save ? cache : staging, save ? staging : cache, parts, s->model->h.n_head_kv, err);
}

/* All units of a sequence from the device to `data`, or the other way: as many at a time as staging holds. */
static vkm_result transfer(struct vkm_session *s, uint32_t seq, uint32_t n_kv, vkm_buffer *staging, uint8_t *to, const uint8_t *from, struct vkm_part *parts, vkm_error *err)
{
    uint32_t n = n_kv ? 2 * s->model->h.n_layer : 0, each = (uint32_t)(vkm_buffer_size(staging) / unit_bytes(s, 0, n_kv ? n_kv : 1));
    uint8_t *map = vkm_buffer_map(staging);
    for (uint32_t first = 0, next; first < n; first = next) {
        uint64_t bytes = 0;
        next = n - first < each ? n : first + each;
        for (uint32_t u = first; u < next; u++) bytes += unit_bytes(s, u, n_kv);
        if (from) {
            memcpy(map, from, bytes);
            from += bytes;
            TRY(vkm_buffer_flush(staging, 0, bytes, err));
        }
        for (uint32_t u = first, at = 0; u < next; at += (uint32_t)unit_bytes(s, u++, n_kv)) TRY(copy_unit(s, seq, u, n_kv, staging, at, !from, parts, err));
        TRY(run_copies(s, err));
        if (from) continue;
        TRY(vkm_buffer_invalidate(staging, 0, bytes, err));
        for (uint32_t u = first, at = 0; u < next; at += (uint32_t)unit_bytes(s, u++, n_kv)) clear_rest(s, u, n_kv, map + at);
        memcpy(to, map, bytes);
        to += bytes;
    }
    return VKM_OK;
}

/* The kept row after the last token. */
static vkm_result transfer_last(struct vkm_session *s, uint32_t seq, vkm_buffer *staging, void *to, const void *from, vkm_error *err)
{
    uint64_t bytes = 4ull * s->model->h.n_embd, at = ((uint64_t)s->space.last.at + (uint64_t)seq * s->space.last.ld) * 4;
    if (from) {
        memcpy(vkm_buffer_map(staging), from, bytes);
        TRY(vkm_buffer_flush(staging, 0, bytes, err));
        TRY(vkm_buffer_copy(s->model->device, staging, s->workspace, &(struct vkm_part){0, at, bytes}, 1, err));
        return run_copies(s, err);
    }
    TRY(vkm_buffer_copy(s->model->device, s->workspace, staging, &(struct vkm_part){at, 0, bytes}, 1, err));
    TRY(run_copies(s, err));
    TRY(vkm_buffer_invalidate(staging, 0, bytes, err));
    memcpy(to, vkm_buffer_map(staging), bytes);
    return VKM_OK;
}

static vkm_result move(struct vkm_session *s, uint32_t seq, uint32_t n_kv, bool has_last, uint8_t *to, const uint8_t *from, vkm_error *err)
{
    uint64_t most = unit_bytes(s, 0, n_kv), last = has_last ? 4ull * s->model->h.n_embd : 0, bytes = most < STAGING_BYTES ? STAGING_BYTES / (most ? most : 1) * most : most;
    uint64_t all = most * 2 * s->model->h.n_layer;
    if (bytes > all) bytes = all;
    if (bytes < last) bytes = last;
    if (!bytes) return VKM_OK;
    vkm_buffer *staging = NULL;
    struct vkm_part *parts = malloc(s->model->h.n_head_kv * sizeof *parts);
    vkm_result r = parts ? vkm_buffer_create(s->model->device, VKM_BUFFER_READBACK, bytes, "saved sequence", &staging, err) : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    if (!r && last) r = transfer_last(s, seq, staging, to, from, err);
    if (!r) r = transfer(s, seq, n_kv, staging, to ? to + last : NULL, from ? from + last : NULL, parts, err);
    vkm_buffer_destroy(staging);
    free(parts);
    return r;
}

static struct header header_of(const struct vkm_session *s, const struct vkm_sequence *q)
{
    const struct vkm_hparams *h = &s->model->h;
    return (struct header){.magic = MAGIC, .version = VERSION, .header_bytes = sizeof(struct header), .model = s->model->fingerprint, .bytes = saved_bytes(s, q->n_past, q->n_kv, q->has_last),
                           .kv16 = s->kv16, .n_layer = h->n_layer, .n_head_kv = h->n_head_kv, .head = h->head, .n_embd = h->n_embd, .n_past = q->n_past, .n_kv = q->n_kv, .has_last = q->has_last};
}

vkm_result vkm_session_save(vkm_session *s, uint32_t seq, void *data, size_t *bytes, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, seq, err));
    const struct vkm_sequence *q = &s->sequences[seq];
    if (!bytes || (*bytes && !data)) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_save: bytes, and data for them, are required");
    struct header h = header_of(s, q);
    if (h.bytes > SIZE_MAX) return vkm_fail(err, VKM_ERR_LIMIT, "sequence %u takes %llu bytes", seq, (unsigned long long)h.bytes);
    if (*bytes >= h.bytes) {
        TRY(vkm_frame_settle(s, seq, true, err));
        uint8_t *at = (uint8_t *)data + sizeof h;
        if (q->n_past) memcpy(at, q->tokens, 4ull * q->n_past);
        TRY(move(s, seq, q->n_kv, q->has_last, at + 4ull * q->n_past, NULL, err));
        h.checksum = vkm_hash(h.model, at, h.bytes - sizeof h);
        memcpy(data, &h, sizeof h);
    }
    *bytes = h.bytes;
    return VKM_OK;
}

/* Everything is checked before anything changes. */
static vkm_result check(const struct vkm_session *s, const uint8_t *data, size_t bytes, struct header *h, vkm_error *err)
{
    const struct header own = header_of(s, &(struct vkm_sequence){0});
    if (bytes < sizeof *h) return vkm_fail(err, VKM_ERR_FORMAT, "%zu bytes are no saved sequence", bytes);
    memcpy(h, data, sizeof *h);
    if (h->magic != MAGIC) return vkm_fail(err, VKM_ERR_FORMAT, "these bytes are no saved sequence");
    if (h->version != VERSION || h->header_bytes != sizeof *h) return vkm_fail(err, VKM_ERR_FORMAT, "a saved sequence of version %u; this is version %u", h->version, VERSION);
    if (h->model != own.model || h->n_layer != own.n_layer || h->n_head_kv != own.n_head_kv || h->head != own.head || h->n_embd != own.n_embd)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "the saved sequence is of another model");
    if (h->kv16 != own.kv16) return vkm_fail(err, VKM_ERR_ARGUMENT, "the saved sequence has keys and values of %s, the session of %s", h->kv16 ? "f16" : "f32", own.kv16 ? "f16" : "f32");
    if (h->n_past > s->n_ctx) return vkm_fail(err, VKM_ERR_CONTEXT_FULL, "the saved sequence has %u tokens, the context holds %u", h->n_past, s->n_ctx);
    if (h->n_kv > h->n_past || h->n_past - h->n_kv > 1 || h->has_last > 1 || (h->has_last && (h->n_kv != h->n_past || !h->n_past)))
        return vkm_fail(err, VKM_ERR_FORMAT, "a saved sequence of %u tokens, %u of them evaluated", h->n_past, h->n_kv);
    if (h->bytes != bytes || bytes != saved_bytes(s, h->n_past, h->n_kv, h->has_last)) return vkm_fail(err, VKM_ERR_FORMAT, "the saved sequence is %zu bytes long, and should be %llu", bytes,
                                                                                                       (unsigned long long)saved_bytes(s, h->n_past, h->n_kv, h->has_last));
    if (h->checksum != vkm_hash(h->model, data + sizeof *h, bytes - sizeof *h)) return vkm_fail(err, VKM_ERR_FORMAT, "the saved sequence is damaged");
    for (uint32_t i = 0; i < h->n_past; i++) {
        int32_t id;
        memcpy(&id, data + sizeof *h + 4ull * i, 4);
        if (id < 0 || (uint32_t)id >= s->model->h.n_vocab) return vkm_fail(err, VKM_ERR_FORMAT, "the saved sequence has token %d at %u, which is not in the vocabulary of %u", id, i, s->model->h.n_vocab);
    }
    return VKM_OK;
}

vkm_result vkm_session_restore(vkm_session *s, uint32_t seq, const void *data, size_t bytes, vkm_error *err)
{
    struct header h;
    TRY(vkm_session_check_sequence(s, seq, err));
    if (!data) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_restore: data is NULL");
    TRY(check(s, data, bytes, &h, err));
    TRY(vkm_frame_settle(s, seq, true, err));
    struct vkm_sequence *q = &s->sequences[seq];
    const uint8_t *at = (const uint8_t *)data + sizeof h;
    q->n_past = q->n_kv = 0;                               /* if the device fails there is nothing left of it */
    q->has_last = false;
    vkm_result r = move(s, seq, h.n_kv, h.has_last, NULL, at + 4ull * h.n_past, err);
    if (r == VKM_OK) {
        if (h.n_past) memcpy(q->tokens, at, 4ull * h.n_past);
        q->n_past = h.n_past;
        q->n_kv = h.n_kv;
        q->has_last = h.has_last;
    }
    vkm_frame_changed(s, seq);
    return r;
}
