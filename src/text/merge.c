#include "text/merge.h"

#include <stdlib.h>

bool vkm_grow(void **at, size_t *room, size_t need, size_t size)
{
    if (need <= *room)
        return true;
    size_t want = *room > SIZE_MAX / 2 ? SIZE_MAX : *room * 2;
    if (want < need) want = need;
    if (want < 64) want = 64;
    if (want > SIZE_MAX / size)
        return false;
    void *moved = realloc(*at, want * size);
    if (!moved)
        return false;
    *at = moved;
    *room = want;
    return true;
}

/* ---------------------------------------------------------------- heap: the smallest key on top */

static bool heap_push(struct vkm_merger *m, struct vkm_candidate c)
{
    void *at = m->heap;
    if (!vkm_grow(&at, &m->heap_room, m->n_heap + 1, sizeof *m->heap))
        return false;
    m->heap = at;
    size_t i = m->n_heap++;
    for (; i > 0 && m->heap[(i - 1) / 2].key > c.key; i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return true;
}

static struct vkm_candidate heap_pop(struct vkm_merger *m)
{
    struct vkm_candidate top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && m->heap[child + 1].key < m->heap[child].key)
            child++;
        if (m->heap[child].key >= last.key)
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

/* ---------------------------------------------------------------- symbols */

void vkm_merger_clear(struct vkm_merger *m)
{
    m->n_symbols = 0;
    m->n_heap = 0;
}

bool vkm_merger_add(struct vkm_merger *m, uint32_t start, uint32_t size, int32_t id)
{
    void *at = m->symbols;
    if (m->n_symbols >= UINT32_MAX - 1 || !vkm_grow(&at, &m->symbol_room, (size_t)m->n_symbols + 1, sizeof *m->symbols))
        return false;
    m->symbols = at;
    uint32_t i = m->n_symbols++;
    m->symbols[i] = (struct vkm_symbol){ start, size, i ? i - 1 : VKM_NO_SYMBOL, VKM_NO_SYMBOL, id };
    if (i)
        m->symbols[i - 1].next = i;
    return true;
}

/* Queues the join of symbol `left` with its right neighbour. The key orders by priority, then by place. */
static bool consider(struct vkm_merger *m, uint32_t left, vkm_join_fn join, const void *user)
{
    if (left == VKM_NO_SYMBOL || m->symbols[left].next == VKM_NO_SYMBOL)
        return true;
    const struct vkm_symbol *l = &m->symbols[left], *r = &m->symbols[l->next];
    uint32_t priority;
    int32_t id;
    if (!join(user, l, r, &priority, &id))
        return true;
    return heap_push(m, (struct vkm_candidate){ (uint64_t)priority << 32 | left, l->size + r->size, id });
}

bool vkm_merger_run(struct vkm_merger *m, vkm_join_fn join, const void *user)
{
    for (uint32_t i = 0; i + 1 < m->n_symbols; i++)
        if (!consider(m, i, join, user))
            return false;
    while (m->n_heap) {
        struct vkm_candidate c = heap_pop(m);
        uint32_t left = (uint32_t)c.key;
        struct vkm_symbol *l = &m->symbols[left];
        /* Stale when either side has changed since: a symbol only grows to the right or vanishes (size 0), so the same total
         * size from the same place means the same two symbols. */
        if (l->size == 0 || l->next == VKM_NO_SYMBOL || l->size + m->symbols[l->next].size != c.size)
            continue;
        struct vkm_symbol *r = &m->symbols[l->next];
        l->size = c.size;
        l->id = c.id;
        l->next = r->next;
        r->size = 0;
        if (l->next != VKM_NO_SYMBOL)
            m->symbols[l->next].prev = left;
        if (!consider(m, l->prev, join, user) || !consider(m, left, join, user))
            return false;
    }
    return true;
}

void vkm_merger_free(struct vkm_merger *m)
{
    free(m->symbols);
    free(m->heap);
    *m = (struct vkm_merger){ 0 };
}
