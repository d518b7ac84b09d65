/* A token's norm by every workgroup that reads it, instead of a step of its own that all of them wait for: a row of ROW_BLOCKS blocks of 32 columns, from vec4 `x` of the workspace on,
 * to shared memory. push.tab_norm, width (a multiple of four) and eps: as combine_norm. Where a kernel has no MAKES_NORM it has no code for it. */
#ifdef MAKES_NORM
layout(constant_id = 8) const uint NORM = 0;        /* 1: NORMED; 2: a lane has registers for dozens of values that are on their way (holds_many of vkm_shape) */
const bool NORMED = (NORM & 1u) != 0, HOLDS_MANY = (NORM & 2u) != 0;
#define NORM_QUADS (NORMED ? ROW_BLOCKS * 8 + 1 : 1)
#include "norm.glsl"
shared vec4 norm_row[NORM_QUADS];
layout(set = 0, binding = 1) readonly buffer NormX { vec4 f[]; } norm_x;

vec4 row_quad(uint x, uint i) { return i < push.width / 4 ? norm_x.f[x + i] : vec4(0.0); }

void make_norm_row(uint x) {
    const uint lanes = gl_WorkGroupSize.x * gl_WorkGroupSize.y, each = HOLDS_MANY ? (NORM_QUADS + lanes - 2) / lanes : 0, end = ROW_BLOCKS * 8;
    uint first = gl_LocalInvocationIndex, last = push.width / 4 - 1;
    vec4 v[each + 1], weight[each + 1];
    [[unroll]] for (uint e = 0; e < each; e++) {
        uint i = first + e * lanes;
        v[e] = row_quad(x, i);
        weight[e] = norm_weight(push.tab_norm, min(i, last));
        if (i < end) norm_squares[i] = square4(v[e]);
    }
    if (!HOLDS_MANY)
        [[dont_unroll]] for (uint i = first; i < end; i += lanes) norm_squares[i] = square4(norm_row[i] = row_quad(x, i));
    float inv = inverse_rms(end, push.width, push.eps);
    [[unroll]] for (uint e = 0; e < each; e++)
        if (first + e * lanes < end) norm_row[first + e * lanes] = v[e] * inv * weight[e];
    if (!HOLDS_MANY)
        [[dont_unroll]] for (uint i = first; i < end; i += lanes) norm_row[i] = norm_row[i] * inv * norm_weight(push.tab_norm, min(i, last));
    barrier();
}
#  define NORMED_OR(quad, other) (NORMED ? norm_row[quad] : (other))
#else
const bool NORMED = false;
void make_norm_row(uint x) {}
#  define NORMED_OR(quad, other) (other)
#endif
