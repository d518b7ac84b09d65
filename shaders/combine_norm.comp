#version 450
/* x[t] += scale * (y[t][0] + y[t][1] + ... + gate[t] * shared[t]), then out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight (RMSNorm, Zhang & Sennrich 2019).
 * The residual addition of every branch and the norm that follows it, in one pass; experts are added in the order of a token's choices. Workgroups: x = tokens. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_combine_norm push; };
#include "reduce.glsl"
layout(constant_id = 5) const uint EACH = 0;        /* columns of a lane, which keeps them in registers; 0: any number, and x is read again */

/* x[i] of token t with what is added to it; y: the token's rows */
float added(uint t, uint x, uint y, float gate, uint i) {
    float sum = 0.0;
    for (uint j = 0; j < push.n_add; j++) sum += ws.f[y + j * push.ld_y + i];
    if (push.ws_shared != VKM_NONE) sum += gate * ws.f[push.ws_shared + t * push.ld_shared + i];
    return ws.f[x + i] + push.scale * sum;
}

/* The same of all columns of a lane: everything is read, eight rows at a time, before anything is written, for a load behind a store would wait for it. */
float kept[EACH + 1];
void add_all(uint t, uint x, uint y, float gate) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, column[EACH + 1], j = 0;
    float sum[EACH + 1];
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        column[e] = min(lane + e * lanes, push.width - 1);
        kept[e] = ws.f[x + column[e]];
        sum[e] = 0.0;
    }
    if (push.n_add == 0) return;
    for (; j + 8 <= push.n_add; j += 8) {
        float part[8 * EACH + 1];
        [[unroll]] for (uint k = 0; k < 8; k++)
            [[unroll]] for (uint e = 0; e < EACH; e++) part[k * EACH + e] = ws.f[y + (j + k) * push.ld_y + column[e]];
        [[unroll]] for (uint k = 0; k < 8; k++)
            [[unroll]] for (uint e = 0; e < EACH; e++) sum[e] += part[k * EACH + e];
    }
    for (; j < push.n_add; j++)
        [[unroll]] for (uint e = 0; e < EACH; e++) sum[e] += ws.f[y + j * push.ld_y + column[e]];
    if (push.ws_shared != VKM_NONE)
        [[unroll]] for (uint e = 0; e < EACH; e++) sum[e] += gate * ws.f[push.ws_shared + t * push.ld_shared + column[e]];
    [[unroll]] for (uint e = 0; e < EACH; e++) kept[e] += push.scale * sum[e];
    [[unroll]] for (uint e = 0; e < EACH; e++) if (lane + e * lanes < push.width) ws.f[x + column[e]] = kept[e];
}

void main() {
    uint t = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint x = push.ws_x + (push.ws_x_rows == VKM_NONE ? t : wsu.u[push.ws_x_rows + t]) * push.ld_x, y = push.ws_y + t * push.n_add * push.ld_y;
    float gate = push.ws_shared != VKM_NONE && push.ws_gate != VKM_NONE ? ws.f[push.ws_gate + t * push.ld_gate] : 1.0;
    float squares = 0.0, weight[EACH + 1];
    [[unroll]] for (uint e = 0; e < EACH; e++) {
        uint i = min(lane + e * lanes, push.width - 1);
        weight[e] = push.tab_norm != VKM_NONE ? tablesf.f[push.tab_norm + i] : 0.0;
    }
    if (EACH != 0) {
        add_all(t, x, y, gate);
        [[unroll]] for (uint e = 0; e < EACH; e++) if (lane + e * lanes < push.width) squares += kept[e] * kept[e];
    } else
        for (uint i = lane; i < push.width; i += lanes) {
            float v = push.n_add > 0 ? added(t, x, y, gate, i) : ws.f[x + i];
            if (push.n_add > 0) ws.f[x + i] = v;
            squares += v * v;
        }
    if (push.ws_out == VKM_NONE) return;
    uint o = push.ws_out + (push.ws_out_rows == VKM_NONE ? t : wsu.u[push.ws_out_rows + t]) * push.ld_out;
    uint end = (push.width + 31) / 32 * 32;
    if (push.tab_norm == VKM_NONE) {
        for (uint i = lane; i < end; i += lanes) ws.f[o + i] = i < push.width ? ws.f[x + i] : 0.0;
        return;
    }
    float inv = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    if (EACH != 0)
        [[unroll]] for (uint e = 0; e < EACH; e++) {
            uint i = lane + e * lanes;
            if (i < end) ws.f[o + i] = i < push.width ? kept[e] * inv * weight[e] : 0.0;
        }
    else
        for (uint i = lane; i < end; i += lanes) ws.f[o + i] = i < push.width ? ws.f[x + i] * inv * tablesf.f[push.tab_norm + i] : 0.0;
}
