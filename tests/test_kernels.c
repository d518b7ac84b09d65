/* Kernels by themselves, in programs built by hand: exact dequantisation of every type, the router with hostile logits, the counting sort with its tiles, sampling. */
#include "harness.h"

#define WS_WORDS (1u << 20)
#define CANARY 0xc0ffee11u

struct bench {
    struct driver_log log;
    vkm_device *device;
    vkm_buffer *ws, *readback, *tables, *slabs[2];
    vkm_bindings *bindings;
    uint32_t *words;                     /* [WS_WORDS] the workspace: given to it before a run, read after it */
    struct vkm_build build;
};

static void upload(struct bench *t, vkm_buffer *to, const void *from, uint64_t bytes)
{
    vkm_error err = {0};
    vkm_uploader *u = NULL;
    OK(vkm_uploader_create(t->device, 2 << 20, &u, &err));
    for (uint64_t at = 0; at < bytes; at += 1 << 20) {
        uint64_t n = bytes - at < 1 << 20 ? bytes - at : 1 << 20;
        void *where;
        OK(vkm_upload_begin(u, to, at, n, &where, &err));
        memcpy(where, (const char *)from + at, n);
        OK(vkm_upload_end(u, &err));
    }
    OK(vkm_upload_finish(u, &err));
    vkm_uploader_destroy(u);
}

static void open_bench(struct bench *t, const char *caps, bool gpu_shape)
{
    vkm_error err = {0};
    *t = (struct bench){0};
    t->device = driver_open(caps, &t->log);
    OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, WS_WORDS * 4, "ws", &t->ws, &err));
    OK(vkm_buffer_create(t->device, VKM_BUFFER_READBACK, WS_WORDS * 4, "readback", &t->readback, &err));
    OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, 4096, "tables", &t->tables, &err));
    for (int i = 0; i < 2; i++) OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, 1 << 20, "slab", &t->slabs[i], &err));
    OK(vkm_bindings_create(t->device, t->ws, t->tables, t->slabs, 2, NULL, 0, &t->bindings, &err));
    t->words = malloc(WS_WORDS * 4);
    cr_assert(t->words);
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    struct vkm_caps c = gpu_shape ? gpu_caps(t->device, 32) : *vkm_device_caps(t->device);
    t->build = (struct vkm_build){.device = t->device, .workspace = t->ws, .sets = &t->bindings, .layer = -1};
    vkm_shape_choose(&c, &t->build.shape);
}

static void close_bench(struct bench *t)
{
    free(t->words);
    vkm_bindings_destroy(t->bindings);
    for (int i = 0; i < 2; i++) vkm_buffer_destroy(t->slabs[i]);
    vkm_buffer_destroy(t->tables);
    vkm_buffer_destroy(t->readback);
    vkm_buffer_destroy(t->ws);
    driver_close(t->device, &t->log);
}

static void begin(struct bench *t)
{
    vkm_error err = {0};
    OK(vkm_program_create(t->device, "by hand", &t->build.program, &err));
    memset(t->build.there, 0, sizeof t->build.there);
}

/* Runs what was built over t->words, `repeat` times; with audit also as such. */
static void run(struct bench *t, uint32_t repeat)
{
    vkm_error err = {0};
    uint64_t ticket;
    upload(t, t->ws, t->words, WS_WORDS * 4);
    OK(vkm_program_copy(t->build.program, t->ws, 0, t->readback, 0, WS_WORDS * 4, &err));
    OK(vkm_program_finish(t->build.program, &err));
    OK(vkm_program_submit(t->build.program, repeat, &ticket, &err));
    OK(vkm_wait(t->device, ticket, &err));
    OK(vkm_buffer_invalidate(t->readback, 0, WS_WORDS * 4, &err));
    memcpy(t->words, vkm_buffer_map(t->readback), WS_WORDS * 4);
    vkm_program_destroy(t->build.program);
    t->build.program = NULL;
}

static float as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static uint32_t as_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

/* ---------------------------------------------------------------- dequantisation */

/* Random quants and K scales; every half a finite number of any size and sign, some subnormal (below 8 if modest); f32 and bf16 normal numbers. */
static void random_row(struct ref_rng *rng, uint32_t type, uint32_t cols, bool modest, uint8_t *row)
{
    const struct vkm_type *t = vkm_type_find(type);
    uint64_t bytes = vkm_type_row_bytes(t, cols);
    for (uint64_t i = 0; i < bytes; i++) row[i] = (uint8_t)ref_u32(rng);
    for (uint64_t at = 0; at < bytes; at += t->block_bytes) {
        static const struct { uint32_t type, n, offset[2]; } halves[] = {{REF_F16, 1, {0}}, {REF_Q4_0, 1, {0}}, {REF_Q4_1, 2, {0, 2}}, {REF_Q5_0, 1, {0}}, {REF_Q5_1, 2, {0, 2}},
                                                                        {REF_Q8_0, 1, {0}}, {REF_Q4_K, 2, {0, 2}}, {REF_Q5_K, 2, {0, 2}}, {REF_Q6_K, 1, {208}}};
        for (size_t h = 0; h < VKM_COUNT(halves); h++)
            for (uint32_t i = 0; halves[h].type == type && i < halves[h].n; i++) {
                uint8_t *high = row + at + halves[h].offset[i] + 1;
                if ((*high & 0x7c) == 0x7c) *high &= 0xbf;
                if (modest && *high & 0x40) *high &= 0xc7;
            }
        if (type == REF_BF16) row[at + 1] = (uint8_t)((row[at + 1] & 0x80) | 0x3b | (ref_u32(rng) & 4));
        if (type == REF_F32)  row[at + 3] = (uint8_t)((row[at + 3] & 0x80) | 0x3b | (ref_u32(rng) & 4));
    }
}

enum { ROWS = 70 };

/* A random matrix of ROWS x cols through repack, slabs and tables, in two chunks that lie in different slabs. Its values, freed by the caller. */
static float *put_weights(struct bench *t, uint32_t type, uint32_t cols, bool planes, bool modest, struct vkm_weight *weight)
{
    enum { CHUNK = 2 };
    struct ref_rng rng = ref_seed(type * 1000 + cols);
    struct vkm_weight w = {.type = vkm_type_find(type), .rows = ROWS, .cols = cols, .experts = 1, .kb = vkm_div_up(cols, 32), .n_panels = 3, .n_chunks = 2, .chunk_panels = CHUNK, .tab = 10};
    uint32_t panel_words = (uint32_t)(vkm_type_panel_bytes(w.type, w.kb) / 4);
    uint64_t row_bytes = vkm_type_row_bytes(w.type, cols);
    uint8_t *raw = malloc(row_bytes * ROWS);
    float *values = malloc(ROWS * cols * sizeof *values);
    uint32_t *slab[2], table[10 + 2 * VKM_CHUNK_WORDS] = {0};
    cr_assert(raw && values);
    static const uint32_t first_word[2] = {16, 4 * 33};
    for (int i = 0; i < 2; i++) {
        slab[i] = malloc(1 << 20);
        cr_assert(slab[i]);
        for (uint32_t k = 0; k < 1 << 18; k++) slab[i][k] = 0x7fc00000 | k;
        table[10 + VKM_CHUNK_WORDS * i] = !i;           /* the first chunk in slab 1, the second in slab 0 */
        table[11 + VKM_CHUNK_WORDS * i] = first_word[i] / 4;
    }
    for (uint32_t r = 0; r < ROWS; r++) random_row(&rng, type, cols, modest, raw + r * row_bytes);
    for (uint32_t panel = 0; panel < w.n_panels; panel++) {
        const uint8_t *rows[32];
        uint32_t *to = slab[panel / CHUNK] + first_word[panel / CHUNK] + panel % CHUNK * panel_words;
        for (uint32_t i = 0; i < 32; i++) rows[i] = raw + (panel * 32 + i) % ROWS * row_bytes;      /* behind the last row comes what nobody reads */
        w.type->repack(rows, cols, w.kb, to);
        if (planes) {
            uint32_t *before = malloc(panel_words * 4);
            cr_assert(before);
            memcpy(before, to, panel_words * 4);
            vkm_panel_planes(w.type, w.kb, before, to);
            free(before);
        }
    }
    cr_assert(ref_dequant(type, raw, (uint64_t)ROWS * cols, values));
    upload(t, t->slabs[1], slab[0], 1 << 20);
    upload(t, t->slabs[0], slab[1], 1 << 20);
    upload(t, t->tables, table, sizeof table);
    for (int i = 0; i < 2; i++) free(slab[i]);
    free(raw);
    *weight = w;
    return values;
}

/* Through the embedding kernel; every value bit for bit. */
static void check_dequant(struct bench *t, uint32_t type, const char *name, uint32_t cols, bool planes)
{
    struct vkm_weight w;
    float *expected = put_weights(t, type, cols, planes, false, &w);
    t->build.shape.scalar_loads = planes;
    struct vkm_region x = {256, w.kb * 32, ROWS};
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    for (uint32_t r = 0; r < ROWS; r++) t->words[r] = (r * 37 + 5) % ROWS;
    begin(t);
    vkm_error err = {0};
    t->build.err = &err;
    OK(vkm_embed(&t->build, &w, 0, x, cols, ROWS, 1));
    run(t, 1);
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t c = 0; c < cols; c++) {
            float e = expected[((r * 37 + 5) % ROWS) * cols + c], g = as_float(t->words[x.at + r * x.ld + c]);
            cr_assert(as_bits(e) == as_bits(g) || (e == 0 && g == 0), "%s, %u columns: row %u column %u is %a, not %a", name, cols, r, c, g, e);
        }
    cr_assert_eq(t->words[x.at + ROWS * x.ld], CANARY);
    free(expected);
}

static void check_dequants(const char *caps)
{
    struct bench t;
    open_bench(&t, caps, false);
    for (size_t i = 0; i < VKM_COUNT(types); i++) {
        uint32_t block = vkm_type_find(types[i].id)->block_cols;
        for (int planes = 0; planes < 2; planes++) {
            check_dequant(&t, types[i].id, types[i].name, 512, planes);
            if (block <= 32) check_dequant(&t, types[i].id, types[i].name, 96, planes);       /* an odd number of blocks: scales come in pairs */
            if (block == 1) check_dequant(&t, types[i].id, types[i].name, 44, planes);        /* the last block is not whole */
        }
    }
    close_bench(&t);
}
Test(dequant, exact) { check_dequants(NULL); }
Test(dequant, exact_baseline_staged) { check_dequants("baseline,staged"); }

/* ---------------------------------------------------------------- tiles */

/* From so many tokens on all tiles are of matrices; before that none is, nor of 8 rows, which are slower than two of 4. */
static uint32_t first_by_matrices(const struct vkm_build *b, uint32_t type, uint32_t experts, uint32_t used)
{
    const struct vkm_weight w = {.type = vkm_type_find(type), .rows = 768, .cols = 2048, .experts = experts, .kb = 64, .n_panels = 24, .n_chunks = 1, .chunk_panels = 24}, *one[] = {&w};
    uint32_t first = 0;
    for (uint32_t n = 1; n <= 512; n++) {
        uint8_t from[VKM_TILE_CLASSES];
        vkm_build_tiles(b, one, 1, n, used, experts, from);
        bool matrices = from[0] == VKM_TILE_NEVER;
        cr_assert_eq(from[matrices ? 3 : 0], 1, "%u tokens: one row", n);
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) cr_assert(from[c] == VKM_TILE_NEVER || (c != 2 && (c > 2) == matrices), "%u tokens, matrices %d: class %u from %u", n, matrices, c, from[c]);
        cr_assert(matrices || !first, "%u tokens have no matrices, %u have", n, first);
        if (matrices && !first) first = n;
    }
    return first;
}

Test(tiles, of_a_gpu_with_matrices)
{
    FIRST_DRIVER_ONLY();
    struct bench t;
    open_bench(&t, "int8dot", true);
    struct vkm_caps c = *vkm_device_caps(t.device);
    c.type = VKM_TYPE_DISCRETE, c.subgroup_size = 32, c.invocations = 1024, c.shared_bytes = 48 << 10;
    c.tiers |= VKM_TIER_BIT(VKM_TIER_COOPMAT), c.coopmat = true, c.matrix = (struct vkm_matrix){.m = 16, .n = 16, .k = 16};
    c.matrix_lanes = 32, c.matrix_subgroups = UINT32_MAX;
    vkm_shape_choose(&c, &t.build.shape);
    bool dots = vkm_kernel_tier(t.device, "moe_gate_up", "q8_0", VKM_TIERS_ALL) == VKM_TIER_INT8DOT;
    static const uint32_t layers[][2] = {{8, 2}, {128, 8}, {256, 8}, {60, 4}, {16, 1}};      /* experts, of which used */
    for (size_t i = 0; i < VKM_COUNT(layers); i++) {
        uint32_t first = first_by_matrices(&t.build, REF_F32, layers[i][0], layers[i][1]), int8 = first_by_matrices(&t.build, REF_Q8_0, layers[i][0], layers[i][1]);
        cr_expect(first > 2 && first <= 64, "%u of %u: %u", layers[i][1], layers[i][0], first);
        cr_expect(int8 > 0 && (dots ? int8 > first : int8 == first), "%u of %u: %u, %u in integers", layers[i][1], layers[i][0], first, int8);
    }
    const struct vkm_weight qkv = {.type = vkm_type_find(REF_F32), .rows = 5120, .cols = 2048, .experts = 1, .kb = 64, .n_panels = 160, .n_chunks = 1, .chunk_panels = 160};
    for (uint32_t n = 1; n <= 512; n *= 2) {
        cr_expect_eq(vkm_linear_norms(&t.build, &qkv, n), n <= VKM_FEW_ROWS, "%u tokens", n);        /* one by one */
        cr_expect_eq(vkm_linear_adds(&t.build, &qkv, n), n < 32, "%u tokens", n);                    /* not by matrices */
    }
    close_bench(&t);
}

/* Tiles by matrices of the devices whose compilers spilled: 16 sums a lane with Intel's of 8 rows, and limits of all kinds. */
Test(tiles, by_matrices_hold_their_sums)
{
    FIRST_DRIVER_ONLY();
    static const struct { struct vkm_matrix matrix; uint32_t lanes, subgroups, invocations, bound, tokens, workgroup; } devices[] = {
        {{8, 8, 16, "f16", "f32"}, 8, UINT32_MAX, 1024, 0, 32, 256},     /* dg2 */
        {{8, 16, 16, "f16", "f32"}, 16, UINT32_MAX, 1024, 0, 64, 512},   /* lnl, bmg, ptl */
        {{8, 16, 16, "f16", "f32"}, 16, 16, 1024, 0, 32, 256},
        {{8, 16, 16, "f16", "f32"}, 16, UINT32_MAX, 256, 0, 32, 256},
        {{16, 16, 16, "f16", "f32"}, 32, UINT32_MAX, 1024, 0, 128, 128},
        {{16, 16, 16, "f16", "f32"}, 32, UINT32_MAX, 1024, 64, 64, 128}, /* nvk */
        {{16, 16, 16, "f16", "f32"}, 64, UINT32_MAX, 128, 0, 128, 128},
    };
    for (size_t i = 0; i < VKM_COUNT(devices); i++) {
        struct vkm_shape s;
        struct vkm_caps c = {.type = VKM_TYPE_DISCRETE, .invocations = devices[i].invocations, .shared_bytes = 48 << 10, .subgroup = true, .subgroup_size = 32, .coopmat = true, .tiers = VKM_TIERS_ALL, .matrix = devices[i].matrix,
                             .matrix_lanes = devices[i].lanes, .matrix_subgroups = devices[i].subgroups, .matrix_tokens = devices[i].bound};
        vkm_shape_choose(&c, &s);
        cr_expect(s.matrix_tokens == devices[i].tokens && s.matrix_subgroups * s.matrix_lanes == devices[i].workgroup, "device %zu: %u tokens, %u subgroups of %u", i, s.matrix_tokens, s.matrix_subgroups, s.matrix_lanes);
        cr_expect_eq(vkm_shape_tile_most(&s), devices[i].tokens);
    }
}

/* ---------------------------------------------------------------- integer dot products */

enum { D_X = 0, D_QUANTS = 100000, D_Y = 200000, D_TOKENS = 4, D_COLS = 512 };

/* The int8 row that the device made of x: within half a step of each value, and the sums are those of the quants. What it stands for goes to `values`. */
static void check_quants(const struct bench *t, uint32_t token, const float *x, double *values)
{
    const uint32_t *row = t->words + D_QUANTS + token * VKM_QUANTISED_WORDS(D_COLS / 32), *scales = row + D_COLS / 4;
    for (uint32_t k = 0; k < D_COLS / 32; k++) {
        double scale = as_float(scales[2 * k]), largest = 0;
        int32_t sum = 0;
        for (uint32_t c = k * 32; c < k * 32 + 32; c++) {
            int32_t q = (int8_t)(row[c / 4] >> c % 4 * 8);
            sum += q;
            values[c] = scale * q;
            largest = fmax(largest, fabs(x[c]));
            cr_assert(q >= -127 && fabs(values[c] - x[c]) <= 0.5001 * scale + 1e-30, "token %u column %u: %g as %d times %g", token, c, x[c], q, scale);
        }
        cr_assert(fabs(scale - largest / 127) <= 1e-6 * scale + 1e-32, "token %u block %u: scale %g, largest %g", token, k, scale, largest);
        cr_assert(fabs(as_float(scales[2 * k + 1]) - scale * sum) <= 1e-6 * fabs(scale * sum), "token %u block %u: sum %d", token, k, sum);
    }
}

/* Of what the quants stand for the product is right to f32: all that this tier loses is lost in quantise. */
static void check_dot(struct bench *t, uint32_t type, const char *name)
{
    struct vkm_weight w;
    struct vkm_region x = {D_X, D_COLS, D_TOKENS}, y = {D_Y, 96, D_TOKENS};
    struct ref_rng rng = ref_seed(type);
    float *weights = put_weights(t, type, D_COLS, false, false, &w), values[D_COLS];
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    for (uint32_t i = 0; i < D_TOKENS * D_COLS; i++) t->words[i] = as_bits((float)((ref_uniform(&rng) - 0.5) * exp2(i / 32 % 9 * 8.0 - 32)));    /* blocks of very different sizes */
    for (uint32_t i = 0; i < 64; i++) t->words[2 * D_COLS + i] = as_bits(i < 32 ? 0 : 1e-38f);
    float *in = malloc(D_TOKENS * D_COLS * sizeof *in);
    cr_assert(in);
    memcpy(in, t->words, D_TOKENS * D_COLS * sizeof *in);
    begin(t);
    vkm_error err = {0};
    t->build.err = &err;
    t->build.inputs.form[VKM_FORM_INT8] = (struct vkm_region){D_QUANTS, 1, D_Y - D_QUANTS};
    t->build.shape.singles = 1;                           /* in tiles, for which a step quantises */
    OK(vkm_linear(&t->build, "dot", &w, VKM_NONE, x, y, D_TOKENS));
    run(t, 1);
    for (uint32_t n = 0; n < D_TOKENS; n++) {
        double stands_for[D_COLS];
        memcpy(values, in + n * D_COLS, sizeof values);
        check_quants(t, n, values, stands_for);
        for (uint32_t r = 0; r < ROWS; r++) {
            double sum = 0, size = 0, got = as_float(t->words[D_Y + n * 96 + r]);
            for (uint32_t c = 0; c < D_COLS; c++) sum += stands_for[c] * weights[r * D_COLS + c], size += fabs(stands_for[c] * weights[r * D_COLS + c]);
            cr_assert(fabs(got - sum) <= 2e-6 * size, "%s: token %u row %u is %g, not %g of %g", name, n, r, got, sum, size);
        }
        for (uint32_t r = ROWS; r < 96; r++) cr_assert_eq(t->words[D_Y + n * 96 + r], 0);
    }
    uint32_t together[D_TOKENS * 96];                     /* one by one, which workgroups may quantise themselves: the same bits */
    memcpy(together, t->words + D_Y, sizeof together);
    for (uint32_t n = 0; n < D_TOKENS; n++) {
        memset(t->words + D_QUANTS, 0, D_QUANTS);
        begin(t);
        OK(vkm_linear(&t->build, "dot", &w, VKM_NONE, (struct vkm_region){D_X + n * D_COLS, D_COLS, 1}, y, 1));
        run(t, 1);
        cr_assert_arr_eq(t->words + D_Y, together + n * 96, 96 * 4, "%s: token %u alone", name, n);
    }
    free(in);
    free(weights);
}

static void check_dots(bool gpu_shape)
{
    struct bench t;
    open_bench(&t, "int8dot", gpu_shape);
    bool can = vkm_device_caps(t.device)->tiers & VKM_TIER_BIT(VKM_TIER_INT8DOT);
    for (size_t i = 0; can && i < VKM_COUNT(types); i++)
        if (vkm_kernel_tier(t.device, "linear", vkm_type_find(types[i].id)->variant, VKM_TIERS_ALL) == VKM_TIER_INT8DOT && (full() || !gpu_shape || types[i].id == REF_Q6_K))
            check_dot(&t, types[i].id, types[i].name);
    close_bench(&t);
    if (!can) cr_skip_test("the device has no integer dot product");
}
Test(int8dot, exact_but_for_x) { check_dots(false); }
Test(int8dot, exact_but_for_x_gpu_shape) { check_dots(true); }

/* The sums of blocks that matmul_cpu.glsl wants for tiles: in the order that it adds up itself for a single token, bit for bit. */
Test(kernels, block_sums)
{
    enum { ROWS_OF_X = 9, KB = 11, LD = KB * 32 + 64, X = 64, OUT = X + ROWS_OF_X * LD + 128 };
    struct bench t;
    open_bench(&t, NULL, false);
    t.build.shape.scalar_loads = true;                    /* asks for them; the kernel itself runs anywhere */
    struct ref_rng rng = ref_seed(5);
    for (uint32_t i = X; i < X + ROWS_OF_X * LD; i++) t.words[i] = as_bits((float)((ref_uniform(&rng) - 0.5) * exp2(i / 7 % 9 * 4.0 - 16)));
    const struct vkm_region rows = {X, LD, ROWS_OF_X}, room = {OUT, 1, ROWS_OF_X * VKM_SUMS_WORDS(KB)};
    struct vkm_weight w = {.type = vkm_type_find(REF_Q4_K), .rows = 64, .cols = KB * 32, .experts = 1, .kb = KB, .n_panels = 2, .n_chunks = 1};
    struct vkm_region x = rows;
    vkm_error err = {0};
    begin(&t);
    t.build.err = &err;
    t.build.inputs.form[VKM_FORM_SUMS] = (struct vkm_region){OUT, 1, room.rows - 1};
    cr_assert_eq(vkm_matmul_input(&t.build, "linear", &w, 4, &x, ROWS_OF_X), VKM_ERR_LIMIT);
    cr_assert(strstr(err.message, "block_sums"), "%s", err.message);
    t.build.inputs.form[VKM_FORM_SUMS] = room;
    OK(vkm_matmul_input(&t.build, "linear", &w, 1, &x, ROWS_OF_X));          /* a single token's are made within */
    w.type = vkm_type_find(REF_Q4_0);
    OK(vkm_matmul_input(&t.build, "linear", &w, 8, &x, ROWS_OF_X));          /* no offset */
    cr_assert_eq(t.build.there[VKM_FORM_SUMS].rows, 0);
    w.type = vkm_type_find(REF_Q4_K);
    OK(vkm_matmul_input(&t.build, "linear", &w, 8, &x, ROWS_OF_X));
    cr_assert_eq(t.build.there[VKM_FORM_SUMS].rows, ROWS_OF_X);
    cr_assert(x.at == rows.at && x.ld == rows.ld);                           /* x is read, too */
    run(&t, 1);
    for (uint32_t r = 0; r < ROWS_OF_X; r++)
        for (uint32_t k = 0; k < KB; k++) {
            float sum = 0;
            for (uint32_t i = 0; i < 8; i++) {
                const uint32_t *a = t.words + X + r * LD + k * 32 + i * 4;
                float low = as_float(a[0]) + as_float(a[1]), high = as_float(a[2]) + as_float(a[3]);
                sum = (low + high) + sum;
            }
            cr_assert_eq(t.words[OUT + r * VKM_SUMS_WORDS(KB) + k], as_bits(sum), "row %u, block %u", r, k);
        }
    cr_assert_eq(t.words[OUT + room.rows], CANARY);
    close_bench(&t);
}

/* ---------------------------------------------------------------- cooperative matrices */

/* Products of what is in reach of f16, f32 values beyond it clamped; x in f16 already, so that what is lost is the rounding of the weights, and of sums that NVIDIA's cut off. A tile that is not full. Of quants whose scales
 * are of any size (modest: false) that no sum is lost. */
static void check_matrix(struct bench *t, uint32_t type, bool modest, const char *name)
{
    enum { TOKENS = 13 };
    struct vkm_weight w;
    struct vkm_region x = {D_X, D_COLS, TOKENS}, y = {D_Y, 96, TOKENS};
    struct ref_rng rng = ref_seed(type);
    bool thrice = type == REF_Q4_0 || type == REF_Q4_1 || type == REF_Q4_K;       /* f16 arithmetic (matmul_coop.glsl): scale, offset and what they make are rounded, none larger than the block's largest weight */
    float *weights = put_weights(t, type, D_COLS, false, modest, &w), in[TOKENS * D_COLS];
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    for (uint32_t i = 0; i < TOKENS * D_COLS; i++) {
        in[i] = ref_half(ref_to_half((float)(ref_uniform(&rng) - 0.5)));
        t->words[i] = as_bits(i == 7 ? 1e6f : i == D_COLS + 9 ? -3e38f : in[i]);
    }
    in[7] = 65504, in[D_COLS + 9] = -65504;
    begin(t);
    vkm_error err = {0};
    t->build.err = &err;
    t->build.shape.splits = 1;            /* however few lanes this matrix is for a GPU */
    t->build.inputs.form[VKM_FORM_F16] = (struct vkm_region){D_QUANTS, 1, D_Y - D_QUANTS};
    OK(vkm_linear(&t->build, "matrix", &w, VKM_NONE, x, y, TOKENS));
    run(t, 1);
    for (uint32_t n = 0; n < TOKENS; n++) {
        for (uint32_t r = 0; r < ROWS; r++) {
            double sum = 0, size = 0, got = as_float(t->words[D_Y + n * 96 + r]);
            if (!modest && vkm_type_find(type)->block_cols > 1) {
                cr_assert(isfinite(got), "%s: token %u row %u is %g", name, n, r, got);
                continue;
            }
            for (uint32_t c = 0; c < D_COLS; c++) {
                double v = fmin(fmax(weights[r * D_COLS + c], -65504), 65504) * in[n * D_COLS + c], largest = 0;
                for (uint32_t i = c / 32 * 32; thrice && i < (c / 32 + 1) * 32; i++) largest = fmax(largest, fabs(weights[r * D_COLS + i]));
                sum += v, size += thrice ? 3 * largest * fabs(in[n * D_COLS + c]) : fabs(v);
            }
            cr_assert(fabs(got - sum) <= (type == REF_F16 ? 1e-5 : 0x1p-11 + 1e-5) * size + 1e-5, "%s: token %u row %u is %g, not %g of %g", name, n, r, got, sum, size);
        }
        for (uint32_t r = ROWS; r < 96; r++) cr_assert_eq(t->words[D_Y + n * 96 + r], 0);
    }
    cr_assert_eq(t->words[D_Y + TOKENS * 96], CANARY);
    free(weights);
}

static void check_matrices(bool gpu_shape)
{
    struct bench t;
    open_bench(&t, "coopmat", gpu_shape);
    bool can = vkm_device_caps(t.device)->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT);
    for (size_t i = 0; can && i < VKM_COUNT(types); i++)
        for (int modest = 0; modest < 2; modest++)
            if (full() || types[i].id == (gpu_shape ? REF_F16 : REF_Q5_1)) check_matrix(&t, types[i].id, modest, types[i].name);
    close_bench(&t);
    if (!can) cr_skip_test("the device or this build has no cooperative matrices");
}
Test(coopmat, f16_products) { check_matrices(false); }
Test(coopmat, f16_products_gpu_shape) { check_matrices(true); }

/* ---------------------------------------------------------------- the router */

enum { LOGITS = 0, LD = 1056, IDS = 100000, WEIGHTS = 120000, GATE = 140000, S_IDS = 0, S_COUNTS = 140000, S_PERM = 668000, S_TILES = 800000, S_ARGS = 1046000, S_UP = 5, S_DOWN = 14, S_EACH = 0x6413221 };

struct route { uint32_t n, n_expert, n_used, score; bool renormalise, gate; float scale; };

/* By default with tiles of 8, 16 and 128; as a tuner may like it; with holes; a row each. */
#define NEVER VKM_TILE_NEVER
static const struct vkm_shape tilings[] = {{.tile_from = {1, 2, 5, NEVER, NEVER, NEVER, NEVER}}, {.tile_from = {1, 2, 5, 9, NEVER, NEVER, NEVER}}, {.tile_from = {1, 2, 5, 9, 17, 33, 65}},
                                           {.tile_from = {1, 3, 7, 12, NEVER, NEVER, NEVER}}, {.tile_from = {1, NEVER, 6, NEVER, 20, NEVER, 90}}, {.tile_from = {1, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER}}};

/* perm, tiles and arguments of these ids [n k], compared with a sort in plain C. */
static void check_sorted(struct bench *t, uint32_t n, uint32_t k, uint32_t n_expert, uint32_t pieces, const struct vkm_shape *tiles, const uint32_t *ids, const char *what)
{
    uint32_t slots = n * k, tiles_max = vkm_moe_tiles_max(tiles->tile_from, n, k, n_expert), piece_tiles = vkm_div_up(tiles_max, pieces);
    uint32_t *start = calloc(n_expert + 1, 4), *at = calloc(n_expert, 4);
    cr_assert(start && at);
    for (uint32_t i = 0; i < slots; i++) start[ids[i] + 1]++;
    for (uint32_t e = 0; e < n_expert; e++) start[e + 1] += start[e];
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t row = start[ids[i]] + at[ids[i]]++;
        cr_assert_eq(t->words[S_PERM + row], i, "%s: sorted row %u is slot %u, not %u", what, row, t->words[S_PERM + row], i);
    }
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    uint32_t n_tiles[VKM_TILE_CLASSES] = {0};
    for (uint32_t e = 0; e < n_expert; e++)              /* an expert's rows, tile by tile: the last class that takes what is left */
        for (uint32_t first = start[e]; first < start[e + 1];) {
            uint32_t left = start[e + 1] - first, c = 0;
            for (uint32_t i = 1; i < VKM_TILE_CLASSES; i++) if (tiles->tile_from[i] != VKM_TILE_NEVER && tiles->tile_from[i] <= left) c = i;
            uint32_t rows = left < sizes[c] ? left : sizes[c];
            const uint32_t *tile = t->words + S_TILES + 2 * (c * tiles_max + n_tiles[c]);
            cr_assert_lt(n_tiles[c], tiles_max, "%s: room for %u tiles of class %u", what, tiles_max, c);
            cr_assert(tile[0] == (e | rows << 16) && tile[1] == first, "%s: tile %u of class %u has %u rows of expert %u from row %u, not %u of %u from %u", what, n_tiles[c], c, tile[0] >> 16,
                      tile[0] & 0xffff, tile[1], rows, e, first);
            n_tiles[c]++;
            first += rows;
        }
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
        uint32_t each = S_EACH >> 4 * c & 15;
        for (uint32_t p = 0; p < pieces; p++) {
            const uint32_t *args = t->words + S_ARGS + (c * pieces + p) * 6;
            uint32_t before = p * piece_tiles, mine = n_tiles[c] < before ? 0 : n_tiles[c] - before < piece_tiles ? n_tiles[c] - before : piece_tiles;
            cr_assert(args[0] == mine && args[3] == mine && args[1] == vkm_div_up(S_UP, each) && args[4] == vkm_div_up(S_DOWN, each) && args[2] == 1 && args[5] == 1,
                      "%s, %u slots, %u experts: arguments of class %u, piece %u: %u %u %u, %u %u %u", what, slots, n_expert, c, p, args[0], args[1], args[2], args[3], args[4], args[5]);
        }
        for (uint32_t i = n_tiles[c]; i < tiles_max; i++)
            cr_assert(t->words[S_TILES + 2 * (c * tiles_max + i)] == CANARY, "%s: a tile behind the last of class %u", what, c);
    }
    cr_assert(t->words[S_PERM + slots] == CANARY && t->words[S_TILES + 2 * VKM_TILE_CLASSES * tiles_max] == CANARY && t->words[S_ARGS + 6 * VKM_TILE_CLASSES * pieces] == CANARY, "%s", what);
    free(start);
    free(at);
}

static void pack_tile_from(const struct vkm_shape *tiles, uint32_t packed[2])
{
    packed[0] = packed[1] = 0;
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) packed[c / 4] |= (uint32_t)tiles->tile_from[c] << c % 4 * 8;
}

/* few: one workgroup, which sorts too */
static void run_router(struct bench *t, const struct route *c, bool few, const struct vkm_shape *tiles)
{
    struct vkm_push_moe_topk push = {.ws_logits = LOGITS, .ld_logits = LD, .n_used = c->n_used, .ws_ids = IDS, .ws_weight = WEIGHTS,
        .ws_gate = c->gate ? GATE : VKM_NONE, .score = c->score, .renormalise = c->renormalise, .scale = c->scale,
        .few = few ? c->n : 0, .ws_perm = S_PERM, .ws_tiles = S_TILES, .tiles_max = vkm_moe_tiles_max(tiles->tile_from, c->n, c->n_used, c->n_expert), .ws_args = S_ARGS, .panels_up = S_UP, .panels_down = S_DOWN, .group_panels = S_EACH};
    pack_tile_from(tiles, push.tile_from);
    struct vkm_step step = {.groups = {few ? 1 : c->n, 1, 1}, .push_bytes = sizeof push};
    const uint32_t lanes = vkm_moe_topk_lanes(&t->build, c->n_expert), spec[] = {lanes, 1, vkm_reduce_shared(&t->build, lanes), c->n_expert};
    vkm_error err = {0};
    memcpy(step.push, &push, sizeof push);
    t->build.err = &err;
    begin(t);
    vkm_reads_words(&t->build, &step, LOGITS, c->n * LD);
    vkm_writes_words(&t->build, &step, IDS, WS_WORDS - IDS);
    OK(vkm_build_step(&t->build, "moe_topk", "", spec, 4, &step, "moe_topk"));
    run(t, 1);
}

/* What the rules say of finite logits and NaN, which is worse than everything and has no weight. */
static void check_route(struct bench *t, const struct route *c, uint32_t token, const float *z, bool weights, const char *what)
{
    uint32_t chosen[32];
    double of_all = 0, of_chosen = 0, max = -INFINITY;
    bool taken[1024] = {0};
    for (uint32_t e = 0; e < c->n_expert; e++) max = z[e] > max ? z[e] : max;
    for (uint32_t e = 0; e < c->n_expert; e++) of_all += isnan(z[e]) ? 0 : exp(z[e] - max);
    for (uint32_t j = 0; j < c->n_used; j++) {
        uint32_t best = c->n_expert;
        for (uint32_t e = 0; e < c->n_expert; e++)
            if (!taken[e] && (best == c->n_expert || z[e] > z[best] || (isnan(z[best]) && !isnan(z[e])))) best = e;
        taken[chosen[j] = best] = true;
        of_chosen += isnan(z[best]) ? 0 : exp(z[best] - max);
    }
    for (uint32_t j = 0; j < c->n_used; j++) {
        uint32_t id = t->words[IDS + token * c->n_used + j];
        cr_assert_eq(id, chosen[j], "%s: token %u, choice %u is expert %u, not %u", what, token, j, id, chosen[j]);
        double divide = c->score == VKM_SCORE_SELECTED ? of_chosen : c->renormalise ? of_all * fmax(of_chosen / of_all, 0x1p-14) : of_all;
        double expected = isnan(z[chosen[j]]) ? 0 : exp(z[chosen[j]] - max) / divide * c->scale, got = as_float(t->words[WEIGHTS + token * c->n_used + j]);
        if (weights) cr_assert(fabs(got - expected) <= 1e-5 * expected + 1e-12, "%s: token %u, choice %u has weight %g, not %g", what, token, j, got, expected);
    }
    if (c->gate) {
        double g = 1 / (1 + exp(-(double)z[c->n_expert]));
        cr_assert(fabs(as_float(t->words[GATE + token]) - g) < 1e-6, "%s: gate of token %u", what, token);
    }
}

static void fill_logits(struct bench *t, uint32_t token, uint32_t n, const float *z) { memcpy(t->words + LOGITS + token * LD, z, n * sizeof *z); }

static void check_random_routes(struct bench *t, const struct route *c)
{
    char what[64];
    float z[64][1025];
    struct ref_rng rng = ref_seed(c->n_expert + 7 * c->n_used);
    snprintf(what, sizeof what, "%u of %u, score %u, renormalise %d", c->n_used, c->n_expert, c->score, c->renormalise);
    cr_assert_leq(c->n, 64);
    for (uint32_t i = 0; i < c->n; i++) {
        for (uint32_t e = 0; e <= c->n_expert; e++) z[i][e] = (float)(2 * ref_normal(&rng));
        if (i % 4 == 1) for (uint32_t e = 0; e < c->n_expert; e++) z[i][e] = floorf(z[i][e]);                        /* many ties */
        if (i % 4 == 2) for (uint32_t e = 0; e < c->n_expert; e++) z[i][e] *= 40;                                    /* all weight on one */
        fill_logits(t, i, c->n_expert + 1, z[i]);
    }
    run_router(t, c, false, &t->build.shape);
    for (uint32_t i = 0; i < c->n; i++) check_route(t, c, i, z[i], true, what);
    if (c->n > vkm_moe_few_rows(c->n_expert)) return;
    uint32_t chosen[2][VKM_FEW_ROWS * 32], size = c->n * c->n_used * 4;
    for (int i = 0; i < 2; i++) memcpy(chosen[i], t->words + (i ? WEIGHTS : IDS), size);
    for (uint32_t k = 0; k < VKM_COUNT(tilings); k++) {
        for (uint32_t i = IDS; i < WS_WORDS; i++) t->words[i] = CANARY;
        run_router(t, c, true, &tilings[k]);
        for (int i = 0; i < 2; i++) cr_assert_eq(memcmp(chosen[i], t->words + (i ? WEIGHTS : IDS), size), 0, "%s: other bits when sorting too", what);
        check_sorted(t, c->n, c->n_used, c->n_expert, 1, &tilings[k], chosen[0], what);
    }
}

/* The last only with VKMOE_TEST_FULL: the first's kernels without subgroup operations. */
static const struct { const char *caps; bool gpu_shape; } router_devices[] = {{NULL, false}, {NULL, true}, {"baseline", true}, {"baseline", false}};
static size_t n_router_devices(void) { return VKM_COUNT(router_devices) - !full(); }

Test(router, random_logits)
{
    static const struct route cases[] = {
        {64, 8, 2, VKM_SCORE_SOFTMAX, true, false, 1}, {64, 60, 4, VKM_SCORE_SOFTMAX, false, true, 1}, {33, 128, 8, VKM_SCORE_SOFTMAX, true, false, 2.5f},
        {17, 32, 8, VKM_SCORE_SELECTED, false, false, 1}, {1, 8, 2, VKM_SCORE_SOFTMAX, true, false, 1}, {1, 60, 4, VKM_SCORE_SOFTMAX, false, true, 1},
        {5, 1, 1, VKM_SCORE_SOFTMAX, true, false, 1}, {8, 32, 32, VKM_SCORE_SOFTMAX, false, false, 1}, {9, 512, 10, VKM_SCORE_SOFTMAX, true, false, 1},
        {2, 512, 10, VKM_SCORE_SOFTMAX, true, false, 1}, {8, 128, 8, VKM_SCORE_SOFTMAX, true, false, 1}, {4, 60, 4, VKM_SCORE_SOFTMAX, false, true, 1}, {7, 8, 2, VKM_SCORE_SELECTED, false, false, 1}};
    for (size_t i = 0; i < n_router_devices(); i++) {
        struct bench t;
        open_bench(&t, router_devices[i].caps, router_devices[i].gpu_shape);
        for (size_t k = 0; k < VKM_COUNT(cases); k++)   /* every number of experts is another kernel: all of them on one device */
            if (i == 0 || full() || cases[k].n_expert == 8 || cases[k].n_expert == 512) check_random_routes(&t, &cases[k]);
        close_bench(&t);
    }
}

Test(router, most_experts)
{
    for (size_t i = 0; i < n_router_devices(); i++) {
        struct bench t;
        open_bench(&t, router_devices[i].caps, router_devices[i].gpu_shape);
        check_random_routes(&t, &(struct route){6, 1024, 32, VKM_SCORE_SOFTMAX, true, false, 1});
        close_bench(&t);
    }
}

/* NaN, infinities, all equal: every index in range and different, the lowest first among equals; weights where they are numbers. */
Test(router, hostile_logits)
{
    static const float I = INFINITY, N = NAN;
    static const struct { const char *what; float z[8]; bool weights; } cases[] = {
        {"equal", {1, 1, 1, 1, 1, 1, 1, 1}, true},
        {"equal and negative", {-3, -3, -3, -3, -3, -3, -3, -3}, true},
        {"zeros of both signs", {-0.0f, 0.0f, -0.0f, 0.0f, 0.0f, -0.0f, 0.0f, 0.0f}, true},
        {"zeros among others", {-1, -0.0f, 0.0f, -2, -0.0f, -5, -1, -1}, true},
        {"NaN first", {N, 1, 2, 3, 4, 5, 6, 7}, true},
        {"NaN among few", {N, N, N, 0.5f, N, N, 0.25f, N}, true},
        {"NaN chosen", {N, N, N, N, N, 2, N, N}, true},
        {"negative NaN", {-N, 1, -N, 0, 3, 0, 0, 0}, true},
        {"all NaN", {N, N, N, N, N, N, N, N}, false},
        {"one infinite", {0, 1, I, 3, 4, 5, 6, 7}, false},
        {"all infinite", {I, I, I, I, I, I, I, I}, false},
        {"-Inf among others", {-I, 1, -I, -I, -I, -I, -I, 0.5f}, true},
        {"all -Inf", {-I, -I, -I, -I, -I, -I, -I, -I}, false},
        {"Inf, -Inf, NaN", {-I, N, I, -I, N, I, 0, 1}, false},
        {"largest", {3.4e38f, -3.4e38f, 3.4e38f, 0, 0, 0, 0, 1}, true},
        {"smallest", {1e-45f, 0, -1e-45f, 1e-40f, 0, 0, 0, 0}, false}};      /* denormals may be flushed: see below */
    for (size_t i = 0; i < n_router_devices(); i++) {
        struct bench t;
        open_bench(&t, router_devices[i].caps, router_devices[i].gpu_shape);
        for (uint32_t score = 0; score < 2; score++) {
            struct route c = {VKM_COUNT(cases), 8, 3, score, score == 0, false, 1};
            for (uint32_t k = 0; k < c.n; k++) fill_logits(&t, k, 8, cases[k].z);
            run_router(&t, &c, false, &t.build.shape);
            for (uint32_t k = 0; k + 1 < c.n; k++) check_route(&t, &c, k, cases[k].z, cases[k].weights, cases[k].what);
            for (uint32_t k = 0; k < c.n; k++)
                for (uint32_t j = 0; j < 3; j++) {
                    uint32_t id = t.words[IDS + k * 3 + j];
                    cr_assert_lt(id, 8, "%s", cases[k].what);
                    for (uint32_t l = 0; l < j; l++) cr_assert_neq(id, t.words[IDS + k * 3 + l], "%s: expert %u twice", cases[k].what, id);
                }
        }
        close_bench(&t);
    }
}

/* ---------------------------------------------------------------- the counting sort */

/* ids [n k] -> perm, tiles, arguments */
static void check_sort(struct bench *t, uint32_t n, uint32_t k, uint32_t n_expert, uint32_t pieces, const uint32_t *ids, const char *what)
{
    const struct vkm_shape *tiles = &tilings[n * k > 4096 ? 0 : n * k % VKM_COUNT(tilings)];
    uint32_t slots = n * k, chunks = vkm_div_up(slots, VKM_SORT_CHUNK), tiles_max = vkm_moe_tiles_max(tiles->tile_from, n, k, n_expert), count_words = vkm_moe_count_words(n, k, n_expert);
    cr_assert(slots <= S_COUNTS - S_IDS && count_words < S_PERM - S_COUNTS && slots < S_TILES - S_PERM && 2 * VKM_TILE_CLASSES * tiles_max < S_ARGS - S_TILES);
    struct vkm_push_moe_sort push = {.ws_ids = S_IDS, .n_slots = slots, .n_expert = n_expert, .ws_counts = S_COUNTS, .ws_perm = S_PERM, .ws_tiles = S_TILES, .tiles_max = tiles_max,
                                     .pieces = pieces, .piece_tiles = vkm_div_up(tiles_max, pieces), .ws_args = S_ARGS, .panels_up = S_UP, .panels_down = S_DOWN, .group_panels = S_EACH};
    pack_tile_from(tiles, push.tile_from);
    uint32_t most = vkm_reduce_lanes(&t->build, (uint64_t)n_expert * (chunks * 2 > VKM_SORT_CHUNK ? chunks * 2 : VKM_SORT_CHUNK) * 2);   /* as src/moe/layer.c */
    const uint32_t lanes = most < 64 ? most : 64, spec[] = {lanes, 1, n_expert};
    struct vkm_step count = {.groups = {chunks, 1, 1}, .push_bytes = sizeof push}, permute = count;
    vkm_error err = {0};
    memcpy(count.push, &push, sizeof push);
    memcpy(permute.push, &push, sizeof push);
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    memcpy(t->words + S_IDS, ids, slots * 4);
    t->build.err = &err;
    begin(t);
    vkm_reads_words(&t->build, &count, S_IDS, slots);
    vkm_writes_words(&t->build, &count, S_COUNTS, chunks * n_expert);
    OK(vkm_build_step(&t->build, "moe_count", "", spec, 2, &count, "moe_count"));
    vkm_reads_words(&t->build, &permute, S_IDS, slots);
    vkm_reads_words(&t->build, &permute, S_COUNTS, chunks * n_expert);
    vkm_writes_words(&t->build, &permute, S_PERM, WS_WORDS - S_PERM);
    OK(vkm_build_step(&t->build, "moe_permute", "", spec, 3, &permute, "moe_permute"));
    run(t, 1);

    check_sorted(t, n, k, n_expert, pieces, tiles, ids, what);
    cr_assert_eq(t->words[S_COUNTS + count_words], CANARY, "%s", what);
}

static void check_sorts(const char *caps, bool gpu_shape)
{
    struct bench t;
    static uint32_t ids[1 << 17];
    struct ref_rng rng = ref_seed(5);
    open_bench(&t, caps, gpu_shape);
    static const struct { uint32_t n, k, experts; } cases[] = {{2, 1, 8}, {1, 1, 8}, {33, 2, 8}, {256, 1, 8}, {129, 2, 8}, {7, 8, 8}, {40, 4, 60}, {512, 8, 128}, {17, 32, 1024}, {4096, 8, 60}};
    for (size_t i = 0; i < VKM_COUNT(cases); i++) {
        uint32_t n = cases[i].n, k = cases[i].k, experts = cases[i].experts, slots = n * k;
        for (uint32_t s = 0; s < slots; s++) ids[s] = ref_below(&rng, experts);
        check_sort(&t, n, k, experts, 1 + i % 3, ids, "random");
        for (uint32_t s = 0; s < slots; s++) { double u = ref_uniform(&rng); ids[s] = (uint32_t)(experts * u * u * u * u); }
        check_sort(&t, n, k, experts, 1 + i % 3, ids, "skewed");
        for (uint32_t s = 0; s < slots; s++) ids[s] = experts - 1;
        check_sort(&t, n, k, experts, 1 + i % 3, ids, "all to the last expert");
        for (uint32_t s = 0; s < slots; s++) ids[s] = s % experts;
        check_sort(&t, n, k, experts, 1 + i % 3, ids, "in turn");
    }
    for (uint32_t s = 0; s < 4096 * 8; s++) ids[s] = ref_below(&rng, 1024);
    check_sort(&t, 4096, 8, 1024, 4, ids, "4096 tokens, 8 of 1024");
    for (uint32_t s = 0; s < 4096 * 32; s++) ids[s] = ref_below(&rng, 1024);
    check_sort(&t, 4096, 32, 1024, 4, ids, "4096 tokens, 32 of 1024");
    for (uint32_t rows = 1; rows <= 130; rows += rows < 40 || rows % 32 < 2 ? 1 : 7) {   /* one expert with this many rows, between others */
        uint32_t n = rows + 24 + rows % 6;               /* another tiling each time */
        for (uint32_t s = 0; s < n; s++) ids[s] = s < rows ? 3 : s % 2 ? 1 : 6;
        check_sort(&t, n, 1, 8, 1, ids, "every remainder");
    }
    close_bench(&t);
}
Test(sort, device_shape) { check_sorts(NULL, false); }
Test(sort, gpu_shape) { FULL_ONLY(); check_sorts("baseline", true); }

/* ---------------------------------------------------------------- sampling */

enum { V_LOGITS = 0, V_SCRATCH = 300000, V_STATE = 600000 };

/* One draw from logits [n]. */
static uint32_t draw(struct bench *t, const float *z, uint32_t n, float temperature, uint32_t top_k, float top_p, float min_p, uint32_t seed)
{
    vkm_error err = {0};
    enum { RECENT = VKM_SAMPLING_WORDS, TOKEN = RECENT + VKM_RECENT, POS, SEQ };
    uint32_t *s = t->words + V_STATE;
    memcpy(t->words + V_LOGITS, z, n * sizeof *z);
    memset(s, 0, (SEQ + 1) * 4);
    s[VKM_SAMPLING_SEED] = seed; s[VKM_SAMPLING_TEMPERATURE] = as_bits(temperature); s[VKM_SAMPLING_TOP_K] = top_k; s[VKM_SAMPLING_TOP_P] = as_bits(top_p); s[VKM_SAMPLING_MIN_P] = as_bits(min_p);
    s[VKM_SAMPLING_LOGIT_SCALE] = as_bits(1);
    s[POS] = 41;
    t->build.err = &err;
    begin(t);
    const struct vkm_sample m = {.logits = {V_LOGITS, n, 1}, .scratch = {V_SCRATCH, n, 1}, .n_vocab = n, .n_seq = 1, .ws_sampling = V_STATE, .ws_recent = V_STATE + RECENT,
                                 .ws_tokens = V_STATE + TOKEN, .ws_pos = V_STATE + POS, .ws_seq = V_STATE + SEQ};
    OK(vkm_sample_step(&t->build, &m, 1));
    run(t, 1);
    cr_assert(s[POS] == 42 && s[TOKEN] == s[RECENT + 42] && s[SEQ] == 0);
    cr_assert_lt(s[TOKEN], n);
    return s[TOKEN];
}

Test(sample, greedy_ties_and_nan)
{
    for (int gpu = 0; gpu < 2; gpu++) {
        struct bench t;
        static float z[1000];
        open_bench(&t, gpu ? "baseline" : NULL, gpu);
        for (int i = 0; i < 1000; i++) z[i] = -1 - (float)(i % 7);
        z[990] = z[700] = z[333] = 2;
        cr_assert_eq(draw(&t, z, 1000, 0, 0, 0, 0, 1), 333);
        cr_assert_eq(draw(&t, z, 1000, -1, 0, 0, 0, 1), 333);
        z[5] = NAN;
        cr_assert_eq(draw(&t, z, 1000, 0, 0, 0, 0, 1), 333);
        z[999] = INFINITY;
        cr_assert_eq(draw(&t, z, 1000, 0, 0, 0, 0, 1), 999);
        z[4] = -0.0f;
        for (int i = 0; i < 1000; i++) z[i] = i < 4 ? -1 : i == 4 ? -0.0f : 0.0f;
        cr_assert_eq(draw(&t, z, 1000, 0, 0, 0, 0, 1), 4);
        for (int i = 0; i < 1000; i++) z[i] = NAN;
        draw(&t, z, 1000, 0, 0, 0, 0, 1);                /* a token of the vocabulary, whichever */
        draw(&t, z, 1000, 1, 40, 0.9f, 0.1f, 1);
        for (int i = 0; i < 1000; i++) z[i] = -INFINITY;
        draw(&t, z, 1000, 0, 0, 0, 0, 1);
        draw(&t, z, 1000, 1, 40, 0.9f, 0.1f, 1);
        close_bench(&t);
    }
}

static int descending(const void *a, const void *b) { float x = *(const float *)a, y = *(const float *)b; return x < y ? 1 : x > y ? -1 : 0; }

/* The lowest logit that the filters leave, in double; top-p's edge is wide enough below to be the same in f32. */
static float threshold(const float *z, uint32_t n, uint32_t top_k, double top_p, double min_p)
{
    float *sorted = malloc(n * sizeof *sorted);
    double mass = 0, sum = 0;
    memcpy(sorted, z, n * sizeof *z);
    qsort(sorted, n, sizeof *sorted, descending);
    uint32_t m = top_k && top_k < n ? top_k : n;
    for (uint32_t i = 0; i < m; i++) mass += exp(sorted[i] - sorted[0]);
    uint32_t last = m - 1;
    for (uint32_t i = 0; i < m && top_p > 0 && top_p < 1; i++)
        if ((sum += exp(sorted[i] - sorted[0])) >= top_p * mass) { last = i; break; }
    float cut = sorted[last];
    if (min_p > 0 && cut < sorted[0] + log(min_p)) cut = (float)(sorted[0] + log(min_p));
    free(sorted);
    return cut;
}

/* A vocabulary as large as Qwen's: the survivors are those of a sort, whatever the filter. */
Test(sample, large_vocabulary)
{
    enum { V = 151936 };
    static float z[V];
    struct ref_rng rng = ref_seed(9);
    uint32_t best = 0;
    for (uint32_t i = 0; i < V; i++) { z[i] = (float)(3 * ref_normal(&rng)); if (z[i] > z[best]) best = i; }
    static const struct { uint32_t top_k; float top_p, min_p; } cases[] = {{0, 0, 0}, {40, 0, 0}, {1, 0, 0}, {0, 0.5f, 0}, {0, 0, 0.3f}, {2000, 0.3f, 0}, {200, 0.9f, 0.2f}};
    for (int gpu = 0; gpu < 2; gpu++) {
        struct bench t;
        open_bench(&t, gpu ? "baseline" : NULL, gpu);
        cr_expect_eq(draw(&t, z, V, 0, 0, 0, 0, 1), best, "greedy");
        for (size_t c = 0; c < VKM_COUNT(cases); c++) {
            float cut = threshold(z, V, cases[c].top_k, cases[c].top_p, cases[c].min_p);
            for (uint32_t seed = 0; seed < 4; seed++) {
                uint32_t id = draw(&t, z, V, 2, cases[c].top_k, cases[c].top_p, cases[c].min_p, seed);
                cr_expect(z[id] >= cut - 1e-4f, "top-k %u, top-p %g, min-p %g: token %u with logit %g; the least allowed is %g", cases[c].top_k, cases[c].top_p, cases[c].min_p, id, z[id], cut);
            }
        }
        close_bench(&t);
    }
}

/* ---------------------------------------------------------------- attention */

/* One query, all keys alike, so that the answer is the mean of the values: every key counts, however many there are. */
static void check_many_keys(const char *caps, bool kv16, uint32_t n_keys)
{
    enum { HEAD = 128, Q = 0, OUT = 1024, POS = 2048, SEQ };
    struct bench t;
    vkm_error err = {0};
    vkm_buffer *kv[2];
    vkm_bindings *bindings = NULL;
    uint32_t words = kv16 ? HEAD / 2 : HEAD, n_ctx = (n_keys + 31) / 32 * 32;
    uint64_t bytes = (uint64_t)n_ctx * words * 4;
    uint32_t *values = calloc(1, bytes);
    cr_assert(values);
    open_bench(&t, caps, false);
    for (int i = 0; i < 2; i++) OK(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, bytes, "kv", &kv[i], &err));
    upload(&t, kv[0], values, bytes);
    for (uint32_t key = 0; key < n_ctx; key++) {
        float v = key >= n_keys ? 100.0f : key < n_keys / 2 ? 1.0f : 2.0f;
        for (uint32_t i = 0; i < words; i++) values[(size_t)key * words + i] = kv16 ? (uint32_t)ref_to_half(v) * 0x10001u : as_bits(v);
    }
    upload(&t, kv[1], values, bytes);
    free(values);
    const uint64_t addresses[2] = {vkm_buffer_address(kv[0]), vkm_buffer_address(kv[1])};
    upload(&t, t.tables, addresses, sizeof addresses);
    OK(vkm_bindings_create(t.device, t.ws, t.tables, t.slabs, 2, kv, 2, &bindings, &err));
    memset(t.words, 0, HEAD * 4);
    t.words[POS] = n_keys - 1;
    t.words[SEQ] = 0;
    const struct vkm_attention a = {.n_head = 1, .n_head_kv = 1, .head = HEAD, .kv16 = kv16, .scale = 1, .n_ctx = n_ctx, .q = {Q, HEAD, 1}, .out = {OUT, HEAD, 1}, .ws_pos = POS, .ws_seq = SEQ};
    const struct vkm_kv cache = {.k_unit = 0, .v_unit = 1, .units = 1, .bytes = bytes, .n_parts = 2, .parts = {{kv[0], 0, bytes}, {kv[1], 0, bytes}}};
    t.build.err = &err;
    t.build.sets = &bindings;
    begin(&t);
    OK(vkm_attention_step(&t.build, &a, &cache, 1));
    run(&t, 1);
    double mean = (n_keys / 2 * 1.0 + (n_keys - n_keys / 2) * 2.0) / n_keys;
    for (uint32_t i = 0; i < HEAD; i++)
        cr_assert(fabs(as_float(t.words[OUT + i]) - mean) < 1e-3, "%u keys: %g, not %g", n_keys, as_float(t.words[OUT + i]), mean);
    cr_assert_eq(t.words[OUT + HEAD], CANARY);
    vkm_bindings_destroy(bindings);
    for (int i = 0; i < 2; i++) vkm_buffer_destroy(kv[i]);
    close_bench(&t);
}
Test(attention, keys_33) { check_many_keys(NULL, false, 33); }
Test(attention, keys_4000) { check_many_keys(NULL, true, 4000); }
Test(attention, keys_20000) { check_many_keys(NULL, true, 20000); }
Test(attention, keys_40000) { check_many_keys(NULL, true, 40000); }
static void check_many_keys_scalar(bool kv16, uint32_t n_keys)
{
    struct driver_log log;
    vkm_device *device = driver_open("scalar", &log);
    bool can = runs_scalar_loads(vkm_device_caps(device));
    driver_close(device, &log);
    if (!can) cr_skip_test(NO_SCALAR_LOADS);
    check_many_keys("scalar", kv16, n_keys);
}
Test(attention, keys_33_scalar_loads) { check_many_keys_scalar(false, 33); }
Test(attention, keys_4000_scalar_loads) { check_many_keys_scalar(true, 4000); }

/* A prompt of n tokens behind `first` others, at once and in parts, against plain C: by cooperative matrices of a form in two parts; form NULL: in f32, token by token, which is another kernel
 * on a GPU. What lies behind it in the cache is large and must weigh nothing. */
struct prompt_case { uint32_t head, n_head, n_head_kv, first, n; };
struct coop_form { uint32_t subgroups, keys, buffers, fetch; };

static double half_of(const uint32_t *words, uint64_t i) { return ref_half((uint16_t)(words[i / 2] >> i % 2 * 16)); }

static void reference_row(const struct prompt_case *c, uint32_t n_ctx, const float *q, const uint32_t *k, const uint32_t *v, uint32_t kv_head, uint32_t pos, double *out)
{
    double *weight = malloc((pos + 1) * sizeof *weight), sum = 0, most = -INFINITY;
    cr_assert(weight);
    for (uint32_t key = 0; key <= pos; key++) {
        weight[key] = 0;
        for (uint32_t d = 0; d < c->head; d++)
            weight[key] += q[d] * half_of(k, 2 * (((uint64_t)kv_head * n_ctx / 32 + key / 32) * (c->head / 2) * 32 + d / 2 * 32 + key % 32) + d % 2) / sqrt(c->head);
        most = fmax(most, weight[key]);
    }
    for (uint32_t d = 0; d < c->head; d++) out[d] = 0;
    for (uint32_t key = 0; key <= pos; key++) {
        double e = exp(weight[key] - most);
        sum += e;
        for (uint32_t d = 0; d < c->head; d++) out[d] += e * half_of(v, ((uint64_t)kv_head * n_ctx + key) * c->head + d);
    }
    for (uint32_t d = 0; d < c->head; d++) out[d] /= sum;
    free(weight);
}

static void check_prompt(struct bench *t, const struct prompt_case *c, const struct coop_form *form)
{
    vkm_error err = {0};
    vkm_buffer *kv[2];
    vkm_bindings *bindings = NULL;
    uint32_t n_ctx = (c->first + c->n + 31) / 32 * 32 + 32, ld = c->n_head * c->head + 32, group = c->n_head / c->n_head_kv, cut = !form ? 1 : c->n / 2 < 16 ? 16 : c->n / 2, least = form ? 16 : 1, done = 0;
    uint32_t out = c->n * ld, part = out + (c->n + 1) * ld, pos = part + (c->n + 1) * ld, seq = pos + c->n;
    uint64_t words = (uint64_t)n_ctx * c->n_head_kv * c->head / 2;
    struct ref_rng rng = ref_seed(c->head + c->n);
    uint32_t *cache[2];
    char what[128];
    const struct coop_form of = form ? *form : (struct coop_form){0};
    snprintf(what, sizeof what, "heads %u x %u of %u, %u tokens behind %u, form %u %u %u %u", c->n_head, c->head, c->n_head_kv, c->n, c->first, of.subgroups, of.keys, of.buffers, of.fetch);
    cr_assert(seq + c->n < WS_WORDS);
    for (int i = 0; i < 2; i++) {
        cache[i] = malloc(words * 4);
        cr_assert(cache[i]);
        OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, words * 4, "kv", &kv[i], &err));
        for (uint64_t w = 0; w < words; w++) {
            uint32_t key = (uint32_t)(i ? w / (c->head / 2) % n_ctx : w / (c->head / 2 * 32) * 32 % n_ctx + w % 32), value = 0;
            for (int h = 0; h < 2; h++) value |= (uint32_t)ref_to_half(key < c->first + c->n ? (float)(4 * ref_uniform(&rng) - 2 + i) : 60000.0f) << 16 * h;
            cache[i][w] = value;
        }
        upload(t, kv[i], cache[i], words * 4);
    }
    const uint64_t addresses[2] = {vkm_buffer_address(kv[0]), vkm_buffer_address(kv[1])};
    upload(t, t->tables, addresses, sizeof addresses);
    OK(vkm_bindings_create(t->device, t->ws, t->tables, t->slabs, 2, kv, 2, &bindings, &err));
    for (uint32_t i = 0; i < WS_WORDS; i++) t->words[i] = CANARY;
    for (uint32_t i = 0; i < out; i++) t->words[i] = as_bits((float)(4 * ref_uniform(&rng) - 2));
    for (uint32_t i = 0; i < c->n; i++) t->words[pos + i] = c->first + i, t->words[seq + i] = 0;
    float *q = malloc(out * sizeof *q);
    double *expected = malloc(c->head * sizeof *expected), worst = 0;
    cr_assert(q && expected);
    memcpy(q, t->words, out * sizeof *q);
    struct vkm_attention a = {.n_head = c->n_head, .n_head_kv = c->n_head_kv, .head = c->head, .kv16 = true, .scale = (float)(1 / sqrt(c->head)), .n_ctx = n_ctx,
                              .q = {0, ld, c->n}, .out = {out, ld, c->n}, .ws_pos = pos, .ws_seq = seq, .one_sequence = true};
    const struct vkm_kv kept = {.k_unit = 0, .v_unit = 1, .units = 1, .bytes = words * 4, .n_parts = 2, .parts = {{kv[0], 0, words * 4}, {kv[1], 0, words * 4}}};
    t->build.err = &err;
    t->build.sets = &bindings;
    t->build.shape.coop_subgroups = of.subgroups, t->build.shape.coop_keys = of.keys, t->build.shape.coop_buffers = of.buffers, t->build.shape.coop_fetch = of.fetch;
    begin(t);
    OK(vkm_attention_step(&t->build, &a, &kept, c->n));
    a.out.at = part;
    for (uint32_t some; c->n - done >= least; done += some) {
        some = form && done ? c->n - done : cut;
        OK(vkm_attention_step(&t->build, &a, &kept, some));
        a.q.at += some * ld, a.out.at += some * ld, a.ws_pos += some, a.ws_seq += some;
    }
    run(t, 1);
    for (uint32_t row = 0; row < c->n; row++) {
        for (uint32_t h = 0; h < c->n_head; h++) {
            double nmse;
            reference_row(c, n_ctx, q + row * ld + h * c->head, cache[0], cache[1], h / group, c->first + row, expected);
            nmse = ref_nmse_f32(expected, (const float *)t->words + out + row * ld + h * c->head, c->head);
            cr_assert(nmse < (form ? NMSE_COOPMAT : NMSE_F32), "%s: token %u head %u: NMSE %.3g", what, row, h, nmse);
            worst = fmax(worst, nmse);
        }
        for (uint32_t i = c->n_head * c->head; i < ld; i++) cr_assert_eq(t->words[out + row * ld + i], 0, "%s: token %u is not padded", what, row);
    }
    cr_assert(!form || worst > 1e-11, "%s: as exact as f32, so not by matrices", what);
    if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "nmse %.2e %s\n", worst, what);
    cr_assert_arr_eq(t->words + out, t->words + part, done * ld * 4, "%s: other bits in parts", what);
    cr_assert_eq(t->words[out + c->n * ld], CANARY);
    for (int i = 0; i < 2; i++) free(cache[i]);
    free(q), free(expected);
    vkm_bindings_destroy(bindings);
    t->build.sets = &t->bindings;
    for (int i = 0; i < 2; i++) vkm_buffer_destroy(kv[i]);
}

/* form NULL: the device's. rare: compiled for long by CPU drivers. */
static void check_prompts(const struct prompt_case *cases, size_t n, const struct coop_form *form, bool rare)
{
    struct bench t;
    open_bench(&t, "coopmat", false);
    bool can = vkm_device_caps(t.device)->tiers & VKM_TIER_BIT(VKM_TIER_COOPMAT), skip = rare && vkm_device_caps(t.device)->type == VKM_TYPE_CPU && !full();
    const struct vkm_shape s = t.build.shape;
    const struct coop_form of_device = {s.coop_subgroups, s.coop_keys, s.coop_buffers, s.coop_fetch};
    bool takes = can && s.coop_subgroups;
    for (size_t i = 0; takes && !skip && i < n; i++) check_prompt(&t, &cases[i], form ? form : &of_device);
    close_bench(&t);
    if (!can) cr_skip_test("the device or this build has no cooperative matrices");
    if (!takes) cr_skip_test("the device's matrices are not for attention");
    if (skip) cr_skip_test("with VKMOE_TEST_FULL only: its kernels compile for long");
}
#define PROMPTS(form, rare, ...) do { static const struct prompt_case cases[] = {__VA_ARGS__}; check_prompts(cases, VKM_COUNT(cases), form, rare); } while (0)
static const struct coop_form keys_64 = {2, 64, 1, 1}, two_buffers = {4, 32, 2, 1}, one_subgroup = {1, 32, 1, 0}, of_gpu = {4, 32, 1, 1};
/* The forms of a GPU: many rows a workgroup, and one. */
Test(attention, one_row_a_workgroup)
{
    static const struct prompt_case cases[] = {{64, 8, 2, 0, 35}, {64, 4, 4, 90, 70}, {80, 8, 1, 300, 33}};
    struct bench t;
    open_bench(&t, "gather", true);
    bool can = t.build.shape.attention_parts > 2;
    for (size_t i = 0; can && i < (full() ? VKM_COUNT(cases) : 1); i++) check_prompt(&t, &cases[i], NULL);
    close_bench(&t);
    if (!can) cr_skip_test("the device's workgroups are too small");
}
Test(attention, prompts_scalar_loads)
{
    static const struct prompt_case cases[] = {{64, 8, 2, 0, 35}, {64, 4, 4, 90, 70}, {80, 8, 1, 300, 33}, {32, 2, 2, 20, 45}};
    struct bench t;
    open_bench(&t, "scalar", false);
    bool can = runs_scalar_loads(vkm_device_caps(t.device));
    for (size_t i = 0; can && i < VKM_COUNT(cases); i++) check_prompt(&t, &cases[i], NULL);
    close_bench(&t);
    if (!can) cr_skip_test(NO_SCALAR_LOADS);
}
Test(attention, prompts_coopmat) { PROMPTS(NULL, false, {64, 2, 2, 0, 17}, {64, 4, 1, 5, 33}, {64, 8, 1, 95, 45}, {64, 8, 2, 31, 16}); }
Test(attention, prompts_coopmat_keys_64) { PROMPTS(&keys_64, true, {64, 8, 1, 30, 65}); }
Test(attention, prompts_coopmat_two_buffers) { PROMPTS(&two_buffers, true, {64, 8, 1, 30, 65}, {64, 4, 4, 0, 33}); }
Test(attention, prompts_coopmat_one_subgroup) { PROMPTS(&one_subgroup, true, {64, 8, 1, 30, 65}); }
Test(attention, prompts_coopmat_heads_80) { PROMPTS(NULL, true, {80, 4, 4, 3, 40}); }
Test(attention, prompts_coopmat_heads_128) { PROMPTS(NULL, true, {128, 8, 1, 33, 70}, {128, 2, 2, 64, 33}); }
Test(attention, prompts_coopmat_gpu_form) { PROMPTS(&of_gpu, true, {128, 8, 2, 33, 70}, {128, 2, 2, 64, 33}); }
