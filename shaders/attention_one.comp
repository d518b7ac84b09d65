#version 450
/* attention.comp for few rows, on a GPU that they would not fill: a workgroup for each row (token, query head). The same sums in the same order, and the same operations (fma: a compiler
 * may choose which of two products it fuses with their sum); what differs is that many keys and values are on their way at once, and that lanes own keys for the softmax, too. Not more than AT_ONCE and PAIRS: with
 * loops over the rest that might be unrolled, Intel's compiler spilled 26 to 161 registers for tgl.
 * ROPE: each token is the only one of its sequence, so that workgroups do what rope_store does, too, each for its own query, key and value; the first of a kv head's puts them into the cache.
 * local_size_x is 32, a lane a key; local_size_y parts, more than one (three with ROPE), take every PARTS-th round each. Workgroups: x = rows, y = kv heads.
 * H200, one token behind 64 to 192, 32 heads of 128 dimensions in 4 groups, us with timestamps: 18 by attention.comp and 6 for rope_store; 11.2 here, 12.0 with all keys and values of a round
 * at once, 11.9 with 8 values and 16 pairs; 13.8 with the first round fetched before ROPE. With 128 workgroups more that
 * read the weights of the next two steps into the cache: 13.9 instead of 11.6 here and 9.9 instead of 10.4 there in Q4_K (a token of qwen3-30b 2 % slower), 14.9 instead of 12.5 and 10.2
 * instead of 13.0 in F16 (0.8 % faster): not worth it. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_attention_one push; };
layout(constant_id = 4) const uint HEAD = 64;
layout(constant_id = 5) const uint NEOX = 0;       /* as rope_store */
layout(constant_id = 6) const uint KV16 = 1;
layout(constant_id = 7) const uint DPL = 1;        /* pairs of dimensions of a lane: ceil(HEAD / 64) */
layout(constant_id = 8) const uint PARTS = 1;      /* local_size_y */
layout(constant_id = 9) const uint ROPE = 0;
layout(constant_id = 10) const uint PAIRS = 1;     /* pairs of dimensions of a key that are fetched together, a divisor of HEAD / 2 */
layout(constant_id = 11) const uint AT_ONCE = 8;   /* values that are */
#include "kv.glsl"
const uint LANES = 32, SLOTS = 3;
void sync() { barrier(); }
#include "rope.glsl"

const uint EACH = KV16 != 0 ? 1 : 2;               /* words of a pair of dimensions */
const uint WORDS = HEAD / 2 * EACH;                /* of a token of a kv head */
shared vec2 query[HEAD / 2];
shared uint new_key[WORDS], new_value[WORDS];      /* as in the cache: words, for NVIDIA's compiler leaves out the rounding to f16 where it sees both packing and unpacking */
shared vec4 scores[PARTS * 8], weights[PARTS * 8];
shared float highest_of[PARTS], total[PARTS];
shared vec2 out_of[PARTS * HEAD / 2];

uint k_slab, v_slab;
uint fetched_key[PAIRS * EACH], fetched[AT_ONCE * DPL * EACH];
vec2 out_[DPL];

vec2 two(uint a, uint b) { return KV16 != 0 ? unpackHalf2x16(a) : uintBitsToFloat(uvec2(a, b)); }

/* except: a key whose value another workgroup is writing; that of its neighbour, which then weighs zero in its place */
void fetch_values(uint at, uint lane, uint except) {
    [[unroll]] for (int j = 0; j < int(AT_ONCE); j++)
        [[unroll]] for (int i = 0; i < int(DPL); i++)
            [[unroll]] for (int w = 0; w < int(EACH); w++) fetched[(j * DPL + i) * EACH + w] = kv[v_slab].w[at + (ROPE != 0 && j == except ? j ^ 1 : j) * WORDS + min(lane + i * 32, HEAD / 2 - 1) * EACH + w];
}
vec2 value(uint j, uint i) { uint at = (j * DPL + i) * EACH; return two(fetched[at], fetched[at + EACH - 1]); }

/* query, new_key and new_value; to_key, to_value: where the latter go in the cache */
void make_heads(uint t, uint head, uint pos, uint part, uint lane, bool first, uint to_key, uint to_value) {
    uint head_kv = gl_WorkGroupID.y, lid = part * 32 + lane;
    make_head(part < 3, part, part, part == 0 ? push.ws_q + t * push.ld_q + head * HEAD : (part == 1 ? push.ws_k + t * push.ld_k : push.ws_v + t * push.ld_v) + head_kv * HEAD, pos, lane);
    for (uint i = lid; i < HEAD / 2; i += PARTS * 32) query[i] = vec2(head_v[2 * i], head_v[2 * i + 1]);
    for (uint i = lid; i < WORDS; i += PARTS * 32) {
        uint k = KV16 != 0 ? cached_word(1, i) : floatBitsToUint(head_v[HEAD + i]), v = KV16 != 0 ? cached_word(2, i) : floatBitsToUint(head_v[2 * HEAD + i]);
        new_key[i] = k;
        new_value[i] = v;
        if (first) {
            kv[k_slab].w[to_key + i * 32] = k;
            kv[v_slab].w[to_value + i] = v;
        }
    }
}

void main() {
    uint lane = gl_LocalInvocationID.x, part = gl_LocalInvocationID.y, head_kv = gl_WorkGroupID.y, group = push.n_head / push.n_head_kv;
    uint row = gl_WorkGroupID.x, t = row / group, head = head_kv * group + row % group;
    uint pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1), sequence = wsu.u[push.ws_seq + t], q = push.ws_q + t * push.ld_q + head * HEAD;
    uint keys = kv_unit(push.k_unit + sequence, k_slab) + head_kv * push.n_ctx * WORDS;
    uint values = kv_unit(push.v_unit + sequence, v_slab) + head_kv * push.n_ctx * WORDS;
    if (ROPE != 0) make_heads(t, head, pos, part, lane, row % group == 0, keys + pos / 32 * 32 * WORDS + pos % 32, values + pos * WORDS);
    else for (uint i = part * 32 + lane; i < HEAD / 2; i += PARTS * 32) query[i] = vec2(ws.f[q + 2 * i], ws.f[q + 2 * i + 1]);
    [[unroll]] for (int i = 0; i < int(DPL); i++) out_[i] = vec2(0.0);
    float highest = -3.0e38, sum = 0.0;            /* of this part: in every lane */
    barrier();

    uint rounds = pos / 32 + 1;
    for (uint all = 0; all < rounds; all += PARTS) {
        uint round = all + part, v = values + round * 32 * WORDS, key = round * 32 + lane;
        bool mine = round < rounds, has_new = ROPE != 0 && round == rounds - 1;      /* all parts meet at the barriers */
        float score = 0.0, keep;
        if (mine) {
            uint k = keys + round * 32 * WORDS + (has_new && key == pos ? lane ^ 1 : lane);     /* not where another workgroup is writing */
            [[dont_unroll]] for (uint d = 0; d < HEAD / 2; d += PAIRS) {
                [[unroll]] for (uint e = 0; e < PAIRS; e++)
                    [[unroll]] for (uint w = 0; w < EACH; w++) fetched_key[e * EACH + w] = kv[k_slab].w[k + ((d + e) * EACH + w) * 32];
                [[unroll]] for (uint e = 0; e < PAIRS; e++) {
                    vec2 a = query[d + e], b = two(fetched_key[e * EACH], fetched_key[e * EACH + EACH - 1]);
                    if (has_new) b = mix(b, two(new_key[(d + e) * EACH], new_key[(d + e) * EACH + EACH - 1]), bvec2(key == pos));
                    score = fma(a.y, b.y, fma(a.x, b.x, score));
                }
            }
            precise float scaled = score * push.scale;
            score = key <= pos ? scaled : -3.0e38;
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
        [[dont_unroll]] for (uint first = 0; first < 32; first += AT_ONCE) {
            fetch_values(v + first * WORDS, lane, pos - round * 32 - first);
            [[unroll]] for (uint e = 0; e < AT_ONCE; e += 4) {
                vec4 weight = weights[part * 8 + (first + e) / 4];
                add += weight.x; add += weight.y; add += weight.z; add += weight.w;
                if (has_new) weight = mix(weight, vec4(0.0), equal(uvec4(round * 32 + first + e) + uvec4(0, 1, 2, 3), uvec4(pos)));
                [[unroll]] for (int j = 0; j < 4; j++)
                    [[unroll]] for (int i = 0; i < int(DPL); i++) out_[i] = fma(vec2(weight[j]), value(e + j, i), out_[i]);
            }
        }
        if (has_new)                               /* the last of those that do not weigh zero */
            [[unroll]] for (int i = 0; i < int(DPL); i++) {
                uint pair = min(lane + i * 32, HEAD / 2 - 1) * EACH;
                out_[i] = fma(vec2(weights[part * 8 + pos % 32 / 4][pos % 4]), two(new_value[pair], new_value[pair + EACH - 1]), out_[i]);
            }
        sum = fma(sum, keep, add);
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
            sum_ = fma(by, total[j], sum_);
            o = fma(vec2(by), out_of[j * HEAD / 2 + pair], o);
        }
        ws.f[at + 2 * pair] = o.x / sum_;
        ws.f[at + 2 * pair + 1] = o.y / sum_;
    }
    if (head == push.n_head - 1)                   /* the row's padding, which the next matmul reads */
        for (uint i = push.n_head * HEAD + part * 32 + lane; i < push.ld_out; i += PARTS * 32) ws.f[push.ws_out + t * push.ld_out + i] = 0.0;
}
