#version 450
/* For few tokens and a small router: residual and norm (combine_norm), router (linear), and top-k with the sort (moe_topk) in one workgroup, instead of three steps that wait for each
 * other. The same sums in the same order as those. Where the router's rows are more than a workgroup of linear takes, its weights would come too slowly so. */
#extension GL_GOOGLE_include_directive : require
#define WS_ACCESS coherent      /* lanes read what others of the workgroup wrote */
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_route push; };
#include "reduce.glsl"
layout(constant_id = 6) const uint NT = 8;         /* 1, or VKM_FEW_ROWS for more tokens */
#define TOPK push.topk
#define ONE_TOKEN (NT == 1)
#include "topk.glsl"
layout(constant_id = 7) const uint ROWS = 8;       /* of the router */
layout(constant_id = 8) const uint SPLITS = 1;     /* parts of the columns, as linear has them */
layout(constant_id = 9) const uint PLANES = 0;     /* the weights are in planes of words (vkm_panel_planes) */

shared float parts[SPLITS * NT * ROWS];

/* x += scale * y; xn = x / rms(x) * weight. As in combine_norm. */
#ifdef TEXELS
/* CPU drivers with caps.texel_loads. A texel buffer need not know what this dispatch wrote: x stays as it is until all products are made, for which a row makes the norm anew. The bundled model, lavapipe
 * 22.3: 280 us a token instead of 450, 730 instead of 1,350 for eight; compiled by 25.0.7 in 0.8 and 1.3 s instead of 2.1 and 4.4. */
shared float inverse[NT];
vec4 summed(uint t, uint quad) { return fma(vec4(push.residual), WS_QUAD((push.ws_y + t * push.ld_y) / 4 + quad), WS_QUAD((push.ws_x + t * push.ld_x) / 4 + quad)); }
vec4 normed(uint t, uint quad) { return quad * 4 < push.width ? summed(t, quad) * inverse[t] * TABLE_QUAD(push.tab_norm / 4 + quad) : vec4(0.0); }

void norm(uint t) {
    float squares = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < push.width; i += gl_WorkGroupSize.x) {
        float v = fma(push.residual, WS_FLOAT(push.ws_y + t * push.ld_y + i), WS_FLOAT(push.ws_x + t * push.ld_x + i));
        squares += v * v;
    }
    inverse[t] = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
}

void write(uint t) {
    for (uint quad = gl_LocalInvocationID.x; quad < push.kb * 8; quad += gl_WorkGroupSize.x) {
        ws4.f[(push.ws_xn + t * push.ld_xn) / 4 + quad] = normed(t, quad);
        if (quad * 4 < push.width) ws4.f[(push.ws_x + t * push.ld_x) / 4 + quad] = summed(t, quad);
    }
}
#else
vec4 normed(uint t, uint quad) { return ws4.f[(push.ws_xn + t * push.ld_xn) / 4 + quad]; }

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
#endif

/* Four columns of a row: step s of eight of block k, of the matrix at uvec4 `base` of the slab */
vec4 weight(uint slab, uint base, uint row, uint k, uint s) {
    base += row / 32 * push.kb * 256;
    uint at = (k * 8 + s) * 32;
    if (PLANES == 0) return uintBitsToFloat(SLAB_QUAD(slab, base + at + row % 32));
    at = (base + at) * 4 + row % 32;
    return uintBitsToFloat(uvec4(SLAB_WORD(slab, at), SLAB_WORD(slab, at + 32), SLAB_WORD(slab, at + 64), SLAB_WORD(slab, at + 96)));
}

const uint EACH = NT < 4 ? NT : 4;                  /* tokens at a time: Intel's compiler (Mesa, dg2) spills 8 registers so and 78 with 8, and lavapipe takes twice as long to compile that */
float acc[EACH];
#ifdef TEXELS
#  define STEPS [[dont_unroll]]                     /* for the sake of those drivers' compilers */
#else
#  define STEPS [[unroll]]
#endif

/* a row's products with tokens from `first` on, of a part of the columns */
void products(uint slab, uint base, uint row, uint part, uint first, uint n) {
    [[unroll]] for (int t = 0; t < int(EACH); t++) acc[t] = 0.0;
    for (uint k = push.kb * part / SPLITS; k < push.kb * (part + 1) / SPLITS; k++)
        STEPS for (uint s = 0; s < 8; s++) {
            vec4 w = weight(slab, base, row, k, s);
            [[unroll]] for (int t = 0; t < int(EACH); t++) {
                vec4 v = normed(min(first + t, n - 1), k * 8 + s);
                float a = acc[t];
                if (PLANES != 0) a = fma(w.w, v.w, fma(w.z, v.z, fma(w.y, v.y, fma(w.x, v.x, a))));     /* as matmul_cpu.glsl */
                else { a += w.x * v.x; a += w.y * v.y; a += w.z * v.z; a += w.w * v.w; }                /* as matmul.glsl */
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
#ifdef TEXELS
    for (uint t = 0; t < n; t++) write(t);
#endif
    memoryBarrierBuffer();
    sync();
    route_tokens(0, n, n_used);
    sort(n * n_used);
}
