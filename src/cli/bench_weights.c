/* Synthetic weights for `bench layer`: where the matrices of a layer go, and their values, which the device makes itself.
 * The router is a unit matrix: column e of the input is the logit of expert e, so that inputs can choose the routing while the true router and top-k do their work. */
#include "bench_device.h"
#include "model/arch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define FILL_LANES 64
#define FILL_PANELS 32768u                 /* of a dispatch: below the workgroups that Vulkan promises in y */

/* ---------------------------------------------------------------- placing */

static bool add_run(struct bench_plan *p, const struct bench_run *run)
{
    if (!(p->n_runs & (p->n_runs - 1))) {                  /* capacity doubles at powers of two */
        void *more = realloc(p->runs, (p->n_runs ? 2 * (size_t)p->n_runs : 1) * sizeof *p->runs);
        if (!more) return false;
        p->runs = more;
    }
    p->runs[p->n_runs++] = *run;
    return true;
}

/* As a model's would be; chunks of a matrix that lie behind each other in a slab are one run. */
static vkm_result place(struct bench_plan *p, struct vkm_weight *w, bool identity, const char *name, vkm_error *err)
{
    TRY(vkm_plan_add(p->weights, w, &(struct vkm_source){.rows = w->rows}, 1, name, err));
    const uint32_t *entry = vkm_plan_tables(p->weights) + w->tab;
    struct bench_run run = {.type = w->type, .slab = VKM_NONE, .kb = w->kb, .scale = (float)(1 / sqrt(w->cols)), .identity = identity};
    for (uint32_t i = 0; i < w->experts * w->n_chunks; i++, entry += VKM_CHUNK_WORDS) {
        uint32_t first = i % w->n_chunks * w->chunk_panels, panels = w->n_panels - first < w->chunk_panels ? w->n_panels - first : w->chunk_panels;
        uint32_t slab = vkm_plan_first_slab(p->weights, w->set) + entry[0];
        if (slab == run.slab) run.panels += panels;
        else {
            if (run.panels && !add_run(p, &run)) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            run.slab = slab, run.at = entry[1], run.first_panel = first, run.panels = panels;
        }
    }
    return add_run(p, &run) ? VKM_OK : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
}

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
    TRY(place(p, &m->router, true, "ffn_gate_inp", err));
    TRY(place(p, &m->gate_up, false, "ffn_gate_exps and ffn_up_exps", err));
    TRY(place(p, &m->down, false, "ffn_down_exps", err));
    if (s->n_ff_shared) {
        m->shared_gate_up = matrix(type, s->n_ff_shared, s->n_embd, 1, true);
        m->shared_down = matrix(type, s->n_embd, s->n_ff_shared, 1, false);
        TRY(place(p, &m->shared_gate_up, false, "ffn_gate_shexp and ffn_up_shexp", err));
        TRY(place(p, &m->shared_down, false, "ffn_down_shexp", err));
    }
    float *ones = malloc(s->n_embd * sizeof *ones);
    for (uint32_t i = 0; ones && i < s->n_embd; i++) ones[i] = 1;
    p->tab_norm = ones ? vkm_plan_table(p->weights, ones, s->n_embd) : VKM_NONE;
    free(ones);
    return p->tab_norm != VKM_NONE ? VKM_OK : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
}

/* Slabs, sets, bytes and tables of what has been placed; without anything where r says that it failed. */
static vkm_result finish(struct bench_plan *p, vkm_result r)
{
    while (!r && vkm_plan_slab_bytes(p->weights, p->n_slabs)) p->n_slabs++;
    if (r) {
        bench_plan_destroy(p);
        return r;
    }
    p->n_sets = vkm_plan_slab_set(p->weights, p->n_slabs - 1) + 1;
    p->bytes = vkm_plan_bytes(p->weights);
    p->n_tables = vkm_plan_table_words(p->weights);
    return VKM_OK;
}

vkm_result bench_plan_experts(const struct vkm_caps *caps, const struct vkm_type *type, uint32_t rows, uint32_t cols, uint32_t experts, struct bench_plan *plan, vkm_error *err)
{
    *plan = (struct bench_plan){.moe.down = matrix(type, rows, cols, experts, false)};
    TRY(vkm_plan_create(caps, &plan->weights, err));
    return finish(plan, place(plan, &plan->moe.down, false, "ffn_down_exps", err));
}

vkm_result bench_plan_create(const struct vkm_caps *caps, const struct bench_shape *shape, const struct vkm_type *type, struct bench_plan *plan, vkm_error *err)
{
    *plan = (struct bench_plan){0};
    if (shape->n_expert > VKM_MAX_EXPERTS || shape->n_used > VKM_MAX_USED)
        return vkm_fail(err, VKM_ERR_LIMIT, "%u experts, %u for a token: the library takes up to %u and %u", shape->n_expert, shape->n_used, VKM_MAX_EXPERTS, VKM_MAX_USED);
    if (shape->n_expert + shape->shared_gated > shape->n_embd)
        return vkm_fail(err, VKM_ERR_LIMIT, "%u experts are more than the %u columns whose values choose among them", shape->n_expert, shape->n_embd);
    TRY(vkm_plan_create(caps, &plan->weights, err));
    return finish(plan, place_all(plan, shape, type, err));
}

void bench_plan_destroy(struct bench_plan *p)
{
    vkm_plan_destroy(p->weights);
    free(p->runs);
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
    memcpy(tables, vkm_plan_tables(plan->weights), bytes);
    for (size_t i = 0; i < VKM_COUNT(all) && vkm_device_caps(device)->scalar_loads; i++) {
        uint32_t first = vkm_plan_first_slab(plan->weights, all[i]->set), *entry = tables + all[i]->tab;
        if (!all[i]->type) continue;
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
        TRY(vkm_buffer_create(device, VKM_BUFFER_DEVICE, vkm_plan_slab_bytes(plan->weights, i), "weights", &slabs[i], err));
        w->made_slabs++;
        TRY(fill(device, plan, i, slabs[i], w->tables, (seed + w->made_slabs) * 0x85ebca6bu, err));
    }
    TRY(upload_tables(device, plan, copy, w, err));
    for (uint32_t set = 0, first = 0; set < plan->n_sets; set++) {
        uint32_t n = 0;
        while (first + n < plan->n_slabs && vkm_plan_slab_set(plan->weights, first + n) == set) n++;
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
