/* Making a tokenizer from a file, and the public functions. */
#include "text/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- tokens known by their text
 * Which tokens end generation is not in the file; llama.cpp knows them by their text (llama-vocab.cpp, special_eog_ids), so do we. */

static const char *const END_TEXTS[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>",
    "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "[e~[",
    "<\xef\xbd\x9c\x65nd\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",    /* DeepSeek: fullwidth bars, U+2581; \x65 is the e of "end" */
    /* code models: padding, the next repository, the next file */
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
};

static int32_t find(const struct vkm_vocab *v, const char *text) { return vkm_vocab_find(v, text, strlen(text)); }

/* Such tokens become control tokens whatever type the file gives them, so that a user's text cannot contain them. */
static void mark_end_texts(struct vkm_vocab *v)
{
    for (size_t i = 0; i < VKM_COUNT(END_TEXTS); i++) {
        int32_t id = find(v, END_TEXTS[i]);
        if (id < 0)
            continue;
        v->flags[id] |= VKM_TOKEN_IS_END;
        v->type[id] = VKM_TOKEN_CONTROL;
    }
}

/* In the formats of gpt-oss (<|return|>, <|call|>) and Solar (<|flush|>, <|calls|>) <|end|> only ends one message of several. */
static void spare_end_of_message(struct vkm_vocab *v)
{
    int32_t end = find(v, "<|end|>");
    bool harmony = find(v, "<|return|>") >= 0 && find(v, "<|call|>") >= 0;
    bool solar = find(v, "<|flush|>") >= 0 && find(v, "<|calls|>") >= 0;
    if (end >= 0 && (harmony || solar))
        v->flags[end] &= (uint8_t)~VKM_TOKEN_IS_END;
}

/* Phi-3's tokenizer.json marks its special tokens "rstrip", all but these; GGUF has no field for it. So "<|user|>\n" is one token. */
static void mark_strips(const vkm_gguf *g, struct vkm_vocab *v)
{
    struct vkm_str arch;
    if (vkm_gguf_str(g, "general.architecture", &arch, NULL) != VKM_OK)
        return;
    if (!(arch.n == 4 && memcmp(arch.at, "phi3", 4) == 0) && !(arch.n == 6 && memcmp(arch.at, "phimoe", 6) == 0))
        return;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->type[i] == VKM_TOKEN_CONTROL || v->type[i] == VKM_TOKEN_USER_DEFINED)
            v->flags[i] |= VKM_TOKEN_STRIPS_AFTER;
    static const char *const not[] = { "<s>", "<|endoftext|>" };
    for (size_t i = 0; i < VKM_COUNT(not); i++)
        if (find(v, not[i]) >= 0)
            v->flags[find(v, not[i])] &= (uint8_t)~VKM_TOKEN_STRIPS_AFTER;
}

/* ---------------------------------------------------------------- ids and flags from the file */

/* An optional token id; *id stays when the file has none. Naming a token that does not exist is malformed. */
static vkm_result load_id(const vkm_gguf *g, const char *key, const struct vkm_vocab *v, int32_t *id, vkm_error *err)
{
    int64_t value;
    if (!vkm_gguf_has(g, key))
        return VKM_OK;
    vkm_result r = vkm_gguf_int(g, key, 0, (int64_t)v->n - 1, &value, err);
    if (r == VKM_OK)
        *id = (int32_t)value;
    return r;
}

/* add_bos_token or add_eos_token. Asking for a token and not saying which is an error; a mere default gives way. */
static vkm_result load_add(const vkm_gguf *g, const char *key, int32_t id, bool *add, vkm_error *err)
{
    if (!vkm_gguf_has(g, key)) {
        *add = *add && id >= 0;
        return VKM_OK;
    }
    vkm_result r = vkm_gguf_bool(g, key, add, err);
    if (r == VKM_OK && *add && id < 0)
        r = vkm_fail(err, VKM_ERR_FORMAT, "%s is true, but the file does not say which token that is", key);
    return r;
}

static vkm_result load_ids(const vkm_gguf *g, struct vkm_tokenizer *t, vkm_error *err)
{
    struct vkm_vocab *v = &t->vocab;
    bool spm = t->kind == VKM_TOKENIZER_SPM;
    int32_t eot = -1, eom = -1;
    t->unk = spm ? 0 : -1;                       /* SentencePiece's own defaults */
    t->bos = spm && v->n > 1 ? 1 : -1;
    t->eos = spm && v->n > 2 ? 2 : -1;
    t->add_bos = spm || t->pre.family->add_bos;
    t->add_eos = false;
    t->add_space_prefix = spm;
    vkm_result r = load_id(g, "tokenizer.ggml.bos_token_id", v, &t->bos, err);
    if (r == VKM_OK) r = load_id(g, "tokenizer.ggml.eos_token_id", v, &t->eos, err);
    if (r == VKM_OK) r = load_id(g, "tokenizer.ggml.unknown_token_id", v, &t->unk, err);
    if (r == VKM_OK) r = load_id(g, "tokenizer.ggml.eot_token_id", v, &eot, err);
    if (r == VKM_OK) r = load_id(g, "tokenizer.ggml.eom_token_id", v, &eom, err);
    if (r == VKM_OK) r = load_add(g, "tokenizer.ggml.add_bos_token", t->bos, &t->add_bos, err);
    if (r == VKM_OK) r = load_add(g, "tokenizer.ggml.add_eos_token", t->eos, &t->add_eos, err);
    if (r == VKM_OK && spm && vkm_gguf_has(g, "tokenizer.ggml.add_space_prefix"))
        r = vkm_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, err);
    if (r != VKM_OK)
        return r;
    const int32_t ends[] = { t->eos, eot, eom };
    for (size_t i = 0; i < VKM_COUNT(ends); i++)
        if (ends[i] >= 0)
            v->flags[ends[i]] |= VKM_TOKEN_IS_END;
    spare_end_of_message(v);
    return VKM_OK;
}

/* ---------------------------------------------------------------- life */

static vkm_result load_kind(const vkm_gguf *g, enum vkm_tokenizer_kind *kind, vkm_error *err)
{
    struct vkm_str model;
    vkm_result r = vkm_gguf_str(g, "tokenizer.ggml.model", &model, err);
    if (r != VKM_OK)
        return r;
    if (model.n == 5 && memcmp(model.at, "llama", 5) == 0)
        *kind = VKM_TOKENIZER_SPM;
    else if (model.n == 4 && memcmp(model.at, "gpt2", 4) == 0)
        *kind = VKM_TOKENIZER_BPE;
    else
        r = vkm_fail(err, VKM_ERR_UNSUPPORTED, "tokenizer.ggml.model: \"%s\" is neither \"llama\" nor \"gpt2\"", vkm_show(model).text);
    return r;
}

vkm_result vkm_tokenizer_create(const vkm_gguf *g, vkm_tokenizer **tokenizer, vkm_error *err)
{
    struct vkm_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for a tokenizer");
    vkm_result r = load_kind(g, &t->kind, err);
    if (r == VKM_OK) r = vkm_vocab_load(g, &t->vocab, err);
    if (r == VKM_OK) {
        mark_end_texts(&t->vocab);    /* first: what text may spell depends on the types */
        mark_strips(g, &t->vocab);
        r = t->kind == VKM_TOKENIZER_SPM ? vkm_spm_load(g, t, err) : vkm_bpe_load(g, t, err);
    }
    if (r == VKM_OK) r = load_ids(g, t, err);
    if (r == VKM_OK) r = vkm_special_create(&t->vocab, &t->special, err);
    if (r == VKM_OK) *tokenizer = t;
    else vkm_tokenizer_destroy(t);
    return r;
}

vkm_result vkm_tokenizer_open(const char *gguf_path, vkm_tokenizer **tokenizer, vkm_error *err)
{
    vkm_gguf *g = NULL;
    if (!gguf_path || !tokenizer)
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_tokenizer_open needs a path and a place for the result");
    vkm_result r = vkm_gguf_open(gguf_path, &g, err);
    if (r == VKM_OK)
        r = vkm_tokenizer_create(g, tokenizer, err);
    vkm_gguf_close(g);
    return r;
}

void vkm_tokenizer_destroy(vkm_tokenizer *t)
{
    if (!t)
        return;
    vkm_vocab_free(&t->vocab);
    vkm_special_free(&t->special);
    vkm_pretokenizer_free(&t->pre);
    free(t->merges.slots);
    free(t);
}

/* ---------------------------------------------------------------- text to ids */

static vkm_result tokenize_fragments(const struct vkm_tokenizer *t, const char *text, const struct vkm_fragment *fragments, size_t n,
                                     struct vkm_scratch *s, vkm_error *err)
{
    vkm_result r = VKM_OK;
    for (size_t i = 0; i < n && r == VKM_OK; i++) {
        const struct vkm_fragment *f = &fragments[i];
        if (f->id >= 0) {
            if (!vkm_ids_push(&s->ids, f->id))
                r = vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for %zu tokens", s->ids.n);
        } else if (t->kind == VKM_TOKENIZER_SPM) {
            r = vkm_spm_tokenize(t, text + f->at, f->n, s, err);
        } else {
            r = vkm_bpe_tokenize(t, text + f->at, f->n, s, err);
        }
    }
    return r;
}

static void scratch_free(struct vkm_scratch *s)
{
    free(s->ids.at);
    free(s->text);
    vkm_merger_free(&s->merger);
    vkm_words_free(&s->words);
}

vkm_result vkm_tokenize(const vkm_tokenizer *t, const char *text, size_t n_text, uint32_t flags, int32_t *ids, size_t *n_ids, vkm_error *err)
{
    if (!t || (!text && n_text) || !n_ids || (!ids && *n_ids) || flags & ~(VKM_TOKENIZE_SPECIAL | VKM_TOKENIZE_PARSE))
        return vkm_fail(err, VKM_ERR_ARGUMENT, "vkm_tokenize: a tokenizer, a text, a place for ids and only known flags are needed");
    bool special = flags & VKM_TOKENIZE_SPECIAL;
    struct vkm_scratch s = { 0 };
    struct vkm_fragment *fragments = NULL;
    size_t n_fragments = 0;
    vkm_result r = vkm_special_split(&t->special, &t->vocab, text, n_text, flags & VKM_TOKENIZE_PARSE, &fragments, &n_fragments, err);
    if (r == VKM_OK && special && t->add_bos && !vkm_ids_push(&s.ids, t->bos))
        r = vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for a token");
    if (r == VKM_OK)
        r = tokenize_fragments(t, text, fragments, n_fragments, &s, err);
    if (r == VKM_OK && special && t->add_eos && !vkm_ids_push(&s.ids, t->eos))
        r = vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory for a token");
    if (r == VKM_OK) {
        size_t fit = s.ids.n < *n_ids ? s.ids.n : *n_ids;
        if (fit)
            memcpy(ids, s.ids.at, fit * sizeof *ids);
        *n_ids = s.ids.n;
    }
    free(fragments);
    scratch_free(&s);
    return r;
}

/* ---------------------------------------------------------------- questions */

uint32_t vkm_tokenizer_n_vocab(const vkm_tokenizer *t) { return t->vocab.n; }
int32_t vkm_tokenizer_bos(const vkm_tokenizer *t) { return t->bos; }
int32_t vkm_tokenizer_eos(const vkm_tokenizer *t) { return t->eos; }

static bool is_token(const vkm_tokenizer *t, int32_t id) { return id >= 0 && (uint32_t)id < t->vocab.n; }

bool vkm_tokenizer_is_end(const vkm_tokenizer *t, int32_t id) { return is_token(t, id) && (t->vocab.flags[id] & VKM_TOKEN_IS_END); }

const char *vkm_tokenizer_piece(const vkm_tokenizer *t, int32_t id, size_t *n_bytes)
{
    struct vkm_str piece = { NULL, 0 };
    if (is_token(t, id))
        piece = vkm_vocab_piece(&t->vocab, id);
    if (n_bytes)
        *n_bytes = piece.n;
    return piece.at;
}
