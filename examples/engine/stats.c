/* Percentiles, and the report as JSON. */
#include "stats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const inference_names[INFERENCE_MODES] = {"off", "budget", "free"};

void series_add(struct series *s, double value)
{
    if (s->n == s->room) {
        double *more = realloc(s->values, (s->room ? 2 * s->room : 256) * sizeof *more);
        if (!more) return;                   /* the figures are then of the frames so far */
        s->values = more;
        s->room = s->room ? 2 * s->room : 256;
    }
    s->values[s->n++] = value;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double series_percentile(const struct series *s, double percent)
{
    double *sorted = s->n ? malloc(s->n * sizeof *sorted) : NULL;
    if (!sorted) return 0;
    memcpy(sorted, s->values, s->n * sizeof *sorted);
    qsort(sorted, s->n, sizeof *sorted, compare);
    double value = sorted[(size_t)((double)(s->n - 1) * percent / 100 + 0.5)];
    free(sorted);
    return value;
}

double series_sum(const struct series *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) sum += s->values[i];
    return sum;
}

void report_free(struct report *r)
{
    for (uint32_t i = 0; i < r->n_phases; i++) {
        struct phase *p = &r->phases[i];
        free(p->frame_ms.values); free(p->draw_ms.values); free(p->added_ms.values); free(p->slices.values);
    }
}

static void write_text(FILE *f, const char *name, const char *text)
{
    fprintf(f, "  \"%s\": \"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putc('\\', f);
        if ((unsigned char)*text >= ' ') putc(*text, f);
    }
    fputs("\",\n", f);
}

static void write_series(FILE *f, const char *name, const struct series *s)
{
    fprintf(f, "      \"%s\": {\"n\": %zu, \"p50\": %.3f, \"p95\": %.3f, \"p99\": %.3f},\n", name, s->n, series_percentile(s, 50), series_percentile(s, 95), series_percentile(s, 99));
}

static void write_phase(FILE *f, const struct phase *p, double budget_ms)
{
    double gpu_seconds = series_sum(&p->added_ms) / 1000;
    fprintf(f, "    {\n      \"inference\": \"%s\",\n", inference_names[p->inference]);
    write_series(f, "frame_ms", &p->frame_ms);
    write_series(f, "draw_ms", &p->draw_ms);
    write_series(f, "added_ms", &p->added_ms);
    if (p->inference == INFERENCE_BUDGET) {
        write_series(f, "slice_ms", &p->slices);
        fprintf(f, "      \"slice_p95_by_budget\": %.3f,\n", series_percentile(&p->slices, 95) / budget_ms);
    }
    fprintf(f, "      \"tokens\": %llu,\n      \"tokens_per_second\": %.1f,\n      \"tokens_per_second_of_inference\": %.1f,\n      \"seconds\": %.3f\n    }", (unsigned long long)p->tokens,
            p->seconds > 0 ? (double)p->tokens / p->seconds : 0, gpu_seconds > 0 ? (double)p->tokens / gpu_seconds : 0, p->seconds);
}

bool report_write(const struct report *r, const char *path)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "w") : stdout;
    if (!f) return false;
    fputs("{\n", f);
    write_text(f, "device", r->device);
    write_text(f, "driver", r->driver);
    write_text(f, "model", r->model);
    fprintf(f, "  \"vulkan\": \"%u.%u.%u\",\n  \"characters\": %u,\n  \"frames\": %u,\n  \"budget_ms\": %.3f,\n", r->api_version >> 22, r->api_version >> 12 & 0x3ff, r->api_version & 0xfff, r->characters, r->frames, r->budget_ms);
    if (r->validation) fprintf(f, "  \"validation_messages\": %u,\n", r->validation_messages);
    fputs("  \"phases\": [\n", f);
    for (uint32_t i = 0; i < r->n_phases; i++) {
        write_phase(f, &r->phases[i], r->budget_ms);
        fputs(i + 1 < r->n_phases ? ",\n" : "\n", f);
    }
    fputs("  ]\n}\n", f);
    bool ok = !ferror(f);
    return (f == stdout ? fflush(f) : fclose(f)) == 0 && ok;
}
