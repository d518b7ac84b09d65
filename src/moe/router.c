/* The router of a layer up to the lists of tiles: the steps around moe_topk, and sorting. Rules beyond that: rule.c. */
#include "rule.h"
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

uint32_t vkm_moe_count_words(uint32_t n, uint32_t k, uint32_t n_expert) { return vkm_div_up(n * k, VKM_SORT_CHUNK) * n_expert; }
uint32_t vkm_moe_tiles_max(const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t n, uint32_t k, uint32_t n_expert)
{
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    uint32_t slots = n * k, experts = n_expert < slots ? n_expert : slots, above = slots + 1, most = 0;
    for (uint32_t c = VKM_TILE_CLASSES; c-- > 0;) {          /* fewer than `above` rows of an expert are left for this class */
        if (tile_from[c] == VKM_TILE_NEVER) continue;
        uint64_t tiles = above > slots ? (uint64_t)slots / sizes[c] + experts : (uint64_t)experts * vkm_div_up(above - 1, sizes[c]);
        if (tiles > most) most = tiles < slots ? (uint32_t)tiles : slots;
        if (tile_from[c] < above) above = tile_from[c];
    }
    return most;
}

/* How the experts' rows are cut in a layer of n tokens: the same for its router and its matmuls. */
void vkm_moe_tiles(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_plan *p, uint8_t tile_from[VKM_TILE_CLASSES])
{
    const struct vkm_weight *two[] = {vkm_moe_first(m), &m->down}, *apart[] = {&m->gate, &m->up, &m->down};
    if (m->gate.type) vkm_build_tiles(b, apart, VKM_COUNT(apart), p->n, p->k, m->n_expert, tile_from);
    else              vkm_build_tiles(b, two, VKM_COUNT(two), p->n, p->k, m->n_expert, tile_from);
}

/* The tiles' classes as kernels want them. */
static void pack_tile_from(const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t packed[2])
{
    packed[0] = packed[1] = 0;
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) packed[c / 4] |= (uint32_t)tile_from[c] << c % 4 * 8;
}

/* One workgroup compares all experts of each of the tokens with each other, a token at a time: not worth it for hundreds of experts. */
#define FEW_COMPARISONS (1u << 19)
uint32_t vkm_moe_few_rows(uint32_t n_expert)
{
    uint32_t n = FEW_COMPARISONS / n_expert / n_expert;
    return n < 1 ? 1 : n < VKM_FEW_ROWS ? n : VKM_FEW_ROWS;
}

/* On a GPU a workgroup for each token, and the steps that sort, are faster from a few tokens on than one workgroup for all. */
static uint32_t few_rows(const struct vkm_build *b, const struct vkm_moe *m)
{
    uint32_t n = vkm_moe_few_rows(m->n_expert);
    return b->shape.few_rows && b->shape.few_rows < n ? b->shape.few_rows : n;
}

uint32_t vkm_moe_topk_lanes(const struct vkm_build *b, uint32_t n_expert) { return vkm_reduce_lanes(b, (uint64_t)n_expert * n_expert * vkm_moe_few_rows(n_expert)); }

static bool has_bias(const struct vkm_moe *m) { return m->rule && m->rule->tab_logit_bias != VKM_NONE; }

/* For few tokens the parts of an f32 router's columns are summed by workgroups of their own, where the device has lanes for them. */
static bool in_parts(const struct vkm_shape *s, const struct vkm_moe *m) { return !has_bias(m) && m->router.type == vkm_type_find(0) && m->router.whole && vkm_shape_splits(s, &m->router) > 1; }

static bool has_parts(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    const uint32_t lanes = vkm_moe_topk_lanes(b, m->n_expert), parts = vkm_shape_splits(&b->shape, &m->router);
    return !s->router.statistics.rows && in_parts(&b->shape, m) && n <= b->shape.joined_rows && lanes % VKM_PANEL == 0 && parts % (lanes / VKM_PANEL) == 0;
}

/* Shared memory of topk.glsl with reduce.glsl, at most */
static uint32_t topk_shared_bytes(const struct vkm_build *b, const struct vkm_moe *m)
{
    const uint32_t n_expert = m->n_expert;
    uint32_t quads = vkm_div_up(n_expert, 4), parts = quads < 512 ? 512 : quads;
    return (parts + quads) * 16 + vkm_div_up(n_expert, 16) * 64 + n_expert * 8 + VKM_JOINED_ROWS * m->n_used * 8 + 256 + vkm_moe_topk_lanes(b, n_expert) * 4;
}

/* Whether workgroups of the router choose, each of a token, and sort. */
static bool joins(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    return s->arrived.rows && has_parts(b, m, s, n) && topk_shared_bytes(b, m) <= vkm_device_caps(b->device)->shared_bytes;
}

/* Whether sorting takes no steps of its own. */
static bool is_few(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n) { return n <= few_rows(b, m) || joins(b, m, s, n); }

/* What top-k of n tokens writes; few: with the sort. */
static struct vkm_push_moe_topk choose(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n, bool few, struct vkm_step *step)
{
    const struct vkm_weight *up = vkm_moe_first(m);
    uint8_t tile_from[VKM_TILE_CLASSES];
    vkm_writes_words(b, step, s->ids.at, n * m->n_used);
    vkm_writes_words(b, step, s->weights.at, n * m->n_used);
    if (m->shared_gated) vkm_writes(b, step, s->gate, n);
    if (few) {
        vkm_writes_words(b, step, s->perm.at, n * m->n_used);
        vkm_writes_words(b, step, s->tiles.at, VKM_TILE_CLASSES * 2 * n * m->n_used);
        vkm_writes_words(b, step, s->args.at, VKM_TILE_CLASSES * 6);
    }
    struct vkm_push_moe_topk push = {.ws_logits = s->logits.at, .ld_logits = s->logits.ld, .n_used = m->n_used,
        .ws_ids = s->ids.at, .ws_weight = s->weights.at, .ws_gate = m->shared_gated ? s->gate.at : VKM_NONE, .score = m->score, .renormalise = m->renormalise,
        .scale = m->weight_scale, .few = few ? n : 0, .ws_perm = s->perm.at, .ws_tiles = s->tiles.at, .tiles_max = n * m->n_used, .ws_args = s->args.at,
        .panels_up = up->n_panels, .panels_down = m->down.n_panels, .group_panels = vkm_shape_panels(&b->shape), .tab_bias = m->rule ? m->rule->tab_selection_bias : VKM_NONE};
    const struct vkm_moe_plan p = vkm_moe_plan(m, s, (struct vkm_region){0}, n);
    vkm_moe_tiles(b, m, &p, tile_from);
    pack_tile_from(tile_from, push.tile_from);
    return push;
}

/* The rule's constants of topk.glsl behind the kernel's own; none for what models had before, so that their kernels are the same as without a rule. Returns how many there are. */
#define SPEC_OWN 8u
#define SPEC_ALL 13u
static uint32_t rule_spec(const struct vkm_moe *m, uint32_t n, uint32_t spec[SPEC_ALL])
{
    const vkm_router_desc *d = m->rule ? &m->rule->d : NULL;
    if (!d || (d->score != VKM_ROUTER_SIGMOID && m->rule->tab_selection_bias == VKM_NONE && d->n_groups == 1)) return n;
    for (; n < SPEC_OWN; n++) spec[n] = 0;                  /* not this kernel's */
    spec[n++] = d->score == VKM_ROUTER_SIGMOID;
    spec[n++] = m->rule->tab_selection_bias != VKM_NONE;
    spec[n++] = d->n_groups;
    spec[n++] = d->n_groups_used;
    spec[n++] = d->n_groups > 1 && d->group_score == VKM_GROUPS_SUM_OF_TWO;
    return n;
}

/* And top-k, if it joins them. norm: is made here, too; or NULL. */
static vkm_result logit_parts(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, struct vkm_region x, uint32_t n)
{
    const struct vkm_weight *w = &m->router;
    const uint32_t parts = vkm_shape_splits(&b->shape, w), lanes = vkm_moe_topk_lanes(b, m->n_expert);
    struct vkm_step step = {.groups = {parts / (lanes / VKM_PANEL), w->n_panels, n}, .bindings = b->sets[w->set], .bytes = vkm_matmul_bytes(w) + (uint64_t)n * (w->cols + w->rows) * 4,
                            .flops = 2ull * n * w->cols * w->rows};
    struct vkm_push_moe_logits push = {.slab = w->slab, .at = w->at, .kb = w->kb, .ws_x = x.at, .ld_x = x.ld, .ws_arrived = s->arrived.at};
    if (joins(b, m, s, n)) {
        push.topk = choose(b, m, s, n, true, &step);
        vkm_reads(b, &step, s->logit_parts, n * parts);
        vkm_reads(b, &step, s->arrived, 1);
        vkm_writes(b, &step, s->arrived, 1);
    }
    push.topk.ws_logits = s->logit_parts.at, push.topk.ld_logits = s->logit_parts.ld;
    if (norm) push.ws_x = norm->x.at, push.ld_x = norm->x.ld, push.tab_norm = norm->tab_norm, push.width = norm->width, push.eps = norm->eps, push.ws_xn = x.at, push.ld_xn = x.ld;
    VKM_STEP_PUSH(step, push);
    if (norm) vkm_reads_part(b, &step, norm->x, norm->width, n), vkm_writes(b, &step, x, n);
    else      vkm_reads(b, &step, x, n);
    vkm_writes(b, &step, s->logit_parts, n * parts);
    uint32_t spec[SPEC_ALL] = {lanes, 1, vkm_reduce_shared(b, lanes), m->n_expert, parts, VKM_JOINED_ROWS * m->n_used, (norm ? 1 : 0) | (b->shape.holds_many ? 2 : 0), norm ? w->kb : 0};
    return vkm_build_step(b, "moe_logits", "", spec, rule_spec(m, SPEC_OWN, spec), &step, "moe_router");
}

static vkm_result topk(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    struct vkm_step step = {.groups = {n <= few_rows(b, m) ? 1 : n, 1, 1}, .bytes = (uint64_t)n * m->n_expert * 4, .flops = (uint64_t)n * m->n_expert * m->n_expert * 3};
    struct vkm_push_moe_topk push = choose(b, m, s, n, is_few(b, m, s, n), &step);
    bool sum = has_parts(b, m, s, n);
    uint32_t lanes = vkm_moe_topk_lanes(b, m->n_expert), parts = sum ? vkm_shape_splits(&b->shape, &m->router) : 1;
    if (sum) push.ws_logits = s->logit_parts.at, push.ld_logits = s->logit_parts.ld;
    VKM_STEP_PUSH(step, push);
    if (sum) vkm_reads(b, &step, s->logit_parts, n * parts);
    else     vkm_reads(b, &step, s->logits, n);
    uint32_t spec[SPEC_ALL] = {lanes, 1, vkm_reduce_shared(b, lanes), m->n_expert, parts};
    return vkm_build_step(b, "moe_topk", "", spec, rule_spec(m, 5, spec), &step, "moe_topk");
}

static bool quads(const struct vkm_combine *c) { return (c->x.at | c->y.at | c->out.at) % 4 == 0; }

/* Norm, router and top-k in one step: a router of at most so many rows, of which linear makes no more workgroups than one on a GPU. On CPU drivers with scalar loads a workgroup has a token, and reads the
 * router again, which then is of so many bytes at most. Mesa 26, two cores, the router's part of a layer as it was (8 tokens in one workgroup, more in five steps) and so, us: 8 experts of 192 columns, 8 tokens 52 and 41,
 * 9 201 and 44, 16 176 and 52, 64 239 and 142; 64 experts of 2,048 columns, 8 tokens 431 and 276, 9 535 and 325, 16 613 and 451, 32 866 and 824; 128 of 2,048 (not taken), 8 409 and 464, 32 961 and 1,242. */
#define ROUTE_ROWS 64
#define ROUTE_BYTES (1u << 19)
static bool fits_route(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    if (m->router.rows > ROUTE_ROWS) return false;
    if (!b->shape.scalar_loads || n == 1) return n <= few_rows(b, m);
    return s->arrived.rows && n <= VKM_ROUTED_ROWS && n * m->n_used <= VKM_ROUTED_SLOTS && vkm_matmul_bytes(&m->router) <= ROUTE_BYTES;
}

static bool routes(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, uint32_t n)
{
    const struct vkm_weight *w = &m->router;
    uint64_t iterations = (uint64_t)n * norm->width * 3 + (uint64_t)vkm_shape_splits(&b->shape, w) * w->rows * w->kb * 2 + (uint64_t)m->n_expert * m->n_expert * few_rows(b, m);
    uint32_t lanes = vkm_moe_topk_lanes(b, m->n_expert);      /* those of the three kernels, or its sums would be others */
    uint32_t parts = vkm_shape_splits(&b->shape, w) * VKM_FEW_ROWS * w->rows * 4;
    bool rows = norm->x.ld == w->kb * VKM_PANEL && norm->y.ld == norm->x.ld && norm->out.ld == norm->x.ld && (!b->shape.scalar_loads || quads(norm));
    return rows && !has_bias(m) && parts <= vkm_device_caps(b->device)->shared_bytes / 2 && fits_route(b, m, s, n) && w->type == vkm_type_find(0) && w->n_chunks == 1 && norm->n_add == 1 && !norm->shared.rows &&
           vkm_combine_lanes(b, norm) == lanes && vkm_reduce_lanes(b, iterations) == lanes;
}

bool vkm_moe_norms(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, uint32_t n)
{
    return !(m->rule && m->rule->general) && !routes(b, m, s, norm, n) && joins(b, m, s, n) && vkm_norm_fits(b, norm->width, topk_shared_bytes(b, m));
}

bool vkm_moe_adds(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    const struct vkm_moe_plan p = vkm_moe_plan(m, s, (struct vkm_region){0}, n);
    uint8_t tile_from[VKM_TILE_CLASSES];
    if (n > b->shape.joined_rows || b->shape.splits == 1 || !p.whole || (m->rule && m->rule->general) || m->shared_down.type || !s->arrived.rows || m->down.n_panels > s->arrived.ld) return false;
    vkm_moe_tiles(b, m, &p, tile_from);
    return vkm_matmul_adds(b, &m->down, tile_from, n);
}

static vkm_result route(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *c, uint32_t n)
{
    const struct vkm_weight *w = &m->router;
    struct vkm_step step = {.groups = {1, 1, 1}, .bindings = b->sets[w->set], .bytes = vkm_matmul_bytes(w) + (uint64_t)n * (c->width * 4 + w->rows) * 4, .flops = 2ull * n * w->cols * w->rows};
    const uint64_t workspace = vkm_buffer_address(b->workspace);
    const struct vkm_push_moe_route push = {.topk = choose(b, m, s, n, true, &step), .ws_x = c->x.at, .ws_y = c->y.at, .ws_xn = c->out.at, .width = c->width, .ld = c->x.ld,
        .tab_norm = c->tab_norm, .tab_weight = w->tab, .residual = c->scale, .eps = c->eps, .ws_address = {(uint32_t)workspace, (uint32_t)(workspace >> 32)}, .ws_arrived = s->arrived.at};
    VKM_STEP_PUSH(step, push);
    if (b->shape.scalar_loads) step.groups[0] = n;
    if (step.groups[0] > 1) vkm_reads(b, &step, s->arrived, 1), vkm_writes(b, &step, s->arrived, 1);
    vkm_reads_part(b, &step, c->x, c->width, n);
    vkm_reads_part(b, &step, c->y, c->width, n);
    vkm_writes_part(b, &step, c->x, c->width, n);
    vkm_writes_part(b, &step, c->out, w->kb * VKM_PANEL, n);
    vkm_writes_part(b, &step, s->logits, w->rows, n);
    const uint32_t lanes = vkm_moe_topk_lanes(b, m->n_expert);
    uint32_t spec[SPEC_ALL] = {lanes, 1, vkm_reduce_shared(b, lanes), m->n_expert, n == 1 ? 1 : VKM_FEW_ROWS, w->rows, vkm_shape_splits(&b->shape, w), b->shape.rows_per_lane};
    bool texels = b->shape.texel_loads && w->whole && w->slab == 0 && quads(c) && (c->width | c->tab_norm) % 4 == 0;
    return vkm_build_step(b, b->shape.scalar_loads ? "moe_route_cpu" : texels ? "moe_route_texel" : "moe_route", "", spec, rule_spec(m, SPEC_OWN, spec), &step, "moe_route");
}

/* How many dispatches a class's tiles come in: one, unless a slow device's watchdog might not like it. */
uint32_t vkm_moe_pieces(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p)
{
    if (is_few(b, m, s, p->n)) return 1;
    const struct vkm_weight *w = vkm_moe_first(m);
    uint32_t pieces = vkm_program_pieces(b->device, 0, 2ull * p->n * p->k * w->cols * w->rows * (w->glu ? 2 : 1));
    return pieces < VKM_PIECES_MAX ? pieces : VKM_PIECES_MAX;
}

static vkm_result sort(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p)
{
    const struct vkm_weight *up = vkm_moe_first(m);
    uint32_t slots = p->n * p->k, chunks = vkm_div_up(slots, VKM_SORT_CHUNK);
    struct vkm_push_moe_sort push = {.ws_ids = s->ids.at, .n_slots = slots, .n_expert = m->n_expert, .ws_counts = s->counts.at, .ws_perm = s->perm.at, .ws_tiles = s->tiles.at,
        .tiles_max = slots,
        .pieces = vkm_moe_pieces(b, m, s, p), .ws_args = s->args.at,
        .panels_up = up->n_panels, .panels_down = m->down.n_panels, .group_panels = vkm_shape_panels(&b->shape)};
    uint8_t tile_from[VKM_TILE_CLASSES];
    vkm_moe_tiles(b, m, p, tile_from);
    pack_tile_from(tile_from, push.tile_from);
    push.piece_tiles = vkm_div_up(vkm_moe_tiles_max(tile_from, p->n, p->k, m->n_expert), push.pieces);
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
    vkm_writes_words(b, &permute, s->tiles.at, VKM_TILE_CLASSES * 2 * slots);
    vkm_writes_words(b, &permute, s->args.at, VKM_TILE_CLASSES * push.pieces * 6);
    return vkm_build_step(b, "moe_permute", "", spec, 3, &permute, "moe_permute");
}

vkm_result vkm_moe_router(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, struct vkm_region x, uint32_t n)
{
    if (n == 0) return VKM_OK;
    const struct vkm_moe_plan p = vkm_moe_plan(m, s, x, n);
    bool general = m->rule && m->rule->general, sorted = !general && is_few(b, m, s, n);
    if (norm && !general && routes(b, m, s, norm, n)) {
        TRY(route(b, m, s, norm, n));
        sorted = true;
    } else {
        const struct vkm_combine *own = norm && norm->n_add == 0 && vkm_moe_norms(b, m, s, norm, n) ? norm : NULL;
        if (norm && !own) TRY(vkm_combine_norm(b, "ffn_norm", norm, 0, n));
        if (!general && has_parts(b, m, s, n)) TRY(logit_parts(b, m, s, own, x, n));
        else if (m->router.type)            TRY(vkm_linear(b, "moe_router", &m->router, has_bias(m) ? m->rule->tab_logit_bias : VKM_NONE, x, s->logits, n));
        if (general) TRY(vkm_rule_route(b, m, s, &p, x, n));
        else if (!joins(b, m, s, n)) TRY(topk(b, m, s, n));
    }
    if (m->rule) TRY(vkm_rule_watch(b, m, s, &p, n));
    return sorted ? VKM_OK : sort(b, m, s, &p);
}
