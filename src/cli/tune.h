/* vkmoe tune: what its parts share. tune.c measures and keeps; tune_check.c compares its choices with all others. */
#ifndef VKM_CLI_TUNE_H
#define VKM_CLI_TUNE_H

#include "bench_device.h"
#include "nn/tune.h"

struct tune {
    const struct args *args;
    vkm_device *device;
    const struct vkm_caps *caps;
    struct vkm_shape shape;
    struct vkm_tuning_key key;
    struct vkm_tuning tuning;
    const char *folder;                    /* NULL: nothing is kept */
    bool types[VKM_TUNING_TYPES];          /* asked for, by place in vkm_types */
    vkm_error *err;
};

/* A program that runs against others. before: what it needs done first, not timed; NULL: nothing. seconds, out: the least that a run took: what else the machine does only ever adds. */
#define TUNE_RUNS 32
struct tune_racer { vkm_program *before, *program; double seconds; uint32_t repeat, n_runs; double runs[TUNE_RUNS]; };
/* All of them by turns, so that drift hits all alike, until `most` rounds (up to TUNE_RUNS) are done, or max_seconds are over and `least` are. runs: of this race. VKM_ERR_CANCELLED
 * after Ctrl-C. */
vkm_result tune_race(vkm_device *device, struct tune_racer *racers, uint32_t n, uint32_t least, uint32_t most, double max_seconds, vkm_error *err);

/* "1, 4 from 2, 8 from 5" */
void tune_print_tiles(const uint8_t tile_from[VKM_TILE_CLASSES], vkm_text *out);

/* N random cases on a tuned device; prints them. STATUS_OK or a failure that was reported. */
int tune_check(struct tune *t);

#endif
