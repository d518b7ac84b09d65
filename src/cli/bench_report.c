/* What was measured, as rows of figures. A figure that cannot be right keeps its reason instead of a number. */
#include "bench.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static struct bench_row scratch;                           /* where rows go that there is no memory for */

struct bench_row *bench_row_add(struct bench_report *report, const char *section, const char *key_fmt, ...)
{
    if (report->n_rows == report->capacity) {
        uint32_t more = report->capacity ? 2 * report->capacity : 64;
        struct bench_row *rows = realloc(report->rows, more * sizeof *rows);
        if (rows) {
            report->rows = rows;
            report->capacity = more;
        }
    }
    struct bench_row *row = &scratch;
    if (report->n_rows < report->capacity) row = &report->rows[report->n_rows++];
    else report->failed = true;
    *row = (struct bench_row){.section = section};
    va_list list;
    va_start(list, key_fmt);
    vsnprintf(row->key, sizeof row->key, key_fmt, list);
    va_end(list);
    return row;
}

static struct bench_figure *add(struct bench_row *row, const char *name, const char *unit, int better)
{
    static struct bench_figure dropped;
    struct bench_figure *f = row->n_figures < BENCH_FIGURES ? &row->figures[row->n_figures++] : &dropped;
    *f = (struct bench_figure){.name = name, .unit = unit, .better = better};
    return f;
}

/* What is wrong with a number; NULL: nothing. */
static const char *wrong(double value)
{
    return isnan(value) ? "not a number" : isinf(value) ? "infinite" : value < 0 ? "negative" : NULL;
}

static void set(struct bench_figure *f, double value, double p10, double p90, const struct bench_stat *s)
{
    f->why = s && s->n == 0 ? "not measured" : wrong(value);
    if (!f->why && (wrong(p10) || wrong(p90))) f->why = "infinite";
    f->value = f->why ? NAN : value;
    f->p10 = f->why ? NAN : p10;
    f->p90 = f->why ? NAN : p90;
    f->tight = true;
    if (!s) return;
    f->runs = s->n;
    f->drift = isfinite(s->drift) ? s->drift : 0;
    f->tight = s->tight;
}

void bench_rate(struct bench_row *row, const char *name, const char *unit, double per_run, const struct bench_stat *s)
{
    set(add(row, name, unit, 1), per_run / s->median, per_run / s->p90, per_run / s->p10, s);
}

void bench_time(struct bench_row *row, const char *name, const struct bench_stat *s)
{
    struct bench_figure *f = add(row, name, "us", -1);
    set(f, s->median * 1e6, s->p10 * 1e6, s->p90 * 1e6, s);
    if (!f->why && f->value == 0) {
        f->why = "below the clock's resolution";
        f->value = f->p10 = f->p90 = NAN;
    }
}

void bench_count(struct bench_row *row, const char *name, const char *unit, double value, int better)
{
    set(add(row, name, unit, better), value, value, value, NULL);
}

void bench_invalid(struct bench_row *row, const char *name, const char *unit, const char *why)
{
    struct bench_figure *f = add(row, name, unit, 0);
    f->why = why;
    f->value = f->p10 = f->p90 = NAN;
}

const struct bench_figure *bench_figure_find(const struct bench_row *row, const char *name)
{
    for (uint32_t i = 0; i < row->n_figures; i++)
        if (strcmp(row->figures[i].name, name) == 0) return &row->figures[i];
    return NULL;
}

double bench_find(const struct bench_report *report, const char *section, const char *key_prefix, const char *figure)
{
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct bench_row *row = &report->rows[i];
        if (strcmp(row->section, section) != 0 || strncmp(row->key, key_prefix, strlen(key_prefix)) != 0) continue;
        const struct bench_figure *f = bench_figure_find(row, figure);
        return f && !f->why ? f->value : NAN;
    }
    return NAN;
}

void bench_note(struct bench_report *report, const char *key, const char *fmt, ...)
{
    uint32_t i = 0;
    while (i < report->n_notes && strcmp(report->notes[i].key, key) != 0) i++;
    if (i == report->note_capacity) {
        uint32_t more = i ? 2 * i : 16;
        struct bench_note *notes = realloc(report->notes, more * sizeof *notes);
        if (!notes) { report->failed = true; return; }
        report->notes = notes;
        report->note_capacity = more;
    }
    if (i == report->n_notes) report->n_notes++;
    snprintf(report->notes[i].key, sizeof report->notes[i].key, "%s", key);
    va_list list;
    va_start(list, fmt);
    vsnprintf(report->notes[i].text, sizeof report->notes[i].text, fmt, list);
    va_end(list);
    for (char *c = report->notes[i].text; *c; c++)         /* one line, whatever a file is called */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
}

void bench_report_free(struct bench_report *report)
{
    free(report->rows);
    free(report->notes);
    *report = (struct bench_report){0};
}
