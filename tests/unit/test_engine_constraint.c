/* Constraints in the engine: what comes out is of the grammar, whatever happens on the way.
 * threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/support/api_fixture.h"
#include "tests/support/engine_rig.h"
#include "tests/support/fake_be.h"

/* The device knows ids 0 to 99, which are bytes; 'a' and 'b' end the output. */
static const uint32_t prompt[] = {10, 20, 30, 40, 50};

struct fixture {
    struct fake_device device;
    struct be *be;
    struct cache_group_spec group;
    struct engine_opts opts;
    struct constraints *constraints;
    struct rig rig;
};

static void start(struct fixture *f, const struct gram_limits *limits) {
    struct buf tokenizer = {0};
    api_fixture_tokenizer(&tokenizer);
    struct constraints_opts co = {.tokenizer = {.tokenizer_json = buf_str(&tokenizer)},
                                  .n_vocab = FAKE_VOCAB,
                                  .eos_ids = rig_eos,
                                  .n_eos_ids = 2,
                                  .cache_bytes = 4 * MIB};
    if (limits)
        co.limits = *limits;
    f->constraints = constraints_new(&co);
    buf_fini(&tokenizer);
    f->opts.constraints = f->constraints;
    rig_start(&f->rig, &f->opts);
}

static int setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    f->be = fake_open(&f->device);
    f->opts = rig_opts(f->be, &f->group);
    f->opts.n_mask_threads = 2;
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    rig_stop(&f->rig);
    rig_free(&f->rig);
    constraints_free(f->constraints);
    fake_close(f->be);
    free(f);
    return 0;
}

static struct req ask(struct fixture *f, uint64_t stream, const char *pattern, uint32_t max_tokens) {
    struct err e = {0};
    struct req q = rig_req(stream, prompt, ARRAY_LEN(prompt), max_tokens);
    q.temperature = 1;
    q.seed = stream;
    if (constraint_get(f->constraints, GRAM_REGEX, str_of(pattern), (struct str){0}, &q.constraint, &e))
        fail_msg("%s", e.msg);
    return q;
}

/* output: the text of a stream, without its end token. */
static struct str output(const struct fixture *f, uint64_t stream, char text[RIG_TOKENS]) {
    const struct rig_stream *s = &f->rig.streams[stream];
    uint32_t n = s->n_tokens - (s->finish == FINISH_STOP);
    for (uint32_t i = 0; i < n; i++)
        text[i] = (char)s->tokens[i];
    return (struct str){text, n};
}

static void expect_text(const struct fixture *f, uint64_t stream, const char *want) {
    char text[RIG_TOKENS];
    struct str s = output(f, stream, text);
    if (!str_eqz(s, want))
        fail_msg("\"%.*s\", not \"%s\" (%s)", (int)s.n, s.p, want, f->rig.streams[stream].message);
}

/* expect_of: the pattern's, or the beginning of one of its texts if the limit cut it. */
static void expect_of(const struct fixture *f, uint64_t stream, const char *pattern) {
    char text[RIG_TOKENS];
    struct str s = output(f, stream, text);
    const struct rig_stream *r = &f->rig.streams[stream];
    struct gram *g;
    struct err e = {0};
    assert_int_equal(gram_compile(&g, GRAM_REGEX, str_of(pattern), (struct str){0}, NULL, &e), RC_OK);
    struct gram_run *run = gram_run_new(g, NULL);
    if (r->n_ends != 1 || gram_run_bytes(run, s, NULL, &e) != RC_OK ||
        (r->finish == FINISH_STOP && !gram_run_may_end(run)))
        fail_msg("\"%.*s\" is not of %s (%s)", (int)s.n, s.p, pattern, r->message);
    assert_true(r->finish == FINISH_STOP || r->finish == FINISH_LENGTH);
    if (r->finish == FINISH_STOP)
        assert_true(r->eos);
    gram_run_free(run);
    gram_drop(g);
}

static const char *const patterns[] = {"[0-9]{5}X+", "YES|NO|MAYBE", "[0-9]{1,3}(,[0-9]{1,3}){2}", "(0|1)*",
                                       "Q",          ".{7}"};

/* Many at once, with several samples each, and some without constraint between them. */
static void test_outputs(void **state) {
    struct fixture *f = *state;
    start(f, NULL);
    uint32_t n = 0;
    for (uint32_t i = 0; i < 60; i++) {
        struct req q = ask(f, n, patterns[i % ARRAY_LEN(patterns)], 30);
        if (i % 10 == 9) {
            constraint_drop(q.constraint);
            q.constraint = NULL;
        }
        q.n_samples = 1 + i % 3;
        rig_submit(&f->rig, &q);
        n += q.n_samples;
    }
    rig_wait_ends(&f->rig, n);
    for (uint32_t i = 0, s = 0; i < 60; s += 1 + i % 3, i++)
        for (uint32_t k = 0; k < 1 + i % 3 && i % 10 != 9; k++)
            expect_of(f, s + k, patterns[i % ARRAY_LEN(patterns)]);
    rig_wait_idle(&f->rig);
    struct engine_stats stats;
    engine_stats_get(f->rig.engine, &stats);
    uint64_t n_masks[ENGINE_MASK_KINDS] = {0};
    for (uint32_t k = 0; k < ENGINE_MASK_KINDS; k++)
        for (uint32_t i = 0; i < ENGINE_MASK_BUCKETS; i++)
            n_masks[k] += stats.mask_times[k][i];
    assert_true(n_masks[GRAM_REGEX - GRAM_JSON_SCHEMA] >= 54 && stats.mask_ns[GRAM_REGEX - GRAM_JSON_SCHEMA]);
    assert_true(n_masks[0] == 0 && stats.mask_ns[0] == 0);
}

/* With too few blocks for all, sequences are preempted; their output is the same. */
static void test_preemption(void **state) {
    struct fixture *f = *state;
    char want[24][RIG_TOKENS], text[RIG_TOKENS];
    size_t n_want[24];
    uint32_t n_preempted = 0;
    for (int pass = 0; pass < 2; pass++) {
        f->opts.n_blocks[0] = pass ? 20 : 512;
        start(f, NULL);
        for (uint32_t i = 0; i < 24; i++) {
            struct req q = ask(f, i, "[0-9A-Z]{60}", 80);
            rig_submit(&f->rig, &q);
        }
        rig_wait_ends(&f->rig, 24);
        for (uint32_t i = 0; i < 24; i++) {
            expect_of(f, i, "[0-9A-Z]{60}");
            struct str s = output(f, i, pass ? text : want[i]);
            if (!pass)
                n_want[i] = s.n;
            else
                assert_true(s.n == n_want[i] && memcmp(text, want[i], s.n) == 0);
            n_preempted += f->rig.streams[i].n_preempted;
        }
        if (pass == 0) {
            rig_stop(&f->rig);
            rig_free(&f->rig);
            constraints_free(f->constraints);
        }
    }
    assert_true(n_preempted > 0);
}

/* A request that comes with the output it has sent elsewhere goes on as it would have there. */
static void test_resume(void **state) {
    struct fixture *f = *state;
    start(f, NULL);
    struct req q = ask(f, 0, "([A-Z][0-9]){20}", 60);
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 1);
    expect_of(f, 0, "([A-Z][0-9]){20}");
    const struct rig_stream *s = &f->rig.streams[0];
    uint32_t n_ends = 1;
    for (uint32_t k = 1; k < s->n_tokens; k += 7, n_ends++) {
        q = ask(f, k, "([A-Z][0-9]){20}", 60);
        q.seed = 0;
        struct req_resume resume = {0, s->tokens, k};
        q.resume = &resume;
        q.n_resume = 1;
        rig_submit(&f->rig, &q);
    }
    rig_wait_ends(&f->rig, n_ends);
    for (uint32_t k = 1; k < s->n_tokens; k += 7) {
        assert_int_equal(f->rig.streams[k].n_tokens, s->n_tokens - k);
        assert_memory_equal(f->rig.streams[k].tokens, s->tokens + k, (s->n_tokens - k) * sizeof *s->tokens);
    }
}

/* What must come is not waited for; with log-probabilities every token has its step. */
static void test_forced(void **state) {
    struct fixture *f = *state;
    start(f, NULL);
    struct req q = ask(f, 0, "THE ONLY TEXT", 30);
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 1);
    expect_text(f, 0, "THE ONLY TEXT");
    assert_int_equal(f->rig.streams[0].finish, FINISH_STOP);
    assert_true(atomic_load(&f->device.n_steps) <= 3);
    q = ask(f, 1, "THE ONLY TEXT", 30);
    q.n_logprobs = 2;
    uint32_t before = atomic_load(&f->device.n_steps);
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 2);
    expect_text(f, 1, "THE ONLY TEXT");
    assert_int_equal(atomic_load(&f->device.n_steps) - before, 14);
    q = ask(f, 2, "THE ONLY TEXT", 5); /* the limit cuts the chain */
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 3);
    expect_text(f, 2, "THE O");
    assert_int_equal(f->rig.streams[2].finish, FINISH_LENGTH);
    q = ask(f, 3, "THE [0-9] END", 30); /* the same as step by step */
    rig_submit(&f->rig, &q);
    q = ask(f, 4, "THE [0-9] END", 30);
    q.seed = 3;
    q.n_logprobs = 0;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 5);
    expect_of(f, 3, "THE [0-9] END");
    /* The two may end with either end token. */
    assert_memory_equal(f->rig.streams[3].tokens, f->rig.streams[4].tokens, 9 * sizeof(uint32_t));
}

static void test_starts_after(void **state) {
    struct fixture *f = *state;
    static const uint32_t after[] = {'#', '%'};
    start(f, NULL);
    for (uint32_t i = 0; i < 16; i++) {
        struct req q = ask(f, i, "[0-9]{4}", 200);
        q.ignore_eos = false;
        q.starts_after = after;
        q.n_starts_after = 2;
        rig_submit(&f->rig, &q);
    }
    rig_wait_ends(&f->rig, 16);
    uint32_t n_begun = 0;
    for (uint32_t i = 0; i < 16; i++) {
        const struct rig_stream *s = &f->rig.streams[i];
        uint32_t at = 0;
        while (at < s->n_tokens && s->tokens[at] != '#' && s->tokens[at] != '%')
            at++;
        if (at == s->n_tokens)
            continue; /* it ended before */
        n_begun++;
        uint32_t rest = s->n_tokens - at - 1 - (s->finish == FINISH_STOP);
        assert_true(s->finish == FINISH_LENGTH ? rest <= 4 : rest == 4);
        for (uint32_t k = 0; k < rest; k++)
            assert_in_range(s->tokens[at + 1 + k], '0', '9');
    }
    assert_true(n_begun > 0);
}

static void expect_error(const struct fixture *f, uint64_t stream, uint32_t status, const char *says) {
    const struct rig_stream *s = &f->rig.streams[stream];
    assert_int_equal(s->finish, FINISH_ERROR);
    assert_int_equal(s->status, status);
    if (!strstr(s->message, says))
        fail_msg("\"%s\", not \"%s\"", s->message, says);
}

static void test_errors(void **state) {
    struct fixture *f = *state;
    start(f, NULL);
    uint32_t allowed[(FAKE_VOCAB + 31) / 32] = {0};
    allowed['X' / 32] = 1u << 'X' % 32;
    struct req q = ask(f, 0, "[0-9]+", 8);
    q.allowed = allowed;
    q.n_allowed_words = ARRAY_LEN(allowed);
    rig_submit(&f->rig, &q);
    q = ask(f, 1, "(", 8);
    rig_submit(&f->rig, &q);
    q = ask(f, 2, "X", 8);
    q.min_tokens = 4;
    rig_submit(&f->rig, &q);
    q = ask(f, 3, "[0-9X]{4}", 8);
    q.allowed = allowed;
    q.n_allowed_words = ARRAY_LEN(allowed);
    rig_submit(&f->rig, &q);
    q = ask(f, 4, "XY", 6); /* after the end only the end */
    q.ignore_eos = true;
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 5);
    expect_error(f, 0, 400, "no token satisfies the constraints");
    expect_error(f, 1, 400, "pattern offset 0");
    expect_error(f, 2, 400, "no token satisfies the constraints");
    expect_error(f, 3, 400, "no token satisfies the constraints");
    const struct rig_stream *s = &f->rig.streams[4];
    assert_int_equal(s->finish, FINISH_LENGTH);
    for (uint32_t i = 2; i < 6; i++)
        assert_true(s->tokens[i] == 'a' || s->tokens[i] == 'b');
    rig_wait_idle(&f->rig);
}

static void test_fuel(void **state) {
    struct fixture *f = *state;
    start(f, &(struct gram_limits){.mask_fuel = 1});
    struct req q = ask(f, 0, "([A-Z]{3}|[0-9]{2,9})*", 8);
    rig_submit(&f->rig, &q);
    q = rig_req(1, prompt, ARRAY_LEN(prompt), 8);
    rig_submit(&f->rig, &q);
    rig_wait_ends(&f->rig, 2);
    expect_error(f, 0, 400, "");
    assert_true(f->rig.streams[1].finish == FINISH_LENGTH || f->rig.streams[1].finish == FINISH_STOP);
}

/* Aborts and routers that leave, at any moment between submission and the end. */
static void test_leaving(void **state) {
    struct fixture *f = *state;
    start(f, NULL);
    atomic_store(&f->device.step_us, 200);
    for (uint32_t i = 0; i < 120; i++) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "([A-Z]{%u}|[0-9]+){40}", i / 2 + 1);
        struct req q = ask(f, i, pattern, 60);
        q.router = i % RIG_ROUTERS;
        q.n_samples = 1;
        rig_submit(&f->rig, &q);
        if (i % 3 == 0)
            (void)!engine_abort(f->rig.engine, q.router, 0, q.id, i % 2, i);
        if (i == 80)
            engine_drop_router(f->rig.engine, 1, 0);
    }
    rig_wait_idle(&f->rig);
    pthread_mutex_lock(&f->rig.lock); /* the last of them may still be under way */
    uint32_t n_ends_max = 0;
    for (uint32_t i = 0; i < 120; i++)
        n_ends_max = MAX(n_ends_max, f->rig.streams[i].n_ends);
    pthread_mutex_unlock(&f->rig.lock);
    assert_true(n_ends_max <= 1);
}

/* Ten thousand grammars leave no more than the cache may hold. */
static void test_cache(void **state) {
    struct fixture *f = *state;
    start(f, NULL);
    struct constraint *again = NULL, *c;
    struct err e = {0};
    assert_int_equal(
        constraint_get(f->constraints, GRAM_REGEX, STR_LIT("again"), (struct str){0}, &again, &e), RC_OK);
    for (uint32_t i = 0; i < 10000; i++) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "(%u|[a-z]{3}){%u}", i, i % 50 + 1);
        for (enum rc rc = RC_OVERLOAD; rc;) {
            rc = constraint_get(f->constraints, GRAM_REGEX, str_of(pattern), (struct str){0}, &c, &e);
            if (rc)
                usleep(1000);
        }
        constraint_drop(c);
        if (i % 100 == 99) {
            assert_int_equal(
                constraint_get(f->constraints, GRAM_REGEX, STR_LIT("again"), (struct str){0}, &c, &e), RC_OK);
            assert_ptr_equal(c, again);
            constraint_drop(c);
            assert_true(constraints_bytes(f->constraints) <= 4 * MIB);
        }
    }
    constraint_drop(again);
}

static struct constraints *alone(size_t cache_bytes, size_t use_bytes) {
    struct buf tokenizer = {0};
    api_fixture_tokenizer(&tokenizer);
    struct constraints_opts co = {.tokenizer = {.tokenizer_json = buf_str(&tokenizer)},
                                  .n_vocab = FAKE_VOCAB,
                                  .eos_ids = rig_eos,
                                  .n_eos_ids = 2,
                                  .cache_bytes = cache_bytes,
                                  .use_bytes = use_bytes};
    struct constraints *cs = constraints_new(&co);
    buf_fini(&tokenizer);
    return cs;
}

static struct constraint *ready(struct constraints *cs, enum gram_kind kind, const char *text) {
    struct constraint *c = NULL;
    const struct err *why = NULL;
    struct err e = {0};
    if (constraint_get(cs, kind, str_of(text), (struct str){0}, &c, &e))
        fail_msg("%s", e.msg);
    while (constraint_state(c, &why) == CONSTRAINT_PENDING)
        usleep(100);
    if (why)
        fail_msg("%s", why->msg);
    return c;
}

/* Above the bound of what is in use nothing new is taken; what is there already still is, and room comes
 * back. */
static void test_use_bound(void **state) {
    (void)state;
    enum { MOST = 512 << 10 };
    struct constraints *cs = alone(4 * MIB, MOST);
    struct constraint *held[1000], *c;
    struct err e = {0};
    uint32_t n = 0;
    char pattern[32];
    for (enum rc rc = RC_OK; n < ARRAY_LEN(held); n++) {
        snprintf(pattern, sizeof pattern, "%u[a-z]{9}", n);
        rc = constraint_get(cs, GRAM_REGEX, str_of(pattern), (struct str){0}, &c, &e);
        if (rc) {
            assert_int_equal(rc, RC_OVERLOAD);
            assert_non_null(strstr(e.msg, "--grammar-cache-mb"));
            break;
        }
        constraint_drop(c);
        held[n] = ready(cs, GRAM_REGEX, pattern);
    }
    assert_in_range(n, 2, ARRAY_LEN(held) - 1);
    assert_int_equal(constraint_get(cs, GRAM_REGEX, STR_LIT("0[a-z]{9}"), (struct str){0}, &c, &e), RC_OK);
    assert_ptr_equal(c, held[0]);
    constraint_drop(c);
    for (uint32_t i = 0; i < n; i++)
        constraint_drop(held[i]);
    assert_true(constraints_bytes(cs) >= MOST); /* in the cache, and in nobody's way */
    constraint_drop(ready(cs, GRAM_REGEX, pattern));
    constraints_free(cs);
}

static size_t rss_bytes(void) {
    unsigned long all = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &all, &resident), 2);
    fclose(f);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Schemas that differ, one after another, each compiled and used. TEST_SCALE=10 makes the 10,000 of the
 * specification. */
static void test_flat(void **state) {
    (void)state;
    const char *scale = getenv("TEST_SCALE");
    uint32_t n = scale && atoi(scale) >= 10 ? 10000 : 300, mask[FAKE_VOCAB / 32 + 1];
    struct constraints *cs = alone(2 * MIB, 64 * MIB);
    size_t before = 0, after;
    struct err e = {0};
    for (uint32_t i = 0; i < n; i++) {
        char schema[256];
        snprintf(schema, sizeof schema,
                 "{\"type\":\"object\",\"properties\":{\"k%u\":{\"type\":\"string\",\"maxLength\":%u},"
                 "\"n\":{\"type\":\"integer\",\"minimum\":%u}},\"required\":[\"n\"]}",
                 i, i % 300 + 1, i);
        struct constraint *c = ready(cs, GRAM_JSON_SCHEMA, schema);
        struct gram_run *r = constraint_run(c);
        assert_int_equal(gram_run_mask(r, mask, &e), RC_OK);
        assert_int_equal(gram_run_bytes(r, STR_LIT("{\"k"), NULL, &e), RC_OK);
        assert_int_equal(gram_run_mask(r, mask, &e), RC_OK);
        gram_run_free(r);
        constraint_drop(c);
        assert_true(constraints_bytes(cs) <= 2 * MIB);
        if (i == n / 3)
            before = rss_bytes();
    }
    after = rss_bytes();
    print_message("%u schemas: %zu KiB resident after a third, %zu at the end\n", n, before / KIB,
                  after / KIB);
#ifndef WEIR_SANITIZE /* its freed memory waits in quarantine */
    if (after > before + 4 * MIB)
        fail_msg("%zu KiB resident after a third, %zu at the end", before / KIB, after / KIB);
#else
    assert_true(before && after);
#endif
    constraints_free(cs);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_outputs),
        TEST(test_preemption),
        TEST(test_resume),
        TEST(test_forced),
        TEST(test_starts_after),
        TEST(test_errors),
        TEST(test_fuel),
        TEST(test_leaving),
        TEST(test_cache),
        cmocka_unit_test(test_use_bound),
        cmocka_unit_test(test_flat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
