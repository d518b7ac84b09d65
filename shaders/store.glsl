/* Where a workgroup's panel is, and what becomes of its sums. */
layout(constant_id = 7) const uint GLU = 0;         /* panels are 16 gate rows + 16 up rows; RPL is 2 or more, so a lane has both rows of a pair */

/* Where the table has the chunk that holds a panel of expert `e`, and the panel's uvec4 offset in it. */
uint chunk_of(uint e, uint panel, out uint offset) {
    uint chunk = panel / push.chunk_panels;
    offset = (panel - chunk * push.chunk_panels) * panel_size(push.kb);
    return push.tab_weight + VKM_CHUNK_WORDS * (e * push.n_chunks + chunk);
}

float silu(float v) { return v / (1.0 + exp(-v)); }

#ifndef TIER_COOPMAT     /* sums that belong to lanes */
#ifdef CPU
/* The panel of this workgroup, and this lane's first row there: never beyond the matrix, for loads are not masked. */
bool locate(out uint panel, out uint row) {
    panel = min(gl_WorkGroupID.y, push.n_panels - 1);
    row = gl_SubgroupInvocationID;
    return true;
}

/* The sums of a panel of expert `e`, with rows of x at these vec4 offsets of the workspace. */
void multiply_panel(uint e, uint panel, uint row, const uint x[NT]) {
    [[unroll]] for (int t = 0; t < int(NT); t++) x_row[t] = ahead(uvec2(push.ws_address[0], push.ws_address[1]), x[t]);
    uint offset, at = chunk_of(e, panel, offset);
    multiply(ahead(uvec2(tables.u[at + 2], tables.u[at + 3]), offset), push.kb);
}
bool has_sums() { return true; }
#else
/* The panel of this lane and its first row there. false: beyond the matrix. */
bool locate(out uint panel, out uint row) {
    uint lane = gl_LocalInvocationID.x;
    panel = gl_WorkGroupID.y * (gl_WorkGroupSize.x / LANES) + lane / LANES;
    row = lane % LANES;
    return panel < push.n_panels;
}

/* The sums of a panel of expert `e`, with rows of x at these vec4 offsets of the workspace. */
void multiply_panel(uint e, uint panel, uint row, const uint x[NT]) {
    uint offset, at = chunk_of(e, panel, offset);
    multiply(tables.u[at], tables.u[at + 1] + offset, push.kb, row, x);
}
/* Whether this lane has the sums once the columns' parts are added up. */
bool has_sums() { return gl_LocalInvocationID.y == 0; }
#endif

/* Writes token t's sums of this lane to the row of y at word offset `y`. */
void store_rows(int t, uint panel, uint row, uint y, float scale) {
    if (GLU != 0) {
        [[unroll]] for (int r = 0; r < int(RPL / 2); r++) {
            uint i = panel * 16 + row + r * LANES;
            float v = silu(acc[t * RPL + r]) * acc[t * RPL + r + RPL / 2];
            if (i < push.ld_y) ws.f[y + i] = i < push.rows ? v : 0.0;
        }
        return;
    }
    [[unroll]] for (int r = 0; r < int(RPL); r++) {
        uint i = panel * 32 + row + r * LANES;
        float v = acc[t * RPL + r];
        if (push.tab_bias != VKM_NONE && i < push.rows) v += tablesf.f[push.tab_bias + i];
        if (i < push.ld_y) ws.f[y + i] = i < push.rows ? v * scale : 0.0;
    }
}
#endif
