#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/hash.h"
#include "worker/kv.h"

static uint32_t evicted[64], n_evicted;

static void on_evict(void *arg, uint32_t block) {
    (void)arg;
    evicted[n_evicted++] = block;
}

static void test_take_and_drop(void **state) {
    (void)state;
    struct kv_pool p;
    kv_init(&p, 4, NULL, NULL);
    assert_int_equal(kv_available(&p), 4);
    uint32_t b[4];
    for (int i = 0; i < 4; i++)
        b[i] = kv_take(&p);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_int_not_equal(b[i], b[k]);
    assert_int_equal(kv_take(&p), KV_NO_BLOCK);
    kv_hold(&p, b[1]);
    kv_drop(&p, b[1]);
    assert_int_equal(kv_available(&p), 0);
    kv_drop(&p, b[1]);
    assert_int_equal(kv_available(&p), 1);
    assert_int_equal(p.n_used, 3);
    kv_check(&p);
    assert_int_equal(kv_take(&p), b[1]);
    kv_check(&p);
    kv_fini(&p);
}

/* Idle blocks are taken when no free one is left, the least recently used first, and a hold wakes one. */
static void test_idle(void **state) {
    (void)state;
    struct kv_pool p;
    uint32_t b[4];
    n_evicted = 0;
    kv_init(&p, 4, on_evict, NULL);
    for (int i = 0; i < 4; i++) {
        b[i] = kv_take(&p);
        kv_set_named(&p, b[i], i < 3);
    }
    kv_drop(&p, b[2]);
    kv_drop(&p, b[0]);
    kv_drop(&p, b[1]);
    kv_drop(&p, b[3]);
    assert_int_equal(p.n_idle, 3);
    assert_int_equal(p.n_free, 1);
    kv_hold(&p, b[0]);
    kv_drop(&p, b[0]); /* used again: last to go */
    kv_check(&p);
    uint32_t generation = p.blocks[b[2]].generation;
    assert_int_equal(kv_take(&p), b[3]);
    assert_int_equal(n_evicted, 0);
    assert_int_equal(kv_take(&p), b[2]);
    assert_int_equal(kv_take(&p), b[1]);
    assert_int_equal(kv_take(&p), b[0]);
    assert_int_equal(n_evicted, 3);
    assert_int_equal(evicted[0], b[2]);
    assert_int_equal(evicted[1], b[1]);
    assert_true(p.blocks[b[2]].generation != generation); /* whoever remembers it can tell */
    kv_check(&p);
    kv_fini(&p);
}

static void test_unname(void **state) {
    (void)state;
    struct kv_pool p;
    kv_init(&p, 2, on_evict, NULL);
    uint32_t a = kv_take(&p), b = kv_take(&p);
    kv_set_named(&p, a, true);
    kv_set_named(&p, b, true);
    kv_drop(&p, a);
    kv_set_named(&p, a, false); /* idle: free at once */
    kv_set_named(&p, b, false); /* used: free when dropped */
    assert_int_equal(p.n_free, 1);
    kv_drop(&p, b);
    assert_int_equal(p.n_free, 2);
    kv_check(&p);
    kv_fini(&p);
}

/* Random traffic against a plain count of holds. */
static void test_random(void **state) {
    (void)state;
    enum { N = 33 };
    struct kv_pool p;
    uint32_t holds[N] = {0};
    kv_init(&p, N, on_evict, NULL);
    for (uint64_t i = 0; i < 20000; i++) {
        uint32_t r = (uint32_t)hash_u64(i), b = r / 8 % N;
        n_evicted = 0;
        switch (r % 5) {
        case 0: {
            uint32_t got = kv_take(&p), n_held = 0;
            for (uint32_t k = 0; k < N; k++)
                n_held += holds[k] > 0;
            assert_int_equal(got == KV_NO_BLOCK, n_held == N);
            if (got != KV_NO_BLOCK)
                assert_int_equal(holds[got]++, 0);
            break;
        }
        case 1:
            if (p.blocks[b].list != KV_LIST_FREE) {
                kv_hold(&p, b);
                holds[b]++;
            }
            break;
        case 2:
        case 3:
            if (holds[b]) {
                kv_drop(&p, b);
                holds[b]--;
            }
            break;
        default:
            if (p.blocks[b].list != KV_LIST_FREE)
                kv_set_named(&p, b, r >> 20 & 1);
        }
        for (uint32_t k = 0; k < N; k++)
            assert_int_equal(p.blocks[k].n_holds, holds[k]);
        kv_check(&p);
    }
    kv_fini(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_and_drop),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_unname),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
