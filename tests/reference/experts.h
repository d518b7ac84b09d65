/* Experts of every kind in double precision, from weights that were dequantised to f32. Rules: moe-models facts, section 3. */
#ifndef REF_EXPERTS_H
#define REF_EXPERTS_H

#include <stdbool.h>
#include <stdint.h>

enum ref_act { REF_ACT_SILU, REF_ACT_GELU_TANH, REF_ACT_GELU_ERF, REF_ACT_RELU, REF_ACT_RELU2 };     /* as enum vkm_activation */

struct ref_experts {
    uint32_t n_embd, n_ff;
    const float *gate, *up, *down;                       /* [experts][n_ff][n_embd], [experts][n_embd][n_ff]; gate NULL: down(act(up x)) */
    const float *gate_bias, *up_bias, *down_bias;        /* [experts][n_ff], [experts][n_embd]; NULL: none */
    enum ref_act act;
    bool limited;                                        /* g sigmoid(alpha g) (u + add), g at most limit, u within +-limit */
    double alpha, limit, add;
    bool weight_before;
};

/* y [n_embd] += weight * Expert_e(x), or Expert_e(weight * x) */
void ref_expert(const struct ref_experts *r, uint32_t e, const double *x, double weight, double *y);

#endif
