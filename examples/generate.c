/* Text from a prompt, in the fewest calls: load a model, tokenize, evaluate, generate.
 *
 *     generate MODEL.gguf ["A prompt"] [TOKENS]
 *
 * Everything blocks here; record.c is for programs that must not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vkmoe.h>

/* Called for every token. Bytes of a character that spans tokens are held back until it is whole. */
static bool show(void *detokenizer, uint32_t sequence, int32_t token)
{
    const char *text;
    size_t n;
    (void)sequence;
    if (vkm_detokenizer_push(detokenizer, token, &text, &n, NULL) == VKM_OK) fwrite(text, 1, n, stdout);
    fflush(stdout);
    return true;                                             /* false would stop */
}

static void on_log(void *user, vkm_log_level level, const char *text)
{
    (void)user;
    if (level <= VKM_LOG_WARN) fprintf(stderr, "vkmoe: %s\n", text);
}

int main(int argc, char **argv)
{
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    size_t n_tokens = argc > 3 ? (size_t)atol(argv[3]) : 60, n = 0;
    int32_t *ids = NULL;
    vkm_error err = {0};                                     /* says what went wrong, and where */
    vkm_device *device = NULL;
    vkm_model *model = NULL;
    vkm_session *session = NULL;
    vkm_detokenizer *out = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [PROMPT] [TOKENS]\n", argv[0]);
        return 2;
    }

    /* The best device there is. `caps` "fast" may take kernels that are faster and less exact. */
    vkm_device_params device_params = {.struct_size = sizeof device_params, .log = on_log};
    vkm_result r = vkm_device_create(&device_params, &device, &err);

    /* What it will take is known before anything is loaded. */
    vkm_session_params session_params = {.struct_size = sizeof session_params, .n_ctx = 1024};
    vkm_memory_needs memory;
    if (!r) r = vkm_memory_estimate(device, argv[1], &session_params, &memory, &err);
    if (!r) fprintf(stderr, "%.1f MiB of %.1f\n", (double)memory.total / 0x1p20, (double)memory.available / 0x1p20);
    if (!r) r = vkm_model_load(device, argv[1], NULL, &model, &err);
    if (!r) r = vkm_session_create(model, &session_params, &session, &err);

    /* Asked with no room for ids, vkm_tokenize says how many there are. */
    const vkm_tokenizer *tokenizer = r ? NULL : vkm_model_tokenizer(model);
    if (!r && !tokenizer) {
        fprintf(stderr, "the model has no tokenizer\n");
        r = VKM_ERR_UNSUPPORTED;
    }
    if (!r) r = vkm_tokenize(tokenizer, prompt, strlen(prompt), VKM_TOKENIZE_SPECIAL, NULL, &n, &err);
    if (!r && !(ids = malloc((n + 1) * sizeof *ids))) r = VKM_ERR_HOST_MEMORY;
    if (!r) r = vkm_tokenize(tokenizer, prompt, strlen(prompt), VKM_TOKENIZE_SPECIAL, ids, &n, &err);
    if (!r) r = vkm_detokenizer_create(tokenizer, false, &out, &err);

    /* The prompt, then tokens from it on. A session may hold many sequences; this is number 0. */
    vkm_sampling_params sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .seed = 1};
    vkm_generation generation = {.struct_size = sizeof generation, .seq = 0, .sampling = &sampling, .n_tokens = n_tokens};
    if (!r) r = vkm_session_eval(session, 0, ids, n, NULL, &err);
    if (!r) printf("%s", prompt);
    if (!r) r = vkm_session_generate(session, &generation, 1, show, out, &err);
    if (!r) printf("\n");
    if (r) fprintf(stderr, "%s: %s\n", vkm_result_name(r), err.message);

    /* In the reverse order; NULL is nothing to destroy. */
    free(ids);
    vkm_detokenizer_destroy(out);
    vkm_session_destroy(session);
    vkm_model_destroy(model);
    vkm_device_destroy(device);
    return r != VKM_OK;
}
