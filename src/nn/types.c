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

/* A panel's words are each written once, and all rows of a block of 32 columns one after the other: runs of 128 or 512 bytes, which suit caches and
 * write-combined memory alike. */
#define R VKM_PANEL_ROWS
#define EACH_ROW(r) for (uint32_t r = 0; r < R; r++)

/* Low and high halves of 32 bytes, as q has them: byte b of word w is column 8w + b low, 8w + 4 + b high. */
static inline void split_nibbles(const uint8_t *at, uint32_t *restrict low, uint32_t *restrict high)
{
    for (int w = 0; w < 4; w++) {
        uint32_t x = u32(at + 8 * w), y = u32(at + 8 * w + 4);
        low[w] = (x & 0x0f0f0f0fu) | (y & 0x0f0f0f0fu) << 4;
        high[w] = (x >> 4 & 0x0f0f0f0fu) | (y & 0xf0f0f0f0u);
    }
}

/* Exchanges the bits of *b under the mask with those of *a n places above. */
static inline void swap_bits(uint32_t *a, uint32_t *b, int n, uint32_t mask)
{
    uint32_t t = (*a >> n ^ *b) & mask;
    *a ^= t << n;
    *b ^= t;
}

/* Of eight words, whose bytes have eight bits each: exchanges the digit `step` of the word's number with the same digit of the bit's number. */
static inline void swap_digits(uint32_t w[8], int step, int n, uint32_t mask)
{
    for (int i = 0; i < 8; i++)
        if (!(i & step)) swap_bits(&w[i], &w[i + step], n, mask);
}

/* ---- plain types */

static uint32_t words_f32(uint32_t kb) { return kb * 32; }
static uint32_t words_f16(uint32_t kb) { return kb * 16; }

/* n_q: uvec4 of a block. Behind the last column come zeros. */
static inline void repack_plain(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel, uint32_t n_q)
{
    for (uint32_t k = 0; k < kb; k++, panel += n_q * R * 4)
        EACH_ROW(r) {
            const uint8_t *src = rows[r] + (size_t)k * n_q * 16;
            uint8_t rest[128] = {0};
            if (cols - k * 32 < 32) src = memcpy(rest, src, cols % 32 * (n_q / 2));
            for (uint32_t i = 0; i < n_q; i++) memcpy(panel + (i * R + r) * 4, src + i * 16, 16);
        }
}
static void repack_f32(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { repack_plain(rows, cols, kb, panel, 8); }
static void repack_f16(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { repack_plain(rows, cols, kb, panel, 4); }

/* ---- blocks of 32 */

/* d, the first half of a block: two neighbours share a word. */
static inline void put_d(const uint8_t *const *rows, uint32_t k, uint32_t kb, uint32_t block_bytes, uint32_t *d)
{
    EACH_ROW(r) {
        const uint8_t *src = rows[r] + (size_t)k * block_bytes;
        d[(size_t)k / 2 * R + r] = u16(src) | (k + 1 < kb ? (uint32_t)u16(src + block_bytes) << 16 : 0);
    }
}

static uint32_t words_q8_0(uint32_t kb) { return kb * 8 + (kb + 1) / 2; }
static void repack_q8_0(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel)
{
    (void)cols;
    uint32_t *d = panel + (size_t)kb * 8 * R;
    for (uint32_t k = 0; k < kb; k++, panel += 8 * R) {
        EACH_ROW(r) {
            memcpy(panel + r * 4, rows[r] + (size_t)k * 34 + 2, 16);
            memcpy(panel + (R + r) * 4, rows[r] + (size_t)k * 34 + 18, 16);
        }
        if (k % 2 == 0) put_d(rows, k, kb, 34, d);
    }
}

static uint32_t words_q4_0(uint32_t kb) { return kb * 4 + (kb + 1) / 2; }
static uint32_t words_q4_1(uint32_t kb) { return kb * 4 + kb; }
static uint32_t words_q5_0(uint32_t kb) { return kb * 5 + (kb + 1) / 2; }
static uint32_t words_q5_1(uint32_t kb) { return kb * 5 + kb; }

/* The fifth bits of 32 columns: column 4c + b to bit c of byte b. The five digits of a bit's number turn by two places. */
static inline uint32_t turn_fifth(uint32_t x)
{
    static const struct { int n; uint32_t mask; } swaps[] = {{14, 0x0000ccccu}, {7, 0x00aa00aau}, {2, 0x0c0c0c0cu}, {1, 0x22222222u}};
    for (int i = 0; i < 4; i++) {
        uint32_t t = (x >> swaps[i].n ^ x) & swaps[i].mask;
        x ^= t ^ t << swaps[i].n;
    }
    return x;
}

/* Q4_0, Q4_1, Q5_0, Q5_1: a block is d [m] [qh] qs; columns 0..15 are the low halves of qs, 16..31 the high ones */
static inline void repack_legacy(const uint8_t *const *rows, uint32_t kb, uint32_t *restrict panel, bool m, bool fifth)
{
    uint32_t *hi = panel + (size_t)kb * 4 * R, *scales = fifth ? hi + (size_t)kb * R : hi;
    const uint32_t header = m ? 4 : 2, block = header + (fifth ? 4 : 0) + 16;
    for (uint32_t k = 0; k < kb; k++, panel += 4 * R) {
        EACH_ROW(r) {
            const uint8_t *src = rows[r] + (size_t)k * block;
            for (int i = 0; i < 2; i++) {
                uint32_t x = u32(src + block - 16 + 8 * i), y = u32(src + block - 12 + 8 * i);
                panel[r * 4 + i] = (x & 0x0f0f0f0fu) | (y & 0x0f0f0f0fu) << 4;
                panel[r * 4 + 2 + i] = (x >> 4 & 0x0f0f0f0fu) | (y & 0xf0f0f0f0u);
            }
            if (fifth) hi[(size_t)k * R + r] = turn_fifth(u32(src + header));
            if (m) scales[(size_t)k * R + r] = u32(src);
        }
        if (!m && k % 2 == 0) put_d(rows, k, kb, block, scales);
    }
}
static void repack_q4_0(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { (void)cols; repack_legacy(rows, kb, panel, false, false); }
static void repack_q4_1(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { (void)cols; repack_legacy(rows, kb, panel, true, false); }
static void repack_q5_0(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { (void)cols; repack_legacy(rows, kb, panel, false, true); }
static void repack_q5_1(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { (void)cols; repack_legacy(rows, kb, panel, true, true); }

/* ---- super-blocks of 256 */

static uint32_t words_q4_k(uint32_t kb) { return kb * 4 + kb / 8 * 4; }
static uint32_t words_q5_k(uint32_t kb) { return kb * 5 + kb / 8 * 4; }
static uint32_t words_q6_k(uint32_t kb) { return kb * 6 + kb / 8 * 5; }

/* Q4_K, Q5_K: d dmin scales[12] [qh 32] qs[128]; the 16-byte header is kept as it is. 32 bytes of qs hold a block in their low halves, the next in the high ones;
 * bit j of qh is the fifth of block j. */
static inline void repack_k(const uint8_t *const *rows, uint32_t kb, uint32_t *restrict panel, bool fifth)
{
    uint32_t *hi = panel + (size_t)kb * 4 * R, *header = fifth ? hi + (size_t)kb * R : hi;
    for (uint32_t s = 0; s < kb / 8; s++, panel += 8 * 4 * R, hi += 8 * R, header += 4 * R)
        EACH_ROW(r) {
            const uint8_t *src = rows[r] + (size_t)s * (fifth ? 176 : 144), *qs = src + (fifth ? 48 : 16);
            memcpy(header + r * 4, src, 16);
            for (uint32_t j = 0; j < 8; j += 2) {
                split_nibbles(qs + 16 * j, panel + (j * R + r) * 4, panel + ((j + 1) * R + r) * 4);
            }
            if (!fifth) continue;
            uint32_t w[8];
            memcpy(w, src + 16, 32);
            swap_digits(w, 4, 4, 0x0f0f0f0fu);
            swap_digits(w, 2, 2, 0x33333333u);
            swap_digits(w, 1, 1, 0x55555555u);
            for (int j = 0; j < 8; j++) hi[j * R + r] = w[j];
        }
}
static void repack_q4_k(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { (void)cols; repack_k(rows, kb, panel, false); }
static void repack_q5_k(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel) { (void)cols; repack_k(rows, kb, panel, true); }

/* Q6_K: ql[128] qh[64] int8 scales[16] d. A half of 128 columns is four blocks g: 0 and 1 in the low halves of the first and second 32 bytes of ql, 2 and 3 in
 * the high ones; bits 2g of qh are the upper two of block g. */
static void repack_q6_k(const uint8_t *const *rows, uint32_t cols, uint32_t kb, uint32_t *restrict panel)
{
    (void)cols;
    uint32_t *hi = panel + (size_t)kb * 4 * R, *scales = hi + (size_t)kb * 2 * R, *d = scales + (size_t)kb / 8 * 4 * R;
    for (uint32_t s = 0; s < kb / 8; s++, scales += 4 * R, d += R)
        EACH_ROW(r) {
            const uint8_t *src = rows[r] + (size_t)s * 210;
            memcpy(scales + r * 4, src + 192, 16);
            d[r] = u16(src + 208);
            for (uint32_t half = 0; half < 2; half++) {
                uint32_t *q = panel + ((size_t)s * 8 + half * 4) * 4 * R + r * 4, *h = hi + ((size_t)s * 8 + half * 4) * 2 * R + r;
                for (uint32_t g = 0; g < 2; g++) {
                    split_nibbles(src + 64 * half + 32 * g, q + g * 4 * R, q + (g + 2) * 4 * R);
                }
                uint32_t w[8];                         /* word 2m + i: even groups of columns in the first word of hi, odd ones in the second */
                memcpy(w, src + 128 + 32 * half, 32);
                swap_digits(w, 4, 4, 0x0f0f0f0fu);
                swap_digits(w, 2, 2, 0x33333333u);
                for (uint32_t g = 0; g < 8; g++) h[g * R] = w[g];
            }
        }
}

#undef R
#undef EACH_ROW

const struct vkm_type vkm_types[] = {
    {0,  "F32",  "f32",  1,   4,   8, 0, false, words_f32,  repack_f32},
    {1,  "F16",  "f16",  1,   2,   4, 0, false, words_f16,  repack_f16},
    {30, "BF16", "bf16", 1,   2,   4, 0, false, words_f16,  repack_f16},
    {2,  "Q4_0", "q4_0", 32,  18,  1, 0, false, words_q4_0, repack_q4_0},
    {3,  "Q4_1", "q4_1", 32,  20,  1, 0, true,  words_q4_1, repack_q4_1},
    {6,  "Q5_0", "q5_0", 32,  22,  1, 1, false, words_q5_0, repack_q5_0},
    {7,  "Q5_1", "q5_1", 32,  24,  1, 1, true,  words_q5_1, repack_q5_1},
    {8,  "Q8_0", "q8_0", 32,  34,  2, 0, false, words_q8_0, repack_q8_0},
    {12, "Q4_K", "q4_k", 256, 144, 1, 0, true,  words_q4_k, repack_q4_k},
    {13, "Q5_K", "q5_k", 256, 176, 1, 1, true,  words_q5_k, repack_q5_k},
    {14, "Q6_K", "q6_k", 256, 210, 1, 2, false, words_q6_k, repack_q6_k},
};
const size_t vkm_type_count = VKM_COUNT(vkm_types);

const struct vkm_type *vkm_type_find(uint32_t id)
{
    for (size_t i = 0; i < vkm_type_count; i++)
        if (vkm_types[i].id == id) return &vkm_types[i];
    return NULL;
}

uint32_t vkm_chunk_panels(uint64_t fit, uint32_t n_panels)
{
    if (fit >= n_panels) return n_panels;
    return (uint32_t)(fit < 4 ? fit : fit / 4 * 4);
}

uint64_t vkm_type_panel_bytes(const struct vkm_type *type, uint32_t kb) { return (uint64_t)type->row_words(kb) * VKM_PANEL_ROWS * 4; }
uint64_t vkm_type_row_bytes(const struct vkm_type *type, uint32_t cols) { return (uint64_t)cols / type->block_cols * type->block_bytes; }

float vkm_type_float(const struct vkm_type *type, const void *data, size_t i)
{
    float f;
    uint16_t h;
    if (type->id == 0) {
        memcpy(&f, (const char *)data + i * 4, 4);
        return f;
    }
    memcpy(&h, (const char *)data + i * 2, 2);
    if (type->id == 1) return vkm_half_to_float(h);
    uint32_t bits = (uint32_t)h << 16;
    memcpy(&f, &bits, 4);
    return f;
}
