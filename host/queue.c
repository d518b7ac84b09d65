/* One queue and one timeline: submitting, waiting, and the small commands that go between programs. */
#include "internal.h"
#include <stdlib.h>
#include <string.h>

#define STAGES (VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT)
#define WRITES (VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT)

static void barrier(vkm_device *device, VkCommandBuffer commands, VkPipelineStageFlags to, VkAccessFlags access)
{
    device->vk.vkCmdPipelineBarrier(commands, STAGES, to, 0, 1,
        &(VkMemoryBarrier){.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = WRITES, .dstAccessMask = access}, 0, NULL, 0, NULL);
}

void vkm_full_barrier(vkm_device *device, VkCommandBuffer commands)
{
    barrier(device, commands, STAGES | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT,
            WRITES | VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_INDIRECT_COMMAND_READ_BIT);
}

void vkm_host_barrier(vkm_device *device, VkCommandBuffer commands)
{
    barrier(device, commands, VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT);
}

vkm_result vkm_queue_create(vkm_device *device, vkm_error *err)
{
    if (!device->borrowed) device->vk.vkGetDeviceQueue(device->handle, device->offer.queue_family, 0, &device->queue);
    VkResult r = device->vk.vkCreateSemaphore(device->handle, &(VkSemaphoreCreateInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = &(VkSemaphoreTypeCreateInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO, .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE},
    }, device->allocator, &device->timeline);
    if (r == VK_SUCCESS)
        r = device->vk.vkCreateCommandPool(device->handle, &(VkCommandPoolCreateInfo){
            .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
            .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT | VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
            .queueFamilyIndex = device->offer.queue_family}, device->allocator, &device->pool);
    VkCommandBuffer commands[VKM_TRANSIENTS];
    if (r == VK_SUCCESS)
        r = device->vk.vkAllocateCommandBuffers(device->handle, &(VkCommandBufferAllocateInfo){
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = device->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = VKM_TRANSIENTS}, commands);
    if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "making the command queue of %s", device->caps.device_name);
    vkm_object_name(device, VK_OBJECT_TYPE_SEMAPHORE, (uint64_t)device->timeline, "timeline");
    for (uint32_t i = 0; i < VKM_TRANSIENTS; i++) {
        device->transients[i].commands = commands[i];
        vkm_object_name(device, VK_OBJECT_TYPE_COMMAND_BUFFER, (uint64_t)commands[i], "transfers");
    }
    return VKM_OK;
}

void vkm_queue_destroy(vkm_device *device)
{
    if (!device->borrowed) device->vk.vkDeviceWaitIdle(device->handle);   /* also right after a loss: it returns at once */
    else vkm_queue_idle(device, NULL);             /* for others' work only they wait */
    device->vk.vkDestroyCommandPool(device->handle, device->pool, device->allocator);
    device->vk.vkDestroySemaphore(device->handle, device->timeline, device->allocator);
}

/* ------------------------------------------------ waiting */

/* Shorter work says more about submission than about the device. */
#define PROBE_SECONDS 0.005

void vkm_speed_start(vkm_device *device, uint64_t ticket, double seconds)
{
    device->probe.ticket = seconds >= PROBE_SECONDS ? ticket : 0;   /* tickets start at 1 */
    device->probe.start_ns = vkm_now_ns();
    device->probe.seconds = seconds;
}

/* A late wait makes the device look slower than it is, which is the safe side; half of what was seen leaves room for slower kernels. */
static void speed_end(vkm_device *device)
{
    double elapsed = (double)(vkm_now_ns() - device->probe.start_ns) * 1e-9;
    double seen = 0.5 * device->probe.seconds / (elapsed > 1e-6 ? elapsed : 1e-6);
    device->speed = seen < 0.125 ? 0.125 : seen > 1000 ? 1000 : seen;
    device->probe.ticket = 0;
}

static vkm_result wait_value(vkm_device *device, uint64_t value, vkm_error *err)
{
    if (value <= device->completed) return VKM_OK;
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    VkResult r = device->vk.vkWaitSemaphores(device->handle, &(VkSemaphoreWaitInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, .semaphoreCount = 1, .pSemaphores = &device->timeline, .pValues = &value}, UINT64_MAX);
    if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "waiting for %s, the last program was %s", device->caps.device_name, *device->last_program ? device->last_program : "none");
    device->completed = value;
    if (value == device->probe.ticket) speed_end(device);
    return VKM_OK;
}

static uint64_t poll_value(vkm_device *device)
{
    if (device->lost || device->completed == device->submitted) return device->completed;
    uint64_t value = 0;
    VkResult r = device->vk.vkGetSemaphoreCounterValue(device->handle, device->timeline, &value);
    if (r != VK_SUCCESS) vkm_fail_vk(device, NULL, r, "polling %s", device->caps.device_name);
    else if (value > device->completed && value <= device->submitted) device->completed = value;   /* a lost device may report UINT64_MAX */
    return device->completed;
}

vkm_result vkm_wait(vkm_device *device, uint64_t ticket, vkm_error *err)
{
    if (ticket > device->submitted) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_wait: ticket %llu was not given yet", (unsigned long long)ticket);
    return wait_value(device, ticket, err);
}

/* On a lost device true, so that who polls goes on to vkm_wait and is told. */
bool vkm_done(vkm_device *device, uint64_t ticket) { return ticket <= device->completed || ticket <= poll_value(device) || device->lost; }

bool vkm_queue_is_idle(vkm_device *device) { return !device->transient_open && !device->waits.n && poll_value(device) == device->submitted; }

vkm_result vkm_queue_idle(vkm_device *device, vkm_error *err)
{
    uint64_t ticket;
    vkm_result r = vkm_queue_flush(device, &ticket, err);
    return r ? r : wait_value(device, ticket, err);
}

/* ------------------------------------------------ submitting */

/* Also signals `also`, if any, with its value. */
static vkm_result submit(vkm_device *device, VkSubmitInfo *infos, uint32_t n, VkSemaphore also, uint64_t also_value, uint64_t *ticket, vkm_error *err)
{
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    struct vkm_transient *open = device->transient_open ? &device->transients[device->transient] : NULL;
    VkResult r = VK_SUCCESS;
    if (open) {
        vkm_host_barrier(device, open->commands);
        r = device->vk.vkEndCommandBuffer(open->commands);
        infos[0] = (VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &open->commands};
    }
    uint64_t value = device->submitted + 1;
    uint32_t first = open ? 0 : 1;
    VkPipelineStageFlags stages[VKM_WAITS];
    for (uint32_t i = 0; i < device->waits.n; i++) stages[i] = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    /* The first batch waits, the last signals; they may be one. */
    VkTimelineSemaphoreSubmitInfo begin = {.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO}, end = begin, *ends = first == n ? &begin : &end;
    begin.waitSemaphoreValueCount = infos[first].waitSemaphoreCount = device->waits.n;
    begin.pWaitSemaphoreValues = device->waits.values;
    infos[first].pWaitSemaphores = device->waits.semaphores;
    infos[first].pWaitDstStageMask = stages;
    if (device->waits.n) infos[first].pNext = &begin;
    ends->signalSemaphoreValueCount = infos[n].signalSemaphoreCount = also ? 2 : 1;
    ends->pSignalSemaphoreValues = (uint64_t[]){value, also_value};
    infos[n].pSignalSemaphores = (VkSemaphore[]){device->timeline, also};
    infos[n].pNext = ends;
    if (device->lock) device->lock(device->lock_user);
    if (r == VK_SUCCESS) r = device->vk.vkQueueSubmit(device->queue, n + 1 - first, infos + first, VK_NULL_HANDLE);
    if (device->unlock) device->unlock(device->lock_user);
    if (open) {   /* submitted, or unusable after a failure: either way this one is closed */
        device->transient_open = false;
        device->transient = (device->transient + 1) % VKM_TRANSIENTS;
        open->ticket = r == VK_SUCCESS ? value : device->submitted;
    }
    if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "submitting work to %s", device->caps.device_name);
    device->submitted = value;
    device->waits.n = 0;
    if (ticket) *ticket = value;
    return VKM_OK;
}

vkm_result vkm_queue_submit(vkm_device *device, VkSubmitInfo *infos, uint32_t n, uint64_t *ticket, vkm_error *err)
{
    return submit(device, infos, n, VK_NULL_HANDLE, 0, ticket, err);
}

vkm_result vkm_queue_flush(vkm_device *device, uint64_t *ticket, vkm_error *err)
{
    if (device->transient_open) {
        VkSubmitInfo infos[1];
        vkm_result r = vkm_queue_submit(device, infos, 0, NULL, err);
        if (r) return r;
    }
    *ticket = device->submitted;
    return VKM_OK;
}

vkm_result vkm_transient_begin(vkm_device *device, VkCommandBuffer *commands, vkm_error *err)
{
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    struct vkm_transient *t = &device->transients[device->transient];
    if (!device->transient_open) {
        vkm_result r = wait_value(device, t->ticket, err);
        if (r) return r;
        VkResult vr = device->vk.vkBeginCommandBuffer(t->commands, &(VkCommandBufferBeginInfo){
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT});
        if (vr != VK_SUCCESS) return vkm_fail_vk(device, err, vr, "starting a command buffer of %s", device->caps.device_name);
        device->transient_open = true;
    }
    vkm_full_barrier(device, t->commands);
    *commands = t->commands;
    return VKM_OK;
}

/* ------------------------------------------------ the caller's semaphores */

static vkm_result check_semaphore(const vkm_device *device, uint64_t semaphore, const char *function, vkm_error *err)
{
    if (!device) return vkm_fail(err, VKM_ERR_ARGUMENT, "%s: device is NULL", function);
    if (!device->borrowed) return vkm_fail(err, VKM_ERR_ARGUMENT, "%s: the device is not an imported one, so nobody else has a semaphore of it", function);
    if (!semaphore) return vkm_fail(err, VKM_ERR_ARGUMENT, "%s: there is no semaphore", function);
    return vkm_device_alive(device, err);
}

vkm_result vkm_device_wait_for(vkm_device *device, uint64_t semaphore, uint64_t value, vkm_error *err)
{
    vkm_result r = check_semaphore(device, semaphore, "vkm_device_wait_for", err);
    if (r) return r;
    uint32_t i = 0;
    while (i < device->waits.n && device->waits.semaphores[i] != (VkSemaphore)semaphore) i++;
    if (i == VKM_WAITS) return vkm_fail(err, VKM_ERR_LIMIT, "vkm_device_wait_for: the next submission waits for %d semaphores already", VKM_WAITS);
    if (i < device->waits.n && device->waits.values[i] >= value) return VKM_OK;
    device->waits.semaphores[i] = (VkSemaphore)semaphore;
    device->waits.values[i] = value;
    if (i == device->waits.n) device->waits.n++;
    return VKM_OK;
}

/* A signal operation covers all that comes before it in submission order, so that an empty batch will do. */
vkm_result vkm_device_signal(vkm_device *device, uint64_t semaphore, uint64_t value, vkm_error *err)
{
    vkm_result r = check_semaphore(device, semaphore, "vkm_device_signal", err);
    VkSubmitInfo infos[2] = {[1] = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO}};
    return r ? r : submit(device, infos, 1, (VkSemaphore)semaphore, value, NULL, err);
}

/* ------------------------------------------------ small commands */

vkm_result vkm_workspace_write(vkm_device *device, vkm_buffer *to, uint64_t offset, const void *data, uint64_t bytes, vkm_error *err)
{
    if (bytes > 65536 || bytes % 4 || offset % 4 || offset > to->bytes || bytes > to->bytes - offset)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "writing %llu bytes at %llu of %s (%llu bytes): not words inside it, or more than 65536",
                        (unsigned long long)bytes, (unsigned long long)offset, to->name, (unsigned long long)to->bytes);
    if (!bytes) return VKM_OK;
    if (to->map && vkm_queue_is_idle(device)) {   /* nothing reads it now, and a later submission sees what the host wrote before */
        vkm_result alive = vkm_device_alive(device, err);
        if (alive) return alive;
        memcpy((char *)to->map + offset, data, bytes);
        return vkm_buffer_flush(to, offset, bytes, err);
    }
    VkCommandBuffer commands = VK_NULL_HANDLE;
    vkm_result r = vkm_transient_begin(device, &commands, err);
    if (r) return r;
    device->vk.vkCmdUpdateBuffer(commands, to->handle, offset, bytes, data);
    return VKM_OK;
}

vkm_result vkm_buffer_clear(vkm_device *device, vkm_buffer *buffer, vkm_error *err)
{
    VkCommandBuffer commands = VK_NULL_HANDLE;
    vkm_result r = vkm_transient_begin(device, &commands, err);
    if (r) return r;
    device->vk.vkCmdFillBuffer(commands, buffer->handle, 0, VK_WHOLE_SIZE, 0);
    return VKM_OK;
}

vkm_result vkm_buffer_copy(vkm_device *device, vkm_buffer *from, vkm_buffer *to, const struct vkm_part *parts, uint32_t n, vkm_error *err)
{
    VkCommandBuffer commands = VK_NULL_HANDLE;
    for (uint32_t i = 0; i < n; i++)
        if (parts[i].from > from->bytes || parts[i].bytes > from->bytes - parts[i].from || parts[i].to > to->bytes || parts[i].bytes > to->bytes - parts[i].to)
            return vkm_fail(err, VKM_ERR_ARGUMENT, "copying %llu bytes from %s at %llu to %s at %llu", (unsigned long long)parts[i].bytes, from->name, (unsigned long long)parts[i].from,
                            to->name, (unsigned long long)parts[i].to);
    vkm_result r = vkm_transient_begin(device, &commands, err);
    for (uint32_t i = 0; !r && i < n; i++)
        if (parts[i].bytes)
            device->vk.vkCmdCopyBuffer(commands, from->handle, to->handle, 1, &(VkBufferCopy){.srcOffset = parts[i].from, .dstOffset = parts[i].to, .size = parts[i].bytes});
    return r;
}
