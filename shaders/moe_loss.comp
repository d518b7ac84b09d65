#version 450
/* vkm_router_statistics: load-balance loss (Switch) and z-loss (ST-MoE) as numbers, dropped slots, rows of the fullest expert. One workgroup; sums in a fixed order. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_loss push; };
layout(constant_id = 4) const uint LANES = 64;     /* local_size_x */

shared float load[LANES], square[LANES];
shared uint missed[LANES], most[LANES];

void main() {
    uint lane = gl_LocalInvocationID.x;
    load[lane] = square[lane] = 0.0;
    missed[lane] = most[lane] = 0;
    for (uint e = lane; e < push.n_expert; e += LANES) {
        if (push.ws_lse != VKM_NONE) load[lane] += ws.f[push.ws_load + e];
        most[lane] = max(most[lane], wsu.u[push.ws_rows + e]);
    }
    for (uint t = lane; t < push.n; t += LANES) {
        float z = push.ws_lse == VKM_NONE ? 0.0 : ws.f[push.ws_lse + t];
        square[lane] += z * z;
        missed[lane] += wsu.u[push.ws_missed + t];
    }
    barrier();
    if (lane > 0) return;
    float loads = 0.0, squares = 0.0;
    uint misses = 0, rows = 0;
    for (uint l = 0; l < LANES; l++) { loads += load[l]; squares += square[l]; misses += missed[l]; rows = max(rows, most[l]); }
    ws.f[push.ws_out] = loads;
    ws.f[push.ws_out + 1] = squares / float(push.n);
    wsu.u[push.ws_out + 2] = misses;
    wsu.u[push.ws_out + 3] = rows;
}
