/* What the files of host/ share and nobody else sees. */
#ifndef VKM_HOST_INTERNAL_H
#define VKM_HOST_INTERNAL_H

#include "platform.h"
#include "program.h"
#include <stdatomic.h>
#include <vulkan/vulkan_core.h>

/* ------------------------------------------------ what headers before 1.3.255 (Debian 12) lack */

#ifndef VK_KHR_cooperative_matrix
#define VK_KHR_cooperative_matrix 1
#define VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME "VK_KHR_cooperative_matrix"
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR ((VkStructureType)1000506000)
#define VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR ((VkStructureType)1000506001)
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_PROPERTIES_KHR ((VkStructureType)1000506002)
typedef enum VkComponentTypeKHR {
    VK_COMPONENT_TYPE_FLOAT16_KHR = 0, VK_COMPONENT_TYPE_FLOAT32_KHR = 1, VK_COMPONENT_TYPE_SINT8_KHR = 3, VK_COMPONENT_TYPE_SINT32_KHR = 5,
    VK_COMPONENT_TYPE_UINT8_KHR = 7, VK_COMPONENT_TYPE_UINT32_KHR = 9, VK_COMPONENT_TYPE_MAX_ENUM_KHR = 0x7fffffff
} VkComponentTypeKHR;
typedef enum VkScopeKHR { VK_SCOPE_SUBGROUP_KHR = 3, VK_SCOPE_MAX_ENUM_KHR = 0x7fffffff } VkScopeKHR;
typedef struct VkCooperativeMatrixPropertiesKHR {
    VkStructureType sType;
    void *pNext;
    uint32_t MSize, NSize, KSize;
    VkComponentTypeKHR AType, BType, CType, ResultType;
    VkBool32 saturatingAccumulation;
    VkScopeKHR scope;
} VkCooperativeMatrixPropertiesKHR;
typedef struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrix, cooperativeMatrixRobustBufferAccess;
} VkPhysicalDeviceCooperativeMatrixFeaturesKHR;
typedef struct VkPhysicalDeviceCooperativeMatrixPropertiesKHR {
    VkStructureType sType;
    void *pNext;
    VkShaderStageFlags cooperativeMatrixSupportedStages;
} VkPhysicalDeviceCooperativeMatrixPropertiesKHR;
typedef VkResult (VKAPI_PTR *PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)(VkPhysicalDevice, uint32_t *, VkCooperativeMatrixPropertiesKHR *);
#endif

/* ------------------------------------------------ functions
 * Tables of our own, an instance's and a device's. volk would do the same, but its global pointers are named vkCreateInstance ...; in a static
 * library they would take the place of the loader's functions, or of another volk, in the engine that links us. */

#define VKM_INSTANCE_FUNCTIONS(X)                                                                                                      \
    X(DestroyInstance) X(EnumeratePhysicalDevices) X(EnumerateDeviceExtensionProperties) X(GetPhysicalDeviceProperties)               \
    X(GetPhysicalDeviceProperties2) X(GetPhysicalDeviceFeatures2) X(GetPhysicalDeviceMemoryProperties)                                \
    X(GetPhysicalDeviceMemoryProperties2) X(GetPhysicalDeviceQueueFamilyProperties) X(GetPhysicalDeviceFormatProperties) X(CreateDevice) X(GetDeviceProcAddr)
#define VKM_INSTANCE_OPTIONAL(X) X(CreateDebugUtilsMessengerEXT) X(DestroyDebugUtilsMessengerEXT)
#define VKM_INSTANCE_EXTENSION(X) X(GetPhysicalDeviceCooperativeMatrixPropertiesKHR)   /* of a device extension: called only where that is offered */

#define VKM_DEVICE_FUNCTIONS(X)                                                                                                        \
    X(DestroyDevice) X(GetDeviceQueue) X(QueueSubmit) X(QueueWaitIdle) X(DeviceWaitIdle)                                              \
    X(CreateBuffer) X(DestroyBuffer) X(CreateBufferView) X(DestroyBufferView) X(GetBufferMemoryRequirements) X(AllocateMemory) X(FreeMemory) X(BindBufferMemory) X(MapMemory)   \
    X(FlushMappedMemoryRanges) X(InvalidateMappedMemoryRanges)                                                                        \
    X(CreateSemaphore) X(DestroySemaphore)                                                                                            \
    X(CreateCommandPool) X(DestroyCommandPool) X(ResetCommandPool) X(AllocateCommandBuffers) X(FreeCommandBuffers)                    \
    X(BeginCommandBuffer) X(EndCommandBuffer)                                                                                         \
    X(CmdPipelineBarrier) X(CmdCopyBuffer) X(CmdUpdateBuffer) X(CmdFillBuffer) X(CmdBindPipeline) X(CmdBindDescriptorSets)            \
    X(CmdPushConstants) X(CmdDispatch) X(CmdDispatchBase) X(CmdDispatchIndirect) X(CmdResetQueryPool) X(CmdWriteTimestamp)            \
    X(CreateQueryPool) X(DestroyQueryPool) X(GetQueryPoolResults)                                                                     \
    X(CreateShaderModule) X(DestroyShaderModule) X(CreateComputePipelines) X(DestroyPipeline)                                         \
    X(CreatePipelineCache) X(DestroyPipelineCache) X(GetPipelineCacheData)                                                            \
    X(CreatePipelineLayout) X(DestroyPipelineLayout) X(CreateDescriptorSetLayout) X(DestroyDescriptorSetLayout)                       \
    X(CreateDescriptorPool) X(DestroyDescriptorPool) X(AllocateDescriptorSets) X(UpdateDescriptorSets)
#define VKM_DEVICE_KHR(X) X(WaitSemaphores) X(GetSemaphoreCounterValue)   /* core in 1.2, else with the suffix KHR */
#define VKM_DEVICE_12(X) X(GetBufferDeviceAddress)                        /* NULL unless the device has Vulkan 1.2 */
#define VKM_DEVICE_STATISTICS(X) X(GetPipelineExecutablePropertiesKHR) X(GetPipelineExecutableStatisticsKHR)   /* caps.pipeline_statistics */
#define VKM_DEVICE_OPTIONAL(X) X(SetDebugUtilsObjectNameEXT) X(CmdBeginDebugUtilsLabelEXT) X(CmdEndDebugUtilsLabelEXT)

#define VKM_X(name) PFN_vk##name vk##name;
struct vkm_instance {
    VkInstance handle;
    bool borrowed;                             /* the caller's */
    uint32_t api;                              /* the version it was made with, at most VKM_API_VERSION */
    VkDebugUtilsMessengerEXT messenger;
    PFN_vkGetInstanceProcAddr vkGetInstanceProcAddr;
    VKM_INSTANCE_FUNCTIONS(VKM_X)
    VKM_INSTANCE_OPTIONAL(VKM_X)
    VKM_INSTANCE_EXTENSION(VKM_X)
};
struct vkm_device_functions {
    VKM_DEVICE_FUNCTIONS(VKM_X)
    VKM_DEVICE_KHR(VKM_X)
    VKM_DEVICE_12(VKM_X)
    VKM_DEVICE_STATISTICS(VKM_X)
    VKM_DEVICE_OPTIONAL(VKM_X)
};
#undef VKM_X

/* Starts the loader and makes an instance. device: for log and validation messages; NULL for a plain listing. */
vkm_result vkm_instance_create(struct vkm_instance *instance, vkm_device *device, bool validation, vkm_error *err);
void vkm_instance_destroy(struct vkm_instance *instance);
/* The caller's instance. */
vkm_result vkm_instance_borrow(struct vkm_instance *instance, const vkm_import *import, vkm_error *err);

/* ------------------------------------------------ what a physical device offers */

#define VKM_API_VERSION VK_API_VERSION_1_3
#define VKM_EXTENSIONS_MAX 12

struct vkm_offer {
    VkPhysicalDevice physical;
    struct vkm_caps caps;
    char unusable_why[128];                    /* empty when usable */
    uint32_t queue_family;
    uint32_t max_size_y;                       /* maxComputeWorkGroupSize[1] */
    uint64_t max_allocation;                   /* maxMemoryAllocationSize, not clamped */
    uint64_t atom;                             /* nonCoherentAtomSize */
    VkPhysicalDeviceMemoryProperties memory;
    uint32_t largest_heap;                     /* index of the largest device-local heap */
    const char *global_priority;               /* the extension for it, or NULL: enabled only where it is asked for */
    uint32_t n_extensions;                     /* device extensions to enable */
    const char *extensions[VKM_EXTENSIONS_MAX];
};
/* import: a device with its features and extensions alone, and its queue family; NULL: all that there is. */
void vkm_offer_fill(const struct vkm_instance *instance, VkPhysicalDevice physical, const vkm_import *import, struct vkm_offer *offer);
/* Enables on a device what the caps promise: chains feature structs that live in `features`. */
struct vkm_features {
    VkPhysicalDeviceFeatures2 base;
    VkPhysicalDevice16BitStorageFeatures storage16;
    VkPhysicalDeviceShaderFloat16Int8Features float16;
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline;
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_size;
    VkPhysicalDeviceShaderIntegerDotProductFeatures int8dot;
    VkPhysicalDeviceBufferDeviceAddressFeatures address;
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR statistics;
    VkPhysicalDeviceVulkanMemoryModelFeatures memory_model;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR coopmat;
};
void vkm_features_fill(const struct vkm_offer *offer, struct vkm_features *features);

/* ------------------------------------------------ the device */

#define VKM_TRANSIENTS 16
#define VKM_WAITS 8

struct vkm_transient { VkCommandBuffer commands; uint64_t ticket; };

struct vkm_device {
    struct vkm_instance instance;
    struct vkm_offer offer;                    /* as the device is */
    struct vkm_caps caps;                      /* clamped */
    uint32_t index;
    VkDevice handle;
    bool borrowed, borrowed_cache;             /* handle, and the queue; pipeline_cache */
    const VkAllocationCallbacks *allocator;    /* of everything on an imported device; else NULL */
    struct vkm_device_functions vk;
    vkm_log_fn log;
    void *log_user;
    bool validation;
    atomic_uint validation_count;
    bool lost;

    /* memory.c */
    uint64_t heap_limit;                       /* the caps clamp heap=; UINT64_MAX without */
    uint64_t allocated[VK_MAX_MEMORY_HEAPS];
    vkm_memory_hooks hooks;                    /* of an import; allocate NULL: vkAllocateMemory */

    /* queue.c: one queue, one timeline */
    VkQueue queue;
    void (*lock)(void *user), (*unlock)(void *user);   /* around submissions; NULL: none */
    void *lock_user;
    VkSemaphore timeline;
    uint64_t submitted, completed;             /* last value that will be signalled, last value seen */
    struct { VkSemaphore semaphores[VKM_WAITS]; uint64_t values[VKM_WAITS]; uint32_t n; } waits;   /* of the caller's, for the next submission */
    char last_program[64];                     /* submitted last, for errors */
    VkCommandPool pool;
    struct vkm_transient transients[VKM_TRANSIENTS];
    uint32_t transient;                        /* the one that is open or comes next */
    bool transient_open;
    double speed;                              /* of the device against the cost model's rates in program.c, learnt from waits */
    struct { uint64_t ticket, start_ns; double seconds; } probe;   /* a submission to an idle queue, see vkm_speed_start */

    /* kernel.c */
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout pipeline_layout;
    VkPipelineCache pipeline_cache;
    char *cache_path;
    const void *cache_data;                    /* the caller's, while the device is made */
    size_t cache_bytes;
    bool statistics;                           /* pipelines keep what the driver's compiler says of them */
    bool cache_dirty;                          /* pipelines were made that the file does not have */
    struct vkm_kernel **kernels;               /* open addressing, n_kernel_slots a power of two */
    uint32_t n_kernels, n_kernel_slots;
};

/* Turns a VkResult into ours; remembers a lost device. The sentence says what was tried, the VkResult's name is appended. */
vkm_result vkm_fail_vk(vkm_device *device, vkm_error *err, VkResult r, const char *fmt, ...) VKM_PRINTF(4, 5);
/* VKM_OK unless the device was lost before: the first line of everything that talks to it. */
vkm_result vkm_device_alive(const vkm_device *device, vkm_error *err);
void vkm_object_name(vkm_device *device, VkObjectType type, uint64_t handle, const char *name);

/* ------------------------------------------------ queue.c */

vkm_result vkm_queue_create(vkm_device *device, vkm_error *err);
void vkm_queue_destroy(vkm_device *device);    /* waits for everything first */
/* A one-time command buffer that runs before whatever is submitted next. It starts with a full barrier and stays open for more commands until then. */
vkm_result vkm_transient_begin(vkm_device *device, VkCommandBuffer *commands, vkm_error *err);
/* Submits infos[1 .. n] (infos[0] is room for the open transient) and signals one timeline value after the last. */
vkm_result vkm_queue_submit(vkm_device *device, VkSubmitInfo *infos, uint32_t n, uint64_t *ticket, vkm_error *err);
vkm_result vkm_queue_flush(vkm_device *device, uint64_t *ticket, vkm_error *err);   /* submits the open transient, if any; *ticket: the last one given */
vkm_result vkm_queue_idle(vkm_device *device, vkm_error *err);                      /* waits until nothing is open or in flight */
bool vkm_queue_is_idle(vkm_device *device);
/* `ticket` was submitted to an idle queue and takes `seconds` by the cost model: a wait for it tells how fast the device is. */
void vkm_speed_start(vkm_device *device, uint64_t ticket, double seconds);
/* Everything before is visible to everything after: compute, indirect arguments and transfers. */
void vkm_full_barrier(vkm_device *device, VkCommandBuffer commands);
/* Everything before is visible to the host once a wait has returned. */
void vkm_host_barrier(vkm_device *device, VkCommandBuffer commands);

/* ------------------------------------------------ memory.c */

struct vkm_buffer {
    vkm_device *device;
    VkBuffer handle;
    vkm_memory memory;                         /* all of an allocation, or a part of somebody's */
    uint64_t bytes, allocated;                 /* allocated 0: it has no memory */
    uint32_t heap;
    bool coherent;
    void *map;
    char name[64];
};

VkBufferCreateInfo vkm_buffer_info(const vkm_device *device, uint64_t bytes);   /* estimate.c */
/* Of memory that the host maps: flushes are of whole atoms, and one must not hold anybody else's bytes. */
void vkm_whole_atoms(const vkm_device *device, enum vkm_buffer_kind kind, VkMemoryRequirements *needs);

/* ------------------------------------------------ cache.c */

/* What cache_path or cache_data have for the driver; *data NULL when that is nothing usable; malloc'd. */
void vkm_cache_load(vkm_device *device, void **data, size_t *bytes);

/* ------------------------------------------------ kernel.c */

struct vkm_kernel {
    const struct vkm_module *module;
    VkPipeline pipeline;                       /* VK_NULL_HANDLE until a program that uses it is finished */
    uint32_t n_spec, spec[VKM_SPEC_MAX];
    char variant[96];
};
vkm_result vkm_kernels_create(vkm_device *device, vkm_error *err);
void vkm_kernels_destroy(vkm_device *device);
struct vkm_op;
/* Compiles the pipelines that the ops' kernels do not have yet, on threads that end before it returns. */
vkm_result vkm_kernels_compile(vkm_device *device, const struct vkm_op *ops, uint32_t n_ops, vkm_error *err);

/* Texel buffers of a set, with caps.texel_loads: formats that Vulkan promises. */
#define VKM_TEXEL_VIEWS 5
#define VKM_TEXEL_QUADS VK_FORMAT_R32G32B32A32_UINT
#define VKM_TEXEL_WORDS VK_FORMAT_R32_UINT
#define VKM_TEXEL_FLOATS VK_FORMAT_R32G32B32A32_SFLOAT

struct vkm_bindings {
    vkm_device *device;
    VkBufferView views[VKM_TEXEL_VIEWS];
    VkDescriptorPool pool;
    VkDescriptorSet set;
    vkm_buffer *workspace;
    uint32_t n_kv;
    vkm_buffer *kv[];
};
const char *vkm_tier_name(enum vkm_tier tier);

/* ------------------------------------------------ program.c */

/* One entry of the list: a step, or a copy. */
struct vkm_op {
    bool is_copy, barrier;                     /* barrier: derived, stands before it */
    struct vkm_step step;                      /* label is `text` */
    char text[64];
    vkm_buffer *from, *to;
    uint64_t from_offset, to_offset, bytes;
    uint32_t kind;                             /* of slice.c */
    uint64_t ns;                               /* of the last profile */
};

/* A program as command buffers, each expected to take no longer than the cut; seconds by the cost model in program.c. */
struct vkm_recording { VkCommandBuffer *commands; double *seconds; uint32_t n, capacity; };
enum vkm_record { VKM_RECORD_DERIVED, VKM_RECORD_TIMED };   /* timed: full barriers, and timestamps 2i and 2i+1 around op i in `queries` */

struct vkm_program {
    vkm_device *device;
    char *name;
    struct vkm_op *ops;
    uint32_t n_ops, op_capacity, n_steps;
    bool finished, estimated;                  /* estimated: the cost of an indirect step is a guess */
    struct vkm_range *ranges;                  /* scratch for barriers: two lists of all ops' ranges */
    uint32_t range_ops;                        /* that there is room for */
    VkCommandPool pool;                        /* VK_NULL_HANDLE, and nothing recorded, until the program is submitted or profiled */
    struct vkm_recording recording;
    uint64_t last_ticket;
    VkSubmitInfo *infos;                       /* scratch of submit: list_capacity + 1 */
    VkCommandBuffer *list;
    uint32_t list_capacity;
};
#define VKM_OP_RANGES (VKM_STEP_RANGES + 1)
/* What op touches with buffers resolved, the indirect arguments among the reads. Arrays of VKM_OP_RANGES. */
void vkm_op_ranges(const struct vkm_op *op, struct vkm_range *reads, uint32_t *n_reads, struct vkm_range *writes, uint32_t *n_writes);
const struct vkm_op *vkm_program_step_op(const vkm_program *program, uint32_t i);   /* step i, copies not counted; NULL beyond the last */
/* Binds the step's set and pipeline unless *set and *pipeline say that they are. */
void vkm_step_bind(vkm_device *device, VkCommandBuffer commands, const struct vkm_step *step, VkDescriptorSet *set, VkPipeline *pipeline);
/* Pushes constants and dispatches, under the step's label for debuggers, [first, first + count) of the step's workgroups along dimension axis; an indirect step whole. */
void vkm_step_record(vkm_device *device, VkCommandBuffer commands, const struct vkm_step *step, uint32_t axis, uint32_t first, uint32_t count);
/* The dimension with the most workgroups, along which a step that takes too long goes in pieces; an indirect one cannot. */
uint32_t vkm_step_axis(const struct vkm_step *step);
double vkm_op_seconds(const vkm_device *device, const struct vkm_op *op);   /* by the cost model in program.c, which errs on the long side */
void vkm_op_copy(vkm_device *device, VkCommandBuffer commands, const struct vkm_op *op);
/* The barrier before op i. Among steps alone compute barriers do; copies before it need more. timed: there is one before every op. */
void vkm_op_barrier(const vkm_program *program, VkCommandBuffer commands, uint32_t i, bool copies, bool timed);
vkm_result vkm_program_record(vkm_program *program, enum vkm_record how, VkQueryPool queries, struct vkm_recording *out, vkm_error *err);
void vkm_recording_free(vkm_program *program, struct vkm_recording *recording);
vkm_result vkm_recording_submit(vkm_program *program, const struct vkm_recording *recording, uint32_t repeat, uint64_t *ticket, vkm_error *err);

#endif
