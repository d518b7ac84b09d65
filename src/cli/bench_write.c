/* A report for a terminal, as Markdown, CSV and JSON. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const titles[][2] = {
    {"roofline", "What the device can do"}, {"layer", "The MoE layer"}, {"model", "The model"}, {"step", "Where the time goes, by kernel step"},
    {"kernel", "What the driver's compiler made of the kernels"}};

const char *bench_title(const char *section)
{
    for (size_t i = 0; i < VKM_COUNT(titles); i++)
        if (strcmp(titles[i][0], section) == 0) return titles[i][1];
    return section;
}

const char *bench_tier(const struct vkm_caps *caps, char text[64])
{
    vkm_caps_tiers(caps, &(vkm_text){text, 64, 0});
    return text;
}

static void device_line(char *text, size_t size, const struct bench_report *report, const struct bench_record *record)
{
    const vkm_device_info *d = &report->device;
    snprintf(text, size, "%s; %s; vkmoe %s (%s); %s", d->name, d->driver, record->version, record->commit, record->date);
}

/* ---------------------------------------------------------------- text and Markdown: the same grid, told apart by how cells are set */

enum { CELL = 96 };

static uint32_t grid_columns(const struct bench_table *t) { return t->n_parts + t->n_columns + t->measured; }

static void head_cell(const struct bench_table *t, uint32_t c, char *text, size_t size)
{
    if (c < t->n_parts) { snprintf(text, size, "%s", t->parts[c]); return; }
    c -= t->n_parts;
    if (c < t->n_columns) snprintf(text, size, "%s%s%s", t->columns[c].name, t->columns[c].unit[0] ? " " : "", t->columns[c].unit);
    else snprintf(text, size, "spread");
}

static void body_cell(const struct bench_table *t, uint32_t row, uint32_t c, char *text, size_t size)
{
    if (c < t->n_parts) { bench_part(t->rows[row], t->parts[c], text, size); return; }
    c -= t->n_parts;
    if (c < t->n_columns) bench_cell(&t->columns[c], t->rows[row], text, size);
    else bench_spread(t->rows[row], text, size);
}

static void text_table(FILE *out, const struct bench_table *t)
{
    char text[CELL];
    const char *dim = has_colour(out) ? "\033[2m" : "", *plain = *dim ? "\033[0m" : "";
    size_t *width = calloc(grid_columns(t), sizeof *width);
    if (!width) return;
    for (uint32_t c = 0; c < grid_columns(t); c++) {
        head_cell(t, c, text, sizeof text);
        width[c] = strlen(text);
        for (uint32_t r = 0; r < t->n_rows; r++) {
            body_cell(t, r, c, text, sizeof text);
            if (strlen(text) > width[c]) width[c] = strlen(text);
        }
    }
    fputs(dim, out);
    for (uint32_t c = 0; c < grid_columns(t); c++) {
        head_cell(t, c, text, sizeof text);
        fprintf(out, c < t->n_parts ? "  %-*s" : "  %*s", (int)width[c], text);
    }
    fprintf(out, "%s\n", plain);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        for (uint32_t c = 0; c < grid_columns(t); c++) {
            body_cell(t, r, c, text, sizeof text);
            fprintf(out, c < t->n_parts ? "  %-*s" : "  %*s", (int)width[c], text);
        }
        putc('\n', out);
    }
    free(width);
}

static void md_cell(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|' || *text == '\\') putc('\\', out);
        putc(*text, out);
    }
}

static void md_table(FILE *out, const struct bench_table *t)
{
    char text[CELL];
    for (uint32_t c = 0; c < grid_columns(t); c++) {
        head_cell(t, c, text, sizeof text);
        fputs(c ? " | " : "| ", out);
        md_cell(out, text);
    }
    fputs(" |\n", out);
    for (uint32_t c = 0; c < grid_columns(t); c++) fputs(c < t->n_parts ? "|---" : "|---:", out);
    fputs("|\n", out);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        for (uint32_t c = 0; c < grid_columns(t); c++) {
            body_cell(t, r, c, text, sizeof text);
            fputs(c ? " | " : "| ", out);
            md_cell(out, text);
        }
        fputs(" |\n", out);
    }
}

/* What the marks in the column of spreads mean, if there are any. */
static void legend(FILE *out, const struct bench_report *report)
{
    bool loose = false, drifts = false;
    for (uint32_t i = 0; i < report->n_rows; i++)
        for (uint32_t k = 0; k < report->rows[i].n_figures; k++) {
            const struct bench_figure *f = &report->rows[i].figures[k];
            if (f->runs > 1 && !f->why && !f->tight) loose = true;
            if (f->runs && bench_drifts(f)) drifts = true;
        }
    if (loose) fprintf(out, "~ the time was used up before the 95 %% interval of the median was within %.0f %%\n", 100 * BENCH_TIGHT);
    if (drifts) fprintf(out, "! drift: the last third of the runs differs from the first by more than 5 %%\n");
}

static void write_grids(FILE *out, const struct bench_report *report, bool md)
{
    uint32_t n;
    const char *bold = has_colour(out) && !md ? "\033[1m" : "", *plain = *bold ? "\033[0m" : "", *section = "";
    struct bench_table *tables = bench_tables(report, &n);
    if (!tables) { fprintf(out, "out of memory\n"); return; }
    for (uint32_t i = 0; i < n; i++) {
        if (!md && strcmp(section, tables[i].section) != 0) fprintf(out, "\n%s%s%s\n", bold, bench_title(tables[i].section), plain);
        else putc('\n', out);
        section = tables[i].section;
        if (md) md_table(out, &tables[i]);
        else text_table(out, &tables[i]);
    }
    bench_tables_free(tables, n);
}

void bench_write_text(FILE *out, const struct bench_report *report, const struct bench_record *record)
{
    char line[768];
    device_line(line, sizeof line, report, record);
    print_clean(out, line, strlen(line));
    putc('\n', out);
    for (uint32_t i = 0; i < report->n_notes; i++) {
        fprintf(out, "%s: ", report->notes[i].key);
        print_clean(out, report->notes[i].text, strlen(report->notes[i].text));
        putc('\n', out);
    }
    write_grids(out, report, false);
    putc('\n', out);
    legend(out, report);
    if (report->incomplete) fprintf(out, "INCOMPLETE: the run was stopped; what is missing was not measured.\n");
}

void bench_write_md(FILE *out, const struct bench_report *report, const struct bench_record *record)
{
    char line[768];
    device_line(line, sizeof line, report, record);
    print_clean(out, line, strlen(line));
    fprintf(out, "%s\n", report->incomplete ? "; INCOMPLETE" : "");
    write_grids(out, report, true);
}

/* ---------------------------------------------------------------- CSV: a line a figure, each with all that tells it from others, so that files can be joined */

static void csv_text(FILE *out, const char *text)
{
    putc('"', out);
    for (; *text; text++) {
        if (*text == '"') putc('"', out);
        putc((unsigned char)*text < ' ' ? ' ' : *text, out);
    }
    putc('"', out);
}

void bench_write_csv(FILE *out, const struct bench_report *report, const struct bench_record *record)
{
    fprintf(out, "device,driver,version,commit,date,complete,section,key,figure,unit,value,p10,p90,runs,drift,tight,invalid\n");
    for (uint32_t i = 0; i < report->n_rows; i++)
        for (uint32_t k = 0; k < report->rows[i].n_figures; k++) {
            const struct bench_row *row = &report->rows[i];
            const struct bench_figure *f = &row->figures[k];
            const char *const before[] = {report->device.name, report->device.driver, record->version, record->commit, record->date, report->incomplete ? "no" : "yes",
                                          row->section, row->key, f->name, f->unit};
            for (size_t c = 0; c < VKM_COUNT(before); c++) {
                csv_text(out, before[c]);
                putc(',', out);
            }
            if (f->why) fputs(",,,", out);
            else fprintf(out, "%.9g,%.9g,%.9g,", f->value, f->p10, f->p90);
            if (f->why || f->runs == 0) fputs(",,,", out);
            else fprintf(out, "%u,%.4g,%s,", f->runs, f->drift, f->tight ? "yes" : "no");
            csv_text(out, f->why ? f->why : "");
            putc('\n', out);
        }
}

/* ---------------------------------------------------------------- JSON: everything */

static void json_figure(struct json *j, const struct bench_figure *f)
{
    json_open(j, NULL, '{', true);
    json_str(j, "name", f->name);
    json_str(j, "unit", f->unit);
    json_int(j, "better", f->better);
    if (f->why) {
        json_str(j, "invalid", f->why);
    } else {
        json_real(j, "value", f->value);
        if (f->runs) {
            json_real(j, "p10", f->p10);
            json_real(j, "p90", f->p90);
            json_uint(j, "runs", f->runs);
            json_real(j, "drift", f->drift);
            json_bool(j, "tight", f->tight);
        }
    }
    json_close(j);
}

static void json_device(struct json *j, const struct bench_report *report)
{
    const vkm_device_info *d = &report->device;
    char api[48];
    snprintf(api, sizeof api, "%u.%u.%u", d->api_major, d->api_minor, d->api_patch);
    json_open(j, "device", '{', false);
    json_str(j, "name", d->name);
    json_str(j, "type", d->type ? d->type : "unknown");
    json_str(j, "driver", d->driver);
    json_str(j, "api", api);
    json_uint(j, "vendor_id", d->vendor_id);
    json_uint(j, "device_id", d->device_id);
    json_uint(j, "memory_bytes", d->memory_bytes);
    char tier[64];
    json_str(j, "tier", bench_tier(&report->caps, tier));
    json_str(j, "caps", d->caps);
    json_close(j);
}

static void json_host(struct json *j, const struct bench_record *r)
{
    json_open(j, "host", '{', false);
    json_str(j, "os", r->os);
    json_str(j, "machine", r->machine);
    json_str(j, "cpu", r->cpu);
    json_str(j, "cpus", r->cpus);
    json_str(j, "memory", r->memory);
    json_str(j, "cpu_clock", r->cpu_clock);
    json_str(j, "gpu_clock", r->gpu_clock);
    json_str(j, "temperature", r->temperature);
    json_close(j);
}

void bench_write_json(FILE *out, const struct bench_report *report, const struct bench_record *record)
{
    struct json json = {.out = out}, *j = &json;
    json_open(j, NULL, '{', false);
    json_str(j, "schema", BENCH_SCHEMA);
    json_uint(j, "schema_version", BENCH_SCHEMA_VERSION);
    json_str(j, "version", record->version);
    json_str(j, "commit", record->commit);
    json_str(j, "date", record->date);
    json_str(j, "command", record->command);
    json_bool(j, "complete", !report->incomplete);
    json_device(j, report);
    json_host(j, record);
    json_open(j, "notes", '{', false);
    for (uint32_t i = 0; i < report->n_notes; i++) json_str(j, report->notes[i].key, report->notes[i].text);
    json_close(j);
    json_open(j, "rows", '[', false);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        json_open(j, NULL, '{', false);
        json_str(j, "section", report->rows[i].section);
        json_str(j, "key", report->rows[i].key);
        json_open(j, "figures", '[', false);
        for (uint32_t k = 0; k < report->rows[i].n_figures; k++) json_figure(j, &report->rows[i].figures[k]);
        json_close(j);
        json_close(j);
    }
    json_close(j);
    json_close(j);
}
