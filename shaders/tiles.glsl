/* Tiles of the rows of an expert by class (VKM_TILE_CLASSES), and the arguments of a class's dispatches. CUT: the push constants with tile_from, panels_up ... */
uint tile_from(uint c) { return CUT.tile_from[c / 4] >> c % 4 * 8 & 255u; }

uint tile_class(uint rows) {
    uint c = 0;
    [[unroll]] for (uint i = 1; i < VKM_TILE_CLASSES; i++) if (min(rows, VKM_TILE_NEVER - 1) >= tile_from(i)) c = i;
    return c;
}

uint tile_size(uint c) { return c == 0 ? 1 : 2 << c; }

/* Workgroups of moe_gate_up, then of moe_down, for so many tiles of class c, at word `at` of the workspace */
void write_arguments(uint at, uint c, uint tiles) {
    uint each = CUT.group_panels >> 4 * c & 15u;
    wsu.u[at] = tiles;     wsu.u[at + 1] = (CUT.panels_up + each - 1) / each;   wsu.u[at + 2] = 1;
    wsu.u[at + 3] = tiles; wsu.u[at + 4] = (CUT.panels_down + each - 1) / each; wsu.u[at + 5] = 1;
}
