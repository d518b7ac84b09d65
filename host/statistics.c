/* What the driver's compiler says of the pipelines it made: VK_KHR_pipeline_executable_properties. */
#include "internal.h"
#include <stdlib.h>

bool vkm_kernels_keep_statistics(vkm_device *device) { return device->statistics = device->caps.pipeline_statistics; }

static double value_of(const VkPipelineExecutableStatisticKHR *s)
{
    switch (s->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: return s->value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:  return (double)s->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: return (double)s->value.u64;
    default:                                                 return s->value.f64;
    }
}

static VkResult tell_executable(vkm_device *device, const struct vkm_kernel *k, uint32_t index, const VkPipelineExecutablePropertiesKHR *executable, vkm_statistic_fn fn, void *user)
{
    VkPipelineExecutableInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = k->pipeline, .executableIndex = index};
    uint32_t n = 0;
    VkResult r = device->vk.vkGetPipelineExecutableStatisticsKHR(device->handle, &which, &n, NULL);
    if (r != VK_SUCCESS || !n) return r;
    VkPipelineExecutableStatisticKHR *all = calloc(n, sizeof *all);
    if (!all) return VK_ERROR_OUT_OF_HOST_MEMORY;
    for (uint32_t i = 0; i < n; i++) all[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    r = device->vk.vkGetPipelineExecutableStatisticsKHR(device->handle, &which, &n, all);
    for (uint32_t i = 0; r == VK_SUCCESS && i < n; i++) fn(user, k, executable->subgroupSize, all[i].name, value_of(&all[i]));
    free(all);
    return r;
}

static VkResult tell_kernel(vkm_device *device, const struct vkm_kernel *k, vkm_statistic_fn fn, void *user)
{
    VkPipelineInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = k->pipeline};
    uint32_t n = 0;
    VkResult r = device->vk.vkGetPipelineExecutablePropertiesKHR(device->handle, &which, &n, NULL);
    if (r != VK_SUCCESS || !n) return r;
    VkPipelineExecutablePropertiesKHR *all = calloc(n, sizeof *all);
    if (!all) return VK_ERROR_OUT_OF_HOST_MEMORY;
    for (uint32_t i = 0; i < n; i++) all[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    r = device->vk.vkGetPipelineExecutablePropertiesKHR(device->handle, &which, &n, all);
    for (uint32_t i = 0; r == VK_SUCCESS && i < n; i++) r = tell_executable(device, k, i, &all[i], fn, user);
    free(all);
    return r;
}

vkm_result vkm_kernels_statistics(vkm_device *device, vkm_statistic_fn fn, void *user, vkm_error *err)
{
    vkm_result alive = vkm_device_alive(device, err);
    if (alive) return alive;
    if (!device->statistics) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "%s keeps no statistics of kernels (VK_KHR_pipeline_executable_properties)", device->caps.device_name);
    for (uint32_t i = 0; i < device->n_kernel_slots; i++) {
        const struct vkm_kernel *k = device->kernels[i];
        if (!k || !k->pipeline) continue;
        VkResult r = tell_kernel(device, k, fn, user);
        if (r != VK_SUCCESS) return vkm_fail_vk(device, err, r, "reading the statistics of kernel %s %s", k->module->name, k->variant);
    }
    return VKM_OK;
}
