/* vkmoe bench: what the parts share that measure kernels (bench_time.c, bench_roofline.c, bench_layer.c, bench_shapes.c, bench_routing.c, bench_weights.c), and their tests. */
#ifndef VKM_CLI_BENCH_DEVICE_H
#define VKM_CLI_BENCH_DEVICE_H

#include "bench.h"
#include "moe/layer.h"

/* ---------------------------------------------------------------- bench_time.c: how long a finished program takes */

/* Of one run. wall: of submissions of `repeat` runs each, the round trip shared by them; gpu: the sum of the timestamps around the steps, each between full barriers; gpu.n is 0
 * where the queue has none, or the program has only copies. */
struct bench_times { struct bench_stat wall, gpu; uint32_t repeat; };
/* Each of the two in half of the policy's time; so many runs at most where the policy gives them by number. `profiled` (or NULL) is called after every run with timestamps. */
typedef vkm_result (*bench_profiled)(void *user, const vkm_program *program, vkm_error *err);
vkm_result bench_time_program(vkm_device *device, vkm_program *program, const struct bench_policy *policy, bench_profiled profiled, void *user, struct bench_times *times, vkm_error *err);
/* The one of the two to believe: a CPU driver's time is its own, and wall clock is what its user sees; on a GPU submission and wake-up are no part of the work. */
const struct bench_stat *bench_trusted(const vkm_device *device, const struct bench_times *times);
vkm_result bench_run_once(vkm_device *device, vkm_program *program, vkm_error *err);
/* Reports a failure that ends a subcommand: Ctrl-C, a lost device, no memory. STATUS_FAILED, and the report is incomplete. */
int bench_stop(struct bench_report *report, const vkm_error *err);

/* ---------------------------------------------------------------- bench_roofline.c */

/* Measures the ceilings that shares refer to (read bandwidth, multiply-adds of the tier in use) unless the report has them. */
vkm_result bench_ceilings(const struct bench_options *o, vkm_device *device, struct bench_report *report, vkm_error *err);

#endif
