/* The matrix multiplication by cooperative matrices (VK_KHR_cooperative_matrix, subgroup scope): f16 products, f32 sums, tiles of TM tokens x TN rows of W x TK columns as the device has
 * them. A workgroup makes NT tokens times PANELS panels: block by block of 32 columns its lanes put x and the dequantised weights into shared memory as f16, one block ahead of the
 * multiplication, whose subgroups each own some rows of W for all tokens. Tiles of tokens that the tile list does not fill are left out.
 * f16 ends at 65504: x and weights beyond it are clamped to it, so that no Inf appears; below 6e-5 they lose precision, below 3e-8 they are 0.
 * A token's sums do not depend on its neighbours, but they are not those of matmul.glsl, which small tiles get.
 * Matrices have no element coordinates, so sums go through shared memory, TM tokens at a time, to bias, activation and routing weight. Run on lavapipe's 8x8x8 only; no GPU yet. */
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(constant_id = 4) const uint PANELS = 1;
layout(constant_id = 5) const uint NT = 16;
layout(constant_id = 6) const uint TM = 8;
layout(constant_id = 8) const uint TN = 8;
layout(constant_id = 9) const uint TK = 8;
layout(constant_id = 10) const uint EACH = 1;        /* tiles of rows that a subgroup owns at most: gl_SubgroupID, and every gl_NumSubgroups after it */

const uint ROWS = PANELS * 32;
const uint PITCH = 10;                               /* f16vec4 from row to row: 32 columns and 16 bytes more, so that neighbouring rows begin in other banks */

shared f16vec4 x_part[2 * NT * PITCH];               /* [2][tokens][columns]; coop_shared_bytes of src/nn/build.c adds these up */
shared f16vec4 w_part[2 * ROWS * PITCH];             /* [2][rows][columns] */
shared float sums[TM * ROWS];
shared uint x_at[NT], y_at[NT];
shared float y_by[NT];

coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> acc[NT / TM * EACH];

f16vec4 to_half(vec4 v) { return f16vec4(clamp(v, -65504.0, 65504.0)); }

/* block k of 32 columns into the given half of the parts */
void load_block(uint expert, uint k, uint half_) {
    uint lane = gl_LocalInvocationIndex, lanes = gl_WorkGroupSize.x;
    for (uint i = lane; i < NT * 8; i += lanes) x_part[(half_ * NT + i / 8) * PITCH + i % 8] = to_half(ws4.f[x_at[i / 8] + k * 8 + i % 8]);
    for (uint i = lane; i < ROWS * 2; i += lanes) {  /* a lane takes half of the columns of a row */
        uint row = i % ROWS, part = i / ROWS, offset, at = chunk_of(expert, min(gl_WorkGroupID.y * PANELS + row / 32, push.n_panels - 1), offset);
        uint slab = tables.u[at], to = (half_ * ROWS + row) * PITCH;
        Block b = block_load(slab, tables.u[at + 1] + offset, push.kb, k, row % 32);
        [[unroll]] for (uint s = 0; s < STEPS / 2; s++) {
            uint step_ = part * (STEPS / 2) + s;
            STEP_WORDS q = block_step(slab, b, step_);
            [[unroll]] for (int c = 0; c < CHUNKS; c++) w_part[to + step_ * CHUNKS + c] = to_half(block_get(b, q, step_, c));
        }
    }
}

/* TK columns, from kk TK on */
void multiply_columns(uint half_, uint kk, uint n) {
    coopmat<float16_t, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> w[EACH];
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        uint tile = gl_SubgroupID + e * gl_NumSubgroups;
        if (tile < ROWS / TN) coopMatLoad(w[e], w_part, (half_ * ROWS + tile * TN) * PITCH + kk * TK / 4, PITCH, gl_CooperativeMatrixLayoutColumnMajor);
    }
    [[unroll]] for (uint m = 0; m < NT / TM; m++)
        if (m * TM < n) {
            coopmat<float16_t, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> x;
            coopMatLoad(x, x_part, (half_ * NT + m * TM) * PITCH + kk * TK / 4, PITCH, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint e = 0; e < EACH; e++)
                if (gl_SubgroupID + e * gl_NumSubgroups < ROWS / TN) acc[m * EACH + e] = coopMatMulAdd(x, w[e], acc[m * EACH + e]);
        }
}

void multiply_block(uint half_, uint n) {
    if (TK < 16) { [[dont_unroll]] for (uint kk = 0; kk < 32 / TK; kk++) multiply_columns(half_, kk, n); }      /* a CPU driver's, which takes seconds to compile it otherwise */
    else         { [[unroll]] for (uint kk = 0; kk < 32 / TK; kk++) multiply_columns(half_, kk, n); }
}

/* The sums of TM tokens from m on, to y. */
void store_part(uint first, uint n) {
    const uint outs = GLU != 0 ? ROWS / 2 : ROWS;
    for (uint i = gl_LocalInvocationIndex; i < TM * outs; i += gl_WorkGroupSize.x) {
        uint t = i / outs, j = i % outs, to = gl_WorkGroupID.y * outs + j, from = t * ROWS + (GLU != 0 ? j / 16 * 32 + j % 16 : j);
        if (first + t >= n || to >= push.ld_y) continue;
        float v = sums[from];
        if (GLU != 0) v = silu(v) * sums[from + 16];
        else if (push.tab_bias != VKM_NONE && to < push.rows) v += tablesf.f[push.tab_bias + to];
        ws.f[y_at[first + t] + to] = to < push.rows ? v * y_by[first + t] : 0.0;
    }
}

void run_tile(uint expert, uint n) {
    for (uint t = gl_LocalInvocationIndex; t < NT; t += gl_WorkGroupSize.x) {
        uint token = min(t, n - 1);
        float by;
        x_at[t] = input_row(token);
        y_at[t] = output_row(token, by);
        y_by[t] = by;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < NT / TM * EACH; i++) acc[i] = coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>(0.0);
    load_block(expert, 0, 0);
    for (uint k = 0; k < push.kb; k++) {
        barrier();                                   /* block k is there, and nobody reads block k - 1 any more */
        if (k + 1 < push.kb) load_block(expert, k + 1, (k + 1) & 1);
        multiply_block(k & 1, n);
    }
    [[unroll]] for (uint m = 0; m < NT / TM; m++)
        if (m * TM < n) {
            barrier();                               /* nobody reads the sums before these any more */
            [[unroll]] for (uint e = 0; e < EACH; e++) {
                uint tile = gl_SubgroupID + e * gl_NumSubgroups;
                if (tile < ROWS / TN) coopMatStore(acc[m * EACH + e], sums, tile * TN, ROWS, gl_CooperativeMatrixLayoutRowMajor);
            }
            barrier();
            store_part(m * TM, n);
        }
}
