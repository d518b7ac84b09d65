#version 450
/* Read bandwidth by scalar.glsl's loads, which matmul_cpu.glsl reads weights with: a workgroup is one subgroup of LANES lanes, takes LANES times `each` times 16 bytes and reads STREAMS runs of them at once.
 * What lanes store adds up to the slab's words, as in bench_read. Tables: the first slab's device address. Workgroups: parts of it, as in bench_read. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_read push; };
layout(constant_id = 4) const uint LANES = 8;
layout(constant_id = 5) const uint STREAMS = 1;
#include "scalar.glsl"

#define LOADS 16           /* of a stream in an iteration */

void main() {
    know_lane();
    uint size = push.each * LANES, run = size / STREAMS, i = 0;
    uvec2 at = ahead(uvec2(tables.u[0], tables.u[1]), gl_WorkGroupID.x % push.parts * size);
    uvec4 sum = uvec4(0);
    [[dont_unroll]] do {
        [[unroll]] for (uint s = 0; s < 4; s++)
            if (s < STREAMS) {
                Words w = Words(ahead(at, s * run + i));
                [[unroll]] for (uint u = 0; u < LOADS; u++) sum[u % 4] += word(w, u * (LANES / 4), 0);
            }
        i += LOADS * (LANES / 4);
    } while (i < run);
    wsu.u[push.ws_out + gl_WorkGroupID.x * LANES + gl_SubgroupInvocationID] = sum.x + sum.y + sum.z + sum.w;
}
