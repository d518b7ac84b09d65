/* A caller (caller.h) with a buffer and command buffers, whose device's functions count how often vkmoe calls them. */
#ifndef VKM_TESTS_COUNTED_H
#define VKM_TESTS_COUNTED_H

#include "caller.h"

#define COUNTED_BYTES (4u << 20)

/* ---------------------------------------------------------------- what is counted: everything that makes, allocates, describes, maps, submits or waits */

#define COUNTED_CALLS(X)                                                                                                                                                                  \
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

#define X(type, name, parameters, arguments) static PFN_vk##name counted_real_##name; static uint32_t counted_n_##name; \
    static VKAPI_ATTR type VKAPI_CALL counted_call_##name parameters { counted_n_##name++; return counted_real_##name arguments; }
COUNTED_CALLS(X)
#undef X

/* Calls so far, all together. */
static inline uint32_t counted_calls(void)
{
    uint32_t n = 0;
#define X(type, name, parameters, arguments) n += counted_n_##name;
    COUNTED_CALLS(X)
#undef X
    return n;
}

static PFN_vkGetInstanceProcAddr counted_get_instance;
static PFN_vkGetDeviceProcAddr counted_get_device;

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL counted_proc_device(VkDevice device, const char *name)
{
    PFN_vkVoidFunction real = counted_get_device(device, name);
#define X(type, known, parameters, arguments) if (real && (!strcmp(name, "vk" #known) || !strcmp(name, "vk" #known "KHR"))) { counted_real_##known = (PFN_vk##known)real; return (PFN_vkVoidFunction)counted_call_##known; }
    COUNTED_CALLS(X)
#undef X
    return real;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL counted_proc_instance(VkInstance instance, const char *name)
{
    PFN_vkVoidFunction real = counted_get_instance(instance, name);
    if (strcmp(name, "vkGetDeviceProcAddr") || !real) return real;
    counted_get_device = (PFN_vkGetDeviceProcAddr)real;
    return (PFN_vkVoidFunction)counted_proc_device;
}

/* ---------------------------------------------------------------- the program */

struct counted {
    struct caller caller;
    VkCommandPool pool;
    VkBuffer buffer;                       /* what the tests read and write; coherent */
    VkDeviceMemory memory;
    char *map;
    vkm_device *vkm;
    struct driver_log log;
};

static inline void counted_open_buffer(struct counted *c)
{
    VkPhysicalDeviceMemoryProperties memory;
    VkMemoryRequirements needs;
    uint32_t type = 0;
    const VkMemoryPropertyFlags flags = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    cr_assert_eq(CALLER_VK(&c->caller, CreateBuffer)(c->caller.device, &(VkBufferCreateInfo){.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = COUNTED_BYTES, .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT}, NULL, &c->buffer), VK_SUCCESS);
    CALLER_VK(&c->caller, GetBufferMemoryRequirements)(c->caller.device, c->buffer, &needs);
    CALLER_VK(&c->caller, GetPhysicalDeviceMemoryProperties)(c->caller.physical, &memory);
    while (!(needs.memoryTypeBits >> type & 1) || (memory.memoryTypes[type].propertyFlags & flags) != flags) type++;
    cr_assert_eq(CALLER_VK(&c->caller, AllocateMemory)(c->caller.device, &(VkMemoryAllocateInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = needs.size, .memoryTypeIndex = type}, NULL, &c->memory), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(&c->caller, BindBufferMemory)(c->caller.device, c->buffer, c->memory, 0), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(&c->caller, MapMemory)(c->caller.device, c->memory, 0, VK_WHOLE_SIZE, 0, (void **)&c->map), VK_SUCCESS);
}

/* vkmoe is clamped by caps. */
static inline void counted_open(struct counted *c, const char *caps)
{
    memset(c, 0, sizeof *c);
    caller_open_instance(&c->caller, VK_API_VERSION_1_3);
    caller_want(&c->caller);
    cr_assert_eq(CALLER_VK(&c->caller, CreateCommandPool)(c->caller.device, &(VkCommandPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = c->caller.family}, NULL, &c->pool), VK_SUCCESS);
    counted_open_buffer(c);
    counted_get_instance = c->caller.get;
    c->caller.import.get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))counted_proc_instance;
    c->vkm = caller_import(&c->caller, caps, &c->log);
}

static inline void counted_close(struct counted *c)
{
    cr_expect_eq(vkm_device_allocated(c->vkm), 0);
    vkm_device_destroy(c->vkm);
    CALLER_VK(&c->caller, DestroyBuffer)(c->caller.device, c->buffer, NULL);
    CALLER_VK(&c->caller, FreeMemory)(c->caller.device, c->memory, NULL);
    CALLER_VK(&c->caller, DestroyCommandPool)(c->caller.device, c->pool, NULL);
    caller_close(&c->caller);
    cr_expect_eq(c->log.n_errors, 0, "%s", c->log.text);
}

static inline VkCommandBuffer counted_begin(const struct counted *c)
{
    VkCommandBuffer commands;
    cr_assert_eq(CALLER_VK(&c->caller, AllocateCommandBuffers)(c->caller.device, &(VkCommandBufferAllocateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = c->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = 1}, &commands), VK_SUCCESS);
    cr_assert_eq(CALLER_VK(&c->caller, BeginCommandBuffer)(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO}), VK_SUCCESS);
    return commands;
}

/* Submits, `times` times, and waits. */
static inline void counted_end(const struct counted *c, VkCommandBuffer commands, uint32_t times)
{
    cr_assert_eq(CALLER_VK(&c->caller, EndCommandBuffer)(commands), VK_SUCCESS);
    for (uint32_t i = 0; i < times; i++) {
        cr_assert_eq(CALLER_VK(&c->caller, QueueSubmit)(c->caller.queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands}, VK_NULL_HANDLE), VK_SUCCESS);
        cr_assert_eq(CALLER_VK(&c->caller, QueueWaitIdle)(c->caller.queue), VK_SUCCESS);
    }
    CALLER_VK(&c->caller, FreeCommandBuffers)(c->caller.device, c->pool, 1, &commands);
}

#endif
