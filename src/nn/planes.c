#include "types.h"
#include <string.h>

#define GROUP 8u                      /* rows that lie together */

/* Four words of each of the group's rows to four planes of a word a row. */
static uint32_t *put_words(const uint32_t rows[GROUP][4], uint32_t *to)
{
    for (uint32_t w = 0; w < 4; w++)
        for (uint32_t r = 0; r < GROUP; r++) *to++ = rows[r][w];
    return to;
}

/* Eight halves of each of them to eight planes of a half a row: two rows and two columns at a time, which are a word each before and behind. */
static uint32_t *put_halves(const uint32_t rows[GROUP][4], uint32_t *to)
{
    for (uint32_t w = 0; w < 4; w++, to += GROUP)
        for (uint32_t r = 0; r < GROUP / 2; r++) {
            uint32_t a = rows[2 * r][w], b = rows[2 * r + 1][w];
            to[r] = (a & 0xffffu) | b << 16;
            to[GROUP / 2 + r] = a >> 16 | (b & 0xffff0000u);
        }
    return to;
}

/* The quants come first, 16 bytes a row; K-quants have 16 bytes a row and super-block of scales behind the bits above four. Other planes are words already. */
void vkm_panel_planes(const struct vkm_type *type, uint32_t kb, const uint32_t *panel, uint32_t *to)
{
    const uint32_t high = kb * type->high * VKM_PANEL_ROWS, scales = type->block_cols == 256 ? kb / 8 : 0, words = type->row_words(kb) * VKM_PANEL_ROWS, *from = panel;
    for (uint32_t k = 0; k < kb; k++, from += type->quads * 4 * VKM_PANEL_ROWS)
        for (uint32_t first = 0; first < VKM_PANEL_ROWS; first += GROUP)
            for (uint32_t q = 0; q < type->quads; q++) {
                uint32_t rows[GROUP][4];
                memcpy(rows, from + (q * VKM_PANEL_ROWS + first) * 4, sizeof rows);
                to = type->id == 1 ? put_halves(rows, to) : put_words(rows, to);
            }
    memcpy(to, from, high * sizeof *to);
    to += high, from += high;
    for (uint32_t i = 0; i < scales; i++, from += 4 * VKM_PANEL_ROWS)
        for (uint32_t w = 0; w < 4; w++)
            for (uint32_t r = 0; r < VKM_PANEL_ROWS; r++) *to++ = from[4 * r + w];
    memcpy(to, from, (words - (size_t)(from - panel)) * sizeof *to);
}
