/* A renderer with a tavern in it, whose guests are a language model's: drawn and thought in one device, one queue, and a frame's time. */
#include "overlay.h"
#include "stats.h"
#include "talk.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef ENGINE_WINDOW
#  include <GLFW/glfw3.h>
#endif

static const char usage[] =
    "usage: tavern [OPTION...]\n"
    "  --model FILE.gguf       default: the bundled Tavern Tales\n"
    "  --device N|NAME         a Vulkan device by its number or a part of its name; default: the best\n"
    "  --budget-ms B           GPU milliseconds a frame for inference; default 4\n"
    "  --characters N          1 to 16; default 12\n"
    "  --inference MODE[,...]  off, budget or free (no bound); several, one after the other, when headless. Default: budget\n"
    "  --pause S               seconds between an answer and the next question; default 3, headless 0\n"
    "  --monologue             nobody is asked again: all talk until their context is full\n"
    "  --validation            with VK_LAYER_KHRONOS_validation; its messages make the program fail\n"
    "  --headless              no window:\n"
    "    --frames N            frames of each mode; default 300\n"
    "    --tokens N            more frames of a mode that speaks, until so many tokens have come\n"
    "    --png FILE            the last frame as a picture\n"
    "    --json FILE           frame times and tokens; - is standard output\n"
    "keys: [ ] budget, + - characters, space off / budget / free, escape ends\n";

struct options {
    const char *model, *device, *png, *json;
    double budget_ms, pause;         /* pause: negative where it was not said */
    uint32_t characters, frames, tokens, n_modes;
    enum inference modes[INFERENCE_MODES];
    bool monologue, validation, headless;
};

struct app {
    struct options options;
    struct gpu gpu;
    struct renderer renderer;
    struct talk *talk;
    struct canvas canvas;
    struct overlay overlay;
    vkm_slice slices[FRAMES];        /* in the frames that are on the GPU */
    double began, scene;             /* when the last frame began; the scene's time */
    struct { double at; uint64_t tokens; } past[64];     /* of the last frames, for the rate */
    uint64_t n_frames;
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---------------------------------------------------------------- a frame */

/* Tokens a second over the last frames, at most about two seconds of them. */
static double token_rate(struct app *a, double now)
{
    const uint32_t n = sizeof a->past / sizeof *a->past;
    uint64_t tokens = talk_tokens(a->talk), first = a->n_frames < n - 1 ? a->n_frames : n - 1;
    a->past[a->n_frames % n].at = now;
    a->past[a->n_frames % n].tokens = tokens;
    while (first > 1 && now - a->past[(a->n_frames - first) % n].at > 2) first--;
    double since = now - a->past[(a->n_frames - first) % n].at;
    return since > 0 ? (double)(tokens - a->past[(a->n_frames - first) % n].tokens) / since : 0;
}

/* What the frame that was in this place took, and what its slice said. */
static void finish_frame(struct app *a, const struct frame *f, vkm_slice *slice, struct phase *phase, double frame_ms)
{
    bool was_full = slice->number && slice->more;
    talk_completed(a->talk, slice);
    if (f->draw_ms < 0) return;
    overlay_frame(&a->overlay, frame_ms, f->draw_ms, f->compute_ms);
    if (!phase) return;
    series_add(&phase->frame_ms, frame_ms);
    series_add(&phase->draw_ms, f->draw_ms);
    series_add(&phase->added_ms, f->compute_ms);
    if (was_full) series_add(&phase->slices, f->compute_ms);
}

/* phase, unless NULL, gets the figures of the frame that ended. */
static void run_frame(struct app *a, struct phase *phase)
{
    struct overlay *o = &a->overlay;
    struct frame *f = gpu_next(&a->gpu);
    vkm_slice *slice = &a->slices[f - a->gpu.frames];
    double now = seconds(), frame_ms = a->began > 0 ? (now - a->began) * 1000 : 0;
    a->scene += a->options.headless ? 1.0 / 60 : frame_ms / 1000;
    a->began = now;
    finish_frame(a, f, slice, phase, frame_ms);
    o->tokens_per_second = token_rate(a, now);
    o->load = talk_expert_load(a->talk);
    a->n_frames++;
    if (!gpu_begin(&a->gpu, f)) return;

    if (o->inference != INFERENCE_OFF) {
        talk_update(a->talk, o->n_people, a->scene);
        talk_record(a->talk, f->commands, o->inference == INFERENCE_BUDGET ? o->budget_ms : 0, slice);
    }
    const struct speech *speeches = talk_speeches(a->talk);
    o->n_speaking = 0;
    for (uint32_t i = 0; i < o->n_people; i++) o->n_speaking += speeches[i].is_speaking;
    a->canvas.n = 0;
    scene_draw(&a->canvas, a->scene, o->n_people, speeches);
    overlay_draw(&a->canvas, o);
    gpu_begin_drawing(&a->gpu, f);
    renderer_draw(&a->renderer, &a->gpu, f, &a->canvas);
    gpu_end(&a->gpu, f);
}

/* ---------------------------------------------------------------- with a window, and without */

#ifdef ENGINE_WINDOW
static void on_key(GLFWwindow *window, int key, int scancode, int action, int mods)
{
    struct overlay *o = &((struct app *)glfwGetWindowUserPointer(window))->overlay;
    (void)scancode, (void)mods;
    if (action == GLFW_RELEASE) return;
    switch (key) {
    case GLFW_KEY_ESCAPE: glfwSetWindowShouldClose(window, GLFW_TRUE); break;
    case GLFW_KEY_SPACE: o->inference = (o->inference + 1) % INFERENCE_MODES; break;
    case GLFW_KEY_LEFT_BRACKET: if (o->budget_ms > 0.1) o->budget_ms /= 1.25; break;
    case GLFW_KEY_RIGHT_BRACKET: if (o->budget_ms < 1000) o->budget_ms *= 1.25; break;
    case GLFW_KEY_MINUS: case GLFW_KEY_KP_SUBTRACT: if (o->n_people > 1) o->n_people--; break;
    case GLFW_KEY_EQUAL: case GLFW_KEY_KP_ADD: if (o->n_people < MOST_PEOPLE) o->n_people++; break;
    default: break;
    }
}

static void run_window(struct app *a)
{
    glfwSetWindowUserPointer(a->gpu.window, a);
    glfwSetKeyCallback(a->gpu.window, on_key);
    while (!glfwWindowShouldClose(a->gpu.window)) {
        glfwPollEvents();
        run_frame(a, NULL);
    }
}
#else
static void run_window(struct app *a) { (void)a; die("built without GLFW: --headless is what there is"); }
#endif

/* Some frames before those that count: what was in flight is of the mode before, and drivers compile what they see for the first time. */
enum { NOT_COUNTED = 8 };

static void run_headless(struct app *a, struct report *report)
{
    for (uint32_t i = 0; i < a->options.n_modes; i++) {
        struct phase *phase = &report->phases[report->n_phases++];
        phase->inference = a->overlay.inference = a->options.modes[i];
        for (uint32_t k = 0; k < NOT_COUNTED; k++) run_frame(a, NULL);
        double begin = a->began;
        uint64_t tokens = talk_tokens(a->talk);
        for (uint32_t k = 0; k < a->options.frames || (phase->inference != INFERENCE_OFF && phase->tokens < a->options.tokens); k++) {
            run_frame(a, phase);
            phase->tokens = talk_tokens(a->talk) - tokens;
        }
        phase->seconds = a->began - begin;
    }
    VK(vkDeviceWaitIdle(a->gpu.device));
}

/* ---------------------------------------------------------------- options */

static void parse_modes(struct options *o, const char *text)
{
    for (o->n_modes = 0; *text && o->n_modes < INFERENCE_MODES; text += *text == ',') {
        size_t n = strcspn(text, ",");
        int mode = 0;
        while (mode < INFERENCE_MODES && (strlen(inference_names[mode]) != n || memcmp(inference_names[mode], text, n))) mode++;
        if (mode == INFERENCE_MODES) die("there is no inference %.*s\n%s", (int)n, text, usage);
        o->modes[o->n_modes++] = (enum inference)mode;
        text += n;
    }
    if (*text || !o->n_modes) die("--inference takes one to %d of off, budget, free", INFERENCE_MODES);
}

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (!*text || *end || !(value >= least && value <= most)) die("%s takes a number from %g to %g, not %s", name, least, most, text);
    return value;
}

static struct options parse(int argc, char **argv)
{
    struct options o = {.model = ENGINE_MODEL, .budget_ms = 4, .pause = -1, .characters = 12, .frames = 300, .n_modes = 1, .modes = {INFERENCE_BUDGET}};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--headless"))        { o.headless = true; continue; }
        if (!strcmp(name, "--validation"))      { o.validation = true; continue; }
        if (!strcmp(name, "--monologue"))       { o.monologue = true; continue; }
        if (!strcmp(name, "--help") || !strcmp(name, "-h")) { fputs(usage, stdout); exit(0); }
        const char *value = i + 1 < argc ? argv[++i] : NULL;
        if (!value) die("%s takes a value, or is unknown\n%s", name, usage);
        if (!strcmp(name, "--model"))           o.model = value;
        else if (!strcmp(name, "--device"))     o.device = value;
        else if (!strcmp(name, "--png"))        o.png = value;
        else if (!strcmp(name, "--json"))       o.json = value;
        else if (!strcmp(name, "--inference"))  parse_modes(&o, value);
        else if (!strcmp(name, "--budget-ms"))  o.budget_ms = number(name, value, 0.01, 10000);
        else if (!strcmp(name, "--pause"))      o.pause = number(name, value, 0, 3600);
        else if (!strcmp(name, "--characters")) o.characters = (uint32_t)number(name, value, 1, MOST_PEOPLE);
        else if (!strcmp(name, "--tokens"))     o.tokens = (uint32_t)number(name, value, 0, 1e9);
        else if (!strcmp(name, "--frames"))     o.frames = (uint32_t)number(name, value, 1, 1e6);
        else die("there is no option %s\n%s", name, usage);
    }
    if (!o.headless && (o.png || o.json || o.n_modes > 1)) die("--png, --json and several kinds of inference are for --headless");
    return o;
}

int main(int argc, char **argv)
{
    static struct app a;
    a.options = parse(argc, argv);
    const struct options *o = &a.options;
    gpu_open(&a.gpu, &(struct gpu_params){.title = "The Gilded Goose", .device = o->device, .width = CANVAS_WIDTH, .height = CANVAS_HEIGHT, .headless = o->headless, .validation = o->validation,
                                          .quad_bytes = MOST_QUADS * sizeof(struct quad)});
    renderer_create(&a.renderer, &a.gpu);
    a.talk = talk_create(&a.gpu, &(struct talk_params){.model = o->model, .monologue = o->monologue, .pause = o->pause >= 0 ? o->pause : o->headless ? 0 : 3});
    const vkm_device_info *device = talk_device(a.talk);
    a.overlay = (struct overlay){.inference = o->modes[0], .budget_ms = o->budget_ms, .n_people = o->characters, .device = device->name,
                                 .n_layer = talk_model(a.talk)->n_layer, .n_expert = talk_model(a.talk)->n_expert};
    struct report report = {.device = device->name, .driver = device->driver, .model = talk_model(a.talk)->name, .api_version = a.gpu.properties.apiVersion, .characters = o->characters,
                            .frames = o->frames, .budget_ms = o->budget_ms, .validation = o->validation};
    if (o->headless) run_headless(&a, &report);
    else run_window(&a);

    if (o->png) {
        uint8_t *rgb = gpu_read(&a.gpu);
        if (!png_write(o->png, rgb, CANVAS_WIDTH, CANVAS_HEIGHT)) die("%s cannot be written", o->png);
        free(rgb);
    }
    VK(vkDeviceWaitIdle(a.gpu.device));
    report.validation_messages = a.gpu.validation_messages;
    if (o->json && !report_write(&report, o->json)) die("%s cannot be written", o->json);
    report_free(&report);
    talk_destroy(a.talk);
    renderer_destroy(&a.renderer, &a.gpu);
    gpu_close(&a.gpu);
    if (a.gpu.validation_messages) die("%u messages of the validation layer", a.gpu.validation_messages);
    return 0;
}
