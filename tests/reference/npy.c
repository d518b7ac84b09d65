/* https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
#include "reference/npy.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The header is a Python literal: {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), } */
static bool parse_header(const char *h, char descr[4], struct ref_npy *a)
{
    const char *d = strstr(h, "'descr': '"), *s = strstr(h, "'shape': (");
    if (!d || !s || !strstr(h, "'fortran_order': False")) return false;
    memcpy(descr, d + 10, 3);
    descr[3] = 0;
    a->cols = 1;
    return sscanf(s + 10, "%zu, %zu", &a->rows, &a->cols) >= 1;
}

static double value(const char *descr, const uint8_t *at)
{
    double f8;
    float f4;
    int32_t i4;
    if (descr[1] == 'f' && descr[2] == '8') return memcpy(&f8, at, 8), f8;
    if (descr[1] == 'f') return memcpy(&f4, at, 4), f4;
    return memcpy(&i4, at, 4), i4;
}

static bool read_values(FILE *f, const char *descr, struct ref_npy *a)
{
    size_t size = (size_t)(descr[2] - '0'), n = a->rows * a->cols;
    bool known = !strcmp(descr, "<f8") || !strcmp(descr, "<f4") || !strcmp(descr, "<i4");
    uint8_t *raw = known ? malloc(n * size + 1) : NULL;
    a->x = malloc(n * sizeof *a->x + 1);
    bool ok = raw && a->x && fread(raw, size, n, f) == n;
    for (size_t i = 0; ok && i < n; i++) a->x[i] = value(descr, raw + i * size);
    free(raw);
    if (!ok) ref_npy_free(a);
    return ok;
}

bool ref_npy_load(const char *path, struct ref_npy *a)
{
    uint8_t magic[10];
    char header[1024] = "", descr[4];
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    bool ok = fread(magic, 1, sizeof magic, f) == sizeof magic && memcmp(magic, "\x93NUMPY\x01", 7) == 0;
    size_t n = ok ? magic[8] | (size_t)magic[9] << 8 : 0;
    ok = ok && n < sizeof header && fread(header, 1, n, f) == n && parse_header(header, descr, a) && read_values(f, descr, a);
    fclose(f);
    return ok;
}

void ref_npy_free(struct ref_npy *a)
{
    free(a->x);
    a->x = NULL;
}
