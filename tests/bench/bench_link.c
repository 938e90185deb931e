/* The link: round trips of a small control message, and bulk in one direction, between two ends in one
 * process. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/link/link.h"
#include "common/log.h"
#include "tests/support/bench.h"

enum { N_TRIPS = 20000, N_BULK = 4000, BULK_TOKENS = 25000, N_SMALL = 300000 };

struct end {
    struct link *link;
    pthread_mutex_t mu;
    pthread_cond_t changed;
    struct link_conn *conn;
    uint64_t n_messages;
    bool echo;
};

static void on_up(void *arg, struct link_conn *c, const struct link_peer *peer) {
    struct end *x = arg;
    (void)peer;
    pthread_mutex_lock(&x->mu);
    x->conn = link_hold(c);
    pthread_cond_signal(&x->changed);
    pthread_mutex_unlock(&x->mu);
}

static void on_message(void *arg, struct link_conn *c, const Weir__Envelope *m) {
    struct end *x = arg;
    if (x->echo && m->body_case == WEIR__ENVELOPE__BODY_CONTROL) {
        Weir__ControlReply r = WEIR__CONTROL_REPLY__INIT;
        CHECK(link_send(c, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL_REPLY, &r) == RC_OK);
    }
    pthread_mutex_lock(&x->mu);
    x->n_messages++;
    pthread_cond_signal(&x->changed);
    pthread_mutex_unlock(&x->mu);
}

static void on_down(void *arg, struct link_conn *c, const char *reason) {
    (void)arg;
    (void)c;
    (void)reason;
}

static void end_open(struct end *x, Weir__Role role) {
    *x = (struct end){.echo = role == WEIR__ROLE__WORKER};
    pthread_mutex_init(&x->mu, NULL);
    pthread_cond_init(&x->changed, NULL);
    x->link = link_new(&(struct link_opts){
        .role = role, .arg = x, .on_up = on_up, .on_message = on_message, .on_down = on_down});
}

static void wait_messages(struct end *x, uint64_t n) {
    pthread_mutex_lock(&x->mu);
    while (x->n_messages < n)
        pthread_cond_wait(&x->changed, &x->mu);
    pthread_mutex_unlock(&x->mu);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void round_trips(struct end *r, const char *transport) {
    double *us = xcalloc(N_TRIPS, sizeof *us);
    char params[160];
    double cpu = bench_cpu_s();
    for (size_t i = 0; i < N_TRIPS; i++) {
        Weir__Control m = WEIR__CONTROL__INIT;
        double t = bench_now_s();
        CHECK(link_send(r->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_CONTROL, &m) == RC_OK);
        wait_messages(r, i + 1);
        us[i] = (bench_now_s() - t) * 1e6;
    }
    cpu = (bench_cpu_s() - cpu) * 1e6 / N_TRIPS;
    qsort(us, N_TRIPS, sizeof *us, by_value);
    snprintf(params, sizeof params, "{\"transport\":\"%s\",\"p99_us\":%.1f,\"cpu_us\":%.1f}", transport,
             us[N_TRIPS * 99 / 100], cpu);
    bench_emit("link.round_trip_us", us[N_TRIPS / 2], "us", params);
    free(us);
}

static void send_all(struct end *x, Weir__Submit *m, size_t n) {
    for (size_t i = 0; i < n;) {
        enum rc rc = link_send(x->conn, LINK_DATA, WEIR__ENVELOPE__BODY_SUBMIT, m);
        CHECK(rc == RC_OK || rc == RC_AGAIN);
        if (rc == RC_AGAIN)
            usleep(200);
        else
            i++;
    }
}

static void bulk(struct end *r, struct end *w, const char *transport) {
    uint32_t *tokens = xcalloc(BULK_TOKENS, sizeof *tokens);
    char params[160];
    Weir__Submit m = WEIR__SUBMIT__INIT;
    m.tokens = tokens;
    for (size_t i = 0; i < BULK_TOKENS; i++)
        tokens[i] = (uint32_t)(i * 31) % 150000;
    m.n_tokens = BULK_TOKENS;
    double bytes = (double)weir__submit__get_packed_size(&m) * N_BULK;
    uint64_t before = w->n_messages;
    double t = bench_now_s();
    send_all(r, &m, N_BULK);
    wait_messages(w, before + N_BULK);
    t = bench_now_s() - t;
    snprintf(params, sizeof params, "{\"transport\":\"%s\",\"message_bytes\":%.0f}", transport,
             bytes / N_BULK);
    bench_emit("link.bulk_mb_s", bytes / t / 1e6, "MB/s", params);
    free(tokens);

    m.n_tokens = 0;
    before = w->n_messages;
    t = bench_now_s();
    send_all(r, &m, N_SMALL);
    wait_messages(w, before + N_SMALL);
    snprintf(params, sizeof params, "{\"transport\":\"%s\"}", transport);
    bench_emit("link.messages_per_s", N_SMALL / (bench_now_s() - t), "1/s", params);
}

static void measure(const char *transport, const char *url) {
    struct end r, w;
    struct err e;
    char dialled[128];
    end_open(&w, WEIR__ROLE__WORKER);
    if (link_listen(w.link, url, &e)) {
        fprintf(stderr, "bench_link: %s\n", e.msg);
        exit(1);
    }
    snprintf(dialled, sizeof dialled, "%s", url);
    if (link_listen_port(w.link))
        snprintf(dialled, sizeof dialled, "tcp://127.0.0.1:%d", link_listen_port(w.link));
    end_open(&r, WEIR__ROLE__ROUTER);
    CHECK(link_dial(r.link, dialled, &e) == RC_OK);
    pthread_mutex_lock(&r.mu);
    while (!r.conn)
        pthread_cond_wait(&r.changed, &r.mu);
    pthread_mutex_unlock(&r.mu);
    round_trips(&r, transport);
    bulk(&r, &w, transport);
    link_free(r.link);
    link_free(w.link);
    link_drop(r.conn);
    link_drop(w.conn);
}

int main(void) {
    char dir[] = "/tmp/weir-bench-link-XXXXXX", url[64];
    log_set_level(LOG_WARN);
    CHECK(mkdtemp(dir));
    snprintf(url, sizeof url, "ipc://%s/s", dir);
    measure("ipc", url);
    unlink(url + 6);
    rmdir(dir);
    measure("tcp", "tcp://127.0.0.1:0");
    return 0;
}
