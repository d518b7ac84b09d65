/* The one table of options: parsing and help are both read from it. */
#include "cli.h"
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum kind { FLAG, TEXT, INTEGER, REAL, CHOICE };

struct option {
    uint32_t commands;
    char letter;               /* 0: none */
    const char *name, *value;  /* "model", "FILE" (NULL for flags; for CHOICE the words between bars) */
    enum kind kind;
    size_t at;                 /* offset in struct args */
    double min, max;
    const char *section, *help;
};

#define AT(field) offsetof(struct args, field)

static const struct option options[] = {
    {CMD_GENERATE | CMD_TOKENIZE | CMD_INFO | CMD_MODEL | CMD_KERNELS, 'm', "model", "FILE", TEXT, AT(model), 0, 0, "Model", "GGUF file, the first part of a split one. Default: $VKMOE_MODEL, else the bundled model"},
    {CMD_GENERATE | CMD_TOKENIZE, 'p', "prompt", "TEXT", TEXT, AT(prompt), 0, 0, "Prompt", "the prompt; - reads standard input"},
    {CMD_GENERATE | CMD_TOKENIZE, 'f', "file", "FILE", TEXT, AT(file), 0, 0, "Prompt", "the prompt is in this file"},
    {CMD_LOGITS, 0, "tokens", "1,2,3", TEXT, AT(tokens), 0, 0, "Prompt", "token ids instead of a prompt; - reads them from standard input"},
    {CMD_GENERATE | CMD_TOKENIZE, 0, "parse-special", NULL, FLAG, AT(parse_special), 0, 0, "Prompt", "control tokens written in the prompt, such as <|im_end|>, become tokens"},
    {CMD_TOKENIZE | CMD_LOGITS, 0, "no-special", NULL, FLAG, AT(no_special), 0, 0, "Prompt", "do not add the begin and end tokens that the model asks for"},

    {CMD_MODEL, 'p', "n-prompt", "N,N", TEXT, AT(pp), 0, 0, "Measurement", "tokens of the prompt, each a test of its own; 0: none. Default: 512"},
    {CMD_MODEL, 'n', "n-gen", "N,N", TEXT, AT(tg), 0, 0, "Measurement", "tokens generated one at a time from an empty context, each a test of its own; 0: none. Default: 128"},
    {CMD_MODEL, 'b', "sequences", "N,N", TEXT, AT(sequences), 0, 0, "Measurement", "sequences that generate together, a token of each a pass; every -n is a test with each of them. Default: 1"},
    {CMD_MODEL, 0, "quick", NULL, FLAG, AT(quick), 0, 0, "Measurement", "leave out the ceilings of the device, and the starts without and with a pipeline cache, which take long on CPU drivers"},
    {CMD_LAYER, 0, "shape", "NAME,..", TEXT, AT(shape), 0, 0, "Measurement", "which models' layers: names as in the table, or all. Default: olmoe-1b-7b"},
    {CMD_LAYER, 0, "type", "T,..", TEXT, AT(type), 0, 0, "Measurement", "types of the expert weights, such as q4_k. Default: q4_k"},
    {CMD_LAYER, 0, "tokens", "N,..", TEXT, AT(tokens), 0, 0, "Measurement", "tokens in the batch. Default: 1,8,64,512"},
    {CMD_LAYER, 0, "routing", "R,..", TEXT, AT(routing), 0, 0, "Measurement", "how tokens choose experts: uniform, zipf. Default: uniform"},
    {CMD_LAYER, 0, "tile", "N", INTEGER, AT(tile), 1, 128, "Measurement", "most tokens of an expert that a workgroup takes together: 1, 4, 8 or 16, up to 128 with cooperative matrices; not all devices have all. Default: as the device is thought to like"},
    {CMD_MEASURE, 'r', "runs", "N", INTEGER, AT(runs), 1, 1000000, "Measurement", "so many runs of each test, instead of until its interval is tight or the budget is used up"},
    {CMD_TUNE, 0, "type", "T,..", TEXT, AT(type), 0, 0, "Measurement", "types of weights, such as q4_k,q6_k; what is known of the others stays. Default: all"},
    {CMD_TUNE, 0, "budget", "SECONDS", REAL, AT(budget), 0.001, 86400, "Measurement", "most time for the runs of one type, after compiling; three runs of each there always are. Default: 3"},
    {CMD_TUNE, 0, "check", "N", INTEGER, AT(check), 1, 100000, "Measurement", "measure nothing new: compare what the tuning chooses with every other way to cut rows, in N random cases"},
    {CMD_TUNE, 's', "seed", "N", INTEGER, AT(seed), 0, UINT32_MAX, "Measurement", "of the random cases. Default: 1"},
    {CMD_MEASURE, 0, "budget", "SECONDS", REAL, AT(budget), 0.001, 86400, "Measurement", "most time for the runs of one test, after its warm-up. Default: 3"},

    {CMD_RUN, 'n', "n-predict", "N", INTEGER, AT(n), -1, INT32_MAX, "Generation", "tokens to generate; -1: until the model ends or the context is full. Default: 128"},
    {CMD_RUN, 0, "ignore-eos", NULL, FLAG, AT(ignore_end), 0, 0, "Generation", "go on after an end-of-text token"},
    {CMD_RUN, 0, "temp", "T", REAL, AT(temp), 0, 1000, "Sampling", "temperature; 0: always the likeliest token. Default: 0.8"},
    {CMD_RUN, 0, "top-k", "K", INTEGER, AT(top_k), 0, INT32_MAX, "Sampling", "only the K likeliest tokens; 0: all. Default: 40"},
    {CMD_RUN, 0, "top-p", "P", REAL, AT(top_p), 0, 1, "Sampling", "only the likeliest tokens that add up to P; 1: all. Default: 0.95"},
    {CMD_RUN, 0, "min-p", "P", REAL, AT(min_p), 0, 1, "Sampling", "no token less likely than P times the likeliest; 0: off. Default: 0.05"},
    {CMD_RUN, 0, "repeat-penalty", "R", REAL, AT(repeat_penalty), 0, 1000, "Sampling", "logits of recent tokens are divided by R (multiplied when negative); 1: off. Default: 1"},
    {CMD_RUN, 0, "repeat-last-n", "N", INTEGER, AT(repeat_last_n), 0, 256, "Sampling", "how many tokens are recent. Default: 64"},
    {CMD_RUN, 's', "seed", "N", INTEGER, AT(seed), -1, UINT32_MAX, "Sampling", "same seed, same text; -1: a random one, which the summary names. Default: -1"},

    {CMD_GENERATE, 'c', "ctx", "N", INTEGER, AT(ctx), 0, INT32_MAX, "Memory", "tokens that the context holds; 0: as many as are needed (logits), the trained context up to 4096 (run). Default: 0"},
    {CMD_GENERATE, 'b', "batch", "N", INTEGER, AT(batch), 0, 65536, "Memory", "most prompt tokens in one pass. Default: 512"},
    {CMD_GENERATE | CMD_MODEL | CMD_KERNELS, 0, "kv", "f16|f32", CHOICE, AT(kv), 0, 0, "Memory", "type of the KV cache. Default: f16; logits: f32"},

    {CMD_LOGITS, 'o', "output", "OUT.npy", TEXT, AT(output), 0, 0, "Output", "where the logits go: f32 [n_tokens][n_vocab], every position"},
    {CMD_LOGITS, 0, "decode", NULL, FLAG, AT(decode), 0, 0, "Output", "feed the tokens one at a time"},
    {CMD_RUN, 0, "special", NULL, FLAG, AT(special), 0, 0, "Output", "show control tokens"},
    {CMD_RUN, 0, "no-echo", NULL, FLAG, AT(no_echo), 0, 0, "Output", "do not print the prompt before the generated text"},
    {CMD_RUN | CMD_TOKENIZE | CMD_INFO | CMD_BENCH | CMD_TUNE, 0, "json", NULL, FLAG, AT(json), 0, 0, "Output", "one JSON object on standard output instead of text"},
    {CMD_BENCH, 0, "md", NULL, FLAG, AT(md), 0, 0, "Output", "Markdown tables on standard output, to be pasted"},
    {CMD_BENCH, 0, "csv", NULL, FLAG, AT(csv), 0, 0, "Output", "CSV on standard output, a line a figure"},
    {CMD_BENCH, 'o', "output", "FILE", TEXT, AT(output), 0, 0, "Output", "a file instead of standard output"},
    {CMD_BENCH, 0, "html", "FILE", TEXT, AT(html), 0, 0, "Output", "also a page with plots, in one file that needs no network"},
    {CMD_INFO, 0, "kernels", NULL, FLAG, AT(kernels), 0, 0, "Output", "the table of kernel variants"},
    {CMD_INFO, 0, "keys", NULL, FLAG, AT(keys), 0, 0, "Output", "every key of the model file"},
    {CMD_INFO, 0, "tensors", NULL, FLAG, AT(tensors), 0, 0, "Output", "every tensor of the model file"},
    {CMD_GENERATE, 0, "print", NULL, FLAG, AT(print), 0, 0, "Output", "print the programs that the device runs: steps, what they read and write, barriers (run: on standard error)"},
    {CMD_GENERATE, 0, "profile", NULL, FLAG, AT(profile), 0, 0, "Output", "the same with the time that each step took on the device"},

    {CMD_DEVICE | CMD_INFO, 0, "device", "N|NAME", TEXT, AT(device), 0, 0, "Device", "number or part of the name, as `vkmoe info` shows them. Default: $VKMOE_DEVICE, else the best"},
    {CMD_DEVICE | CMD_INFO, 0, "caps", "STR", TEXT, AT(caps), 0, 0, "Device", "kernels for less than the device has: baseline or subgroup, limits such as range=1048576; or less exact ones: fp16, int8dot, coopmat. Default: $VKMOE_CAPS, else \"fast\": coopmat on a GPU that has it (logits: the exact ones)"},
    {CMD_GENERATE | CMD_ROOFLINE | CMD_LAYER | CMD_TUNE, 0, "no-cache", NULL, FLAG, AT(no_cache), 0, 0, "Device", "neither read nor write what is kept in $XDG_CACHE_HOME/vkmoe: the pipeline cache, tunings"},
    {CMD_DEVICE, 0, "validation", NULL, FLAG, AT(validation), 0, 0, "Device", "run under the Khronos validation layer; a message from it fails the command"},
    {CMD_LOGITS, 0, "audit", NULL, FLAG, AT(audit), 0, 0, "Device", "check that every step reads and writes only what it declares; slow"},
    {CMD_DEVICE | CMD_INFO, 'v', "verbose", NULL, FLAG, AT(verbose), 0, 0, "Device", "say more on standard error"},
    {CMD_ALL, 'h', "help", NULL, FLAG, AT(help), 0, 0, "Help", "this text"},
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

static const struct option *find_name(uint32_t command, const char *name, size_t n)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].commands & command && strlen(options[i].name) == n && memcmp(options[i].name, name, n) == 0) return &options[i];
    return NULL;
}

static const struct option *find_letter(uint32_t command, char letter)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (options[i].commands & command && options[i].letter && options[i].letter == letter) return &options[i];
    return NULL;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);
    if (strchr(text, '|')) return false;
    for (const char *at = choices; n && (at = strstr(at, text)) != NULL; at++)
        if ((at == choices || at[-1] == '|') && (at[n] == 0 || at[n] == '|')) return true;
    return false;
}

/* Strict: the whole text is one number, without blanks, in range. */
static int set_number(const struct command *c, const struct option *o, const char *text, struct args *args)
{
    char *end = NULL;
    bool starts = (*text >= '0' && *text <= '9') || *text == '-' || *text == '+' || *text == '.';
    errno = 0;
    if (o->kind == INTEGER) {
        long long value = starts ? strtoll(text, &end, 10) : 0;
        if (!starts || end == text || *end) return fail_usage(c->name, "--%s needs a whole number, not '%s'", o->name, text);
        if (errno == ERANGE || (double)value < o->min || (double)value > o->max)
            return fail_usage(c->name, "--%s %s is out of range: %.0f to %.0f", o->name, text, o->min, o->max);
        *(int64_t *)(void *)((char *)args + o->at) = value;
    } else {
        double value = starts ? strtod(text, &end) : 0;
        if (!starts || end == text || *end || !isfinite(value)) return fail_usage(c->name, "--%s needs a number, not '%s'", o->name, text);
        if (value < o->min || value > o->max) return fail_usage(c->name, "--%s %s is out of range: %g to %g", o->name, text, o->min, o->max);
        *(double *)(void *)((char *)args + o->at) = value;
    }
    return STATUS_OK;
}

static int set(const struct command *c, const struct option *o, const char *text, struct args *args)
{
    void *at = (char *)args + o->at;
    switch (o->kind) {
    case FLAG: *(bool *)at = true; return STATUS_OK;
    case CHOICE: if (!is_choice(o->value, text)) return fail_usage(c->name, "--%s is one of %s, not '%s'", o->name, o->value, text);
        /* fall through */
    case TEXT: *(const char **)at = text; return STATUS_OK;
    default: return set_number(c, o, text, args);
    }
}

static int unknown(const struct command *c, const char *text)
{
    const char *name = text;
    while (*name == '-') name++;
    size_t n = strcspn(name, "=");
    for (size_t i = 0; i < n_commands; i++)
        if (n > 1 && find_name(commands[i].bit, name, n)) return fail_usage(c->name, "unknown option '%s': only `vkmoe %s` has it", text, commands[i].name);
    return fail_usage(c->name, "unknown option '%s'", text);
}

int options_parse(const struct command *c, int argc, char **argv, struct args *args)
{
    *args = (struct args){.n = 128, .top_k = 40, .repeat_last_n = 64, .seed = -1, .temp = 0.8, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1, .budget = 3,
                          .device = getenv("VKMOE_DEVICE"), .caps = getenv("VKMOE_CAPS")};
    if (args->device && !*args->device) args->device = NULL;
    if (args->caps && !*args->caps) args->caps = NULL;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i], *value = NULL;
        const struct option *o;
        if (arg[0] != '-' || arg[1] == 0) {
            if (args->n_files == c->max_files) return fail_usage(c->name, "unexpected argument '%s'", arg);
            args->files[args->n_files++] = arg;
            continue;
        }
        if (arg[1] == '-') {                               /* --name VALUE, --name=VALUE */
            size_t n = strcspn(arg + 2, "=");
            o = find_name(c->bit, arg + 2, n);
            if (arg[2 + n] == '=') value = arg + 2 + n + 1;
        } else {                                           /* -x VALUE, -xVALUE */
            o = find_letter(c->bit, arg[1]);
            if (arg[2]) value = arg + 2;
        }
        if (!o) return unknown(c, arg);
        if (o->kind == FLAG) {
            if (value) return fail_usage(c->name, "--%s takes no value", o->name);
        } else if (!value) {
            if (++i == argc) return fail_usage(c->name, "--%s needs a value: %s", o->name, o->value);
            value = argv[i];
        }
        int status = set(c, o, value, args);
        if (status != STATUS_OK) return status;
    }
    if (!args->caps && c->bit & (CMD_RUN | CMD_MEASURE | CMD_KERNELS | CMD_TUNE)) args->caps = DEFAULT_CAPS;
    if (args->n_files < c->min_files) return fail_usage(c->name, "%d files are needed, %d given", c->min_files, args->n_files);
    return STATUS_OK;
}

/* Help text in lines of at most 100 columns, the help of each option from column 27 on. */
static void wrapped(FILE *out, const char *text)
{
    enum { INDENT = 27, WIDTH = 100 };
    size_t column = INDENT;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column + 1 + n > WIDTH) {
            fprintf(out, "\n%*s", INDENT, "");
            column = INDENT;
        } else if (column > INDENT) {
            putc(' ', out);
            column++;
        }
        fwrite(text, 1, n, out);
        column += n;
        text += n + (text[n] == ' ');
    }
    putc('\n', out);
}

void options_help(const struct command *c, FILE *out)
{
    const char *bold = has_colour(out) ? "\033[1m" : "", *plain = *bold ? "\033[0m" : "", *section = "";
    fprintf(out, "%sUsage:%s vkmoe %s %s\n\n%s", bold, plain, c->name, c->synopsis, c->details);
    size_t n = strlen(c->name);
    for (size_t i = 0; i < n_commands && !c->run; i++)
        if (strncmp(commands[i].name, c->name, n) == 0 && commands[i].name[n] == ' ') fprintf(out, "%s  %-10s %s\n", &commands[i] == c + 1 ? "\n" : "", commands[i].name + n + 1, commands[i].summary);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        if (!(o->commands & c->bit)) continue;
        if (strcmp(section, o->section) != 0) fprintf(out, "\n%s%s%s\n", bold, section = o->section, plain);
        char left[64];
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name, o->value ? " " : "", o->value ? o->value : "");
        fprintf(out, "  %-24s ", left);
        wrapped(out, o->help);
    }
    fprintf(out, "\n%sExamples%s\n%s", bold, plain, c->examples);
}
