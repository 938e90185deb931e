/* KV transfers without engines: frames, peers and flags; a server and a client over loopback with blocks of chosen layouts,
 * also between different numbers of ranks; and ends that break the protocol.
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
#include "worker/kvx/client.h"
#include "worker/kvx/config.h"
#include "worker/kvx/server.h"

enum { N_BLOCKS = 37, LEASE = 5 };

static const struct kvx_layout one_rank = {
    .n_groups = 2,
    .n_ranks = 1,
    .group = {{.kind = CACHE_FULL, .dtype = DT_BF16, .n_layers = 3, .n_heads = 4, .head_dim = 8, .head_dim_v = 8},
              {.kind = CACHE_WINDOW, .dtype = DT_F32, .n_layers = 2, .n_heads = 4, .head_dim = 4, .head_dim_v = 6, .window = 40}}};

static struct kvx_layout ranks(uint32_t n) {
    struct kvx_layout l = one_rank;
    l.n_ranks = n;
    return l;
}

/* ---- frames ------------------------------------------------------------------------------------- */

static void frames_come_back(void **state) {
    struct buf b = {0};
    struct kvx_head head;
    struct err e;
    struct kvx_open o = {.n_blocks = 3, .n_ids = 3, .early = true}, o2;
    struct kvx_grant g = {.layout = ranks(2), .lease_ms = 1234}, g2;
    struct kvx_data d = {.group = 1, .rank = 1, .from = 7, .n = 2, .heads = {2, 2}, .dtype = DT_F16, .n_bytes = 64}, d2;
    const uint8_t ids[12] = {1, 0, 0, 0, 2, 1, 0, 0, 255, 255, 255, 255};
    (void)state;
    fill_random(o.transfer.b, sizeof o.transfer.b);
    fill_random(o.revision, sizeof o.revision);
    o.ids = ids;
    kvx_put_open(&b, &o);
    assert_int_equal(kvx_get_head((const uint8_t *)b.data, &head, &e), RC_OK);
    assert_true(head.type == KVX_OPEN && head.n_bytes == b.len - KVX_HEAD_BYTES);
    const uint8_t *body = (const uint8_t *)b.data + KVX_HEAD_BYTES;
    assert_int_equal(kvx_get_open(body, head.n_bytes, &o2, &e), RC_OK);
    assert_true(id128_eq(o.transfer, o2.transfer) && o2.early && kvx_open_id(&o2, 1) == 258);
    for (size_t n = 0; n < head.n_bytes; n++) /* cut anywhere */
        assert_int_equal(kvx_get_open(body, n, &o2, &e), RC_PROTO);
    b.len = 0;
    kvx_put_grant(&b, &g);
    body = (const uint8_t *)b.data + KVX_HEAD_BYTES;
    assert_int_equal(kvx_get_grant(body, b.len - KVX_HEAD_BYTES, &g2, &e), RC_OK);
    assert_true(kvx_layout_same(&g.layout, &g2.layout) && g2.layout.n_ranks == 2 && g2.lease_ms == 1234);
    b.len = 0;
    kvx_put_data(&b, &d);
    body = (const uint8_t *)b.data + KVX_HEAD_BYTES;
    assert_int_equal(b.len, KVX_HEAD_BYTES + KVX_DATA_HEAD_BYTES);
    assert_int_equal(kvx_get_data(body, KVX_DATA_HEAD_BYTES + 64, &d2, &e), RC_OK);
    assert_memory_equal(&d, &d2, sizeof d);
    assert_int_equal(kvx_get_data(body, KVX_DATA_HEAD_BYTES + 63, &d2, &e), RC_PROTO);
    buf_fini(&b);
}

static void heads_have_limits(void **state) {
    static const uint8_t bad[][8] = {{0}, {0, 0, 0, 0, 99}, {1, 0, 0, 0, KVX_DONE}, {255, 255, 255, 255, KVX_DATA},
                                     {17, 0, 0, 0, KVX_READ}};
    struct kvx_head head;
    struct err e;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(kvx_get_head(bad[i], &head, &e), RC_PROTO);
}

static void slices(void **state) {
    const struct kvx_group *g = &one_rank.group[1];
    size_t bytes = 3 * kvx_block_bytes(g, 4);
    uint8_t *all = xmalloc(bytes), *back = xcalloc(1, bytes), *part = xmalloc(bytes);
    (void)state;
    fill_random(all, bytes);
    for (uint32_t r = 0; r < 2; r++) { /* out of one, and into another */
        kvx_slice(g, kvx_heads_of(4, r, 2), 3, all, part, false);
        kvx_slice(g, kvx_heads_of(4, r, 2), 3, back, part, true);
    }
    assert_memory_equal(all, back, bytes);
    /* of layer 1, V, head 3 of block 2 the last value is the last of all */
    kvx_slice(g, kvx_heads_of(4, 3, 4), 3, all, part, false);
    assert_memory_equal(part + bytes / 4 - 4, all + bytes - 4, 4);
    assert_true(kvx_heads_of(2, 3, 4).first == 1 && kvx_heads_of(2, 3, 4).n == 1); /* more ranks than heads */
    free(all);
    free(back);
    free(part);
}

/* ---- peers and flags ---------------------------------------------------------------------------- */

static void peers(void **state) {
    char *v[] = {"10.0.0.0/8", "192.168.1.7", "fd00::/9"}, *bad[] = {"10.0.0.0/33", "x", "1.2.3.4/", "1.2.3.4/1x", "::1/129", ""};
    struct conf_list list = {v, 3};
    struct kvx_peers p;
    struct err e;
    (void)state;
    assert_int_equal(kvx_peers_parse(&list, &p, &e), RC_OK);
    assert_true(kvx_peers_allow(&p, "10.255.0.1") && kvx_peers_allow(&p, "192.168.1.7") && kvx_peers_allow(&p, "fd7f::1"));
    assert_false(kvx_peers_allow(&p, "11.0.0.1") || kvx_peers_allow(&p, "192.168.1.8") || kvx_peers_allow(&p, "fd80::1") ||
                 kvx_peers_allow(&p, "localhost") || kvx_peers_allow(&p, ""));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        list = (struct conf_list){&bad[i], 1};
        assert_int_equal(kvx_peers_parse(&list, &p, &e), RC_INVALID);
        assert_string_equal(e.param, "kv-peer-allow");
    }
}

static void hosts(void **state) {
    static const struct {
        const char *url, *host;
    } cases[] = {{"tcp://10.1.2.3:7000", "10.1.2.3"}, {"tls+tcp://10.1.2.3:7000", "10.1.2.3"}, {"tcp://[fd00::1]:7", "fd00::1"},
                 {"ipc:///run/w.sock", "127.0.0.1"},  {"tcp://0.0.0.0:7", "127.0.0.1"},        {"tcp://[::]:7", "127.0.0.1"},
                 {"tcp://host:7", "127.0.0.1"},       {"tcp://:7", "127.0.0.1"},               {"tcp://[fd00::1", "fd00::1"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char host[KVX_HOST_BYTES] = "127.0.0.1";
        kvx_host_of(cases[i].url, host);
        assert_string_equal(host, cases[i].host);
    }
}

static void flags(void **state) {
    struct worker_flags f;
    struct kvx_opts o;
    struct err e;
    bool on;
    static const char *const bad[] = {"[]", "{", "{\"kv_role\":\"x\"}", "{\"kv_ip\":\"host\"}", "{\"kv_ip\":\"0.0.0.0\"}",
                                      "{\"kv_port\":70000}", "{\"engine_id\":\"12\"}", "{\"kv_conector\":\"x\"}",
                                      "{\"kv_load_failure_policy\":\"no\"}"};
    (void)state;
    worker_flags_init(&f);
    assert_int_equal(kvx_config(&f, &o, &on, &e), RC_OK);
    assert_false(on);
    f.kv_transfer_config = "{\"kv_connector\":\"Any\",\"kv_role\":\"kv_producer\",\"kv_ip\":\"127.0.0.2\",\"kv_port\":5}";
    assert_int_equal(kvx_config(&f, &o, &on, &e), RC_OK);
    assert_true(on && o.produces && !o.consumes && o.port == 5 && !strcmp(o.host, "127.0.0.2") && !o.must_load);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        f.kv_transfer_config = (char *)(uintptr_t)bad[i];
        assert_int_equal(kvx_config(&f, &o, &on, &e), RC_INVALID);
        assert_string_equal(e.param, "kv-transfer-config");
    }
    f.kv_transfer_config = NULL;
    const struct conf_table t = {.flags = worker_flag_rows, .n_flags = n_worker_flag_rows};
    conf_free(&t, &f, NULL);
}

/* ---- a server and a client ---------------------------------------------------------------------- */

/* byte_of: what a place of a block holds, so that each can be checked by itself. */
static uint8_t byte_of(uint32_t group, uint32_t block, size_t at) {
    return (uint8_t)hash_u64((uint64_t)group << 48 | (uint64_t)block << 32 | at);
}

struct source {
    pthread_mutex_t mu;
    struct kvx_layout layout;
    uint32_t n_ready; /* blocks that are there; grows by one with every read that finds none */
    uint32_t n_opened, n_done, n_lost, n_renewed, n_forgotten;
    struct id128 forgotten;
    int gone_after; /* reads; -1: never */
};

static enum kvx_refusal src_open(void *arg, const struct kvx_open *o, uint64_t *lease) {
    struct source *s = arg;
    pthread_mutex_lock(&s->mu);
    s->n_opened++;
    pthread_mutex_unlock(&s->mu);
    *lease = LEASE;
    return o->n_blocks == N_BLOCKS ? KVX_GRANTED : KVX_MISMATCH;
}

static int src_read(void *arg, uint64_t lease, const struct kvx_read *r, uint8_t *dst) {
    struct source *s = arg;
    const struct kvx_group *g = &s->layout.group[r->group];
    assert_int_equal(lease, LEASE);
    pthread_mutex_lock(&s->mu);
    uint32_t n = r->from < s->n_ready ? MIN(r->n, s->n_ready - r->from) : 0;
    if (n == 0)
        s->n_ready = MIN(s->n_ready + 1, (uint32_t)N_BLOCKS);
    bool gone = s->gone_after == 0;
    s->gone_after -= s->gone_after > 0;
    pthread_mutex_unlock(&s->mu);
    size_t block = kvx_block_bytes(g, g->n_heads);
    uint8_t *all = xmalloc(block * (n + 1));
    for (uint32_t i = 0; i < n; i++)
        for (size_t k = 0; k < block; k++)
            all[i * block + k] = byte_of(r->group, r->from + i, k);
    kvx_slice(g, kvx_heads_of(g->n_heads, r->rank, s->layout.n_ranks), n, all, dst, false);
    free(all);
    return gone ? -1 : (int)n;
}

static bool src_renew(void *arg, uint64_t lease) {
    struct source *s = arg;
    pthread_mutex_lock(&s->mu);
    s->n_renewed++;
    pthread_mutex_unlock(&s->mu);
    return lease == LEASE;
}

static void src_close(void *arg, uint64_t lease, bool done) {
    struct source *s = arg;
    assert_int_equal(lease, LEASE);
    pthread_mutex_lock(&s->mu);
    s->n_done += done;
    s->n_lost += !done;
    pthread_mutex_unlock(&s->mu);
}

static void src_forget(void *arg, struct id128 transfer) {
    struct source *s = arg;
    pthread_mutex_lock(&s->mu);
    s->n_forgotten++;
    s->forgotten = transfer;
    pthread_mutex_unlock(&s->mu);
}

struct sink {
    const struct kvx_layout *layout;
    uint32_t n_got[BE_GROUPS_MAX], next[BE_GROUPS_MAX], n_room, room_after;
};

static int snk_room(void *arg) {
    struct sink *s = arg;
    return s->n_room++ >= s->room_after;
}

static void snk_put(void *arg, unsigned buffer, uint32_t group, uint32_t from, uint32_t n, const uint8_t *data) {
    struct sink *s = arg;
    const struct kvx_group *g = &s->layout->group[group];
    const size_t block = kvx_block_bytes(g, g->n_heads);
    (void)buffer;
    assert_int_equal(from, s->next[group]);
    for (uint32_t i = 0; i < n; i++)
        for (size_t k = 0; k < block; k++)
            assert_int_equal(data[i * block + k], byte_of(group, from + i, k));
    s->next[group] += n;
    s->n_got[group] += n;
}

static bool snk_settle(void *arg, unsigned buffer) {
    (void)arg, (void)buffer;
    return true;
}

struct pair {
    struct source source;
    struct kvx_server *server;
    struct kvx_server_opts so;
    struct kvx_pull_opts po;
    struct sink sink;
};

static void pair_open(struct pair *p, uint32_t n_ranks, uint32_t n_ready, const char *secret) {
    struct err e;
    log_set_level(LOG_ERROR);
    *p = (struct pair){.source = {.layout = ranks(n_ranks), .n_ready = n_ready, .gone_after = -1}};
    pthread_mutex_init(&p->source.mu, NULL);
    p->so = (struct kvx_server_opts){.host = "127.0.0.1", .secret = str_of(secret), .layout = ranks(n_ranks), .lease_ms = 2000};
    p->so.source = (struct kvx_source){&p->source, src_open, src_read, src_renew, src_close, src_forget};
    fill_random(p->so.engine.b, sizeof p->so.engine.b);
    assert_int_equal(kvx_server_start(&p->server, &p->so, &e), RC_OK);
    p->sink = (struct sink){.layout = &p->po.layout, .next = {2, 5}};
    p->po = (struct kvx_pull_opts){.host = "127.0.0.1", .port = kvx_server_port(p->server), .secret = str_of(secret)};
    p->po.layout = one_rank;
    p->po.open = (struct kvx_open){.engine = p->so.engine, .n_blocks = N_BLOCKS};
    p->po.from[0] = 2;
    p->po.from[1] = 5;
    p->po.end = N_BLOCKS;
    p->po.sink = (struct kvx_sink){&p->sink, snk_room, snk_put, snk_settle};
}

static enum rc pull(struct pair *p, enum kvx_refusal *why) {
    struct kvx_io io;
    struct kvx_pull_stats stats;
    struct err e;
    assert_int_equal(kvx_io_init(&io, &e), RC_OK);
    enum rc rc = kvx_pull_run(&p->po, &io, &stats, why, &e);
    kvx_io_fini(&io);
    return rc;
}

/* settle: the server has seen the end of n readers that it had granted a lease. */
static void settle(struct pair *p, uint32_t n) {
    for (uint64_t end = clock_ns() + 60 * NS_PER_S; clock_ns() < end;) {
        pthread_mutex_lock(&p->source.mu);
        bool over = p->source.n_done + p->source.n_lost == n;
        pthread_mutex_unlock(&p->source.mu);
        if (over)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    fail_msg("readers do not end");
}

static void pair_close(struct pair *p) {
    kvx_server_stop(p->server); /* all readers' threads have ended */
    pthread_mutex_destroy(&p->source.mu);
}

/* Blocks of 1, 2, 4 and 8 ranks are the same blocks; all there, or coming one after the other. */
static void blocks_arrive(void **state) {
    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= 8; n_ranks *= 2)
        for (uint32_t n_ready = 0; n_ready <= N_BLOCKS; n_ready += N_BLOCKS) {
            struct pair p;
            enum kvx_refusal why;
            pair_open(&p, n_ranks, n_ready, n_ready ? "secret" : "");
            p.sink.room_after = 2;
            assert_int_equal(pull(&p, &why), RC_OK);
            assert_int_equal(p.sink.n_got[0], N_BLOCKS - 2);
            assert_int_equal(p.sink.n_got[1], N_BLOCKS - 5);
            settle(&p, 1);
            pair_close(&p);
            assert_true(p.source.n_done == 1 && p.source.n_lost == 0);
        }
}

static void refusals(void **state) {
    struct pair p;
    enum kvx_refusal why;
    (void)state;
    pair_open(&p, 1, N_BLOCKS, "secret");
    p.po.secret = STR_LIT("other");
    assert_int_equal(pull(&p, &why), RC_CLOSED);
    assert_int_equal(why, KVX_DENIED);
    p.po.secret = (struct str){0};
    assert_int_equal(pull(&p, &why), RC_CLOSED);
    assert_int_equal(why, KVX_DENIED);
    assert_int_equal(p.source.n_opened, 0); /* no lease was looked at */
    p.po.secret = STR_LIT("secret");
    p.po.open.engine.b[0] ^= 1;
    assert_int_equal(pull(&p, &why), RC_CLOSED);
    assert_int_equal(why, KVX_UNKNOWN);
    p.po.open.engine.b[0] ^= 1;
    p.po.open.n_blocks--;
    assert_int_equal(pull(&p, &why), RC_CLOSED);
    assert_int_equal(why, KVX_MISMATCH);
    p.po.open.n_blocks++;
    p.po.layout.group[0].dtype = DT_F16;
    assert_int_equal(pull(&p, &why), RC_INVALID);
    p.po.layout.group[0].dtype = DT_BF16;
    p.source.gone_after = 1;
    assert_int_equal(pull(&p, &why), RC_CLOSED);
    assert_int_equal(why, KVX_GONE);
    settle(&p, 2);
    pair_close(&p);
    assert_true(p.source.n_done == 0 && p.source.n_lost == 2);
}

static enum rc tell(struct pair *p) {
    struct kvx_io io;
    struct err e;
    assert_int_equal(kvx_io_init(&io, &e), RC_OK);
    enum rc rc = kvx_tell_run(&p->po, &io, &e);
    kvx_io_fini(&io);
    return rc;
}

/* Word that nobody will read is believed of who has the token, and of this server's leases only. */
static void forgets(void **state) {
    struct pair p;
    (void)state;
    pair_open(&p, 1, N_BLOCKS, "secret");
    fill_random(p.po.open.transfer.b, sizeof p.po.open.transfer.b);
    assert_int_equal(tell(&p), RC_OK); /* it was heard: the server has ended the connection */
    pthread_mutex_lock(&p.source.mu);
    assert_int_equal(p.source.n_forgotten, 1);
    assert_memory_equal(p.source.forgotten.b, p.po.open.transfer.b, sizeof p.source.forgotten.b);
    pthread_mutex_unlock(&p.source.mu);
    p.po.open.engine.b[3] ^= 1;
    assert_int_equal(tell(&p), RC_OK);
    p.po.open.engine.b[3] ^= 1;
    p.po.secret = STR_LIT("other");
    assert_int_equal(tell(&p), RC_OK);
    p.po.port = 1;
    assert_int_not_equal(tell(&p), RC_OK);
    pair_close(&p);
    assert_int_equal(p.source.n_forgotten, 1);
    assert_int_equal(p.source.n_opened, 0);
}

/* ---- peers that break the protocol -------------------------------------------------------------- */

static void send_all(struct kvx_io *io, const struct buf *b) {
    struct err e;
    (void)!kvx_io_send(io, b->data, b->len, 1000, &e); /* it may be cut in the middle */
}

/* greeted: a connection whose lease is granted. */
static void greeted(struct pair *p, struct kvx_io *io) {
    struct buf b = {0}, body = {0};
    struct kvx_head head;
    struct kvx_hello hello;
    struct err e;
    assert_int_equal(kvx_io_init(io, &e), RC_OK);
    assert_int_equal(kvx_io_dial(io, "127.0.0.1", kvx_server_port(p->server), NULL, 2000, &e), RC_OK);
    assert_int_equal(kvx_io_frame(io, &body, &head, 2000, &e), RC_OK);
    assert_int_equal(kvx_get_hello((const uint8_t *)body.data, body.len, &hello, &e), RC_OK);
    kvx_put_open(&b, &p->po.open);
    send_all(io, &b);
    assert_int_equal(kvx_io_frame(io, &body, &head, 2000, &e), RC_OK);
    assert_int_equal(head.type, KVX_GRANT);
    buf_fini(&b);
    buf_fini(&body);
}

static void garbage_cuts_readers(void **state) {
    struct pair p;
    struct buf b = {0}, body = {0};
    struct kvx_head head;
    struct kvx_io io;
    struct err e;
    const struct kvx_read bad[] = {{.group = 2, .n = 1}, {.rank = 1, .n = 1}, {.from = N_BLOCKS, .n = 1},
                                   {.from = N_BLOCKS - 1, .n = 2}, {.n = 1 << 19}};
    (void)state;
    pair_open(&p, 1, N_BLOCKS, "");
    for (size_t i = 0; i < ARRAY_LEN(bad) + 3; i++) {
        greeted(&p, &io);
        b.len = 0;
        if (i < ARRAY_LEN(bad))
            kvx_put_read(&b, &bad[i]);
        else if (i == ARRAY_LEN(bad))
            buf_add(&b, "GET / HTTP/1.1\r\n\r\n", 18);
        else if (i == ARRAY_LEN(bad) + 1)
            kvx_put_open(&b, &p.po.open); /* a second time */
        else
            kvx_put_empty(&b, KVX_WAIT);
        send_all(&io, &b);
        assert_int_not_equal(kvx_io_frame(&io, &body, &head, 5000, &e), RC_OK);
        assert_int_not_equal(e.rc, RC_TIMEOUT);
        kvx_io_fini(&io);
    }
    enum kvx_refusal why;
    assert_int_equal(pull(&p, &why), RC_OK); /* others are served as before */
    assert_int_equal(kvx_server_cuts(p.server), ARRAY_LEN(bad) + 3);
    buf_fini(&b);
    buf_fini(&body);
    settle(&p, ARRAY_LEN(bad) + 4);
    pair_close(&p);
    assert_int_equal(p.source.n_lost, ARRAY_LEN(bad) + 3);
}

/* liar: a server that says `reply` to the first read. */
struct liar {
    nng_stream_listener *listener;
    struct buf reply;
};

static void *liar_main(void *arg) {
    struct liar *l = arg;
    struct kvx_io io;
    struct buf b = {0}, body = {0};
    struct kvx_head head;
    struct err e;
    nng_aio *aio;
    CHECK(nng_aio_alloc(&aio, NULL, NULL) == 0 && kvx_io_init(&io, &e) == RC_OK);
    nng_stream_listener_accept(l->listener, aio);
    nng_aio_wait(aio);
    CHECK(nng_aio_result(aio) == 0);
    kvx_io_take(&io, nng_aio_get_output(aio, 0));
    kvx_put_hello(&b, &(struct kvx_hello){0});
    send_all(&io, &b);
    CHECK(kvx_io_frame(&io, &body, &head, 5000, &e) == RC_OK);
    b.len = 0;
    kvx_put_grant(&b, &(struct kvx_grant){one_rank, 1000});
    send_all(&io, &b);
    if (kvx_io_frame(&io, &body, &head, 5000, &e) == RC_OK)
        send_all(&io, &l->reply);
    (void)!kvx_io_frame(&io, &body, &head, 5000, &e);
    nng_aio_free(aio);
    kvx_io_fini(&io);
    buf_fini(&b);
    buf_fini(&body);
    return NULL;
}

static void garbage_cuts_servers(void **state) {
    const size_t block = kvx_block_bytes(&one_rank.group[0], 4);
    const struct kvx_data good = {.from = 2, .n = 1, .heads = {0, 4}, .dtype = DT_BF16, .n_bytes = block};
    struct kvx_data bad[6] = {good, good, good, good, good, good};
    (void)state;
    bad[0].from = 3;
    bad[1].n = 1000;
    bad[2].heads.n = 2;
    bad[3].dtype = DT_F16;
    bad[4].n_bytes = block - 1;
    bad[5].group = 1;
    for (size_t i = 0; i < ARRAY_LEN(bad) + 1; i++) {
        struct liar l = {0};
        struct pair p;
        pthread_t thread;
        enum kvx_refusal why;
        int port;
        pair_open(&p, 1, N_BLOCKS, "");
        if (i < ARRAY_LEN(bad))
            kvx_put_data(&l.reply, &bad[i]);
        else
            buf_add(&l.reply, "\0\0\0\0garbage garbage", 20);
        CHECK(nng_stream_listener_alloc(&l.listener, "tcp://127.0.0.1:0") == 0 && nng_stream_listener_listen(l.listener) == 0);
        CHECK(nng_stream_listener_get_int(l.listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0);
        CHECK(pthread_create(&thread, NULL, liar_main, &l) == 0);
        p.po.port = (uint32_t)port;
        assert_int_equal(pull(&p, &why), RC_PROTO);
        assert_int_equal(p.sink.n_got[0], 0);
        pthread_join(thread, NULL);
        nng_stream_listener_free(l.listener);
        buf_fini(&l.reply);
        pair_close(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_back), cmocka_unit_test(heads_have_limits),    cmocka_unit_test(slices),
        cmocka_unit_test(peers),            cmocka_unit_test(flags),                cmocka_unit_test(blocks_arrive),
        cmocka_unit_test(hosts),            cmocka_unit_test(refusals),             cmocka_unit_test(forgets),         cmocka_unit_test(garbage_cuts_readers), cmocka_unit_test(garbage_cuts_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
