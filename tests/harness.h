/* What the suites of model, session and kernels share: a model on a device, and what the reference in double precision says about it.
 * VKMOE_TEST_NUMBERS: every error that was measured goes to stderr.
 * VKMOE_TEST_FIND_SEED: where a model's seed leads to a near tie in the router, looks for the next that does not and tells it. */
#ifndef VKM_TESTS_HARNESS_H
#define VKM_TESTS_HARNESS_H

#include "effort.h"
#include "driver.h"
#include "model/session.h"
#include "reference/compare.h"
#include "reference/dequant.h"
#include "reference/model.h"
#include "reference/testmodel.h"
#include <math.h>
#include <unistd.h>

#define MARGIN 1e-3      /* least difference of router logits at the last choice: below it f32 may choose another expert than f64 */
#define NMSE_F32 1e-9
#define NMSE_F16 1e-5    /* with an f16 KV cache */
#define NMSE_INT8DOT 5e-3
#define NMSE_COOPMAT 1e-5

static const char *const architectures[] = {"llama", "olmoe", "qwen2moe", "qwen3moe", "granitemoe"};
static const struct { uint32_t id; const char *name; } types[] = {
    {REF_F32, "F32"}, {REF_F16, "F16"}, {REF_BF16, "BF16"}, {REF_Q4_0, "Q4_0"}, {REF_Q4_1, "Q4_1"}, {REF_Q5_0, "Q5_0"}, {REF_Q5_1, "Q5_1"}, {REF_Q8_0, "Q8_0"},
    {REF_Q4_K, "Q4_K"}, {REF_Q5_K, "Q5_K"}, {REF_Q6_K, "Q6_K"}};


/* ---------------------------------------------------------------- a model file and its right answers */

struct answers {
    char path[256];
    uint32_t n, n_vocab;
    int32_t *tokens;             /* [n] */
    double *logits;              /* [n][n_vocab]; causal: the first m rows are those of a prompt of m */
};

static inline void some_tokens(int32_t *tokens, uint32_t n, uint32_t n_vocab) { for (uint32_t i = 0; i < n; i++) tokens[i] = (int32_t)((i * 7919 + 13) % n_vocab); }

static inline double answers_compute(struct answers *a, uint32_t n)
{
    vkm_error err = {0};
    struct ref_model *m = NULL;
    struct ref_watch watch = {0};
    OK(ref_model_open(a->path, &m, &err));
    a->n = n;
    a->n_vocab = m->n_vocab;
    a->tokens = malloc(n * sizeof *a->tokens);
    a->logits = malloc((size_t)n * m->n_vocab * sizeof *a->logits);
    cr_assert(a->tokens && a->logits);
    some_tokens(a->tokens, n, m->n_vocab);
    ref_model_eval(m, a->tokens, n, a->logits, &watch);
    ref_model_free(m);
    return watch.margin;
}

static inline void answers_free(struct answers *a)
{
    unlink(a->path);
    free(a->tokens);
    free(a->logits);
}

/* Writes the model and computes n tokens' logits. No router's choice may be nearer than `least`. */
static inline void answers_make_apart(struct answers *a, struct ref_testmodel o, uint32_t n, double least)
{
    for (uint64_t first = o.seed;; o.seed++) {
        *a = (struct answers){0};
        cr_assert(ref_testmodel_save(&o, a->path));
        double margin = answers_compute(a, n);
        if (margin > least) {
            if (o.seed != first) fprintf(stderr, "seed %llu (margin %.2g) instead of %llu: %s hidden %u width %u heads %u experts %u used %u\n", (unsigned long long)o.seed, margin,
                                         (unsigned long long)first, o.arch, o.hidden, o.width, o.heads, o.experts, o.used);
            return;
        }
        if (!getenv("VKMOE_TEST_FIND_SEED"))
            cr_assert_fail("%s, hidden %u, width %u, %u of %u experts: seed %llu has a near tie in the router (%.2g); run with VKMOE_TEST_FIND_SEED=1", o.arch, o.hidden, o.width,
                           o.used, o.experts, (unsigned long long)o.seed, margin);
        answers_free(a);
    }
}

static inline void answers_make(struct answers *a, struct ref_testmodel o, uint32_t n) { answers_make_apart(a, o, n, MARGIN); }

/* ---------------------------------------------------------------- a model on a device */

struct rig {
    struct driver_log log;
    vkm_device *device;
    vkm_model *model;
    vkm_session *session;
};

static inline void rig_device(struct rig *r, const char *caps) { memset(r, 0, sizeof *r); r->device = driver_open(caps, &r->log); }

static inline void rig_load(struct rig *r, const char *path)
{
    vkm_error err = {0};
    OK(vkm_model_load(r->device, path, NULL, &r->model, &err));
}

/* CPU drivers compile a matmul of 16 tokens or attention of 8 rows for seconds. So tests of other things are made with 4 and 2 there; those of such tiles call use_device_shape. */
static inline void use_small_tiles(struct rig *r)
{
    if (vkm_device_caps(r->device)->type != VKM_TYPE_CPU || full()) return;
    vkm_shape_tiles(&r->session->shape, 4);
    r->session->shape.attention_rows = 2;
}

static inline void rig_session(struct rig *r, vkm_session_params p)
{
    vkm_error err = {0};
    vkm_session_destroy(r->session);
    r->session = NULL;
    p.struct_size = sizeof p;
    OK(vkm_session_create(r->model, &p, &r->session, &err));
    use_small_tiles(r);
}

/* The workgroup shapes that a GPU would get, on whatever device there is; tiles as rig_session has them. As use_device_shape before the session's first pass. */
static inline void use_gpu_shape(struct rig *r, uint32_t subgroup_size)
{
    struct vkm_caps caps = gpu_caps(r->device, subgroup_size);
    vkm_shape_choose(&caps, &r->session->shape);
    use_small_tiles(r);
}

static inline void use_device_shape(struct rig *r) { vkm_shape_choose(vkm_device_caps(r->device), &r->session->shape); }

static inline void rig_unload(struct rig *r)
{
    vkm_session_destroy(r->session);
    vkm_model_destroy(r->model);
    r->session = NULL;
    r->model = NULL;
}

static inline void rig_open(struct rig *r, const char *caps, const char *path, vkm_session_params p)
{
    rig_device(r, caps);
    rig_load(r, path);
    rig_session(r, p);
}

static inline void rig_close(struct rig *r)
{
    rig_unload(r);
    cr_expect_eq(vkm_device_allocated(r->device), 0);
    driver_close(r->device, &r->log);
}

/* Forgets everything, then evaluates n tokens in calls of `step` (0: one call). Logits [n][n_vocab], freed by the caller. */
static inline float *eval_steps(struct rig *r, const int32_t *tokens, uint32_t n, uint32_t step)
{
    vkm_error err = {0};
    uint32_t n_vocab = r->model->h.n_vocab;
    float *logits = malloc((size_t)n * n_vocab * sizeof *logits);
    cr_assert(logits);
    OK(vkm_session_rewind(r->session, 0, 0, &err));
    for (uint32_t at = 0; at < n;) {
        uint32_t part = step && step < n - at ? step : n - at;
        OK(vkm_session_eval(r->session, 0, tokens + at, part, logits + (size_t)at * n_vocab, &err));
        at += part;
    }
    cr_assert_eq(vkm_session_n_past(r->session, 0), n);
    return logits;
}

static inline void check_nmse(const double *expected, const float *got, size_t n, double most, const char *what)
{
    double nmse = ref_nmse_f32(expected, got, n);
    if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "nmse %.2e %s\n", nmse, what);
    cr_assert(nmse < most, "%s: NMSE %.3g", what, nmse);
}

/* Evaluates the first n tokens in calls of `step` and compares. Returns the logits, freed by the caller. */
static inline float *check_answers(struct rig *r, const struct answers *a, uint32_t n, uint32_t step, double most, const char *what)
{
    char text[256];
    float *logits = eval_steps(r, a->tokens, n, step);
    snprintf(text, sizeof text, "%s, %u tokens by %u", what, n, step ? step : n);
    check_nmse(a->logits, logits, (size_t)n * a->n_vocab, most, text);
    return logits;
}

static inline void check_same(const float *expected, const float *got, uint32_t rows, uint32_t n_vocab, const char *what)
{
    for (size_t i = 0; i < (size_t)rows * n_vocab; i++)
        cr_assert_eq(memcmp(expected + i, got + i, 4), 0, "%s: other bits at row %zu, token %zu: %a and %a", what, i / n_vocab, i % n_vocab, expected[i], got[i]);
}

#endif
