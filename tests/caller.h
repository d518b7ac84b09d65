/* A program with a Vulkan instance, device, queue, command buffers and memory of its own, under the validation layer, that gives its device to vkmoe. What vkmoe calls goes through
 * functions that count: see CALLER_COUNTED. */
#ifndef VKM_TESTS_CALLER_H
#define VKM_TESTS_CALLER_H

#include "driver.h"
#include <dlfcn.h>
#include <vulkan/vulkan.h>

#define CALLER_BYTES (4u << 20)

struct caller {
    PFN_vkGetInstanceProcAddr get;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    VkCommandPool pool;
    VkBuffer buffer;                       /* what the tests read and write; coherent */
    VkDeviceMemory memory;
    char *map;
    uint32_t family, messages;
    vkm_wanted *wanted;
    vkm_device *vkm;
    struct driver_log log;
};
#define CALLER_VK(c, name) ((PFN_vk##name)(c)->get((c)->instance, "vk" #name))

/* ---------------------------------------------------------------- what is counted: everything that makes, allocates, describes, maps, submits or waits */

#define CALLER_COUNTED(X)                                                                                                                                                                  \
    X(VkResult, AllocateMemory, (VkDevice d, const VkMemoryAllocateInfo *i, const VkAllocationCallbacks *a, VkDeviceMemory *o), (d, i, a, o))                                              \
    X(VkResult, MapMemory, (VkDevice d, VkDeviceMemory m, VkDeviceSize o, VkDeviceSize n, VkMemoryMapFlags f, void **p), (d, m, o, n, f, p))                                               \
    X(VkResult, CreateBuffer, (VkDevice d, const VkBufferCreateInfo *i, const VkAllocationCallbacks *a, VkBuffer *o), (d, i, a, o))                                                        \
    X(VkResult, CreateSemaphore, (VkDevice d, const VkSemaphoreCreateInfo *i, const VkAllocationCallbacks *a, VkSemaphore *o), (d, i, a, o))                                               \
    X(VkResult, CreateCommandPool, (VkDevice d, const VkCommandPoolCreateInfo *i, const VkAllocationCallbacks *a, VkCommandPool *o), (d, i, a, o))                                         \
    X(VkResult, CreateQueryPool, (VkDevice d, const VkQueryPoolCreateInfo *i, const VkAllocationCallbacks *a, VkQueryPool *o), (d, i, a, o))                                               \
    X(VkResult, CreateShaderModule, (VkDevice d, const VkShaderModuleCreateInfo *i, const VkAllocationCallbacks *a, VkShaderModule *o), (d, i, a, o))                                      \
    X(VkResult, CreateComputePipelines, (VkDevice d, VkPipelineCache c, uint32_t n, const VkComputePipelineCreateInfo *i, const VkAllocationCallbacks *a, VkPipeline *o), (d, c, n, i, a, o)) \
    X(VkResult, CreatePipelineCache, (VkDevice d, const VkPipelineCacheCreateInfo *i, const VkAllocationCallbacks *a, VkPipelineCache *o), (d, i, a, o))                                   \
    X(VkResult, CreatePipelineLayout, (VkDevice d, const VkPipelineLayoutCreateInfo *i, const VkAllocationCallbacks *a, VkPipelineLayout *o), (d, i, a, o))                                \
    X(VkResult, CreateDescriptorSetLayout, (VkDevice d, const VkDescriptorSetLayoutCreateInfo *i, const VkAllocationCallbacks *a, VkDescriptorSetLayout *o), (d, i, a, o))                 \
    X(VkResult, CreateDescriptorPool, (VkDevice d, const VkDescriptorPoolCreateInfo *i, const VkAllocationCallbacks *a, VkDescriptorPool *o), (d, i, a, o))                                \
    X(VkResult, AllocateDescriptorSets, (VkDevice d, const VkDescriptorSetAllocateInfo *i, VkDescriptorSet *o), (d, i, o))                                                                 \
    X(void, UpdateDescriptorSets, (VkDevice d, uint32_t n, const VkWriteDescriptorSet *w, uint32_t m, const VkCopyDescriptorSet *c), (d, n, w, m, c))                                      \
    X(VkResult, AllocateCommandBuffers, (VkDevice d, const VkCommandBufferAllocateInfo *i, VkCommandBuffer *o), (d, i, o))                                                                 \
    X(VkResult, BeginCommandBuffer, (VkCommandBuffer c, const VkCommandBufferBeginInfo *i), (c, i))                                                                                        \
    X(VkResult, EndCommandBuffer, (VkCommandBuffer c), (c))                                                                                                                                \
    X(VkResult, QueueSubmit, (VkQueue q, uint32_t n, const VkSubmitInfo *i, VkFence f), (q, n, i, f))                                                                                      \
    X(VkResult, QueueWaitIdle, (VkQueue q), (q))                                                                                                                                           \
    X(VkResult, DeviceWaitIdle, (VkDevice d), (d))                                                                                                                                         \
    X(VkResult, WaitSemaphores, (VkDevice d, const VkSemaphoreWaitInfo *i, uint64_t t), (d, i, t))                                                                                         \
    X(VkResult, GetSemaphoreCounterValue, (VkDevice d, VkSemaphore s, uint64_t *v), (d, s, v))

#define X(type, name, parameters, arguments) static PFN_vk##name caller_real_##name; static uint32_t caller_n_##name; \
    static VKAPI_ATTR type VKAPI_CALL caller_##name parameters { caller_n_##name++; return caller_real_##name arguments; }
CALLER_COUNTED(X)
#undef X

/* Calls so far, all together. */
static inline uint32_t caller_calls(void)
{
    uint32_t n = 0;
#define X(type, name, parameters, arguments) n += caller_n_##name;
    CALLER_COUNTED(X)
#undef X
    return n;
}

static PFN_vkGetInstanceProcAddr caller_get_instance;
static PFN_vkGetDeviceProcAddr caller_get_device;

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL caller_counting_device(VkDevice device, const char *name)
{
    PFN_vkVoidFunction real = caller_get_device(device, name);
#define X(type, known, parameters, arguments) if (real && (!strcmp(name, "vk" #known) || !strcmp(name, "vk" #known "KHR"))) { caller_real_##known = (PFN_vk##known)real; return (PFN_vkVoidFunction)caller_##known; }
    CALLER_COUNTED(X)
#undef X
    return real;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL caller_counting_instance(VkInstance instance, const char *name)
{
    PFN_vkVoidFunction real = caller_get_instance(instance, name);
    if (strcmp(name, "vkGetDeviceProcAddr") || !real) return real;
    caller_get_device = (PFN_vkGetDeviceProcAddr)real;
    return (PFN_vkVoidFunction)caller_counting_device;
}

/* ---------------------------------------------------------------- the program */

static VKAPI_ATTR VkBool32 VKAPI_CALL caller_on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT kinds, const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    struct caller *c = user;
    (void)severity, (void)kinds;
    if (strstr(data->pMessage, "pName is trying to grab")) return VK_FALSE;      /* see host/instance.c */
    c->messages++;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

static inline void caller_open_instance(struct caller *c)
{
    vkm_device_info info;
    vkm_device *device = driver_open(NULL, &c->log);             /* which physical device the other suites test */
    vkm_device_get_info(device, &info);
    driver_close(device, &c->log);
    void *loader = dlopen("libvulkan.so.1", RTLD_NOW);
    cr_assert(loader);
    c->get = (PFN_vkGetInstanceProcAddr)dlsym(loader, "vkGetInstanceProcAddr");
    VkDebugUtilsMessengerCreateInfoEXT messages = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT, .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = caller_on_message, .pUserData = c};
    cr_assert_eq(CALLER_VK(c, CreateInstance)(&(VkInstanceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pNext = &messages, .pApplicationInfo = &(VkApplicationInfo){.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3},
        .enabledLayerCount = 1, .ppEnabledLayerNames = (const char *[]){"VK_LAYER_KHRONOS_validation"}, .enabledExtensionCount = 1, .ppEnabledExtensionNames = (const char *[]){VK_EXT_DEBUG_UTILS_EXTENSION_NAME},
    }, NULL, &c->instance), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(c, CreateDebugUtilsMessengerEXT)(c->instance, &messages, NULL, &c->messenger), VK_SUCCESS);
    VkPhysicalDevice all[16];
    uint32_t n = 16;
    cr_assert(CALLER_VK(c, EnumeratePhysicalDevices)(c->instance, &n, all) >= 0 && info.index < n);
    c->physical = all[info.index];
}

static inline void caller_open_buffer(struct caller *c)
{
    VkPhysicalDeviceMemoryProperties memory;
    VkMemoryRequirements needs;
    uint32_t type = 0;
    const VkMemoryPropertyFlags flags = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    cr_assert_eq(CALLER_VK(c, CreateBuffer)(c->device, &(VkBufferCreateInfo){.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = CALLER_BYTES, .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT}, NULL, &c->buffer), VK_SUCCESS);
    CALLER_VK(c, GetBufferMemoryRequirements)(c->device, c->buffer, &needs);
    CALLER_VK(c, GetPhysicalDeviceMemoryProperties)(c->physical, &memory);
    while (!(needs.memoryTypeBits >> type & 1) || (memory.memoryTypes[type].propertyFlags & flags) != flags) type++;
    cr_assert_eq(CALLER_VK(c, AllocateMemory)(c->device, &(VkMemoryAllocateInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = needs.size, .memoryTypeIndex = type}, NULL, &c->memory), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(c, BindBufferMemory)(c->device, c->buffer, c->memory, 0), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(c, MapMemory)(c->device, c->memory, 0, VK_WHOLE_SIZE, 0, (void **)&c->map), VK_SUCCESS);
}

/* The device with all that vkmoe can use, and vkmoe on it, clamped by caps. */
static inline void caller_open(struct caller *c, const char *caps)
{
    vkm_error err = {0};
    memset(c, 0, sizeof *c);
    caller_open_instance(c);
    caller_get_instance = c->get;
    vkm_import import = {.struct_size = sizeof import, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))caller_counting_instance, .api_version = VK_API_VERSION_1_3,
                         .instance = c->instance, .physical_device = c->physical};
    OK(vkm_wanted_create(&import, &c->wanted, &err));
    cr_assert(c->wanted->usable, "%s", c->wanted->unusable_why);
    c->family = c->wanted->queue_family;
    cr_assert_eq(CALLER_VK(c, CreateDevice)(c->physical, &(VkDeviceCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = c->wanted->features, .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &(VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = c->family, .queueCount = 1, .pQueuePriorities = &(float){1}},
        .enabledExtensionCount = c->wanted->n_extensions, .ppEnabledExtensionNames = c->wanted->extensions}, NULL, &c->device), VK_SUCCESS);
    CALLER_VK(c, GetDeviceQueue)(c->device, c->family, 0, &c->queue);
    cr_assert_eq(CALLER_VK(c, CreateCommandPool)(c->device, &(VkCommandPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = c->family}, NULL, &c->pool), VK_SUCCESS);
    caller_open_buffer(c);
    import.device = c->device, import.queue = c->queue, import.queue_family = c->family;
    import.features = c->wanted->features, import.extensions = c->wanted->extensions, import.n_extensions = c->wanted->n_extensions;
    c->log = (struct driver_log){0};
    c->log.all = (vkm_text){c->log.text, sizeof c->log.text, 0};
    const vkm_device_params params = {.struct_size = sizeof params, .caps = caps, .import = &import, .log = driver_on_log, .log_user = &c->log};
    OK(vkm_device_create(&params, &c->vkm, &err));
}

/* All that vkmoe left behind on the device would be told by the layer. */
static inline void caller_close(struct caller *c)
{
    cr_expect_eq(vkm_device_allocated(c->vkm), 0);
    vkm_device_destroy(c->vkm);
    vkm_wanted_destroy(c->wanted);
    CALLER_VK(c, DestroyBuffer)(c->device, c->buffer, NULL);
    CALLER_VK(c, FreeMemory)(c->device, c->memory, NULL);
    CALLER_VK(c, DestroyCommandPool)(c->device, c->pool, NULL);
    CALLER_VK(c, DestroyDevice)(c->device, NULL);
    CALLER_VK(c, DestroyDebugUtilsMessengerEXT)(c->instance, c->messenger, NULL);
    CALLER_VK(c, DestroyInstance)(c->instance, NULL);
    cr_expect_eq(c->messages, 0);
    cr_expect_eq(c->log.n_errors, 0, "%s", c->log.text);
}

static inline VkCommandBuffer caller_begin(struct caller *c)
{
    VkCommandBuffer commands;
    cr_assert_eq(CALLER_VK(c, AllocateCommandBuffers)(c->device, &(VkCommandBufferAllocateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = c->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = 1}, &commands), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(c, BeginCommandBuffer)(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO}), VK_SUCCESS);
    return commands;
}

/* Submits, `times` times, and waits. */
static inline void caller_end(struct caller *c, VkCommandBuffer commands, uint32_t times)
{
    cr_assert_eq(CALLER_VK(c, EndCommandBuffer)(commands), VK_SUCCESS);
    for (uint32_t i = 0; i < times; i++) {
        cr_assert_eq(CALLER_VK(c, QueueSubmit)(c->queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands}, VK_NULL_HANDLE), VK_SUCCESS);
        cr_assert_eq(CALLER_VK(c, QueueWaitIdle)(c->queue), VK_SUCCESS);
    }
    CALLER_VK(c, FreeCommandBuffers)(c->device, c->pool, 1, &commands);
}

#endif
