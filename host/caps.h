/* What a device can do, in one record: the only thing that variant choice reads. Filled from the device, clamped from outside. */
#ifndef VKM_HOST_CAPS_H
#define VKM_HOST_CAPS_H

#include "base.h"

enum vkm_tier { VKM_TIER_BASELINE, VKM_TIER_SUBGROUP, VKM_TIER_FP16, VKM_TIER_COUNT };   /* int8dot, coopmat: later tiers */
enum vkm_device_type { VKM_TYPE_OTHER, VKM_TYPE_INTEGRATED, VKM_TYPE_DISCRETE, VKM_TYPE_VIRTUAL, VKM_TYPE_CPU };  /* as VkPhysicalDeviceType */

struct vkm_caps {
    enum vkm_device_type type;
    uint32_t vendor_id, device_id, driver_id, driver_version, api_version;
    uint8_t pipeline_uuid[16];
    char device_name[256], driver_name[256], driver_info[256];
    bool unified_memory;           /* device-local memory is host-visible on every heap: loading maps it and writes once */
    bool memory_budget;            /* VK_EXT_memory_budget */
    uint64_t heap_bytes;           /* largest device-local heap */
    /* limits */
    uint64_t storage_range;        /* maxStorageBufferRange, and no more than one allocation may have */
    uint64_t copy_align;           /* nonCoherentAtomSize etc., a power of two */
    uint32_t slabs;                /* size of the descriptor array of weight slabs that one set may have */
    uint32_t kv_slabs;             /* likewise for the KV cache */
    uint32_t invocations, shared_bytes, workgroups_x, workgroups_y, workgroups_z, workgroup_size_x;
    uint32_t loop_iterations;      /* driver bug: all loops of an invocation together stop after so many iterations; 0: no such bound */
    float timestamp_ns;            /* 0: no timestamps on this queue */
    uint32_t timestamp_bits;
    /* tiers */
    uint32_t subgroup_size;        /* 1 when subgroup operations are clamped away */
    bool subgroup;                 /* basic + arithmetic + ballot + shuffle in compute */
    bool fp16;                     /* shaderFloat16 and 16-bit storage */
    bool device_address;           /* a CPU driver with bufferDeviceAddress and subgroups of 4, 8 or 16 */
    bool scalar_loads;             /* one that loads from a device address that is the same for all lanes once, without masks: kernels of shaders/matmul_cpu.glsl */
    bool pipeline_statistics;      /* VK_KHR_pipeline_executable_properties */
    enum vkm_tier tier;            /* the highest one in use: fp16 only when the clamp string asks for it */
};

/* Clamps by a string such as "baseline" or "fp16,range=1048576,shared=16384,invocations=128,slabs=1,heap=1073741824".
 * Also "all", "kv_slabs=N", "gather" (no scalar_loads) and "scalar" (scalar_loads wherever device_address allows it), and for tests "staged": device memory is not mapped, as on a discrete GPU; heap= makes allocations beyond it fail.
 * Tiers and numbers only ever lower what the device has. Unknown words are VKM_ERR_ARGUMENT. */
vkm_result vkm_caps_clamp(struct vkm_caps *caps, const char *clamp, vkm_error *err);
/* One line for people. */
void vkm_caps_print(const struct vkm_caps *caps, vkm_text *out);

#endif
