/* Tokens that are found in the text before anything else: control, user-defined and unknown tokens. */
#ifndef VKM_TEXT_SPECIAL_H
#define VKM_TEXT_SPECIAL_H

#include "text/vocab.h"

/* The special tokens in the order of their bytes. */
struct vkm_special {
    struct vkm_special_entry { const char *text; size_t n; int32_t id; uint32_t shorter; } *entries;  /* text borrowed from the vocabulary */
    uint32_t n;
    uint32_t first[257];       /* entries [first[c], first[c + 1]) start with byte c */
};

vkm_result vkm_special_create(const struct vkm_vocab *v, struct vkm_special *special, vkm_error *err);
void vkm_special_free(struct vkm_special *special);

/* A stretch of the input: a special token (id >= 0) or text between them (id -1). Never empty. */
struct vkm_fragment { size_t at, n; int32_t id; };

/* Cuts text into fragments. The longest token text goes first, wherever it stands, and takes its bytes from all shorter ones;
 * among equally long ones the lower id, then the place further left (llama.cpp, tokenizer_st_partition; equal lengths are
 * unordered there). `parse` false: only user-defined tokens count, so that text cannot inject control tokens.
 * *fragments [*n] is owned by the caller; NULL with *n 0 for an empty text. */
vkm_result vkm_special_split(const struct vkm_special *special, const struct vkm_vocab *v, const char *text, size_t n_text, bool parse,
                             struct vkm_fragment **fragments, size_t *n, vkm_error *err);

#endif
