/* Sum and maximum over a workgroup; every lane gets the result. Baseline: a tree in shared memory; subgroup tier: one subgroup operation, then a word a subgroup.
 * local_size_x is a power of two. */
layout(constant_id = 4) const uint REDUCE_SHARED = 64;    /* local_size_x; 1: the workgroup is one subgroup */
shared float reduce_part[REDUCE_SHARED];
#define ONE_SUBGROUP (REDUCE_SHARED == 1)
#include "sync.glsl"

#ifdef TIER_BASELINE
#define REDUCE(name, op)                                                            \
float name(float v) {                                                               \
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;                 \
    barrier();                                                                      \
    reduce_part[lane] = v;                                                          \
    for (uint half_ = lanes / 2; half_ > 0; half_ /= 2) {                           \
        barrier();                                                                  \
        if (lane < half_) reduce_part[lane] = op(reduce_part[lane], reduce_part[lane + half_]); \
    }                                                                               \
    barrier();                                                                      \
    return reduce_part[0];                                                          \
}
float add_(float a, float b) { return a + b; }
REDUCE(workgroup_sum, add_)
REDUCE(workgroup_max, max)
#else
#extension GL_KHR_shader_subgroup_arithmetic : require
#define REDUCE(name, subgroup_op, op)                                               \
float name(float v) {                                                               \
    v = subgroup_op(v);                                                             \
    if (ONE_SUBGROUP || gl_NumSubgroups == 1) return v;                           \
    barrier();                                                                      \
    if (subgroupElect()) reduce_part[gl_SubgroupID] = v;                            \
    barrier();                                                                      \
    v = reduce_part[0];                                                             \
    for (uint first = 1; first < gl_NumSubgroups; first += 8) {    /* eight loads at a time */ \
        float part[8];                                                              \
        [[unroll]] for (int i = 0; i < 8; i++) part[i] = reduce_part[min(first + i, gl_NumSubgroups - 1)]; \
        [[unroll]] for (int i = 0; i < 8; i++) if (first + i < gl_NumSubgroups) v = op(v, part[i]); \
    }                                                                               \
    return v;                                                                       \
}
float add_(float a, float b) { return a + b; }
REDUCE(workgroup_sum, subgroupAdd, add_)
REDUCE(workgroup_max, subgroupMax, max)
#endif
