/* Handles and inboxes: what comes back late finds nothing; what is posted arrives once and in order. threads:
 * tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "router/inbox.h"
#include "router/slots.h"

static void test_handles(void **state) {
    (void)state;
    uint64_t h = handle_make(0xabcdef, 0x12, 0x345678);
    assert_int_equal(handle_generation(h + 200), 0xabcdef);
    assert_int_equal(handle_loop(h + 200), 0x12);
    assert_int_equal(handle_slot(h + 255), 0x345678);
    assert_int_equal(handle_sample(h + 200), 200);
}

static void test_table(void **state) {
    (void)state;
    enum { N = 3000 };
    struct slots s;
    static int thing[N];
    static uint64_t h[N], old[N];
    slots_init(&s, 3);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < N; i++) {
            h[i] = slots_put(&s, &thing[i]);
            assert_true(h[i] != 0);
        }
        for (int i = 0; i < N; i++) {
            assert_ptr_equal(slots_get(&s, h[i]), &thing[i]);
            assert_ptr_equal(slots_get(&s, h[i] + 7), &thing[i]);
            assert_null(slots_get(&s, h[i] ^ 1ull << 32)); /* another loop */
            assert_null(slots_get(&s, h[i] ^ 1ull << 40)); /* another generation */
            if (round)
                assert_null(slots_get(&s, old[i]));
        }
        for (int i = 0; i < N; i++) {
            slots_del(&s, h[i]);
            assert_null(slots_get(&s, h[i]));
            old[i] = h[i];
        }
    }
    assert_true(s.n < N + 100); /* slots are used again */
    assert_null(slots_get(&s, 0));
    assert_null(slots_get(&s, UINT64_MAX));
    slots_fini(&s);
}

enum { POSTERS = 4, POSTS = 20000 };
struct item {
    struct loop_msg msg;
    int poster, number;
};
static struct inbox box;

static void *post_all(void *arg) {
    int poster = *(int *)arg;
    for (int i = 0; i < POSTS; i++) {
        struct item *it = malloc(sizeof *it);
        *it = (struct item){.poster = poster, .number = i};
        inbox_post(&box, &it->msg);
    }
    return NULL;
}

static void test_inbox(void **state) {
    (void)state;
    pthread_t t[POSTERS];
    int id[POSTERS], next[POSTERS] = {0}, n = 0;
    inbox_init(&box);
    for (int i = 0; i < POSTERS; i++) {
        id[i] = i;
        assert_int_equal(pthread_create(&t[i], NULL, post_all, &id[i]), 0);
    }
    while (n < POSTERS * POSTS) {
        struct pollfd p = {.fd = box.fd, .events = POLLIN};
        if (inbox_sleep(&box)) {
            assert_int_equal(poll(&p, 1, 10000), 1); /* no wake-up is lost */
            inbox_clear(&box);
            inbox_awake(&box);
        }
        for (struct loop_msg *m = inbox_take(&box), *after; m; m = after, n++) {
            struct item *it = CONTAINER_OF(m, struct item, msg);
            after = m->next;
            assert_int_equal(it->number, next[it->poster]++);
            free(it);
        }
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(t[i], NULL);
    assert_null(inbox_take(&box));
    /* Awake, the owner costs posters no system call; asleep, the first one wakes it. */
    struct item it = {.number = 0};
    struct pollfd p = {.fd = box.fd, .events = POLLIN};
    inbox_clear(&box);
    inbox_post(&box, &it.msg);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_false(inbox_sleep(&box));
    assert_non_null(inbox_take(&box));
    assert_true(inbox_sleep(&box));
    inbox_post(&box, &it.msg);
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_non_null(inbox_take(&box));
    inbox_fini(&box);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_handles), cmocka_unit_test(test_table),
                                       cmocka_unit_test(test_inbox)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
