/* The matrix multiplication for CPU drivers that load from a uniform address once for all lanes (caps.scalar_loads; llvmpipe of Mesa 26). Same sums in the same order as matmul.glsl,
 * but for the scale of a block, which multiplies the block's sum. What such a driver makes of a load decides everything (read off its machine code; q4_0, one core of a Zen 3, GFLOP/s):
 *     descriptor, address differs by lane: a branch, a bounds check and an insert for each lane, 50 instructions           matmul.glsl: decode 6, 16 tokens 8
 *     descriptor, uniform: a branch and bounds check for each word, and every load of the loop body hoisted and spilled
 *     device address, uniform: one instruction, no mask, no check                                                          here: decode 15, 16 tokens 20 to 32
 * So everything is read at uniform addresses (scalar.glsl), with words of neighbouring rows side by side (vkm_panel_planes), a lane picking its own of LANES broadcast words.
 * Tried and slower: x through shared memory (it is bounds-checked too), x by lanes and subgroupBroadcast, two blocks a pass (spills).
 * Tried, and not told apart from this in whole models: fma(), which is one instruction there instead of two. Tiles of one row take 0.65 to 0.9 times as long with it (Q4_K, Q4_0, F16; Q6_K 1.15), of four
 * as long, of eight 1.1 to 1.3, of sixteen 1.3 and more; and all sizes have to round alike. Of the 1,000 instructions of a step of eight columns, eight tokens and four
 * rows 256 are then products, 444 move sums from and to the stack (it holds two columns of weights in registers and goes through all tokens, whatever the order here: pairs of tokens first
 * give the same code), 130 unpack weights, 100 are the loop's masks. Two or four steps an iteration: no faster.
 * Two rows of a lane at a time, or one, in a loop of its own each, so that sums stay in registers: tiles of 8 and 16 as fast (Q8_0 0.93 of the time), of one row 1.2 and 1.5 times as long, F32 twice.
 * Tried too: the weights of 8, 16 or 32 columns unpacked once, then tokens four at a time, each four in a loop of its own so that their sums stay in registers: 0.9 times the speed; two at a time: a tenth.
 * A workgroup is one subgroup of LANES lanes; a lane owns RPL rows of a panel for all NT tokens. */
layout(constant_id = 4) const uint RPL = 4;
layout(constant_id = 5) const uint NT = 16;

const uint LANES = 32 / RPL;                        /* 4, 8 or 16 */
#include "scalar.glsl"

float acc[NT * RPL];
float part[NT * RPL];                               /* of the block, before its scale */
uvec2 x_row[NT];                                    /* device addresses of the rows of x */

/* ---- types: as in quant.glsl, with planes of words instead of uvec4 */

#if defined(TYPE_Q6_K)
#  define PARTS 2          /* scales of a block of 32 columns */
#else
#  define PARTS 1
#endif
#if defined(TYPE_F32) || defined(TYPE_F16) || defined(TYPE_BF16)
#  define UNSCALED
#elif !defined(TYPE_Q4_0) && !defined(TYPE_Q8_0)
#  define OFFSET           /* x = d q + m */
#endif
#if defined(TYPE_Q4_0)    /* tokens up to which a block's steps are unrolled; with more, or more to do for a weight, they spill: Q4_K at 4 tokens is 15 GFLOP/s so and 20 in a loop */
#  define UNROLL 4
#else
#  define UNROLL 1
#endif
#define STEP_PLANES (NQ4 == 1 ? 1 : NQ4)            /* planes of eight columns */

/* scale and offset of part p of block k */
void scales(Words w, uint at, uint kb, uint k, int p, int r, out float d, out float m) {
    d = 1.0; m = 0.0;
#if defined(SCALE_D)
    d = unpackHalf2x16(word(w, at + (k >> 1) * 8, r) >> (k & 1) * 16).x;
#  if defined(TYPE_Q5_0)
    m = -16.0 * d;
#  endif
#elif defined(SCALE_DM)
    vec2 dm = unpackHalf2x16(word(w, at + k * 8, r));
    d = dm.x; m = dm.y;
#elif defined(SCALE_K)
    at += (k >> 3) * 32;
    uint j = k & 7, n = (j & 3) * 8;
    uint lo = word(w, at + 8, r) >> n, mid = word(w, at + 16, r) >> n, hi = word(w, at + 24, r) >> n;
    uint sc = j < 4 ? lo & 63u : (hi & 15u) | ((lo >> 2) & 48u);
    uint mn = j < 4 ? mid & 63u : ((hi >> 4) & 15u) | ((mid >> 2) & 48u);
    vec2 h = unpackHalf2x16(word(w, at, r));
    d = h.x * float(sc); m = -(h.y * float(mn));
#elif defined(TYPE_Q6_K)
    uint sc = word(w, at + (k >> 3) * 32 + ((k & 7) >> 1) * 8, r) >> (k & 1) * 16;
    d = unpackHalf2x16(word(w, at + kb / 8 * 32 + (k >> 3) * 8, r)).x * float(bitfieldExtract(int(sc), 8 * p, 8));
    m = -32.0 * d;
#endif
}

/* the four columns of half h (0, 1) of a step of eight, from the step's words; hi: the block's words above four bits */
vec4 columns(const uint q[STEP_PLANES], uvec2 hi, uint step_, const int h) {
#if defined(TYPE_F32)
    return vec4(uintBitsToFloat(q[4 * h]), uintBitsToFloat(q[4 * h + 1]), uintBitsToFloat(q[4 * h + 2]), uintBitsToFloat(q[4 * h + 3]));
#elif defined(TYPE_F16)
    return vec4(unpackHalf2x16(q[2 * h]), unpackHalf2x16(q[2 * h + 1]));
#elif defined(TYPE_BF16)
    return uintBitsToFloat(uvec4(q[2 * h] << 16, q[2 * h] & 0xffff0000u, q[2 * h + 1] << 16, q[2 * h + 1] & 0xffff0000u));
#elif defined(TYPE_Q8_0)
    int v = int(q[h]);
    return vec4(v << 24 >> 24, v << 16 >> 24, v << 8 >> 24, v >> 24);
#elif defined(TYPE_Q4_0)
    int v = int(q[0] ^ 0x88888888u) << 4 * (1 - h);     /* q - 8 in two's complement */
    return vec4(v << 24 >> 28, v << 16 >> 28, v << 8 >> 28, v >> 28);
#else
    uint v = q[0] >> 4 * h & 0x0f0f0f0fu;
#  if NHI == 1
    v |= (hi.x >> 2 * step_ + h & 0x01010101u) << 4;
#  elif NHI == 2
    v |= (hi[h] >> 2 * step_ & 0x03030303u) << 4;
#  endif
    return vec4(v & 255u, v >> 8 & 255u, v >> 16 & 255u, v >> 24);
#endif
}

/* eight columns, whose planes begin at `planes` and whose x are vec4 x, x + 1 of a row */
void multiply_step(uvec2 planes, uint x, const uvec2 hi[RPL], uint step_) {
    Words w = Words(planes);
    uint q[RPL * STEP_PLANES];
    [[unroll]] for (int r = 0; r < int(RPL); r++)
        [[unroll]] for (int i = 0; i < STEP_PLANES; i++) q[r * STEP_PLANES + i] = word(w, i * 8, r);
    [[unroll]] for (int h = 0; h < 2; h++) {
        vec4 v[RPL];
        [[unroll]] for (int r = 0; r < int(RPL); r++) {
            uint own[STEP_PLANES];
            [[unroll]] for (int i = 0; i < STEP_PLANES; i++) own[i] = q[r * STEP_PLANES + i];
            v[r] = columns(own, hi[r], step_, h);
        }
        [[unroll]] for (int t = 0; t < int(NT); t++) {
            vec4 a = Floats(x_row[t]).f[x + h];
            [[unroll]] for (int r = 0; r < int(RPL); r++) {
                float s = part[t * RPL + r];
                s += v[r].x * a.x; s += v[r].y * a.y; s += v[r].z * a.z; s += v[r].w * a.w;
                part[t * RPL + r] = s;
            }
        }
    }
}

/* acc: the sums of the panel at device address `panel` with the NT rows x_row */
void multiply(uvec2 panel, uint kb) {
    const uint steps = 4 / PARTS;
    [[unroll]] for (int i = 0; i < int(NT * RPL); i++) acc[i] = part[i] = 0.0;
    Words behind = Words(ahead(panel, kb * NQ4 * 32));  /* the planes after the quants */
    uint k = 0;
    [[dont_unroll]] do {
        uvec2 block = ahead(panel, k * NQ4 * 32);
        uvec2 hi[RPL];
        [[unroll]] for (int r = 0; r < int(RPL); r++) {
            hi[r] = uvec2(0);
#if NHI > 0
            [[unroll]] for (int i = 0; i < NHI; i++) hi[r][i] = word(behind, (k * NHI + i) * 8, r);
#endif
        }
        [[unroll]] for (int p = 0; p < PARTS; p++) {
#ifndef UNSCALED
            float d[RPL], m[RPL];
            [[unroll]] for (int r = 0; r < int(RPL); r++) scales(behind, kb * NHI * 8, kb, k, p, r, d[r], m[r]);
            [[unroll]] for (int i = 0; i < int(NT * RPL); i++) part[i] = 0.0;
#endif
            uint first = p * steps;                      /* in steps of eight columns */
#ifdef OFFSET
            [[unroll]] for (int t = 0; t < int(NT); t++) {
                float sum = 0.0;
                [[unroll]] for (uint i = 0; i < 2 * steps; i++) { vec4 a = Floats(x_row[t]).f[k * 8 + first * 2 + i]; sum += (a.x + a.y) + (a.z + a.w); }
                [[unroll]] for (int r = 0; r < int(RPL); r++) acc[t * RPL + r] += m[r] * sum;
            }
#endif
            if (NT > UNROLL) {
                uint i = first;
                [[dont_unroll]] do {
                    multiply_step(ahead(block, i * STEP_PLANES * 8), k * 8 + i * 2, hi, i);
                    i++;
                } while (i < first + steps);
            } else {
                [[unroll]] for (uint i = first; i < first + steps; i++) multiply_step(ahead(block, i * STEP_PLANES * 8), k * 8 + i * 2, hi, i);
            }
#ifndef UNSCALED
            [[unroll]] for (int t = 0; t < int(NT); t++)
                [[unroll]] for (int r = 0; r < int(RPL); r++) acc[t * RPL + r] += d[r] * part[t * RPL + r];
#endif
        }
        k++;
    } while (k < kb);
#ifdef UNSCALED
    [[unroll]] for (int i = 0; i < int(NT * RPL); i++) acc[i] = part[i];
#endif
}
