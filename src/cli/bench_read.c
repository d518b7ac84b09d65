/* Reports that --json wrote, read again. They come from other people's machines: everything is checked. */
#include "bench.h"
#include "json_read.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

enum { ROWS_MAX = 100000 };

/* ---------------------------------------------------------------- members, whose types are checked */

/* No text of a report can command a terminal: C0, DEL, and C1 as UTF-8. */
static bool is_clean(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0)) return false;
    return true;
}

static vkm_result text_of(const struct json_doc *d, const struct json_value *object, const char *key, const char **text, vkm_error *err)
{
    const struct json_value *v = json_member(d, object, key);
    if (!v || v->type != JSON_STRING) return vkm_fail(err, VKM_ERR_FORMAT, "'%s' is missing or no text", key);
    if (!is_clean(v->text)) return vkm_fail(err, VKM_ERR_FORMAT, "'%s' has control characters", key);
    *text = v->text;
    return VKM_OK;
}

static vkm_result copy_of(const struct json_doc *d, const struct json_value *object, const char *key, char *to, size_t size, vkm_error *err)
{
    const char *text;
    TRY(text_of(d, object, key, &text, err));
    if (strlen(text) >= size) return vkm_fail(err, VKM_ERR_FORMAT, "'%s' is longer than %zu bytes", key, size - 1);
    strcpy(to, text);
    return VKM_OK;
}

static vkm_result number_of(const struct json_doc *d, const struct json_value *object, const char *key, double min, double max, double *number, vkm_error *err)
{
    const struct json_value *v = json_member(d, object, key);
    if (!v || v->type != JSON_NUMBER) return vkm_fail(err, VKM_ERR_FORMAT, "'%s' is missing or no number", key);
    if (v->number < min || v->number > max) return vkm_fail(err, VKM_ERR_FORMAT, "'%s' is out of range", key);
    *number = v->number;
    return VKM_OK;
}

static vkm_result container_of(const struct json_doc *d, const struct json_value *object, const char *key, enum json_type type, const struct json_value **v, vkm_error *err)
{
    *v = json_member(d, object, key);
    if (!*v || (*v)->type != type) return vkm_fail(err, VKM_ERR_FORMAT, "'%s' is missing or no %s", key, type == JSON_OBJECT ? "object" : "array");
    return VKM_OK;
}

/* ---------------------------------------------------------------- the parts of a report */

static vkm_result read_figure(const struct json_doc *d, const struct json_value *v, struct bench_figure *f, vkm_error *err)
{
    double number = 0;
    *f = (struct bench_figure){0};
    if (v->type != JSON_OBJECT) return vkm_fail(err, VKM_ERR_FORMAT, "a figure is no object");
    TRY(text_of(d, v, "name", &f->name, err));
    TRY(text_of(d, v, "unit", &f->unit, err));
    if (strlen(f->unit) >= sizeof ((struct bench_column *)0)->unit) return vkm_fail(err, VKM_ERR_FORMAT, "unit '%.40s' is too long", f->unit);
    TRY(number_of(d, v, "better", -1, 1, &number, err));
    f->better = (int)number;
    if (json_member(d, v, "invalid")) {
        f->value = f->p10 = f->p90 = NAN;
        return text_of(d, v, "invalid", &f->why, err);
    }
    TRY(number_of(d, v, "value", 0, INFINITY, &f->value, err));
    f->p10 = f->p90 = f->value;
    f->tight = true;
    if (!json_member(d, v, "runs")) return VKM_OK;
    TRY(number_of(d, v, "runs", 1, UINT32_MAX, &number, err));
    f->runs = (uint32_t)number;
    TRY(number_of(d, v, "p10", 0, INFINITY, &f->p10, err));
    TRY(number_of(d, v, "p90", 0, INFINITY, &f->p90, err));
    TRY(number_of(d, v, "drift", -1, INFINITY, &f->drift, err));
    const struct json_value *tight = json_member(d, v, "tight");
    if (!tight || tight->type != JSON_BOOL) return vkm_fail(err, VKM_ERR_FORMAT, "'tight' is missing or neither true nor false");
    f->tight = tight->number != 0;
    return VKM_OK;
}

static vkm_result read_row(const struct json_doc *d, const struct json_value *v, struct bench_report *report, vkm_error *err)
{
    const struct json_value *figures;
    const char *section;
    char key[sizeof report->rows->key];
    if (v->type != JSON_OBJECT) return vkm_fail(err, VKM_ERR_FORMAT, "a row is no object");
    TRY(text_of(d, v, "section", &section, err));
    TRY(copy_of(d, v, "key", key, sizeof key, err));
    TRY(container_of(d, v, "figures", JSON_ARRAY, &figures, err));
    if (figures->count > BENCH_FIGURES) return vkm_fail(err, VKM_ERR_FORMAT, "a row has more than %d figures", BENCH_FIGURES);
    struct bench_row *row = bench_row_add(report, section, "%s", key);
    if (report->failed) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of memory");
    for (const struct json_value *f = json_first(d, figures); f; f = json_next(d, f)) TRY(read_figure(d, f, &row->figures[row->n_figures++], err));
    return VKM_OK;
}

static vkm_result read_device(const struct json_doc *d, const struct json_value *root, struct bench_file *file, vkm_error *err)
{
    const struct json_value *device;
    TRY(container_of(d, root, "device", JSON_OBJECT, &device, err));
    TRY(copy_of(d, device, "name", file->report.device.name, sizeof file->report.device.name, err));
    TRY(copy_of(d, device, "driver", file->report.device.driver, sizeof file->report.device.driver, err));
    TRY(copy_of(d, device, "caps", file->report.device.caps, sizeof file->report.device.caps, err));
    return copy_of(d, device, "tier", file->tier, sizeof file->tier, err);
}

static vkm_result read_record(const struct json_doc *d, const struct json_value *root, struct bench_record *r, vkm_error *err)
{
    const struct json_value *host;
    TRY(copy_of(d, root, "version", r->version, sizeof r->version, err));
    TRY(copy_of(d, root, "commit", r->commit, sizeof r->commit, err));
    TRY(copy_of(d, root, "date", r->date, sizeof r->date, err));
    TRY(copy_of(d, root, "command", r->command, sizeof r->command, err));
    TRY(container_of(d, root, "host", JSON_OBJECT, &host, err));
    TRY(copy_of(d, host, "os", r->os, sizeof r->os, err));
    return copy_of(d, host, "cpu", r->cpu, sizeof r->cpu, err);
}

static vkm_result read_notes(const struct json_doc *d, const struct json_value *root, struct bench_report *report, vkm_error *err)
{
    const struct json_value *notes;
    TRY(container_of(d, root, "notes", JSON_OBJECT, &notes, err));
    for (const struct json_value *v = json_first(d, notes); v; v = json_next(d, v)) {
        if (v->type != JSON_STRING || !is_clean(v->key) || !is_clean(v->text)) return vkm_fail(err, VKM_ERR_FORMAT, "a note is no text, or has control characters");
        bench_note(report, v->key, "%s", v->text);
    }
    return report->failed ? vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of memory") : VKM_OK;
}

static int row_order(const void *a, const void *b)
{
    const struct bench_row *x = *(const struct bench_row *const *)a, *y = *(const struct bench_row *const *)b;
    int sections = strcmp(x->section, y->section);
    return sections ? sections : strcmp(x->key, y->key);
}

static vkm_result sort_rows(struct bench_file *file, vkm_error *err)
{
    uint32_t n = file->report.n_rows;
    file->sorted = calloc(n + 1, sizeof *file->sorted);
    if (!file->sorted) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of memory");
    for (uint32_t i = 0; i < n; i++) file->sorted[i] = &file->report.rows[i];
    qsort(file->sorted, n, sizeof *file->sorted, row_order);
    for (uint32_t i = 1; i < n; i++)
        if (row_order(&file->sorted[i - 1], &file->sorted[i]) == 0)
            return vkm_fail(err, VKM_ERR_FORMAT, "row '%s' of section '%.40s' is there twice", file->sorted[i]->key, file->sorted[i]->section);
    return VKM_OK;
}

static vkm_result read_report(struct bench_file *file, vkm_error *err)
{
    const struct json_doc *d = &file->doc;
    const struct json_value *root = &d->values[0], *rows;
    const char *schema;
    double version = 0;
    if (root->type != JSON_OBJECT || text_of(d, root, "schema", &schema, NULL) != VKM_OK || strcmp(schema, BENCH_SCHEMA) != 0)
        return vkm_fail(err, VKM_ERR_FORMAT, "this is no report of `vkmoe bench --json`");
    TRY(number_of(d, root, "schema_version", 0, UINT32_MAX, &version, err));
    if (version != BENCH_SCHEMA_VERSION) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "the report has schema version %g, this program reads %d", version, BENCH_SCHEMA_VERSION);
    const struct json_value *complete = json_member(d, root, "complete");
    if (!complete || complete->type != JSON_BOOL) return vkm_fail(err, VKM_ERR_FORMAT, "'complete' is missing or neither true nor false");
    file->report.incomplete = complete->number == 0;
    TRY(read_record(d, root, &file->record, err));
    TRY(read_device(d, root, file, err));
    TRY(read_notes(d, root, &file->report, err));
    TRY(container_of(d, root, "rows", JSON_ARRAY, &rows, err));
    if (rows->count > ROWS_MAX) return vkm_fail(err, VKM_ERR_FORMAT, "the report has more than %d rows", ROWS_MAX);
    for (const struct json_value *v = json_first(d, rows); v; v = json_next(d, v)) TRY(read_row(d, v, &file->report, err));
    return sort_rows(file, err);
}

vkm_result bench_read(const char *text, size_t n, struct bench_file *file, vkm_error *err)
{
    *file = (struct bench_file){0};
    if (n > BENCH_FILE_MAX) return vkm_fail(err, VKM_ERR_FORMAT, "it is larger than %u MiB", BENCH_FILE_MAX >> 20);
    vkm_result r = json_parse(text, n, &file->doc, err);
    if (r == VKM_OK) r = read_report(file, err);
    if (r != VKM_OK) bench_file_free(file);
    return r;
}

const struct bench_row *bench_file_row(const struct bench_file *file, const struct bench_row *like)
{
    const struct bench_row *const *found = bsearch(&like, file->sorted, file->report.n_rows, sizeof *file->sorted, row_order);
    return found ? *found : NULL;
}

void bench_file_free(struct bench_file *file)
{
    bench_report_free(&file->report);
    json_free(&file->doc);
    free(file->sorted);
    *file = (struct bench_file){0};
}
