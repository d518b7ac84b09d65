#version 450
/* y[t] = W x[t] + bias, dense. Workgroups: x = tiles of NT tokens from push.first on, y = groups of panels.
 * With GLU the panels hold 16 gate rows and 16 up rows (the dense shared expert) and y is silu(gate) * up. Reference: tests/reference/model.c */
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
    uint token = push.first + gl_WorkGroupID.x * NT;
    uint n = min(NT, push.n - token);
    uint x[NT];
    [[unroll]] for (int t = 0; t < int(NT); t++) x[t] = (push.ws_x + min(token + t, push.n - 1) * push.ld_x) / 4;
    uint panel, row;
    if (!locate(panel, row)) return;
    multiply_panel(0, panel, row, x);
    if (!has_sums()) return;
    [[unroll]] for (int t = 0; t < int(NT); t++)
        if (t < n) store_rows(t, panel, row, push.ws_y + (token + t) * push.ld_y, 1.0);
}
