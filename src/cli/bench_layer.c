/* vkmoe bench layer: the MoE layer alone, at the shapes of published models, with synthetic weights and a routing that is chosen. Each step's time beside what it must move and do.
 * A program holds several layers, so that what it reads exceeds caches as it does in a model; figures are of one layer. */
#include "bench_device.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define MIB (1ull << 20)
#define SEED 20260101u
#define LABELS 16
#define LAYERS_MOST 64
#define LAYERS_MOST_CPU 24
#define TARGET_BYTES (512 * MIB)           /* weights that a program reads, to be beyond any cache */
#define TARGET_BYTES_CPU (128 * MIB)
#define COPIES_BYTES (8192 * MIB)          /* at most for all copies of a layer, if one is not larger already */
#define COPIES_BYTES_CPU (768 * MIB)

/* A case as it is built: which experts the layers choose, and where things are. */
struct planned {
    struct bench_case c;
    uint32_t n_layers;                     /* 0: cannot be */
    uint32_t *ids;                         /* [n_layers][tokens * n_used] */
    struct vkm_space space;
    struct vkm_region x0;                  /* input of the first layer; those of the others follow */
    struct vkm_region zero;                /* what attention adds to it */
    uint64_t words;
    char why[256];
};

struct layer {
    const struct bench_options *o;
    vkm_device *device;
    const struct vkm_caps *caps;
    struct bench_report *report;
    const struct bench_shape *shape;
    const struct vkm_type *type;
    struct vkm_shape kernels;
    vkm_error *err;
    struct bench_plan plan;
    struct bench_weights weights;
    vkm_buffer *workspace, *readback;
    uint64_t target;
};

static const char *routing_name(enum bench_routing r) { return r == BENCH_ZIPF ? "zipf" : "uniform"; }
static void key_of(const struct layer *l, const struct bench_case *c, char key[160])
{
    snprintf(key, 160, "shape=%s type=%s tokens=%u routing=%s", l->shape->name, l->type->variant, c->tokens, routing_name(c->routing));
}

static bool fatal(vkm_result r) { return r == VKM_ERR_DEVICE_LOST || r == VKM_ERR_CANCELLED || r == VKM_ERR_HOST_MEMORY; }

static void skip(struct layer *l, const struct bench_case *c, const char *why)
{
    char key[160];
    key_of(l, c, key);
    bench_invalid(bench_row_add(l->report, "layer", "%s", key), "wall", "us", "skipped");
    bench_note(l->report, key, "skipped: %s", why);
}

/* ---------------------------------------------------------------- planning */

/* A model of one such layer, for who plans the workspace of a session. */
void bench_space(const struct vkm_caps *caps, const struct bench_shape *s, const struct bench_plan *plan, uint32_t n, struct vkm_space *space)
{
    struct vkm_layer one = {.moe = plan->moe};
    struct vkm_model model = {.h = {.n_layer = 1, .n_embd = s->n_embd, .n_vocab = 32, .n_head = 1, .n_head_kv = 1, .head = 32, .n_expert = s->n_expert, .n_used = s->n_used,
                                    .n_ff = s->n_ff, .n_ff_shared = s->n_ff_shared}, .layers = &one};
    vkm_space_plan(&model, caps, n, 1, space);
}

static double layer_weights(const struct layer *l, double distinct)
{
    const struct vkm_moe *m = &l->plan.moe;
    double bytes = distinct * (double)(vkm_matmul_bytes(&m->gate_up) + vkm_matmul_bytes(&m->down)) + (double)vkm_matmul_bytes(&m->router);
    return m->shared_down.type ? bytes + (double)(vkm_matmul_bytes(&m->shared_gate_up) + vkm_matmul_bytes(&m->shared_down)) : bytes;
}

/* So many layers that they read target bytes of weights, as far as their inputs fit the workspace. */
static vkm_result plan_case(struct layer *l, struct bench_case c, uint64_t budget, struct planned *p)
{
    const struct bench_shape *s = l->shape;
    *p = (struct planned){.c = c};
    bench_space(l->caps, s, &l->plan, c.tokens, &p->space);
    p->zero = (struct vkm_region){(uint32_t)p->space.words, p->space.xn.ld, c.tokens};
    uint64_t each = (uint64_t)c.tokens * p->space.xn.ld, least = (p->space.words + 2 * each) * 4;
    p->x0 = (struct vkm_region){p->zero.at + (uint32_t)each, p->space.xn.ld, c.tokens};
    if (least > l->caps->storage_range) {
        snprintf(p->why, sizeof p->why, "the workspace needs %.4g MiB, the device's storage range is %.4g MiB", (double)least / MIB, (double)l->caps->storage_range / MIB);
        return VKM_OK;
    }
    if (least + l->plan.bytes > budget) {
        snprintf(p->why, sizeof p->why, "needs %.4g MiB of weights and %.4g MiB of workspace, %.4g MiB are free", (double)l->plan.bytes / MIB, (double)least / MIB, (double)budget / MIB);
        return VKM_OK;
    }
    uint32_t slots = c.tokens * s->n_used;
    uint64_t words = p->space.words + each, most = (l->caps->storage_range / 4 - words) / each, more = (budget - l->plan.bytes) / 4 > words ? ((budget - l->plan.bytes) / 4 - words) / each : 1;
    if (most > more) most = more;
    uint32_t enough = l->caps->type == VKM_TYPE_CPU ? LAYERS_MOST_CPU : LAYERS_MOST;
    if (most > enough) most = enough;
    if (l->o->most_layers && most > l->o->most_layers) most = l->o->most_layers;
    p->ids = malloc((size_t)most * slots * sizeof *p->ids);
    if (!p->ids) return vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (double bytes = 0; p->n_layers < most && bytes < (double)l->target; p->n_layers++) {
        uint32_t *ids = p->ids + (size_t)p->n_layers * slots;
        TRY(bench_route(SEED + p->n_layers * 7919u, c.routing, s->n_expert, s->n_used, c.tokens, ids, l->err));
        bytes += layer_weights(l, bench_distinct(s->n_expert, ids, slots));
    }
    p->words = words + p->n_layers * each;
    return VKM_OK;
}

static uint32_t readback_stride(const struct planned *p) { return p->space.moe.ids.ld + p->space.moe.tiles.ld + p->space.moe.args.ld; }

/* ---------------------------------------------------------------- building */

static vkm_result build_layer(struct layer *l, const struct planned *p, uint32_t i, vkm_program *program)
{
    const struct vkm_space *s = &p->space;
    uint32_t copy = i % l->weights.n_copies;
    const struct vkm_moe moe = bench_weights_moe(&l->plan, copy), *m = &moe;
    struct vkm_build b = {.device = l->device, .program = program, .workspace = l->workspace, .sets = l->weights.sets + (size_t)copy * l->weights.n_sets, .layer = -1, .err = l->err,
                          .inputs = s->inputs, .shape = l->kernels};
    struct vkm_region x = p->x0;
    uint32_t n = p->c.tokens;
    x.at += i * n * x.ld;
    struct vkm_combine norm = {.x = x, .width = m->n_embd, .y = p->zero, .n_add = 1, .tab_norm = l->plan.tab_norm, .out = s->xn, .scale = 1, .eps = 1e-6f};
    const struct vkm_residual residual = {s->x, 1, s->moe.arrived.at};
    bool adds = vkm_moe_adds(&b, m, &s->moe, n);
    if (vkm_moe_norms(&b, m, &s->moe, &norm, n)) norm.n_add = 0;      /* attention would have added to x */
    TRY(vkm_moe_steps(&b, m, &s->moe, &norm, adds ? &residual : NULL, s->xn, n));
    if (adds) return VKM_OK;
    struct vkm_combine c = {.x = s->x, .width = m->n_embd, .y = s->moe.y, .n_add = m->n_used, .tab_norm = l->plan.tab_norm, .out = s->xn, .scale = 1, .eps = 1e-6f};
    if (m->shared_down.type) c.shared = s->moe.shared_y;
    if (m->shared_gated) c.gate = s->moe.gate;
    return vkm_combine_norm(&b, "moe_combine", &c, 0, n);
}

static vkm_result copy_region(struct layer *l, vkm_program *program, const struct vkm_region *r, uint64_t *to)
{
    TRY(vkm_program_copy(program, l->workspace, (uint64_t)r->at * 4, l->readback, *to * 4, (uint64_t)r->ld * 4, l->err));
    *to += r->ld;
    return VKM_OK;
}

/* readback: after each layer its choices and tile lists go to the host. */
static vkm_result build(struct layer *l, const struct planned *p, bool readback, vkm_program **program)
{
    char key[160];
    key_of(l, &p->c, key);
    TRY(vkm_program_create(l->device, key, program, l->err));
    vkm_result r = VKM_OK;
    uint64_t to = 0;
    for (uint32_t i = 0; !r && i < p->n_layers; i++) {
        r = build_layer(l, p, i, *program);
        if (!r && readback) r = copy_region(l, *program, &p->space.moe.ids, &to);
        if (!r && readback) r = copy_region(l, *program, &p->space.moe.tiles, &to);
        if (!r && readback) r = copy_region(l, *program, &p->space.moe.args, &to);
    }
    if (!r) r = vkm_program_finish(*program, l->err);
    if (r) vkm_program_destroy(*program), *program = NULL;
    return r;
}

static vkm_result write_inputs(struct layer *l, const struct planned *p)
{
    const struct bench_shape *s = l->shape;
    size_t rows = (size_t)p->c.tokens * p->x0.ld;
    float *x = malloc(rows * sizeof *x);
    if (!x) return vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    vkm_result r = vkm_buffer_clear(l->device, l->workspace, l->err);
    for (uint32_t i = 0; !r && i < p->n_layers; i++) {
        bench_route_inputs(SEED + i, s->n_expert, s->n_used, p->c.tokens, p->ids + (size_t)i * p->c.tokens * s->n_used, s->n_embd, p->x0.ld, x);
        r = vkm_upload_all(l->device, l->workspace, ((uint64_t)p->x0.at + i * rows) * 4, x, rows * 4, l->err);
    }
    free(x);
    return r;
}

/* ---------------------------------------------------------------- what the device did */

struct label { char name[48]; uint32_t dispatches; struct bench_tiles tiles; bool tiled; double declared_bytes, declared_flops, now; double *seconds; uint32_t n; };
struct labels { struct label at[LABELS]; uint32_t n, room; };

static struct label *label_of(struct labels *labels, const char *name)
{
    for (uint32_t i = 0; i < labels->n; i++)
        if (!strcmp(labels->at[i].name, name)) return &labels->at[i];
    if (labels->n == LABELS) return NULL;
    struct label *fresh = &labels->at[labels->n++];
    snprintf(fresh->name, sizeof fresh->name, "%s", name);
    return fresh;
}

/* Runs once with readback: the experts must be those that were asked for, and the tile lists tell what the matmuls do. */
static vkm_result inspect(struct layer *l, const struct planned *p, struct labels *labels)
{
    const struct bench_shape *s = l->shape;
    uint32_t slots = p->c.tokens * s->n_used, stride = readback_stride(p);
    vkm_program *program;
    TRY(build(l, p, true, &program));
    vkm_result r = bench_run_once(l->device, program, l->err);
    if (!r) r = vkm_buffer_invalidate(l->readback, 0, (uint64_t)stride * p->n_layers * 4, l->err);
    const uint32_t *words = vkm_buffer_map(l->readback);
    for (uint32_t i = 0; !r && i < p->n_layers; i++)
        if (memcmp(words + (size_t)i * stride, p->ids + (size_t)i * slots, (size_t)slots * 4))
            r = vkm_fail(l->err, VKM_ERR_FORMAT, "the router of layer %u of %u chose other experts than it was made to", i, p->n_layers);
    uint32_t steps = vkm_program_step_count(program), each = steps / p->n_layers;
    for (uint32_t i = 0; !r && i < steps; i++) {
        const struct vkm_step *step = vkm_program_step(program, i);
        struct label *label = label_of(labels, step->label);
        if (!label) r = vkm_fail(l->err, VKM_ERR_LIMIT, "more than %u kinds of steps", LABELS);
        if (r) break;
        label->dispatches++;
        label->declared_bytes += (double)step->bytes;
        label->declared_flops += (double)step->flops;
        if (!strncmp(vkm_kernel_name(step->kernel), "linear", 6)) label->tiles.tiles += step->groups[0];     /* linear_cpu too */
        if (!strncmp(vkm_kernel_name(step->kernel), "moe_route", 9)) label->tiles.tiles += step->groups[0];    /* moe_route_cpu: of a token; else it is one for all */
        if (!strcmp(vkm_kernel_name(step->kernel), "moe_logits")) label->tiles.tiles += step->groups[2];       /* workgroups are of a token */
        if (strcmp(step->label, "moe_gate_up") && strcmp(step->label, "moe_down")) continue;
        label->tiled = true;
        const uint32_t *of_layer = words + (size_t)(i / each) * stride + p->space.moe.ids.ld;
        r = bench_tiles_add(&l->kernels, &l->plan.moe, &p->space.moe, p->c.tokens, step, of_layer, of_layer + p->space.moe.tiles.ld, &label->tiles, l->err);
    }
    for (uint32_t i = 0; !r && i < labels->n; i++)
        if (labels->at[i].tiled && labels->at[i].tiles.rows != (uint64_t)slots * p->n_layers)
            r = vkm_fail(l->err, VKM_ERR_FORMAT, "the tiles of %s hold %llu rows, not %llu", labels->at[i].name, (unsigned long long)labels->at[i].tiles.rows, (unsigned long long)slots * p->n_layers);
    vkm_program_destroy(program);
    return r;
}

/* Keeps the seconds of each label in this run. */
static vkm_result on_profile(void *user, const vkm_program *program, vkm_error *err)
{
    struct labels *labels = user;
    for (uint32_t i = 0; i < labels->n; i++) labels->at[i].now = 0;
    for (uint32_t i = 0; i < vkm_program_step_count(program); i++)
        label_of(labels, vkm_program_step(program, i)->label)->now += (double)vkm_program_step_ns(program, i) * 1e-9;
    for (uint32_t i = 0; i < labels->n; i++) {
        struct label *a = &labels->at[i];
        if (a->n == labels->room) {
            uint32_t room = labels->room ? 2 * labels->room : 64;
            for (uint32_t k = 0; k < labels->n; k++) {
                double *more = realloc(labels->at[k].seconds, room * sizeof *more);
                if (!more) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
                labels->at[k].seconds = more;
            }
            labels->room = room;
        }
        a->seconds[a->n++] = a->now;
    }
    return VKM_OK;
}

/* ---------------------------------------------------------------- rows */

/* Bytes of different experts' weights (each copy has its own) that the program reads. */
static double working_set(const struct layer *l, const struct planned *p)
{
    const struct bench_shape *s = l->shape;
    double bytes = 0;
    uint32_t slots = p->c.tokens * s->n_used, copies = l->weights.n_copies;
    for (uint32_t copy = 0; copy < copies && copy < p->n_layers; copy++) {
        uint8_t seen[VKM_MAX_EXPERTS] = {0};
        uint32_t distinct = 0;
        for (uint32_t i = copy; i < p->n_layers; i += copies)
            for (uint32_t k = 0; k < slots; k++) distinct += !seen[p->ids[(size_t)i * slots + k]]++;
        bytes += layer_weights(l, distinct);
    }
    return bytes;
}

/* The ceilings' share, by what a run must move and do. What fits a cache is held against the bandwidth of caches. rate: the ceilings' figure by the clock that the seconds are by. */
static void add_shares(struct layer *l, struct bench_row *row, const struct bench_work *w, double seconds, const char *rate, bool cacheable)
{
    double read = bench_find(l->report, "roofline", BENCH_CEILING_READ, rate), cached = bench_find(l->report, "roofline", BENCH_CEILING_CACHED, rate);
    double fma = bench_arithmetic(l->report, rate);
    if (cacheable && cached > read) read = cached;
    if (isnan(read) || isnan(fma)) {
        bench_invalid(row, "of ceiling", "%", "no ceiling was measured");
        return;
    }
    double of_read = 100 * w->bytes * 1e-9 / seconds / read, of_fma = 100 * w->flops * 1e-9 / seconds / fma, share = fmax(of_read, of_fma);
    if (share > 100) bench_invalid(row, "of ceiling", "%", "above the ceiling");
    else             bench_count(row, "of ceiling", "%", share, 1);
    bench_count(row, "of read", "%", of_read, 0);
    bench_count(row, "of fma", "%", of_fma, 0);
    bench_count(row, "fits a cache", "", cacheable, 0);
}

static void add_tiles(struct bench_row *row, const struct label *label, uint32_t layers)
{
    bench_count(row, "padded rows", "x", (double)label->tiles.computed / (double)label->tiles.rows, -1);
    bench_count(row, "tiles", "", (double)label->tiles.tiles / layers, 0);
    bench_count(row, "empty workgroups", "", (double)label->tiles.empty / layers, -1);
}

static void add_rows(struct layer *l, const struct planned *p, struct labels *labels, const struct bench_times *times, uint32_t barriers)
{
    const struct bench_shape *s = l->shape;
    uint32_t layers = p->n_layers, slots = p->c.tokens * s->n_used, dispatches = 0;
    double distinct = 0, set = working_set(l, p);
    struct bench_work work[LABELS] = {{0}}, all = {0};
    char key[160];
    key_of(l, &p->c, key);
    for (uint32_t i = 0; i < layers; i++) distinct += bench_distinct(s->n_expert, p->ids + (size_t)i * slots, slots);
    distinct /= layers;
    for (uint32_t i = 0; i < labels->n; i++) {
        struct label *a = &labels->at[i];
        struct bench_words words = {0};
        if (a->tiled) words = (struct bench_words){(double)a->tiles.words_in / (double)a->tiles.rows, (double)a->tiles.words_out / (double)a->tiles.rows};
        if (!bench_work_of(&l->plan.moe, a->name, p->c.tokens, distinct, (double)a->tiles.tiles / layers, words, &work[i]))
            work[i] = (struct bench_work){.bytes = a->declared_bytes / layers, .flops = a->declared_flops / layers, .moved = a->declared_bytes / layers};
        all.bytes += work[i].bytes, all.weights += work[i].weights, all.flops += work[i].flops, all.moved += work[i].moved;
        dispatches += a->dispatches;
    }
    struct bench_stat wall = times->wall, gpu = times->gpu;
    bench_stat_divide(&wall, layers);
    bench_stat_divide(&gpu, layers);
    const struct bench_times of_layer = {.wall = wall, .gpu = gpu};
    const struct bench_stat *time = bench_trusted(l->device, &of_layer);
    bool cacheable = set < (double)l->target;
    struct bench_row *row = bench_row_add(l->report, "layer", "%s", key);
    bench_time(row, "wall", &wall);
    if (gpu.n) bench_time(row, "gpu", &gpu);
    bench_rate(row, "speed", "tok/s", p->c.tokens, time);
    bench_rate(row, "bandwidth", "GB/s", all.bytes * 1e-9, time);
    bench_rate(row, "arithmetic", "GFLOP/s", all.flops * 1e-9, time);
    add_shares(l, row, &all, time->median, "rate", cacheable);
    bench_count(row, "bytes/min", "x", all.moved / all.bytes, -1);
    for (uint32_t i = 0; i < labels->n; i++)
        if (labels->at[i].tiled) { bench_count(row, "padded rows", "x", (double)labels->at[i].tiles.computed / (double)labels->at[i].tiles.rows, -1); break; }
    bench_count(row, "dispatches", "", (double)dispatches / layers, 0);
    bench_count(row, "barriers", "", (double)barriers / layers, 0);
    bench_count(row, "experts", "", distinct, 0);
    bench_count(row, "weights read", "MiB", all.weights / MIB, 0);
    bench_count(row, "layers", "", layers, 0);
    bench_count(row, "copies", "", l->weights.n_copies, 0);
    bench_count(row, "working set", "MiB", set / MIB, 0);
    for (uint32_t i = 0; i < labels->n; i++) {
        struct label *a = &labels->at[i];
        row = bench_row_add(l->report, "step", "%s step=%s", key, a->name);
        if (!a->n) {
            bench_invalid(row, "time", "us", "no timestamps on this queue");
        } else {
            struct bench_stat step = bench_stat_of(a->seconds, a->n);
            bench_stat_divide(&step, layers);
            bench_time(row, "time", &step);
            bench_rate(row, "bandwidth", "GB/s", work[i].bytes * 1e-9, &step);
            if (work[i].flops > 0) bench_rate(row, "arithmetic", "GFLOP/s", work[i].flops * 1e-9, &step);
            add_shares(l, row, &work[i], step.median, "by GPU clock", cacheable || (work[i].weights == 0 && work[i].bytes < (double)l->target));
        }
        bench_count(row, "bytes", "MB", work[i].bytes * 1e-6, 0);
        if (work[i].flops > 0) bench_count(row, "flops", "GFLOP", work[i].flops * 1e-9, 0);
        bench_count(row, "dispatches", "", (double)a->dispatches / layers, 0);
        if (a->tiles.tiles) bench_count(row, "bytes/min", "x", work[i].moved / work[i].bytes, -1);
        if (a->tiled) add_tiles(row, a, layers);
    }
}

/* ---------------------------------------------------------------- running */

static vkm_result run_case(struct layer *l, const struct planned *p)
{
    struct labels labels = {.n = 0};
    struct bench_times times;
    vkm_program *program = NULL;
    char key[160];
    key_of(l, &p->c, key);
    bench_say("%s", key);
    vkm_result r = write_inputs(l, p);
    if (!r) r = inspect(l, p, &labels);
    if (!r) r = build(l, p, false, &program);
    if (!r) r = bench_time_program(l->device, program, &l->o->policy, on_profile, &labels, &times, l->err);
    if (!r) add_rows(l, p, &labels, &times, vkm_program_barrier_count(program));
    vkm_program_destroy(program);
    for (uint32_t i = 0; i < labels.n; i++) free(labels.at[i].seconds);
    if (!r && interrupted()) r = vkm_fail(l->err, VKM_ERR_CANCELLED, "interrupted");
    return r;
}

/* Buffers for the largest of the cases, then each of them. */
static vkm_result run_cases(struct layer *l, struct planned *cases, uint32_t n, uint64_t budget)
{
    uint64_t words = 0, read = 0;
    uint32_t layers = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!cases[i].n_layers) continue;
        uint64_t need = (uint64_t)readback_stride(&cases[i]) * cases[i].n_layers;
        if (cases[i].words > words) words = cases[i].words;
        if (need > read) read = need;
        if (cases[i].n_layers > layers) layers = cases[i].n_layers;
    }
    if (!layers) return VKM_OK;
    uint64_t copies = (budget - words * 4) / l->plan.bytes, most = (l->caps->type == VKM_TYPE_CPU ? COPIES_BYTES_CPU : COPIES_BYTES) / l->plan.bytes;
    if (copies > most) copies = most;
    if (copies > layers) copies = layers;
    if (copies < 1) copies = 1;
    TRY(vkm_buffer_create(l->device, VKM_BUFFER_DEVICE, words * 4, "workspace", &l->workspace, l->err));
    TRY(vkm_buffer_create(l->device, VKM_BUFFER_READBACK, read * 4, "readback", &l->readback, l->err));
    bench_say("weights of %s, %s", l->shape->name, l->type->variant);
    TRY(bench_weights_create(l->device, &l->plan, (uint32_t)copies, SEED, l->workspace, &l->weights, l->err));
    for (uint32_t i = 0; i < n; i++) {
        if (!cases[i].n_layers) continue;
        vkm_result r = run_case(l, &cases[i]);
        if (fatal(r)) return r;
        if (r) skip(l, &cases[i].c, l->err->message);
    }
    return VKM_OK;
}

vkm_result bench_layer_shape(const struct bench_options *o, vkm_device *device, struct bench_report *report, const struct bench_shape *shape, const struct vkm_type *type,
                             const struct bench_case *cases, uint32_t n_cases, vkm_error *err)
{
    struct layer l = {.o = o, .device = device, .caps = vkm_device_caps(device), .report = report, .shape = shape, .type = type, .err = err};
    struct planned *planned = calloc(n_cases, sizeof *planned);
    if (!planned) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    vkm_shape_choose(l.caps, &l.kernels);
    if (o->tile) vkm_shape_tiles(&l.kernels, o->tile);
    l.target = l.caps->type == VKM_TYPE_CPU ? TARGET_BYTES_CPU : TARGET_BYTES;
    uint64_t budget = vkm_device_budget(device) / 20 * 19;
    vkm_result r = bench_plan_create(l.caps, shape, type, &l.plan, err);
    bool planned_all = r == VKM_OK;
    for (uint32_t i = 0; !r && i < n_cases; i++) r = plan_case(&l, cases[i], budget, &planned[i]);
    if (!r) r = run_cases(&l, planned, n_cases, budget);
    for (uint32_t i = 0; i < n_cases && !fatal(r); i++)    /* in place of rows that were not reached: why */
        if (r && (!planned_all || !planned[i].why[0])) skip(&l, &cases[i], err->message);
        else if (!r && !planned[i].n_layers) skip(&l, &cases[i], planned[i].why);
    if (!r && shape->unlike) { char key[64]; snprintf(key, sizeof key, "shape=%s", shape->name); bench_note(report, key, "%s", shape->unlike); }
    for (uint32_t i = 0; i < n_cases; i++) free(planned[i].ids);
    free(planned);
    bench_weights_destroy(&l.weights);
    vkm_buffer_destroy(l.workspace);
    vkm_buffer_destroy(l.readback);
    bench_plan_destroy(&l.plan);
    return fatal(r) ? r : VKM_OK;
}

/* ---------------------------------------------------------------- the subcommand */

#define LIST_MOST 32

/* The comma-separated words of a list, each given to `add`; false and says so for one that it does not take. */
static bool each_word(const char *list, bool (*add)(void *user, const char *word, size_t n), void *user, const char *what, const char *known)
{
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        if (!add(user, at, n)) {
            fail_usage("bench layer", "%s '%.*s': %s", what, (int)n, at, known);
            return false;
        }
        at += n;
        if (!*at) return true;
    }
}

struct wanted {
    const struct bench_shape *shapes[LIST_MOST]; uint32_t n_shapes;
    const struct vkm_type *types[LIST_MOST];     uint32_t n_types;
    uint32_t tokens[LIST_MOST], n_tokens;
    enum bench_routing routings[2];              uint32_t n_routings;
};

static bool add_shape(void *user, const char *word, size_t n)
{
    struct wanted *w = user;
    if (n == 3 && !memcmp(word, "all", 3)) {
        for (w->n_shapes = 0; w->n_shapes < bench_shape_count; w->n_shapes++) w->shapes[w->n_shapes] = &bench_shapes[w->n_shapes];
        return true;
    }
    return w->n_shapes < LIST_MOST && (w->shapes[w->n_shapes++] = bench_shape_find(word, n));
}

static bool add_type(void *user, const char *word, size_t n)
{
    struct wanted *w = user;
    return w->n_types < LIST_MOST && (w->types[w->n_types++] = bench_type_find(word, n));
}

static bool add_tokens(void *user, const char *word, size_t n)
{
    struct wanted *w = user;
    uint32_t value = 0;
    for (size_t i = 0; i < n; i++) {
        if (word[i] < '0' || word[i] > '9' || value > 10000) return false;
        value = value * 10 + (uint32_t)(word[i] - '0');
    }
    if (!value || value > 16384 || w->n_tokens == LIST_MOST) return false;
    w->tokens[w->n_tokens++] = value;
    return true;
}

static bool add_routing(void *user, const char *word, size_t n)
{
    struct wanted *w = user;
    bool zipf = n == 4 && !memcmp(word, "zipf", 4), uniform = n == 7 && !memcmp(word, "uniform", 7);
    if ((!zipf && !uniform) || w->n_routings == 2) return false;
    w->routings[w->n_routings++] = zipf ? BENCH_ZIPF : BENCH_UNIFORM;
    return true;
}

static bool parse(const struct args *args, struct wanted *w)
{
    char shapes[512], types[256];
    vkm_text t = {shapes, sizeof shapes, 0}, u = {types, sizeof types, 0};
    vkm_textf(&t, "known: all");
    for (size_t i = 0; i < bench_shape_count; i++) vkm_textf(&t, ", %s", bench_shapes[i].name);
    vkm_textf(&u, "known: ");
    for (size_t i = 0; i < vkm_type_count; i++) vkm_textf(&u, "%s%s", i ? ", " : "", vkm_types[i].variant);
    return each_word(args->shape ? args->shape : "olmoe-1b-7b", add_shape, w, "shape", shapes) && each_word(args->type ? args->type : "q4_k", add_type, w, "type", types) &&
           each_word(args->tokens ? args->tokens : "1,8,64,512", add_tokens, w, "tokens", "a number from 1 to 16384, at most 32 of them") &&
           each_word(args->routing ? args->routing : "uniform", add_routing, w, "routing", "uniform, zipf or both");
}

/* Whether --tile can be so many tokens on this device; else which ones, in words. */
static bool tile_can_be(vkm_device *device, uint32_t tile, char *words, size_t size)
{
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    vkm_text t = {words, size, 0};
    struct vkm_shape shape;
    bool can = false;
    vkm_shape_choose(vkm_device_caps(device), &shape);
    for (size_t i = 0; i < VKM_COUNT(sizes) && sizes[i] <= vkm_shape_tile_most(&shape); i++) {
        vkm_textf(&t, "%s%u", i ? ", " : "", sizes[i]);
        can |= sizes[i] == tile;
    }
    return can;
}

int bench_layer(const struct bench_options *o, vkm_device *device, struct bench_report *report)
{
    struct wanted w = {.n_shapes = 0};
    struct bench_case cases[2 * LIST_MOST];
    uint32_t n_cases = 0;
    char tiles[64];
    vkm_error err = {0};
    if (!parse(o->args, &w)) return STATUS_USAGE;
    if (o->tile && !tile_can_be(device, o->tile, tiles, sizeof tiles)) return fail_usage("bench layer", "--tile %u: with these --caps this device has tiles of %s", o->tile, tiles);
    for (uint32_t i = 0; i < w.n_tokens; i++)
        for (uint32_t k = 0; k < w.n_routings; k++) cases[n_cases++] = (struct bench_case){w.tokens[i], w.routings[k]};
    vkm_result r = bench_ceilings(o, device, report, &err);
    const uint32_t first = report->n_rows;
    bool any = false;
    for (uint32_t i = 0; !r && i < w.n_shapes; i++)
        for (uint32_t k = 0; !r && k < w.n_types; k++) r = bench_layer_shape(o, device, report, w.shapes[i], w.types[k], cases, n_cases, &err);
    if (r) return bench_stop(report, &err);
    for (uint32_t i = first; i < report->n_rows; i++) any |= !report->rows[i].figures[0].why;
    return any ? STATUS_OK : fail("nothing of that can be measured on this device: the table says why");
}
