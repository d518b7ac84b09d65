#version 450
/* Writes one word n times: test programs and the audit of the host layer. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
layout(push_constant) uniform Push { uint offset; uint n; uint value; } push;
void main() {
    uint i = gl_GlobalInvocationID.x;
    if (i < push.n) wsu.u[push.offset + i] = push.value;
}
