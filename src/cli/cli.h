/* The program: what its commands share. Commands are run.c, logits.c, tokenize.c, info.c, tune*.c and bench*.c; commands.c has the table of commands, options.c that of options. */
#ifndef VKM_CLI_H
#define VKM_CLI_H

#include "host/platform.h"

/* What the shell sees. An interrupted command has not done what it was asked to: it failed. */
enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

/* ---------------------------------------------------------------- options.c */

#define ARGS_FILES 16

/* Everything that an option can set; which command takes which option is in the table. */
struct args {
    const char *model, *prompt, *file, *tokens, *output, *kv, *device, *caps;
    int64_t n, ctx, batch, top_k, repeat_last_n, seed;
    double temp, top_p, min_p, repeat_penalty;
    bool ignore_end, special, parse_special, no_special, no_echo, json;
    bool decode, audit, print, profile, validation, no_cache, verbose;
    bool kernels, keys, tensors;
    bool md, csv, quick;
    const char *html, *pp, *tg, *sequences, *shape, *type, *routing;   /* bench: lists are parsed by who uses them */
    int64_t runs, tile, check;                                    /* 0: as many as the budget allows; as the device likes */
    double budget;
    const char *files[ARGS_FILES];                         /* what is no option, for commands that take such */
    int n_files, argc;
    char **argv;                                           /* the whole line */
    bool help;
};

#define DEFAULT_CAPS "fast"      /* of commands that want speed, which is all but logits */

enum {
    CMD_RUN = 1, CMD_LOGITS = 2, CMD_TOKENIZE = 4, CMD_INFO = 8, CMD_ROOFLINE = 16, CMD_LAYER = 32, CMD_MODEL = 64, CMD_COMPARE = 128, CMD_KERNELS = 256,
    CMD_TUNE = 512,
    CMD_GENERATE = CMD_RUN | CMD_LOGITS, CMD_MEASURE = CMD_ROOFLINE | CMD_LAYER | CMD_MODEL, CMD_BENCH = CMD_MEASURE | CMD_COMPARE | CMD_KERNELS, CMD_DEVICE = CMD_GENERATE | CMD_MEASURE | CMD_KERNELS | CMD_TUNE, CMD_ALL = 1023
};
struct command {
    const char *name;                                      /* "run"; "bench model": of the group of commands "bench", whose run is NULL */
    uint32_t bit;
    const char *synopsis, *summary, *details, *examples;
    int (*run)(const struct args *args);
    int min_files, max_files;                              /* arguments that are no options; at most ARGS_FILES */
};
extern const struct command commands[];
extern const size_t n_commands;

/* Fills args from argv and the environment. STATUS_OK, or STATUS_USAGE after saying what is wrong. */
int options_parse(const struct command *command, int argc, char **argv, struct args *args);
void options_help(const struct command *command, FILE *out);

/* ---------------------------------------------------------------- support.c */

/* "vkmoe: message" on stderr; returns STATUS_FAILED. */
int fail(const char *fmt, ...) VKM_PRINTF(1, 2);
int fail_error(const vkm_error *err);
/* The same for a wrong command line, with a hint; command may be NULL. Returns STATUS_USAGE. */
int fail_usage(const char *command, const char *fmt, ...) VKM_PRINTF(2, 3);

double seconds(void);                       /* monotonic */

/* After interrupts_catch the first Ctrl-C (or SIGTERM) only sets a flag, the second ends the program. */
void interrupts_catch(void);
bool interrupted(void);

/* Sends standard output on its way. False once it failed; output_status says so if need be (a reader that went away is no failure of ours). */
bool output_flush(void);
int output_status(int status);

/* Colours: only on a terminal, not under NO_COLOR or TERM=dumb. */
bool is_terminal(FILE *f);
bool has_colour(FILE *f);

/* Whole file, "-": standard input. NUL-terminated, owned by the caller; NULL after saying why. */
char *read_all(const char *path, size_t *n);
/* The prompt that -p or -f asks for, owned by the caller; NULL after saying why. For a person's text a line end at the end of a file is no part of it. */
char *read_prompt(const struct args *args, bool trim, size_t *n);
/* An output file that is there whole or not at all: written aside and renamed. Devices and pipes are written directly. */
struct output { FILE *f; char target[4096], aside[4096 + 32]; };
int output_open(struct output *o, const char *path);
/* Ends it: in place when status is STATUS_OK, else gone. A file that was never opened is left alone. Returns status, or STATUS_FAILED. */
int output_close(struct output *o, const char *path, int status);
/* -m, or the bundled model; NULL after saying where it was looked for. Valid until the next call. */
const char *model_path(const struct args *args);
/* Text to ids, owned by the caller. STATUS_OK or a failure that was reported. */
int tokenize(const vkm_tokenizer *t, const char *text, size_t n_text, uint32_t flags, int32_t **ids, size_t *n);

/* A device, a model in it and a session, as the options say, with a progress bar when it takes long. */
struct engine {
    vkm_device *device;
    vkm_model *model;
    vkm_session *session;
    const vkm_tokenizer *tokenizer;
    vkm_model_info info;
    vkm_device_info device_info;
};
int engine_open(const struct args *args, struct engine *e);
/* engine_open's two halves. cache: where pipelines are kept, NULL: nowhere. */
int engine_device(const struct args *args, const char *cache, struct engine *e);
int engine_model(const struct args *args, struct engine *e);
const char *cache_folder(char *path, size_t size);    /* what is kept by default, tunings among it, is here; NULL: nowhere */
const char *cache_path(char *path, size_t size);      /* where pipelines are */
int engine_session(const struct args *args, uint32_t n_ctx, uint32_t n_seq, struct engine *e);
/* With --print or --profile the programs of the prompt's first pass and of one token. Comes last: it changes the sequence. */
int engine_print(const struct args *args, const struct engine *e, const int32_t *ids, size_t n, FILE *out);
/* Destroys what is there; STATUS_FAILED instead of status when the validation layer complained. */
int engine_close(struct engine *e, int status);

/* ---------------------------------------------------------------- text.c */

/* Writes text whose control characters could command a terminal, made harmless; invalid UTF-8 as U+FFFD. */
void print_clean(FILE *out, const char *text, size_t n);
void print_bytes(FILE *out, uint64_t bytes);          /* "1.23 GiB" */

/* JSON. Keys are NULL inside arrays. Flat containers stay on one line. */
struct json {
    FILE *out;
    uint32_t depth;
    struct { bool flat, any; char close; } level[16];
};
void json_quote(FILE *out, const char *text, size_t n);                         /* the string alone */
void json_open(struct json *j, const char *key, char bracket, bool flat);
void json_close(struct json *j);
void json_str(struct json *j, const char *key, const char *text);
void json_str_n(struct json *j, const char *key, const char *text, size_t n);   /* invalid UTF-8 as U+FFFD */
void json_int(struct json *j, const char *key, int64_t value);
void json_uint(struct json *j, const char *key, uint64_t value);
void json_real(struct json *j, const char *key, double value);                  /* not finite: null */
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);

/* ---------------------------------------------------------------- commands */

int run_command(const struct args *args);
int logits_command(const struct args *args);
int tokenize_command(const struct args *args);
int info_command(const struct args *args);
int tune_command(const struct args *args);
int bench_roofline_command(const struct args *args);
int bench_layer_command(const struct args *args);
int bench_model_command(const struct args *args);
int bench_kernels_command(const struct args *args);
int bench_compare_command(const struct args *args);

#endif
