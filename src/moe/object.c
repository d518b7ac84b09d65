#include "object.h"
#include "matrices.h"
#include <stdlib.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

#define WIDTH_MOST (1u << 18)      /* of a row; sizes in bytes and words then cannot overflow */
#define SLOTS_MOST (1u << 24)
#define ARRIVED_WORDS 1024u        /* as many panels as outputs may have to be added up by the experts themselves */

/* ---------------------------------------------------------------- weights */

static vkm_result check_desc(const vkm_moe_layer_desc *d, vkm_error *err)
{
    if (!d->router) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: there is no router");
    if (!d->n_embd || d->n_embd > WIDTH_MOST || !d->n_ff || d->n_ff > WIDTH_MOST || d->n_ff_shared > WIDTH_MOST)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: n_embd %u, n_ff %u, n_ff_shared %u; 1 to %u are possible, and 0 for no shared expert", d->n_embd, d->n_ff, d->n_ff_shared, WIDTH_MOST);
    return VKM_OK;
}

static void release_set(struct vkm_moe_set *s)
{
    if (!s || --s->users) return;
    vkm_buffer_destroy(s->tables);
    vkm_slabs_destroy(&s->slabs);
    free(s);
}

static vkm_result upload(struct vkm_moe_set *s, struct vkm_plan *plan, vkm_error *err)
{
    uint64_t need = vkm_plan_bytes(plan), have = vkm_device_budget(s->device);
    if (need > have) return vkm_fail(err, VKM_ERR_DEVICE_MEMORY, "MoE layer: the weights need %.2f MiB of device memory, %s has %.2f MiB left", (double)need / 0x1p20, vkm_device_caps(s->device)->device_name, (double)have / 0x1p20);
    TRY(vkm_plan_upload(plan, s->device, &(struct vkm_upload){0}, &s->slabs, err));
    vkm_result r = vkm_tables_create(s->device, s->slabs.tables, s->slabs.n_tables, &s->tables, err);
    free(s->slabs.tables);             /* the device has them */
    s->slabs.tables = NULL;
    return r;
}

/* The rule's arrays go into the tables; its offsets are known once they are there. */
static vkm_result place_rule(struct vkm_moe_set *s, const vkm_router_desc *d, struct vkm_plan *plan, vkm_error *err)
{
    uint64_t words = vkm_moe_rule_tables(&s->rule, d, s->moe.router.rows, 0, NULL);
    if (!words) return VKM_OK;
    uint32_t *to = words < UINT32_MAX / 4 ? malloc(words * sizeof *to) : NULL, at = VKM_NONE;
    if (to) {
        vkm_moe_rule_tables(&s->rule, d, s->moe.router.rows, 0, to);
        at = vkm_plan_table(plan, to, (uint32_t)words);
    }
    free(to);
    if (at == VKM_NONE) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    vkm_moe_rule_tables(&s->rule, d, s->moe.router.rows, at, NULL);
    return VKM_OK;
}

static vkm_result create_set(vkm_device *device, const vkm_moe_layer_desc *d, const vkm_moe_weights *w, struct vkm_moe_set **out, vkm_error *err)
{
    TRY(check_desc(d, err));
    struct vkm_plan *plan = NULL;
    struct vkm_moe_set *s = calloc(1, sizeof *s);
    if (!s) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    s->users = 1;
    s->device = device;
    vkm_result r = vkm_plan_create(vkm_device_caps(device), &plan, err);
    if (r == VKM_OK) r = vkm_moe_rule_init(d->router, d->n_expert, &s->rule, err);
    if (r == VKM_OK) {
        vkm_moe_use_rule(&s->moe, &s->rule);
        r = vkm_moe_place_weights(d, w, vkm_router_rows(d->router, d->n_expert), plan, &s->moe, err);
    }
    if (r == VKM_OK) r = place_rule(s, d->router, plan, err);
    if (r == VKM_OK) r = upload(s, plan, err);
    vkm_plan_destroy(plan);
    if (r != VKM_OK) {
        release_set(s);
        return r;
    }
    s->widths = (struct vkm_moe_widths){d->n_embd, d->n_ff, d->n_ff_shared, s->moe.gate.type != NULL, s->moe.shared_gate.type != NULL};
    *out = s;
    return VKM_OK;
}

/* ---------------------------------------------------------------- workspace */

static void release_workspace(struct vkm_moe_workspace *w)
{
    if (!w || --w->users) return;
    vkm_buffer_destroy(w->buffer);
    free(w);
}

/* Room for the largest x of a matmul in a form: one at a time is kept. */
static struct vkm_region take_form(struct vkm_moe_layer *l, uint32_t form, const struct vkm_moe_plan *p)
{
    const struct vkm_caps *caps = vkm_device_caps(l->device);
    const struct vkm_moe_widths *w = &l->set->widths;
    const uint64_t each[] = {vkm_form_words(caps, form, l->max_tokens, w->n_embd), vkm_form_words(caps, form, p->x_rows, w->n_embd), vkm_form_words(caps, form, p->n * p->k, w->n_ff),
                             vkm_form_words(caps, form, l->max_tokens, w->n_ff_shared)};
    uint64_t words = 0;
    for (uint32_t i = 0; i < VKM_COUNT(each); i++) if (each[i] > words) words = each[i];
    struct vkm_region r = {(uint32_t)l->words, 1, (uint32_t)words};
    l->words += vkm_align(words, VKM_PANEL_ROWS);
    return r;
}

static vkm_result plan_workspace(struct vkm_moe_layer *l, vkm_error *err)
{
    const struct vkm_moe *m = &l->set->moe;
    uint64_t range = vkm_device_caps(l->device)->storage_range, each = m->n_used ? m->n_used : m->n_expert;
    if (l->max_tokens * each > SLOTS_MOST) return vkm_fail(err, VKM_ERR_LIMIT, "MoE layer: %u tokens with %llu experts each are more than %u", l->max_tokens, (unsigned long long)each, SLOTS_MOST);
    const struct vkm_moe_plan p = vkm_moe_plan(m, &l->space, (struct vkm_region){0}, l->max_tokens);
    l->words = 0;
    l->space.arrived = vkm_take(&l->words, 1, ARRIVED_WORDS);     /* first, so that all layers of a workspace have it in one place */
    l->in = vkm_take(&l->words, l->max_tokens, m->n_embd);
    l->out = vkm_take(&l->words, l->max_tokens, m->n_embd);
    if (!p.whole) l->mixed = vkm_take(&l->words, l->max_tokens, m->n_embd);
    vkm_moe_router_place(m, l->max_tokens, true, &l->words, &l->space);
    vkm_moe_experts_place(&l->set->widths, l->max_tokens, (uint64_t)p.n * p.k, &l->words, &l->space);
    for (uint32_t f = 0; f < VKM_FORMS; f++) l->inputs.form[f] = take_form(l, f, &p);
    if (l->words * 4 > range)
        return vkm_fail(err, VKM_ERR_LIMIT, "MoE layer: the workspace for %u tokens needs %llu bytes, the device's storage range is %llu", l->max_tokens, (unsigned long long)l->words * 4, (unsigned long long)range);
    return VKM_OK;
}

static vkm_result create_workspace(struct vkm_moe_layer *l, vkm_error *err)
{
    uint64_t bytes = l->words * 4, have = vkm_device_budget(l->device);
    if (bytes > have) return vkm_fail(err, VKM_ERR_DEVICE_MEMORY, "MoE layer: the workspace for %u tokens needs %.2f MiB, the device has %.2f MiB left", l->max_tokens, (double)bytes / 0x1p20, (double)have / 0x1p20);
    struct vkm_moe_workspace *w = calloc(1, sizeof *w);
    if (!w) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    w->users = 1;
    l->workspace = w;
    TRY(vkm_buffer_create(l->device, VKM_BUFFER_DEVICE, bytes, "MoE workspace", &w->buffer, err));
    static const uint32_t zeros[ARRIVED_WORDS];      /* where workgroups count themselves */
    return vkm_upload_all(l->device, w->buffer, (uint64_t)l->space.arrived.at * 4, zeros, sizeof zeros, err);
}

static vkm_result share_workspace(struct vkm_moe_layer *l, struct vkm_moe_layer *of, vkm_error *err)
{
    if (of->device != l->device) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: workspace_of is a layer of another device");
    if (l->words * 4 > vkm_buffer_size(of->workspace->buffer))
        return vkm_fail(err, VKM_ERR_LIMIT, "MoE layer: the workspace for %u tokens needs %llu bytes, that of workspace_of has %llu", l->max_tokens, (unsigned long long)l->words * 4,
                        (unsigned long long)vkm_buffer_size(of->workspace->buffer));
    l->workspace = of->workspace;
    l->workspace->users++;
    return VKM_OK;
}

static vkm_result create_bindings(struct vkm_moe_layer *l, vkm_error *err)
{
    const struct vkm_slabs *s = &l->set->slabs;
    l->sets = calloc(s->n_sets, sizeof *l->sets);
    if (!l->sets) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (; l->n_sets < s->n_sets; l->n_sets++)
        TRY(vkm_bindings_create(l->device, l->workspace->buffer, l->set->tables, s->slabs + s->sets[l->n_sets].first, s->sets[l->n_sets].count, NULL, 0, &l->sets[l->n_sets], err));
    return VKM_OK;
}

/* ---------------------------------------------------------------- steps */

static vkm_result add_steps(struct vkm_moe_layer *l, uint32_t n, uint32_t variant, vkm_error *err)
{
    const struct vkm_moe *m = &l->set->moe;
    struct vkm_build b = {.device = l->device, .shape = l->shape, .tuning = l->is_tuned ? &l->tuning : NULL, .program = l->program, .workspace = l->workspace->buffer, .sets = l->sets, .layer = -1,
                          .err = err, .inputs = l->inputs};
    struct vkm_moe_space s = l->space;
    if (!(variant & VKM_MOE_WATCHED)) s.router.all_probs.rows = s.router.lse.rows = s.router.missed.rows = s.router.statistics.rows = 0;
    if (!(variant & VKM_MOE_WEIGHTED)) s.router.given_weights.rows = 0;
    struct vkm_combine c = {.x = l->out, .width = m->n_embd, .y = s.y, .n_add = m->n_used, .tab_norm = VKM_NONE, .scale = 1};
    const struct vkm_residual residual = {l->out, 1, s.arrived.at};
    bool adds = vkm_moe_adds(&b, m, &s, n);
    TRY(vkm_moe_steps(&b, m, &s, NULL, adds ? &residual : NULL, l->in, n));
    if (adds) return VKM_OK;
    if (l->mixed.rows) {
        TRY(vkm_moe_combine(&b, m, &s, l->mixed, n));
        c.y = l->mixed;
        c.n_add = 1;
    }
    if (m->shared_down.type) c.shared = s.shared_y;
    if (m->shared_gated) c.gate = s.gate;
    return vkm_combine_norm(&b, "moe_add", &c, 0, n);
}

vkm_result vkm_moe_layer_build(struct vkm_moe_layer *l, uint32_t n, uint32_t variant, vkm_error *err)
{
    if (l->n == n && l->variant == variant) return VKM_OK;
    l->n = 0;
    vkm_program_reset(l->program);
    TRY(add_steps(l, n, variant, err));
    TRY(vkm_program_prepare(l->program, err));
    l->n = n;
    l->variant = variant;
    return VKM_OK;
}

static bool can_be(const struct vkm_moe_layer *l, uint32_t variant)
{
    const struct vkm_moe_router_space *r = &l->space.router;
    return (!(variant & VKM_MOE_WATCHED) || r->statistics.rows) && (!(variant & VKM_MOE_WEIGHTED) || r->given_weights.rows);
}

/* Finds the kernels of every number of tokens, and makes room for the most steps of any, so that nothing is left to be made when recording. */
static vkm_result make_kernels(struct vkm_moe_layer *l, vkm_error *err)
{
    uint32_t n_most = 1, variant_most = 0, most = 0;
    for (uint32_t v = 0; v < VKM_MOE_VARIANTS; v++)
        for (uint32_t n = 1; can_be(l, v) && n <= l->max_tokens; n++) {
            vkm_program_reset(l->program);
            TRY(add_steps(l, n, v, err));
            if (vkm_program_op_count(l->program) > most) most = vkm_program_op_count(l->program), n_most = n, variant_most = v;
        }
    TRY(vkm_kernels_compile_found(l->device, err));
    return vkm_moe_layer_build(l, n_most, variant_most, err);
}

/* ---------------------------------------------------------------- the object */

static void load_tuning(struct vkm_moe_layer *l, const char *folder)
{
    const struct vkm_tuning_key key = vkm_tuning_key_of(vkm_device_caps(l->device), &l->shape);
    const char *why;
    l->is_tuned = vkm_tuning_load(folder, &key, &l->tuning, &why);
    if (why) vkm_logf(l->device, VKM_LOG_INFO, "the tuning in %s is not used: %s", folder, why);
}

static vkm_result create(struct vkm_moe_layer *l, const vkm_moe_layer_desc *d, const vkm_moe_weights *w, const struct vkm_shape *shape, vkm_error *err)
{
    l->max_tokens = d->max_tokens;
    if (!l->max_tokens) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: max_tokens is 0");
    if (d->weights_of) {
        if (w) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: weights and weights_of are both given");
        if (d->weights_of->device != l->device) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: weights_of is a layer of another device");
        l->set = d->weights_of->set;
        l->set->users++;
    } else {
        if (!w) return vkm_fail(err, VKM_ERR_ARGUMENT, "MoE layer: there are no weights");
        TRY(create_set(l->device, d, w, &l->set, err));
    }
    if (shape) l->shape = *shape;
    else vkm_shape_choose(vkm_device_caps(l->device), &l->shape);
    if (d->tuning_folder) load_tuning(l, d->tuning_folder);
    TRY(plan_workspace(l, err));
    TRY(d->workspace_of ? share_workspace(l, d->workspace_of, err) : create_workspace(l, err));
    TRY(create_bindings(l, err));
    TRY(vkm_program_create(l->device, "MoE layer", &l->program, err));
    return make_kernels(l, err);
}

vkm_result vkm_moe_layer_create(vkm_device *device, const vkm_moe_layer_desc *desc, const vkm_moe_weights *weights, vkm_moe_layer **layer, vkm_error *err)
{
    return vkm_moe_layer_make(device, desc, weights, NULL, layer, err);
}

vkm_result vkm_moe_layer_make(vkm_device *device, const vkm_moe_layer_desc *desc, const vkm_moe_weights *weights, const struct vkm_shape *shape, vkm_moe_layer **layer, vkm_error *err)
{
    if (!device || !desc || !layer) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_create: device, desc and layer are required");
    vkm_moe_layer_desc d = {0};
    vkm_moe_weights w = {0};
    memcpy(&d, desc, desc->struct_size && desc->struct_size < sizeof d ? desc->struct_size : sizeof d);
    if (weights) memcpy(&w, weights, weights->struct_size && weights->struct_size < sizeof w ? weights->struct_size : sizeof w);
    struct vkm_moe_layer *l = calloc(1, sizeof *l);
    if (!l) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    l->device = device;
    vkm_result r = create(l, &d, weights ? &w : NULL, shape, err);
    if (r != VKM_OK) {
        vkm_moe_layer_destroy(l);
        return r;
    }
    *layer = l;
    return VKM_OK;
}

void vkm_moe_layer_destroy(vkm_moe_layer *l)
{
    if (!l) return;
    vkm_program_destroy(l->program);
    for (uint32_t i = 0; i < l->n_sets; i++) vkm_bindings_destroy(l->sets[i]);
    free(l->sets);
    release_workspace(l->workspace);
    release_set(l->set);
    free(l);
}

/* ---------------------------------------------------------------- recording */

static void copy_rows(struct vkm_moe_layer *l, void *commands, vkm_moe_place p, uint64_t stride, struct vkm_region r, uint32_t n, bool out)
{
    const uint64_t row = (uint64_t)l->set->moe.n_embd * 4;
    const struct vkm_foreign_rows rows = {.foreign = p.buffer, .foreign_offset = p.offset, .foreign_pitch = stride ? stride : row, .own = l->workspace->buffer, .own_offset = (uint64_t)r.at * 4,
                                          .own_pitch = (uint64_t)r.ld * 4, .row_bytes = row, .rows = n};
    vkm_record_rows(l->device, commands, &rows, out);
}

static void copy_words(struct vkm_moe_layer *l, void *commands, vkm_moe_place p, struct vkm_region r, uint64_t words, bool out)
{
    const struct vkm_foreign_rows rows = {.foreign = p.buffer, .foreign_offset = p.offset, .foreign_pitch = words * 4, .own = l->workspace->buffer, .own_offset = (uint64_t)r.at * 4, .own_pitch = words * 4,
                                          .row_bytes = words * 4, .rows = 1};
    if (p.buffer && words) vkm_record_rows(l->device, commands, &rows, out);
}

static vkm_result check_io(const struct vkm_moe_layer *l, const vkm_moe_io *io, uint32_t n, vkm_error *err)
{
    const uint64_t row = (uint64_t)l->set->moe.n_embd * 4;
    const vkm_router_desc *d = &l->set->rule.d;
    const vkm_moe_place places[] = {io->x, io->y, io->token_ids, io->noise, io->forced_ids, io->forced_weights, io->ids, io->weights, io->counts, io->dropped, io->statistics};
    if (n > l->max_tokens) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: %u tokens; the layer was made for %u", n, l->max_tokens);
    if (!io->x.buffer || !io->y.buffer) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: x and y are required");
    for (uint32_t i = 0; i < VKM_COUNT(places); i++)
        if (places[i].buffer && places[i].offset % 4) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: an offset of %llu is not a multiple of 4", (unsigned long long)places[i].offset);
    if (io->x_stride % 4 || io->y_stride % 4 || (io->x_stride && io->x_stride < row) || (io->y_stride && io->y_stride < row))
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: strides of %llu and %llu bytes; a row is %llu", (unsigned long long)io->x_stride, (unsigned long long)io->y_stride, (unsigned long long)row);
    if (d->select == VKM_SELECT_HASH && !io->token_ids.buffer) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: hash routing needs token_ids");
    if (d->select == VKM_SELECT_FORCED && !io->forced_ids.buffer) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: forced routing needs forced_ids");
    if (d->noise && !io->noise.buffer) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: this router needs noise");
    if (d->select == VKM_SELECT_SOFT && (io->ids.buffer || io->weights.buffer || io->counts.buffer || io->dropped.buffer || io->statistics.buffer))
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: soft MoE has no ids, weights, counts, dropped and statistics");
    return VKM_OK;
}

static void record_inputs(struct vkm_moe_layer *l, void *commands, const vkm_moe_io *io, uint32_t n)
{
    const struct vkm_moe_router_space *r = &l->space.router;
    const uint32_t width = l->set->moe.n_embd;
    vkm_buffer *ws = l->workspace->buffer;
    if (l->in.ld != width) {                         /* columns that a row is filled up with must be zeros; who shares the workspace leaves others */
        vkm_record_fill(l->device, commands, ws, (uint64_t)l->in.at * 4, (uint64_t)n * l->in.ld * 4, 0);
        vkm_record_barrier(l->device, commands);
    }
    copy_rows(l, commands, io->x, io->x_stride, l->in, n, false);
    if (io->flags & VKM_MOE_ADD) copy_rows(l, commands, io->y, io->y_stride, l->out, n, false);
    else vkm_record_fill(l->device, commands, ws, (uint64_t)l->out.at * 4, (uint64_t)n * l->out.ld * 4, 0);
    if (r->noise.rows) copy_words(l, commands, io->noise, r->noise, (uint64_t)n * r->noise.ld, false);
    if (r->given.rows) copy_words(l, commands, l->set->rule.d.select == VKM_SELECT_HASH ? io->token_ids : io->forced_ids, r->given, l->set->rule.d.select == VKM_SELECT_HASH ? n : (uint64_t)n * l->set->moe.n_used, false);
    if (r->given_weights.rows) copy_words(l, commands, io->forced_weights, r->given_weights, (uint64_t)n * l->set->moe.n_used, false);
    if (r->seed.rows) vkm_record_fill(l->device, commands, ws, (uint64_t)r->seed.at * 4, 4, io->seed);
}

static void record_outputs(struct vkm_moe_layer *l, void *commands, const vkm_moe_io *io, uint32_t n)
{
    const struct vkm_moe *m = &l->set->moe;
    const struct vkm_moe_router_space *r = &l->space.router;
    const struct vkm_moe_plan p = vkm_moe_plan(m, &l->space, l->in, n);
    copy_rows(l, commands, io->y, io->y_stride, l->out, n, true);
    copy_words(l, commands, io->ids, r->tokens.rows ? r->tokens : l->space.ids, (uint64_t)p.n * p.k, true);
    copy_words(l, commands, io->weights, l->space.weights, (uint64_t)p.n * p.k, true);
    copy_words(l, commands, io->counts, r->expert_rows, m->n_expert, true);
    copy_words(l, commands, io->dropped, r->missed, n, true);
    copy_words(l, commands, io->statistics, r->statistics, sizeof(vkm_router_statistics) / 4, true);
}

vkm_result vkm_moe_layer_record(vkm_moe_layer *l, void *commands, const vkm_moe_io *given, uint32_t n, vkm_error *err)
{
    if (!l || !commands || !given) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_moe_layer_record: layer, commands and io are required");
    vkm_moe_io io = {0};
    memcpy(&io, given, given->struct_size && given->struct_size < sizeof io ? given->struct_size : sizeof io);
    TRY(check_io(l, &io, n, err));
    if (n == 0) return VKM_OK;
    uint32_t variant = (io.counts.buffer || io.dropped.buffer || io.statistics.buffer ? VKM_MOE_WATCHED : 0) | (l->space.router.given_weights.rows && io.forced_weights.buffer ? VKM_MOE_WEIGHTED : 0);
    TRY(vkm_moe_layer_build(l, n, variant, err));
    vkm_record_begin(l->device, commands, !(io.flags & VKM_MOE_NO_BARRIERS));
    record_inputs(l, commands, &io, n);
    vkm_program_record_into(l->program, commands, 0, vkm_program_op_count(l->program));
    record_outputs(l, commands, &io, n);
    if (!(io.flags & VKM_MOE_NO_BARRIERS)) vkm_record_end(l->device, commands);
    return VKM_OK;
}

size_t vkm_moe_layer_print(vkm_moe_layer *l, uint32_t n, char *text, size_t size)
{
    vkm_text t = {text, size, 0};
    if (size) *text = 0;
    if (n > l->max_tokens) n = l->max_tokens;
    if (n && vkm_moe_layer_build(l, n, 0, NULL) == VKM_OK) vkm_program_print(l->program, &t);
    return t.used;
}
