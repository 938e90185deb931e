/* The scheduler's rules one by one; tests/sim has them all at once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "tests/support/engine_rig.h"
#include "worker/sched.h"

enum { N_REQS = 64 };

struct fixture {
    struct kv_group group;
    struct sched_opts opts;
    struct sched sched;
    struct req *reqs[N_REQS];
    uint32_t n_reqs;
    const struct step_plan *plan;
};

static int setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    f->group = (struct kv_group){.kind = KV_FULL, .n_blocks = 64};
    f->opts = (struct sched_opts){.groups = &f->group,
                                  .n_groups = 1,
                                  .max_len = 256,
                                  .n_seqs_max = 8,
                                  .token_budget = 64,
                                  .n_rows_max = 16,
                                  .prefix_cache = true};
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    for (uint32_t i = 0; i < f->n_reqs; i++) {
        for (uint32_t k = 0; k < f->reqs[i]->n_samples; k++)
            if (f->reqs[i]->seqs[k].state != SEQ_ENDED)
                sched_end(&f->sched, &f->reqs[i]->seqs[k]);
        assert_int_equal(f->reqs[i]->n_live, 0);
        req_free(f->reqs[i]);
    }
    sched_check(&f->sched);
    assert_int_equal(f->sched.pool[0].n_used, 0);
    sched_fini(&f->sched);
    free(f);
    return 0;
}

static struct seq *add(struct fixture *f, uint32_t n_prompt, uint32_t max_tokens, uint32_t n_samples,
                       int32_t priority) {
    static uint32_t prompt[256];
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = f->n_reqs * 1000 + i; /* nothing in common, unless a test makes it so */
    struct req q = rig_req(f->n_reqs, prompt, n_prompt, max_tokens);
    q.arrival_ns = f->n_reqs;
    q.n_samples = n_samples;
    q.priority = priority;
    struct req *r = f->reqs[f->n_reqs++] = req_new(&q);
    req_prepare(r, NULL, 0, true);
    sched_add(&f->sched, r);
    return &r->seqs[0];
}

static const struct plan_entry *entry_of(const struct fixture *f, const struct seq *q) {
    for (uint32_t i = 0; i < f->plan->n_entries; i++)
        if (f->plan->entries[i].seq == q)
            return &f->plan->entries[i];
    return NULL;
}

static void plan(struct fixture *f) {
    f->plan = sched_plan(&f->sched, 1);
    assert_true(f->plan->n_tokens <= f->opts.token_budget);
}

/* compute: as an engine would; every sample draws token 7, and ends by max_tokens. */
static void compute(struct fixture *f) {
    sched_computed(&f->sched);
    for (uint32_t i = 0; i < f->plan->n_sample_rows; i++) {
        struct seq *q = f->plan->rows[i].seq;
        if (seq_accept(q, 7, f->opts.max_len))
            sched_end(&f->sched, q);
    }
    sched_check(&f->sched);
}

static void step(struct fixture *f) {
    plan(f);
    compute(f);
}

/* Decodes come first, then prompts in chunks with what is left of the budget. */
static void test_mixed_step(void **state) {
    struct fixture *f = *state;
    sched_init(&f->sched, &f->opts);
    struct seq *a = add(f, 10, 100, 1, 0), *b = add(f, 150, 100, 1, 0), *c = add(f, 20, 100, 1, 0);
    plan(f);
    assert_int_equal(entry_of(f, a)->n_tokens, 10);
    assert_int_equal(entry_of(f, b)->n_tokens, 54); /* a chunk */
    assert_null(entry_of(f, c));
    assert_int_equal(f->plan->n_sample_rows, 1);
    assert_int_equal(f->plan->n_prefill_tokens, 64);
    compute(f);
    plan(f);
    assert_int_equal(entry_of(f, a)->n_tokens, 1);
    assert_false(entry_of(f, a)->prefill);
    assert_int_equal(entry_of(f, b)->start, 54);
    assert_int_equal(entry_of(f, b)->n_tokens, 63);
    compute(f);
    plan(f);
    assert_int_equal(entry_of(f, b)->n_tokens, 33);
    assert_int_equal(entry_of(f, c)->n_tokens, 20); /* in the same step as the others */
    assert_int_equal(f->plan->n_sample_rows, 3);
    compute(f);
}

static void test_long_prefill(void **state) {
    struct fixture *f = *state;
    f->opts.long_prefill_tokens = 16;
    sched_init(&f->sched, &f->opts);
    struct seq *a = add(f, 100, 5, 1, 0), *b = add(f, 100, 5, 1, 0);
    plan(f);
    assert_int_equal(entry_of(f, a)->n_tokens, 16);
    assert_int_equal(entry_of(f, b)->n_tokens, 16);
    compute(f);
}

/* However many decode, a quarter of the step is for prompts. */
/* A prompt that does not fit into what decodes leave of a step waits until it does, whole; so does what is behind it. */
static void test_whole_prompts(void **state) {
    struct fixture *f = *state;
    f->opts.whole_prompts = true;
    f->opts.max_len = f->opts.token_budget = 64;
    sched_init(&f->sched, &f->opts);
    struct seq *a = add(f, 40, 3, 1, 0), *b = add(f, 63, 1, 1, 0), *c = add(f, 10, 2, 1, 0);
    plan(f);
    assert_int_equal(entry_of(f, a)->n_tokens, 40);
    assert_true(!entry_of(f, b) && !entry_of(f, c));
    compute(f);
    plan(f); /* 63 tokens are left beside a's */
    assert_int_equal(entry_of(f, a)->n_tokens, 1);
    assert_int_equal(entry_of(f, b)->n_tokens, 63);
    assert_null(entry_of(f, c));
    compute(f); /* b ends */
    struct seq *d = add(f, 63, 1, 1, 0);
    plan(f);
    assert_int_equal(entry_of(f, c)->n_tokens, 10);
    assert_null(entry_of(f, d)); /* 53 are left */
    compute(f); /* a ends */
    plan(f);
    assert_int_equal(entry_of(f, c)->n_tokens, 1);
    assert_int_equal(entry_of(f, d)->n_tokens, 63);
    compute(f);
}

static void test_seats(void **state) {
    struct fixture *f = *state;
    f->opts.token_budget = 8;
    f->opts.n_seqs_max = 16;
    sched_init(&f->sched, &f->opts);
    for (int i = 0; i < 10; i++)
        add(f, 2, 50, 1, 0);
    for (int i = 0; i < 10; i++)
        step(f);
    assert_int_equal(f->sched.n_running, 6);
    assert_int_equal(f->sched.n_waiting, 4);
}

static void test_fork(void **state) {
    struct fixture *f = *state;
    sched_init(&f->sched, &f->opts);
    struct seq *q = add(f, 40, 20, 4, 0);
    plan(f);
    assert_int_equal(f->plan->n_tokens, 40); /* the prompt once */
    assert_int_equal(f->plan->n_forks, 3);
    assert_int_equal(f->plan->n_sample_rows, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_ptr_equal(f->plan->rows[i].seq, q + i);
        assert_int_equal(f->plan->rows[i].token, 39);
    }
    compute(f);
    assert_int_equal(f->sched.pool[0].n_used, 3); /* all of it shared */
    plan(f);
    assert_int_equal(f->plan->n_tokens, 4);
    assert_true(f->plan->n_copies >= 3); /* the half-full block, before anyone writes to it */
    compute(f);
    assert_int_equal(f->sched.pool[0].n_used, 2 + 4);
    for (int i = 0; i < 6; i++)
        step(f); /* 47 and 48 are in the third block, 49 in the fourth */
    plan(f);
    assert_int_equal(f->plan->n_copies, 0);
    compute(f);
}

/* Samples that find no seat wait, and find the prompt in the cache. */
static void test_fork_without_seats(void **state) {
    struct fixture *f = *state;
    f->opts.n_seqs_max = 3;
    sched_init(&f->sched, &f->opts);
    struct seq *q = add(f, 40, 5, 8, 0);
    step(f);
    assert_int_equal(f->sched.n_running, 3);
    assert_int_equal(f->sched.n_waiting + f->sched.n_pending, 5);
    for (int i = 0; i < 4; i++)
        step(f);
    plan(f);
    assert_int_equal(entry_of(f, q + 3)->start, 32);
    assert_int_equal(f->plan->n_forks, 2); /* the rest hangs on it, as far as there are seats */
    compute(f);
    for (int i = 0; i < 12; i++)
        step(f);
    for (int k = 0; k < 8; k++)
        assert_true(q[k].state == SEQ_ENDED && q[k].n_out == 5);
}

/* Those that hang on an aborted sample are left to the next. */
static void test_abort_of_the_first(void **state) {
    struct fixture *f = *state;
    sched_init(&f->sched, &f->opts);
    struct seq *q = add(f, 100, 3, 4, 0);
    step(f);
    assert_int_equal(f->sched.n_pending, 3);
    sched_end(&f->sched, q + 2);
    sched_end(&f->sched, q);
    assert_int_equal(f->sched.n_pending, 1);
    assert_int_equal(f->sched.n_waiting, 1);
    assert_int_equal(f->sched.pool[0].n_used, 0);
    for (int i = 0; i < 6; i++)
        step(f);
    assert_true(q[1].n_out == 3 && q[3].n_out == 3);
}

/* When blocks run out, the last in order gives way, waits in its old place, and recomputes. */
static void preemption(struct fixture *f, enum sched_policy policy) {
    f->opts.policy = policy;
    f->opts.prefix_cache = false;
    f->group.n_blocks = 16;
    sched_init(&f->sched, &f->opts);
    struct seq *a = add(f, 60, 150, 1, 1), *b = add(f, 60, 150, 1, 2), *c = add(f, 60, 150, 1, 0);
    struct seq *loser = policy == SCHED_PRIORITY ? b : c;
    while (f->sched.n_preemptions == 0)
        step(f);
    assert_int_equal(loser->n_preempted, 1);
    assert_int_equal(loser->state, SEQ_WAITING);
    assert_int_equal(loser->n_computed, 0);
    assert_true(loser->n_out > 0);
    uint32_t n_out = loser->n_out;
    struct seq *late = add(f, 10, 5, 1, 2);
    while (loser->state != SEQ_RUNNING) {
        assert_int_equal(late->state, SEQ_WAITING); /* it does not overtake */
        step(f);
    }
    while (loser->n_out == n_out)
        step(f);
    assert_int_equal(loser->n_computed, 60 + n_out);
    while (!sched_idle(&f->sched))
        step(f);
    assert_true(a->n_out == 150 && b->n_out == 150 && c->n_out == 150);
}

static void test_preemption_fcfs(void **state) {
    preemption(*state, SCHED_FCFS);
}
static void test_preemption_priority(void **state) {
    preemption(*state, SCHED_PRIORITY);
}

static void test_priority_order(void **state) {
    struct fixture *f = *state;
    f->opts.policy = SCHED_PRIORITY;
    f->opts.n_seqs_max = 1;
    sched_init(&f->sched, &f->opts);
    struct seq *a = add(f, 10, 2, 1, 5), *b = add(f, 10, 2, 1, -1), *c = add(f, 10, 2, 1, 5);
    const struct seq *order[] = {b, b, a, a, c, c};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        plan(f);
        assert_int_equal(f->plan->n_entries, 1);
        assert_ptr_equal(f->plan->entries[0].seq, order[i]);
        compute(f);
    }
}

/* A newcomer leaves a block for everyone who runs, so that it is not thrown out again at once. */
static void test_watermark(void **state) {
    struct fixture *f = *state;
    f->opts.prefix_cache = false;
    f->group.n_blocks = 16;
    sched_init(&f->sched, &f->opts);
    for (int i = 0; i < 5; i++)
        add(f, 48, 100, 1, 0);
    step(f);
    step(f);
    step(f);
    step(f);
    /* 3 + 3 + 3 blocks and those they grew into: a fourth would need 3, and one for each of three. */
    assert_int_equal(f->sched.n_running, 3);
    assert_int_equal(f->sched.n_preemptions, 0);
}

/* Windows give blocks back behind them, so a long sequence holds few. */
static void test_window(void **state) {
    struct fixture *f = *state;
    f->group = (struct kv_group){.kind = KV_WINDOW, .window = 32, .n_blocks = 16};
    f->opts.long_prefill_tokens = 32;
    f->opts.prefix_cache = false;
    sched_init(&f->sched, &f->opts);
    struct seq *q = add(f, 200, 50, 1, 0);
    uint32_t most = 0;
    while (!sched_idle(&f->sched)) {
        step(f);
        most = MAX(most, f->sched.pool[0].n_used);
        if (q->n_out == 10) {
            /* 209 are computed; the last query, at 208, saw 177 and later. */
            assert_int_equal(f->sched.pool[0].n_used, 3);
            assert_int_equal(sched_table(&f->sched, 0, q)[9], KV_NO_BLOCK);
        }
    }
    assert_true(most <= sched_blocks_needed(&f->group, 250, 32));
    assert_int_equal(sched_blocks_needed(&f->group, 250, 32), 6);
    assert_int_equal(sched_blocks_needed(&f->group, 20, 32), 2);
    assert_int_equal(q->n_out, 50);
}

/* Rows of logits bound a step that wants the logprobs of a prompt. */
static void test_prompt_rows(void **state) {
    struct fixture *f = *state;
    sched_init(&f->sched, &f->opts);
    struct seq *a = add(f, 4, 50, 1, 0), *q = add(f, 40, 5, 1, 0);
    q->req->n_prompt_logprobs = 0;
    plan(f);
    assert_int_equal(f->plan->n_sample_rows, 1);
    assert_int_equal(f->plan->n_rows, 16);
    assert_int_equal(entry_of(f, q)->n_tokens, 15);
    assert_int_equal(f->plan->rows[1].prompt_at, 1);
    assert_int_equal(f->plan->rows[15].prompt_at, 15);
    compute(f);
    step(f);
    plan(f);
    assert_int_equal(entry_of(f, q)->n_tokens, 10); /* 15 + 15 + 10; the last is sampled from */
    assert_int_equal(f->plan->n_rows, 1 + 1 + 9);
    assert_int_equal(f->plan->rows[10].prompt_at, 39);
    compute(f);
    assert_int_equal(q->req->n_prompt_done, 40);
    assert_int_equal(a->n_out, 3);
}

/* No cache groups at all, as for a model without a cache. */
static void test_no_groups(void **state) {
    struct fixture *f = *state;
    f->opts.n_groups = 0;
    sched_init(&f->sched, &f->opts);
    struct seq *q = add(f, 100, 5, 3, 0);
    for (int i = 0; i < 6; i++)
        step(f);
    for (int k = 0; k < 3; k++)
        assert_int_equal(q[k].n_out, 5);
}

int main(void) {
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_mixed_step),
        T(test_long_prefill),
        T(test_whole_prompts),
        T(test_seats),
        T(test_fork),
        T(test_fork_without_seats),
        T(test_abort_of_the_first),
        T(test_preemption_fcfs),
        T(test_preemption_priority),
        T(test_priority_order),
        T(test_watermark),
        T(test_window),
        T(test_prompt_rows),
        T(test_no_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
