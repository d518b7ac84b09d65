/* Building a program: one function a kind of step. It picks the kernel variant from caps, fills the push constants, declares what is read and written and counts bytes and flops.
 * Nothing here knows an architecture: src/model/ strings these together. */
#ifndef VKM_NN_BUILD_H
#define VKM_NN_BUILD_H

#include "host/program.h"
#include "shaders/abi.h"
#include "types.h"
#include <string.h>

/* A matrix, or the matrices of all experts, as kernels see it: row chunks in slabs (tables entry of abi.h). */
struct vkm_weight {
    const struct vkm_type *type;     /* NULL: absent */
    uint32_t rows, cols;             /* of one expert; rows are features when glu */
    uint32_t experts;                /* 1: dense */
    bool glu;                        /* panels of 16 gate rows and 16 up rows */
    uint32_t kb, n_panels;           /* columns / 32, panels of one expert, both rounded up */
    uint32_t n_chunks, chunk_panels;
    uint32_t tab;                    /* words into the tables buffer */
    bool whole;                      /* all of it lies in one slab, one panel after another */
    uint32_t slab, at;               /* whole: number of the slab in the set, and uvec4 there */
    uint32_t set;                    /* which vkm_bindings it is reached through */
};

/* A part of the workspace: rows of `ld` words. */
struct vkm_region { uint32_t at, ld, rows; };

/* What few tokens' matmuls do besides, on a device where a step costs more than doing it in every workgroup: see vkm_linear_norms and vkm_matmul_adds. */
struct vkm_norm { uint32_t tab, width; float eps; };            /* x is the residual stream, and is normed first */
struct vkm_residual { struct vkm_region x; float scale; uint32_t ws_arrived; };   /* x += scale * y. ws_arrived: of moe_down, a word a panel that is 0 between passes */

/* What a matmul does with its sums (abi.h): activation, biases, routing weight. */
struct vkm_epilogue {
    uint32_t act;                    /* VKM_ACT_...; of the gate where the weight is a glu pair */
    bool limited;                    /* with silu: g sigmoid(alpha g) (u + add), g at most limit, u within +-limit */
    float alpha, limit, add;
    bool weight_first;               /* moe_gate_up multiplies by the routing weight, before the bias, and moe_down does not */
    uint32_t tab_bias;               /* tables: [experts][rows], of a pair [experts][2][rows]; VKM_NONE: none */
    const struct vkm_norm *norm;     /* or NULL; linear only */
    const struct vkm_residual *residual;   /* or NULL; linear, which has no y then, and moe_down */
};
/* The region behind *words, with rows that matmuls read in blocks of 32 columns. */
static inline struct vkm_region vkm_take(uint64_t *words, uint64_t rows, uint32_t width)
{
    struct vkm_region r = {(uint32_t)*words, (uint32_t)vkm_align(width, VKM_PANEL_ROWS), (uint32_t)rows};
    *words += rows * r.ld;
    return r;
}

#define VKM_COOPMAT_ROWS 16

/* Workgroup shapes for this device: see vkm_shape_choose. */
struct vkm_shape {
    bool scalar_loads;                       /* the kernels of matmul_cpu.glsl, weights in planes of words */
    bool texel_loads;                        /* kernels named _texel, where all that they read lies in the first slab of their set */
    uint32_t lanes, rows_per_lane, splits;   /* matmul: local_size_x, RPL, local_size_y at most */
    uint8_t tile_from[VKM_TILE_CLASSES];     /* how tokens are cut into tiles: see abi.h */
    struct vkm_matrix matrix;                /* of matmul_coop.glsl; m 0: not in use */
    uint32_t matrix_panels, matrix_subgroups, matrix_lanes;   /* of a workgroup; lanes of a subgroup */
    uint32_t matrix_tokens, matrix_step, matrix_buffers;   /* of the largest tile; STEP at most; BUFFERS */
    uint32_t coop_subgroups, coop_keys, coop_buffers, coop_fetch;   /* of attention_coop.comp: SUBGROUPS at most, 0: not in use; KEYS, BUFFERS, FETCH */
    uint32_t reduce_lanes, wide_lanes;       /* norm, router, rope; norms of wide rows at most, 0: as the others */
    uint32_t sample_lanes, few_rows;         /* few_rows: tokens that moe_topk sorts itself at most; 0: as many as it can */
    uint32_t singles, joined_rows;           /* where splits > 1: tokens that dense matrices multiply one by one at most; that the router's workgroups choose for, each for one, and sort */
    uint32_t attention_lanes, attention_rows, attention_parts;   /* local_size_x, NQ, PARTS at most */
    bool holds_many;                         /* compilers have registers for dozens of values that are on their way to a lane: those for devices with matrices of 16 rows (AMD, NVIDIA) do; Intel's and Adreno's spill up to 200 */
    uint32_t lane_registers;                 /* as caps->lane_registers */
};
void vkm_shape_choose(const struct vkm_caps *caps, struct vkm_shape *shape);
/* Tiles of at most `most` tokens (4 to 16; up to 128 where matrices take tiles from VKM_COOPMAT_ROWS on), and for the rest the smallest that holds it. */
void vkm_shape_tiles(struct vkm_shape *shape, uint32_t most);
/* Tokens of the largest tile that could be: more take too many registers, or do not go into the matrices' shared memory. */
uint32_t vkm_shape_tile_most(const struct vkm_shape *shape);
/* The class of the first of the tiles that `rows` are cut into. */
uint32_t vkm_tile_class(const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t rows);

struct vkm_tuning;                           /* tune.h */

/* Forms of x that kernels want: int8 (int8dot), f16 (coopmat), and beside x itself its blocks' sums (scalar_loads, weights with an offset). rows: words. */
enum { VKM_FORM_INT8, VKM_FORM_F16, VKM_FORM_SUMS, VKM_FORMS };
struct vkm_inputs { struct vkm_region form[VKM_FORMS]; };

struct vkm_build {
    vkm_device *device;
    struct vkm_shape shape;
    const struct vkm_tuning *tuning;         /* chooses tiles where it has the weights' types, instead of shape.tile_from, and whether int8dot is used; NULL: none. No bits depend on it but those of these and of cooperative matrices */
    vkm_program *program;
    vkm_buffer *workspace;
    vkm_bindings *const *sets;
    int layer;                               /* for labels; < 0: none */
    vkm_error *err;
    struct vkm_inputs inputs;                /* room for rows of x in other forms, where a tier wants them */
    struct { uint32_t at, ld, kb, rows; } there[VKM_FORMS];   /* the x that each form holds at this point of the program; rows 0: none */
};

/* Puts push constants (a struct of abi.h) into a step. */
#define VKM_STEP_PUSH(step, constants) do { _Static_assert(sizeof (constants) <= VKM_PUSH_BYTES, "push constants"); \
    memcpy((step).push, &(constants), sizeof (constants)); (step).push_bytes = sizeof (constants); } while (0)

/* Adds a step of kernel name:variant; label is prefixed by the layer. Used by the functions below and by src/moe. */
vkm_result vkm_build_step(struct vkm_build *b, const char *kernel, const char *variant, const uint32_t *spec, uint32_t n_spec, struct vkm_step *step, const char *label);
/* The same of the module that vkm_kernel_tier chooses among `tiers`, for kernels whose constants or inputs differ by tier. */
vkm_result vkm_build_step_of(struct vkm_build *b, const char *kernel, const char *variant, uint32_t tiers, const uint32_t *spec, uint32_t n_spec, struct vkm_step *step, const char *label);
/* Declares the first n rows of a region. */
void vkm_reads(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t n);
void vkm_writes(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t n);
/* Declares the first `width` words of each of n rows, and what lies between them. */
void vkm_reads_part(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t width, uint32_t n);
void vkm_writes_part(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t width, uint32_t n);
void vkm_reads_words(struct vkm_build *b, struct vkm_step *s, uint32_t at, uint32_t words);
void vkm_writes_words(struct vkm_build *b, struct vkm_step *s, uint32_t at, uint32_t words);

/* Lanes of a reducing kernel that loops so often in all */
uint32_t vkm_reduce_lanes(const struct vkm_build *b, uint64_t iterations);
/* REDUCE_SHARED of reduce.glsl for so many lanes: 1 where they are known to be one subgroup */
uint32_t vkm_reduce_shared(const struct vkm_build *b, uint32_t lanes);
/* Loop iterations of an attention lane over a context, for drivers that bound them */
uint64_t vkm_attention_iterations(uint32_t head, uint32_t n_ctx);

/* matmul pieces shared with src/moe */
uint32_t vkm_matmul_groups(const struct vkm_shape *shape, const struct vkm_weight *w, uint32_t n_tile);
/* Parts that columns of these weights are summed in: the same for any number of tokens, or a token's bits would depend on the batch. */
uint32_t vkm_shape_splits(const struct vkm_shape *shape, const struct vkm_weight *w);
/* The most that they could be for so many blocks of columns, on any device. */
uint32_t vkm_splits_most(uint32_t kb);
/* Panels of a workgroup by class of tiles, as shaders have it. */
uint32_t vkm_shape_panels(const struct vkm_shape *shape);
void vkm_matmul_push(const struct vkm_build *b, const struct vkm_weight *w, struct vkm_push_matmul *push);
/* What matmul kernel `kernel` ("linear", "moe_gate_up", "moe_down") reads in the form for this device and size of tiles: the first n rows of *x, or of what *x becomes: the same as int8 or f16,
 * made by a step of its own unless the last one was for these rows and nobody has written to them since. The sums of its blocks are made likewise, beside *x, which stays. */
vkm_result vkm_matmul_input(struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile, struct vkm_region *x, uint32_t n);
/* Words that n rows of so many columns take in a form; 0: the device has no use for it. */
uint64_t vkm_form_words(const struct vkm_caps *caps, uint32_t form, uint32_t n, uint32_t cols);
/* Puts the parameters into push, and gives the bits that the kernel is made with. */
uint32_t vkm_matmul_epilogue(const struct vkm_weight *w, const struct vkm_epilogue *e, struct vkm_push_matmul *push);
/* Whether the kernel takes x as f16 for tiles of that size, and can make its y so (VKM_EPILOGUE_HALVES). */
bool vkm_matmul_halves(const struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile);
/* Adds a step of the kernel in that form, with the bits of an epilogue. */
vkm_result vkm_matmul_step(struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile, uint32_t epilogue, struct vkm_step *step, const char *label);
uint64_t vkm_matmul_bytes(const struct vkm_weight *w);       /* one expert's weights */
#define VKM_TILE_SIZES {1, 4, 8, 16, 32, 64, 128}
/* The smallest that holds n rows, at most those of the largest */
uint32_t vkm_tile_rows(uint32_t n);
/* How the rows of these weights, which share their tiles, are cut: see vkm_tiles_fit. */
void vkm_build_tiles(const struct vkm_build *b, const struct vkm_weight *const *weights, uint32_t n_weights, uint32_t n, uint32_t n_used, uint32_t n_expert, uint8_t tile_from[VKM_TILE_CLASSES]);

/* y[t] = W x[t] + bias, t < n, or act(W_gate x) * (W_up x) of a glu pair, by the epilogue */
vkm_result vkm_linear_finish(struct vkm_build *b, const char *label, const struct vkm_weight *w, const struct vkm_epilogue *e, struct vkm_region x, struct vkm_region y, uint32_t n);
/* y[t] = W x[t] + bias. bias: tables word or VKM_NONE */
/* Whether linear makes the norms of n tokens over its columns itself, with the bits of combine_norm: small matrices on a GPU that does tokens one by one. */
bool vkm_linear_norms(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n);
/* The same of any kernel that has shared_bytes of shared memory besides. */
bool vkm_norm_fits(const struct vkm_build *b, uint32_t width, uint32_t shared_bytes);
/* Whether y of up to n rows, so cut into tiles, can be added to the residual stream by what makes it: no tile is of matrices, and a workgroup has no more than a panel. */
bool vkm_matmul_adds(const struct vkm_build *b, const struct vkm_weight *w, const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t n);
/* The same of linear. */
bool vkm_linear_adds(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n);
vkm_result vkm_linear(struct vkm_build *b, const char *label, const struct vkm_weight *w, uint32_t bias, struct vkm_region x, struct vkm_region y, uint32_t n);
vkm_result vkm_embed(struct vkm_build *b, const struct vkm_weight *w, uint32_t ws_tokens, struct vkm_region x, uint32_t n_embd, uint32_t n, float scale);

struct vkm_combine {
    struct vkm_region x;
    uint32_t width;
    struct vkm_region y; uint32_t n_add;          /* rows of y per token; 0: no addition */
    struct vkm_region shared, gate;               /* rows 0: none */
    uint32_t tab_norm;                            /* VKM_NONE: none, out is x */
    struct vkm_region out;                        /* rows 0: none */
    struct vkm_region x_rows, out_rows;           /* u32: the row of x, or of out, for each of the n; rows 0: one after the other */
    float scale, eps;
    uint32_t concurrent;                          /* as a step's */
};
uint32_t vkm_combine_lanes(const struct vkm_build *b, const struct vkm_combine *c);
vkm_result vkm_combine_norm(struct vkm_build *b, const char *label, const struct vkm_combine *c, uint32_t first, uint32_t n);

/* The KV cache of one layer: units of abi.h, in up to VKM_KV_PARTS slabs of the set */
#define VKM_KV_PARTS 16
struct vkm_kv {
    uint32_t k_unit, v_unit, units;               /* units: in a slab */
    uint64_t bytes;                               /* of a unit */
    uint32_t set, n_parts, slab;                  /* slab: the set's first of all KV slabs */
    struct vkm_range parts[VKM_KV_PARTS];         /* what these units take of each slab */
};
struct vkm_attention {
    uint32_t n_head, n_head_kv, head, n_rot;
    bool neox, kv16;
    uint32_t tab_q_norm, tab_k_norm, tab_rope, tab_kv;   /* tab_kv: device addresses of all KV slabs */
    float eps, clamp, scale;
    uint32_t n_ctx;                               /* a multiple of 32 */
    struct vkm_region q, k, v, out;
    uint32_t ws_pos, ws_seq;                      /* position and sequence of each row */
    bool one_sequence;                            /* all rows are of one, else each may be of its own */
};
/* q, k and v of n rows get their norms and positions, k and v go to the cache, out becomes the heads' attention. */
vkm_result vkm_attend(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, uint32_t n);
/* The last of that alone: q is ready, and the cache has k and v. */
vkm_result vkm_attention_step(struct vkm_build *b, const struct vkm_attention *a, const struct vkm_kv *kv, uint32_t n);

/* Sampling of n rows: abi.h says what lies where. n_seq: sequences that there are parameters and recent tokens of. */
struct vkm_sample { struct vkm_region logits, scratch; uint32_t n_vocab, n_seq, ws_sampling, ws_recent, ws_tokens, ws_pos, ws_seq; };
vkm_result vkm_sample_step(struct vkm_build *b, const struct vkm_sample *m, uint32_t n);

#endif
