#version 450
/* What an expert has room for: the first `capacity` slots that chose it, in the order first choices of all tokens, then second choices, and so on (GShard, algorithm 1), tokens by position or by ws_order.
 * Also how many rows it has then and how many slots it lost, and with the tokens' probabilities its summand n_expert f P of the load-balance loss. Workgroups: x = experts. No atomics. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_capacity push; };
layout(constant_id = 4) const uint LANES = 64;     /* local_size_x */

shared uint count[LANES];
shared float part[LANES];

uint slot_of(uint i) {                             /* the i-th in the order of being served */
    uint t = i % push.n;
    return (push.ws_order == VKM_NONE ? t : wsu.u[push.ws_order + t]) * push.n_used + i / push.n;
}

void main() {
    uint e = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x;
    uint slots = push.n * push.n_used, each = (slots + LANES - 1) / LANES, begin = min(lane * each, slots), end = min(begin + each, slots);
    uint mine = 0;
    for (uint i = begin; i < end; i++) mine += uint(wsu.u[push.ws_chosen + slot_of(i)] == e);
    count[lane] = mine;
    float p = 0.0;
    if (push.ws_probs != VKM_NONE) for (uint t = lane; t < push.n_tokens; t += LANES) p += ws.f[push.ws_probs + t * push.n_expert + e];
    part[lane] = p;
    barrier();
    uint before = 0, all = 0;
    for (uint l = 0; l < LANES; l++) { if (l < lane) before += count[l]; all += count[l]; }
    for (uint i = begin; i < end; i++) {
        uint slot = slot_of(i), id = wsu.u[push.ws_chosen + slot];
        if (id == e) {
            bool room = before++ < push.capacity;
            wsu.u[push.ws_ids + slot] = room ? e : VKM_NONE;
            if (!room) ws.f[push.ws_weight + slot] = 0.0;
        }
        if (e == 0 && id >= push.n_expert) wsu.u[push.ws_ids + slot] = VKM_NONE;      /* nobody's */
    }
    if (lane > 0) return;
    float sum = 0.0;
    for (uint l = 0; l < LANES; l++) sum += part[l];
    uint rows = min(all, push.capacity);
    wsu.u[push.ws_rows + e] = rows;
    wsu.u[push.ws_dropped + e] = all - rows;
    ws.f[push.ws_load + e] = float(push.n_expert) * (float(all) / float(slots)) * (sum / float(push.n_tokens));
}
