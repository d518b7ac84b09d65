/* Small things every file uses: errors, checked arithmetic, allocation. */
#ifndef VKM_HOST_BASE_H
#define VKM_HOST_BASE_H

#include "vkmoe.h"
#include <stdarg.h>

#if defined(__MINGW32__)
#  define VKM_PRINTF(format_at, first_at) __attribute__((format(gnu_printf, format_at, first_at)))   /* with __USE_MINGW_ANSI_STDIO, which the build sets */
#elif defined(__GNUC__)
#  define VKM_PRINTF(format_at, first_at) __attribute__((format(printf, format_at, first_at)))
#else
#  define VKM_PRINTF(format_at, first_at)
#endif

#define VKM_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Fills err (if any) with r and a formatted sentence; returns r, so `return vkm_fail(err, VKM_ERR_IO, "...")`. */
vkm_result vkm_fail(vkm_error *err, vkm_result r, const char *fmt, ...) VKM_PRINTF(3, 4);

/* false on overflow; *out untouched then */
static inline bool vkm_mul(uint64_t a, uint64_t b, uint64_t *out) { if (a && b > UINT64_MAX / a) return false; *out = a * b; return true; }
static inline bool vkm_add(uint64_t a, uint64_t b, uint64_t *out) { if (b > UINT64_MAX - a) return false; *out = a + b; return true; }
static inline uint64_t vkm_align(uint64_t x, uint64_t a) { return (x + a - 1) / a * a; }
static inline uint32_t vkm_div_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

/* A growing text buffer with snprintf's manner: counts what it would need, writes what fits, always terminates when size > 0. */
typedef struct vkm_text { char *at; size_t size, used; } vkm_text;
void vkm_textf(vkm_text *t, const char *fmt, ...) VKM_PRINTF(2, 3);

/* file.c. FNV-1a by words of 8 bytes, to be gone on with (VKM_HASH_START first; the same as of one piece where pieces are whole words): finds damage, not malice. */
#define VKM_HASH_START 0xcbf29ce484222325u
uint64_t vkm_hash(uint64_t h, const void *data, size_t bytes);
/* Writes head and data to a file aside, which then takes the place of `path`: whoever reads sees the old or the new one whole. Folders that are missing are made. */
vkm_result vkm_file_replace(const char *path, const void *head, size_t n_head, const void *data, size_t n, vkm_error *err);

#endif
