/* Buffers, each with an allocation of its own from the first memory type that has room, or with what the import's hooks give. */
#include "internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCAL    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
#define VISIBLE  VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT
#define COHERENT VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
#define CACHED   VK_MEMORY_PROPERTY_HOST_CACHED_BIT
/* Needs a feature, a flag or a use that we do not have. */
#define NEVER (VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT | VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | \
               VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD | VK_MEMORY_PROPERTY_RDMA_CAPABLE_BIT_NV)

/* Preferences, best first; a type that fits several counts at the first. The last ones keep us running, slower, where device memory is full. */
struct preference { VkMemoryPropertyFlags with, without; };
static const struct preference device_memory[] = {{LOCAL, VISIBLE}, {LOCAL, 0}, {0, 0}};
static const struct preference unified_memory[] = {{LOCAL | VISIBLE | COHERENT, 0}, {VISIBLE | COHERENT, 0}, {LOCAL, 0}};
static const struct preference readback_memory[] = {{VISIBLE | COHERENT | CACHED, LOCAL}, {VISIBLE | COHERENT | CACHED, 0}, {VISIBLE | CACHED, 0}, {VISIBLE | COHERENT, 0}};

static uint32_t types_like(const VkPhysicalDeviceMemoryProperties *memory, uint32_t allowed, const struct preference *p)
{
    uint32_t types = 0;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        VkMemoryPropertyFlags flags = memory->memoryTypes[i].propertyFlags;
        if ((allowed >> i & 1) && !(flags & NEVER) && (flags & p->with) == p->with && !(flags & p->without)) types |= 1u << i;
    }
    return types;
}

uint64_t vkm_device_allocated(const vkm_device *device)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < VK_MAX_MEMORY_HEAPS; i++) sum += device->allocated[i];
    return sum;
}

uint64_t vkm_device_budget(const vkm_device *device)
{
    uint32_t heap = device->offer.largest_heap;
    uint64_t size = device->caps.heap_bytes, used = device->allocated[heap];
    uint64_t left = size > used ? size - used : 0;
    if (device->hooks.available) {
        uint64_t other = device->hooks.available(device->hooks.user);
        if (other < left) left = other;
    } else if (device->caps.memory_budget) {
        VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
        device->instance.vkGetPhysicalDeviceMemoryProperties2(device->offer.physical,
            &(VkPhysicalDeviceMemoryProperties2){.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2, .pNext = &budget});
        uint64_t other = budget.heapBudget[heap] > budget.heapUsage[heap] ? budget.heapBudget[heap] - budget.heapUsage[heap] : 0;
        if (budget.heapBudget[heap] && other < left) left = other;
    }
    return left;
}

/* heap= is about what kernels use, wherever that ends up, and about the device's memory. */
static bool has_room(const vkm_device *device, enum vkm_buffer_kind kind, uint32_t type, uint64_t bytes)
{
    uint32_t heap = device->offer.memory.memoryTypes[type].heapIndex;
    bool limited = kind != VKM_BUFFER_READBACK || device->offer.memory.memoryHeaps[heap].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
    return !limited || (device->allocated[heap] <= device->heap_limit && bytes <= device->heap_limit - device->allocated[heap]);
}

static VkResult allocate_whole(vkm_device *device, const VkMemoryRequirements *needs, uint32_t type, bool map, vkm_memory *memory)
{
    VkDeviceMemory handle;
    VkResult r = device->vk.vkAllocateMemory(device->handle, &(VkMemoryAllocateInfo){
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = device->caps.scalar_loads ? &(VkMemoryAllocateFlagsInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT} : NULL,
        .allocationSize = needs->size, .memoryTypeIndex = type}, device->allocator, &handle);
    void *at = NULL;
    if (r == VK_SUCCESS && map && (r = device->vk.vkMapMemory(device->handle, handle, 0, VK_WHOLE_SIZE, 0, &at)) != VK_SUCCESS) device->vk.vkFreeMemory(device->handle, handle, device->allocator);
    if (r == VK_SUCCESS) *memory = (vkm_memory){.memory = (uint64_t)handle, .type = type, .map = at};
    return r;
}

static void free_memory(vkm_device *device, const vkm_memory *memory)
{
    if (device->hooks.allocate) device->hooks.release(device->hooks.user, memory);
    else device->vk.vkFreeMemory(device->handle, (VkDeviceMemory)memory->memory, device->allocator);   /* unmaps too */
}

/* VKM_OK, or what is wrong with what the caller's hook gave, which is then released. */
static vkm_result check_given(vkm_device *device, const vkm_memory_request *request, const vkm_memory *m, vkm_error *err)
{
    const char *why = !m->memory ? "no memory" : m->type >= 32 || !(request->types >> m->type & 1) ? "memory of a type that was not asked for"
                    : m->offset % request->alignment ? "memory at an offset that is not aligned" : request->map && !m->map ? "memory that is not mapped" : NULL;
    if (!why) return VKM_OK;
    if (m->memory) free_memory(device, m);
    return vkm_fail(err, VKM_ERR_ARGUMENT, "the import's hook gave buffer %s %s", request->name, why);
}

/* Memory of the best preference that has room. */
static vkm_result allocate(vkm_buffer *b, enum vkm_buffer_kind kind, const VkMemoryRequirements *needs, const struct preference *wanted, size_t n, vkm_error *err)
{
    vkm_device *device = b->device;
    const VkPhysicalDeviceMemoryProperties *memory = &device->offer.memory;
    uint32_t allowed = needs->memoryTypeBits;
    VkResult r = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    vkm_memory got = {0};
    bool map = false;
    for (size_t w = 0; w < n && r == VK_ERROR_OUT_OF_DEVICE_MEMORY; w++) {
        uint32_t types = types_like(memory, allowed, &wanted[w]);
        map = kind == VKM_BUFFER_READBACK || (device->caps.unified_memory && wanted[w].with & COHERENT);
        allowed &= ~types;
        for (uint32_t i = 0; i < memory->memoryTypeCount; i++)
            if ((types >> i & 1) && !has_room(device, kind, i, needs->size)) types &= ~(1u << i);
        if (types && device->hooks.allocate) {
            const vkm_memory_request request = {.size = needs->size, .alignment = needs->alignment, .types = types, .flags = wanted[w].with, .avoid = wanted[w].without, .map = map,
                                                .device_address = device->caps.scalar_loads, .name = b->name};
            r = device->hooks.allocate(device->hooks.user, &request, &got);
            vkm_result given = r == VK_SUCCESS ? check_given(device, &request, &got, err) : VKM_OK;
            if (given) return given;
        } else for (uint32_t i = 0; i < memory->memoryTypeCount && r == VK_ERROR_OUT_OF_DEVICE_MEMORY; i++)
            if (types >> i & 1) r = allocate_whole(device, needs, i, map, &got);
    }
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return vkm_fail(err, VKM_ERR_DEVICE_MEMORY, "%s has no room for buffer %s of %llu bytes (budget %llu, allocated %llu)", device->caps.device_name,
                        b->name, (unsigned long long)needs->size, (unsigned long long)vkm_device_budget(device), (unsigned long long)vkm_device_allocated(device));
    if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "allocating buffer %s of %llu bytes", b->name, (unsigned long long)b->bytes);
    b->memory = got;
    b->map = map ? got.map : NULL;             /* allocators may have blocks mapped that nobody asked to */
    b->coherent = memory->memoryTypes[got.type].propertyFlags & COHERENT;
    b->heap = memory->memoryTypes[got.type].heapIndex;
    b->allocated = needs->size;
    device->allocated[b->heap] += needs->size;
    return VKM_OK;
}

static vkm_result fill_buffer(vkm_buffer *b, enum vkm_buffer_kind kind, vkm_error *err)
{
    vkm_device *device = b->device;
    VkBufferCreateInfo info = vkm_buffer_info(device, b->bytes);
    VkResult r = device->vk.vkCreateBuffer(device->handle, &info, device->allocator, &b->handle);
    if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "making buffer %s of %llu bytes", b->name, (unsigned long long)b->bytes);
    VkMemoryRequirements needs;
    device->vk.vkGetBufferMemoryRequirements(device->handle, b->handle, &needs);
    bool readback = kind == VKM_BUFFER_READBACK, unified = device->caps.unified_memory;
    vkm_whole_atoms(device, kind, &needs);
    vkm_result given = readback ? allocate(b, kind, &needs, readback_memory, VKM_COUNT(readback_memory), err)
                     : unified  ? allocate(b, kind, &needs, unified_memory, VKM_COUNT(unified_memory), err)
                                : allocate(b, kind, &needs, device_memory, VKM_COUNT(device_memory), err);
    if (given) return given;
    r = device->vk.vkBindBufferMemory(device->handle, b->handle, (VkDeviceMemory)b->memory.memory, b->memory.offset);
    if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "binding buffer %s of %llu bytes to its memory", b->name, (unsigned long long)b->bytes);
    vkm_object_name(device, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->handle, b->name);
    return VKM_OK;
}

vkm_result vkm_buffer_create(vkm_device *device, enum vkm_buffer_kind kind, uint64_t bytes, const char *name, vkm_buffer **buffer, vkm_error *err)
{
    if (!name) name = "unnamed";
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    if (!bytes) return vkm_fail(err, VKM_ERR_ARGUMENT, "buffer %s has no bytes", name);
    uint64_t most = kind == VKM_BUFFER_READBACK ? device->offer.max_allocation : device->caps.storage_range;
    if (bytes > most)
        return vkm_fail(err, VKM_ERR_LIMIT, "buffer %s of %llu bytes is larger than %s's %s of %llu", name, (unsigned long long)bytes, device->caps.device_name,
                        kind == VKM_BUFFER_READBACK ? "maxMemoryAllocationSize" : "storage range", (unsigned long long)most);
    vkm_buffer *b = calloc(1, sizeof *b);
    if (!b) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making buffer %s", name);
    b->device = device;
    b->bytes = bytes;
    snprintf(b->name, sizeof b->name, "%s", name);
    vkm_result r = fill_buffer(b, kind, err);
    if (r) vkm_buffer_destroy(b);
    else *buffer = b;
    return r;
}

void vkm_buffer_destroy(vkm_buffer *b)
{
    if (!b) return;
    vkm_device *device = b->device;
    if (b->allocated) vkm_queue_idle(device, NULL);
    device->vk.vkDestroyBuffer(device->handle, b->handle, device->allocator);
    if (b->allocated) free_memory(device, &b->memory);
    device->allocated[b->heap] -= b->allocated;
    free(b);
}

uint64_t vkm_buffer_size(const vkm_buffer *buffer) { return buffer->bytes; }

uint64_t vkm_buffer_address(const vkm_buffer *b)
{
    if (!b->device->caps.scalar_loads) return 0;
    return b->device->vk.vkGetBufferDeviceAddress(b->device->handle, &(VkBufferDeviceAddressInfo){.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, .buffer = b->handle});
}

void *vkm_buffer_map(vkm_buffer *buffer) { return buffer->map; }

/* [offset, offset + bytes) in whole atoms: what was allocated begins and ends with one. */
static VkMappedMemoryRange atoms(const vkm_buffer *b, uint64_t offset, uint64_t bytes)
{
    uint64_t atom = b->device->offer.atom, begin = offset / atom * atom, end = vkm_align(offset + bytes, atom);
    return (VkMappedMemoryRange){.sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = (VkDeviceMemory)b->memory.memory, .offset = b->memory.offset + begin, .size = end - begin};
}

static vkm_result check_mapped(const vkm_buffer *b, uint64_t offset, uint64_t bytes, vkm_error *err)
{
    if (!b->map) return vkm_fail(err, VKM_ERR_ARGUMENT, "buffer %s is not mapped", b->name);
    if (offset > b->bytes || bytes > b->bytes - offset)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "%llu bytes at %llu are outside buffer %s", (unsigned long long)bytes, (unsigned long long)offset, b->name);
    return VKM_OK;
}

vkm_result vkm_buffer_invalidate(vkm_buffer *b, uint64_t offset, uint64_t bytes, vkm_error *err)
{
    vkm_result r = check_mapped(b, offset, bytes, err);
    if (r || b->coherent || !bytes) return r;
    VkMappedMemoryRange range = atoms(b, offset, bytes);
    VkResult vr = b->device->vk.vkInvalidateMappedMemoryRanges(b->device->handle, 1, &range);
    return vr == VK_SUCCESS ? VKM_OK : vkm_fail_vk(b->device, err, vr, "reading buffer %s", b->name);
}

vkm_result vkm_buffer_flush(vkm_buffer *b, uint64_t offset, uint64_t bytes, vkm_error *err)
{
    vkm_result r = check_mapped(b, offset, bytes, err);
    if (r || b->coherent || !bytes) return r;
    VkMappedMemoryRange range = atoms(b, offset, bytes);
    VkResult vr = b->device->vk.vkFlushMappedMemoryRanges(b->device->handle, 1, &range);
    return vr == VK_SUCCESS ? VKM_OK : vkm_fail_vk(b->device, err, vr, "writing buffer %s", b->name);
}
