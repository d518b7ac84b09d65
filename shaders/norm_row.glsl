/* A single token's norm by every workgroup that reads it, instead of a step of its own that all of them wait for: a row of ROW_BLOCKS blocks of 32 columns, from vec4 `x` of the workspace on,
 * to shared memory. push.tab_norm, width (a multiple of four) and eps: as combine_norm. Where a kernel has no MAKES_NORM it has no code for it. */
#ifdef MAKES_NORM
layout(constant_id = 8) const uint NORMED = 0;
#define NORM_QUADS (NORMED * ROW_BLOCKS * 8 + 1)
#include "norm.glsl"
shared vec4 norm_row[NORM_QUADS];
layout(set = 0, binding = 1) readonly buffer NormX { vec4 f[]; } norm_x;

void make_norm_row(uint x) {
    const uint lanes = gl_WorkGroupSize.x * gl_WorkGroupSize.y, each = (NORM_QUADS + lanes - 2) / lanes;
    vec4 v[each + 1], weight[each + 1];             /* all on their way at once */
    [[unroll]] for (uint e = 0; e < each; e++) {
        uint i = min(gl_LocalInvocationIndex + e * lanes, push.width / 4 - 1);
        v[e] = norm_x.f[x + i];
        weight[e] = norm_weight(push.tab_norm, i);
    }
    [[unroll]] for (uint e = 0; e < each; e++) {
        uint i = gl_LocalInvocationIndex + e * lanes;
        if (i >= push.width / 4) v[e] = vec4(0.0);
        if (i < ROW_BLOCKS * 8) norm_squares[i] = square4(v[e]);
    }
    float inv = inverse_rms(ROW_BLOCKS * 8, push.width, push.eps);
    [[unroll]] for (uint e = 0; e < each; e++) {
        uint i = gl_LocalInvocationIndex + e * lanes;
        if (i < ROW_BLOCKS * 8) norm_row[i] = v[e] * inv * weight[e];
    }
    barrier();
}
#  define NORMED_OR(quad, other) (NORMED != 0 ? norm_row[quad] : (other))
#else
const uint NORMED = 0;
void make_norm_row(uint x) {}
#  define NORMED_OR(quad, other) (other)
#endif
