/* The references themselves: dequantisation against gguf-py, the whole model against an independent numpy forward pass that was compared with
 * llama.cpp (golden/make_oracle.py), and the properties that no golden file covers. */
#include "gguf/gguf.h"
#include "reference/compare.h"
#include "reference/dequant.h"
#include "reference/model.h"
#include "reference/npy.h"
#include "reference/testmodel.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const architectures[] = {"llama", "olmoe", "qwen2moe", "qwen3moe", "granitemoe"};
static const uint32_t types[] = {REF_F32, REF_F16, REF_BF16, REF_Q4_0, REF_Q4_1, REF_Q5_0, REF_Q5_1, REF_Q8_0, REF_Q4_K, REF_Q5_K, REF_Q6_K};

static const char *golden(const char *name, const char *suffix)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/golden/oracle/%s%s", VKMOE_TESTS_DIR, name, suffix);
    return path;
}

/* ---------------------------------------------------------------- dequantisation */

Test(reference, dequant_is_bit_exact)
{
    vkm_gguf *g;
    vkm_error err;
    cr_assert_eq(vkm_gguf_open(golden("dequant", ".gguf"), &g, &err), VKM_OK, "%s", err.message);
    for (size_t i = 1; i < VKM_COUNT(types); i++) {
        char name[32];
        const char *type = vkm_ggml_type_find(types[i])->name;
        snprintf(name, sizeof name, "%s.f32", type);
        const struct vkm_gguf_tensor *raw = vkm_gguf_tensor_find(g, type), *expected = vkm_gguf_tensor_find(g, name);
        cr_assert(raw && expected && raw->type == types[i] && expected->bytes == raw->ne[0] * 4, "%s", type);
        float *x = malloc(expected->bytes);
        cr_assert(ref_dequant(raw->type, raw->data, raw->ne[0], x));
        cr_assert_eq(memcmp(x, expected->data, expected->bytes), 0, "%s", type);
        free(x);
    }
    vkm_gguf_close(g);
}

Test(reference, dequant_refuses_others) { cr_assert(!ref_dequant(16, "", 0, NULL) && !ref_dequant(4, "", 0, NULL) && !ref_dequant(1000, "", 0, NULL)); }

Test(reference, halves)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float x = ref_half((uint16_t)h);
        if (isnan(x)) cr_assert((h & 0x7c00) == 0x7c00 && (h & 0x3ff));
        else cr_assert_eq(ref_to_half(x), h, "%04x", h);
        x = ref_bf16((uint16_t)h);
        if (!isnan(x)) cr_assert_eq(ref_to_bf16(x), h, "%04x", h);
    }
    cr_assert_eq(ref_half(0x3c01), 1 + 0x1p-10f);
    cr_assert_eq(ref_half(0x0001), 0x1p-24f);
    cr_assert_eq(ref_half(0xfbff), -65504.0f);
    /* ties go to even, half the smallest subnormal to 0, anything from 65520 to infinity */
    cr_assert_eq(ref_to_half(1 + 0x1p-11f), 0x3c00);
    cr_assert_eq(ref_to_half(1 + 0x3p-11f), 0x3c02);
    cr_assert_eq(ref_to_half(0x1p-25f), 0);
    cr_assert_eq(ref_to_half(0x3p-25f), 2);
    cr_assert_eq(ref_to_half(0x1.ffcp-15f + 0x1p-25f), 0x0400);
    cr_assert_eq(ref_to_half(65519.0f), 0x7bff);
    cr_assert_eq(ref_to_half(-65520.0f), 0xfc00);
    cr_assert_eq(ref_to_bf16(1 + 0x1p-8f), 0x3f80);
    cr_assert_eq(ref_to_bf16(1 + 0x3p-8f), 0x3f82);
    cr_assert(isnan(ref_half(ref_to_half(NAN))) && isnan(ref_bf16(ref_to_bf16(NAN))));
}

Test(reference, random_blocks_have_the_wanted_spread)
{
    enum { N = 256 * 400 };
    static float x[N];
    static uint8_t blocks[N * 4];
    for (size_t t = 0; t < VKM_COUNT(types); t++) {
        struct ref_rng rng = ref_seed(t);
        double sum = 0, squares = 0;
        ref_random_blocks(&rng, types[t], N, 0.05, blocks);
        cr_assert(ref_dequant(types[t], blocks, N, x));
        for (int i = 0; i < N; i++) sum += x[i], squares += (double)x[i] * x[i];
        cr_assert(fabs(sqrt(squares / N) / 0.05 - 1) < 0.05, "type %u: %g", types[t], sqrt(squares / N));
        cr_assert(fabs(sum / N) < 0.005, "type %u: mean %g", types[t], sum / N);
    }
}

/* ---------------------------------------------------------------- the model against the oracle */

Test(reference, model_agrees_with_the_oracle)
{
    struct ref_npy ids;
    int32_t tokens[64];
    cr_assert(ref_npy_load(golden("tokens", ".npy"), &ids) && ids.rows <= VKM_COUNT(tokens));
    for (size_t i = 0; i < ids.rows; i++) tokens[i] = (int32_t)ids.x[i];
    for (size_t a = 0; a < VKM_COUNT(architectures); a++) {
        struct ref_model *m = NULL;
        struct ref_npy expected;
        struct ref_watch watch = {0};
        vkm_error err = {0};
        cr_assert_eq(ref_model_open(golden(architectures[a], ".gguf"), &m, &err), VKM_OK, "%s", err.message);
        cr_assert(ref_npy_load(golden(architectures[a], ".npy"), &expected) && expected.rows == ids.rows && expected.cols == m->n_vocab);
        double *logits = calloc(expected.rows * expected.cols, sizeof *logits);
        ref_model_eval(m, tokens, (uint32_t)ids.rows, logits, &watch);
        double nmse = ref_nmse(expected.x, logits, expected.rows * expected.cols);
        cr_assert(nmse < 1e-26, "%s: %g", architectures[a], nmse);
        cr_assert(watch.margin > 1e-3, "%s: the golden model has a near tie (%g)", architectures[a], watch.margin);
        free(logits);
        ref_npy_free(&expected);
        ref_model_free(m);
    }
    ref_npy_free(&ids);
}

/* ---------------------------------------------------------------- test models */

static struct ref_model *build(const struct ref_testmodel *o)
{
    struct ref_gguf w = ref_testmodel_build(o);
    struct ref_bytes b = ref_gguf_bytes(&w);
    vkm_gguf *g;
    vkm_error err = {0};
    struct ref_model *m = NULL;
    cr_assert_eq(vkm_gguf_open_memory(b.at, b.n, o->arch, &g, &err), VKM_OK, "%s", err.message);
    cr_assert_eq(ref_model_load(g, &m, &err), VKM_OK, "%s", err.message);
    vkm_gguf_close(g);
    ref_bytes_free(&b);
    ref_gguf_free(&w);
    return m;
}

enum { N_TOKENS = 12 };
static const int32_t some_tokens[N_TOKENS] = {1, 75, 104, 111, 111, 114, 259, 3, 200, 90, 104, 15};

static double *eval(const struct ref_model *m, struct ref_watch *watch)
{
    double *logits = calloc((size_t)N_TOKENS * m->n_vocab, sizeof *logits);
    ref_model_eval(m, some_tokens, N_TOKENS, logits, watch);
    return logits;
}

static double *eval_built(const struct ref_testmodel *o)
{
    struct ref_model *m = build(o);
    double *logits = eval(m, NULL);
    for (size_t i = 0; i < (size_t)N_TOKENS * o->vocab; i++) cr_assert(isfinite(logits[i]));
    ref_model_free(m);
    return logits;
}

static double difference(const struct ref_testmodel *a, const struct ref_testmodel *b)
{
    double *x = eval_built(a), *y = eval_built(b), nmse = ref_nmse(x, y, (size_t)N_TOKENS * a->vocab);
    free(x);
    free(y);
    return nmse;
}

Test(reference, every_architecture_and_type)
{
    for (size_t a = 0; a < VKM_COUNT(architectures); a++)
        for (size_t t = 0; t < VKM_COUNT(types); t++) {
            struct ref_testmodel o = ref_testmodel_default(architectures[a]);
            o.layers = 1;
            o.hidden = o.width = o.heads * o.head_dim;   /* rows of whole blocks everywhere */
            if (types[t] >= REF_Q4_K && types[t] <= REF_Q6_K) o.hidden = o.width = 256, o.head_dim = 64;
            if (o.shared_width) o.shared_width = o.width;
            o.type_gate = o.type_up = o.type_down = o.type_attn = o.type_shared = o.type_embd = o.type_output = types[t];
            double *logits = eval_built(&o), squares = 0;
            for (size_t i = 0; i < (size_t)N_TOKENS * o.vocab; i++) squares += logits[i] * logits[i];
            cr_assert(sqrt(squares / N_TOKENS / o.vocab) > 0.1, "%s type %u: all logits are near zero", architectures[a], types[t]);
            free(logits);
        }
}

Test(reference, same_options_same_bytes)
{
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    o.type_down = REF_Q4_0;
    struct ref_gguf w[3];
    for (int i = 0; i < 3; i++) {
        if (i == 2) o.seed++;
        w[i] = ref_testmodel_build(&o);
    }
    cr_assert(w[0].data.n == w[1].data.n && memcmp(w[0].data.at, w[1].data.at, w[0].data.n) == 0);
    cr_assert(memcmp(w[0].data.at, w[2].data.at, w[0].data.n) != 0);
    for (int i = 0; i < 3; i++) ref_gguf_free(&w[i]);
}

Test(reference, saved_to_a_file)
{
    struct ref_testmodel o = ref_testmodel_default("llama");
    char path[256];
    struct ref_model *m = NULL;
    vkm_error err;
    cr_assert(ref_testmodel_save(&o, path));
    vkm_result r = ref_model_open(path, &m, &err);
    unlink(path);
    cr_assert_eq(r, VKM_OK, "%s", err.message);
    cr_assert(m->n_embd == 64 && m->n_expert == 8 && m->n_used == 2 && m->n_head_kv == 2 && !m->arch.neox && m->arch.renormalise);
    ref_model_free(m);
}

/* The old file layout, a tensor per expert, holds the same numbers. */
Test(reference, a_tensor_per_expert)
{
    struct ref_testmodel stacked = ref_testmodel_default("llama"), single = stacked;
    single.per_expert_tensors = true;
    cr_assert_eq(difference(&stacked, &single), 0);
}

/* Row r of the fused tensor is row r of gate, or row r - width of up. */
Test(reference, fused_gate_up)
{
    struct ref_testmodel o = ref_testmodel_default("qwen3moe");
    o.fused_gate_up = true;
    struct ref_gguf w = ref_testmodel_build(&o);
    struct ref_bytes b = ref_gguf_bytes(&w);
    struct ref_model *m = build(&o);
    vkm_gguf *g;
    cr_assert_eq(vkm_gguf_open_memory(b.at, b.n, "fused", &g, NULL), VKM_OK);
    const float *both = vkm_gguf_tensor_find(g, "blk.1.ffn_gate_up_exps.weight")->data;
    const struct ref_layer *y = &m->layers[1];
    size_t row = o.hidden * sizeof(float);
    for (uint32_t e = 0; e < o.experts; e++)
        for (uint32_t r = 0; r < o.width; r++) {
            cr_assert_eq(memcmp(y->gate.w + (e * o.width + r) * o.hidden, both + (e * 2 * o.width + r) * o.hidden, row), 0);
            cr_assert_eq(memcmp(y->up.w + (e * o.width + r) * o.hidden, both + (e * 2 * o.width + o.width + r) * o.hidden, row), 0);
        }
    free(eval(m, NULL));
    vkm_gguf_close(g);
    ref_model_free(m);
    ref_bytes_free(&b);
    ref_gguf_free(&w);
}

Test(reference, every_option_matters)
{
    struct ref_testmodel plain = ref_testmodel_default("llama"), o;
#define CHANGES(change)                                      \
    do {                                                     \
        o = plain, change;                                   \
        cr_assert(difference(&plain, &o) > 1e-6, #change);   \
    } while (0)
    CHANGES(o.rope_base = 500);
    CHANGES((o.rope_scaling = "linear", o.rope_factor = 4));
    CHANGES((o.rope_scaling = "yarn", o.rope_factor = 4, o.rope_original_context = 64));
    CHANGES(o.rope_freqs = true);
    CHANGES(o.n_rot = 8);
    CHANGES(o.clamp_kqv = 0.5);
    CHANGES(o.embd_scale = 3);
    CHANGES(o.residual_scale = 0.5);
    CHANGES(o.attn_scale = 0.1);
    CHANGES(o.logit_scale = 2);
    CHANGES(o.qkv_bias = true);
    CHANGES(o.o_bias = true);
    CHANGES(o.shared_width = 16);
    CHANGES(o.tied = true);
    CHANGES(o.used = 3);
#undef CHANGES
}

/* ---------------------------------------------------------------- properties */

Test(reference, rope_frequencies)
{
    struct ref_testmodel o = ref_testmodel_default("llama");
    struct ref_model *plain = build(&o);
    o.rope_scaling = "linear", o.rope_factor = 4;
    struct ref_model *linear = build(&o);
    o.rope_scaling = "none";
    struct ref_model *none = build(&o);
    o.rope_scaling = "yarn", o.rope_original_context = 32;   /* fast pairs keep their frequency, the slowest is divided */
    struct ref_model *yarn = build(&o);
    for (uint32_t j = 0; j < 8; j++) {
        cr_assert_float_eq(plain->rope_freq[j], pow(10000, -(double)j / 8), 1e-15);
        cr_assert_float_eq(linear->rope_freq[j], plain->rope_freq[j] / 4, 1e-15);
        cr_assert_eq(none->rope_freq[j], plain->rope_freq[j]);
        cr_assert(yarn->rope_freq[j] <= plain->rope_freq[j] && yarn->rope_freq[j] >= plain->rope_freq[j] / 4);
    }
    cr_assert_eq(yarn->rope_freq[0], 1);
    cr_assert_float_eq(yarn->rope_freq[7], plain->rope_freq[7] / 4, 1e-15);
    cr_assert_float_eq(yarn->rope_mscale, 0.1 * log(4) + 1, 1e-15);
    ref_model_free(plain);
    ref_model_free(linear);
    ref_model_free(none);
    ref_model_free(yarn);
}

Test(reference, later_tokens_change_nothing_before)
{
    struct ref_testmodel o = ref_testmodel_default("olmoe");
    struct ref_model *m = build(&o);
    double *all = eval(m, NULL), first[5 * 260];
    ref_model_eval(m, some_tokens, 5, first, NULL);
    cr_assert_eq(memcmp(all, first, sizeof first), 0);
    free(all);
    ref_model_free(m);
}

Test(reference, top_k)
{
    uint32_t chosen[8];
    static const double z[] = {1, 3, 3, -INFINITY, 2, 3};
    cr_assert_eq(ref_top_k(z, 6, 2, chosen), 0);
    cr_assert(chosen[0] == 1 && chosen[1] == 2, "the lowest index wins ties");
    cr_assert_eq(ref_top_k(z, 6, 4, chosen), 1);
    cr_assert(chosen[2] == 5 && chosen[3] == 4);
    cr_assert_eq(ref_top_k(z, 6, 6, chosen), INFINITY);
    static const double nan[] = {NAN, NAN, NAN};
    ref_top_k(nan, 3, 2, chosen);
    cr_assert(chosen[0] < 3 && chosen[1] < 3 && chosen[0] != chosen[1]);
}

static void note(void *user, const char *what, uint32_t layer, const double *x, uint32_t rows, uint32_t cols)
{
    char *seen = user;
    cr_assert(rows == N_TOKENS && isfinite(x[(size_t)rows * cols - 1]));
    if (layer == 1 || layer == 3) sprintf(seen + strlen(seen), "%s %u ", what, cols);
    if (strcmp(what, "v") == 0)
        for (size_t i = 0; i < (size_t)rows * cols; i++) cr_assert(fabs(x[i]) <= 0.5);
    if (strcmp(what, "weights") == 0)
        for (uint32_t t = 0; t < rows; t++) cr_assert_float_eq(x[t * cols] + x[t * cols + 1], 1, 1e-12);
}

Test(reference, watching)
{
    char seen[1000] = "";
    struct ref_watch watch = {.tap = note, .user = seen};
    struct ref_testmodel o = ref_testmodel_default("qwen3moe");
    o.clamp_kqv = 0.5;
    struct ref_model *m = build(&o);
    free(eval(m, &watch));
    cr_assert_str_eq(seen, "attn_norm 64 q 128 k 64 v 64 attn 128 attn_out 64 ffn_norm 64 router 8 experts 2 weights 2 moe 64 layer 64 output_norm 64 ");
    cr_assert(watch.margin > 0 && watch.margin < 1);
    ref_model_free(m);
}

static void refused(struct ref_gguf *w, vkm_result code, const char *says)
{
    struct ref_bytes b = ref_gguf_bytes(w);
    vkm_gguf *g;
    struct ref_model *m;
    vkm_error err = {0};
    cr_assert_eq(vkm_gguf_open_memory(b.at, b.n, "bad", &g, &err), VKM_OK, "%s", err.message);
    cr_assert_eq(ref_model_load(g, &m, &err), code, "%s", err.message);
    cr_assert(strstr(err.message, says), "%s", err.message);
    vkm_gguf_close(g);
    ref_bytes_free(&b);
    ref_gguf_free(w);
}

Test(reference, refuses)
{
    struct ref_gguf other = {0}, empty = {0}, odd;
    refused(&empty, VKM_ERR_FORMAT, "\"general.architecture\" is missing");
    ref_key_str(&other, "general.architecture", "gpt2");
    refused(&other, VKM_ERR_UNSUPPORTED, "gpt2");
    struct ref_testmodel o = ref_testmodel_default("llama");
    odd = ref_testmodel_build(&o);
    odd.n_tensors--;   /* the last down projection is gone */
    odd.infos.n -= strlen("blk.2.ffn_down_exps.weight") + 8 + 4 + 3 * 8 + 4 + 8;
    refused(&odd, VKM_ERR_FORMAT, "tensor \"blk.2.ffn_down_exps.weight\" is missing");
    odd = ref_testmodel_build(&o);
    ref_key_u32(&odd, "llama.attention.key_length", 32);
    refused(&odd, VKM_ERR_FORMAT, "tensor \"blk.0.attn_q.weight\" is of another shape");
}

Test(reference, nmse)
{
    static const double a[] = {1, 2, 2}, b[] = {1, 2, 5}, zero[] = {0, 0, 0}, nan[] = {NAN, 0, 0};
    static const float f[] = {1, 2, 5};
    cr_assert_eq(ref_nmse(a, b, 3), 1);
    cr_assert_eq(ref_nmse_f32(a, f, 3), 1);
    cr_assert_eq(ref_nmse(a, a, 3), 0);
    cr_assert_eq(ref_nmse(zero, zero, 3), 0);
    cr_assert_eq(ref_nmse(zero, a, 3), INFINITY);
    cr_assert_eq(ref_nmse(a, nan, 3), INFINITY);
}
