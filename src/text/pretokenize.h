/* Cutting text into words before byte-level BPE, by tokenizer.ggml.pre. */
#ifndef VKM_TEXT_PRETOKENIZE_H
#define VKM_TEXT_PRETOKENIZE_H

#include "gguf/gguf.h"

enum { VKM_PRE_PASSES = 6 };

struct vkm_pretokenizer {
    const struct vkm_pre_family *family;
    void *pass[VKM_PRE_PASSES];          /* pcre2_code */
};

struct vkm_pre_family {
    const char *names;                   /* values of tokenizer.ggml.pre, a space around each */
    const char *pass[VKM_PRE_PASSES];    /* patterns applied one after the other, NULL-terminated unless full */
    bool ignore_merges;                  /* a word that is a token is taken whole, whatever the merges say */
    bool add_bos;                        /* default where the file has no add_bos_token */
};

/* VKM_ERR_UNSUPPORTED names a pre-tokenizer that is not known. */
vkm_result vkm_pretokenizer_create(struct vkm_str name, struct vkm_pretokenizer *pre, vkm_error *err);
void vkm_pretokenizer_free(struct vkm_pretokenizer *pre);

/* The words of one call, as ends: word i is [ends[i - 1], ends[i]), the first starts at 0. Zero-initialise; freed with vkm_words_free. */
struct vkm_words {
    size_t *ends, n, room;
    size_t *spare, spare_room;           /* the other buffer of the passes */
    void *match;                         /* pcre2_match_data: not shareable, so it lives here */
};

/* Cuts `text` [n], which must be valid UTF-8. Every byte belongs to exactly one word. */
vkm_result vkm_pretokenize(const struct vkm_pretokenizer *pre, const char *text, size_t n, struct vkm_words *words, vkm_error *err);
void vkm_words_free(struct vkm_words *words);

#endif
