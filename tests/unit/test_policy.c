/* Which worker gets a prompt, policy by policy. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/hash.h"
#include "router/fleet/policy.h"

enum { N = 4 };
struct fixture {
    struct policy p;
    struct pick_load load[N];
    struct policy_worker w[N];
    struct policy_ask ask;
    enum policy_reason why;
};

static void init(struct fixture *f, enum policy_kind kind) {
    *f = (struct fixture){.p = {.kind = kind, .rng = 42}, .ask = {.n_seqs = 1, .n_tokens = 1000}};
    for (uint32_t i = 0; i < N; i++) {
        f->load[i] = (struct pick_load){.credit_seqs = 100, .credit_tokens = 100000};
        f->w[i] = (struct policy_worker){.load = &f->load[i], .id = hash_u64(i + 1)};
    }
}

static int choose(struct fixture *f) {
    return policy_choose(&f->p, f->w, N, &f->ask, &f->why);
}

/* give: as the fleet does with the chosen one. */
static int give(struct fixture *f) {
    int i = choose(f);
    if (i >= 0) {
        f->load[i].n_seqs += f->ask.n_seqs;
        f->load[i].n_tokens += f->ask.n_tokens;
        f->load[i].n_cached += f->w[i].n_cached;
    }
    return i;
}

static void test_names(void **state) {
    (void)state;
    for (int k = 0; k < N_POLICY; k++) {
        assert_int_equal(policy_of(policy_names[k]), k);
        assert_non_null(strstr(POLICY_CHOICES, policy_names[k]));
    }
    assert_int_equal(policy_of("fastest"), N_POLICY);
}

static void test_prefix(void **state) {
    (void)state;
    struct fixture f;
    init(&f, POLICY_PREFIX);
    /* Nobody has anything: by load, in turn among equals. */
    int first = give(&f);
    assert_int_equal(f.why, ROUTED_LOAD);
    assert_int_not_equal(give(&f), first);
    /* The holder, while its queue costs less than the prefix saves. */
    init(&f, POLICY_PREFIX);
    f.w[2].n_cached = 960;
    f.w[3].n_cached = 160;
    int n_holder = 0;
    while (give(&f) == 2) {
        assert_int_equal(f.why, ROUTED_PREFIX);
        n_holder++;
    }
    /* Each costs 40 tokens and a sequence (64); another saves 800 tokens less. */
    assert_int_equal(n_holder, 800 / (40 + PICK_SEQ_TOKENS) + 1);
    assert_int_equal(f.why, ROUTED_SPREAD);
    /* Out of credit: somebody else, at once. */
    init(&f, POLICY_PREFIX);
    f.w[1].n_cached = 960;
    f.load[1].credit_seqs = 0;
    assert_int_not_equal(choose(&f), 1);
    assert_int_equal(f.why, ROUTED_SPREAD);
}

/* A hot prefix spreads over all workers, and no queue grows beyond what a prefill costs. */
static void test_hot(void **state) {
    (void)state;
    struct fixture f;
    uint32_t served[N] = {0};
    init(&f, POLICY_PREFIX);
    for (int i = 0; i < 60; i++) {
        int w = give(&f);
        served[w]++;
        f.w[w].n_cached = 992; /* it is computed there from now on */
    }
    for (int i = 0; i < N; i++) {
        assert_in_range(served[i], 60 / N - 4, 60 / N + 12);
        assert_int_equal(f.w[i].n_cached, 992);
    }
}

static void test_least(void **state) {
    (void)state;
    struct fixture f;
    init(&f, POLICY_LEAST_LOAD);
    f.w[0].n_cached = 992; /* no matter */
    for (int i = 0; i < N; i++)
        f.load[i].n_tokens = i == 3 ? 5 : 500;
    assert_int_equal(choose(&f), 3);
    f.load[2].n_cached = 498; /* of its 500 tokens */
    assert_int_equal(choose(&f), 2);
    for (int i = 0; i < N; i++)
        f.load[i].credit_tokens = 0;
    assert_int_equal(choose(&f), -1);
    assert_int_equal(policy_choose(&f.p, f.w, 0, &f.ask, &f.why), -1);
    f.load[1].credit_tokens = 10000;
    assert_int_equal(policy_choose(&f.p, f.w + 1, 1, &f.ask, &f.why), 0);
    assert_int_equal(f.why, ROUTED_ONLY);
}

static void test_two(void **state) {
    (void)state;
    struct fixture f, g;
    uint32_t served[N] = {0};
    init(&f, POLICY_POWER_OF_TWO);
    init(&g, POLICY_POWER_OF_TWO);
    f.load[1].n_seqs = g.load[1].n_seqs = 50; /* the most loaded is never the better of two */
    for (int i = 0; i < 3000; i++) {
        int w = choose(&f);
        assert_int_equal(w, choose(&g)); /* the same seed */
        served[w]++;
    }
    assert_int_equal(served[1], 0);
    for (int i = 0; i < N; i++)
        assert_true(i == 1 || (served[i] > 700 && served[i] < 1300));
    f.load[0].credit_seqs = f.load[2].credit_seqs = f.load[3].credit_seqs = 0;
    assert_int_equal(choose(&f), 1);
    f.load[1].credit_seqs = 0;
    assert_int_equal(choose(&f), -1);
}

static void test_turn(void **state) {
    (void)state;
    struct fixture f;
    init(&f, POLICY_ROUND_ROBIN);
    for (int i = 0; i < 3 * N; i++)
        assert_int_equal(give(&f), i % N);
    f.load[1].credit_seqs = 0;
    assert_int_equal(choose(&f), 0);
    assert_int_equal(choose(&f), 2);
}

static void test_hash(void **state) {
    (void)state;
    struct fixture f;
    uint32_t served[N] = {0}, n_moved = 0;
    int home[2000];
    init(&f, POLICY_CONSISTENT_HASH);
    f.ask.has_key = true;
    for (uint32_t i = 0; i < ARRAY_LEN(home); i++) {
        f.ask.key = hash_u64(i);
        served[home[i] = choose(&f)]++;
        assert_int_equal(f.why, ROUTED_HASH);
        f.load[i % N].n_seqs = i % 50; /* load does not matter */
    }
    for (int i = 0; i < N; i++)
        assert_in_range(served[i], 400, 600);
    /* One that goes moves its own keys only; its place in the table means nothing. */
    f.w[1] = f.w[3];
    for (uint32_t i = 0; i < ARRAY_LEN(home); i++) {
        f.ask.key = hash_u64(i);
        int w = policy_choose(&f.p, f.w, 3, &f.ask, &f.why);
        if (home[i] == 1)
            n_moved++;
        else
            assert_int_equal(w == 1 ? 3 : w, home[i]);
    }
    assert_int_equal(n_moved, served[1]);
    f.ask.has_key = false;
    f.load[2].n_seqs = 0;
    assert_int_equal(choose(&f), 2);
    assert_int_equal(f.why, ROUTED_LOAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_prefix),
                                       cmocka_unit_test(test_hot),   cmocka_unit_test(test_least),
                                       cmocka_unit_test(test_two),   cmocka_unit_test(test_turn),
                                       cmocka_unit_test(test_hash)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
