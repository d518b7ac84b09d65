#version 450
/* Counting sort, first half: how many of a chunk's slots each expert has. Workgroups: x = chunks of VKM_SORT_CHUNK slots. No atomics. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_sort push; };

shared uint id[VKM_SORT_CHUNK];

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint first = gl_WorkGroupID.x * VKM_SORT_CHUNK, n = min(VKM_SORT_CHUNK, push.n_slots - first);
    for (uint i = lane; i < n; i += lanes) id[i] = wsu.u[push.ws_ids + first + i];
    barrier();
    for (uint e = lane; e < push.n_expert; e += lanes) {
        uint count = 0;
        for (uint i = 0; i < n; i++) count += uint(id[i] == e);
        wsu.u[push.ws_counts + gl_WorkGroupID.x * push.n_expert + e] = count;
    }
}
