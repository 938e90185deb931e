#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/prefix.h"

enum { N_BLOCKS = 32 };

struct fixture {
    struct kv_group group[2];
    struct kv_pool pool[2];
    struct prefix prefix;
    struct id128 name[20];
};

/* start: n groups, the second with the given window; 0: full. */
static void start(struct fixture *f, uint32_t n_groups, uint32_t window, uint32_t n_events) {
    for (uint32_t g = 0; g < n_groups; g++) {
        f->group[g] = (struct kv_group){.kind = KV_FULL, .n_blocks = N_BLOCKS};
        kv_init(&f->pool[g], N_BLOCKS, NULL, NULL);
    }
    if (window) {
        f->group[n_groups - 1].kind = KV_WINDOW;
        f->group[n_groups - 1].window = window;
    }
    prefix_init(&f->prefix, f->group, n_groups, f->pool, 42, n_events);
    for (uint8_t i = 0; i < 20; i++)
        f->name[i] = (struct id128){.b = {1, i}};
}

static void stop(struct fixture *f) {
    uint32_t n = f->prefix.n_groups;
    prefix_check(&f->prefix);
    prefix_fini(&f->prefix);
    for (uint32_t g = 0; g < n; g++)
        kv_fini(&f->pool[g]);
}

/* add: a block of group g that holds name[i], not held by anybody. */
static uint32_t add(struct fixture *f, uint32_t g, uint32_t i) {
    uint32_t b = kv_take(&f->pool[g]);
    prefix_name(&f->prefix, g, b, f->name[i]);
    kv_drop(&f->pool[g], b);
    return b;
}

static void test_full(void **state) {
    (void)state;
    struct fixture f;
    start(&f, 1, 0, 0);
    uint32_t b0 = add(&f, 0, 0);
    add(&f, 0, 1);
    add(&f, 0, 3);
    assert_int_equal(prefix_match(&f.prefix, f.name, 10), 2);
    assert_int_equal(prefix_match(&f.prefix, f.name, 1), 1);
    assert_int_equal(prefix_find(&f.prefix, 0, f.name[0]), b0);
    assert_int_equal(prefix_find(&f.prefix, 0, f.name[2]), KV_NO_BLOCK);
    /* The first block of a name stays; another one remains private, and is free when dropped. */
    uint32_t n_free = f.pool[0].n_free;
    uint32_t other = add(&f, 0, 0);
    assert_int_not_equal(other, b0);
    assert_int_equal(prefix_find(&f.prefix, 0, f.name[0]), b0);
    assert_int_equal(f.pool[0].n_free, n_free);
    stop(&f);
}

static void test_eviction(void **state) {
    (void)state;
    struct fixture f;
    start(&f, 1, 0, 0);
    add(&f, 0, 0);
    add(&f, 0, 1);
    for (int i = 0; i < N_BLOCKS; i++) {
        assert_int_not_equal(kv_take(&f.pool[0]), KV_NO_BLOCK);
        prefix_check(&f.prefix);
    }
    assert_int_equal(prefix_match(&f.prefix, f.name, 2), 0);
    assert_int_equal(kv_take(&f.pool[0]), KV_NO_BLOCK);
    stop(&f);
}

static void test_window_first(void **state) {
    (void)state;
    const struct kv_group full = {.kind = KV_FULL}, w = {.kind = KV_WINDOW, .window = 20},
                          one = {.kind = KV_WINDOW, .window = 1};
    assert_int_equal(kv_group_first(&full, 1000), 0);
    /* A query at p sees p - 19 .. p. */
    assert_int_equal(kv_group_first(&w, 19), 0);
    assert_int_equal(kv_group_first(&w, 34), 0);  /* sees 15 */
    assert_int_equal(kv_group_first(&w, 35), 1);  /* sees 16 */
    assert_int_equal(kv_group_first(&w, 160), 8); /* sees 141 */
    assert_int_equal(kv_group_first(&one, 16), 1);
    assert_int_equal(kv_group_first(&one, 15), 0);
}

/* A window group needs only what the next query sees; a full one everything. */
static void test_window_match(void **state) {
    (void)state;
    struct fixture f;
    start(&f, 2, 20, 0);
    for (uint32_t i = 0; i < 8; i++)
        add(&f, 0, i);
    assert_int_equal(prefix_match(&f.prefix, f.name, 10), 0);
    add(&f, 1, 4);
    add(&f, 1, 5);
    /* Behind 6 blocks the query at 96 sees from 77: blocks 4 and 5. Behind 7 it would see 93: blocks 5 and 6.
     */
    assert_int_equal(prefix_match(&f.prefix, f.name, 10), 6);
    add(&f, 1, 7);
    assert_int_equal(prefix_match(&f.prefix, f.name, 10), 6);
    add(&f, 1, 6);
    assert_int_equal(prefix_match(&f.prefix, f.name, 10), 8);
    assert_int_equal(prefix_match(&f.prefix, f.name, 7), 7);
    assert_int_equal(prefix_match(&f.prefix, f.name, 5), 0); /* behind 5: blocks 3 and 4 */
    stop(&f);
}

static void test_events(void **state) {
    (void)state;
    struct fixture f;
    struct prefix_event e[8];
    uint64_t first;
    start(&f, 2, 0, 4);
    add(&f, 0, 0);
    add(&f, 1, 0); /* the first group's only are told */
    add(&f, 0, 1);
    assert_int_equal(prefix_events_take(&f.prefix, e, 1, &first), 1);
    assert_int_equal(first, 0);
    assert_int_equal(e[0].kind, PREFIX_STORED);
    assert_true(id128_eq(e[0].name, f.name[0]));
    for (uint32_t i = 2; i < 8; i++)
        add(&f, 0, i);
    /* Seven more since, four kept: a reader that expects number 1 sees that some are lost. */
    assert_int_equal(prefix_events_take(&f.prefix, e, 8, &first), 4);
    assert_int_equal(first, 4);
    assert_true(id128_eq(e[3].name, f.name[7]));
    for (int i = 0; i < N_BLOCKS - 7; i++)
        kv_take(&f.pool[0]);
    assert_int_equal(prefix_events_take(&f.prefix, e, 8, &first), 1);
    assert_int_equal(e[0].kind, PREFIX_REMOVED);
    assert_true(id128_eq(e[0].name, f.name[0]));
    assert_int_equal(first, 8);
    prefix_reset(&f.prefix);
    assert_int_equal(prefix_events_take(&f.prefix, e, 8, &first), 1);
    assert_int_equal(e[0].kind, PREFIX_CLEARED);
    assert_int_equal(first, 9);
    stop(&f);
}

static void test_reset(void **state) {
    (void)state;
    struct fixture f;
    start(&f, 1, 0, 0);
    add(&f, 0, 0);
    uint32_t b = kv_take(&f.pool[0]);
    prefix_name(&f.prefix, 0, b, f.name[1]);
    prefix_reset(&f.prefix);
    assert_int_equal(prefix_match(&f.prefix, f.name, 2), 0);
    assert_int_equal(f.pool[0].n_idle, 0);
    assert_int_equal(f.pool[0].n_used, 1); /* its holder goes on */
    prefix_check(&f.prefix);
    add(&f, 0, 0);
    assert_int_equal(prefix_match(&f.prefix, f.name, 2), 1);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),         cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_window_first), cmocka_unit_test(test_window_match),
        cmocka_unit_test(test_events),       cmocka_unit_test(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
