/* The matrix multiplication in integers: x as quantise.comp left it, weights as int8 of 4 to 8 bits, packed 4x8 bit dot products. As in matmul.glsl a lane owns RPL rows of a panel for
 * all NT tokens, no sum crosses lanes, and local_size_y splits the columns. The products of a block are summed exactly, in int32; then one multiply-add with the scales of both, in
 * the order of the columns: a token's bits depend neither on the batch nor on how a device multiplies integers.
 * x[t] is the uvec4 offset of token t's row: 8 words a block of 32 columns, behind them a vec2 a block (scale, scale times the sum of the block). */
#extension GL_EXT_spirv_intrinsics : require       /* Debian 12's glslang has no GL_EXT_integer_dot_product: OpSDot, DotProduct and DotProductInput4x8BitPacked */
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450) int dot_packed(int a, int b, spirv_literal int format);

layout(constant_id = 4) const uint RPL = 4;
layout(constant_id = 5) const uint NT = 16;
#include "splits.glsl"
layout(set = 0, binding = 1) buffer WorkspaceI4 { ivec4 i[]; } wsi4;
layout(set = 0, binding = 1) buffer Workspace2  { vec2 f[]; }  ws2;

const uint LANES = 32 / RPL;                        /* lanes on a panel */

int dots[NT * RPL];                                 /* of a block, or of half a block where each has its scale */

int dot16(ivec4 a, ivec4 b) { return dot_packed(a.x, b.x, 0) + dot_packed(a.y, b.y, 0) + dot_packed(a.z, b.z, 0) + dot_packed(a.w, b.w, 0); }

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
        ivec4 v = wsi4.i[x[t] + k * 2 + i];
        [[unroll]] for (int r = 0; r < int(RPL); r++) dots[t * RPL + r] += dot16(w[r], v);
    }
}

/* the dot products with their scales go into the sums */
void add_scaled(const Block b[RPL], uint kb, uint k, uint i, const uint x[NT]) {
    [[unroll]] for (int t = 0; t < int(NT); t++) {
        vec2 s = ws2.f[x[t] * 2 + kb * 4 + k];
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
    for (uint k = begin; k < end; k++) {
        Block b[RPL];
        [[unroll]] for (int r = 0; r < int(RPL); r++) b[r] = block_load(slab, base, kb, k, row + r * LANES);
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
