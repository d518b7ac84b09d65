#version 450
/* y[slot] = weight[slot] * (W_down h[row] + bias), without the weight where x had it (WEIGHT_FIRST): each expert's part of a token's output, in the order of slots (token, choice), for combine_norm to add in fixed order;
 * or (ADDED) for the last of the workgroups that have rows of a panel, of all sizes of tiles, which adds them to the residual stream in that same order: a step less to wait for.
 * Tiles as in moe_gate_up. Nothing is summed by atomics: a slot is written by one tile. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_matmul push; };
#define ADDS_SLOTS
#include "tile.glsl"

uint first;
uint input_row(uint t) { return (push.ws_x + (first + t) * push.ld_x) / 4; }
uint output_row(uint t, out float scale) {
    uint slot = wsu.u[push.ws_perm + first + t];
    scale = WEIGHT_FIRST ? 1.0 : ws.f[push.ws_scale + slot];
    return push.ws_y + slot * push.ld_y;
}

#ifndef TIER_COOPMAT
shared uint arrived;

/* combine_norm of the rows of a workgroup's panel, whose tile has n slots; all lanes call it. */
void add_slots(uint n) {
    uint lane = gl_LocalInvocationIndex, lanes = gl_WorkGroupSize.x * gl_WorkGroupSize.y, panel = gl_WorkGroupID.y;
    memoryBarrierBuffer();
    barrier();
    if (lane == 0) arrived = atomicAdd(wsu.u[push.ws_arrived + panel], n) + n;
    barrier();
    if (arrived != push.n) return;
    memoryBarrierBuffer();
    if (lane == 0) wsu.u[push.ws_arrived + panel] = 0;      /* for the next layer */
    for (uint at = lane; at < push.n / push.n_used * 32; at += lanes) {
        uint token = at / 32, i = panel * 32 + at % 32, first = token * push.n_used, end = first + push.n_used;
        if (i >= push.rows) continue;
        float sum = 0.0, x = ws.f[push.ws_residual + token * push.ld_residual + i];
        for (uint slot = first; slot < end; slot += 8) {
            float part[8];
            [[unroll]] for (uint j = 0; j < 8; j++) part[j] = wsc.f[push.ws_y + min(slot + j, end - 1) * push.ld_y + i];
            [[unroll]] for (uint j = 0; j < 8; j++) if (slot + j < end) sum += part[j];
        }
        ws.f[push.ws_residual + token * push.ld_residual + i] = fma(push.residual, sum, x);
    }
}
#else
void add_slots(uint n) {}
#endif

void main() {
    uint tile = push.ws_tiles + 2 * tile_in_order();
    first = wsu.u[tile + 1];
    uint n = wsu.u[tile] >> 16;
    run_tile(wsu.u[tile] & 0xffffu, n);
    if (ADDED) add_slots(n);
}
