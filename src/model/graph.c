#include "session.h"
#include <stdio.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* RMSNorm of n rows of r in place (norms over a whole projection; that of q and that of k do not meet) */
static vkm_result norm_in_place(struct vkm_build *b, const char *label, struct vkm_region r, uint32_t width, uint32_t tab, float eps, uint32_t n)
{
    const struct vkm_combine c = {.x = r, .width = width, .tab_norm = tab, .out = r, .eps = eps, .concurrent = 1};
    return vkm_combine_norm(b, label, &c, 0, n);
}

/* Whether the projections of n tokens make their norm themselves. */
static bool projections_norm(const struct vkm_build *b, const struct vkm_layer *y, uint32_t n)
{
    bool all = true;
    for (uint32_t i = 0; all && i < y->n_qkv; i++) all = vkm_linear_norms(b, &y->qkv[i].w, n);
    return all;
}

/* q, k and v of n rows, in as few matmuls as their types allow; to[3]: where they are. A matmul's rows have its matrices side by side. */
static vkm_result projections(struct vkm_build *b, const struct vkm_session *s, const struct vkm_layer *y, uint32_t n, struct vkm_region to[3])
{
    const struct vkm_hparams *h = &s->model->h;
    const struct vkm_norm norm = {y->tab_attn_norm, h->n_embd, h->eps};
    bool norms = projections_norm(b, y, n);
    struct vkm_region all = s->space.qkv;
    for (uint32_t i = 0, k = 0; i < y->n_qkv; i++) {
        const struct vkm_projection *p = &y->qkv[i];
        char label[16];
        snprintf(label, sizeof label, "attn_%.*s", (int)p->n, "qkv" + k);
        all.ld = (uint32_t)vkm_align(p->w.rows, VKM_PANEL_ROWS);
        const struct vkm_epilogue e = {.act = VKM_ACT_NONE, .tab_bias = p->tab_bias, .norm = norms ? &norm : NULL};
        TRY(vkm_linear_finish(b, label, &p->w, &e, norms ? s->space.x : s->space.xn, all, n));
        for (uint32_t end = k + p->n, at = all.at; k < end; k++) {
            to[k] = (struct vkm_region){at, all.ld, all.rows};
            at += (uint32_t)vkm_align((k == 0 ? h->n_head : h->n_head_kv) * h->head, VKM_PANEL_ROWS);
        }
        all.at += all.ld * all.rows;
    }
    return VKM_OK;
}

/* residual: what the output is added to; NULL: it goes to moe.y. */
static vkm_result attention(struct vkm_build *b, struct vkm_session *s, uint32_t layer, uint32_t n, bool one_sequence, const struct vkm_residual *residual)
{
    const struct vkm_hparams *h = &s->model->h;
    const struct vkm_layer *y = &s->model->layers[layer];
    const struct vkm_space *w = &s->space;
    struct vkm_region qkv[3];
    TRY(projections(b, s, y, n, qkv));
    struct vkm_attention a = {.n_head = h->n_head, .n_head_kv = h->n_head_kv, .head = h->head, .n_rot = h->n_rot, .neox = h->arch->neox, .kv16 = s->kv16,
        .tab_q_norm = VKM_NONE, .tab_k_norm = VKM_NONE, .tab_rope = s->tab_rope, .tab_kv = s->tab_kv, .eps = h->eps, .clamp = h->clamp_kqv, .scale = h->attention_scale, .n_ctx = s->n_ctx,
        .q = qkv[0], .k = qkv[1], .v = qkv[2], .out = w->attention, .ws_pos = w->pos, .ws_seq = w->seq, .one_sequence = one_sequence};
    if (y->tab_q_norm != VKM_NONE && y->qk_norm_full) {
        TRY(norm_in_place(b, "attn_q_norm", qkv[0], h->n_head * h->head, y->tab_q_norm, h->eps, n));
        TRY(norm_in_place(b, "attn_k_norm", qkv[1], h->n_head_kv * h->head, y->tab_k_norm, h->eps, n));
    } else {
        a.tab_q_norm = y->tab_q_norm;
        a.tab_k_norm = y->tab_k_norm;
    }
    TRY(vkm_attend(b, &a, &s->layers[layer], n));
    const struct vkm_epilogue e = {.act = VKM_ACT_NONE, .tab_bias = y->tab_o_bias, .residual = residual};
    return vkm_linear_finish(b, "attn_output", &y->o, &e, w->attention, w->moe.y, n);
}

/* Everything up to the residual stream after the last layer. A layer's second combine_norm already makes the next layer's normed input; of few tokens on a GPU norms and additions are done
 * by the steps around them, as far as these can (of a single one all of them): what they wait for costs more than what they do. */
static vkm_result body(struct vkm_build *b, struct vkm_session *s, uint32_t n, bool one_sequence)
{
    const struct vkm_model *m = s->model;
    const struct vkm_hparams *h = &m->h;
    const struct vkm_space *w = &s->space;
    const struct vkm_residual residual = {w->x, h->residual_scale, w->moe.arrived.at};
    b->layer = -1;
    TRY(vkm_embed(b, &m->embedding, w->tokens, w->x, h->n_embd, n, h->embedding_scale));
    struct vkm_combine c = {.x = w->x, .width = h->n_embd, .y = w->moe.y, .tab_norm = m->layers[0].tab_attn_norm, .out = w->xn, .scale = h->residual_scale, .eps = h->eps};
    if (!projections_norm(b, &m->layers[0], n)) TRY(vkm_combine_norm(b, "attn_norm", &c, 0, n));
    for (uint32_t i = 0; i < h->n_layer; i++) {
        const struct vkm_layer *y = &m->layers[i];
        b->layer = (int)i;
        c.n_add = 1;
        c.shared = c.gate = (struct vkm_region){0};
        c.tab_norm = y->tab_ffn_norm;
        c.out = w->xn;
        bool router_norms = vkm_moe_norms(b, &y->moe, &w->moe, &c, n) && vkm_linear_adds(b, &y->o, n), experts_add = vkm_moe_adds(b, &y->moe, &w->moe, n);
        TRY(attention(b, s, i, n, one_sequence, router_norms ? &residual : NULL));
        if (router_norms) c.n_add = 0;
        TRY(vkm_moe_steps(b, &y->moe, &w->moe, &c, experts_add ? &residual : NULL, w->xn, n));
        if (s->params.count_experts) TRY(vkm_moe_tally(b, &y->moe, &w->moe, w->tally + i * h->n_expert, n));
        c.n_add = experts_add ? 0 : h->n_used;
        if (y->moe.shared_down.type) c.shared = w->moe.shared_y;
        if (y->moe.shared_gated) c.gate = w->moe.gate;
        if (i + 1 < h->n_layer && !projections_norm(b, &m->layers[i + 1], n)) c.tab_norm = m->layers[i + 1].tab_attn_norm;
        else c.out = (struct vkm_region){0};
        if (c.n_add || c.out.rows) TRY(vkm_combine_norm(b, c.n_add ? "moe_combine" : "attn_norm", &c, 0, n));
    }
    b->layer = -1;
    return VKM_OK;
}

/* The residual stream after the last of n tokens of a sequence is kept: a generation begins with its logits. */
static vkm_result keep_last(struct vkm_build *b, struct vkm_session *s, uint32_t n)
{
    const struct vkm_space *w = &s->space;
    const struct vkm_combine c = {.x = w->x, .width = s->model->h.n_embd, .tab_norm = VKM_NONE, .out = w->last, .out_rows = {w->seq, 1, 1}};
    return vkm_combine_norm(b, "keep_last", &c, n - 1, 1);
}

static vkm_result head(struct vkm_build *b, struct vkm_session *s, struct vkm_recipe r)
{
    const struct vkm_model *m = s->model;
    const struct vkm_space *w = &s->space;
    struct vkm_combine c = {.x = w->x, .width = m->h.n_embd, .tab_norm = m->tab_output_norm, .out = w->xn, .eps = m->h.eps};
    if (r.of_last) {
        c.x = w->last;
        c.x_rows = (struct vkm_region){w->seq, 1, r.count};
    }
    TRY(vkm_combine_norm(b, "output_norm", &c, r.first, r.count));
    return vkm_linear(b, "output", &m->output, VKM_NONE, w->xn, w->logits, r.count);
}

static vkm_result build(struct vkm_session *s, struct vkm_recipe r, vkm_program *program, vkm_error *err)
{
    struct vkm_build b = {.device = s->model->device, .shape = s->shape, .tuning = s->is_tuned ? &s->tuning : NULL, .program = program, .workspace = s->workspace, .sets = s->sets, .layer = -1, .err = err, .inputs = s->space.inputs};
    const struct vkm_space *w = &s->space;
    uint64_t ring = (uint64_t)s->n_seq * VKM_RECENT * 4;
    if (r.n) TRY(body(&b, s, r.n, !r.each_its_own));
    if (r.n && !r.each_its_own) TRY(keep_last(&b, s, r.n));
    if (r.n && s->params.count_experts) {
        uint64_t bytes, at = vkm_session_tally(s, &bytes);
        TRY(vkm_program_copy(program, s->workspace, (uint64_t)w->tally * 4, s->readback, at, bytes, err));
    }
    if (r.count) TRY(head(&b, s, r));
    if (r.sample) {
        const struct vkm_sample sample = {.logits = w->logits, .scratch = w->scratch, .n_vocab = s->model->h.n_vocab, .n_seq = s->n_seq, .ws_sampling = w->sampling,
                                          .ws_recent = w->recent, .ws_tokens = w->tokens, .ws_pos = w->pos, .ws_seq = w->seq};
        TRY(vkm_sample_step(&b, &sample, r.count));
        TRY(vkm_program_copy(program, s->workspace, (uint64_t)w->recent * 4, s->readback, 0, ring, err));
    }
    if (r.read_logits) TRY(vkm_program_copy(program, s->workspace, (uint64_t)w->logits.at * 4, s->readback, ring, (uint64_t)r.count * w->logits.ld * 4, err));
    return vkm_program_finish(program, err);
}

vkm_result vkm_session_build(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "%u %s%s, logits of %u%s", recipe.n, recipe.each_its_own ? "sequence" : "token", recipe.n == 1 ? "" : "s", recipe.count, recipe.sample ? ", sample" : "");
    vkm_program *made;
    TRY(vkm_program_create(s->model->device, name, &made, err));
    vkm_result r = build(s, recipe, made, err);
    if (r != VKM_OK) vkm_program_destroy(made);
    else *program = made;
    return r;
}

static bool same(const struct vkm_recipe *a, const struct vkm_recipe *b)
{
    return a->n == b->n && a->first == b->first && a->count == b->count && a->each_its_own == b->each_its_own && a->of_last == b->of_last && a->read_logits == b->read_logits && a->sample == b->sample;
}

vkm_result vkm_session_program(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err)
{
    struct vkm_slot *free_slot = &s->slots[0];
    s->clock++;
    for (uint32_t i = 0; i < VKM_PROGRAMS; i++) {
        struct vkm_slot *slot = &s->slots[i];
        if (slot->program && same(&slot->recipe, &recipe)) {
            slot->used = s->clock;
            *program = slot->program;
            return VKM_OK;
        }
        if (slot->used < free_slot->used) free_slot = slot;
    }
    vkm_program *made;
    TRY(vkm_session_build(s, recipe, &made, err));
    vkm_program_destroy(free_slot->program);
    *free_slot = (struct vkm_slot){recipe, made, s->clock};
    *program = made;
    return VKM_OK;
}
