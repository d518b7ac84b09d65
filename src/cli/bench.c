/* vkmoe bench: the commands of the group, and where their results go. */
#include "bench.h"
#include <stdlib.h>
#include <string.h>

/* Where results go: opened before anything is measured, so that a wrong path costs no time. */
struct outputs { struct output text, html; };

static int outputs_open(struct outputs *o, const struct args *args, const char *command)
{
    *o = (struct outputs){0};
    if (args->json + args->md + args->csv > 1) return fail_usage(command, "--json, --md and --csv exclude each other");
    int status = args->output ? output_open(&o->text, args->output) : STATUS_OK;
    if (status == STATUS_OK && args->html) status = output_open(&o->html, args->html);
    if (status != STATUS_OK) output_close(&o->text, args->output, status);
    return status;
}

/* The files stay when keep says so, even if the command as a whole failed. */
static int outputs_close(struct outputs *o, const struct args *args, bool keep, int status)
{
    int text = output_close(&o->text, args->output, keep ? STATUS_OK : STATUS_FAILED), html = output_close(&o->html, args->html, keep ? STATUS_OK : STATUS_FAILED);
    return status == STATUS_OK && (text != STATUS_OK || html != STATUS_OK) ? STATUS_FAILED : status;
}

static void write_all(const struct outputs *o, const struct args *args, const struct bench_report *report, const struct bench_record *record)
{
    FILE *out = o->text.f ? o->text.f : stdout;
    if (args->json) bench_write_json(out, report, record);
    else if (args->md) bench_write_md(out, report, record);
    else if (args->csv) bench_write_csv(out, report, record);
    else bench_write_text(out, report, record);
    if (o->html.f) bench_write_html(o->html.f, report, record);
}

enum what { ROOFLINE, LAYER, MODEL, KERNELS };

static int measure(const struct bench_options *o, enum what what, struct bench_report *report)
{
    struct engine e = {0};
    char cache[4096];
    if (what == MODEL) return bench_model(o, report);
    if (what == KERNELS) return bench_kernels(o, report);
    int status = engine_device(o->args, o->args->no_cache ? NULL : cache_path(cache, sizeof cache), &e);
    if (status == STATUS_OK) {
        report->device = e.device_info;
        report->caps = *vkm_device_caps(e.device);
        status = what == ROOFLINE ? bench_roofline(o, e.device, report) : bench_layer(o, e.device, report);
    }
    return engine_close(&e, status);
}

static int run(const struct args *args, enum what what, const char *command)
{
    struct bench_options o = {.args = args, .tile = (uint32_t)args->tile, .verbose = args->verbose};
    uint32_t runs = (uint32_t)args->runs;
    o.policy = runs ? (struct bench_policy){.warmups = 1, .min_runs = runs, .max_runs = runs, .max_seconds = 1e9, .tight = BENCH_TIGHT}
                    : (struct bench_policy){.warmups = 1, .min_runs = 6, .max_runs = 1000, .max_seconds = args->budget, .tight = BENCH_TIGHT};
    struct outputs files;
    struct bench_report report = {0};
    struct bench_record record;
    int status = outputs_open(&files, args, command);
    if (status != STATUS_OK) return status;
    bench_verbose(args->verbose);
    bench_record_fill(&record, args->argc, args->argv);
    status = measure(&o, what, &report);
    bench_record_clocks(&record);
    if (status == STATUS_FAILED || interrupted()) report.incomplete = true;
    if (status == STATUS_OK && interrupted()) status = fail("interrupted");
    if (report.failed) status = fail("out of memory");
    bool keep = status == STATUS_OK || (report.n_rows > 0 && !report.failed);
    if (keep) write_all(&files, args, &report, &record);
    bench_report_free(&report);
    return outputs_close(&files, args, keep, status);
}

int bench_roofline_command(const struct args *args) { return run(args, ROOFLINE, "bench roofline"); }
int bench_layer_command(const struct args *args) { return run(args, LAYER, "bench layer"); }
int bench_model_command(const struct args *args) { return run(args, MODEL, "bench model"); }

int bench_compare_command(const struct args *args)
{
    const struct bench_options o = {.args = args, .verbose = args->verbose};
    struct outputs files;
    int status = outputs_open(&files, args, "bench compare");
    if (status != STATUS_OK) return status;
    status = bench_compare(&o, files.text.f ? files.text.f : stdout, files.html.f);
    return outputs_close(&files, args, status == STATUS_OK, status);
}
int bench_kernels_command(const struct args *args) { return run(args, KERNELS, "bench kernels"); }
