/* Sessions: generation and sampling, rewinding, limits, errors, audit and profile, and the bundled model. */
#include "harness.h"
#include <stddef.h>

static const vkm_session_params f32 = {.n_ctx = 128, .kv_type = VKM_KV_F32};
enum { PROMPT = 12 };

/* A small model on the rig's device; no reference is computed. */
static void load_small(struct rig *r, const char *arch, vkm_session_params p)
{
    char path[256];
    struct ref_testmodel o = ref_testmodel_default(arch);
    o.layers = 1;
    if (o.logit_scale != 0) o.logit_scale = 2.5, o.tied = false;                        /* not so large that one token has all the probability */
    cr_assert(ref_testmodel_save(&o, path));
    rig_load(r, path);
    rig_session(r, p);
    unlink(path);
}

static void open_small(struct rig *r, const char *arch, vkm_session_params p)
{
    rig_device(r, NULL);
    load_small(r, arch, p);
}

/* Evaluates from empty and returns the last token's logits, freed by the caller. */
static float *last_logits(struct rig *r, const int32_t *tokens, uint32_t n)
{
    uint32_t n_vocab = r->model->h.n_vocab;
    float *all = eval_steps(r, tokens, n, 0);
    memmove(all, all + (size_t)(n - 1) * n_vocab, n_vocab * sizeof *all);
    return all;
}

static int32_t argmax(const float *z, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++) if (z[i] > z[best]) best = i;
    return (int32_t)best;
}

struct collected { int32_t ids[1024]; size_t n, stop_after; };
static bool collect(void *user, uint32_t seq, int32_t id)
{
    cr_assert_eq(seq, 0);
    struct collected *c = user;
    cr_assert_lt(c->n, VKM_COUNT(c->ids));
    c->ids[c->n++] = id;
    return c->n != c->stop_after;
}

static size_t generate(struct rig *r, vkm_sampling_params p, size_t n, bool ignore_end, struct collected *c)
{
    vkm_error err = {0};
    size_t stop = c->stop_after;
    *c = (struct collected){.stop_after = stop};
    p.struct_size = sizeof p;
    vkm_generation g = {.struct_size = sizeof g, .ignore_end = ignore_end, .sampling = &p, .n_tokens = n, .n_generated = 12345};
    OK(vkm_session_generate(r->session, &g, 1, collect, c, &err));
    cr_assert_eq(g.n_generated, c->n);
    return g.n_generated;
}

static void prompt_of(struct rig *r, int32_t *tokens, uint32_t n) { some_tokens(tokens, n, r->model->h.n_vocab); }

/* ---------------------------------------------------------------- generation */

Test(generate, greedy_is_argmax)
{
    struct rig r;
    rig_device(&r, NULL);
    for (size_t a = 0; a < VKM_COUNT(architectures); a++) {
        int32_t tokens[PROMPT + 30];
        struct collected c = {0};
        vkm_error err = {0};
        load_small(&r, architectures[a], f32);
        prompt_of(&r, tokens, PROMPT);
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        cr_assert_eq(generate(&r, (vkm_sampling_params){0}, 30, true, &c), 30);
        cr_assert_eq(vkm_session_n_past(r.session, 0), PROMPT + 30);
        memcpy(tokens + PROMPT, c.ids, sizeof(int32_t) * 30);
        float *logits = eval_steps(&r, tokens, PROMPT + 30, 1);
        for (uint32_t i = 0; i < 30; i++) {
            uint32_t n_vocab = r.model->h.n_vocab;
            cr_assert_eq(c.ids[i], argmax(logits + (size_t)(PROMPT + i - 1) * n_vocab, n_vocab), "%s: token %u", architectures[a], i);
        }
        free(logits);
        rig_unload(&r);
    }
    rig_close(&r);
}

Test(generate, seeds_and_top_k_1)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[PROMPT];
    struct collected greedy = {0}, one = {0}, a = {0}, b = {0}, other = {0};
    vkm_error err = {0};
    const vkm_sampling_params warm = {.temperature = 1.5f, .seed = 7}, warm_other = {.temperature = 1.5f, .seed = 8};
    const struct { vkm_sampling_params p; struct collected *to; } runs[] = {{{0}, &greedy}, {{.temperature = 3, .top_k = 1, .seed = 5}, &one}, {warm, &a}, {warm, &b}, {warm_other, &other}};
    open_small(&r, "olmoe", f32);
    prompt_of(&r, tokens, PROMPT);
    for (size_t i = 0; i < VKM_COUNT(runs); i++) {
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        generate(&r, runs[i].p, 40, true, runs[i].to);
    }
    cr_assert_eq(memcmp(greedy.ids, one.ids, 40 * 4), 0);
    cr_assert_eq(memcmp(a.ids, b.ids, 40 * 4), 0);
    cr_assert_neq(memcmp(a.ids, other.ids, 40 * 4), 0);
    cr_assert_neq(memcmp(a.ids, greedy.ids, 40 * 4), 0);

    /* one call or several: the same tokens, for the draw depends on the position */
    OK(vkm_session_rewind(r.session, 0, 0, &err));
    OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
    for (size_t at = 0; at < 40; at += 8) {
        generate(&r, warm, 8, true, &b);
        cr_assert_eq(memcmp(a.ids + at, b.ids, 8 * 4), 0, "tokens from %zu on", at);
    }
    rig_close(&r);
}

Test(generate, penalty)
{
    struct rig r;
    int32_t tokens[PROMPT + 30];
    struct collected plain = {0}, c = {0};
    vkm_error err = {0};
    open_small(&r, "qwen3moe", f32);
    prompt_of(&r, tokens, PROMPT);
    tokens[3] = tokens[5];                               /* seen twice, penalised once */
    const uint32_t windows[] = {0, 8, 1, 20, 256};
    for (size_t w = 0; w < VKM_COUNT(windows); w++) {
        const float penalty = 1.7f;
        uint32_t n_vocab = r.model->h.n_vocab, window = windows[w] ? windows[w] : 64;
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        generate(&r, (vkm_sampling_params){.repeat_penalty = penalty, .repeat_last_n = windows[w]}, 30, true, &c);
        memcpy(tokens + PROMPT, c.ids, sizeof(int32_t) * 30);
        float *logits = eval_steps(&r, tokens, PROMPT + 30, 0);
        for (uint32_t i = 0; i < 30; i++) {
            float *z = logits + (size_t)(PROMPT + i - 1) * n_vocab;
            bool *seen = calloc(n_vocab, sizeof *seen);
            cr_assert(seen);
            for (uint32_t k = 0; k < window && k < PROMPT + i; k++) seen[tokens[PROMPT + i - 1 - k]] = true;
            for (uint32_t v = 0; v < n_vocab; v++) if (seen[v]) z[v] = z[v] <= 0 ? z[v] * penalty : z[v] / penalty;
            cr_assert_eq(c.ids[i], argmax(z, n_vocab), "window %u, token %u", window, i);
            free(seen);
        }
        free(logits);
    }
    OK(vkm_session_rewind(r.session, 0, 0, &err));
    OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
    generate(&r, (vkm_sampling_params){0}, 30, true, &plain);
    cr_assert_neq(memcmp(plain.ids, c.ids, 30 * 4), 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- the distribution */

struct token { uint32_t id; double z; };
static int by_logit(const void *a, const void *b)
{
    const struct token *x = a, *y = b;
    return x->z < y->z ? 1 : x->z > y->z ? -1 : x->id < y->id ? -1 : x->id > y->id;
}

/* p [n]: probabilities by the documented order, in double. */
static void expected_distribution(const float *logits, uint32_t n, const int32_t *recent, uint32_t n_recent, const vkm_sampling_params *s, double *p)
{
    struct token *t = malloc(n * sizeof *t);
    cr_assert(t);
    for (uint32_t i = 0; i < n; i++) t[i] = (struct token){i, logits[i]};
    for (uint32_t i = 0; i < n_recent && s->repeat_penalty > 0; i++) {
        double *z = &t[recent[i]].z;
        bool before = false;
        for (uint32_t j = 0; j < i; j++) before |= recent[j] == recent[i];
        if (!before) *z = *z <= 0 ? *z * s->repeat_penalty : *z / s->repeat_penalty;
    }
    qsort(t, n, sizeof *t, by_logit);
    uint32_t left = s->top_k && s->top_k < n ? s->top_k : n;
    double mass = 0, sum = 0, total = 0;
    for (uint32_t i = 0; i < left; i++) mass += exp(t[i].z - t[0].z);
    for (uint32_t i = 0; i < left && s->top_p > 0 && s->top_p < 1; i++)
        if ((sum += exp(t[i].z - t[0].z)) >= s->top_p * mass) left = i + 1;
    while (s->min_p > 0 && t[left - 1].z < t[0].z + log(s->min_p)) left--;
    for (uint32_t i = 0; i < n; i++) p[i] = 0;
    for (uint32_t i = 0; i < left; i++) total += p[t[i].id] = exp((t[i].z - t[0].z) / s->temperature);
    for (uint32_t i = 0; i < n; i++) p[i] /= total;
    free(t);
}

/* Draws the first token with many seeds: never outside the allowed set, and as often as expected (chi-square; seeds are fixed, so it is the same every time). */
static void check_distribution(struct rig *r, vkm_sampling_params s, uint32_t draws, const char *what)
{
    enum { MOST = 1024 };
    int32_t tokens[PROMPT];
    static double p[MOST];
    static uint32_t count[MOST];
    uint32_t n_vocab = r->model->h.n_vocab, allowed = 0;
    struct collected c = {0};
    vkm_error err = {0};
    cr_assert_leq(n_vocab, MOST);
    if (!full() && draws > 300) draws = 300;
    prompt_of(r, tokens, PROMPT);
    float *z = last_logits(r, tokens, PROMPT);
    expected_distribution(z, n_vocab, tokens, PROMPT, &s, p);
    memset(count, 0, sizeof count);
    for (uint32_t i = 0; i < draws; i++) {
        s.seed = i * 2654435761u + 17;
        if (i) { OK(vkm_session_rewind(r->session, 0, PROMPT - 1, &err)); OK(vkm_session_eval(r->session, 0, tokens + PROMPT - 1, 1, NULL, &err)); }
        generate(r, s, 1, true, &c);
        cr_assert(p[c.ids[0]] > 0, "%s: token %d is not allowed", what, c.ids[0]);
        count[c.ids[0]]++;
    }
    double chi = 0, rest_p = 0, rest = 0;
    int bins = 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        double e = p[i] * draws;
        allowed += p[i] > 0;
        if (e < 5) { rest_p += e; rest += count[i]; continue; }
        chi += (count[i] - e) * (count[i] - e) / e;
        bins++;
    }
    if (rest_p >= 5) { chi += (rest - rest_p) * (rest - rest_p) / rest_p; bins++; }
    double freedom = bins - 1, most = freedom + 4 * sqrt(2 * freedom) + 4;
    if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "chi-square %.1f of %.1f, %d bins, %u tokens allowed, %s\n", chi, most, bins, allowed, what);
    cr_assert(bins >= 2 && chi < most, "%s: chi-square %g with %d bins", what, chi, bins);
    free(z);
}

Test(sampling, distribution)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    open_small(&r, "qwen3moe", f32);
    check_distribution(&r, (vkm_sampling_params){.temperature = 1.3f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f, .repeat_penalty = 1.3f}, 2000, "all filters");
    check_distribution(&r, (vkm_sampling_params){.temperature = 1}, 600, "temperature 1");
    check_distribution(&r, (vkm_sampling_params){.temperature = 2, .top_k = 5}, 300, "top-k");
    check_distribution(&r, (vkm_sampling_params){.temperature = 2, .top_p = 0.5f}, 300, "top-p");
    check_distribution(&r, (vkm_sampling_params){.temperature = 2, .min_p = 0.2f}, 300, "min-p");
    check_distribution(&r, (vkm_sampling_params){.temperature = 0.7f, .repeat_penalty = 2}, 300, "penalty");
    rig_close(&r);
}

/* Granite divides its logits by a scale, before anything else happens to them. */
Test(sampling, distribution_of_scaled_logits)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    open_small(&r, "granitemoe", f32);
    check_distribution(&r, (vkm_sampling_params){.temperature = 1.5f}, 400, "granite, temperature");
    check_distribution(&r, (vkm_sampling_params){.temperature = 1.5f, .top_k = 20, .repeat_penalty = 1.5f}, 300, "granite, top-k and penalty");
    check_distribution(&r, (vkm_sampling_params){.temperature = 1.5f, .min_p = 0.1f}, 300, "granite, min-p");
    check_distribution(&r, (vkm_sampling_params){.temperature = 1.5f, .top_p = 0.8f}, 300, "granite, top-p");
    rig_close(&r);
}

Test(sampling, bad_parameters)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[PROMPT];
    vkm_error err = {0};
    open_small(&r, "llama", f32);
    prompt_of(&r, tokens, PROMPT);
    OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
    const vkm_sampling_params bad[] = {{.repeat_last_n = 257}, {.temperature = NAN}, {.top_p = INFINITY, .temperature = 1}, {.min_p = -1}, {.min_p = 1.5f}, {.repeat_penalty = -1}, {.repeat_penalty = NAN}};
    for (size_t i = 0; i < VKM_COUNT(bad); i++) {
        vkm_sampling_params p = bad[i];
        p.struct_size = sizeof p;
        vkm_generation g = {.struct_size = sizeof g, .sampling = &p, .n_tokens = 3, .n_generated = 77};
        FAILS(vkm_session_generate(r.session, &g, 1, NULL, NULL, &err), VKM_ERR_ARGUMENT);
        cr_assert(g.n_generated == 77 && vkm_session_n_past(r.session, 0) == PROMPT);
    }
    vkm_generation greedy = {.struct_size = sizeof greedy, .ignore_end = true, .n_tokens = 3};
    OK(vkm_session_generate(r.session, &greedy, 1, NULL, NULL, &err));                     /* and it still works; no parameters are greedy */
    cr_assert_eq(greedy.n_generated, 3);
    rig_close(&r);
}

/* ---------------------------------------------------------------- stopping */

Test(stop, callback)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[PROMPT + 60];
    vkm_error err = {0};
    open_small(&r, "qwen2moe", f32);
    prompt_of(&r, tokens, PROMPT);
    uint32_t n_vocab = r.model->h.n_vocab;
    struct collected whole = {0};
    OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
    generate(&r, (vkm_sampling_params){0}, 50, true, &whole);
    static const size_t stops[] = {1, 2, 5, 9, 17, 33};
    for (size_t i = 0; i < VKM_COUNT(stops); i++) {
        struct collected c = {.stop_after = stops[i]};
        uint32_t n = PROMPT + (uint32_t)stops[i];
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        cr_assert_eq(generate(&r, (vkm_sampling_params){0}, 50, true, &c), stops[i]);
        cr_assert_eq(memcmp(c.ids, whole.ids, stops[i] * 4), 0);
        cr_assert_eq(vkm_session_n_past(r.session, 0), n);
        /* the state is that of a session that only ever saw these tokens: the next logits and the next tokens */
        memcpy(tokens + PROMPT, c.ids, stops[i] * 4);
        tokens[n] = 77;
        float *next = malloc(n_vocab * sizeof *next);
        cr_assert(next);
        OK(vkm_session_eval(r.session, 0, tokens + n, 1, next, &err));
        float *fresh = last_logits(&r, tokens, n + 1);
        check_same(fresh, next, 1, n_vocab, "after a stop");
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        c.stop_after = stops[i];
        generate(&r, (vkm_sampling_params){0}, 50, true, &c);
        c.stop_after = 0;
        generate(&r, (vkm_sampling_params){0}, 10, true, &c);
        cr_assert_eq(memcmp(c.ids, whole.ids + stops[i], 10 * 4), 0, "continued after %zu", stops[i]);
        free(next);
        free(fresh);
    }
    rig_close(&r);
}

Test(stop, end_of_generation)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[PROMPT];
    vkm_error err = {0};
    int met = 0;
    open_small(&r, "llama", (vkm_session_params){.n_ctx = 512});
    prompt_of(&r, tokens, PROMPT);
    for (uint32_t seed = 1; seed < 8 && met < 2; seed++) {
        struct collected c = {0}, all = {0};
        vkm_sampling_params hot = {.temperature = 50, .seed = seed};
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        size_t n = generate(&r, hot, 400, false, &c);
        for (size_t i = 0; i + 1 < n; i++) cr_assert_neq(c.ids[i], 2);
        if (n == 400) continue;
        met++;
        cr_assert_eq(c.ids[n - 1], 2, "stopped after %zu tokens at token %d", n, c.ids[n - 1]);
        cr_assert_eq(vkm_session_n_past(r.session, 0), PROMPT + n);
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, PROMPT, NULL, &err));
        cr_assert_eq(generate(&r, hot, 400, true, &all), 400);
        cr_assert_eq(memcmp(c.ids, all.ids, n * 4), 0);
    }
    cr_assert(met, "no seed led to an end token");
    rig_close(&r);
}

Test(stop, full_context)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[65];
    struct collected c = {0};
    vkm_error err = {0};
    open_small(&r, "llama", (vkm_session_params){.n_ctx = 64, .kv_type = VKM_KV_F32});
    prompt_of(&r, tokens, 65);
    cr_assert_eq(vkm_session_n_ctx(r.session), 64);
    FAILS(vkm_session_eval(r.session, 0, tokens, 65, NULL, &err), VKM_ERR_CONTEXT_FULL);
    cr_assert_eq(vkm_session_n_past(r.session, 0), 0);
    OK(vkm_session_eval(r.session, 0, tokens, 60, NULL, &err));
    FAILS(vkm_session_eval(r.session, 0, tokens, 5, NULL, &err), VKM_ERR_CONTEXT_FULL);
    cr_assert_eq(vkm_session_n_past(r.session, 0), 60);
    cr_assert_eq(generate(&r, (vkm_sampling_params){0}, 50, true, &c), 4);
    cr_assert_eq(vkm_session_n_past(r.session, 0), 64);
    memcpy(tokens + 60, c.ids, 4 * 4);
    cr_assert_eq(generate(&r, (vkm_sampling_params){0}, 50, true, &c), 0);
    FAILS(vkm_session_eval(r.session, 0, tokens, 1, NULL, &err), VKM_ERR_CONTEXT_FULL);
    float *logits = eval_steps(&r, tokens, 64, 1);
    for (int i = 60; i < 64; i++) cr_assert_eq(tokens[i], argmax(logits + (i - 1) * 260, 260));
    free(logits);
    rig_close(&r);
}

/* ---------------------------------------------------------------- state */

Test(state, rewind)
{
    struct rig r;
    int32_t tokens[40], other[40];
    vkm_error err = {0};
    struct collected a = {0}, b = {0};
    open_small(&r, "qwen3moe", f32);
    prompt_of(&r, tokens, 40);
    uint32_t n_vocab = r.model->h.n_vocab;
    for (int i = 0; i < 40; i++) other[i] = (tokens[i] + 100) % (int32_t)n_vocab;
    float *first = eval_steps(&r, tokens, 40, 0), *again = malloc(40 * n_vocab * sizeof *again);
    cr_assert(again);
    for (uint32_t at = 0; at < 40; at += 13) {
        OK(vkm_session_rewind(r.session, 0, at, &err));
        OK(vkm_session_eval(r.session, 0, other, 40 - at, NULL, &err));                    /* something else in between */
        OK(vkm_session_rewind(r.session, 0, at, &err));
        OK(vkm_session_eval(r.session, 0, tokens + at, 40 - at, again, &err));
        check_same(first + at * n_vocab, again, 40 - at, n_vocab, "after a rewind");
    }
    FAILS(vkm_session_rewind(r.session, 0, 41, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_session_n_past(r.session, 0), 40);
    OK(vkm_session_rewind(r.session, 0, 40, &err));                                        /* nothing is forgotten: still able to generate */
    generate(&r, (vkm_sampling_params){0}, 5, true, &a);
    for (int i = 0; i < 3; i++) {                        /* to where the generation began, and on at once; or with the last token again */
        OK(vkm_session_rewind(r.session, 0, i == 1 ? 39 : 40, &err));
        if (i == 1) OK(vkm_session_eval(r.session, 0, tokens + 39, 1, NULL, &err));
        generate(&r, (vkm_sampling_params){0}, 5, true, &b);
        cr_assert_eq(memcmp(a.ids, b.ids, 5 * 4), 0);
    }
    free(first);
    free(again);
    rig_close(&r);
}

Test(state, passes)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[50];
    struct collected a = {0}, b = {0};
    vkm_error err = {0};
    open_small(&r, "granitemoe", f32);
    prompt_of(&r, tokens, 50);
    OK(vkm_session_eval(r.session, 0, tokens, 50, NULL, &err));
    generate(&r, (vkm_sampling_params){0}, 20, true, &a);
    static const uint32_t batches[] = {1, 5, 16, 49};
    for (size_t i = 0; i < VKM_COUNT(batches); i++) {
        rig_session(&r, (vkm_session_params){.n_ctx = 128, .n_batch = batches[i], .kv_type = VKM_KV_F32});
        OK(vkm_session_eval(r.session, 0, tokens, 50, NULL, &err));
        cr_assert_eq(vkm_session_n_past(r.session, 0), 50);
        generate(&r, (vkm_sampling_params){0}, 20, true, &b);
        cr_assert_eq(memcmp(a.ids, b.ids, 20 * 4), 0, "passes of %u", batches[i]);
    }
    rig_close(&r);
}

/* A tuning out of a file decides how rows are cut, of experts and of dense matrices, and no bit of what comes out. One that is damaged is said to be, and nothing happens. */
Test(state, tuning)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[40];
    vkm_error err = {0};
    char folder[] = "/tmp/vkmoe-tuning-XXXXXX", path[256], plain[1 << 16], tuned[1 << 16];
    struct vkm_tuning tuning = {.dispatch_ns = 1};
    vkm_session_params p = f32;
    cr_assert(mkdtemp(folder));
    open_small(&r, "qwen2moe", f32);
    prompt_of(&r, tokens, 40);
    for (size_t i = 0; i < vkm_type_count; i++) tuning.tiles[i][0].block_ns = 1, tuning.tiles[i][1].block_ns = 2.5;        /* kernels that small tiles have anyhow; four rows from 3 on, instead of from 2 */
    struct vkm_shape shape;
    vkm_shape_choose(vkm_device_caps(r.device), &shape);
    const struct vkm_tuning_key key = vkm_tuning_key_of(vkm_device_caps(r.device), &shape);
    OK(vkm_tuning_save(folder, &key, &tuning, &err));
    cr_assert(!r.session->is_tuned);
    float *without = eval_steps(&r, tokens, 40, 0), *by_two = eval_steps(&r, tokens, 40, 2);
    vkm_session_print(r.session, 2, false, plain, sizeof plain);
    p.tuning_folder = folder;
    rig_session(&r, p);
    cr_assert(r.session->is_tuned);
    float *with = eval_steps(&r, tokens, 40, 0), *with_by_two = eval_steps(&r, tokens, 40, 2);
    vkm_session_print(r.session, 2, false, tuned, sizeof tuned);
    check_same(without, with, 40, r.model->h.n_vocab, "tuned, 40 tokens");
    check_same(by_two, with_by_two, 40, r.model->h.n_vocab, "tuned, 2 tokens");
    cr_expect_neq(strcmp(plain, tuned), 0, "the tuning was not used");
    vkm_tuning_path(folder, &key, path, sizeof path);
    cr_assert_eq(truncate(path, 100), 0);
    rig_session(&r, p);
    cr_expect(!r.session->is_tuned && strstr(r.log.text, "the tuning in /tmp/vkmoe-tuning-"), "%s", r.log.text);
    p.struct_size = offsetof(vkm_session_params, tuning_folder);           /* a program that was built before there was such a thing */
    vkm_session_destroy(r.session);
    r.session = NULL;
    OK(vkm_session_create(r.model, &p, &r.session, &err));
    cr_expect_null(r.session->params.tuning_folder);
    unlink(path);
    rmdir(folder);
    free(without), free(by_two), free(with), free(with_by_two);
    rig_close(&r);
}

/* Where a tuning says that int8dot brings nothing for a type, its kernels and the steps that make integers for them are not there. */
Test(state, tuning_without_int8dot)
{
    struct rig r;
    vkm_error err = {0};
    struct ref_testmodel o = ref_testmodel_default("olmoe");
    struct vkm_tuning tuning = {.dispatch_ns = 1};
    struct vkm_shape shape;
    vkm_session_params p = f32;
    char model[256], folder[] = "/tmp/vkmoe-tuning-XXXXXX", path[256], text[1 << 16];
    FIRST_DRIVER_ONLY();
    rig_device(&r, "int8dot");
    if (!(vkm_device_caps(r.device)->tiers & VKM_TIER_BIT(VKM_TIER_INT8DOT))) cr_skip_test("no integer dot product");
    o.layers = 1;
    o.type_gate = o.type_up = o.type_down = REF_Q8_0, o.type_attn = REF_Q4_0;
    cr_assert(ref_testmodel_save(&o, model) && mkdtemp(folder));
    rig_load(&r, model);
    vkm_shape_choose(vkm_device_caps(r.device), &shape);
    const struct vkm_tuning_key key = vkm_tuning_key_of(vkm_device_caps(r.device), &shape);
    vkm_tuning_path(folder, &key, path, sizeof path);
    p.tuning_folder = folder;
    for (size_t i = 0; i < vkm_type_count; i++) tuning.tiles[i][0].block_ns = 1;
    for (int step = 0; step < 3; step++) {                /* used for both types; for one; for none */
        for (size_t i = 0; i < vkm_type_count; i++) tuning.exact[i] = step == 2 || (step == 1 && &vkm_types[i] == vkm_type_find(REF_Q8_0));
        OK(vkm_tuning_save(folder, &key, &tuning, &err));
        rig_session(&r, p);
        vkm_session_print(r.session, VKM_FEW_ROWS, false, text, sizeof text);
        cr_expect_eq(!!strstr(text, "q8_0:int8dot"), step == 0, "%d: %s", step, text);
        cr_expect_eq(!!strstr(text, "q4_0:int8dot"), step < 2, "%d: %s", step, text);
        if (shape.splits == 1) cr_expect_eq(!!strstr(text, "quantise"), step < 2, "%d: %s", step, text);      /* on a GPU these few tokens are quantised by who uses them */
    }
    unlink(path), unlink(model);
    rmdir(folder);
    rig_close(&r);
}

Test(state, two_sessions)
{
    struct rig r;
    int32_t tokens[30];
    vkm_error err = {0};
    vkm_session *other = NULL;
    vkm_session_params p = f32;
    open_small(&r, "llama", f32);
    prompt_of(&r, tokens, 30);
    uint32_t n_vocab = r.model->h.n_vocab;
    p.struct_size = sizeof p;
    float *alone = eval_steps(&r, tokens, 30, 1), *one = malloc(n_vocab * sizeof *one), *two = malloc(n_vocab * sizeof *two);
    cr_assert(one && two);
    OK(vkm_session_create(r.model, &p, &other, &err));
    OK(vkm_session_rewind(r.session, 0, 0, &err));
    for (int i = 0; i < 30; i++) {                       /* the same tokens, one session a few behind */
        OK(vkm_session_eval(r.session, 0, tokens + i, 1, one, &err));
        check_same(alone + i * n_vocab, one, 1, n_vocab, "first of two");
        if (i < 4) continue;
        OK(vkm_session_eval(other, 0, tokens + i - 4, 1, two, &err));
        check_same(alone + (i - 4) * n_vocab, two, 1, n_vocab, "second of two");
    }
    vkm_session_destroy(other);
    free(alone);
    free(one);
    free(two);
    rig_close(&r);
}

Test(state, bad_arguments)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    vkm_error err = {0};
    struct collected c = {0};
    open_small(&r, "llama", f32);
    int32_t tokens[4] = {5, 6, 7, 8}, low[2] = {5, -1}, high[2] = {5, 260};
    vkm_generation g[2] = {{.struct_size = sizeof *g, .n_tokens = 5}};
    FAILS(vkm_session_generate(r.session, g, 1, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    OK(vkm_session_eval(r.session, 0, tokens, 4, NULL, &err));
    FAILS(vkm_session_eval(r.session, 0, low, 2, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_eval(r.session, 0, high, 2, NULL, &err), VKM_ERR_ARGUMENT);
    cr_assert(strstr(err.message, "260"), "%s", err.message);
    FAILS(vkm_session_eval(r.session, 0, NULL, 2, NULL, &err), VKM_ERR_ARGUMENT);
    OK(vkm_session_eval(r.session, 0, NULL, 0, NULL, &err));
    FAILS(vkm_session_eval(r.session, 1, tokens, 2, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_rewind(r.session, 1, 0, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_generate(r.session, NULL, 1, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_generate(r.session, g, 2, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    g[0].seq = 1;
    FAILS(vkm_session_generate(r.session, g, 1, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_session_n_past(r.session, 0), 4);
    generate(&r, (vkm_sampling_params){0}, 3, true, &c);                                /* refusals left the logits where they were */
    cr_assert_eq(vkm_session_create(NULL, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    vkm_session_destroy(NULL);
    vkm_model_destroy(NULL);
    rig_close(&r);
}

/* ---------------------------------------------------------------- audit, profile, print */

/* The same bits as a normal run, and no step that touches what it does not declare. */
static void check_audit(const char *arch, bool gpu_shape, const char *caps)
{
    enum { N = 33, MORE = 3 };
    struct rig r;
    int32_t tokens[N + MORE];
    char path[256];
    struct collected a = {0}, b = {0};
    struct ref_testmodel o = ref_testmodel_default(arch);
    vkm_session_params p = {.n_ctx = 64, .n_batch = 33, .kv_type = VKM_KV_F32};
    o.layers = 2;
    if (gpu_shape) o.type_gate = REF_Q8_0;                                              /* gate and up apart: more steps */
    cr_assert(ref_testmodel_save(&o, path));
    rig_open(&r, gpu_shape && !caps ? "gather" : caps, path, p);
    unlink(path);
    if (gpu_shape) use_gpu_shape(&r, 32);
    prompt_of(&r, tokens, N + MORE);
    vkm_error err = {0};
    size_t n_vocab = r.model->h.n_vocab;
    float *normal = eval_steps(&r, tokens, N, 0), *next = malloc(2 * MORE * n_vocab * sizeof *next);
    cr_assert(next);
    for (int i = 0; i < MORE; i++) OK(vkm_session_eval(r.session, 0, tokens + N + i, 1, next + i * n_vocab, &err));
    generate(&r, (vkm_sampling_params){.temperature = 1, .top_k = 30, .top_p = 0.9f, .repeat_penalty = 1.2f, .seed = 3}, 3, true, &a);
    p.audit = true;
    rig_session(&r, p);
    if (gpu_shape) use_gpu_shape(&r, 32);
    float *audited = eval_steps(&r, tokens, N, 0);
    check_same(normal, audited, N, r.model->h.n_vocab, arch);
    for (int i = 0; i < MORE; i++) OK(vkm_session_eval(r.session, 0, tokens + N + i, 1, next + (MORE + i) * n_vocab, &err));
    check_same(next, next + MORE * n_vocab, MORE, r.model->h.n_vocab, arch);
    generate(&r, (vkm_sampling_params){.temperature = 1, .top_k = 30, .top_p = 0.9f, .repeat_penalty = 1.2f, .seed = 3}, 3, true, &b);
    cr_assert_eq(memcmp(a.ids, b.ids, 3 * 4), 0);
    free(normal);
    free(audited);
    free(next);
    rig_close(&r);
}

Test(audit, llama) { FIRST_DRIVER_ONLY(); check_audit("llama", false, NULL); }
Test(audit, olmoe) { FIRST_DRIVER_ONLY(); check_audit("olmoe", false, NULL); }
Test(audit, qwen2moe) { check_audit("qwen2moe", false, NULL); }
Test(audit, qwen3moe) { check_audit("qwen3moe", false, "baseline"); }
Test(audit, granitemoe) { FIRST_DRIVER_ONLY(); check_audit("granitemoe", false, NULL); }
Test(audit, gpu_shape) { FIRST_DRIVER_ONLY(); check_audit("qwen2moe", true, "baseline"); }

Test(profile, same_bits_and_times)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    int32_t tokens[20];
    static char text[1 << 16];
    struct collected c = {0};
    vkm_session_params p = f32;
    open_small(&r, "qwen2moe", f32);
    prompt_of(&r, tokens, 20);
    float *normal = eval_steps(&r, tokens, 20, 0);
    if (vkm_device_caps(r.device)->timestamp_ns > 0) {
        p.profile = true;
        rig_session(&r, p);
        float *profiled = eval_steps(&r, tokens, 20, 0);
        check_same(normal, profiled, 20, r.model->h.n_vocab, "profile");
        generate(&r, (vkm_sampling_params){0}, 3, true, &c);
        size_t n = vkm_session_print(r.session, 1, true, text, sizeof text);
        cr_assert(n > 0 && n < sizeof text && strstr(text, "moe_gate_up"), "%s", text);
        free(profiled);
    }
    free(normal);
    rig_close(&r);
}

Test(print, programs)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    static char text[1 << 16], small[100];
    static const char *const kernels[] = {"embed", "linear", "rope_store", "attention", "combine_norm", "moe_gate_up", "moe_down"};
    open_small(&r, "qwen2moe", f32);
    const bool gpu = r.session->shape.few_rows;
    const uint32_t few = gpu ? r.session->shape.few_rows : r.session->shape.scalar_loads ? VKM_ROUTED_ROWS : VKM_FEW_ROWS, sorted = gpu ? r.session->shape.joined_rows : few;
    for (uint32_t n = 1; n <= 33; n = n == 1 ? 8 : n == 8 ? 9 : n + 24) {
        bool decode = n == 1;
        size_t length = vkm_session_print(r.session, n, decode, text, sizeof text);
        cr_assert(length > 0 && length < sizeof text && strlen(text) == length);
        for (size_t i = 0; i < VKM_COUNT(kernels); i++)
            cr_assert(strstr(text, kernels[i]) || (!strcmp(kernels[i], "rope_store") && strstr(text, "attention_one")), "%u tokens: no %s in\n%s", n, kernels[i], text);
        static const char *const chooses[] = {"moe_route ", "moe_logits", "moe_topk"};
        for (size_t i = 0; i < VKM_COUNT(chooses); i++)
            cr_assert_eq(strstr(text, chooses[i]) != NULL, i == (n <= few ? 0u : n <= sorted ? 1u : 2u), "%u tokens: %s in\n%s", n, chooses[i], text);
        cr_assert_eq(strstr(text, "moe_permute") != NULL, n > sorted);
        cr_assert_eq(strstr(text, "sample") != NULL, decode);
        cr_assert(strstr(text, "blk.0."));
        cr_assert_eq(vkm_session_print(r.session, n, decode, NULL, 0), length);
        memset(small, 'x', sizeof small);
        cr_assert_eq(vkm_session_print(r.session, n, decode, small, 50), length);
        cr_assert(strlen(small) == 49 && small[50] == 'x' && !memcmp(small, text, 49));
    }
    vkm_session_print(r.session, 0, false, text, sizeof text);                                 /* there is no such program: it says so, or nothing */
    vkm_session_print(r.session, 100000, true, text, sizeof text);
    free(eval_steps(&r, (int32_t[]){1, 2, 3}, 3, 0));                                     /* and all still works */
    rig_close(&r);
}

/* ---------------------------------------------------------------- loading */

/* Bytes of a small model with something changed: the n-th occurrence of `from` becomes `to`, of the same length. */
static void load_changed(struct rig *r, struct ref_testmodel o, const char *from, const char *to, vkm_result expected, const char *word, const char *word2)
{
    char path[] = "/tmp/vkmoe-changed-XXXXXX";
    vkm_error err = {0};
    vkm_model *m = NULL;
    struct ref_gguf w = ref_testmodel_build(&o);
    struct ref_bytes b = ref_gguf_bytes(&w);
    size_t n = strlen(from), at = 0;
    cr_assert_eq(n, strlen(to));
    while (at + n <= b.n && memcmp(b.at + at, from, n)) at++;
    cr_assert(at + n <= b.n, "%s is not in the file", from);
    memcpy(b.at + at, to, n);
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    cr_assert(ref_bytes_save(&b, path));
    vkm_result got = vkm_model_load(r->device, path, NULL, &m, &err);
    cr_assert(got == expected && !m && strstr(err.message, word) && strstr(err.message, word2), "%s -> %s gave %s: %s", from, to, vkm_result_name(got), err.message);
    cr_assert_eq(vkm_device_allocated(r->device), 0);
    unlink(path);
    ref_bytes_free(&b);
    ref_gguf_free(&w);
}

Test(load, errors)
{
    struct rig r;
    vkm_error err = {0};
    vkm_model *m = NULL;
    struct ref_testmodel o = ref_testmodel_default("llama");
    o.layers = 1;
    rig_device(&r, NULL);
    FAILS(vkm_model_load(r.device, "/nonexistent/model.gguf", NULL, &m, &err), VKM_ERR_IO);
    cr_assert(strstr(err.message, "/nonexistent/model.gguf"), "%s", err.message);
    FAILS(vkm_model_load(r.device, VKMOE_TESTS_DIR "/harness.h", NULL, &m, &err), VKM_ERR_FORMAT);
    FAILS(vkm_model_load(NULL, "x", NULL, &m, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_model_load(r.device, NULL, NULL, &m, &err), VKM_ERR_ARGUMENT);
    cr_assert_null(m);
    load_changed(&r, o, "llama", "lhama", VKM_ERR_UNSUPPORTED, "lhama", "supported");
    load_changed(&r, o, "llama.expert_count", "llama.expert_kount", VKM_ERR_UNSUPPORTED, "expert_count", "Mixture-of-Experts");
    load_changed(&r, o, "blk.0.attn_q.weight", "blk.0.attn_x.weight", VKM_ERR_FORMAT, "blk.0.attn_q.weight", "absent");
    load_changed(&r, o, "blk.0.ffn_norm.weight", "blk.0.ffn_horm.weight", VKM_ERR_FORMAT, "blk.0.ffn_norm.weight", "absent");
    load_changed(&r, o, "blk.0.ffn_up_exps.weight", "blk.0.ffn_ux_exps.weight", VKM_ERR_FORMAT, "blk.0.ffn_up_exps.weight", "absent");
    load_changed(&r, o, "blk.0.ffn_down_exps.weight", "blk.0.ffn_dowx_exps.weight", VKM_ERR_FORMAT, "blk.0.ffn_down_exps.weight", "absent");
    load_changed(&r, o, "token_embd.weight", "token_embx.weight", VKM_ERR_FORMAT, "token_embd.weight", "absent");
    rig_close(&r);
}

/* As load_changed, in the record of a tensor: its name, number of dimensions, dimensions, type. */
static void load_changed_tensor(struct rig *r, const struct ref_testmodel *o, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, vkm_result expected, const char *word)
{
    char path[] = "/tmp/vkmoe-changed-XXXXXX";
    vkm_error err = {0};
    vkm_model *m = NULL;
    struct ref_gguf w = ref_testmodel_build(o);
    size_t n = strlen(name), at = 0;
    while (at + n <= w.infos.n && memcmp(w.infos.at + at, name, n)) at++;
    cr_assert(at + n <= w.infos.n);
    uint8_t *record = w.infos.at + at + n;
    memcpy(record + 4, ne, 8 * n_dims);
    memcpy(record + 4 + 8 * n_dims, &type, 4);
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    cr_assert(ref_gguf_save(&w, path));
    vkm_result got = vkm_model_load(r->device, path, NULL, &m, &err);
    cr_assert(got == expected && !m && strstr(err.message, name) && strstr(err.message, word), "%s gave %s: %s", name, vkm_result_name(got), err.message);
    cr_assert_eq(vkm_device_allocated(r->device), 0);
    unlink(path);
    ref_gguf_free(&w);
}

Test(load, shapes_and_types)
{
    struct rig r;
    struct ref_testmodel o = ref_testmodel_default("llama");
    o.layers = 1;
    rig_device(&r, NULL);
    load_changed_tensor(&r, &o, "blk.0.attn_k.weight", 2, (uint64_t[]){32, 64}, REF_F32, VKM_ERR_FORMAT, "32 x 64");
    load_changed_tensor(&r, &o, "blk.0.ffn_gate_inp.weight", 2, (uint64_t[]){8, 64}, REF_F32, VKM_ERR_FORMAT, "8 x 64");
    load_changed_tensor(&r, &o, "blk.0.ffn_down_exps.weight", 3, (uint64_t[]){64, 32, 8}, REF_F32, VKM_ERR_FORMAT, "64 x 32 x 8");
    load_changed_tensor(&r, &o, "blk.0.ffn_up_exps.weight", 3, (uint64_t[]){64, 32, 7}, REF_F32, VKM_ERR_FORMAT, "64 x 32 x 7");
    load_changed_tensor(&r, &o, "blk.0.attn_norm.weight", 1, (uint64_t[]){63}, REF_F32, VKM_ERR_FORMAT, "63");
    load_changed_tensor(&r, &o, "blk.0.attn_q.weight", 2, (uint64_t[]){64, 64}, 26, VKM_ERR_UNSUPPORTED, "I32");
    load_changed_tensor(&r, &o, "blk.0.ffn_gate_exps.weight", 3, (uint64_t[]){64, 32, 8}, 20, VKM_ERR_UNSUPPORTED, "IQ4_NL");
    load_changed_tensor(&r, &o, "token_embd.weight", 2, (uint64_t[]){64, 260}, 26, VKM_ERR_UNSUPPORTED, "I32");
    rig_close(&r);
}

struct progress { uint64_t cancel_at, last, total; uint32_t calls; };
static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    cr_assert(done > p->last && done <= total && (!p->total || total == p->total));
    p->last = done;
    p->total = total;
    p->calls++;
    return !p->cancel_at || done < p->cancel_at;
}

Test(load, progress_and_cancel)
{
    char path[256];
    vkm_error err = {0};
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    cr_assert(ref_testmodel_save(&o, path));
    for (int staged = 0; staged < 2; staged++) {
        struct rig r;
        struct progress p = {0};
        rig_device(&r, staged ? "staged" : NULL);
        vkm_model_params params = {.struct_size = sizeof params, .progress = on_progress, .progress_user = &p};
        OK(vkm_model_load(r.device, path, &params, &r.model, &err));
        cr_assert(p.calls > 1 && p.last == p.total && p.total == r.model->info.device_bytes);
        rig_unload(&r);
        uint64_t total = p.total;
        for (int part = 0; part < 3; part++) {
            p = (struct progress){.cancel_at = 1 + total * (uint64_t)part / 3};
            FAILS(vkm_model_load(r.device, path, &params, &r.model, &err), VKM_ERR_CANCELLED);
            cr_assert(!r.model && vkm_device_allocated(r.device) == 0);
        }
        rig_close(&r);
    }
    unlink(path);
}

Test(load, does_not_fit)
{
    struct rig r;
    char path[256];
    vkm_error err = {0};
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    struct progress p = {0};
    cr_assert(ref_testmodel_save(&o, path));
    rig_device(&r, "heap=65536");
    vkm_model_params params = {.struct_size = sizeof params, .progress = on_progress, .progress_user = &p};
    FAILS(vkm_model_load(r.device, path, &params, &r.model, &err), VKM_ERR_DEVICE_MEMORY);
    cr_assert(p.calls == 0 && !r.model && strstr(err.message, path) && strstr(err.message, "GiB"), "%s", err.message);
    rig_close(&r);
    unlink(path);
}

Test(load, context_does_not_fit)
{
    struct rig r;
    vkm_error err = {0};
    vkm_session *s = NULL;
    open_small(&r, "llama", f32);
    vkm_session_params p = {.struct_size = sizeof p, .n_ctx = UINT32_MAX};
    FAILS(vkm_session_create(r.model, &p, &s, &err), VKM_ERR_ARGUMENT);
    p.n_ctx = INT32_MAX;
    vkm_result got = vkm_session_create(r.model, &p, &s, &err);
    cr_assert((got == VKM_ERR_LIMIT || got == VKM_ERR_DEVICE_MEMORY) && !s && strstr(err.message, "context"), "%s: %s", vkm_result_name(got), err.message);
    uint64_t before = vkm_device_allocated(r.device);
    rig_unload(&r);
    cr_assert(before > 0 && vkm_device_allocated(r.device) == 0);
    rig_close(&r);

    open_small(&r, "llama", f32);                        /* a heap that holds the weights, not the context */
    uint64_t weights = r.model->info.device_bytes;
    char caps[64], path[256];
    rig_close(&r);
    struct ref_testmodel o = ref_testmodel_default("llama");
    o.layers = 1;
    cr_assert(ref_testmodel_save(&o, path));
    snprintf(caps, sizeof caps, "heap=%llu", (unsigned long long)weights + (4 << 20));
    rig_device(&r, caps);
    rig_load(&r, path);
    p.n_ctx = 1 << 16;
    FAILS(vkm_session_create(r.model, &p, &s, &err), VKM_ERR_DEVICE_MEMORY);
    cr_assert(!s && strstr(err.message, "65536") && strstr(err.message, "GiB"), "%s", err.message);
    rig_close(&r);
    unlink(path);
}

/* ---------------------------------------------------------------- KV cache in f16, arithmetic in f16 */

Test(half, kv_cache)
{
    struct rig r;
    rig_device(&r, NULL);
    for (size_t a = 0; a < VKM_COUNT(architectures); a++) {
        struct answers right;
        struct ref_testmodel o = ref_testmodel_default(architectures[a]);
        o.used = o.experts = 4;                          /* no choice of experts to tip over */
        answers_make(&right, o, 33);
        rig_load(&r, right.path);
        rig_session(&r, (vkm_session_params){.n_ctx = 96});
        float *at_once = check_answers(&r, &right, 33, 0, NMSE_F16, architectures[a]), *singly = check_answers(&r, &right, 33, 1, NMSE_F16, architectures[a]);
        check_same(at_once, singly, 33, right.n_vocab, architectures[a]);
        cr_assert(ref_nmse_f32(right.logits, at_once, 33 * (size_t)right.n_vocab) > 1e-12, "%s: the KV cache is not f16", architectures[a]);
        free(at_once);
        free(singly);
        rig_unload(&r);
        answers_free(&right);
    }
    rig_close(&r);
}

Test(half, arithmetic)
{
    struct answers right;
    struct rig r;
    struct ref_testmodel o = ref_testmodel_default("llama");
    o.used = o.experts = 4;
    o.type_gate = o.type_up = o.type_attn = REF_Q8_0;
    o.type_down = REF_F16;
    answers_make(&right, o, 40);
    rig_open(&r, "fp16", right.path, f32);
    bool can = vkm_device_caps(r.device)->tiers & VKM_TIER_BIT(VKM_TIER_FP16);
    if (can) {
        float *at_once = check_answers(&r, &right, 40, 0, 1e-5, "fp16"), *singly = check_answers(&r, &right, 40, 1, 1e-5, "fp16");
        check_same(at_once, singly, 40, right.n_vocab, "fp16");
        cr_assert(ref_nmse_f32(right.logits, at_once, 40 * (size_t)right.n_vocab) > 1e-10, "as exact as f32, so not of this tier");
        free(at_once);
        free(singly);
    }
    rig_close(&r);
    answers_free(&right);
    if (!can) cr_skip_test("the device has no fp16");
}

/* ---------------------------------------------------------------- the bundled model */

Test(bundled, writes_text)
{
    struct rig r;
    vkm_error err = {0};
    int32_t ids[64];
    size_t n = VKM_COUNT(ids), n_text = 0;
    struct collected c = {0};
    static char text[8192];
    static const char prompt[] = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n";
    if (access(VKMOE_MODEL, R_OK)) cr_skip_test("no %s", VKMOE_MODEL);
    rig_device(&r, NULL);
    rig_load(&r, VKMOE_MODEL);
    rig_session(&r, (vkm_session_params){.n_ctx = 192});
    const vkm_tokenizer *t = vkm_model_tokenizer(r.model);
    cr_assert(t && vkm_tokenizer_n_vocab(t) <= r.model->h.n_vocab);
    OK(vkm_tokenize(t, prompt, strlen(prompt), VKM_TOKENIZE_SPECIAL | VKM_TOKENIZE_PARSE, ids, &n, &err));
    cr_assert(n > 0 && n <= VKM_COUNT(ids));
    OK(vkm_session_eval(r.session, 0, ids, n, NULL, &err));
    cr_assert_gt(generate(&r, (vkm_sampling_params){0}, 60, false, &c), 3);
    vkm_detokenizer *d = NULL;
    OK(vkm_detokenizer_create(t, false, &d, &err));
    size_t distinct = 0;
    for (size_t i = 0; i < c.n; i++) {
        const char *piece;
        size_t n_piece;
        bool before = false;
        OK(vkm_detokenizer_push(d, c.ids[i], &piece, &n_piece, &err));
        cr_assert_lt(n_text + n_piece, sizeof text);
        memcpy(text + n_text, piece, n_piece);
        n_text += n_piece;
        for (size_t k = 0; k < i; k++) before |= c.ids[k] == c.ids[i];
        distinct += !before;
    }
    vkm_detokenizer_destroy(d);
    size_t letters = 0;
    for (size_t i = 0; i < n_text; i++) letters += (text[i] | 32) >= 'a' && (text[i] | 32) <= 'z';
    if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "bundled: %s\n", text);
    cr_assert(letters * 2 > n_text && distinct * 3 > c.n && !strstr(text, "\xef\xbf\xbd"), "%zu tokens, %zu distinct: %s", c.n, distinct, text);
    rig_close(&r);
}
