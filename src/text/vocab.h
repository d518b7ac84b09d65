/* The vocabulary: pieces, types, scores, and the table from text to id. Immutable after loading. */
#ifndef VKM_TEXT_VOCAB_H
#define VKM_TEXT_VOCAB_H

#include "gguf/gguf.h"

/* tokenizer.ggml.token_type, llama.cpp's enum llama_token_type */
enum vkm_token_type { VKM_TOKEN_UNDEFINED, VKM_TOKEN_NORMAL, VKM_TOKEN_UNKNOWN, VKM_TOKEN_CONTROL, VKM_TOKEN_USER_DEFINED,
                      VKM_TOKEN_UNUSED, VKM_TOKEN_BYTE, VKM_TOKEN_TYPE_COUNT };

enum { VKM_TOKEN_IS_END = 1,        /* ends generation */
       VKM_TOKEN_STRIPS_AFTER = 2   /* swallows the white space behind it ("rstrip" of the model's own tokenizer) */ };

struct vkm_vocab {
    uint32_t n;                /* tokens, at most INT32_MAX */
    char *bytes;               /* all pieces back to back */
    size_t *start;             /* [n + 1] into bytes */
    uint8_t *type;             /* [n] enum vkm_token_type */
    uint8_t *flags;            /* [n] */
    float *score;              /* [n], NULL when the file has none */
    size_t longest;            /* bytes of the longest piece */
    struct vkm_vocab_slot { uint32_t hash; int32_t id; } *slots;   /* open addressing, linear; id -1: empty */
    uint32_t n_slots;          /* a power of two */
};

/* Reads tokens, token_type and, if there, scores. Refuses arrays of other types or lengths, unknown types, scores that are not
 * finite and two tokens with the same text. An empty piece (padding in some files) keeps its id but no text leads to it. */
vkm_result vkm_vocab_load(const vkm_gguf *g, struct vkm_vocab *vocab, vkm_error *err);
void vkm_vocab_free(struct vkm_vocab *vocab);

static inline struct vkm_str vkm_vocab_piece(const struct vkm_vocab *v, int32_t id)
{
    return (struct vkm_str){ v->bytes + v->start[id], v->start[id + 1] - v->start[id] };
}

/* The token with exactly this text, -1 if none. */
int32_t vkm_vocab_find(const struct vkm_vocab *v, const char *text, size_t n);

/* The same for text that a user wrote: never a control, unknown or byte token. So no merge can build "</s>" or "<0x0A>" out of
 * letters, as in SentencePiece, where such pieces are not in the table that merging reads (llama.cpp has one table for all). */
int32_t vkm_vocab_find_plain(const struct vkm_vocab *v, const char *text, size_t n);

/* "<0x0A>" -> 10, anything else -> -1. Exactly two hexadecimal digits: no sign, no space. */
int vkm_vocab_byte_of(struct vkm_str piece);

#endif
