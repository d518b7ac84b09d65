/* libFuzzer: any bytes as a text and a vocabulary. Input: flags (1 byte), length of the text (2 bytes, little-endian), the text, a GGUF
 * file. How to run: README.md beside this, with the files of src/text and -lpcre2-8 added. A seed from a golden file:
 *     (printf '\3\20\0<|im_end|> don'"'"'t'; cat tests/golden/tokenizer/qwen2.gguf) > seeds/qwen2 */
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* Ids are tokens, a short buffer gets what fits, and the text that comes back is UTF-8. */
static void try_text(const vkm_tokenizer *t, const char *text, size_t n, uint32_t flags)
{
    int32_t ids[512];
    size_t n_ids = VKM_COUNT(ids), n_text;
    const char *part;
    vkm_detokenizer *d = NULL;
    if (vkm_tokenize(t, text, n, flags & 3, ids, &n_ids, NULL) != VKM_OK || vkm_detokenizer_create(t, flags & 4, &d, NULL) != VKM_OK)
        return;
    check(n_ids <= 3 * n + 3);
    for (size_t i = 0; i < n_ids && i < VKM_COUNT(ids); i++) {
        check(ids[i] >= 0 && (uint32_t)ids[i] < vkm_tokenizer_n_vocab(t));
        check(vkm_detokenizer_push(d, ids[i], &part, &n_text, NULL) == VKM_OK);
        for (size_t at = 0, size; at < n_text; at += size)
            check((size = vkm_utf8_char(part + at, n_text - at)) > 0);
    }
    check(vkm_detokenizer_flush(d, &part, &n_text, NULL) == VKM_OK);
    vkm_detokenizer_destroy(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    vkm_gguf *g = NULL;
    vkm_tokenizer *t = NULL;
    vkm_error err;
    if (n < 3)
        return 0;
    size_t n_text = (size_t)bytes[1] | (size_t)bytes[2] << 8;
    if (n_text > n - 3)
        return 0;
    const char *text = (const char *)bytes + 3;
    if (vkm_gguf_open_memory(bytes + 3 + n_text, n - 3 - n_text, "fuzz", &g, &err) == VKM_OK) {
        if (vkm_tokenizer_create(g, &t, &err) == VKM_OK)
            try_text(t, text, n_text, bytes[0]);
        vkm_tokenizer_destroy(t);
        vkm_gguf_close(g);
    }
    return 0;
}
