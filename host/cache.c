/* The pipeline cache on disk. What drivers say about foreign or damaged data cannot be relied on, so the file has a header of ours with a hash. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_VERSION 1
#define CACHE_BYTES_MAX (256u << 20)

struct cache_header {
    char magic[8];
    uint32_t version, vendor_id, device_id, driver_version;
    uint8_t pipeline_uuid[16];
    uint64_t bytes, hash;
};
_Static_assert(sizeof(struct cache_header) == 56, "the header has no padding");

static struct cache_header make_header(const vkm_device *device, const void *data, size_t bytes)
{
    const struct vkm_caps *caps = &device->offer.caps;
    struct cache_header h = {.magic = "VKMOEPC", .version = CACHE_VERSION, .vendor_id = caps->vendor_id, .device_id = caps->device_id,
                             .driver_version = caps->driver_version, .bytes = bytes, .hash = vkm_hash(VKM_HASH_START, data, bytes)};
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

vkm_result vkm_cache_save(vkm_device *device, const void *data, size_t bytes, vkm_error *err)
{
    struct cache_header h = make_header(device, data, bytes);
    return vkm_file_replace(device->cache_path, &h, sizeof h, data, bytes, err);
}
