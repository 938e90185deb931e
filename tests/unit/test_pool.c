/* threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "common/pool.h"

struct job {
    struct pool_job base;
    sem_t *started, *gate; /* either may be NULL */
    _Atomic int *done, *running, *most;
};

static void run(struct pool_job *base) {
    struct job *j = CONTAINER_OF(base, struct job, base);
    if (j->running) {
        int now = atomic_fetch_add(j->running, 1) + 1;
        int most = atomic_load(j->most);
        while (now > most && !atomic_compare_exchange_weak(j->most, &most, now))
            ;
    }
    if (j->started)
        sem_post(j->started);
    if (j->gate)
        while (sem_wait(j->gate) != 0)
            ;
    if (j->running)
        atomic_fetch_sub(j->running, 1);
    atomic_fetch_add(j->done, 1);
}

/* Slow jobs fill all threads but one and queue up; a fast job still runs at once. */
static void test_fast_overtakes(void **state) {
    (void)state;
    for (unsigned n_threads = 1; n_threads <= 4; n_threads++) {
        struct pool *p = pool_new(n_threads, 16);
        sem_t gate, fast_started;
        sem_init(&gate, 0, 0);
        sem_init(&fast_started, 0, 0);
        _Atomic int done = 0, running = 0, most = 0;
        struct job slow[8], fast = {.base.run = run, .started = &fast_started, .done = &done};
        for (size_t i = 0; i < ARRAY_LEN(slow); i++) {
            slow[i] = (struct job){
                .base.run = run, .gate = &gate, .done = &done, .running = &running, .most = &most};
            assert_true(pool_submit(p, POOL_SLOW, &slow[i].base));
        }
        assert_true(pool_submit(p, POOL_FAST, &fast.base));
        while (sem_wait(&fast_started) != 0) /* hangs if the slow ones hold every thread */
            ;
        assert_true(pool_queued(p) >= ARRAY_LEN(slow) - (MAX(n_threads, 2u) - 1));
        for (size_t i = 0; i < ARRAY_LEN(slow); i++)
            sem_post(&gate);
        pool_free(p);
        assert_int_equal(done, ARRAY_LEN(slow) + 1);
        assert_true(most >= 1 && most <= (int)MAX(n_threads, 2u) - 1);
        sem_destroy(&gate);
        sem_destroy(&fast_started);
    }
}

static void test_bound(void **state) {
    (void)state;
    struct pool *p = pool_new(2, 2);
    sem_t gate, started;
    sem_init(&gate, 0, 0);
    sem_init(&started, 0, 0);
    _Atomic int done = 0;
    struct job j[4];
    for (size_t i = 0; i < ARRAY_LEN(j); i++)
        j[i] = (struct job){.base.run = run, .started = &started, .gate = &gate, .done = &done};
    assert_true(pool_submit(p, POOL_SLOW, &j[0].base));
    while (sem_wait(&started) != 0)
        ;
    assert_true(pool_submit(p, POOL_SLOW, &j[1].base));
    assert_true(pool_submit(p, POOL_SLOW, &j[2].base));
    assert_false(pool_submit(p, POOL_SLOW, &j[3].base));
    assert_int_equal(pool_queued(p), 2);
    assert_true(pool_submit(p, POOL_FAST, &j[3].base)); /* the classes have their own bounds */
    for (size_t i = 0; i < ARRAY_LEN(j); i++)
        sem_post(&gate);
    pool_free(p);
    assert_int_equal(done, 4);
    sem_destroy(&gate);
    sem_destroy(&started);
}

static struct pool *chain_pool;
struct chain {
    struct pool_job base;
    int left;
    _Atomic int *done;
};
static void run_chain(struct pool_job *base) {
    struct chain *c = CONTAINER_OF(base, struct chain, base);
    atomic_fetch_add(c->done, 1);
    if (c->left-- > 0)
        assert_true(pool_submit(chain_pool, c->left % 2 ? POOL_FAST : POOL_SLOW, &c->base));
}

/* pool_free runs all that is queued, also what jobs add. */
static void test_free_drains(void **state) {
    (void)state;
    _Atomic int done = 0;
    struct chain c[8];
    chain_pool = pool_new(3, 64);
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = (struct chain){.base.run = run_chain, .left = 500, .done = &done};
        assert_true(pool_submit(chain_pool, POOL_FAST, &c[i].base));
    }
    pool_free(chain_pool);
    assert_int_equal(done, 8 * 501);
    pool_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_overtakes),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_free_drains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
