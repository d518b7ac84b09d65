#include "reference/testmodel.h"
#include "reference/dequant.h"
#include "gguf/gguf.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ref_testmodel ref_testmodel_default(const char *arch)
{
    struct ref_testmodel o = {.arch = arch, .seed = 1, .hidden = 64, .layers = 3, .heads = 4, .kv_heads = 2, .head_dim = 16, .experts = 8, .used = 2,
                              .width = 32, .vocab = 260, .context = 512, .rope_base = 10000, .eps = 1e-5};
    if (strcmp(arch, "olmoe") == 0) o.kv_heads = 4;
    if (strcmp(arch, "qwen2moe") == 0) o.qkv_bias = true, o.shared_width = 48, o.eps = 1e-6, o.rope_base = 1e6, o.kv_heads = 4;
    if (strcmp(arch, "qwen3moe") == 0) o.head_dim = 32, o.eps = 1e-6, o.rope_base = 1e6;
    if (strcmp(arch, "granitemoe") == 0) o.embd_scale = 12, o.residual_scale = 0.22, o.attn_scale = 0.03125, o.logit_scale = 6, o.tied = true;
    return o;
}

static bool is(const struct ref_testmodel *o, const char *arch) { return strcmp(o->arch, arch) == 0; }

/* ---------------------------------------------------------------- keys */

struct key { char name[128]; };

static struct key key_of(const struct ref_testmodel *o, const char *name)
{
    struct key k;
    snprintf(k.name, sizeof k.name, "%s.%s", o->arch, name);
    return k;
}

static void number(struct ref_gguf *w, const struct ref_testmodel *o, const char *name, double x)
{
    if (x != 0) ref_key_f32(w, key_of(o, name).name, (float)x);
}

static void count(struct ref_gguf *w, const struct ref_testmodel *o, const char *name, uint32_t x)
{
    if (x) ref_key_u32(w, key_of(o, name).name, x);
}

static void put_rope(struct ref_gguf *w, const struct ref_testmodel *o)
{
    count(w, o, "rope.dimension_count", o->n_rot ? o->n_rot : o->head_dim);
    number(w, o, "rope.freq_base", o->rope_base);
    if (!o->rope_scaling) return;
    ref_key_str(w, key_of(o, "rope.scaling.type").name, o->rope_scaling);
    number(w, o, "rope.scaling.factor", o->rope_factor);
    count(w, o, "rope.scaling.original_context_length", o->rope_original_context);
}

static void put_keys(struct ref_gguf *w, const struct ref_testmodel *o)
{
    bool own_width_key = is(o, "qwen2moe") || is(o, "qwen3moe");
    ref_key_str(w, "general.architecture", o->arch);
    ref_key_str(w, "general.name", "random test model");
    count(w, o, "context_length", o->context);
    count(w, o, "embedding_length", o->hidden);
    count(w, o, "block_count", o->layers);
    count(w, o, "vocab_size", o->vocab);
    count(w, o, "feed_forward_length", own_width_key ? 3 * o->width : o->width);   /* of dense layers, which there are none of */
    count(w, o, "expert_feed_forward_length", own_width_key ? o->width : 0);
    count(w, o, "expert_shared_feed_forward_length", o->shared_width);
    count(w, o, "expert_count", o->experts);
    count(w, o, "expert_used_count", o->used);
    count(w, o, "attention.head_count", o->heads);
    count(w, o, "attention.head_count_kv", o->kv_heads);
    if (o->head_dim * o->heads != o->hidden) {
        count(w, o, "attention.key_length", o->head_dim);
        count(w, o, "attention.value_length", o->head_dim);
    }
    number(w, o, "attention.layer_norm_rms_epsilon", o->eps);
    number(w, o, "attention.clamp_kqv", o->clamp_kqv);
    number(w, o, "attention.scale", o->attn_scale);
    number(w, o, "embedding_scale", o->embd_scale);
    number(w, o, "residual_scale", o->residual_scale);
    number(w, o, "logit_scale", o->logit_scale);
    put_rope(w, o);
}

static void put_vocab(struct ref_gguf *w, uint32_t n)
{
    enum { UNKNOWN = 2, CONTROL = 3, NORMAL = 1, BYTE = 6, FIRST_BYTE = 3, SPACE = 259 };
    char (*text)[16] = calloc(n, sizeof *text);
    const char **tokens = calloc(n, sizeof *tokens);
    float *scores = calloc(n, sizeof *scores);
    int64_t *types = calloc(n, sizeof *types);
    if (!text || !tokens || !scores || !types) abort();
    for (uint32_t i = 0; i < n; i++) {
        static const char *const special[] = {"<unk>", "<s>", "</s>"};
        if (i < FIRST_BYTE) snprintf(text[i], sizeof text[i], "%s", special[i]);
        else if (i < SPACE) snprintf(text[i], sizeof text[i], "<0x%02X>", i - FIRST_BYTE);
        else if (i == SPACE) snprintf(text[i], sizeof text[i], "\xe2\x96\x81");
        else snprintf(text[i], sizeof text[i], "tok%u", i);
        types[i] = i == 0 ? UNKNOWN : i < FIRST_BYTE ? CONTROL : i < SPACE ? BYTE : NORMAL;
        tokens[i] = text[i];
    }
    ref_key_str(w, "tokenizer.ggml.model", "llama");
    ref_key_str(w, "tokenizer.ggml.pre", "default");
    ref_key_strs(w, "tokenizer.ggml.tokens", tokens, n);
    ref_key_f32s(w, "tokenizer.ggml.scores", scores, n);
    ref_key_ints(w, "tokenizer.ggml.token_type", VKM_GGUF_I32, types, n);
    ref_key_u32(w, "tokenizer.ggml.bos_token_id", 1);
    ref_key_u32(w, "tokenizer.ggml.eos_token_id", 2);
    ref_key_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    ref_key_bool(w, "tokenizer.ggml.add_space_prefix", false);
    free(text);
    free(tokens);
    free(scores);
    free(types);
}

/* ---------------------------------------------------------------- tensors */

struct builder { struct ref_gguf *w; struct ref_rng rng; };

/* {cols, rows, n} of a type; std 0: 1/sqrt(cols) */
static void matrix(struct builder *b, const char *name, uint32_t type, uint64_t cols, uint64_t rows, uint64_t n, double std)
{
    const struct vkm_ggml_type *t = vkm_ggml_type_find(type);
    uint64_t ne[] = {cols, rows, n}, elements = cols * rows * n;
    assert(cols % t->block_elems == 0 && "the type does not divide the row");
    void *data = malloc(elements / t->block_elems * t->block_bytes);
    if (!data) abort();
    ref_random_blocks(&b->rng, type, elements, std != 0 ? std : 1 / sqrt((double)cols), data);
    ref_tensor(b->w, name, type, n > 1 ? 3 : 2, ne, data);
    free(data);
}

static void vector(struct builder *b, const char *name, uint64_t n, double mean, double std)
{
    float *x = malloc(n * sizeof *x);
    if (!x) abort();
    for (uint64_t i = 0; i < n; i++) x[i] = (float)(mean + std * ref_normal(&b->rng));
    ref_tensor(b->w, name, REF_F32, 1, &n, x);
    free(x);
}

struct name { char text[96]; };

static struct name in_layer(uint32_t layer, const char *what)
{
    struct name n;
    snprintf(n.text, sizeof n.text, "blk.%u.%s", layer, what);
    return n;
}

static void norm(struct builder *b, const char *name, uint64_t n) { vector(b, name, n, 1, 0.3); }
static void bias(struct builder *b, const char *name, uint64_t n) { vector(b, name, n, 0, 0.3); }

static void attention(struct builder *b, const struct ref_testmodel *o, uint32_t i)
{
    uint64_t nq = (uint64_t)o->heads * o->head_dim, nkv = (uint64_t)o->kv_heads * o->head_dim;
    norm(b, in_layer(i, "attn_norm.weight").text, o->hidden);
    matrix(b, in_layer(i, "attn_q.weight").text, o->type_qkv ? o->type_qkv[0] : o->type_attn, o->hidden, nq, 1, 0);
    matrix(b, in_layer(i, "attn_k.weight").text, o->type_qkv ? o->type_qkv[1] : o->type_attn, o->hidden, nkv, 1, 0);
    matrix(b, in_layer(i, "attn_v.weight").text, o->type_qkv ? o->type_qkv[2] : o->type_attn, o->hidden, nkv, 1, 0);
    matrix(b, in_layer(i, "attn_output.weight").text, o->type_attn, nq, o->hidden, 1, 0);
    if (o->qkv_bias) {
        bias(b, in_layer(i, "attn_q.bias").text, nq);
        bias(b, in_layer(i, "attn_k.bias").text, nkv);
        bias(b, in_layer(i, "attn_v.bias").text, nkv);
    }
    if (o->o_bias) bias(b, in_layer(i, "attn_output.bias").text, o->hidden);
    if (is(o, "olmoe") || is(o, "qwen3moe")) {
        norm(b, in_layer(i, "attn_q_norm.weight").text, is(o, "olmoe") ? nq : o->head_dim);
        norm(b, in_layer(i, "attn_k_norm.weight").text, is(o, "olmoe") ? nkv : o->head_dim);
    }
}

static void expert_matrices(struct builder *b, const struct ref_testmodel *o, uint32_t i, const char *what, uint32_t type, uint64_t cols, uint64_t rows)
{
    char name[64];
    snprintf(name, sizeof name, "ffn_%s_exps.weight", what);
    if (!o->per_expert_tensors) matrix(b, in_layer(i, name).text, type, cols, rows, o->experts, 0);
    for (uint32_t e = 0; o->per_expert_tensors && e < o->experts; e++) {
        snprintf(name, sizeof name, "ffn_%s.%u.weight", what, e);
        matrix(b, in_layer(i, name).text, type, cols, rows, 1, 0);
    }
}

static void experts(struct builder *b, const struct ref_testmodel *o, uint32_t i)
{
    norm(b, in_layer(i, "ffn_norm.weight").text, o->hidden);
    matrix(b, in_layer(i, "ffn_gate_inp.weight").text, o->type_router, o->hidden, o->experts, 1, 2 / sqrt(o->hidden));
    if (o->fused_gate_up) {
        matrix(b, in_layer(i, "ffn_gate_up_exps.weight").text, o->type_gate, o->hidden, 2 * (uint64_t)o->width, o->experts, 0);
    } else {
        expert_matrices(b, o, i, "gate", o->type_gate, o->hidden, o->width);
        expert_matrices(b, o, i, "up", o->type_up, o->hidden, o->width);
    }
    expert_matrices(b, o, i, "down", o->type_down, o->width, o->hidden);
    if (!o->shared_width) return;
    matrix(b, in_layer(i, "ffn_gate_shexp.weight").text, o->type_shared, o->hidden, o->shared_width, 1, 0);
    matrix(b, in_layer(i, "ffn_up_shexp.weight").text, o->type_shared, o->hidden, o->shared_width, 1, 0);
    matrix(b, in_layer(i, "ffn_down_shexp.weight").text, o->type_shared, o->shared_width, o->hidden, 1, 0);
    if (is(o, "qwen2moe")) vector(b, in_layer(i, "ffn_gate_inp_shexp.weight").text, o->hidden, 0, 0.2);
}

static void rope_factors(struct builder *b, uint64_t n)
{
    float *x = malloc(n * sizeof *x);
    if (!x) abort();
    for (uint64_t i = 0; i < n; i++) x[i] = (float)(1 + 7 * ref_uniform(&b->rng));
    ref_tensor(b->w, "rope_freqs.weight", REF_F32, 1, &n, x);
    free(x);
}

struct ref_gguf ref_testmodel_build(const struct ref_testmodel *o)
{
    struct ref_gguf w = {0};
    struct builder b = {&w, ref_seed(o->seed)};
    assert(o->vocab >= 260 && !(o->fused_gate_up && o->per_expert_tensors));
    put_keys(&w, o);
    put_vocab(&w, o->vocab);
    matrix(&b, "token_embd.weight", o->type_embd, o->hidden, o->vocab, 1, 0.5);
    norm(&b, "output_norm.weight", o->hidden);
    if (!o->tied) matrix(&b, "output.weight", o->type_output, o->hidden, o->vocab, 1, 0.3);
    if (o->rope_freqs) rope_factors(&b, (o->n_rot ? o->n_rot : o->head_dim) / 2);
    for (uint32_t i = 0; i < o->layers; i++) {
        attention(&b, o, i);
        experts(&b, o, i);
    }
    return w;
}

bool ref_testmodel_save(const struct ref_testmodel *o, char path[256])
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, 256, "%s/vkmoe-%s-XXXXXX", dir ? dir : "/tmp", o->arch);
    int fd = mkstemp(path);
    if (fd < 0) return false;
    close(fd);
    struct ref_gguf w = ref_testmodel_build(o);
    bool ok = ref_gguf_save(&w, path);
    ref_gguf_free(&w);
    return ok;
}
