/* vkmoe bench kernels: what the driver's compiler made of each kernel that a model runs. Nothing is run, so it also works on drivers that only compile. */
#include "bench_device.h"
#include "model/session.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Drivers name what they tell as they like; what means the same is added up in one figure. Of the names seen: RADV, ANV, NVK, Turnip, Asahi (Mesa 26). */
static const struct { const char *figure, *unit; int better; const char *names[4]; } meanings[] = {
    {"registers", "", -1, {"VGPRs", "Number of GPRs", "Registers used", "Max live registers"}},
    {"registers", "", -1, {"GPRs"}},
    {"spills", "", -1, {"Spilled VGPRs", "Spilled SGPRs", "Spill Count", "Spills"}},
    {"spills", "", -1, {"Spills to memory", "STP Count"}},
    {"scratch", "B", -1, {"Scratch size", "Scratch Memory Size", "SLM Size", "Scratch"}},
    {"occupancy", "", 1, {"Subgroups per SIMD", "Max warps/SM", "Max Waves Per Core", "Threads"}},
    {"instructions", "", -1, {"Instructions", "Instruction Count"}},
    {"cycles", "", -1, {"Cycle Count", "Static cycle count", "Inverse Throughput"}},
    {"code", "B", -1, {"Code size"}},
};

static void on_statistic(void *user, const vkm_kernel *kernel, uint32_t lanes, const char *name, double value)
{
    struct bench_report *report = user;
    char variant[96], key[192];
    snprintf(variant, sizeof variant, "%s", vkm_kernel_variant(kernel));           /* "q4_0:subgroup 32,4,2" */
    char *constants = strchr(variant, ' ');
    if (constants) *constants++ = 0;
    snprintf(key, sizeof key, "kernel=%s variant=%s constants=%s lanes=%u", vkm_kernel_name(kernel), variant, constants ? constants : "-", lanes);
    struct bench_row *row = report->n_rows ? &report->rows[report->n_rows - 1] : NULL;
    if (!row || strcmp(row->key, key) != 0) row = bench_row_add(report, "kernel", "%s", key);
    for (size_t i = 0; i < VKM_COUNT(meanings); i++)
        for (size_t k = 0; k < VKM_COUNT(meanings[i].names) && meanings[i].names[k]; k++) {
            if (strcasecmp(meanings[i].names[k], name) != 0) continue;
            struct bench_figure *f = (struct bench_figure *)bench_figure_find(row, meanings[i].figure);
            if (f) f->value = f->p10 = f->p90 = f->value + value;
            else bench_count(row, meanings[i].figure, meanings[i].unit, value, meanings[i].better);
        }
}

static int by_key(const void *a, const void *b) { return strcmp(((const struct bench_row *)a)->key, ((const struct bench_row *)b)->key); }

/* The programs of a pass over a long prompt, of one token and of several sequences' tokens. */
static vkm_result compile(vkm_session *s, vkm_error *err)
{
    static const uint32_t together[] = {1, 8};
    vkm_program *program;
    bench_say("a prompt of %u tokens", s->space.n_batch);
    vkm_result r = vkm_session_program(s, (struct vkm_recipe){.n = s->space.n_batch}, &program, err);
    for (size_t i = 0; !r && i < VKM_COUNT(together); i++) {
        bench_say("%u sequences", together[i]);
        r = vkm_session_program(s, (struct vkm_recipe){.n = together[i], .count = together[i], .each_its_own = true, .sample = true}, &program, err);
    }
    return r;
}

int bench_kernels(const struct bench_options *o, struct bench_report *report)
{
    struct engine e = {0};
    vkm_error err = {0};
    struct args args = *o->args;
    if (!args.kv) args.kv = "f16";
    int status = engine_device(&args, NULL, &e);
    if (status != STATUS_OK) return status;
    report->device = e.device_info;
    report->caps = *vkm_device_caps(e.device);
    if (!vkm_kernels_keep_statistics(e.device))
        return engine_close(&e, fail("%s does not tell what its compiler made of a kernel (VK_KHR_pipeline_executable_properties)", e.device_info.name));
    status = engine_model(&args, &e);
    if (status == STATUS_OK) status = engine_session(&args, 1024, 8, &e);
    if (status == STATUS_OK && (compile(e.session, &err) || vkm_kernels_statistics(e.device, on_statistic, report, &err))) status = bench_stop(report, &err);
    if (report->n_rows) qsort(report->rows, report->n_rows, sizeof *report->rows, by_key);
    if (status == STATUS_OK) bench_note(report, "model", "%s", args.model ? args.model : "bundled");
    return engine_close(&e, status);
}
