/* vkmoe bench: what its parts share. bench.c runs the subcommands and holds the options; bench_stat.c measures; bench_report.c keeps results and writes table, Markdown, CSV, JSON;
 * bench_html.c draws the page; bench_compare.c reads reports again; bench_roofline.c, bench_layer.c and bench_model.c measure things and add rows. */
#ifndef VKM_CLI_BENCH_H
#define VKM_CLI_BENCH_H

#include "cli.h"
#include "host/program.h"
#include "json_read.h"

/* ---------------------------------------------------------------- bench_stat.c */

/* A quantity over repeated runs. drift: median of the last third of the runs over that of the first third, minus 1; 0 for fewer than 6 runs.
 * tight: the interval rule of bench_policy held (bench_stat_of: within BENCH_TIGHT). */
#define BENCH_TIGHT 0.02
struct bench_stat { uint32_t n; double median, p10, p90, drift; bool tight; };

/* When to stop repeating: after at least min_runs and once the 95 % confidence interval of the median (order statistics) is within `tight` of it, or when the time is used up,
 * which counts from the first run after the warm-ups and is looked at after each run: one run there always is. */
struct bench_policy { uint32_t warmups, min_runs, max_runs; double max_seconds, tight; };

/* One run; *gpu_seconds is NAN where the device has no timestamps. */
typedef vkm_result (*bench_run)(void *user, double *gpu_seconds, vkm_error *err);

/* Wall and GPU seconds of a run; gpu->n is 0 without timestamps. VKM_ERR_CANCELLED after Ctrl-C. */
vkm_result bench_measure(const struct bench_policy *policy, bench_run run, void *user, struct bench_stat *wall, struct bench_stat *gpu, vkm_error *err);
/* Names what comes next, for the line of progress on stderr that bench_measure shows once it takes over a second. */
void bench_say(const char *fmt, ...) VKM_PRINTF(1, 2);
void bench_verbose(bool on);            /* instead a line at once for each */
void bench_draw(uint32_t runs);         /* what bench_measure does after each run, for others that repeat something; and when it is over: */
void bench_wipe(void);
/* From values in the order of the runs; sorts a copy. */
struct bench_stat bench_stat_of(const double *values, uint32_t n);

/* ---------------------------------------------------------------- bench_report.c */

/* A figure of a row. Not a number: `why` says what is wrong with it ("device lost", "above the ceiling"), and nothing prints it as a number. */
struct bench_figure {
    const char *name, *unit;       /* static: "read", "GB/s" */
    double value, p10, p90;        /* p10 = p90 = value: counted, not measured */
    int better;                    /* +1: higher is better, -1: lower, 0: neither */
    const char *why;               /* static; NULL: valid */
    uint32_t runs;                 /* 0: counted, not measured */
    double drift;
    bool tight;
};
#define BENCH_FIGURES 20

/* One line of a report. The key tells it from all others and is what `compare` matches: "shape=olmoe-1b-7b type=q4_k tokens=16 routing=uniform step=moe_down". */
struct bench_row {
    const char *section;           /* "roofline", "layer", "step", "model" */
    char key[192];
    uint32_t n_figures;
    struct bench_figure figures[BENCH_FIGURES];
};

struct bench_report {
    vkm_device_info device;
    struct vkm_caps caps;
    struct bench_row *rows;
    uint32_t n_rows, capacity;
    bool failed;                   /* something could not be kept: out of memory */
    bool incomplete;               /* Ctrl-C, a lost device: what is there was measured, the rest is missing */
    struct bench_note { char key[192], text[256]; } *notes;
    uint32_t n_notes, note_capacity;
};

/* A row of this section and key, valid until the next call; never NULL (out of memory: a scratch row, and failed is set). */
struct bench_row *bench_row_add(struct bench_report *report, const char *section, const char *key_fmt, ...) VKM_PRINTF(3, 4);
/* A measured figure: per_run / seconds, e.g. bytes / 1e9 a run for GB/s; p10 and p90 follow the seconds' p90 and p10. */
void bench_rate(struct bench_row *row, const char *name, const char *unit, double per_run, const struct bench_stat *seconds);
void bench_time(struct bench_row *row, const char *name, const struct bench_stat *seconds);                /* microseconds, lower is better */
void bench_count(struct bench_row *row, const char *name, const char *unit, double value, int better);      /* counted or derived, no spread */
void bench_invalid(struct bench_row *row, const char *name, const char *unit, const char *why);
/* Something to keep that is no figure: "model", "logits_hash test=pp512". Replaces a note of the same key. */
void bench_note(struct bench_report *report, const char *key, const char *fmt, ...) VKM_PRINTF(3, 4);
/* The figure of that name of the first row of this section whose key starts so; NAN if there is none or it is invalid. How ceilings are looked up. */
double bench_find(const struct bench_report *report, const char *section, const char *key_prefix, const char *figure);

void bench_report_free(struct bench_report *report);

/* ---------------------------------------------------------------- bench_table.c: rows of one section that have the same parts in their keys, as a table */

#define BENCH_KEY_PARTS 8
struct bench_column { const char *name, *of; char unit[16]; double scale; };    /* a figure of this name and unit `of`, times scale, is in `unit`: "us" may be shown as "ms" */
struct bench_table {
    const char *section;
    uint32_t n_parts, n_columns, n_rows;
    char parts[BENCH_KEY_PARTS][24];               /* names of the key's parts: "shape", "tokens" */
    struct bench_column columns[2 * BENCH_FIGURES];
    const struct bench_row **rows;                 /* borrowed from the report */
    bool measured;                                 /* some figure is: there is a spread to show */
};
int bench_section_rank(const char *section);      /* the order in which sections are shown */
/* The unit in which a figure whose largest value is this is shown, and what to multiply by: times, bytes and operations stay below 10,000. */
void bench_unit(struct bench_column *column, const char *unit, double largest);
/* All rows, by section and otherwise in the order of the report; *n tables, owned by the caller. NULL: out of memory. */
struct bench_table *bench_tables(const struct bench_report *report, uint32_t *n);
void bench_tables_free(struct bench_table *tables, uint32_t n);
/* What stands in a table. part: the value of that part of the key, "" without. */
void bench_part(const struct bench_row *row, const char *part, char *text, size_t size);
void bench_cell(const struct bench_column *column, const struct bench_row *row, char *text, size_t size);       /* "932.6", "invalid: device lost", "" */
/* The widest spread of a row's measured figures, (p90 - p10) / 2 of the median: "1.2 %", "one run", with "~" when the interval did not get tight and "!" when there was drift. */
void bench_spread(const struct bench_row *row, char *text, size_t size);
bool bench_drifts(const struct bench_figure *f);   /* by more than 5 % and more than the spread */
void bench_number(double value, char *text, size_t size);                                                       /* four digits that matter */
const struct bench_figure *bench_figure_find(const struct bench_row *row, const char *name);

/* ---------------------------------------------------------------- bench_record.c */

/* Where and when this was measured: what no figure says. Unknown is "unknown". */
struct bench_record {
    char version[32], commit[64], date[32], command[1024];
    char os[320], machine[64], cpu[128], cpus[16], memory[32];
    char cpu_clock[64], gpu_clock[64], temperature[64];
};
void bench_record_fill(struct bench_record *record, int argc, char **argv);
/* Clocks and temperature now; where they differ from what stands there: "2.10 GHz to 2.80 GHz". */
void bench_record_clocks(struct bench_record *record);

/* ---------------------------------------------------------------- bench_write.c, bench_html.c: a report as a person or a program wants it */

#define BENCH_SCHEMA "vkmoe-bench"
#define BENCH_SCHEMA_VERSION 1
const char *bench_title(const char *section);      /* "The MoE layer" */
const char *bench_tier(const struct vkm_caps *caps, char text[64]);   /* "baseline" */
void bench_write_text(FILE *out, const struct bench_report *report, const struct bench_record *record);
void bench_write_md(FILE *out, const struct bench_report *report, const struct bench_record *record);
void bench_write_csv(FILE *out, const struct bench_report *report, const struct bench_record *record);
void bench_write_json(FILE *out, const struct bench_report *report, const struct bench_record *record);
void bench_write_html(FILE *out, const struct bench_report *report, const struct bench_record *record);

/* Parts of pages, also of compare's. Text is escaped. */
void bench_html_text(FILE *out, const char *text);
void bench_html_begin(FILE *out, const char *title);       /* up to the page's first heading */
void bench_html_end(FILE *out);

/* ---------------------------------------------------------------- bench_read.c */

#define BENCH_FILE_MAX (64u << 20)
/* A report that was read; names, units and reasons point into doc. device has name, driver and caps, record what tells runs apart. */
struct bench_file {
    struct bench_report report;
    struct bench_record record;
    char tier[64];
    struct json_doc doc;
    const struct bench_row **sorted;       /* by section and key, which are unique */
};
vkm_result bench_read(const char *text, size_t n, struct bench_file *file, vkm_error *err);
void bench_file_free(struct bench_file *file);
const struct bench_row *bench_file_row(const struct bench_file *file, const struct bench_row *like);       /* of the same section and key; NULL: none */

/* ---------------------------------------------------------------- the subcommands. Each adds rows; STATUS_OK or a failure that was reported. */

struct bench_options {
    const struct args *args;
    struct bench_policy policy;
    uint32_t tile, most_layers;        /* bench_layer_shape: most tokens of a tile, layers of a program; 0: as vkm_shape_choose says; as many as are beyond any cache */
    uint32_t most_shapes;              /* bench_roofline: most ways to try for each ceiling; 0: all */
    bool verbose;
};
int bench_roofline(const struct bench_options *o, vkm_device *device, struct bench_report *report);
int bench_layer(const struct bench_options *o, vkm_device *device, struct bench_report *report);
int bench_kernels(const struct bench_options *o, struct bench_report *report);   /* opens its own device, without a pipeline cache */
int bench_model(const struct bench_options *o, struct bench_report *report);     /* opens devices of its own, with and without a pipeline cache */
/* Compares the reports args->files as the options say; html may be NULL. */
int bench_compare(const struct bench_options *o, FILE *out, FILE *html);

/* Measures the ceilings that shares of a ceiling refer to, unless the report has them: bench_roofline.c. */
vkm_result bench_ceilings(const struct bench_options *o, vkm_device *device, struct bench_report *report, vkm_error *err);
/* Ceilings that shares of a ceiling refer to: keys of roofline rows. bench_layer measures those that it needs when they are not there yet. */
#define BENCH_CEILING_READ "kind=read"         /* figure "rate", GB/s */
#define BENCH_CEILING_CACHED "kind=cached-read"
#define BENCH_CEILING_COPY "kind=copy"
#define BENCH_CEILING_F32  "kind=fma type=f32" /* figure "rate", GFLOP/s */
#define BENCH_CEILING_F16  "kind=fma type=f16"
#define BENCH_CEILING_INT8 "kind=dot type=int8"   /* GOP/s */
#define BENCH_CEILING_MATRIX "kind=matrix type=%s to=%s tile=%ux%ux%u"   /* of a vkm_matrix; GFLOP/s or GOP/s */
/* The highest of those of arithmetic that the report has for the tiers in use, in figure "rate" or "by ..."; NAN: none. */
double bench_arithmetic(const struct bench_report *report, const char *figure);

#endif
