#include "worker/cpu/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 20000, SPINS_PER_CLOCK = 32 };

/* event: a counter that is waited on. A waiter names itself in n_asleep before it sleeps; whoever advances
 * the counter looks at n_asleep afterwards. Both are sequentially consistent, so one of the two sees the
 * other. */
struct event {
    _Alignas(64) _Atomic uint32_t count;
    _Atomic uint32_t n_asleep;
};

struct member {
    struct team *team;
    pthread_t thread;
    int index;
};

struct team {
    struct event begun;                      /* team_run calls so far */
    struct event finished;                   /* team_run calls that all members but 0 have left */
    struct event passed;                     /* barriers passed */
    _Alignas(64) _Atomic uint32_t n_done;    /* members but 0 that left the current run */
    _Alignas(64) _Atomic uint32_t n_arrived; /* at the current barrier */
    team_fn *fn;                             /* of the current run; NULL: stop */
    void *arg;
    int n_threads;
    bool may_spin; /* no use where the team alone outnumbers the cores */
    struct member members[];
};

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* event_wait: until the counter is no longer `seen`. */
static void event_wait(struct event *e, uint32_t seen, bool may_spin) {
    if (may_spin) {
        uint64_t until = 0;
        for (;;) {
            for (int i = 0; i < SPINS_PER_CLOCK; i++) {
                if (atomic_load_explicit(&e->count, memory_order_acquire) != seen)
                    return;
                relax();
            }
            uint64_t t = now_ns();
            if (!until)
                until = t + SPIN_NS;
            else if (t > until)
                break;
        }
    }
    atomic_fetch_add(&e->n_asleep, 1);
    while (atomic_load(&e->count) == seen)
        syscall(SYS_futex, &e->count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&e->n_asleep, 1);
}

static void event_advance(struct event *e) {
    atomic_fetch_add(&e->count, 1);
    if (atomic_load(&e->n_asleep) > 0)
        syscall(SYS_futex, &e->count, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void *member_main(void *arg) {
    struct member *m = arg;
    struct team *t = m->team;
    for (uint32_t run = 0;; run++) {
        event_wait(&t->begun, run, t->may_spin);
        if (!t->fn)
            return NULL;
        t->fn(t->arg, m->index);
        if (atomic_fetch_add(&t->n_done, 1) + 1 == (uint32_t)t->n_threads - 1) {
            atomic_store(&t->n_done, 0);
            event_advance(&t->finished);
        }
    }
}

struct team *team_start(int n_threads) {
    CHECK(n_threads >= 1 && n_threads <= TEAM_THREADS_MAX);
    size_t bytes = sizeof(struct team) + (size_t)n_threads * sizeof(struct member);
    struct team *t = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!t)
        return NULL;
    memset(t, 0, bytes);
    t->may_spin = n_threads <= team_cores();
    t->n_threads = 1;
    for (int i = 1; i < n_threads; i++) {
        t->members[i] = (struct member){.team = t, .index = i};
        if (pthread_create(&t->members[i].thread, NULL, member_main, &t->members[i]) != 0) {
            team_stop(t);
            return NULL;
        }
        t->n_threads++; /* read by members only after `begun` advances */
    }
    return t;
}

void team_stop(struct team *t) {
    if (!t)
        return;
    t->fn = NULL;
    event_advance(&t->begun);
    for (int i = 1; i < t->n_threads; i++)
        pthread_join(t->members[i].thread, NULL);
    free(t);
}

int team_size(const struct team *t) {
    return t->n_threads;
}

void team_run(struct team *t, team_fn *fn, void *arg) {
    if (t->n_threads == 1) {
        fn(arg, 0);
        return;
    }
    uint32_t seen = atomic_load_explicit(&t->finished.count, memory_order_relaxed);
    t->fn = fn;
    t->arg = arg;
    event_advance(&t->begun);
    fn(arg, 0);
    event_wait(&t->finished, seen, t->may_spin);
}

void team_barrier(struct team *t) {
    if (t->n_threads == 1)
        return;
    uint32_t seen = atomic_load_explicit(&t->passed.count, memory_order_relaxed);
    if (atomic_fetch_add(&t->n_arrived, 1) + 1 == (uint32_t)t->n_threads) {
        atomic_store(&t->n_arrived, 0);
        event_advance(&t->passed);
    } else {
        event_wait(&t->passed, seen, t->may_spin);
    }
}

/* quota_cores: what a cgroup's CPU quota amounts to, rounded up; 0: none. */
static int quota_cores(void) {
    long long quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r"); /* version 2: "max 100000" or "150000 100000" */
    if (f) {
        if (fscanf(f, "%lld %lld", &quota, &period) != 2)
            quota = 0;
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
        if (fscanf(f, "%lld", &quota) != 1)
            quota = 0;
        fclose(f);
        f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r");
        if (f) {
            if (fscanf(f, "%lld", &period) != 1)
                period = 0;
            fclose(f);
        }
    }
    if (quota <= 0 || period <= 0)
        return 0;
    long long cores = (quota + period - 1) / period;
    return (int)MIN(cores, TEAM_THREADS_MAX);
}

int team_cores(void) {
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    int quota = quota_cores();
    if (quota > 0 && quota < n)
        n = quota;
    return (int)MAX(1, MIN(n, TEAM_THREADS_MAX));
}
