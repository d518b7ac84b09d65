/* A whole MoE language model in double precision, written to be read: one forward pass with parameters for the GGUF architectures
 * llama (with experts: Mixtral), olmoe, qwen2moe, qwen3moe and granitemoe. Weights are dequantised once, to f32 (dequant.h).
 * Rules and key names: moe-models facts, sections 2 to 5. Where two runtimes differ, llama.cpp is followed unless told. */
#ifndef REF_MODEL_H
#define REF_MODEL_H

#include "gguf/gguf.h"

struct ref_matrix { float *w; uint32_t cols, rows, count; };     /* w [count][rows][cols]; NULL: the tensor is absent */

enum ref_qk_norm { REF_QK_NONE, REF_QK_ROW /* over the whole projection */, REF_QK_HEAD };

struct ref_arch {                                                /* what the architecture's name alone tells */
    const char *name;
    bool neox;                                                   /* rope pairs (j, j + n_rot/2), else (2j, 2j + 1) */
    bool renormalise;                                            /* divide the weights of the chosen experts by their sum */
    enum ref_qk_norm qk_norm;
    const char *width_key;                                       /* width of an expert */
};

struct ref_layer {
    struct ref_matrix attn_norm, q, k, v, o, q_bias, k_bias, v_bias, o_bias, q_norm, k_norm;
    struct ref_matrix ffn_norm, router, gate, up, down;          /* gate, up [experts][width][embd], down [experts][embd][width] */
    struct ref_matrix shared_gate, shared_up, shared_down, shared_router;
};

struct ref_model {
    struct ref_arch arch;
    uint32_t n_layer, n_embd, n_vocab, n_head, n_head_kv, head_dim, n_rot, n_expert, n_used, n_width, n_shared;
    double eps, attn_scale, clamp_qkv, embd_scale, residual_scale, logit_scale, expert_scale;
    double *rope_freq;                                           /* [n_rot / 2] angle per position */
    double rope_mscale;                                          /* factor of cos and sin */
    struct ref_matrix embd, output_norm, output;
    struct ref_layer *layers;                                    /* [n_layer] */
};

/* Loads from an open file, which may be closed afterwards. Owned by the caller. */
vkm_result ref_model_load(const vkm_gguf *g, struct ref_model **model, vkm_error *err);
vkm_result ref_model_open(const char *path, struct ref_model **model, vkm_error *err);
void ref_model_free(struct ref_model *model);

/* What to watch during a pass; all members may be zero. */
struct ref_watch {
    double margin;               /* out: smallest difference of router logits between the last expert chosen and the best one not, over all tokens
                                    and layers. Below about 1e-3 another summation order may choose differently: take another seed. */
    /* Called with intermediate results x [rows][cols], a row per token: "embd", then per layer "attn_norm", "q", "k", "v" (after rope), "attn"
     * (before o), "attn_out", "ffn_norm", "router" (logits), "experts" (chosen ids, best first), "weights" (theirs), "moe", "layer"; "output_norm". */
    void (*tap)(void *user, const char *what, uint32_t layer, const double *x, uint32_t rows, uint32_t cols);
    void *user;
};

/* tokens [n] from an empty context -> logits [n][n_vocab]. `watch` may be NULL. Token ids must be in range. */
void ref_model_eval(const struct ref_model *m, const int32_t *tokens, uint32_t n, double *logits, struct ref_watch *watch);

/* The k largest of z [n], best first; the lowest index wins ties. Returns the margin z[last chosen] - z[best not chosen], infinite if k == n. */
double ref_top_k(const double *z, uint32_t n, uint32_t k, uint32_t *chosen);

#endif
