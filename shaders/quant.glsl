/* Weights as vkmoe keeps them: panels of 32 rows (src/nn/types.c writes them). A panel holds, for all blocks of 32 columns, planes that a lane
 * reads at [block][row], so neighbouring lanes read neighbouring words:
 *     q   NQ4 uvec4 a block and row     the quants; 4-bit types: byte b of word w has column 8w+b low, 8w+4+b high
 *     hi  NHI uint  a block and row     the bits above four
 *     s   scales, by type
 * K-quants keep their 16-byte header (d, dmin, packed 6-bit scales) a super-block and row. Values are dequantised exactly, in f32: a block of 32 columns is
 * opened once (scales, and quants where they fit a uvec4), then taken in STEPS steps of CHUNKS times four columns. Formats: GGML block layouts Q4_0 ... Q6_K.
 * Steps exist because a CPU driver's compiler takes seconds over 32 unrolled columns of a 16-token tile: a loop over steps keeps its code small. */

#if defined(TYPE_F32)
#  define NQ4 8
#  define CHUNKS 1
#elif defined(TYPE_F16) || defined(TYPE_BF16)
#  define NQ4 4
#  define CHUNKS 2
#elif defined(TYPE_Q8_0)
#  define NQ4 2
#  define CHUNKS 4
#  define SCALE_D
#else
#  define NQ4 1
#  define CHUNKS 2
#  define NIBBLES
#endif
#define STEPS (8 / CHUNKS)
#if defined(TYPE_Q5_0) || defined(TYPE_Q5_1) || defined(TYPE_Q5_K)
#  define NHI 1
#elif defined(TYPE_Q6_K)
#  define NHI 2
#else
#  define NHI 0
#endif
#if defined(TYPE_Q4_0) || defined(TYPE_Q5_0)
#  define SCALE_D          /* x = d (q - bias): two blocks' d share a word */
#elif defined(TYPE_Q4_1) || defined(TYPE_Q5_1)
#  define SCALE_DM         /* x = d q + m */
#elif defined(TYPE_Q4_K) || defined(TYPE_Q5_K)
#  define SCALE_K          /* x = d sc q - dmin mn */
#endif

#if defined(TYPE_Q4_0)
#  define BIAS 8.0
#elif defined(TYPE_Q5_0)
#  define BIAS 16.0
#elif defined(TYPE_Q6_K)
#  define BIAS 32.0
#endif

struct Block {
#ifdef NIBBLES
    uvec4 q;
#else
    uint base, at;         /* of the panel; uvec4 of the first step's quants in it, each step is 32 further */
#endif
#if NHI > 0
    uint hi[NHI];
#endif
#if defined(SCALE_D) || defined(SCALE_DM) || defined(SCALE_K)
    float d;
#endif
#if defined(SCALE_DM) || defined(SCALE_K)
    float m;
#endif
#if defined(TYPE_Q6_K)
    float d[2];            /* a scale for 16 columns */
#endif
};

/* size of a panel in uvec4, for kb blocks of 32 columns; src/model/types.c computes the same */
uint panel_size(uint kb) {
    uint words = kb * (NQ4 * 4 + NHI);
#if defined(SCALE_D)
    words += (kb + 1) / 2;
#elif defined(SCALE_DM)
    words += kb;
#elif defined(SCALE_K)
    words += kb / 8 * 4;
#elif defined(TYPE_Q6_K)
    words += kb / 8 * 5;
#endif
    return words * 8;      /* 32 rows, 4 words a uvec4 */
}

float half_at(uint word, uint high) { vec2 h = unpackHalf2x16(word); return high != 0 ? h.y : h.x; }

/* uvec4 `i` of the plane that begins at uvec4 `base`. HAS_PLANES, PLANES not 0: its words (F16: halves) lie apart, plane by plane (vkm_panel_planes), as matmul_cpu.glsl reads them. */
uvec4 quad(uint s, uint base, uint i) {
#ifdef HAS_PLANES
    if (PLANES != 0) {                                 /* quants: of a block and eight rows */
        uint row = i & 31u, at = base * 4 + i / (NQ4 * 32) * (NQ4 * 128) + row / 8 * (NQ4 * 32) + i / 32 % NQ4 * 32;
#  ifdef TYPE_F16
        uint by = row % 2 * 16;
        uvec4 q;
        at += row % 8 / 2;
        [[unroll]] for (int w = 0; w < 4; w++) q[w] = SLAB_WORD(s, at + w * 8) >> by & 0xffffu | SLAB_WORD(s, at + w * 8 + 4) >> by << 16;
        return q;
#  else
        at += row % 8;
        return uvec4(SLAB_WORD(s, at), SLAB_WORD(s, at + 8), SLAB_WORD(s, at + 16), SLAB_WORD(s, at + 24));
#  endif
    }
#endif
    return SLAB_QUAD(s, base + i);
}

#ifdef HAS_PLANES
/* The same of scales, whose planes have all 32 rows */
uvec4 scale_quad(uint s, uint base, uint i) {
    uint at = base * 4 + (i & ~31u) * 4 + (i & 31u);
    return PLANES != 0 ? uvec4(SLAB_WORD(s, at), SLAB_WORD(s, at + 32), SLAB_WORD(s, at + 64), SLAB_WORD(s, at + 96)) : SLAB_QUAD(s, base + i);
}
#else
#  define scale_quad quad
#endif

/* block k of row `row` (0..31) of the panel at uvec4 offset `base` of slab `s` */
Block block_load(uint s, uint base, uint kb, uint k, uint row) {
    Block b;
#ifdef NIBBLES
    b.q = quad(s, base, k * 32 + row);
#else
    b.base = base; b.at = k * NQ4 * 32 + row;
#endif
    uint at = base * 4 + kb * NQ4 * 128;                       /* words from here on */
#if NHI > 0
    [[unroll]] for (int i = 0; i < NHI; i++) b.hi[i] = SLAB_WORD(s, at + (k * NHI + i) * 32 + row);
    at += kb * NHI * 32;
#endif
#if defined(SCALE_D)
    b.d = half_at(SLAB_WORD(s, at + (k >> 1) * 32 + row), k & 1);
#elif defined(SCALE_DM)
    vec2 dm = unpackHalf2x16(SLAB_WORD(s, at + k * 32 + row));
    b.d = dm.x; b.m = dm.y;
#elif defined(SCALE_K)
    uvec4 h = scale_quad(s, at / 4, (k >> 3) * 32 + row);
    uint j = k & 7, n = (j & 3) * 8;
    uint lo = h.y >> n, mid = h.z >> n, hi = h.w >> n;
    uint sc = j < 4 ? lo & 63u : (hi & 15u) | ((lo >> 2) & 48u);
    uint mn = j < 4 ? mid & 63u : ((hi >> 4) & 15u) | ((mid >> 2) & 48u);
    vec2 d = unpackHalf2x16(h.x);
    b.d = d.x * float(sc); b.m = -(d.y * float(mn));
#elif defined(TYPE_Q6_K)
    /* one word holds the int8 scales of four times 16 columns, that is of two blocks */
    uint sc = scale_quad(s, at / 4, (k >> 3) * 32 + row)[(k & 7) >> 1] >> ((k & 1) * 16);
    float d = unpackHalf2x16(SLAB_WORD(s, at + kb / 8 * 128 + (k >> 3) * 32 + row)).x;
    b.d[0] = d * float(bitfieldExtract(int(sc), 0, 8));
    b.d[1] = d * float(bitfieldExtract(int(sc), 8, 8));
#endif
    return b;
}

/* The bytes of w as floats. Where a device converts integers slowly they become the low bits of 2^23 + byte, which takes an OR and an exact subtraction
 * (H200, one token, gate|up of Mixtral in Q4_K: 79 us instead of 90, with a finer split of columns; not measured apart. Other GPUs convert a byte in one instruction). */
layout(constant_id = 31) const uint SLOW_CONVERSION = 0;
vec4 bytes(uint w) {
    uvec4 b = uvec4(w & 255u, (w >> 8) & 255u, (w >> 16) & 255u, w >> 24);
    return SLOW_CONVERSION != 0 ? uintBitsToFloat(b | 0x4b000000u) - 8388608.0 : vec4(b);
}

#if defined(NIBBLES) && NHI == 0
#  define FOUR_BITS
#  ifdef SCALE_D
float block_min(const Block b) { return -BIAS * b.d; }
#  else
float block_min(const Block b) { return b.m; }
#  endif

/* Of 4-bit quants, for sums of a whole block: each as 1 + q / 16, two instructions a quant and no subtraction. With them the block's sum of products is
 * 16 d S + (m - 16 d) X, S the sum of x (1 + q / 16), X that of x: no scale for each quant either. It costs two bits of precision of 24. H200, gate|up of Mixtral in Q4_K, one token: 75 us instead of 80. */
vec4 sixteenths(uint q, const int c) {
    uvec4 b = c == 0 ? uvec4(q << 19, q << 11, q << 3, q >> 5) : uvec4(q << 15, q << 7, q >> 1, q >> 9);
    return uintBitsToFloat(b & 0x00780000u | 0x3f800000u);
}
#endif

/* What a step takes from memory, or from the block */
#ifdef NIBBLES
#define STEP_WORDS uint
uint block_step(uint s, const Block b, uint i) { return b.q[i]; }
#else
#define STEP_WORDS uvec4
uvec4 block_step(uint s, const Block b, uint i) { return quad(s, b.base, b.at + i * 32); }
#endif

/* columns 4c .. 4c+3 of step i; c is a constant once its loop is unrolled */
vec4 block_get(const Block b, STEP_WORDS q, uint i, const int c) {
#if defined(TYPE_F32)
    return uintBitsToFloat(q);
#elif defined(TYPE_F16)
    uvec2 w = c == 0 ? q.xy : q.zw;
    return vec4(unpackHalf2x16(w.x), unpackHalf2x16(w.y));
#elif defined(TYPE_BF16)
    uvec2 w = c == 0 ? q.xy : q.zw;
    return uintBitsToFloat(uvec4(w.x << 16, w.x & 0xffff0000u, w.y << 16, w.y & 0xffff0000u));
#elif defined(TYPE_Q8_0)
    int w = int(q[c]);
    return b.d * vec4(bitfieldExtract(w, 0, 8), bitfieldExtract(w, 8, 8), bitfieldExtract(w, 16, 8), w >> 24);
#else
    uint w = (q >> 4 * c) & 0x0f0f0f0fu;
#  if NHI == 1
    w |= ((b.hi[0] >> (2 * i + c)) & 0x01010101u) << 4;
#  elif NHI == 2
    w |= ((b.hi[c] >> 2 * i) & 0x03030303u) << 4;
#  endif
    vec4 v = bytes(w);
#  if defined(TYPE_Q6_K)
    return (i < 2 ? b.d[0] : b.d[1]) * (v - BIAS);
#  elif defined(SCALE_D)
    return b.d * (v - BIAS);
#  else
    return b.d * v + b.m;
#  endif
#endif
}
