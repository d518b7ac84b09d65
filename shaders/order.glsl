/* Integer keys in the order of floats: a < b <=> order(a) < order(b). NaN is lowest, zeros of both signs are equal. */
uint order(float v) {
    uint u = floatBitsToUint(v);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0;
    if (u == 0x80000000u) u = 0;
    return (u & 0x80000000u) != 0 ? ~u : u | 0x80000000u;
}
