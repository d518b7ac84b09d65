/* The font, drawn for this example: every letter is a few pen strokes. Their distances are kept in an atlas, so that text has clean edges at any size and weight. */
#include "draw.h"
#include <math.h>
#include <string.h>

/* A stroke is M (pen down at), L (line to) or Q (curve to, by a control point) with points of two digits in base 36: x from the letter's left edge, y from 4 below the baseline up.
 * So the baseline is 4, small letters end at e (14), capitals at i (18), and tails at 0. */
static const struct letter { uint8_t width; const char *strokes; } letters[] = {      /* from ' ' to '~' */
    {3, ""},
    {0, "M0iL09 M04L04"},                                            /* ! */
    {3, "M0iL0e M3iL3e"},                                            /* " */
    {8, "M24L3i M54L6i M0eL8e M08L88"},                              /* # */
    {8, "M8fQ8i4iQ0i0eQ0b4bQ8b87Q8444Q0407 M4kL42"},                 /* $ */
    {8, "M04L8i M2iQ0i0gQ0e2eQ4e4gQ4i2i M68Q4846Q4464Q8486Q8868"},   /* % */
    {9, "M94L2eQ1i4iQ7i6eQ5c2aQ0806Q0434Q7489"},                     /* & */
    {0, "M0iL0e"},                                                   /* ' */
    {3, "M3jQ0f0bQ0733"},                                            /* ( */
    {3, "M0jQ3f3bQ3703"},                                            /* ) */
    {6, "M3iL3c M0hL6d M6hL0d"},                                     /* * */
    {8, "M0aL8a M46L4e"},                                            /* + */
    {1, "M14L01"},                                                   /* , */
    {4, "M09L49"},                                                   /* - */
    {0, "M04L04"},                                                   /* . */
    {6, "M03L6j"},                                                   /* / */
    {7, "M4iL3iQ0i0dL09Q0434L44Q7479L7dQ7i4i"},                      /* 0 */
    {3, "M0eL3iL34"},
    {7, "M0eQ0i3iL4iQ7i7eQ7c5aL04L74"},
    {7, "M0fQ0i3iL4iQ7i7eQ7b4bL3b M4bQ7b78Q7444L34Q0407"},
    {8, "M64L6iL08L88"},
    {7, "M7iL1iL0bQ1d4dQ7d79L78Q7444L34Q0407"},
    {7, "M6iQ0g09L08Q0434L44Q7478L79Q7c4cL3cQ0c09"},
    {7, "M0iL7iL34"},
    {7, "M4iL3iQ0i0eQ0b3bL4bQ7b7eQ7i4i M3bQ0b07Q0434L44Q7477Q7b4b"},
    {7, "M14Q767dL7eQ7i4iL3iQ0i0eL0dQ0a3aL4aQ7a7d"},                 /* 9 */
    {0, "M04L04 M0cL0c"},                                            /* : */
    {1, "M14L01 M1cL1c"},                                            /* ; */
    {7, "M7fL0aL75"},                                                /* < */
    {8, "M0cL8c M08L88"},                                            /* = */
    {7, "M0fL7aL05"},                                                /* > */
    {7, "M0eQ0i3iL4iQ7i7eQ7b3aL38 M34L34"},                          /* ? */
    {10, "M78L7d M7bQ7d5dQ3d3aQ3757Q777a M78Q7797Qa7aaQai5iQ0i0bQ0454L74"},   /* @ */
    {8, "M04L4iL84 M18L78"},                                         /* A */
    {8, "M04L0iL4iQ7i7eQ7b4bL0b M4bQ8b87Q8444L04"},
    {8, "M8fQ8i4iQ0i0dL09Q0444Q8487"},
    {8, "M04L0iL3iQ8i8dL89Q8434L04"},
    {7, "M74L04L0iL7i M0bL6b"},
    {7, "M04L0iL7i M0bL6b"},
    {8, "M8fQ8i4iQ0i0dL09Q0444Q8489L8bL5b"},
    {8, "M04L0i M84L8i M0bL8b"},
    {0, "M04L0i"},
    {6, "M6iL69Q6434Q0408"},
    {8, "M04L0i M7iL0a M3dL84"},
    {7, "M0iL04L74"},
    {10, "M04L0iL5aLaiLa4"},
    {8, "M04L0iL84L8i"},
    {8, "M4iQ0i0dL09Q0444Q8489L8dQ8i4i"},
    {8, "M04L0iL4iQ8i8eQ8a4aL0a"},
    {8, "M4iQ0i0dL09Q0444Q8489L8dQ8i4i M57L83"},
    {8, "M04L0iL4iQ8i8eQ8a4aL0a M4aL84"},
    {8, "M8fQ8i4iQ0i0eQ0b4bQ8b87Q8444Q0407"},
    {8, "M0iL8i M4iL44"},
    {8, "M0iL09Q0444Q8489L8i"},
    {8, "M0iL44L8i"},
    {12, "M0iL34L6eL94Lci"},
    {8, "M04L8i M0iL84"},
    {8, "M0iL4bL8i M4bL44"},
    {8, "M0iL8iL04L84"},                                             /* Z */
    {3, "M3jL0jL03L33"},                                             /* [ */
    {6, "M0jL63"},
    {3, "M0jL3jL33L03"},
    {6, "M0eL3iL6e"},                                                /* ^ */
    {8, "M02L82"},
    {2, "M0iL2f"},                                                   /* ` */
    {7, "M7eL74 M7aQ7e4eL3eQ0e0aL08Q0434L44Q7478"},                  /* a */
    {7, "M0iL04 M0aQ0e3eL4eQ7e7aL78Q7444L34Q0408"},
    {6, "M6cQ6e4eL3eQ0e0aL08Q0434L44Q6466"},
    {7, "M7iL74 M7aQ7e4eL3eQ0e0aL08Q0434L44Q7478"},
    {7, "M09L79L7aQ7e4eL3eQ0e0aL08Q0434L44Q6466"},
    {5, "M5iQ2i2fL24 M0eL5e"},
    {7, "M7eL73Q7040L30Q1011 M7aQ7e4eL3eQ0e0aL08Q0434L44Q7478"},
    {7, "M0iL04 M0aQ0e3eL4eQ7e7aL74"},
    {0, "M0eL04 M0iL0i"},
    {3, "M3eL33Q3010 M3iL3i"},
    {6, "M0iL04 M6eL08 M2aL64"},
    {2, "M0iL06Q0424"},
    {10, "M0eL04 M0bQ0e2eL3eQ5e5bL54 M5bQ5e7eL8eQaeabLa4"},
    {7, "M0eL04 M0aQ0e3eL4eQ7e7aL74"},
    {7, "M4eL3eQ0e0aL08Q0434L44Q7478L7aQ7e4e"},
    {7, "M0eL00 M0aQ0e3eL4eQ7e7aL78Q7444L34Q0408"},
    {7, "M7eL70 M7aQ7e4eL3eQ0e0aL08Q0434L44Q7478"},
    {4, "M0eL04 M0aQ0e4e"},
    {6, "M6cQ6e4eL2eQ0e0bQ0929L49Q6967Q6444L24Q0406"},
    {5, "M2hL27Q2454 M0eL5e"},
    {7, "M0eL08Q0434L44Q7478 M7eL74"},
    {8, "M0eL44L8e"},
    {12, "M0eL34L6dL94Lce"},
    {7, "M0eL74 M7eL04"},
    {8, "M0eL44 M8eL31Q2010"},
    {6, "M0eL6eL04L64"},                                             /* z */
    {4, "M4jQ2j2gL2dQ2b0bQ2b29L26Q2343"},                            /* { */
    {0, "M0jL02"},
    {4, "M0jQ2j2gL2dQ2b4bQ2b29L26Q2303"},
    {8, "M09Q0c2bL69Q888b"},                                         /* ~ */
};
#define N_LETTERS (sizeof letters / sizeof *letters)
static const struct letter unknown = {8, "M04L0iL8iL84L04"};

/* A cell of the atlas: 16 by 22 units of the strokes' grid with 2 texels each, 2 units of them left of the letter and below. */
enum { TEXELS = 2, CELL_WIDTH = 16 * TEXELS, CELL_HEIGHT = 22 * TEXELS, COLUMNS = ATLAS_WIDTH / CELL_WIDTH };
#define LEFT 2.f
#define BELOW 2.f
#define PEN 0.85f                /* half the width of a stroke, in units */
#define REACH 3.f                /* from the line's middle to where the atlas is 0 */
_Static_assert((N_LETTERS / COLUMNS + 1) * CELL_HEIGHT <= ATLAS_HEIGHT, "all letters have a cell");

struct point { float x, y; };

static float to_segment(struct point p, struct point a, struct point b)
{
    float dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy, t = length > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return hypotf(a.x + t * dx - p.x, a.y + t * dy - p.y);
}

static float digit(char c) { return (float)(c <= '9' ? c - '0' : c - 'a' + 10); }

/* The strokes as line segments: n of them. */
static uint32_t flatten(const char *s, struct point (*lines)[2])
{
    struct point pen = {0, 0};
    uint32_t n = 0;
    for (char command = 0; *s; ) {
        if (*s == ' ' || *s == 'M' || *s == 'L' || *s == 'Q') { command = *s++; continue; }
        struct point p = {digit(s[0]), digit(s[1])};
        s += 2;
        if (command == 'L') { lines[n][0] = pen; lines[n++][1] = p; }
        if (command != 'Q') { pen = p; continue; }
        struct point end = {digit(s[0]), digit(s[1])}, from = pen;
        s += 2;
        for (int i = 1; i <= 6; i++) {
            float t = (float)i / 6, a = (1 - t) * (1 - t), b = 2 * t * (1 - t), c = t * t;
            struct point to = {a * from.x + b * p.x + c * end.x, a * from.y + b * p.y + c * end.y};
            lines[n][0] = pen; lines[n++][1] = to;
            pen = to;
        }
    }
    return n;
}

static void draw_cell(uint8_t *pixels, uint32_t cell, const struct letter *l)
{
    struct point lines[96][2];
    uint32_t n = flatten(l->strokes, lines);
    uint8_t *at = pixels + (size_t)(cell / COLUMNS) * CELL_HEIGHT * ATLAS_WIDTH + (size_t)(cell % COLUMNS) * CELL_WIDTH;
    for (int y = 0; y < CELL_HEIGHT; y++)
        for (int x = 0; x < CELL_WIDTH; x++) {
            struct point p = {((float)x + 0.5f) / TEXELS - LEFT, (float)(CELL_HEIGHT - y - 0.5f) / TEXELS - BELOW};
            float d = REACH;
            for (uint32_t i = 0; i < n; i++) d = fminf(d, to_segment(p, lines[i][0], lines[i][1]));
            at[(size_t)y * ATLAS_WIDTH + (size_t)x] = (uint8_t)(255 * (1 - d / REACH) + 0.5f);
        }
}

void text_atlas(uint8_t *pixels)
{
    memset(pixels, 0, ATLAS_WIDTH * ATLAS_HEIGHT);
    for (uint32_t i = 0; i < N_LETTERS; i++) draw_cell(pixels, i, &letters[i]);
    draw_cell(pixels, N_LETTERS, &unknown);
}

/* ---------------------------------------------------------------- setting text */

/* The next letter of UTF-8 text: its number in the table. What typographers write is set by what typewriters have. */
static uint32_t next_letter(const char **text, const char *end)
{
    static const struct { const char *utf8; char as; } alike[] = {{"\xe2\x80\x98", '\''}, {"\xe2\x80\x99", '\''}, {"\xe2\x80\x9c", '"'}, {"\xe2\x80\x9d", '"'}, {"\xe2\x80\x93", '-'}, {"\xe2\x80\x94", '-'}, {"\xc2\xa0", ' '}};
    uint8_t c = (uint8_t)*(*text)++;
    if (c < 0x80) return c == '\n' || c == '\t' ? 0 : c < ' ' || c > '~' ? N_LETTERS : (uint32_t)(c - ' ');
    const char *begin = *text - 1;
    while (*text < end && ((uint8_t)**text & 0xc0) == 0x80) (*text)++;
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++)
        if ((size_t)(*text - begin) == strlen(alike[i].utf8) && !memcmp(begin, alike[i].utf8, (size_t)(*text - begin))) return (uint32_t)(alike[i].as - ' ');
    return N_LETTERS;
}

static const struct letter *letter(uint32_t i) { return i < N_LETTERS ? &letters[i] : &unknown; }
#define UNIT(s) ((s).size / 14)              /* capitals are 14 units high */
#define BETWEEN 3.4f                         /* units from letter to letter */

float text_width(const char *text, size_t n, struct style s)
{
    float units = 0;
    for (const char *end = text + n; text < end; ) units += (float)letter(next_letter(&text, end))->width + BETWEEN + s.bold;
    return units * UNIT(s);
}

float text_draw(struct canvas *c, float x, float y, const char *text, size_t n, struct style s)
{
    float unit = UNIT(s);
    for (const char *end = text + n; text < end; ) {
        uint32_t i = next_letter(&text, end);
        if (i) {
            float u = (float)(i % COLUMNS * CELL_WIDTH), v = (float)(i / COLUMNS * CELL_HEIGHT);
            struct quad *q = draw(c, x - LEFT * unit, y - 2 * unit, (float)CELL_WIDTH / TEXELS * unit, 22 * unit, s.of);
            q->uv[0] = u / ATLAS_WIDTH, q->uv[1] = v / ATLAS_HEIGHT, q->uv[2] = (u + CELL_WIDTH) / ATLAS_WIDTH, q->uv[3] = (v + CELL_HEIGHT) / ATLAS_HEIGHT;
            q->radius = (PEN + s.bold * 0.5f) / REACH - 0.5f;
            q->soft = 1 / (REACH * unit);    /* a pixel, in what the atlas counts */
        }
        x += ((float)letter(i)->width + BETWEEN + s.bold) * unit;
    }
    return x;
}

const char *text_wrap(const char *text, float width, struct style s, size_t *n)
{
    const char *end = text + strlen(text), *at = text, *cut = NULL;
    float x = 0;
    while (at < end && *at != '\n') {
        if (*at == ' ') cut = at;
        const char *next = at;
        x += ((float)letter(next_letter(&next, end))->width + BETWEEN + s.bold) * UNIT(s);
        if (x > width && at > text && *at != ' ') {
            if (!cut) cut = at;
            break;
        }
        at = next;
        if (at == end || *at == '\n') cut = at;
    }
    if (at == text) cut = at;
    *n = (size_t)(cut - text);
    if (cut == end) return NULL;
    return *cut == ' ' || *cut == '\n' ? cut + 1 : cut;
}
