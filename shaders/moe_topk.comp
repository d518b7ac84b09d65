#version 450
/* The router behind its matmul: scores, the k best experts of a token by descending score, their weights. Workgroups: x = tokens; for few tokens one workgroup walks over all of
 * them and then sorts their slots by expert and lists the tiles too, as moe_count and moe_permute do for many: two steps less that everything behind has to wait for. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_topk push; };
#include "reduce.glsl"
#define TOPK push
layout(constant_id = 6) const uint LOGIT_PARTS_ = 1;
#define LOGIT_PARTS LOGIT_PARTS_
#include "topk.glsl"

void main() {
    uint n_used = min(push.n_used, 32u), few = min(push.few, VKM_FEW_ROWS);
    route_tokens(gl_WorkGroupID.x, max(few, 1), n_used);
    if (few != 0) sort(few * n_used);
}
