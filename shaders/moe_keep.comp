#version 450
/* What became of a token's slots: how many were dropped, and weights that add up to 1 over the others. Of expert choice: whether nobody chose it. A lane a token; workgroups: x = n / local_size_x. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_keep push; };
#include "chosen.glsl"

void main() {
    uint t = gl_GlobalInvocationID.x, missed = 0;
    if (t >= push.n) return;
    if (push.ws_tokens != VKM_NONE) {
        missed = 1;
        for (uint e = 0; e < push.n_expert && missed == 1; e++) if (slot_of_expert(push.ws_tokens + e * push.capacity, push.capacity, t) != VKM_NONE) missed = 0;
        wsu.u[push.ws_missed + t] = missed;
        return;
    }
    float sum = 0.0;
    for (uint s = t * push.n_used; s < (t + 1) * push.n_used; s++) {
        bool kept = wsu.u[push.ws_ids + s] != VKM_NONE;
        missed += uint(!kept);
        if (kept && push.ws_weight != VKM_NONE) sum += ws.f[push.ws_weight + s];
    }
    if (push.ws_missed != VKM_NONE) wsu.u[push.ws_missed + t] = missed;
    if (push.ws_weight == VKM_NONE) return;
    for (uint s = t * push.n_used; s < (t + 1) * push.n_used; s++) {
        uint id = wsu.u[push.ws_ids + s];
        if (id != VKM_NONE) ws.f[push.ws_weight + s] = ws.f[push.ws_weight + s] / (max(sum, push.sum_min) + push.sum_add) * (push.tab_scale != VKM_NONE ? push.scale * tablesf.f[push.tab_scale + id] : push.scale);
    }
}
