/* Matrices in slabs: where each goes, and the upload, which repacks them on the way. Where their bytes come from is the caller's business. */
#ifndef VKM_NN_WEIGHTS_H
#define VKM_NN_WEIGHTS_H

#include "build.h"

struct vkm_source {                     /* where rows of a weight come from */
    uint32_t rows;                              /* of one expert */
    const uint8_t *data;                        /* blocks as GGUF has them, row 0 of expert 0; borrowed until the upload is done */
    uint64_t stride;                            /* bytes from an expert to the next */
    const uint8_t *const *each;                 /* or row 0 of each expert; the array is owned by the plan */
    const float *own;                           /* or rows made by the caller: f32 [experts][rows][cols]; owned by the plan */
    const void *whole;                          /* what `data` is a part of, for paging */
    uint64_t whole_bytes;
};

struct vkm_plan;
vkm_result vkm_plan_create(const struct vkm_caps *caps, struct vkm_plan **plan, vkm_error *err);
void vkm_plan_destroy(struct vkm_plan *plan);
#define VKM_SOURCES 3
/* Places a weight that is made of n sources: gate and up of a glu pair, or matrices one below the other, each from the first row of a panel on. Fills everything in *w but
 * type, cols, experts, glu, which are given. each/own are the plan's, on failure too. */
vkm_result vkm_plan_add(struct vkm_plan *plan, struct vkm_weight *w, const struct vkm_source *sources, uint32_t n, const char *name, vkm_error *err);
/* Appends n words to the tables; returns where. VKM_NONE when out of memory. */
uint32_t vkm_plan_table(struct vkm_plan *plan, const void *words, uint32_t n);
uint64_t vkm_plan_bytes(const struct vkm_plan *plan);
/* What the upload will allocate: bytes of slab i, 0 beyond the last; words of the tables; bytes of the ring, where buffers are not mapped. */
uint64_t vkm_plan_slab_bytes(const struct vkm_plan *plan, uint32_t i);
uint32_t vkm_plan_table_words(const struct vkm_plan *plan);
/* The set that slab i is of; the first slab of a set; the tables, without device addresses: the plan's, until something is added. */
uint32_t vkm_plan_slab_set(const struct vkm_plan *plan, uint32_t i);
uint32_t vkm_plan_first_slab(const struct vkm_plan *plan, uint32_t set);
const uint32_t *vkm_plan_tables(const struct vkm_plan *plan);
uint64_t vkm_plan_ring_bytes(const struct vkm_plan *plan);

struct vkm_slab_set { uint32_t first, count; };                     /* slabs of one descriptor set */
struct vkm_slabs {
    vkm_buffer **slabs;
    uint32_t n_slabs;
    struct vkm_slab_set *sets;
    uint32_t n_sets;
    uint32_t *tables;                                               /* on the host */
    uint32_t n_tables;
};
void vkm_slabs_destroy(struct vkm_slabs *slabs);

/* Sources in a mapped file, of which only what is being repacked should be in memory; from any thread. */
struct vkm_paging {
    const void *user;
    void (*prefetch)(const void *user, const void *at, uint64_t bytes);
    vkm_result (*fetch)(const void *user, const void *at, uint64_t bytes, vkm_error *err);
    void (*release)(const void *user, const void *at, uint64_t bytes);
};
struct vkm_upload {
    const struct vkm_paging *paging;    /* NULL: sources are in memory */
    vkm_progress_fn progress;           /* or NULL */
    void *progress_user;
    uint32_t n_threads;                 /* 0: as vkm_model_params has it */
};
/* Creates the slabs and fills them, on threads that are gone when it returns; the tables move along. */
vkm_result vkm_plan_upload(struct vkm_plan *plan, vkm_device *device, const struct vkm_upload *how, struct vkm_slabs *out, vkm_error *err);

/* A buffer that holds the words, which have arrived when it returns. */
vkm_result vkm_tables_create(vkm_device *device, const uint32_t *words, size_t n, vkm_buffer **buffer, vkm_error *err);

#endif
