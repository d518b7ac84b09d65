#version 450
/* h[row] = silu(W_gate x) * (W_up x) for the experts' own tokens, expert by expert. Block-sparse: workgroups (x) are the tiles that moe_permute or moe_topk listed,
 * y = groups of panels. Rows of x are gathered through the permutation; h is in sorted order. GLU 0: plain rows, for gate and up of different types.
 * One pass over an expert's weights serves all tokens of a tile. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_matmul push; };
#include "quant.glsl"
#ifdef CPU
#  include "matmul_cpu.glsl"
#else
#  include "matmul.glsl"
#endif
#include "store.glsl"

void main() {
    uint tile = push.ws_tiles + 2 * gl_WorkGroupID.x;
    uint expert = wsu.u[tile] & 0xffffu, n = wsu.u[tile] >> 16, first = wsu.u[tile + 1];
    uint x[NT];
    [[unroll]] for (int t = 0; t < int(NT); t++)
        x[t] = (push.ws_x + wsu.u[push.ws_perm + first + min(t, n - 1)] / push.n_used * push.ld_x) / 4;
    uint panel, row;
    if (!locate(panel, row)) return;
    multiply_panel(expert, panel, row, x);
    if (!has_sums()) return;
    [[unroll]] for (int t = 0; t < int(NT); t++)
        if (t < n) store_rows(t, panel, row, push.ws_y + (first + t) * push.ld_y, 1.0);
}
