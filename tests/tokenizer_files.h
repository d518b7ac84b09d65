/* What the tokenizer suites share: reading and tokenizing with checks, GGUF files made on the spot, the small vocabularies of both kinds. */
#ifndef VKM_TESTS_TOKENIZER_FILES_H
#define VKM_TESTS_TOKENIZER_FILES_H

#include <criterion/criterion.h>

#include "text/internal.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN VKMOE_TESTS_DIR "/golden/tokenizer/"

static const char *const families[] = { "gpt-2", "refact", "qwen2", "llama-bpe", "dbrx", "qwen35", "gpt-4o", "tekken", "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "bailingmoe", "default" };

/* ---------------------------------------------------------------- helpers */

struct bytes { char *at; size_t n, room; };

static inline void put(struct bytes *b, const void *at, size_t n)
{
    void *moved = b->at;
    cr_assert(vkm_grow(&moved, &b->room, b->n + n + 1, 1));
    b->at = moved;
    if (n)
        memcpy(b->at + b->n, at, n);
    b->n += n;
    b->at[b->n] = 0;
}

static inline struct bytes read_file(const char *path)
{
    struct bytes b = { 0 };
    char chunk[4096];
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        put(&b, chunk, n);
    put(&b, "", 0);
    fclose(f);
    return b;
}

static inline vkm_tokenizer *open_tokenizer(const char *path)
{
    vkm_tokenizer *t = NULL;
    vkm_error err = { 0 };
    cr_assert_eq(vkm_tokenizer_open(path, &t, &err), VKM_OK, "%s", err.message);
    return t;
}

static inline size_t tokenize(const vkm_tokenizer *t, const char *text, size_t n, uint32_t flags, int32_t **ids)
{
    vkm_error err = { 0 };
    size_t n_ids = 0, again;
    cr_assert_eq(vkm_tokenize(t, text, n, flags, NULL, &n_ids, &err), VKM_OK, "%s", err.message);
    *ids = malloc((n_ids + 1) * sizeof **ids);
    again = n_ids;
    cr_assert_eq(vkm_tokenize(t, text, n, flags, *ids, &again, &err), VKM_OK, "%s", err.message);
    cr_assert_eq(again, n_ids);
    return n_ids;
}

static inline bool valid_utf8(const char *s, size_t n)
{
    for (size_t i = 0, size; i < n; i += size)
        if (!(size = vkm_utf8_char(s + i, n - i)))
            return false;
    return true;
}

static inline struct bytes detokenize(const vkm_tokenizer *t, const int32_t *ids, size_t n, bool show_special)
{
    struct bytes out = { 0 };
    vkm_detokenizer *d = NULL;
    const char *text;
    size_t n_text;
    put(&out, "", 0);
    cr_assert_eq(vkm_detokenizer_create(t, show_special, &d, NULL), VKM_OK);
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(vkm_detokenizer_push(d, ids[i], &text, &n_text, NULL), VKM_OK);
        cr_assert(valid_utf8(text, n_text));
        put(&out, text, n_text);
    }
    cr_assert_eq(vkm_detokenizer_flush(d, &text, &n_text, NULL), VKM_OK);
    put(&out, text, n_text);
    vkm_detokenizer_destroy(d);
    return out;
}

static uint32_t rng_state;
static inline uint32_t rng(uint32_t below)
{
    rng_state = rng_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(rng_state ^ rng_state >> 15) * below >> 32);
}

/* ---------------------------------------------------------------- files made on the spot */

struct file { struct bytes keys; uint64_t n_keys; };

static inline void put_u32(struct bytes *b, uint32_t v) { put(b, &v, 4); }
static inline void put_u64(struct bytes *b, uint64_t v) { put(b, &v, 8); }
static inline void put_str(struct bytes *b, const char *s) { put_u64(b, strlen(s)); put(b, s, strlen(s)); }
static inline void put_key(struct file *f, const char *key, uint32_t type) { f->n_keys++; put_str(&f->keys, key); put_u32(&f->keys, type); }
static inline void put_array(struct file *f, const char *key, uint32_t element, uint64_t n) { put_key(f, key, VKM_GGUF_ARRAY); put_u32(&f->keys, element); put_u64(&f->keys, n); }

static inline void key_str(struct file *f, const char *key, const char *value) { put_key(f, key, VKM_GGUF_STRING); put_str(&f->keys, value); }
static inline void key_u32(struct file *f, const char *key, uint32_t value) { put_key(f, key, VKM_GGUF_U32); put_u32(&f->keys, value); }
static inline void key_bool(struct file *f, const char *key, bool value) { put_key(f, key, VKM_GGUF_BOOL); put(&f->keys, &(char){ value }, 1); }
static inline void key_strs(struct file *f, const char *key, const char *const *values, size_t n)
{
    put_array(f, key, VKM_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        put_str(&f->keys, values[i]);
}
static inline void key_i32s(struct file *f, const char *key, const int32_t *values, size_t n) { put_array(f, key, VKM_GGUF_I32, n); put(&f->keys, values, n * 4); }
static inline void key_f32s(struct file *f, const char *key, const float *values, size_t n) { put_array(f, key, VKM_GGUF_F32, n); put(&f->keys, values, n * 4); }

static inline vkm_result create(struct file *f, vkm_tokenizer **t, vkm_error *err)
{
    struct bytes all = { 0 };
    vkm_gguf *g = NULL;
    put(&all, "GGUF", 4);
    put_u32(&all, 3);
    put_u64(&all, 0);
    put_u64(&all, f->n_keys);
    put(&all, f->keys.at, f->keys.n);
    vkm_result r = vkm_gguf_open_memory(all.at, all.n, "test.gguf", &g, err);
    if (r == VKM_OK)
        r = vkm_tokenizer_create(g, t, err);
    vkm_gguf_close(g);
    free(all.at);      /* the tokenizer must not need it any more */
    free(f->keys.at);
    *f = (struct file){ 0 };
    return r;
}

static inline vkm_tokenizer *create_ok(struct file *f)
{
    vkm_tokenizer *t = NULL;
    vkm_error err = { 0 };
    cr_assert_eq(create(f, &t, &err), VKM_OK, "%s", err.message);
    return t;
}

static inline void expect_ids(const vkm_tokenizer *t, const char *text, uint32_t flags, size_t n, const int32_t *expected)
{
    int32_t *ids;
    size_t got = tokenize(t, text, strlen(text), flags, &ids);
    struct bytes list = { 0 };
    put(&list, "", 0);
    for (size_t i = 0; i < got; i++) {
        char number[16];
        put(&list, number, (size_t)snprintf(number, sizeof number, " %d", ids[i]));
    }
    cr_assert(got == n && memcmp(ids, expected, n * sizeof *ids) == 0, "\"%s\" gave%s", text, list.at);
    free(list.at);
    free(ids);
}
#define EXPECT_IDS(t, text, flags, ...) expect_ids(t, text, flags, sizeof((int32_t[]){ __VA_ARGS__ }) / 4, (int32_t[]){ __VA_ARGS__ })

static inline void expect_text(const vkm_tokenizer *t, size_t n, const int32_t *ids, bool show_special, const char *expected)
{
    struct bytes text = detokenize(t, ids, n, show_special);
    cr_assert_str_eq(text.at, expected);
    free(text.at);
}
#define EXPECT_TEXT(t, show, text, ...) expect_text(t, sizeof((int32_t[]){ __VA_ARGS__ }) / 4, (int32_t[]){ __VA_ARGS__ }, show, text)

/* ---------------------------------------------------------------- small vocabularies */

enum { N = VKM_TOKEN_NORMAL, UNK = VKM_TOKEN_UNKNOWN, C = VKM_TOKEN_CONTROL, U = VKM_TOKEN_USER_DEFINED, B = VKM_TOKEN_BYTE };
#define SP "\xe2\x96\x81"

/* 0 <unk> 1 <s> 2 </s> 3 <0x0A> 4 <0xC3> 5 _ 6 a 7 b 8 ab 9 _a 10 "<tool>" 11 < 12 s 13 > 14 "<s" 15 "/" 16 "</" 17 "</s" 18 <0x41> 19 "s>" */
static const char *const spm_tokens[] = { "<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", SP, "a", "b", "ab", SP "a", "<tool>",
                                          "<", "s", ">", "<s", "/", "</", "</s", "<0x41>", "s>" };
static const int32_t spm_types[] = { UNK, C, C, B, B, N, N, N, N, N, U, N, N, N, N, N, N, N, B, N };
static const float spm_scores[] = { 0, 0, 0, 0, 0, -9, -9, -9, -1, -2, 0, -9, -9, -9, -3, -9, -3, -3, 0, -4 };

static inline struct file spm_file(void)
{
    struct file f = { 0 };
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_strs(&f, "tokenizer.ggml.tokens", spm_tokens, VKM_COUNT(spm_tokens));
    key_i32s(&f, "tokenizer.ggml.token_type", spm_types, VKM_COUNT(spm_types));
    key_f32s(&f, "tokenizer.ggml.scores", spm_scores, VKM_COUNT(spm_scores));
    return f;
}

static const char *letters[256];     /* GPT-2's alphabet, made once */

static inline const char *letter(unsigned byte)
{
    if (!letters[byte]) {
        unsigned code = byte, next = 256;
        for (unsigned b = 0; b <= byte; b++)
            if (!((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174))
                code = b == byte ? next++ : (next++, code);
        char *s = calloc(1, 3);
        if (code < 128) s[0] = (char)code;
        else { s[0] = (char)(0xc0 | code >> 6); s[1] = (char)(0x80 | (code & 63)); }
        letters[byte] = s;
    }
    return letters[byte];
}

/* 256 letters, then these; types follow. */
static inline struct file bpe_file(const char *pre, const char *const *more, const int32_t *types, size_t n, const char *const *merges, size_t n_merges)
{
    const char *tokens[512];
    int32_t all_types[512];
    struct file f = { 0 };
    for (unsigned i = 0; i < 256; i++) { tokens[i] = letter(i); all_types[i] = N; }
    for (size_t i = 0; i < n; i++) { tokens[256 + i] = more[i]; all_types[256 + i] = types ? types[i] : N; }
    key_str(&f, "tokenizer.ggml.model", "gpt2");
    if (pre)
        key_str(&f, "tokenizer.ggml.pre", pre);
    key_strs(&f, "tokenizer.ggml.tokens", tokens, 256 + n);
    key_i32s(&f, "tokenizer.ggml.token_type", all_types, 256 + n);
    key_strs(&f, "tokenizer.ggml.merges", merges, n_merges);
    return f;
}

#endif
