/* Routers in double precision, a function a rule, from logits on. vkm_router_desc (src/vkmoe.h) says what each does and which paper or model it is from. */
#ifndef REF_ROUTER_H
#define REF_ROUTER_H

#include "vkmoe.h"

struct ref_router {
    vkm_router_desc d;           /* as given to the library: defaults are filled in here again */
    uint32_t n_expert, n, ld;
    const float *logits;         /* [n][ld] */
    const float *noise;          /* [n][logits without those of noise] */
    const uint32_t *given;       /* hash: token ids [n]; forced: ids [n][k] */
    const float *given_weights;  /* [n][k] or NULL */
    uint32_t seed;
    /* out, allocated by ref_router_run. Slots as vkm_router_desc numbers them */
    uint32_t slots, capacity;
    uint32_t *ids, *tokens;      /* [slots] expert (or VKM_ROUTER_DROPPED) and token of a slot */
    double *weights;             /* [slots] */
    uint32_t *rows, *dropped;    /* [n_expert] after dropping; lost to capacity */
    uint32_t *missed;            /* [n] dropped slots of a token; expert choice: 1 if nobody chose it */
    double load_balance, z_loss;
    uint32_t n_dropped, most_rows;
};
/* Every rule but soft MoE. */
void ref_router_run(struct ref_router *r);
void ref_router_free(struct ref_router *r);

/* Soft MoE: in[slot] of experts, [slots][width], from x [n][width]; and y [n][width] from what the experts made, [slots][width]. NaN logits have no part. */
void ref_soft_dispatch(const float *logits, uint32_t ld, uint32_t n, uint32_t slots, const float *x, uint32_t width, double *in);
void ref_soft_combine(const float *logits, uint32_t ld, uint32_t n, uint32_t slots, const float *from_experts, uint32_t width, double *y);

#endif
