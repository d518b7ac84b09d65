/* Byte-level BPE ("gpt2"): Radford et al. 2019. Words from the pre-tokenizer are merged by rank, byte by byte. */
#include "text/internal.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the byte alphabet
 * A byte that is a visible Latin-1 character stands for itself; the other 68, in order, are U+0100, U+0101 ... (GPT-2's
 * bytes_to_unicode). So a space is U+0120 and a newline U+010A, and every piece is printable text. */

static bool is_visible(unsigned byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173); }

/* Writes the letter of a byte as UTF-8, at most 2 bytes; returns how many. */
static size_t letter_of(uint8_t byte, char *out)
{
    unsigned code = byte;
    if (!is_visible(byte))
        code = 256 + (byte <= 32 ? byte : byte <= 160 ? 33u + byte - 127 : 67u);
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

/* The byte of a letter (a whole character of `size` bytes), -1 if it is none. */
static int byte_of(const char *letter, size_t size)
{
    const uint8_t *s = (const uint8_t *)letter;
    if (size > 2)
        return -1;
    unsigned code = size == 1 ? s[0] : (unsigned)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    if (code < 256)
        return is_visible(code) ? (int)code : -1;
    unsigned i = code - 256;
    return i <= 32 ? (int)i : i <= 66 ? (int)(i - 33 + 127) : i == 67 ? 173 : -1;
}

size_t vkm_bpe_decode(struct vkm_str piece, char *out)
{
    size_t used = 0;
    for (size_t i = 0, size; i < piece.n; i += size) {
        size = vkm_utf8_char(piece.at + i, piece.n - i);
        int byte = size ? byte_of(piece.at + i, size) : -1;
        if (byte < 0) {          /* not written in the alphabet: the piece is plain text (as Hugging Face's ByteLevel decoder) */
            memcpy(out, piece.at, piece.n);
            return piece.n;
        }
        out[used++] = (char)byte;
    }
    return used;
}

/* ---------------------------------------------------------------- merges */

static uint32_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 15);
}

static struct vkm_merge_slot *slot_of(const struct vkm_merge_table *m, int32_t left, int32_t right)
{
    uint32_t mask = m->n_slots - 1;
    for (uint32_t i = hash_pair(left, right) & mask;; i = (i + 1) & mask) {
        struct vkm_merge_slot *slot = &m->slots[i];
        if (slot->left < 0 || (slot->left == left && slot->right == right))
            return slot;
    }
}

/* "left right": cut at the first space behind the first byte. Both halves must be tokens, for nothing else can ever be joined.
 * The whole may be missing, or be a control token that text must not spell: some checkpoints prune their vocabulary and leave the
 * merges as they were. Such a merge is skipped (*joined -1); performing it, as llama.cpp does, would lose the text. */
static vkm_result read_merge(const struct vkm_vocab *v, struct vkm_str s, uint64_t i, char *whole,
                             int32_t *left, int32_t *right, int32_t *joined, vkm_error *err)
{
    const char *space = s.n > 1 ? memchr(s.at + 1, ' ', s.n - 1) : NULL;
    if (!space)
        return vkm_fail(err, VKM_ERR_FORMAT, "tokenizer.ggml.merges: entry %llu is not a pair", (unsigned long long)i);
    size_t n_left = (size_t)(space - s.at), n_right = s.n - n_left - 1;
    *left = vkm_vocab_find(v, s.at, n_left);
    *right = vkm_vocab_find(v, space + 1, n_right);
    if (*left < 0 || *right < 0)
        return vkm_fail(err, VKM_ERR_FORMAT, "tokenizer.ggml.merges: entry %llu joins something that is not a token", (unsigned long long)i);
    memcpy(whole, s.at, n_left);
    memcpy(whole + n_left, space + 1, n_right);
    *joined = vkm_vocab_find_plain(v, whole, n_left + n_right);
    return VKM_OK;
}

static vkm_result load_merges(const vkm_gguf *g, const struct vkm_vocab *v, struct vkm_merge_table *m, vkm_error *err)
{
    static const char key[] = "tokenizer.ggml.merges";
    enum vkm_gguf_type element;
    uint64_t n, n_slots = 8;
    vkm_result r = vkm_gguf_array(g, key, &element, &n, err);
    if (r != VKM_OK)
        return r;
    if (element != VKM_GGUF_STRING && n > 0)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s is not an array of strings", key);
    if (n >= UINT32_MAX / 4)
        return vkm_fail(err, VKM_ERR_FORMAT, "%s has %llu entries", key, (unsigned long long)n);
    while (n_slots < n + n / 2)
        n_slots *= 2;
    char *whole = malloc(2 * v->longest + 1);    /* two tokens joined */
    if (n_slots <= SIZE_MAX / sizeof *m->slots)
        m->slots = malloc((size_t)n_slots * sizeof *m->slots);
    if (!whole || !m->slots) {
        free(whole);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "%s: no memory for %llu entries", key, (unsigned long long)n);
    }
    m->n_slots = (uint32_t)n_slots;
    for (uint32_t i = 0; i < m->n_slots; i++)
        m->slots[i].left = -1;
    for (uint64_t i = 0; i < n && r == VKM_OK; i++) {
        struct vkm_str s;
        int32_t left = -1, right = -1, joined = -1;
        if ((r = vkm_gguf_array_str(g, key, i, &s, err)) != VKM_OK || (r = read_merge(v, s, i, whole, &left, &right, &joined, err)) != VKM_OK)
            break;
        struct vkm_merge_slot *slot = slot_of(m, left, right);
        if (slot->left < 0 && joined >= 0)       /* the first of equal pairs has the better rank */
            *slot = (struct vkm_merge_slot){ left, right, (uint32_t)i, joined };
    }
    free(whole);
    return r;
}

vkm_result vkm_bpe_load(const vkm_gguf *g, struct vkm_tokenizer *t, vkm_error *err)
{
    struct vkm_str name = { "default", 7 };
    vkm_result r = VKM_OK;
    if (vkm_gguf_has(g, "tokenizer.ggml.pre"))
        r = vkm_gguf_str(g, "tokenizer.ggml.pre", &name, err);
    if (r == VKM_OK) r = vkm_pretokenizer_create(name, &t->pre, err);
    /* The byte type means "<0xHH>". Old converters also marked single letters of the alphabet with it: those are ordinary. */
    for (uint32_t i = 0; i < t->vocab.n; i++)
        if (t->vocab.type[i] == VKM_TOKEN_BYTE && vkm_vocab_byte_of(vkm_vocab_piece(&t->vocab, (int32_t)i)) < 0)
            t->vocab.type[i] = VKM_TOKEN_NORMAL;
    if (r == VKM_OK) r = load_merges(g, &t->vocab, &t->merges, err);
    for (int i = 0; i < 256 && r == VKM_OK; i++) {
        char letter[2];
        t->byte_id[i] = vkm_vocab_find_plain(&t->vocab, letter, letter_of((uint8_t)i, letter));
    }
    return r;
}

/* ---------------------------------------------------------------- words to ids */

static bool join(const void *user, const struct vkm_symbol *l, const struct vkm_symbol *r, uint32_t *priority, int32_t *id)
{
    const struct vkm_merge_table *m = user;
    if (l->id < 0 || r->id < 0)
        return false;
    const struct vkm_merge_slot *slot = slot_of(m, l->id, r->id);
    if (slot->left < 0)
        return false;
    *priority = slot->rank;
    *id = slot->joined;
    return true;
}

/* The token that is this whole word, -1 if there is none or memory ran out (then *ok is false). */
static int32_t find_word(const struct vkm_tokenizer *t, const char *word, size_t n, struct vkm_scratch *s, bool *ok)
{
    if (n > t->vocab.longest)    /* a letter is at least as long as its byte */
        return -1;
    void *at = s->text;
    if (!vkm_grow(&at, &s->text_room, 2 * n, 1)) {
        *ok = false;
        return -1;
    }
    s->text = at;
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        used += letter_of((uint8_t)word[i], s->text + used);
    return vkm_vocab_find_plain(&t->vocab, s->text, used);
}

static bool tokenize_word(const struct vkm_tokenizer *t, const char *word, size_t n, struct vkm_scratch *s)
{
    bool ok = true;
    int32_t whole = t->pre.family->ignore_merges ? find_word(t, word, n, s, &ok) : -1;
    if (!ok || whole >= 0)
        return ok && vkm_ids_push(&s->ids, whole);
    struct vkm_merger *m = &s->merger;
    vkm_merger_clear(m);
    for (size_t i = 0; i < n; i++)
        if (!vkm_merger_add(m, (uint32_t)i, 1, t->byte_id[(uint8_t)word[i]]))
            return false;
    if (!vkm_merger_run(m, join, &t->merges))
        return false;
    for (uint32_t i = 0; i != VKM_NO_SYMBOL; i = m->symbols[i].next) {
        /* A byte without a token is dropped unless there is an unknown token, as Hugging Face and llama.cpp do; it cannot
         * happen with the 256 letters that every published vocabulary has. */
        int32_t id = m->symbols[i].id >= 0 ? m->symbols[i].id : t->unk;
        if (id >= 0 && !vkm_ids_push(&s->ids, id))
            return false;
    }
    return true;
}

/* Patterns need valid UTF-8. A byte that belongs to no character is a word by itself; the valid text on either side of it is
 * cut as if it stood alone. */
vkm_result vkm_bpe_tokenize(const struct vkm_tokenizer *t, const char *text, size_t n, struct vkm_scratch *s, vkm_error *err)
{
    bool ok = true;
    if (n > UINT32_MAX - 8)      /* symbols count bytes in 32 bits */
        return vkm_fail(err, VKM_ERR_ARGUMENT, "a text of %zu bytes is too long to tokenise at once", n);
    for (size_t i = 0, end; i < n && ok; i = end) {
        for (end = i; end < n;) {
            size_t size = vkm_utf8_char(text + end, n - end);
            if (size == 0)
                break;
            end += size;
        }
        if (end == i) {
            ok = tokenize_word(t, text + i, 1, s);
            end = i + 1;
            continue;
        }
        vkm_result r = vkm_pretokenize(&t->pre, text + i, end - i, &s->words, err);
        if (r != VKM_OK)
            return r;
        for (size_t w = 0, from = 0; w < s->words.n && ok; from = s->words.ends[w++])
            ok = tokenize_word(t, text + i + from, s->words.ends[w] - from, s);
    }
    return ok ? VKM_OK : vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n);
}
