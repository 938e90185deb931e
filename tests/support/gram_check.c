#include "tests/support/gram_check.h"

#include "tests/support/gram_oracle.h"

#include <stdio.h>
#include <stdlib.h>

enum { N = GRAM_CHECK_VOCAB, EOS = GRAM_CHECK_EOS, N_WORDS = (N + 31) / 32, TEXT_MAX = 40 };

struct check {
    uint64_t seed;
    const struct str *tokens;
    struct oracle *o;
    struct gram_run *r;
    uint32_t mask[N_WORDS];
    bool bad;
};

static char message[512];

static void say(struct check *c, const char *what, struct str s) {
    if (c->bad || oracle_over(c->o)) /* beyond its means the oracle is no judge */
        return;
    c->bad = true;
    snprintf(message, sizeof message, "seed %llu, after %zu bytes: %s \"%.*s\"", (unsigned long long)c->seed,
             oracle_length(c->o), what, (int)s.n, s.n ? s.p : "");
}

static bool bit(const uint32_t *mask, uint32_t i) {
    return mask[i / 32] >> (i % 32) & 1;
}

static void check_mask(struct check *c) {
    struct err e = {0};
    uint32_t again[N_WORDS];
    size_t n = oracle_length(c->o);
    if (gram_run_mask(c->r, c->mask, &e))
        say(c, "no mask:", str_of(e.msg));
    else if (gram_run_mask(c->r, again, &e) || memcmp(again, c->mask, sizeof again)) /* from what was kept */
        say(c, "another mask the second time", (struct str){NULL, 0});
    for (uint32_t i = 0; i < N && !c->bad; i++) {
        bool want = i != EOS || oracle_complete(c->o);
        for (size_t k = 0; want && i != EOS && k < c->tokens[i].n; k++) {
            oracle_push(c->o, c->tokens[i].p + k, 1);
            want = oracle_prefix(c->o);
        }
        oracle_cut(c->o, n);
        if (bit(c->mask, i) != want)
            say(c, want ? "not allowed:" : "wrongly allowed:", i == EOS ? STR_LIT("end") : c->tokens[i]);
    }
}

/* check_forced: each byte said to be forced is the only one that may follow. */
static void check_forced(struct check *c) {
    char forced[16];
    size_t n = oracle_length(c->o), n_forced = gram_run_forced(c->r, forced, sizeof forced);
    for (size_t i = 0; i < n_forced && !c->bad; i++) {
        if (oracle_complete(c->o))
            say(c, "forced where the text may end:", (struct str){&forced[i], 1});
        for (unsigned b = 0; b < 256; b++) {
            char one = (char)b;
            oracle_push(c->o, &one, 1);
            if (oracle_prefix(c->o) != (one == forced[i]))
                say(c, "not the only byte:", (struct str){&forced[i], 1});
            oracle_cut(c->o, n + i);
        }
        oracle_push(c->o, &forced[i], 1);
    }
    oracle_cut(c->o, n);
}

/* step: false at the end of the walk. */
static bool step(struct check *c, uint64_t *random) {
    struct err e = {0};
    uint32_t allowed[N], n = 0;
    check_mask(c);
    check_forced(c);
    if (gram_run_may_end(c->r) != oracle_complete(c->o))
        say(c, "end", (struct str){NULL, 0});
    for (uint32_t i = 0; i < N && !c->bad; i++) {
        if (i == EOS)
            continue;
        if (bit(c->mask, i))
            allowed[n++] = i;
        else if (gram_run_accept(c->r, i, &e) != RC_INVALID)
            say(c, "taken although not allowed:", c->tokens[i]);
    }
    if (gram_run_must_end(c->r) != (n == 0) || (n == 0 && !oracle_complete(c->o)))
        say(c, "nothing may follow, or something must", (struct str){NULL, 0});
    if (c->bad || oracle_over(c->o) || n == 0 || oracle_length(c->o) > TEXT_MAX)
        return false;
    uint32_t t = allowed[oracle_random(random, n)];
    if (gram_run_accept(c->r, t, &e))
        say(c, "allowed, and refused:", c->tokens[t]);
    oracle_push(c->o, c->tokens[t].p, c->tokens[t].n);
    return !c->bad;
}

const char *gram_check(uint64_t seed, const struct gram_vocab *v, const struct str *tokens, unsigned n_steps,
                       bool *walked) {
    struct gram *g = gram_new(NULL);
    struct check c = {.seed = seed, .tokens = tokens};
    struct err e = {0};
    uint32_t start;
    *walked = false;
    c.o = oracle_new(seed, g, &start);
    if (c.o) {
        enum rc rc = gram_seal(g, start, false, &e);
        if ((rc != RC_OK) != oracle_empty(c.o))
            say(&c, "sealing:", str_of(e.msg));
        c.r = rc ? NULL : gram_run_new(g, v);
        for (unsigned i = 0; c.r && i < n_steps && step(&c, &seed); i++)
            *walked = true;
        gram_run_free(c.r);
        oracle_free(c.o);
    }
    gram_drop(g);
    return c.bad ? message : NULL;
}
