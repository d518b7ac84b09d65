#version 450
/* The router: scores, the k best experts of a token by descending score, their weights. Workgroups: x = tokens.
 * An expert's place is the number of experts that beat it, ties going to the lower index, so there is no loop over choices and no barrier between them.
 * Comparison is on integer keys in which NaN is lowest: no logit can make an index out of range. One token: its tile list too (experts in order of choice).
 * Rules: Mixtral, OLMoE, Qwen-MoE, Granite (softmax over all with or without renormalisation; softmax over the selected). Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_topk push; };
#include "reduce.glsl"
#include "order.glsl"
layout(constant_id = 5) const uint EXPERTS = 8;

shared uint key[EXPERTS];
shared float chosen[32];
shared uint chosen_id[32];

float value(uint k) { return uintBitsToFloat((k & 0x80000000u) != 0 ? k & 0x7fffffffu : ~k); }

void main() {
    uint t = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint logits = push.ws_logits + t * push.ld_logits;
    uint n_used = min(push.n_used, 32u);
    float highest = -3.0e38, sum = 0.0;
    for (uint e = lane; e < EXPERTS; e += lanes) {
        key[e] = order(ws.f[logits + e]);
        if (key[e] != 0) highest = max(highest, ws.f[logits + e]);
    }
    for (uint j = lane; j < 32; j += lanes) { chosen[j] = 0.0; chosen_id[j] = 0; }
    highest = workgroup_max(highest);
    for (uint e = lane; e < EXPERTS; e += lanes) if (key[e] != 0) sum += exp(value(key[e]) - highest);
    sum = workgroup_sum(sum);               /* its barriers also publish key[] */
    barrier();
    for (uint e = lane; e < EXPERTS; e += lanes) {
        uint mine = key[e], place = 0;
        for (uint o = 0; o < EXPERTS; o++) place += uint(key[o] > mine || (key[o] == mine && o < e));
        if (place < n_used) {
            chosen[place] = mine != 0 ? exp(value(mine) - highest) : 0.0;
            chosen_id[place] = e;
        }
    }
    barrier();
    float of_chosen = 0.0;
    for (uint j = 0; j < n_used; j++) of_chosen += chosen[j];
    float divide = sum;
    if (push.score == VKM_SCORE_SELECTED) divide = of_chosen;
    else if (push.renormalise != 0) divide = sum * max(of_chosen / sum, 6.103515625e-5);
    for (uint j = lane; j < n_used; j += lanes) {
        wsu.u[push.ws_ids + t * n_used + j] = chosen_id[j];
        ws.f[push.ws_weight + t * n_used + j] = chosen[j] / divide * push.scale;
        if (push.ws_tiles != VKM_NONE) {
            wsu.u[push.ws_tiles + 2 * j] = chosen_id[j] | 1u << 16;
            wsu.u[push.ws_tiles + 2 * j + 1] = j;
            wsu.u[push.ws_perm + j] = j;
        }
    }
    if (lane == 0 && push.ws_gate != VKM_NONE) ws.f[push.ws_gate + t] = 1.0 / (1.0 + exp(-ws.f[logits + EXPERTS]));
}
