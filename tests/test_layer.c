/* The public MoE layer, on a device, a buffer and command buffers of the caller's: every kind of expert against double precision, and that recording only records. */
#include "counted.h"
#include "effort.h"
#include "gguf/gguf.h"
#include "moe/object.h"
#include "reference/compare.h"
#include "reference/dequant.h"
#include "reference/experts.h"
#include "reference/ggufwrite.h"
#include "reference/model.h"
#include <math.h>

#define MARGIN 0.02      /* of a token's router logits at the last choice: cooperative matrices multiply the router's in f16 too */
#define NMSE_F32 1e-9
#define NMSE_F16 1e-5    /* f16 products */
#define NMSE_INT8DOT 5e-3

/* ---------------------------------------------------------------- allocations of the library's own: the linker sends all calls of this program here (tests/CMakeLists.txt) */

static uint64_t n_allocations;
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t each);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
void *__wrap_malloc(size_t n) { n_allocations++; return __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t each) { n_allocations++; return __real_calloc(n, each); }
void *__wrap_realloc(void *p, size_t n) { n_allocations++; return __real_realloc(p, n); }
char *__wrap_strdup(const char *s) { n_allocations++; return __real_strdup(s); }

/* ---------------------------------------------------------------- a layer and its weights */

struct kind {
    const char *name;
    vkm_activation activation;
    float alpha, limit, add;
    bool no_gate, biases, before, fused /* gate and up in one tensor */;
    uint32_t gate, up, down;                         /* types */
    uint32_t shared;                                 /* width; 0: none */
    bool shared_gated;
    uint32_t n_embd, n_ff, n_expert, k, max_tokens;
};

struct matrix { void *blocks; float *values; size_t bytes; };
struct rig {
    const struct kind *kind;
    struct matrix router, gate, up, down, shared_gate, shared_up, shared_down;
    float *gate_bias, *up_bias, *down_bias, *shared_gate_bias, *shared_up_bias, *shared_down_bias, *shared_router;
    vkm_router_desc router_desc;
    vkm_moe_layer_desc desc;
    vkm_moe_weights weights;
    vkm_moe_layer *layer;
};

static struct matrix random_matrix(struct ref_rng *rng, uint32_t type, uint32_t experts, uint32_t rows, uint32_t cols, double std)
{
    const struct vkm_type *t = vkm_type_find(type);
    uint64_t n = (uint64_t)experts * rows * cols;
    struct matrix m = {.bytes = (size_t)(n / t->block_cols * t->block_bytes)};
    m.blocks = malloc(m.bytes);
    m.values = malloc(n * sizeof *m.values);
    cr_assert(m.blocks && m.values);
    ref_random_blocks(rng, type, n, std, m.blocks);
    cr_assert(ref_dequant(type, m.blocks, n, m.values));
    return m;
}

static float *random_floats(struct ref_rng *rng, size_t n, double std)
{
    float *v = malloc(n * sizeof *v);
    cr_assert(v);
    for (size_t i = 0; i < n; i++) v[i] = (float)(std * ref_normal(rng));
    return v;
}

static vkm_moe_matrix given(uint32_t type, const struct matrix *m) { return (vkm_moe_matrix){.type = type, .data = m->blocks, .n_bytes = m->bytes}; }

/* Gate and up as one tensor [experts][2][n_ff][n_embd]. */
static void fuse(struct rig *r)
{
    const struct kind *k = r->kind;
    size_t half = r->gate.bytes / k->n_expert;
    char *both = malloc(2 * r->gate.bytes);
    cr_assert(both && k->gate == k->up);
    for (uint32_t e = 0; e < k->n_expert; e++) {
        memcpy(both + 2 * e * half, (char *)r->gate.blocks + e * half, half);
        memcpy(both + (2 * e + 1) * half, (char *)r->up.blocks + e * half, half);
    }
    r->weights.gate = (vkm_moe_matrix){.type = k->gate, .data = both, .n_bytes = 2 * r->gate.bytes - half, .expert_stride = 2 * half};
    r->weights.up = (vkm_moe_matrix){.type = k->gate, .data = both + half, .n_bytes = 2 * r->gate.bytes - half, .expert_stride = 2 * half};
    free(r->gate.blocks);
    r->gate.blocks = both;
}

/* Sums reach several units, so that limits and biases matter. */
static void make_weights(struct rig *r, const struct kind *k)
{
    struct ref_rng rng = ref_seed(k->n_embd * 31 + k->n_ff + k->activation);
    const double std = 1.5 / sqrt(k->n_embd), down_std = 1 / sqrt(k->n_ff);
    vkm_moe_weights *w = &r->weights;
    *r = (struct rig){.kind = k};
    r->router = random_matrix(&rng, REF_F32, 1, k->n_expert, k->n_embd, 2 / sqrt(k->n_embd));
    if (!k->no_gate) r->gate = random_matrix(&rng, k->gate, k->n_expert, k->n_ff, k->n_embd, k->limit > 0 ? 4 * std : std);
    r->up = random_matrix(&rng, k->up, k->n_expert, k->n_ff, k->n_embd, k->limit > 0 ? 4 * std : std);
    r->down = random_matrix(&rng, k->down, k->n_expert, k->n_embd, k->n_ff, down_std);
    *w = (vkm_moe_weights){.struct_size = sizeof *w, .router = given(REF_F32, &r->router), .gate = given(k->gate, &r->gate), .up = given(k->up, &r->up), .down = given(k->down, &r->down)};
    if (k->fused) fuse(r);
    if (k->shared) {
        if (!k->no_gate) r->shared_gate = random_matrix(&rng, k->gate, 1, k->shared, k->n_embd, std);
        r->shared_up = random_matrix(&rng, k->up, 1, k->shared, k->n_embd, std);
        r->shared_down = random_matrix(&rng, k->down, 1, k->n_embd, k->shared, down_std);
        w->shared_gate = given(k->gate, &r->shared_gate);
        w->shared_up = given(k->up, &r->shared_up);
        w->shared_down = given(k->down, &r->shared_down);
        if (k->shared_gated) w->shared_router = r->shared_router = random_floats(&rng, k->n_embd, 2 / sqrt(k->n_embd));
    }
    if (!k->biases) return;
    if (!k->no_gate) w->gate_bias = r->gate_bias = random_floats(&rng, (size_t)k->n_expert * k->n_ff, 0.7);
    w->up_bias = r->up_bias = random_floats(&rng, (size_t)k->n_expert * k->n_ff, 0.7);
    w->down_bias = r->down_bias = random_floats(&rng, (size_t)k->n_expert * k->n_embd, 0.7);
    if (!k->shared) return;
    w->shared_up_bias = r->shared_up_bias = random_floats(&rng, k->shared, 0.7);      /* and none of its gate */
    w->shared_down_bias = r->shared_down_bias = random_floats(&rng, k->n_embd, 0.7);
}

/* Tiles of up to so many tokens, 4 but for tests of the types: CPU drivers compile larger ones for seconds. */
static struct vkm_shape small_tiles(vkm_device *device, uint32_t most)
{
    struct vkm_shape shape;
    vkm_shape_choose(vkm_device_caps(device), &shape);
    if (vkm_device_caps(device)->type == VKM_TYPE_CPU) vkm_shape_tiles(&shape, most);
    return shape;
}

static void describe(struct rig *r)
{
    const struct kind *k = r->kind;
    r->router_desc = (vkm_router_desc){.struct_size = sizeof r->router_desc, .n_used = k->k, .renormalise = VKM_RENORMALISE_CHOSEN};
    r->desc = (vkm_moe_layer_desc){.struct_size = sizeof r->desc, .n_embd = k->n_embd, .n_ff = k->n_ff, .n_expert = k->n_expert, .max_tokens = k->max_tokens, .router = &r->router_desc,
        .activation = k->activation, .swiglu_alpha = k->alpha, .swiglu_limit = k->limit, .swiglu_add = k->add, .weight_before = k->before, .n_ff_shared = k->shared};
}

static void open_layer(struct rig *r, struct counted *c, const struct kind *k, uint32_t tiles)
{
    vkm_error err = {0};
    make_weights(r, k);
    describe(r);
    struct vkm_shape shape = small_tiles(c->vkm, tiles);
    OK(vkm_moe_layer_make(c->vkm, &r->desc, &r->weights, &shape, &r->layer, &err));
}

static void free_matrix(struct matrix *m) { free(m->blocks); free(m->values); }
static void close_layer(struct rig *r)
{
    vkm_moe_layer_destroy(r->layer);
    free_matrix(&r->router); free_matrix(&r->gate); free_matrix(&r->up); free_matrix(&r->down);
    free_matrix(&r->shared_gate); free_matrix(&r->shared_up); free_matrix(&r->shared_down);
    free(r->gate_bias); free(r->up_bias); free(r->down_bias); free(r->shared_up_bias); free(r->shared_down_bias); free(r->shared_router);
}

/* ---------------------------------------------------------------- right answers */

/* Of one token, whose ids and weights are told too. Returns the margin of its choice. */
static double answer(const struct rig *r, const float *x, double *y, uint32_t *ids, double *weights)
{
    const struct kind *k = r->kind;
    double *logits = calloc(k->n_expert, sizeof *logits), *in = calloc(k->n_embd, sizeof *in), sum = 0;
    cr_assert(logits && in);
    for (uint32_t i = 0; i < k->n_embd; i++) in[i] = x[i];
    for (uint32_t e = 0; e < k->n_expert; e++)
        for (uint32_t i = 0; i < k->n_embd; i++) logits[e] += (double)r->router.values[(size_t)e * k->n_embd + i] * in[i];
    double margin = ref_top_k(logits, k->n_expert, k->k, ids);
    for (uint32_t j = 0; j < k->k; j++) sum += weights[j] = exp(logits[ids[j]] - logits[ids[0]]);
    const struct ref_experts routed = {.n_embd = k->n_embd, .n_ff = k->n_ff, .gate = r->gate.values, .up = r->up.values, .down = r->down.values, .gate_bias = r->gate_bias, .up_bias = r->up_bias,
        .down_bias = r->down_bias, .act = (enum ref_act)k->activation, .limited = k->alpha != 0 || k->limit != 0 || k->add != 0, .alpha = k->alpha != 0 ? (double)k->alpha : 1,
        .limit = k->limit > 0 ? (double)k->limit : INFINITY, .add = k->add, .weight_before = k->before};
    for (uint32_t j = 0; j < k->k; j++) ref_expert(&routed, ids[j], in, weights[j] /= sum, y);
    if (k->shared) {
        struct ref_experts shared = routed;
        double gate = 0;
        shared.n_ff = k->shared;
        shared.gate = r->shared_gate.values, shared.up = r->shared_up.values, shared.down = r->shared_down.values;
        shared.gate_bias = NULL, shared.up_bias = r->shared_up_bias, shared.down_bias = r->shared_down_bias;
        shared.weight_before = false;
        for (uint32_t i = 0; k->shared_gated && i < k->n_embd; i++) gate += (double)r->shared_router[i] * in[i];
        ref_expert(&shared, 0, in, k->shared_gated ? 1 / (1 + exp(-gate)) : 1, y);
    }
    free(logits);
    free(in);
    return margin;
}

/* n tokens whose choices are clear, and what the layer makes of them. */
struct tokens { uint32_t n; float *x; double *y, *weights; uint32_t *ids; };
static struct tokens make_tokens(const struct rig *r, uint32_t n)
{
    const struct kind *k = r->kind;
    struct ref_rng rng = ref_seed(n + 77);
    struct tokens t = {n, malloc(((size_t)n * k->n_embd + 1) * sizeof *t.x), calloc((size_t)n * k->n_embd + 1, sizeof *t.y), calloc((size_t)n * k->k + 1, sizeof *t.weights), calloc((size_t)n * k->k + 1, sizeof *t.ids)};
    cr_assert(t.x && t.y && t.weights && t.ids);
    for (uint32_t i = 0; i < n;) {
        float *x = t.x + (size_t)i * k->n_embd;
        double *y = t.y + (size_t)i * k->n_embd;
        for (uint32_t j = 0; j < k->n_embd; j++) x[j] = (float)ref_normal(&rng);
        memset(y, 0, k->n_embd * sizeof *y);
        if (answer(r, x, y, t.ids + (size_t)i * k->k, t.weights + (size_t)i * k->k) > MARGIN) i++;
    }
    return t;
}
static void free_tokens(struct tokens *t) { free(t->x); free(t->y); free(t->weights); free(t->ids); }

/* ---------------------------------------------------------------- running it */

enum { AT_X = 256, AT_Y = COUNTED_BYTES / 4, AT_IDS = COUNTED_BYTES / 2, AT_WEIGHTS = COUNTED_BYTES / 4 * 3 };

static vkm_moe_io io_of(const struct counted *c)
{
    const uint64_t b = (uint64_t)(uintptr_t)c->buffer;
    return (vkm_moe_io){.struct_size = sizeof(vkm_moe_io), .x = {b, AT_X}, .y = {b, AT_Y}, .ids = {b, AT_IDS}, .weights = {b, AT_WEIGHTS}};
}

static void check_rows(const double *expected, const char *got, uint64_t stride, uint32_t rows, uint32_t width, double most, const char *what)
{
    double error = 0, norm = 0;
    for (uint32_t t = 0; t < rows; t++)
        for (uint32_t i = 0; i < width; i++) {
            float g;
            memcpy(&g, got + t * stride + i * 4, 4);
            double d = g - expected[(size_t)t * width + i];
            error += isfinite(d) ? d * d : INFINITY;
            norm += expected[(size_t)t * width + i] * expected[(size_t)t * width + i];
        }
    if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "nmse %.2e %s, %u tokens\n", error / norm, what, rows);
    cr_assert(error <= most * norm, "%s, %u tokens: NMSE %.3g", what, rows, error / norm);
}

/* Records n tokens, executes, compares y, ids and weights, and that nothing around y was written. */
static void check_tokens(struct rig *r, struct counted *c, uint32_t n, double most)
{
    vkm_error err = {0};
    const struct kind *k = r->kind;
    struct tokens t = make_tokens(r, n);
    const vkm_moe_io io = io_of(c);
    const size_t row = k->n_embd * 4;
    memset(c->map, 0xff, COUNTED_BYTES);
    memcpy(c->map + AT_X, t.x, n * row);
    VkCommandBuffer commands = counted_begin(c);
    OK(vkm_moe_layer_record(r->layer, commands, &io, n, &err));
    counted_end(c, commands, 1);
    check_rows(t.y, c->map + AT_Y, row, n, k->n_embd, most, k->name);
    cr_assert(!memcmp(c->map + AT_X, t.x, n * row), "%s: x was changed", k->name);
    for (size_t i = 0; i < 64; i++) cr_assert(c->map[AT_Y - 1 - i] == (char)0xff && c->map[AT_Y + n * row + i] == (char)0xff, "%s: written beside y", k->name);
    for (size_t i = 0; i < (size_t)n * k->k; i++) {
        uint32_t id;
        float w;
        memcpy(&id, c->map + AT_IDS + i * 4, 4);
        memcpy(&w, c->map + AT_WEIGHTS + i * 4, 4);
        cr_assert(id == t.ids[i] && fabs(w - t.weights[i]) < (most > NMSE_F32 ? 1e-2 : 1e-5), "%s: slot %zu has expert %u with %g, not %u with %g", k->name, i, id, (double)w, t.ids[i], t.weights[i]);
    }
    free_tokens(&t);
}

/* What each step reads and writes is what it says. */
static void audit(struct rig *r, uint32_t n)
{
    vkm_error err = {0};
    OK(vkm_moe_layer_build(r->layer, n, VKM_MOE_WATCHED, &err));
    OK(vkm_program_audit(r->layer->program, &err));
}

#define SIZE 64, 48, 5, 2, 7
#define F32 REF_F32, REF_F32, REF_F32
static const struct kind kinds[] = {
    {"SwiGLU", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, SIZE},
    {"GeGLU by tanh", VKM_ACTIVATION_GELU_TANH, 0, 0, 0, false, false, false, false, F32, 0, false, SIZE},
    {"GeGLU by erf, shared", VKM_ACTIVATION_GELU_ERF, 0, 0, 0, false, false, false, false, F32, 32, false, SIZE},
    {"ReGLU with biases", VKM_ACTIVATION_RELU, 0, 0, 0, false, true, false, false, F32, 0, false, SIZE},
    {"gpt-oss", VKM_ACTIVATION_SILU, 1.702f, 7, 1, false, true, false, false, F32, 0, false, SIZE},
    {"gpt-oss, gate and up of unlike types", VKM_ACTIVATION_SILU, 1.702f, 7, 1, false, true, false, false, REF_F16, REF_F32, REF_F32, 32, true, SIZE},
    {"a limit alone, odd sizes", VKM_ACTIVATION_SILU, 0, 2.5f, 0, false, false, false, false, F32, 0, false, 50, 41, 5, 2, 7},
    {"squared ReLU without a gate, shared", VKM_ACTIVATION_RELU_SQUARED, 0, 0, 0, true, false, false, false, F32, 96, true, SIZE},
    {"ReLU without a gate, biases", VKM_ACTIVATION_RELU, 0, 0, 0, true, true, false, false, F32, 0, false, SIZE},
    {"weight before", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, true, false, F32, 32, false, SIZE},
    {"weight before, biases, no gate", VKM_ACTIVATION_GELU_ERF, 0, 0, 0, true, true, true, false, F32, 0, false, SIZE},
    {"weight before, biases, limited", VKM_ACTIVATION_SILU, 1.702f, 7, 1, false, true, true, false, F32, 0, false, SIZE},
};

/* The kind of that name, or all. */
static void check_kinds(const char *name)
{
    struct counted c;
    counted_open(&c, NULL);
    for (size_t i = 0; i < VKM_COUNT(kinds); i++) {
        if (name && strcmp(kinds[i].name, name)) continue;
        struct rig r;
        open_layer(&r, &c, &kinds[i], 4);
        check_tokens(&r, &c, 1, NMSE_F32);
        check_tokens(&r, &c, 7, NMSE_F32);
        audit(&r, 7);
        close_layer(&r);
    }
    counted_close(&c);
}

Test(layer, experts) { FIRST_DRIVER_ONLY(); check_kinds("weight before, biases, limited"); }
Test(layer, experts_of_every_kind) { FULL_ONLY(); check_kinds(NULL); }     /* those of published models are compared with transformers anyway */

Test(layer, tensor_types_of_every_kind)
{
    FIRST_DRIVER_ONLY();
    static const struct kind all[] = {
        {"Q4_K", VKM_ACTIVATION_SILU, 1.702f, 7, 1, false, true, false, true, REF_Q4_K, REF_Q4_K, REF_Q4_K, 0, false, 256, 256, 4, 2, 4},
        {"Q8_0 and Q5_0", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, REF_Q8_0, REF_Q5_0, REF_Q8_0, 0, false, 96, 64, 4, 2, 4},
        {"F16", VKM_ACTIVATION_GELU_TANH, 0, 0, 0, true, true, true, false, REF_F16, REF_F16, REF_F16, 0, false, 72, 40, 4, 2, 4},
    };
    struct counted c;
    counted_open(&c, NULL);
    for (size_t i = 0; i < VKM_COUNT(all); i++) {
        struct rig r;
        open_layer(&r, &c, &all[i], 1);
        check_tokens(&r, &c, 4, NMSE_F32);
        close_layer(&r);
    }
    counted_close(&c);
}

/* With the shapes of a GPU few tokens are three steps: the router with top-k, and two matmuls, the second of which adds up what is its token's. Again and again, for it counts who is done. */
Test(layer, few_tokens_as_on_a_gpu)
{
    FIRST_DRIVER_ONLY();
    static const struct kind kind = {"as on a GPU", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, 160, 48, 72, 3, VKM_JOINED_ROWS + 1};
    static const uint32_t tokens[] = {1, VKM_JOINED_ROWS, 2, VKM_JOINED_ROWS + 1, VKM_FEW_ROWS, 1};
    struct counted c;
    struct rig r;
    vkm_error err = {0};
    counted_open(&c, "gather");
    make_weights(&r, &kind);
    describe(&r);
    struct vkm_caps caps = gpu_caps(c.vkm, 32);
    struct vkm_shape shape;
    vkm_shape_choose(&caps, &shape);
    if (vkm_device_caps(c.vkm)->type == VKM_TYPE_CPU) vkm_shape_tiles(&shape, 4);
    OK(vkm_moe_layer_make(c.vkm, &r.desc, &r.weights, &shape, &r.layer, &err));
    for (size_t i = 0; i < VKM_COUNT(tokens); i++) {
        check_tokens(&r, &c, tokens[i], NMSE_F32);
        static const char *const few[] = {"moe_router", "moe_gate_up", "moe_down"};
        const vkm_program *p = r.layer->program;
        for (uint32_t k = 0; tokens[i] <= VKM_JOINED_ROWS && k < vkm_program_step_count(p); k++) {
            size_t j = 0;
            while (j < VKM_COUNT(few) && strcmp(vkm_program_step(p, k)->label, few[j])) j++;
            cr_expect_lt(j, VKM_COUNT(few), "%u tokens: %s is a step", tokens[i], vkm_program_step(p, k)->label);
        }
    }
    OK(vkm_moe_layer_build(r.layer, 2, 0, &err));
    OK(vkm_program_audit(r.layer->program, &err));
    close_layer(&r);
    counted_close(&c);
}

/* What ends a matmul is the same in all of them; x in other forms, and tiles of matrices. */
Test(layer, tiers)
{
    FULL_ONLY();
    static const struct { const char *caps; enum vkm_tier tier; double most; uint32_t tiles; } tiers[] = {
        {"fp16", VKM_TIER_FP16, NMSE_F16, 1}, {"int8dot", VKM_TIER_INT8DOT, NMSE_INT8DOT, 1}, {"coopmat", VKM_TIER_COOPMAT, NMSE_F16, 16}};
    static const struct kind k = {"gpt-oss, weight before", VKM_ACTIVATION_SILU, 1.702f, 7, 1, false, true, true, false, REF_Q8_0, REF_Q8_0, REF_Q8_0, 0, false, 64, 32, 2, 1, 20};
    for (size_t i = 0; i < VKM_COUNT(tiers); i++) {
        struct counted c;
        struct rig r;
        struct driver_log log;
        vkm_device *device = driver_open(NULL, &log);
        bool able = vkm_caps_able(vkm_device_caps(device)) & VKM_TIER_BIT(tiers[i].tier) && vkm_kernel_tier(device, "moe_down", "q8_0", VKM_TIER_BIT(tiers[i].tier)) == tiers[i].tier;
        driver_close(device, &log);
        if (!able) continue;
        counted_open(&c, tiers[i].caps);
        open_layer(&r, &c, &k, tiers[i].tiles);
        check_tokens(&r, &c, 20, tiers[i].most);
        close_layer(&r);
        counted_close(&c);
    }
}

/* Few and many tokens, all experts, one expert. */
Test(layer, sizes)
{
    static const struct kind all[] = {
        {"many tokens", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, 32, 32, 8, 2, 200},
        {"all experts", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, 32, 32, 8, 8, 200},
        {"one expert", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, 32, 32, 1, 1, 200},
    };
    static const uint32_t sizes[] = {0, 1, 7, 200};
    struct counted c;
    counted_open(&c, NULL);
    for (size_t i = 0; i < VKM_COUNT(all); i++) {
        struct rig r;
        open_layer(&r, &c, &all[i], 4);
        for (size_t j = 0; j < VKM_COUNT(sizes); j++) check_tokens(&r, &c, sizes[j], NMSE_F32);
        close_layer(&r);
    }
    counted_close(&c);
}

/* Nothing is made, allocated, submitted or waited for while recording, whatever n is and whatever was recorded before. */
Test(layer, recording_only_records)
{
    FIRST_DRIVER_ONLY();
    static const struct kind k = {"recorded", VKM_ACTIVATION_SILU, 1.702f, 7, 1, false, true, false, false, REF_F16, REF_F32, REF_F32, 32, true, 50, 41, 5, 2, 300};
    struct counted c;
    struct rig r;
    vkm_error err = {0};
    counted_open(&c, NULL);
    uint32_t before = counted_calls();
    uint64_t allocated = n_allocations;
    open_layer(&r, &c, &k, 4);
    cr_assert(counted_calls() > before + 10 && n_allocations > allocated + 10, "the counters do not count: %u calls, %llu allocations", counted_calls() - before, (unsigned long long)(n_allocations - allocated));
    audit(&r, 3);
    cr_assert(counted_n_AllocateMemory > 1 && counted_n_CreateComputePipelines > 3 && counted_n_QueueSubmit > 0 && counted_n_WaitSemaphores > 0 && counted_n_UpdateDescriptorSets > 0);
    vkm_moe_io io = io_of(&c);
    VkCommandBuffer commands = counted_begin(&c);
    before = counted_calls();
    allocated = n_allocations;
    for (uint32_t i = 0; i < 80; i++) {
        uint32_t n = i < 40 ? i : (i * 7919) % (k.max_tokens + 1);
        io.flags = i % 4;
        OK(vkm_moe_layer_record(r.layer, commands, &io, n, &err));
        FAILS(vkm_moe_layer_record(r.layer, commands, &io, k.max_tokens + 1 + i, &err), VKM_ERR_ARGUMENT);
    }
    cr_expect_eq(counted_calls(), before, "%u Vulkan calls that make, submit or wait", counted_calls() - before);
    cr_expect_eq(n_allocations, allocated, "%llu allocations", (unsigned long long)(n_allocations - allocated));
    counted_end(&c, commands, 1);
    close_layer(&r);
    counted_close(&c);
}

static void put_rows(struct counted *c, size_t at, size_t stride, const float *x, uint32_t rows, uint32_t width)
{
    for (uint32_t t = 0; t < rows; t++) memcpy(c->map + at + t * stride, x + (size_t)t * width, width * 4);
}

/* y may be x; may be added to; rows may lie apart; and what was recorded once may be executed again, with other barriers or other recordings around it. */
Test(layer, buffers_as_the_caller_has_them)
{
    FIRST_DRIVER_ONLY();
    static const struct kind k = {"buffers", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 32, true, 50, 32, 4, 2, 9};
    enum { N = 9, STRIDE = 224 };
    struct counted c;
    struct rig r;
    vkm_error err = {0};
    counted_open(&c, NULL);
    open_layer(&r, &c, &k, 4);
    struct tokens t = make_tokens(&r, N);
    vkm_moe_io io = io_of(&c);
    const size_t row = k.n_embd * 4;

    io.y = io.x;                                                  /* in place */
    put_rows(&c, AT_X, row, t.x, N, k.n_embd);
    VkCommandBuffer commands = counted_begin(&c);
    OK(vkm_moe_layer_record(r.layer, commands, &io, N, &err));
    counted_end(&c, commands, 1);
    check_rows(t.y, c.map + AT_X, row, N, k.n_embd, NMSE_F32, "in place");

    double *twice = malloc((size_t)N * k.n_embd * sizeof *twice);  /* y += layer, twice, with strides, to 3 in y */
    cr_assert(twice);
    for (size_t i = 0; i < (size_t)N * k.n_embd; i++) twice[i] = 3 + 2 * t.y[i];
    io = io_of(&c);
    io.flags = VKM_MOE_ADD;
    io.x_stride = STRIDE, io.y_stride = 2 * STRIDE;
    memset(c.map, 0xff, COUNTED_BYTES);
    put_rows(&c, AT_X, STRIDE, t.x, N, k.n_embd);
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t j = 0; j < k.n_embd; j++) memcpy(c.map + AT_Y + i * 2 * STRIDE + j * 4, &(float){3}, 4);
    commands = counted_begin(&c);
    OK(vkm_moe_layer_record(r.layer, commands, &io, N, &err));
    counted_end(&c, commands, 2);
    check_rows(twice, c.map + AT_Y, 2 * STRIDE, N, k.n_embd, NMSE_F32, "added twice");
    cr_expect(!memcmp(c.map + AT_Y + row, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), "written between rows");

    io.flags = VKM_MOE_NO_BARRIERS;                               /* halves, one behind the other */
    io.x_stride = io.y_stride = 0;
    io.ids.buffer = io.weights.buffer = 0;
    put_rows(&c, AT_X, row, t.x, N, k.n_embd);
    commands = counted_begin(&c);
    OK(vkm_moe_layer_record(r.layer, commands, &io, 4, &err));
    io.x.offset += 4 * row, io.y.offset += 4 * row;
    OK(vkm_moe_layer_record(r.layer, commands, &io, N - 4, &err));
    CALLER_VK(&c.caller, CmdPipelineBarrier)(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
        &(VkMemoryBarrier){.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT, .dstAccessMask = VK_ACCESS_HOST_READ_BIT}, 0, NULL, 0, NULL);
    counted_end(&c, commands, 1);
    check_rows(t.y, c.map + AT_Y, row, N, k.n_embd, NMSE_F32, "in halves");
    free(twice);
    free_tokens(&t);
    close_layer(&r);
    counted_close(&c);
}

/* Runs the layer on x of NaN, which is what it leaves in its workspace. */
static void run_on_nan(struct rig *r, struct counted *c, uint32_t n)
{
    vkm_error err = {0};
    const vkm_moe_io io = io_of(c);
    memset(c->map, 0xff, COUNTED_BYTES);
    VkCommandBuffer commands = counted_begin(c);
    OK(vkm_moe_layer_record(r->layer, commands, &io, n, &err));
    counted_end(c, commands, 1);
}

/* Layers of one model share a workspace, and two of one's weights do not; either may go first. */
Test(layer, workspaces_and_weights_are_shared)
{
    static const struct kind big = {"first", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, 50, 32, 4, 2, 9},
                             small = {"second", VKM_ACTIVATION_SILU, 0, 0, 0, false, false, false, false, F32, 0, false, 34, 32, 3, 2, 9};
    struct counted c;
    struct rig a, b;
    vkm_error err = {0};
    vkm_moe_layer *copy = NULL, *none = NULL;
    counted_open(&c, NULL);
    open_layer(&a, &c, &big, 4);
    make_weights(&b, &small);
    describe(&b);
    b.desc.workspace_of = a.layer;
    struct vkm_shape shape = small_tiles(c.vkm, 4);
    OK(vkm_moe_layer_make(c.vkm, &b.desc, &b.weights, &shape, &b.layer, &err));
    cr_expect_eq(b.layer->workspace, a.layer->workspace);
    for (int i = 0; i < 2; i++) {                                  /* each leaves what it does in the other's padding */
        check_tokens(&a, &c, 9, NMSE_F32);
        run_on_nan(&a, &c, 9);
        check_tokens(&b, &c, 9, NMSE_F32);
    }
    vkm_moe_layer_desc more = {.struct_size = sizeof more, .weights_of = a.layer, .max_tokens = 9, .workspace_of = b.layer};
    OK(vkm_moe_layer_make(c.vkm, &more, NULL, &shape, &copy, &err));
    cr_expect(copy->set == a.layer->set && copy->workspace == b.layer->workspace);
    more.max_tokens = 100;
    FAILS(vkm_moe_layer_make(c.vkm, &more, NULL, &shape, &none, &err), VKM_ERR_LIMIT);
    more.workspace_of = NULL;
    FAILS(vkm_moe_layer_make(c.vkm, &more, &a.weights, &shape, &none, &err), VKM_ERR_ARGUMENT);
    vkm_moe_layer_destroy(a.layer);
    a.layer = copy;
    check_tokens(&a, &c, 9, NMSE_F32);
    vkm_moe_layer_destroy(b.layer);
    b.layer = NULL;
    check_tokens(&a, &c, 5, NMSE_F32);
    close_layer(&a);
    close_layer(&b);
    counted_close(&c);
}

/* Any way a layer is cut over slabs. */
Test(layer, in_many_slabs)
{
    FULL_ONLY();
    static const struct kind k = {"slabs", VKM_ACTIVATION_SILU, 0, 0, 0, false, true, false, false, F32, 32, true, 64, 96, 5, 2, 5};
    struct counted c;
    struct rig r;
    counted_open(&c, "baseline,range=65536,slabs=6");
    open_layer(&r, &c, &k, 4);
    cr_assert(r.layer->n_sets > 1 && r.layer->set->slabs.n_slabs > 6, "%u sets, %u slabs", r.layer->n_sets, r.layer->set->slabs.n_slabs);
    check_tokens(&r, &c, 5, NMSE_F32);
    close_layer(&r);
    counted_close(&c);
}

Test(layer, says_what_is_wrong)
{
    FIRST_DRIVER_ONLY();
    static const struct kind k = {"wrong", VKM_ACTIVATION_SILU, 0, 0, 0, false, true, false, false, F32, 32, true, 64, 32, 4, 2, 3};
    struct counted c;
    struct rig r;
    vkm_error err = {0};
    counted_open(&c, NULL);
    open_layer(&r, &c, &k, 4);
    vkm_moe_layer *layer = NULL;
    const vkm_moe_layer_desc desc = r.desc;
    const vkm_moe_weights weights = r.weights;
    const vkm_router_desc router = r.router_desc;
#define REFUSED(code, word) do { FAILS(vkm_moe_layer_create(c.vkm, &r.desc, &r.weights, &layer, &err), code); cr_expect(strstr(err.message, word), "%s", err.message); \
                                 r.desc = desc; r.weights = weights; r.router_desc = router; } while (0)
    r.desc.router = NULL;                REFUSED(VKM_ERR_ARGUMENT, "router");
    r.desc.n_embd = 0;                   REFUSED(VKM_ERR_ARGUMENT, "n_embd");
    r.desc.n_ff = 1 << 20;               REFUSED(VKM_ERR_ARGUMENT, "n_ff");
    r.desc.n_expert = 0;                 REFUSED(VKM_ERR_ARGUMENT, "");
    r.desc.n_expert = 1025;              REFUSED(VKM_ERR_ARGUMENT, "");
    r.router_desc.n_used = 5;            REFUSED(VKM_ERR_ARGUMENT, "n_used");
    r.desc.max_tokens = 0;               REFUSED(VKM_ERR_ARGUMENT, "max_tokens");
    r.desc.max_tokens = 1u << 31;        REFUSED(VKM_ERR_LIMIT, "tokens");
    r.desc.max_tokens = 1u << 22;        REFUSED(VKM_ERR_LIMIT, "workspace");
    r.desc.activation = 99;              REFUSED(VKM_ERR_ARGUMENT, "activation");
    r.desc.swiglu_limit = -1;            REFUSED(VKM_ERR_ARGUMENT, "_limit");
    r.desc.swiglu_alpha = NAN;           REFUSED(VKM_ERR_ARGUMENT, "_alpha");
    r.desc.swiglu_add = 1, r.desc.activation = VKM_ACTIVATION_RELU; REFUSED(VKM_ERR_ARGUMENT, "SiLU");
    r.desc.n_ff_shared = 0;              REFUSED(VKM_ERR_ARGUMENT, "shared");
    r.desc.n_ff_shared = 64;             REFUSED(VKM_ERR_ARGUMENT, "shared_gate");
    r.weights.shared_gate.data = NULL;   REFUSED(VKM_ERR_ARGUMENT, "gate");
    r.weights.up.data = NULL;            REFUSED(VKM_ERR_ARGUMENT, "matrix up");
    r.weights.down.type = 4;             REFUSED(VKM_ERR_UNSUPPORTED, "matrix down");
    r.weights.gate.n_bytes--;            REFUSED(VKM_ERR_ARGUMENT, "matrix gate");
    r.weights.gate.expert_stride = 8191; REFUSED(VKM_ERR_ARGUMENT, "matrix gate");
    r.weights.gate.expert_stride = SIZE_MAX / 2; REFUSED(VKM_ERR_ARGUMENT, "matrix gate");
    r.weights.up.type = REF_Q4_K;        REFUSED(VKM_ERR_ARGUMENT, "256");
    r.weights.router.type = REF_Q8_0, r.weights.router.n_bytes = 4 * 68; REFUSED(VKM_ERR_UNSUPPORTED, "router");
    r.weights.router.data = NULL;        REFUSED(VKM_ERR_ARGUMENT, "router");
    FAILS(vkm_moe_layer_create(NULL, &r.desc, &r.weights, &layer, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_moe_layer_create(c.vkm, &r.desc, NULL, &layer, &err), VKM_ERR_ARGUMENT);
    cr_expect_null(layer);
    vkm_moe_layer_destroy(NULL);

    const vkm_moe_io good = io_of(&c);
    vkm_moe_io io = good;
    VkCommandBuffer commands = counted_begin(&c);
#define REFUSED_IO(word) do { FAILS(vkm_moe_layer_record(r.layer, commands, &io, 3, &err), VKM_ERR_ARGUMENT); cr_expect(strstr(err.message, word), "%s", err.message); io = good; } while (0)
    io.x.buffer = 0;     REFUSED_IO("x and y");
    io.y.offset = 2;     REFUSED_IO("offset");
    io.x_stride = 252;   REFUSED_IO("stride");
    io.y_stride = 258;   REFUSED_IO("stride");
    FAILS(vkm_moe_layer_record(r.layer, NULL, &io, 1, &err), VKM_ERR_ARGUMENT);
    counted_end(&c, commands, 1);
    cr_expect(vkm_moe_layer_print(r.layer, 3, NULL, 0) > 100);
    close_layer(&r);
    counted_close(&c);
}

/* ---------------------------------------------------------------- what transformers makes of whole blocks: golden/make_layer.py */

static int64_t key_int(const vkm_gguf *g, const char *name)
{
    char key[64];
    int64_t v = 0;
    vkm_error err = {0};
    snprintf(key, sizeof key, "layer.%s", name);
    if (vkm_gguf_has(g, key)) OK(vkm_gguf_int(g, key, 0, INT32_MAX, &v, &err));
    return v;
}

static float key_float(const vkm_gguf *g, const char *name)
{
    char key[64];
    double v = 0;
    vkm_error err = {0};
    snprintf(key, sizeof key, "layer.%s", name);
    if (vkm_gguf_has(g, key)) OK(vkm_gguf_float(g, key, &v, &err));
    return (float)v;
}

static const void *tensor_data(const vkm_gguf *g, const char *name)
{
    const struct vkm_gguf_tensor *t = vkm_gguf_tensor_find(g, name);
    return t ? t->data : NULL;
}

static vkm_moe_matrix tensor_matrix(const vkm_gguf *g, const char *name)
{
    const struct vkm_gguf_tensor *t = vkm_gguf_tensor_find(g, name);
    return t ? (vkm_moe_matrix){.type = t->type, .data = t->data, .n_bytes = t->bytes} : (vkm_moe_matrix){0};
}

static void check_golden(struct counted *c, const char *name)
{
    char path[512];
    vkm_error err = {0};
    vkm_gguf *g;
    vkm_moe_layer *layer;
    snprintf(path, sizeof path, "%s/golden/layer/%s.gguf", VKMOE_TESTS_DIR, name);
    OK(vkm_gguf_open(path, &g, &err));
    const struct vkm_gguf_tensor *up = vkm_gguf_tensor_find(g, "up"), *x = vkm_gguf_tensor_find(g, "x"), *shared = vkm_gguf_tensor_find(g, "shared_up");
    const uint32_t n_embd = (uint32_t)x->ne[0], n = (uint32_t)x->ne[1];
    const vkm_router_desc router = {.struct_size = sizeof router, .select = (vkm_router_select)key_int(g, "select"), .score = (vkm_router_score)key_int(g, "score"), .n_used = (uint32_t)key_int(g, "n_used"),
        .renormalise = (vkm_router_renormalise)key_int(g, "renormalise"), .sum_add = key_float(g, "sum_add"), .scale = key_float(g, "scale"), .logit_bias = tensor_data(g, "logit_bias"),
        .selection_bias = tensor_data(g, "selection_bias"), .n_groups = (uint32_t)key_int(g, "n_groups"), .n_groups_used = (uint32_t)key_int(g, "n_groups_used"),
        .group_score = (vkm_router_groups)key_int(g, "group_score"), .jitter = key_float(g, "jitter"), .capacity = (vkm_router_capacity)key_int(g, "capacity"), .capacity_min = (uint32_t)key_int(g, "capacity_min")};
    const vkm_moe_layer_desc desc = {.struct_size = sizeof desc, .n_embd = n_embd, .n_ff = (uint32_t)up->ne[1], .n_expert = (uint32_t)up->ne[2], .max_tokens = n, .router = &router,
        .activation = (vkm_activation)key_int(g, "activation"), .swiglu_alpha = key_float(g, "swiglu_alpha"), .swiglu_limit = key_float(g, "swiglu_limit"), .swiglu_add = key_float(g, "swiglu_add"),
        .weight_before = key_int(g, "weight_before") != 0, .n_ff_shared = shared ? (uint32_t)shared->ne[1] : 0};
    const vkm_moe_weights weights = {.struct_size = sizeof weights, .router = tensor_matrix(g, "router"), .gate = tensor_matrix(g, "gate"), .up = tensor_matrix(g, "up"), .down = tensor_matrix(g, "down"),
        .gate_bias = tensor_data(g, "gate_bias"), .up_bias = tensor_data(g, "up_bias"), .down_bias = tensor_data(g, "down_bias"), .shared_gate = tensor_matrix(g, "shared_gate"),
        .shared_up = tensor_matrix(g, "shared_up"), .shared_down = tensor_matrix(g, "shared_down"), .shared_router = tensor_data(g, "shared_router")};
    struct vkm_shape shape = small_tiles(c->vkm, 1);
    OK(vkm_moe_layer_make(c->vkm, &desc, &weights, &shape, &layer, &err));

    vkm_moe_io io = io_of(c);
    const struct vkm_gguf_tensor *ids = vkm_gguf_tensor_find(g, "forced_ids"), *forced = vkm_gguf_tensor_find(g, "forced_weights");
    memset(c->map, 0xff, COUNTED_BYTES);
    memcpy(c->map + AT_X, x->data, x->bytes);
    if (ids) {
        io.forced_ids = io.ids, io.forced_weights = io.weights;
        memcpy(c->map + io.forced_ids.offset, ids->data, ids->bytes);
        memcpy(c->map + io.forced_weights.offset, forced->data, forced->bytes);
    }
    io.ids.buffer = io.weights.buffer = 0;
    VkCommandBuffer commands = counted_begin(c);
    OK(vkm_moe_layer_record(layer, commands, &io, n, &err));
    counted_end(c, commands, 1);
    double *y = malloc((size_t)n * n_embd * sizeof *y);
    cr_assert(y);
    for (size_t i = 0; i < (size_t)n * n_embd; i++) y[i] = ((const float *)tensor_data(g, "y"))[i];
    check_rows(y, c->map + AT_Y, n_embd * 4, n, n_embd, NMSE_F32, name);
    free(y);
    vkm_moe_layer_destroy(layer);
    vkm_gguf_close(g);
}

Test(layer, gives_what_transformers_gives)
{
    static const char *const names[] = {"mixtral", "qwen2moe", "gpt_oss", "llama4", "deepseek_v3", "nemotron_h", "phimoe", "switch", "gemma4", "gelu_erf"};
    struct counted c;
    counted_open(&c, NULL);
    for (size_t i = 0; i < VKM_COUNT(names); i++) check_golden(&c, names[i]);
    counted_close(&c);
}

/* Expert choice with the weight before: rows of x and weights are found by different lists. What the router does is in test_router.c; here, what comes out of the layer. */
Test(layer, other_slot_layouts)
{
    static const struct kind k = {"expert choice", VKM_ACTIVATION_SILU, 0, 0, 0, false, true, true, false, F32, 0, false, 34, 32, 4, 2, 9};
    struct counted c;
    struct rig r;
    vkm_error err = {0};
    counted_open(&c, NULL);
    make_weights(&r, &k);
    describe(&r);
    r.router_desc = (vkm_router_desc){.struct_size = sizeof r.router_desc, .select = VKM_SELECT_EXPERT_CHOICE, .capacity_factor = 2};
    struct vkm_shape shape = small_tiles(c.vkm, 1);
    OK(vkm_moe_layer_make(c.vkm, &r.desc, &r.weights, &shape, &r.layer, &err));
    struct tokens t = make_tokens(&r, 9);
    vkm_moe_io io = io_of(&c);
    const uint32_t slots = vkm_router_slots(&r.router_desc, k.n_expert, 9);
    cr_assert_eq(slots, 20);
    io.counts = (vkm_moe_place){io.x.buffer, 0};
    io.dropped = (vkm_moe_place){io.x.buffer, 64};
    io.statistics = (vkm_moe_place){io.x.buffer, 128};
    memset(c.map, 0xff, COUNTED_BYTES);
    put_rows(&c, AT_X, k.n_embd * 4, t.x, 9, k.n_embd);
    VkCommandBuffer commands = counted_begin(&c);
    OK(vkm_moe_layer_record(r.layer, commands, &io, 9, &err));
    counted_end(&c, commands, 1);
    const uint32_t *tokens = (const uint32_t *)(c.map + AT_IDS), *counts = (const uint32_t *)c.map, *missed = (const uint32_t *)(c.map + 64);
    const float *weights = (const float *)(c.map + AT_WEIGHTS);
    const struct ref_experts experts = {.n_embd = k.n_embd, .n_ff = k.n_ff, .gate = r.gate.values, .up = r.up.values, .down = r.down.values, .gate_bias = r.gate_bias, .up_bias = r.up_bias,
                                        .down_bias = r.down_bias, .act = REF_ACT_SILU, .weight_before = true};
    uint32_t chosen[9] = {0}, n_missed = 0;
    memset(t.y, 0, 9 * k.n_embd * sizeof *t.y);
    for (uint32_t s = 0; s < slots; s++) {
        double x[64];
        cr_assert(tokens[s] < 9 && (s % 5 == 0 || tokens[s] > tokens[s - 1]));
        for (uint32_t i = 0; i < k.n_embd; i++) x[i] = t.x[tokens[s] * k.n_embd + i];
        ref_expert(&experts, s / 5, x, weights[s], t.y + tokens[s] * k.n_embd);
        chosen[tokens[s]]++;
    }
    check_rows(t.y, c.map + AT_Y, k.n_embd * 4, 9, k.n_embd, NMSE_F32, k.name);
    for (uint32_t e = 0; e < k.n_expert; e++) cr_expect_eq(counts[e], 5);
    for (uint32_t i = 0; i < 9; i++) {
        cr_expect_eq(missed[i], chosen[i] == 0);
        n_missed += chosen[i] == 0;
    }
    cr_expect_eq(((const vkm_router_statistics *)(c.map + 128))->n_dropped, n_missed);
    FAILS(vkm_moe_layer_record(r.layer, NULL, &io, 9, &err), VKM_ERR_ARGUMENT);
    free_tokens(&t);
    close_layer(&r);
    counted_close(&c);
}
