/* Work recorded into somebody else's command buffer. */
#include "internal.h"
#include <assert.h>

void vkm_program_record_into(vkm_program *p, void *commands, uint32_t first, uint32_t end)
{
    assert(p->finished && first <= end && end <= p->n_ops);
    vkm_device *device = p->device;
    VkDescriptorSet set = VK_NULL_HANDLE;
    VkPipeline pipeline = VK_NULL_HANDLE;
    bool copies = false;
    vkm_full_barrier(device, commands);
    for (uint32_t i = first; i < end; i++) {
        const struct vkm_op *op = &p->ops[i];
        copies |= op->is_copy;
        if (op->barrier && i > first) vkm_op_barrier(p, commands, i, copies, false);
        if (op->is_copy) {
            vkm_op_copy(device, commands, op);
            continue;
        }
        vkm_step_bind(device, commands, &op->step, &set, &pipeline);
        vkm_step_record(device, commands, &op->step, vkm_step_axis(&op->step), 0, op->step.groups[vkm_step_axis(&op->step)]);
    }
    vkm_full_barrier(device, commands);
    vkm_host_barrier(device, commands);
}
