#include "layer.h"
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

void vkm_moe_experts_place(const struct vkm_moe_widths *w, uint32_t n, uint64_t slots, uint64_t *words, struct vkm_moe_space *s)
{
    s->h = vkm_take(words, slots, w->n_ff);
    s->y = vkm_take(words, slots, w->n_embd);
    if (w->apart) s->h2 = vkm_take(words, slots, w->n_ff);
    if (!w->n_ff_shared) return;
    s->shared_h = vkm_take(words, n, w->n_ff_shared);
    s->shared_y = vkm_take(words, n, w->n_embd);
    if (w->shared_apart) s->shared_h2 = vkm_take(words, n, w->n_ff_shared);
}

/* Whether all tiles of a layer with gate and up together are matrices': what the experts make between their two matmuls is f16 then, as the second one wants it. */
static bool halves_between(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_plan *p)
{
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    uint8_t tile_from[VKM_TILE_CLASSES];
    vkm_moe_tiles(b, m, p, tile_from);
    bool all = !m->gate.type && !p->direct;
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++)
        if (tile_from[c] <= p->most && tile_from[c] != VKM_TILE_NEVER) all = all && vkm_matmul_halves(b, "moe_gate_up", vkm_moe_first(m), sizes[c]) && vkm_matmul_halves(b, "moe_down", &m->down, sizes[c]);
    return all;
}

/* Whether an expert can have that many rows. */
static bool is_used(const uint8_t tile_from[VKM_TILE_CLASSES], const struct vkm_moe_plan *p, uint32_t c) { return tile_from[c] <= p->most && tile_from[c] != VKM_TILE_NEVER; }

/* One expert matmul over the tiles: a direct dispatch for one token (k tiles of one row), else an indirect one for each tile size (and piece), which wait for the same step and not for
 * each other. One dispatch for all sizes would want a kernel with a body for each, and CPU drivers walk through bodies that are branched around. */
static vkm_result experts(struct vkm_build *b, const char *kernel, const char *label, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_weight *w,
                          const struct vkm_epilogue *e, const struct vkm_moe_plan *p, struct vkm_region x, uint32_t x_rows, struct vkm_region y, bool is_down)
{
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    uint8_t tile_from[VKM_TILE_CLASSES];
    vkm_moe_tiles(b, m, p, tile_from);
    uint32_t slots = p->n * p->k, groups;
    uint32_t pieces = vkm_moe_pieces(b, m, s, p), piece_tiles = p->direct ? p->k : vkm_div_up(vkm_moe_tiles_max(tile_from, p->n, p->k, m->n_expert), pieces);
    uint64_t touched = slots < m->n_expert ? slots : m->n_expert;
    bool halves = halves_between(b, m, p);
    struct vkm_region *between = is_down ? &x : &y;
    if (halves) between->ld = VKM_HALVED_WORDS(m->down.kb);
    const uint32_t classes = p->direct ? 1 : VKM_TILE_CLASSES;
    for (uint32_t c = 0; c < classes; c++)                   /* what x is wanted as by any of them: a step between them would make them wait for each other */
        if (is_used(tile_from, p, c) && !(halves && is_down)) {
            struct vkm_region in = x;
            TRY(vkm_matmul_input(b, kernel, w, sizes[c], &in, x_rows));
        }
    for (uint32_t i = 0; i < classes * pieces; i++) {
        uint32_t c = i / pieces;
        if (!is_used(tile_from, p, c)) continue;
        struct vkm_push_matmul push;
        struct vkm_region in = x;
        groups = vkm_matmul_groups(&b->shape, w, sizes[c]);
        if (!(halves && is_down)) TRY(vkm_matmul_input(b, kernel, w, sizes[c], &in, x_rows));
        vkm_matmul_push(b, w, &push);
        uint32_t epilogue = vkm_matmul_epilogue(w, e, &push) | (halves && !is_down ? VKM_EPILOGUE_HALVES : 0);
        push.n = slots; push.n_used = p->divide;
        push.ws_x = in.at; push.ld_x = in.ld; push.ws_y = y.at; push.ld_y = y.ld;
        push.ws_tiles = s->tiles.at + 2 * (c * slots + i % pieces * piece_tiles); push.ws_perm = is_down ? p->perm_down : p->perm_up; push.ws_scale = s->weights.at; push.ws_slots = p->perm_down;
        struct vkm_step step = {.groups = {piece_tiles, groups, 1}, .bindings = b->sets[w->set], .indirect = !p->direct, .concurrent = p->direct ? 0 : 1 + is_down,
                                .indirect_offset = ((uint64_t)s->args.at + i * 6 + (is_down ? 3 : 0)) * 4};
        VKM_STEP_PUSH(step, push);
        vkm_reads(b, &step, in, x_rows);
        vkm_reads_words(b, &step, push.ws_tiles, 2 * piece_tiles);
        vkm_reads_words(b, &step, push.ws_perm, slots);
        if (!is_down && e->weight_first && p->perm_down != p->perm_up) vkm_reads_words(b, &step, p->perm_down, slots);
        if (is_down != e->weight_first) vkm_reads_words(b, &step, s->weights.at, slots);
        vkm_writes(b, &step, y, slots);
        if (e->residual) {
            const struct vkm_region arrived = {e->residual->ws_arrived, w->n_panels, 1};
            vkm_reads(b, &step, y, slots);
            vkm_reads_part(b, &step, e->residual->x, w->rows, p->n); vkm_writes_part(b, &step, e->residual->x, w->rows, p->n);
            vkm_reads(b, &step, arrived, 1); vkm_writes(b, &step, arrived, 1);
        }
        if (!p->direct) vkm_reads(b, &step, y, slots);       /* each dispatch writes its rows and leaves the others */
        step.bytes = (vkm_matmul_bytes(w) * touched + (uint64_t)slots * (in.ld + y.ld) * 4) / pieces;
        step.flops = 2ull * slots * w->cols * w->rows * (w->glu ? 2 : 1) / pieces;
        TRY(vkm_matmul_step(b, kernel, w, sizes[c], epilogue, &step, label));
    }
    return VKM_OK;
}

static vkm_result glu(struct vkm_build *b, const char *label, const struct vkm_epilogue *act, struct vkm_region gate, struct vkm_region up, uint32_t width, uint32_t rows)
{
    struct vkm_push_glu push = {.ws_gate = gate.at, .ws_up = up.at, .ld = gate.ld, .ws_out = gate.at, .ld_out = gate.ld, .width = width,
                                .act_alpha = act->alpha, .act_limit = act->limit, .act_add = act->add};
    struct vkm_step step = {.groups = {rows, 1, 1}, .bytes = (uint64_t)rows * width * 12};
    VKM_STEP_PUSH(step, push);
    vkm_reads(b, &step, gate, rows);
    vkm_reads(b, &step, up, rows);
    vkm_writes(b, &step, gate, rows);
    const uint32_t spec[] = {b->shape.reduce_lanes, 1, VKM_EPILOGUE_GLU | act->act << VKM_EPILOGUE_ACT | (act->limited ? VKM_EPILOGUE_LIMITED : 0)};
    return vkm_build_step(b, "glu", "", spec, VKM_COUNT(spec), &step, label);
}

/* An expert's epilogues: `act` where the activation is (gate|up, or up alone), nothing but bias and weight elsewhere. */
static struct vkm_epilogue finish(const struct vkm_moe *m, bool activates, bool routed, struct vkm_bias bias)
{
    struct vkm_epilogue e = {.act = VKM_ACT_NONE};
    if (activates) e = m->act;
    e.weight_first = routed && m->act.weight_first;
    e.tab_bias = bias.there ? bias.tab : VKM_NONE;
    return e;
}

static vkm_result shared_expert(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region x, uint32_t n)
{
    const struct vkm_ffn_bias *bias = &m->shared_bias;
    const struct vkm_epilogue pair = finish(m, true, false, bias->gate), gate = finish(m, false, false, bias->gate), down = finish(m, false, false, bias->down);
    const struct vkm_epilogue up = finish(m, !m->shared_gate.type, false, bias->up);
    if (m->shared_gate_up.type) {
        TRY(vkm_linear_finish(b, "shared_gate_up", &m->shared_gate_up, &pair, x, s->shared_h, n));
    } else if (m->shared_gate.type) {
        TRY(vkm_linear_finish(b, "shared_gate", &m->shared_gate, &gate, x, s->shared_h, n));
        TRY(vkm_linear_finish(b, "shared_up", &m->shared_up, &up, x, s->shared_h2, n));
        TRY(glu(b, "shared_glu", &m->act, s->shared_h, s->shared_h2, m->shared_gate.rows, n));
    } else {
        TRY(vkm_linear_finish(b, "shared_up", &m->shared_up, &up, x, s->shared_h, n));
    }
    return vkm_linear_finish(b, "shared_down", &m->shared_down, &down, s->shared_h, s->shared_y, n);
}

vkm_result vkm_moe_experts(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_residual *residual, struct vkm_region x, uint32_t n)
{
    if (n == 0) return VKM_OK;
    const struct vkm_moe_plan p = vkm_moe_plan(m, s, x, n);
    const struct vkm_epilogue pair = finish(m, true, true, m->bias.gate), gate = finish(m, false, true, m->bias.gate);
    const struct vkm_epilogue up = finish(m, !m->gate.type, true, m->bias.up);
    struct vkm_epilogue down = finish(m, false, true, m->bias.down);
    down.residual = residual;
    if (m->gate_up.type) {
        TRY(experts(b, "moe_gate_up", "moe_gate_up", m, s, &m->gate_up, &pair, &p, p.x, p.x_rows, s->h, false));
    } else if (m->gate.type) {
        TRY(experts(b, "moe_gate_up", "moe_gate", m, s, &m->gate, &gate, &p, p.x, p.x_rows, s->h, false));
        TRY(experts(b, "moe_gate_up", "moe_up", m, s, &m->up, &up, &p, p.x, p.x_rows, s->h2, false));
        TRY(glu(b, "moe_glu", &m->act, s->h, s->h2, m->gate.rows, p.n * p.k));
    } else {
        TRY(experts(b, "moe_gate_up", "moe_up", m, s, &m->up, &up, &p, p.x, p.x_rows, s->h, false));
    }
    if (m->shared_down.type) TRY(shared_expert(b, m, s, x, n));
    return experts(b, "moe_down", "moe_down", m, s, &m->down, &down, &p, s->h, p.n * p.k, s->y, true);
}

vkm_result vkm_moe_tally(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t ws_counts, uint32_t n)
{
    uint32_t slots = n * m->n_used, lanes = vkm_reduce_lanes(b, (uint64_t)m->n_expert * slots);
    const struct vkm_push_moe_tally push = {.ws_ids = s->ids.at, .n_slots = slots, .n_expert = m->n_expert, .ws_counts = ws_counts};
    struct vkm_step step = {.groups = {1, 1, 1}, .bytes = ((uint64_t)slots + 2 * m->n_expert) * 4};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, s->ids.at, slots);
    vkm_reads_words(b, &step, ws_counts, m->n_expert);
    vkm_writes_words(b, &step, ws_counts, m->n_expert);
    const uint32_t spec[] = {lanes, 1};
    return vkm_build_step(b, "moe_tally", "", spec, 2, &step, "moe_tally");
}

vkm_result vkm_moe_steps(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, const struct vkm_residual *residual, struct vkm_region x, uint32_t n)
{
    TRY(vkm_moe_router(b, m, s, norm, x, n));
    return vkm_moe_experts(b, m, s, residual, x, n);
}
