#version 450
/* An f32 router for few tokens, on a device that has lanes to fill: the parts of the columns that linear would split among the lanes of a workgroup, each by workgroups of its own; moe_topk
 * adds them up, in the order that linear does. A lane takes a row. Workgroups: x = parts / local_size_y, y = panels. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_logits push; };
layout(constant_id = 4) const uint NT = 8;         /* tokens at most */
layout(constant_id = 5) const uint PARTS = 1;

const uint EACH = NT < 4 ? NT : 4;                  /* tokens at a time */

void main() {
    uint row = gl_LocalInvocationID.x, part = gl_WorkGroupID.x * gl_WorkGroupSize.y + gl_LocalInvocationID.y;
    uint slab = tables.u[push.tab_weight], base = tables.u[push.tab_weight + 1] + gl_WorkGroupID.y * push.kb * 256 + row;
    for (uint first = 0; first < push.n; first += EACH) {
        float acc[EACH];
        [[unroll]] for (int t = 0; t < int(EACH); t++) acc[t] = 0.0;
        for (uint k = push.kb * part / PARTS; k < push.kb * (part + 1) / PARTS; k++) {
            vec4 w[8];
            [[unroll]] for (int s = 0; s < 8; s++) w[s] = uintBitsToFloat(slabs4[slab].w[base + (k * 8 + s) * 32]);
            [[unroll]] for (int s = 0; s < 8; s++)
                [[unroll]] for (int t = 0; t < int(EACH); t++) {
                    vec4 v = ws4.f[(push.ws_x + min(first + t, push.n - 1) * push.ld_x) / 4 + k * 8 + s];
                    float a = acc[t];
                    a += w[s].x * v.x; a += w[s].y * v.y; a += w[s].z * v.z; a += w[s].w * v.w;
                    acc[t] = a;
                }
        }
        [[unroll]] for (int t = 0; t < int(EACH); t++)
            if (first + t < push.n) ws.f[push.ws_out + ((first + t) * PARTS + part) * push.ld_out + gl_WorkGroupID.y * 32 + row] = acc[t];
    }
}
