/* One loop: its thread, its listener, its backlog of messages. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/log.h"
#include "router/conn.h"
#include "router/core.h"
#include "router/http2.h"
#include "router/session.h"
#include "router/tls.h"

enum { ACCEPT_PAUSE_MS = 100, STOP_MS = 1000, STEPS_PER_CLOCK = 8, STEPS_PER_FLUSH = 64 };

#ifdef WEIR_LOOP_WATCH
void loop_watch_end(const char *what, uint64_t begin_ns) {
    uint64_t us = (clock_ns() - begin_ns) / NS_PER_US;
    if (us > LOOP_SLICE_US)
        LOG(LOG_WARN, "slow callback on a loop", F_STR("what", what), F_U64("us", us));
}
#endif

/* ---- messages ---------------------------------------------------------------------------------------- */

void loop_post(struct loop *l, struct loop_msg *m) {
    inbox_post(&l->inbox, m);
}

void loop_queue(struct loop *l, struct loop_msg *m) {
    m->next = NULL;
    if (l->last)
        l->last->next = m;
    else
        l->first = m;
    l->last = m;
}

static void collect(struct loop *l) {
    for (struct loop_msg *m = inbox_take(&l->inbox), *next; m; m = next) {
        next = m->next;
        loop_queue(l, m);
    }
}

static void push(struct loop *l) {
    while (l->n_unpushed) {
        struct link_conn *c = l->unpushed[--l->n_unpushed];
        link_push(c);
        link_drop(c);
    }
}

void loop_push_later(struct loop *l, struct link_conn *c) {
    for (unsigned i = 0; i < l->n_unpushed; i++) {
        if (l->unpushed[i] == c)
            return;
    }
    if (l->n_unpushed == LOOP_UNPUSHED_MAX)
        push(l);
    l->unpushed[l->n_unpushed++] = link_hold(c);
}

static void steps(struct loop *l, uint64_t end_ns) {
    for (unsigned k = 1; l->first && k <= STEPS_PER_FLUSH; k++) {
        struct loop_msg *m = l->first;
        l->first = m->next;
        if (!l->first)
            l->last = NULL;
        if (!m->step(l, m)) {
            m->next = l->first;
            l->first = m;
            if (!l->last)
                l->last = m;
        }
        if (k % STEPS_PER_CLOCK == 0 && (l->now_ns = clock_ns()) >= end_ns)
            return;
    }
}

/* work: the backlog, in order, for at most a slice; what is left waits behind the events that are ready by
 * then. First a number of steps, whose text gathers in the streams, then the writes: each of the two has the
 * caches for itself, and a stream that got several tokens since its last write sends them together. */
static void work(struct loop *l) {
    if (!l->first && !l->touched_first)
        return;
    uint64_t end_ns = (l->now_ns = clock_ns()) + LOOP_SLICE_US * NS_PER_US;
    do {
        steps(l, end_ns);
        push(l);
        session_flush_touched(l, end_ns);
    } while (l->first && (l->now_ns = clock_ns()) < end_ns);
}

/* Worked off from inside the event loop, so that h2o finishes what is sent here in the same turn. */
static void on_inbox(h2o_socket_t *sock, const char *err) {
    struct loop *l = sock->data;
    (void)err;
    LOOP_WATCH_BEGIN();
    inbox_clear(&l->inbox);
    collect(l);
    work(l);
    LOOP_WATCH_END("inbox");
}

/* turn: ready events, then a slice of what is left. h2o looks at sockets whose write is done only after its
 * poll, which must not sleep while there are some. */
static void turn(struct loop *l, int32_t max_wait_ms) {
    h2o_evloop_t *ev = l->ctx.loop;
    bool busy = l->first || l->touched_first || ev->_pending_as_client || ev->_pending_as_server;
    busy = busy || !inbox_sleep(&l->inbox);
    if (h2o_evloop_run(ev, busy ? 0 : max_wait_ms) != 0 && errno != EINTR)
        LOG(LOG_ERROR, "the event loop failed", F_I64("errno", errno));
    inbox_awake(&l->inbox);
    collect(l);
    work(l);
}

/* ---- connections come -------------------------------------------------------------------------------- */

static void accept_resume(h2o_timeout_entry_t *entry);

static void on_accept(h2o_socket_t *listener, const char *err) {
    struct loop *l = listener->data;
    struct router *r = l->router;
    if (err)
        return;
    for (int i = 0; i < LOOP_ACCEPTS_MAX; i++) {
        h2o_socket_t *sock = h2o_evloop_socket_accept(listener);
        if (!sock) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                /* The listener stays readable; asking again at once would only burn the core. */
                LOG(LOG_WARN, "no descriptor for another connection", F_I64("errno", errno));
                h2o_socket_read_stop(l->listener);
                h2o_timeout_link(l->ctx.loop, &l->accept_pause, &l->accept_entry);
            }
            return;
        }
        if (atomic_load(&r->n_conns) >= (unsigned)r->opts->limit.connections) {
            conn_refuse(l, sock);
            continue;
        }
        atomic_fetch_add(&r->n_conns, 1);
        conn_open(l, sock);
    }
}

static void accept_resume(h2o_timeout_entry_t *entry) {
    struct loop *l = CONTAINER_OF(entry, struct loop, accept_entry);
    h2o_socket_read_start(l->listener, on_accept);
}

static void on_watch(h2o_socket_t *sock, const char *err) {
    (void)err;
    conn_watch_ready(sock->data);
}

static void on_second(h2o_timeout_entry_t *entry) {
    struct loop *l = CONTAINER_OF(entry, struct loop, second);
    LOOP_WATCH_BEGIN();
    conn_sweep(l);
    h2o_timeout_link(l->ctx.loop, &l->ctx.one_sec_timeout, &l->second);
    LOOP_WATCH_END("connection sweep");
}

/* ---- life -------------------------------------------------------------------------------------------- */

static h2o_socket_t *notified(struct loop *l, int fd, h2o_socket_cb cb) {
    h2o_socket_t *s = h2o_evloop_socket_create(l->ctx.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    s->data = l;
    h2o_socket_read_start(s, cb);
    return s;
}

static uint64_t ms_of(double seconds) {
    return (uint64_t)(seconds * 1000 + 0.5);
}

void loop_init(struct loop *l, struct router *r, uint32_t index) {
    l->router = r;
    l->index = index;
    inbox_init(&l->inbox);
    slots_init(&l->slots, index);
    slots_init(&l->watched, index);
    h2o_evloop_t *ev = h2o_evloop_create();
    h2o_context_init(&l->ctx, ev, &r->conf);
    l->accept.ctx = &l->ctx;
    l->accept.hosts = r->conf.hosts;
    l->accept.ssl_ctx = tls_context(r->tls);
    h2o_timeout_init(ev, &l->accept_pause, ACCEPT_PAUSE_MS);
    l->accept_entry.cb = accept_resume;
    h2o_timeout_init(ev, &l->queue_timeout, ms_of(r->opts->queue_timeout_s));
    h2o_timeout_init(ev, &l->request_timeout, ms_of(r->opts->request_timeout_s));
    h2o_timeout_init(ev, &l->keepalive, ms_of(r->opts->sse_keepalive_s));
    l->second.cb = on_second;
    h2o_timeout_link(ev, &l->ctx.one_sec_timeout, &l->second);
    l->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    CHECK(l->watch_fd >= 0);
    int fd = fcntl(r->listen_fd, F_DUPFD_CLOEXEC, 0);
    CHECK(fd >= 0);
    l->inbox_sock = notified(l, l->inbox.fd, on_inbox);
    l->watch_sock = notified(l, l->watch_fd, on_watch);
    l->listener = notified(l, fd, on_accept);
}

/* close_connections: after the last session: all of them, with what h2o still writes given a moment. */
static void close_connections(struct loop *l, uint64_t limit_ms) {
    uint64_t end_ns = clock_ns() + limit_ms * NS_PER_MS;
    bool forced = false;
    do {
        http2_finish(l);
        for (struct conn *c = l->conns; c; c = c->next) {
            if (forced || (!c->busy && !c->http2))
                conn_cut(c, false);
        }
        turn(l, 10);
        forced = clock_ns() > end_ns - limit_ms * NS_PER_MS / 4;
    } while (l->n_conns + l->n_lingerers && clock_ns() < end_ns);
}

/* give_back_recycled: h2o keeps freed memory per thread for reuse; a thread that ends would leak it. */
static void give_back_recycled(void) {
    h2o_mem_recycle_t *inputs = &h2o_socket_buffer_prototype.allocator;
    while (inputs->cnt)
        free(h2o_mem_alloc_recycle(inputs, 0));
    enum { POOL_CHUNKS_KEPT = 16 };
    for (int i = 0; i < POOL_CHUNKS_KEPT; i++) {
        h2o_mem_pool_t p;
        h2o_mem_init_pool(&p);
        (void)h2o_mem_alloc_pool(&p, 1);
        free(p.chunks); /* not through h2o, which would keep it again */
    }
}

void *loop_main(void *arg) {
    struct loop *l = arg;
    struct router *r = l->router;
    while (!atomic_load_explicit(&r->stopping, memory_order_acquire))
        turn(l, INT32_MAX);
    h2o_socket_close(l->listener);
    l->listener = NULL;
    h2o_timeout_unlink(&l->accept_entry);
    session_end_all(l);
    close_connections(l, atomic_load(&r->n_shutdowns) > 1 ? STOP_MS / 10 : STOP_MS);
    give_back_recycled();
    http2_give_back(l);
    return NULL;
}

void loop_drain(struct loop *l) {
    collect(l);
    while (l->first || l->touched_first)
        work(l);
}

void loop_fini(struct loop *l) {
    loop_drain(l);
    slots_fini(&l->slots);
    CHECK(!l->sessions);
    if (l->listener)
        h2o_socket_close(l->listener);
    h2o_socket_close(l->watch_sock);
    h2o_socket_close(l->inbox_sock); /* closes the inbox's descriptor */
    l->inbox.fd = -1;
    inbox_fini(&l->inbox);
    if (l->n_conns + l->n_lingerers)
        return; /* a second signal left no time; the process is about to end */
    slots_fini(&l->watched);
    h2o_evloop_t *ev = l->ctx.loop;
    h2o_timeout_unlink(&l->second);
    h2o_evloop_run(ev, 0);
    h2o_timeout_dispose(ev, &l->accept_pause);
    h2o_timeout_dispose(ev, &l->queue_timeout);
    h2o_timeout_dispose(ev, &l->request_timeout);
    h2o_timeout_dispose(ev, &l->keepalive);
    h2o_multithread_queue_t *queue = l->ctx.queue;
    h2o_context_dispose(&l->ctx);
    free(queue); /* h2o 2.2.5 destroys it and forgets its memory */
    h2o_evloop_destroy(ev);
    give_back_recycled();
}
