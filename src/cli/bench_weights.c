/* Synthetic weights for `bench layer`: where the matrices of a layer go, and their values, which the device makes itself.
 * The router is a unit matrix: column e of the input is the logit of expert e, so that inputs can choose the routing while the true router and top-k do their work. */
#include "bench_device.h"
#include "model/arch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define MAX_SLAB_BYTES (2ull << 30)        /* as src/nn/weights.c has them */
#define FILL_LANES 64
#define FILL_PANELS 32768u                 /* of a dispatch: below the workgroups that Vulkan promises in y */

/* ---------------------------------------------------------------- placing: the rules of src/nn/weights.c */

static bool grow(void **at, uint32_t n, size_t each)       /* room for one more */
{
    if (n & (n - 1)) return true;                          /* capacity doubles at powers of two */
    void *p = realloc(*at, (n ? 2 * (size_t)n : 1) * each);
    if (p) *at = p;
    return p != NULL;
}

static bool add_table(struct bench_plan *p, uint32_t word)
{
    if (!grow((void **)&p->tables, p->n_tables, sizeof *p->tables)) return false;
    p->tables[p->n_tables++] = word;
    return true;
}

static bool add_chunk(struct bench_plan *p, uint32_t slab, uint32_t at)
{
    const uint32_t entry[VKM_CHUNK_WORDS] = {slab, at};    /* the address once there is one */
    for (uint32_t i = 0; i < VKM_CHUNK_WORDS; i++)
        if (!add_table(p, entry[i])) return false;
    return true;
}

static uint32_t first_slab_of(const struct bench_plan *p, uint32_t set)
{
    uint32_t i = p->n_slabs;
    while (i > 0 && p->slab_set[i - 1] == set) i--;
    return i;
}

static uint32_t chunk_panels(const struct vkm_weight *w, uint32_t c)
{
    uint32_t left = w->n_panels - c * w->chunk_panels;
    return left < w->chunk_panels ? left : w->chunk_panels;
}

/* Slabs more than now if the weight follows `used` bytes of the last one (no slab: slab_limit). */
static uint32_t slabs_needed(const struct bench_plan *p, const struct vkm_weight *w, uint64_t panel_bytes, uint64_t used)
{
    uint32_t slabs = 0;
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t c = 0; c < w->n_chunks; c++) {
            uint64_t bytes = chunk_panels(w, c) * panel_bytes;
            if (p->slab_limit - used < bytes) slabs++, used = 0;
            used += bytes;
        }
    return slabs;
}

static bool room(struct bench_plan *p, uint64_t bytes, uint32_t set)
{
    if (p->n_slabs && p->slab_set[p->n_slabs - 1] == set && p->slab_limit - p->slab_bytes[p->n_slabs - 1] >= bytes) return true;
    if (!grow((void **)&p->slab_bytes, p->n_slabs, sizeof *p->slab_bytes) || !grow((void **)&p->slab_set, p->n_slabs, sizeof *p->slab_set)) return false;
    p->slab_bytes[p->n_slabs] = 0;
    p->slab_set[p->n_slabs++] = set;
    p->n_sets = set + 1;
    return true;
}

static bool add_run(struct bench_plan *p, const struct vkm_weight *w, uint32_t at, uint32_t panels, uint32_t first_panel, bool identity, bool fresh)
{
    uint32_t slab = p->n_slabs - 1;
    struct bench_run *last = fresh ? NULL : &p->runs[p->n_runs - 1];
    if (last && last->slab == slab) {                      /* a weight's chunks lie behind each other within a slab */
        last->panels += panels;
        return true;
    }
    if (!grow((void **)&p->runs, p->n_runs, sizeof *p->runs)) return false;
    p->runs[p->n_runs++] = (struct bench_run){w->type, slab, at, panels, first_panel, w->kb, (float)(1 / sqrt(w->cols)), identity};
    return true;
}

static vkm_result place(struct bench_plan *p, struct vkm_weight *w, bool identity, const char *name, vkm_error *err)
{
    w->kb = vkm_div_up(w->cols, 32);
    w->n_panels = vkm_div_up(w->rows, w->glu ? VKM_PANEL_ROWS / 2 : VKM_PANEL_ROWS);
    if (w->glu && w->n_panels % 2) w->n_panels++;
    uint64_t panel_bytes = vkm_type_panel_bytes(w->type, w->kb), fit = p->slab_limit / panel_bytes;
    if (!fit) return vkm_fail(err, VKM_ERR_LIMIT, "%s: 32 rows are %llu bytes, the device's storage range is %llu", name, (unsigned long long)panel_bytes, (unsigned long long)p->slab_limit);
    w->chunk_panels = vkm_chunk_panels(fit, w->n_panels);
    w->n_chunks = vkm_div_up(w->n_panels, w->chunk_panels);
    uint32_t set = p->n_sets ? p->n_sets - 1 : 0, have = p->n_slabs - first_slab_of(p, set);
    if (have + slabs_needed(p, w, panel_bytes, have ? p->slab_bytes[p->n_slabs - 1] : p->slab_limit) > p->set_limit) {
        uint32_t needs = slabs_needed(p, w, panel_bytes, p->slab_limit);
        if (needs > p->set_limit)
            return vkm_fail(err, VKM_ERR_LIMIT, "%s needs %u storage buffers of %.4g MiB at once, the device binds %u", name, needs, (double)p->slab_limit / (1 << 20), p->set_limit);
        set++;
    }
    w->set = set;
    w->tab = p->n_tables;
    bool fresh = true;
    w->whole = true;
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t c = 0; c < w->n_chunks; c++, fresh = false) {
            uint64_t bytes = chunk_panels(w, c) * panel_bytes;
            if (!room(p, bytes, set)) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            uint64_t *used = &p->slab_bytes[p->n_slabs - 1];
            uint32_t at = (uint32_t)(*used / 16);
            if (!add_chunk(p, p->n_slabs - 1 - first_slab_of(p, set), at) || !add_run(p, w, at, chunk_panels(w, c), c * w->chunk_panels, identity, fresh))
                return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            if (fresh) w->slab = p->n_slabs - 1 - first_slab_of(p, set), w->at = at;       /* in every copy */
            w->whole = w->whole && w->slab == p->n_slabs - 1 - first_slab_of(p, set);
            *used += bytes;
            p->bytes += bytes;
        }
    return VKM_OK;
}

static uint64_t slab_limit(const struct vkm_caps *caps) { return (caps->storage_range < MAX_SLAB_BYTES ? caps->storage_range : MAX_SLAB_BYTES) / 16 * 16; }

static struct vkm_weight matrix(const struct vkm_type *type, uint32_t rows, uint32_t cols, uint32_t experts, bool glu)
{
    return (struct vkm_weight){.type = bench_type_for(type, cols), .rows = rows, .cols = cols, .experts = experts, .glu = glu};
}

static vkm_result place_all(struct bench_plan *p, const struct bench_shape *s, const struct vkm_type *type, vkm_error *err)
{
    struct vkm_moe *m = &p->moe;
    *m = (struct vkm_moe){.n_expert = s->n_expert, .n_used = s->n_used, .n_embd = s->n_embd, .score = s->score, .renormalise = s->renormalise, .weight_scale = 1, .shared_gated = s->shared_gated};
    m->router = matrix(bench_type_find("f32", 3), s->n_expert + s->shared_gated, s->n_embd, 1, false);
    m->gate_up = matrix(type, s->n_ff, s->n_embd, s->n_expert, true);
    m->down = matrix(type, s->n_embd, s->n_ff, s->n_expert, false);
    TRY(place(p, &m->router, true, "the router", err));
    TRY(place(p, &m->gate_up, false, "gate and up of the experts", err));
    TRY(place(p, &m->down, false, "down of the experts", err));
    if (s->n_ff_shared) {
        m->shared_gate_up = matrix(type, s->n_ff_shared, s->n_embd, 1, true);
        m->shared_down = matrix(type, s->n_embd, s->n_ff_shared, 1, false);
        TRY(place(p, &m->shared_gate_up, false, "gate and up of the shared expert", err));
        TRY(place(p, &m->shared_down, false, "down of the shared expert", err));
    }
    while (p->n_tables % 4)
        if (!add_table(p, 0)) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    p->tab_norm = p->n_tables;
    const float one = 1;
    uint32_t bits;
    memcpy(&bits, &one, 4);
    for (uint32_t i = 0; i < s->n_embd; i++)
        if (!add_table(p, bits)) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    return VKM_OK;
}

vkm_result bench_plan_experts(const struct vkm_caps *caps, const struct vkm_type *type, uint32_t rows, uint32_t cols, uint32_t experts, struct bench_plan *plan, vkm_error *err)
{
    *plan = (struct bench_plan){.slab_limit = slab_limit(caps), .set_limit = caps->texel_loads ? 1 : caps->slabs};
    plan->moe.down = matrix(type, rows, cols, experts, false);
    vkm_result r = place(plan, &plan->moe.down, false, "the experts' matrices", err);
    if (r) bench_plan_destroy(plan);
    return r;
}

vkm_result bench_plan_create(const struct vkm_caps *caps, const struct bench_shape *shape, const struct vkm_type *type, struct bench_plan *plan, vkm_error *err)
{
    *plan = (struct bench_plan){.slab_limit = slab_limit(caps), .set_limit = caps->texel_loads ? 1 : caps->slabs};
    if (shape->n_expert > VKM_MAX_EXPERTS || shape->n_used > VKM_MAX_USED)
        return vkm_fail(err, VKM_ERR_LIMIT, "%u experts, %u for a token: the library takes up to %u and %u", shape->n_expert, shape->n_used, VKM_MAX_EXPERTS, VKM_MAX_USED);
    if (shape->n_expert + shape->shared_gated > shape->n_embd)
        return vkm_fail(err, VKM_ERR_LIMIT, "%u experts are more than the %u columns whose values choose among them", shape->n_expert, shape->n_embd);
    vkm_result r = place_all(plan, shape, type, err);
    if (r) bench_plan_destroy(plan);
    return r;
}

void bench_plan_destroy(struct bench_plan *p)
{
    free(p->slab_bytes), free(p->slab_set), free(p->tables), free(p->runs);
    *p = (struct bench_plan){0};
}

/* ---------------------------------------------------------------- making */

static vkm_result add_fill(vkm_device *device, vkm_program *program, const vkm_bindings *bindings, const struct bench_run *run, uint32_t seed, vkm_error *err)
{
    uint64_t panel_bytes = vkm_type_panel_bytes(run->type, run->kb);
    const uint32_t spec[] = {FILL_LANES, 1};
    for (uint32_t done = 0; done < run->panels; ) {
        uint32_t n = run->panels - done < FILL_PANELS ? run->panels - done : FILL_PANELS;
        struct vkm_push_bench_weights push = {.at = run->at + (uint32_t)(done * (panel_bytes / 16)), .kb = run->kb, .first_panel = run->first_panel + done, .seed = seed,
                                              .identity = run->identity, .planes = vkm_device_caps(device)->scalar_loads, .scale = run->scale};
        struct vkm_step step = {.bindings = bindings, .groups = {vkm_div_up((uint32_t)(panel_bytes / 16), FILL_LANES), n, 1}, .bytes = n * panel_bytes, .n_writes = 1,
                                .writes = {{NULL, (uint64_t)push.at * 16, (uint64_t)push.at * 16 + n * panel_bytes}}};
        VKM_STEP_PUSH(step, push);
        TRY(vkm_kernel_get(device, "bench_weights", run->type->variant, spec, 2, &step.kernel, err));
        TRY(vkm_program_add(program, &step, err));
        done += n;
    }
    return VKM_OK;
}

/* Fills one slab, which is bound as the workspace. */
static vkm_result fill(vkm_device *device, const struct bench_plan *plan, uint32_t slab, vkm_buffer *buffer, vkm_buffer *tables, uint32_t seed, vkm_error *err)
{
    vkm_bindings *bindings = NULL;
    vkm_program *program = NULL;
    vkm_result r = vkm_bindings_create(device, buffer, tables, NULL, 0, NULL, 0, &bindings, err);
    if (!r) r = vkm_program_create(device, "bench_weights", &program, err);
    for (uint32_t i = 0; !r && i < plan->n_runs; i++)
        if (plan->runs[i].slab == slab) r = add_fill(device, program, bindings, &plan->runs[i], seed, err);
    if (!r) r = vkm_program_finish(program, err);
    if (!r) r = bench_run_once(device, program, err);
    vkm_program_destroy(program);
    vkm_bindings_destroy(bindings);
    return r;
}

/* A copy's tables: the plan's, with the device addresses of its slabs. */
static vkm_result upload_tables(vkm_device *device, const struct bench_plan *plan, uint32_t copy, const struct bench_weights *w, vkm_error *err)
{
    const struct vkm_weight *all[] = {&plan->moe.router, &plan->moe.gate_up, &plan->moe.down, &plan->moe.shared_gate_up, &plan->moe.shared_down};
    vkm_buffer *const *slabs = w->slabs + (size_t)copy * plan->n_slabs;
    uint64_t bytes = (uint64_t)plan->n_tables * 4;
    uint32_t *tables = malloc(bytes);
    if (!tables) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    memcpy(tables, plan->tables, bytes);
    for (size_t i = 0; i < VKM_COUNT(all) && vkm_device_caps(device)->scalar_loads; i++) {
        uint32_t first = 0, *entry = tables + all[i]->tab;
        if (!all[i]->type) continue;
        while (plan->slab_set[first] != all[i]->set) first++;
        for (uint32_t c = 0; c < all[i]->experts * all[i]->n_chunks; c++, entry += VKM_CHUNK_WORDS) {
            uint64_t address = vkm_buffer_address(slabs[first + entry[0]]) + (uint64_t)entry[1] * 16;
            entry[2] = (uint32_t)address;
            entry[3] = (uint32_t)(address >> 32);
        }
    }
    vkm_result r = vkm_upload_all(device, w->tables, copy * bytes, tables, bytes, err);
    free(tables);
    return r;
}

static vkm_result create_copy(vkm_device *device, const struct bench_plan *plan, uint32_t copy, uint32_t seed, vkm_buffer *workspace, struct bench_weights *w, vkm_error *err)
{
    vkm_buffer **slabs = w->slabs + w->made_slabs;
    for (uint32_t i = 0; i < plan->n_slabs; i++) {
        TRY(vkm_buffer_create(device, VKM_BUFFER_DEVICE, plan->slab_bytes[i], "weights", &slabs[i], err));
        w->made_slabs++;
        TRY(fill(device, plan, i, slabs[i], w->tables, (seed + w->made_slabs) * 0x85ebca6bu, err));
    }
    TRY(upload_tables(device, plan, copy, w, err));
    for (uint32_t set = 0, first = 0; set < plan->n_sets; set++) {
        uint32_t n = 0;
        while (first + n < plan->n_slabs && plan->slab_set[first + n] == set) n++;
        TRY(vkm_bindings_create(device, workspace, w->tables, slabs + first, n, NULL, 0, &w->sets[w->made_sets], err));
        w->made_sets++;
        first += n;
    }
    return VKM_OK;
}

vkm_result bench_weights_create(vkm_device *device, const struct bench_plan *plan, uint32_t n_copies, uint32_t seed, vkm_buffer *workspace, struct bench_weights *w, vkm_error *err)
{
    *w = (struct bench_weights){.n_copies = n_copies, .n_slabs = plan->n_slabs, .n_sets = plan->n_sets};
    w->slabs = calloc((size_t)n_copies * plan->n_slabs, sizeof *w->slabs);
    w->sets = calloc((size_t)n_copies * plan->n_sets, sizeof *w->sets);
    vkm_result r = w->slabs && w->sets ? VKM_OK : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    if (!r) r = vkm_buffer_create(device, VKM_BUFFER_DEVICE, (uint64_t)n_copies * plan->n_tables * 4, "tables", &w->tables, err);
    for (uint32_t i = 0; !r && i < n_copies; i++) {
        r = create_copy(device, plan, i, seed, workspace, w, err);
        if (!r && interrupted()) r = vkm_fail(err, VKM_ERR_CANCELLED, "interrupted");
    }
    if (r) bench_weights_destroy(w);
    return r;
}

struct vkm_moe bench_weights_moe(const struct bench_plan *plan, uint32_t copy)
{
    struct vkm_moe moe = plan->moe;
    struct vkm_weight *const all[] = {&moe.router, &moe.gate_up, &moe.down, &moe.shared_gate_up, &moe.shared_down};
    for (size_t i = 0; i < VKM_COUNT(all); i++) all[i]->tab += copy * plan->n_tables;
    return moe;
}

void bench_weights_destroy(struct bench_weights *w)
{
    for (uint32_t i = 0; w->sets && i < w->made_sets; i++) vkm_bindings_destroy(w->sets[i]);
    for (uint32_t i = 0; w->slabs && i < w->made_slabs; i++) vkm_buffer_destroy(w->slabs[i]);
    vkm_buffer_destroy(w->tables);
    free(w->sets), free(w->slabs);
    *w = (struct bench_weights){0};
}
