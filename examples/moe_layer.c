/* A Mixture-of-Experts layer inside a program that has Vulkan already: its own device, its own buffer, its own command buffer, one submission. Random weights; the result is checked against
 * a few lines of C.     Build: part of vkmoe (VKMOE_EXAMPLES), or against an installed one:  cc moe_layer.c $(pkg-config --cflags --libs vkmoe) -lvulkan -lm */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>
#include <vkmoe.h>

enum { EMBD = 64, FF = 128, EXPERTS = 8, USED = 2, TOKENS = 5 };
static float router[EXPERTS][EMBD], gate[EXPERTS][FF][EMBD], up[EXPERTS][FF][EMBD], down[EXPERTS][EMBD][FF];

#define CHECK(call) do { if ((call) != 0) { fprintf(stderr, "%s failed%s%s\n", #call, *err.message ? ": " : "", err.message); exit(1); } } while (0)
static vkm_error err;

static void fill(float *v, size_t n, float scale)
{
    static unsigned state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = scale * ((float)(state >> 8) / (1 << 23) - 1);
    }
}

/* What the layer is to compute: softmax over the chosen experts' logits, SwiGLU. */
static void expected(const float *x, double *y)
{
    double logits[EXPERTS] = {0}, sum = 0, h[FF];
    int chosen[USED];
    for (int e = 0; e < EXPERTS; e++)
        for (int i = 0; i < EMBD; i++) logits[e] += router[e][i] * x[i];
    for (int j = 0; j < USED; j++) {
        chosen[j] = -1;
        for (int e = 0; e < EXPERTS; e++)
            if ((j == 0 || e != chosen[0]) && (chosen[j] < 0 || logits[e] > logits[chosen[j]])) chosen[j] = e;
        sum += exp(logits[chosen[j]]);
    }
    memset(y, 0, EMBD * sizeof *y);
    for (int j = 0; j < USED; j++) {
        int e = chosen[j];
        for (int f = 0; f < FF; f++) {
            double g = 0, u = 0;
            for (int i = 0; i < EMBD; i++) g += gate[e][f][i] * x[i], u += up[e][f][i] * x[i];
            h[f] = g / (1 + exp(-g)) * u;
        }
        for (int i = 0; i < EMBD; i++)
            for (int f = 0; f < FF; f++) y[i] += exp(logits[e]) / sum * down[e][i][f] * h[f];
    }
}

int main(void)
{
    /* The program's own Vulkan, with what vkmoe wants of the device. */
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t one = 1;
    const VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_2};
    CHECK(vkCreateInstance(&(VkInstanceCreateInfo){.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app}, NULL, &instance));
    VkResult found = vkEnumeratePhysicalDevices(instance, &one, &physical);
    if (found < 0 || !one) { fprintf(stderr, "no Vulkan device\n"); return 1; }

    vkm_import import = {.struct_size = sizeof import, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))vkGetInstanceProcAddr, .api_version = VK_API_VERSION_1_2,
                         .instance = instance, .physical_device = physical};
    vkm_wanted *wanted;
    CHECK(vkm_wanted_create(&import, &wanted, &err));
    if (!wanted->usable) { fprintf(stderr, "%s\n", wanted->unusable_why); return 1; }
    const VkDeviceQueueCreateInfo queues = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = wanted->queue_family, .queueCount = 1, .pQueuePriorities = &(float){1}};
    CHECK(vkCreateDevice(physical, &(VkDeviceCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = wanted->features, .queueCreateInfoCount = 1, .pQueueCreateInfos = &queues,
                                                         .enabledExtensionCount = wanted->n_extensions, .ppEnabledExtensionNames = wanted->extensions}, NULL, &device));
    vkGetDeviceQueue(device, wanted->queue_family, 0, &queue);

    /* vkmoe on it, and the layer. */
    vkm_device *moe;
    import.device = device, import.queue = queue, import.queue_family = wanted->queue_family;
    import.features = wanted->features, import.extensions = wanted->extensions, import.n_extensions = wanted->n_extensions;
    CHECK(vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .import = &import}, &moe, &err));

    fill(&router[0][0], EXPERTS * EMBD, 0.5f);
    fill(&gate[0][0][0], EXPERTS * FF * EMBD, 0.3f);
    fill(&up[0][0][0], EXPERTS * FF * EMBD, 0.3f);
    fill(&down[0][0][0], EXPERTS * EMBD * FF, 0.2f);
    const vkm_router_desc top2 = {.struct_size = sizeof top2, .score = VKM_ROUTER_SELECTED, .n_used = USED};
    const vkm_moe_layer_desc desc = {.struct_size = sizeof desc, .n_embd = EMBD, .n_ff = FF, .n_expert = EXPERTS, .max_tokens = TOKENS, .router = &top2};
    const vkm_moe_weights weights = {.struct_size = sizeof weights, .router = {.data = router, .n_bytes = sizeof router}, .gate = {.data = gate, .n_bytes = sizeof gate},    /* type 0: F32 */
                                     .up = {.data = up, .n_bytes = sizeof up}, .down = {.data = down, .n_bytes = sizeof down}};
    vkm_moe_layer *layer;
    CHECK(vkm_moe_layer_create(moe, &desc, &weights, &layer, &err));

    /* A buffer for x and y. */
    VkBuffer buffer;
    VkDeviceMemory memory;
    VkMemoryRequirements needs;
    VkPhysicalDeviceMemoryProperties types;
    float (*rows)[EMBD];                     /* x, then y */
    uint32_t type = 0;
    const VkMemoryPropertyFlags flags = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    CHECK(vkCreateBuffer(device, &(VkBufferCreateInfo){.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = 2 * TOKENS * EMBD * sizeof(float),
                                                       .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT}, NULL, &buffer));
    vkGetBufferMemoryRequirements(device, buffer, &needs);
    vkGetPhysicalDeviceMemoryProperties(physical, &types);
    while (!(needs.memoryTypeBits >> type & 1) || (types.memoryTypes[type].propertyFlags & flags) != flags) type++;
    CHECK(vkAllocateMemory(device, &(VkMemoryAllocateInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = needs.size, .memoryTypeIndex = type}, NULL, &memory));
    CHECK(vkBindBufferMemory(device, buffer, memory, 0));
    CHECK(vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, (void **)&rows));
    fill(&rows[0][0], TOKENS * EMBD, 1);

    /* The frame: whatever the program records, with the layer among it. */
    VkCommandPool pool;
    VkCommandBuffer commands;
    CHECK(vkCreateCommandPool(device, &(VkCommandPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .queueFamilyIndex = wanted->queue_family}, NULL, &pool));
    CHECK(vkAllocateCommandBuffers(device, &(VkCommandBufferAllocateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = pool, .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY, .commandBufferCount = 1}, &commands));
    CHECK(vkBeginCommandBuffer(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO}));
    const vkm_moe_io io = {.struct_size = sizeof io, .x = {(uint64_t)(uintptr_t)buffer, 0}, .y = {(uint64_t)(uintptr_t)buffer, TOKENS * EMBD * sizeof(float)}};
    CHECK(vkm_moe_layer_record(layer, commands, &io, TOKENS, &err));
    CHECK(vkEndCommandBuffer(commands));
    CHECK(vkQueueSubmit(queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands}, VK_NULL_HANDLE));
    CHECK(vkQueueWaitIdle(queue));

    double worst = 0;
    for (int t = 0; t < TOKENS; t++) {
        double y[EMBD], off = 0;
        expected(rows[t], y);
        for (int i = 0; i < EMBD; i++) off = fmax(off, fabs(rows[TOKENS + t][i] - y[i]));
        printf("token %d: y = %7.4f %7.4f %7.4f ..., expected %7.4f %7.4f %7.4f ..., off by at most %.1e\n", t, rows[TOKENS + t][0], rows[TOKENS + t][1], rows[TOKENS + t][2], y[0], y[1], y[2], off);
        worst = fmax(worst, off);
    }

    vkm_moe_layer_destroy(layer);
    vkm_device_destroy(moe);
    vkm_wanted_destroy(wanted);
    vkDestroyCommandPool(device, pool, NULL);
    vkDestroyBuffer(device, buffer, NULL);
    vkFreeMemory(device, memory, NULL);
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    if (worst > 1e-4) { fprintf(stderr, "that is too far off\n"); return 1; }
    return 0;
}
