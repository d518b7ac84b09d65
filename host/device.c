/* Listing devices, choosing one, making and destroying it. */
#include "internal.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------ errors and log */

static const char *vk_name(VkResult r)
{
    switch (r) {
#define NAME(x) case VK_##x: return "VK_" #x;
    NAME(ERROR_OUT_OF_HOST_MEMORY) NAME(ERROR_OUT_OF_DEVICE_MEMORY) NAME(ERROR_INITIALIZATION_FAILED) NAME(ERROR_DEVICE_LOST) NAME(ERROR_MEMORY_MAP_FAILED)
    NAME(ERROR_LAYER_NOT_PRESENT) NAME(ERROR_EXTENSION_NOT_PRESENT) NAME(ERROR_FEATURE_NOT_PRESENT) NAME(ERROR_INCOMPATIBLE_DRIVER)
    NAME(ERROR_TOO_MANY_OBJECTS) NAME(ERROR_FRAGMENTED_POOL) NAME(ERROR_OUT_OF_POOL_MEMORY) NAME(ERROR_INVALID_SHADER_NV) NAME(ERROR_UNKNOWN)
    NAME(TIMEOUT) NAME(NOT_READY) NAME(INCOMPLETE)
#undef NAME
    default: return NULL;
    }
}

vkm_result vkm_fail_vk(vkm_device *device, vkm_error *err, VkResult r, const char *fmt, ...)
{
    char what[384], number[32];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    const char *name = vk_name(r);
    snprintf(number, sizeof number, "VkResult %d", (int)r);
    vkm_result code = r == VK_ERROR_OUT_OF_HOST_MEMORY ? VKM_ERR_HOST_MEMORY
                    : r == VK_ERROR_OUT_OF_DEVICE_MEMORY ? VKM_ERR_DEVICE_MEMORY
                    : r == VK_ERROR_DEVICE_LOST ? VKM_ERR_DEVICE_LOST : VKM_ERR_VULKAN;
    if (device && r == VK_ERROR_DEVICE_LOST && !device->lost) {
        device->lost = true;
        vkm_logf(device, VKM_LOG_ERROR, "the device was lost: %s", what);
    }
    return vkm_fail(err, code, "%s: %s", what, name ? name : number);
}

vkm_result vkm_device_alive(const vkm_device *device, vkm_error *err)
{
    return device->lost ? vkm_fail(err, VKM_ERR_DEVICE_LOST, "%s was lost before; it must be destroyed", device->caps.device_name) : VKM_OK;
}

void vkm_logf(const vkm_device *device, vkm_log_level level, const char *fmt, ...)
{
    if (!device || !device->log) return;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    device->log(device->log_user, level, text);
}

void vkm_object_name(vkm_device *device, VkObjectType type, uint64_t handle, const char *name)
{
    char full[192];
    if (!device->vk.vkSetDebugUtilsObjectNameEXT) return;
    vkm_textf(&(vkm_text){full, sizeof full, 0}, "vkmoe %s", name);   /* on an imported device there are others' objects */
    device->vk.vkSetDebugUtilsObjectNameEXT(device->handle, &(VkDebugUtilsObjectNameInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT, .objectType = type, .objectHandle = handle, .pObjectName = full});
}

/* ------------------------------------------------ listing and choosing */

static const char *type_name(enum vkm_device_type type)
{
    static const char *const names[] = {"other", "integrated", "discrete", "virtual", "cpu"};
    return (uint32_t)type < VKM_COUNT(names) ? names[type] : names[0];
}

static void info_fill(const struct vkm_offer *offer, const struct vkm_caps *caps, uint32_t index, vkm_device_info *info)
{
    uint32_t v = caps->driver_version;
    *info = (vkm_device_info){
        .index = index, .type = type_name(caps->type),
        .api_major = VK_API_VERSION_MAJOR(caps->api_version), .api_minor = VK_API_VERSION_MINOR(caps->api_version), .api_patch = VK_API_VERSION_PATCH(caps->api_version),
        .vendor_id = caps->vendor_id, .device_id = caps->device_id, .memory_bytes = caps->heap_bytes, .usable = !offer->unusable_why[0],
    };
    memcpy(info->name, caps->device_name, sizeof info->name);
    memcpy(info->unusable_why, offer->unusable_why, sizeof info->unusable_why);
    vkm_text driver = {info->driver, sizeof info->driver, 0};
    if (caps->driver_info[0]) vkm_textf(&driver, "%s %s", caps->driver_name, caps->driver_info);
    else vkm_textf(&driver, "%s %u.%u.%u", caps->driver_name[0] ? caps->driver_name : "driver", VK_API_VERSION_MAJOR(v), VK_API_VERSION_MINOR(v), VK_API_VERSION_PATCH(v));
    if (info->usable) vkm_caps_print(caps, &(vkm_text){info->caps, sizeof info->caps, 0});
}

/* All devices of an instance; *offers is malloc'd and NULL when there is none. */
static vkm_result enumerate(const struct vkm_instance *instance, struct vkm_offer **offers, uint32_t *n_offers, vkm_error *err)
{
    uint32_t n = 0;
    *offers = NULL, *n_offers = 0;
    VkResult r = instance->vkEnumeratePhysicalDevices(instance->handle, &n, NULL);
    if (r == VK_ERROR_INITIALIZATION_FAILED || (r == VK_SUCCESS && !n)) return VKM_OK;   /* drivers without their hardware */
    if (r != VK_SUCCESS) return vkm_fail_vk(NULL, err, r, "listing Vulkan devices");
    VkPhysicalDevice *physical = calloc(n, sizeof *physical);
    struct vkm_offer *list = calloc(n, sizeof *list);
    if (!physical || !list) {
        free(physical), free(list);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "listing %u Vulkan devices", n);
    }
    r = instance->vkEnumeratePhysicalDevices(instance->handle, &n, physical);
    for (uint32_t i = 0; r >= 0 && i < n; i++) vkm_offer_fill(instance, physical[i], NULL, &list[i]);
    free(physical);
    if (r < 0) {
        free(list);
        return vkm_fail_vk(NULL, err, r, "listing Vulkan devices");
    }
    *offers = list, *n_offers = n;
    return VKM_OK;
}

vkm_result vkm_devices(vkm_device_info *infos, uint32_t *count, vkm_error *err)
{
    if (!count) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_devices: count is NULL");
    struct vkm_instance instance;
    vkm_error e;
    vkm_result r = vkm_instance_create(&instance, NULL, false, &e);
    if (r) return vkm_fail(err, r, "%s", e.message);
    struct vkm_offer *offers;
    uint32_t n;
    r = enumerate(&instance, &offers, &n, err);
    if (!r) {
        for (uint32_t i = 0; infos && i < n && i < *count; i++) info_fill(&offers[i], &offers[i].caps, i, &infos[i]);
        *count = n;
    }
    free(offers);
    vkm_instance_destroy(&instance);
    return r;
}

static bool contains(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) i++;
        if (!part[i]) return true;
    }
    return !*part;
}

static int type_rank(enum vkm_device_type type)
{
    switch (type) {
    case VKM_TYPE_DISCRETE: return 4;
    case VKM_TYPE_INTEGRATED: return 3;
    case VKM_TYPE_VIRTUAL: return 2;
    case VKM_TYPE_CPU: return 1;
    default: return 0;
    }
}

static vkm_result choose(const struct vkm_offer *offers, uint32_t n, const char *select, uint32_t *index, vkm_error *err)
{
    char list[320];
    vkm_text text = {list, sizeof list, 0};
    for (uint32_t i = 0; i < n; i++) {
        vkm_textf(&text, "%s%u: %s", i ? ", " : "", i, offers[i].caps.device_name);
        if (offers[i].unusable_why[0]) vkm_textf(&text, " (%s)", offers[i].unusable_why);
    }
    if (!n) return vkm_fail(err, VKM_ERR_NO_DEVICE, "there is no Vulkan device: no driver found its hardware");
    if (select && *select && strspn(select, "0123456789") == strlen(select)) {
        unsigned long i = strtoul(select, NULL, 10);
        if (i >= n) return vkm_fail(err, VKM_ERR_NO_DEVICE, "there is no device %s; there are: %s", select, list);
        if (offers[i].unusable_why[0]) return vkm_fail(err, VKM_ERR_NO_DEVICE, "device %lu, %s, %s", i, offers[i].caps.device_name, offers[i].unusable_why);
        *index = (uint32_t)i;
        return VKM_OK;
    }
    int best = -1;
    for (uint32_t i = 0; i < n; i++) {
        int rank = type_rank(offers[i].caps.type);
        if (offers[i].unusable_why[0] || rank <= best || (select && !contains(offers[i].caps.device_name, select))) continue;
        best = rank;
        *index = i;
    }
    if (best >= 0) return VKM_OK;
    if (select) return vkm_fail(err, VKM_ERR_NO_DEVICE, "no usable device's name has \"%s\" in it; there are: %s", select, list);
    return vkm_fail(err, VKM_ERR_NO_DEVICE, "no device is usable: %s", list);
}

/* ------------------------------------------------ creating and destroying */

static vkm_result load_functions(vkm_device *device, vkm_error *err)
{
    const struct vkm_instance *in = &device->instance;
    struct vkm_device_functions *vk = &device->vk;
    const char *missing = NULL;
#define LOAD(name) (vk->vk##name = (PFN_vk##name)in->vkGetDeviceProcAddr(device->handle, "vk" #name))
#define VKM_X(name) if (!LOAD(name)) missing = "vk" #name;
    VKM_DEVICE_FUNCTIONS(VKM_X)
#undef VKM_X
#define VKM_X(name) if (!LOAD(name) && !(vk->vk##name = (PFN_vk##name)in->vkGetDeviceProcAddr(device->handle, "vk" #name "KHR"))) missing = "vk" #name;
    VKM_DEVICE_KHR(VKM_X)
#undef VKM_X
#define VKM_X(name) LOAD(name);
    if (device->caps.api_version >= VK_API_VERSION_1_2 && in->api >= VK_API_VERSION_1_2) { VKM_DEVICE_12(VKM_X) }
    if (device->caps.pipeline_statistics) { VKM_DEVICE_STATISTICS(VKM_X) }
    if (in->vkCreateDebugUtilsMessengerEXT) { VKM_DEVICE_OPTIONAL(VKM_X) }
#undef VKM_X
#undef LOAD
    if (!missing) return VKM_OK;
    if (vk->vkDestroyDevice && !device->borrowed) vk->vkDestroyDevice(device->handle, NULL);
    device->handle = VK_NULL_HANDLE;   /* vkm_device_destroy must not use what was not found */
    return vkm_fail(err, VKM_ERR_VULKAN, "%s: the driver has no %s", device->caps.device_name, missing);
}

/* What is there of a caller's struct: members that it does not know yet are zero. */
static vkm_result copy_import(const vkm_import *from, vkm_import *to, vkm_error *err)
{
    if (!from || !from->struct_size) return vkm_fail(err, VKM_ERR_ARGUMENT, from ? "the import's struct_size is 0" : "there is no import");
    *to = (vkm_import){0};
    memcpy(to, from, from->struct_size < sizeof *to ? from->struct_size : sizeof *to);
    return VKM_OK;
}

struct wanted { vkm_wanted public; struct vkm_offer offer; struct vkm_features features; };

vkm_result vkm_wanted_create(const vkm_import *of, vkm_wanted **out, vkm_error *err)
{
    vkm_import import;
    struct vkm_instance instance;
    if (!out) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_wanted_create: wanted is NULL");
    vkm_result r = copy_import(of, &import, err);
    if (!r) r = vkm_instance_borrow(&instance, &import, err);
    if (r) return r;
    struct wanted *w = calloc(1, sizeof *w);
    if (!w) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "listing what is wanted of a device");
    vkm_offer_fill(&instance, import.physical_device, NULL, &w->offer);
    vkm_features_fill(&w->offer, &w->features);
    w->public = (vkm_wanted){.usable = !w->offer.unusable_why[0], .queue_family = w->offer.queue_family, .extensions = w->offer.extensions, .n_extensions = w->offer.n_extensions,
                             .features = &w->features.base};
    memcpy(w->public.unusable_why, w->offer.unusable_why, sizeof w->public.unusable_why);
    *out = &w->public;
    return VKM_OK;
}

void vkm_wanted_destroy(vkm_wanted *wanted) { free(wanted); }   /* the first member of struct wanted */

static vkm_result borrow_device(vkm_device *device, const vkm_device_params *params, vkm_error *err)
{
    vkm_import import;
    vkm_result r = copy_import(params->import, &import, err);
    if (r) return r;
    const char *beside = params->select ? "select" : params->validation ? "validation" : params->priority ? "priority" : NULL;
    if (beside) return vkm_fail(err, VKM_ERR_ARGUMENT, "an import is a device that is made already: no %s beside it", beside);
    if (!import.device || !import.queue) return vkm_fail(err, VKM_ERR_ARGUMENT, "the import has no %s", import.device ? "queue" : "device");
    if (import.memory) {
        if (!import.memory->struct_size) return vkm_fail(err, VKM_ERR_ARGUMENT, "the import's memory->struct_size is 0");
        memcpy(&device->hooks, import.memory, import.memory->struct_size < sizeof device->hooks ? import.memory->struct_size : sizeof device->hooks);
        if (!device->hooks.allocate || !device->hooks.release) return vkm_fail(err, VKM_ERR_ARGUMENT, "the import's memory has no %s", device->hooks.allocate ? "release" : "allocate");
    }
    if ((r = vkm_instance_borrow(&device->instance, &import, err))) return r;
    vkm_offer_fill(&device->instance, import.physical_device, &import, &device->offer);
    if (device->offer.unusable_why[0]) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s %s", device->offer.caps.device_name, device->offer.unusable_why);
    struct vkm_caps clamped = device->offer.caps;      /* a wrong string is told before there is a handle, which wants functions to be destroyed with */
    if ((r = vkm_caps_clamp(&clamped, params->caps, err))) return r;
    device->borrowed = true;
    device->handle = import.device;
    device->queue = import.queue;
    device->allocator = import.allocator;
    if (import.pipeline_cache) {
        device->borrowed_cache = true;
        device->pipeline_cache = (VkPipelineCache)import.pipeline_cache;
        free(device->cache_path);
        device->cache_path = NULL;
        device->cache_data = NULL;
    }
    device->lock = import.lock, device->unlock = import.unlock, device->lock_user = import.lock_user;
    return VKM_OK;
}

/* One queue, whose priority among the device's own says nothing: what counts is that among programs. */
static VkResult open_handle(vkm_device *device, bool low)
{
    struct vkm_features features;
    const char *extensions[VKM_EXTENSIONS_MAX + 1];
    uint32_t n = device->offer.n_extensions;
    vkm_features_fill(&device->offer, &features);
    memcpy(extensions, device->offer.extensions, n * sizeof *extensions);
    if (low) extensions[n++] = device->offer.global_priority;
    const VkDeviceQueueGlobalPriorityCreateInfoKHR priority = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_GLOBAL_PRIORITY_CREATE_INFO_KHR, .globalPriority = VK_QUEUE_GLOBAL_PRIORITY_LOW_KHR};
    VkResult r = device->instance.vkCreateDevice(device->offer.physical, &(VkDeviceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features.base,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &(VkDeviceQueueCreateInfo){
            .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .pNext = low ? &priority : NULL, .queueFamilyIndex = device->offer.queue_family, .queueCount = 1, .pQueuePriorities = &(float){1}},
        .enabledExtensionCount = n, .ppEnabledExtensionNames = extensions,
    }, NULL, &device->handle);
    if (r != VK_SUCCESS) device->handle = VK_NULL_HANDLE;
    return r;
}

static vkm_result make_device(vkm_device *device, const vkm_device_params *params, vkm_error *err)
{
    vkm_result r = vkm_instance_create(&device->instance, device, params->validation, err);
    if (r) return r;
    device->validation = device->instance.messenger != VK_NULL_HANDLE;
    struct vkm_offer *offers;
    uint32_t n;
    r = enumerate(&device->instance, &offers, &n, err);
    if (!r) r = choose(offers, n, params->select, &device->index, err);
    if (!r) device->offer = offers[device->index];
    free(offers);
    if (r) return r;

    struct vkm_caps clamped = device->offer.caps;      /* a wrong string is told before a device is opened */
    if ((r = vkm_caps_clamp(&clamped, params->caps, err))) return r;
    bool low = params->priority == VKM_PRIORITY_LOW && device->offer.global_priority;
    VkResult vr = open_handle(device, low);
    if (low && vr != VK_SUCCESS) low = false, vr = open_handle(device, false);   /* not permitted; SwiftShader, which has the extension and one priority, says VK_ERROR_INITIALIZATION_FAILED */
    if (params->priority == VKM_PRIORITY_LOW && !low) vkm_logf(device, VKM_LOG_INFO, "%s: the driver has no low priority", device->offer.caps.device_name);
    return vr == VK_SUCCESS ? VKM_OK : vkm_fail_vk(NULL, err, vr, "opening %s", device->offer.caps.device_name);
}

static vkm_result open_device(vkm_device *device, const vkm_device_params *params, vkm_error *err)
{
    vkm_result r = params->import ? borrow_device(device, params, err) : make_device(device, params, err);
    device->caps = device->offer.caps;
    if (!r) r = vkm_caps_clamp(&device->caps, params->caps, err);
    if (r) return r;
    device->heap_limit = device->caps.heap_bytes < device->offer.caps.heap_bytes ? device->caps.heap_bytes : UINT64_MAX;
    if ((r = load_functions(device, err)) || (r = vkm_queue_create(device, err)) || (r = vkm_kernels_create(device, err))) return r;
    char caps[256], tiers[64];
    vkm_caps_print(&device->caps, &(vkm_text){caps, sizeof caps, 0});
    vkm_caps_tiers(&device->caps, &(vkm_text){tiers, sizeof tiers, 0});
    vkm_logf(device, VKM_LOG_INFO, "%s: tier %s, %s", device->caps.device_name, tiers, caps);
    return VKM_OK;
}

vkm_result vkm_device_create(const vkm_device_params *params, vkm_device **out, vkm_error *err)
{
    if (!out) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_device_create: device is NULL");
    vkm_device_params p = {0};
    if (params) {
        if (!params->struct_size) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_device_create: params->struct_size is 0");
        memcpy(&p, params, params->struct_size < sizeof p ? params->struct_size : sizeof p);
    }
    vkm_device *device = calloc(1, sizeof *device);
    if (!device) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making a device");
    device->log = p.log;
    device->log_user = p.log_user;
    device->speed = 1;
    device->cache_data = p.cache_data;
    device->cache_bytes = p.cache_bytes;
    vkm_result r = p.cache_path && p.cache_data ? vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_device_create: cache_path and cache_data are both set") : VKM_OK;
    if (!r && (uint32_t)p.priority > VKM_PRIORITY_LOW) r = vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_device_create: there is no priority %d", (int)p.priority);
    if (!r && p.cache_path) {
        size_t n = strlen(p.cache_path) + 1;
        device->cache_path = malloc(n);
        if (device->cache_path) memcpy(device->cache_path, p.cache_path, n);
        else r = vkm_fail(err, VKM_ERR_HOST_MEMORY, "making a device");
    }
    if (!r) r = open_device(device, &p, err);
    device->cache_data = NULL;                 /* was borrowed */
    if (r) {
        vkm_device_destroy(device);
        return r;
    }
    *out = device;
    return VKM_OK;
}

void vkm_device_destroy(vkm_device *device)
{
    if (!device) return;
    if (device->handle) {
        vkm_queue_destroy(device);
        vkm_kernels_destroy(device);
        if (!device->borrowed) device->vk.vkDestroyDevice(device->handle, NULL);
    }
    vkm_instance_destroy(&device->instance);
    free(device->cache_path);
    free(device);
}

void vkm_device_get_info(const vkm_device *device, vkm_device_info *info)
{
    info_fill(&device->offer, &device->caps, device->index, info);
}

uint32_t vkm_device_validation_count(const vkm_device *device) { return atomic_load(&device->validation_count); }

const struct vkm_caps *vkm_device_caps(const vkm_device *device) { return &device->caps; }
