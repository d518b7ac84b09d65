/* vkmoe bench: what the parts share that measure kernels (bench_time.c, bench_roofline.c, bench_layer.c, bench_shapes.c, bench_routing.c, bench_weights.c), and their tests. */
#ifndef VKM_CLI_BENCH_DEVICE_H
#define VKM_CLI_BENCH_DEVICE_H

#include "bench.h"
#include "model/session.h"

/* ---------------------------------------------------------------- bench_time.c: how long a finished program takes */

/* Of one run. wall: of submissions of `repeat` runs each, the round trip shared by them; gpu: the sum of the timestamps around the steps, each between full barriers; gpu.n is 0
 * where the queue has none, or the program has only copies. */
struct bench_times { struct bench_stat wall, gpu; uint32_t repeat; };
/* Each of the two in half of the policy's time; so many runs at most where the policy gives them by number. `profiled` (or NULL) is called after every run with timestamps. */
typedef vkm_result (*bench_profiled)(void *user, const vkm_program *program, vkm_error *err);
vkm_result bench_time_program(vkm_device *device, vkm_program *program, const struct bench_policy *policy, bench_profiled profiled, void *user, struct bench_times *times, vkm_error *err);
/* The one of the two to believe: a CPU driver's time is its own, and wall clock is what its user sees; on a GPU submission and wake-up are no part of the work. */
const struct bench_stat *bench_trusted(const vkm_device *device, const struct bench_times *times);
void bench_stat_divide(struct bench_stat *stat, double by);              /* of several runs, or layers, to one */
vkm_result bench_run_once(vkm_device *device, vkm_program *program, vkm_error *err);
/* Reports a failure that ends a subcommand: Ctrl-C, a lost device, no memory. STATUS_FAILED, and the report is incomplete. */
int bench_stop(struct bench_report *report, const vkm_error *err);

/* ---------------------------------------------------------------- bench_shapes.c */

struct bench_shape {
    const char *name;
    uint32_t n_embd, n_expert, n_used, n_ff, n_ff_shared;   /* n_ff_shared 0: no shared expert */
    bool shared_gated;
    uint32_t score;                                         /* VKM_SCORE_... */
    bool renormalise;
    const char *unlike;                                     /* in what the layer that is measured differs from the model's; NULL: nothing that costs time */
};
extern const struct bench_shape bench_shapes[];
extern const size_t bench_shape_count;
const struct bench_shape *bench_shape_find(const char *name, size_t n);         /* NULL: unknown */
const struct vkm_type *bench_type_find(const char *variant, size_t n);          /* "q4_k" */
const struct vkm_type *bench_type_for(const struct vkm_type *type, uint32_t cols);

/* ---------------------------------------------------------------- bench_routing.c */

uint64_t bench_random(uint64_t *state);
double bench_random01(uint64_t *state);          /* in [0, 1) */
enum bench_routing { BENCH_UNIFORM, BENCH_ZIPF };
/* ids [n][n_used]: distinct experts for each token, all alike or the one of rank r with probability in proportion to 1 / r. Same seed, same ids. */
vkm_result bench_route(uint64_t seed, enum bench_routing routing, uint32_t n_expert, uint32_t n_used, uint32_t n, uint32_t *ids, vkm_error *err);
/* x [n][ld]: rows whose first n_expert columns are the logits that make the router choose `ids` in that order, if its matrix takes column e for expert e; the rest random with
 * deviation 1. n_expert < width. */
void bench_route_inputs(uint64_t seed, uint32_t n_expert, uint32_t n_used, uint32_t n, const uint32_t *ids, uint32_t width, uint32_t ld, float *x);
uint32_t bench_distinct(uint32_t n_expert, const uint32_t *ids, uint32_t n);    /* different experts among n ids */

/* ---------------------------------------------------------------- bench_weights.c: synthetic weights of a layer, in one or more copies that differ */

/* Panels of one matrix (or of all experts') that lie behind each other in a slab. */
struct bench_run { const struct vkm_type *type; uint32_t slab, at /* uvec4 */, panels, first_panel, kb; float scale; bool identity; };
struct bench_plan {
    struct vkm_moe moe;                                     /* as vkm_moe_layer wants it */
    uint32_t tab_norm;                                      /* n_embd ones */
    uint64_t bytes;                                         /* of one copy */
    struct vkm_plan *weights;                               /* as a model's */
    uint32_t n_slabs, n_sets, n_tables;                     /* n_tables: words of one copy */
    struct bench_run *runs; uint32_t n_runs;
};
/* VKM_ERR_LIMIT, saying why, where the device cannot bind such a layer. */
vkm_result bench_plan_create(const struct vkm_caps *caps, const struct bench_shape *shape, const struct vkm_type *type, struct bench_plan *plan, vkm_error *err);
/* Only experts' matrices, as moe.down, for kernels without a layer around them. */
vkm_result bench_plan_experts(const struct vkm_caps *caps, const struct vkm_type *type, uint32_t rows, uint32_t cols, uint32_t experts, struct bench_plan *plan, vkm_error *err);
void bench_plan_destroy(struct bench_plan *plan);

struct bench_weights {
    uint32_t n_copies, n_slabs, n_sets;                     /* slabs and sets of a copy */
    vkm_buffer **slabs, *tables;                            /* tables: those of all copies, one behind the other */
    vkm_bindings **sets;                                    /* [n_copies][n_sets]: vkm_build.sets of a copy */
    uint32_t made_slabs, made_sets;
};
/* Copies of the plan's layer, filled by the device from the seed; all their sets have this workspace. */
vkm_result bench_weights_create(vkm_device *device, const struct bench_plan *plan, uint32_t n_copies, uint32_t seed, vkm_buffer *workspace, struct bench_weights *weights, vkm_error *err);
void bench_weights_destroy(struct bench_weights *weights);
/* The plan's layer with the weights of that copy; its sets are those from copy * n_sets on. */
struct vkm_moe bench_weights_moe(const struct bench_plan *plan, uint32_t copy);

/* ---------------------------------------------------------------- bench_count.c: what a step must move and do, and what it does */

/* What the tile lists that the device wrote say of one expert matmul, summed over its dispatches. */
struct bench_tiles { uint64_t tiles, rows, computed /* rows with the tiles' padding */, empty /* workgroups without a row */, words_in, words_out /* of x and y, all rows */; };
/* Reads them from words [tiles.ld] and [args.ld] of the space, as they were after a layer of n tokens; adds to *t. Of a tile of matrices those that hold no row are left out. */
vkm_result bench_tiles_add(const struct vkm_shape *kernels, const struct vkm_moe *moe, const struct vkm_moe_space *space, uint32_t n, const struct vkm_step *step, const uint32_t *tiles, const uint32_t *args, struct bench_tiles *t, vkm_error *err);

/* weights: of the bytes, those of weights, each matrix once. moved: bytes with the weights that tiles of the same expert read again; inputs read again by neighbouring workgroups
 * are left to the caches. */
struct bench_work { double bytes, weights, flops, moved; };
/* Words of a row of x and of y as an expert matmul has them: f16 and 8-bit rows have fewer than columns. Zeros: f32. */
struct bench_words { double in, out; };
struct bench_words bench_words_of(const struct vkm_step *step);
/* Of the step with that label in a layer of n tokens that choose `distinct` experts; tiles: of tokens, of a matmul. All may be means over several layers. false: an unknown label. */
bool bench_work_of(const struct vkm_moe *moe, const char *label, uint32_t n, double distinct, double tiles, struct bench_words words, struct bench_work *work);

/* ---------------------------------------------------------------- bench_layer.c */

/* Where a layer of n tokens works, as a session would have it. */
void bench_space(const struct vkm_caps *caps, const struct bench_shape *shape, const struct bench_plan *plan, uint32_t n, struct vkm_space *space);

struct bench_case { uint32_t tokens; enum bench_routing routing; };
/* One shape and type in all its cases: rows "layer" and "step". Cases that cannot be are rows that say so; an error ends the command. */
vkm_result bench_layer_shape(const struct bench_options *o, vkm_device *device, struct bench_report *report, const struct bench_shape *shape, const struct vkm_type *type,
                             const struct bench_case *cases, uint32_t n_cases, vkm_error *err);

#endif
