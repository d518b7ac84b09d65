/* The audit: every step runs twice, first with everything poisoned that it does not declare as read, then as in a normal run.
 * What it writes must be the same both times, and lie inside what it declares as written. */
#include "internal.h"
#include <stdlib.h>
#include <string.h>

/* NaN as f32 and as two f16. Two patterns, so that a word left alone inside declared writes is told from a copy of a poisoned one outside. */
#define POISON_OUTSIDE 0x7fc0feedu
#define POISON_WRITES  0x7fc0fefeu

/* A buffer under audit: the workspace or a KV buffer. */
struct region {
    vkm_buffer *buffer, *staging;              /* staging: READBACK, where the buffer is not mapped */
    uint8_t *before, *image, *poisoned;        /* content before the step; what the poisoned run started from; and what it left */
};

struct audit {
    vkm_program *program;
    vkm_device *device;
    struct region *regions;
    uint32_t n;
};

static void free_regions(struct audit *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        vkm_buffer_destroy(a->regions[i].staging);
        free(a->regions[i].before), free(a->regions[i].image), free(a->regions[i].poisoned);
    }
    free(a->regions);
}

static vkm_result add_region(struct audit *a, vkm_buffer *buffer, vkm_error *err)
{
    for (uint32_t i = 0; i < a->n; i++)
        if (a->regions[i].buffer == buffer) return VKM_OK;
    struct region *regions = realloc(a->regions, (a->n + 1) * sizeof *regions);
    if (!regions) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "auditing %s", buffer->name);
    a->regions = regions;
    struct region *g = &regions[a->n++];
    size_t bytes = vkm_align(buffer->bytes, 4);
    *g = (struct region){.buffer = buffer, .before = malloc(bytes), .image = malloc(bytes), .poisoned = malloc(bytes)};
    if (!g->before || !g->image || !g->poisoned) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "auditing %s: %llu bytes, three times", buffer->name, (unsigned long long)bytes);
    return buffer->map ? VKM_OK : vkm_buffer_create(a->device, VKM_BUFFER_READBACK, buffer->bytes, "audit", &g->staging, err);
}

static vkm_result copy_and_wait(struct audit *a, vkm_buffer *from, vkm_buffer *to, vkm_error *err)
{
    VkCommandBuffer commands;
    vkm_result r = vkm_transient_begin(a->device, &commands, err);
    if (r) return r;
    a->device->vk.vkCmdCopyBuffer(commands, from->handle, to->handle, 1, &(VkBufferCopy){.size = from->bytes});
    return vkm_queue_idle(a->device, err);
}

static vkm_result load(struct audit *a, struct region *g, uint8_t *to, vkm_error *err)
{
    vkm_buffer *mapped = g->staging ? g->staging : g->buffer;
    vkm_result r = g->staging ? copy_and_wait(a, g->buffer, g->staging, err) : VKM_OK;
    if (!r) r = vkm_buffer_invalidate(mapped, 0, mapped->bytes, err);
    if (!r) memcpy(to, mapped->map, mapped->bytes);
    return r;
}

static vkm_result store(struct audit *a, struct region *g, const uint8_t *from, vkm_error *err)
{
    vkm_buffer *mapped = g->staging ? g->staging : g->buffer;
    memcpy(mapped->map, from, mapped->bytes);
    vkm_result r = vkm_buffer_flush(mapped, 0, mapped->bytes, err);
    if (!r && g->staging) r = copy_and_wait(a, g->staging, g->buffer, err);
    return r;
}

static vkm_result run_op(struct audit *a, const struct vkm_op *op, vkm_error *err)
{
    VkCommandBuffer commands;
    vkm_result r = vkm_transient_begin(a->device, &commands, err);
    if (r) return r;
    if (op->is_copy)
        a->device->vk.vkCmdCopyBuffer(commands, op->from->handle, op->to->handle, 1, &(VkBufferCopy){.srcOffset = op->from_offset, .dstOffset = op->to_offset, .size = op->bytes});
    else {
        VkDescriptorSet set = VK_NULL_HANDLE;
        VkPipeline pipeline = VK_NULL_HANDLE;
        vkm_step_bind(a->device, commands, &op->step, &set, &pipeline);
        vkm_step_record(a->device, commands, &op->step, 0, 0, op->step.groups[0]);
    }
    return vkm_queue_idle(a->device, err);
}

/* ------------------------------------------------ what a step may touch */

struct access { struct vkm_range reads[VKM_OP_RANGES], writes[VKM_OP_RANGES]; uint32_t n_reads, n_writes; };

static int by_begin(const void *a, const void *b)
{
    uint64_t x = ((const struct vkm_range *)a)->begin, y = ((const struct vkm_range *)b)->begin;
    return x < y ? -1 : x > y;
}

/* The pattern continues from the buffer's begin, whatever byte a range starts at. */
static void fill(uint8_t *at, uint64_t begin, uint64_t end, uint32_t pattern)
{
    uint8_t bytes[4];
    memcpy(bytes, &pattern, 4);
    for (; begin < end && begin % 4; begin++) at[begin] = bytes[begin % 4];
    for (; begin + 4 <= end; begin += 4) memcpy(at + begin, &pattern, 4);
    for (; begin < end; begin++) at[begin] = bytes[begin % 4];
}

static void poison(struct region *g, const struct access *access)
{
    fill(g->image, 0, g->buffer->bytes, POISON_OUTSIDE);
    for (uint32_t i = 0; i < access->n_writes; i++)
        if (access->writes[i].buffer == g->buffer) fill(g->image, access->writes[i].begin, access->writes[i].end, POISON_WRITES);
    for (uint32_t i = 0; i < access->n_reads; i++) {
        const struct vkm_range *range = &access->reads[i];
        if (range->buffer == g->buffer) memcpy(g->image + range->begin, g->before + range->begin, range->end - range->begin);
    }
}

/* First byte of [begin, end) where a and b differ; end if none. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t begin, uint64_t end)
{
    while (begin < end) {
        uint64_t n = end - begin < 4096 ? end - begin : 4096;
        if (memcmp(a + begin, b + begin, n)) {
            while (a[begin] == b[begin]) begin++;
            return begin;
        }
        begin += n;
    }
    return end;
}

/* Outside the declared writes the content must be as it was. writes: sorted by begin. */
static vkm_result check_outside(struct audit *a, const struct vkm_op *op, const struct region *g, const struct access *access, const uint8_t *was, const uint8_t *is, vkm_error *err)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i <= access->n_writes; i++) {
        bool last = i == access->n_writes;
        if (!last && access->writes[i].buffer != g->buffer) continue;
        uint64_t end = last ? g->buffer->bytes : access->writes[i].begin;
        uint64_t where = at < end ? first_difference(was, is, at, end) : end;
        if (where < end)
            return vkm_fail(err, VKM_ERR_FORMAT, "program %s, step %s (%s %s) wrote %s at byte %llu, outside its declared writes", a->program->name, op->step.label,
                            op->step.kernel->module->name, op->step.kernel->variant, g->buffer->name, (unsigned long long)where);
        if (!last && access->writes[i].end > at) at = access->writes[i].end;
    }
    return VKM_OK;
}

/* Inside them both runs must leave the same, but for what the step left alone: there the poisoned run keeps its poison and the normal one what was before. */
static vkm_result check_inside(struct audit *a, const struct vkm_op *op, const struct region *g, const struct access *access, const uint8_t *normal, vkm_error *err)
{
    uint8_t pattern[4];
    memcpy(pattern, &(uint32_t){POISON_WRITES}, 4);
    for (uint32_t i = 0; i < access->n_writes; i++) {
        const struct vkm_range *range = &access->writes[i];
        if (range->buffer != g->buffer) continue;
        for (uint64_t at = range->begin; (at = first_difference(g->poisoned, normal, at, range->end)) < range->end; at++)
            if (g->poisoned[at] != pattern[at % 4] || normal[at] != g->before[at])
                return vkm_fail(err, VKM_ERR_FORMAT, "program %s, step %s (%s %s): %s at byte %llu depends on what it does not declare as read, or is not the same twice",
                                a->program->name, op->step.label, op->step.kernel->module->name, op->step.kernel->variant, g->buffer->name, (unsigned long long)at);
    }
    return VKM_OK;
}

static vkm_result audit_step(struct audit *a, const struct vkm_op *op, vkm_error *err)
{
    struct access access;
    vkm_op_ranges(op, access.reads, &access.n_reads, access.writes, &access.n_writes);
    qsort(access.writes, access.n_writes, sizeof access.writes[0], by_begin);
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < a->n; i++) {
        poison(&a->regions[i], &access);
        r = store(a, &a->regions[i], a->regions[i].image, err);
    }
    if (!r) r = run_op(a, op, err);
    for (uint32_t i = 0; !r && i < a->n; i++) r = load(a, &a->regions[i], a->regions[i].poisoned, err);
    for (uint32_t i = 0; i < a->n; i++) {   /* comes back also after a failure, the first of which is told */
        vkm_result back = store(a, &a->regions[i], a->regions[i].before, r ? NULL : err);
        if (!r) r = back;
    }
    for (uint32_t i = 0; !r && i < a->n; i++) r = check_outside(a, op, &a->regions[i], &access, a->regions[i].image, a->regions[i].poisoned, err);
    if (!r) r = run_op(a, op, err);
    for (uint32_t i = 0; !r && i < a->n; i++) {
        struct region *g = &a->regions[i];
        r = load(a, g, g->image, err);
        if (!r) r = check_outside(a, op, g, &access, g->before, g->image, err);
        if (!r) r = check_inside(a, op, g, &access, g->image, err);
        uint8_t *next = g->image;   /* what is there now is what the next step finds */
        g->image = g->before;
        g->before = next;
    }
    return r;
}

vkm_result vkm_program_audit(vkm_program *p, vkm_error *err)
{
    vkm_device *device = p->device;
    struct audit a = {.program = p, .device = device};
    vkm_result r = vkm_device_alive(device, err);
    if (!r && !p->finished) r = vkm_fail(err, VKM_ERR_ARGUMENT, "program %s is not finished", p->name);
    for (uint32_t i = 0; !r && i < p->n_ops; i++) {
        if (p->ops[i].is_copy) continue;
        const vkm_bindings *b = p->ops[i].step.bindings;
        r = add_region(&a, b->workspace, err);
        for (uint32_t k = 0; !r && k < b->n_kv; k++) r = add_region(&a, b->kv[k], err);
    }
    if (!r) r = vkm_queue_idle(device, err);
    for (uint32_t i = 0; !r && i < a.n; i++) r = load(&a, &a.regions[i], a.regions[i].before, err);
    for (uint32_t i = 0; !r && i < p->n_ops; i++) r = p->ops[i].is_copy ? run_op(&a, &p->ops[i], err) : audit_step(&a, &p->ops[i], err);
    free_regions(&a);
    return r;
}
