/* A model whose weights, KV cache and workspace lie in the memory of an engine's allocator, the Vulkan Memory Allocator (VMA, https://gpuopen.com/vulkan-memory-allocator/).
 *   vma MODEL.gguf [PROMPT [DEVICE]]
 * What an engine needs of it is the bridge: three functions and a vkm_memory_hooks. The rest is a device, and vkmoe on it. */
#define VMA_IMPLEMENTATION
#include <vulkan/vulkan.h>
#include <vk_mem_alloc.h>
#include <vkmoe.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

/* ---------------------------------------------------------------- the bridge */

/* vkmoe says which types will do, best first by asking again; among them VMA chooses, by what is left in its blocks. Alignment and size have room for flushes of whole atoms already. */
static int32_t vma_allocate(void *user, const vkm_memory_request *request, vkm_memory *memory)
{
    VmaAllocator vma = static_cast<VmaAllocator>(user);
    VkMemoryRequirements needs = {request->size, request->alignment, request->types};
    VmaAllocationCreateInfo create = {};
    create.flags = request->map ? VMA_ALLOCATION_CREATE_MAPPED_BIT : 0;      /* for as long as it lives */
    create.requiredFlags = request->flags;
    VmaAllocation allocation;
    VmaAllocationInfo info;
    VkResult r = vmaAllocateMemory(vma, &needs, &create, &allocation, &info);
    if (r != VK_SUCCESS) return r;
    vmaSetAllocationName(vma, allocation, request->name);                    /* in VMA's own statistics */
    memory->memory = (uint64_t)info.deviceMemory;
    memory->offset = info.offset;
    memory->type = info.memoryType;
    memory->map = info.pMappedData;
    memory->user = allocation;
    return VK_SUCCESS;
}

static void vma_release(void *user, const vkm_memory *memory)
{
    vmaFreeMemory(static_cast<VmaAllocator>(user), static_cast<VmaAllocation>(memory->user));
}

/* What the driver still gives, and what VMA has and nobody uses. */
static uint64_t vma_available(void *user)
{
    VmaAllocator vma = static_cast<VmaAllocator>(user);
    const VkPhysicalDeviceMemoryProperties *memory;
    VmaBudget budgets[VK_MAX_MEMORY_HEAPS];
    uint32_t heap = UINT32_MAX;
    vmaGetMemoryProperties(vma, &memory);
    vmaGetHeapBudgets(vma, budgets);
    for (uint32_t i = 0; i < memory->memoryHeapCount; i++)
        if ((memory->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) && (heap == UINT32_MAX || memory->memoryHeaps[i].size > memory->memoryHeaps[heap].size)) heap = i;
    if (heap == UINT32_MAX) return 0;
    const VmaBudget &b = budgets[heap];
    return (b.budget > b.usage ? b.budget - b.usage : 0) + (b.statistics.blockBytes - b.statistics.allocationBytes);
}

/* ---------------------------------------------------------------- an engine in short */

static void check(int result, const char *what)
{
    if (result == 0) return;
    fprintf(stderr, "vma: %s\n", what);
    exit(1);
}
#define VK(call) check(call, #call)
#define VKM(call) check(call, err.message)

static VkInstance make_instance()
{
    VkInstance instance;
    VkApplicationInfo application = {};
    application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    application.apiVersion = VK_API_VERSION_1_2;
    VkInstanceCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &application;
    VK(vkCreateInstance(&info, nullptr, &instance));
    return instance;
}

static VkDevice make_device(VkPhysicalDevice physical, const vkm_wanted *wanted)
{
    VkDevice device;
    const float priority = 0.5f;               /* an engine would have a queue of its own beside it, of a higher one */
    VkDeviceQueueCreateInfo queue = {};
    queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
    queue.queueFamilyIndex = wanted->queue_family;
    queue.queueCount = 1;
    queue.pQueuePriorities = &priority;
    VkDeviceCreateInfo info = {};
    info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
    info.pNext = wanted->features;
    info.queueCreateInfoCount = 1;
    info.pQueueCreateInfos = &queue;
    info.enabledExtensionCount = wanted->n_extensions;
    info.ppEnabledExtensionNames = wanted->extensions;
    VK(vkCreateDevice(physical, &info, nullptr, &device));
    return device;
}

static VmaAllocator make_allocator(VkInstance instance, VkPhysicalDevice physical, VkDevice device, const vkm_wanted *wanted)
{
    VmaAllocator vma;
    VmaAllocatorCreateInfo info = {};
    info.instance = instance;
    info.physicalDevice = physical;
    info.device = device;
    info.vulkanApiVersion = VK_API_VERSION_1_2;
    for (uint32_t i = 0; i < wanted->n_extensions; i++)
        if (!strcmp(wanted->extensions[i], VK_EXT_MEMORY_BUDGET_EXTENSION_NAME)) info.flags |= VMA_ALLOCATOR_CREATE_EXT_MEMORY_BUDGET_BIT;
    for (auto s = static_cast<const VkBaseInStructure *>(wanted->features); s; s = s->pNext)   /* CPU drivers: request->device_address */
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES) info.flags |= VMA_ALLOCATOR_CREATE_BUFFER_DEVICE_ADDRESS_BIT;
    VK(vmaCreateAllocator(&info, &vma));
    return vma;
}

static bool show(void *detokenizer, uint32_t, int32_t token)
{
    const char *text;
    size_t n;
    if (vkm_detokenizer_push(static_cast<vkm_detokenizer *>(detokenizer), token, &text, &n, nullptr) == VKM_OK) fwrite(text, 1, n, stdout);
    return true;
}

static void speak(vkm_device *device, const char *path, const char *prompt, VmaAllocator vma)
{
    vkm_error err = {};
    vkm_model *model;
    vkm_session *session;
    vkm_detokenizer *out;
    size_t n = 0;
    VKM(vkm_model_load(device, path, nullptr, &model, &err));
    const vkm_tokenizer *tokenizer = vkm_model_tokenizer(model);
    VKM(vkm_tokenize(tokenizer, prompt, strlen(prompt), VKM_TOKENIZE_SPECIAL, nullptr, &n, &err));
    std::vector<int32_t> ids(n);
    VKM(vkm_tokenize(tokenizer, prompt, strlen(prompt), VKM_TOKENIZE_SPECIAL, ids.data(), &n, &err));
    VKM(vkm_session_create(model, nullptr, &session, &err));
    VKM(vkm_session_eval(session, 0, ids.data(), n, nullptr, &err));
    VKM(vkm_detokenizer_create(tokenizer, false, &out, &err));
    vkm_generation generation = {};
    generation.struct_size = sizeof generation;
    generation.n_tokens = 40;
    printf("%s", prompt);
    VKM(vkm_session_generate(session, &generation, 1, show, out, &err));

    VmaTotalStatistics statistics;
    vmaCalculateStatistics(vma, &statistics);
    const VmaStatistics &total = statistics.total.statistics;
    printf("\n%u buffers of %.1f MiB in %u blocks of %.1f MiB\n", total.allocationCount, (double)total.allocationBytes / 0x1p20, total.blockCount, (double)total.blockBytes / 0x1p20);
    vkm_detokenizer_destroy(out);
    vkm_session_destroy(session);
    vkm_model_destroy(model);
}

int main(int argc, char **argv)
{
    if (argc < 2) return fprintf(stderr, "usage: vma MODEL.gguf [PROMPT [DEVICE]]\n"), 2;
    vkm_error err = {};
    VkInstance instance = make_instance();
    VkPhysicalDevice all[16];
    uint32_t n = 16, which = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;
    if (vkEnumeratePhysicalDevices(instance, &n, all) < 0 || which >= n) return fprintf(stderr, "vma: there is no Vulkan device %u\n", which), 1;

    vkm_import import = {};
    import.struct_size = sizeof import;
    import.get_instance_proc_addr = reinterpret_cast<vkm_void_fn (*)(void *, const char *)>(vkGetInstanceProcAddr);
    import.api_version = VK_API_VERSION_1_2;
    import.instance = instance;
    import.physical_device = all[which];
    vkm_wanted *wanted;
    VKM(vkm_wanted_create(&import, &wanted, &err));
    check(!wanted->usable, wanted->unusable_why);
    VkDevice device = make_device(all[which], wanted);
    VkQueue queue;
    vkGetDeviceQueue(device, wanted->queue_family, 0, &queue);
    VmaAllocator vma = make_allocator(instance, all[which], device, wanted);

    vkm_memory_hooks memory = {sizeof memory, vma_allocate, vma_release, vma_available, vma};
    import.device = device;
    import.queue = queue;
    import.queue_family = wanted->queue_family;
    import.extensions = wanted->extensions;
    import.n_extensions = wanted->n_extensions;
    import.features = wanted->features;
    import.memory = &memory;
    vkm_device_params params = {};
    params.struct_size = sizeof params;
    params.import = &import;
    vkm_device *moe;
    VKM(vkm_device_create(&params, &moe, &err));
    speak(moe, argv[1], argc > 2 ? argv[2] : "The storm kept everyone inside", vma);
    vkm_device_destroy(moe);

    vmaDestroyAllocator(vma);                  /* asserts that everything was released */
    vkm_wanted_destroy(wanted);
    vkDestroyDevice(device, nullptr);
    vkDestroyInstance(instance, nullptr);
    return 0;
}
