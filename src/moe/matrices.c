/* The weights of a public layer: checked, placed, uploaded. */
#include "matrices.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

struct placer {
    const vkm_moe_layer_desc *desc;
    const vkm_moe_weights *weights;
    struct vkm_moe *moe;
    struct vkm_plan *plan;
    vkm_error *err;
};

/* Checks a matrix and says where its rows are. */
static vkm_result matrix(const struct placer *p, const vkm_moe_matrix *m, const char *name, uint32_t rows, uint32_t cols, uint32_t experts, const struct vkm_type **type, struct vkm_source *source)
{
    const struct vkm_type *t = vkm_type_find(m->type);
    if (!m->data) return vkm_fail(p->err, VKM_ERR_ARGUMENT, "MoE layer: matrix %s is absent", name);
    if (!t) return vkm_fail(p->err, VKM_ERR_UNSUPPORTED, "MoE layer: matrix %s has ggml type %u, which is not supported", name, m->type);
    if (cols % t->block_cols) return vkm_fail(p->err, VKM_ERR_ARGUMENT, "MoE layer: matrix %s has %u columns, not a multiple of the %u of a block of %s", name, cols, t->block_cols, t->name);
    uint64_t one = vkm_type_row_bytes(t, cols) * rows, stride = m->expert_stride ? m->expert_stride : one, need = 0;
    if (stride < one || !vkm_mul(stride, experts - 1, &need) || !vkm_add(need, one, &need) || (m->expert_stride ? m->n_bytes < need : m->n_bytes != need))
        return vkm_fail(p->err, VKM_ERR_ARGUMENT, "MoE layer: matrix %s has %zu bytes (stride %zu); %u x %u x %u of %s are %llu (an expert %llu)", name, m->n_bytes, m->expert_stride, experts, rows, cols, t->name,
                        (unsigned long long)need, (unsigned long long)one);
    *type = t;
    *source = (struct vkm_source){.rows = rows, .data = m->data, .stride = stride};
    return VKM_OK;
}

static vkm_result place(const struct placer *p, struct vkm_weight *w, const struct vkm_type *type, uint32_t cols, uint32_t experts, const struct vkm_source *sources, uint32_t n, const char *name)
{
    *w = (struct vkm_weight){.type = type, .cols = cols, .experts = experts, .glu = n == 2};
    return vkm_plan_add(p->plan, w, sources, n, name, p->err);
}

static vkm_result table(const struct placer *p, const float *v, size_t n, struct vkm_bias *to)
{
    if (!v) return VKM_OK;
    *to = (struct vkm_bias){true, vkm_plan_table(p->plan, v, (uint32_t)n)};
    return to->tab == VKM_NONE ? vkm_fail(p->err, VKM_ERR_HOST_MEMORY, "out of host memory") : VKM_OK;
}

/* Of gate and up together: [experts][2][rows], zeros where one has none. */
static vkm_result pair_table(const struct placer *p, const float *gate, const float *up, uint32_t rows, uint32_t experts, struct vkm_bias *to)
{
    if (!gate && !up) return VKM_OK;
    float *both = calloc((size_t)experts * 2 * rows, sizeof *both);
    if (!both) return vkm_fail(p->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t e = 0; e < experts; e++) {
        if (gate) memcpy(both + (size_t)2 * e * rows, gate + (size_t)e * rows, rows * sizeof *both);
        if (up)   memcpy(both + (size_t)(2 * e + 1) * rows, up + (size_t)e * rows, rows * sizeof *both);
    }
    vkm_result r = table(p, both, (size_t)experts * 2 * rows, to);
    free(both);
    return r;
}

/* An expert, or all of them: routed ones or the shared one. */
struct ffn {
    const char *gate_name, *up_name, *down_name;
    const vkm_moe_matrix *gate, *up, *down;
    const float *gate_bias, *up_bias, *down_bias;
    uint32_t width, experts;
    struct vkm_weight *pair_to, *gate_to, *up_to, *down_to;
    struct vkm_ffn_bias *bias;
};

static vkm_result place_ffn(const struct placer *p, const struct ffn *f)
{
    const uint32_t n_embd = p->desc->n_embd;
    const struct vkm_type *gate_type = NULL, *up_type, *down_type;
    struct vkm_source pair[2], down;
    if (f->gate->data) TRY(matrix(p, f->gate, f->gate_name, f->width, n_embd, f->experts, &gate_type, &pair[0]));
    else if (f->gate_bias) return vkm_fail(p->err, VKM_ERR_ARGUMENT, "MoE layer: there is a bias of %s, and no such matrix", f->gate_name);
    TRY(matrix(p, f->up, f->up_name, f->width, n_embd, f->experts, &up_type, &pair[1]));
    TRY(matrix(p, f->down, f->down_name, n_embd, f->width, f->experts, &down_type, &down));
    if (gate_type == up_type) {
        TRY(place(p, f->pair_to, up_type, n_embd, f->experts, pair, 2, f->up_name));
        TRY(pair_table(p, f->gate_bias, f->up_bias, f->width, f->experts, &f->bias->gate));
    } else {
        if (gate_type) TRY(place(p, f->gate_to, gate_type, n_embd, f->experts, &pair[0], 1, f->gate_name));
        TRY(place(p, f->up_to, up_type, n_embd, f->experts, &pair[1], 1, f->up_name));
        TRY(table(p, f->gate_bias, (size_t)f->experts * f->width, &f->bias->gate));
        TRY(table(p, f->up_bias, (size_t)f->experts * f->width, &f->bias->up));
    }
    TRY(place(p, f->down_to, down_type, f->width, f->experts, &down, 1, f->down_name));
    return table(p, f->down_bias, (size_t)f->experts * n_embd, &f->bias->down);
}

/* The router's rows and, behind them, that of the shared expert's gate, as f32. */
static vkm_result place_router(const struct placer *p, uint32_t rows)
{
    const vkm_moe_weights *w = p->weights;
    const uint32_t cols = p->desc->n_embd, all = rows + (w->shared_router != NULL);
    const struct vkm_type *type = NULL;
    struct vkm_source from;
    if (rows) TRY(matrix(p, &w->router, "router", rows, cols, 1, &type, &from));
    else if (w->router.data) return vkm_fail(p->err, VKM_ERR_ARGUMENT, "MoE layer: there is a router matrix, and this kind of router has none");
    if (rows && type->id != 0 && type->id != 1 && type->id != 30) return vkm_fail(p->err, VKM_ERR_UNSUPPORTED, "MoE layer: the router is %s; it must be F32, F16 or BF16", type->name);
    if (!all) return VKM_OK;
    float *f = malloc((size_t)all * cols * sizeof *f);
    if (!f) return vkm_fail(p->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (size_t i = 0; i < (size_t)rows * cols; i++) f[i] = vkm_type_float(type, from.data, i);
    if (w->shared_router) memcpy(f + (size_t)rows * cols, w->shared_router, cols * sizeof *f);
    p->moe->router = (struct vkm_weight){.type = vkm_type_find(0), .cols = cols, .experts = 1};
    return vkm_plan_add(p->plan, &p->moe->router, &(struct vkm_source){.rows = all, .own = f}, 1, "router", p->err);
}

static vkm_result activation(const vkm_moe_layer_desc *d, bool gate, struct vkm_epilogue *act, vkm_error *err)
{
    static const uint32_t acts[] = {[VKM_ACTIVATION_SILU] = VKM_ACT_SILU, [VKM_ACTIVATION_GELU_TANH] = VKM_ACT_GELU_TANH, [VKM_ACTIVATION_GELU_ERF] = VKM_ACT_GELU_ERF,
                                    [VKM_ACTIVATION_RELU] = VKM_ACT_RELU, [VKM_ACTIVATION_RELU_SQUARED] = VKM_ACT_RELU2};
    bool limited = d->swiglu_alpha != 0 || d->swiglu_limit != 0 || d->swiglu_add != 0;
    if ((uint32_t)d->activation >= VKM_COUNT(acts)) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: activation %u is not one", (unsigned)d->activation);
    if (limited && (d->activation != VKM_ACTIVATION_SILU || !gate)) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: swiglu_alpha, _limit and _add are for SiLU with a gate");
    if (!isfinite(d->swiglu_alpha) || !isfinite(d->swiglu_add) || !(d->swiglu_limit >= 0)) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: swiglu_alpha and _add must be finite, _limit not negative");
    *act = (struct vkm_epilogue){.act = acts[d->activation], .limited = limited, .alpha = d->swiglu_alpha != 0 ? d->swiglu_alpha : 1,
                                 .limit = d->swiglu_limit > 0 && d->swiglu_limit < FLT_MAX ? d->swiglu_limit : FLT_MAX, .add = d->swiglu_add, .weight_first = d->weight_before, .tab_bias = VKM_NONE};
    return VKM_OK;
}

vkm_result vkm_moe_place_weights(const vkm_moe_layer_desc *d, const vkm_moe_weights *w, uint32_t router_rows, struct vkm_plan *plan, struct vkm_moe *moe, vkm_error *err)
{
    const struct placer p = {d, w, moe, plan, err};
    moe->n_expert = d->n_expert;
    moe->n_embd = d->n_embd;
    moe->shared_gated = w->shared_router != NULL;
    TRY(activation(d, w->gate.data != NULL, &moe->act, err));
    if (!d->n_ff_shared && (w->shared_gate.data || w->shared_up.data || w->shared_down.data || w->shared_gate_bias || w->shared_up_bias || w->shared_down_bias || w->shared_router))
        return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: there are weights of a shared expert, and n_ff_shared is 0");
    if (d->n_ff_shared && !w->shared_gate.data != !w->gate.data)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: of experts and shared expert one has a gate and the other has none");
    TRY(place_router(&p, router_rows));
    const struct ffn routed = {"gate", "up", "down", &w->gate, &w->up, &w->down, w->gate_bias, w->up_bias, w->down_bias, d->n_ff, d->n_expert, &moe->gate_up, &moe->gate, &moe->up, &moe->down, &moe->bias};
    TRY(place_ffn(&p, &routed));
    if (!d->n_ff_shared) return VKM_OK;
    const struct ffn shared = {"shared_gate", "shared_up", "shared_down", &w->shared_gate, &w->shared_up, &w->shared_down, w->shared_gate_bias, w->shared_up_bias, w->shared_down_bias, d->n_ff_shared, 1,
                               &moe->shared_gate_up, &moe->shared_gate, &moe->shared_up, &moe->shared_down, &moe->shared_bias};
    return place_ffn(&p, &shared);
}
