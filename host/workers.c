/* A queue of jobs and the threads that empty it. */
#include "workers.h"
#include <pthread.h>
#include <stdlib.h>

struct vkm_workers {
    pthread_mutex_t lock;
    pthread_cond_t queued, finished;     /* a job came, or the end; a job is done */
    struct vkm_job *first, *last;
    bool stop;
    uint32_t n;
    pthread_t threads[];
};

/* Takes the first job and runs it, without the lock. The lock is held before and after. */
static void run_first(vkm_workers *w)
{
    struct vkm_job *job = w->first;
    w->first = job->next;
    pthread_mutex_unlock(&w->lock);
    job->run(job);
    pthread_mutex_lock(&w->lock);
    job->done = true;
    pthread_cond_signal(&w->finished);
}

static void *work(void *user)
{
    vkm_workers *w = user;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        if (w->first) run_first(w);
        else pthread_cond_wait(&w->queued, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

vkm_result vkm_workers_create(uint32_t n_threads, vkm_workers **workers, vkm_error *err)
{
    uint32_t more = n_threads > 1 ? n_threads - 1 : 0;
    vkm_workers *w = calloc(1, sizeof *w + more * sizeof w->threads[0]);
    if (!w) return vkm_fail(err, VKM_ERR_HOST_MEMORY, "out of host memory");
    bool lock = pthread_mutex_init(&w->lock, NULL) == 0, queued = lock && pthread_cond_init(&w->queued, NULL) == 0;
    if (!queued || pthread_cond_init(&w->finished, NULL) != 0) {
        if (queued) pthread_cond_destroy(&w->queued);
        if (lock) pthread_mutex_destroy(&w->lock);
        free(w);
        return vkm_fail(err, VKM_ERR_HOST_MEMORY, "the system has no room for a lock");
    }
    while (w->n < more && pthread_create(&w->threads[w->n], NULL, work, w) == 0) w->n++;
    *workers = w;
    return VKM_OK;
}

void vkm_workers_destroy(vkm_workers *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->queued);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->n; i++) pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->queued);
    pthread_cond_destroy(&w->finished);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void vkm_workers_push(vkm_workers *w, struct vkm_job *job)
{
    job->next = NULL;
    job->done = false;
    pthread_mutex_lock(&w->lock);
    if (w->first) w->last->next = job;
    else w->first = job;
    w->last = job;
    pthread_cond_signal(&w->queued);
    pthread_mutex_unlock(&w->lock);
}

void vkm_workers_wait(vkm_workers *w, struct vkm_job *job)
{
    pthread_mutex_lock(&w->lock);
    while (!job->done) {
        if (w->first) run_first(w);
        else pthread_cond_wait(&w->finished, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}
