/* GGUF files: read, checked, memory-mapped. Format: moe-models facts, llama.cpp's ggml/include/gguf.h. Versions 2 and 3, little-endian, split files.
 * Everything read from the file is hostile until checked here: after vkm_gguf_open every name, array and tensor range lies inside its mapping.
 * A vkm_gguf never changes after it is opened: any number of threads may read it. */
#ifndef VKM_GGUF_H
#define VKM_GGUF_H

#include "host/base.h"

typedef struct vkm_gguf vkm_gguf;

enum vkm_gguf_type { VKM_GGUF_U8, VKM_GGUF_I8, VKM_GGUF_U16, VKM_GGUF_I16, VKM_GGUF_U32, VKM_GGUF_I32, VKM_GGUF_F32, VKM_GGUF_BOOL,
                     VKM_GGUF_STRING, VKM_GGUF_ARRAY, VKM_GGUF_U64, VKM_GGUF_I64, VKM_GGUF_F64, VKM_GGUF_TYPE_COUNT };

struct vkm_str { const char *at; size_t n; };                    /* borrowed from the mapping; not NUL-terminated */

/* `path` is the only file or the first part of a split model ("...-00001-of-00003.gguf"); siblings are opened too. */
vkm_result vkm_gguf_open(const char *path, vkm_gguf **gguf, vkm_error *err);
/* The same over bytes in memory, one part, borrowed until close: tests and fuzzing. `name` is used in messages. */
vkm_result vkm_gguf_open_memory(const void *bytes, size_t n, const char *name, vkm_gguf **gguf, vkm_error *err);
void vkm_gguf_close(vkm_gguf *gguf);
uint64_t vkm_gguf_file_bytes(const vkm_gguf *gguf);              /* of all parts */

/* ---- keys. A typed getter fails with VKM_ERR_FORMAT naming file and key when the key is absent or has another type or is out of range. */
bool vkm_gguf_has(const vkm_gguf *g, const char *key);
/* Any integer type and bool, range-checked into [min, max]. */
vkm_result vkm_gguf_int(const vkm_gguf *g, const char *key, int64_t min, int64_t max, int64_t *value, vkm_error *err);
vkm_result vkm_gguf_float(const vkm_gguf *g, const char *key, double *value, vkm_error *err);   /* f32, f64; must be finite */
vkm_result vkm_gguf_bool(const vkm_gguf *g, const char *key, bool *value, vkm_error *err);
vkm_result vkm_gguf_str(const vkm_gguf *g, const char *key, struct vkm_str *value, vkm_error *err);
/* Arrays: strings / f32 / integers of any width (converted one by one). */
vkm_result vkm_gguf_array(const vkm_gguf *g, const char *key, enum vkm_gguf_type *element, uint64_t *count, vkm_error *err);
vkm_result vkm_gguf_array_str(const vkm_gguf *g, const char *key, uint64_t i, struct vkm_str *value, vkm_error *err);  /* O(1): indexed at open */
vkm_result vkm_gguf_array_int(const vkm_gguf *g, const char *key, uint64_t i, int64_t *value, vkm_error *err);
vkm_result vkm_gguf_array_float(const vkm_gguf *g, const char *key, uint64_t i, double *value, vkm_error *err);
/* Keys in file order, for `info`. */
uint64_t vkm_gguf_key_count(const vkm_gguf *g);
struct vkm_str vkm_gguf_key_name(const vkm_gguf *g, uint64_t i);
void vkm_gguf_key_print(const vkm_gguf *g, uint64_t i, vkm_text *out);   /* value for people; arrays abbreviated */

/* ---- tensors, of all parts */
struct vkm_gguf_tensor {
    struct vkm_str name;
    uint32_t type;               /* ggml type id */
    uint32_t n_dims;
    uint64_t ne[4];              /* ne[0] contiguous; 1 beyond n_dims */
    const void *data;            /* in the mapping; aligned to the file's alignment (32 unless told), counted from the start of the file */
    uint64_t bytes;
};
uint64_t vkm_gguf_tensor_count(const vkm_gguf *g);
const struct vkm_gguf_tensor *vkm_gguf_tensor_at(const vkm_gguf *g, uint64_t i);
const struct vkm_gguf_tensor *vkm_gguf_tensor_find(const vkm_gguf *g, const char *name);   /* NULL if absent; O(1) */

/* ---- paging, for who reads tensors once and in order. `at` [bytes] lies inside a tensor's data. Nothing happens for bytes in memory, or where the system cannot.
 * Any thread. */
/* Starts to read the bytes from the disk; does not wait. */
void vkm_gguf_prefetch(const vkm_gguf *g, const void *at, uint64_t bytes);
/* Reads them and maps their pages at once. VKM_ERR_IO when the disk fails or the file has become shorter: a fault on touching them would kill the process. */
vkm_result vkm_gguf_fetch(const vkm_gguf *g, const void *at, uint64_t bytes, vkm_error *err);
/* They are not needed again soon: gives the pages back, but for a last one that has more behind them. */
void vkm_gguf_release(const vkm_gguf *g, const void *at, uint64_t bytes);

/* ggml types: name, elements and bytes of a block. NULL for removed or unknown ids. Known does not mean that vkmoe can compute with it. */
struct vkm_ggml_type { uint32_t id; const char *name; uint32_t block_elems, block_bytes; };
const struct vkm_ggml_type *vkm_ggml_type_find(uint32_t id);

#endif
