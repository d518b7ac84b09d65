/* Where a workgroup's panel is, and what becomes of its sums. */
layout(constant_id = 7) const uint EPILOGUE = 0;    /* GLU: panels are 16 gate rows + 16 up rows; RPL is 2 or more, so a lane has both rows of a pair */
#include "activate.glsl"

/* Where the table has the chunk that holds a panel of expert `e`, and the panel's uvec4 offset in it. */
uint chunk_of(uint e, uint panel, out uint offset) {
    uint chunk = panel / push.chunk_panels;
    offset = (panel - chunk * push.chunk_panels) * panel_size(push.kb);
    return push.tab_weight + VKM_CHUNK_WORDS * (e * push.n_chunks + chunk);
}

/* The biases of output i of expert `e`: [experts][rows], of pairs [experts][2][rows]. */
float bias_at(uint e, uint i) { return tablesf.f[push.tab_bias + e * push.rows + i]; }

/* What a pair's sums become. `scale`: the token's weight, where it multiplies the expert's input, and so what the matrices make of it. */
float finish_pair(uint e, uint i, float g, float u, float scale) {
    if (WEIGHT_FIRST) { g *= scale; u *= scale; }
    if (BIASED && i < push.rows) { g += bias_at(2 * e, i); u += bias_at(2 * e + 1, i); }
    return gated(g, u);
}

/* The same of a row's sum. */
float finish_row(uint e, uint i, float v, float scale) {
    if (WEIGHT_FIRST) v *= scale;
    if (BIASED && i < push.rows) v += bias_at(e, i);
    v = activate(v);
    return WEIGHT_FIRST ? v : v * scale;
}

#ifndef TIER_COOPMAT     /* sums that belong to lanes */
#ifdef CPU
/* The panel of this workgroup, and this lane's first row there: never beyond the matrix, for loads are not masked. */
bool locate(out uint panel, out uint row) {
    know_lane();
    panel = min(gl_WorkGroupID.y, push.n_panels - 1);
    row = gl_SubgroupInvocationID;
    return true;
}

/* The sums of a panel of expert `e`, with rows of x at these vec4 offsets of the workspace. */
void multiply_panel(uint e, uint panel, uint row, const uint x[NT]) {
    uvec2 workspace = uvec2(push.ws_address[0], push.ws_address[1]);
    [[unroll]] for (int t = 0; t < int(NT); t++) {
        x_row[t] = ahead(workspace, x[t]);
#ifdef OFFSET
        sums_row[t] = ahead(workspace, (push.at + (x[t] * 4 - push.ws_x) / push.ld_x * VKM_SUMS_WORDS(push.kb)) / 4);
#endif
    }
    uint offset, at = chunk_of(e, panel, offset);
    multiply(ahead(uvec2(tables.u[at + 2], tables.u[at + 3]), offset), push.kb);
}
bool has_sums() { return true; }
#else
/* Where a panel of expert `e` is: its slab, and its first uvec4 there. Of a weight that lies in one slab no table is asked, for everything else would wait for that load: on an H200 a single token of qwen3-30b in
 * Q4_K takes 3.31 ms so instead of 3.45, its layer 33.0 us instead of 33.8. Matrices always ask: with this branch they are 4 % slower. */
void find_panel(uint e, uint panel, out uint slab, out uint base) {
    if (push.slab != VKM_NONE) {
        slab = push.slab;
        base = push.at + (e * push.n_panels + panel) * panel_size(push.kb);
        return;
    }
    uint offset, at = chunk_of(e, panel, offset);
    slab = tables.u[at];
    base = tables.u[at + 1] + offset;
}

/* The panel of this lane and its first row there. false: beyond the matrix. */
bool locate(out uint panel, out uint row) {
    uint lane = gl_WorkGroupID.y * gl_WorkGroupSize.x + gl_LocalInvocationID.x;      /* a workgroup may have some panels, or a part of one */
    panel = lane / LANES;
    row = lane % LANES;
    return panel < push.n_panels;
}

/* The sums of a panel of expert `e`, with rows of x at these vec4 offsets of the workspace. */
void multiply_panel(uint e, uint panel, uint row, const uint x[NT]) {
    uint slab, base;
    find_panel(e, panel, slab, base);
    multiply(slab, base, push.kb, row, x);
}
/* Whether this lane has the sums once the columns' parts are added up. */
bool has_sums() { return gl_LocalInvocationID.y == 0; }
#endif

/* What a row of y becomes. ADDED: in linear it is added to y, which is the residual stream and was `had` before; in moe_down other workgroups read it. */
#ifdef ADDS_SLOTS
layout(set = 0, binding = 1) coherent buffer WorkspaceC { float f[]; } wsc;
void put(uint at, float v, float had) { if (ADDED) wsc.f[at] = v; else ws.f[at] = v; }
float had_before(uint at) { return 0.0; }
#else
void put(uint at, float v, float had) { ws.f[at] = ADDED ? fma(push.residual, v, had) : v; }
float had_before(uint at) { return ADDED ? ws.f[at] : 0.0; }
#endif

/* Of a single token fetched before there are sums, so that nothing waits for it then; of more NVK's compiler would spill. */
float had[RPL];
void fetch_before(uint panel, uint row, uint y) {
    [[unroll]] for (int r = 0; r < int(RPL); r++) had[r] = had_before(y + min(panel * 32 + row + r * LANES, push.ld_y - 1));
}

/* Writes token t's sums of this lane to the row of y at word offset `y`. */
void store_rows(int t, uint e, uint panel, uint row, uint y, float scale) {
    if (GLU != 0) {
        [[unroll]] for (int r = 0; r < int(RPL / 2); r++) {
            uint i = panel * 16 + row + r * LANES;
            float v = finish_pair(e, i, acc[t * RPL + r], acc[t * RPL + r + RPL / 2], scale);
            if (i < push.ld_y) ws.f[y + i] = i < push.rows ? v : 0.0;
        }
        return;
    }
    [[unroll]] for (int r = 0; r < int(RPL); r++) {
        uint i = panel * 32 + row + r * LANES;
        float v = finish_row(e, i, acc[t * RPL + r], scale);
        if (i < push.ld_y) put(y + i, i < push.rows ? v : 0.0, NT == 1 ? had[r] : had_before(y + i));
    }
}
#endif
