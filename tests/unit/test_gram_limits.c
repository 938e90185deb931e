/* The grammar engine under pressure: hostile expressions, deep nesting, little memory, a large vocabulary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/gram/gram.h"
#include "tests/support/bench.h"
#include "tests/support/gram_json.h"
#include "tests/support/gram_oracle.h"
#include "tests/support/gram_vocab.h"
#include "tests/support/tok_golden.h"

#include <stdio.h>
#include <stdlib.h>

#define S(text) STR_LIT(text)

#ifdef WEIR_SANITIZE
enum { SLOWER = 8, N_DEEP = 20000, N_LONG = 4000 };
#else
enum { SLOWER = 1, N_DEEP = 100000, N_LONG = 20000 };
#endif

static uint32_t range(struct gram *g, uint32_t lo, uint32_t hi) {
    return rx_class(g, &(struct rx_range){lo, hi}, 1, false);
}

/* ---- hostile expressions ------------------------------------------------------------------------ */

typedef uint32_t maker(struct gram *g);

static uint32_t plus_plus(struct gram *g) {
    return rx_repeat(g, rx_repeat(g, range(g, 'a', 'a'), 1, RX_INF), 1, RX_INF);
}
static uint32_t dots(struct gram *g) {
    return rx_repeat(g, rx_repeat(g, rx_class(g, NULL, 0, true), 1, 1000), 1, 1000);
}
static uint32_t dots_apart(struct gram *g) { /* the same with something optional between: counts multiply */
    uint32_t run = rx_repeat(g, rx_class(g, NULL, 0, true), 1, 1000);
    return rx_repeat(g, rx_cat(g, run, rx_repeat(g, rx_bytes(g, S("x")), 0, 1)), 1, 1000);
}
static uint32_t million(struct gram *g) {
    return rx_repeat(g, range(g, 'a', 'a'), 1000000, 1000000);
}
static uint32_t nested(struct gram *g) {
    uint32_t a = range(g, 'a', 'a');
    for (int i = 0; i < 100000 && !gram_over(g); i++)
        a = rx_cat(g, rx_bytes(g, S("(")), rx_cat(g, rx_repeat(g, a, 0, 2), rx_bytes(g, S(")"))));
    return a;
}
static uint32_t wide(struct gram *g) {
    uint32_t a = RX_NONE;
    char text[16];
    for (int i = 0; i < 200000 && !gram_over(g); i++) {
        snprintf(text, sizeof text, "%d", i);
        a = rx_alt(g, a, rx_bytes(g, str_of(text)));
    }
    return a;
}
static uint32_t nowhere(struct gram *g) { /* words that are of n lengths at once: none, after a long search */
    uint32_t a = rx_repeat(g, range(g, 'a', 'b'), 0, RX_INF), all = a;
    static const uint32_t prime[] = {7, 11, 13, 17, 19, 23, 29, 31};
    for (size_t i = 0; i < ARRAY_LEN(prime); i++) {
        uint32_t block = rx_repeat(g, range(g, 'a', 'b'), prime[i], prime[i]);
        all = rx_and(g, all, rx_cat(g, rx_repeat(g, block, 0, RX_INF), range(g, 'a', 'b')));
    }
    return rx_and(g, all, rx_repeat(g, range(g, 'a', 'b'), 2, RX_INF));
}
static uint32_t tenth(struct gram *g) { /* the state set doubles with each byte of the count */
    return rx_cat(g, rx_repeat(g, range(g, 'a', 'b'), 0, RX_INF),
                  rx_cat(g, range(g, 'a', 'a'), rx_repeat(g, range(g, 'a', 'b'), 400, 400)));
}

static void test_hostile(void **state) {
    (void)state;
    static maker *const make[] = {plus_plus, dots, dots_apart, million, nested, wide, nowhere, tenth};
    char *bytes;
    uint32_t eos = 16383;
    struct str *tokens = made_vocab(16384, &bytes);
    struct gram_vocab *v = gram_vocab_of(tokens, 16384, &eos, 1);
    uint32_t *mask = xcalloc(gram_mask_words(16384), sizeof *mask);
    for (size_t i = 0; i < ARRAY_LEN(make); i++) {
        struct gram *g = gram_new(NULL);
        struct err e = {0};
        double start = bench_cpu_s();
        uint32_t t = gram_term(g, make[i](g), 0);
        enum rc rc = gram_seal(g, t, true, &e);
        assert_true(rc == RC_OK || rc == RC_INVALID);
        assert_true(rc == RC_OK || e.msg[0]);
        if (make[i] == plus_plus || make[i] == dots)
            assert_int_equal(rc, RC_OK);
        if (make[i] == million || make[i] == nested)
            assert_int_equal(rc, RC_INVALID);
        struct gram_run *r = rc ? NULL : gram_run_new(g, v);
        for (int k = 0; r && k < 20; k++) {
            rc = gram_run_mask(r, mask, &e);
            assert_true(rc == RC_OK || rc == RC_OVERLOAD);
            rc = gram_run_bytes(r, S("ab"), NULL, &e);
            assert_true(rc == RC_OK || rc == RC_INVALID || rc == RC_OVERLOAD);
        }
        double s = bench_cpu_s() - start;
        if (s > 2.0 * SLOWER)
            fail_msg("case %zu took %.2f s", i, s);
        if (gram_bytes(g) > 64 * MIB)
            fail_msg("case %zu takes %zu bytes", i, gram_bytes(g));
        gram_run_free(r);
        gram_drop(g);
    }
    gram_vocab_free(v);
    free(tokens);
    free(bytes);
    free(mask);
}

/* ---- long and deep texts ------------------------------------------------------------------------ */

static void test_deep(void **state) {
    (void)state;
    struct gram *g = gram_json(NULL);
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e = {0};
    double start = bench_cpu_s();
    for (int i = 0; i < N_DEEP; i++)
        assert_int_equal(gram_run_bytes(r, S("[1,{\"a\":"), NULL, &e), RC_OK);
    assert_int_equal(gram_run_bytes(r, S("1"), NULL, &e), RC_OK);
    for (int i = 0; i < N_DEEP; i++)
        assert_int_equal(gram_run_bytes(r, S("}]"), NULL, &e), RC_OK);
    assert_true(gram_run_must_end(r));
    double s = bench_cpu_s() - start;
    if (s > 5.0 * SLOWER)
        fail_msg("%d levels took %.2f s", N_DEEP, s);
    assert_true(gram_bytes(g) <= 80 * MIB);
    gram_run_free(r);
    gram_drop(g);
}

/* test_flat: a long list needs no more memory than a short one. */
static void test_flat(void **state) {
    (void)state;
    struct gram *g = gram_json(NULL);
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e = {0};
    assert_int_equal(gram_run_bytes(r, S("[[1,2],\"x\""), NULL, &e), RC_OK);
    for (int i = 0; i < 200; i++)
        assert_int_equal(gram_run_bytes(r, S(",{},[1,\"abc\"],123"), NULL, &e), RC_OK);
    size_t before = gram_bytes(g);
    for (int i = 0; i < N_DEEP; i++)
        assert_int_equal(gram_run_bytes(r, S(",{},[1,\"abc\"],123"), NULL, &e), RC_OK);
    assert_int_equal(gram_bytes(g), before);
    gram_run_free(r);
    gram_drop(g);
}

/* test_collect: with little memory, so that gc runs many times, masks are those of a grammar with plenty. */
static void test_collect(void **state) {
    (void)state;
    struct gram_limits small = {.memory_bytes = 3 * MIB};
    struct gram *a = gram_json(&small), *b = gram_json(NULL);
    char *bytes;
    uint32_t eos = 299, n = 300, mask_a[10], mask_b[10];
    uint64_t seed = 3;
    struct str *tokens = oracle_vocab(2, n, &bytes);
    struct gram_vocab *v = gram_vocab_of(tokens, n, &eos, 1);
    struct gram_run *ra = gram_run_new(a, v), *rb = gram_run_new(b, v), *idle = gram_run_new(a, v);
    struct err e = {0};
    assert_int_equal(gram_run_bytes(idle, S("{\"b\":[1,{\"a"), NULL, &e), RC_OK);
    assert_int_equal(gram_run_bytes(ra, S("{"), NULL, &e), RC_OK);
    assert_int_equal(gram_run_bytes(rb, S("{"), NULL, &e), RC_OK);
    char text[64];
    for (int i = 0; i < N_LONG; i++) {
        /* keys that differ, values that nest now and then */
        int len = snprintf(text, sizeof text, "\"%x%s\":%s,", i % 500 * 7919, i % 7 ? "" : "\xC3\xA9",
                           i % 3 ? "[1,{\"k\":2}]" : "\"ab\"");
        if (i % 500 == 499) /* another object, so that the keys do not pile up */
            len = snprintf(text, sizeof text, "\"last%d\":{", i);
        if (i % 4 == 0) {
            assert_int_equal(gram_run_mask(ra, mask_a, &e), RC_OK);
            assert_int_equal(gram_run_mask(rb, mask_b, &e), RC_OK);
            assert_memory_equal(mask_a, mask_b, sizeof mask_a);
        }
        uint32_t cut = 1 + oracle_random(&seed, (uint32_t)len - 1);
        struct gram_run *both[] = {ra, rb};
        for (int k = 0; k < 2; k++) {
            if (gram_run_bytes(both[k], (struct str){text, cut}, NULL, &e) ||
                gram_run_bytes(both[k], (struct str){text + cut, (size_t)len - cut}, NULL, &e))
                fail_msg("step %d: %s", i, e.msg);
        }
    }
    assert_true(gram_bytes(a) <= 4 * MIB);
    assert_int_equal(gram_run_bytes(idle, S("\":1},2],\"b"), NULL, &e), RC_OK);
    assert_int_equal(gram_run_bytes(idle, S("\":"), NULL, &e), RC_INVALID); /* "b" was there */
    assert_int_equal(gram_run_bytes(idle, S("c\":1}"), NULL, &e), RC_OK);
    assert_true(gram_run_must_end(idle));
    gram_run_free(ra);
    gram_run_free(rb);
    gram_run_free(idle);
    gram_drop(a);
    gram_drop(b);
    gram_vocab_free(v);
    free(tokens);
    free(bytes);
}

/* ---- a large vocabulary -------------------------------------------------------------------------- */

/* test_large: every token of 128,000 (under a sanitizer some of 32,000) tried byte by byte against the mask,
 * at places of a text. */
static void test_large(void **state) {
    (void)state;
    enum { N = 128000 / (SLOWER == 1 ? 1 : 4) };
    static const char *const text[] = {"",
                                       "[\"",
                                       "[\"abc",
                                       "[\"abc\",",
                                       "[1",
                                       "{\"",
                                       "{\"user",
                                       "{\"user\":\"x\",\"us",
                                       "{\"a\":{\"a\":12}"};
    char *bytes;
    uint32_t eos = N - 1;
    struct str *tokens = made_vocab(N, &bytes);
    struct gram_vocab *v = gram_vocab_of(tokens, N, &eos, 1);
    uint32_t *mask = xcalloc(gram_mask_words(N), sizeof *mask);
    struct gram *g = gram_json(NULL), *fresh = gram_json(NULL);
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        struct gram_run *r = gram_run_new(g, v);
        struct err e = {0};
        assert_int_equal(gram_run_bytes(r, str_of(text[i]), NULL, &e), RC_OK);
        assert_int_equal(gram_run_mask(r, mask, &e), RC_OK);
        for (uint32_t t = 0; t < N; t += SLOWER == 1 ? 1 : 17) {
            if (t == eos || !tokens[t].n)
                continue;
            struct gram_run *probe = gram_run_new(fresh, NULL);
            bool ok = gram_run_bytes(probe, str_of(text[i]), NULL, &e) == RC_OK &&
                      gram_run_bytes(probe, tokens[t], NULL, &e) == RC_OK;
            if (ok != (mask[t / 32] >> (t % 32) & 1))
                fail_msg("after %s: token \"%.*s\"", text[i], (int)tokens[t].n, tokens[t].p);
            gram_run_free(probe);
        }
        gram_run_free(r);
    }
    gram_drop(g);
    gram_drop(fresh);
    gram_vocab_free(v);
    free(tokens);
    free(bytes);
    free(mask);
}

/* test_tokenizer: the same with a trained tokenizer: special tokens are never allowed but the end's at an
 * end. */
static void test_tokenizer(void **state) {
    (void)state;
    static const char *const text[] = {"", "[\"", "[\"abc\",", "{\"", "{\"the\":12", "12", "[]"};
    struct tok *t = tok_golden("llama3");
    uint32_t n = tok_vocab_size(t) + 7, eos, n_special = 0; /* as a model whose logits are padded */
    for (eos = 0; !tok_is_special(t, eos); eos++)
        assert_true(eos < n);
    struct gram_vocab *v = gram_vocab_new(t, n, &eos, 1);
    uint32_t *mask = xcalloc(gram_mask_words(n), sizeof *mask);
    struct gram *g = gram_json(NULL), *fresh = gram_json(NULL);
    for (size_t i = 0; i < ARRAY_LEN(text); i++) {
        struct gram_run *r = gram_run_new(g, v);
        struct err e = {0};
        assert_int_equal(gram_run_bytes(r, str_of(text[i]), NULL, &e), RC_OK);
        assert_int_equal(gram_run_mask(r, mask, &e), RC_OK);
        for (uint32_t id = 0; id < n; id++) {
            bool special = id < tok_vocab_size(t) && tok_is_special(t, id),
                 want = id == eos && gram_run_may_end(r);
            struct str s = id < tok_vocab_size(t) ? tok_bytes(t, id) : (struct str){NULL, 0};
            n_special += special;
            if (s.n && !special) {
                struct gram_run *probe = gram_run_new(fresh, NULL);
                want = gram_run_bytes(probe, str_of(text[i]), NULL, &e) == RC_OK &&
                       gram_run_bytes(probe, s, NULL, &e) == RC_OK;
                gram_run_free(probe);
            }
            if (want != (mask[id / 32] >> (id % 32) & 1))
                fail_msg("after %s: token %u \"%.*s\"", text[i], id, (int)s.n, s.p);
        }
        gram_run_free(r);
    }
    assert_true(n_special > ARRAY_LEN(text)); /* others than the end's were looked at */
    gram_drop(g);
    gram_drop(fresh);
    gram_vocab_free(v);
    tok_free(t);
    free(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_deep),  cmocka_unit_test(test_flat),
        cmocka_unit_test(test_collect), cmocka_unit_test(test_large), cmocka_unit_test(test_tokenizer),
    };
    return cmocka_run_group_tests_name("gram_limits", tests, NULL, NULL);
}
