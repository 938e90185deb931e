/* Whether a prompt is computed elsewhere: by roles, by what is queued, by what has been measured. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "router/fleet/split.h"

static const struct split_rate unknown = {0};

static struct split_side side(enum worker_role role, uint32_t n, uint64_t queued, double us) {
    return (struct split_side){.role = role, .n_compute = n, .queued_tokens = queued, .token = {.us = us}};
}

static bool pays(struct split_side decode, struct split_side prefill) {
    return split_pays(&decode, &prefill, unknown, 256);
}

static void names(void **state) {
    (void)state;
    for (int k = 0; k < N_WORKER_ROLE; k++)
        assert_int_equal(worker_role_of(worker_roles[k]), k);
    assert_int_equal(worker_role_of(NULL), WORKER_BOTH);
    assert_int_equal(worker_role_of("of a newer peer"), WORKER_BOTH);
}

static void roles(void **state) {
    (void)state;
    const struct split_side idle = side(WORKER_PREFILL, 1000, 0, 0);
    assert_true(pays(side(WORKER_DECODE, 1000, 0, 0), idle));
    assert_true(pays(side(WORKER_DECODE, 1000, 0, 0), side(WORKER_BOTH, 1000, 0, 0)));
    /* One that does both is not spared: it computes what it can compute as soon as the other. */
    assert_false(pays(side(WORKER_BOTH, 1000, 0, 0), idle));
    assert_true(pays(side(WORKER_BOTH, 1000, 2000, 0), idle));
    assert_false(pays(side(WORKER_BOTH, 1000, 2000, 0), side(WORKER_BOTH, 1000, 0, 0)));
    assert_false(pays(side(WORKER_DECODE, 1000, 0, 0), side(WORKER_DECODE, 1000, 0, 0)));
    assert_false(pays(side(WORKER_PREFILL, 1000, 0, 0), idle)); /* it decodes for want of another */
}

static void sizes(void **state) {
    (void)state;
    assert_true(pays(side(WORKER_DECODE, 256, 0, 0), side(WORKER_PREFILL, 256, 0, 0)));
    assert_false(pays(side(WORKER_DECODE, 255, 0, 0), side(WORKER_PREFILL, 255, 0, 0)));
    const struct split_side d = side(WORKER_DECODE, 4000, 0, 0), p = side(WORKER_PREFILL, 4000, 0, 0);
    assert_false(split_pays(&d, &p, unknown, 0));
    /* The rest of a long prompt that is cached where it is decoded, and nowhere else. */
    assert_false(pays(side(WORKER_DECODE, 300, 0, 0), side(WORKER_PREFILL, 8000, 0, 0)));
    assert_true(pays(side(WORKER_DECODE, 300, 0, 0), side(WORKER_PREFILL, 300, 0, 0)));
}

/* The line at the prefill side counts, up to what sparing the other is worth. */
static void queues(void **state) {
    (void)state;
    assert_true(pays(side(WORKER_DECODE, 1000, 0, 0), side(WORKER_PREFILL, 1000, 2900, 0)));
    assert_false(pays(side(WORKER_DECODE, 1000, 0, 0), side(WORKER_PREFILL, 1000, 3000, 0)));
    assert_true(pays(side(WORKER_DECODE, 1000, 100, 0), side(WORKER_PREFILL, 1000, 3000, 0)));
}

static void measured(void **state) {
    (void)state;
    /* A prefill side five times as slow is of no use, one four times as fast is even to one that does both. */
    assert_false(pays(side(WORKER_DECODE, 1000, 0, 10), side(WORKER_PREFILL, 1000, 0, 50)));
    assert_true(pays(side(WORKER_BOTH, 1000, 0, 40), side(WORKER_PREFILL, 1000, 0, 10)));
    /* Where one is not known yet, tokens are compared. */
    assert_true(pays(side(WORKER_DECODE, 1000, 0, 10), side(WORKER_PREFILL, 1000, 0, 0)));
    /* A slow network. */
    const struct split_side d = side(WORKER_DECODE, 1000, 0, 10), p = side(WORKER_PREFILL, 1000, 0, 10);
    assert_true(split_pays(&d, &p, (struct split_rate){.us = 29000}, 256));
    assert_false(split_pays(&d, &p, (struct split_rate){.us = 30000}, 256));
}

static void learning(void **state) {
    (void)state;
    struct split_rate r = {0};
    split_learn(&r, 100, 1000, 5);
    assert_true(r.us == 10);
    for (int i = 0; i < 100; i++)
        split_learn(&r, 50, 1000, 6);
    assert_true(r.us > 19.9 && r.us <= 20);
    split_learn(&r, 0, 5, 7);
    assert_true(r.us > 19.9);
    r = (struct split_rate){0};
    split_learn(&r, 1000, 0, 8); /* faster than the clock: known all the same */
    assert_true(r.us > 0);
    /* After some time it is as if nothing had been measured. */
    const uint64_t later = 8 + SPLIT_STALE_S * 1000000000ull;
    assert_true(split_at(r, later - 1).us == r.us && split_at(r, later).us == 0);
    split_learn(&r, 10, 1000, later);
    assert_true(r.us == 100 && r.at_ns == later);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),  cmocka_unit_test(roles),    cmocka_unit_test(sizes),
        cmocka_unit_test(queues), cmocka_unit_test(measured), cmocka_unit_test(learning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
