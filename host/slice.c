#include "slice.h"
#include "internal.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* ------------------------------------------------ what steps take */

#define FORGET 0.9                  /* weight of what was seen before against the next */
#define SURPRISE 4.0                /* a step that took so many times longer than expected was interrupted, or the clock changed: it counts as so many times */
#define STEP_NS 2000.0              /* of the smallest step, where nothing is known */
#define PIECE_LEAST 4.0             /* times the smallest step that a piece should take */
#define GUESS 1.5                   /* guesses err on the long side */
#define FIRST_EXCESS 0.2
#define LOAD_BASE 128.0             /* load at which a step that grows takes twice as long as at none, where nothing is known */

/* Steps of the same kernel and size, or copies of the same size. What they took: sums over observations, weighted by age, of 1, load, ns, and products. */
struct kind {
    const vkm_kernel *kernel;       /* NULL: a copy */
    uint64_t bytes, flops;
    uint32_t groups[3];
    bool grows;
    double model_ns;                /* by the model of program.c */
    double n, x, y, xx, xy;
};

#define QUERIES 256u                /* timestamps of a slice: one at its begin and end; where it is to end in time one at each barrier, as far as they go (an eighth of the time on lavapipe) */
#define EXCESSES 40u                /* of so many the next exceeds the second largest with a chance of 2 in 41 */
#define ITEMS 2048u                 /* steps of a slice that are learnt from */

#define COPIES UINT32_MAX           /* instead of a kind: copies of vkm_slicer_copy, of any size; part: their ns by the model */
struct item { uint32_t kind; float part, load, expected, doubt; };     /* the last two: see learn_from */
struct slice {
    uint32_t n_stamps, n_items, n_whole;         /* n_whole: stamps up to which all items are there */
    bool guessed;                                /* some of it was of a kind hardly seen */
    double budget_ns, expected_ns;               /* budget: 0 without one */
    uint32_t items_before[QUERIES];              /* a timestamp: items recorded before it */
    struct item items[ITEMS];
};

enum state { CLEAN, WRITTEN, USED };             /* since the last barrier: nothing, writes of the host's words, anything */

struct vkm_slicer {
    vkm_device *device;
    VkQueryPool queries;                         /* VK_NULL_HANDLE: the queue has no timestamps */
    struct kind *kinds;                          /* by index */
    uint32_t n_kinds, kind_capacity;
    double scale, copy_scale;                    /* seen time against the model's, of everything; of COPIES, 0: none seen */
    /* What the last bounded slices took more than was expected, by the root of what was expected and of their budget: it adds up like a random walk, from interruptions and surprises here and there.
     * excess: what the next will exceed once in 20 times. */
    double excesses[EXCESSES], excess;
    uint32_t n_excesses;
    double least_ns;                             /* of a step */
    uint64_t last, completed;
    struct slice slices[VKM_SLICES];             /* slice i is slices[i % VKM_SLICES] */

    /* the slice that is being recorded */
    struct slice *open;
    VkCommandBuffer commands;
    VkDescriptorSet set;
    VkPipeline pipeline;
    enum state state;
    double used_ns, most_ns;
    uint32_t n_dispatches, most_dispatches;
};

vkm_result vkm_slicer_create(vkm_device *device, vkm_slicer **slicer, vkm_error *err)
{
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    vkm_slicer *s = calloc(1, sizeof *s);
    if (!s) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making the record of slices");
    s->device = device;
    s->scale = 1 / device->speed;
    s->least_ns = STEP_NS;
    s->excess = FIRST_EXCESS;
    for (uint32_t i = 0; i < EXCESSES; i++) s->excesses[i] = FIRST_EXCESS;
    VkResult r = VK_SUCCESS;
    if (device->caps.timestamp_bits)
        r = device->vk.vkCreateQueryPool(device->handle, &(VkQueryPoolCreateInfo){
            .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = VKM_SLICES * QUERIES}, device->allocator, &s->queries);
    if (r != VK_SUCCESS) {
        free(s);
        return vkm_fail_vk(device, err, r, "making the timestamps of slices");
    }
    *slicer = s;
    return VKM_OK;
}

void vkm_slicer_destroy(vkm_slicer *s)
{
    if (!s) return;
    s->device->vk.vkDestroyQueryPool(s->device->handle, s->queries, s->device->allocator);
    free(s->kinds);
    free(s);
}

static bool is_kind(const struct kind *k, const struct vkm_op *op)
{
    if (op->is_copy) return !k->kernel && k->bytes == op->bytes;
    const struct vkm_step *t = &op->step;
    return k->kernel == t->kernel && k->bytes == t->bytes && k->flops == t->flops && !memcmp(k->groups, t->groups, sizeof k->groups) && k->grows == t->grows;
}

vkm_result vkm_slicer_learn(vkm_slicer *s, vkm_program *p, vkm_error *err)
{
    assert(p->finished);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        struct vkm_op *op = &p->ops[i];
        uint32_t k = 0;
        while (k < s->n_kinds && !is_kind(&s->kinds[k], op)) k++;
        op->kind = k;
        if (k < s->n_kinds) continue;
        if (s->n_kinds == s->kind_capacity) {
            uint32_t capacity = s->kind_capacity ? s->kind_capacity * 2 : 64;
            struct kind *kinds = realloc(s->kinds, capacity * sizeof *kinds);
            if (!kinds) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "program %s: %u kinds of steps", p->name, capacity);
            s->kinds = kinds;
            s->kind_capacity = capacity;
        }
        struct kind *n = &s->kinds[s->n_kinds++];
        *n = (struct kind){.bytes = op->bytes, .model_ns = vkm_op_seconds(s->device, op) * 1e9};
        if (!op->is_copy) {
            n->kernel = op->step.kernel;
            n->bytes = op->step.bytes, n->flops = op->step.flops, n->grows = op->step.grows;
            memcpy(n->groups, op->step.groups, sizeof n->groups);
        }
    }
    return VKM_OK;
}

/* Of a kind never seen: by the model, as it fits others of the same kernel, or all. */
static double guess_ns(const vkm_slicer *s, const struct kind *k)
{
    double ns = 0, model = 0;
    for (uint32_t i = 0; i < s->n_kinds; i++)
        if (s->kinds[i].kernel == k->kernel && s->kinds[i].n > 0) ns += s->kinds[i].y / s->kinds[i].n, model += s->kinds[i].model_ns;
    return STEP_NS + GUESS * k->model_ns * (model > 0 ? ns / model : s->scale);
}

/* Mean, or for kinds that grow the line through what was seen; while that was all at about the same load, one that begins at LOAD_BASE before none. */
static double expected_ns(const vkm_slicer *s, uint32_t kind, double load)
{
    const struct kind *k = &s->kinds[kind];
    if (k->n <= 0) return guess_ns(s, k);
    double mean = k->y / k->n, at = k->x / k->n, spread = k->xx / k->n - at * at;
    if (!k->grows) return mean;
    double slope = mean / (at + LOAD_BASE);
    if (spread > 64 + 0.01 * at * at) slope = (k->xy / k->n - at * mean) / spread;
    double ns = mean + (slope > 0 ? slope : 0) * (load - at);
    return ns > 0.2 * mean ? ns : 0.2 * mean;
}

/* Every piece of a step costs what the smallest step does; the rest is in proportion. */
static double piece_ns(const vkm_slicer *s, double whole_ns, double part)
{
    return part >= 1 || whole_ns <= s->least_ns ? whole_ns : s->least_ns + part * (whole_ns - s->least_ns);
}

/* y: ns of the whole step, of which item->part was seen */
static void observe(vkm_slicer *s, const struct item *item, double expected, double y)
{
    struct kind *k = &s->kinds[item->kind];
    if (y < s->least_ns) y = s->least_ns;
    double x = k->grows ? item->load : 0, w = item->part;
    if (k->n > 2 && y > SURPRISE * expected) y = SURPRISE * expected;
    if (y < expected / SURPRISE) k->n = k->x = k->y = k->xx = k->xy = 0;      /* what was seen before, or guessed, was no measure: drivers compile when a step first runs, and nothing makes one too short */
    k->n = k->n * FORGET + w, k->x = k->x * FORGET + w * x, k->y = k->y * FORGET + w * y, k->xx = k->xx * FORGET + w * x * x, k->xy = k->xy * FORGET + w * x * y;
}

/* How far a kind's expected time may be off: the less it was seen. */
static double doubt(const struct kind *k, double expected) { return expected * expected / (k->n + 0.1); }

/* Items [first, end) took so long together. What is more or less than expected is shared out among them by their doubt, as a Kalman filter would: by what was expected before any of them is observed, or of a
 * kind that is there many times each would see the last one's share in what is expected, and add to it. */
static void learn_from(vkm_slicer *s, struct slice *slice, uint32_t first, uint32_t end, double ns)
{
    double sum = 0, doubts = 0, model = 0;
    if (end - first == 1 && slice->items[first].kind == COPIES) s->copy_scale += (s->copy_scale > 0 ? 0.2 : 1) * (ns / slice->items[first].part - s->copy_scale);
    for (uint32_t i = first; i < end; i++) {
        struct item *item = &slice->items[i];
        if (item->kind == COPIES) return;
        double expected = expected_ns(s, item->kind, item->load);
        item->expected = (float)expected;
        item->doubt = (float)doubt(&s->kinds[item->kind], expected);
        sum += piece_ns(s, expected, item->part);
        doubts += (double)item->doubt * item->part;
        model += s->kinds[item->kind].model_ns * item->part;
    }
    if (doubts <= 0 || ns <= 0) return;
    s->least_ns = ns / (end - first) < s->least_ns ? ns / (end - first) : s->least_ns * 1.001;      /* the least seen, or not for long */
    for (uint32_t i = first; i < end; i++) {
        const struct item *item = &slice->items[i];
        observe(s, item, item->expected, ns < sum / SURPRISE ? item->expected * ns / sum : item->expected + (ns - sum) * item->doubt / doubts);
    }
    if (model > 0) s->scale += 0.1 * (ns / model - s->scale);
}

static void learn_excess(vkm_slicer *s, const struct slice *slice, double ns)
{
    double most = -1, second = -1;
    if (slice->budget_ns <= 0 || slice->guessed || slice->expected_ns <= 0 || ns <= 0) return;
    s->excesses[s->n_excesses++ % EXCESSES] = (ns - slice->expected_ns) / sqrt(slice->expected_ns * slice->budget_ns);
    for (uint32_t i = 0; i < EXCESSES; i++) {
        double x = s->excesses[i];
        if (x > most) second = most, most = x;
        else if (x > second) second = x;
    }
    s->excess = second < -0.2 ? -0.2 : second > 2 ? 2 : second;
}

/* What may be expected of a slice that is to take no longer than ns: x with x + excess sqrt(x ns) = ns. */
static double capacity_ns(const vkm_slicer *s, double ns)
{
    double root = (sqrt(s->excess * s->excess + 4) - s->excess) / 2;
    return ns * root * root;
}

/* ------------------------------------------------ recording */

static uint32_t first_query(const vkm_slicer *s, const struct slice *slice) { return (uint32_t)(slice - s->slices) * QUERIES; }

static void stamp(vkm_slicer *s, bool at_end)
{
    struct slice *o = s->open;
    if (!s->queries || o->n_stamps + (at_end ? 0 : 1) >= QUERIES) return;       /* the last is for the end */
    s->device->vk.vkCmdWriteTimestamp(s->commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, s->queries, first_query(s, o) + o->n_stamps);
    o->items_before[o->n_stamps++] = o->n_items;
    if (o->n_items < ITEMS) o->n_whole = o->n_stamps;
}

static void full_barrier(vkm_slicer *s)
{
    vkm_full_barrier(s->device, s->commands);
    s->state = CLEAN;
}

/* At a barrier. */
static void stamp_between(vkm_slicer *s)
{
    if (s->open->budget_ns > 0) stamp(s, false);
}

bool vkm_slicer_begin(vkm_slicer *s, void *commands, uint32_t max_us, uint32_t max_dispatches)
{
    assert(!s->open);
    if (s->last - s->completed == VKM_SLICES) return false;
    s->open = &s->slices[(s->last + 1) % VKM_SLICES];
    s->open->n_stamps = s->open->n_items = s->open->n_whole = 0;
    s->open->budget_ns = max_us * 1e3;
    s->open->guessed = false;
    s->commands = commands;
    s->set = VK_NULL_HANDLE;
    s->pipeline = VK_NULL_HANDLE;
    s->used_ns = 0;
    s->most_ns = max_us ? capacity_ns(s, max_us * 1e3) : 1e300;
    s->n_dispatches = 0;
    s->most_dispatches = max_dispatches ? max_dispatches : UINT32_MAX;
    if (s->queries) s->device->vk.vkCmdResetQueryPool(commands, s->queries, first_query(s, s->open), QUERIES);
    full_barrier(s);
    stamp(s, false);
    return true;
}

bool vkm_slicer_full(const vkm_slicer *s) { return s->n_dispatches >= s->most_dispatches || s->used_ns >= s->most_ns; }
double vkm_slicer_expected_us(const vkm_slicer *s) { return s->used_ns * 1e-3; }

/* What was recorded before is seen by what comes now. */
static void order(vkm_slicer *s, enum state unless)
{
    if (s->state <= unless) return;
    full_barrier(s);
    stamp_between(s);
}

void vkm_slicer_write(vkm_slicer *s, vkm_buffer *to, uint64_t offset, const void *data, uint64_t bytes)
{
    assert(bytes <= 65536 && bytes % 4 == 0 && offset % 4 == 0 && offset + bytes <= to->bytes);
    order(s, WRITTEN);
    s->device->vk.vkCmdUpdateBuffer(s->commands, to->handle, offset, bytes, data);
    s->state = WRITTEN;
}

static void copy_parts(vkm_slicer *s, vkm_buffer *from, vkm_buffer *to, const struct vkm_part *parts, uint32_t n)
{
    order(s, CLEAN);
    for (uint32_t i = 0; i < n; i++) {
        assert(parts[i].bytes && parts[i].from + parts[i].bytes <= from->bytes && parts[i].to + parts[i].bytes <= to->bytes);
        s->device->vk.vkCmdCopyBuffer(s->commands, from->handle, to->handle, 1, &(VkBufferCopy){.srcOffset = parts[i].from, .dstOffset = parts[i].to, .size = parts[i].bytes});
    }
    s->state = USED;
}

void vkm_slicer_gather(vkm_slicer *s, vkm_buffer *buffer, const struct vkm_part *parts, uint32_t n) { copy_parts(s, buffer, buffer, parts, n); }

bool vkm_slicer_copy(vkm_slicer *s, vkm_buffer *from, vkm_buffer *to, const struct vkm_part *parts, uint32_t n)
{
    struct vkm_op op = {.is_copy = true};
    for (uint32_t i = 0; i < n; i++) op.bytes += parts[i].bytes;
    double model = STEP_NS + vkm_op_seconds(s->device, &op) * 1e9, ns = model * (s->copy_scale > 0 ? s->copy_scale : s->scale);
    if (s->n_dispatches >= s->most_dispatches || (s->n_dispatches && s->used_ns + ns > s->most_ns)) return false;
    copy_parts(s, from, to, parts, n);
    if (s->open->n_items < ITEMS) s->open->items[s->open->n_items++] = (struct item){.kind = COPIES, .part = (float)model};
    s->open->guessed |= s->copy_scale <= 0;
    s->used_ns += ns;
    s->n_dispatches++;
    return true;
}

/* How many workgroups of a direct step, or the one that a copy or an indirect step counts as, the slice has room for. Pieces are not so small that most of their time is that of any step. */
static uint32_t room(const vkm_slicer *s, const struct vkm_op *op, uint32_t n, uint32_t left, double whole_ns)
{
    double free_ns = s->most_ns - s->used_ns;
    if (piece_ns(s, whole_ns, (double)left / n) <= free_ns) return left;
    bool divisible = !op->is_copy && !op->step.indirect && n > 1 && whole_ns > s->least_ns;
    if (!divisible || (s->n_dispatches && whole_ns < s->most_ns / 8)) return s->n_dispatches ? 0 : left;     /* alone in a slice; or not worth being divided */
    double fit = (free_ns - s->least_ns) / (whole_ns - s->least_ns) * n, least = ceil(PIECE_LEAST * s->least_ns / whole_ns * n);
    if (fit < least) {
        if (s->n_dispatches) return 0;
        fit = least;
    }
    return fit < 1 ? 1 : fit < left ? (uint32_t)fit : left;
}

static void record(vkm_slicer *s, const vkm_program *p, const struct vkm_op *op, uint32_t first, uint32_t n)
{
    if (op->is_copy) {
        vkm_op_copy(p->device, s->commands, op);
        return;
    }
    vkm_step_bind(p->device, s->commands, &op->step, &s->set, &s->pipeline);
    vkm_step_record(p->device, s->commands, &op->step, vkm_step_axis(&op->step), first, n);
}

bool vkm_slicer_run(vkm_slicer *s, vkm_program *p, struct vkm_cursor *at, double load)
{
    bool copies = false, first = true;
    for (; at->op < p->n_ops; at->op++, at->group = 0) {
        const struct vkm_op *op = &p->ops[at->op];
        bool whole = op->is_copy || op->step.indirect || !op->step.groups[vkm_step_axis(&op->step)];
        uint32_t n = whole ? 1 : op->step.groups[vkm_step_axis(&op->step)], left = n - at->group;
        double whole_ns = expected_ns(s, op->kind, load);
        uint32_t take = s->n_dispatches >= s->most_dispatches ? 0 : room(s, op, n, left, whole_ns);
        if (!take) return false;
        copies |= op->is_copy;
        if (first) order(s, CLEAN);
        else if (op->barrier) {
            vkm_op_barrier(p, s->commands, at->op, copies, false);
            stamp_between(s);
        }
        first = false;
        record(s, p, op, at->group, whole ? op->is_copy ? 1 : op->step.groups[vkm_step_axis(&op->step)] : take);
        s->state = USED;
        s->n_dispatches++;
        s->used_ns += piece_ns(s, whole_ns, (double)take / n);
        s->open->guessed |= s->kinds[op->kind].n < 1;
        if (s->open->n_items < ITEMS) s->open->items[s->open->n_items++] = (struct item){.kind = op->kind, .part = (float)take / (float)n, .load = (float)load};
        if (take < left) {
            at->group += take;
            return false;
        }
    }
    return true;
}

bool vkm_slicer_fits(const vkm_slicer *s, const vkm_program *p, double load, uint32_t max_us)
{
    for (uint32_t i = 0; max_us && i < p->n_ops; i++)
        if (!p->ops[i].is_copy && p->ops[i].step.indirect && expected_ns(s, p->ops[i].kind, load) > capacity_ns(s, max_us * 1e3)) return false;
    return true;
}

uint64_t vkm_slicer_end(vkm_slicer *s, uint32_t *n_dispatches, double *expected_us)
{
    stamp(s, true);
    vkm_host_barrier(s->device, s->commands);
    s->open->expected_ns = s->used_ns;
    s->open = NULL;
    *n_dispatches = s->n_dispatches;
    *expected_us = s->used_ns * 1e-3;
    return ++s->last;
}

/* ------------------------------------------------ afterwards */

/* Nanoseconds from timestamp i to j. */
static double between(const vkm_slicer *s, const uint64_t *stamps, uint32_t i, uint32_t j)
{
    const struct vkm_caps *caps = &s->device->caps;
    uint64_t mask = caps->timestamp_bits < 64 ? (UINT64_C(1) << caps->timestamp_bits) - 1 : UINT64_MAX;
    return (double)((stamps[j] - stamps[i]) & mask) * caps->timestamp_ns;
}

/* What timestamps say about a slice: its time, 0 if they say nothing. */
static vkm_result read_stamps(vkm_slicer *s, struct slice *slice, double *ns, vkm_error *err)
{
    uint64_t stamps[QUERIES];
    *ns = 0;
    if (!s->queries || slice->n_stamps < 2) return VKM_OK;
    VkResult r = s->device->vk.vkGetQueryPoolResults(s->device->handle, s->queries, first_query(s, slice), slice->n_stamps, sizeof stamps, stamps, sizeof *stamps, VK_QUERY_RESULT_64_BIT);
    if (r == VK_NOT_READY) return VKM_OK;                   /* it has not been executed, whatever the caller says, or the driver is late */
    if (r != VK_SUCCESS) return vkm_fail_vk(s->device, err, r, "reading the timestamps of a slice");
    *ns = between(s, stamps, 0, slice->n_stamps - 1);
    for (uint32_t i = 1; i < slice->n_whole; i++) learn_from(s, slice, slice->items_before[i - 1], slice->items_before[i], between(s, stamps, i - 1, i));
    return VKM_OK;
}

vkm_result vkm_slicer_completed(vkm_slicer *s, uint64_t number, double *us, vkm_error *err)
{
    assert(number <= s->last);
    double given = *us;
    while (s->completed < number) {
        struct slice *slice = &s->slices[++s->completed % VKM_SLICES];
        double ns = given * 1e3;
        if (s->completed < number || given <= 0) {
            vkm_result r = read_stamps(s, slice, &ns, err);
            if (r) return r;
        } else if (slice->n_items < ITEMS) learn_from(s, slice, 0, slice->n_items, ns);
        learn_excess(s, slice, ns);
        *us = ns * 1e-3;
    }
    return VKM_OK;
}

void vkm_slicer_discard(vkm_slicer *s) { s->completed = s->last; }
uint64_t vkm_slicer_last(const vkm_slicer *s) { return s->last; }
uint32_t vkm_slicer_in_flight(const vkm_slicer *s) { return (uint32_t)(s->last - s->completed); }

/* ------------------------------------------------ the device's own queue */

vkm_result vkm_commands_begin(vkm_device *device, void **commands, vkm_error *err)
{
    VkCommandBuffer own;
    vkm_result r = vkm_transient_begin(device, &own, err);
    if (!r) *commands = own;
    return r;
}

vkm_result vkm_commands_submit(vkm_device *device, uint64_t *ticket, vkm_error *err) { return vkm_queue_flush(device, ticket, err); }
