/* Rows as tables: a column a part of the key, a column a figure, in units that suit the numbers. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The next part "name=value" of a key; false at its end. A word without '=' has an empty name. */
static bool next_part(const char **at, const char **name, size_t *n_name, const char **value, size_t *n_value)
{
    *at += strspn(*at, " ");
    size_t n = strcspn(*at, " ");
    if (n == 0) return false;
    const char *equals = memchr(*at, '=', n);
    *name = *at;
    *n_name = equals ? (size_t)(equals - *at) : 0;
    *value = equals ? equals + 1 : *at;
    *n_value = n - (size_t)(*value - *at);
    *at += n;
    return true;
}

void bench_part(const struct bench_row *row, const char *part, char *text, size_t size)
{
    const char *at = row->key, *name, *value;
    size_t n_name, n_value;
    snprintf(text, size, "%s", "");
    while (next_part(&at, &name, &n_name, &value, &n_value))
        if (strlen(part) == n_name && memcmp(part, name, n_name) == 0) {
            snprintf(text, size, "%.*s", (int)n_value, value);
            return;
        }
}

static uint32_t parts_of(const struct bench_row *row, char parts[BENCH_KEY_PARTS][24])
{
    const char *at = row->key, *name, *value;
    size_t n_name, n_value;
    uint32_t n = 0;
    while (n < BENCH_KEY_PARTS && next_part(&at, &name, &n_name, &value, &n_value)) snprintf(parts[n++], 24, "%.*s", (int)n_name, name);
    return n;
}

static bool belongs(const struct bench_table *t, const struct bench_row *row)
{
    char parts[BENCH_KEY_PARTS][24];
    if (strcmp(t->section, row->section) != 0 || parts_of(row, parts) != t->n_parts) return false;
    for (uint32_t i = 0; i < t->n_parts; i++)
        if (strcmp(parts[i], t->parts[i]) != 0) return false;
    return true;
}

void bench_unit(struct bench_column *c, const char *unit, double largest)
{
    static const struct { const char *from, *to[4]; } units[] = {
        {"us", {"us", "ms", "s", NULL}}, {"B", {"B", "kB", "MB", "GB"}}, {"FLOP", {"FLOP", "kFLOP", "MFLOP", "GFLOP"}}};
    c->scale = 1;
    c->of = unit;
    snprintf(c->unit, sizeof c->unit, "%s", unit);
    for (size_t i = 0; i < VKM_COUNT(units); i++) {
        if (strcmp(units[i].from, unit) != 0) continue;
        uint32_t step = 0;
        while (step < 3 && units[i].to[step + 1] && largest * c->scale >= 1e4) { step++; c->scale /= 1000; }
        snprintf(c->unit, sizeof c->unit, "%s", units[i].to[step]);
    }
}

static void columns_of(struct bench_table *t)
{
    double largest[VKM_COUNT(t->columns)] = {0};
    for (uint32_t i = 0; i < t->n_rows; i++)
        for (uint32_t k = 0; k < t->rows[i]->n_figures; k++) {
            const struct bench_figure *f = &t->rows[i]->figures[k];
            uint32_t c = 0;
            while (c < t->n_columns && (strcmp(t->columns[c].name, f->name) != 0 || strcmp(t->columns[c].of, f->unit) != 0)) c++;
            if (c == VKM_COUNT(t->columns)) continue;
            if (c == t->n_columns) {
                t->columns[t->n_columns].name = f->name;
                t->columns[t->n_columns++].of = f->unit;
            }
            if (f->runs) t->measured = true;
            if (!f->why && f->value > largest[c]) largest[c] = f->value;
        }
    for (uint32_t c = 0; c < t->n_columns; c++) bench_unit(&t->columns[c], t->columns[c].of, largest[c]);
}

int bench_section_rank(const char *section)
{
    static const char *const order[] = {"roofline", "model", "layer", "step", "kernel"};
    int i = 0;
    while (i < (int)VKM_COUNT(order) && strcmp(section, order[i]) != 0) i++;
    return i;
}

/* Sections in their order, tables of one in theirs. */
static void sort_tables(struct bench_table *tables, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k > 0 && bench_section_rank(tables[k].section) < bench_section_rank(tables[k - 1].section); k--) {
            struct bench_table t = tables[k];
            tables[k] = tables[k - 1];
            tables[k - 1] = t;
        }
}

struct bench_table *bench_tables(const struct bench_report *report, uint32_t *n)
{
    struct bench_table *tables = calloc(report->n_rows + 1, sizeof *tables);
    *n = 0;
    if (!tables) return NULL;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct bench_row *row = &report->rows[i];
        uint32_t k = *n;
        while (k > 0 && !belongs(&tables[k - 1], row)) k--;
        struct bench_table *t = k ? &tables[k - 1] : &tables[(*n)++];
        if (!k) {
            t->section = row->section;
            t->n_parts = parts_of(row, t->parts);
        }
        if ((t->n_rows & (t->n_rows - 1)) == 0) {          /* full at powers of two */
            const struct bench_row **rows = realloc(t->rows, (t->n_rows ? 2 * t->n_rows : 1) * sizeof *rows);
            if (!rows) {
                bench_tables_free(tables, *n);
                return NULL;
            }
            t->rows = rows;
        }
        t->rows[t->n_rows++] = row;
    }
    for (uint32_t i = 0; i < *n; i++) columns_of(&tables[i]);
    sort_tables(tables, *n);
    return tables;
}

void bench_tables_free(struct bench_table *tables, uint32_t n)
{
    for (uint32_t i = 0; tables && i < n; i++) free(tables[i].rows);
    free(tables);
}

void bench_number(double value, char *text, size_t size)
{
    double a = fabs(value);
    if (a >= 1e7 || (a < 1e-3 && a > 0)) snprintf(text, size, "%.3e", value);
    else snprintf(text, size, "%.*f", a >= 999.95 || value == floor(value) ? 0 : a >= 99.995 ? 1 : a >= 9.9995 ? 2 : a >= 0.99995 ? 3 : a >= 0.1 ? 4 : 5, value);
}

void bench_cell(const struct bench_column *column, const struct bench_row *row, char *text, size_t size)
{
    const struct bench_figure *f = NULL;
    for (uint32_t i = 0; i < row->n_figures && !f; i++)
        if (strcmp(row->figures[i].name, column->name) == 0 && strcmp(row->figures[i].unit, column->of) == 0) f = &row->figures[i];
    if (!f) snprintf(text, size, "%s", "");
    else if (f->why) snprintf(text, size, "invalid: %s", f->why);
    else if (strcmp(column->unit, "%") == 0) snprintf(text, size, "%.1f", f->value);
    else bench_number(f->value * column->scale, text, size);
}

bool bench_drifts(const struct bench_figure *f)
{
    return !f->why && fabs(f->drift) > 0.05 && fabs(f->drift) * fabs(f->value) > (f->p90 - f->p10) / 2;
}

void bench_spread(const struct bench_row *row, char *text, size_t size)
{
    double widest = -1;
    uint32_t most = 0;
    bool loose = false, drifts = false;
    for (uint32_t i = 0; i < row->n_figures; i++) {
        const struct bench_figure *f = &row->figures[i];
        if (f->why || f->runs == 0 || f->value == 0) continue;
        double spread = (f->p90 - f->p10) / 2 / fabs(f->value);
        if (spread > widest) widest = spread;
        if (f->runs > most) most = f->runs;
        if (!f->tight) loose = true;
        if (bench_drifts(f)) drifts = true;
    }
    if (widest < 0) snprintf(text, size, "%s", "");
    else if (most == 1) snprintf(text, size, "one run");
    else snprintf(text, size, "%.1f %%%s%s", 100 * widest, loose ? " ~" : "", drifts ? " !" : "");
}
