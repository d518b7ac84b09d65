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
        cr_assert_eq(line, 104);
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
        cr_assert_eq(line, 504);
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

/* The bundled model, when it has been made: any text survives. */
Test(tokenizer, bundled_model)
{
    FILE *f = fopen(VKMOE_MODEL, "rb");
    if (!f)
        cr_skip_test("no " VKMOE_MODEL);
    fclose(f);
    vkm_tokenizer *t = open_tokenizer(VKMOE_MODEL);
    struct bytes inputs = read_file(GOLDEN "inputs.txt");
    int32_t *ids;
    size_t n = tokenize(t, inputs.at, inputs.n, 0, &ids);
    struct bytes back = detokenize(t, ids, n, true);
    cr_assert(back.n == inputs.n && memcmp(back.at, inputs.at, back.n) == 0);
    cr_assert(vkm_tokenizer_eos(t) < 0 || vkm_tokenizer_is_end(t, vkm_tokenizer_eos(t)));
    free(back.at);
    free(ids);
    free(inputs.at);
    vkm_tokenizer_destroy(t);
}

/* ---------------------------------------------------------------- small vocabularies */

enum { N = VKM_TOKEN_NORMAL, UNK = VKM_TOKEN_UNKNOWN, C = VKM_TOKEN_CONTROL, U = VKM_TOKEN_USER_DEFINED, B = VKM_TOKEN_BYTE };
#define SP "\xe2\x96\x81"

/* 0 <unk> 1 <s> 2 </s> 3 <0x0A> 4 <0xC3> 5 _ 6 a 7 b 8 ab 9 _a 10 "<tool>" 11 < 12 s 13 > 14 "<s" 15 "/" 16 "</" 17 "</s" 18 <0x41> 19 "s>" */
static const char *const spm_tokens[] = { "<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", SP, "a", "b", "ab", SP "a", "<tool>",
                                          "<", "s", ">", "<s", "/", "</", "</s", "<0x41>", "s>" };
static const int32_t spm_types[] = { UNK, C, C, B, B, N, N, N, N, N, U, N, N, N, N, N, N, N, B, N };
static const float spm_scores[] = { 0, 0, 0, 0, 0, -9, -9, -9, -1, -2, 0, -9, -9, -9, -3, -9, -3, -3, 0, -4 };

static struct file spm_file(void)
{
    struct file f = { 0 };
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_strs(&f, "tokenizer.ggml.tokens", spm_tokens, VKM_COUNT(spm_tokens));
    key_i32s(&f, "tokenizer.ggml.token_type", spm_types, VKM_COUNT(spm_types));
    key_f32s(&f, "tokenizer.ggml.scores", spm_scores, VKM_COUNT(spm_scores));
    return f;
}

Test(tokenizer, spm_rules)
{
    struct file f = spm_file();
    vkm_tokenizer *t = create_ok(&f);
    cr_assert_eq(vkm_tokenizer_n_vocab(t), VKM_COUNT(spm_tokens));
    cr_assert_eq(vkm_tokenizer_bos(t), 1);
    cr_assert_eq(vkm_tokenizer_eos(t), 2);
    EXPECT_IDS(t, "a", 0, 9);                                       /* a space in front */
    EXPECT_IDS(t, "ab", 0, 5, 8);                                   /* the better score first: "ab", then "_ab" is no token */
    EXPECT_IDS(t, "aa", 0, 9, 6);
    EXPECT_IDS(t, " a", 0, 5, 9);                                   /* one space more */
    EXPECT_IDS(t, "a", VKM_TOKENIZE_SPECIAL, 1, 9);
    EXPECT_IDS(t, "\n", 0, 5, 3);                                   /* byte token */
    EXPECT_IDS(t, "A\xc3", 0, 5, 18, 4);                            /* a byte token each, invalid UTF-8 too */
    EXPECT_IDS(t, "\xc3\xa9", 0, 5, 0);                             /* one of its bytes has no token: unknown, once */
    EXPECT_IDS(t, "x", 0, 5, 0);
    EXPECT_IDS(t, "a<tool>a<tool>", 0, 9, 10, 9, 10);               /* the space again behind a special token */
    EXPECT_IDS(t, "<s>", 0, 5, 14, 13);                             /* letters never make a control token */
    EXPECT_IDS(t, "</s>", 0, 5, 17, 13);
    EXPECT_IDS(t, "<0x41>", 0, 5, 11, 0, 0, 0, 0, 13);              /* nor a byte token */
    EXPECT_IDS(t, "<s>a</s>", VKM_TOKENIZE_PARSE, 1, 9, 2);
    EXPECT_IDS(t, "<unk>", VKM_TOKENIZE_PARSE, 0);
    int32_t *ids;
    cr_assert_eq(tokenize(t, NULL, 0, 0, &ids), 0);
    free(ids);
    cr_assert_eq(tokenize(t, "", 0, VKM_TOKENIZE_SPECIAL, &ids), 1);
    cr_assert_eq(ids[0], 1);
    free(ids);

    EXPECT_TEXT(t, false, "a a", 1, 9, 9, 2);                       /* the first space goes, hidden tokens do not count */
    EXPECT_TEXT(t, true, "<s> a</s>", 1, 9, 2);                     /* shown ones do */
    EXPECT_TEXT(t, false, " a", 5, 9);
    EXPECT_TEXT(t, false, "a<tool> a", 9, 10, 9);
    EXPECT_TEXT(t, false, "\nA\xef\xbf\xbd", 3, 18, 4);             /* the beginning of a character that never ended */
    EXPECT_TEXT(t, false, "\xef\xbf\xbd\xef\xbf\xbd" "b", 4, 4, 7);
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, spm_options)
{
    struct file f = spm_file();
    key_bool(&f, "tokenizer.ggml.add_space_prefix", false);
    key_bool(&f, "tokenizer.ggml.add_bos_token", false);
    key_bool(&f, "tokenizer.ggml.add_eos_token", true);
    key_bool(&f, "tokenizer.ggml.remove_extra_whitespaces", true);  /* not for SPM */
    vkm_tokenizer *t = create_ok(&f);
    EXPECT_IDS(t, "a", VKM_TOKENIZE_SPECIAL, 6, 2);
    EXPECT_IDS(t, "  a", 0, 5, 9);
    EXPECT_TEXT(t, false, " a", 9);
    vkm_tokenizer_destroy(t);

    f = spm_file();
    key_u32(&f, "tokenizer.ggml.bos_token_id", 6);
    key_u32(&f, "tokenizer.ggml.eos_token_id", 7);
    key_u32(&f, "tokenizer.ggml.eot_token_id", 8);
    t = create_ok(&f);
    cr_assert_eq(vkm_tokenizer_bos(t), 6);
    for (int32_t id = -2; id < 30; id++)
        cr_assert_eq(vkm_tokenizer_is_end(t, id), id == 2 || id == 7 || id == 8, "%d", id);
    vkm_tokenizer_destroy(t);

    f = spm_file();
    key_str(&f, "general.architecture", "phimoe");                  /* its special tokens swallow white space behind them */
    t = create_ok(&f);
    EXPECT_IDS(t, "<tool>\n a</s>\n", VKM_TOKENIZE_PARSE, 10, 9, 2);
    EXPECT_IDS(t, "<s>\n", VKM_TOKENIZE_PARSE, 1, 5, 3);
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, spm_without_types)
{
    static const char *const tokens[] = { "<unk>", "<s>", "</s>", "<0x0A>", SP };
    static const float scores[5] = { 0 };
    struct file f = { 0 };
    key_str(&f, "tokenizer.ggml.model", "llama");
    key_strs(&f, "tokenizer.ggml.tokens", tokens, 5);
    key_f32s(&f, "tokenizer.ggml.scores", scores, 5);
    vkm_tokenizer *t = create_ok(&f);
    EXPECT_IDS(t, "\n", 0, 4, 3);
    EXPECT_TEXT(t, false, "\n", 4, 3);
    vkm_tokenizer_destroy(t);
}

static const char *letters[256];     /* GPT-2's alphabet, made once */

static const char *letter(unsigned byte)
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
static struct file bpe_file(const char *pre, const char *const *more, const int32_t *types, size_t n, const char *const *merges, size_t n_merges)
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

Test(tokenizer, bpe_rules)
{
    static const char *const more[] = { "ab", "abc", "bc", "whole", "<|im_end|>", "<<", "<<>", "xy", "yz" };
    static const int32_t types[] = { N, N, N, N, N, N, C, N, N };
    static const char *const merges[] = { "b c", "a b", "a bc", "ab c", "y z", "x y", "y z", "w h", "< <", "<< >" };     /* "wh" is no token */
    struct file f = bpe_file("llama-bpe", more, types, 9, merges, 10);
    key_u32(&f, "tokenizer.ggml.bos_token_id", 65);
    vkm_tokenizer *t = create_ok(&f);
    EXPECT_IDS(t, "abc", 0, 257);
    EXPECT_IDS(t, "abab", 0, 256, 256);
    EXPECT_IDS(t, "xyz", 0, 'x', 264);                              /* a pair that is there twice has its first rank */
    EXPECT_IDS(t, "whole", 0, 259);                                 /* ignore_merges: no merge leads there */
    EXPECT_IDS(t, "wholes", 0, 'w', 'h', 'o', 'l', 'e', 's');       /* the merge without a result is skipped, no text is lost */
    EXPECT_IDS(t, "<|im_end|>", VKM_TOKENIZE_PARSE, 260);
    EXPECT_IDS(t, "<|im_end|>", 0, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|', '>');   /* a control token whatever its type says */
    EXPECT_IDS(t, "<<>", 0, 261, '>');                              /* no merge makes a control token */
    EXPECT_IDS(t, "ab", VKM_TOKENIZE_SPECIAL, 65, 256);             /* llama-bpe's default */
    EXPECT_TEXT(t, false, "abc", 256, 'c', 260);
    EXPECT_TEXT(t, true, "<|im_end|>", 260);
    cr_assert(vkm_tokenizer_is_end(t, 260));
    cr_assert_eq(vkm_tokenizer_eos(t), -1);
    size_t n;
    cr_assert(memcmp(vkm_tokenizer_piece(t, 259, &n), "whole", 5) == 0 && n == 5);
    cr_assert_null(vkm_tokenizer_piece(t, 265, &n));
    cr_assert_eq(n, 0);
    cr_assert_null(vkm_tokenizer_piece(t, -1, NULL));
    vkm_tokenizer_destroy(t);

    f = bpe_file("qwen2", more, types, 9, merges, 10);               /* neither ignore_merges nor bos */
    key_u32(&f, "tokenizer.ggml.bos_token_id", 65);
    t = create_ok(&f);
    EXPECT_IDS(t, "whole", VKM_TOKENIZE_SPECIAL, 'w', 'h', 'o', 'l', 'e');
    vkm_tokenizer_destroy(t);

    f = bpe_file(NULL, more, types, 9, merges, 10);                  /* no pre-tokenizer: "default" */
    t = create_ok(&f);
    EXPECT_IDS(t, "12345", 0, '1', '2', '3', '4', '5');
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, stripping_stops_at_a_longer_token)
{
    static const char *const more[] = { "<tool>", "  <toolbox>" };
    struct file f = bpe_file("gpt-2", more, (int32_t[]){ U, U }, 2, NULL, 0);
    key_str(&f, "general.architecture", "phi3");
    vkm_tokenizer *t = create_ok(&f);
    EXPECT_IDS(t, "<tool> \n  <toolbox>  a", 0, 256, 257, 'a');
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, end_of_generation)
{
    static const char *const harmony[] = { "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>" };
    static const char *const phi[] = { "<|end|>", "<|return|>", "<|fim_pad|>", "<\xef\xbd\x9c" "end" SP "of" SP "sentence\xef\xbd\x9c>" };
    struct file f = bpe_file("gpt-4o", harmony, NULL, 4, NULL, 0);
    vkm_tokenizer *t = create_ok(&f);
    cr_assert(!vkm_tokenizer_is_end(t, 256) && vkm_tokenizer_is_end(t, 257) && vkm_tokenizer_is_end(t, 258) && vkm_tokenizer_is_end(t, 259));
    EXPECT_TEXT(t, false, "", 256);                                 /* still a control token */
    vkm_tokenizer_destroy(t);
    f = bpe_file("gpt-4o", phi, NULL, 4, NULL, 0);
    t = create_ok(&f);
    cr_assert(vkm_tokenizer_is_end(t, 256) && vkm_tokenizer_is_end(t, 257) && vkm_tokenizer_is_end(t, 258) && vkm_tokenizer_is_end(t, 259));
    vkm_tokenizer_destroy(t);
}

/* ---------------------------------------------------------------- against plain references */

/* Special tokens (they are ids 256 ...) as llama.cpp finds them: for each token, the longest first, everywhere in the text that is left. */
static size_t plain_split(const char *const *tokens, const int32_t *types, int32_t n_tokens, const char *text, bool parse, int32_t *ids)
{
    size_t n = strlen(text), used = 0;
    int32_t owner[64];
    for (size_t i = 0; i < n; i++) owner[i] = -1;
    for (size_t length = n; length > 0; length--)
        for (int32_t id = 0; id < n_tokens; id++) {
            if (strlen(tokens[id]) != length || (types[id] != U && !parse))
                continue;
            for (size_t at = 0; at + length <= n; at++) {
                bool fits = memcmp(text + at, tokens[id], length) == 0;
                for (size_t i = 0; i < length; i++) fits = fits && owner[at + i] < 0;
                for (size_t i = 0; i < length && fits; i++) owner[at + i] = i ? 1000 : id;
            }
        }
    for (size_t i = 0; i < n; i++)
        if (owner[i] != 1000)
            ids[used++] = owner[i] < 0 ? (uint8_t)text[i] : 256 + owner[i];
    return used;
}

Test(tokenizer, special_tokens_against_reference)
{
    rng_state = 7;
    for (int round = 0; round < 200; round++) {
        enum { COUNT = 14 };
        char texts[COUNT][8] = { { 0 } };
        const char *tokens[COUNT];
        int32_t types[COUNT], n_tokens = 0;
        for (int i = 0; i < COUNT; i++) {
            char s[8] = { 0 };
            bool twice = false;
            for (uint32_t k = 2 + rng(4); k-- > 0;) s[k] = (char)('x' + rng(2));
            for (int32_t k = 0; k < n_tokens; k++) twice = twice || strcmp(texts[k], s) == 0;
            if (twice) continue;
            memcpy(texts[n_tokens], s, sizeof s);
            tokens[n_tokens] = texts[n_tokens];
            types[n_tokens] = (int32_t[]){ C, U, UNK }[rng(3)];
            n_tokens++;
        }
        struct file f = bpe_file("gpt-2", tokens, types, (size_t)n_tokens, NULL, 0);
        vkm_tokenizer *t = create_ok(&f);
        for (int i = 0; i < 40; i++) {
            char text[41] = { 0 };
            int32_t want[41], *ids;
            for (uint32_t k = rng(40); k-- > 0;) text[k] = (char)('x' + rng(round % 2 ? 2 : 3));
            uint32_t flags = rng(2) ? VKM_TOKENIZE_PARSE : 0;
            size_t n_want = plain_split(tokens, types, n_tokens, text, flags, want), n = tokenize(t, text, strlen(text), flags, &ids);
            cr_assert(n == n_want && memcmp(ids, want, n * sizeof *ids) == 0, "%s", text);
            free(ids);
        }
        vkm_tokenizer_destroy(t);
    }
}

struct span { size_t at, n; int32_t id; };
typedef double (*cost_fn)(const void *user, const struct span *l, const struct span *r, int32_t *joined);    /* < 0: no join */

/* Again and again: of all adjacent symbols join the pair of lowest cost, the leftmost on ties. */
static size_t plain_merge(struct span *s, size_t n, cost_fn cost, const void *user)
{
    for (;;) {
        size_t best = n;
        double best_cost = 0;
        int32_t id, best_id = -1;
        for (size_t i = 0; i + 1 < n; i++) {
            double c = cost(user, &s[i], &s[i + 1], &id);
            if (c >= 0 && (best == n || c < best_cost)) { best = i; best_cost = c; best_id = id; }
        }
        if (best == n)
            return n;
        s[best].n += s[best + 1].n;
        s[best].id = best_id;
        memmove(s + best + 1, s + best + 2, (n - best - 2) * sizeof *s);
        n--;
    }
}

struct small_model { const char *text; const char *tokens[64]; char store[64][24]; float scores[64]; int32_t n; struct { int32_t left, right, joined; } merges[32]; int n_merges; };

static double spm_cost(const void *user, const struct span *l, const struct span *r, int32_t *id)
{
    const struct small_model *m = user;
    for (*id = 0; *id < m->n; ++*id)
        if (strlen(m->tokens[*id]) == l->n + r->n && memcmp(m->tokens[*id], m->text + l->at, l->n + r->n) == 0)
            return 100.0 - m->scores[*id];
    return -1;
}

static double bpe_cost(const void *user, const struct span *l, const struct span *r, int32_t *id)
{
    const struct small_model *m = user;
    for (int i = 0; i < m->n_merges; i++)
        if (m->merges[i].left == l->id && m->merges[i].right == r->id) {
            *id = m->merges[i].joined;
            return i;
        }
    return -1;
}

static void expect_merge(const vkm_tokenizer *t, struct small_model *m, cost_fn cost, int32_t first_id)
{
    for (int i = 0; i < 40; i++) {
        char text[61] = { 0 };
        struct span spans[60];
        int32_t *ids;
        size_t n = 1 + rng(59);
        for (size_t k = 0; k < n; k++) {
            text[k] = (char)('a' + rng(3));
            spans[k] = (struct span){ k, 1, first_id + text[k] };
        }
        m->text = text;
        size_t n_want = plain_merge(spans, n, cost, m), got = tokenize(t, text, n, 0, &ids);
        cr_assert_eq(got, n_want, "%s", text);
        for (size_t k = 0; k < got; k++)
            cr_assert_eq(ids[k], spans[k].id, "%s", text);
        free(ids);
    }
}

static int32_t add_token(struct small_model *m, const char *text)
{
    for (int32_t i = 0; i < m->n; i++)
        if (strcmp(m->tokens[i], text) == 0)
            return -1;
    snprintf(m->store[m->n], sizeof m->store[0], "%s", text);
    m->tokens[m->n] = m->store[m->n];
    return m->n++;
}

Test(tokenizer, spm_merging_against_reference)
{
    rng_state = 11;
    for (int round = 0; round < 150; round++) {
        struct small_model m = { 0 };
        struct file f = { 0 };
        add_token(&m, "a"); add_token(&m, "b"); add_token(&m, "c");
        for (int i = 0; i < 30; i++) {
            char s[8] = { 0 };
            for (uint32_t k = 2 + rng(4); k-- > 0;) s[k] = (char)('a' + rng(3));
            add_token(&m, s);
        }
        for (int32_t i = 0; i < m.n; i++)
            m.scores[i] = rng(5) ? (float)rng(4) * 1.5f - 3 * (float)rng(2) : -0.0f;    /* few values, both signs: many ties */
        key_str(&f, "tokenizer.ggml.model", "llama");
        key_strs(&f, "tokenizer.ggml.tokens", m.tokens, (size_t)m.n);
        key_f32s(&f, "tokenizer.ggml.scores", m.scores, (size_t)m.n);
        key_bool(&f, "tokenizer.ggml.add_space_prefix", false);
        vkm_tokenizer *t = create_ok(&f);
        expect_merge(t, &m, spm_cost, -'a');
        vkm_tokenizer_destroy(t);
    }
}

Test(tokenizer, bpe_merging_against_reference)
{
    rng_state = 13;
    for (int round = 0; round < 150; round++) {
        struct small_model m = { 0 };
        const char *merges[32];
        char merge_text[32][64];
        while (m.n_merges < 20 && m.n < 40) {
            int32_t pair[2];
            char half[2][24], joined[48];
            for (int k = 0; k < 2; k++) {
                pair[k] = m.n > 0 && rng(2) ? 256 + (int32_t)rng((uint32_t)m.n) : 'a' + (int32_t)rng(3);
                snprintf(half[k], sizeof half[k], "%s", pair[k] < 256 ? letter((unsigned)pair[k]) : m.tokens[pair[k] - 256]);
            }
            snprintf(joined, sizeof joined, "%s%s", half[0], half[1]);
            if (strlen(joined) > 12) continue;
            int32_t id = add_token(&m, joined);
            if (id < 0) continue;
            m.merges[m.n_merges].left = pair[0];
            m.merges[m.n_merges].right = pair[1];
            m.merges[m.n_merges].joined = 256 + id;
            snprintf(merge_text[m.n_merges], sizeof merge_text[0], "%s %s", half[0], half[1]);
            merges[m.n_merges] = merge_text[m.n_merges];
            m.n_merges++;
        }
        struct file f = bpe_file("gpt-2", m.tokens, NULL, (size_t)m.n, merges, (size_t)m.n_merges);
        vkm_tokenizer *t = create_ok(&f);
        expect_merge(t, &m, bpe_cost, 0);
        vkm_tokenizer_destroy(t);
    }
}

/* ---------------------------------------------------------------- any bytes */

/* What a stream of bytes looks like as text: U+FFFD for every maximal beginning that is no character. */
static struct bytes as_text(const char *s, size_t n)
{
    struct bytes out = { 0 };
    put(&out, "", 0);
    for (size_t i = 0, length, fits; i < n; i += fits ? fits : 1) {
        fits = vkm_utf8_look(s + i, n - i, &length);
        if (fits && fits == length) put(&out, s + i, fits);
        else put(&out, "\xef\xbf\xbd", 3);
    }
    return out;
}

/* The bytes of ordinary tokens, read with the test's own alphabet. */
static struct bytes raw_bytes(const vkm_tokenizer *t, const int32_t *ids, size_t n)
{
    struct bytes out = { 0 };
    put(&out, "", 0);
    for (size_t i = 0; i < n; i++) {
        size_t left;
        const char *piece = vkm_tokenizer_piece(t, ids[i], &left);
        for (size_t size; left > 0; piece += size, left -= size) {
            unsigned byte = 0;
            while (byte < 256 && (strlen(letter(byte)) > left || memcmp(letter(byte), piece, strlen(letter(byte))) != 0)) byte++;
            cr_assert_lt(byte, 256);
            put(&out, &(char){ (char)byte }, 1);
            size = strlen(letter(byte));
        }
    }
    return out;
}

Test(tokenizer, random_bytes_survive)
{
    rng_state = 17;
    for (size_t f = 0; f < VKM_COUNT(families); f++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s.gguf", families[f]);
        vkm_tokenizer *t = open_tokenizer(path);
        for (int i = 0; i < 150; i++) {
            char text[200];
            size_t n = rng(sizeof text);
            for (size_t k = 0; k < n; k++)    /* any byte, or the bytes that make long characters, or text */
                text[k] = (char)(i % 3 == 0 ? rng(256) : i % 3 == 1 ? (uint32_t)"\xe4\xb8\xad\xf0\x9f\x99\x82\xed\xa0\xc3" "a "[rng(12)] : 9 + rng(118));
            int32_t *ids;
            size_t n_ids = tokenize(t, text, n, 0, &ids);
            struct bytes raw = raw_bytes(t, ids, n_ids), shown = detokenize(t, ids, n_ids, true), want = as_text(text, n);
            cr_assert(raw.n == n && memcmp(raw.at, text, n) == 0, "%s, text %d", families[f], i);
            cr_assert(shown.n == want.n && memcmp(shown.at, want.at, shown.n) == 0, "%s, text %d", families[f], i);
            free(raw.at);
            free(shown.at);
            free(want.at);
            free(ids);
        }
        vkm_tokenizer_destroy(t);
    }
}

#define BAD "\xef\xbf\xbd"
static void expect_bytes(const vkm_tokenizer *t, const char *bytes, const char *text)
{
    int32_t ids[8];
    size_t n = strlen(bytes);
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint8_t)bytes[i];
    expect_text(t, n, ids, false, text);
}

/* Unicode's own examples (table 3-8 and around): one U+FFFD for each maximal beginning. */
Test(tokenizer, bytes_that_are_no_text)
{
    struct file f = bpe_file("gpt-2", NULL, NULL, 0, NULL, 0);
    vkm_tokenizer *t = create_ok(&f);
    expect_bytes(t, "\xc0\xaf", BAD BAD);
    expect_bytes(t, "\xe0\x80\xaf", BAD BAD BAD);
    expect_bytes(t, "\xed\xa0\x80", BAD BAD BAD);
    expect_bytes(t, "\xed\x9f\xbf", "\xed\x9f\xbf");
    expect_bytes(t, "\xf0\x8f\xbf\xbf", BAD BAD BAD BAD);
    expect_bytes(t, "\xf0\x90\x80\x80", "\xf0\x90\x80\x80");
    expect_bytes(t, "\xf4\x90\x80\x80", BAD BAD BAD BAD);
    expect_bytes(t, "\xf5\xff\x80", BAD BAD BAD);
    expect_bytes(t, "\xf0\x9f\x99x", BAD "x");
    expect_bytes(t, "\xe4\xb8\xe4\xb8\xad", BAD "\xe4\xb8\xad");
    expect_bytes(t, "\xc3\xc3\xa9", BAD "\xc3\xa9");
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, spm_takes_any_bytes)
{
    vkm_tokenizer *t = open_tokenizer(GOLDEN "ggml-vocab-llama-spm.gguf");
    rng_state = 19;
    for (int i = 0; i < 500; i++) {
        char text[100];
        size_t n = rng(sizeof text);
        for (size_t k = 0; k < n; k++)
            text[k] = (char)(i % 2 ? rng(256) : 32 + rng(95));
        int32_t *ids;
        size_t n_ids = tokenize(t, text, n, VKM_TOKENIZE_SPECIAL, &ids);
        struct bytes shown = detokenize(t, ids, n_ids, false), want = as_text(text, n);
        cr_assert(shown.n == want.n && memcmp(shown.at, want.at, shown.n) == 0, "text %d", i);
        free(shown.at);
        free(want.at);
        free(ids);
    }
    vkm_tokenizer_destroy(t);
}

/* ---------------------------------------------------------------- streaming */

/* Characters of every length, each cut at every place: the tokens are the two halves. */
Test(tokenizer, stream_never_ends_inside_a_character)
{
    static const char *const characters[] = { "\xc3\xa9", "\xe4\xb8\xad", "\xe0\xa4\xb9", "\xed\x9f\xbf", "\xef\xbf\xbd", "\xf0\x9f\x99\x82", "\xf4\x8f\xbf\xbf" };
    struct file f = bpe_file("gpt-2", NULL, NULL, 0, NULL, 0);
    vkm_tokenizer *t = create_ok(&f);
    vkm_detokenizer *d = NULL;
    const char *text;
    size_t n;
    cr_assert_eq(vkm_detokenizer_create(t, false, &d, NULL), VKM_OK);
    for (size_t c = 0; c < VKM_COUNT(characters); c++) {
        size_t size = strlen(characters[c]);
        for (size_t i = 0; i < size; i++) {
            cr_assert_eq(vkm_detokenizer_push(d, (uint8_t)characters[c][i], &text, &n, NULL), VKM_OK);
            cr_assert_eq(n, i + 1 < size ? 0 : size);
        }
        cr_assert_eq(memcmp(text, characters[c], size), 0);
        for (size_t cut = 1; cut < size; cut++) {      /* broken off: by a letter, by the end, by reset */
            for (int how = 0; how < 3; how++) {
                for (size_t i = 0; i < cut; i++)
                    cr_assert_eq(vkm_detokenizer_push(d, (uint8_t)characters[c][i], &text, &n, NULL), VKM_OK);
                if (how == 0) {
                    cr_assert_eq(vkm_detokenizer_push(d, 'x', &text, &n, NULL), VKM_OK);
                    cr_assert(n == 4 && memcmp(text, "\xef\xbf\xbdx", 4) == 0);
                } else if (how == 1) {
                    cr_assert_eq(vkm_detokenizer_flush(d, &text, &n, NULL), VKM_OK);
                    cr_assert(n == 3 && memcmp(text, "\xef\xbf\xbd", 3) == 0);
                } else {
                    vkm_detokenizer_reset(d);
                }
                cr_assert_eq(vkm_detokenizer_flush(d, &text, &n, NULL), VKM_OK);
                cr_assert_eq(n, 0);
            }
        }
    }
    /* a bad id leaves the stream as it was */
    vkm_error err = { 0 };
    cr_assert_eq(vkm_detokenizer_push(d, 0xc3, &text, &n, NULL), VKM_OK);
    cr_assert_eq(vkm_detokenizer_push(d, 256, &text, &n, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_detokenizer_push(d, -1, &text, &n, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_detokenizer_push(d, 0xa9, &text, &n, NULL), VKM_OK);
    cr_assert(n == 2 && memcmp(text, "\xc3\xa9", 2) == 0);
    vkm_detokenizer_destroy(d);
    vkm_detokenizer_destroy(NULL);
    vkm_tokenizer_destroy(t);
    vkm_tokenizer_destroy(NULL);
}

Test(tokenizer, stream_restarts_with_its_space)
{
    struct file f = spm_file();
    vkm_tokenizer *t = create_ok(&f);
    vkm_detokenizer *d = NULL;
    const char *text;
    size_t n;
    cr_assert_eq(vkm_detokenizer_create(t, false, &d, NULL), VKM_OK);
    for (int i = 0; i < 2; i++) {
        cr_assert(vkm_detokenizer_push(d, 9, &text, &n, NULL) == VKM_OK && n == 1 && text[0] == 'a');
        cr_assert(vkm_detokenizer_push(d, 9, &text, &n, NULL) == VKM_OK && n == 2 && text[0] == ' ');
        vkm_detokenizer_reset(d);
    }
    vkm_detokenizer_destroy(d);
    vkm_tokenizer_destroy(t);
}

/* ---------------------------------------------------------------- size, threads, arguments */

/* Long texts that a quadratic loop would not finish, through every family. */
Test(tokenizer, long_words_stay_fast)
{
    static const char *const patterns[] = { "a", "A", " ", "\n", "1", "!", "\xcc\x81", " \n", "\xff", "<", "aA1 ", "\xe4\xb8\xad", "'", " x", "\t\t\t\xc2\xa0" };
    enum { SIZE = 1 << 17 };
    char *text = malloc(SIZE);
    for (size_t f = 0; f < VKM_COUNT(families) + 1; f++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s.gguf", f < VKM_COUNT(families) ? families[f] : "ggml-vocab-llama-spm");
        vkm_tokenizer *t = open_tokenizer(path);
        for (size_t p = 0; p < VKM_COUNT(patterns); p++) {
            size_t size = strlen(patterns[p]), n_ids = 0;
            for (size_t i = 0; i < SIZE; i++)
                text[i] = patterns[p][i % size];
            text[SIZE - 1] = '1';
            struct timespec from, to;
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
            vkm_error err = { 0 };
            cr_assert_eq(vkm_tokenize(t, text, SIZE, 0, NULL, &n_ids, &err), VKM_OK, "%s: %s", path, err.message);
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
            double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
            cr_assert(n_ids > 0 && n_ids <= SIZE + 2);
            cr_assert_lt(seconds, 10.0, "%s, pattern %zu: %g s", path, p, seconds);    /* 0.1 s with sanitizers */
        }
        vkm_tokenizer_destroy(t);
    }
    free(text);
}

static void *tokenize_many(void *user)
{
    const vkm_tokenizer *t = user;
    size_t total = 0;
    for (int i = 0; i < 200; i++) {
        int32_t ids[64];
        size_t n = 64;
        if (vkm_tokenize(t, "The tavern keeper didn't say <|im_end|> 1234", 44, VKM_TOKENIZE_PARSE, ids, &n, NULL) != VKM_OK)
            return NULL;
        total += n;
    }
    return (void *)total;
}

Test(tokenizer, shared_between_threads)
{
    vkm_tokenizer *t = open_tokenizer(GOLDEN "qwen2.gguf");
    pthread_t threads[4];
    void *totals[4];
    for (int i = 0; i < 4; i++) cr_assert_eq(pthread_create(&threads[i], NULL, tokenize_many, t), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], &totals[i]);
    for (int i = 0; i < 4; i++) cr_assert(totals[i] && totals[i] == totals[0]);
    vkm_tokenizer_destroy(t);
}

Test(tokenizer, arguments)
{
    vkm_tokenizer *t = NULL;
    vkm_detokenizer *d = NULL;
    vkm_error err = { 0 };
    cr_assert_eq(vkm_tokenizer_open(NULL, &t, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_tokenizer_open("/nonexistent.gguf", &t, &err), VKM_ERR_IO);
    cr_assert_null(t);
    t = open_tokenizer(GOLDEN "qwen2.gguf");
    int32_t ids[3] = { -7, -7, -7 };
    size_t n = 3;
    cr_assert_eq(vkm_tokenize(t, NULL, 1, 0, ids, &n, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_tokenize(t, "a", 1, 4, ids, &n, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_tokenize(t, "a", 1, 0, NULL, &n, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_tokenize(t, "a", 1, 0, ids, NULL, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_tokenize(NULL, "a", 1, 0, ids, &n, &err), VKM_ERR_ARGUMENT);
    cr_assert(n == 3 && ids[0] == -7);
    n = 2;                                                          /* too small: what fits, and the number needed */
    cr_assert_eq(vkm_tokenize(t, "a.b.c", 5, 0, ids, &n, &err), VKM_OK);
    cr_assert(n > 2 && ids[0] != -7 && ids[1] != -7 && ids[2] == -7);
    cr_assert_eq(vkm_detokenizer_create(NULL, false, &d, &err), VKM_ERR_ARGUMENT);
    vkm_tokenizer_destroy(t);
}

/* ---------------------------------------------------------------- hostile files */

static void expect_refused(struct file *f, vkm_result code, const char *word)
{
    vkm_tokenizer *t = NULL;
    vkm_error err = { 0 };
    cr_assert_eq(create(f, &t, &err), code, "%s: %s", word, err.message);
    cr_assert_null(t);
    cr_assert(strstr(err.message, word), "\"%s\" does not say \"%s\"", err.message, word);
}

Test(tokenizer, hostile_spm)
{
    static const float short_scores[3] = { 0 }, nan_score[] = { 0, 0, (float)__builtin_nan(""), 0 };
    static const char *const tokens[] = { "<unk>", "<s>", "</s>", "x" }, *const twice[] = { "<unk>", "<s>", "x", "x" };
    static const char *const bad_bytes[] = { "<0x-1>", "<0x1>", "<0x100>", "<0xG0>", "<0x 1>", "0x0A", "", "<0x0A" };
    static const float scores[4] = { 0 };
    static const int32_t types[] = { UNK, C, C, N }, big[] = { UNK, C, C, 7 }, negative[] = { UNK, C, C, -1 }, with_byte[] = { UNK, C, C, B };
    struct file f;
#define START(list, n) f = (struct file){ 0 }; key_str(&f, "tokenizer.ggml.model", "llama"); key_strs(&f, "tokenizer.ggml.tokens", list, n)
    START(tokens, 4);                                                        expect_refused(&f, VKM_ERR_FORMAT, "scores");
    START(tokens, 4); key_f32s(&f, "tokenizer.ggml.scores", short_scores, 3); expect_refused(&f, VKM_ERR_FORMAT, "scores");
    START(tokens, 4); key_i32s(&f, "tokenizer.ggml.scores", types, 4);        expect_refused(&f, VKM_ERR_FORMAT, "scores");
    START(tokens, 4); key_strs(&f, "tokenizer.ggml.scores", tokens, 4);       expect_refused(&f, VKM_ERR_FORMAT, "scores");
    START(tokens, 4); key_f32s(&f, "tokenizer.ggml.scores", nan_score, 4);    expect_refused(&f, VKM_ERR_FORMAT, "scores");
    START(tokens, 4); key_u32(&f, "tokenizer.ggml.scores", 4);                expect_refused(&f, VKM_ERR_FORMAT, "scores");
    START(twice, 4); key_f32s(&f, "tokenizer.ggml.scores", scores, 4);        expect_refused(&f, VKM_ERR_FORMAT, "same text");
    START(tokens, 0); key_f32s(&f, "tokenizer.ggml.scores", scores, 0);       expect_refused(&f, VKM_ERR_FORMAT, "tokens");
    const struct { const int32_t *types; size_t n; } bad_types[] = { { types, 3 }, { big, 4 }, { negative, 4 } };
    for (size_t i = 0; i < VKM_COUNT(bad_types); i++) {
        START(tokens, 4);
        key_f32s(&f, "tokenizer.ggml.scores", scores, 4);
        key_i32s(&f, "tokenizer.ggml.token_type", bad_types[i].types, bad_types[i].n);
        expect_refused(&f, VKM_ERR_FORMAT, "token_type");
    }
    START(tokens, 4); key_f32s(&f, "tokenizer.ggml.scores", scores, 4); key_f32s(&f, "tokenizer.ggml.token_type", scores, 4);
    expect_refused(&f, VKM_ERR_FORMAT, "token_type");
    for (size_t i = 0; i < VKM_COUNT(bad_bytes); i++) {
        const char *const list[] = { "<unk>", "<s>", "</s>", bad_bytes[i] };
        START(list, 4);
        key_f32s(&f, "tokenizer.ggml.scores", scores, 4);
        key_i32s(&f, "tokenizer.ggml.token_type", with_byte, 4);
        expect_refused(&f, VKM_ERR_FORMAT, "byte token");
    }
    static const char *const ids[] = { "bos", "eos", "unknown", "eot", "eom" };
    for (size_t i = 0; i < VKM_COUNT(ids); i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ids[i]);
        START(tokens, 4); key_f32s(&f, "tokenizer.ggml.scores", scores, 4); key_u32(&f, key, 4);            expect_refused(&f, VKM_ERR_FORMAT, key);
        START(tokens, 4); key_f32s(&f, "tokenizer.ggml.scores", scores, 4); key_u32(&f, key, 0xffffffffu);  expect_refused(&f, VKM_ERR_FORMAT, key);
        START(tokens, 4); key_f32s(&f, "tokenizer.ggml.scores", scores, 4); key_str(&f, key, "1");          expect_refused(&f, VKM_ERR_FORMAT, key);
    }
    f = (struct file){ 0 }; key_str(&f, "tokenizer.ggml.model", "llama"); key_i32s(&f, "tokenizer.ggml.tokens", types, 4);
    expect_refused(&f, VKM_ERR_FORMAT, "tokens");
    f = (struct file){ 0 }; key_str(&f, "tokenizer.ggml.model", "llama");  expect_refused(&f, VKM_ERR_FORMAT, "tokens");
    f = (struct file){ 0 }; key_str(&f, "tokenizer.ggml.model", "t5\x1b"); expect_refused(&f, VKM_ERR_UNSUPPORTED, "\"t5?\"");
    f = (struct file){ 0 }; key_u32(&f, "tokenizer.ggml.model", 1);        expect_refused(&f, VKM_ERR_FORMAT, "tokenizer.ggml.model");
    f = (struct file){ 0 }; key_str(&f, "general.name", "none");           expect_refused(&f, VKM_ERR_FORMAT, "tokenizer.ggml.model");
}

Test(tokenizer, hostile_bpe)
{
    static const char *const more[] = { "ab" };
    static const char *const bad_merges[] = { "", " ", "ab", "a", " a", "a ", "a  b", "zz a", "a zz", "\xc4\xa0" };
    struct file f = bpe_file("no-such", more, NULL, 1, NULL, 0);
    expect_refused(&f, VKM_ERR_UNSUPPORTED, "\"no-such\"");
    f = bpe_file("", more, NULL, 1, NULL, 0);
    expect_refused(&f, VKM_ERR_UNSUPPORTED, "pre-tokenizer");
    f = bpe_file("qwen2 stablelm2", more, NULL, 1, NULL, 0);
    expect_refused(&f, VKM_ERR_UNSUPPORTED, "pre-tokenizer");
    for (size_t i = 0; i < VKM_COUNT(bad_merges); i++) {
        f = bpe_file("gpt-2", more, NULL, 1, bad_merges + i, 1);
        expect_refused(&f, VKM_ERR_FORMAT, "merges");
    }
    f = bpe_file("gpt-2", more, NULL, 1, NULL, 0);
    key_bool(&f, "tokenizer.ggml.add_bos_token", true);                 /* but no bos */
    expect_refused(&f, VKM_ERR_FORMAT, "add_bos_token");
    f = bpe_file("gpt-2", more, NULL, 1, NULL, 0);
    key_u32(&f, "tokenizer.ggml.add_eos_token", 7);
    expect_refused(&f, VKM_ERR_FORMAT, "add_eos_token");
    f = (struct file){ 0 };
    key_str(&f, "tokenizer.ggml.model", "gpt2");
    key_strs(&f, "tokenizer.ggml.tokens", more, 1);
    expect_refused(&f, VKM_ERR_FORMAT, "merges");
    f = (struct file){ 0 };
    key_str(&f, "tokenizer.ggml.model", "gpt2");
    key_strs(&f, "tokenizer.ggml.tokens", more, 1);
    key_i32s(&f, "tokenizer.ggml.merges", (int32_t[]){ 1 }, 1);
    expect_refused(&f, VKM_ERR_FORMAT, "merges");

    /* Odd, but harmless: no letters at all (text disappears), empty pieces, a byte token that is none, pieces outside the alphabet. */
    static const char *const odd[] = { "", "", "<0x-1>", "<0x41>", "\xff", "\xe4\xb8\xad", "a b" };
    f = (struct file){ 0 };
    key_str(&f, "tokenizer.ggml.model", "gpt2");
    key_strs(&f, "tokenizer.ggml.tokens", odd, VKM_COUNT(odd));
    key_i32s(&f, "tokenizer.ggml.token_type", (int32_t[]){ C, U, B, B, N, N, N }, VKM_COUNT(odd));
    key_strs(&f, "tokenizer.ggml.merges", NULL, 0);
    vkm_tokenizer *t = create_ok(&f);
    int32_t *ids;
    cr_assert_eq(tokenize(t, "any text", 8, VKM_TOKENIZE_PARSE, &ids), 0);
    free(ids);
    EXPECT_TEXT(t, true, "<0x-1>A\xef\xbf\xbd\xe4\xb8\xad" "a b", 0, 1, 2, 3, 4, 5, 6);
    vkm_tokenizer_destroy(t);
}
