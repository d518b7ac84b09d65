/* Tokenizers from GGUF metadata: SentencePiece-BPE ("llama") and byte-level BPE ("gpt2"). Public functions are in vkmoe.h. */
#ifndef VKM_TEXT_TOKENIZER_H
#define VKM_TEXT_TOKENIZER_H

#include "gguf/gguf.h"

/* Copies what it needs: g may be closed afterwards. VKM_ERR_FORMAT / UNSUPPORTED name the key. A file without tokenizer.ggml.model is VKM_ERR_FORMAT. */
vkm_result vkm_tokenizer_create(const vkm_gguf *g, vkm_tokenizer **tokenizer, vkm_error *err);

#endif
