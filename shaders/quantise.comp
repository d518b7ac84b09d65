#version 450
/* Rows of x as int8: quantise.glsl. A lane takes a block. Workgroups: x = rows. Reference: tests/test_kernels.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_quantise push; };
#include "quantise.glsl"

void main() {
    uint x = (push.ws_x + gl_WorkGroupID.x * push.ld_x) / 4, out_ = push.ws_out + gl_WorkGroupID.x * push.ld_out;
    for (uint k = gl_LocalInvocationID.x; k < push.kb; k += gl_WorkGroupSize.x) {
        vec4 v[8];
        [[unroll]] for (int i = 0; i < 8; i++) v[i] = ws4.f[x + k * 8 + i];
        quantise(v, out_, push.kb, k);
    }
}
