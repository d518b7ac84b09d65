/* A session's queued work, and the slices that hold it. */
#ifndef VKM_MODEL_FRAME_H
#define VKM_MODEL_FRAME_H

#include "session.h"
#include "host/slice.h"

/* What a sequence is to do: evaluate the n_prompt tokens that lie behind its n_past, then generate. */
struct vkm_task {
    uint32_t n_prompt;
    uint64_t turn;                             /* of the prompt; earlier ones go first */
    bool generating, started, ignore_end;      /* started: the device has its sampling parameters and recent tokens */
    bool dropped;                              /* cancelled, and nothing queued since */
    uint32_t sampling[VKM_SAMPLING_WORDS];
    size_t most, made;                         /* tokens of the generation, and of them delivered */
    uint32_t ahead;                            /* tokens behind n_past that recorded passes sample */
    uint32_t epoch;                            /* what was recorded in an earlier one does not count */
    uint32_t done;                             /* tokens that completed slices have evaluated */
    vkm_ending ending;
};

/* What a recorded pass does for a sequence, once its last slice is completed: evaluates it up to a position, and perhaps samples the token there. */
struct vkm_delivery { uint64_t slice; uint32_t seq, epoch, position; bool token; };

enum vkm_pass_kind { VKM_PASS_NONE, VKM_PASS_COPY, VKM_PASS_PROMPT, VKM_PASS_GENERATE };
struct vkm_row { uint32_t seq, epoch; };
struct vkm_pass {
    enum vkm_pass_kind kind;
    bool begun;                                /* its rows are written */
    uint32_t n, first;                         /* rows; prompt: position of the first. copy: tokens */
    uint32_t from;                             /* copy: the sequence that has them; at.op counts layers */
    vkm_program *program;
    struct vkm_cursor at;
    double load;
};

#define VKM_CHUNKS 40                          /* numbers of prompt tokens that there are programs for: 1, 2, 3, 4, 6, 8, 12, ... */

struct vkm_frame {
    vkm_slicer *slicer;
    struct vkm_task *tasks;                    /* [n_seq] */
    uint64_t turns;
    struct vkm_pass pass;                      /* the one that is being recorded */
    struct vkm_row *rows;                      /* [n_seq] of it; copy, prompt: rows[0] */
    bool prompt_was_last;
    uint32_t in_slice;                         /* passes that generate in the slice that is being recorded */
    uint32_t *there, n_there;                  /* [n_seq] the sequences that the rows in the workspace are for, each at its next token */
    struct vkm_delivery *deliveries;           /* a ring */
    uint32_t capacity, first, n;
    struct vkm_part *parts;                    /* scratch: [n_seq], and enough for a layer's keys or values of a sequence */
    vkm_program *prompts[VKM_CHUNKS];
    vkm_program **generations;                 /* [n_seq + 1] by number of sequences */
};

#endif
