#include "router/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "router/http2.h"
#include "router/stream.h"

enum { LINGER_BYTES_MAX = 64 << 20, LINGERERS_MAX = 256, HANDSHAKE_S = 10 };

/* ---- lingering --------------------------------------------------------------------------------------- */

/* A socket whose response is out and whose further input is dropped. */
struct lingerer {
    struct loop *loop;
    h2o_socket_t *sock;
    h2o_timeout_entry_t entry;
    size_t n_bytes;
};

static void linger_end(struct lingerer *g) {
    g->loop->n_lingerers--;
    h2o_timeout_unlink(&g->entry);
    h2o_socket_close(g->sock);
    free(g);
}

static void linger_timeout(h2o_timeout_entry_t *entry) {
    linger_end(CONTAINER_OF(entry, struct lingerer, entry));
}

static void linger_read(h2o_socket_t *sock, const char *err) {
    struct lingerer *g = sock->data;
    g->n_bytes += sock->input->size;
    h2o_buffer_consume(&sock->input, sock->input->size);
    if (err || g->n_bytes > LINGER_BYTES_MAX)
        linger_end(g);
}

static void linger_start(struct loop *l, int fd) {
    if (l->n_lingerers >= LINGERERS_MAX) {
        close(fd);
        return;
    }
    struct lingerer *g = xcalloc(1, sizeof *g);
    (void)shutdown(fd, SHUT_WR);
    g->loop = l;
    l->n_lingerers++;
    g->sock = h2o_evloop_socket_create(l->ctx.loop, fd, 0);
    g->sock->data = g;
    g->entry.cb = linger_timeout;
    h2o_timeout_link(l->ctx.loop, &l->ctx.one_sec_timeout, &g->entry);
    h2o_socket_read_start(g->sock, linger_read);
}

/* ---- a connection ------------------------------------------------------------------------------------ */

static void on_close(void *data) {
    struct conn *c = data;
    struct loop *l = c->loop;
    CHECK(!c->streams);
    http2_close(c);
    if (c->prev)
        c->prev->next = c->next;
    else
        l->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    l->n_conns--;
    if (c->watch)
        slots_del(&l->watched, c->watch);
    atomic_fetch_sub(&l->router->n_conns, 1);
    if (c->linger_fd >= 0) {
        if (atomic_load(&l->router->stopping))
            close(c->linger_fd);
        else
            linger_start(l, c->linger_fd);
    }
    free(c);
}

void conn_open(struct loop *l, h2o_socket_t *sock) {
    struct conn *c = xcalloc(1, sizeof *c);
    c->loop = l;
    c->sock = sock;
    c->fd = h2o_socket_get_fd(sock);
    c->linger_fd = -1;
    c->since_ns = clock_ns();
    c->next = l->conns;
    if (c->next)
        c->next->prev = c;
    l->conns = c;
    l->n_conns++;
    c->watch = slots_put(&l->watched, c);
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = c->watch};
    /* Out of memory for the watch: the client's departure is then noticed at the next write. */
    if (epoll_ctl(l->watch_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        LOG(LOG_WARN, "a connection cannot be watched", F_I64("errno", errno));
    sock->on_close.cb = on_close;
    sock->on_close.data = c;
    if (UNLIKELY(l->router->opts->http2))
        http2_open(c);
    else
        h2o_accept(&l->accept, sock);
}

struct conn *conn_of(const h2o_req_t *req) {
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

void conn_cut(struct conn *c, bool reset) {
    if (c->cut)
        return;
    c->cut = true;
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    (void)shutdown(c->fd, SHUT_RDWR);
}

void conn_linger(struct conn *c) {
    if (c->linger_fd >= 0 || c->http2)
        return;
    c->linger_fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
    /* The watch is on the open file, which the duplicate keeps open beyond this connection's life. */
    (void)epoll_ctl(c->loop->watch_fd, EPOLL_CTL_DEL, c->fd, NULL);
}

void conn_refuse(struct loop *l, h2o_socket_t *sock) {
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: "
                                 "5\r\nContent-Type: application/json\r\n"
                                 "Content-Length: 152\r\n\r\n{\"error\": {\"message\": \"The server has its "
                                 "most connections already (--max-connections)\", "
                                 "\"type\": \"ServiceUnavailableError\", \"param\": null, \"code\": 503}}";
    int fd = h2o_socket_get_fd(sock);
    if (l->router->tls) { /* a handshake would cost more than the connection is worth */
        h2o_socket_close(sock);
        return;
    }
    (void)!send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    h2o_socket_close(sock);
    if (copy >= 0)
        linger_start(l, copy);
}

void conn_done(struct conn *c) {
    c->busy = false;
    c->phase = CONN_IDLE;
    c->since_ns = clock_ns();
}

void conn_watch_ready(struct loop *l) {
    struct epoll_event ev[64];
    int n;
    do {
        n = epoll_wait(l->watch_fd, ev, ARRAY_LEN(ev), 0);
        for (int i = 0; i < n; i++) {
            struct conn *c = slots_get(&l->watched, ev[i].data.u64);
            if (!c)
                continue;
            c->gone = true;
            if (!c->streams)
                continue;
            if (c->http2)
                conn_cut(c, true); /* libh2o reads the end, and frees every stream */
            else
                stream_client_gone(c->streams);
        }
    } while (n == (int)ARRAY_LEN(ev));
}

/* ---- the sweep --------------------------------------------------------------------------------------- */

uint64_t conn_acked(const struct conn *c) {
    struct tcp_info info;
    socklen_t n = sizeof info;
    int queued = 0;
    memset(&info, 0, sizeof info);
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n) == 0)
        return info.tcpi_bytes_acked;
    return ioctl(c->fd, SIOCOUTQ, &queued) == 0 ? (uint64_t)queued : 0;
}

static void enter(struct conn *c, int phase, uint64_t now) {
    if ((int)c->phase == phase)
        return;
    c->phase = phase;
    c->since_ns = now;
}

static void sweep_one(struct conn *c, uint64_t now) {
    const struct router_opts *o = c->loop->router->opts;
    double limit_s = 0;
    if (UNLIKELY(c->http2) && http2_swept(c, now))
        return;
    if (c->busy && h2o_socket_is_writing(c->sock)) {
        uint64_t a = conn_acked(c);
        if (c->phase != CONN_WRITING || a != c->acked_bytes) {
            c->phase = CONN_WRITING;
            c->since_ns = now;
            c->acked_bytes = a;
        }
        limit_s = o->write_timeout_s;
    } else if (c->busy) {
        enter(c, CONN_WORKING, now);
    } else if (c->sock->input->size) {
        enter(c, CONN_RECEIVING, now);
        limit_s = (double)o->limit.body_timeout_s;
    } else {
        enter(c, CONN_IDLE, now);
        limit_s = c->opening && c->sock->ssl ? HANDSHAKE_S : o->keep_alive_s;
    }
    if (limit_s <= 0 || (double)(now - c->since_ns) < limit_s * (double)NS_PER_S)
        return;
    if (c->phase == CONN_WRITING)
        rmetrics_count(c->loop->router->metrics, PM_SLOW_CLIENTS, 1);
    conn_cut(c, c->phase == CONN_WRITING);
}

/* The share of input buffers that one loop counted at its last sweep is in router.input_bytes; above the
 * process's limit the connection with the most unfinished input goes. */
void conn_sweep(struct loop *l) {
    struct router *r = l->router;
    uint64_t now = clock_ns();
    struct conn *largest = NULL;
    size_t total = 0, most = 0;
    if (UNLIKELY(r->opts->http2))
        http2_sweep(l, now);
    for (struct conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        sweep_one(c, now);
        size_t n = c->sock->input->size + http2_held_bytes(c);
        total += n;
        if (c->phase == CONN_RECEIVING && !c->cut && (!largest || n > most)) {
            largest = c;
            most = n;
        }
    }
    atomic_fetch_add(&r->input_bytes, total - l->input_bytes);
    l->input_bytes = total;
    if (largest && atomic_load(&r->input_bytes) + atomic_load(&r->body_bytes) > r->input_bytes_max) {
        LOG(LOG_WARN, "too many bytes of unfinished requests; the largest is dropped",
            F_U64("bytes", most));
        rmetrics_reject(r->metrics, REJECT_LIMIT, 413);
        conn_cut(largest, true);
    }
}
