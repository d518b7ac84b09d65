/* The matrix multiplication in integers: x as quantise.comp left it, weights as int8 of 4 to 8 bits, packed 4x8 bit dot products. As in matmul.glsl a lane owns RPL rows of a panel for
 * all NT tokens, no sum crosses lanes, and local_size_y splits the columns. The products of a block are summed exactly, in int32; then one multiply-add with the scales of both, in
 * the order of the columns: a token's bits depend neither on the batch nor on how a device multiplies integers.
 * x[t] is the uvec4 offset of token t's row: 8 words a block of 32 columns, behind them a vec2 a block (scale, scale times the sum of the block). A workgroup that makes one token
 * of a small matrix makes that of a row of floats itself, in shared memory (ROW_BLOCKS), for a step of its own would cost more than all of them together. */
#extension GL_EXT_spirv_intrinsics : require       /* Debian 12's glslang has no GL_EXT_integer_dot_product: OpSDot, DotProduct and DotProductInput4x8BitPacked */
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450) int dot_packed(int a, int b, spirv_literal int format);

layout(constant_id = 4) const uint RPL = 4;
layout(constant_id = 5) const uint NT = 16;
layout(constant_id = 9) const uint ROW_BLOCKS = 0;   /* not 0: x[0] is the vec4 offset of so many blocks of floats (of the residual stream: NORMED); NT 1 */
#include "splits.glsl"
#include "norm_row.glsl"
layout(set = 0, binding = 1) buffer WorkspaceI4 { ivec4 i[]; } wsi4;
layout(set = 0, binding = 1) buffer Workspace2  { vec2 f[]; }  ws2;

const uint LANES = 32 / RPL;                        /* lanes on a panel */

int dot16(ivec4 a, ivec4 b) { return dot_packed(a.x, b.x, 0) + dot_packed(a.y, b.y, 0) + dot_packed(a.z, b.z, 0) + dot_packed(a.w, b.w, 0); }

shared vec4 row_most[ROW_BLOCKS * 2 + 1];           /* of four columns each, eight a block */
shared ivec4 row_q[ROW_BLOCKS * 2 + 1];
shared vec2 row_scale[ROW_BLOCKS + 1];

float largest_of(uint k) {
    vec4 m = max(row_most[2 * k], row_most[2 * k + 1]);
    float largest = max(max(m.x, m.y), max(m.z, m.w));
    return largest < 1.0e-30 ? 0.0 : largest;
}

/* quantise.comp by all lanes of the workgroup */
void quantise_row(uint x) {
    uint first = gl_LocalInvocationIndex, lanes = gl_WorkGroupSize.x * gl_WorkGroupSize.y;
    if (NORMED) make_norm_row(x);
    for (uint i = first; i < ROW_BLOCKS * 8; i += lanes) {
        vec4 v = abs(NORMED_OR(i, ws4.f[x + i]));
        row_most[i / 4][i % 4] = max(max(v.x, v.y), max(v.z, v.w));
    }
    barrier();
    for (uint i = first; i < ROW_BLOCKS * 8; i += lanes) {
        float largest = largest_of(i / 8), inverse = largest > 0.0 ? 127.0 / largest : 0.0;
        ivec4 q = clamp(ivec4(floor((NORMED_OR(i, ws4.f[x + i])) * inverse + 0.5)), -127, 127);
        row_q[i / 4][i % 4] = q.x & 255 | (q.y & 255) << 8 | (q.z & 255) << 16 | q.w << 24;
    }
    barrier();
    for (uint k = first; k < ROW_BLOCKS; k += lanes) {
        float scale = largest_of(k) / 127.0;
        int sum = dot16(row_q[2 * k], ivec4(0x01010101)) + dot16(row_q[2 * k + 1], ivec4(0x01010101));
        row_scale[k] = vec2(scale, scale * float(sum));
    }
    barrier();
}

int dots[NT * RPL];                                 /* of a block, or of half a block where each has its scale */

/* columns 16 i .. 16 i + 15 of a block, four a word */
ivec4 block_int8(uint slab, const Block b, uint i) {
#if defined(TYPE_Q8_0)
    return ivec4(block_step(slab, b, i));
#else
    uvec2 q = i == 0 ? b.q.xy : b.q.zw;
    uvec4 w = uvec4(q.x, q.x >> 4, q.y, q.y >> 4) & 0x0f0f0f0fu;
#  if NHI == 1
    w |= (uvec4(b.hi[0], b.hi[0] >> 1, b.hi[0] >> 2, b.hi[0] >> 3) >> 4 * i & 0x01010101u) << 4;
#  elif NHI == 2
    w |= (uvec4(b.hi[0], b.hi[1], b.hi[0] >> 2, b.hi[1] >> 2) >> 4 * i & 0x03030303u) << 4;
#  endif
#  ifdef BIAS        /* subtracted from each byte, without a borrow between them */
    w = (w | 0x80808080u) - uint(BIAS) * 0x01010101u ^ 0x80808080u;
#  endif
    return ivec4(w);
#endif
}

void multiply_half(uint slab, const Block b[RPL], uint k, uint i, const uint x[NT]) {
    ivec4 w[RPL];
    [[unroll]] for (int r = 0; r < int(RPL); r++) w[r] = block_int8(slab, b[r], i);
    [[unroll]] for (int t = 0; t < int(NT); t++) {
        ivec4 v = ROW_BLOCKS != 0 ? row_q[k * 2 + i] : wsi4.i[x[t] + k * 2 + i];
        [[unroll]] for (int r = 0; r < int(RPL); r++) dots[t * RPL + r] += dot16(w[r], v);
    }
}

/* the dot products with their scales go into the sums */
void add_scaled(const Block b[RPL], uint kb, uint k, uint i, const uint x[NT]) {
    [[unroll]] for (int t = 0; t < int(NT); t++) {
        vec2 s = ROW_BLOCKS != 0 ? row_scale[k] : ws2.f[x[t] * 2 + kb * 4 + k];
        [[unroll]] for (int r = 0; r < int(RPL); r++) {
#if defined(TYPE_Q6_K)
            float d = i == 0 ? b[r].d[0] : b[r].d[1];
#else
            float d = b[r].d;
#endif
            float a = acc[t * RPL + r] + d * s.x * float(dots[t * RPL + r]);
#if defined(SCALE_DM) || defined(SCALE_K)
            a += b[r].m * s.y;
#endif
            acc[t * RPL + r] = a;
            dots[t * RPL + r] = 0;
        }
    }
}

void multiply(uint slab, uint base, uint kb, uint row, const uint x[NT]) {
    [[unroll]] for (int i = 0; i < int(NT * RPL); i++) { acc[i] = 0.0; dots[i] = 0; }
    uint splits = gl_WorkGroupSize.y, part = gl_LocalInvocationID.y;
    uint begin = kb * part / splits, end = kb * (part + 1) / splits;
    Block next[RPL];                                /* of one token the first block is on its way while the row is made */
    if (ROW_BLOCKS != 0) {
        [[unroll]] for (int r = 0; r < int(RPL); r++) next[r] = block_load(slab, base, kb, min(begin, kb - 1), row + r * LANES);
        quantise_row(x[0]);
    }
    for (uint k = begin; k < end; k++) {
        Block b[RPL];
        [[unroll]] for (int r = 0; r < int(RPL); r++) b[r] = ROW_BLOCKS != 0 ? next[r] : block_load(slab, base, kb, k, row + r * LANES);
        if (ROW_BLOCKS != 0)
            [[unroll]] for (int r = 0; r < int(RPL); r++) next[r] = block_load(slab, base, kb, min(k + 1, kb - 1), row + r * LANES);
#if defined(TYPE_Q6_K)
        [[dont_unroll]] for (uint i = 0; i < 2; i++) { multiply_half(slab, b, k, i, x); add_scaled(b, kb, k, i, x); }
#else
        if (NT > 4) { [[dont_unroll]] for (uint i = 0; i < 2; i++) multiply_half(slab, b, k, i, x); }
        else        { [[unroll]] for (uint i = 0; i < 2; i++) multiply_half(slab, b, k, i, x); }
        add_scaled(b, kb, k, 0, x);
#endif
    }
    add_splits();
}
