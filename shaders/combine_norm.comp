#version 450
/* x[t] += scale * (y[t][0] + y[t][1] + ... + gate[t] * shared[t]), then out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight (RMSNorm, Zhang & Sennrich 2019).
 * The residual addition of every branch and the norm that follows it, in one pass; experts are added in the order of a token's choices. Workgroups: x = tokens. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_combine_norm push; };
#include "reduce.glsl"
layout(constant_id = 5) const uint EACH = 0;        /* times four columns of a lane, which keeps them in registers; 0: any number, and x is read again */
layout(constant_id = 6) const uint ROWS = 2;        /* of y that are on their way at once */
#define NORM_QUADS (EACH * gl_WorkGroupSize.x + 1)
#include "norm.glsl"

/* x[i] of token t with what is added to it; y: the token's rows */
float added(uint t, uint x, uint y, float gate, uint i) {
    float sum = 0.0;
    for (uint j = 0; j < push.n_add; j++) sum += WS_FLOAT(y + j * push.ld_y + i);
    if (push.ws_shared != VKM_NONE) sum += gate * WS_FLOAT(push.ws_shared + t * push.ld_shared + i);
    return fma(push.scale, sum, WS_FLOAT(x + i));
}

/* x behind main's first loop: a texel buffer need not know what it wrote */
#ifdef TEXELS
float again(uint i) { return push.n_add > 0 ? ws.f[i] : WS_FLOAT(i); }
#else
#  define again(i) ws.f[i]
#endif

/* The same of all columns of a lane: everything is read, ROWS rows at a time, before anything is written, for a load behind a store would wait for it. Offsets of vec4. */
vec4 kept[EACH + 1];
void add_all(uint t, uint x, uint y, float gate) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, quads = push.width / 4, ld = push.ld_y / 4, at[EACH + 1], j = 0;
    vec4 sum[EACH + 1];
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        at[e] = min(lane + e * lanes, quads - 1);
        kept[e] = ws4.f[x + at[e]];
        sum[e] = vec4(0.0);
    }
    if (push.n_add == 0) return;
    for (; j + ROWS <= push.n_add; j += ROWS) {
        vec4 part[ROWS * EACH + 1];
        [[unroll]] for (uint k = 0; k < ROWS; k++)
            [[unroll]] for (uint e = 0; e < EACH; e++) part[k * EACH + e] = ws4.f[y + (j + k) * ld + at[e]];
        [[unroll]] for (uint k = 0; k < ROWS; k++)
            [[unroll]] for (uint e = 0; e < EACH; e++) sum[e] += part[k * EACH + e];
    }
    for (; j < push.n_add; j++)
        [[unroll]] for (uint e = 0; e < EACH; e++) sum[e] += ws4.f[y + j * ld + at[e]];
    if (push.ws_shared != VKM_NONE)
        [[unroll]] for (uint e = 0; e < EACH; e++) sum[e] += gate * ws4.f[(push.ws_shared + t * push.ld_shared) / 4 + at[e]];
    [[unroll]] for (uint e = 0; e < EACH; e++) kept[e] = fma(vec4(push.scale), sum[e], kept[e]);
    [[unroll]] for (uint e = 0; e < EACH; e++) if (lane + e * lanes < quads) ws4.f[x + at[e]] = kept[e];
}

void norm_all(uint t, uint x, uint y, uint o, uint end, float gate) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    vec4 weight[EACH + 1];
    [[unroll]] for (uint e = 0; e < EACH; e++)
        weight[e] = push.tab_norm != VKM_NONE ? norm_weight(push.tab_norm, min(lane + e * lanes, push.width / 4 - 1)) : vec4(1.0);
    add_all(t, x / 4, y / 4, gate);
    if (push.ws_out == VKM_NONE) return;
    float inv = 1.0;
    if (push.tab_norm != VKM_NONE) {
        [[unroll]] for (uint e = 0; e < EACH; e++) norm_squares[lane + e * lanes] = (lane + e * lanes) * 4 < push.width ? square4(kept[e]) : 0.0;
        inv = inverse_rms(EACH * lanes, push.width, push.eps);
    }
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        uint i = (lane + e * lanes) * 4;
        if (i < end) ws4.f[(o + i) / 4] = i < push.width ? kept[e] * inv * weight[e] : vec4(0.0);
    }
}

void main() {
    uint t = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint x = push.ws_x + (push.ws_x_rows == VKM_NONE ? t : wsu.u[push.ws_x_rows + t]) * push.ld_x, y = push.ws_y + t * push.n_add * push.ld_y;
    uint o = push.ws_out + (push.ws_out_rows == VKM_NONE ? t : wsu.u[push.ws_out_rows + t]) * push.ld_out, end = (push.width + 31) / 32 * 32;
    float gate = push.ws_shared != VKM_NONE && push.ws_gate != VKM_NONE ? ws.f[push.ws_gate + t * push.ld_gate] : 1.0;
    if (EACH != 0) {
        norm_all(t, x, y, o, end, gate);
        return;
    }
    float squares = 0.0;
    for (uint i = lane; i < push.width; i += lanes) {
        float v = push.n_add > 0 ? added(t, x, y, gate, i) : WS_FLOAT(x + i);
        if (push.n_add > 0) ws.f[x + i] = v;
        squares = fma(v, v, squares);
    }
    if (push.ws_out == VKM_NONE) return;
    if (push.tab_norm == VKM_NONE) {
        for (uint i = lane; i < end; i += lanes) ws.f[o + i] = i < push.width ? again(x + i) : 0.0;
        return;
    }
    float inv = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    for (uint i = lane; i < end; i += lanes) ws.f[o + i] = i < push.width ? again(x + i) * inv * TABLE_FLOAT(push.tab_norm + i) : 0.0;
}
