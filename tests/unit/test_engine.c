/* The engine's loop on a device without arithmetic: what comes out, in what order, and what is left behind.
 * threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "tests/support/engine_rig.h"
#include "tests/support/fake_be.h"

#ifndef FIXTURE_OPS /* tests/unit/test_engine_ahead.c has another */
#define FIXTURE_OPS fake_ops
#endif

struct fixture {
    struct fake_device device;
    struct be *be;
    struct cache_group_spec group;
    struct engine_opts opts;
    struct rig rig;
};

static int setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    f->be = fake_open(&f->device);
    f->opts = rig_opts(f->be, &f->group);
    f->opts.ops = &FIXTURE_OPS;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    rig_free(&f->rig);
    fake_close(f->be);
    free(f);
    return 0;
}

/* expect: the sample's whole output is what the device gives it alone. */
static void expect(const struct fixture *f, const struct req *q, uint32_t sample) {
    uint32_t want[RIG_TOKENS], stops[8], n_stops = 0;
    for (uint32_t i = 0; !q->ignore_eos && i < 2; i++)
        stops[n_stops++] = rig_eos[i];
    for (uint32_t i = 0; i < q->n_stop_ids; i++)
        stops[n_stops++] = q->stop_ids[i];
    uint32_t n = fake_expect(q, sample, stops, n_stops, want, RIG_TOKENS);
    const struct rig_stream *s = &f->rig.streams[q->stream + sample];
    assert_int_equal(s->n_ends, 1);
    assert_int_equal(s->n_tokens, n);
    assert_memory_equal(s->tokens, want, n * sizeof *want);
    bool stopped = false;
    for (uint32_t i = 0; i < n_stops; i++)
        stopped = stopped || want[n - 1] == stops[i];
    assert_int_equal(s->finish, stopped ? FINISH_STOP : FINISH_LENGTH);
    if (stopped) {
        assert_int_equal(s->stop_id, want[n - 1]);
        assert_int_equal(s->eos, want[n - 1] == rig_eos[0]);
    }
}

static void test_many(void **state) {
    struct fixture *f = *state;
    enum { N = 150 };
    static uint32_t prompts[N][120];
    static struct req reqs[N];
    const uint32_t budgets[] = {128, 17, 1};
    for (size_t b = 0; b < ARRAY_LEN(budgets); b++) {
        f->opts.token_budget = budgets[b];
        f->opts.n_blocks[0] = b ? 18 : 512; /* b > 0: room for one long sequence, or some will be preempted */
        rig_start(&f->rig, &f->opts);
        uint32_t n_ends = 0, stream = 0, n_reqs = budgets[b] == 1 ? 10 : N;
        for (uint32_t i = 0; i < n_reqs; i++) {
            uint32_t n = 1 + (uint32_t)(hash_u64(i) % 119);
            rig_prompt(prompts[i], n, i % 7); /* many share a beginning */
            reqs[i] = rig_req(stream, prompts[i], n, 1 + i % 40);
            reqs[i].n_samples = i % 5 == 0 ? 3 : 1;
            reqs[i].temperature = i % 2 ? 0 : 1;
            reqs[i].seed = i;
            reqs[i].router = i % RIG_ROUTERS;
            reqs[i].presence_penalty = i % 3 == 0 ? 0.5f : 0;
            reqs[i].min_tokens = i % 4 == 0 ? 1 : 0;
            reqs[i].n_logprobs = i % 3 == 0 ? (int32_t)(i % 4) : -1;
            rig_submit(&f->rig, &reqs[i]);
            stream += reqs[i].n_samples;
            n_ends += reqs[i].n_samples;
        }
        rig_wait_ends(&f->rig, n_ends);
        rig_wait_idle(&f->rig);
        for (uint32_t i = 0; i < n_reqs; i++)
            for (uint32_t k = 0; k < reqs[i].n_samples; k++)
                expect(f, &reqs[i], k);
        struct engine_stats s;
        engine_stats_get(f->rig.engine, &s);
        assert_int_equal(s.finished[FINISH_STOP] + s.finished[FINISH_LENGTH], n_ends);
        if (budgets[b] == 17)
            assert_true(s.preemptions > 0);
        assert_int_equal(atomic_load(&f->device.n_ahead) > 0, FIXTURE_OPS.wait_sampled != NULL);
        rig_stop(&f->rig);
        if (b + 1 < ARRAY_LEN(budgets))
            rig_free(&f->rig);
    }
}

/* Counters: R requests of P prompt and G output tokens without cache hits (api.md 20.2). */
static void test_stats(void **state) {
    struct fixture *f = *state;
    enum { R = 9, P = 50, G = 13 };
    uint32_t prompt[P];
    f->opts.prefix_cache = false;
    f->opts.token_budget = 64;
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < R; i++) {
        rig_prompt(prompt, P, i);
        struct req q = rig_req(i, prompt, P, G);
        q.ignore_eos = true;
        rig_submit(&f->rig, &q);
    }
    rig_wait_ends(&f->rig, R);
    struct engine_stats s;
    rig_wait_idle(&f->rig);
    engine_stats_get(f->rig.engine, &s);
    assert_int_equal(s.prompt_tokens, R * P);
    assert_int_equal(s.generated_tokens, R * G);
    assert_int_equal(s.iteration_tokens_sum, R * (P + G));
    assert_int_equal(s.computed_tokens, R * (P + G - 1));
    assert_int_equal(s.finished[FINISH_LENGTH], R);
    assert_int_equal(s.prefix_queries, 0);
    assert_int_equal(s.kv_total_blocks, 512);
    uint64_t n = 0;
    for (uint32_t i = 0; i < ENGINE_ITER_BUCKETS; i++)
        n += s.iteration_tokens[i];
    assert_int_equal(n, s.steps);
    assert_true(atomic_load(&f->device.n_tokens_max) <= 64);
}

static void test_prefix_hits(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[100];
    rig_prompt(prompt, 100, 1);
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < 5; i++) {
        struct req q = rig_req(i, prompt, i == 4 ? 96 : 100, 20);
        q.domain[3] = i == 3; /* another salt */
        if (i == 2) {
            assert_int_equal(engine_control(f->rig.engine, ENGINE_RESET_PREFIX_CACHE, 0, 0, 7), RC_OK);
        }
        rig_submit(&f->rig, &q);
        rig_wait_ends(&f->rig, i + 1);
        expect(f, &q, 0);
    }
    assert_int_equal(f->rig.n_controls, 1);
    assert_true(f->rig.control_ok);
    const uint32_t want[] = {0, 96, 0, 0, 80}; /* the last prompt token is always computed */
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(f->rig.streams[i].n_cached, want[i]);
    struct engine_stats s;
    engine_stats_get(f->rig.engine, &s);
    assert_int_equal(s.prefix_queries, 496);
    assert_int_equal(s.prefix_hits, 176);
    assert_int_equal(s.prompt_tokens_cached, 176);
}

/* A prompt's logprobs are whole whatever the cache holds and however it is chunked. */
static void test_prompt_logprobs(void **state) {
    struct fixture *f = *state;
    enum { P = 100 };
    uint32_t prompt[P];
    rig_prompt(prompt, P, 1);
    f->opts.long_prefill_tokens = 13;
    f->opts.n_rows_max = 64;
    rig_start(&f->rig, &f->opts);
    struct req plain = rig_req(0, prompt, P, 3);
    rig_submit(&f->rig, &plain);
    rig_wait_ends(&f->rig, 1);
    struct req q = rig_req(1, prompt, P, 5);
    q.n_prompt_logprobs = 2;
    q.n_samples = 3;
    q.temperature = 1;
    rig_submit(&f->rig, &q);
    struct req only = rig_req(10, prompt, P, 0);
    only.n_prompt_logprobs = 0;
    rig_submit(&f->rig, &only);
    rig_wait_ends(&f->rig, 5);
    const struct rig_stream *s = &f->rig.streams[1];
    assert_int_equal(s->n_cached, 0);
    assert_int_equal(s->n_prompt_logprobs, P);
    assert_int_equal(f->rig.streams[2].n_prompt_logprobs, 0); /* once a request */
    for (uint32_t i = 1; i < P; i++) {
        assert_int_equal(s->prompt[i].id, prompt[i]);
        assert_true(s->prompt[i].logprob == fake_logprob(prompt, i, 0, prompt[i]));
        assert_int_equal(s->prompt_top_ids[2 * i + 1], 1);
        assert_true(s->prompt_top_logprobs[2 * i + 1] == fake_logprob(prompt, i, 0, 1));
        assert_memory_equal(&f->rig.streams[10].prompt[i], &s->prompt[i], sizeof s->prompt[i]);
    }
    for (uint32_t k = 0; k < 3; k++)
        expect(f, &q, k);
    assert_int_equal(f->rig.streams[10].finish, FINISH_LENGTH);
    assert_int_equal(f->rig.streams[10].n_tokens, 0);
    assert_int_equal(f->rig.streams[10].n_firsts, 1);
}

/* A replay goes on exactly where the lost worker stopped. */
static void test_resume(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[40], whole[2][30];
    rig_prompt(prompt, 40, 4);
    rig_start(&f->rig, &f->opts);
    struct req q = rig_req(0, prompt, 40, 30);
    q.n_samples = 2;
    q.ignore_eos = true;
    q.temperature = 1;
    q.seed = 5;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 2);
    for (int k = 0; k < 2; k++)
        memcpy(whole[k], f->rig.streams[k].tokens, sizeof whole[k]);
    rig_clear(&f->rig);
    const struct req_resume resume[] = {{0, whole[0], 29}, {1, whole[1], 7}};
    q.resume = resume;
    q.n_resume = 2;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 2);
    assert_int_equal(f->rig.streams[0].n_tokens, 1);
    assert_int_equal(f->rig.streams[0].tokens[0], whole[0][29]);
    assert_int_equal(f->rig.streams[1].n_tokens, 23);
    assert_memory_equal(f->rig.streams[1].tokens, whole[1] + 7, 23 * sizeof(uint32_t));
}

static void test_stops(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[8], want[RIG_TOKENS];
    rig_prompt(prompt, 8, 9);
    rig_start(&f->rig, &f->opts);
    struct req q = rig_req(0, prompt, 8, 100);
    q.ignore_eos = true;
    fake_expect(&q, 0, NULL, 0, want, 20);
    const uint32_t stop_ids[] = {want[12], want[5]};
    uint32_t at = 0;
    while (want[at] != stop_ids[0] && want[at] != stop_ids[1])
        at++;
    q.stop_ids = stop_ids;
    q.n_stop_ids = 2;
    rig_submit(&f->rig, &q);
    struct req later = q; /* nothing stops before min_tokens: the ids are masked */
    later.stream = later.id.b[0] = 1;
    later.min_tokens = 15;
    rig_submit(&f->rig, &later);
    rig_wait_ends(&f->rig, 2);
    assert_int_equal(f->rig.streams[0].n_tokens, at + 1);
    assert_int_equal(f->rig.streams[0].stop_id, want[at]);
    assert_false(f->rig.streams[0].eos);
    assert_true(f->rig.streams[1].n_tokens > 15);
    for (uint32_t i = 0; i < 15; i++)
        assert_true(f->rig.streams[1].tokens[i] != stop_ids[0] && f->rig.streams[1].tokens[i] != stop_ids[1]);
    expect(f, &later, 0);
}

static void test_errors(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[8], mask[(FAKE_VOCAB + 31) / 32] = {0};
    rig_prompt(prompt, 8, 9);
    atomic_store(&f->device.step_us, 1000);
    rig_start(&f->rig, &f->opts);
    struct req q = rig_req(0, prompt, 8, 10);
    q.allowed = mask;
    q.n_allowed_words = ARRAY_LEN(mask);
    mask[97 / 32] = 1u << 97 % 32; /* the end token only, which min_tokens masks */
    q.min_tokens = 2;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 1);
    assert_int_equal(f->rig.streams[0].finish, FINISH_ERROR);
    assert_int_equal(f->rig.streams[0].status, 400);
    assert_string_equal(f->rig.streams[0].message, "no token satisfies the constraints");

    atomic_store(&f->device.nan_in, 3);
    q = rig_req(1, prompt, 8, 10);
    q.ignore_eos = true;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 2);
    assert_int_equal(f->rig.streams[1].finish, FINISH_ERROR);
    assert_int_equal(f->rig.streams[1].status, 500);
    assert_int_equal(f->rig.streams[1].n_tokens, 2);

    q = rig_req(2, prompt, 8, 200);
    q.ignore_eos = true;
    q.deadline_ns = clock_ns() + 20 * NS_PER_MS;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 3);
    assert_int_equal(f->rig.streams[2].status, 504);
    assert_true(f->rig.streams[2].n_tokens > 0 && f->rig.streams[2].n_tokens < 200);
    rig_wait_idle(&f->rig);
}

static void test_device_failure(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[40];
    rig_prompt(prompt, 40, 1);
    f->opts.n_seqs_max = 4; /* so that some wait */
    atomic_store(&f->device.fail_in, 6);
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < 10; i++) {
        struct req q = rig_req(3 * i, prompt, 40, 100);
        q.n_samples = 3;
        q.temperature = 1;
        q.ignore_eos = true;
        struct err e;
        struct req *r = req_new(&q);
        if (engine_submit(f->rig.engine, r, &e) == RC_OK)
            continue;
        req_free(r); /* it failed before the last came */
        assert_int_equal(e.rc, RC_UNAVAILABLE);
        i = 10;
    }
    struct engine_stats s = {0};
    while (!s.failed) {
        usleep(1000);
        engine_stats_get(f->rig.engine, &s);
    }
    rig_wait_idle(&f->rig);
    rig_stop(&f->rig);
    assert_int_equal(f->rig.n_failed, 1);
    for (uint32_t i = 0; i < RIG_STREAMS; i++)
        if (f->rig.streams[i].n_ends)
            assert_int_equal(f->rig.streams[i].status, 503);
    assert_int_equal(s.finished[FINISH_ERROR], f->rig.n_ends);
}

/* 200 clients leave at random phases: in the queue, in prefill, between tokens, one sample or all. */
static void test_aborts(void **state) {
    struct fixture *f = *state;
    enum { N = 200 };
    uint32_t prompt[200], n_ends = 0;
    f->opts.token_budget = 48;
    f->opts.n_seqs_max = 16;
    f->opts.n_blocks[0] = 60;
    atomic_store(&f->device.step_us, 50);
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t n = 1 + (uint32_t)(hash_u64(i) % 180);
        rig_prompt(prompt, n, i % 3);
        struct req q = rig_req(4 * i, prompt, n, 40);
        q.n_samples = 1 + i % 3;
        q.temperature = 1;
        q.router = i % RIG_ROUTERS;
        q.router_epoch = 3;
        rig_submit(&f->rig, &q);
        n_ends += q.n_samples;
        if (i % 8 == 7)
            usleep((useconds_t)(hash_u64(i + 77) % 400));
        uint32_t k = i < 20 ? i : i - (uint32_t)(hash_u64(i) % 20); /* someone recent leaves */
        struct req left = rig_req(4 * k, prompt, 1, 1);
        uint32_t n_samples = 1 + k % 3;
        uint64_t stream = left.stream + hash_u64(i) % n_samples;
        assert_int_equal(engine_abort(f->rig.engine, k % RIG_ROUTERS, 3, left.id, i % 2, stream), RC_OK);
        /* Another connection's request, an older one's and an unknown sample: no effect. */
        assert_int_equal(engine_abort(f->rig.engine, (i + 1) % RIG_ROUTERS, 3, q.id, true, 0), RC_OK);
        assert_int_equal(engine_abort(f->rig.engine, i % RIG_ROUTERS, 2, q.id, true, 0), RC_OK);
        assert_int_equal(engine_abort(f->rig.engine, i % RIG_ROUTERS, 3, q.id, false, 4 * i + 3), RC_OK);
    }
    usleep(2000);
    for (uint32_t i = 0; i < N; i++) {
        struct req left = rig_req(4 * i, prompt, 1, 1);
        assert_int_equal(engine_abort(f->rig.engine, i % RIG_ROUTERS, 3, left.id, true, 0), RC_OK);
    }
    rig_wait_ends(&f->rig, n_ends);
    rig_wait_idle(&f->rig);
    struct engine_stats s;
    engine_stats_get(f->rig.engine, &s);
    assert_true(s.finished[FINISH_ABORT] > N / 2);
    uint64_t n = 0;
    for (int i = 0; i < N_FINISH; i++)
        n += s.finished[i];
    assert_int_equal(n, n_ends);
}

static void test_drop_router(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[50];
    rig_prompt(prompt, 50, 2);
    atomic_store(&f->device.step_us, 200);
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < 40; i++) {
        struct req q = rig_req(i, prompt, 50, 100);
        q.ignore_eos = true;
        q.router = i % 2;
        q.router_epoch = 5;
        rig_submit(&f->rig, &q);
    }
    rig_wait_tokens(&f->rig, 0, 1);
    engine_drop_router(f->rig.engine, 0, 5);
    struct req q = rig_req(100, prompt, 50, 10); /* the index is used again at once */
    q.router_epoch = 6;
    q.ignore_eos = true;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 21);
    rig_wait_idle(&f->rig);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(f->rig.streams[i].n_ends, i % 2); /* those of the dropped one end in silence */
    expect(f, &q, 0);
}

/* Requests for very many alternatives share what one step's message holds. */
static void test_wide_logprobs(void **state) {
    struct fixture *f = *state;
    enum { VOCAB = 150000, FIT = 13 }; /* FIT of them are below 2^21, one more is not */
    uint32_t prompt[4] = {1, 2, 3, 4};
    struct err e;
    f->opts.n_vocab = f->opts.n_top_max = VOCAB;
    atomic_store(&f->device.step_us, 2000);
    rig_start(&f->rig, &f->opts);
    struct req q = rig_req(0, prompt, 4, 20);
    q.n_logprobs = VOCAB;
    q.n_samples = FIT + 1;
    struct req *r = req_new(&q);
    assert_int_equal(engine_submit(f->rig.engine, r, &e), RC_INVALID);
    assert_string_equal(e.param, "n_logprobs");
    req_free(r);
    for (uint32_t i = 0; i < FIT; i++) {
        q = rig_req(i, prompt, 4, 20);
        q.n_logprobs = VOCAB;
        rig_submit(&f->rig, &q);
    }
    q = rig_req(FIT, prompt, 4, 20);
    q.n_logprobs = VOCAB;
    r = req_new(&q);
    assert_int_equal(engine_submit(f->rig.engine, r, &e), RC_OVERLOAD);
    req_free(r);
    struct req narrow = rig_req(FIT, prompt, 4, 20);
    narrow.n_logprobs = 5;
    rig_submit(&f->rig, &narrow);
    rig_wait_ends(&f->rig, FIT + 1);
    rig_wait_idle(&f->rig);
    q.stream = FIT + 1;
    r = req_new(&q);
    while (engine_submit(f->rig.engine, r, &e) == RC_OVERLOAD) /* what ended is freed a moment later */
        usleep(100);
    rig_wait_ends(&f->rig, FIT + 2);
    rig_stop(&f->rig);
}

static void test_drain_and_refusals(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[50];
    struct err e;
    rig_prompt(prompt, 50, 2);
    f->opts.n_requests_max = 3;
    atomic_store(&f->device.step_us, 300);
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < 3; i++) {
        struct req q = rig_req(i, prompt, 50, 20);
        rig_submit(&f->rig, &q);
    }
    struct req q = rig_req(3, prompt, 50, 20);
    struct req *r = req_new(&q);
    assert_int_equal(engine_submit(f->rig.engine, r, &e), RC_OVERLOAD);
    engine_drain(f->rig.engine);
    assert_int_equal(engine_submit(f->rig.engine, r, &e), RC_UNAVAILABLE);
    req_free(r);
    rig_wait_ends(&f->rig, 3);
    rig_wait_idle(&f->rig);
    rig_stop(&f->rig);
    assert_int_equal(f->rig.n_drained, 1);
}

/* stopping: what is there ends with FINISH_ABORT, reported. */
static void test_stop(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[50];
    rig_prompt(prompt, 50, 2);
    atomic_store(&f->device.step_us, 1000);
    rig_start(&f->rig, &f->opts);
    for (uint32_t i = 0; i < 5; i++) {
        struct req q = rig_req(2 * i, prompt, 50, 200);
        q.n_samples = 2;
        q.ignore_eos = true;
        q.temperature = 1;
        rig_submit(&f->rig, &q);
    }
    rig_wait_tokens(&f->rig, 0, 2);
    engine_stop(f->rig.engine);
    /* Nobody empties the inbox now: who retries while it is full must not wait for ever. */
    for (uint32_t i = 0; i < 100000; i++)
        assert_int_equal(engine_abort(f->rig.engine, 0, 1, (struct id128){{1}}, true, 0), RC_UNAVAILABLE);
    rig_stop(&f->rig);
    assert_int_equal(f->rig.n_ends, 10);
}

static void test_refusals(void **state) {
    struct fixture *f = *state;
    uint32_t prompt[256] = {0}, bad[] = {FAKE_VOCAB};
    const struct req_resume full = {0, prompt, 4}, beyond = {1, prompt, 1}, unknown = {0, bad, 1};
    const struct sample_bias bias[] = {{5, 1}, {5, 1}};
    rig_start(&f->rig, &f->opts);
    struct {
        const char *field;
        struct req q;
    } cases[18];
    size_t n = 0;
#define CASE(f_, ...)                                                                                        \
    do {                                                                                                     \
        cases[n].field = f_;                                                                                 \
        cases[n].q = rig_req(0, prompt, 8, 4);                                                               \
        struct req *x = &cases[n++].q;                                                                       \
        __VA_ARGS__;                                                                                         \
    } while (0)
    CASE("router", x->router = RIG_ROUTERS);
    CASE("n_samples", x->n_samples = 0);
    CASE("n_samples", x->n_samples = SEQ_SAMPLES_MAX + 1);
    CASE("tokens", x->n_prompt = 0);
    CASE("tokens", (x->prompt = bad, x->n_prompt = 1));
    CASE("max_tokens", x->n_prompt = 253);
    CASE("max_tokens", x->max_tokens = UINT32_MAX);
    CASE("min_tokens", x->min_tokens = 5);
    CASE("n_logprobs", x->n_logprobs = 21);
    CASE("n_prompt_logprobs", x->n_prompt_logprobs = 21);
    CASE("stop_ids", (x->stop_ids = bad, x->n_stop_ids = 1));
    CASE("allowed_ids", (x->allowed = prompt, x->n_allowed_words = 3));
    CASE("bias_ids", (x->bias = bias, x->n_bias = 2));
    CASE("resume", (x->resume = &full, x->n_resume = 1));
    CASE("resume", (x->resume = &beyond, x->n_resume = 1));
    CASE("resume", (x->resume = &unknown, x->n_resume = 1));
    CASE("temperature", x->temperature = -1);
    CASE("top_p", x->top_p = 0);
    assert_int_equal(n, ARRAY_LEN(cases));
    for (size_t i = 0; i < n; i++) {
        struct err e = {0};
        struct req *r = req_new(&cases[i].q);
        assert_int_equal(engine_submit(f->rig.engine, r, &e), RC_INVALID);
        assert_string_equal(e.param, cases[i].field);
        req_free(r);
    }
}

/* burn: a model whose every token takes this much of the thread's own time. */
enum { BURN_US = 400 };
static void burn(void *arg, const struct batch *b) {
    struct timespec t;
    uint64_t now, until = 0;
    (void)arg;
    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        now = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
        until = until ? until : now + b->n_tokens * BURN_US * 1000ull;
    } while (now < until);
}

/* The measured budget is the machine's, not what others leave of it. */
static void test_budget_under_load(void **state) {
    struct fixture *f = *state;
    enum { OTHERS = 6, IDEAL = 200000 / BURN_US };
    struct engine *engine = NULL;
    pid_t others[OTHERS];
    struct err e;
    struct engine_opts o = f->opts;
    o.on_step = (void (*)(void *, const struct step_out *))abort;
    o.token_budget = 0;
    o.max_len = o.n_tokens_max = o.n_rows_max = 2048;
    o.model.forward = burn;
    o.n_cpu_threads = 1;
    for (int i = 0; i < OTHERS; i++) {
        others[i] = fork();
        assert_true(others[i] >= 0);
        if (others[i] == 0)
            for (volatile unsigned n = 0; getppid() != 1; n++) /* ends with the test, whatever becomes of it */
                continue;
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(engine_new(&engine, &o, &e), RC_OK);
        assert_in_range(engine_token_budget(engine), IDEAL / 2, IDEAL * 2);
        assert_int_equal(engine_seats(engine), 64);
        engine_free(engine);
    }
    for (int i = 0; i < OTHERS; i++) {
        kill(others[i], SIGKILL);
        waitpid(others[i], NULL, 0);
    }
    o.token_budget = 32;
    assert_int_equal(engine_new(&engine, &o, &e), RC_OK);
    assert_int_equal(engine_seats(engine), 24);
    engine_free(engine);
}

static void test_options(void **state) {
    struct fixture *f = *state;
    struct engine *engine = NULL;
    struct err e;
    uint32_t n_blocks[BE_GROUPS_MAX];
    struct engine_opts o = f->opts;
    o.on_step = (void (*)(void *, const struct step_out *))abort;
    o.n_blocks[0] = 15; /* 256 tokens need 16 */
    assert_int_equal(engine_new(&engine, &o, &e), RC_INVALID);
    assert_string_equal(e.param, "kv_cache_memory_bytes");
    o.n_blocks[0] = 16;
    o.token_budget = 257;
    assert_int_equal(engine_new(&engine, &o, &e), RC_INVALID);
    o.token_budget = 0; /* measured */
    atomic_store(&f->device.step_us, 1000);
    assert_int_equal(engine_new(&engine, &o, &e), RC_OK);
    assert_int_equal(engine_token_budget(engine), 256);
    engine_free(engine);
    atomic_store(&f->device.step_us, 250000); /* 16 tokens take longer than a step may */
    assert_int_equal(engine_new(&engine, &o, &e), RC_OK);
    assert_int_equal(engine_token_budget(engine), 16);
    engine_free(engine);
    atomic_store(&f->device.fail_in, 1);
    assert_int_equal(engine_new(&engine, &o, &e), RC_UNAVAILABLE);

    struct cache_group_spec groups[] = {{.kind = CACHE_FULL, .n_layers = 2},
                                        {.kind = CACHE_WINDOW, .n_layers = 6, .window = 32}};
    o.groups = groups;
    o.n_groups = 2;
    assert_int_equal(engine_size_pools(&o, 100 << 20, n_blocks, &e), RC_OK);
    assert_true(n_blocks[1] <= 2 * 64 * 20 && n_blocks[0] > n_blocks[1]);
    assert_true(n_blocks[0] * 2048ull + n_blocks[1] * 6144ull <= 100 << 20);
    assert_int_equal(engine_size_pools(&o, 100 << 10, n_blocks, &e), RC_INVALID);
    assert_int_equal(engine_size_pools(&o, 128 << 10, n_blocks, &e), RC_OK); /* 16 of each, just so */
    assert_int_equal(n_blocks[0], 16);
    groups[1].kind = CACHE_STATE;
    assert_int_equal(engine_size_pools(&o, 100 << 20, n_blocks, &e), RC_UNSUPPORTED);
    rig_start(&f->rig, &f->opts); /* for the teardown */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefix_hits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prompt_logprobs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stops, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_aborts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_router, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wide_logprobs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_and_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_options, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
