/* Tensor types: what a matrix may be stored as, how a row is repacked for the kernels. Adding one is a row in types.c, a repack function, and its branch in shaders/quant.glsl. */
#ifndef VKM_NN_TYPES_H
#define VKM_NN_TYPES_H

#include "host/base.h"

#define VKM_PANEL_ROWS 32

struct vkm_type {
    uint32_t id;                 /* ggml type id */
    const char *name;            /* "Q4_K" */
    const char *variant;         /* "q4_k": kernel variant */
    uint32_t block_cols, block_bytes;
    uint32_t quads, high;        /* of a panel, a row and 32 columns: uvec4 of quants; words of bits above four */
    bool offset;                 /* weights are d q + m: a block has an offset beside its scale */
    /* Words of one row of a panel with kb blocks of 32 columns. */
    uint32_t (*row_words)(uint32_t kb);
    /* Writes a panel, each word once and without reading it: 32 rows of cols columns as they lie in the file. Columns from cols to kb * 32 become zeros;
     * for a row that is absent give one of zero bytes. Pure: any number of threads may repack. */
    void (*repack)(const uint8_t *const rows[VKM_PANEL_ROWS], uint32_t cols, uint32_t kb, uint32_t *panel);
};

const struct vkm_type *vkm_type_find(uint32_t ggml_id);      /* NULL: not supported */
extern const struct vkm_type vkm_types[];
extern const size_t vkm_type_count;

/* A repacked panel for caps.scalar_loads: 16 bytes a row become four planes of a word a row, the quants' of each block for the first eight rows, then for the next eight ...; of F16 eight planes of a half a row. The
 * panel has as many words as before and is not where it goes to. */
void vkm_panel_planes(const struct vkm_type *type, uint32_t kb, const uint32_t *panel, uint32_t *to);

/* Panels of a chunk where `fit` would lie in a slab: a workgroup, which takes 1, 2 or 4, should find its panels in one chunk, for its slab index has to be uniform. */
uint32_t vkm_chunk_panels(uint64_t fit, uint32_t n_panels);
uint64_t vkm_type_panel_bytes(const struct vkm_type *type, uint32_t kb);
uint64_t vkm_type_row_bytes(const struct vkm_type *type, uint32_t cols);   /* in the file */
float vkm_half_to_float(uint16_t h);
/* Element i of F32, F16 or BF16 data. */
float vkm_type_float(const struct vkm_type *type, const void *data, size_t i);

#endif
