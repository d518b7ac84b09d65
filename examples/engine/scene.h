/* The tavern and who is in it. */
#ifndef ENGINE_SCENE_H
#define ENGINE_SCENE_H

#include "draw.h"

#define MOST_PEOPLE 16

enum hat { NO_HAT, POINTED, BRIM, CAP, HOOD, HELMET, TOQUE, BAND, FEATHER };
enum prop { NO_PROP, MUG, LUTE, HAMMER, SPEAR, FISH, POTION, BROOM, LADLE, PURSE, BOW, STAFF, BOOK, SACK, SWORD };

/* People of the model's world (examples/model): the twelve regulars of the Gilded Goose, and four guests. */
struct person {
    const char *name, *trade;
    colour clothes, trim, hair, hat_colour;
    uint8_t skin, hat, prop;
    bool beard, long_hair, apron;
};
extern const struct person people[MOST_PEOPLE];

/* What somebody says. */
struct speech {
    const char *question, *answer;           /* "": nothing was said yet */
    bool is_speaking;                        /* words are still coming */
};

void scene_draw(struct canvas *c, double time, uint32_t n_people, const struct speech *speeches);
/* people.c: somebody whose feet are at x, y */
void person_draw(struct canvas *c, const struct person *p, float x, float y, float scale, double time, bool is_speaking);

#endif
