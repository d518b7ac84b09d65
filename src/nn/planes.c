#include "types.h"
#include <string.h>

/* n groups of 32 rows of four words each */
static uint32_t *transpose(uint32_t *group, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, group += 4 * VKM_PANEL_ROWS) {
        uint32_t rows[VKM_PANEL_ROWS][4];
        memcpy(rows, group, sizeof rows);
        for (uint32_t w = 0; w < 4; w++)
            for (uint32_t r = 0; r < VKM_PANEL_ROWS; r++) group[w * VKM_PANEL_ROWS + r] = rows[r][w];
    }
    return group;
}

/* n groups of 32 rows of eight halves each become eight columns of 32: two rows and two columns at a time, which are a word each before and behind */
static void transpose_halves(uint32_t *group, uint32_t n)
{
    enum { PAIRS = VKM_PANEL_ROWS / 2 };
    for (uint32_t i = 0; i < n; i++, group += 4 * VKM_PANEL_ROWS) {
        uint32_t rows[VKM_PANEL_ROWS][4];
        memcpy(rows, group, sizeof rows);
        for (uint32_t w = 0; w < 4; w++)
            for (uint32_t r = 0; r < PAIRS; r++) {
                uint32_t a = rows[2 * r][w], b = rows[2 * r + 1][w];
                group[2 * w * PAIRS + r] = (a & 0xffffu) | b << 16;
                group[(2 * w + 1) * PAIRS + r] = a >> 16 | (b & 0xffff0000u);
            }
    }
}

/* The quants come first; K-quants have 16 bytes a row and super-block of scales behind the bits above four. Other planes are words already. */
void vkm_panel_planes(const struct vkm_type *type, uint32_t kb, uint32_t *panel)
{
    if (type->id == 1) {
        transpose_halves(panel, kb * type->quads);
        return;
    }
    uint32_t *behind = transpose(panel, kb * type->quads);
    if (type->block_cols == 256) transpose(behind + (size_t)kb * type->high * VKM_PANEL_ROWS, kb / 8);
}
