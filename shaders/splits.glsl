/* The sums of a lane, and adding them up in order where local_size_y splits the columns: afterwards part 0 has those of all. Two tokens at a time, for the sake of shared memory. */
layout(constant_id = 6) const uint SPLIT_SHARED = 1;  /* words of `parts` */

const int AT_ONCE = NT < 2 ? int(NT) : 2;
shared float parts[SPLIT_SHARED];                   /* [split - 1][AT_ONCE * RPL][lanes] */

float acc[NT * RPL];

void add_splits() {
    const uint each = AT_ONCE * RPL;
    uint splits = gl_WorkGroupSize.y, part = gl_LocalInvocationID.y, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    if (splits == 1) return;                        /* uniform: a constant of the pipeline */
    [[unroll]] for (int first = 0; first < int(NT); first += AT_ONCE) {
        if (first > 0) barrier();
        if (part > 0)
            [[unroll]] for (int i = 0; i < int(each); i++) parts[((part - 1) * each + i) * lanes + lane] = acc[first * RPL + i];
        barrier();
        if (part == 0)
            for (uint p = 0; p + 1 < splits; p++)           /* loads of four parts together: no faster on an H200, and NVK keeps acc in memory then */
                [[unroll]] for (int i = 0; i < int(each); i++) acc[first * RPL + i] += parts[(p * each + i) * lanes + lane];
    }
}
