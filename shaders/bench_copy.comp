#version 450
/* Copy bandwidth: slab y to KV buffer y, a lane `each` times four words, eight at a time; CHUNKED as in bench_read. Workgroups: x = parts of a slab, y = slabs. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_read push; };
layout(constant_id = 4) const uint CHUNKED = 0;

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, slab = gl_WorkGroupID.y;
    uint at = gl_WorkGroupID.x * push.each * lanes + (CHUNKED != 0 ? lane * push.each : lane);
    const uint next = CHUNKED != 0 ? 1 : lanes;
    for (uint i = 0; i < push.each; i += 8, at += 8 * next) {
        uvec4 v[8];
        [[unroll]] for (int u = 0; u < 8; u++) v[u] = slabs4[slab].w[at + u * next];
        [[unroll]] for (int u = 0; u < 8; u++) kv4[slab].w[at + u * next] = v[u];
    }
}
