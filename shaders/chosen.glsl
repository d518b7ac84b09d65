/* Expert choice: which of an expert's slots is token t's, its tokens being those at `at` in ascending order; VKM_NONE: it did not choose t. */
uint slot_of_expert(uint at, uint capacity, uint t) {
    uint lo = 0, hi = capacity;
    while (lo < hi) {
        uint middle = (lo + hi) / 2;
        if (wsu.u[at + middle] < t) lo = middle + 1; else hi = middle;
    }
    return lo < capacity && wsu.u[at + lo] == t ? lo : VKM_NONE;
}
