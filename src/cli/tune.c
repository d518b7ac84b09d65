/* vkmoe tune: measures what tiles of each size cost for each type of weights on this device, what a dispatch costs, and reading weights from memory; prints and keeps it. */
#include "tune.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define SIDE 1024u                         /* rows of a matrix, and columns of the wide one */
#define NARROW (VKM_TUNING_BLOCKS * 32u)   /* columns of the other, no fewer than the blocks of K types have */
#define TILES 256u                         /* of a dispatch */
#define TILES_CPU 32u
#define SHARING 32u                        /* tiles that have a matrix in common: what reading it costs is measured apart, for it is read once for all tiles of an expert that have the same size */
#define FAR 32u                            /* matrices of F32, 4 MiB each: more than caches hold */
#define DISPATCHES 16u                     /* of a tile each, against one of all */
#define SUBMIT_SECONDS 0.01                /* makes the round trip of a submission small */
#define REPEAT_MOST 1000u
#define ROUNDS_LEAST 3u
#define ROUNDS_MOST 15u

static const uint32_t sizes[VKM_TILE_CLASSES] = VKM_TILE_SIZES;

/* ---------------------------------------------------------------- racing */

static vkm_result run(vkm_device *device, struct tune_racer *r, double *took, vkm_error *err)
{
    uint64_t ticket;
    if (interrupted()) return vkm_fail(err, VKM_ERR_CANCELLED, "interrupted");
    if (r->before) TRY(bench_run_once(device, r->before, err));
    double start = seconds();
    TRY(vkm_program_submit(r->program, r->repeat, &ticket, err));
    TRY(vkm_wait(device, ticket, err));
    *took = (seconds() - start) / r->repeat;
    return VKM_OK;
}

vkm_result tune_race(vkm_device *device, struct tune_racer *racers, uint32_t n, uint32_t least, uint32_t most, double max_seconds, vkm_error *err)
{
    double took;
    for (uint32_t i = 0; i < n; i++) {
        if (racers[i].repeat) continue;
        racers[i].repeat = 1;                              /* a warm-up, which tells how often it has to run */
        TRY(run(device, &racers[i], &took, err));
        TRY(run(device, &racers[i], &took, err));
        racers[i].repeat = (uint32_t)fmin(REPEAT_MOST, fmax(1, ceil(SUBMIT_SECONDS / fmax(took, 1e-7))));
    }
    double start = seconds();
    for (uint32_t round = 0; round < most && (round < least || seconds() - start < max_seconds); round++)
        for (uint32_t k = 0; k < n; k++) {
            struct tune_racer *r = &racers[round % 2 ? n - 1 - k : k];
            TRY(run(device, r, &took, err));
            if (round == 0 || took < r->seconds) r->seconds = took;
            r->runs[round] = took;
            r->n_runs = round + 1;
            bench_draw(round);
        }
    return VKM_OK;
}

/* ---------------------------------------------------------------- one type */

/* Experts' matrices of one type, and the workspace of matmuls over them: x and y have a row for each row of the largest tiles; a tile list for each class. */
struct bed {
    struct tune *t;
    const struct vkm_type *type;
    struct bench_plan plan;
    struct bench_weights weights;
    struct vkm_weight w;
    vkm_buffer *workspace;
    struct vkm_region x, y;
    struct vkm_inputs inputs;
    uint32_t cols, sharing, tiles, rows, lists, same, perm, scale, args, words;   /* the last six: words; same: a list of tiles of one row and the first matrix */
    const struct vkm_tuning *exact;        /* one that keeps int8dot away; NULL: as the device's caps are */
    struct vkm_build build;
};

static uint32_t take(struct bed *d, uint64_t words)
{
    uint32_t at = d->words;
    d->words += (uint32_t)vkm_align(words, 32);
    return at;
}

static void lay_out(struct bed *d)
{
    d->words = 0;
    d->rows = d->tiles * vkm_shape_tile_most(&d->t->shape);
    d->lists = take(d, 2ull * d->tiles * VKM_TILE_CLASSES);
    d->same = take(d, 2ull * d->tiles);
    d->perm = take(d, d->rows);
    d->scale = take(d, d->rows);
    d->args = take(d, 3 * (DISPATCHES + 1));
    d->x = (struct vkm_region){take(d, (uint64_t)d->rows * d->cols), d->cols, d->rows};
    d->y = (struct vkm_region){take(d, (uint64_t)d->rows * SIDE), SIDE, d->rows};
    for (uint32_t f = 0; f < VKM_FORMS; f++) {
        uint64_t words = vkm_form_words(d->t->caps, f, d->rows, d->cols);
        d->inputs.form[f] = (struct vkm_region){take(d, words), 1, (uint32_t)words};
    }
}

static vkm_result fill(struct bed *d)
{
    uint64_t seed = 1, n = (uint64_t)d->y.at;              /* everything before y */
    uint32_t *words = calloc(n, 4), groups = vkm_matmul_groups(&d->t->shape, &d->w, 1);
    const float one = 1;
    if (!words) return vkm_fail(d->t->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++)
        for (uint32_t i = 0; i < d->tiles; i++) {
            uint32_t *tile = words + d->lists + 2 * (c * d->tiles + i);
            tile[0] = i / d->sharing | sizes[c] << 16;
            tile[1] = i * sizes[c];
        }
    for (uint32_t i = 0; i < d->tiles; i++) words[d->same + 2 * i] = sizes[0] << 16, words[d->same + 2 * i + 1] = i * sizes[0];
    for (uint32_t i = 0; i < d->rows; i++) words[d->perm + i] = i, memcpy(words + d->scale + i, &one, 4);
    for (uint32_t i = 0; i <= DISPATCHES; i++) {
        uint32_t *a = words + d->args + 3 * i;
        a[0] = i == DISPATCHES ? DISPATCHES : 1, a[1] = groups, a[2] = 1;
    }
    for (uint64_t i = d->x.at; i < n; i++) {
        float v = (float)(bench_random01(&seed) * 2 - 1);
        memcpy(words + i, &v, 4);
    }
    vkm_result r = vkm_upload_all(d->t->device, d->workspace, 0, words, n * 4, d->t->err);
    free(words);
    return r;
}

static uint32_t list_of(const struct bed *d, uint32_t c) { return d->lists + 2 * c * d->tiles; }

/* A dispatch of `tiles` tiles of class c from that word on; args: where its workgroups are, 0: given. */
static vkm_result add_step(struct bed *d, vkm_program *program, uint32_t c, uint32_t list, uint32_t tiles, uint32_t args)
{
    struct vkm_build *b = &d->build;
    struct vkm_region in = d->x;
    struct vkm_push_matmul push;
    uint32_t rows = d->tiles * sizes[c];
    b->program = program;
    TRY(vkm_matmul_input(b, "moe_down", &d->w, sizes[c], &in, d->rows));
    vkm_matmul_push(b, &d->w, &push);
    push.n = rows; push.n_used = 1;
    push.ws_x = in.at; push.ld_x = in.ld; push.ws_y = d->y.at; push.ld_y = d->y.ld;
    push.ws_tiles = list; push.ws_perm = d->perm; push.ws_scale = d->scale;
    struct vkm_step step = {.groups = {tiles, vkm_matmul_groups(&b->shape, &d->w, sizes[c]), 1}, .bindings = b->sets[d->w.set], .concurrent = args != 0, .indirect = args != 0, .indirect_offset = (uint64_t)args * 4,
                            .bytes = vkm_matmul_bytes(&d->w) * tiles, .flops = 2ull * tiles * sizes[c] * SIDE * d->cols};
    VKM_STEP_PUSH(step, push);
    vkm_reads(b, &step, in, rows);
    vkm_reads_words(b, &step, push.ws_tiles, 2 * tiles);
    vkm_reads_words(b, &step, d->perm, rows);
    vkm_reads_words(b, &step, d->scale, rows);
    vkm_writes(b, &step, d->y, rows);
    return vkm_matmul_step(b, "moe_down", &d->w, sizes[c], VKM_ACT_NONE << VKM_EPILOGUE_ACT, &step, "tiles");
}

/* Whether small tiles of these weights are multiplied as integers unless a tuning says otherwise. */
static bool has_int8(const struct tune *t, const struct vkm_type *type)
{
    return !t->shape.scalar_loads && vkm_kernel_tier(t->device, "moe_down", type->variant, VKM_TIERS_ALL & ~VKM_TIER_BIT(VKM_TIER_COOPMAT)) == VKM_TIER_INT8DOT;
}

static bool possible(const struct bed *d, uint32_t c) { return sizes[c] <= vkm_shape_tile_most(&d->t->shape); }

/* One program of everything first: it compiles all kernels together, and makes x as int8 where kernels want it so, which later programs then find. */
static vkm_result prepare(struct bed *d)
{
    vkm_program *all;
    TRY(vkm_program_create(d->t->device, "tune", &all, d->t->err));
    vkm_result r = VKM_OK;
    for (uint32_t c = 0; !r && c < VKM_TILE_CLASSES; c++)
        if (possible(d, c)) r = add_step(d, all, c, list_of(d, c), d->tiles, 0);
    if (!r) r = vkm_program_finish(all, d->t->err);
    if (!r) r = bench_run_once(d->t->device, all, d->t->err);
    vkm_program_destroy(all);
    return r;
}

/* Nanoseconds of a tile of each class, for each panel. */
static vkm_result time_tiles(struct bed *d, double ns[VKM_TILE_CLASSES])
{
    struct tune *t = d->t;
    struct tune_racer racers[VKM_TILE_CLASSES] = {{0}};
    uint32_t n = 0, class_of[VKM_TILE_CLASSES];
    vkm_result r = VKM_OK;
    for (uint32_t c = 0; !r && c < VKM_TILE_CLASSES; c++) {
        if (!possible(d, c)) continue;
        r = vkm_program_create(t->device, "tune", &racers[n].program, t->err);
        if (r) break;
        class_of[n++] = c;
        r = add_step(d, racers[n - 1].program, c, list_of(d, c), d->tiles, 0);
        if (!r) r = vkm_program_finish(racers[n - 1].program, t->err);
    }
    if (!r) r = tune_race(t->device, racers, n, ROUNDS_LEAST, ROUNDS_MOST, t->args->budget / (has_int8(t, d->type) ? 4 : 2), t->err);
    for (uint32_t i = 0; i < n; i++) {
        if (!r) ns[class_of[i]] = racers[i].seconds * 1e9 / d->tiles / d->w.n_panels;
        vkm_program_destroy(racers[i].program);
    }
    return r;
}

/* DISPATCHES of one tile of one row against one of so many: all that another dispatch costs, with its share of the device running empty at its end. */
static vkm_result time_dispatch(struct bed *d, double *ns)
{
    struct tune *t = d->t;
    struct tune_racer racers[2] = {{0}};
    uint32_t tiles = d->tiles < DISPATCHES ? d->tiles : DISPATCHES;
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < 2; i++) {
        r = vkm_program_create(t->device, "tune", &racers[i].program, t->err);
        if (!r && i == 0) r = add_step(d, racers[i].program, 0, list_of(d, 0), tiles, d->args + 3 * DISPATCHES);
        for (uint32_t k = 0; !r && i == 1 && k < tiles; k++) r = add_step(d, racers[i].program, 0, list_of(d, 0) + 2 * k, 1, d->args + 3 * k);
        if (!r) r = vkm_program_finish(racers[i].program, t->err);
    }
    if (!r) r = vkm_workspace_write(t->device, d->workspace, (uint64_t)(d->args + 3 * DISPATCHES) * 4, &tiles, 4, t->err);
    if (!r) r = tune_race(t->device, racers, 2, ROUNDS_LEAST, TUNE_RUNS, t->args->budget, t->err);
    if (!r) *ns = fmax(0, (racers[1].seconds - racers[0].seconds) * 1e9 / (tiles - 1));
    for (uint32_t i = 0; i < 2; i++) vkm_program_destroy(racers[i].program);
    return r;
}

/* Tiles of one row that have a matrix each against as many that have the same: nanoseconds that a byte from memory costs. */
static vkm_result time_memory(struct bed *d, double *ns)
{
    struct tune *t = d->t;
    struct tune_racer racers[2] = {{0}};
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < 2; i++) {
        r = vkm_program_create(t->device, "tune", &racers[i].program, t->err);
        if (!r) r = add_step(d, racers[i].program, 0, i ? list_of(d, 0) : d->same, d->tiles, 0);
        if (!r) r = vkm_program_finish(racers[i].program, t->err);
    }
    if (!r) r = tune_race(t->device, racers, 2, ROUNDS_LEAST, TUNE_RUNS, t->args->budget, t->err);
    if (!r) *ns = fmax(0, (racers[1].seconds - racers[0].seconds) * 1e9 / ((double)vkm_matmul_bytes(&d->w) * (d->tiles - 1)));
    for (uint32_t i = 0; i < 2; i++) vkm_program_destroy(racers[i].program);
    return r;
}

typedef vkm_result time_fn(struct bed *d, double *ns);

static vkm_result measure(struct bed *d, time_fn *timing, double *ns)
{
    struct tune *t = d->t;
    TRY(bench_plan_experts(t->caps, d->type, SIDE, d->cols, vkm_div_up(d->tiles, d->sharing), &d->plan, t->err));
    d->w = d->plan.moe.down;
    TRY(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, (uint64_t)d->words * 4, "workspace", &d->workspace, t->err));
    TRY(bench_weights_create(t->device, &d->plan, 1, 1, d->workspace, &d->weights, t->err));
    TRY(fill(d));
    d->build = (struct vkm_build){.device = t->device, .workspace = d->workspace, .sets = d->weights.sets, .layer = -1, .err = t->err, .inputs = d->inputs, .shape = t->shape, .tuning = d->exact};
    TRY(prepare(d));
    return timing(d, ns);
}

static vkm_result measure_matrices(struct tune *t, const struct vkm_type *type, uint32_t cols, uint32_t tiles, uint32_t sharing, const struct vkm_tuning *exact, time_fn *timing, double *ns)
{
    struct bed d = {.t = t, .type = type, .cols = cols, .exact = exact, .tiles = tiles, .sharing = sharing};
    for (lay_out(&d); (uint64_t)d.words * 4 > t->caps->storage_range && d.tiles > 2; lay_out(&d)) d.tiles /= 2;
    vkm_result r = measure(&d, timing, ns);
    bench_wipe();
    bench_weights_destroy(&d.weights);
    vkm_buffer_destroy(d.workspace);
    bench_plan_destroy(&d.plan);
    return r;
}

static uint32_t tiles_of(const struct tune *t) { return t->caps->type == VKM_TYPE_CPU ? TILES_CPU : TILES; }

/* What narrow and wide matrices take tells what a tile takes for its columns, and what besides. */
static vkm_result measure_form(struct tune *t, const struct vkm_type *type, const struct vkm_tuning *exact, struct vkm_tile_cost tiles[VKM_TILE_CLASSES])
{
    double wide[VKM_TILE_CLASSES] = {0}, narrow[VKM_TILE_CLASSES] = {0};
    TRY(measure_matrices(t, type, SIDE, tiles_of(t), SHARING, exact, time_tiles, wide));
    TRY(measure_matrices(t, type, NARROW, tiles_of(t), SHARING, exact, time_tiles, narrow));
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
        double block = (wide[c] - narrow[c]) / ((SIDE - NARROW) / 32), panel = wide[c] - block * (SIDE / 32);
        if (block <= 0) block = wide[c] / (SIDE / 32), panel = 0;       /* not measured, or noise: no column is free */
        tiles[c] = (struct vkm_tile_cost){block, panel};
    }
    return VKM_OK;
}

/* Where the caps have int8dot, with and without it: it has to be faster to be used. */
static vkm_result measure_type(struct tune *t, const struct vkm_type *type)
{
    size_t i = (size_t)(type - vkm_types);
    struct vkm_tuning keep_away = {.dispatch_ns = 0};
    struct vkm_tile_cost exact[VKM_TILE_CLASSES];
    bench_say("%s", type->name);
    TRY(measure_form(t, type, NULL, t->tuning.tiles[i]));
    if (!has_int8(t, type)) return VKM_OK;
    bench_say("%s without int8dot", type->name);
    keep_away.exact[i] = 1;
    TRY(measure_form(t, type, &keep_away, exact));
    t->tuning.exact[i] = vkm_tuning_prefers_exact(exact, t->tuning.tiles[i]);
    if (t->tuning.exact[i]) memcpy(t->tuning.tiles[i], exact, sizeof exact);
    return VKM_OK;
}

/* What has to do with no type. */
static vkm_result measure_device(struct tune *t)
{
    const struct vkm_type *type = NULL;
    for (size_t i = vkm_type_count; i-- > 0;) if (t->types[i]) type = &vkm_types[i];
    bench_say("dispatches and memory");
    TRY(measure_matrices(t, type, NARROW, tiles_of(t), SHARING, NULL, time_dispatch, &t->tuning.dispatch_ns));
    return measure_matrices(t, bench_type_find("f32", 3), SIDE, FAR, 1, NULL, time_memory, &t->tuning.byte_ns);
}

/* ---------------------------------------------------------------- saying it */

/* Of a tile, for each panel and block, in matrices as wide as the wide one. */
static double cost(const struct tune *t, size_t type, uint32_t c)
{
    const struct vkm_tile_cost *tile = &t->tuning.tiles[type][c];
    return tile->block_ns + tile->panel_ns / (SIDE / 32);
}

static const struct { const char *shape; uint32_t tokens; } examples[] = {{"mixtral-8x7b", 8}, {"olmoe-1b-7b", 64}, {"olmoe-1b-7b", 512}};

void tune_print_tiles(const uint8_t tile_from[VKM_TILE_CLASSES], vkm_text *out)
{
    const char *between = "";
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
        if (tile_from[c] == VKM_TILE_NEVER) continue;
        vkm_textf(out, "%s%u", between, sizes[c]);
        if (tile_from[c] > 1) vkm_textf(out, " from %u", tile_from[c]);
        between = ", ";
    }
}

/* How the experts of that example are cut. */
static void example(const struct tune *t, const struct vkm_type *type, size_t i, uint8_t tile_from[VKM_TILE_CLASSES])
{
    const struct bench_shape *s = bench_shape_find(examples[i].shape, strlen(examples[i].shape));
    struct vkm_weight gate_up = {.type = type, .kb = s->n_embd / 32, .n_panels = s->n_ff / 16}, down = {.type = type, .kb = s->n_ff / 32, .n_panels = s->n_embd / 32};
    const struct vkm_weight *both[] = {&gate_up, &down};
    const struct vkm_build b = {.device = t->device, .shape = t->shape, .tuning = &t->tuning};
    vkm_build_tiles(&b, both, 2, examples[i].tokens, s->n_used, s->n_expert, tile_from);
}

static void print_text(const struct tune *t, const char *path)
{
    printf("Nanoseconds of a tile, for each 32 rows and 32 columns of weights (of %u columns, %u rows); how many times a tile of one row that is\n\n%-6s", SIDE, SIDE, "type");
    for (uint32_t c = 0; c < VKM_TILE_CLASSES && sizes[c] <= vkm_shape_tile_most(&t->shape); c++) printf(c ? "   %8s %2u       " : "  %8s %2u", "tile of", sizes[c]);
    putchar('\n');
    for (size_t i = 0; i < vkm_type_count; i++) {
        if (!t->types[i]) continue;
        printf("%-6s", vkm_types[i].name);
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++)
            if (cost(t, i, c) > 0) printf(c ? "   %11.4g %6.2f" : "  %11.4g", cost(t, i, c), cost(t, i, c) / cost(t, i, 0));
        puts(t->tuning.exact[i] ? "   without int8dot" : "");
    }
    printf("\nA dispatch more: %.3g us; weights from memory: %.3g ns a KiB more\n\nTiles that experts' rows are cut into\n", t->tuning.dispatch_ns * 1e-3, t->tuning.byte_ns * 1024);
    for (size_t i = 0; i < vkm_type_count; i++)
        for (size_t k = 0; t->types[i] && k < VKM_COUNT(examples); k++) {
            uint8_t tile_from[VKM_TILE_CLASSES];
            char tiles[96];
            example(t, &vkm_types[i], k, tile_from);
            tune_print_tiles(tile_from, &(vkm_text){tiles, sizeof tiles, 0});
            printf("  %-6s %-12s %4u tokens: %s\n", vkm_types[i].name, examples[k].shape, examples[k].tokens, tiles);
        }
    if (path) printf("\nKept in %s\n", path);
}

static void print_json(const struct tune *t, const vkm_device_info *device, const char *path)
{
    struct json json = {.out = stdout}, *j = &json;
    json_open(j, NULL, '{', false);
    json_str(j, "version", vkm_version());
    json_str(j, "device", device->name);
    json_str(j, "driver", device->driver);
    json_str(j, "caps", device->caps);
    if (path) json_str(j, "file", path);
    json_real(j, "dispatch_ns", t->tuning.dispatch_ns);
    json_real(j, "byte_ns", t->tuning.byte_ns);
    json_open(j, "types", '[', false);
    for (size_t i = 0; i < vkm_type_count; i++) {
        if (!t->types[i]) continue;
        json_open(j, NULL, '{', false);
        json_str(j, "type", vkm_types[i].variant);
        if (has_int8(t, &vkm_types[i])) json_bool(j, "int8dot", !t->tuning.exact[i]);
        json_open(j, "tiles", '[', false);
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
            if (cost(t, i, c) <= 0) continue;
            json_open(j, NULL, '{', true);
            json_uint(j, "rows", sizes[c]);
            json_real(j, "block_ns", t->tuning.tiles[i][c].block_ns);
            json_real(j, "panel_ns", t->tuning.tiles[i][c].panel_ns);
            json_real(j, "of_one_row", cost(t, i, c) / cost(t, i, 0));
            json_close(j);
        }
        json_close(j);
        json_open(j, "examples", '[', false);
        for (size_t k = 0; k < VKM_COUNT(examples); k++) {
            uint8_t tile_from[VKM_TILE_CLASSES];
            char tiles[96];
            example(t, &vkm_types[i], k, tile_from);
            tune_print_tiles(tile_from, &(vkm_text){tiles, sizeof tiles, 0});
            json_open(j, NULL, '{', true);
            json_str(j, "shape", examples[k].shape);
            json_uint(j, "tokens", examples[k].tokens);
            json_str(j, "tiles", tiles);
            json_close(j);
        }
        json_close(j);
        json_close(j);
    }
    json_close(j);
    json_close(j);
}

/* ---------------------------------------------------------------- the command */

static bool parse_types(const char *list, bool types[VKM_TUNING_TYPES])
{
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        const struct vkm_type *type = bench_type_find(at, n);
        if (!type) {
            char known[256];
            vkm_text text = {known, sizeof known, 0};
            for (size_t i = 0; i < vkm_type_count; i++) vkm_textf(&text, "%s%s", i ? ", " : "", vkm_types[i].variant);
            fail_usage("tune", "type '%.*s': known: %s", (int)n, at, known);
            return false;
        }
        types[type - vkm_types] = true;
        at += n;
        if (!*at) return true;
    }
}

static int measure_all(struct tune *t, const vkm_device_info *device)
{
    char path[4096];
    vkm_result r = measure_device(t);
    for (size_t i = 0; !r && i < vkm_type_count; i++)
        if (t->types[i]) r = measure_type(t, &vkm_types[i]);
    if (!r && t->folder) r = vkm_tuning_save(t->folder, &t->key, &t->tuning, t->err);
    if (r) return fail_error(t->err);
    if (t->folder) vkm_tuning_path(t->folder, &t->key, path, sizeof path);
    if (t->args->json) print_json(t, device, t->folder ? path : NULL);
    else               print_text(t, t->folder ? path : NULL);
    return STATUS_OK;
}

int tune_command(const struct args *args)
{
    struct tune t = {.args = args};
    struct engine e = {0};
    vkm_error err = {0};
    char cache[4096], folder[4096];
    const char *why = NULL;
    for (size_t i = 0; !args->type && i < vkm_type_count; i++) t.types[i] = true;
    if (args->type && !parse_types(args->type, t.types)) return STATUS_USAGE;
    if (args->check && args->no_cache) return fail_usage("tune", "--check is of what was kept, --no-cache looks for nothing");
    t.err = &err;
    t.folder = args->no_cache ? NULL : cache_folder(folder, sizeof folder);
    if (!t.folder && !args->no_cache) return fail("there is no place to keep a tuning: neither $XDG_CACHE_HOME nor $HOME is set");
    bench_verbose(args->verbose);
    int status = engine_device(args, args->no_cache ? NULL : cache_path(cache, sizeof cache), &e);
    if (status == STATUS_OK) {
        t.device = e.device;
        t.caps = vkm_device_caps(e.device);
        vkm_shape_choose(t.caps, &t.shape);
        t.key = vkm_tuning_key_of(t.caps, &t.shape);
        bool known = t.folder && vkm_tuning_load(t.folder, &t.key, &t.tuning, &why);
        if (!args->check) status = measure_all(&t, &e.device_info);
        else if (known)   status = tune_check(&t);
        else              status = fail("this device is not tuned%s%s: `vkmoe tune` does that", why ? ", its file is not used: " : "", why ? why : "");
    }
    return engine_close(&e, status);
}
