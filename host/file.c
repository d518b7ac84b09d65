/* Small files that are written whole or not at all. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t vkm_hash(uint64_t h, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        h = (h ^ word) * 0x100000001b3u;
        h ^= h >> 29;
    }
    for (; bytes; bytes--, at++) h = (h ^ *at) * 0x100000001b3u;
    return h;
}

/* Makes the directories that `path` lies in; failures show when the file is opened. */
static void make_directories(char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (!strchr(VKM_PATH_SEPARATORS, *p)) continue;
        char separator = *p;
        *p = 0;
        vkm_directory_make(path);
        *p = separator;
    }
}

/* A name beside the file that nobody else has: what is there is not opened, the clock and an address make a second try rare. */
static FILE *open_temporary(const char *path, char *name, size_t size)
{
    FILE *f = NULL;
    for (int i = 0; i < 16 && !f; i++) {
        snprintf(name, size, "%s.%llx%d", path, (unsigned long long)(vkm_now_ns() ^ (uint64_t)(uintptr_t)name), i);
        f = vkm_file_create(name);
        if (!f && errno != EEXIST) break;
    }
    return f;
}

vkm_result vkm_file_replace(const char *path, const void *head, size_t n_head, const void *data, size_t n, vkm_error *err)
{
    size_t size = strlen(path) + 32;
    char *name = malloc(size);
    if (!name) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "writing %s", path);
    snprintf(name, size, "%s", path);
    make_directories(name);
    FILE *f = open_temporary(path, name, size);
    vkm_result r = VKM_OK;
    if (!f) r = vkm_fail(err, VKM_ERR_IO, "making %s: %s", name, strerror(errno));
    else {
        bool written = fwrite(head, 1, n_head, f) == n_head && (n == 0 || fwrite(data, 1, n, f) == n);
        written = !fclose(f) && written;
        if (!written || vkm_file_move(name, path)) {
            r = vkm_fail(err, VKM_ERR_IO, "writing %s: %s", path, strerror(errno));
            vkm_file_remove(name);
        }
    }
    free(name);
    return r;
}
