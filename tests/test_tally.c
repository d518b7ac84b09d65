/* vkm_session_expert_counts: what the reference's router chooses, however tokens are cut into passes; and that counting changes nothing else. */
#include "harness.h"

enum { TOKENS = 20, MOST_COUNTS = 1024 };

struct choices { uint32_t counts[MOST_COUNTS], n_expert; };

static void on_tap(void *user, const char *what, uint32_t layer, const double *x, uint32_t rows, uint32_t cols)
{
    struct choices *c = user;
    if (strcmp(what, "experts")) return;
    for (uint32_t i = 0; i < rows * cols; i++) c->counts[layer * c->n_expert + (uint32_t)x[i]]++;
}

static struct choices choices_of(const struct answers *a)
{
    vkm_error err = {0};
    struct ref_model *m = NULL;
    struct choices c = {0};
    OK(ref_model_open(a->path, &m, &err));
    c.n_expert = m->n_expert;
    double *logits = malloc((size_t)TOKENS * m->n_vocab * sizeof *logits);
    struct ref_watch watch = {.tap = on_tap, .user = &c};
    ref_model_eval(m, a->tokens, TOKENS, logits, &watch);
    free(logits);
    ref_model_free(m);
    return c;
}

static void check_counts(struct rig *r, const struct choices *expected, uint32_t times, const char *what)
{
    vkm_error err = {0};
    uint32_t got[MOST_COUNTS], n = r->model->h.n_layer * r->model->h.n_expert;
    cr_assert(n <= MOST_COUNTS);
    OK(vkm_session_expert_counts(r->session, got, &err));
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(got[i], expected->counts[i] * times, "%s: layer %u, expert %u: %u, not %u times %u", what, i / expected->n_expert, i % expected->n_expert, got[i], times, expected->counts[i]);
}

Test(tally, counts_what_the_router_chose)
{
    struct answers a;
    struct rig r;
    vkm_error err = {0};
    uint32_t none[1] = {7};
    answers_make(&a, ref_testmodel_default("qwen3moe"), TOKENS);
    struct choices expected = choices_of(&a);
    rig_open(&r, NULL, a.path, (vkm_session_params){.n_ctx = 64, .kv_type = VKM_KV_F32});
    FAILS(vkm_session_expert_counts(r.session, none, &err), VKM_ERR_ARGUMENT);
    cr_expect_eq(none[0], 7);
    float *logits = check_answers(&r, &a, TOKENS, 5, NMSE_F32, "not counted");

    rig_session(&r, (vkm_session_params){.n_ctx = 64, .kv_type = VKM_KV_F32, .count_experts = true});
    check_counts(&r, &expected, 0, "before anything");
    for (uint32_t i = 0; i < 2; i++) {       /* few tokens a pass, whose slots are sorted by the router's step, and all at once */
        float *counted = check_answers(&r, &a, TOKENS, i ? 0 : 5, NMSE_F32, "counted");
        check_same(logits, counted, TOKENS, a.n_vocab, "counted and not");
        check_counts(&r, &expected, i + 1, i ? "all at once" : "by 5");
        free(counted);
    }
    FAILS(vkm_session_expert_counts(r.session, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_expert_counts(NULL, none, &err), VKM_ERR_ARGUMENT);

    rig_session(&r, (vkm_session_params){.n_ctx = 64, .kv_type = VKM_KV_F32, .count_experts = true, .audit = true});
    free(check_answers(&r, &a, 5, 5, NMSE_F32, "audited"));
    free(logits);
    rig_close(&r);
    answers_free(&a);
}
