/* GGUF files: mapping, split models, look-up. The bytes are read and checked in gguf_parse.c.
 * A vkm_gguf does not change after it is opened, so threads may share it. */
#include "gguf/gguf_parse.h"
#include "host/platform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vkm_gguf {
    struct vkm_gguf_part *parts;         /* keys of the model are those of the first */
    uint32_t n_parts;
    struct vkm_gguf_tensor *tensors;     /* of all parts, in file order */
    uint64_t n_tensors;
    struct vkm_names tensor_names;
};

static unsigned long long llu(uint64_t x) { return x; }
static struct vkm_str str(const char *s) { return (struct vkm_str){s, strlen(s)}; }

/* ---------------------------------------------------------------- a part */

/* Messages have 512 bytes: of a long path the end says most. */
static char *shorten(const char *path)
{
    enum { SHOWN = 160 };
    size_t n = strlen(path), skip = n > SHOWN ? n - SHOWN : 0;
    char *shown = malloc(n - skip + 4);
    if (shown) snprintf(shown, n - skip + 4, "%s%s", skip ? "..." : "", path + skip);
    return shown;
}

static vkm_result open_part(const char *path, struct vkm_gguf_part *part, vkm_error *err)
{
    part->file = shorten(path);
    if (!part->file) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to open a file");
    vkm_result r = vkm_file_map(path, part->file, &part->bytes, &part->n_bytes, err);
    part->mapped = r == VKM_OK;
    return r == VKM_OK ? vkm_gguf_parse(part, err) : r;
}

static void close_part(struct vkm_gguf_part *part)
{
    if (part->mapped) vkm_file_unmap(part->bytes, part->n_bytes);
    vkm_gguf_part_free(part);
}

/* ---------------------------------------------------------------- split models */

/* gguf-split names part i of n PREFIX-%05d-of-%05d.gguf with i from 1, and numbers them from 0 in the key split.no. */
enum { SPLIT_SUFFIX = sizeof "-00001-of-00003.gguf" - 1, SPLIT_MAX = 65535 /* the keys are u16 */ };

static void split_name(char *path, size_t n, uint32_t no, uint32_t count)
{
    snprintf(path + n - SPLIT_SUFFIX, SPLIT_SUFFIX + 1, "-%05u-of-%05u.gguf", no % 100000u, count % 100000u);
}

/* A part's own number and the number of parts; 0 of 1 for a file without these keys. */
static vkm_result read_split(const struct vkm_gguf *part, uint32_t *no, uint32_t *count, vkm_error *err)
{
    int64_t n = 0, of = 1;
    vkm_result r = VKM_OK;
    if (vkm_gguf_has(part, "split.count")) r = vkm_gguf_int(part, "split.count", 0, SPLIT_MAX, &of, err);
    if (r == VKM_OK && of > 1) r = vkm_gguf_int(part, "split.no", 0, of - 1, &n, err);
    if (r != VKM_OK) return r;
    *no = (uint32_t)n;
    *count = of > 1 ? (uint32_t)of : 1;
    return VKM_OK;
}

static vkm_result open_sibling(struct vkm_gguf *g, const char *path, uint32_t i, uint32_t count, vkm_error *err)
{
    struct vkm_gguf_part *part = &g->parts[g->n_parts++];
    const struct vkm_gguf alone = {.parts = part, .n_parts = 1};
    uint32_t no, of;
    vkm_result r = open_part(path, part, err);
    if (r == VKM_OK) r = read_split(&alone, &no, &of, err);
    if (r != VKM_OK) return r;
    if (no != i || of != count)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s: it says that it is part %u of %u (split.no, split.count), its name says %u of %u", part->file, no + 1, of, i + 1, count);
    return VKM_OK;
}

static vkm_result open_siblings(struct vkm_gguf *g, const char *path, uint32_t count, vkm_error *err)
{
    size_t n = strlen(path);
    char *name = malloc(n + 1);
    struct vkm_gguf_part *parts = realloc(g->parts, count * sizeof parts[0]);
    if (parts) g->parts = parts;
    if (!parts || !name) {
        free(name);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "%s: no memory for %u parts", g->parts[0].file, count);
    }
    memset(parts + 1, 0, (count - 1) * sizeof parts[0]);
    memcpy(name, path, n + 1);
    if (n > SPLIT_SUFFIX) split_name(name, n, 1, count);
    vkm_result r = VKM_OK;
    if (strcmp(name, path) != 0)
        r = vkm_fail(err, VKM_ERR_FORMAT, "%s: it is the first of %u parts, so its name must end with -00001-of-%05u.gguf", parts[0].file, count, count);
    for (uint32_t i = 1; r == VKM_OK && i < count; i++) {
        split_name(name, n, i + 1, count);
        r = open_sibling(g, name, i, count, err);
    }
    free(name);
    return r;
}

/* `path` NULL: bytes in memory, which have no siblings. */
static vkm_result open_split(struct vkm_gguf *g, const char *path, vkm_error *err)
{
    uint32_t no, count;
    vkm_result r = read_split(g, &no, &count, err);
    if (r != VKM_OK || count == 1) return r;
    const char *file = g->parts[0].file;
    if (no != 0) return vkm_fail(err, VKM_ERR_ARGUMENT, "%s: this is part %u of %u of a split model: open the first part", file, no + 1, count);
    if (!path) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s: this is the first of %u parts: a split model cannot be opened from memory", file, count);
    return open_siblings(g, path, count, err);
}

/* ---------------------------------------------------------------- open and close */

static vkm_result join_tensors(struct vkm_gguf *g, vkm_error *err)
{
    const char *file = g->parts[0].file;
    uint64_t total = 0;
    for (uint32_t p = 0; p < g->n_parts; p++) total += g->parts[p].n_tensors;
    if (total > UINT32_MAX) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s: %llu tensors", file, llu(total));
    g->tensors = malloc((size_t)(total ? total : 1) * sizeof g->tensors[0]);
    if (!g->tensors || !vkm_names_init(&g->tensor_names, total)) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "%s: no memory for %llu tensors", file, llu(total));
    for (uint32_t p = 0; p < g->n_parts; p++)
        for (uint64_t i = 0; i < g->parts[p].n_tensors; i++) {
            const struct vkm_gguf_tensor *t = &g->parts[p].tensors[i];
            if (!vkm_names_add(&g->tensor_names, t->name, (uint32_t)g->n_tensors))
                return vkm_fail(err, VKM_ERR_FORMAT, "%s: tensor %s: it is there twice", g->parts[p].file, vkm_quote(t->name).text);
            g->tensors[g->n_tensors++] = *t;
        }
    int64_t promised;
    if (g->n_parts == 1) return VKM_OK;
    vkm_result r = vkm_gguf_int(g, "split.tensors.count", 0, INT64_MAX, &promised, err);
    if (r == VKM_OK && (uint64_t)promised != total)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"split.tensors.count\" is %lld, but the %u parts have %llu tensors", file, (long long)promised, g->n_parts, llu(total));
    return r;
}

static struct vkm_gguf *create(vkm_error *err)
{
    struct vkm_gguf *g = calloc(1, sizeof *g);
    if (g) g->parts = calloc(1, sizeof g->parts[0]);
    if (g && g->parts) {
        g->n_parts = 1;
        return g;
    }
    free(g);
    vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to open a file");
    return NULL;
}

/* The common end of opening: `r` is how the first part went. */
static vkm_result finish(struct vkm_gguf *g, vkm_result r, const char *path, vkm_gguf **out, vkm_error *err)
{
    if (r == VKM_OK) r = open_split(g, path, err);
    if (r == VKM_OK) r = join_tensors(g, err);
    if (r == VKM_OK) *out = g;
    else vkm_gguf_close(g);
    return r;
}

vkm_result vkm_gguf_open(const char *path, vkm_gguf **gguf, vkm_error *err)
{
    if (!path || !gguf) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_gguf_open: path and gguf must not be NULL");
    struct vkm_gguf *g = create(err);
    if (!g) return VKM_ERR_HOST_MEMORY;
    return finish(g, open_part(path, &g->parts[0], err), path, gguf, err);
}

vkm_result vkm_gguf_open_memory(const void *bytes, size_t n, const char *name, vkm_gguf **gguf, vkm_error *err)
{
    if ((!bytes && n) || !name || !gguf) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_gguf_open_memory: bytes, name and gguf must not be NULL");
    struct vkm_gguf *g = create(err);
    if (!g) return VKM_ERR_HOST_MEMORY;
    struct vkm_gguf_part *part = &g->parts[0];
    part->file = shorten(name);
    part->bytes = bytes;
    part->n_bytes = n;
    vkm_result r = part->file ? vkm_gguf_parse(part, err) : vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to open a file");
    return finish(g, r, NULL, gguf, err);
}

void vkm_gguf_close(vkm_gguf *g)
{
    if (!g) return;
    for (uint32_t i = 0; i < g->n_parts; i++) close_part(&g->parts[i]);
    free(g->parts);
    free(g->tensors);
    vkm_names_free(&g->tensor_names);
    free(g);
}

uint64_t vkm_gguf_file_bytes(const vkm_gguf *g)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) n += g->parts[i].n_bytes;
    return n;
}

/* ---------------------------------------------------------------- keys */

static const struct vkm_gguf_key *find_key(const vkm_gguf *g, const char *key)
{
    int64_t i = vkm_names_find(&g->parts[0].key_names, str(key));
    return i == VKM_NO_NAME ? NULL : &g->parts[0].keys[i];
}

static vkm_result need_key(const vkm_gguf *g, const char *key, const struct vkm_gguf_key **found, vkm_error *err)
{
    *found = find_key(g, key);
    return *found ? VKM_OK : vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" is missing", g->parts[0].file, key);
}

static vkm_result wrong_type(const vkm_gguf *g, const char *key, enum vkm_gguf_type is, const char *wanted, vkm_error *err)
{
    return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" is of type %s, not %s", g->parts[0].file, key, vkm_gguf_type_name(is), wanted);
}

/* Loads any integer type or bool. *above: the value is a u64 beyond int64_t, and *value its low bits. */
static bool load_int(enum vkm_gguf_type type, const uint8_t *at, int64_t *value, bool *above)
{
    uint64_t bits = vkm_gguf_load(at, vkm_gguf_type_bytes(type));
    *above = false;
    switch (type) {
    case VKM_GGUF_U8: case VKM_GGUF_U16: case VKM_GGUF_U32: case VKM_GGUF_BOOL: *value = (int64_t)bits; return true;
    case VKM_GGUF_U64: *value = (int64_t)bits; *above = bits > INT64_MAX; return true;
    case VKM_GGUF_I8: *value = (int8_t)bits; return true;
    case VKM_GGUF_I16: *value = (int16_t)bits; return true;
    case VKM_GGUF_I32: *value = (int32_t)bits; return true;
    case VKM_GGUF_I64: *value = (int64_t)bits; return true;
    default: return false;
    }
}

static bool load_float(enum vkm_gguf_type type, const uint8_t *at, double *value)
{
    uint64_t bits = vkm_gguf_load(at, vkm_gguf_type_bytes(type));
    uint32_t bits32 = (uint32_t)bits;
    float f;
    switch (type) {
    case VKM_GGUF_F32: memcpy(&f, &bits32, 4); *value = f; return true;
    case VKM_GGUF_F64: memcpy(value, &bits, 8); return true;
    default: return false;
    }
}

bool vkm_gguf_has(const vkm_gguf *g, const char *key) { return find_key(g, key) != NULL; }

vkm_result vkm_gguf_int(const vkm_gguf *g, const char *key, int64_t min, int64_t max, int64_t *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    int64_t x;
    bool above;
    vkm_result r = need_key(g, key, &k, err);
    if (r != VKM_OK) return r;
    if (!load_int(k->type, k->value, &x, &above)) return wrong_type(g, key, k->type, "an integer", err);
    if (above) return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" is %llu: at most %lld is allowed", g->parts[0].file, key, llu((uint64_t)x), (long long)max);
    if (x < min || x > max)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" is %lld: %lld to %lld are allowed", g->parts[0].file, key, (long long)x, (long long)min, (long long)max);
    *value = x;
    return VKM_OK;
}

vkm_result vkm_gguf_float(const vkm_gguf *g, const char *key, double *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    double x;
    vkm_result r = need_key(g, key, &k, err);
    if (r != VKM_OK) return r;
    if (!load_float(k->type, k->value, &x)) return wrong_type(g, key, k->type, "f32 or f64", err);
    if (!isfinite(x)) return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" is not a finite number", g->parts[0].file, key);
    *value = x;
    return VKM_OK;
}

vkm_result vkm_gguf_bool(const vkm_gguf *g, const char *key, bool *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    vkm_result r = need_key(g, key, &k, err);
    if (r != VKM_OK) return r;
    if (k->type != VKM_GGUF_BOOL) return wrong_type(g, key, k->type, "bool", err);
    *value = k->value[0] != 0;
    return VKM_OK;
}

vkm_result vkm_gguf_str(const vkm_gguf *g, const char *key, struct vkm_str *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    vkm_result r = need_key(g, key, &k, err);
    if (r != VKM_OK) return r;
    if (k->type != VKM_GGUF_STRING) return wrong_type(g, key, k->type, "a string", err);
    *value = (struct vkm_str){(const char *)k->value, (size_t)k->count};
    return VKM_OK;
}

/* ---------------------------------------------------------------- arrays */

static vkm_result need_array(const vkm_gguf *g, const char *key, const struct vkm_gguf_key **found, vkm_error *err)
{
    vkm_result r = need_key(g, key, found, err);
    if (r != VKM_OK) return r;
    return (*found)->type == VKM_GGUF_ARRAY ? VKM_OK : wrong_type(g, key, (*found)->type, "an array", err);
}

static vkm_result need_element(const vkm_gguf *g, const char *key, uint64_t i, const struct vkm_gguf_key **found, vkm_error *err)
{
    vkm_result r = need_array(g, key, found, err);
    if (r != VKM_OK) return r;
    if (i >= (*found)->count)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" has %llu elements: there is no number %llu", g->parts[0].file, key, llu((*found)->count), llu(i));
    return VKM_OK;
}

static vkm_result wrong_element(const vkm_gguf *g, const char *key, enum vkm_gguf_type is, const char *wanted, vkm_error *err)
{
    return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\" is an array of %s, not of %s", g->parts[0].file, key, vkm_gguf_type_name(is), wanted);
}

static struct vkm_str string_at(const struct vkm_gguf_key *k, uint64_t i)
{
    const uint8_t *at = k->value + k->strings[i];
    return (struct vkm_str){(const char *)at + 8, (size_t)vkm_gguf_load(at, 8)};
}

static const uint8_t *number_at(const struct vkm_gguf_key *k, uint64_t i) { return k->value + i * vkm_gguf_type_bytes(k->element); }

vkm_result vkm_gguf_array(const vkm_gguf *g, const char *key, enum vkm_gguf_type *element, uint64_t *count, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    vkm_result r = need_array(g, key, &k, err);
    if (r != VKM_OK) return r;
    *element = k->element;
    *count = k->count;
    return VKM_OK;
}

vkm_result vkm_gguf_array_str(const vkm_gguf *g, const char *key, uint64_t i, struct vkm_str *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    vkm_result r = need_element(g, key, i, &k, err);
    if (r != VKM_OK) return r;
    if (k->element != VKM_GGUF_STRING) return wrong_element(g, key, k->element, "strings", err);
    *value = string_at(k, i);
    return VKM_OK;
}

vkm_result vkm_gguf_array_int(const vkm_gguf *g, const char *key, uint64_t i, int64_t *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    int64_t x;
    bool above;
    vkm_result r = need_element(g, key, i, &k, err);
    if (r != VKM_OK) return r;
    if (k->element == VKM_GGUF_STRING || !load_int(k->element, number_at(k, i), &x, &above)) return wrong_element(g, key, k->element, "integers", err);
    if (above) return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\": element %llu is %llu, beyond 2^63 - 1", g->parts[0].file, key, llu(i), llu((uint64_t)x));
    *value = x;
    return VKM_OK;
}

vkm_result vkm_gguf_array_float(const vkm_gguf *g, const char *key, uint64_t i, double *value, vkm_error *err)
{
    const struct vkm_gguf_key *k;
    double x;
    vkm_result r = need_element(g, key, i, &k, err);
    if (r != VKM_OK) return r;
    if (k->element == VKM_GGUF_STRING || !load_float(k->element, number_at(k, i), &x)) return wrong_element(g, key, k->element, "f32 or f64", err);
    if (!isfinite(x)) return vkm_fail(err, VKM_ERR_FORMAT, "%s: key \"%s\": element %llu is not a finite number", g->parts[0].file, key, llu(i));
    *value = x;
    return VKM_OK;
}

/* ---------------------------------------------------------------- keys for people */

uint64_t vkm_gguf_key_count(const vkm_gguf *g) { return g->parts[0].n_keys; }
struct vkm_str vkm_gguf_key_name(const vkm_gguf *g, uint64_t i) { return g->parts[0].keys[i].name; }

static void print_number(enum vkm_gguf_type type, const uint8_t *at, vkm_text *out)
{
    int64_t x = 0;
    bool above = false;
    double f;
    if (load_float(type, at, &f)) vkm_textf(out, "%g", f);
    else if (type == VKM_GGUF_BOOL) vkm_textf(out, "%s", at[0] ? "true" : "false");
    else if (load_int(type, at, &x, &above) && above) vkm_textf(out, "%llu", llu((uint64_t)x));
    else vkm_textf(out, "%lld", (long long)x);
}

static void print_array(const struct vkm_gguf_key *k, vkm_text *out)
{
    enum { SHOWN = 8 };
    vkm_textf(out, "%llu %s [", llu(k->count), vkm_gguf_type_name(k->element));
    for (uint64_t i = 0; i < k->count && i < SHOWN; i++) {
        if (i) vkm_textf(out, ", ");
        if (k->element == VKM_GGUF_STRING) vkm_textf(out, "%s", vkm_quote(string_at(k, i)).text);
        else print_number(k->element, number_at(k, i), out);
    }
    vkm_textf(out, k->count > SHOWN ? ", ...]" : "]");
}

void vkm_gguf_key_print(const vkm_gguf *g, uint64_t i, vkm_text *out)
{
    const struct vkm_gguf_key *k = &g->parts[0].keys[i];
    if (k->type == VKM_GGUF_ARRAY) print_array(k, out);
    else if (k->type == VKM_GGUF_STRING) vkm_textf(out, "%s", vkm_quote((struct vkm_str){(const char *)k->value, (size_t)k->count}).text);
    else print_number(k->type, k->value, out);
}

/* ---------------------------------------------------------------- tensors */

uint64_t vkm_gguf_tensor_count(const vkm_gguf *g) { return g->n_tensors; }
const struct vkm_gguf_tensor *vkm_gguf_tensor_at(const vkm_gguf *g, uint64_t i) { return &g->tensors[i]; }

const struct vkm_gguf_tensor *vkm_gguf_tensor_find(const vkm_gguf *g, const char *name)
{
    int64_t i = vkm_names_find(&g->tensor_names, str(name));
    return i == VKM_NO_NAME ? NULL : &g->tensors[i];
}

/* ---------------------------------------------------------------- paging: nothing to do for memory of the caller's, which must keep its bytes */

void vkm_gguf_prefetch(const vkm_gguf *g, const void *at, uint64_t bytes)
{
    if (g->parts[0].mapped) vkm_pages_prefetch(at, bytes);
}

vkm_result vkm_gguf_fetch(const vkm_gguf *g, const void *at, uint64_t bytes, vkm_error *err)
{
    if (!g->parts[0].mapped || vkm_pages_fetch(at, bytes)) return VKM_OK;
    const char *file = g->parts[0].file;
    for (uint32_t i = 0; i < g->n_parts; i++)
        if ((const uint8_t *)at >= g->parts[i].bytes && (const uint8_t *)at < g->parts[i].bytes + g->parts[i].n_bytes) file = g->parts[i].file;
    return vkm_fail(err, VKM_ERR_IO, "%s: it cannot be read any more, or has become shorter", file);
}

void vkm_gguf_release(const vkm_gguf *g, const void *at, uint64_t bytes)
{
    if (g->parts[0].mapped) vkm_pages_release(at, bytes);
}
