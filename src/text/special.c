#include "text/special.h"

#include "text/merge.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

/* ---------------------------------------------------------------- the table */

static int by_text(const void *a, const void *b)
{
    const struct vkm_special_entry *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* The first entry in [lo, hi) whose byte at `depth` is at least c; all of them are longer than depth and equal before it. */
static uint32_t lower_bound(const struct vkm_special *s, uint32_t lo, uint32_t hi, size_t depth, unsigned c)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((uint8_t)s->entries[mid].text[depth] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* The longest entry that the text starts with, NONE if there is none. A walk down the sorted table as if it were a trie. */
static uint32_t longest_at(const struct vkm_special *s, const char *text, size_t n)
{
    uint32_t best = NONE;
    if (n == 0)
        return best;
    uint8_t c = (uint8_t)text[0];
    uint32_t lo = s->first[c], hi = s->first[c + 1];
    for (size_t depth = 1; lo < hi; depth++) {
        if (s->entries[lo].n == depth)     /* a text sorts before its continuations */
            best = lo++;
        if (depth == n)
            break;
        c = (uint8_t)text[depth];
        lo = lower_bound(s, lo, hi, depth, c);
        hi = lower_bound(s, lo, hi, depth, c + 1u);
    }
    return best;
}

static bool is_special(uint8_t type)
{
    return type == VKM_TOKEN_CONTROL || type == VKM_TOKEN_USER_DEFINED || type == VKM_TOKEN_UNKNOWN;
}

vkm_result vkm_special_create(const struct vkm_vocab *v, struct vkm_special *special, vkm_error *err)
{
    struct vkm_special s = { 0 };
    for (uint32_t i = 0; i < v->n; i++)
        s.n += is_special(v->type[i]) && vkm_vocab_piece(v, (int32_t)i).n > 0;
    uint64_t room = (uint64_t)s.n + 1;
    if (room > SIZE_MAX / sizeof *s.entries || !(s.entries = malloc((size_t)room * sizeof *s.entries)))
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for %u special tokens", s.n);
    uint32_t at = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        struct vkm_str piece = vkm_vocab_piece(v, (int32_t)i);
        if (is_special(v->type[i]) && piece.n > 0)
            s.entries[at++] = (struct vkm_special_entry){ piece.at, piece.n, (int32_t)i, NONE };
    }
    qsort(s.entries, s.n, sizeof *s.entries, by_text);
    at = 0;
    for (unsigned c = 0; c < 256; c++) {
        s.first[c] = at;
        while (at < s.n && (uint8_t)s.entries[at].text[0] == c)
            at++;
    }
    s.first[256] = at;
    for (uint32_t i = 0; i < s.n; i++)
        s.entries[i].shorter = longest_at(&s, s.entries[i].text, s.entries[i].n - 1);
    *special = s;
    return VKM_OK;
}

void vkm_special_free(struct vkm_special *s)
{
    free(s->entries);
    *s = (struct vkm_special){ 0 };
}

/* ---------------------------------------------------------------- cutting */

/* A place in the text and the entry to try there. */
struct match { size_t at; uint32_t entry; };

/* What one call works on: the matches, first as a heap of places still to try, and the bytes already taken, a bit each. */
struct cutter {
    const struct vkm_special *s;
    const struct vkm_vocab *v;
    const char *text;
    size_t n;
    bool parse;
    struct match *heap;
    size_t n_heap, heap_room;
    uint8_t *taken;
    struct vkm_fragment *found;
    size_t n_found, found_room;
};

static uint32_t allowed(const struct cutter *c, uint32_t entry)
{
    while (!c->parse && entry != NONE && c->v->type[c->s->entries[entry].id] != VKM_TOKEN_USER_DEFINED)
        entry = c->s->entries[entry].shorter;
    return entry;
}

static bool before(const struct cutter *c, struct match a, struct match b)
{
    const struct vkm_special_entry *x = &c->s->entries[a.entry], *y = &c->s->entries[b.entry];
    if (x->n != y->n) return x->n > y->n;
    if (x->id != y->id) return x->id < y->id;
    return a.at < b.at;
}

static void sink(struct cutter *c, size_t i)
{
    struct match m = c->heap[i];
    for (size_t child; (child = 2 * i + 1) < c->n_heap; i = child) {
        if (child + 1 < c->n_heap && before(c, c->heap[child + 1], c->heap[child]))
            child++;
        if (!before(c, c->heap[child], m))
            break;
        c->heap[i] = c->heap[child];
    }
    c->heap[i] = m;
}

static bool is_taken(const struct cutter *c, size_t at) { return c->taken[at / 8] >> (at % 8) & 1; }

static bool is_space(char ch) { return ch == ' ' || (ch >= '\t' && ch <= '\r'); }

/* Takes the bytes of a match, and of the white space behind it where the token swallows that. */
static bool take(struct cutter *c, struct match m)
{
    const struct vkm_special_entry *e = &c->s->entries[m.entry];
    size_t end = m.at + e->n;
    if (c->v->flags[e->id] & VKM_TOKEN_STRIPS_AFTER)
        while (end < c->n && is_space(c->text[end]) && !is_taken(c, end))
            end++;
    void *at = c->found;
    if (!vkm_grow(&at, &c->found_room, c->n_found + 1, sizeof *c->found))
        return false;
    c->found = at;
    c->found[c->n_found++] = (struct vkm_fragment){ m.at, end - m.at, e->id };
    for (size_t i = m.at; i < end; i++)
        c->taken[i / 8] |= (uint8_t)(1u << (i % 8));
    return true;
}

static bool find_places(struct cutter *c)
{
    for (size_t i = 0; i < c->n; i++) {
        uint8_t first = (uint8_t)c->text[i];
        if (c->s->first[first] == c->s->first[first + 1])
            continue;
        uint32_t entry = allowed(c, longest_at(c->s, c->text + i, c->n - i));
        if (entry == NONE)
            continue;
        void *at = c->heap;
        if (!vkm_grow(&at, &c->heap_room, c->n_heap + 1, sizeof *c->heap))
            return false;
        c->heap = at;
        c->heap[c->n_heap++] = (struct match){ i, entry };
    }
    return true;
}

/* Takes matches from the longest down. A taken match is at least as long as the one that is tried, so the two overlap only if
 * the first or the last byte of the latter is taken. */
static bool take_all(struct cutter *c)
{
    for (size_t i = c->n_heap / 2; i-- > 0;)
        sink(c, i);
    while (c->n_heap) {
        struct match m = c->heap[0];
        size_t last = m.at + c->s->entries[m.entry].n - 1;
        uint32_t again = NONE;
        if (!is_taken(c, m.at)) {
            if (!is_taken(c, last)) {
                if (!take(c, m))
                    return false;
            } else {
                again = allowed(c, c->s->entries[m.entry].shorter);
            }
        }
        if (again != NONE) c->heap[0].entry = again;
        else c->heap[0] = c->heap[--c->n_heap];
        sink(c, 0);
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct vkm_fragment *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* The found tokens and the text between them, in order. */
static bool join_fragments(struct cutter *c, struct vkm_fragment **fragments, size_t *n)
{
    if (c->n_found > 1)
        qsort(c->found, c->n_found, sizeof *c->found, by_place);
    if (c->n_found > (SIZE_MAX / sizeof **fragments - 1) / 2)
        return false;
    struct vkm_fragment *out = malloc((2 * c->n_found + 1) * sizeof *out);
    if (!out)
        return false;
    size_t at = 0, used = 0;
    for (size_t i = 0; i < c->n_found; i++) {
        if (c->found[i].at > at)
            out[used++] = (struct vkm_fragment){ at, c->found[i].at - at, -1 };
        out[used++] = c->found[i];
        at = c->found[i].at + c->found[i].n;
    }
    if (at < c->n)
        out[used++] = (struct vkm_fragment){ at, c->n - at, -1 };
    *fragments = out;
    *n = used;
    return true;
}

vkm_result vkm_special_split(const struct vkm_special *special, const struct vkm_vocab *v, const char *text, size_t n_text, bool parse,
                             struct vkm_fragment **fragments, size_t *n, vkm_error *err)
{
    struct cutter c = { .s = special, .v = v, .text = text, .n = n_text, .parse = parse };
    struct vkm_fragment *out = NULL;
    size_t n_out = 0;
    bool ok = find_places(&c);
    if (ok && c.n_heap)
        ok = (c.taken = calloc(n_text / 8 + 1, 1)) && take_all(&c);
    if (ok && n_text)
        ok = join_fragments(&c, &out, &n_out);
    free(c.heap);
    free(c.taken);
    free(c.found);
    if (!ok)
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n_text);
    *fragments = out;
    *n = n_out;
    return VKM_OK;
}
