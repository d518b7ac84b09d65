#include "arch.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

const struct vkm_arch vkm_archs[] = {
    /* name          neox   selected renorm  ff=exp  sh.gate scales */
    {"llama",        false, false,   true,   true,   false,  false},    /* Mixtral; q and k rows were permuted by the converter */
    {"olmoe",        true,  false,   false,  true,   false,  false},
    {"qwen2moe",     true,  false,   false,  false,  true,   false},
    {"qwen3moe",     true,  false,   true,   false,  false,  false},
    {"granitemoe",   false, true,    false,  true,   false,  true},
};
const size_t vkm_arch_count = VKM_COUNT(vkm_archs);

const struct vkm_arch *vkm_arch_find(struct vkm_str name)
{
    for (size_t i = 0; i < vkm_arch_count; i++)
        if (strlen(vkm_archs[i].name) == name.n && !memcmp(vkm_archs[i].name, name.at, name.n)) return &vkm_archs[i];
    return NULL;
}

struct reader { const vkm_gguf *g; const char *arch; vkm_error *err; };

static const char *key(const struct reader *r, const char *name, char out[128]) { snprintf(out, 128, "%s.%s", r->arch, name); return out; }

static vkm_result get_u32(const struct reader *r, const char *name, int64_t min, int64_t max, uint32_t *out)
{
    char k[128];
    int64_t v;
    TRY(vkm_gguf_int(r->g, key(r, name, k), min, max, &v, r->err));
    *out = (uint32_t)v;
    return VKM_OK;
}
/* absent: *out stays */
static vkm_result maybe_u32(const struct reader *r, const char *name, int64_t min, int64_t max, uint32_t *out)
{
    char k[128];
    return vkm_gguf_has(r->g, key(r, name, k)) ? get_u32(r, name, min, max, out) : VKM_OK;
}
static vkm_result maybe_double(const struct reader *r, const char *name, double *out)
{
    char k[128];
    return vkm_gguf_has(r->g, key(r, name, k)) ? vkm_gguf_float(r->g, k, out, r->err) : VKM_OK;
}
static vkm_result maybe_float(const struct reader *r, const char *name, float *out)
{
    double v = *out;
    TRY(maybe_double(r, name, &v));
    *out = (float)v;
    return VKM_OK;
}

/* A value for all layers, or an array with the same value for each: these architectures do not vary it. */
static vkm_result maybe_u32_layers(const struct reader *r, const char *name, int64_t max, uint32_t n_layer, uint32_t *out)
{
    char k[128];
    enum vkm_gguf_type element;
    uint64_t count;
    if (!vkm_gguf_has(r->g, key(r, name, k))) return VKM_OK;
    if (vkm_gguf_array(r->g, k, &element, &count, NULL) != VKM_OK) return get_u32(r, name, 1, max, out);
    if (count < n_layer) return vkm_fail(r->err, VKM_ERR_FORMAT, "key %s has %llu values for %u layers", k, (unsigned long long)count, n_layer);
    for (uint64_t i = 0; i < n_layer; i++) {
        int64_t v;
        TRY(vkm_gguf_array_int(r->g, k, i, &v, r->err));
        if (v < 1 || v > max) return vkm_fail(r->err, VKM_ERR_FORMAT, "key %s: value %lld of layer %llu is out of range", k, (long long)v, (unsigned long long)i);
        if (i && (uint32_t)v != *out) return vkm_fail(r->err, VKM_ERR_UNSUPPORTED, "key %s varies by layer, which %s is not supported to do", k, r->arch);
        *out = (uint32_t)v;
    }
    return VKM_OK;
}

static vkm_result read_rope(const struct reader *r, struct vkm_hparams *h)
{
    char k[128];
    h->rope_base = 10000; h->rope_factor = 1; h->rope_attn_factor = 1; h->beta_fast = 32; h->beta_slow = 1;
    TRY(maybe_double(r, "rope.freq_base", &h->rope_base));
    h->n_rot = h->head;
    TRY(maybe_u32(r, "rope.dimension_count", 2, h->head, &h->n_rot));
    if (h->n_rot % 2) return vkm_fail(r->err, VKM_ERR_FORMAT, "%s.rope.dimension_count is odd", r->arch);
    bool typed = vkm_gguf_has(r->g, key(r, "rope.scaling.type", k));
    if (typed) {
        struct vkm_str type;
        TRY(vkm_gguf_str(r->g, k, &type, r->err));
        if      (type.n == 4 && !memcmp(type.at, "none", 4)) h->rope_scaling = VKM_ROPE_NONE;
        else if (type.n == 6 && !memcmp(type.at, "linear", 6)) h->rope_scaling = VKM_ROPE_LINEAR;
        else if (type.n == 4 && !memcmp(type.at, "yarn", 4)) h->rope_scaling = VKM_ROPE_YARN;
        else return vkm_fail(r->err, VKM_ERR_UNSUPPORTED, "%s is \"%.*s\": only none, linear and yarn are supported", k, (int)(type.n < 40 ? type.n : 40), type.at);
    }
    TRY(maybe_double(r, "rope.scale_linear", &h->rope_factor));
    TRY(maybe_double(r, "rope.scaling.factor", &h->rope_factor));
    if (!typed && h->rope_factor != 1) h->rope_scaling = VKM_ROPE_LINEAR;
    if (!(h->rope_factor > 0)) h->rope_factor = 1;                   /* 0 means unset in older files */
    h->n_ctx_original = h->n_ctx_train;
    TRY(maybe_u32(r, "rope.scaling.original_context_length", 1, INT32_MAX, &h->n_ctx_original));
    TRY(maybe_double(r, "rope.scaling.attn_factor", &h->rope_attn_factor));
    TRY(maybe_double(r, "rope.scaling.yarn_beta_fast", &h->beta_fast));
    TRY(maybe_double(r, "rope.scaling.yarn_beta_slow", &h->beta_slow));
    if (!(h->rope_base > 0)) return vkm_fail(r->err, VKM_ERR_FORMAT, "%s.rope.freq_base must be positive", r->arch);
    return VKM_OK;
}

static vkm_result read_experts(const struct reader *r, struct vkm_hparams *h)
{
    char k[128];
    if (!vkm_gguf_has(r->g, key(r, "expert_count", k))) return vkm_fail(r->err, VKM_ERR_UNSUPPORTED, "key %s is absent: not a Mixture-of-Experts model", k);
    TRY(get_u32(r, "expert_count", 0, VKM_MAX_EXPERTS, &h->n_expert));
    if (h->n_expert == 0) return vkm_fail(r->err, VKM_ERR_UNSUPPORTED, "key %s is 0: not a Mixture-of-Experts model", k);
    TRY(get_u32(r, "expert_used_count", 1, VKM_MAX_USED, &h->n_used));
    if (h->n_used > h->n_expert) return vkm_fail(r->err, VKM_ERR_FORMAT, "%s.expert_used_count %u is more than expert_count %u", r->arch, h->n_used, h->n_expert);
    uint32_t ff = 0;
    TRY(maybe_u32_layers(r, "feed_forward_length", 1 << 24, h->n_layer, &ff));
    h->n_ff = ff;
    if (!h->arch->expert_width_is_ff) {
        h->n_ff = h->n_used ? ff / h->n_used : ff;                    /* old qwen2moe files: moe width = feed_forward_length / k */
        TRY(maybe_u32(r, "expert_feed_forward_length", 1, 1 << 24, &h->n_ff));
    }
    if (!h->n_ff) return vkm_fail(r->err, VKM_ERR_FORMAT, "%s: no expert width: neither feed_forward_length nor expert_feed_forward_length", r->arch);
    TRY(maybe_u32(r, "expert_shared_feed_forward_length", 0, 1 << 24, &h->n_ff_shared));
    h->weight_scale = 1;
    TRY(maybe_float(r, "expert_weights_scale", &h->weight_scale));
    if (h->weight_scale == 0) h->weight_scale = 1;
    return VKM_OK;
}

vkm_result vkm_hparams_read(const vkm_gguf *g, struct vkm_hparams *out, vkm_error *err)
{
    struct vkm_str name;
    TRY(vkm_gguf_str(g, "general.architecture", &name, err));
    const struct vkm_arch *arch = vkm_arch_find(name);
    if (!arch) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "architecture \"%.*s\" is not supported (supported: llama with experts, olmoe, qwen2moe, qwen3moe, granitemoe)",
                               (int)(name.n < 64 ? name.n : 64), name.at);
    struct reader r = {g, arch->name, err};
    struct vkm_hparams h = {.arch = arch, .embedding_scale = 1, .residual_scale = 1, .logit_scale = 1};
    TRY(get_u32(&r, "block_count", 1, VKM_MAX_LAYERS, &h.n_layer));
    TRY(get_u32(&r, "embedding_length", 4, 1 << 20, &h.n_embd));
    TRY(get_u32(&r, "context_length", 1, INT32_MAX, &h.n_ctx_train));
    TRY(maybe_u32_layers(&r, "attention.head_count", 1 << 16, h.n_layer, &h.n_head));
    if (!h.n_head) return vkm_fail(err, VKM_ERR_FORMAT, "key %s.attention.head_count is absent", arch->name);
    h.n_head_kv = h.n_head;
    TRY(maybe_u32_layers(&r, "attention.head_count_kv", 1 << 16, h.n_layer, &h.n_head_kv));
    if (h.n_head % h.n_head_kv) return vkm_fail(err, VKM_ERR_FORMAT, "%s: %u query heads are not a multiple of %u key heads", arch->name, h.n_head, h.n_head_kv);
    h.head = h.n_embd / h.n_head;
    TRY(maybe_u32(&r, "attention.key_length", 2, VKM_MAX_HEAD, &h.head));
    uint32_t value = h.head;
    TRY(maybe_u32(&r, "attention.value_length", 2, VKM_MAX_HEAD, &value));
    if (value != h.head) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s: key heads of %u and value heads of %u", arch->name, h.head, value);
    if (h.head < 2 || h.head % 2 || h.head > VKM_MAX_HEAD) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s: heads of %u are not supported (even, 2 to %u)", arch->name, h.head, VKM_MAX_HEAD);
    double eps = 1e-5;
    TRY(maybe_double(&r, "attention.layer_norm_rms_epsilon", &eps));
    h.eps = (float)eps;
    TRY(maybe_float(&r, "attention.clamp_kqv", &h.clamp_kqv));
    h.attention_scale = 0;
    if (arch->scales) {
        TRY(maybe_float(&r, "embedding_scale", &h.embedding_scale));
        TRY(maybe_float(&r, "residual_scale", &h.residual_scale));
        TRY(maybe_float(&r, "attention.scale", &h.attention_scale));
        TRY(maybe_float(&r, "logit_scale", &h.logit_scale));
        if (h.embedding_scale == 0) h.embedding_scale = 1;
        if (h.residual_scale == 0) h.residual_scale = 1;
        if (h.logit_scale == 0) h.logit_scale = 1;
    }
    if (h.attention_scale == 0) h.attention_scale = (float)(1 / sqrt(h.head));
    TRY(read_rope(&r, &h));
    TRY(read_experts(&r, &h));
    *out = h;
    return VKM_OK;
}

/* YaRN (Peng et al. 2023) as llama.cpp computes it, corrections rounded outwards. */
static double frequency(const struct vkm_hparams *h, uint32_t j, double factor)
{
    double theta = pow(h->rope_base, -2.0 * j / h->n_rot) / factor;
    if (h->rope_scaling == VKM_ROPE_NONE) return theta;
    if (h->rope_scaling == VKM_ROPE_LINEAR) return theta / h->rope_factor;
    double low  = floor(h->n_rot * log(h->n_ctx_original / (h->beta_fast * 2 * M_PI)) / (2 * log(h->rope_base)));
    double high = ceil(h->n_rot * log(h->n_ctx_original / (h->beta_slow * 2 * M_PI)) / (2 * log(h->rope_base)));
    low = fmax(low, 0); high = fmin(high, h->n_rot - 1);
    double ramp = fmin(1, fmax(0, (j - low) / fmax(0.001, high - low)));
    return theta * ((1 - ramp) + ramp / h->rope_factor);
}

size_t vkm_rope_table(const struct vkm_hparams *h, const float *freq_factors, uint32_t n_ctx, float *out)
{
    uint32_t pairs = h->n_rot / 2, high = vkm_div_up(n_ctx, 256);
    if (!out) return (size_t)(256 + high) * pairs * 2;
    double magnitude = h->rope_attn_factor * (h->rope_scaling == VKM_ROPE_YARN ? 0.1 * log(h->rope_factor) + 1 : 1);
    for (uint32_t j = 0; j < pairs; j++) {
        double f = frequency(h, j, freq_factors ? freq_factors[j] : 1);
        for (uint32_t p = 0; p < 256 + high; p++) {
            double angle = f * (p < 256 ? p : (p - 256) * 256.0), m = p < 256 ? magnitude : 1;
            float *at = out + ((size_t)p * pairs + j) * 2;
            at[0] = (float)(m * cos(angle));
            at[1] = (float)(m * sin(angle));
        }
    }
    return (size_t)(256 + high) * pairs * 2;
}
