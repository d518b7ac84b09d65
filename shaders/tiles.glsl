/* Tiles of the rows of an expert by class (VKM_TILE_CLASSES), and the arguments of a class's dispatches. TILE_FROM: the push constants' tile_from. */
uint tile_from(uint c) { return TILE_FROM[c / 4] >> c % 4 * 8 & 255u; }

uint tile_class(uint rows) {
    uint c = 0;
    [[unroll]] for (uint i = 1; i < VKM_TILE_CLASSES; i++) if (min(rows, VKM_TILE_NEVER - 1) >= tile_from(i)) c = i;
    return c;
}

uint tile_size(uint c) { return c == 0 ? 1 : 2 << c; }

/* Workgroups of moe_gate_up, then of moe_down, at word `at` of the workspace */
void write_arguments(uint at, uint tiles, uint groups_up, uint groups_down) {
    wsu.u[at] = tiles;     wsu.u[at + 1] = groups_up;   wsu.u[at + 2] = 1;
    wsu.u[at + 3] = tiles; wsu.u[at + 4] = groups_down; wsu.u[at + 5] = 1;
}
