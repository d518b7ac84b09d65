/* The matrix multiplication of all matmul kernels: a workgroup makes NT tokens times some panels of 32 rows of W.
 * A lane owns RPL rows of a panel (row = lane + i * 32 / RPL) for all NT tokens and walks the columns in order, so no sum ever crosses lanes and a token's bits
 * do not depend on what else is in the batch. Inputs x are read at addresses uniform over the lanes (tried on lavapipe 26 instead: a vector load of x by the lanes and
 * subgroupBroadcast of each column, 8 to 29 % slower in prefill, equal in decode). local_size_y splits the columns; the parts are added in order at the end.
 * x[t] is the vec4 offset of token t's row of the input. */
layout(constant_id = 4) const uint RPL = 4;
layout(constant_id = 5) const uint NT = 16;
layout(constant_id = 9) const uint ROW_BLOCKS = 0;  /* of a normed row: x[0] is the residual stream, NT 1 */
#include "splits.glsl"
#include "norm_row.glsl"

const uint LANES = 32 / RPL;                        /* lanes on a panel */

/* Sums of blocks (quant.glsl): acc is that of a block while it is walked through, `total` what it has come to. */
#if defined(FOUR_BITS) && !defined(TIER_FP16)
const bool BY_BLOCK = SLOW_CONVERSION != 0;
float total[NT * RPL], x_sum[NT];

void add_block(const Block b[RPL]) {
    [[unroll]] for (int t = 0; t < int(NT); t++) {
        [[unroll]] for (int r = 0; r < int(RPL); r++) {
            float d = 16.0 * b[r].d;
            precise float m = block_min(b[r]) - d;      /* not one operation with what m is a product of: a compiler's choice, and not always the same one */
            total[t * RPL + r] = fma(m, x_sum[t], fma(d, acc[t * RPL + r], total[t * RPL + r]));
            acc[t * RPL + r] = 0.0;
        }
        x_sum[t] = 0.0;
    }
}
#define WEIGHTS(b, q, i, c) (BY_BLOCK ? sixteenths(q, c) : block_get(b, q, i, c))
#else
const bool BY_BLOCK = false;
float total[NT * RPL], x_sum[NT];
void add_block(const Block b[RPL]) {}
#define WEIGHTS block_get
#endif

/* one step of the columns of block k, for all rows and tokens of the lane */
void multiply_step(uint slab, const Block b[RPL], uint k, uint i, const uint x[NT]) {
    STEP_WORDS q[RPL];
    [[unroll]] for (int r = 0; r < int(RPL); r++) q[r] = block_step(slab, b[r], i);
    [[unroll]] for (int c = 0; c < CHUNKS; c++) {
        vec4 w[RPL];
        [[unroll]] for (int r = 0; r < int(RPL); r++) w[r] = WEIGHTS(b[r], q[r], i, c);
        [[unroll]] for (int t = 0; t < int(NT); t++) {
            vec4 v = NORMED_OR(k * 8 + i * CHUNKS + c, WS_QUAD(x[t] + k * 8 + i * CHUNKS + c));
            if (BY_BLOCK) x_sum[t] += (v.x + v.y) + (v.z + v.w);
            [[unroll]] for (int r = 0; r < int(RPL); r++) {
                float a = acc[t * RPL + r];
#ifdef TIER_FP16       /* packed f16 products of four columns, f32 sums */
                f16vec4 p = f16vec4(w[r]) * f16vec4(v);
                vec2 s = vec2(p.xy + p.zw);
                a += s.x + s.y;
#else
                if (BY_BLOCK) a = fma(w[r].w, v.w, fma(w[r].z, v.z, fma(w[r].y, v.y, fma(w[r].x, v.x, a))));     /* from 0 on, where a compiler may fuse either of the first two products */
                else { a += w[r].x * v.x; a += w[r].y * v.y; a += w[r].z * v.z; a += w[r].w * v.w; }
#endif
                acc[t * RPL + r] = a;
            }
        }
    }
}

void multiply(uint slab, uint base, uint kb, uint row, const uint x[NT]) {
    [[unroll]] for (int i = 0; i < int(NT * RPL); i++) acc[i] = 0.0;
    if (BY_BLOCK) {
        [[unroll]] for (int i = 0; i < int(NT * RPL); i++) total[i] = 0.0;
        [[unroll]] for (int t = 0; t < int(NT); t++) x_sum[t] = 0.0;
    }
    uint splits = gl_WorkGroupSize.y, part = gl_LocalInvocationID.y;
    uint begin = kb * part / splits, end = kb * (part + 1) / splits;
    if (NORMED) make_norm_row(x[0]);
    for (uint k = begin; k < end; k++) {
        Block b[RPL];
        [[unroll]] for (int r = 0; r < int(RPL); r++) b[r] = block_load(slab, base, kb, k, row + r * LANES);
        if (NT > 4 || BY_BLOCK) { [[dont_unroll]] for (uint i = 0; i < STEPS; i++) multiply_step(slab, b, k, i, x); }
        else        { [[unroll]] for (uint i = 0; i < STEPS; i++) multiply_step(slab, b, k, i, x); }
        if (BY_BLOCK) add_block(b);
    }
    if (BY_BLOCK)
        [[unroll]] for (int i = 0; i < int(NT * RPL); i++) acc[i] = total[i];
    add_splits();
}
