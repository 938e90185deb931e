/* Two ends of the link in one process, over Unix sockets and loopback TCP. threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/sha.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/link/link.h"
#include "common/log.h"

/* end: a link and what it saw. */
struct end {
    struct link *link;
    pthread_mutex_t mu;
    pthread_cond_t changed;
    struct link_conn *conn; /* the latest, held */
    int n_up, n_down, n_messages, n_tensors, n_suspect, n_well, n_dial_errors;
    struct link_peer peer;
    char version[64], down[256], dial_error[256];
    uint64_t last_id; /* of Control, KvSnapshotGet */
    uint64_t n_out_of_order, expect_control, expect_data, n_overtaken;
    size_t n_tokens;
    uint64_t token_sum;
    uint8_t digest[32];
    size_t tensor_bytes;
    bool echo;
    _Atomic int hold_ms; /* how long a message's callback sleeps */
    _Atomic int in_callback;
};

static void changed(struct end *x) {
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->mu);
}

static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct end *x = arg;
    link_set_user(c, x);
    pthread_mutex_lock(&x->mu);
    link_drop(x->conn);
    x->conn = link_hold(c);
    x->peer = *peer;
    snprintf(x->version, sizeof x->version, "%s", peer->version);
    x->n_up++;
    changed(x);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct end *x = arg;
    assert_int_equal(atomic_fetch_add(&x->in_callback, 1),
                     0); /* never two at once: every end has one connection */
    assert_ptr_equal(link_user(c), x);
    if (atomic_load(&x->hold_ms))
        usleep((useconds_t)atomic_load(&x->hold_ms) * 1000);
    if (x->echo && m->body_case == WEIR__ENVELOPE__BODY_CONTROL) {
        Weir__ControlReply r = WEIR__CONTROL_REPLY__INIT;
        r.has_id = true;
        r.id = m->control->id;
        assert_int_equal(link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL_REPLY, &r), RC_OK);
    }
    pthread_mutex_lock(&x->mu);
    if (m->body_case == WEIR__ENVELOPE__BODY_CONTROL) {
        x->last_id = m->control->id;
        if (m->control->id != x->expect_control++)
            x->n_out_of_order++;
    } else if (m->body_case == WEIR__ENVELOPE__BODY_CONTROL_REPLY) {
        x->last_id = m->control_reply->id;
    } else if (m->body_case == WEIR__ENVELOPE__BODY_SUBMIT) {
        x->n_tokens = m->submit->n_tokens;
        x->token_sum = 0;
        for (size_t i = 0; i < m->submit->n_tokens; i++)
            x->token_sum += m->submit->tokens[i];
        if (m->submit->stream != x->expect_data++)
            x->n_out_of_order++;
        if (x->expect_control > 0)
            x->n_overtaken++;
    }
    x->n_messages++;
    changed(x);
    atomic_fetch_sub(&x->in_callback, 1);
}

static void on_tensor(void *arg, struct link_conn *c, uint8_t *data, size_t n, const uint8_t digest[32]) {
    struct end *x = arg;
    (void)c;
    uint8_t want[32];
    SHA256(data, n, want);
    assert_memory_equal(want, digest, 32);
    free(data);
    pthread_mutex_lock(&x->mu);
    memcpy(x->digest, digest, 32);
    x->tensor_bytes = n;
    x->n_tensors++;
    changed(x);
}

static void on_silent(void *arg, struct link_conn *c, bool suspect) {
    struct end *x = arg;
    (void)c;
    pthread_mutex_lock(&x->mu);
    if (suspect)
        x->n_suspect++;
    else
        x->n_well++;
    changed(x);
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    struct end *x = arg;
    (void)c;
    pthread_mutex_lock(&x->mu);
    snprintf(x->down, sizeof x->down, "%s", reason);
    x->n_down++;
    changed(x);
}

static void on_dial_error(void *arg, const char *address, const char *reason) {
    struct end *x = arg;
    (void)address;
    pthread_mutex_lock(&x->mu);
    snprintf(x->dial_error, sizeof x->dial_error, "%s", reason);
    x->n_dial_errors++;
    changed(x);
}

static void end_open(struct end *x, Weir__Role role, struct link_opts o) {
    memset(x, 0, sizeof *x);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&x->mu, NULL);
    pthread_cond_init(&x->changed, &attr);
    pthread_condattr_destroy(&attr);
    o.role = role;
    o.arg = x;
    o.on_up = on_up;
    o.on_message = on_message;
    o.on_tensor = on_tensor;
    o.on_silent = on_silent;
    o.on_down = on_down;
    o.on_dial_error = on_dial_error;
    x->link = link_new(&o);
}

static void end_close(struct end *x) {
    if (x->link)
        link_free(x->link);
    link_drop(x->conn);
    assert_int_equal(x->n_up, x->n_down); /* each on_up has its on_down */
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->mu);
}

/* wait_for: until *counter reaches n. */
static bool wait_for(struct end *x, const int *counter, int n, int timeout_ms) {
    uint64_t at = clock_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    struct timespec t = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};
    pthread_mutex_lock(&x->mu);
    while (*counter < n)
        if (pthread_cond_timedwait(&x->changed, &x->mu, &t) != 0)
            break;
    bool ok = *counter >= n;
    pthread_mutex_unlock(&x->mu);
    return ok;
}
#define WAIT(x, counter, n) assert_true(wait_for(x, &(x)->counter, n, 20000))

static char dir[64], ipc_url[96];

static int setup(void **state) {
    (void)state;
    log_set_level(LOG_ERROR);
    snprintf(dir, sizeof dir, "/tmp/weir-test-link-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(ipc_url, sizeof ipc_url, "ipc://%s/s", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(ipc_url + 6);
    return rmdir(dir);
}

static void pair_open(struct end *router, struct end *worker, struct link_opts o) {
    struct err e;
    end_open(worker, WEIR__ROLE__WORKER, o);
    assert_int_equal(link_listen(worker->link, ipc_url, &e), RC_OK);
    end_open(router, WEIR__ROLE__ROUTER, o);
    assert_int_equal(link_dial(router->link, ipc_url, &e), RC_OK);
    WAIT(router, n_up, 1);
    WAIT(worker, n_up, 1);
}

static enum rc send_control(struct end *x, uint64_t id) {
    Weir__Control m = WEIR__CONTROL__INIT;
    m.has_id = true;
    m.id = id;
    return link_send(x->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &m);
}

static enum rc send_tokens(struct end *x, enum link_lane lane, uint64_t stream, uint32_t *tokens, size_t n) {
    Weir__Submit m = WEIR__SUBMIT__INIT;
    m.has_stream = true;
    m.stream = stream;
    m.tokens = tokens;
    m.n_tokens = n;
    return link_send(x->conn, lane, WEIR__ENVELOPE__BODY_SUBMIT, &m);
}

/* ---- tests ------------------------------------------------------------------------------------------ */

static void test_ipc(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){0});
    struct stat st;
    assert_int_equal(stat(ipc_url + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(id128_eq(r.peer.id, link_self(w.link)));
    assert_true(id128_eq(w.peer.id, link_self(r.link)));
    assert_int_equal(r.peer.role, WEIR__ROLE__WORKER);
    assert_true(strlen(r.version) > 0);
    w.echo = true;
    for (uint64_t i = 0; i < 200; i++) {
        assert_int_equal(send_control(&r, i), RC_OK);
        WAIT(&r, n_messages, (int)i + 1);
        assert_int_equal(r.last_id, i);
    }
    assert_int_equal(w.n_out_of_order, 0);
    struct link_stats s = link_stats(r.link);
    assert_true(s.frames_out >= 202 && s.frames_in >= 201 && s.bytes_in > 0 && s.bytes_out > 0 &&
                s.cuts == 0);
    end_close(&r);
    WAIT(&w, n_down, 1);
    end_close(&w);
}

static void test_tcp(void **state) {
    (void)state;
    struct end r, w;
    struct err e;
    char url[64];
    end_open(&w, WEIR__ROLE__WORKER, (struct link_opts){.secret = STR_LIT("s3cret")});
    assert_int_equal(link_listen_port(w.link), 0);
    assert_int_equal(link_listen(w.link, "tcp://127.0.0.1:0", &e), RC_OK);
    int port = link_listen_port(w.link);
    assert_true(port > 0);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", port);
    end_open(&r, WEIR__ROLE__ROUTER, (struct link_opts){.secret = STR_LIT("s3cret")});
    assert_int_equal(link_dial(r.link, url, &e), RC_OK);
    assert_int_equal(link_dial(r.link, url, &e), RC_INVALID);
    WAIT(&r, n_up, 1);
    WAIT(&w, n_up, 1);
    assert_int_equal(send_control(&r, 0), RC_OK);
    WAIT(&w, n_messages, 1);
    link_undial(r.link, url);
    WAIT(&r, n_down, 1);
    WAIT(&w, n_down, 1);
    assert_int_equal(send_control(&r, 1), RC_CLOSED);
    assert_int_equal(link_dial(r.link, url, &e), RC_OK); /* and again */
    WAIT(&r, n_up, 2);
    end_close(&r);
    end_close(&w);
}

/* Long messages and tensors arrive whole; messages keep their order within a lane. */
static void test_long(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){0});
    static const size_t counts[] = {0, 1, 1000, 65000, 87000, 87400, 131072, 1000000};
    uint32_t *tokens = xcalloc(1000000, sizeof *tokens);
    uint64_t sum = 0;
    for (size_t i = 0; i < 1000000; i++)
        tokens[i] = (uint32_t)(i * 2654435761u);
    for (size_t k = 0; k < ARRAY_LEN(counts); k++) {
        assert_int_equal(send_tokens(&r, k % 2 ? LINK_DATA : LINK_CONTROL, k, tokens, counts[k]), RC_OK);
        WAIT(&w, n_messages, (int)k + 1);
        sum = 0;
        for (size_t i = 0; i < counts[k]; i++)
            sum += tokens[i];
        assert_int_equal(w.n_tokens, counts[k]);
        assert_true(w.token_sum == sum);
    }
    static const size_t sizes[] = {0, 1, LINK_PART_BYTES, LINK_PART_BYTES + 1, 3000000};
    for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
        uint8_t digest[32];
        SHA256((const uint8_t *)tokens, sizes[k], digest);
        assert_int_equal(link_send_tensor(r.conn, tokens, sizes[k], digest), RC_OK);
        WAIT(&w, n_tensors, (int)k + 1);
        assert_int_equal(w.tensor_bytes, sizes[k]);
    }
    assert_int_equal(w.n_out_of_order, 0);
    free(tokens);
    end_close(&r);
    end_close(&w);
}

/* A control message sent behind megabytes of data arrives before their end. */
static void test_overtaking(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){0});
    uint32_t tokens[30000] = {0};
    memset(tokens, 0xFF, sizeof tokens);
    atomic_store(&w.hold_ms, 2000); /* the reader sits on the first, so that data gathers at the sender */
    enum { N = 60 };
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(send_tokens(&r, LINK_DATA, i, tokens, ARRAY_LEN(tokens)), RC_OK);
    assert_true(link_queue_bytes(r.conn) > 0);
    assert_int_equal(send_control(&r, 0), RC_OK);
    atomic_store(&w.hold_ms, 0);
    WAIT(&w, n_messages, N + 1);
    assert_true(w.n_overtaken > N / 2); /* data that came after the control message */
    assert_int_equal(w.n_out_of_order, 0);
    end_close(&r);
    end_close(&w);
}

/* A peer that does not read: the queue is bounded, the sender is told, and nothing blocks. */
static void test_back_pressure(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){.queue_bytes_max = 1 << 20});
    uint32_t tokens[20000];
    memset(tokens, 0xFF, sizeof tokens); /* 100 kB packed */
    atomic_store(&w.hold_ms, 3000);
    enum rc rc = RC_OK;
    int sent = 0;
    for (; rc == RC_OK && sent < 1000; sent++)
        rc = send_tokens(&r, LINK_DATA, (uint64_t)sent, tokens, ARRAY_LEN(tokens));
    assert_int_equal(rc, RC_AGAIN);
    assert_true(link_queue_bytes(r.conn) <= (2u << 20));
    assert_int_equal(send_control(&r, 0), RC_OK); /* an abort still fits */
    atomic_store(&w.hold_ms, 0);
    WAIT(&w, n_messages, sent - 1 + 1);
    assert_int_equal(w.n_out_of_order, 0);
    assert_int_equal(send_tokens(&r, LINK_DATA, (uint64_t)sent - 1, tokens, 1), RC_OK);
    WAIT(&w, n_messages, sent + 1);
    end_close(&r);
    end_close(&w);
}

static void test_too_large(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){.message_bytes_max = 1 << 20});
    uint32_t *tokens = xmalloc(4 << 20);
    memset(tokens, 0xFF, 4 << 20);
    assert_int_equal(send_tokens(&r, LINK_DATA, 0, tokens, 1 << 20), RC_TOO_LARGE);
    assert_int_equal(link_send_tensor(r.conn, tokens, (1 << 20) + 1, (uint8_t[32]){0}), RC_TOO_LARGE);
    assert_int_equal(send_tokens(&r, LINK_DATA, 0, tokens, 200000), RC_OK);
    WAIT(&w, n_messages, 1);
    free(tokens);
    end_close(&r);
    end_close(&w);
}

/* The dialler comes first, is told once what is wrong, connects when the listener appears, and again after it
 * restarted. */
static void test_reconnect(void **state) {
    (void)state;
    struct end r, w;
    struct err e;
    end_open(&r, WEIR__ROLE__ROUTER, (struct link_opts){.seed = 1});
    assert_int_equal(link_dial(r.link, ipc_url, &e), RC_OK);
    WAIT(&r, n_dial_errors, 1);
    usleep(400000);
    assert_int_equal(r.n_dial_errors, 1); /* the same reason is told once */
    for (int round = 1; round <= 3; round++) {
        end_open(&w, WEIR__ROLE__WORKER, (struct link_opts){0});
        assert_int_equal(link_listen(w.link, ipc_url, &e), RC_OK);
        WAIT(&r, n_up, round);
        WAIT(&w, n_up, 1);
        end_close(&w);
        WAIT(&r, n_down, round);
    }
    assert_int_equal(link_stats(r.link).reconnects, 2);
    end_close(&r);
}

static void test_cut_from_callback_and_outside(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){0});
    link_cut(r.conn, "enough");
    WAIT(&r, n_down, 1);
    assert_string_equal(r.down, "enough");
    WAIT(&w, n_down, 1);
    WAIT(&r, n_up, 2); /* the dialler comes back */
    WAIT(&w, n_up, 2);
    end_close(&w);
    end_close(&r);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        Weir__Role role;
        const char *worker_secret, *router_secret, *want;
    } cases[] = {
        {WEIR__ROLE__WORKER, "", "", "a worker cannot talk to a worker"},
        {WEIR__ROLE__ROUTER, "right", "wrong", "cluster token"},
        {WEIR__ROLE__ROUTER, "right", "", "cluster token"},
        {WEIR__ROLE__ROUTER, "", "right", "cluster token"},
    };
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct end r, w;
        end_open(&w, WEIR__ROLE__WORKER, (struct link_opts){.secret = str_of(cases[i].worker_secret)});
        assert_int_equal(link_listen(w.link, ipc_url, &e), RC_OK);
        end_open(&r, cases[i].role, (struct link_opts){.secret = str_of(cases[i].router_secret)});
        assert_int_equal(link_dial(r.link, ipc_url, &e), RC_OK);
        WAIT(&r, n_dial_errors, 1);
        if (!strstr(r.dial_error, cases[i].want))
            fail_msg("%zu: %s", i, r.dial_error);
        assert_int_equal(r.n_up, 0);
        end_close(&r);
        end_close(&w);
    }
}

static void test_addresses(void **state) {
    (void)state;
    struct end w, other;
    struct err e;
    end_open(&w, WEIR__ROLE__WORKER, (struct link_opts){0});
    assert_int_equal(link_dial(w.link, "tls+tcp://h:1", &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "tls+tcp"));
    static const char *const bad[] = {
        "",        "ipc://",   "http://x",      "tcp:/x",    "inproc://x", "127.0.0.1:80",
        "tcp://h", "tcp://h:", "tcp://h:65536", "tcp://h:1x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(link_dial(w.link, bad[i], &e), RC_INVALID);
        assert_int_equal(link_listen(w.link, bad[i], &e), RC_INVALID);
    }
    char url[400];
    snprintf(url, sizeof url, "ipc:///%0300d", 0);
    assert_int_equal(link_listen(w.link, url, &e), RC_INVALID);

    /* A file that is no socket stays; a stale socket is replaced; a live one is not. */
    FILE *f = fopen(ipc_url + 6, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(link_listen(w.link, ipc_url, &e), RC_IO);
    assert_non_null(strstr(e.msg, "no socket"));
    unlink(ipc_url + 6);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", ipc_url + 6);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd);
    assert_int_equal(link_listen(w.link, ipc_url, &e), RC_OK);
    end_open(&other, WEIR__ROLE__WORKER, (struct link_opts){0});
    assert_int_equal(link_listen(other.link, ipc_url, &e), RC_IO);
    assert_non_null(strstr(e.msg, "another process listens"));
    assert_int_equal(link_listen(w.link, "tcp://127.0.0.1:0", &e), RC_OK);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", link_listen_port(w.link));
    assert_int_equal(link_listen(other.link, url, &e), RC_IO);
    end_close(&other);
    end_close(&w);
}

/* Many threads send on one connection while it is cut and comes back. */
static void *send_until(void *arg) {
    struct end *x = arg;
    for (int i = 0; i < 3000; i++) {
        pthread_mutex_lock(&x->mu);
        struct link_conn *c = link_hold(x->conn);
        pthread_mutex_unlock(&x->mu);
        Weir__KvSnapshotGet m = WEIR__KV_SNAPSHOT_GET__INIT;
        enum rc rc = link_send(c, i % 2 ? LINK_DATA : LINK_CONTROL, WEIR__ENVELOPE__BODY_KV_SNAPSHOT_GET, &m);
        assert_true(rc == RC_OK || rc == RC_CLOSED);
        if (i % 1000 == 500)
            link_cut(c, "test");
        link_drop(c);
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct end r, w;
    pair_open(&r, &w, (struct link_opts){0});
    pthread_t t[4];
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_create(&t[i], NULL, send_until, &r);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_join(t[i], NULL);
    WAIT(&r, n_down, 1);
    assert_int_equal(link_stats(w.link).cuts, 0);
    end_close(&r);
    end_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ipc, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overtaking, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reconnect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_from_callback_and_outside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
