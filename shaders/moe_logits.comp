#version 450
/* An f32 router for few tokens (and the norm of a single one, NORMED), on a device that has lanes to fill: the parts of the columns that linear would split among the lanes of a workgroup, each by workgroups of its own; they are
 * added up, in the order that linear does, by moe_topk, or (TOPK.few) by the last workgroup that is done, which then does what moe_topk does: a step less to wait for.
 * A lane takes a row. Workgroups: x = parts / (local_size_x / 32), y = panels. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#define WS_ACCESS coherent      /* workgroups read what others wrote */
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_logits push; };
#include "reduce.glsl"
#define TOPK push.topk
layout(constant_id = 6) const uint LOGIT_PARTS_ = 1;
#define LOGIT_PARTS LOGIT_PARTS_
layout(constant_id = 7) const uint NT = 8;         /* tokens at most */
layout(constant_id = 9) const uint ROW_BLOCKS = 0;  /* of a normed row */
#define MAKES_NORM
#include "norm_row.glsl"
const uint KEYS_AT_ONCE_ = HOLDS_MANY ? 4 : 2;
#define KEYS_AT_ONCE KEYS_AT_ONCE_
#include "topk.glsl"
layout(set = 0, binding = 1) readonly buffer X4 { vec4 f[]; } x4;

const uint EACH = NT < 4 ? NT : HOLDS_MANY ? 4 : 2; /* tokens at a time */
const uint AHEAD = NORMED && HOLDS_MANY ? 2 : 0;    /* blocks of the part that are on their way while the norm is made: 13.2 and 13.9 us a step instead of 14.5 and 16.7 (Q4_K, F16; qwen3-30b on an H200) */
shared uint arrived;
float acc[EACH];

/* The products of quads i, i + 1 ... of the columns with tokens from `first` on */
const uint AT_ONCE = HOLDS_MANY ? 8 : 4;
void add_quads(const vec4 w[AT_ONCE], uint i, uint first) {
    [[unroll]] for (int s = 0; s < int(AT_ONCE); s++)
        [[unroll]] for (int t = 0; t < int(EACH); t++) {
            vec4 v = NORMED_OR(i + s, x4.f[(push.ws_x + min(first + t, push.n - 1) * push.ld_x) / 4 + i + s]);
            float a = acc[t];
            a += w[s].x * v.x; a += w[s].y * v.y; a += w[s].z * v.z; a += w[s].w * v.w;
            acc[t] = a;
        }
}

void main() {
    uint lane = gl_LocalInvocationID.x, row = lane % 32, part = gl_WorkGroupID.x * (gl_WorkGroupSize.x / 32) + lane / 32;
    uint slab = tables.u[push.tab_weight], base = tables.u[push.tab_weight + 1] + gl_WorkGroupID.y * push.kb * 256 + row;
    uint begin = push.kb * part / LOGIT_PARTS, end = push.kb * (part + 1) / LOGIT_PARTS;
    float zero = float(push.n >> 16);               /* a compiler that knew could choose which of the first two products it fuses with their sum, and not choose as in linear (seen on NVIDIA) */
    vec4 ahead[AHEAD * 8 + 1];
    [[unroll]] for (int i = 0; i < int(AHEAD * 8); i++) ahead[i] = uintBitsToFloat(slabs4[slab].w[base + min(begin * 8 + i, push.kb * 8 - 1) * 32]);
    if (NORMED) {
        make_norm_row(push.ws_x / 4);
        if (gl_WorkGroupID.x == 0 && gl_WorkGroupID.y == 0)
            for (uint i = lane; i < ROW_BLOCKS * 8; i += gl_WorkGroupSize.x) ws4.f[push.ws_xn / 4 + i] = norm_row[i];
    }
    for (uint first = 0; first < push.n; first += EACH) {
        [[unroll]] for (int t = 0; t < int(EACH); t++) acc[t] = zero;
        [[unroll]] for (uint i = 0; i < AHEAD; i++)
            if (begin + i < end) {
                vec4 w[AT_ONCE];
                [[unroll]] for (int s = 0; s < int(AT_ONCE); s++) w[s] = ahead[i * 8 + s];
                add_quads(w, (begin + i) * 8, first);
            }
        for (uint i = (begin + AHEAD) * 8; i < end * 8; i += AT_ONCE) {
            vec4 w[AT_ONCE];
            [[unroll]] for (int s = 0; s < int(AT_ONCE); s++) w[s] = uintBitsToFloat(slabs4[slab].w[base + (i + s) * 32]);
            add_quads(w, i, first);
        }
        [[unroll]] for (int t = 0; t < int(EACH); t++)
            if (first + t < push.n) ws.f[TOPK.ws_logits + ((first + t) * LOGIT_PARTS + part) * TOPK.ld_logits + gl_WorkGroupID.y * 32 + row] = acc[t];
    }
    if (TOPK.few == 0) return;
    memoryBarrierBuffer();
    barrier();
    if (lane == 0) arrived = atomicAdd(wsu.u[push.ws_arrived], 1) + 1;
    barrier();
    if (arrived != gl_NumWorkGroups.x * gl_NumWorkGroups.y) return;
    memoryBarrierBuffer();
    if (lane == 0) wsu.u[push.ws_arrived] = 0;      /* for the next pass */
    uint n_used = min(TOPK.n_used, 32u), few = min(TOPK.few, VKM_FEW_ROWS);
    route_tokens(0, few, n_used);
    sort(few * n_used);
}
