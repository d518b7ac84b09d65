/* The memory of a model and a session before they are there: the same plans, without the buffers. */
#include "session.h"
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

/* A GPU such as most are, in what plans look at. */
static const struct vkm_caps usual = {.type = VKM_TYPE_DISCRETE, .storage_range = UINT64_C(0xfffffffc), .slabs = 32, .kv_slabs = 8, .invocations = 1024, .shared_bytes = 32768, .tiers = VKM_TIER_BIT(VKM_TIER_BASELINE)};

static vkm_result add(vkm_device *device, enum vkm_buffer_kind kind, uint64_t bytes, uint64_t *sum, vkm_error *err)
{
    uint64_t needs = vkm_align(bytes, 256);
    if (device) TRY(vkm_buffer_needs(device, kind, bytes, &needs, err));
    *sum += needs;
    return VKM_OK;
}

static vkm_result measure(vkm_device *device, const struct vkm_plan *plan, const struct vkm_session *s, vkm_memory_needs *m, vkm_error *err)
{
    uint64_t bytes;
    for (uint32_t i = 0; (bytes = vkm_plan_slab_bytes(plan, i)); i++) TRY(add(device, VKM_BUFFER_DEVICE, bytes, &m->weights, err));
    for (uint32_t i = 0; (bytes = vkm_session_kv_bytes(s, i)); i++) TRY(add(device, VKM_BUFFER_DEVICE, bytes, &m->kv, err));
    TRY(add(device, VKM_BUFFER_DEVICE, s->space.words * 4, &m->workspace, err));
    TRY(add(device, VKM_BUFFER_DEVICE, vkm_session_table_words(s, vkm_plan_table_words(plan)) * 4, &m->workspace, err));
    TRY(add(device, VKM_BUFFER_READBACK, vkm_session_readback_bytes(s), &m->readback, err));
    m->total = m->weights + m->kv + m->workspace + m->readback;
    bytes = vkm_plan_ring_bytes(plan) > VKM_UPLOAD_RING ? vkm_plan_ring_bytes(plan) : VKM_UPLOAD_RING;
    if (!s->caps->unified_memory) TRY(add(device, VKM_BUFFER_READBACK, bytes, &m->staging, err));
    if (device) m->available = vkm_device_budget(device);
    return VKM_OK;
}

vkm_result vkm_memory_estimate(vkm_device *device, const char *path, const vkm_session_params *params, vkm_memory_needs *memory, vkm_error *err)
{
    if (!path || !memory) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_memory_estimate: path and memory are required");
    const struct vkm_caps *caps = device ? vkm_device_caps(device) : &usual;
    vkm_gguf *g = NULL;
    struct vkm_plan *plan = NULL;
    vkm_memory_needs m = {0};
    uint64_t kv;
    struct vkm_model *model = calloc(1, sizeof *model);
    struct vkm_session *s = calloc(1, sizeof *s);
    vkm_result r = model && s ? vkm_gguf_open(path, &g, err) : vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    if (r == VKM_OK) r = vkm_model_plan(g, caps, model, &plan, err);
    if (r == VKM_OK) r = vkm_session_plan(s, model, caps, params, &kv, err);
    if (r == VKM_OK) r = measure(device, plan, s, &m, err);
    if (s) { free(s->kv); free(s->layers); }
    free(s);
    vkm_plan_destroy(plan);
    vkm_model_destroy(model);                              /* has no slabs yet */
    vkm_gguf_close(g);
    if (r == VKM_OK) *memory = m;
    return r;
}
