/* Plots of a report as inline SVG. */
#ifndef VKM_CLI_BENCH_PLOT_H
#define VKM_CLI_BENCH_PLOT_H

#include "bench.h"

/* Colours of kernel steps, the same all over the page: the steps that take most time first, the rest grey. Names are borrowed from the report's keys. */
enum { BENCH_COLOURS = 11 };
struct bench_palette { uint32_t n; char names[BENCH_COLOURS][48]; };
void bench_palette_make(const struct bench_report *report, struct bench_palette *palette);

/* Each writes nothing when the report has nothing to show. */
void bench_plot_roofline(FILE *out, const struct bench_report *report, const struct bench_palette *palette);    /* ceilings, and a dot a kernel step */
void bench_plot_breakdown(FILE *out, const struct bench_report *report, const struct bench_palette *palette);   /* a bar a run, of its steps' shares of the time */
void bench_plot_curves(FILE *out, const struct bench_report *report, const char *section);                      /* tokens per second over the batch */

#endif
