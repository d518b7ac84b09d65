/* What the files of src/text share. */
#ifndef VKM_TEXT_INTERNAL_H
#define VKM_TEXT_INTERNAL_H

#include "text/merge.h"
#include "text/pretokenize.h"
#include "text/special.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

/* (left id, right id) -> rank and joined id. Open addressing, linear. */
struct vkm_merge_table {
    struct vkm_merge_slot { int32_t left, right; uint32_t rank; int32_t joined; } *slots;   /* left -1: empty */
    uint32_t n_slots;          /* a power of two, 0 when there are no merges */
};

enum vkm_tokenizer_kind { VKM_TOKENIZER_SPM, VKM_TOKENIZER_BPE };

struct vkm_tokenizer {
    enum vkm_tokenizer_kind kind;
    struct vkm_vocab vocab;
    struct vkm_special special;
    int32_t bos, eos, unk;               /* -1: none */
    int32_t byte_id[256];                /* token of a single byte, -1: none */
    bool add_bos, add_eos;
    bool add_space_prefix;               /* SPM only */
    struct vkm_pretokenizer pre;         /* BPE only */
    struct vkm_merge_table merges;       /* BPE only */
};

/* Ids of one call. */
struct vkm_ids { int32_t *at; size_t n, room; };
static inline bool vkm_ids_push(struct vkm_ids *ids, int32_t id)
{
    void *at = ids->at;
    if (!vkm_grow(&at, &ids->room, ids->n + 1, sizeof *ids->at))
        return false;
    ids->at = at;
    ids->at[ids->n++] = id;
    return true;
}

/* A name from the file made safe for a message: at most 63 bytes, everything but visible ASCII as '?'. */
struct vkm_shown { char text[64]; };
static inline struct vkm_shown vkm_show(struct vkm_str s)
{
    struct vkm_shown shown = { { 0 } };
    for (size_t i = 0; i < s.n && i + 1 < sizeof shown.text; i++)
        shown.text[i] = s.at[i] > ' ' && s.at[i] < 127 ? s.at[i] : '?';
    return shown;
}

/* Buffers of one call, zero-initialised. */
struct vkm_scratch {
    struct vkm_ids ids;
    struct vkm_merger merger;
    struct vkm_words words;
    char *text;                /* SPM: escaped text. BPE: one word in the byte alphabet */
    size_t text_room;
};

/* ---- SentencePiece-BPE, spm.c */
vkm_result vkm_spm_load(const vkm_gguf *g, struct vkm_tokenizer *t, vkm_error *err);    /* fills byte_id */
/* text is a whole fragment: what comes before it is a special token or nothing, so this is where the space prefix goes. */
vkm_result vkm_spm_tokenize(const struct vkm_tokenizer *t, const char *text, size_t n, struct vkm_scratch *s, vkm_error *err);

/* ---- byte-level BPE, bpe.c */
vkm_result vkm_bpe_load(const vkm_gguf *g, struct vkm_tokenizer *t, vkm_error *err);    /* fills byte_id, pre, merges */
vkm_result vkm_bpe_tokenize(const struct vkm_tokenizer *t, const char *text, size_t n, struct vkm_scratch *s, vkm_error *err);
/* One token back to the bytes it stands for, into out (room for piece.n bytes); returns how many. */
size_t vkm_bpe_decode(struct vkm_str piece, char *out);

#endif
