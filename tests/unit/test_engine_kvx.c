/* Two engines on devices without arithmetic, and KV blocks that move between them over loopback: the decoding one's tokens
 * are those of one engine, it computes what was not moved and nothing else, and whatever goes wrong, in whatever phase, leaves
 * no block behind.
 * threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/log.h"
#include "tests/support/engine_rig.h"
#include "tests/support/fake_be.h"
#include "worker/engine_impl.h"

enum { N_BLOCKS = 400, MAX_LEN = 1024, N_OUT = 12 };

struct side {
    struct fake_device device;
    struct be *be;
    struct cache_group_spec groups[2];
    struct engine_opts opts;
    struct kvx_opts kvx;
    struct rig rig;
};
struct fixture {
    struct side prefill, decode;
    uint32_t next_stream;
    uint32_t n_ends[2];
};

static void side_open(struct side *s, uint32_t n_groups, double lease_s, uint32_t n_blocks) {
    s->be = fake_open(&s->device);
    s->groups[0] = (struct cache_group_spec){
        .kind = CACHE_FULL, .n_layers = 1, .n_kv_heads = 1, .head_dim = 1, .dtype = DT_F32};
    s->groups[1] = s->groups[0];
    s->groups[1].kind = CACHE_WINDOW;
    s->groups[1].window = 40;
    s->kvx = (struct kvx_opts){.host = "127.0.0.1", .lease_s = lease_s, .produces = true, .consumes = true};
    fill_random(s->kvx.engine.b, sizeof s->kvx.engine.b);
    s->opts = (struct engine_opts){.ops = &fake_ops,
                                   .be = s->be,
                                   .model = {fake_forward, s->be},
                                   .groups = s->groups,
                                   .n_groups = n_groups,
                                   .n_blocks = {n_blocks, n_blocks},
                                   .n_vocab = FAKE_VOCAB,
                                   .max_len = MAX_LEN,
                                   .n_tokens_max = 256,
                                   .n_rows_max = 96,
                                   .n_seqs_max = 16,
                                   .token_budget = 256,
                                   .n_requests_max = 1024,
                                   .n_routers_max = RIG_ROUTERS,
                                   .prefix_cache = true,
                                   .kvx = &s->kvx,
                                   .n_top_max = 20};
    rig_start(&s->rig, &s->opts);
}

static void side_close(struct side *s) {
    rig_free(&s->rig);
    fake_close(s->be);
}

static struct fixture *fixture_new(uint32_t n_groups, double lease_s, uint32_t n_blocks) {
    struct fixture *f = xcalloc(1, sizeof *f);
    log_set_level(LOG_ERROR);
    side_open(&f->prefill, n_groups, lease_s, n_blocks);
    side_open(&f->decode, n_groups, lease_s, n_blocks);
    return f;
}

static int setup(void **state) {
    *state = fixture_new(1, 30, N_BLOCKS);
    return 0;
}
static int setup_window(void **state) {
    *state = fixture_new(2, 30, N_BLOCKS);
    return 0;
}
static int setup_short(void **state) {
    *state = fixture_new(1, 0.2, N_BLOCKS);
    return 0;
}
static int setup_small(void **state) {
    *state = fixture_new(1, 30, MAX_LEN / KV_TOKENS + 20);
    return 0;
}
static int teardown(void **state) {
    struct fixture *f = *state;
    side_close(&f->prefill);
    side_close(&f->decode);
    free(f);
    return 0;
}

/* stats: of an engine that has nothing to do. */
static struct engine_stats stats(struct side *s) {
    struct engine_stats x;
    engine_stats_get(s->rig.engine, &x);
    return x;
}

/* until: a condition that another thread makes true; a minute is a failure. */
#define until(cond)                                                                                          \
    do {                                                                                                     \
        uint64_t end_ = clock_ns() + 60 * NS_PER_S;                                                          \
        while (!(cond) && clock_ns() < end_)                                                                 \
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);                                          \
        if (!(cond))                                                                                         \
            fail_msg("waited in vain for " #cond);                                                           \
    } while (0)

static void fill_prompt(uint32_t *prompt, uint32_t n, uint32_t seed) {
    for (uint32_t i = 0; i < n; i++)
        prompt[i] = (uint32_t)(hash_u64((uint64_t)seed << 32 | i) % FAKE_VOCAB);
}

static uint32_t submit(struct fixture *f, int side, struct req q) {
    struct side *s = side ? &f->decode : &f->prefill;
    q.stream = f->next_stream++;
    memcpy(q.id.b, &q.stream, sizeof q.stream);
    rig_submit(&s->rig, &q);
    f->n_ends[side]++;
    return (uint32_t)q.stream;
}

static const struct rig_stream *wait_end(struct fixture *f, int side, uint32_t stream) {
    struct side *s = side ? &f->decode : &f->prefill;
    rig_wait_ends(&s->rig, f->n_ends[side]);
    return &s->rig.streams[stream];
}

/* prefill: the first leg. Returns what the proxy hands on. */
static struct req_kv prefill(struct fixture *f, const uint32_t *prompt, uint32_t n) {
    struct req q = rig_req(0, prompt, n, 1);
    q.kv.offer = true;
    const struct rig_stream *s = wait_end(f, 0, submit(f, 0, q));
    assert_int_equal(s->finish, FINISH_LENGTH);
    assert_true(s->offered);
    assert_int_equal(s->n_offer, n / KV_TOKENS);
    assert_true(s->expiry_unix_s > clock_unix());
    struct req_kv kv = {.pull = true,
                        .transfer = s->transfer,
                        .engine = f->prefill.kvx.engine,
                        .host = "127.0.0.1",
                        .port = engine_kvx_port(f->prefill.rig.engine),
                        .blocks = s->offer,
                        .n_blocks = s->n_offer,
                        .n_tokens = s->n_offer * KV_TOKENS};
    return kv;
}

static uint32_t decode_begin(struct fixture *f, const uint32_t *prompt, uint32_t n, const struct req_kv *kv) {
    struct req q = rig_req(0, prompt, n, N_OUT);
    q.kv = *kv;
    return submit(f, 1, q);
}

/* check_tokens: what one engine says: by the fake device's rule, or, with a window, by the other engine. */
static void check_tokens(struct fixture *f, const struct rig_stream *s, const uint32_t *prompt, uint32_t n) {
    struct req q = rig_req(0, prompt, n, N_OUT);
    uint32_t want[N_OUT];
    if (f->prefill.opts.n_groups == 1)
        assert_int_equal(fake_expect(&q, 0, NULL, 0, want, N_OUT), N_OUT);
    else
        memcpy(want, wait_end(f, 0, submit(f, 0, q))->tokens, sizeof want);
    assert_int_equal(s->finish, FINISH_LENGTH);
    assert_int_equal(s->n_tokens, N_OUT);
    assert_memory_equal(s->tokens, want, sizeof want);
}

/* nothing_left: neither engine holds a block. */
static void nothing_left(struct fixture *f) {
    until(stats(&f->prefill).kvx.n_leases == 0);
    until(stats(&f->prefill).kv_used_blocks == 0);
    until(stats(&f->decode).kv_used_blocks == 0);
}

/* ---- what goes well ----------------------------------------------------------------------------- */

/* lengths: around the edges of blocks and chunks; with a second group whose window has moved on. */
static void moved_blocks_are_not_computed(void **state) {
    struct fixture *f = *state;
    static const uint32_t lengths[] = {17, 31, 32, 33, 48, 200, 555};
    static uint32_t prompt[MAX_LEN];
    for (uint32_t i = 0; i < ARRAY_LEN(lengths); i++) {
        uint32_t n = lengths[i], moved = (n - 1) / KV_TOKENS * KV_TOKENS;
        fill_prompt(prompt, n, i + 1);
        struct req_kv kv = prefill(f, prompt, n);
        uint64_t before = stats(&f->decode).computed_tokens;
        const struct rig_stream *s = wait_end(f, 1, decode_begin(f, prompt, n, &kv));
        check_tokens(f, s, prompt, n);
        assert_int_equal(s->n_cached, moved);
        assert_int_equal(stats(&f->decode).computed_tokens - before, n - moved + N_OUT - 1);
        nothing_left(f);
        assert_int_equal(stats(&f->prefill).kvx.n_served, i + 1);
    }
    assert_int_equal(stats(&f->decode).kvx.n_failed, 0);
    assert_true(stats(&f->decode).kvx.n_bytes > 0);
}

/* What the decoding side has cached already does not travel. */
static void cached_blocks_stay(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[300];
    fill_prompt(prompt, 300, 50);
    struct req first = rig_req(0, prompt, 160, 1);
    wait_end(f, 1, submit(f, 1, first));
    struct req_kv kv = prefill(f, prompt, 300);
    uint64_t bytes = stats(&f->decode).kvx.n_bytes;
    const struct rig_stream *s = wait_end(f, 1, decode_begin(f, prompt, 300, &kv));
    check_tokens(f, s, prompt, 300);
    assert_int_equal(s->n_cached, 288);
    assert_int_equal(stats(&f->decode).kvx.n_bytes - bytes, (18 - 10) * 128);
    nothing_left(f);
    /* All of it is there by now: the other side is told, and nothing travels. */
    bytes = stats(&f->decode).kvx.n_bytes;
    kv = prefill(f, prompt, 300);
    check_tokens(f, wait_end(f, 1, decode_begin(f, prompt, 300, &kv)), prompt, 300);
    nothing_left(f);
    assert_int_equal(stats(&f->decode).kvx.n_bytes, bytes);
    assert_int_equal(stats(&f->prefill).kvx.n_served, 2);
}

/* The reader comes before the prefill does, and follows it chunk by chunk. */
static void early_reader(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[MAX_LEN];
    enum { N = 1000 };
    fill_prompt(prompt, N, 60);
    struct req_kv kv = {.pull = true, .early = true, .engine = f->prefill.kvx.engine, .host = "127.0.0.1"};
    kv.port = engine_kvx_port(f->prefill.rig.engine);
    fill_random(kv.transfer.b, sizeof kv.transfer.b);
    atomic_store(&f->prefill.device.step_us, 20000);
    uint32_t decoding = decode_begin(f, prompt, N, &kv);
    struct req q = rig_req(0, prompt, N, 0);
    q.kv.offer = true;
    q.kv.transfer = kv.transfer;
    const struct rig_stream *p = wait_end(f, 0, submit(f, 0, q));
    assert_int_equal(p->finish, FINISH_LENGTH);
    check_tokens(f, wait_end(f, 1, decoding), prompt, N);
    assert_int_equal(f->decode.rig.streams[decoding].n_cached, 992);
    nothing_left(f);
}

/* Others run while a request waits for its blocks. */
static void others_run(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[400], other[40];
    fill_prompt(prompt, 400, 70);
    fill_prompt(other, 40, 71);
    atomic_store(&f->prefill.device.step_us, 50000);
    struct req q = rig_req(0, prompt, 400, 0);
    q.kv.offer = true;
    fill_random(q.kv.transfer.b, sizeof q.kv.transfer.b);
    struct req_kv kv = {.pull = true, .early = true, .transfer = q.kv.transfer, .engine = f->prefill.kvx.engine};
    strcpy(kv.host, "127.0.0.1");
    kv.port = engine_kvx_port(f->prefill.rig.engine);
    uint32_t decoding = decode_begin(f, prompt, 400, &kv);
    struct req o = rig_req(0, other, 40, N_OUT);
    uint32_t beside = submit(f, 1, o);
    rig_wait_ends(&f->decode.rig, 1);
    check_tokens(f, &f->decode.rig.streams[beside], other, 40);
    assert_int_equal(f->decode.rig.streams[decoding].n_ends, 0);
    submit(f, 0, q);
    check_tokens(f, wait_end(f, 1, decoding), prompt, 400);
    wait_end(f, 0, decoding);
    nothing_left(f);
}

/* ---- what goes wrong ---------------------------------------------------------------------------- */

/* decode_alone: a decode leg whose pull cannot be: it computes all of its prompt. */
static void decode_alone(struct fixture *f, const uint32_t *prompt, uint32_t n, const struct req_kv *kv,
                         enum kvx_fallback why) {
    uint64_t before = stats(&f->decode).kvx.fallbacks[why];
    const struct rig_stream *s = wait_end(f, 1, decode_begin(f, prompt, n, kv));
    check_tokens(f, s, prompt, n);
    assert_int_equal(s->n_cached, 0);
    assert_int_equal(stats(&f->decode).kvx.fallbacks[why], before + 1);
}

static void refused_pulls_are_computed(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100], other[100];
    fill_prompt(prompt, 100, 80);
    struct req_kv kv = prefill(f, prompt, 100), bad = kv;
    uint32_t ids[RIG_OFFER];
    uint32_t seed = 1000;

    fill_prompt(other, 100, seed++); /* another prompt under the same capability */
    decode_alone(f, other, 100, &kv, KVX_FALL_MISMATCH);
    fill_prompt(prompt, 100, seed);
    kv = bad = prefill(f, prompt, 100);
    bad.transfer.b[3] ^= 1;
    decode_alone(f, prompt, 100, &bad, KVX_FALL_REFUSED);
    bad = kv;
    bad.engine.b[0] ^= 1;
    fill_prompt(prompt, 100, ++seed);
    decode_alone(f, prompt, 100, &bad, KVX_FALL_REFUSED);
    bad = kv; /* block numbers are not believed */
    memcpy(ids, kv.blocks, kv.n_blocks * sizeof *ids);
    ids[2]++;
    bad.blocks = ids;
    fill_prompt(prompt, 100, ++seed);
    bad = prefill(f, prompt, 100);
    memcpy(ids, bad.blocks, bad.n_blocks * sizeof *ids);
    ids[2]++;
    bad.blocks = ids;
    decode_alone(f, prompt, 100, &bad, KVX_FALL_MISMATCH);
    bad = kv;
    bad.port = 1; /* nobody listens there */
    fill_prompt(prompt, 100, ++seed);
    decode_alone(f, prompt, 100, &bad, KVX_FALL_NETWORK);
    bad = kv;
    bad.host[0] = 0;
    fill_prompt(prompt, 100, ++seed);
    decode_alone(f, prompt, 100, &bad, KVX_FALL_PARAMS);
    bad = kv;
    bad.n_tokens = 4096; /* more than the prompt has */
    bad.n_blocks = 0;
    fill_prompt(prompt, 100, ++seed);
    decode_alone(f, prompt, 100, &bad, KVX_FALL_PARAMS);
}

/* A transfer is good once. */
static void used_once(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    fill_prompt(prompt, 100, 90);
    struct req_kv kv = prefill(f, prompt, 100);
    check_tokens(f, wait_end(f, 1, decode_begin(f, prompt, 100, &kv)), prompt, 100);
    nothing_left(f);
    assert_int_equal(engine_control(f->decode.rig.engine, ENGINE_RESET_PREFIX_CACHE, 0, 0, 1), RC_OK);
    decode_alone(f, prompt, 100, &kv, KVX_FALL_REFUSED);
}

static void fails_by_policy(void **state) {
    struct fixture *f = *state;
    struct side strict = {0};
    static uint32_t prompt[100];
    (void)f;
    log_set_level(LOG_ERROR);
    side_open(&strict, 1, 30, N_BLOCKS);
    rig_free(&strict.rig);
    strict.kvx.must_load = true;
    strict.rig = (struct rig){0};
    rig_start(&strict.rig, &strict.opts);
    fill_prompt(prompt, 100, 95);
    struct req q = rig_req(0, prompt, 100, N_OUT);
    q.kv.pull = true;
    rig_submit(&strict.rig, &q);
    rig_wait_ends(&strict.rig, 1);
    assert_int_equal(strict.rig.streams[0].finish, FINISH_ERROR);
    assert_int_equal(strict.rig.streams[0].status, 503);
    side_close(&strict);
}

/* Blocks are kept for the length of a lease, and who is late is refused. */
static void leases_expire(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    fill_prompt(prompt, 100, 100);
    struct req_kv kv = prefill(f, prompt, 100);
    until(stats(&f->prefill).kvx.n_expired == 1);
    nothing_left(f);
    decode_alone(f, prompt, 100, &kv, KVX_FALL_REFUSED);
}

/* A request that ends by anything but its length leaves nothing. */
static void no_offer_without_length(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    fill_prompt(prompt, 100, 110);
    struct req q = rig_req(0, prompt, 100, 5);
    uint32_t first[1];
    fake_expect(&q, 0, NULL, 0, first, 1);
    q.stop_ids = first;
    q.n_stop_ids = 1;
    q.kv.offer = true;
    const struct rig_stream *s = wait_end(f, 0, submit(f, 0, q));
    assert_int_equal(s->finish, FINISH_STOP);
    assert_false(s->offered);
    q = rig_req(0, prompt, 15, 1); /* no whole block */
    q.kv.offer = true;
    s = wait_end(f, 0, submit(f, 0, q));
    assert_int_equal(s->finish, FINISH_LENGTH);
    assert_false(s->offered);
    nothing_left(f);
}

/* Leases never take the room that one sequence of the largest length needs. */
static void leases_leave_room(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[MAX_LEN];
    struct req q;
    uint32_t n_offered = 0;
    for (uint32_t i = 0; i < 4; i++) {
        fill_prompt(prompt, 160, 200 + i);
        q = rig_req(0, prompt, 160, 1);
        q.kv.offer = true;
        n_offered += wait_end(f, 0, submit(f, 0, q))->offered;
    }
    assert_int_equal(n_offered, 2); /* of 20 blocks */
    fill_prompt(prompt, MAX_LEN - 1, 210);
    q = rig_req(0, prompt, MAX_LEN - 1, 1);
    assert_int_equal(wait_end(f, 0, submit(f, 0, q))->finish, FINISH_LENGTH);
    assert_int_equal(stats(&f->prefill).kvx.n_leases, 2);
}

/* ---- aborts ------------------------------------------------------------------------------------- */

static struct id128 id_of(uint64_t stream) {
    struct id128 id = {{0}};
    memcpy(id.b, &stream, sizeof stream);
    id.b[15] = 1; /* as rig_req has it */
    return id;
}

/* later: what a decode leg is told of a prefill that has not begun. */
static struct req_kv later(const struct fixture *f, struct id128 transfer) {
    struct req_kv kv = {.pull = true, .early = true, .transfer = transfer, .engine = f->prefill.kvx.engine, .host = "127.0.0.1"};
    kv.port = engine_kvx_port(f->prefill.rig.engine);
    return kv;
}

/* An abort of a request that has ended lets its blocks go; one of another router's does not. */
static void aborted_late(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    fill_prompt(prompt, 100, 120);
    struct req_kv kv = prefill(f, prompt, 100);
    const uint32_t p = f->next_stream - 1;
    assert_int_equal(engine_abort(f->prefill.rig.engine, 1, 0, id_of(p), true, 0), RC_OK);
    assert_int_equal(engine_abort(f->prefill.rig.engine, 0, 1, id_of(p), true, 0), RC_OK);
    assert_int_equal(engine_abort(f->prefill.rig.engine, 0, 0, id_of(p), false, p), RC_OK);
    struct req q = rig_req(0, prompt, 40, 1); /* the inbox is worked off by its end */
    wait_end(f, 0, submit(f, 0, q));
    assert_int_equal(stats(&f->prefill).kvx.n_leases, 1);
    assert_int_equal(engine_abort(f->prefill.rig.engine, 0, 0, id_of(p), true, 0), RC_OK);
    nothing_left(f);
    decode_alone(f, prompt, 100, &kv, KVX_FALL_REFUSED);
    assert_int_equal(stats(&f->prefill).kvx.n_expired, 0);
}

/* Who keeps blocks that nobody will read is told; one that is being read is not lost by that. */
static void let_go(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    fill_prompt(prompt, 100, 130);
    struct req_kv kv = prefill(f, prompt, 100), other = kv;
    other.transfer.b[7] ^= 1;
    engine_end_transfer(f->decode.rig.engine, &other);
    other = kv;
    other.engine.b[7] ^= 1;
    engine_end_transfer(f->decode.rig.engine, &other);
    check_tokens(f, wait_end(f, 1, decode_begin(f, prompt, 100, &kv)), prompt, 100);
    nothing_left(f);
    fill_prompt(prompt, 100, 131);
    kv = prefill(f, prompt, 100);
    assert_int_equal(stats(&f->prefill).kvx.n_leases, 1);
    const uint64_t began_ns = clock_ns();
    engine_end_transfer(f->decode.rig.engine, &kv);
    nothing_left(f);
    assert_true(clock_ns() - began_ns < 10 * NS_PER_S); /* and not by its time, which is three times that */
    assert_int_equal(stats(&f->prefill).kvx.n_expired, 0);
    other.host[0] = 0; /* nobody to tell */
    engine_end_transfer(f->decode.rig.engine, &other);
    for (uint32_t i = 0; i < 2 * 64; i++) { /* as many as there can be, to where nobody listens; the engine ends meanwhile */
        kv.port = 1;
        engine_end_transfer(f->decode.rig.engine, &kv);
    }
}

/* A router that knows better ends the wait for blocks that will not come. */
static void stopped_pulls_are_computed(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[200];
    struct req_kv kv;
    fill_prompt(prompt, 200, 140);
    atomic_store(&f->prefill.device.step_us, 300000);
    struct req q = rig_req(0, prompt, 200, 0);
    q.kv.offer = true;
    fill_random(q.kv.transfer.b, sizeof q.kv.transfer.b);
    kv = later(f, q.kv.transfer);
    submit(f, 0, q);
    uint32_t d = decode_begin(f, prompt, 200, &kv);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* most of the time it has been granted by then */
    assert_int_equal(engine_abort_pull(f->decode.rig.engine, 0, 0, id_of(d)), RC_OK);
    check_tokens(f, wait_end(f, 1, d), prompt, 200);
    assert_int_equal(f->decode.rig.streams[d].n_cached, 0);
    assert_int_equal(stats(&f->decode).kvx.fallbacks[KVX_FALL_NETWORK], 1);
    /* Of one that runs, and of one that is not there, it changes nothing. */
    assert_int_equal(engine_abort_pull(f->decode.rig.engine, 0, 0, id_of(d)), RC_OK);
    d = submit(f, 1, rig_req(0, prompt, 100, N_OUT));
    assert_int_equal(engine_abort_pull(f->decode.rig.engine, 0, 0, id_of(d)), RC_OK);
    check_tokens(f, wait_end(f, 1, d), prompt, 100);
    rig_wait_ends(&f->prefill.rig, 1);
    assert_int_equal(engine_abort(f->prefill.rig.engine, 0, 0, id_of(0), true, 0), RC_OK);
    nothing_left(f);
}

/* A prefill that gets no lease is refused at once: its reader does not wait for it to appear. */
static void no_lease_no_wait(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    fill_prompt(prompt, 100, 150);
    struct req_kv kv = prefill(f, prompt, 100);
    struct req q = rig_req(0, prompt, 100, 0);
    q.kv.offer = true;
    q.kv.transfer = kv.transfer; /* which is in use */
    wait_end(f, 0, submit(f, 0, q));
    check_tokens(f, wait_end(f, 1, decode_begin(f, prompt, 100, &kv)), prompt, 100);
    nothing_left(f);
}

static uint64_t seed = 7;
static uint32_t rnd(uint32_t n) {
    return (uint32_t)(hash_u64(++seed) % n);
}

enum { PAIRS = 6, PAIR_TOKENS = 464 };
struct pair {
    uint32_t prompt[PAIR_TOKENS], n, p, d;
    bool early, aborted;
    struct req_kv kv;
};

static void pair_prefill(struct fixture *f, struct pair *x) {
    struct req q = rig_req(0, x->prompt, x->n, x->early ? 0 : 1);
    q.kv.offer = true;
    q.kv.transfer = x->kv.transfer;
    x->p = submit(f, 0, q);
}

/* pairs_run: some prompts, each computed by the one engine and gone on with by the other, at once or one after the other;
 * aborts of either leg, or both, at random moments. Returns how many aborts there were; *n_whole: answers that were whole. */
static uint32_t pairs_run(struct fixture *f, struct pair *x, uint32_t *n_whole) {
    uint32_t n_aborts = 0;
    for (uint32_t i = 0; i < PAIRS; i++) {
        x[i] = (struct pair){.n = 64 + rnd(PAIR_TOKENS - 64), .early = rnd(2)};
        fill_prompt(x[i].prompt, x[i].n, (uint32_t)hash_u64(++seed));
        fill_random(x[i].kv.transfer.b, sizeof x[i].kv.transfer.b);
        x[i].kv = later(f, x[i].kv.transfer);
        x[i].kv.early = x[i].early;
        x[i].kv.n_tokens = x[i].n / KV_TOKENS * KV_TOKENS;
        if (!x[i].early)
            pair_prefill(f, &x[i]);
    }
    rig_wait_ends(&f->prefill.rig, f->n_ends[0]);
    for (uint32_t i = 0; i < PAIRS; i++) {
        const bool reader_first = rnd(2);
        if (x[i].early && !reader_first)
            pair_prefill(f, &x[i]);
        x[i].d = decode_begin(f, x[i].prompt, x[i].n, &x[i].kv);
        if (x[i].early && reader_first)
            pair_prefill(f, &x[i]);
    }
    for (uint32_t k = 0; k < PAIRS; k++) {
        const uint32_t i = rnd(PAIRS), victims = 1 + rnd(3);
        nanosleep(&(struct timespec){.tv_nsec = (long)rnd(800000)}, NULL);
        if (victims & 1)
            assert_int_equal(engine_abort(f->prefill.rig.engine, 0, 0, id_of(x[i].p), true, 0), RC_OK);
        if (victims & 2)
            assert_int_equal(engine_abort(f->decode.rig.engine, 0, 0, id_of(x[i].d), true, 0), RC_OK);
        x[i].aborted |= victims & 2;
        n_aborts += victims == 3 ? 2 : 1;
    }
    rig_wait_ends(&f->prefill.rig, f->n_ends[0]);
    rig_wait_ends(&f->decode.rig, f->n_ends[1]);
    for (uint32_t i = 0; i < PAIRS; i++) {
        const struct rig_stream *s = &f->decode.rig.streams[x[i].d];
        if (s->finish == FINISH_LENGTH && f->prefill.opts.n_groups == 1) {
            check_tokens(f, s, x[i].prompt, x[i].n);
            ++*n_whole;
        } else {
            assert_true(x[i].aborted ? s->finish == FINISH_ABORT || s->finish == FINISH_LENGTH : s->finish == FINISH_LENGTH);
            *n_whole += s->finish == FINISH_LENGTH;
        }
    }
    return n_aborts;
}

static int by_size(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void tell_times(const char *what, uint64_t *times, uint32_t n) {
    qsort(times, n, sizeof *times, by_size);
    print_message("%s: n=%u p50 %.1f p99 %.1f max %.1f ms\n", what, n, (double)times[n / 2] * 1e-6,
                  (double)times[n * 99 / 100] * 1e-6, (double)times[n - 1] * 1e-6);
}

/* An abort ends a request, and frees its blocks, within a step and 10 ms; also of one that waits for its blocks. */
static void cancel_times(void **state) {
    struct fixture *f = *state;
    static uint32_t prompt[100];
    enum { N = 60, STEP_US = 2000 };
    uint64_t times[N], fetching[N];
    atomic_store(&f->decode.device.step_us, STEP_US);
    for (uint32_t i = 0; i < 2 * N; i++) {
        uint64_t *at = i % 2 ? &fetching[i / 2] : &times[i / 2];
        fill_prompt(prompt, 100, 9000 + i);
        struct req q = rig_req(0, prompt, 100, 400);
        if (i % 2) { /* of a prefill that nobody has asked for */
            fill_random(q.kv.transfer.b, sizeof q.kv.transfer.b);
            q.kv = later(f, q.kv.transfer);
        }
        const uint32_t d = submit(f, 1, q);
        if (i % 2 == 0)
            rig_wait_tokens(&f->decode.rig, d, 3);
        nanosleep(&(struct timespec){.tv_nsec = (long)rnd(4000000)}, NULL);
        const uint64_t began_ns = clock_ns();
        assert_int_equal(engine_abort(f->decode.rig.engine, 0, 0, id_of(d), true, 0), RC_OK);
        assert_int_equal(wait_end(f, 1, d)->finish, FINISH_ABORT);
        until(stats(&f->decode).kv_used_blocks == 0);
        *at = clock_ns() - began_ns;
    }
    tell_times("cancel, decoding, steps of 2 ms", times, N);
    tell_times("cancel, waiting for blocks", fetching, N);
    /* The slowest tenth is the machine's, which has other work. */
    assert_true(times[N * 9 / 10] < 5 * (STEP_US * 1000ull + 10 * NS_PER_MS));
    assert_true(fetching[N * 9 / 10] < 5 * (STEP_US * 1000ull + 10 * NS_PER_MS));
}

/* Requests of both legs are aborted in prefill, transfer and decode: afterwards nobody holds a block, and where an abort came
 * too late the tokens are right. 10,000 of them, with the window's half, at TEST_SCALE 10. */
static void random_aborts(void **state) {
    struct fixture *f = *state;
    static struct pair pairs[PAIRS];
    const char *scale = getenv("TEST_SCALE");
    const uint32_t n = (uint32_t)(500 * (scale ? MAX(atof(scale), 0.1) : 1));
    uint32_t n_aborts = 0, n_whole = 0, n_pairs = 0, n_times = 0;
    uint64_t *times = xcalloc(n, sizeof *times), began_ns = clock_ns();
    atomic_store(&f->prefill.device.step_us, 200);
    atomic_store(&f->decode.device.step_us, 100);
    while (n_aborts < n) {
        if (f->next_stream + 3 * PAIRS > RIG_STREAMS) {
            rig_clear(&f->prefill.rig);
            rig_clear(&f->decode.rig);
            f->next_stream = f->n_ends[0] = f->n_ends[1] = 0;
        }
        n_aborts += pairs_run(f, pairs, &n_whole);
        n_pairs += PAIRS;
        const uint64_t ended_ns = clock_ns();
        nothing_left(f); /* of those that only the prefill side was for, too: their leases end with what was aborted, or read */
        times[n_times++] = clock_ns() - ended_ns;
    }
    print_message("%u aborts of %u pairs in %.1f s, %u answers whole\n", n_aborts, n_pairs,
                  (double)(clock_ns() - began_ns) * 1e-9, n_whole);
    tell_times("all blocks free after the last end", times, n_times);
    assert_int_equal(stats(&f->prefill).kvx.n_expired, 0);
    assert_true(n_whole > n_pairs / 5 && n_whole < n_pairs);
    free(times);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(moved_blocks_are_not_computed, setup, teardown),
        cmocka_unit_test_setup_teardown(moved_blocks_are_not_computed, setup_window, teardown),
        cmocka_unit_test_setup_teardown(cached_blocks_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(early_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(early_reader, setup_window, teardown),
        cmocka_unit_test_setup_teardown(others_run, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_pulls_are_computed, setup, teardown),
        cmocka_unit_test_setup_teardown(used_once, setup, teardown),
        cmocka_unit_test(fails_by_policy),
        cmocka_unit_test_setup_teardown(leases_expire, setup_short, teardown),
        cmocka_unit_test_setup_teardown(no_offer_without_length, setup, teardown),
        cmocka_unit_test_setup_teardown(leases_leave_room, setup_small, teardown),
        cmocka_unit_test_setup_teardown(aborted_late, setup, teardown),
        cmocka_unit_test_setup_teardown(let_go, setup, teardown),
        cmocka_unit_test_setup_teardown(stopped_pulls_are_computed, setup, teardown),
        cmocka_unit_test_setup_teardown(no_lease_no_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_times, setup, teardown),
        cmocka_unit_test_setup_teardown(random_aborts, setup, teardown),
        cmocka_unit_test_setup_teardown(random_aborts, setup_window, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
