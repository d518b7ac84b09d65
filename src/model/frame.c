/* Sessions in a frame: passes for queued work, recorded by slices. The device knows tokens before the host does: rows of a pass that generates come from the ring of recent tokens, so passes can be
 * recorded ahead, in any order with prompts. Nothing that is recorded is ever taken back on the device; what turns out not to count is overwritten by what comes after it. */
#include "frame.h"
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define SLICE_US 50000.0                       /* a slice without a budget takes whole passes until they are expected to take so long: short enough for watchdogs, and for text to stream.
                                                * Not by steps: what they take is first guessed, hundreds of times too long on a CPU driver, and a slice of a step has more overhead than work */
#define SLICE_MOST 16u                         /* tokens of a sequence in one */
#define AHEAD_MOST 128u                        /* in flight */
#define PREFIX_LEAST 8u                        /* tokens in common that are worth copying */
_Static_assert(AHEAD_MOST < VKM_RECENT, "the ring holds what is in flight");

/* ---------------------------------------------------------------- what recording needs */

/* 1, 2, 3, 4, 6, 8, 12, 16 ... */
static uint32_t chunk_size(uint32_t i) { return i == 0 ? 1 : i % 2 ? 2u << i / 2 : 3u << (i / 2 - 1); }

static vkm_result create_frame(struct vkm_session *s, vkm_error *err)
{
    struct vkm_frame *f = calloc(1, sizeof *f);
    if (!f) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    uint32_t n = s->n_seq, n_parts = s->model->h.n_head_kv > n ? s->model->h.n_head_kv : n;
    f->capacity = n * AHEAD_MOST + 256;
    f->tasks = calloc(n, sizeof *f->tasks);
    f->rows = calloc(n, sizeof *f->rows);
    f->there = calloc(n, sizeof *f->there);
    f->parts = calloc(n_parts, sizeof *f->parts);
    f->generations = calloc(n + 1, sizeof *f->generations);
    f->deliveries = calloc(f->capacity, sizeof *f->deliveries);
    vkm_result r = f->tasks && f->rows && f->there && f->parts && f->generations && f->deliveries ? vkm_slicer_create(s->model->device, &f->slicer, err)
                                                                                                  : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory for %u sequences", n);
    if (r != VKM_OK) { s->frame = f; vkm_frame_destroy(s); return r; }
    for (uint32_t i = 0; i < n; i++) f->tasks[i].done = s->sequences[i].n_kv;
    s->frame = f;
    return VKM_OK;
}

void vkm_frame_destroy(struct vkm_session *s)
{
    struct vkm_frame *f = s->frame;
    if (!f) return;
    for (uint32_t i = 0; i < VKM_CHUNKS; i++) vkm_program_destroy(f->prompts[i]);
    for (uint32_t i = 0; f->generations && i <= s->n_seq; i++) vkm_program_destroy(f->generations[i]);
    vkm_slicer_destroy(f->slicer);
    free(f->tasks); free(f->rows); free(f->there); free(f->parts); free(f->generations); free(f->deliveries);
    free(f);
    s->frame = NULL;
}

static vkm_result prepare_program(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err)
{
    if (*program) return VKM_OK;
    vkm_program *made;
    TRY(vkm_session_build(s, recipe, &made, err));
    vkm_result r = vkm_slicer_learn(s->frame->slicer, made, err);
    if (r != VKM_OK) vkm_program_destroy(made);
    else *program = made;
    return r;
}

static vkm_result prepare(struct vkm_session *s, uint32_t n_tokens, uint32_t n_generating, vkm_error *err)
{
    if (!s->frame) TRY(create_frame(s, err));
    for (uint32_t i = 0; n_tokens && i < VKM_CHUNKS && chunk_size(i) <= s->space.n_batch; i++) {
        TRY(prepare_program(s, (struct vkm_recipe){.n = chunk_size(i)}, &s->frame->prompts[i], err));
        if (chunk_size(i) >= n_tokens) break;
    }
    for (uint32_t n = 1; n <= n_generating; n++) TRY(prepare_program(s, (struct vkm_recipe){.n = n, .count = n, .each_its_own = true, .sample = true}, &s->frame->generations[n], err));
    return VKM_OK;
}

vkm_result vkm_session_prepare(vkm_session *s, uint32_t n_tokens, uint32_t n_generating, vkm_error *err)
{
    if (n_generating > s->n_seq) return vkm_fail(err, VKM_ERR_ARGUMENT, "%u sequences cannot generate: the session has %u", n_generating, s->n_seq);
    return prepare(s, n_tokens ? n_tokens : UINT32_MAX, n_generating ? n_generating : s->n_seq, err);
}

/* ---------------------------------------------------------------- the queue */

static bool is_queued(const struct vkm_task *t) { return t->n_prompt || t->generating; }

vkm_result vkm_session_queue_eval(vkm_session *s, uint32_t seq, const int32_t *tokens, size_t n, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, seq, err));
    struct vkm_sequence *q = &s->sequences[seq];
    uint32_t queued = s->frame ? s->frame->tasks[seq].n_prompt : 0;
    if (n == 0) return VKM_OK;
    if (s->frame && s->frame->tasks[seq].generating) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u is generating: tokens can be queued when it has ended or was cancelled", seq);
    TRY(vkm_session_check_tokens(s, q->n_past + queued, tokens, n, err));
    TRY(prepare(s, q->n_past - q->n_kv + queued + (uint32_t)n, 0, err));
    struct vkm_task *t = &s->frame->tasks[seq];
    memcpy(q->tokens + q->n_past + t->n_prompt, tokens, n * sizeof *tokens);
    if (!t->n_prompt) t->turn = ++s->frame->turns;
    t->n_prompt += (uint32_t)n;
    t->dropped = false;
    return VKM_OK;
}

vkm_result vkm_session_queue_generate(vkm_session *s, const vkm_generation *generation, vkm_error *err)
{
    uint32_t words[VKM_SAMPLING_WORDS], generating = 1;
    if (!generation) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_queue_generate: generation is NULL");
    vkm_generation g = vkm_generation_at(generation, 0);
    TRY(vkm_session_check_sequence(s, g.seq, err));
    struct vkm_task *t = s->frame ? &s->frame->tasks[g.seq] : NULL;
    uint32_t there = s->sequences[g.seq].n_past + (t ? t->n_prompt : 0);
    if (!there) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u is empty and cannot be gone on with: call vkm_session_queue_eval first", g.seq);
    if (t && t->generating) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u is generating already", g.seq);
    TRY(vkm_session_sampling_words(s, g.sampling, words, err));
    for (uint32_t i = 0; s->frame && i < s->n_seq; i++) generating += s->frame->tasks[i].generating;
    TRY(prepare(s, 0, generating, err));
    t = &s->frame->tasks[g.seq];
    memcpy(t->sampling, words, sizeof words);
    size_t space = s->n_ctx - there;
    t->most = g.n_tokens && g.n_tokens < space ? g.n_tokens : space;
    t->generating = t->most > 0;
    t->started = t->dropped = false;
    t->ignore_end = g.ignore_end;
    t->made = 0;
    t->ending = t->most ? VKM_END_NONE : VKM_END_CONTEXT;
    return VKM_OK;
}

/* What was recorded for the sequence and is not completed does not count any more. */
static void drop(struct vkm_task *t)
{
    t->generating = false;
    t->n_prompt = t->ahead = 0;
    t->epoch++;
}

vkm_result vkm_session_cancel(vkm_session *s, uint32_t seq, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, seq, err));
    if (!s->frame) return VKM_OK;
    struct vkm_task *t = &s->frame->tasks[seq];
    if (t->generating) t->ending = VKM_END_CANCELLED;
    if (is_queued(t)) drop(t);
    t->dropped = true;
    return VKM_OK;
}

vkm_result vkm_session_status(const vkm_session *s, uint32_t seq, vkm_sequence_status *status, vkm_error *err)
{
    TRY(vkm_session_check_sequence(s, seq, err));
    if (!status) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_status: status is NULL");
    *status = (vkm_sequence_status){.n_past = s->sequences[seq].n_past};
    if (!s->frame) return VKM_OK;
    const struct vkm_task *t = &s->frame->tasks[seq];
    status->n_queued = t->n_prompt;
    status->generating = t->generating;
    status->n_ahead = t->ahead;
    status->n_generated = t->made;
    status->ending = t->ending;
    return VKM_OK;
}

/* The pass that is being recorded begins again: what others do with the workspace, or slices that never ran, spoil it. All that is known of tokens is on the host then. */
static void restart(struct vkm_session *s)
{
    struct vkm_frame *f = s->frame;
    f->pass = (struct vkm_pass){0};
    f->n_there = 0;
    for (uint32_t i = 0; i < s->n_seq; i++) f->tasks[i].started = false;
}

vkm_result vkm_frame_settle(struct vkm_session *s, uint32_t seq, bool runs, vkm_error *err)
{
    struct vkm_frame *f = s->frame;
    if (!f) return VKM_OK;
    if (runs && vkm_slicer_in_flight(f->slicer)) return vkm_fail(err, VKM_ERR_ARGUMENT, "%u slices are in flight: complete or discard them first", vkm_slicer_in_flight(f->slicer));
    if (seq != VKM_NONE && is_queued(&f->tasks[seq])) return vkm_fail(err, VKM_ERR_ARGUMENT, "sequence %u has queued work: cancel it first, or complete it", seq);
    if (seq != VKM_NONE) f->tasks[seq].epoch++;
    if (runs) restart(s);
    return VKM_OK;
}

void vkm_frame_changed(struct vkm_session *s, uint32_t seq)
{
    if (!s->frame || seq >= s->n_seq) return;
    struct vkm_task *t = &s->frame->tasks[seq];
    if (!vkm_slicer_in_flight(s->frame->slicer) || t->done > s->sequences[seq].n_kv) t->done = s->sequences[seq].n_kv;
}

/* ---------------------------------------------------------------- choosing a pass */

/* Tokens that are to be evaluated as a prompt: the last before a generation is a row of its first pass. */
static uint32_t prompt_left(const struct vkm_session *s, uint32_t seq)
{
    const struct vkm_sequence *q = &s->sequences[seq];
    const struct vkm_task *t = &s->frame->tasks[seq];
    return t->n_prompt ? q->n_past + t->n_prompt - (t->generating ? 1 : 0) - q->n_kv : 0;
}

static uint32_t first_prompt(const struct vkm_session *s)
{
    uint32_t found = VKM_NONE;
    for (uint32_t i = 0; i < s->n_seq; i++)
        if (prompt_left(s, i) && (found == VKM_NONE || s->frame->tasks[i].turn < s->frame->tasks[found].turn)) found = i;
    return found;
}

/* Whether the sequence's next token can be had. */
static bool is_ready(const struct vkm_session *s, uint32_t seq)
{
    const struct vkm_task *t = &s->frame->tasks[seq];
    return t->generating && !prompt_left(s, seq) && t->made + t->ahead < t->most && t->ahead < AHEAD_MOST;
}

static bool anything(const struct vkm_session *s)
{
    const struct vkm_frame *f = s->frame;
    if (f->pass.kind != VKM_PASS_NONE) return true;
    if (f->capacity - f->n < s->n_seq + 1) return false;
    for (uint32_t i = 0; i < s->n_seq; i++) if (prompt_left(s, i) || is_ready(s, i)) return true;
    return false;
}

static bool more(const struct vkm_session *s)
{
    const struct vkm_frame *f = s->frame;
    if (f->pass.kind != VKM_PASS_NONE) return true;
    for (uint32_t i = 0; i < s->n_seq; i++) if (f->tasks[i].n_prompt || (f->tasks[i].generating && f->tasks[i].made + f->tasks[i].ahead < f->tasks[i].most)) return true;
    return false;
}

/* Tokens that the empty sequence's prompt has in common with what another has evaluated; one at least is left to be computed. */
static uint32_t common_prefix(const struct vkm_session *s, uint32_t seq, uint32_t *from)
{
    uint32_t best = 0, left = prompt_left(s, seq);
    for (uint32_t i = 0; i < s->n_seq; i++) {
        const struct vkm_sequence *q = &s->sequences[i];
        uint32_t n = 0, most = q->n_kv < q->n_past ? q->n_kv : q->n_past;
        if (most > left - 1) most = left - 1;
        if (i == seq || most <= best) continue;
        while (n < most && q->tokens[n] == s->sequences[seq].tokens[n]) n++;
        if (n > best) best = n, *from = i;
    }
    return best >= PREFIX_LEAST ? best : 0;
}

/* The chunk for the next `left` tokens of a prompt, of which `before` were evaluated: the smallest that holds all, its first rows evaluating once more what lies before them; or the largest that they fill. */
static uint32_t choose_chunk(const struct vkm_session *s, uint32_t before, uint32_t left, uint32_t max_us)
{
    const struct vkm_frame *f = s->frame;
    uint32_t i = 0;
    while (i + 1 < VKM_CHUNKS && f->prompts[i + 1] && chunk_size(i) < left) i++;
    if (chunk_size(i) > left && chunk_size(i) - left > before) i--;
    while (i > 0 && !vkm_slicer_fits(f->slicer, f->prompts[i], before, max_us)) i--;
    return i;
}

static void begin_prompt(struct vkm_session *s, uint32_t seq, uint32_t max_us)
{
    struct vkm_frame *f = s->frame;
    struct vkm_sequence *q = &s->sequences[seq];
    uint32_t from, left = prompt_left(s, seq), n = q->n_past ? 0 : common_prefix(s, seq, &from);
    f->rows[0] = (struct vkm_row){seq, f->tasks[seq].epoch};
    f->n_there = 0;
    q->has_last = false;
    if (n) {
        f->pass = (struct vkm_pass){.kind = VKM_PASS_COPY, .n = n, .from = from};
        return;
    }
    uint32_t chunk = choose_chunk(s, q->n_kv, left, max_us), size = chunk_size(chunk), first = q->n_kv + (size < left ? size : left) - size;
    f->pass = (struct vkm_pass){.kind = VKM_PASS_PROMPT, .n = size, .first = first, .program = f->prompts[chunk], .load = first + size / 2};
}

static void begin_generation(struct vkm_session *s)
{
    struct vkm_frame *f = s->frame;
    uint32_t n = 0;
    double load = 0;
    for (uint32_t i = 0; i < s->n_seq; i++) {
        if (!is_ready(s, i)) continue;
        struct vkm_task *t = &f->tasks[i];
        s->sequences[i].n_past += t->n_prompt;             /* the prompt's last token, if it was left for this */
        t->n_prompt = 0;
        s->sequences[i].has_last = false;
        load += s->sequences[i].n_past + t->ahead;
        f->rows[n++] = (struct vkm_row){i, t->epoch};
    }
    f->pass = (struct vkm_pass){.kind = VKM_PASS_GENERATE, .n = n, .program = f->generations[n], .load = load / n};
}

/* Prompts and tokens take turns. */
static bool next_pass(struct vkm_session *s, uint32_t max_us)
{
    struct vkm_frame *f = s->frame;
    bool ready = false;
    if (f->capacity - f->n < s->n_seq + 1) return false;
    for (uint32_t i = 0; i < s->n_seq && !ready && f->in_slice < SLICE_MOST; i++) ready = is_ready(s, i);
    uint32_t prompt = first_prompt(s);
    if (prompt == VKM_NONE && !ready) return false;
    bool is_prompt = prompt != VKM_NONE && !(ready && f->prompt_was_last);
    if (is_prompt) begin_prompt(s, prompt, max_us);
    else begin_generation(s);
    f->prompt_was_last = is_prompt;
    return true;
}

/* ---------------------------------------------------------------- recording a pass */

static void write_words(struct vkm_session *s, uint32_t at, const uint32_t *words, uint32_t n)
{
    for (uint32_t i = 0, most = 65536 / 4; i < n; i += most)
        vkm_slicer_write(s->frame->slicer, s->workspace, ((uint64_t)at + i) * 4, words + i, (n - i < most ? n - i : most) * 4);
}

static void write_prompt(struct vkm_session *s)
{
    const struct vkm_frame *f = s->frame;
    const struct vkm_pass *p = &f->pass;
    uint32_t seq = f->rows[0].seq;
    for (uint32_t i = 0; i < p->n; i++) s->words[i] = p->first + i;
    write_words(s, s->space.pos, s->words, p->n);
    for (uint32_t i = 0; i < p->n; i++) s->words[i] = seq;
    write_words(s, s->space.seq, s->words, p->n);
    write_words(s, s->space.tokens, (const uint32_t *)s->sequences[seq].tokens + p->first, p->n);
}

/* Rows of a pass that generates: the pass before it has left them there if it was for the same sequences; else tokens come from the ring of recent ones. */
static void write_generation(struct vkm_session *s)
{
    struct vkm_frame *f = s->frame;
    bool there = f->n_there == f->pass.n;
    for (uint32_t i = 0; i < f->pass.n; i++) {
        struct vkm_task *t = &f->tasks[f->rows[i].seq];
        there &= f->there[i] == f->rows[i].seq && t->started;
        if (t->started) continue;
        uint32_t seq = f->rows[i].seq, recent[VKM_RECENT];
        vkm_session_recent(&s->sequences[seq], recent);
        write_words(s, s->space.sampling + seq * VKM_SAMPLING_WORDS, t->sampling, VKM_SAMPLING_WORDS);
        write_words(s, s->space.recent + seq * VKM_RECENT, recent, VKM_RECENT);
        t->started = true;
    }
    if (there) return;
    uint32_t *pos = s->words, *seqs = s->words + s->space.n_batch;
    for (uint32_t i = 0; i < f->pass.n; i++) {
        uint32_t seq = f->rows[i].seq, position = s->sequences[seq].n_past + f->tasks[seq].ahead - 1;
        pos[i] = position;
        seqs[i] = f->there[i] = seq;
        f->parts[i] = (struct vkm_part){((uint64_t)s->space.recent + seq * VKM_RECENT + position % VKM_RECENT) * 4, ((uint64_t)s->space.tokens + i) * 4, 4};
    }
    write_words(s, s->space.pos, pos, f->pass.n);
    write_words(s, s->space.seq, seqs, f->pass.n);
    vkm_slicer_gather(f->slicer, s->workspace, f->parts, f->pass.n);
}

/* A layer's keys, or its values, of the common prefix. */
static bool copy_unit(struct vkm_session *s, uint32_t i)
{
    struct vkm_frame *f = s->frame;
    const struct vkm_kv *l = &s->layers[i / 2];
    vkm_buffer *from, *to;
    vkm_session_unit_parts(s, l, i % 2 ? l->v_unit : l->k_unit, f->pass.from, f->rows[0].seq, i % 2 ? f->pass.n : (uint32_t)vkm_align(f->pass.n, 32), f->parts, &from, &to);
    return vkm_slicer_copy(f->slicer, from, to, f->parts, s->model->h.n_head_kv);
}

static bool run_pass(struct vkm_session *s)
{
    struct vkm_frame *f = s->frame;
    struct vkm_pass *p = &f->pass;
    if (p->kind == VKM_PASS_COPY) {
        while (p->at.op < 2 * s->model->h.n_layer && copy_unit(s, p->at.op)) p->at.op++;
        return p->at.op == 2 * s->model->h.n_layer;
    }
    if (!p->begun) {
        if (p->kind == VKM_PASS_PROMPT) write_prompt(s);
        else write_generation(s);
        p->begun = true;
    }
    return vkm_slicer_run(f->slicer, p->program, &p->at, p->load);
}

static void deliver_later(struct vkm_frame *f, uint32_t seq, uint32_t position, bool token)
{
    f->deliveries[(f->first + f->n++) % f->capacity] = (struct vkm_delivery){vkm_slicer_last(f->slicer) + 1, seq, f->tasks[seq].epoch, position, token};
}

/* All of the pass is recorded: what is recorded from now on finds its results. */
static void end_pass(struct vkm_session *s)
{
    struct vkm_frame *f = s->frame;
    const struct vkm_pass p = f->pass;
    f->pass = (struct vkm_pass){0};
    f->n_there = 0;
    if (p.kind == VKM_PASS_GENERATE) {
        f->in_slice++;
        f->n_there = p.n;
        for (uint32_t i = 0; i < p.n; i++) {
            struct vkm_task *t = &f->tasks[f->rows[i].seq];
            if (t->epoch != f->rows[i].epoch) { f->n_there = 0; continue; }
            deliver_later(f, f->rows[i].seq, s->sequences[f->rows[i].seq].n_past + t->ahead++, true);
        }
        return;
    }
    uint32_t seq = f->rows[0].seq;
    struct vkm_sequence *q = &s->sequences[seq];
    if (f->tasks[seq].epoch != f->rows[0].epoch) return;
    q->n_kv = p.first + p.n;
    if (q->n_kv > q->n_past) {
        f->tasks[seq].n_prompt -= q->n_kv - q->n_past;
        q->n_past = q->n_kv;
    }
    q->has_last = p.kind == VKM_PASS_PROMPT && q->n_kv == q->n_past;
    deliver_later(f, seq, q->n_kv, false);
}

/* A prompt's pass whose sequence was cancelled is of no use; one that generates serves others. */
static void forget_useless_pass(struct vkm_frame *f)
{
    if ((f->pass.kind == VKM_PASS_PROMPT || f->pass.kind == VKM_PASS_COPY) && f->tasks[f->rows[0].seq].epoch != f->rows[0].epoch) f->pass = (struct vkm_pass){0};
}

vkm_result vkm_session_record(vkm_session *s, void *commands, const vkm_budget *budget, vkm_slice *slice, vkm_error *err)
{
    vkm_budget b = {0};
    if (!commands || !slice) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_record: commands and slice are required");
    if (budget) memcpy(&b, budget, budget->struct_size && budget->struct_size < sizeof b ? budget->struct_size : sizeof b);
    if (s->params.audit || s->params.profile) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "a session for audit or profile runs step by step and cannot be recorded");
    struct vkm_frame *f = s->frame;
    vkm_slice out = {0};
    if (f) forget_useless_pass(f);
    if (f && anything(s) && vkm_slicer_begin(f->slicer, commands, b.max_us, b.max_dispatches)) {
        f->in_slice = 0;
        while (!vkm_slicer_full(f->slicer)) {
            if (f->pass.kind == VKM_PASS_NONE && !next_pass(s, b.max_us)) break;
            if (!run_pass(s)) break;
            end_pass(s);
            if (!b.max_us && !b.max_dispatches && vkm_slicer_expected_us(f->slicer) >= SLICE_US) break;
        }
        out.number = vkm_slicer_end(f->slicer, &out.n_dispatches, &out.expected_us);
    }
    out.more = f && more(s);
    *slice = out;
    return VKM_OK;
}

/* ---------------------------------------------------------------- afterwards */

static void end_generation(struct vkm_task *t, vkm_ending ending)
{
    drop(t);
    t->ending = ending;
}

static vkm_result deliver(struct vkm_session *s, const struct vkm_delivery *d, vkm_token_fn on_token, void *user, vkm_error *err)
{
    struct vkm_sequence *q = &s->sequences[d->seq];
    struct vkm_task *t = &s->frame->tasks[d->seq];
    if (d->epoch != t->epoch) return VKM_OK;
    t->done = d->position;
    if (!d->token) return VKM_OK;
    int32_t id = (int32_t)((const uint32_t *)vkm_buffer_map(s->readback))[(size_t)d->seq * VKM_RECENT + d->position % VKM_RECENT];
    if (id < 0 || (uint32_t)id >= s->model->h.n_vocab) return vkm_fail(err, VKM_ERR_VULKAN, "the device produced token %d for sequence %u, which is not in the vocabulary", id, d->seq);
    q->n_kv = q->n_past;                                   /* what this was sampled from */
    q->tokens[q->n_past++] = id;
    q->has_last = false;
    t->made++;
    t->ahead--;
    bool go_on = !on_token || on_token(user, d->seq, id);
    if (!t->ignore_end && s->model->tokenizer && vkm_tokenizer_is_end(s->model->tokenizer, id)) end_generation(t, VKM_END_TOKEN);
    else if (!go_on) end_generation(t, VKM_END_CALLER);
    else if (t->made == t->most) end_generation(t, q->n_past == s->n_ctx ? VKM_END_CONTEXT : VKM_END_LENGTH);
    return VKM_OK;
}

vkm_result vkm_session_completed(vkm_session *s, vkm_slice *slice, vkm_token_fn on_token, void *user, vkm_error *err)
{
    if (!slice) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_completed: slice is NULL");
    struct vkm_frame *f = s->frame;
    if (slice->number > (f ? vkm_slicer_last(f->slicer) : 0)) return vkm_fail(err, VKM_ERR_ARGUMENT, "slice %llu was not recorded", (unsigned long long)slice->number);
    if (!slice->number) return VKM_OK;
    double us = slice->measured_us;
    TRY(vkm_slicer_completed(f->slicer, slice->number, &us, err));
    TRY(vkm_buffer_invalidate(s->readback, 0, (uint64_t)s->n_seq * VKM_RECENT * 4, err));
    while (f->n && f->deliveries[f->first].slice <= slice->number) {
        const struct vkm_delivery d = f->deliveries[f->first];
        f->first = (f->first + 1) % f->capacity;
        f->n--;
        TRY(deliver(s, &d, on_token, user, err));
    }
    slice->measured_us = us;
    return VKM_OK;
}

/* Tokens that only slices in flight evaluate are a prompt again. */
static void roll_back(struct vkm_sequence *q, struct vkm_task *t)
{
    t->ahead = 0;
    if (q->n_kv <= t->done) return;
    uint32_t all = q->n_past + t->n_prompt;
    q->n_kv = q->n_past = t->done;
    q->has_last = false;
    t->n_prompt = t->dropped ? 0 : all - q->n_past;
}

vkm_result vkm_session_discard(vkm_session *s, vkm_error *err)
{
    struct vkm_frame *f = s->frame;
    (void)err;
    if (!f || !vkm_slicer_in_flight(f->slicer)) return VKM_OK;
    vkm_slicer_discard(f->slicer);
    f->n = 0;
    for (uint32_t i = 0; i < s->n_seq; i++) roll_back(&s->sequences[i], &f->tasks[i]);
    restart(s);
    return VKM_OK;
}

vkm_result vkm_session_step(vkm_session *s, const vkm_budget *budget, vkm_slice *slice, vkm_token_fn on_token, void *user, vkm_error *err)
{
    void *commands;
    uint64_t ticket;
    vkm_slice out = {0};
    if (!slice) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_step: slice is NULL");
    if (s->frame && vkm_slicer_in_flight(s->frame->slicer)) return vkm_fail(err, VKM_ERR_ARGUMENT, "%u slices are in flight: complete or discard them first", vkm_slicer_in_flight(s->frame->slicer));
    TRY(vkm_commands_begin(s->model->device, &commands, err));
    TRY(vkm_session_record(s, commands, budget, &out, err));
    vkm_result r = out.number ? vkm_commands_submit(s->model->device, &ticket, err) : VKM_OK;
    if (r == VKM_OK && out.number) r = vkm_wait(s->model->device, ticket, err);
    if (r != VKM_OK) { vkm_session_discard(s, NULL); return r; }
    TRY(vkm_session_completed(s, &out, on_token, user, err));
    out.more = s->frame && more(s);                        /* a sequence may have ended here */
    *slice = out;
    return VKM_OK;
}
