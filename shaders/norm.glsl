/* RMSNorm (Zhang & Sennrich 2019) of a row by all lanes of a workgroup. The order of the sum is that of the columns, not of the lanes: squares of four columns next to each other, of
 * those every 32nd in order, then these 32 in order. So combine_norm and the kernels that make a token's norm themselves (NORMED) have the same bits.
 * NORM_QUADS: how many times four columns there are at most. */
shared float norm_squares[NORM_QUADS];
shared vec4 norm_sums[8];

float square4(vec4 v) { return fma(v.w, v.w, fma(v.z, v.z, fma(v.y, v.y, v.x * v.x))); }

/* 1 / rms, where norm_squares has square4 of all `quads`; what lanes wrote before it can be read behind it. */
float inverse_rms(uint quads, uint width, float eps) {
    uint lanes = gl_WorkGroupSize.x * gl_WorkGroupSize.y;
    barrier();
    for (uint j = gl_LocalInvocationIndex; j < 32; j += lanes) {
        float sum = 0.0;
        [[dont_unroll]] for (uint i = j; i < quads; i += 256)
            [[unroll]] for (uint k = 0; k < 256; k += 32) if (i + k < quads) sum += norm_squares[i + k];
        norm_sums[j / 4][j % 4] = sum;
    }
    barrier();
    float sum = 0.0;
    for (uint j = 0; j < 8; j++) {
        vec4 four = norm_sums[j];
        sum += four.x; sum += four.y; sum += four.z; sum += four.w;
    }
    return 1.0 / sqrt(sum / float(width) + eps);
}

vec4 norm_weight(uint tab, uint quad) { return tables4.f[tab / 4 + quad]; }
