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

/* n blocks of F16: 32 rows of four times eight columns become 32 columns of 32 rows */
static void transpose_halves(uint32_t *panel, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, panel += 16 * VKM_PANEL_ROWS) {
        uint16_t from[4][VKM_PANEL_ROWS][8], to[32][VKM_PANEL_ROWS];
        memcpy(from, panel, sizeof from);
        for (uint32_t c = 0; c < 32; c++)
            for (uint32_t r = 0; r < VKM_PANEL_ROWS; r++) to[c][r] = from[c / 8][r][c % 8];
        memcpy(panel, to, sizeof to);
    }
}

/* The quants come first; K-quants have 16 bytes a row and super-block of scales behind the bits above four. Other planes are words already. */
void vkm_panel_planes(const struct vkm_type *type, uint32_t kb, uint32_t *panel)
{
    if (type->id == 1) {
        transpose_halves(panel, kb);
        return;
    }
    uint32_t *behind = transpose(panel, kb * type->quads);
    if (type->block_cols == 256) transpose(behind + (size_t)kb * type->high * VKM_PANEL_ROWS, kb / 8);
}
