/* Writes GGUF files for tests: keys and tensors, and random quantised weights without a quantiser. Out of memory ends the test program. */
#ifndef REF_GGUFWRITE_H
#define REF_GGUFWRITE_H

#include "reference/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- a growing row of little-endian bytes, for files that no correct writer would make */
struct ref_bytes { uint8_t *at; size_t n, room; };

void ref_put(struct ref_bytes *b, const void *data, size_t n);
void ref_put_int(struct ref_bytes *b, uint64_t x, unsigned n_bytes);
void ref_put_str(struct ref_bytes *b, const char *s);                    /* u64 length, characters */
void ref_put_pad(struct ref_bytes *b, size_t alignment);                 /* zeros up to a multiple */
bool ref_bytes_save(const struct ref_bytes *b, const char *path);
void ref_bytes_free(struct ref_bytes *b);

/* ---- files */
struct ref_gguf {
    uint32_t version;            /* 0: 3 */
    uint32_t alignment;          /* 0: 32, and no key for it */
    uint64_t n_keys, n_tensors;
    struct ref_bytes keys, infos, data;
};

/* Keys. Type ids are those of enum vkm_gguf_type. */
void ref_key_int(struct ref_gguf *w, const char *key, uint32_t type, int64_t x);
void ref_key_u32(struct ref_gguf *w, const char *key, uint32_t x);
void ref_key_f32(struct ref_gguf *w, const char *key, float x);
void ref_key_f64(struct ref_gguf *w, const char *key, double x);
void ref_key_bool(struct ref_gguf *w, const char *key, bool x);
void ref_key_str(struct ref_gguf *w, const char *key, const char *x);
void ref_key_strs(struct ref_gguf *w, const char *key, const char *const *x, uint64_t n);
void ref_key_f32s(struct ref_gguf *w, const char *key, const float *x, uint64_t n);
void ref_key_ints(struct ref_gguf *w, const char *key, uint32_t type, const int64_t *x, uint64_t n);

/* Appends a tensor, ne [n_dims] with the contiguous dimension first. `data`: raw blocks, copied; their size follows from type and ne. */
void ref_tensor(struct ref_gguf *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne, const void *data);

struct ref_bytes ref_gguf_bytes(const struct ref_gguf *w);               /* the whole file; free with ref_bytes_free */
bool ref_gguf_save(const struct ref_gguf *w, const char *path);
void ref_gguf_free(struct ref_gguf *w);

/* ---- random weights: n elements of a type ref_dequant knows, of mean about 0 and the given standard deviation after dequantisation.
 * Quantised: uniformly random quants and K scales; the block's scale makes up for them, varied by +-40 % and in sign. */
void ref_random_blocks(struct ref_rng *rng, uint32_t type, uint64_t n, double std, void *blocks);

#endif
