/* vkmoe tokenize: text to ids, without a device. */
#include "cli.h"
#include <stdlib.h>

static void print_json(const vkm_tokenizer *t, const int32_t *ids, size_t n)
{
    struct json j = {.out = stdout};
    json_open(&j, NULL, '{', false);
    json_uint(&j, "n", n);
    json_open(&j, "ids", '[', true);
    for (size_t i = 0; i < n; i++) json_int(&j, NULL, ids[i]);
    json_close(&j);
    json_open(&j, "pieces", '[', true);                    /* as the file has them */
    for (size_t i = 0; i < n; i++) {
        size_t length = 0;
        const char *piece = vkm_tokenizer_piece(t, ids[i], &length);
        json_str_n(&j, NULL, piece ? piece : "", piece ? length : 0);
    }
    json_close(&j);
    json_close(&j);
}

/* A line a token: id, tab, piece as a JSON string. */
static void print_text(const vkm_tokenizer *t, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t length = 0;
        const char *piece = vkm_tokenizer_piece(t, ids[i], &length);
        printf("%d\t", ids[i]);
        json_quote(stdout, piece ? piece : "", piece ? length : 0);
        putchar('\n');
    }
}

int tokenize_command(const struct args *args)
{
    if (!args->prompt + !args->file != 1) return fail_usage("tokenize", "give one of -p and -f");
    const char *path = model_path(args);
    if (!path) return STATUS_FAILED;
    vkm_error err = {0};
    vkm_tokenizer *t = NULL;
    if (vkm_tokenizer_open(path, &t, &err) != VKM_OK) return fail_error(&err);
    int32_t *ids = NULL;
    size_t n_text = 0, n = 0;
    char *text = read_prompt(args, false, &n_text);
    int status = STATUS_FAILED;
    if (text) status = tokenize(t, text, n_text, (args->no_special ? 0 : VKM_TOKENIZE_SPECIAL) | (args->parse_special ? VKM_TOKENIZE_PARSE : 0), &ids, &n);
    if (status == STATUS_OK) (args->json ? print_json : print_text)(t, ids, n);
    free(ids);
    free(text);
    vkm_tokenizer_destroy(t);
    return status;
}
