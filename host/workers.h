/* Threads for the duration of one call: jobs that compute and touch nothing of Vulkan's queue. Whoever makes workers joins them before it returns to the user,
 * so that the library never leaves a thread behind. POSIX threads; mingw-w64 has them too. */
#ifndef VKM_HOST_WORKERS_H
#define VKM_HOST_WORKERS_H

#include "platform.h"

typedef struct vkm_workers vkm_workers;

/* Embedded first in what the job needs; the caller owns it and sets `run`. */
struct vkm_job {
    void (*run)(struct vkm_job *job);
    struct vkm_job *next;
    bool done;                           /* guarded by the workers' lock: ask vkm_workers_wait */
};

/* Starts n_threads - 1 threads: the caller is one more, while it waits. 1 starts none. Where the system refuses a thread the work is done by fewer. */
vkm_result vkm_workers_create(uint32_t n_threads, vkm_workers **workers, vkm_error *err);
/* Waits for the jobs that run, drops those that do not yet, joins all threads. */
void vkm_workers_destroy(vkm_workers *workers);

/* Queues a job, first come, first served. `job` stays valid until it was waited for, or the workers were destroyed. */
void vkm_workers_push(vkm_workers *workers, struct vkm_job *job);
/* Returns once the job is done, and sees what it wrote. Runs queued jobs on the calling thread meanwhile. One thread pushes and waits. */
void vkm_workers_wait(vkm_workers *workers, struct vkm_job *job);

#endif
