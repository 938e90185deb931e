/* Masks of the engine against a naive recogniser: for made-up grammars and random walks through them, a token
 * is allowed if and only if the oracle says that the text with its bytes is a prefix.
 *
 * TEST_SCALE multiplies the 1,000 grammars (200 under a sanitizer); GRAM_SEED runs one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/gram/gram.h"
#include "tests/support/gram_oracle.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_VOCAB = 260, EOS = 250, N_STEPS = 14 };

#ifdef WEIR_SANITIZE
enum { N_GRAMMARS = 200 };
#else
enum { N_GRAMMARS = 1000 };
#endif

static struct gram_vocab *vocab;
static struct str *tokens;

static bool bit(const uint32_t *mask, uint32_t i) {
    return mask[i / 32] >> (i % 32) & 1;
}

static void check_mask(uint64_t seed, struct oracle *o, struct gram_run *r, uint32_t *mask) {
    struct err e = {0};
    uint32_t again[(N_VOCAB + 31) / 32];
    size_t n = oracle_length(o);
    if (gram_run_mask(r, mask, &e))
        fail_msg("seed %llu: %s", (unsigned long long)seed, e.msg);
    assert_int_equal(gram_run_mask(r, again, &e), RC_OK); /* from what was kept */
    assert_memory_equal(again, mask, sizeof again);
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        bool want = i != EOS || oracle_complete(o);
        for (size_t k = 0; want && i != EOS && k < tokens[i].n; k++) {
            oracle_push(o, tokens[i].p + k, 1);
            want = oracle_prefix(o);
        }
        oracle_cut(o, n);
        if (bit(mask, i) != want && !oracle_over(o))
            fail_msg("seed %llu, after %zu bytes: token %u \"%.*s\" should %sbe allowed",
                     (unsigned long long)seed, n, i, i == EOS ? 3 : (int)tokens[i].n,
                     i == EOS ? "end" : tokens[i].p, want ? "" : "not ");
    }
}

/* check_forced: each byte said to be forced is the only one that may follow. */
static void check_forced(uint64_t seed, struct oracle *o, struct gram_run *r) {
    char forced[16];
    size_t n = oracle_length(o), n_forced = gram_run_forced(r, forced, sizeof forced);
    for (size_t i = 0; i < n_forced; i++) {
        for (unsigned b = 0; b < 256; b++) {
            char c = (char)b;
            oracle_push(o, &c, 1);
            if (oracle_prefix(o) != (c == forced[i]) && !oracle_over(o))
                fail_msg("seed %llu: forced byte %zu", (unsigned long long)seed, i);
            oracle_cut(o, n + i);
        }
        if (oracle_complete(o) && !oracle_over(o))
            fail_msg("seed %llu: forced byte %zu where the text may end", (unsigned long long)seed, i);
        oracle_push(o, &forced[i], 1);
    }
    oracle_cut(o, n);
}

/* one: returns false if the seed gives nothing to walk. */
static bool one(uint64_t seed) {
    struct gram *g = gram_new(NULL);
    struct err e = {0};
    uint32_t start, mask[(N_VOCAB + 31) / 32];
    struct oracle *o = oracle_new(seed, g, &start);
    bool walked = false;
    if (!o) {
        gram_drop(g);
        return false;
    }
    enum rc rc = gram_seal(g, start, false, &e);
    if ((rc != RC_OK) != oracle_empty(o))
        fail_msg("seed %llu: sealing says %s", (unsigned long long)seed, rc ? e.msg : "not empty");
    struct gram_run *r = rc ? NULL : gram_run_new(g, vocab);
    for (int step = 0; r && step < N_STEPS; step++) {
        check_mask(seed, o, r, mask);
        check_forced(seed, o, r);
        if (oracle_over(o))
            break;
        assert_int_equal(gram_run_may_end(r), oracle_complete(o));
        uint32_t allowed[N_VOCAB], n = 0;
        for (uint32_t i = 0; i < N_VOCAB; i++) {
            if (i == EOS)
                continue;
            if (bit(mask, i))
                allowed[n++] = i;
            else
                assert_int_equal(gram_run_accept(r, i, &e), RC_INVALID);
        }
        if (n == 0 && !oracle_complete(o))
            fail_msg("seed %llu: stuck", (unsigned long long)seed);
        assert_int_equal(gram_run_must_end(r), n == 0);
        if (n == 0 || oracle_length(o) > 40)
            break;
        uint32_t t = allowed[oracle_random(&seed, n)];
        assert_int_equal(gram_run_accept(r, t, &e), RC_OK);
        oracle_push(o, tokens[t].p, tokens[t].n);
        walked = true;
    }
    gram_run_free(r);
    oracle_free(o);
    gram_drop(g);
    return walked;
}

static void test_random(void **state) {
    (void)state;
    const char *scale = getenv("TEST_SCALE"), *only = getenv("GRAM_SEED");
    uint64_t n = (uint64_t)(N_GRAMMARS * (scale ? strtod(scale, NULL) : 1)), n_walked = 0;
    if (only) {
        one(strtoull(only, NULL, 10));
        return;
    }
    for (uint64_t seed = 0; seed < n; seed++)
        n_walked += one(seed);
    if (n_walked * 2 < n)
        fail_msg("only %llu of %llu grammars lead anywhere", (unsigned long long)n_walked,
                 (unsigned long long)n);
}

int main(void) {
    char *bytes;
    uint32_t eos = EOS;
    tokens = oracle_vocab(1, N_VOCAB, &bytes);
    vocab = gram_vocab_of(tokens, N_VOCAB, &eos, 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
    int rc = cmocka_run_group_tests_name("gram_oracle", tests, NULL, NULL);
    gram_vocab_free(vocab);
    free(tokens);
    free(bytes);
    return rc;
}
