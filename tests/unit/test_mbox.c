/* threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/mbox.h"

static bool readable(struct mbox *m) {
    struct pollfd p = {.fd = mbox_fd(m), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_order_and_bound(void **state) {
    (void)state;
    struct mbox *m = mbox_new(4);
    int v[9];
    assert_null(mbox_take(m));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++)
            assert_true(mbox_post(m, &v[i]));
        assert_false(mbox_post(m, &v[4]));
        for (int i = 0; i < 4; i++)
            assert_ptr_equal(mbox_take(m), &v[i]);
        assert_null(mbox_take(m));
    }
    mbox_free(m);
    mbox_free(NULL);
}

static void test_wake(void **state) {
    (void)state;
    struct mbox *m = mbox_new(8);
    int v;
    assert_false(readable(m));
    assert_true(mbox_post(m, &v));
    assert_true(readable(m));
    mbox_clear(m);
    assert_false(readable(m));
    /* Cleared but not taken: the next post wakes again. */
    assert_true(mbox_post(m, &v));
    assert_true(readable(m));
    mbox_clear(m);
    assert_non_null(mbox_take(m));
    assert_non_null(mbox_take(m));
    uint64_t start = clock_ns();
    assert_false(mbox_wait(m, 20));
    assert_true(clock_ns() - start >= 20 * NS_PER_MS);
    assert_false(mbox_wait(m, 0));
    assert_true(mbox_post(m, &v));
    assert_true(mbox_wait(m, -1));
    assert_ptr_equal(mbox_take(m), &v);
    mbox_free(m);
}

enum { N_POSTERS = 4, N_EACH = 20000 };
struct poster {
    struct mbox *m;
    uint32_t id;
    uint32_t *messages; /* [N_EACH]: id and number */
};

static void *post_all(void *arg) {
    struct poster *p = arg;
    for (uint32_t i = 0; i < N_EACH; i++) {
        p->messages[i] = p->id << 24 | i;
        while (!mbox_post(p->m, &p->messages[i]))
            sched_yield();
    }
    return NULL;
}

/* Nothing is lost, doubled or reordered within a poster, and the waiter never misses a wake-up (it would
 * hang). */
static void test_many_posters(void **state) {
    (void)state;
    struct mbox *m = mbox_new(64);
    struct poster p[N_POSTERS];
    pthread_t t[N_POSTERS];
    for (uint32_t i = 0; i < N_POSTERS; i++) {
        p[i] = (struct poster){.m = m, .id = i, .messages = xcalloc(N_EACH, sizeof(uint32_t))};
        pthread_create(&t[i], NULL, post_all, &p[i]);
    }
    uint32_t next[N_POSTERS] = {0};
    for (size_t got = 0; got < (size_t)N_POSTERS * N_EACH;) {
        assert_true(mbox_wait(m, 30000));
        for (uint32_t *v; (v = mbox_take(m)); got++) {
            uint32_t id = *v >> 24;
            assert_true(id < N_POSTERS);
            assert_int_equal(*v & 0xFFFFFF, next[id]);
            next[id]++;
        }
    }
    for (uint32_t i = 0; i < N_POSTERS; i++) {
        pthread_join(t[i], NULL);
        free(p[i].messages);
    }
    assert_null(mbox_take(m));
    mbox_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_bound),
        cmocka_unit_test(test_wake),
        cmocka_unit_test(test_many_posters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
