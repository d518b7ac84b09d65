/* Modules to pipelines, one layout for all, and the descriptor sets they read. */
#include "internal.h"
#include "workers.h"
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------ layout and cache */

enum { BIND_SLABS, BIND_WORKSPACE, BIND_KV, BIND_TABLES, BIND_BUFFERS, BIND_COUNT = BIND_BUFFERS + VKM_TEXEL_VIEWS };   /* texel buffers last: with caps.texel_loads only */
static uint32_t n_bindings(const struct vkm_caps *caps) { return caps->texel_loads ? BIND_COUNT : BIND_BUFFERS; }

vkm_result vkm_kernels_create(vkm_device *device, vkm_error *err)
{
    const struct vkm_caps *caps = &device->caps;
    uint32_t counts[BIND_BUFFERS] = {[BIND_SLABS] = caps->slabs, [BIND_WORKSPACE] = 1, [BIND_KV] = caps->kv_slabs, [BIND_TABLES] = 1};
    VkDescriptorSetLayoutBinding bindings[BIND_COUNT];
    for (uint32_t i = 0; i < n_bindings(caps); i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i, .descriptorType = i < BIND_BUFFERS ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER,
            .descriptorCount = i < BIND_BUFFERS ? counts[i] : 1, .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkResult r = device->vk.vkCreateDescriptorSetLayout(device->handle, &(VkDescriptorSetLayoutCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO, .bindingCount = n_bindings(caps), .pBindings = bindings}, device->allocator, &device->set_layout);
    if (r == VK_SUCCESS)
        r = device->vk.vkCreatePipelineLayout(device->handle, &(VkPipelineLayoutCreateInfo){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, .setLayoutCount = 1, .pSetLayouts = &device->set_layout,
            .pushConstantRangeCount = 1, .pPushConstantRanges = &(VkPushConstantRange){.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = VKM_PUSH_BYTES},
        }, device->allocator, &device->pipeline_layout);
    void *data = NULL;
    size_t bytes = 0;
    if (r == VK_SUCCESS) vkm_cache_load(device, &data, &bytes);
    if (r == VK_SUCCESS && !device->borrowed_cache)
        r = device->vk.vkCreatePipelineCache(device->handle, &(VkPipelineCacheCreateInfo){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO, .initialDataSize = bytes, .pInitialData = data}, device->allocator, &device->pipeline_cache);
    free(data);
    return r == VK_SUCCESS ? VKM_OK : vkm_fail_vk(device, err, r, "making the pipeline layout of %s", caps->device_name);
}

void vkm_kernels_destroy(vkm_device *device)
{
    vkm_error e;
    if (device->cache_path && device->cache_dirty && !device->lost && vkm_kernels_save_cache(device, &e))
        vkm_logf(device, VKM_LOG_WARN, "the pipeline cache is not saved: %s", e.message);
    for (uint32_t i = 0; i < device->n_kernel_slots; i++) {
        if (!device->kernels[i]) continue;
        device->vk.vkDestroyPipeline(device->handle, device->kernels[i]->pipeline, device->allocator);
        free(device->kernels[i]);
    }
    free(device->kernels);
    if (!device->borrowed_cache) device->vk.vkDestroyPipelineCache(device->handle, device->pipeline_cache, device->allocator);
    device->vk.vkDestroyPipelineLayout(device->handle, device->pipeline_layout, device->allocator);
    device->vk.vkDestroyDescriptorSetLayout(device->handle, device->set_layout, device->allocator);
}

/* ------------------------------------------------ kernels */

static uint64_t hash_key(const struct vkm_module *module, const uint32_t *spec, uint32_t n_spec)
{
    uint64_t h = vkm_hash(VKM_HASH_START + (uint64_t)(module - vkm_modules), spec, n_spec * sizeof *spec);
    return h ^ h >> 32;
}

/* The slot that has the key, or the empty one where it goes. */
static struct vkm_kernel **find_slot(struct vkm_kernel **slots, uint32_t n, const struct vkm_module *module, const uint32_t *spec, uint32_t n_spec)
{
    for (uint64_t i = hash_key(module, spec, n_spec);; i++) {
        struct vkm_kernel **slot = &slots[i & (n - 1)], *k = *slot;
        if (!k || (k->module == module && k->n_spec == n_spec && !memcmp(k->spec, spec, n_spec * sizeof *spec))) return slot;
    }
}

/* Keeps a quarter of the slots free. */
static bool grow_table(vkm_device *device)
{
    if (device->n_kernels + 1 <= device->n_kernel_slots / 4 * 3) return true;
    uint32_t n = device->n_kernel_slots ? device->n_kernel_slots * 2 : 64;
    struct vkm_kernel **slots = calloc(n, sizeof *slots);
    if (!slots) return false;
    for (uint32_t i = 0; i < device->n_kernel_slots; i++) {
        struct vkm_kernel *k = device->kernels[i];
        if (k) *find_slot(slots, n, k->module, k->spec, k->n_spec) = k;
    }
    free(device->kernels);
    device->kernels = slots;
    device->n_kernel_slots = n;
    return true;
}

/* The module of the highest of `tiers`; also one that was left out of this build, where nothing else is there. */
static const struct vkm_module *highest(const char *name, const char *variant, uint32_t tiers)
{
    const struct vkm_module *best = NULL;
    for (size_t i = 0; i < vkm_module_count; i++) {
        const struct vkm_module *m = &vkm_modules[i];
        if (!(VKM_TIER_BIT(m->tier) & tiers) || strcmp(m->name, name) || strcmp(m->variant, variant)) continue;
        if (!best || (!m->code == !best->code ? m->tier > best->tier : m->code != NULL)) best = m;
    }
    return best;
}

static const struct vkm_module *choose(const vkm_device *device, const char *name, const char *variant, uint32_t tiers)
{
    const struct vkm_module *m = highest(name, variant, tiers & device->caps.tiers);
    return m && m->code ? m : highest(name, variant, tiers & vkm_caps_able(&device->caps));
}

enum vkm_tier vkm_kernel_tier(const vkm_device *device, const char *name, const char *variant, uint32_t tiers)
{
    const struct vkm_module *m = choose(device, name, variant, tiers);
    return m && m->code ? m->tier : VKM_TIER_COUNT;
}

static vkm_result find_module(const vkm_device *device, const char *name, const char *variant, uint32_t tiers, const struct vkm_module **module, vkm_error *err)
{
    const struct vkm_module *m = choose(device, name, variant, tiers), *above = highest(name, variant, VKM_TIERS_ALL);
    const char *colon = *variant ? ":" : "";
    if (m && !m->code) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "kernel %s%s%s was left out of this build: its glslang is too old", name, colon, variant);
    if (!m && above) {
        char has[64];
        vkm_caps_tiers(&device->caps, &(vkm_text){has, sizeof has, 0});
        return vkm_fail(err, VKM_ERR_UNSUPPORTED, "kernel %s%s%s needs tier %s; %s has %s", name, colon, variant, vkm_tier_name(above->tier), device->caps.device_name, has);
    }
    if (!m) return vkm_fail(err, VKM_ERR_UNSUPPORTED, "there is no kernel %s%s%s", name, colon, variant);
    *module = m;
    return VKM_OK;
}

/* On any thread: of the device only what may be shared, such as a pipeline cache that Vulkan synchronises. */
static VkResult make_pipeline(vkm_device *device, struct vkm_kernel *k)
{
    const struct vkm_caps *caps = &device->caps;
    VkShaderModule module;
    VkResult r = device->vk.vkCreateShaderModule(device->handle, &(VkShaderModuleCreateInfo){
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = k->module->code_bytes, .pCode = k->module->code}, device->allocator, &module);
    if (r != VK_SUCCESS) return r;
    uint32_t values[VKM_SPEC_FIRST + VKM_SPEC_MAX + 1] = {caps->slabs, caps->kv_slabs};
    uint32_t n = VKM_SPEC_FIRST + k->n_spec;
    memcpy(values + VKM_SPEC_FIRST, k->spec, k->n_spec * sizeof *values);
    VkSpecializationMapEntry entries[VKM_SPEC_FIRST + VKM_SPEC_MAX + 1];
    for (uint32_t i = 0; i < n; i++) entries[i] = (VkSpecializationMapEntry){.constantID = i, .offset = i * 4, .size = 4};
    entries[n] = (VkSpecializationMapEntry){.constantID = VKM_SPEC_SLOW_CONVERSION, .offset = n * 4, .size = 4};
    values[n++] = caps->slow_conversion;
    /* Kernels of the tiers that use subgroups take invocation % subgroup_size for the lane, which needs every subgroup full. Others leave the driver free: Intel's compiles a matmul
     * to 32 lanes a subgroup when all must be full, with hundreds of spills, and to 8 and none else. */
    bool matrices = k->module->tier == VKM_TIER_COOPMAT, sized = matrices && caps->sized_subgroups;
    bool full = caps->full_subgroups && caps->subgroup && (matrices || k->module->tier == VKM_TIER_SUBGROUP) && k->n_spec && k->spec[0] % (matrices ? caps->matrix_lanes : caps->subgroup_size) == 0;
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO, .requiredSubgroupSize = caps->matrix_lanes};
    r = device->vk.vkCreateComputePipelines(device->handle, device->pipeline_cache, 1, &(VkComputePipelineCreateInfo){
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = VK_PIPELINE_CREATE_DISPATCH_BASE_BIT | (device->statistics ? VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR : 0),
        .stage = {
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
            .pNext = sized ? &size : NULL,
            .flags = full ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
            .stage = VK_SHADER_STAGE_COMPUTE_BIT, .module = module, .pName = "main",
            .pSpecializationInfo = &(VkSpecializationInfo){.mapEntryCount = n, .pMapEntries = entries, .dataSize = n * sizeof *values, .pData = values},
        },
        .layout = device->pipeline_layout,
    }, device->allocator, &k->pipeline);
    device->vk.vkDestroyShaderModule(device->handle, module, device->allocator);
    return r;
}

static void name_variant(struct vkm_kernel *k)
{
    vkm_text t = {k->variant, sizeof k->variant, 0};
    vkm_textf(&t, "%s%s%s", k->module->variant, *k->module->variant ? ":" : "", vkm_tier_name(k->module->tier));
    for (uint32_t i = 0; i < k->n_spec; i++) vkm_textf(&t, "%c%u", i ? ',' : ' ', k->spec[i]);
}

vkm_result vkm_kernel_get_of(vkm_device *device, const char *name, const char *variant, uint32_t tiers, const uint32_t *spec, uint32_t n_spec, const vkm_kernel **kernel, vkm_error *err)
{
    vkm_result r = vkm_device_alive(device, err);
    if (r) return r;
    if (!variant) variant = "";
    if (n_spec > VKM_SPEC_MAX) return vkm_fail(err, VKM_ERR_ARGUMENT, "kernel %s: %u specialisation constants, at most %d", name, n_spec, VKM_SPEC_MAX);
    const struct vkm_module *module = NULL;
    if ((r = find_module(device, name, variant, tiers, &module, err))) return r;
    struct vkm_kernel **slot = device->n_kernel_slots ? find_slot(device->kernels, device->n_kernel_slots, module, spec, n_spec) : NULL;
    if (slot && *slot) {                       /* nothing is allocated for what is there */
        *kernel = *slot;
        return VKM_OK;
    }
    const struct vkm_caps *caps = &device->caps;
    uint32_t x = n_spec > 0 ? spec[0] : 1, y = n_spec > 1 ? spec[1] : 1;
    if (!x || !y || (uint64_t)x * y > caps->invocations || x > caps->workgroup_size_x || y > device->offer.max_size_y)
        return vkm_fail(err, VKM_ERR_LIMIT, "kernel %s %s: a workgroup of %u x %u; %s has %u invocations", name, variant, x, y, caps->device_name, caps->invocations);
    struct vkm_kernel *k = grow_table(device) ? calloc(1, sizeof *k) : NULL;
    if (!k) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making kernel %s", name);
    k->module = module;
    k->n_spec = n_spec;
    if (n_spec) memcpy(k->spec, spec, n_spec * sizeof *spec);
    name_variant(k);
    device->n_kernels++;
    slot = find_slot(device->kernels, device->n_kernel_slots, module, spec, n_spec);
    *kernel = *slot = k;
    return VKM_OK;
}

vkm_result vkm_kernel_get(vkm_device *device, const char *name, const char *variant, const uint32_t *spec, uint32_t n_spec, const vkm_kernel **kernel, vkm_error *err)
{
    return vkm_kernel_get_of(device, name, variant, VKM_TIERS_ALL, spec, n_spec, kernel, err);
}

/* ------------------------------------------------ compiling */

#define COMPILE_THREADS 8

struct compile_job { struct vkm_job job; vkm_device *device; struct vkm_kernel *kernel; VkResult result; };

static void run_compile(struct vkm_job *job)
{
    struct compile_job *c = (struct compile_job *)job;
    c->result = make_pipeline(c->device, c->kernel);
}

static vkm_result end_compile(const struct compile_job *c, vkm_error *err)
{
    struct vkm_kernel *k = c->kernel;
    if (c->result != VK_SUCCESS) {
        k->pipeline = VK_NULL_HANDLE;
        return vkm_fail_vk(c->device, err, c->result, "compiling kernel %s %s", k->module->name, k->variant);
    }
    char label[160];
    vkm_textf(&(vkm_text){label, sizeof label, 0}, "%s %s", k->module->name, k->variant);
    vkm_object_name(c->device, VK_OBJECT_TYPE_PIPELINE, (uint64_t)k->pipeline, label);
    c->device->cache_dirty = true;
    return VKM_OK;
}

/* The kernels of ops that have no pipeline, each once. Room for n_ops jobs. */
static uint32_t find_missing(vkm_device *device, const struct vkm_op *ops, uint32_t n_ops, struct compile_job *jobs)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_ops; i++) {
        struct vkm_kernel *k = ops[i].is_copy ? NULL : (struct vkm_kernel *)ops[i].step.kernel;
        bool wanted = k && !k->pipeline;
        for (uint32_t j = 0; wanted && j < n; j++) wanted = jobs[j].kernel != k;
        if (wanted) jobs[n++] = (struct compile_job){.job.run = run_compile, .device = device, .kernel = k};
    }
    return n;
}

static vkm_result run_jobs(vkm_device *device, struct compile_job *jobs, uint32_t n, vkm_error *err)
{
    uint32_t n_threads = n < COMPILE_THREADS ? n : COMPILE_THREADS;
    if (n_threads > vkm_processors()) n_threads = vkm_processors();
    if (device->validation) n_threads = 1;         /* its messages are logged, and that is promised to happen on the caller's thread */
    vkm_workers *workers = NULL;
    vkm_result r = n ? vkm_workers_create(n_threads, &workers, err) : VKM_OK;
    for (uint32_t i = 0; !r && i < n; i++) vkm_workers_push(workers, &jobs[i].job);
    for (uint32_t i = 0; workers && i < n; i++) {  /* all, so that none is lost that was made */
        vkm_workers_wait(workers, &jobs[i].job);
        vkm_result one = end_compile(&jobs[i], r ? NULL : err);
        if (!r) r = one;
    }
    vkm_workers_destroy(workers);
    return r;
}

vkm_result vkm_kernels_compile(vkm_device *device, const struct vkm_op *ops, uint32_t n_ops, vkm_error *err)
{
    struct compile_job *jobs = calloc(n_ops ? n_ops : 1, sizeof *jobs);
    if (!jobs) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "compiling the kernels of %u steps", n_ops);
    vkm_result r = run_jobs(device, jobs, find_missing(device, ops, n_ops, jobs), err);
    free(jobs);
    return r;
}

vkm_result vkm_kernels_compile_found(vkm_device *device, vkm_error *err)
{
    struct compile_job *jobs = calloc(device->n_kernels ? device->n_kernels : 1, sizeof *jobs);
    if (!jobs) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "compiling %u kernels", device->n_kernels);
    uint32_t n = 0;
    for (uint32_t i = 0; i < device->n_kernel_slots; i++) {
        struct vkm_kernel *k = device->kernels[i];
        if (k && !k->pipeline) jobs[n++] = (struct compile_job){.job.run = run_compile, .device = device, .kernel = k};
    }
    vkm_result r = run_jobs(device, jobs, n, err);
    free(jobs);
    return r;
}

const char *vkm_kernel_name(const vkm_kernel *kernel) { return kernel->module->name; }

const char *vkm_kernel_variant(const vkm_kernel *kernel) { return kernel->variant; }

size_t vkm_kernels_print(const vkm_device *device, char *text, size_t size)
{
    static const char *const requires[VKM_TIER_COUNT] = {"-", "subgroup-arithmetic,ballot,shuffle", "shaderFloat16,storageBuffer16BitAccess", "shaderIntegerDotProduct", "cooperativeMatrix,vulkanMemoryModel,shaderFloat16"};
    vkm_text t = {text, size, 0};
    if (size) *text = 0;
    for (size_t i = 0; i < vkm_module_count; i++) {
        const struct vkm_module *m = &vkm_modules[i];
        vkm_textf(&t, "%-16s %-12s %-10s %-50s ", m->name, *m->variant ? m->variant : "-", vkm_tier_name(m->tier), requires[m->tier]);
        if (!m->code) vkm_textf(&t, "left out of this build: its glslang is too old\n");
        else if (device && !(vkm_caps_able(&device->caps) & VKM_TIER_BIT(m->tier))) vkm_textf(&t, "the device has no %s, or it is clamped away\n", vkm_tier_name(m->tier));
        else if (device && strstr(m->name, "_cpu")) vkm_textf(&t, "%s\n", device->caps.scalar_loads ? "-" : "only with scalar loads");      /* exact in every tier */
        else if (device && strstr(m->name, "_texel")) vkm_textf(&t, "%s\n", device->caps.texel_loads ? "-" : "only with texel loads");
        else if (device && !(device->caps.tiers & VKM_TIER_BIT(m->tier))) vkm_textf(&t, "only with --caps %s\n", vkm_tier_name(m->tier));
        else vkm_textf(&t, "-\n");
    }
    return t.used;
}

/* ------------------------------------------------ bindings */

static void describe(struct vkm_bindings *b, VkWriteDescriptorSet *write, VkDescriptorBufferInfo *infos, uint32_t binding, vkm_buffer *const *buffers, uint32_t n, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        infos[i] = (VkDescriptorBufferInfo){.buffer = (i < n ? buffers[i] : n ? buffers[0] : b->workspace)->handle, .range = VK_WHOLE_SIZE};
    *write = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = b->set, .dstBinding = binding, .descriptorCount = count,
                                    .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, .pBufferInfo = infos};
}

/* As shaders/bindings.glsl has them. */
static VkResult create_views(struct vkm_bindings *b, const vkm_buffer *slab, const vkm_buffer *kv, const vkm_buffer *tables)
{
    const struct { const vkm_buffer *buffer; VkFormat format; } of[VKM_TEXEL_VIEWS] = {
        {slab, VKM_TEXEL_QUADS}, {slab, VKM_TEXEL_WORDS}, {b->workspace, VKM_TEXEL_FLOATS}, {kv, VKM_TEXEL_QUADS}, {tables, VKM_TEXEL_FLOATS}};
    VkResult r = VK_SUCCESS;
    for (uint32_t i = 0; r == VK_SUCCESS && i < VKM_TEXEL_VIEWS; i++)
        r = b->device->vk.vkCreateBufferView(b->device->handle, &(VkBufferViewCreateInfo){
            .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO, .buffer = of[i].buffer->handle, .format = of[i].format, .range = VK_WHOLE_SIZE}, b->device->allocator, &b->views[i]);
    return r;
}

static vkm_result check_bindable(const vkm_device *device, const vkm_buffer *b, vkm_error *err)
{
    if (!b) return vkm_fail(err, VKM_ERR_ARGUMENT, "bindings: a buffer is NULL");
    if (b->device != device) return vkm_fail(err, VKM_ERR_ARGUMENT, "bindings: buffer %s is of another device", b->name);
    if (b->bytes > device->caps.storage_range) return vkm_fail(err, VKM_ERR_LIMIT, "bindings: buffer %s is larger than the storage range", b->name);
    return VKM_OK;
}

vkm_result vkm_bindings_create(vkm_device *device, vkm_buffer *workspace, vkm_buffer *tables, vkm_buffer *const *slabs, uint32_t n_slabs,
                               vkm_buffer *const *kv, uint32_t n_kv, vkm_bindings **out, vkm_error *err)
{
    const struct vkm_caps *caps = &device->caps;
    vkm_result r = vkm_device_alive(device, err);
    if (r) return r;
    if (n_slabs > caps->slabs) return vkm_fail(err, VKM_ERR_LIMIT, "bindings: %u slabs; one set of %s has %u", n_slabs, caps->device_name, caps->slabs);
    if (n_kv > caps->kv_slabs) return vkm_fail(err, VKM_ERR_LIMIT, "bindings: %u KV buffers; one set of %s has %u", n_kv, caps->device_name, caps->kv_slabs);
    r = check_bindable(device, workspace, err);
    if (!r && tables) r = check_bindable(device, tables, err);
    for (uint32_t i = 0; !r && i < n_slabs; i++) r = check_bindable(device, slabs[i], err);
    for (uint32_t i = 0; !r && i < n_kv; i++) r = check_bindable(device, kv[i], err);
    if (r) return r;

    uint32_t n = caps->slabs + caps->kv_slabs + 2;
    struct vkm_bindings *b = calloc(1, sizeof *b + n_kv * sizeof *b->kv);
    VkDescriptorBufferInfo *infos = calloc(n, sizeof *infos);
    if (!b || !infos) {
        free(b), free(infos);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "making bindings");
    }
    b->device = device;
    b->workspace = workspace;
    b->n_kv = n_kv;
    if (n_kv) memcpy(b->kv, kv, n_kv * sizeof *kv);
    const VkDescriptorPoolSize sizes[] = {{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, n}, {VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER, VKM_TEXEL_VIEWS}};
    VkResult vr = device->vk.vkCreateDescriptorPool(device->handle, &(VkDescriptorPoolCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO, .maxSets = 1, .poolSizeCount = caps->texel_loads ? 2 : 1, .pPoolSizes = sizes}, device->allocator, &b->pool);
    if (vr == VK_SUCCESS)
        vr = device->vk.vkAllocateDescriptorSets(device->handle, &(VkDescriptorSetAllocateInfo){
            .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO, .descriptorPool = b->pool, .descriptorSetCount = 1, .pSetLayouts = &device->set_layout}, &b->set);
    if (vr == VK_SUCCESS && caps->texel_loads) vr = create_views(b, n_slabs ? slabs[0] : workspace, n_kv ? kv[0] : workspace, tables ? tables : workspace);
    if (vr != VK_SUCCESS) {
        r = vkm_fail_vk(device, err, vr, "making bindings of %u buffers", n);
        vkm_bindings_destroy(b);
        free(infos);
        return r;
    }
    VkWriteDescriptorSet writes[BIND_COUNT];
    VkDescriptorBufferInfo *at = infos;
    describe(b, &writes[BIND_SLABS], at, BIND_SLABS, slabs, n_slabs, caps->slabs);
    describe(b, &writes[BIND_KV], at += caps->slabs, BIND_KV, kv, n_kv, caps->kv_slabs);
    describe(b, &writes[BIND_WORKSPACE], at += caps->kv_slabs, BIND_WORKSPACE, &workspace, 1, 1);
    describe(b, &writes[BIND_TABLES], at + 1, BIND_TABLES, &tables, tables ? 1 : 0, 1);
    for (uint32_t i = 0; i < VKM_TEXEL_VIEWS; i++)
        writes[BIND_BUFFERS + i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET, .dstSet = b->set, .dstBinding = BIND_BUFFERS + i, .descriptorCount = 1,
                                                          .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER, .pTexelBufferView = &b->views[i]};
    device->vk.vkUpdateDescriptorSets(device->handle, n_bindings(caps), writes, 0, NULL);
    free(infos);
    *out = b;
    return VKM_OK;
}

void vkm_bindings_destroy(vkm_bindings *b)
{
    if (!b) return;
    vkm_queue_idle(b->device, NULL);
    for (uint32_t i = 0; i < VKM_TEXEL_VIEWS; i++) b->device->vk.vkDestroyBufferView(b->device->handle, b->views[i], b->device->allocator);
    b->device->vk.vkDestroyDescriptorPool(b->device->handle, b->pool, b->device->allocator);
    free(b);
}
