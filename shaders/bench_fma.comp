#version 450
/* The rate of multiply-adds: N independent accumulators of four, eight rounds an iteration, no memory. x = x a + b with a = -1 and b = 1, which the compiler does not know, goes to
 * and fro between two values that binary16 holds exactly: after an even number of rounds the sum that a lane stores is the sum of what it began with, whatever the precision.
 * FUSED: by fma(), else a product and a sum that the compiler may fuse. Workgroups: x. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_alu push; };
layout(constant_id = 4) const uint N = 4;
layout(constant_id = 5) const uint FUSED = 0;

#ifdef TYPE_F16
#define VEC4 f16vec4
#else
#define VEC4 vec4
#endif

void main() {
    uint lane = gl_GlobalInvocationID.x;
    VEC4 x[N], a = VEC4(push.a), b = VEC4(push.b);
    [[unroll]] for (int j = 0; j < int(N); j++) x[j] = VEC4(vec4((lane * 7 + (j * 4 + uvec4(0, 1, 2, 3)) * 13) & 255u) / 256.0);
    for (uint i = 0; i < push.n; i++)
        [[unroll]] for (int u = 0; u < 8; u++)
            [[unroll]] for (int j = 0; j < int(N); j++) x[j] = FUSED != 0 ? fma(x[j], a, b) : x[j] * a + b;
    float sum = 0.0;
    [[unroll]] for (int j = 0; j < int(N); j++) sum += float(x[j].x) + float(x[j].y) + float(x[j].z) + float(x[j].w);
    ws.f[push.ws_out + lane] = sum;
}
