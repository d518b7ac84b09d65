/* vkmoe bench roofline: what this device can do at most, measured now: bandwidth, arithmetic, and the cost of a dispatch, a barrier, a submission.
 * Every ceiling is tried in several shapes, and the best one counts. Results are checked: a kernel whose work a compiler dropped would give a wrong sum. */
#include "bench_device.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define MIB (1ull << 20)
#define READ_BYTES (1ull << 30)                    /* more than any cache in front of device memory */
#define READ_BYTES_CPU (256 * MIB)
#define SLAB_BYTES (256 * MIB)
#define WORKGROUP_BYTES 8192                       /* of a slab, at least: of every shape of bench_read, and of bench_fill */
_Static_assert(SLAB_BYTES / WORKGROUP_BYTES <= 65535, "workgroups that Vulkan promises in a dimension; Intel's drivers, Adreno's and SwiftShader have no more");
#define SLABS_MAX 64
#define KV_MAX VKM_STEP_RANGES                     /* a copy declares each of them */
#define CACHED_BYTES (2 * MIB)                     /* fits the last cache of GPUs that have one worth the name */
#define CACHED_BYTES_CPU (MIB / 4)                 /* a core's own */
#define CACHED_PASSES 128
#define DISPATCHES 1000
#define DISPATCHES_CPU 300

struct roof {
    const struct bench_options *o;
    vkm_device *device;
    const struct vkm_caps *caps;
    struct bench_report *report;
    vkm_error *err;
    uint64_t slab_bytes, workspace_bytes;
    uint32_t n_slabs, n_kv;
    vkm_buffer *slabs[SLABS_MAX], *kv[KV_MAX], *workspace, *tables, *readback;
    vkm_bindings *bindings, *kv_bindings;          /* kv_bindings: the KV buffers as slabs, to read again what was copied */
};

/* ---------------------------------------------------------------- buffers */

static uint32_t first_word(uint32_t slab) { return slab * 0x51ed270bu; }

/* The sum of a slab's words as bench_fill.comp writes them, modulo 2^32. */
static uint32_t slab_sum(uint32_t slab, uint64_t words)
{
    uint64_t pairs = words % 2 ? words * ((words - 1) / 2) : words / 2 * (words - 1);
    return first_word(slab) * (uint32_t)words + 0x9e3779b1u * (uint32_t)pairs;
}

static vkm_result one_step(struct roof *f, const vkm_bindings *bindings, const char *kernel, const char *variant, const uint32_t *spec, uint32_t n_spec, struct vkm_step *step, vkm_program **program)
{
    step->bindings = bindings;
    TRY(vkm_kernel_get(f->device, kernel, variant, spec, n_spec, &step->kernel, f->err));
    TRY(vkm_program_create(f->device, kernel, program, f->err));
    vkm_result r = vkm_program_add(*program, step, f->err);
    if (!r) r = vkm_program_finish(*program, f->err);
    if (r) vkm_program_destroy(*program), *program = NULL;
    return r;
}

static vkm_result fill(struct roof *f, uint32_t slab)
{
    vkm_bindings *as_workspace = NULL;
    vkm_program *program = NULL;
    uint32_t lanes = WORKGROUP_BYTES / 64, n4 = (uint32_t)(f->slab_bytes / 16);
    const uint32_t spec[] = {lanes, 1};
    struct vkm_push_bench_fill push = {.n4 = n4, .first = first_word(slab)};
    struct vkm_step step = {.groups = {vkm_div_up(n4, lanes * 4), 1, 1}, .bytes = f->slab_bytes, .n_writes = 1, .writes = {{NULL, 0, f->slab_bytes}}};
    VKM_STEP_PUSH(step, push);
    TRY(vkm_bindings_create(f->device, f->slabs[slab], f->tables, NULL, 0, NULL, 0, &as_workspace, f->err));
    vkm_result r = one_step(f, as_workspace, "bench_fill", "", spec, 2, &step, &program);
    if (!r) r = bench_run_once(f->device, program, f->err);
    vkm_program_destroy(program);
    vkm_bindings_destroy(as_workspace);
    return r;
}

static uint64_t cached_bytes(const struct roof *f)
{
    uint64_t n = f->caps->type == VKM_TYPE_CPU ? CACHED_BYTES_CPU : CACHED_BYTES;
    return n < f->slab_bytes ? n : CACHED_BYTES_CPU;
}

/* As much memory as defeats caches, but no more than a quarter of what is free for reading and an eighth for what is written. */
static vkm_result create_buffers(struct roof *f)
{
    uint64_t total = f->caps->type == VKM_TYPE_CPU ? READ_BYTES_CPU : READ_BYTES, free_quarter = vkm_device_budget(f->device) / 4;
    if (total > free_quarter) total = free_quarter;
    f->slab_bytes = (f->caps->storage_range < SLAB_BYTES ? f->caps->storage_range : SLAB_BYTES) / MIB * MIB;
    if (f->slab_bytes > total / MIB * MIB) f->slab_bytes = total / MIB * MIB;
    if (!f->slab_bytes) return vkm_fail(f->err, VKM_ERR_LIMIT, "bench roofline needs buffers of 1 MiB: the storage range is %llu bytes, %llu are free", (unsigned long long)f->caps->storage_range, (unsigned long long)free_quarter * 4);
    uint64_t n = total / f->slab_bytes;
    if (n > f->caps->slabs) n = f->caps->slabs;
    if (n > SLABS_MAX) n = SLABS_MAX;
    uint32_t most_kv = (uint32_t)(n < 2 ? 1 : n / 2);
    if (most_kv > f->caps->kv_slabs) most_kv = f->caps->kv_slabs;
    if (most_kv > KV_MAX) most_kv = KV_MAX;
    f->workspace_bytes = n * f->slab_bytes / 64;   /* a word for 256 bytes read, the most that any shape stores */
    if (f->workspace_bytes < CACHED_PASSES * cached_bytes(f) / 64) f->workspace_bytes = CACHED_PASSES * cached_bytes(f) / 64;
    TRY(vkm_buffer_create(f->device, VKM_BUFFER_DEVICE, f->workspace_bytes, "workspace", &f->workspace, f->err));
    TRY(vkm_buffer_create(f->device, VKM_BUFFER_READBACK, f->workspace_bytes, "readback", &f->readback, f->err));
    TRY(vkm_buffer_create(f->device, VKM_BUFFER_DEVICE, 4096, "tables", &f->tables, f->err));
    for (; f->n_slabs < n; f->n_slabs++) {
        TRY(vkm_buffer_create(f->device, VKM_BUFFER_DEVICE, f->slab_bytes, "slab", &f->slabs[f->n_slabs], f->err));
        TRY(fill(f, f->n_slabs));
    }
    for (; f->n_kv < most_kv; f->n_kv++) TRY(vkm_buffer_create(f->device, VKM_BUFFER_DEVICE, f->slab_bytes, "copy", &f->kv[f->n_kv], f->err));
    const uint64_t address = vkm_buffer_address(f->slabs[0]);                                   /* for bench_read_cpu */
    TRY(vkm_upload_all(f->device, f->tables, 0, &address, sizeof address, f->err));
    TRY(vkm_bindings_create(f->device, f->workspace, f->tables, f->slabs, f->n_slabs, f->kv, f->n_kv, &f->bindings, f->err));
    return vkm_bindings_create(f->device, f->workspace, f->tables, f->kv, f->n_kv, NULL, 0, &f->kv_bindings, f->err);
}

static void destroy_buffers(struct roof *f)
{
    vkm_bindings_destroy(f->bindings);
    vkm_bindings_destroy(f->kv_bindings);
    for (uint32_t i = 0; i < f->n_slabs; i++) vkm_buffer_destroy(f->slabs[i]);
    for (uint32_t i = 0; i < f->n_kv; i++) vkm_buffer_destroy(f->kv[i]);
    vkm_buffer_destroy(f->workspace);
    vkm_buffer_destroy(f->readback);
    vkm_buffer_destroy(f->tables);
}

/* The first `words` of the workspace, on the host. */
static vkm_result read_words(struct roof *f, uint64_t words, const uint32_t **at)
{
    vkm_program *program;
    TRY(vkm_program_create(f->device, "readback", &program, f->err));
    vkm_result r = vkm_program_copy(program, f->workspace, 0, f->readback, 0, words * 4, f->err);
    if (!r) r = vkm_program_finish(program, f->err);
    if (!r) r = bench_run_once(f->device, program, f->err);
    if (!r) r = vkm_buffer_invalidate(f->readback, 0, words * 4, f->err);
    vkm_program_destroy(program);
    *at = vkm_buffer_map(f->readback);
    return r;
}

/* ---------------------------------------------------------------- the best of several shapes */

/* What fails like this fails in the next shape too. */
static bool fatal(vkm_result r) { return r == VKM_ERR_DEVICE_LOST || r == VKM_ERR_CANCELLED || r == VKM_ERR_HOST_MEMORY; }

/* A ceiling: shapes, each made into a program that does `work` (bytes or operations), and a check of what the program left behind. */
struct ceiling {
    const char *key, *unit;                        /* "kind=read", "GB/s" */
    uint32_t n_shapes;
    vkm_result (*build)(struct roof *f, const void *user, uint32_t shape, vkm_program **program, double *work);
    vkm_result (*check)(struct roof *f, const void *user, uint32_t shape, bool *right);
    void (*describe)(const struct roof *f, const void *user, uint32_t shape, vkm_text *text);
    const void *user;
};

/* Seconds of a run by the clock to believe: the least of a few, or of one that is far from the best so far. */
static vkm_result probe(struct roof *f, vkm_program *program, double best, double *least)
{
    bool by_gpu = f->caps->type != VKM_TYPE_CPU && f->caps->timestamp_bits && vkm_program_step_count(program);
    TRY(bench_run_once(f->device, program, f->err));
    *least = INFINITY;
    for (int i = 0; i < 3 && (i == 0 || *least < 2 * best); i++) {
        double start = seconds();
        TRY(by_gpu ? vkm_program_profile(program, f->err) : bench_run_once(f->device, program, f->err));
        double took = seconds() - start;
        if (by_gpu) {
            took = 0;
            for (uint32_t k = 0; k < vkm_program_step_count(program); k++) took += (double)vkm_program_step_ns(program, k) * 1e-9;
        }
        *least = fmin(*least, took);
        if (interrupted()) return vkm_fail(f->err, VKM_ERR_CANCELLED, "interrupted");
    }
    return VKM_OK;
}

/* Adds the row, if only to say what is wrong. A shape that the device refuses is no candidate. */
static vkm_result measure(struct roof *f, const struct ceiling *c)
{
    uint32_t best = UINT32_MAX, tried = 0;
    double best_rate = 0, work = 0;
    struct bench_times times;
    vkm_program *program = NULL;
    bench_say("%s", c->key);
    for (uint32_t i = 0; i < c->n_shapes && !(f->o->most_shapes && i >= f->o->most_shapes); i++) {
        double least = 0;
        vkm_result r = c->build(f, c->user, i, &program, &work);
        if (!r) {
            r = probe(f, program, best == UINT32_MAX ? INFINITY : work / best_rate, &least);
            vkm_program_destroy(program);
        }
        if (fatal(r)) return r;
        if (r) continue;
        tried++;
        if (work / least > best_rate) best = i, best_rate = work / least;
    }
    if (best == UINT32_MAX) {
        bench_invalid(bench_row_add(f->report, "roofline", "%s", c->key), "rate", c->unit, "no kernel ran");
        bench_note(f->report, c->key, "no kernel ran: %s", f->err->message);
        return VKM_OK;
    }
    bool right = false;
    TRY(c->build(f, c->user, best, &program, &work));
    vkm_result r = bench_time_program(f->device, program, &f->o->policy, NULL, NULL, &times, f->err);
    vkm_program_destroy(program);
    if (r) return r;
    TRY(c->check(f, c->user, best, &right));
    struct bench_row *row = bench_row_add(f->report, "roofline", "%s", c->key);
    if (right) bench_rate(row, "rate", c->unit, work * 1e-9, bench_trusted(f->device, &times));
    else       bench_invalid(row, "rate", c->unit, "wrong result");
    if (right && times.gpu.n) bench_rate(row, "by GPU clock", c->unit, work * 1e-9, &times.gpu);
    if (right) bench_rate(row, "by wall clock", c->unit, work * 1e-9, &times.wall);
    bench_count(row, "shapes", "tried", tried, 0);
    char text[200];
    vkm_text t = {text, sizeof text, 0};
    c->describe(f, c->user, best, &t);
    bench_note(f->report, c->key, "best of %u shapes: %s", tried, text);
    return VKM_OK;
}

/* ---------------------------------------------------------------- bandwidth */

/* A lane takes `each` times 16 bytes. All sizes are powers of two, and a workgroup's part divides a slab. streams: by bench_read_cpu, so many runs of memory at once, in a subgroup of whatever size; else 0. */
static const struct access { uint32_t lanes, each; bool chunked; uint32_t streams; } accesses[] = {
    {0, 64, false, 1}, {0, 256, false, 4}, {0, 1024, false, 1}, {0, 1024, false, 4},
    {8, 64, true, 0}, {8, 1024, true, 0}, {32, 256, true, 0}, {64, 64, true, 0}, {8, 256, false, 0}, {64, 16, false, 0}, {64, 64, false, 0}, {128, 16, false, 0}, {256, 16, false, 0}, {256, 64, false, 0},
};
#define STREAMED 4u                                /* which come first */
enum transfer { READ, READ_CACHED, COPY };

/* What is read at once: all slabs; one where kernels are written for a CPU driver (texel buffers are of one; and by device address lavapipe 22.3 read another part of the second slab in a third of its
 * workgroups, which is not explained; 26.2.6 does not); or a small part of one over and over. */
static uint32_t slabs_of(const struct roof *f, enum transfer kind) { return kind == READ && !f->caps->texel_loads && !f->caps->scalar_loads ? f->n_slabs : kind == COPY ? f->n_kv : 1; }
static const char *reader(const struct roof *f, const struct access *a, uint32_t n_slabs) { return a->streams ? "bench_read_cpu" : n_slabs == 1 && f->caps->texel_loads ? "bench_read_texel" : "bench_read"; }
static uint32_t first_shape(const struct roof *f, enum transfer kind) { return kind != COPY && f->caps->scalar_loads ? 0 : STREAMED; }
static uint32_t shapes_of(const struct roof *f, enum transfer kind) { return VKM_COUNT(accesses) - first_shape(f, kind); }

static struct access access_of(const struct roof *f, enum transfer kind, uint32_t shape)
{
    struct access a = accesses[first_shape(f, kind) + shape];
    if (a.streams) a.lanes = f->caps->subgroup_size;
    return a;
}

/* Bytes that a run reads: what is there, or the cached part in so many passes. */
static uint64_t bytes_of(const struct roof *f, enum transfer kind) { return kind == READ_CACHED ? CACHED_PASSES * cached_bytes(f) : f->slab_bytes * slabs_of(f, kind); }

static vkm_result access_step(struct roof *f, enum transfer kind, const struct access *a, struct vkm_step *step)
{
    uint64_t part = (uint64_t)a->lanes * a->each * 16;
    uint32_t groups = (uint32_t)(bytes_of(f, kind) / slabs_of(f, kind) / part);
    struct vkm_push_bench_read push = {.each = a->each, .parts = kind == READ_CACHED ? (uint32_t)(cached_bytes(f) / part) : groups};
    if (!push.parts) return vkm_fail(f->err, VKM_ERR_LIMIT, "a workgroup would read more than there is");
    *step = (struct vkm_step){.groups = {groups, slabs_of(f, kind), 1}, .bytes = (kind == COPY ? 2 : 1) * bytes_of(f, kind)};
    VKM_STEP_PUSH(*step, push);
    if (kind != COPY) step->writes[step->n_writes++] = (struct vkm_range){NULL, 0, (uint64_t)groups * slabs_of(f, kind) * a->lanes * 4};
    for (uint32_t i = 0; kind == COPY && i < f->n_kv; i++) step->writes[step->n_writes++] = (struct vkm_range){f->kv[i], 0, f->slab_bytes};
    return VKM_OK;
}

static vkm_result access_kernel(struct roof *f, const vkm_bindings *bindings, const char *kernel, const struct access *a, struct vkm_step *step, vkm_program **program)
{
    const uint32_t spec[] = {a->lanes, 1, a->streams ? a->lanes : a->chunked, a->streams};
    return one_step(f, bindings, kernel, "", spec, a->streams ? 4 : 3, step, program);
}

/* One shape more than there are: the driver's own copy. */
static vkm_result build_copy_command(struct roof *f, vkm_program **program)
{
    TRY(vkm_program_create(f->device, "copy", program, f->err));
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < f->n_kv; i++) r = vkm_program_copy(*program, f->slabs[i], 0, f->kv[i], 0, f->slab_bytes, f->err);
    if (!r) r = vkm_program_finish(*program, f->err);
    if (r) vkm_program_destroy(*program), *program = NULL;
    return r;
}

static vkm_result build_access(struct roof *f, const void *user, uint32_t shape, vkm_program **program, double *work)
{
    enum transfer kind = *(const enum transfer *)user;
    *work = (double)(bytes_of(f, kind) * (kind == COPY ? 2 : 1));
    if (shape == shapes_of(f, kind)) return build_copy_command(f, program);
    const struct access a = access_of(f, kind, shape);
    struct vkm_step step;
    TRY(access_step(f, kind, &a, &step));
    return access_kernel(f, f->bindings, kind == COPY ? "bench_copy" : reader(f, &a, slabs_of(f, kind)), &a, &step, program);
}

/* Reads through `bindings` and compares the sum. */
static vkm_result check_sum(struct roof *f, const vkm_bindings *bindings, enum transfer kind, uint32_t n_slabs, const struct access *a, bool *right)
{
    const uint32_t *words;
    struct vkm_step step;
    vkm_program *program;
    TRY(access_step(f, kind, a, &step));
    step.groups[1] = n_slabs;
    uint64_t n = (uint64_t)step.groups[0] * n_slabs * a->lanes;
    step.writes[0].end = n * 4;
    TRY(access_kernel(f, bindings, reader(f, a, n_slabs), a, &step, &program));
    vkm_result r = bench_run_once(f->device, program, f->err);
    vkm_program_destroy(program);
    if (r) return r;
    TRY(read_words(f, n, &words));
    uint32_t sum = 0, expected = 0;
    for (uint64_t i = 0; i < n; i++) sum += words[i];
    if (kind == READ_CACHED) expected = slab_sum(0, cached_bytes(f) / 4) * CACHED_PASSES;
    else for (uint32_t i = 0; i < n_slabs; i++) expected += slab_sum(i, f->slab_bytes / 4);
    *right = sum == expected;
    return VKM_OK;
}

static vkm_result check_access(struct roof *f, const void *user, uint32_t shape, bool *right)
{
    enum transfer kind = *(const enum transfer *)user;
    const struct access a = access_of(f, kind, shape < shapes_of(f, kind) ? shape : 0);
    return kind == COPY ? check_sum(f, f->kv_bindings, READ, f->n_kv, &a, right) : check_sum(f, f->bindings, kind, slabs_of(f, kind), &a, right);
}

static void describe_access(const struct roof *f, const void *user, uint32_t shape, vkm_text *text)
{
    enum transfer kind = *(const enum transfer *)user;
    uint64_t bytes = kind == READ_CACHED ? cached_bytes(f) : f->slab_bytes * slabs_of(f, kind);
    if (shape == shapes_of(f, kind)) vkm_textf(text, "the driver's copy command");
    else {
        const struct access a = access_of(f, kind, shape);
        vkm_textf(text, "%u lanes, each %u x 16 bytes, ", a.lanes, a.each);
        if (a.streams) vkm_textf(text, "by device address, %u at once", a.streams);
        else           vkm_textf(text, "%s", a.chunked ? "a lane's next to each other" : "interleaved");
    }
    vkm_textf(text, "; %.4g MiB", (double)bytes / MIB);
}

static vkm_result measure_transfer(struct roof *f, enum transfer kind)
{
    static const struct { const char *key; } names[] = {[READ] = {BENCH_CEILING_READ}, [READ_CACHED] = {BENCH_CEILING_CACHED}, [COPY] = {BENCH_CEILING_COPY}};
    const struct ceiling c = {.key = names[kind].key, .unit = "GB/s", .n_shapes = shapes_of(f, kind) + (kind == COPY), .build = build_access, .check = check_access,
                              .describe = describe_access, .user = &kind};
    return measure(f, &c);
}

/* ---------------------------------------------------------------- arithmetic */

static bool always(const struct vkm_caps *caps) { (void)caps; return true; }
static bool has_fp16(const struct vkm_caps *caps) { return caps->fp16; }
static bool has_int8dot(const struct vkm_caps *caps) { return caps->int8dot; }

/* bench_fma.comp: after an even number of rounds each accumulator is what it began with. */
static double fma_sum(uint32_t lane, uint32_t accumulators, uint32_t iterations)
{
    double sum = 0;
    (void)iterations;
    for (uint32_t j = 0; j < accumulators * 4; j++) sum += (double)((lane * 7 + j * 13) & 255) / 256;
    return sum;
}

/* bench_dot.comp, likewise. */
static double dot_sum(uint32_t lane, uint32_t accumulators, uint32_t iterations)
{
    double sum = 0;
    (void)iterations;
    for (uint32_t j = 0; j < accumulators * 4; j++) sum += (lane * 7 + j * 13) & 63;
    return sum;
}

/* One row a kind of arithmetic. The kernel takes vkm_push_bench_alu and the constants {lanes, 1, accumulators, fused} and stores a float a lane. */
static const struct alu {
    const char *key, *unit, *kernel, *variant;
    bool (*able)(const struct vkm_caps *caps);
    const char *missing;                           /* what the device lacks where it is not able */
    uint32_t per_lane;                             /* operations of a lane in an iteration for each accumulator */
    bool fused;                                    /* try both values of the constant FUSED */
    double (*stored)(uint32_t lane, uint32_t accumulators, uint32_t iterations);
    enum vkm_tier tier;                            /* whose kernels it bounds */
} alus[] = {
    {BENCH_CEILING_F32,  "GFLOP/s", "bench_fma", "f32", always,      NULL,                                       8 * 4 * 2, true,  fma_sum, VKM_TIER_BASELINE},
    {BENCH_CEILING_F16,  "GFLOP/s", "bench_fma", "f16", has_fp16,    "no 16-bit floats, or clamped away",        8 * 4 * 2, true,  fma_sum, VKM_TIER_FP16},
    {BENCH_CEILING_INT8, "GOP/s",   "bench_dot", "",    has_int8dot, "no integer dot product, or clamped away",  8 * 4 * 8, false, dot_sum, VKM_TIER_INT8DOT},
};

static const struct { uint32_t lanes, accumulators; } alu_shapes[] = {{8, 2}, {8, 3}, {8, 4}, {64, 2}, {64, 3}, {64, 4}, {128, 4}, {256, 2}, {256, 4}, {256, 8}};
#define ALU_SHAPES (uint32_t)VKM_COUNT(alu_shapes)
#define ALU_ITERATIONS_MAX 16384u                  /* below the loops that an old lavapipe stops (host/caps.c) */

static uint32_t alu_lanes(const struct roof *f)
{
    uint32_t lanes = f->caps->type == VKM_TYPE_CPU ? 1u << 12 : 1u << 20;
    return lanes * 4 <= f->workspace_bytes ? lanes : (uint32_t)(f->workspace_bytes / 4 / 256 * 256);
}

static vkm_result build_alu_of(struct roof *f, const void *user, uint32_t shape, uint32_t iterations, vkm_program **program, double *work)
{
    const struct alu *alu = user;
    uint32_t lanes = alu_shapes[shape % ALU_SHAPES].lanes, accumulators = alu_shapes[shape % ALU_SHAPES].accumulators, all = alu_lanes(f);
    const uint32_t spec[] = {lanes, 1, accumulators, shape / ALU_SHAPES};
    struct vkm_push_bench_alu push = {.n = iterations, .a = -1, .b = 1};
    struct vkm_step step = {.groups = {all / lanes, 1, 1}, .n_writes = 1, .writes = {{NULL, 0, (uint64_t)all * 4}}, .flops = (uint64_t)all * iterations * alu->per_lane * accumulators};
    VKM_STEP_PUSH(step, push);
    *work = (double)step.flops;
    return one_step(f, f->bindings, alu->kernel, alu->variant, spec, 4, &step, program);
}

/* A program of so many iterations. */
typedef vkm_result (*build_iterations)(struct roof *f, const void *user, uint32_t shape, uint32_t iterations, vkm_program **program, double *work);

/* So many iterations that a run takes a hundredth of a second. */
static vkm_result build_long_enough(struct roof *f, build_iterations build, const void *user, uint32_t shape, vkm_program **program, double *work)
{
    uint32_t iterations = 16;
    for (int i = 0; i < 3; i++) {
        TRY(build(f, user, shape, iterations, program, work));
        vkm_result r = bench_run_once(f->device, *program, f->err);
        double start = seconds();
        if (!r) r = bench_run_once(f->device, *program, f->err);
        double took = seconds() - start, more = 0.01 / fmax(took, 1e-6);
        if (r || more < 1.5 || iterations == ALU_ITERATIONS_MAX) {
            if (r) vkm_program_destroy(*program);
            return r;
        }
        vkm_program_destroy(*program);
        iterations = (uint32_t)fmin(ALU_ITERATIONS_MAX, iterations * fmin(more, 64));
    }
    return build(f, user, shape, iterations, program, work);
}

static vkm_result build_alu(struct roof *f, const void *user, uint32_t shape, vkm_program **program, double *work)
{
    return build_long_enough(f, build_alu_of, user, shape, program, work);
}

static vkm_result check_alu(struct roof *f, const void *user, uint32_t shape, bool *right)
{
    const struct alu *alu = user;
    const uint32_t *words, iterations = 16, all = alu_lanes(f);
    vkm_program *program;
    double work;
    TRY(build_alu_of(f, alu, shape, iterations, &program, &work));
    vkm_result r = bench_run_once(f->device, program, f->err);
    vkm_program_destroy(program);
    if (r) return r;
    TRY(read_words(f, all, &words));
    *right = true;
    for (uint32_t lane = 0; lane < all; lane++) {
        float stored;
        memcpy(&stored, &words[lane], 4);
        *right &= (double)stored == alu->stored(lane, alu_shapes[shape % ALU_SHAPES].accumulators, iterations);
    }
    return VKM_OK;
}

static void describe_alu(const struct roof *f, const void *user, uint32_t shape, vkm_text *text)
{
    (void)f;
    const struct alu *alu = user;
    vkm_textf(text, "%u lanes, %u accumulators", alu_shapes[shape % ALU_SHAPES].lanes, 4 * alu_shapes[shape % ALU_SHAPES].accumulators);
    if (alu->fused) vkm_textf(text, ", %s", shape / ALU_SHAPES ? "fma()" : "a product and a sum");
}

static vkm_result measure_alu(struct roof *f, const struct alu *alu)
{
    if (!alu->able(f->caps)) {
        bench_invalid(bench_row_add(f->report, "roofline", "%s", alu->key), "rate", alu->unit, alu->missing);
        return VKM_OK;
    }
    const struct ceiling c = {.key = alu->key, .unit = alu->unit, .n_shapes = ALU_SHAPES * (alu->fused ? 2 : 1), .build = build_alu, .check = check_alu, .describe = describe_alu, .user = alu};
    return measure(f, &c);
}

/* ---------------------------------------------------------------- cooperative matrices */

static const struct { uint32_t subgroups, accumulators; } matrix_shapes[] = {{1, 2}, {1, 4}, {1, 8}, {4, 2}, {4, 4}, {4, 8}, {8, 4}};

/* Workgroups: as many lanes as other arithmetic has, if the workspace holds a matrix a subgroup. */
static uint32_t matrix_groups(const struct roof *f, const struct vkm_matrix *m, uint32_t subgroups)
{
    uint64_t all = alu_lanes(f) / f->caps->matrix_lanes, room = f->workspace_bytes / ((uint64_t)m->m * m->n * 4);
    return (uint32_t)((all < room ? all : room) / subgroups);
}

static vkm_result build_matrix_of(struct roof *f, const void *user, uint32_t shape, uint32_t iterations, vkm_program **program, double *work)
{
    const struct vkm_matrix *m = user;
    uint32_t subgroups = matrix_shapes[shape].subgroups, accumulators = matrix_shapes[shape].accumulators, groups = matrix_groups(f, m, subgroups);
    const uint32_t spec[] = {subgroups * f->caps->matrix_lanes, 1, accumulators, m->m, m->n, m->k, subgroups};
    struct vkm_push_bench_alu push = {.n = iterations, .a = m->type[0] == 'u' ? 1 : -1, .b = 1};
    struct vkm_step step = {.groups = {groups, 1, 1}, .n_writes = 1, .writes = {{NULL, 0, (uint64_t)groups * subgroups * m->m * m->n * 4}},
                            .flops = (uint64_t)groups * subgroups * iterations * accumulators * 8 * 2 * m->m * m->n * m->k};
    char variant[16];
    snprintf(variant, sizeof variant, "%s_%s", m->type, m->to);
    VKM_STEP_PUSH(step, push);
    *work = (double)step.flops;
    if (!groups) return vkm_fail(f->err, VKM_ERR_LIMIT, "the workspace is too small");
    return one_step(f, f->bindings, "bench_matrix", variant, spec, VKM_COUNT(spec), &step, program);
}

static vkm_result build_matrix(struct roof *f, const void *user, uint32_t shape, vkm_program **program, double *work)
{
    return build_long_enough(f, build_matrix_of, user, shape, program, work);
}

/* Every accumulator j began with j, and one round with a is left over; unsigned ones grew by K in each round. */
static vkm_result check_matrix(struct roof *f, const void *user, uint32_t shape, bool *right)
{
    const struct vkm_matrix *m = user;
    uint32_t iterations = 16, accumulators = matrix_shapes[shape].accumulators, n = matrix_groups(f, m, matrix_shapes[shape].subgroups) * matrix_shapes[shape].subgroups * m->m * m->n;
    double work, expected = accumulators * (accumulators - 1) / 2.0 + (double)accumulators * m->k * (m->type[0] == 'u' ? 8.0 * iterations + 1 : -1.0);
    const uint32_t *words;
    vkm_program *program;
    TRY(build_matrix_of(f, m, shape, iterations, &program, &work));
    vkm_result r = bench_run_once(f->device, program, f->err);
    vkm_program_destroy(program);
    if (r) return r;
    TRY(read_words(f, n, &words));
    *right = true;
    for (uint32_t i = 0; i < n; i++) {
        float stored;
        memcpy(&stored, &words[i], 4);
        *right &= (double)stored == expected;
    }
    return VKM_OK;
}

static void describe_matrix(const struct roof *f, const void *user, uint32_t shape, vkm_text *text)
{
    (void)f, (void)user;
    vkm_textf(text, "%u subgroups a workgroup, %u accumulators each", matrix_shapes[shape].subgroups, matrix_shapes[shape].accumulators);
}

static void matrix_key(const struct vkm_matrix *m, char key[80]) { snprintf(key, 80, BENCH_CEILING_MATRIX, m->type, m->to, m->m, m->n, m->k); }

static vkm_result measure_matrix(struct roof *f, const struct vkm_matrix *m)
{
    char key[80];
    matrix_key(m, key);
    const struct ceiling c = {.key = key, .unit = m->type[0] == 'f' ? "GFLOP/s" : "GOP/s", .n_shapes = VKM_COUNT(matrix_shapes), .build = build_matrix, .check = check_matrix,
                              .describe = describe_matrix, .user = m};
    if (m->type[0] == 'f' || f->caps->int8) return measure(f, &c);
    bench_invalid(bench_row_add(f->report, "roofline", "%s", key), "rate", c.unit, "no 8-bit integers in shaders");
    return VKM_OK;
}

/* ---------------------------------------------------------------- dispatches, barriers, submissions */

struct empty { vkm_device *device; vkm_program *program; };
static vkm_result run_empty(void *user, double *gpu_seconds, vkm_error *err)
{
    struct empty *e = user;
    *gpu_seconds = NAN;
    return bench_run_once(e->device, e->program, err);
}

/* From submit to the end of the wait: n dispatches of one workgroup that writes nothing, with a barrier before each where all are said to write the same word. */
static vkm_result time_empty(struct roof *f, uint32_t n, bool barriers, struct bench_stat *wall)
{
    const uint32_t spec[] = {1, 1};
    struct vkm_step step = {.bindings = f->bindings, .groups = {1, 1, 1}, .push_bytes = 12, .n_writes = barriers, .writes = {{NULL, 0, 4}}};
    struct bench_stat gpu;
    struct empty e = {.device = f->device};
    TRY(vkm_kernel_get(f->device, "fill", "", spec, 2, &step.kernel, f->err));
    TRY(vkm_program_create(f->device, "empty", &e.program, f->err));
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < n; i++) r = vkm_program_add(e.program, &step, f->err);
    if (!r) r = vkm_program_finish(e.program, f->err);
    if (!r) r = bench_measure(&f->o->policy, run_empty, &e, wall, &gpu, f->err);
    vkm_program_destroy(e.program);
    return r;
}

static vkm_result measure_costs(struct roof *f)
{
    struct bench_stat submission, dispatch, drained;
    uint32_t n = f->caps->type == VKM_TYPE_CPU ? DISPATCHES_CPU : DISPATCHES;
    bench_say("cost of submissions, dispatches, barriers");
    TRY(time_empty(f, 1, false, &submission));
    TRY(time_empty(f, n, false, &dispatch));
    TRY(time_empty(f, n, true, &drained));
    bench_stat_divide(&dispatch, n);
    bench_stat_divide(&drained, n);
    bench_time(bench_row_add(f->report, "roofline", "kind=submission"), "time", &submission);
    bench_note(f->report, "kind=submission", "submit to end of wait, one empty dispatch");
    bench_time(bench_row_add(f->report, "roofline", "kind=dispatch"), "time", &dispatch);
    bench_note(f->report, "kind=dispatch", "a %uth of a submission of %u empty dispatches without barriers", n, n);
    struct bench_row *row = bench_row_add(f->report, "roofline", "kind=dispatch+barrier");
    bench_time(row, "time", &drained);
    if (drained.median > dispatch.median) bench_count(row, "drain", "us", (drained.median - dispatch.median) * 1e6, -1);
    bench_note(f->report, "kind=dispatch+barrier", "the same with a barrier before each; drain: what the barrier adds");
    return VKM_OK;
}

/* ---------------------------------------------------------------- the subcommand */

/* Of the tile that matmuls take. */
static double matrix_rate(const struct bench_report *report, const struct vkm_caps *caps, const char *figure)
{
    char key[80];
    if (!(caps->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT))) return NAN;
    matrix_key(&caps->matrix, key);
    return bench_find(report, "roofline", key, figure);
}

double bench_arithmetic(const struct bench_report *report, const char *figure)
{
    double most = matrix_rate(report, &report->caps, figure);
    for (size_t i = 0; i < VKM_COUNT(alus); i++)
        if (report->caps.tiers & VKM_TIER_BIT(alus[i].tier)) most = fmax(most, bench_find(report, "roofline", alus[i].key, figure));    /* fmax leaves out NAN */
    return most;
}

/* needed: only what shares refer to, and only what the report does not have yet. */
static vkm_result measure_all(struct roof *f, bool needed)
{
    struct { const char *key; enum transfer kind; bool needed; } transfers[] = {{BENCH_CEILING_READ, READ, true}, {BENCH_CEILING_CACHED, READ_CACHED, true}, {BENCH_CEILING_COPY, COPY, false}};
    for (size_t i = 0; i < VKM_COUNT(transfers); i++)
        if (!needed || (transfers[i].needed && isnan(bench_find(f->report, "roofline", transfers[i].key, "rate")))) TRY(measure_transfer(f, transfers[i].kind));
    for (size_t i = 0; i < VKM_COUNT(alus); i++)
        if (!needed || ((f->caps->tiers & VKM_TIER_BIT(alus[i].tier)) && isnan(bench_find(f->report, "roofline", alus[i].key, "rate")))) TRY(measure_alu(f, &alus[i]));
    for (uint32_t i = 0; i < (needed ? 0 : f->caps->n_matrices); i++) TRY(measure_matrix(f, &f->caps->matrices[i]));
    if (needed && isnan(matrix_rate(f->report, f->caps, "rate")) && (f->caps->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT))) TRY(measure_matrix(f, &f->caps->matrix));
    return needed ? VKM_OK : measure_costs(f);
}

static vkm_result with_buffers(const struct bench_options *o, vkm_device *device, struct bench_report *report, bool needed, vkm_error *err)
{
    struct roof *f = calloc(1, sizeof *f);
    if (!f) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    *f = (struct roof){.o = o, .device = device, .caps = vkm_device_caps(device), .report = report, .err = err};
    bench_say("buffers");
    vkm_result r = create_buffers(f);
    if (!r) r = measure_all(f, needed);
    destroy_buffers(f);
    free(f);
    return r;
}

vkm_result bench_ceilings(const struct bench_options *o, vkm_device *device, struct bench_report *report, vkm_error *err)
{
    const struct vkm_caps *caps = vkm_device_caps(device);
    bool all = !isnan(bench_find(report, "roofline", BENCH_CEILING_READ, "rate")) && !isnan(bench_find(report, "roofline", BENCH_CEILING_CACHED, "rate"));
    for (size_t i = 0; i < VKM_COUNT(alus); i++)
        if (caps->tiers & VKM_TIER_BIT(alus[i].tier)) all &= !isnan(bench_find(report, "roofline", alus[i].key, "rate"));
    if (caps->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT)) all &= !isnan(matrix_rate(report, caps, "rate"));
    return all ? VKM_OK : with_buffers(o, device, report, true, err);
}

int bench_roofline(const struct bench_options *o, vkm_device *device, struct bench_report *report)
{
    vkm_error err = {0};
    return with_buffers(o, device, report, false, &err) ? bench_stop(report, &err) : STATUS_OK;
}
