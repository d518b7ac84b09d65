/* The patterns are facts of the models, from their tokenizer.json; which name means which is llama.cpp's list (llama-vocab.cpp).
 * Written for PCRE2 with true Unicode categories, as the models' own tokenizers have them. */
#include "text/pretokenize.h"

#include "text/internal.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the table
 * White space is spelt out because PCRE2's \s also has U+180E, which stopped being white space in Unicode 6.3. */
#define WS "\\t-\\r\\x{85}\\p{Z}"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "[" WS "]*[\\r\\n]+|[" WS "]+(?![^" WS "])|[" WS "]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|[" WS "]+(?![^" WS "])"

/* The pattern of cl100k and its children; they differ in how many digits stay together. */
#define CL100K(digits) CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" SPACES

#define O200K(contractions, digits) \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" contractions \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" contractions \
    "|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

/* Letters with case, a fixed list in DeepSeek's tokenizer.json. */
#define DEEPSEEK_LETTERS \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}" \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}" \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}" \
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}" \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}" \
    "\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}" \
    "\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}" \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}" \
    "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}" \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}" \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}" \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define DEEPSEEK_CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const struct vkm_pre_family FAMILIES[] = {
    { " gpt-2 phi-2 olmo mpt exaone4 a.x-4.0 mellum gigachat jais trillion granite-docling ", { GPT2 }, false, false },
    { " refact starcoder smollm command-r codeshell exaone minerva-7b mellum2 ", { "\\p{N}", GPT2 }, false, false },
    { " llama-bpe llama3 llama-v3 pixtral falcon3 falcon-h1 midm-2.0 lfm2 ", { CL100K("\\p{N}{1,3}") }, true, true },
    { " dbrx smaug-bpe glm4 chatglm-bpe ", { CL100K("\\p{N}{1,3}") }, false, false },
    { " qwen2 stablelm2 hunyuan solar-open megrez deepseek-r1-qwen kormo grok-2 ", { CL100K("\\p{N}") }, false, false },
    { " qwen35 ", { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES }, false, false },
    { " gpt-4o llama4 kanana2 minimax-m2 ", { O200K(CONTRACTIONS "?", "\\p{N}{1,3}") }, false, false },
    { " tekken ", { O200K("", "\\p{N}") }, true, true },
    { " deepseek-v3 joyai-llm hunyuan-dense hy_v4 ",
      { "\\p{N}{1,3}",
        "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
        "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES }, false, false },
    { " deepseek-llm ",
      { "[\\r\\n]",
        "[" WS "]?[" DEEPSEEK_LETTERS "]+",
        "[" WS "]?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
        "(?<![" WS "])[" WS "]++\\z",    /* \s+$ there; looking behind keeps the interpreter from trying a long run at each of its places */
        DEEPSEEK_CJK,
        "\\p{N}+" }, false, false },
    { " deepseek-coder ", { "[\\r\\n]", "[" WS "]?\\p{L}+", "[" WS "]?\\p{P}+", DEEPSEEK_CJK, "\\p{N}" }, false, false },
    { " bailingmoe bailingmoe2 llada-moe ",
      { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" WS "\\p{L}\\p{N}]++[\\r\\n]*"
        "|[" WS "]*[\\r\\n]|[" WS "]+(?![^" WS "])|[" WS "]+" }, false, false },
    { " default ", { "[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" }, false, false },
};

static const struct vkm_pre_family *find_family(struct vkm_str name)
{
    for (size_t i = 0; i < VKM_COUNT(FAMILIES) && name.n > 0; i++)
        for (const char *at = FAMILIES[i].names + 1, *end; *at; at = end + 1) {
            end = strchr(at, ' ');
            if ((size_t)(end - at) == name.n && memcmp(at, name.at, name.n) == 0)
                return &FAMILIES[i];
        }
    return NULL;
}

/* ---------------------------------------------------------------- compiling */

vkm_result vkm_pretokenizer_create(struct vkm_str name, struct vkm_pretokenizer *pre, vkm_error *err)
{
    struct vkm_pretokenizer p = { .family = find_family(name) };
    if (!p.family)
        return vkm_fail(err, VKM_ERR_UNSUPPORTED, "tokenizer.ggml.pre: the pre-tokenizer \"%s\" is not known", vkm_show(name).text);
    for (size_t i = 0; i < VKM_PRE_PASSES && p.family->pass[i]; i++) {
        int code;
        PCRE2_SIZE where;
        pcre2_code *pattern = pcre2_compile((PCRE2_SPTR)p.family->pass[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
        if (!pattern) {
            vkm_pretokenizer_free(&p);
            return vkm_fail(err, code == PCRE2_ERROR_NOMEMORY ? VKM_ERR_HOST_MEMORY : VKM_ERR_UNSUPPORTED,
                            "pattern %zu of the pre-tokenizer \"%s\" does not compile: PCRE2 error %d at %zu", i, vkm_show(name).text, code, (size_t)where);
        }
        (void)pcre2_jit_compile(pattern, PCRE2_JIT_COMPLETE);   /* may fail (no JIT, no executable memory): then it is interpreted */
        p.pass[i] = pattern;
    }
    *pre = p;
    return VKM_OK;
}

void vkm_pretokenizer_free(struct vkm_pretokenizer *pre)
{
    for (size_t i = 0; i < VKM_PRE_PASSES; i++)
        pcre2_code_free(pre->pass[i]);
    *pre = (struct vkm_pretokenizer){ 0 };
}

/* ---------------------------------------------------------------- cutting */

static bool push_end(struct vkm_words *w, size_t end)
{
    void *at = w->ends;
    if (!vkm_grow(&at, &w->room, w->n + 1, sizeof *w->ends))
        return false;
    w->ends = at;
    w->ends[w->n++] = end;
    return true;
}

/* The first match of a pattern in text [n] from `from` on: 1 and [*at, *end), 0: none, else an error of PCRE2. */
static int find_match(const pcre2_code *pattern, const char *text, size_t n, size_t from, pcre2_match_data *match, size_t *at, size_t *end)
{
    int rc = pcre2_match(pattern, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)    /* the interpreter uses the heap */
        rc = pcre2_match(pattern, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, NULL);
    if (rc < 0)
        return rc == PCRE2_ERROR_NOMATCH ? 0 : rc;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
    *at = range[0];
    *end = range[1];
    return *end > *at ? 1 : PCRE2_ERROR_INTERNAL;   /* no pattern of ours matches nothing */
}

/* Cuts the piece [from, to) into matches and what lies between them. Nothing outside the piece is seen, not even by look-arounds. */
static vkm_result cut_piece(const pcre2_code *pattern, const char *text, size_t from, size_t to, struct vkm_words *w, vkm_error *err)
{
    size_t done = 0, n = to - from, at, end;
    while (done < n) {
        int rc = find_match(pattern, text + from, n, done, w->match, &at, &end);
        if (rc < 0)
            return vkm_fail(err, rc == PCRE2_ERROR_NOMEMORY ? VKM_ERR_HOST_MEMORY : VKM_ERR_UNSUPPORTED,
                            "the pre-tokenizer gave up on a text of %zu bytes: PCRE2 error %d", n, rc);
        if (rc == 0)
            at = end = n;
        if ((at > done && !push_end(w, from + at)) || (end > at && !push_end(w, from + end)))
            return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n);
        done = end;
    }
    return VKM_OK;
}

vkm_result vkm_pretokenize(const struct vkm_pretokenizer *pre, const char *text, size_t n, struct vkm_words *w, vkm_error *err)
{
    if (!w->match && !(w->match = pcre2_match_data_create(1, NULL)))
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n);
    w->n = 0;
    if (n > 0 && !push_end(w, n))
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "no memory to tokenise %zu bytes", n);
    for (size_t pass = 0; pass < VKM_PRE_PASSES && pre->pass[pass]; pass++) {
        /* the pieces so far become the input, and the other buffer takes the output */
        size_t *pieces = w->ends, n_pieces = w->n, room = w->room;
        w->ends = w->spare;
        w->room = w->spare_room;
        w->spare = pieces;
        w->spare_room = room;
        w->n = 0;
        for (size_t i = 0, from = 0; i < n_pieces; from = pieces[i++]) {
            vkm_result r = cut_piece(pre->pass[pass], text, from, pieces[i], w, err);
            if (r != VKM_OK)
                return r;
        }
    }
    return VKM_OK;
}

void vkm_words_free(struct vkm_words *w)
{
    free(w->ends);
    free(w->spare);
    pcre2_match_data_free(w->match);
    *w = (struct vkm_words){ 0 };
}
