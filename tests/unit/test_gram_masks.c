/* Masks of whole vocabularies against trying every token byte by byte: made-up schemas, patterns, grammars
 * and rules, random walks through them, with the tokenizer of the model in the box and with 128,000 made-up
 * tokens. Bytes are tried with a second grammar of the same text, which never sees a vocabulary; that its
 * bytes are right is for test_gram_oracle and tests/gram to say.
 *
 * TEST_SCALE multiplies the 200 constraints (40 under a sanitizer): 50 makes 10,000. GRAM_SEED runs one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/gram/gram.h"
#include "tests/support/gram_made.h"
#include "tests/support/gram_oracle.h"
#include "tests/support/gram_vocab.h"
#include "tests/support/tok_golden.h"

#include <stdlib.h>

#ifdef WEIR_SANITIZE
enum { N_MADE = 40, N_LARGE = 32000 };
#else
enum { N_MADE = 200, N_LARGE = 128000 };
#endif
enum { N_STEPS = 6, N_STEPS_LARGE = 3, TEXT_MAX = 64, EVERY_LARGE = 4 };
enum { KIND_RULES = 0, N_KINDS = 4 }; /* beside enum gram_kind: rules of gram_oracle.h */

struct vocab {
    struct gram_vocab *v;
    struct str *tokens; /* [n] special ones and holes are empty */
    uint32_t n, eos;
    uint32_t *mask, *order;   /* order: of tokens, by first byte */
    uint32_t first[257];      /* in order */
    uint32_t n_steps, n_over; /* n_over: masks that cost more than their budget */
    struct tok *tok;
    char *bytes;
};

static void vocab_fill(struct vocab *x) {
    x->v = x->tok ? gram_vocab_new(x->tok, x->n, &x->eos, 1) : gram_vocab_of(x->tokens, x->n, &x->eos, 1);
    x->mask = xcalloc(gram_mask_words(x->n), sizeof *x->mask);
    x->order = xcalloc(x->n, sizeof *x->order);
    uint32_t n = 0;
    for (unsigned b = 0; b < 256; b++) {
        x->first[b] = n;
        for (uint32_t i = 0; i < x->n; i++)
            if (i != x->eos && x->tokens[i].n && (uint8_t)x->tokens[i].p[0] == b)
                x->order[n++] = i;
    }
    x->first[256] = n;
}

static void vocab_demo(struct vocab *x) {
    size_t n;
    char *json = golden_file_read("deploy/demo-model/tokenizer.json", &n);
    struct tok_files files = {.tokenizer_json = {json, n}};
    struct err e;
    if (tok_load(&x->tok, &files, &e))
        fail_msg("%s", e.msg);
    free(json);
    x->n = tok_vocab_size(x->tok);
    x->n_steps = N_STEPS;
    x->eos = UINT32_MAX;
    x->tokens = xcalloc(x->n, sizeof *x->tokens);
    for (uint32_t i = 0; i < x->n; i++)
        if (!tok_is_special(x->tok, i))
            x->tokens[i] = tok_bytes(x->tok, i);
        else if (x->eos == UINT32_MAX)
            x->eos = i;
    assert_true(x->eos < x->n);
    vocab_fill(x);
}

static void vocab_large(struct vocab *x) {
    x->n = N_LARGE;
    x->n_steps = N_STEPS_LARGE;
    x->eos = x->n - 1;
    x->tokens = made_vocab(x->n, &x->bytes);
    vocab_fill(x);
}

static void vocab_fini(struct vocab *x) {
    gram_vocab_free(x->v);
    tok_free(x->tok);
    free(x->tokens);
    free(x->bytes);
    free(x->mask);
    free(x->order);
}

/* make: the grammar of a seed, NULL if it is refused. */
static struct gram *make(uint64_t seed, unsigned kind, struct buf *text) {
    struct gram *g = NULL;
    struct err e = {0};
    if (kind == KIND_RULES) {
        uint32_t start;
        g = gram_new(NULL);
        struct oracle *o = oracle_new(seed, g, &start);
        bool ok = o && gram_seal(g, start, false, &e) == RC_OK;
        oracle_free(o);
        if (!ok) {
            gram_drop(g);
            g = NULL;
        }
        return g;
    }
    text->len = 0;
    gram_made(seed, (enum gram_kind)kind, text);
    enum rc rc = gram_compile(&g, (enum gram_kind)kind, buf_str(text), (struct str){NULL, 0}, NULL, &e);
    assert_true(rc == RC_OK || (rc == RC_INVALID && e.msg[0]));
    return rc ? NULL : g;
}

struct walk {
    struct gram *bytes; /* never has a vocabulary */
    const struct vocab *x;
    struct gram_run *r;
    char text[TEXT_MAX + 256];
    size_t n;
};

/* may: the text so far and then s; the text alone was taken before. */
static bool may(const struct walk *w, struct str s) {
    struct gram_run *r = gram_run_new(w->bytes, NULL);
    struct err e;
    assert_int_equal(gram_run_bytes(r, (struct str){w->text, w->n}, NULL, &e), RC_OK);
    enum rc rc = gram_run_bytes(r, s, NULL, &e);
    gram_run_free(r);
    assert_true(rc == RC_OK || rc == RC_INVALID);
    return rc == RC_OK;
}

/* wrong: the first token whose bit is not what trying it says; UINT32_MAX: none. */
static uint32_t wrong(const struct walk *w) {
    const struct vocab *x = w->x;
    uint32_t *left = xreallocarray(NULL, gram_mask_words(x->n), sizeof *left), bad = UINT32_MAX;
    memcpy(left, x->mask, gram_mask_words(x->n) * sizeof *left);
    if ((x->mask[x->eos / 32] >> (x->eos % 32) & 1) != gram_run_may_end(w->r))
        bad = x->eos;
    left[x->eos / 32] &= ~(1u << (x->eos % 32));
    for (unsigned b = 0; b < 256; b++) {
        char one = (char)b;
        bool any = may(w, (struct str){&one, 1}); /* else none of these tokens */
        for (uint32_t k = x->first[b]; k < x->first[b + 1] && bad == UINT32_MAX; k++) {
            uint32_t id = x->order[k];
            if ((x->mask[id / 32] >> (id % 32) & 1) != (any && may(w, x->tokens[id])))
                bad = id;
            left[id / 32] &= ~(1u << (id % 32));
        }
    }
    for (uint32_t i = 0; i < x->n && bad == UINT32_MAX; i++) /* specials, holes */
        if (left[i / 32] >> (i % 32) & 1)
            bad = i;
    free(left);
    return bad;
}

/* any_token: a random one of the mask, long ones more often; NO other than the end: the end's. */
static uint32_t any_token(const struct vocab *x, uint64_t *random) {
    uint32_t best = x->eos;
    for (uint32_t tries = 0, from = 0; tries < 3; tries++) {
        from = oracle_random(random, x->n);
        for (uint32_t i = 0; i < x->n; i++) {
            uint32_t id = (from + i) % x->n;
            if (id == x->eos || !(x->mask[id / 32] >> (id % 32) & 1))
                continue;
            if (best == x->eos || x->tokens[id].n > x->tokens[best].n)
                best = id;
            break;
        }
    }
    return best;
}

/* check: one constraint along a walk. Returns whether it led anywhere. */
static bool check(uint64_t seed, struct vocab *x) {
    static const unsigned kinds[N_KINDS] = {GRAM_JSON_SCHEMA, GRAM_REGEX, GRAM_EBNF, KIND_RULES};
    unsigned kind = kinds[seed % N_KINDS];
    struct buf text = {0};
    struct err e = {0};
    uint64_t random = seed;
    struct gram *g = make(seed, kind, &text);
    struct walk w = {.x = x};
    bool walked = false;
    if (g) {
        w.bytes = make(seed, kind, &text);
        w.r = gram_run_new(g, x->v);
        for (uint32_t step = 0; step < x->n_steps && w.n < TEXT_MAX; step++) {
            enum rc rc = gram_run_mask(w.r, x->mask, &e);
            if (rc == RC_OVERLOAD) { /* a grammar that can be read in too many ways */
                x->n_over++;
                break;
            }
            assert_int_equal(rc, RC_OK);
            uint32_t bad = wrong(&w), t = any_token(x, &random);
            if (bad != UINT32_MAX)
                fail_msg("seed %llu, kind %u, after \"%.*s\": token %u \"%.*s\" is %s: %s",
                         (unsigned long long)seed, kind, (int)w.n, w.text, bad, (int)x->tokens[bad].n,
                         x->tokens[bad].n ? x->tokens[bad].p : "",
                         x->mask[bad / 32] >> (bad % 32) & 1 ? "allowed" : "not allowed", buf_cstr(&text));
            if (t == x->eos || x->tokens[t].n > 256)
                break;
            assert_int_equal(gram_run_accept(w.r, t, &e), RC_OK);
            memcpy(w.text + w.n, x->tokens[t].p, x->tokens[t].n);
            w.n += x->tokens[t].n;
            walked = true;
        }
        gram_run_free(w.r);
        gram_drop(w.bytes);
        gram_drop(g);
    }
    buf_fini(&text);
    return walked;
}

static void test_masks(void **state) {
    (void)state;
    const char *scale = getenv("TEST_SCALE"), *only = getenv("GRAM_SEED");
    uint64_t n = (uint64_t)(N_MADE * (scale ? strtod(scale, NULL) : 1)), first = 0, n_walked = 0;
    struct vocab demo = {0}, large = {0};
    if (only) {
        first = strtoull(only, NULL, 10);
        n = first + 1;
    }
    vocab_demo(&demo);
    vocab_large(&large);
    for (uint64_t seed = first; seed < n; seed++) {
        bool is_large = seed / N_KINDS % EVERY_LARGE == 0;
        n_walked += check(seed, &demo);
        if (is_large)
            (void)check(seed, &large);
    }
    assert_true(only || n_walked * 2 > n);
    assert_true(only || (demo.n_over + large.n_over) * 50 <= n);
    vocab_fini(&demo);
    vocab_fini(&large);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks)};
    return cmocka_run_group_tests_name("gram_masks", tests, NULL, NULL);
}
