/* Tokenizers before any input: bytes that are no text, streaming back to text, long texts, threads, arguments, hostile files. */
#include "tokenizer_files.h"

#include <pthread.h>
#include <time.h>

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

Test(tokenizer_bytes, random_bytes_survive)
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
Test(tokenizer_bytes, bytes_that_are_no_text)
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

Test(tokenizer_bytes, spm_takes_any_bytes)
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
Test(tokenizer_bytes, stream_never_ends_inside_a_character)
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

Test(tokenizer_bytes, stream_restarts_with_its_space)
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
Test(tokenizer_bytes, long_words_stay_fast)
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

Test(tokenizer_bytes, shared_between_threads)
{
    vkm_tokenizer *t = open_tokenizer(GOLDEN "qwen2.gguf");
    pthread_t threads[4];
    void *totals[4];
    for (int i = 0; i < 4; i++) cr_assert_eq(pthread_create(&threads[i], NULL, tokenize_many, t), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], &totals[i]);
    for (int i = 0; i < 4; i++) cr_assert(totals[i] && totals[i] == totals[0]);
    vkm_tokenizer_destroy(t);
}

Test(tokenizer_bytes, arguments)
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

Test(tokenizer_bytes, hostile_spm)
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

Test(tokenizer_bytes, hostile_bpe)
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
