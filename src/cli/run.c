/* vkmoe run: continues a prompt. */
#include "cli.h"
#include "system.h"
#include <stdlib.h>
#include <string.h>

/* Where generated tokens go. */
struct stream {
    const vkm_tokenizer *tokenizer;
    vkm_detokenizer *detokenizer;
    vkm_error err;
    bool json, terminal, ended, failed;
    double first;                          /* when the first token came */
    int32_t *ids;
    size_t n, room;
    char *text;                            /* for --json */
    size_t n_text, text_room;
};

static void emit(struct stream *s, const char *text, size_t n)
{
    if (!s->json) {
        if (s->terminal) print_clean(stdout, text, n);
        else fwrite(text, 1, n, stdout);
        if (n) output_flush();
        return;
    }
    if (s->n_text + n > s->text_room) {
        char *more = realloc(s->text, s->text_room = 2 * (s->n_text + n));
        if (!more) { s->failed = true; return; }
        s->text = more;
    }
    if (n) memcpy(s->text + s->n_text, text, n);
    s->n_text += n;
}

static bool on_token(void *user, uint32_t seq, int32_t id)
{
    (void)seq;
    struct stream *s = user;
    const char *text;
    size_t n;
    if (s->n == 0) s->first = seconds();
    if (s->n == s->room) {
        int32_t *more = realloc(s->ids, (s->room = s->room ? 2 * s->room : 256) * sizeof *more);
        if (!more) { s->failed = true; return false; }
        s->ids = more;
    }
    s->ids[s->n++] = id;
    s->ended = vkm_tokenizer_is_end(s->tokenizer, id);
    if (vkm_detokenizer_push(s->detokenizer, id, &text, &n, &s->err) != VKM_OK) s->failed = true;
    else emit(s, text, n);
    return !s->failed && !interrupted() && (s->json || output_flush());
}

/* The prompt, dimmed where a terminal can; and through the detokenizer, which then knows where the text goes on. */
static int begin(const struct args *args, struct stream *s, const char *prompt, size_t n_prompt, const int32_t *ids, size_t n)
{
    const char *text;
    size_t n_text;
    if (vkm_detokenizer_create(s->tokenizer, args->special, &s->detokenizer, &s->err) != VKM_OK) return fail_error(&s->err);
    for (size_t i = 0; i < n; i++)
        if (vkm_detokenizer_push(s->detokenizer, ids[i], &text, &n_text, &s->err) != VKM_OK) return fail_error(&s->err);
    if (args->json || args->no_echo) return STATUS_OK;
    bool dim = has_colour(stdout);
    if (dim) fputs("\033[2m", stdout);
    if (s->terminal) print_clean(stdout, prompt, n_prompt);
    else fwrite(prompt, 1, n_prompt, stdout);
    if (dim) fputs("\033[0m", stdout);
    output_flush();
    return STATUS_OK;
}

/* A few tokens of the prompt and one more, evaluated and forgotten: drivers compile a kernel when it first runs (CPU drivers take seconds), which would
 * otherwise be counted as the speed of the prompt. 9 is the least that runs the kernels for many tokens. */
static int warm_up(struct engine *e, const int32_t *ids, size_t n)
{
    vkm_error err = {0};
    if (n > 9) n = 9;
    if (vkm_session_eval(e->session, 0, ids, n, NULL, &err) != VKM_OK) return fail_error(&err);
    if (!interrupted() && n > 1 && n < vkm_session_n_ctx(e->session) && vkm_session_eval(e->session, 0, ids, 1, NULL, &err) != VKM_OK) return fail_error(&err);
    if (vkm_session_rewind(e->session, 0, 0, &err) != VKM_OK) return fail_error(&err);
    return interrupted() ? fail("interrupted") : STATUS_OK;
}

/* In passes of our own, so that Ctrl-C is heard between them. */
static int evaluate(const struct args *args, struct engine *e, const int32_t *ids, size_t n)
{
    vkm_error err = {0};
    size_t part = args->batch ? (size_t)args->batch : 512;
    for (size_t at = 0; at < n; at += part) {
        if (part > n - at) part = n - at;
        if (vkm_session_eval(e->session, 0, ids + at, part, NULL, &err) != VKM_OK) return fail_error(&err);
        if (interrupted()) return fail("interrupted after %zu of %zu prompt tokens", at + part, n);
    }
    return STATUS_OK;
}

static uint32_t choose_seed(const struct args *args)
{
    if (args->seed >= 0) return (uint32_t)args->seed;
    return (uint32_t)(system_seed() * 0x9e3779b97f4a7c15u >> 32);
}

struct figures { size_t n_prompt; double load, prompt, generation; uint32_t seed; const char *stop; };

static double rate(size_t n, double time) { return n && time > 0 ? (double)n / time : 0; }

static void print_summary(const struct engine *e, const struct stream *s, const struct figures *f)
{
    const char *dim = has_colour(stderr) ? "\033[2m" : "", *plain = *dim ? "\033[0m" : "";
    fprintf(stderr, "%sprompt %zu tokens, %.1f tok/s; generated %zu tokens, %.1f tok/s (%s); load %.2f s; seed %u; %s%s\n", dim, f->n_prompt, rate(f->n_prompt, f->prompt), s->n,
            rate(s->n, f->generation), f->stop, f->load, f->seed, e->device_info.name, plain);
}

static void print_json(const struct engine *e, const struct stream *s, const struct figures *f, const char *prompt, size_t n_prompt)
{
    struct json j = {.out = stdout};
    json_open(&j, NULL, '{', false);
    json_str(&j, "model", e->info.name);
    json_str(&j, "architecture", e->info.architecture);
    json_str(&j, "device", e->device_info.name);
    json_str(&j, "driver", e->device_info.driver);
    json_str_n(&j, "prompt", prompt, n_prompt);
    json_str_n(&j, "text", s->text ? s->text : "", s->n_text);
    json_open(&j, "tokens", '[', true);
    for (size_t i = 0; i < s->n; i++) json_int(&j, NULL, s->ids[i]);
    json_close(&j);
    json_str(&j, "stop", f->stop);
    json_uint(&j, "seed", f->seed);
    json_uint(&j, "n_prompt", f->n_prompt);
    json_uint(&j, "n_generated", s->n);
    json_real(&j, "load_seconds", f->load);
    json_real(&j, "prompt_seconds", f->prompt);
    json_real(&j, "prompt_tokens_per_second", rate(f->n_prompt, f->prompt));
    json_real(&j, "generation_seconds", f->generation);
    json_real(&j, "generation_tokens_per_second", rate(s->n, f->generation));
    json_close(&j);
}

static int generate(const struct args *args, struct engine *e, struct stream *s, struct figures *f)
{
    vkm_error err = {0};
    const char *text;
    size_t n_text, room = vkm_session_n_ctx(e->session) - vkm_session_n_past(e->session, 0);
    size_t n = args->n < 0 || (size_t)args->n > room ? room : (size_t)args->n;
    vkm_sampling_params sampling = {
        .struct_size = sizeof sampling, .temperature = (float)args->temp, .top_k = (uint32_t)args->top_k, .top_p = (float)args->top_p, .min_p = (float)args->min_p,
        .repeat_penalty = args->repeat_last_n ? (float)args->repeat_penalty : 1, .repeat_last_n = (uint32_t)args->repeat_last_n, .seed = f->seed};
    vkm_generation generation = {.struct_size = sizeof generation, .ignore_end = args->ignore_end, .sampling = &sampling, .n_tokens = n};
    f->stop = "length";
    if (n && vkm_session_generate(e->session, &generation, 1, on_token, s, &err) != VKM_OK) return fail_error(&err);
    if (s->failed) return s->err.code ? fail_error(&s->err) : fail("out of memory");
    /* n tokens were drawn, and evaluated after the first was drawn. */
    f->generation = s->n ? seconds() - s->first : 0;
    if (vkm_detokenizer_flush(s->detokenizer, &text, &n_text, &s->err) == VKM_OK) emit(s, text, n_text);
    if (s->ended && !args->ignore_end) f->stop = "end of text";
    else if (interrupted()) f->stop = "interrupted";
    else if (s->n < n) f->stop = "output closed";
    else if (n == room) f->stop = "context full";
    return STATUS_OK;
}

int run_command(const struct args *given)
{
    struct args args = *given;
    if (!args.kv) args.kv = "f16";
    if (!args.prompt + !args.file != 1) return fail_usage("run", "give the prompt with -p TEXT or -f FILE");
    struct engine e = {0};
    struct stream s = {.json = args.json, .terminal = is_terminal(stdout)};
    struct figures f = {.seed = choose_seed(&args)};
    size_t n_text = 0;
    int32_t *ids = NULL;
    char *prompt = read_prompt(&args, true, &n_text);
    int status = prompt ? STATUS_OK : STATUS_FAILED;

    double start = seconds();
    if (status == STATUS_OK) status = engine_open(&args, &e);
    if (status == STATUS_OK && !(s.tokenizer = e.tokenizer)) status = fail("the model file has no tokenizer");
    if (status == STATUS_OK) status = tokenize(e.tokenizer, prompt, n_text, VKM_TOKENIZE_SPECIAL | (args.parse_special ? VKM_TOKENIZE_PARSE : 0), &ids, &f.n_prompt);
    if (status == STATUS_OK && f.n_prompt == 0) status = fail("the prompt is empty and the model has no token to begin with");
    if (status == STATUS_OK) status = engine_session(&args, (uint32_t)args.ctx, 1, &e);
    if (status == STATUS_OK && f.n_prompt > vkm_session_n_ctx(e.session))
        status = fail("the prompt has %zu tokens and the context holds %u: give a larger one with -c", f.n_prompt, vkm_session_n_ctx(e.session));
    if (status == STATUS_OK) status = begin(&args, &s, prompt, n_text, ids, f.n_prompt);
    if (status == STATUS_OK) status = warm_up(&e, ids, f.n_prompt);
    f.load = seconds() - start;
    if (status == STATUS_OK) {
        double at = seconds();
        status = evaluate(&args, &e, ids, f.n_prompt);
        f.prompt = seconds() - at;
    }
    if (status == STATUS_OK) status = generate(&args, &e, &s, &f);
    if (!args.json && e.session && !args.no_echo) putchar('\n');
    output_flush();
    if (status == STATUS_OK) {
        if (args.json) print_json(&e, &s, &f, prompt, n_text);
        print_summary(&e, &s, &f);
        status = interrupted() ? STATUS_FAILED : engine_print(&args, &e, ids, f.n_prompt, stderr);
    }
    status = engine_close(&e, status);
    vkm_detokenizer_destroy(s.detokenizer);
    free(s.ids);
    free(s.text);
    free(ids);
    free(prompt);
    return status;
}
