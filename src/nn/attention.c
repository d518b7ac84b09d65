/* Attention: which kernel does it for so many rows on this device. */
#include "build.h"

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

static void kv_ranges(struct vkm_range *ranges, uint32_t *n, const struct vkm_kv *kv)
{
    for (uint32_t i = 0; i < kv->n_parts; i++) ranges[(*n)++] = kv->parts[i];
}

#define TEXEL_HEAD 256u              /* dimensions of a head, which are all in registers, or on a stack */
static bool aligned(struct vkm_region r) { return (r.at | r.ld) % 4 == 0; }
static bool has_quads(uint32_t table) { return table == VKM_NONE || table % 4 == 0; }

/* Whether lanes own heads (rope_heads): on CPU drivers with either kind of fast loads, where all begin at a multiple of four words. */
static bool heads_by_lanes(const struct vkm_build *b, const struct vkm_attention *a)
{
    return (b->shape.texel_loads || b->shape.scalar_loads) && a->head % 4 == 0 && a->n_rot % (a->neox ? 8 : 4) == 0 && aligned(a->q) && aligned(a->k) && aligned(a->v) &&
           has_quads(a->tab_rope) && has_quads(a->tab_q_norm) && has_quads(a->tab_k_norm);
}

/* Whether lanes own rows (attention_rows). By way of texel buffers where one is of the whole layer's cache: the same bits. */
static bool by_rows(const struct vkm_build *b, const struct vkm_attention *a)
{
    return b->shape.texel_loads && a->head % 8 == 0 && a->head <= TEXEL_HEAD && aligned(a->q) && aligned(a->out);
}

static vkm_result rope_store(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, uint32_t n)
{
    struct vkm_push_rope_store push = {.ws_q = a->q.at, .ld_q = a->q.ld, .ws_k = a->k.at, .ld_k = a->k.ld, .ws_v = a->v.at, .ld_v = a->v.ld, .n_head = a->n_head, .n_head_kv = a->n_head_kv,
        .n_rot = a->n_rot, .ws_pos = a->ws_pos, .ws_seq = a->ws_seq, .tab_q_norm = a->tab_q_norm, .tab_k_norm = a->tab_k_norm, .tab_rope = a->tab_rope,
        .k_unit = kv->k_unit, .v_unit = kv->v_unit, .kv_units = kv->units, .kv_words = (uint32_t)(kv->bytes / 4), .n_ctx = a->n_ctx, .eps = a->eps, .clamp = a->clamp};
    struct vkm_step s = {.groups = {a->n_head + 2 * a->n_head_kv, n, 1}, .bindings = b->sets[kv->set], .bytes = (uint64_t)n * (a->n_head + 2 * a->n_head_kv) * a->head * 8};
    VKM_STEP_PUSH(s, push);
    vkm_reads_part(b, &s, a->q, a->n_head * a->head, n);
    vkm_reads_part(b, &s, a->k, a->n_head_kv * a->head, n);
    vkm_reads_part(b, &s, a->v, a->n_head_kv * a->head, n);
    vkm_reads_words(b, &s, a->ws_pos, n);
    vkm_reads_words(b, &s, a->ws_seq, n);
    vkm_writes_part(b, &s, a->q, a->n_head * a->head, n);
    kv_ranges(s.reads, &s.n_reads, kv);               /* other positions stay */
    kv_ranges(s.writes, &s.n_writes, kv);
    if (heads_by_lanes(b, a)) {
        const uint32_t spec[] = {b->shape.lanes, 1, a->head, a->neox, a->kv16, a->n_rot};
        s.groups[0] = vkm_div_up(s.groups[0], b->shape.lanes);
        return vkm_build_step(b, b->shape.texel_loads ? "rope_heads_texel" : "rope_heads", "", spec, VKM_COUNT(spec), &s, "rope_store");
    }
    const uint32_t lanes = b->shape.reduce_lanes < VKM_PANEL ? b->shape.reduce_lanes : VKM_PANEL;      /* four dimensions each of what is common: more workgroups at once */
    const uint32_t spec[] = {lanes, 1, a->head, a->neox, a->kv16, lanes, vkm_reduce_shared(b, lanes) == 1};
    return vkm_build_step(b, "rope_store", "", spec, VKM_COUNT(spec), &s, "rope_store");
}

uint64_t vkm_attention_iterations(uint32_t head, uint32_t n_ctx) { return (uint64_t)vkm_div_up(n_ctx, 32) * (vkm_div_up(head, 8) + 8 + 16 + 1); }

#define ATTENTION_ONE 256u           /* rows for each of which a workgroup of its own is made, at most */

/* Shared memory of attention.comp */
static uint32_t attention_shared(uint32_t parts, uint32_t nq, uint32_t head) { return parts * nq * (36 + 3 + (parts > 1 ? head : 0)) * 4; }

/* Shared memory of attention_coop.comp: K and V of the rounds, before them Q; the scores' rows; a word a subgroup. */
static uint32_t attention_coop_shared(const struct vkm_shape *s, uint32_t subgroups, uint32_t parts, uint32_t head)
{
    uint32_t rows = subgroups * s->matrix.m, keys = s->coop_buffers * 2 * s->coop_keys;
    return ((keys > rows ? keys : rows) * (head / 8 + 1) + rows * (s->coop_keys / 4 + parts)) * 16 + subgroups * 4;
}

/* Subgroups of attention_coop.comp, and the lanes that it has for a row; 0 where it is not for this device, cache or prompt. */
static uint32_t attention_coop(const struct vkm_build *b, const struct vkm_attention *a, uint32_t n, uint32_t *parts)
{
    const struct vkm_caps *caps = vkm_device_caps(b->device);
    const struct vkm_shape *s = &b->shape;
    const struct vkm_matrix *m = &s->matrix;
    uint32_t subgroups = s->coop_subgroups, lanes = s->matrix_lanes;
    if (!m->m || !subgroups || !a->kv16 || !a->one_sequence || n < VKM_COOPMAT_ROWS || vkm_kernel_tier(b->device, "attention_coop", "", VKM_TIERS_ALL) != VKM_TIER_COOPMAT) return 0;
    if (m->n % 8 || m->k % 8 || a->head % m->n || a->head % m->k || s->coop_keys % m->n || s->coop_keys % m->k) return 0;
    if ((a->q.at | a->q.ld | a->out.at | a->out.ld) % 4) return 0;                  /* rows of four words */
    if (!caps->full_subgroups) return 0;                                            /* its lanes of a row have to be of one subgroup: none may be narrower than reported */
    if (lanes < m->m || (caps->type != VKM_TYPE_CPU && a->head * m->m > 64 * lanes)) return 0;   /* more sums than that a lane do not stay in registers */
    *parts = lanes % m->m ? 1 : lanes / m->m;
    while (*parts > 1 && s->coop_keys / 4 % *parts) *parts /= 2;
    if (m->n / 4 > s->coop_keys / 8 + *parts) return 0;                               /* R beside P */
    while (subgroups > 1 && (subgroups * lanes > caps->invocations || attention_coop_shared(s, subgroups, *parts, a->head) > caps->shared_bytes)) subgroups /= 2;
    return attention_coop_shared(s, subgroups, *parts, a->head) > caps->shared_bytes ? 0 : subgroups;
}

/* How n rows are shared out. */
struct attention_plan {
    uint32_t segments, rows, lanes, nq, parts;
    uint32_t coop, row_lanes;                /* subgroups of attention_coop and lanes of a row; 0: another kernel */
    bool cpu, few, by_rows;                  /* attention_cpu; attention_one; attention_rows */
};

/* Whether attention.comp's lanes have registers for so many rows: of each `sums` pairs of dimensions, query, position and score; values of four keys; 24 for the rest. */
static bool holds_rows(const struct vkm_build *b, const struct vkm_attention *a, uint32_t rows, uint32_t sums)
{
    uint32_t registers = b->shape.lane_registers;
    return rows * sums <= 32 && (!registers || rows * (2 * sums + 3) + 8 * sums * (a->kv16 ? 1 : 2) + 24 <= registers);
}

static struct attention_plan attention_plan(const struct vkm_build *b, const struct vkm_attention *a, uint32_t n)
{
    const struct vkm_caps *caps = vkm_device_caps(b->device);
    struct attention_plan p = {.segments = a->one_sequence ? 1 : n, .lanes = b->shape.attention_lanes, .nq = b->shape.attention_rows};
    p.rows = n / p.segments * (a->n_head / a->n_head_kv);
    p.cpu = b->shape.scalar_loads && (a->kv16 ? a->head / 2 : a->head) % p.lanes == 0;
    while (p.nq > 1 && !holds_rows(b, a, p.nq, vkm_div_up(a->head / 2, p.lanes))) p.nq /= 2;
    p.parts = p.cpu || b->shape.attention_parts == 0 ? 1 : b->shape.attention_parts;
    while (p.parts > 1 && attention_shared(p.parts, p.nq, a->head) > caps->shared_bytes) p.parts /= 2;      /* the same for any number of rows, or a token's bits would depend on it */
    p.by_rows = by_rows(b, a);
    if (p.by_rows) p.lanes = p.nq = b->shape.lanes;
    p.coop = attention_coop(b, a, n / p.segments, &p.row_lanes);
    p.few = !p.coop && p.parts > 2 && p.lanes == VKM_PANEL && (uint64_t)p.segments * p.rows * a->n_head_kv <= ATTENTION_ONE;
    while (p.nq > 1 && !p.by_rows && (p.few || p.nq / 2 >= p.rows)) p.nq /= 2;
    if (p.coop) p.nq = p.coop * b->shape.matrix.m;
    return p;
}

static struct vkm_step attention_begin(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, const struct attention_plan *p, uint32_t n)
{
    struct vkm_step s = {.groups = {p->segments * vkm_div_up(p->rows, p->nq), a->n_head_kv, 1}, .bindings = b->sets[kv->set], .grows = true,
                         .bytes = kv->bytes * p->segments, .flops = 2ull * n * a->n_head * a->head * a->n_ctx};   /* of a cache that is half full */
    vkm_reads_part(b, &s, a->q, a->n_head * a->head, n);
    vkm_reads_words(b, &s, a->ws_pos, n);
    vkm_reads_words(b, &s, a->ws_seq, n);
    kv_ranges(s.reads, &s.n_reads, kv);
    vkm_writes(b, &s, a->out, n);
    return s;
}

/* ropes: does what rope_store does, too */
static vkm_result attention_one(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, const struct attention_plan *p, uint32_t n, bool ropes)
{
    const struct vkm_push_attention_one push = {.ws_q = a->q.at, .ld_q = a->q.ld, .ws_k = a->k.at, .ld_k = a->k.ld, .ws_v = a->v.at, .ld_v = a->v.ld, .ws_out = a->out.at, .ld_out = a->out.ld,
        .n_head = a->n_head, .n_head_kv = a->n_head_kv, .n_rot = a->n_rot, .ws_pos = a->ws_pos, .ws_seq = a->ws_seq, .tab_q_norm = a->tab_q_norm, .tab_k_norm = a->tab_k_norm, .tab_rope = a->tab_rope,
        .k_unit = kv->k_unit, .v_unit = kv->v_unit, .kv_units = kv->units, .kv_words = (uint32_t)(kv->bytes / 4), .n_ctx = a->n_ctx, .eps = a->eps, .clamp = a->clamp, .scale = a->scale};
    struct vkm_step s = attention_begin(b, a, kv, p, n);
    VKM_STEP_PUSH(s, push);
    if (ropes) {
        vkm_reads_part(b, &s, a->k, a->n_head_kv * a->head, n);
        vkm_reads_part(b, &s, a->v, a->n_head_kv * a->head, n);
        kv_ranges(s.writes, &s.n_writes, kv);
    }
    uint32_t dims = vkm_div_up(a->head / 2, p->lanes), words = a->kv16 ? 1 : 2, registers = b->shape.lane_registers, pairs = registers ? registers / 8 / words : 32, at_once = dims > 2 ? 8 : 16;
    while (registers && at_once > 4 && (at_once * words + 2) * dims > registers / 4) at_once /= 2;
    while (a->head / 2 % pairs) pairs /= 2;
    const uint32_t spec[] = {p->lanes, p->parts, a->head, a->neox, a->kv16, dims, p->parts, ropes, pairs, at_once};
    return vkm_build_step(b, "attention_one", "", spec, VKM_COUNT(spec), &s, "attention");
}

vkm_result vkm_attention_step(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, uint32_t n)
{
    const struct attention_plan p = attention_plan(b, a, n);
    if (p.few) return attention_one(b, a, kv, &p, n, false);
    const struct vkm_caps *caps = vkm_device_caps(b->device);
    uint64_t workspace = vkm_buffer_address(b->workspace);
    const struct vkm_push_attention push = {.ws_q = a->q.at, .ld_q = a->q.ld, .ws_out = a->out.at, .ld_out = a->out.ld, .rows = p.rows, .tiles = vkm_div_up(p.rows, p.nq),
        .n_head = a->n_head, .n_head_kv = a->n_head_kv, .ws_pos = a->ws_pos, .ws_seq = a->ws_seq,
        .k_unit = kv->k_unit, .v_unit = kv->v_unit, .kv_units = kv->units, .kv_words = (uint32_t)(kv->bytes / 4), .n_ctx = a->n_ctx, .scale = a->scale,
        .tab_kv = a->tab_kv + 2 * kv->slab, .ws_address = {(uint32_t)workspace, (uint32_t)(workspace >> 32)}};
    struct vkm_step s = attention_begin(b, a, kv, &p, n);
    VKM_STEP_PUSH(s, push);
    if (p.coop) {
        const struct vkm_shape *o = &b->shape;
        const uint32_t lanes = p.coop * o->matrix_lanes, spec[] = {lanes, 1, p.coop, a->head, o->matrix.m, o->matrix.n, o->matrix.k, lanes, p.row_lanes, o->coop_keys, o->coop_buffers, o->coop_fetch};
        return vkm_build_step_of(b, "attention_coop", "", VKM_TIER_BIT(VKM_TIER_COOPMAT), spec, VKM_COUNT(spec), &s, "attention");
    }
    if (p.by_rows) {
        const uint32_t spec[] = {p.lanes, 1, a->head, a->kv16};
        return vkm_build_step(b, kv->n_parts == 1 ? "attention_rows_texel" : "attention_rows", "", spec, VKM_COUNT(spec), &s, "attention");
    }
    bool one = vkm_reduce_shared(b, p.lanes) == 1, gpu = caps->type != VKM_TYPE_CPU, many = b->shape.holds_many;
    const uint32_t dims = gpu && !b->shape.lane_registers ? 16 : 8;
    const uint32_t spec[] = {p.lanes, p.parts, p.nq, a->head, a->kv16, VKM_PANEL / p.lanes, p.cpu ? (a->kv16 ? a->head / 2 : a->head) / p.lanes : vkm_div_up(a->head / 2, p.lanes), one,
                             dims, many ? 8 : 4, p.parts};
    uint32_t tiers = p.cpu || one ? VKM_TIERS_ALL : VKM_TIER_BIT(VKM_TIER_BASELINE);   /* the subgroup tier would ask for full subgroups, see host/kernel.c */
    return vkm_build_step_of(b, p.cpu ? "attention_cpu" : "attention", "", tiers, spec, VKM_COUNT(spec), &s, "attention");
}

vkm_result vkm_attend(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, uint32_t n)
{
    const struct attention_plan p = attention_plan(b, a, n);
    if (p.few && p.segments == n) return attention_one(b, a, kv, &p, n, true);      /* no token looks back at another one of these */
    TRY(rope_store(b, a, kv, n));
    return vkm_attention_step(b, a, kv, n);
}
