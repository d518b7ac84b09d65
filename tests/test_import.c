/* vkmoe on an instance, a device and a queue that somebody else made: what it uses of them, that it leaves them as they were, and what it says when something is missing. */
#include "caller.h"
#include "harness.h"
#include <pthread.h>
#include <stdatomic.h>

static const vkm_session_params f32 = {.n_ctx = 64, .kv_type = VKM_KV_F32};
enum { TOKENS = 12 };

/* A program that has Vulkan already, and a lock, host memory and device memory of its own. */
struct host {
    struct caller c;
    pthread_mutex_t mutex;
    uint32_t locks, held, most_held;
    atomic_int allocations, allocated;             /* ever; that are there */
    struct block { VkDeviceMemory memory; uint64_t used, size; uint32_t type; char *map; } blocks[16];
    uint32_t n_blocks, parts, n_parts;             /* parts of them that are there, that ever were */
    VkPhysicalDeviceMemoryProperties memory;
};
#define VK(h, name) CALLER_VK(&(h)->c, name)

static void lock(void *user) { struct host *h = user; pthread_mutex_lock(&h->mutex); h->locks++; if (++h->held > h->most_held) h->most_held = h->held; }
static void unlock(void *user) { struct host *h = user; h->held--; pthread_mutex_unlock(&h->mutex); }

/* The caller's allocator: the size, and how far the block's begin is away, lie before what is handed out. */
static void *VKAPI_CALL allocate(void *user, size_t size, size_t alignment, VkSystemAllocationScope scope)
{
    struct host *h = user;
    (void)scope;
    if (alignment < 16) alignment = 16;
    char *block = malloc(size + alignment + 16), *at = (char *)(((uintptr_t)block + 16 + alignment - 1) / alignment * alignment);
    cr_assert(block);
    memcpy(at - 16, &(size_t){size}, sizeof size);
    memcpy(at - 8, &(size_t){(size_t)(at - block)}, sizeof size);
    h->allocations++;
    h->allocated++;
    return at;
}
static void VKAPI_CALL release(void *user, void *at)
{
    size_t back;
    if (!at) return;
    memcpy(&back, (char *)at - 8, sizeof back);
    free((char *)at - back);
    ((struct host *)user)->allocated--;
}
static void *VKAPI_CALL reallocate(void *user, void *at, size_t size, size_t alignment, VkSystemAllocationScope scope)
{
    size_t before;
    if (!at) return allocate(user, size, alignment, scope);
    void *to = size ? allocate(user, size, alignment, scope) : NULL;
    memcpy(&before, (char *)at - 16, sizeof before);
    if (to) memcpy(to, at, before < size ? before : size);
    release(user, at);
    return to;
}

/* The caller's device memory: parts of blocks, none of which begins where the block does. */
static int32_t take_memory(void *user, const vkm_memory_request *q, vkm_memory *m)
{
    struct host *h = user;
    struct block *b = h->blocks;
    uint32_t type = 0;
    while (!(q->types >> type & 1)) type++;
    while (b < h->blocks + h->n_blocks && (b->type != type || b->size - b->used < q->size + q->alignment)) b++;
    if (b == h->blocks + h->n_blocks) {
        cr_assert_lt(h->n_blocks, VKM_COUNT(h->blocks));
        *b = (struct block){.used = 48, .size = (q->size + q->alignment > 8 << 20 ? q->size + q->alignment : 8 << 20) + 4096, .type = type};
        VkResult r = VK(h, AllocateMemory)(h->c.device, &(VkMemoryAllocateInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
            .pNext = q->device_address ? &(VkMemoryAllocateFlagsInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT} : NULL,
            .allocationSize = b->size, .memoryTypeIndex = type}, NULL, &b->memory);
        if (r == VK_SUCCESS && h->memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) r = VK(h, MapMemory)(h->c.device, b->memory, 0, VK_WHOLE_SIZE, 0, (void **)&b->map);
        if (r != VK_SUCCESS) return r;
        h->n_blocks++;
    }
    uint64_t at = vkm_align(b->used, q->alignment);
    b->used = at + q->size;
    h->parts++, h->n_parts++;
    *m = (vkm_memory){.memory = (uint64_t)b->memory, .offset = at, .type = type, .map = b->map ? b->map + at : NULL, .user = b};
    return VK_SUCCESS;
}
static void give_memory_back(void *user, const vkm_memory *m) { cr_expect_eq(((struct block *)m->user)->memory, (VkDeviceMemory)m->memory); ((struct host *)user)->parts--; }

static void open_instance(struct host *h, uint32_t api)
{
    *h = (struct host){.mutex = PTHREAD_MUTEX_INITIALIZER};
    caller_open_instance(&h->c, api);
    VK(h, GetPhysicalDeviceMemoryProperties)(h->c.physical, &h->memory);
    h->c.import.lock = lock;
    h->c.import.unlock = unlock;
    h->c.import.lock_user = h;
}

/* With a device that has all that vkmoe can use. */
static void open_host(struct host *h, uint32_t api)
{
    open_instance(h, api);
    caller_want(&h->c);
}

static void close_host(struct host *h)
{
    for (uint32_t i = 0; i < h->n_blocks; i++) VK(h, FreeMemory)(h->c.device, h->blocks[i].memory, NULL);
    caller_close(&h->c);
    cr_expect_eq(h->held, 0);
}

/* Loads the model on the imported device and lets it speak. */
static float *answer(struct rig *r, struct host *h, const struct answers *a)
{
    memset(r, 0, sizeof *r);
    r->device = caller_import(&h->c, NULL, &r->log);
    rig_load(r, a->path);
    rig_session(r, f32);
    return check_answers(r, a, TOKENS, 5, NMSE_F32, "imported");
}

Test(import, all_that_is_wanted_gives_what_an_own_device_has)
{
    struct host h;
    struct rig own, r;
    struct answers a;
    vkm_device_info mine, theirs;
    answers_make(&a, ref_testmodel_default("qwen3moe"), TOKENS);
    rig_open(&own, NULL, a.path, f32);
    float *expected = check_answers(&own, &a, TOKENS, 5, NMSE_F32, "own");
    vkm_device_get_info(own.device, &mine);

    open_host(&h, VK_API_VERSION_1_3);
    const VkAllocationCallbacks allocator = {.pUserData = &h, .pfnAllocation = allocate, .pfnReallocation = reallocate, .pfnFree = release};
    VkPipelineCache cache;
    cr_assert_eq(VK(&h, CreatePipelineCache)(h.c.device, &(VkPipelineCacheCreateInfo){.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO}, NULL, &cache), VK_SUCCESS);
    h.c.import.allocator = &allocator;
    h.c.import.pipeline_cache = (uint64_t)cache;
    const vkm_memory_hooks memory = {.struct_size = sizeof memory, .allocate = take_memory, .release = give_memory_back, .user = &h};
    h.c.import.memory = &memory;
    float *got = answer(&r, &h, &a);
    vkm_device_get_info(r.device, &theirs);
    cr_expect_str_eq(theirs.caps, mine.caps);
    cr_expect_str_eq(theirs.driver, mine.driver);
    check_same(expected, got, TOKENS, a.n_vocab, "on an own and on an imported device");
    cr_expect(h.locks > 0 && h.most_held == 1, "%u submissions, %u at once", h.locks, h.most_held);
    rig_unload(&r);
    vkm_device_destroy(r.device);
    cr_expect(h.allocations > 0 && h.allocated == 0, "%d allocations, %d of them still there", h.allocations, h.allocated);
    cr_expect(h.n_parts >= 5 && h.parts == 0, "%u parts of device memory, %u of them still there", h.n_parts, h.parts);
    VK(&h, DestroyPipelineCache)(h.c.device, cache, NULL);          /* still the caller's */
    rig_close(&own);
    close_host(&h);
    free(expected);
    free(got);
    answers_free(&a);
}

/* Features by the structures of Vulkan 1.2 and 1.3; what is not enabled is not used. */
Test(import, uses_no_more_than_is_enabled)
{
    FIRST_DRIVER_ONLY();
    struct host h;
    struct rig r;
    struct answers a;
    vkm_device_info info;
    answers_make(&a, ref_testmodel_default("olmoe"), TOKENS);
    for (int more = 0; more < 2; more++) {
        open_instance(&h, more ? VK_API_VERSION_1_3 : VK_API_VERSION_1_2);
        VkPhysicalDeviceVulkan13Features has13 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES};
        VkPhysicalDeviceVulkan12Features has12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &has13}, v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .timelineSemaphore = VK_TRUE};
        VkPhysicalDeviceVulkan11Features has11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &has12}, v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &v12};
        VkPhysicalDeviceFeatures2 has = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &has11}, features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11};
        if (!more) has12.pNext = NULL;
        VK(&h, GetPhysicalDeviceFeatures2)(h.c.physical, &has);
        features.features.shaderStorageBufferArrayDynamicIndexing = VK_TRUE;
        if (more) v11.storageBuffer16BitAccess = has11.storageBuffer16BitAccess, v12.shaderFloat16 = has12.shaderFloat16;
        caller_open_device(&h.c, 0, &features, NULL, 0);
        free(answer(&r, &h, &a));
        vkm_device_get_info(r.device, &info);
        cr_expect_eq(strstr(info.caps, "fp16") != NULL, more && has11.storageBuffer16BitAccess && has12.shaderFloat16, "%s", info.caps);
        cr_expect(!strstr(info.caps, "int8dot") && !strstr(info.caps, "scalar loads") && !strstr(info.caps, "coopmat"), "%s", info.caps);
        rig_unload(&r);
        vkm_device_destroy(r.device);
        close_host(&h);
    }
    answers_free(&a);
}

static VkSemaphore new_semaphore(struct host *h)
{
    VkSemaphore semaphore;
    cr_assert_eq(VK(h, CreateSemaphore)(h->c.device, &(VkSemaphoreCreateInfo){
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = &(VkSemaphoreTypeCreateInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO, .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE}}, NULL, &semaphore), VK_SUCCESS);
    return semaphore;
}
static void signal_semaphore(struct host *h, VkSemaphore semaphore, uint64_t value)
{
    cr_assert_eq(VK(h, SignalSemaphore)(h->c.device, &(VkSemaphoreSignalInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = semaphore, .value = value}), VK_SUCCESS);
}
static uint64_t semaphore_value(struct host *h, VkSemaphore semaphore)
{
    uint64_t value = 0;
    cr_assert_eq(VK(h, GetSemaphoreCounterValue)(h->c.device, semaphore, &value), VK_SUCCESS);
    return value;
}

/* Each on a thread of its own: two on one VkDevice and one queue, and a second session of the first one's model, which shares a lock with it. */
struct speaker { struct answers *a; struct rig r; pthread_mutex_t *turn; float *logits; };
static void *speak(void *user)
{
    struct speaker *s = user;
    vkm_error err = {0};
    s->logits = malloc((size_t)TOKENS * s->a->n_vocab * sizeof *s->logits);
    cr_assert(s->logits);
    for (uint32_t i = 0; i < TOKENS; i++) {
        pthread_mutex_lock(s->turn);
        if (i == 0) OK(vkm_session_rewind(s->r.session, 0, 0, &err));
        OK(vkm_session_eval(s->r.session, 0, s->a->tokens + i, 1, s->logits + (size_t)i * s->a->n_vocab, &err));
        pthread_mutex_unlock(s->turn);
    }
    return NULL;
}

Test(import, devices_share_a_queue_and_sessions_a_device)
{
    FIRST_DRIVER_ONLY();
    struct host h;
    struct answers a;
    struct speaker s[3];
    pthread_t threads[3];
    pthread_mutex_t turns[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
    vkm_error err = {0};
    answers_make(&a, ref_testmodel_default("llama"), TOKENS);
    open_host(&h, VK_API_VERSION_1_3);
    float *alone[2];
    for (int i = 0; i < 3; i++) {
        s[i] = (struct speaker){.a = &a, .turn = &turns[i % 2]};
        if (i < 2) alone[i] = answer(&s[i].r, &h, &a);
    }
    s[2].r.device = s[0].r.device;
    s[2].r.model = s[0].r.model;
    rig_session(&s[2].r, f32);
    VkSemaphore go = new_semaphore(&h);
    OK(vkm_device_wait_for(s[0].r.device, (uint64_t)go, 3, &err));            /* nothing comes of it before; what is behind it on the queue waits too */
    for (int i = 0; i < 3; i++) cr_assert_eq(pthread_create(&threads[i], NULL, speak, &s[i]), 0);
    signal_semaphore(&h, go, 3);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) check_same(alone[0], s[i].logits, TOKENS, a.n_vocab, "beside another");
    vkm_session_destroy(s[2].r.session);
    for (int i = 0; i < 2; i++) {
        rig_unload(&s[i].r);
        vkm_device_destroy(s[i].r.device);
        free(alone[i]);
    }
    for (int i = 0; i < 3; i++) free(s[i].logits);
    cr_expect_eq(h.most_held, 1);
    VK(&h, DestroySemaphore)(h.c.device, go, NULL);
    close_host(&h);
    answers_free(&a);
}

Test(import, work_waits_for_a_semaphore_and_signals_one)
{
    struct host h;
    struct driver_log log;
    vkm_error err = {0};
    vkm_buffer *b;
    open_host(&h, VK_API_VERSION_1_2);
    vkm_device *device = caller_import(&h.c, NULL, &log);
    VkSemaphore before = new_semaphore(&h), after = new_semaphore(&h);
    OK(vkm_buffer_create(device, VKM_BUFFER_READBACK, 4096, "readback", &b, &err));
    uint32_t *words = vkm_buffer_map(b);
    memset(words, 0x77, 4096);
    OK(vkm_buffer_flush(b, 0, 4096, &err));
    OK(vkm_device_wait_for(device, (uint64_t)before, 2, &err));
    OK(vkm_buffer_clear(device, b, &err));
    OK(vkm_device_signal(device, (uint64_t)after, 5, &err));
    signal_semaphore(&h, before, 1);
    OK(vkm_buffer_invalidate(b, 0, 4096, &err));
    cr_expect(semaphore_value(&h, after) == 0 && words[0] == 0x77777777, "it has not begun");
    signal_semaphore(&h, before, 2);
    cr_assert_eq(VK(&h, WaitSemaphores)(h.c.device, &(VkSemaphoreWaitInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO, .semaphoreCount = 1, .pSemaphores = &after, .pValues = (uint64_t[]){5}}, UINT64_MAX), VK_SUCCESS);
    OK(vkm_buffer_invalidate(b, 0, 4096, &err));
    for (uint32_t i = 0; i < 1024; i++) cr_assert_eq(words[i], 0);
    vkm_buffer_destroy(b);
    vkm_device_destroy(device);
    VK(&h, DestroySemaphore)(h.c.device, before, NULL);
    VK(&h, DestroySemaphore)(h.c.device, after, NULL);
    close_host(&h);
}

/* What an import has otherwise: a low priority, and a pipeline cache in memory. */
Test(import, own_device_of_low_priority_with_a_cache_in_memory)
{
    struct driver_log log;
    vkm_error err = {0};
    size_t bytes = 0;
    uint8_t *data = NULL;
    for (int again = 0; again < 2; again++) {
        vkm_device *device = NULL;
        log = (struct driver_log){0};
        log.all = (vkm_text){log.text, sizeof log.text, 0};
        OK(vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .select = getenv("VKMOE_TEST_DEVICE"), .validation = true, .log = driver_on_log, .log_user = &log,
                                                  .priority = VKM_PRIORITY_LOW, .cache_data = data, .cache_bytes = bytes}, &device, &err));
        cr_expect(!strstr(log.text, "is not used"), "%s", log.text);
        FAILS(vkm_device_wait_for(device, 1, 1, &err), VKM_ERR_ARGUMENT);
        FAILS(vkm_device_signal(device, 1, 1, &err), VKM_ERR_ARGUMENT);
        if (!again) {
            OK(vkm_device_pipeline_cache_data(device, NULL, &bytes, &err));
            cr_assert(bytes > 56 && (data = malloc(bytes)));
            OK(vkm_device_pipeline_cache_data(device, data, &bytes, &err));
        }
        driver_close(device, &log);
    }
    free(data);
}

Test(import, says_what_is_missing)
{
    struct host h;
    vkm_error err = {0};
    vkm_device *device = NULL;
    vkm_wanted *wanted = NULL;
    open_instance(&h, VK_API_VERSION_1_3);
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &timeline, .features.shaderStorageBufferArrayDynamicIndexing = VK_TRUE};
    caller_open_device(&h.c, 0, &features, NULL, 0);
    const vkm_import whole = h.c.import;
    vkm_import i = whole;
    vkm_device_params p = {.struct_size = sizeof p, .import = &i};
#define REFUSED(code, word) do { FAILS(vkm_device_create(&p, &device, &err), code); cr_expect(strstr(err.message, word), "%s", err.message); i = whole; p = (vkm_device_params){.struct_size = sizeof p, .import = &i}; } while (0)
    REFUSED(VKM_ERR_UNSUPPORTED, "timelineSemaphore");
    i.features = NULL;
    REFUSED(VKM_ERR_UNSUPPORTED, "timelineSemaphore");
    timeline.timelineSemaphore = VK_TRUE;                     /* as far as vkmoe is told */
    features.features.shaderStorageBufferArrayDynamicIndexing = VK_FALSE;
    REFUSED(VKM_ERR_UNSUPPORTED, "shaderStorageBufferArrayDynamicIndexing");
    i.queue_family = 99;
    REFUSED(VKM_ERR_UNSUPPORTED, "queue family 99");
    i.api_version = VK_API_VERSION_1_0;
    REFUSED(VKM_ERR_UNSUPPORTED, "1.0");
    i.device = NULL;
    REFUSED(VKM_ERR_ARGUMENT, "device");
    i.queue = NULL;
    REFUSED(VKM_ERR_ARGUMENT, "queue");
    i.instance = NULL;
    REFUSED(VKM_ERR_ARGUMENT, "instance");
    i.physical_device = NULL;
    REFUSED(VKM_ERR_ARGUMENT, "physical device");
    i.struct_size = 0;
    REFUSED(VKM_ERR_ARGUMENT, "struct_size");
    p.select = "0";
    REFUSED(VKM_ERR_ARGUMENT, "select");
    p.validation = true;
    REFUSED(VKM_ERR_ARGUMENT, "validation");
    p.priority = VKM_PRIORITY_LOW;
    REFUSED(VKM_ERR_ARGUMENT, "priority");
    cr_expect_null(device);
    FAILS(vkm_wanted_create(NULL, &wanted, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_wanted_create(&whole, NULL, &err), VKM_ERR_ARGUMENT);
    vkm_wanted_destroy(NULL);
    close_host(&h);
}
