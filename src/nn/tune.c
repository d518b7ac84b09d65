#include "tune.h"
#include "host/platform.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- choosing */

#define LARGEST 128                   /* rows of the largest class */
#define EARN 0.005                   /* of the time: what a class must bring */
#define NEGLIGIBLE 1e-6              /* numbers of rows that are less likely than the likeliest by this are left out */

static const uint8_t sizes[VKM_TILE_CLASSES] = VKM_TILE_SIZES;

/* How rows are cut with a set of classes. time[r]: of r rows. from: VKM_TILE_NEVER for a class that is not of the set, or never comes to be used. */
struct cover {
    uint8_t from[VKM_TILE_CLASSES];
    bool any;
    uint32_t last;                   /* the largest class */
    double cost[VKM_TILE_CLASSES], time[LARGEST + 1];       /* of tiles, weights in cache */
    double memory;                   /* ns of reading the expert's weights */
};

static uint32_t type_index(const struct vkm_type *type)
{
    assert(vkm_type_count <= VKM_TUNING_TYPES);
    return (uint32_t)(type - vkm_types);
}

bool vkm_tuning_exact(const struct vkm_tuning *t, const struct vkm_type *type) { return t && t->exact[type_index(type)]; }

#define WIDE 32                      /* blocks of columns */
/* Of wide matrices: one row alone, as when a token is generated, and the least for a row of many. */
static void rates(const struct vkm_tile_cost tiles[VKM_TILE_CLASSES], double *one, double *many)
{
    *one = 0, *many = INFINITY;
    for (uint32_t c = VKM_TILE_CLASSES; c-- > 0;) {
        if (tiles[c].block_ns <= 0) continue;
        double ns = tiles[c].block_ns * WIDE + tiles[c].panel_ns;
        *one = c ? 0 : ns, *many = fmin(*many, ns / sizes[c]);
    }
}

#define INT8_EARN 0.95               /* exact products are worth a twentieth of the time */
bool vkm_tuning_prefers_exact(const struct vkm_tile_cost exact[VKM_TILE_CLASSES], const struct vkm_tile_cost int8[VKM_TILE_CLASSES])
{
    double one, many, one8, many8;
    rates(exact, &one, &many);
    rates(int8, &one8, &many8);
    return one > 0 && one8 > 0 && one8 * many8 > one * many * INT8_EARN * INT8_EARN;       /* by the geometric mean of the two */
}

/* Of a tile of class c with all the weights; 0: not measured */
static double tile_cost(const struct vkm_tuning *t, const struct vkm_weight *const *weights, uint32_t n, uint32_t c)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct vkm_tile_cost *cost = &t->tiles[type_index(weights[i]->type)][c];
        uint32_t kb = weights[i]->kb, blocks = kb > VKM_TUNING_BLOCKS ? kb : VKM_TUNING_BLOCKS;
        if (cost->block_ns <= 0) return 0;
        sum += weights[i]->n_panels * (cost->panel_ns + cost->block_ns * blocks) * kb / blocks;
    }
    return sum;
}

/* Class c joins, which is larger than all that are there: from the first number of rows that one tile of it is the fastest for, or slower by less than `spared`; the first of all for any rows. */
static void add_class(struct cover *v, uint32_t c, double spared)
{
    uint32_t first = 1;
    while (v->any && first <= sizes[c] && v->cost[c] >= v->time[first] + spared) first++;
    if (first > sizes[c]) return;
    v->any = true;
    for (uint32_t smaller = 0; smaller < c; smaller++)
        if (v->from[smaller] >= first) v->from[smaller] = VKM_TILE_NEVER;
    v->from[c] = (uint8_t)first;
    v->last = c;
    for (uint32_t r = first; r <= LARGEST; r++) v->time[r] = v->cost[c] + v->time[r > sizes[c] ? r - sizes[c] : 0];
}

/* Tiles of the largest class that r rows begin with. */
static uint32_t large_tiles(const struct cover *v, uint32_t r) { return r < v->from[v->last] ? 0 : (r - v->from[v->last]) / sizes[v->last] + 1; }

/* Classes that n rows come to be cut into. */
static uint32_t classes_of(const struct cover *v, uint32_t n)
{
    uint32_t classes = 0;
    for (uint32_t c = VKM_TILE_CLASSES, left = n; c-- > 0 && left > 0;) {
        if (v->from[c] > left || v->from[c] == VKM_TILE_NEVER) continue;
        uint32_t taken = ((left - v->from[c]) / sizes[c] + 1) * sizes[c];
        left = left > taken ? left - taken : 0;
        classes++;
    }
    return classes;
}

static double time_of(const struct cover *v, uint32_t r)
{
    double memory = v->memory > 0 ? v->memory * classes_of(v, r) : 0;
    if (r <= LARGEST) return memory + v->time[r];
    uint32_t tiles = large_tiles(v, r), taken = tiles * sizes[v->last];
    return memory + tiles * v->cost[v->last] + v->time[r > taken ? r - taken : 0];
}

/* How many experts have how many rows: each number up to EXACT, then eight bins for each doubling, for which their experts' mean stands. */
#define EXACT 128u                   /* what is left of more rows counts for little */
#define BINS (EXACT + 8 * 25)
struct histogram { struct { double experts, rows; } bins[BINS]; };

static void add_experts(struct histogram *h, double experts, uint32_t rows)
{
    uint32_t bin = rows;
    if (rows >= EXACT) {
        uint32_t doublings = 0;
        while (rows >> doublings >= 2 * EXACT) doublings++;
        bin = EXACT + 8 * doublings + ((rows >> doublings) - EXACT) * 8 / EXACT;
    }
    h->bins[bin].experts += experts, h->bins[bin].rows += experts * rows;
}

/* Experts that each of n tokens chooses with probability p: binomial weights from the mode outwards, divided by their sum. */
static void add_binomial(struct histogram *h, double experts, uint32_t n, double p)
{
    if (p > 1 - NEGLIGIBLE) {
        add_experts(h, experts, n);
        return;
    }
    uint32_t mode = (uint32_t)((n + 1) * p);
    double odds = p / (1 - p), sum = 0;
    for (int adds = 0; adds < 2; adds++) {                  /* the first time for the sum */
        double weight = 1, scale = adds ? experts / sum : 0;
        if (adds) add_experts(h, scale, mode);
        else sum = 1;
        for (uint32_t r = mode; r < n && weight >= NEGLIGIBLE; r++) {
            weight *= (double)(n - r) / (r + 1) * odds;
            if (adds) add_experts(h, scale * weight, r + 1);
            else sum += weight;
        }
        weight = 1;
        for (uint32_t r = mode; r > 0 && weight >= NEGLIGIBLE; r--) {
            weight *= (double)r / (n - r + 1) / odds;
            if (adds) add_experts(h, scale * weight, r - 1);
            else sum += weight;
        }
    }
}

/* Chosen by a token when its clock, exponential of rate 1/rank, rings before `end`: the first so many that ring are a choice without repetition in proportion to 1/rank. */
static double chosen(uint32_t rank, double end) { return 1 - exp(-end / rank); }

/* Neighbouring ranks that are taken together. */
static uint32_t alike_from(uint32_t rank, uint32_t n_expert)
{
    uint32_t alike = 1 + rank / 16;
    return alike > n_expert + 1 - rank ? n_expert + 1 - rank : alike;
}

/* Half as if all experts were alike likely, half by Zipf's law. */
static void expect_rows(struct histogram *h, uint32_t n, uint32_t n_used, uint32_t n_expert)
{
    memset(h, 0, sizeof *h);
    if (n_used >= n_expert) {                               /* every expert has all n rows */
        add_experts(h, n_expert, n);
        return;
    }
    add_binomial(h, n_expert * 0.5, n, (double)n_used / n_expert);
    double low = 0, high = 64.0 * n_expert;
    for (int i = 0; i < 30; i++) {
        double middle = (low + high) / 2, sum = 0;
        for (uint32_t rank = 1, alike; rank <= n_expert; rank += alike) alike = alike_from(rank, n_expert), sum += alike * chosen(rank + alike / 2, middle);
        if (sum < n_used) low = middle;
        else high = middle;
    }
    for (uint32_t rank = 1, alike; rank <= n_expert; rank += alike) alike = alike_from(rank, n_expert), add_binomial(h, alike * 0.5, n, chosen(rank + alike / 2, low));
}

static double expected(const struct cover *v, const struct histogram *h)
{
    double time = 0;
    for (uint32_t i = 1; i < BINS; i++)
        if (h->bins[i].experts > 0) time += h->bins[i].experts * time_of(v, (uint32_t)(h->bins[i].rows / h->bins[i].experts + 0.5));
    return time;
}

bool vkm_tiles_fit(const struct vkm_tuning *tuning, const struct vkm_weight *const *weights, uint32_t n_weights, uint32_t n, uint32_t n_used, uint32_t n_expert, uint32_t most_tile,
                   uint8_t tile_from[VKM_TILE_CLASSES])
{
    struct cover start = {.any = false};
    uint32_t able = 0;
    for (uint32_t i = 0; i < n_weights; i++) start.memory += tuning->byte_ns * (double)(vkm_type_panel_bytes(weights[i]->type, weights[i]->kb) * weights[i]->n_panels);
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
        start.from[c] = VKM_TILE_NEVER;
        start.cost[c] = sizes[c] <= most_tile ? tile_cost(tuning, weights, n_weights, c) : 0;
        if (start.cost[c] > 0) able |= 1u << c;
    }
    if (n <= 1) able &= n;                                  /* one token: the tiles of one row that layer.c knows without a list */
    if (!able) return false;
    struct histogram rows;
    double least = INFINITY;
    expect_rows(&rows, n, n_used, n_expert);
    for (uint32_t i = 2; i < 2u << VKM_TILE_CLASSES; i++) {
        uint32_t set = i / 2;
        double spared = i % 2 ? start.memory : 0;           /* rows that are left by tiles of a size, in one more of them and not in smaller ones, for which weights are read again */
        if ((set & able) != set || (i % 2 && start.memory <= 0)) continue;
        struct cover v = start;
        uint32_t classes = 0;
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++)
            if (set >> c & 1) add_class(&v, c, spared);
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) classes += v.from[c] <= n && v.from[c] != VKM_TILE_NEVER;
        if (n_expert == 1) classes = classes_of(&v, n);                             /* a dense matmul makes no empty dispatches */
        double time = (expected(&v, &rows) + (double)classes * n_weights * tuning->dispatch_ns) * (1 + EARN * classes);
        if (time < least) {
            least = time;
            memcpy(tile_from, v.from, sizeof v.from);
        }
    }
    return true;
}

/* ---------------------------------------------------------------- the file */

#define VERSION 6

struct header {
    char magic[8];
    uint32_t version, n_types;
    struct vkm_tuning_key key;
    uint64_t hash;                   /* of all bytes, taken with 0 here */
    double dispatch_ns, byte_ns;
};
struct entry { uint32_t type; uint16_t n_classes, exact; struct vkm_tile_cost tiles[VKM_TILE_CLASSES]; };
_Static_assert(sizeof(struct vkm_tuning_key) == 40 && sizeof(struct header) == 80 && sizeof(struct entry) == 8 + 16 * VKM_TILE_CLASSES, "no padding");
_Static_assert(sizeof(struct header) + VKM_TUNING_TYPES * sizeof(struct entry) <= VKM_TUNING_BYTES_MAX, "room for all types");

static const char magic[8] = "VKMTUNE";

struct vkm_tuning_key vkm_tuning_key_of(const struct vkm_caps *caps, const struct vkm_shape *s)
{
    static const char *const kernels[] = {"linear", "moe_gate_up", "moe_down"};
    const uint32_t how[] = {caps->tiers, caps->subgroup_size, s->scalar_loads, s->texel_loads, s->lanes, s->rows_per_lane, s->splits, s->matrix.m, s->matrix.n, s->matrix.k, s->matrix_panels, s->matrix_subgroups, s->matrix_lanes, s->matrix_tokens};
    uint64_t h = vkm_hash(VKM_HASH_START, how, sizeof how);
    for (size_t i = 0; i < vkm_module_count; i++)
        for (size_t k = 0; k < VKM_COUNT(kernels); k++)
            if (vkm_modules[i].code && !strncmp(vkm_modules[i].name, kernels[k], strlen(kernels[k]))) h = vkm_hash(h, vkm_modules[i].code, vkm_modules[i].code_bytes);
    struct vkm_tuning_key key = {.kernels = h, .vendor_id = caps->vendor_id, .device_id = caps->device_id, .driver_version = caps->driver_version};
    memcpy(key.pipeline_uuid, caps->pipeline_uuid, sizeof key.pipeline_uuid);
    return key;
}

size_t vkm_tuning_format(const struct vkm_tuning_key *key, const struct vkm_tuning *t, uint8_t bytes[VKM_TUNING_BYTES_MAX])
{
    struct header h = {.version = VERSION, .key = *key, .dispatch_ns = t->dispatch_ns, .byte_ns = t->byte_ns};
    size_t n = sizeof h;
    memcpy(h.magic, magic, sizeof magic);
    for (size_t i = 0; i < vkm_type_count; i++) {
        struct entry e = {.type = vkm_types[i].id, .n_classes = VKM_TILE_CLASSES, .exact = t->exact[i]};
        memcpy(e.tiles, t->tiles[i], sizeof e.tiles);
        memcpy(bytes + n, &e, sizeof e);
        n += sizeof e;
        h.n_types++;
    }
    memcpy(bytes, &h, sizeof h);
    h.hash = vkm_hash(VKM_HASH_START, bytes, n);
    memcpy(bytes, &h, sizeof h);
    return n;
}

static bool is_time(double ns) { return ns >= 0 && ns < 1e12; }
static bool is_cost(const struct vkm_tile_cost *c)
{
    return is_time(c->block_ns) && c->panel_ns > -1e12 && c->panel_ns < 1e12 && (c->block_ns == 0 || c->panel_ns + c->block_ns * VKM_TUNING_BLOCKS > 0);
}

const char *vkm_tuning_parse(const struct vkm_tuning_key *key, const void *bytes, size_t n, struct vkm_tuning *tuning)
{
    const uint8_t *at = bytes;
    struct header h, zeroed;
    struct vkm_tuning t = {0};
    uint32_t seen = 0;
    if (n < sizeof h) return "it is too short";
    memcpy(&h, at, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic)) return "it is no tuning";
    if (h.version != VERSION) return "it is of another version";
    if (h.n_types > VKM_TUNING_TYPES || n != sizeof h + h.n_types * sizeof(struct entry)) return "its length is wrong";
    zeroed = h;
    zeroed.hash = 0;
    if (vkm_hash(vkm_hash(VKM_HASH_START, &zeroed, sizeof zeroed), at + sizeof h, n - sizeof h) != h.hash) return "its content is damaged";
    if (memcmp(&h.key, key, sizeof h.key)) return "it is of another device, driver or build";
    if (!is_time(h.dispatch_ns) || !is_time(h.byte_ns)) return "its content is damaged";
    t.dispatch_ns = h.dispatch_ns, t.byte_ns = h.byte_ns;
    for (uint32_t i = 0; i < h.n_types; i++) {
        struct entry e;
        memcpy(&e, at + sizeof h + i * sizeof e, sizeof e);
        const struct vkm_type *type = vkm_type_find(e.type);
        if (!type || e.n_classes != VKM_TILE_CLASSES || e.exact > 1 || seen >> type_index(type) & 1) return "its content is damaged";
        seen |= 1u << type_index(type);
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++)
            if (!is_cost(&e.tiles[c])) return "its content is damaged";
        memcpy(t.tiles[type_index(type)], e.tiles, sizeof e.tiles);
        t.exact[type_index(type)] = (uint8_t)e.exact;
    }
    *tuning = t;
    return NULL;
}

int vkm_tuning_path(const char *folder, const struct vkm_tuning_key *key, char *path, size_t size)
{
    return snprintf(path, size, "%s/tuning-%016llx.bin", folder, (unsigned long long)vkm_hash(VKM_HASH_START, key, sizeof *key));
}

bool vkm_tuning_load(const char *folder, const struct vkm_tuning_key *key, struct vkm_tuning *tuning, const char **why)
{
    uint8_t bytes[VKM_TUNING_BYTES_MAX + 1];               /* one more shows that a file is too long */
    char path[4096];
    *why = NULL;
    int length = vkm_tuning_path(folder, key, path, sizeof path);
    if (length < 0 || (size_t)length >= sizeof path) {
        *why = "its folder's name is too long";
        return false;
    }
    FILE *f = vkm_file_open(path, "rb");
    if (!f) {
        if (errno != ENOENT) *why = "it cannot be opened";
        return false;
    }
    size_t n = fread(bytes, 1, sizeof bytes, f);
    *why = ferror(f) ? "it cannot be read" : vkm_tuning_parse(key, bytes, n, tuning);
    fclose(f);
    return !*why;
}

vkm_result vkm_tuning_save(const char *folder, const struct vkm_tuning_key *key, const struct vkm_tuning *tuning, vkm_error *err)
{
    uint8_t bytes[VKM_TUNING_BYTES_MAX];
    char path[4096];
    int length = vkm_tuning_path(folder, key, path, sizeof path);
    if (length < 0 || (size_t)length >= sizeof path) return vkm_fail(err, VKM_ERR_ARGUMENT, "%s: the name is too long", folder);
    return vkm_file_replace(path, bytes, vkm_tuning_format(key, tuning, bytes), NULL, 0, err);
}
