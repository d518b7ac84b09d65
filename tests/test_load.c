/* Loading: repacked panels word by word against a plain reading of shaders/quant.glsl, any number of threads, cancelling, files that vanish meanwhile; and the
 * threads themselves. */
#include "harness.h"
#include "host/workers.h"
#include <dirent.h>
#include <pthread.h>
#include <sched.h>

/* ---------------------------------------------------------------- repacking */

/* Column c of a row as the format has it: the stored bits of plain types, quants of the others. */
static uint32_t element(uint32_t type, const uint8_t *row, uint32_t c)
{
    const struct vkm_type *t = vkm_type_find(type);
    const uint8_t *b = row + c / t->block_cols * t->block_bytes;
    uint32_t i = c % t->block_cols, half = i / 16 * 4, qh;
    switch (type) {
    case REF_F32: return b[0] | b[1] << 8 | b[2] << 16 | (uint32_t)b[3] << 24;
    case REF_F16: case REF_BF16: return b[0] | b[1] << 8;
    case REF_Q8_0: return b[2 + i];
    case REF_Q4_0: return b[2 + i % 16] >> half & 15;
    case REF_Q4_1: return b[4 + i % 16] >> half & 15;
    case REF_Q5_0: memcpy(&qh, b + 2, 4); return (b[6 + i % 16] >> half & 15) | (qh >> i & 1) << 4;
    case REF_Q5_1: memcpy(&qh, b + 4, 4); return (b[8 + i % 16] >> half & 15) | (qh >> i & 1) << 4;
    case REF_Q4_K: return b[16 + i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
    case REF_Q5_K: return (b[48 + i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15) | (b[16 + i % 32] >> i / 32 & 1u) << 4;
    case REF_Q6_K: return (b[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15) | (b[128 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3u) << 4;
    }
    cr_assert_fail("type %u", type);
    return 0;
}

/* One row into a zeroed panel, an element at a time. */
static void plain_repack(uint32_t type, const uint8_t *src, uint32_t cols, uint32_t kb, uint32_t *panel, uint32_t row)
{
    const struct vkm_type *t = vkm_type_find(type);
    uint32_t bits = type == REF_F32 ? 32 : type == REF_F16 || type == REF_BF16 ? 16 : type == REF_Q8_0 ? 8 : 4;
    uint32_t n_hi = type == REF_Q5_0 || type == REF_Q5_1 || type == REF_Q5_K ? 1 : type == REF_Q6_K ? 2 : 0;
    uint32_t *hi = panel + kb * bits * 32, *s = hi + kb * n_hi * 32;
    for (uint32_t c = 0; c < cols; c++) {
        uint32_t k = c / 32, i = c % 32, x = element(type, src, c);
        if (bits >= 8) {                       /* uvec4 after uvec4 of the block */
            panel[(k * bits + i * bits / 128 * 4) * 32 + row * 4 + i * bits / 32 % 4] |= x << i * bits % 32;
            continue;
        }
        panel[(k * 32 + row) * 4 + i / 8] |= (x & 15) << (i % 4 * 8 + i / 4 % 2 * 4);
        if (n_hi == 1) hi[k * 32 + row] |= x >> 4 << (i % 4 * 8 + i / 4);
        if (n_hi == 2) hi[(k * 2 + i / 4 % 2) * 32 + row] |= x >> 4 << (i % 4 * 8 + i / 8 * 2);
    }
    for (uint32_t b = 0; b < cols / t->block_cols; b++, src += t->block_bytes)
        for (uint32_t i = 0; i < 16; i++) {    /* bytes of what is not quants */
            uint8_t *at = (uint8_t *)(s + b * 32 + row);
            switch (type) {
            case REF_Q8_0: case REF_Q4_0: case REF_Q5_0: if (i < 2) ((uint8_t *)(s + b / 2 * 32 + row))[b % 2 * 2 + i] = src[i]; break;
            case REF_Q4_1: case REF_Q5_1: if (i < 4) at[i] = src[i]; break;
            case REF_Q4_K: case REF_Q5_K: ((uint8_t *)(s + (b * 32 + row) * 4))[i] = src[i]; break;
            case REF_Q6_K:
                ((uint8_t *)(s + (b * 32 + row) * 4))[i] = src[192 + i];
                if (i < 2) ((uint8_t *)(s + kb / 8 * 128 + b * 32 + row))[i] = src[208 + i];
                break;
            default: break;
            }
        }
}

Test(repack, equals_a_plain_one)
{
    static const uint32_t widths[] = {32, 64, 96, 256, 512, 1280, 1, 7, 44, 287};
    struct ref_rng rng = ref_seed(3);
    for (size_t i = 0; i < VKM_COUNT(types); i++)
        for (size_t n = 0; n < VKM_COUNT(widths); n++) {
            const struct vkm_type *t = vkm_type_find(types[i].id);
            uint32_t cols = widths[n], kb = vkm_div_up(cols, 32);
            if (cols % t->block_cols) continue;
            uint64_t row_bytes = vkm_type_row_bytes(t, cols), bytes = vkm_type_panel_bytes(t, kb);
            uint8_t *raw[32];
            const uint8_t *rows[32];
            uint32_t *want = calloc(1, bytes), *got = malloc(bytes + 4);
            cr_assert(want && got);
            memset(got, 0xa5, bytes + 4);      /* what is not written shows */
            for (uint32_t r = 0; r < 32; r++) {
                rows[r] = raw[r] = malloc(row_bytes);       /* exactly: a read behind the end shows under a sanitizer */
                cr_assert(raw[r]);
                for (uint64_t k = 0; k < row_bytes; k++) raw[r][k] = r == 9 ? 0 : (uint8_t)ref_u32(&rng);
                if (r != 9) plain_repack(types[i].id, raw[r], cols, kb, want, r);      /* zero bytes make an absent row */
            }
            t->repack(rows, cols, kb, got);
            for (uint32_t k = 0; k < bytes / 4; k++) cr_assert_eq(got[k], want[k], "%s, %u columns: word %u of %u is %08x, not %08x", t->name, cols, k, (uint32_t)(bytes / 4), got[k], want[k]);
            cr_assert_eq(got[bytes / 4], 0xa5a5a5a5u);
            for (uint32_t r = 0; r < 32; r++) free(raw[r]);
            free(want);
            free(got);
        }
}

/* ---------------------------------------------------------------- whole models */

/* 33 and 80 rows, so that last panels are not whole; an odd number of panels of 16 pairs, so that one is padding; 72 and 24 rows of q and k. */
static struct ref_testmodel odd_model(uint32_t type)
{
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    o.hidden = 256; o.width = 256 + 32; o.shared_width = 80; o.layers = 2; o.experts = 5; o.vocab = 333;
    o.heads = 3; o.kv_heads = 1; o.head_dim = 24;
    o.type_gate = o.type_up = type;
    return o;
}

/* Every panel of a weight against the matrices in the file: gate and up, or those that lie one below the other. The device's memory is mapped. */
static void check_weight(const vkm_model *m, const vkm_gguf *g, const struct vkm_weight *w, const char *const *names, uint32_t n)
{
    const struct vkm_gguf_tensor *t[3];
    uint32_t each = w->glu ? 16 : 32, words = (uint32_t)(vkm_type_panel_bytes(w->type, w->kb) / 4), first[4] = {0};
    for (uint32_t i = 0; i < n; i++) {
        t[i] = vkm_gguf_tensor_find(g, names[i]);
        cr_assert(t[i], "%s", names[i]);
        first[i + 1] = w->glu ? 0 : first[i] + (uint32_t)vkm_align(t[i]->ne[1], 32);
    }
    cr_assert_eq(w->rows, first[n - 1] + t[n - 1]->ne[1]);
    const char *a = names[0];
    uint64_t row_bytes = vkm_type_row_bytes(w->type, w->cols);
    uint32_t *want = malloc(words * 4), *panel = malloc(words * 4);
    cr_assert(want && panel);
    for (uint32_t e = 0; e < w->experts; e++)
        for (uint32_t p = 0; p < w->n_panels; p++) {
            memset(want, 0, words * 4);
            for (uint32_t r = 0; r < 32; r++) {
                uint32_t of = r / each, row = p * each + r % each;
                while (!w->glu && of + 1 < n && row >= first[of + 1]) of++;
                row -= first[of];
                if (row < t[of]->ne[1]) plain_repack(w->type->id, (const uint8_t *)t[of]->data + (e * t[of]->ne[1] + row) * row_bytes, w->cols, w->kb, want, r);
            }
            if (vkm_device_caps(m->device)->scalar_loads) {
                memcpy(panel, want, words * 4);
                vkm_panel_planes(w->type, w->kb, panel, want);
            }
            const uint32_t *entry = m->weights.tables + w->tab + VKM_CHUNK_WORDS * (e * w->n_chunks + p / w->chunk_panels);
            const uint32_t *slab = vkm_buffer_map(m->weights.slabs[m->weights.sets[w->set].first + entry[0]]);
            cr_assert(slab);
            cr_assert_eq(memcmp(slab + entry[1] * 4 + p % w->chunk_panels * words, want, words * 4), 0, "%s, expert %u, panel %u", a, e, p);
        }
    free(want), free(panel);
}

struct watch { pthread_t thread; uint64_t calls, stop_at, done, total; bool elsewhere; const char *truncate; };

static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct watch *w = user;
    if (!pthread_equal(w->thread, pthread_self())) w->elsewhere = true;
    cr_assert(done > w->done && done <= total && (!w->total || w->total == total));
    w->done = done;
    w->total = total;
    w->calls++;
    if (w->truncate && w->calls == w->stop_at) cr_assert_eq(truncate(w->truncate, 0), 0);
    return w->truncate || w->calls != w->stop_at;
}

static vkm_result load_watched(vkm_device *d, const char *path, uint32_t n_threads, struct watch *watch, vkm_model **m, vkm_error *err)
{
    watch->thread = pthread_self();
    watch->calls = watch->done = watch->total = 0;
    return vkm_model_load(d, path, &(vkm_model_params){.struct_size = sizeof(vkm_model_params), .progress = on_progress, .progress_user = watch, .n_threads = n_threads}, m, err);
}

static uint32_t count_threads(void)
{
    uint32_t n = 0;
#if defined(__linux__)
    DIR *dir = opendir("/proc/self/task");
    for (struct dirent *e; dir && (e = readdir(dir));) n += e->d_name[0] != '.';
    if (dir) closedir(dir);
#endif
    return n;            /* 0: nobody knows */
}

/* A thread that was joined is still listed for a moment. */
static bool threads_went(uint32_t before)
{
    for (int i = 0; i < 1000000; i++) {
        if (count_threads() <= before) return true;
        sched_yield();
    }
    return false;
}

Test(load, every_word_with_any_number_of_threads)
{
    vkm_error err = {0};
    struct driver_log log;
    vkm_device *d = driver_open("range=1000000", &log);     /* so that matrices are cut into chunks */
    for (size_t i = 0; i < VKM_COUNT(types); i++) {
        char path[256];
        struct ref_testmodel o = odd_model(types[i].id);
        cr_assert(ref_testmodel_save(&o, path));
        vkm_gguf *g = NULL;
        OK(vkm_gguf_open(path, &g, &err));
        static const uint32_t threads[] = {0, 1, 2, 7, 40};
        for (size_t n = 0; n < VKM_COUNT(threads); n++) {
            vkm_model *m = NULL;
            struct watch watch = {0};
            uint32_t before = count_threads();
            OK(load_watched(d, path, threads[n], &watch, &m, &err));
            cr_assert(!watch.elsewhere && watch.done == watch.total && watch.total == m->info.device_bytes);
            cr_assert(threads_went(before), "%u threads were left", count_threads() - before);
            if (vkm_buffer_map(m->weights.slabs[0])) {
                check_weight(m, g, &m->embedding, (const char *const[]){"token_embd.weight"}, 1);
                check_weight(m, g, &m->output, (const char *const[]){"output.weight"}, 1);
                for (uint32_t l = 0; l < o.layers; l++) {
                    enum { N = 6 };
                    char text[N][64];
                    const char *names[N];
                    static const char *const formats[N] = {"blk.%u.ffn_gate_exps.weight", "blk.%u.ffn_up_exps.weight", "blk.%u.ffn_down_exps.weight",
                                                           "blk.%u.attn_q.weight", "blk.%u.attn_k.weight", "blk.%u.attn_v.weight"};
                    for (int k = 0; k < N; k++) { snprintf(text[k], sizeof text[k], formats[k], l); names[k] = text[k]; }
                    check_weight(m, g, &m->layers[l].moe.gate_up, names, 2);
                    check_weight(m, g, &m->layers[l].moe.down, names + 2, 1);
                    cr_assert_eq(m->layers[l].n_qkv, 1);
                    check_weight(m, g, &m->layers[l].qkv[0].w, names + 3, 3);
                }
            }
            vkm_model_destroy(m);
        }
        vkm_gguf_close(g);
        unlink(path);
    }
    cr_assert_eq(vkm_device_allocated(d), 0);
    driver_close(d, &log);
}

/* Through the ring, in pieces that threads finish in any order: the same logits. */
Test(load, staged_on_several_threads)
{
    struct ref_testmodel o = odd_model(REF_Q4_K);
    char path[256];
    cr_assert(ref_testmodel_save(&o, path));
    float *first = NULL;
    int32_t tokens[20];
    some_tokens(tokens, 20, o.vocab);
    for (uint32_t n = 0; n < 3; n++) {
        struct rig r;
        vkm_error err = {0};
        rig_device(&r, n ? "staged" : NULL);
        OK(load_watched(r.device, path, n ? n * n * 2 : 1, &(struct watch){0}, &r.model, &err));
        cr_assert(!n || !vkm_buffer_map(r.model->weights.slabs[0]));
        rig_session(&r, (vkm_session_params){.n_ctx = 32});
        float *logits = eval_steps(&r, tokens, 20, 0);
        if (first) check_same(first, logits, 20, r.model->h.n_vocab, "staged");
        if (first) free(logits);
        else first = logits;
        rig_close(&r);
    }
    free(first);
    unlink(path);
}

Test(load, cancelled_anywhere)
{
    struct ref_testmodel o = odd_model(REF_Q8_0);
    char path[256];
    cr_assert(ref_testmodel_save(&o, path));
    static const char *const caps[] = {NULL, "staged"};
    for (size_t c = 0; c < VKM_COUNT(caps); c++)
        for (uint32_t n_threads = 1; n_threads <= 4; n_threads += 3) {
            struct driver_log log;
            vkm_error err = {0};
            vkm_device *d = driver_open(caps[c], &log);
            vkm_model *m = NULL;
            struct watch watch = {0};
            OK(load_watched(d, path, n_threads, &watch, &m, &err));
            vkm_model_destroy(m);
            m = NULL;
            uint64_t all = watch.calls;
            cr_assert_gt(all, 20);
            for (uint64_t k = 1; k <= all; k += k < 10 || k + 10 > all ? 1 : 7) {
                watch.stop_at = k;
                FAILS(load_watched(d, path, n_threads, &watch, &m, &err), VKM_ERR_CANCELLED);
                cr_assert(!m && watch.calls == k && !watch.elsewhere);
                cr_assert_eq(vkm_device_allocated(d), 0);
            }
            driver_close(d, &log);
        }
    unlink(path);
}

#if defined(__linux__)
/* One thread, so that nobody is between looking and reading when the file goes. */
Test(load, a_file_that_becomes_shorter)
{
    struct ref_testmodel o = odd_model(REF_F32);
    char path[256];
    struct driver_log log;
    vkm_error err = {0};
    vkm_device *d = driver_open(NULL, &log);
    vkm_model *m = NULL;
    cr_assert(ref_testmodel_save(&o, path));
    FAILS(load_watched(d, path, 1, &(struct watch){.stop_at = 5, .truncate = path}, &m, &err), VKM_ERR_IO);
    cr_assert(strstr(err.message, path) && !m);
    cr_assert_eq(vkm_device_allocated(d), 0);
    driver_close(d, &log);
    unlink(path);
}
#endif

/* ---------------------------------------------------------------- threads */

struct count_job { struct vkm_job job; uint32_t runs, *started; pthread_mutex_t *lock; };

static void count_run(struct vkm_job *job)
{
    struct count_job *j = (struct count_job *)job;
    j->runs++;
    pthread_mutex_lock(j->lock);
    ++*j->started;
    pthread_mutex_unlock(j->lock);
}

Test(workers, run_every_job_once)
{
    enum { N = 500 };
    static struct count_job jobs[N];
    static const uint32_t threads[] = {0, 1, 2, 9};
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    vkm_error err = {0};
    cr_assert_geq(vkm_processors(), 1);
    for (size_t t = 0; t < VKM_COUNT(threads); t++)
        for (uint32_t waited = 0; waited <= N; waited += N / 2) {      /* the others are dropped, or done */
            uint32_t started = 0, n = 0, before = count_threads();
            vkm_workers *w = NULL;
            OK(vkm_workers_create(threads[t], &w, &err));
            cr_assert_eq(count_threads() - before, before && threads[t] > 1 ? threads[t] - 1 : 0);
            for (int i = 0; i < N; i++) {
                jobs[i] = (struct count_job){.job.run = count_run, .started = &started, .lock = &lock};
                vkm_workers_push(w, &jobs[i].job);
            }
            for (uint32_t i = 0; i < waited; i++) {
                vkm_workers_wait(w, &jobs[i].job);
                cr_assert_eq(jobs[i].runs, 1);
            }
            vkm_workers_destroy(w);
            for (int i = 0; i < N; i++) n += jobs[i].runs;
            cr_assert(n == started && n >= waited);
            if (threads[t] < 2) cr_assert_eq(n, waited);
            cr_assert(threads_went(before));
        }
    vkm_workers_destroy(NULL);
}
