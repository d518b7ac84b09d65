#version 450
/* attention.comp for CPU drivers with caps.texel_loads: a lane owns a row (token, query head of one kv head) and does all of it, so nothing passes between lanes: neither through shared memory, whose
 * loads are as slow there as those of storage buffers, nor by subgroup operations, which take long to compile. Online softmax (see there) four keys at a time; keys and values are the same for all
 * lanes, four words a load. A row's sums do not depend on what else there is. lavapipe 22.3, the bundled model, a prompt of 128 tokens: 5 ms (attention.comp 32; attention_cpu.comp with its loads from
 * texel buffers 26, and 32 seconds to compile). Workgroups: as there, with a row for each lane. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_attention push; };
#include "kv.glsl"
layout(constant_id = 4) const uint HEAD = 64;      /* a multiple of 8 */
layout(constant_id = 5) const uint KV16 = 1;

const uint WORDS = KV16 != 0 ? HEAD / 2 : HEAD;    /* of a token of a kv head */
vec4 q[HEAD / 4], out_[HEAD / 4];
uint k_slab, v_slab;

/* Products of four keys with the row; keys: uvec4 of the first one's words in the cache */
vec4 scores(uint keys) {
    vec4 s = vec4(0.0);
    [[unroll]] for (uint w = 0; w < WORDS; w++) {
        uvec4 k = KV_QUAD(k_slab, keys + w * 8);
        if (KV16 != 0) {
            vec2 a = unpackHalf2x16(k.x), b = unpackHalf2x16(k.y), c = unpackHalf2x16(k.z), d = unpackHalf2x16(k.w);
            s += q[w / 2][w % 2 * 2] * vec4(a.x, b.x, c.x, d.x);
            s += q[w / 2][w % 2 * 2 + 1] * vec4(a.y, b.y, c.y, d.y);
        } else s += q[w / 4][w % 4] * uintBitsToFloat(k);
    }
    return s;
}

/* Adds a key's value; value: its uvec4 in the cache */
void add_value(float weight, uint value) {
    [[unroll]] for (uint i = 0; i < WORDS / 4; i++) {
        uvec4 v = KV_QUAD(v_slab, value + i);
        if (KV16 != 0) {
            out_[2 * i] += weight * vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y));
            out_[2 * i + 1] += weight * vec4(unpackHalf2x16(v.z), unpackHalf2x16(v.w));
        } else out_[i] += weight * uintBitsToFloat(v);
    }
}

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, head_kv = gl_WorkGroupID.y, group = push.n_head / push.n_head_kv;
    uint begin = gl_WorkGroupID.x / push.tiles * push.rows, end = begin + push.rows;
    uint first = begin + gl_WorkGroupID.x % push.tiles * lanes, row = min(first + lane, end - 1), t = row / group, head = head_kv * group + row % group;
    uint sequence = wsu.u[push.ws_seq + first / group], pos = min(wsu.u[push.ws_pos + t], push.n_ctx - 1);
    uint keys = (kv_unit(push.k_unit + sequence, k_slab) + head_kv * push.n_ctx * WORDS) / 4, values = (kv_unit(push.v_unit + sequence, v_slab) + head_kv * push.n_ctx * WORDS) / 4;
    float highest = -3.0e38, sum = 0.0;
    [[unroll]] for (uint i = 0; i < HEAD / 4; i++) {
        q[i] = WS_QUAD((push.ws_q + t * push.ld_q + head * HEAD) / 4 + i);
        out_[i] = vec4(0.0);
    }
    for (uint key = 0; key <= pos; key += 4) {
        bvec4 known = lessThanEqual(uvec4(key, key + 1, key + 2, key + 3), uvec4(pos));
        vec4 s = mix(vec4(-3.0e38), scores(keys + key / 32 * WORDS * 8 + key % 32 / 4) * push.scale, known);
        float most = max(max(highest, max(s.x, s.y)), max(s.z, s.w)), keep = exp(highest - most);
        vec4 weight = mix(vec4(0.0), exp(s - most), known);
        sum = sum * keep + ((weight.x + weight.y) + (weight.z + weight.w));
        highest = most;
        [[unroll]] for (uint i = 0; i < HEAD / 4; i++) out_[i] *= keep;
        [[unroll]] for (uint j = 0; j < 4; j++) add_value(weight[j], values + (key + j) * WORDS / 4);
    }
    if (first + lane >= end) return;
    uint at = push.ws_out + t * push.ld_out;
    [[unroll]] for (uint i = 0; i < HEAD / 4; i++) ws4.f[(at + head * HEAD) / 4 + i] = out_[i] / sum;
    if (head == push.n_head - 1)                   /* the row's padding, which the next matmul reads */
        for (uint i = push.n_head * HEAD; i < push.ld_out; i++) ws.f[at + i] = 0.0;
}
