/* How long a program takes: by the wall clock over long submissions, and by the device's own clock. */
#include "bench_device.h"
#include <math.h>

/* A submission this long makes its round trip (10 to 100 us) and the scheduler's wake-up small beside it. */
#define SUBMIT_SECONDS 0.02
#define REPEAT_MOST 4096

vkm_result bench_run_once(vkm_device *device, vkm_program *program, vkm_error *err)
{
    uint64_t ticket;
    vkm_result r = vkm_program_submit(program, 1, &ticket, err);
    return r ? r : vkm_wait(device, ticket, err);
}

struct clocked { vkm_device *device; vkm_program *program; uint32_t repeat; bench_profiled profiled; void *user; };

static vkm_result run_submission(void *user, double *gpu_seconds, vkm_error *err)
{
    struct clocked *c = user;
    uint64_t ticket;
    *gpu_seconds = NAN;
    vkm_result r = vkm_program_submit(c->program, c->repeat, &ticket, err);
    return r ? r : vkm_wait(c->device, ticket, err);
}

static vkm_result run_profile(void *user, double *gpu_seconds, vkm_error *err)
{
    struct clocked *c = user;
    vkm_result r = vkm_program_profile(c->program, err);
    if (r) return r;
    uint64_t ns = 0;
    for (uint32_t i = 0, n = vkm_program_step_count(c->program); i < n; i++) ns += vkm_program_step_ns(c->program, i);
    *gpu_seconds = (double)ns * 1e-9;
    return c->profiled ? c->profiled(c->user, c->program, err) : VKM_OK;
}

void bench_stat_divide(struct bench_stat *s, double by) { s->median /= by; s->p10 /= by; s->p90 /= by; }

vkm_result bench_time_program(vkm_device *device, vkm_program *program, const struct bench_policy *policy, bench_profiled profiled, void *user, struct bench_times *times, vkm_error *err)
{
    struct clocked c = {.device = device, .program = program, .repeat = 1, .profiled = profiled, .user = user};
    struct bench_policy half = *policy;
    struct bench_stat ignored;
    double one = 0;
    half.max_seconds /= 2;
    half.warmups = 0;
    *times = (struct bench_times){.gpu = {.median = NAN, .p10 = NAN, .p90 = NAN}};
    for (uint32_t i = 0; i < (policy->warmups ? policy->warmups : 1); i++) {      /* the last one also tells how long a run takes */
        double start = seconds();
        vkm_result r = bench_run_once(device, program, err);
        if (r) return r;
        one = seconds() - start;
    }
    if (one < SUBMIT_SECONDS) c.repeat = (uint32_t)fmin(REPEAT_MOST, ceil(SUBMIT_SECONDS / fmax(one, 1e-6)));
    times->repeat = c.repeat;
    vkm_result r = bench_measure(&half, run_submission, &c, &times->wall, &ignored, err);
    if (r) return r;
    bench_stat_divide(&times->wall, c.repeat);
    if (!vkm_device_caps(device)->timestamp_bits || !vkm_program_step_count(program)) return VKM_OK;
    return bench_measure(&half, run_profile, &c, &ignored, &times->gpu, err);
}

const struct bench_stat *bench_trusted(const vkm_device *device, const struct bench_times *times)
{
    return vkm_device_caps(device)->type == VKM_TYPE_CPU || !times->gpu.n ? &times->wall : &times->gpu;
}

int bench_stop(struct bench_report *report, const vkm_error *err)
{
    report->incomplete = true;
    return fail_error(err);
}
