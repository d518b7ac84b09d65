/* What tiles of each size cost on a device, as `vkmoe tune` measured it; which of them are the fastest for some rows; and the file that keeps it. No device is touched here. */
#ifndef VKM_NN_TUNE_H
#define VKM_NN_TUNE_H

#include "build.h"

#define VKM_TUNING_TYPES 16
/* Of a tile, for each panel of 32 rows of the matrix: nanoseconds for each block of 32 columns, and those to be added, which caches may make negative. All invocations of the device
 * together, so a tile's share of a dispatch that fills it. Fewer blocks than VKM_TUNING_BLOCKS take their share of what so many do. block_ns 0: not measured. */
#define VKM_TUNING_BLOCKS 8
struct vkm_tile_cost { double block_ns, panel_ns; };
struct vkm_tuning {
    double dispatch_ns;                                                /* what one dispatch more costs */
    double byte_ns;                                                    /* a byte of weights that comes from memory: what it costs on top of a tile, in ns */
    struct vkm_tile_cost tiles[VKM_TUNING_TYPES][VKM_TILE_CLASSES];    /* types by place in vkm_types */
    uint8_t exact[VKM_TUNING_TYPES];                                   /* 1: products of integers (int8dot) bring nothing and are not used; of all tokens or of none, for a token's bits do not depend on the batch */
};
/* Whether matrices of a type are to be multiplied without int8dot. tuning may be NULL: no. */
bool vkm_tuning_exact(const struct vkm_tuning *tuning, const struct vkm_type *type);
/* What to say of `exact`, by the costs of tiles in both forms: of one row, and of the rows that the best size takes. */
bool vkm_tuning_prefers_exact(const struct vkm_tile_cost exact[VKM_TILE_CLASSES], const struct vkm_tile_cost int8[VKM_TILE_CLASSES]);

/* Chooses tile_from (shaders/abi.h) of least expected time for `n_weights` matmuls that share their tiles, such as gate|up and down of a layer: each of n tokens chooses n_used of n_expert experts,
 * half as if all were alike likely, half by Zipf's law (n_expert 1: a dense matmul of n rows). Of every set of classes up to most_tile rows that was measured for all the weights' types, the
 * smallest class takes any rows, and each other is used from the first number of rows that one tile of it takes less time for than the smaller ones; since every size divides the next that is the
 * fastest way to cut any number of rows, but for the memory that smaller ones read again, so that it is also tried from the first on that it is faster for with that. Then the set is chosen, by the
 * time of all tiles, of a dispatch for each class and weight, and of reading an expert's weights for each class that its rows are cut into (classes run one after the other, so caches have lost
 * them); a class has to bring half a percent, for it costs kernels to compile. false, and tile_from as it was: no class was measured for all of the types (of one token: that of one row). */
bool vkm_tiles_fit(const struct vkm_tuning *tuning, const struct vkm_weight *const *weights, uint32_t n_weights, uint32_t n, uint32_t n_used, uint32_t n_expert, uint32_t most_tile,
                   uint8_t tile_from[VKM_TILE_CLASSES]);

/* ------------------------------------------------ kept in a file of its own for each device, driver and set of kernels */

/* What a tuning holds for: another driver, another build's kernels or another tier is another file. No padding. */
struct vkm_tuning_key { uint64_t kernels; uint32_t vendor_id, device_id, driver_version, zero; uint8_t pipeline_uuid[16]; };
/* shape: as vkm_shape_choose has it. */
struct vkm_tuning_key vkm_tuning_key_of(const struct vkm_caps *caps, const struct vkm_shape *shape);

#define VKM_TUNING_BYTES_MAX 2048
size_t vkm_tuning_format(const struct vkm_tuning_key *key, const struct vkm_tuning *tuning, uint8_t bytes[VKM_TUNING_BYTES_MAX]);
/* NULL, or why the bytes are of no use: they are hostile until every one is checked. *tuning is untouched then. */
const char *vkm_tuning_parse(const struct vkm_tuning_key *key, const void *bytes, size_t n, struct vkm_tuning *tuning);

/* The name of the key's file in a folder; as snprintf. */
int vkm_tuning_path(const char *folder, const struct vkm_tuning_key *key, char *path, size_t size);
/* false without a usable file; *why: NULL if there is just none. Static. */
bool vkm_tuning_load(const char *folder, const struct vkm_tuning_key *key, struct vkm_tuning *tuning, const char **why);
/* Whole or not at all: a reader, or a second writer, never sees half of one. */
vkm_result vkm_tuning_save(const char *folder, const struct vkm_tuning_key *key, const struct vkm_tuning *tuning, vkm_error *err);

#endif
