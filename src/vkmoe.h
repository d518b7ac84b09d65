/* vkmoe: Mixture-of-Experts inference on any Vulkan GPU.
 *
 * This is the whole public interface and the only installed header. It compiles as C99, C11 and C++17 and needs no Vulkan header.
 *
 * Errors        Every fallible function returns vkm_result. Its outputs are untouched on failure. The optional last argument
 *               `err` receives the code and a sentence that names the file, tensor, key or limit; it may be NULL.
 * Ownership     `*_create`, `*_load` and `*_open` return objects owned by the caller; `*_destroy(NULL)` does nothing.
 *               An object borrows what it was made from: model from device, session from model. Destroy in reverse order.
 * Params        Structs start with `struct_size`; set it to sizeof(the struct), zero the rest: zero means the documented default.
 * Paths         are UTF-8, on Windows too.
 * Threads       The library has no globals. Different devices are independent, also two on one VkDevice. The objects of one device (itself, its models, their sessions) are used by one
 *               thread at a time: any threads, in turns, by a lock of the caller's. What may be called beside others says so ("any thread"). A vkm_tokenizer is immutable after it is
 *               made and may be shared; a vkm_detokenizer is one thread's at a time, whatever others do. The library keeps no thread: loading a model and compiling kernels (the
 *               first pass of each size) use several, which end before the call returns.
 */
#ifndef VKMOE_H
#define VKMOE_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#  define VKM_API
#else
#  define VKM_API __attribute__((visibility("default")))
#endif

#define VKM_VERSION_MAJOR 0
#define VKM_VERSION_MINOR 1
#define VKM_VERSION_PATCH 0

/* ---------------------------------------------------------------- results */

#define VKM_RESULTS(X)                                                              \
    X(OK,                   0, "ok")                                                \
    X(ERR_ARGUMENT,        -1, "invalid argument")                                  \
    X(ERR_IO,              -2, "file cannot be read or written")                    \
    X(ERR_FORMAT,          -3, "malformed file")                                    \
    X(ERR_UNSUPPORTED,     -4, "not supported")                                     \
    X(ERR_HOST_MEMORY,     -5, "out of host memory")                                \
    X(ERR_DEVICE_MEMORY,   -6, "out of device memory")                              \
    X(ERR_NO_DEVICE,       -7, "no usable Vulkan device")                           \
    X(ERR_DEVICE_LOST,     -8, "the device was lost")                               \
    X(ERR_VULKAN,          -9, "a Vulkan call failed")                              \
    X(ERR_LIMIT,          -10, "a device limit is too low")                         \
    X(ERR_CONTEXT_FULL,   -11, "the context is full")                               \
    X(ERR_CANCELLED,      -12, "cancelled by the caller")

typedef enum vkm_result {
#define VKM_X(name, value, text) VKM_##name = value,
    VKM_RESULTS(VKM_X)
#undef VKM_X
    VKM_RESULT_FORCE_INT = 0x7fffffff
} vkm_result;

typedef struct vkm_error {
    vkm_result code;
    char message[512];
} vkm_error;

VKM_API const char *vkm_result_name(vkm_result r); /* "VKM_ERR_IO"; static storage. Any thread */
VKM_API const char *vkm_result_text(vkm_result r); /* "file cannot be read or written". Any thread */
VKM_API const char *vkm_version(void);             /* "0.1.0". Any thread */

typedef enum vkm_log_level { VKM_LOG_ERROR, VKM_LOG_WARN, VKM_LOG_INFO, VKM_LOG_DEBUG } vkm_log_level;
/* Called on the thread that is inside a vkm_ function of that device, never on one that loads or compiles. `text` is valid during the call only. Must not call back into the device. */
typedef void (*vkm_log_fn)(void *user, vkm_log_level level, const char *text);
/* Progress of something long: `done` of `total` bytes. Return false to cancel: the function returns VKM_ERR_CANCELLED. */
typedef bool (*vkm_progress_fn)(void *user, uint64_t done, uint64_t total);

/* ---------------------------------------------------------------- devices */

typedef struct vkm_device vkm_device;

typedef struct vkm_device_info {
    uint32_t index;              /* what vkm_device_params.select accepts; enumeration order of the Vulkan loader */
    char name[256];
    char driver[256];            /* "Mesa 22.3.6 (LLVM 15.0.6)", "SwiftShader driver 5.0.0" ... */
    const char *type;            /* "discrete", "integrated", "virtual", "cpu", "other" */
    uint32_t api_major, api_minor, api_patch;
    uint32_t vendor_id, device_id;
    uint64_t memory_bytes;       /* largest device-local heap */
    bool usable;                 /* has what vkmoe needs */
    char unusable_why[128];      /* empty when usable */
    char caps[256];              /* "subgroup 8, fp16, int8dot (not accelerated), coopmat 8x8x8, 128 MiB storage range, 32 KiB shared ..." */
} vkm_device_info;

/* Lists devices. `infos` may be NULL to ask for the count only. *count in: capacity, out: number of devices.
 * No device at all is VKM_OK with *count 0; a loader that cannot start is VKM_ERR_NO_DEVICE. Any thread. */
VKM_API vkm_result vkm_devices(vkm_device_info *infos, uint32_t *count, vkm_error *err);

/* A Vulkan device that the caller has made: for programs that draw with it. Handles are Vulkan's own (VkInstance and so on, which are pointers), so that this header needs no other.
 * Everything stays the caller's and must outlive the vkm_device; vkmoe makes its own objects on the device and destroys them with it, and never waits for more than its own work.
 * Where VK_EXT_debug_utils is enabled on the instance, they have names ("vkmoe workspace") and dispatches have labels. A debug messenger of the caller's is also called from threads that compile.
 * One queue is enough: vkmoe computes and copies on it. It may be any of a family's, shared with drawing (`lock`) or its own; best is one of vkm_wanted.queue_family with a lower
 * VkDeviceQueueCreateInfo.pQueuePriorities than what draws. */
typedef void (*vkm_void_fn)(void);

/* Device memory from the caller's own allocator, say VMA (examples/vma.cpp), instead of a vkAllocateMemory for each of vkmoe's buffers. These are few and large: weights and KV cache in
 * pieces of at most maxStorageBufferRange, and for each session a workspace, tables and a buffer that the host reads. */
typedef struct vkm_memory_request {
    uint64_t size, alignment;    /* bytes; of the offset. Both are multiples of nonCoherentAtomSize where `map` is set, so that flushes touch no neighbour */
    uint32_t types;              /* bit i: memory type i will do; not empty */
    uint32_t flags, avoid;       /* VkMemoryPropertyFlags that all of these types have, and that none has */
    bool map;                    /* the host writes or reads it, for as long as it is there */
    bool device_address;         /* needs VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT: only where the feature bufferDeviceAddress was enabled, on CPU drivers */
    const char *name;            /* of the buffer; valid during the call */
} vkm_memory_request;
typedef struct vkm_memory {      /* all zero when `allocate` is called */
    uint64_t memory;             /* VkDeviceMemory */
    uint64_t offset;             /* in it */
    uint32_t type;               /* its memory type, one of the request's */
    void *map;                   /* where the host sees `offset`; not looked at unless the request wants it */
    void *user;                  /* the allocator's own, such as a VmaAllocation */
} vkm_memory;
typedef struct vkm_memory_hooks {
    size_t struct_size;
    /* A VkResult. VK_ERROR_OUT_OF_DEVICE_MEMORY: asked again for the next best types, and VKM_ERR_DEVICE_MEMORY when there are none left. Nothing is released that was not had. */
    int32_t (*allocate)(void *user, const vkm_memory_request *request, vkm_memory *memory);
    void (*release)(void *user, const vkm_memory *memory);   /* the device is done with it */
    uint64_t (*available)(void *user);   /* bytes of the largest device-local heap that `allocate` can still give, told before anything is loaded.
                                            NULL: what VK_EXT_memory_budget has left or else the heap's size, which is less where the allocator holds empty blocks */
    void *user;                  /* all are called on the thread that is inside a vkm_ function of the device, and must not call back into it */
} vkm_memory_hooks;

typedef struct vkm_import {
    size_t struct_size;
    vkm_void_fn (*get_instance_proc_addr)(void *instance, const char *name);   /* PFN_vkGetInstanceProcAddr. NULL: that of the Vulkan loader, which is opened */
    uint32_t api_version;        /* VkApplicationInfo.apiVersion that the instance was made with; at least 1.1 */
    void *instance, *physical_device;
    /* from here on not for vkm_wanted_create */
    void *device, *queue;
    uint32_t queue_family;       /* of the queue; it must have VK_QUEUE_COMPUTE_BIT */
    const char *const *extensions;   /* enabled on the device */
    uint32_t n_extensions;
    const void *features;        /* the VkPhysicalDeviceFeatures2 of VkDeviceCreateInfo.pNext, with what is chained to it; what is not in there counts as not enabled. Not kept. */
    void (*lock)(void *user), (*unlock)(void *user);   /* around each vkQueueSubmit, where other threads use the queue too. NULL: none */
    void *lock_user;
    const void *allocator;       /* VkAllocationCallbacks of everything that is made on the device, from several threads; must outlive the vkm_device. NULL: the driver's own */
    uint64_t pipeline_cache;     /* VkPipelineCache, not one made to be synchronised externally: pipelines are made with it, and cache_path and cache_data are not looked at. 0: none */
    const vkm_memory_hooks *memory;   /* copied. NULL: vkAllocateMemory */
} vkm_import;

/* What vkmoe can use of a physical device: enabling all of it gives the caps that vkm_device_create alone would have. Needed are timelineSemaphore and
 * shaderStorageBufferArrayDynamicIndexing; without any of the others there is less to choose kernels from. */
typedef struct vkm_wanted {
    bool usable;                 /* has what is needed */
    char unusable_why[128];
    uint32_t queue_family;       /* computes; no graphics where there is such a family, which then does not compete with drawing */
    const char *const *extensions;
    uint32_t n_extensions;
    const void *features;        /* a VkPhysicalDeviceFeatures2 with a chain: VkDeviceCreateInfo.pNext as it is, or to be merged with the caller's own */
} vkm_wanted;
VKM_API vkm_result vkm_wanted_create(const vkm_import *of, vkm_wanted **wanted, vkm_error *err);   /* any thread */
VKM_API void vkm_wanted_destroy(vkm_wanted *wanted);   /* any thread */

typedef enum vkm_priority { VKM_PRIORITY_DEFAULT = 0, VKM_PRIORITY_LOW = 1 } vkm_priority;

typedef struct vkm_device_params {
    size_t struct_size;
    const char *select;          /* NULL: best (discrete > integrated > virtual > cpu). "0": by index. else: part of the name, case-insensitive */
    const char *caps;            /* NULL: what the device has, in f32 arithmetic. "baseline" | "subgroup": less; "fp16" (f16 products, f32 sums), "int8dot" (activations as
                                    int8, int32 sums), "coopmat" (f16 matrices, f32 sums; a token's bits then depend on how many share its tile): kernels that are less
                                    exact, where the device has them and they may be faster; "fast": coopmat on a GPU that has it, which is what the program takes. On CPU drivers "gather", "texel" or "scalar": how
                                    kernels load, instead of what is the fastest. Then optional clamps: "baseline,range=1048576,shared=16384,invocations=128,slabs=1" */
    const char *cache_path;      /* pipeline cache file. NULL: no cache on disk. */
    bool validation;             /* VK_LAYER_KHRONOS_validation if installed; messages go to `log` as VKM_LOG_ERROR and are counted */
    vkm_log_fn log;
    void *log_user;
    const vkm_import *import;    /* NULL: vkmoe makes its own instance and device. Else `select`, `validation` and `priority` must not be set. A feature that is needed and not enabled is VKM_ERR_UNSUPPORTED */
    const void *cache_data;      /* [cache_bytes] of vkm_device_pipeline_cache_data, instead of cache_path; borrowed during the call. What is damaged, or of another device, driver or
                                    version, is not used, and logged as VKM_LOG_INFO. Like a program, nothing to take from strangers */
    size_t cache_bytes;
    vkm_priority priority;       /* VKM_PRIORITY_LOW: the desktop and other programs go first, where the driver has VK_KHR_global_priority or VK_EXT_global_priority; logged as VKM_LOG_INFO where not */
} vkm_device_params;

/* Any thread. */
VKM_API vkm_result vkm_device_create(const vkm_device_params *params, vkm_device **device, vkm_error *err);
/* Waits for vkmoe's work on the device: one that vkm_device_wait_for holds back must be let go before. */
VKM_API void vkm_device_destroy(vkm_device *device);
VKM_API void vkm_device_get_info(const vkm_device *device, vkm_device_info *info);   /* any thread */
/* Number of validation messages of warning severity or above so far. Any thread. */
VKM_API uint32_t vkm_device_validation_count(const vkm_device *device);

/* Everything that was compiled so far, for the next start: cache_data, or the content of a file for cache_path. *bytes in: capacity of data, out: number needed; when that is more than
 * the capacity, nothing is written and the result is still VKM_OK, so that a first call with capacity 0 sizes the buffer. VKM_ERR_ARGUMENT where the cache is the import's. */
VKM_API vkm_result vkm_device_pipeline_cache_data(vkm_device *device, void *data, size_t *bytes, vkm_error *err);

/* Hand-over between vkmoe's own submissions (vkm_model_load, vkm_session_*; not what is recorded into a command buffer of the caller's) and other queues of an imported device, by timeline
 * semaphores (VkSemaphore) of the caller's. For binary ones there is an empty submission of the caller's.
 * wait_for: the next submission, and so all that come after it, start once the semaphore has the value. Several before one submission all count, at most 8 semaphores. What is to signal it
 * must not be behind it on the same queue; a call that blocks waits too.
 * signal: submits that the semaphore gets the value when all that vkmoe has submitted to the queue so far is done, and what others have. Does not block. */
VKM_API vkm_result vkm_device_wait_for(vkm_device *device, uint64_t semaphore, uint64_t value, vkm_error *err);
VKM_API vkm_result vkm_device_signal(vkm_device *device, uint64_t semaphore, uint64_t value, vkm_error *err);

/* ---------------------------------------------------------------- routers */

/* How tokens find their experts: everything between the router's product with x and the experts. For a token x of n, E = n_expert experts, k = n_used:
 *
 *     z = W x + logit_bias                      f32, W [rows][n_embd], rows = vkm_router_rows(); then cap * tanh(z / cap) with a soft cap, then noise
 *     s = score(z)                              of every expert
 *     c = s + selection_bias                    decides only; weights come from s. Without selection_bias and VKM_GROUPS_SUM_OF_TWO c is z itself, in which saturation ties nothing
 *     ids = the k largest c, in descending order, of the groups that are looked at
 *     w = s[ids]; renormalised; times scale; times expert_scale[ids]
 *     y = sum over j of w[j] Expert[ids[j]](x)
 *
 * A slot is a pair of a token and one of its choices, slot t k + j for VKM_SELECT_TOP_K. A slot may be dropped: its id is VKM_ROUTER_DROPPED, its weight 0, and it adds nothing (the
 * caller's residual stream passes the token by). Ties go to the lowest expert (or token) index. A logit that is NaN is the last to be chosen and has score 0; infinite ones count as
 * the largest finite number. So ids are always in range and weights always numbers where noise, biases and scales are. The same inputs give the same bits; what a token gets does
 * not depend on the batch but where a rule says so (capacity, expert choice, soft MoE). E is at most 1,024, k at most 32. */
#define VKM_ROUTER_DROPPED 0xffffffffu

typedef enum vkm_router_select {
    VKM_SELECT_TOP_K = 0,        /* a token chooses k experts (Shazeer et al. 2017, arXiv 1701.06538; GShard, 2006.16668; Switch, 2101.03961; every MoE language model since) */
    VKM_SELECT_EXPERT_CHOICE,    /* an expert chooses C tokens: the largest s of its own (Zhou et al. 2022, 2202.09368; the score there is softmax over experts). C as under capacity,
                                    with k = 1: the paper's n c / e with c = capacity_factor. Slot e C + i is the i-th of expert e's tokens in ascending order, and where ids are
                                    given out they are those tokens'. n_used must be 0; of the scores softmax, sigmoid, sqrt-softplus and identity; no renormalising */
    VKM_SELECT_HASH,             /* ids = hash_table[token id] (Roller et al. 2021, 2106.04426: score uniform, no W; DeepSeek-V4's first layers: the scores of those experts).
                                    Input: token ids u32 [n] */
    VKM_SELECT_FORCED,           /* ids are an input, u32 [n][k]; weights too, f32 [n][k], used as they are; or, where none are given, made of the scores */
    VKM_SELECT_HIERARCHICAL,     /* two levels (Shazeer et al. 2017, appendix B): n_groups_used of n_groups groups by the logits of groups, then n_used / n_groups_used experts in
                                    each by theirs, in descending order at both levels; s is the product of the group's score among groups and the expert's among those of its group.
                                    Score selected (the paper's) or softmax. W has E rows of experts, then n_groups rows of groups */
    VKM_SELECT_SOFT              /* soft MoE (Puigcerver et al. 2023, 2308.00951): p = slots_per_expert. W has E p rows, row e p + i being slot i of expert e. Over z [n][E p]: D
                                    softmax over tokens, C softmax over slots; experts work on rows D^T x, and y = C times what comes out. Of the rest only
                                    logit_bias applies. The norms of the paper's section 2.3 are the caller's: W comes normalised and scaled, x is used as it is */
} vkm_router_select;

typedef enum vkm_router_score {
    VKM_ROUTER_SOFTMAX = 0,      /* exp(z) / sum over all E of exp(z): Mixtral, OLMoE, Qwen-MoE, DeepSeek-V2, ERNIE-4.5 (with selection_bias), Switch, GShard, NLLB */
    VKM_ROUTER_SELECTED,         /* softmax over the k chosen: Granite, gpt-oss, Shazeer 2017 */
    VKM_ROUTER_SIGMOID,          /* 1 / (1 + exp(-z)): DeepSeek-V3, Kimi, GLM-4.5, LFM2, Ling 2.0, MiniMax-M2, Nemotron-3; Llama-4 */
    VKM_ROUTER_SQRT_SOFTPLUS,    /* sqrt(log(1 + exp(z))): DeepSeek-V4 */
    VKM_ROUTER_IDENTITY,         /* z: Mixture-of-Depths (Raposo et al. 2024, 2404.02258) */
    VKM_ROUTER_SPARSEMIXER,      /* Phi-3.5-MoE at inference (Liu et al. 2023, 2310.00811): the choice with logit m has exp(m) / sum of exp(z) over itself and those not chosen
                                    before it whose (m - z) / max(|z|, m) is at most 2 jitter. VKM_SELECT_TOP_K only */
    VKM_ROUTER_UNIFORM           /* 1 for every expert; nothing is computed of x. VKM_SELECT_HASH and VKM_SELECT_FORCED only: then there is no W */
} vkm_router_score;

typedef enum vkm_router_renormalise {
    VKM_RENORMALISE_NONE = 0,
    VKM_RENORMALISE_CHOSEN,      /* w / (max(sum, sum_min) + sum_add), the sum being over the k chosen */
    VKM_RENORMALISE_KEPT         /* the same over those that were not dropped (NLLB-MoE unless normalize_router_prob_before_dropping) */
} vkm_router_renormalise;

typedef enum vkm_router_groups {
    VKM_GROUPS_MAX = 0,          /* the largest c of the group: DeepSeek-V2 */
    VKM_GROUPS_SUM_OF_TWO        /* the sum of its two largest c: DeepSeek-V3, Ling 2.0; of its only one where groups have one expert */
} vkm_router_groups;

typedef enum vkm_router_noise {
    VKM_NOISE_NONE = 0,
    VKM_NOISE_ADDED,             /* z += noise; the noise is an input, f32 [n][L], L being E, or E + n_groups (hierarchical) */
    VKM_NOISE_SCALED             /* noisy top-k (Shazeer et al. 2017, equation 4): z += noise * log(1 + exp(W_noise x)). The noise is an input as above, standard normal there; W has
                                    L more rows behind the others, those of W_noise. logit_bias and soft cap are for the first L rows only */
} vkm_router_noise;

typedef enum vkm_router_capacity {
    VKM_CAPACITY_NONE = 0,
    VKM_CAPACITY_POSITION,       /* an expert takes the first C slots that chose it: all tokens' first choices in order of position, then all second choices, and so on (GShard
                                    algorithm 1, NLLB; with k = 1 Switch) */
    VKM_CAPACITY_PRIORITISED     /* the same with the tokens in descending order of their largest w before it is renormalised (batch-prioritised routing, V-MoE, Riquelme et al. 2021, 2106.05974) */
} vkm_router_capacity;

typedef struct vkm_router_desc {
    size_t struct_size;
    vkm_router_select select;
    vkm_router_score score;
    uint32_t n_used;             /* k: experts of a token, at most n_expert and 32. 0 for expert choice and soft MoE */
    vkm_router_renormalise renormalise;
    float sum_min, sum_add;      /* sum_min 0: 2^-14, as llama.cpp has it for all models (ERNIE: 1e-12). sum_add: LFM2 1e-6, DeepSeek-V3 1e-20 */
    float scale;                 /* routed_scaling_factor; 0: 1 */
    const float *expert_scale;   /* [E], Gemma-4; NULL: 1. This and the arrays below are copied by the call that takes the description */
    const float *logit_bias;     /* [rows, without those of noise]: gpt-oss, and whatever has a router with a linear bias; NULL: none */
    const float *selection_bias; /* [E], e_score_correction_bias; NULL: none. Top-k of softmax, sigmoid, sqrt-softplus and identity scores only */
    float logit_softcap;         /* Grok: 30; 0: none */
    uint32_t n_groups, n_groups_used;   /* at most 256. Top-k: n_groups 0 or 1: no groups; else it divides E, and only the experts of the n_groups_used groups with the largest group scores are
                                           looked at. Hierarchical: see there */
    vkm_router_groups group_score;
    float jitter;                /* sparsemixer; 0: 0.01 */
    vkm_router_noise noise;
    vkm_router_capacity capacity;       /* top-k, hash, forced and hierarchical; expert choice always has one */
    float capacity_factor;       /* C = max(capacity_min, ceil(capacity_factor n k / E)), of the n tokens of the call; a millionth above a whole number does not count */
    uint32_t capacity_min;       /* With capacity_factor 0 it is C whatever n is; C 0 drops everything. Expert choice: C is at most n, and both 0 is an error */
    bool random_second;          /* GShard's random dispatch, k = 2: the second choice is dropped, before capacity is looked at, unless u < 2 w[1] (after renormalisation over the
                                    chosen, before scale). u: Philox-2x32-10 of (t, 0), keyed by an input of the call, upper 24 bits of the first word */
    const uint32_t *hash_table;  /* [n_table][k] expert ids. A token id beyond the table has all its slots dropped; so has an id beyond E (hash and forced) its slot, and an expert
                                    that a token has twice its second */
    uint32_t n_table;
    uint32_t slots_per_expert;   /* soft MoE; 0: 1 */
} vkm_router_desc;

/* Rows of W: 0 where no logits are needed. The layer's shared expert, if it is gated by x, has its gate's row behind them. */
VKM_API uint32_t vkm_router_rows(const vkm_router_desc *desc, uint32_t n_expert);
/* Slots of n tokens: what outputs by slot have room for. */
VKM_API uint32_t vkm_router_slots(const vkm_router_desc *desc, uint32_t n_expert, uint32_t n_tokens);

/* Numbers for monitoring, of one call: what a layer writes when asked to.
 * load_balance: E * sum over experts of f P, the auxiliary loss of Switch (equation 4) without its factor: f is the part of the slots that chose the expert, before capacity dropped
 * any, and P the mean over tokens of its probability; 1 when even. (transformers' load_balancing_loss_func has f by token: k times this.) Probabilities are softmax(z) over all E, but
 * sigmoid and sqrt-softplus scores divided by their sum (DeepSeek-V3, equation 18). Hierarchical: of the experts' logits alone. z_loss: the mean over tokens of (log sum exp z)^2
 * (ST-MoE, Zoph et al. 2022, 2202.08906, equation 5). n_dropped: slots; of expert choice tokens that no expert chose. most_rows: of one expert, after dropping. Of a uniform score
 * there are only these two, of soft MoE none. */
typedef struct vkm_router_statistics { float load_balance, z_loss; uint32_t n_dropped, most_rows; } vkm_router_statistics;

/* ---------------------------------------------------------------- the MoE layer alone */

/* A Mixture-of-Experts layer for programs with a Vulkan device and command buffers of their own: router, experts and shared expert, without norms, attention and residual. For a token x:
 *
 *     y = sum over its experts e of w_e Expert_e(x) + g Shared(x)          w: vkm_router_desc; g: 1, or sigmoid(shared_router . x)
 *     Expert(x) = down h + down_bias,   h = act(gate x + gate_bias) * (up x + up_bias),   or act(up x + up_bias) where there is no gate
 *
 * vkm_moe_layer_create repacks and uploads the weights and compiles every kernel that any number of tokens may need; vkm_moe_layer_record then only records: it allocates nothing, on host or
 * device, makes no Vulkan object, and neither submits nor waits.
 * Threads: as everywhere, the objects of a device by one thread at a time, recording included; the command buffer is the caller's alone. */
typedef struct vkm_moe_layer vkm_moe_layer;

typedef enum vkm_activation {
    VKM_ACTIVATION_SILU = 0,     /* v sigmoid(v): SwiGLU (Shazeer 2020, arXiv 2002.05202) of nearly all MoE language models */
    VKM_ACTIVATION_GELU_TANH,    /* v (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3))) / 2: GeGLU of Grok-1, Gemma-4; what GGUF models mean by gelu */
    VKM_ACTIVATION_GELU_ERF,     /* v (1 + erf(v / sqrt 2)) / 2: what PyTorch means by gelu */
    VKM_ACTIVATION_RELU,         /* ReGLU: SmallThinker; without a gate Switch, NLLB-MoE */
    VKM_ACTIVATION_RELU_SQUARED  /* max(v, 0)^2 (So et al. 2021, 2109.08668): without a gate Nemotron-3 */
} vkm_activation;

typedef struct vkm_moe_layer_desc {
    size_t struct_size;
    uint32_t n_embd, n_ff, n_expert;     /* width of x and y, width of an expert, experts (at most 1,024) */
    uint32_t max_tokens;                 /* of one recording. The workspace grows with it, about max_tokens k (n_embd + n_ff) floats; larger than the device's storage range is VKM_ERR_LIMIT */
    const vkm_router_desc *router;       /* borrowed during the call, with what it points to */
    vkm_activation activation;           /* of routed and shared experts */
    float swiglu_alpha, swiglu_limit, swiglu_add;   /* SILU with a gate, where any is not 0: h = g sigmoid(alpha g) (u + add) with g cut at limit and u at +-limit. alpha 0: 1; limit 0: none.
                                                       gpt-oss: 1.702, 7, 1; DeepSeek-V4: 0, its limit, 0 */
    bool weight_before;                  /* Expert_e(w_e x) instead of w_e Expert_e(x): Llama-4 */
    uint32_t n_ff_shared;                /* width of the shared expert; 0: none. Several of equal width are one with their rows below each other */
    vkm_moe_layer *workspace_of;         /* NULL: a workspace of its own. Else that layer's, if it is large enough (VKM_ERR_LIMIT): for layers that are recorded one after another, such as those of one model */
    vkm_moe_layer *weights_of;           /* NULL: weights are given. Else that layer's (weights must be NULL; dimensions, router, activation, weight_before and shared expert are that layer's,
                                            too, and not looked at here): with a workspace of its own what it records may run beside what that layer recorded */
    const char *tuning_folder;           /* as vkm_session_params.tuning_folder */
} vkm_moe_layer_desc;

/* A matrix, or one for each expert: [n_expert][rows][cols], each row of blocks as GGUF has them. cols are a whole number of blocks. */
typedef struct vkm_moe_matrix {
    uint32_t type;                       /* ggml type id: 0 F32, 1 F16, 30 BF16, 2 Q4_0, 3 Q4_1, 6 Q5_0, 7 Q5_1, 8 Q8_0, 12 Q4_K, 13 Q5_K, 14 Q6_K */
    const void *data;                    /* NULL: absent */
    size_t n_bytes;                      /* from data to the end of the last expert's last row */
    size_t expert_stride;                /* bytes from an expert to the next; 0: one behind the other. 2 n_ff rows for gate and up that lie in one tensor */
} vkm_moe_matrix;

/* Borrowed during vkm_moe_layer_create. Types may differ from matrix to matrix. */
typedef struct vkm_moe_weights {
    size_t struct_size;
    vkm_moe_matrix router;               /* [vkm_router_rows()][n_embd], F32, F16 or BF16; kept as F32 */
    vkm_moe_matrix gate, up;             /* [n_expert][n_ff][n_embd]; gate absent: experts have none */
    vkm_moe_matrix down;                 /* [n_expert][n_embd][n_ff] */
    const float *gate_bias, *up_bias;    /* [n_expert][n_ff], NULL: none */
    const float *down_bias;              /* [n_expert][n_embd]; multiplied by the weight as the product is */
    vkm_moe_matrix shared_gate, shared_up, shared_down;   /* [n_ff_shared][n_embd], and [n_embd][n_ff_shared]; a gate if the experts have one */
    const float *shared_gate_bias, *shared_up_bias, *shared_down_bias;
    const float *shared_router;          /* [n_embd]: Qwen2-MoE's gate of the shared expert; NULL: it counts fully */
} vkm_moe_weights;

/* VKM_ERR_ARGUMENT or VKM_ERR_UNSUPPORTED, naming the matrix, for what does not fit together; VKM_ERR_LIMIT, VKM_ERR_DEVICE_MEMORY for what does not fit the device. Seconds on some drivers, which
 * is compiling; a pipeline cache makes it less. Submits to the device's queue, and waits. */
VKM_API vkm_result vkm_moe_layer_create(vkm_device *device, const vkm_moe_layer_desc *desc, const vkm_moe_weights *weights, vkm_moe_layer **layer, vkm_error *err);
/* Not before what was recorded has been executed (or never will be). Layers that share its workspace or weights may outlive it. */
VKM_API void vkm_moe_layer_destroy(vkm_moe_layer *layer);

#define VKM_MOE_ADD          1u          /* y += instead of y = */
#define VKM_MOE_NO_BARRIERS  2u          /* the caller places those towards its own commands */

/* A place in a buffer of the caller's. */
typedef struct vkm_moe_place {
    uint64_t buffer;                     /* VkBuffer; 0: not given, not wanted */
    uint64_t offset;                     /* bytes, a multiple of 4 */
} vkm_moe_place;

/* Buffers that are read need VK_BUFFER_USAGE_TRANSFER_SRC_BIT, those that are written TRANSFER_DST; with VKM_MOE_ADD y needs both. */
typedef struct vkm_moe_io {
    size_t struct_size;
    uint32_t flags;                      /* VKM_MOE_... */
    vkm_moe_place x, y;                  /* [n_tokens][n_embd] f32; may be the same */
    uint64_t x_stride, y_stride;         /* bytes from row to row, multiples of 4; 0: rows lie behind each other */
    /* what some routers want */
    vkm_moe_place token_ids;             /* [n_tokens] u32: VKM_SELECT_HASH */
    vkm_moe_place noise;                 /* f32, see vkm_router_noise */
    vkm_moe_place forced_ids;            /* [n_tokens][k] u32: VKM_SELECT_FORCED */
    vkm_moe_place forced_weights;        /* [n_tokens][k] f32, or not given */
    uint32_t seed;                       /* random_second */
    /* for monitoring */
    vkm_moe_place ids, weights;          /* [slots] u32 and f32, slots being vkm_router_slots(). Not of soft MoE */
    vkm_moe_place counts;                /* [n_expert] u32: rows of each expert, after dropping. This and what follows costs 4 dispatches; not of soft MoE */
    vkm_moe_place dropped;               /* [n_tokens] u32: how many of a token's slots were dropped; of expert choice 1 where no expert chose it */
    vkm_moe_place statistics;            /* vkm_router_statistics */
} vkm_moe_io;

/* Records the layer for n_tokens (0 to max_tokens; 0 is nothing) into a VkCommandBuffer that is being recorded, outside a render pass, for the queue family of the device (vkm_import). Binds compute
 * pipelines and descriptor sets, pushes constants. What was recorded must not overlap, on the device, with what was recorded of the same workspace; behind each other in one command buffer or in
 * one queue nothing overlaps.
 * Inputs are copied to the workspace by a transfer, and outputs from there. Unless VKM_MOE_NO_BARRIERS it begins with a barrier for everything before it on the queue (ALL_COMMANDS, MEMORY_WRITE) and ends
 * with one for everything after it (from TRANSFER_WRITE to ALL_COMMANDS and HOST, MEMORY_READ and MEMORY_WRITE). With it the caller makes its writes of inputs, and its other accesses to outputs, available to
 * TRANSFER (TRANSFER_READ, TRANSFER_WRITE) before, and waits for TRANSFER (TRANSFER_WRITE) after; recordings of one workspace are still ordered among each other.
 * Dispatches for one token of a plain top-k router: 5, plus 2 for a shared expert; for many 7 and more, by how the rows of experts are cut (vkm_moe_layer_print). */
VKM_API vkm_result vkm_moe_layer_record(vkm_moe_layer *layer, void *commands, const vkm_moe_io *io, uint32_t n_tokens, vkm_error *err);
/* The steps for n_tokens as text, as vkm_session_print. */
VKM_API size_t vkm_moe_layer_print(vkm_moe_layer *layer, uint32_t n_tokens, char *text, size_t size);

/* ---------------------------------------------------------------- models */

typedef struct vkm_model vkm_model;

typedef struct vkm_model_params {
    size_t struct_size;
    vkm_progress_fn progress;    /* called on the thread that is inside vkm_model_load */
    void *progress_user;
    uint32_t n_threads;          /* threads that read and repack the weights, the calling one among them. They end before vkm_model_load returns.
                                    0: as many as there are processors, at most 8. */
} vkm_model_params;

typedef struct vkm_model_info {
    char architecture[32];       /* general.architecture */
    char name[128];              /* general.name */
    uint64_t n_params, file_bytes, device_bytes;
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ctx_train, n_vocab;
    uint32_t n_expert, n_expert_used, n_ff_expert, n_ff_shared;
} vkm_model_info;

/* Loads a GGUF model (first part of a split one) into the device. Fails before anything is uploaded when it cannot fit. */
VKM_API vkm_result vkm_model_load(vkm_device *device, const char *path, const vkm_model_params *params, vkm_model **model, vkm_error *err);
VKM_API void vkm_model_destroy(vkm_model *model);
VKM_API void vkm_model_get_info(const vkm_model *model, vkm_model_info *info);   /* any thread */

/* ---------------------------------------------------------------- tokenizer */

typedef struct vkm_tokenizer vkm_tokenizer;

/* From a GGUF file, without a device. What takes a const vkm_tokenizer may be called from any thread, and so may this. */
VKM_API vkm_result vkm_tokenizer_open(const char *gguf_path, vkm_tokenizer **tokenizer, vkm_error *err);
VKM_API void vkm_tokenizer_destroy(vkm_tokenizer *tokenizer);
/* The model's own; borrowed, lives as long as the model. NULL if the file has none. Any thread. */
VKM_API const vkm_tokenizer *vkm_model_tokenizer(const vkm_model *model);

#define VKM_TOKENIZE_SPECIAL    1u   /* add bos / eos as the file asks */
#define VKM_TOKENIZE_PARSE      2u   /* control tokens written in the text (<|im_end|>) become tokens; never set it for untrusted text */
/* Text (UTF-8; invalid bytes are tokenised as bytes) to ids. *n_ids in: capacity of ids, out: number needed; when that is more than
 * the capacity, nothing beyond it is written and the result is still VKM_OK, so that a first call with capacity 0 sizes the buffer. */
VKM_API vkm_result vkm_tokenize(const vkm_tokenizer *t, const char *text, size_t n_text, uint32_t flags, int32_t *ids, size_t *n_ids, vkm_error *err);
VKM_API uint32_t vkm_tokenizer_n_vocab(const vkm_tokenizer *t);
/* Raw piece of a token as the file has it (bytes, not NUL-terminated); borrowed. */
VKM_API const char *vkm_tokenizer_piece(const vkm_tokenizer *t, int32_t id, size_t *n_bytes);
VKM_API int32_t vkm_tokenizer_bos(const vkm_tokenizer *t);      /* -1 if none */
VKM_API int32_t vkm_tokenizer_eos(const vkm_tokenizer *t);      /* -1 if none */
VKM_API bool vkm_tokenizer_is_end(const vkm_tokenizer *t, int32_t id); /* any end-of-generation token */

/* A stream of tokens back to text, which never ends inside a UTF-8 character. */
typedef struct vkm_detokenizer vkm_detokenizer;
VKM_API vkm_result vkm_detokenizer_create(const vkm_tokenizer *t, bool show_special, vkm_detokenizer **d, vkm_error *err);
VKM_API void vkm_detokenizer_destroy(vkm_detokenizer *d);
/* Feeds one id; *text is valid until the next call on d and holds only whole characters (maybe none: *n_text 0). */
VKM_API vkm_result vkm_detokenizer_push(vkm_detokenizer *d, int32_t id, const char **text, size_t *n_text, vkm_error *err);
/* What is left at the end, an incomplete character as U+FFFD. */
VKM_API vkm_result vkm_detokenizer_flush(vkm_detokenizer *d, const char **text, size_t *n_text, vkm_error *err);
VKM_API void vkm_detokenizer_reset(vkm_detokenizer *d);

/* ---------------------------------------------------------------- sessions */

/* A session holds sequences of tokens, each with its own KV cache, which are evaluated one by one (prompts) and generated together: one pass over the weights serves all that want
 * a token. What a sequence gets, logits and sampled tokens, is bit for bit the same alone and among others, and however its tokens are cut into calls. */
typedef struct vkm_session vkm_session;

typedef enum vkm_kv_type { VKM_KV_DEFAULT = 0 /* f16 */, VKM_KV_F16 = 1, VKM_KV_F32 = 2 } vkm_kv_type;

typedef struct vkm_session_params {
    size_t struct_size;
    uint32_t n_ctx;              /* tokens that a sequence may have; 0: the model's trained context, at most 4096. Rounded up to a multiple of 32 */
    uint32_t n_batch;            /* most tokens evaluated in one pass; 0: 512. At least n_seq; less where the workspace would not fit one buffer of the device */
    vkm_kv_type kv_type;
    bool audit;                  /* tests: run step by step, poison what a step does not declare as read, check what it did not declare as written */
    bool profile;                /* collect GPU time by step */
    uint32_t n_seq;              /* sequences, numbered from 0; 0: 1. Each takes its n_ctx tokens of KV cache and two rows of logits from the start */
    const char *tuning_folder;   /* where `vkmoe tune` keeps what it measured ($XDG_CACHE_HOME/vkmoe); borrowed during the call. What is there for this device, driver and build decides how
                                    many tokens a workgroup takes together, and whether "int8dot" is worth it for a type of weights; nothing, or a damaged file, is no error. It changes speed, and no bits but those that "coopmat" and "int8dot" make
                                    depend on that. NULL: as the device is thought to like */
    bool count_experts;          /* for vkm_session_expert_counts: a small dispatch more a layer and pass. Tokens and logits stay the same bits */
} vkm_session_params;

/* VKM_ERR_DEVICE_MEMORY if it will not fit, VKM_ERR_LIMIT if a buffer or binding of the device is too small for it; both before anything is allocated. */
VKM_API vkm_result vkm_session_create(vkm_model *model, const vkm_session_params *params, vkm_session **session, vkm_error *err);
VKM_API void vkm_session_destroy(vkm_session *session);
VKM_API uint32_t vkm_session_n_ctx(const vkm_session *session);   /* any thread */
VKM_API uint32_t vkm_session_n_seq(const vkm_session *session);   /* any thread */
VKM_API uint32_t vkm_session_n_past(const vkm_session *session, uint32_t seq);   /* tokens of the sequence, given and generated; 0 if there is no such sequence */
/* Forgets all tokens of a sequence from position n on (0: everything). */
VKM_API vkm_result vkm_session_rewind(vkm_session *session, uint32_t seq, uint32_t n, vkm_error *err);
/* Makes sequence `to` the first n tokens of sequence `from`, without evaluating them: a shared beginning of prompts is computed once. What `to` had is forgotten. Queued, not waited for. */
VKM_API vkm_result vkm_session_copy(vkm_session *session, uint32_t from, uint32_t to, uint32_t n, vkm_error *err);

/* Appends tokens [n_tokens] to a sequence. logits, if not NULL: [n_tokens][n_vocab] f32, every position, written by the call.
 * Blocks until done. Longer inputs than n_batch are cut into passes. VKM_ERR_CONTEXT_FULL, before anything is evaluated, if they do not fit. */
VKM_API vkm_result vkm_session_eval(vkm_session *session, uint32_t seq, const int32_t *tokens, size_t n_tokens, float *logits, vkm_error *err);

/* Sampling, all on the device, in this order: repetition penalty -> top-k -> top-p -> min-p -> temperature -> draw
 * (the order of llama.cpp). The draw is an inverse CDF over token ids in ascending order of the survivors, u from Philox-2x32-10 keyed by
 * `seed` with the position as counter: the same logits and seed give the same token on every device. */
typedef struct vkm_sampling_params {
    size_t struct_size;
    float temperature;           /* <= 0: greedy, lowest id on ties */
    uint32_t top_k;              /* 0: all */
    float top_p;                 /* >= 1 or 0: all */
    float min_p;                 /* 0: off */
    float repeat_penalty;        /* 0 or 1: off */
    uint32_t repeat_last_n;      /* 0: 64; at most 256 */
    uint32_t seed;
} vkm_sampling_params;

/* Called for every generated token: in the order of its sequence, and the n-th tokens of all sequences before the n+1-th of any. Return false to end this sequence after this token;
 * others go on. Must not call back into the session. */
typedef bool (*vkm_token_fn)(void *user, uint32_t seq, int32_t token);

/* What one sequence is to get. In an array the struct_size of the first element holds for all. */
typedef struct vkm_generation {
    size_t struct_size;
    uint32_t seq;                /* not empty; a sequence may be there once */
    bool ignore_end;             /* go on after an end-of-generation token */
    const vkm_sampling_params *sampling;   /* borrowed during the call; NULL: greedy */
    size_t n_tokens;             /* most tokens to generate; 0: until something else ends it */
    size_t n_generated;          /* out */
} vkm_generation;

/* Generates tokens for `n` sequences [n] in lock-step, on the device: samples from each one's last logits, evaluates what was sampled in one pass, samples again, and so on. A sequence ends
 * after n_tokens, at an end-of-generation token (which is reported) unless ignore_end, when its context is full, or when on_token (may be NULL) says so; the call returns when all have ended.
 * They may be of any lengths; a pass serves those that are left. May be called again to go on, and any sequence may be evaluated, rewound or copied in between.
 * If it fails (device lost) the sequences hold the tokens that were reported. */
VKM_API vkm_result vkm_session_generate(vkm_session *session, vkm_generation *sequences, size_t n, vkm_token_fn on_token, void *user, vkm_error *err);

/* ---------------------------------------------------------------- sessions in a frame */

/* For programs that draw. What sequences are to do is queued; then it is recorded, a slice a frame, into command buffers of the caller's. A slice is whatever fits the budget: it begins and
 * ends at any step of a pass over the weights, so a token may take many frames, or a frame hold many tokens. Recording makes no Vulkan object, allocates no memory, and neither submits nor waits.
 * The tokens are bit for bit those of vkm_session_eval and vkm_session_generate, whatever the slices.
 *
 *     vkm_session_queue_eval(session, seq, prompt, n, &err);  vkm_session_queue_generate(session, &generation, &err);       any time; may compile kernels
 *     every frame:  vkm_session_record(session, commands, &budget, &slice[frame], &err);                                     and submit, with a fence
 *     its fence is signalled:  vkm_session_completed(session, &slice[frame], on_token, user, &err);                          tokens arrive
 *
 * Prompts are evaluated in the order in which they were queued, one at a time, in chunks of at most n_batch tokens; all sequences that generate get their next token in one pass, between chunks.
 * While slices are in flight (recorded and not yet completed) functions that run something themselves are VKM_ERR_ARGUMENT: vkm_session_eval, _generate, _copy, _save, _restore;
 * and on a sequence with queued work so is _rewind. Recording needs a session without `audit` and `profile`. A session is destroyed when the device is done with its slices.
 * Threads: as everywhere, the objects of a device by one thread at a time; the command buffer is the caller's alone. */

/* Compiles and allocates everything that recording will need for prompts of up to n_tokens (0: of any length) while up to n_generating sequences (0: all) generate; with the queue functions a
 * frame would wait for that. Of what they need themselves they do the same. May take seconds the first time, with a pipeline cache less. Host memory: about 1.4 KiB a step of each program;
 * a program for each number of generating sequences, and two for each power of two of prompt tokens. */
VKM_API vkm_result vkm_session_prepare(vkm_session *session, uint32_t n_tokens, uint32_t n_generating, vkm_error *err);

/* Queues tokens [n_tokens], which are copied, to be appended to a sequence, behind what is queued for it already. If the sequence is empty and another one holds the same first tokens
 * when its turn comes, their keys and values are copied from there instead of being computed again; so a prompt that many share is computed once, also if all are queued at the same time.
 * VKM_ERR_CONTEXT_FULL if they do not fit, VKM_ERR_ARGUMENT if a generation is queued: cancel it, or wait for its end. */
VKM_API vkm_result vkm_session_queue_eval(vkm_session *session, uint32_t seq, const int32_t *tokens, size_t n_tokens, vkm_error *err);
/* Queues the generation of tokens behind what is queued for that sequence; everything of `generation` is as for vkm_session_generate and copied, n_generated is not used.
 * VKM_ERR_ARGUMENT if the sequence is and will be empty, or has a generation already. */
VKM_API vkm_result vkm_session_queue_generate(vkm_session *session, const vkm_generation *generation, vkm_error *err);
/* Drops what is queued for a sequence. It keeps the tokens that were evaluated or delivered; what slices in flight still do for it does not count. Not waited for, and no error if nothing is queued. */
VKM_API vkm_result vkm_session_cancel(vkm_session *session, uint32_t seq, vkm_error *err);

typedef enum vkm_ending { VKM_END_NONE = 0, VKM_END_LENGTH = 1 /* n_tokens were generated */, VKM_END_TOKEN = 2 /* end-of-generation token */, VKM_END_CONTEXT = 3 /* the context is full */,
                          VKM_END_CALLER = 4 /* on_token said so */, VKM_END_CANCELLED = 5 } vkm_ending;
typedef struct vkm_sequence_status {
    uint32_t n_past;             /* tokens, as vkm_session_n_past: prompt tokens count when the last slice with them is recorded, generated ones when they are delivered */
    uint32_t n_queued;           /* prompt tokens that are not yet */
    bool generating;             /* a generation is queued, or its tokens are still being delivered */
    uint32_t n_ahead;            /* tokens that slices in flight generate */
    size_t n_generated;          /* tokens delivered of the last generation */
    vkm_ending ending;           /* how the last generation ended; VKM_END_NONE: there was none, or it goes on */
} vkm_sequence_status;
VKM_API vkm_result vkm_session_status(const vkm_session *session, uint32_t seq, vkm_sequence_status *status, vkm_error *err);

/* Bounds of a slice, which has at most 16 tokens of a sequence in any case. NULL or both zero: whole passes until they are expected to take 50 ms, so that text streams and no watchdog bites. */
typedef struct vkm_budget {
    size_t struct_size;
    uint32_t max_us;             /* GPU time in microseconds; 0: no bound. Kept by what steps of the same kernel and size took in earlier slices (until there were some, by a guess from the kind of
                                    device, which errs on the long side), with a margin, so that 19 of 20 slices take no longer. A step that takes longer alone is recorded in pieces if it can be,
                                    else it is a slice */
    uint32_t max_dispatches;     /* dispatches, and copies of KV caches or results; 0: no bound */
} vkm_budget;

/* A slice in a command buffer; all of it is set by vkm_session_record. */
typedef struct vkm_slice {
    uint64_t number;             /* 1, 2, ...; 0: nothing was recorded */
    bool more;                   /* there is queued work that no slice holds yet */
    uint32_t n_dispatches;
    double expected_us;
    double measured_us;          /* out of vkm_session_completed by timestamps; 0 where the queue has none. A caller that has timed it may set it before: then that counts */
} vkm_slice;

/* Records the next slice of the queued work into a VkCommandBuffer that is being recorded, outside a render pass, for a queue of the device's family (vkm_wanted, vkm_import). It binds compute pipelines and
 * descriptor sets, pushes constants, resets and writes queries of its own. Slices must be executed once and in the order of their numbers: submit them to one queue in that order,
 * or with semaphores. With nothing to do, with 16 slices in flight, or 128 tokens of every sequence in them, nothing is recorded and slice->number is 0, which is no error. */
VKM_API vkm_result vkm_session_record(vkm_session *session, void *commands, const vkm_budget *budget, vkm_slice *slice, vkm_error *err);
/* Says that the device has finished a slice, and so those before it; not called for one that is 0. Reports their tokens as vkm_session_generate does, and learns from their timestamps. A sequence that ends here has perhaps been
 * recorded further in slices in flight; those tokens are dropped. It does not wait. */
VKM_API vkm_result vkm_session_completed(vkm_session *session, vkm_slice *slice, vkm_token_fn on_token, void *user, vkm_error *err);
/* Says that the slices in flight have not been executed and never will be (the frame was dropped): what they held is queued again. Those that were executed must be completed before. */
VKM_API vkm_result vkm_session_discard(vkm_session *session, vkm_error *err);
/* All of it on the library's own queue: records a slice, submits it, waits for it, reports its tokens. slice->more says whether to call it again. */
VKM_API vkm_result vkm_session_step(vkm_session *session, const vkm_budget *budget, vkm_slice *slice, vkm_token_fn on_token, void *user, vkm_error *err);

/* A sequence as bytes: its tokens and its KV cache. *bytes in: capacity of data, out: bytes needed; when that is more than the capacity nothing is written and the result is still VKM_OK.
 * Sampling parameters are not in it. Of a sequence without queued work; waits for the device. */
VKM_API vkm_result vkm_session_save(vkm_session *session, uint32_t seq, void *data, size_t *bytes, vkm_error *err);
/* Makes a sequence what was saved, in this or another session of the same model and kv_type, whose n_ctx may be another: it goes on with the same bits. The bytes need not be trusted: what is not
 * a saved sequence is VKM_ERR_FORMAT, one of another model or kv_type VKM_ERR_ARGUMENT, one that is too long VKM_ERR_CONTEXT_FULL, and the sequence is then as it was. */
VKM_API vkm_result vkm_session_restore(vkm_session *session, uint32_t seq, const void *data, size_t bytes, vkm_error *err);

/* Device memory of a model and a session, in bytes as the driver will count them. */
typedef struct vkm_memory_needs {
    uint64_t weights;
    uint64_t kv;
    uint64_t workspace;          /* and tables */
    uint64_t readback;           /* host memory that the device can write */
    uint64_t total;              /* of the above */
    uint64_t staging;            /* more of host memory while the model is loaded */
    uint64_t available;          /* device memory that is left, before anything of this; 0 without a device */
} vkm_memory_needs;
/* What vkm_model_load and vkm_session_create with these params (NULL: defaults) would allocate; reads the file's head, allocates nothing on the device. device NULL: as on a GPU with buffers of up
 * to 4 GiB, to within a few KiB. VKM_ERR_LIMIT as they would. */
VKM_API vkm_result vkm_memory_estimate(vkm_device *device, const char *path, const vkm_session_params *params, vkm_memory_needs *memory, vkm_error *err);

/* ---------------------------------------------------------------- what experts do */

/* How many token slots each expert has been given since the session was created, over all sequences, prompts and passes that the device has finished: counts [n_layer][n_expert] u32, written by the call, which wrap.
 * A layer's sum grows by n_expert_used for each token that is evaluated; two calls' differences are the load between them. Does not wait: while work is in flight a pass may be partly there.
 * All that ran counts: also tokens of slices past a sequence's end, and those that a slice evaluates once more. VKM_ERR_ARGUMENT without params.count_experts. */
VKM_API vkm_result vkm_session_expert_counts(vkm_session *session, uint32_t *counts, vkm_error *err);

/* ---------------------------------------------------------------- texts for people */

/* Writes a program of the session as text, a line a step: name, variant, workgroups, reads, writes, barriers. decode false: the one that evaluates n tokens of a sequence;
 * true: the one that makes a token of each of n sequences. n is clamped to what the session can do.
 * With params.profile also the GPU time of its last run. Returns the length needed, like snprintf. */
VKM_API size_t vkm_session_print(vkm_session *session, uint32_t n, bool decode, char *text, size_t size);

/* The table of kernel variants of the library: a line each "name variant tier requires unavailable-why". Like snprintf. device may be NULL. Any thread. */
VKM_API size_t vkm_kernels_print(const vkm_device *device, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
