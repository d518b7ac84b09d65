/* What a device can do, in one record: the only thing that variant choice reads. Filled from the device, clamped from outside. */
#ifndef VKM_HOST_CAPS_H
#define VKM_HOST_CAPS_H

#include "base.h"

/* What a module needs of the device. No order of power: a device may have the last and not the one before. Of those in use a later one is preferred. */
enum vkm_tier { VKM_TIER_BASELINE, VKM_TIER_SUBGROUP, VKM_TIER_FP16, VKM_TIER_INT8DOT, VKM_TIER_COOPMAT, VKM_TIER_COUNT };
#define VKM_TIER_BIT(tier) (1u << (tier))
#define VKM_TIERS_ALL (VKM_TIER_BIT(VKM_TIER_COUNT) - 1)
enum vkm_device_type { VKM_TYPE_OTHER, VKM_TYPE_INTEGRATED, VKM_TYPE_DISCRETE, VKM_TYPE_VIRTUAL, VKM_TYPE_CPU };  /* as VkPhysicalDeviceType */

/* A multiplication of cooperative matrices, [m][k] by [k][n] of `type` added up in `to`: "f16", "f32", "s8", "s32", "u8", "u32". */
struct vkm_matrix { uint32_t m, n, k; const char *type, *to; };
#define VKM_MATRICES_MAX 24

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
    bool full_subgroups;           /* a pipeline can ask that every subgroup be full */
    bool slow_conversion;          /* from integers to floats: shaders/quant.glsl */
    uint32_t lane_registers;       /* of 32 bits that a lane has for its values, where that is known to be few; 0: 255 or not known */
    bool fp16;                     /* shaderFloat16 and 16-bit storage */
    bool device_address;           /* a CPU driver with bufferDeviceAddress and subgroups of 4, 8 or 16 */
    bool scalar_loads;             /* one that loads from a device address that is the same for all lanes once, without masks: kernels of shaders/matmul_cpu.glsl */
    bool texel_buffers;            /* a CPU driver with storage texel buffers as large as the storage range */
    bool texel_loads;              /* one that loads from them much faster than from storage buffers: kernels named _texel. Not beside scalar_loads */
    bool int8dot;                  /* shaderIntegerDotProduct */
    bool int8dot_accelerated;      /* the driver says that packed signed 4x8 bits are faster than without */
    bool int8;                     /* shaderInt8: cooperative matrices of int8 */
    bool coopmat;                  /* VK_KHR_cooperative_matrix with what matmul_coop.glsl needs, `matrix` in its list, and kernels in this build */
    struct vkm_matrix matrix;      /* f16 to f32, the largest that divides tiles of 16 tokens, 32 rows, 32 columns; m 0: none */
    uint32_t matrix_lanes;         /* of a subgroup in kernels of tier coopmat */
    uint32_t matrix_subgroups;     /* most of a workgroup there, beside what `invocations` allows */
    uint32_t matrix_tokens;        /* most of a tile, beyond which the driver's compiler spills; 0: no such bound */
    bool sized_subgroups;          /* pipelines of that tier can, and do, ask for subgroups of matrix_lanes */
    struct vkm_matrix matrices[VKM_MATRICES_MAX];   /* all that the device lists for a subgroup, of types that are known here */
    uint32_t n_matrices;
    bool pipeline_statistics;      /* VK_KHR_pipeline_executable_properties */
    uint32_t asked;                /* bits of the tiers that are used only when the clamp string asks for them: those that give up exactness */
    uint32_t tiers;                /* bits of the tiers in use: what there is and, where it takes that, was asked for */
};

/* Bits of all tiers that the device has, in use or not. */
uint32_t vkm_caps_able(const struct vkm_caps *caps);
/* "subgroup", or the tiers that were asked for and are in use: "fp16", "int8dot+coopmat". */
void vkm_caps_tiers(const struct vkm_caps *caps, vkm_text *out);

/* Clamps by a string such as "baseline" or "fp16,range=1048576,shared=16384,invocations=128,slabs=1,heap=1073741824". "baseline" and "subgroup" take away everything above,
 * "fp16", "int8dot" and "coopmat" ask for those kernels wherever the device has them, also beside each other.
 * "fast" asks for coopmat on what is no CPU driver. Also "all", "kv_slabs=N", "gather" (neither scalar_loads nor texel_loads), "scalar" and "texel" (either wherever device_address or texel_buffers allows it), and for tests "slow_conversion" (as if it were) and "staged": device memory is not mapped, as on a discrete GPU; heap= makes allocations beyond it fail.
 * Tiers and numbers only ever lower what the device has. Unknown words are VKM_ERR_ARGUMENT. */
vkm_result vkm_caps_clamp(struct vkm_caps *caps, const char *clamp, vkm_error *err);
/* One line for people. */
void vkm_caps_print(const struct vkm_caps *caps, vkm_text *out);

#endif
