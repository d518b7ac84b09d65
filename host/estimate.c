/* What buffers will take, before they are made. */
#include "internal.h"

VkBufferCreateInfo vkm_buffer_info(const vkm_device *device, uint64_t bytes)
{
    return (VkBufferCreateInfo){
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = vkm_align(bytes, 16),      /* kernels view it as uvec4[] */
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (device->caps.scalar_loads ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0) | (device->caps.texel_loads ? VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT : 0),
    };
}

void vkm_whole_atoms(const vkm_device *device, enum vkm_buffer_kind kind, VkMemoryRequirements *needs)
{
    if (kind != VKM_BUFFER_READBACK && !device->caps.unified_memory) return;
    needs->size = vkm_align(needs->size, device->offer.atom);
    if (needs->alignment < device->offer.atom) needs->alignment = device->offer.atom;   /* both are powers of two */
}

vkm_result vkm_buffer_needs(vkm_device *device, enum vkm_buffer_kind kind, uint64_t bytes, uint64_t *needs, vkm_error *err)
{
    VkBuffer buffer;
    VkMemoryRequirements r;
    VkBufferCreateInfo info = vkm_buffer_info(device, bytes);
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    VkResult vr = device->vk.vkCreateBuffer(device->handle, &info, device->allocator, &buffer);   /* takes no memory */
    if (vr != VK_SUCCESS) return vkm_fail_vk(device, err, vr, "asking what a buffer of %llu bytes needs", (unsigned long long)bytes);
    device->vk.vkGetBufferMemoryRequirements(device->handle, buffer, &r);
    device->vk.vkDestroyBuffer(device->handle, buffer, device->allocator);
    vkm_whole_atoms(device, kind, &r);
    *needs = r.size;
    return VKM_OK;
}
