/* Tokenizers: exact ids of llama.cpp's vocabulary tests and of Hugging Face `tokenizers` (golden/tokenizer/README.md), the rules and options of
 * both kinds, plain quadratic references for merging and special tokens. Bytes, streams and hostile files: test_tokenizer_bytes.c. */
#include "tokenizer_files.h"

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

/* ---------------------------------------------------------------- rules and options */

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
