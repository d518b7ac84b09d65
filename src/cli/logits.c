/* vkmoe logits: every position's logits as a NumPy file. */
#include "cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* NumPy format version 1.0 (numpy.lib.format): magic, version, length of the header, a Python dict, padded to 64 bytes. */
static void write_header(FILE *f, size_t rows, size_t columns)
{
    char header[128];
    int n = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", rows, columns);
    int total = (10 + n + 1 + 63) / 64 * 64, length = total - 10;
    fwrite("\x93NUMPY\x01\x00", 1, 8, f);
    putc(length & 255, f);
    putc(length >> 8, f);
    fprintf(f, "%s%*s\n", header, length - n - 1, "");
}

/* "1, 2,3" and line ends. */
static int read_tokens(const char *text, int32_t **ids, size_t *n)
{
    size_t room = 1;
    for (const char *c = text; *c; c++) room += *c == ',' || *c == '\n' || *c == ' ';
    int32_t *list = malloc(room * sizeof *list);
    if (!list) return fail("out of memory");
    *n = 0;
    for (const char *at = text + strspn(text, " \n"); *at;) {
        char *end;
        errno = 0;
        long long id = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : -1;
        const char *next = id < 0 ? at : end + strspn(end, " \n");
        if (id < 0 || id > INT32_MAX || errno || (next == end && *end && *end != ',')) {
            fail_usage("logits", "--tokens needs numbers with commas between them, not '%.40s'", at);
            free(list);
            return STATUS_USAGE;
        }
        list[(*n)++] = (int32_t)id;
        at = *next == ',' ? next + 1 + strspn(next + 1, " \n") : next;
        if (*next == ',' && !*at) break;
    }
    *ids = list;
    return STATUS_OK;
}

static int prompt_tokens(const struct args *args, const struct engine *e, int32_t **ids, size_t *n)
{
    size_t n_text;
    if (!e->tokenizer) return fail("the model file has no tokenizer: give token ids with --tokens");
    char *text = read_prompt(args, false, &n_text);
    if (!text) return STATUS_FAILED;
    int status = tokenize(e->tokenizer, text, n_text, (args->no_special ? 0 : VKM_TOKENIZE_SPECIAL) | (args->parse_special ? VKM_TOKENIZE_PARSE : 0), ids, n);
    free(text);
    return status;
}

static int evaluate(const struct args *args, struct engine *e, const int32_t *ids, size_t n, FILE *out)
{
    vkm_error err = {0};
    size_t n_vocab = e->info.n_vocab, part = args->decode ? 1 : args->batch ? (size_t)args->batch : 512;
    if (part > n) part = n;
    float *logits = malloc(part * n_vocab * sizeof *logits);
    if (!logits) return fail("out of memory for the logits of %zu tokens: use a smaller --batch", part);
    int status = STATUS_OK;
    if (out) write_header(out, n, n_vocab);
    for (size_t at = 0; at < n && status == STATUS_OK; at += part) {
        if (part > n - at) part = n - at;
        if (vkm_session_eval(e->session, 0, ids + at, part, logits, &err) != VKM_OK) status = fail_error(&err);
        else if (interrupted()) status = fail("interrupted after %zu of %zu tokens", at + part, n);
        else if (out && fwrite(logits, n_vocab * sizeof *logits, part, out) != part) break;   /* output_close says why */
    }
    free(logits);
    return status == STATUS_OK ? engine_print(args, e, ids, n, stdout) : status;
}

int logits_command(const struct args *given)
{
    struct args args = *given;
    if (!args.kv) args.kv = "f32";
    if (!args.tokens + !args.prompt + !args.file != 2) return fail_usage("logits", "give one of --tokens, -p and -f");
    if (!args.output && !args.print && !args.profile && !args.audit) return fail_usage("logits", "give the file to write with -o OUT.npy");

    int32_t *ids = NULL;
    size_t n = 0;
    int status = STATUS_OK;
    if (args.tokens) {
        char *text = strcmp(args.tokens, "-") == 0 ? read_all("-", &n) : NULL;
        if (text || strcmp(args.tokens, "-") != 0) status = read_tokens(text ? text : args.tokens, &ids, &n);
        else status = STATUS_FAILED;
        free(text);
        if (status == STATUS_OK && n == 0) { free(ids); return fail_usage("logits", "--tokens is empty"); }
    }
    struct engine e = {0};
    struct output out = {0};
    if (status == STATUS_OK) status = engine_open(&args, &e);
    if (status == STATUS_OK && !args.tokens) status = prompt_tokens(&args, &e, &ids, &n);
    if (status == STATUS_OK && n == 0) status = fail("the prompt is empty: there is no token to evaluate");
    if (status == STATUS_OK) status = engine_session(&args, args.ctx ? (uint32_t)args.ctx : (uint32_t)n, 1, &e);
    if (status == STATUS_OK && args.output) status = output_open(&out, args.output);
    if (status == STATUS_OK) status = evaluate(&args, &e, ids, n, out.f);
    free(ids);
    status = engine_close(&e, status);
    return output_close(&out, args.output, status);
}
