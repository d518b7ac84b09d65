/* The measuring half of bench: synthetic weights of every type, routings, what is counted, and the whole of `bench layer` and `bench roofline` on small shapes. */
#include "driver.h"
#include "effort.h"
#include "cli/bench_device.h"
#include <math.h>

/* ---------------------------------------------------------------- weights */

/* Not multiples of 32 or of a panel; two chunks of slabs where the storage range is small. */
static const struct bench_shape tiny = {.name = "tiny", .n_embd = 256, .n_expert = 6, .n_used = 2, .n_ff = 288, .n_ff_shared = 96, .shared_gated = true};

/* All rows of one expert's matrix, dequantised by the embedding kernel. Its weight is told where that expert's table entries are. */
static void dequantise(vkm_device *device, const struct bench_weights *weights, struct vkm_weight w, uint32_t expert, vkm_buffer *ws, float *out)
{
    vkm_error err = {0};
    uint32_t rows = w.n_panels * 32, n = rows * w.kb * 32, *ids = malloc(rows * sizeof *ids);
    vkm_buffer *readback;
    vkm_program *program;
    uint64_t ticket;
    cr_assert(ids);
    w.tab += expert * w.n_chunks * VKM_CHUNK_WORDS;
    w.rows = rows;
    for (uint32_t i = 0; i < rows; i++) ids[i] = i;
    OK(vkm_upload_all(device, ws, 0, ids, rows * 4, &err));
    OK(vkm_program_create(device, "dequantise", &program, &err));
    struct vkm_build b = {.device = device, .program = program, .workspace = ws, .sets = weights->sets, .layer = -1, .err = &err};
    vkm_shape_choose(vkm_device_caps(device), &b.shape);
    struct vkm_region x = {(uint32_t)vkm_align(rows, 32), w.kb * 32, rows};
    OK(vkm_buffer_create(device, VKM_BUFFER_READBACK, n * 4, "readback", &readback, &err));
    OK(vkm_embed(&b, &w, 0, x, w.cols, rows, 1));
    OK(vkm_program_copy(program, ws, x.at * 4, readback, 0, n * 4, &err));
    OK(vkm_program_finish(program, &err));
    OK(vkm_program_submit(program, 1, &ticket, &err));
    OK(vkm_wait(device, ticket, &err));
    OK(vkm_buffer_invalidate(readback, 0, n * 4, &err));
    memcpy(out, vkm_buffer_map(readback), n * 4);
    vkm_program_destroy(program);
    vkm_buffer_destroy(readback);
    free(ids);
}

/* Finite, mean near 0 and the deviation that was asked for, 1 / sqrt(columns), within a quarter. */
static void check_values(const float *v, const struct vkm_weight *w, const char *what)
{
    double sum = 0, squares = 0;
    uint32_t n = w->n_panels * 32 * w->kb * 32;
    for (uint32_t i = 0; i < n; i++) {
        cr_assert(isfinite(v[i]), "%s: value %u is %g", what, i, v[i]);
        sum += v[i], squares += (double)v[i] * v[i];
    }
    double deviation = sqrt(squares / n) * sqrt(w->cols), mean = sum / n * sqrt(w->cols);
    cr_expect(deviation > 0.75 && deviation < 1.25, "%s: deviation %g of what was asked for", what, deviation);
    cr_expect(fabs(mean) < 0.13, "%s: mean %g", what, mean);           /* quants of 4 bits less 8 have mean -1/2 */
}

static void check_weights(const char *caps)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *device = driver_open(caps, &log);
    vkm_buffer *ws;
    float *a = malloc(1 << 22), *b = malloc(1 << 22);
    cr_assert(a && b);
    OK(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 1 << 20, "ws", &ws, &err));
    for (size_t t = 0; t < vkm_type_count; t++) {
        struct bench_plan plan;
        struct bench_weights weights;
        OK(bench_plan_create(vkm_device_caps(device), &tiny, &vkm_types[t], &plan, &err));
        OK(bench_weights_create(device, &plan, 2, 1, ws, &weights, &err));
        const struct vkm_weight *all[] = {&plan.moe.gate_up, &plan.moe.down, &plan.moe.shared_gate_up, &plan.moe.shared_down};
        for (size_t i = 0; i < VKM_COUNT(all); i++) {
            uint64_t bytes = (uint64_t)all[i]->n_panels * 32 * all[i]->kb * 128;
            dequantise(device, &weights, *all[i], all[i]->experts - 1, ws, a);
            check_values(a, all[i], vkm_types[t].name);
            dequantise(device, &weights, *all[i], 0, ws, b);
            cr_expect(all[i]->experts == 1 || memcmp(a, b, bytes), "%s: two experts are the same", vkm_types[t].name);
            struct bench_weights second = weights;
            second.sets += weights.n_sets;
            struct vkm_weight again = *all[i];
            again.tab += plan.n_tables;                    /* as bench_weights_moe has it */
            dequantise(device, &second, again, all[i]->experts - 1, ws, b);
            cr_expect(memcmp(a, b, bytes), "%s: the copies are the same", vkm_types[t].name);
        }
        const struct vkm_weight *router = &plan.moe.router;
        dequantise(device, &weights, *router, 0, ws, a);
        for (uint32_t r = 0; r < router->n_panels * 32; r++)
            for (uint32_t c = 0; c < router->cols; c++) cr_assert_eq(a[r * router->kb * 32 + c], r == c, "router row %u column %u is %g", r, c, a[r * router->kb * 32 + c]);
        bench_weights_destroy(&weights);
        bench_plan_destroy(&plan);
    }
    vkm_buffer_destroy(ws);
    free(a), free(b);
    driver_close(device, &log);
}
Test(bench_weights, sane_in_every_type) { check_weights(NULL); }
Test(bench_weights, sane_in_many_slabs) { FULL_ONLY(); check_weights("range=1048576,slabs=6"); }
Test(bench_weights, sane_in_planes) { check_weights("scalar"); }

Test(bench_weights, types_for_narrow_matrices)
{
    static const struct { const char *type; uint32_t cols; const char *becomes; } cases[] = {
        {"q4_k", 2048, "q4_k"}, {"q4_k", 1408, "q5_0"}, {"q5_k", 1408, "q5_1"}, {"q6_k", 2880, "q8_0"}, {"q4_0", 2880, "q4_0"}, {"q4_k", 40, "f16"}, {"f32", 7, "f32"}};
    for (size_t i = 0; i < VKM_COUNT(cases); i++)
        cr_expect_str_eq(bench_type_for(bench_type_find(cases[i].type, strlen(cases[i].type)), cases[i].cols)->variant, cases[i].becomes);
}

Test(bench_weights, refuses_what_cannot_be)
{
    vkm_error err = {0};
    struct vkm_caps caps = {.storage_range = 1 << 20, .slabs = 2};
    struct bench_plan plan;
    struct bench_shape s = tiny;
    FAILS(bench_plan_create(&caps, &s, bench_type_find("f32", 3), &plan, &err), VKM_ERR_LIMIT);       /* 3.5 MiB of gate and up */
    cr_expect(strstr(err.message, "storage buffers"), "%s", err.message);
    caps.slabs = 64;
    OK(bench_plan_create(&caps, &s, bench_type_find("f32", 3), &plan, &err));
    bench_plan_destroy(&plan);
    s.n_expert = 2048, s.n_embd = 2080;
    FAILS(bench_plan_create(&caps, &s, bench_type_find("f32", 3), &plan, &err), VKM_ERR_LIMIT);
    cr_expect(strstr(err.message, "1024"), "%s", err.message);
    s.n_expert = 300, s.n_embd = 256;
    FAILS(bench_plan_create(&caps, &s, bench_type_find("f32", 3), &plan, &err), VKM_ERR_LIMIT);
}

/* ---------------------------------------------------------------- routing */

Test(bench_routing, distinct_and_skewed_as_asked)
{
    enum { E = 64, K = 8, N = 4000 };
    static uint32_t ids[N * K], again[N * K], other[N * K];
    vkm_error err = {0};
    for (int zipf = 0; zipf < 2; zipf++) {
        uint32_t count[E] = {0}, most = 0, least = N;
        OK(bench_route(5, zipf ? BENCH_ZIPF : BENCH_UNIFORM, E, K, N, ids, &err));
        OK(bench_route(5, zipf ? BENCH_ZIPF : BENCH_UNIFORM, E, K, N, again, &err));
        OK(bench_route(6, zipf ? BENCH_ZIPF : BENCH_UNIFORM, E, K, N, other, &err));
        cr_expect(!memcmp(ids, again, sizeof ids) && memcmp(ids, other, sizeof ids));
        for (uint32_t t = 0; t < N; t++) {
            cr_assert_eq(bench_distinct(E, ids + t * K, K), K, "token %u", t);
            for (uint32_t j = 0; j < K; j++) count[ids[t * K + j]]++;
        }
        for (uint32_t e = 0; e < E; e++) {
            most = count[e] > most ? count[e] : most;
            least = count[e] < least ? count[e] : least;
        }
        /* uniform: 500 each, deviation 21. Zipf: the first is among nearly all choices of eight, the last among about one in thirty. */
        if (zipf) cr_expect(most > N * 8 / 10 && least < N / 20 && least > 0, "zipf: from %u to %u", least, most);
        else      cr_expect(most < 600 && least > 400, "uniform: from %u to %u", least, most);
    }
    OK(bench_route(1, BENCH_ZIPF, 8, 8, 100, ids, &err));                   /* all of them: only the order is left to chance */
    for (uint32_t t = 0; t < 100; t++) cr_assert_eq(bench_distinct(8, ids + t * 8, 8), 8);
}

Test(bench_routing, inputs_hold_the_logits)
{
    enum { E = 40, K = 5, N = 30, LD = 64 };
    uint32_t ids[N * K];
    float x[N * LD];
    vkm_error err = {0};
    OK(bench_route(9, BENCH_UNIFORM, E, K, N, ids, &err));
    bench_route_inputs(3, E, K, N, ids, 50, LD, x);
    for (uint32_t t = 0; t < N; t++) {
        for (uint32_t j = 0; j < K; j++)
            for (uint32_t e = 0; e < E; e++) {
                bool earlier = false;
                for (uint32_t i = 0; i <= j; i++) earlier |= ids[t * K + i] == e;
                cr_assert(earlier || x[t * LD + e] < x[t * LD + ids[t * K + j]], "token %u: expert %u beats choice %u", t, e, j);
            }
        for (uint32_t i = 0; i < LD; i++) cr_assert(isfinite(x[t * LD + i]) && (i < 50 || x[t * LD + i] == 0));
    }
}

/* ---------------------------------------------------------------- counting */

/* 3 tokens, 2 of 4 experts each, hidden 64, width 32, F32: by hand. */
Test(bench_count, by_hand)
{
    vkm_error err = {0};
    struct vkm_caps caps = {.storage_range = 1 << 27, .slabs = 4};
    const struct bench_shape s = {.name = "hand", .n_embd = 64, .n_expert = 4, .n_used = 2, .n_ff = 32};
    struct bench_plan plan;
    struct bench_work w;
    const struct bench_words f32 = {0}, f16 = {64 / 2, 32 / 2};
    OK(bench_plan_create(&caps, &s, bench_type_find("f32", 3), &plan, &err));
    cr_assert(bench_work_of(&plan.moe, "moe_gate_up", 3, 3, 5, f32, &w));          /* 3 different experts in 5 tiles */
    double expert = 2 * 32 * 64 * 4, io = 3 * 64 * 4 + 6 * 32 * 4;            /* 2 panels of 16 + 16 rows; x once, h by slot */
    cr_expect_eq(w.weights, 3 * expert);
    cr_expect_eq(w.bytes, 3 * expert + io);
    cr_expect_eq(w.moved, 5 * expert + io);
    cr_expect_eq(w.flops, 2.0 * 6 * 64 * 32 * 2);
    cr_assert(bench_work_of(&plan.moe, "moe_gate_up", 3, 3, 5, f16, &w));
    cr_expect(w.bytes == 3 * expert + io / 2 && w.moved == 5 * expert + io / 2);
    cr_assert(bench_work_of(&plan.moe, "moe_down", 3, 3, 5, f32, &w));
    cr_expect_eq(w.bytes, 3 * 64 * 32 * 4 + 6 * 32 * 4 + 6 * 64 * 4);
    cr_expect_eq(w.flops, 2.0 * 6 * 64 * 32);
    cr_assert(bench_work_of(&plan.moe, "moe_router", 3, 3, 2, f32, &w));           /* 4 rows in a panel of 32, in 2 tiles of tokens */
    cr_expect_eq(w.bytes, 32 * 64 * 4 + 3 * 64 * 4 + 3 * 4 * 4);
    cr_expect_eq(w.moved, w.bytes + 32 * 64 * 4);
    cr_expect_eq(w.flops, 2.0 * 3 * 4 * 64);
    cr_assert(bench_work_of(&plan.moe, "moe_topk", 3, 3, 0, f32, &w));
    cr_expect_eq(w.bytes, 3 * 4 * 4 + 6 * 8);
    cr_assert(bench_work_of(&plan.moe, "ffn_norm", 3, 3, 0, f32, &w));             /* x read and written, what is added, the normed x */
    cr_expect_eq(w.bytes, 3 * 64 * 4 * 4);
    cr_assert(bench_work_of(&plan.moe, "moe_route", 3, 3, 1, f32, &w));            /* the three in one, where the normed x is not read again, nor the logits written twice */
    cr_expect_eq(w.bytes, 3 * 64 * 4 * 4 + 32 * 64 * 4 + 3 * 4 * 4 + 3 * 4 * 4 + 6 * 8);
    cr_expect_eq(w.moved, w.bytes);
    cr_assert(bench_work_of(&plan.moe, "moe_route", 3, 3, 3, f32, &w));            /* in a workgroup a token */
    cr_expect_eq(w.moved, w.bytes + 2 * 32 * 64 * 4);
    cr_assert(bench_work_of(&plan.moe, "moe_combine", 3, 3, 0, f32, &w));          /* 2 parts, x read and written, the normed x */
    cr_expect_eq(w.bytes, 3 * 64 * 4 * (2 + 3));
    cr_expect_eq(w.flops, 0);
    cr_expect_not(bench_work_of(&plan.moe, "moe_other", 3, 3, 0, f32, &w));
    bench_plan_destroy(&plan);
}

/* ---------------------------------------------------------------- the whole */

static const struct bench_options quick = {.policy = {.warmups = 1, .min_runs = 1, .max_runs = 1, .max_seconds = 60, .tight = BENCH_TIGHT}, .tile = 4, .most_layers = 3, .most_shapes = 2};      /* CPU drivers compile larger tiles for long */

static double figure(const struct bench_report *report, const char *section, const char *key, const char *name)
{
    double v = bench_find(report, section, key, name);
    cr_assert_not(isnan(v), "%s %s: no %s", section, key, name);
    return v;
}

static void check_layer(const char *caps)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *device = driver_open(caps, &log);
    struct bench_report report = {.caps = *vkm_device_caps(device)};
    if (caps && !strcmp(caps, "scalar") && !runs_scalar_loads(&report.caps)) {
        driver_close(device, &log);
        cr_skip_test(NO_SCALAR_LOADS);
    }
    const struct bench_case cases[] = {{1, BENCH_UNIFORM}, {10, BENCH_ZIPF}, {1 << 14, BENCH_UNIFORM}};
    bool small = report.caps.storage_range <= 1 << 24;
    OK(bench_layer_shape(&quick, device, &report, &tiny, bench_type_find("f32", 3), cases, small ? 3 : 2, &err));
    const char *one = "shape=tiny type=f32 tokens=1 routing=uniform", *ten = "shape=tiny type=f32 tokens=10 routing=zipf";
    char key[192];
    cr_expect_eq(figure(&report, "layer", one, "experts"), 2);
    cr_expect_eq(figure(&report, "layer", one, "padded rows"), 1);
    cr_expect_eq(figure(&report, "layer", one, "bytes/min"), 1);
    cr_expect(figure(&report, "layer", one, "speed") > 0 && figure(&report, "layer", ten, "speed") > 0);
    cr_expect(figure(&report, "layer", ten, "padded rows") >= 1 && figure(&report, "layer", ten, "bytes/min") >= 1);
    static const char *const steps[] = {"moe_route", "ffn_norm", "moe_router", "moe_topk", "moe_count", "moe_permute", "moe_gate_up", "moe_down", "shared_gate_up", "shared_down", "moe_combine"};
    const bool routes = isnan(bench_find(&report, "step", "shape=tiny type=f32 tokens=10 routing=zipf step=moe_topk", "time"));     /* norm to lists in one: with scalar loads */
    cr_expect_eq(routes, runs_scalar_loads(&report.caps));
    for (size_t i = routes ? 0 : 1; i < VKM_COUNT(steps); i += routes && i == 0 ? 6 : 1) {
        snprintf(key, sizeof key, "%s step=%s", ten, steps[i]);
        cr_expect(figure(&report, "step", key, "bytes") > 0);
        cr_expect(figure(&report, "step", key, "time") > 0);
    }
    snprintf(key, sizeof key, "%s step=moe_down", ten);
    cr_expect_eq(figure(&report, "step", key, "empty workgroups"), 0);
    if (small) cr_expect(isnan(bench_find(&report, "layer", "shape=tiny type=f32 tokens=16384", "wall")) && report.n_rows == 2u + 6 + (routes ? 6 : 10) + 1 && report.n_notes > 0, "the case that does not fit is no row: %u rows", report.n_rows);
    bench_report_free(&report);
    driver_close(device, &log);
}
Test(bench_layer, tiny_shape) { check_layer(NULL); }
Test(bench_layer, tiny_shape_scalar_loads) { check_layer("scalar"); }
Test(bench_layer, tiny_shape_staged_and_limited) { FULL_ONLY(); check_layer("baseline,staged,range=4194304"); }

Test(bench_layer, what_does_not_fit_is_said)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *device = driver_open("heap=67108864", &log);
    struct bench_report report = {.caps = *vkm_device_caps(device)};
    const struct bench_case cases[] = {{1, BENCH_UNIFORM}, {8, BENCH_UNIFORM}};
    OK(bench_layer_shape(&quick, device, &report, bench_shape_find("mixtral-8x7b", 12), bench_type_find("q4_0", 4), cases, 2, &err));
    OK(bench_layer_shape(&quick, device, &report, bench_shape_find("switch-c-2048", 13), bench_type_find("q4_0", 4), cases, 2, &err));
    cr_expect_eq(report.n_rows, 4);
    for (uint32_t i = 0; i < report.n_rows; i++) cr_expect(report.rows[i].figures[0].why, "%s", report.rows[i].key);
    cr_expect_eq(report.n_notes, 4);
    bench_report_free(&report);
    driver_close(device, &log);
}

/* Rates are checked by their results: a wrong sum is an invalid row. */
static void check_roofline(const char *clamps)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *device = driver_open(clamps, &log);                        /* 4 MiB are read: this looks for results, not for rates */
    struct bench_report report = {.caps = *vkm_device_caps(device)};
    cr_assert_eq(bench_roofline(&quick, device, &report), STATUS_OK);
    static const char *const keys[] = {BENCH_CEILING_READ, BENCH_CEILING_CACHED, BENCH_CEILING_COPY, BENCH_CEILING_F32};
    for (size_t i = 0; i < VKM_COUNT(keys); i++) cr_expect(figure(&report, "roofline", keys[i], "rate") > 0);
    cr_expect(figure(&report, "roofline", "kind=submission", "time") > 0);
    cr_expect(figure(&report, "roofline", "kind=dispatch", "time") > 0);
    if (report.caps.fp16) cr_expect(figure(&report, "roofline", BENCH_CEILING_F16, "rate") > 0);
    else cr_expect(isnan(bench_find(&report, "roofline", BENCH_CEILING_F16, "rate")));
    if (report.caps.int8dot) cr_expect(figure(&report, "roofline", BENCH_CEILING_INT8, "rate") > 0);
    else cr_expect(isnan(bench_find(&report, "roofline", BENCH_CEILING_INT8, "rate")));
    bool has_matrices = vkm_kernel_tier(device, "bench_matrix", "f16_f32", VKM_TIERS_ALL) == VKM_TIER_COOPMAT;
    for (uint32_t i = 0; i < report.caps.n_matrices; i++) {
        const struct vkm_matrix *m = &report.caps.matrices[i];
        char key[80];
        snprintf(key, sizeof key, BENCH_CEILING_MATRIX, m->type, m->to, m->m, m->n, m->k);
        if (has_matrices) cr_expect(figure(&report, "roofline", key, "rate") > 0);
        else cr_expect(isnan(bench_find(&report, "roofline", key, "rate")));
    }
    uint32_t rows = report.n_rows;
    OK(bench_ceilings(&quick, device, &report, &err));                      /* has them all */
    cr_expect_eq(report.n_rows, rows);
    bench_report_free(&report);
    driver_close(device, &log);
}
Test(bench_roofline, every_ceiling_is_measured) { check_roofline("heap=16777216"); }
Test(bench_roofline, by_device_addresses) { check_roofline("heap=16777216,scalar"); }
