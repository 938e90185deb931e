/* Prompts that one worker computes and another goes on with: what the router tells either, whatever goes wrong. Two workers
 * by script, which say what the test says.
 * threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/router_world.h"

enum { N_TOKENS = 4 };

/* side: a worker, and the last that it was asked for. Everything under its lock. */
struct side {
    pthread_mutex_t lock;
    struct fake_worker *worker;
    struct link_conn *conn; /* held */
    unsigned n_submits, n_whole, n_transfer; /* aborts of the last request, and of its transfer alone */
    uint64_t stream;
    uint8_t id[16], transfer[16];
    uint32_t n_tokens, max_tokens, n_samples;
    bool offers, pulls, known, early, constrained;
    char engine[33], host[46];
    uint32_t port;
};
struct pair {
    struct router_rig rig;
    struct side decode, prefill;
    char url[160]; /* the prefill side's */
    int port;
    unsigned n_heard;
};

static bool on_submit(void *arg, struct fake_worker *f, struct link_conn *c, const Weir__Submit *m) {
    struct side *s = arg;
    const Weir__KvTransfer *v = m->kv_transfer;
    (void)f;
    pthread_mutex_lock(&s->lock);
    if (s->conn)
        link_drop(s->conn);
    s->conn = link_hold(c);
    s->n_submits++;
    s->n_whole = s->n_transfer = 0;
    s->stream = m->stream;
    memcpy(s->id, m->request_id.data, sizeof s->id);
    s->n_tokens = (uint32_t)m->n_tokens;
    s->max_tokens = m->sampling->max_tokens;
    s->n_samples = m->sampling->n_samples;
    s->constrained = m->constraint != NULL;
    s->offers = v && v->do_remote_decode;
    s->pulls = v && v->do_remote_prefill;
    s->known = v && v->known;
    s->early = v && v->early;
    if (v && v->transfer_id.len == sizeof s->transfer)
        memcpy(s->transfer, v->transfer_id.data, sizeof s->transfer);
    snprintf(s->engine, sizeof s->engine, "%s", v && v->remote_engine_id ? v->remote_engine_id : "");
    snprintf(s->host, sizeof s->host, "%s", v && v->remote_host ? v->remote_host : "");
    s->port = v ? v->remote_port : 0;
    pthread_mutex_unlock(&s->lock);
    return true;
}

static void on_abort(void *arg, const Weir__Abort *m) {
    struct side *s = arg;
    pthread_mutex_lock(&s->lock);
    bool its = m->request_id.len == sizeof s->id && !memcmp(m->request_id.data, s->id, sizeof s->id);
    s->n_whole += its && m->whole;
    s->n_transfer += its && !m->whole && m->transfer;
    pthread_mutex_unlock(&s->lock);
}

#define SAW(name, member, value)                                                                                     \
    static bool name(void *arg) {                                                                                    \
        struct side *s = arg;                                                                                        \
        pthread_mutex_lock(&s->lock);                                                                                \
        bool yes = s->member == (value);                                                                             \
        pthread_mutex_unlock(&s->lock);                                                                              \
        return yes;                                                                                                  \
    }
SAW(saw_one, n_submits, 1)
SAW(saw_two, n_submits, 2)
SAW(saw_abort, n_whole, 1)
SAW(saw_stop, n_transfer, 1)

/* say: of its last request: a First, some tokens, an end. */
static void say(struct side *s, int cached, uint32_t n, Weir__Finish__Reason reason) {
    Weir__StepOutputs m = WEIR__STEP_OUTPUTS__INIT;
    Weir__First first = WEIR__FIRST__INIT, *fp = &first;
    pthread_mutex_lock(&s->lock);
    struct link_conn *c = link_hold(s->conn);
    const uint64_t stream = s->stream;
    pthread_mutex_unlock(&s->lock);
    if (cached >= 0) {
        first.has_stream = first.has_cached_tokens = true;
        first.stream = stream;
        first.cached_tokens = (uint32_t)cached;
        m.first = &fp;
        m.n_first = 1;
        (void)!link_send(c, LINK_DATA, WEIR__ENVELOPE__BODY_STEP_OUTPUTS, &m);
    }
    for (uint32_t i = 0; i < n; i++)
        fake_send(c, stream, 40 + i, 0);
    if (reason)
        fake_send(c, stream, UINT32_MAX, reason);
    link_drop(c);
}

static bool counted(void *arg) {
    struct pair *p = arg;
    return world_metric(p->port, "vllm:nixl_num_kv_expired_reqs_total") == p->n_heard;
}

/* heard: the router has taken everything that s has said so far: it comes in order, and behind it a count that is seen. */
static void heard(struct pair *p, struct side *s) {
    Weir__Load m = WEIR__LOAD__INIT;
    uint64_t none[12] = {0};
    m.kv_times = m.kv_sizes = m.kv_fallbacks = none;
    m.n_kv_times = m.n_kv_sizes = 12;
    m.n_kv_fallbacks = 6;
    m.has_kv_expired = true;
    m.kv_expired = ++p->n_heard;
    pthread_mutex_lock(&s->lock);
    (void)!link_send(s->conn, LINK_DATA, WEIR__ENVELOPE__BODY_LOAD, &m);
    pthread_mutex_unlock(&s->lock);
    assert_true(rig_until(counted, p));
}

static void refuse(struct side *s, uint32_t status) {
    Weir__Reject m = WEIR__REJECT__INIT;
    pthread_mutex_lock(&s->lock);
    m.has_request_id = m.has_status = true;
    m.request_id = (ProtobufCBinaryData){sizeof s->id, s->id};
    m.status = status;
    m.message = (char *)(uintptr_t) "no";
    (void)!link_send(s->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_REJECT, &m);
    pthread_mutex_unlock(&s->lock);
}

static struct fake_worker *worker_new(struct side *s, const char *url, const char *role) {
    pthread_mutex_init(&s->lock, NULL);
    return fake_worker_new(
        &(struct fake_opts){.url = url, .role = role, .arg = s, .on_submit = on_submit, .on_abort = on_abort});
}

static bool prefill_ready(void *arg) {
    struct pair *p = arg;
    return router_worker_ready(p->rig.router, p->url);
}

static int setup(void **state) {
    struct pair *p = xcalloc(1, sizeof *p);
    struct err e;
    router_rig_init(&p->rig);
    p->rig.opts.remote_prefill_min_tokens = 32;
    p->rig.opts.prompt_tokens_details = true;
    p->rig.opts.replay_timeout_s = 10;
    p->decode.worker = worker_new(&p->decode, p->rig.url, "decode");
    router_rig_start(&p->rig);
    p->port = router_port(p->rig.router);
    router_rig_wait_ready(&p->rig);
    snprintf(p->url, sizeof p->url, "%s-b", p->rig.url);
    p->prefill.worker = worker_new(&p->prefill, p->url, "prefill");
    assert_int_equal(router_dial(p->rig.router, p->url, &e), RC_OK);
    assert_true(rig_until(prefill_ready, p));
    *state = p;
    return 0;
}

static void side_free(struct side *s) {
    if (s->conn)
        link_drop(s->conn);
    fake_worker_free(s->worker);
    pthread_mutex_destroy(&s->lock);
}

static int teardown(void **state) {
    struct pair *p = *state;
    router_rig_fini(&p->rig);
    side_free(&p->decode);
    side_free(&p->prefill);
    free(p);
    return 0;
}

/* ask: a completion of a prompt of its own, which is long enough; both sides have been asked. more: other fields. */
static int ask(struct pair *p, const char *more) {
    static unsigned n;
    struct buf b = {0};
    buf_addf(&b, "{\"max_tokens\":%d%s,\"prompt\":\"%u ", N_TOKENS, more, n++);
    for (int i = 0; i < 80; i++)
        buf_addz(&b, "hello ");
    buf_addz(&b, "\"}");
    int fd = world_post(p->port, "/v1/completions", buf_cstr(&b));
    buf_fini(&b);
    assert_true(rig_until(saw_one, &p->decode) && rig_until(saw_one, &p->prefill));
    return fd;
}

static void expect_outcomes(struct pair *p, unsigned n_ok, unsigned n_failed) {
    assert_true(world_metric(p->port, "weir_remote_prefills_total{outcome=\"ok\"}") == n_ok);
    assert_true(world_metric(p->port, "weir_remote_prefills_total{outcome=\"failed\"}") == n_failed);
}

static void test_both_are_asked(void **state) {
    struct pair *p = *state;
    int fd = ask(p, ",\"n\":1,\"structured_outputs\":{\"regex\":\"[a-z]+\"}");
    const struct side *d = &p->decode, *q = &p->prefill; /* nothing comes any more */
    assert_true(q->offers && !q->pulls && q->max_tokens == 0 && q->n_samples == 1 && !q->constrained);
    assert_true(d->pulls && !d->offers && d->known && d->early && d->constrained && d->max_tokens == N_TOKENS);
    assert_int_equal(d->n_tokens, q->n_tokens);
    assert_memory_equal(d->transfer, q->transfer, sizeof d->transfer);
    assert_memory_not_equal(d->transfer, d->id, sizeof d->id);
    assert_memory_not_equal(d->id, q->id, sizeof d->id);
    assert_string_equal(d->engine, FAKE_KV_ENGINE);
    assert_string_equal(d->host, FAKE_KV_HOST);
    assert_int_equal(d->port, FAKE_KV_PORT);
    say(&p->prefill, 16, 0, WEIR__FINISH__REASON__LENGTH);
    heard(p, &p->prefill); /* as nearly always: the decoding side needs what this one has computed */
    say(&p->decode, (int)((d->n_tokens - 1) / 16 * 16), N_TOKENS, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, "\"cached_tokens\":16}");
    assert_true(rig_until(saw_abort, &p->prefill)); /* it is over: whatever is left there may go */
    assert_false(saw_abort(&p->decode) || saw_stop(&p->decode));
    expect_outcomes(p, 1, 0);
    /* A short one stays. */
    int small = world_post(p->port, "/v1/completions", world_small);
    assert_true(rig_until(saw_two, &p->decode));
    assert_false(p->decode.pulls);
    say(&p->decode, 0, 3, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(small, 200, NULL);
    assert_true(saw_one(&p->prefill));
}

/* The first token overtakes the word of the worker that computed the prompt: what was moved was moved. */
static void test_first_token_overtakes(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    say(&p->decode, (int)((p->decode.n_tokens - 1) / 16 * 16), 1, 0);
    assert_true(rig_until(saw_abort, &p->prefill));
    expect_outcomes(p, 1, 0);
    say(&p->prefill, 16, 0, WEIR__FINISH__REASON__LENGTH); /* nobody listens any more */
    say(&p->decode, -1, N_TOKENS - 1, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, "\"cached_tokens\":0}");
    expect_outcomes(p, 1, 0);
}

/* The decoding side computes the prompt: it is told where it cannot see that by itself. */
static void test_refused(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    refuse(&p->prefill, 503);
    assert_true(rig_until(saw_stop, &p->decode));
    say(&p->decode, 0, N_TOKENS, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, "\"cached_tokens\":0}");
    assert_true(saw_one(&p->decode));
    expect_outcomes(p, 0, 1);
}

static void test_prefill_lost(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    say(&p->prefill, 0, 0, WEIR__FINISH__REASON__LENGTH); /* even then: its blocks may be on their way */
    fake_worker_free(p->prefill.worker);
    p->prefill.worker = NULL;
    assert_true(rig_until(saw_stop, &p->decode));
    say(&p->decode, 0, N_TOKENS, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, NULL);
    expect_outcomes(p, 0, 1);
}

/* Tokens of a prefill are no words of the answer. */
static void test_prefill_talks(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    say(&p->prefill, 0, 1, 0);
    assert_true(rig_until(saw_stop, &p->decode));
    say(&p->decode, 0, N_TOKENS, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, NULL);
}

/* One that ends otherwise has ended its lease, which the decoding side sees; the answer does not. */
static void test_prefill_fails(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    say(&p->prefill, -1, 0, WEIR__FINISH__REASON__ABORT);
    heard(p, &p->prefill);
    say(&p->decode, 0, N_TOKENS, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, NULL);
    assert_false(saw_stop(&p->decode));
    expect_outcomes(p, 0, 1);
}

static void forget(struct side *s) {
    pthread_mutex_lock(&s->lock);
    s->n_submits = 0;
    pthread_mutex_unlock(&s->lock);
}

static void test_clients_leave(void **state) {
    struct pair *p = *state;
    close(ask(p, "")); /* while it is computed */
    assert_true(rig_until(saw_abort, &p->decode) && rig_until(saw_abort, &p->prefill));
    forget(&p->decode);
    forget(&p->prefill);
    int fd = ask(p, ",\"stream\":true"); /* once it is, and nobody has fetched it */
    say(&p->prefill, 0, 0, WEIR__FINISH__REASON__LENGTH);
    heard(p, &p->prefill);
    close(fd);
    assert_true(rig_until(saw_abort, &p->decode) && rig_until(saw_abort, &p->prefill));
    assert_true(rig_until(world_idle, &p->rig));
    expect_outcomes(p, 0, 0);
}

/* A decoding side that refuses the request, for good: the client is told, and the other side. */
static void test_decode_refuses(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    say(&p->prefill, 0, 0, WEIR__FINISH__REASON__LENGTH);
    heard(p, &p->prefill);
    refuse(&p->decode, 400);
    world_expect_fd(fd, 400, "no");
    assert_true(rig_until(saw_abort, &p->prefill));
}

/* The decoding side is lost, and nobody else is left but the one that only prefills: it goes on, with what was said. */
static void test_decode_lost(void **state) {
    struct pair *p = *state;
    int fd = ask(p, "");
    say(&p->prefill, 0, 0, WEIR__FINISH__REASON__LENGTH);
    heard(p, &p->prefill);
    say(&p->decode, 64, 1, 0);
    assert_true(rig_until(saw_abort, &p->prefill));
    fake_worker_free(p->decode.worker);
    p->decode.worker = NULL;
    assert_true(rig_until(saw_two, &p->prefill));
    assert_true(!p->prefill.offers && !p->prefill.pulls && p->prefill.max_tokens == N_TOKENS);
    say(&p->prefill, 64, N_TOKENS - 1, WEIR__FINISH__REASON__LENGTH);
    world_expect_fd(fd, 200, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_are_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_token_overtakes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefill_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefill_talks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefill_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clients_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decode_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decode_lost, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
