/* Errors, signals, files, and opening what commands need. */
#include "cli.h"
#include "system.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int fail(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    fputs("vkmoe: ", stderr);
    vfprintf(stderr, fmt, list);
    putc('\n', stderr);
    va_end(list);
    return STATUS_FAILED;
}

int fail_error(const vkm_error *err)
{
    return fail("%s", err->message[0] ? err->message : vkm_result_text(err->code));
}

int fail_usage(const char *command, const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    fputs("vkmoe: ", stderr);
    vfprintf(stderr, fmt, list);
    fprintf(stderr, " (see `vkmoe%s%s --help`)\n", command ? " " : "", command ? command : "");
    va_end(list);
    return STATUS_USAGE;
}

double seconds(void) { return 1e-9 * (double)vkm_now_ns(); }

static volatile sig_atomic_t caught;
static void on_signal(int number) { caught = number; }

void interrupts_catch(void) { system_on_interrupt(on_signal); }

bool interrupted(void) { return caught != 0; }

static int output_errno;

bool output_flush(void)
{
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && !output_errno) {
        /* a write in the middle of printing leaves no errno; pipes fail in one way only */
        output_errno = errno ? errno : system_is_pipe(stdout) ? EPIPE : EIO;
    }
    return output_errno == 0;
}

int output_status(int status)
{
    if (output_flush() || output_errno == EPIPE || status != STATUS_OK) return status;
    return fail("standard output: %s", strerror(output_errno));
}

bool is_terminal(FILE *f) { return system_is_terminal(f); }

bool has_colour(FILE *f)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return is_terminal(f) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

/* ---------------------------------------------------------------- files and text */

char *read_all(const char *path, size_t *n)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : vkm_file_open(path, "rb");
    if (!f) {
        fail("%s: %s", path, strerror(errno));
        return NULL;
    }
    size_t used = 0, room = 1 << 16;
    char *text = malloc(room);
    while (text) {
        used += fread(text + used, 1, room - 1 - used, f);
        if (used < room - 1) break;
        char *more = realloc(text, room *= 2);
        if (!more) free(text);
        text = more;
    }
    if (!text) fail("%s: out of memory", path);
    else if (ferror(f)) {
        fail("%s: %s", standard ? "standard input" : path, strerror(errno));
        free(text);
        text = NULL;
    } else {
        text[used] = 0;
        *n = used;
    }
    if (!standard) fclose(f);
    return text;
}

char *read_prompt(const struct args *args, bool trim, size_t *n)
{
    char *text;
    if (args->prompt && strcmp(args->prompt, "-") != 0) {
        text = strdup(args->prompt);
        if (!text) fail("out of memory");
        else *n = strlen(text);
        return text;
    }
    text = read_all(args->prompt ? "-" : args->file, n);
    if (text && trim && *n && text[*n - 1] == '\n') text[--*n] = 0;
    return text;
}

const char *model_path(const struct args *args)
{
    static char path[4096];
    const char *name = "tavern-qwen3moe.gguf", *named = args->model ? args->model : getenv("VKMOE_MODEL");
    if (named && *named) return named;
    char self[2048] = "";
    bool moved = system_program_folder(self, sizeof self);
    /* where it was built, where it was installed, and an installation that was moved */
    snprintf(path, sizeof path, "%s/examples/model/%s", VKMOE_SOURCE_DIR, name);
    if (system_file_kind(path) == SYSTEM_REGULAR) return path;
    snprintf(path, sizeof path, "%s/%s", VKMOE_DATA_DIR, name);
    if (system_file_kind(path) == SYSTEM_REGULAR) return path;
    snprintf(path, sizeof path, "%s/../share/vkmoe/%s", self, name);
    if (moved && system_file_kind(path) == SYSTEM_REGULAR) return path;
    fail("the bundled model is neither in %s/examples/model nor in %s: name a GGUF file with -m FILE", VKMOE_SOURCE_DIR, VKMOE_DATA_DIR);
    return NULL;
}

int tokenize(const vkm_tokenizer *t, const char *text, size_t n_text, uint32_t flags, int32_t **ids, size_t *n)
{
    vkm_error err = {0};
    size_t room = n_text / 2 + 16, need = room;            /* one pass over the text is enough for nearly all text */
    int32_t *list = malloc(room * sizeof *list);
    if (!list) return fail("out of memory");
    if (vkm_tokenize(t, text, n_text, flags, list, &need, &err) != VKM_OK) goto failed;
    if (need > room) {
        free(list);
        room = need;
        list = malloc(room * sizeof *list);
        if (!list) return fail("out of memory");
        if (vkm_tokenize(t, text, n_text, flags, list, &need, &err) != VKM_OK) goto failed;
    }
    *ids = list;
    *n = need;
    return STATUS_OK;
failed:
    free(list);
    return fail_error(&err);
}

/* ---------------------------------------------------------------- device, model, session */

static void on_log(void *user, vkm_log_level level, const char *text)
{
    const struct args *args = user;
    if (level <= VKM_LOG_WARN || args->verbose) fprintf(stderr, "vkmoe: %s\n", text);
}

/* A bar on a terminal, once loading has taken a second. */
struct bar { double start, drawn; bool on; };

static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct bar *bar = user;
    double now = seconds();
    if (bar->on && now - bar->start > 1 && now - bar->drawn > 0.1) {
        enum { CELLS = 32 };
        double share = total ? (double)done / (double)total : 0;
        int filled = (int)(share * CELLS);
        fprintf(stderr, "\rloading [%.*s%*s] %3.0f %% of ", filled, "################################", CELLS - filled, "", floor(100 * share));
        print_bytes(stderr, total);
        fputs("  ", stderr);
        bar->drawn = now;
    }
    return !interrupted();
}

const char *cache_folder(char *path, size_t size)
{
    if (!system_cache_folder(path, size) || strlen(path) + 32 > size) return NULL;
    vkm_directory_make(strcat(path, "/vkmoe"));
    return path;
}

const char *cache_path(char *path, size_t size) { return cache_folder(path, size) ? strcat(path, "/pipelines.bin") : NULL; }

int engine_device(const struct args *args, const char *cache, struct engine *e)
{
    vkm_error err = {0};
    vkm_device_params device = {.struct_size = sizeof device, .select = args->device, .caps = args->caps, .cache_path = cache, .validation = args->validation,
                                .log = on_log, .log_user = (void *)args};
    *e = (struct engine){0};
    interrupts_catch();
    if (vkm_device_create(&device, &e->device, &err) != VKM_OK) return fail_error(&err);
    vkm_device_get_info(e->device, &e->device_info);
    return STATUS_OK;
}

int engine_model(const struct args *args, struct engine *e)
{
    vkm_error err = {0};
    const char *path = model_path(args);
    if (!path) return STATUS_FAILED;
    struct bar bar = {.start = seconds(), .on = is_terminal(stderr)};
    vkm_model_params model = {.struct_size = sizeof model, .progress = on_progress, .progress_user = &bar};
    vkm_result r = vkm_model_load(e->device, path, &model, &e->model, &err);
    if (bar.drawn) fprintf(stderr, "\r%*s\r", 64, "");
    if (r != VKM_OK) return r == VKM_ERR_CANCELLED ? fail("interrupted") : fail_error(&err);
    vkm_model_get_info(e->model, &e->info);
    e->tokenizer = vkm_model_tokenizer(e->model);
    return STATUS_OK;
}

int engine_open(const struct args *args, struct engine *e)
{
    char cache[4096];
    *e = (struct engine){0};
    if (!model_path(args)) return STATUS_FAILED;
    int status = engine_device(args, args->no_cache ? NULL : cache_path(cache, sizeof cache), e);
    return status == STATUS_OK ? engine_model(args, e) : status;
}

int engine_session(const struct args *args, uint32_t n_ctx, uint32_t n_seq, struct engine *e)
{
    vkm_error err = {0};
    char folder[4096];
    vkm_session_params session = {.struct_size = sizeof session, .tuning_folder = args->no_cache ? NULL : cache_folder(folder, sizeof folder), .n_ctx = n_ctx, .n_batch = (uint32_t)args->batch, .n_seq = n_seq, .audit = args->audit, .profile = args->profile,
                                  .kv_type = strcmp(args->kv, "f32") == 0 ? VKM_KV_F32 : VKM_KV_F16};
    if (vkm_session_create(e->model, &session, &e->session, &err) != VKM_OK) return fail_error(&err);
    return STATUS_OK;
}

static void print_program(const struct engine *e, uint32_t n, bool decode, FILE *out)
{
    size_t size = vkm_session_print(e->session, n, decode, NULL, 0) + 1;
    char *text = malloc(size);
    if (text) {
        vkm_session_print(e->session, n, decode, text, size);
        fputs(text, out);
    }
    free(text);
}

int engine_print(const struct args *args, const struct engine *e, const int32_t *ids, size_t n, FILE *out)
{
    vkm_error err = {0};
    size_t batch = args->batch ? (size_t)args->batch : 512;
    if (!args->print && !args->profile) return STATUS_OK;
    if (n > batch) n = batch;
    if (args->profile) {                                   /* times are those of the last run: of the prompt, then of a token after it */
        uint32_t keep = n > 1 ? (uint32_t)n - 1 : 1;       /* what is rewound begins with a pass */
        vkm_generation two = {.struct_size = sizeof two, .ignore_end = true, .n_tokens = 2};
        if (vkm_session_rewind(e->session, 0, 0, &err) != VKM_OK || vkm_session_eval(e->session, 0, ids, n, NULL, &err) != VKM_OK
            || vkm_session_rewind(e->session, 0, keep, &err) != VKM_OK || vkm_session_generate(e->session, &two, 1, NULL, NULL, &err) != VKM_OK) return fail_error(&err);
    }
    print_program(e, (uint32_t)n, false, out);
    print_program(e, 1, true, out);
    return STATUS_OK;
}

int engine_close(struct engine *e, int status)
{
    uint32_t messages = e->device ? vkm_device_validation_count(e->device) : 0;
    vkm_session_destroy(e->session);
    vkm_model_destroy(e->model);
    vkm_device_destroy(e->device);
    *e = (struct engine){0};
    return messages && status == STATUS_OK ? fail("%u validation messages", messages) : status;
}
