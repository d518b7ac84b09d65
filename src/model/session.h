/* A session: one sequence's KV cache, the workspace, and the programs that run over them. */
#ifndef VKM_MODEL_SESSION_H
#define VKM_MODEL_SESSION_H

#include "model.h"

/* Where everything is in the workspace: regions of rows for up to n_batch tokens. */
struct vkm_space {
    uint32_t n_batch, head_rows;               /* head_rows: rows of logits computed at once */
    uint32_t state, state_words;               /* abi.h; token ids, then positions at the end */
    struct vkm_region x, xn, q, k, v, attention, logits, scratch;
    struct vkm_moe_space moe;
    uint64_t words;
};

/* What a program does: body over n tokens, logits of rows [first, first + count) of them, then a sample. */
struct vkm_recipe { uint32_t n, first, count; bool read_logits, sample; };
struct vkm_slot { struct vkm_recipe recipe; vkm_program *program; uint64_t used; };
#define VKM_PROGRAMS 12

struct vkm_session {
    vkm_model *model;
    vkm_session_params params;
    struct vkm_space space;
    struct vkm_shape shape;
    vkm_buffer *workspace, *tables, *readback;
    vkm_buffer **kv;
    uint32_t n_kv, kv_in_set;                  /* buffers in all, buffers of one descriptor set */
    struct vkm_kv *layers;                     /* [n_layer] */
    vkm_bindings **sets;
    uint32_t n_sets, tab_rope;
    uint32_t n_ctx, n_past;
    bool kv16, has_logits;                     /* the workspace holds the logits of the last token */
    int32_t recent[VKM_RECENT];                /* the last tokens of the sequence, for the repetition penalty */
    struct vkm_slot slots[VKM_PROGRAMS];
    uint64_t clock;
};

/* space.c */
void vkm_space_plan(const struct vkm_model *m, uint32_t n_batch, struct vkm_space *s);
/* graph.c: the program for a recipe, built if it was not, owned by the session */
vkm_result vkm_session_program(struct vkm_session *s, struct vkm_recipe recipe, vkm_program **program, vkm_error *err);

#endif
