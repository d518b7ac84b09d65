/* The sums of a lane, and adding them up in order where local_size_y splits the columns: afterwards part 0 has those of all. */
layout(constant_id = 6) const uint SPLIT_SHARED = 1;  /* words of `parts` */

shared float parts[SPLIT_SHARED];                   /* [split - 1][NT * RPL][lanes] */

float acc[NT * RPL];

void add_splits() {
    uint splits = gl_WorkGroupSize.y, part = gl_LocalInvocationID.y, lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;
    if (splits == 1) return;                        /* uniform: a constant of the pipeline */
    if (part > 0)
        [[unroll]] for (int i = 0; i < int(NT * RPL); i++) parts[((part - 1) * NT * RPL + i) * lanes + lane] = acc[i];
    barrier();
    if (part == 0)
        for (uint p = 0; p + 1 < splits; p++)
            [[unroll]] for (int i = 0; i < int(NT * RPL); i++) acc[i] += parts[(p * NT * RPL + i) * lanes + lane];
}
