#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* A slab is one allocation and one binding: as large as the device's storage range allows, and no larger than makes sense to allocate at once. */
#define MAX_SLAB_BYTES (2ull << 30)
#define UPLOAD_RING_BYTES (64ull << 20)
#define UPLOAD_BATCH_BYTES (4ull << 20)

struct item { struct vkm_weight w; struct vkm_source a, b; };
struct slab { uint64_t used; uint32_t set; };

struct vkm_plan {
    uint64_t slab_bytes;                /* most a slab may have */
    uint32_t set_slabs;                 /* most slabs of a set */
    struct item *items;  uint32_t n_items, cap_items;
    struct slab *slabs;  uint32_t n_slabs, cap_slabs;
    uint32_t *tables;    uint32_t n_tables, cap_tables;
    uint64_t bytes;
};

static bool grow(void **at, uint32_t *cap, uint32_t need, size_t each)
{
    if (need <= *cap) return true;
    uint32_t more = *cap ? *cap * 2 : 64;
    while (more < need) more *= 2;
    void *p = realloc(*at, (size_t)more * each);
    if (!p) return false;
    *at = p;
    *cap = more;
    return true;
}

vkm_result vkm_plan_create(const struct vkm_caps *caps, struct vkm_plan **out, vkm_error *err)
{
    struct vkm_plan *p = calloc(1, sizeof *p);
    if (!p) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    p->slab_bytes = (caps->storage_range < MAX_SLAB_BYTES ? caps->storage_range : MAX_SLAB_BYTES) / 16 * 16;
    p->set_slabs = caps->slabs;
    *out = p;
    return VKM_OK;
}

void vkm_plan_destroy(struct vkm_plan *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->n_items; i++) {
        free((void *)p->items[i].a.each); free((void *)p->items[i].b.each);
        free((void *)p->items[i].a.own);  free((void *)p->items[i].b.own);
    }
    free(p->items); free(p->slabs); free(p->tables);
    free(p);
}

uint64_t vkm_plan_bytes(const struct vkm_plan *p) { return p->bytes; }

uint32_t vkm_plan_table(struct vkm_plan *p, const void *words, uint32_t n)
{
    if (!grow((void **)&p->tables, &p->cap_tables, p->n_tables + n, 4)) return VKM_NONE;
    memcpy(p->tables + p->n_tables, words, (size_t)n * 4);
    p->n_tables += n;
    return p->n_tables - n;
}

/* Room for `bytes` in the last slab of the set, or in a new one. */
static struct slab *room(struct vkm_plan *p, uint64_t bytes, uint32_t set)
{
    struct slab *last = p->n_slabs ? &p->slabs[p->n_slabs - 1] : NULL;
    if (last && last->set == set && p->slab_bytes - last->used >= bytes) return last;
    if (!grow((void **)&p->slabs, &p->cap_slabs, p->n_slabs + 1, sizeof *p->slabs)) return NULL;
    p->slabs[p->n_slabs] = (struct slab){0, set};
    return &p->slabs[p->n_slabs++];
}

static uint32_t first_slab_of(const struct vkm_plan *p, uint32_t set)
{
    uint32_t i = p->n_slabs;
    while (i > 0 && p->slabs[i - 1].set == set) i--;
    return i;
}

/* Slabs that the weight would add to those of `set` (whose last has `used` bytes taken; UINT64_MAX: the set is empty). */
static uint64_t slabs_needed(const struct vkm_plan *p, const struct vkm_weight *w, uint64_t panel_bytes, uint64_t used)
{
    uint64_t slabs = used == UINT64_MAX ? 0 : 1, at = used == UINT64_MAX ? p->slab_bytes : used, before = slabs;
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t c = 0; c < w->n_chunks; c++) {
            uint32_t panels = w->n_panels - c * w->chunk_panels < w->chunk_panels ? w->n_panels - c * w->chunk_panels : w->chunk_panels;
            if (p->slab_bytes - at < panels * panel_bytes) { slabs++; at = 0; }
            at += panels * panel_bytes;
        }
    return slabs - before;
}

vkm_result vkm_plan_add(struct vkm_plan *p, struct vkm_weight *w, struct vkm_source a, struct vkm_source b, const char *name, vkm_error *err)
{
    if (!grow((void **)&p->items, &p->cap_items, p->n_items + 1, sizeof *p->items)) {
        free((void *)a.each); free((void *)b.each); free((void *)a.own); free((void *)b.own);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    }
    struct item *item = &p->items[p->n_items++];
    *item = (struct item){.a = a, .b = b};
    w->kb = vkm_div_up(w->cols, 32);
    w->n_panels = vkm_div_up(w->rows, w->glu ? VKM_PANEL_ROWS / 2 : VKM_PANEL_ROWS);
    if (w->glu && w->n_panels % 2) w->n_panels++;          /* the next matmul reads features in blocks of 32 */
    uint64_t panel_bytes = vkm_type_panel_bytes(w->type, w->kb);
    uint64_t fit = p->slab_bytes / panel_bytes;
    if (!fit) return vkm_fail(err, VKM_ERR_LIMIT, "tensor %s: 32 rows are %llu bytes, the device's storage range is %llu", name, (unsigned long long)panel_bytes, (unsigned long long)p->slab_bytes);
    w->chunk_panels = fit < w->n_panels ? (uint32_t)fit : w->n_panels;
    w->n_chunks = vkm_div_up(w->n_panels, w->chunk_panels);

    uint32_t set = p->n_slabs ? p->slabs[p->n_slabs - 1].set : 0;
    uint32_t have = p->n_slabs - first_slab_of(p, set);
    uint64_t used = p->n_slabs ? p->slabs[p->n_slabs - 1].used : UINT64_MAX;
    if (have + slabs_needed(p, w, panel_bytes, used) > p->set_slabs) {
        if (slabs_needed(p, w, panel_bytes, UINT64_MAX) > p->set_slabs)
            return vkm_fail(err, VKM_ERR_LIMIT, "tensor %s needs more than the %u storage buffers of %llu bytes that the device binds at once", name, p->set_slabs, (unsigned long long)p->slab_bytes);
        set++;
    }
    w->set = set;
    w->tab = p->n_tables;
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t c = 0; c < w->n_chunks; c++) {
            uint32_t panels = w->n_panels - c * w->chunk_panels < w->chunk_panels ? w->n_panels - c * w->chunk_panels : w->chunk_panels;
            struct slab *slab = room(p, panels * panel_bytes, set);
            if (!slab) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            const uint32_t entry[VKM_CHUNK_WORDS] = {(uint32_t)(slab - p->slabs) - first_slab_of(p, set), (uint32_t)(slab->used / 16)};   /* the address once there is one */
            if (vkm_plan_table(p, entry, VKM_CHUNK_WORDS) == VKM_NONE) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            slab->used += panels * panel_bytes;
            p->bytes += panels * panel_bytes;
        }
    item->w = *w;
    return VKM_OK;
}

/* ---------------------------------------------------------------- upload */

static const uint8_t *source_row(const struct vkm_source *s, const struct vkm_weight *w, uint32_t expert, uint32_t row)
{
    if (s->own) return (const uint8_t *)(s->own + ((size_t)expert * w->rows + row) * w->cols);
    uint64_t bytes = vkm_type_row_bytes(w->type, w->cols);
    if (s->each) return (const uint8_t *)s->each[expert]->data + (s->first_row + row) * bytes;
    return (const uint8_t *)s->tensor->data + (expert * s->tensor->ne[1] + s->first_row + row) * bytes;
}

static void repack_panel(const struct item *item, uint32_t expert, uint32_t panel, uint32_t *out)
{
    const struct vkm_weight *w = &item->w;
    uint32_t each = w->glu ? VKM_PANEL_ROWS / 2 : VKM_PANEL_ROWS;
    memset(out, 0, vkm_type_panel_bytes(w->type, w->kb));
    for (uint32_t i = 0; i < each && panel * each + i < w->rows; i++) {
        w->type->repack(source_row(&item->a, w, expert, panel * each + i), w->cols, w->kb, out, i);
        if (w->glu) w->type->repack(source_row(&item->b, w, expert, panel * each + i), w->cols, w->kb, out, each + i);
    }
}

struct upload { vkm_device *device; vkm_uploader *uploader; uint32_t *panel; uint64_t done, total; const vkm_model_params *params; };

static vkm_result upload_chunk(struct upload *u, const struct item *item, uint32_t expert, uint32_t first, uint32_t panels, vkm_buffer *to, uint64_t offset, vkm_error *err)
{
    uint64_t panel_bytes = vkm_type_panel_bytes(item->w.type, item->w.kb);
    for (uint32_t p = 0; p < panels; ) {
        uint32_t n = (uint32_t)(UPLOAD_BATCH_BYTES / panel_bytes);
        if (n == 0) n = 1;
        if (n > panels - p) n = panels - p;
        void *where;
        TRY(vkm_upload_begin(u->uploader, to, offset + p * panel_bytes, n * panel_bytes, &where, err));
        for (uint32_t i = 0; i < n; i++) {         /* by way of a cached panel: the destination may be write-combined */
            repack_panel(item, expert, first + p + i, u->panel);
            if (vkm_device_caps(u->device)->scalar_loads) vkm_panel_planes(item->w.type, item->w.kb, u->panel);
            memcpy((uint8_t *)where + i * panel_bytes, u->panel, panel_bytes);
        }
        TRY(vkm_upload_end(u->uploader, err));
        p += n;
        u->done += n * panel_bytes;
        if (u->params && u->params->progress && !u->params->progress(u->params->progress_user, u->done, u->total))
            return vkm_fail(err, VKM_ERR_CANCELLED, "loading was cancelled");
    }
    return VKM_OK;
}

static vkm_result upload_items(struct vkm_plan *p, const vkm_gguf *g, struct vkm_model *m, struct upload *u, vkm_error *err)
{
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct item *item = &p->items[i];
        const struct vkm_weight *w = &item->w;
        const uint32_t *entry = p->tables + w->tab;
        for (uint32_t e = 0; e < w->experts; e++)
            for (uint32_t c = 0; c < w->n_chunks; c++, entry += VKM_CHUNK_WORDS) {
                uint32_t first = c * w->chunk_panels, panels = w->n_panels - first < w->chunk_panels ? w->n_panels - first : w->chunk_panels;
                TRY(upload_chunk(u, item, e, first, panels, m->slabs[m->sets[w->set].first + entry[0]], (uint64_t)entry[1] * 16, err));
            }
        if (item->a.tensor) vkm_gguf_tensor_release(g, item->a.tensor);
        if (item->b.tensor) vkm_gguf_tensor_release(g, item->b.tensor);
    }
    return vkm_upload_finish(u->uploader, err);
}

static vkm_result create_slabs(struct vkm_plan *p, struct vkm_model *m, vkm_error *err)
{
    m->slabs = calloc(p->n_slabs, sizeof *m->slabs);
    m->sets = calloc(p->slabs[p->n_slabs - 1].set + 1, sizeof *m->sets);
    if (!m->slabs || !m->sets) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    m->n_sets = p->slabs[p->n_slabs - 1].set + 1;
    for (uint32_t i = 0; i < p->n_slabs; i++) {
        struct vkm_slab_set *set = &m->sets[p->slabs[i].set];
        if (set->count++ == 0) set->first = i;
        char name[32];
        snprintf(name, sizeof name, "slab %u", i);
        TRY(vkm_buffer_create(m->device, VKM_BUFFER_DEVICE, p->slabs[i].used, name, &m->slabs[i], err));
        m->n_slabs++;
    }
    return VKM_OK;
}

/* The device addresses of the table's chunks, for kernels that use them. */
static void write_addresses(struct vkm_plan *p, const struct vkm_model *m)
{
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct vkm_weight *w = &p->items[i].w;
        uint32_t *entry = p->tables + w->tab;
        for (uint32_t c = 0; c < w->experts * w->n_chunks; c++, entry += VKM_CHUNK_WORDS) {
            uint64_t address = vkm_buffer_address(m->slabs[m->sets[w->set].first + entry[0]]) + (uint64_t)entry[1] * 16;
            entry[2] = (uint32_t)address;
            entry[3] = (uint32_t)(address >> 32);
        }
    }
}

vkm_result vkm_plan_upload(struct vkm_plan *p, const vkm_gguf *g, struct vkm_model *m, const vkm_model_params *params, vkm_error *err)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; i < p->n_items; i++) {
        uint64_t bytes = vkm_type_panel_bytes(p->items[i].w.type, p->items[i].w.kb);
        if (bytes > largest) largest = bytes;
    }
    TRY(create_slabs(p, m, err));
    if (vkm_device_caps(m->device)->scalar_loads) write_addresses(p, m);
    struct upload u = {.device = m->device, .total = p->bytes, .params = params, .panel = malloc(largest)};
    if (!u.panel) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    uint64_t ring = 2 * (largest > UPLOAD_BATCH_BYTES ? largest : UPLOAD_BATCH_BYTES);
    vkm_result r = vkm_uploader_create(m->device, ring > UPLOAD_RING_BYTES ? ring : UPLOAD_RING_BYTES, &u.uploader, err);
    if (r == VKM_OK) r = upload_items(p, g, m, &u, err);
    vkm_uploader_destroy(u.uploader);
    free(u.panel);
    if (r != VKM_OK) return r;
    m->tables = p->tables;
    m->n_tables = p->n_tables;
    p->tables = NULL;
    return VKM_OK;
}
