#version 450
/* out[row] = act(gate[row]) * up[row], for experts whose gate and up have different tensor types; their biases are in the sums already. Workgroups: x = rows. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_glu push; };
layout(constant_id = 4) const uint EPILOGUE = VKM_EPILOGUE_GLU;
#include "activate.glsl"

void main() {
    uint row = gl_WorkGroupID.x;
    for (uint i = gl_LocalInvocationID.x; i < push.ld_out; i += gl_WorkGroupSize.x) {
        float g = ws.f[push.ws_gate + row * push.ld + i], u = ws.f[push.ws_up + row * push.ld + i];
        ws.f[push.ws_out + row * push.ld_out + i] = i < push.width ? gated(g, u) : 0.0;
    }
}
