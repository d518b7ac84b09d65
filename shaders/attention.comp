#version 450
/* Causal grouped-query attention in one pass over the keys with an online softmax (Milakov & Gimelshein 2018; FlashAttention, Dao 2022): no score matrix, any context length.
 * A workgroup owns NQ rows (token, query head of one kv head; heads fastest) of one sequence, so they share keys; NQ <= local_size_x. 32 keys a round: lanes own keys for the scores,
 * then rows for the softmax, then dimensions for the values. Rounds start at multiples of 32 whatever the batch, so a token's bits do not depend on it. Masked keys weigh exactly
 * zero, and the cache holds nothing but finite numbers. local_size_y parts (one of CPU drivers) take every PARTS-th round each and are put together at the end. On an H200 more unrolling is slower with few keys
 * (loads of 32 dimensions and 16 keys together, 64 keys a round: 24 us instead of 17 for one token behind 64), for code is fetched too. The loops over dimensions and keys are to stay loops: Intel's compiler unrolled both, and spilled 30 registers for tgl.
 * Within them all is unrolled by hand: an old lavapipe bounds all loops of a shader together (src/nn/build.c).
 * Workgroups: x = row tiles, those of a segment (abi.h) together, y = kv heads. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_attention push; };
#include "kv.glsl"
layout(constant_id = 4) const uint NQ = 8;
layout(constant_id = 5) const uint HEAD = 64;
layout(constant_id = 6) const uint KV16 = 1;
layout(constant_id = 7) const uint KPL = 4;        /* keys of a lane: 32 / local_size_x */
layout(constant_id = 8) const uint DPL = 4;        /* pairs of dimensions of a lane: ceil(HEAD / 2 / local_size_x) */
layout(constant_id = 9) const uint SUBGROUPS = 0;  /* 1: a part is one subgroup */
layout(constant_id = 10) const uint DIMS = 8;      /* dimensions, and keys, whose loads are issued together */
layout(constant_id = 11) const uint KEYS = 4;
layout(constant_id = 12) const uint PARTS = 1;     /* local_size_y */
#define ONE_SUBGROUP (SUBGROUPS == 1)
#include "sync.glsl"

const uint WORDS = KV16 != 0 ? HEAD / 2 : HEAD;    /* of a token of a kv head */
const uint ROW = 9;                  /* vec4 of p a row: lanes that own rows hit different banks */
shared vec4 p[PARTS * NQ * ROW];
shared float scale_old[PARTS * NQ], total[PARTS * NQ], highest_of[PARTS > 1 ? PARTS * NQ : 1];
shared vec2 out_of[PARTS > 1 ? PARTS * NQ * HEAD / 2 : 1];

/* Globals, since glslang 12 copies one element of an inout array whose size is a specialisation constant. */
uint q[NQ];                                        /* word offsets of the rows' queries */
float s[NQ * KPL];                                 /* scores of the rows with this lane's keys */
uint k_slab, v_slab;

/* a b + c: on a GPU (PARTS) as one operation, or attention_one's sums would be others by the compiler's choice; CPU drivers may have none */
float add_product(float a, float b, float c) { return PARTS > 1 ? fma(a, b, c) : a * b + c; }
vec2 add_product(float a, vec2 b, vec2 c) { return PARTS > 1 ? fma(vec2(a), b, c) : a * b + c; }

/* two dimensions of a key; k: the round's first word of the cache, at this lane's key */
vec2 key_at(uint k, uint d) { return KV16 != 0 ? unpackHalf2x16(kv[k_slab].w[k + d / 2 * 32]) : uintBitsToFloat(uvec2(kv[k_slab].w[k + d * 32], kv[k_slab].w[k + (d + 1) * 32])); }

/* adds the products of two dimensions */
void scores2(uint k, uint d, uint lanes) {
    vec2 key[KPL];
    [[unroll]] for (int j = 0; j < int(KPL); j++) key[j] = key_at(k + j * lanes, d);
    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        vec2 a = vec2(ws.f[q[r] + d], ws.f[q[r] + d + 1]);
        [[unroll]] for (int j = 0; j < int(KPL); j++) s[r * KPL + j] = add_product(a.y, key[j].y, add_product(a.x, key[j].x, s[r * KPL + j]));
    }
}

/* of four, where rows begin at a multiple of four */
void scores4(uint k, uint d, uint lanes) {
    vec2 key[2 * KPL];
    [[unroll]] for (int j = 0; j < int(KPL); j++) {
        uint at = k + j * lanes;
        key[2 * j] = key_at(at, d);
        key[2 * j + 1] = key_at(at, d + 2);
    }
    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        vec4 a = ws4.f[(q[r] + d) / 4];
        [[unroll]] for (int j = 0; j < int(KPL); j++) {
            float sum = add_product(a.y, key[2 * j].y, add_product(a.x, key[2 * j].x, s[r * KPL + j]));
            s[r * KPL + j] = add_product(a.w, key[2 * j + 1].y, add_product(a.z, key[2 * j + 1].x, sum));
        }
    }
}

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, part = gl_LocalInvocationID.y;
    uint head_kv = gl_WorkGroupID.y, group = push.n_head / push.n_head_kv;
    uint begin = gl_WorkGroupID.x / push.tiles * push.rows, end = begin + push.rows;
    uint first = begin + gl_WorkGroupID.x % push.tiles * NQ, sequence = wsu.u[push.ws_seq + first / group];
    uint keys = kv_unit(push.k_unit + sequence, k_slab) + head_kv * push.n_ctx * WORDS + lane;
    uint values = kv_unit(push.v_unit + sequence, v_slab) + head_kv * push.n_ctx * WORDS;

    uint pos[NQ], last = 0;
    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        uint row = min(first + r, end - 1), t = row / group;
        q[r] = push.ws_q + t * push.ld_q + (head_kv * group + row % group) * HEAD;
        pos[r] = min(wsu.u[push.ws_pos + t], push.n_ctx - 1);
        last = max(last, pos[r]);
    }
    vec2 out_[NQ * DPL];
    [[unroll]] for (int i = 0; i < int(NQ * DPL); i++) out_[i] = vec2(0.0);
    float highest = -3.0e38, sum = 0.0;            /* of row `lane` */

    uint rows = part * NQ, rounds = last / 32 + 1;
    for (uint all = 0; all < rounds; all += PARTS) {
        uint round = all + part;
        bool mine = round < rounds;                /* all parts meet at the barriers */
        if (mine) {
            [[unroll]] for (int i = 0; i < int(NQ * KPL); i++) s[i] = 0.0;
            uint k = keys + round * 32 * WORDS;
            [[dont_unroll]] for (uint d = 0; d < HEAD; d += DIMS)
                if (HEAD % 4 == 0) {
                    [[unroll]] for (uint e = 0; e < DIMS; e += 4) if (HEAD % DIMS == 0 || d + e < HEAD) scores4(k, d + e, lanes);
                } else {
                    [[unroll]] for (uint e = 0; e < DIMS; e += 2) if (HEAD % DIMS == 0 || d + e < HEAD) scores2(k, d + e, lanes);
                }
        }
        sync();                                 /* the last round's p has been read */
        if (mine)
            [[unroll]] for (int r = 0; r < int(NQ); r++)
                [[unroll]] for (int j = 0; j < int(KPL); j++) {
                    uint key = j * lanes + lane;
                    p[(rows + r) * ROW + key / 4][key % 4] = round * 32 + key <= pos[r] ? s[r * KPL + j] * push.scale : -3.0e38;
                }
        sync();
        if (mine && lane < NQ) {
            uint row = (rows + lane) * ROW;
            float m = highest, add = 0.0;
            for (uint i = row; i < row + 8; i++) { vec4 v = p[i]; m = max(max(m, max(v.x, v.y)), max(v.z, v.w)); }
            float keep = exp(highest - m);
            for (uint i = row; i < row + 8; i++) {
                vec4 v = p[i], e = mix(exp(v - m), vec4(0.0), lessThan(v, vec4(-2.9e38)));
                p[i] = e;
                add += e.x; add += e.y; add += e.z; add += e.w;
            }
            sum = add_product(sum, keep, add);
            highest = m;
            scale_old[rows + lane] = keep;
            total[rows + lane] = sum;
        }
        sync();
        if (!mine) continue;
        [[unroll]] for (int r = 0; r < int(NQ); r++)
            [[unroll]] for (int i = 0; i < int(DPL); i++) out_[r * DPL + i] *= scale_old[rows + r];
        [[dont_unroll]] for (uint first_key = 0; first_key < 32; first_key += KEYS)
            [[unroll]] for (uint e = 0; e < KEYS; e += 4) {
                vec2 value[4 * DPL];
                [[unroll]] for (int j = 0; j < 4; j++)
                    [[unroll]] for (int i = 0; i < int(DPL); i++) {
                        uint pair = lane + i * lanes, at = values + (round * 32 + first_key + e + j) * WORDS;
                        value[j * DPL + i] = vec2(0.0);
                        if (pair < HEAD / 2)
                            value[j * DPL + i] = KV16 != 0 ? unpackHalf2x16(kv[v_slab].w[at + pair]) : uintBitsToFloat(uvec2(kv[v_slab].w[at + 2 * pair], kv[v_slab].w[at + 2 * pair + 1]));
                    }
                [[unroll]] for (int r = 0; r < int(NQ); r++) {
                    vec4 weight = p[(rows + r) * ROW + (first_key + e) / 4];
                    [[unroll]] for (int j = 0; j < 4; j++)
                        [[unroll]] for (int i = 0; i < int(DPL); i++) out_[r * DPL + i] = add_product(weight[j], value[j * DPL + i], out_[r * DPL + i]);
                }
            }
    }
    if (PARTS > 1) {                               /* each part puts some rows together */
        if (lane < NQ) highest_of[rows + lane] = highest;
        [[unroll]] for (int r = 0; r < int(NQ); r++)
            [[unroll]] for (int i = 0; i < int(DPL); i++)
                if (lane + i * lanes < HEAD / 2) out_of[(rows + r) * HEAD / 2 + lane + i * lanes] = out_[r * DPL + i];
        barrier();
        for (uint r = part; r < NQ && first + r < end; r += PARTS) {
            uint row = first + r, at = push.ws_out + row / group * push.ld_out + (head_kv * group + row % group) * HEAD, used = min(rounds, PARTS);
            float most = highest_of[r], sum_ = 0.0;
            vec2 v[DPL];
            [[unroll]] for (int i = 0; i < int(DPL); i++) v[i] = vec2(0.0);
            for (uint j = 1; j < used; j++) most = max(most, highest_of[j * NQ + r]);
            for (uint j = 0; j < used; j++) {
                float keep = exp(highest_of[j * NQ + r] - most);
                sum_ = fma(keep, total[j * NQ + r], sum_);
                [[unroll]] for (int i = 0; i < int(DPL); i++) v[i] = fma(vec2(keep), out_of[(j * NQ + r) * HEAD / 2 + min(lane + i * lanes, HEAD / 2 - 1)], v[i]);
            }
            [[unroll]] for (int i = 0; i < int(DPL); i++) {
                uint pair = lane + i * lanes;
                if (pair < HEAD / 2) { ws.f[at + 2 * pair] = v[i].x / sum_; ws.f[at + 2 * pair + 1] = v[i].y / sum_; }
            }
        }
    } else
    [[unroll]] for (int r = 0; r < int(NQ); r++) {    /* without break: NVK then keeps out_ in memory */
        uint row = first + r;
        uint at = push.ws_out + row / group * push.ld_out + (head_kv * group + row % group) * HEAD;
        float inv = 1.0 / total[r];
        [[unroll]] for (int i = 0; i < int(DPL); i++) {
            uint pair = lane + i * lanes;
            if (row < end && pair < HEAD / 2) { ws.f[at + 2 * pair] = out_[r * DPL + i].x * inv; ws.f[at + 2 * pair + 1] = out_[r * DPL + i].y * inv; }
        }
    }
    /* the rows' padding, which the next matmul reads: written with the last head */
    for (uint row = first; row < min(first + NQ, end); row++)
        if (part == 0 && head_kv * group + row % group == push.n_head - 1)
            for (uint i = push.n_head * HEAD + lane; i < push.ld_out; i += lanes) ws.f[push.ws_out + row / group * push.ld_out + i] = 0.0;
}
