/* worker/io against a router that may be hostile. threads: tsan */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/link/link.h"
#include "common/log.h"
#include "router/fleet/kvfeed.h"
#include "worker/io.h"
#include "worker/mock.h"

enum { VOCAB = 100, CONTEXT = 256, WAIT_MS = 5000, TOP_MAX = 2000000 };

/* peer: the router's end. Everything under its lock. */
struct peer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct link *link;
    struct link_conn *conn;
    unsigned n_ready, n_credit, n_down, n_first, n_tokens, n_finish, n_load, n_missing, n_aborts;
    Weir__Finish__Reason reason;
    uint32_t reject_status;
    char reject_param[64];
    unsigned n_reject;
    size_t asset_bytes;
    uint32_t credit_seqs, credit_tokens; /* the last grant */
    uint32_t tokens[CONTEXT];
    struct prefix_index *index;
    struct kv_feed feed;
    unsigned n_kv, n_kv_bad, n_cached;
};

struct rig {
    char dir[64], url[128];
    struct io *io;
    struct mock *mock;
    struct peer peer;
    struct conf_list listen, names;
    char *listen_v[1], *name_v[1];
};

static void on_up(void *arg, struct link_conn *c, const struct link_peer *p) {
    struct peer *w = arg;
    (void)p;
    pthread_mutex_lock(&w->lock);
    w->conn = link_hold(c);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct peer *w = arg;
    (void)c;
    pthread_mutex_lock(&w->lock);
    if (m->body_case == WEIR__ENVELOPE__BODY_WORKER_INFO)
        w->n_ready += m->worker_info->state == WEIR__WORKER_STATE__READY;
    if (m->body_case == WEIR__ENVELOPE__BODY_CREDIT) {
        w->n_credit += m->credit->sequences > 0;
        w->credit_seqs = m->credit->sequences;
        w->credit_tokens = m->credit->prefill_tokens;
    }
    if (m->body_case == WEIR__ENVELOPE__BODY_LOAD)
        w->n_load++;
    if (m->body_case == WEIR__ENVELOPE__BODY_ASSET_CHUNK) {
        w->n_missing += m->asset_chunk->missing;
        w->asset_bytes += m->asset_chunk->data.len;
    }
    if (m->body_case == WEIR__ENVELOPE__BODY_REJECT) {
        w->n_reject++;
        w->reject_status = m->reject->status;
        snprintf(w->reject_param, sizeof w->reject_param, "%s", m->reject->param ? m->reject->param : "");
    }
    if (m->body_case == WEIR__ENVELOPE__BODY_STEP_OUTPUTS) {
        const Weir__StepOutputs *s = m->step_outputs;
        for (size_t i = 0; i < s->n_token && w->n_tokens < CONTEXT; i++)
            w->tokens[w->n_tokens++] = s->token[i];
        w->n_first += (unsigned)s->n_first;
        for (size_t i = 0; i < s->n_first; i++)
            w->n_cached += s->first[i]->cached_tokens;
        w->n_finish += (unsigned)s->n_finish;
        for (size_t i = 0; i < s->n_finish; i++)
            w->n_aborts += s->finish[i]->reason == WEIR__FINISH__REASON__ABORT;
        if (s->n_finish)
            w->reason = s->finish[0]->reason;
    }
    if (m->body_case == WEIR__ENVELOPE__BODY_KV_EVENTS && w->index) {
        w->n_kv++;
        w->n_kv_bad += kv_feed_take(&w->feed, w->index, m->kv_events) != KV_FEED_OK;
    }
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct peer *w = arg;
    (void)reason;
    pthread_mutex_lock(&w->lock);
    w->n_down++;
    w->conn = NULL;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    link_drop(c);
}

/* until: waits for a condition over the peer, whose lock is held on return. */
#define until(w, cond)                                                                                       \
    do {                                                                                                     \
        struct timespec end_;                                                                                \
        clock_gettime(CLOCK_REALTIME, &end_);                                                                \
        end_.tv_sec += WAIT_MS / 1000;                                                                       \
        pthread_mutex_lock(&(w)->lock);                                                                      \
        while (!(cond))                                                                                      \
            if (pthread_cond_timedwait(&(w)->changed, &(w)->lock, &end_))                                    \
                break;                                                                                       \
        bool ok_ = (cond);                                                                                   \
        pthread_mutex_unlock(&(w)->lock);                                                                    \
        if (!ok_)                                                                                            \
            fail_msg("waited in vain for " #cond);                                                           \
    } while (0)

static void on_drain(void *arg) {
    (void)arg;
}

/* What an engine that moves KV blocks hears, in place of one. */
static struct {
    _Atomic unsigned n_stopped, n_ended, n_pulls, n_submits;
    char host[46];
    enum rc (*submit)(void *arg, struct req *r, struct err *e);
} kv;
static struct kvx_opts kv_opts = {.host = "127.0.0.1", .produces = true, .consumes = true};

static enum rc kv_submit(void *arg, struct req *r, struct err *e) {
    atomic_fetch_add(&kv.n_pulls, r->kv.pull);
    atomic_fetch_add(&kv.n_submits, 1);
    return kv.submit(arg, r, e);
}
static enum rc kv_stop(void *arg, uint32_t router, uint32_t router_epoch, struct id128 id) {
    (void)arg, (void)router, (void)router_epoch, (void)id;
    atomic_fetch_add(&kv.n_stopped, 1);
    return RC_OK;
}
static void kv_end(void *arg, const struct req_kv *v) {
    (void)arg;
    memcpy(kv.host, v->host, sizeof kv.host);
    atomic_fetch_add(&kv.n_ended, 1);
}

static int setup_with(void **state, uint32_t cache_blocks, bool moves) {
    struct rig *r = xcalloc(1, sizeof *r);
    struct err e = {0};
    log_set_level(LOG_ERROR);
    strcpy(r->dir, "/tmp/weir-test-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->url, sizeof r->url, "ipc://%s/w", r->dir);
    r->listen_v[0] = r->url;
    r->listen = (struct conf_list){r->listen_v, 1};
    assert_int_equal(io_new(&r->io, &r->listen, (struct str){0}, NULL, "model", on_drain, r, &e), RC_OK);
    uint32_t eos = 2;
    r->mock = mock_new(&(struct mock_opts){.step_ns = 1000000,
                                           .n_vocab = VOCAB,
                                           .n_seqs_max = 8,
                                           .n_blocks = 64,
                                           .eos_ids = &eos,
                                           .n_eos_ids = 1,
                                           .cache_blocks = cache_blocks,
                                           .arg = r->io,
                                           .on_step = io_on_step,
                                           .on_control = io_on_control,
                                           .on_drained = on_drain});
    struct io_engine engine = mock_engine(r->mock);
    if (moves) {
        kv.submit = engine.submit;
        engine.submit = kv_submit;
        engine.abort_pull = kv_stop;
        engine.end_transfer = kv_end;
    }
    struct io_facts facts = {.model = "model",
                             .served_names = &r->names,
                             .max_model_len = CONTEXT,
                             .vocab_size = VOCAB,
                             .n_blocks = 64,
                             .max_seqs = 8,
                             .max_batched_tokens = 64,
                             .max_logprobs = TOP_MAX,
                             .device = "mock",
                             .dtype = "none",
                             .kv_dtype = "none",
                             .kvx = moves ? &kv_opts : NULL};
    size_t big = 300000;
    char *data = xmalloc(big);
    memset(data, 'x', big);
    struct io_asset asset = {"tokenizer.json", data, big};
    io_ready(r->io, &engine, &facts, &asset, 1);

    struct peer *w = &r->peer;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->link = link_new(&(struct link_opts){
        .role = WEIR__ROLE__ROUTER, .arg = w, .on_up = on_up, .on_message = on_message, .on_down = on_down});
    assert_int_equal(link_dial(w->link, r->url, &e), RC_OK);
    until(w, w->conn && w->n_ready && w->n_credit);
    *state = r;
    return 0;
}

static int setup(void **state) {
    return setup_with(state, 0, false);
}
static int setup_cache(void **state) {
    return setup_with(state, 16, false);
}
static int setup_moves(void **state) {
    return setup_with(state, 0, true);
}

static int teardown(void **state) {
    struct rig *r = *state;
    link_free(r->peer.link);
    mock_stop(r->mock);
    io_free(r->io);
    mock_free(r->mock);
    unlink(r->url + 6);
    rmdir(r->dir);
    pthread_cond_destroy(&r->peer.changed);
    pthread_mutex_destroy(&r->peer.lock);
    free(r);
    return 0;
}

/* A Submit that is right, to be spoiled by the tests. */
struct good {
    Weir__Submit m;
    Weir__Sampling s;
    uint8_t id[16], domain[16];
    uint32_t tokens[4], ids[2];
    float values[2];
};

static void good_init(struct good *g) {
    static uint8_t next;
    weir__submit__init(&g->m);
    weir__sampling__init(&g->s);
    memset(g->id, ++next, sizeof g->id);
    memset(g->domain, 7, sizeof g->domain);
    for (uint32_t i = 0; i < 4; i++)
        g->tokens[i] = i + 10;
    g->ids[0] = 3, g->ids[1] = 5;
    g->values[0] = g->values[1] = 1;
    g->m.has_request_id = g->m.has_stream = g->m.has_domain = true;
    g->m.request_id = (ProtobufCBinaryData){16, g->id};
    g->m.domain = (ProtobufCBinaryData){16, g->domain};
    g->m.stream = 0x100;
    g->m.tokens = g->tokens;
    g->m.n_tokens = 4;
    g->m.sampling = &g->s;
    g->s.has_max_tokens = g->s.has_seed = true;
    g->s.max_tokens = 5;
    g->s.seed = 9;
}

static void send_good(struct rig *r, struct good *g) {
    assert_int_equal(link_send(r->peer.conn, LINK_DATA, WEIR__ENVELOPE__BODY_SUBMIT, &g->m), RC_OK);
}

static void test_tokens_come_back(void **state) {
    struct rig *r = *state;
    struct good g;
    struct mock_opts o = {.n_vocab = VOCAB, .eos_ids = &(uint32_t){2}, .n_eos_ids = 1};
    good_init(&g);
    send_good(r, &g);
    until(&r->peer, r->peer.n_finish == 1);
    assert_int_equal(r->peer.n_first, 1);
    assert_int_equal(r->peer.n_tokens, 5);
    assert_int_equal(r->peer.reason, WEIR__FINISH__REASON__LENGTH);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(r->peer.tokens[i], mock_token(&o, 9, i));
}

static void test_samples_and_abort(void **state) {
    struct rig *r = *state;
    struct good g;
    good_init(&g);
    g.s.has_n_samples = true;
    g.s.n_samples = 3;
    g.s.max_tokens = 200;
    send_good(r, &g);
    until(&r->peer, r->peer.n_first == 3);
    Weir__Abort a = WEIR__ABORT__INIT;
    a.has_request_id = a.has_whole = a.whole = true;
    a.request_id = g.m.request_id;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &a), RC_OK);
    until(&r->peer, r->peer.n_finish == 3);
    assert_int_equal(r->peer.reason, WEIR__FINISH__REASON__ABORT);
    /* the same id again: its abort may have overtaken it, so it never runs */
    send_good(r, &g);
    unsigned before = r->peer.n_load;
    until(&r->peer, r->peer.n_load > before + 1);
    assert_int_equal(r->peer.n_first, 3);
}

/* The abort of one sample that overtook its request: the others run, that one ends at once. */
static void test_abort_overtakes(void **state) {
    struct rig *r = *state;
    struct good g;
    good_init(&g);
    g.s.has_n_samples = true;
    g.s.n_samples = 3;
    g.s.max_tokens = 40;
    Weir__Abort a = WEIR__ABORT__INIT;
    a.has_request_id = a.has_stream = true;
    a.request_id = g.m.request_id;
    for (uint64_t stream = 0x101; stream <= 0x103; stream += 2) { /* sample 1, and one that is not there */
        a.stream = stream;
        assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &a), RC_OK);
    }
    send_good(r, &g);
    until(&r->peer, r->peer.n_finish == 3);
    assert_int_equal(r->peer.n_aborts, 1);
    assert_in_range(r->peer.n_tokens, 80, 110);
}

/* loads: so many more reports have come: what was sent before is worked off. */
static void loads(struct rig *r) {
    pthread_mutex_lock(&r->peer.lock);
    unsigned before = r->peer.n_load;
    pthread_mutex_unlock(&r->peer.lock);
    until(&r->peer, r->peer.n_load > before + 1);
}

static void good_pull(struct good *g, Weir__KvTransfer *m) {
    static uint8_t id[16] = {1, 2, 3};
    good_init(g);
    weir__kv_transfer__init(m);
    m->has_do_remote_prefill = m->do_remote_prefill = m->has_transfer_id = m->has_remote_port = true;
    m->transfer_id = (ProtobufCBinaryData){sizeof id, id};
    m->remote_engine_id = (char *)(uintptr_t) "00112233445566778899aabbccddeeff";
    m->remote_host = (char *)(uintptr_t) "127.0.0.1";
    m->remote_port = 9;
    m->has_known = m->known = true;
    g->m.kv_transfer = m;
}

/* The end of a transfer alone, before its request and after it; a request that was aborted before it came; and one that was
 * refused elsewhere, whose blocks nobody will fetch. */
static void test_transfers_end(void **state) {
    struct rig *r = *state;
    struct good g;
    Weir__KvTransfer m;
    Weir__Abort a = WEIR__ABORT__INIT;
    a.has_request_id = a.has_transfer = a.transfer = true;
    good_pull(&g, &m);
    send_good(r, &g);
    until(&r->peer, r->peer.n_finish == 1);
    assert_true(kv.n_submits == 1 && kv.n_pulls == 1);
    a.request_id = g.m.request_id;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &a), RC_OK);
    good_pull(&g, &m);
    a.request_id = g.m.request_id;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &a), RC_OK);
    send_good(r, &g);
    until(&r->peer, r->peer.n_finish == 2);
    assert_true(kv.n_stopped == 2 && kv.n_submits == 2 && kv.n_pulls == 1 && kv.n_ended == 0);
    assert_int_equal(r->peer.n_aborts, 0);
    good_pull(&g, &m); /* the whole request, before it came */
    a = (Weir__Abort)WEIR__ABORT__INIT;
    a.has_request_id = a.has_whole = a.whole = true;
    a.request_id = g.m.request_id;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &a), RC_OK);
    send_good(r, &g);
    loads(r);
    assert_true(kv.n_submits == 2 && kv.n_ended == 1 && !strcmp(kv.host, "127.0.0.1"));
    Weir__Control c = WEIR__CONTROL__INIT;
    c.has_kind = true;
    c.kind = WEIR__CONTROL__KIND__END_TRANSFER;
    c.kv_transfer = &m;
    m.remote_host = (char *)(uintptr_t) "10.0.0.9";
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &c), RC_OK);
    loads(r);
    assert_true(kv.n_ended == 2 && !strcmp(kv.host, "10.0.0.9"));
    /* Hosts that are not to be dialled, and what names no transfer. */
    m.known = false;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &c), RC_OK);
    m.known = true;
    m.remote_host = (char *)(uintptr_t) "example.org";
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &c), RC_OK);
    m.remote_host = (char *)(uintptr_t) "127.0.0.1";
    m.transfer_id.len = 15;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &c), RC_OK);
    c.kv_transfer = NULL;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &c), RC_OK);
    loads(r);
    assert_int_equal(kv.n_ended, 2);
    assert_int_equal(r->peer.n_down, 0);
}

static void test_assets(void **state) {
    struct rig *r = *state;
    Weir__AssetGet m = WEIR__ASSET_GET__INIT;
    char have[] = "tokenizer.json", lack[] = "../etc/passwd";
    m.name = have;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ASSET_GET, &m), RC_OK);
    until(&r->peer, r->peer.asset_bytes == 300000);
    m.name = lack;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ASSET_GET, &m), RC_OK);
    until(&r->peer, r->peer.n_missing == 1);
}

/* Each spoils one field; the answer names it. */
static Weir__Constraint a_constraint;
static Weir__BadWord a_word, *word_list[] = {&a_word};
static Weir__Processor a_processor, *processor_list[] = {&a_processor};
static Weir__Pooling a_pooling;
static uint8_t a_tag[33];

static void spoil(struct good *g, int kind) {
    switch (kind) {
    case 0:
        g->m.n_tokens = 0;
        break;
    case 1:
        g->tokens[2] = VOCAB;
        break;
    case 2:
        g->s.max_tokens = CONTEXT;
        break;
    case 3:
        g->s.has_temperature = true;
        g->s.temperature = NAN;
        break;
    case 4:
        g->s.has_top_p = true;
        g->s.top_p = 0;
        break;
    case 5:
        g->s.has_min_p = true;
        g->s.min_p = 2;
        break;
    case 6:
        g->s.has_repetition_penalty = true;
        g->s.repetition_penalty = 0;
        break;
    case 7:
        g->s.n_bias_ids = 2;
        g->s.bias_ids = g->ids;
        g->s.n_bias_values = 1;
        g->s.bias_values = g->values;
        break;
    case 8:
        g->ids[1] = VOCAB;
        g->s.n_bias_ids = g->s.n_bias_values = 2;
        g->s.bias_ids = g->ids;
        g->s.bias_values = g->values;
        break;
    case 9:
        g->s.has_n_samples = true;
        g->s.n_samples = 100000;
        break;
    case 10:
        g->s.has_n_logprobs = true;
        g->s.n_logprobs = TOP_MAX + 1;
        break;
    case 11:
        g->s.n_allowed_ids = 2;
        g->ids[0] = VOCAB;
        g->s.allowed_ids = g->ids;
        break;
    case 12:
        g->m.has_domain = true;
        g->m.domain.len = 3;
        break;
    case 13:
        g->m.sampling = NULL;
        break;
    case 14:
        g->m.has_task = true;
        g->m.task = WEIR__TASK__EMBED;
        break;
    case 15:
        g->m.constraint = &a_constraint;
        break;
    case 16:
        g->m.pooling = &a_pooling;
        break;
    case 17:
        g->s.has_min_tokens = true;
        g->s.min_tokens = 6;
        break;
    case 18:
        g->s.has_n_prompt_logprobs = true;
        g->s.n_prompt_logprobs = TOP_MAX + 1;
        break;
    case 19:
        g->s.has_n_prompt_logprobs = true;
        g->s.n_prompt_logprobs = TOP_MAX;
        break; /* more than a message */
    case 20:
        g->s.bad_words = word_list;
        g->s.n_bad_words = 1;
        break; /* no tokens */
    case 21:
        a_word.tokens = g->ids;
        a_word.n_tokens = 1;
        g->ids[0] = VOCAB;
        g->s.bad_words = word_list;
        g->s.n_bad_words = 1;
        break;
    case 22:
        g->s.has_beam_width = true;
        g->s.beam_width = 3;
        break; /* of one sample */
    case 23:
        g->s.has_length_penalty = true;
        g->s.length_penalty = INFINITY;
        break;
    case 24:
        g->s.processors = processor_list;
        g->s.n_processors = 1;
        break; /* no plugin was loaded */
    case 25:
        g->m.has_fair_tag = true;
        g->m.fair_tag = (ProtobufCBinaryData){33, a_tag};
        break;
    default:
        fail();
    }
}
static const struct {
    const char *param;
    uint32_t status;
} spoiled[] = {
    {"tokens", 400},
    {"tokens", 400},
    {"max_tokens", 400},
    {"temperature", 400},
    {"top_p", 400},
    {"min_p", 400},
    {"repetition_penalty", 400},
    {"bias_ids", 400},
    {"bias_ids", 400},
    {"n_samples", 400},
    {"n_logprobs", 400},
    {"allowed_ids", 400},
    {"domain", 400},
    {"sampling", 400},
    {"task", 400},
    {"constraint", 501},
    {"task", 400}, /* pooling of a model that generates */
    {"max_tokens", 400},
    {"prompt_logprobs", 400},
    {"prompt_logprobs", 400},
    {"bad_words", 400},
    {"bad_words", 400},
    {"beam_width", 400},
    {"length_penalty", 400},
    {"logits_processors", 400},
    {"fair_tag", 400},
};

static void test_bad_submits_are_rejected(void **state) {
    struct rig *r = *state;
    weir__constraint__init(&a_constraint);
    weir__pooling__init(&a_pooling);
    weir__bad_word__init(&a_word);
    weir__processor__init(&a_processor);
    char name[] = "weir.none";
    a_processor.name = name;
    for (unsigned i = 0; i < ARRAY_LEN(spoiled); i++) {
        struct good g;
        good_init(&g);
        spoil(&g, (int)i);
        send_good(r, &g);
        until(&r->peer, r->peer.n_reject == i + 1);
        assert_int_equal(r->peer.reject_status, spoiled[i].status);
        assert_string_equal(r->peer.reject_param, spoiled[i].param);
    }
    struct good g;
    good_init(&g);
    send_good(r, &g);
    until(&r->peer, r->peer.n_finish == 1);
    assert_int_equal(r->peer.n_down, 0);
}

static void test_submit_without_id_cuts(void **state) {
    struct rig *r = *state;
    struct good g;
    good_init(&g);
    g.m.request_id.len = 5;
    send_good(r, &g);
    until(&r->peer, r->peer.n_down == 1);
    until(&r->peer, r->peer.conn != NULL); /* it dials again */
}

/* n_blocks: what the router knows by now. Under the lock. */
static uint32_t n_blocks(struct peer *w) {
    while (index_sweep(w->index, 1000))
        ;
    return index_stats(w->index).n_entries;
}

static void ask_snapshot(struct rig *r) {
    Weir__KvSnapshotGet m = WEIR__KV_SNAPSHOT_GET__INIT;
    assert_int_equal(link_send(r->peer.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_KV_SNAPSHOT_GET, &m), RC_OK);
}

/* The prefix cache as a router gets to know it: nothing unasked, a snapshot, changes, a reset. */
static void test_kv_events(void **state) {
    struct rig *r = *state;
    struct peer *w = &r->peer;
    uint32_t prompt[16 * 7];
    struct good g;
    pthread_mutex_lock(&w->lock);
    w->index = index_new(INDEX_BYTES_MIN, 1);
    kv_feed_init(&w->feed);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < 4; i++) {
        good_init(&g);
        g.id[3] = (uint8_t)(i + 1);
        for (uint32_t k = 0; k < ARRAY_LEN(prompt); k++)
            prompt[k] = (k < 48 ? k : k * (i + 1)) % VOCAB; /* three blocks in common */
        g.m.tokens = prompt;
        g.m.n_tokens = ARRAY_LEN(prompt);
        g.s.max_tokens = 3;
        send_good(r, &g);
        until(w, w->n_finish == i + 1);
        if (i == 0) {
            assert_int_equal(w->n_kv, 0);
            ask_snapshot(r);
            until(w, n_blocks(w) == 7);
        }
    }
    assert_int_equal(w->n_cached, 3 * 48);
    until(w, n_blocks(w) == 16); /* 3 + 4 * 4 stored, 3 of them evicted */
    ask_snapshot(r); /* again: what was known is replaced */
    unsigned before = w->n_kv;
    until(w, w->n_kv > before && n_blocks(w) == 16);
    Weir__Control c = WEIR__CONTROL__INIT;
    c.has_id = c.has_kind = true;
    c.kind = WEIR__CONTROL__KIND__RESET_PREFIX_CACHE;
    assert_int_equal(link_send(w->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &c), RC_OK);
    until(w, n_blocks(w) == 0);
    assert_int_equal(w->n_kv_bad, 0);
    assert_int_not_equal(w->feed.slot, INDEX_NO_SLOT);
    pthread_mutex_lock(&w->lock);
    struct prefix_index *x = w->index;
    w->index = NULL;
    pthread_mutex_unlock(&w->lock);
    index_free(x);
}

/* A second router: each has a batch, and half of the line, until it leaves. */
static void test_credits(void **state) {
    struct rig *r = *state;
    struct peer *w = &r->peer, second = {.n_ready = 0};
    struct err e;
    const uint32_t all = 64 * HASH_BLOCK_TOKENS; /* tokens in its blocks */
    until(w, w->credit_seqs == 8 + 8 + 128 && w->credit_tokens == 2 * all);
    pthread_mutex_init(&second.lock, NULL);
    pthread_cond_init(&second.changed, NULL);
    second.link = link_new(&(struct link_opts){
        .role = WEIR__ROLE__ROUTER, .arg = &second, .on_up = on_up, .on_message = on_message, .on_down = on_down});
    assert_int_equal(link_dial(second.link, r->url, &e), RC_OK);
    until(&second, second.credit_seqs == 8 + 128 && second.credit_tokens == all + all / 2);
    until(w, w->credit_seqs == 8 + 128 && w->credit_tokens == all + all / 2);
    link_free(second.link);
    until(w, w->credit_seqs == 8 + 8 + 128 && w->credit_tokens == 2 * all);
    pthread_cond_destroy(&second.changed);
    pthread_mutex_destroy(&second.lock);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_samples_and_abort, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort_overtakes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transfers_end, setup_moves, teardown),
        cmocka_unit_test_setup_teardown(test_assets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_submits_are_rejected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_submit_without_id_cuts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kv_events, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_credits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
