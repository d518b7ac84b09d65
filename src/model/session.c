#include "session.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define MOST_SEQUENCES 65536u

/* ---------------------------------------------------------------- creation */

/* Where the keys and values of each layer lie, in as few buffers as the storage range allows. A layer has 2 n_seq units (abi.h): several layers share a slab,
 * or a layer has whole slabs of its own; all slabs of a layer are in one descriptor set. Nothing is allocated yet. */
static vkm_result plan_kv(struct vkm_session *s, uint64_t *total, vkm_error *err)
{
    const struct vkm_hparams *h = &s->model->h;
    const struct vkm_caps *caps = s->caps;
    uint32_t units = 2 * s->n_seq, most = caps->kv_slabs < VKM_KV_PARTS ? caps->kv_slabs : VKM_KV_PARTS;
    uint64_t bytes = (uint64_t)s->n_ctx * h->n_head_kv * h->head * (s->kv16 ? 2 : 4), fit = caps->storage_range / bytes;
    uint64_t parts = fit ? (units + fit - 1) / fit : UINT64_MAX;
    if (parts > most)
        return vkm_fail(err, VKM_ERR_LIMIT, "a context of %u for %u sequence%s needs %.1f MiB of keys a layer and as much of values; a sequence's must lie in one buffer, "
                        "and the device binds %u of %.1f MiB for them", s->n_ctx, s->n_seq, s->n_seq == 1 ? "" : "s", (double)bytes * s->n_seq / 0x1p20, most, (double)caps->storage_range / 0x1p20);
    if (caps->loop_iterations && vkm_attention_iterations(h->head, s->n_ctx) > caps->loop_iterations)
        return vkm_fail(err, VKM_ERR_LIMIT, "a context of %u is too long for this driver, which stops a shader's loops after %u iterations (%s; newer Mesa does not)", s->n_ctx, caps->loop_iterations, caps->driver_info);
    uint32_t sharing = parts > 1 ? 1 : fit / units < h->n_layer ? (uint32_t)(fit / units) : h->n_layer, in_slab = parts > 1 ? vkm_div_up(units, (uint32_t)parts) : units * sharing;
    s->n_kv = vkm_div_up(h->n_layer, sharing) * (uint32_t)parts;
    s->kv_in_set = caps->texel_loads ? (uint32_t)parts : caps->kv_slabs / (uint32_t)parts * (uint32_t)parts;    /* texel buffers are of a set's first */
    s->layers = calloc(h->n_layer, sizeof *s->layers);
    s->kv = calloc(s->n_kv, sizeof *s->kv);
    if (!s->layers || !s->kv) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t i = 0; i < h->n_layer; i++) {
        uint32_t slab = i / sharing * (uint32_t)parts, set = slab / s->kv_in_set, unit = (slab - set * s->kv_in_set) * in_slab + i % sharing * units;
        struct vkm_kv *l = &s->layers[i];
        *l = (struct vkm_kv){.k_unit = unit, .v_unit = unit + s->n_seq, .units = in_slab, .bytes = bytes, .set = set, .slab = set * s->kv_in_set, .n_parts = (uint32_t)parts};
        for (uint32_t k = 0; k < parts; k++) {
            uint64_t begin = (uint64_t)(i % sharing) * units, n = units - k * in_slab < in_slab ? units - k * in_slab : in_slab;
            l->parts[k] = (struct vkm_range){.begin = begin * bytes, .end = (begin + n) * bytes};
        }
    }
    *total = bytes * units * h->n_layer;
    return VKM_OK;
}

/* The layer after those that share slabs with layer i. */
static uint32_t layers_end(const struct vkm_session *s, uint32_t i)
{
    for (i++; i < s->model->h.n_layer && s->layers[i].parts[0].begin > 0; i++) {}
    return i;
}

uint64_t vkm_session_kv_bytes(const struct vkm_session *s, uint32_t i)
{
    uint32_t n_parts = s->layers[0].n_parts, layer = 0;
    if (i >= s->n_kv) return 0;
    for (uint32_t k = i / n_parts; k > 0; k--) layer = layers_end(s, layer);
    return s->layers[layers_end(s, layer) - 1].parts[i % n_parts].end;
}

static vkm_result create_kv(struct vkm_session *s, vkm_error *err)
{
    uint32_t n_layer = s->model->h.n_layer, made = 0;
    for (uint32_t i = 0, next; i < n_layer; i = next) {
        uint32_t n_parts = s->layers[i].n_parts;
        next = layers_end(s, i);
        for (uint32_t k = 0; k < n_parts; k++) {
            char name[32];
            snprintf(name, sizeof name, "KV cache %u", made);
            TRY(vkm_buffer_create(s->model->device, VKM_BUFFER_DEVICE, vkm_session_kv_bytes(s, made), name, &s->kv[made], err));
            TRY(vkm_buffer_clear(s->model->device, s->kv[made], err));          /* masked keys are multiplied by zero, so they must be finite */
            for (uint32_t l = i; l < next; l++) s->layers[l].parts[k].buffer = s->kv[made];
            made++;
        }
    }
    return VKM_OK;
}

static vkm_result create_bindings(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_model *m = s->model;
    uint32_t in_set = s->kv_in_set, kv_sets = vkm_div_up(s->n_kv, in_set);
    uint32_t n = m->weights.n_sets > kv_sets ? m->weights.n_sets : kv_sets;
    s->sets = calloc(n, sizeof *s->sets);
    if (!s->sets) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t i = 0; i < n; i++) {
        const struct vkm_slab_set *w = &m->weights.sets[i < m->weights.n_sets ? i : m->weights.n_sets - 1];
        uint32_t first = (i < kv_sets ? i : kv_sets - 1) * in_set;
        TRY(vkm_bindings_create(m->device, s->workspace, s->tables, m->weights.slabs + w->first, w->count, s->kv + first, s->n_kv - first < in_set ? s->n_kv - first : in_set, &s->sets[i], err));
        s->n_sets++;
    }
    return VKM_OK;
}

uint64_t vkm_session_table_words(const struct vkm_session *s, uint64_t words) { return words + vkm_rope_table(&s->model->h, s->model->freq_factors, s->n_ctx, NULL) + 2 * s->n_kv; }

/* The model's tables and behind them this session's rotation angles and the addresses of its KV slabs. */
static vkm_result create_tables(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_model *m = s->model;
    size_t bytes = vkm_session_table_words(s, m->weights.n_tables) * 4;
    uint32_t *words = malloc(bytes);
    if (!words) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    memcpy(words, m->weights.tables, (size_t)m->weights.n_tables * 4);
    vkm_rope_table(&m->h, m->freq_factors, s->n_ctx, (float *)(words + m->weights.n_tables));
    s->tab_rope = m->weights.n_tables;
    s->tab_kv = (uint32_t)(bytes / 4) - 2 * s->n_kv;
    for (uint32_t i = 0; i < s->n_kv; i++) {
        uint64_t address = vkm_buffer_address(s->kv[i]);
        memcpy(words + s->tab_kv + 2 * i, &address, sizeof address);
    }
    vkm_result r = vkm_tables_create(m->device, words, bytes / 4, &s->tables, err);
    free(words);
    return r;
}

uint64_t vkm_session_tally(const struct vkm_session *s, uint64_t *bytes)
{
    *bytes = (uint64_t)s->model->h.n_layer * s->model->h.n_expert * 4;
    return ((uint64_t)s->n_seq * VKM_RECENT + (uint64_t)s->space.head_rows * s->space.logits.ld) * 4;
}

uint64_t vkm_session_readback_bytes(const struct vkm_session *s)
{
    uint64_t bytes;
    return vkm_session_tally(s, &bytes) + bytes;
}

static vkm_result plan_workspace(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_caps *caps = s->caps;
    uint64_t range = caps->storage_range;
    uint32_t n_batch = s->params.n_batch ? s->params.n_batch : 512;
    if (n_batch > s->n_ctx) n_batch = s->n_ctx;
    for (;; n_batch = (n_batch + 1) / 2) {
        if (n_batch < s->n_seq) n_batch = s->n_seq;        /* a token of each sequence in one pass */
        vkm_space_plan(s->model, caps, n_batch, s->n_seq, &s->space);
        if (s->space.words * 4 <= range) return VKM_OK;
        if (n_batch == s->n_seq)
            return vkm_fail(err, VKM_ERR_LIMIT, "the workspace for one token of %u sequence%s needs %llu bytes, the device's storage range is %llu", s->n_seq, s->n_seq == 1 ? "" : "s",
                            (unsigned long long)s->space.words * 4, (unsigned long long)range);
    }
}

static vkm_result create_workspace(struct vkm_session *s, vkm_error *err)
{
    TRY(vkm_buffer_create(s->model->device, VKM_BUFFER_DEVICE, s->space.words * 4, "workspace", &s->workspace, err));
    TRY(vkm_buffer_clear(s->model->device, s->workspace, err));
    TRY(vkm_buffer_create(s->model->device, VKM_BUFFER_READBACK, vkm_session_readback_bytes(s), "readback", &s->readback, err));
    uint64_t bytes, at = vkm_session_tally(s, &bytes);     /* may be asked for before anything has run */
    memset((char *)vkm_buffer_map(s->readback) + at, 0, bytes);
    return vkm_buffer_flush(s->readback, at, bytes, err);
}

static vkm_result create_sequences(struct vkm_session *s, vkm_error *err)
{
    s->sequences = calloc(s->n_seq, sizeof *s->sequences);
    int32_t *tokens = s->sequences ? calloc((size_t)s->n_seq * s->n_ctx, sizeof *tokens) : NULL;
    s->words = malloc((size_t)3 * s->space.n_batch * sizeof *s->words);
    if (s->sequences) s->sequences[0].tokens = tokens;
    if (!s->sequences || !tokens || !s->words) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory for %u sequences of %u tokens", s->n_seq, s->n_ctx);
    for (uint32_t i = 1; i < s->n_seq; i++) s->sequences[i].tokens = tokens + (size_t)i * s->n_ctx;
    return VKM_OK;
}

vkm_result vkm_session_plan(struct vkm_session *s, vkm_model *model, const struct vkm_caps *caps, const vkm_session_params *params, uint64_t *kv, vkm_error *err)
{
    s->model = model;
    s->caps = caps;
    if (params) memcpy(&s->params, params, params->struct_size && params->struct_size < sizeof *params ? params->struct_size : sizeof *params);
    uint64_t n_ctx = s->params.n_ctx ? s->params.n_ctx : model->h.n_ctx_train < 4096 ? model->h.n_ctx_train : 4096;
    s->n_ctx = (uint32_t)vkm_align(n_ctx, 32);
    s->n_seq = s->params.n_seq ? s->params.n_seq : 1;
    s->kv16 = s->params.kv_type != VKM_KV_F32;
    if (n_ctx > INT32_MAX) return vkm_fail(err, VKM_ERR_ARGUMENT, "a context of %llu is too large", (unsigned long long)n_ctx);
    if (s->n_seq > MOST_SEQUENCES) return vkm_fail(err, VKM_ERR_ARGUMENT, "%u sequences are more than %u", s->n_seq, MOST_SEQUENCES);
    TRY(plan_kv(s, kv, err));
    return plan_workspace(s, err);
}

/* Everything is planned before, so that what does not fit fails before anything is allocated. */
static vkm_result create(struct vkm_session *s, uint64_t kv, vkm_error *err)
{
    uint64_t work = s->space.words * 4 + vkm_session_readback_bytes(s), have = vkm_device_budget(s->model->device);
    if (kv > have || work > have - kv)
        return vkm_fail(err, VKM_ERR_DEVICE_MEMORY, "a context of %u for %u sequence%s needs %.2f GiB for the KV cache and %.2f GiB to work in, the device has %.2f GiB left", s->n_ctx, s->n_seq,
                        s->n_seq == 1 ? "" : "s", (double)kv / 0x1p30, (double)work / 0x1p30, (double)have / 0x1p30);
    TRY(create_sequences(s, err));
    TRY(create_kv(s, err));
    TRY(create_workspace(s, err));
    TRY(create_tables(s, err));
    return create_bindings(s, err);
}

static void load_tuning(struct vkm_session *s)
{
    const vkm_device *device = s->model->device;
    const struct vkm_tuning_key key = vkm_tuning_key_of(vkm_device_caps(device), &s->shape);
    const char *why, *folder = s->params.tuning_folder;
    s->is_tuned = vkm_tuning_load(folder, &key, &s->tuning, &why);
    if (why) vkm_logf(device, VKM_LOG_INFO, "the tuning in %s is not used: %s", folder, why);
    s->params.tuning_folder = NULL;                        /* was borrowed */
}

vkm_result vkm_session_create(vkm_model *model, const vkm_session_params *params, vkm_session **session, vkm_error *err)
{
    if (!model || !session) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_create: model and session are required");
    struct vkm_session *s = calloc(1, sizeof *s);
    if (!s) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    uint64_t kv = 0;
    vkm_result r = vkm_session_plan(s, model, vkm_device_caps(model->device), params, &kv, err);
    vkm_shape_choose(s->caps, &s->shape);
    if (s->params.tuning_folder) load_tuning(s);
    if (r == VKM_OK) r = create(s, kv, err);
    if (r != VKM_OK) { vkm_session_destroy(s); return r; }
    *session = s;
    return VKM_OK;
}

void vkm_session_destroy(vkm_session *s)
{
    if (!s) return;
    vkm_frame_destroy(s);
    for (uint32_t i = 0; i < VKM_PROGRAMS; i++) vkm_program_destroy(s->slots[i].program);
    for (uint32_t i = 0; i < s->n_sets; i++) vkm_bindings_destroy(s->sets[i]);
    for (uint32_t i = 0; s->kv && i < s->n_kv; i++) vkm_buffer_destroy(s->kv[i]);
    vkm_buffer_destroy(s->workspace);
    vkm_buffer_destroy(s->tables);
    vkm_buffer_destroy(s->readback);
    if (s->sequences) free(s->sequences[0].tokens);
    free(s->kv); free(s->layers); free(s->sets); free(s->sequences); free(s->words);
    free(s);
}

/* ---------------------------------------------------------------- sequences */

uint32_t vkm_session_n_ctx(const vkm_session *s) { return s->n_ctx; }
uint32_t vkm_session_n_seq(const vkm_session *s) { return s->n_seq; }
uint32_t vkm_session_n_past(const vkm_session *s, uint32_t seq) { return seq < s->n_seq ? s->sequences[seq].n_past : 0; }

vkm_result vkm_session_check_sequence(const struct vkm_session *s, uint32_t seq, vkm_error *err)
{
    return seq < s->n_seq ? VKM_OK : vkm_fail(err, VKM_ERR_ARGUMENT, "there is no sequence %u: the session has %u", seq, s->n_seq);
}

static void cut(struct vkm_sequence *q, uint32_t n)
{
    if (n < q->n_past) q->has_last = false;
    q->n_past = n;
    if (q->n_kv > n) q->n_kv = n;
}

vkm_result vkm_session_rewind(vkm_session *s, uint32_t seq, uint32_t n, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, seq, err));
    struct vkm_sequence *q = &s->sequences[seq];
    if (n > q->n_past) return vkm_fail(err, VKM_ERR_ARGUMENT, "cannot rewind to token %u: sequence %u has %u", n, seq, q->n_past);
    TRY(vkm_frame_settle(s, seq, false, err));
    cut(q, n);
    vkm_frame_changed(s, seq);
    return VKM_OK;
}

/* Where unit u of the KV cache, counted from the layer's first of its set, lies. */
static vkm_buffer *unit_buffer(const struct vkm_session *s, const struct vkm_kv *l, uint32_t u, uint64_t *offset)
{
    *offset = u % l->units * l->bytes;
    return s->kv[l->set * s->kv_in_set + u / l->units];
}

void vkm_session_unit_parts(const struct vkm_session *s, const struct vkm_kv *l, uint32_t unit, uint32_t from, uint32_t to, uint32_t n, struct vkm_part *parts, vkm_buffer **a, vkm_buffer **b)
{
    uint32_t n_heads = s->model->h.n_head_kv;
    uint64_t at_from, at_to, head = l->bytes / n_heads, token = head / s->n_ctx;
    *a = unit_buffer(s, l, unit + from, &at_from);
    *b = unit_buffer(s, l, unit + to, &at_to);
    for (uint32_t i = 0; i < n_heads; i++) parts[i] = (struct vkm_part){at_from + i * head, at_to + i * head, n * token};
}

static vkm_result copy_unit(struct vkm_session *s, const struct vkm_kv *l, uint32_t unit, uint32_t from, uint32_t to, uint32_t n, struct vkm_part *parts, vkm_error *err)
{
    vkm_buffer *a, *b;
    vkm_session_unit_parts(s, l, unit, from, to, n, parts, &a, &b);
    return vkm_buffer_copy(s->model->device, a, b, parts, s->model->h.n_head_kv, err);
}

vkm_result vkm_session_copy(vkm_session *s, uint32_t from, uint32_t to, uint32_t n, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, from, err));
    TRY(vkm_session_check_sequence(s, to, err));
    const struct vkm_sequence *a = &s->sequences[from];
    struct vkm_sequence *b = &s->sequences[to];
    if (from == to) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u cannot be copied to itself", from);
    if (n > a->n_past) return vkm_fail(err, VKM_ERR_ARGUMENT, "cannot copy %u tokens: sequence %u has %u", n, from, a->n_past);
    TRY(vkm_frame_settle(s, to, true, err));
    uint32_t n_kv = n < a->n_kv ? n : a->n_kv;
    struct vkm_part *parts = malloc(s->model->h.n_head_kv * sizeof *parts);
    vkm_result r = parts ? VKM_OK : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    cut(b, 0);                                             /* if it fails there is nothing left of it */
    for (uint32_t i = 0; !r && n_kv && i < s->model->h.n_layer; i++) {
        r = copy_unit(s, &s->layers[i], s->layers[i].k_unit, from, to, (uint32_t)vkm_align(n_kv, 32), parts, err);
        if (!r) r = copy_unit(s, &s->layers[i], s->layers[i].v_unit, from, to, n_kv, parts, err);
    }
    bool has_last = a->has_last && n == a->n_past;
    uint64_t row = (uint64_t)s->space.last.ld * 4, last = (uint64_t)s->space.last.at * 4;
    if (!r && has_last) r = vkm_buffer_copy(s->model->device, s->workspace, s->workspace, &(struct vkm_part){last + from * row, last + to * row, row}, 1, err);
    free(parts);
    vkm_frame_changed(s, to);
    if (r) return r;
    memcpy(b->tokens, a->tokens, n * sizeof *b->tokens);
    b->n_past = n;
    b->n_kv = n_kv;
    b->has_last = has_last;
    vkm_frame_changed(s, to);
    return VKM_OK;
}

/* ---------------------------------------------------------------- running */

vkm_result vkm_session_run(struct vkm_session *s, struct vkm_recipe recipe, vkm_error *err)
{
    vkm_program *p;
    uint64_t ticket;
    TRY(vkm_session_program(s, recipe, &p, err));
    if (s->params.audit) return vkm_program_audit(p, err);
    if (s->params.profile) return vkm_program_profile(p, err);
    TRY(vkm_program_submit(p, 1, &ticket, err));
    return vkm_wait(s->model->device, ticket, err);
}

vkm_result vkm_session_write_rows(struct vkm_session *s, uint32_t n, vkm_error *err)
{
    const uint32_t most = 65536 / 4, to[3] = {s->space.tokens, s->space.pos, s->space.seq};   /* what vkm_workspace_write takes */
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t at = 0; at < n; at += most)
            TRY(vkm_workspace_write(s->model->device, s->workspace, ((uint64_t)to[i] + at) * 4, s->words + (size_t)i * s->space.n_batch + at, (n - at < most ? n - at : most) * 4, err));
    return VKM_OK;
}

static vkm_result read_logits(struct vkm_session *s, uint32_t rows, float *to, vkm_error *err)
{
    const struct vkm_hparams *h = &s->model->h;
    uint32_t ld = s->space.logits.ld, at = s->n_seq * VKM_RECENT;
    TRY(vkm_buffer_invalidate(s->readback, (uint64_t)at * 4, (uint64_t)rows * ld * 4, err));
    const float *from = (const float *)vkm_buffer_map(s->readback) + at;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t v = 0; v < h->n_vocab; v++) to[(size_t)i * h->n_vocab + v] = h->logit_scale == 1 ? from[(size_t)i * ld + v] : from[(size_t)i * ld + v] / h->logit_scale;
    return VKM_OK;
}

/* One pass over the next n tokens of a sequence, at most n_batch, beginning with the first that is not evaluated. logits: of the rows from `skip` on. */
static vkm_result pass(struct vkm_session *s, uint32_t seq, uint32_t n, uint32_t skip, float *logits, vkm_error *err)
{
    struct vkm_sequence *q = &s->sequences[seq];
    for (uint32_t i = 0; i < n; i++) {
        s->words[i] = (uint32_t)q->tokens[q->n_kv + i];
        s->words[s->space.n_batch + i] = q->n_kv + i;
        s->words[2 * s->space.n_batch + i] = seq;
    }
    q->has_last = false;
    TRY(vkm_session_write_rows(s, n, err));
    bool done = false;
    for (uint32_t at = skip; logits && at < n; at += s->space.head_rows) {
        uint32_t rows = n - at < s->space.head_rows ? n - at : s->space.head_rows;
        TRY(vkm_session_run(s, (struct vkm_recipe){.n = done ? 0 : n, .first = at, .count = rows, .read_logits = true}, err));
        TRY(read_logits(s, rows, logits + (size_t)(at - skip) * s->model->h.n_vocab, err));
        done = true;
    }
    if (!done) TRY(vkm_session_run(s, (struct vkm_recipe){.n = n}, err));
    q->n_kv += n;
    if (q->n_past < q->n_kv) q->n_past = q->n_kv;
    q->has_last = q->n_past == q->n_kv;
    return VKM_OK;
}

vkm_result vkm_session_check_tokens(const struct vkm_session *s, uint32_t used, const int32_t *tokens, size_t n, vkm_error *err)
{
    if (!tokens) return vkm_fail(err, VKM_ERR_ARGUMENT, "tokens is NULL");
    if (n > s->n_ctx - used) return vkm_fail(err, VKM_ERR_CONTEXT_FULL, "%zu tokens do not fit: the context holds %u, %u are used", n, s->n_ctx, used);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->h.n_vocab) return vkm_fail(err, VKM_ERR_ARGUMENT, "token %d at %zu is not in the vocabulary of %u", tokens[i], i, s->model->h.n_vocab);
    return VKM_OK;
}

vkm_result vkm_session_eval(vkm_session *s, uint32_t seq, const int32_t *tokens, size_t n, float *logits, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, seq, err));
    if (n == 0) return VKM_OK;
    struct vkm_sequence *q = &s->sequences[seq];
    TRY(vkm_session_check_tokens(s, q->n_past, tokens, n, err));
    TRY(vkm_frame_settle(s, seq, true, err));
    memcpy(q->tokens + q->n_past, tokens, n * sizeof *tokens);
    uint32_t end = q->n_past + (uint32_t)n, skip = q->n_past - q->n_kv;   /* a token that was generated and not evaluated goes first */
    while (q->n_kv < end) {
        uint32_t part = end - q->n_kv < s->space.n_batch ? end - q->n_kv : s->space.n_batch;
        vkm_result r = pass(s, seq, part, skip, logits, err);
        vkm_frame_changed(s, seq);
        if (r != VKM_OK) return r;
        if (logits) logits += (size_t)(part - skip) * s->model->h.n_vocab;
        skip = 0;
    }
    return VKM_OK;
}

size_t vkm_session_print(vkm_session *s, uint32_t n, bool decode, char *text, size_t size)
{
    vkm_text t = {text, size, 0};
    vkm_program *p;
    vkm_error err = {0};
    uint32_t most = decode ? s->n_seq : s->space.n_batch;
    if (n > most) n = most;
    if (n < 1) n = 1;
    struct vkm_recipe recipe = decode ? (struct vkm_recipe){.n = n, .count = n, .each_its_own = true, .sample = true} : (struct vkm_recipe){.n = n};
    if (vkm_session_program(s, recipe, &p, &err) == VKM_OK) vkm_program_print(p, &t);
    else vkm_textf(&t, "%s\n", err.message);
    return t.used;
}
