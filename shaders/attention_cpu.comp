#version 450
/* attention.comp for CPU drivers with caps.scalar_loads: the same sums, without shared memory and barriers. A workgroup is one subgroup and owns NQ rows; 32 keys a round. Lanes own
 * keys for the scores and the softmax (each lane adds up its own keys' weights; the lanes' sums meet at the end), then words of the values; a key's weight goes from its lane to all
 * by a broadcast from a constant lane. 512 tokens of 16 heads took 83 ms a core for attention.comp's 200; an
 * estimate of 18,000 instructions for 8 rows, 32 keys and 64 dimensions says 15 ms. Of the rest a part is that values that a loop carries are blended by its mask and stored in each
 * iteration: four steps an iteration instead of one take a quarter less. Unrolling the loop over keys too gains nothing. Same tiles as attention.comp. */
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_attention push; };
#include "kv.glsl"
layout(constant_id = 4) const uint NQ = 8;
layout(constant_id = 5) const uint HEAD = 64;
layout(constant_id = 6) const uint KV16 = 1;
layout(constant_id = 7) const uint KPL = 4;        /* keys of a lane: 32 / LANES */
layout(constant_id = 8) const uint WPL = 4;        /* words of a value that a lane owns: WORDS / LANES, whole */

const uint LANES = 32 / KPL;
#include "scalar.glsl"

const uint WORDS = KV16 != 0 ? HEAD / 2 : HEAD;    /* of a token of a kv head */
const uint STEPS = HEAD % 16 == 0 ? 4 : HEAD % 8 == 0 ? 2 : 1;   /* fours of dimensions an iteration: a loop keeps the sums in memory, and a lane's that has left it */

uvec2 q_row[NQ];                                   /* addresses of the rows' queries */
float s[NQ * KPL];                                 /* scores, then weights, of this lane's keys */
vec2 out_[NQ * WPL];                               /* sums of this lane's words of the values (one dimension a word in f32) */

/* four dimensions' products of all rows with the round's keys; keys: their words, vec4 d of the queries */
void scores(uvec2 keys, uint d) {
    Words k = Words(keys);
    vec4 key[KPL];
    [[unroll]] for (int j = 0; j < int(KPL); j++)
        key[j] = KV16 != 0 ? vec4(unpackHalf2x16(word(k, 0, j)), unpackHalf2x16(word(k, 8, j)))
                           : uintBitsToFloat(uvec4(word(k, 0, j), word(k, 8, j), word(k, 16, j), word(k, 24, j)));
    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        vec4 a = Floats(q_row[r]).f[d];
        [[unroll]] for (int j = 0; j < int(KPL); j++) {
            float t = s[r * KPL + j];
            t += a.x * key[j].x; t += a.y * key[j].y; t += a.z * key[j].z; t += a.w * key[j].w;
            s[r * KPL + j] = t;
        }
    }
}

/* adds a key's value; its weight is s[r * KPL] of lane l */
#define ADD(l) if (LANES > l) {                                                                                     \
    Words v = Words(ahead(values, l * (WORDS / 4)));                                                                \
    vec2 value[WPL];                                                                                                \
    [[unroll]] for (int i = 0; i < int(WPL); i++) { uint w = word(v, 0, i); value[i] = KV16 != 0 ? unpackHalf2x16(w) : vec2(uintBitsToFloat(w), 0.0); } \
    [[unroll]] for (int r = 0; r < int(NQ); r++) {                                                                  \
        float p = subgroupBroadcast(s[r * KPL], l);                                                                 \
        [[unroll]] for (int i = 0; i < int(WPL); i++) out_[r * WPL + i] += p * value[i];                            \
    } }

/* the values of LANES keys */
void add_values(uvec2 values) { ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7) ADD(8) ADD(9) ADD(10) ADD(11) ADD(12) ADD(13) ADD(14) ADD(15) }

/* the address of a kv head's first word in a unit of the cache */
uvec2 head_address(uint unit, uint head_kv) {
    uint slab, at = kv_unit(unit, slab) + head_kv * push.n_ctx * WORDS;
    return ahead(uvec2(tables.u[push.tab_kv + 2 * slab], tables.u[push.tab_kv + 2 * slab + 1]), at / 4);
}

void main() {
    uint lane = gl_SubgroupInvocationID;
    uint head_kv = gl_WorkGroupID.y, group = push.n_head / push.n_head_kv;
    uint begin = gl_WorkGroupID.x / push.tiles * push.rows, end = begin + push.rows;
    uint first = begin + gl_WorkGroupID.x % push.tiles * NQ, sequence = wsu.u[push.ws_seq + first / group];
    uvec2 keys = head_address(push.k_unit + sequence, head_kv), values = head_address(push.v_unit + sequence, head_kv);

    uint pos[NQ], last = 0;
    float highest[NQ], sum[NQ];
    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        uint row = min(first + r, end - 1), t = row / group;
        q_row[r] = ahead(uvec2(push.ws_address[0], push.ws_address[1]), (push.ws_q + t * push.ld_q + (head_kv * group + row % group) * HEAD) / 4);
        pos[r] = min(wsu.u[push.ws_pos + t], push.n_ctx - 1);
        last = max(last, pos[r]);
        highest[r] = -3.0e38;
        sum[r] = 0.0;
    }
    [[unroll]] for (int i = 0; i < int(NQ * WPL); i++) out_[i] = vec2(0.0);

    uint round = 0;
    [[dont_unroll]] do {
        [[unroll]] for (int i = 0; i < int(NQ * KPL); i++) s[i] = 0.0;
        uint d = 0;
        [[dont_unroll]] do {
            [[unroll]] for (uint i = 0; i < STEPS; i++) scores(ahead(keys, (round * WORDS + (d + i) * (WORDS * 4 / HEAD)) * 8), d + i);
            d += STEPS;
        } while (d < HEAD / 4);
        [[unroll]] for (int r = 0; r < int(NQ); r++) {
            float m = highest[r];
            [[unroll]] for (int j = 0; j < int(KPL); j++) {
                float t = round * 32 + j * LANES + lane <= pos[r] ? s[r * KPL + j] * push.scale : -3.0e38;
                s[r * KPL + j] = t;
                m = max(m, t);
            }
            m = subgroupMax(m);
            float keep = exp(highest[r] - m), add = 0.0;
            [[unroll]] for (int j = 0; j < int(KPL); j++) {
                float t = s[r * KPL + j], e = t > -2.9e38 ? exp(t - m) : 0.0;
                s[r * KPL + j] = e;
                add += e;
            }
            sum[r] = sum[r] * keep + add;
            highest[r] = m;
            [[unroll]] for (int i = 0; i < int(WPL); i++) out_[r * WPL + i] *= keep;
        }
        uint j = 0;
        [[dont_unroll]] do {
            add_values(ahead(values, (round * 32 + j * LANES) * (WORDS / 4)));
            [[unroll]] for (int r = 0; r < int(NQ); r++)
                [[unroll]] for (int i = 0; i + 1 < int(KPL); i++) s[r * KPL + i] = s[r * KPL + i + 1];
            j++;
        } while (j < KPL);
        round++;
    } while (round <= last / 32);

    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        uint row = first + r;
        float inv = 1.0 / subgroupAdd(sum[r]);
        uint to = push.ws_out + row / group * push.ld_out;
        uint at = to + (head_kv * group + row % group) * HEAD;
        if (row < end) {
            [[unroll]] for (int i = 0; i < int(WPL); i++) {
                uint w = lane + i * LANES;
                if (KV16 != 0) { ws.f[at + 2 * w] = out_[r * WPL + i].x * inv; ws.f[at + 2 * w + 1] = out_[r * WPL + i].y * inv; }
                else ws.f[at + w] = out_[r * WPL + i].x * inv;
            }
            /* the row's padding, which the next matmul reads */
            if (head_kv * group + row % group == push.n_head - 1)
                for (uint i = push.n_head * HEAD + lane; i < push.ld_out; i += LANES) ws.f[to + i] = 0.0;
        }
    }
}
