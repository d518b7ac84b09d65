/* Tiles of the rows of an expert, by class: 1, 4, 8, 16, 32 or 64 rows at most (VKM_TILE_CLASSES), and the arguments of a class's dispatches. */
uint tile_class(uint rows) { return rows > 32 ? 5 : rows > 16 ? 4 : rows > 8 ? 3 : rows > 4 ? 2 : rows > 1 ? 1 : 0; }

/* Workgroups of moe_gate_up, then of moe_down, at word `at` of the workspace */
void write_arguments(uint at, uint tiles, uint groups_up, uint groups_down) {
    wsu.u[at] = tiles;     wsu.u[at + 1] = groups_up;   wsu.u[at + 2] = 1;
    wsu.u[at + 3] = tiles; wsu.u[at + 4] = groups_down; wsu.u[at + 5] = 1;
}
