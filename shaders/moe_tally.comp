#version 450
/* Adds to each expert's count the slots of a pass that chose it. One workgroup, lanes over experts. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_tally push; };

void main() {
    for (uint e = gl_LocalInvocationID.x; e < push.n_expert; e += gl_WorkGroupSize.x) {
        uint count = 0;
        for (uint i = 0; i < push.n_slots; i++) count += uint(wsu.u[push.ws_ids + i] == e);
        wsu.u[push.ws_counts + e] += count;
    }
}
