/* A language model inside a program that draws: its VkDevice, its command buffers, its frames. Every frame inference gets a budget of GPU time; the model's tokens arrive as they are ready.
 *
 *     record MODEL.gguf [BUDGET_US] [FRAMES]
 *
 * There is nothing to see here but text: where a renderer would draw stands a comment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vkmoe.h>
#include <vulkan/vulkan.h>

enum { IN_FLIGHT = 2, CHARACTERS = 3, TOKENS = 50 };
static const char *const openings[CHARACTERS] = {"Once upon a time", "The innkeeper said", "In the old mill"};

struct program {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    VkCommandPool pool;
    VkCommandBuffer commands[IN_FLIGHT];
    VkFence fences[IN_FLIGHT];
    vkm_wanted *wanted;
    vkm_device *moe;
    vkm_model *model;
    vkm_session *session;
    vkm_detokenizer *out[CHARACTERS];
    char text[CHARACTERS][4096];
};

/* The program's own device, as any renderer makes one. What vkmoe would like to be enabled on it comes as data: here it is all that is enabled; a renderer chains or merges its own features and extensions. */
static vkm_result make_device(struct program *p, vkm_error *err)
{
    const VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_2};
    const float priority = 1;
    VkPhysicalDevice all[8];
    uint32_t n = 8;
    if (vkCreateInstance(&(VkInstanceCreateInfo){.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application}, NULL, &p->instance) != VK_SUCCESS) return VKM_ERR_NO_DEVICE;
    if (vkEnumeratePhysicalDevices(p->instance, &n, all) < 0 || n == 0) return VKM_ERR_NO_DEVICE;
    vkm_import import = {.struct_size = sizeof import, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))vkGetInstanceProcAddr, .api_version = VK_API_VERSION_1_2, .instance = p->instance};
    for (uint32_t i = 0; i < n && !p->physical; i++) {
        import.physical_device = all[i];
        vkm_result r = vkm_wanted_create(&import, &p->wanted, err);
        if (r) return r;
        if (p->wanted->usable) p->physical = all[i];
        else vkm_wanted_destroy(p->wanted), p->wanted = NULL;
    }
    if (!p->physical) return VKM_ERR_NO_DEVICE;
    const vkm_wanted *w = p->wanted;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = w->queue_family, .queueCount = 1, .pQueuePriorities = &priority};
    const VkDeviceCreateInfo device = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = w->features, .queueCreateInfoCount = 1, .pQueueCreateInfos = &queue,
                                       .enabledExtensionCount = w->n_extensions, .ppEnabledExtensionNames = w->extensions};
    if (vkCreateDevice(p->physical, &device, NULL, &p->device) != VK_SUCCESS) return VKM_ERR_VULKAN;
    vkGetDeviceQueue(p->device, w->queue_family, 0, &p->queue);

    /* And vkmoe on it. It needs the queue to load the model and for what blocks; frames are submitted by this program. */
    import.device = p->device, import.queue = p->queue, import.queue_family = w->queue_family;
    import.features = w->features, import.extensions = w->extensions, import.n_extensions = w->n_extensions;
    return vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .import = &import}, &p->moe, err);
}

static vkm_result make_frames(struct program *p)
{
    const VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT, .queueFamilyIndex = p->wanted->queue_family};
    if (vkCreateCommandPool(p->device, &pool, NULL, &p->pool) != VK_SUCCESS) return VKM_ERR_VULKAN;
    const VkCommandBufferAllocateInfo buffers = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = p->pool, .commandBufferCount = IN_FLIGHT};
    if (vkAllocateCommandBuffers(p->device, &buffers, p->commands) != VK_SUCCESS) return VKM_ERR_VULKAN;
    const VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .flags = VK_FENCE_CREATE_SIGNALED_BIT};
    for (int i = 0; i < IN_FLIGHT; i++)
        if (vkCreateFence(p->device, &fence, NULL, &p->fences[i]) != VK_SUCCESS) return VKM_ERR_VULKAN;
    return VKM_OK;
}

/* The loading screen: model, session, and all the kernels that frames will need. Then something to say for everyone; more may be queued in any frame. */
static vkm_result load(struct program *p, const char *path, vkm_error *err)
{
    const vkm_session_params params = {.struct_size = sizeof params, .n_ctx = 256, .n_batch = 32, .n_seq = CHARACTERS};
    vkm_result r = vkm_model_load(p->moe, path, NULL, &p->model, err);
    if (!r) r = vkm_session_create(p->model, &params, &p->session, err);
    if (!r) r = vkm_session_prepare(p->session, 0, 0, err);
    for (uint32_t i = 0; !r && i < CHARACTERS; i++) {
        const vkm_tokenizer *tokenizer = vkm_model_tokenizer(p->model);
        const vkm_sampling_params sampling = {.struct_size = sizeof sampling, .temperature = 0.8f, .top_k = 40, .seed = i};
        const vkm_generation generation = {.struct_size = sizeof generation, .seq = i, .sampling = &sampling, .n_tokens = TOKENS};
        int32_t ids[64];
        size_t n = 64;
        if (!tokenizer) return VKM_ERR_UNSUPPORTED;
        r = vkm_tokenize(tokenizer, openings[i], strlen(openings[i]), VKM_TOKENIZE_SPECIAL, ids, &n, err);
        if (!r) r = vkm_detokenizer_create(tokenizer, false, &p->out[i], err);
        if (!r) r = vkm_session_queue_eval(p->session, i, ids, n, err);
        if (!r) r = vkm_session_queue_generate(p->session, &generation, err);
    }
    return r;
}

/* A token has arrived: it goes into its character's bubble. */
static bool on_token(void *user, uint32_t seq, int32_t token)
{
    struct program *p = user;
    const char *text;
    size_t n, used = strlen(p->text[seq]);
    if (vkm_detokenizer_push(p->out[seq], token, &text, &n, NULL) != VKM_OK || used + n >= sizeof p->text[seq]) return false;
    memcpy(p->text[seq] + used, text, n);
    return true;
}

int main(int argc, char **argv)
{
    struct program p = {0};
    vkm_error err = {0};
    const vkm_budget budget = {.struct_size = sizeof budget, .max_us = argc > 2 ? (uint32_t)atoi(argv[2]) : 4000};
    uint32_t most = argc > 3 ? (uint32_t)atoi(argv[3]) : 100000, frame = 0, over = 0, slices = 0;
    vkm_slice slice[IN_FLIGHT] = {{0}};
    double sum = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL.gguf [BUDGET_US] [FRAMES]\n", argv[0]);
        return 2;
    }
    vkm_result r = make_device(&p, &err);
    if (!r) r = make_frames(&p);
    if (!r) r = load(&p, argv[1], &err);
    for (bool busy = true; !r && busy && frame < most; frame++) {
        uint32_t i = frame % IN_FLIGHT;
        VkCommandBuffer commands = p.commands[i];

        /* What was submitted two frames ago is done: its tokens are there. */
        vkWaitForFences(p.device, 1, &p.fences[i], VK_TRUE, UINT64_MAX);
        vkResetFences(p.device, 1, &p.fences[i]);
        if ((r = vkm_session_completed(p.session, &slice[i], on_token, &p, &err))) break;
        if (slice[i].measured_us > 0) slices++, sum += slice[i].measured_us, over += slice[i].measured_us > budget.max_us;

        vkBeginCommandBuffer(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT});
        /* here the frame is drawn, with p.text in the bubbles */
        r = vkm_session_record(p.session, commands, &budget, &slice[i], &err);      /* outside of render passes; records only */
        vkEndCommandBuffer(commands);
        if (!r && vkQueueSubmit(p.queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands}, p.fences[i]) != VK_SUCCESS) r = VKM_ERR_VULKAN;

        busy = false;                                        /* a renderer would go on; this ends when all have said what they had to say */
        for (uint32_t c = 0; !r && c < CHARACTERS; c++) {
            vkm_sequence_status status;
            r = vkm_session_status(p.session, c, &status, &err);
            busy |= status.generating;
        }
    }
    if (p.device) vkDeviceWaitIdle(p.device);                /* before anything that frames use is destroyed */
    for (uint32_t c = 0; !r && c < CHARACTERS; c++) printf("%s%s\n\n", openings[c], p.text[c]);
    if (!r && slices) printf("%u frames, inference took %.0f us of %u a frame on average, more in %u of %u\n", frame, sum / slices, budget.max_us, over, slices);
    if (r) fprintf(stderr, "%s: %s\n", vkm_result_name(r), err.message);

    for (uint32_t c = 0; c < CHARACTERS; c++) vkm_detokenizer_destroy(p.out[c]);
    vkm_session_destroy(p.session);
    vkm_model_destroy(p.model);
    vkm_device_destroy(p.moe);
    vkm_wanted_destroy(p.wanted);
    for (int i = 0; i < IN_FLIGHT && p.device; i++) vkDestroyFence(p.device, p.fences[i], NULL);
    if (p.device) vkDestroyCommandPool(p.device, p.pool, NULL), vkDestroyDevice(p.device, NULL);
    if (p.instance) vkDestroyInstance(p.instance, NULL);
    return r != VKM_OK;
}
