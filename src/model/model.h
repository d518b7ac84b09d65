/* A loaded model: hyper-parameters, weights in slabs, small vectors in the tables. */
#ifndef VKM_MODEL_MODEL_H
#define VKM_MODEL_MODEL_H

#include "arch.h"
#include "moe/layer.h"
#include "nn/weights.h"

/* n matrices, neighbours of q, k, v that have the same type: one weight, whose product has them side by side, each from a multiple of VKM_PANEL_ROWS on */
struct vkm_projection { struct vkm_weight w; uint32_t n, tab_bias; };

struct vkm_layer {
    uint32_t tab_attn_norm, tab_ffn_norm, tab_q_norm, tab_k_norm;   /* words into the tables; VKM_NONE: absent */
    bool qk_norm_full;                                              /* over the whole projection (OLMoE) instead of each head (Qwen3) */
    struct vkm_projection qkv[3];                                   /* n_qkv of them: 1 where q, k and v have one type */
    uint32_t n_qkv;
    struct vkm_weight o;
    uint32_t tab_o_bias;
    struct vkm_moe moe;
};

struct vkm_model {
    vkm_device *device;
    struct vkm_hparams h;
    vkm_model_info info;
    uint64_t fingerprint;                                           /* of the file: tells saved sequences of other models */
    vkm_tokenizer *tokenizer;
    struct vkm_weight embedding, output;
    uint32_t tab_output_norm;
    struct vkm_layer *layers;
    float *freq_factors;                                            /* rope_freqs.weight, or NULL */
    struct vkm_slabs weights;                                       /* a session has its tables with a rope table behind them */
};

/* load.c: a model's hyper-parameters and layers, and where its weights will be for a device of these caps; nothing is allocated on one, m->device is not looked at */
vkm_result vkm_model_plan(const vkm_gguf *g, const struct vkm_caps *caps, struct vkm_model *m, struct vkm_plan **plan, vkm_error *err);

#endif
