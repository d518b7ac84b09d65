/* Commands that join the library's buffers with a caller's, in the caller's command buffer. */
#include "internal.h"

#define REGIONS 64   /* of one copy command */

void vkm_record_begin(vkm_device *device, void *commands, bool others)
{
    if (!others) {
        vkm_full_barrier(device, commands);
        return;
    }
    device->vk.vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1,
        &(VkMemoryBarrier){.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
                           .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT}, 0, NULL, 0, NULL);
}

void vkm_record_end(vkm_device *device, void *commands)
{
    device->vk.vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
        &(VkMemoryBarrier){.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                           .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT}, 0, NULL, 0, NULL);
}

void vkm_record_barrier(vkm_device *device, void *commands) { vkm_full_barrier(device, commands); }

void vkm_record_rows(vkm_device *device, void *commands, const struct vkm_foreign_rows *r, bool out)
{
    uint64_t row = r->row_bytes, pitch = r->foreign_pitch, own_pitch = r->own_pitch, n = r->rows;
    if (pitch == row && own_pitch == row) row *= n, n = n ? 1 : 0;      /* all in one piece */
    VkBuffer foreign = (VkBuffer)(uintptr_t)r->foreign, from = out ? r->own->handle : foreign, to = out ? foreign : r->own->handle;
    VkBufferCopy regions[REGIONS];
    for (uint64_t first = 0; first < n; first += REGIONS) {
        uint32_t count = n - first < REGIONS ? (uint32_t)(n - first) : REGIONS;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t theirs = r->foreign_offset + (first + i) * pitch, ours = r->own_offset + (first + i) * own_pitch;
            regions[i] = (VkBufferCopy){.srcOffset = out ? ours : theirs, .dstOffset = out ? theirs : ours, .size = row};
        }
        device->vk.vkCmdCopyBuffer(commands, from, to, count, regions);
    }
}

void vkm_record_fill(vkm_device *device, void *commands, vkm_buffer *to, uint64_t offset, uint64_t bytes, uint32_t word)
{
    device->vk.vkCmdFillBuffer(commands, to->handle, offset, bytes, word);
}
