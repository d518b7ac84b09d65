/* What linear, moe_gate_up and moe_down share: run_tile makes a tile of n tokens times a workgroup's panels of expert `expert`. The kernel says where token t of the tile has its row
 * of x (in vec4) and of y (in words), and what its sums are multiplied by; t is below n. */
uint input_row(uint t);
uint output_row(uint t, out float scale);

#include "quant.glsl"
#if defined(TIER_COOPMAT)
#  include "store.glsl"
#  include "matmul_coop.glsl"
#else
#  if defined(CPU)
#    include "matmul_cpu.glsl"
#  elif defined(TIER_INT8DOT)
#    include "matmul_dot.glsl"
#  else
#    include "matmul.glsl"
#  endif
#  include "store.glsl"

uint tile_in_order() { return gl_WorkGroupID.x; }

void run_tile(uint expert, uint n) {
    uint x[NT];
    [[unroll]] for (int t = 0; t < int(NT); t++) x[t] = input_row(min(t, n - 1));
    uint panel, row;
    if (!locate(panel, row)) return;
    if (ADDED && NT == 1) {
        float scale;
        fetch_before(panel, row, output_row(0, scale));
    }
    multiply_panel(expert, panel, row, x);
    if (!has_sums()) return;
    [[unroll]] for (int t = 0; t < int(NT); t++)
        if (t < n) {
            float scale;
            uint y = output_row(t, scale);
            store_rows(t, expert, panel, row, y, scale);
        }
}
#endif
