/* Work that is to end in time: programs recorded into somebody else's command buffer, a slice at a time, each as much as fits a budget. What steps take is learnt from timestamps of earlier slices.
 * A slice begins and ends at any step of a program, or inside one that has many workgroups. Between vkm_slicer_begin and _end nothing allocates, submits or waits. */
#ifndef VKM_HOST_SLICE_H
#define VKM_HOST_SLICE_H

#include "program.h"

typedef struct vkm_slicer vkm_slicer;
#define VKM_SLICES 16               /* in flight at most */

vkm_result vkm_slicer_create(vkm_device *device, vkm_slicer **slicer, vkm_error *err);
void vkm_slicer_destroy(vkm_slicer *slicer);
/* Makes room for what the steps of a finished program take. A program belongs to one slicer, and outlives its last slice with it. */
vkm_result vkm_slicer_learn(vkm_slicer *slicer, vkm_program *program, vkm_error *err);

/* Where in a program the next slice goes on: op, and in it the first workgroup along its axis. Zero: at the begin. */
struct vkm_cursor { uint32_t op, group; };

/* Begins a slice of at most max_us (0: no bound) and max_dispatches (0) in a VkCommandBuffer. False, and nothing is recorded, when VKM_SLICES are in flight. */
bool vkm_slicer_begin(vkm_slicer *slicer, void *commands, uint32_t max_us, uint32_t max_dispatches);
/* Nothing more fits. */
bool vkm_slicer_full(const vkm_slicer *slicer);
/* How long what was recorded so far is expected to take. */
double vkm_slicer_expected_us(const vkm_slicer *slicer);
/* Words into a buffer, at most 65536 bytes, and copies of few words; seen by what comes after. Not counted. */
void vkm_slicer_write(vkm_slicer *slicer, vkm_buffer *to, uint64_t offset, const void *data, uint64_t bytes);
void vkm_slicer_gather(vkm_slicer *slicer, vkm_buffer *buffer, const struct vkm_part *parts, uint32_t n);   /* parts of a buffer to others of it */
/* Copies that take time, counted as one. False: they do not fit, nothing was recorded. */
bool vkm_slicer_copy(vkm_slicer *slicer, vkm_buffer *from, vkm_buffer *to, const struct vkm_part *parts, uint32_t n);
/* Records a program from *at on and moves that. True when all of it is; false when the slice is full: the program goes on in the next. load: what the time of its steps with `grows` depends on. */
bool vkm_slicer_run(vkm_slicer *slicer, vkm_program *program, struct vkm_cursor *at, double load);
/* Whether every step of the program that cannot be divided is expected to fit a slice of max_us. */
bool vkm_slicer_fits(const vkm_slicer *slicer, const vkm_program *program, double load, uint32_t max_us);
/* Ends the slice: all of it is visible to compute, transfers and the host. Its number; what was counted, and how long it is expected to take. */
uint64_t vkm_slicer_end(vkm_slicer *slicer, uint32_t *n_dispatches, double *expected_us);

/* Slices up to `number` have been executed. *us, of the last: if it is positive it says how long that took, else the timestamps do and *us is set (0: there were none). */
vkm_result vkm_slicer_completed(vkm_slicer *slicer, uint64_t number, double *us, vkm_error *err);
/* The slices in flight will never be. */
void vkm_slicer_discard(vkm_slicer *slicer);
uint64_t vkm_slicer_last(const vkm_slicer *slicer);        /* number of the last slice, 0 before the first */
uint32_t vkm_slicer_in_flight(const vkm_slicer *slicer);

/* A command buffer of the device's own: what is recorded until it is submitted runs once, behind what was submitted before. `ticket`: for vkm_wait. */
vkm_result vkm_commands_begin(vkm_device *device, void **commands, vkm_error *err);
vkm_result vkm_commands_submit(vkm_device *device, uint64_t *ticket, vkm_error *err);

#endif
