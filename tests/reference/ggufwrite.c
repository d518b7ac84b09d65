#include "reference/ggufwrite.h"
#include "reference/dequant.h"
#include "gguf/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- bytes */

void ref_put(struct ref_bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n);
        b->at = realloc(b->at, b->room);
        if (!b->at) abort();
    }
    if (n) memcpy(b->at + b->n, data, n);
    b->n += n;
}

void ref_put_int(struct ref_bytes *b, uint64_t x, unsigned n_bytes)
{
    for (unsigned i = 0; i < n_bytes; i++) ref_put(b, &(uint8_t){(uint8_t)(x >> 8 * i)}, 1);
}

void ref_put_str(struct ref_bytes *b, const char *s)
{
    ref_put_int(b, strlen(s), 8);
    ref_put(b, s, strlen(s));
}

void ref_put_pad(struct ref_bytes *b, size_t alignment)
{
    while (b->n % alignment) ref_put(b, "", 1);
}

bool ref_bytes_save(const struct ref_bytes *b, const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool ok = fwrite(b->at, 1, b->n, f) == b->n;
    return fclose(f) == 0 && ok;
}

void ref_bytes_free(struct ref_bytes *b)
{
    free(b->at);
    *b = (struct ref_bytes){0};
}

/* ---------------------------------------------------------------- keys */

static struct ref_bytes *key(struct ref_gguf *w, const char *name, uint32_t type)
{
    w->n_keys++;
    ref_put_str(&w->keys, name);
    ref_put_int(&w->keys, type, 4);
    return &w->keys;
}

static struct ref_bytes *array(struct ref_gguf *w, const char *name, uint32_t element, uint64_t n)
{
    struct ref_bytes *b = key(w, name, VKM_GGUF_ARRAY);
    ref_put_int(b, element, 4);
    ref_put_int(b, n, 8);
    return b;
}

static unsigned width(uint32_t type)
{
    switch (type) {
    case VKM_GGUF_U8: case VKM_GGUF_I8: case VKM_GGUF_BOOL: return 1;
    case VKM_GGUF_U16: case VKM_GGUF_I16: return 2;
    case VKM_GGUF_U64: case VKM_GGUF_I64: return 8;
    default: return 4;
    }
}

static void put_f32(struct ref_bytes *b, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    ref_put_int(b, bits, 4);
}

void ref_key_int(struct ref_gguf *w, const char *name, uint32_t type, int64_t x) { ref_put_int(key(w, name, type), (uint64_t)x, width(type)); }
void ref_key_u32(struct ref_gguf *w, const char *name, uint32_t x) { ref_key_int(w, name, VKM_GGUF_U32, x); }
void ref_key_f32(struct ref_gguf *w, const char *name, float x) { put_f32(key(w, name, VKM_GGUF_F32), x); }
void ref_key_bool(struct ref_gguf *w, const char *name, bool x) { ref_key_int(w, name, VKM_GGUF_BOOL, x); }
void ref_key_str(struct ref_gguf *w, const char *name, const char *x) { ref_put_str(key(w, name, VKM_GGUF_STRING), x); }

void ref_key_f64(struct ref_gguf *w, const char *name, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    ref_put_int(key(w, name, VKM_GGUF_F64), bits, 8);
}

void ref_key_strs(struct ref_gguf *w, const char *name, const char *const *x, uint64_t n)
{
    struct ref_bytes *b = array(w, name, VKM_GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) ref_put_str(b, x[i]);
}

void ref_key_f32s(struct ref_gguf *w, const char *name, const float *x, uint64_t n)
{
    struct ref_bytes *b = array(w, name, VKM_GGUF_F32, n);
    for (uint64_t i = 0; i < n; i++) put_f32(b, x[i]);
}

void ref_key_ints(struct ref_gguf *w, const char *name, uint32_t type, const int64_t *x, uint64_t n)
{
    struct ref_bytes *b = array(w, name, type, n);
    for (uint64_t i = 0; i < n; i++) ref_put_int(b, (uint64_t)x[i], width(type));
}

/* ---------------------------------------------------------------- tensors and files */

static uint32_t alignment(const struct ref_gguf *w) { return w->alignment ? w->alignment : 32; }

void ref_tensor(struct ref_gguf *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne, const void *data)
{
    const struct vkm_ggml_type *t = vkm_ggml_type_find(type);
    uint64_t elements = 1;
    ref_put_pad(&w->data, alignment(w));
    ref_put_str(&w->infos, name);
    ref_put_int(&w->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        ref_put_int(&w->infos, ne[i], 8);
        elements *= ne[i];
    }
    ref_put_int(&w->infos, type, 4);
    ref_put_int(&w->infos, w->data.n, 8);
    ref_put(&w->data, data, elements / t->block_elems * t->block_bytes);
    w->n_tensors++;
}

struct ref_bytes ref_gguf_bytes(const struct ref_gguf *w)
{
    struct ref_gguf head = {0};
    struct ref_bytes b = {0};
    if (w->alignment) ref_key_u32(&head, "general.alignment", w->alignment);
    ref_put(&b, "GGUF", 4);
    ref_put_int(&b, w->version ? w->version : 3, 4);
    ref_put_int(&b, w->n_tensors, 8);
    ref_put_int(&b, w->n_keys + head.n_keys, 8);
    ref_put(&b, head.keys.at, head.keys.n);
    ref_put(&b, w->keys.at, w->keys.n);
    ref_put(&b, w->infos.at, w->infos.n);
    if (w->n_tensors) ref_put_pad(&b, alignment(w));
    ref_put(&b, w->data.at, w->data.n);
    ref_gguf_free(&head);
    return b;
}

bool ref_gguf_save(const struct ref_gguf *w, const char *path)
{
    struct ref_bytes b = ref_gguf_bytes(w);
    bool ok = ref_bytes_save(&b, path);
    ref_bytes_free(&b);
    return ok;
}

void ref_gguf_free(struct ref_gguf *w)
{
    ref_bytes_free(&w->keys);
    ref_bytes_free(&w->infos);
    ref_bytes_free(&w->data);
}

/* ---------------------------------------------------------------- random weights */

static void put_half(uint8_t *at, double x)
{
    uint16_t h = ref_to_half((float)x);
    at[0] = (uint8_t)h;
    at[1] = (uint8_t)(h >> 8);
}

/* Where the block's halves lie: the scale d, and the min m or dmin (-1: none), which is `m_per_d` times d to bring the mean to zero. */
struct halves { int d, m; double m_per_d; };

static struct halves halves_of(uint32_t type)
{
    switch (type) {
    case REF_Q4_1: return (struct halves){0, 2, -7.5};
    case REF_Q5_1: return (struct halves){0, 2, -15.5};
    case REF_Q4_K: return (struct halves){0, 2, 7.5};      /* x = d sc q - dmin mn, and sc and mn have the same mean */
    case REF_Q5_K: return (struct halves){0, 2, 15.5};
    case REF_Q6_K: return (struct halves){208, -1, 0};
    default: return (struct halves){0, -1, 0};             /* Q4_0, Q5_0, Q8_0 */
    }
}

static void set_scale(uint8_t *block, struct halves h, double d)
{
    put_half(block + h.d, d);
    if (h.m >= 0) put_half(block + h.m, d * h.m_per_d);
}

static void random_block(struct ref_rng *rng, const struct vkm_ggml_type *t, double std, uint8_t *block)
{
    float x[256];
    double squares = 0;
    struct halves h = halves_of(t->id);
    for (uint32_t i = 0; i < t->block_bytes; i++) block[i] = (uint8_t)ref_u32(rng);
    set_scale(block, h, 1);
    ref_dequant(t->id, block, t->block_elems, x);
    for (uint32_t i = 0; i < t->block_elems; i++) squares += (double)x[i] * x[i];
    double vary = (0.6 + 0.8 * ref_uniform(rng)) / 1.0263;   /* its root mean square is 1 */
    double sign = ref_below(rng, 2) ? -1 : 1;
    set_scale(block, h, sign * vary * std / sqrt(squares / t->block_elems));
}

static void random_number(struct ref_rng *rng, uint32_t type, double std, uint8_t *at)
{
    float x = (float)(std * ref_normal(rng));
    uint16_t h = type == REF_F16 ? ref_to_half(x) : ref_to_bf16(x);
    if (type == REF_F32) memcpy(at, &x, 4);
    else memcpy(at, &h, 2);
}

void ref_random_blocks(struct ref_rng *rng, uint32_t type, uint64_t n, double std, void *blocks)
{
    const struct vkm_ggml_type *t = vkm_ggml_type_find(type);
    for (uint64_t i = 0; i < n / t->block_elems; i++) {
        uint8_t *block = (uint8_t *)blocks + i * t->block_bytes;
        if (t->block_elems == 1) random_number(rng, type, std, block);
        else random_block(rng, t, std, block);
    }
}
