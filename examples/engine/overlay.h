/* The strip of figures below the tavern. */
#ifndef ENGINE_OVERLAY_H
#define ENGINE_OVERLAY_H

#include "draw.h"
#include "stats.h"

#define HISTORY 200

struct overlay {
    float draw_ms[HISTORY], added_ms[HISTORY], frame_ms[HISTORY];    /* rings */
    uint32_t n_frames;
    enum inference inference;
    double budget_ms, tokens_per_second;
    uint32_t n_people, n_speaking;
    const char *device;
    /* load of the experts: each one's share of its layer's tokens, 1 where it is even */
    uint32_t n_layer, n_expert;
    const float *load;                       /* [n_layer][n_expert] */
};

void overlay_frame(struct overlay *o, double frame_ms, double draw_ms, double added_ms);
void overlay_draw(struct canvas *c, const struct overlay *o);

#endif
