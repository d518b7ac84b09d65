/* Tokenises a sentence with the vocabulary of a GGUF file, and says what Vulkan devices there are.   hello MODEL.gguf */
#include <stdio.h>
#include <string.h>
#include <vkmoe.h>

int main(int argc, char **argv)
{
    vkm_error err = {VKM_OK, ""};
    vkm_tokenizer *tokenizer = NULL;
    vkm_device *device = NULL;
    vkm_device_info info;
    const char *text = "The storm kept everyone inside";
    int32_t ids[64];
    size_t n = 64;
    vkm_result r = vkm_tokenizer_open(argc > 1 ? argv[1] : "", &tokenizer, &err);
    if (!r) r = vkm_tokenize(tokenizer, text, strlen(text), 0, ids, &n, &err);
    if (!r) r = vkm_device_create(NULL, &device, &err);
    if (r) fprintf(stderr, "%s\n", err.message);
    else {
        vkm_device_get_info(device, &info);
        printf("vkmoe %s: %u tokens, the first is %d; %s\n", vkm_version(), (unsigned)n, (int)ids[0], info.name);
    }
    vkm_device_destroy(device);
    vkm_tokenizer_destroy(tokenizer);
    return r != VKM_OK;
}
