/* What frames took, for the overlay and for the report; and the files that a headless run leaves. */
#ifndef ENGINE_STATS_H
#define ENGINE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum inference { INFERENCE_OFF, INFERENCE_BUDGET, INFERENCE_FREE, INFERENCE_MODES };
extern const char *const inference_names[INFERENCE_MODES];

/* A series of numbers that grows. */
struct series { double *values; size_t n, room; };
void series_add(struct series *s, double value);
double series_percentile(const struct series *s, double percent);   /* 0 if there is none */
double series_sum(const struct series *s);

/* A stretch of frames in one mode. */
struct phase {
    enum inference inference;
    struct series frame_ms;                  /* from one frame's begin to the next one's */
    struct series draw_ms, added_ms;         /* GPU time of drawing, and of what was recorded before it */
    struct series slices;                    /* the same, of those frames that had a slice and were not the last of what there was to do */
    double seconds;
    uint64_t tokens;
};

struct report {
    const char *device, *driver, *model;
    uint32_t api_version, characters, frames, validation_messages;
    double budget_ms;
    bool validation;
    struct phase phases[INFERENCE_MODES];
    uint32_t n_phases;
};
bool report_write(const struct report *r, const char *path);         /* "-": standard output */
void report_free(struct report *r);
bool png_write(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height);

#endif
