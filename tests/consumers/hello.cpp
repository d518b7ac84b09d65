// hello.c in C++17.   hello_cpp MODEL.gguf
#include <cstdio>
#include <memory>
#include <string_view>
#include <vector>
#include <vkmoe.h>

template <auto destroy> struct with { template <class T> void operator()(T *object) const { destroy(object); } };

int main(int argc, char **argv)
{
    vkm_error err{};
    vkm_tokenizer *opened = nullptr;
    vkm_device *created = nullptr;
    vkm_result r = vkm_tokenizer_open(argc > 1 ? argv[1] : "", &opened, &err);
    std::unique_ptr<vkm_tokenizer, with<vkm_tokenizer_destroy>> tokenizer(opened);
    if (!r) r = vkm_device_create(nullptr, &created, &err);
    std::unique_ptr<vkm_device, with<vkm_device_destroy>> device(created);

    constexpr std::string_view text = "The storm kept everyone inside";
    std::size_t n = 0;
    if (!r) r = vkm_tokenize(tokenizer.get(), text.data(), text.size(), 0, nullptr, &n, &err);
    std::vector<int32_t> ids(n);
    if (!r) r = vkm_tokenize(tokenizer.get(), text.data(), text.size(), 0, ids.data(), &n, &err);
    if (r || ids.empty()) return std::fprintf(stderr, "%s\n", err.message), 1;
    vkm_device_info info;
    vkm_device_get_info(device.get(), &info);
    std::printf("vkmoe %s: %zu tokens, the first is %d; %s\n", vkm_version(), ids.size(), int(ids[0]), info.name);
}
