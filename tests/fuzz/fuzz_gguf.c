/* libFuzzer: any bytes as a GGUF file. How to run: README.md beside this. */
#include "reference/ggufwalk.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    vkm_gguf *g;
    vkm_error err;
    if (vkm_gguf_open_memory(bytes, n, "fuzz", &g, &err) == VKM_OK) {
        ref_gguf_walk(g);
        vkm_gguf_close(g);
    }
    return 0;
}
