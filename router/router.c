/* The router as a whole: socket, threads, drain. */
#include "router/router.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "common/gram/gram.h"
#include "common/link/secure.h"
#include "common/log.h"
#include "router/api/processors.h"
#include "router/admit.h"
#include "router/auth.h"
#include "router/core.h"
#include "router/cors.h"
#include "router/listen.h"
#include "router/offload.h"
#include "router/session.h"
#include "router/tls.h"
#include "router/trace/tracer.h"

enum { POOL_QUEUE_MAX = 8192, SILENCE_TICK_MS = 200, DRAIN_TICK_MS = 20 };

/* ---- set-up ------------------------------------------------------------------------------------------ */

/* read_link: what workers are shown. */
static enum rc read_link(struct router *r, struct err *e) {
    const struct router_opts *o = r->opts;
    struct buf secret = {0};
    enum rc rc = link_secret_read(o->cluster_token_file, &secret, e);
    if (rc == RC_OK)
        rc = link_tls_new(&r->link_tls,
                          &(struct link_tls_files){.ca = o->cluster_tls_ca,
                                                   .cert = o->cluster_tls_certfile,
                                                   .key = o->cluster_tls_keyfile,
                                                   .name = o->cluster_tls_name},
                          e);
    if (rc == RC_OK && secret.len)
        r->secret = buf_take(&secret);
    buf_fini(&secret);
    return rc;
}

/* raise_descriptors: a connection is one; the soft limit is often lower than --max-connections. */
static void raise_descriptors(void) {
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
}

static size_t input_limit(const struct router_opts *o) {
    struct sysinfo s;
    size_t quarter = sysinfo(&s) == 0 ? (size_t)s.totalram * s.mem_unit / 4 : GIB;
    return MAX(MIN(quarter, 4 * GIB), 2 * o->limit.body_bytes);
}

static void post(void *arg, unsigned loop, struct loop_msg *m) {
    struct router *r = arg;
    loop_post(&r->loops[loop], m);
}

static bool post_counted(void *arg, unsigned loop, struct loop_msg *m, size_t n_bytes) {
    struct router *r = arg;
    struct loop *l = &r->loops[loop];
    if (atomic_fetch_add(&l->backlog_bytes, n_bytes) + n_bytes > LOOP_BACKLOG_BYTES_MAX) {
        atomic_fetch_sub(&l->backlog_bytes, n_bytes);
        return false;
    }
    loop_post(l, m);
    return true;
}

static void fleet_changed(void *arg) {
    struct router *r = arg;
    if (r->on_change)
        r->on_change(r->on_change_arg);
}

enum rc router_new(struct router **out, const struct router_opts *opts, struct err *e) {
    struct router *r = xcalloc(1, sizeof *r);
    r->opts = opts;
    r->listen_fd = r->shutdown_fd = -1;
    pthread_mutex_init(&r->note_lock, NULL);
    enum rc rc = read_link(r, e);
    if (rc == RC_OK)
        rc = auth_new(&r->auth, &opts->api_keys, opts->api_key_file, e);
    if (rc == RC_OK)
        rc = cors_new(&r->cors, opts, e);
    if (rc == RC_OK)
        rc = route_root(opts->root_path, &r->root, e);
    if (rc == RC_OK)
        rc = tls_new(&r->tls, opts, e);
    if (rc == RC_OK)
        rc = processor_names_new(&r->env.processor_names, opts->logits_processor_pattern, e);
    if (rc == RC_OK && opts->otlp_endpoint)
        rc = tracer_check(opts->otlp_endpoint, e);
    if (rc == RC_OK)
        rc = listen_open(opts, &r->listen_fd, &r->port, e);
    if (rc != RC_OK) {
        gram_drop(r->env.processor_names);
        auth_free(r->auth);
        cors_free(r->cors);
        tls_free(r->tls);
        free(r->root);
        free(r->secret);
        link_tls_free(r->link_tls);
        pthread_mutex_destroy(&r->note_lock);
        free(r);
        return rc;
    }
    raise_descriptors();
    (void)signal(SIGPIPE, SIG_IGN); /* h2o writes with writev */
    r->shutdown_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(r->shutdown_fd >= 0);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    r->n_loops = (unsigned)(opts->threads > 0 ? opts->threads : MAX(cores, 1));
    r->n_loops = MIN(r->n_loops, (unsigned)HANDLE_LOOPS_MAX);
    r->input_bytes_max = input_limit(opts);
    r->metrics = rmetrics_new();
    CHECK(!opts->otlp_endpoint || tracer_new(&r->tracer, opts->otlp_endpoint, r->metrics, e) == RC_OK); /* was checked */
    r->pool = pool_new(MAX(r->n_loops, 2u), POOL_QUEUE_MAX);
    r->env.opts = opts;
    r->env.find_model = offload_find_model;
    r->env.end_transfer = offload_end_transfer;
    r->env.arg = r;
    server_init(r);
    r->loops = xcalloc(r->n_loops, sizeof *r->loops);
    for (unsigned i = 0; i < r->n_loops; i++)
        loop_init(&r->loops[i], r, i);
    r->fleet = fleet_new(&(struct fleet_opts){
        .opts = opts,
        .secret = str_of(r->secret),
        .tls = r->link_tls,
        .pool = r->pool,
        .metrics = r->metrics,
        .n_loops = r->n_loops,
        .arg = r,
        .post = post,
        .post_counted = post_counted,
        .on_batch = session_on_batch,
        .on_reject = session_on_reject,
        .on_pool = session_on_pool,
        .on_lost = session_on_lost,
        .on_slow = session_on_slow,
        .on_change = fleet_changed,
        .moves_kv = &r->env.moves_kv,
    });
    fleet_set_tenants(r->fleet, admit_tenants(r));
    *out = r;
    return RC_OK;
}

void router_free(struct router *r) {
    if (!r)
        return;
    fleet_stop(r->fleet);
    pool_free(r->pool); /* runs what is queued; answers go to inboxes that loop_fini empties */
    for (unsigned i = 0; i < 2 * r->n_loops;
         i++) /* twice: a round through the loops comes back to its first */
        loop_drain(&r->loops[i % r->n_loops]);
    for (unsigned i = 0; i < r->n_loops; i++)
        loop_fini(&r->loops[i]);
    fleet_free(r->fleet);
    link_tls_free(r->link_tls);
    gram_drop(r->env.processor_names);
    h2o_config_dispose(&r->conf);
    tracer_free(r->tracer);
    rmetrics_free(r->metrics);
    listen_close(r->opts, r->listen_fd);
    close(r->shutdown_fd);
    pthread_mutex_destroy(&r->note_lock);
    auth_free(r->auth);
    cors_free(r->cors);
    tls_free(r->tls);
    free(r->root);
    free(r->loops);
    free(r->secret);
    free(r);
}

int router_port(const struct router *r) {
    return r->port;
}

/* ---- running and draining ---------------------------------------------------------------------------- */

struct expire {
    struct loop_msg msg;
};

static bool expire_step(struct loop *l, struct loop_msg *m) {
    session_end_all(l);
    free(CONTAINER_OF(m, struct expire, msg));
    return true;
}

static void wake_all(struct router *r) {
    for (unsigned i = 0; i < r->n_loops; i++)
        inbox_wake(&r->loops[i].inbox);
}

static void refresh_tls(struct router *r, bool forced) {
    struct err e;
    switch (tls_refresh(r->tls, forced, &e)) {
    case TLS_LOADED:
        LOG(LOG_INFO, "certificates read again");
        break;
    case TLS_FAILED:
        LOG(LOG_ERROR, "the certificates stay as they were", F_STR("reason", e.msg));
        break;
    case TLS_SAME:
        break;
    }
}

/* refresh_keys: forced: even if the file has not changed. */
static void refresh_keys(struct router *r, bool forced) {
    struct err e;
    size_t n;
    if (!r->opts->api_key_file || (!forced && !auth_changed(r->auth)))
        return;
    if (auth_reload(r->auth, &n, &e) == RC_OK)
        LOG(LOG_INFO, "keys read again", F_U64("keys", n));
    else
        LOG(LOG_ERROR, "the keys stay as they were", F_STR("reason", e.msg));
    fleet_set_tenants(r->fleet, admit_tenants(r));
}

static void reload(struct router *r) {
    refresh_tls(r, true);
    refresh_keys(r, true);
}

/* wait_signal: sleeps until something is asked for, or timeout_ms. */
static void wait_signal(struct router *r, int timeout_ms) {
    struct pollfd p = {.fd = r->shutdown_fd, .events = POLLIN};
    uint64_t n;
    if (poll(&p, 1, timeout_ms) > 0)
        (void)!read(r->shutdown_fd, &n, sizeof n);
    if (atomic_exchange(&r->reload_due, false))
        reload(r);
}

/* drain: until nothing is in flight, the time is over, or a second shutdown. */
static void drain(struct router *r) {
    uint64_t begin = clock_ns(), limit_ns = (uint64_t)(r->opts->shutdown_timeout_s * (double)NS_PER_S);
    bool expired = false;
    atomic_store(&r->draining, true);
    if (atomic_load(&r->n_inference) > 0)
        LOG(LOG_INFO, "draining", F_U64("requests", atomic_load(&r->n_inference)),
            F_F64("limit_s", r->opts->shutdown_timeout_s));
    while (atomic_load(&r->n_shutdowns) < 2) {
        uint64_t spent = clock_ns() - begin;
        if (atomic_load(&r->n_inference) == 0 || spent > limit_ns + NS_PER_S)
            break;
        if (!expired && spent > limit_ns) {
            expired = true;
            for (unsigned i = 0; i < r->n_loops; i++) {
                struct expire *x = xcalloc(1, sizeof *x);
                x->msg.step = expire_step;
                loop_post(&r->loops[i], &x->msg);
            }
        }
        wait_signal(r, DRAIN_TICK_MS);
        fleet_cut_silent(r->fleet);
    }
}

/* trim: JSON of 30 MB is some 300 MB of small pieces while it is read. Freed, they stay with the allocator,
 * for ever where one piece among them lives on, unless it is told to give the pages between back. */
static void trim(struct router *r) {
    if (atomic_load(&r->body_bytes) == 0 && atomic_exchange(&r->trim_due, false))
        malloc_trim(0);
}

bool router_run(struct router *r) {
    struct err e;
    CHECK(!r->started);
    r->started = true;
    for (unsigned i = 0; i < r->n_loops; i++)
        CHECK(pthread_create(&r->loops[i].thread, NULL, loop_main, &r->loops[i]) == 0);
    for (size_t i = 0; i < r->opts->workers.n; i++) {
        if (router_dial(r, r->opts->workers.v[i], &e) != RC_OK)
            LOG(LOG_ERROR, "a worker's address cannot be used", F_STR("address", r->opts->workers.v[i]),
                F_STR("reason", e.msg));
    }
    for (uint64_t tick_ns = clock_ns(); atomic_load(&r->n_shutdowns) == 0;) {
        wait_signal(r, SILENCE_TICK_MS);
        fleet_cut_silent(r->fleet);
        if (clock_ns() - tick_ns < NS_PER_S)
            continue;
        fleet_tick(r->fleet);
        trim(r);
        refresh_tls(r, false);
        refresh_keys(r, false);
        tick_ns = clock_ns();
    }
    drain(r);
    atomic_store_explicit(&r->stopping, true, memory_order_release);
    wake_all(r);
    for (unsigned i = 0; i < r->n_loops; i++)
        pthread_join(r->loops[i].thread, NULL);
    return atomic_load(&r->n_shutdowns) < 2;
}

/* rouse: wakes router_run; in a signal handler, too. */
static void rouse(struct router *r) {
    uint64_t one = 1;
    int saved = errno;
    (void)!write(r->shutdown_fd, &one, sizeof one);
    errno = saved;
}

void router_shutdown(struct router *r) {
    atomic_fetch_add(&r->n_shutdowns, 1);
    rouse(r);
}

void router_reload(struct router *r) {
    atomic_store(&r->reload_due, true);
    rouse(r);
}

/* ---- the launcher's side ----------------------------------------------------------------------------- */

enum rc router_dial(struct router *r, const char *url, struct err *e) {
    return fleet_dial(r->fleet, url, e);
}

void router_undial(struct router *r, const char *url) {
    fleet_undial(r->fleet, url);
}

bool router_worker_up(struct router *r, const char *url) {
    return fleet_is_up(r->fleet, url);
}

bool router_worker_ready(struct router *r, const char *url) {
    return fleet_is_ready(r->fleet, url);
}

void router_note_worker_state(struct router *r, const char *line) {
    char note[sizeof r->note];
    snprintf(note, sizeof note, "%s", line ? line : "");
    for (char *p = note; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    }
    pthread_mutex_lock(&r->note_lock);
    memcpy(r->note, note, sizeof note);
    pthread_mutex_unlock(&r->note_lock);
}

void router_progress(struct router *r, struct router_progress *out) {
    fleet_progress(r->fleet, out);
}

void router_on_change(struct router *r, void (*fn)(void *arg), void *arg) {
    r->on_change = fn;
    r->on_change_arg = arg;
}

unsigned router_request_count(const struct router *r) {
    return atomic_load(&r->n_inference);
}
