#version 450
/* y[t] = W x[t] + bias, dense. Workgroups: x = tiles of NT tokens from push.first on, y = groups of panels.
 * NORMED (tiles of one token): x is the residual stream, whose norm workgroups make themselves; ADDED: y is the residual stream, and what is made is added to it.
 * With GLU the panels hold 16 gate rows and 16 up rows (the dense shared expert) and y is act(gate) * up. Reference: tests/reference/model.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_matmul push; };
#define MAKES_NORM
#include "tile.glsl"

uint token;
uint input_row(uint t) { return (push.ws_x + (token + t) * push.ld_x) / 4; }
uint output_row(uint t, out float scale) { scale = 1.0; return push.ws_y + (token + t) * push.ld_y; }

void main() {
    token = push.first + gl_WorkGroupID.x * NT;
    run_tile(0, min(NT, push.n - token));
}
