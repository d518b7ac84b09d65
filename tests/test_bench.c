/* vkmoe bench without a device: statistics, tables, reports as JSON, CSV and pages, reading reports that are hostile, comparing. */
#include "cli/bench.h"
#include "cli/bench_plot.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OK(call) do { vkm_result r_ = (call); cr_assert_eq(r_, VKM_OK, "%s: %s", vkm_result_name(r_), err.message); } while (0)
#define NEAR(a, b) cr_assert(fabs((a) - (b)) <= 1e-12 * fabs(b) + 1e-15, "%.17g is not %.17g", (double)(a), (double)(b))

/* ---------------------------------------------------------------- statistics */

Test(bench_stat, median_and_percentiles)
{
    const double odd[] = {5, 1, 4, 2, 3}, even[] = {4, 1, 3, 2}, one[] = {7};
    struct bench_stat s = bench_stat_of(odd, 5);
    cr_assert_eq(s.n, 5);
    NEAR(s.median, 3.0);
    NEAR(s.p10, 1.4);                                      /* numpy.percentile([1, 2, 3, 4, 5], 10) */
    NEAR(s.p90, 4.6);
    NEAR(bench_stat_of(even, 4).median, 2.5);
    s = bench_stat_of(one, 1);
    cr_assert(s.median == 7 && s.p10 == 7 && s.p90 == 7 && s.drift == 0 && !s.tight);
    s = bench_stat_of(NULL, 0);
    cr_assert(s.n == 0 && isnan(s.median));
}

Test(bench_stat, drift_is_of_the_last_third_over_the_first)
{
    const double rising[] = {10, 10, 12, 11, 13, 15}, five[] = {1, 1, 9, 9, 9};
    NEAR(bench_stat_of(rising, 6).drift, 14.0 / 10 - 1);
    cr_assert_eq(bench_stat_of(five, 5).drift, 0);
}

/* The 95 % interval of the median by order statistics, from tables: n = 5: none; 6: 1st to 6th; 10: 2nd to 9th; 20: 6th to 15th; 100: 40th to 61st. */
Test(bench_stat, the_interval_is_that_of_order_statistics)
{
    const struct { uint32_t n, low, high; } known[] = {{6, 1, 6}, {8, 1, 8}, {9, 2, 8}, {10, 2, 9}, {20, 6, 15}, {50, 18, 33}, {100, 40, 61}};
    for (size_t i = 0; i < VKM_COUNT(known); i++) {
        double values[100];
        for (uint32_t outside = 0; outside < 2; outside++) {
            /* all values equal, but those outside the interval: still tight; the first inside moved: no longer */
            for (uint32_t k = 0; k < known[i].n; k++) values[k] = k + 1 < known[i].low + outside ? 1 : k + 1 > known[i].high ? 1000 : 100;
            cr_assert_eq(bench_stat_of(values, known[i].n).tight, !outside, "n %u, %u outside", known[i].n, outside);
        }
    }
    const double five[] = {1, 1, 1, 1, 1};
    cr_assert_not(bench_stat_of(five, 5).tight);
}

struct runs { uint32_t calls; double gpu; vkm_result fail_at_5; };
static vkm_result count_run(void *user, double *gpu, vkm_error *err)
{
    struct runs *r = user;
    *gpu = r->gpu;
    if (++r->calls == 5 && r->fail_at_5) return vkm_fail(err, r->fail_at_5, "it broke");
    return VKM_OK;
}

Test(bench_stat, measure_obeys_its_policy)
{
    vkm_error err = {0};
    struct bench_stat wall = {0}, gpu = {0};
    struct runs r = {.gpu = 0.5};
    const struct bench_policy fixed = {.warmups = 2, .min_runs = 7, .max_runs = 7, .max_seconds = 1e9, .tight = 0.02}, spent = {.warmups = 0, .min_runs = 6, .max_runs = 100, .max_seconds = 0, .tight = 0.02};
    OK(bench_measure(&fixed, count_run, &r, &wall, &gpu, &err));
    cr_assert(r.calls == 9 && wall.n == 7 && gpu.n == 7 && gpu.median == 0.5 && wall.median >= 0);
    r = (struct runs){.gpu = NAN};
    OK(bench_measure(&spent, count_run, &r, &wall, &gpu, &err));
    cr_assert(r.calls == 1 && wall.n == 1 && gpu.n == 0, "no time left: one run, and no GPU time without timestamps");
    r = (struct runs){.fail_at_5 = VKM_ERR_DEVICE_LOST};
    wall.n = 77;
    cr_assert_eq(bench_measure(&fixed, count_run, &r, &wall, &gpu, &err), VKM_ERR_DEVICE_LOST);
    cr_assert(wall.n == 77 && strcmp(err.message, "it broke") == 0);
}

/* ---------------------------------------------------------------- rows */

Test(bench_report, figures_that_cannot_be_right_are_no_numbers)
{
    struct bench_report report = {0};
    const struct bench_stat zero = {.n = 3}, none = {.median = NAN}, good = {.n = 3, .median = 2e-3, .p10 = 1e-3, .p90 = 4e-3, .tight = true};
    struct bench_row *row = bench_row_add(&report, "model", "test=%s%d", "pp", 5);
    bench_rate(row, "rate", "tok/s", 10, &zero);
    bench_time(row, "time", &zero);
    bench_rate(row, "missing", "tok/s", 10, &none);
    bench_count(row, "infinite", "", INFINITY, 1);
    bench_count(row, "negative", "", -1, 1);
    bench_invalid(row, "lost", "tok/s", "device lost");
    bench_rate(row, "good", "tok/s", 10, &good);
    bench_time(row, "good time", &good);
    static const char *const why[] = {"infinite", "below the clock's resolution", "not measured", "infinite", "negative", "device lost", NULL, NULL};
    cr_assert_eq(row->n_figures, VKM_COUNT(why));
    for (size_t i = 0; i < VKM_COUNT(why); i++) {
        const struct bench_figure *f = &row->figures[i];
        cr_assert((!why[i] && !f->why) || (why[i] && f->why && strcmp(why[i], f->why) == 0), "%s: %s", f->name, f->why ? f->why : "valid");
        cr_assert_eq(isnan(f->value), f->why != NULL);
    }
    const struct bench_figure *f = bench_figure_find(row, "good");
    cr_assert(f && f->runs == 3 && f->better == 1);
    NEAR(f->value, 5000.0);
    NEAR(f->p10, 2500.0);
    NEAR(f->p90, 10000.0);
    NEAR(bench_find(&report, "model", "test=pp", "good time"), 2000.0);
    cr_assert(isnan(bench_find(&report, "model", "test=pp", "lost")) && isnan(bench_find(&report, "step", "test=pp", "good")));
    bench_report_free(&report);
}

Test(bench_report, tables_gather_rows_of_like_keys)
{
    struct bench_report report = {0};
    char text[64];
    uint32_t n;
    bench_count(bench_row_add(&report, "step", "test=pp5 step=a"), "time", "us", 12345, -1);
    bench_count(bench_row_add(&report, "model", "test=pp5"), "rate", "tok/s", 3.14159, 1);
    bench_count(bench_row_add(&report, "model", "start=cold"), "load", "us", 5e6, -1);
    struct bench_row *row = bench_row_add(&report, "model", "test=tg5");
    bench_invalid(row, "rate", "tok/s", "device lost");
    bench_count(row, "rate", "GOP/s", 2, 1);
    struct bench_table *tables = bench_tables(&report, &n);
    cr_assert(tables && n == 3);
    cr_assert(strcmp(tables[0].section, "model") == 0 && tables[0].n_rows == 2 && tables[0].n_columns == 2 && strcmp(tables[0].parts[0], "test") == 0);
    cr_assert_str_eq(tables[2].section, "step");
    bench_cell(&tables[0].columns[0], tables[0].rows[0], text, sizeof text);
    cr_assert_str_eq(text, "3.142");
    bench_cell(&tables[0].columns[0], tables[0].rows[1], text, sizeof text);
    cr_assert_str_eq(text, "invalid: device lost");
    bench_cell(&tables[0].columns[1], tables[0].rows[0], text, sizeof text);
    cr_assert_str_eq(text, "");
    bench_cell(&tables[1].columns[0], tables[1].rows[0], text, sizeof text);
    cr_assert(strcmp(text, "5000") == 0 && strcmp(tables[1].columns[0].unit, "ms") == 0, "%s %s", text, tables[1].columns[0].unit);
    bench_cell(&tables[2].columns[0], tables[2].rows[0], text, sizeof text);
    cr_assert_str_eq(text, "12.35");
    bench_part(tables[2].rows[0], "step", text, sizeof text);
    cr_assert_str_eq(text, "a");
    bench_tables_free(tables, n);
    bench_report_free(&report);
}

/* ---------------------------------------------------------------- reports as text, and read again */

#define NASTY "a \"quoted\" \\ <b>&amp; \xc3\xa9 \xf0\x9f\x98\x80 | end"

static void fill(struct bench_report *report, struct bench_record *record)
{
    static char *argv[] = {"vkmoe", "bench", "layer", "line\nbreak"};
    const struct bench_stat s = {.n = 9, .median = 1e-3, .p10 = 0.9e-3, .p90 = 1.2e-3, .drift = 0.25, .tight = true};
    *report = (struct bench_report){0};
    strcpy(report->device.name, NASTY);
    strcpy(report->device.driver, "driver");
    strcpy(report->device.caps, "caps");
    report->device.type = "cpu";
    bench_record_fill(record, 4, argv);
    bench_note(report, "model", "%s", NASTY);
    bench_note(report, "logits_hash test=pp16", "%016x", 255);
    bench_rate(bench_row_add(report, "roofline", "kind=read"), "rate", "GB/s", 0.0123, &s);
    bench_rate(bench_row_add(report, "roofline", "kind=cached-read"), "rate", "GB/s", 0.04, &s);
    bench_rate(bench_row_add(report, "roofline", "kind=fma type=f32"), "rate", "GFLOP/s", 0.05, &s);
    bench_rate(bench_row_add(report, "roofline", "kind=fma type=f16"), "rate", "GFLOP/s", 0.054, &s);
    bench_invalid(bench_row_add(report, "roofline", "kind=dot type=int8"), "rate", "GOP/s", "no integer dot product");
    for (int tokens = 1; tokens <= 64; tokens *= 4)
        for (int shape = 0; shape < 2; shape++) {
            const char *name = shape ? "olmoe-1b-7b" : "mixtral-8x7b";
            const struct bench_stat time = {.n = 9, .median = 1e-3 * sqrt(tokens) * (shape + 1), .p10 = 0.9e-3 * sqrt(tokens) * (shape + 1), .p90 = 1.2e-3 * sqrt(tokens) * (shape + 1)};
            struct bench_row *row = bench_row_add(report, "layer", "shape=%s type=q4_k tokens=%d routing=uniform", name, tokens);
            bench_rate(row, "rate", "tok/s", tokens, &time);
            bench_time(row, "time", &time);
            for (int step = 0; step < 3; step++) {
                row = bench_row_add(report, "step", "shape=%s type=q4_k tokens=%d routing=uniform step=%s", name, tokens, step == 0 ? "moe_gate_up" : step == 1 ? "moe_down" : "moe_topk");
                bench_time(row, "time", &time);
                bench_count(row, "share", "%", step == 0 ? 60 : step == 1 ? 30 : 10, 0);
                bench_rate(row, "moved", "GB/s", 0.004 / (step + 1), &time);
                bench_rate(row, "computed", "GFLOP/s", 0.002 * tokens / (step + 1), &time);
            }
        }
    struct bench_row *row = bench_row_add(report, "model", "test=tg64 batch=4");
    bench_count(row, "odd", "", NAN, 1);
    bench_count(row, "exact", "B", 123456789, -1);
}

/* What a writer writes; owned by the caller. */
static char *written(void (*write)(FILE *, const struct bench_report *, const struct bench_record *), const struct bench_report *report, const struct bench_record *record, size_t *n)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    cr_assert(f);
    write(f, report, record);
    fclose(f);
    return text;
}

Test(bench_read, a_report_comes_back_as_it_was)
{
    vkm_error err = {0};
    struct bench_report report;
    struct bench_record record;
    struct bench_file file;
    size_t n;
    fill(&report, &record);
    char *text = written(bench_write_json, &report, &record, &n);
    OK(bench_read(text, n, &file, &err));
    cr_assert_str_eq(file.report.device.name, NASTY);
    cr_assert_str_eq(file.record.command, "vkmoe bench layer line break");
    cr_assert_str_eq(file.record.commit, record.commit);
    cr_assert_str_eq(file.tier, "baseline");
    cr_assert(file.report.n_notes == 2 && strcmp(file.report.notes[0].text, NASTY) == 0 && strcmp(file.report.notes[1].text, "00000000000000ff") == 0);
    cr_assert_eq(file.report.n_rows, report.n_rows);
    for (uint32_t i = 0; i < report.n_rows; i++) {
        const struct bench_row *a = &report.rows[i], *b = bench_file_row(&file, a);
        cr_assert(b && b->n_figures == a->n_figures, "%s", a->key);
        for (uint32_t k = 0; k < a->n_figures; k++) {
            const struct bench_figure *x = &a->figures[k], *y = &b->figures[k];
            cr_assert(strcmp(x->name, y->name) == 0 && strcmp(x->unit, y->unit) == 0 && x->better == y->better);
            if (x->why) cr_assert(y->why && strcmp(x->why, y->why) == 0 && isnan(y->value));
            else cr_assert(x->runs == y->runs && x->tight == y->tight && fabs(x->value - y->value) <= 1e-8 * x->value && fabs(x->p10 - y->p10) <= 1e-8 * x->p10 && fabs(x->p90 - y->p90) <= 1e-8 * x->p90 && fabs(x->drift - y->drift) < 1e-8);
        }
    }
    bench_file_free(&file);
    free(text);
    bench_report_free(&report);
}

Test(bench_read, no_part_of_a_report_is_taken_for_the_whole)
{
    vkm_error err = {0};
    struct bench_report report;
    struct bench_record record;
    struct bench_file file;
    size_t n;
    fill(&report, &record);
    char *text = written(bench_write_json, &report, &record, &n);
    for (size_t part = 0; part + 2 < n; part += part < 4000 ? 1 : 97) cr_assert_neq(bench_read(text, part, &file, &err), VKM_OK, "%zu of %zu bytes", part, n);
    free(text);
    bench_report_free(&report);
}

/* One thing of a good report replaced by another. */
Test(bench_read, wrong_types_and_values_are_refused)
{
    static const struct { const char *from, *to, *message; } bad[] = {
        {"\"vkmoe-bench\"", "\"other\"", "no report"}, {"\"schema_version\": 1", "\"schema_version\": 2", "version 2"}, {"\"schema_version\": 1", "\"schema_version\": \"1\"", "no number"},
        {"\"complete\": true", "\"complete\": 1", "complete"}, {"\"rows\": [", "\"rows\": {}, \"r\": [", "rows"}, {"\"section\": \"roofline\"", "\"section\": null", "section"},
        {"\"key\": \"kind=read\"", "\"key\": \"kind=cached-read\"", "twice"}, {"\"value\": 12.3", "\"value\": -12.3", "range"}, {"\"value\": 12.3", "\"value\": 1e999", "too large"},
        {"\"value\": 12.3", "\"value\": \"12.3\"", "no number"}, {"\"value\": 12.3", "\"value\": NaN", "no value"}, {"\"better\": 1", "\"better\": 5", "range"}, {"\"runs\": 9", "\"runs\": 0", "range"},
        {"\"tight\": true", "\"tight\": 0", "tight"}, {"\"unit\": \"GB/s\"", "\"unit\": \"0123456789abcdef\"", "too long"}, {"\"driver\": \"driver\"", "\"driver\": \"\\u001b[2J\"", "control"},
        {"\"driver\": \"driver\"", "\"driver\": \"a\", \"driver\": \"b\"", "twice"}, {"\"notes\": {", "\"notes\": {\"x\": 3,", "note"}, {"\"device\": {", "\"device\": 3, \"d\": {", "device"}};
    vkm_error err = {0};
    struct bench_report report;
    struct bench_record record;
    struct bench_file file;
    size_t n;
    fill(&report, &record);
    char *text = written(bench_write_json, &report, &record, &n);
    for (size_t i = 0; i < VKM_COUNT(bad); i++) {
        char *at = strstr(text, bad[i].from), *changed = malloc(n + 100);
        cr_assert(at && changed, "%s", bad[i].from);
        int length = snprintf(changed, n + 100, "%.*s%s%s", (int)(at - text), text, bad[i].to, at + strlen(bad[i].from));
        cr_assert_neq(bench_read(changed, (size_t)length, &file, &err), VKM_OK, "%s", bad[i].to);
        cr_assert(strstr(err.message, bad[i].message), "%s: %s", bad[i].to, err.message);
        free(changed);
    }
    free(text);
    bench_report_free(&report);
}

/* ---------------------------------------------------------------- JSON */

Test(json_read, what_is_json)
{
    static const char *const good[] = {"0", " [ ] ", "{}", "-0.5e+3", "\"\\u00e9\\ud83d\\ude00\\n\\/\"", "[1,[2,[3,{\"a\":[true,false,null]}]]]", "\t\"\xc3\xa9\"\r\n", "1e308", "1e-999"};
    for (size_t i = 0; i < VKM_COUNT(good); i++) {
        vkm_error err = {0};
        struct json_doc doc;
        OK(json_parse(good[i], strlen(good[i]), &doc, &err));
        if (i == 4) cr_assert_str_eq(doc.values[0].text, "\xc3\xa9\xf0\x9f\x98\x80\n/");
        if (i == 3) cr_assert_eq(doc.values[0].number, -500);
        json_free(&doc);
    }
}

Test(json_read, what_is_none)
{
    static const char *const bad[] = {
        "", " ", "[", "]", "{", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:2}", "{\"a\":1 \"b\":2}", "{\"a\":1,\"a\":2}", "[}", "{]", "1 2", "[] []", "nul", "nulll", "True",
        "NaN", "Infinity", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x10", "1e999", "-1e400", "\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"",
        "\"\\u0000\"", "\"\n\"", "\"\x01\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\xef\xbb\xbf[]", "//x\n1", "[1]x", "'a'",
        "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"};
    for (size_t i = 0; i < VKM_COUNT(bad); i++) {
        vkm_error err = {0};
        struct json_doc doc;
        cr_assert_eq(json_parse(bad[i], strlen(bad[i]), &doc, &err), VKM_ERR_FORMAT, "%s", bad[i]);
        cr_assert(strncmp(err.message, "line ", 5) == 0 && !doc.values && !doc.text);
    }
    vkm_error err = {0};
    struct json_doc doc;
    cr_assert_eq(json_parse("\"a\0b\"", 5, &doc, &err), VKM_ERR_FORMAT);
    cr_assert_eq(json_parse("[1,\n 2,\n  x]", 12, &doc, &err), VKM_ERR_FORMAT);
    cr_assert(strncmp(err.message, "line 3, column 3:", 17) == 0, "%s", err.message);
}

Test(json_read, depth_and_numbers_of_members_are_bounded)
{
    enum { N = 1 << 20 };
    vkm_error err = {0};
    struct json_doc doc;
    char *text = malloc(N), *at = text;
    memset(text, '[', N);
    cr_assert_eq(json_parse(text, N, &doc, &err), VKM_ERR_FORMAT);
    cr_assert(strstr(err.message, "nesting"), "%s", err.message);
    memcpy(text, "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", 32);
    OK(json_parse(text, 32, &doc, &err));
    json_free(&doc);
    *at++ = '{';
    for (int i = 0; i < 1025; i++) at += sprintf(at, "%s\"%d\":0", i ? "," : "", i);
    *at++ = '}';
    cr_assert_eq(json_parse(text, (size_t)(at - text), &doc, &err), VKM_ERR_FORMAT);
    cr_assert(strstr(err.message, "members"), "%s", err.message);
    free(text);
}

/* Every byte of a good report replaced by some others: never a crash, and what is still a report is one that its writer could have made. */
Test(bench_read, damaged_reports_do_no_harm)
{
    vkm_error err = {0};
    struct bench_report report;
    struct bench_record record;
    struct bench_file file;
    static const char others[] = "\0\"{}[],:\\0-e\xff";
    size_t n, read = 0;
    fill(&report, &record);
    report.n_rows = 6;
    char *text = written(bench_write_json, &report, &record, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof others - 1; k++) {
            char before = text[i];
            text[i] = others[k];
            if (bench_read(text, n, &file, &err) == VKM_OK) {
                for (uint32_t r = 0; r < file.report.n_rows; r++) cr_assert(file.report.rows[r].n_figures <= BENCH_FIGURES);
                read++;
                bench_file_free(&file);
            }
            text[i] = before;
        }
    cr_assert_gt(read, 0);
    free(text);
    bench_report_free(&report);
}

/* ---------------------------------------------------------------- CSV */

Test(bench_write, csv_has_as_many_fields_everywhere)
{
    struct bench_report report;
    struct bench_record record;
    size_t n, lines = 0, figures = 0;
    fill(&report, &record);
    for (uint32_t i = 0; i < report.n_rows; i++) figures += report.rows[i].n_figures;
    char *text = written(bench_write_csv, &report, &record, &n);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        uint32_t fields = 1;
        bool quoted = false;
        for (const char *c = line; *c; c++) {
            if (*c == '"') quoted = !quoted;
            if (*c == ',' && !quoted) fields++;
        }
        cr_assert(fields == 17 && !quoted, "%s", line);
        cr_assert(!strstr(line, "nan") || strstr(line, "not a number"), "%s", line);
    }
    cr_assert_eq(lines, figures + 1);
    free(text);
    bench_report_free(&report);
}

/* ---------------------------------------------------------------- pages */

/* Every tag that is opened is closed, in order; attributes are quoted. */
static void check_page(const char *page)
{
    char open[64][16];
    uint32_t depth = 0;
    static const char *const outside[] = {"http", "src=", "href", "@import", "url(", "<script", "<link", "nan", "inf\"", "<b>&amp;amp;"};
    for (size_t i = 0; i < VKM_COUNT(outside); i++) cr_assert_not(strstr(page, outside[i]), "%s: %.80s", outside[i], strstr(page, outside[i]));
    cr_assert(strncmp(page, "<!DOCTYPE html>\n", 16) == 0);
    const char *at = page + 16;
    while ((at = strchr(at, '<')) != NULL) {
        const char *end = strchr(at, '>');
        bool closing = at[1] == '/', empty;
        cr_assert(end);
        char name[16] = "";
        sscanf(at + 1 + closing, "%15[a-z0-9]", name);
        cr_assert(name[0], "%.60s", at);
        uint32_t quotes = 0;
        for (const char *c = at; c < end; c++) quotes += *c == '"';
        cr_assert_eq(quotes % 2, 0, "%.60s", at);
        empty = end[-1] == '/';
        if (closing) {
            cr_assert(depth && strcmp(open[depth - 1], name) == 0, "</%s> ends <%s>: %.60s", name, depth ? open[depth - 1] : "", at);
            depth--;
        } else if (!empty) {
            cr_assert_lt(depth, 64);
            strcpy(open[depth++], name);
        }
        at = end;
    }
    cr_assert_eq(depth, 0);
}

Test(bench_html, the_page_is_whole_and_needs_nothing_else)
{
    struct bench_report report;
    struct bench_record record;
    size_t n;
    fill(&report, &record);
    report.incomplete = true;
    char *page = written(bench_write_html, &report, &record, &n);
    check_page(page);
    cr_assert(strstr(page, "a &quot;quoted&quot; \\ &lt;b&gt;&amp;amp;"), "names are escaped");
    cr_assert(strstr(page, "invalid: no integer dot product") && strstr(page, "Incomplete") && strstr(page, "prefers-color-scheme:dark"));
    uint32_t circles = 0, curves = 0, bars = 0;
    for (const char *at = page; (at = strstr(at, "<circle")); at++) circles++;
    for (const char *at = page; (at = strstr(at, "<polyline")); at++) curves++;
    for (const char *at = page; (at = strstr(at, "<rect")); at++) bars++;
    cr_assert(circles == 24 + 8 && curves == 2 && bars == 24, "%u dots of steps and curves, %u curves, %u bars", circles, curves, bars);
    const char *keep = getenv("VKMOE_TEST_PAGE");          /* to look at */
    FILE *f = keep ? fopen(keep, "w") : NULL;
    if (f) { fwrite(page, 1, n, f); fclose(f); }
    free(page);
    bench_report_free(&report);
}

Test(bench_html, reports_without_anything_make_pages_too)
{
    struct bench_report report = {0};
    struct bench_record record = {0};
    size_t n;
    char *page = written(bench_write_html, &report, &record, &n);
    check_page(page);
    free(page);
    bench_count(bench_row_add(&report, "step", "step=x"), "time", "us", 0, -1);
    bench_rate(bench_row_add(&report, "roofline", "kind=read"), "rate", "GB/s", 1, &(struct bench_stat){.n = 1, .median = 1, .p10 = 1, .p90 = 1});
    page = written(bench_write_html, &report, &record, &n);
    check_page(page);
    free(page);
    bench_report_free(&report);
}

/* ---------------------------------------------------------------- compare */

/* Writes a report to a file of its own, and says where. */
static const char *report_file(const struct bench_report *report, const struct bench_record *record, char path[64])
{
    strcpy(path, "/tmp/vkmoe-test-bench-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    FILE *f = fdopen(fd, "w");
    bench_write_json(f, report, record);
    fclose(f);
    return path;
}

static int compare(const struct args *args, char **text, char **page)
{
    size_t n_text = 0, n_page = 0;
    FILE *out = open_memstream(text, &n_text), *html = open_memstream(page, &n_page);
    const struct bench_options o = {.args = args};
    int status = bench_compare(&o, out, html);
    fclose(out);
    fclose(html);
    return status;
}

Test(bench_compare, ratios_are_above_1_for_the_better)
{
    struct bench_report a, b;
    struct bench_record record;
    char path_a[64], path_b[64], *text, *page;
    fill(&a, &record);
    fill(&b, &record);
    strcpy(b.device.name, "another <device>");
    b.caps.tiers = VKM_TIER_BIT(VKM_TIER_BASELINE) | VKM_TIER_BIT(VKM_TIER_SUBGROUP);
    for (uint32_t i = 0; i < b.n_rows; i++)
        for (uint32_t k = 0; k < b.rows[i].n_figures; k++) {
            struct bench_figure *f = &b.rows[i].figures[k];
            double by = f->better > 0 ? 2 : 0.5;
            f->value *= by;
            f->p10 *= by;
            f->p90 *= by;
        }
    bench_row_add(&b, "layer", "only=here");
    struct bench_row *lost = &b.rows[0];
    lost->n_figures = 0;
    bench_invalid(lost, "rate", "GB/s", "device lost");
    struct args args = {.n_files = 2, .csv = true, .files = {report_file(&a, &record, path_a), report_file(&b, &record, path_b)}};
    cr_assert_eq(compare(&args, &text, &page), STATUS_OK);
    check_page(page);
    cr_assert(strstr(page, "another &lt;device&gt;") && strstr(page, "invalid: device lost"));
    uint32_t ratios = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (!strstr(line, path_b)) continue;
        if (strstr(line, "kind=read\"")) cr_assert(strstr(line, ",,,,\"device lost\""), "%s", line);
        else if (!strstr(line, "\"odd\"") && !strstr(line, "int8")) { cr_assert(strstr(line, ",2,no"), "%s", line); ratios++; }
    }
    cr_assert_gt(ratios, 20);
    free(text);
    free(page);
    args.csv = false;
    cr_assert_eq(compare(&args, &text, &page), STATUS_OK);
    cr_assert(strstr(text, "B differs in the device: another <device>, not " NASTY) && strstr(text, "B differs in the tier: subgroup, not baseline"));
    cr_assert(strstr(text, "1 rows of B are not in A") && strstr(text, "B has the same bits in the logits of test=pp16") && strstr(text, "B is 2.000 times A"));
    free(text);
    free(page);
    unlink(path_a);
    unlink(path_b);
    bench_report_free(&a);
    bench_report_free(&b);
}

Test(bench_compare, unlike_things_are_refused)
{
    struct bench_report a, b = {0}, c;
    struct bench_record record;
    char path_a[64], path_b[64], path_c[64], *text, *page;
    fill(&a, &record);
    fill(&c, &record);
    strcpy(b.device.name, "x");
    strcpy(b.device.driver, "x");
    strcpy(b.device.caps, "x");
    bench_count(bench_row_add(&b, "model", "test=pp1"), "rate", "tok/s", 1, 1);
    bench_note(&c, "model", "another");
    report_file(&a, &record, path_a);
    report_file(&b, &record, path_b);
    report_file(&c, &record, path_c);
    const char *const others[] = {path_b, path_c, "/nowhere.json", "/dev/null"};
    for (size_t i = 0; i < VKM_COUNT(others); i++) {
        struct args args = {.n_files = 2, .files = {path_a, others[i]}};
        cr_assert_eq(compare(&args, &text, &page), STATUS_FAILED, "%s", others[i]);
        cr_assert(text[0] == 0 && page[0] == 0);
        free(text);
        free(page);
    }
    unlink(path_a);
    unlink(path_b);
    unlink(path_c);
    bench_report_free(&a);
    bench_report_free(&b);
    bench_report_free(&c);
}
