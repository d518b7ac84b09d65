#include "types.h"
#include <string.h>

/* The planes of a panel, in this order: q (uvec4 a block and row), hi (words above four bits), scales. shaders/quant.glsl reads what is written here.
 * Block layouts: GGML's Q4_0 ... Q6_K (moe model reference 5.3). */

static uint16_t u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static uint32_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

float vkm_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023u, bits;
    if (exponent == 0) {
        float f = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &f, 4);
        bits |= sign;
    } else {
        bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static uint32_t *q4(uint32_t *panel, uint32_t nq4, uint32_t k, uint32_t i, uint32_t row) { return panel + (((size_t)k * nq4 + i) * VKM_PANEL_ROWS + row) * 4; }

/* 32 values of up to six bits, a byte each, taken as eight little-endian words of four columns (group c = columns 4c .. 4c + 3). */
struct values { uint32_t w[8]; };

/* the low four bits: byte b of word w has column 8w + b low, 8w + 4 + b high */
static void pack_nibbles(const struct values *v, uint32_t out[4])
{
    for (int w = 0; w < 4; w++) out[w] = (v->w[2 * w] & 0x0f0f0f0fu) | (v->w[2 * w + 1] & 0x0f0f0f0fu) << 4;
}

/* the fifth bits: group c is bit c of each byte */
static uint32_t pack_fifth(const struct values *v)
{
    uint32_t x = 0;
    for (int c = 0; c < 8; c++) x |= (v->w[c] >> 4 & 0x01010101u) << c;
    return x;
}

/* the two high bits: even groups in the first word, odd in the second, two bits of each byte a group */
static void pack_high2(const struct values *v, uint32_t out[2])
{
    out[0] = out[1] = 0;
    for (int c = 0; c < 8; c++) out[c & 1] |= (v->w[c] >> 4 & 0x03030303u) << 2 * (c >> 1);
}

/* four columns' fifth bits, from bit 4c of a mask of 32 in column order, to bit 4 of each byte */
static uint32_t spread_fifth(uint32_t mask, int c)
{
    uint32_t four = mask >> 4 * c & 15;
    return (four & 1) << 4 | (four & 2) << 11 | (four & 4) << 18 | (four & 8) << 25;
}

/* ---- plain types */

static uint32_t words_f32(uint32_t kb) { return kb * 32; }
static uint32_t words_f16(uint32_t kb) { return kb * 16; }

static void repack_plain(const uint8_t *src, uint32_t cols, uint32_t nq4, uint32_t bytes, uint32_t *panel, uint32_t row)
{
    uint32_t per = 16 / bytes;                         /* elements of a uvec4 */
    for (uint32_t c = 0; c < cols; c += per) {
        uint32_t n = cols - c < per ? cols - c : per;
        memcpy(q4(panel, nq4, c / 32, c % 32 / per, row), src + (size_t)c * bytes, (size_t)n * bytes);
    }
}
static void repack_f32(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { (void)kb; repack_plain(src, cols, 8, 4, panel, row); }
static void repack_f16(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { (void)kb; repack_plain(src, cols, 4, 2, panel, row); }

/* ---- blocks of 32 */

/* d of two blocks share a word */
static void put_half(uint32_t *words, uint32_t k, uint32_t row, uint16_t h) { words[(size_t)(k >> 1) * VKM_PANEL_ROWS + row] |= (uint32_t)h << 16 * (k & 1); }

static uint32_t words_q8_0(uint32_t kb) { return kb * 8 + (kb + 1) / 2; }
static void repack_q8_0(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row)
{
    uint32_t *scales = panel + (size_t)kb * 8 * VKM_PANEL_ROWS;
    for (uint32_t k = 0; k < cols / 32; k++, src += 34) {
        memcpy(q4(panel, 2, k, 0, row), src + 2, 16);
        memcpy(q4(panel, 2, k, 1, row), src + 18, 16);
        put_half(scales, k, row, u16(src));
    }
}

static uint32_t words_q4_0(uint32_t kb) { return kb * 4 + (kb + 1) / 2; }
static uint32_t words_q4_1(uint32_t kb) { return kb * 4 + kb; }
static uint32_t words_q5_0(uint32_t kb) { return kb * 5 + (kb + 1) / 2; }
static uint32_t words_q5_1(uint32_t kb) { return kb * 5 + kb; }

/* Q4_0, Q4_1, Q5_0, Q5_1: a block is d [m] [qh] qs */
static void repack_legacy(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row, bool m, bool fifth)
{
    uint32_t *hi = panel + (size_t)kb * 4 * VKM_PANEL_ROWS, *scales = fifth ? hi + (size_t)kb * VKM_PANEL_ROWS : hi;
    for (uint32_t k = 0; k < cols / 32; k++) {
        if (m) scales[(size_t)k * VKM_PANEL_ROWS + row] = u32(src);
        else   put_half(scales, k, row, u16(src));
        src += m ? 4 : 2;
        uint32_t qh = 0;
        if (fifth) { qh = u32(src); src += 4; }
        struct values v;
        for (int c = 0; c < 8; c++) {                     /* columns 0..15 are low nibbles, 16..31 high ones */
            uint32_t word = u32(src + 4 * (c & 3));
            v.w[c] = (c < 4 ? word : word >> 4) & 0x0f0f0f0fu;
            if (fifth) v.w[c] |= spread_fifth(qh, c);
        }
        src += 16;
        pack_nibbles(&v, q4(panel, 1, k, 0, row));
        if (fifth) hi[(size_t)k * VKM_PANEL_ROWS + row] = pack_fifth(&v);
    }
}
static void repack_q4_0(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { repack_legacy(src, cols, kb, panel, row, false, false); }
static void repack_q4_1(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { repack_legacy(src, cols, kb, panel, row, true, false); }
static void repack_q5_0(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { repack_legacy(src, cols, kb, panel, row, false, true); }
static void repack_q5_1(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { repack_legacy(src, cols, kb, panel, row, true, true); }

/* ---- super-blocks of 256 */

static uint32_t words_q4_k(uint32_t kb) { return kb * 4 + kb / 8 * 4; }
static uint32_t words_q5_k(uint32_t kb) { return kb * 5 + kb / 8 * 4; }
static uint32_t words_q6_k(uint32_t kb) { return kb * 6 + kb / 8 * 5; }

/* Q4_K, Q5_K: d dmin scales[12] [qh 32] qs[128]; the 16-byte header is kept as it is */
static void repack_k(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row, bool fifth)
{
    uint32_t *hi = panel + (size_t)kb * 4 * VKM_PANEL_ROWS, *header = fifth ? hi + (size_t)kb * VKM_PANEL_ROWS : hi;
    for (uint32_t s = 0; s < cols / 256; s++) {
        memcpy(header + ((size_t)s * VKM_PANEL_ROWS + row) * 4, src, 16);
        const uint8_t *qh = src + 16, *qs = fifth ? src + 48 : src + 16;
        for (uint32_t j = 0; j < 8; j++) {
            struct values v;
            for (uint32_t c = 0; c < 8; c++) {
                v.w[c] = u32(qs + 32 * (j / 2) + 4 * c) >> 4 * (j & 1) & 0x0f0f0f0fu;
                if (fifth) v.w[c] |= (u32(qh + 4 * c) >> j & 0x01010101u) << 4;
            }
            pack_nibbles(&v, q4(panel, 1, s * 8 + j, 0, row));
            if (fifth) hi[(size_t)(s * 8 + j) * VKM_PANEL_ROWS + row] = pack_fifth(&v);
        }
        src += fifth ? 176 : 144;
    }
}
static void repack_q4_k(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { repack_k(src, cols, kb, panel, row, false); }
static void repack_q5_k(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row) { repack_k(src, cols, kb, panel, row, true); }

/* Q6_K: ql[128] qh[64] int8 scales[16] d */
static void repack_q6_k(const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row)
{
    uint32_t *hi = panel + (size_t)kb * 4 * VKM_PANEL_ROWS, *scales = hi + (size_t)kb * 2 * VKM_PANEL_ROWS, *d = scales + (size_t)kb / 8 * 4 * VKM_PANEL_ROWS;
    for (uint32_t s = 0; s < cols / 256; s++, src += 210) {
        memcpy(scales + ((size_t)s * VKM_PANEL_ROWS + row) * 4, src + 192, 16);
        d[(size_t)s * VKM_PANEL_ROWS + row] = u16(src + 208);
        for (uint32_t j = 0; j < 8; j++) {                /* 32 columns: half n = j / 4, group g = j % 4 */
            uint32_t n = j / 4, g = j % 4;
            struct values v;
            for (uint32_t c = 0; c < 8; c++)
                v.w[c] = (u32(src + 64 * n + 32 * (g & 1) + 4 * c) >> (g < 2 ? 0 : 4) & 0x0f0f0f0fu) | (u32(src + 128 + 32 * n + 4 * c) >> 2 * g & 0x03030303u) << 4;
            pack_nibbles(&v, q4(panel, 1, s * 8 + j, 0, row));
            uint32_t h[2];
            pack_high2(&v, h);
            for (uint32_t i = 0; i < 2; i++) hi[((size_t)(s * 8 + j) * 2 + i) * VKM_PANEL_ROWS + row] = h[i];
        }
    }
}

const struct vkm_type vkm_types[] = {
    {0,  "F32",  "f32",  1,   4,   words_f32,  repack_f32},
    {1,  "F16",  "f16",  1,   2,   words_f16,  repack_f16},
    {30, "BF16", "bf16", 1,   2,   words_f16,  repack_f16},
    {2,  "Q4_0", "q4_0", 32,  18,  words_q4_0, repack_q4_0},
    {3,  "Q4_1", "q4_1", 32,  20,  words_q4_1, repack_q4_1},
    {6,  "Q5_0", "q5_0", 32,  22,  words_q5_0, repack_q5_0},
    {7,  "Q5_1", "q5_1", 32,  24,  words_q5_1, repack_q5_1},
    {8,  "Q8_0", "q8_0", 32,  34,  words_q8_0, repack_q8_0},
    {12, "Q4_K", "q4_k", 256, 144, words_q4_k, repack_q4_k},
    {13, "Q5_K", "q5_k", 256, 176, words_q5_k, repack_q5_k},
    {14, "Q6_K", "q6_k", 256, 210, words_q6_k, repack_q6_k},
};
const size_t vkm_type_count = VKM_COUNT(vkm_types);

const struct vkm_type *vkm_type_find(uint32_t id)
{
    for (size_t i = 0; i < vkm_type_count; i++)
        if (vkm_types[i].id == id) return &vkm_types[i];
    return NULL;
}

uint64_t vkm_type_panel_bytes(const struct vkm_type *type, uint32_t kb) { return (uint64_t)type->row_words(kb) * VKM_PANEL_ROWS * 4; }
uint64_t vkm_type_row_bytes(const struct vkm_type *type, uint32_t cols) { return (uint64_t)cols / type->block_cols * type->block_bytes; }
