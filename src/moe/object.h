/* The public MoE layer: weights, workspace, and the steps for a number of tokens, which are made anew for every recording in memory that is there. */
#ifndef VKM_MOE_OBJECT_H
#define VKM_MOE_OBJECT_H

#include "layer.h"
#include "nn/tune.h"
#include "nn/weights.h"

/* What a layer computes with; several layers may share it, so may their workspaces. Counted, by one thread at a time. */
struct vkm_moe_set {
    uint32_t users;
    vkm_device *device;
    struct vkm_moe_rule rule;
    struct vkm_moe moe;                        /* routes by that rule */
    struct vkm_moe_widths widths;
    struct vkm_slabs slabs;
    vkm_buffer *tables;
};
struct vkm_moe_workspace { uint32_t users; vkm_buffer *buffer; };

struct vkm_moe_layer {
    vkm_device *device;
    struct vkm_moe_set *set;
    struct vkm_moe_workspace *workspace;
    vkm_bindings **sets;
    uint32_t n_sets, max_tokens;
    struct vkm_shape shape;
    struct vkm_tuning tuning;                  /* where is_tuned */
    bool is_tuned;
    /* in the workspace */
    struct vkm_moe_space space;
    struct vkm_region in, out, mixed;          /* [max_tokens][n_embd]; mixed: where a token's rows of y are not simply added up */
    struct vkm_inputs inputs;
    uint64_t words;
    vkm_program *program;                      /* of n tokens, made so; n 0: of none */
    uint32_t n, variant;
};

/* Steps differ by what is asked for. */
enum { VKM_MOE_WATCHED = 1 /* monitoring */, VKM_MOE_WEIGHTED = 2 /* forced weights are given */, VKM_MOE_VARIANTS = 4 };
/* vkm_moe_layer_create with workgroups of a given shape; NULL: the device's. */
vkm_result vkm_moe_layer_make(vkm_device *device, const vkm_moe_layer_desc *desc, const vkm_moe_weights *weights, const struct vkm_shape *shape, vkm_moe_layer **layer, vkm_error *err);
/* Makes the program that of n tokens, 1 to max_tokens. */
vkm_result vkm_moe_layer_build(struct vkm_moe_layer *layer, uint32_t n, uint32_t variant, vkm_error *err);

#endif
