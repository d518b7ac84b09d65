#version 450
/* For few tokens and a small router: residual and norm (combine_norm), router (linear), and top-k with the sort (moe_topk) in one workgroup, instead of three steps that wait for each
 * other. The same sums in the same order as those. Where the router's rows are more than a workgroup of linear takes, its weights would come too slowly so. */
#extension GL_GOOGLE_include_directive : require
#define WS_ACCESS coherent      /* lanes read what others of the workgroup wrote */
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_route push; };
#include "reduce.glsl"
#define TOPK push.topk
#include "topk.glsl"
layout(constant_id = 6) const uint NT = 8;         /* 1, or VKM_FEW_ROWS for more tokens */
layout(constant_id = 7) const uint ROWS = 8;       /* of the router */
layout(constant_id = 8) const uint SPLITS = 1;     /* parts of the columns, as linear has them */
layout(constant_id = 9) const uint PLANES = 0;     /* the weights are in planes of words (vkm_panel_planes) */

shared float parts[SPLITS * NT * ROWS];

/* x += scale * y; xn = x / rms(x) * weight. As in combine_norm. */
void norm(uint t) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint x = push.ws_x + t * push.ld_x, y = push.ws_y + t * push.ld_y, o = push.ws_xn + t * push.ld_xn;
    float squares = 0.0;
    for (uint i = lane; i < push.width; i += lanes) {
        float v = fma(push.residual, ws.f[y + i], ws.f[x + i]);
        ws.f[x + i] = v;
        squares += v * v;
    }
    float inv = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    for (uint i = lane; i < push.kb * 32; i += lanes)
        ws.f[o + i] = i < push.width ? ws.f[x + i] * inv * tablesf.f[push.tab_norm + i] : 0.0;
}

/* Four columns of a row: step s of eight of block k, of the matrix at uvec4 `base` of the slab */
vec4 weight(uint slab, uint base, uint row, uint k, uint s) {
    base += row / 32 * push.kb * 256;
    uint at = (k * 8 + s) * 32;
    if (PLANES == 0) return uintBitsToFloat(slabs4[slab].w[base + at + row % 32]);
    at = (base + at) * 4 + row % 32;
    return uintBitsToFloat(uvec4(slabs[slab].w[at], slabs[slab].w[at + 32], slabs[slab].w[at + 64], slabs[slab].w[at + 96]));
}

const uint EACH = NT < 4 ? NT : 4;                  /* tokens at a time: Intel's compiler (Mesa, dg2) spills 8 registers so and 78 with 8, and lavapipe takes twice as long to compile that */
float acc[EACH];

/* a row's products with tokens from `first` on, of a part of the columns */
void products(uint slab, uint base, uint row, uint part, uint first, uint n) {
    [[unroll]] for (int t = 0; t < int(EACH); t++) acc[t] = 0.0;
    for (uint k = push.kb * part / SPLITS; k < push.kb * (part + 1) / SPLITS; k++)
        [[unroll]] for (uint s = 0; s < 8; s++) {
            vec4 w = weight(slab, base, row, k, s);
            [[unroll]] for (int t = 0; t < int(EACH); t++) {
                vec4 v = ws4.f[(push.ws_xn + min(first + t, n - 1) * push.ld_xn) / 4 + k * 8 + s];
                float a = acc[t];
                a += w.x * v.x; a += w.y * v.y; a += w.z * v.z; a += w.w * v.w;
                acc[t] = a;
            }
        }
    [[unroll]] for (int t = 0; t < int(EACH); t++) if (first + t < NT) parts[(part * NT + first + t) * ROWS + row] = acc[t];
}

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, n = min(TOPK.few, NT), n_used = min(TOPK.n_used, 32u);
    for (uint t = 0; t < n; t++) norm(t);
    memoryBarrierBuffer();
    sync();
    uint slab = tables.u[push.tab_weight], base = tables.u[push.tab_weight + 1];
    for (uint i = lane; i < SPLITS * ROWS; i += lanes)
        for (uint first = 0; first < n; first += EACH) products(slab, base, i % ROWS, i / ROWS, first, n);
    sync();
    for (uint i = lane; i < n * ROWS; i += lanes) {
        uint row = i % ROWS, t = i / ROWS;
        float sum = parts[t * ROWS + row];
        for (uint part = 1; part < SPLITS; part++) sum += parts[(part * NT + t) * ROWS + row];
        ws.f[TOPK.ws_logits + t * TOPK.ld_logits + row] = sum;
    }
    memoryBarrierBuffer();
    sync();
    route_tokens(0, n, n_used);
    sort(n * n_used);
}
