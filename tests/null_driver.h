/* A Vulkan driver made of function pointers, for what a true one cannot show: that nothing is left behind, that every call may fail, that memory which is not coherent is flushed where it should be,
 * and races of ours among threads, which drivers that are not instrumented would hide or invent. Copies, updates and fills are carried out when they are submitted; shaders do nothing.
 * What is done against Vulkan's rules is told in `wrong`. It is imported (null_import); two are two instances. No Criterion: also for the program that runs under ThreadSanitizer. */
#ifndef VKM_TESTS_NULL_DRIVER_H
#define VKM_TESTS_NULL_DRIVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vkmoe.h>
#include <vulkan/vulkan_core.h>
#if !defined(_WIN32)
#  include <sys/mman.h>
#  define NULL_LARGE (1u << 20)
#endif

struct null_driver {
    /* chosen before null_open; zero is a discrete GPU whose visible memory is coherent */
    uint64_t atom;                             /* nonCoherentAtomSize; 0: 1 */
    bool not_coherent, unified, debug_utils, cpu;   /* cpu: a CPU driver, with texel buffers */
    /* failing: the call number fail_at of those that may, from 1; or, where `lose` is set, of those that may lose the device, which then stays lost */
    int fail_at;
    VkResult fail_with;
    bool lose;

    atomic_int calls, objects, names, labels;  /* calls that could fail; objects that are there */
    atomic_bool lost;
    uint32_t waits, signals;                   /* of the caller's semaphores, ever */
    size_t cache_bytes;                        /* that the last pipeline cache was made with */
    struct null_queue { struct null_driver *driver; uint64_t submissions; } queue;   /* plain: Vulkan's user serialises it */
    pthread_mutex_t mutex;                     /* of what is wrong */
    char wrong[256];
    VkPhysicalDeviceFeatures2 features;
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline;
};

/* Handles are pointers to these. */
struct null_memory { uint64_t size; uint32_t type; uint8_t *device, *host; };   /* one and the same where coherent */
struct null_buffer { uint64_t size; struct null_memory *memory; uint64_t offset; };
struct null_semaphore { atomic_uint_least64_t value; };
struct null_copy { struct null_buffer *from, *to; uint64_t from_offset, to_offset, bytes; uint32_t word; uint8_t *data; };   /* data: an update; no from: a fill */
struct null_commands { struct null_driver *driver; struct null_commands *next; struct null_copy *copies; uint32_t n, capacity; };
struct null_pool { struct null_commands *first; };

/* ---------------------------------------------------------------- account */

static inline void null_wrong(struct null_driver *d, const char *what)
{
    pthread_mutex_lock(&d->mutex);
    if (!d->wrong[0]) snprintf(d->wrong, sizeof d->wrong, "%s", what);
    pthread_mutex_unlock(&d->mutex);
}

/* What a call that may fail comes to. `loses`: it is one that tells of a lost device. */
static inline VkResult null_try(struct null_driver *d, bool loses)
{
    if (loses && atomic_load(&d->lost)) return VK_ERROR_DEVICE_LOST;
    if (d->lose && !loses) return VK_SUCCESS;
    if (atomic_fetch_add(&d->calls, 1) + 1 != d->fail_at) return VK_SUCCESS;
    if (d->lose) atomic_store(&d->lost, true);
    return d->lose ? VK_ERROR_DEVICE_LOST : d->fail_with;
}

static inline void *null_new(struct null_driver *d, size_t bytes)
{
    void *p = calloc(1, bytes);
    if (!p) abort();
    atomic_fetch_add(&d->objects, 1);
    return p;
}

static inline void null_free(struct null_driver *d, void *p)
{
    if (p) atomic_fetch_sub(&d->objects, 1);
    free(p);
}

#define D(handle) ((struct null_driver *)(handle))

/* ---------------------------------------------------------------- the physical device */

static inline void VKAPI_CALL null_GetPhysicalDeviceProperties(VkPhysicalDevice physical, VkPhysicalDeviceProperties *p)
{
    *p = (VkPhysicalDeviceProperties){.apiVersion = VK_API_VERSION_1_2, .driverVersion = 1, .deviceType = D(physical)->cpu ? VK_PHYSICAL_DEVICE_TYPE_CPU : VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, .deviceName = "null driver",
        .limits = {.maxStorageBufferRange = 64 << 20, .maxComputeWorkGroupInvocations = 1024, .maxComputeSharedMemorySize = 32768, .maxComputeWorkGroupSize = {1024, 1024, 64},
                   .maxComputeWorkGroupCount = {65535, 65535, 65535}, .nonCoherentAtomSize = D(physical)->atom ? D(physical)->atom : 1, .optimalBufferCopyOffsetAlignment = 1,
                   .maxPerStageDescriptorStorageBuffers = 64, .maxPerStageDescriptorStorageImages = 8, .maxTexelBufferElements = 64 << 20, .maxDescriptorSetStorageBuffers = 64, .maxPerStageResources = 128}};
}

static inline void VKAPI_CALL null_GetPhysicalDeviceProperties2(VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *p)
{
    null_GetPhysicalDeviceProperties(physical, &p->properties);
    for (VkBaseOutStructure *s = p->pNext; s; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES) ((VkPhysicalDeviceMaintenance3Properties *)s)->maxMemoryAllocationSize = 1 << 30;
}

static inline void VKAPI_CALL null_GetPhysicalDeviceFeatures2(VkPhysicalDevice physical, VkPhysicalDeviceFeatures2 *f)
{
    (void)physical;
    f->features.shaderStorageBufferArrayDynamicIndexing = VK_TRUE;
    for (VkBaseOutStructure *s = f->pNext; s; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES) ((VkPhysicalDeviceTimelineSemaphoreFeatures *)s)->timelineSemaphore = VK_TRUE;
}

/* Type 0 is the device's, type 1 the host's. */
static inline void VKAPI_CALL null_GetPhysicalDeviceMemoryProperties(VkPhysicalDevice physical, VkPhysicalDeviceMemoryProperties *m)
{
    const VkMemoryPropertyFlags visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT | (D(physical)->not_coherent ? 0 : VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    *m = (VkPhysicalDeviceMemoryProperties){.memoryTypeCount = 2, .memoryHeapCount = 2,
        .memoryTypes = {{VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | (D(physical)->unified ? visible : 0), 0}, {visible, 1}},
        .memoryHeaps = {{1 << 30, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT}, {1 << 30, D(physical)->unified ? VK_MEMORY_HEAP_DEVICE_LOCAL_BIT : 0}}};
}

static inline void VKAPI_CALL null_GetPhysicalDeviceMemoryProperties2(VkPhysicalDevice physical, VkPhysicalDeviceMemoryProperties2 *m) { null_GetPhysicalDeviceMemoryProperties(physical, &m->memoryProperties); }

static inline void VKAPI_CALL null_GetPhysicalDeviceQueueFamilyProperties(VkPhysicalDevice physical, uint32_t *n, VkQueueFamilyProperties *p)
{
    (void)physical;
    if (p && *n) *p = (VkQueueFamilyProperties){.queueFlags = VK_QUEUE_COMPUTE_BIT, .queueCount = 2};
    *n = 1;
}

static inline void VKAPI_CALL null_GetPhysicalDeviceFormatProperties(VkPhysicalDevice physical, VkFormat format, VkFormatProperties *p)
{
    (void)format;
    *p = (VkFormatProperties){.bufferFeatures = D(physical)->cpu ? VK_FORMAT_FEATURE_STORAGE_TEXEL_BUFFER_BIT : 0};
}

static inline VkResult VKAPI_CALL null_EnumerateDeviceExtensionProperties(VkPhysicalDevice physical, const char *layer, uint32_t *n, VkExtensionProperties *p)
{
    (void)physical, (void)layer, (void)p;
    *n = 0;
    return VK_SUCCESS;
}

/* ---------------------------------------------------------------- memory */

/* Zeros. Large ones are rings of which little is used: a sanitizer's malloc would touch a part of all of it. */
static inline uint8_t *null_bytes(uint64_t n)
{
    void *p = NULL;
#if !defined(_WIN32)
    if (n >= NULL_LARGE && (p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) abort();
#endif
    if (!p && !(p = calloc(1, n))) abort();
    return p;
}
static inline void null_bytes_free(uint8_t *p, uint64_t n)
{
#if !defined(_WIN32)
    if (n >= NULL_LARGE) {
        munmap(p, n);
        return;
    }
#endif
    (void)n;
    free(p);
}

static inline VkResult VKAPI_CALL null_AllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info, const VkAllocationCallbacks *a, VkDeviceMemory *out)
{
    (void)a;
    VkResult r = null_try(D(device), false);
    if (r) return r;
    struct null_memory *m = null_new(D(device), sizeof *m);
    *m = (struct null_memory){.size = info->allocationSize, .type = info->memoryTypeIndex, .device = null_bytes(info->allocationSize)};
    VkPhysicalDeviceMemoryProperties p;
    null_GetPhysicalDeviceMemoryProperties((VkPhysicalDevice)device, &p);
    m->host = p.memoryTypes[m->type].propertyFlags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT ? m->device : null_bytes(info->allocationSize);
    *out = (VkDeviceMemory)m;
    return VK_SUCCESS;
}

static inline void VKAPI_CALL null_FreeMemory(VkDevice device, VkDeviceMemory handle, const VkAllocationCallbacks *a)
{
    struct null_memory *m = (struct null_memory *)handle;
    (void)a;
    if (!m) return;
    if (m->host != m->device) null_bytes_free(m->host, m->size);
    null_bytes_free(m->device, m->size);
    null_free(D(device), m);
}

static inline VkResult VKAPI_CALL null_MapMemory(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset, VkDeviceSize size, VkMemoryMapFlags flags, void **out)
{
    (void)size, (void)flags;
    struct null_memory *m = (struct null_memory *)memory;
    VkPhysicalDeviceMemoryProperties p;
    null_GetPhysicalDeviceMemoryProperties((VkPhysicalDevice)device, &p);
    if (!(p.memoryTypes[m->type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)) null_wrong(D(device), "memory was mapped that the host does not see");
    VkResult r = null_try(D(device), false);
    if (!r) *out = m->host + offset;
    return r;
}

static inline VkResult null_sync(struct null_driver *d, uint32_t n, const VkMappedMemoryRange *ranges, bool flush)
{
    VkResult r = null_try(d, false);
    for (uint32_t i = 0; !r && i < n; i++) {
        struct null_memory *m = (struct null_memory *)ranges[i].memory;
        uint64_t atom = d->atom ? d->atom : 1, at = ranges[i].offset, size = ranges[i].size == VK_WHOLE_SIZE && at <= m->size ? m->size - at : ranges[i].size;
        if (at > m->size || size > m->size - at) { null_wrong(d, "a flush or invalidation is outside its memory"); continue; }
        if (at % atom || (size % atom && at + size != m->size)) null_wrong(d, "a flush or invalidation is not of whole atoms");
        if (flush) memmove(m->device + at, m->host + at, size);
        else memmove(m->host + at, m->device + at, size);
    }
    return r;
}
static inline VkResult VKAPI_CALL null_FlushMappedMemoryRanges(VkDevice device, uint32_t n, const VkMappedMemoryRange *ranges) { return null_sync(D(device), n, ranges, true); }
static inline VkResult VKAPI_CALL null_InvalidateMappedMemoryRanges(VkDevice device, uint32_t n, const VkMappedMemoryRange *ranges) { return null_sync(D(device), n, ranges, false); }

static inline VkResult VKAPI_CALL null_CreateBuffer(VkDevice device, const VkBufferCreateInfo *info, const VkAllocationCallbacks *a, VkBuffer *out)
{
    (void)a;
    VkResult r = null_try(D(device), false);
    if (r) return r;
    struct null_buffer *b = null_new(D(device), sizeof *b);
    b->size = info->size;
    *out = (VkBuffer)b;
    return VK_SUCCESS;
}

#define NULL_ALIGNMENT 32
static inline void VKAPI_CALL null_GetBufferMemoryRequirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *needs)
{
    (void)device;
    *needs = (VkMemoryRequirements){.size = ((struct null_buffer *)buffer)->size, .alignment = NULL_ALIGNMENT, .memoryTypeBits = 3};
}

static inline VkResult VKAPI_CALL null_BindBufferMemory(VkDevice device, VkBuffer buffer, VkDeviceMemory memory, VkDeviceSize offset)
{
    struct null_buffer *b = (struct null_buffer *)buffer;
    VkResult r = null_try(D(device), false);
    if (r) return r;
    b->memory = (struct null_memory *)memory;
    b->offset = offset;
    if (offset % NULL_ALIGNMENT || offset > b->memory->size || b->size > b->memory->size - offset) null_wrong(D(device), "a buffer is bound to memory that does not hold it");
    return VK_SUCCESS;
}

/* ---------------------------------------------------------------- command buffers */

static inline VkResult VKAPI_CALL null_AllocateCommandBuffers(VkDevice device, const VkCommandBufferAllocateInfo *info, VkCommandBuffer *out)
{
    VkResult r = null_try(D(device), false);
    for (uint32_t i = 0; !r && i < info->commandBufferCount; i++) {
        struct null_pool *pool = (struct null_pool *)info->commandPool;
        struct null_commands *c = null_new(D(device), sizeof *c);
        c->driver = D(device);
        c->next = pool->first;
        pool->first = c;
        out[i] = (VkCommandBuffer)c;
    }
    return r;
}

static inline void null_reset(struct null_commands *c)
{
    for (uint32_t i = 0; i < c->n; i++) free(c->copies[i].data);
    c->n = 0;
}

static inline void null_commands_free(struct null_commands *c)
{
    null_reset(c);
    free(c->copies);
    null_free(c->driver, c);
}

static inline void VKAPI_CALL null_FreeCommandBuffers(VkDevice device, VkCommandPool pool, uint32_t n, const VkCommandBuffer *all)
{
    (void)device;
    for (uint32_t i = 0; i < n; i++)
        for (struct null_commands **at = &((struct null_pool *)pool)->first; *at; at = &(*at)->next)
            if (*at == (struct null_commands *)all[i]) {
                *at = (*at)->next;
                null_commands_free((struct null_commands *)all[i]);
                break;
            }
}

static inline void VKAPI_CALL null_DestroyCommandPool(VkDevice device, VkCommandPool handle, const VkAllocationCallbacks *a)
{
    struct null_pool *pool = (struct null_pool *)handle;
    (void)a;
    while (pool && pool->first) {
        struct null_commands *c = pool->first;
        pool->first = c->next;
        null_commands_free(c);
    }
    null_free(D(device), pool);
}

static inline VkResult VKAPI_CALL null_ResetCommandPool(VkDevice device, VkCommandPool pool, VkCommandPoolResetFlags flags) { (void)pool, (void)flags; return null_try(D(device), false); }

static inline VkResult VKAPI_CALL null_BeginCommandBuffer(VkCommandBuffer commands, const VkCommandBufferBeginInfo *info)
{
    (void)info;
    null_reset((struct null_commands *)commands);
    return null_try(((struct null_commands *)commands)->driver, false);
}
static inline VkResult VKAPI_CALL null_EndCommandBuffer(VkCommandBuffer commands) { return null_try(((struct null_commands *)commands)->driver, false); }

static inline void null_record(VkCommandBuffer commands, struct null_copy copy)
{
    struct null_commands *c = (struct null_commands *)commands;
    if (c->n == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 8;
        if (!(c->copies = realloc(c->copies, c->capacity * sizeof copy))) abort();
    }
    if (copy.to_offset > copy.to->size || copy.bytes > copy.to->size - copy.to_offset || (copy.from && (copy.from_offset > copy.from->size || copy.bytes > copy.from->size - copy.from_offset)))
        null_wrong(c->driver, "a copy, an update or a fill is outside its buffer");
    else c->copies[c->n++] = copy;
}

static inline void VKAPI_CALL null_CmdCopyBuffer(VkCommandBuffer c, VkBuffer from, VkBuffer to, uint32_t n, const VkBufferCopy *r)
{
    for (uint32_t i = 0; i < n; i++)
        null_record(c, (struct null_copy){.from = (struct null_buffer *)from, .to = (struct null_buffer *)to, .from_offset = r[i].srcOffset, .to_offset = r[i].dstOffset, .bytes = r[i].size});
}
static inline void VKAPI_CALL null_CmdUpdateBuffer(VkCommandBuffer c, VkBuffer to, VkDeviceSize offset, VkDeviceSize bytes, const void *data)
{
    uint8_t *copy = malloc(bytes);
    if (!copy) abort();
    memcpy(copy, data, bytes);
    null_record(c, (struct null_copy){.to = (struct null_buffer *)to, .to_offset = offset, .bytes = bytes, .data = copy});
}
static inline void VKAPI_CALL null_CmdFillBuffer(VkCommandBuffer c, VkBuffer to, VkDeviceSize offset, VkDeviceSize bytes, uint32_t word)
{
    struct null_buffer *b = (struct null_buffer *)to;
    null_record(c, (struct null_copy){.to = b, .to_offset = offset, .bytes = bytes == VK_WHOLE_SIZE && offset <= b->size ? (b->size - offset) / 4 * 4 : bytes, .word = word});
}
static inline void VKAPI_CALL null_CmdPipelineBarrier(VkCommandBuffer c, VkPipelineStageFlags from, VkPipelineStageFlags to, VkDependencyFlags flags, uint32_t n, const VkMemoryBarrier *memory, uint32_t n_buffers,
                                                      const VkBufferMemoryBarrier *buffers, uint32_t n_images, const VkImageMemoryBarrier *images)
{ (void)c, (void)from, (void)to, (void)flags, (void)n, (void)memory, (void)n_buffers, (void)buffers, (void)n_images, (void)images; }
static inline void VKAPI_CALL null_CmdBindPipeline(VkCommandBuffer c, VkPipelineBindPoint point, VkPipeline pipeline) { (void)point; if (!pipeline) null_wrong(((struct null_commands *)c)->driver, "no pipeline is bound"); }
static inline void VKAPI_CALL null_CmdBindDescriptorSets(VkCommandBuffer c, VkPipelineBindPoint point, VkPipelineLayout layout, uint32_t first, uint32_t n, const VkDescriptorSet *sets, uint32_t n_offsets, const uint32_t *offsets)
{ (void)c, (void)point, (void)layout, (void)first, (void)n, (void)sets, (void)n_offsets, (void)offsets; }
static inline void VKAPI_CALL null_CmdPushConstants(VkCommandBuffer c, VkPipelineLayout layout, VkShaderStageFlags stages, uint32_t offset, uint32_t size, const void *values)
{ (void)c, (void)layout, (void)stages, (void)offset, (void)size, (void)values; }
static inline void VKAPI_CALL null_CmdDispatch(VkCommandBuffer c, uint32_t x, uint32_t y, uint32_t z) { (void)c, (void)x, (void)y, (void)z; }
static inline void VKAPI_CALL null_CmdDispatchBase(VkCommandBuffer c, uint32_t bx, uint32_t by, uint32_t bz, uint32_t x, uint32_t y, uint32_t z) { (void)c, (void)bx, (void)by, (void)bz, (void)x, (void)y, (void)z; }
static inline void VKAPI_CALL null_CmdDispatchIndirect(VkCommandBuffer c, VkBuffer buffer, VkDeviceSize offset) { (void)c, (void)buffer, (void)offset; }
static inline void VKAPI_CALL null_CmdResetQueryPool(VkCommandBuffer c, VkQueryPool pool, uint32_t first, uint32_t n) { (void)c, (void)pool, (void)first, (void)n; }
static inline void VKAPI_CALL null_CmdWriteTimestamp(VkCommandBuffer c, VkPipelineStageFlagBits stage, VkQueryPool pool, uint32_t i) { (void)c, (void)stage, (void)pool, (void)i; }
static inline void VKAPI_CALL null_CmdBeginDebugUtilsLabelEXT(VkCommandBuffer c, const VkDebugUtilsLabelEXT *label) { (void)label; atomic_fetch_add(&((struct null_commands *)c)->driver->labels, 1); }
static inline void VKAPI_CALL null_CmdEndDebugUtilsLabelEXT(VkCommandBuffer c) { (void)c; }

/* ---------------------------------------------------------------- the queue */

static inline void null_run(const struct null_copy *k)
{
    uint8_t *to = k->to->memory->device + k->to->offset + k->to_offset;
    if (k->from) memmove(to, k->from->memory->device + k->from->offset + k->from_offset, k->bytes);
    else if (k->data) memcpy(to, k->data, k->bytes);
    else for (uint64_t i = 0; i + 4 <= k->bytes; i += 4) memcpy(to + i, &k->word, 4);
}

static inline VkResult VKAPI_CALL null_QueueSubmit(VkQueue handle, uint32_t n, const VkSubmitInfo *infos, VkFence fence)
{
    struct null_queue *queue = (struct null_queue *)handle;
    struct null_driver *d = queue->driver;
    (void)fence;
    queue->submissions++;
    VkResult r = null_try(d, true);
    for (uint32_t i = 0; !r && i < n; i++) {
        const VkTimelineSemaphoreSubmitInfo *values = infos[i].pNext;
        for (uint32_t k = 0; k < infos[i].waitSemaphoreCount; k++) {
            if (atomic_load(&((struct null_semaphore *)infos[i].pWaitSemaphores[k])->value) < values->pWaitSemaphoreValues[k]) null_wrong(d, "a submission waits for what was not signalled yet");
            d->waits++;
        }
        for (uint32_t k = 0; k < infos[i].commandBufferCount; k++) {
            const struct null_commands *c = (const struct null_commands *)infos[i].pCommandBuffers[k];
            for (uint32_t j = 0; j < c->n; j++) null_run(&c->copies[j]);
        }
        if (infos[i].signalSemaphoreCount > 1) d->signals++;
        for (uint32_t k = 0; k < infos[i].signalSemaphoreCount; k++) atomic_store(&((struct null_semaphore *)infos[i].pSignalSemaphores[k])->value, values->pSignalSemaphoreValues[k]);
    }
    return r;
}
static inline VkResult VKAPI_CALL null_QueueWaitIdle(VkQueue queue) { return null_try(((struct null_queue *)queue)->driver, true); }
static inline VkResult VKAPI_CALL null_DeviceWaitIdle(VkDevice device) { null_wrong(D(device), "vkDeviceWaitIdle is for the whole device"); return null_try(D(device), true); }

static inline VkResult VKAPI_CALL null_CreateSemaphore(VkDevice device, const VkSemaphoreCreateInfo *info, const VkAllocationCallbacks *a, VkSemaphore *out)
{
    (void)info, (void)a;
    VkResult r = null_try(D(device), false);
    if (!r) *out = (VkSemaphore)null_new(D(device), sizeof(struct null_semaphore));
    return r;
}
static inline VkResult VKAPI_CALL null_WaitSemaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout)
{
    (void)timeout;
    VkResult r = null_try(D(device), true);
    for (uint32_t i = 0; !r && i < info->semaphoreCount; i++)   /* all that was submitted is done */
        if (atomic_load(&((struct null_semaphore *)info->pSemaphores[i])->value) < info->pValues[i]) r = VK_TIMEOUT;
    return r;
}
static inline VkResult VKAPI_CALL null_GetSemaphoreCounterValue(VkDevice device, VkSemaphore semaphore, uint64_t *value)
{
    *value = atomic_load(&((struct null_semaphore *)semaphore)->value);
    return null_try(D(device), true);
}

/* ---------------------------------------------------------------- objects that are only counted */

#define NULL_OBJECT(Type)                                                                                                                                \
    static inline VkResult VKAPI_CALL null_Create##Type(VkDevice device, const Vk##Type##CreateInfo *info, const VkAllocationCallbacks *a, Vk##Type *out) \
    {                                                                                                                                                    \
        (void)info, (void)a;                                                                                                                             \
        VkResult r = null_try(D(device), false);                                                                                                         \
        if (!r) *out = (Vk##Type)null_new(D(device), sizeof(struct null_pool));                                                                          \
        return r;                                                                                                                                        \
    }
#define NULL_DESTROY(Type) static inline void VKAPI_CALL null_Destroy##Type(VkDevice device, Vk##Type object, const VkAllocationCallbacks *a) { (void)a; null_free(D(device), (void *)object); }
#define NULL_COUNTED(X) X(BufferView) X(QueryPool) X(ShaderModule) X(PipelineLayout) X(DescriptorSetLayout) X(DescriptorPool)
NULL_COUNTED(NULL_OBJECT)
NULL_OBJECT(CommandPool)
NULL_COUNTED(NULL_DESTROY)
NULL_DESTROY(PipelineCache)
NULL_DESTROY(Semaphore)
NULL_DESTROY(Buffer)
NULL_DESTROY(Pipeline)
#undef NULL_OBJECT
#undef NULL_DESTROY

static inline VkResult VKAPI_CALL null_CreateComputePipelines(VkDevice device, VkPipelineCache cache, uint32_t n, const VkComputePipelineCreateInfo *infos, const VkAllocationCallbacks *a, VkPipeline *out)
{
    (void)cache, (void)infos, (void)a;
    VkResult r = null_try(D(device), false);
    for (uint32_t i = 0; i < n; i++) out[i] = r ? VK_NULL_HANDLE : (VkPipeline)null_new(D(device), 1);
    return r;
}
static inline VkResult VKAPI_CALL null_CreatePipelineCache(VkDevice device, const VkPipelineCacheCreateInfo *info, const VkAllocationCallbacks *a, VkPipelineCache *out)
{
    (void)a;
    VkResult r = null_try(D(device), false);
    if (r) return r;
    D(device)->cache_bytes = info->initialDataSize;
    *out = (VkPipelineCache)null_new(D(device), 1);
    return r;
}
static inline VkResult VKAPI_CALL null_GetPipelineCacheData(VkDevice device, VkPipelineCache cache, size_t *n, void *data)
{
    (void)cache;
    VkResult r = null_try(D(device), false);
    if (!r && data) memset(data, 0x5a, *n < 100 ? *n : 100);
    if (!r) *n = 100;
    return r;
}
static inline VkResult VKAPI_CALL null_AllocateDescriptorSets(VkDevice device, const VkDescriptorSetAllocateInfo *info, VkDescriptorSet *sets)   /* go with their pool */
{
    VkResult r = null_try(D(device), false);
    for (uint32_t i = 0; !r && i < info->descriptorSetCount; i++) sets[i] = (VkDescriptorSet)info->descriptorPool;
    return r;
}
static inline void VKAPI_CALL null_UpdateDescriptorSets(VkDevice device, uint32_t n, const VkWriteDescriptorSet *writes, uint32_t n_copies, const VkCopyDescriptorSet *copies)
{ (void)device, (void)n, (void)writes, (void)n_copies, (void)copies; }
static inline VkResult VKAPI_CALL null_GetQueryPoolResults(VkDevice device, VkQueryPool pool, uint32_t first, uint32_t n, size_t bytes, void *data, VkDeviceSize stride, VkQueryResultFlags flags)
{
    (void)pool, (void)first, (void)n, (void)stride, (void)flags;
    memset(data, 0, bytes);
    return null_try(D(device), true);
}
static inline VkResult VKAPI_CALL null_SetDebugUtilsObjectNameEXT(VkDevice device, const VkDebugUtilsObjectNameInfoEXT *info)
{
    if (strncmp(info->pObjectName, "vkmoe ", 6)) null_wrong(D(device), "a name does not say whose the object is");
    atomic_fetch_add(&D(device)->names, 1);
    return VK_SUCCESS;
}
static inline VkResult VKAPI_CALL null_CreateDebugUtilsMessengerEXT(VkInstance instance, const VkDebugUtilsMessengerCreateInfoEXT *info, const VkAllocationCallbacks *a, VkDebugUtilsMessengerEXT *out)
{
    (void)info, (void)a, (void)out;
    null_wrong(D(instance), "a messenger was made on the caller's instance");
    return VK_ERROR_OUT_OF_HOST_MEMORY;
}
static inline void VKAPI_CALL null_DestroyDevice(VkDevice device, const VkAllocationCallbacks *a) { (void)a; null_wrong(D(device), "the caller's device was destroyed"); }
static inline void VKAPI_CALL null_DestroyInstance(VkInstance instance, const VkAllocationCallbacks *a) { (void)a; null_wrong(D(instance), "the caller's instance was destroyed"); }
static inline void VKAPI_CALL null_GetDeviceQueue(VkDevice device, uint32_t family, uint32_t index, VkQueue *queue) { (void)family, (void)index; *queue = (VkQueue)&D(device)->queue; }

/* ---------------------------------------------------------------- finding them */

static inline PFN_vkVoidFunction null_find(const struct null_driver *d, const char *name)
{
#define F(name) {"vk" #name, (PFN_vkVoidFunction)null_##name},
#define F2(Type) F(Create##Type) F(Destroy##Type)
    static const struct { const char *name; PFN_vkVoidFunction function; } all[] = {
        F(GetPhysicalDeviceProperties) F(GetPhysicalDeviceProperties2) F(GetPhysicalDeviceFeatures2) F(GetPhysicalDeviceMemoryProperties) F(GetPhysicalDeviceMemoryProperties2)
        F(GetPhysicalDeviceQueueFamilyProperties) F(GetPhysicalDeviceFormatProperties) F(EnumerateDeviceExtensionProperties) F(DestroyInstance) F(DestroyDevice) F(GetDeviceQueue)
        F(QueueSubmit) F(QueueWaitIdle) F(DeviceWaitIdle) F2(Buffer) F(GetBufferMemoryRequirements) F(AllocateMemory) F(FreeMemory) F(BindBufferMemory) F(MapMemory)
        F(FlushMappedMemoryRanges) F(InvalidateMappedMemoryRanges) F2(Semaphore) F(WaitSemaphores) F(GetSemaphoreCounterValue) F2(CommandPool) F(ResetCommandPool)
        F(AllocateCommandBuffers) F(FreeCommandBuffers) F(BeginCommandBuffer) F(EndCommandBuffer) F(CmdPipelineBarrier) F(CmdCopyBuffer) F(CmdUpdateBuffer) F(CmdFillBuffer)
        F(CmdBindPipeline) F(CmdBindDescriptorSets) F(CmdPushConstants) F(CmdDispatch) F(CmdDispatchBase) F(CmdDispatchIndirect) F(CmdResetQueryPool) F(CmdWriteTimestamp)
        F(GetQueryPoolResults) F(CreateComputePipelines) F(DestroyPipeline) F2(PipelineCache) F(GetPipelineCacheData) F(AllocateDescriptorSets) F(UpdateDescriptorSets) NULL_COUNTED(F2)};
    static const struct { const char *name; PFN_vkVoidFunction function; } debug[] = {
        F(CreateDebugUtilsMessengerEXT) F(SetDebugUtilsObjectNameEXT) F(CmdBeginDebugUtilsLabelEXT) F(CmdEndDebugUtilsLabelEXT)};
#undef F
#undef F2
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name)) return all[i].function;
    for (size_t i = 0; d->debug_utils && i < sizeof debug / sizeof *debug; i++)
        if (!strcmp(debug[i].name, name)) return debug[i].function;
    return NULL;
}
static inline PFN_vkVoidFunction VKAPI_CALL null_GetDeviceProcAddr(VkDevice device, const char *name) { return null_find(D(device), name); }
static inline vkm_void_fn null_GetInstanceProcAddr(void *instance, const char *name)
{
    return strcmp(name, "vkGetDeviceProcAddr") ? null_find(D(instance), name) : (vkm_void_fn)null_GetDeviceProcAddr;
}

/* Instance, physical device and device are all one. Fields that are zero keep to their defaults. */
static inline void null_open(struct null_driver *d)
{
    pthread_mutex_init(&d->mutex, NULL);
    d->queue.driver = d;
    d->timeline = (VkPhysicalDeviceTimelineSemaphoreFeatures){.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES, .timelineSemaphore = VK_TRUE};
    d->features = (VkPhysicalDeviceFeatures2){.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &d->timeline, .features.shaderStorageBufferArrayDynamicIndexing = VK_TRUE};
}

static inline vkm_import null_import(struct null_driver *d)
{
    return (vkm_import){.struct_size = sizeof(vkm_import), .get_instance_proc_addr = null_GetInstanceProcAddr, .api_version = VK_API_VERSION_1_2, .instance = d, .physical_device = d,
                        .device = d, .queue = &d->queue, .features = &d->features};
}

#undef D
#endif
