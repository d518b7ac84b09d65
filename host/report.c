/* A program as text, and the time of its steps. */
#include "internal.h"
#include <stdlib.h>

static vkm_result read_times(vkm_program *p, VkQueryPool queries, vkm_error *err)
{
    uint64_t *stamps = malloc(2 * (size_t)p->n_ops * sizeof *stamps);
    if (!stamps) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "program %s: reading timestamps", p->name);
    VkResult r = p->device->vk.vkGetQueryPoolResults(p->device->handle, queries, 0, 2 * p->n_ops, 2 * (size_t)p->n_ops * sizeof *stamps, stamps, sizeof *stamps,
                                                     VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    const struct vkm_caps *caps = &p->device->caps;
    uint64_t mask = caps->timestamp_bits < 64 ? (UINT64_C(1) << caps->timestamp_bits) - 1 : UINT64_MAX;
    for (uint32_t i = 0; r == VK_SUCCESS && i < p->n_ops; i++)
        p->ops[i].ns = (uint64_t)((double)((stamps[2 * i + 1] - stamps[2 * i]) & mask) * caps->timestamp_ns);
    free(stamps);
    return r == VK_SUCCESS ? VKM_OK : vkm_fail_vk(p->device, err, r, "program %s: reading timestamps", p->name);
}

vkm_result vkm_program_profile(vkm_program *p, vkm_error *err)
{
    vkm_device *device = p->device;
    vkm_result r = vkm_device_alive(device, err);
    if (r) return r;
    if (!p->finished) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s is not finished", p->name);
    if (!device->caps.timestamp_bits) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s has no timestamps on its compute queue", device->caps.device_name);
    if (!p->n_ops) return VKM_OK;
    VkQueryPool queries;
    VkResult vr = device->vk.vkCreateQueryPool(device->handle, &(VkQueryPoolCreateInfo){
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = 2 * p->n_ops}, device->allocator, &queries);
    if (vr != VK_SUCCESS) return vkm_fail_vk(device, err, vr, "profiling program %s", p->name);
    struct vkm_recording recording = {0};
    uint64_t ticket;
    r = vkm_program_record(p, VKM_RECORD_TIMED, queries, &recording, err);
    if (!r) r = vkm_recording_submit(p, &recording, 1, &ticket, err);
    if (!r) r = vkm_wait(device, ticket, err);
    if (!r) r = read_times(p, queries, err);
    vkm_recording_free(p, &recording);
    device->vk.vkDestroyQueryPool(device->handle, queries, device->allocator);
    return r;
}

uint64_t vkm_program_step_ns(const vkm_program *p, uint32_t i)
{
    const struct vkm_op *op = vkm_program_step_op(p, i);
    return op ? op->ns : 0;
}

static void print_ranges(const char *what, const struct vkm_range *ranges, uint32_t n, vkm_text *out)
{
    if (n) vkm_textf(out, "  %s", what);
    for (uint32_t i = 0; i < n; i++)
        vkm_textf(out, " %s[%llu,%llu)", ranges[i].buffer->name, (unsigned long long)ranges[i].begin, (unsigned long long)ranges[i].end);
}

static void print_op(const struct vkm_op *op, uint32_t index, vkm_text *out)
{
    const struct vkm_step *s = &op->step;
    vkm_textf(out, "%4u %c ", index, op->barrier ? '|' : ' ');
    if (op->is_copy) vkm_textf(out, "%-28s", "copy");
    else vkm_textf(out, "%-28s %-18s %-28s %s%ux%ux%u", s->label, s->kernel->module->name, s->kernel->variant, s->indirect ? "<=" : "", s->groups[0], s->groups[1], s->groups[2]);
    struct vkm_range reads[VKM_OP_RANGES], writes[VKM_OP_RANGES];
    uint32_t n_reads, n_writes;
    vkm_op_ranges(op, reads, &n_reads, writes, &n_writes);
    print_ranges("r", reads, n_reads, out);
    print_ranges("w", writes, n_writes, out);
    if (op->ns) {
        vkm_textf(out, "  %.1f us", (double)op->ns * 1e-3);
        if (s->bytes) vkm_textf(out, "  %.2f GB/s", (double)s->bytes / (double)op->ns);
        if (s->flops) vkm_textf(out, "  %.2f GFLOP/s", (double)s->flops / (double)op->ns);
    }
    vkm_textf(out, "\n");
}

uint32_t vkm_program_barrier_count(const vkm_program *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) n += p->ops[i].barrier;
    return n;
}

/* "|" stands before a step that waits for those before it. */
void vkm_program_print(const vkm_program *p, vkm_text *out)
{
    uint64_t ns = 0;
    for (uint32_t i = 0; i < p->n_ops; i++) ns += p->ops[i].ns;
    vkm_textf(out, "program %s: %u steps, %u copies, %u barriers, %u command buffers", p->name, p->n_steps, p->n_ops - p->n_steps, vkm_program_barrier_count(p), p->recording.n);
    if (ns) vkm_textf(out, ", %.1f us", (double)ns * 1e-3);
    vkm_textf(out, "\n");
    for (uint32_t i = 0; i < p->n_ops; i++) print_op(&p->ops[i], i, out);
}
