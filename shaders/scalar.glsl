/* Loads for CPU drivers with caps.scalar_loads: from device addresses that are the same for all lanes. Such a load is one instruction and is *not masked*: it happens in a branch
 * not taken too, so addresses are always in range, and loops test at the end, for a loop that tests at the start runs its body once more with all lanes off. */
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_KHR_shader_subgroup_basic : require

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words  { uvec4 w[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Floats { vec4 f[]; };

/* the address of uvec4 `n` behind `a`, so that what is read near it needs no index arithmetic */
uvec2 ahead(uvec2 a, uint n) {
    uint lo = a.x + n * 16;
    return uvec2(lo, a.y + uint(lo < a.x));
}

uint pick(uvec4 v, uint q, uint first, const uint odd) {
    uint l = gl_SubgroupInvocationID * odd;
    q = mix(q, v.x, l == first * odd); q = mix(q, v.y, l == (first + 1) * odd); q = mix(q, v.z, l == (first + 2) * odd);
    return mix(q, v.w, l == (first + 3) * odd);
}
/* Word `lane + i LANES` of those from uvec4 `at` on; LANES (4, 8 or 16) is the subgroup's size and, in these kernels, the workgroup's. The driver makes one vector load of it, but only where it sees that what is
 * compared are constants, which it does not if loops one after another compare the same: each of them has another odd number (attention of 512 tokens: 80 ms instead of 103). */
uint word_apart(Words w, uint at, int i, const uint odd) {
    at += i * (LANES / 4);
    uint q = pick(w.w[at], 0, 0, odd);
    if (LANES > 4) q = pick(w.w[at + 1], q, 4, odd);
    if (LANES > 8) { q = pick(w.w[at + 2], q, 8, odd); q = pick(w.w[at + 3], q, 12, odd); }
    return q;
}
uint word(Words w, uint at, int i) { return word_apart(w, at, i, 1); }
