#version 450
/* Read bandwidth: a lane adds up `each` times four words of a slab, eight loads at a time, and stores one word, so that no load can be left out: the stored words add up to the
 * slab's. CHUNKED: a lane's words are next to each other, as the prefetchers of CPUs like them; else the lanes' are, as GPUs like them.
 * Workgroups: x = parts of a slab, wrapped around at push.parts (to read a small one again and again), y = slabs. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_read push; };
layout(constant_id = 4) const uint CHUNKED = 0;

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, slab = gl_WorkGroupID.y;
    uint at = gl_WorkGroupID.x % push.parts * push.each * lanes + (CHUNKED != 0 ? lane * push.each : lane);
    const uint next = CHUNKED != 0 ? 1 : lanes;
    uvec4 sum = uvec4(0);
    for (uint i = 0; i < push.each; i += 8, at += 8 * next) {
        uvec4 v[8];
        [[unroll]] for (int u = 0; u < 8; u++) v[u] = SLAB_QUAD(slab, at + u * next);
        [[unroll]] for (int u = 0; u < 8; u++) sum += v[u];
    }
    wsu.u[push.ws_out + (slab * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + lane] = sum.x + sum.y + sum.z + sum.w;
}
