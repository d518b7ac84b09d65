#version 450
/* h[row] = act(W_gate x) * (W_up x) for the experts' own tokens, expert by expert. Block-sparse: workgroups (x) are the tiles that moe_permute or moe_topk listed,
 * y = groups of panels. Rows of x are gathered through the permutation; h is in sorted order. GLU 0: plain rows, for gate and up of different types, or act(W_up x) where there is no gate.
 * WEIGHT_FIRST: x is multiplied by the token's routing weight (Llama 4).
 * One pass over an expert's weights serves all tokens of a tile. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_matmul push; };
#include "tile.glsl"

uint first;
uint input_row(uint t) { return (push.ws_x + wsu.u[push.ws_perm + first + t] / push.n_used * push.ld_x) / 4; }
uint output_row(uint t, out float scale) {
    scale = WEIGHT_FIRST ? ws.f[push.ws_scale + wsu.u[push.ws_slots + first + t]] : 1.0;
    return push.ws_y + (first + t) * push.ld_y;
}

void main() {
    uint tile = push.ws_tiles + 2 * tile_in_order();
    first = wsu.u[tile + 1];
    run_tile(wsu.u[tile] & 0xffffu, wsu.u[tile] >> 16);
}
