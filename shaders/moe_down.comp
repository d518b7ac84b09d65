#version 450
/* y[slot] = weight[slot] * (W_down h[row] + bias), without the weight where x had it (WEIGHT_FIRST): each expert's part of a token's output, in the order of slots (token, choice), for combine_norm to add in fixed order.
 * Tiles as in moe_gate_up. No atomics: a slot is written by one tile. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_matmul push; };
#include "tile.glsl"

uint first;
uint input_row(uint t) { return (push.ws_x + (first + t) * push.ld_x) / 4; }
uint output_row(uint t, out float scale) {
    uint slot = wsu.u[push.ws_perm + first + t];
    scale = WEIGHT_FIRST ? 1.0 : ws.f[push.ws_scale + slot];
    return push.ws_y + slot * push.ld_y;
}

void main() {
    uint tile = push.ws_tiles + 2 * gl_WorkGroupID.x;
    first = wsu.u[tile + 1];
    run_tile(wsu.u[tile] & 0xffffu, wsu.u[tile] >> 16);
}
