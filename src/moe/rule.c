/* Routers by description: looking through one, where it works, and the steps that moe_topk has no room for. */
#include "rule.h"
#include <math.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

_Static_assert(VKM_RULE_HASH == VKM_SELECT_HASH && VKM_RULE_FORCED == VKM_SELECT_FORCED && VKM_RULE_HIERARCHICAL == VKM_SELECT_HIERARCHICAL, "abi.h");
_Static_assert(VKM_RULE_SOFTMAX == VKM_ROUTER_SOFTMAX && VKM_RULE_SELECTED == VKM_ROUTER_SELECTED && VKM_RULE_SIGMOID == VKM_ROUTER_SIGMOID && VKM_RULE_SQRT_SOFTPLUS == VKM_ROUTER_SQRT_SOFTPLUS &&
               VKM_RULE_IDENTITY == VKM_ROUTER_IDENTITY && VKM_RULE_SPARSEMIXER == VKM_ROUTER_SPARSEMIXER && VKM_RULE_UNIFORM == VKM_ROUTER_UNIFORM, "abi.h");
_Static_assert(VKM_NONE == VKM_ROUTER_DROPPED, "abi.h");

#define EXPERTS_MOST 1024u
#define USED_MOST 32u
#define SLOTS_MOST (1u << 20)             /* of an expert, soft MoE */
#define SUM_MIN 0x1p-14f

/* ---------------------------------------------------------------- descriptions */

static vkm_router_desc with_defaults(const vkm_router_desc *given)
{
    vkm_router_desc d = {0};
    memcpy(&d, given, given->struct_size && given->struct_size < sizeof d ? given->struct_size : sizeof d);
    if (d.scale == 0) d.scale = 1;
    if (d.sum_min == 0) d.sum_min = SUM_MIN;
    if (d.jitter == 0) d.jitter = 0.01f;
    if (d.n_groups == 0) d.n_groups = 1;
    if (d.n_groups == 1) d.n_groups_used = 1;
    if (d.slots_per_expert == 0) d.slots_per_expert = 1;
    return d;
}

/* Logits of a token, without those of noise */
static uint32_t n_logits(const vkm_router_desc *d, uint32_t n_expert)
{
    if (d->score == VKM_ROUTER_UNIFORM) return 0;
    return d->select == VKM_SELECT_SOFT ? n_expert * d->slots_per_expert : d->select == VKM_SELECT_HIERARCHICAL ? n_expert + d->n_groups : n_expert;
}

static uint32_t rows_of(const vkm_router_desc *d, uint32_t n_expert) { return n_logits(d, n_expert) * (d->noise == VKM_NOISE_SCALED ? 2 : 1); }

static uint32_t capacity_of(const vkm_router_desc *d, uint32_t n_expert, uint32_t n)
{
    bool by_expert = d->select == VKM_SELECT_EXPERT_CHOICE;
    if (d->capacity == VKM_CAPACITY_NONE && !by_expert) return UINT32_MAX;
    double rows = ceil((double)d->capacity_factor * n * (by_expert ? 1 : d->n_used) / n_expert * (1 - 1e-6));
    uint32_t c = rows < UINT32_MAX ? (uint32_t)rows : UINT32_MAX - 1;
    if (c < d->capacity_min) c = d->capacity_min;
    return by_expert && c > n ? n : c;
}

static uint32_t slots_of(const vkm_router_desc *d, uint32_t n_expert, uint32_t n)
{
    if (n == 0) return 0;
    return d->select == VKM_SELECT_EXPERT_CHOICE ? n_expert * capacity_of(d, n_expert, n) : d->select == VKM_SELECT_SOFT ? n_expert * d->slots_per_expert : n * d->n_used;
}

uint32_t vkm_router_rows(const vkm_router_desc *desc, uint32_t n_expert)
{
    const vkm_router_desc d = with_defaults(desc);
    return rows_of(&d, n_expert);
}

uint32_t vkm_router_slots(const vkm_router_desc *desc, uint32_t n_expert, uint32_t n_tokens)
{
    const vkm_router_desc d = with_defaults(desc);
    return slots_of(&d, n_expert, n_tokens);
}

uint32_t vkm_moe_rule_capacity(const struct vkm_moe_rule *rule, uint32_t n) { return capacity_of(&rule->d, rule->n_expert, n); }

#define WRONG(condition, ...) do { if (condition) return vkm_fail(err, VKM_ERR_ARGUMENT, "router: " __VA_ARGS__); } while (0)

static vkm_result check_groups(const vkm_router_desc *d, uint32_t n_expert, vkm_error *err)
{
    bool levels = d->select == VKM_SELECT_HIERARCHICAL;
    if (d->n_groups == 1 && !levels) return VKM_OK;
    WRONG(!levels && d->select != VKM_SELECT_TOP_K, "n_groups is of top-k and hierarchical gating");
    WRONG(!levels && d->score == VKM_ROUTER_SPARSEMIXER, "n_groups does not go with sparsemixer");
    WRONG(d->n_groups > VKM_GROUPS_MOST || n_expert % d->n_groups, "n_groups %u does not divide %u experts, or is over %u", d->n_groups, n_expert, VKM_GROUPS_MOST);
    WRONG(d->n_groups_used < 1 || d->n_groups_used > d->n_groups, "n_groups_used is %u of %u", d->n_groups_used, d->n_groups);
    WRONG(d->n_groups_used * (n_expert / d->n_groups) < d->n_used, "%u groups of %u experts are fewer than n_used %u", d->n_groups_used, n_expert / d->n_groups, d->n_used);
    WRONG(levels && d->n_used % d->n_groups_used, "n_used %u is not so many experts of each of %u groups", d->n_used, d->n_groups_used);
    return VKM_OK;
}

static vkm_result check_numbers(const vkm_router_desc *d, vkm_error *err)
{
    WRONG(!isfinite(d->scale), "scale %g", (double)d->scale);
    WRONG(!(d->sum_min > 0) || !(d->sum_add >= 0) || isinf(d->sum_min) || isinf(d->sum_add), "sum_min %g, sum_add %g", (double)d->sum_min, (double)d->sum_add);
    WRONG(!(d->logit_softcap >= 0) || isinf(d->logit_softcap), "logit_softcap %g", (double)d->logit_softcap);
    WRONG(!(d->jitter > 0) || isinf(d->jitter), "jitter %g", (double)d->jitter);
    WRONG(!(d->capacity_factor >= 0) || isinf(d->capacity_factor), "capacity_factor %g", (double)d->capacity_factor);
    return VKM_OK;
}

static vkm_result check(const vkm_router_desc *d, uint32_t n_expert, vkm_error *err)
{
    bool soft = d->select == VKM_SELECT_SOFT, by_expert = d->select == VKM_SELECT_EXPERT_CHOICE, given = d->select == VKM_SELECT_HASH || d->select == VKM_SELECT_FORCED;
    bool plain = d->score == VKM_ROUTER_SOFTMAX || d->score == VKM_ROUTER_SIGMOID || d->score == VKM_ROUTER_SQRT_SOFTPLUS || d->score == VKM_ROUTER_IDENTITY;
    WRONG(n_expert < 1 || n_expert > EXPERTS_MOST, "%u experts; 1 to %u can be", n_expert, EXPERTS_MOST);
    WRONG((unsigned)d->select > VKM_SELECT_SOFT, "select %d", (int)d->select);
    WRONG((unsigned)d->score > VKM_ROUTER_UNIFORM, "score %d", (int)d->score);
    WRONG((unsigned)d->renormalise > VKM_RENORMALISE_KEPT, "renormalise %d", (int)d->renormalise);
    WRONG((unsigned)d->group_score > VKM_GROUPS_SUM_OF_TWO, "group_score %d", (int)d->group_score);
    WRONG((unsigned)d->noise > VKM_NOISE_SCALED, "noise %d", (int)d->noise);
    WRONG((unsigned)d->capacity > VKM_CAPACITY_PRIORITISED, "capacity %d", (int)d->capacity);
    TRY(check_numbers(d, err));
    if (soft) {
        WRONG(d->slots_per_expert > SLOTS_MOST / n_expert, "%u slots of each of %u experts", d->slots_per_expert, n_expert);
        WRONG(d->n_used || d->score || d->renormalise || d->n_groups > 1 || d->noise || d->capacity || d->random_second || d->expert_scale || d->selection_bias || d->logit_softcap != 0 || d->scale != 1,
              "soft MoE has logit_bias and slots_per_expert, nothing else");
        return VKM_OK;
    }
    WRONG(by_expert ? d->n_used != 0 : d->n_used < 1 || d->n_used > n_expert || d->n_used > USED_MOST, "n_used %u of %u experts; 1 to %u can be, and 0 for expert choice", d->n_used, n_expert, USED_MOST);
    WRONG(by_expert && (!plain || d->renormalise || d->capacity), "expert choice has a softmax, sigmoid, sqrt-softplus or identity score, no renormalising, and its own capacity");
    WRONG(by_expert && d->capacity_factor == 0 && d->capacity_min == 0, "expert choice needs capacity_factor or capacity_min");
    WRONG(d->score == VKM_ROUTER_SPARSEMIXER && d->select != VKM_SELECT_TOP_K, "sparsemixer is a score of top-k");
    WRONG(d->score == VKM_ROUTER_UNIFORM && (!given || d->noise || d->logit_softcap != 0 || d->logit_bias), "a uniform score is of hash and forced routing, without noise, cap and bias");
    WRONG(d->select == VKM_SELECT_HIERARCHICAL && d->score > VKM_ROUTER_SELECTED, "hierarchical gating has a softmax score, over all or the selected");
    WRONG(d->selection_bias && (d->select != VKM_SELECT_TOP_K || !plain), "selection_bias is of top-k with a softmax, sigmoid, sqrt-softplus or identity score");
    WRONG(d->random_second && (d->select != VKM_SELECT_TOP_K || d->n_used != 2), "random_second is of top-k with n_used 2");
    WRONG(d->select == VKM_SELECT_HASH && (!d->hash_table || !d->n_table || d->n_table > UINT32_MAX / 4 / d->n_used), "hash routing needs a hash_table of n_table rows");
    return check_groups(d, n_expert, err);
}

vkm_result vkm_moe_rule_init(const vkm_router_desc *given, uint32_t n_expert, struct vkm_moe_rule *rule, vkm_error *err)
{
    const vkm_router_desc d = with_defaults(given);
    TRY(check(&d, n_expert, err));
    struct vkm_moe_rule r = {.d = d, .n_expert = n_expert, .tab_logit_bias = VKM_NONE, .tab_selection_bias = VKM_NONE, .tab_expert_scale = VKM_NONE, .tab_hash = VKM_NONE};
    bool topk = d.select == VKM_SELECT_TOP_K && (d.score == VKM_ROUTER_SOFTMAX || d.score == VKM_ROUTER_SIGMOID || (d.score == VKM_ROUTER_SELECTED && d.n_groups == 1));
    r.general = !topk || d.renormalise == VKM_RENORMALISE_KEPT || d.sum_min != SUM_MIN || d.sum_add != 0 || d.expert_scale || d.logit_softcap != 0 || d.noise || d.capacity || d.random_second;
    r.d.expert_scale = r.d.logit_bias = r.d.selection_bias = NULL;
    r.d.hash_table = NULL;
    *rule = r;
    return VKM_OK;
}

static uint64_t put(const void *from, uint64_t words, uint64_t room, uint32_t at, uint64_t *used, uint32_t *to, uint32_t *where)
{
    if (!from) return 0;
    *where = at + (uint32_t)*used;
    if (to) memset(to + *used, 0, room * 4);
    if (to) memcpy(to + *used, from, words * 4);
    return *used += room;
}

uint64_t vkm_moe_rule_tables(struct vkm_moe_rule *rule, const vkm_router_desc *given, uint32_t router_rows, uint32_t at, uint32_t *to)
{
    const vkm_router_desc d = with_defaults(given);
    uint64_t used = 0, table = (uint64_t)d.n_table * d.n_used;
    put(d.logit_bias, n_logits(&d, rule->n_expert), router_rows, at, &used, to, &rule->tab_logit_bias);
    put(d.selection_bias, rule->n_expert, rule->n_expert, at, &used, to, &rule->tab_selection_bias);
    put(d.expert_scale, rule->n_expert, rule->n_expert, at, &used, to, &rule->tab_expert_scale);
    if (d.select == VKM_SELECT_HASH) put(d.hash_table, table, table, at, &used, to, &rule->tab_hash);
    return used;
}

void vkm_moe_use_rule(struct vkm_moe *m, const struct vkm_moe_rule *rule)
{
    m->rule = rule;
    m->n_used = rule->d.n_used;
    m->score = rule->d.score == VKM_ROUTER_SELECTED ? VKM_SCORE_SELECTED : VKM_SCORE_SOFTMAX;
    m->renormalise = rule->d.renormalise == VKM_RENORMALISE_CHOSEN;
    m->weight_scale = rule->d.scale;
}

/* ---------------------------------------------------------------- where it works */

static bool may_drop(const vkm_router_desc *d) { return d->select == VKM_SELECT_HASH || d->select == VKM_SELECT_FORCED || d->capacity || d->random_second; }

struct vkm_moe_plan vkm_moe_plan(const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region x, uint32_t n)
{
    const vkm_router_desc *d = m->rule ? &m->rule->d : NULL;
    struct vkm_moe_plan p = {.n = n, .k = m->n_used, .most = n, .perm_up = s->perm.at, .divide = m->n_used, .perm_down = s->perm.at, .x = x, .x_rows = n,
                             .direct = n == 1 && !(d && may_drop(d)), .whole = !(d && may_drop(d))};
    if (!d || (d->select != VKM_SELECT_EXPERT_CHOICE && d->select != VKM_SELECT_SOFT)) return p;
    p.n = slots_of(d, m->n_expert, n);        /* expert by expert already, so that sorting leaves them as they are */
    p.k = p.divide = 1;
    p.most = p.n / m->n_expert;
    p.direct = p.whole = false;
    if (d->select == VKM_SELECT_EXPERT_CHOICE) p.perm_up = s->router.tokens.at;
    else p.x = s->router.rows, p.x_rows = p.n;
    return p;
}

static struct vkm_region take(uint64_t *words, uint64_t rows, uint32_t width, uint32_t align)
{
    struct vkm_region r = {(uint32_t)*words, (uint32_t)vkm_align(width, align), (uint32_t)rows};
    *words += vkm_align(rows * r.ld, 32);
    return r;
}
static struct vkm_region take_words(uint64_t *words, uint64_t n) { return take(words, 1, (uint32_t)n, 32); }

void vkm_moe_router_place(const struct vkm_moe *m, uint32_t n, bool statistics, uint64_t *words, struct vkm_moe_space *s)
{
    const vkm_router_desc *d = m->rule ? &m->rule->d : NULL;
    const struct vkm_moe_plan p = vkm_moe_plan(m, s, (struct vkm_region){0}, n);
    uint64_t slots = (uint64_t)p.n * p.k;
    uint32_t rows = (d ? rows_of(d, m->n_expert) : m->n_expert) + m->shared_gated;
    if (rows) s->logits = take(words, n, rows, 32);
    if (m->router.type && !(d && m->rule->general)) s->logit_parts = take(words, VKM_JOINED_ROWS * vkm_splits_most(m->router.kb), rows, 32);
    s->ids = take_words(words, slots);
    s->weights = take_words(words, slots);
    if (m->shared_gated) s->gate = take(words, n, 1, 1);
    s->counts = take_words(words, vkm_moe_count_words(p.n, p.k, m->n_expert));
    s->perm = take_words(words, slots);
    s->tiles = take_words(words, VKM_TILE_CLASSES * 2 * slots + 2 * VKM_PIECES_MAX);
    s->args = take_words(words, VKM_TILE_CLASSES * VKM_PIECES_MAX * 6);
    struct vkm_moe_router_space r = {0};
    if (d) {
        bool by_expert = d->select == VKM_SELECT_EXPERT_CHOICE;
        if (d->noise) r.noise = take(words, n, n_logits(d, m->n_expert), 1);
        if (d->select == VKM_SELECT_HASH) r.given = take_words(words, n);
        if (d->select == VKM_SELECT_FORCED) r.given = take_words(words, slots), r.given_weights = take_words(words, slots);
        if (d->random_second) r.seed = take_words(words, 1);
        if (d->capacity || statistics) r.chosen = take_words(words, slots);
        if (by_expert) r.probs = take(words, n, m->n_expert, 1), r.tokens = take_words(words, slots);
        if (d->capacity == VKM_CAPACITY_PRIORITISED) r.priority = take_words(words, n), r.order = take_words(words, n);
        if (d->select == VKM_SELECT_SOFT) r.rows = take(words, slots, m->n_embd, 32);
        if (d->capacity || statistics) r.expert_rows = take_words(words, m->n_expert), r.expert_dropped = take_words(words, m->n_expert), r.load = take_words(words, m->n_expert);
        if (statistics && d->select != VKM_SELECT_SOFT) {
            if (n_logits(d, m->n_expert)) r.all_probs = take(words, n, m->n_expert, 1), r.lse = take_words(words, n);
            r.missed = take_words(words, n);
            r.statistics = take_words(words, sizeof(vkm_router_statistics) / 4);
        }
    }
    s->router = r;
}

/* ---------------------------------------------------------------- steps */

/* Lanes of a kernel that loops so often in all, and its constants: LANES is known to it. */
struct lanes { uint32_t n, spec[3]; };
static struct lanes lanes_of(const struct vkm_build *b, uint64_t iterations)
{
    uint32_t n = vkm_reduce_lanes(b, iterations);
    return (struct lanes){n, {n, 1, n}};
}

static uint32_t at(struct vkm_region r) { return r.rows ? r.at : VKM_NONE; }

static uint32_t rule_bits(const vkm_router_desc *d) { return (uint32_t)d->select | (uint32_t)d->score << 4 | (d->group_score == VKM_GROUPS_SUM_OF_TWO && d->n_groups > 1 ? VKM_RULE_SUM_OF_TWO : 0) |
                                                            (d->noise == VKM_NOISE_SCALED ? VKM_RULE_NOISE_SCALED : 0); }

/* moe_select. ids: NONE, only the scores and the shared gate are wanted. */
static vkm_result select_step(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n, uint32_t ids, uint32_t probs, uint32_t lse, bool gate, uint32_t flags, const char *label)
{
    const struct vkm_moe_rule *rule = m->rule;
    const vkm_router_desc *d = &rule->d;
    const struct vkm_moe_router_space *r = &s->router;
    bool choose = ids != VKM_NONE, given = choose && (d->select == VKM_SELECT_HASH || d->select == VKM_SELECT_FORCED), weights = choose && d->select == VKM_SELECT_FORCED && r->given_weights.rows;
    struct vkm_push_moe_select push = {.ws_logits = s->logits.at, .ld_logits = s->logits.ld, .ws_noise = at(r->noise), .ld_noise = r->noise.ld, .ws_given = given ? r->given.at : VKM_NONE,
        .ws_given_weight = weights ? r->given_weights.at : VKM_NONE, .tab_bias = rule->tab_selection_bias, .tab_scale = rule->tab_expert_scale, .tab_hash = rule->tab_hash, .n_table = d->n_table,
        .ws_ids = ids, .ws_weight = s->weights.at, .ws_probs = probs, .ws_lse = lse, .ws_priority = choose ? at(r->priority) : VKM_NONE, .ws_seed = choose ? at(r->seed) : VKM_NONE,
        .ws_gate = gate ? s->gate.at : VKM_NONE, .gate_row = rows_of(d, m->n_expert), .n_expert = m->n_expert, .n_used = d->n_used, .n_groups = d->n_groups, .groups_used = d->n_groups_used,
        .rule = rule_bits(d) | flags, .scale = d->scale, .sum_min = d->sum_min, .sum_add = d->sum_add, .softcap = d->logit_softcap, .jitter = d->jitter};
    struct vkm_step step = {.groups = {n, 1, 1}, .bytes = (uint64_t)n * rows_of(d, m->n_expert) * 4, .flops = (uint64_t)n * m->n_expert * m->n_expert * 3};
    VKM_STEP_PUSH(step, push);
    if (s->logits.rows) vkm_reads(b, &step, s->logits, n);
    if (r->noise.rows) vkm_reads(b, &step, r->noise, n);
    if (given) vkm_reads_words(b, &step, r->given.at, d->select == VKM_SELECT_HASH ? n : n * d->n_used);
    if (weights) vkm_reads_words(b, &step, r->given_weights.at, n * d->n_used);
    if (push.ws_seed != VKM_NONE) vkm_reads_words(b, &step, push.ws_seed, 1);
    if (choose) vkm_writes_words(b, &step, ids, n * d->n_used);
    if (choose) vkm_writes_words(b, &step, s->weights.at, n * d->n_used);
    if (probs != VKM_NONE) vkm_writes_words(b, &step, probs, n * m->n_expert);
    if (lse != VKM_NONE) vkm_writes_words(b, &step, lse, n);
    if (push.ws_priority != VKM_NONE) vkm_writes_words(b, &step, push.ws_priority, n);
    if (gate) vkm_writes(b, &step, s->gate, n);
    const uint32_t lanes = vkm_reduce_lanes(b, (uint64_t)m->n_expert * (m->n_expert + USED_MOST)), spec[] = {lanes, 1, vkm_reduce_shared(b, lanes), m->n_expert > 256 ? EXPERTS_MOST : 256};
    return vkm_build_step(b, "moe_select", "", spec, VKM_COUNT(spec), &step, label);
}

static vkm_result choose_step(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, uint32_t n)
{
    const struct vkm_moe_router_space *r = &s->router;
    const struct vkm_push_moe_choose push = {.ws_probs = r->probs.at, .n = n, .n_expert = m->n_expert, .capacity = p->most, .tab_scale = m->rule->tab_expert_scale, .ws_tokens = r->tokens.at,
                                             .ws_ids = s->ids.at, .ws_weight = s->weights.at, .scale = m->rule->d.scale};
    struct vkm_step step = {.groups = {m->n_expert, 1, 1}, .bytes = (uint64_t)n * m->n_expert * 4 * 6};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, r->probs.at, n * m->n_expert);
    vkm_writes_words(b, &step, r->tokens.at, p->n);
    vkm_writes_words(b, &step, s->ids.at, p->n);
    vkm_writes_words(b, &step, s->weights.at, p->n);
    const struct lanes l = lanes_of(b, (uint64_t)n * 6);
    return vkm_build_step(b, "moe_choose", "", l.spec, 3, &step, "moe_choose");
}

static vkm_result rank_step(struct vkm_build *b, const struct vkm_moe_router_space *r, uint32_t n)
{
    const struct vkm_push_moe_rank push = {.ws_priority = r->priority.at, .n = n, .ws_order = r->order.at};
    const uint32_t spec[] = {64, 1};
    struct vkm_step step = {.groups = {vkm_div_up(n, spec[0]), 1, 1}, .flops = (uint64_t)n * n * 4};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, r->priority.at, n);
    vkm_writes_words(b, &step, r->order.at, n);
    return vkm_build_step(b, "moe_rank", "", spec, 2, &step, "moe_rank");
}

/* For statistics, if there are scores */
static vkm_result probabilities(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n)
{
    const struct vkm_moe_router_space *r = &s->router;
    return r->all_probs.rows ? select_step(b, m, s, n, VKM_NONE, r->all_probs.at, r->lse.at, false, VKM_RULE_NORMALISED, "moe_probabilities") : VKM_OK;
}

/* moe_capacity: from `chosen` to ids; where nothing can be dropped it only counts, and ids are what is looked at. */
static vkm_result capacity_step(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, uint32_t n, uint32_t capacity)
{
    const struct vkm_moe_router_space *r = &s->router;
    bool drop = m->rule->d.capacity != VKM_CAPACITY_NONE;
    uint32_t from = drop ? r->chosen.at : s->ids.at, to = drop ? s->ids.at : r->chosen.at, slots = p->n * p->k;
    const struct vkm_push_moe_capacity push = {.ws_chosen = from, .n = p->n, .n_used = p->k, .n_tokens = n, .n_expert = m->n_expert, .ws_order = at(r->order), .capacity = capacity,
        .ws_probs = at(r->all_probs), .ws_ids = to, .ws_weight = s->weights.at, .ws_rows = r->expert_rows.at, .ws_dropped = r->expert_dropped.at, .ws_load = r->load.at};
    struct vkm_step step = {.groups = {m->n_expert, 1, 1}, .bytes = (uint64_t)m->n_expert * slots * 8};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, from, slots);
    if (r->order.rows) vkm_reads_words(b, &step, r->order.at, n);
    if (r->all_probs.rows) vkm_reads_words(b, &step, r->all_probs.at, n * m->n_expert);
    vkm_writes_words(b, &step, to, slots);
    if (drop) vkm_reads_words(b, &step, s->weights.at, slots), vkm_writes_words(b, &step, s->weights.at, slots);    /* those that are kept stay */
    vkm_writes_words(b, &step, r->expert_rows.at, m->n_expert);
    vkm_writes_words(b, &step, r->expert_dropped.at, m->n_expert);
    vkm_writes_words(b, &step, r->load.at, m->n_expert);
    const struct lanes l = lanes_of(b, (uint64_t)slots * 2 + n);
    return vkm_build_step(b, "moe_capacity", "", l.spec, 3, &step, drop ? "moe_capacity" : "moe_load");
}

/* moe_keep: weights: add up to 1 again; missed: are counted */
static vkm_result keep_step(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, uint32_t n, bool weights, bool missed, const char *label)
{
    const struct vkm_moe_router_space *r = &s->router;
    const vkm_router_desc *d = &m->rule->d;
    bool by_expert = d->select == VKM_SELECT_EXPERT_CHOICE;
    const struct vkm_push_moe_keep push = {.n = n, .ws_ids = s->ids.at, .n_used = d->n_used, .ws_tokens = by_expert ? r->tokens.at : VKM_NONE, .n_expert = m->n_expert, .capacity = p->most,
        .ws_weight = weights ? s->weights.at : VKM_NONE, .tab_scale = m->rule->tab_expert_scale, .ws_missed = missed ? r->missed.at : VKM_NONE, .scale = d->scale, .sum_min = d->sum_min, .sum_add = d->sum_add};
    const uint32_t spec[] = {64, 1};
    struct vkm_step step = {.groups = {vkm_div_up(n, spec[0]), 1, 1}, .bytes = (uint64_t)p->n * p->k * 12};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, by_expert ? r->tokens.at : s->ids.at, p->n * p->k);
    if (weights) vkm_reads_words(b, &step, s->weights.at, p->n * p->k), vkm_writes_words(b, &step, s->weights.at, p->n * p->k);
    if (missed) vkm_writes_words(b, &step, r->missed.at, n);
    return vkm_build_step(b, "moe_keep", "", spec, 2, &step, label);
}

static vkm_result loss_step(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_router_space *r, uint32_t n)
{
    const struct vkm_push_moe_loss push = {.ws_rows = r->expert_rows.at, .ws_load = r->load.at, .ws_lse = at(r->lse), .ws_missed = r->missed.at, .n = n, .n_expert = m->n_expert, .ws_out = r->statistics.at};
    struct vkm_step step = {.groups = {1, 1, 1}, .bytes = (uint64_t)(n + m->n_expert) * 8};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, r->expert_rows.at, m->n_expert);
    vkm_reads_words(b, &step, r->load.at, m->n_expert);
    if (r->lse.rows) vkm_reads_words(b, &step, r->lse.at, n);
    vkm_reads_words(b, &step, r->missed.at, n);
    vkm_writes_words(b, &step, r->statistics.at, sizeof(vkm_router_statistics) / 4);
    const struct lanes l = lanes_of(b, (uint64_t)n + m->n_expert);
    return vkm_build_step(b, "moe_loss", "", l.spec, 3, &step, "moe_loss");
}

/* moe_mix: `rows` rows of out from n of in, by logits at row and column strides. The experts' rows also get their ids. */
static vkm_result mix_step(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t rows, uint32_t row, uint32_t n, uint32_t column, struct vkm_region in, struct vkm_region out,
                           uint32_t width, bool ids, uint32_t n_tokens, const char *label)
{
    const struct vkm_push_moe_mix push = {.ws_logits = s->logits.at, .row = row, .column = column, .n = n, .ws_in = in.at, .ld_in = in.ld, .ws_out = out.at, .ld_out = out.ld, .width = width,
        .ws_ids = ids ? s->ids.at : VKM_NONE, .ws_weight = s->weights.at, .each = m->rule->d.slots_per_expert};
    const uint32_t lanes = vkm_reduce_lanes(b, 1), spec[] = {lanes, 1, lanes};
    struct vkm_step step = {.groups = {rows, vkm_div_up(width, lanes * 4), 1}, .bytes = (uint64_t)rows * n * width * 4, .flops = 2ull * rows * n * width};
    VKM_STEP_PUSH(step, push);
    vkm_reads(b, &step, s->logits, n_tokens);
    vkm_reads_part(b, &step, in, width, n);
    vkm_writes_part(b, &step, out, width, rows);
    if (ids) vkm_writes_words(b, &step, s->ids.at, rows), vkm_writes_words(b, &step, s->weights.at, rows);
    return vkm_build_step(b, "moe_mix", "", spec, 3, &step, label);
}

vkm_result vkm_rule_route(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, struct vkm_region x, uint32_t n)
{
    const vkm_router_desc *d = &m->rule->d;
    const struct vkm_moe_router_space *r = &s->router;
    uint32_t most = vkm_device_caps(b->device)->loop_iterations;
    if (most && n > most / 2) return vkm_fail(b->err, VKM_ERR_LIMIT, "router: %u tokens; this driver's loops end after %u iterations", n, most);
    if (d->select == VKM_SELECT_SOFT) {
        if (m->shared_gated) TRY(select_step(b, m, s, n, VKM_NONE, VKM_NONE, VKM_NONE, true, 0, "moe_gate"));
        return mix_step(b, m, s, p->n, 1, n, s->logits.ld, x, r->rows, (uint32_t)vkm_align(m->n_embd, 32), true, n, "moe_dispatch");
    }
    if (d->select == VKM_SELECT_EXPERT_CHOICE) {
        TRY(select_step(b, m, s, n, VKM_NONE, r->probs.at, VKM_NONE, m->shared_gated, 0, "moe_select"));
        return choose_step(b, m, s, p, n);
    }
    bool kept = d->renormalise == VKM_RENORMALISE_KEPT && !(d->select == VKM_SELECT_FORCED && r->given_weights.rows);
    uint32_t flags = kept ? VKM_RULE_DEFER : d->renormalise == VKM_RENORMALISE_CHOSEN ? VKM_RULE_RENORMALISE : 0;
    TRY(select_step(b, m, s, n, d->capacity ? r->chosen.at : s->ids.at, VKM_NONE, VKM_NONE, m->shared_gated, flags, "moe_select"));
    if (d->capacity == VKM_CAPACITY_PRIORITISED) TRY(rank_step(b, r, n));
    if (d->capacity) TRY(probabilities(b, m, s, n));
    if (d->capacity) TRY(capacity_step(b, m, s, p, n, capacity_of(d, m->n_expert, n)));
    return kept ? keep_step(b, m, s, p, n, true, false, "moe_keep") : VKM_OK;
}

vkm_result vkm_rule_watch(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p, uint32_t n)
{
    if (!s->router.statistics.rows) return VKM_OK;
    if (!m->rule->d.capacity) {               /* else it was done where slots were dropped */
        TRY(probabilities(b, m, s, n));
        TRY(capacity_step(b, m, s, p, n, UINT32_MAX));
    }
    TRY(keep_step(b, m, s, p, n, false, true, "moe_missed"));
    return loss_step(b, m, &s->router, n);
}

vkm_result vkm_moe_combine(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region out, uint32_t n)
{
    if (n == 0) return VKM_OK;
    const struct vkm_moe_plan p = vkm_moe_plan(m, s, (struct vkm_region){0}, n);
    const vkm_router_desc *d = m->rule ? &m->rule->d : NULL;
    bool by_expert = d && d->select == VKM_SELECT_EXPERT_CHOICE;
    uint32_t width = (uint32_t)vkm_align(m->n_embd, 4);
    if (d && d->select == VKM_SELECT_SOFT) return mix_step(b, m, s, n, s->logits.ld, p.n, 1, s->y, out, width, false, n, "moe_combine");
    const struct vkm_push_moe_combine push = {.ws_ids = s->ids.at, .n_used = m->n_used, .ws_tokens = by_expert ? s->router.tokens.at : VKM_NONE, .n_expert = m->n_expert, .capacity = p.most,
        .ws_y = s->y.at, .ld_y = s->y.ld, .ws_out = out.at, .ld_out = out.ld, .width = width};
    const uint32_t lanes = b->shape.reduce_lanes, spec[] = {lanes, 1};
    struct vkm_step step = {.groups = {n, vkm_div_up(width, lanes * 4), 1}, .bytes = ((uint64_t)p.n * p.k + n) * width * 4};
    VKM_STEP_PUSH(step, push);
    vkm_reads_words(b, &step, by_expert ? push.ws_tokens : s->ids.at, p.n * p.k);
    vkm_reads(b, &step, s->y, p.n * p.k);
    vkm_writes_part(b, &step, out, width, n);
    return vkm_build_step(b, "moe_combine", "", spec, 2, &step, "moe_combine");
}
