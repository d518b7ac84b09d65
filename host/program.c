/* The list of steps: barriers derived from it, command buffers recorded from it, cut so that none runs too long. */
#include "internal.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUT_SECONDS 0.5   /* desktop watchdogs bite at 2 s */

vkm_result vkm_program_create(vkm_device *device, const char *name, vkm_program **program, vkm_error *err)
{
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    vkm_program *p = calloc(1, sizeof *p);
    if (p) p->name = strdup(name ? name : "unnamed");
    if (!p || !p->name) {
        free(p);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making a program");
    }
    p->device = device;
    *program = p;
    return VKM_OK;
}

void vkm_program_destroy(vkm_program *p)
{
    if (!p) return;
    vkm_wait(p->device, p->last_ticket, NULL);
    p->device->vk.vkDestroyCommandPool(p->device->handle, p->pool, p->device->allocator);   /* and its command buffers */
    free(p->recording.commands), free(p->recording.seconds);
    free(p->infos), free(p->list), free(p->ranges), free(p->ops), free(p->name), free(p);
}

/* ------------------------------------------------ building */

static vkm_result add_op(vkm_program *p, const struct vkm_op *op, vkm_error *err)
{
    if (p->finished) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s is finished", p->name);
    if (p->n_ops == p->op_capacity) {
        uint32_t capacity = p->op_capacity ? p->op_capacity * 2 : 64;
        struct vkm_op *ops = realloc(p->ops, capacity * sizeof *ops);
        if (!ops) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "program %s: %u steps", p->name, capacity);
        p->ops = ops;
        p->op_capacity = capacity;
        for (uint32_t i = 0; i < p->n_ops; i++) p->ops[i].step.label = p->ops[i].text;
    }
    struct vkm_op *o = &p->ops[p->n_ops++];
    *o = *op;
    snprintf(o->text, sizeof o->text, "%s", op->step.label ? op->step.label : "");
    o->step.label = o->text;
    return VKM_OK;
}

static vkm_result check_range(const vkm_program *p, const struct vkm_step *s, const struct vkm_range *range, vkm_error *err)
{
    const vkm_bindings *b = s->bindings;
    const vkm_buffer *buffer = range->buffer ? range->buffer : b->workspace;
    bool bound = buffer == b->workspace;
    for (uint32_t i = 0; !bound && i < b->n_kv; i++) bound = buffer == b->kv[i];
    if (!bound) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s, step %s: buffer %s is neither its workspace nor a KV buffer", p->name, s->label, buffer->name);
    if (range->begin > range->end || range->end > buffer->bytes)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s, step %s: range [%llu, %llu) is outside %s (%llu bytes)", p->name, s->label,
                        (unsigned long long)range->begin, (unsigned long long)range->end, buffer->name, (unsigned long long)buffer->bytes);
    return VKM_OK;
}

static vkm_result check_step(const vkm_program *p, const struct vkm_step *s, vkm_error *err)
{
    const struct vkm_caps *caps = &p->device->caps;
    const uint32_t most[3] = {caps->workgroups_x, caps->workgroups_y, caps->workgroups_z};
    if (s->push_bytes > VKM_PUSH_BYTES || s->push_bytes % 4 || s->n_reads > VKM_STEP_RANGES || s->n_writes > VKM_STEP_RANGES)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s, step %s: %u push bytes, %u reads, %u writes", p->name, s->label, s->push_bytes, s->n_reads, s->n_writes);
    for (int i = 0; i < 3; i++)
        if (s->groups[i] > most[i])
            return vkm_fail(err, VKM_ERR_LIMIT, "program %s, step %s: %u workgroups in dimension %d; %s has at most %u", p->name, s->label, s->groups[i], i, caps->device_name, most[i]);
    if (s->indirect && (s->indirect_offset % 4 || s->bindings->workspace->bytes < 12 || s->indirect_offset > s->bindings->workspace->bytes - 12))
        return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s, step %s: no indirect arguments at %llu of the workspace", p->name, s->label, (unsigned long long)s->indirect_offset);
    vkm_result r = VKM_OK;
    for (uint32_t i = 0; !r && i < s->n_reads; i++) r = check_range(p, s, &s->reads[i], err);
    for (uint32_t i = 0; !r && i < s->n_writes; i++) r = check_range(p, s, &s->writes[i], err);
    return r;
}

vkm_result vkm_program_add(vkm_program *p, const struct vkm_step *step, vkm_error *err)
{
    if (!step->kernel || !step->bindings) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s, step %s: no kernel or no bindings", p->name, step->label ? step->label : "?");
    struct vkm_op op = {.step = *step};
    if (!op.step.label) op.step.label = step->kernel->module->name;
    vkm_result r = check_step(p, &op.step, err);
    if (r) return r;
    if ((r = add_op(p, &op, err))) return r;
    p->n_steps++;
    p->estimated |= step->indirect;
    return VKM_OK;
}

vkm_result vkm_program_copy(vkm_program *p, vkm_buffer *from, uint64_t from_offset, vkm_buffer *to, uint64_t to_offset, uint64_t bytes, vkm_error *err)
{
    if (!bytes || from_offset > from->bytes || bytes > from->bytes - from_offset || to_offset > to->bytes || bytes > to->bytes - to_offset || from == to)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s: copy of %llu bytes from %s at %llu to %s at %llu", p->name, (unsigned long long)bytes,
                        from->name, (unsigned long long)from_offset, to->name, (unsigned long long)to_offset);
    return add_op(p, &(struct vkm_op){.is_copy = true, .from = from, .from_offset = from_offset, .to = to, .to_offset = to_offset, .bytes = bytes}, err);
}

/* ------------------------------------------------ barriers */

static struct vkm_range resolve(const struct vkm_step *s, const struct vkm_range *range)
{
    return (struct vkm_range){range->buffer ? range->buffer : s->bindings->workspace, range->begin, range->end};
}

void vkm_op_ranges(const struct vkm_op *op, struct vkm_range *reads, uint32_t *n_reads, struct vkm_range *writes, uint32_t *n_writes)
{
    const struct vkm_step *s = &op->step;
    *n_reads = *n_writes = 0;
    if (op->is_copy) {
        reads[(*n_reads)++] = (struct vkm_range){op->from, op->from_offset, op->from_offset + op->bytes};
        writes[(*n_writes)++] = (struct vkm_range){op->to, op->to_offset, op->to_offset + op->bytes};
        return;
    }
    for (uint32_t i = 0; i < s->n_reads; i++) reads[(*n_reads)++] = resolve(s, &s->reads[i]);
    for (uint32_t i = 0; i < s->n_writes; i++) writes[(*n_writes)++] = resolve(s, &s->writes[i]);
    if (s->indirect) reads[(*n_reads)++] = (struct vkm_range){s->bindings->workspace, s->indirect_offset, s->indirect_offset + 12};
}

static bool overlap(const struct vkm_range *a, uint32_t n_a, const struct vkm_range *b, uint32_t n_b)
{
    for (uint32_t i = 0; i < n_a; i++)
        for (uint32_t j = 0; j < n_b; j++)
            if (a[i].buffer == b[j].buffer && a[i].begin < b[j].end && b[j].begin < a[i].end) return true;
    return false;
}

/* An op waits for those since the last barrier whose writes it reads or writes, or whose reads it writes; not for neighbours that it is declared concurrent with. */
static vkm_result derive_barriers(vkm_program *p, vkm_error *err)
{
    if (p->range_ops < p->n_ops) {
        free(p->ranges);
        p->range_ops = 0;
        p->ranges = malloc((size_t)p->op_capacity * 2 * VKM_OP_RANGES * sizeof *p->ranges);
        if (!p->ranges) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "program %s: deriving barriers", p->name);
        p->range_ops = p->op_capacity;
    }
    struct vkm_range *read = p->ranges, *written = p->ranges + (size_t)p->range_ops * VKM_OP_RANGES;
    uint32_t n_read = 0, n_written = 0, before_read = 0, before_written = 0;   /* before_: what precedes the current run of concurrent ops */
    for (uint32_t i = 0; i < p->n_ops; i++) {
        struct vkm_range reads[VKM_OP_RANGES], writes[VKM_OP_RANGES];
        uint32_t n_reads, n_writes;
        vkm_op_ranges(&p->ops[i], reads, &n_reads, writes, &n_writes);
        uint32_t run = p->ops[i].is_copy ? 0 : p->ops[i].step.concurrent;
        if (!run || i == 0 || p->ops[i - 1].is_copy || p->ops[i - 1].step.concurrent != run) before_read = n_read, before_written = n_written;
        p->ops[i].barrier = overlap(reads, n_reads, written, before_written) || overlap(writes, n_writes, written, before_written) || overlap(writes, n_writes, read, before_read);
        if (p->ops[i].barrier) n_read = n_written = before_read = before_written = 0;
        memcpy(read + n_read, reads, n_reads * sizeof *reads);
        memcpy(written + n_written, writes, n_writes * sizeof *writes);
        n_read += n_reads, n_written += n_writes;
    }
    return VKM_OK;
}

void vkm_program_reset(vkm_program *p)
{
    assert(!p->recording.n);
    p->n_ops = p->n_steps = 0;
    p->finished = p->estimated = false;
}

vkm_result vkm_program_prepare(vkm_program *p, vkm_error *err)
{
    for (uint32_t i = 0; i < p->n_ops; i++)
        if (!p->ops[i].is_copy && !p->ops[i].step.kernel->pipeline)
            return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s, step %s: kernel %s is not compiled", p->name, p->ops[i].step.label, p->ops[i].step.kernel->variant);
    vkm_result r = derive_barriers(p, err);
    if (!r) p->finished = true;
    return r;
}

/* ------------------------------------------------ recording */

/* Seconds by a model of the device's type that every device of it surely reaches. */
static double model_seconds(const vkm_device *device, double bytes, double flops)
{
    static const struct { double bytes, flops; } rates[] = {
        [VKM_TYPE_OTHER] = {2e9, 2e9}, [VKM_TYPE_CPU] = {2e9, 2e9}, [VKM_TYPE_VIRTUAL] = {1e10, 5e10}, [VKM_TYPE_INTEGRATED] = {1e10, 5e10}, [VKM_TYPE_DISCRETE] = {1e11, 1e12}};
    enum vkm_device_type type = (size_t)device->caps.type < VKM_COUNT(rates) ? device->caps.type : VKM_TYPE_OTHER;
    bytes /= rates[type].bytes, flops /= rates[type].flops;
    return bytes > flops ? bytes : flops;
}

double vkm_op_seconds(const vkm_device *device, const struct vkm_op *op)
{
    return op->is_copy ? model_seconds(device, 2.0 * (double)op->bytes, 0) : model_seconds(device, (double)op->step.bytes, (double)op->step.flops);
}

/* The longest that a command buffer may be in such seconds: device->speed is what the device was seen to do against the model. */
static double cut(const vkm_device *device) { return CUT_SECONDS * device->speed; }

uint32_t vkm_program_pieces(const vkm_device *device, uint64_t bytes, uint64_t flops)
{
    double pieces = device->caps.type == VKM_TYPE_CPU ? 1 : ceil(model_seconds(device, (double)bytes, (double)flops) / cut(device));
    return pieces < 1 ? 1 : pieces > 64 ? 64 : (uint32_t)pieces;
}

struct recorder {
    vkm_program *program;
    vkm_device *device;
    struct vkm_recording *out;
    VkCommandBuffer commands;      /* the open one, or NULL */
    double seconds, cut;
    VkDescriptorSet set;           /* bound in it */
    VkPipeline pipeline;
    VkResult r;
};

static void close_commands(struct recorder *rec)
{
    if (!rec->commands) return;
    vkm_host_barrier(rec->device, rec->commands);
    VkResult r = rec->device->vk.vkEndCommandBuffer(rec->commands);
    if (rec->r == VK_SUCCESS) rec->r = r;
    rec->out->seconds[rec->out->n - 1] = rec->seconds;
    rec->commands = VK_NULL_HANDLE;
}

static void open_commands(struct recorder *rec)
{
    struct vkm_recording *out = rec->out;
    if (out->n == out->capacity) {
        uint32_t capacity = out->capacity ? out->capacity * 2 : 4;
        VkCommandBuffer *commands = realloc(out->commands, capacity * sizeof *commands);
        if (commands) out->commands = commands;
        double *seconds = realloc(out->seconds, capacity * sizeof *seconds);
        if (seconds) out->seconds = seconds;
        if (!commands || !seconds) {
            rec->r = VK_ERROR_OUT_OF_HOST_MEMORY;
            return;
        }
        out->capacity = capacity;
    }
    VkCommandBuffer commands;
    rec->r = rec->device->vk.vkAllocateCommandBuffers(rec->device->handle, &(VkCommandBufferAllocateInfo){
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = rec->program->pool, .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = 1}, &commands);
    if (rec->r != VK_SUCCESS) return;
    out->commands[out->n++] = commands;
    rec->r = rec->device->vk.vkBeginCommandBuffer(commands, &(VkCommandBufferBeginInfo){
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT});   /* a repeat queues it again */
    if (rec->r != VK_SUCCESS) return;
    rec->commands = commands;
    rec->seconds = 0;
    rec->set = VK_NULL_HANDLE;
    rec->pipeline = VK_NULL_HANDLE;
    vkm_full_barrier(rec->device, commands);
}

/* Makes sure that a command buffer is open with `seconds` left in it. True if it was opened just now, behind a full barrier. */
static bool make_room(struct recorder *rec, double seconds)
{
    if (rec->commands && rec->seconds > 0 && rec->seconds + seconds > rec->cut) close_commands(rec);
    bool fresh = !rec->commands;
    if (fresh) open_commands(rec);
    rec->seconds += seconds;
    return fresh;
}

static void dispatch(vkm_device *device, VkCommandBuffer commands, const struct vkm_step *s, uint32_t axis, uint32_t first, uint32_t count)
{
    if (s->indirect) {
        device->vk.vkCmdDispatchIndirect(commands, s->bindings->workspace->handle, s->indirect_offset);
        return;
    }
    uint32_t base[3] = {0}, groups[3] = {s->groups[0], s->groups[1], s->groups[2]};
    base[axis] = first;
    groups[axis] = count;
    if (first) device->vk.vkCmdDispatchBase(commands, base[0], base[1], base[2], groups[0], groups[1], groups[2]);
    else device->vk.vkCmdDispatch(commands, groups[0], groups[1], groups[2]);
}

void vkm_step_record(vkm_device *device, VkCommandBuffer commands, const struct vkm_step *s, uint32_t axis, uint32_t first, uint32_t count)
{
    if (s->push_bytes)
        device->vk.vkCmdPushConstants(commands, device->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, s->push_bytes, s->push);
    bool labels = device->vk.vkCmdBeginDebugUtilsLabelEXT && device->vk.vkCmdEndDebugUtilsLabelEXT;
    if (labels) device->vk.vkCmdBeginDebugUtilsLabelEXT(commands, &(VkDebugUtilsLabelEXT){.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT, .pLabelName = s->label});
    dispatch(device, commands, s, axis, first, count);
    if (labels) device->vk.vkCmdEndDebugUtilsLabelEXT(commands);
}

void vkm_step_bind(vkm_device *device, VkCommandBuffer commands, const struct vkm_step *s, VkDescriptorSet *set, VkPipeline *pipeline)
{
    if (*set != s->bindings->set) {
        device->vk.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, device->pipeline_layout, 0, 1, &s->bindings->set, 0, NULL);
        *set = s->bindings->set;
    }
    if (*pipeline != s->kernel->pipeline) {
        device->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, s->kernel->pipeline);
        *pipeline = s->kernel->pipeline;
    }
}

uint32_t vkm_step_axis(const struct vkm_step *s)
{
    return s->groups[0] >= s->groups[1] && s->groups[0] >= s->groups[2] ? 0 : s->groups[1] >= s->groups[2] ? 1 : 2;
}

static uint32_t piece_count(const struct recorder *rec, const struct vkm_op *op, double seconds)
{
    if (op->is_copy || op->step.indirect || seconds <= rec->cut) return 1;
    uint32_t n = op->step.groups[vkm_step_axis(&op->step)];
    double wanted = ceil(seconds / rec->cut);
    return wanted < n ? (uint32_t)wanted : n ? n : 1;
}

/* The first piece has its room already. Workgroups of one step are independent: pieces in one command buffer need no barrier between them. */
static void record_step(struct recorder *rec, const struct vkm_step *s, uint32_t pieces, double seconds)
{
    uint32_t axis = vkm_step_axis(s), n = s->groups[axis], first = 0;
    for (uint32_t i = 0; i < pieces; i++) {
        uint32_t end = (uint32_t)((uint64_t)n * (i + 1) / pieces);
        if (i) make_room(rec, seconds);
        if (rec->r != VK_SUCCESS) return;
        vkm_step_bind(rec->device, rec->commands, s, &rec->set, &rec->pipeline);
        vkm_step_record(rec->device, rec->commands, s, axis, first, end - first);
        first = end;
    }
}

/* Whether a barrier before op i is also one for indirect arguments: those of a step up to the next barrier. */
static bool before_indirect(const vkm_program *p, uint32_t i, bool timed)
{
    bool indirect = p->ops[i].step.indirect;
    for (uint32_t j = i + 1; !timed && !indirect && j < p->n_ops && !p->ops[j].barrier; j++) indirect = p->ops[j].step.indirect;
    return indirect;
}

void vkm_op_barrier(const vkm_program *p, VkCommandBuffer commands, uint32_t i, bool copies, bool timed)
{
    if (copies) {
        vkm_full_barrier(p->device, commands);
        return;
    }
    bool indirect = before_indirect(p, i, timed);
    VkPipelineStageFlags to = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | (indirect ? VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT : 0);
    VkAccessFlags access = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | (indirect ? VK_ACCESS_INDIRECT_COMMAND_READ_BIT : 0);
    p->device->vk.vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, to, 0, 1,
        &(VkMemoryBarrier){.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT, .dstAccessMask = access}, 0, NULL, 0, NULL);
}

void vkm_op_copy(vkm_device *device, VkCommandBuffer commands, const struct vkm_op *op)
{
    device->vk.vkCmdCopyBuffer(commands, op->from->handle, op->to->handle, 1, &(VkBufferCopy){.srcOffset = op->from_offset, .dstOffset = op->to_offset, .size = op->bytes});
}

vkm_result vkm_program_record(vkm_program *p, enum vkm_record how, VkQueryPool queries, struct vkm_recording *out, vkm_error *err)
{
    vkm_device *device = p->device;
    struct recorder rec = {.program = p, .device = device, .out = out, .cut = cut(device)};
    bool timed = how == VKM_RECORD_TIMED, copies = false;
    if (!p->pool)
        rec.r = device->vk.vkCreateCommandPool(device->handle, &(VkCommandPoolCreateInfo){
            .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = device->offer.queue_family}, device->allocator, &p->pool);
    if (rec.r != VK_SUCCESS) return vkm_fail_vk(device, err, rec.r, "recording program %s", p->name);
    make_room(&rec, 0);   /* a program without steps is one empty command buffer */
    if (timed && rec.r == VK_SUCCESS) device->vk.vkCmdResetQueryPool(rec.commands, queries, 0, 2 * p->n_ops);
    for (uint32_t i = 0; i < p->n_ops && rec.r == VK_SUCCESS; i++) {
        const struct vkm_op *op = &p->ops[i];
        double seconds = vkm_op_seconds(device, op);
        uint32_t pieces = piece_count(&rec, op, seconds);
        copies = copies || op->is_copy;
        bool fresh = make_room(&rec, seconds / pieces);
        if (rec.r != VK_SUCCESS) break;
        if (!fresh && (timed || op->barrier)) vkm_op_barrier(p, rec.commands, i, copies, timed);
        if (timed) device->vk.vkCmdWriteTimestamp(rec.commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, 2 * i);
        if (op->is_copy) vkm_op_copy(device, rec.commands, op);
        else record_step(&rec, &op->step, pieces, seconds / pieces);
        if (timed && rec.r == VK_SUCCESS) device->vk.vkCmdWriteTimestamp(rec.commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, 2 * i + 1);
    }
    close_commands(&rec);
    return rec.r == VK_SUCCESS ? VKM_OK : vkm_fail_vk(device, err, rec.r, "recording program %s", p->name);
}

void vkm_recording_free(vkm_program *p, struct vkm_recording *recording)
{
    if (recording->n) p->device->vk.vkFreeCommandBuffers(p->device->handle, p->pool, recording->n, recording->commands);
    free(recording->commands), free(recording->seconds);
    *recording = (struct vkm_recording){0};
}

vkm_result vkm_program_finish(vkm_program *p, vkm_error *err)
{
    vkm_result r = vkm_device_alive(p->device, err);
    if (r) return r;
    if (p->finished) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s is finished already", p->name);
    if ((r = vkm_kernels_compile(p->device, p->ops, p->n_ops, err))) return r;
    if ((r = derive_barriers(p, err))) return r;
    free(p->ranges);
    p->ranges = NULL;
    p->range_ops = 0;
    p->finished = true;
    return VKM_OK;
}

/* ------------------------------------------------ submitting */

static bool grow_scratch(vkm_program *p, uint64_t n)
{
    if (n > UINT32_MAX - 1) return false;
    if (n > p->list_capacity) {
        VkCommandBuffer *list = realloc(p->list, n * sizeof *list);
        VkSubmitInfo *infos = realloc(p->infos, (n + 1) * sizeof *infos);
        if (list) p->list = list;
        if (infos) p->infos = infos;
        if (!list || !infos) return false;
        p->list_capacity = (uint32_t)n;
    }
    return true;
}

/* One submission; its batches are what a driver may hand to the GPU as one piece of work, so each stays below the cut as well. */
vkm_result vkm_recording_submit(vkm_program *p, const struct vkm_recording *recording, uint32_t repeat, uint64_t *ticket, vkm_error *err)
{
    uint64_t total = (uint64_t)repeat * recording->n;
    if (!grow_scratch(p, total)) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "program %s: %u runs", p->name, repeat);
    uint32_t n = 0;
    double seconds = 0, sum = 0, most = cut(p->device);
    for (uint64_t i = 0; i < total; i++) {
        double s = recording->seconds[i % recording->n];
        p->list[i] = recording->commands[i % recording->n];
        if (!n || seconds + s > most) {
            p->infos[++n] = (VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pCommandBuffers = &p->list[i]};
            seconds = 0;
        }
        p->infos[n].commandBufferCount++;
        seconds += s, sum += s;
    }
    bool idle = vkm_queue_is_idle(p->device);
    uint64_t value;
    vkm_result r = vkm_queue_submit(p->device, p->infos, n, &value, err);
    if (r) return r;
    p->last_ticket = value;
    snprintf(p->device->last_program, sizeof p->device->last_program, "%s", p->name);
    if (idle && !p->estimated) vkm_speed_start(p->device, value, sum);
    if (ticket) *ticket = value;
    return VKM_OK;
}

vkm_result vkm_program_submit(vkm_program *p, uint32_t repeat, uint64_t *ticket, vkm_error *err)
{
    if (!p->finished) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s is not finished", p->name);
    if (!repeat) return vkm_fail(err, VKM_ERR_ARGUMENT, "program %s: 0 runs", p->name);
    vkm_result r = p->recording.n ? VKM_OK : vkm_program_record(p, VKM_RECORD_DERIVED, VK_NULL_HANDLE, &p->recording, err);
    if (r) {
        vkm_recording_free(p, &p->recording);
        return r;
    }
    return vkm_recording_submit(p, &p->recording, repeat, ticket, err);
}

uint32_t vkm_program_step_count(const vkm_program *p) { return p->n_steps; }
uint32_t vkm_program_op_count(const vkm_program *p) { return p->n_ops; }

const struct vkm_op *vkm_program_step_op(const vkm_program *p, uint32_t i)
{
    for (uint32_t k = 0; k < p->n_ops; k++)
        if (!p->ops[k].is_copy && !i--) return &p->ops[k];
    return NULL;
}

const struct vkm_step *vkm_program_step(const vkm_program *p, uint32_t i)
{
    const struct vkm_op *op = vkm_program_step_op(p, i);
    return op ? &op->step : NULL;
}
