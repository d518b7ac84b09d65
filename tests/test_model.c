/* Models on a device against the reference in double precision and against other people's implementations: architectures, tensor types, shapes, features, limits.
 * Every comparison is of the logits of all positions. */
#include "harness.h"
#include "reference/npy.h"
#include <glob.h>

static const vkm_session_params f32 = {.n_ctx = 256, .kv_type = VKM_KV_F32};

/* ---------------------------------------------------------------- architectures */

/* Prompts of several lengths in one call, then tokens one at a time; the same bits either way. One device for all of them, for many drivers compile again for another. */
static void check_architectures(const char *tier, size_t first, size_t step)
{
    static const uint64_t seeds[] = {2, 1, 5, 4, 5};
    struct rig r;
    rig_device(&r, tier);
    for (size_t i = first; i < VKM_COUNT(architectures); i += step) {
        struct answers a;
        char what[64];
        struct ref_testmodel o = ref_testmodel_default(architectures[i]);
        o.seed = seeds[i];
        snprintf(what, sizeof what, "%s, tier %s", architectures[i], tier ? tier : "all");
        answers_make(&a, o, 200);
        rig_load(&r, a.path);
        rig_session(&r, f32);
        if (!tier || full()) use_device_shape(&r);         /* matmuls are the same in all of these */
        for (uint32_t k = 0; k < 3; k++) free(check_answers(&r, &a, (const uint32_t[]){1, 7, 33}[k], 0, NMSE_F32, what));
        uint32_t n = full() ? 200 : 40;
        float *at_once = check_answers(&r, &a, 200, 0, NMSE_F32, what), *one_by_one = check_answers(&r, &a, n, 1, NMSE_F32, what);
        check_same(at_once, one_by_one, n, a.n_vocab, what);
        free(at_once);
        free(one_by_one);
        rig_unload(&r);
        answers_free(&a);
    }
    rig_close(&r);
}

Test(architectures, all_tiers) { check_architectures(NULL, 0, 1); }
/* Three will do for what other tiers have of their own. */
Test(architectures, baseline) { check_architectures("baseline", 0, 2); }
Test(architectures, baseline_others) { FULL_ONLY(); check_architectures("baseline", 1, 2); }
static void check_subgroup(size_t first)
{
    struct driver_log log;
    vkm_device *device = driver_open(NULL, &log);
    bool same = !vkm_device_caps(device)->scalar_loads;
    driver_close(device, &log);
    if (same) cr_skip_test("the device has the same kernels with all tiers");
    check_architectures("subgroup", first, 2);
}
Test(architectures, subgroup) { check_subgroup(0); }
Test(architectures, subgroup_others) { FULL_ONLY(); check_subgroup(1); }

/* ---------------------------------------------------------------- tensor types */

/* Sizes that super-blocks of 256 divide. */
static struct ref_testmodel of_type(const char *arch, uint32_t type, uint64_t seed)
{
    struct ref_testmodel o = ref_testmodel_default(arch);
    o.seed = seed; o.layers = 2; o.hidden = o.width = 256; o.heads = 4; o.head_dim = 64;
    if (o.shared_width) o.shared_width = 256;
    o.type_gate = o.type_up = o.type_down = o.type_attn = o.type_shared = o.type_embd = o.type_output = type;
    return o;
}

static uint32_t few_tokens(void) { return full() ? 33 : 7; }

/* A prompt, then three single tokens; and the first three tokens again, singly, for the same bits. */
static void check_model(struct rig *r, const struct ref_testmodel *o, uint32_t prompt, const char *what)
{
    struct answers a;
    vkm_error err = {0};
    char text[128];
    answers_make(&a, *o, prompt + 3);
    rig_load(r, a.path);
    rig_session(r, (vkm_session_params){.n_ctx = prompt + 3, .kv_type = VKM_KV_F32});
    float *logits = check_answers(r, &a, prompt, 0, NMSE_F32, what), *next = malloc(a.n_vocab * sizeof *next);
    for (uint32_t i = prompt; i < prompt + 3; i++) {
        OK(vkm_session_eval(r->session, 0, a.tokens + i, 1, next, &err));
        snprintf(text, sizeof text, "%s, token %u", what, i);
        check_nmse(a.logits + (size_t)i * a.n_vocab, next, a.n_vocab, NMSE_F32, text);
    }
    free(next);
    uint32_t n = prompt < 3 ? prompt : 3;
    float *singly = eval_steps(r, a.tokens, n, 1);
    check_same(logits, singly, n, a.n_vocab, what);
    free(singly);
    free(logits);
    rig_unload(r);
    answers_free(&a);
}

/* A model of mixed types. */
static struct ref_testmodel of_types(const char *arch, uint32_t gate_up, uint32_t down, uint32_t attention, uint32_t output)
{
    struct ref_testmodel o = of_type(arch, gate_up, 1);
    o.type_down = down; o.type_attn = attention; o.type_output = output;
    o.layers = 1;
    return o;
}

/* A model of each, or one of them all where another driver had the former. One device for several of them, for many drivers compile the other kernels again for another. */
static void check_types(const char *arch, uint64_t seed, const uint32_t *ids, size_t n)
{
    struct rig r;
    rig_device(&r, NULL);
    if (brief()) {
        struct ref_testmodel o = of_types(arch, ids[0], ids[1 % n], ids[2 % n], ids[3 % n]);
        check_model(&r, &o, few_tokens(), arch);
    } else for (size_t i = 0; i < n; i++) {
        char what[64];
        struct ref_testmodel o = of_type(arch, ids[i], seed);
        snprintf(what, sizeof what, "%s %s", arch, vkm_type_find(ids[i])->variant);
        check_model(&r, &o, few_tokens(), what);
    }
    rig_close(&r);
}

#define TYPES_TEST(name, seed, ...) Test(types, name) { static const uint32_t ids[] = {__VA_ARGS__}; check_types("qwen2moe", seed, ids, VKM_COUNT(ids)); }
TYPES_TEST(plain, 1, REF_F32, REF_F16, REF_BF16)
TYPES_TEST(q4_0, 2, REF_Q4_0)
TYPES_TEST(blocks_of_32, 1, REF_Q4_1, REF_Q5_0, REF_Q5_1, REF_Q8_0)
TYPES_TEST(blocks_of_256, 1, REF_Q4_K, REF_Q5_K, REF_Q6_K)

/* Sums of blocks, as for devices that convert integers slowly (shaders/quant.glsl). */
Test(types, slow_conversion)
{
    struct rig r;
    const struct ref_testmodel o = of_types("llama", REF_Q4_K, REF_Q4_1, REF_Q4_0, REF_Q4_0);
    FIRST_DRIVER_ONLY();
    rig_device(&r, "gather,slow_conversion");
    check_model(&r, &o, few_tokens(), "sums of blocks");
    rig_close(&r);
}

/* The kernels of matmul_cpu.glsl and attention_cpu.comp. Every type once, F16 with and without 16-bit loads. */
static void check_scalar_loads(const char *caps, const char *arch, uint32_t gate_up, uint32_t down, uint32_t attention, uint32_t output)
{
    struct rig r;
    const struct ref_testmodel o = of_types(arch, gate_up, down, attention, output);
    rig_device(&r, caps);
    bool can = runs_scalar_loads(vkm_device_caps(r.device));
    if (can) check_model(&r, &o, 13, arch);
    rig_close(&r);
    if (!can) cr_skip_test(NO_SCALAR_LOADS);
}

static uint32_t lines_of_pass(const struct rig *r, uint32_t n)
{
    static char text[1 << 16];
    uint32_t lines = 0;
    size_t length = vkm_session_print(r->session, n, false, text, sizeof text);
    cr_assert(length < sizeof text);
    for (const char *at = text; (at = strchr(at, '\n')); at++) lines++;
    return lines;
}

/* A token more than tiles of eight hold costs dense matrices no dispatch. */
Test(types, scalar_loads_equal_tiles)
{
    static const uint32_t ns[] = {9, 17, 25, 33};
    const struct ref_testmodel o = of_types("qwen3moe", REF_Q8_0, REF_Q8_0, REF_Q8_0, REF_Q8_0);
    struct answers a;
    struct rig r;
    answers_make(&a, o, 8);
    rig_open(&r, "scalar", a.path, f32);
    bool can = runs_scalar_loads(vkm_device_caps(r.device));
    for (size_t i = 0; can && i < VKM_COUNT(ns); i++) cr_expect_eq(lines_of_pass(&r, ns[i]), lines_of_pass(&r, 8), "%u tokens", ns[i]);
    rig_close(&r);
    answers_free(&a);
    if (!can) cr_skip_test(NO_SCALAR_LOADS);
}
Test(types, scalar_loads_1) { FIRST_DRIVER_ONLY(); check_scalar_loads("scalar", "qwen3moe", REF_Q4_0, REF_Q6_K, REF_Q8_0, REF_F16); }
Test(types, scalar_loads_2) { FIRST_DRIVER_ONLY(); check_scalar_loads("scalar", "llama", REF_Q4_K, REF_Q5_0, REF_Q5_1, REF_BF16); }
Test(types, scalar_loads_3) { FIRST_DRIVER_ONLY(); check_scalar_loads("scalar", "olmoe", REF_Q5_K, REF_Q4_1, REF_F32, REF_Q8_0); }
Test(types, scalar_loads_4) { FIRST_DRIVER_ONLY(); check_scalar_loads("scalar", "olmoe", REF_F16, REF_F16, REF_F16, REF_F16); }
Test(types, scalar_loads_of_words) { FIRST_DRIVER_ONLY(); check_scalar_loads("subgroup,scalar", "olmoe", REF_F16, REF_F16, REF_F16, REF_F16); }

/* Loads by way of texel buffers, also on CPU drivers that are not faster so. Every type once. */
static void check_texel_loads(const char *arch, uint32_t gate_up, uint32_t down, uint32_t attention, uint32_t output)
{
    struct rig r;
    const struct ref_testmodel o = of_types(arch, gate_up, down, attention, output);
    rig_device(&r, "texel");
    bool can = vkm_device_caps(r.device)->texel_loads;
    if (can) check_model(&r, &o, few_tokens(), arch);
    rig_close(&r);
    if (!can) cr_skip_test("the driver has no storage texel buffers of the size of its storage range");
}
Test(types, texel_loads_1) { check_texel_loads("qwen3moe", REF_Q4_0, REF_Q6_K, REF_Q8_0, REF_F16); }
Test(types, texel_loads_2) { check_texel_loads("llama", REF_Q4_K, REF_Q5_0, REF_Q5_1, REF_BF16); }
Test(types, texel_loads_3) { check_texel_loads("olmoe", REF_Q5_K, REF_Q4_1, REF_F32, REF_Q8_0); }

/* ---------------------------------------------------------------- tiers that give up exactness
 * Against the reference, never against vkmoe's own f32; models whose routers decide clearly, for a token with another expert has other logits. All types, in models of mixed types;
 * prompts in one pass, with tiles of many sizes, then token by token. */

/* seed: of a router that is clear for the prompt and three tokens, by more than what rounding moves it. ragged: gate and up of unlike types, biases, widths of no whole blocks. */
struct tier_case { const char *arch; uint32_t gate, up, down, attention, output; bool ragged; uint32_t prompt; double margin; uint64_t seed; };

static void check_tier_model(struct rig *r, const struct tier_case *c, double most, bool same_bits, const char *what)
{
    struct answers a;
    struct ref_testmodel o = of_type(c->arch, c->gate, c->seed);
    uint32_t n = c->prompt + 3;
    char text[96];
    o.type_up = c->up; o.type_down = o.type_embd = c->down; o.type_attn = o.type_shared = c->attention; o.type_output = c->output;
    o.layers = 1; o.experts = 4; o.used = 2;
    if (c->ragged) { o.hidden = 96; o.heads = 3; o.kv_heads = 1; o.head_dim = 32; o.width = 160; o.vocab = 301; o.shared_width = 96; o.qkv_bias = true; }
    snprintf(text, sizeof text, "%s, %s of types %u, %u, %u, %u, %u", what, c->arch, c->gate, c->up, c->down, c->attention, c->output);
    answers_make_apart(&a, o, n, c->margin);
    rig_load(r, a.path);
    rig_session(r, (vkm_session_params){.n_ctx = n, .kv_type = VKM_KV_F32});
    if (!strcmp(what, "gpu shape")) use_gpu_shape(r, 32);
    float *at_once = check_answers(r, &a, n, 0, most, text), *prefill = check_answers(r, &a, n, c->prompt, most, text), *singly = check_answers(r, &a, 5, 1, most, text);
    cr_assert(ref_nmse_f32(a.logits, at_once, (size_t)n * a.n_vocab) > 1e-10, "%s: as exact as f32, so not of this tier", text);
    if (same_bits) {
        check_same(at_once, prefill, n, a.n_vocab, text);
        check_same(at_once, singly, 5, a.n_vocab, text);
    }
    free(at_once);
    free(prefill);
    free(singly);
    rig_unload(r);
    answers_free(&a);
}

static void check_tier(enum vkm_tier tier, const char *caps, const struct tier_case *cases, size_t n, size_t most_cases, double most, bool same_bits, const char *what)
{
    struct rig r;
    rig_device(&r, caps);
    bool can = vkm_device_caps(r.device)->tiers & VKM_TIER_BIT(tier);
    for (size_t i = 0; can && i < (full() ? n : most_cases); i++) check_tier_model(&r, &cases[i], most, same_bits, what);
    rig_close(&r);
    if (!can) cr_skip_test("the device or this build has no such tier");
}
/* most_cases: unless VKMOE_TEST_FULL. lavapipe compiles such kernels for seconds; test_kernels has every type of int8dot. */
#define TIER_TEST(name, tier, caps, most_cases, most, same_bits, ...) Test(tiers, name) { static const struct tier_case cases[] = {__VA_ARGS__}; \
    check_tier(tier, caps, cases, VKM_COUNT(cases), most_cases, most, same_bits, #name); }

TIER_TEST(int8dot, VKM_TIER_INT8DOT, "int8dot", 1, NMSE_INT8DOT, true,
          {"qwen2moe", REF_Q4_K, REF_Q4_K, REF_Q6_K, REF_Q5_K, REF_Q5_1, false, 9, 0.15, 1},          /* 12 rows, and single ones */
          {"qwen2moe", REF_Q4_0, REF_Q8_0, REF_Q5_0, REF_Q4_1, REF_Q4_0, true, 6, 0.1, 3})
TIER_TEST(coopmat, VKM_TIER_COOPMAT, "coopmat", 1, NMSE_COOPMAT, false,
          {"qwen2moe", REF_Q4_0, REF_Q8_0, REF_Q5_0, REF_Q4_1, REF_F32, true, 43, 0.005, 1},
          {"qwen2moe", REF_Q4_K, REF_Q4_K, REF_Q6_K, REF_Q5_K, REF_Q5_1, false, 75, 0.005, 1},
          {"qwen3moe", REF_F16, REF_F16, REF_BF16, REF_F32, REF_BF16, false, 33, 0.005, 1})
Test(tiers, coopmat_gpu_shape)
{
    static const struct tier_case c = {"qwen3moe", REF_Q8_0, REF_Q8_0, REF_Q8_0, REF_Q8_0, REF_Q8_0, false, 75, 0.005, 3};
    if (!full()) cr_skip_test("only with VKMOE_TEST_FULL: lavapipe compiles its kernels for minutes");
    check_tier(VKM_TIER_COOPMAT, "coopmat", &c, 1, 1, NMSE_COOPMAT, false, "gpu shape");
}
TIER_TEST(both, VKM_TIER_COOPMAT, "int8dot,coopmat", 1, NMSE_INT8DOT, false, {"olmoe", REF_Q8_0, REF_Q8_0, REF_Q8_0, REF_Q8_0, REF_Q8_0, false, 20, 0.1, 1})

/* The other architectures, with a type that files mostly have. */
Test(types, other_architectures)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    rig_device(&r, NULL);
    for (size_t i = 0; i < VKM_COUNT(architectures); i++)
        for (size_t t = 0; t < VKM_COUNT(types); t++) {
            if (!strcmp(architectures[i], "qwen2moe") || (!full() && types[t].id != REF_Q4_K)) continue;
            struct ref_testmodel o = of_type(architectures[i], types[t].id, full() ? 4 : 1);
            char what[64];
            snprintf(what, sizeof what, "%s %s", architectures[i], types[t].name);
            check_model(&r, &o, few_tokens(), what);
        }
    rig_close(&r);
}

/* ---------------------------------------------------------------- shapes */

struct shape_case { const char *what, *arch; uint32_t type, hidden, width, experts, used, heads, kv_heads, head_dim, vocab, prompt; uint64_t seed; };

static void check_shapes(const struct shape_case *cases, size_t n)
{
    struct rig r;
    rig_device(&r, NULL);
    for (size_t i = 0; i < n; i++) {
        const struct shape_case *c = &cases[i];
        struct ref_testmodel o = ref_testmodel_default(c->arch);
        o.layers = 1;
        o.seed = c->seed;
        if (c->type) o.type_gate = o.type_up = o.type_down = o.type_attn = o.type_embd = o.type_output = c->type;
        if (c->hidden) o.hidden = c->hidden, o.head_dim = c->hidden / o.heads;
        if (c->width) o.width = c->width;
        if (c->experts) o.experts = c->experts;
        if (c->used) o.used = c->used;
        if (c->heads) o.heads = c->heads, o.kv_heads = c->kv_heads, o.head_dim = c->head_dim;
        if (c->vocab) o.vocab = c->vocab;
        check_model(&r, &o, c->prompt ? c->prompt : 33, c->what);
    }
    rig_close(&r);
}
#define SHAPES(...) do { static const struct shape_case cases[] = {__VA_ARGS__}; check_shapes(cases, VKM_COUNT(cases)); } while (0)

Test(shapes, widths)
{
    FIRST_DRIVER_ONLY();
    SHAPES({"hidden 96", "llama", .hidden = 96, .width = 96, .seed = 1},
           {"width 40, not of whole blocks", "llama", .width = 40, .seed = 2},
           {"hidden 72, not of whole blocks", "llama", .hidden = 72, .width = 8, .heads = 3, .kv_heads = 1, .head_dim = 24, .seed = 1},
           {"width 960", "qwen3moe", .type = REF_Q8_0, .width = 960, .seed = 1},
           {"width 1408", "olmoe", .type = REF_Q8_0, .width = 1408, .seed = 1},
           {"vocabulary of 1037", "llama", .vocab = 1037, .seed = 1});
}

Test(shapes, experts)
{
    SHAPES({"60 experts, 4", "qwen2moe", .experts = 60, .used = 4, .seed = 1},
           {"128 experts, 8", "qwen3moe", .experts = 128, .used = 8, .prompt = 40, .seed = 1},
           {"512 experts, 10", "qwen3moe", .experts = 512, .used = 10, .seed = 1});
}

Test(shapes, few_experts)
{
    FIRST_DRIVER_ONLY();
    SHAPES({"all experts", "llama", .experts = 5, .used = 5, .seed = 1},
           {"all 32 experts", "granitemoe", .experts = 32, .used = 32, .seed = 1},
           {"one expert", "llama", .experts = 1, .used = 1, .prompt = 50, .seed = 1},
           {"one of two", "olmoe", .experts = 2, .used = 1, .seed = 1});
}

Test(shapes, most_experts) { SHAPES({"1024 experts, 32", "qwen3moe", .experts = 1024, .used = 32, .prompt = 17, .seed = 1}); }

Test(shapes, heads)
{
    SHAPES({"heads of 48", "qwen3moe", .heads = 2, .kv_heads = 1, .head_dim = 48, .seed = 1},
           {"heads of 80", "llama", .heads = 2, .kv_heads = 2, .head_dim = 80, .seed = 1},
           {"heads of 128", "qwen3moe", .heads = 2, .kv_heads = 1, .head_dim = 128, .seed = 1},
           {"one head", "llama", .heads = 1, .kv_heads = 1, .head_dim = 64, .seed = 1},
           {"8 query heads a key head", "qwen3moe", .heads = 8, .kv_heads = 1, .head_dim = 16, .seed = 1},
           {"3 query heads a key head", "llama", .heads = 6, .kv_heads = 2, .head_dim = 16, .seed = 2});
}

/* ---------------------------------------------------------------- features */

/* One device for several models, for many drivers compile again for another. */
#define FEATURE(what, arch, ...) do { struct ref_testmodel o = ref_testmodel_default(arch); o.layers = 2; __VA_ARGS__; check_model(&r, &o, few_tokens(), what); } while (0)
#define QKV(...) static const uint32_t qkv[3] = {__VA_ARGS__}; o.type_qkv = qkv

Test(features, unlike_types)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    rig_device(&r, NULL);
    FEATURE("mixed types", "llama", o.hidden = o.width = 256; o.heads = 4; o.head_dim = 64; o.type_gate = REF_Q4_K; o.type_up = REF_Q4_K; o.type_down = REF_Q6_K;
            o.type_attn = REF_Q5_K; o.type_embd = REF_Q4_0; o.type_output = REF_Q6_K);
    FEATURE("gate and up apart", "qwen2moe", o.seed = 2; o.type_gate = REF_Q8_0; o.type_up = REF_F16; o.type_shared = REF_F16);
    FEATURE("gate and up apart narrow", "llama", o.seed = 2; o.type_gate = REF_F16; o.width = 40);
    FEATURE("a tensor an expert", "llama", o.seed = 2; o.per_expert_tensors = true; o.type_gate = o.type_up = REF_Q8_0);
    FEATURE("a tensor an expert apart", "llama", o.seed = 2; o.per_expert_tensors = true; o.type_gate = REF_Q8_0);
    FEATURE("fused gate up", "qwen3moe", o.fused_gate_up = true; o.width = 48);
    FEATURE("q k v apart", "qwen2moe", o.seed = 2; QKV(REF_Q8_0, REF_F16, REF_Q4_0));
    FEATURE("q apart", "qwen2moe", o.seed = 2; QKV(REF_F16, REF_Q8_0, REF_Q8_0));
    FEATURE("v apart", "olmoe", QKV(REF_Q8_0, REF_Q8_0, REF_F16));
    FEATURE("router f16", "olmoe", o.type_router = REF_F16);
    FEATURE("router f16 shared", "qwen2moe", o.seed = 2; o.type_router = REF_F16);
    FEATURE("tied output", "llama", o.tied = true);
    FEATURE("tied output quantised", "granitemoe", o.type_embd = REF_Q8_0);
    rig_close(&r);
}

Test(features, attention)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    rig_device(&r, NULL);
    FEATURE("yarn", "qwen3moe", o.rope_scaling = "yarn"; o.rope_factor = 4; o.rope_original_context = 128);
    FEATURE("linear", "llama", o.rope_scaling = "linear"; o.rope_factor = 3);
    FEATURE("partial rotary", "llama", o.n_rot = 6);
    FEATURE("partial rotary halves", "olmoe", o.n_rot = 10);
    FEATURE("rope freqs", "llama", o.rope_freqs = true);
    FEATURE("clamp kqv", "olmoe", o.clamp_kqv = 0.5);
    FEATURE("clamp kqv without norm", "llama", o.clamp_kqv = 0.3);
    FEATURE("biases", "qwen3moe", o.qkv_bias = o.o_bias = true);
    FEATURE("biases behind padding", "qwen3moe", o.qkv_bias = true; o.hidden = 72; o.heads = 3; o.kv_heads = 1; o.head_dim = 24);   /* 72 and 24 rows: panels that are not whole */
    FEATURE("norms behind padding", "olmoe", o.seed = 2; o.hidden = 72; o.heads = 3; o.kv_heads = 1; o.head_dim = 24);
    rig_close(&r);
}

Test(features, granite)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    rig_device(&r, NULL);
    FEATURE("granite shared", "granitemoe", o.shared_width = 48);
    FEATURE("granite scales", "granitemoe", o.embd_scale = 3; o.residual_scale = 0.7; o.attn_scale = 0.3; o.logit_scale = 0.5; o.tied = false);
    FEATURE("granite no scales", "granitemoe", o.embd_scale = o.residual_scale = o.attn_scale = o.logit_scale = 0);
    rig_close(&r);
}

/* Positions beyond 256, where the second table of angles comes in, and a KV cache of several hundred keys. */
Test(features, long_context)
{
    struct answers a;
    struct rig r;
    struct ref_testmodel o = ref_testmodel_default("qwen3moe");
    o.layers = 1; o.context = 1024; o.seed = 2;
    answers_make(&a, o, 700);
    rig_open(&r, NULL, a.path, (vkm_session_params){.n_ctx = 700, .n_batch = 128, .kv_type = VKM_KV_F32});
    free(check_answers(&r, &a, 700, 0, NMSE_F32, "long context"));
    rig_close(&r);
    answers_free(&a);
}

/* ---------------------------------------------------------------- golden files */

/* expected [n][n_vocab] of a file made elsewhere */
static void check_golden(struct rig *r, const char *path, const int32_t *tokens, const struct ref_npy *expected, bool kv16)
{
    char what[600];
    rig_load(r, path);
    cr_assert_eq(expected->cols, r->model->h.n_vocab, "%s", path);
    rig_session(r, (vkm_session_params){.n_ctx = 64, .kv_type = kv16 ? VKM_KV_F16 : VKM_KV_F32});
    for (uint32_t step = 0; step < 2; step++) {
        float *logits = eval_steps(r, tokens, (uint32_t)expected->rows, step);
        snprintf(what, sizeof what, "%s, KV %s%s", strstr(path, "golden"), kv16 ? "f16" : "f32", step ? ", singly" : "");
        check_nmse(expected->x, logits, expected->rows * expected->cols, kv16 ? NMSE_F16 : NMSE_F32, what);
        free(logits);
    }
    rig_unload(r);
}

static void read_tokens(const char *path, int32_t *tokens, size_t n)
{
    FILE *f = fopen(path, "r");
    cr_assert(f, "%s", path);
    for (size_t i = 0; i < n; i++) cr_assert_eq(fscanf(f, "%d", &tokens[i]), 1, "%s", path);
    fclose(f);
}

static void check_transformers(bool kv16)
{
    glob_t files;
    struct rig r;
    cr_assert_eq(glob(VKMOE_TESTS_DIR "/golden/transformers/*.gguf", 0, NULL, &files), 0);
    cr_assert_geq(files.gl_pathc, 5);
    rig_device(&r, NULL);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char path[512];
        int stem = (int)strlen(files.gl_pathv[i]) - 5;
        struct ref_npy expected;
        int32_t tokens[64];
        snprintf(path, sizeof path, "%.*s.logits.npy", stem, files.gl_pathv[i]);
        cr_assert(ref_npy_load(path, &expected) && expected.rows <= VKM_COUNT(tokens), "%s", path);
        snprintf(path, sizeof path, "%.*s.tokens", stem, files.gl_pathv[i]);
        read_tokens(path, tokens, expected.rows);
        check_golden(&r, files.gl_pathv[i], tokens, &expected, kv16);
        ref_npy_free(&expected);
    }
    globfree(&files);
    rig_close(&r);
}

Test(golden, transformers) { check_transformers(false); }
Test(golden, transformers_kv_f16) { FIRST_DRIVER_ONLY(); check_transformers(true); }

Test(golden, oracle)
{
    FIRST_DRIVER_ONLY();
    struct ref_npy ids;
    struct rig r;
    int32_t tokens[64];
    cr_assert(ref_npy_load(VKMOE_TESTS_DIR "/golden/oracle/tokens.npy", &ids) && ids.rows <= VKM_COUNT(tokens));
    for (size_t i = 0; i < ids.rows; i++) tokens[i] = (int32_t)ids.x[i];
    rig_device(&r, NULL);
    for (size_t i = 0; i < VKM_COUNT(architectures); i++) {
        char path[512];
        struct ref_npy expected;
        snprintf(path, sizeof path, "%s/golden/oracle/%s.npy", VKMOE_TESTS_DIR, architectures[i]);
        cr_assert(ref_npy_load(path, &expected) && expected.rows == ids.rows, "%s", path);
        snprintf(path, sizeof path, "%s/golden/oracle/%s.gguf", VKMOE_TESTS_DIR, architectures[i]);
        check_golden(&r, path, tokens, &expected, false);
        ref_npy_free(&expected);
    }
    ref_npy_free(&ids);
    rig_close(&r);
}

/* ---------------------------------------------------------------- the same bits */

/* Run to run, in a fresh session, and however the tokens are cut into calls and passes; with shapes of this device and of GPUs. */
static void check_bits(const char *arch, uint32_t type, uint64_t seed, uint32_t gpu_subgroup)
{
    enum { N = 50 };
    struct answers a;
    struct rig r;
    char what[96];
    struct ref_testmodel o = of_type(arch, type, seed);
    if (gpu_subgroup && !full()) o.layers = 1;
    if (gpu_subgroup) o.experts = 72, o.used = 3;   /* more than moe_route takes */
    snprintf(what, sizeof what, "%s type %u%s", arch, type, gpu_subgroup ? ", shapes of a GPU" : "");
    answers_make(&a, o, N);
    rig_open(&r, gpu_subgroup ? "gather" : NULL, a.path, (vkm_session_params){.n_ctx = 64, .kv_type = VKM_KV_F32});
    if (gpu_subgroup) use_gpu_shape(&r, gpu_subgroup);
    float *first = check_answers(&r, &a, N, 0, NMSE_F32, what);
    static const uint32_t steps[] = {0, 7, 33, 1, 4, 16};  /* from 1 on with VKMOE_TEST_FULL; architectures too are cut into single tokens */
    for (size_t i = 0; i < (full() ? VKM_COUNT(steps) : 3); i++) {
        float *again = eval_steps(&r, a.tokens, N, steps[i]);
        check_same(first, again, N, a.n_vocab, what);
        free(again);
    }
    rig_session(&r, (vkm_session_params){.n_ctx = 64, .n_batch = 16, .kv_type = VKM_KV_F32});
    if (gpu_subgroup) use_gpu_shape(&r, gpu_subgroup);
    float *passes = eval_steps(&r, a.tokens, N, 0);
    check_same(first, passes, N, a.n_vocab, what);
    free(passes);
    free(first);
    rig_close(&r);
    answers_free(&a);
}

Test(bits, f32) { check_bits("llama", REF_F32, 1, 0); }
Test(bits, q4_k) { FIRST_DRIVER_ONLY(); check_bits("qwen2moe", REF_Q4_K, 1, 0); }
Test(bits, gpu_shapes) { FULL_ONLY(); check_bits("qwen2moe", REF_Q8_0, 1, 32); }
Test(bits, gpu_shapes_64)
{
    if (!full()) cr_skip_test("compiles for long: with VKMOE_TEST_FULL");
    check_bits("granitemoe", REF_F32, 2, 64);
}

/* registers: of a lane, where they are few; 0: many. A GPU has steps of its own for single tokens, and for up to VKM_JOINED_ROWS (norms of dense matrices VKM_FEW_ROWS): positions within attention, experts within the router, norms within what follows them, sums of experts within their matmul. */
static void check_few_tokens(const char *caps, uint32_t registers, uint32_t type, uint32_t experts, uint32_t tiles, uint64_t seed, double margin, double nmse)
{
    enum { N = VKM_JOINED_ROWS + 3 };                 /* at once: more than have such steps */
    static const uint32_t few[] = {1, VKM_FEW_ROWS, VKM_JOINED_ROWS};
    struct answers a;
    struct rig r;
    struct ref_testmodel o = of_type("qwen3moe", type, seed);
    o.layers = 2; o.hidden = 160; o.experts = experts; o.used = 3;
    if (margin > 0) answers_make_apart(&a, o, N, margin);
    else answers_make(&a, o, N);
    rig_open(&r, caps, a.path, (vkm_session_params){.n_ctx = 64});
    use_gpu_shape(&r, 32);
    r.session->shape.holds_many = !registers, r.session->shape.lane_registers = registers;
    if (tiles) vkm_shape_tiles(&r.session->shape, tiles);
    r.session->shape.reduce_lanes = 32;              /* or rows would have to be wider than 512 for all of it */
    float *at_once = check_answers(&r, &a, N, 0, nmse, "at once");
    for (size_t i = 0; i < VKM_COUNT(few); i++) {
        char what[64];
        snprintf(what, sizeof what, "%s, %u at a time", caps, few[i]);
        float *so = check_answers(&r, &a, N, few[i], nmse, what);
        check_same(at_once, so, N, a.n_vocab, what);
        free(so);
    }
    uint32_t programs = 0;
    for (uint32_t i = 0; i < VKM_PROGRAMS; i++) {
        const vkm_program *p = r.session->slots[i].program;
        const uint32_t n = r.session->slots[i].recipe.n;
        static const char *const within[] = {"ffn_norm", "moe_topk", "moe_count", "moe_permute", "moe_combine", "attn_norm"};
        if (!p || n == 0 || n > VKM_JOINED_ROWS) continue;
        programs++;
        for (uint32_t k = 0; k < vkm_program_step_count(p); k++)
            for (size_t j = 0; j < VKM_COUNT(within) - (n > VKM_FEW_ROWS); j++)
                cr_expect(!strstr(vkm_program_step(p, k)->label, within[j]), "%s: of %u tokens %s is a step of its own", caps, n, within[j]);
    }
    cr_assert_gt(programs, 2);
    free(at_once);
    rig_close(&r);
    answers_free(&a);
}

Test(bits, few_tokens_of_a_gpu)
{
    FIRST_DRIVER_ONLY();
    check_few_tokens("gather", 0, REF_F32, 72, 0, 3, 0, NMSE_F16);
}
Test(bits, few_tokens_of_few_experts)                /* which have more tiles than four bits count */
{
    FIRST_DRIVER_ONLY();
    check_few_tokens("gather", 0, REF_F32, 4, 1, 3, 0, NMSE_F16);
}
Test(bits, few_tokens_of_other_gpus)
{
    FULL_ONLY();
    check_few_tokens("gather", 128, REF_F32, 72, 0, 3, 0, NMSE_F16);
    check_few_tokens("gather", 64, REF_F32, 72, 0, 3, 0, NMSE_F16);
    check_few_tokens("baseline", 0, REF_F32, 72, 0, 3, 0, NMSE_F16);
    check_few_tokens("gather,int8dot", 0, REF_Q8_0, 8, 0, 5117, 0.1, NMSE_INT8DOT);
}

/* A token's logits do not depend on what comes after it, nor on other tokens of the pass routed to the same experts. */
Test(bits, prefixes)
{
    FIRST_DRIVER_ONLY();
    struct answers a;
    struct rig r;
    struct ref_testmodel o = ref_testmodel_default("qwen3moe");
    o.seed = 2;
    answers_make(&a, o, 70);
    rig_open(&r, NULL, a.path, f32);
    float *all = eval_steps(&r, a.tokens, 70, 0);
    for (uint32_t n = 1; n < 70; n += full() ? 1 : 9) {
        float *some = eval_steps(&r, a.tokens, n, 0);
        check_same(all, some, n, a.n_vocab, "prefix");
        free(some);
    }
    free(all);
    rig_close(&r);
    answers_free(&a);
}

/* ---------------------------------------------------------------- limits of devices */

struct clamp_case { const char *caps; bool same_bits; uint32_t least_slabs, least_sets, least_kv; };

static void check_clamps(const struct ref_testmodel *o, uint32_t n, uint32_t n_ctx, const struct clamp_case *cases, size_t n_cases)
{
    struct answers a;
    struct rig r;
    vkm_session_params params = {.n_ctx = n_ctx, .kv_type = VKM_KV_F32};
    answers_make(&a, *o, n);
    rig_open(&r, NULL, a.path, params);
    float *plain = check_answers(&r, &a, n, 0, NMSE_F32, "no clamp");
    rig_close(&r);
    for (size_t i = 0; i < n_cases; i++) {
        const struct clamp_case *c = &cases[i];
        rig_open(&r, c->caps, a.path, params);
        cr_assert_geq(r.model->weights.n_slabs, c->least_slabs, "%s: %u slabs", c->caps, r.model->weights.n_slabs);
        cr_assert_geq(r.model->weights.n_sets, c->least_sets, "%s: %u sets", c->caps, r.model->weights.n_sets);
        cr_assert_geq(r.session->n_kv, c->least_kv, "%s: %u KV buffers", c->caps, r.session->n_kv);
        for (uint32_t step = 0; step < 2; step++) {
            float *logits = check_answers(&r, &a, n, step, NMSE_F32, c->caps);
            if (c->same_bits) check_same(plain, logits, n, a.n_vocab, c->caps);
            free(logits);
        }
        rig_close(&r);
    }
    free(plain);
    answers_free(&a);
}

/* Small matrices under very small ranges: experts over several slabs, a matrix in several chunks, layers over several sets, K and V apart, passes of few tokens.
 * The numbers of slabs are constants of every kernel: few different ones, for each is another compilation of all. */
Test(clamps, small)
{
    FIRST_DRIVER_ONLY();
    static const struct clamp_case cases[] = {
        {"range=131072,slabs=2,kv_slabs=2", true, 4, 2, 3},
        {"range=65536", true, 10, 1, 6},
        {"staged", true, 1, 1, 1},
        {"range=262144,slabs=1,kv_slabs=1", true, 2, 2, 1},                                               /* from here on with VKMOE_TEST_FULL */
        {"baseline,range=131072,slabs=2,kv_slabs=2,shared=16384,invocations=128", false, 4, 2, 3},
    };
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    o.seed = 2;
    check_clamps(&o, 40, 256, cases, VKM_COUNT(cases) - (full() ? 0 : 2));
}

Test(clamps, medium)
{
    FULL_ONLY();
    static const struct clamp_case cases[] = {{"range=1048576", true, 10, 1, 2}, {"range=4194304,slabs=2,kv_slabs=2", true, 4, 2, 1}, {"range=2097152,slabs=2,kv_slabs=2,staged", true, 6, 2, 1}};
    struct ref_testmodel o = of_type("qwen3moe", REF_F32, 1);
    check_clamps(&o, 8, 1024, cases, VKM_COUNT(cases));
}

/* Limits of small GPUs, with a GPU's shapes: fewer lanes, fewer splits. */
Test(clamps, gpu_shapes)
{
    FIRST_DRIVER_ONLY();
    static const char *const caps[] = {"gather,invocations=64", "baseline", "gather,shared=8192"};    /* the last with VKMOE_TEST_FULL */
    struct answers a;
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    o.seed = 2;
    answers_make(&a, o, 8);
    for (size_t i = 0; i < VKM_COUNT(caps) - !full(); i++) {
        struct rig r;
        rig_open(&r, caps[i], a.path, f32);
        use_gpu_shape(&r, 32);
        float *at_once = check_answers(&r, &a, 8, 0, NMSE_F32, caps[i]), *singly = check_answers(&r, &a, 8, 1, NMSE_F32, caps[i]);
        check_same(at_once, singly, 8, a.n_vocab, caps[i]);
        free(at_once);
        free(singly);
        rig_close(&r);
    }
    answers_free(&a);
}

/* What cannot be bound at once is told, not tried. */
Test(clamps, too_small)
{
    struct answers a;
    struct rig r;
    vkm_error err = {0};
    vkm_model *m = NULL;
    struct ref_testmodel o = ref_testmodel_default("llama");
    o.experts = 64;
    cr_assert(ref_testmodel_save(&o, a.path));
    rig_device(&r, "range=131072,slabs=1");
    FAILS(vkm_model_load(r.device, a.path, NULL, &m, &err), VKM_ERR_LIMIT);
    cr_assert(strstr(err.message, "exps.weight") && !m, "%s", err.message);
    rig_close(&r);
    unlink(a.path);
}
