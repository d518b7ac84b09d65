#include "reference/ggufwalk.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t sum, const void *at, size_t n)
{
    for (size_t i = 0; i < n; i++) sum = (sum ^ ((const uint8_t *)at)[i]) * 0x100000001b3u;
    return sum;
}

static char *c_string(struct vkm_str s)
{
    char *copy = malloc(s.n + 1);
    if (!copy) abort();
    memcpy(copy, s.at, s.n);
    copy[s.n] = 0;
    return copy;
}

static uint64_t walk_array(const vkm_gguf *g, const char *key, uint64_t sum)
{
    enum vkm_gguf_type element;
    uint64_t count;
    vkm_error err;
    if (vkm_gguf_array(g, key, &element, &count, &err) != VKM_OK) return mix(sum, err.message, strlen(err.message));
    for (uint64_t i = 0; i <= count; i++) {   /* one too many, which must fail */
        struct vkm_str s;
        int64_t n;
        double f;
        if (vkm_gguf_array_str(g, key, i, &s, &err) == VKM_OK) sum = mix(sum, s.at, s.n);
        if (vkm_gguf_array_int(g, key, i, &n, &err) == VKM_OK) sum = mix(sum, &n, sizeof n);
        if (vkm_gguf_array_float(g, key, i, &f, &err) == VKM_OK) sum = mix(sum, &f, sizeof f);
    }
    return sum;
}

static uint64_t walk_scalar(const vkm_gguf *g, const char *key, uint64_t sum)
{
    struct vkm_str s;
    int64_t n;
    double f;
    bool b;
    vkm_error err;
    if (vkm_gguf_int(g, key, INT64_MIN, INT64_MAX, &n, &err) == VKM_OK) sum = mix(sum, &n, sizeof n);
    if (vkm_gguf_float(g, key, &f, &err) == VKM_OK) sum = mix(sum, &f, sizeof f);
    if (vkm_gguf_bool(g, key, &b, &err) == VKM_OK) sum = mix(sum, &b, sizeof b);
    if (vkm_gguf_str(g, key, &s, &err) == VKM_OK) sum = mix(sum, s.at, s.n);
    return sum;
}

static uint64_t walk_key(const vkm_gguf *g, uint64_t i, uint64_t sum)
{
    char text[300];
    vkm_text out = {text, sizeof text, 0};
    char *key = c_string(vkm_gguf_key_name(g, i));
    vkm_gguf_key_print(g, i, &out);
    sum = mix(sum, text, strlen(text));
    sum = walk_array(g, key, walk_scalar(g, key, sum));   /* a name with a NUL in it is not found; that is all */
    free(key);
    return sum;
}

static uint64_t walk_tensor(const vkm_gguf *g, uint64_t i, uint64_t sum)
{
    const struct vkm_gguf_tensor *t = vkm_gguf_tensor_at(g, i);
    char *name = c_string(t->name);
    if (vkm_gguf_tensor_find(g, name) == t) sum++;
    free(name);
    sum = mix(sum, t->data, 1);
    sum = mix(sum, (const uint8_t *)t->data + t->bytes - 1, 1);
    vkm_gguf_release(g, t->data, t->bytes);
    return sum;
}

uint64_t ref_gguf_walk(const vkm_gguf *g)
{
    uint64_t sum = vkm_gguf_file_bytes(g);
    for (uint64_t i = 0; i < vkm_gguf_key_count(g); i++) sum = walk_key(g, i, sum);
    for (uint64_t i = 0; i < vkm_gguf_tensor_count(g); i++) sum = walk_tensor(g, i, sum);
    return sum + vkm_gguf_has(g, "") + (vkm_gguf_tensor_find(g, "") != NULL);
}
