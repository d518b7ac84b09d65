/* Frame times, tokens and experts. */
#include "overlay.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOP = 622, GRAPH_X = 16, GRAPH_Y = 646, GRAPH_WIDTH = 400, GRAPH_HEIGHT = 60, MIDDLE = 446, MAP_X = 880, MAP_Y = 646, MAP_WIDTH = 386, MAP_HEIGHT = 62 };
static const colour amber = 0xf0b050ff, teal = 0x45c4b0ff, pale = 0xe8dcc4ff, dim = 0xa8967cff;

void overlay_frame(struct overlay *o, double frame_ms, double draw_ms, double added_ms)
{
    uint32_t i = o->n_frames++ % HISTORY;
    o->frame_ms[i] = (float)frame_ms;
    o->draw_ms[i] = (float)(draw_ms > 0 ? draw_ms : 0);
    o->added_ms[i] = (float)(added_ms > 0 ? added_ms : 0);
}

static void say(struct canvas *c, float x, float y, float size, colour of, const char *text)
{
    text_draw(c, x, y, text, strlen(text), (struct style){.size = size, .bold = size > 8.5f ? 0.5f : 0.1f, .of = of});
}

/* A round number that nearly all of the frames are below. */
static float scale_of(const struct overlay *o, uint32_t n)
{
    static const float steps[] = {4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096};
    const uint32_t n_steps = sizeof steps / sizeof *steps;
    uint32_t above = n, i = 0;
    for (; i < n_steps; i++) {
        above = 0;
        for (uint32_t k = 0; k < n; k++) above += o->draw_ms[k] + o->added_ms[k] > steps[i] * 0.95f;
        if (above <= n / 40) break;
    }
    return steps[i < n_steps ? i : n_steps - 1];
}

static void draw_graph(struct canvas *c, const struct overlay *o)
{
    uint32_t n = o->n_frames < HISTORY ? o->n_frames : HISTORY;
    float scale = scale_of(o, n), per_ms = GRAPH_HEIGHT / scale, step = (float)GRAPH_WIDTH / HISTORY, base = 0, mean = 0;
    char text[96];
    draw_shape(c, GRAPH_X - 4, GRAPH_Y - 4, GRAPH_WIDTH + 8, GRAPH_HEIGHT + 8, 4, 1, 0x00000088);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (o->n_frames - n + i) % HISTORY;
        float x = GRAPH_X + (float)(HISTORY - n + i) * step, low = fminf(o->draw_ms[at] * per_ms, GRAPH_HEIGHT), high = fminf(o->added_ms[at] * per_ms, GRAPH_HEIGHT - low);
        draw(c, x, GRAPH_Y + GRAPH_HEIGHT - low, step - 0.4f, low, amber);
        draw(c, x, GRAPH_Y + GRAPH_HEIGHT - low - high, step - 0.4f, high, teal);
        base += o->draw_ms[at] / (float)n;
        mean += o->frame_ms[at] / (float)n;
    }
    if (o->inference == INFERENCE_BUDGET && n) {         /* where drawing and the budget would end */
        float y = GRAPH_Y + GRAPH_HEIGHT - (base + (float)o->budget_ms) * per_ms;
        for (float x = GRAPH_X; y > GRAPH_Y && x < GRAPH_X + GRAPH_WIDTH; x += 10) draw(c, x, y, 5, 1.5f, 0xffffffcc);
    }
    snprintf(text, sizeof text, "%.0f ms", (double)scale);
    say(c, GRAPH_X + 2, GRAPH_Y + 1, 6.5f, dim, text);
    snprintf(text, sizeof text, "frame %.1f ms", (double)mean);
    say(c, GRAPH_X, TOP + 6, 8.5f, pale, text);
    draw(c, GRAPH_X + 158, TOP + 7, 8, 8, amber);
    say(c, GRAPH_X + 171, TOP + 7, 7.5f, pale, "drawing");
    draw(c, GRAPH_X + 246, TOP + 7, 8, 8, teal);
    say(c, GRAPH_X + 259, TOP + 7, 7.5f, pale, "inference");
}

static void draw_numbers(struct canvas *c, const struct overlay *o)
{
    char text[160];
    snprintf(text, sizeof text, "%.0f tokens/s", o->tokens_per_second);
    say(c, MIDDLE, TOP + 12, 15, 0xfff0c0ff, text);
    if (o->inference == INFERENCE_BUDGET) snprintf(text, sizeof text, "inference within %.3g ms a frame", o->budget_ms);
    else snprintf(text, sizeof text, o->inference == INFERENCE_OFF ? "inference off" : "inference without a bound");
    say(c, MIDDLE, TOP + 37, 8.5f, teal, text);
    snprintf(text, sizeof text, "%u characters, %u speaking", o->n_people, o->n_speaking);
    say(c, MIDDLE, TOP + 53, 8.5f, pale, text);
    snprintf(text, sizeof text, "%.48s", o->device);
    say(c, MIDDLE, TOP + 69, 7.5f, dim, text);
    say(c, MIDDLE, TOP + 83, 7, dim, "[ ] budget    + - characters    space off, budget, free    esc ends");
}

/* From cold to hot: black, violet, orange, yellow. */
static colour heat(float share)
{
    static const colour steps[] = {0x0c0818ff, 0x4a1a6aff, 0xc03a50ff, 0xf59a2eff, 0xfff3b0ff};
    float at = fminf(fmaxf(share, 0), 0.999f) * 4;
    return mix(steps[(int)at], steps[(int)at + 1], at - floorf(at));
}

static void draw_map(struct canvas *c, const struct overlay *o)
{
    char text[64];
    snprintf(text, sizeof text, "load of %u experts in %u layers", o->n_expert, o->n_layer);
    say(c, MAP_X, TOP + 6, 8.5f, pale, text);
    draw_shape(c, MAP_X - 4, MAP_Y - 4, MAP_WIDTH + 8, MAP_HEIGHT + 8, 4, 1, 0x00000088);
    if (!o->load) return;
    float width = (float)MAP_WIDTH / (float)o->n_expert, height = (float)MAP_HEIGHT / (float)o->n_layer, gap = width > 6 && height > 6 ? 1.5f : 0;
    for (uint32_t l = 0; l < o->n_layer; l++)
        for (uint32_t e = 0; e < o->n_expert; e++)
            draw(c, MAP_X + (float)e * width, MAP_Y + (float)l * height, width - gap, height - gap, heat(o->load[l * o->n_expert + e] / 3));
    for (int i = 0; i < 40; i++) draw(c, MAP_X + MAP_WIDTH - 130 + (float)i * 2, TOP + 8, 2, 7, heat((float)i / 40));
    say(c, MAP_X + MAP_WIDTH - 150, TOP + 8, 6.5f, dim, "0");
    say(c, MAP_X + MAP_WIDTH - 44, TOP + 8, 6.5f, dim, "3x even");
}

void overlay_draw(struct canvas *c, const struct overlay *o)
{
    draw_fade(c, 0, TOP, CANVAS_WIDTH, CANVAS_HEIGHT - TOP, 0x1c130df2, 0x0d0907fa);
    draw(c, 0, TOP, CANVAS_WIDTH, 2, 0x8a5a30ff);
    draw_graph(c, o);
    draw_numbers(c, o);
    draw_map(c, o);
}
