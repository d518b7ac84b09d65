/* PNG files: zlib's deflate where there is zlib, else blocks that are stored as they are. */
#include "stats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef ENGINE_ZLIB
#  include <zlib.h>
#endif

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint32_t crc(const uint8_t *data, size_t n)           /* of PNG (ISO 3309) */
{
    uint32_t c = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        c ^= data[i];
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

/* A chunk whose n bytes lie at data + 8, with room for 4 more behind them. */
static bool write_chunk(FILE *f, const char *kind, uint8_t *data, size_t n)
{
    put32(data, (uint32_t)n);
    memcpy(data + 4, kind, 4);
    put32(data + 8 + n, crc(data + 4, n + 4));
    return fwrite(data, 1, n + 12, f) == n + 12;
}

/* Rows as differences from the row above: filter 2, which pictures of flat colours shrink well under. */
static uint8_t *filter(const uint8_t *rgb, uint32_t width, uint32_t height, size_t *n)
{
    size_t row = (size_t)width * 3;
    *n = (row + 1) * height;
    uint8_t *to = malloc(*n);
    for (uint32_t y = 0; to && y < height; y++) {
        uint8_t *out = to + y * (row + 1);
        const uint8_t *in = rgb + y * row;
        *out++ = 2;
        for (size_t i = 0; i < row; i++) out[i] = (uint8_t)(in[i] - (y ? in[i - row] : 0));
    }
    return to;
}

/* The raw bytes as a zlib stream, 8 bytes into what is returned. */
static uint8_t *pack(const uint8_t *raw, size_t n, size_t *packed)
{
#ifdef ENGINE_ZLIB
    uLongf room = compressBound((uLong)n);
    uint8_t *to = malloc(room + 12);
    if (to && compress2(to + 8, &room, raw, (uLong)n, 9) != Z_OK) { free(to); to = NULL; }
    *packed = room;
    return to;
#else
    const size_t most = 65535;
    uint8_t *to = malloc(n + (n / most + 1) * 5 + 6 + 12), *at = to ? to + 8 : NULL;
    if (!to) return NULL;
    uint32_t a = 1, b = 0;
    *at++ = 0x78, *at++ = 0x01;
    for (size_t i = 0; i < n; i += most) {
        size_t part = n - i < most ? n - i : most;
        *at++ = i + part == n;
        *at++ = (uint8_t)part, *at++ = (uint8_t)(part >> 8), *at++ = (uint8_t)~part, *at++ = (uint8_t)(~part >> 8);
        memcpy(at, raw + i, part);
        at += part;
    }
    for (size_t i = 0; i < n; i++) a = (a + raw[i]) % 65521, b = (b + a) % 65521;
    put32(at, b << 16 | a);
    *packed = (size_t)(at + 4 - to) - 8;
    return to;
#endif
}

bool png_write(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height)
{
    size_t n, packed = 0;
    uint8_t *raw = filter(rgb, width, height, &n), *data = raw ? pack(raw, n, &packed) : NULL, head[8 + 13 + 4] = {0}, end[12];
    free(raw);
    FILE *f = data ? fopen(path, "wb") : NULL;
    if (!f) { free(data); return false; }
    put32(head + 8, width);
    put32(head + 12, height);
    head[16] = 8, head[17] = 2;              /* bits of a channel; RGB */
    bool ok = fwrite("\x89PNG\r\n\x1a\n", 1, 8, f) == 8 && write_chunk(f, "IHDR", head, 13) && write_chunk(f, "IDAT", data, packed) && write_chunk(f, "IEND", end, 0);
    free(data);
    return fclose(f) == 0 && ok;
}
