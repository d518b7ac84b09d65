/* vkmoe tune --check: random MoE layers, their experts' matmuls with the tiles that the tuning chooses, with those that a session takes without one, and with all other sets of tiles, each
 * from the first rows on that the smaller ones do not hold, and some from later on. Two races: the first finds the best; in the second it meets the tuned and the default ones again, so
 * that a run that was lucky decides nothing, and the tuned ones run a second time, as if they were others: what those are off is this machine's noise, and no choice can be told to be better. */
#include "tune.h"
#include "model/arch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define WEIGHTS_MOST (256ull << 20)        /* shapes are scaled down to it */
#define WEIGHTS_MOST_CPU (96ull << 20)
#define FLOPS_MOST_CPU 1.5e9
#define SIDE_LEAST 256u                    /* also what sizes are multiples of: K types have blocks of 256 */
#define TOKENS_MOST 512
#define CANDIDATES 12u                     /* tuned, default, and ten more */
#define FIRST_ROUNDS 3u
#define FINAL_ROUNDS 15u

static const uint32_t sizes[VKM_TILE_CLASSES] = VKM_TILE_SIZES;

struct check_case {
    struct bench_shape shape;
    const struct vkm_type *type;
    uint32_t tokens, divided;
    enum bench_routing routing;
    uint64_t seed;
};

struct candidate { uint8_t from[VKM_TILE_CLASSES]; struct tune_racer racer; };

struct check {
    struct tune *t;
    struct check_case c;
    struct bench_plan plan;
    struct bench_weights weights;
    struct vkm_space space;
    struct vkm_region x;
    vkm_buffer *workspace;
    struct candidate candidates[CANDIDATES];
    uint32_t n, tuned, standard, best;
};

/* ---------------------------------------------------------------- cases */

static uint32_t scaled(uint32_t side, uint32_t by)
{
    uint32_t s = vkm_div_up(side / by, SIDE_LEAST) * SIDE_LEAST;
    return s < SIDE_LEAST ? SIDE_LEAST : s;
}

static void draw_case(const struct tune *t, uint64_t *state, struct check_case *c)
{
    bool cpu = t->caps->type == VKM_TYPE_CPU;
    const struct bench_shape *of;
    do of = &bench_shapes[bench_random(state) % bench_shape_count]; while (of->n_expert > VKM_MAX_EXPERTS);
    do c->type = &vkm_types[bench_random(state) % vkm_type_count]; while (!t->types[c->type - vkm_types] || t->tuning.tiles[c->type - vkm_types][0].block_ns <= 0);
    c->tokens = (uint32_t)exp(bench_random01(state) * log(TOKENS_MOST + 1.0));
    c->routing = bench_random(state) % 2 ? BENCH_ZIPF : BENCH_UNIFORM;
    c->seed = bench_random(state);
    for (c->divided = 1;; c->divided *= 2) {
        c->shape = *of;
        c->shape.n_ff_shared = 0, c->shape.shared_gated = false;           /* dense: not what is looked at */
        c->shape.n_embd = scaled(of->n_embd, c->divided);
        c->shape.n_ff = scaled(of->n_ff, c->divided);
        if (c->shape.n_embd < of->n_expert) c->shape.n_embd = (uint32_t)vkm_align(of->n_expert, SIDE_LEAST);
        uint64_t bytes = (vkm_type_panel_bytes(c->type, c->shape.n_embd / 32) * (c->shape.n_ff / 16) + vkm_type_panel_bytes(c->type, c->shape.n_ff / 32) * (c->shape.n_embd / 32)) * of->n_expert;
        double flops = 6.0 * c->tokens * of->n_used * c->shape.n_embd * c->shape.n_ff;
        if ((bytes <= (cpu ? WEIGHTS_MOST_CPU : WEIGHTS_MOST) && (!cpu || flops <= FLOPS_MOST_CPU)) || c->divided >= 64) return;
    }
}

/* ---------------------------------------------------------------- candidates */

/* Classes that never come to be used are left out, so that thresholds which cut alike are the same. */
static void normalise(uint8_t from[VKM_TILE_CLASSES], uint32_t n)
{
    uint32_t least = n + 1;
    for (uint32_t c = VKM_TILE_CLASSES; c-- > 0;) {
        if (from[c] >= least) from[c] = VKM_TILE_NEVER;
        else least = from[c];
    }
}

static uint32_t add_candidate(struct check *k, const uint8_t from[VKM_TILE_CLASSES])
{
    uint8_t normal[VKM_TILE_CLASSES];
    memcpy(normal, from, sizeof normal);
    normalise(normal, k->c.tokens);
    for (uint32_t i = 0; i < k->n; i++)
        if (!memcmp(k->candidates[i].from, normal, sizeof normal)) return i;
    if (k->n == CANDIDATES) return CANDIDATES;
    memcpy(k->candidates[k->n].from, normal, sizeof normal);
    return k->n++;
}

static void add_candidates(struct check *k)
{
    struct tune *t = k->t;
    const struct vkm_weight *both[] = {&k->plan.moe.gate_up, &k->plan.moe.down};
    const struct vkm_tile_cost *tiles = t->tuning.tiles[k->c.type - vkm_types];
    uint32_t able = 0;
    uint8_t from[VKM_TILE_CLASSES];
    struct vkm_build b = {.device = t->device, .shape = t->shape};         /* what a session would choose, with and without a tuning */
    for (uint32_t tuned = 0; tuned < 2; tuned++) {
        b.tuning = tuned ? &t->tuning : NULL;
        vkm_build_tiles(&b, both, 2, k->c.tokens, k->c.shape.n_used, k->c.shape.n_expert, from);
        *(tuned ? &k->tuned : &k->standard) = add_candidate(k, from);
    }
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) able |= tiles[c].block_ns > 0 ? 1u << c : 0;
    for (uint32_t late = 0; late < 2; late++)
        for (uint32_t set = (1u << VKM_TILE_CLASSES) - 1; set > 0; set--) {       /* the larger ones first */
            if ((set & able) != set || !(set & 1)) continue;
            uint32_t smaller = 1;
            from[0] = 1;
            for (uint32_t c = 1; c < VKM_TILE_CLASSES; c++) {
                from[c] = VKM_TILE_NEVER;
                if (!(set >> c & 1)) continue;
                from[c] = (uint8_t)(late && sizes[c] * 3 / 4 > smaller ? sizes[c] * 3 / 4 : smaller + 1);
                smaller = sizes[c];
            }
            add_candidate(k, from);
        }
}

/* ---------------------------------------------------------------- a case */

static vkm_result build(struct check *k, struct candidate *a)
{
    struct tune *t = k->t;
    struct vkm_build b = {.device = t->device, .workspace = k->workspace, .sets = k->weights.sets, .layer = -1, .err = t->err, .inputs = k->space.inputs, .shape = t->shape};
    memcpy(b.shape.tile_from, a->from, sizeof a->from);
    TRY(vkm_program_create(t->device, "tune router", &a->racer.before, t->err));
    b.program = a->racer.before;
    TRY(vkm_moe_router(&b, &k->plan.moe, &k->space.moe, NULL, k->x, k->c.tokens));
    TRY(vkm_program_finish(a->racer.before, t->err));
    TRY(vkm_program_create(t->device, "tune experts", &a->racer.program, t->err));
    b.program = a->racer.program;
    TRY(vkm_moe_experts(&b, &k->plan.moe, &k->space.moe, NULL, k->x, k->c.tokens));
    return vkm_program_finish(a->racer.program, t->err);
}

static vkm_result write_input(struct check *k)
{
    const struct bench_shape *s = &k->c.shape;
    uint32_t n = k->c.tokens, *ids = malloc((size_t)n * s->n_used * sizeof *ids);
    float *x = malloc((size_t)n * k->x.ld * sizeof *x);
    vkm_result r = ids && x ? vkm_buffer_clear(k->t->device, k->workspace, k->t->err) : vkm_fail(k->t->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    if (!r) r = bench_route(k->c.seed, k->c.routing, s->n_expert, s->n_used, n, ids, k->t->err);
    if (!r) {
        bench_route_inputs(k->c.seed, s->n_expert, s->n_used, n, ids, s->n_embd, k->x.ld, x);
        r = vkm_upload_all(k->t->device, k->workspace, (uint64_t)k->x.at * 4, x, (uint64_t)n * k->x.ld * 4, k->t->err);
    }
    free(ids), free(x);
    return r;
}

/* The median over the rounds of what one took over what the other took beside it. */
static double ratio(const struct tune_racer *a, const struct tune_racer *b)
{
    double of[TUNE_RUNS];
    for (uint32_t i = 0; i < a->n_runs; i++) of[i] = a->runs[i] / b->runs[i];
    return bench_stat_of(of, a->n_runs).median;
}

/* Over the best of the second race; again: the tuned ones over themselves, which may be below 1. */
struct result { double tuned, standard, again; };

static vkm_result race(struct check *k, struct result *result)
{
    struct tune *t = k->t;
    struct tune_racer racers[CANDIDATES], finals[4];
    uint32_t best = 0, n = 0, at[3];
    for (uint32_t i = 0; i < k->n; i++) TRY(build(k, &k->candidates[i]));
    for (uint32_t i = 0; i < k->n; i++) racers[i] = k->candidates[i].racer;
    TRY(tune_race(t->device, racers, k->n, FIRST_ROUNDS, FIRST_ROUNDS, 0, t->err));
    for (uint32_t i = 1; i < k->n; i++)
        if (racers[i].seconds < racers[best].seconds) best = i;
    const uint32_t wanted[] = {k->tuned, k->standard, best};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t same = 0;
        while (same < i && wanted[same] != wanted[i]) same++;
        at[i] = same < i ? at[same] : n;
        if (same < i) continue;
        finals[n++] = racers[wanted[i]];
    }
    if (n > 1) {
        finals[n] = finals[at[0]];
        TRY(tune_race(t->device, finals, n + 1, FINAL_ROUNDS, FINAL_ROUNDS, 0, t->err));
        result->again = ratio(&finals[n], &finals[at[0]]);
    }
    uint32_t first = 0;
    for (uint32_t i = 1; i < n; i++)
        if (ratio(&finals[i], &finals[first]) < 1) first = i;
    result->tuned = fmax(1, ratio(&finals[at[0]], &finals[first]));
    result->standard = fmax(1, ratio(&finals[at[1]], &finals[first]));
    k->best = wanted[first == at[0] ? 0 : first == at[1] ? 1 : 2];
    return VKM_OK;
}

static vkm_result prepare(struct check *k)
{
    struct tune *t = k->t;
    TRY(bench_plan_create(t->caps, &k->c.shape, k->c.type, &k->plan, t->err));
    bench_space(t->caps, &k->c.shape, &k->plan, k->c.tokens, &k->space);
    k->x = (struct vkm_region){(uint32_t)k->space.words, k->space.xn.ld, k->c.tokens};
    uint64_t bytes = (k->space.words + (uint64_t)k->c.tokens * k->x.ld) * 4;
    if (bytes > t->caps->storage_range) return vkm_fail(t->err, VKM_ERR_LIMIT, "a layer of %s needs %llu bytes to work in, the device's storage range is %llu", k->c.shape.name,
                                                       (unsigned long long)bytes, (unsigned long long)t->caps->storage_range);
    TRY(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, bytes, "workspace", &k->workspace, t->err));
    TRY(bench_weights_create(t->device, &k->plan, 1, (uint32_t)k->c.seed, k->workspace, &k->weights, t->err));
    return write_input(k);
}

/* ---------------------------------------------------------------- all of them */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show_case(const struct check *k, uint32_t i, uint32_t of, const struct result *result, struct json *j)
{
    const struct check_case *c = &k->c;
    const char *routing = c->routing == BENCH_ZIPF ? "zipf" : "uniform";
    char chosen[96], best[96];
    tune_print_tiles(k->candidates[k->tuned].from, &(vkm_text){chosen, sizeof chosen, 0});
    tune_print_tiles(k->candidates[k->best].from, &(vkm_text){best, sizeof best, 0});
    if (!j) {
        printf("%4u/%u  %-20s %5ux%-5u %-5s %4u tokens %-8s tuned %.3f  default %.3f  again %.3f  of %s; tuned %s\n", i + 1, of, c->shape.name, c->shape.n_embd, c->shape.n_ff, c->type->name, c->tokens, routing,
               result->tuned, result->standard, result->again, best, chosen);
        fflush(stdout);
        return;
    }
    json_open(j, NULL, '{', true);
    json_str(j, "shape", c->shape.name);
    json_uint(j, "n_embd", c->shape.n_embd);
    json_uint(j, "n_ff", c->shape.n_ff);
    json_str(j, "type", c->type->variant);
    json_uint(j, "tokens", c->tokens);
    json_str(j, "routing", routing);
    json_real(j, "tuned_of_best", result->tuned);
    json_real(j, "default_of_best", result->standard);
    json_real(j, "tuned_of_itself", result->again);
    json_str(j, "tuned", chosen);
    json_str(j, "best", best);
    json_uint(j, "candidates", k->n);
    json_close(j);
}

static void show_sum(const char *name, const char *of, double *ratios, uint32_t n, struct json *j)
{
    uint32_t near = 0;
    qsort(ratios, n, sizeof *ratios, ascending);
    for (uint32_t i = 0; i < n; i++) near += ratios[i] <= 1.03;
    double median = ratios[(n - 1) / 2], p90 = ratios[(uint32_t)ceil(0.9 * n) - 1], most = ratios[n - 1], share = (double)near / n;
    if (!j) {
        printf("%-8s of %s: median %.3f, p90 %.3f, max %.3f; within 3 %%: %u of %u\n", name, of, median, p90, most, near, n);
        return;
    }
    json_open(j, name, '{', true);
    json_real(j, "median", median);
    json_real(j, "p90", p90);
    json_real(j, "max", most);
    json_real(j, "within_3_percent", share);
    json_close(j);
}

static vkm_result run_case(struct check *k, struct result *result)
{
    vkm_result r = prepare(k);
    if (!r) add_candidates(k);
    if (!r) r = race(k, result);
    bench_wipe();
    for (uint32_t i = 0; i < k->n; i++) {
        vkm_program_destroy(k->candidates[i].racer.before);
        vkm_program_destroy(k->candidates[i].racer.program);
    }
    bench_weights_destroy(&k->weights);
    vkm_buffer_destroy(k->workspace);
    bench_plan_destroy(&k->plan);
    return r;
}

int tune_check(struct tune *t)
{
    uint32_t n = (uint32_t)t->args->check;
    uint64_t state = t->args->seed < 0 ? 1 : (uint64_t)t->args->seed;
    double *tuned = calloc(n, sizeof *tuned), *standard = calloc(n, sizeof *standard), *again = calloc(n, sizeof *again);
    uint32_t done = 0;
    struct json json = {.out = stdout}, *j = t->args->json ? &json : NULL;
    bool some = false;
    for (size_t i = 0; i < vkm_type_count; i++) some |= t->types[i] && t->tuning.tiles[i][0].block_ns > 0;
    int status = !tuned || !standard || !again ? fail("out of memory") : some ? STATUS_OK : fail("none of these types is tuned");
    vkm_result r = VKM_OK;
    if (status == STATUS_OK && j) {
        json_open(j, NULL, '{', false);
        json_open(j, "cases", '[', false);
    }
    for (uint32_t i = 0; status == STATUS_OK && !r && i < n; i++) {
        struct check k = {.t = t};
        struct result result = {1, 1, 1};
        draw_case(t, &state, &k.c);
        bench_say("case %u of %u", i + 1, n);
        r = run_case(&k, &result);
        if (r == VKM_ERR_LIMIT || r == VKM_ERR_DEVICE_MEMORY) {            /* too large for this device */
            r = VKM_OK;
            continue;
        }
        if (r) break;
        show_case(&k, i, n, &result, j);
        tuned[done] = result.tuned, standard[done] = result.standard, again[done++] = fmax(1, result.again);
    }
    if (status == STATUS_OK && j) json_close(j);
    if (done) {
        show_sum("tuned", "best", tuned, done, j);
        show_sum("default", "best", standard, done, j);
        show_sum("again", "tuned", again, done, j);
    }
    if (status == STATUS_OK && j) {
        json_bool(j, "complete", r == VKM_OK);
        json_close(j);
    }
    free(tuned), free(standard), free(again);
    return r ? fail_error(t->err) : status;
}
