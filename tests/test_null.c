/* vkmoe on a driver that does nothing (null_driver.h): what a true one cannot be made to do. Every call fails once, the caller's allocator gives parts of its blocks, memory is not coherent. */
#include "driver.h"
#include "host/internal.h"
#include "null_driver.h"
#include "reference/testmodel.h"
#include <unistd.h>

struct log { char text[4096]; vkm_text all; };
static void on_log(void *user, vkm_log_level level, const char *text) { (void)level; vkm_textf(&((struct log *)user)->all, "%s\n", text); }

static vkm_result open_device(struct null_driver *d, vkm_import import, struct log *log, vkm_device **device, vkm_error *err)
{
    log->all = (vkm_text){log->text, sizeof log->text, 0};
    return vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .import = &import, .caps = d->cpu ? "texel" : NULL, .log = on_log, .log_user = log}, device, err);
}

/* Nothing was done against the rules, and nothing is left. */
static void close_driver(struct null_driver *d, const char *when)
{
    cr_expect_eq(d->wrong[0], 0, "%s: %s", when, d->wrong);
    cr_expect_eq(d->objects, 0, "%s: %d Vulkan objects are left", when, d->objects);
    pthread_mutex_destroy(&d->mutex);
}

/* ---------------------------------------------------------------- a caller's allocator */

#define BLOCK (1u << 20)
#define PARTS 256
struct part { uint64_t begin, end; uint32_t block; bool live; };
struct pool {
    struct null_driver *d;
    struct { VkDeviceMemory memory; uint64_t used, size; uint32_t type; } blocks[8];
    struct part parts[PARTS];
    uint32_t n_blocks, n_parts, n_calls;
    uint64_t available, most;                  /* most: larger ones are refused; 0: none */
    /* what it does wrong, once, when asked for memory that is mapped (or any, for `result`) */
    VkResult result;
    bool wrong_type, unaligned, unmapped;
    vkm_memory_request last;
};

static int32_t pool_allocate(void *user, const vkm_memory_request *q, vkm_memory *m)
{
    struct pool *p = user;
    uint32_t type = q->types & 1 ? 0 : 1, b = 0;
    p->n_calls++;
    p->last = *q;
    cr_expect(q->types && q->size && q->alignment && q->name && *q->name);
    cr_expect(!m->memory && !m->map, "it is zero");
    if (p->result) { VkResult r = p->result; p->result = VK_SUCCESS; return r; }
    if (p->most && q->size > p->most) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    while (b < p->n_blocks && (p->blocks[b].type != type || p->blocks[b].used + 64 + q->alignment + q->size > p->blocks[b].size)) b++;
    if (b == p->n_blocks) {
        cr_assert_lt(b, VKM_COUNT(p->blocks));
        uint64_t size = q->size + q->alignment + 64 > BLOCK ? q->size + q->alignment + 64 : BLOCK;
        VkResult r = null_AllocateMemory((VkDevice)p->d, &(VkMemoryAllocateInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = size, .memoryTypeIndex = type}, NULL, &p->blocks[b].memory);
        if (r) return r;
        p->blocks[b].size = size;
        p->blocks[b].type = type;
        p->blocks[b].used = 5;                 /* somebody else's bytes, so that nothing lies at 0 */
        p->n_blocks++;
    }
    struct null_memory *memory = (struct null_memory *)p->blocks[b].memory;
    uint64_t at = vkm_align(p->blocks[b].used, q->alignment);
    if (p->unaligned && q->map) at += q->alignment / 2;
    cr_assert_lt(p->n_parts, PARTS);
    p->parts[p->n_parts] = (struct part){.begin = at, .end = at + q->size, .block = b, .live = true};
    *m = (vkm_memory){.memory = (uint64_t)p->blocks[b].memory, .offset = at, .type = p->wrong_type && q->map ? 7 : type, .map = p->unmapped ? NULL : memory->host + at, .user = &p->parts[p->n_parts++]};
    p->blocks[b].used = at + q->size + 3;      /* the next does not begin where this one ends */
    return VK_SUCCESS;
}
static void pool_release(void *user, const vkm_memory *m)
{
    (void)user;
    cr_expect(((struct part *)m->user)->live, "released twice");
    ((struct part *)m->user)->live = false;
}
static uint64_t pool_available(void *user) { return ((struct pool *)user)->available; }

static void pool_close(struct pool *p)
{
    for (uint32_t i = 0; i < p->n_parts; i++) cr_expect(!p->parts[i].live, "part %u of block %u was not released", i, p->parts[i].block);
    for (uint32_t i = 0; i < p->n_blocks; i++) null_FreeMemory((VkDevice)p->d, p->blocks[i].memory, NULL);
}

static void pattern(uint8_t *to, uint64_t n, uint32_t seed) { for (uint64_t i = 0; i < n; i++) to[i] = (uint8_t)(i * 31 + seed * 7 + (i >> 8)); }

/* Through the ring into memory that the host does not see, or straight into what it sees; over there, back, and looked at. A flush that is missing or beside its place shows as other bytes,
 * one that takes a neighbour along as the neighbour's. */
Test(null, memory_of_the_callers_allocator)
{
    vkm_error err = {0};
    for (int unified = 0; unified < 2; unified++) {
        struct null_driver d = {.atom = 256, .not_coherent = true, .unified = unified};
        struct log log = {0};
        vkm_device *device;
        null_open(&d);
        struct pool p = {.d = &d, .available = 3 << 20, .most = 1 << 20};
        const vkm_memory_hooks hooks = {.struct_size = sizeof hooks, .allocate = pool_allocate, .release = pool_release, .available = pool_available, .user = &p};
        vkm_import import = null_import(&d);
        import.memory = &hooks;
        OK(open_device(&d, import, &log, &device, &err));
        cr_expect_eq(vkm_device_budget(device), 3 << 20);

        enum { N = 6 };
        vkm_buffer *on_device[N], *read[N], *none = NULL;
        vkm_uploader *u;
        OK(vkm_uploader_create(device, 65536, &u, &err));
        for (uint32_t i = 0; i < N; i++) {
            char name[16];
            snprintf(name, sizeof name, "weights %u", i);
            OK(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 1000 + 4 * i, name, &on_device[i], &err));
            cr_expect(!strcmp(p.last.name, name) && !p.last.map, "memory that is not coherent is not mapped for the device's use");
            OK(vkm_buffer_create(device, VKM_BUFFER_READBACK, 1000 + 4 * i, "read", &read[i], &err));
            cr_expect(p.last.map && p.last.size % 256 == 0 && p.last.alignment % 256 == 0);
        }
        cr_expect_geq(vkm_device_allocated(device), N * (1000 + 1024));
        for (uint32_t i = 0; i < N; i++) {
            void *where;
            OK(vkm_upload_begin(u, on_device[i], 4, 900, &where, &err));
            pattern(where, 900, i);
            OK(vkm_upload_end(u, &err));
        }
        OK(vkm_upload_finish(u, &err));
        for (uint32_t i = 0; i < N; i++) {     /* the host's own writes to a neighbour, not flushed yet, must outlive the invalidation of another */
            uint8_t *map = vkm_buffer_map(read[i]);
            memset(map, 0xee, 1000);
        }
        for (uint32_t i = 0; i < N; i++) OK(vkm_buffer_copy(device, on_device[i], read[i], &(struct vkm_part){4, 300, 600}, 1, &err));
        OK(vkm_upload_finish(u, &err));
        for (uint32_t i = 0; i < N; i += 2) OK(vkm_buffer_invalidate(read[i], 300, 600, &err));
        for (uint32_t i = 0; i < N; i++) {
            uint8_t expected[600];
            pattern(expected, 600, i);
            const uint8_t *map = vkm_buffer_map(read[i]);
            if (i % 2) for (uint32_t k = 0; k < 1000; k++) cr_assert_eq(map[k], 0xee, "the invalidation of another buffer took byte %u of number %u along", k, i);
            else cr_assert(!memcmp(map + 300, expected, 600), "buffer %u", i);
        }
        OK(vkm_buffer_flush(read[1], 0, 1000, &err));
        OK(vkm_buffer_copy(device, read[1], on_device[0], &(struct vkm_part){0, 0, 1000}, 1, &err));
        OK(vkm_buffer_copy(device, on_device[0], read[0], &(struct vkm_part){0, 0, 1000}, 1, &err));
        OK(vkm_upload_finish(u, &err));
        OK(vkm_buffer_invalidate(read[0], 0, 1000, &err));
        for (uint32_t k = 0; k < 1000; k++) cr_assert_eq(((uint8_t *)vkm_buffer_map(read[0]))[k], 0xee);
        FAILS(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 2 << 20, "huge", &none, &err), VKM_ERR_DEVICE_MEMORY);
        cr_expect_null(none);
        for (uint32_t i = 0; i < N; i++) vkm_buffer_destroy(on_device[i]), vkm_buffer_destroy(read[i]);
        vkm_uploader_destroy(u);
        cr_expect_eq(vkm_device_allocated(device), 0);
        vkm_device_destroy(device);
        pool_close(&p);
        close_driver(&d, unified ? "unified" : "discrete");
    }
}

Test(null, a_hook_that_does_wrong_is_told)
{
    vkm_error err = {0};
    struct null_driver d = {.atom = 64};
    struct log log = {0};
    vkm_device *device = NULL;
    vkm_buffer *b = NULL;
    null_open(&d);
    struct pool p = {.d = &d, .available = UINT64_MAX};
    vkm_memory_hooks hooks = {.struct_size = sizeof hooks, .allocate = pool_allocate, .release = pool_release, .user = &p};
    vkm_import import = null_import(&d);
    import.memory = &hooks;
    hooks.release = NULL;
    FAILS(open_device(&d, import, &log, &device, &err), VKM_ERR_ARGUMENT);
    hooks.release = pool_release, hooks.allocate = NULL;
    FAILS(open_device(&d, import, &log, &device, &err), VKM_ERR_ARGUMENT);
    hooks.allocate = pool_allocate, hooks.struct_size = 0;
    FAILS(open_device(&d, import, &log, &device, &err), VKM_ERR_ARGUMENT);
    hooks.struct_size = sizeof hooks;
    OK(open_device(&d, import, &log, &device, &err));
    cr_expect_eq(vkm_device_budget(device), 1 << 30);     /* no `available`: the heap's size */
#define WRONG(set, word) do { set; FAILS(vkm_buffer_create(device, VKM_BUFFER_READBACK, 100, "the one", &b, &err), VKM_ERR_ARGUMENT); \
                              cr_expect(strstr(err.message, word) && strstr(err.message, "the one"), "%s", err.message); p.wrong_type = p.unaligned = p.unmapped = false; } while (0)
    WRONG(p.wrong_type = true, "type");
    WRONG(p.unaligned = true, "aligned");
    WRONG(p.unmapped = true, "mapped");
    p.result = VK_ERROR_OUT_OF_HOST_MEMORY;
    FAILS(vkm_buffer_create(device, VKM_BUFFER_READBACK, 100, "b", &b, &err), VKM_ERR_HOST_MEMORY);
    p.result = VK_ERROR_UNKNOWN;
    FAILS(vkm_buffer_create(device, VKM_BUFFER_READBACK, 100, "b", &b, &err), VKM_ERR_VULKAN);
    cr_expect_null(b);
    uint32_t calls = p.n_calls;
    p.result = VK_ERROR_OUT_OF_DEVICE_MEMORY;              /* once: then the next best types are asked for */
    OK(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 100, "b", &b, &err));
    cr_expect(p.n_calls == calls + 2 && p.last.types == 2 && !(p.last.flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT));
    vkm_buffer_destroy(b);
    cr_expect_eq(vkm_device_allocated(device), 0);
    vkm_device_destroy(device);
    pool_close(&p);
    close_driver(&d, "hooks");
}

/* ---------------------------------------------------------------- all of it, with one call failing */

static bool stop(void *user, uint32_t seq, int32_t token) { (void)user, (void)seq, (void)token; return true; }

struct life { const char *path; struct pool *pool; bool use_hooks; };

/* A device, a model, a session; a prompt, some tokens, a copy; and the end of all, however far it came. The first error. */
static vkm_result live(struct null_driver *d, const struct life *l, vkm_error *err)
{
    struct log log = {0};
    vkm_device *device = NULL;
    vkm_model *model = NULL;
    vkm_session *session = NULL;
    const int32_t tokens[5] = {1, 5, 9, 13, 17};
    float *logits = malloc(5 * 1024 * sizeof *logits);
    size_t cache = 0;
    vkm_import import = null_import(d);
    const vkm_memory_hooks hooks = {.struct_size = sizeof hooks, .allocate = pool_allocate, .release = pool_release, .user = l->pool};
    import.memory = l->use_hooks ? &hooks : NULL;
    vkm_generation g[2] = {{.struct_size = sizeof *g, .seq = 0, .n_tokens = 3, .ignore_end = true}, {.seq = 1, .n_tokens = 3, .ignore_end = true}};
    cr_assert(logits);
    vkm_result r = open_device(d, import, &log, &device, err);
    if (!r) r = vkm_model_load(device, l->path, &(vkm_model_params){.struct_size = sizeof(vkm_model_params), .n_threads = 2}, &model, err);
    if (!r) r = vkm_session_create(model, &(vkm_session_params){.struct_size = sizeof(vkm_session_params), .n_ctx = 32, .n_seq = 2}, &session, err);
    if (!r) r = vkm_session_eval(session, 0, tokens, 5, logits, err);
    if (!r) r = vkm_session_copy(session, 0, 1, 5, err);
    if (!r) r = vkm_session_generate(session, g, 2, stop, NULL, err);
    if (!r) r = vkm_device_pipeline_cache_data(device, NULL, &cache, err);
    vkm_session_destroy(session);
    vkm_model_destroy(model);
    if (device) cr_expect_eq(vkm_device_allocated(device), 0);
    vkm_device_destroy(device);
    free(logits);
    return r;
}

static void fail_each(const struct life *life, struct null_driver how, vkm_result expected, uint32_t least)
{
    uint32_t failed = 0;
    for (int at = 1;; at++) {
        struct null_driver d = how;
        struct pool p = {.d = &d};
        struct life l = *life;
        vkm_error err = {0};
        char when[80];
        null_open(&d);
        d.fail_at = at;
        l.pool = &p;
        vkm_result r = live(&d, &l, &err);
        bool reached = atomic_load(&d.calls) >= at;
        snprintf(when, sizeof when, "%s at call %d", vkm_result_name(expected), at);
        pool_close(&p);
        close_driver(&d, when);
        if (!reached) {
            cr_expect_eq(r, VKM_OK, "%s: %s", when, err.message);
            break;
        }
        cr_assert(r == VKM_OK || (r == expected && err.message[0] && strlen(err.message) > 20), "%s gave %s: %s", when, vkm_result_name(r), err.message);
        failed += r != VKM_OK;
    }
    if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "%s: %u calls failed\n", vkm_result_name(expected), failed);
    cr_expect_geq(failed, least, "%s: only %u calls failed", vkm_result_name(expected), failed);
}

static struct ref_testmodel small_model(void)
{
    struct ref_testmodel o = ref_testmodel_default("olmoe");
    o.layers = 1;
    return o;
}

Test(null, every_call_may_fail)
{
    char path[256];
    struct ref_testmodel o = small_model();
    cr_assert(ref_testmodel_save(&o, path));
    fail_each(&(struct life){.path = path}, (struct null_driver){.fail_with = VK_ERROR_OUT_OF_DEVICE_MEMORY}, VKM_ERR_DEVICE_MEMORY, 100);
    fail_each(&(struct life){.path = path, .use_hooks = true}, (struct null_driver){.fail_with = VK_ERROR_OUT_OF_HOST_MEMORY, .atom = 64, .not_coherent = true}, VKM_ERR_HOST_MEMORY, 100);
    fail_each(&(struct life){.path = path}, (struct null_driver){.fail_with = VK_ERROR_OUT_OF_DEVICE_MEMORY, .cpu = true}, VKM_ERR_DEVICE_MEMORY, 60);
    unlink(path);
}

Test(null, the_device_may_be_lost_at_any_time)
{
    char path[256];
    struct ref_testmodel o = small_model();
    cr_assert(ref_testmodel_save(&o, path));
    fail_each(&(struct life){.path = path}, (struct null_driver){.lose = true}, VKM_ERR_DEVICE_LOST, 10);
    unlink(path);
}

/* ---------------------------------------------------------------- semaphores, names, cache */

Test(null, semaphores_are_handed_over)
{
    vkm_error err = {0};
    struct null_driver d = {0};
    struct log log = {0};
    vkm_device *device;
    vkm_buffer *b;
    VkSemaphore s[9];
    null_open(&d);
    OK(open_device(&d, null_import(&d), &log, &device, &err));
    for (int i = 0; i < 9; i++) cr_assert_eq(null_CreateSemaphore((VkDevice)&d, NULL, NULL, &s[i]), VK_SUCCESS);
    OK(vkm_buffer_create(device, VKM_BUFFER_DEVICE, 256, "b", &b, &err));
    for (int i = 0; i < 8; i++) OK(vkm_device_wait_for(device, (uint64_t)s[i], 0, &err));
    OK(vkm_device_wait_for(device, (uint64_t)s[3], 0, &err));                 /* the same once more is no more */
    FAILS(vkm_device_wait_for(device, (uint64_t)s[8], 1, &err), VKM_ERR_LIMIT);
    cr_expect_eq(d.queue.submissions, 0);
    OK(vkm_buffer_clear(device, b, &err));
    OK(vkm_device_signal(device, (uint64_t)s[8], 7, &err));                   /* submits the clearing, which waits, and signals behind it */
    cr_expect(d.queue.submissions == 1 && d.waits == 8 && d.signals == 1, "%u submissions, %u waits, %u signals", (unsigned)d.queue.submissions, d.waits, d.signals);
    cr_expect_eq(((struct null_semaphore *)s[8])->value, 7);
    OK(vkm_device_signal(device, (uint64_t)s[8], 8, &err));                   /* also with nothing to do */
    cr_expect(d.waits == 8 && d.signals == 2 && ((struct null_semaphore *)s[8])->value == 8, "waits count once");
    OK(vkm_device_wait_for(device, (uint64_t)s[8], 5, &err));
    OK(vkm_device_wait_for(device, (uint64_t)s[8], 9, &err));                 /* the higher value counts, in any order */
    OK(vkm_device_wait_for(device, (uint64_t)s[8], 6, &err));
    OK(vkm_device_signal(device, (uint64_t)s[0], 1, &err));
    cr_expect(!strcmp(d.wrong, "a submission waits for what was not signalled yet"), "%s", d.wrong);
    d.wrong[0] = 0;
    FAILS(vkm_device_wait_for(device, 0, 1, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_device_signal(device, 0, 1, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_device_wait_for(NULL, (uint64_t)s[0], 1, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_device_signal(NULL, (uint64_t)s[0], 1, &err), VKM_ERR_ARGUMENT);
    vkm_buffer_destroy(b);
    vkm_device_destroy(device);
    for (int i = 0; i < 9; i++) null_DestroySemaphore((VkDevice)&d, s[i], NULL);
    close_driver(&d, "semaphores");
}

Test(null, names_and_labels_where_the_instance_has_them)
{
    char path[256];
    vkm_error err = {0};
    struct ref_testmodel o = small_model();
    cr_assert(ref_testmodel_save(&o, path));
    for (int with = 0; with < 2; with++) {
        struct null_driver d = {.debug_utils = with};
        null_open(&d);
        OK(live(&d, &(struct life){.path = path}, &err));
        cr_expect_eq(d.names > 20, with, "%d names", d.names);
        cr_expect_eq(d.labels > 20, with, "%d labels", d.labels);
        close_driver(&d, "names");
    }
    unlink(path);
}

/* ---------------------------------------------------------------- matrices of Intel's kind */

/* The null driver with matrices of 8 rows and so many columns, subgroups of 32 lanes unless asked for fewer. */
static struct { uint32_t columns, least; VkPipelineShaderStageRequiredSubgroupSizeCreateInfo asked; bool sized; } intel;
static const char *const intel_extensions[] = {VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME};

static VkResult VKAPI_CALL intel_extension_list(VkPhysicalDevice physical, const char *layer, uint32_t *n, VkExtensionProperties *p)
{
    (void)physical, (void)layer;
    for (uint32_t i = 0; p && i < VKM_COUNT(intel_extensions); i++) snprintf(p[i].extensionName, sizeof p[i].extensionName, "%s", intel_extensions[i]);
    *n = VKM_COUNT(intel_extensions);
    return VK_SUCCESS;
}

static void VKAPI_CALL intel_properties(VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *p)
{
    null_GetPhysicalDeviceProperties2(physical, p);
    for (VkBaseOutStructure *s = p->pNext; s; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_PROPERTIES_KHR) ((VkPhysicalDeviceCooperativeMatrixPropertiesKHR *)s)->cooperativeMatrixSupportedStages = VK_SHADER_STAGE_COMPUTE_BIT;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES) {
            VkPhysicalDeviceSubgroupProperties *subgroup = (VkPhysicalDeviceSubgroupProperties *)s;
            subgroup->subgroupSize = 32, subgroup->supportedStages = VK_SHADER_STAGE_COMPUTE_BIT, subgroup->supportedOperations = 0xff;
        }
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES) {
            VkPhysicalDeviceSubgroupSizeControlProperties *sizes = (VkPhysicalDeviceSubgroupSizeControlProperties *)s;
            sizes->minSubgroupSize = intel.least, sizes->maxSubgroupSize = 32, sizes->maxComputeWorkgroupSubgroups = 64, sizes->requiredSubgroupSizeStages = VK_SHADER_STAGE_COMPUTE_BIT;
        }
    }
}

static void VKAPI_CALL intel_features(VkPhysicalDevice physical, VkPhysicalDeviceFeatures2 *f)
{
    null_GetPhysicalDeviceFeatures2(physical, f);
    for (VkBaseOutStructure *s = f->pNext; s; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR) ((VkPhysicalDeviceCooperativeMatrixFeaturesKHR *)s)->cooperativeMatrix = VK_TRUE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES) ((VkPhysicalDeviceShaderFloat16Int8Features *)s)->shaderFloat16 = VK_TRUE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES) ((VkPhysicalDeviceSubgroupSizeControlFeatures *)s)->subgroupSizeControl = VK_TRUE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES) {
            VkPhysicalDeviceVulkanMemoryModelFeatures *model = (VkPhysicalDeviceVulkanMemoryModelFeatures *)s;
            model->vulkanMemoryModel = model->vulkanMemoryModelDeviceScope = VK_TRUE;
        }
    }
}

static VkResult VKAPI_CALL intel_matrices(VkPhysicalDevice physical, uint32_t *n, VkCooperativeMatrixPropertiesKHR *p)
{
    (void)physical;
    *n = 1;
    p->MSize = 8, p->NSize = intel.columns, p->KSize = 16, p->scope = VK_SCOPE_SUBGROUP_KHR, p->saturatingAccumulation = VK_FALSE;
    p->AType = p->BType = VK_COMPONENT_TYPE_FLOAT16_KHR, p->CType = p->ResultType = VK_COMPONENT_TYPE_FLOAT32_KHR;
    return VK_SUCCESS;
}

static VkResult VKAPI_CALL intel_pipelines(VkDevice device, VkPipelineCache cache, uint32_t n, const VkComputePipelineCreateInfo *infos, const VkAllocationCallbacks *a, VkPipeline *out)
{
    const VkBaseInStructure *s = infos->stage.pNext;
    intel.sized = s && s->sType == VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO;
    if (intel.sized) intel.asked = *(const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo *)s;
    return null_CreateComputePipelines(device, cache, n, infos, a, out);
}

static vkm_void_fn VKAPI_CALL intel_device_find(VkDevice device, const char *name) { return strcmp(name, "vkCreateComputePipelines") ? (vkm_void_fn)null_GetDeviceProcAddr(device, name) : (vkm_void_fn)intel_pipelines; }
static vkm_void_fn intel_find(void *instance, const char *name)
{
    static const struct { const char *name; vkm_void_fn function; } own[] = {
        {"vkEnumerateDeviceExtensionProperties", (vkm_void_fn)intel_extension_list}, {"vkGetPhysicalDeviceProperties2", (vkm_void_fn)intel_properties}, {"vkGetPhysicalDeviceFeatures2", (vkm_void_fn)intel_features},
        {"vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR", (vkm_void_fn)intel_matrices}, {"vkGetDeviceProcAddr", (vkm_void_fn)intel_device_find}};
    for (size_t i = 0; i < VKM_COUNT(own); i++)
        if (!strcmp(own[i].name, name)) return own[i].function;
    return null_GetInstanceProcAddr(instance, name);
}

/* Kernels of matrices of 8 rows have subgroups as wide as a matrix, and ask for them, where the device has and the caller enabled that. */
Test(null, subgroups_as_wide_as_matrices)
{
    static const struct { uint32_t columns, least; bool enabled; uint32_t lanes; } cases[] = {{8, 8, true, 8}, {16, 16, true, 16}, {16, 8, true, 16}, {8, 8, false, 32}, {8, 16, true, 32}};
    for (size_t i = 0; i < VKM_COUNT(cases); i++) {
        vkm_error err = {0};
        struct null_driver d = {0};
        vkm_device *device = NULL;
        null_open(&d);
        VkPhysicalDeviceSubgroupSizeControlFeatures sizes = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, .pNext = d.features.pNext, .subgroupSizeControl = cases[i].enabled};
        VkPhysicalDeviceVulkanMemoryModelFeatures model = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, .pNext = &sizes, .vulkanMemoryModel = VK_TRUE, .vulkanMemoryModelDeviceScope = VK_TRUE};
        VkPhysicalDeviceShaderFloat16Int8Features half = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, .pNext = &model, .shaderFloat16 = VK_TRUE};
        VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrices = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, .pNext = &half, .cooperativeMatrix = VK_TRUE};
        d.features.pNext = &matrices;
        intel.columns = cases[i].columns, intel.least = cases[i].least;
        vkm_import import = null_import(&d);
        import.get_instance_proc_addr = intel_find, import.extensions = intel_extensions, import.n_extensions = VKM_COUNT(intel_extensions);
        OK(vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .import = &import}, &device, &err));
        const struct vkm_caps *caps = vkm_device_caps(device);
        cr_assert(caps->matrix.m == 8 && caps->matrix.n == cases[i].columns && caps->subgroup_size == 32);
        cr_expect_eq(caps->matrix_lanes, cases[i].lanes, "case %zu: %u lanes", i, caps->matrix_lanes);
        if (caps->coopmat) {               /* this build has such kernels */
            const uint32_t spec[] = {caps->matrix_lanes, 1, 2, 8, caps->matrix.n, 16, 1};
            const vkm_kernel *kernel;
            OK(vkm_kernel_get(device, "bench_matrix", "f16_f32", spec, VKM_COUNT(spec), &kernel, &err));
            OK(vkm_kernels_compile_found(device, &err));
            cr_expect(intel.sized == cases[i].enabled && (!intel.sized || intel.asked.requiredSubgroupSize == cases[i].lanes), "case %zu: %d, %u lanes asked for", i, intel.sized, intel.asked.requiredSubgroupSize);
        }
        vkm_device_destroy(device);
        close_driver(&d, "matrices");
    }
}

Test(null, pipeline_cache_as_bytes)
{
    vkm_error err = {0};
    struct null_driver d = {0};
    struct log log = {0};
    vkm_device *device = NULL;
    uint8_t data[512] = {0};
    size_t n = 0, most = sizeof data;
    null_open(&d);
    vkm_import import = null_import(&d);
    vkm_device_params p = {.struct_size = sizeof p, .import = &import, .log = on_log, .log_user = &log};
    OK(vkm_device_create(&p, &device, &err));
    cr_expect_eq(d.cache_bytes, 0);
    OK(vkm_device_pipeline_cache_data(device, NULL, &n, &err));
    cr_assert(n > 100 && n < sizeof data);
    size_t less = n - 1;
    OK(vkm_device_pipeline_cache_data(device, data, &less, &err));
    cr_expect(less == n && !data[0], "nothing is written where it does not fit");
    OK(vkm_device_pipeline_cache_data(device, data, &most, &err));
    cr_expect_eq(most, n);
    FAILS(vkm_device_pipeline_cache_data(device, NULL, &most, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_device_pipeline_cache_data(device, data, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_device_pipeline_cache_data(NULL, data, &most, &err), VKM_ERR_ARGUMENT);
    vkm_device_destroy(device);

    p.cache_data = data;
    for (int i = -2; i < (int)n; i++) {        /* as it was; a byte less; any byte of it wrong. Whole where it is its own malloc, so that reading behind it shows */
        size_t bytes = i == -1 ? n - 1 : n;
        uint8_t *copy = malloc(bytes);
        cr_assert(copy);
        memcpy(copy, data, bytes);
        if (i >= 0) copy[i] ^= 0x20;
        p.cache_data = copy, p.cache_bytes = bytes;
        log.all = (vkm_text){log.text, sizeof log.text, 0};
        OK(vkm_device_create(&p, &device, &err));
        cr_expect_eq(d.cache_bytes, i == -2 ? 100 : 0, "byte %d", i);
        cr_expect_eq(strstr(log.text, "is not used") != NULL, i != -2, "%s", log.text);
        free(copy);
        vkm_device_destroy(device);
    }
    p.cache_data = data, p.cache_bytes = 0;
    OK(vkm_device_create(&p, &device, &err));
    vkm_device_destroy(device);
    p.cache_path = "/nowhere";
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_ARGUMENT);
    p.cache_path = NULL, p.priority = VKM_PRIORITY_LOW;
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_ARGUMENT);
    p.priority = 2;
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_ARGUMENT);
    p.priority = 0, p.caps = "no such word";   /* before there is anything to be destroyed */
    FAILS(vkm_device_create(&p, &device, &err), VKM_ERR_ARGUMENT);

    VkPipelineCache own;
    p.caps = NULL, p.cache_data = data, p.cache_bytes = n;
    cr_assert_eq(null_CreatePipelineCache((VkDevice)&d, &(VkPipelineCacheCreateInfo){.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO}, NULL, &own), VK_SUCCESS);
    import.pipeline_cache = (uint64_t)own;
    OK(vkm_device_create(&p, &device, &err));
    FAILS(vkm_device_pipeline_cache_data(device, data, &most, &err), VKM_ERR_ARGUMENT);
    vkm_device_destroy(device);
    cr_expect_eq(d.objects, 1);
    null_DestroyPipelineCache((VkDevice)&d, own, NULL);
    close_driver(&d, "cache");
}
