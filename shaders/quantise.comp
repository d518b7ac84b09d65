#version 450
/* Rows of x as int8: quantise.glsl. A lane takes a block. Workgroups: x = rows. Reference: tests/test_kernels.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_quantise push; };
#include "quantise.glsl"

vec4 four_at(uint i) { return ws4.f[i]; }

void main() {
    uint x = (push.ws_x + gl_WorkGroupID.x * push.ld_x) / 4, out_ = push.ws_out + gl_WorkGroupID.x * push.ld_out;
    for (uint k = gl_LocalInvocationID.x; k < push.kb; k += gl_WorkGroupSize.x) quantise(x, out_, push.kb, k);
}
