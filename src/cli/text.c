/* Text that is safe to show, and JSON. */
#include "cli.h"
#include "text/utf8.h"
#include <math.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

void print_clean(FILE *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        size_t length = vkm_utf8_char(text + i, n - i);
        bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f || (length == 2 && c == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
        if (length == 0 || control) fputs(REPLACEMENT, out);
        else fwrite(text + i, 1, length, out);
        i += length ? length : 1;
    }
}

void print_bytes(FILE *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit < 4) value /= 1024, unit++;
    fprintf(out, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
}

/* ---------------------------------------------------------------- JSON */

void json_quote(FILE *out, const char *text, size_t n)
{
    putc('"', out);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        size_t length = vkm_utf8_char(text + i, n - i);
        if (length == 0) fputs(REPLACEMENT, out);
        else if (c == '"' || c == '\\') fprintf(out, "\\%c", c);
        else if (c == '\n') fputs("\\n", out);
        else if (c == '\t') fputs("\\t", out);
        else if (c == '\r') fputs("\\r", out);
        else if (c < 0x20 || c == 0x7f) fprintf(out, "\\u%04x", c);
        else fwrite(text + i, 1, length, out);
        i += length ? length : 1;
    }
    putc('"', out);
}

static void line(struct json *j, uint32_t depth)
{
    putc('\n', j->out);
    for (uint32_t i = 0; i < 2 * depth; i++) putc(' ', j->out);
}

/* The comma, the new line and the key that stand before a value. */
static void before(struct json *j, const char *key)
{
    if (j->depth) {
        bool flat = j->level[j->depth - 1].flat, *any = &j->level[j->depth - 1].any;
        if (*any) fputs(flat ? ", " : ",", j->out);
        if (!flat) line(j, j->depth);
        *any = true;
    }
    if (key) {
        json_quote(j->out, key, strlen(key));
        fputs(": ", j->out);
    }
}

void json_open(struct json *j, const char *key, char bracket, bool flat)
{
    before(j, key);
    putc(bracket, j->out);
    if (j->depth && j->level[j->depth - 1].flat) flat = true;
    j->level[j->depth].flat = flat;
    j->level[j->depth].any = false;
    j->level[j->depth++].close = bracket == '{' ? '}' : ']';
}

void json_close(struct json *j)
{
    j->depth--;
    if (!j->level[j->depth].flat && j->level[j->depth].any) line(j, j->depth);
    putc(j->level[j->depth].close, j->out);
    if (j->depth == 0) putc('\n', j->out);
}

void json_str_n(struct json *j, const char *key, const char *text, size_t n) { before(j, key); json_quote(j->out, text, n); }
void json_str(struct json *j, const char *key, const char *text) { json_str_n(j, key, text, strlen(text)); }
void json_int(struct json *j, const char *key, int64_t value) { before(j, key); fprintf(j->out, "%lld", (long long)value); }
void json_uint(struct json *j, const char *key, uint64_t value) { before(j, key); fprintf(j->out, "%llu", (unsigned long long)value); }
void json_bool(struct json *j, const char *key, bool value) { before(j, key); fputs(value ? "true" : "false", j->out); }
void json_null(struct json *j, const char *key) { before(j, key); fputs("null", j->out); }

void json_real(struct json *j, const char *key, double value)
{
    before(j, key);
    if (isfinite(value)) fprintf(j->out, "%.9g", value);
    else fputs("null", j->out);
}
