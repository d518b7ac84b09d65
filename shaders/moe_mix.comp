#version 450
/* Soft MoE (Puigcerver et al. 2023), both ways: an expert's row is a mixture of all tokens, a token's output one of all experts' rows. out[r] = sum over c of softmax over c of logits[r, c] * in[c].
 * NaN has no part in it, nor what has no weight. Workgroups: x = rows of out, y = parts of 4 local_size_x columns. Rows are multiples of four columns. Reference: tests/reference/router.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_mix push; };
#include "reduce.glsl"
#include "order.glsl"

const uint CHUNK = 256;
const float MOST = 3.4028234e38;
shared float weight[CHUNK];

float logit(uint c, out bool number) {
    float v = ws.f[push.ws_logits + gl_WorkGroupID.x * push.row + c * push.column];
    number = order(v) != 0;
    return number ? clamp(v, -MOST, MOST) : -MOST;
}

void main() {
    uint r = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, i = (gl_WorkGroupID.y * lanes + lane) * 4;
    bool number;
    float highest = -MOST, total = 0.0;
    for (uint c = lane; c < push.n; c += lanes) highest = max(highest, logit(c, number));
    highest = workgroup_max(highest);
    vec4 sum = vec4(0.0);
    for (uint first = 0; first < push.n; first += CHUNK) {
        uint n = min(CHUNK, push.n - first);
        barrier();
        for (uint c = lane; c < n; c += lanes) { float z = logit(first + c, number); weight[c] = number ? exp(z - highest) : 0.0; }
        barrier();
        for (uint c = 0; c < n; c++) {
            total += weight[c];
            if (i < push.width && weight[c] != 0.0) sum += weight[c] * ws4.f[(push.ws_in + (first + c) * push.ld_in + i) / 4];
        }
    }
    if (i < push.width) ws4.f[(push.ws_out + r * push.ld_out + i) / 4] = total > 0.0 ? sum / total : vec4(0.0);
    if (lane == 0 && gl_WorkGroupID.y == 0 && push.ws_ids != VKM_NONE) {
        wsu.u[push.ws_ids + r] = r / push.each;
        ws.f[push.ws_weight + r] = 1.0;
    }
}
