/* GGUF bytes -> keys and tensors. Every number here comes from a stranger's file. The rules, and the bugs in other readers that taught them:
 *   a count is bounded by the bytes that remain before anything is allocated for it   (CVE-2024-21802, -23605, ggml PR 1516)
 *   sums and products are checked before they are used                                (CVE-2025-53630, CVE-2026-33298, llama.cpp 27203)
 *   a tensor lies inside the file and on no other tensor                               (CVE-2026-7482)
 *   a value's type is checked before it is read                                        (llama.cpp PR 26690)
 * Layout: header, keys, tensor records, padding, data; https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#include "gguf/gguf_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEYS_MAX = 1 << 16, TENSORS_MAX = 1 << 20,   /* a thousand times what models have: damaged counts should not allocate gigabytes */
    KEY_NAME_MAX = 65535, TENSOR_NAME_MAX = 64,  /* gguf.md */
    KEY_BYTES_MIN = 8 + 1 + 4 + 1,               /* name length, a character, value type, a bool */
    TENSOR_BYTES_MIN = 8 + 1 + 4 + 4 + 8,        /* name length, a character, dimensions, type, offset */
    DIMS_MAX = 4,
    ALIGNMENT_DEFAULT = 32, ALIGNMENT_MIN = 8, ALIGNMENT_MAX = 1 << 20,
};

/* ---------------------------------------------------------------- tables */

static const struct { const char *name; uint8_t bytes; } value_types[VKM_GGUF_TYPE_COUNT] = {
    [VKM_GGUF_U8] = {"u8", 1},   [VKM_GGUF_I8] = {"i8", 1},   [VKM_GGUF_U16] = {"u16", 2},  [VKM_GGUF_I16] = {"i16", 2},
    [VKM_GGUF_U32] = {"u32", 4}, [VKM_GGUF_I32] = {"i32", 4}, [VKM_GGUF_F32] = {"f32", 4},  [VKM_GGUF_BOOL] = {"bool", 1},
    [VKM_GGUF_U64] = {"u64", 8}, [VKM_GGUF_I64] = {"i64", 8}, [VKM_GGUF_F64] = {"f64", 8},
    [VKM_GGUF_STRING] = {"string", 0}, [VKM_GGUF_ARRAY] = {"array", 0},
};

const char *vkm_gguf_type_name(enum vkm_gguf_type type) { return value_types[type].name; }
uint64_t vkm_gguf_type_bytes(enum vkm_gguf_type type) { return value_types[type].bytes; }

/* enum ggml_type of ggml.h. Ids 4, 5, 31..33 and 36..38 were removed from ggml and have no block layout any more. */
static const struct vkm_ggml_type ggml_types[] = {
    { 0, "F32", 1, 4},        { 1, "F16", 1, 2},        { 2, "Q4_0", 32, 18},     { 3, "Q4_1", 32, 20},
    { 6, "Q5_0", 32, 22},     { 7, "Q5_1", 32, 24},     { 8, "Q8_0", 32, 34},     { 9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18},
};

const struct vkm_ggml_type *vkm_ggml_type_find(uint32_t id)
{
    for (size_t i = 0; i < VKM_COUNT(ggml_types); i++)
        if (ggml_types[i].id == id) return &ggml_types[i];
    return NULL;
}

/* ---------------------------------------------------------------- strings for people */

/* Bytes of the UTF-8 character at s, 0 if there is none or it is a control character. */
static size_t printable(const uint8_t *s, uint64_t n)
{
    if (s[0] >= 0x20 && s[0] < 0x7f) return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || len > n) return 0;
    uint32_t code = s[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    static const uint32_t smallest[] = {0, 0, 0xa0 /* below are the C1 controls */, 0x800, 0x10000};
    return code >= smallest[len] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? len : 0;
}

struct vkm_quoted vkm_quote(struct vkm_str s)
{
    enum { SHOWN = 80 };
    struct vkm_quoted q;
    size_t used = 0;
    uint64_t i = 0;
    q.text[used++] = '"';
    while (i < s.n && used < SHOWN) {
        const uint8_t *at = (const uint8_t *)s.at + i;
        size_t len = printable(at, s.n - i);
        if (len) memcpy(q.text + used, at, len);
        else snprintf(q.text + used, 5, "\\x%02x", at[0]);
        used += len ? len : 4;
        i += len ? len : 1;
    }
    snprintf(q.text + used, sizeof q.text - used, "\"%s", i < s.n ? "..." : "");
    return q;
}

/* ---------------------------------------------------------------- cursor */

/* Reads forward and cannot pass the end. Its functions return false after a failure, which is then in `result` and *err. */
struct cursor {
    const uint8_t *bytes;
    uint64_t size, pos;
    const char *file;
    char where[160];             /* what is being read, for messages: `key "general.name"`; or empty */
    vkm_result result;
    vkm_error *err;
};

static void fail(struct cursor *c, vkm_result r, const char *fmt, ...) VKM_PRINTF(3, 4);
static void fail(struct cursor *c, vkm_result r, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    c->result = vkm_fail(c->err, r, "%s: %s%s%s", c->file, c->where, c->where[0] ? ": " : "", text);
}

#define FAIL(c, ...) (fail(c, __VA_ARGS__), false)   /* the compiler sees that it is false, and what is not initialised after it */

static unsigned long long llu(uint64_t x) { return x; }

uint64_t vkm_gguf_load(const uint8_t *at, uint64_t n_bytes)
{
    uint64_t x = 0;
    for (uint64_t i = 0; i < n_bytes; i++) x |= (uint64_t)at[i] << 8 * i;
    return x;
}

static uint64_t rest(const struct cursor *c) { return c->size - c->pos; }

static bool take(struct cursor *c, uint64_t n, const uint8_t **at)
{
    if (n > rest(c)) return FAIL(c, VKM_ERR_FORMAT, "the file ends here: %llu bytes needed, %llu left", llu(n), llu(rest(c)));
    *at = c->bytes + c->pos;
    c->pos += n;
    return true;
}

static bool take_int(struct cursor *c, uint64_t n_bytes, uint64_t *x)
{
    const uint8_t *at;
    if (!take(c, n_bytes, &at)) return false;
    *x = vkm_gguf_load(at, n_bytes);
    return true;
}

static bool take_str(struct cursor *c, struct vkm_str *s)
{
    uint64_t n;
    const uint8_t *at;
    if (!take_int(c, 8, &n)) return false;
    if (n > rest(c)) return FAIL(c, VKM_ERR_FORMAT, "a string of %llu bytes, but only %llu are left in the file", llu(n), llu(rest(c)));
    if (!take(c, n, &at)) return false;
    *s = (struct vkm_str){(const char *)at, (size_t)n};
    return true;
}

/* ---------------------------------------------------------------- header */

static bool read_header(struct cursor *c, uint64_t *n_tensors, uint64_t *n_keys)
{
    uint64_t version;
    if (rest(c) < 4 || memcmp(c->bytes, "GGUF", 4) != 0) return FAIL(c, VKM_ERR_FORMAT, "not a GGUF file: it does not start with \"GGUF\"");
    c->pos = 4;
    snprintf(c->where, sizeof c->where, "header");
    if (!take_int(c, 4, &version)) return false;
    /* Version 3 allows files in the byte order of big-endian machines; their version reads as 0x02000000 or 0x03000000. */
    if (version && (version & 0xffff) == 0) return FAIL(c, VKM_ERR_UNSUPPORTED, "a big-endian GGUF file: only little-endian files are supported");
    if (version != 2 && version != 3) return FAIL(c, VKM_ERR_UNSUPPORTED, "GGUF version %llu: only 2 and 3 are supported", llu(version));
    if (!take_int(c, 8, n_tensors) || !take_int(c, 8, n_keys)) return false;
    if (*n_keys > KEYS_MAX || *n_keys > rest(c) / KEY_BYTES_MIN)
        return FAIL(c, VKM_ERR_FORMAT, "%llu keys cannot be in the %llu bytes left, or are more than %d", llu(*n_keys), llu(rest(c)), KEYS_MAX);
    if (*n_tensors > TENSORS_MAX || *n_tensors > rest(c) / TENSOR_BYTES_MIN)
        return FAIL(c, VKM_ERR_FORMAT, "%llu tensors cannot be in the %llu bytes left, or are more than %d", llu(*n_tensors), llu(rest(c)), TENSORS_MAX);
    return true;
}

/* ---------------------------------------------------------------- keys */

static bool take_value_type(struct cursor *c, enum vkm_gguf_type *type)
{
    uint64_t id;
    if (!take_int(c, 4, &id)) return false;
    if (id >= VKM_GGUF_TYPE_COUNT) return FAIL(c, VKM_ERR_FORMAT, "unknown value type %llu", llu(id));
    *type = (enum vkm_gguf_type)id;
    return true;
}

/* gguf.md: a bool is one byte, 0 or 1, anything else is invalid. */
static bool check_bools(struct cursor *c, const uint8_t *at, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (at[i] > 1) return FAIL(c, VKM_ERR_FORMAT, "a bool with the value %d", at[i]);
    return true;
}

/* Walks over an array of strings and notes where each begins, so that any of them can be found in one step later. */
static bool read_string_array(struct cursor *c, struct vkm_gguf_key *key)
{
    key->strings = malloc((size_t)(key->count ? key->count : 1) * sizeof key->strings[0]);
    if (!key->strings) return FAIL(c, VKM_ERR_HOST_MEMORY, "no memory for an index of %llu strings", llu(key->count));
    for (uint64_t i = 0; i < key->count; i++) {
        struct vkm_str s;
        key->strings[i] = (uint64_t)(c->bytes + c->pos - key->value);
        if (!take_str(c, &s)) return false;
    }
    return true;
}

static bool read_array(struct cursor *c, struct vkm_gguf_key *key)
{
    if (!take_value_type(c, &key->element) || !take_int(c, 8, &key->count)) return false;
    if (key->element == VKM_GGUF_ARRAY) return FAIL(c, VKM_ERR_FORMAT, "an array of arrays is not allowed");
    uint64_t size = vkm_gguf_type_bytes(key->element);
    uint64_t smallest = size ? size : 8;   /* a string has at least its length */
    if (key->count > rest(c) / smallest)
        return FAIL(c, VKM_ERR_FORMAT, "an array of %llu elements, but only %llu bytes are left in the file", llu(key->count), llu(rest(c)));
    key->value = c->bytes + c->pos;
    if (!size) return read_string_array(c, key);
    return take(c, key->count * size, &key->value) && (key->element != VKM_GGUF_BOOL || check_bools(c, key->value, key->count));
}

static bool read_value(struct cursor *c, struct vkm_gguf_key *key)
{
    struct vkm_str s;
    switch (key->type) {
    case VKM_GGUF_ARRAY:
        return read_array(c, key);
    case VKM_GGUF_STRING:
        if (!take_str(c, &s)) return false;
        key->value = (const uint8_t *)s.at;
        key->count = s.n;
        return true;
    default:
        key->count = 1;
        return take(c, vkm_gguf_type_bytes(key->type), &key->value) && (key->type != VKM_GGUF_BOOL || check_bools(c, key->value, 1));
    }
}

static bool read_key(struct cursor *c, struct vkm_gguf_key *key)
{
    if (!take_str(c, &key->name)) return false;
    if (key->name.n == 0 || key->name.n > KEY_NAME_MAX)
        return FAIL(c, VKM_ERR_FORMAT, "its name has %llu bytes: 1 to %d are allowed", llu(key->name.n), KEY_NAME_MAX);
    snprintf(c->where, sizeof c->where, "key %s", vkm_quote(key->name).text);
    return take_value_type(c, &key->type) && read_value(c, key);
}

static bool read_keys(struct cursor *c, struct vkm_gguf_part *part, uint64_t n)
{
    c->where[0] = '\0';
    part->keys = calloc(n ? n : 1, sizeof part->keys[0]);
    if (!part->keys || !vkm_names_init(&part->key_names, n)) return FAIL(c, VKM_ERR_HOST_MEMORY, "no memory for %llu keys", llu(n));
    for (uint64_t i = 0; i < n; i++) {
        struct vkm_gguf_key *key = &part->keys[part->n_keys++];
        snprintf(c->where, sizeof c->where, "key %llu of %llu", llu(i + 1), llu(n));
        if (!read_key(c, key)) return false;
        if (!vkm_names_add(&part->key_names, key->name, (uint32_t)i)) return FAIL(c, VKM_ERR_FORMAT, "it is there twice");
    }
    return true;
}

static bool find_alignment(struct cursor *c, const struct vkm_gguf_part *part, uint64_t *alignment)
{
    static const char name[] = "general.alignment";
    int64_t i = vkm_names_find(&part->key_names, (struct vkm_str){name, sizeof name - 1});
    *alignment = ALIGNMENT_DEFAULT;
    if (i == VKM_NO_NAME) return true;
    const struct vkm_gguf_key *key = &part->keys[i];
    snprintf(c->where, sizeof c->where, "key \"%s\"", name);
    if (key->type != VKM_GGUF_U32) return FAIL(c, VKM_ERR_FORMAT, "its type is %s, not u32", vkm_gguf_type_name(key->type));
    uint64_t a = vkm_gguf_load(key->value, 4);
    if (a < ALIGNMENT_MIN || a > ALIGNMENT_MAX || (a & (a - 1)))
        return FAIL(c, VKM_ERR_FORMAT, "%llu is no power of two from %d to %d", llu(a), ALIGNMENT_MIN, ALIGNMENT_MAX);
    *alignment = a;
    return true;
}

/* ---------------------------------------------------------------- tensors */

static bool read_dims(struct cursor *c, struct vkm_gguf_tensor *t)
{
    uint64_t n, elements = 1;
    if (!take_int(c, 4, &n)) return false;
    if (n > DIMS_MAX) return FAIL(c, VKM_ERR_FORMAT, "%llu dimensions: at most %d are allowed", llu(n), DIMS_MAX);
    t->n_dims = (uint32_t)n;
    for (unsigned i = 0; i < DIMS_MAX; i++) t->ne[i] = 1;
    for (unsigned i = 0; i < n; i++) {
        if (!take_int(c, 8, &t->ne[i])) return false;
        /* Sizes are signed in the format, so that 2^63 and more are negative numbers. */
        if (t->ne[i] == 0 || t->ne[i] > INT64_MAX) return FAIL(c, VKM_ERR_FORMAT, "dimension %u is %lld", i, (long long)t->ne[i]);
        if (!vkm_mul(elements, t->ne[i], &elements) || elements > INT64_MAX)
            return FAIL(c, VKM_ERR_FORMAT, "its dimensions up to number %u multiply to more than 2^63 - 1", i);
    }
    return true;
}

static bool read_type(struct cursor *c, struct vkm_gguf_tensor *t)
{
    uint64_t id;
    if (!take_int(c, 4, &id)) return false;
    const struct vkm_ggml_type *type = vkm_ggml_type_find((uint32_t)id);
    if (!type) return FAIL(c, VKM_ERR_UNSUPPORTED, "ggml type %llu is unknown, or was removed from the format", llu(id));
    t->type = type->id;
    if (t->ne[0] % type->block_elems)
        return FAIL(c, VKM_ERR_FORMAT, "a row of %llu elements is no whole number of %s blocks of %u", llu(t->ne[0]), type->name, type->block_elems);
    t->bytes = t->ne[0] / type->block_elems;
    if (!vkm_mul(t->bytes, type->block_bytes, &t->bytes) || !vkm_mul(t->bytes, t->ne[1], &t->bytes) || !vkm_mul(t->bytes, t->ne[2], &t->bytes) ||
        !vkm_mul(t->bytes, t->ne[3], &t->bytes))
        return FAIL(c, VKM_ERR_FORMAT, "its size in %s is more than 2^64 bytes", type->name);
    return true;
}

/* The record without the place of the data: *offset counts from the start of the data section, which is not known yet. */
static bool read_tensor(struct cursor *c, struct vkm_gguf_tensor *t, uint64_t *offset)
{
    if (!take_str(c, &t->name)) return false;
    if (t->name.n == 0 || t->name.n > TENSOR_NAME_MAX)
        return FAIL(c, VKM_ERR_FORMAT, "its name has %llu bytes: 1 to %d are allowed", llu(t->name.n), TENSOR_NAME_MAX);
    snprintf(c->where, sizeof c->where, "tensor %s", vkm_quote(t->name).text);
    return read_dims(c, t) && read_type(c, t) && take_int(c, 8, offset);
}

static bool read_tensors(struct cursor *c, struct vkm_gguf_part *part, uint64_t n, uint64_t *offsets)
{
    for (uint64_t i = 0; i < n; i++) {
        snprintf(c->where, sizeof c->where, "tensor %llu of %llu", llu(i + 1), llu(n));
        if (!read_tensor(c, &part->tensors[i], &offsets[i])) return false;
        part->n_tensors = i + 1;
    }
    return true;
}

/* Gives each tensor its data: after the records, padded to the alignment from the start of the file. */
static bool place_tensors(struct cursor *c, struct vkm_gguf_part *part, const uint64_t *offsets, uint64_t alignment)
{
    uint64_t start = vkm_align(c->pos, alignment);   /* cannot wrap: pos is at most the size of a file */
    for (uint64_t i = 0; i < part->n_tensors; i++) {
        struct vkm_gguf_tensor *t = &part->tensors[i];
        uint64_t end;
        snprintf(c->where, sizeof c->where, "tensor %s", vkm_quote(t->name).text);
        if (offsets[i] % alignment) return FAIL(c, VKM_ERR_FORMAT, "its offset %llu is no multiple of the alignment %llu", llu(offsets[i]), llu(alignment));
        if (!vkm_add(start, offsets[i], &end) || !vkm_add(end, t->bytes, &end) || end > c->size)
            return FAIL(c, VKM_ERR_FORMAT, "%llu bytes at offset %llu of the data end after the end of the file (%llu bytes, data from %llu)",
                           llu(t->bytes), llu(offsets[i]), llu(c->size), llu(start));
        t->data = c->bytes + start + offsets[i];
    }
    return true;
}

static int by_data(const void *a, const void *b)
{
    const struct vkm_gguf_tensor *x = *(const struct vkm_gguf_tensor *const *)a, *y = *(const struct vkm_gguf_tensor *const *)b;
    return ((const uint8_t *)x->data > (const uint8_t *)y->data) - ((const uint8_t *)x->data < (const uint8_t *)y->data);
}

static bool check_overlap(struct cursor *c, const struct vkm_gguf_part *part)
{
    const struct vkm_gguf_tensor **order = malloc((size_t)(part->n_tensors ? part->n_tensors : 1) * sizeof *order);
    bool ok = true;
    c->where[0] = '\0';
    if (!order) return FAIL(c, VKM_ERR_HOST_MEMORY, "no memory for %llu tensors", llu(part->n_tensors));
    for (uint64_t i = 0; i < part->n_tensors; i++) order[i] = &part->tensors[i];
    qsort(order, part->n_tensors, sizeof *order, by_data);
    for (uint64_t i = 1; ok && i < part->n_tensors; i++)
        if ((const uint8_t *)order[i - 1]->data + order[i - 1]->bytes > (const uint8_t *)order[i]->data)
            ok = FAIL(c, VKM_ERR_FORMAT, "tensors %s and %s overlap", vkm_quote(order[i - 1]->name).text, vkm_quote(order[i]->name).text);
    free(order);
    return ok;
}

/* ---------------------------------------------------------------- the file */

static bool parse(struct cursor *c, struct vkm_gguf_part *part)
{
    uint64_t n_tensors, n_keys, alignment;
    if (!read_header(c, &n_tensors, &n_keys) || !read_keys(c, part, n_keys) || !find_alignment(c, part, &alignment)) return false;
    c->where[0] = '\0';
    part->tensors = calloc(n_tensors ? n_tensors : 1, sizeof part->tensors[0]);
    uint64_t *offsets = calloc(n_tensors ? n_tensors : 1, sizeof offsets[0]);
    bool ok = part->tensors && offsets ? read_tensors(c, part, n_tensors, offsets) && place_tensors(c, part, offsets, alignment)
                                       : FAIL(c, VKM_ERR_HOST_MEMORY, "no memory for %llu tensors", llu(n_tensors));
    free(offsets);
    return ok && check_overlap(c, part);
}

vkm_result vkm_gguf_parse(struct vkm_gguf_part *part, vkm_error *err)
{
    struct cursor c = {.bytes = part->bytes, .size = part->n_bytes, .file = part->file, .err = err};
    parse(&c, part);
    return c.result;
}

void vkm_gguf_part_free(struct vkm_gguf_part *part)
{
    for (uint64_t i = 0; i < part->n_keys; i++) free(part->keys[i].strings);
    free(part->keys);
    vkm_names_free(&part->key_names);
    free(part->tensors);
    free(part->file);
}
