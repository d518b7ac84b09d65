/* What the people say: a model in the renderer's device, a sequence for each of them, recorded into the frames' command buffers a slice at a time. */
#ifndef ENGINE_TALK_H
#define ENGINE_TALK_H

#include "gpu.h"
#include "scene.h"
#include "stats.h"

struct talk_params {
    const char *model;
    bool monologue;              /* nobody is asked again: they talk on until their context is full. For measuring */
    double pause;                /* seconds between an answer and the next question */
};

struct talk;

/* Loads the model into g's device, and compiles all that frames will need. */
struct talk *talk_create(struct gpu *g, const struct talk_params *params);
void talk_destroy(struct talk *t);

/* Asks the first n people what they were not asked yet; the others fall silent. */
void talk_update(struct talk *t, uint32_t n_people, double time);
/* Records what fits: budget_ms 0 is no bound. */
void talk_record(struct talk *t, VkCommandBuffer commands, double budget_ms, vkm_slice *slice);
/* The frame with this slice has left the GPU: its words arrive. Nothing to do for an empty one. */
void talk_completed(struct talk *t, vkm_slice *slice);

const struct speech *talk_speeches(const struct talk *t);                     /* [MOST_PEOPLE] */
uint64_t talk_tokens(const struct talk *t);                                   /* generated so far */
const vkm_model_info *talk_model(const struct talk *t);
const vkm_device_info *talk_device(const struct talk *t);
/* How the experts' load was of late, 1 where it is even: [n_layer][n_expert]. Call once a frame. */
const float *talk_expert_load(struct talk *t);

#endif
