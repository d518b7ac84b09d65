#include "layer.h"
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

uint32_t vkm_moe_count_words(uint32_t n, uint32_t k, uint32_t n_expert) { return vkm_div_up(n * k, VKM_SORT_CHUNK) * n_expert; }
uint32_t vkm_moe_tiles_max(uint32_t n, uint32_t k, uint32_t n_expert) { uint32_t slots = n * k; return slots / 8 + (n_expert < slots ? n_expert : slots); }

static vkm_result topk(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    struct vkm_push_moe_topk push = {.ws_logits = s->logits.at, .ld_logits = s->logits.ld, .n_used = m->n_used,
        .ws_ids = s->ids.at, .ws_weight = s->weights.at, .ws_gate = m->shared_gated ? s->gate.at : VKM_NONE, .score = m->score, .renormalise = m->renormalise,
        .scale = m->weight_scale, .ws_tiles = n == 1 ? s->tiles.at : VKM_NONE, .ws_perm = n == 1 ? s->perm.at : VKM_NONE};
    struct vkm_step step = {.groups = {n, 1, 1}, .bytes = (uint64_t)n * m->n_expert * 4, .flops = (uint64_t)n * m->n_expert * m->n_expert * 3};
    VKM_STEP_PUSH(step, push);
    vkm_reads(b, &step, s->logits, n);
    vkm_writes_words(b, &step, s->ids.at, n * m->n_used);
    vkm_writes_words(b, &step, s->weights.at, n * m->n_used);
    if (m->shared_gated) vkm_writes(b, &step, s->gate, n);
    if (n == 1) { vkm_writes_words(b, &step, s->tiles.at, 2 * m->n_used); vkm_writes_words(b, &step, s->perm.at, m->n_used); }
    uint32_t lanes = vkm_reduce_lanes(b, (uint64_t)m->n_expert * m->n_expert);
    const uint32_t spec[] = {lanes, 1, lanes, m->n_expert};
    return vkm_build_step(b, "moe_topk", "", spec, VKM_COUNT(spec), &step, "moe_topk");
}

/* How many dispatches a class's tiles come in: one, unless a slow device's watchdog might not like it. */
static uint32_t piece_count(struct vkm_build *b, const struct vkm_moe *m, uint32_t n)
{
    const struct vkm_weight *w = m->gate_up.type ? &m->gate_up : &m->gate;
    uint32_t pieces = vkm_program_pieces(b->device, 0, 2ull * n * m->n_used * w->cols * w->rows * (w->glu ? 2 : 1));
    return pieces < VKM_PIECES_MAX ? pieces : VKM_PIECES_MAX;
}

static vkm_result sort(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n, uint32_t groups_up, uint32_t groups_down)
{
    uint32_t slots = n * m->n_used, chunks = vkm_div_up(slots, VKM_SORT_CHUNK);
    struct vkm_push_moe_sort push = {.ws_ids = s->ids.at, .n_slots = slots, .n_expert = m->n_expert, .ws_counts = s->counts.at, .ws_perm = s->perm.at, .ws_tiles = s->tiles.at,
        .tiles_max = vkm_moe_tiles_max(n, m->n_used, m->n_expert), 
        .pieces = piece_count(b, m, n), .ws_args = s->args.at, .groups_up = groups_up, .groups_down = groups_down, .tile_rows = b->shape.tile_rows};
    push.piece_tiles = vkm_div_up(push.tiles_max, push.pieces);
    uint32_t lanes = vkm_reduce_lanes(b, (uint64_t)m->n_expert * (chunks * 2 > VKM_SORT_CHUNK ? chunks * 2 : VKM_SORT_CHUNK) * 2);
    if (lanes > 64) lanes = 64;

    struct vkm_step count = {.groups = {chunks, 1, 1}, .flops = (uint64_t)slots * m->n_expert};
    VKM_STEP_PUSH(count, push);
    vkm_reads_words(b, &count, s->ids.at, slots);
    vkm_writes_words(b, &count, s->counts.at, chunks * m->n_expert);
    const uint32_t spec[] = {lanes, 1, m->n_expert};
    TRY(vkm_build_step(b, "moe_count", "", spec, 2, &count, "moe_count"));

    struct vkm_step permute = {.groups = {chunks, 1, 1}, .flops = (uint64_t)slots * VKM_SORT_CHUNK};
    VKM_STEP_PUSH(permute, push);
    vkm_reads_words(b, &permute, s->ids.at, slots);
    vkm_reads_words(b, &permute, s->counts.at, chunks * m->n_expert);
    vkm_writes_words(b, &permute, s->perm.at, slots);
    vkm_writes_words(b, &permute, s->tiles.at, VKM_TILE_CLASSES * 2 * push.tiles_max);
    vkm_writes_words(b, &permute, s->args.at, VKM_TILE_CLASSES * push.pieces * 6);
    return vkm_build_step(b, "moe_permute", "", spec, 3, &permute, "moe_permute");
}

/* One expert matmul over the tiles: a direct dispatch for one token (k tiles of one row), else an indirect one for each tile size (and piece). */
static vkm_result experts(struct vkm_build *b, const char *kernel, const char *label, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_weight *w,
                          struct vkm_region x, uint32_t x_rows, struct vkm_region y, uint32_t n, bool is_down)
{
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    uint32_t slots = n * m->n_used, tiles_max = vkm_moe_tiles_max(n, m->n_used, m->n_expert), groups = vkm_matmul_groups(&b->shape, w);
    uint32_t pieces = n == 1 ? 1 : piece_count(b, m, n), piece_tiles = n == 1 ? m->n_used : vkm_div_up(tiles_max, pieces);
    uint64_t touched = slots < m->n_expert ? slots : m->n_expert;
    for (uint32_t i = 0; i < (n == 1 ? 1 : VKM_TILE_CLASSES * pieces); i++) {
        uint32_t c = i / pieces;
        if (c > 0 && sizes[c - 1] >= n) break;          /* no expert has more rows than there are tokens */
        if (sizes[c] > b->shape.tile_rows) break;
        struct vkm_push_matmul push;
        struct vkm_region in = x;
        TRY(vkm_matmul_input(b, kernel, w, sizes[c], &in, x_rows));
        vkm_matmul_push(b, w, &push);
        push.n = slots; push.n_used = m->n_used;
        push.ws_x = in.at; push.ld_x = in.ld; push.ws_y = y.at; push.ld_y = y.ld;
        push.ws_tiles = s->tiles.at + 2 * (c * tiles_max + i % pieces * piece_tiles); push.ws_perm = s->perm.at; push.ws_scale = s->weights.at;
        struct vkm_step step = {.groups = {piece_tiles, groups, 1}, .bindings = b->sets[w->set], .indirect = n > 1, .concurrent = n > 1 ? 1 + is_down : 0,
                                .indirect_offset = ((uint64_t)s->args.at + i * 6 + (is_down ? 3 : 0)) * 4};
        VKM_STEP_PUSH(step, push);
        vkm_reads(b, &step, in, x_rows);
        vkm_reads_words(b, &step, push.ws_tiles, 2 * piece_tiles);
        vkm_reads_words(b, &step, s->perm.at, slots);
        if (is_down) vkm_reads_words(b, &step, s->weights.at, slots);
        vkm_writes(b, &step, y, slots);
        if (n > 1) vkm_reads(b, &step, y, slots);       /* each dispatch writes its rows and leaves the others */
        step.bytes = (vkm_matmul_bytes(w) * touched + (uint64_t)slots * (w->cols + w->rows) * 4) / pieces;
        step.flops = 2ull * slots * w->cols * w->rows * (w->glu ? 2 : 1) / pieces;
        TRY(vkm_matmul_step(b, kernel, w, sizes[c], &step, label));
    }
    return VKM_OK;
}

static vkm_result glu(struct vkm_build *b, const char *label, struct vkm_region gate, struct vkm_region up, uint32_t width, uint32_t rows)
{
    struct vkm_push_glu push = {.ws_gate = gate.at, .ws_up = up.at, .ld = gate.ld, .ws_out = gate.at, .ld_out = gate.ld, .width = width};
    struct vkm_step step = {.groups = {rows, 1, 1}, .bytes = (uint64_t)rows * width * 12};
    VKM_STEP_PUSH(step, push);
    vkm_reads(b, &step, gate, rows);
    vkm_reads(b, &step, up, rows);
    vkm_writes(b, &step, gate, rows);
    const uint32_t spec[] = {b->shape.reduce_lanes, 1};
    return vkm_build_step(b, "glu", "", spec, 2, &step, label);
}

static vkm_result shared_expert(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region x, uint32_t n)
{
    if (m->shared_gate_up.type) {
        TRY(vkm_linear(b, "shared_gate_up", &m->shared_gate_up, VKM_NONE, x, s->shared_h, n));
    } else {
        TRY(vkm_linear(b, "shared_gate", &m->shared_gate, VKM_NONE, x, s->shared_h, n));
        TRY(vkm_linear(b, "shared_up", &m->shared_up, VKM_NONE, x, s->shared_h2, n));
        TRY(glu(b, "shared_glu", s->shared_h, s->shared_h2, m->shared_gate.rows, n));
    }
    return vkm_linear(b, "shared_down", &m->shared_down, VKM_NONE, s->shared_h, s->shared_y, n);
}

vkm_result vkm_moe_layer(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region x, uint32_t n)
{
    const struct vkm_weight *up = m->gate_up.type ? &m->gate_up : &m->gate;
    TRY(vkm_linear(b, "moe_router", &m->router, VKM_NONE, x, s->logits, n));
    TRY(topk(b, m, s, n));
    if (n > 1) TRY(sort(b, m, s, n, vkm_matmul_groups(&b->shape, up), vkm_matmul_groups(&b->shape, &m->down)));
    if (m->gate_up.type) {
        TRY(experts(b, "moe_gate_up", "moe_gate_up", m, s, &m->gate_up, x, n, s->h, n, false));
    } else {
        TRY(experts(b, "moe_gate_up", "moe_gate", m, s, &m->gate, x, n, s->h, n, false));
        TRY(experts(b, "moe_gate_up", "moe_up", m, s, &m->up, x, n, s->h2, n, false));
        TRY(glu(b, "moe_glu", s->h, s->h2, m->gate.rows, n * m->n_used));
    }
    if (m->shared_down.type) TRY(shared_expert(b, m, s, x, n));
    return experts(b, "moe_down", "moe_down", m, s, &m->down, s->h, n * m->n_used, s->y, n, true);
}
