/* Routers by description, from logits to ids, weights, sorted rows, sums and statistics: every rule against plain C in double precision, and both against what published models make of the same logits. */
#include "driver.h"
#include "effort.h"
#include "moe/layer.h"
#include "reference/rng.h"
#include "reference/router.h"
#include <math.h>

#define WS_WORDS (1u << 17)
#define TABLE_WORDS 8192u
#define CANARY 0xc0ffee11u
#define WIDTH 40u                        /* of rows that are mixed and added up: no multiple of 32 */

static const struct { const char *caps; bool gpu_shape; } devices[] = {{NULL, false}, {"baseline", true}};

struct bench {
    struct driver_log log;
    vkm_device *device;
    vkm_buffer *ws, *readback, *tables, *slab;
    vkm_bindings *bindings;
    uint32_t *words;                     /* [WS_WORDS] the workspace: given to it before a run, read after it */
    struct vkm_build build;
};

static void upload(struct bench *t, vkm_buffer *to, const void *from, uint64_t bytes)
{
    vkm_error err = {0};
    vkm_uploader *u = NULL;
    OK(vkm_uploader_create(t->device, 2 << 20, &u, &err));
    for (uint64_t at = 0; at < bytes; at += 1 << 20) {
        uint64_t n = bytes - at < 1 << 20 ? bytes - at : 1 << 20;
        void *where;
        OK(vkm_upload_begin(u, to, at, n, &where, &err));
        memcpy(where, (const char *)from + at, n);
        OK(vkm_upload_end(u, &err));
    }
    OK(vkm_upload_finish(u, &err));
    vkm_uploader_destroy(u);
}

static void open_bench_with(struct bench *t, const char *caps, bool gpu_shape)
{
    vkm_error err = {0};
    *t = (struct bench){0};
    t->device = driver_open(caps, &t->log);
    OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, WS_WORDS * 4, "ws", &t->ws, &err));
    OK(vkm_buffer_create(t->device, VKM_BUFFER_READBACK, WS_WORDS * 4, "readback", &t->readback, &err));
    OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, TABLE_WORDS * 4, "tables", &t->tables, &err));
    OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, 1 << 20, "slab", &t->slab, &err));
    OK(vkm_bindings_create(t->device, t->ws, t->tables, &t->slab, 1, NULL, 0, &t->bindings, &err));
    t->words = malloc(WS_WORDS * 4);
    cr_assert(t->words);
    struct vkm_caps c = gpu_shape ? gpu_caps(t->device, 32) : *vkm_device_caps(t->device);
    t->build = (struct vkm_build){.device = t->device, .workspace = t->ws, .sets = &t->bindings, .layer = -1};
    vkm_shape_choose(&c, &t->build.shape);
    vkm_shape_tiles(&t->build.shape, 4);
}
static void open_bench(struct bench *t, size_t device) { open_bench_with(t, devices[device].caps, devices[device].gpu_shape); }

static void close_bench(struct bench *t)
{
    free(t->words);
    vkm_bindings_destroy(t->bindings);
    vkm_buffer_destroy(t->slab);
    vkm_buffer_destroy(t->tables);
    vkm_buffer_destroy(t->readback);
    vkm_buffer_destroy(t->ws);
    driver_close(t->device, &t->log);
}

/* Runs the program over t->words, as it is or audited. */
static void run(struct bench *t, bool audit)
{
    vkm_error err = {0};
    uint64_t ticket;
    upload(t, t->ws, t->words, WS_WORDS * 4);
    if (audit) OK(vkm_program_audit(t->build.program, &err));
    else {
        OK(vkm_program_submit(t->build.program, 1, &ticket, &err));
        OK(vkm_wait(t->device, ticket, &err));
    }
    OK(vkm_buffer_invalidate(t->readback, 0, WS_WORDS * 4, &err));
    memcpy(t->words, vkm_buffer_map(t->readback), WS_WORDS * 4);
}

static float as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static uint32_t as_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

/* ---------------------------------------------------------------- one router over some tokens */

struct given {
    char what[96];
    vkm_router_desc d;
    uint32_t n_expert, n;
    float *logits;                       /* [n][vkm_router_rows + gated] */
    const float *noise;
    const uint32_t *ids;                 /* token ids, or forced ids */
    const float *weights;
    uint32_t seed;
    bool gated, quiet, audit;            /* quiet: without statistics */
};

struct routed {
    struct vkm_moe_rule rule;
    struct vkm_moe m;
    struct vkm_moe_space s;
    struct vkm_moe_plan p;
    struct vkm_region x, out;
    uint32_t slots;
};

static uint32_t width_of(const struct given *g) { return vkm_router_rows(&g->d, g->n_expert) + g->gated; }

static void put(struct bench *t, struct vkm_region r, const void *from, uint32_t words) { memcpy(t->words + r.at, from, words * 4); }

static void fill(struct bench *t, const struct given *g, const struct routed *r)
{
    struct ref_rng rng = ref_seed(77);
    uint32_t width = width_of(g);
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    for (uint32_t i = 0; width && i < g->n; i++) memcpy(t->words + r->s.logits.at + i * r->s.logits.ld, g->logits + (size_t)i * width, width * 4);
    if (g->noise) put(t, r->s.router.noise, g->noise, g->n * r->s.router.noise.ld);
    if (g->ids) put(t, r->s.router.given, g->ids, g->d.select == VKM_SELECT_HASH ? g->n : r->slots);
    if (g->weights) put(t, r->s.router.given_weights, g->weights, r->slots);
    if (r->s.router.seed.rows) put(t, r->s.router.seed, &g->seed, 1);
    for (uint32_t i = 0; i < g->n * r->x.ld; i++) t->words[r->x.at + i] = as_bits(i % r->x.ld < WIDTH ? (float)ref_normal(&rng) : 0);
    for (uint32_t i = 0; i < r->slots * r->s.y.ld; i++) t->words[r->s.y.at + i] = as_bits((float)ref_normal(&rng));
}

/* Builds router and combine, runs them, then audited: both must leave the same. */
static void route(struct bench *t, const struct given *g, struct routed *r)
{
    vkm_error err = {0};
    uint64_t words = 0;
    static uint32_t table[TABLE_WORDS], first[WS_WORDS];
    *r = (struct routed){0};
    OK(vkm_moe_rule_init(&g->d, g->n_expert, &r->rule, &err));
    memset(table, 0x5a, sizeof table);
    uint64_t used = vkm_moe_rule_tables(&r->rule, &g->d, width_of(g), 40, table + 40);
    cr_assert_leq(used + 40, TABLE_WORDS);
    upload(t, t->tables, table, sizeof table);
    r->m = (struct vkm_moe){.n_expert = g->n_expert, .n_embd = WIDTH, .shared_gated = g->gated, .gate_up = {.n_panels = 5}, .down = {.n_panels = 3}};
    vkm_moe_use_rule(&r->m, &r->rule);
    vkm_moe_router_place(&r->m, g->n, !g->quiet, &words, &r->s);
    if (!g->weights) r->s.router.given_weights.rows = 0;
    r->p = vkm_moe_plan(&r->m, &r->s, (struct vkm_region){0}, g->n);
    r->slots = r->p.n * r->p.k;
    cr_assert_eq(r->slots, vkm_router_slots(&g->d, g->n_expert, g->n), "%s", g->what);
    r->x = (struct vkm_region){(uint32_t)words, 64, g->n};
    r->s.y = (struct vkm_region){(uint32_t)words + g->n * 64, WIDTH, r->slots};
    r->out = (struct vkm_region){r->s.y.at + r->slots * WIDTH, WIDTH, g->n};
    cr_assert_lt(r->out.at + g->n * WIDTH, WS_WORDS, "%s: %u words", g->what, r->out.at);
    t->build.err = &err;
    OK(vkm_program_create(t->device, g->what, &t->build.program, &err));
    OK(vkm_moe_router(&t->build, &r->m, &r->s, NULL, r->x, g->n));
    if (!r->p.whole) OK(vkm_moe_combine(&t->build, &r->m, &r->s, r->out, g->n));
    OK(vkm_program_copy(t->build.program, t->ws, 0, t->readback, 0, WS_WORDS * 4, &err));
    OK(vkm_program_finish(t->build.program, &err));
    if (g->audit) {
        fill(t, g, r);
        run(t, true);
        memcpy(first, t->words, sizeof first);
    }
    fill(t, g, r);
    run(t, false);
    vkm_program_destroy(t->build.program);
    const struct vkm_region same[] = {{r->s.ids.at, r->slots, 1}, {r->s.weights.at, r->slots, 1}, {r->s.router.statistics.at, 4, r->s.router.statistics.rows}, {r->out.at, g->n * WIDTH, !r->p.whole}};
    for (size_t i = 0; g->audit && i < VKM_COUNT(same); i++)
        if (same[i].rows) cr_assert_eq(memcmp(first + same[i].at, t->words + same[i].at, same[i].ld * 4), 0, "%s: other bits when audited, part %zu", g->what, i);
    cr_assert_eq(t->words[r->s.ids.at + r->slots], r->slots % 32 ? CANARY : t->words[r->s.ids.at + r->slots], "%s: written behind ids", g->what);
}

static struct ref_router reference(const struct given *g)
{
    struct ref_router f = {.d = g->d, .n_expert = g->n_expert, .n = g->n, .ld = width_of(g), .logits = g->logits, .noise = g->noise, .given = g->ids, .given_weights = g->weights, .seed = g->seed};
    ref_router_run(&f);
    return f;
}

/* Rows sorted by expert, in tiles: every slot that was kept, once, in order. */
static void check_sorted(const struct bench *t, const struct given *g, const struct routed *r)
{
    const uint32_t *ids = t->words + r->s.ids.at, *perm = t->words + r->s.perm.at;
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    uint32_t rows[1024] = {0}, next[1024], kept = 0, tiled = 0, pieces = vkm_moe_pieces(&t->build, &r->m, &r->s, &r->p);
    cr_assert_eq(pieces, 1);
    for (uint32_t s = 0; s < r->slots; s++) if (ids[s] != VKM_ROUTER_DROPPED) rows[ids[s]]++, kept++;
    for (uint32_t e = 0, at = 0; e < g->n_expert; at += rows[e++]) next[e] = at;
    for (uint32_t s = 0; s < r->slots; s++)
        if (ids[s] != VKM_ROUTER_DROPPED) cr_assert_eq(perm[next[ids[s]]++], s, "%s: slot %u of expert %u is not where it should be sorted", g->what, s, ids[s]);
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
        uint32_t n = t->words[r->s.args.at + c * 6];
        cr_assert_leq(n, r->slots);
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t *tile = t->words + r->s.tiles.at + 2 * (c * r->slots + i);
            uint32_t e = tile[0] & 0xffff, count = tile[0] >> 16;
            cr_assert(e < g->n_expert && count >= 1 && count <= sizes[c] && tile[1] + count <= next[e] && tile[1] + rows[e] >= next[e], "%s: tile %u of class %u: %u rows of expert %u from %u", g->what, i, c,
                      count, e, tile[1]);
            tiled += count;
        }
    }
    cr_assert_eq(tiled, kept, "%s: tiles of %u rows for %u", g->what, tiled, kept);
}

/* out[t]: the rows of y of its slots, added in the order of slots; the same floats */
static void check_sums(const struct bench *t, const struct given *g, const struct routed *r, const struct ref_router *f)
{
    float *sums = calloc(g->n, WIDTH * sizeof *sums);
    cr_assert(sums);
    for (uint32_t s = 0; s < f->slots; s++)
        for (uint32_t c = 0; f->ids[s] != VKM_ROUTER_DROPPED && c < WIDTH; c++) sums[f->tokens[s] * WIDTH + c] += as_float(t->words[r->s.y.at + s * r->s.y.ld + c]);
    for (uint32_t i = 0; i < g->n * WIDTH; i++) {
        float got = as_float(t->words[r->out.at + i]);
        cr_assert_eq(as_bits(got), as_bits(sums[i]), "%s: token %u column %u adds up to %g, not %g", g->what, i / WIDTH, i % WIDTH, got, sums[i]);
    }
    free(sums);
}

static bool near(double got, double expected, double scale) { return fabs(got - expected) <= 2e-5 * fabs(expected) + 1e-7 * scale; }

static void check_statistics(const struct bench *t, const struct given *g, const struct routed *r, const struct ref_router *f)
{
    const struct vkm_moe_router_space *w = &r->s.router;
    const uint32_t *numbers = t->words + w->statistics.at;
    for (uint32_t e = 0; e < g->n_expert; e++)
        cr_assert(t->words[w->expert_rows.at + e] == f->rows[e] && t->words[w->expert_dropped.at + e] == f->dropped[e], "%s: expert %u has %u rows and lost %u, not %u and %u", g->what, e,
                  t->words[w->expert_rows.at + e], t->words[w->expert_dropped.at + e], f->rows[e], f->dropped[e]);
    for (uint32_t i = 0; i < g->n; i++) cr_assert_eq(t->words[w->missed.at + i], f->missed[i], "%s: token %u misses %u, not %u", g->what, i, t->words[w->missed.at + i], f->missed[i]);
    cr_assert(near(as_float(numbers[0]), f->load_balance, 1) && near(as_float(numbers[1]), f->z_loss, 1), "%s: losses %g and %g, not %g and %g", g->what, as_float(numbers[0]), as_float(numbers[1]),
              f->load_balance, f->z_loss);
    cr_assert(numbers[2] == f->n_dropped && numbers[3] == f->most_rows, "%s: %u dropped, %u rows at most, not %u and %u", g->what, numbers[2], numbers[3], f->n_dropped, f->most_rows);
}

static void check_routed(const struct bench *t, const struct given *g, const struct routed *r, const struct ref_router *f)
{
    const uint32_t *ids = t->words + r->s.ids.at, *weights = t->words + r->s.weights.at;
    uint32_t k = r->p.k;
    cr_assert_eq(r->slots, f->slots, "%s", g->what);
    for (uint32_t s = 0; s < r->slots; s++) {
        double got = as_float(weights[s]);
        cr_assert_eq(ids[s], f->ids[s], "%s: slot %u (token %u, choice %u) is expert %d, not %d", g->what, s, f->tokens[s], s % k, (int)ids[s], (int)f->ids[s]);
        if (g->d.select == VKM_SELECT_EXPERT_CHOICE) cr_assert_eq(t->words[r->s.router.tokens.at + s], f->tokens[s], "%s: slot %u is token %u, not %u", g->what, s, t->words[r->s.router.tokens.at + s], f->tokens[s]);
        cr_assert(near(got, f->weights[s], 1), "%s: slot %u (token %u, choice %u) has weight %.8g, not %.8g", g->what, s, f->tokens[s], s % k, got, f->weights[s]);
    }
    for (uint32_t i = 0; g->gated && i < g->n; i++) {
        double gate = 1 / (1 + exp(-(double)g->logits[(i + 1) * width_of(g) - 1]));
        cr_assert(near(as_float(t->words[r->s.gate.at + i]), gate, 1), "%s: gate of token %u", g->what, i);
    }
    check_sorted(t, g, r);
    if (!r->p.whole) check_sums(t, g, r, f);
    if (!g->quiet) check_statistics(t, g, r, f);
}

static void check(struct bench *t, const struct given *g)
{
    struct routed r;
    struct ref_router f = reference(g);
    route(t, g, &r);
    check_routed(t, g, &r, &f);
    ref_router_free(&f);
}

/* ---------------------------------------------------------------- every rule */

enum { RULE_EXPERTS = 16, RULE_TABLE = 50 };
static uint32_t hash_rows[RULE_TABLE * 3];
static float some_bias[1024], some_scale[1024];

static void make_arrays(void)
{
    struct ref_rng rng = ref_seed(3);
    for (uint32_t i = 0; i < RULE_TABLE * 3; i++) hash_rows[i] = ref_below(&rng, RULE_EXPERTS + 1);      /* some beyond the experts, some twice in a row */
    for (uint32_t e = 0; e < 1024; e++) some_bias[e] = (float)(0.3 * ref_normal(&rng)), some_scale[e] = (float)(1 + 0.3 * ref_normal(&rng));
}

/* n random tokens for a description: the experts that are there, and whatever input it wants */
struct tokens { float logits[200 * 68], noise[200 * 36]; uint32_t ids[200 * 16]; float weights[200 * 16]; };

static void make_tokens(struct given *g, struct tokens *k, bool weights, uint64_t seed)
{
    struct ref_rng rng = ref_seed(seed);
    uint32_t width = width_of(g), noises = vkm_router_rows(&g->d, g->n_expert) / (g->d.noise == VKM_NOISE_SCALED ? 2 : 1);
    cr_assert(g->n <= 200 && width <= 68 && noises <= 36 && g->d.n_used <= 16);
    for (uint32_t i = 0; i < g->n * width; i++) k->logits[i] = (float)(1.5 * ref_normal(&rng));
    for (uint32_t i = 0; i < g->n * noises; i++) k->noise[i] = (float)ref_normal(&rng);
    for (uint32_t i = 0; i < g->n * 16; i++) k->weights[i] = (float)ref_normal(&rng), k->ids[i] = g->d.select == VKM_SELECT_HASH ? ref_below(&rng, RULE_TABLE + 2) : ref_below(&rng, g->n_expert + 1);
    g->logits = k->logits;
    if (g->d.noise) g->noise = k->noise;
    if (g->d.select == VKM_SELECT_HASH || g->d.select == VKM_SELECT_FORCED) g->ids = k->ids;
    if (weights) g->weights = k->weights;
    g->seed = (uint32_t)seed;
}

#define SIZE .struct_size = sizeof(vkm_router_desc)
static const struct { const char *what; vkm_router_desc d; bool gated, weights; } rules[] = {
    {"softmax", {SIZE, .n_used = 4}, true, false},
    {"softmax renormalised", {SIZE, .n_used = 4, .renormalise = VKM_RENORMALISE_CHOSEN, .scale = 2.5f}, false, false},
    {"softmax renormalised with eps", {SIZE, .n_used = 3, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 0.9f, .sum_add = 0.25f}, true, false},
    {"selected", {SIZE, .n_used = 4, .score = VKM_ROUTER_SELECTED}, false, false},
    {"softmax, bias", {SIZE, .n_used = 4, .selection_bias = some_bias, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-12f}, false, false},
    {"softmax, groups max", {SIZE, .n_used = 3, .n_groups = 4, .n_groups_used = 2, .scale = 16}, false, false},
    {"selected, groups sum of two", {SIZE, .n_used = 5, .score = VKM_ROUTER_SELECTED, .n_groups = 2, .n_groups_used = 1, .group_score = VKM_GROUPS_SUM_OF_TWO}, false, false},
    {"sigmoid", {SIZE, .n_used = 1, .score = VKM_ROUTER_SIGMOID}, true, false},
    {"sigmoid, bias, groups sum of two", {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .selection_bias = some_bias, .n_groups = 4, .n_groups_used = 2, .group_score = VKM_GROUPS_SUM_OF_TWO,
                                          .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-20f, .sum_add = 1e-20f, .scale = 2.5f}, false, false},
    {"sigmoid, bias, groups max, in moe_topk", {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .selection_bias = some_bias, .n_groups = 4, .n_groups_used = 2, .renormalise = VKM_RENORMALISE_CHOSEN, .scale = 2.5f},
     true, false},
    {"softmax, bias, groups sum of two, in moe_topk", {SIZE, .n_used = 4, .selection_bias = some_bias, .n_groups = 4, .n_groups_used = 2, .group_score = VKM_GROUPS_SUM_OF_TWO}, false, false},
    {"sigmoid, groups of one", {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .n_groups = RULE_EXPERTS, .n_groups_used = 5, .group_score = VKM_GROUPS_SUM_OF_TWO}, false, false},
    {"sqrt softplus, bias, expert scale", {SIZE, .n_used = 3, .score = VKM_ROUTER_SQRT_SOFTPLUS, .selection_bias = some_bias, .expert_scale = some_scale, .renormalise = VKM_RENORMALISE_CHOSEN, .scale = 1.5f}, false, false},
    {"identity, soft cap", {SIZE, .n_used = 2, .score = VKM_ROUTER_IDENTITY, .logit_softcap = 2}, false, false},
    {"sparsemixer", {SIZE, .n_used = 2, .score = VKM_ROUTER_SPARSEMIXER, .jitter = 0.3f}, false, false},
    {"sparsemixer of five", {SIZE, .n_used = 5, .score = VKM_ROUTER_SPARSEMIXER}, true, false},
    {"noisy top-k", {SIZE, .n_used = 4, .score = VKM_ROUTER_SELECTED, .noise = VKM_NOISE_SCALED}, true, false},
    {"noise added", {SIZE, .n_used = 2, .noise = VKM_NOISE_ADDED, .logit_softcap = 30}, false, false},
    {"switch", {SIZE, .n_used = 1, .capacity = VKM_CAPACITY_POSITION, .capacity_factor = 1, .capacity_min = 1}, true, false},
    {"gshard", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_CHOSEN, .capacity = VKM_CAPACITY_POSITION, .capacity_factor = 0.8f, .random_second = true, .scale = 0.5f}, false, false},
    {"random second of unnormalised", {SIZE, .n_used = 2, .random_second = true, .score = VKM_ROUTER_SIGMOID}, false, false},
    {"kept, prioritised", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_KEPT, .capacity = VKM_CAPACITY_PRIORITISED, .capacity_factor = 0.7f, .scale = 2, .expert_scale = some_scale}, false, false},
    {"capacity 0", {SIZE, .n_used = 2, .capacity = VKM_CAPACITY_POSITION}, false, false},
    {"capacity 1", {SIZE, .n_used = 3, .capacity = VKM_CAPACITY_PRIORITISED, .capacity_min = 1, .renormalise = VKM_RENORMALISE_KEPT}, false, false},
    {"hash", {SIZE, .select = VKM_SELECT_HASH, .n_used = 3, .score = VKM_ROUTER_UNIFORM, .renormalise = VKM_RENORMALISE_KEPT, .hash_table = hash_rows, .n_table = RULE_TABLE}, true, false},
    {"hash, scores", {SIZE, .select = VKM_SELECT_HASH, .n_used = 3, .score = VKM_ROUTER_SQRT_SOFTPLUS, .renormalise = VKM_RENORMALISE_CHOSEN, .hash_table = hash_rows, .n_table = RULE_TABLE, .scale = 1.5f}, false, false},
    {"hash, selected, capacity", {SIZE, .select = VKM_SELECT_HASH, .n_used = 3, .score = VKM_ROUTER_SELECTED, .hash_table = hash_rows, .n_table = RULE_TABLE, .capacity = VKM_CAPACITY_POSITION, .capacity_factor = 0.5f}, false, false},
    {"forced", {SIZE, .select = VKM_SELECT_FORCED, .n_used = 6, .score = VKM_ROUTER_UNIFORM}, false, true},
    {"forced, scores", {SIZE, .select = VKM_SELECT_FORCED, .n_used = 6, .renormalise = VKM_RENORMALISE_KEPT, .noise = VKM_NOISE_ADDED}, true, false},
    {"forced, weights, capacity", {SIZE, .select = VKM_SELECT_FORCED, .n_used = 2, .renormalise = VKM_RENORMALISE_KEPT, .capacity = VKM_CAPACITY_PRIORITISED, .capacity_factor = 1}, false, true},
    {"hierarchical", {SIZE, .select = VKM_SELECT_HIERARCHICAL, .score = VKM_ROUTER_SELECTED, .n_used = 4, .n_groups = 4, .n_groups_used = 2}, true, false},
    {"hierarchical softmax, noisy", {SIZE, .select = VKM_SELECT_HIERARCHICAL, .n_used = 6, .n_groups = 4, .n_groups_used = 3, .noise = VKM_NOISE_SCALED, .renormalise = VKM_RENORMALISE_CHOSEN, .expert_scale = some_scale}, false, false},
    {"hierarchical, capacity", {SIZE, .select = VKM_SELECT_HIERARCHICAL, .score = VKM_ROUTER_SELECTED, .n_used = 2, .n_groups = 2, .n_groups_used = 1, .capacity = VKM_CAPACITY_POSITION, .capacity_factor = 0.9f}, false, false},
    {"expert choice", {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_factor = 2, .scale = 2, .expert_scale = some_scale}, true, false},
    {"expert choice, sigmoid, few", {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .score = VKM_ROUTER_SIGMOID, .capacity_min = 1}, false, false},
    {"expert choice of all", {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .score = VKM_ROUTER_SQRT_SOFTPLUS, .capacity_min = 1000, .noise = VKM_NOISE_ADDED}, false, false},
};

static void check_rules(size_t device)
{
    static const uint32_t ns[] = {1, 7, 130};
    static struct tokens k;
    struct bench t;
    make_arrays();
    open_bench(&t, device);
    for (size_t i = 0; i < VKM_COUNT(rules); i++)
        for (size_t j = 0; j < VKM_COUNT(ns); j++) {
            struct given g = {.d = rules[i].d, .n_expert = RULE_EXPERTS, .n = ns[j], .gated = rules[i].gated, .quiet = j == 0, .audit = j == 1};
            snprintf(g.what, sizeof g.what, "%s, %u tokens", rules[i].what, g.n);
            if (g.n > 100 && g.d.capacity_min == 1000) g.n = 100;
            make_tokens(&g, &k, rules[i].weights, 100 + i);
            check(&t, &g);
        }
    close_bench(&t);
}
Test(rules, all) { check_rules(0); }
Test(rules, all_baseline) { FIRST_DRIVER_ONLY(); check_rules(1); }

/* ---------------------------------------------------------------- edges */

static void check_edges(size_t device)
{
    enum { MANY = 1024 };
    static struct tokens k;
    static float z[200 * MANY];
    struct bench t;
    struct ref_rng rng = ref_seed(9);
    make_arrays();
    open_bench(&t, device);
    for (uint32_t score = VKM_ROUTER_SOFTMAX; score <= VKM_ROUTER_SPARSEMIXER; score++) {
        struct given one = {.what = "one expert", .d = {SIZE, .n_used = 1, .score = score}, .n_expert = 1, .n = 7, .audit = true};
        make_tokens(&one, &k, false, score);
        check(&t, &one);
        struct given all = {.what = "all experts", .d = {SIZE, .n_used = 16, .score = score, .renormalise = VKM_RENORMALISE_CHOSEN}, .n_expert = 16, .n = 7};
        make_tokens(&all, &k, false, score);
        check(&t, &all);
    }
    /* every token to expert 5 and none to 3, with room for all, for some and for none */
    static const uint32_t room[] = {0, 1, 40, 100};
    for (uint32_t i = 0; i < VKM_COUNT(room); i++)
        for (uint32_t kind = VKM_CAPACITY_NONE; kind <= VKM_CAPACITY_PRIORITISED; kind++) {
            struct given g = {.d = {SIZE, .n_used = 2, .capacity = kind, .capacity_min = room[i]}, .n_expert = 8, .n = 99};
            snprintf(g.what, sizeof g.what, "one favourite, room for %u, kind %u", room[i], kind);
            make_tokens(&g, &k, false, 5);
            for (uint32_t n = 0; n < g.n; n++) k.logits[n * 8 + 5] = 9 + 0.01f * (float)(n * 37 % 99), k.logits[n * 8 + 3] = -9;
            check(&t, &g);
            for (uint32_t n = 0; n < g.n * 8; n++) k.logits[n] = 0.5f;                       /* nothing but ties */
            check(&t, &g);
        }
    struct given ties = {.what = "expert choice among equals", .d = {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_min = 3}, .n_expert = 8, .n = 99};
    for (uint32_t n = 0; n < ties.n * 8; n++) k.logits[n] = n / 8 == 70 ? n % 8 : 0.5f;      /* one that is better for some, worse for others */
    ties.logits = k.logits;
    check(&t, &ties);
    struct given most = {.what = "1,024 experts", .d = {SIZE, .n_used = 32, .score = VKM_ROUTER_SIGMOID, .selection_bias = some_bias, .n_groups = 256, .n_groups_used = 100,
                                                        .group_score = VKM_GROUPS_SUM_OF_TWO, .renormalise = VKM_RENORMALISE_CHOSEN}, .n_expert = MANY, .n = 9, .logits = z};
    for (uint32_t n = 0; n < most.n * MANY; n++) z[n] = (float)ref_normal(&rng);
    check(&t, &most);
    strcpy(most.what, "1,024 experts choose");
    most.d = (vkm_router_desc){SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_min = 1};
    check(&t, &most);
    close_bench(&t);
}
Test(edges, all) { FULL_ONLY(); check_edges(0); }
Test(edges, all_baseline) { FULL_ONLY(); check_edges(1); }

/* NaN and infinities: ids in range and different, weights numbers, all as the rules say of them. What float32 loses of a softmax double precision loses too here: else they tie differently. */
Test(edges, hostile_logits)
{
    FIRST_DRIVER_ONLY();
    static const float I = INFINITY, N = NAN, M = 3.4e38f;
    static const float z[][8] = {{1, 1, 1, 1, 1, 1, 1, 1}, {-0.0f, 0.0f, -0.0f, 0.0f, 0, 0, 0, 0}, {N, 1, 2, 3, 4, 5, 6, 7}, {N, N, N, 0.5f, N, N, 0.25f, N}, {N, N, N, N, N, 2, N, N}, {-N, 1, -N, 0, 3, 0, 0, 0},
                                {N, N, N, N, N, N, N, N}, {0, 1, I, 3, 4, 5, 6, 7}, {I, I, I, I, I, I, I, I}, {-I, 1, -I, -I, -I, -I, -I, 0.5f}, {-I, -I, -I, -I, -I, -I, -I, -I}, {-I, N, I, -I, N, I, 0, 1},
                                {M, -M, M, 0, 0, 0, 0, 1}, {-9000, -10000, -11000, 9000, 10000, 11000, 0, 1}};
    static const vkm_router_desc hostile[] = {
        {SIZE, .n_used = 3, .sum_add = 1e-20f}, {SIZE, .n_used = 8, .score = VKM_ROUTER_SELECTED, .logit_softcap = 30}, {SIZE, .n_used = 3, .score = VKM_ROUTER_SIGMOID, .renormalise = VKM_RENORMALISE_CHOSEN},
        {SIZE, .n_used = 3, .score = VKM_ROUTER_SQRT_SOFTPLUS, .selection_bias = some_bias}, {SIZE, .n_used = 3, .score = VKM_ROUTER_SPARSEMIXER}, {SIZE, .n_used = 3, .score = VKM_ROUTER_IDENTITY},
        {SIZE, .n_used = 3, .n_groups = 4, .n_groups_used = 2}, {SIZE, .n_used = 3, .score = VKM_ROUTER_SELECTED, .n_groups = 4, .n_groups_used = 2, .group_score = VKM_GROUPS_SUM_OF_TWO},
        {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_KEPT, .capacity = VKM_CAPACITY_PRIORITISED, .capacity_min = 3}, {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_min = 9},
        {SIZE, .select = VKM_SELECT_HIERARCHICAL, .score = VKM_ROUTER_SELECTED, .n_used = 2, .n_groups = 2, .n_groups_used = 1}, {SIZE, .select = VKM_SELECT_HIERARCHICAL, .n_used = 6, .n_groups = 2, .n_groups_used = 2}};
    enum { CASES = sizeof z / sizeof z[0] };
    make_arrays();
    for (size_t device = 0; device < (full() ? VKM_COUNT(devices) : 1); device++) {
        struct bench t;
        open_bench(&t, device);
        for (size_t i = 0; i < VKM_COUNT(hostile); i++) {
            bool levels = hostile[i].select == VKM_SELECT_HIERARCHICAL;
            float rows[CASES * 10];
            struct given g = {.d = hostile[i], .n_expert = 8, .n = CASES, .logits = rows, .quiet = true, .audit = true};
            struct routed r;
            uint32_t width = width_of(&g);
            snprintf(g.what, sizeof g.what, "hostile logits %zu", i);
            for (uint32_t n = 0; n < CASES; n++) memcpy(rows + n * width, z[n], sizeof z[n]);
            for (uint32_t n = 0; levels && n < CASES; n++) rows[n * width + 8] = z[n][1], rows[n * width + 9] = z[n][6];
            struct ref_router f = reference(&g);
            route(&t, &g, &r);
            check_routed(&t, &g, &r, &f);
            ref_router_free(&f);
            for (uint32_t s = 0; s < r.slots; s++) cr_assert(isfinite(as_float(t.words[r.s.weights.at + s])), "%s: weight of slot %u", g.what, s);
        }
        close_bench(&t);
    }
}

/* A token's ids and weights are the same bits alone and among others, and with or without statistics. */
Test(edges, alone_and_among_others)
{
    FULL_ONLY();
    static struct tokens k;
    struct bench t;
    make_arrays();
    open_bench(&t, 0);
    for (size_t i = 0; i < VKM_COUNT(rules); i++) {
        if (rules[i].d.capacity || rules[i].d.select == VKM_SELECT_EXPERT_CHOICE || rules[i].d.random_second) continue;
        struct given g = {.d = rules[i].d, .n_expert = RULE_EXPERTS, .n = 5, .gated = rules[i].gated};
        struct routed r;
        uint32_t ids[80], weights[80], used = g.d.n_used;
        snprintf(g.what, sizeof g.what, "%s, alone", rules[i].what);
        make_tokens(&g, &k, rules[i].weights, i);
        route(&t, &g, &r);
        memcpy(ids, t.words + r.s.ids.at, r.slots * 4);
        memcpy(weights, t.words + r.s.weights.at, r.slots * 4);
        struct given alone = g;
        alone.n = 1;
        alone.quiet = true;
        alone.logits += 3 * width_of(&g);
        if (g.noise) alone.noise += 3 * r.s.router.noise.ld;
        if (g.ids) alone.ids += 3 * (g.d.select == VKM_SELECT_HASH ? 1 : used);
        if (g.weights) alone.weights += 3 * used;
        route(&t, &alone, &r);
        cr_assert(!memcmp(ids + 3 * used, t.words + r.s.ids.at, used * 4) && !memcmp(weights + 3 * used, t.words + r.s.weights.at, used * 4), "%s: other bits", g.what);
    }
    close_bench(&t);
}

/* No token is no step. */
Test(edges, no_tokens)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, 0);
    t.build.err = &err;
    for (size_t i = 0; i < VKM_COUNT(rules); i++) {
        struct vkm_moe_rule rule;
        struct vkm_moe m = {.n_expert = RULE_EXPERTS, .n_embd = WIDTH};
        struct vkm_moe_space s = {0};
        uint64_t words = 0;
        OK(vkm_moe_rule_init(&rules[i].d, RULE_EXPERTS, &rule, &err));
        vkm_moe_use_rule(&m, &rule);
        vkm_moe_router_place(&m, 5, true, &words, &s);
        OK(vkm_program_create(t.device, "nothing", &t.build.program, &err));
        OK(vkm_moe_router(&t.build, &m, &s, NULL, (struct vkm_region){0}, 0));
        OK(vkm_moe_experts(&t.build, &m, &s, NULL, (struct vkm_region){0}, 0));
        OK(vkm_moe_combine(&t.build, &m, &s, (struct vkm_region){0}, 0));
        cr_assert_eq(vkm_program_step_count(t.build.program), 0);
        vkm_program_destroy(t.build.program);
        cr_assert_eq(vkm_router_slots(&rules[i].d, RULE_EXPERTS, 0), 0);
    }
    close_bench(&t);
}

/* ---------------------------------------------------------------- soft MoE */

static void check_soft(struct bench *t, uint32_t n_expert, uint32_t each, uint32_t n, bool hostile)
{
    struct ref_rng rng = ref_seed(n + each);
    static float z[200 * 24], x[200 * WIDTH], y[24 * WIDTH];
    static double in[24 * WIDTH], out[200 * WIDTH];
    struct given g = {.d = {SIZE, .select = VKM_SELECT_SOFT, .slots_per_expert = each}, .n_expert = n_expert, .n = n, .logits = z, .audit = n < 100};
    struct routed r;
    uint32_t slots = n_expert * each;
    snprintf(g.what, sizeof g.what, "soft, %u experts, %u slots, %u tokens%s", n_expert, each, n, hostile ? ", hostile" : "");
    for (uint32_t i = 0; i < n * slots; i++) z[i] = (float)(3 * ref_normal(&rng));
    if (hostile) {
        for (uint32_t t0 = 0; t0 < n; t0++) z[t0 * slots + 1] = NAN;                          /* nobody for a slot */
        for (uint32_t s = 0; s < slots; s++) z[2 * slots + s] = NAN, z[3 * slots + s] = -INFINITY;
        z[4 * slots + 2] = z[5 * slots + 2] = INFINITY;
    }
    route(t, &g, &r);
    for (uint32_t i = 0; i < n; i++) for (uint32_t c = 0; c < WIDTH; c++) x[i * WIDTH + c] = as_float(t->words[r.x.at + i * r.x.ld + c]);
    for (uint32_t s = 0; s < slots; s++) for (uint32_t c = 0; c < WIDTH; c++) y[s * WIDTH + c] = as_float(t->words[r.s.y.at + s * r.s.y.ld + c]);
    ref_soft_dispatch(z, slots, n, slots, x, WIDTH, in);
    ref_soft_combine(z, slots, n, slots, y, WIDTH, out);
    for (uint32_t s = 0; s < slots; s++) {
        cr_assert(t->words[r.s.ids.at + s] == s / each && t->words[r.s.perm.at + s] == s && t->words[r.s.weights.at + s] == as_bits(1), "%s: slot %u", g.what, s);
        for (uint32_t c = 0; c < 64; c++) {
            double got = as_float(t->words[r.p.x.at + s * r.p.x.ld + c]), expected = c < WIDTH ? in[s * WIDTH + c] : 0;
            cr_assert(near(got, expected, 20), "%s: row of slot %u, column %u is %g, not %g", g.what, s, c, got, expected);
        }
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < WIDTH; c++) {
            double got = as_float(t->words[r.out.at + i * r.out.ld + c]);
            cr_assert(near(got, out[i * WIDTH + c], 20), "%s: token %u, column %u is %g, not %g", g.what, i, c, got, out[i * WIDTH + c]);
        }
    check_sorted(t, &g, &r);
}

Test(soft, both_ways)
{
    for (size_t device = 0; device < VKM_COUNT(devices); device++) {
        struct bench t;
        open_bench(&t, device);
        check_soft(&t, 8, 1, 1, false);
        check_soft(&t, 8, 3, 7, false);
        check_soft(&t, 8, 3, 7, true);
        check_soft(&t, 1, 1, 130, false);
        check_soft(&t, 8, 2, 130, false);
        close_bench(&t);
    }
}

/* ---------------------------------------------------------------- published models */

static const struct { const char *file; vkm_router_desc d; } published[] = {      /* tools/make_router.py */
    {"mixtral", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_CHOSEN}},
    {"olmoe", {SIZE, .n_used = 4}},
    {"granitemoe", {SIZE, .n_used = 4, .score = VKM_ROUTER_SELECTED}},
    {"gpt_oss", {SIZE, .n_used = 4, .score = VKM_ROUTER_SELECTED}},
    {"deepseek_v2", {SIZE, .n_used = 3, .n_groups = 4, .n_groups_used = 2, .scale = 16}},
    {"deepseek_v3", {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .n_groups = 4, .n_groups_used = 2, .group_score = VKM_GROUPS_SUM_OF_TWO, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-20f,
                     .sum_add = 1e-20f, .scale = 2.5f, .selection_bias = some_bias}},
    {"glm4_moe", {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .renormalise = VKM_RENORMALISE_CHOSEN, .selection_bias = some_bias}},
    {"ernie4_5", {SIZE, .n_used = 3, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-12f, .selection_bias = some_bias}},
    {"lfm2_moe", {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-20f, .sum_add = 1e-6f, .selection_bias = some_bias}},
    {"phimoe", {SIZE, .n_used = 2, .score = VKM_ROUTER_SPARSEMIXER}},
    {"phimoe_wide", {SIZE, .n_used = 2, .score = VKM_ROUTER_SPARSEMIXER}},
    {"deepseek_v4", {SIZE, .n_used = 3, .score = VKM_ROUTER_SQRT_SOFTPLUS, .renormalise = VKM_RENORMALISE_CHOSEN, .scale = 1.5f, .selection_bias = some_bias}},
    {"deepseek_v4_hash", {SIZE, .select = VKM_SELECT_HASH, .n_used = 3, .score = VKM_ROUTER_SQRT_SOFTPLUS, .renormalise = VKM_RENORMALISE_CHOSEN, .scale = 1.5f, .hash_table = hash_rows, .n_table = 50}},
    {"gemma4", {SIZE, .n_used = 4, .renormalise = VKM_RENORMALISE_CHOSEN, .expert_scale = some_scale}},
    {"llama4", {SIZE, .n_used = 1, .score = VKM_ROUTER_SIGMOID}},
    {"llama4_top2", {SIZE, .n_used = 2, .score = VKM_ROUTER_SIGMOID}},
    {"switch", {SIZE, .n_used = 1, .capacity = VKM_CAPACITY_POSITION, .capacity_min = 4}},
    {"nllb", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_KEPT, .sum_min = 1e-7f, .capacity = VKM_CAPACITY_POSITION, .capacity_min = 6}},
    {"nllb_before", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-7f, .capacity = VKM_CAPACITY_POSITION, .capacity_min = 6}},
    {"nllb_prioritised", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_KEPT, .sum_min = 1e-7f, .capacity = VKM_CAPACITY_PRIORITISED, .capacity_min = 6}},
    {"nllb_before_prioritised", {SIZE, .n_used = 2, .renormalise = VKM_RENORMALISE_CHOSEN, .sum_min = 1e-7f, .capacity = VKM_CAPACITY_PRIORITISED, .capacity_min = 6}},
};

struct golden { uint32_t n, n_expert, n_extra; float logits[24 * 16]; uint32_t extra[24 + 150]; double dense[24 * 16], losses[2]; };

static void load_golden(const char *name, struct golden *g)
{
    char path[256];
    uint32_t head[4];
    snprintf(path, sizeof path, "%s/golden/router/%s.bin", VKMOE_TESTS_DIR, name);
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    cr_assert_eq(fread(head, 4, 4, f), 4);
    *g = (struct golden){.n = head[0], .n_expert = head[1], .n_extra = head[2]};
    size_t values = (size_t)g->n * g->n_expert;
    cr_assert(values <= VKM_COUNT(g->logits) && g->n_extra <= VKM_COUNT(g->extra), "%s", path);
    cr_assert(fread(g->logits, 4, values, f) == values && fread(g->extra, 4, g->n_extra, f) == g->n_extra && fread(g->dense, 8, values, f) == values && fread(g->losses, 8, 2, f) == 2 && fgetc(f) == EOF, "%s", path);
    fclose(f);
}

/* Weights of slots as weights of experts. */
static void spread(const struct given *g, uint32_t slots, const uint32_t *ids, const double *weights, double *dense)
{
    for (uint32_t i = 0; i < g->n * g->n_expert; i++) dense[i] = 0;
    for (uint32_t s = 0; s < slots; s++) if (ids[s] != VKM_ROUTER_DROPPED) dense[s / g->d.n_used * g->n_expert + ids[s]] = weights[s];
}

static void check_dense(const struct golden *o, const double *dense, double most, const char *what, const char *whose)
{
    for (uint32_t i = 0; i < o->n * o->n_expert; i++)
        cr_assert(fabs(dense[i] - o->dense[i]) <= most * (fabs(o->dense[i]) + 1e-2), "%s: %s has weight %.9g for expert %u of token %u, not %.9g", what, whose, dense[i], i % o->n_expert, i / o->n_expert, o->dense[i]);
}

/* The reference to what float32 leaves of it in these implementations, the device to what float32 leaves of it twice. */
Test(published, all)
{
    struct bench t;
    open_bench(&t, 0);
    for (size_t i = 0; i < VKM_COUNT(published); i++) {
        struct golden o;
        struct routed r;
        double dense[24 * 16], weights[24 * 4];
        load_golden(published[i].file, &o);
        struct given g = {.d = published[i].d, .n_expert = o.n_expert, .n = o.n, .logits = o.logits};
        snprintf(g.what, sizeof g.what, "%s", published[i].file);
        if (g.d.selection_bias) g.d.selection_bias = (const float *)o.extra;
        if (g.d.expert_scale) g.d.expert_scale = (const float *)o.extra;
        if (g.d.hash_table) g.ids = o.extra, g.d.hash_table = o.extra + o.n;
        struct ref_router f = reference(&g);
        spread(&g, f.slots, f.ids, f.weights, dense);
        check_dense(&o, dense, 2e-6, g.what, "the reference");
        if (!isnan(o.losses[0])) cr_assert(fabs(f.load_balance - o.losses[0]) < 1e-5, "%s: load balance %g, not %g", g.what, f.load_balance, o.losses[0]);
        if (!isnan(o.losses[1])) cr_assert(fabs(f.z_loss - o.losses[1]) < 1e-5 * o.losses[1], "%s: z-loss %g, not %g", g.what, f.z_loss, o.losses[1]);
        route(&t, &g, &r);
        check_routed(&t, &g, &r, &f);
        for (uint32_t s = 0; s < r.slots; s++) weights[s] = as_float(t.words[r.s.weights.at + s]);
        spread(&g, r.slots, t.words + r.s.ids.at, weights, dense);
        check_dense(&o, dense, 2e-5, g.what, "the device");
        ref_router_free(&f);
    }
    close_bench(&t);
}

/* ---------------------------------------------------------------- descriptions */

Test(descriptions, wrong)
{
    static const struct { const char *word; uint32_t n_expert; vkm_router_desc d; } wrong[] = {
        {"experts", 0, {SIZE, .n_used = 1}}, {"experts", 1025, {SIZE, .n_used = 1}}, {"n_used", 8, {SIZE, .n_used = 0}}, {"n_used", 8, {SIZE, .n_used = 9}}, {"n_used", 64, {SIZE, .n_used = 33}},
        {"select", 8, {SIZE, .n_used = 1, .select = 6}}, {"score", 8, {SIZE, .n_used = 1, .score = 7}}, {"renormalise", 8, {SIZE, .n_used = 1, .renormalise = 3}}, {"noise", 8, {SIZE, .n_used = 1, .noise = 3}},
        {"capacity", 8, {SIZE, .n_used = 1, .capacity = 3}}, {"group_score", 8, {SIZE, .n_used = 1, .group_score = 2}}, {"scale", 8, {SIZE, .n_used = 1, .scale = INFINITY}}, {"sum_min", 8, {SIZE, .n_used = 1, .sum_min = -1}},
        {"softcap", 8, {SIZE, .n_used = 1, .logit_softcap = NAN}}, {"jitter", 8, {SIZE, .n_used = 1, .jitter = -1}}, {"capacity_factor", 8, {SIZE, .n_used = 1, .capacity_factor = -1}},
        {"divide", 8, {SIZE, .n_used = 1, .n_groups = 3, .n_groups_used = 1}}, {"divide", 1024, {SIZE, .n_used = 1, .n_groups = 512, .n_groups_used = 1}}, {"n_groups_used", 8, {SIZE, .n_used = 1, .n_groups = 4}},
        {"n_groups_used", 8, {SIZE, .n_used = 1, .n_groups = 4, .n_groups_used = 5}}, {"fewer", 8, {SIZE, .n_used = 5, .n_groups = 4, .n_groups_used = 2}}, {"n_groups", 8, {SIZE, .n_used = 2, .n_groups = 4, .n_groups_used = 2, .score = VKM_ROUTER_SPARSEMIXER}},
        {"n_groups", 8, {SIZE, .n_used = 1, .select = VKM_SELECT_FORCED, .n_groups = 2, .n_groups_used = 2}}, {"so many", 8, {SIZE, .n_used = 3, .select = VKM_SELECT_HIERARCHICAL, .n_groups = 4, .n_groups_used = 2}},
        {"hierarchical", 8, {SIZE, .n_used = 2, .select = VKM_SELECT_HIERARCHICAL, .score = VKM_ROUTER_SIGMOID, .n_groups = 4, .n_groups_used = 2}}, {"uniform", 8, {SIZE, .n_used = 1, .score = VKM_ROUTER_UNIFORM}},
        {"uniform", 8, {SIZE, .n_used = 1, .select = VKM_SELECT_FORCED, .score = VKM_ROUTER_UNIFORM, .noise = VKM_NOISE_ADDED}}, {"selection_bias", 8, {SIZE, .n_used = 1, .score = VKM_ROUTER_SELECTED, .selection_bias = some_bias}},
        {"random_second", 8, {SIZE, .n_used = 1, .random_second = true}}, {"hash_table", 8, {SIZE, .n_used = 1, .select = VKM_SELECT_HASH}}, {"sparsemixer", 8, {SIZE, .n_used = 1, .select = VKM_SELECT_FORCED, .score = VKM_ROUTER_SPARSEMIXER}},
        {"n_used", 8, {SIZE, .n_used = 1, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_factor = 1}}, {"capacity_factor", 8, {SIZE, .select = VKM_SELECT_EXPERT_CHOICE}},
        {"expert choice", 8, {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_factor = 1, .renormalise = VKM_RENORMALISE_CHOSEN}}, {"soft", 8, {SIZE, .select = VKM_SELECT_SOFT, .n_used = 1}}, {"slots", 8, {SIZE, .select = VKM_SELECT_SOFT, .slots_per_expert = 1u << 30}}};
    vkm_error err = {0};
    struct vkm_moe_rule rule, untouched;
    memset(&rule, 0x33, sizeof rule);
    untouched = rule;
    for (size_t i = 0; i < VKM_COUNT(wrong); i++) {
        FAILS(vkm_moe_rule_init(&wrong[i].d, wrong[i].n_expert, &rule, &err), VKM_ERR_ARGUMENT);
        cr_assert(strstr(err.message, wrong[i].word), "%zu: %s", i, err.message);
        cr_assert_eq(memcmp(&rule, &untouched, sizeof rule), 0, "%zu", i);
    }
}

Test(descriptions, sizes)
{
    vkm_router_desc d = {SIZE, .n_used = 2};
    cr_assert(vkm_router_rows(&d, 8) == 8 && vkm_router_slots(&d, 8, 5) == 10);
    d.noise = VKM_NOISE_SCALED;
    cr_assert_eq(vkm_router_rows(&d, 8), 16);
    d.noise = VKM_NOISE_NONE, d.select = VKM_SELECT_HIERARCHICAL, d.n_groups = 4, d.n_groups_used = 2;
    cr_assert_eq(vkm_router_rows(&d, 8), 12);
    d = (vkm_router_desc){SIZE, .select = VKM_SELECT_SOFT, .slots_per_expert = 3};
    cr_assert(vkm_router_rows(&d, 8) == 24 && vkm_router_slots(&d, 8, 5) == 24);
    d = (vkm_router_desc){SIZE, .select = VKM_SELECT_FORCED, .score = VKM_ROUTER_UNIFORM, .n_used = 3};
    cr_assert(vkm_router_rows(&d, 8) == 0 && vkm_router_slots(&d, 8, 5) == 15);
    d = (vkm_router_desc){SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_factor = 2};
    cr_assert(vkm_router_slots(&d, 8, 100) == 8 * 25 && vkm_router_slots(&d, 8, 1) == 8);
    d.capacity_factor = 1.1f;                                 /* 1.10000002: 11 of 10 tokens and one expert, and no more than there are */
    cr_assert_eq(vkm_router_slots(&d, 1, 10), 10);
    d.capacity_factor = 0.7f;                                 /* 0.699999988 */
    cr_assert_eq(vkm_router_slots(&d, 1, 10), 7);
    d.capacity_factor = 0.3f;                                 /* 0.300000012 */
    cr_assert_eq(vkm_router_slots(&d, 1, 10), 3);
}

/* ---------------------------------------------------------------- experts behind it */

enum { EMBD = 32, FF = 32, EXPERTS = 4, GATE_UP_TAB = 4000, DOWN_TAB = 5000, PANEL_WORDS = 32 * 32 };

struct experts { float gate[EXPERTS][FF][EMBD], up[EXPERTS][FF][EMBD], down[EXPERTS][EMBD][FF]; };

/* SwiGLU experts in f32: two panels of gate and up, and one of down, for each. */
static void put_experts(struct bench *t, struct experts *w, struct vkm_moe *m, uint32_t *table)
{
    static uint32_t slab[3 * EXPERTS * PANEL_WORDS];
    const struct vkm_type *type = vkm_type_find(0);
    struct ref_rng rng = ref_seed(21);
    for (uint32_t i = 0; i < sizeof *w / 4; i++) ((float *)w)[i] = (float)(0.3 * ref_normal(&rng));
    m->gate_up = (struct vkm_weight){.type = type, .rows = FF, .cols = EMBD, .experts = EXPERTS, .glu = true, .kb = 1, .n_panels = 2, .n_chunks = 1, .chunk_panels = 2, .tab = GATE_UP_TAB};
    m->down = (struct vkm_weight){.type = type, .rows = EMBD, .cols = FF, .experts = EXPERTS, .kb = 1, .n_panels = 1, .n_chunks = 1, .chunk_panels = 1, .tab = DOWN_TAB};
    for (uint32_t e = 0; e < EXPERTS; e++) {
        const uint8_t *rows[32];
        for (uint32_t p = 0; p < 3; p++) {
            for (uint32_t i = 0; i < 32; i++) rows[i] = (const uint8_t *)(p == 2 ? w->down[e][i] : i < 16 ? w->gate[e][p * 16 + i] : w->up[e][p * 16 + i - 16]);
            type->repack(rows, EMBD, 1, slab + (3 * e + p) * PANEL_WORDS);
        }
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t *entry = table + (i ? DOWN_TAB : GATE_UP_TAB) + e * VKM_CHUNK_WORDS;
            entry[0] = 0, entry[1] = (3 * e + 2 * i) * PANEL_WORDS / 4, entry[2] = entry[3] = 0;
        }
    }
    upload(t, t->slab, slab, sizeof slab);
}

static void expert(const struct experts *w, uint32_t e, const double *x, double *y)
{
    double h[FF];
    for (uint32_t i = 0; i < FF; i++) {
        double gate = 0, up = 0;
        for (uint32_t c = 0; c < EMBD; c++) gate += w->gate[e][i][c] * x[c], up += w->up[e][i][c] * x[c];
        h[i] = gate / (1 + exp(-gate)) * up;
    }
    for (uint32_t c = 0; c < EMBD; c++) {
        y[c] = 0;
        for (uint32_t i = 0; i < FF; i++) y[c] += w->down[e][c][i] * h[i];
    }
}

/* What a token gets in the end. */
static void whole_layer(const struct experts *w, const struct given *g, const float *x, double *y)
{
    memset(y, 0, (size_t)g->n * EMBD * sizeof *y);
    if (g->d.select == VKM_SELECT_SOFT) {
        uint32_t slots = EXPERTS * g->d.slots_per_expert;
        double *in = malloc((size_t)slots * EMBD * sizeof *in), one[EMBD];
        float *from = malloc((size_t)slots * EMBD * sizeof *from);
        cr_assert(in && from);
        ref_soft_dispatch(g->logits, width_of(g), g->n, slots, x, EMBD, in);
        for (uint32_t s = 0; s < slots; s++) {
            expert(w, s / g->d.slots_per_expert, in + (size_t)s * EMBD, one);
            for (uint32_t c = 0; c < EMBD; c++) from[s * EMBD + c] = (float)one[c];
        }
        ref_soft_combine(g->logits, width_of(g), g->n, slots, from, EMBD, y);
        free(in);
        free(from);
        return;
    }
    struct ref_router f = reference(g);
    for (uint32_t s = 0; s < f.slots; s++) {
        double row[EMBD], one[EMBD];
        if (f.ids[s] == VKM_ROUTER_DROPPED) continue;
        for (uint32_t c = 0; c < EMBD; c++) row[c] = x[f.tokens[s] * EMBD + c];
        expert(w, f.ids[s], row, one);
        for (uint32_t c = 0; c < EMBD; c++) y[f.tokens[s] * EMBD + c] += f.weights[s] * one[c];
    }
    ref_router_free(&f);
}

static void check_layer(struct bench *t, struct vkm_moe *m, const struct experts *w, const uint32_t *table, struct given *g)
{
    static float x[100 * EMBD];
    static double y[100 * EMBD];
    struct ref_rng rng = ref_seed(g->n);
    struct vkm_moe_rule rule;
    struct vkm_moe_space s = {0};
    vkm_error err = {0};
    uint64_t words = 0;
    uint32_t width = width_of(g);
    OK(vkm_moe_rule_init(&g->d, EXPERTS, &rule, &err));
    vkm_moe_use_rule(m, &rule);
    vkm_moe_router_place(m, g->n, true, &words, &s);
    const struct vkm_moe_plan p = vkm_moe_plan(m, &s, (struct vkm_region){0}, g->n);
    uint32_t slots = p.n * p.k;
    struct vkm_region in = {(uint32_t)words, EMBD, g->n}, out = {(uint32_t)words + g->n * EMBD, EMBD, g->n};
    s.h = (struct vkm_region){out.at + g->n * EMBD, 32, slots};
    s.y = (struct vkm_region){s.h.at + slots * 32, EMBD, slots};
    cr_assert_lt(s.y.at + slots * EMBD, WS_WORDS);
    t->build.err = &err;
    upload(t, t->tables, table, TABLE_WORDS * 4);
    OK(vkm_program_create(t->device, g->what, &t->build.program, &err));
    OK(vkm_moe_router(&t->build, m, &s, NULL, in, g->n));
    OK(vkm_moe_experts(&t->build, m, &s, NULL, in, g->n));
    OK(vkm_moe_combine(&t->build, m, &s, out, g->n));
    OK(vkm_program_copy(t->build.program, t->ws, 0, t->readback, 0, WS_WORDS * 4, &err));
    OK(vkm_program_finish(t->build.program, &err));
    for (uint32_t i = 0; i < g->n * EMBD; i++) x[i] = (float)ref_normal(&rng);
    for (int audit = 0; audit < 2; audit++) {
        for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = 0x7fc12345;                  /* NaN: rows that nobody wrote must not be added up */
        for (uint32_t i = 0; i < g->n; i++) memcpy(t->words + s.logits.at + i * s.logits.ld, g->logits + (size_t)i * width, width * 4);
        memcpy(t->words + in.at, x, g->n * EMBD * 4);
        run(t, audit);
        whole_layer(w, g, x, y);
        for (uint32_t i = 0; i < g->n * EMBD; i++) {
            double got = as_float(t->words[out.at + i]);
            cr_assert(near(got, y[i], 20), "%s, %u tokens: token %u column %u is %g, not %g", g->what, g->n, i / EMBD, i % EMBD, got, y[i]);
        }
    }
    vkm_program_destroy(t->build.program);
}

/* Norm, router and choice in one kernel, as few tokens have them: the same bits, and the same lists of tiles, as in steps of their own. */
static void check_in_one_kernel(struct bench *t, uint32_t n, uint32_t seed, const vkm_router_desc *d, uint32_t *table)
{
    enum { NORM_TAB = 6000, SLOTS = VKM_ROUTED_SLOTS };
    uint32_t ids[2][SLOTS], weights[2][SLOTS], perm[2][SLOTS], args[2][VKM_TILE_CLASSES * 6], slots = n * d->n_used;
    static uint32_t tiles[2][VKM_TILE_CLASSES * 2 * SLOTS];
    vkm_error err = {0};
    cr_assert_leq(slots, SLOTS);
    for (int apart = 0; apart < 2; apart++) {
        struct vkm_moe_rule rule;
        struct vkm_moe m = {.n_expert = 16, .n_embd = EMBD, .gate_up = {.n_panels = 5}, .down = {.n_panels = 3}, .router = {.type = vkm_type_find(0), .rows = 16, .cols = EMBD, .experts = 1, .kb = 1,
                            .n_panels = 1, .n_chunks = 1, .chunk_panels = 1, .tab = 7000, .whole = t->build.shape.texel_loads /* or texel buffers are not used */}};
        struct vkm_moe_space s = {0};
        uint64_t words = 0;
        OK(vkm_moe_rule_init(d, 16, &rule, &err));
        vkm_moe_rule_tables(&rule, d, 16, 40, table + 40);
        for (uint32_t c = 0; c < EMBD; c++) table[NORM_TAB + c] = as_bits(1.25f);
        table[7000] = table[7001] = table[7002] = table[7003] = 0;
        if (t->build.shape.scalar_loads) { uint64_t at = vkm_buffer_address(t->slab); memcpy(table + 7002, &at, 8); }
        upload(t, t->tables, table, TABLE_WORDS * 4);
        vkm_moe_use_rule(&m, &rule);
        cr_assert(!rule.general);
        vkm_moe_router_place(&m, n, false, &words, &s);
        s.arrived = vkm_take(&words, 1, VKM_JOINED_ROWS + 1);
        struct vkm_region x = {(uint32_t)words, EMBD, n}, y = {x.at + n * EMBD, EMBD, n}, xn = {y.at + n * EMBD, EMBD, n};
        const struct vkm_combine norm = {.x = x, .width = EMBD, .y = y, .n_add = 1, .tab_norm = NORM_TAB, .out = xn, .scale = 0.5f, .eps = 1e-5f};
        for (uint32_t c = 0; c < WS_WORDS; c++) t->words[c] = as_bits((float)((c + seed) % 4111) * 0.001f - 2);
        memset(t->words + s.arrived.at, 0, s.arrived.ld * 4);
        memset(t->words + s.tiles.at, 0, sizeof tiles[0] / SLOTS * slots);
        OK(vkm_program_create(t->device, "norm", &t->build.program, &err));
        if (apart) OK(vkm_combine_norm(&t->build, "ffn_norm", &norm, 0, n));
        OK(vkm_moe_router(&t->build, &m, &s, apart ? NULL : &norm, xn, n));
        cr_assert_eq(strcmp(vkm_program_step(t->build.program, 0)->label, apart ? "ffn_norm" : "moe_route"), 0, "%s", vkm_program_step(t->build.program, 0)->label);
        OK(vkm_program_copy(t->build.program, t->ws, 0, t->readback, 0, WS_WORDS * 4, &err));
        OK(vkm_program_finish(t->build.program, &err));
        run(t, !apart);
        vkm_program_destroy(t->build.program);
        memcpy(ids[apart], t->words + s.ids.at, slots * 4);
        memcpy(weights[apart], t->words + s.weights.at, slots * 4);
        memcpy(perm[apart], t->words + s.perm.at, slots * 4);
        memcpy(tiles[apart], t->words + s.tiles.at, sizeof tiles[0] / SLOTS * slots);
        memcpy(args[apart], t->words + s.args.at, sizeof args[0]);
        cr_assert_eq(t->words[s.arrived.at], 0);
        for (uint32_t c = 0; c < slots; c++) cr_assert_lt(ids[apart][c], 16);
    }
    cr_assert(!memcmp(ids[0], ids[1], slots * 4) && !memcmp(weights[0], weights[1], slots * 4), "%u tokens: other bits", n);
    cr_assert(!memcmp(perm[0], perm[1], slots * 4) && !memcmp(tiles[0], tiles[1], sizeof tiles[0] / SLOTS * slots) && !memcmp(args[0], args[1], sizeof args[0]), "%u tokens: other tiles", n);
}

/* caps: NULL, or "scalar", with which a workgroup has a token and the last of them sorts */
static void check_in_one_kernels(const char *caps, const uint32_t *n, size_t n_n)
{
    static const vkm_router_desc kinds[] = {{SIZE, .n_used = 4, .renormalise = VKM_RENORMALISE_CHOSEN},
        {SIZE, .n_used = 4, .score = VKM_ROUTER_SIGMOID, .selection_bias = some_bias, .n_groups = 4, .n_groups_used = 2, .group_score = VKM_GROUPS_SUM_OF_TWO, .scale = 2.5f}};
    static uint32_t table[TABLE_WORDS], panel[PANEL_WORDS], slab[PANEL_WORDS];
    static float w[32][EMBD];
    const uint8_t *rows[32];
    struct bench t;
    vkm_error err = {0};
    struct ref_rng rng = ref_seed(4);
    make_arrays();
    open_bench_with(&t, caps, false);
    const bool can = !caps || runs_scalar_loads(vkm_device_caps(t.device));
    t.build.err = &err;
    for (uint32_t i = 0; i < 32 * EMBD; i++) w[i / EMBD][i % EMBD] = (float)ref_normal(&rng);
    for (uint32_t i = 0; i < 32; i++) rows[i] = (const uint8_t *)w[i];
    vkm_type_find(0)->repack(rows, EMBD, 1, panel);
    if (t.build.shape.scalar_loads) vkm_panel_planes(vkm_type_find(0), 1, panel, slab);
    else memcpy(slab, panel, sizeof slab);
    upload(&t, t.slab, slab, sizeof slab);
    for (size_t i = 0; can && i < VKM_COUNT(kinds); i++)
        for (size_t k = 0; k < n_n; k++)
            for (uint32_t seed = 0; seed < 4000; seed += 1000) check_in_one_kernel(&t, n[k], seed, &kinds[i], table);
    close_bench(&t);
    if (!can) cr_skip_test(NO_SCALAR_LOADS);
}
Test(layer, in_one_kernel) { check_in_one_kernels(NULL, (const uint32_t[]){1}, 1); }     /* for more the kernel takes CPU drivers seconds to compile */
Test(layer, in_one_kernel_scalar_loads) { check_in_one_kernels("scalar", (const uint32_t[]){1, 2, 3, 8, 9, 33, 64}, 7); }

Test(layer, rows_reach_their_experts)
{
    FIRST_DRIVER_ONLY();
    static const struct { const char *what; vkm_router_desc d; } kinds[] = {
        {"top-k", {SIZE, .n_used = 2, .score = VKM_ROUTER_SIGMOID, .renormalise = VKM_RENORMALISE_CHOSEN}},
        {"capacity", {SIZE, .n_used = 2, .capacity = VKM_CAPACITY_POSITION, .capacity_factor = 0.6f}},
        {"capacity 0", {SIZE, .n_used = 2, .capacity = VKM_CAPACITY_POSITION}},
        {"expert choice", {SIZE, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_factor = 1.5f}},
        {"soft", {SIZE, .select = VKM_SELECT_SOFT, .slots_per_expert = 3}}};
    static const uint32_t ns[] = {1, 7, 100};
    static struct tokens k;
    static struct experts w;
    static uint32_t table[TABLE_WORDS];
    struct vkm_moe m = {.n_expert = EXPERTS, .n_embd = EMBD};
    struct bench t;
    open_bench(&t, 1);                   /* kernels that no driver takes long to compile */
    put_experts(&t, &w, &m, table);
    for (size_t i = 0; i < VKM_COUNT(kinds); i++)
        for (size_t j = 0; j < VKM_COUNT(ns); j++) {
            struct given g = {.d = kinds[i].d, .n_expert = EXPERTS, .n = ns[j]};
            snprintf(g.what, sizeof g.what, "%s", kinds[i].what);
            make_tokens(&g, &k, false, i);
            check_layer(&t, &m, &w, table, &g);
        }
    close_bench(&t);
}
