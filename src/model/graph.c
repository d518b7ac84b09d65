#include "session.h"
#include <stdio.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

static struct vkm_region tokens(const struct vkm_space *s) { return (struct vkm_region){s->state + VKM_STATE_TOKENS, 1, s->n_batch}; }
static uint32_t positions(const struct vkm_space *s) { return s->state + VKM_STATE_TOKENS + s->n_batch; }

/* RMSNorm of n rows of r in place (norms over a whole projection) */
static vkm_result norm_in_place(struct vkm_build *b, const char *label, struct vkm_region r, uint32_t width, uint32_t tab, float eps, uint32_t n)
{
    const struct vkm_combine c = {.x = r, .width = width, .tab_norm = tab, .out = r, .eps = eps};
    return vkm_combine_norm(b, label, &c, 0, n);
}

static vkm_result attention(struct vkm_build *b, struct vkm_session *s, uint32_t layer, uint32_t n)
{
    const struct vkm_hparams *h = &s->model->h;
    const struct vkm_layer *y = &s->model->layers[layer];
    const struct vkm_space *w = &s->space;
    TRY(vkm_linear(b, "attn_q", &y->q, y->tab_q_bias, w->xn, w->q, n));
    TRY(vkm_linear(b, "attn_k", &y->k, y->tab_k_bias, w->xn, w->k, n));
    TRY(vkm_linear(b, "attn_v", &y->v, y->tab_v_bias, w->xn, w->v, n));
    struct vkm_attention a = {.n_head = h->n_head, .n_head_kv = h->n_head_kv, .head = h->head, .n_rot = h->n_rot, .neox = h->arch->neox, .kv16 = s->kv16,
        .tab_q_norm = VKM_NONE, .tab_k_norm = VKM_NONE, .tab_rope = s->tab_rope, .eps = h->eps, .clamp = h->clamp_kqv, .scale = h->attention_scale, .n_ctx = s->n_ctx,
        .q = w->q, .k = w->k, .v = w->v, .out = w->attention, .ws_pos = positions(w)};
    if (y->tab_q_norm != VKM_NONE && y->qk_norm_full) {
        TRY(norm_in_place(b, "attn_q_norm", w->q, h->n_head * h->head, y->tab_q_norm, h->eps, n));
        TRY(norm_in_place(b, "attn_k_norm", w->k, h->n_head_kv * h->head, y->tab_k_norm, h->eps, n));
    } else {
        a.tab_q_norm = y->tab_q_norm;
        a.tab_k_norm = y->tab_k_norm;
    }
    TRY(vkm_rope_store(b, &a, &s->layers[layer], n));
    TRY(vkm_attention_step(b, &a, &s->layers[layer], n));
    return vkm_linear(b, "attn_output", &y->o, y->tab_o_bias, w->attention, w->moe.y, n);
}

/* Everything up to the residual stream after the last layer. A layer's second combine_norm already makes the next layer's normed input. */
static vkm_result body(struct vkm_build *b, struct vkm_session *s, uint32_t n)
{
    const struct vkm_model *m = s->model;
    const struct vkm_hparams *h = &m->h;
    const struct vkm_space *w = &s->space;
    b->layer = -1;
    TRY(vkm_embed(b, &m->embedding, tokens(w).at, w->x, h->n_embd, n, h->embedding_scale));
    struct vkm_combine c = {.x = w->x, .width = h->n_embd, .y = w->moe.y, .tab_norm = m->layers[0].tab_attn_norm, .out = w->xn, .scale = h->residual_scale, .eps = h->eps};
    TRY(vkm_combine_norm(b, "attn_norm", &c, 0, n));
    for (uint32_t i = 0; i < h->n_layer; i++) {
        const struct vkm_layer *y = &m->layers[i];
        b->layer = (int)i;
        TRY(attention(b, s, i, n));
        c.n_add = 1;
        c.shared = c.gate = (struct vkm_region){0};
        c.tab_norm = y->tab_ffn_norm;
        TRY(vkm_combine_norm(b, "ffn_norm", &c, 0, n));
        TRY(vkm_moe_layer(b, &y->moe, &w->moe, w->xn, n));
        c.n_add = h->n_used;
        if (y->moe.shared_down.type) c.shared = w->moe.shared_y;
        if (y->moe.shared_gated) c.gate = w->moe.gate;
        c.tab_norm = i + 1 < h->n_layer ? m->layers[i + 1].tab_attn_norm : VKM_NONE;
        TRY(vkm_combine_norm(b, "moe_combine", &c, 0, n));
    }
    b->layer = -1;
    return VKM_OK;
}

/* Logits of rows [first, first + count) of the last body. */
static vkm_result head(struct vkm_build *b, struct vkm_session *s, uint32_t first, uint32_t count)
{
    const struct vkm_model *m = s->model;
    const struct vkm_space *w = &s->space;
    const struct vkm_combine c = {.x = w->x, .width = m->h.n_embd, .tab_norm = m->tab_output_norm, .out = w->xn, .eps = m->h.eps};
    TRY(vkm_combine_norm(b, "output_norm", &c, first, count));
    return vkm_linear(b, "output", &m->output, VKM_NONE, w->xn, w->logits, count);
}

static vkm_result build(struct vkm_session *s, struct vkm_recipe r, vkm_program *program, vkm_error *err)
{
    struct vkm_build b = {.device = s->model->device, .shape = s->shape, .program = program, .workspace = s->workspace, .sets = s->sets, .layer = -1, .err = err};
    if (r.n) TRY(body(&b, s, r.n));
    if (r.count) TRY(head(&b, s, r.first, r.count));
    if (r.sample) {
        TRY(vkm_sample(&b, s->space.logits, s->model->h.n_vocab, s->space.scratch, s->space.state, s->space.state_words, s->space.n_batch));
        TRY(vkm_program_copy(program, s->workspace, (uint64_t)s->space.state * 4, s->readback, 0, VKM_STATE_TOKENS * 4, err));
    }
    if (r.read_logits)
        TRY(vkm_program_copy(program, s->workspace, (uint64_t)s->space.logits.at * 4, s->readback, VKM_STATE_TOKENS * 4, (uint64_t)r.count * s->space.logits.ld * 4, err));
    return vkm_program_finish(program, err);
}

vkm_result vkm_session_program(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err)
{
    struct vkm_slot *free_slot = &s->slots[0];
    s->clock++;
    for (uint32_t i = 0; i < VKM_PROGRAMS; i++) {
        struct vkm_slot *slot = &s->slots[i];
        const struct vkm_recipe *have = &slot->recipe;
        if (slot->program && have->n == recipe.n && have->first == recipe.first && have->count == recipe.count && have->read_logits == recipe.read_logits && have->sample == recipe.sample) {
            slot->used = s->clock;
            *program = slot->program;
            return VKM_OK;
        }
        if (slot->used < free_slot->used) free_slot = slot;
    }
    char name[64];
    snprintf(name, sizeof name, "%u tokens, logits of %u%s", recipe.n, recipe.count, recipe.sample ? ", sample" : "");
    vkm_program *made;
    TRY(vkm_program_create(s->model->device, name, &made, err));
    vkm_result r = build(s, recipe, made, err);
    if (r != VKM_OK) { vkm_program_destroy(made); return r; }
    vkm_program_destroy(free_slot->program);
    *free_slot = (struct vkm_slot){recipe, made, s->clock};
    *program = made;
    return VKM_OK;
}
