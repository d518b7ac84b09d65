#version 450
/* Any router's choice for one token: logits -> scores -> ids and weights. What moe_topk has no room for; vkm_router_desc in src/vkmoe.h has the rules and their papers.
 * As there an expert's place is the number of experts that beat it, by integer keys, ties going to the lower index: no logit can make an index out of range. Workgroups: x = tokens.
 * Reference: tests/reference/router.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_select push; };
#include "reduce.glsl"
#include "order.glsl"
#include "philox.glsl"
layout(constant_id = 5) const uint EXPERTS = 256;    /* at most */

shared uint key[EXPERTS];                 /* of what decides; 0: not looked at, 1: NaN */
shared float score[EXPERTS];              /* the logit; from scores() on what weights are made of */
shared uint place[EXPERTS];
shared uint group_key[VKM_GROUPS_MOST], group_place[VKM_GROUPS_MOST];
shared float group_score[VKM_GROUPS_MOST];
shared uint chosen_id[32];
shared float chosen[32];

const float MOST = 3.4028234e38;
uint token = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
uint select = VKM_RULE_SELECT(push.rule), kind = VKM_RULE_SCORE(push.rule);
bool has(uint flag) { return (push.rule & flag) != 0; }

float softplus(float v) {                 /* log(1 + exp(v)), with log(1 + t) = 2 artanh(t / (2 + t)): log is not exact near 1 */
    float t = exp(-abs(v)), r = t / (2.0 + t), q = r * r;
    return max(v, 0.0) + 2.0 * r * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0)))));
}

/* Logit of row l, and its key */
float logit(uint l, out uint k) {
    float v = ws.f[push.ws_logits + token * push.ld_logits + l];
    if (push.softcap > 0.0 && order(v) != 0) v = push.softcap * tanh(clamp(v / push.softcap, -15.0, 15.0));
    if (push.ws_noise != VKM_NONE) {
        float noise = ws.f[push.ws_noise + token * push.ld_noise + l];
        if (has(VKM_RULE_NOISE_SCALED)) noise *= softplus(ws.f[push.ws_logits + token * push.ld_logits + push.ld_noise + l]);
        v += noise;
    }
    k = max(order(v), 1u);
    return k == 1 ? 0.0 : clamp(v, -MOST, MOST);
}

bool beats(uint a, uint i, uint b, uint j) { return a > b || (a == b && i < j); }
float value(uint k) { return uintBitsToFloat((k & 0x80000000u) != 0 ? k & 0x7fffffffu : ~k); }

/* Logits become scores, those of NaN 0. Gives out what others need of them. */
void scores() {
    float highest = -MOST, sum = 0.0;
    for (uint e = lane; e < push.n_expert; e += lanes) {
        float z = logit(e, key[e]);
        if (key[e] != 1) highest = max(highest, z);
        score[e] = z;
    }
    highest = workgroup_max(highest);
    for (uint e = lane; e < push.n_expert; e += lanes) if (key[e] != 1) sum += exp(score[e] - highest);
    sum = workgroup_sum(sum);
    if (lane == 0 && push.ws_lse != VKM_NONE) ws.f[push.ws_lse + token] = sum > 0.0 ? highest + log(sum) : 0.0;
    float total = 0.0;
    for (uint e = lane; e < push.n_expert; e += lanes) {
        float z = score[e], s = z;
        if (kind == VKM_RULE_SIGMOID) s = 1.0 / (1.0 + exp(-z));
        else if (kind == VKM_RULE_SQRT_SOFTPLUS) s = sqrt(softplus(z));
        else if (kind == VKM_RULE_SOFTMAX || (has(VKM_RULE_NORMALISED) && kind != VKM_RULE_UNIFORM)) s = exp(z - highest) / sum;
        score[e] = s = key[e] == 1 ? 0.0 : s;
        total += s;
    }
    if (push.ws_probs == VKM_NONE) return;
    total = has(VKM_RULE_NORMALISED) ? workgroup_sum(total) : 1.0;
    for (uint e = lane; e < push.n_expert; e += lanes)
        ws.f[push.ws_probs + token * push.n_expert + e] = key[e] != 1 ? score[e] / max(total, 1e-37) : has(VKM_RULE_NORMALISED) ? 0.0 : uintBitsToFloat(0x7fc00000u);
}

/* Only experts of the best groups are looked at from here on. */
void limit_groups() {
    uint each = push.n_expert / push.n_groups;
    for (uint g = lane; g < push.n_groups; g += lanes) {
        uint first = 0, second = 0;
        for (uint e = g * each; e < (g + 1) * each; e++) {
            uint k = key[e];
            if (k > first) { second = first; first = k; } else second = max(second, k);
        }
        if (has(VKM_RULE_SUM_OF_TWO) && first > 1 && each > 1) first = max(order(clamp(value(first) + (second > 1 ? value(second) : -MOST), -MOST, MOST)), 2u);
        group_key[g] = first;
    }
    sync();
    for (uint g = lane; g < push.n_groups; g += lanes) {
        uint before = 0;
        for (uint o = 0; o < push.n_groups; o++) before += uint(beats(group_key[o], o, group_key[g], g));
        group_place[g] = before;
    }
    sync();
    for (uint e = lane; e < push.n_expert; e += lanes) if (group_place[e / each] >= push.groups_used) key[e] = 0;
    sync();
}

void choose_top() {
    if (push.tab_bias != VKM_NONE || has(VKM_RULE_SUM_OF_TWO))
        for (uint e = lane; e < push.n_expert; e += lanes)
            if (key[e] != 1) key[e] = max(order(clamp(score[e] + (push.tab_bias != VKM_NONE ? tablesf.f[push.tab_bias + e] : 0.0), -MOST, MOST)), 1u);
    sync();
    if (push.n_groups > 1) limit_groups();
    for (uint e = lane; e < push.n_expert; e += lanes) {
        uint mine = key[e], before = 0;
        for (uint o = 0; o < push.n_expert; o++) before += uint(beats(key[o], o, mine, e));
        place[e] = before;
        if (before < push.n_used) { chosen_id[before] = e; chosen[before] = score[e]; }
    }
    sync();
}

/* Ids that are given: by a table, or by the caller */
void choose_given() {
    uint row = token * push.n_used, source = select == VKM_RULE_FORCED ? 0 : wsu.u[push.ws_given + token];
    bool none = select == VKM_RULE_HASH && source >= push.n_table;
    for (uint j = lane; j < push.n_used; j += lanes) chosen_id[j] = none ? VKM_NONE : select == VKM_RULE_FORCED ? wsu.u[push.ws_given + row + j] : tables.u[push.tab_hash + source * push.n_used + j];
    sync();
    for (uint j = lane; j < push.n_used; j += lanes) {
        bool bad = chosen_id[j] >= push.n_expert;
        for (uint o = 0; o < j; o++) bad = bad || chosen_id[o] == chosen_id[j];
        place[j] = bad ? VKM_NONE : chosen_id[j];       /* not in chosen_id, which other lanes still look at. k <= EXPERTS */
    }
    sync();
    for (uint j = lane; j < push.n_used; j += lanes) {
        uint id = chosen_id[j] = place[j];
        chosen[j] = id == VKM_NONE ? 0.0 : kind == VKM_RULE_UNIFORM ? 1.0 : score[id];
    }
    sync();
}

/* Groups by their logits, then the experts in each */
void choose_hierarchical() {
    uint each = push.n_expert / push.n_groups, used = push.n_used / push.groups_used;
    bool all = kind == VKM_RULE_SOFTMAX;
    for (uint g = lane; g < push.n_groups; g += lanes) group_score[g] = logit(push.n_expert + g, group_key[g]);
    for (uint e = lane; e < push.n_expert; e += lanes) score[e] = logit(e, key[e]);
    sync();
    float highest = -MOST, sum = 0.0;
    for (uint g = lane; g < push.n_groups; g += lanes) {
        uint before = 0;
        for (uint o = 0; o < push.n_groups; o++) before += uint(beats(group_key[o], o, group_key[g], g));
        group_place[g] = before;
        if (group_key[g] != 1) highest = max(highest, group_score[g]);
    }
    for (uint e = lane; e < push.n_expert; e += lanes) {
        uint before = 0, g = e / each;
        for (uint o = g * each; o < (g + 1) * each; o++) before += uint(beats(key[o], o, key[e], e));
        place[e] = before;
    }
    highest = workgroup_max(highest);
    for (uint g = lane; g < push.n_groups; g += lanes) if (group_key[g] != 1 && (all || group_place[g] < push.groups_used)) sum += exp(group_score[g] - highest);
    sum = workgroup_sum(sum);
    sync();
    for (uint g = lane; g < push.n_groups; g += lanes) {
        float top = -MOST, of_group = 0.0;
        for (uint e = g * each; e < (g + 1) * each; e++) if (key[e] != 1) top = max(top, score[e]);
        for (uint e = g * each; e < (g + 1) * each; e++) if (key[e] != 1 && (all || place[e] < used)) of_group += exp(score[e] - top);
        group_score[g] = group_key[g] == 1 || of_group == 0.0 ? 0.0 : exp(group_score[g] - highest) / sum / of_group;
        group_key[g] = floatBitsToUint(top);
    }
    sync();
    for (uint e = lane; e < push.n_expert; e += lanes) {
        uint g = e / each;
        if (group_place[g] >= push.groups_used || place[e] >= used) continue;
        uint j = group_place[g] * used + place[e];
        chosen_id[j] = e;
        chosen[j] = key[e] == 1 ? 0.0 : group_score[g] * exp(score[e] - uintBitsToFloat(group_key[g]));
    }
    sync();
}

/* softmax over the chosen; NaN has no part in it */
void soften_chosen() {
    float top = -MOST, sum = 0.0;
    for (uint j = 0; j < push.n_used; j++) if (chosen_id[j] != VKM_NONE && key[chosen_id[j]] != 1) top = max(top, chosen[j]);
    for (uint j = 0; j < push.n_used; j++) if (chosen_id[j] != VKM_NONE && key[chosen_id[j]] != 1) sum += exp(chosen[j] - top);
    sync();
    for (uint j = lane; j < push.n_used; j += lanes) chosen[j] = chosen_id[j] != VKM_NONE && key[chosen_id[j]] != 1 ? exp(chosen[j] - top) / sum : 0.0;
    sync();
}

/* Each choice among those near its logit that were not chosen before it */
void sparsemixer() {
    for (uint j = 0; j < push.n_used; j++) {
        float m = score[chosen_id[j]], sum = 0.0;
        bool number = key[chosen_id[j]] != 1;
        for (uint e = lane; e < push.n_expert; e += lanes)
            if (key[e] != 1 && place[e] >= j && m - score[e] <= 2.0 * push.jitter * max(abs(score[e]), m)) sum += exp(score[e] - m);
        sum = workgroup_sum(sum);
        if (lane == 0) chosen[j] = number ? 1.0 / sum : 0.0;
    }
    sync();
}

void main() {
    uint n_used = min(push.n_used, 32u);
    if (kind == VKM_RULE_UNIFORM) { for (uint e = lane; e < push.n_expert; e += lanes) key[e] = 2; }
    else if (select != VKM_RULE_HIERARCHICAL || push.ws_ids == VKM_NONE) scores();
    sync();
    if (lane == 0 && push.ws_gate != VKM_NONE) ws.f[push.ws_gate + token] = 1.0 / (1.0 + exp(-ws.f[push.ws_logits + token * push.ld_logits + push.gate_row]));
    if (push.ws_ids == VKM_NONE) return;
    if (select == VKM_RULE_HIERARCHICAL) choose_hierarchical();
    else if (select == VKM_RULE_HASH || select == VKM_RULE_FORCED) choose_given();
    else choose_top();
    if (kind == VKM_RULE_SELECTED && select != VKM_RULE_HIERARCHICAL) soften_chosen();
    if (kind == VKM_RULE_SPARSEMIXER) sparsemixer();

    float sum = 0.0, largest = -MOST, divide = 1.0;
    for (uint j = 0; j < n_used; j++) { sum += chosen[j]; largest = max(largest, chosen[j]); }
    if (has(VKM_RULE_RENORMALISE)) divide = max(sum, push.sum_min) + push.sum_add;
    if (lane == 0 && push.ws_priority != VKM_NONE) ws.f[push.ws_priority + token] = largest;
    bool no_second = push.ws_seed != VKM_NONE && !(uniform01(wsu.u[push.ws_seed], token) < 2.0 * chosen[min(1, n_used - 1)] / divide);
    for (uint j = lane; j < n_used; j += lanes) {
        uint id = no_second && j == 1 ? VKM_NONE : chosen_id[j];
        float w = chosen[j] / divide;
        if (!has(VKM_RULE_DEFER) && id != VKM_NONE) w *= push.tab_scale != VKM_NONE ? push.scale * tablesf.f[push.tab_scale + id] : push.scale;
        if (push.ws_given_weight != VKM_NONE) w = ws.f[push.ws_given_weight + token * n_used + j];
        wsu.u[push.ws_ids + token * n_used + j] = id;
        ws.f[push.ws_weight + token * n_used + j] = id == VKM_NONE ? 0.0 : w;
    }
}
