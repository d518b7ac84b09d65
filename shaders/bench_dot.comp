#version 450
/* The rate of packed 4x8 bit dot products with a sum: N independent accumulators of four, eight rounds an iteration, no memory. x = dot(x, a) + b with a of the bytes -1, 0, 0, 0 and
 * b = 1, which the compiler does not know: as in bench_fma.comp x goes to and fro between two values, here from 0 to 63 and their 1 - x. Workgroups: x. */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_alu push; };
layout(constant_id = 4) const uint N = 4;

spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450) int dot_packed(int a, int b, spirv_literal int format);

void main() {
    uint lane = gl_GlobalInvocationID.x;
    int a = int(push.a) & 255, b = int(push.b);
    ivec4 x[N];
    [[unroll]] for (int j = 0; j < int(N); j++) x[j] = ivec4(lane * 7 + (j * 4 + uvec4(0, 1, 2, 3)) * 13) & 63;
    for (uint i = 0; i < push.n; i++)
        [[unroll]] for (int u = 0; u < 8; u++)
            [[unroll]] for (int j = 0; j < int(N); j++)
                x[j] = ivec4(dot_packed(x[j].x, a, 0), dot_packed(x[j].y, a, 0), dot_packed(x[j].z, a, 0), dot_packed(x[j].w, a, 0)) + b;
    int sum = 0;
    [[unroll]] for (int j = 0; j < int(N); j++) sum += x[j].x + x[j].y + x[j].z + x[j].w;
    ws.f[push.ws_out + lane] = float(sum);
}
