/* Shapes. */
#include "draw.h"
#include <math.h>

static void unpack(colour of, uint8_t to[4])
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(of >> (24 - 8 * i));
}

struct quad *draw(struct canvas *c, float x, float y, float width, float height, colour of)
{
    if (c->n == MOST_QUADS) c->n--;          /* a picture that is too rich loses its last quads */
    struct quad *q = &c->quads[c->n++];
    *q = (struct quad){.x = x + width / 2, .y = y + height / 2, .half_width = width / 2, .half_height = height / 2, .top = 1};
    unpack(of, q->top_colour);
    unpack(of, q->bottom_colour);
    return q;
}

void draw_shape(struct canvas *c, float x, float y, float width, float height, float radius, float top, colour of)
{
    struct quad *q = draw(c, x, y, width, height, of);
    q->radius = radius;
    q->top = top;
}

void draw_fade(struct canvas *c, float x, float y, float width, float height, colour from, colour to)
{
    unpack(to, draw(c, x, y, width, height, from)->bottom_colour);
}

void draw_disc(struct canvas *c, float x, float y, float radius, colour of)
{
    draw(c, x - radius, y - radius, 2 * radius, 2 * radius, of)->radius = radius;
}

void draw_glow(struct canvas *c, float x, float y, float radius, colour of)
{
    struct quad *q = draw(c, x - radius, y - radius, 2 * radius, 2 * radius, of);
    q->radius = q->soft = radius;
    q->glow = 1;
}

void draw_limb(struct canvas *c, float x0, float y0, float x1, float y1, float width, colour of)
{
    float dx = x1 - x0, dy = y1 - y0, length = sqrtf(dx * dx + dy * dy) + width;
    struct quad *q = draw(c, (x0 + x1 - length) / 2, (y0 + y1 - width) / 2, length, width, of);
    q->radius = width / 2;
    q->angle = atan2f(dy, dx);
}

colour mix(colour a, colour b, float share)
{
    colour to = 0;
    for (int i = 0; i < 32; i += 8) to |= (colour)((float)(a >> i & 255) * (1 - share) + (float)(b >> i & 255) * share + 0.5f) << i;
    return to;
}

colour fade(colour of, float alpha) { return (of & 0xffffff00u) | (colour)((float)(of & 255) * alpha + 0.5f); }
