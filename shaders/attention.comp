#version 450
/* Causal grouped-query attention in one pass over the keys with an online softmax (Milakov & Gimelshein 2018; FlashAttention, Dao 2022): no score matrix, any context length.
 * A workgroup owns NQ rows (token, query head of one kv head; heads fastest) of one sequence, so they share keys; NQ <= local_size_x. 32 keys a round: lanes own keys for the scores,
 * then rows for the softmax, then dimensions for the values. Rounds start at multiples of 32 whatever the batch, so a token's bits do not depend on it. Masked keys weigh exactly
 * zero, and the cache holds nothing but finite numbers. Loops are unrolled by hand where they count: an old lavapipe bounds all loops of a shader together (src/nn/build.c).
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
layout(constant_id = 9) const uint SUBGROUPS = 0;  /* 1: the workgroup is one subgroup */
#define ONE_SUBGROUP (SUBGROUPS == 1)
#include "sync.glsl"

const uint WORDS = KV16 != 0 ? HEAD / 2 : HEAD;    /* of a token of a kv head */
const uint ROW = 33;                              /* words of p a row: lanes that own rows hit different banks */
shared float p[NQ * ROW];
shared float scale_old[NQ];
shared float total[NQ];

/* Globals, since glslang 12 copies one element of an inout array whose size is a specialisation constant. */
uint q[NQ];                                        /* word offsets of the rows' queries */
float s[NQ * KPL];                                 /* scores of the rows with this lane's keys */
uint k_slab, v_slab;

/* adds two dimensions' products; k: the round's first word of the cache, at this lane's key */
void scores(uint k, uint d, uint lanes) {
    vec2 key[KPL];
    [[unroll]] for (int j = 0; j < int(KPL); j++)
        key[j] = KV16 != 0 ? unpackHalf2x16(kv[k_slab].w[k + d / 2 * 32 + j * lanes]) : uintBitsToFloat(uvec2(kv[k_slab].w[k + d * 32 + j * lanes], kv[k_slab].w[k + (d + 1) * 32 + j * lanes]));
    [[unroll]] for (int r = 0; r < int(NQ); r++) {
        vec2 a = vec2(ws.f[q[r] + d], ws.f[q[r] + d + 1]);
        [[unroll]] for (int j = 0; j < int(KPL); j++) { s[r * KPL + j] += a.x * key[j].x; s[r * KPL + j] += a.y * key[j].y; }
    }
}

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
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

    for (uint round = 0; round <= last / 32; round++) {
        [[unroll]] for (int i = 0; i < int(NQ * KPL); i++) s[i] = 0.0;
        uint k = keys + round * 32 * WORDS;
        for (uint d = 0; d < HEAD; d += 8)
            [[unroll]] for (int e = 0; e < 8; e += 2)
                if (HEAD % 8 == 0 || d + e < HEAD) scores(k, d + e, lanes);
        sync();                                 /* the last round's p has been read */
        [[unroll]] for (int r = 0; r < int(NQ); r++)
            [[unroll]] for (int j = 0; j < int(KPL); j++)
                p[r * ROW + j * lanes + lane] = round * 32 + j * lanes + lane <= pos[r] ? s[r * KPL + j] * push.scale : -3.0e38;
        sync();
        if (lane < NQ) {
            uint row = lane * ROW;
            float m = highest, add = 0.0;
            for (uint i = row; i < row + 32; i += 4) m = max(max(m, max(p[i], p[i + 1])), max(p[i + 2], p[i + 3]));
            float keep = exp(highest - m);
            for (uint i = row; i < row + 32; i += 4)
                [[unroll]] for (int j = 0; j < 4; j++) {
                    float e = p[i + j] > -2.9e38 ? exp(p[i + j] - m) : 0.0;
                    p[i + j] = e;
                    add += e;
                }
            sum = sum * keep + add;
            highest = m;
            scale_old[lane] = keep;
            total[lane] = sum;
        }
        sync();
        [[unroll]] for (int r = 0; r < int(NQ); r++)
            [[unroll]] for (int i = 0; i < int(DPL); i++) out_[r * DPL + i] *= scale_old[r];
        for (uint key = 0; key < 32; key += 4)
            [[unroll]] for (int e = 0; e < 4; e++)
                [[unroll]] for (int i = 0; i < int(DPL); i++) {
                    uint pair = lane + i * lanes, at = values + (round * 32 + key + e) * WORDS;
                    vec2 value = vec2(0.0);
                    if (pair < HEAD / 2)
                        value = KV16 != 0 ? unpackHalf2x16(kv[v_slab].w[at + pair]) : uintBitsToFloat(uvec2(kv[v_slab].w[at + 2 * pair], kv[v_slab].w[at + 2 * pair + 1]));
                    [[unroll]] for (int r = 0; r < int(NQ); r++) out_[r * DPL + i] += p[r * ROW + key + e] * value;
                }
    }
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
        if (head_kv * group + row % group == push.n_head - 1)
            for (uint i = push.n_head * HEAD + lane; i < push.ld_out; i += lanes) ws.f[push.ws_out + row / group * push.ld_out + i] = 0.0;
}
