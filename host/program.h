/* A program is a flat list of steps. Built once; then submitted, timed, printed or audited. Barriers are derived here from what steps declare, never written by hand. */
#ifndef VKM_HOST_PROGRAM_H
#define VKM_HOST_PROGRAM_H

#include "kernel.h"

/* The buffers that steps of one program use: descriptor set 0 of kernel.h. `slabs` and `kv` longer than the caps' arrays are refused; shorter arrays are
 * filled up with their first entry (or the workspace if empty). A program may use several sets, one for a group of layers. All share workspace and tables. */
typedef struct vkm_bindings vkm_bindings;
vkm_result vkm_bindings_create(vkm_device *device, vkm_buffer *workspace, vkm_buffer *tables, vkm_buffer *const *slabs, uint32_t n_slabs,
                               vkm_buffer *const *kv, uint32_t n_kv, vkm_bindings **bindings, vkm_error *err);
void vkm_bindings_destroy(vkm_bindings *bindings);

/* A range that a step touches: bytes [begin, end) of the workspace (NULL) or of a KV buffer. Weights and tables are read-only and not declared. */
struct vkm_range { vkm_buffer *buffer; uint64_t begin, end; };
#define VKM_STEP_RANGES 24

struct vkm_step {
    const vkm_kernel *kernel;
    const vkm_bindings *bindings;      /* borrowed until the program is destroyed */
    const char *label;                 /* "blk.3.moe_gate_up"; copied, up to 63 characters */
    uint32_t push[VKM_PUSH_BYTES / 4];
    uint32_t push_bytes;
    uint32_t groups[3];                /* workgroups; for an indirect step the most that it may be (print, cost) */
    bool indirect;                     /* workgroups from three u32 at indirect_offset of the workspace, declared as read automatically */
    uint64_t indirect_offset;
    uint32_t n_reads, n_writes;
    struct vkm_range reads[VKM_STEP_RANGES], writes[VKM_STEP_RANGES];
    uint32_t concurrent;               /* nonzero: neighbouring steps of the same value write disjoint parts of what they declare; no barrier between them */
    bool grows;                        /* takes longer the longer sequences are: see slice.h */
    uint64_t bytes, flops;             /* counted from what the kernel must move and do: cost and roofline; an estimate for indirect steps */
};

typedef struct vkm_program vkm_program;
vkm_result vkm_program_create(vkm_device *device, const char *name, vkm_program **program, vkm_error *err);
void vkm_program_destroy(vkm_program *program);                             /* waits until it is idle */
vkm_result vkm_program_add(vkm_program *program, const struct vkm_step *step, vkm_error *err);   /* copied */
/* Appends a copy at the end of the program: n bytes from `from` to `to` (workspace to READBACK buffer); ordered against steps by derived barriers. */
vkm_result vkm_program_copy(vkm_program *program, vkm_buffer *from, uint64_t from_offset, vkm_buffer *to, uint64_t to_offset, uint64_t bytes, vkm_error *err);
/* Compiles the kernels that were not yet, several at a time, on threads that end before it returns; derives barriers. */
vkm_result vkm_program_finish(vkm_program *program, vkm_error *err);

/* For programs that change from one recording to the next: takes all steps and copies out again. Their memory stays, so that as many can be added without an allocation. Not once it was submitted. */
void vkm_program_reset(vkm_program *program);
/* Instead of vkm_program_finish, for vkm_program_record_into: derives barriers, and allocates nothing if it did that for as many steps before. Kernels must be compiled. */
vkm_result vkm_program_prepare(vkm_program *program, vkm_error *err);

/* An indirect step cannot be split: in how many steps work of this size should come, so that each fits a submission. 1 on CPU drivers, which have no watchdog. */
uint32_t vkm_program_pieces(const vkm_device *device, uint64_t bytes, uint64_t flops);

/* Queues the program `repeat` times in a row (>= 1). Does not wait. Memory of one run is visible to the next. `ticket`: for vkm_wait.
 * The first time it records command buffers, cut so that no submission is expected to run longer than about 0.5 s (a 2 s watchdog elsewhere): by cost and the device's measured rate
 * (conservative until something has been measured). A single direct step that is too long is itself split over workgroups (vkCmdDispatchBase). */
vkm_result vkm_program_submit(vkm_program *program, uint32_t repeat, uint64_t *ticket, vkm_error *err);
/* Records steps and copies [first, end) of a finished program into somebody else's VkCommandBuffer, which is being recorded, for a queue of the device's family, outside a render pass; it is not
 * kept. Before the first stands a barrier for all that compute and transfers did, between them the derived ones, and after the last one that makes what they wrote visible to compute, indirect
 * arguments, transfers and the host. Binds pipelines and descriptor set 0 and pushes constants; allocates, submits and waits for nothing. See slice.h for work that is to end in time. */
void vkm_program_record_into(vkm_program *program, void *commands, uint32_t first, uint32_t end);

/* foreign.c: what goes around that. Barriers: before the first copy, towards everything before (`others`) or our own steps and copies; between copies that depend on each other;
 * behind the last copy, for everything after and the host. */
void vkm_record_begin(vkm_device *device, void *commands, bool others);
void vkm_record_barrier(vkm_device *device, void *commands);
void vkm_record_end(vkm_device *device, void *commands);
/* Rows between a VkBuffer of the caller's and one of ours; `out`: to the caller's. */
struct vkm_foreign_rows { uint64_t foreign, foreign_offset, foreign_pitch; vkm_buffer *own; uint64_t own_offset, own_pitch, row_bytes; uint32_t rows; };
void vkm_record_rows(vkm_device *device, void *commands, const struct vkm_foreign_rows *rows, bool out);
void vkm_record_fill(vkm_device *device, void *commands, vkm_buffer *to, uint64_t offset, uint64_t bytes, uint32_t word);
/* Waits until the ticket (and everything before it) is done. Device lost is VKM_ERR_DEVICE_LOST, naming the program. */
vkm_result vkm_wait(vkm_device *device, uint64_t ticket, vkm_error *err);
bool vkm_done(vkm_device *device, uint64_t ticket);                         /* poll */

/* Writes host data into the workspace before later submissions run (vkCmdUpdateBuffer-like, <= 65536 bytes, multiple of 4; ordered on the queue). */
vkm_result vkm_workspace_write(vkm_device *device, vkm_buffer *to, uint64_t offset, const void *data, uint64_t bytes, vkm_error *err);
/* Fills a buffer with zero words, ordered on the queue. */
vkm_result vkm_buffer_clear(vkm_device *device, vkm_buffer *buffer, vkm_error *err);
/* Copies parts of a buffer to another, or to other parts of itself that none of them overlaps; ordered on the queue. Offsets and sizes are multiples of 4. */
struct vkm_part { uint64_t from, to, bytes; };
vkm_result vkm_buffer_copy(vkm_device *device, vkm_buffer *from, vkm_buffer *to, const struct vkm_part *parts, uint32_t n, vkm_error *err);

/* Runs once, waits, with a timestamp around each step; then vkm_program_print shows times. VKM_ERR_UNSUPPORTED where the queue has no timestamps. */
vkm_result vkm_program_profile(vkm_program *program, vkm_error *err);
/* GPU nanoseconds of step i in the last profile; 0 if none. */
uint64_t vkm_program_step_ns(const vkm_program *program, uint32_t i);
uint32_t vkm_program_step_count(const vkm_program *program);
uint32_t vkm_program_op_count(const vkm_program *program);                 /* steps and copies */
uint32_t vkm_program_barrier_count(const vkm_program *program);            /* derived ones, between steps and copies */
const struct vkm_step *vkm_program_step(const vkm_program *program, uint32_t i);
void vkm_program_print(const vkm_program *program, vkm_text *out);          /* a line a step: label, kernel, variant, workgroups, reads, writes, barrier before, time */

/* Tests: runs the program once, step by step, waiting after each. Before a step everything in the workspace and its KV buffers that it does not declare as read is
 * set aside and poisoned (a NaN pattern); after it, anything changed outside its declared writes is an error naming step and offset; then what was set aside comes back.
 * VKM_ERR_FORMAT with the step's label when a step lied. What the program leaves behind equals a normal run's, so the caller can compare bits. */
vkm_result vkm_program_audit(vkm_program *program, vkm_error *err);

#endif
