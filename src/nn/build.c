#include "build.h"
#include "tune.h"
#include <stdio.h>
#include <string.h>

static const uint8_t tile_sizes[VKM_TILE_CLASSES] = VKM_TILE_SIZES;

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* lavapipe before Mesa 26 (seen in 22.3.6; not in 26.1) stops all loops of an invocation, silently, after 65,535 iterations together. Kernels whose loops grow with the model
 * get more lanes instead; the one that grows with the context is checked where a session is made (caps.loop_iterations). */
#define LOOP_ITERATIONS 32768u
static uint32_t lanes_for(uint32_t lanes, uint64_t iterations)
{
    while (lanes < 64 && iterations / lanes > LOOP_ITERATIONS) lanes *= 2;
    return lanes;
}

/* CPU drivers have subgroups of one size. */
uint32_t vkm_reduce_shared(const struct vkm_build *b, uint32_t lanes)
{
    const struct vkm_caps *caps = vkm_device_caps(b->device);
    return caps->type == VKM_TYPE_CPU && caps->subgroup && caps->subgroup_size == lanes ? 1 : lanes;
}

uint32_t vkm_reduce_lanes(const struct vkm_build *b, uint64_t iterations) { return lanes_for(b->shape.reduce_lanes, iterations); }

/* Shared memory of splits.glsl */
static uint32_t split_words(const struct vkm_shape *s, uint32_t splits, uint32_t n_tile) { return (splits - 1) * (n_tile < 2 ? n_tile : 2) * s->rows_per_lane * s->lanes; }

/* As many as it takes to give a large GPU's lanes something to load (FILL of them) with one token, where experts share the work with others; of dense matrices
 * more; and blocks of columns for each. On an H200 16 and more instead of 4 everywhere: a router of 128 x 2048 31 us instead of 108, down of Mixtral in Q4_K 56 instead of 160; 16 instead of 4 for the
 * output of qwen3-30b in F16 147 us instead of 168 (8: 152), in Q4_K 50.2 and 50.0 (8: 47.4). */
#define FILL (1u << 18)
/* Cooperative matrices do all rows or none: what a tile of theirs takes is the length of the columns more than its rows (16 to 19 us for 1,024 columns on an H200, whatever else there is to do). Rows of an expert from which
 * on they pay, in eighths, up to MATRIX_FEW tokens (or experts are too few to fill the device) and with more, beside f32 products and beside int8dot's, which are twice as fast. H200, the layer in Q4_K with all rows by
 * matrices and with none or few, us: qwen3-30b 8 tokens 157 and 138, 16 230 and 275, 24 271 and 431; Mixtral 6 about 700 and 634, 8 710 and 801; int8dot: qwen3-30b 12 tokens 212 and 185, 16 230 and 214, 24 271 and 332,
 * Mixtral 8 714 and 378, 9 734 and 459, 16 737 and 636, 17 767 and about 680. (Tokens beyond 16 without: since then a step or four less, and predicted.) */
#define MATRIX_FEW(dot) ((dot) ? 24u : 12u)
#define MATRIX_MEAN_FEW(dot) ((dot) ? 40 : 16)
#define MATRIX_MEAN(dot) ((dot) ? 10 : 4)
/* Tokens times panels of a dense matrix from which on they pay. qwen3-30b in Q4_K, us with tiles of 4 and with matrices: 160 panels of 2,048 columns, 8 tokens 47 and 40, 16 68 and 42; 64 panels of 4,096 columns, 16 tokens 58 and 78,
 * 32 109 and 82. Its router in F32, 4 panels, 512 tokens: 42 and 47. int8dot, 160 panels, 16 tokens: 40 and 42. */
#define MATRIX_WORK 2048u
#define MATRIX_FILL (1u << 15)       /* lanes for which their larger tiles must find something to do */
#define SPLITS_LEAST 4u
#define SPLITS_MOST 64u              /* where a compiler holds many values: others spill in workgroups of 1,024 lanes, AMD's up to 21 registers on vega10 and 10 on navi21, Intel's 27 on dg1 */
#define SPLITS_SOME 32u
#define SPLITS_INTEGRATED 16u        /* fewer lanes to fill; and Adreno's and Apple's compilers spill up to 81 registers in workgroups of 512 and 1,024 */
#define SPLITS_Q6_K 32u              /* two scales and two words of high bits a block: in workgroups of 1,024 lanes, which have 64 registers each, nvk's compiler spills 11 to 17 by int8dot */
#define SPLITS_OF_ONE 32u            /* experts' f16 and f32 blocks that are a lane's each, if so few: down of qwen3-30b in F16 14.4 us, 16.7 with 8 lanes for 24 blocks; in Q4_K 11.1 and 10.2 */
#define WIDE_BYTES 64u               /* of such a block */
static bool is_wide_type(const struct vkm_weight *w) { return w->type && vkm_type_panel_bytes(w->type, 8) >= 8ull * VKM_PANEL * WIDE_BYTES; }

uint32_t vkm_splits_most(uint32_t kb)
{
    uint32_t splits = SPLITS_LEAST;
    while (splits < SPLITS_MOST && splits * 4 <= kb) splits *= 2;
    return splits;
}

uint32_t vkm_shape_splits(const struct vkm_shape *s, const struct vkm_weight *w)
{
    uint32_t splits = s->splits < SPLITS_LEAST ? s->splits : SPLITS_LEAST;
    uint64_t lanes = (uint64_t)w->n_panels * (w->experts > 1 ? 2 : 1) * VKM_PANEL / s->rows_per_lane;
    uint64_t fill = w->experts > 1 ? FILL : FILL * (is_wide_type(w) ? 4 : 2);
    if (w->experts > 1 && is_wide_type(w) && w->kb <= SPLITS_OF_ONE && w->kb <= s->splits && lanes * w->kb < fill) return w->kb;
    uint32_t most = w->type && w->type->high > 1 && s->splits > SPLITS_Q6_K ? SPLITS_Q6_K : s->splits;
    while (splits * 2 <= most && lanes * splits < fill && splits < vkm_splits_most(w->kb)) splits *= 2;
    return splits;
}

/* CPU drivers run a workgroup's subgroups one after another and switch coroutines at barriers: one subgroup a workgroup, a big register tile, no splitting of columns
 * (measured in the drivers' notes: 16 tokens x 4 rows a lane is the best GEMM there). With texel loads tiles of 16 tokens are no faster than of 8, eight rows a lane
 * neither and a quarter longer to compile. GPUs want many lanes and hide latency with waves: fewer rows a lane, columns split over
 * local_size_y. The split is the same for every number of tokens, so that a token's bits do not depend on the batch. */
static void choose_lanes(const struct vkm_caps *caps, struct vkm_shape *s)
{
    if (caps->scalar_loads && caps->type == VKM_TYPE_CPU) {   /* one subgroup, which owns a panel */
        *s = (struct vkm_shape){.scalar_loads = true, .lanes = caps->subgroup_size, .rows_per_lane = VKM_PANEL / caps->subgroup_size, .splits = 1, .reduce_lanes = caps->subgroup_size,
                                .sample_lanes = caps->subgroup_size, .attention_lanes = caps->subgroup_size, .attention_rows = 8};
        vkm_shape_tiles(s, 8);
        return;
    }
    if (caps->type == VKM_TYPE_CPU) {
        bool dots = caps->tiers & VKM_TIER_BIT(VKM_TIER_INT8DOT);     /* a dozen instructions each there, and many of them take long to compile */
        uint32_t one_subgroup = caps->subgroup && caps->subgroup_size >= 4 && caps->subgroup_size <= 16 ? caps->subgroup_size : 8;      /* without barriers, of which these drivers make coroutines */
        *s = (struct vkm_shape){.texel_loads = caps->texel_loads, .lanes = 8, .rows_per_lane = 4, .splits = 1, .reduce_lanes = one_subgroup, .sample_lanes = one_subgroup, .attention_lanes = 8, .attention_rows = 8};
        vkm_shape_tiles(s, dots || caps->texel_loads ? 8 : 16);
        return;
    }
    uint32_t most = 256;
    while (most > 32 && most > caps->invocations) most /= 2;
    uint32_t lanes = 16;                                      /* a panel: small workgroups, of which there are many with one token */
    bool many = caps->coopmat && caps->matrix.m >= 16;
    *s = (struct vkm_shape){.lanes = lanes, .rows_per_lane = 2, .splits = caps->type != VKM_TYPE_DISCRETE ? SPLITS_INTEGRATED : many ? SPLITS_MOST : SPLITS_SOME, .reduce_lanes = most < 128 ? most : 128, .wide_lanes = caps->invocations < 1024 ? most : 1024,
                            .sample_lanes = caps->invocations < 1024 ? most : 1024, .attention_lanes = 32, .attention_rows = 8, .attention_parts = most / 32, .few_rows = 3,
                            .holds_many = many, .lane_registers = caps->lane_registers, .singles = caps->type == VKM_TYPE_DISCRETE ? VKM_FEW_ROWS : 1, .joined_rows = caps->type == VKM_TYPE_DISCRETE ? VKM_JOINED_ROWS : VKM_FEW_ROWS};
    while (s->splits > 1 && (s->splits * lanes > caps->invocations || split_words(s, s->splits, 4) * 4 > caps->shared_bytes)) s->splits /= 2;
    vkm_shape_tiles(s, vkm_shape_tile_most(s) < 8 ? vkm_shape_tile_most(s) : 8);      /* of 16 they spill: Intel's 80 to 126 registers, Apple's 29 (int8dot) */
}

static bool takes_matrices(const struct vkm_shape *s, uint32_t n_tile) { return s->matrix.m && n_tile >= VKM_COOPMAT_ROWS; }

/* local_size_x where it is not matrices. A dense matrix of few panels and much to read has workgroups of a quarter of a panel, with more registers for a lane. H200, F16, one token, 2,048 x 4,096:
 * 13.7 us with workgroups of a panel, 14.1 of half, 12.9 of a quarter; Q4_K 9.88, 9.74, 10.03. */
#define FEW_PANELS 128u
static uint32_t lanes_of(const struct vkm_shape *s, const struct vkm_weight *w, uint32_t n_tile)
{
    bool quarter = n_tile == 1 && w->experts == 1 && s->splits > 1 && s->lanes >= 16 && w->n_panels < FEW_PANELS && is_wide_type(w);
    return quarter ? s->lanes / 4 : s->lanes;
}

static uint32_t panels_of(const struct vkm_shape *s, uint32_t n_tile) { return takes_matrices(s, n_tile) ? s->matrix_panels : s->lanes * s->rows_per_lane / VKM_PANEL; }

uint32_t vkm_shape_panels(const struct vkm_shape *s)
{
    uint32_t packed = 0;
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) packed |= panels_of(s, tile_sizes[c]) << 4 * c;
    return packed;
}

/* Shared memory of matmul_coop.glsl: x and W as f16, where the sums of some tokens lie later; two words a token. */
static uint32_t coop_shared_bytes(uint32_t tokens, uint32_t rows, uint32_t step, uint32_t buffers) { return buffers * (tokens + rows) * (step * 64 + 16) + tokens * 8; }

/* Subgroups along the tokens and the rows: tiles as square as can be read the fewest words of shared memory. */
static void matrix_grid(const struct vkm_shape *s, uint32_t n_tile, uint32_t *along_tokens, uint32_t *along_rows)
{
    uint32_t t = n_tile / s->matrix.m, r = s->matrix_panels * VKM_PANEL / s->matrix.n, subgroups = s->matrix_subgroups;
    *along_tokens = *along_rows = 1;
    for (; subgroups > 1; subgroups /= 2) {
        uint32_t tokens_each = n_tile / *along_tokens, rows_each = s->matrix_panels * VKM_PANEL / *along_rows;
        if (*along_rows < r && (rows_each >= tokens_each || *along_tokens == t)) *along_rows *= 2;
        else if (*along_tokens < t) *along_tokens *= 2;
    }
}

/* Matrices of 16 rows, as AMD and NVIDIA have: tiles of at most 128 tokens and 128 rows by four subgroups, 64 columns a step. On an H200 that was the fastest of 18 shapes for quantised
 * weights (gate|up of Mixtral in Q4_K, 4,096 tokens: 185 TFLOP/s, 238 since full tiles have no branches; eight subgroups 163 and less, 64 rows 153, 256 rows 133, 32 columns in two buffers 146 to 163); for f16 weights 32 columns
 * in two buffers are up to 10 % faster (230 against 208) with hundreds of rows of an expert, and slower with few. Mesa's compiler for AMD spills nothing so, that for NVIDIA in tiles of 128 tokens only, which it does not get
 * (caps->matrix_tokens). lavapipe compiles a large tile for seconds.
 * Of 8 rows, as Intel has, in subgroups as wide as they have columns (caps->matrix_lanes): 128 rows by 32 subgroups and as many tokens as make 16 sums a lane, 64 columns a step. So nothing spills on dg2 (8 lanes, 32 tokens), lnl, bmg and
 * ptl (16 lanes, 64 tokens), whatever the type (F32 on dg2 with half the columns, see step_of). Tried on dg2: 64 rows by 16 subgroups, or 64 tokens with 32 columns a step, as many instructions a product, but 1 to 12 registers spilled in some types; 32 tokens, 64 rows, 32 columns in two buffers, which was so before,
 * 1.7 times the instructions. On bmg twice the tokens spill 42, half the subgroups 10. In subgroups of 32 lanes, which Intel's driver takes unless asked, everything tried on dg2 spills, 10 registers or more. None of this has run on a GPU.
 * attention_coop.comp, heads of 128: Mesa's compilers for NVIDIA and AMD spill nothing, Intel's for bmg 145 registers (in subgroups of 16 lanes 221 and more) and for dg2 641 at the least, so it is not for matrices of 8 rows. */
static void choose_matrix(const struct vkm_caps *caps, struct vkm_shape *s)
{
    if (!(caps->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT)) || s->scalar_loads) return;
    bool cpu = caps->type == VKM_TYPE_CPU, small = caps->matrix.m < 16;
    uint32_t panels = cpu ? 1 : 4, tokens = cpu ? 16 : 128, subgroups = cpu ? 2 : small ? 32 : 4, step = cpu ? 1 : 2, buffers = cpu ? 2 : 1;
    while (subgroups > 1 && (subgroups > caps->matrix_subgroups || subgroups * caps->matrix_lanes > caps->invocations)) subgroups /= 2;
    while (small && !cpu && tokens * panels * VKM_PANEL > 16 * subgroups * caps->matrix_lanes) tokens /= 2;
    if (caps->matrix_tokens && tokens > caps->matrix_tokens) tokens = caps->matrix_tokens;
    while (tokens >= VKM_COOPMAT_ROWS && coop_shared_bytes(tokens, panels * VKM_PANEL, step, buffers) > caps->shared_bytes) tokens /= 2;
    if (tokens < VKM_COOPMAT_ROWS) return;
    s->matrix = caps->matrix;
    s->matrix_panels = panels;
    s->matrix_step = step, s->matrix_buffers = buffers;
    s->matrix_lanes = caps->matrix_lanes;
    s->matrix_subgroups = subgroups;
    s->matrix_tokens = tokens;
    if (!small || cpu) s->coop_subgroups = cpu ? 2 : 4, s->coop_keys = 32, s->coop_buffers = 1, s->coop_fetch = !cpu;
    vkm_shape_tiles(s, tokens);
    if (!cpu) s->tile_from[1] = 3, s->tile_from[2] = VKM_TILE_NEVER, s->tile_from[3] = 5;    /* H200, Q4_K: a tile of 4 costs 2.4 times one of 1, of 8 6.6 times, of 16 by matrices 1.6 times */
}

void vkm_shape_tiles(struct vkm_shape *s, uint32_t most)
{
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) s->tile_from[c] = tile_sizes[c] > most ? VKM_TILE_NEVER : c ? tile_sizes[c - 1] + 1 : 1;
}

uint32_t vkm_tile_class(const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t rows)
{
    uint32_t c = VKM_TILE_CLASSES - 1;
    while (c && tile_from[c] > (rows < VKM_TILE_NEVER ? rows : VKM_TILE_NEVER - 1)) c--;
    return c;
}

uint32_t vkm_shape_tile_most(const struct vkm_shape *s)
{
    if (s->lane_registers && s->lane_registers < 128) return 4;       /* of 8, 38 to 43 registers spill on nvk 0e4 */
    return s->matrix.m ? s->matrix_tokens : s->scalar_loads ? 8 : 16;           /* matmul_cpu.glsl has no larger ones */
}

void vkm_shape_choose(const struct vkm_caps *caps, struct vkm_shape *s)
{
    choose_lanes(caps, s);
    choose_matrix(caps, s);
}

vkm_result vkm_build_step_of(struct vkm_build *b, const char *kernel, const char *variant, uint32_t tiers, const uint32_t *spec, uint32_t n_spec, struct vkm_step *step, const char *label)
{
    char text[64];
    if (b->layer >= 0) snprintf(text, sizeof text, "blk.%d.%s", b->layer, label);
    else               snprintf(text, sizeof text, "%s", label);
    step->label = text;
    if (!step->bindings) step->bindings = b->sets[0];
    TRY(vkm_kernel_get_of(b->device, kernel, variant, tiers, spec, n_spec, &step->kernel, b->err));
    for (uint32_t f = 0; f < VKM_FORMS; f++) {
        uint64_t begin = (uint64_t)b->there[f].at * 4, end = begin + (uint64_t)b->there[f].rows * b->there[f].ld * 4;
        for (uint32_t i = 0; i < step->n_writes; i++)
            if (step->writes[i].buffer == b->workspace && step->writes[i].begin < end && begin < step->writes[i].end) b->there[f].rows = 0;
    }
    return vkm_program_add(b->program, step, b->err);
}

vkm_result vkm_build_step(struct vkm_build *b, const char *kernel, const char *variant, const uint32_t *spec, uint32_t n_spec, struct vkm_step *step, const char *label)
{
    return vkm_build_step_of(b, kernel, variant, VKM_TIERS_ALL, spec, n_spec, step, label);
}

static void declare(struct vkm_build *b, struct vkm_range *ranges, uint32_t *n, uint32_t at, uint64_t words)
{
    if (words) ranges[(*n)++] = (struct vkm_range){b->workspace, (uint64_t)at * 4, ((uint64_t)at + words) * 4};
}
void vkm_reads_words(struct vkm_build *b, struct vkm_step *s, uint32_t at, uint32_t words) { declare(b, s->reads, &s->n_reads, at, words); }
void vkm_writes_words(struct vkm_build *b, struct vkm_step *s, uint32_t at, uint32_t words) { declare(b, s->writes, &s->n_writes, at, words); }
void vkm_reads(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t n) { declare(b, s->reads, &s->n_reads, r.at, (uint64_t)r.ld * n); }
void vkm_writes(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t n) { declare(b, s->writes, &s->n_writes, r.at, (uint64_t)r.ld * n); }
void vkm_reads_part(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t width, uint32_t n) { declare(b, s->reads, &s->n_reads, r.at, (uint64_t)r.ld * (n - 1) + width); }
void vkm_writes_part(struct vkm_build *b, struct vkm_step *s, struct vkm_region r, uint32_t width, uint32_t n) { declare(b, s->writes, &s->n_writes, r.at, (uint64_t)r.ld * (n - 1) + width); }


/* ---------------------------------------------------------------- matmul */

/* The form that a matmul of tiles of n_tile tokens takes. */
static enum vkm_tier matmul_tier(const struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile)
{
    uint32_t able = takes_matrices(&b->shape, n_tile) ? VKM_TIERS_ALL : VKM_TIERS_ALL & ~VKM_TIER_BIT(VKM_TIER_COOPMAT);
    if (b->shape.scalar_loads) return w->type->id == 1 && vkm_caps_able(vkm_device_caps(b->device)) & VKM_TIER_BIT(VKM_TIER_FP16) ? VKM_TIER_FP16 : VKM_TIER_SUBGROUP;    /* the same bits */
    if (vkm_tuning_exact(b->tuning, w->type)) able &= ~VKM_TIER_BIT(VKM_TIER_INT8DOT);
    return vkm_kernel_tier(b->device, kernel, w->type->variant, able);
}

static const char *const forms[VKM_FORMS] = {[VKM_FORM_INT8] = "quantise", [VKM_FORM_F16] = "halve", [VKM_FORM_SUMS] = "block_sums"};

static uint32_t form_row(uint32_t form, uint32_t kb) { return form == VKM_FORM_INT8 ? VKM_QUANTISED_WORDS(kb) : form == VKM_FORM_F16 ? VKM_HALVED_WORDS(kb) : VKM_SUMS_WORDS(kb); }

uint64_t vkm_form_words(const struct vkm_caps *caps, uint32_t form, uint32_t n, uint32_t cols)
{
    const bool wanted[VKM_FORMS] = {caps->tiers & VKM_TIER_BIT(VKM_TIER_INT8DOT), caps->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT), caps->scalar_loads};
    return wanted[form] ? (uint64_t)n * form_row(form, vkm_div_up(cols, 32)) : 0;
}

#define NORM_EACH 2u                 /* times four columns that a lane of combine_norm keeps in registers at most */
#define NORM_SHARED(kb) ((kb) * 160 + 160)   /* bytes of shared memory: norm_squares, norm_sums and norm_row of norm_row.glsl */

/* The most blocks of columns, and panels, of weights whose workgroups of one token quantise it themselves. */
#define ROW_BLOCKS 128u
#define ROW_PANELS 512u
#define ROW_SHARED(kb) ((kb) * 72 + 64)      /* bytes of shared memory: row_most, row_q and row_scale of matmul_dot.glsl */
static bool quantises(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n_tile)
{
    const struct vkm_shape *s = &b->shape;
    uint32_t splits = vkm_shape_splits(s, w);
    return n_tile == 1 && panels_of(s, 1) == 1 && splits > 1 && w->kb <= ROW_BLOCKS && w->n_panels <= ROW_PANELS &&
           ROW_SHARED(w->kb) + split_words(s, splits, 1) * 4 <= vkm_device_caps(b->device)->shared_bytes;
}

/* What a tile of n_tile tokens wants of x. */
static uint32_t form_of(const struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile)
{
    enum vkm_tier tier = matmul_tier(b, kernel, w, n_tile);
    if (b->shape.scalar_loads) return w->type->offset && n_tile > 1 ? VKM_FORM_SUMS : VKM_FORMS;
    if (tier == VKM_TIER_INT8DOT && !quantises(b, w, n_tile)) return VKM_FORM_INT8;
    return tier == VKM_TIER_COOPMAT ? VKM_FORM_F16 : VKM_FORMS;
}

vkm_result vkm_matmul_input(struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile, struct vkm_region *x, uint32_t n)
{
    uint32_t f = form_of(b, kernel, w, n_tile);
    if (f == VKM_FORMS) return VKM_OK;
    const struct vkm_region from = *x, room = b->inputs.form[f], to = {room.at, form_row(f, w->kb), n};
    if ((uint64_t)n * to.ld > room.rows) return vkm_fail(b->err, VKM_ERR_LIMIT, "%s: no room for %u rows of %u columns", forms[f], n, w->cols);
    if (f != VKM_FORM_SUMS) *x = to;
    if (b->there[f].at == from.at && b->there[f].ld == from.ld && b->there[f].kb == w->kb && b->there[f].rows >= n) return VKM_OK;
    struct vkm_push_quantise push = {.ws_x = from.at, .ld_x = from.ld, .ws_out = to.at, .ld_out = to.ld, .kb = w->kb};
    struct vkm_step s = {.groups = {n, 1, 1}, .bytes = (uint64_t)n * (w->kb * 32 + to.ld) * 4};
    VKM_STEP_PUSH(s, push);
    vkm_reads(b, &s, from, n);
    vkm_writes(b, &s, to, n);
    const uint32_t spec[] = {b->shape.reduce_lanes, 1};
    TRY(vkm_build_step(b, forms[f], "", spec, 2, &s, forms[f]));
    b->there[f].at = from.at, b->there[f].ld = from.ld, b->there[f].kb = w->kb, b->there[f].rows = n;
    return VKM_OK;
}

uint32_t vkm_matmul_epilogue(const struct vkm_weight *w, const struct vkm_epilogue *e, struct vkm_push_matmul *push)
{
    push->tab_bias = e->tab_bias;
    push->act_alpha = e->alpha; push->act_limit = e->limit; push->act_add = e->add;
    if (e->norm) push->tab_norm = e->norm->tab, push->width = e->norm->width, push->eps = e->norm->eps;
    if (e->residual) push->ws_residual = e->residual->x.at, push->ld_residual = e->residual->x.ld, push->residual = e->residual->scale, push->ws_arrived = e->residual->ws_arrived;
    uint32_t bits = (w->glu ? VKM_EPILOGUE_GLU : 0) | e->act << VKM_EPILOGUE_ACT | (e->weight_first ? VKM_EPILOGUE_WEIGHT_FIRST : 0);
    if (w->glu && e->limited) bits |= VKM_EPILOGUE_LIMITED;
    if (e->tab_bias != VKM_NONE) bits |= VKM_EPILOGUE_BIASED;
    if (e->norm) bits |= VKM_EPILOGUE_NORMED;
    if (e->residual) bits |= VKM_EPILOGUE_ADD;
    return bits;
}

bool vkm_matmul_halves(const struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile) { return matmul_tier(b, kernel, w, n_tile) == VKM_TIER_COOPMAT; }

/* STEP of matmul_coop.glsl. With matrices of 8 rows a lane fetches no more than 64 bytes of weights at once. */
static uint32_t step_of(const struct vkm_shape *s, const struct vkm_weight *w)
{
    uint32_t pieces = s->matrix_panels * VKM_PANEL * s->matrix_step * 2 / (s->matrix_subgroups * s->matrix_lanes);
    bool much = s->matrix.m < 16 && pieces * vkm_type_panel_bytes(w->type, 2) > 4ull * VKM_PANEL * WIDE_BYTES;
    return much || w->kb % s->matrix_step ? 1 : s->matrix_step;
}

/* AHEAD of matmul_coop.glsl. H200, 4,096 tokens, F16, the layer: qwen3-30b 1,863 us with all tiles of the list before the next panels, 1,751 with one tile, 1,742 with 4, 1,754 with 8,
 * 1,765 with 16; Mixtral 12,250, 11,963, 11,273, 11,079, 11,319. */
#define TILES_AHEAD 8u
vkm_result vkm_matmul_step(struct vkm_build *b, const char *kernel, const struct vkm_weight *w, uint32_t n_tile, uint32_t epilogue, struct vkm_step *step, const char *label)
{
    const struct vkm_shape *s = &b->shape;
    enum vkm_tier tier = matmul_tier(b, kernel, w, n_tile);
    uint32_t splits = vkm_shape_splits(s, w), parts = split_words(s, splits, n_tile);
    bool normed = epilogue & VKM_EPILOGUE_NORMED, row = normed || (tier == VKM_TIER_INT8DOT && quantises(b, w, n_tile));
    const uint32_t spec[] = {lanes_of(s, w, n_tile), splits, s->rows_per_lane, n_tile, parts ? parts : 1, epilogue, normed ? 1 | (b->shape.holds_many ? 2 : 0) : 0, w->kb};
    char name[32];
    bool texels = tier == VKM_TIER_BASELINE && s->texel_loads && w->whole && w->slab == 0;
    if (form_of(b, kernel, w, n_tile) == VKM_FORM_SUMS) vkm_reads_words(b, step, b->inputs.form[VKM_FORM_SUMS].at, b->inputs.form[VKM_FORM_SUMS].rows);
    snprintf(name, sizeof name, "%s%s", kernel, s->scalar_loads ? "_cpu" : texels ? "_texel" : "");
    if (tier == VKM_TIER_COOPMAT) {
        uint32_t t, r, lanes = s->matrix_subgroups * s->matrix_lanes, rows = s->matrix_panels * VKM_PANEL;
        matrix_grid(s, n_tile, &t, &r);
        const uint32_t of_matrix[] = {lanes, 1, s->matrix_panels, n_tile, s->matrix.m, epilogue, s->matrix.n, s->matrix.k, t, n_tile / t / s->matrix.m, rows / r / s->matrix.n, lanes, step_of(s, w), s->matrix_buffers, TILES_AHEAD};
        return vkm_build_step_of(b, name, w->type->variant, VKM_TIER_BIT(tier), of_matrix, VKM_COUNT(of_matrix), step, label);
    }
    return vkm_build_step_of(b, name, w->type->variant, VKM_TIER_BIT(tier), spec, VKM_COUNT(spec) - (row ? 0 : 2), step, label);
}

uint32_t vkm_matmul_groups(const struct vkm_shape *s, const struct vkm_weight *w, uint32_t n_tile)
{
    if (takes_matrices(s, n_tile)) return vkm_div_up(w->n_panels, s->matrix_panels);
    return vkm_div_up(w->n_panels * (VKM_PANEL / s->rows_per_lane), lanes_of(s, w, n_tile));
}

void vkm_matmul_push(const struct vkm_build *b, const struct vkm_weight *w, struct vkm_push_matmul *p)
{
    const bool scalar = b->shape.scalar_loads;
    uint64_t workspace = vkm_buffer_address(b->workspace);
    *p = (struct vkm_push_matmul){.tab_weight = w->tab, .n_chunks = w->n_chunks, .chunk_panels = w->chunk_panels, .n_panels = w->n_panels,
                                  .kb = w->kb, .rows = w->rows, .tab_bias = VKM_NONE, .slab = w->whole && !scalar ? w->slab : VKM_NONE, .at = scalar ? b->inputs.form[VKM_FORM_SUMS].at : w->at, .ws_address = {(uint32_t)workspace, (uint32_t)(workspace >> 32)}};
}

uint32_t vkm_tile_rows(uint32_t n)
{
    uint32_t i = 0;
    while (tile_sizes[i] < n && i + 1 < VKM_TILE_CLASSES) i++;
    return tile_sizes[i];
}

static bool takes_dots(const struct vkm_build *b, const char *kernel, const struct vkm_weight *w) { return w->type && matmul_tier(b, kernel, w, 1) == VKM_TIER_INT8DOT; }

/* limit: rows of the largest tile that may be. matrices: whether all tiles are theirs. */
static void cut_rows(const struct vkm_build *b, const struct vkm_weight *const *weights, uint32_t n_weights, uint32_t n, uint32_t n_used, uint32_t n_expert, uint32_t limit, bool matrices, uint8_t tile_from[VKM_TILE_CLASSES])
{
    const struct vkm_shape *s = &b->shape;
    for (uint32_t i = 0; i < n_weights; i++)
        if (!matrices && limit > 4 && vkm_shape_splits(s, weights[i]) > SPLITS_SOME) limit = 4;       /* of 8, nvk's compiler spills 7 registers (Q4_K), and on an H200 one costs more than two of 4 */
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
        tile_from[c] = s->tile_from[c];
        if (matrices && tile_sizes[c] <= VKM_COOPMAT_ROWS) tile_from[c] = tile_sizes[c] == VKM_COOPMAT_ROWS ? 1 : VKM_TILE_NEVER;    /* their smallest tiles for fewer rows too */
        if ((!matrices && takes_matrices(s, tile_sizes[c])) || tile_sizes[c] > limit) tile_from[c] = VKM_TILE_NEVER;
    }
    uint32_t most = s->matrix.m && !matrices ? VKM_COOPMAT_ROWS / 2 : vkm_shape_tile_most(s);
    if (b->tuning) vkm_tiles_fit(b->tuning, weights, n_weights, n, n_used, n_expert, most < limit ? most : limit, tile_from);
}

void vkm_build_tiles(const struct vkm_build *b, const struct vkm_weight *const *weights, uint32_t n_weights, uint32_t n, uint32_t n_used, uint32_t n_expert, uint8_t tile_from[VKM_TILE_CLASSES])
{
    bool dots = takes_dots(b, "moe_gate_up", weights[0]), few = n <= MATRIX_FEW(dots);
    uint32_t least = b->shape.splits == 1 ? MATRIX_MEAN_FEW(false) : few ? MATRIX_MEAN_FEW(dots) : MATRIX_MEAN(dots);
    bool matrices = b->shape.matrix.m && 8ull * n * n_used >= (uint64_t)n_expert * least;
    cut_rows(b, weights, n_weights, n, n_used, n_expert, vkm_shape_tile_most(&b->shape), matrices, tile_from);
}

uint64_t vkm_matmul_bytes(const struct vkm_weight *w) { return vkm_type_panel_bytes(w->type, w->kb) * w->n_panels; }

/* Whether matrices do a dense matmul of n tokens. */
static bool by_matrices(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n)
{
    const struct vkm_shape *s = &b->shape;
    uint32_t work = takes_dots(b, "linear", w) || is_wide_type(w) ? 2 * MATRIX_WORK : MATRIX_WORK;
    return s->matrix.m && n > 1 && (s->splits == 1 || (uint64_t)n * w->n_panels >= work);
}

/* Rows of the largest tile of a dense matrix. On a GPU no larger ones than what gives all its lanes something to do. Few tokens are done one by one on a large one (integrated ones were not measured), for a tile of 4 waits for
 * four times as much in a row: H200, qwen3-30b in Q4_K, attention's output for 2 tokens 30 us by a tile of 4, 11 one by one. */
static uint32_t tile_limit(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n)
{
    const struct vkm_shape *s = &b->shape;
    uint32_t limit = vkm_shape_tile_most(s);
    uint64_t lanes = (uint64_t)w->n_panels * VKM_PANEL / s->rows_per_lane * vkm_shape_splits(s, w);
    if (s->splits == 1) return limit;
    if (by_matrices(b, w, n)) {
        while (limit > VKM_COOPMAT_ROWS && (uint64_t)vkm_div_up(n, limit) * vkm_matmul_groups(s, w, limit) * s->matrix_subgroups * s->matrix_lanes < MATRIX_FILL) limit /= 2;
        return limit;
    }
    if (n <= s->singles) return 1;
    while (limit > 4 && (limit > VKM_COOPMAT_ROWS / 2 || vkm_div_up(n, limit) * lanes < FILL)) limit /= 2;
    return limit;
}

/* combine_norm has the order of norm.glsl where its lanes are more than those of other norms, which have no room for rows in shared memory either. */
static bool is_wide(const struct vkm_build *b, uint32_t width) { return width % 4 == 0 && width > 4 * b->shape.reduce_lanes && width <= 4 * NORM_EACH * b->shape.wide_lanes; }

bool vkm_norm_fits(const struct vkm_build *b, uint32_t width, uint32_t shared_bytes)
{
    return is_wide(b, width) && NORM_SHARED(vkm_div_up(width, 32)) + shared_bytes <= vkm_device_caps(b->device)->shared_bytes;
}

bool vkm_matmul_adds(const struct vkm_build *b, const struct vkm_weight *w, const uint8_t tile_from[VKM_TILE_CLASSES], uint32_t n)
{
    if (b->shape.scalar_loads || b->shape.splits == 1 || panels_of(&b->shape, 1) != 1 || w->glu) return false;
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++)
        if (tile_from[c] <= n && takes_matrices(&b->shape, tile_sizes[c])) return false;
    return true;
}

static void cut_dense(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n, uint8_t tile_from[VKM_TILE_CLASSES]) { cut_rows(b, &w, 1, n, 1, 1, tile_limit(b, w, n), by_matrices(b, w, n), tile_from); }

/* Rows of each of the equal tiles that n rows of a dense matrix are cut into where tiles of 5 to 7 cost what their rows do and another size is another dispatch, whatever a tuning says; 0: by classes.
 * Mesa 26, two cores, tokens per second of n + 1 sequences over those of n, medians of 45 neighbours in turns, by classes and so: the bundled model 8 and 9 0.945 and 1.062, 16 and 17 0.980 and 1.015. Tiles of up to 12: Mixtral in Q8_0
 * 12 sequences 386, in two tiles of six 461. */
#define EVEN_PADDED 3u
static uint32_t even_tiles(const struct vkm_shape *s, uint32_t n)
{
    uint32_t tiles = vkm_div_up(n, vkm_shape_tile_most(s)), size = vkm_div_up(n, tiles);
    return s->scalar_loads && n > 4 && tiles * size - n <= EVEN_PADDED ? size : 0;
}

bool vkm_linear_adds(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n)
{
    uint8_t tile_from[VKM_TILE_CLASSES];
    cut_dense(b, w, n, tile_from);
    return vkm_matmul_adds(b, w, tile_from, n);
}

bool vkm_linear_norms(const struct vkm_build *b, const struct vkm_weight *w, uint32_t n)
{
    bool dot = takes_dots(b, "linear", w);
    uint8_t tile_from[VKM_TILE_CLASSES];
    if (n > b->shape.singles) return false;
    cut_dense(b, w, n, tile_from);
    return w->n_panels <= ROW_PANELS && vkm_matmul_adds(b, w, tile_from, n) && vkm_tile_class(tile_from, n) == 0 && (!dot || quantises(b, w, 1)) &&
           vkm_norm_fits(b, w->cols, (dot ? ROW_SHARED(w->kb) : 0) + split_words(&b->shape, vkm_shape_splits(&b->shape, w), 1) * 4);
}

vkm_result vkm_linear(struct vkm_build *b, const char *label, const struct vkm_weight *w, uint32_t bias, struct vkm_region x, struct vkm_region y, uint32_t n)
{
    return vkm_linear_finish(b, label, w, &(struct vkm_epilogue){.act = VKM_ACT_NONE, .tab_bias = bias}, x, y, n);
}

vkm_result vkm_linear_finish(struct vkm_build *b, const char *label, const struct vkm_weight *w, const struct vkm_epilogue *e, struct vkm_region x, struct vkm_region y, uint32_t n)
{
    struct vkm_push_matmul push;
    vkm_matmul_push(b, w, &push);
    uint32_t epilogue = vkm_matmul_epilogue(w, e, &push);
    if (e->residual) y = e->residual->x;
    push.n = n; push.ws_y = y.at; push.ld_y = y.ld;
    uint8_t tile_from[VKM_TILE_CLASSES];
    uint32_t even = even_tiles(&b->shape, n);
    if (!even) cut_dense(b, w, n, tile_from);
    for (uint32_t first = 0; first < n; ) {             /* all tiles of a class at once */
        uint32_t left = n - first, c = even ? 0 : vkm_tile_class(tile_from, left), size = even ? even : tile_sizes[c];
        uint32_t tiles = even ? vkm_div_up(n, even) : (left - tile_from[c]) / size + 1, rows = tiles * size < left ? tiles * size : left;
        struct vkm_step s = {.groups = {tiles, vkm_matmul_groups(&b->shape, w, size), 1}, .bindings = b->sets[w->set]};
        struct vkm_region in = x;
        TRY(vkm_matmul_input(b, "linear", w, size, &in, n));
        push.first = first; push.ws_x = in.at; push.ld_x = in.ld;
        VKM_STEP_PUSH(s, push);
        vkm_reads_words(b, &s, in.at + first * in.ld, rows * in.ld);
        vkm_writes_words(b, &s, y.at + first * y.ld, rows * y.ld);
        if (e->residual) vkm_reads_words(b, &s, y.at + first * y.ld, rows * y.ld);
        s.bytes = vkm_matmul_bytes(w) + (uint64_t)rows * (w->cols + w->rows) * 4;
        s.flops = 2ull * rows * w->cols * w->rows * (w->glu ? 2 : 1);
        TRY(vkm_matmul_step(b, "linear", w, size, epilogue, &s, label));
        first += rows;
    }
    return VKM_OK;
}

/* ---------------------------------------------------------------- elementwise */

vkm_result vkm_embed(struct vkm_build *b, const struct vkm_weight *w, uint32_t ws_tokens, struct vkm_region x, uint32_t n_embd, uint32_t n, float scale)
{
    struct vkm_push_embed push = {.tab_weight = w->tab, .chunk_panels = w->chunk_panels, .kb = w->kb, .ws_tokens = ws_tokens, .ws_x = x.at, .ld_x = x.ld,
                                  .n_vocab = w->rows, .scale = scale};
    struct vkm_step s = {.groups = {n, 1, 1}, .bindings = b->sets[w->set], .bytes = (uint64_t)n * n_embd * 8};
    VKM_STEP_PUSH(s, push);
    vkm_reads_words(b, &s, ws_tokens, n);
    vkm_writes(b, &s, x, n);
    const uint32_t spec[] = {b->shape.reduce_lanes, 1, b->shape.scalar_loads};
    return vkm_build_step(b, "embed", w->type->variant, spec, VKM_COUNT(spec), &s, "embed");
}

uint32_t vkm_combine_lanes(const struct vkm_build *b, const struct vkm_combine *c)
{
    uint32_t lanes = vkm_reduce_lanes(b, (uint64_t)c->width * (c->n_add + 2));
    while (is_wide(b, c->width) && lanes < b->shape.wide_lanes && lanes * 4 < c->width) lanes *= 2;
    return lanes;
}

vkm_result vkm_combine_norm(struct vkm_build *b, const char *label, const struct vkm_combine *c, uint32_t first, uint32_t n)
{
    struct vkm_push_combine_norm push = {
        .ws_x_rows = c->x_rows.rows ? c->x_rows.at : VKM_NONE, .ws_out_rows = c->out_rows.rows ? c->out_rows.at : VKM_NONE,
        .ws_x = c->x.at + first * c->x.ld, .ld_x = c->x.ld, .width = c->width, .ws_y = c->y.at + first * c->n_add * c->y.ld, .ld_y = c->y.ld, .n_add = c->n_add,
        .ws_shared = c->shared.rows ? c->shared.at + first * c->shared.ld : VKM_NONE, .ld_shared = c->shared.ld,
        .ws_gate = c->gate.rows ? c->gate.at + first * c->gate.ld : VKM_NONE, .ld_gate = c->gate.ld,
        .tab_norm = c->tab_norm, .ws_out = c->out.rows ? c->out.at : VKM_NONE, .ld_out = c->out.ld,
        .scale = c->scale, .eps = c->eps};
    struct vkm_step s = {.groups = {n, 1, 1}, .concurrent = c->concurrent, .bytes = (uint64_t)n * c->width * 4 * (c->n_add + 4)};
    const struct vkm_region x = {push.ws_x, c->x.ld, n};
    VKM_STEP_PUSH(s, push);
    if (c->x_rows.rows) { vkm_reads(b, &s, c->x, c->x.rows); vkm_reads(b, &s, c->x_rows, n); }
    else vkm_reads_part(b, &s, x, c->width, n);
    if (c->n_add) {
        vkm_reads_words(b, &s, push.ws_y, n * c->n_add * c->y.ld);
        vkm_writes_part(b, &s, x, c->width, n);
    }
    if (c->shared.rows) vkm_reads_words(b, &s, push.ws_shared, n * c->shared.ld);
    if (c->gate.rows) vkm_reads_words(b, &s, push.ws_gate, n * c->gate.ld);
    if (c->out_rows.rows) { vkm_reads(b, &s, c->out_rows, n); vkm_reads(b, &s, c->out, c->out.rows); vkm_writes(b, &s, c->out, c->out.rows); }   /* other rows stay */
    else if (c->out.rows) vkm_writes_part(b, &s, c->out, (uint32_t)vkm_align(c->width, VKM_PANEL_ROWS), n);
    uint32_t lanes = vkm_combine_lanes(b, c);
    const uint32_t spec[] = {lanes, 1, vkm_reduce_shared(b, lanes), is_wide(b, c->width) ? vkm_div_up((uint32_t)vkm_align(c->width, VKM_PANEL_ROWS), 4 * lanes) : 0, b->shape.holds_many ? 8 : 2};
    return vkm_build_step(b, b->shape.texel_loads ? "combine_norm_texel" : "combine_norm", "", spec, VKM_COUNT(spec), &s, label);
}

/* ---------------------------------------------------------------- sampling */

vkm_result vkm_sample_step(struct vkm_build *b, const struct vkm_sample *m, uint32_t n)
{
    struct vkm_push_sample push = {.ws_logits = m->logits.at, .ld_logits = m->logits.ld, .n_vocab = m->n_vocab, .ws_scratch = m->scratch.at, .ld_scratch = m->scratch.ld,
                                   .ws_sampling = m->ws_sampling, .ws_recent = m->ws_recent, .ws_tokens = m->ws_tokens, .ws_pos = m->ws_pos, .ws_seq = m->ws_seq};
    struct vkm_step s = {.groups = {n, 1, 1}, .bytes = (uint64_t)n * m->n_vocab * 4 * 8};
    VKM_STEP_PUSH(s, push);
    vkm_reads(b, &s, m->logits, n);
    vkm_reads_words(b, &s, m->ws_sampling, m->n_seq * VKM_SAMPLING_WORDS);
    vkm_reads_words(b, &s, m->ws_recent, m->n_seq * VKM_RECENT);
    vkm_reads_words(b, &s, m->ws_pos, n);
    vkm_reads_words(b, &s, m->ws_seq, n);
    vkm_writes(b, &s, m->logits, n);                       /* the penalty is applied in place */
    vkm_writes(b, &s, m->scratch, n);
    vkm_writes_words(b, &s, m->ws_recent, m->n_seq * VKM_RECENT);   /* a word of it */
    vkm_writes_words(b, &s, m->ws_tokens, n);
    vkm_writes_words(b, &s, m->ws_pos, n);
    const uint32_t loads = b->shape.holds_many ? 8 : 4, quads = b->shape.holds_many ? 8 : 2, lanes = lanes_for(b->shape.sample_lanes, 14ull * m->n_vocab);    /* its loops: 6 over all, and 32 of `loads` at once */
    const uint32_t spec[] = {lanes, 1, vkm_reduce_shared(b, lanes), loads, quads};
    return vkm_build_step(b, "sample", "", spec, VKM_COUNT(spec), &s, "sample");
}
