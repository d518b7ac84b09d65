/* The host layer on a driver: memory, uploads, programs and their barriers, audit, caches, failures. */
#include "driver.h"
#include "host/internal.h"   /* to lose a device */
#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

#define WORDS 65536u
#define BYTES (WORDS * 4u)

/* As the device is; the lowest tier; and with device memory that is not mapped, as on a discrete GPU. */
static const char *const all_caps[] = {"all", "baseline", "staged"};
#define FOR_CAPS(caps) for (const char *const *at_ = all_caps, *caps; at_ < all_caps + VKM_COUNT(all_caps) && (caps = *at_); at_++)

struct bench {
    struct driver_log log;
    vkm_device *device;
    vkm_buffer *ws, *readback;
    vkm_bindings *bindings;
    const vkm_kernel *fill;
};

static void open_bench(struct bench *t, const char *caps)
{
    vkm_error err = {0};
    t->device = driver_open(caps, &t->log);
    OK(vkm_buffer_create(t->device, VKM_BUFFER_DEVICE, BYTES, "ws", &t->ws, &err));
    OK(vkm_buffer_create(t->device, VKM_BUFFER_READBACK, BYTES, "readback", &t->readback, &err));
    OK(vkm_bindings_create(t->device, t->ws, NULL, NULL, 0, NULL, 0, &t->bindings, &err));
    OK(vkm_kernel_get(t->device, "fill", "", (uint32_t[]){64, 1}, 2, &t->fill, &err));
    OK(vkm_buffer_clear(t->device, t->ws, &err));
}

static void close_bench(struct bench *t)
{
    vkm_bindings_destroy(t->bindings);
    vkm_buffer_destroy(t->readback);
    vkm_buffer_destroy(t->ws);
    cr_expect_eq(vkm_device_allocated(t->device), 0);
    driver_close(t->device, &t->log);
}

/* Words [at, at + n) become value. */
static struct vkm_step fill_step(const struct bench *t, uint32_t at, uint32_t n, uint32_t value)
{
    return (struct vkm_step){.kernel = t->fill, .bindings = t->bindings, .label = "fill", .push = {at, n, value}, .push_bytes = 12,
                             .groups = {vkm_div_up(n, 64), 1, 1}, .n_writes = 1, .writes = {{NULL, at * 4, (at + n) * 4}}, .bytes = n * 4};
}

static vkm_program *new_program(const struct bench *t, const char *name)
{
    vkm_error err = {0};
    vkm_program *p = NULL;
    OK(vkm_program_create(t->device, name, &p, &err));
    return p;
}

static void add(vkm_program *p, struct vkm_step step)
{
    vkm_error err = {0};
    OK(vkm_program_add(p, &step, &err));
}

static void run(const struct bench *t, vkm_program *p, uint32_t repeat)
{
    vkm_error err = {0};
    uint64_t ticket = 0;
    OK(vkm_program_submit(p, repeat, &ticket, &err));
    OK(vkm_wait(t->device, ticket, &err));
    cr_assert(vkm_done(t->device, ticket));
}

/* The workspace as it is on the device. */
static const uint32_t *read_words(const struct bench *t)
{
    vkm_error err = {0};
    vkm_program *p = new_program(t, "read");
    OK(vkm_program_copy(p, t->ws, 0, t->readback, 0, BYTES, &err));
    OK(vkm_program_finish(p, &err));
    run(t, p, 1);
    vkm_program_destroy(p);
    OK(vkm_buffer_invalidate(t->readback, 0, BYTES, &err));
    return vkm_buffer_map(t->readback);
}

static void expect_words(const uint32_t *words, uint32_t at, uint32_t n, uint32_t value)
{
    for (uint32_t i = at; i < at + n; i++)
        if (words[i] != value) cr_assert_fail("word %u is %u, not %u", i, words[i], value);
}

/* ------------------------------------------------ results, caps, devices */

Test(host, results_have_names_and_texts)
{
    cr_expect_str_eq(vkm_result_name(VKM_ERR_LIMIT), "VKM_ERR_LIMIT");
    cr_expect_str_eq(vkm_result_text(VKM_ERR_IO), "file cannot be read or written");
    cr_expect_str_eq(vkm_version(), "0.1.0");
    char small[8];
    vkm_text t = {small, sizeof small, 0};
    vkm_textf(&t, "%s", "12345");
    vkm_textf(&t, "%s", "67890");
    cr_expect_eq(t.used, 10);
    cr_expect_str_eq(small, "1234567");
}

Test(host, caps_only_ever_lower)
{
    const uint32_t B = VKM_TIER_BIT(VKM_TIER_BASELINE), S = VKM_TIER_BIT(VKM_TIER_SUBGROUP), F = VKM_TIER_BIT(VKM_TIER_FP16), I = VKM_TIER_BIT(VKM_TIER_INT8DOT), M = VKM_TIER_BIT(VKM_TIER_COOPMAT);
    const struct vkm_caps full = {.storage_range = 1 << 27, .slabs = 20, .kv_slabs = 4, .invocations = 1024, .shared_bytes = 65536, .workgroup_size_x = 1024, .heap_bytes = 1 << 30,
                                  .subgroup = true, .fp16 = true, .int8dot = true, .coopmat = true, .subgroup_size = 32, .tiers = B | S, .unified_memory = true};
    vkm_error err = {0};
    struct vkm_caps c = full;
    OK(vkm_caps_clamp(&c, NULL, &err));
    OK(vkm_caps_clamp(&c, "all,range=999999999,slabs=999,invocations=9999", &err));
    cr_expect_eq(memcmp(&c, &full, sizeof c), 0);
    OK(vkm_caps_clamp(&c, "fp16,range=1048577,slabs=1,kv_slabs=2,heap=1000,staged", &err));
    cr_expect(c.tiers == (B | S | F) && c.storage_range == 1048576 && c.slabs == 1 && c.kv_slabs == 2 && c.heap_bytes == 1000 && !c.unified_memory);
    OK(vkm_caps_clamp(&c, "int8dot", &err));
    cr_expect(c.tiers == (B | S | F | I));                      /* beside each other */
    OK(vkm_caps_clamp(&c, "subgroup", &err));
    cr_expect(c.tiers == (B | S) && !c.fp16 && !c.int8dot && !c.coopmat && c.subgroup && c.subgroup_size == 32 && c.invocations == 1024);
    OK(vkm_caps_clamp(&c, "baseline,invocations=64", &err));
    cr_expect(c.tiers == B && !c.subgroup && c.subgroup_size == 1 && c.invocations == 64 && c.shared_bytes == 16384);
    OK(vkm_caps_clamp(&c, "fp16,int8dot", &err));
    cr_expect_eq(c.tiers, B);                                   /* what was taken away does not come back */
    c = full;
    c.type = VKM_TYPE_CPU;
    OK(vkm_caps_clamp(&c, "fast", &err));
    cr_expect_eq(c.tiers, B | S);                               /* emulated there */
    c.type = VKM_TYPE_DISCRETE;
    OK(vkm_caps_clamp(&c, "fast", &err));
    cr_expect_eq(c.tiers, B | S | M);
    c = full;
    c.int8dot = false;
    OK(vkm_caps_clamp(&c, "int8dot,coopmat", &err));
    cr_expect_eq(c.tiers, B | S | M);                           /* one without the other */

    c = full;
    c.type = VKM_TYPE_CPU;
    OK(vkm_caps_clamp(&c, "scalar,texel", &err));
    cr_expect(!c.scalar_loads && !c.texel_loads);               /* only where the device can */
    c.device_address = c.scalar_loads = c.texel_buffers = true;
    OK(vkm_caps_clamp(&c, "texel", &err));
    cr_expect(c.texel_loads && !c.scalar_loads);                /* one way of loading or another */
    OK(vkm_caps_clamp(&c, "scalar", &err));
    cr_expect(c.scalar_loads && !c.texel_loads);
    OK(vkm_caps_clamp(&c, "gather", &err));
    cr_expect(!c.scalar_loads && !c.texel_loads);
    OK(vkm_caps_clamp(&c, "texel,subgroup", &err));
    cr_expect(c.texel_loads && c.tiers == (B | S));
    OK(vkm_caps_clamp(&c, "baseline", &err));
    cr_expect(!c.texel_loads && !c.texel_buffers);              /* the kernels that GPUs get */

    static const char *const wrong[] = {"faster", "baseline,", ",baseline", "range", "range=", "range=x", "range=0", "range=-1", "range=1k", "range=100", "color=3",
                                        "shared=99999999999999999999999", "baseline,,fp16", " baseline"};
    for (size_t i = 0; i < VKM_COUNT(wrong); i++) {
        struct vkm_caps before = c;
        FAILS(vkm_caps_clamp(&c, wrong[i], &err), VKM_ERR_ARGUMENT);
        cr_expect_eq(memcmp(&c, &before, sizeof c), 0, "%s changed the caps", wrong[i]);
    }
}

Test(host, devices_are_listed_and_chosen)
{
    vkm_error err = {0};
    uint32_t n = 0;
    OK(vkm_devices(NULL, &n, &err));
    cr_assert_gt(n, 0);
    vkm_device_info infos[8];
    uint32_t count = n < VKM_COUNT(infos) ? n : VKM_COUNT(infos);
    OK(vkm_devices(infos, &count, &err));
    cr_expect_eq(count, n);
    cr_expect(infos[0].name[0] && infos[0].driver[0] && infos[0].type && infos[0].api_major >= 1);

    vkm_device *device = NULL;
    vkm_device_params p = {.struct_size = sizeof p, .select = "99"};
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_NO_DEVICE);
    cr_expect(strstr(err.message, infos[0].name), "%s", err.message);
    p.select = "no such GPU";
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_NO_DEVICE);
    cr_expect(strstr(err.message, infos[0].name), "%s", err.message);
    p = (vkm_device_params){.struct_size = sizeof p, .caps = "nonsense"};
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_ARGUMENT);
    cr_expect_null(device);

    char part[6] = {0};
    for (size_t i = 0; i < 5; i++) part[i] = (char)(infos[0].name[i] >= 'a' && infos[0].name[i] <= 'z' ? infos[0].name[i] - 32 : infos[0].name[i]);
    p = (vkm_device_params){.struct_size = sizeof p, .select = part, .caps = "baseline"};
    OK(vkm_device_create(&p, &device, &err));
    vkm_device_info info;
    vkm_device_get_info(device, &info);
    cr_expect_str_eq(info.name, infos[0].name);
    vkm_device_destroy(device);
    vkm_device_destroy(NULL);
}

/* ------------------------------------------------ programs */

Test(host, fill_reaches_its_words_and_no_others)
{
    vkm_error err = {0};
    FOR_CAPS(caps) {
        struct bench t;
        open_bench(&t, caps);
        vkm_program *p = new_program(&t, "fill");
        add(p, fill_step(&t, 100, 1000, 7));
        OK(vkm_program_finish(p, &err));
        run(&t, p, 1);
        const uint32_t *words = read_words(&t);
        expect_words(words, 0, 100, 0);
        expect_words(words, 100, 1000, 7);
        expect_words(words, 1100, WORDS - 1100, 0);
        vkm_program_destroy(p);
        close_bench(&t);
    }
}

/* Marks of the printed program: '|' where a barrier stands before the step. */
static void expect_barriers(const vkm_program *p, const char *want)
{
    char text[8192], got[64] = "";
    vkm_text t = {text, sizeof text, 0};
    vkm_program_print(p, &t);
    cr_assert_lt(t.used, sizeof text);
    size_t n = 0;
    for (const char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) got[n++] = line[6] == '|' ? '|' : '.';
    cr_expect_str_eq(got, want, "%s", text);
}

Test(host, barriers_are_derived_from_reads_and_writes)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "all");
    vkm_program *p = new_program(&t, "chain");
    add(p, fill_step(&t, 0, 64, 1));           /* . */
    add(p, fill_step(&t, 64, 64, 2));          /* . beside it */
    struct vkm_step s = fill_step(&t, 128, 64, 3);
    s.n_reads = 1, s.reads[0] = (struct vkm_range){NULL, 508, 512};
    add(p, s);                                 /* | reads what the second wrote */
    s = fill_step(&t, 192, 64, 4);
    s.n_reads = 1, s.reads[0] = (struct vkm_range){t.ws, 0, 4};
    add(p, s);                                 /* . reads what lies before the barrier */
    add(p, fill_step(&t, 0, 32, 5));           /* | writes what was read; the workspace by name is the workspace */
    add(p, fill_step(&t, 31, 32, 6));          /* | writes what was written */
    add(p, fill_step(&t, 63, 1, 7));           /* . ranges that touch do not overlap */
    OK(vkm_program_copy(p, t.ws, 0, t.readback, 0, 256, &err));      /* | */
    OK(vkm_program_copy(p, t.ws, 512, t.readback, 256, 64, &err));   /* . */
    OK(vkm_program_finish(p, &err));
    expect_barriers(p, "..|.||.|.");
    cr_expect_eq(vkm_program_step_count(p), 7);
    cr_expect_eq(vkm_program_step(p, 6)->push[2], 7);
    cr_expect_null(vkm_program_step(p, 7));
    run(&t, p, 1);
    const uint32_t *words = read_words(&t);
    expect_words(words, 0, 31, 5);
    expect_words(words, 31, 32, 6);
    expect_words(words, 63, 1, 7);
    vkm_program_destroy(p);
    close_bench(&t);
}

Test(host, indirect_workgroups_come_from_the_workspace)
{
    vkm_error err = {0};
    FOR_CAPS(caps) {
        struct bench t;
        open_bench(&t, caps);
        vkm_program *p = new_program(&t, "indirect");
        add(p, fill_step(&t, 0, 1, 3));        /* three workgroups of 64 ... */
        add(p, fill_step(&t, 1, 2, 1));
        struct vkm_step s = fill_step(&t, 1024, 1024, 9);
        s.indirect = true, s.indirect_offset = 0;
        add(p, s);                             /* ... of the 16 there could be */
        OK(vkm_program_finish(p, &err));
        expect_barriers(p, "..|");
        run(&t, p, 1);
        const uint32_t *words = read_words(&t);
        expect_words(words, 1024, 192, 9);
        expect_words(words, 1024 + 192, 1024 - 192, 0);
        OK(vkm_program_audit(p, &err));
        vkm_program_destroy(p);
        close_bench(&t);
    }
}

Test(host, runs_are_ordered_with_writes_between)
{
    vkm_error err = {0};
    FOR_CAPS(caps) {
        struct bench t;
        open_bench(&t, caps);
        vkm_program *p = new_program(&t, "repeat");
        add(p, fill_step(&t, 0, 4096, 1));
        add(p, fill_step(&t, 2048, 4096, 2));
        OK(vkm_program_finish(p, &err));
        expect_barriers(p, ".|");
        uint64_t first, ticket = 0;
        OK(vkm_program_submit(p, 5, &first, &err));
        uint32_t data[64];
        for (uint32_t i = 0; i < 40; i++) {    /* more than there are one-time command buffers */
            for (uint32_t k = 0; k < 64; k++) data[k] = 1000 * i + k;
            OK(vkm_workspace_write(t.device, t.ws, i * 256, data, sizeof data, &err));
            if (i % 2) OK(vkm_program_submit(p, 1, &ticket, &err));
        }
        for (uint32_t k = 0; k < 64; k++) data[k] = 5;
        OK(vkm_workspace_write(t.device, t.ws, 0, data, sizeof data, &err));   /* after the last run */
        cr_expect_gt(ticket, first);
        const uint32_t *words = read_words(&t);
        expect_words(words, 0, 64, 5);
        expect_words(words, 64, 1984, 1);
        expect_words(words, 2048, 4096, 2);
        FAILS(vkm_workspace_write(t.device, t.ws, BYTES - 4, data, 8, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_workspace_write(t.device, t.ws, 2, data, 8, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_wait(t.device, ticket + 100, &err), VKM_ERR_ARGUMENT);
        vkm_program_destroy(p);
        close_bench(&t);
    }
}

/* By another's hand: any part of the list into any command buffer, and nothing of the program's own is made for it. */
Test(host, programs_are_recorded_into_other_command_buffers)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "all");
    for (uint32_t cut = 0; cut <= 6; cut++) {
        OK(vkm_buffer_clear(t.device, t.ws, &err));
        vkm_program *p = new_program(&t, "recorded");
        add(p, fill_step(&t, 0, 1, 3));            /* three workgroups of 64 ... */
        add(p, fill_step(&t, 1, 2, 1));
        struct vkm_step s = fill_step(&t, 1024, 1024, 9);
        s.indirect = true, s.indirect_offset = 0;
        add(p, s);                                 /* ... of the 16 there could be */
        add(p, fill_step(&t, 1100, 8, 2));
        OK(vkm_program_copy(p, t.ws, 4096, t.readback, 64, 1024, &err));
        add(p, fill_step(&t, 1024, 16, 4));        /* after the copy has read it */
        OK(vkm_program_finish(p, &err));
        cr_expect_eq(vkm_program_op_count(p), 6);
        memset(vkm_buffer_map(t.readback), 0, BYTES);
        OK(vkm_buffer_flush(t.readback, 0, BYTES, &err));
        for (int part = 0; part < 2; part++) {
            VkCommandBuffer commands;
            OK(vkm_transient_begin(t.device, &commands, &err));
            vkm_program_record_into(p, commands, part ? cut : 0, part ? 6 : cut);
            OK(vkm_queue_idle(t.device, &err));
        }
        cr_expect(!p->pool && !p->recording.n);
        OK(vkm_buffer_invalidate(t.readback, 0, BYTES, &err));
        const uint32_t *copied = (const uint32_t *)vkm_buffer_map(t.readback) + 16;
        expect_words(copied, 0, 76, 9);
        expect_words(copied, 76, 8, 2);
        expect_words(copied, 84, 108, 9);
        expect_words(copied, 192, 64, 0);
        vkm_program_destroy(p);
        const uint32_t *words = read_words(&t);
        expect_words(words, 1024, 16, 4);
        expect_words(words, 1040, 60, 9);
    }
    close_bench(&t);
}

Test(host, long_steps_are_split_over_workgroups)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "all");
    vkm_program *p = new_program(&t, "long");
    struct vkm_step s = fill_step(&t, 1, 20000, 3);
    s.bytes = (uint64_t)1 << 50;               /* a year and more: a workgroup each */
    add(p, s);
    add(p, fill_step(&t, 30000, 64, 4));
    OK(vkm_program_finish(p, &err));
    run(&t, p, 2);
    cr_expect_gt(p->recording.n, 300);
    const uint32_t *words = read_words(&t);
    expect_words(words, 0, 1, 0);
    expect_words(words, 1, 20000, 3);
    expect_words(words, 20001, 9999, 0);
    expect_words(words, 30000, 64, 4);
    vkm_program_destroy(p);

    p = new_program(&t, "five");               /* by the model of a CPU device 2.5 s */
    s = fill_step(&t, 0, 20000, 5);
    s.bytes = t.device->caps.type == VKM_TYPE_CPU ? 4900000000u : 0;
    add(p, s);
    OK(vkm_program_finish(p, &err));
    run(&t, p, 3);
    if (s.bytes) cr_expect_eq(p->recording.n, 5);
    expect_words(read_words(&t), 0, 20000, 5);
    vkm_program_destroy(p);
    close_bench(&t);
}

Test(host, wrong_steps_are_refused)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "all");
    vkm_program *p = new_program(&t, "wrong");
    struct vkm_step s = fill_step(&t, 0, 64, 1);
    s.writes[0].end = BYTES + 4;
    FAILS(vkm_program_add(p, &s, &err), VKM_ERR_ARGUMENT);
    cr_expect(strstr(err.message, "fill") && strstr(err.message, "ws"), "%s", err.message);
    s = fill_step(&t, 0, 64, 1);
    s.writes[0].buffer = t.readback;
    FAILS(vkm_program_add(p, &s, &err), VKM_ERR_ARGUMENT);
    s = fill_step(&t, 0, 64, 1);
    s.push_bytes = 132;
    FAILS(vkm_program_add(p, &s, &err), VKM_ERR_ARGUMENT);
    s = fill_step(&t, 0, 64, 1);
    s.indirect = true, s.indirect_offset = BYTES - 8;
    FAILS(vkm_program_add(p, &s, &err), VKM_ERR_ARGUMENT);
    s = fill_step(&t, 0, 64, 1);
    s.groups[1] = t.device->caps.workgroups_y;
    if (s.groups[1] < UINT32_MAX) {
        s.groups[1]++;
        FAILS(vkm_program_add(p, &s, &err), VKM_ERR_LIMIT);
    }
    FAILS(vkm_program_copy(p, t.ws, 8, t.readback, 0, BYTES, &err), VKM_ERR_ARGUMENT);
    uint64_t ticket;
    FAILS(vkm_program_submit(p, 1, &ticket, &err), VKM_ERR_ARGUMENT);
    OK(vkm_program_finish(p, &err));           /* empty */
    run(&t, p, 3);
    FAILS(vkm_program_submit(p, 0, &ticket, &err), VKM_ERR_ARGUMENT);
    s = fill_step(&t, 0, 64, 1);
    FAILS(vkm_program_add(p, &s, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_program_finish(p, &err), VKM_ERR_ARGUMENT);
    vkm_program_destroy(p);
    close_bench(&t);
}

Test(host, profile_times_every_step)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "all");
    vkm_program *p = new_program(&t, "timed");
    for (uint32_t i = 0; i < 4; i++) add(p, fill_step(&t, 0, 60000, i));
    OK(vkm_program_finish(p, &err));
    cr_expect_eq(vkm_program_step_ns(p, 0), 0);
    if (vkm_device_caps(t.device)->timestamp_bits) {
        OK(vkm_program_profile(p, &err));
        for (uint32_t i = 0; i < 4; i++) cr_expect(vkm_program_step_ns(p, i) > 0 && vkm_program_step_ns(p, i) < 1000000000);
        char text[4096];
        vkm_program_print(p, &(vkm_text){text, sizeof text, 0});
        cr_expect(strstr(text, " us"), "%s", text);
    } else FAILS(vkm_program_profile(p, &err), VKM_ERR_UNSUPPORTED);
    expect_words(read_words(&t), 0, 60000, 3);
    vkm_program_destroy(p);
    close_bench(&t);
}

/* ------------------------------------------------ audit */

Test(host, audit_catches_a_step_that_lies)
{
    vkm_error err = {0};
    FOR_CAPS(caps) {
        struct bench t;
        open_bench(&t, caps);
        uint32_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        OK(vkm_workspace_write(t.device, t.ws, 4096, data, sizeof data, &err));
        vkm_program *p = new_program(&t, "honest");
        add(p, fill_step(&t, 10, 100, 7));
        struct vkm_step s = fill_step(&t, 300, 50, 8);
        s.writes[0].end += 100;                /* may leave declared words alone */
        add(p, s);
        OK(vkm_program_finish(p, &err));
        OK(vkm_program_audit(p, &err));
        const uint32_t *words = read_words(&t);
        expect_words(words, 0, 10, 0);
        expect_words(words, 10, 100, 7);
        expect_words(words, 300, 50, 8);
        expect_words(words, 350, 674, 0);
        cr_expect_arr_eq(words + 1024, data, sizeof data);
        vkm_program_destroy(p);

        p = new_program(&t, "liar");
        s = fill_step(&t, 200, 100, 9);
        s.label = "blk.0.lie";
        s.writes[0].end -= 4;
        add(p, s);
        OK(vkm_program_finish(p, &err));
        FAILS(vkm_program_audit(p, &err), VKM_ERR_FORMAT);
        cr_expect(strstr(err.message, "blk.0.lie") && strstr(err.message, "1196"), "%s", err.message);
        words = read_words(&t);                /* what was set aside is back */
        expect_words(words, 200, 100, 0);
        cr_expect_arr_eq(words + 1024, data, sizeof data);
        vkm_program_destroy(p);
        close_bench(&t);
    }
}

Test(host, audit_catches_undeclared_reads)
{
    vkm_error err = {0};
    FOR_CAPS(caps) {   /* gather with the workspace in the place of slab 0: what it reads there must be declared */
        struct bench t;
        open_bench(&t, caps);
        vkm_buffer *tables, *kv;
        vkm_bindings *bindings;
        const vkm_kernel *gather;
        OK(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, 64, "tables", &tables, &err));
        OK(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, 4096, "kv", &kv, &err));
        OK(vkm_buffer_clear(t.device, tables, &err));
        OK(vkm_bindings_create(t.device, t.ws, tables, &t.ws, 1, &kv, 1, &bindings, &err));
        OK(vkm_kernel_get(t.device, "gather", "", (uint32_t[]){64, 1}, 2, &gather, &err));
        for (int lie = 0; lie < 2; lie++) {
            vkm_program *p = new_program(&t, "reader");
            add(p, fill_step(&t, 0, 128, 11));
            struct vkm_step s = {.kernel = gather, .bindings = bindings, .label = "reader", .push = {0, 0, 1024, 128}, .push_bytes = 16, .groups = {2, 1, 1},
                                 .n_reads = 1, .reads = {{NULL, 0, lie ? 508 : 512}}, .n_writes = 2, .writes = {{NULL, 4096, 4096 + 512}, {kv, 0, 512}}};
            add(p, s);
            OK(vkm_program_finish(p, &err));
            if (lie) FAILS(vkm_program_audit(p, &err), VKM_ERR_FORMAT);
            else OK(vkm_program_audit(p, &err));
            if (lie) cr_expect(strstr(err.message, "step reader"), "%s", err.message);
            expect_words(read_words(&t), 1024, 128, 11);
            vkm_program_destroy(p);
        }
        vkm_bindings_destroy(bindings);
        vkm_buffer_destroy(tables);
        vkm_buffer_destroy(kv);
        close_bench(&t);
    }
}

/* ------------------------------------------------ kernels and bindings */

Test(host, every_slab_and_kv_buffer_is_reached)
{
    vkm_error err = {0};
    static const char *const caps_list[] = {"all", "baseline,slabs=1,kv_slabs=1", "staged,slabs=3"};
    for (size_t c = 0; c < VKM_COUNT(caps_list); c++) {
        struct bench t;
        open_bench(&t, caps_list[c]);
        const struct vkm_caps *caps = vkm_device_caps(t.device);
        uint32_t n_slabs = caps->slabs, n_kv = caps->kv_slabs;
        vkm_buffer *slabs[240], *kv[16], *tables;
        vkm_uploader *u;
        OK(vkm_uploader_create(t.device, 8192, &u, &err));
        for (uint32_t i = 0; i < n_slabs; i++) {
            OK(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, 512, "slab", &slabs[i], &err));
            uint32_t *to = NULL;
            OK(vkm_upload_begin(u, slabs[i], 0, 512, (void **)&to, &err));
            for (uint32_t k = 0; k < 128; k++) to[k] = 1000 * i + k;
            OK(vkm_upload_end(u, &err));
        }
        for (uint32_t i = 0; i < n_kv; i++) OK(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, 512, "kv", &kv[i], &err));
        OK(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, 64, "tables", &tables, &err));
        OK(vkm_workspace_write(t.device, tables, 0, (uint32_t[]){500000}, 4, &err));
        vkm_bindings *bindings;
        const vkm_kernel *gather;
        OK(vkm_bindings_create(t.device, t.ws, tables, slabs, n_slabs, kv, n_kv, &bindings, &err));
        OK(vkm_kernel_get(t.device, "gather", "", (uint32_t[]){64, 1}, 2, &gather, &err));
        vkm_program *p = new_program(&t, "gather");
        for (uint32_t i = 0; i < n_slabs; i++) {
            struct vkm_step s = {.kernel = gather, .bindings = bindings, .label = "gather", .push = {i, i % n_kv, i * 128, 128}, .push_bytes = 16, .groups = {2, 1, 1},
                                 .n_writes = 2, .writes = {{NULL, i * 512, i * 512 + 512}, {kv[i % n_kv], 0, 512}}};
            add(p, s);
        }
        uint32_t end = n_slabs * 128;
        for (uint32_t i = 0; i < n_kv; i++) OK(vkm_program_copy(p, kv[i], 0, t.ws, (end + i * 128) * 4, 512, &err));
        OK(vkm_program_finish(p, &err));
        run(&t, p, 2);
        const uint32_t *words = read_words(&t);
        for (uint32_t i = 0; i < n_slabs; i++)
            for (uint32_t k = 0; k < 128; k++) cr_assert_eq(words[i * 128 + k], 500000 + 1000 * i + k, "slab %u word %u is %u", i, k, words[i * 128 + k]);
        for (uint32_t i = 0; i < n_kv && i < n_slabs; i++) {
            uint32_t last = (n_slabs - 1 - i) / n_kv * n_kv + i;
            cr_assert_eq(words[end + i * 128 + 7], 500000 + 1000 * last + 7);
        }
        OK(vkm_program_audit(p, &err));
        vkm_program_destroy(p);
        vkm_bindings_destroy(bindings);
        FAILS(vkm_bindings_create(t.device, t.ws, tables, slabs, n_slabs + 1, kv, n_kv, &bindings, &err), VKM_ERR_LIMIT);
        FAILS(vkm_bindings_create(t.device, t.ws, tables, slabs, n_slabs, kv, n_kv + 1, &bindings, &err), VKM_ERR_LIMIT);
        for (uint32_t i = 0; i < n_slabs; i++) vkm_buffer_destroy(slabs[i]);
        for (uint32_t i = 0; i < n_kv; i++) vkm_buffer_destroy(kv[i]);
        vkm_buffer_destroy(tables);
        vkm_uploader_destroy(u);
        close_bench(&t);
    }
}

Test(host, kernels_are_found_once)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "baseline");
    const vkm_kernel *a, *b;
    OK(vkm_kernel_get(t.device, "fill", "", (uint32_t[]){64, 1}, 2, &a, &err));
    cr_expect_eq(a, t.fill);
    for (uint32_t n = 1; n <= 128; n++) OK(vkm_kernel_get(t.device, "fill", NULL, (uint32_t[]){n, 1}, 2, &b, &err));   /* the table grows */
    cr_expect_neq(a, b);
    OK(vkm_kernel_get(t.device, "fill", "", (uint32_t[]){64, 1}, 2, &b, &err));
    cr_expect_eq(a, b);
    cr_expect_str_eq(vkm_kernel_name(a), "fill");
    cr_expect_str_eq(vkm_kernel_variant(a), "baseline 64,1");
    FAILS(vkm_kernel_get(t.device, "no_such", "", NULL, 0, &b, &err), VKM_ERR_UNSUPPORTED);
    FAILS(vkm_kernel_get(t.device, "fill", "q9_9", NULL, 0, &b, &err), VKM_ERR_UNSUPPORTED);
    FAILS(vkm_kernel_get(t.device, "fill", "", (uint32_t[]){64, 4}, 2, &b, &err), VKM_ERR_LIMIT);
    FAILS(vkm_kernel_get(t.device, "fill", "", (uint32_t[]){0, 1}, 2, &b, &err), VKM_ERR_LIMIT);
    FAILS(vkm_kernel_get(t.device, "fill", "", (uint32_t[]){65536, 65536}, 2, &b, &err), VKM_ERR_LIMIT);
    char text[64];
    size_t n = vkm_kernels_print(t.device, text, sizeof text);
    cr_expect_gt(n, sizeof text);
    cr_expect_eq(strlen(text), sizeof text - 1);
    cr_expect_eq(vkm_kernels_print(t.device, NULL, 0), n);
    close_bench(&t);
}

static atomic_uint compiled, fail_at;
static PFN_vkCreateComputePipelines real_create;

/* Counts, and fails the fail_at-th. */
static VKAPI_ATTR VkResult VKAPI_CALL counted_create(VkDevice device, VkPipelineCache cache, uint32_t n, const VkComputePipelineCreateInfo *infos, const VkAllocationCallbacks *a, VkPipeline *out)
{
    return ++compiled == fail_at ? VK_ERROR_OUT_OF_HOST_MEMORY : real_create(device, cache, n, infos, a, out);
}

/* A program of 40 steps with 20 kernels: none is compiled before it is finished, each once, whatever the number of threads; what failed is tried again. */
static void check_compiling(vkm_device *device)
{
    enum { N = 20 };
    vkm_error err = {0};
    struct bench t = {.device = device};
    OK(vkm_buffer_create(device, VKM_BUFFER_DEVICE, BYTES, "ws", &t.ws, &err));
    OK(vkm_buffer_create(device, VKM_BUFFER_READBACK, BYTES, "readback", &t.readback, &err));
    OK(vkm_bindings_create(device, t.ws, NULL, NULL, 0, NULL, 0, &t.bindings, &err));
    real_create = device->vk.vkCreateComputePipelines;
    device->vk.vkCreateComputePipelines = counted_create;
    vkm_program *p = NULL;
    uint32_t most = 0;
    for (uint32_t round = 0; round < 3; round++) {      /* the 7th fails; the others are kept; all are there */
        compiled = 0;
        fail_at = round == 0 ? 7 : 0;
        p = new_program(&t, "many kernels");
        for (uint32_t i = 0; i < 2 * N; i++) {
            OK(vkm_kernel_get(device, "fill", "", (uint32_t[]){i % N + 1, 1}, 2, &t.fill, &err));
            struct vkm_step s = fill_step(&t, i * 100, 100, i);
            s.groups[0] = vkm_div_up(100, i % N + 1);
            add(p, s);
        }
        cr_assert_eq(compiled, 0);
        if (round == 0) FAILS(vkm_program_finish(p, &err), VKM_ERR_HOST_MEMORY);
        else OK(vkm_program_finish(p, &err));
        cr_assert_eq(compiled, round == 0 ? N : round == 1 ? 1 : 0);
        if (round) run(&t, p, 1);
        vkm_program_destroy(p);
        most += compiled;
    }
    cr_assert_eq(most, N + 1);
    const uint32_t *words = read_words(&t);
    for (uint32_t i = 0; i < 2 * N; i++)
        for (uint32_t k = 0; k < 100; k++) cr_assert_eq(words[i * 100 + k], i);
    device->vk.vkCreateComputePipelines = real_create;
    vkm_bindings_destroy(t.bindings);
    vkm_buffer_destroy(t.readback);
    vkm_buffer_destroy(t.ws);
}

Test(host, a_program_compiles_what_it_needs)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *device = driver_open(NULL, &log);           /* validated: on this thread */
    check_compiling(device);
    driver_close(device, &log);
    OK(vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .select = getenv("VKMOE_TEST_DEVICE")}, &device, &err));
    check_compiling(device);                                /* on as many as there are processors */
    vkm_device_destroy(device);
}

/* ------------------------------------------------ memory */

Test(host, uploads_go_round_the_ring)
{
    vkm_error err = {0};
    FOR_CAPS(caps) {
        struct bench t;
        open_bench(&t, caps);
        vkm_uploader *u;
        OK(vkm_uploader_create(t.device, 8192, &u, &err));
        uint32_t at = 0, piece = 4, *to = NULL;
        while (at < BYTES) {                   /* pieces of all sizes up to half the ring, many times around it */
            uint32_t n = piece < BYTES - at ? piece : BYTES - at;
            OK(vkm_upload_begin(u, t.ws, at, n, (void **)&to, &err));
            for (uint32_t k = 0; k < n / 4; k++) to[k] = (at / 4 + k) * 2654435761u;
            OK(vkm_upload_end(u, &err));
            at += n;
            piece = piece * 5 % 4096 + 4;
        }
        OK(vkm_upload_finish(u, &err));
        const uint32_t *words = read_words(&t);
        for (uint32_t i = 0; i < WORDS; i++) cr_assert_eq(words[i], i * 2654435761u, "word %u", i);
        FAILS(vkm_upload_begin(u, t.ws, 0, 4100, (void **)&to, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_upload_begin(u, t.ws, BYTES - 4, 8, (void **)&to, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_upload_begin(u, t.ws, 0, 3, (void **)&to, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_upload_end(u, &err), VKM_ERR_ARGUMENT);
        vkm_uploader_destroy(u);
        close_bench(&t);
    }
}

/* Seven regions of 1 KiB are always possible in a ring of 8, whatever is in flight; written in any order, they end in that of their opening. */
Test(host, several_uploads_are_open)
{
    enum { OPEN = 7, PIECE = 1024 };
    vkm_error err = {0};
    FOR_CAPS(caps) {
        struct bench t;
        open_bench(&t, caps);
        vkm_uploader *u;
        OK(vkm_uploader_create(t.device, 8192, &u, &err));
        uint32_t *to[OPEN];
        for (uint32_t begun = 0, ended = 0, n = BYTES / PIECE; ended < n; ended++) {
            for (; begun < n && begun - ended < OPEN; begun++) OK(vkm_upload_begin(u, t.ws, begun * PIECE, PIECE - begun % 5 * 16, (void **)&to[begun % OPEN], &err));
            if (ended % OPEN == 0)
                for (uint32_t i = begun; i-- > ended;)
                    for (uint32_t k = 0; k < (PIECE - i % 5 * 16) / 4; k++) to[i % OPEN][k] = (i * PIECE / 4 + k) * 2654435761u;
            OK(vkm_upload_end(u, &err));
        }
        OK(vkm_upload_finish(u, &err));
        const uint32_t *words = read_words(&t);
        for (uint32_t i = 0; i < WORDS; i++)
            if (i % (PIECE / 4) < (PIECE - i / (PIECE / 4) % 5 * 16) / 4) cr_assert_eq(words[i], i * 2654435761u, "word %u", i);
        /* too many, or the ring is full of pieces that start where the device copies from: told, and what is open stays so */
        uint32_t n = 0, most = vkm_buffer_map(t.ws) || 8192 / vkm_device_caps(t.device)->copy_align > 64 ? 64 : (uint32_t)(8192 / vkm_device_caps(t.device)->copy_align);
        vkm_result r = VKM_OK;
        while (n < 100 && (r = vkm_upload_begin(u, t.ws, n * 4, 4, (void **)&to[0], &err)) == VKM_OK) to[0][0] = ~n, n++;
        cr_assert(r == VKM_ERR_ARGUMENT && n == most, "%u regions", n);
        for (uint32_t i = 0; i < n; i++) OK(vkm_upload_end(u, &err));
        FAILS(vkm_upload_end(u, &err), VKM_ERR_ARGUMENT);
        vkm_uploader_destroy(u);                             /* a new one begins at the ring's begin, whatever the device aligns to */
        OK(vkm_uploader_create(t.device, 8192, &u, &err));
        OK(vkm_upload_begin(u, t.ws, 0, 4096, (void **)&to[0], &err));
        if (!vkm_buffer_map(t.ws)) {
            OK(vkm_upload_begin(u, t.ws, 4096, 4096, (void **)&to[1], &err));
            FAILS(vkm_upload_begin(u, t.ws, 0, 4, (void **)&to[2], &err), VKM_ERR_ARGUMENT);
        }
        vkm_uploader_destroy(u);               /* with regions open */
        words = read_words(&t);
        for (uint32_t i = 0; i < n; i++) cr_assert_eq(words[i], ~i);
        close_bench(&t);
    }
}

Test(host, running_out_of_memory_is_an_error)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *device = driver_open("heap=1048576,range=4194304", &log);
    cr_expect_leq(vkm_device_budget(device), 1048576);
    vkm_buffer *a = NULL, *b = NULL;
    OK(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 600000, "half", &a, &err));
    cr_expect_leq(vkm_device_budget(device), 1048576 - 600000);
    cr_expect_geq(vkm_device_allocated(device), 600000);
    FAILS(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 2097152, "blk.7.weights", &b, &err), VKM_ERR_DEVICE_MEMORY);
    cr_expect(strstr(err.message, "blk.7.weights") && strstr(err.message, "2097152"), "%s", err.message);
    FAILS(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 8388608, "huge", &b, &err), VKM_ERR_LIMIT);
    FAILS(vkm_buffer_create(device, VKM_BUFFER_READBACK, UINT64_MAX / 2, "endless", &b, &err), VKM_ERR_LIMIT);
    FAILS(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 0, "nothing", &b, &err), VKM_ERR_ARGUMENT);
    cr_expect_null(b);
    vkm_buffer_destroy(a);
    cr_expect_eq(vkm_device_allocated(device), 0);
    vkm_buffer_destroy(NULL);
    driver_close(device, &log);
}

/* ------------------------------------------------ pipeline cache */

static size_t read_file(const char *path, uint8_t *data, size_t size)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(data, 1, size, f) : 0;
    if (f) fclose(f);
    return n;
}

static void write_file(const char *path, const uint8_t *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, n, f) == n && !fclose(f));
}

static void compile_fill(vkm_device *device)
{
    vkm_error err = {0};
    struct vkm_op op = {0};
    OK(vkm_kernel_get(device, "fill", "", (uint32_t[]){64, 1}, 2, &op.step.kernel, &err));
    OK(vkm_kernels_compile(device, &op, 1, &err));
}

/* Opens a device on the cache, makes a pipeline, closes it; returns whether the log said that the file was not used. */
static bool use_cache(const char *path)
{
    struct driver_log log;
    vkm_device *device = driver_open_cached("all", path, &log);
    compile_fill(device);
    driver_close(device, &log);
    return strstr(log.text, "is not used") != NULL;
}

Test(host, pipeline_cache_survives_damage)
{
    static uint8_t good[1 << 22], bad[1 << 22];
    char folder[] = "/tmp/vkmoe-test-XXXXXX", path[128];
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a/b/pipelines", folder);   /* folders are made */
    cr_expect(!use_cache(path));
    size_t n = read_file(path, good, sizeof good);
    cr_assert(n > 56 && n < sizeof good);
    cr_expect(!use_cache(path));

    size_t cuts[] = {0, 1, 55, 56, 57, n / 2, n - 1};
    for (size_t i = 0; i < VKM_COUNT(cuts); i++) {
        write_file(path, good, cuts[i]);
        cr_expect(use_cache(path), "%zu of %zu bytes", cuts[i], n);
        cr_expect_gt(read_file(path, bad, sizeof bad), 56);    /* written anew */
    }
    size_t flips[] = {0, 8, 12, 16, 20, 24, 39, 40, 47, 48, 55, 56, n / 2, n - 1};   /* every field of the header, and the content */
    for (size_t i = 0; i < VKM_COUNT(flips); i++) {
        memcpy(bad, good, n);
        bad[flips[i]] ^= 0x10;
        write_file(path, bad, n);
        cr_expect(use_cache(path), "flip in byte %zu", flips[i]);
    }
    write_file(path, good, n);
    FILE *f = fopen(path, "ab");
    cr_assert(f && fputc(0, f) == 0 && !fclose(f));
    cr_expect(use_cache(path), "a byte more");

    struct driver_log log;   /* a place that cannot be written is a warning, not an error */
    vkm_error err = {0};
    char inside[160];
    snprintf(inside, sizeof inside, "%s/not-a-folder", path);
    vkm_device *device = driver_open_cached("all", inside, &log);
    compile_fill(device);
    FAILS(vkm_kernels_save_cache(device, &err), VKM_ERR_IO);
    driver_close(device, &log);
    cr_expect(strstr(log.text, "is not saved"), "%s", log.text);

    uint32_t left = 0;
    snprintf(inside, sizeof inside, "%s/a/b", folder);
    DIR *list = opendir(inside);
    for (struct dirent *e; list && (e = readdir(list));) left += e->d_name[0] != '.';
    if (list) closedir(list);
    cr_expect_eq(left, 1, "temporary files were left");
    cr_expect(unlink(path) == 0 && rmdir(inside) == 0);
    *strrchr(inside, '/') = 0;
    cr_expect(rmdir(inside) == 0 && rmdir(folder) == 0);
}

/* ------------------------------------------------ several devices, lost ones */

Test(host, two_devices_at_once)
{
    vkm_error err = {0};
    struct bench a, b;
    open_bench(&a, "all");
    open_bench(&b, "baseline,staged,slabs=2");
    vkm_program *pa = new_program(&a, "a"), *pb = new_program(&b, "b");
    add(pa, fill_step(&a, 0, 1000, 1));
    add(pb, fill_step(&b, 0, 1000, 2));
    OK(vkm_program_finish(pa, &err));
    OK(vkm_program_finish(pb, &err));
    uint64_t ta, tb;
    OK(vkm_program_submit(pa, 3, &ta, &err));
    OK(vkm_program_submit(pb, 3, &tb, &err));
    OK(vkm_wait(a.device, ta, &err));
    OK(vkm_wait(b.device, tb, &err));
    vkm_bindings *bindings;
    FAILS(vkm_bindings_create(a.device, b.ws, NULL, NULL, 0, NULL, 0, &bindings, &err), VKM_ERR_ARGUMENT);
    vkm_program_destroy(pa);
    expect_words(read_words(&a), 0, 1000, 1);
    close_bench(&a);
    expect_words(read_words(&b), 0, 1000, 2);
    vkm_program_destroy(pb);
    close_bench(&b);
}

Test(host, validation_messages_are_counted)
{
    struct driver_log log;
    vkm_device *device = driver_open("all", &log);
    if (device->validation) {
        VkSemaphore semaphore = VK_NULL_HANDLE;   /* a wrong sType, which drivers do not look at */
        device->vk.vkCreateSemaphore(device->handle, &(VkSemaphoreCreateInfo){.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO}, NULL, &semaphore);
        device->vk.vkDestroySemaphore(device->handle, semaphore, NULL);
        cr_expect_eq(vkm_device_validation_count(device), 1);
        cr_expect(strstr(log.text, "validation: "), "%s", log.text);
    } else cr_expect(strstr(log.text, "not installed"), "%s", log.text);
    vkm_device_destroy(device);
}

static void *device_thread(void *arg)
{
    struct bench *t = arg;
    vkm_error err = {0};
    open_bench(t, "all");
    vkm_program *p = new_program(t, "thread");
    add(p, fill_step(t, 0, 1000, 6));
    OK(vkm_program_finish(p, &err));
    for (int i = 0; i < 20; i++) run(t, p, 2);
    expect_words(read_words(t), 0, 1000, 6);
    vkm_program_destroy(p);
    close_bench(t);
    return NULL;
}

Test(host, devices_of_two_threads_are_independent)
{
    static struct bench t[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, device_thread, &t[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

Test(host, a_lost_device_fails_fast_and_can_be_destroyed)
{
    vkm_error err = {0};
    struct bench t;
    open_bench(&t, "all");
    vkm_program *p = new_program(&t, "doomed"), *q = NULL;
    add(p, fill_step(&t, 0, 1000, 1));
    OK(vkm_program_finish(p, &err));
    run(&t, p, 1);
    cr_expect_eq(vkm_fail_vk(t.device, &err, VK_ERROR_DEVICE_LOST, "waiting for %s", "doomed"), VKM_ERR_DEVICE_LOST);
    cr_expect(strstr(err.message, "doomed") && strstr(err.message, "VK_ERROR_DEVICE_LOST"), "%s", err.message);
    cr_expect_eq(t.log.n_errors, 1);           /* it is said once */
    t.log.n_errors = 0;
    uint64_t ticket;
    vkm_buffer *buffer;
    FAILS(vkm_program_submit(p, 1, &ticket, &err), VKM_ERR_DEVICE_LOST);
    FAILS(vkm_program_profile(p, &err), VKM_ERR_DEVICE_LOST);
    FAILS(vkm_program_audit(p, &err), VKM_ERR_DEVICE_LOST);
    FAILS(vkm_program_create(t.device, "next", &q, &err), VKM_ERR_DEVICE_LOST);
    FAILS(vkm_buffer_create(t.device, VKM_BUFFER_DEVICE, 64, "next", &buffer, &err), VKM_ERR_DEVICE_LOST);
    FAILS(vkm_buffer_clear(t.device, t.ws, &err), VKM_ERR_DEVICE_LOST);
    vkm_program_destroy(p);
    close_bench(&t);
}
