#version 450
/* x[t] = scale * E[token[t]], dequantised. Workgroups: x = tokens. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_embed push; };
#define HAS_PLANES
layout(constant_id = 4) const uint PLANES = 0;
#include "quant.glsl"

void main() {
    uint t = gl_WorkGroupID.x;
    uint id = min(wsu.u[push.ws_tokens + t], push.n_vocab - 1);
    uint panel = id / 32, chunk = panel / push.chunk_panels, at = push.tab_weight + VKM_CHUNK_WORDS * chunk;
    uint slab = tables.u[at], base = tables.u[at + 1] + (panel - chunk * push.chunk_panels) * panel_size(push.kb);
    for (uint k = gl_LocalInvocationID.x; k < push.kb; k += gl_WorkGroupSize.x) {
        Block b = block_load(slab, base, push.kb, k, id % 32);
        for (uint i = 0; i < STEPS; i++) {
            STEP_WORDS q = block_step(slab, b, i);
            [[unroll]] for (int c = 0; c < CHUNKS; c++)
                ws4.f[(push.ws_x + t * push.ld_x) / 4 + k * 8 + i * CHUNKS + c] = push.scale * block_get(b, q, i, c);
        }
    }
}
