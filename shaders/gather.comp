#version 450
/* Copies n words of a slab, plus a table's word, to the workspace and to a KV buffer: all bindings of the set, for tests of the host layer. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
layout(push_constant) uniform Push { uint slab; uint kv; uint offset; uint n; } push;
void main() {
    uint i = gl_GlobalInvocationID.x;
    if (i >= push.n) return;
    uint word = ((i & 1u) == 0u ? slabs[push.slab].w[i] : slabs4[push.slab].w[i / 4][i % 4]) + tables.u[0];
    wsu.u[push.offset + i] = word;
    kv[push.kv].w[i] = word;
}
