#version 450
/* attention.comp for CPU drivers with caps.scalar_loads: the same sums, without shared memory and barriers. A workgroup is one subgroup and owns NQ rows; 32 keys a round. Lanes own
 * keys for the scores and the softmax (each lane adds up its own keys' weights; the lanes' sums meet at the end), then words of the values; a key's weight goes from its lane to all
 * by a broadcast from a constant lane. Four layers of 16 heads of 64 dimensions, 512 tokens (`bench model`, means of turns): 150 ms with the scores of 32 keys at once and
 * products and sums apart, 80 as it is. By steps, each in turns of its own: a word of the values for one row after another, by fma, 137 to 102; eight keys at once, whose sums stay in registers, 113 to 102; their
 * words loaded as vectors (scalar.glsl) 103 to 80. Unrolling the loop over keys gained nothing, once and again; nor, with heads of 128, 16 keys at once for four rows, or eight rows instead of four (66 to 71 and
 * 54 to 78 ms, 68 to 91 as it is). Same tiles as attention.comp. */
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
const uint STEPS = HEAD % 32 == 0 ? 8 : HEAD % 16 == 0 ? 4 : HEAD % 8 == 0 ? 2 : 1;   /* fours of dimensions an iteration: a loop keeps the sums in memory, and a lane's that has left it */

uvec2 q_row[NQ];                                   /* addresses of the rows' queries */
float s[NQ * KPL];                                 /* scores, then weights, of this lane's keys */
const int AT_ONCE = NQ < 4 ? int(KPL) : 1;         /* so many times LANES keys, or few rows' scores would wait for themselves */
float score[NQ * AT_ONCE];
vec2 out_[NQ * WPL];                               /* sums of this lane's words of the values (one dimension a word in f32) */

/* score: of AT_ONCE * LANES keys, whose first words are at device address `keys`, with all rows. As in matmul_cpu.glsl eight rows' sums stay in registers. */
void scores(uvec2 keys) {
    [[unroll]] for (int i = 0; i < int(NQ) * AT_ONCE; i++) score[i] = 0.0;
    uint d = 0;                                    /* in fours of dimensions */
    [[dont_unroll]] do {
        [[unroll]] for (int i = 0; i < int(STEPS); i++) {
            Words k = Words(ahead(keys, (d + i) * (WORDS * 4 / HEAD) * 8));
            vec4 key[AT_ONCE];
            [[unroll]] for (int j = 0; j < AT_ONCE; j++)
                key[j] = KV16 != 0 ? vec4(unpackHalf2x16(word(k, 0, j)), unpackHalf2x16(word(k, 8, j)))
                                   : uintBitsToFloat(uvec4(word(k, 0, j), word(k, 8, j), word(k, 16, j), word(k, 24, j)));
            [[unroll]] for (int r = 0; r < int(NQ); r++) {
                vec4 a = Floats(q_row[r]).f[d + i];
                [[unroll]] for (int j = 0; j < AT_ONCE; j++) {
                    float t = score[r * AT_ONCE + j];
                    score[r * AT_ONCE + j] = fma(a.w, key[j].w, fma(a.z, key[j].z, fma(a.y, key[j].y, fma(a.x, key[j].x, t))));
                }
            }
        }
        d += STEPS;
    } while (d < HEAD / 4);
}

/* adds the values of LANES keys, whose weights are s[r * KPL] of each lane */
#define ADD(l) if (LANES > l) o = fma(vec2(subgroupBroadcast(s[r * KPL], l)), value[l < LANES ? l : 0], o);
void add_values(uvec2 values) {
    [[unroll]] for (int i = 0; i < int(WPL); i++) {
        vec2 value[LANES];
        [[unroll]] for (int l = 0; l < int(LANES); l++) {
            uint w = word(Words(ahead(values, l * (WORDS / 4))), 0, i);
            value[l] = KV16 != 0 ? unpackHalf2x16(w) : vec2(uintBitsToFloat(w), 0.0);
        }
        [[unroll]] for (int r = 0; r < int(NQ); r++) {
            vec2 o = out_[r * WPL + i];
            ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7) ADD(8) ADD(9) ADD(10) ADD(11) ADD(12) ADD(13) ADD(14) ADD(15)
            out_[r * WPL + i] = o;
        }
    }
}

/* the address of a kv head's first word in a unit of the cache */
uvec2 head_address(uint unit, uint head_kv) {
    uint slab, at = kv_unit(unit, slab) + head_kv * push.n_ctx * WORDS;
    return ahead(uvec2(tables.u[push.tab_kv + 2 * slab], tables.u[push.tab_kv + 2 * slab + 1]), at / 4);
}

void main() {
    know_lane();
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
        uint part = 0;
        [[dont_unroll]] do {
            scores(ahead(keys, round * WORDS * 8 + part * (LANES / 4)));
            [[unroll]] for (int r = 0; r < int(NQ); r++)
                [[unroll]] for (int j = 0; j < int(KPL); j++)
                    if (AT_ONCE > 1 || j == part) s[r * KPL + j] = score[r * AT_ONCE + j % AT_ONCE];
            part += AT_ONCE;
        } while (part < KPL);
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
