#include "text/vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- text to id */

/* FNV-1a, then a finish that spreads its weak low bits (the last steps of MurmurHash3). */
static uint32_t hash_text(const char *text, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)text[i]) * 16777619u;
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    return h;
}

/* The slot that holds this text, or the empty one where it belongs. The table is never full. */
static struct vkm_vocab_slot *slot_of(const struct vkm_vocab *v, const char *text, size_t n, uint32_t hash)
{
    uint32_t mask = v->n_slots - 1;
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        struct vkm_vocab_slot *slot = &v->slots[i];
        if (slot->id < 0)
            return slot;
        if (slot->hash != hash)
            continue;
        struct vkm_str piece = vkm_vocab_piece(v, slot->id);
        if (piece.n == n && memcmp(piece.at, text, n) == 0)
            return slot;
    }
}

int32_t vkm_vocab_find(const struct vkm_vocab *v, const char *text, size_t n)
{
    if (n == 0 || n > v->longest)
        return -1;
    return slot_of(v, text, n, hash_text(text, n))->id;
}

int32_t vkm_vocab_find_plain(const struct vkm_vocab *v, const char *text, size_t n)
{
    int32_t id = vkm_vocab_find(v, text, n);
    if (id < 0)
        return -1;
    switch (v->type[id]) {
    case VKM_TOKEN_UNKNOWN: case VKM_TOKEN_CONTROL: case VKM_TOKEN_BYTE: return -1;
    default: return id;
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

int vkm_vocab_byte_of(struct vkm_str p)
{
    if (p.n != 6 || memcmp(p.at, "<0x", 3) != 0 || p.at[5] != '>')
        return -1;
    int high = hex_digit(p.at[3]), low = hex_digit(p.at[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* ---------------------------------------------------------------- loading */

/* The length of an array that must have one entry a token. */
static vkm_result check_array(const vkm_gguf *g, const char *key, uint64_t n_tokens, enum vkm_gguf_type *element, vkm_error *err)
{
    uint64_t count;
    vkm_result r = vkm_gguf_array(g, key, element, &count, err);
    if (r == VKM_OK && count != n_tokens)
        r = vkm_fail(err, VKM_ERR_FORMAT, "%s has %llu entries for %llu tokens", key, (unsigned long long)count, (unsigned long long)n_tokens);
    return r;
}

static vkm_result load_pieces(const vkm_gguf *g, struct vkm_vocab *v, vkm_error *err)
{
    static const char key[] = "tokenizer.ggml.tokens";
    enum vkm_gguf_type element;
    uint64_t n, total = 0;
    struct vkm_str s;
    vkm_result r = vkm_gguf_array(g, key, &element, &n, err);
    if (r != VKM_OK)
        return r;
    if (element != VKM_GGUF_STRING)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s is not an array of strings", key);
    if (n == 0 || n > INT32_MAX)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s has %llu entries", key, (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        if ((r = vkm_gguf_array_str(g, key, i, &s, err)) != VKM_OK)
            return r;
        if (!vkm_add(total, s.n, &total) || total >= SIZE_MAX)
            return vkm_fail(err, VKM_ERR_FORMAT, "%s is larger than memory", key);
    }
    if (n >= SIZE_MAX / sizeof *v->start)
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "%s: no memory for %llu entries", key, (unsigned long long)n);

    v->n = (uint32_t)n;
    v->bytes = malloc((size_t)total + 1);    /* + 1: never a size of zero */
    v->start = malloc(((size_t)n + 1) * sizeof *v->start);
    v->type = malloc((size_t)n);
    v->flags = calloc((size_t)n, 1);
    if (!v->bytes || !v->start || !v->type || !v->flags)
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "%s: no memory for %llu entries", key, (unsigned long long)n);
    size_t at = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        if ((r = vkm_gguf_array_str(g, key, i, &s, err)) != VKM_OK)
            return r;
        v->start[i] = at;
        if (s.n)
            memcpy(v->bytes + at, s.at, s.n);
        at += s.n;
        if (s.n > v->longest)
            v->longest = s.n;
    }
    v->start[v->n] = at;
    return VKM_OK;
}

static vkm_result load_types(const vkm_gguf *g, struct vkm_vocab *v, vkm_error *err)
{
    static const char key[] = "tokenizer.ggml.token_type";
    if (!vkm_gguf_has(g, key)) {
        for (uint32_t i = 0; i < v->n; i++)
            v->type[i] = VKM_TOKEN_NORMAL;
        return VKM_OK;
    }
    enum vkm_gguf_type element;
    vkm_result r = check_array(g, key, v->n, &element, err);
    for (uint32_t i = 0; i < v->n && r == VKM_OK; i++) {
        int64_t type;
        if ((r = vkm_gguf_array_int(g, key, i, &type, err)) != VKM_OK)
            break;
        if (type < 0 || type >= VKM_TOKEN_TYPE_COUNT)
            return vkm_fail(err, VKM_ERR_FORMAT, "%s: token %u has the unknown type %lld", key, i, (long long)type);
        v->type[i] = type == VKM_TOKEN_UNDEFINED ? VKM_TOKEN_NORMAL : (uint8_t)type;
    }
    return r;
}

static vkm_result load_scores(const vkm_gguf *g, struct vkm_vocab *v, vkm_error *err)
{
    static const char key[] = "tokenizer.ggml.scores";
    if (!vkm_gguf_has(g, key))
        return VKM_OK;
    enum vkm_gguf_type element;
    vkm_result r = check_array(g, key, v->n, &element, err);
    if (r != VKM_OK)
        return r;
    if (element != VKM_GGUF_F32)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s is not an array of f32", key);
    v->score = malloc((size_t)v->n * sizeof *v->score);
    if (!v->score)
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "%s: no memory for %u entries", key, v->n);
    for (uint32_t i = 0; i < v->n; i++) {
        double score;
        if ((r = vkm_gguf_array_float(g, key, i, &score, err)) != VKM_OK)
            return r;
        if (!isfinite(score))   /* merging sorts by them */
            return vkm_fail(err, VKM_ERR_FORMAT, "%s: the score of token %u is not finite", key, i);
        v->score[i] = (float)score;
    }
    return VKM_OK;
}

static vkm_result build_table(struct vkm_vocab *v, vkm_error *err)
{
    uint64_t n_slots = 8;
    while (n_slots < 2 * (uint64_t)v->n)
        n_slots *= 2;
    if (n_slots > UINT32_MAX || n_slots > SIZE_MAX / sizeof *v->slots || !(v->slots = malloc((size_t)n_slots * sizeof *v->slots)))
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for a table of %u tokens", v->n);
    v->n_slots = (uint32_t)n_slots;
    for (uint32_t i = 0; i < v->n_slots; i++)
        v->slots[i] = (struct vkm_vocab_slot){ 0, -1 };
    for (uint32_t i = 0; i < v->n; i++) {
        struct vkm_str piece = vkm_vocab_piece(v, (int32_t)i);
        if (piece.n == 0)
            continue;
        uint32_t hash = hash_text(piece.at, piece.n);
        struct vkm_vocab_slot *slot = slot_of(v, piece.at, piece.n, hash);
        if (slot->id >= 0)
            return vkm_fail(err, VKM_ERR_FORMAT, "tokenizer.ggml.tokens: tokens %d and %u have the same text", slot->id, i);
        *slot = (struct vkm_vocab_slot){ hash, (int32_t)i };
    }
    return VKM_OK;
}

vkm_result vkm_vocab_load(const vkm_gguf *g, struct vkm_vocab *vocab, vkm_error *err)
{
    struct vkm_vocab v = { 0 };
    vkm_result r = load_pieces(g, &v, err);
    if (r == VKM_OK) r = load_types(g, &v, err);
    if (r == VKM_OK) r = load_scores(g, &v, err);
    if (r == VKM_OK) r = build_table(&v, err);
    if (r == VKM_OK) *vocab = v;
    else vkm_vocab_free(&v);
    return r;
}

void vkm_vocab_free(struct vkm_vocab *v)
{
    free(v->bytes);
    free(v->start);
    free(v->type);
    free(v->flags);
    free(v->score);
    free(v->slots);
    *v = (struct vkm_vocab){ 0 };
}
