#version 450
/* An f32 router for few tokens, on a device that has lanes to fill: the parts of the columns that linear would split among the lanes of a workgroup, each by workgroups of its own; they are
 * added up, in the order that linear does, by moe_topk, or (TOPK.few) by the last workgroup that is done, which then does what moe_topk does: a step less to wait for.
 * A lane takes a row. Workgroups: x = parts / (local_size_x / 32), y = panels. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#define WS_ACCESS coherent      /* workgroups read what others wrote */
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_logits push; };
#include "reduce.glsl"
#define TOPK push.topk
layout(constant_id = 6) const uint LOGIT_PARTS_ = 1;
#define LOGIT_PARTS LOGIT_PARTS_
#include "topk.glsl"
layout(constant_id = 7) const uint NT = 8;         /* tokens at most */
layout(set = 0, binding = 1) readonly buffer X4 { vec4 f[]; } x4;

const uint EACH = NT < 4 ? NT : 4;                  /* tokens at a time */
shared uint arrived;

void main() {
    uint lane = gl_LocalInvocationID.x, row = lane % 32, part = gl_WorkGroupID.x * (gl_WorkGroupSize.x / 32) + lane / 32;
    uint slab = tables.u[push.tab_weight], base = tables.u[push.tab_weight + 1] + gl_WorkGroupID.y * push.kb * 256 + row;
    for (uint first = 0; first < push.n; first += EACH) {
        float acc[EACH];
        [[unroll]] for (int t = 0; t < int(EACH); t++) acc[t] = 0.0;
        for (uint k = push.kb * part / LOGIT_PARTS; k < push.kb * (part + 1) / LOGIT_PARTS; k++) {
            vec4 w[8];
            [[unroll]] for (int s = 0; s < 8; s++) w[s] = uintBitsToFloat(slabs4[slab].w[base + (k * 8 + s) * 32]);
            [[unroll]] for (int s = 0; s < 8; s++)
                [[unroll]] for (int t = 0; t < int(EACH); t++) {
                    vec4 v = x4.f[(push.ws_x + min(first + t, push.n - 1) * push.ld_x) / 4 + k * 8 + s];
                    float a = acc[t];
                    a += w[s].x * v.x; a += w[s].y * v.y; a += w[s].z * v.z; a += w[s].w * v.w;
                    acc[t] = a;
                }
        }
        [[unroll]] for (int t = 0; t < int(EACH); t++)
            if (first + t < push.n) ws.f[TOPK.ws_logits + ((first + t) * LOGIT_PARTS + part) * TOPK.ld_logits + gl_WorkGroupID.y * 32 + row] = acc[t];
    }
    if (TOPK.few == 0) return;
    memoryBarrierBuffer();
    barrier();
    if (lane == 0) arrived = atomicAdd(wsu.u[push.ws_arrived], 1) + 1;
    barrier();
    if (arrived != gl_NumWorkGroups.x * gl_NumWorkGroups.y) return;
    memoryBarrierBuffer();
    if (lane == 0) wsu.u[push.ws_arrived] = 0;      /* for the next pass */
    uint n_used = min(TOPK.n_used, 32u), few = min(TOPK.few, VKM_FEW_ROWS);
    route_tokens(0, few, n_used);
    sort(few * n_used);
}
