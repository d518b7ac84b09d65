/* Routers of every kind: what vkm_router_desc (vkmoe.h) says, as kernels want it, and where they work. */
#ifndef VKM_MOE_ROUTER_H
#define VKM_MOE_ROUTER_H

#include "nn/build.h"

/* A description that was looked through, with its defaults filled in. */
struct vkm_moe_rule {
    vkm_router_desc d;                           /* its arrays are not kept: they are in the tables buffer */
    uint32_t n_expert;
    uint32_t tab_logit_bias;                     /* [rows of the router, those of noise and gate 0], words of the tables buffer; VKM_NONE: none */
    uint32_t tab_selection_bias, tab_expert_scale, tab_hash;
    bool general;                                /* moe_topk cannot do it */
};
/* VKM_ERR_ARGUMENT, naming the field, if it contradicts itself. */
vkm_result vkm_moe_rule_init(const vkm_router_desc *d, uint32_t n_expert, struct vkm_moe_rule *rule, vkm_error *err);
/* The description's arrays as words of the tables buffer from `at` on, router_rows of them for the bias. Says where they are in the rule, and returns how many words they are; to NULL: only that. */
uint64_t vkm_moe_rule_tables(struct vkm_moe_rule *rule, const vkm_router_desc *d, uint32_t router_rows, uint32_t at, uint32_t *to);
uint32_t vkm_moe_rule_capacity(const struct vkm_moe_rule *rule, uint32_t n);       /* rows that an expert takes of n tokens; UINT32_MAX: all */

/* What moe_topk needs none of. Regions of words but `rows`; .rows 0: absent. n tokens at most, S slots. */
struct vkm_moe_router_space {
    /* given: by rules that want them */
    struct vkm_region noise;                     /* [n][ld]: f32 */
    struct vkm_region given;                     /* u32, hash: token ids [n]; forced: ids [n][k] */
    struct vkm_region given_weights;             /* f32 [n][k], forced; rows 0: weights are made of scores */
    struct vkm_region seed;                      /* u32 [1] */
    /* made */
    struct vkm_region chosen, probs, lse, priority, order;   /* [S], [n][n_expert], [n], [n], [n] */
    struct vkm_region tokens;                    /* [S] expert choice: the token of a slot */
    struct vkm_region rows;                      /* [S][n_embd] soft MoE: what experts work on */
    /* for monitoring, if statistics.rows */
    struct vkm_region all_probs;                 /* [n][n_expert] */
    struct vkm_region expert_rows, expert_dropped, load;     /* [n_expert]: rows, slots it had no room for, summand of the loss */
    struct vkm_region missed;                    /* [n] slots of a token that were dropped; expert choice: 1 if nobody chose it */
    struct vkm_region statistics;                /* vkm_router_statistics */
};

/* How experts find their rows: slots are n k; row r of x, of those sorted by expert, is row perm_up[r] / divide; its slot, which has its weight and its row of y, is perm_down[r]. */
struct vkm_moe_plan {
    uint32_t n, k;                               /* tokens and experts of each; else n rows of one expert each */
    uint32_t most;                               /* rows of one expert */
    uint32_t perm_up, divide, perm_down;
    struct vkm_region x;
    uint32_t x_rows;
    bool direct;                                 /* one token whose k tiles of one row are all there */
    bool whole;                                  /* every token has k rows of y, to be added up by vkm_combine_norm; else vkm_moe_combine does that */
};

#endif
