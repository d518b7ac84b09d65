/* The tuner without a device: the choice of tiles against all that could be, and what is kept of a tuning against damage. */
#include "nn/tune.h"
#include "reference/rng.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEVER VKM_TILE_NEVER

static const uint32_t sizes[VKM_TILE_CLASSES] = VKM_TILE_SIZES;

static struct vkm_weight weight(size_t type, uint32_t n_panels, uint32_t kb) { return (struct vkm_weight){.type = &vkm_types[type], .n_panels = n_panels, .kb = kb}; }

/* ---------------------------------------------------------------- the choice */

/* Rows cut one tile after another as abi.h says; tiles of each class. */
static void cut(const uint8_t from[VKM_TILE_CLASSES], uint32_t rows, double n[VKM_TILE_CLASSES], double times)
{
    while (rows) {
        uint32_t c = 0;
        for (uint32_t i = 1; i < VKM_TILE_CLASSES; i++) if (from[i] != NEVER && from[i] <= rows) c = i;
        n[c] += times;
        rows -= rows < sizes[c] ? rows : sizes[c];
    }
}

static double choose(uint32_t n, uint32_t k)
{
    double r = 1;
    for (uint32_t i = 1; i <= k; i++) r = r * (n - k + i) / i;
    return r;
}

/* By Zipf's law a token chooses expert e with 1 - x^(1/e), x such that it chooses k; by steps of what is left. */
static double zipf_x(uint32_t k, uint32_t experts)
{
    double x = 0.5, sum;
    for (double by = 0.25; by > 1e-17; by /= 2) {
        sum = 0;
        for (uint32_t e = 1; e <= experts; e++) sum += 1 - pow(x, 1.0 / e);
        x += sum > k ? by : -by;
    }
    return x;
}

/* Expected seconds of the tiles, and classes that are dispatched. Half of it with experts that are chosen alike, half by Zipf's law. */
static double expected(const uint8_t from[VKM_TILE_CLASSES], const double cost[VKM_TILE_CLASSES], double dispatch, uint32_t n, uint32_t k, uint32_t experts)
{
    double tiles[VKM_TILE_CLASSES] = {0}, sum = 0, x = k < experts ? zipf_x(k, experts) : 0;
    uint32_t least = n + 1;
    for (uint32_t e = 1; e <= experts; e++)
        for (int zipf = 0; zipf < 2; zipf++) {
            double p = zipf ? 1 - pow(x, 1.0 / e) : (double)k / experts;
            for (uint32_t r = 0; r <= n; r++) cut(from, r, tiles, 0.5 * (experts == k ? r == n : choose(n, r) * pow(p, r) * pow(1 - p, n - r)));
        }
    for (uint32_t c = VKM_TILE_CLASSES; c-- > 0;) {
        sum += tiles[c] * cost[c];
        if (experts == 1 ? tiles[c] > 0 : from[c] < least) sum += dispatch;
        if (from[c] < least) least = from[c];
    }
    return sum;
}

/* The best of all thresholds of 1, 4, 8 and 16 rows, none of which can be of use beyond its size. */
static double best_of_all(const double cost[VKM_TILE_CLASSES], double dispatch, uint32_t n, uint32_t k, uint32_t experts)
{
    double best = INFINITY;
    for (uint32_t a = 1; a <= 5; a++)
        for (uint32_t b = 1; b <= 9; b++)
            for (uint32_t c = 1; c <= 17; c++) {
                uint8_t from[VKM_TILE_CLASSES] = {1, a > 4 ? NEVER : a, b > 8 ? NEVER : b, c > 16 ? NEVER : c, NEVER, NEVER, NEVER};
                double time = expected(from, cost, dispatch, n, k, experts);
                if (time < best) best = time;
            }
    return best;
}

#define NOT_ABLE 1e30
static void check_fit(const double cost[4], double dispatch, uint32_t n, uint32_t k, uint32_t experts, uint32_t most, double slack)
{
    struct vkm_tuning t = {.dispatch_ns = dispatch};
    const struct vkm_weight a = weight(0, 3, 8), b = weight(1, 1, 16), *both[] = {&a, &b};     /* costs of the two add up to those that are given, ten times: (3 8 + 1 16) / 8 + (3 + 1) 5 / 4 */
    uint8_t from[VKM_TILE_CLASSES] = {1, 2, 5, 9, NEVER, NEVER, NEVER};
    double all[VKM_TILE_CLASSES] = {0}, able[VKM_TILE_CLASSES];
    for (uint32_t c = 0; c < 4; c++) all[c] = cost[c], t.tiles[0][c] = t.tiles[1][c] = (struct vkm_tile_cost){cost[c] / 8, cost[c] * 5 / 4};
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) able[c] = c < 4 && sizes[c] <= most ? 10 * all[c] : NOT_ABLE;
    cr_assert(vkm_tiles_fit(&t, both, 2, n, k, experts, most, from));
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) if (able[c] == NOT_ABLE) cr_expect_eq(from[c], NEVER, "class %u", c);
    double got = expected(from, able, 2 * dispatch, n, k, experts), best = best_of_all(able, 2 * dispatch, n, k, experts);
    cr_expect(got <= best * (1 + slack), "costs %g %g %g %g, dispatch %g, %u tokens, %u of %u, up to %u: %g, best %g, from %u %u %u %u", cost[0], cost[1], cost[2], cost[3], dispatch, n, k, experts, most,
              got, best, from[0], from[1], from[2], from[3]);
}

Test(fit, is_the_best_of_all_thresholds)
{
    struct ref_rng rng = ref_seed(7);
    static const uint32_t cases[][3] = {{2, 1, 4}, {5, 2, 8}, {11, 2, 8}, {24, 2, 8}, {40, 4, 16}, {7, 1, 1}, {13, 1, 1}, {30, 1, 1}, {9, 3, 3}};
    for (uint32_t i = 0; i < 12; i++) {
        double cost[4] = {1 + ref_uniform(&rng)};
        for (uint32_t c = 1; c < 4; c++) cost[c] = cost[c - 1] * (1 + ref_uniform(&rng) * (sizes[c] / sizes[c - 1]));     /* from no more than the smaller tile to more than all its rows are worth */
        for (size_t k = 0; k < VKM_COUNT(cases); k++) {
            uint32_t most = i % 4 == 3 ? 8 : 16;
            check_fit(cost, 0, cases[k][0], cases[k][1], cases[k][2], most, 0.0201);       /* up to four classes at half a percent */
            check_fit(cost, 3, cases[k][0], cases[k][1], cases[k][2], most, 0.0201);
        }
    }
}

static void check_from(const struct vkm_tuning *t, uint32_t n, uint32_t k, uint32_t experts, uint32_t most, const uint8_t expected_from[VKM_TILE_CLASSES], const char *what)
{
    const struct vkm_weight w = weight(0, 1, 1), *one[] = {&w};
    uint8_t from[VKM_TILE_CLASSES] = {1, 2, 5, 9, NEVER, NEVER, NEVER};
    cr_assert(vkm_tiles_fit(t, one, 1, n, k, experts, most, from), "%s", what);
    for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) cr_expect_eq(from[c], expected_from[c], "%s: class %u from %u, not %u", what, c, from[c], expected_from[c]);
}

Test(fit, known_choices)
{
    struct vkm_tuning t = {.tiles = {{{1}, {2.5}, {4.2}, {8.5}, {10}, {12}}}};
    check_from(&t, 512, 8, 64, 16, (uint8_t[]){1, 3, 6, NEVER, NEVER, NEVER, NEVER}, "16 rows cost more than two tiles of 8: 5 rows are 4 and 1, 6 are one of 8");
    check_from(&t, 512, 8, 64, 64, (uint8_t[]){1, 3, 6, NEVER, 18, 35, NEVER}, "64 rows are allowed, and some experts have few: 18 rows are one tile of 32, two of 8 and two of 1 take 10.4; 35 are one of 64, 12.5");
    check_from(&t, 1, 8, 64, 64, (uint8_t[]){1, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER}, "one token");
    check_from(&t, 4, 1, 1, 16, (uint8_t[]){NEVER, 1, NEVER, NEVER, NEVER, NEVER, NEVER}, "four rows, no more classes than are used");
    t = (struct vkm_tuning){.tiles = {{{1}, {0.9}}}};
    check_from(&t, 16, 2, 8, 16, (uint8_t[]){NEVER, 1, NEVER, NEVER, NEVER, NEVER, NEVER}, "a tile of 4 is faster than one of 1");
    t = (struct vkm_tuning){.tiles = {{{1}, {4}}}};
    check_from(&t, 16, 2, 8, 16, (uint8_t[]){1, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER}, "nothing is gained");
    t = (struct vkm_tuning){.tiles = {{{1}, {3.98}}}};
    check_from(&t, 16, 2, 8, 16, (uint8_t[]){1, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER}, "half a percent is not worth a kernel");
    t = (struct vkm_tuning){.dispatch_ns = 1000, .tiles = {{{1}, {1.5}, {2}}}};
    check_from(&t, 40, 2, 8, 16, (uint8_t[]){NEVER, NEVER, 1, NEVER, NEVER, NEVER, NEVER}, "a dispatch costs more than padding");
    t = (struct vkm_tuning){.tiles = {{{1}, {4.2}, {7.2}}}};
    const uint8_t two_sizes[] = {1, NEVER, 8, NEVER, NEVER, NEVER, NEVER};
    check_from(&t, 40, 2, 8, 16, two_sizes, "ten rows are a tile of eight and two of one");
    t.byte_ns = 1e-5;
    check_from(&t, 40, 2, 8, 16, two_sizes, "4 KiB from memory once more take little");
    t.byte_ns = 1e-3;
    check_from(&t, 40, 2, 8, 16, (uint8_t[]){1, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER}, "reading them twice takes longer than tiles of eight bring");
}

Test(fit, goes_by_the_columns)
{
    const struct vkm_tuning t = {.tiles = {{{1, -4}, {2, 20}}}};           /* narrow: 4 and 36, wide: 996 and 2020 */
    static const struct { uint32_t kb; uint8_t one_row, four_rows; } cases[] = {{2, 1, NEVER}, {8, 1, NEVER}, {1000, 1, 3}};
    for (size_t i = 0; i < VKM_COUNT(cases); i++) {
        const struct vkm_weight w = weight(0, 1, cases[i].kb), *one[] = {&w};
        uint8_t from[VKM_TILE_CLASSES];
        cr_assert(vkm_tiles_fit(&t, one, 1, 16, 2, 8, 16, from));
        cr_expect(from[0] == cases[i].one_row && from[1] == cases[i].four_rows, "%u blocks: from %u and %u", cases[i].kb, from[0], from[1]);
    }
}

Test(fit, leaves_alone_what_it_does_not_know)
{
    struct vkm_tuning t = {.tiles = {{{1}, {2}}, {{0}}, {{1}}}};
    const struct vkm_weight a = weight(0, 1, 1), b = weight(1, 1, 1), c = weight(2, 1, 1), *ab[] = {&a, &b}, *ac[] = {&a, &c};
    const uint8_t before[VKM_TILE_CLASSES] = {1, 3, 7, 11, 20, NEVER, NEVER};
    uint8_t from[VKM_TILE_CLASSES];
    memcpy(from, before, sizeof from);
    cr_expect(!vkm_tiles_fit(&t, ab, 2, 10, 2, 8, 16, from) && !memcmp(from, before, sizeof from), "one of the types was not measured");
    cr_expect(!vkm_tiles_fit(&t, ab, 1, 0, 2, 8, 16, from) && !memcmp(from, before, sizeof from), "no tokens");
    cr_expect(!vkm_tiles_fit(&t, ab, 1, 5, 2, 8, 0, from) && !memcmp(from, before, sizeof from), "no tile may be");
    cr_expect(vkm_tiles_fit(&t, ac, 2, 10, 2, 8, 16, from));
    cr_expect(from[0] == 1 && from[1] == NEVER, "a class that one of the types lacks is left out");
}

/* Thresholds fit their bytes, and a class is there for every number of rows, whatever was measured. */
Test(fit, any_costs_and_numbers)
{
    struct ref_rng rng = ref_seed(11);
    for (uint32_t i = 0; i < 3000; i++) {
        struct vkm_tuning t = {.dispatch_ns = i % 3 ? ref_uniform(&rng) * 1e5 : 0, .byte_ns = i % 4 ? 0 : ref_uniform(&rng)};
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) t.tiles[0][c] = (struct vkm_tile_cost){c && ref_uniform(&rng) < 0.2 ? 0 : pow(10, ref_uniform(&rng) * 24 - 12), i % 5 ? 0 : ref_uniform(&rng)};
        uint32_t experts = 1 + (uint32_t)(ref_uniform(&rng) * 1024), used = 1 + (uint32_t)(ref_uniform(&rng) * (experts < 32 ? experts : 32)), n = 1 + (uint32_t)(ref_uniform(&rng) * (i % 2 ? 20000 : 40));
        const struct vkm_weight w = weight(0, 1 + i % 1000, 1 + i % 77), *one[] = {&w};
        uint8_t from[VKM_TILE_CLASSES];
        double tiles[VKM_TILE_CLASSES] = {0};
        cr_assert(vkm_tiles_fit(&t, one, 1, n, used, experts, 64, from));
        bool some = false;
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) {
            cr_assert(from[c] == NEVER || (from[c] >= 1 && from[c] <= sizes[c] && t.tiles[0][c].block_ns > 0), "class %u from %u", c, from[c]);
            some |= from[c] == 1;
        }
        cr_assert(some, "one row is of no class");
        cut(from, n, tiles, 1);
    }
}

/* Products of integers have to earn a twentieth of the time: of one row and of many rows together. */
Test(fit, int8dot_has_to_earn_its_error)
{
    struct vkm_tile_cost exact[VKM_TILE_CLASSES] = {{10, 0}, {20, 0}, {32, 0}}, int8[VKM_TILE_CLASSES] = {{10, 0}, {20, 0}, {32, 0}};      /* 10 for a row alone, 4 for one of eight */
    cr_expect(vkm_tuning_prefers_exact(exact, int8), "no faster");
    int8[0].block_ns = 9;
    cr_expect_not(vkm_tuning_prefers_exact(exact, int8), "a tenth faster alone, as fast together: 5.1 % by the mean of both");
    int8[0].block_ns = 9.1;
    cr_expect(vkm_tuning_prefers_exact(exact, int8), "4.6 %");
    int8[0].block_ns = 40, int8[2].block_ns = 7;
    cr_expect_not(vkm_tuning_prefers_exact(exact, int8), "four times as long alone, more than four times as fast together");
    int8[1].panel_ns = int8[2].panel_ns = 400;                              /* 12.5 a block of wide matrices: 32.5 for four rows, 19.5 for eight */
    cr_expect(vkm_tuning_prefers_exact(exact, int8), "not so with what comes on top for each panel");
    const struct vkm_tuning t = {.exact = {0, 1}};
    cr_expect(vkm_tuning_exact(&t, &vkm_types[1]) && !vkm_tuning_exact(&t, &vkm_types[0]) && !vkm_tuning_exact(NULL, &vkm_types[1]));
    memset(exact, 0, sizeof exact);
    cr_expect_not(vkm_tuning_prefers_exact(exact, int8), "not measured");
}

/* ---------------------------------------------------------------- the file */

static const struct vkm_tuning_key key = {.kernels = 0x123456789abcdef0u, .vendor_id = 0x10005, .device_id = 7, .driver_version = 99, .pipeline_uuid = {1, 2, 3}};

static struct vkm_tuning some_tuning(void)
{
    struct vkm_tuning t = {.dispatch_ns = 1234.5, .byte_ns = 0.25};
    t.exact[2] = 1;
    for (size_t i = 0; i < vkm_type_count; i++)
        for (uint32_t c = 0; c < VKM_TILE_CLASSES; c++) t.tiles[i][c] = (struct vkm_tile_cost){i == 4 ? 0 : 1 + (double)i + c / 10.0, i + 100.0};
    return t;
}

Test(record, survives_and_refuses_damage)
{
    const struct vkm_tuning t = some_tuning();
    struct vkm_tuning got, poison;
    uint8_t bytes[VKM_TUNING_BYTES_MAX], changed[VKM_TUNING_BYTES_MAX + 1];
    size_t n = vkm_tuning_format(&key, &t, bytes);
    cr_expect_null(vkm_tuning_parse(&key, bytes, n, &got));
    cr_expect_eq(memcmp(&got, &t, sizeof t), 0);
    memset(&poison, 0x5a, sizeof poison);
    got = poison;
    for (size_t i = 0; i < n; i++) {
        uint8_t *cut_off = malloc(i ? i : 1);               /* of its own size: a sanitizer sees a byte that is read beyond it */
        memcpy(cut_off, bytes, i);
        cr_expect_not_null(vkm_tuning_parse(&key, cut_off, i, &got), "%zu of %zu bytes", i, n);
        free(cut_off);
    }
    for (size_t i = 0; i < n; i++)
        for (uint32_t bit = 0; bit < 8; bit++) {
            memcpy(changed, bytes, n);
            changed[i] ^= (uint8_t)(1u << bit);
            cr_expect_not_null(vkm_tuning_parse(&key, changed, n, &got), "bit %u of byte %zu", bit, i);
        }
    memcpy(changed, bytes, n);
    changed[n] = 0;
    cr_expect_not_null(vkm_tuning_parse(&key, changed, n + 1, &got), "a byte more");
    cr_expect_eq(memcmp(&got, &poison, sizeof got), 0, "a record that was refused has written something");
}

/* What a hash does not catch: another key, and a writer that means harm. The header is 80 bytes, its hash at 56; an entry is 120. */
Test(record, refuses_what_is_well_made)
{
    const struct vkm_tuning t = some_tuning();
    struct vkm_tuning got;
    uint8_t bytes[VKM_TUNING_BYTES_MAX];
    struct vkm_tuning_key other = key;
    other.driver_version++;
    size_t n = vkm_tuning_format(&key, &t, bytes);
    cr_expect_str_eq(vkm_tuning_parse(&other, bytes, n, &got), "it is of another device, driver or build");
    static const double bad[] = {-1, NAN, INFINITY, 1e13, -8e3};
    static const uint32_t no_type = 9999, eight = 8, first_again = 0, too_many = 17, exact_two = 2 << 16 | VKM_TILE_CLASSES;
    const struct { size_t at; const void *value; size_t size; const char *what; } changes[] = {
        {64, &bad[0], 8, "a dispatch of negative time"}, {64, &bad[1], 8, "a dispatch of NaN"}, {72, &bad[0], 8, "memory of negative time"},
        {80 + 8, &bad[0], 8, "negative"}, {80 + 16, &bad[1], 8, "NaN"}, {80 + 120 + 8, &bad[2], 8, "infinite"},
        {80 + 120 + 16, &bad[3], 8, "endless"}, {80, &no_type, 4, "a type that is none"}, {84, &eight, 4, "eight classes"}, {84, &exact_two, 4, "neither exact nor not"},
        {80 + 16, &bad[4], 8, "less than nothing"}, {80 + 120, &first_again, 4, "a type twice"}, {12, &too_many, 4, "too many types"}, {8, &eight, 4, "version 8"}};
    for (size_t i = 0; i < VKM_COUNT(changes); i++) {
        const uint64_t zero = 0;
        n = vkm_tuning_format(&key, &t, bytes);
        memcpy(bytes + changes[i].at, changes[i].value, changes[i].size);
        memcpy(bytes + 56, &zero, 8);
        uint64_t hash = vkm_hash(VKM_HASH_START, bytes, n);
        memcpy(bytes + 56, &hash, 8);
        cr_expect_not_null(vkm_tuning_parse(&key, bytes, n, &got), "%s", changes[i].what);
    }
}

Test(record, files)
{
    vkm_error err = {0};
    const char *why = "";
    const struct vkm_tuning t = some_tuning();
    struct vkm_tuning got;
    struct vkm_tuning_key other = key;
    char folder[] = "/tmp/vkmoe-tune-XXXXXX", inside[64], path[256];
    other.pipeline_uuid[15] = 1;
    cr_assert(mkdtemp(folder));
    snprintf(inside, sizeof inside, "%s/a/b", folder);
    cr_expect(!vkm_tuning_load(inside, &key, &got, &why) && !why, "no file is no complaint");
    cr_assert_eq(vkm_tuning_save(inside, &key, &t, &err), VKM_OK, "%s", err.message);
    cr_expect(vkm_tuning_load(inside, &key, &got, &why) && !memcmp(&got, &t, sizeof t));
    cr_expect(!vkm_tuning_load(inside, &other, &got, &why) && !why, "another device has a file of its own");
    vkm_tuning_path(inside, &key, path, sizeof path);
    FILE *f = fopen(path, "ab");
    cr_assert(f);
    for (uint32_t i = 0; i < 4096; i++) fputc(0, f);
    fclose(f);
    cr_expect(!vkm_tuning_load(inside, &key, &got, &why));
    cr_expect_str_eq(why, "its length is wrong");
    unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_expect(!vkm_tuning_load(inside, &key, &got, &why) && why, "a folder of that name");
    cr_expect_eq(vkm_tuning_save(inside, &key, &t, &err), VKM_ERR_IO);
    rmdir(path);
    rmdir(inside);
    snprintf(inside, sizeof inside, "%s/a", folder);
    cr_expect_eq(rmdir(inside), 0, "something was left there");
    rmdir(folder);
}

/* What kernels are used, and how, is part of the key. */
Test(record, key_of)
{
    struct vkm_caps caps = {.type = VKM_TYPE_DISCRETE, .vendor_id = 1, .subgroup_size = 32, .invocations = 1024, .tiers = 3}, c = caps;
    struct vkm_shape shape, s;
    vkm_shape_choose(&caps, &shape);
    const struct vkm_tuning_key a = vkm_tuning_key_of(&caps, &shape);
    struct vkm_tuning_key b = vkm_tuning_key_of(&caps, &shape);
    cr_expect_eq(memcmp(&a, &b, sizeof a), 0);
    c.tiers = 1;
    b = vkm_tuning_key_of(&c, &shape);
    cr_expect_neq(memcmp(&a, &b, sizeof a), 0, "tiers");
    s = shape;
    s.splits++;
    b = vkm_tuning_key_of(&caps, &s);
    cr_expect_neq(memcmp(&a, &b, sizeof a), 0, "splits");
    c = caps;
    c.pipeline_uuid[3] = 1;
    b = vkm_tuning_key_of(&c, &shape);
    cr_expect_neq(memcmp(&a, &b, sizeof a), 0, "driver");
    s = shape;
    vkm_shape_tiles(&s, 4);
    b = vkm_tuning_key_of(&caps, &s);
    cr_expect_eq(memcmp(&a, &b, sizeof a), 0, "how rows are cut is what the tuning decides");
}
