/* What moe_topk and moe_route share: the k best experts of a token, and sorting the slots of few tokens. TOPK: the push constants, vkm_push_moe_topk.
 * An expert's place is the number of experts that beat it, ties going to the lower index, so there is no loop over choices and no barrier between them.
 * Comparison is on integer keys in which NaN is lowest: no logit can make an index out of range.
 * Rules: Mixtral, OLMoE, Qwen-MoE, Granite (softmax over all with or without renormalisation; softmax over the selected). Reference: tests/reference/model.c */
#include "order.glsl"
#define CUT TOPK
#include "tiles.glsl"
layout(constant_id = 5) const uint EXPERTS = 8;

#ifndef LOGIT_PARTS
#  define LOGIT_PARTS 1              /* of moe_logits, to be added up */
#endif
shared uint key[EXPERTS];
shared float chosen[32];
shared uint chosen_id[VKM_FEW_ROWS * 32];     /* by slot of this workgroup */
shared uint tile_counts[VKM_FEW_ROWS * 32];   /* by slot: how many tiles of each class its expert has, four bits a class, where it is that expert's first; else 0 */

float value(uint k) { return uintBitsToFloat((k & 0x80000000u) != 0 ? k & 0x7fffffffu : ~k); }

/* Of row e of the router: its parts are added in order, their loads issued together. */
float logit(uint logits, uint e) {
    float sum = ws.f[logits + e];
    for (uint first = 1; first < LOGIT_PARTS; first += 16) {
        float part[16];
        [[unroll]] for (int i = 0; i < 16; i++) part[i] = ws.f[logits + min(first + i, LOGIT_PARTS - 1) * TOPK.ld_logits + e];
        [[unroll]] for (int i = 0; i < 16; i++) if (first + i < LOGIT_PARTS) sum += part[i];
    }
    return sum;
}

/* Token t, whose slots begin at `slot` of this workgroup's. */
void route(uint t, uint slot, uint n_used) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint logits = TOPK.ws_logits + t * TOPK.ld_logits * LOGIT_PARTS;
    float highest = -3.0e38, sum = 0.0;
    for (uint e = lane; e < EXPERTS; e += lanes) {
        float v = logit(logits, e);
        key[e] = order(v);
        if (key[e] != 0) highest = max(highest, v);
    }
    for (uint j = lane; j < n_used; j += lanes) { chosen[j] = 0.0; chosen_id[slot + j] = 0; }
    highest = workgroup_max(highest);
    for (uint e = lane; e < EXPERTS; e += lanes) if (key[e] != 0) sum += exp(value(key[e]) - highest);
    sum = workgroup_sum(sum);               /* its barriers also publish key[] */
    sync();
    for (uint e = lane; e < EXPERTS; e += lanes) {
        uint mine = key[e], place = 0;
        for (uint o = 0; o < EXPERTS; o++) place += uint(key[o] > mine || (key[o] == mine && o < e));
        if (place < n_used) {
            chosen[place] = mine != 0 ? exp(value(mine) - highest) : 0.0;
            chosen_id[slot + place] = e;
        }
    }
    sync();
    float of_chosen = 0.0;
    for (uint j = 0; j < n_used; j++) of_chosen += chosen[j];
    float divide = sum;
    if (TOPK.score == VKM_SCORE_SELECTED) divide = of_chosen;
    else if (TOPK.renormalise != 0) divide = sum * max(of_chosen / sum, 6.103515625e-5);
    for (uint j = lane; j < n_used; j += lanes) {
        wsu.u[TOPK.ws_ids + t * n_used + j] = chosen_id[slot + j];
        ws.f[TOPK.ws_weight + t * n_used + j] = chosen[j] / divide * TOPK.scale;
    }
    if (lane == 0 && TOPK.ws_gate != VKM_NONE) ws.f[TOPK.ws_gate + t] = 1.0 / (1.0 + exp(-logit(logits, EXPERTS)));
}

/* Sorts n slots, stable, and lists the tiles of the experts among them, none of which has more rows than there are tokens. */
void sort(uint n) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    for (uint s = lane; s < n; s += lanes) {
        uint e = chosen_id[s], less = 0, same = 0, before = 0;
        for (uint o = 0; o < n; o++) {
            uint other = chosen_id[o];
            less += uint(other < e);
            same += uint(other == e);
            before += uint(other == e && o < s);
        }
        wsu.u[TOPK.ws_perm + less + before] = s;
        uint counts = 0;
        for (uint left = before == 0 ? same : 0; left > 0;) {
            uint c = tile_class(left);
            counts += 1u << 4 * c;
            left -= min(left, tile_size(c));
        }
        tile_counts[s] = counts;
    }
    sync();
    for (uint s = lane; s < n; s += lanes) {
        if (tile_counts[s] == 0) continue;
        uint e = chosen_id[s], first = 0, rows = 0, mine = 0;
        for (uint o = 0; o < n; o++) { first += uint(chosen_id[o] < e); rows += uint(chosen_id[o] == e); }
        while (rows > 0) {
            uint c = tile_class(rows), take = min(rows, tile_size(c)), at = mine >> 4 * c & 15u;
            for (uint o = 0; o < n; o++) if (chosen_id[o] < e) at += tile_counts[o] >> 4 * c & 15u;
            uint tile = TOPK.ws_tiles + 2 * (c * TOPK.tiles_max + at);
            wsu.u[tile] = e | take << 16;
            wsu.u[tile + 1] = first;
            mine += 1u << 4 * c;
            first += take;
            rows -= take;
        }
    }
    for (uint c = lane; c < VKM_TILE_CLASSES; c += lanes) {
        uint tiles = 0;
        for (uint o = 0; o < n; o++) tiles += tile_counts[o] >> 4 * c & 15u;
        write_arguments(TOPK.ws_args + c * 6, c, tiles);
    }
}

/* All of n tokens, by one workgroup. */
void route_few(uint n, uint n_used) {
    for (uint t = 0; t < n; t++) {
        route(t, t * n_used, n_used);
        sync();
    }
    sort(n * n_used);
}
