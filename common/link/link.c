#include "common/link/link.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/hash.h"
#include "common/link/conn.h"
#include "common/link/secure.h"
#include "common/log.h"

enum { DIAL_TIMEOUT_MS = 5000, BACKOFF_FIRST_MS = 50, BACKOFF_LAST_MS = 2000, ACCEPT_RETRY_MS = 100 };

/* ---- diallers --------------------------------------------------------------------------------------- */

/* backoff_ns: 50 ms doubled per failure up to 2 s, of which a random half is taken off. Under l->mu. */
static uint64_t backoff_ns(struct link *l, unsigned n_failed) {
    uint64_t ms =
        MIN((uint64_t)BACKOFF_FIRST_MS << MIN(MAX(n_failed, 1u) - 1, 10u), (uint64_t)BACKOFF_LAST_MS);
    l->jitter = hash_u64(l->jitter + 0x9E3779B97F4A7C15ull);
    return ms * NS_PER_MS / 2 + l->jitter % (ms * NS_PER_MS / 2);
}

bool link_dial_failed(struct link_dialler *d, const char *reason) {
    uint64_t h = hash_fast(reason, strlen(reason), 0);
    if (d->stopped || d->l->stopping)
        return false;
    for (size_t i = 0; i < d->n_reported; i++)
        if (d->reported[i] == h)
            return false;
    if (d->n_reported == ARRAY_LEN(d->reported))
        return false;
    d->reported[d->n_reported++] = h;
    return true;
}

/* dial_later: the dialler has no connection any more. stable: it had one, for a while. Under l->mu. */
static void dial_later(struct link_dialler *d, bool stable) {
    d->conn = NULL;
    d->busy = false;
    d->n_failed = stable ? 0 : d->n_failed + 1;
    d->due_ns = clock_ns() + backoff_ns(d->l, d->n_failed);
}

static void on_dialled(void *arg) {
    struct link_dialler *d = arg;
    struct link *l = d->l;
    int rv = nng_aio_result(d->aio);
    const char *reason = rv ? nng_strerror(rv) : "no room for another connection";
    if (rv == 0 && conn_start(l, nng_aio_get_output(d->aio, 0), d->url, d))
        return;
    pthread_mutex_lock(&l->mu);
    bool tell = link_dial_failed(d, reason);
    pthread_mutex_unlock(&l->mu);
    if (tell && l->o.on_dial_error)
        l->o.on_dial_error(l->o.arg, d->url, reason);
    pthread_mutex_lock(&l->mu);
    dial_later(d, false);
    pthread_mutex_unlock(&l->mu);
    link_poke(l);
}

static void dialler_free(struct link_dialler *d) {
    if (!d)
        return;
    nng_aio_free(d->aio);
    if (d->d)
        nng_stream_dialer_free(d->d);
    if (d->tls)
        nng_tls_config_free(d->tls);
    free(d->url);
    free(d);
}

/* dialler_alloc: nng's part for one attempt. An error of nng's. */
static int dialler_alloc(struct link_dialler *d) {
    int rv = nng_stream_dialer_alloc(&d->d, d->url);
    if (rv || !d->tls)
        return rv;
    rv = nng_stream_dialer_set_ptr(d->d, NNG_OPT_TLS_CONFIG, d->tls); /* which it holds */
    if (rv) {
        nng_stream_dialer_free(d->d);
        d->d = NULL;
    }
    return rv;
}

/* The schemes that are offered; nng knows more. */
enum rc link_check_url(const char *url, struct err *e) {
    struct str u = str_of(url);
    struct sockaddr_un un;
    if (str_starts(u, STR_LIT("ipc://"))) {
        if (u.n - 6 > 0 && u.n - 6 < sizeof un.sun_path)
            return RC_OK;
        return err_set(e, RC_INVALID, NULL, "%.200s: the path must have 1 to %zu bytes", url,
                       sizeof un.sun_path - 1);
    }
    if (str_starts(u, STR_LIT("tcp://")) || link_is_tls(url)) {
        const char *colon = strrchr(strstr(url, "://") + 3, ':'), *digits = colon ? colon + 1 : "";
        size_t n = strspn(digits, "0123456789");
        if (n >= 1 && n <= 5 && !digits[n] && atoi(digits) <= UINT16_MAX)
            return RC_OK;
        return err_set(e, RC_INVALID, NULL, "%.200s: the port must be a number up to %d", url, UINT16_MAX);
    }
    return err_set(e, RC_INVALID, NULL, "%.200s: an address is ipc://PATH, tcp://HOST:PORT or tls+tcp://HOST:PORT", url);
}

static struct link_dialler *find_dialler(struct link *l, const char *url) {
    for (struct link_dialler *d = l->diallers; d; d = d->next)
        if (!d->stopped && strcmp(d->url, url) == 0)
            return d;
    return NULL;
}

enum rc link_dial(struct link *l, const char *url, struct err *e) {
    enum rc rc = link_check_url(url, e);
    if (rc)
        return rc;
    struct link_dialler *d = xcalloc(1, sizeof *d);
    d->l = l;
    d->url = xstrdup(url);
    rc = link_is_tls(url) ? link_tls_client(l->o.tls, url, &d->tls, e) : RC_OK;
    if (rc)
        goto out;
    int rv = dialler_alloc(d); /* tried here, so that a bad address is told at once */
    if (!rv)
        rv = nng_aio_alloc(&d->aio, on_dialled, d);
    if (rv) {
        rc = err_set(e, RC_INVALID, NULL, "%.200s: %s", url, nng_strerror(rv));
        goto out;
    }
    nng_aio_set_timeout(d->aio, DIAL_TIMEOUT_MS);
    pthread_mutex_lock(&l->mu);
    if (find_dialler(l, url)) {
        rc = err_set(e, RC_INVALID, NULL, "%.200s: already dialled", url);
    } else {
        d->next = l->diallers;
        l->diallers = d;
        d = NULL;
    }
    pthread_mutex_unlock(&l->mu);
    link_poke(l);
out:
    dialler_free(d);
    return rc;
}

void link_undial(struct link *l, const char *url) {
    struct link_conn *c = NULL;
    pthread_mutex_lock(&l->mu);
    struct link_dialler *d = find_dialler(l, url);
    if (d) {
        d->stopped = true;
        if (d->busy)
            nng_stream_dialer_close(d->d);
        if (d->conn)
            c = link_hold(d->conn);
    }
    pthread_mutex_unlock(&l->mu);
    if (c)
        conn_end(c, "no longer dialled", false);
    link_drop(c);
    link_poke(l);
}

/* ---- listeners -------------------------------------------------------------------------------------- */

static void on_accepted(void *arg) {
    struct link_listener *n = arg;
    struct link *l = n->l;
    int rv = nng_aio_result(n->aio);
    if (rv == 0 && !conn_start(l, nng_aio_get_output(n->aio, 0), n->url, NULL))
        atomic_fetch_add_explicit(&l->n.cuts, 1, memory_order_relaxed);
    pthread_mutex_lock(&l->mu);
    if (rv == 0 && !l->stopping) {
        nng_stream_listener_accept(n->s, n->aio);
    } else {
        /* Mostly no descriptors left: try again shortly, when some may have been closed. */
        n->accepting = false;
        n->due_ns = clock_ns() + ACCEPT_RETRY_MS * NS_PER_MS;
    }
    pthread_mutex_unlock(&l->mu);
    if (rv != 0)
        link_poke(l);
}

static void listener_free(struct link_listener *n) {
    if (n->s)
        nng_stream_listener_close(n->s);
    nng_aio_free(n->aio);
    if (n->s)
        nng_stream_listener_free(n->s);
    free(n->url);
    free(n);
}

/* clear_stale: a socket file that nobody answers on is removed; anything else in the way is an error. */
static enum rc clear_stale(const char *path, struct err *e) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? RC_OK : err_io(e, path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, RC_IO, NULL, "%.200s: exists and is no socket", path);
    memcpy(un.sun_path, path, strlen(path)); /* check_url saw the length */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_io(e, "socket");
    bool stale = connect(fd, (const struct sockaddr *)&un, sizeof un) != 0 && errno == ECONNREFUSED;
    close(fd);
    if (!stale)
        return err_set(e, RC_IO, NULL, "%.200s: another process listens there", path);
    return unlink(path) == 0 || errno == ENOENT ? RC_OK : err_io(e, path);
}

enum rc link_listen(struct link *l, const char *url, struct err *e) {
    bool ipc = str_starts(str_of(url), STR_LIT("ipc://"));
    enum rc rc = link_check_url(url, e);
    if (!rc && ipc)
        rc = clear_stale(url + 6, e);
    if (rc)
        return rc;
    struct link_listener *n = xcalloc(1, sizeof *n);
    n->l = l;
    n->url = xstrdup(url);
    nng_tls_config *tls = NULL;
    rc = link_is_tls(url) ? link_tls_server(l->o.tls, &tls, e) : RC_OK;
    if (rc) {
        listener_free(n);
        return rc;
    }
    int rv = nng_stream_listener_alloc(&n->s, url);
    if (!rv && tls)
        rv = nng_stream_listener_set_ptr(n->s, NNG_OPT_TLS_CONFIG, tls);
    if (tls)
        nng_tls_config_free(tls); /* the listener holds it */
    if (!rv && ipc)
        rv = nng_stream_listener_set_int(n->s, NNG_OPT_IPC_PERMISSIONS, 0600);
    if (!rv)
        rv = nng_aio_alloc(&n->aio, on_accepted, n);
    if (!rv)
        rv = nng_stream_listener_listen(n->s);
    if (rv) {
        listener_free(n);
        return err_set(e, RC_IO, NULL, "%.200s: %s", url, nng_strerror(rv));
    }
    pthread_mutex_lock(&l->mu);
    n->accepting = true;
    n->next = l->listeners;
    l->listeners = n;
    nng_stream_listener_accept(n->s, n->aio);
    pthread_mutex_unlock(&l->mu);
    return RC_OK;
}

int link_listen_port(const struct link *l) {
    struct link *m = (struct link *)(uintptr_t)l; /* the mutex is no part of what const promises */
    int port = 0;
    pthread_mutex_lock(&m->mu);
    for (struct link_listener *n = m->listeners; n && port == 0; n = n->next)
        if ((str_starts(str_of(n->url), STR_LIT("tcp://")) || link_is_tls(n->url)) &&
            nng_stream_listener_get_int(n->s, NNG_OPT_TCP_BOUND_PORT, &port) != 0)
            port = 0;
    pthread_mutex_unlock(&m->mu);
    return port;
}

/* ---- the keeper ------------------------------------------------------------------------------------- */

void link_poke(struct link *l) {
    pthread_mutex_lock(&l->mu);
    l->poked = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mu);
}

/* take_over: unlinks one connection that is over. Under l->mu. */
static struct link_conn *take_over(struct link *l) {
    for (struct link_conn **at = &l->conns; *at; at = &(*at)->next) {
        struct link_conn *c = *at;
        if (!conn_over(c))
            continue;
        *at = c->next;
        l->n_conns--;
        if (c->dialler) {
            c->via = c->dialler->d;
            c->dialler->d = NULL;
            dial_later(c->dialler, c->up_ns && clock_ns() - c->up_ns >= LINK_STABLE_NS);
        }
        return c;
    }
    return NULL;
}

/* take_stopped: unlinks one dialler that is stopped and idle. Under l->mu. */
static struct link_dialler *take_stopped(struct link *l) {
    for (struct link_dialler **at = &l->diallers; *at; at = &(*at)->next) {
        struct link_dialler *d = *at;
        if (!d->stopped || d->busy)
            continue;
        *at = d->next;
        return d;
    }
    return NULL;
}

static void reap(struct link *l) {
    for (;;) {
        pthread_mutex_lock(&l->mu);
        struct link_conn *c = take_over(l);
        struct link_dialler *d = take_stopped(l);
        pthread_mutex_unlock(&l->mu);
        if (!c && !d)
            return;
        if (c)
            conn_reap(c);
        dialler_free(d);
    }
}

/* dial: one attempt, with a dialler of nng's of its own: a used one is tied to the connection it made. Under
 * l->mu. */
static void dial(struct link_dialler *d) {
    if (d->d && d->used)
        nng_stream_dialer_free(d->d);
    if (!d->d || d->used)
        CHECK(dialler_alloc(d) == 0); /* the address was good before: only memory can lack */
    d->used = d->busy = true;
    nng_stream_dialer_dial(d->d, d->aio);
}

/* start_due: attempts and accepts whose time has come; returns when the next one will be. */
static uint64_t start_due(struct link *l, uint64_t now_ns, uint64_t next_ns) {
    pthread_mutex_lock(&l->mu);
    for (struct link_dialler *d = l->diallers; d && !l->stopping; d = d->next) {
        if (d->busy || d->stopped)
            continue;
        if (d->due_ns <= now_ns) {
            dial(d);
        } else {
            next_ns = MIN(next_ns, d->due_ns);
        }
    }
    for (struct link_listener *n = l->listeners; n && !l->stopping; n = n->next) {
        if (n->accepting)
            continue;
        if (n->due_ns <= now_ns) {
            n->accepting = true;
            nng_stream_listener_accept(n->s, n->aio);
        } else {
            next_ns = MIN(next_ns, n->due_ns);
        }
    }
    pthread_mutex_unlock(&l->mu);
    return next_ns;
}

/* for_conns: calls fn for every connection, each held, without the lock. */
static void for_conns(struct link *l, void (*fn)(struct link_conn *, uint64_t), uint64_t arg) {
    pthread_mutex_lock(&l->mu);
    size_t n = 0;
    struct link_conn **held = xcalloc(l->n_conns, sizeof *held);
    for (struct link_conn *c = l->conns; c; c = c->next)
        held[n++] = link_hold(c);
    pthread_mutex_unlock(&l->mu);
    for (size_t i = 0; i < n; i++) {
        fn(held[i], arg);
        link_drop(held[i]);
    }
    free(held);
}

static void wait_until(struct link *l, uint64_t when_ns) {
    struct timespec t = {.tv_sec = (time_t)(when_ns / NS_PER_S), .tv_nsec = (long)(when_ns % NS_PER_S)};
    pthread_mutex_lock(&l->mu);
    while (!l->poked)
        if (pthread_cond_timedwait(&l->wake, &l->mu, &t) != 0)
            break;
    l->poked = false;
    pthread_mutex_unlock(&l->mu);
}

static void *keeper(void *arg) {
    struct link *l = arg;
    uint64_t beat_ns = clock_ns();
    for (;;) {
        uint64_t now_ns = clock_ns();
        if (now_ns >= beat_ns) {
            beat_ns = now_ns + LINK_HEARTBEAT_MS * NS_PER_MS;
            for_conns(l, conn_tick, now_ns);
        }
        reap(l);
        uint64_t next_ns = start_due(l, clock_ns(), beat_ns);
        pthread_mutex_lock(&l->mu);
        bool over = l->stopping && !l->conns && !l->diallers;
        pthread_mutex_unlock(&l->mu);
        if (over)
            return NULL;
        wait_until(l, next_ns);
    }
}

/* ---- life ------------------------------------------------------------------------------------------- */

struct link *link_new(const struct link_opts *o) {
    CHECK(o->on_up && o->on_message && o->on_down);
    CHECK(o->role == WEIR__ROLE__ROUTER || o->role == WEIR__ROLE__WORKER);
    struct link *l = xcalloc(1, sizeof *l);
    struct timespec t;
    l->o = *o;
    l->secret = o->secret.n ? xstrndup(o->secret.p, o->secret.n) : NULL;
    l->o.secret.p = l->secret;
    l->o.message_bytes_max = o->message_bytes_max ? o->message_bytes_max : 64 * MIB;
    l->o.queue_bytes_max = o->queue_bytes_max ? o->queue_bytes_max : 64 * MIB;
    l->o.conns_max = o->conns_max ? o->conns_max : LINK_CONNS_MAX;
    CHECK(l->o.message_bytes_max < UINT32_MAX && l->o.queue_bytes_max < UINT32_MAX);
    fill_random(l->id.b, sizeof l->id.b);
    clock_gettime(CLOCK_REALTIME, &t);
    l->epoch = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
    l->jitter = o->seed;
    while (l->jitter == 0)
        fill_random(&l->jitter, sizeof l->jitter);
    hello_epochs_init(&l->epochs);
    pthread_condattr_t attr;
    CHECK(pthread_condattr_init(&attr) == 0 && pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&l->mu, NULL) == 0 && pthread_cond_init(&l->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
    CHECK(pthread_create(&l->keeper, NULL, keeper, l) == 0);
    return l;
}

static void end_conn(struct link_conn *c, uint64_t unused) {
    (void)unused;
    conn_end(c, "the link was closed", false);
}

void link_free(struct link *l) {
    if (!l)
        return;
    /* No new connections: conn_start refuses them once stopping is seen, and whatever came before is in the
     * list. */
    pthread_mutex_lock(&l->mu);
    l->stopping = true;
    struct link_listener *n = l->listeners;
    l->listeners = NULL;
    for (struct link_dialler *d = l->diallers; d; d = d->next) {
        d->stopped = true;
        if (d->busy)
            nng_stream_dialer_close(d->d);
    }
    pthread_mutex_unlock(&l->mu);
    for (struct link_listener *next; n; n = next) {
        next = n->next;
        listener_free(n);
    }
    for_conns(l, end_conn, 0);
    link_poke(l);
    pthread_join(l->keeper, NULL);
    hello_epochs_fini(&l->epochs);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->mu);
    if (l->secret)
        OPENSSL_cleanse(l->secret, l->o.secret.n);
    free(l->secret);
    free(l);
}

struct id128 link_self(const struct link *l) {
    return l->id;
}

struct link_stats link_stats(const struct link *l) {
    return (struct link_stats){.frames_in = atomic_load(&l->n.frames_in),
                               .frames_out = atomic_load(&l->n.frames_out),
                               .bytes_in = atomic_load(&l->n.bytes_in),
                               .bytes_out = atomic_load(&l->n.bytes_out),
                               .cuts = atomic_load(&l->n.cuts),
                               .reconnects = atomic_load(&l->n.reconnects)};
}
