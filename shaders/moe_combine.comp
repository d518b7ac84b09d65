#version 450
/* out[t] = the sum of a token's rows of y, in the order of its choices, or of expert choice in that of experts: where rows may be missing, or are not n_used a token. No atomics.
 * Workgroups: x = tokens, y = parts of 4 local_size_x columns. Rows are multiples of four columns. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_combine push; };
#include "chosen.glsl"

shared uint slot[1024];

void main() {
    uint t = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    bool by_expert = push.ws_tokens != VKM_NONE;
    uint n = by_expert ? push.n_expert : push.n_used;
    for (uint j = lane; j < n; j += lanes) {
        if (by_expert) {
            uint i = slot_of_expert(push.ws_tokens + j * push.capacity, push.capacity, t);
            slot[j] = i == VKM_NONE ? i : j * push.capacity + i;
        } else slot[j] = wsu.u[push.ws_ids + t * n + j] == VKM_NONE ? VKM_NONE : t * n + j;
    }
    barrier();
    uint i = (gl_WorkGroupID.y * lanes + lane) * 4;
    if (i >= push.width) return;
    vec4 sum = vec4(0.0);
    for (uint j = 0; j < n; j++) if (slot[j] != VKM_NONE) sum += ws4.f[(push.ws_y + slot[j] * push.ld_y + i) / 4];
    ws4.f[(push.ws_out + t * push.ld_out + i) / 4] = sum;
}
