/* Many sequences in one model: characters that talk at the same time. One pass over the weights serves all that want a token, and each says bit for bit what it would say alone.
 *
 *     batch MODEL.gguf [SEQUENCES] [TOKENS]
 *
 * Says it all twice, one after the other and together, compares, and tells the tokens per second of both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vkmoe.h>

enum { MOST = 64, MOST_TOKENS = 1024 };

static const char *const openings[] = {"Once upon a time", "The old innkeeper", "\"Who is there?\"", "In the morning", "A farmer", "The storm", "Nobody knew", "By the fire"};

struct talk { int32_t ids[MOST][MOST_TOKENS]; size_t n[MOST]; };

static bool listen(void *user, uint32_t seq, int32_t token)
{
    struct talk *t = user;
    t->ids[seq][t->n[seq]++] = token;
    return t->n[seq] < MOST_TOKENS;
}

static double seconds(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (double)t.tv_sec + (double)t.tv_nsec * 1e-9; }

static vkm_result say(const vkm_tokenizer *tokenizer, const struct talk *t, uint32_t seq, vkm_error *err)
{
    vkm_detokenizer *d;
    const char *text;
    size_t n;
    vkm_result r = vkm_detokenizer_create(tokenizer, false, &d, err);
    if (r) return r;
    printf("%2u  %s", seq, openings[seq % (sizeof openings / sizeof *openings)]);
    for (size_t i = 0; !r && i < t->n[seq]; i++)
        if (!(r = vkm_detokenizer_push(d, t->ids[seq][i], &text, &n, err)))
            for (size_t k = 0; k < n; k++) putchar(text[k] == '\n' ? ' ' : text[k]);
    printf("\n");
    vkm_detokenizer_destroy(d);
    return r;
}

/* Each sequence's prompt is evaluated by itself. */
static vkm_result prompts(vkm_session *session, const vkm_tokenizer *tokenizer, uint32_t n, vkm_error *err)
{
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < n; i++) {
        const char *text = openings[i % (sizeof openings / sizeof *openings)];
        int32_t ids[64];
        size_t n_ids = 64;
        r = vkm_session_rewind(session, i, 0, err);          /* forgets what the sequence had */
        if (!r) r = vkm_tokenize(tokenizer, text, strlen(text), VKM_TOKENIZE_SPECIAL, ids, &n_ids, err);
        if (!r) r = vkm_session_eval(session, i, ids, n_ids, NULL, err);
    }
    return r;
}

/* All generations, in one call or in one each. */
static vkm_result talk(vkm_session *session, const vkm_tokenizer *tokenizer, uint32_t n, size_t n_tokens, bool together, struct talk *t, double *took, vkm_error *err)
{
    vkm_sampling_params sampling[MOST];
    vkm_generation all[MOST];
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < n; i++) {
        sampling[i] = (vkm_sampling_params){.struct_size = sizeof *sampling, .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .seed = i};
        all[i] = (vkm_generation){.struct_size = sizeof *all, .seq = i, .ignore_end = true, .sampling = &sampling[i], .n_tokens = n_tokens};
    }
    vkm_result r = prompts(session, tokenizer, n, err);
    double began = seconds();
    if (together) {
        if (!r) r = vkm_session_generate(session, all, n, listen, t, err);
    } else
        for (uint32_t i = 0; !r && i < n; i++) r = vkm_session_generate(session, &all[i], 1, listen, t, err);
    *took = seconds() - began;
    return r;
}

int main(int argc, char **argv)
{
    uint32_t n = argc > 2 ? (uint32_t)atoi(argv[2]) : 16;
    size_t n_tokens = argc > 3 ? (size_t)atol(argv[3]) : 60;
    vkm_error err = {0};
    vkm_device *device = NULL;
    vkm_model *model = NULL;
    vkm_session *session = NULL;
    if (argc < 2 || n < 1 || n > MOST || n_tokens < 1 || n_tokens > MOST_TOKENS) {
        fprintf(stderr, "usage: %s MODEL.gguf [SEQUENCES, at most %d] [TOKENS, at most %d]\n", argv[0], MOST, MOST_TOKENS);
        return 2;
    }
    struct talk *alone = malloc(sizeof *alone), *together = malloc(sizeof *together);
    double took_alone = 0, took = 0;
    vkm_result r = alone && together ? vkm_device_create(NULL, &device, &err) : VKM_ERR_HOST_MEMORY;
    vkm_session_params params = {.struct_size = sizeof params, .n_seq = n, .n_ctx = (uint32_t)n_tokens + 64};
    if (!r) r = vkm_model_load(device, argv[1], NULL, &model, &err);
    if (!r) r = vkm_session_create(model, &params, &session, &err);
    const vkm_tokenizer *tokenizer = r ? NULL : vkm_model_tokenizer(model);
    if (!r && !tokenizer) {
        fprintf(stderr, "the model has no tokenizer\n");
        r = VKM_ERR_UNSUPPORTED;
    }
    /* Once before the clock counts: the first pass of each size compiles kernels. */
    if (!r) r = talk(session, tokenizer, n, 2, false, alone, &took_alone, &err);
    if (!r) r = talk(session, tokenizer, n, 2, true, together, &took, &err);
    if (!r) r = talk(session, tokenizer, n, n_tokens, false, alone, &took_alone, &err);
    if (!r) r = talk(session, tokenizer, n, n_tokens, true, together, &took, &err);
    bool same = !r && !memcmp(alone, together, sizeof *alone);
    for (uint32_t i = 0; !r && i < n; i++) r = say(tokenizer, together, i, &err);
    if (!r) {
        double tokens = (double)n * (double)n_tokens;
        printf("%u sequences of %zu tokens: alone %.1f tok/s, together %.1f tok/s (%.1f times), %s\n", n, n_tokens, tokens / took_alone, tokens / took, took_alone / took, same ? "the same text" : "OTHER TEXT");
    } else fprintf(stderr, "%s: %s\n", vkm_result_name(r), err.message);
    free(alone);
    free(together);
    vkm_session_destroy(session);
    vkm_model_destroy(model);
    vkm_device_destroy(device);
    return r || !same;
}
