/* Who they are, and how they look. */
#include "scene.h"
#include <math.h>

const struct person people[MOST_PEOPLE] = {
    {"Mira", "innkeeper", 0xb2453cff, 0xf0dcb4ff, 0x6b3a1eff, 0xe9d9b8ff, 0, BAND, MUG, .long_hair = true, .apron = true},
    {"Tobin", "bard", 0x3f8f6bff, 0xe8c04cff, 0xc98a3aff, 0x2f6b52ff, 0, FEATHER, LUTE, .beard = false},
    {"Greta", "smith", 0x6d5a50ff, 0x3a2d28ff, 0xa6522bff, 0x8b2f2fff, 1, BAND, HAMMER, .apron = true},
    {"Aldric", "guard", 0x4f6690ff, 0xb8bfcaff, 0x3b2c22ff, 0x9aa4b2ff, 0, HELMET, SPEAR, .beard = true},
    {"Bram", "fisherman", 0x3c7d9cff, 0xe3d7a8ff, 0x9b9b98ff, 0xd9b44aff, 1, BRIM, FISH, .beard = true},
    {"Sela", "healer", 0x8aa86bff, 0xf1ead2ff, 0x2e2a33ff, 0xe6efd8ff, 2, HOOD, POTION, .long_hair = true},
    {"Finn", "stable boy", 0xc9873dff, 0x7b4f28ff, 0xdcae58ff, 0x7a5a34ff, 0, CAP, BROOM, .beard = false},
    {"Hobb", "cook", 0xe7e2d6ff, 0xb24a3bff, 0x4a3226ff, 0xfaf6ecff, 1, TOQUE, LADLE, .beard = true, .apron = true},
    {"Isolde", "merchant", 0x7c4a92ff, 0xe6bf55ff, 0x1f1b22ff, 0x5a3470ff, 2, FEATHER, PURSE, .long_hair = true},
    {"Anselm", "monk", 0x7d5a3aff, 0xd9c9a0ff, 0x8c7a66ff, 0x694a2eff, 0, HOOD, BOOK, .beard = true},
    {"Wren", "scout", 0x4d6b3fff, 0x8a6a3cff, 0x5d3420ff, 0x3b5431ff, 1, HOOD, BOW, .beard = false},
    {"Marta", "miller", 0xa9b8c6ff, 0xf5f0e0ff, 0xb9863fff, 0xf5f0e0ff, 0, BAND, SACK, .long_hair = true, .apron = true},
    {"Ulric", "knight", 0x8c97a8ff, 0xb3372fff, 0x6b4a2aff, 0xa9b3c2ff, 0, HELMET, SWORD, .beard = true},
    {"Thea", "pilgrim", 0xa08a63ff, 0xe9dfc4ff, 0x7d7d82ff, 0x8a734dff, 1, BRIM, STAFF, .beard = false},
    {"Edith", "sailor", 0x2e4f7cff, 0xf2f2eeff, 0xb3542fff, 0x22395cff, 0, CAP, MUG, .long_hair = true},
    {"Ursula", "student", 0x56467eff, 0xd8c8f0ff, 0x33261fff, 0x40335fff, 2, POINTED, BOOK, .long_hair = true},
};
static const colour skins[] = {0xe9bf95ff, 0xd6a077ff, 0xa9714bff};

static void draw_hat(struct canvas *c, const struct person *p, float x, float y, float k)     /* x, y: the middle of the head */
{
    const colour of = p->hat_colour, dark = mix(of, 0x000000ff, 0.3f);
    switch (p->hat) {
    case POINTED:
        draw_shape(c, x - 14 * k, y - 42 * k, 28 * k, 34 * k, 2 * k, 0.12f, of);
        draw_shape(c, x - 24 * k, y - 13 * k, 48 * k, 7 * k, 3.5f * k, 1, dark);
        break;
    case BRIM:
        draw_shape(c, x - 13 * k, y - 25 * k, 26 * k, 17 * k, 6 * k, 0.85f, of);
        draw_shape(c, x - 26 * k, y - 12 * k, 52 * k, 6 * k, 3 * k, 1, dark);
        break;
    case CAP:
        draw_shape(c, x - 16 * k, y - 19 * k, 32 * k, 14 * k, 7 * k, 0.9f, of);
        draw_shape(c, x - 2 * k, y - 10 * k, 24 * k, 5 * k, 2.5f * k, 1, dark);
        break;
    case HELMET:
        draw_shape(c, x - 17 * k, y - 21 * k, 34 * k, 19 * k, 9 * k, 0.9f, of);
        draw_shape(c, x - 17 * k, y - 7 * k, 34 * k, 4 * k, 1 * k, 1, dark);
        draw_shape(c, x - 2 * k, y - 21 * k, 4 * k, 24 * k, 1 * k, 1, dark);
        break;
    case TOQUE:
        for (int i = -1; i <= 1; i++) draw_disc(c, x + (float)i * 9 * k, y - 25 * k, 10 * k, i ? mix(of, 0xc8b8a0ff, 0.25f) : of);
        draw_shape(c, x - 14 * k, y - 21 * k, 28 * k, 13 * k, 2 * k, 1.0f, of);
        break;
    case BAND:
        draw_shape(c, x - 16 * k, y - 12 * k, 32 * k, 6 * k, 3 * k, 1, of);
        draw_disc(c, x + 17 * k, y - 8 * k, 3.5f * k, dark);
        break;
    case FEATHER:
        draw_limb(c, x + 9 * k, y - 14 * k, x + 26 * k, y - 32 * k, 6 * k, p->trim);
        draw_shape(c, x - 16 * k, y - 22 * k, 32 * k, 14 * k, 7 * k, 0.8f, of);
        draw_shape(c, x - 20 * k, y - 12 * k, 40 * k, 5 * k, 2.5f * k, 1, dark);
        break;
    default:
        break;
    }
}

static void draw_prop(struct canvas *c, const struct person *p, float x, float y, float k)    /* x, y: the hand */
{
    const colour wood = 0x6b4526ff, iron = 0x8d949cff, gold = 0xe2b84aff;
    switch (p->prop) {
    case MUG:
        draw_shape(c, x + 5 * k, y - 10 * k, 10 * k, 12 * k, 5 * k, 1, 0x5a3a20ff);
        draw_shape(c, x - 6 * k, y - 13 * k, 15 * k, 17 * k, 2 * k, 1, 0x8a5c32ff);
        draw_shape(c, x - 7 * k, y - 16 * k, 17 * k, 6 * k, 3 * k, 1, 0xfdf3d8ff);
        break;
    case LUTE:
        draw_limb(c, x, y, x + 16 * k, y - 34 * k, 4 * k, wood);
        draw_disc(c, x - 4 * k, y + 6 * k, 13 * k, 0xb0763aff);
        draw_disc(c, x - 3 * k, y + 4 * k, 4 * k, 0x3a2412ff);
        draw_limb(c, x - 7 * k, y + 12 * k, x + 15 * k, y - 32 * k, 1 * k, 0xf0e0b0ff);
        break;
    case HAMMER:
        draw_limb(c, x, y + 8 * k, x, y - 18 * k, 4 * k, wood);
        draw_shape(c, x - 11 * k, y - 27 * k, 22 * k, 12 * k, 2 * k, 1, iron);
        break;
    case SPEAR:
        draw_limb(c, x, y + 62 * k, x, y - 58 * k, 3.5f * k, wood);
        draw_shape(c, x - 5 * k, y - 76 * k, 10 * k, 20 * k, 0.5f * k, 0.05f, iron);
        break;
    case FISH:
        draw_shape(c, x - 2 * k, y - 8 * k, 32 * k, 13 * k, 6.5f * k, 1, 0x9fb7c4ff);
        draw_limb(c, x - 2 * k, y - 1 * k, x - 9 * k, y - 7 * k, 4 * k, 0x86a0afff);
        draw_limb(c, x - 2 * k, y - 1 * k, x - 9 * k, y + 5 * k, 4 * k, 0x86a0afff);
        draw_disc(c, x + 24 * k, y - 3 * k, 1.8f * k, 0x101820ff);
        break;
    case POTION:
        draw_shape(c, x - 3 * k, y - 20 * k, 6 * k, 12 * k, 1 * k, 1, 0xc7d8d2ff);
        draw_disc(c, x, y - 4 * k, 9 * k, 0x63c08aff);
        draw_glow(c, x, y - 4 * k, 24 * k, 0x40c08060);
        break;
    case BROOM:
        draw_limb(c, x, y + 50 * k, x + 4 * k, y - 40 * k, 3.5f * k, wood);
        draw_shape(c, x - 11 * k, y + 38 * k, 20 * k, 24 * k, 2 * k, 0.4f, 0xd0a850ff);
        break;
    case LADLE:
        draw_limb(c, x, y + 6 * k, x + 6 * k, y - 26 * k, 3 * k, iron);
        draw_disc(c, x + 8 * k, y - 29 * k, 7 * k, iron);
        break;
    case PURSE:
        draw_disc(c, x, y + 6 * k, 10 * k, 0xa0622dff);
        draw_shape(c, x - 5 * k, y - 6 * k, 10 * k, 5 * k, 2 * k, 1, gold);
        draw_disc(c, x + 14 * k, y - 8 * k, 4 * k, gold);
        break;
    case BOW:
        draw_limb(c, x - 3 * k, y + 34 * k, x + 10 * k, y + 16 * k, 3.5f * k, wood);
        draw_limb(c, x + 10 * k, y + 16 * k, x + 10 * k, y - 16 * k, 3.5f * k, wood);
        draw_limb(c, x + 10 * k, y - 16 * k, x - 3 * k, y - 34 * k, 3.5f * k, wood);
        draw_limb(c, x - 3 * k, y + 34 * k, x - 3 * k, y - 34 * k, 1 * k, 0xe8e0c8ff);
        break;
    case STAFF:
        draw_limb(c, x, y + 62 * k, x, y - 46 * k, 4 * k, wood);
        draw_disc(c, x, y - 50 * k, 6 * k, wood);
        break;
    case BOOK:
        draw_shape(c, x - 9 * k, y - 14 * k, 22 * k, 18 * k, 1 * k, 1, 0x7a2f2aff);
        draw_shape(c, x - 6 * k, y - 12 * k, 17 * k, 14 * k, 1 * k, 1, 0xefe4c6ff);
        break;
    case SACK:
        draw_shape(c, x - 12 * k, y - 10 * k, 26 * k, 30 * k, 8 * k, 0.7f, 0xd8c8a2ff);
        draw_shape(c, x - 6 * k, y - 15 * k, 14 * k, 8 * k, 3 * k, 1, 0xc4b28aff);
        break;
    case SWORD:
        draw_shape(c, x - 3 * k, y - 60 * k, 6 * k, 54 * k, 1 * k, 0.5f, 0xd5dbe2ff);
        draw_shape(c, x - 11 * k, y - 8 * k, 22 * k, 5 * k, 2 * k, 1, gold);
        break;
    default:
        break;
    }
}

void person_draw(struct canvas *c, const struct person *p, float x, float y, float k, double time, bool is_speaking)
{
    const float phase = (float)(p - people) * 1.7f, t = (float)time;
    const float breath = sinf(t * 1.6f + phase) * 1.2f * k, nod = is_speaking ? sinf(t * 7 + phase) * 1.6f * k : 0;
    const colour skin = skins[p->skin], shade = mix(p->clothes, 0x000000ff, 0.28f);
    const float hx = x + nod * 0.4f, hy = y - 98 * k + breath + nod;      /* the head */
    const float bx = x + 34 * k, by = y - 54 * k + breath + (is_speaking ? sinf(t * 5 + phase) * 5 - 6 : 0) * k;   /* the hand with something in it */

    draw_shape(c, x - 36 * k, y - 7 * k, 72 * k, 14 * k, 7 * k, 1, 0x00000055);
    if (p->hat == HOOD) draw_shape(c, hx - 21 * k, hy - 22 * k, 42 * k, 46 * k, 18 * k, 0.8f, p->hat_colour);
    if (p->long_hair) draw_shape(c, hx - 18 * k, hy - 15 * k, 36 * k, 42 * k, 12 * k, 0.95f, p->hair);
    draw_shape(c, x - 16 * k, y - 30 * k, 13 * k, 30 * k, 4 * k, 1, 0x33251cff);
    draw_shape(c, x + 3 * k, y - 30 * k, 13 * k, 30 * k, 4 * k, 1, 0x33251cff);
    draw_limb(c, x - 21 * k, y - 73 * k + breath, x - 29 * k, y - 44 * k + breath, 11 * k, shade);
    draw_disc(c, x - 30 * k, y - 40 * k + breath, 5.5f * k, skin);
    struct quad *body = draw(c, x - 30 * k, y - 84 * k + breath, 60 * k, 70 * k - breath, p->clothes);
    body->radius = 9 * k;
    body->top = 0.66f;
    for (int i = 0; i < 3; i++) body->bottom_colour[i] = (uint8_t)(shade >> (24 - 8 * i));
    if (p->apron) draw_shape(c, x - 17 * k, y - 62 * k, 34 * k, 46 * k, 5 * k, 0.75f, p->trim);
    else {
        draw_shape(c, x - 27 * k, y - 42 * k, 54 * k, 6 * k, 2 * k, 1, p->trim);
        draw_shape(c, x - 9 * k, y - 84 * k + breath, 18 * k, 10 * k, 4 * k, 1, p->trim);
    }
    draw_shape(c, x - 7 * k, y - 88 * k + breath, 14 * k, 10 * k, 4 * k, 1, mix(skin, 0x000000ff, 0.15f));
    draw_disc(c, hx, hy, 17 * k, skin);
    if (p->beard) {
        draw_shape(c, hx - 15 * k, hy + 2 * k, 30 * k, 19 * k, 9 * k, 1, p->hair);
        draw_shape(c, hx - 9 * k, hy - 1 * k, 18 * k, 9 * k, 4 * k, 1, skin);
    }
    draw_shape(c, hx - 17 * k, hy - 18 * k, 34 * k, 13 * k, 6.5f * k, 0.9f, p->hat == HOOD ? p->hat_colour : p->hair);
    bool blinks = fmodf(t + phase * 2.3f, 4.1f) < 0.14f;
    for (int side = -1; side <= 1; side += 2) {
        if (blinks) draw_shape(c, hx + (float)side * 6 * k - 2.5f * k, hy - 1.5f * k, 5 * k, 1.5f * k, 0, 1, 0x2a1a12ff);
        else draw_disc(c, hx + (float)side * 6 * k, hy - 1.5f * k, 2.2f * k, 0x2a1a12ff);
    }
    draw_disc(c, hx, hy + 3 * k, 2.6f * k, mix(skin, 0xc04a30ff, 0.3f));
    float mouth = is_speaking ? 1.8f + 2.4f * fabsf(sinf(t * 11 + phase)) : 1.3f;
    draw_shape(c, hx - 4.5f * k, hy + 8.5f * k - mouth * 0.5f * k, 9 * k, mouth * k + 1, fminf(mouth, 3) * 0.5f * k, 1, 0x6e2a22ff);
    draw_hat(c, p, hx, hy, k);
    draw_limb(c, x + 21 * k, y - 73 * k + breath, bx, by, 11 * k, mix(p->clothes, 0x000000ff, 0.12f));
    draw_prop(c, p, bx, by, k);
    draw_disc(c, bx, by, 6 * k, skin);
}
