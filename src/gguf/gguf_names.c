/* A hash table from names to indices: keys and tensors of GGUF files. */
#include "gguf/gguf_parse.h"
#include "host/platform.h"

#include <stdlib.h>
#include <string.h>

static uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }

static void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = rotl(v[1], 13) ^ v[0]; v[0] = rotl(v[0], 32);
    v[2] += v[3]; v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3]; v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1]; v[1] = rotl(v[1], 17) ^ v[2]; v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein 2012) with a key of the moment: a file cannot be made so that all its names collide. */
static uint64_t hash(const uint64_t seed[2], struct vkm_str name)
{
    uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du, seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u};
    const uint8_t *at = (const uint8_t *)name.at;
    for (size_t i = 0; i <= name.n / 8; i++) {   /* the last word holds the odd bytes and the length */
        uint64_t word = i < name.n / 8 ? vkm_gguf_load(at + 8 * i, 8) : vkm_gguf_load(at + 8 * i, name.n % 8) | (uint64_t)name.n << 56;
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

bool vkm_names_init(struct vkm_names *t, uint64_t capacity)
{
    uint64_t n = 8;
    while (n < 2 * capacity) n *= 2;
    t->slots = calloc(n, sizeof t->slots[0]);
    t->mask = n - 1;
    t->seed[0] = vkm_now_ns();
    t->seed[1] = (uintptr_t)t->slots;
    return t->slots != NULL;
}

void vkm_names_free(struct vkm_names *t)
{
    free(t->slots);
    t->slots = NULL;
}

static bool same(struct vkm_str a, struct vkm_str b) { return a.n == b.n && memcmp(a.at, b.at, a.n) == 0; }

static struct vkm_name_slot *slot_of(const struct vkm_names *t, struct vkm_str name)
{
    uint64_t i = hash(t->seed, name) & t->mask;
    while (t->slots[i].name.at && !same(t->slots[i].name, name)) i = (i + 1) & t->mask;
    return &t->slots[i];
}

bool vkm_names_add(struct vkm_names *t, struct vkm_str name, uint32_t index)
{
    struct vkm_name_slot *slot = slot_of(t, name);
    if (slot->name.at) return false;
    *slot = (struct vkm_name_slot){name, index};
    return true;
}

int64_t vkm_names_find(const struct vkm_names *t, struct vkm_str name)
{
    const struct vkm_name_slot *slot = slot_of(t, name);
    return slot->name.at ? (int64_t)slot->index : VKM_NO_NAME;
}
