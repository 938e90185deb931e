/* What a router expects of prefix caches against what its workers find there: the real scheduler, blocks and
 * cache of four workers, and the real messages, index and policy, step by step. Conversations begin with one
 * of a few system prompts, and each turn repeats all that was said before.
 *
 * With room for everything a prediction is never wrong. With little room it may be: between the router's
 * choice and the worker's next step a running sequence may take the very block. Messages that get lost make a
 * gap, and a snapshot mends it; a worker that begins anew is empty. TEST_SCALE multiplies the requests. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/hash.h"
#include "router/fleet/kvfeed.h"
#include "router/fleet/policy.h"
#include "worker/io_private.h"
#include "worker/kv_walk.h"
#include "worker/sched.h"

enum { N_WORKERS = 4, N_CHATS = 40, N_SYSTEMS = 6, MAX_LEN = 1536, N_EVENTS = 4096, N_REQUESTS = 2000 };

struct chat {
    uint32_t n, tokens[MAX_LEN];
    struct req *req; /* under way; NULL: it thinks */
    int worker;
    uint32_t predicted;
    bool known;
};
struct worker_sim {
    struct sched sched;
    struct kv_group group;
    struct kv_walks walks;
    struct kv_feed feed;
    struct pick_load load;
};
struct world {
    uint64_t rng;
    uint32_t n_blocks, loss_permille;
    struct worker_sim w[N_WORKERS];
    struct policy policy;
    struct prefix_index *index;
    struct chat chats[N_CHATS];
    uint32_t now, n_done, n_known, n_exact, n_asked, n_hits, n_evicted;
};

static uint32_t rnd(struct world *x, uint32_t n) {
    x->rng += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash_u64(x->rng) % n);
}

static void open_worker(struct world *x, struct worker_sim *w) {
    w->group = (struct kv_group){.kind = KV_FULL, .n_blocks = x->n_blocks};
    struct sched_opts o = {.groups = &w->group,
                           .n_groups = 1,
                           .max_len = MAX_LEN,
                           .n_seqs_max = 64,
                           .n_rows_max = 64,
                           .token_budget = 4096,
                           .prefix_cache = true,
                           .prefix_seed = x->rng,
                           .n_events_max = N_EVENTS};
    sched_init(&w->sched, &o);
    kv_walks_init(&w->walks, 1);
    kv_feed_init(&w->feed);
    kv_walk_begin(&w->walks, 0, 0);
    w->load = (struct pick_load){.credit_seqs = 1000, .credit_tokens = 1u << 24};
}

static void close_worker(struct world *x, struct worker_sim *w) {
    kv_feed_gone(&w->feed, x->index);
    kv_walks_fini(&w->walks);
    sched_fini(&w->sched);
}

/* ---- what is told -------------------------------------------------------------------------------------- */

static void hear(struct world *x, struct worker_sim *w, const Weir__KvEvents *m) {
    if (rnd(x, 1000) < x->loss_permille)
        return;
    enum kv_feed_say say = kv_feed_take(&w->feed, x->index, m);
    assert_int_not_equal(say, KV_FEED_BAD);
    if (say == KV_FEED_ASK) {
        kv_walk_begin(&w->walks, 0, 0);
        x->n_asked++;
    }
}

static void tell(struct world *x, struct worker_sim *w) {
    static struct prefix_event events[N_EVENTS];
    static struct id128 stored[IO_KV_NAMES_MAX], removed[IO_KV_NAMES_MAX];
    uint64_t first;
    Weir__KvEvents m;
    uint32_t n = prefix_events_take(&w->sched.prefix, events, N_EVENTS, &first);
    for (uint32_t i = 0; i < n; i++)
        x->n_evicted += events[i].kind == PREFIX_REMOVED;
    for (uint32_t i = 0; i < n;) {
        i += io_kv_fill(events + i, n - i, first + i, stored, removed, &m);
        hear(x, w, &m);
    }
    /* As the router does: while nothing is known it asks again. */
    if (w->feed.slot == INDEX_NO_SLOT && w->walks.n == 0)
        kv_walk_begin(&w->walks, 0, 0);
    const struct kv_piece *p = kv_walk_step(&w->walks, &w->sched.prefix);
    if (!p)
        return;
    weir__kv_events__init(&m);
    m.has_first_seq = true;
    m.first_seq = first + n;
    m.snapshot = p->begins;
    m.part = true;
    m.stored = (ProtobufCBinaryData){p->n_names * sizeof *p->names, (uint8_t *)(uintptr_t)p->names->b};
    hear(x, w, &m);
}

/* ---- chats --------------------------------------------------------------------------------------------- */

static void begin_chat(struct world *x, struct chat *c) {
    uint32_t system = rnd(x, N_SYSTEMS), n = 40 + system * 37;
    for (c->n = 0; c->n < n; c->n++)
        c->tokens[c->n] = (uint32_t)hash_u64(system * 5000ull + c->n);
}

static void ask(struct world *x, struct chat *c) {
    struct policy_worker w[N_WORKERS];
    uint32_t out[INDEX_SLOTS], n_user = 5 + rnd(x, 60), n_answer = 5 + rnd(x, 40);
    enum policy_reason why;
    if (c->n + n_user + n_answer >= MAX_LEN || rnd(x, 20) == 0)
        begin_chat(x, c);
    for (uint32_t i = 0; i < n_user; i++)
        c->tokens[c->n++] = rnd(x, 1u << 30);
    struct req src = {.n_samples = 1,
                      .prompt = c->tokens,
                      .n_prompt = c->n,
                      .max_tokens = n_answer,
                      .cache_read = true,
                      .cache_write = true,
                      .arrival_ns = x->now,
                      .repetition_penalty = 1,
                      .n_logprobs = -1,
                      .n_prompt_logprobs = -1};
    c->req = req_new(&src);
    req_prepare(c->req, NULL, 0, true);
    index_match(x->index, c->req->hashes, (c->n - 1) / HASH_BLOCK_TOKENS, out);
    for (int i = 0; i < N_WORKERS; i++) {
        uint32_t slot = x->w[i].feed.slot, n = slot == INDEX_NO_SLOT ? 0 : out[slot] * HASH_BLOCK_TOKENS;
        w[i] = (struct policy_worker){&x->w[i].load, n, (uint64_t)i};
    }
    const struct policy_ask a = {.n_seqs = 1, .n_tokens = c->n};
    c->worker = policy_choose(&x->policy, w, N_WORKERS, &a, &why);
    assert_true(c->worker >= 0);
    c->predicted = w[c->worker].n_cached;
    c->known = x->w[c->worker].feed.slot != INDEX_NO_SLOT;
    x->w[c->worker].load.n_seqs++;
    sched_add(&x->w[c->worker].sched, c->req);
}

/* over: the answer is complete. */
static void over(struct world *x, struct chat *c) {
    const struct seq *q = &c->req->seqs[0];
    if (c->known) {
        x->n_known++;
        x->n_exact += c->predicted == c->req->n_cached;
        x->n_hits += c->req->n_cached > 0;
    }
    for (uint32_t i = 0; i < q->n_out && c->n < MAX_LEN; i++)
        c->tokens[c->n++] = q->out[i];
    x->w[c->worker].load.n_seqs--;
    req_free(c->req);
    c->req = NULL;
    x->n_done++;
}

static struct chat *chat_of(struct world *x, const struct req *r) {
    uint32_t i = 0;
    while (x->chats[i].req != r)
        i++;
    return &x->chats[i];
}

static void step(struct world *x, struct worker_sim *w) {
    const struct step_plan *p = sched_plan(&w->sched, x->now);
    uint32_t n_rows = p->n_sample_rows;
    sched_computed(&w->sched);
    for (uint32_t i = 0; i < n_rows; i++) {
        struct seq *q = p->rows[i].seq;
        if (seq_accept(q, rnd(x, 1u << 30), MAX_LEN) == FINISH_NONE)
            continue;
        struct chat *c = chat_of(x, q->req);
        sched_end(&w->sched, q);
        over(x, c);
    }
    tell(x, w);
}

/* expect_whole: the index holds what the worker's cache holds. */
static void expect_whole(struct world *x, struct worker_sim *w) {
    struct id128 *names = xcalloc(x->n_blocks, sizeof *names);
    uint32_t at = 0, n = prefix_names(&w->sched.prefix, &at, names, x->n_blocks), out[INDEX_SLOTS];
    assert_int_not_equal(w->feed.slot, INDEX_NO_SLOT);
    index_match(x->index, names, n, out);
    assert_int_equal(out[w->feed.slot], n);
    free(names);
}

static void run(const char *what, uint32_t n_blocks, uint32_t loss_permille, bool restarts,
                double least_exact) {
    struct world *x = xcalloc(1, sizeof *x);
    const char *scale = getenv("TEST_SCALE");
    uint32_t n_requests = (uint32_t)(N_REQUESTS * (scale ? strtod(scale, NULL) : 1));
    *x = (struct world){.rng = 11, .n_blocks = n_blocks, .loss_permille = loss_permille};
    x->index = index_new(16 * MIB, 3);
    for (int i = 0; i < N_WORKERS; i++)
        open_worker(x, &x->w[i]);
    for (int i = 0; i < N_CHATS; i++)
        begin_chat(x, &x->chats[i]);
    while (x->n_done < n_requests) {
        x->now++;
        bool quiet = restarts && x->now % 400 > 350; /* let all end, and begin a worker anew */
        for (int i = 0; i < N_CHATS; i++)
            if (!x->chats[i].req && !quiet && rnd(x, 100) < 6)
                ask(x, &x->chats[i]);
        if (restarts && x->now % 400 == 399) {
            struct worker_sim *w = &x->w[rnd(x, N_WORKERS)];
            if (sched_idle(&w->sched)) {
                close_worker(x, w);
                open_worker(x, w);
            }
        }
        for (int i = 0; i < N_WORKERS; i++)
            step(x, &x->w[i]);
        index_sweep(x->index, 500);
    }
    x->loss_permille = 0;
    for (int k = 0; k < 3000; k++) { /* whatever runs ends, and what was lost is mended */
        x->now++;
        for (int i = 0; i < N_WORKERS; i++)
            step(x, &x->w[i]);
    }
    for (int i = 0; i < N_WORKERS; i++) {
        expect_whole(x, &x->w[i]);
        close_worker(x, &x->w[i]);
    }
    while (index_sweep(x->index, 5000))
        ;
    assert_int_equal(index_stats(x->index).n_entries, 0);
    double exact = (double)x->n_exact / x->n_known;
    print_message("%s: %u of %u predictions exact (%.2f %%), %u of requests found something, %u blocks "
                  "evicted, %u gaps\n",
                  what, x->n_exact, x->n_known, 100 * exact, x->n_hits, x->n_evicted, x->n_asked);
    assert_true(exact >= least_exact && x->n_known > n_requests / 2 && x->n_hits > x->n_known / 2);
    assert_true((x->n_asked > 0) == (loss_permille > 0));
    assert_true((x->n_evicted > 1000) == (n_blocks < 1000));
    index_free(x->index);
    free(x);
}

static void test_no_eviction(void **state) {
    (void)state;
    const char *scale = getenv("TEST_SCALE");
    run("room for all", (uint32_t)(30000 * MAX(1.0, scale ? strtod(scale, NULL) : 1)), 0, false, 1);
}
static void test_eviction(void **state) {
    (void)state;
    run("little room", 560, 0, false, 0.99);
}
static void test_losses(void **state) {
    (void)state;
    run("messages lost", 560, 5, false, 0.98);
}
static void test_restarts(void **state) {
    (void)state;
    run("workers begin anew", 6000, 0, true, 0.99);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_eviction), cmocka_unit_test(test_eviction),
                                       cmocka_unit_test(test_losses), cmocka_unit_test(test_restarts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
