#version 450
/* Rows of x as f16, for matmul_coop.glsl: eight columns a lane, beyond 65504 clamped to it. Workgroups: x = rows. Reference: tests/test_kernels.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_quantise push; };
layout(set = 0, binding = 1) buffer WorkspaceU4 { uvec4 u[]; } wsu4;

void main() {
    uint x = (push.ws_x + gl_WorkGroupID.x * push.ld_x) / 4, out_ = (push.ws_out + gl_WorkGroupID.x * push.ld_out) / 4;
    for (uint i = gl_LocalInvocationID.x; i < push.kb * 4; i += gl_WorkGroupSize.x) {
        vec4 a = clamp(ws4.f[x + 2 * i], -65504.0, 65504.0), b = clamp(ws4.f[x + 2 * i + 1], -65504.0, 65504.0);
        wsu4.u[out_ + i] = uvec4(packHalf2x16(a.xy), packHalf2x16(a.zw), packHalf2x16(b.xy), packHalf2x16(b.zw));
    }
}
