/* u in [0, 1): the upper 24 bits of the first word of Philox-2x32-10 (Salmon et al. 2011) of (counter, 0), keyed by the seed. */
float uniform01(uint seed, uint counter) {
    uint a = counter, b = 0, k = seed;
    for (int i = 0; i < 10; i++) {
        uint hi, lo;
        umulExtended(a, 0xD256D193u, hi, lo);
        a = hi ^ k ^ b; b = lo; k += 0x9E3779B9u;
    }
    return float(a >> 8) * (1.0 / 16777216.0);
}
