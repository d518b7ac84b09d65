#include "router.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1024 };

/* ---------------------------------------------------------------- scores */

static double softplus(double v) { return v > 0 ? v + log1p(exp(-v)) : log1p(exp(v)); }

static double within_floats(double v) { return v > FLT_MAX ? FLT_MAX : v < -FLT_MAX ? -FLT_MAX : v; }     /* NaN stays NaN */

static uint32_t n_logits(const struct ref_router *r) { return r->d.select == VKM_SELECT_HIERARCHICAL ? r->n_expert + r->d.n_groups : r->n_expert; }

/* Row l of the router for token t, after soft cap and noise */
static double logit(const struct ref_router *r, uint32_t t, uint32_t l)
{
    const float *z = r->logits + (size_t)t * r->ld;
    double v = z[l];
    if (r->d.logit_softcap > 0) v = r->d.logit_softcap * tanh(v / r->d.logit_softcap);
    if (r->d.noise == VKM_NOISE_ADDED) v += r->noise[(size_t)t * n_logits(r) + l];
    if (r->d.noise == VKM_NOISE_SCALED) v += r->noise[(size_t)t * n_logits(r) + l] * softplus(z[n_logits(r) + l]);
    return within_floats(v);
}

static double largest(const double *z, uint32_t n)
{
    double m = -INFINITY;
    for (uint32_t i = 0; i < n; i++) if (z[i] > m) m = z[i];
    return m;
}

/* exp(z) / sum exp(z) of those that are numbers; 0 for NaN */
static void softmax(const double *z, uint32_t n, double *p)
{
    double m = largest(z, n), sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += p[i] = isnan(z[i]) ? 0 : exp(z[i] - m);
    for (uint32_t i = 0; i < n; i++) p[i] = sum > 0 ? p[i] / sum : 0;
}

static void score(vkm_router_score kind, const double *z, uint32_t n, double *s)
{
    if (kind == VKM_ROUTER_SOFTMAX) { softmax(z, n, s); return; }
    for (uint32_t i = 0; i < n; i++) {
        if (kind == VKM_ROUTER_UNIFORM) s[i] = 1;
        else if (isnan(z[i])) s[i] = 0;
        else if (kind == VKM_ROUTER_SIGMOID) s[i] = 1 / (1 + exp(-z[i]));
        else if (kind == VKM_ROUTER_SQRT_SOFTPLUS) s[i] = sqrt(softplus(z[i]));
        else s[i] = z[i];                /* identity; selected and sparsemixer: what they are made of */
    }
}

/* ---------------------------------------------------------------- choices */

/* a before b: the larger; NaN last; ties by index */
static bool before(double a, uint32_t i, double b, uint32_t j) { return isnan(a) != isnan(b) ? isnan(b) : !isnan(a) && a != b ? a > b : i < j; }

/* The k best of c[first .. first + n) that are allowed (NULL: all), best first */
static void best(const double *c, uint32_t first, uint32_t n, const bool *allowed, uint32_t k, uint32_t *ids)
{
    bool taken[MOST] = {0};
    for (uint32_t j = 0; j < k; j++) {
        uint32_t b = UINT32_MAX;
        for (uint32_t i = first; i < first + n; i++)
            if (!taken[i] && (!allowed || allowed[i]) && (b == UINT32_MAX || before(c[i], i, c[b], b))) b = i;
        taken[ids[j] = b] = true;
    }
}

/* DeepSeek-V2 and V3: only experts of the best groups */
static void limit_groups(const struct ref_router *r, const double *c, bool *allowed)
{
    uint32_t each = r->n_expert / r->d.n_groups, kept[MOST];
    double group[MOST];
    for (uint32_t g = 0; g < r->d.n_groups; g++) {
        uint32_t two[2];
        best(c, g * each, each, NULL, each < 2 ? 1 : 2, two);
        group[g] = c[two[0]];
        if (r->d.group_score == VKM_GROUPS_SUM_OF_TWO && each > 1 && !isnan(group[g])) group[g] = within_floats(group[g] + (isnan(c[two[1]]) ? -FLT_MAX : c[two[1]]));
    }
    best(group, 0, r->d.n_groups, NULL, r->d.n_groups_used, kept);
    for (uint32_t e = 0; e < r->n_expert; e++) allowed[e] = false;
    for (uint32_t i = 0; i < r->d.n_groups_used; i++)
        for (uint32_t e = kept[i] * each; e < (kept[i] + 1) * each; e++) allowed[e] = true;
}

static void choose_top(const struct ref_router *r, const double *z, const double *s, uint32_t *ids)
{
    bool groups = r->d.n_groups > 1, by_score = r->d.selection_bias || (groups && r->d.group_score == VKM_GROUPS_SUM_OF_TWO), allowed[MOST];
    double c[MOST];
    for (uint32_t e = 0; e < r->n_expert; e++) c[e] = !by_score || isnan(z[e]) ? z[e] : s[e] + (r->d.selection_bias ? r->d.selection_bias[e] : 0);
    if (groups) limit_groups(r, c, allowed);
    best(c, 0, r->n_expert, groups ? allowed : NULL, r->d.n_used, ids);
}

static void choose_given(const struct ref_router *r, uint32_t t, uint32_t *ids)
{
    for (uint32_t j = 0; j < r->d.n_used; j++) {
        bool hash = r->d.select == VKM_SELECT_HASH, beyond = hash && r->given[t] >= r->d.n_table;
        ids[j] = beyond ? VKM_ROUTER_DROPPED : hash ? r->d.hash_table[(size_t)r->given[t] * r->d.n_used + j] : r->given[(size_t)t * r->d.n_used + j];
        if (ids[j] >= r->n_expert) ids[j] = VKM_ROUTER_DROPPED;
        for (uint32_t o = 0; o < j; o++) if (ids[o] == ids[j]) ids[j] = VKM_ROUTER_DROPPED;
    }
}

/* ---------------------------------------------------------------- weights */

/* Softmax over what was chosen */
static void soften(const double *z, const uint32_t *ids, uint32_t k, double *w)
{
    double chosen[32];
    for (uint32_t j = 0; j < k; j++) chosen[j] = ids[j] == VKM_ROUTER_DROPPED ? NAN : z[ids[j]];
    softmax(chosen, k, w);
}

/* Phi-3.5-MoE: a softmax over the logits near the choice's, without earlier choices */
static void sparsemixer(const struct ref_router *r, const double *z, const uint32_t *ids, double *w)
{
    bool gone[MOST] = {0};
    for (uint32_t j = 0; j < r->d.n_used; j++) {
        double m = z[ids[j]], sum = 0;
        for (uint32_t e = 0; e < r->n_expert; e++)
            if (!gone[e] && !isnan(z[e]) && m - z[e] <= 2.0 * r->d.jitter * fmax(fabs(z[e]), m)) sum += exp(z[e] - m);
        w[j] = isnan(m) ? 0 : 1 / sum;
        gone[ids[j]] = true;
    }
}

/* Shazeer et al. 2017, appendix B */
static void hierarchical(const struct ref_router *r, const double *z, uint32_t *ids, double *w)
{
    uint32_t each = r->n_expert / r->d.n_groups, used = r->d.n_used / r->d.n_groups_used, groups[MOST];
    double of_group[MOST], of_expert[MOST];
    best(z + r->n_expert, 0, r->d.n_groups, NULL, r->d.n_groups_used, groups);
    softmax(z + r->n_expert, r->d.n_groups, of_group);
    if (r->d.score == VKM_ROUTER_SELECTED) soften(z + r->n_expert, groups, r->d.n_groups_used, of_expert);
    for (uint32_t i = 0; i < r->d.n_groups_used; i++) {
        uint32_t g = groups[i], *mine = ids + i * used;
        double gate = r->d.score == VKM_ROUTER_SELECTED ? of_expert[i] : of_group[g], inner[MOST];
        best(z, g * each, each, NULL, used, mine);
        if (r->d.score == VKM_ROUTER_SELECTED) soften(z, mine, used, inner);
        else {
            double p[MOST];
            softmax(z + g * each, each, p);
            for (uint32_t j = 0; j < used; j++) inner[j] = p[mine[j] - g * each];
        }
        for (uint32_t j = 0; j < used; j++) w[i * used + j] = gate * inner[j];
    }
}

static double sum_of(const double *w, const uint32_t *ids, uint32_t k)
{
    double sum = 0;
    for (uint32_t j = 0; j < k; j++) if (ids[j] != VKM_ROUTER_DROPPED) sum += w[j];
    return sum;
}

static void renormalise(const struct ref_router *r, const uint32_t *ids, double *w)
{
    double sum = sum_of(w, ids, r->d.n_used), min = r->d.sum_min, add = r->d.sum_add;
    for (uint32_t j = 0; j < r->d.n_used; j++) w[j] /= (sum > min ? sum : min) + add;
}

/* Philox-2x32-10 (Salmon et al. 2011) */
static double random_of(uint32_t seed, uint32_t counter)
{
    uint32_t a = counter, b = 0;
    for (uint32_t i = 0; i < 10; i++, seed += 0x9E3779B9u) {
        uint64_t product = (uint64_t)a * 0xD256D193u;
        a = (uint32_t)(product >> 32) ^ seed ^ b;
        b = (uint32_t)product;
    }
    return (a >> 8) * 0x1p-24;
}

/* ---------------------------------------------------------------- one token, all tokens */

/* Returns what batch-prioritised routing sorts by */
static double route_token(struct ref_router *r, uint32_t t)
{
    const vkm_router_desc *d = &r->d;
    uint32_t k = d->n_used, *ids = r->ids + (size_t)t * k;
    double z[2 * MOST] = {0}, s[MOST], *w = r->weights + (size_t)t * k, priority = -INFINITY;
    for (uint32_t l = 0; d->score != VKM_ROUTER_UNIFORM && l < n_logits(r); l++) z[l] = logit(r, t, l);
    score(d->score, z, r->n_expert, s);
    if (d->select == VKM_SELECT_HIERARCHICAL) hierarchical(r, z, ids, w);
    else {
        if (d->select == VKM_SELECT_TOP_K) choose_top(r, z, s, ids);
        else choose_given(r, t, ids);
        for (uint32_t j = 0; j < k; j++) w[j] = ids[j] == VKM_ROUTER_DROPPED ? 0 : s[ids[j]];
        if (d->score == VKM_ROUTER_SELECTED) soften(z, ids, k, w);
        if (d->score == VKM_ROUTER_SPARSEMIXER) sparsemixer(r, z, ids, w);
    }
    for (uint32_t j = 0; j < k; j++) if (w[j] > priority) priority = w[j];
    if (d->renormalise == VKM_RENORMALISE_CHOSEN) renormalise(r, ids, w);
    if (d->random_second && !(random_of(r->seed, t) < 2 * w[1])) ids[1] = VKM_ROUTER_DROPPED;
    return priority;
}

/* GShard's order of service: first choices of all tokens, then second ones ...; tokens as `order` has them */
static void drop(struct ref_router *r, const uint32_t *order)
{
    for (uint32_t j = 0; j < r->d.n_used; j++)
        for (uint32_t i = 0; i < r->n; i++) {
            uint32_t *id = &r->ids[(size_t)order[i] * r->d.n_used + j];
            if (*id == VKM_ROUTER_DROPPED) continue;
            if (r->rows[*id] < r->capacity) { r->rows[*id]++; continue; }
            r->dropped[*id]++;
            *id = VKM_ROUTER_DROPPED;
        }
}

/* Zhou et al. 2022: each expert's capacity best tokens */
static void expert_choice(struct ref_router *r)
{
    double *s = malloc((size_t)r->n * r->n_expert * sizeof *s), z[MOST], row[MOST];
    bool *taken = malloc(r->n);
    for (uint32_t t = 0; t < r->n; t++) {
        for (uint32_t e = 0; e < r->n_expert; e++) z[e] = logit(r, t, e);
        score(r->d.score, z, r->n_expert, row);
        for (uint32_t e = 0; e < r->n_expert; e++) s[(size_t)t * r->n_expert + e] = isnan(z[e]) ? NAN : row[e];
        r->missed[t] = 1;
    }
    for (uint32_t e = 0; e < r->n_expert; e++) {
        memset(taken, 0, r->n);
        for (uint32_t i = 0; i < r->capacity; i++) {
            uint32_t b = UINT32_MAX;
            for (uint32_t t = 0; t < r->n; t++)
                if (!taken[t] && (b == UINT32_MAX || before(s[(size_t)t * r->n_expert + e], t, s[(size_t)b * r->n_expert + e], b))) b = t;
            taken[b] = true;
        }
        for (uint32_t t = 0, slot = e * r->capacity; t < r->n; t++) {
            if (!taken[t]) continue;
            double w = s[(size_t)t * r->n_expert + e];
            r->ids[slot] = e;
            r->tokens[slot] = t;
            r->weights[slot++] = isnan(w) ? 0 : w * r->d.scale * (r->d.expert_scale ? r->d.expert_scale[e] : 1);
            r->missed[t] = 0;
        }
        r->rows[e] = r->capacity;
    }
    free(taken);
    free(s);
}

/* Switch's load-balance loss over slots, ST-MoE's z-loss */
static void losses(struct ref_router *r)
{
    double p[MOST], mean[MOST] = {0}, z[MOST];
    for (uint32_t t = 0; t < r->n; t++) {
        for (uint32_t e = 0; e < r->n_expert; e++) z[e] = logit(r, t, e);
        double m = largest(z, r->n_expert), sum = 0, lse;
        for (uint32_t e = 0; e < r->n_expert; e++) sum += isnan(z[e]) ? 0 : exp(z[e] - m);
        lse = sum > 0 ? m + log(sum) : 0;
        r->z_loss += lse * lse / r->n;
        if (r->d.score == VKM_ROUTER_SIGMOID || r->d.score == VKM_ROUTER_SQRT_SOFTPLUS) {
            double all = 0;
            score(r->d.score, z, r->n_expert, p);
            for (uint32_t e = 0; e < r->n_expert; e++) all += p[e];
            for (uint32_t e = 0; e < r->n_expert; e++) p[e] = all > 0 ? p[e] / all : 0;
        } else softmax(z, r->n_expert, p);
        for (uint32_t e = 0; e < r->n_expert; e++) mean[e] += p[e] / r->n;
    }
    for (uint32_t e = 0; e < r->n_expert; e++) r->load_balance += r->n_expert * ((double)(r->rows[e] + r->dropped[e]) / r->slots) * mean[e];
}

static void by_priority(const double *priority, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i;
        for (; at > 0 && priority[i] > priority[order[at - 1]]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
}

static void choose_by_tokens(struct ref_router *r)
{
    const vkm_router_desc *d = &r->d;
    uint32_t *order = malloc(r->n * sizeof *order);
    double *priority = malloc(r->n * sizeof *priority);
    for (uint32_t t = 0; t < r->n; t++) priority[order[t] = t] = route_token(r, t);
    if (d->capacity == VKM_CAPACITY_PRIORITISED) by_priority(priority, r->n, order);
    drop(r, order);
    for (uint32_t t = 0; t < r->n; t++) {
        uint32_t *ids = r->ids + (size_t)t * d->n_used;
        double *w = r->weights + (size_t)t * d->n_used;
        if (d->renormalise == VKM_RENORMALISE_KEPT) renormalise(r, ids, w);
        for (uint32_t j = 0; j < d->n_used; j++) {
            r->tokens[t * d->n_used + j] = t;
            r->missed[t] += ids[j] == VKM_ROUTER_DROPPED;
            w[j] *= d->scale * (d->expert_scale && ids[j] != VKM_ROUTER_DROPPED ? d->expert_scale[ids[j]] : 1);
            if (r->given_weights) w[j] = r->given_weights[t * d->n_used + j];
            if (ids[j] == VKM_ROUTER_DROPPED) w[j] = 0;
        }
    }
    free(order);
    free(priority);
}

void ref_router_run(struct ref_router *r)
{
    vkm_router_desc *d = &r->d;
    bool by_expert = d->select == VKM_SELECT_EXPERT_CHOICE;
    if (d->scale == 0) d->scale = 1;
    if (d->sum_min == 0) d->sum_min = 0x1p-14f;
    if (d->jitter == 0) d->jitter = 0.01f;
    r->capacity = UINT32_MAX;
    if (d->capacity || by_expert) {
        double rows = (double)d->capacity_factor * r->n * (by_expert ? 1 : d->n_used) / r->n_expert, whole = floor(rows + 0.5);
        r->capacity = (uint32_t)(fabs(rows - whole) < 1e-6 * rows ? whole : ceil(rows));
        if (r->capacity < d->capacity_min) r->capacity = d->capacity_min;
        if (by_expert && r->capacity > r->n) r->capacity = r->n;
    }
    r->slots = by_expert ? r->n_expert * r->capacity : r->n * d->n_used;
    r->ids = calloc(r->slots + 1, sizeof *r->ids), r->tokens = calloc(r->slots + 1, sizeof *r->tokens), r->weights = calloc(r->slots + 1, sizeof *r->weights);
    r->rows = calloc(r->n_expert, sizeof *r->rows), r->dropped = calloc(r->n_expert, sizeof *r->dropped), r->missed = calloc(r->n + 1, sizeof *r->missed);
    if (by_expert) expert_choice(r);
    else           choose_by_tokens(r);
    if (d->score != VKM_ROUTER_UNIFORM) losses(r);
    for (uint32_t t = 0; t < r->n; t++) r->n_dropped += r->missed[t];
    for (uint32_t e = 0; e < r->n_expert; e++) if (r->rows[e] > r->most_rows) r->most_rows = r->rows[e];
}

void ref_router_free(struct ref_router *r)
{
    free(r->ids), free(r->tokens), free(r->weights), free(r->rows), free(r->dropped), free(r->missed);
    r->ids = r->tokens = r->rows = r->dropped = r->missed = NULL;
    r->weights = NULL;
}

/* ---------------------------------------------------------------- soft MoE */

/* out = sum over i of softmax over i of z * from[i] */
static void mix(const double *z, uint32_t n, const float *from, uint32_t width, double *out)
{
    double *p = malloc(n * sizeof *p);
    softmax(z, n, p);
    for (uint32_t c = 0; c < width; c++) {
        out[c] = 0;
        for (uint32_t i = 0; i < n; i++) if (p[i] > 0) out[c] += p[i] * from[(size_t)i * width + c];
    }
    free(p);
}

void ref_soft_dispatch(const float *logits, uint32_t ld, uint32_t n, uint32_t slots, const float *x, uint32_t width, double *in)
{
    double *z = malloc(n * sizeof *z);
    for (uint32_t s = 0; s < slots; s++) {
        for (uint32_t t = 0; t < n; t++) z[t] = within_floats(logits[(size_t)t * ld + s]);
        mix(z, n, x, width, in + (size_t)s * width);
    }
    free(z);
}

void ref_soft_combine(const float *logits, uint32_t ld, uint32_t n, uint32_t slots, const float *from_experts, uint32_t width, double *y)
{
    double *z = malloc(slots * sizeof *z);
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t s = 0; s < slots; s++) z[s] = within_floats(logits[(size_t)t * ld + s]);
        mix(z, slots, from_experts, width, y + (size_t)t * width);
    }
    free(z);
}
