/* Vulkan as a small renderer needs it: one device, one queue that draws and computes, two frames in flight, a window's images or one of our own to draw into. */
#ifndef ENGINE_GPU_H
#define ENGINE_GPU_H

#include <stdbool.h>
#include <stdint.h>
#include <vulkan/vulkan.h>
#include <vkmoe.h>

#define FRAMES 2
#define MOST_IMAGES 8

struct frame {
    VkCommandBuffer commands;
    VkFence done;
    VkSemaphore acquired;
    VkQueryPool times;               /* begin, drawing begins, end */
    VkBuffer quads;                  /* of this frame, mapped at `map` */
    VkDeviceMemory memory;
    void *map;
    bool submitted;
    double compute_ms, draw_ms;      /* GPU time of what was submitted last, once it has finished; negative: the queue has no timestamps */
};

struct gpu {
    struct GLFWwindow *window;       /* NULL: headless */
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    uint32_t validation_messages;
    VkPhysicalDevice physical;
    VkPhysicalDeviceProperties properties;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    VkPipelineCache pipeline_cache;
    vkm_wanted *wanted;              /* what the device was made with: extensions and features for vkmoe */
    vkm_import import;               /* the same for vkm_device_create */
    double tick_ms;                  /* of timestamps; 0: none */
    uint64_t tick_mask;

    VkSurfaceKHR surface;
    VkSwapchainKHR swapchain;
    VkFormat format;
    VkExtent2D size;
    VkRenderPass pass;
    uint32_t n_images, image;
    VkImage images[MOST_IMAGES];
    VkImageView views[MOST_IMAGES];
    VkFramebuffer framebuffers[MOST_IMAGES];
    VkSemaphore drawn[MOST_IMAGES];
    VkDeviceMemory image_memory;     /* headless */

    VkCommandPool pool;
    struct frame frames[FRAMES];
    uint64_t n_frames;
};

struct gpu_params {
    const char *title, *device;      /* device: index or part of a name; NULL: the best that vkmoe can use */
    uint32_t width, height;
    bool headless, validation;
    uint64_t quad_bytes;             /* of each frame's buffer */
};

/* These end the program with a message if something fails: what an engine does then is its own affair. */
void gpu_open(struct gpu *g, const struct gpu_params *params);
void gpu_close(struct gpu *g);

struct frame *gpu_next(struct gpu *g);       /* waits until the frame that is to be used again has left the GPU, and takes its times */
bool gpu_begin(struct gpu *g, struct frame *f);              /* begins its commands. False: there is nothing to draw into now */
void gpu_begin_drawing(struct gpu *g, struct frame *f);      /* what was recorded before counts as compute */
void gpu_end(struct gpu *g, struct frame *f);                /* ends drawing, submits, presents */
/* Headless: the last image as RGB bytes [height][width][3], to be freed. */
uint8_t *gpu_read(struct gpu *g);

/* Memory for what one buffer or image needs, of a kind that the host can map or not. */
VkDeviceMemory gpu_allocate(const struct gpu *g, VkMemoryRequirements needs, bool host, void **map);
VkBuffer gpu_buffer(const struct gpu *g, VkDeviceSize bytes, VkBufferUsageFlags usage, VkDeviceMemory *memory, void **map);
/* Commands that are run at once and waited for: uploads, downloads. */
VkCommandBuffer gpu_once_begin(struct gpu *g);
void gpu_once_end(struct gpu *g, VkCommandBuffer commands);

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define VK(call) do { VkResult vk_ = (call); if (vk_ < 0) die("%s: VkResult %d", #call, vk_); } while (0)
#define MUST(call) do { vkm_result must_ = (call); if (must_ != VKM_OK) die("%s", err.message[0] ? err.message : vkm_result_text(must_)); } while (0)   /* with a vkm_error err in reach */

#endif
