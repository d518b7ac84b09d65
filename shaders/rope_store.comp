#version 450
/* A head of q, k or v of one token: optional clamp, optional RMSNorm over the head, rotary embedding (Su et al. 2021) of the first n_rot dimensions of q and k.
 * q is rewritten in place; k and v go to the KV cache. Workgroups: x = heads (q, then k, then v), y = tokens.
 * Rotation angles come from two host-made tables, pos % 256 and pos / 256, multiplied as complex numbers: exact to f32 at any position, where GPU sin and cos are not.
 * A unit of the KV cache, words of f32 or of two f16: K [head][pos / 32][dim][pos % 32], so that lanes that own keys read neighbouring words; V [head][pos][dim]. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_rope_store push; };
#include "kv.glsl"
#include "reduce.glsl"
layout(constant_id = 5) const uint HEAD = 64;
layout(constant_id = 6) const uint NEOX = 0;       /* pairs (j, j + n_rot/2) instead of (2j, 2j+1) */
layout(constant_id = 7) const uint KV16 = 1;

shared float v[HEAD];

vec2 times(vec2 a, vec2 b) { return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

/* cosine and sine of the j-th of so many pairs at a position */
vec2 angle(uint pos, uint pairs, uint j) {
    uint lo = push.tab_rope + 2 * (pos % 256 * pairs + j), hi = push.tab_rope + 2 * ((256 + pos / 256) * pairs + j);
    return times(vec2(tablesf.f[lo], tablesf.f[lo + 1]), vec2(tablesf.f[hi], tablesf.f[hi + 1]));
}

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint h = gl_WorkGroupID.x, t = gl_WorkGroupID.y;
    uint kind = h < push.n_head ? 0 : h < push.n_head + push.n_head_kv ? 1 : 2;
    if (kind == 1) h -= push.n_head;
    if (kind == 2) h -= push.n_head + push.n_head_kv;
    uint from = kind == 0 ? push.ws_q + t * push.ld_q : kind == 1 ? push.ws_k + t * push.ld_k : push.ws_v + t * push.ld_v;
    from += h * HEAD;
    uint norm = kind == 0 ? push.tab_q_norm : kind == 1 ? push.tab_k_norm : VKM_NONE;
    uint pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1), pairs = kind != 2 ? push.n_rot / 2 : 0;
    vec2 first = angle(pos, pairs, min(lane, max(pairs, 1) - 1));      /* on its way while the norm is made */
    uint words = KV16 != 0 ? HEAD / 2 : HEAD, slab;     /* found before q goes its own way: SwiftShader follows the index of a buffer also where no lane is active */
    uint to = kv_unit((kind == 1 ? push.k_unit : push.v_unit) + wsu.u[push.ws_seq + t], slab);

    float squares = 0.0;
    for (uint i = lane; i < HEAD; i += lanes) {
        float a = ws.f[from + i];
        if (push.clamp > 0.0) a = clamp(a, -push.clamp, push.clamp);
        v[i] = a;
        squares += a * a;
    }
    if (norm != VKM_NONE) {
        float inv = 1.0 / sqrt(workgroup_sum(squares) / float(HEAD) + push.eps);
        for (uint i = lane; i < HEAD; i += lanes) v[i] *= inv * tablesf.f[norm + i];
    }
    sync();
    if (kind != 2) {
        for (uint j = lane; j < pairs; j += lanes) {
            uint a = NEOX != 0 ? j : 2 * j, b = NEOX != 0 ? j + pairs : 2 * j + 1;
            vec2 r = times(vec2(v[a], v[b]), j == lane ? first : angle(pos, pairs, j));
            v[a] = r.x; v[b] = r.y;
        }
        sync();
    }
    to += kind == 1 ? (h * (push.n_ctx / 32) + pos / 32) * words * 32 + pos % 32 : (h * push.n_ctx + pos) * words;
    for (uint i = lane; i < (kind == 0 ? HEAD : words); i += lanes) {
        if (kind == 0) { ws.f[from + i] = v[i]; continue; }
        /* f16 stays finite: a masked key is multiplied by zero */
        kv[slab].w[to + (kind == 1 ? i * 32 : i)] = KV16 != 0 ? packHalf2x16(clamp(vec2(v[2 * i], v[2 * i + 1]), -65504.0, 65504.0)) : floatBitsToUint(v[i]);
    }
}
