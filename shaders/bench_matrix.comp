#version 450
/* The rate of cooperative matrices: N independent accumulators, eight rounds an iteration, no memory. Every product is a matrix of a, or of b, which the compiler does not know, times
 * one of ones, by turns: with b = -a an accumulator is what it began with after an even number of rounds. One more round, then each subgroup stores the sum of its accumulators,
 * as f32, M x N values that are all the same. Unsigned types have a = b = 1 and just grow, modulo 2^32. Workgroups: x. */
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_bench_alu push; };
layout(constant_id = 4) const uint N = 4;
layout(constant_id = 5) const uint TM = 8;
layout(constant_id = 6) const uint TN = 8;
layout(constant_id = 7) const uint TK = 8;
layout(constant_id = 8) const uint SUBGROUPS = 1;

#define ACCUMULATOR(type) coopmat<type, gl_ScopeSubgroup, TM, TN, gl_MatrixUseAccumulator>

void main() {
    coopmat<FROM, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> a = coopmat<FROM, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA>(FROM(push.a));
    coopmat<FROM, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA> b = coopmat<FROM, gl_ScopeSubgroup, TM, TK, gl_MatrixUseA>(FROM(push.b));
    coopmat<FROM, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB> ones = coopmat<FROM, gl_ScopeSubgroup, TK, TN, gl_MatrixUseB>(FROM(1));
    ACCUMULATOR(TO) x[N];
    [[unroll]] for (uint j = 0; j < N; j++) x[j] = ACCUMULATOR(TO)(TO(j));
    for (uint i = 0; i < push.n; i++)
        [[unroll]] for (uint u = 0; u < 4; u++) {
            [[unroll]] for (uint j = 0; j < N; j++) x[j] = coopMatMulAdd(a, ones, x[j]);
            [[unroll]] for (uint j = 0; j < N; j++) x[j] = coopMatMulAdd(b, ones, x[j]);
        }
    ACCUMULATOR(float) sum = ACCUMULATOR(float)(0.0);
    [[unroll]] for (uint j = 0; j < N; j++) sum += ACCUMULATOR(float)(coopMatMulAdd(a, ones, x[j]));
    if (gl_SubgroupID >= SUBGROUPS) return;          /* a driver that cannot be asked may take narrower subgroups than it reports: its rate is then higher than what is counted */
    coopMatStore(sum, ws.f, push.ws_out + (gl_WorkGroupID.x * SUBGROUPS + gl_SubgroupID) * TM * TN, TN, gl_CooperativeMatrixLayoutRowMajor);
}
