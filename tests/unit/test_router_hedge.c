/* Workers that requests leave before they are lost: one that makes no progress (--hedge-after), and one whose address is no
 * longer named (--worker-drain-timeout).
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

#include "tests/support/fake_worker.h"
#include "tests/support/router_rig.h"

enum { N_TOKENS = 600, N_SAID = 3 };
static const char ask[] = "{\"prompt\":\"hello\",\"max_tokens\":600,\"stream\":true}";

/* ---- a worker that says a little and stops ----------------------------------------------------------- */

/* stopped: on_submit's argument: the first worker says N_SAID tokens of each request, and remembers where it was. */
struct stopped {
    pthread_mutex_t lock;
    struct link_conn *conn; /* held */
    uint64_t stream;
    unsigned n;
};

static bool stop_early(void *arg, struct fake_worker *f, struct link_conn *c, const Weir__Submit *m) {
    struct stopped *x = arg;
    (void)f;
    for (uint32_t i = 0; i < N_SAID; i++)
        fake_send(c, m->stream, 40 + i, 0);
    pthread_mutex_lock(&x->lock);
    if (x->conn)
        link_drop(x->conn);
    x->conn = link_hold(c);
    x->stream = m->stream;
    x->n++;
    pthread_mutex_unlock(&x->lock);
    return true;
}

static unsigned n_stopped(struct stopped *x) {
    pthread_mutex_lock(&x->lock);
    unsigned n = x->n;
    pthread_mutex_unlock(&x->lock);
    return n;
}

struct world {
    struct router_rig rig;
    struct fake_worker *first, *second;
    char second_url[160];
    int port;
};

static void world_start(struct world *w, struct fake_opts f) {
    f.url = w->rig.url;
    w->first = fake_worker_new(&f);
    router_rig_start(&w->rig);
    w->port = router_port(w->rig.router);
    router_rig_wait_ready(&w->rig);
}

static bool second_ready(void *arg) {
    struct world *w = arg;
    return router_worker_ready(w->rig.router, w->second_url);
}

static void add_second(struct world *w) {
    struct err e;
    snprintf(w->second_url, sizeof w->second_url, "%s-b", w->rig.url);
    w->second = fake_worker_new(&(struct fake_opts){.url = w->second_url});
    assert_int_equal(router_dial(w->rig.router, w->second_url, &e), RC_OK);
    assert_true(rig_until(second_ready, w));
}

static void world_stop(struct world *w) {
    router_rig_fini(&w->rig);
    fake_worker_free(w->first);
    fake_worker_free(w->second);
}

static int open_ask(int port) {
    struct buf text = {0};
    int fd = http_open(port);
    http_post_text("/v1/completions", ask, &text);
    http_send(fd, text.data, text.len);
    buf_fini(&text);
    return fd;
}

/* take: the text of the whole stream, which ends well. */
static void take(int fd, struct buf *out) {
    struct buf rest = {0};
    struct http_answer a;
    http_read(fd, &rest, false, &a);
    assert_int_equal(a.status, 200);
    assert_null(strstr(buf_cstr(&a.body), "\"error\""));
    out->len = 0;
    for (const char *p = a.body.data; (p = strstr(p, "\"text\":\""));) {
        p += 8;
        buf_add(out, p, (size_t)(strchr(p, '"') - p));
    }
    assert_non_null(strstr(a.body.data, "\"finish_reason\":\"length\""));
    http_answer_fini(&a);
    buf_fini(&rest);
    close(fd);
}

static double metric(int port, const char *name) {
    struct http_answer a;
    char line[200];
    http_get(port, "/metrics", &a);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *p = strstr(buf_cstr(&a.body), line);
    assert_non_null(p);
    double v = strtod(p + strlen(line), NULL);
    http_answer_fini(&a);
    return v;
}

static bool has_dropped(void *arg) {
    struct world *w = arg;
    return metric(w->port, "weir_dropped_outputs_total") >= 2;
}

/* What the other worker makes of it is what the first would have; what the first says after all goes nowhere. */
static void test_hedged(void **state) {
    struct stopped at = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct world w = {.second = NULL};
    struct buf got = {0}, want = {0};
    (void)state;
    router_rig_init(&w.rig);
    w.rig.opts.hedge_after_s = 0.5;
    world_start(&w, (struct fake_opts){.arg = &at, .on_submit = stop_early, .stall_ns = 5000000000});
    int fd = open_ask(w.port);
    while (n_stopped(&at) < 1)
        usleep(1000);
    add_second(&w);
    while (fake_worker_submits(w.second) < 1)
        usleep(1000);
    pthread_mutex_lock(&at.lock);
    fake_send(at.conn, at.stream, 99, 0);
    fake_send(at.conn, at.stream, 98, WEIR__FINISH__REASON__STOP);
    pthread_mutex_unlock(&at.lock);
    take(fd, &got);
    assert_true(rig_until(has_dropped, &w));
    assert_true(metric(w.port, "weir_hedges_total") == 1);
    assert_true(metric(w.port, "weir_failovers_total{outcome=\"ok\"}") == 0);
    assert_int_equal(fake_worker_aborts(w.first), 1);
    assert_true(router_worker_up(w.rig.router, w.rig.url)); /* it is not gone */
    /* A worker in doubt is a last resort: the next requests go past it. */
    take(open_ask(w.port), &want);
    assert_int_equal(n_stopped(&at), 1);
    assert_string_equal(buf_cstr(&got), buf_cstr(&want));
    assert_true(want.len >= N_TOKENS);
    link_drop(at.conn);
    buf_fini(&got);
    buf_fini(&want);
    world_stop(&w);
}

/* Without the flag, or without another worker, a request stays where it is. */
static void test_not_hedged(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct stopped at = {.lock = PTHREAD_MUTEX_INITIALIZER};
        struct world w = {.second = NULL};
        router_rig_init(&w.rig);
        w.rig.opts.hedge_after_s = i ? 0.5 : 0;
        world_start(&w, (struct fake_opts){.arg = &at, .on_submit = stop_early, .stall_ns = 5000000000});
        int fd = open_ask(w.port);
        while (n_stopped(&at) < 1)
            usleep(1000);
        if (i == 0)
            add_second(&w);
        usleep(1200000);
        assert_true(metric(w.port, "weir_hedges_total") == 0);
        assert_int_equal(fake_worker_aborts(w.first), 0);
        close(fd);
        link_drop(at.conn);
        world_stop(&w);
    }
}

/* ---- a worker whose address is gone ------------------------------------------------------------------ */

static bool first_down(void *arg) {
    struct world *w = arg;
    return !router_worker_up(w->rig.router, w->rig.url);
}

/* leave: a request runs at the first worker, whose address then goes; the second one is there. */
static int leave(struct world *w, double limit_s) {
    router_rig_init(&w->rig);
    w->rig.opts.worker_drain_timeout_s = limit_s;
    world_start(w, (struct fake_opts){.step_us = 4000});
    int fd = open_ask(w->port);
    while (fake_worker_live(w->first) < 1)
        usleep(1000);
    add_second(w);
    router_undial(w->rig.router, w->rig.url);
    return fd;
}

static void test_leaves_when_done(void **state) {
    struct world w;
    struct buf got = {0}, want = {0};
    (void)state;
    int fd = leave(&w, 60);
    assert_true(router_worker_up(w.rig.router, w.rig.url) && !router_worker_ready(w.rig.router, w.rig.url));
    take(open_ask(w.port), &want);
    assert_int_equal(fake_worker_submits(w.second), 1); /* what is new goes to the other one */
    take(fd, &got);
    assert_int_equal(fake_worker_submits(w.second), 1);
    assert_int_equal(fake_worker_submits(w.first), 1);
    assert_string_equal(buf_cstr(&got), buf_cstr(&want));
    assert_true(rig_until(first_down, &w));
    assert_true(metric(w.port, "weir_failovers_total{outcome=\"ok\"}") == 0);
    buf_fini(&got);
    buf_fini(&want);
    world_stop(&w);
}

static void test_leaves_in_the_end(void **state) {
    struct world w;
    struct buf got = {0}, want = {0};
    (void)state;
    int fd = leave(&w, 0.1);
    take(fd, &got);
    assert_true(rig_until(first_down, &w));
    assert_int_equal(fake_worker_submits(w.second), 1);
    take(open_ask(w.port), &want);
    assert_string_equal(buf_cstr(&got), buf_cstr(&want));
    assert_true(metric(w.port, "weir_failovers_total{outcome=\"ok\"}") == 1);
    buf_fini(&got);
    buf_fini(&want);
    world_stop(&w);
}

static void test_comes_back(void **state) {
    struct world w;
    struct buf got = {0};
    struct err e;
    (void)state;
    int fd = leave(&w, 60);
    assert_int_equal(router_dial(w.rig.router, w.rig.url, &e), RC_OK);
    assert_true(router_worker_ready(w.rig.router, w.rig.url));
    take(fd, &got);
    usleep(500000); /* longer than the router takes to look */
    assert_true(router_worker_ready(w.rig.router, w.rig.url));
    /* Idle, it goes at once. */
    router_undial(w.rig.router, w.rig.url);
    assert_true(rig_until(first_down, &w));
    buf_fini(&got);
    world_stop(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hedged),          cmocka_unit_test(test_not_hedged), cmocka_unit_test(test_leaves_when_done),
        cmocka_unit_test(test_leaves_in_the_end), cmocka_unit_test(test_comes_back),
    };
    return cmocka_run_group_tests_name("router hedge", tests, NULL, NULL);
}
