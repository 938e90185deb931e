/* Start tags of tenants, and the scheduler's order by them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/hash.h"
#include "worker/sched.h"

static struct id128 tag(uint32_t i) {
    struct id128 t = {{0}};
    uint64_t h = hash_u64(i + 1);
    memcpy(t.b, &h, sizeof h);
    return t;
}

static struct fair *fresh(void) {
    struct fair *f = xmalloc(sizeof *f);
    fair_init(f);
    return f;
}

static void test_tags(void **state) {
    (void)state;
    struct fair *f = fresh();
    uint64_t cost, first, next;
    /* Nobody is named: all tags are equal, and nothing is kept. */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(fair_arrive(f, false, tag(0), 100, 1, 50, &cost), 0);
        assert_int_equal(cost, 0);
        fair_serve(f, 0);
        fair_end(f, tag(0), 0, 100, 20, 1);
    }
    first = fair_arrive(f, true, tag(1), 100, 2, 50, &cost);
    assert_true(first > 0 && cost == 100 + 2 * 2 * 50);
    next = fair_arrive(f, true, tag(1), 100, 1, 1000, &cost);
    assert_int_equal(next, first + 100 + 2 * 2 * 50);
    assert_int_equal(cost, 100 + 2 * FAIR_OUT_FIRST);
    /* Another begins where the first had begun; and who has no name is one of them from now on. */
    assert_int_equal(fair_arrive(f, true, tag(2), 1, 1, 1, &cost), first);
    assert_int_equal(fair_arrive(f, false, (struct id128){{0}}, 1, 1, 1, &cost), first);
    assert_int_equal(fair_arrive(f, false, (struct id128){{0}}, 1, 1, 1, &cost), first + 3);
    /* The present moves on with what is served; who was away comes FAIR_BURST before it, not further. */
    fair_serve(f, first + 10 * FAIR_BURST);
    fair_serve(f, first);
    assert_int_equal(fair_arrive(f, true, tag(3), 1, 1, 1, &cost), first + 9 * FAIR_BURST);
    assert_int_equal(fair_arrive(f, true, tag(2), 1, 1, 1, &cost), first + 9 * FAIR_BURST);
    free(f);
}

static void test_corrections(void **state) {
    (void)state;
    struct fair *f = fresh();
    uint64_t cost, a = fair_arrive(f, true, tag(1), 100, 1, 10, &cost), b;
    assert_int_equal(cost, 120);
    /* It was cheaper: the next one is charged from there; and the tags of a tenant never fall. */
    b = fair_arrive(f, true, tag(1), 100, 1, 10, &cost);
    fair_end(f, tag(1), 120, 0, 5, 1);
    fair_end(f, tag(1), 120, 0, 5, 1);
    assert_int_equal(fair_arrive(f, true, tag(1), 100, 1, 10, &cost), b);
    /* It was dearer. */
    uint64_t c = fair_arrive(f, true, tag(2), 100, 1, 10, &cost);
    assert_int_equal(c, a);
    fair_end(f, tag(2), 120, 100, 1000, 0);
    assert_int_equal(fair_arrive(f, true, tag(2), 100, 1, 10, &cost), a + 2100);
    /* One that is not known any more, and more given back than there is. */
    fair_end(f, tag(99), 120, 0, 0, 1);
    fair_end(f, tag(1), UINT64_MAX / 2, 0, 0, 1);
    assert_true(fair_arrive(f, true, tag(1), 1, 1, 1, &cost) >= b);
    free(f);
}

/* More tenants than places: whoever is forgotten begins anew, and the one far ahead is not forgotten. */
static void test_many(void **state) {
    (void)state;
    struct fair *f = fresh();
    uint64_t cost, first = 0, ahead = 0;
    for (int i = 0; i < 100; i++)
        ahead = fair_arrive(f, true, tag(1), 1000000, 1, 0, &cost);
    for (uint32_t i = 2; i < 20 * FAIR_TENANTS; i++) {
        uint64_t t = fair_arrive(f, true, tag(i), 10, 1, 0, &cost);
        first = first ? first : t;
        assert_int_equal(t, first);
    }
    assert_int_equal(fair_arrive(f, true, tag(1), 1, 1, 0, &cost), ahead + 1000000);
    free(f);
}

/* ---- the scheduler ----------------------------------------------------------------------------------- */

static struct req *request(uint32_t tenant, int32_t priority, uint64_t arrival) {
    static const uint32_t prompt[40];
    const struct req src = {.n_samples = 1,
                            .prompt = prompt,
                            .n_prompt = 40,
                            .max_tokens = 4,
                            .priority = priority,
                            .tagged = tenant > 0,
                            .tenant = tenant ? tag(tenant) : (struct id128){{0}},
                            .arrival_ns = arrival,
                            .repetition_penalty = 1,
                            .n_logprobs = -1,
                            .n_prompt_logprobs = -1};
    struct req *r = req_new(&src);
    req_prepare(r, NULL, 0, false);
    return r;
}

/* A seat for each at a time: the order in which they run is the order of the queue. */
static void test_order(void **state) {
    (void)state;
    struct kv_group group = {.kind = KV_FULL, .n_blocks = 64};
    const struct sched_opts o = {.groups = &group,
                                 .n_groups = 1,
                                 .max_len = 128,
                                 .n_seqs_max = 1,
                                 .n_rows_max = 1,
                                 .token_budget = 128,
                                 .policy = SCHED_PRIORITY,
                                 .n_events_max = 16};
    struct sched s;
    struct req *r[16], *left[16];
    uint32_t n = 0, n_left = 0;
    sched_init(&s, &o);
    /* One who floods, the first of whose requests runs; then a second tenant, and one with a better priority.
     * The flood's first ones are within what anybody may have at once. */
    for (uint64_t i = 0; i < 8; i++)
        r[n++] = request(1, 0, i);
    for (uint32_t i = 0; i < n; i++)
        sched_add(&s, r[i]);
    r[n] = request(2, 0, 100);
    sched_add(&s, r[n++]);
    r[n] = request(2, 0, 101);
    sched_add(&s, r[n++]);
    r[n] = request(1, -1, 102);
    sched_add(&s, r[n++]);
    while (!sched_idle(&s)) {
        const struct step_plan *p = sched_plan(&s, 1);
        sched_computed(&s);
        struct seq *q = p->rows[0].seq;
        if (seq_accept(q, 7, 128) == FINISH_NONE)
            continue;
        sched_end(&s, q);
        sched_left(&s, q->req);
        left[n_left++] = q->req;
    }
    sched_check(&s);
    assert_int_equal(n_left, n);
    /* 10: the priority; 0 and 8 have the same tag, and 0 came first; then in turn. */
    static const uint32_t want[] = {10, 0, 8, 1, 9, 2, 3, 4, 5, 6, 7};
    for (uint32_t i = 0; i < n; i++)
        assert_ptr_equal(left[i], r[want[i]]);
    for (uint32_t i = 0; i < n; i++)
        req_free(r[i]);
    sched_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tags), cmocka_unit_test(test_corrections),
                                       cmocka_unit_test(test_many), cmocka_unit_test(test_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
