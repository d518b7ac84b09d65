/* What becomes of a head of q, k or v (kind 0, 1, 2) of one token before attention: optional clamp, optional RMSNorm over the head, rotary embedding (Su et al. 2021) of the first n_rot
 * dimensions of q and k. In shared memory, SLOTS heads at once, each by LANES lanes: rope_store has one, attention_one all three; a sum's order is the lanes', and no
 * product is fused with a sum (a compiler may choose which of two), so both get the same bits.
 * Rotation angles come from two host-made tables, pos % 256 and pos / 256, multiplied as complex numbers: exact to f32 at any position, where GPU sin and cos are not. */
shared float head_v[SLOTS * HEAD], head_squares[SLOTS * LANES];

vec2 times(vec2 a, vec2 b) {
    precise vec2 r = vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
    return r;
}

/* cosine and sine of the j-th of so many pairs at a position */
vec2 angle(uint pos, uint pairs, uint j) {
    uint lo = push.tab_rope + 2 * (pos % 256 * pairs + j), hi = push.tab_rope + 2 * ((256 + pos / 256) * pairs + j);
    return times(vec2(tablesf.f[lo], tablesf.f[lo + 1]), vec2(tablesf.f[hi], tablesf.f[hi + 1]));
}

/* The head at word `from` of the workspace, to slot `slot`. All lanes of the workgroup call this; those that have no head with mine = false. */
void make_head(bool mine, uint slot, uint kind, uint from, uint pos, uint lane) {
    uint pairs = kind != 2 ? push.n_rot / 2 : 0, norm = kind == 0 ? push.tab_q_norm : kind == 1 ? push.tab_k_norm : VKM_NONE, v = slot * HEAD;
    vec2 first = angle(pos, pairs, min(lane, max(pairs, 1) - 1));      /* on its way while the norm is made */
    precise float squares = 0.0;
    if (mine)
        for (uint i = lane; i < HEAD; i += LANES) {
            float a = ws.f[from + i];
            if (push.clamp > 0.0) a = clamp(a, -push.clamp, push.clamp);
            head_v[v + i] = a;
            squares += a * a;
        }
    if (push.tab_q_norm != VKM_NONE || push.tab_k_norm != VKM_NONE) {
        if (mine) head_squares[slot * LANES + lane] = squares;
        sync();
        if (mine && norm != VKM_NONE) {
            float sum = 0.0;
            for (uint i = 0; i < LANES; i++) sum += head_squares[slot * LANES + i];
            float inv = 1.0 / sqrt(sum / float(HEAD) + push.eps);
            for (uint i = lane; i < HEAD; i += LANES) head_v[v + i] *= inv * tablesf.f[norm + i];
        }
    }
    sync();
    if (mine)
        for (uint j = lane; j < pairs; j += LANES) {
            uint a = v + (NEOX != 0 ? j : 2 * j), b = v + (NEOX != 0 ? j + pairs : 2 * j + 1);
            vec2 r = times(vec2(head_v[a], head_v[b]), j == lane ? first : angle(pos, pairs, j));
            head_v[a] = r.x; head_v[b] = r.y;
        }
    sync();
}

/* Two dimensions of a key or value as the cache has them: f16 stays finite, for a masked one is multiplied by zero. */
uint cached_word(uint slot, uint i) { return packHalf2x16(clamp(vec2(head_v[slot * HEAD + 2 * i], head_v[slot * HEAD + 2 * i + 1]), -65504.0, 65504.0)); }
