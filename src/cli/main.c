/* vkmoe: finds the command that the line names, and runs it. */
#include "cli.h"
#include "system.h"
#include <string.h>

/* The command "word", or "group word". */
static const struct command *find(const struct command *group, const char *word)
{
    size_t n = group ? strlen(group->name) : 0;
    for (size_t i = 0; i < n_commands; i++) {
        const char *name = commands[i].name;
        if (group && (strncmp(name, group->name, n) != 0 || name[n] != ' ')) continue;
        if (strcmp(group ? name + n + 1 : name, word) == 0 && (group || !strchr(name, ' '))) return &commands[i];
    }
    return NULL;
}

static void overview(FILE *out)
{
    const char *bold = has_colour(out) ? "\033[1m" : "", *plain = *bold ? "\033[0m" : "";
    fprintf(out, "vkmoe %s: Mixture-of-Experts models on any Vulkan GPU\n\n%sUsage:%s vkmoe COMMAND [options]\n\n", vkm_version(), bold, plain);
    for (size_t i = 0; i < n_commands; i++)
        if (!strchr(commands[i].name, ' ')) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
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
    int at = help ? 2 : 1;                                 /* of the command's word, then behind its words */
    const struct command *c = find(NULL, argv[at]);
    if (!c) return fail_usage(NULL, "unknown %s '%s'", argv[at][0] == '-' ? "option" : "command", argv[at]);
    if (!c->run && ++at < argc && argv[at][0] != '-') {
        const struct command *group = c;
        c = find(group, argv[at]);
        if (!c) return fail_usage(group->name, "unknown command '%s %s'", group->name, argv[at]);
    }
    if (c->run) at++;
    if (help && at < argc) return fail_usage(NULL, "unexpected argument '%s'", argv[at]);
    for (int i = at; i < argc; i++)                        /* help wins over mistakes elsewhere on the line */
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) help = true;
    if (help) {
        options_help(c, stdout);
        return STATUS_OK;
    }
    if (!c->run && at < argc) return fail_usage(c->name, "unknown option '%s'", argv[at]);
    if (!c->run) {
        options_help(c, stderr);
        return STATUS_USAGE;
    }
    struct args args;
    int status = options_parse(c, argc - at, argv + at, &args);
    args.argc = argc;
    args.argv = argv;
    return status == STATUS_OK ? c->run(&args) : status;
}

int main(int argc, char **argv)
{
    system_start();
    return output_status(dispatch(argc, argv));
}
