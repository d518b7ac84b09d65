#version 450
/* An f32 router for few tokens (and their norm, NORMED), on a device that has lanes to fill: the parts of the columns that linear would split among the lanes of a workgroup, each by workgroups of its own; they are
 * added up, in the order that linear does, by moe_topk, or (TOPK.few) by the last of a token's workgroups that is done, which then does what moe_topk does; the last of those sorts. A step or two less to wait for.
 * A lane takes a row. Workgroups: x = parts / (local_size_x / 32), y = panels, z = tokens, which share nothing but what is in the cache: so each has the bits and the time of a single one. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#define WS_ACCESS coherent      /* workgroups read what others wrote */
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_logits push; };
#include "reduce.glsl"
#define TOPK push.topk
layout(constant_id = 7) const uint SLOTS_ = 32;     /* VKM_JOINED_ROWS * n_used */
#define SLOTS SLOTS_
layout(constant_id = 6) const uint LOGIT_PARTS_ = 1;
#define LOGIT_PARTS LOGIT_PARTS_
layout(constant_id = 9) const uint ROW_BLOCKS = 0;  /* of a normed row */
#define MAKES_NORM
#include "norm_row.glsl"
const uint KEYS_AT_ONCE_ = HOLDS_MANY ? 4 : 2;
#define KEYS_AT_ONCE KEYS_AT_ONCE_
#include "topk.glsl"
layout(set = 0, binding = 1) readonly buffer X4 { vec4 f[]; } x4;

const uint AHEAD = NORMED && HOLDS_MANY ? 2 : 0;    /* blocks of the part that are on their way while the norm is made: 13.2 and 13.9 us a step instead of 14.5 and 16.7 (Q4_K, F16; qwen3-30b on an H200) */
shared uint arrived;
float acc;

/* The products of quads i, i + 1 ... of the columns with the row of x at vec4 `x` */
const uint AT_ONCE = HOLDS_MANY ? 8 : 4;
void add_quads(const vec4 w[AT_ONCE], uint x, uint i) {
    [[unroll]] for (int s = 0; s < int(AT_ONCE); s++) {
        vec4 v = NORMED_OR(i + s, x4.f[x + i + s]);
        acc += w[s].x * v.x; acc += w[s].y * v.y; acc += w[s].z * v.z; acc += w[s].w * v.w;
    }
}

/* Whether this is the last of n workgroups that come here, which sees what the others wrote; `at`: a word that is 0 between passes. All lanes call it. */
bool is_last(uint at, uint n) {
    uint lane = gl_LocalInvocationID.x;
    memoryBarrierBuffer();
    barrier();
    if (lane == 0) arrived = atomicAdd(wsu.u[at], 1) + 1;
    barrier();
    if (arrived != n) return false;
    memoryBarrierBuffer();
    if (lane == 0) wsu.u[at] = 0;                   /* for the next pass */
    return true;
}

void main() {
    uint lane = gl_LocalInvocationID.x, row = lane % 32, part = gl_WorkGroupID.x * (gl_WorkGroupSize.x / 32) + lane / 32, token = gl_WorkGroupID.z;
    uint slab = push.slab, base = push.at + gl_WorkGroupID.y * push.kb * 256 + row, x = (push.ws_x + token * push.ld_x) / 4;
    uint begin = push.kb * part / LOGIT_PARTS, end = push.kb * (part + 1) / LOGIT_PARTS, n_used = min(TOPK.n_used, 32u);
    vec4 ahead[AHEAD * 8 + 1];
    [[unroll]] for (int i = 0; i < int(AHEAD * 8); i++) ahead[i] = uintBitsToFloat(slabs4[slab].w[base + min(begin * 8 + i, push.kb * 8 - 1) * 32]);
    if (NORMED) {
        make_norm_row(x);
        if (gl_WorkGroupID.x == 0 && gl_WorkGroupID.y == 0)
            for (uint i = lane; i < ROW_BLOCKS * 8; i += gl_WorkGroupSize.x) ws4.f[(push.ws_xn + token * push.ld_xn) / 4 + i] = norm_row[i];
    }
    acc = float(push.kb >> 16);                     /* zero. A compiler that knew could choose which of the first two products it fuses with their sum, and not choose as in linear (seen on NVIDIA) */
    [[unroll]] for (uint i = 0; i < AHEAD; i++)
        if (begin + i < end) {
            vec4 w[AT_ONCE];
            [[unroll]] for (int s = 0; s < int(AT_ONCE); s++) w[s] = ahead[i * 8 + s];
            add_quads(w, x, (begin + i) * 8);
        }
    for (uint i = (begin + AHEAD) * 8; i < end * 8; i += AT_ONCE) {
        vec4 w[AT_ONCE];
        [[unroll]] for (int s = 0; s < int(AT_ONCE); s++) w[s] = uintBitsToFloat(slabs4[slab].w[base + (i + s) * 32]);
        add_quads(w, x, i);
    }
    ws.f[TOPK.ws_logits + (token * LOGIT_PARTS + part) * TOPK.ld_logits + gl_WorkGroupID.y * 32 + row] = acc;
    if (TOPK.few == 0 || !is_last(push.ws_arrived + token, gl_NumWorkGroups.x * gl_NumWorkGroups.y)) return;
    route(token, 0, n_used);
    if (TOPK.few > 1) {
        if (!is_last(push.ws_arrived + VKM_JOINED_ROWS, TOPK.few)) return;
        for (uint i = lane; i < min(TOPK.few, VKM_JOINED_ROWS) * n_used; i += gl_WorkGroupSize.x) chosen_id[i] = wsu.u[TOPK.ws_ids + i];
    }
    sync();
    sort(min(TOPK.few, VKM_JOINED_ROWS) * n_used);
}
