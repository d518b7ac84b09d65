/* The caps record: filled from a physical device, clamped by a string, printed. */
#include "internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KV_SLABS_MAX 16
#define SLABS_MAX 240
#define RANGE_UNIT 4096

static uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static bool offered(const VkExtensionProperties *extensions, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(extensions[i].extensionName, name)) return true;
    return false;
}

/* Leaves those that the caller has enabled. */
static uint32_t enabled_of(VkExtensionProperties *extensions, uint32_t n, const vkm_import *import)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < import->n_extensions; k++)
            if (!strcmp(extensions[i].extensionName, import->extensions[k])) { extensions[left++] = extensions[i]; break; }
    return left;
}

/* One set holds the workspace, the tables, and as many slabs as are left; a quarter of those for the KV cache. */
static void split_slabs(struct vkm_caps *caps, const VkPhysicalDeviceLimits *limits)
{
    uint32_t n = min_u32(limits->maxPerStageDescriptorStorageBuffers, limits->maxDescriptorSetStorageBuffers);
    n = min_u32(n, limits->maxPerStageResources);
    n = n > 4 ? n - 2 : 2;   /* Vulkan promises 4 */
    caps->kv_slabs = n / 4 < 1 ? 1 : min_u32(n / 4, KV_SLABS_MAX);
    caps->slabs = min_u32(n - caps->kv_slabs, SLABS_MAX);
}

static void fill_memory(struct vkm_offer *o)
{
    struct vkm_caps *caps = &o->caps;
    bool all_visible = true;
    for (uint32_t i = 0; i < o->memory.memoryTypeCount; i++) {
        const VkMemoryType *type = &o->memory.memoryTypes[i];
        if ((type->propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) && !(type->propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)) all_visible = false;
    }
    for (uint32_t i = 0; i < o->memory.memoryHeapCount; i++) {
        const VkMemoryHeap *heap = &o->memory.memoryHeaps[i];
        if ((heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) && heap->size > caps->heap_bytes) {
            caps->heap_bytes = heap->size;
            o->largest_heap = i;
        }
    }
    caps->unified_memory = caps->type == VKM_TYPE_INTEGRATED || caps->type == VKM_TYPE_CPU || all_visible;
}

/* A queue family that computes and nothing else does not compete with the desktop; else any that computes. Timestamps first. */
static bool fill_queue(const struct vkm_instance *instance, const vkm_import *import, struct vkm_offer *o, float period)
{
    VkQueueFamilyProperties families[32];
    uint32_t n = VKM_COUNT(families), best = 0;
    instance->vkGetPhysicalDeviceQueueFamilyProperties(o->physical, &n, families);
    for (uint32_t i = 0; i < n; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || !families[i].queueCount || (import && i != import->queue_family)) continue;
        uint32_t score = 1 + (families[i].timestampValidBits ? 2u : 0u) + (families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT ? 0u : 1u);
        if (score <= best) continue;
        best = score;
        o->queue_family = i;
        o->caps.timestamp_bits = families[i].timestampValidBits;
        o->caps.timestamp_ns = families[i].timestampValidBits ? period : 0;
    }
    return best > 0;
}

uint32_t vkm_caps_able(const struct vkm_caps *caps)
{
    return VKM_TIER_BIT(VKM_TIER_BASELINE) | (caps->subgroup ? VKM_TIER_BIT(VKM_TIER_SUBGROUP) : 0) | (caps->subgroup && caps->fp16 ? VKM_TIER_BIT(VKM_TIER_FP16) : 0) |
           (caps->int8dot ? VKM_TIER_BIT(VKM_TIER_INT8DOT) : 0) | (caps->subgroup && caps->coopmat ? VKM_TIER_BIT(VKM_TIER_COOPMAT) : 0);
}

/* What is above subgroup gives up exactness (NMSE from 1e-6 to 1e-3 for 1e-12), and that it pays has to be measured on the device (CPU drivers emulate it): only when asked for. */
static void set_tiers(struct vkm_caps *caps)
{
    caps->tiers = vkm_caps_able(caps) & (VKM_TIER_BIT(VKM_TIER_BASELINE) | VKM_TIER_BIT(VKM_TIER_SUBGROUP) | caps->asked);
}

/* A build with an old glslang has no module of some tiers. */
static bool built(enum vkm_tier tier)
{
    for (size_t i = 0; i < vkm_module_count; i++)
        if (vkm_modules[i].tier == tier && vkm_modules[i].code) return true;
    return false;
}

static const char *component_name(VkComponentTypeKHR type)
{
    switch ((int)type) {
    case VK_COMPONENT_TYPE_FLOAT16_KHR: return "f16";
    case VK_COMPONENT_TYPE_FLOAT32_KHR: return "f32";
    case VK_COMPONENT_TYPE_SINT8_KHR: return "s8";
    case VK_COMPONENT_TYPE_SINT32_KHR: return "s32";
    case VK_COMPONENT_TYPE_UINT8_KHR: return "u8";
    case VK_COMPONENT_TYPE_UINT32_KHR: return "u32";
    default: return NULL;
    }
}

/* The matrices of a device that offers the extension, of types that bench_matrix.comp has. */
static void fill_matrices(const struct vkm_instance *instance, VkPhysicalDevice physical, struct vkm_caps *caps)
{
    VkCooperativeMatrixPropertiesKHR list[128];
    uint32_t n = VKM_COUNT(list);
    if (!instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR) return;
    for (uint32_t i = 0; i < n; i++) list[i] = (VkCooperativeMatrixPropertiesKHR){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    if (instance->vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical, &n, list) < 0) return;
    for (uint32_t i = 0; i < n && caps->n_matrices < VKM_MATRICES_MAX; i++) {
        const VkCooperativeMatrixPropertiesKHR *p = &list[i];
        const struct vkm_matrix m = {p->MSize, p->NSize, p->KSize, component_name(p->AType), component_name(p->CType)};
        VkComponentTypeKHR from = p->AType, to = p->CType;
        bool half = from == VK_COMPONENT_TYPE_FLOAT16_KHR && to == VK_COMPONENT_TYPE_FLOAT32_KHR;
        bool known = half || (from == VK_COMPONENT_TYPE_FLOAT16_KHR && to == VK_COMPONENT_TYPE_FLOAT16_KHR) || (from == VK_COMPONENT_TYPE_SINT8_KHR && to == VK_COMPONENT_TYPE_SINT32_KHR) ||
                     (from == VK_COMPONENT_TYPE_UINT8_KHR && to == VK_COMPONENT_TYPE_UINT32_KHR);
        if (p->scope != VK_SCOPE_SUBGROUP_KHR || p->saturatingAccumulation || p->AType != p->BType || p->CType != p->ResultType || !known) continue;
        caps->matrices[caps->n_matrices++] = m;
        bool fits = m.m && m.n && m.k && 16 % m.m == 0 && 32 % m.n == 0 && 32 % m.k == 0 && m.k % 4 == 0;
        if (half && fits && m.m * m.n * m.k > caps->matrix.m * caps->matrix.n * caps->matrix.k) caps->matrix = m;
    }
}

/* Matrices of 8 rows are Intel's, whose instructions have 8 or 16 lanes, as many as such a matrix has columns. Left alone, its driver takes 32 for a kernel with matrices, and its compiler spills: choose_matrix of src/nn/build.c. */
static void fill_matrix_lanes(const VkPhysicalDeviceSubgroupSizeControlProperties *sizes, bool control, struct vkm_caps *caps)
{
    uint32_t lanes = caps->matrix.m < 16 && caps->matrix.n >= sizes->minSubgroupSize && caps->matrix.n <= sizes->maxSubgroupSize ? caps->matrix.n : caps->subgroup_size;
    caps->sized_subgroups = control && (sizes->requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) && lanes >= sizes->minSubgroupSize && lanes <= sizes->maxSubgroupSize;
    caps->matrix_lanes = caps->sized_subgroups ? lanes : caps->subgroup_size;
    caps->matrix_subgroups = caps->sized_subgroups ? sizes->maxComputeWorkgroupSubgroups : UINT32_MAX;
}

/* Driver bugs and what is done about them, one row each; "bugs" in the clamp string switches the workarounds off, to see whether a driver still needs them. */
static void bound_loops(struct vkm_caps *caps) { caps->loop_iterations = 65535; }
static void unbound_loops(struct vkm_caps *caps) { caps->loop_iterations = 0; }
static void bound_tiles(struct vkm_caps *caps) { caps->matrix_tokens = 64; }
static void unbound_tiles(struct vkm_caps *caps) { caps->matrix_tokens = 0; }
static const struct bug {
    const char *id, *reproducer;
    VkDriverId driver;
    uint32_t before;              /* driverVersion without the bug */
    void (*apply)(struct vkm_caps *caps), (*undo)(struct vkm_caps *caps);
} bugs[] = {
    /* Seen in 22.3.6, not in 26.1; between them unknown. */
    {"loops end silently after 65,535 iterations of all loops of an invocation together", "tests/test_model.c, shapes of 1,024 experts, with moe_topk on 8 lanes",
     VK_DRIVER_ID_MESA_LLVMPIPE, VK_MAKE_VERSION(26, 0, 0), bound_loops, unbound_loops},
    /* Seen in 26.2.6 for Turing, Ampere and Blackwell. NVIDIA's own driver is fastest with these tiles. By instructions for each product they would be a tenth better than tiles of 64 tokens if nothing were
     * spilled, and half again as many with eight subgroups, which spill nothing. */
    {"in tiles of 128 tokens by matrices 140 registers and more are spilled", "vkmoe bench kernels, matrices of a prompt of 4,096 tokens", VK_DRIVER_ID_MESA_NVK, UINT32_MAX, bound_tiles, unbound_tiles},
};
/* Where compilers are known to spill what they keep in registers elsewhere. Intel before Xe-HPG, where loads have no offsets and so take a register for the address, too (and those after it without matrices,
 * mtl and arl): 128 of 8 lanes. NVIDIA before Maxwell, for which neither driver has come to Vulkan 1.3 (its own was not at hand;
 * a driver of a newer GPU from before 1.3 is taken for one): 63, which the second generation of Kepler has more of. */
static uint32_t lane_registers(const struct vkm_caps *caps)
{
    bool intel = caps->driver_id == VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA || caps->driver_id == VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS;
    bool nvidia = caps->driver_id == VK_DRIVER_ID_NVIDIA_PROPRIETARY || caps->driver_id == VK_DRIVER_ID_MESA_NVK;
    return intel && !caps->matrix.m ? 128 : nvidia && caps->api_version < VK_API_VERSION_1_3 ? 64 : 0;
}

/* Mesa from 26 on turns a load at a uniform device address into one load and a broadcast; 22.3.6 makes a loop over the lanes of it, as SwiftShader seems to: there the kernels
 * that count on it are 2 to 5 times slower than the others. In 25.0.7 decode is a third as fast with them, prefill a quarter faster. Other versions between were
 * not tried. */
static bool loads_scalars(const struct vkm_caps *caps)
{
    return caps->device_address && caps->driver_id == VK_DRIVER_ID_MESA_LLVMPIPE && caps->driver_version >= VK_MAKE_VERSION(26, 0, 0);
}
/* lavapipe before Mesa 26 makes a loop over the lanes of every load from a storage buffer, and each word of each lane waits for a store to a part of a register that lies in memory. Cycles of a load of
 * four words by 8 lanes, from a storage buffer and from a texel buffer: Mesa 22.3.6 630 and 40, 25.0.7 190 and 70; 26.2.6 140 and 10, where scalar loads take next to none. SwiftShader 260 and 280.
 * Other versions between were not tried. */
static bool loads_texels(const struct vkm_caps *caps) { return caps->driver_id == VK_DRIVER_ID_MESA_LLVMPIPE && !caps->scalar_loads; }
static bool has_texel_buffers(const struct vkm_instance *instance, VkPhysicalDevice physical, const VkPhysicalDeviceLimits *limits, const struct vkm_caps *caps)
{
    static const VkFormat formats[] = {VKM_TEXEL_QUADS, VKM_TEXEL_WORDS, VKM_TEXEL_FLOATS};
    for (size_t i = 0; i < VKM_COUNT(formats); i++) {
        VkFormatProperties p;
        instance->vkGetPhysicalDeviceFormatProperties(physical, formats[i], &p);
        if (!(p.bufferFeatures & VK_FORMAT_FEATURE_STORAGE_TEXEL_BUFFER_BIT)) return false;
    }
    return limits->maxPerStageDescriptorStorageImages >= VKM_TEXEL_VIEWS && limits->maxTexelBufferElements >= caps->storage_range / 4;
}
static bool has_bug(const struct vkm_caps *caps, const struct bug *bug) { return caps->driver_id == (uint32_t)bug->driver && caps->driver_version < bug->before; }

/* Whether a feature is enabled in a chain that begins with VkPhysicalDeviceFeatures2: by the structure of its extension, or by that of the version of Vulkan that has it. */
#define FEATURE(type, STRUCTURE, field) if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_##STRUCTURE && ((const type *)s)->field) return true;
#define ENABLED(name, ...) static bool name##_enabled(const VkBaseInStructure *s) { for (; s; s = s->pNext) { __VA_ARGS__ } return false; }
ENABLED(storage16, FEATURE(VkPhysicalDevice16BitStorageFeatures, 16BIT_STORAGE_FEATURES, storageBuffer16BitAccess) FEATURE(VkPhysicalDeviceVulkan11Features, VULKAN_1_1_FEATURES, storageBuffer16BitAccess))
ENABLED(float16, FEATURE(VkPhysicalDeviceShaderFloat16Int8Features, SHADER_FLOAT16_INT8_FEATURES, shaderFloat16) FEATURE(VkPhysicalDeviceVulkan12Features, VULKAN_1_2_FEATURES, shaderFloat16))
ENABLED(int8, FEATURE(VkPhysicalDeviceShaderFloat16Int8Features, SHADER_FLOAT16_INT8_FEATURES, shaderInt8) FEATURE(VkPhysicalDeviceVulkan12Features, VULKAN_1_2_FEATURES, shaderInt8))
ENABLED(timeline, FEATURE(VkPhysicalDeviceTimelineSemaphoreFeatures, TIMELINE_SEMAPHORE_FEATURES, timelineSemaphore) FEATURE(VkPhysicalDeviceVulkan12Features, VULKAN_1_2_FEATURES, timelineSemaphore))
ENABLED(address, FEATURE(VkPhysicalDeviceBufferDeviceAddressFeatures, BUFFER_DEVICE_ADDRESS_FEATURES, bufferDeviceAddress) FEATURE(VkPhysicalDeviceVulkan12Features, VULKAN_1_2_FEATURES, bufferDeviceAddress))
ENABLED(memory_model, FEATURE(VkPhysicalDeviceVulkanMemoryModelFeatures, VULKAN_MEMORY_MODEL_FEATURES, vulkanMemoryModel) FEATURE(VkPhysicalDeviceVulkan12Features, VULKAN_1_2_FEATURES, vulkanMemoryModel))
ENABLED(device_scope, FEATURE(VkPhysicalDeviceVulkanMemoryModelFeatures, VULKAN_MEMORY_MODEL_FEATURES, vulkanMemoryModelDeviceScope) FEATURE(VkPhysicalDeviceVulkan12Features, VULKAN_1_2_FEATURES, vulkanMemoryModelDeviceScope))
ENABLED(int8dot, FEATURE(VkPhysicalDeviceShaderIntegerDotProductFeatures, SHADER_INTEGER_DOT_PRODUCT_FEATURES, shaderIntegerDotProduct) FEATURE(VkPhysicalDeviceVulkan13Features, VULKAN_1_3_FEATURES, shaderIntegerDotProduct))
ENABLED(full_subgroups, FEATURE(VkPhysicalDeviceSubgroupSizeControlFeatures, SUBGROUP_SIZE_CONTROL_FEATURES, computeFullSubgroups) FEATURE(VkPhysicalDeviceVulkan13Features, VULKAN_1_3_FEATURES, computeFullSubgroups))
ENABLED(size_control, FEATURE(VkPhysicalDeviceSubgroupSizeControlFeatures, SUBGROUP_SIZE_CONTROL_FEATURES, subgroupSizeControl) FEATURE(VkPhysicalDeviceVulkan13Features, VULKAN_1_3_FEATURES, subgroupSizeControl))
ENABLED(coopmat, FEATURE(VkPhysicalDeviceCooperativeMatrixFeaturesKHR, COOPERATIVE_MATRIX_FEATURES_KHR, cooperativeMatrix))
ENABLED(statistics, FEATURE(VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR, PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR, pipelineExecutableInfo))
ENABLED(dynamic_indexing, FEATURE(VkPhysicalDeviceFeatures2, FEATURES_2, features.shaderStorageBufferArrayDynamicIndexing))

/* Takes away what the device has and was not enabled. */
static void keep_enabled(const VkBaseInStructure *chain, struct vkm_caps *caps, struct vkm_features *f)
{
    f->base.features.shaderStorageBufferArrayDynamicIndexing &= dynamic_indexing_enabled(chain);
    f->storage16.storageBuffer16BitAccess &= storage16_enabled(chain);
    f->float16.shaderFloat16 &= float16_enabled(chain);
    f->float16.shaderInt8 &= int8_enabled(chain);
    f->timeline.timelineSemaphore &= timeline_enabled(chain);
    f->address.bufferDeviceAddress &= address_enabled(chain);
    f->memory_model.vulkanMemoryModel &= memory_model_enabled(chain);
    f->memory_model.vulkanMemoryModelDeviceScope &= device_scope_enabled(chain);
    f->int8dot.shaderIntegerDotProduct &= int8dot_enabled(chain);
    f->subgroup_size.computeFullSubgroups &= full_subgroups_enabled(chain);
    f->subgroup_size.subgroupSizeControl &= size_control_enabled(chain);
    f->coopmat.cooperativeMatrix &= coopmat_enabled(chain);
    caps->pipeline_statistics &= statistics_enabled(chain);
}

void vkm_offer_fill(const struct vkm_instance *instance, VkPhysicalDevice physical, const vkm_import *import, struct vkm_offer *o)
{
    *o = (struct vkm_offer){.physical = physical};
    struct vkm_caps *caps = &o->caps;
    VkPhysicalDeviceProperties plain;
    instance->vkGetPhysicalDeviceProperties(physical, &plain);
    caps->type = (enum vkm_device_type)plain.deviceType;
    caps->api_version = plain.apiVersion;
    caps->vendor_id = plain.vendorID;
    caps->device_id = plain.deviceID;
    caps->driver_version = plain.driverVersion;
    memcpy(caps->pipeline_uuid, plain.pipelineCacheUUID, sizeof caps->pipeline_uuid);
    memcpy(caps->device_name, plain.deviceName, sizeof caps->device_name);
    instance->vkGetPhysicalDeviceMemoryProperties(physical, &o->memory);
    fill_memory(o);

    vkm_text why = {o->unusable_why, sizeof o->unusable_why, 0};
    uint32_t api = min_u32(plain.apiVersion, instance->api);
    if (api < VK_API_VERSION_1_1) {   /* the structs below are not for it */
        vkm_textf(&why, "needs Vulkan 1.1, has %u.%u", VK_API_VERSION_MAJOR(plain.apiVersion), VK_API_VERSION_MINOR(plain.apiVersion));
        return;
    }
    uint32_t n = 0;
    VkExtensionProperties *extensions = NULL;
    if (instance->vkEnumerateDeviceExtensionProperties(physical, NULL, &n, NULL) == VK_SUCCESS && n) extensions = malloc(n * sizeof *extensions);
    if (!extensions || instance->vkEnumerateDeviceExtensionProperties(physical, NULL, &n, extensions) < 0) n = 0;
    if (import) n = enabled_of(extensions, n, import);
#define NEVER_CORE UINT32_MAX
    /* Core from version `core` on, an extension before: whether there is one, and if it takes the extension, that it gets enabled. */
#define OFFERED(core, name) (api >= (core) || (offered(extensions, n, name) && (o->extensions[o->n_extensions++] = (name))))
    bool has_timeline = OFFERED(VK_API_VERSION_1_2, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME);
    bool has_float16 = OFFERED(VK_API_VERSION_1_2, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME);
    bool has_driver = OFFERED(VK_API_VERSION_1_2, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME);
    bool has_int8dot = OFFERED(VK_API_VERSION_1_3, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
    bool has_memory_model = OFFERED(VK_API_VERSION_1_2, VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME);
    bool has_coopmat = has_memory_model && OFFERED(NEVER_CORE, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    bool has_subgroup_size = OFFERED(VK_API_VERSION_1_3, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    caps->memory_budget = OFFERED(NEVER_CORE, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    (void)OFFERED(NEVER_CORE, "VK_KHR_portability_subset");   /* where offered it must be enabled */
    caps->pipeline_statistics = OFFERED(NEVER_CORE, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
    o->global_priority = offered(extensions, n, VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME) ? VK_KHR_GLOBAL_PRIORITY_EXTENSION_NAME
                       : offered(extensions, n, VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME) ? VK_EXT_GLOBAL_PRIORITY_EXTENSION_NAME : NULL;
    free(extensions);

    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceShaderIntegerDotProductProperties dot = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES, .pNext = has_driver ? &driver : NULL};
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES, .pNext = has_int8dot ? &dot : dot.pNext};
    VkPhysicalDeviceSubgroupProperties subgroup = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = has_subgroup_size ? &sizes : sizes.pNext};
    VkPhysicalDeviceCooperativeMatrixPropertiesKHR coopmat = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_PROPERTIES_KHR, .pNext = &subgroup};
    VkPhysicalDeviceMaintenance3Properties maintenance3 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = has_coopmat ? (void *)&coopmat : &subgroup};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &maintenance3};
    instance->vkGetPhysicalDeviceProperties2(physical, &properties);

    struct vkm_features f = {
        .base = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &f.storage16},
        .storage16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES},
        .float16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES},
        .timeline = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES},
        .subgroup_size = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES},
        .int8dot = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES},
        .memory_model = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES},
        .coopmat = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR},
    };
    f.address.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES;
    void **next = &f.storage16.pNext;
    if (api >= VK_API_VERSION_1_2) *next = &f.address, next = &f.address.pNext;
    if (has_float16) *next = &f.float16, next = &f.float16.pNext;
    if (has_timeline) *next = &f.timeline, next = &f.timeline.pNext;
    if (has_int8dot) *next = &f.int8dot, next = &f.int8dot.pNext;
    if (has_memory_model) *next = &f.memory_model, next = &f.memory_model.pNext;
    if (has_coopmat) *next = &f.coopmat, next = &f.coopmat.pNext;
    if (has_subgroup_size) *next = &f.subgroup_size;
    instance->vkGetPhysicalDeviceFeatures2(physical, &f.base);
    if (import) keep_enabled(import->features, caps, &f);

    const VkPhysicalDeviceLimits *limits = &properties.properties.limits;
    caps->driver_id = driver.driverID;
    vkm_textf(&(vkm_text){caps->driver_name, sizeof caps->driver_name, 0}, "%s", driver.driverName);
    vkm_textf(&(vkm_text){caps->driver_info, sizeof caps->driver_info, 0}, "%s", driver.driverInfo);
    caps->storage_range = min_u64(limits->maxStorageBufferRange, maintenance3.maxMemoryAllocationSize) / RANGE_UNIT * RANGE_UNIT;
    caps->copy_align = 16;
    if (limits->nonCoherentAtomSize > caps->copy_align) caps->copy_align = limits->nonCoherentAtomSize;
    if (limits->optimalBufferCopyOffsetAlignment > caps->copy_align) caps->copy_align = limits->optimalBufferCopyOffsetAlignment;
    caps->invocations = limits->maxComputeWorkGroupInvocations;
    caps->shared_bytes = limits->maxComputeSharedMemorySize;
    caps->workgroup_size_x = limits->maxComputeWorkGroupSize[0];
    o->max_size_y = limits->maxComputeWorkGroupSize[1];
    caps->workgroups_x = limits->maxComputeWorkGroupCount[0];
    caps->workgroups_y = limits->maxComputeWorkGroupCount[1];
    caps->workgroups_z = limits->maxComputeWorkGroupCount[2];
    split_slabs(caps, limits);
    o->max_allocation = maintenance3.maxMemoryAllocationSize;
    o->atom = limits->nonCoherentAtomSize ? limits->nonCoherentAtomSize : 1;

    const VkSubgroupFeatureFlags operations = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT |
                                              VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    caps->subgroup = (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) && (subgroup.supportedOperations & operations) == operations && subgroup.subgroupSize > 1;
    caps->subgroup_size = caps->subgroup ? subgroup.subgroupSize : 1;
    caps->fp16 = f.float16.shaderFloat16 && f.storage16.storageBuffer16BitAccess;
    caps->int8dot = f.int8dot.shaderIntegerDotProduct;
    caps->int8dot_accelerated = caps->int8dot && dot.integerDotProduct4x8BitPackedSignedAccelerated;
    caps->int8 = f.float16.shaderInt8;
    if (f.coopmat.cooperativeMatrix && (coopmat.cooperativeMatrixSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT) && f.memory_model.vulkanMemoryModel && f.memory_model.vulkanMemoryModelDeviceScope && f.float16.shaderFloat16)
        fill_matrices(instance, physical, caps);
    caps->coopmat = caps->matrix.m && built(VKM_TIER_COOPMAT);
    caps->full_subgroups = f.subgroup_size.computeFullSubgroups;
    fill_matrix_lanes(&sizes, f.subgroup_size.subgroupSizeControl && caps->matrix.m, caps);
    caps->slow_conversion = caps->driver_id == VK_DRIVER_ID_NVIDIA_PROPRIETARY;
    caps->lane_registers = lane_registers(caps);
    if (caps->lane_registers && !caps->int8dot_accelerated) caps->int8dot = false;      /* a dozen instructions each there, and some of its kernels spill */
    uint32_t lanes = caps->subgroup_size;
    caps->device_address = caps->type == VKM_TYPE_CPU && f.address.bufferDeviceAddress && (lanes == 4 || lanes == 8 || lanes == 16);
    caps->scalar_loads = loads_scalars(caps);
    caps->texel_buffers = caps->type == VKM_TYPE_CPU && has_texel_buffers(instance, physical, limits, caps);
    caps->texel_loads = caps->texel_buffers && loads_texels(caps);
    set_tiers(caps);
    for (size_t i = 0; i < VKM_COUNT(bugs); i++)
        if (has_bug(caps, &bugs[i])) bugs[i].apply(caps);

    if (!fill_queue(instance, import, o, limits->timestampPeriod)) vkm_textf(&why, import ? "does not compute in queue family %u" : "has no compute queue", import ? import->queue_family : 0);
    else if (!f.timeline.timelineSemaphore) vkm_textf(&why, "needs timeline semaphores (Vulkan 1.2 or VK_KHR_timeline_semaphore)%s", import ? ": timelineSemaphore is not enabled" : "");
    else if (!f.base.features.shaderStorageBufferArrayDynamicIndexing) vkm_textf(&why, "needs the feature shaderStorageBufferArrayDynamicIndexing%s", import ? ", which is not enabled" : "");
    else if (!caps->heap_bytes) vkm_textf(&why, "has no device-local memory");
}

void vkm_features_fill(const struct vkm_offer *offer, struct vkm_features *f)
{
    *f = (struct vkm_features){
        .base = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &f->timeline, .features = {.shaderStorageBufferArrayDynamicIndexing = VK_TRUE}},
        .timeline = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES, .timelineSemaphore = VK_TRUE},
        .storage16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES, .storageBuffer16BitAccess = VK_TRUE},
        .float16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES, .shaderFloat16 = VK_TRUE, .shaderInt8 = offer->caps.int8},
        .subgroup_size = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, .computeFullSubgroups = offer->caps.full_subgroups, .subgroupSizeControl = offer->caps.sized_subgroups},
        .int8dot = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES, .shaderIntegerDotProduct = VK_TRUE},
        .memory_model = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, .vulkanMemoryModel = VK_TRUE, .vulkanMemoryModelDeviceScope = VK_TRUE},
        .coopmat = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR, .cooperativeMatrix = VK_TRUE},
        .address = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES, .bufferDeviceAddress = VK_TRUE},
        .statistics = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR, .pipelineExecutableInfo = VK_TRUE},
    };
    void **next = &f->timeline.pNext;
#define CHAIN(member) (*next = &f->member, next = &f->member.pNext)
    if (offer->caps.device_address) CHAIN(address);
    if (offer->caps.fp16) CHAIN(storage16);
    if (offer->caps.fp16 || offer->caps.n_matrices) CHAIN(float16);
    if (offer->caps.int8dot) CHAIN(int8dot);
    if (offer->caps.n_matrices) CHAIN(memory_model), CHAIN(coopmat);
    if (offer->caps.full_subgroups || offer->caps.sized_subgroups) CHAIN(subgroup_size);
    if (offer->caps.pipeline_statistics) CHAIN(statistics);
#undef CHAIN
}

/* ------------------------------------------------ clamping */

static void clamp_u32(uint32_t *value, uint64_t to) { if (to < *value) *value = (uint32_t)to; }
static void clamp_u64(uint64_t *value, uint64_t to) { if (to < *value) *value = to; }

/* "baseline" and "subgroup" take away what is above, the others ask for what there is. All are about the kernels that GPUs get. */
static void clamp_tier(struct vkm_caps *caps, enum vkm_tier tier)
{
    if (tier != VKM_TIER_SUBGROUP) caps->device_address = caps->scalar_loads = caps->texel_buffers = caps->texel_loads = false;
    if (tier > VKM_TIER_SUBGROUP) caps->asked |= VKM_TIER_BIT(tier);
    else caps->fp16 = caps->int8dot = caps->int8dot_accelerated = caps->coopmat = false, caps->n_matrices = caps->matrix.m = caps->asked = 0;
    if (tier == VKM_TIER_BASELINE) {
        caps->subgroup = false;
        caps->subgroup_size = 1;
        clamp_u32(&caps->invocations, 128);
        clamp_u32(&caps->shared_bytes, 16384);
    }
    set_tiers(caps);
}

static vkm_result clamp_number(struct vkm_caps *caps, const char *key, const char *text, vkm_error *err)
{
    char *end = NULL;
    errno = 0;
    uint64_t value = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
    if (!end || *end || errno || !value) return vkm_fail(err, VKM_ERR_ARGUMENT, "caps: \"%s=%s\" needs a number above 0", key, text);
    if (!strcmp(key, "range")) {
        if (value < RANGE_UNIT) return vkm_fail(err, VKM_ERR_ARGUMENT, "caps: range=%s is below %d bytes", text, RANGE_UNIT);
        clamp_u64(&caps->storage_range, value / RANGE_UNIT * RANGE_UNIT);
    } else if (!strcmp(key, "shared")) clamp_u32(&caps->shared_bytes, value);
    else if (!strcmp(key, "invocations")) clamp_u32(&caps->invocations, value), clamp_u32(&caps->workgroup_size_x, value);
    else if (!strcmp(key, "slabs")) clamp_u32(&caps->slabs, value);
    else if (!strcmp(key, "kv_slabs")) clamp_u32(&caps->kv_slabs, value);
    else if (!strcmp(key, "heap")) clamp_u64(&caps->heap_bytes, value);
    else return vkm_fail(err, VKM_ERR_ARGUMENT, "caps: unknown limit \"%s\" (range, shared, invocations, slabs, kv_slabs, heap)", key);
    return VKM_OK;
}

const char *vkm_tier_name(enum vkm_tier tier)
{
    static const char *const names[] = {"baseline", "subgroup", "fp16", "int8dot", "coopmat"};
    _Static_assert(VKM_COUNT(names) == VKM_TIER_COUNT, "every tier has its name here");
    return (uint32_t)tier < VKM_TIER_COUNT ? names[tier] : "unknown";
}

void vkm_caps_tiers(const struct vkm_caps *caps, vkm_text *out)
{
    uint32_t asked = caps->tiers & caps->asked, n = 0;
    for (enum vkm_tier tier = 0; tier < VKM_TIER_COUNT; tier++)
        if (asked & VKM_TIER_BIT(tier)) vkm_textf(out, "%s%s", n++ ? "+" : "", vkm_tier_name(tier));
    if (!n) vkm_textf(out, "%s", vkm_tier_name(caps->tiers & VKM_TIER_BIT(VKM_TIER_SUBGROUP) ? VKM_TIER_SUBGROUP : VKM_TIER_BASELINE));
}

static vkm_result clamp_word(struct vkm_caps *caps, char *word, vkm_error *err)
{
    char *equals = strchr(word, '=');
    if (equals) {
        *equals = 0;
        return clamp_number(caps, word, equals + 1, err);
    }
    for (enum vkm_tier tier = 0; tier < VKM_TIER_COUNT; tier++)
        if (!strcmp(word, vkm_tier_name(tier))) return clamp_tier(caps, tier), VKM_OK;
    if (!strcmp(word, "staged")) return caps->unified_memory = false, VKM_OK;
    if (!strcmp(word, "gather")) return caps->scalar_loads = caps->texel_loads = false, VKM_OK;
    if (!strcmp(word, "scalar")) return caps->scalar_loads = caps->device_address, caps->texel_loads = caps->texel_loads && !caps->scalar_loads, VKM_OK;
    if (!strcmp(word, "texel")) return caps->texel_loads = caps->texel_buffers, caps->scalar_loads = caps->scalar_loads && !caps->texel_loads, VKM_OK;
    if (!strcmp(word, "slow_conversion")) return caps->slow_conversion = true, VKM_OK;
    if (!strcmp(word, "fast")) {
        if (caps->type != VKM_TYPE_CPU && caps->coopmat) clamp_tier(caps, VKM_TIER_COOPMAT);
        return VKM_OK;
    }
    if (!strcmp(word, "all")) return VKM_OK;
    if (!strcmp(word, "bugs")) {
        for (size_t i = 0; i < VKM_COUNT(bugs); i++) bugs[i].undo(caps);
        return VKM_OK;
    }
    return vkm_fail(err, VKM_ERR_ARGUMENT, "caps: unknown word \"%s\" (baseline, subgroup, fp16, int8dot, coopmat, fast, all, gather, scalar, texel, slow_conversion, staged, bugs, or limit=number)", word);
}

vkm_result vkm_caps_clamp(struct vkm_caps *caps, const char *clamp, vkm_error *err)
{
    struct vkm_caps copy = *caps;   /* untouched on failure */
    char word[128];
    for (const char *at = clamp ? clamp : ""; *at;) {
        size_t n = strcspn(at, ",");
        if (!n || n >= sizeof word) return vkm_fail(err, VKM_ERR_ARGUMENT, "caps: empty or too long word in \"%s\"", clamp);
        memcpy(word, at, n);
        word[n] = 0;
        vkm_result r = clamp_word(&copy, word, err);
        if (r) return r;
        at += n;
        if (*at == ',' && !*++at) return vkm_fail(err, VKM_ERR_ARGUMENT, "caps: \"%s\" ends in a comma", clamp);
    }
    *caps = copy;
    return VKM_OK;
}

/* ------------------------------------------------ printing */

void vkm_caps_print(const struct vkm_caps *caps, vkm_text *out)
{
    if (caps->subgroup) vkm_textf(out, "subgroup %u, ", caps->subgroup_size);
    else vkm_textf(out, "no subgroup operations, ");
    if (caps->fp16) vkm_textf(out, "fp16, ");
    if (caps->int8dot) vkm_textf(out, "int8dot%s, ", caps->int8dot_accelerated ? "" : " (not accelerated)");
    if (caps->matrix.m) {
        vkm_textf(out, "coopmat %ux%ux%u", caps->matrix.m, caps->matrix.n, caps->matrix.k);
        if (caps->matrix_lanes != caps->subgroup_size) vkm_textf(out, " in subgroups of %u", caps->matrix_lanes);
        vkm_textf(out, "%s, ", caps->coopmat ? "" : " (not in this build)");
    }
    if (caps->scalar_loads) vkm_textf(out, "scalar loads, ");
    if (caps->texel_loads) vkm_textf(out, "texel loads, ");
    uint64_t range = caps->storage_range;
    if (range >= 1 << 20) vkm_textf(out, "%llu MiB storage range, ", (unsigned long long)(range >> 20));
    else vkm_textf(out, "%llu KiB storage range, ", (unsigned long long)(range >> 10));
    vkm_textf(out, "%u KiB shared, %u invocations, %u+%u slabs%s", caps->shared_bytes >> 10, caps->invocations, caps->slabs, caps->kv_slabs,
              caps->unified_memory ? ", unified memory" : "");
}
