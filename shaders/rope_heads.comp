#version 450
/* rope_store.comp for CPU drivers with caps.texel_loads: a lane owns a head of a token and does all of it, so nothing passes between lanes (see attention_rows.comp). Workgroups: x = heads (q, then k, then v),
 * a lane each, y = tokens. The sum of a head's norm is that of every fourth dimension, then of these. lavapipe 22.3, the bundled model, a prompt of 128 tokens: 2.3 ms (rope_store.comp 13). */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_rope_store push; };
#include "kv.glsl"
layout(constant_id = 4) const uint HEAD = 64;      /* a multiple of 4 */
layout(constant_id = 5) const uint NEOX = 0;
layout(constant_id = 6) const uint KV16 = 1;
layout(constant_id = 7) const uint N_ROT = 64;     /* a multiple of 4 */

const uint PAIRS = N_ROT / 2;
vec4 v[HEAD / 4];

/* cosine and sine of pairs j and j + 1 at a position: rope.glsl's angle */
vec4 angles(uint pos, uint j) {
    vec4 lo = TABLE_QUAD((push.tab_rope + 2 * (pos % 256 * PAIRS + j)) / 4), hi = TABLE_QUAD((push.tab_rope + 2 * ((256 + pos / 256) * PAIRS + j)) / 4);
    precise vec4 r = vec4(lo.x * hi.x - lo.y * hi.y, lo.x * hi.y + lo.y * hi.x, lo.z * hi.z - lo.w * hi.w, lo.z * hi.w + lo.w * hi.z);
    return r;
}

void turn(uint pos) {
    [[unroll]] for (uint j = 0; j < PAIRS; j += 2) {
        vec4 turns = angles(pos, j);
        [[unroll]] for (uint i = 0; i < 2; i++) {
            uint a = NEOX != 0 ? j + i : 2 * (j + i), b = NEOX != 0 ? j + i + PAIRS : 2 * (j + i) + 1;
            precise vec2 r = vec2(v[a / 4][a % 4] * turns[2 * i] - v[b / 4][b % 4] * turns[2 * i + 1], v[a / 4][a % 4] * turns[2 * i + 1] + v[b / 4][b % 4] * turns[2 * i]);
            v[a / 4][a % 4] = r.x; v[b / 4][b % 4] = r.y;
        }
    }
}

void main() {
    uint h = gl_WorkGroupID.x * gl_WorkGroupSize.x + gl_LocalInvocationID.x, t = gl_WorkGroupID.y;
    uint kind = h < push.n_head ? 0 : h < push.n_head + push.n_head_kv ? 1 : 2;
    if (h >= push.n_head + 2 * push.n_head_kv) return;
    if (kind == 1) h -= push.n_head;
    if (kind == 2) h -= push.n_head + push.n_head_kv;
    uint from = (kind == 0 ? push.ws_q + t * push.ld_q : kind == 1 ? push.ws_k + t * push.ld_k : push.ws_v + t * push.ld_v) + h * HEAD;
    uint pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1), norm = kind == 0 ? push.tab_q_norm : kind == 1 ? push.tab_k_norm : VKM_NONE;
    vec4 squares = vec4(0.0);
    [[unroll]] for (uint i = 0; i < HEAD / 4; i++) {
        v[i] = WS_QUAD(from / 4 + i);
        if (push.clamp > 0.0) v[i] = clamp(v[i], -push.clamp, push.clamp);
        squares += v[i] * v[i];
    }
    if (norm != VKM_NONE) {
        float inv = 1.0 / sqrt(((squares.x + squares.y) + (squares.z + squares.w)) / float(HEAD) + push.eps);
        [[unroll]] for (uint i = 0; i < HEAD / 4; i++) v[i] *= inv * TABLE_QUAD(norm / 4 + i);
    }
    if (kind != 2) turn(pos);
    if (kind == 0) {
        [[unroll]] for (uint i = 0; i < HEAD / 4; i++) ws4.f[from / 4 + i] = v[i];
        return;
    }
    uint words = KV16 != 0 ? HEAD / 2 : HEAD, slab, to = kv_unit((kind == 1 ? push.k_unit : push.v_unit) + wsu.u[push.ws_seq + t], slab), next = kind == 1 ? 32 : 1;
    to += kind == 1 ? (h * (push.n_ctx / 32) + pos / 32) * words * 32 + pos % 32 : (h * push.n_ctx + pos) * words;
    [[unroll]] for (uint i = 0; i < HEAD / 4; i++) {
        vec4 c = clamp(v[i], -65504.0, 65504.0);   /* f16 stays finite, for a masked one is multiplied by zero */
        if (KV16 != 0) {
            kv[slab].w[to + 2 * i * next] = packHalf2x16(c.xy);
            kv[slab].w[to + (2 * i + 1) * next] = packHalf2x16(c.zw);
        } else
            [[unroll]] for (uint j = 0; j < 4; j++) kv[slab].w[to + (4 * i + j) * next] = floatBitsToUint(v[i][j]);
    }
}
