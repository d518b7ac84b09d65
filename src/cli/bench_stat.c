/* Repeating a run until its figure is trusted, and what is said about the repetitions. */
#include "bench.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two values around it, in proportion (what NumPy calls linear). */
static double quantile(const double *sorted, uint32_t n, double q)
{
    double at = q * (n - 1);
    uint32_t i = (uint32_t)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double median_of(const double *values, uint32_t n)
{
    double *copy = malloc(n * sizeof *copy), m = NAN;
    if (!copy) return m;
    memcpy(copy, values, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, ascending);
    m = quantile(copy, n, 0.5);
    free(copy);
    return m;
}

/* How many values each end of the sorted sample loses to the 95 % confidence interval of the median, which then reaches from the next to the next: the largest k
 * with 2 P(B < k) <= 0.05, B binomial(n, 1/2), since the k-th smallest lies above the median when fewer than k values lie below it. 0: too few values (n < 6). */
static uint32_t interval_rank(uint32_t n)
{
    if (n > 500) return (uint32_t)((n - 1.96 * sqrt(n)) / 2);           /* the normal distribution; 2^-n is no double for n > 1074 */
    double p = ldexp(1, -(int)n), below = 0;
    uint32_t k = 0;
    while (k < n && 2 * (below + p) <= 0.05) {
        below += p;
        p *= (double)(n - k) / (k + 1);
        k++;
    }
    return k;
}

static bool is_tight(const double *sorted, uint32_t n, double tight)
{
    uint32_t k = interval_rank(n);
    if (k == 0) return false;
    double m = quantile(sorted, n, 0.5);
    return sorted[k - 1] >= m - tight * fabs(m) && sorted[n - k] <= m + tight * fabs(m);
}

static struct bench_stat stat_of(const double *values, uint32_t n, double tight)
{
    struct bench_stat s = {.median = NAN, .p10 = NAN, .p90 = NAN};
    double *sorted = n ? malloc(n * sizeof *sorted) : NULL;
    if (!sorted) return s;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, ascending);
    s = (struct bench_stat){.n = n, .median = quantile(sorted, n, 0.5), .p10 = quantile(sorted, n, 0.1), .p90 = quantile(sorted, n, 0.9), .tight = is_tight(sorted, n, tight)};
    free(sorted);
    uint32_t third = n / 3;
    if (third >= 2) s.drift = median_of(values + n - third, third) / median_of(values, third) - 1;
    return s;
}

struct bench_stat bench_stat_of(const double *values, uint32_t n) { return stat_of(values, n, BENCH_TIGHT); }

/* ---------------------------------------------------------------- progress */

static struct { char what[128]; double since; bool drawn, verbose; } progress;

void bench_verbose(bool on) { progress.verbose = on; }

void bench_wipe(void)
{
    if (progress.drawn) fprintf(stderr, "\r%*s\r", 100, "");
    progress.drawn = false;
}

void bench_say(const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    bench_wipe();
    vsnprintf(progress.what, sizeof progress.what, fmt, list);
    progress.since = seconds();
    va_end(list);
    if (progress.verbose) fprintf(stderr, "vkmoe: %s\n", progress.what);
}

void bench_draw(uint32_t runs)
{
    double time = seconds() - progress.since;
    if (time < 1 || progress.verbose || !progress.what[0] || !is_terminal(stderr)) return;
    char line[101];
    int n = snprintf(line, sizeof line, "%.70s: %u runs, %.0f s", progress.what, runs, time);
    fprintf(stderr, "\r%s%*s", line, n < 100 ? 100 - n : 0, "");
    progress.drawn = true;
}

/* ---------------------------------------------------------------- measuring */

vkm_result bench_measure(const struct bench_policy *policy, bench_run run, void *user, struct bench_stat *wall, struct bench_stat *gpu, vkm_error *err)
{
    double *times = NULL, *gpu_times = NULL, start = 0, on_gpu;
    uint32_t n = 0, room = 0;
    bool has_gpu = true;
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; i < policy->warmups && r == VKM_OK; i++) {
        bench_draw(0);
        r = interrupted() ? vkm_fail(err, VKM_ERR_CANCELLED, "interrupted") : run(user, &on_gpu, err);
    }
    for (double now = start = seconds(); r == VKM_OK && n < policy->max_runs && (n == 0 || now - start < policy->max_seconds); ) {
        if (n == room) {
            double *more = realloc(times, (room = room ? 2 * room : 64) * sizeof *more);
            if (more) times = more;
            double *more_gpu = more ? realloc(gpu_times, room * sizeof *more_gpu) : NULL;
            if (!more_gpu) { r = vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory"); break; }
            gpu_times = more_gpu;
        }
        on_gpu = NAN;
        double before = seconds();
        r = run(user, &on_gpu, err);
        now = seconds();
        if (r == VKM_OK && interrupted()) r = vkm_fail(err, VKM_ERR_CANCELLED, "interrupted");
        if (r != VKM_OK) break;
        times[n] = now - before;
        gpu_times[n++] = on_gpu;
        if (isnan(on_gpu)) has_gpu = false;
        bench_draw(n);
        if (n < policy->min_runs) continue;
        if (n >= 32 && n % 8) continue;                    /* sorting all of them each time would cost more than short runs do */
        if (stat_of(times, n, policy->tight).tight && (!has_gpu || stat_of(gpu_times, n, policy->tight).tight)) break;
    }
    if (r == VKM_OK) {
        *wall = stat_of(times, n, policy->tight);
        *gpu = has_gpu ? stat_of(gpu_times, n, policy->tight) : (struct bench_stat){.median = NAN, .p10 = NAN, .p90 = NAN};
    }
    bench_wipe();
    free(times);
    free(gpu_times);
    return r;
}
