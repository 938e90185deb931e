/* team.h: a fixed team of threads that run one function together.
 *
 * The thread that starts a team is its member 0 and the only one that may call team_run and
 * team_stop; members 1.. are threads of the team. Waits spin for at most 20 us and then sleep on a
 * futex, so teams of several ranks may outnumber the cores.
 */
#ifndef WEIR_WORKER_CPU_TEAM_H
#define WEIR_WORKER_CPU_TEAM_H

#include "common/base.h"

#include <stdatomic.h>

enum { TEAM_THREADS_MAX = 512 };

struct team;
typedef void team_fn(void *arg, int member);

/* team_cores: processors this process may use: its affinity, cut by a cgroup's quota. At least 1. */
int team_cores(void);

/* team_start: n_threads in [1, TEAM_THREADS_MAX], the caller included. NULL: the system gave no thread. */
struct team *team_start(int n_threads);
void team_stop(struct team *t); /* joins its threads; NULL is fine */
int team_size(const struct team *t);

/* team_run: fn(arg, member) once on every member; returns when all have returned. What the caller wrote
 * before is seen by all members, and what they wrote is seen by the caller after. */
void team_run(struct team *t, team_fn *fn, void *arg);

/* team_barrier: from within fn, by every member: no member goes on before all have arrived. */
void team_barrier(struct team *t);

/* queue: hands out [0, n) in pieces of at most `grain` to whoever asks. Set by one thread before team_run,
 * or before a barrier. queue_take: the first item, and their number in *n_taken; 0 taken: none left. */
struct team_queue {
    _Atomic uint32_t next;
    uint32_t n, grain;
};
static inline void queue_init(struct team_queue *q, uint32_t n, uint32_t grain) {
    atomic_store_explicit(&q->next, 0, memory_order_relaxed);
    q->n = n;
    q->grain = grain ? grain : 1;
}
static inline uint32_t queue_take_upto(struct team_queue *q, uint32_t most, uint32_t *n_taken) {
    uint32_t i = atomic_load_explicit(&q->next, memory_order_relaxed), want;
    do {
        want = i < q->n ? MIN(most, q->n - i) : 0;
        if (want == 0)
            break;
    } while (!atomic_compare_exchange_weak_explicit(&q->next, &i, i + want, memory_order_relaxed,
                                                    memory_order_relaxed));
    *n_taken = want;
    return i;
}
static inline uint32_t queue_take(struct team_queue *q, uint32_t *n_taken) {
    return queue_take_upto(q, q->grain, n_taken);
}

#endif
