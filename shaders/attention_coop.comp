#version 450
/* attention.comp for prompts, by cooperative matrices (VK_KHR_cooperative_matrix, subgroup scope): f16 products, f32 sums, a KV cache of f16. The online softmax is that of FlashAttention-2 (Dao 2023):
 * a workgroup owns SUBGROUPS x TM rows (token, query head of one kv head; heads fastest) of one sequence, each subgroup TM of them, whose queries and sums stay in its registers. KEYS keys a round:
 * all lanes put the keys and values of a round into shared memory as [key][dimension], having fetched them during the round before (FETCH), S = Q K^T goes through the subgroup's own part of shared
 * memory to lanes, PARTS of a row, and comes back as weights P in f16; O = O R + P V, where all of a row of R is what the row's sums shrink by, for matrices have no element coordinates.
 * The rows of the scores hold S, then P and R beside each other, at last the sums of some dimensions.
 * Rounds start at multiples of KEYS whatever the batch, and to skip one for a subgroup of earlier rows, or R where no row's maximum changed, changes no bits: a token's do not depend on its neighbours.
 * They are not those of attention.comp, which fewer tokens get. Masked keys weigh exactly zero, and the cache holds nothing but finite numbers.
 * Barriers of subgroups are met by all: lavapipe has none but the workgroup's. A subgroup has at least TM x PARTS lanes.
 * Workgroups: x = row tiles, those of a segment (abi.h) together, the ones with the most keys first; y = kv heads. */
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_attention push; };
#include "kv.glsl"
layout(constant_id = 4) const uint SUBGROUPS = 1;
layout(constant_id = 5) const uint HEAD = 64;
layout(constant_id = 6) const uint TM = 8;
layout(constant_id = 7) const uint TN = 8;
layout(constant_id = 8) const uint TK = 8;
layout(constant_id = 9) const uint LANES = 8;        /* local_size_x */
layout(constant_id = 10) const uint PARTS = 1;       /* lanes of a row */
layout(constant_id = 11) const uint KEYS = 32;       /* a multiple of 32 */
layout(constant_id = 12) const uint BUFFERS = 1;     /* 2: the next round is put into the other half of the shared memory, and one barrier a round does */
layout(constant_id = 13) const uint FETCH = 1;       /* 0: a round is fetched when the last one is done, so that registers hold nothing meanwhile; then BUFFERS is 1 */

const uint OCTETS = HEAD / 8;                        /* uvec4 of a row of f16 */
const uint PITCH = OCTETS + 1;                       /* from row to row: so that neighbouring rows begin in other banks */
const uint HALF = 2 * KEYS * PITCH;
const uint ROW = KEYS / 4 + PARTS;                   /* uvec4 from one row of scores to the next: P lies from 0 on, R from KEYS / 8 on; lanes next to each other hit different banks */
const uint EACH = (OCTETS * KEYS + LANES - 1) / LANES;
const uint AT_ONCE = KEYS / TN;                      /* tiles of sums that the scores' place takes */
const float UP = 14.0;                               /* weights are 2^UP times what they are called, so that small ones are in reach of f16 */

shared uvec4 tile[BUFFERS * 2 * KEYS > SUBGROUPS * TM ? BUFFERS * HALF : SUBGROUPS * TM * PITCH];   /* [BUFFERS] K, V [KEYS][dimensions]; before them Q */
shared uvec4 scores[SUBGROUPS * TM * ROW];           /* attention_coop_shared of src/nn/attention.c adds these up */
shared uint last_of[SUBGROUPS];

coopmat<float16_t, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> q[HEAD / TK];
coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator> o[HEAD / TN];
uint keys, values, k_slab, v_slab;                   /* of this kv head: word of the cache */
uvec4 k_next[EACH], v_next[EACH];
vec4 v[KEYS / 4 / PARTS];                            /* scores of this lane */

/* from the cache, whose K is [pos / 32][pair of dimensions][pos % 32]: neighbouring lanes take four pairs of neighbouring keys; of V what lies beside each other */
void fetch(uint round) {
    [[unroll]] for (uint j = 0; j < EACH; j++) {
        uint i = gl_LocalInvocationIndex + j * LANES, octet = i / 32 % OCTETS;
        if (OCTETS * KEYS % LANES != 0 && i >= OCTETS * KEYS) continue;
        uint block = round * (KEYS / 32) + i / 32 / OCTETS, key = round * KEYS + i / OCTETS;
        if (KEYS > 32) block = min(block, push.n_ctx / 32 - 1), key = min(key, push.n_ctx - 1);      /* the context may end in a round */
        uint at = keys + (block * (HEAD / 2) + octet * 4) * 32 + i % 32;
        k_next[j] = uvec4(kv[k_slab].w[at], kv[k_slab].w[at + 32], kv[k_slab].w[at + 64], kv[k_slab].w[at + 96]);
        v_next[j] = kv4[v_slab].w[values / 4 + key * OCTETS + i % OCTETS];
    }
}

/* what was fetched, to shared memory from `to` on */
void put(uint to) {
    [[unroll]] for (uint j = 0; j < EACH; j++) {
        uint i = gl_LocalInvocationIndex + j * LANES;
        if (OCTETS * KEYS % LANES != 0 && i >= OCTETS * KEYS) continue;
        tile[to + (i / 32 / OCTETS * 32 + i % 32) * PITCH + i / 32 % OCTETS] = k_next[j];
        tile[to + (KEYS + i / OCTETS) * PITCH + i % OCTETS] = v_next[j];
    }
}

#define SUMS coopmat<float, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>

/* N tiles of S, from tile n on, to the subgroup's part of the scores, which begins at `mine` */
#define MULTIPLY_KEYS(N) {                                                                                                             \
    SUMS s[N];                                                                                                                         \
    [[unroll]] for (uint j = 0; j < N; j++) s[j] = SUMS(0.0);                                                                          \
    [[unroll]] for (uint k = 0; k < HEAD / TK; k++)                                                                                    \
        [[unroll]] for (uint j = 0; j < N; j++) {                                                                                      \
            coopmat<float16_t, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> key;                                                           \
            coopMatLoad(key, tile, from + (n + j) * TN * PITCH + k * TK / 8, PITCH, gl_CooperativeMatrixLayoutColumnMajor);            \
            s[j] = coopMatMulAdd(q[k], key, s[j]);                                                                                     \
        }                                                                                                                              \
    [[unroll]] for (uint j = 0; j < N; j++) coopMatStore(s[j], scores, mine + (n + j) * TN / 4, ROW, gl_CooperativeMatrixLayoutRowMajor);   \
}

void multiply_keys(uint from, uint mine) {
    if (TK < 16) { [[dont_unroll]] for (uint n = 0; n < KEYS / TN; n++) MULTIPLY_KEYS(1) }     /* a CPU driver's, which takes minutes to compile it otherwise */
    else { const uint n = 0; MULTIPLY_KEYS(KEYS / TN) }
}

/* O += P V for TK keys */
void multiply_values(uint from, uint mine, uint k) {
    coopmat<float16_t, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> p;
    coopMatLoad(p, scores, mine + k * TK / 8, ROW, gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint t = 0; t < HEAD / TN; t++) {
        coopmat<float16_t, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> value;
        coopMatLoad(value, tile, from + (KEYS + k * TK) * PITCH + t * TN / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
        o[t] = coopMatMulAdd(p, value, o[t]);
    }
}

void add_values(uint from, uint mine, bool shrink) {
    if (shrink) {
        SUMS r;
        coopMatLoad(r, scores, mine + KEYS / 8, ROW, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint t = 0; t < HEAD / TN; t++) o[t] = o[t] * r;
    }
    if (TK < 16) { [[dont_unroll]] for (uint k = 0; k < KEYS / TK; k++) multiply_values(from, mine, k); }
    else         { [[unroll]] for (uint k = 0; k < KEYS / TK; k++) multiply_values(from, mine, k); }
}

/* A row's scores from uvec4 `at` on to its PARTS lanes, of which this one is `part`; `left` keys of the round are visible. Their maximum. */
float take(uint at, uint part, int left) {
    float m = -3.0e38;
    [[unroll]] for (uint i = 0; i < KEYS / 4 / PARTS; i++) {
        uint x = i * PARTS + part;
        v[i] = mix(vec4(-3.0e38), uintBitsToFloat(scores[at + x]), lessThan(ivec4(x * 4) + ivec4(0, 1, 2, 3), ivec4(left)));
        m = max(max(m, max(v[i].x, v[i].y)), max(v[i].z, v[i].w));
    }
    [[unroll]] for (uint d = 1; d < PARTS; d *= 2) m = max(m, subgroupShuffleXor(m, d));
    return m;
}

/* They become weights; `keep` goes to R. owns: false for a lane too many, which does as the last row's do and writes nothing. Their sum. */
float weigh(uint at, uint part, bool owns, float m, float keep) {
    float add = 0.0;
    [[unroll]] for (uint i = 0; i < KEYS / 4 / PARTS; i++) {
        uint x = i * PARTS + part;
        vec4 e = exp2(v[i] - (m - UP));              /* of masked keys nothing in f16, and of no consequence in a sum that has 2^UP in it */
        add += e.x; add += e.y; add += e.z; add += e.w;
        if (owns) { scores[at + x / 2][x % 2 * 2] = packHalf2x16(e.xy); scores[at + x / 2][x % 2 * 2 + 1] = packHalf2x16(e.zw); }
    }
    [[unroll]] for (uint d = 1; d < PARTS; d *= 2) add += subgroupShuffleXor(add, d);
    [[unroll]] for (uint i = 0; i < TN / 4; i += PARTS) if (owns && i + part < TN / 4) scores[at + KEYS / 8 + i + part] = floatBitsToUint(vec4(keep));
    return add;
}

void main() {
    uint head_kv = gl_WorkGroupID.y, group = push.n_head / push.n_head_kv;
    uint begin = gl_WorkGroupID.x / push.tiles * push.rows, end = begin + push.rows;
    uint first = begin + (push.tiles - 1 - gl_WorkGroupID.x % push.tiles) * SUBGROUPS * TM, sequence = wsu.u[push.ws_seq + first / group];
    keys = kv_unit(push.k_unit + sequence, k_slab) + head_kv * push.n_ctx * (HEAD / 2);
    values = kv_unit(push.v_unit + sequence, v_slab) + head_kv * push.n_ctx * (HEAD / 2);

    /* rows behind the last one are copies of it, of which nothing is stored */
    uint subgroup = min(gl_SubgroupID, SUBGROUPS - 1), mine = subgroup * TM * ROW, own = first + subgroup * TM;
    bool works = gl_SubgroupID < SUBGROUPS && own < end;
    uint row = own + min(gl_SubgroupInvocationID / PARTS, TM - 1), part = gl_SubgroupInvocationID % PARTS;
    bool owns = works && gl_SubgroupInvocationID < TM * PARTS;
    uint token = min(row, end - 1) / group, head = head_kv * group + min(row, end - 1) % group;
    uint pos = min(wsu.u[push.ws_pos + token], push.n_ctx - 1), last = subgroupMax(pos);
    if (gl_SubgroupID < SUBGROUPS && subgroupElect()) last_of[gl_SubgroupID] = last;
    for (uint i = gl_LocalInvocationIndex; i < SUBGROUPS * TM * OCTETS; i += LANES) {
        uint r = min(first + i / OCTETS, end - 1), at = (push.ws_q + r / group * push.ld_q + (head_kv * group + r % group) * HEAD) / 4 + i % OCTETS * 2;
        vec4 a = clamp(ws4.f[at] * (push.scale * 1.4426950408889634), -65504.0, 65504.0), b = clamp(ws4.f[at + 1] * (push.scale * 1.4426950408889634), -65504.0, 65504.0);   /* for exp2 */
        tile[i / OCTETS * PITCH + i % OCTETS] = uvec4(packHalf2x16(a.xy), packHalf2x16(a.zw), packHalf2x16(b.xy), packHalf2x16(b.zw));
    }
    barrier();
    [[unroll]] for (uint k = 0; k < HEAD / TK; k++) coopMatLoad(q[k], tile, subgroup * TM * PITCH + k * TK / 8, PITCH, gl_CooperativeMatrixLayoutRowMajor);
    [[unroll]] for (uint t = 0; t < HEAD / TN; t++) o[t] = SUMS(0.0);
    uint rounds = 0;
    for (uint i = 0; i < SUBGROUPS; i++) rounds = max(rounds, last_of[i] / KEYS + 1);
    uint at = mine + (row - own) * ROW;              /* the row's scores */
    float highest = -3.0e38, sum = 0.0;              /* of the row, in all its lanes */

    if (FETCH != 0) fetch(0);
    if (BUFFERS == 2) {
        barrier();                                   /* nobody reads Q any more */
        put(0);
    }
    for (uint round = 0; round < rounds; round++) {
        uint from = BUFFERS == 1 ? 0 : (round & 1) * HALF;
        if (FETCH == 0) fetch(round);
        barrier();                                   /* of two buffers: the round is there, and nobody reads the last one any more */
        if (BUFFERS == 1) {
            put(0);
            barrier();
        }
        if (FETCH != 0 && round + 1 < rounds) fetch(round + 1);
        bool sees = works && round * KEYS <= last;
        float m = highest;
        if (sees) multiply_keys(from, mine);
        subgroupBarrier();
        if (sees) m = max(m, take(at, part, int(pos + 1) - int(round * KEYS)));
        subgroupBarrier();                           /* all scores have been taken */
        bool shrink = subgroupBallot(m > highest) != uvec4(0);
        if (sees) {
            float keep = exp2(highest - m);
            sum = sum * keep + weigh(at, part, owns, m, keep);
            highest = m;
        }
        subgroupBarrier();
        if (sees) add_values(from, mine, shrink);
        if (BUFFERS == 2 && round + 1 < rounds) put(((round + 1) & 1) * HALF);
    }
    bool stores = owns && row < end;
    uint to = push.ws_out + token * push.ld_out + head * HEAD;
    [[unroll]] for (uint t = 0; t < HEAD / TN; t++) {
        if (t % AT_ONCE == 0) subgroupBarrier();     /* nobody reads what lay there any more */
        if (works) coopMatStore(o[t], scores, mine + t % AT_ONCE * TN / 4, ROW, gl_CooperativeMatrixLayoutRowMajor);
        if (t % AT_ONCE == AT_ONCE - 1 || t == HEAD / TN - 1) {
            subgroupBarrier();
            if (stores)
                [[unroll]] for (uint i = 0; i < AT_ONCE * TN / 4; i += PARTS)      /* so often always: a loop that is not unrolled keeps the one around it from it, and NVK o in memory */
                    if (i + part < (t % AT_ONCE + 1) * TN / 4) ws4.f[(to + t / AT_ONCE * AT_ONCE * TN) / 4 + i + part] = uintBitsToFloat(scores[at + i + part]) / sum;
        }
    }
    /* the rows' padding, which the next matmul reads: written with the last head */
    if (stores && head == push.n_head - 1)
        for (uint i = push.n_head * HEAD + part; i < push.ld_out; i += PARTS) ws.f[push.ws_out + token * push.ld_out + i] = 0.0;
}
