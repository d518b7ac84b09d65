#include "bench_plot.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- colours of steps */

static double time_of(const struct bench_row *row)
{
    const struct bench_figure *f = bench_figure_find(row, "time");
    return f && !f->why ? f->value : 0;
}

static uint32_t colour_of(const struct bench_palette *p, const char *step)
{
    uint32_t i = 0;
    while (i < p->n && strcmp(p->names[i], step) != 0) i++;
    return i < p->n ? i : BENCH_COLOURS;
}

static void legend(FILE *out, const struct bench_palette *p, bool others)
{
    if (p->n == 0 && !others) return;
    fputs("<ul class=\"legend\">", out);
    for (uint32_t i = 0; i < p->n; i++) {
        fprintf(out, "<li><i style=\"background:var(--c%u)\"></i>", i);
        bench_html_text(out, p->names[i]);
        fputs("</li>", out);
    }
    if (others) fprintf(out, "<li><i style=\"background:var(--c%d)\"></i>others</li>", BENCH_COLOURS);
    fputs("</ul>\n", out);
}

/* What a key says in few words: values, and the names of those that are numbers: "mixtral-8x7b q4_k tokens=16" of "shape=mixtral-8x7b type=q4_k tokens=16". */
static void short_key(FILE *out, const char *key)
{
    char part[192];
    for (bool first = true; *key; first = false) {
        size_t n = strcspn(key, " ");
        const char *equals = memchr(key, '=', n), *from = equals && !(equals[1] >= '0' && equals[1] <= '9') ? equals + 1 : key;
        snprintf(part, sizeof part, "%s%.*s", first ? "" : " ", (int)(n - (size_t)(from - key)), from);
        bench_html_text(out, part);
        key += n;
        key += strspn(key, " ");
    }
}

/* The key without one of its parts. */
static void key_without(const char *key, const char *part, char *text, size_t size)
{
    size_t used = 0, n_part = strlen(part);
    text[0] = 0;
    while (*key) {
        size_t n = strcspn(key, " ");
        if (!(n > n_part && key[n_part] == '=' && memcmp(key, part, n_part) == 0) && used + n + 2 < size) {
            if (used) text[used++] = ' ';
            memcpy(text + used, key, n);
            text[used += n] = 0;
        }
        key += n;
        key += strspn(key, " ");
    }
}

/* Which part of its run's time a step takes; the rows of a run stand together. */
static double share_of(const struct bench_report *report, uint32_t i)
{
    char run[192], other[192];
    double total = 0;
    key_without(report->rows[i].key, "step", run, sizeof run);
    for (int way = -1; way <= 1; way += 2)
        for (int64_t k = way < 0 ? i : (int64_t)i + 1; k >= 0 && k < report->n_rows; k += way) {
            key_without(report->rows[k].key, "step", other, sizeof other);
            if (strcmp(report->rows[k].section, "step") != 0 || strcmp(run, other) != 0) break;
            total += time_of(&report->rows[k]);
        }
    return total > 0 ? time_of(&report->rows[i]) / total : 0;
}

void bench_palette_make(const struct bench_report *report, struct bench_palette *p)
{
    enum { NAMES = 64 };
    struct { char name[48]; double share; } steps[NAMES], swap;
    uint32_t n = 0;
    char step[48];
    *p = (struct bench_palette){0};
    for (uint32_t i = 0; i < report->n_rows; i++) {
        bench_part(&report->rows[i], "step", step, sizeof step);
        if (strcmp(report->rows[i].section, "step") != 0 || !step[0]) continue;
        uint32_t k = 0;
        while (k < n && strcmp(steps[k].name, step) != 0) k++;
        if (k == NAMES) continue;
        if (k == n) {
            memcpy(steps[n].name, step, sizeof step);
            steps[n++].share = 0;
        }
        steps[k].share += share_of(report, i);
    }
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k > 0 && steps[k].share > steps[k - 1].share; k--) {
            swap = steps[k];
            steps[k] = steps[k - 1];
            steps[k - 1] = swap;
        }
    for (; p->n < n && p->n < BENCH_COLOURS; p->n++) memcpy(p->names[p->n], steps[p->n].name, sizeof steps->name);
}

/* ---------------------------------------------------------------- logarithmic axes */

enum { WIDTH = 1040, LEFT = 72, RIGHT = 20, TOP = 14, BOTTOM = 48 };
struct axes { double x0, x1, y0, y1; int height; };        /* ends of both, all > 0; pixels */

static double to_x(const struct axes *a, double x) { return LEFT + log(x / a->x0) / log(a->x1 / a->x0) * (WIDTH - LEFT - RIGHT); }
static double to_y(const struct axes *a, double y) { return a->height - BOTTOM - log(y / a->y0) / log(a->y1 / a->y0) * (a->height - TOP - BOTTOM); }

/* Ticks at powers of ten where an axis has many of them, else also in between, the more the shorter it is. Returns the tick after `from`, NAN behind the end. */
static double next_tick(double from, double end, double decades)
{
    static const double few[] = {10}, some[] = {2, 5, 10}, all[] = {1.5, 2, 3, 4, 5, 6, 8, 10};
    const double *steps = decades > 3 ? few : decades > 1 ? some : all;
    size_t n = decades > 3 ? VKM_COUNT(few) : decades > 1 ? VKM_COUNT(some) : VKM_COUNT(all);
    double power = pow(10, floor(log10(from * 1.0001)));
    for (size_t i = 0; i < n; i++)
        if (power * steps[i] > from * 1.0001) return power * steps[i] <= end * 1.0001 ? power * steps[i] : NAN;
    return NAN;
}

static void tick_text(double value, char *text, size_t size)
{
    if (value >= 1e4 && value < 1e13) snprintf(text, size, "%.4g%s", value / (value >= 1e9 ? 1e9 : value >= 1e6 ? 1e6 : 1e3), value >= 1e9 ? "G" : value >= 1e6 ? "M" : "k");
    else snprintf(text, size, "%.4g", value);
}

static void axis_labels(FILE *out, const struct axes *a, const char *x, const char *y)
{
    fprintf(out, "<text class=\"dim\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", (LEFT + WIDTH - RIGHT) / 2, a->height - 8, x);
    fprintf(out, "<text class=\"dim\" x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">%s</text>\n", (TOP + a->height - BOTTOM) / 2, (TOP + a->height - BOTTOM) / 2, y);
}

static void grid(FILE *out, const struct axes *a, bool powers_of_two)
{
    char text[32];
    double many_x = log10(a->x1 / a->x0), many_y = log10(a->y1 / a->y0);
    double x = powers_of_two ? exp2(ceil(log2(a->x0) - 1e-9)) : next_tick(a->x0 * 0.999, a->x1, many_x);
    for (; x <= a->x1 * 1.0001; x = powers_of_two ? 2 * x : next_tick(x, a->x1, many_x)) {
        tick_text(x, text, sizeof text);
        fprintf(out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text class=\"dim\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                to_x(a, x), to_x(a, x), TOP, a->height - BOTTOM, to_x(a, x), a->height - BOTTOM + 17, text);
    }
    for (double y = next_tick(a->y0 * 0.999, a->y1, many_y); y <= a->y1 * 1.0001; y = next_tick(y, a->y1, many_y)) {
        tick_text(y, text, sizeof text);
        fprintf(out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text class=\"dim\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                LEFT, WIDTH - RIGHT, to_y(a, y), to_y(a, y), LEFT - 8, to_y(a, y) + 4, text);
    }
    fprintf(out, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/><line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>\n",
            LEFT, WIDTH - RIGHT, a->height - BOTTOM, a->height - BOTTOM, LEFT, LEFT, TOP, a->height - BOTTOM);
}

static void widen(double *low, double *high, double value)
{
    if (value < *low) *low = value;
    if (value > *high) *high = value;
}

static void svg_begin(FILE *out, const struct axes *a, const char *label)
{
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"%s\">\n", WIDTH, a->height, WIDTH, a->height, label);
}

/* ---------------------------------------------------------------- roofline */

struct ceiling { const char *key, *unit; double value; bool memory; };
enum { CEILINGS = 48 };

static const struct bench_figure *with_unit(const struct bench_row *row, const char *unit)
{
    for (uint32_t i = 0; i < row->n_figures; i++)
        if (!row->figures[i].why && row->figures[i].value > 0 && strcmp(row->figures[i].unit, unit) == 0) return &row->figures[i];
    return NULL;
}

/* Rates of operations have several units: GFLOP/s, GOP/s. */
static const struct bench_figure *operations(const struct bench_row *row)
{
    const struct bench_figure *f = with_unit(row, "GFLOP/s");
    return f ? f : with_unit(row, "GOP/s");
}

static uint32_t ceilings_of(const struct bench_report *report, struct ceiling *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < report->n_rows && n < CEILINGS; i++) {
        const struct bench_row *row = &report->rows[i];
        const struct bench_figure *rate = bench_figure_find(row, "rate");
        if (strcmp(row->section, "roofline") != 0 || !rate || rate->why || rate->value <= 0) continue;
        bool memory = strcmp(rate->unit, "GB/s") == 0;
        if (memory || operations(row)) c[n++] = (struct ceiling){row->key, rate->unit, rate->value, memory};
    }
    return n;
}

/* The arithmetic intensity of a step, and what it computed in a second; false when it has not both. */
static bool dot_of(const struct bench_row *row, double *x, double *y)
{
    const struct bench_figure *bytes = with_unit(row, "GB/s"), *flops = operations(row);
    if (strcmp(row->section, "step") != 0 || !bytes || !flops) return false;
    *x = flops->value / bytes->value;
    *y = flops->value;
    return true;
}

static int by_value(const void *a, const void *b)
{
    double x = ((const struct ceiling *)a)->value, y = ((const struct ceiling *)b)->value;
    return (x < y) - (x > y);
}

/* The ends of y = bandwidth x within the axes; false when it is not there. */
static bool slope(const struct axes *a, double bandwidth, double *x0, double *x1)
{
    *x0 = fmax(a->x0, a->y0 / bandwidth);
    *x1 = fmin(a->x1, a->y1 / bandwidth);
    return *x0 < *x1;
}

static void draw_ceilings(FILE *out, const struct axes *a, struct ceiling *c, uint32_t n)
{
    char text[32];
    double bandwidth = 0, label = -1e9, x0, x1, y;
    uint32_t slopes = 0;
    for (uint32_t i = 0; i < n; i++)
        if (c[i].memory && c[i].value > bandwidth) bandwidth = c[i].value;
    qsort(c, n, sizeof *c, by_value);
    for (uint32_t i = 0; i < n; i++) {
        bool main = strcmp(c[i].key, BENCH_CEILING_READ) == 0 || strcmp(c[i].key, BENCH_CEILING_F32) == 0;
        double from = bandwidth > 0 ? fmax(a->x0, fmin(c[i].value / bandwidth, a->x1)) : a->x0;
        y = to_y(a, c[i].value);
        if (!c[i].memory) fprintf(out, "<line class=\"ceiling%s\" x1=\"%.1f\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", main ? "" : " other", to_x(a, from), WIDTH - RIGHT, y, y);
        else if (slope(a, c[i].value, &x0, &x1))
            fprintf(out, "<line class=\"ceiling%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", main ? "" : " other", to_x(a, x0), to_y(a, c[i].value * x0), to_x(a, x1), to_y(a, c[i].value * x1));
    }
    /* Labels over all lines: of slopes staggered along them, of flat ones from the highest down. */
    for (uint32_t i = 0; i < n; i++) {
        bench_number(c[i].value, text, sizeof text);
        if (!c[i].memory) {
            y = to_y(a, c[i].value);
            label = label + 13 <= y - 5 ? y - 5 : fmax(label + 13, y + 13);          /* above its line, or below where there is another label */
            fprintf(out, "<text class=\"halo\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", WIDTH - RIGHT - 4, label);
        } else if (slope(a, c[i].value, &x0, &x1)) {
            double angle = -180 / M_PI * atan2(to_y(a, c[i].value * x0) - to_y(a, c[i].value * x1), to_x(a, x1) - to_x(a, x0));
            double at = x0 * pow(x1 / x0, 0.03 + 0.3 * (double)(slopes++ % 3)), px = to_x(a, at), py = to_y(a, c[i].value * at) - 6;
            fprintf(out, "<text class=\"halo\" x=\"%.1f\" y=\"%.1f\" transform=\"rotate(%.1f %.1f %.1f)\">", px, py, angle, px, py);
        } else {
            continue;
        }
        short_key(out, c[i].key);
        fprintf(out, " %s %s</text>\n", text, c[i].unit);
    }
}

void bench_plot_roofline(FILE *out, const struct bench_report *report, const struct bench_palette *palette)
{
    struct ceiling ceilings[CEILINGS];
    struct axes a = {INFINITY, 0, INFINITY, 0, 0};
    uint32_t n = ceilings_of(report, ceilings), n_dots = 0;
    double x, y, bandwidth = 0, most = 0;
    char step[48];
    for (uint32_t i = 0; i < n; i++) {
        if (ceilings[i].memory) bandwidth = fmax(bandwidth, ceilings[i].value);
        else most = fmax(most, ceilings[i].value);
    }
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (!dot_of(&report->rows[i], &x, &y)) continue;
        widen(&a.x0, &a.x1, x);
        widen(&a.y0, &a.y1, y);
        n_dots++;
    }
    if (n_dots == 0 && (most == 0 || bandwidth == 0)) return;
    if (most > 0) widen(&a.y0, &a.y1, most);
    if (bandwidth > 0 && most > 0) widen(&a.x0, &a.x1, most / bandwidth);
    if (n_dots == 0) widen(&a.y0, &a.y1, most / 1000);
    if (n_dots == 0) widen(&a.x0, &a.x1, most / bandwidth / 100);
    a = (struct axes){a.x0 / 2, a.x1 * 4, a.y0 / 2, a.y1 * 1.6, 470};
    fputs("<h3>Roofline</h3>\n<p class=\"dim\">Operations a second over operations a byte. A dot is a kernel step, larger where it takes more of its run's time; the nearer to the line above it, the better.", out);
    fputs(n ? "</p>\n" : " This report has no ceilings: `vkmoe bench roofline` and `bench layer` measure them.</p>\n", out);
    svg_begin(out, &a, "roofline");
    grid(out, &a, false);
    draw_ceilings(out, &a, ceilings, n);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct bench_row *row = &report->rows[i];
        if (!dot_of(row, &x, &y)) continue;
        bench_part(row, "step", step, sizeof step);
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"var(--c%u)\" fill-opacity=\"0.8\"><title>", to_x(&a, x), to_y(&a, y),
                3 + 7 * sqrt(share_of(report, i)), colour_of(palette, step));
        bench_html_text(out, row->key);
        fprintf(out, ": %.4g GFLOP/s, %.4g FLOP/byte</title></circle>\n", y, x);
    }
    axis_labels(out, &a, "FLOP / byte", "GFLOP / s");
    fputs("</svg>\n", out);
    legend(out, palette, n_dots > 0);
}

/* ---------------------------------------------------------------- step breakdown */

static void time_text(double us, char *text, size_t size)
{
    char number[32];
    bench_number(us >= 1e6 ? us / 1e6 : us >= 1e3 ? us / 1e3 : us, number, sizeof number);
    snprintf(text, size, "%s %s", number, us >= 1e6 ? "s" : us >= 1e3 ? "ms" : "us");
}

/* One bar of the rows from first on that have the same key but for the step. */
static void breakdown_bar(FILE *out, const struct bench_report *report, uint32_t first, const char *run, const struct bench_palette *palette)
{
    enum { NAME = 330, BAR = 600, H = 24 };
    char text[64], other[192], step[48];
    double total = 0, at = NAME, rest = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass) {
            fprintf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\"><text x=\"%d\" y=\"16\" text-anchor=\"end\">", WIDTH, H, WIDTH, H, NAME - 10);
            short_key(out, run);
            fputs("</text>", out);
        }
        /* steps in the order of colours, so that bars can be compared; the grey rest last */
        for (uint32_t colour = 0; colour <= (pass ? BENCH_COLOURS - 1 : 0); colour++)
            for (uint32_t i = first; i < report->n_rows; i++) {
                const struct bench_row *row = &report->rows[i];
                if (strcmp(row->section, "step") != 0) continue;
                key_without(row->key, "step", other, sizeof other);
                bench_part(row, "step", step, sizeof step);
                if (strcmp(other, run) != 0 || !step[0]) continue;
                uint32_t mine = colour_of(palette, step);
                if (!pass) {
                    total += time_of(row);
                    if (mine == BENCH_COLOURS) rest += time_of(row);
                    continue;
                }
                if (mine != colour || total <= 0) continue;
                double width = time_of(row) / total * BAR;
                fprintf(out, "<rect x=\"%.2f\" y=\"3\" width=\"%.2f\" height=\"%d\" fill=\"var(--c%u)\"><title>", at, width, H - 6, mine);
                bench_html_text(out, step);
                time_text(time_of(row), text, sizeof text);
                fprintf(out, ": %s, %.1f %%</title></rect>", text, 100 * time_of(row) / total);
                if (width > 44) fprintf(out, "<text x=\"%.1f\" y=\"16\" text-anchor=\"middle\" style=\"fill:var(--bar)\">%.0f %%</text>", at + width / 2, 100 * time_of(row) / total);
                at += width;
            }
    }
    if (rest > 0) fprintf(out, "<rect x=\"%.2f\" y=\"3\" width=\"%.2f\" height=\"%d\" fill=\"var(--c%d)\"><title>others</title></rect>", at, rest / total * BAR, H - 6, BENCH_COLOURS);
    time_text(total, text, sizeof text);
    fprintf(out, "<text class=\"dim\" x=\"%d\" y=\"16\">%s</text></svg>\n", NAME + BAR + 10, text);
}

void bench_plot_breakdown(FILE *out, const struct bench_report *report, const struct bench_palette *palette)
{
    enum { SHOWN = 24 };
    char run[192], before[192];
    uint32_t n_bars = 0;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (strcmp(report->rows[i].section, "step") != 0) continue;
        key_without(report->rows[i].key, "step", run, sizeof run);
        bool seen = false;
        for (uint32_t k = i; k-- > 0 && !seen; ) {
            if (strcmp(report->rows[k].section, "step") != 0) continue;
            key_without(report->rows[k].key, "step", before, sizeof before);
            seen = strcmp(run, before) == 0;
        }
        if (seen) continue;
        if (n_bars == 0) {
            fputs("<h3>Share of each kernel step</h3>\n", out);
            legend(out, palette, true);
        }
        if (n_bars++ == SHOWN) fputs("<details><summary>more</summary>\n", out);
        breakdown_bar(out, report, i, run, palette);
    }
    if (n_bars > SHOWN) fputs("</details>\n", out);
}

/* ---------------------------------------------------------------- throughput over the batch */

struct point { double x, y; };
struct series { char name[192]; const char *counted; uint32_t n; struct point points[32]; };
enum { SERIES_A_PLOT = 11 };

static int by_x(const void *a, const void *b)
{
    double x = ((const struct point *)a)->x, y = ((const struct point *)b)->x;
    return (x > y) - (x < y);
}

/* What is counted along x: tokens=16, batch=4, or the prompt's length in test=pp512. */
static const struct { const char *part, *axis; } COUNTED[] = {{"tokens", "tokens"}, {"batch", "sequences at once"}, {"test", "tokens of the prompt"}};

/* Which of them (NULL: none) and how many, and the name of the curve that the row is on. */
static const char *curve_of(const struct bench_row *row, char *name, size_t size, double *x)
{
    char text[48];
    for (size_t i = 0; i < VKM_COUNT(COUNTED); i++) {
        bool prompt = !strcmp(COUNTED[i].part, "test");
        bench_part(row, COUNTED[i].part, text, sizeof text);
        if (!text[0] || (prompt && strncmp(text, "pp", 2) != 0)) continue;
        if (prompt) snprintf(name, size, "prompt");
        else        key_without(row->key, COUNTED[i].part, name, size);
        *x = atof(prompt ? text + 2 : text);
        return *x > 0 ? COUNTED[i].axis : NULL;
    }
    return NULL;
}

static void plot(FILE *out, const struct series *series, uint32_t n)
{
    struct axes a = {INFINITY, 0, INFINITY, 0, 0};
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < series[i].n; k++) {
            widen(&a.x0, &a.x1, series[i].points[k].x);
            widen(&a.y0, &a.y1, series[i].points[k].y);
        }
    a = (struct axes){a.x0 / 1.15, a.x1 * 1.15, a.y0 / 1.3, a.y1 * 1.3, 330};
    svg_begin(out, &a, "tokens per second");
    grid(out, &a, true);
    for (uint32_t i = 0; i < n; i++) {
        fprintf(out, "<polyline class=\"curve\" style=\"stroke:var(--c%u)\" points=\"", i);
        for (uint32_t k = 0; k < series[i].n; k++) fprintf(out, "%s%.1f,%.1f", k ? " " : "", to_x(&a, series[i].points[k].x), to_y(&a, series[i].points[k].y));
        fputs("\"/>\n", out);
        for (uint32_t k = 0; k < series[i].n; k++) {
            fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"var(--c%u)\"><title>", to_x(&a, series[i].points[k].x), to_y(&a, series[i].points[k].y), i);
            bench_html_text(out, series[i].name);
            fprintf(out, ", %g: %.4g tok/s</title></circle>\n", series[i].points[k].x, series[i].points[k].y);
        }
    }
    axis_labels(out, &a, series->counted, "tokens / s");
    fputs("</svg>\n<ul class=\"legend\">", out);
    for (uint32_t i = 0; i < n; i++) {
        fprintf(out, "<li><i style=\"background:var(--c%u)\"></i>", i);
        short_key(out, series[i].name);
        fputs("</li>", out);
    }
    fputs("</ul>\n", out);
}

void bench_plot_curves(FILE *out, const struct bench_report *report, const char *section)
{
    uint32_t n = 0, curves = 0;
    char name[192];
    double x;
    struct series *series = calloc(report->n_rows + 1, sizeof *series);
    if (!series) return;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct bench_row *row = &report->rows[i];
        const struct bench_figure *rate = with_unit(row, "tok/s");
        uint32_t k = 0;
        if (strcmp(row->section, section) != 0 || !rate) continue;
        const char *counted = curve_of(row, name, sizeof name, &x);
        if (!counted) continue;
        while (k < n && (series[k].counted != counted || strcmp(series[k].name, name) != 0)) k++;
        if (k == n) memcpy(series[n].name, name, sizeof name), series[n++].counted = counted;
        if (series[k].n < VKM_COUNT(series->points)) series[k].points[series[k].n++] = (struct point){x, rate->value};
    }
    for (uint32_t i = 0; i < n; i++) {                     /* a curve has two points or more */
        if (series[i].n < 2) continue;
        series[curves] = series[i];
        qsort(series[curves].points, series[curves].n, sizeof(struct point), by_x);
        curves++;
    }
    for (size_t c = 0; c < VKM_COUNT(COUNTED); c++) {      /* curves of one plot count the same thing */
        for (uint32_t i = 0, k; i < curves; i = k) {
            for (k = i; k < curves && k - i < SERIES_A_PLOT && series[k].counted == COUNTED[c].axis; k++) {}
            if (k == i) { k++; continue; }
            fprintf(out, "<h3>Tokens a second over %s</h3>\n", COUNTED[c].axis);
            plot(out, series + i, k - i);
        }
    }
    free(series);
}
