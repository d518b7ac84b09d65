#include "session.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* Tokens of one submission: as many as take about this long, so that text streams and a stop is soon obeyed, and at most so many. Two submissions are in flight. */
#define AHEAD_SECONDS 0.05
#define AHEAD_MOST 16u
_Static_assert(2 * AHEAD_MOST <= VKM_OUT, "the ring holds what is in flight");

/* ---------------------------------------------------------------- creation */

/* One K and one V range a layer, in as few buffers as the storage range allows; both of a layer in one descriptor set. */
static vkm_result create_kv(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_hparams *h = &s->model->h;
    const struct vkm_caps *caps = vkm_device_caps(s->model->device);
    uint64_t bytes = (uint64_t)s->n_ctx * h->n_head_kv * h->head * (s->kv16 ? 2 : 4), fit = caps->storage_range / bytes;
    uint32_t parts = 2 * h->n_layer, each = fit < 2 ? (uint32_t)fit : fit < parts ? (uint32_t)fit / 2 * 2 : parts;
    s->kv_in_set = each == 1 ? caps->kv_slabs / 2 * 2 : caps->kv_slabs;
    if (each == 0 || s->kv_in_set == 0)
        return vkm_fail(err, VKM_ERR_LIMIT, "a context of %u needs %.1f MiB of keys a layer and as much of values; the device binds %u buffers of %.1f MiB for them", s->n_ctx,
                        (double)bytes / 0x1p20, caps->kv_slabs, (double)caps->storage_range / 0x1p20);
    if (caps->loop_iterations && vkm_attention_iterations(h->head, s->n_ctx) > caps->loop_iterations)
        return vkm_fail(err, VKM_ERR_LIMIT, "a context of %u is too long for this driver, which stops a shader's loops after %u iterations (%s; newer Mesa does not)", s->n_ctx, caps->loop_iterations, caps->driver_info);
    uint64_t need = bytes * parts, have = vkm_device_budget(s->model->device);
    if (need > have)
        return vkm_fail(err, VKM_ERR_DEVICE_MEMORY, "a context of %u needs %.2f GiB for the KV cache, the device has %.2f GiB left", s->n_ctx, (double)need / 0x1p30, (double)have / 0x1p30);
    s->layers = calloc(h->n_layer, sizeof *s->layers);
    s->kv = calloc(vkm_div_up(parts, each), sizeof *s->kv);
    if (!s->layers || !s->kv) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t first = 0; first < parts; first += each) {
        uint32_t n = parts - first < each ? parts - first : each;
        char name[32];
        snprintf(name, sizeof name, "KV cache %u", s->n_kv);
        TRY(vkm_buffer_create(s->model->device, VKM_BUFFER_DEVICE, bytes * n, name, &s->kv[s->n_kv], err));
        TRY(vkm_buffer_clear(s->model->device, s->kv[s->n_kv++], err));     /* masked keys are multiplied by zero, so they must be finite */
    }
    for (uint32_t i = 0; i < h->n_layer; i++) {
        uint32_t k = 2 * i, v = 2 * i + 1, set = k / each / s->kv_in_set;
        s->layers[i] = (struct vkm_kv){.k = s->kv[k / each], .v = s->kv[v / each], .k_slab = k / each - set * s->kv_in_set, .v_slab = v / each - set * s->kv_in_set,
                                       .k_offset = (uint32_t)(k % each * bytes / 4), .v_offset = (uint32_t)(v % each * bytes / 4), .set = set, .bytes = bytes};
    }
    return VKM_OK;
}

static vkm_result create_bindings(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_model *m = s->model;
    uint32_t in_set = s->kv_in_set, kv_sets = vkm_div_up(s->n_kv, in_set);
    uint32_t n = m->n_sets > kv_sets ? m->n_sets : kv_sets;
    s->sets = calloc(n, sizeof *s->sets);
    if (!s->sets) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t i = 0; i < n; i++) {
        const struct vkm_slab_set *w = &m->sets[i < m->n_sets ? i : m->n_sets - 1];
        uint32_t first = (i < kv_sets ? i : kv_sets - 1) * in_set;
        TRY(vkm_bindings_create(m->device, s->workspace, s->tables, m->slabs + w->first, w->count, s->kv + first, s->n_kv - first < in_set ? s->n_kv - first : in_set, &s->sets[i], err));
        s->n_sets++;
    }
    return VKM_OK;
}

/* The model's tables and behind them this session's rotation angles. */
static vkm_result create_tables(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_model *m = s->model;
    size_t rope = vkm_rope_table(&m->h, m->freq_factors, s->n_ctx, NULL), bytes = ((size_t)m->n_tables + rope) * 4;
    uint32_t *words = malloc(bytes);
    if (!words) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    memcpy(words, m->tables, (size_t)m->n_tables * 4);
    vkm_rope_table(&m->h, m->freq_factors, s->n_ctx, (float *)(words + m->n_tables));
    s->tab_rope = m->n_tables;
    vkm_uploader *u = NULL;
    vkm_result r = vkm_buffer_create(m->device, VKM_BUFFER_DEVICE, bytes, "tables", &s->tables, err);
    if (r == VKM_OK) r = vkm_uploader_create(m->device, 4 << 20, &u, err);
    for (size_t at = 0; r == VKM_OK && at < bytes; at += 1 << 20) {
        void *where;
        size_t n = bytes - at < 1 << 20 ? bytes - at : 1 << 20;
        r = vkm_upload_begin(u, s->tables, at, n, &where, err);
        if (r == VKM_OK) { memcpy(where, (char *)words + at, n); r = vkm_upload_end(u, err); }
    }
    if (r == VKM_OK) r = vkm_upload_finish(u, err);
    vkm_uploader_destroy(u);
    free(words);
    return r;
}

static vkm_result create_workspace(struct vkm_session *s, vkm_error *err)
{
    const struct vkm_caps *caps = vkm_device_caps(s->model->device);
    uint32_t n_batch = s->params.n_batch ? s->params.n_batch : 512;
    if (n_batch > s->n_ctx) n_batch = s->n_ctx;
    vkm_space_plan(s->model, n_batch, &s->space);
    while (s->space.words * 4 > caps->storage_range && n_batch > 1) vkm_space_plan(s->model, n_batch = (n_batch + 1) / 2, &s->space);
    if (s->space.words * 4 > caps->storage_range)
        return vkm_fail(err, VKM_ERR_LIMIT, "the workspace for one token needs %llu bytes, the device's storage range is %llu", (unsigned long long)s->space.words * 4, (unsigned long long)caps->storage_range);
    TRY(vkm_buffer_create(s->model->device, VKM_BUFFER_DEVICE, s->space.words * 4, "workspace", &s->workspace, err));
    TRY(vkm_buffer_clear(s->model->device, s->workspace, err));
    return vkm_buffer_create(s->model->device, VKM_BUFFER_READBACK, (VKM_STATE_TOKENS + (uint64_t)s->space.head_rows * s->space.logits.ld) * 4, "readback", &s->readback, err);
}

vkm_result vkm_session_create(vkm_model *model, const vkm_session_params *params, vkm_session **session, vkm_error *err)
{
    if (!model || !session) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_create: model and session are required");
    struct vkm_session *s = calloc(1, sizeof *s);
    if (!s) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    s->model = model;
    if (params) memcpy(&s->params, params, params->struct_size && params->struct_size < sizeof *params ? params->struct_size : sizeof *params);
    uint64_t n_ctx = s->params.n_ctx ? s->params.n_ctx : model->h.n_ctx_train < 4096 ? model->h.n_ctx_train : 4096;
    s->n_ctx = (uint32_t)vkm_align(n_ctx, 32);
    s->kv16 = s->params.kv_type != VKM_KV_F32;
    vkm_shape_choose(vkm_device_caps(model->device), &s->shape);
    vkm_result r = n_ctx > INT32_MAX ? vkm_fail(err, VKM_ERR_ARGUMENT, "a context of %llu is too large", (unsigned long long)n_ctx) : create_kv(s, err);
    if (r == VKM_OK) r = create_workspace(s, err);
    if (r == VKM_OK) r = create_tables(s, err);
    if (r == VKM_OK) r = create_bindings(s, err);
    if (r != VKM_OK) { vkm_session_destroy(s); return r; }
    *session = s;
    return VKM_OK;
}

void vkm_session_destroy(vkm_session *s)
{
    if (!s) return;
    for (uint32_t i = 0; i < VKM_PROGRAMS; i++) vkm_program_destroy(s->slots[i].program);
    for (uint32_t i = 0; i < s->n_sets; i++) vkm_bindings_destroy(s->sets[i]);
    for (uint32_t i = 0; i < s->n_kv; i++) vkm_buffer_destroy(s->kv[i]);
    vkm_buffer_destroy(s->workspace);
    vkm_buffer_destroy(s->tables);
    vkm_buffer_destroy(s->readback);
    free(s->kv); free(s->layers); free(s->sets);
    free(s);
}

uint32_t vkm_session_n_ctx(const vkm_session *s) { return s->n_ctx; }
uint32_t vkm_session_n_past(const vkm_session *s) { return s->n_past; }

vkm_result vkm_session_rewind(vkm_session *s, uint32_t n, vkm_error *err)
{
    if (n > s->n_past) return vkm_fail(err, VKM_ERR_ARGUMENT, "cannot rewind to token %u: the session has %u", n, s->n_past);
    if (n < s->n_past) s->has_logits = false;
    s->n_past = n;
    return VKM_OK;
}

/* ---------------------------------------------------------------- running */

static vkm_result run(struct vkm_session *s, struct vkm_recipe recipe, vkm_error *err)
{
    vkm_program *p;
    uint64_t ticket;
    TRY(vkm_session_program(s, recipe, &p, err));
    if (s->params.audit) return vkm_program_audit(p, err);
    if (s->params.profile) return vkm_program_profile(p, err);
    TRY(vkm_program_submit(p, 1, &ticket, err));
    return vkm_wait(s->model->device, ticket, err);
}

static vkm_result read_logits(struct vkm_session *s, uint32_t rows, float *to, vkm_error *err)
{
    const struct vkm_hparams *h = &s->model->h;
    uint32_t ld = s->space.logits.ld;
    TRY(vkm_buffer_invalidate(s->readback, VKM_STATE_TOKENS * 4, (uint64_t)rows * ld * 4, err));
    const float *from = (const float *)vkm_buffer_map(s->readback) + VKM_STATE_TOKENS;
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t v = 0; v < h->n_vocab; v++) to[(size_t)i * h->n_vocab + v] = h->logit_scale == 1 ? from[(size_t)i * ld + v] : from[(size_t)i * ld + v] / h->logit_scale;
    return VKM_OK;
}

/* One pass over at most n_batch tokens. */
static vkm_result pass(struct vkm_session *s, const int32_t *ids, uint32_t n, float *logits, bool last, vkm_error *err)
{
    uint32_t words[2 * 512];
    for (uint32_t at = 0; at < n; at += 512) {
        uint32_t part = n - at < 512 ? n - at : 512;
        for (uint32_t i = 0; i < part; i++) { words[i] = (uint32_t)ids[at + i]; words[part + i] = s->n_past + at + i; }
        uint64_t state = ((uint64_t)s->space.state + VKM_STATE_TOKENS + at) * 4;
        TRY(vkm_workspace_write(s->model->device, s->workspace, state, words, part * 4, err));
        TRY(vkm_workspace_write(s->model->device, s->workspace, state + s->space.n_batch * 4, words + part, part * 4, err));
    }
    s->has_logits = false;
    if (!logits) {
        TRY(run(s, (struct vkm_recipe){.n = n, .first = n - 1, .count = last}, err));
        s->has_logits = last;
        return VKM_OK;
    }
    for (uint32_t at = 0; at < n; at += s->space.head_rows) {
        uint32_t rows = n - at < s->space.head_rows ? n - at : s->space.head_rows;
        TRY(run(s, (struct vkm_recipe){.n = at ? 0 : n, .first = at, .count = rows, .read_logits = true}, err));
        TRY(read_logits(s, rows, logits + (size_t)at * s->model->h.n_vocab, err));
    }
    if (last && n > 1) {                                   /* leave the last row's logits where sampling expects them */
        TRY(run(s, (struct vkm_recipe){.first = n - 1, .count = 1}, err));
    }
    s->has_logits = last;
    return VKM_OK;
}

vkm_result vkm_session_eval(vkm_session *s, const int32_t *tokens, size_t n, float *logits, vkm_error *err)
{
    if (n == 0) return VKM_OK;
    if (!tokens) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_eval: tokens is NULL");
    if (n > s->n_ctx - s->n_past) return vkm_fail(err, VKM_ERR_CONTEXT_FULL, "%zu tokens do not fit: the context holds %u, %u are used", n, s->n_ctx, s->n_past);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->h.n_vocab) return vkm_fail(err, VKM_ERR_ARGUMENT, "token %d at %zu is not in the vocabulary of %u", tokens[i], i, s->model->h.n_vocab);
    for (size_t at = 0; at < n; ) {
        uint32_t part = n - at < s->space.n_batch ? (uint32_t)(n - at) : s->space.n_batch;
        TRY(pass(s, tokens + at, part, logits ? logits + at * s->model->h.n_vocab : NULL, at + part == n, err));
        for (uint32_t i = 0; i < part; i++) s->recent[(s->n_past + i) % VKM_RECENT] = tokens[at + i];
        s->n_past += part;
        at += part;
    }
    return VKM_OK;
}

static uint32_t bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

static vkm_result write_sampling(struct vkm_session *s, const vkm_sampling_params *given, vkm_error *err)
{
    vkm_sampling_params p = {0};
    if (given) memcpy(&p, given, given->struct_size && given->struct_size < sizeof p ? given->struct_size : sizeof p);
    if (p.repeat_last_n == 0) p.repeat_last_n = 64;
    if (p.repeat_last_n > VKM_RECENT) return vkm_fail(err, VKM_ERR_ARGUMENT, "repeat_last_n %u is more than %u", p.repeat_last_n, VKM_RECENT);
    if (!isfinite(p.temperature) || !isfinite(p.top_p) || !isfinite(p.min_p) || !isfinite(p.repeat_penalty) || p.repeat_penalty < 0 || p.min_p < 0 || p.min_p > 1)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "a sampling parameter is not a number or out of range");
    uint32_t state[VKM_STATE_TOKENS] = {0};
    state[VKM_STATE_SEED] = p.seed;
    state[VKM_STATE_TEMPERATURE] = bits(p.temperature * s->model->h.logit_scale);   /* the workspace holds logits before granite's division */
    state[VKM_STATE_LOGIT_SCALE] = bits(s->model->h.logit_scale);
    state[VKM_STATE_TOP_K] = p.top_k;
    state[VKM_STATE_TOP_P] = bits(p.top_p);
    state[VKM_STATE_MIN_P] = bits(p.min_p);
    state[VKM_STATE_PENALTY] = bits(p.repeat_penalty);
    state[VKM_STATE_LAST_N] = p.repeat_last_n;
    state[VKM_STATE_N_RECENT] = s->n_past;
    for (uint32_t i = 0; i < VKM_RECENT; i++) state[VKM_STATE_RECENT + i] = (uint32_t)s->recent[i];
    TRY(vkm_workspace_write(s->model->device, s->workspace, (uint64_t)s->space.state * 4, state, sizeof state, err));
    uint32_t position = s->n_past - 1;                     /* of the token whose logits are there; sampling advances it */
    return vkm_workspace_write(s->model->device, s->workspace, ((uint64_t)s->space.state + VKM_STATE_TOKENS + s->space.n_batch) * 4, &position, 4, err);
}

static double seconds(void) { struct timespec t; timespec_get(&t, TIME_UTC); return (double)t.tv_sec + (double)t.tv_nsec * 1e-9; }

struct generation { vkm_session *s; bool ignore_end; vkm_token_fn on_token; void *user; size_t seen; bool stop; };

/* Reports tokens up to number n (counted from the call's start) out of the ring. */
static vkm_result report(struct generation *g, size_t n, vkm_error *err)
{
    vkm_session *s = g->s;
    TRY(vkm_buffer_invalidate(s->readback, 0, VKM_STATE_TOKENS * 4, err));
    const uint32_t *state = vkm_buffer_map(s->readback);
    for (; g->seen < n && !g->stop; g->seen++) {
        int32_t id = (int32_t)state[VKM_STATE_OUT + g->seen % VKM_OUT];
        if (id < 0 || (uint32_t)id >= s->model->h.n_vocab) return vkm_fail(err, VKM_ERR_VULKAN, "the device produced token %d, which is not in the vocabulary", id);
        s->recent[s->n_past % VKM_RECENT] = id;
        s->n_past++;                                       /* the device evaluates it in the pass that follows */
        if (g->on_token && !g->on_token(g->user, id)) g->stop = true;
        if (!g->ignore_end && s->model->tokenizer && vkm_tokenizer_is_end(s->model->tokenizer, id)) g->stop = true;
    }
    return VKM_OK;
}

vkm_result vkm_session_generate(vkm_session *s, const vkm_sampling_params *sampling, size_t n_tokens, bool ignore_end, vkm_token_fn on_token, void *user, size_t *n_generated, vkm_error *err)
{
    if (!s->has_logits) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_generate needs the logits of a token: call vkm_session_eval first");
    struct generation g = {.s = s, .ignore_end = ignore_end, .on_token = on_token, .user = user};
    if (n_tokens > s->n_ctx - s->n_past) n_tokens = s->n_ctx - s->n_past;
    if (n_tokens == 0) { if (n_generated) *n_generated = 0; return VKM_OK; }
    TRY(write_sampling(s, sampling, err));

    /* The first sample uses the logits that are there. Then each run evaluates the token that the run before it sampled, and samples the next. */
    TRY(run(s, (struct vkm_recipe){.sample = true}, err));
    TRY(report(&g, 1, err));
    const struct vkm_recipe next = {.n = 1, .count = 1, .sample = true};
    vkm_program *p;
    TRY(vkm_session_program(s, next, &p, err));
    bool stepwise = s->params.audit || s->params.profile;
    uint64_t tickets[2] = {0};
    size_t queued = 1, waited = 1, batch_end[2] = {0}, ahead = 1;
    double began = seconds();
    for (uint32_t turn = 0; !g.stop && waited < n_tokens; turn ^= 1) {
        if (stepwise) {
            TRY(run(s, next, err));
            TRY(report(&g, ++waited, err));
            continue;
        }
        if (queued < n_tokens) {                           /* one batch of tokens runs while the one before it is read */
            size_t n = n_tokens - queued < ahead ? n_tokens - queued : ahead;
            TRY(vkm_program_submit(p, (uint32_t)n, &tickets[turn], err));
            batch_end[turn] = queued += n;
        }
        if (batch_end[turn ^ 1] > waited || queued >= n_tokens) {
            uint32_t which = batch_end[turn ^ 1] > waited ? turn ^ 1 : turn;
            TRY(vkm_wait(s->model->device, tickets[which], err));
            waited = batch_end[which];
            double fit = AHEAD_SECONDS * (double)(waited - 1) / (seconds() - began);    /* NaN or negative when a clock jumped: one */
            ahead = fit >= AHEAD_MOST ? AHEAD_MOST : fit > 1 ? (size_t)fit : 1;
            TRY(report(&g, waited, err));
            if (which == turn) turn ^= 1;
        }
    }
    if (!stepwise && queued > waited) TRY(vkm_wait(s->model->device, tickets[0] > tickets[1] ? tickets[0] : tickets[1], err));
    /* The last token reported has been sampled, and evaluated only if more was queued behind it. */
    s->n_past--;
    int32_t last = s->recent[s->n_past % VKM_RECENT];
    if (n_generated) *n_generated = g.seen;
    return vkm_session_eval(s, &last, 1, NULL, err);
}

size_t vkm_session_print(vkm_session *s, uint32_t n_tokens, char *text, size_t size)
{
    vkm_text t = {text, size, 0};
    vkm_program *p;
    vkm_error err = {0};
    if (n_tokens < 1) n_tokens = 1;
    if (n_tokens > s->space.n_batch) n_tokens = s->space.n_batch;
    if (vkm_session_program(s, (struct vkm_recipe){.n = n_tokens, .first = n_tokens - 1, .count = 1}, &p, &err) == VKM_OK) vkm_program_print(p, &t);
    else vkm_textf(&t, "%s\n", err.message);
    return t.used;
}
