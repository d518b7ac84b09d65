/* A program with a Vulkan instance, a device and a queue of its own, under the validation layer, that gives them to vkmoe. */
#ifndef VKM_TESTS_CALLER_H
#define VKM_TESTS_CALLER_H

#include "driver.h"
#include "host/platform.h"
#include <vulkan/vulkan.h>

struct caller {
    PFN_vkGetInstanceProcAddr get;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family, messages;
    vkm_import import;                     /* of all that; what else a test wants is put here before caller_import */
    vkm_wanted *wanted;                    /* NULL until caller_want */
};
#define CALLER_VK(c, name) ((PFN_vk##name)(c)->get((c)->instance, "vk" #name))

static VKAPI_ATTR VkBool32 VKAPI_CALL caller_on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT kinds, const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    struct caller *c = user;
    (void)severity, (void)kinds;
    if (strstr(data->pMessage, "pName is trying to grab")) return VK_FALSE;      /* see host/instance.c */
    c->messages++;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

static inline bool caller_has_layer(PFN_vkGetInstanceProcAddr get)
{
    VkLayerProperties layers[64];
    uint32_t n = VKM_COUNT(layers);
    ((PFN_vkEnumerateInstanceLayerProperties)get(NULL, "vkEnumerateInstanceLayerProperties"))(&n, layers);
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(layers[i].layerName, "VK_LAYER_KHRONOS_validation")) return true;
    fprintf(stderr, "no validation layer: nothing checks what the caller does\n");      /* wine's Vulkan has none */
    return false;
}

/* The instance, and the physical device that the other suites test. */
static inline void caller_open_instance(struct caller *c, uint32_t api)
{
    struct driver_log log;
    vkm_device_info info;
    vkm_device *device = driver_open(NULL, &log);
    vkm_device_get_info(device, &info);
    driver_close(device, &log);
    *c = (struct caller){.get = (PFN_vkGetInstanceProcAddr)vkm_vulkan_loader()};
    cr_assert(c->get);
    const bool layer = caller_has_layer(c->get);
    VkDebugUtilsMessengerCreateInfoEXT messages = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT, .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = caller_on_message, .pUserData = c};
    cr_assert_eq(CALLER_VK(c, CreateInstance)(&(VkInstanceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pNext = layer ? &messages : NULL, .pApplicationInfo = &(VkApplicationInfo){.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = api},
        .enabledLayerCount = layer, .ppEnabledLayerNames = (const char *[]){"VK_LAYER_KHRONOS_validation"}, .enabledExtensionCount = layer, .ppEnabledExtensionNames = (const char *[]){VK_EXT_DEBUG_UTILS_EXTENSION_NAME},
    }, NULL, &c->instance), VK_SUCCESS);
    if (layer) cr_assert_eq(CALLER_VK(c, CreateDebugUtilsMessengerEXT)(c->instance, &messages, NULL, &c->messenger), VK_SUCCESS);
    VkPhysicalDevice all[16];
    uint32_t n = 16;
    cr_assert(CALLER_VK(c, EnumeratePhysicalDevices)(c->instance, &n, all) >= 0 && info.index < n);
    c->physical = all[info.index];
    c->import = (vkm_import){.struct_size = sizeof c->import, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))c->get, .api_version = api, .instance = c->instance, .physical_device = c->physical};
}

static inline void caller_open_device(struct caller *c, uint32_t family, const void *features, const char *const *extensions, uint32_t n_extensions)
{
    c->family = family;
    cr_assert_eq(CALLER_VK(c, CreateDevice)(c->physical, &(VkDeviceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = features, .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &(VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = family, .queueCount = 1, .pQueuePriorities = &(float){1}},
        .enabledExtensionCount = n_extensions, .ppEnabledExtensionNames = extensions}, NULL, &c->device), VK_SUCCESS);
    CALLER_VK(c, GetDeviceQueue)(c->device, family, 0, &c->queue);
    c->import.device = c->device, c->import.queue = c->queue, c->import.queue_family = family;
    c->import.features = features, c->import.extensions = extensions, c->import.n_extensions = n_extensions;
}

/* The device with all that vkmoe can use. */
static inline void caller_want(struct caller *c)
{
    vkm_error err = {0};
    OK(vkm_wanted_create(&c->import, &c->wanted, &err));
    cr_assert(c->wanted->usable, "%s", c->wanted->unusable_why);
    caller_open_device(c, c->wanted->queue_family, c->wanted->features, c->wanted->extensions, c->wanted->n_extensions);
}

static inline vkm_device *caller_import(const struct caller *c, const char *caps, struct driver_log *log)
{
    vkm_error err = {0};
    vkm_device *device = NULL;
    *log = (struct driver_log){0};
    log->all = (vkm_text){log->text, sizeof log->text, 0};
    const vkm_device_params params = {.struct_size = sizeof params, .caps = caps, .import = &c->import, .log = driver_on_log, .log_user = log};
    OK(vkm_device_create(&params, &device, &err));
    return device;
}

/* All that vkmoe left behind on the device would be told by the layer. */
static inline void caller_close(struct caller *c)
{
    vkm_wanted_destroy(c->wanted);
    cr_expect_eq(CALLER_VK(c, DeviceWaitIdle)(c->device), VK_SUCCESS);
    CALLER_VK(c, DestroyDevice)(c->device, NULL);
    if (c->messenger) CALLER_VK(c, DestroyDebugUtilsMessengerEXT)(c->instance, c->messenger, NULL);
    CALLER_VK(c, DestroyInstance)(c->instance, NULL);
    cr_expect_eq(c->messages, 0);
}

#endif
