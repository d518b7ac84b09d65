/* Joining neighbours, the loop that SentencePiece-BPE and byte-level BPE share: of all adjacent symbols that may be joined take
 * the pair of the best priority, the leftmost on ties, join it, and go on until no pair is left. O(n log n) with a heap. */
#ifndef VKM_TEXT_MERGE_H
#define VKM_TEXT_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VKM_NO_SYMBOL UINT32_MAX

struct vkm_symbol {
    uint32_t start, size;      /* bytes of the text; size 0: joined into a symbol on its left */
    uint32_t prev, next;       /* neighbours, VKM_NO_SYMBOL at the ends */
    int32_t id;                /* token, -1: none */
};

/* May `left` and `right` be joined? Then the id of the token they make, and its priority: lower is better. */
typedef bool (*vkm_join_fn)(const void *user, const struct vkm_symbol *left, const struct vkm_symbol *right, uint32_t *priority, int32_t *id);

/* Buffers kept from word to word. Zero-initialised; freed with vkm_merger_free. */
struct vkm_merger {
    struct vkm_symbol *symbols;   /* symbol 0 is always the first one left */
    uint32_t n_symbols;
    size_t symbol_room;
    struct vkm_candidate { uint64_t key; uint32_t size; int32_t id; } *heap;
    size_t n_heap, heap_room;
};

void vkm_merger_clear(struct vkm_merger *m);
/* Appends a symbol behind the others. false: out of memory, or more than 2^32 - 2 symbols. */
bool vkm_merger_add(struct vkm_merger *m, uint32_t start, uint32_t size, int32_t id);
/* Joins what can be joined; the result is the chain symbols[0], .next, ... false: out of memory. */
bool vkm_merger_run(struct vkm_merger *m, vkm_join_fn join, const void *user);
void vkm_merger_free(struct vkm_merger *m);

/* Makes room for at least `need` elements of `size` bytes in *at. false: out of memory (*at and *room stay). */
bool vkm_grow(void **at, size_t *room, size_t need, size_t size);

#endif
