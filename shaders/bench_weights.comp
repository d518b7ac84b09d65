#version 450
/* Synthetic weights, made where they are used: panels of TYPE (shaders/quant.glsl) whose quants are random bits and whose scales are such that a value's standard deviation is
 * about push.scale and its mean about 0. push.identity (f32 only): row r has a one in column r, zeros elsewhere. The slab is bound as the workspace.
 * push.planes: 16 bytes a row lie apart as four planes of words, of quants eight rows' (vkm_panel_planes), so that these four words are of four rows.
 * Bits come from a counter: the finalizer of MurmurHash3 (Appleby) over seed and word. Workgroups: x = parts of a panel of local_size_x times 4 words, y = panels. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_weights push; };
#include "quant.glsl"
layout(set = 0, binding = 1) buffer Words4 { uvec4 u[]; } words4;

/* The standard deviation of a value whose block has d = 1, by its random quants and K scales; MEAN: what the offset has to take away, in d. */
#if defined(TYPE_Q8_0)
#  define DEVIATION 73.9
#elif defined(TYPE_Q4_0) || defined(TYPE_Q4_1)
#  define DEVIATION 4.61
#  define MEAN 7.5
#elif defined(TYPE_Q5_0) || defined(TYPE_Q5_1)
#  define DEVIATION 9.23
#  define MEAN 15.5
#elif defined(TYPE_Q4_K)
#  define DEVIATION 257.0
#  define MEAN 7.5
#elif defined(TYPE_Q5_K)
#  define DEVIATION 524.0
#  define MEAN 15.5
#elif defined(TYPE_Q6_K)
#  define DEVIATION 1367.0
#endif

uint random(uint word) {
    uint h = word * 0x9e3779b1u ^ push.seed;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}
uvec4 random4(uint word) { return uvec4(random(word), random(word + 1), random(word + 2), random(word + 3)); }
/* Uniform, deviation push.scale, from 24 or 12 bits */
float value(uint bits, uint n) { return push.scale * 3.4641 * (float(bits & ((1u << n) - 1)) / float(1u << n) - 0.5); }

#ifdef DEVIATION
/* d between half and one and a half of what is wanted */
float scale(uint bits) { return push.scale / DEVIATION * (0.5 + float(bits & 0xffffu) / 65536.0); }
#endif

/* quants, or values: uvec4 i of the plane */
uvec4 quants(uint i, uvec4 r) {
#if defined(TYPE_F32)
    if (push.identity != 0) {
        uint first_row = (push.first_panel + gl_WorkGroupID.y) * 32, first_column = i / 32 * 4;
        uvec4 row = uvec4(first_row + i % 32), column = first_column + uvec4(0, 1, 2, 3);
        if (push.planes != 0) row = first_row + i / 64 % 4 * 8 + i % 2 * 4 + uvec4(0, 1, 2, 3), column = uvec4(i / 256 * 32 + i % 64 / 2);
        return floatBitsToUint(vec4(equal(column, row)));
    }
    return floatBitsToUint(vec4(value(r.x, 24), value(r.y, 24), value(r.z, 24), value(r.w, 24)));
#elif defined(TYPE_F16)
    [[unroll]] for (int c = 0; c < 4; c++) r[c] = packHalf2x16(vec2(value(r[c], 12), value(r[c] >> 12, 12)));
    return r;
#elif defined(TYPE_BF16)
    [[unroll]] for (int c = 0; c < 4; c++) r[c] = floatBitsToUint(value(r[c], 12)) >> 16 | (floatBitsToUint(value(r[c] >> 12, 12)) & 0xffff0000u);
    return r;
#else
    return r;
#endif
}

/* uvec4 i behind quants and high bits */
uvec4 scales(uint i, uvec4 r) {
#if defined(SCALE_D)
    [[unroll]] for (int c = 0; c < 4; c++) r[c] = packHalf2x16(vec2(scale(r[c]), scale(r[c] >> 16)));
#elif defined(SCALE_DM)
    [[unroll]] for (int c = 0; c < 4; c++) { float d = scale(r[c]); r[c] = packHalf2x16(vec2(d, -MEAN * d)); }
#elif defined(SCALE_K)
    uint first = push.planes == 0 ? 1 : i % 32 < 8 ? 4 : 0;    /* how many of the words are a row's first; the 6-bit scales behind it stay random */
    [[unroll]] for (int c = 0; c < 4; c++) if (c < first) { float d = scale(r[c]); r[c] = packHalf2x16(vec2(d, MEAN * d)); }
#elif defined(TYPE_Q6_K)
    if (i >= push.kb / 8 * 32)                         /* behind the int8 scales */
        [[unroll]] for (int c = 0; c < 4; c++) r[c] = packHalf2x16(vec2(scale(r[c]), 0.0));
#endif
    return r;
}

void main() {
    uint i = gl_GlobalInvocationID.x, size = panel_size(push.kb);
    if (i >= size) return;
    uint at = push.at + gl_WorkGroupID.y * size + i, q = push.kb * NQ4 * 32, hi = push.kb * NHI * 8;
    uvec4 r = random4(at * 4);
    words4.u[at] = i < q ? quants(i, r) : i < q + hi ? r : scales(i - q - hi, r);
}
