/* The matrix multiplication by cooperative matrices (VK_KHR_cooperative_matrix, subgroup scope): f16 products, f32 sums, tiles of TM tokens x TN rows of W x TK columns as the device has
 * them. A workgroup makes NT tokens times PANELS panels: some columns at a time its lanes put x (f16 already: halve.comp) and the dequantised weights into shared memory. What the next
 * step takes from memory is fetched into registers before the multiplication of this one and put behind it, so that the loads have all of it to arrive. Subgroups lie in a grid of SUB_T
 * along the tokens times others along the rows; each owns EACH_T x EACH_R tiles. Tiles of tokens that the tile list does not fill are left out.
 * f16 ends at 65504: f32 and bf16 weights beyond it are clamped, and so are the scales of blocks whose weights could be (with a minimum: half of it for each), so that no Inf appears;
 * below 6e-5 they lose precision, below 3e-8 they are 0. 4-bit quants are dequantised in f16, scale and minimum being rounded to it, too: half the instructions.
 * A token's sums do not depend on its neighbours, but they are not those of matmul.glsl, which small tiles get.
 * Matrices have no element coordinates, so sums go through shared memory, some tokens at a time, to bias, activation and routing weight.
 * H200, gate|up of Mixtral in F16 with 4,096 tokens: 280 TFLOP/s of 603 that bench_matrix reaches, 259 before tiles came in groups (AHEAD), 214 with a branch at each tile of tokens (which makes tiles of 64 faster: 89 us instead of 118 for
 * 5,120 x 2,048 with 512 tokens). With everything at hand and no barriers the products alone reach 435 in a program of their own, with barriers 381, the loads alone 261: neither hides behind the other
 * for want of registers and, at 48 KiB, shared memory. Slower or no gain: two buffers (162 there), matrices of 16x8x16 (167), no fetching ahead (180), straight from memory (57), fragments of the next
 * columns ahead (217 for 217), eight subgroups (264 there, but half the speed here), weights as the first operand (+4 % in tiles of 128 tokens, -25 % of 64), NV_cooperative_matrix2 (276 at best), chunks looked
 * up in every step (202 of 222), loads issued before the second barrier (204), shared memory of f16vec4 instead of uvec4 (202). */
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(constant_id = 4) const uint PANELS = 1;
layout(constant_id = 5) const uint NT = 16;
layout(constant_id = 6) const uint TM = 8;
layout(constant_id = 8) const uint TN = 8;
layout(constant_id = 9) const uint TK = 8;
layout(constant_id = 10) const uint SUB_T = 1;
layout(constant_id = 11) const uint EACH_T = 2;
layout(constant_id = 12) const uint EACH_R = 1;
layout(constant_id = 13) const uint LANES = 64;      /* local_size_x */
layout(constant_id = 14) const uint STEP = 1;        /* blocks of 32 columns at a time, of which there are a multiple */
layout(constant_id = 15) const uint BUFFERS = 2;     /* 2: the next step is put into the other half of the shared memory, and one barrier a step does */
layout(constant_id = 16) const uint AHEAD = 1;       /* tiles of the list that are gone through together, all panels of them before the next ones */
layout(set = 0, binding = 1) buffer WorkspaceU4 { uvec4 u[]; } wsu4;
layout(set = 0, binding = 1) buffer WorkspaceU2 { uvec2 u[]; } wsu2;

uint group = gl_WorkGroupID.y;                       /* of panels */

/* The tile of this workgroup. Workgroups begin in the order of their numbers: those of AHEAD tiles share what caches hold of the weights, and soon their x with those of the next panels. */
uint tile_in_order() {
    uint i = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x, first = i / (AHEAD * gl_NumWorkGroups.y) * AHEAD, some = min(AHEAD, gl_NumWorkGroups.x - first);
    i -= first * gl_NumWorkGroups.y;
    group = i / some;
    return first + i % some;
}

const uint ROWS = PANELS * 32;
const bool GUARDED = NT > 32;                        /* tiles of tokens are left out where there are none; of smaller ones that does not pay */
const uint QUADS = STEP * 4;                         /* uvec4 of a row */
const uint PITCH = QUADS + 1;                        /* from row to row: so that neighbouring rows begin in other banks */
const uint W_PART = NT * PITCH;                      /* behind x */
const uint HALF = (NT + ROWS) * PITCH;
const uint X_EACH = (NT * QUADS + LANES - 1) / LANES, W_EACH = (ROWS * STEP * 2 + LANES - 1) / LANES;

shared uvec4 parts[BUFFERS * HALF];                  /* [BUFFERS] x [tokens][columns], W [rows][columns]; then the sums; coop_shared_bytes of src/nn/build.c adds these up */
shared uint y_at[NT];
shared float y_by[NT];

coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> acc[EACH_T * EACH_R];
uint x_at[X_EACH], w_slab[W_EACH], w_base[W_EACH];   /* where a lane's part of x and W is: looked up once, for a load that waits for another one doubles the time of a step */
uvec4 x_next[X_EACH];
Block w_next[W_EACH];
STEP_WORDS w_step[W_EACH * STEPS / 2];

uvec2 halves(vec4 v) {
#if defined(TYPE_F32) || defined(TYPE_BF16)
    v = clamp(v, -65504.0, 65504.0);
#endif
    return uvec2(packHalf2x16(v.xy), packHalf2x16(v.zw));
}

void limit(inout Block b) {
#if defined(BIAS) && defined(SCALE_D)
    b.d = clamp(b.d, -65504.0 / BIAS, 65504.0 / BIAS);
#elif defined(TYPE_Q8_0)
    b.d = clamp(b.d, -65504.0 / 128.0, 65504.0 / 128.0);
#elif defined(TYPE_Q6_K)
    b.d[0] = clamp(b.d[0], -65504.0 / BIAS, 65504.0 / BIAS);
    b.d[1] = clamp(b.d[1], -65504.0 / BIAS, 65504.0 / BIAS);
#elif defined(SCALE_DM) || defined(SCALE_K)
    const float most = 32752.0 / (NHI == 0 ? 15.0 : 31.0);
    b.d = clamp(b.d, -most, most);
    b.m = clamp(b.m, -32752.0, 32752.0);
#endif
}

#ifdef FOUR_BITS
/* The eight columns of a word as f16: q - 8 exactly, in the low bits of 1024 + q, then two at a time d (q - 8) + (m + 8 d). */
f16vec2 two(uint q, f16vec2 d, f16vec2 m) { return (unpackFloat2x16(q & 0x000f000fu | 0x64006400u) - float16_t(1032.0)) * d + m; }
void eight(uint q, f16vec2 d, f16vec2 m, out uvec2 lo, out uvec2 hi) {
    f16vec2 a = two(q, d, m), b = two(q >> 8, d, m), e = two(q >> 4, d, m), f = two(q >> 12, d, m);
    lo = uvec2(packFloat2x16(f16vec2(a.x, b.x)), packFloat2x16(f16vec2(a.y, b.y)));
    hi = uvec2(packFloat2x16(f16vec2(e.x, f.x)), packFloat2x16(f16vec2(e.y, f.y)));
}
#endif

void locate_parts(uint expert, uint n) {
    uint lane = gl_LocalInvocationIndex;
    [[unroll]] for (uint j = 0; j < X_EACH; j++) x_at[j] = input_row(min((lane + j * LANES) / QUADS, n - 1)) + (lane + j * LANES) % QUADS;
    [[unroll]] for (uint j = 0; j < W_EACH; j++) {
        uint row = (lane + j * LANES) % ROWS, offset, at = chunk_of(expert, min(group * PANELS + row / 32, push.n_panels - 1), offset);
        w_slab[j] = tables.u[at];
        w_base[j] = tables.u[at + 1] + offset;
    }
}

/* from memory: step s; of W a lane takes half of a block's columns of a row */
void fetch(uint s) {
    uint lane = gl_LocalInvocationIndex;
    [[unroll]] for (uint j = 0; j < X_EACH; j++)
        if (lane + j * LANES < NT * QUADS) x_next[j] = wsu4.u[x_at[j] + s * QUADS];
    [[unroll]] for (uint j = 0; j < W_EACH; j++) {
        uint i = lane + j * LANES, row = i % ROWS, part = i / ROWS;
        if (i >= ROWS * STEP * 2) continue;
        w_next[j] = block_load(w_slab[j], w_base[j], push.kb, s * STEP + part / 2, row % 32);
        [[unroll]] for (uint t = 0; t < STEPS / 2; t++) w_step[j * (STEPS / 2) + t] = block_step(w_slab[j], w_next[j], part % 2 * (STEPS / 2) + t);
    }
}

/* what was fetched, to shared memory from `to` on */
void put(uint to) {
    uint lane = gl_LocalInvocationIndex;
    [[unroll]] for (uint j = 0; j < X_EACH; j++) {
        uint i = lane + j * LANES;
        if (i < NT * QUADS) parts[to + i / QUADS * PITCH + i % QUADS] = x_next[j];
    }
    [[unroll]] for (uint j = 0; j < W_EACH; j++) {
        uint i = lane + j * LANES, row = i % ROWS, part = i / ROWS;
        if (i >= ROWS * STEP * 2) continue;
        uvec2 h[4];
        limit(w_next[j]);
#ifdef FOUR_BITS
        f16vec2 d = f16vec2(w_next[j].d), m = f16vec2(block_min(w_next[j]) + 8.0 * w_next[j].d);
#endif
        [[unroll]] for (uint t = 0; t < STEPS / 2; t++)
#if defined(FOUR_BITS)
            eight(w_step[j * (STEPS / 2) + t], d, m, h[t * 2], h[t * 2 + 1]);
#elif defined(TYPE_F16)
            h[t * 2] = w_step[j * (STEPS / 2) + t].xy, h[t * 2 + 1] = w_step[j * (STEPS / 2) + t].zw;
#else
            [[unroll]] for (int c = 0; c < CHUNKS; c++) h[t * CHUNKS + c] = halves(block_get(w_next[j], w_step[j * (STEPS / 2) + t], part % 2 * (STEPS / 2) + t, c));
#endif
        uint at = to + W_PART + row * PITCH + part * 2;
        parts[at] = uvec4(h[0], h[1]);
        parts[at + 1] = uvec4(h[2], h[3]);
    }
}

/* TK columns, from kk TK on; (st, sr): this subgroup's place in the grid; whole: all its tiles have tokens */
void multiply_columns(uint from, uint kk, uint st, uint sr, uint n, bool whole) {
    coopmat<float16_t, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> w[EACH_R];
    [[unroll]] for (uint e = 0; e < EACH_R; e++)
        coopMatLoad(w[e], parts, from + W_PART + (sr * EACH_R + e) * TN * PITCH + kk * TK / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
    [[unroll]] for (uint m = 0; m < EACH_T; m++)
        if (whole || (st * EACH_T + m) * TM < n) {
            coopmat<float16_t, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> x;
            coopMatLoad(x, parts, from + (st * EACH_T + m) * TM * PITCH + kk * TK / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint e = 0; e < EACH_R; e++) acc[m * EACH_R + e] = coopMatMulAdd(x, w[e], acc[m * EACH_R + e]);
        }
}

void multiply_all_columns(uint from, uint st, uint sr, uint n, bool whole) {
    if (TK < 16) { [[dont_unroll]] for (uint kk = 0; kk < STEP * 32 / TK; kk++) multiply_columns(from, kk, st, sr, n, !GUARDED); }      /* a CPU driver's, which takes seconds to compile it otherwise */
    else         { [[unroll]] for (uint kk = 0; kk < STEP * 32 / TK; kk++) multiply_columns(from, kk, st, sr, n, whole); }
}

void multiply_step(uint from, uint st, uint sr, uint n) {
    if (sr * EACH_R * TN >= ROWS) return;            /* a subgroup too many */
    if (NT > 64 ? n + TM > NT : !GUARDED) multiply_all_columns(from, st, sr, n, true);
    else multiply_all_columns(from, st, sr, n, false);
}

/* Four columns of a token's row from column `to` on, `at` being where it begins. HALVES: as halve.comp would make them of the row, which begins at that word. */
void store_quad(uint at, uint to, vec4 v) {
    [[unroll]] for (int c = 0; c < 4; c++) v[c] = to + c < push.rows ? v[c] : 0.0;
    if (HALVES) {
        v = clamp(v, -65504.0, 65504.0);
        wsu2.u[(at + to / 2) / 2] = uvec2(packHalf2x16(v.xy), packHalf2x16(v.zw));
    } else
        ws4.f[(at + to) / 4] = v;
}

/* The sums of each subgroup's m-th tile of tokens, to y. */
void store_part(uint e, uint m, uint n) {
    const uint outs = GLU != 0 ? ROWS / 2 : ROWS;
    for (uint i = gl_LocalInvocationIndex; i < SUB_T * TM * outs / 4; i += LANES) {
        uint t = i / (outs / 4), j = i % (outs / 4) * 4, to = group * outs + j, from = (t * ROWS + (GLU != 0 ? j / 16 * 32 + j % 16 : j)) / 4;
        uint token = (t / TM * EACH_T + m) * TM + t % TM;
        if (token >= n || to >= (HALVES ? push.ld_y * 2 : push.ld_y)) continue;
        vec4 v = uintBitsToFloat(parts[from]);
        if (GLU != 0) {
            vec4 u = uintBitsToFloat(parts[from + 4]);
            [[unroll]] for (int c = 0; c < 4; c++) v[c] = finish_pair(e, to + c, v[c], u[c], y_by[token]);
        } else
            [[unroll]] for (int c = 0; c < 4; c++) v[c] = finish_row(e, to + c, v[c], y_by[token]);
        store_quad(y_at[token], to, v);
    }
}

void run_tile(uint expert, uint n) {
    uint st = gl_SubgroupID % SUB_T, sr = gl_SubgroupID / SUB_T;
    for (uint t = gl_LocalInvocationIndex; t < NT; t += LANES) {
        float by;
        y_at[t] = output_row(min(t, n - 1), by);
        y_by[t] = by;
    }
    locate_parts(expert, n);
    [[unroll]] for (uint i = 0; i < EACH_T * EACH_R; i++) acc[i] = coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>(0.0);
    uint steps = push.kb / STEP;
    fetch(0);
    if (BUFFERS == 2) put(0);
    for (uint s = 0; s < steps; s++) {
        barrier();                                   /* step s is there, and nobody reads step s - 1 any more */
        if (BUFFERS == 1) {
            put(0);
            barrier();
        }
        if (s + 1 < steps) fetch(s + 1);
        multiply_step(BUFFERS == 1 ? 0 : (s & 1) * HALF, st, sr, n);
        if (BUFFERS == 2 && s + 1 < steps) put(((s + 1) & 1) * HALF);
    }
    [[unroll]] for (uint m = 0; m < EACH_T; m++)
        if (m * TM < n) {                            /* without break: NVK then keeps acc in memory */
            barrier();                                   /* nobody reads the parts, or the sums before these, any more */
            if (sr * EACH_R * TN < ROWS)
                [[unroll]] for (uint e = 0; e < EACH_R; e++)
                    coopMatStore(acc[m * EACH_R + e], parts, (st * TM * ROWS + (sr * EACH_R + e) * TN) / 4, ROWS / 4, gl_CooperativeMatrixLayoutRowMajor);
            barrier();
            store_part(expert, m, n);
        }
}
