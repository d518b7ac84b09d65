/* The GGUF reader: good files, files that lie, files that were cut, files with flipped bits. */
#include "gguf/gguf.h"
#include "reference/dequant.h"
#include "reference/ggufwalk.h"
#include "reference/ggufwrite.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- helpers */

static vkm_gguf *open_bytes(const struct ref_bytes *b)
{
    vkm_gguf *g = NULL;
    vkm_error err = {0};
    vkm_result r = vkm_gguf_open_memory(b->at, b->n, "test.gguf", &g, &err);
    cr_assert_eq(r, VKM_OK, "%s", err.message);
    return g;
}

static vkm_gguf *open_built(struct ref_gguf *w, struct ref_bytes *b)
{
    *b = ref_gguf_bytes(w);
    ref_gguf_free(w);
    return open_bytes(b);
}

static bool str_is(struct vkm_str s, const char *text) { return s.n == strlen(text) && memcmp(s.at, text, s.n) == 0; }

/* A directory of its own for a test that needs files; Criterion runs each test in its own process. */
static const char *temp_dir(void)
{
    static char dir[PATH_MAX];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/vkmoe-gguf-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    return dir;
}

static const char *in_dir(const char *dir, const char *name)
{
    static char path[2][PATH_MAX + 64];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void remove_all(const char *dir, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) unlink(in_dir(dir, names[i]));
    rmdir(dir);
}

/* Keys of every type and tensors of a few: the file that is cut and mutated below. */
static struct ref_gguf rich_file(void)
{
    struct ref_gguf w = {0};
    static const char *const words[] = {"", "a", "\xe2\x96\x81the", "word"};
    static const int64_t small[] = {0, 1, 1, 0}, numbers[] = {INT8_MIN, -1, 0, INT8_MAX}, big[] = {INT64_MIN, INT64_MAX};
    static const float floats[] = {0.5f, -1.25f, 3e8f};
    ref_key_str(&w, "general.architecture", "olmoe");
    ref_key_int(&w, "u8", VKM_GGUF_U8, 255);
    ref_key_int(&w, "i8", VKM_GGUF_I8, -128);
    ref_key_int(&w, "u16", VKM_GGUF_U16, 65535);
    ref_key_int(&w, "i16", VKM_GGUF_I16, -32768);
    ref_key_int(&w, "u32", VKM_GGUF_U32, UINT32_MAX);
    ref_key_int(&w, "i32", VKM_GGUF_I32, INT32_MIN);
    ref_key_int(&w, "u64", VKM_GGUF_U64, -1);
    ref_key_int(&w, "i64", VKM_GGUF_I64, INT64_MIN);
    ref_key_f32(&w, "f32", 0.1f);
    ref_key_f64(&w, "f64", 0.1);
    ref_key_bool(&w, "yes", true);
    ref_key_bool(&w, "no", false);
    ref_key_str(&w, "empty", "");
    ref_key_strs(&w, "words", words, VKM_COUNT(words));
    ref_key_f32s(&w, "floats", floats, VKM_COUNT(floats));
    ref_key_ints(&w, "bools", VKM_GGUF_BOOL, small, VKM_COUNT(small));
    ref_key_ints(&w, "i8s", VKM_GGUF_I8, numbers, VKM_COUNT(numbers));
    ref_key_ints(&w, "u16s", VKM_GGUF_U16, small, VKM_COUNT(small));
    ref_key_ints(&w, "i64s", VKM_GGUF_I64, big, VKM_COUNT(big));
    ref_key_ints(&w, "u64s", VKM_GGUF_U64, big, VKM_COUNT(big));
    ref_key_ints(&w, "none", VKM_GGUF_U32, NULL, 0);
    ref_key_strs(&w, "no words", NULL, 0);
    static const uint8_t data[512] = {1, 2, 3};
    ref_tensor(&w, "vector", REF_F32, 1, (uint64_t[]){5}, data);
    ref_tensor(&w, "matrix", REF_F16, 2, (uint64_t[]){3, 7}, data);
    ref_tensor(&w, "experts", REF_Q4_0, 3, (uint64_t[]){32, 2, 3}, data);
    ref_tensor(&w, "four", REF_Q4_K, 4, (uint64_t[]){256, 1, 1, 2}, data);
    ref_tensor(&w, "scalar", REF_F32, 0, NULL, data);
    return w;
}

/* ---------------------------------------------------------------- good files */

static void check_rich(const vkm_gguf *g)
{
    int64_t i;
    double f;
    bool b;
    struct vkm_str s;
    cr_assert_eq(vkm_gguf_str(g, "general.architecture", &s, NULL), VKM_OK);
    cr_assert(str_is(s, "olmoe"));
    static const struct { const char *key; int64_t value; } ints[] = {{"u8", 255}, {"i8", -128}, {"u16", 65535}, {"i16", -32768}, {"u32", UINT32_MAX},
                                                                      {"i32", INT32_MIN}, {"i64", INT64_MIN}, {"yes", 1}, {"no", 0}};
    for (size_t k = 0; k < VKM_COUNT(ints); k++) {
        cr_assert_eq(vkm_gguf_int(g, ints[k].key, INT64_MIN, INT64_MAX, &i, NULL), VKM_OK, "%s", ints[k].key);
        cr_assert_eq(i, ints[k].value, "%s", ints[k].key);
    }
    cr_assert_eq(vkm_gguf_float(g, "f32", &f, NULL), VKM_OK);
    cr_assert_eq(f, (double)0.1f);
    cr_assert_eq(vkm_gguf_float(g, "f64", &f, NULL), VKM_OK);
    cr_assert_eq(f, 0.1);
    cr_assert(vkm_gguf_bool(g, "yes", &b, NULL) == VKM_OK && b);
    cr_assert(vkm_gguf_bool(g, "no", &b, NULL) == VKM_OK && !b);
    cr_assert(vkm_gguf_str(g, "empty", &s, NULL) == VKM_OK && s.n == 0);
    cr_assert(vkm_gguf_has(g, "none") && !vkm_gguf_has(g, "nothing") && !vkm_gguf_has(g, ""));
}

static void check_rich_arrays(const vkm_gguf *g)
{
    enum vkm_gguf_type element;
    uint64_t n;
    int64_t i;
    double f;
    struct vkm_str s;
    cr_assert(vkm_gguf_array(g, "words", &element, &n, NULL) == VKM_OK && element == VKM_GGUF_STRING && n == 4);
    cr_assert(vkm_gguf_array_str(g, "words", 3, &s, NULL) == VKM_OK && str_is(s, "word"));
    cr_assert(vkm_gguf_array_str(g, "words", 0, &s, NULL) == VKM_OK && s.n == 0);
    cr_assert(vkm_gguf_array_str(g, "words", 2, &s, NULL) == VKM_OK && str_is(s, "\xe2\x96\x81the"));
    cr_assert(vkm_gguf_array(g, "floats", &element, &n, NULL) == VKM_OK && element == VKM_GGUF_F32 && n == 3);
    cr_assert(vkm_gguf_array_float(g, "floats", 1, &f, NULL) == VKM_OK && f == -1.25);
    cr_assert(vkm_gguf_array_int(g, "bools", 1, &i, NULL) == VKM_OK && i == 1);
    cr_assert(vkm_gguf_array_int(g, "i8s", 0, &i, NULL) == VKM_OK && i == INT8_MIN);
    cr_assert(vkm_gguf_array_int(g, "u16s", 2, &i, NULL) == VKM_OK && i == 1);
    cr_assert(vkm_gguf_array_int(g, "i64s", 0, &i, NULL) == VKM_OK && i == INT64_MIN);
    cr_assert(vkm_gguf_array_int(g, "u64s", 1, &i, NULL) == VKM_OK && i == INT64_MAX);
    cr_assert(vkm_gguf_array(g, "none", &element, &n, NULL) == VKM_OK && element == VKM_GGUF_U32 && n == 0);
    cr_assert(vkm_gguf_array(g, "no words", &element, &n, NULL) == VKM_OK && element == VKM_GGUF_STRING && n == 0);
}

static void check_rich_tensors(const vkm_gguf *g, const struct ref_bytes *b, uint64_t alignment)
{
    static const struct { const char *name; uint32_t n_dims; uint64_t ne[4], bytes; } want[] = {
        {"vector", 1, {5, 1, 1, 1}, 20}, {"matrix", 2, {3, 7, 1, 1}, 42}, {"experts", 3, {32, 2, 3, 1}, 108}, {"four", 4, {256, 1, 1, 2}, 288},
        {"scalar", 0, {1, 1, 1, 1}, 4}};
    cr_assert_eq(vkm_gguf_tensor_count(g), VKM_COUNT(want));
    for (size_t i = 0; i < VKM_COUNT(want); i++) {
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_at(g, i);
        cr_assert_eq(vkm_gguf_tensor_find(g, want[i].name), t);
        cr_assert(str_is(t->name, want[i].name) && t->n_dims == want[i].n_dims && t->bytes == want[i].bytes, "%s", want[i].name);
        cr_assert_eq(memcmp(t->ne, want[i].ne, sizeof t->ne), 0);
        cr_assert_eq(((const uint8_t *)t->data - b->at) % alignment, 0);
        cr_assert_eq(memcmp(t->data, "\1\2\3", 3), 0);
    }
    cr_assert_null(vkm_gguf_tensor_find(g, "matri"));
}

Test(gguf, versions_and_alignments)
{
    static const uint32_t versions[] = {2, 3}, alignments[] = {0, 8, 32, 64, 4096, 1 << 20};
    for (size_t v = 0; v < VKM_COUNT(versions); v++)
        for (size_t a = 0; a < VKM_COUNT(alignments); a++) {
            struct ref_gguf w = {.version = versions[v], .alignment = alignments[a]}, rich = rich_file();
            struct ref_bytes b;
            static const uint8_t data[512] = {1, 2, 3};
            w.keys = rich.keys, w.n_keys = rich.n_keys;   /* the tensors again, at this alignment */
            ref_bytes_free(&rich.infos);
            ref_bytes_free(&rich.data);
            ref_tensor(&w, "vector", REF_F32, 1, (uint64_t[]){5}, data);
            ref_tensor(&w, "matrix", REF_F16, 2, (uint64_t[]){3, 7}, data);
            ref_tensor(&w, "experts", REF_Q4_0, 3, (uint64_t[]){32, 2, 3}, data);
            ref_tensor(&w, "four", REF_Q4_K, 4, (uint64_t[]){256, 1, 1, 2}, data);
            ref_tensor(&w, "scalar", REF_F32, 0, NULL, data);
            vkm_gguf *g = open_built(&w, &b);
            check_rich(g);
            check_rich_arrays(g);
            check_rich_tensors(g, &b, alignments[a] ? alignments[a] : 32);
            cr_assert_eq(vkm_gguf_file_bytes(g), b.n);
            vkm_gguf_close(g);
            ref_bytes_free(&b);
        }
}

Test(gguf, nothing_in_it)
{
    struct ref_gguf w = {0};
    struct ref_bytes b;
    vkm_gguf *g = open_built(&w, &b);
    cr_assert_eq(b.n, 24);
    cr_assert(vkm_gguf_key_count(g) == 0 && vkm_gguf_tensor_count(g) == 0 && !vkm_gguf_has(g, "x") && !vkm_gguf_tensor_find(g, "x"));
    vkm_gguf_close(g);
    ref_bytes_free(&b);
}

Test(gguf, close_null) { vkm_gguf_close(NULL); }

Test(gguf, many_names)
{
    enum { N = 20000 };
    struct ref_gguf w = {0};
    struct ref_bytes b;
    char name[32];
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key.%u", i);
        ref_key_u32(&w, name, i * 7);
        snprintf(name, sizeof name, "blk.%u.weight", i);
        ref_tensor(&w, name, REF_F32, 1, (uint64_t[]){1}, &(float){(float)i});
    }
    vkm_gguf *g = open_built(&w, &b);
    for (uint32_t i = 0; i < N; i++) {
        int64_t x;
        snprintf(name, sizeof name, "key.%u", i);
        cr_assert(vkm_gguf_int(g, name, 0, INT64_MAX, &x, NULL) == VKM_OK && x == i * 7);
        snprintf(name, sizeof name, "blk.%u.weight", i);
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_find(g, name);
        cr_assert(t && *(const float *)t->data == (float)i);
    }
    vkm_gguf_close(g);
    ref_bytes_free(&b);
}

/* Offsets may leave gaps and need not follow the order of the records. */
Test(gguf, tensors_out_of_order_with_gaps)
{
    struct ref_bytes b = {0};
    ref_put(&b, "GGUF", 4);
    ref_put_int(&b, 3, 4);
    ref_put_int(&b, 2, 8);
    ref_put_int(&b, 0, 8);
    static const uint64_t offsets[] = {96, 0};
    for (int i = 0; i < 2; i++) {
        ref_put_str(&b, i ? "b" : "a");
        ref_put_int(&b, 1, 4);
        ref_put_int(&b, 4, 8);
        ref_put_int(&b, REF_F32, 4);
        ref_put_int(&b, offsets[i], 8);
    }
    ref_put_pad(&b, 32);
    ref_put(&b, (uint8_t[112]){[0] = 22, [96] = 11}, 112);
    vkm_gguf *g = open_bytes(&b);
    cr_assert_eq(*(const uint8_t *)vkm_gguf_tensor_find(g, "a")->data, 11);
    cr_assert_eq(*(const uint8_t *)vkm_gguf_tensor_find(g, "b")->data, 22);
    vkm_gguf_close(g);
    ref_bytes_free(&b);
}

static const char *printed(const vkm_gguf *g, const char *key)
{
    static char text[600];
    for (uint64_t i = 0; i < vkm_gguf_key_count(g); i++)
        if (str_is(vkm_gguf_key_name(g, i), key)) {
            vkm_text out = {text, sizeof text, 0};
            vkm_gguf_key_print(g, i, &out);
            return text;
        }
    return "no such key";
}

Test(gguf, keys_for_people)
{
    static const int64_t many[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct ref_gguf w = rich_file();
    struct ref_bytes b;
    char big[400];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    ref_key_ints(&w, "many", VKM_GGUF_I32, many, VKM_COUNT(many));
    ref_key_str(&w, "big", big);
    ref_key_str(&w, "odd", "tab\t esc\x1b[31m \xc3\xa9 \xf0\x9f\x98\x80 bad\xff\xc3 c1\xc2\x9b surrogate\xed\xa0\x80");
    ref_key_str(&w, "overlong", "\xc0\xaf \xe0\x80\xaf");
    vkm_gguf *g = open_built(&w, &b);
    cr_assert_str_eq(printed(g, "general.architecture"), "\"olmoe\"");
    cr_assert_str_eq(printed(g, "i16"), "-32768");
    cr_assert_str_eq(printed(g, "u64"), "18446744073709551615");
    cr_assert_str_eq(printed(g, "f32"), "0.1");
    cr_assert_str_eq(printed(g, "yes"), "true");
    cr_assert_str_eq(printed(g, "no"), "false");
    cr_assert_str_eq(printed(g, "words"), "4 string [\"\", \"a\", \"\xe2\x96\x81the\", \"word\"]");
    cr_assert_str_eq(printed(g, "bools"), "4 bool [false, true, true, false]");
    cr_assert_str_eq(printed(g, "none"), "0 u32 []");
    cr_assert_str_eq(printed(g, "many"), "10 i32 [1, 2, 3, 4, 5, 6, 7, 8, ...]");
    cr_assert_str_eq(printed(g, "odd"), "\"tab\\x09 esc\\x1b[31m \xc3\xa9 \xf0\x9f\x98\x80 bad\\xff\\xc3 c1\\xc2\\x9b surrogate\\xed\\xa0\\x80\"");
    cr_assert_str_eq(printed(g, "overlong"), "\"\\xc0\\xaf \\xe0\\x80\\xaf\"");
    cr_assert(strlen(printed(g, "big")) < 100 && strstr(printed(g, "big"), "x\"..."));
    vkm_gguf_close(g);
    ref_bytes_free(&b);
}

Test(gguf, types)
{
    static const struct { uint32_t id; const char *name; uint32_t elems, bytes; } some[] = {
        {0, "F32", 1, 4}, {2, "Q4_0", 32, 18}, {14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 292}, {30, "BF16", 1, 2}, {39, "MXFP4", 32, 17}, {42, "Q2_0", 64, 18}};
    static const uint32_t removed[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, UINT32_MAX};
    uint32_t known = 0;
    for (uint32_t id = 0; id < 100; id++) known += vkm_ggml_type_find(id) != NULL;
    cr_assert_eq(known, 35);
    for (size_t i = 0; i < VKM_COUNT(some); i++) {
        const struct vkm_ggml_type *t = vkm_ggml_type_find(some[i].id);
        cr_assert(t && t->id == some[i].id && !strcmp(t->name, some[i].name) && t->block_elems == some[i].elems && t->block_bytes == some[i].bytes);
    }
    for (size_t i = 0; i < VKM_COUNT(removed); i++) cr_assert_null(vkm_ggml_type_find(removed[i]));
}

/* ---------------------------------------------------------------- getters that refuse */

static void refused(vkm_result r, const vkm_error *err, const char *says)
{
    cr_assert_eq(r, VKM_ERR_FORMAT, "%s", says);
    cr_assert_eq(err->code, r);
    cr_assert(strstr(err->message, "test.gguf") && strstr(err->message, says), "\"%s\" does not say \"%s\"", err->message, says);
}

Test(gguf, getters_refuse)
{
    struct ref_gguf w = rich_file();
    struct ref_bytes b;
    vkm_error e;
    ref_key_f32(&w, "nan", NAN);
    ref_key_f64(&w, "inf", INFINITY);
    ref_key_f32s(&w, "nans", (float[]){NAN}, 1);
    vkm_gguf *g = open_built(&w, &b);
    int64_t i = 42;
    double f = 42;
    bool yes = true;
    struct vkm_str s = {"untouched", 9};
    enum vkm_gguf_type element = VKM_GGUF_F64;
    uint64_t n = 42;
    refused(vkm_gguf_int(g, "gone", 0, 9, &i, &e), &e, "key \"gone\" is missing");
    refused(vkm_gguf_int(g, "f32", 0, 9, &i, &e), &e, "key \"f32\" is of type f32, not an integer");
    refused(vkm_gguf_int(g, "empty", 0, 9, &i, &e), &e, "\"empty\" is of type string");
    refused(vkm_gguf_int(g, "words", 0, 9, &i, &e), &e, "\"words\" is of type array");
    refused(vkm_gguf_int(g, "u8", 0, 254, &i, &e), &e, "\"u8\" is 255: 0 to 254 are allowed");
    refused(vkm_gguf_int(g, "i8", -127, 0, &i, &e), &e, "\"i8\" is -128");
    refused(vkm_gguf_int(g, "u64", INT64_MIN, INT64_MAX, &i, &e), &e, "18446744073709551615");
    refused(vkm_gguf_float(g, "u8", &f, &e), &e, "\"u8\" is of type u8, not f32 or f64");
    refused(vkm_gguf_float(g, "nan", &f, &e), &e, "\"nan\" is not a finite number");
    refused(vkm_gguf_float(g, "inf", &f, &e), &e, "\"inf\" is not a finite number");
    refused(vkm_gguf_bool(g, "u8", &yes, &e), &e, "\"u8\" is of type u8, not bool");
    refused(vkm_gguf_str(g, "words", &s, &e), &e, "\"words\" is of type array, not a string");
    refused(vkm_gguf_array(g, "u8", &element, &n, &e), &e, "\"u8\" is of type u8, not an array");
    refused(vkm_gguf_array_str(g, "words", 4, &s, &e), &e, "\"words\" has 4 elements: there is no number 4");
    refused(vkm_gguf_array_str(g, "words", UINT64_MAX, &s, &e), &e, "18446744073709551615");
    refused(vkm_gguf_array_str(g, "i8s", 0, &s, &e), &e, "\"i8s\" is an array of i8, not of strings");
    refused(vkm_gguf_array_int(g, "words", 0, &i, &e), &e, "\"words\" is an array of string, not of integers");
    refused(vkm_gguf_array_int(g, "floats", 0, &i, &e), &e, "\"floats\" is an array of f32");
    refused(vkm_gguf_array_int(g, "u64s", 0, &i, &e), &e, "element 0 is 9223372036854775808");
    refused(vkm_gguf_array_int(g, "none", 0, &i, &e), &e, "0 elements");
    refused(vkm_gguf_array_float(g, "words", 0, &f, &e), &e, "\"words\" is an array of string");
    refused(vkm_gguf_array_float(g, "i8s", 0, &f, &e), &e, "\"i8s\" is an array of i8, not of f32");
    refused(vkm_gguf_array_float(g, "nans", 0, &f, &e), &e, "element 0 is not a finite number");
    cr_assert(i == 42 && f == 42 && yes && str_is(s, "untouched") && element == VKM_GGUF_F64 && n == 42, "outputs are untouched on failure");
    vkm_gguf_close(g);
    ref_bytes_free(&b);
}

/* ---------------------------------------------------------------- hostile bytes */

/* The bytes lie in a block of exactly their size, so that the address sanitizer sees a read beyond the end. */
static vkm_result open_exact(const uint8_t *bytes, size_t n, vkm_gguf **g, vkm_error *err)
{
    uint8_t *exact = malloc(n ? n : 1);
    if (n) memcpy(exact, bytes, n);
    vkm_result r = vkm_gguf_open_memory(exact, n, "evil.gguf", g, err);
    if (r == VKM_OK) {
        ref_gguf_walk(*g);
        vkm_gguf_close(*g);
    }
    free(exact);
    return r;
}

static void check_hostile(void (*build)(struct ref_bytes *), vkm_result code, const char *says)
{
    struct ref_bytes b = {0};
    vkm_gguf *const untouched = (vkm_gguf *)&b;
    vkm_gguf *g = untouched;
    vkm_error err = {0};
    build(&b);
    vkm_result r = open_exact(b.at, b.n, &g, &err);
    cr_assert_eq(r, code, "%s, not %s: %s", vkm_result_name(r), vkm_result_name(code), err.message);
    cr_assert(err.code == code && g == untouched);
    cr_assert(strstr(err.message, "evil.gguf: ") == err.message && strstr(err.message, says), "\"%s\" does not say \"%s\"", err.message, says);
    for (const char *c = err.message; *c; c++) cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f, "a control character in the message");
    cr_assert_eq(open_exact(b.at, b.n, &g, NULL), code);
    ref_bytes_free(&b);
}

/* A test: build the bytes in the block that follows; opening them must give `code` and a message that has `says`. */
#define HOSTILE(name, code, says)                                                   \
    static void build_##name(struct ref_bytes *b);                                  \
    Test(gguf_hostile, name) { check_hostile(build_##name, code, says); }           \
    static void build_##name(struct ref_bytes *b)

static void header(struct ref_bytes *b, uint64_t n_tensors, uint64_t n_keys)
{
    ref_put(b, "GGUF", 4);
    ref_put_int(b, 3, 4);
    ref_put_int(b, n_tensors, 8);
    ref_put_int(b, n_keys, 8);
}

static void key(struct ref_bytes *b, const char *name, uint32_t type)
{
    ref_put_str(b, name);
    ref_put_int(b, type, 4);
}

static void array(struct ref_bytes *b, const char *name, uint32_t element, uint64_t count)
{
    key(b, name, VKM_GGUF_ARRAY);
    ref_put_int(b, element, 4);
    ref_put_int(b, count, 8);
}

static void zeros(struct ref_bytes *b, size_t n)
{
    for (size_t i = 0; i < n; i++) ref_put(b, "", 1);
}

HOSTILE(empty, VKM_ERR_FORMAT, "not a GGUF file") { (void)b; }
HOSTILE(three_bytes, VKM_ERR_FORMAT, "not a GGUF file") { ref_put(b, "GGU", 3); }
HOSTILE(old_ggml_magic, VKM_ERR_FORMAT, "not a GGUF file") { ref_put(b, "ggml\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24); }
HOSTILE(magic_only, VKM_ERR_FORMAT, "header: the file ends here") { ref_put(b, "GGUF", 4); }
HOSTILE(version_0, VKM_ERR_UNSUPPORTED, "version 0") { ref_put(b, "GGUF\0\0\0\0", 8), zeros(b, 16); }
HOSTILE(version_1, VKM_ERR_UNSUPPORTED, "version 1") { ref_put(b, "GGUF\1\0\0\0", 8), zeros(b, 16); }
HOSTILE(version_4, VKM_ERR_UNSUPPORTED, "version 4") { ref_put(b, "GGUF\4\0\0\0", 8), zeros(b, 16); }
HOSTILE(big_endian_3, VKM_ERR_UNSUPPORTED, "big-endian") { ref_put(b, "GGUF\0\0\0\3", 8), zeros(b, 16); }
HOSTILE(big_endian_2, VKM_ERR_UNSUPPORTED, "big-endian") { ref_put(b, "GGUF\0\0\0\2", 8), zeros(b, 16); }
HOSTILE(header_cut, VKM_ERR_FORMAT, "header: the file ends here") { header(b, 0, 0), b->n = 20; }

/* CVE-2024-21836, CVE-2024-23605: counts times a size that wrap */
HOSTILE(keys_all_ones, VKM_ERR_FORMAT, "18446744073709551615 keys") { header(b, 0, UINT64_MAX); }
HOSTILE(keys_wrap, VKM_ERR_FORMAT, "keys cannot be in") { header(b, 0, UINT64_MAX / 24 + 2), zeros(b, 100); }
HOSTILE(keys_more_than_bytes, VKM_ERR_FORMAT, "8 keys cannot be in the 100 bytes left") { header(b, 0, 8), zeros(b, 100); }
HOSTILE(keys_more_than_sane, VKM_ERR_FORMAT, "more than 65536") { header(b, 0, 65537), zeros(b, 65537 * 14); }
HOSTILE(tensors_all_ones, VKM_ERR_FORMAT, "18446744073709551615 tensors") { header(b, UINT64_MAX, 0); }
HOSTILE(tensors_wrap, VKM_ERR_FORMAT, "tensors cannot be in") { header(b, UINT64_MAX / 368 + 2, 0), zeros(b, 100); }
HOSTILE(tensors_more_than_bytes, VKM_ERR_FORMAT, "5 tensors cannot be in the 100 bytes left") { header(b, 5, 0), zeros(b, 100); }

HOSTILE(key_name_empty, VKM_ERR_FORMAT, "key 1 of 1: its name has 0 bytes") { header(b, 0, 1), key(b, "", VKM_GGUF_U8), zeros(b, 9); }
HOSTILE(key_name_long, VKM_ERR_FORMAT, "key 1 of 1: its name has 65536 bytes")
{
    header(b, 0, 1);
    ref_put_int(b, 65536, 8);
    for (int i = 0; i < 65536; i++) ref_put(b, "k", 1);
    ref_put_int(b, VKM_GGUF_U8, 4);
    zeros(b, 1);
}
/* length + 1 wraps to 0 */
HOSTILE(key_name_all_ones, VKM_ERR_FORMAT, "key 1 of 1: a string of 18446744073709551615 bytes") { header(b, 0, 1), ref_put_int(b, UINT64_MAX, 8), zeros(b, 20); }
HOSTILE(key_name_beyond_end, VKM_ERR_FORMAT, "a string of 21 bytes, but only 20 are left") { header(b, 0, 1), ref_put_int(b, 21, 8), zeros(b, 20); }
HOSTILE(value_type_13, VKM_ERR_FORMAT, "key \"a.b\": unknown value type 13") { header(b, 0, 1), key(b, "a.b", 13), zeros(b, 8); }
HOSTILE(value_type_all_ones, VKM_ERR_FORMAT, "key \"a.b\": unknown value type 4294967295") { header(b, 0, 1), key(b, "a.b", UINT32_MAX), zeros(b, 8); }
HOSTILE(value_cut, VKM_ERR_FORMAT, "key \"a.b\": the file ends here: 8 bytes needed, 7 left") { header(b, 0, 1), key(b, "a.b", VKM_GGUF_U64), zeros(b, 7); }
HOSTILE(second_key_missing, VKM_ERR_FORMAT, "key 2 of 2: the file ends here")
{
    header(b, 0, 2);
    key(b, "a.very.long.name.for.a.key", VKM_GGUF_U8);
    ref_put_int(b, 1, 1);
}
HOSTILE(string_all_ones, VKM_ERR_FORMAT, "key \"s\": a string of 18446744073709551615 bytes") { header(b, 0, 1), key(b, "s", VKM_GGUF_STRING), ref_put_int(b, UINT64_MAX, 8); }
HOSTILE(string_of_a_gibibyte, VKM_ERR_FORMAT, "key \"s\": a string of 1073741824 bytes, but only 100 are left")
{
    header(b, 0, 1);
    key(b, "s", VKM_GGUF_STRING);
    ref_put_int(b, 1 << 30, 8);
    zeros(b, 100);
}
HOSTILE(string_one_beyond_end, VKM_ERR_FORMAT, "a string of 4 bytes, but only 3 are left") { header(b, 0, 1), key(b, "s", VKM_GGUF_STRING), ref_put_int(b, 4, 8), zeros(b, 3); }
HOSTILE(string_length_cut, VKM_ERR_FORMAT, "key \"s\": the file ends here") { header(b, 0, 1), key(b, "s", VKM_GGUF_STRING), zeros(b, 7); }
HOSTILE(bool_of_2, VKM_ERR_FORMAT, "key \"b\": a bool with the value 2") { header(b, 0, 1), key(b, "b", VKM_GGUF_BOOL), ref_put_int(b, 2, 1); }
HOSTILE(key_twice, VKM_ERR_FORMAT, "key \"twin\": it is there twice")
{
    header(b, 0, 2);
    for (int i = 0; i < 2; i++) key(b, "twin", i ? VKM_GGUF_U32 : VKM_GGUF_F32), zeros(b, 4);
}

HOSTILE(array_of_arrays, VKM_ERR_FORMAT, "key \"a\": an array of arrays") { header(b, 0, 1), array(b, "a", VKM_GGUF_ARRAY, 1), zeros(b, 30); }
HOSTILE(arrays_nested_deeply, VKM_ERR_FORMAT, "key \"a\": an array of arrays")
{
    header(b, 0, 1);
    array(b, "a", VKM_GGUF_ARRAY, 1);
    for (int i = 0; i < 100000; i++) ref_put_int(b, VKM_GGUF_ARRAY, 4), ref_put_int(b, 1, 8);
}
HOSTILE(array_element_13, VKM_ERR_FORMAT, "key \"a\": unknown value type 13") { header(b, 0, 1), array(b, "a", 13, 1), zeros(b, 8); }
HOSTILE(array_count_all_ones, VKM_ERR_FORMAT, "key \"a\": an array of 18446744073709551615 elements") { header(b, 0, 1), array(b, "a", VKM_GGUF_U8, UINT64_MAX), zeros(b, 8); }
HOSTILE(array_count_negative, VKM_ERR_FORMAT, "an array of 9223372036854775808 elements") { header(b, 0, 1), array(b, "a", VKM_GGUF_U32, (uint64_t)1 << 63), zeros(b, 8); }
/* CVE-2024-21802: count * 8 wraps to 8 */
HOSTILE(array_bytes_wrap, VKM_ERR_FORMAT, "an array of 2305843009213693953 elements") { header(b, 0, 1), array(b, "a", VKM_GGUF_U64, ((uint64_t)1 << 61) + 1), zeros(b, 8); }
HOSTILE(array_one_beyond_end, VKM_ERR_FORMAT, "an array of 3 elements, but only 11 bytes are left") { header(b, 0, 1), array(b, "a", VKM_GGUF_F32, 3), zeros(b, 11); }
HOSTILE(array_header_cut, VKM_ERR_FORMAT, "key \"a\": the file ends here") { header(b, 0, 1), key(b, "a", VKM_GGUF_ARRAY), ref_put_int(b, VKM_GGUF_U8, 4), zeros(b, 7); }
HOSTILE(strings_count_wraps, VKM_ERR_FORMAT, "an array of 2305843009213693953 elements") { header(b, 0, 1), array(b, "a", VKM_GGUF_STRING, ((uint64_t)1 << 61) + 1), zeros(b, 8); }
HOSTILE(strings_more_than_bytes, VKM_ERR_FORMAT, "an array of 3 elements, but only 23 bytes are left") { header(b, 0, 1), array(b, "a", VKM_GGUF_STRING, 3), zeros(b, 23); }
HOSTILE(strings_inner_all_ones, VKM_ERR_FORMAT, "key \"a\": a string of 18446744073709551615 bytes") { header(b, 0, 1), array(b, "a", VKM_GGUF_STRING, 1), ref_put_int(b, UINT64_MAX, 8); }
HOSTILE(strings_last_cut, VKM_ERR_FORMAT, "key \"a\": a string of 2 bytes, but only 1 are left")
{
    header(b, 0, 1);
    array(b, "a", VKM_GGUF_STRING, 2);
    ref_put_str(b, "whole");
    ref_put_int(b, 2, 8);
    zeros(b, 1);
}
/* The first string swallows the second's length field. */
HOSTILE(strings_first_swallows, VKM_ERR_FORMAT, "key \"a\": the file ends here: 8 bytes needed, 0 left")
{
    header(b, 0, 1);
    array(b, "a", VKM_GGUF_STRING, 2);
    ref_put_int(b, 8, 8);
    zeros(b, 8);
}
HOSTILE(bools_with_255, VKM_ERR_FORMAT, "key \"a\": a bool with the value 255") { header(b, 0, 1), array(b, "a", VKM_GGUF_BOOL, 2), ref_put(b, "\1\xff", 2); }

/* PR 26690 and acestep 98: an alignment of another type, or one that wraps when rounding up */
static void alignment(struct ref_bytes *b, uint32_t a)
{
    header(b, 0, 1);
    key(b, "general.alignment", VKM_GGUF_U32);
    ref_put_int(b, a, 4);
}
HOSTILE(alignment_string, VKM_ERR_FORMAT, "key \"general.alignment\": its type is string, not u32") { header(b, 0, 1), key(b, "general.alignment", VKM_GGUF_STRING), ref_put_str(b, "32"); }
HOSTILE(alignment_u64, VKM_ERR_FORMAT, "key \"general.alignment\": its type is u64, not u32") { header(b, 0, 1), key(b, "general.alignment", VKM_GGUF_U64), ref_put_int(b, 32, 8); }
HOSTILE(alignment_array, VKM_ERR_FORMAT, "key \"general.alignment\": its type is array") { header(b, 0, 1), array(b, "general.alignment", VKM_GGUF_U32, 1), ref_put_int(b, 32, 4); }
HOSTILE(alignment_0, VKM_ERR_FORMAT, "general.alignment\": 0 is no power of two") { alignment(b, 0); }
HOSTILE(alignment_4, VKM_ERR_FORMAT, "general.alignment\": 4 is no power of two from 8 to 1048576") { alignment(b, 4); }
HOSTILE(alignment_33, VKM_ERR_FORMAT, "general.alignment\": 33 is no power of two") { alignment(b, 33); }
HOSTILE(alignment_2_mib, VKM_ERR_FORMAT, "general.alignment\": 2097152 is no power of two") { alignment(b, 1 << 21); }
HOSTILE(alignment_2_gib, VKM_ERR_FORMAT, "general.alignment\": 2147483648 is no power of two") { alignment(b, 1u << 31); }
HOSTILE(alignment_all_ones, VKM_ERR_FORMAT, "general.alignment\": 4294967295 is no power of two") { alignment(b, UINT32_MAX); }

static void info(struct ref_bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset)
{
    ref_put_str(b, name);
    ref_put_int(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims && i < 8; i++) ref_put_int(b, ne[i], 8);
    ref_put_int(b, type, 4);
    ref_put_int(b, offset, 8);
}

/* A file with one tensor and a kilobyte of data. */
static void one(struct ref_bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset)
{
    header(b, 1, 0);
    info(b, name, n_dims, ne, type, offset);
    ref_put_pad(b, 32);
    zeros(b, 1024);
}
#define NE(...) ((const uint64_t[8]){__VA_ARGS__})

HOSTILE(tensor_name_empty, VKM_ERR_FORMAT, "tensor 1 of 1: its name has 0 bytes") { one(b, "", 1, NE(8), REF_F32, 0); }
HOSTILE(tensor_name_65, VKM_ERR_FORMAT, "its name has 65 bytes: 1 to 64") { one(b, "0123456789012345678901234567890123456789012345678901234567890abcd", 1, NE(8), REF_F32, 0), b->at[24] = 65; }
HOSTILE(tensor_name_all_ones, VKM_ERR_FORMAT, "tensor 1 of 1: a string of 18446744073709551615 bytes") { one(b, "t", 1, NE(8), REF_F32, 0), memset(b->at + 24, 0xff, 8); }
HOSTILE(tensor_5_dims, VKM_ERR_FORMAT, "tensor \"t\": 5 dimensions") { one(b, "t", 5, NE(1, 1, 1, 1, 1), REF_F32, 0); }
HOSTILE(tensor_many_dims, VKM_ERR_FORMAT, "tensor \"t\": 4294967295 dimensions") { one(b, "t", UINT32_MAX, NE(1), REF_F32, 0); }
/* PR 24263: division by a size of zero */
HOSTILE(tensor_size_0, VKM_ERR_FORMAT, "tensor \"t\": dimension 0 is 0") { one(b, "t", 1, NE(0), REF_F32, 0); }
HOSTILE(tensor_size_0_later, VKM_ERR_FORMAT, "tensor \"t\": dimension 2 is 0") { one(b, "t", 3, NE(8, 8, 0), REF_F32, 0); }
HOSTILE(tensor_size_negative, VKM_ERR_FORMAT, "tensor \"t\": dimension 1 is -1") { one(b, "t", 2, NE(8, UINT64_MAX), REF_F32, 0); }
HOSTILE(tensor_size_min, VKM_ERR_FORMAT, "dimension 0 is -9223372036854775808") { one(b, "t", 1, NE((uint64_t)1 << 63), REF_F32, 0); }
/* llama.cpp 27203: (INT64_MAX, 2, 1, 1) passed a product check that overflowed itself */
HOSTILE(tensor_product_27203, VKM_ERR_FORMAT, "multiply to more than 2^63 - 1") { one(b, "t", 4, NE(INT64_MAX, 2, 1, 1), REF_F32, 0); }
HOSTILE(tensor_product_wraps_to_0, VKM_ERR_FORMAT, "multiply to more than 2^63 - 1") { one(b, "t", 2, NE((uint64_t)1 << 32, (uint64_t)1 << 32), REF_F32, 0); }
HOSTILE(tensor_product_in_4, VKM_ERR_FORMAT, "up to number 3 multiply") { one(b, "t", 4, NE(1 << 21, 1 << 21, 1 << 20, 2), REF_F32, 0); }
/* CVE-2026-33298, CVE-2025-53630: the elements fit 63 bits, the bytes wrap */
HOSTILE(tensor_bytes_wrap, VKM_ERR_FORMAT, "tensor \"t\": its size in F64 is more than 2^64 bytes") { one(b, "t", 2, NE(1, (uint64_t)1 << 62), 28, 0); }
HOSTILE(tensor_of_an_exabyte, VKM_ERR_FORMAT, "tensor \"t\": 4611686018427387904 bytes at offset 0 of the data end after the end of the file") { one(b, "t", 1, NE((uint64_t)1 << 60), REF_F32, 0); }
HOSTILE(tensor_row_of_33, VKM_ERR_FORMAT, "tensor \"t\": a row of 33 elements is no whole number of Q4_0 blocks of 32") { one(b, "t", 2, NE(33, 2), REF_Q4_0, 0); }
HOSTILE(tensor_row_of_32_in_k, VKM_ERR_FORMAT, "a row of 32 elements is no whole number of Q4_K blocks of 256") { one(b, "t", 2, NE(32, 8), REF_Q4_K, 0); }
HOSTILE(tensor_type_removed, VKM_ERR_UNSUPPORTED, "tensor \"t\": ggml type 4 is unknown, or was removed") { one(b, "t", 1, NE(32), 4, 0); }
HOSTILE(tensor_type_removed_repacked, VKM_ERR_UNSUPPORTED, "tensor \"t\": ggml type 31") { one(b, "t", 1, NE(32), 31, 0); }
HOSTILE(tensor_type_43, VKM_ERR_UNSUPPORTED, "tensor \"t\": ggml type 43") { one(b, "t", 1, NE(32), 43, 0); }
HOSTILE(tensor_type_all_ones, VKM_ERR_UNSUPPORTED, "tensor \"t\": ggml type 4294967295") { one(b, "t", 1, NE(32), UINT32_MAX, 0); }
HOSTILE(tensor_offset_odd, VKM_ERR_FORMAT, "tensor \"t\": its offset 16 is no multiple of the alignment 32") { one(b, "t", 1, NE(8), REF_F32, 16); }
HOSTILE(tensor_offset_at_end, VKM_ERR_FORMAT, "tensor \"t\": 32 bytes at offset 1024") { one(b, "t", 1, NE(8), REF_F32, 1024); }
HOSTILE(tensor_offset_wraps, VKM_ERR_FORMAT, "tensor \"t\": 32 bytes at offset 18446744073709551584") { one(b, "t", 1, NE(8), REF_F32, UINT64_MAX - 31); }
/* CVE-2026-7482: offset + size one element beyond the end */
HOSTILE(tensor_ends_beyond_end, VKM_ERR_FORMAT, "tensor \"t\": 1028 bytes at offset 0") { one(b, "t", 1, NE(257), REF_F32, 0); }
HOSTILE(tensor_record_cut, VKM_ERR_FORMAT, "tensor \"t\": the file ends here") { one(b, "t", 4, NE(1, 1, 1, 1), REF_F32, 0), b->n = 24 + 8 + 1 + 4 + 3 * 8; }
HOSTILE(tensor_without_data, VKM_ERR_FORMAT, "tensor \"t\": 4 bytes at offset 0 of the data end after the end of the file")
{
    header(b, 1, 0);
    info(b, "t", 1, NE(1), REF_F32, 0);
}

static void two(struct ref_bytes *b, const char *first, uint64_t offset, const char *second, uint64_t offset2)
{
    header(b, 2, 0);
    info(b, first, 1, NE(32), REF_F32, offset);   /* 128 bytes */
    info(b, second, 1, NE(32), REF_F32, offset2);
    ref_put_pad(b, 32);
    zeros(b, 1024);
}
HOSTILE(tensors_on_each_other, VKM_ERR_FORMAT, "overlap") { two(b, "a", 0, "b", 0); }
HOSTILE(tensors_overlap, VKM_ERR_FORMAT, "tensors \"a\" and \"b\" overlap") { two(b, "a", 0, "b", 96); }
HOSTILE(tensors_overlap_backwards, VKM_ERR_FORMAT, "tensors \"b\" and \"a\" overlap") { two(b, "a", 512, "b", 416); }
HOSTILE(tensor_twice, VKM_ERR_FORMAT, "tensor \"twin\": it is there twice") { two(b, "twin", 0, "twin", 128); }

HOSTILE(control_characters, VKM_ERR_FORMAT, "tensor \"a\\x1b[2J\\x0a\\x7f\": dimension 0 is 0") { one(b, "a\x1b[2J\n\x7f", 1, NE(0), REF_F32, 0); }
HOSTILE(long_name_in_message, VKM_ERR_FORMAT, "\"...: unknown value type 99")
{
    char name[3000];
    memset(name, '\n', sizeof name);
    name[sizeof name - 1] = 0;
    header(b, 0, 1);
    key(b, name, 99);
    zeros(b, 8);
}

HOSTILE(split_in_memory, VKM_ERR_UNSUPPORTED, "first of 2 parts: a split model cannot be opened from memory")
{
    header(b, 0, 2);
    key(b, "split.count", VKM_GGUF_U16), ref_put_int(b, 2, 2);
    key(b, "split.no", VKM_GGUF_U16), ref_put_int(b, 0, 2);
}
HOSTILE(split_number_beyond_count, VKM_ERR_FORMAT, "key \"split.no\" is 2: 0 to 1 are allowed")
{
    header(b, 0, 2);
    key(b, "split.count", VKM_GGUF_U16), ref_put_int(b, 2, 2);
    key(b, "split.no", VKM_GGUF_U16), ref_put_int(b, 2, 2);
}
HOSTILE(split_number_missing, VKM_ERR_FORMAT, "key \"split.no\" is missing") { header(b, 0, 1), key(b, "split.count", VKM_GGUF_U16), ref_put_int(b, 2, 2); }
HOSTILE(split_count_huge, VKM_ERR_FORMAT, "key \"split.count\" is 4294967295") { header(b, 0, 1), key(b, "split.count", VKM_GGUF_U32), ref_put_int(b, UINT32_MAX, 4); }
HOSTILE(split_count_string, VKM_ERR_FORMAT, "key \"split.count\" is of type string") { header(b, 0, 1), key(b, "split.count", VKM_GGUF_STRING), ref_put_str(b, "2"); }

/* ---------------------------------------------------------------- cut and mutated files */

Test(gguf, truncated_at_every_byte)
{
    struct ref_gguf w = rich_file();
    struct ref_bytes b = ref_gguf_bytes(&w);
    for (size_t n = 0; n < b.n; n++) {
        vkm_gguf *g;
        vkm_error err = {0};
        vkm_result r = open_exact(b.at, n, &g, &err);
        cr_assert_eq(r, VKM_ERR_FORMAT, "cut to %zu of %zu bytes: %s", n, b.n, err.message);
        cr_assert(err.message[0]);
    }
    ref_bytes_free(&b);
    ref_gguf_free(&w);
}

static void mutate(struct ref_rng *rng, uint8_t *bytes, size_t n)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff};
    for (uint32_t i = 0, changes = 1 + ref_below(rng, 4); i < changes; i++) {
        size_t at = ref_below(rng, (uint32_t)n);
        switch (ref_below(rng, 3)) {
        case 0: bytes[at] ^= (uint8_t)(1u << ref_below(rng, 8)); break;
        case 1: bytes[at] = edges[ref_below(rng, VKM_COUNT(edges))]; break;
        default: bytes[at] = (uint8_t)ref_u32(rng); break;
        }
    }
}

Test(gguf, mutations)
{
    enum { N = 20000 };
    struct ref_gguf w = rich_file();
    struct ref_bytes b = ref_gguf_bytes(&w);
    size_t metadata = b.n - w.data.n;
    struct ref_rng rng = ref_seed(1);
    uint8_t *copy = malloc(b.n);
    int opened = 0;
    for (int i = 0; i < N; i++) {
        vkm_gguf *g;
        vkm_error err = {0};
        memcpy(copy, b.at, b.n);
        mutate(&rng, copy, metadata);
        vkm_result r = open_exact(copy, b.n, &g, &err);
        cr_assert_eq(r == VKM_OK, err.message[0] == 0);
        opened += r == VKM_OK;
    }
    cr_assert(opened > N / 20 && opened < N * 19 / 20, "%d of %d still open: the mutations test nothing", opened, N);
    free(copy);
    ref_bytes_free(&b);
    ref_gguf_free(&w);
}

/* ---------------------------------------------------------------- files */

static vkm_result try_open(const char *path, vkm_error *err)
{
    vkm_gguf *g;
    vkm_result r = vkm_gguf_open(path, &g, err);
    if (r == VKM_OK) vkm_gguf_close(g);
    return r;
}

Test(gguf, file)
{
    const char *dir = temp_dir();
    struct ref_gguf w = rich_file();
    struct ref_bytes b = ref_gguf_bytes(&w);
    cr_assert(ref_gguf_save(&w, in_dir(dir, "a.gguf")));
    vkm_gguf *g = NULL;
    vkm_error err = {0};
    cr_assert_eq(vkm_gguf_open(in_dir(dir, "a.gguf"), &g, &err), VKM_OK, "%s", err.message);
    check_rich(g);
    check_rich_arrays(g);
    cr_assert_eq(vkm_gguf_file_bytes(g), b.n);
    vkm_gguf_close(g);
    remove_all(dir, (const char *[]){"a.gguf"}, 1);
    ref_bytes_free(&b);
    ref_gguf_free(&w);
}

Test(gguf, no_such_file)
{
    vkm_error err;
    cr_assert_eq(try_open("/nonexistent/model.gguf", &err), VKM_ERR_IO);
    cr_assert(strstr(err.message, "/nonexistent/model.gguf: No such file"), "%s", err.message);
}

Test(gguf, not_a_file)
{
    const char *dir = temp_dir();
    vkm_error err;
    cr_assert_eq(try_open(dir, &err), VKM_ERR_IO);
    cr_assert(strstr(err.message, "not a regular file"));
    cr_assert_eq(mkfifo(in_dir(dir, "pipe"), 0600), 0);
    cr_assert_eq(try_open(in_dir(dir, "pipe"), &err), VKM_ERR_IO, "and it did not hang");
    fclose(fopen(in_dir(dir, "empty"), "w"));
    cr_assert_eq(try_open(in_dir(dir, "empty"), &err), VKM_ERR_FORMAT);
    cr_assert(strstr(err.message, "the file is empty"));
    remove_all(dir, (const char *[]){"pipe", "empty"}, 2);
}

Test(gguf, null_arguments)
{
    vkm_gguf *g;
    vkm_error err;
    cr_assert_eq(vkm_gguf_open(NULL, &g, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_gguf_open("x", NULL, &err), VKM_ERR_ARGUMENT);
    cr_assert_eq(vkm_gguf_open_memory(NULL, 1, "x", &g, &err), VKM_ERR_ARGUMENT);
}

/* The message has 512 bytes: with a path longer than that it must still say what is wrong. */
Test(gguf, long_path)
{
    char path[3000];
    vkm_error err;
    for (size_t i = 0; i < sizeof path; i++) path[i] = i % 100 ? 'd' : '/';
    path[sizeof path - 1] = 0;
    cr_assert_eq(try_open(path, &err), VKM_ERR_IO);
    cr_assert(strstr(err.message, "No such file"), "%s", err.message);
}

/* Offsets beyond 4 GiB. The file is a hole: it takes no space where the file system can do that. */
Test(gguf, beyond_4_gib)
{
    const char *dir = temp_dir();
    const uint64_t big = (uint64_t)5 << 30;
    struct ref_bytes b = {0};
    header(&b, 2, 0);
    info(&b, "big", 1, NE(big), 24, 0);
    info(&b, "last", 1, NE(4), REF_F32, big);
    ref_put_pad(&b, 32);
    cr_assert(ref_bytes_save(&b, in_dir(dir, "a.gguf")));
    FILE *f = fopen(in_dir(dir, "a.gguf"), "r+b");
    bool room = f && truncate(in_dir(dir, "a.gguf"), (off_t)(b.n + big)) == 0 && fseeko(f, 0, SEEK_END) == 0 && fwrite("last tensor data", 1, 16, f) == 16;
    if (f) fclose(f);
    vkm_gguf *g = NULL;
    vkm_error err = {0};
    vkm_result r = room ? vkm_gguf_open(in_dir(dir, "a.gguf"), &g, &err) : VKM_OK;
    remove_all(dir, (const char *[]){"a.gguf"}, 1);
    if (!room) cr_skip("no room for a sparse file of 5 GiB");
    cr_assert_eq(r, VKM_OK, "%s", err.message);
    const struct vkm_gguf_tensor *t = vkm_gguf_tensor_find(g, "last");
    cr_assert_eq(vkm_gguf_tensor_find(g, "big")->bytes, big);
    cr_assert_eq(memcmp(t->data, "last tensor data", 16), 0);
    vkm_gguf_close(g);
    ref_bytes_free(&b);
}

Test(gguf, released_pages_come_back)
{
    enum { N = 100000 };
    const char *dir = temp_dir();
    struct ref_gguf w = {0};
    float *x = malloc(N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = (float)i;
    ref_tensor(&w, "small", REF_F32, 1, NE(3), x);
    ref_tensor(&w, "large", REF_F32, 1, NE(N), x);
    cr_assert(ref_gguf_save(&w, in_dir(dir, "a.gguf")));
    vkm_gguf *g = NULL;
    cr_assert_eq(vkm_gguf_open(in_dir(dir, "a.gguf"), &g, NULL), VKM_OK);
    for (uint64_t i = 0; i < 2; i++) {
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_at(g, i);
        cr_assert_eq(memcmp(t->data, x, t->bytes), 0);
        vkm_gguf_release(g, t->data, t->bytes);
        cr_assert_eq(memcmp(t->data, x, t->bytes), 0);
        vkm_gguf_release(g, t->data, t->bytes);
        vkm_gguf_prefetch(g, t->data, t->bytes);
        cr_assert_eq(vkm_gguf_fetch(g, t->data, t->bytes, NULL), VKM_OK);
        cr_assert_eq(memcmp(t->data, x, t->bytes), 0);
    }
#ifdef __linux__
    vkm_error err = {0};
    const struct vkm_gguf_tensor *large = vkm_gguf_tensor_at(g, 1);
    cr_assert_eq(truncate(in_dir(dir, "a.gguf"), 8192), 0);
    cr_assert_eq(vkm_gguf_fetch(g, large->data, 4096, &err), VKM_OK);
    cr_assert_eq(vkm_gguf_fetch(g, large->data, large->bytes, &err), VKM_ERR_IO);
    cr_assert(strstr(err.message, "a.gguf"));
#endif
    vkm_gguf_close(g);
    remove_all(dir, (const char *[]){"a.gguf"}, 1);
    free(x);
    ref_gguf_free(&w);
}

/* ---------------------------------------------------------------- split models */

enum { PARTS = 3 };
static const char *const part_names[PARTS] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};

/* What to do wrong in one part of three; -1: nothing. */
struct split { int wrong_no, wrong_count, no_keys, missing, same_tensor; int64_t total; };
static const struct split right = {-1, -1, -1, -1, -1, PARTS};

static struct ref_gguf split_part(const struct split *s, int i)
{
    struct ref_gguf w = {.alignment = i == 2 ? 64 : 0};   /* each part has its own */
    char name[16];
    if (i == 0) ref_key_str(&w, "general.architecture", "olmoe");
    if (s->no_keys != i) {
        ref_key_int(&w, "split.no", VKM_GGUF_U16, s->wrong_no == i ? (i + 1) % PARTS : i);
        ref_key_int(&w, "split.count", VKM_GGUF_U16, s->wrong_count == i ? PARTS + 1 : PARTS);
        if (s->total >= 0) ref_key_int(&w, "split.tensors.count", VKM_GGUF_I32, s->total);
    }
    snprintf(name, sizeof name, "t%d", s->same_tensor == i ? 0 : i);
    ref_tensor(&w, name, REF_F32, 1, NE(3), (float[]){(float)i, 0, 0});
    return w;
}

static vkm_result open_parts(const struct split *s, int which, vkm_gguf **g, vkm_error *err)
{
    const char *dir = temp_dir();
    for (int i = 0; i < PARTS; i++) {
        struct ref_gguf w = split_part(s, i);
        if (s->missing != i) cr_assert(ref_gguf_save(&w, in_dir(dir, part_names[i])));
        ref_gguf_free(&w);
    }
    vkm_result r = vkm_gguf_open(in_dir(dir, part_names[which]), g, err);
    remove_all(dir, part_names, PARTS);
    return r;
}

static void split_refused(struct split s, int which, vkm_result code, const char *says)
{
    vkm_gguf *g;
    vkm_error err = {0};
    cr_assert_eq(open_parts(&s, which, &g, &err), code, "%s", err.message);
    cr_assert(strstr(err.message, says), "\"%s\" does not say \"%s\"", err.message, says);
}

Test(gguf_split, three_parts)
{
    vkm_gguf *g = NULL;
    vkm_error err = {0};
    cr_assert_eq(open_parts(&right, 0, &g, &err), VKM_OK, "%s", err.message);
    cr_assert_eq(vkm_gguf_tensor_count(g), PARTS);
    for (int i = 0; i < PARTS; i++) {
        char name[] = {'t', (char)('0' + i), 0};
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_find(g, name);
        cr_assert(t && *(const float *)t->data == (float)i);
        vkm_gguf_release(g, t->data, t->bytes);
    }
    cr_assert(vkm_gguf_has(g, "general.architecture"));
    cr_assert_gt(vkm_gguf_file_bytes(g), 3 * 100);
    vkm_gguf_close(g);
}

Test(gguf_split, second_part_opened) { split_refused(right, 1, VKM_ERR_ARGUMENT, "this is part 2 of 3 of a split model: open the first"); }
Test(gguf_split, part_missing)
{
    struct split s = right;
    s.missing = 1;
    split_refused(s, 0, VKM_ERR_IO, "m-00002-of-00003.gguf: No such file");
}
Test(gguf_split, part_has_wrong_number)
{
    struct split s = right;
    s.wrong_no = 2;
    split_refused(s, 0, VKM_ERR_FORMAT, "m-00003-of-00003.gguf: it says that it is part 1 of 3");
}
Test(gguf_split, part_has_wrong_count)
{
    struct split s = right;
    s.wrong_count = 1;
    split_refused(s, 0, VKM_ERR_FORMAT, "m-00002-of-00003.gguf: it says that it is part 2 of 4");
}
Test(gguf_split, part_has_no_keys)
{
    struct split s = right;
    s.no_keys = 1;
    split_refused(s, 0, VKM_ERR_FORMAT, "it says that it is part 1 of 1");
}
Test(gguf_split, same_tensor_in_two_parts)
{
    struct split s = right;
    s.same_tensor = 2;
    split_refused(s, 0, VKM_ERR_FORMAT, "m-00003-of-00003.gguf: tensor \"t0\": it is there twice");
}
Test(gguf_split, tensor_total_wrong)
{
    struct split s = right;
    s.total = 4;
    split_refused(s, 0, VKM_ERR_FORMAT, "\"split.tensors.count\" is 4, but the 3 parts have 3 tensors");
}
Test(gguf_split, tensor_total_missing)
{
    struct split s = right;
    s.total = -1;
    split_refused(s, 0, VKM_ERR_FORMAT, "\"split.tensors.count\" is missing");
}
Test(gguf_split, renamed)
{
    const char *dir = temp_dir();
    struct ref_gguf w = split_part(&right, 0);
    vkm_error err;
    static const char *const names[] = {"renamed.gguf", "m-00001-of-00004.gguf", "-00001-of-00003.gguf"};
    for (size_t i = 0; i < VKM_COUNT(names); i++) {
        cr_assert(ref_gguf_save(&w, in_dir(dir, names[i])));
        vkm_result r = try_open(in_dir(dir, names[i]), &err);
        if (i < 2) cr_assert(r == VKM_ERR_FORMAT && strstr(err.message, "its name must end with -00001-of-00003.gguf"), "%s", err.message);
        else cr_assert_eq(r, VKM_ERR_IO, "an empty prefix is a prefix: %s", err.message);
    }
    remove_all(dir, names, VKM_COUNT(names));
    ref_gguf_free(&w);
}
