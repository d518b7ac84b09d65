/* vkmoe bench compare: the rows that reports share, as ratios. */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One figure of one row, in every file. A ratio above 1 is better than the first file, whichever way the figure counts. */
struct line {
    const struct bench_row *row;                           /* of the first file */
    const struct bench_figure *figures[ARGS_FILES];        /* NULL: that file has not this figure */
    double ratios[ARGS_FILES];                             /* NAN: none */
    bool within[ARGS_FILES];                               /* the spreads, p10 to p90, overlap */
    uint32_t at;                                           /* its place among the lines as they were made */
    bool headline;                                         /* says something that the lines of this row before it do not */
};

struct comparison {
    uint32_t n_files, n_lines, capacity;
    const char *const *names;
    struct bench_file files[ARGS_FILES];
    struct line *lines;
    uint32_t alone[ARGS_FILES];                            /* rows that the first file, or this one, does not have */
};

static char letter(uint32_t file) { return (char)('A' + file); }

/* ---------------------------------------------------------------- reading and refusing */

static int load(struct comparison *c)
{
    for (uint32_t i = 0; i < c->n_files; i++) {
        vkm_error err = {0};
        size_t n = 0;
        char *text = read_all(c->names[i], &n);
        if (!text) return STATUS_FAILED;
        vkm_result r = bench_read(text, n, &c->files[i], &err);
        free(text);
        if (r != VKM_OK) return fail("%s: %s", c->names[i], err.message);
    }
    return STATUS_OK;
}

static const char *note(const struct bench_file *f, const char *key)
{
    for (uint32_t i = 0; i < f->report.n_notes; i++)
        if (strcmp(f->report.notes[i].key, key) == 0) return f->report.notes[i].text;
    return NULL;
}

/* "model, step": what a report is about. */
static void sections_of(const struct bench_file *f, char *text, size_t size)
{
    const char *last = "";
    size_t used = 0;
    snprintf(text, size, "no rows");
    for (uint32_t i = 0; i < f->report.n_rows && used < size; i++) {
        if (strcmp(f->sorted[i]->section, last) == 0) continue;
        last = f->sorted[i]->section;
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", last);
    }
}

static int refuse_unlike(struct comparison *c)
{
    const struct bench_file *a = &c->files[0];
    const char *model = note(a, "model");
    char of_a[128], of_b[128];
    for (uint32_t i = 1; i < c->n_files; i++) {
        const struct bench_file *b = &c->files[i];
        const char *other = note(b, "model");
        uint32_t common = 0;
        for (uint32_t k = 0; k < a->report.n_rows; k++) common += bench_file_row(b, a->sorted[k]) != NULL;
        if (common == 0) {
            sections_of(a, of_a, sizeof of_a);
            sections_of(b, of_b, sizeof of_b);
            return fail("%s and %s have no row in common: the first has %s, the second %s", c->names[0], c->names[i], of_a, of_b);
        }
        if (model && other && strcmp(model, other) != 0) return fail("%s and %s are of different models: %s; %s", c->names[0], c->names[i], model, other);
        c->alone[i] = b->report.n_rows - common;
        c->alone[0] = c->alone[0] > a->report.n_rows - common ? c->alone[0] : a->report.n_rows - common;
    }
    return STATUS_OK;
}

/* ---------------------------------------------------------------- ratios */

static bool same_kind(const struct bench_figure *x, const struct bench_figure *y) { return strcmp(x->unit, y->unit) == 0; }

static void fill_line(struct comparison *c, struct line *line, const struct bench_row *row, const struct bench_figure *f)
{
    *line = (struct line){.row = row};
    line->figures[0] = f;
    for (uint32_t i = 1; i < c->n_files; i++) {
        const struct bench_row *other = bench_file_row(&c->files[i], row);
        const struct bench_figure *g = other ? bench_figure_find(other, f->name) : NULL;
        if (!g && other && f->why && other->n_figures == 1) g = &other->figures[0];       /* both failed in their own way */
        line->figures[i] = g && same_kind(f, g) ? g : NULL;
        line->ratios[i] = NAN;
        if (!line->figures[i] || f->why || g->why || f->value == 0 || g->value == 0) continue;
        line->ratios[i] = f->better > 0 ? g->value / f->value : f->value / g->value;
        line->within[i] = f->runs > 1 && g->runs > 1 && f->p10 <= g->p90 && g->p10 <= f->p90;
    }
}

/* Time and rate of the same runs say the same: the second of them is no headline. */
static bool repeats(const struct comparison *c, const struct line *line)
{
    for (uint32_t k = c->n_lines; k-- > 0 && c->lines[k].row == line->row; ) {
        bool same = c->lines[k].headline;
        for (uint32_t i = 1; i < c->n_files && same; i++) {
            double x = c->lines[k].ratios[i], y = line->ratios[i];
            same = isnan(x) ? isnan(y) : fabs(x - y) <= 1e-3 * x;
        }
        if (same) return true;
    }
    return false;
}

/* By section, in the order in which sections are shown. */
static int by_section(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    int order = bench_section_rank(x->row->section) - bench_section_rank(y->row->section);
    if (order == 0) order = strcmp(x->row->section, y->row->section);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

static int make_lines(struct comparison *c)
{
    for (uint32_t i = 0; i < c->files[0].report.n_rows; i++) {
        const struct bench_row *row = &c->files[0].report.rows[i];
        for (uint32_t k = 0; k < row->n_figures; k++) {
            const struct bench_figure *f = &row->figures[k];
            struct line line;
            if (f->better == 0 && !f->why) continue;
            fill_line(c, &line, row, f);
            bool any = false;
            for (uint32_t file = 1; file < c->n_files; file++) any |= line.figures[file] != NULL || (f->why && bench_file_row(&c->files[file], row));
            if (!any) continue;
            line.headline = !repeats(c, &line);
            if (c->n_lines == c->capacity) {
                uint32_t more = c->capacity ? 2 * c->capacity : 64;
                struct line *lines = realloc(c->lines, more * sizeof *lines);
                if (!lines) return fail("out of memory");
                c->lines = lines;
                c->capacity = more;
            }
            line.at = c->n_lines;
            c->lines[c->n_lines++] = line;
        }
    }
    qsort(c->lines, c->n_lines, sizeof *c->lines, by_section);
    return STATUS_OK;
}

/* Geometric mean of the headline ratios of a section; NAN without any. */
static double mean_ratio(const struct comparison *c, const char *section, uint32_t file, uint32_t *n)
{
    double sum = 0;
    *n = 0;
    for (uint32_t i = 0; i < c->n_lines; i++) {
        const struct line *l = &c->lines[i];
        if (!l->headline || strcmp(l->row->section, section) != 0 || isnan(l->ratios[file])) continue;
        sum += log(l->ratios[file]);
        ++*n;
    }
    return *n ? exp(sum / *n) : NAN;
}

/* ---------------------------------------------------------------- what is said about the files */

static void describe_file(const struct comparison *c, uint32_t i, char *text, size_t size)
{
    const struct bench_file *f = &c->files[i];
    snprintf(text, size, "%s; %s; %s tier; vkmoe %s (%s); %s; %s%s", f->report.device.name, f->report.device.driver, f->tier, f->record.version, f->record.commit, f->record.date,
             f->record.cpu, f->report.incomplete ? "; INCOMPLETE" : "");
}

static const char *tiles(const struct bench_file *f) { return note(f, "tiles") ? note(f, "tiles") : "not tuned"; }

/* The next thing that differs between the first file and another, or that is worth saying; false when there is none left. *state starts at 0. */
static bool next_remark(const struct comparison *c, uint32_t *state, char *text, size_t size)
{
    static const char *const what[] = {"device", "driver", "capabilities", "tier", "commit", "processor", "choice of tiles"};
    const struct bench_file *a = &c->files[0];
    uint32_t n = VKM_COUNT(what) + a->report.n_notes + 1;
    while (*state < (c->n_files - 1) * n) {
        uint32_t file = 1 + *state / n, k = *state % n;
        const struct bench_file *b = &c->files[file];
        ++*state;
        if (k < VKM_COUNT(what)) {
            const char *const x[] = {a->report.device.name, a->report.device.driver, a->report.device.caps, a->tier, a->record.commit, a->record.cpu, tiles(a)};
            const char *const y[] = {b->report.device.name, b->report.device.driver, b->report.device.caps, b->tier, b->record.commit, b->record.cpu, tiles(b)};
            if (strcmp(x[k], y[k]) == 0) continue;
            snprintf(text, size, "%c differs in the %s: %s, not %s", letter(file), what[k], y[k], x[k]);
            return true;
        }
        k -= VKM_COUNT(what);
        if (k == a->report.n_notes) {
            if (c->alone[file] == 0) continue;
            snprintf(text, size, "%u rows of %c are not in A", c->alone[file], letter(file));
            return true;
        }
        const char *key = a->report.notes[k].key, *other = note(b, key);
        if (!other || !strstr(key, "_hash ")) continue;
        snprintf(text, size, "%c has %s bits in the %.*s of %s", letter(file), strcmp(other, a->report.notes[k].text) == 0 ? "the same" : "other", (int)strcspn(key, "_"), key, strchr(key, ' ') + 1);
        return true;
    }
    return false;
}

/* The unit that suits the largest value of a line. */
static void unit_of(const struct line *l, struct bench_column *column)
{
    double largest = 0;
    for (uint32_t i = 0; i < ARGS_FILES; i++)
        if (l->figures[i] && !l->figures[i]->why && l->figures[i]->value > largest) largest = l->figures[i]->value;
    bench_unit(column, l->figures[0]->unit, largest);
}

static void value_text(const struct line *l, uint32_t file, char *text, size_t size)
{
    const struct bench_figure *f = l->figures[file];
    struct bench_column column;
    unit_of(l, &column);
    if (!f) snprintf(text, size, "-");
    else if (f->why) snprintf(text, size, "invalid: %s", f->why);
    else bench_number(f->value * column.scale, text, size);
}

static void ratio_text(const struct line *l, uint32_t file, char *text, size_t size)
{
    if (isnan(l->ratios[file])) snprintf(text, size, "-");
    else snprintf(text, size, "%.3f%s", l->ratios[file], l->within[file] ? " ~" : "");
}

/* ---------------------------------------------------------------- text and Markdown */

enum { CELL = 200 };
/* Columns: what, figure, then A, and value and ratio of each other file. */
static uint32_t n_columns(const struct comparison *c) { return 3 + 2 * (c->n_files - 1); }

static void cell(const struct line *l, uint32_t column, char *text, size_t size)
{
    uint32_t file = column < 3 ? 0 : 1 + (column - 3) / 2;
    if (!l) {
        if (column == 0) snprintf(text, size, "what");
        else if (column == 1) snprintf(text, size, "figure");
        else if (column == 2 || column % 2) snprintf(text, size, "%c", letter(file));
        else snprintf(text, size, "%c vs A", letter(file));
        return;
    }
    struct bench_column unit;
    unit_of(l, &unit);
    if (column == 0) snprintf(text, size, "%s", l->row->key);
    else if (column == 1) snprintf(text, size, "%.60s%s%s", l->figures[0]->name, unit.unit[0] ? " " : "", unit.unit);
    else if (column == 2 || column % 2) value_text(l, file, text, size);
    else ratio_text(l, file, text, size);
}

static void grid_line(const struct comparison *c, const struct line *l, const size_t *width, bool md, FILE *out)
{
    char text[CELL];
    for (uint32_t k = 0; k < n_columns(c); k++) {
        cell(l, k, text, sizeof text);
        if (!md) {
            fprintf(out, k < 2 ? "  %-*s" : "  %*s", (int)width[k], text);
            continue;
        }
        fputs(k ? " | " : "| ", out);
        for (const char *at = text; *at; at++) {
            if (*at == '|' || *at == '\\') putc('\\', out);
            putc(*at, out);
        }
    }
    fputs(md ? " |\n" : "\n", out);
}

static void grid(const struct comparison *c, const char *section, bool md, FILE *out)
{
    const char *bold = !md && has_colour(out) ? "\033[1m" : "", *plain = *bold ? "\033[0m" : "";
    size_t width[3 + 2 * ARGS_FILES] = {0};
    char text[CELL];
    for (uint32_t i = 0; i <= c->n_lines; i++) {
        const struct line *l = i ? &c->lines[i - 1] : NULL;
        for (uint32_t k = 0; k < n_columns(c) && (!l || (l->headline && strcmp(l->row->section, section) == 0)); k++) {
            cell(l, k, text, sizeof text);
            if (strlen(text) > width[k]) width[k] = strlen(text);
        }
    }
    fprintf(out, md ? "\n" : "\n%s%s%s\n", bold, bench_title(section), plain);
    grid_line(c, NULL, width, md, out);
    for (uint32_t k = 0; md && k < n_columns(c); k++) fputs(k < 2 ? "|---" : "|---:", out);
    if (md) fputs("|\n", out);
    for (uint32_t i = 0; i < c->n_lines; i++)
        if (c->lines[i].headline && strcmp(c->lines[i].row->section, section) == 0) grid_line(c, &c->lines[i], width, md, out);
}

/* Each section once: *at starts at 0. */
static const char *next_section(const struct comparison *c, uint32_t *at)
{
    while (*at < c->n_lines && *at > 0 && strcmp(c->lines[*at].row->section, c->lines[*at - 1].row->section) == 0) ++*at;
    return *at < c->n_lines ? c->lines[(*at)++].row->section : NULL;
}

static void write_grids(const struct comparison *c, bool md, FILE *out)
{
    char text[1400];
    const char *section, *end = md ? "  \n" : "\n";
    uint32_t state = 0, at = 0, n;
    bool within = false;
    for (uint32_t i = 0; i < c->n_files; i++) {
        describe_file(c, i, text, sizeof text);
        fprintf(out, "%c = %s: %s%s", letter(i), c->names[i], text, end);
    }
    while (next_remark(c, &state, text, sizeof text)) fprintf(out, "%s%s", text, end);
    while ((section = next_section(c, &at)) != NULL) grid(c, section, md, out);
    putc('\n', out);
    for (at = 0; (section = next_section(c, &at)) != NULL; )
        for (uint32_t i = 1; i < c->n_files; i++) {
            double mean = mean_ratio(c, section, i, &n);
            if (n) fprintf(out, "%s: %c is %.3f times A (geometric mean of %u)%s", bench_title(section), letter(i), mean, n, end);
        }
    for (uint32_t i = 0; i < c->n_lines; i++)
        for (uint32_t k = 1; k < c->n_files; k++) within |= c->lines[i].headline && c->lines[i].within[k];
    fprintf(out, "Above 1 is better.%s%s", within ? " ~: the spreads (p10 to p90) overlap." : "", end);
}

/* ---------------------------------------------------------------- CSV and JSON: every line */

static void csv_text(FILE *out, const char *text)
{
    putc('"', out);
    for (; *text; text++) {
        if (*text == '"') putc('"', out);
        putc(*text, out);
    }
    putc('"', out);
}

static void write_csv(const struct comparison *c, FILE *out)
{
    fprintf(out, "section,key,figure,unit,file,value,ratio,overlap,invalid\n");
    for (uint32_t i = 0; i < c->n_lines; i++)
        for (uint32_t k = 0; k < c->n_files; k++) {
            const struct line *l = &c->lines[i];
            const struct bench_figure *f = l->figures[k];
            if (!f) continue;
            const char *const before[] = {l->row->section, l->row->key, l->figures[0]->name, l->figures[0]->unit, c->names[k]};
            for (size_t t = 0; t < VKM_COUNT(before); t++) {
                csv_text(out, before[t]);
                putc(',', out);
            }
            if (!f->why) fprintf(out, "%.9g", f->value);
            putc(',', out);
            if (k && !isnan(l->ratios[k])) fprintf(out, "%.6g,%s", l->ratios[k], l->within[k] ? "yes" : "no");
            else putc(',', out);
            putc(',', out);
            csv_text(out, f->why ? f->why : "");
            putc('\n', out);
        }
}

static void write_json(const struct comparison *c, FILE *out)
{
    struct json json = {.out = out}, *j = &json;
    char text[1400];
    uint32_t state = 0;
    json_open(j, NULL, '{', false);
    json_str(j, "schema", BENCH_SCHEMA "-compare");
    json_uint(j, "schema_version", BENCH_SCHEMA_VERSION);
    json_open(j, "files", '[', false);
    for (uint32_t i = 0; i < c->n_files; i++) {
        const struct bench_file *f = &c->files[i];
        json_open(j, NULL, '{', true);
        json_str(j, "file", c->names[i]);
        json_str(j, "device", f->report.device.name);
        json_str(j, "driver", f->report.device.driver);
        json_str(j, "tier", f->tier);
        json_str(j, "commit", f->record.commit);
        json_str(j, "date", f->record.date);
        json_bool(j, "complete", !f->report.incomplete);
        json_close(j);
    }
    json_close(j);
    json_open(j, "remarks", '[', false);
    while (next_remark(c, &state, text, sizeof text)) json_str(j, NULL, text);
    json_close(j);
    json_open(j, "lines", '[', false);
    for (uint32_t i = 0; i < c->n_lines; i++) {
        const struct line *l = &c->lines[i];
        json_open(j, NULL, '{', true);
        json_str(j, "section", l->row->section);
        json_str(j, "key", l->row->key);
        json_str(j, "figure", l->figures[0]->name);
        json_str(j, "unit", l->figures[0]->unit);
        json_open(j, "values", '[', true);
        for (uint32_t k = 0; k < c->n_files; k++) {
            const struct bench_figure *f = l->figures[k];
            if (f && f->why) json_str(j, NULL, f->why);
            else if (f) json_real(j, NULL, f->value);
            else json_null(j, NULL);
        }
        json_close(j);
        json_open(j, "ratios", '[', true);
        for (uint32_t k = 1; k < c->n_files; k++) json_real(j, NULL, l->ratios[k]);
        json_close(j);
        json_close(j);
    }
    json_close(j);
    json_close(j);
}

/* ---------------------------------------------------------------- page: a bar a ratio, on a logarithmic scale around 1 */

static void bar(const struct line *l, uint32_t file, double widest, FILE *out)
{
    enum { WIDTH = 240, HEIGHT = 14 };
    double x = log(l->ratios[file]) / widest * WIDTH / 2;
    fprintf(out, "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\"><line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"0\" y2=\"%d\"/>", WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH / 2, WIDTH / 2, HEIGHT);
    fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"2\" width=\"%.1f\" height=\"%d\"/></svg>", l->within[file] ? "even" : x > 0 ? "good" : "bad", x > 0 ? WIDTH / 2 : WIDTH / 2 + x, fabs(x), HEIGHT - 4);
}

static void page_section(const struct comparison *c, const char *section, double widest, FILE *out)
{
    char text[CELL];
    uint32_t n;
    fputs("<section><h2>", out);
    bench_html_text(out, bench_title(section));
    fputs("</h2>\n", out);
    for (uint32_t i = 1; i < c->n_files; i++) {
        double mean = mean_ratio(c, section, i, &n);
        if (n) fprintf(out, "<p>%c is <b>%.3f</b> times A (geometric mean of %u).</p>\n", letter(i), mean, n);
    }
    fputs("<div class=\"wide\"><table><thead><tr>", out);
    for (uint32_t k = 0; k < n_columns(c); k++) {
        cell(NULL, k, text, sizeof text);
        fprintf(out, "<th%s>%s</th>%s", k < 2 ? " class=\"text\"" : "", text, k > 2 && k % 2 == 0 ? "<th></th>" : "");
    }
    fputs("</tr></thead><tbody>\n", out);
    for (uint32_t i = 0; i < c->n_lines; i++) {
        const struct line *l = &c->lines[i];
        if (!l->headline || strcmp(l->row->section, section) != 0) continue;
        fputs("<tr>", out);
        for (uint32_t k = 0; k < n_columns(c); k++) {
            cell(l, k, text, sizeof text);
            fprintf(out, "<td%s>", k < 2 ? " class=\"text\"" : strncmp(text, "invalid", 7) == 0 ? " class=\"wrong\"" : "");
            bench_html_text(out, text);
            fputs("</td>", out);
            uint32_t file = k < 3 ? 0 : 1 + (k - 3) / 2;
            if (k < 3 || k % 2) continue;
            fputs("<td>", out);
            if (!isnan(l->ratios[file])) bar(l, file, widest, out);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div></section>\n", out);
}

static void write_page(const struct comparison *c, FILE *out)
{
    char text[1400];
    const char *section;
    double widest = log(1.5);
    uint32_t state = 0, at = 0;
    for (uint32_t i = 0; i < c->n_lines; i++)
        for (uint32_t k = 1; k < c->n_files; k++)
            if (c->lines[i].headline && !isnan(c->lines[i].ratios[k])) widest = fmax(widest, fabs(log(c->lines[i].ratios[k])));
    bench_html_begin(out, "vkmoe bench compare");
    fputs("<table class=\"facts\"><tbody>\n", out);
    for (uint32_t i = 0; i < c->n_files; i++) {
        describe_file(c, i, text, sizeof text);
        fprintf(out, "<tr><th class=\"text\">%c = ", letter(i));
        bench_html_text(out, c->names[i]);
        fputs("</th><td class=\"text\">", out);
        bench_html_text(out, text);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table>\n<ul>\n", out);
    while (next_remark(c, &state, text, sizeof text)) {
        fputs("<li>", out);
        bench_html_text(out, text);
        fputs("</li>\n", out);
    }
    fprintf(out, "<li>A ratio above 1 is better than A; bars are logarithmic and end at %.3g. Grey, and ~: the spreads (p10 to p90) overlap.</li>\n</ul>\n", exp(widest));
    while ((section = next_section(c, &at)) != NULL) page_section(c, section, widest, out);
    bench_html_end(out);
}

int bench_compare(const struct bench_options *o, FILE *out, FILE *html)
{
    struct comparison *c = calloc(1, sizeof *c);
    if (!c) return fail("out of memory");
    c->n_files = (uint32_t)o->args->n_files;
    c->names = o->args->files;
    int status = load(c);
    if (status == STATUS_OK) status = refuse_unlike(c);
    if (status == STATUS_OK) status = make_lines(c);
    if (status == STATUS_OK) {
        if (o->args->json) write_json(c, out);
        else if (o->args->csv) write_csv(c, out);
        else write_grids(c, o->args->md, out);
        if (html) write_page(c, html);
    }
    for (uint32_t i = 0; i < c->n_files; i++) bench_file_free(&c->files[i]);
    free(c->lines);
    free(c);
    return status;
}
