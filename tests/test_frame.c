/* Sessions in a frame: the same bits whatever the slices, prompts that arrive in between, ends, cancelling, slices that are lost, budgets kept, nothing allocated while recording; sequences saved and
 * restored; memory estimated. */
#include "caller.h"
#include "harness.h"
#include "host/internal.h"
#include "model/frame.h"

enum { N = 4, TOKENS = 12, CTX = 96, MOST = CTX };

/* ---------------------------------------------------------------- allocations of this process, while they are counted: with glibc, and without sanitizers, which have the allocator */

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static bool counting;
static uint32_t allocations;
void *malloc(size_t n) { allocations += counting; return __libc_malloc(n); }
void *calloc(size_t n, size_t each) { allocations += counting; return __libc_calloc(n, each); }
void *realloc(void *p, size_t n) { allocations += counting; return __libc_realloc(p, n); }
#else
static bool counting;
static uint32_t allocations;
#endif

/* ---------------------------------------------------------------- what sequences are given and say */

struct talk { int32_t ids[N][MOST]; size_t n[N], stop_after[N]; };

static bool listen(void *user, uint32_t seq, int32_t id)
{
    struct talk *t = user;
    cr_assert(seq < N && t->n[seq] < MOST);
    t->ids[seq][t->n[seq]++] = id;
    return t->n[seq] != t->stop_after[seq];
}

static void open_model(struct rig *r, const char *caps, const char *arch, vkm_session_params p)
{
    char path[256];
    struct ref_testmodel o = ref_testmodel_default(arch);
    o.layers = 2;
    cr_assert(ref_testmodel_save(&o, path));
    rig_open(r, caps, path, p);
    unlink(path);
}

/* Prompts of one to 40 tokens, sampled in different ways. */
static uint32_t prompt_of(const struct rig *r, uint32_t i, int32_t *tokens)
{
    static const uint32_t lengths[N] = {21, 1, 40, 7};
    for (uint32_t k = 0; k < lengths[i]; k++) tokens[k] = (int32_t)((k * 7919 + i * 104729 + 13) % r->model->h.n_vocab);
    return lengths[i];
}

static vkm_generation generation_of(uint32_t seq, size_t n, vkm_sampling_params *s)
{
    *s = (vkm_sampling_params){.struct_size = sizeof *s, .seed = seq * 31 + 1, .temperature = seq % 2 ? 0.9f : 0};
    if (seq == 3) s->repeat_penalty = 1.3f, s->repeat_last_n = 256;
    return (vkm_generation){.struct_size = sizeof(vkm_generation), .seq = seq, .ignore_end = true, .sampling = s, .n_tokens = n};
}

/* Each alone, by the functions that wait. */
static void say_alone(struct rig *r, size_t n, struct talk *t)
{
    vkm_error err = {0};
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < N; i++) {
        int32_t tokens[64];
        vkm_sampling_params s;
        vkm_generation g = generation_of(i, n, &s);
        OK(vkm_session_rewind(r->session, i, 0, &err));
        OK(vkm_session_eval(r->session, i, tokens, prompt_of(r, i, tokens), NULL, &err));
        OK(vkm_session_generate(r->session, &g, 1, listen, t, &err));
        OK(vkm_session_rewind(r->session, i, 0, &err));
    }
}

static void queue(struct rig *r, uint32_t seq, size_t n)
{
    vkm_error err = {0};
    int32_t tokens[64];
    vkm_sampling_params s;
    uint32_t n_prompt = prompt_of(r, seq, tokens), half = n_prompt / 2;
    OK(vkm_session_queue_eval(r->session, seq, tokens, half, &err));                 /* in two parts */
    OK(vkm_session_queue_eval(r->session, seq, tokens + half, n_prompt - half, &err));
    vkm_generation g = generation_of(seq, n, &s);
    OK(vkm_session_queue_generate(r->session, &g, &err));
}

static void check_same_talk(const struct talk *a, const struct talk *b, const char *what)
{
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(a->n[i], b->n[i], "%s: sequence %u said %zu tokens, not %zu", what, i, b->n[i], a->n[i]);
        cr_assert_eq(memcmp(a->ids[i], b->ids[i], a->n[i] * 4), 0, "%s: sequence %u says something else", what, i);
    }
}

static vkm_sequence_status status(const struct rig *r, uint32_t seq)
{
    vkm_error err = {0};
    vkm_sequence_status s;
    OK(vkm_session_status(r->session, seq, &s, &err));
    return s;
}

/* One step; the number of its dispatches. */
static uint32_t step(struct rig *r, uint32_t max_dispatches, struct talk *t, bool *more)
{
    vkm_error err = {0};
    vkm_slice slice;
    OK(vkm_session_step(r->session, &(vkm_budget){.struct_size = sizeof(vkm_budget), .max_dispatches = max_dispatches}, &slice, listen, t, &err));
    cr_assert(!max_dispatches || slice.n_dispatches <= max_dispatches);
    cr_assert(!slice.number == !slice.n_dispatches);
    *more = slice.more;
    return slice.n_dispatches;
}

static uint32_t run_out(struct rig *r, uint32_t max_dispatches, struct talk *t)
{
    uint32_t n = 0;
    for (bool more = true; more;) n += step(r, max_dispatches, t, &more);
    for (uint32_t i = 0; i < N; i++) cr_assert(!status(r, i).generating && !status(r, i).n_queued && !status(r, i).n_ahead);
    return n;
}

static void forget_all(struct rig *r)
{
    vkm_error err = {0};
    for (uint32_t i = 0; i < N; i++) OK(vkm_session_rewind(r->session, i, 0, &err));
}

/* ---------------------------------------------------------------- slices */

Test(frame, slices_of_any_size_say_the_same)
{
    static const uint32_t sizes[] = {0, 1, 7, 2, 1000};
    struct rig r;
    struct talk right, t;
    open_model(&r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    say_alone(&r, TOKENS, &right);
    for (size_t i = 0; i < VKM_COUNT(sizes); i++) {
        bool more;
        char what[64];
        snprintf(what, sizeof what, "slices of %u", sizes[i]);
        memset(&t, 0, sizeof t);
        forget_all(&r);
        queue(&r, 0, TOKENS);
        queue(&r, 2, TOKENS);
        for (uint32_t k = 0; k < 1 + 100 / (sizes[i] ? sizes[i] : 200); k++) step(&r, sizes[i], &t, &more);
        queue(&r, 1, TOKENS);                                /* while others are at work */
        for (uint32_t k = 0; k < 1 + 70 / (sizes[i] ? sizes[i] : 200); k++) step(&r, sizes[i], &t, &more);
        queue(&r, 3, TOKENS);
        run_out(&r, sizes[i], &t);
        check_same_talk(&right, &t, what);
        for (uint32_t s = 0; s < N; s++) {
            int32_t tokens[64];
            cr_assert(status(&r, s).ending == VKM_END_LENGTH && status(&r, s).n_generated == TOKENS);
            cr_assert_eq(vkm_session_n_past(r.session, s), prompt_of(&r, s, tokens) + TOKENS);
        }
    }
    rig_close(&r);
}

/* Blocking calls in the middle of a pass: it begins again. And what was generated by slices goes on without, and back. */
Test(frame, goes_along_with_functions_that_wait)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    vkm_error err = {0};
    struct talk right, t = {0};
    int32_t tokens[64];
    bool more;
    open_model(&r, NULL, "olmoe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    say_alone(&r, TOKENS, &right);
    queue(&r, 0, TOKENS);
    queue(&r, 3, 5);
    for (uint32_t k = 0; k < 23; k++) {
        step(&r, 7, &t, &more);
        OK(vkm_session_rewind(r.session, 2, 0, &err));
        OK(vkm_session_eval(r.session, 2, tokens, prompt_of(&r, 2, tokens), NULL, &err));
    }
    FAILS(vkm_session_eval(r.session, 0, tokens, 1, NULL, &err), VKM_ERR_ARGUMENT);     /* has queued work */
    FAILS(vkm_session_rewind(r.session, 0, 0, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_copy(r.session, 2, 0, 1, &err), VKM_ERR_ARGUMENT);
    run_out(&r, 0, &t);
    vkm_sampling_params s;
    vkm_generation g = generation_of(3, TOKENS - 5, &s);
    OK(vkm_session_generate(r.session, &g, 1, listen, &t, &err));                       /* the rest of it */
    g = generation_of(2, 4, &s);
    OK(vkm_session_generate(r.session, &g, 1, listen, &t, &err));
    g = generation_of(2, TOKENS - 4, &s);
    OK(vkm_session_queue_generate(r.session, &g, &err));
    OK(vkm_session_copy(r.session, 2, 1, 5, &err));
    OK(vkm_session_rewind(r.session, 1, 0, &err));
    queue(&r, 1, TOKENS);
    run_out(&r, 40, &t);
    check_same_talk(&right, &t, "in turns");
    rig_close(&r);
}

Test(frame, ends)
{
    struct rig r;
    vkm_error err = {0};
    struct talk right, t = {0};
    int32_t tokens[CTX];
    bool more;
    open_model(&r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    say_alone(&r, 20, &right);
    t.stop_after[0] = 5;
    for (uint32_t i = 0; i < N; i++) queue(&r, i, i == 2 ? 0 : 20);          /* 2: until the context is full */
    while (t.n[3] < 3) step(&r, 30, &t, &more);
    OK(vkm_session_cancel(r.session, 3, &err));
    size_t cancelled = t.n[3];
    run_out(&r, 0, &t);
    cr_assert(t.n[0] == 5 && t.n[1] == 20 && t.n[2] == CTX - 40 && t.n[3] == cancelled);
    const vkm_ending endings[N] = {VKM_END_CALLER, VKM_END_LENGTH, VKM_END_CONTEXT, VKM_END_CANCELLED};
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(status(&r, i).ending, endings[i]);
        cr_assert_eq(vkm_session_n_past(r.session, i), prompt_of(&r, i, tokens) + t.n[i]);
        cr_assert_eq(memcmp(t.ids[i], right.ids[i], (t.n[i] < 20 ? t.n[i] : 20) * 4), 0);
    }
    /* what ended early goes on where it was, though slices had gone further */
    vkm_sampling_params s;
    vkm_generation g = generation_of(0, 15, &s), h = generation_of(3, 20 - cancelled, &(vkm_sampling_params){0});
    vkm_sampling_params hs;
    h = generation_of(3, 20 - cancelled, &hs);
    OK(vkm_session_queue_generate(r.session, &g, &err));
    OK(vkm_session_queue_generate(r.session, &h, &err));
    FAILS(vkm_session_queue_generate(r.session, &h, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_queue_eval(r.session, 3, tokens, 1, &err), VKM_ERR_ARGUMENT);
    run_out(&r, 0, &t);
    cr_assert_eq(memcmp(t.ids[0], right.ids[0], 20 * 4), 0);
    cr_assert_eq(memcmp(t.ids[3], right.ids[3], 20 * 4), 0);

    /* a prompt that is cancelled in the middle keeps what was evaluated; the rest can be said again */
    OK(vkm_session_rewind(r.session, 2, 0, &err));
    t.n[2] = 0;
    queue(&r, 2, 20);
    while (status(&r, 2).n_past < 16) step(&r, 11, &t, &more);
    OK(vkm_session_cancel(r.session, 2, &err));
    uint32_t kept = vkm_session_n_past(r.session, 2);
    cr_assert(kept >= 16 && kept < 40 && status(&r, 2).n_queued == 0);
    step(&r, 0, &t, &more);
    cr_assert(!more);
    prompt_of(&r, 2, tokens);
    OK(vkm_session_queue_eval(r.session, 2, tokens + kept, 40 - kept, &err));
    g = generation_of(2, 20, &s);
    OK(vkm_session_queue_generate(r.session, &g, &err));
    run_out(&r, 0, &t);
    cr_assert_eq(memcmp(t.ids[2], right.ids[2], 20 * 4), 0);

    /* limits */
    memset(tokens, 0, sizeof tokens);
    FAILS(vkm_session_queue_eval(r.session, 1, tokens, CTX, &err), VKM_ERR_CONTEXT_FULL);
    tokens[0] = -1;
    FAILS(vkm_session_queue_eval(r.session, 1, tokens, 1, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_queue_eval(r.session, N, tokens, 1, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_queue_eval(r.session, 1, NULL, 1, &err), VKM_ERR_ARGUMENT);
    OK(vkm_session_rewind(r.session, 1, 0, &err));
    g = generation_of(1, 3, &s);
    FAILS(vkm_session_queue_generate(r.session, &g, &err), VKM_ERR_ARGUMENT);           /* empty */
    FAILS(vkm_session_queue_generate(r.session, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_cancel(r.session, N, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_prepare(r.session, 1, N + 1, &err), VKM_ERR_ARGUMENT);
    vkm_slice slice = {.number = 1000000};
    FAILS(vkm_session_completed(r.session, &slice, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_step(r.session, NULL, NULL, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_record(r.session, NULL, NULL, &slice, &err), VKM_ERR_ARGUMENT);
    rig_close(&r);
}

/* An end-of-generation token ends a sequence in the middle of a slice that goes further. Hot sequences, of which some meet one with some seed. */
Test(frame, end_of_generation)
{
    FULL_ONLY();
    struct rig r;
    vkm_error err = {0};
    struct talk right, t = {0};
    vkm_sampling_params s[N];
    vkm_generation g[N];
    int32_t tokens[64];
    uint32_t ended = 0, seed = 0;
    open_model(&r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    for (; !ended || ended == N; seed += N) {
        cr_assert(seed < 50 * N, "no seed leads to an end token");
        memset(&right, 0, sizeof right);
        for (uint32_t i = 0; i < N; i++) {
            s[i] = (vkm_sampling_params){.struct_size = sizeof *s, .temperature = 50, .seed = seed + i};
            g[i] = (vkm_generation){.struct_size = sizeof *g, .seq = i, .sampling = &s[i], .n_tokens = 50};
            OK(vkm_session_rewind(r.session, i, 0, &err));
            OK(vkm_session_eval(r.session, i, tokens, prompt_of(&r, i, tokens), NULL, &err));
        }
        OK(vkm_session_generate(r.session, g, N, listen, &right, &err));
        ended = 0;
        for (uint32_t i = 0; i < N; i++) ended += right.ids[i][right.n[i] - 1] == 2;
    }
    forget_all(&r);
    for (uint32_t i = 0; i < N; i++) {
        OK(vkm_session_queue_eval(r.session, i, tokens, prompt_of(&r, i, tokens), &err));
        OK(vkm_session_queue_generate(r.session, &g[i], &err));
    }
    run_out(&r, 0, &t);
    check_same_talk(&right, &t, "until their end tokens");
    for (uint32_t i = 0; i < N; i++) cr_assert_eq(status(&r, i).ending, t.ids[i][t.n[i] - 1] == 2 ? VKM_END_TOKEN : VKM_END_LENGTH);
    rig_close(&r);
}

/* A beginning that all have in common is computed once. */
Test(frame, shared_beginnings_are_computed_once)
{
    enum { COMMON = 37 };
    struct rig r;
    vkm_error err = {0};
    uint32_t dispatches[2];
    struct talk right = {0}, t = {0};
    int32_t tokens[N][COMMON + 4];
    open_model(&r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    for (uint32_t i = 0; i < N; i++) {
        some_tokens(tokens[i], COMMON + 4, r.model->h.n_vocab);
        for (uint32_t k = COMMON; k < COMMON + 4; k++) tokens[i][k] = (int32_t)(5 + 10 * i + k);
    }
    for (uint32_t i = 0; i < N; i++) {
        vkm_sampling_params s;
        vkm_generation g = generation_of(i, 6, &s);
        OK(vkm_session_eval(r.session, i, tokens[i], COMMON + 4, NULL, &err));
        OK(vkm_session_generate(r.session, &g, 1, listen, &right, &err));
    }
    for (int apart = 0; apart < 2; apart++) {
        memset(&t, 0, sizeof t);
        forget_all(&r);
        dispatches[apart] = 0;
        for (uint32_t i = 0; i < N; i++) {
            vkm_sampling_params s;
            vkm_generation g = generation_of(i, 6, &s);
            OK(vkm_session_queue_eval(r.session, i, tokens[i], apart ? 1 : COMMON + 4, &err));
            if (apart) dispatches[1] += run_out(&r, 0, &t);
            if (apart) OK(vkm_session_queue_eval(r.session, i, tokens[i] + 1, COMMON + 3, &err));   /* a sequence that is not empty is not copied into */
            OK(vkm_session_queue_generate(r.session, &g, &err));
        }
        dispatches[apart] += run_out(&r, apart ? 0 : 3, &t);
        check_same_talk(&right, &t, apart ? "apart" : "shared");
    }
    cr_assert(dispatches[0] < dispatches[1], "%u dispatches where the prompt is shared, %u where not", dispatches[0], dispatches[1]);
    rig_close(&r);
}

/* ---------------------------------------------------------------- into a command buffer of the caller's */

/* A program with its own instance, device, queue, and two frames in flight. */
struct host {
    struct caller c;
    VkCommandPool pool;
    VkCommandBuffer commands[2];
    VkFence fences[2];
    vkm_device *moe;
    struct driver_log log;
};
#define VK(h, name) CALLER_VK(&(h)->c, name)

static void open_host(struct host *h)
{
    *h = (struct host){0};
    caller_open_instance(&h->c, VK_API_VERSION_1_3);
    caller_want(&h->c);
    cr_assert_eq(VK(h, CreateCommandPool)(h->c.device, &(VkCommandPoolCreateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                                       .queueFamilyIndex = h->c.family}, NULL, &h->pool), VK_SUCCESS);
    cr_assert_eq(VK(h, AllocateCommandBuffers)(h->c.device, &(VkCommandBufferAllocateInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = h->pool, .commandBufferCount = 2}, h->commands), VK_SUCCESS);
    for (int i = 0; i < 2; i++) cr_assert_eq(VK(h, CreateFence)(h->c.device, &(VkFenceCreateInfo){.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .flags = VK_FENCE_CREATE_SIGNALED_BIT}, NULL, &h->fences[i]), VK_SUCCESS);
    h->moe = caller_import(&h->c, NULL, &h->log);
}

static void close_host(struct host *h)
{
    vkm_device_destroy(h->moe);
    for (int i = 0; i < 2; i++) VK(h, DestroyFence)(h->c.device, h->fences[i], NULL);
    VK(h, DestroyCommandPool)(h->c.device, h->pool, NULL);
    caller_close(&h->c);
}

/* Frame k: waits for the one before the last, whose slice is then completed, and records and submits the next. lost: it is never submitted. False: nothing is left. */
static bool draw(struct host *h, struct rig *r, uint32_t k, const vkm_budget *budget, vkm_slice slices[2], struct talk *t, bool lost)
{
    vkm_error err = {0};
    VkCommandBuffer commands = h->commands[k % 2];
    cr_assert_eq(VK(h, WaitForFences)(h->c.device, 1, &h->fences[k % 2], VK_TRUE, UINT64_MAX), VK_SUCCESS);
    if (budget && budget->max_us) slices[k % 2].measured_us = slices[k % 2].expected_us;        /* how many frames it takes shall not depend on what else the machine does */
    OK(vkm_session_completed(r->session, &slices[k % 2], listen, t, &err));
    if (slices[k % 2].number && vkm_device_caps(r->device)->timestamp_bits) cr_assert_gt(slices[k % 2].measured_us, 0);
    cr_assert_eq(VK(h, BeginCommandBuffer)(commands, &(VkCommandBufferBeginInfo){.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT}), VK_SUCCESS);
    slices[k % 2] = (vkm_slice){0};
    OK(vkm_session_record(r->session, commands, budget, &slices[k % 2], &err));
    cr_assert_eq(VK(h, EndCommandBuffer)(commands), VK_SUCCESS);
    if (lost) {
        cr_assert_eq(VK(h, WaitForFences)(h->c.device, 2, h->fences, VK_TRUE, UINT64_MAX), VK_SUCCESS);
        OK(vkm_session_completed(r->session, &slices[(k + 1) % 2], listen, t, &err));
        OK(vkm_session_discard(r->session, &err));
        slices[0] = slices[1] = (vkm_slice){0};
        return true;
    }
    cr_assert_eq(VK(h, ResetFences)(h->c.device, 1, &h->fences[k % 2]), VK_SUCCESS);
    cr_assert_eq(VK(h, QueueSubmit)(h->c.queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands}, h->fences[k % 2]), VK_SUCCESS);
    return slices[0].number || slices[1].number;
}

Test(frame, in_frames_of_a_caller)
{
    struct host h;
    struct rig r = {0};
    vkm_error err = {0};
    struct talk right, t;
    char path[256];
    struct ref_testmodel o = ref_testmodel_default("qwen3moe");
    o.layers = 2;
    cr_assert(ref_testmodel_save(&o, path));
    open_host(&h);
    r.device = h.moe;
    rig_load(&r, path);
    unlink(path);
    rig_session(&r, (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    say_alone(&r, TOKENS, &right);
    OK(vkm_session_prepare(r.session, 0, 0, &err));
    const vkm_budget budgets[] = {{.struct_size = sizeof *budgets, .max_dispatches = 13}, {.struct_size = sizeof *budgets, .max_us = 20000}, {.struct_size = sizeof *budgets, .max_dispatches = 29}};
    for (uint32_t turn = 0; turn < 3; turn++) {
        vkm_slice slices[2] = {{0}};
        uint32_t k = 0;
        memset(&t, 0, sizeof t);
        forget_all(&r);
        for (uint32_t i = 0; i < N; i++) queue(&r, i, TOKENS);
        while (draw(&h, &r, k, &budgets[turn], slices, &t, turn == 2 && k % 5 == 4)) k++;      /* the last time every fifth frame is dropped */
        draw(&h, &r, k + 1, NULL, slices, &t, false);
        if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "turn %u: %u frames\n", turn, k);
        check_same_talk(&right, &t, turn == 0 ? "by dispatches" : turn == 1 ? "by time" : "with dropped frames");
        cr_assert_eq(VK(&h, WaitForFences)(h.c.device, 2, h.fences, VK_TRUE, UINT64_MAX), VK_SUCCESS);
    }
    /* in flight: what waits is refused, what does not is not */
    vkm_slice slices[2] = {{0}};
    int32_t tokens[64];
    prompt_of(&r, 0, tokens);
    OK(vkm_session_rewind(r.session, 0, 0, &err));
    queue(&r, 0, TOKENS);
    draw(&h, &r, 0, NULL, slices, &t, false);
    FAILS(vkm_session_eval(r.session, 1, tokens, 1, NULL, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_step(r.session, NULL, &slices[1], NULL, NULL, &err), VKM_ERR_ARGUMENT);
    OK(vkm_session_rewind(r.session, 1, 0, &err));
    OK(vkm_session_cancel(r.session, 0, &err));
    cr_assert_eq(VK(&h, WaitForFences)(h.c.device, 2, h.fences, VK_TRUE, UINT64_MAX), VK_SUCCESS);
    memset(&t, 0, sizeof t);
    OK(vkm_session_completed(r.session, &slices[0], listen, &t, &err));
    cr_assert_eq(t.n[0], 0);                                   /* cancelled */
    OK(vkm_session_eval(r.session, 1, tokens, 1, NULL, &err));
    rig_unload(&r);
    close_host(&h);
}

/* ---------------------------------------------------------------- a device that does nothing: what is called, and how a budget is kept */

static struct { uint32_t forbidden, commands; double us, per_dispatch, per_group, per_indirect; } null_device;
static void VKAPI_CALL trap(void) { null_device.forbidden++; }
static void VKAPI_CALL nothing(void) { null_device.commands++; }
static VkResult VKAPI_CALL not_ready(VkDevice d, VkQueryPool p, uint32_t first, uint32_t n, size_t size, void *data, VkDeviceSize stride, VkQueryResultFlags flags)
{
    (void)d, (void)p, (void)first, (void)n, (void)size, (void)data, (void)stride, (void)flags;
    return VK_NOT_READY;
}
static void VKAPI_CALL dispatch(VkCommandBuffer c, uint32_t x, uint32_t y, uint32_t z) { (void)c; null_device.commands++; null_device.us += null_device.per_dispatch + null_device.per_group * x * y * z; }
static void VKAPI_CALL dispatch_base(VkCommandBuffer c, uint32_t bx, uint32_t by, uint32_t bz, uint32_t x, uint32_t y, uint32_t z) { (void)bx, (void)by, (void)bz; dispatch(c, x, y, z); }
static void VKAPI_CALL dispatch_indirect(VkCommandBuffer c, VkBuffer b, VkDeviceSize at) { (void)c, (void)b, (void)at; null_device.commands++; null_device.us += null_device.per_indirect; }

/* All of the device's functions do nothing; those that are no commands are counted. Returns what was there. */
static struct vkm_device_functions unplug(vkm_device *device)
{
    struct vkm_device_functions real = device->vk;
    vkm_void_fn *all = (vkm_void_fn *)&device->vk;
    for (size_t i = 0; i < sizeof device->vk / sizeof *all; i++) all[i] = trap;
#define COMMAND(name) device->vk.vk##name = (PFN_vk##name)nothing
    COMMAND(CmdPipelineBarrier); COMMAND(CmdCopyBuffer); COMMAND(CmdUpdateBuffer); COMMAND(CmdFillBuffer); COMMAND(CmdBindPipeline); COMMAND(CmdBindDescriptorSets); COMMAND(CmdPushConstants);
    COMMAND(CmdResetQueryPool); COMMAND(CmdWriteTimestamp); COMMAND(CmdBeginDebugUtilsLabelEXT); COMMAND(CmdEndDebugUtilsLabelEXT);
    device->vk.vkCmdDispatch = dispatch;
    device->vk.vkCmdDispatchBase = dispatch_base;
    device->vk.vkCmdDispatchIndirect = dispatch_indirect;
    device->vk.vkGetQueryPoolResults = not_ready;
    memset(&null_device, 0, sizeof null_device);
    return real;
}

/* Recording calls nothing but commands and allocates nothing (see above), in any state of the queue. On every driver: on the first there are sanitizers. */
Test(frame, recording_allocates_submits_and_waits_for_nothing)
{
    struct rig r;
    vkm_error err = {0};
    struct talk right, t = {0};
    open_model(&r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    say_alone(&r, TOKENS, &right);
    for (uint32_t i = 0; i < N; i++) queue(&r, i, TOKENS);
    struct vkm_device_functions real = unplug(r.device);
    for (uint32_t k = 0; k < VKM_SLICES + 2; k++) {
        vkm_slice slice;
        vkm_result result;
        counting = true;
        result = vkm_session_record(r.session, &null_device, &(vkm_budget){.struct_size = sizeof(vkm_budget), .max_dispatches = k % 4 == 3 ? 0 : 1 + 9 * k}, &slice, &err);
        counting = false;
        cr_assert_eq(result, VKM_OK);
        cr_assert_eq(slice.number, k < VKM_SLICES && slice.n_dispatches ? k + 1 : 0);     /* the last ones are too many */
    }
    cr_assert(null_device.commands > 500, "%u", null_device.commands);
    cr_assert_eq(null_device.forbidden, 0, "%u calls that are no commands", null_device.forbidden);
    cr_assert_eq(allocations, 0, "%u allocations", allocations);
    r.device->vk = real;
    OK(vkm_session_discard(r.session, &err));                  /* none of it was executed */
    run_out(&r, 0, &t);
    check_same_talk(&right, &t, "after all that was lost");
    rig_close(&r);
}

static int by_value(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return x < y ? -1 : x > y; }

/* A session whose device takes known times for dispatches. Returns the device's functions as they were. */
static struct vkm_device_functions open_timed(struct rig *r)
{
    vkm_error err = {0};
    open_model(r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = N, .n_batch = 16});
    OK(vkm_session_prepare(r->session, 0, 0, &err));
    struct vkm_device_functions real = unplug(r->device);
    memset(vkm_buffer_map(r->session->readback), 0, vkm_buffer_size(r->session->readback));
    r->device->vk.vkInvalidateMappedMemoryRanges = (PFN_vkInvalidateMappedMemoryRanges)nothing;
    return real;
}

/* Someone always has something to say, and to be told. */
static void keep_talking(struct rig *r)
{
    vkm_error err = {0};
    for (uint32_t i = 0; i < N; i++)
        if (!status(r, i).generating && !status(r, i).n_queued) {
            OK(vkm_session_rewind(r->session, i, 0, &err));
            queue(r, i, 10 + i);
        }
}

/* Without a budget a slice is whole passes, however long steps were guessed to take; and what is learnt from nothing but whole slices, of which the first take a thousand times as long, comes to be right. */
Test(frame, slices_without_a_budget_are_whole_passes)
{
    FIRST_DRIVER_ONLY();
    enum { SLICES = 300, SLOW = 10, SKIP = 200 };
    struct rig r;
    vkm_error err = {0};
    struct vkm_device_functions real = open_timed(&r);
    for (uint32_t k = 0; k < SLICES; k++) {
        vkm_slice slice;
        keep_talking(&r);
        null_device.us = 0;
        null_device.per_dispatch = 20, null_device.per_group = 5, null_device.per_indirect = 150;
        OK(vkm_session_record(r.session, &null_device, NULL, &slice, &err));
        cr_assert(slice.number && r.session->frame->pass.kind == VKM_PASS_NONE, "slice %u ends inside a pass, after %u dispatches", k, slice.n_dispatches);
        slice.measured_us = null_device.us * (k < SLOW ? 1000 : 1);
        if (k >= SKIP) cr_assert(slice.expected_us > 0.5 * slice.measured_us && slice.expected_us < 2 * slice.measured_us, "slice %u: %g us expected, %g taken", k, slice.expected_us, slice.measured_us);
        OK(vkm_session_completed(r.session, &slice, NULL, NULL, &err));
    }
    r.device->vk = real;
    rig_close(&r);
}

/* On a device whose dispatches take known times, with a disturbance, and which tells them only of whole slices: once some have been seen a slice takes no longer than its budget 19 times of 20, and not much less. */
Test(frame, budgets_of_time_are_kept)
{
    FIRST_DRIVER_ONLY();
    enum { SLICES = 600, SKIP = 200 };
    struct rig r;
    vkm_error err = {0};
    struct vkm_device_functions real = open_timed(&r);
    static const struct { uint32_t budget; double per_dispatch, per_group, per_indirect; } devices[] = {{2000, 20, 5, 150}, {500, 2, 0.3, 10}, {300, 1, 2, 30}};
    for (size_t d = 0; d < VKM_COUNT(devices); d++) {
        double taken[SLICES], sum = 0;
        uint32_t seed = 1;
        for (uint32_t k = 0; k < SLICES; k++) {
            vkm_slice slice;
            keep_talking(&r);
            null_device.us = 0;
            null_device.per_dispatch = devices[d].per_dispatch, null_device.per_group = devices[d].per_group, null_device.per_indirect = devices[d].per_indirect;
            OK(vkm_session_record(r.session, &null_device, &(vkm_budget){.struct_size = sizeof(vkm_budget), .max_us = devices[d].budget}, &slice, &err));
            cr_assert(slice.number);
            seed = seed * 1664525 + 1013904223;
            taken[k] = slice.measured_us = null_device.us * (0.95 + 0.1 * (seed >> 8) / 0x1p24);
            OK(vkm_session_completed(r.session, &slice, NULL, NULL, &err));
        }
        qsort(taken + SKIP, SLICES - SKIP, sizeof *taken, by_value);
        for (uint32_t k = SKIP; k < SLICES; k++) sum += taken[k];
        double p95 = taken[SKIP + (SLICES - SKIP) * 95 / 100], mean = sum / (SLICES - SKIP);
        if (getenv("VKMOE_TEST_NUMBERS")) fprintf(stderr, "budget %u us: mean %.0f, 95th percentile %.0f\n", devices[d].budget, mean, p95);
        cr_assert(p95 < 1.2 * devices[d].budget, "budget %u us: %.0f at the 95th percentile", devices[d].budget, p95);
        cr_assert(mean > 0.6 * devices[d].budget, "budget %u us: %.0f on average", devices[d].budget, mean);
    }
    r.device->vk = real;
    rig_close(&r);
}

/* ---------------------------------------------------------------- save and restore */

static uint8_t *save(struct rig *r, uint32_t seq, size_t *n)
{
    vkm_error err = {0};
    *n = 0;
    OK(vkm_session_save(r->session, seq, NULL, n, &err));
    uint8_t *data = malloc(*n);
    size_t again = *n;
    cr_assert(data);
    OK(vkm_session_save(r->session, seq, data, &again, &err));
    cr_assert_eq(again, *n);
    return data;
}

Test(saved, goes_on_with_the_same_bits)
{
    FIRST_DRIVER_ONLY();
    static const uint32_t cuts[] = {1, 31, 32, 33, 64};
    for (int kv16 = 0; kv16 < 2; kv16++) {
        struct rig r;
        vkm_error err = {0};
        int32_t tokens[80];
        uint8_t *data[VKM_COUNT(cuts) + 2];
        size_t n[VKM_COUNT(cuts) + 2];
        struct talk right = {0}, t = {0};
        vkm_session_params p = {.n_ctx = CTX, .n_seq = 2, .kv_type = kv16 ? VKM_KV_F16 : VKM_KV_F32};
        open_model(&r, kv16 ? NULL : "staged", "qwen3moe", p);
        uint32_t n_vocab = r.model->h.n_vocab;
        some_tokens(tokens, 80, n_vocab);
        float *expected = eval_steps(&r, tokens, 80, 0), *got = malloc(16u * n_vocab * sizeof *got);
        cr_assert(got);
        for (size_t i = 0; i < VKM_COUNT(cuts); i++) {
            OK(vkm_session_rewind(r.session, 0, 0, &err));
            OK(vkm_session_eval(r.session, 0, tokens, cuts[i], NULL, &err));
            data[i] = save(&r, 0, &n[i]);
        }
        vkm_generation g = {.struct_size = sizeof g, .ignore_end = true, .n_tokens = 5};
        OK(vkm_session_generate(r.session, &g, 1, listen, &right, &err));       /* the last token is not evaluated */
        data[5] = save(&r, 0, &n[5]);
        data[6] = save(&r, 1, &n[6]);                                           /* empty */
        OK(vkm_session_generate(r.session, &g, 1, listen, &right, &err));
        p.n_ctx = 160, p.n_seq = 3;
        rig_session(&r, p);
        for (size_t i = 0; i < VKM_COUNT(cuts); i++) {
            OK(vkm_session_restore(r.session, 2, data[i], n[i], &err));
            cr_assert_eq(vkm_session_n_past(r.session, 2), cuts[i]);
            OK(vkm_session_eval(r.session, 2, tokens + cuts[i], 16, got, &err));
            check_same(expected + (size_t)cuts[i] * n_vocab, got, 16, n_vocab, "restored");
        }
        OK(vkm_session_restore(r.session, 1, data[4], n[4], &err));             /* generates from its kept row */
        g.seq = 1;
        OK(vkm_session_generate(r.session, &g, 1, listen, &t, &err));
        OK(vkm_session_restore(r.session, 1, data[5], n[5], &err));
        OK(vkm_session_generate(r.session, &g, 1, listen, &t, &err));
        cr_assert(t.n[1] == 10 && !memcmp(t.ids[1], right.ids[0], 10 * 4));
        OK(vkm_session_restore(r.session, 1, data[6], n[6], &err));
        cr_assert_eq(vkm_session_n_past(r.session, 1), 0);
        for (size_t i = 0; i < VKM_COUNT(data); i++) free(data[i]);
        free(expected);
        free(got);
        rig_close(&r);
    }
}

Test(saved, what_is_not_is_refused)
{
    FIRST_DRIVER_ONLY();
    struct rig r;
    vkm_error err = {0};
    int32_t tokens[40];
    size_t n;
    open_model(&r, NULL, "qwen3moe", (vkm_session_params){.n_ctx = CTX, .n_seq = 2});
    some_tokens(tokens, 40, r.model->h.n_vocab);
    OK(vkm_session_eval(r.session, 0, tokens, 40, NULL, &err));
    uint8_t *data = save(&r, 0, &n), *bad = malloc(n + 8);
    cr_assert(bad);
    size_t less = n - 1;
    memset(bad, 7, n);
    OK(vkm_session_save(r.session, 0, bad, &less, &err));                       /* too small: nothing is written */
    cr_assert(less == n && bad[0] == 7 && bad[n - 1] == 7);
    memset(bad, 0, n + 8);
    memcpy(bad, data, n);
    for (size_t k = 0; k < n; k += k < 200 ? 1 : 997) FAILS(vkm_session_restore(r.session, 1, bad, k, &err), VKM_ERR_FORMAT);
    FAILS(vkm_session_restore(r.session, 1, bad, n + 1, &err), VKM_ERR_FORMAT);
    for (size_t k = 0; k < n; k += k < 500 ? 1 : 499)
        for (int b = 0; b < 8; b += 3) {
            bad[k] ^= (uint8_t)(1 << b);
            err.message[0] = 0;
            vkm_result result = vkm_session_restore(r.session, 1, bad, n, &err);
            cr_assert(result == VKM_ERR_FORMAT || result == VKM_ERR_ARGUMENT || result == VKM_ERR_CONTEXT_FULL, "bit %d of byte %zu: %s", b, k, vkm_result_name(result));
            cr_assert(err.message[0]);
            bad[k] ^= (uint8_t)(1 << b);
        }
    /* one that lies about all of it with a right checksum: a token outside the vocabulary */
    int32_t id = (int32_t)r.model->h.n_vocab;
    memcpy(bad + 72 + 4 * 10, &id, 4);
    uint64_t model, sum;
    memcpy(&model, bad + 16, 8);
    sum = vkm_hash(model, bad + 72, n - 72);
    memcpy(bad + 32, &sum, 8);
    FAILS(vkm_session_restore(r.session, 1, bad, n, &err), VKM_ERR_FORMAT);
    cr_assert(strstr(err.message, "vocabulary"), "%s", err.message);
    cr_assert_eq(vkm_session_n_past(r.session, 1), 0);
    FAILS(vkm_session_restore(r.session, 2, data, n, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_restore(r.session, 1, NULL, n, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_session_save(r.session, 0, NULL, NULL, &err), VKM_ERR_ARGUMENT);
    rig_session(&r, (vkm_session_params){.n_ctx = 32});
    FAILS(vkm_session_restore(r.session, 0, data, n, &err), VKM_ERR_CONTEXT_FULL);
    rig_session(&r, (vkm_session_params){.n_ctx = CTX, .kv_type = VKM_KV_F32});
    FAILS(vkm_session_restore(r.session, 0, data, n, &err), VKM_ERR_ARGUMENT);
    rig_close(&r);

    struct ref_testmodel o = ref_testmodel_default("qwen3moe");                 /* of the same shape, with other weights */
    char path[256];
    o.layers = 2;
    o.seed++;
    cr_assert(ref_testmodel_save(&o, path));
    rig_open(&r, NULL, path, (vkm_session_params){.n_ctx = CTX});
    unlink(path);
    FAILS(vkm_session_restore(r.session, 0, data, n, &err), VKM_ERR_ARGUMENT);
    cr_assert(strstr(err.message, "another model"), "%s", err.message);
    rig_close(&r);
    free(data);
    free(bad);
}

/* ---------------------------------------------------------------- estimates */

Test(memory, what_is_estimated_is_allocated)
{
    static const char *const caps[] = {NULL, "staged", "range=65536,slabs=4,kv_slabs=2", "fp16,int8dot"};
    const vkm_session_params params[] = {{.n_ctx = 64}, {.n_ctx = 96, .n_seq = 5, .n_batch = 40, .kv_type = VKM_KV_F32}};
    struct ref_testmodel o = ref_testmodel_default("qwen2moe");
    char path[256];
    vkm_memory_needs m, plain;
    vkm_error err = {0};
    o.rope_freqs = true;
    cr_assert(ref_testmodel_save(&o, path));
    for (size_t c = 0; c < VKM_COUNT(caps); c++)
        for (size_t k = 0; k < VKM_COUNT(params); k++) {
            struct rig r;
            vkm_session_params p = params[k];
            p.struct_size = sizeof p;
            if (c == 2) p.n_batch = 8;
            rig_device(&r, caps[c]);
            vkm_result result = vkm_memory_estimate(r.device, path, &p, &m, &err);
            cr_assert_eq(vkm_device_allocated(r.device), 0);
            if (result == VKM_OK) {
                rig_load(&r, path);
                cr_assert_eq(vkm_device_allocated(r.device), m.weights);
                rig_session(&r, p);
                cr_assert_eq(vkm_device_allocated(r.device), m.total, "%s: %llu bytes are allocated, %llu were estimated", caps[c], (unsigned long long)vkm_device_allocated(r.device), (unsigned long long)m.total);
                cr_assert(m.total == m.weights + m.kv + m.workspace + m.readback && m.available > m.total);
                cr_assert_eq(m.staging > 0, !vkm_device_caps(r.device)->unified_memory);
            } else {                                           /* as the real thing */
                rig_load(&r, path);
                cr_assert_eq(vkm_session_create(r.model, &p, &r.session, &err), result);
            }
            if (c == 0) {
                OK(vkm_memory_estimate(NULL, path, &p, &plain, &err));
                cr_assert(plain.available == 0 && plain.staging > 0);
                cr_assert(plain.total < m.total + 8192 && m.total < plain.total + 8192, "%llu without a device, %llu with", (unsigned long long)plain.total, (unsigned long long)m.total);
            }
            rig_close(&r);
        }
    FAILS(vkm_memory_estimate(NULL, path, &(vkm_session_params){.struct_size = sizeof(vkm_session_params), .n_ctx = 1u << 30, .n_seq = 1}, &m, &err), VKM_ERR_LIMIT);
    FAILS(vkm_memory_estimate(NULL, NULL, NULL, &m, &err), VKM_ERR_ARGUMENT);
    FAILS(vkm_memory_estimate(NULL, "/nowhere/model.gguf", NULL, &m, &err), VKM_ERR_IO);
    unlink(path);
}
