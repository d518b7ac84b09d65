/* vkmoe on an instance, a device and a queue that somebody else made: what it uses of them, that it leaves them as they were, and what it says when something is missing. */
#include "harness.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <vulkan/vulkan.h>

static const vkm_session_params f32 = {.n_ctx = 64, .kv_type = VKM_KV_F32};
enum { TOKENS = 12 };

/* A program that has Vulkan already, under the validation layer. */
struct host {
    PFN_vkGetInstanceProcAddr get;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family, messages;
    pthread_mutex_t mutex;
    uint32_t locks, held, most_held;
    atomic_int allocations, allocated;             /* ever; that are there */
    vkm_import import;
};
#define VK(h, name) ((PFN_vk##name)(h)->get((h)->instance, "vk" #name))

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT kinds, const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    struct host *h = user;
    (void)severity, (void)kinds;
    if (strstr(data->pMessage, "pName is trying to grab")) return VK_FALSE;      /* see host/instance.c */
    h->messages++;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

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

/* The instance, and the physical device that the other suites test. */
static void open_instance(struct host *h, uint32_t api)
{
    struct driver_log log;
    vkm_device_info info;
    vkm_device *device = driver_open(NULL, &log);
    vkm_device_get_info(device, &info);
    driver_close(device, &log);
    *h = (struct host){.mutex = PTHREAD_MUTEX_INITIALIZER};
    void *loader = dlopen("libvulkan.so.1", RTLD_NOW);
    cr_assert(loader);
    h->get = (PFN_vkGetInstanceProcAddr)dlsym(loader, "vkGetInstanceProcAddr");
    VkDebugUtilsMessengerCreateInfoEXT messages = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT, .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
                                                   .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT, .pfnUserCallback = on_message, .pUserData = h};
    cr_assert_eq(VK(h, CreateInstance)(&(VkInstanceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pNext = &messages, .pApplicationInfo = &(VkApplicationInfo){.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = api},
        .enabledLayerCount = 1, .ppEnabledLayerNames = (const char *[]){"VK_LAYER_KHRONOS_validation"}, .enabledExtensionCount = 1, .ppEnabledExtensionNames = (const char *[]){VK_EXT_DEBUG_UTILS_EXTENSION_NAME},
    }, NULL, &h->instance), VK_SUCCESS);
    cr_assert_eq(VK(h, CreateDebugUtilsMessengerEXT)(h->instance, &messages, NULL, &h->messenger), VK_SUCCESS);
    VkPhysicalDevice all[16];
    uint32_t n = 16;
    cr_assert(VK(h, EnumeratePhysicalDevices)(h->instance, &n, all) >= 0 && info.index < n);
    h->physical = all[info.index];
    h->import = (vkm_import){.struct_size = sizeof h->import, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))h->get, .api_version = api, .instance = h->instance, .physical_device = h->physical};
}

static void open_device(struct host *h, uint32_t family, const void *features, const char *const *extensions, uint32_t n_extensions)
{
    h->family = family;
    cr_assert_eq(VK(h, CreateDevice)(h->physical, &(VkDeviceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = features, .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &(VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = family, .queueCount = 1, .pQueuePriorities = &(float){1}},
        .enabledExtensionCount = n_extensions, .ppEnabledExtensionNames = extensions}, NULL, &h->device), VK_SUCCESS);
    VK(h, GetDeviceQueue)(h->device, family, 0, &h->queue);
    h->import.device = h->device;
    h->import.queue = h->queue;
    h->import.queue_family = family;
    h->import.features = features;
    h->import.extensions = extensions;
    h->import.n_extensions = n_extensions;
    h->import.lock = lock;
    h->import.unlock = unlock;
    h->import.lock_user = h;
}

/* All that vkmoe left behind on the device would be told by the layer. */
static void close_host(struct host *h)
{
    cr_expect_eq(VK(h, DeviceWaitIdle)(h->device), VK_SUCCESS);
    VK(h, DestroyDevice)(h->device, NULL);
    VK(h, DestroyDebugUtilsMessengerEXT)(h->instance, h->messenger, NULL);
    VK(h, DestroyInstance)(h->instance, NULL);
    cr_expect_eq(h->messages, 0);
    cr_expect_eq(h->held, 0);
}

static vkm_device *import_device(struct host *h, struct driver_log *log)
{
    vkm_error err = {0};
    vkm_device *device = NULL;
    *log = (struct driver_log){0};
    log->all = (vkm_text){log->text, sizeof log->text, 0};
    const vkm_device_params params = {.struct_size = sizeof params, .import = &h->import, .log = driver_on_log, .log_user = log};
    OK(vkm_device_create(&params, &device, &err));
    return device;
}

/* Loads the model on the imported device and lets it speak. */
static float *answer(struct rig *r, struct host *h, const struct answers *a)
{
    memset(r, 0, sizeof *r);
    r->device = import_device(h, &r->log);
    rig_load(r, a->path);
    rig_session(r, f32);
    return check_answers(r, a, TOKENS, 5, NMSE_F32, "imported");
}

Test(import, all_that_is_wanted_gives_what_an_own_device_has)
{
    struct host h;
    struct rig own, r;
    struct answers a;
    vkm_error err = {0};
    vkm_wanted *wanted;
    vkm_device_info mine, theirs;
    answers_make(&a, ref_testmodel_default("qwen3moe"), TOKENS);
    rig_open(&own, NULL, a.path, f32);
    float *expected = check_answers(&own, &a, TOKENS, 5, NMSE_F32, "own");
    vkm_device_get_info(own.device, &mine);

    open_instance(&h, VK_API_VERSION_1_3);
    OK(vkm_wanted_create(&h.import, &wanted, &err));
    cr_assert(wanted->usable, "%s", wanted->unusable_why);
    open_device(&h, wanted->queue_family, wanted->features, wanted->extensions, wanted->n_extensions);
    const VkAllocationCallbacks allocator = {.pUserData = &h, .pfnAllocation = allocate, .pfnReallocation = reallocate, .pfnFree = release};
    VkPipelineCache cache;
    cr_assert_eq(VK(&h, CreatePipelineCache)(h.device, &(VkPipelineCacheCreateInfo){.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO}, NULL, &cache), VK_SUCCESS);
    h.import.allocator = &allocator;
    h.import.pipeline_cache = (uint64_t)cache;
    float *got = answer(&r, &h, &a);
    vkm_device_get_info(r.device, &theirs);
    cr_expect_str_eq(theirs.caps, mine.caps);
    cr_expect_str_eq(theirs.driver, mine.driver);
    check_same(expected, got, TOKENS, a.n_vocab, "on an own and on an imported device");
    cr_expect(h.locks > 0 && h.most_held == 1, "%u submissions, %u at once", h.locks, h.most_held);
    vkm_wanted_destroy(wanted);
    rig_unload(&r);
    vkm_device_destroy(r.device);
    cr_expect(h.allocations > 0 && h.allocated == 0, "%d allocations, %d of them still there", h.allocations, h.allocated);
    VK(&h, DestroyPipelineCache)(h.device, cache, NULL);          /* still the caller's */
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
        VK(&h, GetPhysicalDeviceFeatures2)(h.physical, &has);
        features.features.shaderStorageBufferArrayDynamicIndexing = VK_TRUE;
        if (more) v11.storageBuffer16BitAccess = has11.storageBuffer16BitAccess, v12.shaderFloat16 = has12.shaderFloat16;
        open_device(&h, 0, &features, NULL, 0);
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

/* Two on one VkDevice and one queue, each on a thread of its own. */
struct speaker { struct host *h; struct answers *a; struct rig r; float *logits; };
static void *speak(void *user)
{
    struct speaker *s = user;
    s->logits = eval_steps(&s->r, s->a->tokens, TOKENS, 1);
    return NULL;
}

Test(import, two_share_a_queue)
{
    FIRST_DRIVER_ONLY();
    struct host h;
    struct answers a;
    struct speaker s[2];
    pthread_t threads[2];
    vkm_error err = {0};
    vkm_wanted *wanted;
    answers_make(&a, ref_testmodel_default("llama"), TOKENS);
    open_instance(&h, VK_API_VERSION_1_3);
    OK(vkm_wanted_create(&h.import, &wanted, &err));
    open_device(&h, wanted->queue_family, wanted->features, wanted->extensions, wanted->n_extensions);
    float *alone[2];
    for (int i = 0; i < 2; i++) {
        s[i] = (struct speaker){.h = &h, .a = &a};
        alone[i] = answer(&s[i].r, &h, &a);
    }
    for (int i = 0; i < 2; i++) cr_assert_eq(pthread_create(&threads[i], NULL, speak, &s[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        check_same(alone[0], s[i].logits, TOKENS, a.n_vocab, "beside another");
        rig_unload(&s[i].r);
        vkm_device_destroy(s[i].r.device);
        free(s[i].logits);
    }
    for (int i = 0; i < 2; i++) free(alone[i]);
    cr_expect_eq(h.most_held, 1);
    vkm_wanted_destroy(wanted);
    close_host(&h);
    answers_free(&a);
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
    open_device(&h, 0, &features, NULL, 0);
    const vkm_import whole = h.import;
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
    cr_expect_null(device);
    FAILS(vkm_wanted_create(NULL, &wanted, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_wanted_create(&whole, NULL, &err), VKM_ERR_ARGUMENT);
    vkm_wanted_destroy(NULL);
    close_host(&h);
}
