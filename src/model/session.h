/* A session: sequences, each with its KV cache; the workspace and the programs that run over them. */
#ifndef VKM_MODEL_SESSION_H
#define VKM_MODEL_SESSION_H

#include "model.h"
#include "nn/tune.h"

/* Where everything is in the workspace: regions of rows for up to n_batch tokens. */
struct vkm_space {
    uint32_t n_batch, n_seq, head_rows;        /* head_rows: rows of logits computed at once */
    uint32_t sampling, recent, tokens, pos, seq;   /* the step state of abi.h: words */
    uint32_t tally;                            /* [n_layer][n_expert] words: how often each was chosen, where that is counted */
    struct vkm_region last;                    /* [n_seq][n_embd] residual stream after a sequence's last token, where that was evaluated by itself */
    struct vkm_region x, xn, qkv, attention, logits, scratch;
    struct vkm_moe_space moe;
    struct vkm_inputs inputs;
    uint64_t words;
};

/* What a program does: body over n rows, which are tokens of one sequence or each of its own; logits of rows [first, first + count) of them, or of the sequences' kept last rows;
 * then a token sampled from each. */
struct vkm_recipe { uint32_t n, first, count; bool each_its_own, of_last, read_logits, sample; };
struct vkm_slot { struct vkm_recipe recipe; vkm_program *program; uint64_t used; };
#define VKM_PROGRAMS 16

struct vkm_sequence {
    int32_t *tokens;                           /* [n_ctx] of which n_past are there */
    uint32_t n_past, n_kv;                     /* n_kv: evaluated, with keys and values in the cache; all, or all but the last, which a later pass takes along */
    bool has_last;                             /* space.last holds its row */
};

struct vkm_session {
    vkm_model *model;
    const struct vkm_caps *caps;               /* of its device */
    vkm_session_params params;
    struct vkm_space space;
    struct vkm_shape shape;
    struct vkm_tuning tuning;                  /* where is_tuned */
    bool is_tuned;
    vkm_buffer *workspace, *tables, *readback; /* readback: the sequences' recent tokens, logits, tally */
    vkm_buffer **kv;
    uint32_t n_kv, kv_in_set;                  /* buffers in all, buffers of one descriptor set */
    struct vkm_kv *layers;                     /* [n_layer] */
    vkm_bindings **sets;
    uint32_t n_sets, tab_rope, tab_kv;
    uint32_t n_ctx, n_seq;
    bool kv16;
    struct vkm_sequence *sequences;            /* [n_seq] */
    uint32_t *words;                           /* [3][n_batch] what goes into the rows of a pass */
    struct vkm_slot slots[VKM_PROGRAMS];
    uint64_t clock;
    struct vkm_frame *frame;                   /* frame.h; NULL until something is queued */
};

/* session.c: what a session will be on a device of these caps; nothing is allocated on one. kv: bytes. */
vkm_result vkm_session_plan(struct vkm_session *s, vkm_model *model, const struct vkm_caps *caps, const vkm_session_params *params, uint64_t *kv, vkm_error *err);
/* What it will allocate: bytes of KV buffer i, 0 beyond the last; of the readback buffer; words of the tables behind `words` of the model's. */
uint64_t vkm_session_kv_bytes(const struct vkm_session *s, uint32_t i);
uint64_t vkm_session_readback_bytes(const struct vkm_session *s);
uint64_t vkm_session_table_words(const struct vkm_session *s, uint64_t words);
/* space.c */
void vkm_space_plan(const struct vkm_model *m, const struct vkm_caps *caps, uint32_t n_batch, uint32_t n_seq, struct vkm_space *s);
/* Where the tally lies in the readback buffer, and how many bytes it has. */
uint64_t vkm_session_tally(const struct vkm_session *s, uint64_t *bytes);
/* graph.c: the program for a recipe, built if it was not, owned by the session */
vkm_result vkm_session_program(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err);
/* A program of the caller's */
vkm_result vkm_session_build(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err);
/* session.c: runs a recipe and waits; as an audit or profile if the session is for that */
vkm_result vkm_session_run(struct vkm_session *s, struct vkm_recipe recipe, vkm_error *err);
/* Writes what rows [0, n) of the next pass are: tokens, positions and sequences out of s->words, [3][n_batch]. */
vkm_result vkm_session_write_rows(struct vkm_session *s, uint32_t n, vkm_error *err);
vkm_result vkm_session_check_sequence(const struct vkm_session *s, uint32_t seq, vkm_error *err);
/* Whether tokens [n] are of the vocabulary and fit behind `used` others. */
vkm_result vkm_session_check_tokens(const struct vkm_session *s, uint32_t used, const int32_t *tokens, size_t n, vkm_error *err);
/* Where the first n tokens of a unit of two sequences lie: a part for each kv head. A unit of keys is in whole rounds of 32. */
void vkm_session_unit_parts(const struct vkm_session *s, const struct vkm_kv *l, uint32_t unit, uint32_t from, uint32_t to, uint32_t n, struct vkm_part *parts, vkm_buffer **a, vkm_buffer **b);

/* generate.c: element i of the caller's array, whose elements are as long as its header said; sampling parameters as words of the step state; a sequence's last tokens as the device has them */
vkm_generation vkm_generation_at(const vkm_generation *all, size_t i);
vkm_result vkm_session_sampling_words(const struct vkm_session *s, const vkm_sampling_params *given, uint32_t words[VKM_SAMPLING_WORDS], vkm_error *err);
void vkm_session_recent(const struct vkm_sequence *q, uint32_t recent[VKM_RECENT]);

/* frame.c */
void vkm_frame_destroy(struct vkm_session *s);
/* Before a sequence (VKM_NONE: none) is changed, or something runs. VKM_ERR_ARGUMENT if the sequence has queued work; or if something runs while slices are in flight. */
vkm_result vkm_frame_settle(struct vkm_session *s, uint32_t seq, bool runs, vkm_error *err);
/* A sequence was. */
void vkm_frame_changed(struct vkm_session *s, uint32_t seq);

#endif
