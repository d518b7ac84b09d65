/* Loads for CPU drivers with caps.scalar_loads: from device addresses that are the same for all lanes. Such a load is one instruction and is *not masked*: it happens in a branch
 * not taken too, so addresses are always in range, and loops test at the end, for a loop that tests at the start runs its body once more with all lanes off. */
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_shader_subgroup_basic : require

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words  { uvec4 w[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly WS_ACCESS buffer Floats { vec4 f[]; };
layout(buffer_reference, std430, buffer_reference_align = 4)  readonly buffer Sums   { float f[]; };

/* the address `n` bytes behind `a`, and that of uvec4 `n`, so that what is read near it needs no index arithmetic */
uvec2 ahead_bytes(uvec2 a, uint n) {
    uint lo = a.x + n;
    return uvec2(lo, a.y + uint(lo < a.x));
}
uvec2 ahead(uvec2 a, uint n) { return ahead_bytes(a, n * 16); }

/* A load of neighbouring words is one only where the driver sees that the lanes' numbers are compared with constants, and it does not where those, or a comparison, are first made in a loop and needed again
 * behind it: that goes through memory, masked by the lanes that were in the loop. So all are made here, before any loop: a kernel begins with know_lane(). */
bool lane_is[16];
void know_lane() { [[unroll]] for (uint l = 0; l < 16; l++) lane_is[l] = gl_SubgroupInvocationID == l; }

uint pick(uvec4 v, uint q, const uint first) {
    q = mix(q, v.x, lane_is[first]); q = mix(q, v.y, lane_is[first + 1]); q = mix(q, v.z, lane_is[first + 2]);
    return mix(q, v.w, lane_is[first + 3]);
}
/* Word `lane + i LANES` of those from uvec4 `at` on; LANES (4, 8 or 16) is the subgroup's size and, in these kernels, the workgroup's */
uint word(Words w, uint at, int i) {
    at += i * (LANES / 4);
    uint q = pick(w.w[at], 0, 0);
    if (LANES > 4) q = pick(w.w[at + 1], q, 4);
    if (LANES > 8) { q = pick(w.w[at + 2], q, 8); q = pick(w.w[at + 3], q, 12); }
    return q;
}
