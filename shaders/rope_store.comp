#version 450
/* A head of q, k or v of one token: what rope.glsl does to it; q is rewritten in place, k and v go to the KV cache. Workgroups: x = heads (q, then k, then v), y = tokens.
 * A unit of the KV cache, words of f32 or of two f16: K [head][pos / 32][dim][pos % 32], so that lanes that own keys read neighbouring words; V [head][pos][dim]. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_rope_store push; };
layout(constant_id = 4) const uint HEAD = 64;
layout(constant_id = 5) const uint NEOX = 0;       /* pairs (j, j + n_rot/2) instead of (2j, 2j+1) */
layout(constant_id = 6) const uint KV16 = 1;
layout(constant_id = 7) const uint LANES = 32;     /* local_size_x */
layout(constant_id = 8) const uint SUBGROUPS = 0;  /* 1: they are one subgroup */
#define ONE_SUBGROUP (SUBGROUPS == 1)
#include "sync.glsl"
#include "kv.glsl"
const uint SLOTS = 1;
#include "rope.glsl"

void main() {
    uint lane = gl_LocalInvocationID.x, h = gl_WorkGroupID.x, t = gl_WorkGroupID.y;
    uint kind = h < push.n_head ? 0 : h < push.n_head + push.n_head_kv ? 1 : 2;
    if (kind == 1) h -= push.n_head;
    if (kind == 2) h -= push.n_head + push.n_head_kv;
    uint from = (kind == 0 ? push.ws_q + t * push.ld_q : kind == 1 ? push.ws_k + t * push.ld_k : push.ws_v + t * push.ld_v) + h * HEAD;
    uint pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1);
    uint words = KV16 != 0 ? HEAD / 2 : HEAD, slab;     /* found before q goes its own way: SwiftShader follows the index of a buffer also where no lane is active */
    uint to = kv_unit((kind == 1 ? push.k_unit : push.v_unit) + wsu.u[push.ws_seq + t], slab);
    to += kind == 1 ? (h * (push.n_ctx / 32) + pos / 32) * words * 32 + pos % 32 : (h * push.n_ctx + pos) * words;
    make_head(true, 0, kind, from, pos, lane);
    for (uint i = lane; i < (kind == 0 ? HEAD : words); i += LANES) {
        if (kind == 0) { ws.f[from + i] = head_v[i]; continue; }
        kv[slab].w[to + (kind == 1 ? i * 32 : i)] = KV16 != 0 ? cached_word(0, i) : floatBitsToUint(head_v[i]);
    }
}
