/* The Vulkan loader and an instance. Every device has its own instance, so that two of them share nothing. */
#include "internal.h"
#include <string.h>

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    vkm_device *device = user;
    (void)severity, (void)types;
    /* Newer layers say so of some instance functions that are looked up with the device's. */
    if (data->pMessage && strstr(data->pMessage, "vkGetDeviceProcAddr(): pName is trying to grab")) return VK_FALSE;
    atomic_fetch_add(&device->validation_count, 1);
    vkm_logf(device, VKM_LOG_ERROR, "validation: %s", data->pMessage ? data->pMessage : "");
    return VK_FALSE;
}

static bool has_layer(PFN_vkEnumerateInstanceLayerProperties enumerate, const char *name)
{
    VkLayerProperties layers[64];
    uint32_t n = VKM_COUNT(layers);
    if (!enumerate || enumerate(&n, layers) < 0) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(layers[i].layerName, name)) return true;
    return false;
}

static bool has_extension(PFN_vkEnumerateInstanceExtensionProperties enumerate, const char *layer, const char *name)
{
    VkExtensionProperties extensions[128];
    uint32_t n = VKM_COUNT(extensions);
    if (!enumerate || enumerate(layer, &n, extensions) < 0) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(extensions[i].extensionName, name)) return true;
    return false;
}

static void load_functions(struct vkm_instance *instance, PFN_vkGetInstanceProcAddr get, bool debug_utils)
{
    instance->vkGetInstanceProcAddr = get;
#define VKM_X(name) instance->vk##name = (PFN_vk##name)get(instance->handle, "vk" #name);
    VKM_INSTANCE_FUNCTIONS(VKM_X)
    VKM_INSTANCE_EXTENSION(VKM_X)
    if (debug_utils) { VKM_INSTANCE_OPTIONAL(VKM_X) }
#undef VKM_X
}

vkm_result vkm_instance_create(struct vkm_instance *instance, vkm_device *device, bool validation, vkm_error *err)
{
    *instance = (struct vkm_instance){0};
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr)vkm_vulkan_loader();
    if (!get) return vkm_fail(err, VKM_ERR_NO_DEVICE, "the Vulkan loader was not found (" VKM_VULKAN_LOADER "): is a Vulkan driver installed?");
#define GLOBAL(name) PFN_vk##name vk##name = (PFN_vk##name)get(NULL, "vk" #name)
    GLOBAL(CreateInstance);
    GLOBAL(EnumerateInstanceVersion);
    GLOBAL(EnumerateInstanceLayerProperties);
    GLOBAL(EnumerateInstanceExtensionProperties);
#undef GLOBAL
    uint32_t version = VK_API_VERSION_1_0;
    if (!vkCreateInstance || !vkEnumerateInstanceVersion || vkEnumerateInstanceVersion(&version) != VK_SUCCESS || version < VK_API_VERSION_1_1)
        return vkm_fail(err, VKM_ERR_NO_DEVICE, "the Vulkan loader is older than 1.1");

    const char *layers[1], *extensions[3];
    uint32_t n_layers = 0, n_extensions = 0;
    VkInstanceCreateFlags flags = 0;
    if (validation) {
        if (has_layer(vkEnumerateInstanceLayerProperties, VALIDATION_LAYER)) layers[n_layers++] = VALIDATION_LAYER;
        else vkm_logf(device, VKM_LOG_WARN, VALIDATION_LAYER " is not installed: running without validation"), validation = false;
    }
    bool debug_utils = has_extension(vkEnumerateInstanceExtensionProperties, NULL, VK_EXT_DEBUG_UTILS_EXTENSION_NAME) ||
                       (validation && has_extension(vkEnumerateInstanceExtensionProperties, VALIDATION_LAYER, VK_EXT_DEBUG_UTILS_EXTENSION_NAME));
    if (debug_utils) extensions[n_extensions++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (has_extension(vkEnumerateInstanceExtensionProperties, NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {   /* MoltenVK */
        extensions[n_extensions++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }

    /* Validation messages only: the loader's own (a driver that is installed without its hardware) say nothing about us. */
    VkDebugUtilsMessengerCreateInfoEXT messages = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = device,
    };
    bool listen = validation && debug_utils;
    VkResult r = vkCreateInstance(&(VkInstanceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = listen ? &messages : NULL,
        .flags = flags,
        .pApplicationInfo = &(VkApplicationInfo){
            .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
            .pApplicationName = "vkmoe",
            .pEngineName = "vkmoe",
            .engineVersion = VK_MAKE_API_VERSION(0, VKM_VERSION_MAJOR, VKM_VERSION_MINOR, VKM_VERSION_PATCH),
            .apiVersion = VKM_API_VERSION,
        },
        .enabledLayerCount = n_layers, .ppEnabledLayerNames = layers,
        .enabledExtensionCount = n_extensions, .ppEnabledExtensionNames = extensions,
    }, NULL, &instance->handle);
    if (r != VK_SUCCESS) {
        *instance = (struct vkm_instance){0};
        if (r == VK_ERROR_INCOMPATIBLE_DRIVER) return vkm_fail(err, VKM_ERR_NO_DEVICE, "no Vulkan driver is installed");
        return vkm_fail_vk(NULL, err, r, "creating a Vulkan instance");
    }
    instance->api = VKM_API_VERSION;
    load_functions(instance, get, debug_utils);
    if (listen && instance->vkCreateDebugUtilsMessengerEXT)
        instance->vkCreateDebugUtilsMessengerEXT(instance->handle, &messages, NULL, &instance->messenger);
    return VKM_OK;
}

vkm_result vkm_instance_borrow(struct vkm_instance *instance, const vkm_import *import, vkm_error *err)
{
    PFN_vkGetInstanceProcAddr get = import->get_instance_proc_addr ? (PFN_vkGetInstanceProcAddr)import->get_instance_proc_addr : (PFN_vkGetInstanceProcAddr)vkm_vulkan_loader();
    *instance = (struct vkm_instance){.borrowed = true};
    if (!get) return vkm_fail(err, VKM_ERR_NO_DEVICE, "the Vulkan loader was not found (" VKM_VULKAN_LOADER "), and the import has no get_instance_proc_addr");
    if (!import->instance || !import->physical_device) return vkm_fail(err, VKM_ERR_ARGUMENT, "the import has no %s", import->instance ? "physical device" : "instance");
    if (import->api_version < VK_API_VERSION_1_1)
        return vkm_fail(err, VKM_ERR_UNSUPPORTED, "the import's instance has Vulkan %u.%u (api_version), 1.1 is needed", VK_API_VERSION_MAJOR(import->api_version), VK_API_VERSION_MINOR(import->api_version));
    instance->handle = import->instance;
    instance->api = import->api_version < VKM_API_VERSION ? import->api_version : VKM_API_VERSION;
    load_functions(instance, get, true);       /* those of an extension that is not enabled are NULL */
    if (!instance->vkGetDeviceProcAddr || !instance->vkGetPhysicalDeviceFeatures2) return vkm_fail(err, VKM_ERR_VULKAN, "the import's get_instance_proc_addr does not know its instance");
    return VKM_OK;
}

void vkm_instance_destroy(struct vkm_instance *instance)
{
    if (instance->borrowed) return;
    if (instance->messenger) instance->vkDestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    if (instance->handle) instance->vkDestroyInstance(instance->handle, NULL);
    *instance = (struct vkm_instance){0};
}
