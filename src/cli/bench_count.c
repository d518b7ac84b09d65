/* What the steps of a MoE layer must move and do, counted from shapes, routing and the tile lists that the device wrote. */
#include "bench_device.h"
#include <string.h>

vkm_result bench_tiles_add(const struct vkm_shape *kernels, const struct vkm_moe *moe, const struct vkm_moe_space *space, uint32_t n, const struct vkm_step *step, const uint32_t *tiles, const uint32_t *args, struct bench_tiles *t, vkm_error *err)
{
    static const uint32_t sizes[] = VKM_TILE_SIZES;
    struct vkm_push_matmul push;
    memcpy(&push, step->push, sizeof push);
    uint64_t first = push.ws_tiles - space->tiles.at, class = first / (2ull * n * moe->n_used), arg = step->indirect_offset / 4 - space->args.at;
    if (first >= space->tiles.ld || class >= VKM_COUNT(sizes) || (step->indirect && arg >= space->args.ld))
        return vkm_fail(err, VKM_ERR_FORMAT, "step %s has no tile list where one is expected", step->label);
    uint32_t count = step->indirect ? args[arg] : step->groups[0];
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = first + 2ull * i;
        uint32_t rows = at < space->tiles.ld ? tiles[at] >> 16 : 0;
        if (rows > sizes[class]) return vkm_fail(err, VKM_ERR_FORMAT, "step %s: tile %u has %u rows, more than %u", step->label, i, rows, sizes[class]);
        t->tiles++;
        t->rows += rows;
        t->words_in += (uint64_t)rows * push.ld_x, t->words_out += (uint64_t)rows * push.ld_y;
        t->computed += kernels->matrix.m && sizes[class] > 32 ? vkm_align(rows, kernels->matrix.m) : sizes[class];     /* GUARDED of matmul_coop.glsl */
        if (!rows) t->empty += step->groups[1];
    }
    return VKM_OK;
}

struct bench_words bench_words_of(const struct vkm_step *step)
{
    struct vkm_push_matmul push;
    memcpy(&push, step->push, sizeof push);
    return (struct bench_words){push.ld_x, push.ld_y};
}

static struct bench_work matmul(const struct vkm_weight *w, struct bench_words words, double rows_in, double rows, double matrices, double reads)
{
    double weights = (double)vkm_matmul_bytes(w) * matrices, io = 4 * (rows_in * (words.in ? words.in : w->cols) + rows * (words.out ? words.out : w->rows));
    return (struct bench_work){.bytes = weights + io, .weights = weights, .flops = 2 * rows * w->cols * w->rows * (w->glu ? 2 : 1), .moved = (double)vkm_matmul_bytes(w) * reads + io};
}

bool bench_work_of(const struct vkm_moe *m, const char *label, uint32_t n, double distinct, double tiles, struct bench_words words, struct bench_work *work)
{
    const struct bench_words f32 = {0};
    double slots = (double)n * m->n_used, counts = (double)vkm_moe_count_words(n, m->n_used, m->n_expert), width = m->n_embd, bytes = 0;
    double norm = 4 * 4 * width * n, topk = 4.0 * n * m->router.rows + 8 * slots;      /* x twice, what is added, the normed x; logits, ids, weights */
    if (!strcmp(label, "moe_gate_up"))         *work = matmul(&m->gate_up, words, n, slots, distinct, tiles);
    else if (!strcmp(label, "moe_down"))       *work = matmul(&m->down, words, slots, slots, distinct, tiles);
    else if (!strcmp(label, "moe_router"))     *work = matmul(&m->router, f32, n, n, 1, tiles);
    else if (!strcmp(label, "moe_route"))      *work = matmul(&m->router, f32, 0, n, 1, tiles), work->bytes += norm + topk, work->moved += norm + topk;
    else if (!strcmp(label, "shared_gate_up")) *work = matmul(&m->shared_gate_up, f32, n, n, 1, tiles);
    else if (!strcmp(label, "shared_down"))    *work = matmul(&m->shared_down, f32, n, n, 1, tiles);
    else {
        if (!strcmp(label, "moe_topk"))         bytes = topk;
        else if (!strcmp(label, "ffn_norm"))    bytes = norm;
        else if (!strcmp(label, "moe_count"))   bytes = 4 * (slots + counts);
        else if (!strcmp(label, "moe_permute")) bytes = 4 * (2 * slots + counts);
        else if (!strcmp(label, "moe_combine")) bytes = 4 * width * (slots + n * (3.0 + (m->shared_down.type != NULL)));   /* parts, shared part; x twice, the normed x */
        else return false;
        *work = (struct bench_work){.bytes = bytes, .moved = bytes};
    }
    return true;
}
