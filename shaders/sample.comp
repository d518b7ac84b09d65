#version 450
/* One token from each row of logits, by a workgroup: repetition penalty -> top-k -> top-p -> min-p -> temperature -> draw (the order of llama.cpp's samplers).
 * Nothing is sorted: each filter is a threshold on the logit, found by radix selection (top-k) or by bisection over the mass above it (top-p), and tokens tied with
 * the last survivor survive. The draw is an inverse CDF over survivors in ascending id; u comes from Philox-2x32-10 (Salmon et al. 2011) of (number of tokens so far, 0) keyed by the seed.
 * Parameters and recent tokens are those of the row's sequence. Workgroups: x = rows. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_sample push; };
#include "reduce.glsl"
#include "order.glsl"
#include "philox.glsl"

layout(constant_id = 5) const uint LOADS = 4;      /* that are issued together */
layout(constant_id = 6) const uint QUADS = 2;      /* the same, of four logits each, where all are looked at for the first time. On an H200 8 of them 14.3 us for 151,936 logits, 8 single ones 20 */
shared uint histogram[256];
shared float lane_mass[1024];          /* local_size_x <= 1024 */
shared uint lane_count[1024];
shared uint found;

uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x;

uint row = gl_WorkGroupID.x, sequence = wsu.u[push.ws_seq + row], n_tokens = wsu.u[push.ws_pos + row] + 1;
uint logits = push.ws_logits + row * push.ld_logits, scratch = push.ws_scratch + row * push.ld_scratch;
uint parameters = push.ws_sampling + sequence * VKM_SAMPLING_WORDS, recent = push.ws_recent + sequence * VKM_RECENT;

float logit(uint i) { return ws.f[logits + i]; }
uint parameter(uint i) { return wsu.u[parameters + i]; }
float parameter_f(uint i) { return ws.f[parameters + i]; }
uint candidate(uint i) { return wsu.u[scratch + i]; }
uint token_before(uint i) { return wsu.u[recent + (n_tokens - 1 - i) % VKM_RECENT]; }

void penalise() {
    float penalty = parameter_f(VKM_SAMPLING_PENALTY);
    uint window = min(min(parameter(VKM_SAMPLING_LAST_N), uint(VKM_RECENT)), n_tokens);
    if (penalty == 0.0 || penalty == 1.0) return;
    for (uint i = lane; i < window; i += lanes) {
        uint id = token_before(i);
        bool first = id < push.n_vocab;                 /* a token counts once */
        for (uint j = 0; j < i && first; j++) first = token_before(j) != id;
        if (first) { float l = logit(id); ws.f[logits + id] = l <= 0.0 ? l * penalty : l / penalty; }
    }
    memoryBarrierBuffer();
    sync();
}

/* key of the k-th largest logit */
uint kth_largest(uint k) {
    uint prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (uint i = lane; i < 256; i += lanes) histogram[i] = 0;
        sync();
        for (uint i = lane; i < push.n_vocab; i += lanes * LOADS) {
            uint key[LOADS];
            [[unroll]] for (int j = 0; j < int(LOADS); j++) key[j] = order(logit(min(i + j * lanes, push.n_vocab - 1)));
            [[unroll]] for (int j = 0; j < int(LOADS); j++)
                if (i + j * lanes < push.n_vocab && (shift == 24 || key[j] >> (shift + 8) == prefix >> (shift + 8))) atomicAdd(histogram[key[j] >> shift & 255u], 1u);
        }
        sync();
        uint bin = 255, left = k;
        while (bin > 0 && histogram[bin] < left) { left -= histogram[bin]; bin--; }
        prefix |= bin << shift;
        k = left;
        sync();
    }
    return prefix;
}

void push_token(uint id) {
    wsu.u[recent + n_tokens % VKM_RECENT] = id;
    wsu.u[push.ws_tokens + row] = id;
    wsu.u[push.ws_pos + row] = n_tokens;                /* its position */
}

void main() {
    penalise();
    float highest = uintBitsToFloat(0xff7fffffu);       /* the lowest: what is not above it, and NaN, is never the likeliest */
    uint likeliest = 0xffffffffu;                       /* the first with it, of those that this lane looks at */
    uint quads = (push.n_vocab + 3) / 4;                /* of the last, behind the end is padding */
    for (uint i = lane; i < quads; i += lanes * QUADS) {
        vec4 l[QUADS];
        [[unroll]] for (int j = 0; j < int(QUADS); j++) l[j] = ws4.f[logits / 4 + min(i + j * lanes, quads - 1)];
        [[unroll]] for (int j = 0; j < int(QUADS); j++)
            [[unroll]] for (int c = 0; c < 4; c++) {
                uint id = min(i + j * lanes, quads - 1) * 4 + c;
                if (l[j][c] > highest && id < push.n_vocab) { highest = l[j][c]; likeliest = id; }
            }
    }
    float mine_highest = highest;
    highest = workgroup_max(highest);

    float temperature = parameter_f(VKM_SAMPLING_TEMPERATURE);
    if (!(temperature > 0.0)) {
        if (lane == 0) found = 0xffffffffu;
        sync();
        if (mine_highest == highest) atomicMin(found, likeliest);
        sync();
        if (lane == 0) push_token(found < push.n_vocab ? found : 0);
        return;
    }

    uint k = parameter(VKM_SAMPLING_TOP_K);
    uint cut = k > 0 && k < push.n_vocab ? kth_largest(k) : 1;
    float mass = 0.0;
    uint min_cut = cut;
    if (parameter_f(VKM_SAMPLING_MIN_P) > 0.0) min_cut = max(cut, order(highest + log(parameter_f(VKM_SAMPLING_MIN_P)) * parameter_f(VKM_SAMPLING_LOGIT_SCALE)));
    /* candidates: what top-k and min-p leave, in ascending id; the mass that top-p refers to is all that top-k left */
    uint each = (push.n_vocab + lanes - 1) / lanes, begin = min(lane * each, push.n_vocab), end = min(begin + each, push.n_vocab);
    uint count = 0;
    for (uint i = begin; i < end; i++) {
        uint key = order(logit(i));
        if (key >= cut) mass += exp((logit(i) - highest) / parameter_f(VKM_SAMPLING_LOGIT_SCALE));
        if (key >= min_cut) count++;
    }
    lane_count[lane] = count;
    mass = workgroup_sum(mass);
    sync();
    uint at = 0, n = 0;
    for (uint l = 0; l < lanes; l++) { if (l < lane) at += lane_count[l]; n += lane_count[l]; }
    for (uint i = begin; i < end; i++) if (order(logit(i)) >= min_cut) wsu.u[scratch + at++] = i;
    memoryBarrierBuffer();
    sync();

    float top_p = parameter_f(VKM_SAMPLING_TOP_P);
    uint p_cut = min_cut;
    if (top_p > 0.0 && top_p < 1.0) {                   /* the highest threshold above which there is top_p of the mass */
        uint lo = min_cut, hi = order(highest);
        while (lo < hi) {
            uint middle = lo + (hi - lo + 1) / 2;
            float above = 0.0;
            for (uint i = lane; i < n; i += lanes * LOADS) {
                float l[LOADS];
                [[unroll]] for (int j = 0; j < int(LOADS); j++) l[j] = logit(candidate(min(i + j * lanes, n - 1)));
                [[unroll]] for (int j = 0; j < int(LOADS); j++)
                    if (i + j * lanes < n && order(l[j]) >= middle) above += exp((l[j] - highest) / parameter_f(VKM_SAMPLING_LOGIT_SCALE));
            }
            if (workgroup_sum(above) >= top_p * mass) lo = middle; else hi = middle - 1;
        }
        p_cut = lo;
    }

    each = (n + lanes - 1) / lanes; begin = min(lane * each, n); end = min(begin + each, n);
    float mine = 0.0;
    for (uint i = begin; i < end; i++) { float l = logit(candidate(i)); if (order(l) >= p_cut) mine += exp((l - highest) / temperature); }
    lane_mass[lane] = mine;
    sync();
    if (lane > 0) return;
    float total = 0.0;
    for (uint l = 0; l < lanes; l++) total += lane_mass[l];
    float left = uniform01(parameter(VKM_SAMPLING_SEED), n_tokens) * total;
    uint block = 0;                                     /* the lane whose candidates hold the point, or rounding having lost it, the last that has any */
    for (uint l = 0; l < lanes; l++) {
        if (lane_mass[l] <= 0.0) continue;
        block = l;
        if (left < lane_mass[l]) break;
        left -= lane_mass[l];
    }
    uint id = 0;
    for (uint i = block * each; i < min((block + 1) * each, n); i++) {
        float v = logit(candidate(i));
        if (order(v) < p_cut) continue;
        id = candidate(i);
        left -= exp((v - highest) / temperature);
        if (left < 0.0) break;
    }
    push_token(id);
}
