/* The inside of the GGUF reader, shared by gguf_parse.c (bytes -> records) and gguf.c (files, look-up). Not for others: use gguf.h. */
#ifndef VKM_GGUF_PARSE_H
#define VKM_GGUF_PARSE_H

#include "gguf/gguf.h"

/* ---- a hash table from names to indices. Names are borrowed. */
struct vkm_names {
    struct vkm_name_slot { struct vkm_str name; uint32_t index; } *slots;   /* [mask + 1]; empty where name.at is NULL */
    uint64_t mask, seed[2];
};
enum { VKM_NO_NAME = -1 };

bool vkm_names_init(struct vkm_names *t, uint64_t capacity);                        /* false: out of memory */
void vkm_names_free(struct vkm_names *t);
/* Adds a name with its index, at most `capacity` times; false, and nothing added, when the name is there already. */
bool vkm_names_add(struct vkm_names *t, struct vkm_str name, uint32_t index);
int64_t vkm_names_find(const struct vkm_names *t, struct vkm_str name);             /* index or VKM_NO_NAME */

/* ---- one file */
struct vkm_gguf_key {
    struct vkm_str name;
    enum vkm_gguf_type type;
    enum vkm_gguf_type element;  /* arrays: type of the elements */
    uint64_t count;              /* arrays: elements; strings: bytes; else 1 */
    const uint8_t *value;        /* first byte of the value: number, characters, first element */
    uint64_t *strings;           /* arrays of strings: [count] distance of each element's length field from `value`; owned */
};

struct vkm_gguf_part {
    char *file;                  /* for messages: the path, shortened at the front when long; owned */
    const uint8_t *bytes;
    uint64_t n_bytes;
    bool mapped;                 /* bytes are a mapping of ours */
    struct vkm_gguf_key *keys;
    uint64_t n_keys;
    struct vkm_names key_names;
    struct vkm_gguf_tensor *tensors;
    uint64_t n_tensors;
};

/* Reads and checks part->bytes; fills keys, key_names and tensors. On failure what was made is left for vkm_gguf_part_free. */
vkm_result vkm_gguf_parse(struct vkm_gguf_part *part, vkm_error *err);
void vkm_gguf_part_free(struct vkm_gguf_part *part);             /* all but the mapping */

const char *vkm_gguf_type_name(enum vkm_gguf_type type);         /* "u8" ... "string", "array" */
uint64_t vkm_gguf_type_bytes(enum vkm_gguf_type type);           /* of a number or bool; 0 for string and array */
uint64_t vkm_gguf_load(const uint8_t *at, uint64_t n_bytes);     /* little-endian unsigned integer of 1 to 8 bytes */

/* A string from a file made safe for a message or a terminal: quoted, control characters and bytes that are not UTF-8 as \xNN, at most
 * about 80 bytes followed by "..." when there was more. */
struct vkm_quoted { char text[128]; };
struct vkm_quoted vkm_quote(struct vkm_str s);

#endif
