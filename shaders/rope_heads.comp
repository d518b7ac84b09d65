#version 450
/* rope_store.comp for CPU drivers that load fast in one way or the other (caps.texel_loads, caps.scalar_loads): a lane owns a head of a token and does all of it, so nothing passes between lanes (see
 * attention_rows.comp). Workgroups: x = heads (q, then k, then v), a lane each, y = tokens. The sum of a head's norm is that of every fourth dimension, then of these. In milliseconds of a prompt, rope_store.comp before:
 * lavapipe 22.3, the bundled model, 128 tokens: 13 to 2.9; of Mesa 26 5.1 to 3.1, and models of 1,024 columns, 512 tokens: 50 to 19 and 86 to 22. With the head in registers and all loops unrolled 22.3 took 2.4,
 * and 1.35 s to compile instead of 0.4. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_rope_store push; };
#include "kv.glsl"
layout(constant_id = 4) const uint HEAD = 64;      /* a multiple of 4 */
layout(constant_id = 5) const uint NEOX = 0;
layout(constant_id = 6) const uint KV16 = 1;
layout(constant_id = 7) const uint N_ROT = 64;     /* a multiple of 4, of 8 with NEOX */

uint kind, from, to, slab;                         /* of this lane's head: 0 q, 1 k, 2 v; where it is, in the workspace and in the cache */
float inv;

vec4 loaded(uint i) {
    vec4 v = WS_QUAD(from / 4 + i);
    return push.clamp > 0.0 ? clamp(v, -push.clamp, push.clamp) : v;
}

vec4 normed(uint i) {                              /* the tables' addresses are the same for all lanes */
    vec4 v = loaded(i);
    if (push.tab_q_norm != VKM_NONE) { vec4 w = TABLE_QUAD(push.tab_q_norm / 4 + i); if (kind == 0) v *= inv * w; }
    if (push.tab_k_norm != VKM_NONE) { vec4 w = TABLE_QUAD(push.tab_k_norm / 4 + i); if (kind == 1) v *= inv * w; }
    return v;
}

/* cosine and sine of pairs j and j + 1 at a position: rope.glsl's angle */
vec4 angles(uint pos, uint j) {
    vec4 lo = TABLE_QUAD((push.tab_rope + 2 * (pos % 256 * (N_ROT / 2) + j)) / 4), hi = TABLE_QUAD((push.tab_rope + 2 * ((256 + pos / 256) * (N_ROT / 2) + j)) / 4);
    precise vec4 r = vec4(lo.x * hi.x - lo.y * hi.y, lo.x * hi.y + lo.y * hi.x, lo.z * hi.z - lo.w * hi.w, lo.z * hi.w + lo.w * hi.z);
    return r;
}

vec2 turned(vec2 v, vec2 turn) {
    precise vec2 r = vec2(v.x * turn.x - v.y * turn.y, v.x * turn.y + v.y * turn.x);
    return r;
}

void put(uint i, vec4 v) {
    if (kind == 0) { ws4.f[from / 4 + i] = v; return; }
    vec4 c = clamp(v, -65504.0, 65504.0);          /* f16 stays finite, for a masked one is multiplied by zero */
    uint next = kind == 1 ? 32 : 1;
    if (KV16 != 0) {
        kv[slab].w[to + 2 * i * next] = packHalf2x16(c.xy);
        kv[slab].w[to + (2 * i + 1) * next] = packHalf2x16(c.zw);
    } else
        [[unroll]] for (uint j = 0; j < 4; j++) kv[slab].w[to + (4 * i + j) * next] = floatBitsToUint(v[j]);
}

void main() {
    uint h = gl_WorkGroupID.x * gl_WorkGroupSize.x + gl_LocalInvocationID.x, t = gl_WorkGroupID.y;
    if (h >= push.n_head + 2 * push.n_head_kv) return;
    kind = h < push.n_head ? 0 : h < push.n_head + push.n_head_kv ? 1 : 2;
    if (kind == 1) h -= push.n_head;
    if (kind == 2) h -= push.n_head + push.n_head_kv;
    from = (kind == 0 ? push.ws_q + t * push.ld_q : kind == 1 ? push.ws_k + t * push.ld_k : push.ws_v + t * push.ld_v) + h * HEAD;
    uint pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1);
    uint words = KV16 != 0 ? HEAD / 2 : HEAD;
    to = kv_unit((kind == 1 ? push.k_unit : push.v_unit) + wsu.u[push.ws_seq + t], slab);
    to += kind == 1 ? (h * (push.n_ctx / 32) + pos / 32) * words * 32 + pos % 32 : (h * push.n_ctx + pos) * words;
    inv = 1.0;
    if (push.tab_q_norm != VKM_NONE || push.tab_k_norm != VKM_NONE) {
        vec4 squares = vec4(0.0);
        for (uint i = 0; i < HEAD / 4; i++) { vec4 v = loaded(i); squares += v * v; }
        inv = 1.0 / sqrt(((squares.x + squares.y) + (squares.z + squares.w)) / float(HEAD) + push.eps);
    }
    uint rest = kind == 2 ? 0 : N_ROT / 4;
    if (kind != 2) {
        for (uint i = 0; i < (NEOX != 0 ? N_ROT / 8 : N_ROT / 4); i++) {
            vec4 a = normed(i), r = angles(pos, NEOX != 0 ? 4 * i : 2 * i);
            if (NEOX != 0) {
                vec4 b = normed(i + N_ROT / 8), s = angles(pos, 4 * i + 2);
                vec2 x = turned(vec2(a.x, b.x), r.xy), y = turned(vec2(a.y, b.y), r.zw), z = turned(vec2(a.z, b.z), s.xy), w = turned(vec2(a.w, b.w), s.zw);
                put(i, vec4(x.x, y.x, z.x, w.x));
                put(i + N_ROT / 8, vec4(x.y, y.y, z.y, w.y));
            } else put(i, vec4(turned(a.xy, r.xy), turned(a.zw, r.zw)));
        }
    }
    for (uint i = rest; i < HEAD / 4; i++) put(i, normed(i));
}
