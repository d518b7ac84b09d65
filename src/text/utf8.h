/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. The same set that PCRE2 accepts. */
#ifndef VKM_TEXT_UTF8_H
#define VKM_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Looks at the character that starts at s[0]. *length: the bytes it takes (1..4), 0 when no character starts with s[0].
 * Returns how many of the n bytes fit it: equal to *length for a whole character, equal to n (and less than *length) when the
 * rest may still follow, else the length of a broken beginning (0 or more). n >= 1. */
static inline size_t vkm_utf8_look(const char *text, size_t n, size_t *length)
{
    const uint8_t *s = (const uint8_t *)text;
    uint8_t low = 0x80, high = 0xbf;     /* the second byte's range; later bytes are 80..bf */
    if (s[0] < 0x80) { *length = 1; return 1; }
    if (s[0] >= 0xc2 && s[0] <= 0xdf) *length = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef) *length = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4) *length = 4;
    else { *length = 0; return 0; }
    if (s[0] == 0xe0) low = 0xa0;        /* overlong */
    if (s[0] == 0xed) high = 0x9f;       /* surrogates */
    if (s[0] == 0xf0) low = 0x90;        /* overlong */
    if (s[0] == 0xf4) high = 0x8f;       /* above U+10FFFF */
    for (size_t i = 1; i < *length; i++) {
        if (i >= n || s[i] < low || s[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    return *length;
}

/* Bytes of the valid character at s, 0 when there is none (n >= 1). */
static inline size_t vkm_utf8_char(const char *s, size_t n)
{
    size_t length;
    return vkm_utf8_look(s, n, &length) == length ? length : 0;
}

#endif
