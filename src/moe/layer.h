/* The MoE layer as steps of a program: router, permutation, experts, shared expert. */
#ifndef VKM_MOE_LAYER_H
#define VKM_MOE_LAYER_H

#include "router.h"

/* Where biases are in the tables. Of gate and up together [n_expert][2][n_ff] in `gate`; else [n_expert][n_ff] in each; down [n_expert][n_embd] */
struct vkm_bias { bool there; uint32_t tab; };
struct vkm_ffn_bias { struct vkm_bias gate, up, down; };

struct vkm_moe {
    uint32_t n_expert, n_used, n_embd;
    uint32_t score;                              /* VKM_SCORE_... */
    bool renormalise;
    float weight_scale;
    const struct vkm_moe_rule *rule;             /* NULL: top-k of softmax scores by the fields above; else see vkm_moe_use_rule */
    struct vkm_weight router;                    /* [n_expert, or vkm_router_rows (+ 1: gate of the shared expert)][n_embd]; type NULL: no logits are needed */
    struct vkm_weight gate_up;                   /* interleaved; or, for unlike types, gate and up apart; or up alone: act(up x) */
    struct vkm_weight gate, up;
    struct vkm_weight down;
    struct vkm_weight shared_gate_up, shared_gate, shared_up, shared_down;  /* type NULL: no shared expert */
    bool shared_gated;
    struct vkm_epilogue act;                     /* of all experts: activation and where the weight goes; tab_bias is not looked at */
    struct vkm_ffn_bias bias, shared_bias;
};

/* The first matrix of an expert: of the three that may be, all with the same panels. */
static inline const struct vkm_weight *vkm_moe_first(const struct vkm_moe *m) { return m->gate_up.type ? &m->gate_up : m->gate.type ? &m->gate : &m->up; }

/* Where the layer works. B tokens at most, k experts each; S = B k slots. */
struct vkm_moe_space {
    struct vkm_region logits;                    /* [B][n_expert + 1] */
    struct vkm_region logit_parts;               /* [VKM_JOINED_ROWS * parts][n_expert + 1] */
    struct vkm_region arrived;                   /* [1][n_embd / 32, or VKM_JOINED_ROWS + 1] 0 between steps; rows 0: nobody sees to that */
    struct vkm_region ids, weights;              /* [B][k]; an id may be VKM_ROUTER_DROPPED */
    struct vkm_region gate;                      /* [B][1] */
    struct vkm_region counts, perm, tiles, args; /* words */
    struct vkm_region h, h2;                     /* [S][n_ff], h2 only for gate and up apart */
    struct vkm_region y;                         /* [S][n_embd] by slot */
    struct vkm_region shared_h, shared_h2, shared_y;
    struct vkm_moe_router_space router;          /* with a rule */
};
struct vkm_moe_widths { uint32_t n_embd, n_ff, n_ff_shared; bool apart, shared_apart; };   /* n_ff_shared 0: no shared expert; apart: gate and up of unlike types */
/* The experts' regions (h, y, those of the shared expert) for up to n tokens, whose experts have `slots` rows together, from word *words on. */
void vkm_moe_experts_place(const struct vkm_moe_widths *w, uint32_t n, uint64_t slots, uint64_t *words, struct vkm_moe_space *s);
/* Up to so many tokens have no steps for sorting: moe_topk does that (and, where it can, moe_logits up to VKM_JOINED_ROWS). */
uint32_t vkm_moe_few_rows(uint32_t n_expert);
/* Lanes of moe_topk; the same for any number of tokens, since they add up its sums */
uint32_t vkm_moe_topk_lanes(const struct vkm_build *b, uint32_t n_expert);
/* Words that the pieces above need, for at most n tokens. */
uint32_t vkm_moe_count_words(uint32_t n, uint32_t k, uint32_t n_expert);
/* Most tiles of a class that rows so cut may come to; never more than n k, which lists have room for. */
uint32_t vkm_moe_tiles_max(const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t n, uint32_t k, uint32_t n_expert);

/* norm: the step that adds to the residual stream and makes x of it, which may become part of the router's; NULL if x is there.
 * From x [n][n_embd] (normed) to y [n k][n_embd], weighted, in slot order, and shared_y; the caller adds them up with combine_norm. 4 steps for one token and norm (5 where the router has many rows and there is no `arrived`); for few two
 * more for each tile size beyond the first (1, 4, 8 rows), which wait for the same; for many also two for sorting. Plus 2 for a shared expert.
 * residual: where vkm_moe_adds: y is added to it instead; else NULL. */
vkm_result vkm_moe_steps(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, const struct vkm_residual *residual, struct vkm_region x, uint32_t n);
/* Whether the router of n tokens makes this norm itself, if it has nothing to add (n_add 0); and whether the experts can add to the residual stream. On a GPU that makes 3 steps of 5 (of a single token) to 8. */
bool vkm_moe_norms(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, uint32_t n);
bool vkm_moe_adds(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t n);
/* Adds to counts [n_expert], words of the workspace, how many of the n tokens' slots each expert got. One step, for behind the router's. */
vkm_result vkm_moe_tally(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, uint32_t ws_counts, uint32_t n);
/* Its two halves: what says which expert has which rows, and the experts. */
vkm_result vkm_moe_router(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_combine *norm, struct vkm_region x, uint32_t n);
vkm_result vkm_moe_experts(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_residual *residual, struct vkm_region x, uint32_t n);

/* Makes m route by a rule, which it borrows: n_used, score, renormalise and weight_scale become the rule's. */
void vkm_moe_use_rule(struct vkm_moe *m, const struct vkm_moe_rule *rule);
/* The router's regions (logits, ids ... args, and `router`) for up to n tokens, from word *words on; m->n_expert, n_embd, n_used and rule are looked at. */
void vkm_moe_router_place(const struct vkm_moe *m, uint32_t n, bool statistics, uint64_t *words, struct vkm_moe_space *s);
struct vkm_moe_plan vkm_moe_plan(const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region x, uint32_t n);
/* Adds up what experts made of each token: s->y to out [n][n_embd], which may then be one row of vkm_combine_norm. Needed where the plan is not `whole`. 1 step. */
vkm_result vkm_moe_combine(struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, struct vkm_region out, uint32_t n);
/* How the experts' rows are cut, and how many dispatches a class's tiles come in: the same for the router and the experts. */
void vkm_moe_tiles(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_plan *p, uint8_t tile_from[VKM_TILE_CLASSES]);
uint32_t vkm_moe_pieces(const struct vkm_build *b, const struct vkm_moe *m, const struct vkm_moe_space *s, const struct vkm_moe_plan *p);

#endif
