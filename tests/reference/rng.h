/* PCG32 (O'Neill 2014, XSH-RR 64/32): the random numbers of all tests, the same on every machine. */
#ifndef REF_RNG_H
#define REF_RNG_H

#include <stdint.h>

struct ref_rng { uint64_t state; };

static inline uint32_t ref_u32(struct ref_rng *r)
{
    uint64_t s = r->state;
    r->state = s * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)((s >> 18 ^ s) >> 27), rot = (uint32_t)(s >> 59);
    return x >> rot | x << (-rot & 31);
}

static inline struct ref_rng ref_seed(uint64_t seed)
{
    struct ref_rng r = {seed + 1442695040888963407u};
    ref_u32(&r);
    return r;
}

static inline uint32_t ref_below(struct ref_rng *r, uint32_t n) { return (uint32_t)((uint64_t)ref_u32(r) * n >> 32); }   /* in [0, n) */
static inline double ref_uniform(struct ref_rng *r) { return ref_u32(r) * 0x1p-32; }                                   /* in [0, 1) */

/* A bell of mean 0 and standard deviation 1: four uniform numbers added (Irwin-Hall), so that no libm is involved; it ends at +-3.46. */
static inline double ref_normal(struct ref_rng *r)
{
    double sum = ref_uniform(r) + ref_uniform(r);
    sum += ref_uniform(r) + ref_uniform(r);
    return (sum - 2) * 1.7320508075688772;
}

#endif
