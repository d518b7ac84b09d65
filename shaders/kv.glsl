/* Where a unit of the KV cache lies (abi.h): its slab, uniform over a workgroup, and the word where it begins. */
uint kv_unit(uint unit, out uint slab) {
    slab = unit / push.kv_units;
    return (unit - slab * push.kv_units) * push.kv_words;
}
