/* vkmoe bench model: prompts, generation, start and memory of a whole model. */
#include "bench_device.h"
#include "model/session.h"
#include "system.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call) do { vkm_result r_ = (call); if (r_ != VKM_OK) return r_; } while (0)

enum { BATCH = 512, MOST_TOKENS = 1 << 24, MOST_SEQUENCES = 4096, TESTS = 16, STEP_NAMES = 64, STARTS = 5, PROFILED = 32 };

struct bench_list { uint32_t n, of[TESTS]; };

/* What the phases of starting took, in seconds. */
enum { DEVICE, LOAD, PIPELINES, FIRST, PHASES };
struct starts { uint32_t n; double runs[STARTS][PHASES]; };

/* One model on one device, being measured. */
struct bench {
    const struct bench_options *o;
    struct bench_report *report;
    struct engine e;
    struct bench_list pp, tg, together;    /* together: sequences that generate at once; none: one, and nothing said of it */
    int32_t *tokens;                       /* of the longest prompt, and one for each sequence */
    vkm_generation *generations;           /* [n_seq] */
    uint32_t n_ctx, n_seq;
    uint64_t file_bytes;
    struct starts starts[2];               /* cold, warm */
    /* the test at hand */
    uint32_t n, batch;
    char test[48];                         /* "pp512", "tg128 batch=4" */
    double cpu[64], latency[64], began;    /* rings of the last runs: CPU time, time to the first token */
    uint32_t n_runs;
    uint64_t hash;                         /* of generated tokens */
};

/* "128,512", each at most `most`; zeros are left out. */
static int parse_list(const char *option, const char *text, uint32_t most, struct bench_list *list)
{
    for (const char *at = text; ; at++) {
        char *end;
        unsigned long value = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (*at < '0' || *at > '9' || (*end && *end != ',') || value > most)
            return fail_usage("bench model", "%s needs whole numbers up to %u, not '%s'", option, most, text);
        if (value && list->n == TESTS) return fail_usage("bench model", "%s takes at most %d numbers", option, TESTS);
        if (value) list->of[list->n++] = (uint32_t)value;
        at = end;
        if (!*at) return STATUS_OK;
    }
}

/* Which token starts every sequence. */
static int32_t first_token(const struct engine *e)
{
    int32_t bos = e->tokenizer ? vkm_tokenizer_bos(e->tokenizer) : -1;
    return bos >= 0 && (uint32_t)bos < e->info.n_vocab ? bos : 0;
}

/* The same arbitrary tokens every time. Real text would send them to fewer experts; arbitrary ones are what others measure with. */
static int make_tokens(struct bench *b, uint32_t n)
{
    if (!b->tokens) b->tokens = calloc(n, sizeof *b->tokens);
    if (!b->tokens) return fail("out of memory");
    uint64_t x = 1;
    for (uint32_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (int32_t)((x >> 33) % b->e.info.n_vocab);
    }
    b->tokens[0] = first_token(&b->e);
    return STATUS_OK;
}

/* ---------------------------------------------------------------- tests */

static void keep_run(struct bench *b, double cpu) { b->cpu[b->n_runs++ % VKM_COUNT(b->cpu)] = cpu; }

static vkm_result run_prompt(void *user, double *gpu, vkm_error *err)
{
    struct bench *b = user;
    double cpu = system_cpu_seconds();
    *gpu = NAN;
    TRY(vkm_session_rewind(b->e.session, 0, 0, err));
    for (uint32_t at = 0; at < b->n; at += BATCH) {        /* in passes of our own, so that Ctrl-C is heard between them */
        if (at && interrupted()) return vkm_fail(err, VKM_ERR_CANCELLED, "interrupted");
        TRY(vkm_session_eval(b->e.session, 0, b->tokens + at, b->n - at < BATCH ? b->n - at : BATCH, NULL, err));
    }
    keep_run(b, system_cpu_seconds() - cpu);
    return VKM_OK;
}

static bool on_first(void *user, uint32_t seq, int32_t token)
{
    struct bench *b = user;
    (void)seq; (void)token;
    b->latency[b->n_runs % VKM_COUNT(b->latency)] = seconds() - b->began;
    return false;
}

static vkm_result run_first_token(void *user, double *gpu, vkm_error *err)
{
    struct bench *b = user;
    uint32_t run = b->n_runs;
    b->began = seconds();
    TRY(run_prompt(b, gpu, err));
    b->n_runs = run;                                       /* on_first counts by it */
    vkm_generation one = {.struct_size = sizeof one, .n_tokens = 1};
    TRY(vkm_session_generate(b->e.session, &one, 1, on_first, b, err));
    b->n_runs++;
    return VKM_OK;
}

static bool on_token(void *user, uint32_t seq, int32_t token)
{
    struct bench *b = user;
    (void)seq;
    b->hash = vkm_hash(b->hash, &token, sizeof token);
    return !interrupted();
}

/* Every sequence of the test gets a first token of its own, as real ones would: with the same one they would all choose the same experts. */
static vkm_result begin_sequences(struct bench *b, vkm_error *err)
{
    for (uint32_t i = 0; i < b->batch; i++) {
        const int32_t first[2] = {b->tokens[i], b->tokens[i]};     /* two, so that rewinding to one leaves it to the first pass */
        TRY(vkm_session_rewind(b->e.session, i, 0, err));
        TRY(vkm_session_eval(b->e.session, i, first, 2, NULL, err));
    }
    return VKM_OK;
}

/* n tokens for each sequence, from its first token on. That one is evaluated in the first pass, so these are n passes over `batch` rows. */
static vkm_result generate(struct bench *b, vkm_token_fn reached, void *user, vkm_error *err)
{
    for (uint32_t i = 0; i < b->batch; i++) {
        TRY(vkm_session_rewind(b->e.session, i, 1, err));
        b->generations[i] = (vkm_generation){.struct_size = sizeof *b->generations, .seq = i, .ignore_end = true, .n_tokens = b->n};
    }
    return vkm_session_generate(b->e.session, b->generations, b->batch, reached, user, err);
}

static vkm_result run_generation(void *user, double *gpu, vkm_error *err)
{
    struct bench *b = user;
    double cpu = system_cpu_seconds();
    *gpu = NAN;
    b->hash = VKM_HASH_START;
    TRY(generate(b, on_token, b, err));
    if (interrupted()) return vkm_fail(err, VKM_ERR_CANCELLED, "interrupted");
    keep_run(b, system_cpu_seconds() - cpu);
    return VKM_OK;
}

/* Of the last runs, in their order. */
static struct bench_stat ring_stat(const struct bench *b, const double *ring, uint32_t n)
{
    double values[VKM_COUNT(b->cpu)];
    uint32_t room = VKM_COUNT(b->cpu);
    if (n > room) n = room;
    for (uint32_t i = 0; i < n; i++) values[i] = ring[(b->n_runs - n + i) % room];
    return bench_stat_of(values, n);
}

/* What a failed run says in the report; NULL: nothing, it was not the device's fault. */
static const char *failure(vkm_result r)
{
    return r == VKM_ERR_DEVICE_LOST ? "device lost" : r == VKM_ERR_DEVICE_MEMORY ? "out of device memory" : r == VKM_ERR_HOST_MEMORY ? "out of host memory"
         : r == VKM_ERR_VULKAN ? "a Vulkan call failed" : r == VKM_ERR_LIMIT ? "a device limit is too low" : NULL;
}

/* Reports an error, and in the row what it means for its figures. */
static int give_up(struct bench *b, vkm_result r, const vkm_error *err)
{
    if (r == VKM_ERR_CANCELLED || interrupted()) {
        b->report->incomplete = true;
        return fail("interrupted during %s", b->test);
    }
    if (failure(r)) bench_invalid(bench_row_add(b->report, "model", "test=%s", b->test), "rate", "tok/s", failure(r));
    return fail_error(err);
}

/* The logits of the last position: *hash of their bits, *finite false when one of them is no number. The prompt's last pass left sequence 0 in the first row and kept its last row. */
static vkm_result last_logits(struct bench *b, uint64_t *hash, bool *finite, vkm_error *err)
{
    vkm_session *s = b->e.session;
    vkm_program *p;
    uint64_t ticket;
    uint32_t n = s->model->h.n_vocab, at = s->n_seq * VKM_RECENT;
    TRY(vkm_session_program(s, (struct vkm_recipe){.count = 1, .of_last = true, .read_logits = true}, &p, err));
    TRY(vkm_program_submit(p, 1, &ticket, err));
    TRY(vkm_wait(s->model->device, ticket, err));
    TRY(vkm_buffer_invalidate(s->readback, (uint64_t)at * 4, (uint64_t)n * 4, err));
    const float *logits = (const float *)vkm_buffer_map(s->readback) + at;
    *hash = VKM_HASH_START;
    *finite = true;
    for (uint32_t i = 0; i < n; i++) {
        float logit = s->model->h.logit_scale == 1 ? logits[i] : logits[i] / s->model->h.logit_scale;   /* as vkm_session_eval gives them */
        if (!isfinite(logit)) *finite = false;
        *hash = vkm_hash(*hash, &logit, sizeof logit);
    }
    return VKM_OK;
}

/* ---------------------------------------------------------------- where the time goes */

struct step_sum { const char *name; uint32_t calls; double bytes, flops,  times[PROFILED]; };
struct steps {
    struct bench *b;
    uint32_t n, n_runs;                    /* names, runs summed */
    bool more;                             /* there is to be another */
    double start;
    struct step_sum of[STEP_NAMES];
    double total[PROFILED];
};

/* "moe_down" of "blk.3.moe_down": what a step does, in every layer. */
static const char *step_name(const char *label)
{
    const char *dot = strncmp(label, "blk.", 4) == 0 ? strchr(label + 4, '.') : NULL;
    return dot ? dot + 1 : label;
}

/* What the step has to move and do. Of a matmul over experts that is not known before it runs: its dispatches, a kernel for each tile size, each say the whole and the most. So the first kernel's
 * count, and as many experts as tokens that choose evenly reach, where that can be said. */
static struct bench_work work_of(const struct bench *b, const vkm_program *program, uint32_t i, uint32_t n)
{
    const struct vkm_step *step = vkm_program_step(program, i), *first = step;
    struct bench_work work = {.bytes = (double)step->bytes, .flops = (double)step->flops};
    unsigned layer;
    if (!step->indirect || sscanf(step->label, "blk.%u.", &layer) != 1) return work;
    uint32_t k = i;
    while (k > 0 && strcmp(vkm_program_step(program, k - 1)->label, step->label) == 0) first = vkm_program_step(program, --k);
    const struct vkm_moe *moe = &b->e.session->model->layers[layer].moe;
    double distinct = moe->n_expert * (1 - pow(1 - (double)moe->n_used / moe->n_expert, n));
    if (moe->gate_up.type && bench_work_of(moe, step_name(step->label), n, distinct, distinct, bench_words_of(first), &work)) return k == i ? work : (struct bench_work){0};
    return step->kernel == first->kernel ? work : (struct bench_work){0};
}

/* Adds the times of the program that ran last to the run at hand, summed over the layers. Names are those of the session's programs, which stay. */
static void steps_add(struct steps *s)
{
    const vkm_session *session = s->b->e.session;
    const struct vkm_slot *last = &session->slots[0];
    for (uint32_t i = 1; i < VKM_PROGRAMS; i++)
        if (session->slots[i].program && session->slots[i].used > last->used) last = &session->slots[i];
    for (uint32_t i = 0; last->program && i < vkm_program_step_count(last->program); i++) {
        const struct vkm_step *step = vkm_program_step(last->program, i);
        const char *name = step_name(step->label);
        double time = 1e-9 * (double)vkm_program_step_ns(last->program, i);
        uint32_t k = 0;
        while (k < s->n && strcmp(s->of[k].name, name) != 0) k++;
        if (k == STEP_NAMES) continue;
        if (k == s->n) s->of[s->n++].name = name;
        s->of[k].times[s->n_runs] += time;
        s->total[s->n_runs] += time;
        if (s->n_runs > 0) continue;                       /* every run does the same */
        s->of[k].calls++;
        struct bench_work work = work_of(s->b, last->program, i, last->recipe.n);
        s->of[k].bytes += work.bytes;
        s->of[k].flops += work.flops;
    }
}

/* Ends the run at hand; whether there is to be another. */
static bool steps_next(struct steps *s)
{
    const struct bench_policy *p = &s->b->o->policy;
    s->n_runs++;
    return !interrupted() && s->n_runs < PROFILED && s->n_runs < p->max_runs && (s->n_runs < 2 || seconds() - s->start < p->max_seconds);
}

static bool on_profiled(void *user, uint32_t seq, int32_t token)
{
    struct steps *s = user;
    (void)token;
    if (seq == 0) {                                        /* the first to be told of a pass */
        steps_add(s);
        s->more = steps_next(s);
    }
    return s->more;
}

static vkm_result profile(struct steps *s, bool prompt, vkm_error *err)
{
    struct bench *b = s->b;
    vkm_session *session = b->e.session;
    s->start = seconds();
    if (!prompt) return generate(b, on_profiled, s, err);
    do {
        TRY(vkm_session_rewind(session, 0, 0, err));
        for (uint32_t at = 0; at < b->n; at += BATCH) {
            TRY(vkm_session_eval(session, 0, b->tokens + at, b->n - at < BATCH ? b->n - at : BATCH, NULL, err));
            steps_add(s);
        }
    } while (steps_next(s));
    return VKM_OK;
}

/* What the device reached in a step. A rate that no unit of it can reach is an error of ours, in a count or a clock; caches may be faster than memory. */
static void step_rates(const struct bench *b, struct bench_row *row, const struct step_sum *of, const struct bench_stat *time)
{
    double read = bench_find(b->report, "roofline", BENCH_CEILING_READ, "rate"), cached = bench_find(b->report, "roofline", BENCH_CEILING_CACHED, "rate");
    double flops = bench_arithmetic(b->report, "rate"), gb = 1e-9 * of->bytes, gflop = 1e-9 * of->flops, least = fmax(gb / read, gflop / flops), share = 100 * least / time->median;
    if (of->bytes > 0 && gb / time->median > 1.05 * fmax(read, cached) && isfinite(cached)) bench_invalid(row, "bandwidth", "GB/s", "above the ceiling");
    else if (of->bytes > 0) bench_rate(row, "bandwidth", "GB/s", gb, time);
    if (of->flops > 0 && gflop / time->median > 1.05 * flops) bench_invalid(row, "arithmetic", "GFLOP/s", "above the ceiling");
    else if (of->flops > 0) bench_rate(row, "arithmetic", "GFLOP/s", gflop, time);
    if (isnan(read) || isnan(flops)) return;               /* half a roof says nothing */
    if (share > 105) bench_invalid(row, "of ceiling", "%", "from caches");
    else if (isfinite(share)) bench_count(row, "of ceiling", "%", share, 0);
}

static void steps_report(const struct steps *s)
{
    struct bench *b = s->b;
    struct bench_stat total = bench_stat_of(s->total, s->n_runs);
    for (uint32_t k = 0; k < s->n && s->n_runs; k++) {
        const struct step_sum *of = &s->of[k];
        struct bench_stat time = bench_stat_of(of->times, s->n_runs);
        struct bench_row *row = bench_row_add(b->report, "step", "test=%s step=%s", b->test, of->name);
        bench_time(row, "time", &time);
        bench_count(row, "share", "%", 100 * time.median / total.median, 0);
        bench_count(row, "calls", "", of->calls, 0);
        if (of->bytes > 0) bench_count(row, "bytes", "B", of->bytes, 0);
        if (of->flops > 0) bench_count(row, "flops", "FLOP", of->flops, 0);
        step_rates(b, row, of, &time);
    }
}

/* Rows of the kernel steps of one pass, and the time of all of them; n 0 where the queue has no timestamps. */
static int measure_steps(struct bench *b, bool prompt, struct bench_stat *total)
{
    vkm_error err = {0};
    *total = (struct bench_stat){0};
    struct steps *s = calloc(1, sizeof *s);
    if (!s) return fail("out of memory");
    s->b = b;
    bench_say("%s, kernel steps", b->test);
    b->e.session->params.profile = true;
    vkm_result r = profile(s, prompt, &err);
    b->e.session->params.profile = false;
    int status = STATUS_OK;
    if (r == VKM_ERR_UNSUPPORTED) bench_note(b->report, "steps", "not timed: %s", err.message);
    else if (r != VKM_OK) status = give_up(b, r, &err);
    else if (!interrupted()) {
        *total = bench_stat_of(s->total, s->n_runs);
        steps_report(s);
    }
    free(s);
    return status;
}

/* ---------------------------------------------------------------- the rows of a test */

static int measure_prompt(struct bench *b)
{
    vkm_error err = {0};
    struct bench_stat wall, gpu, first;
    uint64_t hash;
    bool finite;
    snprintf(b->test, sizeof b->test, "pp%u", b->n);
    bench_say("%s", b->test);
    vkm_result r = bench_measure(&b->o->policy, run_prompt, b, &wall, &gpu, &err);
    struct bench_stat cpu = ring_stat(b, b->cpu, r == VKM_OK ? wall.n : 0);
    if (r == VKM_OK) r = last_logits(b, &hash, &finite, &err);
    bench_say("%s, first token", b->test);
    if (r == VKM_OK) r = bench_measure(&b->o->policy, run_first_token, b, &first, &gpu, &err);
    if (r != VKM_OK) return give_up(b, r, &err);
    first = ring_stat(b, b->latency, first.n);
    int status = measure_steps(b, true, &gpu);
    char key[80];
    snprintf(key, sizeof key, "logits_hash test=%s", b->test);
    bench_note(b->report, key, finite ? "%016llx" : "%016llx, not all of them numbers", (unsigned long long)hash);
    struct bench_row *row = bench_row_add(b->report, "model", "test=%s", b->test);
    if (!finite) {
        bench_invalid(row, "rate", "tok/s", "the logits are not numbers");
        return status;
    }
    bench_rate(row, "rate", "tok/s", b->n, &wall);
    bench_time(row, "time", &wall);
    if (gpu.n) bench_time(row, "gpu time", &gpu);
    bench_time(row, "cpu time", &cpu);
    bench_time(row, "first token", &first);
    return status;
}

/* Only where sequences were asked for is their number a part of the key. */
static int measure_generation(struct bench *b)
{
    vkm_error err = {0};
    struct bench_stat wall, gpu;
    int n = snprintf(b->test, sizeof b->test, "tg%u", b->n);
    if (b->together.n) snprintf(b->test + n, sizeof b->test - (size_t)n, " batch=%u", b->batch);
    bench_say("%s", b->test);
    vkm_result r = begin_sequences(b, &err);
    if (r == VKM_OK) r = bench_measure(&b->o->policy, run_generation, b, &wall, &gpu, &err);
    if (r != VKM_OK) return give_up(b, r, &err);
    uint64_t hash = b->hash;
    struct bench_stat cpu = ring_stat(b, b->cpu, wall.n);
    int status = measure_steps(b, false, &gpu);
    char key[80];
    snprintf(key, sizeof key, "tokens_hash test=%s", b->test);
    bench_note(b->report, key, "%016llx", (unsigned long long)hash);
    struct bench_row *row = bench_row_add(b->report, "model", "test=%s", b->test);
    bench_rate(row, "rate", "tok/s", (double)b->n * b->batch, &wall);
    if (b->together.n) bench_rate(row, "each", "tok/s", b->n, &wall);
    bench_time(row, "time", &wall);
    if (gpu.n) bench_time(row, b->together.n ? "gpu pass" : "gpu token", &gpu);
    bench_time(row, "cpu time", &cpu);
    return status;
}

/* ---------------------------------------------------------------- starting, without and with what caches hold */

/* A folder for caches, and the variables that tell drivers to use it: a cold start is one where they have kept nothing either. */
static const char *const cache_variables[] = {"XDG_CACHE_HOME", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH", "AMD_SHADER_DISK_CACHE_PATH"};
struct caches { char folder[512], file[560], *before[VKM_COUNT(cache_variables)]; };

static int caches_open(struct caches *c)
{
    if (!system_temporary_folder("vkmoe-bench", c->folder, sizeof c->folder)) {
        int status = fail("no temporary folder for caches can be made in %s", c->folder);
        c->folder[0] = 0;
        return status;
    }
    snprintf(c->file, sizeof c->file, "%s/pipelines.bin", c->folder);
    for (size_t i = 0; i < VKM_COUNT(cache_variables); i++) {
        const char *value = getenv(cache_variables[i]);
        c->before[i] = value ? strdup(value) : NULL;
        system_set_variable(cache_variables[i], c->folder);
    }
    return STATUS_OK;
}

static void caches_close(struct caches *c)
{
    if (!c->folder[0]) return;
    system_remove_folder(c->folder);
    for (size_t i = 0; i < VKM_COUNT(cache_variables); i++) {
        system_set_variable(cache_variables[i], c->before[i]);
        free(c->before[i]);
    }
    *c = (struct caches){0};
}

/* Makes the pipelines of the first prompt's passes and of generation, as the session would make them one by one. */
static vkm_result make_pipelines(struct bench *b, vkm_error *err)
{
    vkm_program *p;
    uint32_t n = b->pp.n ? b->pp.of[0] < BATCH ? b->pp.of[0] : BATCH : 1;
    if (n > b->e.session->space.n_batch) n = b->e.session->space.n_batch;
    TRY(vkm_session_program(b->e.session, (struct vkm_recipe){.n = n}, &p, err));
    TRY(vkm_session_program(b->e.session, (struct vkm_recipe){.count = 1, .of_last = true, .sample = true}, &p, err));
    return vkm_session_program(b->e.session, (struct vkm_recipe){.n = 1, .count = 1, .each_its_own = true, .sample = true}, &p, err);
}

/* One start, and what each phase of it took. The engine stays open, also after a failure. */
static int start(struct bench *b, const char *cache, double times[PHASES])
{
    vkm_error err = {0};
    double at = seconds(), unused;
    int status = engine_device(b->o->args, cache, &b->e);
    if (status != STATUS_OK) return status;
    times[DEVICE] = seconds() - at;
    b->report->device = b->e.device_info;
    b->report->caps = *vkm_device_caps(b->e.device);
    at = seconds();
    status = engine_model(b->o->args, &b->e);
    if (status != STATUS_OK) return status;
    times[LOAD] = seconds() - at;
    at = seconds();
    status = engine_session(b->o->args, b->n_ctx, b->n_seq, &b->e);
    if (status != STATUS_OK) return status;
    vkm_result r = make_pipelines(b, &err);
    times[PIPELINES] = seconds() - at;
    b->n = b->pp.n ? b->pp.of[0] : 1;
    snprintf(b->test, sizeof b->test, "%s%u", b->pp.n ? "pp" : "tg", b->n);
    if (r == VKM_OK) status = make_tokens(b, b->n_ctx > b->n_seq ? b->n_ctx : b->n_seq);
    at = seconds();
    if (r == VKM_OK && status == STATUS_OK) r = run_first_token(b, &unused, &err);
    times[FIRST] = seconds() - at;
    return r != VKM_OK ? give_up(b, r, &err) : status;
}

/* Starts again and again, with a cold or a warm cache, within the budget; leaves the last engine open when asked to. */
static int measure_start(struct bench *b, struct caches *c, bool cold, bool stay)
{
    struct starts *s = &b->starts[!cold];
    uint32_t most = b->o->policy.max_runs < STARTS ? b->o->policy.max_runs : STARTS;
    double began = seconds();
    int status = STATUS_OK;
    for (bool more = true; more && status == STATUS_OK; ) {
        if (cold) {
            caches_close(c);
            status = caches_open(c);
        }
        if (status == STATUS_OK) status = start(b, c->file, s->runs[s->n]);
        if (status == STATUS_OK && interrupted()) status = fail("interrupted");
        if (status == STATUS_OK) s->n++;
        b->file_bytes = b->e.info.file_bytes;
        more = s->n < most && seconds() - began < b->o->args->budget;    /* also where -r gives the runs: cold starts may take minutes */
        if (status != STATUS_OK || more || !stay) status = engine_close(&b->e, status);
    }
    return status;
}

/* Behind the tests, which are what is looked for first. */
static void report_starts(struct bench *b)
{
    static const char *const names[PHASES] = {"open device", "load", "pipelines", "first prompt"};
    for (int warm = 0; warm < 2; warm++) {
        const struct starts *s = &b->starts[warm];
        double values[STARTS];
        if (s->n == 0) continue;
        struct bench_row *row = bench_row_add(b->report, "model", "start=%s", warm ? "warm" : "cold");
        for (int phase = 0; phase < PHASES; phase++) {
            for (uint32_t i = 0; i < s->n; i++) values[i] = s->runs[i][phase];
            struct bench_stat stat = bench_stat_of(values, s->n);
            bench_time(row, names[phase], &stat);
            if (phase == LOAD) bench_rate(row, "load rate", "GB/s", 1e-9 * (double)b->file_bytes, &stat);
        }
    }
}

/* ---------------------------------------------------------------- */

static void describe(struct bench *b)
{
    const vkm_model_info *info = &b->e.info;
    const char *path = model_path(b->o->args), *slash = path ? strrchr(path, '/') : NULL;
    bench_note(b->report, "model", "%s, %.4g G parameters, %.4g GB (%s)", info->architecture, 1e-9 * (double)info->n_params, 1e-9 * (double)info->file_bytes,
               slash ? slash + 1 : path ? path : "unknown");
    bench_note(b->report, "kv", "%s", b->o->args->kv);
    bench_note(b->report, "tiles", b->e.session->is_tuned ? "tuned" : "not tuned");
}

static void memory_row(struct bench *b)
{
    struct bench_row *row = bench_row_add(b->report, "model", "memory=peak");
    bench_count(row, "host", "B", system_peak_bytes(), -1);
    bench_count(row, "device", "B", (double)vkm_device_allocated(b->e.device), -1);
}

static int run_tests(struct bench *b)
{
    vkm_error err = {0};
    int status = STATUS_OK;
    if (!b->o->args->quick && bench_ceilings(b->o, b->e.device, b->report, &err) != VKM_OK) status = interrupted() ? fail("interrupted") : fail_error(&err);
    for (uint32_t i = 0; i < b->pp.n && status == STATUS_OK; i++) {
        b->n = b->pp.of[i];
        status = measure_prompt(b);
    }
    for (uint32_t i = 0; i < b->tg.n && status == STATUS_OK; i++) {
        b->n = b->tg.of[i];
        for (uint32_t k = 0; k < (b->together.n ? b->together.n : 1) && status == STATUS_OK; k++) {
            b->batch = b->together.n ? b->together.of[k] : 1;
            status = measure_generation(b);
        }
    }
    if (status == STATUS_OK) memory_row(b);
    return status;
}

int bench_model(const struct bench_options *o, struct bench_report *report)
{
    struct args args = *o->args;
    struct bench_options options = *o;
    options.args = &args;
    struct bench *b = calloc(1, sizeof *b);
    struct caches caches = {0};
    if (!b) return fail("out of memory");
    *b = (struct bench){.o = &options, .report = report};
    if (!args.kv) args.kv = "f16";
    int status = parse_list("-p", args.pp ? args.pp : "512", MOST_TOKENS, &b->pp);
    if (status == STATUS_OK) status = parse_list("-n", args.tg ? args.tg : "128", MOST_TOKENS, &b->tg);
    if (status == STATUS_OK && args.sequences) status = parse_list("-b", args.sequences, MOST_SEQUENCES, &b->together);
    if (status == STATUS_OK && b->pp.n + b->tg.n == 0) status = fail_usage("bench model", "-p and -n leave nothing to measure");
    for (uint32_t i = 0; i < b->pp.n; i++)
        if (b->pp.of[i] + 1 > b->n_ctx) b->n_ctx = b->pp.of[i] + 1;
    for (uint32_t i = 0; i < b->tg.n; i++)
        if (b->tg.of[i] + 1 > b->n_ctx) b->n_ctx = b->tg.of[i] + 1;
    b->n_seq = 1;
    for (uint32_t i = 0; i < b->together.n; i++)
        if (b->together.of[i] > b->n_seq) b->n_seq = b->together.of[i];
    b->generations = calloc(b->n_seq, sizeof *b->generations);
    if (status == STATUS_OK && !b->generations) status = fail("out of memory");
    if (status == STATUS_OK && args.quick) {
        double unused[PHASES];
        char cache[4096];
        status = start(b, cache_path(cache, sizeof cache), unused);
    } else if (status == STATUS_OK) {
        status = measure_start(b, &caches, true, false);
        if (status == STATUS_OK) status = measure_start(b, &caches, false, true);
    }
    if (status == STATUS_OK) describe(b);
    if (status == STATUS_OK) status = run_tests(b);
    report_starts(b);
    status = engine_close(&b->e, status);
    caches_close(&caches);
    free(b->tokens); free(b->generations);
    free(b);
    return status;
}
