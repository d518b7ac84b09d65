/* The matrix multiplication for CPU drivers that load from a uniform address once for all lanes (caps.scalar_loads; llvmpipe of Mesa 26). What such a driver makes of a load decides everything (read off its
 * machine code; Q4_0, one core of a Zen 3, GFLOP/s):
 *     descriptor, address differs by lane: a branch, a bounds check and an insert for each lane, 50 instructions           matmul.glsl: decode 6, 16 tokens 8
 *     descriptor, uniform: a branch and bounds check for each word, and every load of the loop body hoisted and spilled
 *     device address, uniform: one instruction, no mask, no check                                                          here: decode 17, 8 tokens 28
 * So everything is read at uniform addresses (scalar.glsl), with words of neighbouring rows side by side (vkm_panel_planes), a lane picking its own of LANES broadcast words.
 * Of a block's quants eight rows lie together, so that a pass over a lane's row takes whole lines of memory. As long as all 32 rows of a plane did, 32 bytes of each 128 in a pass, two tiles of eight tokens an expert, whose weights come from
 * memory, took up to twice as long as in cache (us a row of granite's experts with 64 and 512 tokens: F32 153 and 71, now 97 and 64; BF16 116 and 68, 89 and 62; Q8_0 123 and 66, 87 and 64; Q4_0 94 and 65, 73 and 57; Q4_K 83 and 73, 80 and 66).
 * Eight rows of the whole panel together: 74 and 53, 82 and 52, 74 and 65, 63 and 60, 88 and 63, but a single token then reads four streams of memory, which is slower where they are short: granite's layer in Q4_0 814 tokens per second, not 970,
 * OLMoE's in Q4_K 205 for 224, Mixtral's 39.5 for 36; qwen3moe-q4_0 generates 158 for 176. By four blocks of one row at a time, so that it is one stream: a token 55 to 82 for 50 ns (Q4_0), 113 to 160 for 70 (Q4_K). Four or eight blocks of
 * eight rows together: it generates 137 and 122 for 207. The first row's pass loading a word of each of the other rows' lines, too: tiles take 1.05 to 1.4 times as long.
 * A workgroup is one subgroup of LANES lanes; a lane owns RPL rows of a panel for all NT tokens. A single token takes them all at once, for their sums would wait for themselves. More tokens take one row after another: eight sums, a weight and
 * an x fit into 16 registers, so that a product is a broadcast load and a fma; and all 32 columns of a block are unrolled, for the loop's masks and addresses are as much as the products of eight.
 * Weights with an offset: d q x and m x are added up apart (OFFSET, below).
 * Nanoseconds of a tile for 32 rows and columns (`vkmoe tune`, means or medians of two to six turns, noise of a tenth and more), all rows at once in steps of eight columns without fma, and as it is here (Q4_1, Q5_1, Q4_K,
 * Q5_K: the first in turns of their own, then, the day after and in turns with each other, by offsets within each weight, as they were in between, and as it is here; F16 last in turns with and without planes of halves):
 *              1 token      4            8                              1 token            4                   8
 *     F32      42 ->  41    190 -> 170   360 -> 300            Q4_1     72;  78 -> 57      237; 176 -> 160     429; 286 -> 313
 *     F16  85; 83 ->  40    240; 184 -> 167   410; 382 -> 294  Q5_1     99;  96 -> 73      281; 192 -> 186     480; 315 -> 318
 *     BF16     47 ->  38    190 -> 153   335 -> 295            Q4_K     95;  98 -> 72      270; 193 -> 187     490; 308 -> 311
 *     Q4_0     65 ->  59    215 -> 165   430 -> 290            Q5_K    110; 114 -> 89      280; 201 -> 194     530; 323 -> 318
 *     Q5_0     87 ->  74    255 -> 183   452 -> 311            Q6_K     80 ->  86          245 -> 190          490 -> 350
 *     Q8_0     65 ->  50    220 -> 150   400 -> 285
 * All that before eight rows of a block lay together. With it, two turns more, 1 token as before, 4 and 8: F32 177 -> 144, 303 -> 257; F16 167 -> 148, 294 -> 258; BF16 157 -> 150, 306 -> 271; Q4_0 157 -> 155, 288 -> 264; Q8_0 200 -> 156, 359 -> 280 (a slow turn);
 * Q4_K 169 -> 172, 321 -> 302; Q6_K 196 -> 197, 336 -> 324.
 * Tried and slower, 8 tokens, ns: two rows at once 430 (Q4_0, one 285), four tokens by two rows 400, two tokens by four rows 1,100 and more; before fma, weights of 8 to 32 columns unpacked once and then four tokens at a time 0.9 of the speed; all rows at once with fma 1.1 to 1.3 times as long; the loop over steps of eight columns kept, one row at a time:
 * no faster than four; two blocks a pass (one token too: 1.06 to 1.14 times as long); tiles of 16, in registers or in two halves: 2.3 to 3 times one of 8, so there are none. The scale times each weight instead of each block's sum: one token 1.2 times as long, 8 alike.
 * Sums of x made anew by each row of tiles of 8: 560 instead of 315. Types without an offset as if they had one (q - 8 is q, less 8 times the sum of x): one token of Q4_0 57 instead of 53, Q5_0 72 for 78, Q8_0 64 for 55. Scales' addresses made once a block, rows' passes over eight blocks at a time
 * instead of all: no faster. Sums that go on from
 * block to block, where there is no scale: one token 115 instead of 80 in Q4_K; F16, BF16 and F32 have it so, the other is no faster. x through shared memory (bounds-checked, too), x by lanes and subgroupBroadcast. */
#ifndef NT                                          /* moe_route has its own */
layout(constant_id = 4) const uint RPL = 4;
layout(constant_id = 5) const uint NT = 8;
#define BLOCK_STEPS 4                               /* of eight columns in a block; weights without scales might have any number, for less to compile */
#endif

const uint LANES = 32 / RPL;                        /* 4, 8 or 16 */
#include "scalar.glsl"

const int ROWS = NT == 1 ? int(RPL) : 1;            /* at a time */
float acc[NT * RPL];
float sum[NT * ROWS], part[NT * ROWS];              /* of the rows at hand; of a block, before its scale */
uvec2 x_row[NT];                                    /* device addresses of the rows of x */

/* ---- types: as in quant.glsl, with planes of words instead of uvec4, of F16 planes of halves: neighbouring halves are one load and one conversion (predicted: as fast as BF16) */

#ifdef TYPE_F16
#  define ROW_BYTES 2
#  ifdef TIER_FP16
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Halves { f16vec4 h[]; };
#  else
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Halves { uvec2 h[]; };
#  endif
/* A lane's half of row r and column c of the block that begins there */
float half_of(uvec2 block, int r, uint c) {
    uint at = r * LANES / 8 * (NQ4 * 16) + r * LANES % 8 / 4 + c * 2;
#  ifdef TIER_FP16
    float16_t q = float16_t(0.0);
    [[unroll]] for (int l = 0; l < 16; l++) if (l < LANES) q = mix(q, Halves(block).h[at + l / 8 * (NQ4 * 16) + l % 8 / 4][l % 4], lane_is[l]);
    return float(q);
#  else
    uint q = 0;
    [[unroll]] for (int l = 0; l < 16; l++) if (l < LANES) q = mix(q, Halves(block).h[at + l / 8 * (NQ4 * 16) + l % 8 / 4][l / 2 % 2] >> l % 2 * 16, lane_is[l]);
    return unpackHalf2x16(q).x;
#  endif
}
#else
#  define ROW_BYTES 4
#endif

/* A lane's word of row r and plane p of the block that begins there */
uint word_of(uvec2 block, int r, uint p) {
    Words w = Words(block);
    uint at = r * LANES / 8 * (NQ4 * 8) + r * LANES % 8 / 4 + p * 2;
    uint q = pick(w.w[at], 0, 0);
    if (LANES > 4) q = pick(w.w[at + 1], q, 4);
    if (LANES > 8) { q = pick(w.w[at + NQ4 * 8], q, 8); q = pick(w.w[at + NQ4 * 8 + 1], q, 12); }
    return q;
}

#if defined(TYPE_Q6_K)
#  define PARTS 2          /* scales of a block of 32 columns */
#else
#  define PARTS 1
#endif
#if defined(TYPE_F32) || defined(TYPE_F16) || defined(TYPE_BF16)
#  define UNSCALED
#elif defined(SCALE_DM) || defined(SCALE_K)
#  define OFFSET           /* x = d q + m */
#endif
#define STEP_PLANES (NQ4 == 1 ? 1 : NQ4)            /* planes of eight columns */

#ifdef SCALE_K
/* d and dmin of each row, and a byte each of the scales and offsets of four blocks, which are unpacked together: one token 67 ns instead of 80 in Q4_K, 85 instead of 94 in Q5_K (medians of five by turns; predicted: a tenth less),
 * tiles of 8 alike; generating, medians of six by turns, 164 for 166 (mixtral-q4_k_s), 106 for 85 (olmoe), 150 for 142 (qwen3moe) tokens per second. */
vec2 k_scale[ROWS];
uvec2 k_packed[ROWS];
void unpack_scales(Words w, uint at, uint k) {
    at += (k >> 3) * 32;
    bool first = (k & 4) == 0;
    [[unroll]] for (int r = 0; r < ROWS; r++) {
        uint lo = word(w, at + 8, r), mid = word(w, at + 16, r), hi = word(w, at + 24, r);
        k_scale[r] = unpackHalf2x16(word(w, at, r));
        k_packed[r].x = first ? lo & 0x3f3f3f3fu : (hi & 0x0f0f0f0fu) | ((lo >> 2) & 0x30303030u);
        k_packed[r].y = first ? mid & 0x3f3f3f3fu : ((hi >> 4) & 0x0f0f0f0fu) | ((mid >> 2) & 0x30303030u);
    }
}
#endif

/* scale and offset of part p of block k */
void scales(Words w, uint at, uint kb, uint k, int p, int r, out float d, out float m) {
    d = 1.0; m = 0.0;
#if defined(SCALE_D)
    d = unpackHalf2x16(word(w, at + (k >> 1) * 8, r) >> (k & 1) * 16).x;
#elif defined(SCALE_DM)
    vec2 dm = unpackHalf2x16(word(w, at + k * 8, r));
    d = dm.x; m = dm.y;
#elif defined(SCALE_K)
    uint n = (k & 3) * 8;
    d = k_scale[r].x * float(k_packed[r].x >> n & 255u); m = -(k_scale[r].y * float(k_packed[r].y >> n & 255u));
#elif defined(TYPE_Q6_K)
    uint sc = word(w, at + (k >> 3) * 32 + ((k & 7) >> 1) * 8, r) >> (k & 1) * 16;
    d = unpackHalf2x16(word(w, at + kb / 8 * 32 + (k >> 3) * 8, r)).x * float(bitfieldExtract(int(sc), 8 * p, 8));
#endif
}

#ifdef OFFSET
/* The sum of d q x + m x over a block is d Q + m X, Q the sum of q x, X that of x: made here for a single token, for tiles of more by block_sums.
 * A single token's quants stay where they are in their words, that is q times a power of two, and x is multiplied by UNIT / that power instead: exact below 2^90, and the same
 * for all rows. */
#  if NHI == 0
#    define UNIT 268435456.0
vec4 units(const int h) { return h == 0 ? vec4(UNIT, 1048576.0, 4096.0, 16.0) : vec4(16777216.0, 65536.0, 256.0, UNIT); }
#  else
#    define UNIT 65536.0
vec4 units(const int h) { return vec4(UNIT, 256.0, 1.0, UNIT); }
#  endif
uvec2 sums_row[NT];                                 /* device addresses of X of the rows of x */
float x_sum[NT];                                    /* X of the block at hand */
#endif

#ifndef TYPE_F16
/* the four columns of half h (0, 1) of a step of eight, from the step's words; hi: the block's words above four bits */
vec4 columns(const uint q[STEP_PLANES], uvec2 hi, uint step_, const int h) {
#if defined(TYPE_F32)
    return vec4(uintBitsToFloat(q[4 * h]), uintBitsToFloat(q[4 * h + 1]), uintBitsToFloat(q[4 * h + 2]), uintBitsToFloat(q[4 * h + 3]));
#elif defined(TYPE_BF16)
    return uintBitsToFloat(uvec4(q[2 * h] << 16, q[2 * h] & 0xffff0000u, q[2 * h + 1] << 16, q[2 * h + 1] & 0xffff0000u));
#elif defined(TYPE_Q8_0)
    int v = int(q[h]);
    return vec4(v << 24 >> 24, v << 16 >> 24, v << 8 >> 24, v >> 24);
#elif defined(TYPE_Q4_0)
    int v = int(q[0] ^ 0x88888888u) << 4 * (1 - h);     /* q - 8 in two's complement */
    return vec4(v << 24 >> 28, v << 16 >> 28, v << 8 >> 28, v >> 28);
#elif defined(OFFSET) && NHI == 0
    int v = int(q[0]);
    if (NT > 1) return vec4(v >> 4 * h & 0xf, v >> 8 + 4 * h & 0xf, v >> 16 + 4 * h & 0xf, v >> 24 + 4 * h & 0xf);
    return h == 0 ? vec4(v & 0xf, v & 0xf00, v & 0xf0000, v & 0xf000000) : vec4(v & 0xf0, v & 0xf000, v & 0xf00000, v >> 28 & 0xf);
#else
    uint v = q[0] >> 4 * h & 0x0f0f0f0fu;
#  if NHI == 1
    v |= (hi.x >> 2 * step_ + h & 0x01010101u) << 4;
#  else
    v |= (hi[h] >> 2 * step_ & 0x03030303u) << 4;
#  endif
#  ifdef OFFSET
    if (NT > 1) return vec4(v & 0xffu, v >> 8 & 0xffu, v >> 16 & 0xffu, v >> 24);
    return vec4(v & 0xffu, v & 0xff00u, v & 0xff0000u, v >> 24);
#  else                                                 /* q - 16 of five bits, q - 32 of six */
    const int bits = 4 + NHI;
    int s = int((v ^ 0x01010101u << bits - 1) << 8 - bits);
    return vec4(s << 24 >> 32 - bits, s << 16 >> 32 - bits, s << 8 >> 32 - bits, s >> 32 - bits);
#  endif
#endif
}
#endif

/* eight columns, step `step_` of the block whose quants begin at `block`; their x are vec4 x, x + 1 of a row */
void multiply_step(uvec2 block, uint x, const uvec2 hi[ROWS], uint step_) {
#ifndef TYPE_F16
    uint q[ROWS * STEP_PLANES];
    [[unroll]] for (int r = 0; r < ROWS; r++)
        [[unroll]] for (int i = 0; i < STEP_PLANES; i++) q[r * STEP_PLANES + i] = word_of(block, r, step_ * STEP_PLANES + i);
#endif
    [[unroll]] for (int h = 0; h < 2; h++) {
        vec4 v[ROWS];
        [[unroll]] for (int r = 0; r < ROWS; r++) {
#ifdef TYPE_F16
            [[unroll]] for (int c = 0; c < 4; c++) v[r][c] = half_of(block, r, step_ * 8 + h * 4 + c);
#else
            uint own[STEP_PLANES];
            [[unroll]] for (int i = 0; i < STEP_PLANES; i++) own[i] = q[r * STEP_PLANES + i];
            v[r] = columns(own, hi[r], step_, h);
#endif
        }
        [[unroll]] for (int t = 0; t < int(NT); t++) {
            vec4 a = Floats(x_row[t]).f[x + h];
#ifdef OFFSET
            if (NT == 1) {
                x_sum[0] = (a.x + a.y) + (a.z + a.w) + x_sum[0];     /* as block_sums */
                a *= units(h);
            }
#endif
            [[unroll]] for (int r = 0; r < ROWS; r++) part[t * ROWS + r] = fma(v[r].w, a.w, fma(v[r].z, a.z, fma(v[r].y, a.y, fma(v[r].x, a.x, part[t * ROWS + r]))));
        }
    }
}

/* Adds the products of block k (of BLOCK_STEPS times eight columns) to sum, or part: its quants are at device address `rows`, what lies behind all quants of the panel at `behind` */
void multiply_block(uvec2 rows, Words behind, uint kb, uint k) {
    uvec2 block = ahead(rows, k * BLOCK_STEPS / 4 * (NQ4 * 32));
    uvec2 hi[ROWS];
    [[unroll]] for (int r = 0; r < ROWS; r++) {
        hi[r] = uvec2(0);
#if NHI > 0
        [[unroll]] for (int i = 0; i < NHI; i++) hi[r][i] = word(behind, (k * NHI + i) * 8, r);
#endif
    }
    [[unroll]] for (int p = 0; p < PARTS; p++) {
        float d[ROWS], m[ROWS];
        [[unroll]] for (int r = 0; r < ROWS; r++) scales(behind, kb * NHI * 8, kb, k, p, r, d[r], m[r]);
#ifdef OFFSET
        [[unroll]] for (int r = 0; r < ROWS; r++) if (NT == 1) d[r] *= 1.0 / UNIT;
        [[unroll]] for (int t = 0; t < int(NT); t++) x_sum[t] = NT > 1 ? Sums(sums_row[t]).f[k] : 0.0;
#endif
#ifndef UNSCALED
        [[unroll]] for (int i = 0; i < int(NT) * ROWS; i++) part[i] = 0.0;
#endif
        [[unroll]] for (int i = 0; i < BLOCK_STEPS / PARTS; i++) {      /* bounds that are constants, for else it is not unrolled, takes twice as long and reads beyond the panel (scalar.glsl) */
            uint at = p * (BLOCK_STEPS / PARTS) + i;
            multiply_step(block, (k * BLOCK_STEPS + at) * 2, hi, BLOCK_STEPS == 4 ? at : k * BLOCK_STEPS % 4 + at);
        }
#if defined(OFFSET)
        [[unroll]] for (int i = 0; i < int(NT) * ROWS; i++) sum[i] = fma(d[i % ROWS], part[i], fma(m[i % ROWS], x_sum[i / ROWS], sum[i]));
#elif !defined(UNSCALED)
        [[unroll]] for (int i = 0; i < int(NT) * ROWS; i++) sum[i] = fma(d[i % ROWS], part[i], sum[i]);
#endif
    }
}

/* sum: those of ROWS rows of a lane, from row `first` on, of the panel at device address `panel`, with the NT rows x_row */
void multiply_rows(uvec2 panel, uint first, uint kb) {
    uvec2 rows = ahead_bytes(panel, first * LANES / 8 * (NQ4 * 128) + first * LANES % 8 * ROW_BYTES);
    Words behind = Words(ahead(panel, kb * NQ4 * 32 + first * LANES / 4));   /* the planes after the quants, of all 32 rows */
    [[unroll]] for (int i = 0; i < int(NT) * ROWS; i++) sum[i] = part[i] = 0.0;
    uint k = 0;
    [[dont_unroll]] do {
#ifdef SCALE_K
        unpack_scales(behind, kb * NHI * 8, k);
        [[dont_unroll]] do { multiply_block(rows, behind, kb, k); k++; } while ((k & 3) != 0);
#else
        multiply_block(rows, behind, kb, k);
        k++;
#endif
    } while (k < kb * 4 / BLOCK_STEPS);
#ifdef UNSCALED
    [[unroll]] for (int i = 0; i < int(NT) * ROWS; i++) sum[i] = part[i];
#endif
}

/* acc: the sums of the panel at device address `panel` with the NT rows x_row */
void multiply(uvec2 panel, uint kb) {
    uint first = 0;
    [[dont_unroll]] do {
        multiply_rows(panel, first, kb);
        [[unroll]] for (int t = 0; t < int(NT); t++)
            [[unroll]] for (int r = 0; r < int(RPL); r++)
                if (ROWS > 1 || r == first) acc[t * RPL + r] = sum[t * ROWS + r % ROWS];
        first += ROWS;
    } while (first < RPL);
}
