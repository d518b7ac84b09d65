#include "model.h"
#include "text/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

struct loader {
    const vkm_gguf *g;
    struct vkm_model *m;
    struct vkm_plan *plan;
    vkm_error *err;
    int layer;                          /* < 0: none */
    char name[96];                      /* of the tensor last looked for */
};

static const struct vkm_gguf_tensor *find(struct loader *l, const char *name)
{
    if (l->layer < 0) snprintf(l->name, sizeof l->name, "%s", name);
    else              snprintf(l->name, sizeof l->name, "blk.%d.%s", l->layer, name);
    return vkm_gguf_tensor_find(l->g, l->name);
}

static vkm_result shape(struct loader *l, const struct vkm_gguf_tensor *t, uint64_t ne0, uint64_t ne1, uint64_t ne2)
{
    if (!t) return vkm_fail(l->err, VKM_ERR_FORMAT, "tensor %s is absent", l->name);
    if (t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != ne2 || t->ne[3] != 1)
        return vkm_fail(l->err, VKM_ERR_FORMAT, "tensor %s has shape %llu x %llu x %llu, the metadata say %llu x %llu x %llu", l->name,
                        (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2], (unsigned long long)ne0, (unsigned long long)ne1, (unsigned long long)ne2);
    return VKM_OK;
}

static vkm_result type_of(struct loader *l, const struct vkm_gguf_tensor *t, const struct vkm_type **type)
{
    *type = vkm_type_find(t->type);
    if (*type) return VKM_OK;
    const struct vkm_ggml_type *known = vkm_ggml_type_find(t->type);
    return vkm_fail(l->err, VKM_ERR_UNSUPPORTED, "tensor %s has type %s, which is not supported", l->name, known ? known->name : "?");
}

/* All elements of a small F32, F16 or BF16 tensor as floats; the caller frees. `spare` more floats are allocated behind them. */
static vkm_result floats(struct loader *l, const struct vkm_gguf_tensor *t, size_t spare, float **out)
{
    if (t->type != 0 && t->type != 1 && t->type != 30) return vkm_fail(l->err, VKM_ERR_UNSUPPORTED, "tensor %s must be F32, F16 or BF16", l->name);
    size_t n = (size_t)(t->ne[0] * t->ne[1]);
    float *v = malloc((n + spare) * sizeof *v);
    if (!v) return vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (size_t i = 0; i < n; i++) v[i] = vkm_type_float(vkm_type_find(t->type), t->data, i);
    *out = v;
    return VKM_OK;
}

/* A vector (norm, bias) as floats; absent: *out stays NULL. */
static vkm_result vector(struct loader *l, const char *name, uint64_t n, bool required, float **out)
{
    const struct vkm_gguf_tensor *t = find(l, name);
    if (!t && !required) return VKM_OK;
    TRY(shape(l, t, n, 1, 1));
    return floats(l, t, 0, out);
}

/* The same, into the tables. Absent: VKM_NONE. */
static vkm_result table(struct loader *l, const char *name, uint64_t n, bool required, uint32_t *at)
{
    float *v = NULL;
    TRY(vector(l, name, n, required, &v));
    *at = v ? vkm_plan_table(l->plan, v, (uint32_t)n) : VKM_NONE;
    bool failed = v && *at == VKM_NONE;
    free(v);
    return failed ? vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory") : VKM_OK;
}

/* Rows from first_row on of each matrix of a tensor. */
static struct vkm_source rows_of(const struct vkm_gguf_tensor *t, const struct vkm_type *type, uint64_t first_row, uint32_t rows)
{
    uint64_t row = vkm_type_row_bytes(type, (uint32_t)t->ne[0]);
    return (struct vkm_source){.rows = rows, .data = (const uint8_t *)t->data + first_row * row, .stride = t->ne[1] * row, .whole = t->data, .whole_bytes = t->bytes};
}

static vkm_result matrix(struct loader *l, const char *name, uint32_t cols, uint32_t rows, uint32_t experts, struct vkm_weight *w)
{
    const struct vkm_gguf_tensor *t = find(l, name);
    TRY(shape(l, t, cols, rows, experts));
    *w = (struct vkm_weight){.cols = cols, .experts = experts};
    TRY(type_of(l, t, &w->type));
    const struct vkm_source from = rows_of(t, w->type, 0, rows);
    return vkm_plan_add(l->plan, w, &from, 1, l->name, l->err);
}

/* ---------------------------------------------------------------- experts */

/* One tensor of all experts, or (old Mixtral files) one tensor an expert, or (fused) the half of ffn_gate_up_exps that begins at first_row. */
static vkm_result expert_source(struct loader *l, const char *what, uint32_t cols, uint32_t rows, uint32_t experts, struct vkm_source *s, const struct vkm_type **type)
{
    char name[64];
    snprintf(name, sizeof name, "ffn_%s_exps.weight", what);
    const struct vkm_gguf_tensor *t = find(l, name);
    if (t) {
        TRY(shape(l, t, cols, rows, experts));
        TRY(type_of(l, t, type));
        *s = rows_of(t, *type, 0, rows);
        return VKM_OK;
    }
    bool gate = !strcmp(what, "gate"), up = !strcmp(what, "up");
    if ((gate || up) && (t = find(l, "ffn_gate_up_exps.weight"))) {
        TRY(shape(l, t, cols, (uint64_t)rows * 2, experts));
        TRY(type_of(l, t, type));
        *s = rows_of(t, *type, up ? rows : 0, rows);
        return VKM_OK;
    }
    snprintf(name, sizeof name, "ffn_%s.0.weight", what);
    if (!find(l, name)) {
        snprintf(name, sizeof name, "ffn_%s_exps.weight", what);
        return shape(l, find(l, name), cols, rows, experts);       /* says that it is absent */
    }
    const struct vkm_gguf_tensor *first = NULL;
    const uint8_t **each = calloc(experts, sizeof *each);
    if (!each) return vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t e = 0; e < experts; e++) {
        snprintf(name, sizeof name, "ffn_%s.%u.weight", what, e);
        t = find(l, name);
        if (e == 0) first = t;
        vkm_result r = shape(l, t, cols, rows, 1);
        if (r == VKM_OK) r = type_of(l, t, type);
        if (r == VKM_OK && t->type != first->type) r = vkm_fail(l->err, VKM_ERR_UNSUPPORTED, "tensor %s has another type than expert 0", l->name);
        if (r != VKM_OK) { free((void *)each); return r; }
        each[e] = t->data;
    }
    *s = (struct vkm_source){.rows = rows, .each = each};
    return VKM_OK;
}

static vkm_result add_source(struct loader *l, struct vkm_weight *w, const struct vkm_type *type, uint32_t cols, uint32_t experts, struct vkm_source s)
{
    *w = (struct vkm_weight){.type = type, .cols = cols, .experts = experts};
    return vkm_plan_add(l->plan, w, &s, 1, l->name, l->err);
}

/* gate and up, interleaved when their types are the same (practically always) */
static vkm_result gate_up(struct loader *l, struct vkm_source gate, const struct vkm_type *gate_type, struct vkm_source up, const struct vkm_type *up_type,
                          uint32_t cols, uint32_t experts, struct vkm_weight *both, struct vkm_weight *g, struct vkm_weight *u)
{
    if (gate_type == up_type) {
        *both = (struct vkm_weight){.type = gate_type, .cols = cols, .experts = experts, .glu = true};
        return vkm_plan_add(l->plan, both, (const struct vkm_source[]){gate, up}, 2, l->name, l->err);
    }
    vkm_result r = add_source(l, g, gate_type, cols, experts, gate);
    if (r != VKM_OK) { free((void *)up.each); return r; }
    return add_source(l, u, up_type, cols, experts, up);
}

/* The router, with the shared expert's gate as one more row, so that one matmul gives both. */
static vkm_result router(struct loader *l, struct vkm_moe *moe, uint32_t n_embd)
{
    uint32_t n = moe->n_expert;
    if (!moe->shared_gated) return matrix(l, "ffn_gate_inp.weight", n_embd, n, 1, &moe->router);
    const struct vkm_gguf_tensor *t = find(l, "ffn_gate_inp.weight");
    TRY(shape(l, t, n_embd, n, 1));
    float *gate = NULL, *rows;
    TRY(floats(l, t, n_embd, &rows));
    vkm_result r = vector(l, "ffn_gate_inp_shexp.weight", n_embd, true, &gate);
    if (r != VKM_OK) { free(rows); return r; }
    memcpy(rows + (size_t)n * n_embd, gate, n_embd * sizeof *rows);
    free(gate);
    moe->router = (struct vkm_weight){.type = vkm_type_find(0), .cols = n_embd, .experts = 1};
    return vkm_plan_add(l->plan, &moe->router, &(struct vkm_source){.rows = n + 1, .own = rows}, 1, l->name, l->err);
}

static vkm_result load_moe(struct loader *l, struct vkm_moe *moe)
{
    const struct vkm_hparams *h = &l->m->h;
    *moe = (struct vkm_moe){.n_expert = h->n_expert, .n_used = h->n_used, .n_embd = h->n_embd, .score = h->arch->softmax_selected ? VKM_SCORE_SELECTED : VKM_SCORE_SOFTMAX,
                            .renormalise = h->arch->renormalise, .weight_scale = h->weight_scale};
    const struct vkm_gguf_tensor *shared = find(l, "ffn_up_shexp.weight");
    moe->shared_gated = shared && h->arch->shared_gated;
    TRY(router(l, moe, h->n_embd));

    struct vkm_source gate, up, down;
    const struct vkm_type *gate_type, *up_type, *down_type;
    TRY(expert_source(l, "gate", h->n_embd, h->n_ff, h->n_expert, &gate, &gate_type));
    vkm_result r = expert_source(l, "up", h->n_embd, h->n_ff, h->n_expert, &up, &up_type);
    if (r != VKM_OK) { free((void *)gate.each); return r; }
    TRY(gate_up(l, gate, gate_type, up, up_type, h->n_embd, h->n_expert, &moe->gate_up, &moe->gate, &moe->up));
    TRY(expert_source(l, "down", h->n_ff, h->n_embd, h->n_expert, &down, &down_type));
    TRY(add_source(l, &moe->down, down_type, h->n_ff, h->n_expert, down));
    if (!shared) return VKM_OK;

    uint32_t width = (uint32_t)shared->ne[1];              /* the tensor decides: early qwen2moe files have no key for it */
    if (l->m->h.n_ff_shared && l->m->h.n_ff_shared != width) return shape(l, find(l, "ffn_up_shexp.weight"), h->n_embd, l->m->h.n_ff_shared, 1);
    l->m->h.n_ff_shared = width;
    const struct vkm_gguf_tensor *sg = find(l, "ffn_gate_shexp.weight");
    TRY(shape(l, sg, h->n_embd, width, 1));
    TRY(type_of(l, sg, &gate_type));
    const struct vkm_gguf_tensor *su = find(l, "ffn_up_shexp.weight");
    TRY(shape(l, su, h->n_embd, width, 1));
    TRY(type_of(l, su, &up_type));
    TRY(gate_up(l, rows_of(sg, gate_type, 0, width), gate_type, rows_of(su, up_type, 0, width), up_type, h->n_embd, 1,
                &moe->shared_gate_up, &moe->shared_gate, &moe->shared_up));
    return matrix(l, "ffn_down_shexp.weight", width, h->n_embd, 1, &moe->shared_down);
}

/* ---------------------------------------------------------------- layers */

/* Of n neighbours from `first` on, as their weight has them side by side; zeros where one has none and between them. None has: VKM_NONE. */
static vkm_result biases(struct loader *l, uint32_t first, uint32_t n, const uint32_t *rows, struct vkm_projection *p)
{
    static const char *const names[3] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
    float *all = calloc(p->w.rows, sizeof *all);
    if (!all) return vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    bool some = false;
    vkm_result r = VKM_OK;
    for (uint32_t i = first, at = 0; r == VKM_OK && i < first + n; at += (uint32_t)vkm_align(rows[i++], VKM_PANEL_ROWS)) {
        float *v = NULL;
        r = vector(l, names[i], rows[i], false, &v);
        if (v) memcpy(all + at, v, rows[i] * sizeof *v);
        some |= v != NULL;
        free(v);
    }
    p->tab_bias = r == VKM_OK && some ? vkm_plan_table(l->plan, all, p->w.rows) : VKM_NONE;
    free(all);
    if (r != VKM_OK) return r;
    return some && p->tab_bias == VKM_NONE ? vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory") : VKM_OK;
}

/* q, k and v, with so many rows */
static vkm_result projections(struct loader *l, struct vkm_layer *y, const uint32_t *rows)
{
    static const char *const names[3] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
    struct vkm_source sources[3];
    const struct vkm_type *types[3];
    for (uint32_t i = 0; i < 3; i++) {
        const struct vkm_gguf_tensor *t = find(l, names[i]);
        TRY(shape(l, t, l->m->h.n_embd, rows[i], 1));
        TRY(type_of(l, t, &types[i]));
        sources[i] = rows_of(t, types[i], 0, rows[i]);
    }
    for (uint32_t i = 0, n; i < 3; i += n) {
        struct vkm_projection *p = &y->qkv[y->n_qkv++];
        for (n = 1; i + n < 3 && types[i + n] == types[i]; n++) {}
        *p = (struct vkm_projection){.w = {.type = types[i], .cols = l->m->h.n_embd, .experts = 1}, .n = n};
        find(l, names[i]);                                 /* for messages */
        TRY(vkm_plan_add(l->plan, &p->w, sources + i, n, l->name, l->err));
        TRY(biases(l, i, n, rows, p));
    }
    return VKM_OK;
}

static vkm_result load_layer(struct loader *l, struct vkm_layer *y)
{
    const struct vkm_hparams *h = &l->m->h;
    uint32_t q = h->n_head * h->head, kv = h->n_head_kv * h->head;
    TRY(table(l, "attn_norm.weight", h->n_embd, true, &y->tab_attn_norm));
    TRY(table(l, "ffn_norm.weight", h->n_embd, true, &y->tab_ffn_norm));
    y->tab_q_norm = y->tab_k_norm = VKM_NONE;
    const struct vkm_gguf_tensor *qn = find(l, "attn_q_norm.weight");
    if (qn) {
        y->qk_norm_full = qn->ne[0] != h->head;
        TRY(table(l, "attn_q_norm.weight", y->qk_norm_full ? q : h->head, true, &y->tab_q_norm));
        TRY(table(l, "attn_k_norm.weight", y->qk_norm_full ? kv : h->head, true, &y->tab_k_norm));
    }
    TRY(projections(l, y, (const uint32_t[]){q, kv, kv}));
    TRY(matrix(l, "attn_output.weight", q, h->n_embd, 1, &y->o));
    TRY(table(l, "attn_output.bias", h->n_embd, false, &y->tab_o_bias));
    return load_moe(l, &y->moe);
}

static vkm_result plan_model(struct loader *l)
{
    struct vkm_model *m = l->m;
    const struct vkm_hparams *h = &m->h;
    l->layer = -1;
    const struct vkm_gguf_tensor *embd = find(l, "token_embd.weight");
    if (!embd) return shape(l, NULL, 0, 0, 0);
    if (embd->ne[1] < 1 || embd->ne[1] > INT32_MAX) return vkm_fail(l->err, VKM_ERR_FORMAT, "tensor token_embd.weight has %llu rows", (unsigned long long)embd->ne[1]);
    m->h.n_vocab = (uint32_t)embd->ne[1];
    TRY(matrix(l, "token_embd.weight", h->n_embd, h->n_vocab, 1, &m->embedding));
    TRY(table(l, "output_norm.weight", h->n_embd, true, &m->tab_output_norm));
    if (find(l, "rope_freqs.weight")) TRY(vector(l, "rope_freqs.weight", h->n_rot / 2, true, &m->freq_factors));
    m->layers = calloc(h->n_layer, sizeof *m->layers);
    if (!m->layers) return vkm_fail(l->err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (l->layer = 0; l->layer < (int)h->n_layer; l->layer++) TRY(load_layer(l, &m->layers[l->layer]));
    l->layer = -1;
    if (find(l, "output.weight")) return matrix(l, "output.weight", h->n_embd, h->n_vocab, 1, &m->output);
    m->output = m->embedding;                              /* tied */
    return VKM_OK;
}

static void copy_str(char *out, size_t size, struct vkm_str s)
{
    size_t n = s.n < size - 1 ? s.n : size - 1;
    memcpy(out, s.at, n);
    out[n] = 0;
}

static void describe(struct vkm_model *m, const vkm_gguf *g, uint64_t device_bytes)
{
    const struct vkm_hparams *h = &m->h;
    vkm_model_info *i = &m->info;
    struct vkm_str s;
    snprintf(i->architecture, sizeof i->architecture, "%s", h->arch->name);
    if (vkm_gguf_has(g, "general.name") && vkm_gguf_str(g, "general.name", &s, NULL) == VKM_OK) copy_str(i->name, sizeof i->name, s);
    for (uint64_t t = 0; t < vkm_gguf_tensor_count(g); t++) {
        const struct vkm_gguf_tensor *x = vkm_gguf_tensor_at(g, t);
        i->n_params += x->ne[0] * x->ne[1] * x->ne[2] * x->ne[3];
    }
    i->file_bytes = vkm_gguf_file_bytes(g);
    i->device_bytes = device_bytes;
    i->n_layer = h->n_layer; i->n_embd = h->n_embd; i->n_head = h->n_head; i->n_head_kv = h->n_head_kv; i->head_dim = h->head; i->n_ctx_train = h->n_ctx_train; i->n_vocab = h->n_vocab;
    i->n_expert = h->n_expert; i->n_expert_used = h->n_used; i->n_ff_expert = h->n_ff; i->n_ff_shared = h->n_ff_shared;
}

vkm_result vkm_model_plan(const vkm_gguf *g, const struct vkm_caps *caps, struct vkm_model *m, struct vkm_plan **plan, vkm_error *err)
{
    struct loader l = {.g = g, .m = m, .err = err};
    TRY(vkm_plan_create(caps, &l.plan, err));
    vkm_result r = vkm_hparams_read(g, &m->h, err);
    if (r == VKM_OK) r = plan_model(&l);
    if (r == VKM_OK) *plan = l.plan;
    else vkm_plan_destroy(l.plan);
    return r;
}

#define FINGERPRINT_TENSORS 64u         /* of which a part is read */
#define FINGERPRINT_BYTES 4096u

/* Of hyper-parameters, of all tensors' names, types and shapes, and of the first bytes of some: a fine-tuned model has those different, and a large one need not be read. */
static vkm_result fingerprint(const vkm_gguf *g, struct vkm_model *m, vkm_error *err)
{
    const struct vkm_hparams *h = &m->h;
    const double numbers[] = {h->n_layer, h->n_embd, h->n_vocab, h->n_head, h->n_head_kv, h->head, h->n_rot, h->n_expert, h->n_used, h->n_ff, h->n_ff_shared, h->eps, h->embedding_scale, h->residual_scale,
                              h->attention_scale, h->logit_scale, h->weight_scale, h->clamp_kqv, h->rope_base, h->rope_factor, h->rope_attn_factor, h->beta_fast, h->beta_slow, h->rope_scaling, h->n_ctx_original};
    uint64_t hash = vkm_hash(vkm_hash(VKM_HASH_START, h->arch->name, strlen(h->arch->name)), numbers, sizeof numbers), n = vkm_gguf_tensor_count(g), every = n / FINGERPRINT_TENSORS + 1;
    for (uint64_t i = 0; i < n; i++) {
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_at(g, i);
        uint64_t part = t->bytes < FINGERPRINT_BYTES ? t->bytes : FINGERPRINT_BYTES;
        hash = vkm_hash(vkm_hash(vkm_hash(hash, t->name.at, t->name.n), &t->type, sizeof t->type), t->ne, sizeof t->ne);
        if (i % every || !part) continue;
        TRY(vkm_gguf_fetch(g, t->data, part, err));
        hash = vkm_hash(hash, t->data, part);
    }
    m->fingerprint = hash;
    return VKM_OK;
}

static void prefetch(const void *g, const void *at, uint64_t bytes) { vkm_gguf_prefetch(g, at, bytes); }
static vkm_result fetch(const void *g, const void *at, uint64_t bytes, vkm_error *err) { return vkm_gguf_fetch(g, at, bytes, err); }
static void release(const void *g, const void *at, uint64_t bytes) { vkm_gguf_release(g, at, bytes); }

static vkm_result load(struct loader *l, const char *path, const vkm_model_params *params)
{
    struct vkm_model *m = l->m;
    TRY(vkm_model_plan(l->g, vkm_device_caps(m->device), m, &l->plan, l->err));
    TRY(fingerprint(l->g, m, l->err));
    uint64_t need = vkm_plan_bytes(l->plan), have = vkm_device_budget(m->device);
    if (need > have)
        return vkm_fail(l->err, VKM_ERR_DEVICE_MEMORY, "%s: the weights need %.2f GiB of device memory, %s has %.2f GiB left", path, need / 0x1p30,
                        vkm_device_caps(m->device)->device_name, have / 0x1p30);
    if (vkm_gguf_has(l->g, "tokenizer.ggml.model")) {       /* a tokenizer that we do not know must not keep anyone from the logits */
        vkm_error e = {0};
        if (vkm_tokenizer_create(l->g, &m->tokenizer, &e) != VKM_OK) vkm_logf(m->device, VKM_LOG_WARN, "no tokenizer: %s", e.message);
        else if (vkm_tokenizer_n_vocab(m->tokenizer) > m->h.n_vocab)
            return vkm_fail(l->err, VKM_ERR_FORMAT, "%s: the tokenizer has %u tokens, the embedding %u rows", path, vkm_tokenizer_n_vocab(m->tokenizer), m->h.n_vocab);
    }
    describe(m, l->g, need);
    const struct vkm_paging paging = {l->g, prefetch, fetch, release};
    const struct vkm_upload how = {.paging = &paging, .progress = params->progress, .progress_user = params->progress_user, .n_threads = params->n_threads};
    return vkm_plan_upload(l->plan, m->device, &how, &m->weights, l->err);
}

vkm_result vkm_model_load(vkm_device *device, const char *path, const vkm_model_params *params, vkm_model **model, vkm_error *err)
{
    if (!device || !path || !model) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_model_load: device, path and model are required");
    vkm_model_params p = {0};
    if (params) memcpy(&p, params, params->struct_size && params->struct_size < sizeof p ? params->struct_size : sizeof p);
    vkm_gguf *g;
    TRY(vkm_gguf_open(path, &g, err));
    struct vkm_model *m = calloc(1, sizeof *m);
    struct loader l = {.g = g, .m = m, .err = err};
    if (m) m->device = device;
    vkm_result r = m ? load(&l, path, &p) : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    vkm_plan_destroy(l.plan);
    vkm_gguf_close(g);
    if (r != VKM_OK) { vkm_model_destroy(m); return r; }
    *model = m;
    return VKM_OK;
}

void vkm_model_destroy(vkm_model *m)
{
    if (!m) return;
    vkm_slabs_destroy(&m->weights);
    free(m->layers); free(m->freq_factors);
    vkm_tokenizer_destroy(m->tokenizer);
    free(m);
}

void vkm_model_get_info(const vkm_model *m, vkm_model_info *info) { *info = m->info; }
const vkm_tokenizer *vkm_model_tokenizer(const vkm_model *m) { return m->tokenizer; }
