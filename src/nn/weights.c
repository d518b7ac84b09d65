#include "weights.h"
#include "host/workers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* A slab is one allocation and one binding: as large as the device's storage range allows, and no larger than makes sense to allocate at once. */
#define MAX_SLAB_BYTES (2ull << 30)
#define UPLOAD_RING_BYTES (64ull << 20)
#define PART_BYTES (2ull << 20)         /* of panels that a thread repacks at once */
#define PARTS_MIN 8                     /* on their way at once: what is read ahead, too */
#define PARTS_MAX 32
#define THREADS_MAX 8                   /* by default: fewer saturate a disk or a link */

struct item { struct vkm_weight w; struct vkm_source sources[VKM_SOURCES]; uint32_t n_sources; };
struct slab { uint64_t used; uint32_t set; };

struct vkm_plan {
    uint64_t slab_bytes;                /* most a slab may have */
    uint32_t set_slabs;                 /* most slabs of a set */
    uint32_t few_slabs;                 /* of a set where a weight does not take more: texel buffers are of the first */
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
    p->few_slabs = caps->texel_loads ? 1 : caps->slabs;
    *out = p;
    return VKM_OK;
}

static void free_sources(const struct vkm_source *sources, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) { free((void *)sources[i].each); free((void *)sources[i].own); }
}

void vkm_plan_destroy(struct vkm_plan *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->n_items; i++) free_sources(p->items[i].sources, p->items[i].n_sources);
    free(p->items); free(p->slabs); free(p->tables);
    free(p);
}

uint64_t vkm_plan_bytes(const struct vkm_plan *p) { return p->bytes; }
uint64_t vkm_plan_slab_bytes(const struct vkm_plan *p, uint32_t i) { return i < p->n_slabs ? p->slabs[i].used : 0; }
uint32_t vkm_plan_table_words(const struct vkm_plan *p) { return p->n_tables; }
const uint32_t *vkm_plan_tables(const struct vkm_plan *p) { return p->tables; }
uint32_t vkm_plan_slab_set(const struct vkm_plan *p, uint32_t i) { return p->slabs[i].set; }

uint32_t vkm_plan_table(struct vkm_plan *p, const void *words, uint32_t n)
{
    uint32_t at = p->n_tables, end = (uint32_t)vkm_align((uint64_t)at + n, 4);      /* kernels read four at a time */
    if (!grow((void **)&p->tables, &p->cap_tables, end, 4)) return VKM_NONE;
    memcpy(p->tables + at, words, (size_t)n * 4);
    memset(p->tables + at + n, 0, (size_t)(end - at - n) * 4);
    p->n_tables = end;
    return at;
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

uint32_t vkm_plan_first_slab(const struct vkm_plan *p, uint32_t set)
{
    uint32_t i = 0;
    while (i < p->n_slabs && p->slabs[i].set < set) i++;
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

static uint32_t rows_of_panel(const struct vkm_weight *w) { return w->glu ? VKM_PANEL_ROWS / 2 : VKM_PANEL_ROWS; }

/* The weight's row where source i begins; gate and up share theirs. */
static uint32_t first_row(const struct item *item, uint32_t i)
{
    uint32_t row = 0;
    for (uint32_t k = 0; k < i && !item->w.glu; k++) row += (uint32_t)vkm_align(item->sources[k].rows, VKM_PANEL_ROWS);
    return row;
}

vkm_result vkm_plan_add(struct vkm_plan *p, struct vkm_weight *w, const struct vkm_source *sources, uint32_t n, const char *name, vkm_error *err)
{
    if (!grow((void **)&p->items, &p->cap_items, p->n_items + 1, sizeof *p->items)) {
        free_sources(sources, n);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    }
    struct item *item = &p->items[p->n_items++];
    *item = (struct item){.w = *w, .n_sources = n};
    memcpy(item->sources, sources, n * sizeof *sources);
    w->rows = first_row(item, n - 1) + sources[n - 1].rows;
    w->kb = vkm_div_up(w->cols, 32);
    w->n_panels = vkm_div_up(w->rows, rows_of_panel(w));
    if (w->glu && w->n_panels % 2) w->n_panels++;          /* the next matmul reads features in blocks of 32 */
    uint64_t panel_bytes = vkm_type_panel_bytes(w->type, w->kb);
    uint64_t fit = p->slab_bytes / panel_bytes;
    if (!fit) return vkm_fail(err, VKM_ERR_LIMIT, "tensor %s: 32 rows are %llu bytes, the device's storage range is %llu", name, (unsigned long long)panel_bytes, (unsigned long long)p->slab_bytes);
    w->chunk_panels = vkm_chunk_panels(fit, w->n_panels);
    w->n_chunks = vkm_div_up(w->n_panels, w->chunk_panels);

    uint32_t set = p->n_slabs ? p->slabs[p->n_slabs - 1].set : 0;
    uint32_t have = p->n_slabs - vkm_plan_first_slab(p, set);
    uint64_t used = p->n_slabs ? p->slabs[p->n_slabs - 1].used : UINT64_MAX;
    if (have + slabs_needed(p, w, panel_bytes, used) > p->few_slabs) {
        if (slabs_needed(p, w, panel_bytes, UINT64_MAX) > p->set_slabs)
            return vkm_fail(err, VKM_ERR_LIMIT, "tensor %s needs more than the %u storage buffers of %llu bytes that the device binds at once", name, p->set_slabs, (unsigned long long)p->slab_bytes);
        set++;
    }
    w->set = set;
    w->tab = p->n_tables;
    w->whole = true;
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t c = 0; c < w->n_chunks; c++) {
            uint32_t panels = w->n_panels - c * w->chunk_panels < w->chunk_panels ? w->n_panels - c * w->chunk_panels : w->chunk_panels;
            struct slab *slab = room(p, panels * panel_bytes, set);
            if (!slab) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            const uint32_t entry[VKM_CHUNK_WORDS] = {(uint32_t)(slab - p->slabs) - vkm_plan_first_slab(p, set), (uint32_t)(slab->used / 16)};   /* the address once there is one */
            if (e == 0 && c == 0) w->slab = entry[0], w->at = entry[1];
            w->whole = w->whole && entry[0] == w->slab;
            if (vkm_plan_table(p, entry, VKM_CHUNK_WORDS) == VKM_NONE) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
            slab->used += panels * panel_bytes;
            p->bytes += panels * panel_bytes;
        }
    item->w = *w;
    return VKM_OK;
}

/* ---------------------------------------------------------------- upload
 * The loading thread cuts the weights into parts and alone talks to the device; threads repack. Parts go in order through a window of a fixed size. */

struct upload {
    vkm_device *device;
    const struct vkm_upload *how;
    const struct vkm_slabs *to;
    vkm_uploader *uploader;
    vkm_workers *workers;
    uint8_t *zeros;                     /* an absent row */
    uint32_t *panels;                   /* [n_parts], each of the largest panel's size */
    struct part *parts;                 /* part i of the model is parts[i % n_parts] */
    uint32_t n_parts;
    uint64_t begun, ended;              /* parts */
    uint64_t done, total;               /* bytes */
};

struct part {
    struct vkm_job job;
    const struct upload *upload;
    const struct item *item;
    uint32_t expert, first, n;          /* panels */
    uint32_t *panel;                    /* scratch */
    uint8_t *where;
    vkm_result result;
    vkm_error err;
};

static const uint8_t *source_row(const struct vkm_source *s, const struct vkm_weight *w, uint32_t expert, uint32_t row)
{
    if (s->own) return (const uint8_t *)(s->own + ((size_t)expert * s->rows + row) * w->cols);
    return (s->each ? s->each[expert] : s->data + expert * s->stride) + row * vkm_type_row_bytes(w->type, w->cols);
}

/* Where in memory a part's rows of source i are; false: nowhere, there are none (but the padding of a last panel), or they are the loader's own. */
static bool source_range(const struct part *p, uint32_t i, const uint8_t **at, uint64_t *bytes)
{
    const struct vkm_weight *w = &p->item->w;
    const struct vkm_source *s = &p->item->sources[i];
    uint32_t base = first_row(p->item, i), begin = p->first * rows_of_panel(w), end = begin + p->n * rows_of_panel(w);
    begin = begin > base ? begin - base : 0;
    end = end > base ? end - base : 0;
    if (end > s->rows) end = s->rows;
    if (begin >= end || s->own) return false;
    *at = source_row(s, w, p->expert, begin);
    *bytes = (end - begin) * vkm_type_row_bytes(w->type, w->cols);
    return true;
}

static void repack_panel(const struct part *p, uint32_t panel)
{
    const struct item *item = p->item;
    const struct vkm_weight *w = &item->w;
    uint32_t each = rows_of_panel(w), of = 0;
    uint64_t bytes = vkm_type_row_bytes(w->type, w->cols);
    const uint8_t *rows[VKM_PANEL_ROWS];
    while (!w->glu && of + 1 < item->n_sources && panel * each >= first_row(item, of + 1)) of++;
    for (uint32_t i = 0; i < VKM_PANEL_ROWS; i++) {
        const struct vkm_source *s = &item->sources[of + i / each];
        uint32_t row = panel * each - first_row(item, of) + i % each;
        rows[i] = row < s->rows ? source_row(s, w, p->expert, row) : p->upload->zeros;
        /* Touched in the order of the file first: one stream that the processor sees coming, where repacking reads 32. Up to twice as fast. */
        for (uint64_t k = 0; k < bytes; k += 64) (void)*(const volatile uint8_t *)(rows[i] + k);
    }
    w->type->repack(rows, w->cols, w->kb, p->panel);
}

/* On any thread. */
static vkm_result repack_part(struct part *p)
{
    const struct vkm_paging *pages = p->upload->how->paging;
    const uint8_t *at;
    uint64_t bytes, panel_bytes = vkm_type_panel_bytes(p->item->w.type, p->item->w.kb);
    for (uint32_t i = 0; pages && i < p->item->n_sources; i++)
        if (source_range(p, i, &at, &bytes)) TRY(pages->fetch(pages->user, at, bytes, &p->err));
    for (uint32_t i = 0; i < p->n; i++) {          /* by way of a cached panel: the destination may be write-combined */
        repack_panel(p, p->first + i);
        if (vkm_device_caps(p->upload->device)->scalar_loads) vkm_panel_planes(p->item->w.type, p->item->w.kb, p->panel, (uint32_t *)(p->where + i * panel_bytes));
        else memcpy(p->where + i * panel_bytes, p->panel, panel_bytes);
    }
    for (uint32_t i = 0; pages && i < p->item->n_sources; i++)
        if (source_range(p, i, &at, &bytes)) pages->release(pages->user, at, bytes);
    return VKM_OK;
}

static void run_part(struct vkm_job *job)
{
    struct part *p = (struct part *)job;
    p->result = repack_part(p);
}

/* Reading ahead maps neighbours that were released before: once an item is done, all of it goes again. */
static void release_item(const struct vkm_paging *pages, const struct item *item)
{
    for (uint32_t i = 0; pages && i < item->n_sources; i++) {
        const struct vkm_source *s = &item->sources[i];
        if (s->data) pages->release(pages->user, s->whole, s->whole_bytes);
        for (uint32_t e = 0; s->each && e < item->w.experts; e++) pages->release(pages->user, s->each[e], s->rows * vkm_type_row_bytes(item->w.type, item->w.cols));
    }
}

static vkm_result end_part(struct upload *u, vkm_error *err)
{
    struct part *p = &u->parts[u->ended++ % u->n_parts];
    vkm_workers_wait(u->workers, &p->job);
    if (p->result != VKM_OK) return vkm_fail(err, p->result, "%s", p->err.message);
    TRY(vkm_upload_end(u->uploader, err));
    if (u->ended == u->begun || u->parts[u->ended % u->n_parts].item != p->item) release_item(u->how->paging, p->item);
    u->done += p->n * vkm_type_panel_bytes(p->item->w.type, p->item->w.kb);
    if (u->how->progress && !u->how->progress(u->how->progress_user, u->done, u->total)) return vkm_fail(err, VKM_ERR_CANCELLED, "loading was cancelled");
    return VKM_OK;
}

static vkm_result begin_part(struct upload *u, const struct item *item, uint32_t expert, uint32_t first, uint32_t n, vkm_buffer *to, uint64_t offset, vkm_error *err)
{
    if (u->begun - u->ended == u->n_parts) TRY(end_part(u, err));
    struct part *p = &u->parts[u->begun % u->n_parts];
    void *where;
    TRY(vkm_upload_begin(u->uploader, to, offset, n * vkm_type_panel_bytes(item->w.type, item->w.kb), &where, err));
    p->item = item;
    p->expert = expert; p->first = first; p->n = n;
    p->where = where;
    const struct vkm_paging *pages = u->how->paging;
    const uint8_t *at;
    uint64_t bytes;
    for (uint32_t i = 0; pages && i < item->n_sources; i++)
        if (source_range(p, i, &at, &bytes)) pages->prefetch(pages->user, at, bytes);
    u->begun++;
    vkm_workers_push(u->workers, &p->job);
    return VKM_OK;
}

static vkm_result upload_items(const struct vkm_plan *plan, struct upload *u, vkm_error *err)
{
    const struct vkm_slabs *to = u->to;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct item *item = &plan->items[i];
        const struct vkm_weight *w = &item->w;
        const uint32_t *entry = plan->tables + w->tab;
        uint64_t panel_bytes = vkm_type_panel_bytes(w->type, w->kb);
        uint32_t most = panel_bytes < PART_BYTES ? (uint32_t)(PART_BYTES / panel_bytes) : 1;
        for (uint32_t e = 0; e < w->experts; e++)
            for (uint32_t c = 0; c < w->n_chunks; c++, entry += VKM_CHUNK_WORDS) {
                uint32_t first = c * w->chunk_panels, panels = w->n_panels - first < w->chunk_panels ? w->n_panels - first : w->chunk_panels;
                for (uint32_t k = 0; k < panels; k += most)
                    TRY(begin_part(u, item, e, first + k, panels - k < most ? panels - k : most, to->slabs[to->sets[w->set].first + entry[0]], (uint64_t)entry[1] * 16 + k * panel_bytes, err));
            }
    }
    while (u->ended < u->begun) TRY(end_part(u, err));
    return vkm_upload_finish(u->uploader, err);
}

static vkm_result create_slabs(vkm_device *device, const struct vkm_plan *p, struct vkm_slabs *to, vkm_error *err)
{
    to->slabs = calloc(p->n_slabs, sizeof *to->slabs);
    to->sets = calloc(p->slabs[p->n_slabs - 1].set + 1, sizeof *to->sets);
    if (!to->slabs || !to->sets) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    to->n_sets = p->slabs[p->n_slabs - 1].set + 1;
    for (uint32_t i = 0; i < p->n_slabs; i++) {
        struct vkm_slab_set *set = &to->sets[p->slabs[i].set];
        if (set->count++ == 0) set->first = i;
        char name[32];
        snprintf(name, sizeof name, "slab %u", i);
        TRY(vkm_buffer_create(device, VKM_BUFFER_DEVICE, p->slabs[i].used, name, &to->slabs[i], err));
        to->n_slabs++;
    }
    return VKM_OK;
}

void vkm_slabs_destroy(struct vkm_slabs *s)
{
    for (uint32_t i = 0; i < s->n_slabs; i++) vkm_buffer_destroy(s->slabs[i]);
    free(s->slabs); free(s->sets); free(s->tables);
    *s = (struct vkm_slabs){0};
}

/* Bytes of the largest panel, and of a part. */
static uint64_t part_bytes(const struct vkm_plan *plan, uint64_t *panel)
{
    *panel = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct vkm_weight *w = &plan->items[i].w;
        if (vkm_type_panel_bytes(w->type, w->kb) > *panel) *panel = vkm_type_panel_bytes(w->type, w->kb);
    }
    return *panel > PART_BYTES ? *panel : PART_BYTES;
}

uint64_t vkm_plan_ring_bytes(const struct vkm_plan *plan)
{
    uint64_t panel, part = part_bytes(plan, &panel);
    return 4 * part > UPLOAD_RING_BYTES ? 4 * part : UPLOAD_RING_BYTES;
}

static vkm_result run_upload(struct vkm_plan *plan, struct upload *u, uint32_t n_threads, vkm_error *err)
{
    uint64_t panel, row = 0, part = part_bytes(plan, &panel), ring = vkm_plan_ring_bytes(plan);   /* row: bytes of the largest */
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct vkm_weight *w = &plan->items[i].w;
        if (vkm_type_row_bytes(w->type, w->cols) > row) row = vkm_type_row_bytes(w->type, w->cols);
    }
    if (n_threads == 0) n_threads = vkm_processors() < THREADS_MAX ? vkm_processors() : THREADS_MAX;
    uint64_t window = 2ull * n_threads < PARTS_MIN ? PARTS_MIN : 2ull * n_threads < PARTS_MAX ? 2ull * n_threads : PARTS_MAX;
    if (window > ring / 2 / part - 1) window = ring / 2 / part - 1;    /* the other half of the ring is on its way to the device */
    u->n_parts = (uint32_t)window;
    u->zeros = calloc(1, row);
    u->panels = malloc(window * panel);
    u->parts = calloc(window, sizeof *u->parts);
    if (!u->zeros || !u->panels || !u->parts) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    for (uint32_t i = 0; i < u->n_parts; i++) {
        u->parts[i].job.run = run_part;
        u->parts[i].upload = u;
        u->parts[i].panel = u->panels + i * panel / 4;
    }
    TRY(vkm_uploader_create(u->device, ring, &u->uploader, err));
    TRY(vkm_workers_create(n_threads < u->n_parts ? n_threads : u->n_parts, &u->workers, err));
    return upload_items(plan, u, err);
}

/* The device addresses of the table's chunks, for kernels that use them. */
static void write_addresses(struct vkm_plan *p, const struct vkm_slabs *to)
{
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct vkm_weight *w = &p->items[i].w;
        uint32_t *entry = p->tables + w->tab;
        for (uint32_t c = 0; c < w->experts * w->n_chunks; c++, entry += VKM_CHUNK_WORDS) {
            uint64_t address = vkm_buffer_address(to->slabs[to->sets[w->set].first + entry[0]]) + (uint64_t)entry[1] * 16;
            entry[2] = (uint32_t)address;
            entry[3] = (uint32_t)(address >> 32);
        }
    }
}

vkm_result vkm_plan_upload(struct vkm_plan *p, vkm_device *device, const struct vkm_upload *how, struct vkm_slabs *out, vkm_error *err)
{
    struct vkm_slabs to = {0};
    struct upload u = {.device = device, .how = how, .to = &to, .total = p->bytes};
    vkm_result r = create_slabs(device, p, &to, err);
    if (r == VKM_OK && vkm_device_caps(device)->scalar_loads) write_addresses(p, &to);
    if (r == VKM_OK) r = run_upload(p, &u, how->n_threads, err);
    vkm_workers_destroy(u.workers);     /* before what they write to goes */
    vkm_uploader_destroy(u.uploader);
    free(u.zeros); free(u.panels); free(u.parts);
    if (r != VKM_OK) {
        vkm_slabs_destroy(&to);
        return r;
    }
    to.tables = p->tables;
    to.n_tables = p->n_tables;
    p->tables = NULL;
    *out = to;
    return VKM_OK;
}

vkm_result vkm_tables_create(vkm_device *device, const uint32_t *words, size_t n, vkm_buffer **buffer, vkm_error *err)
{
    vkm_buffer *b = NULL;
    vkm_result r = vkm_buffer_create(device, VKM_BUFFER_DEVICE, (uint64_t)n * 4, "tables", &b, err);
    if (r == VKM_OK) r = vkm_upload_all(device, b, 0, words, (uint64_t)n * 4, err);
    if (r == VKM_OK) *buffer = b;
    else vkm_buffer_destroy(b);
    return r;
}
