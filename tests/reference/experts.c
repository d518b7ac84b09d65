#include "reference/experts.h"

#include <math.h>
#include <stdlib.h>

static double *array(size_t n)
{
    double *x = calloc(n, sizeof *x);
    if (!x) abort();
    return x;
}

static double activate(enum ref_act act, double v)
{
    switch (act) {
    case REF_ACT_SILU:      return v / (1 + exp(-v));
    case REF_ACT_GELU_TANH: return 0.5 * v * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
    case REF_ACT_GELU_ERF:  return 0.5 * v * (1 + erf(v / sqrt(2)));
    case REF_ACT_RELU:      return fmax(v, 0);
    case REF_ACT_RELU2:     return fmax(v, 0) * fmax(v, 0);
    }
    abort();
}

static double clamp(double v, double least, double most) { return fmin(fmax(v, least), most); }

static double gated(const struct ref_experts *r, double g, double u)
{
    if (!r->limited) return activate(r->act, g) * u;
    g = fmin(g, r->limit);
    u = clamp(u, -r->limit, r->limit);
    return g / (1 + exp(-r->alpha * g)) * (u + r->add);
}

/* Row i of matrix e, times x, plus its bias */
static double row(const float *w, const float *bias, uint32_t e, uint32_t i, uint32_t rows, uint32_t cols, const double *x)
{
    double sum = 0;
    const float *at = w + ((size_t)e * rows + i) * cols;
    for (uint32_t c = 0; c < cols; c++) sum += at[c] * x[c];
    return sum + (bias ? bias[(size_t)e * rows + i] : 0);
}

void ref_expert(const struct ref_experts *r, uint32_t e, const double *x, double weight, double *y)
{
    double *in = array(r->n_embd), *h = array(r->n_ff);
    for (uint32_t i = 0; i < r->n_embd; i++) in[i] = r->weight_before ? weight * x[i] : x[i];
    for (uint32_t i = 0; i < r->n_ff; i++) {
        double u = row(r->up, r->up_bias, e, i, r->n_ff, r->n_embd, in);
        h[i] = r->gate ? gated(r, row(r->gate, r->gate_bias, e, i, r->n_ff, r->n_embd, in), u) : activate(r->act, u);
    }
    for (uint32_t i = 0; i < r->n_embd; i++) {
        double d = row(r->down, r->down_bias, e, i, r->n_embd, r->n_ff, h);
        y[i] += r->weight_before ? d : weight * d;
    }
    free(in);
    free(h);
}
