/* What each expert was given: counted by the device, pass by pass, where a session was made to. */
#include "session.h"
#include <string.h>

vkm_result vkm_session_expert_counts(vkm_session *s, uint32_t *counts, vkm_error *err)
{
    if (!s || !counts) return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_session_expert_counts: session and counts are required");
    if (!s->params.count_experts) return vkm_fail(err, VKM_ERR_ARGUMENT, "experts are not counted: the session was made without count_experts");
    uint64_t bytes, at = vkm_session_tally(s, &bytes);
    vkm_result r = vkm_buffer_invalidate(s->readback, at, bytes, err);
    if (r == VKM_OK) memcpy(counts, (const char *)vkm_buffer_map(s->readback) + at, bytes);
    return r;
}
