/* The pipeline cache, in a file or in the caller's memory. What drivers say about foreign or damaged data cannot be relied on, so it has a header of ours with a hash. */
#include "internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_VERSION 2
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

/* Where the bytes come from: a file, or memory. */
struct source { FILE *file; const uint8_t *at; size_t left; };

static size_t take(struct source *s, void *to, size_t n)
{
    if (s->file) return fread(to, 1, n, s->file);
    if (n > s->left) n = s->left;
    memcpy(to, s->at, n);
    s->at += n, s->left -= n;
    return n;
}

/* NULL or why it is of no use. */
static const char *read_cache(const vkm_device *device, struct source *s, void **data, size_t *bytes)
{
    struct cache_header h;
    if (take(s, &h, sizeof h) != sizeof h) return "it is too short";
    if (memcmp(h.magic, "VKMOEPC", sizeof h.magic)) return "it is not a pipeline cache";
    if (!h.bytes || h.bytes > CACHE_BYTES_MAX) return "its size is damaged";
    uint8_t *content = malloc(h.bytes), more;
    if (!content) return "there is no memory for it";
    const char *why = NULL;
    if (take(s, content, h.bytes) != h.bytes) why = "it is cut off";
    else if (take(s, &more, 1)) why = "it is too long";
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
    struct source s = {.at = device->cache_data, .left = device->cache_bytes};
    if (device->cache_path && !(s.file = vkm_file_open(device->cache_path, "rb"))) {
        if (errno != ENOENT) vkm_logf(device, VKM_LOG_INFO, "pipeline cache %s is not used: %s", device->cache_path, strerror(errno));
        return;
    }
    if (!s.file && !s.at) return;
    const char *why = read_cache(device, &s, data, bytes);
    if (s.file) fclose(s.file);
    if (why) vkm_logf(device, VKM_LOG_INFO, "pipeline cache %s is not used: %s", device->cache_path ? device->cache_path : "data", why);
}

/* What the driver has now; malloc'd. */
static vkm_result get_data(vkm_device *device, void **data, size_t *bytes, vkm_error *err)
{
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    VkResult r = VK_INCOMPLETE;
    void *at = NULL;
    while (r == VK_INCOMPLETE) {               /* one that others use grows between the calls */
        free(at);
        at = NULL;
        r = device->vk.vkGetPipelineCacheData(device->handle, device->pipeline_cache, bytes, NULL);
        if (r == VK_SUCCESS && !(at = malloc(*bytes ? *bytes : 1))) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "reading the pipeline cache");
        if (r == VK_SUCCESS) r = device->vk.vkGetPipelineCacheData(device->handle, device->pipeline_cache, bytes, at);
    }
    if (r != VK_SUCCESS) {
        free(at);
        return vkm_fail_vk(device, err, r, "reading the pipeline cache");
    }
    *data = at;
    return VKM_OK;
}

vkm_result vkm_kernels_save_cache(vkm_device *device, vkm_error *err)
{
    void *data = NULL;
    size_t bytes = 0;
    if (!device->cache_path) return vkm_fail(err, VKM_ERR_ARGUMENT, "saving the pipeline cache: the device was made without cache_path");
    vkm_result r = get_data(device, &data, &bytes, err);
    if (r) return r;
    struct cache_header h = make_header(device, data, bytes);
    r = vkm_file_replace(device->cache_path, &h, sizeof h, data, bytes, err);
    free(data);
    if (!r) device->cache_dirty = false;
    return r;
}

vkm_result vkm_device_pipeline_cache_data(vkm_device *device, void *data, size_t *bytes, vkm_error *err)
{
    void *content = NULL;
    size_t n = 0;
    if (!device || !bytes || (*bytes && !data)) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_device_pipeline_cache_data: %s is NULL", !device ? "device" : !bytes ? "bytes" : "data");
    if (device->borrowed_cache) return vkm_fail(err, VKM_ERR_ARGUMENT, "the pipeline cache is the import's: vkGetPipelineCacheData tells what is in it");
    vkm_result r = get_data(device, &content, &n, err);
    if (r) return r;
    struct cache_header h = make_header(device, content, n);
    if (*bytes >= sizeof h + n) {
        memcpy(data, &h, sizeof h);
        memcpy((char *)data + sizeof h, content, n);
    }
    *bytes = sizeof h + n;
    free(content);
    return VKM_OK;
}
