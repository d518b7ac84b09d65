#version 450
/* Tokens in descending order of priority, ties in order of position (batch-prioritised routing, Riquelme et al. 2021). A lane counts those before its token. Workgroups: x = n / local_size_x. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_rank push; };
#include "order.glsl"

void main() {
    uint t = gl_GlobalInvocationID.x, rank = 0;
    if (t >= push.n) return;
    uint mine = order(ws.f[push.ws_priority + t]);
    for (uint o = 0; o < push.n; o++) {
        uint other = order(ws.f[push.ws_priority + o]);
        rank += uint(other > mine || (other == mine && o < t));
    }
    wsu.u[push.ws_order + rank] = t;
}
