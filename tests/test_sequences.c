/* Many sequences in a session: the same bits alone and together, whoever ends when, wherever their KV cache lies; copies of sequences; limits; audit. */
#include "harness.h"

enum { MOST_SEQ = 64, MOST_TOKENS = 96 };

/* What sequences said, by sequence; and the order in which all of it came. */
struct talk {
    int32_t ids[MOST_SEQ][MOST_TOKENS];
    size_t n[MOST_SEQ], stop_after[MOST_SEQ], calls;
    uint32_t order[MOST_SEQ * MOST_TOKENS];
};

static bool listen(void *user, uint32_t seq, int32_t id)
{
    struct talk *t = user;
    cr_assert(seq < MOST_SEQ && t->n[seq] < MOST_TOKENS);
    t->order[t->calls++] = seq;
    t->ids[seq][t->n[seq]++] = id;
    return t->n[seq] != t->stop_after[seq];
}

/* A model on a device, with a session of n_seq sequences. */
static void open_model(struct rig *r, const char *caps, const char *arch, uint32_t layers, vkm_session_params p)
{
    char path[256];
    struct ref_testmodel o = ref_testmodel_default(arch);
    o.layers = layers;
    cr_assert(ref_testmodel_save(&o, path));
    rig_open(r, caps, path, p);
    unlink(path);
}

/* Prompts of unlike lengths and contents; sampling of all kinds. */
static uint32_t prompt_of(const struct rig *r, uint32_t i, int32_t *tokens)
{
    uint32_t n = 1 + i * 7 % 23;
    for (uint32_t k = 0; k < n; k++) tokens[k] = (int32_t)((k * 7919 + i * 104729 + 13) % r->model->h.n_vocab);
    return n;
}

static vkm_sampling_params sampling_of(uint32_t i)
{
    vkm_sampling_params s = {.struct_size = sizeof s, .seed = i * 31 + 1};
    if (i % 4) s.temperature = 0.5f + 0.25f * (float)(i % 5);
    if (i % 4 == 2) s.top_k = 40, s.repeat_penalty = 1.3f, s.repeat_last_n = i % 3 ? 0 : 5;
    if (i % 4 == 3) s.top_p = 0.9f, s.min_p = 0.01f;
    return s;
}

static size_t length_of(uint32_t i) { return i % 5 == 4 ? 3 : i % 5 == 2 ? 9 : 14; }   /* some end early */

/* Sequence `seq` is prompt i. */
static void prompt(struct rig *r, uint32_t seq, uint32_t i)
{
    vkm_error err = {0};
    int32_t tokens[64];
    uint32_t n = prompt_of(r, i, tokens);
    OK(vkm_session_rewind(r->session, seq, 0, &err));
    OK(vkm_session_eval(r->session, seq, tokens, n, NULL, &err));
    cr_assert_eq(vkm_session_n_past(r->session, seq), n);
}

/* Each prompt by itself in a session of one sequence; logits[i]: of the token after what was generated. */
static void alone(struct rig *r, uint32_t n, struct talk *t, float *logits)
{
    vkm_error err = {0};
    const int32_t next = 77;
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < n; i++) {
        struct talk one = {0};
        vkm_sampling_params s = sampling_of(i);
        vkm_generation g = {.struct_size = sizeof g, .ignore_end = true, .sampling = &s, .n_tokens = length_of(i)};
        prompt(r, 0, i);
        OK(vkm_session_generate(r->session, &g, 1, listen, &one, &err));
        cr_assert(g.n_generated == length_of(i) && one.n[0] == length_of(i));
        memcpy(t->ids[i], one.ids[0], sizeof t->ids[i]);
        t->n[i] = one.n[0];
        OK(vkm_session_eval(r->session, 0, &next, 1, logits + (size_t)i * r->model->h.n_vocab, &err));
    }
}

/* All together: prompt i is sequence n - 1 - i, and they are given in an order of their own. At most `most` tokens of each, of some one less. */
static void together_short(struct rig *r, uint32_t n, size_t most, struct talk *t, float *logits)
{
    vkm_error err = {0};
    const int32_t next = 77;
    vkm_sampling_params s[MOST_SEQ];
    vkm_generation g[MOST_SEQ];
    struct talk *all = calloc(1, sizeof *all);
    cr_assert(all);
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < n; i++) prompt(r, n - 1 - i, i);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = (k * 5 + 3) % n;                        /* n has no factor 5 */
        s[k] = sampling_of(i);
        g[k] = (vkm_generation){.struct_size = sizeof *g, .seq = n - 1 - i, .ignore_end = true, .sampling = &s[k], .n_tokens = length_of(i) < most - i % 2 ? length_of(i) : most - i % 2};
    }
    OK(vkm_session_generate(r->session, g, n, listen, all, &err));
    for (uint32_t k = 0; k < n; k++) cr_assert_eq(g[k].n_generated, g[k].n_tokens);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(t->ids[i], all->ids[n - 1 - i], sizeof t->ids[i]);
        t->n[i] = all->n[n - 1 - i];
        OK(vkm_session_eval(r->session, n - 1 - i, &next, 1, logits + (size_t)i * r->model->h.n_vocab, &err));
    }
    size_t at = 0;                                           /* the k-th tokens of all, in the order of the call, before the next of any */
    for (size_t round = 0; at < all->calls; round++)
        for (uint32_t k = 0; k < n; k++)
            if (round < g[k].n_tokens) cr_assert_eq(all->order[at++], g[k].seq, "call %zu is not for sequence %u", at - 1, g[k].seq);
    free(all);
}

static void together(struct rig *r, uint32_t n, struct talk *t, float *logits) { together_short(r, n, 99, t, logits); }

static void check_batch(const char *arch, const char *caps, vkm_kv_type kv, uint32_t gpu_subgroup)
{
    struct rig r;
    enum { n = 16 };
    struct talk *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    vkm_session_params p = {.n_ctx = 64, .kv_type = kv};
    open_model(&r, gpu_subgroup && !caps ? "gather" : caps, arch, 2, p);
    if (gpu_subgroup) use_gpu_shape(&r, gpu_subgroup);
    size_t n_vocab = r.model->h.n_vocab;
    float *z = malloc(2 * n * n_vocab * sizeof *z);
    cr_assert(a && b && z);
    alone(&r, n, a, z);
    p.n_seq = n;
    rig_session(&r, p);
    if (gpu_subgroup) use_gpu_shape(&r, gpu_subgroup);
    cr_assert_eq(vkm_session_n_seq(r.session), n);
    together(&r, n, b, z + n * n_vocab);
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(a->n[i], b->n[i]);
        cr_assert_eq(memcmp(a->ids[i], b->ids[i], a->n[i] * 4), 0, "%s: sequence %u says something else among others", arch, i);
    }
    check_same(z, z + n * n_vocab, n, (uint32_t)n_vocab, arch);
    free(a);
    free(b);
    free(z);
    rig_close(&r);
}

Test(batch, as_alone) { check_batch("qwen3moe", NULL, VKM_KV_F16, 0); }
Test(batch, as_alone_baseline) { check_batch("qwen2moe", "baseline", VKM_KV_F32, 0); }
Test(batch, as_alone_gpu_shape) { FIRST_DRIVER_ONLY(); check_batch("olmoe", "baseline", VKM_KV_F16, 32); }
Test(batch, as_alone_scaled_logits) { FIRST_DRIVER_ONLY(); check_batch("granitemoe", NULL, VKM_KV_F16, 0); }

/* A KV cache over many slabs, a layer's keys and values in several of them; or several layers in one. */
Test(batch, anywhere_in_slabs)
{
    static const struct { uint32_t range, least; } cases[] = {{1 << 20, 1}, {160 << 10, 4}};
    struct talk *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    float *z = malloc(2 * 8 * 260 * sizeof *z);
    cr_assert(a && b && z);
    for (size_t i = 0; i < VKM_COUNT(cases); i++) {
        struct rig r;
        char caps[96];
        vkm_session_params p = {.n_ctx = 320, .n_batch = 32, .kv_type = VKM_KV_F32};     /* a unit is 40 KiB, 16 of them a layer */
        snprintf(caps, sizeof caps, "range=%u", cases[i].range);
        open_model(&r, i ? caps : NULL, "llama", 3, p);
        cr_assert(r.model->h.n_vocab == 260);
        if (i == 0) { alone(&r, 8, a, z); rig_close(&r); open_model(&r, caps, "llama", 3, p); }   /* the right answers */
        p.n_seq = 8;
        rig_session(&r, p);
        cr_assert_geq(r.session->layers[2].n_parts, cases[i].least);
        together(&r, 8, b, z + 8 * 260);
        for (uint32_t k = 0; k < 8; k++) cr_assert_eq(memcmp(a->ids[k], b->ids[k], a->n[k] * 4), 0, "%s: sequence %u", caps, k);
        check_same(z, z + 8 * 260, 8, 260, caps);
        rig_close(&r);
    }
    free(a);
    free(b);
    free(z);
}

/* ---------------------------------------------------------------- ends */

Test(ends, each_by_itself)
{
    struct rig r;
    vkm_error err = {0};
    struct talk *whole = calloc(1, sizeof *whole), *t = calloc(1, sizeof *t);
    vkm_generation g[6] = {{0}};
    cr_assert(whole && t);
    open_model(&r, NULL, "llama", 1, (vkm_session_params){.n_ctx = 64, .n_seq = 6});
    for (int turn = 0; turn < 2; turn++) {
        struct talk *to = turn ? t : whole;
        for (uint32_t i = 0; i < 6; i++) {
            prompt(&r, i, i);
            g[i] = (vkm_generation){.struct_size = sizeof *g, .seq = i, .ignore_end = true, .n_tokens = 20};
        }
        if (turn) {
            to->stop_after[0] = 1; to->stop_after[1] = 7; to->stop_after[3] = 20;        /* the callback; the first token; the last one */
            g[2].n_tokens = 2;
            g[4].n_tokens = 0;                                                           /* until the context is full */
        }
        OK(vkm_session_generate(r.session, g, 6, listen, to, &err));
    }
    cr_assert(memcmp(whole->ids[1], whole->ids[2], 20 * 4) && memcmp(whole->ids[4], whole->ids[5], 20 * 4), "sequences say the same");
    int32_t tokens[64];
    const size_t expected[6] = {1, 7, 2, 20, 64 - prompt_of(&r, 4, tokens), 20};
    for (uint32_t i = 0; i < 6; i++) {
        cr_assert(t->n[i] == expected[i] && g[i].n_generated == expected[i], "sequence %u: %zu of %zu tokens", i, t->n[i], expected[i]);
        cr_assert_eq(memcmp(t->ids[i], whole->ids[i], (t->n[i] < 20 ? t->n[i] : 20) * 4), 0);
        cr_assert_eq(vkm_session_n_past(r.session, i), prompt_of(&r, i, tokens) + expected[i]);
    }
    /* those that ended early go on where they were, with what they would have said; the full one has no room */
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < 6; i++) g[i] = (vkm_generation){.struct_size = sizeof *g, .seq = i, .ignore_end = true, .n_tokens = expected[i] < 20 ? 20 - expected[i] : i == 4 ? 5 : 1};
    OK(vkm_session_generate(r.session, g, 6, listen, t, &err));
    for (uint32_t i = 0; i < 6; i++) {
        cr_assert_eq(g[i].n_generated, i == 4 ? 0 : g[i].n_tokens);
        if (expected[i] < 20) cr_assert_eq(memcmp(t->ids[i], whole->ids[i] + expected[i], t->n[i] * 4), 0, "sequence %u went on differently", i);
    }
    free(whole);
    free(t);
    rig_close(&r);
}

/* End tokens of hot sequences: each ends with its own, the others go on. */
Test(ends, end_of_generation)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    vkm_error err = {0};
    enum { N = 16 };
    struct talk *t = calloc(1, sizeof *t);
    vkm_generation g[N];
    vkm_sampling_params s[N];
    uint32_t ended = 0;
    cr_assert(t);
    open_model(&r, NULL, "llama", 1, (vkm_session_params){.n_ctx = 128, .n_seq = N});
    for (uint32_t i = 0; i < N; i++) {
        prompt(&r, i, i);
        s[i] = (vkm_sampling_params){.struct_size = sizeof *s, .temperature = 50, .seed = i};
        g[i] = (vkm_generation){.struct_size = sizeof *g, .seq = i, .sampling = &s[i], .n_tokens = MOST_TOKENS};
    }
    OK(vkm_session_generate(r.session, g, N, listen, t, &err));
    for (uint32_t i = 0; i < N; i++) {
        for (size_t k = 0; k + 1 < t->n[i]; k++) cr_assert_neq(t->ids[i][k], 2);
        if (t->n[i] == MOST_TOKENS) continue;
        cr_assert_eq(t->ids[i][t->n[i] - 1], 2);
        ended++;
    }
    cr_assert(ended > 0 && ended < N, "%u of %u met an end token: choose other seeds", ended, N);
    free(t);
    rig_close(&r);
}

/* ---------------------------------------------------------------- copies */

Test(copy, shared_prompt)
{
    enum { N = 70, MORE = 16 };
    for (int kv16 = 0; kv16 < 2; kv16++) {
        struct rig r;
        vkm_error err = {0};
        int32_t tokens[N + MORE];
        struct talk *t = calloc(1, sizeof *t);
        cr_assert(t);
        open_model(&r, NULL, "qwen3moe", 2, (vkm_session_params){.n_ctx = 96, .n_seq = 4, .kv_type = kv16 ? VKM_KV_F16 : VKM_KV_F32});
        uint32_t n_vocab = r.model->h.n_vocab;
        some_tokens(tokens, N + MORE, n_vocab);
        float *right = eval_steps(&r, tokens, N + MORE, 0), *got = malloc((size_t)MORE * n_vocab * sizeof *got);
        cr_assert(got);
        static const uint32_t cuts[] = {1, 31, 32, 33, 64, N};
        for (size_t i = 0; i < VKM_COUNT(cuts); i++) {
            uint32_t n = cuts[i], to = 1 + (uint32_t)i % 3;
            OK(vkm_session_copy(r.session, 0, to, n, &err));
            cr_assert(vkm_session_n_past(r.session, to) == n && vkm_session_n_past(r.session, 0) == N + MORE);
            OK(vkm_session_eval(r.session, to, tokens + n, MORE, got, &err));
            check_same(right + (size_t)n * n_vocab, got, MORE, n_vocab, "after a copy");
        }
        /* copies of a whole sequence generate what it does, also with a token that was generated and not evaluated yet */
        OK(vkm_session_rewind(r.session, 0, 0, &err));
        OK(vkm_session_eval(r.session, 0, tokens, N, NULL, &err));
        OK(vkm_session_copy(r.session, 0, 1, N, &err));
        vkm_generation g[4] = {{.struct_size = sizeof *g, .ignore_end = true, .n_tokens = 5}, {.seq = 1, .ignore_end = true, .n_tokens = 10}};
        OK(vkm_session_generate(r.session, g, 2, listen, t, &err));
        cr_assert_eq(memcmp(t->ids[0], t->ids[1], 5 * 4), 0);
        OK(vkm_session_copy(r.session, 0, 3, N + 5, &err));
        g[0].seq = 3;
        OK(vkm_session_generate(r.session, g, 1, listen, t, &err));
        cr_assert_eq(memcmp(t->ids[3], t->ids[1] + 5, 5 * 4), 0);

        OK(vkm_session_copy(r.session, 0, 1, 0, &err));
        cr_assert_eq(vkm_session_n_past(r.session, 1), 0);
        FAILS(vkm_session_copy(r.session, 0, 0, 3, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_session_copy(r.session, 0, 4, 3, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_session_copy(r.session, 4, 0, 3, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_session_copy(r.session, 0, 1, N + 6, &err), VKM_ERR_ARGUMENT);
        cr_assert(vkm_session_n_past(r.session, 0) == N + 5 && vkm_session_n_past(r.session, 1) == 0);
        free(right);
        free(got);
        free(t);
        rig_close(&r);
    }
}

/* A sequence is not disturbed by what happens to others. */
Test(copy, sequences_are_apart)
{
    enum { N = 40 };
    struct rig r;
    vkm_error err = {0};
    int32_t tokens[N], other[N];
    open_model(&r, NULL, "qwen2moe", 2, (vkm_session_params){.n_ctx = 64, .n_seq = 3, .n_batch = 16});
    uint32_t n_vocab = r.model->h.n_vocab;
    some_tokens(tokens, N, n_vocab);
    for (int i = 0; i < N; i++) other[i] = (tokens[i] + 100) % (int32_t)n_vocab;
    float *right = eval_steps(&r, tokens, N, 0), *got = malloc(N * n_vocab * sizeof *got);
    cr_assert(got);
    for (uint32_t at = 0, n; at < N; at += n) {
        n = at % 3 ? 1 : 7;                                  /* two programs */
        if (n > N - at) n = 1;
        OK(vkm_session_eval(r.session, 1, tokens + at, n, got + (size_t)at * n_vocab, &err));
        OK(vkm_session_eval(r.session, 2, other + at, n, NULL, &err));
        OK(vkm_session_rewind(r.session, 0, at, &err));
        OK(vkm_session_eval(r.session, 0, other + at, n, NULL, &err));
    }
    check_same(right, got, N, n_vocab, "in between others");
    free(right);
    free(got);
    rig_close(&r);
}

/* ---------------------------------------------------------------- limits */

Test(limits, arguments)
{
    struct rig r;
    vkm_error err = {0};
    int32_t tokens[4] = {5, 6, 7, 8};
    open_model(&r, NULL, "llama", 1, (vkm_session_params){.n_ctx = 32, .n_seq = 3});
    cr_assert(vkm_session_n_seq(r.session) == 3 && vkm_session_n_past(r.session, 7) == 0);
    OK(vkm_session_eval(r.session, 0, tokens, 4, NULL, &err));
    OK(vkm_session_eval(r.session, 2, tokens, 4, NULL, &err));
    vkm_sampling_params bad = {.struct_size = sizeof bad, .temperature = NAN};
    vkm_generation g[4];
    for (int wrong = 0; wrong < 4; wrong++) {
        for (uint32_t i = 0; i < 4; i++) g[i] = (vkm_generation){.struct_size = sizeof *g, .seq = i % 2 * 2, .n_tokens = 3, .n_generated = 99};
        if (wrong == 0) g[1].seq = 0;                        /* twice */
        if (wrong == 1) g[1].seq = 1;                        /* empty */
        if (wrong == 2) g[1].sampling = &bad;
        FAILS(vkm_session_generate(r.session, g, wrong == 3 ? 4 : 2, NULL, NULL, &err), VKM_ERR_ARGUMENT);
        cr_assert(g[0].n_generated == 99 && vkm_session_n_past(r.session, 0) == 4 && vkm_session_n_past(r.session, 2) == 4);
    }
    FAILS(vkm_session_eval(r.session, 3, tokens, 4, NULL, &err), VKM_ERR_ARGUMENT);
    cr_assert(strstr(err.message, "3"), "%s", err.message);
    OK(vkm_session_generate(r.session, g, 0, NULL, NULL, &err));
    OK(vkm_session_generate(r.session, g, 2, NULL, NULL, &err));                         /* and all still works; NULL for the callback */
    cr_assert(g[0].n_generated == 3 && vkm_session_n_past(r.session, 0) == 7 && vkm_session_n_past(r.session, 2) == 7);
    rig_close(&r);
}

Test(limits, memory_and_ranges)
{
    struct rig r;
    vkm_error err = {0};
    vkm_session *s = NULL;
    open_model(&r, "heap=33554432,range=1048576,kv_slabs=4", "llama", 2, (vkm_session_params){.n_ctx = 32});
    uint64_t before = vkm_device_allocated(r.device);
    static const struct { uint32_t n_ctx, n_seq; vkm_result expected; const char *words[2]; } cases[] = {
        {4096, 6, VKM_ERR_LIMIT, {"4096", "6 sequences"}},               /* 6 MiB a layer in 4 slabs of 1 MiB */
        {16384, 1, VKM_ERR_LIMIT, {"16384", "1 sequence "}},             /* 2 MiB of keys in one piece */
        {1 << 28, 65536, VKM_ERR_LIMIT, {"65536 sequences", "MiB"}},
        {32, 500, VKM_ERR_LIMIT, {"500 sequences", "range"}},          /* the rows of a pass */
        {32, 65537, VKM_ERR_ARGUMENT, {"65537", "65536"}},
    };
    for (size_t i = 0; i < VKM_COUNT(cases); i++) {
        vkm_session_params p = {.struct_size = sizeof p, .n_ctx = cases[i].n_ctx, .n_seq = cases[i].n_seq, .kv_type = VKM_KV_F32};
        FAILS(vkm_session_create(r.model, &p, &s, &err), cases[i].expected);
        cr_assert(!s && strstr(err.message, cases[i].words[0]) && strstr(err.message, cases[i].words[1]), "%s", err.message);
        cr_assert_eq(vkm_device_allocated(r.device), before);
    }
    rig_close(&r);
    open_model(&r, "heap=16777216", "llama", 2, (vkm_session_params){.n_ctx = 32});
    before = vkm_device_allocated(r.device);
    vkm_session_params p = {.struct_size = sizeof p, .n_ctx = 4096, .n_seq = 20};
    FAILS(vkm_session_create(r.model, &p, &s, &err), VKM_ERR_DEVICE_MEMORY);
    cr_assert(!s && strstr(err.message, "20 sequences") && strstr(err.message, "GiB") && vkm_device_allocated(r.device) == before, "%s", err.message);
    rig_close(&r);
}

/* ---------------------------------------------------------------- audit */

/* No step touches what it does not declare, and the bits are those of a normal run. */
Test(audit, batch)
{
    struct talk *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    static const struct { const char *caps; uint32_t n_ctx, parts; } cases[] = {{"range=1048576", 64, 1}, {"baseline,range=131072", 512, 3}};
    float *z = malloc(2 * 3 * 260 * sizeof *z);
    cr_assert(a && b && z);
    for (size_t i = 0; i < VKM_COUNT(cases); i++) {
        struct rig r;
        vkm_session_params p = {.n_ctx = cases[i].n_ctx, .n_batch = 16, .n_seq = 3, .kv_type = VKM_KV_F32};
        open_model(&r, cases[i].caps, "llama", 2, p);
        cr_assert_eq(r.session->layers[1].n_parts, cases[i].parts);
        together_short(&r, 3, 3, a, z);
        p.audit = true;
        rig_session(&r, p);
        together_short(&r, 3, 3, b, z + 3 * 260);
        cr_assert_eq(memcmp(a->ids, b->ids, sizeof a->ids), 0);
        check_same(z, z + 3 * 260, 3, 260, "audit");
        rig_close(&r);
    }
    free(a);
    free(b);
    free(z);
}
