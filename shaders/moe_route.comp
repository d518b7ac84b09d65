#version 450
/* For few tokens and a small router: residual and norm (combine_norm), router (linear), and top-k with the sort (moe_topk) in one workgroup, instead of three steps that wait for each
 * other. The same sums in the same order as those. Where the router's rows are more than a workgroup of linear takes, its weights would come too slowly so.
 * With CPU a workgroup has a token, and the last of them sorts, so that it does for more tokens than moe_topk sorts, instead of five steps. */
#extension GL_GOOGLE_include_directive : require
#define WS_ACCESS coherent      /* lanes read what others of the workgroup wrote */
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_route push; };
#include "reduce.glsl"
layout(constant_id = 6) const uint TOKENS = 8;     /* 1, or VKM_FEW_ROWS for more */
#define TOPK push.topk
#define ONE_TOKEN (TOKENS == 1)
#ifdef CPU
#  define SLOTS VKM_ROUTED_SLOTS
#endif
#include "topk.glsl"
layout(constant_id = 7) const uint ROUTER_ROWS = 8;

/* norm: x += scale * y; xn = x / rms(x) * weight, as in combine_norm. router: the logits of n tokens. */
#if defined(CPU)
#extension GL_KHR_shader_subgroup_ballot : require
/* CPU drivers with caps.scalar_loads, by matmul_cpu.glsl. A token, Mesa 26, 64 experts and 1,024 columns, us by turns: 260 to 400 by way of descriptors, 81 to 94 so, in three steps 130 to 220. Those are by
 * timestamps, which make three steps dearer than one. Whole models by turns, a token in three steps and so: the bundled one 547 to 577 and 590 to 676 tokens per second, 64 experts alike (medians of ten 100 and 101),
 * 128 alike (157 to 172 and 137 to 170; not taken), for the steps have more workgroups to read the weights. More tokens: fits_route in src/moe/router.c; 2, 4 or 8 of them in a workgroup are no faster.
 * norm reads words that other lanes write later, and drops them: those who have it are lanes in step. */
layout(constant_id = 9) const uint RPL = 4;
#define NT 1
#define BLOCK_STEPS 1      /* warm starts take a tenth less than with 4 */
#define TYPE_F32
#include "quant.glsl"
#include "matmul_cpu.glsl"

uvec2 row_at(uint word) { return ahead(uvec2(push.ws_address[0], push.ws_address[1]), word / 4); }
float summed(Words x, Words y, uint part) { return fma(push.residual, uintBitsToFloat(word(y, part * (LANES / 4), 0)), uintBitsToFloat(word(x, part * (LANES / 4), 0))); }

void norm(uint t) {
    uint lane = gl_SubgroupInvocationID, x_at = push.ws_x + t * push.ld, o = push.ws_xn + t * push.ld;
    Words x = Words(row_at(x_at)), y = Words(row_at(push.ws_y + t * push.ld));
    float squares = 0.0;
    uint part = 0, parts = push.ld / LANES;
    [[dont_unroll]] do {
        float v = summed(x, y, part);
        if (part * LANES + lane < push.width) squares = fma(v, v, squares);
        part++;
    } while (part < parts);
    float inv = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    part = 0;
    [[dont_unroll]] do {
        uint i = part * LANES + lane;
        float v = summed(x, y, part);
        ws.f[o + i] = i < push.width ? v * inv * tablesf.f[push.tab_norm + min(i, push.width - 1)] : 0.0;
        if (i < push.width) ws.f[x_at + i] = v;
        part++;
    } while (part < parts);
}

void router(uint t) {
    uvec2 weights = uvec2(tables.u[push.tab_weight + 2], tables.u[push.tab_weight + 3]);
    x_row[0] = row_at(push.ws_xn + t * push.ld);
    uint panel = 0;
    [[dont_unroll]] do {
        multiply(ahead(weights, panel * push.ld * 8), push.ld / 32);
        [[unroll]] for (uint r = 0; r < RPL; r++) {
            uint row = panel * 32 + r * LANES + gl_SubgroupInvocationID;
            if (row < ROUTER_ROWS) ws.f[TOPK.ws_logits + t * TOPK.ld_logits + row] = acc[r];
        }
        panel++;
    } while (panel * 32 < ROUTER_ROWS);
}

shared uint next_row[EXPERTS], rank[VKM_ROUTED_SLOTS];      /* of an expert's rows; of a slot among them */

#define COMPARE(l) if (LANES > l && subgroupBroadcast(e, l) == e) { before += uint(l < lane); behind += uint(l > lane); }
/* What `sort` of topk.glsl does, in a time that grows with n and not with its square. A lane takes a slot, then all of them one expert after another.
 * gl_LocalInvocationID: were the other one compared with here, too, loads before any of this would not be one instruction any more (scalar.glsl), and norm and router take twice as long. */
void sort_slots(uint n) {
    uint lane = gl_LocalInvocationID.x, tiles[VKM_TILE_CLASSES], first_row = 0;
    for (uint e = lane; e < EXPERTS; e += LANES) next_row[e] = 0;
    sync();
    for (uint first = 0; first < n; first += LANES) {
        uint s = first + lane, e = s < n ? wsu.u[TOPK.ws_ids + s] : VKM_NONE, before = 0, behind = 0;
        COMPARE(0) COMPARE(1) COMPARE(2) COMPARE(3) COMPARE(4) COMPARE(5) COMPARE(6) COMPARE(7)
        COMPARE(8) COMPARE(9) COMPARE(10) COMPARE(11) COMPARE(12) COMPARE(13) COMPARE(14) COMPARE(15)
        if (s < n) {
            chosen_id[s] = e;
            rank[s] = before += next_row[e];
        }
        sync();
        if (s < n && behind == 0) next_row[e] = before + 1;
        sync();
    }
    [[unroll]] for (uint c = 0; c < VKM_TILE_CLASSES; c++) tiles[c] = 0;
    for (uint e = 0; e < EXPERTS; e++) {
        uint rows = subgroupBroadcastFirst(next_row[e]);
        sync();
        if (lane == 0) next_row[e] = first_row;
        while (rows > 0) {
            uint class_ = tile_class(rows), take = min(rows, tile_size(class_)), at = 0;
            [[unroll]] for (uint c = 0; c < VKM_TILE_CLASSES; c++)
                if (c == class_) at = tiles[c]++;
            at = TOPK.ws_tiles + 2 * (class_ * TOPK.tiles_max + at);
            if (lane < 2) wsu.u[at + lane] = lane == 0 ? e | take << 16 : first_row;
            first_row += take;
            rows -= take;
        }
    }
    sync();
    for (uint s = lane; s < n; s += LANES) wsu.u[TOPK.ws_perm + next_row[chosen_id[s]] + rank[s]] = s;
    [[unroll]] for (uint c = 0; c < VKM_TILE_CLASSES; c++)
        if (lane == c % LANES) write_arguments(TOPK.ws_args + c * 6, c, tiles[c]);
}

void main() {
    know_lane();
    uint t = gl_WorkGroupID.x, n_used = min(TOPK.n_used, 32u), before = 0;
    norm(t);
    memoryBarrierBuffer();
    sync();
    router(t);
    memoryBarrierBuffer();
    sync();
    route(t, 0, n_used);
    sync();
    if (ONE_TOKEN) {
        sort_token(n_used);
        return;
    }
    memoryBarrierBuffer();
    sync();
    if (subgroupElect()) before = atomicAdd(wsu.u[push.ws_arrived], 1);
    if (subgroupBroadcastFirst(before) + 1 != TOPK.few) return;
    memoryBarrierBuffer();
    if (subgroupElect()) wsu.u[push.ws_arrived] = 0;        /* for the next layer */
    sort_slots(min(TOPK.few * n_used, VKM_ROUTED_SLOTS));
}
#else
layout(constant_id = 8) const uint SPLITS = 1;     /* parts of the columns, as linear has them */
shared float parts[SPLITS * TOKENS * ROUTER_ROWS];

#ifdef TEXELS
/* CPU drivers with caps.texel_loads. A texel buffer need not know what this dispatch wrote: x stays as it is until all products are made, for which a row makes the norm anew. The bundled model, lavapipe
 * 22.3: 280 us a token instead of 450, 730 instead of 1,350 for eight; compiled by 25.0.7 in 0.8 and 1.3 s instead of 2.1 and 4.4. */
shared float inverse[TOKENS];
vec4 summed(uint t, uint quad) { return fma(vec4(push.residual), WS_QUAD((push.ws_y + t * push.ld) / 4 + quad), WS_QUAD((push.ws_x + t * push.ld) / 4 + quad)); }
vec4 normed(uint t, uint quad) { return quad * 4 < push.width ? summed(t, quad) * inverse[t] * TABLE_QUAD(push.tab_norm / 4 + quad) : vec4(0.0); }

void norm(uint t) {
    float squares = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < push.width; i += gl_WorkGroupSize.x) {
        float v = fma(push.residual, WS_FLOAT(push.ws_y + t * push.ld + i), WS_FLOAT(push.ws_x + t * push.ld + i));
        squares = fma(v, v, squares);
    }
    inverse[t] = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
}

void write(uint t) {
    for (uint quad = gl_LocalInvocationID.x; quad < push.ld / 4; quad += gl_WorkGroupSize.x) {
        ws4.f[(push.ws_xn + t * push.ld) / 4 + quad] = normed(t, quad);
        if (quad * 4 < push.width) ws4.f[(push.ws_x + t * push.ld) / 4 + quad] = summed(t, quad);
    }
}
#else
vec4 normed(uint t, uint quad) { return ws4.f[(push.ws_xn + t * push.ld) / 4 + quad]; }

void norm(uint t) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    uint x = push.ws_x + t * push.ld, y = push.ws_y + t * push.ld, o = push.ws_xn + t * push.ld;
    float squares = 0.0;
    for (uint i = lane; i < push.width; i += lanes) {
        float v = fma(push.residual, ws.f[y + i], ws.f[x + i]);
        ws.f[x + i] = v;
        squares = fma(v, v, squares);
    }
    float inv = 1.0 / sqrt(workgroup_sum(squares) / float(push.width) + push.eps);
    for (uint i = lane; i < push.ld; i += lanes)
        ws.f[o + i] = i < push.width ? ws.f[x + i] * inv * tablesf.f[push.tab_norm + i] : 0.0;
}
#endif

const uint EACH = TOKENS < 4 ? TOKENS : 4;          /* tokens at a time: Intel's compiler (Mesa, dg2) spills 8 registers so and 78 with 8, and lavapipe takes twice as long to compile that */
float acc[EACH];
#ifdef TEXELS
#  define STEPS [[dont_unroll]]                     /* for the sake of those drivers' compilers */
#else
#  define STEPS [[unroll]]
#endif

/* a row's products with tokens from `first` on, of a part of the columns; the matrix is at uvec4 `base` of the slab */
void products(uint slab, uint base, uint row, uint part, uint first, uint n) {
    uint kb = push.ld / 32;
    [[unroll]] for (int t = 0; t < int(EACH); t++) acc[t] = 0.0;
    for (uint k = kb * part / SPLITS; k < kb * (part + 1) / SPLITS; k++)
        STEPS for (uint s = 0; s < 8; s++) {
            vec4 w = uintBitsToFloat(SLAB_QUAD(slab, base + row / 32 * kb * 256 + (k * 8 + s) * 32 + row % 32));
            [[unroll]] for (int t = 0; t < int(EACH); t++) {
                vec4 v = normed(min(first + t, n - 1), k * 8 + s);
                acc[t] += w.x * v.x; acc[t] += w.y * v.y; acc[t] += w.z * v.z; acc[t] += w.w * v.w;    /* as matmul.glsl */
            }
        }
    [[unroll]] for (int t = 0; t < int(EACH); t++) if (first + t < TOKENS) parts[(part * TOKENS + first + t) * ROUTER_ROWS + row] = acc[t];
}

void router(uint n) {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, slab = tables.u[push.tab_weight], base = tables.u[push.tab_weight + 1];
    for (uint i = lane; i < SPLITS * ROUTER_ROWS; i += lanes)
        for (uint first = 0; first < n; first += EACH) products(slab, base, i % ROUTER_ROWS, i / ROUTER_ROWS, first, n);
    sync();
    for (uint i = lane; i < n * ROUTER_ROWS; i += lanes) {
        uint row = i % ROUTER_ROWS, t = i / ROUTER_ROWS;
        float sum = parts[t * ROUTER_ROWS + row];
        for (uint part = 1; part < SPLITS; part++) sum += parts[(part * TOKENS + t) * ROUTER_ROWS + row];
        ws.f[TOPK.ws_logits + t * TOPK.ld_logits + row] = sum;
    }
#ifdef TEXELS
    for (uint t = 0; t < n; t++) write(t);
#endif
}

void main() {
    uint n = min(TOPK.few, TOKENS), n_used = min(TOPK.n_used, 32u);
    for (uint t = 0; t < n; t++) norm(t);
    memoryBarrierBuffer();
    sync();
    router(n);
    memoryBarrierBuffer();
    sync();
    route_tokens(0, n, n_used);
    sort(n * n_used);
}
#endif
