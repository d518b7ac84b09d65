/* Generation: sequences in lock-step, a token of each a pass. The device goes on by itself from token to token; the host reads what it has sampled out of a ring, and ends sequences. */
#include "session.h"
#include "host/platform.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* Tokens of one submission: as many as take about this long, so that text streams and a stop is soon obeyed, and at most so many. Two submissions are in flight. */
#define AHEAD_SECONDS 0.05
#define AHEAD_MOST 16u
_Static_assert(2 * AHEAD_MOST < VKM_RECENT, "the ring holds what is in flight");

/* A sequence that is being generated; those that go on are the first n of `rows`, in the order of the device's rows. */
struct row { uint32_t seq, index; size_t made, most; bool ignore_end, ended; };
struct generation {
    struct vkm_session *s;
    struct row *rows;
    uint32_t n;
    size_t ahead;
    bool ended;                                /* a row has: the others go on in a pass without it */
    vkm_token_fn on_token;
    void *user;
};

static uint32_t bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

vkm_result vkm_session_sampling_words(const struct vkm_session *s, const vkm_sampling_params *given, uint32_t words[VKM_SAMPLING_WORDS], vkm_error *err)
{
    vkm_sampling_params p = {0};
    if (given) memcpy(&p, given, given->struct_size && given->struct_size < sizeof p ? given->struct_size : sizeof p);
    if (p.repeat_last_n == 0) p.repeat_last_n = 64;
    if (p.repeat_last_n > VKM_RECENT) return vkm_fail(err, VKM_ERR_ARGUMENT, "repeat_last_n %u is more than %u", p.repeat_last_n, VKM_RECENT);
    if (!isfinite(p.temperature) || !isfinite(p.top_p) || !isfinite(p.min_p) || !isfinite(p.repeat_penalty) || p.repeat_penalty < 0 || p.min_p < 0 || p.min_p > 1)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "a sampling parameter is not a number or out of range");
    words[VKM_SAMPLING_SEED] = p.seed;
    words[VKM_SAMPLING_TEMPERATURE] = bits(p.temperature * s->model->h.logit_scale);   /* the workspace holds logits before granite's division */
    words[VKM_SAMPLING_TOP_K] = p.top_k;
    words[VKM_SAMPLING_TOP_P] = bits(p.top_p);
    words[VKM_SAMPLING_MIN_P] = bits(p.min_p);
    words[VKM_SAMPLING_PENALTY] = bits(p.repeat_penalty);
    words[VKM_SAMPLING_LAST_N] = p.repeat_last_n;
    words[VKM_SAMPLING_LOGIT_SCALE] = bits(s->model->h.logit_scale);
    return VKM_OK;
}

vkm_generation vkm_generation_at(const vkm_generation *all, size_t i)
{
    vkm_generation g = {0};
    size_t size = all->struct_size ? all->struct_size : sizeof g;
    memcpy(&g, (const char *)all + i * size, size < sizeof g ? size : sizeof g);
    return g;
}

/* Rows from the caller's array, all checked before anything happens. Sequences that cannot have a token are no rows. */
static vkm_result make_rows(struct generation *g, const vkm_generation *all, size_t n, vkm_error *err)
{
    struct vkm_session *s = g->s;
    uint32_t words[VKM_SAMPLING_WORDS];
    for (size_t i = 0; i < n; i++) {
        vkm_generation e = vkm_generation_at(all, i);
        TRY(vkm_session_check_sequence(s, e.seq, err));
        for (size_t k = 0; k < i; k++)
            if (vkm_generation_at(all, k).seq == e.seq) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u is to be generated twice", e.seq);
        const struct vkm_sequence *q = &s->sequences[e.seq];
        if (q->n_past == 0) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u is empty and cannot be gone on with: call vkm_session_eval first", e.seq);
        TRY(vkm_session_sampling_words(s, e.sampling, words, err));
        size_t room = s->n_ctx - q->n_past;
        struct row row = {.seq = e.seq, .index = (uint32_t)i, .most = e.n_tokens && e.n_tokens < room ? e.n_tokens : room, .ignore_end = e.ignore_end};
        if (row.most) g->rows[g->n++] = row;
    }
    return VKM_OK;
}

void vkm_session_recent(const struct vkm_sequence *q, uint32_t recent[VKM_RECENT])
{
    memset(recent, 0, VKM_RECENT * sizeof *recent);
    for (uint32_t p = q->n_past > VKM_RECENT ? q->n_past - VKM_RECENT : 0; p < q->n_past; p++) recent[p % VKM_RECENT] = (uint32_t)q->tokens[p];
}

/* The sampling state of the rows' sequences. */
static vkm_result write_sampling(struct generation *g, const vkm_generation *all, vkm_error *err)
{
    struct vkm_session *s = g->s;
    for (uint32_t i = 0; i < g->n; i++) {
        const struct vkm_sequence *q = &s->sequences[g->rows[i].seq];
        uint32_t words[VKM_SAMPLING_WORDS], recent[VKM_RECENT];
        TRY(vkm_session_sampling_words(s, vkm_generation_at(all, g->rows[i].index).sampling, words, err));
        vkm_session_recent(q, recent);
        TRY(vkm_workspace_write(s->model->device, s->workspace, ((uint64_t)s->space.sampling + g->rows[i].seq * VKM_SAMPLING_WORDS) * 4, words, sizeof words, err));
        TRY(vkm_workspace_write(s->model->device, s->workspace, ((uint64_t)s->space.recent + g->rows[i].seq * VKM_RECENT) * 4, recent, sizeof recent, err));
    }
    return VKM_OK;
}

/* Drops the rows that have ended, and tells the device who is left: each row is its sequence's last token. */
static vkm_result write_rows(struct generation *g, vkm_error *err)
{
    struct vkm_session *s = g->s;
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->rows[i].ended) continue;
        const struct vkm_sequence *q = &s->sequences[g->rows[i].seq];
        g->rows[n] = g->rows[i];
        s->words[n] = (uint32_t)q->tokens[q->n_past - 1];
        s->words[s->space.n_batch + n] = q->n_past - 1;
        s->words[2 * s->space.n_batch + n] = g->rows[n].seq;
        n++;
    }
    g->n = n;
    g->ended = false;
    return vkm_session_write_rows(s, n, err);
}

/* Reports the next n tokens of every row that goes on, out of the ring: a token of each, then the next of each. */
static vkm_result report(struct generation *g, size_t n, size_t *n_generated, vkm_error *err)
{
    struct vkm_session *s = g->s;
    TRY(vkm_buffer_invalidate(s->readback, 0, (uint64_t)s->n_seq * VKM_RECENT * 4, err));
    const uint32_t *ring = vkm_buffer_map(s->readback);
    for (; n > 0; n--)
        for (uint32_t i = 0; i < g->n; i++) {
            struct row *row = &g->rows[i];
            struct vkm_sequence *q = &s->sequences[row->seq];
            if (row->ended) continue;
            int32_t id = (int32_t)ring[(size_t)row->seq * VKM_RECENT + q->n_past % VKM_RECENT];
            if (id < 0 || (uint32_t)id >= s->model->h.n_vocab) return vkm_fail(err, VKM_ERR_VULKAN, "the device produced token %d for sequence %u, which is not in the vocabulary", id, row->seq);
            q->n_kv = q->n_past;                           /* what this was sampled from */
            q->tokens[q->n_past++] = id;
            q->has_last = false;
            n_generated[row->index] = ++row->made;
            if (g->on_token && !g->on_token(g->user, row->seq, id)) row->ended = true;
            if (!row->ignore_end && s->model->tokenizer && vkm_tokenizer_is_end(s->model->tokenizer, id)) row->ended = true;
            if (row->made == row->most) row->ended = true;
            g->ended |= row->ended;
        }
    return VKM_OK;
}

static double seconds(void) { return 1e-9 * (double)vkm_now_ns(); }

/* Passes over the same rows until one of them ends. Each evaluates the tokens that the one before it sampled, and samples the next. */
static vkm_result lock_step(struct generation *g, size_t *n_generated, vkm_error *err)
{
    struct vkm_session *s = g->s;
    const struct vkm_recipe recipe = {.n = g->n, .count = g->n, .each_its_own = true, .sample = true};
    if (s->params.audit || s->params.profile) {
        while (!g->ended) {
            TRY(vkm_session_run(s, recipe, err));
            TRY(report(g, 1, n_generated, err));
        }
        return VKM_OK;
    }
    vkm_program *p;
    TRY(vkm_session_program(s, recipe, &p, err));
    size_t left = SIZE_MAX, flying[2] = {0};               /* passes that no row is finished before; passes of each submission */
    uint64_t tickets[2] = {0};
    for (uint32_t i = 0; i < g->n; i++) if (g->rows[i].most - g->rows[i].made < left) left = g->rows[i].most - g->rows[i].made;
    double began = seconds();
    for (uint32_t turn = 0; ; turn ^= 1) {                 /* one submission runs while the tokens of the one before it are read */
        if (!g->ended && left) {
            size_t n = left < g->ahead ? left : g->ahead;
            TRY(vkm_program_submit(p, (uint32_t)n, &tickets[turn], err));
            flying[turn] = n;
            left -= n;
        }
        size_t n = flying[turn ^ 1];
        if (!n && !flying[turn]) return VKM_OK;
        if (!n) continue;
        TRY(vkm_wait(s->model->device, tickets[turn ^ 1], err));
        double now = seconds(), fit = AHEAD_SECONDS * (double)n / (now - began);
        began = now;
        g->ahead = fit >= AHEAD_MOST ? AHEAD_MOST : fit > 1 ? (size_t)fit : 1;
        flying[turn ^ 1] = 0;
        TRY(report(g, n, n_generated, err));
    }
}

static vkm_result generate(struct generation *g, const vkm_generation *all, size_t *n_generated, vkm_error *err)
{
    struct vkm_session *s = g->s;
    TRY(write_sampling(g, all, err));
    TRY(write_rows(g, err));
    bool kept = true;
    for (uint32_t i = 0; i < g->n; i++) kept &= s->sequences[g->rows[i].seq].has_last;
    if (kept && g->n) {                                    /* the first tokens without a pass */
        TRY(vkm_session_run(s, (struct vkm_recipe){.count = g->n, .of_last = true, .sample = true}, err));
        TRY(report(g, 1, n_generated, err));
    }
    while (true) {
        if (g->ended) TRY(write_rows(g, err));
        if (!g->n) return VKM_OK;
        TRY(lock_step(g, n_generated, err));
    }
}

vkm_result vkm_session_generate(vkm_session *s, vkm_generation *sequences, size_t n, vkm_token_fn on_token, void *user, vkm_error *err)
{
    if (n == 0) return VKM_OK;
    if (!sequences) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_generate: sequences is NULL");
    if (n > s->n_seq) return vkm_fail(err, VKM_ERR_ARGUMENT, "%zu sequences are to be generated, the session has %u", n, s->n_seq);
    struct generation g = {.s = s, .rows = calloc(n, sizeof *g.rows), .ahead = 1, .on_token = on_token, .user = user};
    size_t *made = calloc(n, sizeof *made);
    vkm_result r = g.rows && made ? make_rows(&g, sequences, n, err) : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t i = 0; !r && i < g.n; i++) r = vkm_frame_settle(s, g.rows[i].seq, true, err);
    if (!r) r = generate(&g, sequences, made, err);
    for (size_t i = 0; g.rows && i < n; i++) vkm_frame_changed(s, vkm_generation_at(sequences, i).seq);
    size_t size = sequences->struct_size ? sequences->struct_size : sizeof *sequences;
    for (size_t i = 0; !r && i < n; i++) memcpy((char *)sequences + i * size + offsetof(vkm_generation, n_generated), &made[i], sizeof *made);
    free(g.rows);
    free(made);
    return r;
}
