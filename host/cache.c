/* The pipeline cache on disk. What drivers say about foreign or damaged data cannot be relied on, so the file has a header of ours with a hash. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#if defined(_WIN32)
#  include <direct.h>
#  define MAKE_DIRECTORY(path) _mkdir(path)
#else
#  define MAKE_DIRECTORY(path) mkdir(path, 0777)
#endif

#define CACHE_VERSION 1
#define CACHE_BYTES_MAX (256u << 20)

struct cache_header {
    char magic[8];
    uint32_t version, vendor_id, device_id, driver_version;
    uint8_t pipeline_uuid[16];
    uint64_t bytes, hash;
};
_Static_assert(sizeof(struct cache_header) == 56, "the header has no padding");

static uint64_t fnv1a(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static struct cache_header make_header(const vkm_device *device, const void *data, size_t bytes)
{
    const struct vkm_caps *caps = &device->offer.caps;
    struct cache_header h = {.magic = "VKMOEPC", .version = CACHE_VERSION, .vendor_id = caps->vendor_id, .device_id = caps->device_id,
                             .driver_version = caps->driver_version, .bytes = bytes, .hash = fnv1a(data, bytes)};
    memcpy(h.pipeline_uuid, caps->pipeline_uuid, sizeof h.pipeline_uuid);
    return h;
}

/* NULL or why the file is of no use. */
static const char *read_cache(const vkm_device *device, FILE *f, void **data, size_t *bytes)
{
    struct cache_header h;
    if (fread(&h, sizeof h, 1, f) != 1) return "it is too short";
    if (memcmp(h.magic, "VKMOEPC", sizeof h.magic)) return "it is not a pipeline cache";
    if (!h.bytes || h.bytes > CACHE_BYTES_MAX) return "its size is damaged";
    uint8_t *content = malloc(h.bytes);
    if (!content) return "there is no memory for it";
    const char *why = NULL;
    if (fread(content, 1, h.bytes, f) != h.bytes) why = "it is cut off";
    else if (fgetc(f) != EOF) why = "it is too long";
    else {
        struct cache_header want = make_header(device, content, h.bytes);
        if (h.hash != want.hash) why = "its content is damaged";
        else if (memcmp(&h, &want, sizeof h)) why = "it is of another device, driver or version";
    }
    if (why) {
        free(content);
        return why;
    }
    *data = content;
    *bytes = h.bytes;
    return NULL;
}

void vkm_cache_load(vkm_device *device, void **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    FILE *f = fopen(device->cache_path, "rb");
    if (!f) {
        if (errno != ENOENT) vkm_logf(device, VKM_LOG_INFO, "pipeline cache %s is not used: %s", device->cache_path, strerror(errno));
        return;
    }
    const char *why = read_cache(device, f, data, bytes);
    fclose(f);
    if (why) vkm_logf(device, VKM_LOG_INFO, "pipeline cache %s is not used: %s", device->cache_path, why);
}

/* Makes the directories that `path` lies in; failures show when the file is opened. */
static void make_directories(char *path)
{
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        MAKE_DIRECTORY(path);
        *p = '/';
    }
}

/* A name beside the file that nobody else has: "x" makes the opening exclusive, the clock and an address make a second try rare. */
static FILE *open_temporary(const vkm_device *device, char *name, size_t size)
{
    FILE *f = NULL;
    for (int i = 0; i < 16 && !f; i++) {
        snprintf(name, size, "%s.%llx%d", device->cache_path, (unsigned long long)(vkm_now_ns() ^ (uint64_t)(uintptr_t)device), i);
        f = fopen(name, "wbx");
        if (!f && errno != EEXIST) break;
    }
    return f;
}

vkm_result vkm_cache_save(vkm_device *device, const void *data, size_t bytes, vkm_error *err)
{
    size_t size = strlen(device->cache_path) + 32;
    char *name = malloc(size);
    if (!name) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "saving pipeline cache %s", device->cache_path);
    snprintf(name, size, "%s", device->cache_path);
    make_directories(name);
    FILE *f = open_temporary(device, name, size);
    vkm_result r = VKM_OK;
    if (!f) r = vkm_fail(err, VKM_ERR_IO, "making %s: %s", name, strerror(errno));
    else {
        struct cache_header h = make_header(device, data, bytes);
        bool written = fwrite(&h, sizeof h, 1, f) == 1 && fwrite(data, 1, bytes, f) == bytes;
        written = !fclose(f) && written;
#if defined(_WIN32)
        if (written) remove(device->cache_path);   /* rename does not replace there */
#endif
        if (!written || rename(name, device->cache_path)) {
            r = vkm_fail(err, VKM_ERR_IO, "writing pipeline cache %s: %s", device->cache_path, strerror(errno));
            remove(name);
        }
    }
    free(name);
    return r;
}
