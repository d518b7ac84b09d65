/* The MoE layers of published models: what `bench layer --shape` knows. Numbers from the models' configurations (config.json, GGUF keys) as the project's notes on model families list them. */
#include "bench_device.h"
#include <string.h>
#include <strings.h>

const struct bench_shape bench_shapes[] = {
    /*                       hidden  experts  k  width  shared  gated  score of the router     renormalised */
    {"mixtral-8x7b",           4096,      8,  2, 14336,      0, false, VKM_SCORE_SOFTMAX,      true,  NULL},
    {"mixtral-8x22b",          6144,      8,  2, 16384,      0, false, VKM_SCORE_SOFTMAX,      true,  NULL},
    {"qwen1.5-moe-a2.7b",      2048,     60,  4,  1408,   5632, true,  VKM_SCORE_SOFTMAX,      false, NULL},
    {"qwen2-57b-a14b",         3584,     64,  8,  2560,  20480, true,  VKM_SCORE_SOFTMAX,      false, NULL},
    {"qwen3-30b-a3b",          2048,    128,  8,   768,      0, false, VKM_SCORE_SOFTMAX,      true,  NULL},
    {"qwen3-235b-a22b",        4096,    128,  8,  1536,      0, false, VKM_SCORE_SOFTMAX,      true,  NULL},
    {"qwen3.5-35b-a3b",        2048,    256,  8,   512,    512, true,  VKM_SCORE_SOFTMAX,      true,  NULL},
    {"olmoe-1b-7b",            2048,     64,  8,  1024,      0, false, VKM_SCORE_SOFTMAX,      false, NULL},
    {"deepseek-moe-16b",       2048,     64,  6,  1408,   2816, false, VKM_SCORE_SOFTMAX,      false, NULL},
    {"deepseek-v2-lite",       2048,     64,  6,  1408,   2816, false, VKM_SCORE_SOFTMAX,      false, NULL},
    {"deepseek-v3",            7168,    256,  8,  2048,   2048, false, VKM_SCORE_SOFTMAX,      true,  "its sigmoid router with groups is measured as softmax"},
    {"gpt-oss-20b",            2880,     32,  4,  2880,      0, false, VKM_SCORE_SELECTED,     false, "without its biases and its clamp in SwiGLU"},
    {"gpt-oss-120b",           2880,    128,  4,  2880,      0, false, VKM_SCORE_SELECTED,     false, "without its biases and its clamp in SwiGLU"},
    {"granite-3.1-1b-a400m",   1024,     32,  8,   512,      0, false, VKM_SCORE_SELECTED,     false, NULL},
    {"grok-1",                 6144,      8,  2, 32768,      0, false, VKM_SCORE_SOFTMAX,      false, "its GELU is measured as SiLU"},
    {"switch-base-128",         768,    128,  1,  3072,      0, false, VKM_SCORE_SOFTMAX,      false, "its experts have no gate: measured with one, half as many weights again"},
    {"switch-c-2048",          2080,   2048,  1,  6144,      0, false, VKM_SCORE_SOFTMAX,      false, NULL},
};
const size_t bench_shape_count = VKM_COUNT(bench_shapes);

const struct bench_shape *bench_shape_find(const char *name, size_t n)
{
    for (size_t i = 0; i < bench_shape_count; i++)
        if (strlen(bench_shapes[i].name) == n && !memcmp(bench_shapes[i].name, name, n)) return &bench_shapes[i];
    return NULL;
}

/* K types have super-blocks of 256 columns; files hold a narrower matrix in the type of 32-column blocks that is next in size, and so does this. */
const struct vkm_type *bench_type_for(const struct vkm_type *type, uint32_t cols)
{
    static const struct { const char *from, *to; } narrow[] = {{"q4_k", "q5_0"}, {"q5_k", "q5_1"}, {"q6_k", "q8_0"}};
    if (cols % type->block_cols == 0) return type;
    for (size_t i = 0; i < VKM_COUNT(narrow); i++)
        if (!strcmp(type->variant, narrow[i].from)) return bench_type_for(bench_type_find(narrow[i].to, strlen(narrow[i].to)), cols);
    return bench_type_find("f16", 3);
}

const struct vkm_type *bench_type_find(const char *variant, size_t n)
{
    for (size_t i = 0; i < vkm_type_count; i++)
        if (strlen(vkm_types[i].variant) == n && !strncasecmp(vkm_types[i].variant, variant, n)) return &vkm_types[i];
    return NULL;
}
