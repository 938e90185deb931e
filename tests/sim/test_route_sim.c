/* Routing policies over four workers in virtual time: real policies and index, real blocks and names
 * (mock_cache), a prefill of 20 us a token for one prompt after the other, and a decode of some 200 ms beside
 * it. Clients wait for their answers. What the four do is counted, not timed: equal seeds, equal results. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "router/fleet/kvfeed.h"
#include "router/fleet/policy.h"
#include "worker/io_private.h"
#include "worker/mock_cache.h"

enum { N_WORKERS = 4, N_CLIENTS_MAX = 128, PROMPT_MAX = 2048, REPORT_MAX = 8192 };
#define PREFILL_NS 20000ull
#define DECODE_US_MIN 175000u
#define DECODE_US_MAX 225000u

/* load: n_groups prefixes of n_shared tokens, each followed by n_own tokens that nobody else has. A client
 * has a prefix of its own, as the turns of a conversation have; or it draws one for every request. */
struct load {
    bool drawn;
    uint32_t n_clients, n_groups, n_shared, n_own, n_blocks, n_requests;
};
struct client {
    enum {
        ASKS,
        COMPUTES,
        DECODES,
        STANDS
    } state;                    /* STANDS: in its worker's line; nothing happens by itself */
    uint64_t at_ns, dispatched; /* dispatched: serial, for the order of the line */
    int worker;
    uint32_t n_cached;
    uint32_t prompt[PROMPT_MAX];
    struct req req;
};
struct worker_sim {
    struct mock_cache *cache;
    struct kv_feed feed;
    struct pick_load load;
    bool computes;
    uint32_t n_served;
};
struct sim {
    struct load l;
    uint64_t rng, now_ns, serial;
    struct policy policy;
    struct prefix_index *index;
    struct worker_sim w[N_WORKERS];
    struct client *c; /* [n_clients] */
    uint64_t n_hits, n_predicted, n_off, n_done;
};
struct result {
    double per_s, hit_share;
    uint64_t n_off, n_predicted;
    uint32_t least_served, most_served;
};

static uint32_t rnd(uint64_t *s, uint32_t n) {
    *s += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash_u64(*s) % n);
}

/* tell: what has changed in a worker's cache, by way of messages, to the index. */
static void tell(struct sim *s, int i) {
    static struct id128 stored[IO_KV_NAMES_MAX], removed[IO_KV_NAMES_MAX];
    struct worker_sim *w = &s->w[i];
    struct step_out out = {0};
    Weir__KvEvents m;
    while (mock_cache_report(w->cache, &out)) {
        for (uint32_t k = 0; k < out.n_kv_events;) {
            k += io_kv_fill(out.kv_events + k, out.n_kv_events - k, out.first_kv_event + k, stored, removed,
                            &m);
            assert_int_equal(kv_feed_take(&w->feed, s->index, &m), KV_FEED_OK);
        }
        if (!out.kv_piece)
            continue;
        weir__kv_events__init(&m);
        m.has_first_seq = true;
        m.first_seq = out.first_kv_event + out.n_kv_events;
        m.snapshot = out.kv_piece->begins;
        m.part = true;
        assert_int_equal(kv_feed_take(&w->feed, s->index, &m), KV_FEED_OK); /* of an empty cache */
    }
}

/* begin: the next prompt of a worker's line, if it is free. */
static void begin(struct sim *s, int i) {
    struct worker_sim *w = &s->w[i];
    struct client *first = NULL;
    for (uint32_t k = 0; k < s->l.n_clients && !w->computes; k++) {
        struct client *c = &s->c[k];
        if (c->state == STANDS && c->worker == i && (!first || c->dispatched < first->dispatched))
            first = c;
    }
    if (!first)
        return;
    uint32_t n = mock_cache_admit(w->cache, &first->req);
    s->n_hits += n;
    s->n_predicted += first->n_cached;
    s->n_off += n > first->n_cached ? n - first->n_cached : first->n_cached - n;
    first->state = COMPUTES;
    first->at_ns = s->now_ns + PREFILL_NS * (first->req.n_prompt - n);
    w->computes = true;
    tell(s, i);
}

static void ask(struct sim *s, struct client *c) {
    struct id128 names[PROMPT_MAX / HASH_BLOCK_TOKENS], parent = {{0}}, domain = {{0}};
    struct policy_worker w[N_WORKERS];
    uint32_t out[INDEX_SLOTS], group = (uint32_t)(c - s->c) % s->l.n_groups, n = s->l.n_shared + s->l.n_own;
    enum policy_reason why;
    if (s->l.drawn)
        group = rnd(&s->rng, s->l.n_groups);
    for (uint32_t i = 0; i < n; i++)
        c->prompt[i] = i < s->l.n_shared ? (uint32_t)hash_u64(group * 10000ull + i) : rnd(&s->rng, 1u << 30);
    c->req = (struct req){.prompt = c->prompt, .n_prompt = n, .cache_read = true};
    uint32_t n_names = (n - 1) / HASH_BLOCK_TOKENS;
    for (uint32_t i = 0; i < n_names; i++)
        parent = names[i] = hash_block(parent, domain, c->prompt + i * HASH_BLOCK_TOKENS, NULL);
    index_match(s->index, names, n_names, out);
    for (int i = 0; i < N_WORKERS; i++)
        w[i] = (struct policy_worker){&s->w[i].load, out[s->w[i].feed.slot] * HASH_BLOCK_TOKENS,
                                      (uint64_t)i + 1};
    const struct policy_ask a = {.n_seqs = 1, .n_tokens = n};
    c->worker = policy_choose(&s->policy, w, N_WORKERS, &a, &why);
    assert_true(c->worker >= 0);
    c->n_cached = w[c->worker].n_cached;
    c->dispatched = s->serial++;
    c->state = STANDS;
    c->at_ns = UINT64_MAX;
    struct pick_load *l = &s->w[c->worker].load;
    l->n_seqs++;
    l->n_tokens += n;
    /* Other policies do not know of caches. */
    l->n_cached += s->policy.kind == POLICY_PREFIX ? c->n_cached : 0;
    begin(s, c->worker);
}

static void happen(struct sim *s, struct client *c) {
    struct worker_sim *w = &s->w[c->worker];
    switch (c->state) {
    case ASKS:
        ask(s, c);
        break;
    case COMPUTES:
        w->load.n_tokens -= c->req.n_prompt;
        w->load.n_cached -= s->policy.kind == POLICY_PREFIX ? c->n_cached : 0;
        w->computes = false;
        c->state = DECODES;
        c->at_ns = s->now_ns + (DECODE_US_MIN + rnd(&s->rng, DECODE_US_MAX - DECODE_US_MIN)) * NS_PER_US;
        begin(s, c->worker);
        break;
    case DECODES:
        w->load.n_seqs--;
        w->n_served++;
        mock_cache_drop(w->cache, &c->req);
        tell(s, c->worker);
        s->n_done++;
        c->state = ASKS;
        break;
    case STANDS:
        fail();
    }
}

static struct result run(enum policy_kind kind, const struct load *l) {
    struct sim s = {.l = *l, .rng = 7, .policy = {.kind = kind, .rng = 1}};
    struct result r = {.least_served = UINT32_MAX};
    s.index = index_new(4 * MIB, 1);
    s.c = xcalloc(l->n_clients, sizeof *s.c);
    for (int i = 0; i < N_WORKERS; i++) {
        s.w[i].load = (struct pick_load){.credit_seqs = 1000, .credit_tokens = 1u << 24};
        s.w[i].cache = mock_cache_new(l->n_blocks, 1);
        kv_feed_init(&s.w[i].feed);
        mock_cache_snapshot(s.w[i].cache, 0, 0);
        tell(&s, i);
    }
    while (s.n_done < l->n_requests) {
        struct client *next = &s.c[0];
        for (uint32_t i = 1; i < l->n_clients; i++)
            if (s.c[i].at_ns < next->at_ns)
                next = &s.c[i];
        s.now_ns = next->at_ns;
        happen(&s, next);
    }
    index_check(s.index);
    r.per_s = (double)s.n_done / ((double)s.now_ns * 1e-9);
    r.hit_share = (double)s.n_hits / (double)(s.n_done * (l->n_shared + l->n_own));
    r.n_off = s.n_off;
    r.n_predicted = s.n_predicted;
    for (int i = 0; i < N_WORKERS; i++) {
        r.least_served = MIN(r.least_served, s.w[i].n_served);
        r.most_served = MAX(r.most_served, s.w[i].n_served);
        mock_cache_free(s.w[i].cache);
    }
    index_free(s.index);
    free(s.c);
    print_message("%-16s %7.1f requests/s, %4.1f %% of tokens cached, busiest worker %u, least busy %u\n",
                  policy_names[kind], r.per_s, 100 * r.hit_share, r.most_served, r.least_served);
    return r;
}

/* 61 conversations of 1,920 tokens; a worker's cache has room for 17 of them: in turn every worker sees all,
 * by prefix each sees its own. And the same prefixes drawn at random, where a cache of a quarter cannot but
 * find a quarter: there the most that can be had is four times that. */
static void test_shared(void **state) {
    (void)state;
    struct load l = {.n_clients = 61, .n_groups = 61, .n_shared = 1920, .n_own = 64, .n_blocks = 2150};
    l.n_requests = 4000;
    struct result turn = run(POLICY_ROUND_ROBIN, &l), prefix = run(POLICY_PREFIX, &l);
    double rate = prefix.per_s / turn.per_s, share = prefix.hit_share / turn.hit_share;
    print_message(
        "prefix against round-robin: %.2f times the throughput, %.2f times the hits in equal time\n", rate,
        rate * share);
    assert_true(rate >= 1.9);
    assert_true(rate * share >= 3.8); /* tokens found in the caches in equal time */
    assert_true((double)prefix.n_off <= 0.01 * (double)prefix.n_predicted);
    l.drawn = true;
    turn = run(POLICY_ROUND_ROBIN, &l);
    prefix = run(POLICY_PREFIX, &l);
    print_message("drawn at random: %.2f times the throughput, %.2f times the share of hits\n",
                  prefix.per_s / turn.per_s, prefix.hit_share / turn.hit_share);
    assert_true(prefix.per_s >= 1.5 * turn.per_s);
}

/* Nothing shared: there is nothing to gain, and nothing may be lost. */
static void test_unshared(void **state) {
    (void)state;
    const struct load l = {
        .n_clients = 64, .n_groups = 1, .n_shared = 0, .n_own = 1000, .n_blocks = 4000, .n_requests = 2000};
    struct result least = run(POLICY_LEAST_LOAD, &l), prefix = run(POLICY_PREFIX, &l);
    assert_true(prefix.per_s >= 0.95 * least.per_s);
    assert_true(prefix.hit_share == 0);
}

/* One prefix in all prompts: all workers come to have it, and share the work. */
static void test_hot(void **state) {
    (void)state;
    const struct load l = {
        .n_clients = 128, .n_groups = 1, .n_shared = 512, .n_own = 512, .n_blocks = 8000, .n_requests = 3000};
    struct result least = run(POLICY_LEAST_LOAD, &l), prefix = run(POLICY_PREFIX, &l);
    assert_true(prefix.per_s >= 0.95 * least.per_s);
    assert_true(prefix.least_served * 10 >= prefix.most_served * 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shared), cmocka_unit_test(test_unshared),
                                       cmocka_unit_test(test_hot)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
