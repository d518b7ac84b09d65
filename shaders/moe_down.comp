#version 450
/* y[slot] = weight[slot] * (W_down h[row]): each expert's part of a token's output, in the order of slots (token, choice), for combine_norm to add in fixed order.
 * Tiles as in moe_gate_up. No atomics: a slot is written by one tile. Reference: tests/reference/model.c */
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
    [[unroll]] for (int t = 0; t < int(NT); t++) x[t] = (push.ws_x + (first + min(t, n - 1)) * push.ld_x) / 4;
    uint panel, row;
    if (!locate(panel, row)) return;
    multiply_panel(expert, panel, row, x);
    if (!has_sums()) return;
    [[unroll]] for (int t = 0; t < int(NT); t++)
        if (t < n) {
            uint slot = wsu.u[push.ws_perm + first + t];
            store_rows(t, panel, row, push.ws_y + slot * push.ld_y, ws.f[push.ws_scale + slot]);
        }
}
