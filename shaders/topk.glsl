/* What moe_topk and moe_route share: the k best experts of a token, and sorting the slots of few tokens. TOPK: the push constants, vkm_push_moe_topk.
 * An expert's place is the number of experts that beat it, ties going to the lower index, so there is no loop over choices and no barrier between them.
 * Comparison is on integer keys in which NaN is lowest: no logit can make an index out of range, and infinite ones count as the largest finite number.
 * Rules: Mixtral, OLMoE, Qwen-MoE, Granite (softmax over all with or without renormalisation; softmax over the selected); by constants that cost the others nothing also DeepSeek-V2 and V3, GLM-4.5, ERNIE-4.5,
 * LFM2 (sigmoid, selection bias, groups). Reference: tests/reference/model.c, router.c */
#include "order.glsl"
#define CUT TOPK
#include "tiles.glsl"
layout(constant_id = 5) const uint EXPERTS = 8;
layout(constant_id = 10) const uint SIGMOID = 0;
layout(constant_id = 11) const uint BIAS = 0;          /* TOPK.tab_bias decides, too */
layout(constant_id = 12) const uint GROUPS = 1;
layout(constant_id = 13) const uint GROUPS_USED = 1;
layout(constant_id = 14) const uint SUM_OF_TWO = 0;    /* else a group is as good as its best */

#ifndef KEYS_AT_ONCE
#  define KEYS_AT_ONCE 4             /* times four: divides KEYS4. Also quads of logits, in add_parts */
#endif
#ifndef ONE_TOKEN
#  define ONE_TOKEN (TOPK.few == 1)
#endif
#ifndef SLOTS
#  define SLOTS (VKM_FEW_ROWS * 32)   /* of a workgroup */
#endif
#ifndef LOGIT_PARTS
#  define LOGIT_PARTS 1              /* of moe_logits, to be added up */
#endif
const bool BY_SCORE = BIAS != 0 || SUM_OF_TWO != 0;    /* else by logits: the same order, and nothing is tied by saturation */
const bool KEY_IS_LOGIT = !BY_SCORE && GROUPS == 1;
const uint LEAST = 0x00800000u, MOST = 0xff7fffffu;    /* keys of the finite numbers with the largest sizes */
const uint KEYS4 = (EXPERTS + 15) / 16 * 4;
shared uvec4 keys[KEYS4];             /* what is behind the last expert's is 0 and beats nobody */
#define key(e) keys[(e) / 4][(e) % 4]
shared uint group_key[GROUPS], group_place[GROUPS];
shared float chosen[32];
shared uint chosen_id[SLOTS];         /* by slot of this workgroup */
shared uint tile_counts[SLOTS];       /* by slot: how many tiles of each class its expert has, where it is that expert's first; else 0. Six bits for the class of one row, five for the others (of the last there is no more than one) */
#define COUNT_AT(c) ((c) == 0 ? 0 : 5 * (c) + 1)
#define COUNT_OF(counts, c) ((counts) >> COUNT_AT(c) & ((c) == 0 ? 63u : 31u))

float value(uint k) { return uintBitsToFloat((k & 0x80000000u) != 0 ? k & 0x7fffffffu : ~k); }

/* Of row e of the router */
float logit(uint logits, uint e) {
    float sum = ws.f[logits + e];
    if (LOGIT_PARTS == 1) return sum;          /* a loop of no rounds is compiled all the same */
    for (uint first = 1; first < LOGIT_PARTS; first += 8) {
        float part[8];
        [[unroll]] for (int i = 0; i < 8; i++) part[i] = ws.f[logits + min(first + i, LOGIT_PARTS - 1) * TOPK.ld_logits + e];
        [[unroll]] for (int i = 0; i < 8; i++) if (first + i < LOGIT_PARTS) sum += part[i];
    }
    return sum;
}

/* The logits of all experts, where they come in parts, which are added up in order. They pass through shared memory, for so a lane has few loads, and those of four experts each: one load a
 * part and expert took 5 of 16 us of a router's step with 32 parts on an H200. */
const uint QUADS = (EXPERTS + 3) / 4;
const uint PARTS_AT_ONCE = QUADS > 512 ? 1 : 512 / QUADS < LOGIT_PARTS ? 512 / QUADS : LOGIT_PARTS;
shared vec4 part_of[LOGIT_PARTS == 1 ? 1 : PARTS_AT_ONCE * QUADS], logits_of[LOGIT_PARTS == 1 ? 1 : QUADS];
void add_parts(uint logits) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    for (uint first = 0; first < LOGIT_PARTS; first += PARTS_AT_ONCE) {
        uint some = min(PARTS_AT_ONCE, LOGIT_PARTS - first);
        for (uint i = lane; i < some * QUADS; i += KEYS_AT_ONCE * lanes) {
            vec4 v[KEYS_AT_ONCE];
            [[unroll]] for (uint j = 0; j < KEYS_AT_ONCE; j++) {
                uint at = min(i + j * lanes, some * QUADS - 1);
                v[j] = ws4.f[(logits + (first + at / QUADS) * TOPK.ld_logits) / 4 + at % QUADS];
            }
            [[unroll]] for (uint j = 0; j < KEYS_AT_ONCE; j++) if (i + j * lanes < some * QUADS) part_of[i + j * lanes] = v[j];
        }
        sync();
        for (uint e = lane; e < EXPERTS; e += lanes) {
            float sum = first == 0 ? 0.0 : logits_of[e / 4][e % 4];
            [[dont_unroll]] for (uint part = 0; part < some; part += 8)      /* Intel's compiler would fetch all at once, and spill */
                [[unroll]] for (uint j = 0; j < 8; j++) if (part + j < some) sum += part_of[(part + j) * QUADS + e / 4][e % 4];
            logits_of[e / 4][e % 4] = sum;
        }
        sync();
    }
}
float expert_logit(uint logits, uint e) { return LOGIT_PARTS == 1 ? ws.f[logits + e] : logits_of[e / 4][e % 4]; }

/* What an expert's weight is made of: to be divided by `sum` of all for softmax. */
float score(float z, float highest) { return SIGMOID != 0 ? 1.0 / (1.0 + exp(-z)) : exp(z - highest); }

/* Keys become those of what decides: NaN 1, and 0 for experts of other groups than the best. */
void decide(float highest, float sum) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, each = EXPERTS / GROUPS;
    for (uint e = lane; e < EXPERTS; e += lanes) {
        if (key(e) == 0) key(e) = 1;
        else if (BY_SCORE) key(e) = clamp(order(score(value(key(e)), highest) / sum + (BIAS != 0 ? tablesf.f[TOPK.tab_bias + e] : 0.0)), LEAST, MOST);
    }
    sync();
    if (GROUPS == 1) return;
    for (uint g = lane; g < GROUPS; g += lanes) {
        uint first = 0, second = 0;
        for (uint e = g * each; e < (g + 1) * each; e++) {
            uint k = key(e);
            if (k > first) { second = first; first = k; } else second = max(second, k);
        }
        if (SUM_OF_TWO != 0 && first > 1 && each > 1) first = clamp(order(value(first) + (second > 1 ? value(second) : value(LEAST))), LEAST, MOST);
        group_key[g] = first;
    }
    sync();
    for (uint g = lane; g < GROUPS; g += lanes) {
        uint before = 0;
        for (uint o = 0; o < GROUPS; o++) before += uint(group_key[o] > group_key[g] || (group_key[o] == group_key[g] && o < g));
        group_place[g] = before;
    }
    sync();
    for (uint e = lane; e < EXPERTS; e += lanes) if (group_place[e / each] >= GROUPS_USED) key(e) = 0;
    sync();
}

/* Token t, whose slots begin at `slot` of this workgroup's. */
void route(uint t, uint slot, uint n_used) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint logits = TOPK.ws_logits + t * TOPK.ld_logits * LOGIT_PARTS;
    float highest = value(LEAST), sum = 0.0;
    if (LOGIT_PARTS != 1) add_parts(logits);
    for (uint e = EXPERTS + lane; e < KEYS4 * 4; e += lanes) key(e) = 0;
    for (uint e = lane; e < EXPERTS; e += lanes) {
        uint k = order(expert_logit(logits, e));
        key(e) = k = k != 0 ? clamp(k, LEAST, MOST) : 0;
        if (k != 0) highest = max(highest, value(k));
    }
    for (uint j = lane; j < n_used; j += lanes) { chosen[j] = 0.0; chosen_id[slot + j] = 0; }
    highest = workgroup_max(highest);
    for (uint e = lane; e < EXPERTS; e += lanes) if (key(e) != 0) sum += exp(value(key(e)) - highest);
    sum = SIGMOID != 0 ? 1.0 : max(workgroup_sum(sum), 1e-30);      /* 1 or more but where all are NaN. Its barriers also publish key[] */
    sync();
    if (!KEY_IS_LOGIT) decide(highest, sum);
    for (uint e = lane; e < EXPERTS; e += lanes) {
        uint mine = key(e), place = 0;
        [[dont_unroll]] for (uint i = 0; i < KEYS4; i += KEYS_AT_ONCE)       /* four loads at a time. Unrolled, keys of 128 experts spilled 238 registers on Intel of the ninth generation */
            [[unroll]] for (uint j = 0; j < KEYS_AT_ONCE; j++) {
                uvec4 k = keys[i + j];
                uint least = mine + uint(i + j >= e / 4);    /* that beats it: from there on a larger key, before it an equal one does, too */
                place += uint(k.x >= least) + uint(k.y >= least) + uint(k.z >= least) + uint(k.w >= least);
            }
        for (uint o = e / 4 * 4; o < e; o++) place += uint(key(o) == mine);
        if (place < n_used) {
            uint z = KEY_IS_LOGIT ? mine : order(expert_logit(logits, e));
            chosen[place] = z != 0 ? score(value(clamp(z, LEAST, MOST)), highest) : 0.0;
            chosen_id[slot + place] = e;
        }
    }
    sync();
    float of_chosen = 0.0;
    for (uint j = 0; j < n_used; j++) of_chosen += chosen[j];
    float divide = sum;
    if (TOPK.score == VKM_SCORE_SELECTED) divide = max(of_chosen, 1e-30);
    else if (TOPK.renormalise != 0) divide = sum * max(of_chosen / sum, 6.103515625e-5);
    for (uint j = lane; j < n_used; j += lanes) {
        wsu.u[TOPK.ws_ids + t * n_used + j] = chosen_id[slot + j];
        ws.f[TOPK.ws_weight + t * n_used + j] = chosen[j] / divide * TOPK.scale;
    }
    if (lane == 0 && TOPK.ws_gate != VKM_NONE) ws.f[TOPK.ws_gate + t] = 1.0 / (1.0 + exp(-logit(logits, EXPERTS)));
}

/* The same as sort of a single token's n slots: an expert has one row. */
void sort_token(uint n) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, c = tile_class(1);
    for (uint s = lane; s < n; s += lanes) {
        uint e = chosen_id[s], less = 0;
        for (uint o = 0; o < n; o++) less += uint(chosen_id[o] < e);
        uint tile = TOPK.ws_tiles + 2 * (c * TOPK.tiles_max + less);
        wsu.u[TOPK.ws_perm + less] = s;
        wsu.u[tile] = e | 1 << 16;
        wsu.u[tile + 1] = less;
    }
    for (uint i = lane; i < VKM_TILE_CLASSES; i += lanes) write_arguments(TOPK.ws_args + i * 6, i, i == c ? n : 0);
}

/* Sorts n slots, stable, and lists the tiles of the experts among them, none of which has more rows than there are tokens. */
void sort(uint n) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    if (ONE_TOKEN) {
        sort_token(n);
        return;
    }
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
            counts += 1u << COUNT_AT(c);
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
            uint c = tile_class(rows), take = min(rows, tile_size(c)), at = COUNT_OF(mine, c);
            for (uint o = 0; o < n; o++) if (chosen_id[o] < e) at += COUNT_OF(tile_counts[o], c);
            uint tile = TOPK.ws_tiles + 2 * (c * TOPK.tiles_max + at);
            wsu.u[tile] = e | take << 16;
            wsu.u[tile + 1] = first;
            mine += 1u << COUNT_AT(c);
            first += take;
            rows -= take;
        }
    }
    for (uint c = lane; c < VKM_TILE_CLASSES; c += lanes) {
        uint tiles = 0;
        for (uint o = 0; o < n; o++) tiles += COUNT_OF(tile_counts[o], c);
        write_arguments(TOPK.ws_args + c * 6, c, tiles);
    }
}

/* n tokens from `first` on, by one workgroup. */
void route_tokens(uint first, uint n, uint n_used) {
    for (uint t = 0; t < n; t++) {
        route(first + t, t * n_used, n_used);
        sync();
    }
}
