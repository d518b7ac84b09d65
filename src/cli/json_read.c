/* Reading JSON (RFC 8259) that anybody may have written: strict, bounded, one pass, no recursion. */
#include "json_read.h"
#include "text/utf8.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16, MEMBERS_MAX = 1024, NUMBER_MAX = 64 };
#define VALUES_MAX (4u << 20)

struct reader {
    char *start, *at, *end;                /* strings are decoded in place: they only get shorter */
    struct json_doc *doc;
    uint32_t open[DEPTH_MAX], last[DEPTH_MAX], depth;
    const char *why;
};

static bool refuse(struct reader *r, const char *why) { r->why = why; return false; }

static void blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')) r->at++;
}

static int hex(const char *at, const char *end)
{
    int value = 0;
    if (end - at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) { *to++ = (char)c; return to; }
    if (c < 0x800) { *to++ = (char)(0xc0 | c >> 6); }
    else if (c < 0x10000) { *to++ = (char)(0xe0 | c >> 12); *to++ = (char)(0x80 | (c >> 6 & 63)); }
    else { *to++ = (char)(0xf0 | c >> 18); *to++ = (char)(0x80 | (c >> 12 & 63)); *to++ = (char)(0x80 | (c >> 6 & 63)); }
    *to++ = (char)(0x80 | (c & 63));
    return to;
}

/* \uXXXX, and a pair of them for what lies beyond U+FFFF. at: behind the u. */
static bool unicode(struct reader *r, char **to)
{
    int c = hex(r->at, r->end);
    if (c < 0) return refuse(r, "a \\u needs four hexadecimal digits");
    if (c == 0) return refuse(r, "a NUL in a string");
    r->at += 4;
    if (c >= 0xdc00 && c < 0xe000) return refuse(r, "half of a surrogate pair");
    if (c >= 0xd800 && c < 0xdc00) {
        int low = r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u' ? hex(r->at + 2, r->end) : -1;
        if (low < 0xdc00 || low >= 0xe000) return refuse(r, "half of a surrogate pair");
        r->at += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    *to = put_utf8(*to, (uint32_t)c);
    return true;
}

/* Behind the opening quote. */
static bool string(struct reader *r, const char **text)
{
    static const char escapes[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    char *to = r->at;
    *text = to;
    while (r->at < r->end && *r->at != '"') {
        size_t n = vkm_utf8_char(r->at, (size_t)(r->end - r->at));
        if (n == 0) return refuse(r, "invalid UTF-8");
        if ((unsigned char)*r->at < 0x20) return refuse(r, "a control character in a string");
        if (*r->at != '\\') {
            memmove(to, r->at, n);
            to += n;
            r->at += n;
            continue;
        }
        if (++r->at == r->end) break;
        char c = *r->at++;
        const char *escape = c ? strchr(escapes, c) : NULL;
        if (escape) *to++ = meaning[escape - escapes];
        else if (c != 'u') return refuse(r, "an unknown escape in a string");
        else if (!unicode(r, &to)) return false;
    }
    if (r->at == r->end) return refuse(r, "a string that does not end");
    r->at++;
    *to = 0;
    return true;
}

static const char *digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9') at++;
    return at;
}

static bool number(struct reader *r, double *value)
{
    const char *at = r->at, *end = r->end, *from;
    char text[NUMBER_MAX + 1];
    if (at < end && *at == '-') at++;
    from = at;
    at = digits(at, end);
    if (at == from || (*from == '0' && at > from + 1)) return refuse(r, "a number that is none");
    if (at < end && *at == '.') {
        from = ++at;
        if ((at = digits(at, end)) == from) return refuse(r, "a number that is none");
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        if (++at < end && (*at == '+' || *at == '-')) at++;
        from = at;
        if ((at = digits(at, end)) == from) return refuse(r, "a number that is none");
    }
    size_t n = (size_t)(at - r->at);
    if (n > NUMBER_MAX) return refuse(r, "a number of too many digits");
    memcpy(text, r->at, n);
    text[n] = 0;
    *value = strtod(text, NULL);
    if (!isfinite(*value)) return refuse(r, "a number that is too large");
    r->at += n;
    return true;
}

/* A new value behind the last one of the container that is open. NULL when there is no room. */
static struct json_value *add(struct reader *r, const char *key, enum json_type type)
{
    struct json_doc *d = r->doc;
    if (d->n == d->capacity) {
        uint32_t more = d->capacity ? 2 * d->capacity : 256;
        struct json_value *values = d->n < VALUES_MAX ? realloc(d->values, more * sizeof *values) : NULL;
        if (!values) {
            refuse(r, d->n < VALUES_MAX ? "out of memory" : "too many values");
            return NULL;
        }
        d->values = values;
        d->capacity = more;
    }
    uint32_t i = d->n++;
    d->values[i] = (struct json_value){.type = type, .key = key};
    if (r->depth) {
        struct json_value *parent = &d->values[r->open[r->depth - 1]];
        if (parent->count++) d->values[r->last[r->depth - 1]].next = i;
        else parent->first = i;
        r->last[r->depth - 1] = i;
    }
    return &d->values[i];
}

static bool is_new_key(struct reader *r, const char *key)
{
    const struct json_value *parent = &r->doc->values[r->open[r->depth - 1]];
    if (parent->count == MEMBERS_MAX) return refuse(r, "an object of too many members");
    for (uint32_t i = parent->first, n = parent->count; n; i = r->doc->values[i].next, n--)
        if (strcmp(r->doc->values[i].key, key) == 0) return refuse(r, "a key that is there twice");
    return true;
}

static bool literal(struct reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) return refuse(r, "something that is no value");
    r->at += n;
    return true;
}

/* A value; a container is only opened. */
static bool value(struct reader *r, const char *key)
{
    struct json_value *v;
    char c = r->at < r->end ? *r->at : 0;
    if (c == '{' || c == '[') {
        if (r->depth == DEPTH_MAX) return refuse(r, "too deep a nesting");
        if (!(v = add(r, key, c == '{' ? JSON_OBJECT : JSON_ARRAY))) return false;
        r->open[r->depth++] = (uint32_t)(v - r->doc->values);
        r->at++;
        return true;
    }
    if (c == '"') {
        const char *text;
        r->at++;
        if (!string(r, &text) || !(v = add(r, key, JSON_STRING))) return false;
        v->text = text;
        return true;
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        double x;
        if (!number(r, &x) || !(v = add(r, key, JSON_NUMBER))) return false;
        v->number = x;
        return true;
    }
    if (c == 't' || c == 'f') {
        if (!literal(r, c == 't' ? "true" : "false") || !(v = add(r, key, JSON_BOOL))) return false;
        v->number = c == 't';
        return true;
    }
    return literal(r, "null") && add(r, key, JSON_NULL);
}

/* The key of the next member, up to its value. */
static bool member(struct reader *r, const char **key)
{
    if (r->at == r->end || *r->at++ != '"') return refuse(r, "an object whose member has no key");
    if (!string(r, key) || !is_new_key(r, *key)) return false;
    blanks(r);
    if (r->at == r->end || *r->at++ != ':') return refuse(r, "a key without a colon");
    blanks(r);
    return true;
}

static bool document(struct reader *r)
{
    blanks(r);
    if (!value(r, NULL)) return false;
    while (r->depth) {
        const struct json_value *parent = &r->doc->values[r->open[r->depth - 1]];
        bool object = parent->type == JSON_OBJECT;
        const char *key = NULL;
        blanks(r);
        if (r->at < r->end && *r->at == (object ? '}' : ']')) {
            r->at++;
            r->depth--;
            continue;
        }
        if (parent->count) {
            if (r->at == r->end || *r->at++ != ',') return refuse(r, r->at >= r->end ? "an end too early" : "a missing comma");
            blanks(r);
        }
        if (object && !member(r, &key)) return false;
        if (!value(r, key)) return false;
    }
    blanks(r);
    return r->at == r->end || refuse(r, "something behind the end");
}

vkm_result json_parse(const char *text, size_t n, struct json_doc *doc, vkm_error *err)
{
    *doc = (struct json_doc){0};
    doc->text = malloc(n + 1);
    if (!doc->text) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of memory");
    memcpy(doc->text, text, n);
    doc->text[n] = 0;
    struct reader r = {.start = doc->text, .at = doc->text, .end = doc->text + n, .doc = doc};
    if (document(&r)) return VKM_OK;
    size_t at = (size_t)(r.at - r.start), line = 1, column = 1;
    for (size_t i = 0; i < at && i < n; i++) {             /* of the text as it was given: decoding has changed the copy */
        column++;
        if (text[i] == '\n') { line++; column = 1; }
    }
    vkm_result result = vkm_fail(err, strcmp(r.why, "out of memory") == 0 ? VKM_ERR_HOST_MEMORY : VKM_ERR_FORMAT, "line %zu, column %zu: %s", line, column, r.why);
    json_free(doc);
    return result;
}

void json_free(struct json_doc *doc)
{
    free(doc->values);
    free(doc->text);
    *doc = (struct json_doc){0};
}

const struct json_value *json_member(const struct json_doc *doc, const struct json_value *object, const char *key)
{
    if (!object || object->type != JSON_OBJECT) return NULL;
    const struct json_value *v = json_first(doc, object);
    while (v && strcmp(v->key, key) != 0) v = json_next(doc, v);
    return v;
}

const struct json_value *json_first(const struct json_doc *doc, const struct json_value *container)
{
    return container && container->count ? &doc->values[container->first] : NULL;
}

const struct json_value *json_next(const struct json_doc *doc, const struct json_value *v)
{
    return v->next ? &doc->values[v->next] : NULL;
}
