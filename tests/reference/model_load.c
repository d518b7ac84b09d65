/* GGUF -> struct ref_model. */
#include "reference/model.h"
#include "reference/dequant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct ref_arch archs[] = {
    {"llama",      false, true,  REF_QK_NONE, "feed_forward_length"},
    {"olmoe",      true,  false, REF_QK_ROW,  "feed_forward_length"},
    {"qwen2moe",   true,  false, REF_QK_NONE, "expert_feed_forward_length"},
    {"qwen3moe",   true,  true,  REF_QK_HEAD, "expert_feed_forward_length"},
    {"granitemoe", false, true,  REF_QK_NONE, "feed_forward_length"},
};

/* After the first failure all functions do nothing, so that the code that loads reads as a list. */
struct loader {
    const vkm_gguf *g;
    const char *arch;
    vkm_result result;
    vkm_error *err;
};

/* ---------------------------------------------------------------- keys */

struct key { char name[128]; };

static struct key key_of(const struct loader *l, const char *name)
{
    struct key k;
    snprintf(k.name, sizeof k.name, "%s.%s", l->arch, name);
    return k;
}

static bool has(const struct loader *l, const char *name) { return vkm_gguf_has(l->g, key_of(l, name).name); }

static uint32_t count(struct loader *l, const char *name)
{
    int64_t x = 1;
    if (l->result == VKM_OK) l->result = vkm_gguf_int(l->g, key_of(l, name).name, 1, 1 << 24, &x, l->err);
    return (uint32_t)x;
}

static uint32_t count_or(struct loader *l, const char *name, uint32_t fallback) { return has(l, name) ? count(l, name) : fallback; }

static double number_or(struct loader *l, const char *name, double fallback)
{
    double x = fallback;
    if (l->result == VKM_OK && has(l, name)) l->result = vkm_gguf_float(l->g, key_of(l, name).name, &x, l->err);
    return x;
}

/* A factor that is absent or 0 is none. */
static double factor(struct loader *l, const char *name)
{
    double x = number_or(l, name, 1);
    return x == 0 ? 1 : x;
}

static bool text_is(const struct loader *l, const char *name, const char *wanted)
{
    struct vkm_str s;
    return vkm_gguf_str(l->g, key_of(l, name).name, &s, NULL) == VKM_OK && s.n == strlen(wanted) && memcmp(s.at, wanted, s.n) == 0;
}

/* ---------------------------------------------------------------- tensors */

static float *dequantised(struct loader *l, const struct vkm_gguf_tensor *t)
{
    uint64_t n = t->ne[0] * t->ne[1] * t->ne[2];
    float *w = malloc(n * sizeof *w);
    if (!w) abort();
    if (!ref_dequant(t->type, t->data, n, w))
        l->result = vkm_fail(l->err, VKM_ERR_UNSUPPORTED, "the reference cannot read type %u of tensor \"%.*s\"", t->type, (int)t->name.n, t->name.at);
    return w;
}

static struct ref_matrix load(struct loader *l, const char *name, bool required, uint32_t cols, uint32_t rows, uint32_t n)
{
    struct ref_matrix m = {NULL, cols, rows, n};
    const struct vkm_gguf_tensor *t = l->result == VKM_OK ? vkm_gguf_tensor_find(l->g, name) : NULL;
    if (l->result != VKM_OK || (!t && !required)) return m;
    if (!t || t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != n || t->ne[3] != 1)
        l->result = vkm_fail(l->err, VKM_ERR_FORMAT, "tensor \"%s\" is %s: %u x %u x %u wanted", name, t ? "of another shape" : "missing", cols, rows, n);
    else
        m.w = dequantised(l, t);
    return m;
}

struct name { char text[80]; };

static struct name in_layer(uint32_t layer, const char *what)
{
    struct name n;
    snprintf(n.text, sizeof n.text, "blk.%u.%s", layer, what);
    return n;
}

/* The tensor blk.LAYER.WHAT, required or not. */
static struct ref_matrix need(struct loader *l, uint32_t layer, const char *what, uint32_t cols, uint32_t rows, uint32_t n)
{
    return load(l, in_layer(layer, what).text, true, cols, rows, n);
}

static struct ref_matrix want(struct loader *l, uint32_t layer, const char *what, uint32_t cols, uint32_t rows)
{
    return load(l, in_layer(layer, what).text, false, cols, rows, 1);
}

/* ---------------------------------------------------------------- experts */

static bool layer_has(const struct loader *l, uint32_t layer, const char *what) { return vkm_gguf_tensor_find(l->g, in_layer(layer, what).text) != NULL; }

/* Files of early 2024 have a tensor per expert: blk.LAYER.ffn_gate.EXPERT.weight. */
static struct ref_matrix gather_experts(struct loader *l, uint32_t layer, const char *what, uint32_t cols, uint32_t rows, uint32_t n)
{
    struct ref_matrix m = {calloc((size_t)n * rows * cols, sizeof(float)), cols, rows, n};
    if (!m.w) abort();
    for (uint32_t e = 0; e < n; e++) {
        char name[64];
        snprintf(name, sizeof name, "ffn_%s.%u.weight", what, e);
        struct ref_matrix one = need(l, layer, name, cols, rows, 1);
        if (one.w) memcpy(m.w + (size_t)e * rows * cols, one.w, (size_t)rows * cols * sizeof(float));
        free(one.w);
    }
    return m;
}

static struct ref_matrix load_experts(struct loader *l, uint32_t layer, const char *what, uint32_t cols, uint32_t rows, uint32_t n)
{
    char stacked[64], single[64];
    snprintf(stacked, sizeof stacked, "ffn_%s_exps.weight", what);
    snprintf(single, sizeof single, "ffn_%s.0.weight", what);
    if (!layer_has(l, layer, stacked) && layer_has(l, layer, single)) return gather_experts(l, layer, what, cols, rows, n);
    return need(l, layer, stacked, cols, rows, n);
}

/* Rows `first` to first + rows - 1 of each expert. */
static struct ref_matrix part_of(const struct ref_matrix *m, uint32_t first, uint32_t rows)
{
    size_t size = (size_t)rows * m->cols;
    struct ref_matrix part = {malloc(size * m->count * sizeof(float)), m->cols, rows, m->count};
    if (!part.w) abort();
    for (uint32_t e = 0; m->w && e < m->count; e++)
        memcpy(part.w + e * size, m->w + ((size_t)e * m->rows + first) * m->cols, size * sizeof(float));
    return part;
}

static void load_moe(struct loader *l, const struct ref_model *m, uint32_t i, struct ref_layer *y)
{
    uint32_t embd = m->n_embd, width = m->n_width, n = m->n_expert;
    y->ffn_norm = need(l, i, "ffn_norm.weight", embd, 1, 1);
    y->router = need(l, i, "ffn_gate_inp.weight", embd, n, 1);
    if (layer_has(l, i, "ffn_gate_up_exps.weight")) {   /* rows 0..width-1 are gate, the rest up */
        struct ref_matrix both = need(l, i, "ffn_gate_up_exps.weight", embd, 2 * width, n);
        y->gate = part_of(&both, 0, width);
        y->up = part_of(&both, width, width);
        free(both.w);
    } else {
        y->gate = load_experts(l, i, "gate", embd, width, n);
        y->up = load_experts(l, i, "up", embd, width, n);
    }
    y->down = load_experts(l, i, "down", width, embd, n);
    if (!m->n_shared) return;
    y->shared_gate = need(l, i, "ffn_gate_shexp.weight", embd, m->n_shared, 1);
    y->shared_up = need(l, i, "ffn_up_shexp.weight", embd, m->n_shared, 1);
    y->shared_down = need(l, i, "ffn_down_shexp.weight", m->n_shared, embd, 1);
    y->shared_router = want(l, i, "ffn_gate_inp_shexp.weight", embd, 1);
}

/* ---------------------------------------------------------------- the rest */

static void load_attention(struct loader *l, const struct ref_model *m, uint32_t i, struct ref_layer *y)
{
    uint32_t embd = m->n_embd, nq = m->n_head * m->head_dim, nkv = m->n_head_kv * m->head_dim;
    bool per_head = m->arch.qk_norm == REF_QK_HEAD;
    y->attn_norm = need(l, i, "attn_norm.weight", embd, 1, 1);
    y->q = need(l, i, "attn_q.weight", embd, nq, 1);
    y->k = need(l, i, "attn_k.weight", embd, nkv, 1);
    y->v = need(l, i, "attn_v.weight", embd, nkv, 1);
    y->o = need(l, i, "attn_output.weight", nq, embd, 1);
    y->q_bias = want(l, i, "attn_q.bias", nq, 1);
    y->k_bias = want(l, i, "attn_k.bias", nkv, 1);
    y->v_bias = want(l, i, "attn_v.bias", nkv, 1);
    y->o_bias = want(l, i, "attn_output.bias", embd, 1);
    if (m->arch.qk_norm == REF_QK_NONE) return;
    y->q_norm = need(l, i, "attn_q_norm.weight", per_head ? m->head_dim : nq, 1, 1);
    y->k_norm = need(l, i, "attn_k_norm.weight", per_head ? m->head_dim : nkv, 1, 1);
}

static void load_sizes(struct loader *l, struct ref_model *m)
{
    const struct vkm_gguf_tensor *embd = vkm_gguf_tensor_find(l->g, "token_embd.weight");
    m->n_layer = count(l, "block_count");
    m->n_embd = count(l, "embedding_length");
    m->n_vocab = embd ? (uint32_t)embd->ne[1] : 1;
    m->n_head = count(l, "attention.head_count");
    m->n_head_kv = count_or(l, "attention.head_count_kv", m->n_head);
    m->head_dim = count_or(l, "attention.key_length", m->n_embd / m->n_head);
    m->n_rot = count_or(l, "rope.dimension_count", m->head_dim);
    m->n_expert = count(l, "expert_count");
    m->n_used = count(l, "expert_used_count");
    m->n_width = count(l, m->arch.width_key);
    m->n_shared = count_or(l, "expert_shared_feed_forward_length", 0);
    if (l->result == VKM_OK && (!m->head_dim || m->n_used > m->n_expert || m->n_head % m->n_head_kv || m->n_rot > m->head_dim || m->n_rot % 2))
        l->result = vkm_fail(l->err, VKM_ERR_FORMAT, "sizes that do not go together");
}

static void load_numbers(struct loader *l, struct ref_model *m)
{
    m->eps = number_or(l, "attention.layer_norm_rms_epsilon", 1e-5);
    m->attn_scale = number_or(l, "attention.scale", 0);
    if (m->attn_scale == 0) m->attn_scale = 1 / sqrt(m->head_dim);
    m->clamp_qkv = number_or(l, "attention.clamp_kqv", 0);
    m->embd_scale = factor(l, "embedding_scale");
    m->residual_scale = factor(l, "residual_scale");
    m->logit_scale = factor(l, "logit_scale");
    m->expert_scale = factor(l, "expert_weights_scale");
}

/* ---------------------------------------------------------------- rope */

/* Index of the pair that turns `turns` times over the original context (YaRN, Peng et al. 2023, section 3.2). */
static double yarn_pair(const struct ref_model *m, double base, double context, double turns)
{
    return m->n_rot * log(context / (turns * 2 * M_PI)) / (2 * log(base));
}

/* Fast pairs keep their frequency, slow ones are divided by the factor, with a ramp between. Both ends are truncated as ggml does. */
static void stretch_yarn(struct loader *l, struct ref_model *m, double base, double factor_)
{
    double context = count_or(l, "rope.scaling.original_context_length", count_or(l, "context_length", 1));
    double low = floor(yarn_pair(m, base, context, number_or(l, "rope.scaling.yarn_beta_fast", 32)));
    double high = ceil(yarn_pair(m, base, context, number_or(l, "rope.scaling.yarn_beta_slow", 1)));
    low = fmax(low, 0);
    high = fmin(high, m->n_rot - 1);
    for (uint32_t j = 0; j < m->n_rot / 2; j++) {
        double ramp = fmin(fmax((j - low) / fmax(high - low, 0.001), 0), 1);
        m->rope_freq[j] *= (1 - ramp) + ramp / factor_;
    }
    m->rope_mscale *= 0.1 * log(factor_) + 1;
}

static void load_rope(struct loader *l, struct ref_model *m)
{
    double base = number_or(l, "rope.freq_base", 10000), scale = factor(l, has(l, "rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear");
    struct ref_matrix factors = load(l, "rope_freqs.weight", false, m->n_rot / 2, 1, 1);
    m->rope_freq = calloc(m->n_rot / 2, sizeof m->rope_freq[0]);
    m->rope_mscale = factor(l, "rope.scaling.attn_factor");
    if (!m->rope_freq) abort();
    for (uint32_t j = 0; j < m->n_rot / 2; j++) m->rope_freq[j] = pow(base, -2.0 * j / m->n_rot) / (factors.w ? factors.w[j] : 1);
    free(factors.w);
    if (text_is(l, "rope.scaling.type", "yarn")) stretch_yarn(l, m, base, scale);
    else if (!text_is(l, "rope.scaling.type", "none"))   /* absent means linear */
        for (uint32_t j = 0; j < m->n_rot / 2; j++) m->rope_freq[j] /= scale;
}

/* ---------------------------------------------------------------- the model */

static bool find_arch(struct loader *l, struct ref_arch *arch)
{
    struct vkm_str s;
    l->result = vkm_gguf_str(l->g, "general.architecture", &s, l->err);
    if (l->result != VKM_OK) return false;
    for (size_t i = 0; i < VKM_COUNT(archs); i++)
        if (strlen(archs[i].name) == s.n && memcmp(archs[i].name, s.at, s.n) == 0) {
            *arch = archs[i];
            l->arch = archs[i].name;
            return true;
        }
    l->result = vkm_fail(l->err, VKM_ERR_UNSUPPORTED, "the reference has no architecture \"%.*s\"", (int)s.n, s.at);
    return false;
}

static void load_model(struct loader *l, struct ref_model *m)
{
    load_sizes(l, m);
    if (l->result != VKM_OK) return;
    load_numbers(l, m);
    load_rope(l, m);
    m->embd = load(l, "token_embd.weight", true, m->n_embd, m->n_vocab, 1);
    m->output_norm = load(l, "output_norm.weight", true, m->n_embd, 1, 1);
    bool tied = !vkm_gguf_tensor_find(l->g, "output.weight");
    m->output = load(l, tied ? "token_embd.weight" : "output.weight", true, m->n_embd, m->n_vocab, 1);
    m->layers = calloc(m->n_layer, sizeof m->layers[0]);
    if (!m->layers) abort();
    for (uint32_t i = 0; l->result == VKM_OK && i < m->n_layer; i++) {
        load_attention(l, m, i, &m->layers[i]);
        load_moe(l, m, i, &m->layers[i]);
    }
}

vkm_result ref_model_load(const vkm_gguf *g, struct ref_model **model, vkm_error *err)
{
    struct loader l = {.g = g, .err = err};
    struct ref_model *m = calloc(1, sizeof *m);
    if (!m) abort();
    if (find_arch(&l, &m->arch)) load_model(&l, m);
    if (l.result == VKM_OK) *model = m;
    else ref_model_free(m);
    return l.result;
}

vkm_result ref_model_open(const char *path, struct ref_model **model, vkm_error *err)
{
    vkm_gguf *g;
    vkm_result r = vkm_gguf_open(path, &g, err);
    if (r != VKM_OK) return r;
    r = ref_model_load(g, model, err);
    vkm_gguf_close(g);
    return r;
}

static void free_layer(struct ref_layer *y)
{
    /* A layer is nothing but matrices. */
    struct ref_matrix *m = (struct ref_matrix *)y;
    for (size_t i = 0; i < sizeof *y / sizeof *m; i++) free(m[i].w);
}

void ref_model_free(struct ref_model *m)
{
    if (!m) return;
    for (uint32_t i = 0; m->layers && i < m->n_layer; i++) free_layer(&m->layers[i]);
    free(m->layers);
    free(m->embd.w);
    free(m->output_norm.w);
    free(m->output.w);
    free(m->rope_freq);
    free(m);
}
