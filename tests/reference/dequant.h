/* Block formats of GGUF as they lie in the file -> f32, bit for bit what ggml's reference gives (moe-models facts, section 5.3). */
#ifndef REF_DEQUANT_H
#define REF_DEQUANT_H

#include <stdbool.h>
#include <stdint.h>

/* Ids of ggml types; the ones listed here are those ref_dequant knows. */
enum ref_type { REF_F32 = 0, REF_F16 = 1, REF_Q4_0 = 2, REF_Q4_1 = 3, REF_Q5_0 = 6, REF_Q5_1 = 7, REF_Q8_0 = 8, REF_Q4_K = 12, REF_Q5_K = 13,
                REF_Q6_K = 14, REF_BF16 = 30 };

/* x [n] from n elements of raw blocks; n is a whole number of blocks. false: a type that is not listed above. */
bool ref_dequant(uint32_t type, const void *blocks, uint64_t n, float *x);

float ref_half(uint16_t bits);       /* IEEE 754 binary16 -> f32, exact */
uint16_t ref_to_half(float x);       /* to nearest, ties to even; overflow gives infinity */
float ref_bf16(uint16_t bits);
uint16_t ref_to_bf16(float x);       /* to nearest, ties to even */

#endif
