/* Where a workgroup's panel is, and what becomes of its sums: shared by linear, moe_gate_up and moe_down. */
layout(constant_id = 7) const uint GLU = 0;         /* panels are 16 gate rows + 16 up rows; RPL is 2 or more, so a lane has both rows of a pair */

/* The panel of this lane and its first row there. false: beyond the matrix. */
bool locate(out uint panel, out uint row) {
    uint lane = gl_LocalInvocationID.x;
    panel = gl_WorkGroupID.y * (gl_WorkGroupSize.x / LANES) + lane / LANES;
    row = lane % LANES;
    return panel < push.n_panels;
}

/* uvec4 offset of a panel of expert `e`, and its slab */
uint weight_panel(uint e, uint panel, out uint slab) {
    uint chunk = panel / push.chunk_panels;
    uint at = push.tab_weight + 2 * (e * push.n_chunks + chunk);
    slab = tables.u[at];
    return tables.u[at + 1] + (panel - chunk * push.chunk_panels) * panel_size(push.kb);
}

float silu(float v) { return v / (1.0 + exp(-v)); }

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
