/* A program with a Vulkan device of its own, that hands it to vkmoe and goes on using it. Its Vulkan functions come from volk (ENGINE_VOLK) or from the loader it is linked with.
 *   engine MODEL.gguf */
#include <stdio.h>
#include <vkmoe.h>
#ifdef ENGINE_VOLK
#  include <volk.h>
#else
#  include <vulkan/vulkan.h>
#endif

static void count(void *user) { ++*(unsigned *)user; }
static void nothing(void *user) { (void)user; }

#define VK(call) do { VkResult r_ = (call); if (r_ != VK_SUCCESS) { fprintf(stderr, "%s gave %d\n", #call, r_); return 1; } } while (0)
#define VKM(call) do { if ((call) != VKM_OK) { fprintf(stderr, "%s: %s\n", #call, err.message); return 1; } } while (0)

int main(int argc, char **argv)
{
    vkm_error err = {0};
#ifdef ENGINE_VOLK
    VK(volkInitialize());
#endif
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_2};
    VkInstanceCreateInfo instance_info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application};
    VkInstance instance;
    VK(vkCreateInstance(&instance_info, NULL, &instance));
#ifdef ENGINE_VOLK
    volkLoadInstance(instance);
#endif
    VkPhysicalDevice physical;
    uint32_t n = 1;
    if (vkEnumeratePhysicalDevices(instance, &n, &physical) < 0 || n == 0) return fprintf(stderr, "no device\n"), 1;

    /* what vkmoe can use of the device, enabled */
    vkm_import import = {.struct_size = sizeof import, .get_instance_proc_addr = (vkm_void_fn (*)(void *, const char *))vkGetInstanceProcAddr, .api_version = VK_API_VERSION_1_2,
                         .instance = instance, .physical_device = physical};
    vkm_wanted *wanted;
    VKM(vkm_wanted_create(&import, &wanted, &err));
    if (!wanted->usable) return fprintf(stderr, "%s\n", wanted->unusable_why), 1;
    float priority = 1;
    VkDeviceQueueCreateInfo queue_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueFamilyIndex = wanted->queue_family, .queueCount = 1, .pQueuePriorities = &priority};
    VkDeviceCreateInfo device_info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .pNext = wanted->features, .queueCreateInfoCount = 1, .pQueueCreateInfos = &queue_info,
                                      .enabledExtensionCount = wanted->n_extensions, .ppEnabledExtensionNames = wanted->extensions};
    VkDevice device;
    VK(vkCreateDevice(physical, &device_info, NULL, &device));
#ifdef ENGINE_VOLK
    volkLoadDevice(device);              /* the global pointers are this device's from here on */
#endif
    VkQueue queue;
    vkGetDeviceQueue(device, wanted->queue_family, 0, &queue);

    /* vkmoe on it, submitting: a model is uploaded through buffers, also where all of the device's memory could be written directly */
    unsigned submitted = 0;
    import.device = device, import.queue = queue, import.queue_family = wanted->queue_family, import.features = wanted->features;
    import.extensions = wanted->extensions, import.n_extensions = wanted->n_extensions;
    import.lock = count, import.unlock = nothing, import.lock_user = &submitted;
    vkm_device_params params = {.struct_size = sizeof params, .import = &import, .caps = "baseline,staged"};
    vkm_device *moe;
    vkm_model *model;
    VKM(vkm_device_create(&params, &moe, &err));
    VKM(vkm_model_load(moe, argc > 1 ? argv[1] : "", NULL, &model, &err));
    if (submitted == 0) return fprintf(stderr, "nothing was submitted\n"), 1;

    /* and the program's own submissions, meanwhile and afterwards */
    VkFence fence;
    VkFenceCreateInfo fence_info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VK(vkCreateFence(device, &fence_info, NULL, &fence));
    VK(vkQueueSubmit(queue, 0, NULL, fence));
    VK(vkWaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX));
    vkm_model_destroy(model);
    vkm_device_destroy(moe);
    vkm_wanted_destroy(wanted);
    VK(vkResetFences(device, 1, &fence));
    VK(vkQueueSubmit(queue, 0, NULL, fence));
    VK(vkWaitForFences(device, 1, &fence, VK_TRUE, UINT64_MAX));
    vkDestroyFence(device, fence, NULL);
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    printf("%u submissions of vkmoe on a device of the program's\n", submitted);
    return 0;
}
