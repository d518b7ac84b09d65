/* Which experts the tokens of `bench layer` choose, and the inputs that make the true router choose them. */
#include "bench_device.h"
#include "model/arch.h"
#include <stdlib.h>
#include <string.h>

/* SplitMix64 (Steele, Lea, Flood 2014) */
uint64_t bench_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
double bench_random01(uint64_t *state) { return (double)(bench_random(state) >> 11) * 0x1p-53; }

vkm_result bench_route(uint64_t seed, enum bench_routing routing, uint32_t n_expert, uint32_t n_used, uint32_t n, uint32_t *ids, vkm_error *err)
{
    uint32_t *order = malloc(n_expert * sizeof *order);
    double *weight = malloc(n_expert * sizeof *weight);
    if (!order || !weight) {
        free(order), free(weight);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    }
    for (uint32_t e = 0; e < n_expert; e++) order[e] = e;
    for (uint32_t e = n_expert - 1; e > 0; e--) {          /* which expert is how popular has nothing to do with its number */
        uint32_t o = (uint32_t)(bench_random01(&seed) * (e + 1)), swap = order[e];
        order[e] = order[o], order[o] = swap;
    }
    for (uint32_t t = 0; t < n; t++) {
        double total = 0;
        for (uint32_t r = 0; r < n_expert; r++) total += weight[r] = routing == BENCH_ZIPF ? 1.0 / (r + 1) : 1;
        for (uint32_t j = 0; j < n_used; j++) {            /* one after another, each from those that are left */
            double u = bench_random01(&seed) * total;
            uint32_t pick = n_expert;
            for (uint32_t r = 0; r < n_expert; r++) {
                if (weight[r] == 0) continue;
                pick = r;                                  /* the last that is left, should rounding carry u beyond the end */
                if (u < weight[r]) break;
                u -= weight[r];
            }
            total -= weight[pick];
            weight[pick] = 0;
            ids[t * n_used + j] = order[pick];
        }
    }
    free(order), free(weight);
    return VKM_OK;
}

void bench_route_inputs(uint64_t seed, uint32_t n_expert, uint32_t n_used, uint32_t n, const uint32_t *ids, uint32_t width, uint32_t ld, float *x)
{
    for (uint32_t t = 0; t < n; t++, x += ld) {
        for (uint32_t i = 0; i < ld; i++) x[i] = i < width ? (float)(bench_random01(&seed) * 2 - 1) * 1.7f : 0;
        for (uint32_t e = 0; e < n_expert; e++) x[e] = (float)(-4 - bench_random01(&seed));
        for (uint32_t j = 0; j < n_used; j++) x[ids[t * n_used + j]] = 4 - 0.125f * (float)j;
    }
}

uint32_t bench_distinct(uint32_t n_expert, const uint32_t *ids, uint32_t n)
{
    uint32_t distinct = 0;
    uint8_t seen[VKM_MAX_EXPERTS] = {0};
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < n_expert && ids[i] < sizeof seen && !seen[ids[i]]++) distinct++;
    return distinct;
}
