/* Sequences, questions and answers. */
#include "talk.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PROMPT = 192, MOST_ANSWER = 90, ANSWER_BYTES = 480 };

struct speaker {
    struct speech speech;                    /* as it is shown: points into the texts below */
    char question[128], answer[ANSWER_BYTES];
    char next_question[128];                 /* asked, but nothing was answered yet: what was said last stays to be read */
    vkm_detokenizer *words;
    bool is_asked, is_quoted;                /* a generation is queued; the answer ended with its quote, and so a talk can go on behind it */
    bool ends_line;                          /* the last token had the line's end in it */
    uint32_t n_asked;
    double since;                            /* when the last answer ended */
};

struct talk {
    vkm_device *device;
    vkm_model *model;
    vkm_session *session;
    vkm_device_info device_info;
    vkm_model_info info;
    struct talk_params params;
    struct speaker speakers[MOST_PEOPLE];
    struct speech speeches[MOST_PEOPLE];
    uint64_t n_tokens;
    double time;
    uint32_t *counts;                        /* [2][n_layer][n_expert]: now, and when the load was last looked at */
    float *load;
};

/* What travellers ask in this model's world; %s is a name. */
static const char *const questions[] = {
    "Who are you?", "Do you believe in dragons, %s?", "How was your day, %s?", "Have you heard about the king's new tax?", "Is the road to the mill safe, %s?", "Is the stew any good, %s?",
    "Have you heard the wolves, %s?", "Will you come to the festival, %s?", "Tell me a secret, %s.", "Who is that stranger in the corner?", "Tell me, %s, what do you dream of?", "Will it stay rainy like this?",
};
#define N_QUESTIONS (sizeof questions / sizeof *questions)

struct talk *talk_create(struct gpu *g, const struct talk_params *params)
{
    vkm_error err = {0};
    struct talk *t = calloc(1, sizeof *t);
    if (!t) die("out of memory");
    t->params = *params;
    const vkm_device_params device = {.struct_size = sizeof device, .import = &g->import};
    MUST(vkm_device_create(&device, &t->device, &err));
    MUST(vkm_model_load(t->device, params->model, NULL, &t->model, &err));
    vkm_device_get_info(t->device, &t->device_info);
    vkm_model_get_info(t->model, &t->info);
    const vkm_session_params session = {.struct_size = sizeof session, .n_seq = MOST_PEOPLE, .n_batch = MOST_PROMPT, .count_experts = true};
    MUST(vkm_session_create(t->model, &session, &t->session, &err));
    MUST(vkm_session_prepare(t->session, MOST_PROMPT, MOST_PEOPLE, &err));
    size_t n = (size_t)t->info.n_layer * t->info.n_expert;
    t->counts = calloc(2 * n, sizeof *t->counts);
    t->load = calloc(n, sizeof *t->load);
    if (!t->counts || !t->load) die("out of memory");
    for (uint32_t i = 0; i < MOST_PEOPLE; i++) {
        struct speaker *s = &t->speakers[i];
        MUST(vkm_detokenizer_create(vkm_model_tokenizer(t->model), false, &s->words, &err));
        s->n_asked = i * 5;                  /* each begins with another question */
        s->since = -1e9;
        t->speeches[i] = (struct speech){.question = s->question, .answer = s->answer};
    }
    return t;
}

void talk_destroy(struct talk *t)
{
    if (!t) return;
    for (uint32_t i = 0; i < MOST_PEOPLE; i++) vkm_detokenizer_destroy(t->speakers[i].words);
    vkm_session_destroy(t->session);
    vkm_model_destroy(t->model);
    vkm_device_destroy(t->device);
    free(t->counts);
    free(t->load);
    free(t);
}

/* ---------------------------------------------------------------- asking */

/* Queues a question and its answer for a sequence, behind what was said before; or behind the scene, where nothing was, or it was cut off, or the context is nearly full. */
static void ask(struct talk *t, uint32_t seq)
{
    vkm_error err = {0};
    const struct person *p = &people[seq];
    struct speaker *s = &t->speakers[seq];
    char text[512];
    int n = 0;
    if (!s->is_quoted || vkm_session_n_past(t->session, seq) + MOST_PROMPT + MOST_ANSWER > vkm_session_n_ctx(t->session)) MUST(vkm_session_rewind(t->session, seq, 0, &err));
    if (vkm_session_n_past(t->session, seq) == 0)
        n = snprintf(text, sizeof text, "It is a rainy autumn evening at the Gilded Goose in Alderbrook. %s the %s and a traveller are talking.\n\n", p->name, p->trade);
    else if (!s->ends_line) n = snprintf(text, sizeof text, "\n");
    snprintf(s->next_question, sizeof s->next_question, questions[s->n_asked++ % N_QUESTIONS], p->name);
    snprintf(text + n, sizeof text - (size_t)n, "Traveller: \"%s\"\n%s the %s: \"", s->next_question, p->name, p->trade);

    int32_t ids[MOST_PROMPT];
    size_t n_ids = MOST_PROMPT;
    MUST(vkm_tokenize(vkm_model_tokenizer(t->model), text, strlen(text), 0, ids, &n_ids, &err));
    if (n_ids > MOST_PROMPT) die("a question of %zu tokens", n_ids);
    vkm_detokenizer_reset(s->words);
    const vkm_sampling_params sampling = {.struct_size = sizeof sampling, .temperature = 0.6f, .top_k = 40, .top_p = 0.95f, .seed = seq + 1000 * s->n_asked};
    const vkm_generation answer = {.struct_size = sizeof answer, .seq = seq, .sampling = &sampling, .n_tokens = t->params.monologue ? 0 : MOST_ANSWER, .ignore_end = t->params.monologue};
    MUST(vkm_session_queue_eval(t->session, seq, ids, n_ids, &err));
    MUST(vkm_session_queue_generate(t->session, &answer, &err));
    s->is_asked = true;
    s->is_quoted = false;
}

void talk_update(struct talk *t, uint32_t n_people, double time)
{
    vkm_error err = {0};
    t->time = time;
    for (uint32_t i = 0; i < MOST_PEOPLE; i++) {
        struct speaker *s = &t->speakers[i];
        if (s->is_asked) {
            vkm_sequence_status status;
            if (i >= n_people) MUST(vkm_session_cancel(t->session, i, &err));
            MUST(vkm_session_status(t->session, i, &status, &err));
            if (status.generating || status.n_queued) continue;
            s->is_asked = false;
            s->since = time;
        }
        t->speeches[i].is_speaking = false;
        if (i >= n_people || time < s->since + t->params.pause) continue;
        ask(t, i);
        t->speeches[i].is_speaking = true;
    }
}

/* ---------------------------------------------------------------- answers */

/* A token of somebody's answer. The first one takes the place of what was said before; a closing quote ends it. */
static bool on_token(void *user, uint32_t seq, int32_t token)
{
    struct talk *t = user;
    struct speaker *s = &t->speakers[seq];
    const char *text;
    size_t n;
    t->n_tokens++;
    if (vkm_detokenizer_push(s->words, token, &text, &n, NULL) != VKM_OK) return false;
    if (*s->next_question) {
        memcpy(s->question, s->next_question, sizeof s->question);
        *s->next_question = *s->answer = 0;
    }
    const char *quote = n ? memchr(text, '"', n) : NULL;
    s->ends_line = n && text[n - 1] == '\n';
    if (quote && !t->params.monologue) n = (size_t)(quote - text);
    size_t used = strlen(s->answer);
    if (used + n >= ANSWER_BYTES) {                      /* of a long monologue the end is kept */
        memmove(s->answer, s->answer + ANSWER_BYTES / 2, used - ANSWER_BYTES / 2 + 1);
        used -= ANSWER_BYTES / 2;
    }
    memcpy(s->answer + used, text, n);
    s->answer[used + n] = 0;
    s->is_quoted = quote && !t->params.monologue;
    return !s->is_quoted;
}

void talk_record(struct talk *t, VkCommandBuffer commands, double budget_ms, vkm_slice *slice)
{
    vkm_error err = {0};
    const vkm_budget budget = {.struct_size = sizeof budget, .max_us = (uint32_t)(budget_ms * 1000)};
    MUST(vkm_session_record(t->session, commands, &budget, slice, &err));
}

void talk_completed(struct talk *t, vkm_slice *slice)
{
    vkm_error err = {0};
    if (slice->number) MUST(vkm_session_completed(t->session, slice, on_token, t, &err));
    slice->number = 0;
}

/* ---------------------------------------------------------------- what is known of it */

const struct speech *talk_speeches(const struct talk *t) { return t->speeches; }
uint64_t talk_tokens(const struct talk *t) { return t->n_tokens; }
const vkm_model_info *talk_model(const struct talk *t) { return &t->info; }
const vkm_device_info *talk_device(const struct talk *t) { return &t->device_info; }

const float *talk_expert_load(struct talk *t)
{
    vkm_error err = {0};
    uint32_t n_layer = t->info.n_layer, n_expert = t->info.n_expert, *now = t->counts, *before = t->counts + (size_t)n_layer * n_expert;
    MUST(vkm_session_expert_counts(t->session, now, &err));
    for (uint32_t l = 0; l < n_layer; l++) {
        const size_t row = (size_t)l * n_expert;
        uint32_t all = 0;
        for (uint32_t e = 0; e < n_expert; e++) all += now[row + e] - before[row + e];
        for (uint32_t e = 0; all && e < n_expert; e++) {
            float share = (float)(now[row + e] - before[row + e]) * (float)n_expert / (float)all;
            t->load[row + e] += (share - t->load[row + e]) * (t->load[row + e] > 0 ? 0.08f : 1);
        }
        if (all) memcpy(before + row, now + row, n_expert * sizeof *now);
    }
    return t->load;
}
