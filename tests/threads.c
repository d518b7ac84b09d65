/* Threads that use the library as vkmoe.h allows, for ThreadSanitizer to watch; on null_driver.h, since true drivers are not instrumented: it would report what they do rightly in ways that it cannot see,
 * and overlook what is ours behind their locks. A program without Criterion, whose processes do not fit beside ThreadSanitizer's memory. It ends with "N passed, N failed, N skipped".
 *   threads MODEL.gguf     a model with a byte pair tokenizer, such as the bundled one */
#include "null_driver.h"
#include "reference/testmodel.h"
#include <unistd.h>

#define ROUNDS 3
#define COUNT(a) (sizeof(a) / sizeof *(a))

static pthread_mutex_t print = PTHREAD_MUTEX_INITIALIZER;
static atomic_int failures;
static char small[256];                        /* the path of a small model, written once before there are threads */
static const char *tokens_of;

static void failed(const char *what, const char *why)
{
    pthread_mutex_lock(&print);
    printf("%s: %s\n", what, why);
    pthread_mutex_unlock(&print);
    atomic_fetch_add(&failures, 1);
}
#define EXPECT(condition) do { if (!(condition)) failed(__func__, #condition); } while (0)
#define OK(call) do { vkm_error err_ = {0}, *err = &err_; if ((call) != VKM_OK) { failed(__func__, err_.message); return NULL; } } while (0)

static void run(void *(*const *bodies)(void *), void *const *users, size_t n)
{
    pthread_t threads[8];
    for (size_t i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, bodies[i], users[i])) abort();
    for (size_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* ---------------------------------------------------------------- a device, a model, a session on one thread, others beside it */

/* One VkDevice and the lock of its queue. */
struct owner { struct null_driver driver; pthread_mutex_t queue; atomic_int busy; };
static void lock(void *user) { pthread_mutex_lock(&((struct owner *)user)->queue); }
static void unlock(void *user) { pthread_mutex_unlock(&((struct owner *)user)->queue); }

static void open_owner(struct owner *o)
{
    *o = (struct owner){.driver.debug_utils = true};
    pthread_mutex_init(&o->queue, NULL);
    null_open(&o->driver);
}

static void close_owner(struct owner *o, const char *what)
{
    if (o->driver.wrong[0]) failed(what, o->driver.wrong);
    if (o->driver.objects) failed(what, "Vulkan objects are left");
    pthread_mutex_destroy(&o->queue);
    pthread_mutex_destroy(&o->driver.mutex);
}

/* The thread that is inside a vkm_ function is the one that logs. */
struct user { struct owner *owner; pthread_t thread; uint32_t n_lines; };
static void on_log(void *user, vkm_log_level level, const char *text)
{
    struct user *u = user;
    (void)level;
    if (!*text || !pthread_equal(u->thread, pthread_self())) failed("log", text);
    u->n_lines++;
}

static bool on_token(void *user, uint32_t seq, int32_t token) { (void)seq, (void)token; ++*(uint32_t *)user; return true; }

static vkm_result open_device(struct user *u, vkm_device **device, vkm_error *err)
{
    vkm_import import = null_import(&u->owner->driver);
    import.lock = lock, import.unlock = unlock, import.lock_user = u->owner;
    u->thread = pthread_self();
    return vkm_device_create(&(vkm_device_params){.struct_size = sizeof(vkm_device_params), .import = &import, .log = on_log, .log_user = u}, device, err);
}

static const int32_t prompt[6] = {1, 2, 3, 4, 5, 6};

/* All that a program does with one device, from begin to end. Loading and compiling use threads of their own. */
static void *live(void *user)
{
    struct user *u = user;
    for (int round = 0; round < ROUNDS; round++) {
        vkm_device *device;
        vkm_model *model;
        vkm_session *session;
        uint32_t n = 0;
        OK(open_device(u, &device, err));
        OK(vkm_model_load(device, small, &(vkm_model_params){.struct_size = sizeof(vkm_model_params), .n_threads = 3}, &model, err));
        OK(vkm_session_create(model, &(vkm_session_params){.struct_size = sizeof(vkm_session_params), .n_ctx = 32, .n_seq = 2}, &session, err));
        OK(vkm_session_eval(session, 0, prompt, 6, NULL, err));
        OK(vkm_session_copy(session, 0, 1, 6, err));
        vkm_generation g[2] = {{.struct_size = sizeof *g, .seq = 0, .n_tokens = 4, .ignore_end = true}, {.seq = 1, .n_tokens = 4, .ignore_end = true}};
        OK(vkm_session_generate(session, g, 2, on_token, &n, err));
        EXPECT(n == 8);
        vkm_session_destroy(session);
        vkm_model_destroy(model);
        vkm_device_destroy(device);
    }
    EXPECT(u->n_lines >= ROUNDS);
    atomic_fetch_sub(&u->owner->busy, 1);
    return NULL;
}

/* The caller's own work on the queue that vkmoe uses. */
static void *draw(void *user)
{
    struct owner *o = user;
    while (atomic_load(&o->busy) > 0) {
        lock(o);
        null_QueueSubmit((VkQueue)&o->driver.queue, 1, &(VkSubmitInfo){.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO}, VK_NULL_HANDLE);
        unlock(o);
    }
    return NULL;
}

static void devices_of_their_own(void)
{
    struct owner o[2];
    struct user u[2];
    for (int i = 0; i < 2; i++) open_owner(&o[i]), u[i] = (struct user){.owner = &o[i]};
    run((void *(*const[])(void *)){live, live}, (void *const[]){&u[0], &u[1]}, 2);
    for (int i = 0; i < 2; i++) close_owner(&o[i], __func__);
}

static void two_on_a_device_that_draws(void)
{
    struct owner o;
    open_owner(&o);
    struct user u[2] = {{.owner = &o}, {.owner = &o}};
    atomic_store(&o.busy, 2);
    run((void *(*const[])(void *)){live, live, draw}, (void *const[]){&u[0], &u[1], &o}, 3);
    close_owner(&o, __func__);
}

/* ---------------------------------------------------------------- sessions of one device in turns */

struct shared {
    struct user user;
    vkm_device *device;
    vkm_model *model;
    vkm_session *sessions[3];
    pthread_mutex_t turn;
    atomic_int next, busy;
};

static void take(struct shared *s) { pthread_mutex_lock(&s->turn); s->user.thread = pthread_self(); }
#define IN_TURN(call) do { take(s); vkm_error err_ = {0}, *err = &err_; if ((call) != VKM_OK) failed(__func__, err_.message); pthread_mutex_unlock(&s->turn); } while (0)

static void *speak(void *user)
{
    struct shared *s = user;
    vkm_session **mine = &s->sessions[atomic_fetch_add(&s->next, 1)];
    IN_TURN(vkm_session_create(s->model, &(vkm_session_params){.struct_size = sizeof(vkm_session_params), .n_ctx = 32, .n_seq = 2}, mine, err));
    for (int round = 0; *mine && round < 2 * ROUNDS; round++) {
        uint32_t n = 0;
        vkm_generation g = {.struct_size = sizeof g, .seq = 1, .n_tokens = 2, .ignore_end = true};
        IN_TURN(vkm_session_rewind(*mine, 0, 0, err));
        IN_TURN(vkm_session_eval(*mine, 0, prompt, 1 + (size_t)round, NULL, err));
        IN_TURN(vkm_session_copy(*mine, 0, 1, 1 + (uint32_t)round, err));
        IN_TURN(vkm_session_generate(*mine, &g, 1, on_token, &n, err));
        EXPECT(n == 2);
    }
    take(s);
    vkm_session_destroy(*mine);
    pthread_mutex_unlock(&s->turn);
    atomic_fetch_sub(&s->busy, 1);
    return NULL;
}

/* What vkmoe.h says "any thread" of. */
static void *look(void *user)
{
    struct shared *s = user;
    const vkm_tokenizer *t = vkm_model_tokenizer(s->model);
    char text[512];
    while (atomic_load(&s->busy) > 0) {
        vkm_device_info d;
        vkm_model_info m;
        int32_t ids[16];
        size_t n = COUNT(ids);
        vkm_device_get_info(s->device, &d);
        vkm_model_get_info(s->model, &m);
        EXPECT(vkm_device_validation_count(s->device) == 0 && d.usable && m.n_layer == 1);
        EXPECT(vkm_kernels_print(s->device, text, sizeof text) > sizeof text);
        OK(vkm_tokenize(t, "hello", 5, VKM_TOKENIZE_SPECIAL, ids, &n, err));
        EXPECT(n > 0 && !vkm_tokenizer_is_end(t, ids[n - 1] < 3 ? 3 : ids[n - 1]));
    }
    return NULL;
}

static void *open_shared(struct shared *s)
{
    OK(open_device(&s->user, &s->device, err));
    OK(vkm_model_load(s->device, small, NULL, &s->model, err));
    return s;
}

static void sessions_take_turns(void)
{
    struct owner o;
    open_owner(&o);
    struct shared s = {.user.owner = &o, .turn = PTHREAD_MUTEX_INITIALIZER, .busy = 3};
    if (open_shared(&s)) run((void *(*const[])(void *)){speak, speak, speak, look}, (void *const[]){&s, &s, &s, &s}, 4);
    vkm_model_destroy(s.model);
    vkm_device_destroy(s.device);
    pthread_mutex_destroy(&s.turn);
    close_owner(&o, __func__);
}

/* ---------------------------------------------------------------- one tokenizer */

static const char *const texts[] = {"The innkeeper's 12 hens, don't they sleep?  ", "\xc3\xa9t\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x8d\xba\n\n\tend", "\xff\xfe broken \xe2\x82", ""};

static void *tokenize(void *user)
{
    const vkm_tokenizer *t = user;
    for (int round = 0; round < 20 * ROUNDS; round++) {
        const char *text = texts[round % COUNT(texts)], *part;
        int32_t ids[128];
        size_t n = COUNT(ids), bytes, total = 0;
        vkm_detokenizer *d;
        OK(vkm_tokenize(t, text, strlen(text), VKM_TOKENIZE_PARSE, ids, &n, err));
        OK(vkm_detokenizer_create(t, false, &d, err));
        for (size_t i = 0; i < n; i++) {
            OK(vkm_detokenizer_push(d, ids[i], &part, &bytes, err));
            EXPECT(round % COUNT(texts) == 2 || !memcmp(part, text + total, bytes));
            total += bytes;
        }
        OK(vkm_detokenizer_flush(d, &part, &bytes, err));
        EXPECT(round % COUNT(texts) == 2 || total + bytes == strlen(text));
        vkm_detokenizer_destroy(d);
    }
    return NULL;
}

static void *open_tokenizer(vkm_tokenizer **t)
{
    OK(vkm_tokenizer_open(tokens_of, t, err));
    return *t;
}

static void one_tokenizer(void)
{
    vkm_tokenizer *t = NULL;
    if (open_tokenizer(&t)) run((void *(*const[])(void *)){tokenize, tokenize, tokenize, tokenize}, (void *const[]){t, t, t, t}, 4);
    vkm_tokenizer_destroy(t);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } tests[] = {
        {"devices of their own", devices_of_their_own}, {"two on a device that draws", two_on_a_device_that_draws}, {"sessions take turns", sessions_take_turns}, {"one tokenizer", one_tokenizer}};
    int n_passed = 0, n_failed = 0;
    struct ref_testmodel o = ref_testmodel_default("olmoe");
    o.layers = 1;
    if (argc != 2 || !ref_testmodel_save(&o, small)) return fprintf(stderr, "usage: threads MODEL.gguf\n"), 2;
    tokens_of = argv[1];
    for (size_t i = 0; i < COUNT(tests); i++) {
        int before = atomic_load(&failures);
        tests[i].run();
        if (atomic_load(&failures) == before) n_passed++;
        else n_failed++, printf("FAILED: %s\n", tests[i].name);
    }
    unlink(small);
    printf("%d passed, %d failed, 0 skipped\n", n_passed, n_failed);
    return n_failed != 0;
}
