#include "session.h"

/* Logits of at most this many bytes are computed at once when all positions are asked for. */
#define LOGITS_BYTES (32u << 20)

static struct vkm_region take(struct vkm_space *s, uint64_t rows, uint32_t width) { return vkm_take(&s->words, rows, width); }

static uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Room for the largest x of a matmul in a form: one at a time is kept. */
static struct vkm_region take_form(struct vkm_space *s, const struct vkm_caps *caps, uint32_t form, const struct vkm_hparams *h)
{
    uint32_t b = s->n_batch;
    uint64_t words = max_u64(vkm_form_words(caps, form, b, h->n_embd), vkm_form_words(caps, form, b, h->n_head * h->head));
    words = max_u64(words, max_u64(vkm_form_words(caps, form, b * h->n_used, h->n_ff), vkm_form_words(caps, form, b, h->n_ff_shared)));
    words = max_u64(words, vkm_form_words(caps, form, s->head_rows, h->n_embd));
    struct vkm_region r = {(uint32_t)s->words, 1, (uint32_t)words};
    s->words += vkm_align(words, 32);
    return r;
}

void vkm_space_plan(const struct vkm_model *m, const struct vkm_caps *caps, uint32_t n_batch, uint32_t n_seq, struct vkm_space *s)
{
    const struct vkm_hparams *h = &m->h;
    struct vkm_moe_widths widths = {h->n_embd, h->n_ff, h->n_ff_shared, false, false};
    uint64_t b = n_batch, slots = b * h->n_used;
    *s = (struct vkm_space){.n_batch = n_batch, .n_seq = n_seq};
    s->head_rows = LOGITS_BYTES / 4 / h->n_vocab;
    if (s->head_rows > n_batch) s->head_rows = n_batch;
    if (s->head_rows < n_seq) s->head_rows = n_seq;      /* all sequences may want a token at once */
    s->sampling = take(s, 1, n_seq * VKM_SAMPLING_WORDS).at;
    s->recent = take(s, n_seq, VKM_RECENT).at;
    s->tokens = take(s, 1, n_batch).at;
    s->pos = take(s, 1, n_batch).at;
    s->seq = take(s, 1, n_batch).at;
    s->tally = take(s, 1, h->n_layer * h->n_expert).at;
    s->last = take(s, n_seq, h->n_embd);
    s->x = take(s, b, h->n_embd);
    s->moe.logit_parts = take(s, VKM_JOINED_ROWS * vkm_splits_most(m->layers[0].moe.router.kb), h->n_expert + 1);
    s->xn = take(s, b, h->n_embd);
    s->qkv = take(s, b, (uint32_t)(vkm_align(h->n_head * h->head, VKM_PANEL_ROWS) + 2 * vkm_align(h->n_head_kv * h->head, VKM_PANEL_ROWS)));
    s->attention = take(s, b, h->n_head * h->head);
    s->logits = take(s, s->head_rows, h->n_vocab);
    s->scratch = take(s, n_seq, h->n_vocab);
    struct vkm_moe_space *e = &s->moe;
    e->logits = take(s, b, h->n_expert + 1);
    const uint32_t panels = vkm_div_up(h->n_embd, VKM_PANEL);
    e->arrived = take(s, 1, panels > VKM_JOINED_ROWS ? panels : VKM_JOINED_ROWS + 1);     /* the session clears its workspace once */
    e->ids = take(s, 1, (uint32_t)slots);
    e->weights = take(s, 1, (uint32_t)slots);
    e->gate = (struct vkm_region){take(s, 1, n_batch).at, 1, n_batch};
    e->counts = take(s, 1, vkm_moe_count_words(n_batch, h->n_used, h->n_expert));
    e->perm = take(s, 1, (uint32_t)slots);
    e->tiles = take(s, 1, VKM_TILE_CLASSES * 2 * (uint32_t)slots + 2 * VKM_PIECES_MAX);
    e->args = take(s, 1, VKM_TILE_CLASSES * VKM_PIECES_MAX * 6);
    for (uint32_t i = 0; i < h->n_layer; i++) {
        widths.apart |= m->layers[i].moe.gate.type != NULL;
        widths.shared_apart |= m->layers[i].moe.shared_gate.type != NULL;
    }
    vkm_moe_experts_place(&widths, n_batch, slots, &s->words, e);
    for (uint32_t f = 0; f < VKM_FORMS; f++) s->inputs.form[f] = take_form(s, caps, f, h);
}
