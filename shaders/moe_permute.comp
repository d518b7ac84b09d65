#version 450
/* Counting sort, second half: perm[sorted row] = slot, stable, so an expert's rows are in token order. The first workgroup also lists the tiles and writes the indirect arguments.
 * Tiles: see VKM_TILE_CLASSES; no tile is empty.
 * A lane owns a run of neighbouring experts. Workgroups: x = chunks of VKM_SORT_CHUNK slots. */
#extension GL_GOOGLE_include_directive : require
#include "bindings.glsl"
#include "abi.h"
layout(push_constant) uniform Push { vkm_push_moe_sort push; };
#define CUT push
#include "tiles.glsl"
layout(constant_id = 4) const uint EXPERTS = 8;

const int SUMS = 1 + VKM_TILE_CLASSES;
shared uint id[VKM_SORT_CHUNK];
shared uint start[EXPERTS];            /* where this chunk's rows of an expert begin */
shared uint lane_sum[SUMS][64];        /* per lane: rows, tiles of each class; then those of the lanes before. Not in arrays of the lane's own: NVK keeps such in memory. local_size_x <= 64 */
shared uint all[SUMS];

void main() {
    uint lane = gl_LocalInvocationID.x, lanes = gl_WorkGroupSize.x, chunk = gl_WorkGroupID.x;
    uint chunks = (push.n_slots + VKM_SORT_CHUNK - 1) / VKM_SORT_CHUNK;
    uint first = chunk * VKM_SORT_CHUNK, n = min(VKM_SORT_CHUNK, push.n_slots - first);
    uint each = (EXPERTS + lanes - 1) / lanes, begin = min(lane * each, EXPERTS), end = min(begin + each, EXPERTS);

    for (uint i = lane; i < n; i += lanes) id[i] = wsu.u[push.ws_ids + first + i];
    [[unroll]] for (int i = 0; i < SUMS; i++) lane_sum[i][lane] = 0;
    for (uint e = begin; e < end; e++) {
        uint rows = 0;
        for (uint c = 0; c < chunks; c++) rows += wsu.u[push.ws_counts + c * EXPERTS + e];
        lane_sum[0][lane] += rows;
        uint largest = tile_class(VKM_TILE_NEVER), left = rows;
        if (left >= tile_from(largest)) {                                   /* at once, for there may be very many */
            uint tiles = (left - tile_from(largest)) / tile_size(largest) + 1;
            lane_sum[1 + largest][lane] += tiles;
            left -= min(left, tiles * tile_size(largest));
        }
        while (left > 0) {
            uint c = tile_class(left);
            lane_sum[1 + c][lane]++;
            left -= min(left, tile_size(c));
        }
    }
    barrier();
    for (uint i = lane; i < SUMS; i += lanes) {
        uint sum = 0;
        for (uint l = 0; l < lanes; l++) { uint mine = lane_sum[i][l]; lane_sum[i][l] = sum; sum += mine; }
        all[i] = sum;
    }
    barrier();
    for (uint e = begin; e < end; e++) {
        uint rows = 0, before = 0;
        for (uint c = 0; c < chunks; c++) {
            uint count = wsu.u[push.ws_counts + c * EXPERTS + e];
            rows += count;
            if (c < chunk) before += count;
        }
        uint first_row = lane_sum[0][lane];
        start[e] = first_row + before;
        if (chunk == 0) {
            for (uint done = 0; done < rows; ) {
                uint c = tile_class(rows - done), take = min(rows - done, tile_size(c));
                uint tile = push.ws_tiles + 2 * (c * push.tiles_max + lane_sum[1 + c][lane]++);
                wsu.u[tile] = e | take << 16;
                wsu.u[tile + 1] = first_row + done;
                done += take;
            }
        }
        lane_sum[0][lane] = first_row + rows;
    }
    if (chunk == 0)
        for (uint i = lane; i < VKM_TILE_CLASSES * push.pieces; i += lanes) {
            uint tiles = all[1 + i / push.pieces], before = i % push.pieces * push.piece_tiles;
            write_arguments(push.ws_args + i * 6, i / push.pieces, min(tiles - min(before, tiles), push.piece_tiles));
        }
    barrier();
    for (uint i = lane; i < n; i += lanes) {
        uint e = id[i], rank = 0;
        if (e >= EXPERTS) continue;                                         /* a dropped slot */
        for (uint j = 0; j < i; j++) rank += uint(id[j] == e);
        wsu.u[push.ws_perm + min(start[e] + rank, push.n_slots - 1)] = first + i;
    }
}
