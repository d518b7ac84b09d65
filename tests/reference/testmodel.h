/* Random models as GGUF files: any of the five architectures of model.h, any size, any types. The same options give the same bytes everywhere.
 * Weights are scaled so that every part matters: norms 1 +- 0.3, biases +- 0.3, router logits of standard deviation about 2, matrices 1/sqrt(columns). */
#ifndef REF_TESTMODEL_H
#define REF_TESTMODEL_H

#include "reference/ggufwrite.h"

struct ref_testmodel {
    const char *arch;                    /* "llama", "olmoe", "qwen2moe", "qwen3moe", "granitemoe" */
    uint64_t seed;
    uint32_t hidden, layers, heads, kv_heads, head_dim, experts, used, width, vocab /* at least 260 */, context;
    uint32_t shared_width;               /* 0: no shared expert; qwen2moe's has its sigmoid gate, others' have none */
    uint32_t type_gate, type_up, type_down, type_attn /* q, k, v, o */, type_shared, type_embd, type_output, type_router;   /* enum ref_type */
    const uint32_t *type_qkv;            /* [3] instead of type_attn; NULL: type_attn */
    bool tied;                           /* no output.weight */
    bool qkv_bias, o_bias;
    bool per_expert_tensors;             /* blk.N.ffn_gate.E.weight ... */
    bool fused_gate_up;                  /* blk.N.ffn_gate_up_exps.weight, of type_gate */
    uint32_t n_rot;                      /* 0: head_dim */
    double rope_base, eps, clamp_kqv;    /* clamp 0: none */
    const char *rope_scaling;            /* NULL: no key; "linear", "yarn", "none" */
    double rope_factor;
    uint32_t rope_original_context;      /* for yarn */
    bool rope_freqs;                     /* a rope_freqs.weight tensor with random factors from 1 to 8 */
    double embd_scale, residual_scale, attn_scale, logit_scale;   /* granitemoe; 0: no key */
};

/* 3 layers of hidden 64 with 8 experts of width 32, top 2, F32, and what the architecture is known for (biases, shared expert, head size, multipliers).
 * arch must be one of the five. */
struct ref_testmodel ref_testmodel_default(const char *arch);

/* The model as keys and tensors; free with ref_gguf_free. A byte vocabulary (SPM): <unk>, <s>, </s>, 256 bytes, then "▁" and words tokN. */
struct ref_gguf ref_testmodel_build(const struct ref_testmodel *o);
/* Writes it to a new file in $TMPDIR or /tmp; path [256] receives its name. The caller removes it. */
bool ref_testmodel_save(const struct ref_testmodel *o, char path[256]);

#endif
