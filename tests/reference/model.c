/* The forward pass. x is the residual stream, [n][n_embd]; a function per idea, a loop per index. */
#include "reference/model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *array(size_t n)
{
    double *x = calloc(n, sizeof *x);
    if (!x) abort();
    return x;
}

/* ---------------------------------------------------------------- small steps */

/* y [rows] = matrix `i` of w times x [cols], plus bias */
static void linear(const struct ref_matrix *w, uint32_t i, const struct ref_matrix *bias, const double *x, double *y)
{
    const float *row = w->w + (size_t)i * w->rows * w->cols;
    for (uint32_t r = 0; r < w->rows; r++, row += w->cols) {
        double sum = bias && bias->w ? bias->w[r] : 0;
        for (uint32_t c = 0; c < w->cols; c++) sum += row[c] * x[c];
        y[r] = sum;
    }
}

static void rms_norm(const double *x, const float *weight, uint32_t n, double eps, double *y)
{
    double squares = 0;
    for (uint32_t i = 0; i < n; i++) squares += x[i] * x[i];
    double scale = 1 / sqrt(squares / n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static void norm_rows(const double *x, const struct ref_matrix *weight, uint32_t n, double eps, double *y)
{
    for (uint32_t t = 0; t < n; t++) rms_norm(x + (size_t)t * weight->cols, weight->w, weight->cols, eps, y + (size_t)t * weight->cols);
}

static double sigmoid(double v) { return 1 / (1 + exp(-v)); }
static double silu(double v) { return v * sigmoid(v); }

static void softmax(double *x, uint32_t n)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++) max = fmax(max, x[i]);
    for (uint32_t i = 0; i < n; i++) sum += x[i] = exp(x[i] - max);
    for (uint32_t i = 0; i < n; i++) x[i] /= sum;
}

static void add(double *x, const double *y, double scale, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] += scale * y[i];
}

static void tap(struct ref_watch *w, const char *what, uint32_t layer, const double *x, uint32_t rows, uint32_t cols)
{
    if (w && w->tap) w->tap(w->user, what, layer, x, rows, cols);
}

/* ---------------------------------------------------------------- attention */

/* Turns a head's first n_rot numbers by the position; the others pass. */
static void rope(const struct ref_model *m, double *x, uint32_t position)
{
    uint32_t half = m->n_rot / 2;
    for (uint32_t j = 0; j < half; j++) {
        double c = cos(position * m->rope_freq[j]) * m->rope_mscale, s = sin(position * m->rope_freq[j]) * m->rope_mscale;
        double *a = m->arch.neox ? &x[j] : &x[2 * j], *b = m->arch.neox ? &x[j + half] : &x[2 * j + 1];
        double a0 = *a, b0 = *b;
        *a = a0 * c - b0 * s;
        *b = a0 * s + b0 * c;
    }
}

/* One of q, k, v: [n][heads][head_dim]. The clamp follows the norm, as in OLMoE's own code. */
static double *project(const struct ref_model *m, const struct ref_matrix *w, const struct ref_matrix *bias, const struct ref_matrix *norm, bool turn,
                       const double *h, uint32_t n)
{
    double *y = array((size_t)n * w->rows);
    for (uint32_t t = 0; t < n; t++) {
        double *row = y + (size_t)t * w->rows;
        linear(w, 0, bias, h + (size_t)t * w->cols, row);
        for (uint32_t i = 0; norm && norm->w && i < w->rows; i += norm->cols) rms_norm(row + i, norm->w, norm->cols, m->eps, row + i);
        for (uint32_t i = 0; m->clamp_qkv > 0 && i < w->rows; i++) row[i] = fmin(fmax(row[i], -m->clamp_qkv), m->clamp_qkv);
        for (uint32_t i = 0; turn && i < w->rows; i += m->head_dim) rope(m, row + i, t);
    }
    return y;
}

/* One query head at position t over the keys and values 0..t of its group. scores [t + 1] is scratch. */
static void attend(const struct ref_model *m, const double *q, const double *k, const double *v, uint32_t head, uint32_t t, double *scores, double *out)
{
    uint32_t d = m->head_dim, stride = m->n_head_kv * d, group = head / (m->n_head / m->n_head_kv);
    for (uint32_t s = 0; s <= t; s++) {
        const double *key = k + (size_t)s * stride + group * d;
        double dot = 0;
        for (uint32_t i = 0; i < d; i++) dot += q[i] * key[i];
        scores[s] = dot * m->attn_scale;
    }
    softmax(scores, t + 1);
    for (uint32_t i = 0; i < d; i++) out[i] = 0;
    for (uint32_t s = 0; s <= t; s++) add(out, v + (size_t)s * stride + group * d, scores[s], d);
}

/* out [n][n_embd] */
static void attention(const struct ref_model *m, uint32_t layer, const double *h, uint32_t n, double *out, struct ref_watch *watch)
{
    const struct ref_layer *y = &m->layers[layer];
    uint32_t d = m->head_dim, nq = m->n_head * d;
    double *q = project(m, &y->q, &y->q_bias, &y->q_norm, true, h, n);
    double *k = project(m, &y->k, &y->k_bias, &y->k_norm, true, h, n);
    double *v = project(m, &y->v, &y->v_bias, NULL, false, h, n);
    double *a = array((size_t)n * nq), *scores = array(n);
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t head = 0; head < m->n_head; head++)
            attend(m, q + (size_t)t * nq + head * d, k, v, head, t, scores, a + (size_t)t * nq + head * d);
        linear(&y->o, 0, &y->o_bias, a + (size_t)t * nq, out + (size_t)t * m->n_embd);
    }
    tap(watch, "q", layer, q, n, nq);
    tap(watch, "k", layer, k, n, y->k.rows);
    tap(watch, "v", layer, v, n, y->v.rows);
    tap(watch, "attn", layer, a, n, nq);
    free(q);
    free(k);
    free(v);
    free(a);
    free(scores);
}

/* ---------------------------------------------------------------- experts */

double ref_top_k(const double *z, uint32_t n, uint32_t k, uint32_t *chosen)
{
    bool *taken = calloc(n, sizeof *taken);
    uint32_t last = 0;
    if (!taken) abort();
    for (uint32_t j = 0; j < k; j++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++)
            if (!taken[i] && (best == n || z[i] > z[best])) best = i;
        taken[best] = true;
        chosen[j] = last = best;
    }
    double margin = INFINITY;
    for (uint32_t i = 0; i < n; i++)
        if (!taken[i]) margin = fmin(margin, z[last] - z[i]);
    free(taken);
    return margin;
}

/* Softmax over all experts, the k best, and their weights: divided by their sum (not below 2^-14, as llama.cpp does) or not. */
static double route(const struct ref_model *m, const double *logits, uint32_t *chosen, double *weights)
{
    double *p = array(m->n_expert), sum = 0;
    memcpy(p, logits, m->n_expert * sizeof *p);
    softmax(p, m->n_expert);
    double margin = ref_top_k(logits, m->n_expert, m->n_used, chosen);
    for (uint32_t j = 0; j < m->n_used; j++) sum += weights[j] = p[chosen[j]];
    for (uint32_t j = 0; j < m->n_used; j++) weights[j] *= m->expert_scale / (m->arch.renormalise ? fmax(sum, 0x1p-14) : 1);
    free(p);
    return margin;
}

/* y [embd] += weight * down (silu(gate x) * (up x)), SwiGLU; matrices number e */
static void ffn(const struct ref_matrix *gate, const struct ref_matrix *up, const struct ref_matrix *down, uint32_t e, const double *x, double weight, double *y)
{
    double *g = array(gate->rows), *u = array(up->rows), *d = array(down->rows);
    linear(gate, e, NULL, x, g);
    linear(up, e, NULL, x, u);
    for (uint32_t i = 0; i < gate->rows; i++) g[i] = silu(g[i]) * u[i];
    linear(down, e, NULL, g, d);
    add(y, d, weight, down->rows);
    free(g);
    free(u);
    free(d);
}

/* Added with weight 1 (granite) or the sigmoid of its own router (qwen2moe). */
static void shared_expert(const struct ref_layer *y, const double *x, double *out)
{
    double weight = 1;
    if (y->shared_router.w) {
        linear(&y->shared_router, 0, NULL, x, &weight);
        weight = sigmoid(weight);
    }
    ffn(&y->shared_gate, &y->shared_up, &y->shared_down, 0, x, weight, out);
}

static void moe(const struct ref_model *m, uint32_t layer, const double *h, uint32_t n, double *out, struct ref_watch *watch)
{
    const struct ref_layer *y = &m->layers[layer];
    uint32_t k = m->n_used, *chosen = calloc(k, sizeof *chosen);
    double *logits = array((size_t)n * m->n_expert), *weights = array((size_t)n * k), *ids = array((size_t)n * k);
    if (!chosen) abort();
    memset(out, 0, (size_t)n * m->n_embd * sizeof *out);
    for (uint32_t t = 0; t < n; t++) {
        const double *x = h + (size_t)t * m->n_embd;
        linear(&y->router, 0, NULL, x, logits + (size_t)t * m->n_expert);
        double margin = route(m, logits + (size_t)t * m->n_expert, chosen, weights + (size_t)t * k);
        if (watch) watch->margin = fmin(watch->margin, margin);
        for (uint32_t j = 0; j < k; j++) {
            ids[(size_t)t * k + j] = chosen[j];
            ffn(&y->gate, &y->up, &y->down, chosen[j], x, weights[(size_t)t * k + j], out + (size_t)t * m->n_embd);
        }
        if (y->shared_gate.w) shared_expert(y, x, out + (size_t)t * m->n_embd);
    }
    tap(watch, "router", layer, logits, n, m->n_expert);
    tap(watch, "experts", layer, ids, n, k);
    tap(watch, "weights", layer, weights, n, k);
    free(chosen);
    free(logits);
    free(weights);
    free(ids);
}

/* ---------------------------------------------------------------- the model */

static void layer_forward(const struct ref_model *m, uint32_t layer, double *x, uint32_t n, struct ref_watch *watch)
{
    const struct ref_layer *y = &m->layers[layer];
    size_t size = (size_t)n * m->n_embd;
    double *h = array(size), *branch = array(size);

    norm_rows(x, &y->attn_norm, n, m->eps, h);
    tap(watch, "attn_norm", layer, h, n, m->n_embd);
    attention(m, layer, h, n, branch, watch);
    tap(watch, "attn_out", layer, branch, n, m->n_embd);
    add(x, branch, m->residual_scale, size);

    norm_rows(x, &y->ffn_norm, n, m->eps, h);
    tap(watch, "ffn_norm", layer, h, n, m->n_embd);
    moe(m, layer, h, n, branch, watch);
    tap(watch, "moe", layer, branch, n, m->n_embd);
    add(x, branch, m->residual_scale, size);
    tap(watch, "layer", layer, x, n, m->n_embd);
    free(h);
    free(branch);
}

void ref_model_eval(const struct ref_model *m, const int32_t *tokens, uint32_t n, double *logits, struct ref_watch *watch)
{
    size_t size = (size_t)n * m->n_embd;
    double *x = array(size);
    if (watch) watch->margin = INFINITY;
    for (uint32_t t = 0; t < n; t++) {
        assert(tokens[t] >= 0 && (uint32_t)tokens[t] < m->n_vocab);
        for (uint32_t i = 0; i < m->n_embd; i++) x[(size_t)t * m->n_embd + i] = m->embd_scale * m->embd.w[(size_t)tokens[t] * m->n_embd + i];
    }
    tap(watch, "embd", 0, x, n, m->n_embd);
    for (uint32_t i = 0; i < m->n_layer; i++) layer_forward(m, i, x, n, watch);
    norm_rows(x, &m->output_norm, n, m->eps, x);
    tap(watch, "output_norm", m->n_layer, x, n, m->n_embd);
    for (uint32_t t = 0; t < n; t++) linear(&m->output, 0, NULL, x + (size_t)t * m->n_embd, logits + (size_t)t * m->n_vocab);
    for (size_t i = 0; i < (size_t)n * m->n_vocab; i++) logits[i] /= m->logit_scale;
    free(x);
}
