/* A loaded model: hyper-parameters, weights in slabs, small vectors in the tables. */
#ifndef VKM_MODEL_MODEL_H
#define VKM_MODEL_MODEL_H

#include "arch.h"
#include "moe/layer.h"
#include "nn/build.h"

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

struct vkm_slab_set { uint32_t first, count; };                     /* slabs of one descriptor set */

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
    /* what kernels reach through descriptor sets */
    vkm_buffer **slabs;
    uint32_t n_slabs;
    struct vkm_slab_set *sets;
    uint32_t n_sets;
    uint32_t *tables;                                               /* host copy; a session adds its rope table behind it */
    uint32_t n_tables;
};

struct vkm_plan;
/* load.c: a model's hyper-parameters and layers, and where its weights will be for a device of these caps; nothing is allocated on one, m->device is not looked at */
vkm_result vkm_model_plan(const vkm_gguf *g, const struct vkm_caps *caps, struct vkm_model *m, struct vkm_plan **plan, vkm_error *err);
/* save.c: goes on with hash h */
uint64_t vkm_hash_words(uint64_t h, const void *data, size_t n);

/* weights.c: what goes where, then the upload */
struct vkm_source {                     /* where rows of a weight come from */
    uint32_t rows;                              /* of one expert */
    const struct vkm_gguf_tensor *tensor;       /* experts along ne[2], or */
    const struct vkm_gguf_tensor **each;        /* one tensor an expert; owned by the plan */
    uint64_t first_row;
    const float *own;                           /* or rows made by the loader: f32 [rows][cols]; owned by the plan */
};
vkm_result vkm_plan_create(const struct vkm_caps *caps, struct vkm_plan **plan, vkm_error *err);
void vkm_plan_destroy(struct vkm_plan *plan);
#define VKM_SOURCES 3
/* Places a weight that is made of n sources: gate and up of a glu pair, or matrices one below the other, each from the first row of a panel on. Fills everything in *w but
 * type, cols, experts, glu, which are given. On failure own/each are still the plan's. */
vkm_result vkm_plan_add(struct vkm_plan *plan, struct vkm_weight *w, const struct vkm_source *sources, uint32_t n, const char *name, vkm_error *err);
/* Appends n words to the tables; returns where. VKM_NONE when out of memory. */
uint32_t vkm_plan_table(struct vkm_plan *plan, const void *words, uint32_t n);
uint64_t vkm_plan_bytes(const struct vkm_plan *plan);
/* What the upload will allocate: bytes of slab i, 0 beyond the last; words of the tables; bytes of the ring, where buffers are not mapped. */
uint64_t vkm_plan_slab_bytes(const struct vkm_plan *plan, uint32_t i);
uint32_t vkm_plan_table_words(const struct vkm_plan *plan);
uint64_t vkm_plan_ring_bytes(const struct vkm_plan *plan);
/* Creates the slabs and fills them, on params->n_threads threads that are gone when it returns; moves slabs, sets and tables into the model. */
vkm_result vkm_plan_upload(struct vkm_plan *plan, const vkm_gguf *g, struct vkm_model *model, const vkm_model_params *params, vkm_error *err);

#endif
