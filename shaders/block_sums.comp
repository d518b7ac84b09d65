#version 450
/* The sums of rows of x over blocks of 32 columns, for matmul_cpu.glsl: VKM_SUMS_WORDS a row. A lane takes a block. Workgroups: x = rows. Reference: tests/test_kernels.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_quantise push; };

void main() {
    uint x = (push.ws_x + gl_WorkGroupID.x * push.ld_x) / 4, out_ = push.ws_out + gl_WorkGroupID.x * push.ld_out;
    for (uint k = gl_LocalInvocationID.x; k < push.kb; k += gl_WorkGroupSize.x) {
        float sum = 0.0;
        [[unroll]] for (uint i = 0; i < 8; i++) {
            vec4 a = ws4.f[x + k * 8 + i];
            sum = (a.x + a.y) + (a.z + a.w) + sum;
        }
        ws.f[out_ + k] = sum;
    }
}
