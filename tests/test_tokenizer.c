/* Tokenizers: exact ids of llama.cpp's vocabulary tests and of Hugging Face `tokenizers` (golden/tokenizer/README.md), plain
 * quadratic references for merging and special tokens, hostile files, streaming back to text. */
#include <criterion/criterion.h>

#include "text/internal.h"
#include "text/utf8.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GOLDEN VKMOE_TESTS_DIR "/golden/tokenizer/"

/* ---------------------------------------------------------------- helpers */

struct bytes { char *at; size_t n, room; };

static void put(struct bytes *b, const void *at, size_t n)
{
    void *moved = b->at;
    cr_assert(vkm_grow(&moved, &b->room, b->n + n + 1, 1));
    b->at = moved;
    if (n)
        memcpy(b->at + b->n, at, n);
    b->n += n;
    b->at[b->n] = 0;
}

static struct bytes read_file(const char *path)
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

static vkm_tokenizer *open_tokenizer(const char *path)
{
    vkm_tokenizer *t = NULL;
    vkm_error err = { 0 };
    cr_assert_eq(vkm_tokenizer_open(path, &t, &err), VKM_OK, "%s", err.message);
    return t;
}

static size_t tokenize(const vkm_tokenizer *t, const char *text, size_t n, uint32_t flags, int32_t **ids)
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

static bool valid_utf8(const char *s, size_t n)
{
    for (size_t i = 0, size; i < n; i += size)
        if (!(size = vkm_utf8_char(s + i, n - i)))
            return false;
    return true;
}

static struct bytes detokenize(const vkm_tokenizer *t, const int32_t *ids, size_t n, bool show_special)
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
static uint32_t rng(uint32_t below)
{
    rng_state = rng_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(rng_state ^ rng_state >> 15) * below >> 32);
}

/* ---------------------------------------------------------------- files made on the spot */

struct file { struct bytes keys; uint64_t n_keys; };

static void put_u32(struct bytes *b, uint32_t v) { put(b, &v, 4); }
static void put_u64(struct bytes *b, uint64_t v) { put(b, &v, 8); }
static void put_str(struct bytes *b, const char *s) { put_u64(b, strlen(s)); put(b, s, strlen(s)); }
static void put_key(struct file *f, const char *key, uint32_t type) { f->n_keys++; put_str(&f->keys, key); put_u32(&f->keys, type); }
static void put_array(struct file *f, const char *key, uint32_t element, uint64_t n) { put_key(f, key, VKM_GGUF_ARRAY); put_u32(&f->keys, element); put_u64(&f->keys, n); }

static void key_str(struct file *f, const char *key, const char *value) { put_key(f, key, VKM_GGUF_STRING); put_str(&f->keys, value); }
static void key_u32(struct file *f, const char *key, uint32_t value) { put_key(f, key, VKM_GGUF_U32); put_u32(&f->keys, value); }
static void key_bool(struct file *f, const char *key, bool value) { put_key(f, key, VKM_GGUF_BOOL); put(&f->keys, &(char){ value }, 1); }
static void key_strs(struct file *f, const char *key, const char *const *values, size_t n)
{
    put_array(f, key, VKM_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        put_str(&f->keys, values[i]);
}
static void key_i32s(struct file *f, const char *key, const int32_t *values, size_t n) { put_array(f, key, VKM_GGUF_I32, n); put(&f->keys, values, n * 4); }
static void key_f32s(struct file *f, const char *key, const float *values, size_t n) { put_array(f, key, VKM_GGUF_F32, n); put(&f->keys, values, n * 4); }

static vkm_result create(struct file *f, vkm_tokenizer **t, vkm_error *err)
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

static vkm_tokenizer *create_ok(struct file *f)
{
    vkm_tokenizer *t = NULL;
    vkm_error err = { 0 };
    cr_assert_eq(create(f, &t, &err), VKM_OK, "%s", err.message);
    return t;
}

static void expect_ids(const vkm_tokenizer *t, const char *text, uint32_t flags, size_t n, const int32_t *expected)
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

static void expect_text(const vkm_tokenizer *t, size_t n, const int32_t *ids, bool show_special, const char *expected)
{
    struct bytes text = detokenize(t, ids, n, show_special);
    cr_assert_str_eq(text.at, expected);
    free(text.at);
}
#define EXPECT_TEXT(t, show, text, ...) expect_text(t, sizeof((int32_t[]){ __VA_ARGS__ }) / 4, (int32_t[]){ __VA_ARGS__ }, show, text)

/* ---------------------------------------------------------------- golden files */

/* One line as the golden files write it: see make_tokenizer.py. `end` is the '\n' or the NUL behind it. */
static struct bytes unescape(const char *s, const char *end)
{
    struct bytes b = { 0 };
    put(&b, "", 0);
    while (s < end) {
        if (*s != '\\') { put(&b, s++, 1); continue; }
        char c = s[1];
        s += 2;
        if (c == 'x') {
            put(&b, &(char){ (char)strtol((char[]){ s[0], s[1], 0 }, NULL, 16) }, 1);
            s += 2;
        } else if (c == '{') {
            const char *star = s;
            char *close;
            while (!(*star == '*' && star[1] >= '0' && star[1] <= '9')) star++;
            struct bytes part = unescape(s, star);
            for (long i = strtol(star + 1, &close, 10); i > 0; i--)
                put(&b, part.at, part.n);
            free(part.at);
            s = close + 1;
        } else {
            put(&b, c == 'n' ? "\n" : c == 'r' ? "\r" : c == 't' ? "\t" : "\\", 1);
        }
    }
    return b;
}

/* Numbers "7 8*3", up to '|' or the end of the line; *s moves behind them. The end of the list is the return value. */
static size_t numbers(const char **s, int32_t **list)
{
    size_t n = 0, room = 0;
    *list = NULL;
    while (**s == ' ') ++*s;
    while (**s >= '0' && **s <= '9') {
        char *end;
        int32_t value = (int32_t)strtol(*s, &end, 10);
        long count = *end == '*' ? strtol(end + 1, &end, 10) : 1;
        while (count-- > 0) {
            void *at = *list;
            cr_assert(vkm_grow(&at, &room, n + 1, sizeof **list));
            *list = at;
            (*list)[n++] = value;
        }
        for (*s = end; **s == ' ';) ++*s;
    }
    return n;
}

static const char *line_end(const char *s) { return s + strcspn(s, "\n"); }

static const char *const families[] = { "gpt-2", "refact", "qwen2", "llama-bpe", "dbrx", "qwen35", "gpt-4o", "tekken", "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "bailingmoe", "default" };

static void compare_ids(const char *family, const vkm_tokenizer *t, size_t line, const struct bytes *text, uint32_t flags, const int32_t *want, size_t n_want)
{
    int32_t *ids;
    size_t n = tokenize(t, text->at, text->n, flags, &ids);
    for (size_t i = 0; i < n || i < n_want; i++)
        cr_assert(i < n && i < n_want && ids[i] == want[i], "%s, input %zu \"%.40s\", flags %u: token %zu is %d, not %d (of %zu, not %zu)", family, line,
                  text->at, flags, i, i < n ? ids[i] : -1, i < n_want ? want[i] : -1, n, n_want);
    struct bytes back = detokenize(t, ids, n, true);
    cr_assert(back.n == text->n && memcmp(back.at, text->at, back.n) == 0, "%s, input %zu: text changed", family, line);
    free(back.at);
    free(ids);
}

Test(tokenizer, golden_ids)
{
    struct bytes inputs = read_file(GOLDEN "inputs.txt");
    for (size_t f = 0; f < VKM_COUNT(families); f++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s.gguf", families[f]);
        vkm_tokenizer *t = open_tokenizer(path);
        snprintf(path, sizeof path, GOLDEN "%s.ids", families[f]);
        struct bytes expected = read_file(path);
        const char *in = inputs.at, *out = expected.at;
        size_t line = 1;
        for (; *in; in = line_end(in) + 1, out = line_end(out) + 1, line++) {
            struct bytes text = unescape(in, line_end(in));
            int32_t *plain, *parsed;
            size_t n_plain = numbers(&out, &plain), n_parsed = n_plain;
            compare_ids(families[f], t, line, &text, 0, plain, n_plain);
            if (*out == '|') {
                out++;
                free(plain);
                n_parsed = numbers(&out, &parsed);
                plain = parsed;
            }
            compare_ids(families[f], t, line, &text, VKM_TOKENIZE_PARSE, plain, n_parsed);
            free(plain);
            free(text.at);
        }
        cr_assert_eq(line, 102);
        free(expected.at);
        vkm_tokenizer_destroy(t);
    }
    free(inputs.at);
}

Test(tokenizer, golden_words)
{
    struct bytes inputs = read_file(GOLDEN "inputs.txt"), more = read_file(GOLDEN "random.txt");
    put(&inputs, more.at, more.n);
    for (size_t f = 0; f < VKM_COUNT(families); f++) {
        char path[512];
        struct vkm_pretokenizer pre;
        struct vkm_words words = { 0 };
        cr_assert_eq(vkm_pretokenizer_create((struct vkm_str){ families[f], strlen(families[f]) }, &pre, NULL), VKM_OK);
        snprintf(path, sizeof path, GOLDEN "%s.words", families[f]);
        struct bytes expected = read_file(path);
        const char *in = inputs.at, *out = expected.at;
        size_t line = 1;
        for (; *in; in = line_end(in) + 1, out = line_end(out) + 1, line++) {
            struct bytes text = unescape(in, line_end(in));
            int32_t *want;
            size_t n = numbers(&out, &want), from = 0;
            cr_assert_eq(vkm_pretokenize(&pre, text.at, text.n, &words, NULL), VKM_OK);
            for (size_t i = 0; i < n || i < words.n; from = words.ends[i++])
                cr_assert(i < n && i < words.n && words.ends[i] - from == (size_t)want[i], "%s, line %zu \"%.*s\": word %zu has %zu bytes, not %d (of %zu, not %zu)",
                          families[f], line, (int)(line_end(in) - in), in, i, i < words.n ? words.ends[i] - from : 0, i < n ? want[i] : -1, words.n, n);
            free(want);
            free(text.at);
        }
        cr_assert_eq(line, 502);
        free(expected.at);
        vkm_words_free(&words);
        vkm_pretokenizer_free(&pre);
    }
    free(inputs.at);
    free(more.at);
}

/* llama.cpp's own vocabulary tests: strings between lines of __ggml_vocab_test__, ids a line. */
static void llama_cpp_fixture(const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s.gguf", name);
    vkm_tokenizer *t = open_tokenizer(path);
    snprintf(path, sizeof path, GOLDEN "%s.gguf.inp", name);
    struct bytes inputs = read_file(path);
    snprintf(path, sizeof path, GOLDEN "%s.gguf.out", name);
    struct bytes expected = read_file(path);
    const char *out = expected.at;
    size_t cases = 0;
    for (const char *in = inputs.at, *end; (end = strstr(in, separator)); in = end + strlen(separator), out = line_end(out) + 1) {
        struct bytes text = { 0 };
        int32_t *want;
        put(&text, in, (size_t)(end - in));
        size_t n = numbers(&out, &want);
        compare_ids(name, t, ++cases, &text, 0, want, n);
        free(want);
        free(text.at);
    }
    cr_assert_eq(cases, 46);
    free(inputs.at);
    free(expected.at);
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, llama_cpp_spm) { llama_cpp_fixture("ggml-vocab-llama-spm"); }
Test(tokenizer, llama_cpp_gpt2) { llama_cpp_fixture("ggml-vocab-gpt-2"); }
