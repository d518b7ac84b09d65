/* A stream of ids back to text. What comes out is always valid UTF-8: the first bytes of a character wait for the rest, and
 * bytes that can be part of no character come out as U+FFFD, one for each maximal beginning (Unicode 3.9, as WHATWG decodes). */
#include "text/internal.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

struct vkm_detokenizer {
    const struct vkm_tokenizer *t;
    bool show_special;
    bool at_start;             /* nothing has come out yet: SPM's own space is still to be dropped */
    char held[4];              /* the beginning of a character */
    size_t n_held;
    char *bytes;               /* held bytes and those of the new token */
    size_t bytes_room;
    char *text;                /* what the caller sees */
    size_t text_room;
};

static const char REPLACEMENT[3] = { '\xef', '\xbf', '\xbd' };

/* U+2581 -> " ". out has room for piece.n bytes. */
static size_t unescape(struct vkm_str piece, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < piece.n;) {
        if (piece.n - i >= 3 && memcmp(piece.at + i, "\xe2\x96\x81", 3) == 0) {
            out[used++] = ' ';
            i += 3;
        } else {
            out[used++] = piece.at[i++];
        }
    }
    return used;
}

/* The bytes a token stands for. out has room for its piece. */
static size_t bytes_of(const struct vkm_detokenizer *d, int32_t id, char *out)
{
    struct vkm_str piece = vkm_vocab_piece(&d->t->vocab, id);
    switch (d->t->vocab.type[id]) {
    case VKM_TOKEN_CONTROL:
    case VKM_TOKEN_UNKNOWN:
        if (!d->show_special)
            return 0;
        break;
    case VKM_TOKEN_USER_DEFINED:
        break;
    case VKM_TOKEN_BYTE:
        *out = (char)vkm_vocab_byte_of(piece);    /* loading has checked the form */
        return 1;
    default:
        return d->t->kind == VKM_TOKENIZER_SPM ? unescape(piece, out) : vkm_bpe_decode(piece, out);
    }
    memcpy(out, piece.at, piece.n);
    return piece.n;
}

/* Moves whole characters from bytes to text and holds what may still become one. text has room for 3 n bytes. */
static size_t emit(struct vkm_detokenizer *d, size_t n, bool last)
{
    char *out = d->text;
    d->n_held = 0;
    for (size_t i = 0, length, fits; i < n; i += fits) {
        fits = vkm_utf8_look(d->bytes + i, n - i, &length);
        if (fits && fits == length) {
            memcpy(out, d->bytes + i, fits);
            out += fits;
        } else if (fits == n - i && !last) {
            memcpy(d->held, d->bytes + i, fits);
            d->n_held = fits;
        } else {
            memcpy(out, REPLACEMENT, sizeof REPLACEMENT);
            out += sizeof REPLACEMENT;
            if (fits == 0)
                fits = 1;
        }
    }
    return (size_t)(out - d->text);
}

static bool make_room(struct vkm_detokenizer *d, size_t n)
{
    void *bytes = d->bytes, *text = d->text;
    if (n > SIZE_MAX / 3 || !vkm_grow(&bytes, &d->bytes_room, n, 1))
        return false;
    d->bytes = bytes;
    if (!vkm_grow(&text, &d->text_room, 3 * n, 1))
        return false;
    d->text = text;
    return true;
}

vkm_result vkm_detokenizer_create(const vkm_tokenizer *t, bool show_special, vkm_detokenizer **detokenizer, vkm_error *err)
{
    if (!t || !detokenizer)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_detokenizer_create needs a tokenizer and a place for the result");
    struct vkm_detokenizer *d = calloc(1, sizeof *d);
    if (!d || !make_room(d, sizeof d->held)) {
        vkm_detokenizer_destroy(d);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for a detokenizer");
    }
    d->t = t;
    d->show_special = show_special;
    vkm_detokenizer_reset(d);
    *detokenizer = d;
    return VKM_OK;
}

void vkm_detokenizer_destroy(vkm_detokenizer *d)
{
    if (!d)
        return;
    free(d->bytes);
    free(d->text);
    free(d);
}

void vkm_detokenizer_reset(vkm_detokenizer *d)
{
    d->n_held = 0;
    d->at_start = d->t->kind == VKM_TOKENIZER_SPM && d->t->add_space_prefix;
}

vkm_result vkm_detokenizer_push(vkm_detokenizer *d, int32_t id, const char **text, size_t *n_text, vkm_error *err)
{
    if (!d || !text || !n_text)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_detokenizer_push needs a detokenizer and a place for the text");
    if (id < 0 || (uint32_t)id >= d->t->vocab.n)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "%d is no token: the vocabulary has %u", id, d->t->vocab.n);
    if (!make_room(d, d->n_held + vkm_vocab_piece(&d->t->vocab, id).n))
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for the text of token %d", id);
    memcpy(d->bytes, d->held, d->n_held);
    char *added = d->bytes + d->n_held;
    size_t n = bytes_of(d, id, added);
    if (d->at_start && n > 0) {
        d->at_start = false;
        if (added[0] == ' ')
            memmove(added, added + 1, --n);
    }
    *n_text = emit(d, d->n_held + n, false);
    *text = d->text;
    return VKM_OK;
}

vkm_result vkm_detokenizer_flush(vkm_detokenizer *d, const char **text, size_t *n_text, vkm_error *err)
{
    if (!d || !text || !n_text)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_detokenizer_flush needs a detokenizer and a place for the text");
    memcpy(d->bytes, d->held, d->n_held);    /* room for it since create */
    *n_text = emit(d, d->n_held, true);
    *text = d->text;
    return VKM_OK;
}
