/* The link against peers that are not the link: raw sockets that send garbage, stay silent, stop reading,
 * come in crowds or come from the past. Meanwhile a good peer must not notice. threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/link/conn.h"
#include "common/link/wire.h"
#include "common/log.h"

struct seen {
    _Atomic int n_up, n_down, n_messages, n_suspect, n_well;
    pthread_mutex_t mu;
    char down[256];
};

static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct seen *s = arg;
    (void)c;
    assert_int_equal(peer->role, WEIR__ROLE__ROUTER);
    atomic_fetch_add(&s->n_up, 1);
}
static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct seen *s = arg;
    if (m->body_case == WEIR__ENVELOPE__BODY_CONTROL) {
        Weir__ControlReply r = WEIR__CONTROL_REPLY__INIT;
        (void)!link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL_REPLY, &r);
    }
    atomic_fetch_add(&s->n_messages, 1);
}
static void on_silent(void *arg, struct link_conn *c, bool suspect) {
    struct seen *s = arg;
    (void)c;
    atomic_fetch_add(suspect ? &s->n_suspect : &s->n_well, 1);
}
static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct seen *s = arg;
    (void)c;
    pthread_mutex_lock(&s->mu);
    snprintf(s->down, sizeof s->down, "%s", reason);
    pthread_mutex_unlock(&s->mu);
    atomic_fetch_add(&s->n_down, 1);
}

/* The router side of the good peer. */
static struct {
    pthread_mutex_t mu;
    struct link_conn *conn;
    _Atomic int n_up, n_down, n_replies;
} good;
static void good_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    (void)arg;
    (void)peer;
    pthread_mutex_lock(&good.mu);
    good.conn = link_hold(c);
    pthread_mutex_unlock(&good.mu);
    atomic_fetch_add(&good.n_up, 1);
}
static void good_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    (void)arg;
    (void)c;
    atomic_fetch_add(&good.n_replies, m->body_case == WEIR__ENVELOPE__BODY_CONTROL_REPLY);
}
static void good_down(void *arg, struct link_conn *c, const char *reason) {
    (void)arg;
    (void)c;
    (void)reason;
    atomic_fetch_add(&good.n_down, 1);
}

static char dir[64], url[96];
static struct seen seen;
static struct link *worker, *router;

static bool until(_Atomic int *counter, int n, int timeout_ms) {
    for (uint64_t end = clock_ns() + (uint64_t)timeout_ms * NS_PER_MS; atomic_load(counter) < n; usleep(2000))
        if (clock_ns() > end)
            return false;
    return true;
}

/* only_good_left: all connections but the good one were reaped. */
static bool only_good_left(int timeout_ms) {
    for (uint64_t end = clock_ns() + (uint64_t)timeout_ms * NS_PER_MS; clock_ns() < end; usleep(2000)) {
        pthread_mutex_lock(&worker->mu);
        size_t n = worker->n_conns;
        pthread_mutex_unlock(&worker->mu);
        if (n == 1)
            return true;
    }
    return false;
}

static void start(struct link_opts o) {
    struct err e;
    o.role = WEIR__ROLE__WORKER;
    o.arg = &seen;
    o.on_up = on_up;
    o.on_message = on_message;
    o.on_silent = on_silent;
    o.on_down = on_down;
    worker = link_new(&o);
    assert_int_equal(link_listen(worker, url, &e), RC_OK);
    router = link_new(&(struct link_opts){.role = WEIR__ROLE__ROUTER,
                                          .secret = o.secret,
                                          .on_up = good_up,
                                          .on_message = good_message,
                                          .on_down = good_down});
    assert_int_equal(link_dial(router, url, &e), RC_OK);
    assert_true(until(&good.n_up, 1, 20000));
    assert_true(until(&seen.n_up, 1, 20000));
}

static int setup(void **state) {
    (void)state;
    log_set_level(LOG_ERROR);
    memset(&seen, 0, sizeof seen);
    memset(&good, 0, sizeof good);
    pthread_mutex_init(&seen.mu, NULL);
    pthread_mutex_init(&good.mu, NULL);
    snprintf(dir, sizeof dir, "/tmp/weir-test-hostile-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(url, sizeof url, "ipc://%s/s", dir);
    return 0;
}

/* teardown: the good peer was up all the time and still gets its answer. */
static int teardown(void **state) {
    (void)state;
    Weir__Control m = WEIR__CONTROL__INIT;
    int before = atomic_load(&good.n_replies);
    assert_int_equal(link_send(good.conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &m), RC_OK);
    assert_true(until(&good.n_replies, before + 1, 20000));
    assert_int_equal(good.n_up, 1);
    assert_int_equal(good.n_down, 0);
    link_free(router);
    link_free(worker);
    link_drop(good.conn);
    assert_int_equal(seen.n_up, seen.n_down);
    pthread_mutex_destroy(&seen.mu);
    pthread_mutex_destroy(&good.mu);
    unlink(url + 6);
    return rmdir(dir);
}

/* ---- a raw peer -------------------------------------------------------------------------------------- */

static int dial(void) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", url + 6);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
    return fd;
}

static void put(int fd, const void *p, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);
        if (k <= 0)
            return; /* cut while we were at it: the test looks at the end */
        at += (size_t)k;
    }
}

/* drain: reads until the end of the stream; false if it does not come in time. What came goes to *in (may be
 * NULL). */
static bool drain(int fd, int timeout_ms, struct buf *in) {
    uint64_t end = clock_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char tmp[4096];
        uint64_t now = clock_ns();
        if (now >= end || poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1) != 1)
            return false;
        ssize_t n = recv(fd, tmp, sizeof tmp, 0);
        if (n <= 0)
            return true;
        if (in)
            buf_add(in, tmp, (size_t)n);
    }
}

static bool holds(const struct buf *b, const char *z) {
    return b->len && memmem(b->data, b->len, z, strlen(z));
}

struct raw {
    int fd;
    struct hello_side self, peer;
    uint64_t seq;
};

static void raw_send(struct raw *r, Weir__Envelope *m) {
    struct buf body = {0}, out = {0};
    wire_add_body(&body, m);
    wire_add_frame(&out, LINK_CONTROL, ++r->seq, body.data, body.len);
    put(r->fd, out.data, out.len);
    buf_fini(&body);
    buf_fini(&out);
}

/* raw_next: the next envelope that is not a ping, in a's memory. */
static const Weir__Envelope *raw_next(struct raw *r, struct arena *a) {
    for (;;) {
        uint8_t length[4], data[4096];
        assert_int_equal(recv(r->fd, length, 4, MSG_WAITALL), 4);
        size_t n = wire_get_u32(length);
        assert_true(n > 0 && n <= sizeof data);
        assert_int_equal(recv(r->fd, data, n, MSG_WAITALL), (ssize_t)n);
        const Weir__Envelope *m = wire_unpack(a, data, n);
        assert_non_null(m);
        if (m->body_case != WEIR__ENVELOPE__BODY_PING)
            return m;
    }
}

/* raw_open: a peer with this id and epoch that says both hellos well. */
static struct raw raw_open(struct id128 id, uint64_t epoch, struct str secret) {
    struct raw r = {.fd = dial(), .self = {.id = id, .epoch = epoch, .role = WEIR__ROLE__ROUTER}};
    struct hello_side as_peer = {.role = WEIR__ROLE__ROUTER};
    struct arena a;
    struct err e;
    arena_init(&a);
    fill_random(r.self.nonce, sizeof r.self.nonce);
    Weir__Hello h = WEIR__HELLO__INIT;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_HELLO, &h);
    h.has_protocol = h.has_role = h.has_nonce = m.has_sender = m.has_epoch = true;
    h.protocol = LINK_PROTOCOL;
    h.role = r.self.role;
    h.nonce = (ProtobufCBinaryData){sizeof r.self.nonce, r.self.nonce};
    m.sender = (ProtobufCBinaryData){sizeof id.b, id.b};
    m.epoch = epoch;
    raw_send(&r, &m);
    assert_int_equal(hello_read(raw_next(&r, &a), &as_peer, &r.peer, &e), RC_OK);
    uint8_t proof[HELLO_PROOF_BYTES];
    Weir__Hello second = WEIR__HELLO__INIT;
    m = wire_envelope(WEIR__ENVELOPE__BODY_HELLO, &second);
    if (secret.n) {
        hello_proof(secret, &r.self, &r.peer, proof);
        second.has_secret_proof = true;
        second.secret_proof = (ProtobufCBinaryData){sizeof proof, proof};
    }
    raw_send(&r, &m);
    arena_fini(&a);
    return r;
}

/* ---- tests ------------------------------------------------------------------------------------------- */

static void test_garbage(void **state) {
    (void)state;
    start((struct link_opts){0});
    static const struct str pieces[] = {
        STR_LIT("\xFF\xFF\xFF\xFF"),
        STR_LIT("\0\0\0\0"),
        STR_LIT("\x01\x10\0\0"),
        STR_LIT("GET / HTTP/1.1\r\n\r\n"),
        STR_LIT("\x01\0\0\0\xFF"),
        STR_LIT("\x02\0\0\0\x18\x01"),
        STR_LIT("\x05\0\0\0\x52\x7F\0\0\0"),
        STR_LIT("\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03"),
    };
    int n = 0;
    for (size_t i = 0; i < ARRAY_LEN(pieces); i++, n++) {
        int fd = dial();
        put(fd, pieces[i].p, pieces[i].n);
        assert_true(drain(fd, 10000, NULL));
        close(fd);
    }
    char noise[3000];
    for (int i = 0; i < 40; i++, n++) {
        int fd = dial();
        fill_random(noise, sizeof noise);
        noise[3] |= 0x40; /* no length that happens to be small */
        put(fd, noise, sizeof noise);
        assert_true(drain(fd, 10000, NULL));
        close(fd);
    }
    assert_int_equal(link_stats(worker).cuts, n);
    assert_int_equal(seen.n_up, 1); /* the good one */
}

/* After a good hello: the same, and the peer is told why. */
static void test_garbage_after_hello(void **state) {
    (void)state;
    start((struct link_opts){.secret = STR_LIT("t")});
    static const struct {
        struct str bytes;
        const char *why;
    } cases[] = {
        {STR_LIT("\xFF\xFF\xFF\xFF"), "a frame of 4294967295 bytes"},
        {STR_LIT("\x01\0\x04\0"), "a frame of 262145 bytes"},
        {STR_LIT("\x01\0\0\0\xFF"), "cannot be read"},
        {STR_LIT("\x02\0\0\0\x18\x02"), "message 2 where 3 was due"},
        {STR_LIT("\x02\0\0\0\x18\x04"), "message 4 where 3 was due"},
        {STR_LIT("\x05\0\0\0\x18\x03\x6A\x01\x08"), "cannot be read"},
        {STR_LIT("\x04\0\0\0\x18\x03\x6A\0"), "a part that lacks a field"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct id128 id = {{(uint8_t)(i + 1)}};
        struct buf in = {0};
        struct raw r = raw_open(id, 1, STR_LIT("t"));
        assert_true(until(&seen.n_up, (int)i + 2, 10000));
        put(r.fd, cases[i].bytes.p, cases[i].bytes.n);
        assert_true(drain(r.fd, 10000, &in));
        if (!holds(&in, cases[i].why))
            fail_msg("case %zu: no \"%s\"", i, cases[i].why);
        close(r.fd);
        buf_fini(&in);
        assert_true(until(&seen.n_down, (int)i + 1, 10000));
    }
}

/* Silence before the hello is cut after LINK_HELLO_MS; half a hello is silence too. After it, a silent peer
 * becomes suspect and stays; it is well again when it speaks. */
static void test_silence(void **state) {
    (void)state;
    start((struct link_opts){0});
    uint64_t begin = clock_ns();
    int mute = dial(), half = dial();
    put(half, "\x10\0\0\0\x0A", 5);
    struct raw r = raw_open((struct id128){{1}}, 1, (struct str){0});
    assert_true(until(&seen.n_up, 2, 10000));
    assert_true(until(&seen.n_suspect, 1, 10000));
    assert_true(clock_ns() - begin >= LINK_SUSPECT_MS * NS_PER_MS);
    assert_true(drain(mute, 10000, NULL));
    assert_true(drain(half, 10000, NULL));
    assert_true(clock_ns() - begin >= LINK_HELLO_MS * NS_PER_MS);
    assert_int_equal(seen.n_down, 0);
    assert_int_equal(seen.n_well, 0);
    Weir__Ping ping = WEIR__PING__INIT;
    ping.has_sent_ns = true;
    ping.sent_ns = 42;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_PING, &ping);
    raw_send(&r, &m);
    assert_true(until(&seen.n_well, 1, 10000));
    struct arena a;
    arena_init(&a);
    const Weir__Envelope *answer = raw_next(&r, &a); /* their second hello */
    assert_int_equal(answer->body_case, WEIR__ENVELOPE__BODY_HELLO);
    answer = raw_next(&r, &a);
    assert_int_equal(answer->body_case, WEIR__ENVELOPE__BODY_PONG);
    assert_true(answer->pong->sent_ns == 42);
    arena_fini(&a);
    close(mute);
    close(half);
    close(r.fd);
    assert_true(until(&seen.n_down, 1, 10000));
}

/* A process from before a restart cannot come back, and a restarted one ends its own old connections. */
static void test_epochs(void **state) {
    (void)state;
    start((struct link_opts){0});
    struct id128 id = {{7}};
    struct raw old = raw_open(id, 100, (struct str){0});
    assert_true(until(&seen.n_up, 2, 10000));
    struct raw twin = raw_open(id, 100, (struct str){0});
    assert_true(until(&seen.n_up, 3, 10000)); /* a second connection of the same start is fine */
    struct raw next = raw_open(id, 101, (struct str){0});
    assert_true(until(&seen.n_up, 4, 10000));
    assert_true(drain(old.fd, 10000, NULL));
    assert_true(drain(twin.fd, 10000, NULL));
    assert_true(until(&seen.n_down, 2, 10000));
    pthread_mutex_lock(&seen.mu);
    assert_string_equal(seen.down, "the peer started anew");
    pthread_mutex_unlock(&seen.mu);
    struct raw stale = raw_open(id, 99, (struct str){0});
    struct buf in = {0};
    assert_true(drain(stale.fd, 10000, &in));
    assert_true(holds(&in, "stale epoch"));
    assert_int_equal(seen.n_up, 4);
    buf_fini(&in);
    close(old.fd);
    close(twin.fd);
    close(stale.fd);
    close(next.fd);
}

/* A wrong token never gets as far as to take an epoch: the true owner of the id is not locked out. */
static void test_epoch_needs_token(void **state) {
    (void)state;
    start((struct link_opts){.secret = STR_LIT("right")});
    struct id128 id = {{7}};
    struct raw liar = raw_open(id, UINT64_MAX, STR_LIT("wrong"));
    struct buf in = {0};
    assert_true(drain(liar.fd, 10000, &in));
    assert_true(holds(&in, "cluster token"));
    buf_fini(&in);
    close(liar.fd);
    struct raw honest = raw_open(id, 5, STR_LIT("right"));
    assert_true(until(&seen.n_up, 2, 10000));
    close(honest.fd);
    assert_true(until(&seen.n_down, 1, 10000));
}

/* A crowd: connections above the limit are closed at once, those below run out of time; memory and
 * descriptors come back. TEST_SCALE=20 makes the 10^4 of the specification, as far as the descriptor limit
 * lets this process go. */
static void test_crowd(void **state) {
    (void)state;
    const char *scale = getenv("TEST_SCALE");
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    size_t n = 500 * (size_t)MAX(1, MIN(20, scale ? atoi(scale) : 1));
    n = MIN(n, (size_t)lim.rlim_cur > 600 ? (size_t)lim.rlim_cur - 500 : 100);
    enum { LIMIT = 64 };
    start((struct link_opts){.conns_max = LIMIT});
    int *fds = xcalloc(n, sizeof *fds);
    for (size_t i = 0; i < n; i++)
        fds[i] = dial();
    for (size_t i = 0; i < n; i++) {
        assert_true(drain(fds[i], 20000, NULL));
        close(fds[i]);
    }
    free(fds);
    assert_true(link_stats(worker).cuts >= n);
    /* And there is room again, once the last of them is put away: whoever comes before that is turned away. */
    for (int tries = 0; tries < 200; tries++) {
        int fd = dial();
        bool turned_away = drain(fd, 50, NULL);
        close(fd);
        if (!turned_away)
            break;
    }
    struct raw r = raw_open((struct id128){{1}}, 1, (struct str){0});
    assert_true(until(&seen.n_up, 2, 10000));
    close(r.fd);
    assert_true(until(&seen.n_down, 1, 10000));
}

/* A peer that floods pings and reads nothing makes nothing grow: at most one Pong waits. */
static void test_ping_flood(void **state) {
    (void)state;
    start((struct link_opts){0});
    struct raw r = raw_open((struct id128){{1}}, 1, (struct str){0});
    assert_true(until(&seen.n_up, 2, 10000));
    for (int i = 0; i < 20000; i++) {
        Weir__Ping ping = WEIR__PING__INIT;
        Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_PING, &ping);
        raw_send(&r, &m);
    }
    Weir__Abort abort_all = WEIR__ABORT__INIT;
    Weir__Envelope m = wire_envelope(WEIR__ENVELOPE__BODY_ABORT, &abort_all);
    raw_send(&r, &m);
    assert_true(until(&seen.n_messages, 1, 20000)); /* read to the end, though its answers go nowhere */
    close(r.fd);
    assert_true(until(&seen.n_down, 1, 10000));
}

/* A connection cut right after connecting, in every phase, many times over. */
static void test_hit_and_run(void **state) {
    (void)state;
    start((struct link_opts){0});
    for (int i = 0; i < 100; i++) {
        if (i % 4 == 3) {
            struct raw r = raw_open((struct id128){{(uint8_t)i}}, 1, (struct str){0});
            if (i % 8 == 3)
                shutdown(r.fd, SHUT_WR);
            close(
                r.fd); /* with bytes unread: the worker's next read may fail before it saw the second hello */
        } else {
            int fd = dial();
            put(fd, "\x40\0\0\0abc", (size_t)(i % 4) * 3);
            close(fd);
        }
    }
    assert_true(only_good_left(20000));
    assert_int_equal(seen.n_down, seen.n_up - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage_after_hello, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epochs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_epoch_needs_token, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crowd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ping_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hit_and_run, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
