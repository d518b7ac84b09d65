#version 450
/* attention.comp for few rows, on a GPU that they would not fill: a workgroup for each row (token, query head). The same sums in the same order; what differs is that all keys and values
 * of a round are on their way at once, and that lanes own keys for the softmax, too: with one row there is nothing else to hide the waiting behind.
 * local_size_x is 32, a lane a key; local_size_y parts, more than one, take every PARTS-th round each. Workgroups: x = rows (segments have as many tiles as rows), y = kv heads. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_attention push; };
#include "kv.glsl"
layout(constant_id = 4) const uint HEAD = 64;
layout(constant_id = 5) const uint KV16 = 1;
layout(constant_id = 6) const uint DPL = 1;        /* pairs of dimensions of a lane: ceil(HEAD / 64) */
layout(constant_id = 7) const uint PARTS = 1;      /* local_size_y */

const uint WORDS = KV16 != 0 ? HEAD / 2 : HEAD;    /* of a token of a kv head */
const uint AT_ONCE = DPL > 2 ? 8 : 32;             /* values of a round that are fetched together */
const uint PAIRS = HEAD % 64 == 0 ? 32 : 1;        /* pairs of dimensions of a key that are */
shared vec2 query[HEAD / 2];
shared vec4 scores[PARTS * 8], weights[PARTS * 8];
shared float highest_of[PARTS], total[PARTS];
shared vec2 out_of[PARTS * HEAD / 2];

uint k_slab, v_slab;
vec2 key_at(uint k, uint d) { return KV16 != 0 ? unpackHalf2x16(kv[k_slab].w[k + d * 32]) : uintBitsToFloat(uvec2(kv[k_slab].w[k + 2 * d * 32], kv[k_slab].w[k + (2 * d + 1) * 32])); }

const uint EACH = KV16 != 0 ? 1 : 2;               /* words of a pair of dimensions */
uint fetched[AT_ONCE * DPL * EACH];
vec2 out_[DPL];

void fetch_values(uint at, uint lane) {
    [[unroll]] for (int j = 0; j < int(AT_ONCE); j++)
        [[unroll]] for (int i = 0; i < int(DPL); i++)
            [[unroll]] for (int w = 0; w < int(EACH); w++) fetched[(j * DPL + i) * EACH + w] = kv[v_slab].w[at + j * WORDS + min(lane + i * 32, HEAD / 2 - 1) * EACH + w];
}
vec2 value(uint j, uint i) { uint at = (j * DPL + i) * EACH; return KV16 != 0 ? unpackHalf2x16(fetched[at]) : uintBitsToFloat(uvec2(fetched[at], fetched[at + EACH - 1])); }

void main() {
    uint lane = gl_LocalInvocationID.x, part = gl_LocalInvocationID.y, head_kv = gl_WorkGroupID.y, group = push.n_head / push.n_head_kv;
    uint row = gl_WorkGroupID.x, t = row / group, head = head_kv * group + row % group;
    uint pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1), sequence = wsu.u[push.ws_seq + t], q = push.ws_q + t * push.ld_q + head * HEAD;
    uint keys = kv_unit(push.k_unit + sequence, k_slab) + head_kv * push.n_ctx * WORDS + lane;
    uint values = kv_unit(push.v_unit + sequence, v_slab) + head_kv * push.n_ctx * WORDS;
    for (uint i = part * 32 + lane; i < HEAD / 2; i += PARTS * 32) query[i] = vec2(ws.f[q + 2 * i], ws.f[q + 2 * i + 1]);
    [[unroll]] for (int i = 0; i < int(DPL); i++) out_[i] = vec2(0.0);
    float highest = -3.0e38, sum = 0.0;            /* of this part: in every lane */
    barrier();

    uint rounds = pos / 32 + 1;
    for (uint all = 0; all < rounds; all += PARTS) {
        uint round = all + part, v = values + round * 32 * WORDS;
        bool mine = round < rounds;                /* all parts meet at the barriers */
        float score = 0.0, keep;
        if (mine) {
            if (AT_ONCE == 32) fetch_values(v, lane);
            uint k = keys + round * 32 * WORDS;
            for (uint d = 0; d < HEAD / 2; d += PAIRS)
                [[unroll]] for (uint e = 0; e < PAIRS; e++) {
                    vec2 a = query[d + e], key = key_at(k, d + e);
                    score += a.x * key.x; score += a.y * key.y;
                }
            score = round * 32 + lane <= pos ? score * push.scale : -3.0e38;
            scores[part * 8 + lane / 4][lane % 4] = score;
        }
        barrier();
        if (mine) {
            float m = highest;
            [[unroll]] for (uint i = 0; i < 8; i++) { vec4 s = scores[part * 8 + i]; m = max(max(m, max(s.x, s.y)), max(s.z, s.w)); }
            keep = exp(highest - m);
            highest = m;
            weights[part * 8 + lane / 4][lane % 4] = score < -2.9e38 ? 0.0 : exp(score - m);
        }
        barrier();
        if (!mine) continue;
        float add = 0.0;
        [[unroll]] for (int i = 0; i < int(DPL); i++) out_[i] *= keep;
        for (uint first = 0; first < 32; first += AT_ONCE) {
            if (AT_ONCE < 32) fetch_values(v + first * WORDS, lane);
            [[unroll]] for (uint e = 0; e < AT_ONCE; e += 4) {
                vec4 weight = weights[part * 8 + (first + e) / 4];
                add += weight.x; add += weight.y; add += weight.z; add += weight.w;
                [[unroll]] for (int j = 0; j < 4; j++)
                    [[unroll]] for (int i = 0; i < int(DPL); i++) out_[i] += weight[j] * value(e + j, i);
            }
        }
        sum = sum * keep + add;
    }
    if (lane == 0) { highest_of[part] = highest; total[part] = sum; }
    [[unroll]] for (int i = 0; i < int(DPL); i++)
        if (lane + i * 32 < HEAD / 2) out_of[part * HEAD / 2 + lane + i * 32] = out_[i];
    barrier();
    uint at = push.ws_out + t * push.ld_out + head * HEAD, used = min(rounds, PARTS);
    for (uint pair = part * 32 + lane; pair < HEAD / 2; pair += PARTS * 32) {
        float most = highest_of[0], sum_ = 0.0;
        vec2 o = vec2(0.0);
        for (uint j = 1; j < used; j++) most = max(most, highest_of[j]);
        for (uint j = 0; j < used; j++) {
            float by = exp(highest_of[j] - most);
            sum_ += by * total[j];
            o += by * out_of[j * HEAD / 2 + pair];
        }
        ws.f[at + 2 * pair] = o.x / sum_;
        ws.f[at + 2 * pair + 1] = o.y / sum_;
    }
    if (head == push.n_head - 1)                   /* the row's padding, which the next matmul reads */
        for (uint i = push.n_head * HEAD + part * 32 + lane; i < push.ld_out; i += PARTS * 32) ws.f[push.ws_out + t * push.ld_out + i] = 0.0;
}
