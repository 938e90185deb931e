#include "common/pool.h"

#include <pthread.h>
#include <stdlib.h>

/* A queue per class under one mutex. A thread takes a fast job if there is one; a slow one only while fewer
 * than n_threads - 1 slow jobs run. So there are at least two threads, however few were asked for. */
struct queue {
    struct pool_job *first, **last;
    size_t n;
};

struct pool {
    pthread_mutex_t mu;
    pthread_cond_t work;
    struct queue queues[2];
    size_t queue_max;
    unsigned n_threads, n_slow_running;
    bool stopping;
    pthread_t threads[];
};

static struct pool_job *queue_pop(struct queue *q) {
    struct pool_job *job = q->first;
    if (!job)
        return NULL;
    q->first = job->next;
    if (!q->first)
        q->last = &q->first;
    q->n--;
    return job;
}

/* next_job: under the mutex. */
static struct pool_job *next_job(struct pool *p, bool *slow) {
    struct pool_job *job = queue_pop(&p->queues[POOL_FAST]);
    *slow = false;
    if (!job && p->n_slow_running + 1 < p->n_threads) {
        job = queue_pop(&p->queues[POOL_SLOW]);
        *slow = job != NULL;
    }
    return job;
}

static void *pool_thread(void *arg) {
    struct pool *p = arg;
    pthread_mutex_lock(&p->mu);
    for (;;) {
        bool slow;
        struct pool_job *job = next_job(p, &slow);
        if (!job) {
            if (p->stopping && !p->queues[POOL_SLOW].n)
                break;
            pthread_cond_wait(&p->work, &p->mu);
            continue;
        }
        p->n_slow_running += slow;
        pthread_mutex_unlock(&p->mu);
        job->run(job);
        pthread_mutex_lock(&p->mu);
        if (slow) {
            p->n_slow_running--;
            if (p->queues[POOL_SLOW].n)
                pthread_cond_signal(&p->work);
            else if (p->stopping)
                pthread_cond_broadcast(&p->work);
        }
    }
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

struct pool *pool_new(unsigned n_threads, size_t queue_max) {
    CHECK(n_threads <= 4096 && queue_max > 0);
    n_threads = MAX(n_threads, 2u);
    struct pool *p = xcalloc(1, sizeof *p + n_threads * sizeof p->threads[0]);
    p->n_threads = n_threads;
    p->queue_max = queue_max;
    for (size_t i = 0; i < ARRAY_LEN(p->queues); i++)
        p->queues[i].last = &p->queues[i].first;
    CHECK(pthread_mutex_init(&p->mu, NULL) == 0 && pthread_cond_init(&p->work, NULL) == 0);
    for (unsigned i = 0; i < n_threads; i++)
        CHECK(pthread_create(&p->threads[i], NULL, pool_thread, p) == 0);
    return p;
}

void pool_free(struct pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->mu);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mu);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    CHECK(!p->queues[POOL_FAST].n && !p->queues[POOL_SLOW].n);
    pthread_mutex_destroy(&p->mu);
    pthread_cond_destroy(&p->work);
    free(p);
}

bool pool_submit(struct pool *p, enum pool_class cls, struct pool_job *job) {
    struct queue *q = &p->queues[cls];
    pthread_mutex_lock(&p->mu);
    bool ok = q->n < p->queue_max;
    if (ok) {
        job->next = NULL;
        *q->last = job;
        q->last = &job->next;
        q->n++;
    }
    pthread_mutex_unlock(&p->mu);
    if (ok) /* without the lock: the thread that wakes up needs it */
        pthread_cond_signal(&p->work);
    return ok;
}

size_t pool_queued(const struct pool *p) {
    struct pool *q = (struct pool *)(uintptr_t)p; /* the mutex is no part of what const promises */
    pthread_mutex_lock(&q->mu);
    size_t n = q->queues[POOL_FAST].n + q->queues[POOL_SLOW].n;
    pthread_mutex_unlock(&q->mu);
    return n;
}
