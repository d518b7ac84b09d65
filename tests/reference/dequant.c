/* Every product of a scale and a quant below fits the 24 bits of an f32, so that results do not depend on whether a compiler contracts a
 * product and a sum into one instruction: 11 bits of half, 6 of a K scale (8 in Q6_K, with room for -128 and -32), 4 to 8 of a quant. */
#include "reference/dequant.h"
#include "gguf/gguf.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- 16-bit floats */

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

float ref_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) return from_bits(sign | to_bits((float)mantissa * 0x1p-24f));
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t ref_to_half(float x)
{
    uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);                                     /* from 65520 on */
    if (magnitude < 0x38800000) return (uint16_t)(sign | (uint32_t)lrintf(fabsf(x) * 0x1p24f));        /* below 2^-14: subnormal */
    return (uint16_t)(sign | (((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13) - (112u << 10)));
}

float ref_bf16(uint16_t bits) { return from_bits((uint32_t)bits << 16); }

uint16_t ref_to_bf16(float x)
{
    uint32_t bits = to_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ---------------------------------------------------------------- blocks of 32 */

static uint16_t u16(const uint8_t *b) { return (uint16_t)(b[0] | b[1] << 8); }
static uint32_t u32(const uint8_t *b) { return u16(b) | (uint32_t)u16(b + 2) << 16; }
static float half_at(const uint8_t *b) { return ref_half(u16(b)); }

/* Elements 0..15 are the low nibbles of 16 bytes, 16..31 the high ones. */
static int nibble(const uint8_t *qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
static int fifth_bit(const uint8_t *qh, int i) { return (int)(u32(qh) >> i & 1) << 4; }

static void f32(const uint8_t *b, float *x) { x[0] = from_bits(u32(b)); }
static void f16(const uint8_t *b, float *x) { x[0] = half_at(b); }
static void bf16(const uint8_t *b, float *x) { x[0] = ref_bf16(u16(b)); }

static void q4_0(const uint8_t *b, float *x)
{
    for (int i = 0; i < 32; i++) x[i] = half_at(b) * (float)(nibble(b + 2, i) - 8);
}

static void q4_1(const uint8_t *b, float *x)
{
    for (int i = 0; i < 32; i++) x[i] = half_at(b) * (float)nibble(b + 4, i) + half_at(b + 2);
}

static void q5_0(const uint8_t *b, float *x)
{
    for (int i = 0; i < 32; i++) x[i] = half_at(b) * (float)((nibble(b + 6, i) | fifth_bit(b + 2, i)) - 16);
}

static void q5_1(const uint8_t *b, float *x)
{
    for (int i = 0; i < 32; i++) x[i] = half_at(b) * (float)(nibble(b + 8, i) | fifth_bit(b + 4, i)) + half_at(b + 2);
}

static void q8_0(const uint8_t *b, float *x)
{
    for (int i = 0; i < 32; i++) x[i] = half_at(b) * (float)(int8_t)b[2 + i];
}

/* ---------------------------------------------------------------- super-blocks of 256 */

/* Scale and min of sub-block j (of 8): 6 bits each, packed in the 12 bytes s. */
static void k_scale(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

static int k_nibble(const uint8_t *qs, int i)
{
    uint8_t byte = qs[32 * (i / 64) + i % 32];
    return i / 32 % 2 ? byte >> 4 : byte & 15;
}

static float k_value(const uint8_t *b, int i, int q)
{
    int scale, min;
    k_scale(b + 4, i / 32, &scale, &min);
    return half_at(b) * (float)scale * (float)q - half_at(b + 2) * (float)min;
}

static void q4_k(const uint8_t *b, float *x)
{
    for (int i = 0; i < 256; i++) x[i] = k_value(b, i, k_nibble(b + 16, i));
}

static void q5_k(const uint8_t *b, float *x)
{
    for (int i = 0; i < 256; i++) x[i] = k_value(b, i, k_nibble(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4);
}

static void q6_k(const uint8_t *b, float *x)
{
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        uint8_t byte = b[64 * half + 32 * (quarter & 1) + l];
        int low = quarter < 2 ? byte & 15 : byte >> 4, high = b[128 + 32 * half + l] >> 2 * quarter & 3;
        x[i] = half_at(b + 208) * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

/* ---------------------------------------------------------------- dispatch */

bool ref_dequant(uint32_t type, const void *blocks, uint64_t n, float *x)
{
    static void (*const by_type[])(const uint8_t *, float *) = {
        [REF_F32] = f32, [REF_F16] = f16, [REF_BF16] = bf16, [REF_Q4_0] = q4_0, [REF_Q4_1] = q4_1, [REF_Q5_0] = q5_0, [REF_Q5_1] = q5_1,
        [REF_Q8_0] = q8_0, [REF_Q4_K] = q4_k, [REF_Q5_K] = q5_k, [REF_Q6_K] = q6_k,
    };
    if (type >= VKM_COUNT(by_type) || !by_type[type]) return false;
    const struct vkm_ggml_type *t = vkm_ggml_type_find(type);
    for (uint64_t i = 0; i < n / t->block_elems; i++) by_type[type]((const uint8_t *)blocks + i * t->block_bytes, x + i * t->block_elems);
    return true;
}
