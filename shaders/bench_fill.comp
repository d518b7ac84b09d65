#version 450
/* word[i] = first + i * 0x9e3779b1: words whose sum over any range is known, for what reads or copies them (vkmoe bench roofline). The buffer is bound as the workspace;
 * a lane writes 16 words, four at a time, neighbours next to each other. Workgroups: x = 16 local_size_x words each. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_fill push; };
layout(set = 0, binding = 1) buffer Words4 { uvec4 u[]; } words4;

void main() {
    uint at = gl_WorkGroupID.x * gl_WorkGroupSize.x * 4 + gl_LocalInvocationID.x;
    for (uint i = 0; i < 4; i++, at += gl_WorkGroupSize.x)
        if (at < push.n4) words4.u[at] = push.first + (at * 4 + uvec4(0, 1, 2, 3)) * 0x9e3779b1u;
}
