#version 450
/* Rows of x as int8, for matmul_dot.glsl: in blocks of 32 columns with a scale each, x = scale * q with |q| <= 127, halves rounded up. A row of the output: 8 words a block, behind them a
 * vec2 a block (scale, scale times the sum of q). x is read twice: held in registers it makes Intel's compiler (dg2) spill 144 of them at 32 lanes. A lane takes a block.
 * Workgroups: x = rows. Reference: tests/test_kernels.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_quantise push; };
layout(set = 0, binding = 1) buffer Workspace2 { vec2 f[]; } ws2;

void quantise(uint x, uint out_, uint kb, uint k) {
    vec4 most = vec4(0.0);
    [[unroll]] for (uint i = 0; i < 8; i++) most = max(most, abs(ws4.f[x + k * 8 + i]));
    float largest = max(max(most.x, most.y), max(most.z, most.w));
    if (largest < 1.0e-30) largest = 0.0;
    float inverse = largest > 0.0 ? 127.0 / largest : 0.0;
    ivec4 sum = ivec4(0);
    [[dont_unroll]] for (uint i = 0; i < 8; i++) {
        ivec4 q = clamp(ivec4(floor(ws4.f[x + k * 8 + i] * inverse + 0.5)), -127, 127);
        sum += q;
        wsu.u[out_ + k * 8 + i] = uint(q.x & 255 | (q.y & 255) << 8 | (q.z & 255) << 16 | q.w << 24);
    }
    float scale = largest / 127.0;
    ws2.f[(out_ + kb * 8) / 2 + k] = vec2(scale, scale * float(sum.x + sum.y + sum.z + sum.w));
}

void main() {
    uint x = (push.ws_x + gl_WorkGroupID.x * push.ld_x) / 4, out_ = push.ws_out + gl_WorkGroupID.x * push.ld_out;
    for (uint k = gl_LocalInvocationID.x; k < push.kb; k += gl_WorkGroupSize.x) quantise(x, out_, push.kb, k);
}
