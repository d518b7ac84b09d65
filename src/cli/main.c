/* vkmoe: the commands, and what is said about them. */
#include "cli.h"
#include <signal.h>
#include <string.h>

const struct command commands[] = {
    {"run", CMD_RUN, "[-m FILE] -p TEXT [options]", "generate text",
     "Continues a prompt and streams the text to standard output; a summary with the speed goes to standard error.\n"
     "Ctrl-C stops after the current token (exit status 1), a second one at once.\n",
     "  vkmoe run -p \"The storm kept everyone inside that night.\"\n"
     "  vkmoe run -m olmoe-1b-7b.gguf -p \"Once upon a time\" -n 200 --temp 0.7 --seed 1\n"
     "  git log -1 | vkmoe run -m model.gguf -p - --temp 0\n", run_command},
    {"logits", CMD_LOGITS, "[-m FILE] (--tokens 1,2,3 | -p TEXT) -o OUT.npy [options]", "write the logits of every position",
     "Evaluates tokens and writes the logits of every position as a NumPy file, f32 [n_tokens][n_vocab].\n"
     "The file appears only when it is complete.\n",
     "  vkmoe logits -m model.gguf --tokens 1,415,2936 -o logits.npy\n"
     "  vkmoe logits -m model.gguf -p \"The cat\" --decode --kv f16 --caps baseline -o logits.npy\n"
     "  vkmoe logits -m model.gguf -p \"The cat\" --profile\n", logits_command},
    {"tokenize", CMD_TOKENIZE, "[-m FILE] -p TEXT [options]", "turn text into token ids",
     "Prints the token ids of a text and the piece of text of each; needs no device.\n",
     "  vkmoe tokenize -m model.gguf -p \"Hello world\"\n"
     "  vkmoe tokenize -m model.gguf -p - --json < book.txt\n", tokenize_command},
    {"info", CMD_INFO, "[-m FILE] [--kernels] [--json]", "describe devices, a model file, the kernels",
     "Shows the Vulkan devices and what vkmoe uses of them; with -m what is in a model file; with --kernels the kernel variants\n"
     "of this build and which of them the device can run.\n",
     "  vkmoe info\n"
     "  vkmoe info -m model.gguf --tensors\n"
     "  vkmoe info --kernels --device 0 --caps baseline\n", info_command},
};
const size_t n_commands = sizeof commands / sizeof commands[0];

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < n_commands; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void overview(FILE *out)
{
    const char *bold = has_colour(out) ? "\033[1m" : "", *plain = *bold ? "\033[0m" : "";
    fprintf(out, "vkmoe %s: Mixture-of-Experts models on any Vulkan GPU\n\n%sUsage:%s vkmoe COMMAND [options]\n\n", vkm_version(), bold, plain);
    for (size_t i = 0; i < n_commands; i++) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\n`vkmoe COMMAND --help` explains a command and shows examples. Without -m the bundled model is used.\n"
                 "Environment: VKMOE_MODEL, VKMOE_DEVICE and VKMOE_CAPS are defaults for -m, --device and --caps; NO_COLOR is respected.\n"
                 "Exit status: 0 ok, 2 wrong usage, 1 anything else, an interrupt too.\n");
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        overview(stderr);
        return STATUS_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        printf("vkmoe %s\n", vkm_version());
        return STATUS_OK;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || (strcmp(word, "help") == 0 && argc == 2)) {
        overview(stdout);
        return STATUS_OK;
    }
    bool help = strcmp(word, "help") == 0;
    const struct command *c = find(help ? argv[2] : word);
    if (!c) return fail_usage(NULL, "unknown %s '%s'", word[0] == '-' ? "option" : "command", help ? argv[2] : word);
    struct args args = {.help = help};
    if (help && argc > 3) return fail_usage(NULL, "unexpected argument '%s'", argv[3]);
    for (int i = 2; i < argc; i++)                         /* help wins over mistakes elsewhere on the line */
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) args.help = true;
    if (args.help) {
        options_help(c, stdout);
        return STATUS_OK;
    }
    int status = options_parse(c, argc - 2, argv + 2, &args);
    return status == STATUS_OK ? c->run(&args) : status;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);                              /* a closed pipe is seen as EPIPE, so that devices are closed in order */
    return output_status(dispatch(argc, argv));
}
