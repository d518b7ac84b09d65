/* The device, made for drawing and for vkmoe, and the frames. */
#include "gpu.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef ENGINE_WINDOW
#  include <GLFW/glfw3.h>
#endif

void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("engine: ", stderr);
    vfprintf(stderr, format, list);
    putc('\n', stderr);
    va_end(list);
    exit(1);
}

/* ---------------------------------------------------------------- instance and device */

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT types, const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    struct gpu *g = user;
    (void)severity, (void)types;
    if (strstr(data->pMessage, "pName is trying to grab")) return VK_FALSE;    /* newer layers, of functions that vkmoe only looks up */
    g->validation_messages++;
    fprintf(stderr, "validation: %s\n", data->pMessage);
    return VK_FALSE;
}

static void create_instance(struct gpu *g, const struct gpu_params *p)
{
    const char *extensions[16];
    uint32_t n = 0;
#ifdef ENGINE_WINDOW
    if (!p->headless) {
        const char **needed = glfwGetRequiredInstanceExtensions(&n);
        if (!needed || n > 15) die("no way from Vulkan to a window: try --headless");
        memcpy(extensions, needed, n * sizeof *extensions);
    }
#endif
    if (p->validation) extensions[n++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    const VkDebugUtilsMessengerCreateInfoEXT messages = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT, .pfnUserCallback = on_message, .pUserData = g};
    VK(vkCreateInstance(&(VkInstanceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pNext = p->validation ? &messages : NULL,
        .pApplicationInfo = &(VkApplicationInfo){.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .pApplicationName = p->title, .apiVersion = VK_API_VERSION_1_3},
        .enabledLayerCount = p->validation, .ppEnabledLayerNames = (const char *[]){"VK_LAYER_KHRONOS_validation"},
        .enabledExtensionCount = n, .ppEnabledExtensionNames = extensions}, NULL, &g->instance));
    if (!p->validation) return;
    PFN_vkCreateDebugUtilsMessengerEXT create = (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(g->instance, "vkCreateDebugUtilsMessengerEXT");
    VK(create(g->instance, &messages, NULL, &g->messenger));
}

/* A family that draws, computes and, with a window, presents; UINT32_MAX if there is none. */
static uint32_t find_family(const struct gpu *g, VkPhysicalDevice physical)
{
    VkQueueFamilyProperties families[16];
    uint32_t n = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families);
    for (uint32_t i = 0; i < n; i++) {
        VkBool32 presents = VK_TRUE;
        if (g->surface) VK(vkGetPhysicalDeviceSurfaceSupportKHR(physical, i, g->surface, &presents));
        if (presents && (families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT) && (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)) return i;
    }
    return UINT32_MAX;
}

static int rank(VkPhysicalDeviceType type)
{
    static const VkPhysicalDeviceType order[] = {VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU};
    int i = 0;
    while (i < 3 && order[i] != type) i++;
    return i;
}

static bool is_selected(const char *wanted, uint32_t index, const char *name)
{
    char *end;
    if (!wanted) return true;
    unsigned long number = strtoul(wanted, &end, 10);
    return *wanted && !*end ? number == index : strstr(name, wanted) != NULL;
}

/* The best physical device that can draw and that vkmoe can use, and what vkmoe would like of it. */
static void choose_device(struct gpu *g, const struct gpu_params *p)
{
    VkPhysicalDevice all[16];
    uint32_t n = 16;
    vkm_error err = {0};
    char why[192] = "there is none";
    VK(vkEnumeratePhysicalDevices(g->instance, &n, all));
    for (uint32_t i = 0; i < n; i++) {
        VkPhysicalDeviceProperties properties;
        vkGetPhysicalDeviceProperties(all[i], &properties);
        uint32_t family = find_family(g, all[i]);
        if (!is_selected(p->device, i, properties.deviceName) || (g->wanted && rank(properties.deviceType) >= rank(g->properties.deviceType))) continue;
        vkm_wanted *wanted;
        const vkm_import of = {.struct_size = sizeof of, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))vkGetInstanceProcAddr, .api_version = VK_API_VERSION_1_3,
                               .instance = g->instance, .physical_device = all[i]};
        MUST(vkm_wanted_create(&of, &wanted, &err));
        if (family == UINT32_MAX || !wanted->usable) {
            snprintf(why, sizeof why, "%.60s: %s", properties.deviceName, wanted->usable ? "no queue that draws and computes" : wanted->unusable_why);
            vkm_wanted_destroy(wanted);
            continue;
        }
        vkm_wanted_destroy(g->wanted);
        g->wanted = wanted;
        g->import = of;
        g->physical = all[i];
        g->properties = properties;
        g->family = family;
    }
    if (!g->wanted) die("no device for drawing and inference (%s)", why);
}

/* One device for both: vkmoe's features as they are, since drawing needs none, and vkmoe's extensions with our own. */
static void create_device(struct gpu *g)
{
    uint32_t n = g->wanted->n_extensions;
    const char **extensions = malloc((n + 1) * sizeof *extensions);
    if (!extensions) die("out of memory");
    memcpy(extensions, g->wanted->extensions, n * sizeof *extensions);
    if (g->window) extensions[n++] = VK_KHR_SWAPCHAIN_EXTENSION_NAME;
    VK(vkCreateDevice(g->physical, &(VkDeviceCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = g->wanted->features, .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &(VkDeviceQueueCreateInfo){.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = g->family, .queueCount = 1, .pQueuePriorities = &(float){1}},
        .enabledExtensionCount = n, .ppEnabledExtensionNames = extensions}, NULL, &g->device));
    free(extensions);
    vkGetDeviceQueue(g->device, g->family, 0, &g->queue);
    VK(vkCreatePipelineCache(g->device, &(VkPipelineCacheCreateInfo){.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO}, NULL, &g->pipeline_cache));
    g->import.device = g->device;
    g->import.queue = g->queue;
    g->import.queue_family = g->family;
    g->import.features = g->wanted->features;
    g->import.extensions = g->wanted->extensions;
    g->import.n_extensions = g->wanted->n_extensions;
    g->import.pipeline_cache = (uint64_t)g->pipeline_cache;

    VkQueueFamilyProperties families[16];
    uint32_t n_families = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(g->physical, &n_families, families);
    uint32_t bits = families[g->family].timestampValidBits;
    g->tick_ms = bits ? (double)g->properties.limits.timestampPeriod * 1e-6 : 0;
    g->tick_mask = bits >= 64 ? UINT64_MAX : (1ull << bits) - 1;
}

/* ---------------------------------------------------------------- memory */

VkDeviceMemory gpu_allocate(const struct gpu *g, VkMemoryRequirements needs, bool host, void **map)
{
    VkPhysicalDeviceMemoryProperties memory;
    vkGetPhysicalDeviceMemoryProperties(g->physical, &memory);
    const VkMemoryPropertyFlags flags = host ? VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT : VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    for (uint32_t i = 0; i < memory.memoryTypeCount; i++) {
        if (!(needs.memoryTypeBits >> i & 1) || (memory.memoryTypes[i].propertyFlags & flags) != flags) continue;
        VkDeviceMemory made;
        VK(vkAllocateMemory(g->device, &(VkMemoryAllocateInfo){.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .allocationSize = needs.size, .memoryTypeIndex = i}, NULL, &made));
        if (host) VK(vkMapMemory(g->device, made, 0, VK_WHOLE_SIZE, 0, map));
        return made;
    }
    die("the device has no memory for %llu bytes of that kind", (unsigned long long)needs.size);
}

VkBuffer gpu_buffer(const struct gpu *g, VkDeviceSize bytes, VkBufferUsageFlags usage, VkDeviceMemory *memory, void **map)
{
    VkBuffer buffer;
    VkMemoryRequirements needs;
    VK(vkCreateBuffer(g->device, &(VkBufferCreateInfo){.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = bytes, .usage = usage}, NULL, &buffer));
    vkGetBufferMemoryRequirements(g->device, buffer, &needs);
    *memory = gpu_allocate(g, needs, true, map);
    VK(vkBindBufferMemory(g->device, buffer, *memory, 0));
    return buffer;
}

VkCommandBuffer gpu_once_begin(struct gpu *g)
{
    VkCommandBuffer commands;
    VK(vkAllocateCommandBuffers(g->device, &(VkCommandBufferAllocateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = g->pool, .commandBufferCount = 1}, &commands));
    VK(vkBeginCommandBuffer(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT}));
    return commands;
}

void gpu_once_end(struct gpu *g, VkCommandBuffer commands)
{
    VK(vkEndCommandBuffer(commands));
    VK(vkQueueSubmit(g->queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands}, VK_NULL_HANDLE));
    VK(vkQueueWaitIdle(g->queue));
    vkFreeCommandBuffers(g->device, g->pool, 1, &commands);
}

/* ---------------------------------------------------------------- what is drawn into */

static void create_pass(struct gpu *g)
{
    const VkAttachmentDescription colour = {.format = g->format, .samples = VK_SAMPLE_COUNT_1_BIT, .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR, .storeOp = VK_ATTACHMENT_STORE_OP_STORE,
        .stencilLoadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE, .stencilStoreOp = VK_ATTACHMENT_STORE_OP_DONT_CARE, .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED,
        .finalLayout = g->window ? VK_IMAGE_LAYOUT_PRESENT_SRC_KHR : VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL};
    const VkAttachmentReference target = {.attachment = 0, .layout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    const VkSubpassDescription subpass = {.pipelineBindPoint = VK_PIPELINE_BIND_POINT_GRAPHICS, .colorAttachmentCount = 1, .pColorAttachments = &target};
    const VkSubpassDependency before = {.srcSubpass = VK_SUBPASS_EXTERNAL, .srcStageMask = VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, .dstStageMask = VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT,
                                        .srcAccessMask = VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT, .dstAccessMask = VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT};
    VK(vkCreateRenderPass(g->device, &(VkRenderPassCreateInfo){.sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO, .attachmentCount = 1, .pAttachments = &colour,
        .subpassCount = 1, .pSubpasses = &subpass, .dependencyCount = 1, .pDependencies = &before}, NULL, &g->pass));
}

static void create_framebuffers(struct gpu *g)
{
    for (uint32_t i = 0; i < g->n_images; i++) {
        VK(vkCreateImageView(g->device, &(VkImageViewCreateInfo){.sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO, .image = g->images[i], .viewType = VK_IMAGE_VIEW_TYPE_2D, .format = g->format,
            .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1}}, NULL, &g->views[i]));
        VK(vkCreateFramebuffer(g->device, &(VkFramebufferCreateInfo){.sType = VK_STRUCTURE_TYPE_FRAMEBUFFER_CREATE_INFO, .renderPass = g->pass, .attachmentCount = 1, .pAttachments = &g->views[i],
            .width = g->size.width, .height = g->size.height, .layers = 1}, NULL, &g->framebuffers[i]));
        VK(vkCreateSemaphore(g->device, &(VkSemaphoreCreateInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO}, NULL, &g->drawn[i]));
    }
}

static void destroy_framebuffers(struct gpu *g)
{
    for (uint32_t i = 0; i < g->n_images; i++) {
        vkDestroySemaphore(g->device, g->drawn[i], NULL);
        vkDestroyFramebuffer(g->device, g->framebuffers[i], NULL);
        vkDestroyImageView(g->device, g->views[i], NULL);
    }
    g->n_images = 0;
}

static void create_image(struct gpu *g)
{
    VkMemoryRequirements needs;
    VK(vkCreateImage(g->device, &(VkImageCreateInfo){.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO, .imageType = VK_IMAGE_TYPE_2D, .format = g->format, .extent = {g->size.width, g->size.height, 1},
        .mipLevels = 1, .arrayLayers = 1, .samples = VK_SAMPLE_COUNT_1_BIT, .tiling = VK_IMAGE_TILING_OPTIMAL, .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT}, NULL, &g->images[0]));
    vkGetImageMemoryRequirements(g->device, g->images[0], &needs);
    g->image_memory = gpu_allocate(g, needs, false, NULL);
    VK(vkBindImageMemory(g->device, g->images[0], g->image_memory, 0));
    g->n_images = 1;
    create_framebuffers(g);
}

#ifdef ENGINE_WINDOW
/* 8 bits a channel that are written as they are: colours are mixed as they were chosen. */
static void choose_format(struct gpu *g)
{
    VkSurfaceFormatKHR formats[64];
    uint32_t n = 64;
    VK(vkGetPhysicalDeviceSurfaceFormatsKHR(g->physical, g->surface, &n, formats));
    g->format = formats[0].format;
    for (uint32_t i = n; i-- > 0;)
        if (formats[i].format == VK_FORMAT_B8G8R8A8_UNORM || formats[i].format == VK_FORMAT_R8G8B8A8_UNORM) g->format = formats[i].format;
}

/* False: the window has no area. */
static bool create_swapchain(struct gpu *g)
{
    VkSurfaceCapabilitiesKHR caps;
    VkSwapchainKHR old = g->swapchain;
    VK(vkDeviceWaitIdle(g->device));
    destroy_framebuffers(g);
    VK(vkGetPhysicalDeviceSurfaceCapabilitiesKHR(g->physical, g->surface, &caps));
    int width, height;
    glfwGetFramebufferSize(g->window, &width, &height);
    g->size = caps.currentExtent.width != UINT32_MAX ? caps.currentExtent : (VkExtent2D){(uint32_t)width, (uint32_t)height};
    if (!g->size.width || !g->size.height) return false;
    uint32_t n = caps.minImageCount + 1;
    if (caps.maxImageCount && n > caps.maxImageCount) n = caps.maxImageCount;
    VK(vkCreateSwapchainKHR(g->device, &(VkSwapchainCreateInfoKHR){.sType = VK_STRUCTURE_TYPE_SWAPCHAIN_CREATE_INFO_KHR, .surface = g->surface, .minImageCount = n, .imageFormat = g->format,
        .imageColorSpace = VK_COLOR_SPACE_SRGB_NONLINEAR_KHR, .imageExtent = g->size, .imageArrayLayers = 1, .imageUsage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, .preTransform = caps.currentTransform,
        .compositeAlpha = caps.supportedCompositeAlpha & VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR ? VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR : VK_COMPOSITE_ALPHA_INHERIT_BIT_KHR,
        .presentMode = VK_PRESENT_MODE_FIFO_KHR, .clipped = VK_TRUE, .oldSwapchain = old}, NULL, &g->swapchain));
    vkDestroySwapchainKHR(g->device, old, NULL);
    VK(vkGetSwapchainImagesKHR(g->device, g->swapchain, &g->n_images, NULL));
    if (g->n_images > MOST_IMAGES) die("the window has %u images", g->n_images);
    VK(vkGetSwapchainImagesKHR(g->device, g->swapchain, &g->n_images, g->images));
    create_framebuffers(g);
    return true;
}

/* The next image of the window; false: the swapchain no longer fits it, or has no image now. */
static bool acquire(struct gpu *g, VkSemaphore acquired)
{
    VkResult r = g->n_images ? vkAcquireNextImageKHR(g->device, g->swapchain, UINT64_MAX, acquired, VK_NULL_HANDLE, &g->image) : VK_ERROR_OUT_OF_DATE_KHR;
    if (r == VK_ERROR_OUT_OF_DATE_KHR) {
        create_swapchain(g);
        return false;
    }
    VK(r);
    return true;
}

static void present(struct gpu *g)
{
    VkResult r = vkQueuePresentKHR(g->queue, &(VkPresentInfoKHR){.sType = VK_STRUCTURE_TYPE_PRESENT_INFO_KHR, .waitSemaphoreCount = 1, .pWaitSemaphores = &g->drawn[g->image],
        .swapchainCount = 1, .pSwapchains = &g->swapchain, .pImageIndices = &g->image});
    if (r == VK_ERROR_OUT_OF_DATE_KHR || r == VK_SUBOPTIMAL_KHR) create_swapchain(g);
    else VK(r);
}
#endif

/* ---------------------------------------------------------------- opening and closing */

void gpu_open(struct gpu *g, const struct gpu_params *p)
{
    *g = (struct gpu){.size = {p->width, p->height}, .format = VK_FORMAT_R8G8B8A8_UNORM};
#ifdef ENGINE_WINDOW
    if (!p->headless) {
        if (!glfwInit() || !glfwVulkanSupported()) die("no window system with Vulkan: try --headless");
        glfwWindowHint(GLFW_CLIENT_API, GLFW_NO_API);
        g->window = glfwCreateWindow((int)p->width, (int)p->height, p->title, NULL, NULL);
        if (!g->window) die("no window can be opened: try --headless");
    }
#endif
    create_instance(g, p);
#ifdef ENGINE_WINDOW
    if (g->window) VK(glfwCreateWindowSurface(g->instance, g->window, NULL, &g->surface));
#endif
    choose_device(g, p);
    create_device(g);
    VK(vkCreateCommandPool(g->device, &(VkCommandPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = g->family}, NULL, &g->pool));
#ifdef ENGINE_WINDOW
    if (g->window) choose_format(g);
#endif
    create_pass(g);
    if (!g->window) create_image(g);
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct frame *f = &g->frames[i];
        VK(vkAllocateCommandBuffers(g->device, &(VkCommandBufferAllocateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = g->pool, .commandBufferCount = 1}, &f->commands));
        VK(vkCreateFence(g->device, &(VkFenceCreateInfo){.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO}, NULL, &f->done));
        VK(vkCreateSemaphore(g->device, &(VkSemaphoreCreateInfo){.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO}, NULL, &f->acquired));
        if (g->tick_ms > 0) VK(vkCreateQueryPool(g->device, &(VkQueryPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, .queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = 3}, NULL, &f->times));
        f->quads = gpu_buffer(g, p->quad_bytes, VK_BUFFER_USAGE_VERTEX_BUFFER_BIT, &f->memory, &f->map);
    }
}

void gpu_close(struct gpu *g)
{
    VK(vkDeviceWaitIdle(g->device));
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct frame *f = &g->frames[i];
        vkDestroyBuffer(g->device, f->quads, NULL);
        vkFreeMemory(g->device, f->memory, NULL);
        vkDestroyQueryPool(g->device, f->times, NULL);
        vkDestroySemaphore(g->device, f->acquired, NULL);
        vkDestroyFence(g->device, f->done, NULL);
    }
    destroy_framebuffers(g);
    if (!g->window) vkDestroyImage(g->device, g->images[0], NULL);
    vkFreeMemory(g->device, g->image_memory, NULL);
    vkDestroyRenderPass(g->device, g->pass, NULL);
    if (g->swapchain) vkDestroySwapchainKHR(g->device, g->swapchain, NULL);
    vkDestroyCommandPool(g->device, g->pool, NULL);
    vkDestroyPipelineCache(g->device, g->pipeline_cache, NULL);
    vkDestroyDevice(g->device, NULL);
    vkm_wanted_destroy(g->wanted);
    if (g->surface) vkDestroySurfaceKHR(g->instance, g->surface, NULL);
    if (g->messenger) ((PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(g->instance, "vkDestroyDebugUtilsMessengerEXT"))(g->instance, g->messenger, NULL);
    vkDestroyInstance(g->instance, NULL);
#ifdef ENGINE_WINDOW
    if (g->window) {
        glfwDestroyWindow(g->window);
        glfwTerminate();
    }
#endif
}

/* ---------------------------------------------------------------- frames */

static void stamp(const struct gpu *g, const struct frame *f, VkPipelineStageFlagBits stage, uint32_t i)
{
    if (g->tick_ms > 0) vkCmdWriteTimestamp(f->commands, stage, f->times, i);
}

struct frame *gpu_next(struct gpu *g)
{
    struct frame *f = &g->frames[g->n_frames % FRAMES];
    f->compute_ms = f->draw_ms = -1;
    if (!f->submitted) return f;
    VK(vkWaitForFences(g->device, 1, &f->done, VK_TRUE, UINT64_MAX));
    VK(vkResetFences(g->device, 1, &f->done));
    f->submitted = false;
    uint64_t t[3];
    if (g->tick_ms > 0 && vkGetQueryPoolResults(g->device, f->times, 0, 3, sizeof t, t, sizeof *t, VK_QUERY_RESULT_64_BIT) == VK_SUCCESS) {
        f->compute_ms = (double)((t[1] - t[0]) & g->tick_mask) * g->tick_ms;
        f->draw_ms = (double)((t[2] - t[1]) & g->tick_mask) * g->tick_ms;
    }
    return f;
}

bool gpu_begin(struct gpu *g, struct frame *f)
{
#ifdef ENGINE_WINDOW
    if (g->window && !acquire(g, f->acquired)) return false;
#endif
    VK(vkBeginCommandBuffer(f->commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT}));
    if (g->tick_ms > 0) vkCmdResetQueryPool(f->commands, f->times, 0, 3);
    stamp(g, f, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, 0);
    return true;
}

void gpu_begin_drawing(struct gpu *g, struct frame *f)
{
    stamp(g, f, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 1);
    vkCmdBeginRenderPass(f->commands, &(VkRenderPassBeginInfo){.sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO, .renderPass = g->pass, .framebuffer = g->framebuffers[g->image],
        .renderArea = {.extent = g->size}, .clearValueCount = 1, .pClearValues = &(VkClearValue){.color.float32 = {0, 0, 0, 1}}}, VK_SUBPASS_CONTENTS_INLINE);
}

void gpu_end(struct gpu *g, struct frame *f)
{
    vkCmdEndRenderPass(f->commands);
    stamp(g, f, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 2);
    VK(vkEndCommandBuffer(f->commands));
    VK(vkQueueSubmit(g->queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .waitSemaphoreCount = g->window != NULL, .pWaitSemaphores = &f->acquired,
        .pWaitDstStageMask = &(VkPipelineStageFlags){VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT}, .commandBufferCount = 1, .pCommandBuffers = &f->commands,
        .signalSemaphoreCount = g->window != NULL, .pSignalSemaphores = &g->drawn[g->image]}, f->done));
    f->submitted = true;
    g->n_frames++;
#ifdef ENGINE_WINDOW
    if (g->window) present(g);
#endif
}

uint8_t *gpu_read(struct gpu *g)
{
    size_t n = (size_t)g->size.width * g->size.height;
    uint8_t *rgb = malloc(n * 3);
    if (!rgb) die("out of memory");
    VkDeviceMemory memory;
    void *map;
    VkBuffer buffer = gpu_buffer(g, n * 4, VK_BUFFER_USAGE_TRANSFER_DST_BIT, &memory, &map);
    VkCommandBuffer commands = gpu_once_begin(g);
    const VkMemoryBarrier drawn = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT, .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT};
    const VkMemoryBarrier copied = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT, .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1, &drawn, 0, NULL, 0, NULL);
    vkCmdCopyImageToBuffer(commands, g->images[0], VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, buffer, 1,
                           &(VkBufferImageCopy){.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = {g->size.width, g->size.height, 1}});
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &copied, 0, NULL, 0, NULL);
    gpu_once_end(g, commands);
    const uint8_t *rgba = map;
    for (size_t i = 0; i < n; i++) memcpy(rgb + 3 * i, rgba + 4 * i, 3);
    vkDestroyBuffer(g->device, buffer, NULL);
    vkFreeMemory(g->device, memory, NULL);
    return rgb;
}
