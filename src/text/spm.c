/* SentencePiece-BPE ("llama"): one merge loop over the whole text, driven by scores. Kudo and Richardson 2018; the rules as
 * llama.cpp has them. tokenizer.ggml.remove_extra_whitespaces is not read: llama.cpp applies it to unigram models only. */
#include "text/internal.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static const char SPACE[3] = { '\xe2', '\x96', '\x81' };    /* U+2581, how a piece writes a space */

vkm_result vkm_spm_load(const vkm_gguf *g, struct vkm_tokenizer *t, vkm_error *err)
{
    struct vkm_vocab *v = &t->vocab;
    if (!v->score)
        return vkm_fail(err, VKM_ERR_FORMAT, "tokenizer.ggml.scores is missing");
    bool has_types = vkm_gguf_has(g, "tokenizer.ggml.token_type");
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        t->byte_id[i] = vkm_vocab_find_plain(v, &c, 1);     /* without byte tokens a lone byte may still be a piece */
    }
    for (uint32_t i = 0; i < v->n; i++) {
        int byte = vkm_vocab_byte_of(vkm_vocab_piece(v, (int32_t)i));
        if (!has_types && byte >= 0)
            v->type[i] = VKM_TOKEN_BYTE;
        if (v->type[i] != VKM_TOKEN_BYTE)
            continue;
        if (byte < 0)
            return vkm_fail(err, VKM_ERR_FORMAT, "tokenizer.ggml.tokens: the byte token %u is not written <0xHH>", i);
        t->byte_id[byte] = (int32_t)i;
    }
    return VKM_OK;
}

/* Orders floats as integers, the highest score first; -0 and 0 are one score. */
static uint32_t priority_of(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

struct join_context { const struct vkm_vocab *v; const char *text; };

static bool join(const void *user, const struct vkm_symbol *l, const struct vkm_symbol *r, uint32_t *priority, int32_t *id)
{
    const struct join_context *c = user;
    *id = vkm_vocab_find_plain(c->v, c->text + l->start, (size_t)l->size + r->size);
    if (*id < 0)
        return false;
    *priority = priority_of(c->v->score[*id]);
    return true;
}

/* " " -> U+2581, with one more in front if wanted. The length of the result; s->text has it. */
static vkm_result escape(const char *text, size_t n, bool space_prefix, struct vkm_scratch *s, size_t *n_out, vkm_error *err)
{
    void *at = s->text;
    if (n > (UINT32_MAX - 8) / 3)    /* symbols count bytes in 32 bits */
        return vkm_fail(err, VKM_ERR_ARGUMENT, "a text of %zu bytes is too long to tokenise at once", n);
    if (!vkm_grow(&at, &s->text_room, 3 * n + 3, 1))
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n);
    s->text = at;
    char *out = s->text;
    if (space_prefix) {
        memcpy(out, SPACE, sizeof SPACE);
        out += sizeof SPACE;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(out, SPACE, sizeof SPACE);
            out += sizeof SPACE;
        } else {
            *out++ = text[i];
        }
    }
    *n_out = (size_t)(out - s->text);
    return VKM_OK;
}

/* A symbol that is no token becomes the tokens of its bytes, or, if one is missing, one unknown token. */
static bool push_bytes(const struct vkm_tokenizer *t, const char *bytes, size_t n, struct vkm_ids *ids)
{
    for (size_t i = 0; i < n; i++)
        if (t->byte_id[(uint8_t)bytes[i]] < 0)
            return t->unk < 0 || vkm_ids_push(ids, t->unk);
    for (size_t i = 0; i < n; i++)
        if (!vkm_ids_push(ids, t->byte_id[(uint8_t)bytes[i]]))
            return false;
    return true;
}

vkm_result vkm_spm_tokenize(const struct vkm_tokenizer *t, const char *text, size_t n, struct vkm_scratch *s, vkm_error *err)
{
    size_t n_escaped = 0;
    vkm_result r = escape(text, n, t->add_space_prefix, s, &n_escaped, err);
    if (r != VKM_OK)
        return r;
    struct vkm_merger *m = &s->merger;
    bool ok = true;
    vkm_merger_clear(m);
    for (size_t i = 0, size; i < n_escaped && ok; i += size) {
        size = vkm_utf8_char(s->text + i, n_escaped - i);
        if (size == 0)
            size = 1;           /* a byte that belongs to no character */
        ok = vkm_merger_add(m, (uint32_t)i, (uint32_t)size, vkm_vocab_find_plain(&t->vocab, s->text + i, size));
    }
    struct join_context context = { &t->vocab, s->text };
    ok = ok && vkm_merger_run(m, join, &context);
    for (uint32_t i = m->n_symbols ? 0 : VKM_NO_SYMBOL; i != VKM_NO_SYMBOL && ok; i = m->symbols[i].next) {
        const struct vkm_symbol *symbol = &m->symbols[i];
        ok = symbol->id >= 0 ? vkm_ids_push(&s->ids, symbol->id) : push_bytes(t, s->text + symbol->start, symbol->size, &s->ids);
    }
    return ok ? VKM_OK : vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n);
}
