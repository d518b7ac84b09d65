#version 450
/* x[t] += scale * (y[t][0] + y[t][1] + ... + gate[t] * shared[t]), then out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight (RMSNorm, Zhang & Sennrich 2019).
 * The residual addition of every branch and the norm that follows it, in one pass; experts are added in the order of a token's choices. For a matmul of few tokens in integers x is quantised here, too: a step less. Workgroups: x = tokens. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_combine_norm push; };
#include "reduce.glsl"
#include "quantise.glsl"
layout(constant_id = 5) const uint QUANTISE = 0;    /* out as int8 too, for the matmul that follows */
layout(set = 0, binding = 1) coherent buffer WorkspaceC  { float f[]; } wsc;    /* lanes read what others of the workgroup wrote */
layout(set = 0, binding = 1) coherent buffer WorkspaceC4 { vec4 f[]; }  wsc4;

vec4 four_at(uint i) { return wsc4.f[i]; }

void main() {
    uint t = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint x = push.ws_x + (push.ws_x_rows == VKM_NONE ? t : wsu.u[push.ws_x_rows + t]) * push.ld_x, y = push.ws_y + t * push.n_add * push.ld_y;
    bool shared_expert = push.ws_shared != VKM_NONE;
    float gate = shared_expert && push.ws_gate != VKM_NONE ? ws.f[push.ws_gate + t * push.ld_gate] : 1.0;
    float squares = 0.0;
    for (uint i = lane; i < push.width; i += lanes) {
        float v = ws.f[x + i];
        if (push.n_add > 0) {
            float sum = 0.0;
            uint j = 0;
            for (; j + 8 <= push.n_add; j += 8) {        /* eight loads at a time */
                float part[8];
                [[unroll]] for (int k = 0; k < 8; k++) part[k] = ws.f[y + (j + k) * push.ld_y + i];
                [[unroll]] for (int k = 0; k < 8; k++) sum += part[k];
            }
            for (; j < push.n_add; j++) sum += ws.f[y + j * push.ld_y + i];
            if (shared_expert) sum += gate * ws.f[push.ws_shared + t * push.ld_shared + i];
            v += push.scale * sum;
            ws.f[x + i] = v;
        }
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
    for (uint i = lane; i < end; i += lanes)
        wsc.f[o + i] = i < push.width ? ws.f[x + i] * inv * tablesf.f[push.tab_norm + i] : 0.0;
    if (QUANTISE == 0) return;
    memoryBarrierBuffer();
    sync();
    for (uint k = lane; k < end / 32; k += lanes) quantise(o / 4, push.ws_quants + t * push.ld_quants, end / 32, k);
}
