/* vkmoe info: devices, what is in a model file, kernels. */
#include "cli.h"
#include "model/arch.h"
#include "nn/tune.h"
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- devices */

enum tuned { UNKNOWN, NOT_TUNED, TUNED };
struct devices { vkm_device_info *list; enum tuned *tuned; uint32_t n; vkm_error err; };

static int find_devices(struct devices *d)
{
    if (vkm_devices(NULL, &d->n, &d->err) != VKM_OK) { d->n = 0; return STATUS_OK; }   /* no loader: said where devices would stand */
    uint32_t room = d->n;
    d->list = calloc(room + 1, sizeof *d->list);
    d->tuned = calloc(room + 1, sizeof *d->tuned);
    if (!d->list || !d->tuned) return fail("out of memory");
    if (room && vkm_devices(d->list, &d->n, &d->err) != VKM_OK) d->n = 0;
    if (d->n > room) d->n = room;
    return STATUS_OK;
}

/* Whether `vkmoe tune` has measured the device, with its kernels for these caps. */
static enum tuned is_tuned(const vkm_device *device)
{
    char folder[4096];
    const char *why;
    struct vkm_shape shape;
    struct vkm_tuning tuning;
    if (!cache_folder(folder, sizeof folder)) return UNKNOWN;
    vkm_shape_choose(vkm_device_caps(device), &shape);
    const struct vkm_tuning_key key = vkm_tuning_key_of(vkm_device_caps(device), &shape);
    return vkm_tuning_load(folder, &key, &tuning, &why) ? TUNED : NOT_TUNED;
}

/* What a listing does not tell: each device is opened for it. */
static void look_for_tunings(struct devices *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        char select[16];
        vkm_device *device = NULL;
        snprintf(select, sizeof select, "%u", d->list[i].index);
        vkm_device_params params = {.struct_size = sizeof params, .select = select, .caps = DEFAULT_CAPS};
        if (!d->list[i].usable || vkm_device_create(&params, &device, NULL) != VKM_OK) continue;
        d->tuned[i] = is_tuned(device);
        vkm_device_destroy(device);
    }
}

static void json_device(struct json *j, const vkm_device_info *d, enum tuned tuned)
{
    char api[48];
    snprintf(api, sizeof api, "%u.%u.%u", d->api_major, d->api_minor, d->api_patch);
    json_open(j, NULL, '{', false);
    json_uint(j, "index", d->index);
    json_str(j, "name", d->name);
    json_str(j, "type", d->type);
    json_str(j, "driver", d->driver);
    json_str(j, "api", api);
    json_uint(j, "vendor_id", d->vendor_id);
    json_uint(j, "device_id", d->device_id);
    json_uint(j, "memory_bytes", d->memory_bytes);
    json_bool(j, "usable", d->usable);
    if (!d->usable) json_str(j, "unusable_why", d->unusable_why);
    json_str(j, "caps", d->caps);
    if (tuned != UNKNOWN) json_bool(j, "tuned", tuned == TUNED);
    json_close(j);
}

static void print_device(const vkm_device_info *d, enum tuned tuned)
{
    printf("%3u  %s (%s)\n     ", d->index, d->name, d->type);
    printf("%s, Vulkan %u.%u.%u, %04x:%04x, ", d->driver, d->api_major, d->api_minor, d->api_patch, d->vendor_id, d->device_id);
    print_bytes(stdout, d->memory_bytes);
    printf("\n     %s%s\n", d->usable ? "" : "not usable: ", d->usable ? d->caps : d->unusable_why);
    if (tuned != UNKNOWN) printf("     %s\n", tuned == TUNED ? "tuned" : "not tuned: `vkmoe tune` measures which kernels are the fastest");
}

static void show_devices(const struct devices *d, struct json *j)
{
    if (j) {
        json_open(j, "devices", '[', false);
        for (uint32_t i = 0; i < d->n; i++) json_device(j, &d->list[i], d->tuned[i]);
        json_close(j);
        if (d->err.code) json_str(j, "devices_error", d->err.message);
        return;
    }
    printf("Devices\n");
    for (uint32_t i = 0; i < d->n; i++) print_device(&d->list[i], d->tuned[i]);
    if (d->err.code) printf("     none: %s\n", d->err.message);
    else if (d->n == 0) printf("     none: the Vulkan loader found no driver (Debian: apt install mesa-vulkan-drivers)\n");
}

/* ---------------------------------------------------------------- kernels */

/* One row of vkm_kernels_print: four words, and the rest of the line; "-" is nothing. */
static void json_kernel(struct json *j, const char *row, size_t n)
{
    static const char *const names[] = {"name", "variant", "tier", "requires"};
    const char *end = row + n;
    json_open(j, NULL, '{', true);
    for (int i = 0; i < 4; i++) {
        size_t word = strcspn(row, " \n");
        json_str_n(j, names[i], row, word == 1 && *row == '-' ? 0 : word);
        row += word + strspn(row + word, " ");
    }
    bool available = end - row == 1 && *row == '-';
    json_bool(j, "available", available);
    if (!available) json_str_n(j, "why", row, (size_t)(end - row));
    json_close(j);
}

static int show_kernels(const vkm_device *device, struct json *j)
{
    size_t size = vkm_kernels_print(device, NULL, 0) + 1;
    char *text = malloc(size);
    if (!text) return fail("out of memory");
    vkm_kernels_print(device, text, size);
    if (!j) {
        printf("\nKernels: name, variant, tier, what the tier needs, why not available\n%s", text);
    } else {
        json_open(j, "kernels", '[', false);
        for (const char *row = text; *row;) {
            size_t n = strcspn(row, "\n");
            json_kernel(j, row, n);
            row += n + (row[n] == '\n');
        }
        json_close(j);
    }
    free(text);
    return STATUS_OK;
}

/* ---------------------------------------------------------------- a model file */

struct tally { const struct vkm_ggml_type *type; uint64_t tensors, elements, bytes; };
struct census { struct tally types[64]; size_t n; uint64_t elements, bytes, expert_elements, vocabulary; };

static uint64_t elements(const struct vkm_gguf_tensor *t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }

static void count(const vkm_gguf *g, struct census *c)
{
    const struct vkm_gguf_tensor *embedding = vkm_gguf_tensor_find(g, "token_embd.weight");
    if (embedding) c->vocabulary = embedding->ne[1];
    for (uint64_t i = 0; i < vkm_gguf_tensor_count(g); i++) {
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_at(g, i);
        size_t k = 0;
        while (k < c->n && c->types[k].type->id != t->type) k++;
        if (k == c->n && k < sizeof c->types / sizeof c->types[0] && vkm_ggml_type_find(t->type)) c->types[c->n++].type = vkm_ggml_type_find(t->type);
        if (k < c->n) {
            c->types[k].tensors++;
            c->types[k].elements += elements(t);
            c->types[k].bytes += t->bytes;
        }
        c->elements += elements(t);
        c->bytes += t->bytes;
        bool expert = false;
        for (size_t at = 0; at + 9 <= t->name.n && !expert; at++)      /* blk.0.ffn_up_exps.weight, and blk.0.ffn_up.3.weight of old files */
            expert = memcmp(t->name.at + at, "_exps.weig", 9) == 0 || (at + 5 <= t->name.n && memcmp(t->name.at + at, "ffn_", 4) == 0 && t->name.n > 8
                     && memcmp(t->name.at + t->name.n - 7, ".weight", 7) == 0 && t->name.at[t->name.n - 8] >= '0' && t->name.at[t->name.n - 8] <= '9');
        if (expert) c->expert_elements += elements(t);
    }
}

/* One hyper-parameter as a row of text or a JSON number. */
static void number(struct json *j, const char *key, const char *label, uint64_t value)
{
    if (j) json_uint(j, key, value);
    else printf("  %-22s %llu\n", label, (unsigned long long)value);
}

static void real(struct json *j, const char *key, const char *label, double value)
{
    if (j) json_real(j, key, value);
    else printf("  %-22s %g\n", label, value);
}

static void words(struct json *j, const char *key, const char *label, const char *text, size_t n)
{
    if (j) { json_str_n(j, key, text, n); return; }
    printf("  %-22s ", label);
    print_clean(stdout, text, n);
    putchar('\n');
}

static void show_hparams(const struct vkm_hparams *h, const struct census *c, struct json *j)
{
    static const char *const scaling[] = {"none", "linear", "yarn"};
    uint64_t active = c->elements - c->expert_elements + (h->n_expert ? c->expert_elements / h->n_expert * h->n_used : 0);
    number(j, "n_params", "parameters", c->elements);
    number(j, "n_params_active", "active for a token", active);
    number(j, "n_layer", "layers", h->n_layer);
    number(j, "n_embd", "width", h->n_embd);
    number(j, "n_head", "heads", h->n_head);
    number(j, "n_head_kv", "key/value heads", h->n_head_kv);
    number(j, "head_dim", "head width", h->head);
    number(j, "n_rot", "rotated of it", h->n_rot);
    number(j, "n_expert", "experts", h->n_expert);
    number(j, "n_expert_used", "experts of a token", h->n_used);
    number(j, "n_ff_expert", "expert width", h->n_ff);
    number(j, "n_ff_shared", "shared expert width", h->n_ff_shared);
    number(j, "n_vocab", "vocabulary", c->vocabulary);
    number(j, "n_ctx_train", "trained context", h->n_ctx_train);
    real(j, "rope_base", "RoPE base", h->rope_base);
    words(j, "rope_scaling", "RoPE scaling", scaling[h->rope_scaling], strlen(scaling[h->rope_scaling]));
    real(j, "norm_epsilon", "norm epsilon", (double)h->eps);
}

static void show_types(const struct census *c, struct json *j)
{
    if (j) json_open(j, "types", '[', false);
    else printf("\n  %-10s %8s %16s %14s\n", "type", "tensors", "elements", "bytes");
    for (size_t i = 0; i < c->n; i++) {
        const struct tally *t = &c->types[i];
        bool supported = vkm_type_find(t->type->id) != NULL;
        if (j) {
            json_open(j, NULL, '{', true);
            json_str(j, "type", t->type->name);
            json_uint(j, "tensors", t->tensors);
            json_uint(j, "elements", t->elements);
            json_uint(j, "bytes", t->bytes);
            json_bool(j, "supported", supported);
            json_close(j);
        } else {
            printf("  %-10s %8llu %16llu %14llu%s\n", t->type->name, (unsigned long long)t->tensors, (unsigned long long)t->elements, (unsigned long long)t->bytes,
                   supported ? "" : "  not supported");
        }
    }
    if (j) json_close(j);
    else printf("  %-10s %8s %16llu %14llu\n", "all", "", (unsigned long long)c->elements, (unsigned long long)c->bytes);
}

static void show_keys(const vkm_gguf *g, struct json *j)
{
    if (j) json_open(j, "keys", '{', false);
    else printf("\n");
    for (uint64_t i = 0; i < vkm_gguf_key_count(g); i++) {
        struct vkm_str name = vkm_gguf_key_name(g, i);
        vkm_text text = {NULL, 0, 0};
        vkm_gguf_key_print(g, i, &text);
        size_t n = text.used;
        char *value = calloc(1, n + 1), *key = calloc(1, name.n + 1);
        if (value && key) {
            text = (vkm_text){value, n + 1, 0};
            vkm_gguf_key_print(g, i, &text);
            memcpy(key, name.at, name.n);
            if (j) {
                json_str(j, key, value);
            } else {
                printf("  ");
                print_clean(stdout, key, name.n);
                printf(" = ");
                print_clean(stdout, value, strlen(value));
                printf("\n");
            }
        }
        free(value);
        free(key);
    }
    if (j) json_close(j);
}

static void show_tensors(const vkm_gguf *g, struct json *j)
{
    if (j) json_open(j, "tensors", '[', false);
    else printf("\n");
    for (uint64_t i = 0; i < vkm_gguf_tensor_count(g); i++) {
        const struct vkm_gguf_tensor *t = vkm_gguf_tensor_at(g, i);
        const struct vkm_ggml_type *type = vkm_ggml_type_find(t->type);
        if (j) {
            json_open(j, NULL, '{', true);
            json_str_n(j, "name", t->name.at, t->name.n);
            json_str(j, "type", type ? type->name : "?");
            json_open(j, "shape", '[', true);              /* ne[0], the contiguous one, first */
            for (uint32_t d = 0; d < t->n_dims; d++) json_uint(j, NULL, t->ne[d]);
            json_close(j);
            json_uint(j, "bytes", t->bytes);
            json_close(j);
        } else {
            printf("  %-8s", type ? type->name : "?");
            for (uint32_t d = 0; d < 4; d++) {
                if (d < t->n_dims) printf(" %8llu", (unsigned long long)t->ne[d]);
                else printf(" %8s", "");
            }
            printf("  ");
            print_clean(stdout, t->name.at, t->name.n);
            putchar('\n');
        }
    }
    if (j) json_close(j);
}

static void show_model(const struct args *args, const vkm_gguf *g, struct json *j)
{
    vkm_error err = {0};
    struct census c = {0};
    struct vkm_str text;
    struct vkm_hparams h;
    count(g, &c);
    if (j) json_open(j, "model", '{', false);
    else printf("\nModel\n");
    words(j, "file", "file", args->model, strlen(args->model));
    number(j, "file_bytes", "bytes", vkm_gguf_file_bytes(g));
    if (vkm_gguf_str(g, "general.architecture", &text, NULL) == VKM_OK) words(j, "architecture", "architecture", text.at, text.n);
    if (vkm_gguf_str(g, "general.name", &text, NULL) == VKM_OK) words(j, "name", "name", text.at, text.n);
    bool supported = vkm_hparams_read(g, &h, &err) == VKM_OK;
    if (j) json_bool(j, "supported", supported);
    if (supported) show_hparams(&h, &c, j);
    else words(j, "unsupported_why", "not supported", err.message, strlen(err.message));
    show_types(&c, j);
    if (args->keys) show_keys(g, j);
    if (args->tensors) show_tensors(g, j);
    if (j) json_close(j);
}

/* ---------------------------------------------------------------- */

static void on_log(void *user, vkm_log_level level, const char *text)
{
    const struct args *args = user;
    if (level <= VKM_LOG_WARN || args->verbose) fprintf(stderr, "vkmoe: %s\n", text);
}

int info_command(const struct args *given)
{
    struct args args = *given;
    struct devices d = {0};
    vkm_device *device = NULL;
    bool chosen = args.device || args.caps;
    if ((args.keys || args.tensors) && !args.model && !(args.model = model_path(&args))) return STATUS_FAILED;
    vkm_error err = {0};
    vkm_gguf *g = NULL;
    if (args.model && vkm_gguf_open(args.model, &g, &err) != VKM_OK) return fail_error(&err);
    int status = find_devices(&d);
    if (status == STATUS_OK && (chosen || args.kernels)) {
        vkm_device_params params = {.struct_size = sizeof params, .select = args.device, .caps = args.caps ? args.caps : DEFAULT_CAPS, .log = on_log, .log_user = &args};
        if (vkm_device_create(&params, &device, &err) != VKM_OK) {
            if (chosen) status = fail_error(&err);
        } else if (chosen) {                               /* only the one that --device and --caps mean, as it is used then */
            vkm_device_get_info(device, &d.list[0]);
            d.tuned[0] = is_tuned(device);
            d.n = 1;
        }
    }
    if (status == STATUS_OK && !chosen) look_for_tunings(&d);
    struct json json = {.out = stdout}, *j = args.json ? &json : NULL;
    if (status == STATUS_OK) {
        if (j) {
            json_open(j, NULL, '{', false);
            json_str(j, "version", vkm_version());
        }
        show_devices(&d, j);
        if (g) show_model(&args, g, j);
        if (args.kernels) status = show_kernels(device, j);
        if (j) json_close(j);
    }
    vkm_gguf_close(g);
    vkm_device_destroy(device);
    free(d.list);
    free(d.tuned);
    return status;
}
