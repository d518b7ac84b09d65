#version 450
/* Expert choice (Zhou et al. 2022): the C tokens that are the best for an expert, by ascending token. The C-th best key is found by radix selection; of the tokens tied with it the first are taken.
 * Workgroups: x = experts. Reference: tests/reference/router.c */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_choose push; };
#include "order.glsl"
layout(constant_id = 4) const uint LANES = 64;     /* local_size_x */

shared uint histogram[256];
shared uint above[LANES], level[LANES];            /* of a lane's tokens: those better than the C-th, those like it */

uint expert = gl_WorkGroupID.x, lane = gl_LocalInvocationID.x;
uint key_of(uint t) { return order(ws.f[push.ws_probs + t * push.n_expert + expert]); }

void main() {
    uint cut = 0, left = push.capacity;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (uint i = lane; i < 256; i += LANES) histogram[i] = 0;
        barrier();
        for (uint t = lane; t < push.n; t += LANES) {
            uint key = key_of(t);
            if (shift == 24 || key >> (shift + 8) == cut >> (shift + 8)) atomicAdd(histogram[key >> shift & 255u], 1u);
        }
        barrier();
        uint bin = 255;
        while (bin > 0 && histogram[bin] < left) { left -= histogram[bin]; bin--; }
        cut |= bin << shift;
        barrier();
    }
    uint each = (push.n + LANES - 1) / LANES, begin = min(lane * each, push.n), end = min(begin + each, push.n);
    above[lane] = level[lane] = 0;
    for (uint t = begin; t < end; t++) {
        uint key = key_of(t);
        above[lane] += uint(key > cut);
        level[lane] += uint(key == cut);
    }
    barrier();
    uint n_above = 0, n_level = 0;                 /* before this lane's; `left` of those like the C-th are taken */
    for (uint l = 0; l < lane; l++) { n_above += above[l]; n_level += level[l]; }
    for (uint t = begin; t < end; t++) {
        float p = ws.f[push.ws_probs + t * push.n_expert + expert];
        uint key = order(p), slot = expert * push.capacity + n_above + min(n_level, left);
        if (key > cut) n_above++;
        else if (key == cut && n_level++ < left) { }
        else continue;
        wsu.u[push.ws_tokens + slot] = t;
        wsu.u[push.ws_ids + slot] = expert;
        ws.f[push.ws_weight + slot] = key == 0 ? 0.0 : p * (push.tab_scale != VKM_NONE ? push.scale * tablesf.f[push.tab_scale + expert] : push.scale);
    }
}
