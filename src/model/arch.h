/* What a GGUF file says about its model, and the few things that only the architecture's name says. Adding an architecture is a row in arch.c and perhaps a line where it differs. */
#ifndef VKM_MODEL_ARCH_H
#define VKM_MODEL_ARCH_H

#include "gguf/gguf.h"

#define VKM_MAX_LAYERS 512
#define VKM_MAX_EXPERTS 1024
#define VKM_MAX_USED 32
#define VKM_MAX_HEAD 512

struct vkm_arch {
    const char *name;             /* general.architecture */
    bool neox;                    /* RoPE rotates (j, j + n_rot/2), else (2j, 2j+1) */
    bool softmax_selected;        /* router: softmax over the selected logits (Granite), else over all */
    bool renormalise;             /* weights divided by their sum (Mixtral, Qwen3), else not (OLMoE, Qwen2) */
    bool expert_width_is_ff;      /* feed_forward_length is the expert width */
    bool shared_gated;            /* the shared expert, if any, is weighted by sigmoid(w x) */
    bool scales;                  /* granite's embedding, residual, attention and logit scales */
};
const struct vkm_arch *vkm_arch_find(struct vkm_str name);
extern const struct vkm_arch vkm_archs[];
extern const size_t vkm_arch_count;

enum vkm_rope_scaling { VKM_ROPE_NONE, VKM_ROPE_LINEAR, VKM_ROPE_YARN };

struct vkm_hparams {
    const struct vkm_arch *arch;
    uint32_t n_layer, n_embd, n_vocab, n_ctx_train;
    uint32_t n_head, n_head_kv, head, n_rot;
    uint32_t n_expert, n_used, n_ff, n_ff_shared;   /* n_ff_shared 0: none */
    float eps;
    float embedding_scale, residual_scale, attention_scale, logit_scale, weight_scale, clamp_kqv;
    double rope_base, rope_factor, rope_attn_factor, beta_fast, beta_slow;
    enum vkm_rope_scaling rope_scaling;
    uint32_t n_ctx_original;
};
/* Reads and checks keys against each other and against our limits; tensor shapes are checked when tensors are found. */
vkm_result vkm_hparams_read(const vkm_gguf *g, struct vkm_hparams *h, vkm_error *err);

/* cos, sin pairs of shaders/rope_store.comp: [256][n_rot/2] for pos % 256 (with YaRN's magnitude), then [ceil(n_ctx/256)][n_rot/2] for pos / 256. freq_factors [n_rot/2] or NULL.
 * Returns the number of floats; out may be NULL to ask. Computed in double precision. */
size_t vkm_rope_table(const struct vkm_hparams *h, const float *freq_factors, uint32_t n_ctx, float *out);

#endif
