/* The room, its light, and bubbles of what people say. */
#include "scene.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FLOOR = 212, ROOM_BOTTOM = 622 };     /* where the wall ends; where the overlay begins */

static float noise(uint32_t i)               /* 0 to 1, always the same */
{
    i = (i ^ 61 ^ i >> 16) * 9;
    i = (i ^ i >> 4) * 0x27d4eb2du;
    return (float)((i ^ i >> 15) & 0xffff) / 65535;
}

/* ---------------------------------------------------------------- the room */

static void draw_wall(struct canvas *c)
{
    draw_fade(c, 0, 0, CANVAS_WIDTH, FLOOR, 0x5b3d28ff, 0x8d6340ff);
    for (uint32_t i = 0; i < 90; i++)        /* stains of smoke and age */
        draw_shape(c, noise(i) * CANVAS_WIDTH - 40, noise(i + 100) * FLOOR, 30 + 60 * noise(i + 200), 5 + 5 * noise(i + 300), 5, 1, fade(i % 2 ? 0x2a180cff : 0xd8a868ff, 0.06f));
    draw_fade(c, 0, FLOOR - 46, CANVAS_WIDTH, 46, 0x4a2e1aff, 0x3a2313ff);
    for (int x = 0; x < CANVAS_WIDTH; x += 32) draw(c, (float)x, FLOOR - 44, 2, 44, 0x2a190dff);
    draw(c, 0, FLOOR - 49, CANVAS_WIDTH, 5, 0x6f4827ff);
    draw_fade(c, 0, 0, CANVAS_WIDTH, 22, 0x2c1b0fff, 0x402815ff);
    draw(c, 0, 22, CANVAS_WIDTH, 3, 0x1d110aff);
    for (int x = 0; x <= 6; x++) {           /* posts between which there is something to see */
        float at = (float)x * CANVAS_WIDTH / 6;
        if (x != 1 && x != 3 && x != 5) draw_fade(c, at - 9, 22, 18, FLOOR - 22, 0x3b2414ff, 0x4d301aff);
    }
}

static void draw_floor(struct canvas *c)
{
    draw_fade(c, 0, FLOOR, CANVAS_WIDTH, ROOM_BOTTOM - FLOOR, 0x5a3a20ff, 0x7a5230ff);
    float y = FLOOR;
    for (uint32_t row = 0; y < ROOM_BOTTOM; row++) {
        float height = 15 + 2.6f * (float)row;
        for (float x = -260 * noise(row * 7); x < CANVAS_WIDTH; ) {
            float width = 190 + 190 * noise(row * 31 + (uint32_t)(x + 400));
            draw(c, x, y, width - 2, height - 2, fade(noise(row * 13 + (uint32_t)(x + 900)) > 0.5f ? 0xffdca0ff : 0x1c0e06ff, 0.03f + 0.09f * noise((uint32_t)(x + 500) + row)));
            draw(c, x + width - 2, y, 2, height, 0x2b190daa);
            x += width;
        }
        draw(c, 0, y + height - 2, CANVAS_WIDTH, 2, 0x2b190daa);
        y += height;
    }
}

static void draw_window(struct canvas *c, float x, double time)
{
    const float y = 62, w = 124, h = 92;
    draw_shape(c, x - w / 2 - 9, y - 9, w + 18, h + 18, 8, 1, 0x3a2413ff);
    draw_fade(c, x - w / 2, y, w, h, 0x0e1a3aff, 0x31466fff);
    draw_disc(c, x + 30, y + 26, 13, 0xf4ecc8ff);
    draw_disc(c, x + 36, y + 22, 11, 0x172549ff);
    draw_shape(c, x - w / 2, y + h - 22, 70, 22, 1, 0.2f, 0x0c1526ff);
    draw_shape(c, x + 2, y + h - 30, 60, 30, 1, 0.3f, 0x101b30ff);
    for (uint32_t i = 0; i < 26; i++) {      /* rain */
        float at = fmodf((float)time * (1.3f + noise(i)) + noise(i + 40), 1);
        draw_limb(c, x - w / 2 + 5 + noise(i + 80) * (w - 12) - at * 3, y + 3 + at * (h - 14), x - w / 2 + 3 + noise(i + 80) * (w - 12) - at * 3, y + 11 + at * (h - 14), 1.2f, 0xa8c4e866);
    }
    draw(c, x - 2.5f, y, 5, h, 0x3a2413ff);
    draw(c, x - w / 2, y + h / 2 - 2, w, 5, 0x3a2413ff);
    draw_shape(c, x - w / 2 - 14, y + h + 6, w + 28, 8, 2, 1, 0x6f4827ff);
    draw_glow(c, x, y + 50, 120, 0x3a62a030);
}

static void draw_fire(struct canvas *c, float x, double time)
{
    const float y = FLOOR + 6, flicker = 0.88f + 0.07f * sinf((float)time * 9) + 0.05f * sinf((float)time * 23);
    draw_shape(c, x - 62, 22, 124, 190, 2, 0.8f, 0x6a625bff);
    draw_shape(c, x - 92, y - 122, 184, 122, 8, 1, 0x746b63ff);
    for (uint32_t i = 0; i < 26; i++) {      /* stones */
        float u = (float)(i % 7) * 27 - 92 + (i / 7 % 2 ? 9 : 0), v = y - 120 + (float)(i / 7) * 30;
        draw_shape(c, x + u + 2, v + 2, 23, 26, 6, 1, mix(0x8a8076ff, 0x544c46ff, noise(i + 5)));
    }
    draw_shape(c, x - 104, y - 130, 208, 13, 4, 1, 0x4a2e19ff);
    draw_shape(c, x - 64, y - 92, 128, 92, 26, 1, 0x140a06ff);
    draw(c, x - 64, y - 30, 128, 30, 0x140a06ff);
    draw_glow(c, x, y - 30, 84, 0xff6a1860);
    for (int i = -1; i <= 1; i += 2) draw_limb(c, x - (float)i * 36, y - 5, x + (float)i * 34, y - 15, 11, 0x4b2a14ff);
    static const struct { float x, width, height; colour of; } flames[] = {{-24, 34, 44, 0xd8401aff}, {22, 36, 50, 0xe0501aff}, {0, 46, 66, 0xf07a1eff}, {-12, 24, 40, 0xf8a52cff}, {13, 24, 38, 0xfab030ff}, {0, 20, 30, 0xffe48aff}};
    for (uint32_t i = 0; i < sizeof flames / sizeof *flames; i++) {
        float sway = sinf((float)time * (6 + (float)i) + (float)i * 2), height = flames[i].height * (0.86f + 0.16f * sinf((float)time * (8.3f + 1.7f * (float)i) + (float)i));
        struct quad *q = draw(c, x + flames[i].x - flames[i].width / 2 + sway * 2, y - 8 - height, flames[i].width, height, fade(flames[i].of, 0.93f));
        q->radius = flames[i].width * 0.16f;
        q->top = 0.08f;
        q->angle = sway * 0.07f;
    }
    for (uint32_t i = 0; i < 9; i++) {       /* sparks */
        float at = fmodf((float)time * (0.4f + 0.3f * noise(i)) + noise(i + 7), 1);
        draw_disc(c, x + (noise(i + 20) - 0.5f) * 70 + 8 * sinf(at * 9 + (float)i), y - 20 - at * 66, 1.6f * (1 - at) + 0.4f, fade(0xffc860ff, 1 - at));
    }
    draw_shape(c, x - 78, y - 4, 156, 10, 3, 1, 0x5d554eff);
    for (int i = 0; i < 3; i++) {            /* on the mantelpiece */
        draw_shape(c, x - 84 + (float)i * 24, y - 147, 12, 17, 3, 0.8f, i == 1 ? 0xc9a03cff : 0x8a9a72ff);
        draw_shape(c, x + 34 + (float)i * 22, y - 143, 8, 13, 1, 1, 0xeee2c4ff);
        draw_shape(c, x + 35.5f + (float)i * 22, y - 153, 5, 9, 2, 0.2f, 0xffd060ff);
        draw_glow(c, x + 38 + (float)i * 22, y - 149, 26, fade(0xffb04070, flicker));
    }
    draw_glow(c, x, y - 30, 300 * flicker, 0xff7a2048);
    draw_glow(c, x, y + 40, 520 * flicker, 0xff8a3026);
}

static void draw_shelves(struct canvas *c, float x)
{
    static const colour bottles[] = {0x3e7a58ff, 0xa0522dff, 0x7a3344ff, 0xc9a03cff, 0x4a6a8cff, 0x8a8f5cff};
    for (uint32_t shelf = 0; shelf < 2; shelf++) {
        float y = 104 + (float)shelf * 52;
        for (uint32_t i = 0; i < 8; i++) {
            float at = x - 66 + (float)i * 17, height = 18 + 14 * noise(i + shelf * 10 + 3), width = 9 + 3 * noise(i + 50 + shelf);
            colour of = bottles[(i * 5 + shelf * 3) % 6];
            draw_shape(c, at + width * 0.3f, y - height - 7, width * 0.4f, 9, 1, 1, mix(of, 0x000000ff, 0.2f));
            draw_shape(c, at, y - height, width, height, 3, 1, of);
            draw_shape(c, at + 2, y - height + 3, 2, height - 7, 1, 1, 0xffffff44);
        }
        draw_shape(c, x - 74, y, 148, 7, 2, 1, 0x6f4827ff);
        draw(c, x - 74, y + 7, 148, 4, 0x1d110a66);
    }
}

static void draw_barrel(struct canvas *c, float x, float y, float k)
{
    draw_shape(c, x - 36 * k, y - 8 * k, 72 * k, 14 * k, 7 * k, 1, 0x00000066);
    draw_shape(c, x - 32 * k, y - 76 * k, 64 * k, 76 * k, 14 * k, 1, 0x6e4522ff);
    for (int i = -2; i <= 2; i++) draw(c, x + (float)i * 12 * k, y - 74 * k, 2 * k, 72 * k, 0x4a2c14ff);
    draw_shape(c, x - 33 * k, y - 62 * k, 66 * k, 6 * k, 2 * k, 1, 0x3c3a38ff);
    draw_shape(c, x - 33 * k, y - 20 * k, 66 * k, 6 * k, 2 * k, 1, 0x3c3a38ff);
    draw_disc(c, x, y - 38 * k, 5 * k, 0x2e1c0eff);
}

static void draw_lantern(struct canvas *c, float x, double time)
{
    float swing = sinf((float)time * 0.9f + x) * 3, y = 46;
    draw_limb(c, x, 24, x + swing, y, 1.6f, 0x1d110aff);
    draw_shape(c, x + swing - 8, y, 16, 22, 4, 0.8f, 0x2e2218ff);
    draw_shape(c, x + swing - 5, y + 4, 10, 14, 3, 1, 0xffd27aff);
    draw_glow(c, x + swing, y + 12, 90, 0xffa84858);
}

static void draw_sign(struct canvas *c)
{
    static const char text[] = "The Gilded Goose";
    const struct style style = {.size = 15, .bold = 1.1f, .of = 0xf2cf74ff};
    float width = text_width(text, sizeof text - 1, style);
    for (int side = -1; side <= 1; side += 2) draw_limb(c, 640 + (float)side * 90, 0, 640 + (float)side * 90, 10, 2, 0x1d110aff);
    draw_shape(c, 640 - width / 2 - 26, 5, width + 52, 36, 7, 1, 0x2a180cff);
    draw_shape(c, 640 - width / 2 - 23, 8, width + 46, 30, 5, 1, 0x5c3a1eff);
    text_draw(c, 640 - width / 2, 15, text, sizeof text - 1, style);
}

static void draw_rug(struct canvas *c, float x, float y)
{
    static const struct { float width, height; colour of; } rings[] = {{420, 84, 0x5a1f1cff}, {404, 74, 0xb98a3aff}, {394, 67, 0x7c2a26ff}, {300, 46, 0xa8783aff}, {292, 41, 0x4c2a30ff}, {170, 22, 0x8c3a30ff}};
    for (uint32_t i = 0; i < sizeof rings / sizeof *rings; i++)
        draw_shape(c, x - rings[i].width / 2, y - rings[i].height / 2, rings[i].width, rings[i].height, rings[i].height / 2, 1, rings[i].of);
    for (int i = -5; i <= 5; i++) draw_disc(c, x + (float)i * 32, y + (i % 2 ? 24.f : -24.f), 3, 0xd8b060ff);
}

/* The house's namesake, on her way across the rug. */
static void draw_goose(struct canvas *c, float y, double time)
{
    float at = fmodf((float)time * 14, 340), way = at < 170 ? 1.f : -1.f, x = 640 + (at < 170 ? at - 85 : 255 - at), step = sinf((float)time * 7);
    draw_shape(c, x - 24, y - 3, 48, 8, 4, 1, 0x00000055);
    for (int i = -1; i <= 1; i += 2) draw_limb(c, x + (float)i * 5, y - 10, x + (float)i * (5 + 3 * step), y, 3, 0xe08a28ff);
    draw_limb(c, x + way * 13, y - 20, x + way * 20, y - 42 + step, 9, 0xf7f3e6ff);
    draw_limb(c, x - way * 20, y - 24, x - way * 27, y - 29, 8, 0xe6dfcaff);
    draw_shape(c, x - 23, y - 31, 44, 24, 12, 1, 0xf7f3e6ff);
    draw_shape(c, x - 14 - way * 3, y - 26, 26, 13, 6.5f, 1, 0xe2d8bcff);
    draw_limb(c, x + way * 24, y - 43 + step, x + way * 30, y - 41 + step, 5, 0xf0a030ff);
    draw_disc(c, x + way * 20, y - 44 + step, 7, 0xf7f3e6ff);
    draw_disc(c, x + way * 22, y - 46 + step, 1.5f, 0x201810ff);
    draw_shape(c, x + way * 17 - 6, y - 37 + step, 12, 4, 2, 1, 0xe8bc40ff);
}

static void draw_table(struct canvas *c, float x, float width, float y, double time)
{
    draw_shape(c, x - width / 2 - 6, y + 66, width + 12, 22, 11, 1, 0x00000055);
    for (int side = -1; side <= 1; side += 2) draw_shape(c, x + (float)side * (width / 2 - 26) - 10, y + 10, 20, 70, 3, 0.8f, 0x3d2413ff);
    draw_shape(c, x - width / 2, y - 10, width, 24, 7, 0.97f, 0x8a5a30ff);
    draw_shape(c, x - width / 2, y + 9, width, 9, 3, 1, 0x5c3a1eff);
    draw_shape(c, x - width / 2 + 12, y - 5, width - 40, 2, 1, 1, 0xffe0a033);
    draw_shape(c, x + width / 2 - 66, y - 21, 15, 19, 2, 1, 0x8a5c32ff);         /* a mug, a bowl, a candle */
    draw_shape(c, x + width / 2 - 67, y - 24, 17, 6, 3, 1, 0xfdf3d8ff);
    draw_shape(c, x - width / 2 + 26, y - 13, 32, 12, 6, 0.99f, 0xc8b48cff);
    draw_shape(c, x - 4, y - 26, 8, 24, 1, 1, 0xeee2c4ff);
    draw_shape(c, x - 2.5f, y - 37, 5, 11, 2, 0.2f, 0xffd060ff);
    draw_glow(c, x, y - 32, 70 + 5 * sinf((float)time * 11 + x), 0xffa84870);
}

/* ---------------------------------------------------------------- bubbles */

enum { MOST_LINES = 10 };
struct line { const char *text; size_t n; };

/* The last lines that there is room for. */
static uint32_t wrap_last(const char *text, float width, struct style s, struct line *lines, uint32_t most)
{
    uint32_t n = 0;
    for (const char *at = text; at && *at; ) {
        if (n == most) memmove(lines, lines + 1, --n * sizeof *lines);
        struct line *l = &lines[n++];
        l->text = at;
        at = text_wrap(at, width, s, &l->n);
    }
    return n;
}

/* A bubble whose lowest point is above somebody's head. */
static void draw_bubble(struct canvas *c, const struct person *p, const struct speech *s, float x, float bottom, float width, float room, double time)
{
    const struct style name = {.size = 9, .bold = 0.9f, .of = mix(p->clothes, 0x000000ff, 0.35f)}, asked = {.size = 7.5f, .of = 0x80603eff}, said = {.size = 9, .bold = 0.15f, .of = 0x2c1c10ff};
    const float inner = width - 20;
    struct line questions[2], answers[MOST_LINES];
    char title[64], question[160];
    uint32_t n_questions = 0, n_answers;
    snprintf(title, sizeof title, "%s the %s", p->name, p->trade);
    snprintf(question, sizeof question, "\"%s\"", s->question);
    if (*s->question) n_questions = wrap_last(question, inner, asked, questions, 2);
    float head = LINE(name.size) + (float)n_questions * LINE(asked.size) + 13;
    uint32_t most = (uint32_t)((room - head) / LINE(said.size));
    n_answers = wrap_last(s->answer, inner, said, answers, most < MOST_LINES ? most : MOST_LINES);
    bool is_thinking = !n_answers && s->is_speaking;
    float height = head + (float)(n_answers + is_thinking) * LINE(said.size), left = x - width / 2, y = bottom - 11 - height;
    if (left < 5) left = 5;
    if (left + width > CANVAS_WIDTH - 5) left = CANVAS_WIDTH - 5 - width;

    const colour rim = s->is_speaking ? 0xe0a030ff : 0x5c3a1eff, paper = 0xfbf3dcf4;
    struct quad *tail = draw(c, x - 9, bottom - 13, 18, 15, rim);
    tail->top = 0, tail->angle = 3.14159265f;
    draw_shape(c, left - 2, y - 2, width + 4, height + 4, 12, 1, rim);
    draw_shape(c, left, y, width, height, 10, 1, paper);
    tail = draw(c, x - 6, bottom - 13, 12, 10, paper | 0xff);
    tail->top = 0, tail->angle = 3.14159265f;
    float at = y + 8;
    text_draw(c, left + 10, at, title, strlen(title), name);
    at += LINE(name.size);
    for (uint32_t i = 0; i < n_questions; i++, at += LINE(asked.size)) text_draw(c, left + 10, at, questions[i].text, questions[i].n, asked);
    float end = left + 10;
    for (uint32_t i = 0; i < n_answers; i++, at += LINE(said.size)) end = text_draw(c, left + 10, at, answers[i].text, answers[i].n, said);
    if (is_thinking)
        for (int i = 0; i < 3; i++) draw_disc(c, left + 15 + (float)i * 9, at + 4, 2.2f + 0.8f * sinf((float)time * 6 - (float)i), 0xb08a58ff);
    else if (s->is_speaking && fmodf((float)time, 0.6f) < 0.3f) draw(c, end + 1, at - LINE(said.size) - 1, 2, 11, 0xc07a20ff);
}

/* ---------------------------------------------------------------- all of it */

/* Where the i-th of n is: the first half in the back, the others at the tables in front. */
static float place(uint32_t i, uint32_t n, float *width)
{
    uint32_t back = (n + 1) / 2, in_row = i < back ? back : n - back;
    *width = (float)CANVAS_WIDTH / (float)in_row;
    return ((float)(i < back ? i : i - back) + 0.5f) * *width;
}

void scene_draw(struct canvas *c, double time, uint32_t n, const struct speech *speeches)
{
    const float apart = CANVAS_WIDTH / 6.f;
    uint32_t back = (n + 1) / 2;
    float width;
    draw_wall(c);
    draw_window(c, apart, time);
    draw_shelves(c, 2 * apart);
    draw_shelves(c, 4 * apart);
    draw_window(c, 5 * apart, time);
    draw_floor(c);
    draw_rug(c, 640, 300);
    draw_fire(c, 3 * apart, time);
    draw_goose(c, 304, time);
    draw_barrel(c, 8, 252, 0.95f);
    draw_barrel(c, CANVAS_WIDTH - 10, 252, 0.95f);
    draw_barrel(c, CANVAS_WIDTH - 62, 236, 0.75f);
    for (int i = 2; i <= 4; i += 2) draw_lantern(c, (float)i * apart, time);
    draw_sign(c);
    for (uint32_t i = 0; i < back; i++) {
        float x = place(i, n, &width);
        person_draw(c, &people[i], x, 272 + 5 * (float)(i % 2), 0.95f, time, speeches[i].is_speaking);
    }
    for (uint32_t i = back; i < n; i++) {
        float x = place(i, n, &width);
        person_draw(c, &people[i], x, 562, 1.1f, time, speeches[i].is_speaking);
    }
    for (int i = 0; i < 3; i++) draw_table(c, ((float)i + 0.5f) * CANVAS_WIDTH / 3, CANVAS_WIDTH / 3 - 26, 528, time);
    draw_fade(c, 0, ROOM_BOTTOM - 90, CANVAS_WIDTH, 90, 0x00000000, 0x00000088);
    for (uint32_t i = 0; i < n; i++) {
        float x = place(i, n, &width), bubble = width - 12 < 236 ? width - 12 : 236;
        if (!*speeches[i].question && !*speeches[i].answer && !speeches[i].is_speaking) continue;
        draw_bubble(c, &people[i], &speeches[i], x, i < back ? 150 + 5 * (float)(i % 2) : 418, bubble, i < back ? 112 : 122, time);
    }
}
