/* What ends HTTP/2 streams and connections, beside what libh2o ends. */
#include "router/http2_private.h"

/* ---- ending ------------------------------------------------------------------------------------------ */

void http2_reset_stream(h2o_http2_conn_t *h2, h2o_http2_stream_t *st, int code) {
    if (st->state == H2O_HTTP2_STREAM_STATE_END_STREAM)
        return; /* it goes when its last bytes have reached the socket */
    h2o_http2__encode_rst_stream_frame(&h2->_write.buf, st->stream_id, -code);
    h2o_http2_conn_request_write(h2);
    h2o_http2_stream_reset(h2, st);
}

void http2_reset(h2o_req_t *req) {
    http2_reset_stream((h2o_http2_conn_t *)req->conn, stream_at(req), H2O_HTTP2_ERROR_CANCEL);
}

void http2_goaway(h2o_http2_conn_t *h2, int code, const char *why) {
    h2o_http2_encode_goaway_frame(&h2->_write.buf, h2->pull_stream_ids.max_open, code,
                                  h2o_iovec_init(why, strlen(why)));
    h2o_http2_conn_request_write(h2);
}

/* finish: GOAWAY, and closed when what was asked for is answered. Only without bodies on their way: libh2o
 * takes no DATA of such a connection any more. */
static void finish(h2o_http2_conn_t *h2, const char *why) {
    if (h2->state != H2O_HTTP2_CONN_STATE_OPEN)
        return;
    http2_goaway(h2, H2O_HTTP2_ERROR_NONE, why);
    h2->state = H2O_HTTP2_CONN_STATE_HALF_CLOSED;
}

/* ---- the sweep --------------------------------------------------------------------------------------- */

/* is_stuck: whether a response waits for the client alone. While the connection has a write under way, its
 * streams wait for that. */
static bool is_stuck(const h2o_http2_conn_t *h2, struct sending *s, uint64_t now) {
    const h2o_http2_stream_t *st = stream_at(s->req);
    bool waits = st->_data.size || st->state == H2O_HTTP2_STREAM_STATE_SEND_BODY_IS_FINAL;
    if (!waits || h2o_socket_is_writing(h2->sock) || s->req->bytes_sent != s->n_bytes) {
        s->n_bytes = s->req->bytes_sent;
        s->since_ns = now;
        return false;
    }
    double limit_s = loop_of(s->req)->router->opts->write_timeout_s;
    return limit_s > 0 && (double)(now - s->since_ns) >= limit_s * (double)NS_PER_S;
}

static void sweep_responses(h2o_http2_conn_t *h2, struct conn *c, uint64_t now) {
    for (struct sending *s = c->http2->sending, *next; s; s = next) {
        next = s->next;
        if (!is_stuck(h2, s, now))
            continue;
        rmetrics_count(c->loop->router->metrics, PM_SLOW_CLIENTS, 1);
        http2_reset_stream(h2, stream_at(s->req), H2O_HTTP2_ERROR_CANCEL);
    }
}

static bool is_late(const struct timeval *since, const struct timeval *now, int64_t limit_s) {
    return limit_s > 0 && (now->tv_sec - since->tv_sec) + (now->tv_usec - since->tv_usec) * 1e-6 >= limit_s;
}

/* sweep_request: of each stream of the loop: what it holds, and whether it is still to come. */
static int sweep_request(h2o_req_t *req, void *arg) {
    const struct timeval *now = arg;
    h2o_http2_conn_t *h2 = (h2o_http2_conn_t *)req->conn;
    h2o_http2_stream_t *st = stream_at(req);
    struct conn *c = conn_at(h2);
    bool head = st->state == H2O_HTTP2_STREAM_STATE_RECV_HEADERS;
    if (st->_req_body)
        c->http2->held_bytes += st->_req_body->size;
    if (!head && st->state != H2O_HTTP2_STREAM_STATE_RECV_BODY)
        return 0;
    c->phase = CONN_RECEIVING;
    if (!is_late(&req->timestamps.request_begin_at, now, c->loop->router->opts->limit.body_timeout_s))
        return 0;
    if (head)
        conn_cut(c, false); /* no frame of another stream may come before its headers' end */
    else
        http2_reset_stream(h2, st, H2O_HTTP2_ERROR_CANCEL);
    return 0;
}

/* sweep_writing: bytes that were given to the kernel and that the client does not take. */
static void sweep_writing(struct conn *c, uint64_t now) {
    struct http2 *h = c->http2;
    const struct router *r = c->loop->router;
    uint64_t acked = conn_acked(c);
    if (!h2o_socket_is_writing(c->sock) || acked != c->acked_bytes) {
        c->acked_bytes = acked;
        h->write_since_ns = now;
    } else if (r->opts->write_timeout_s > 0 &&
               (double)(now - h->write_since_ns) >= r->opts->write_timeout_s * (double)NS_PER_S) {
        rmetrics_count(r->metrics, PM_SLOW_CLIENTS, 1);
        conn_cut(c, true);
    }
}

/* sweep_first, sweep_last: before and after sweep_request of its streams. */
static void sweep_first(h2o_http2_conn_t *h2, uint64_t now) {
    struct conn *c = conn_at(h2);
    c->http2->swept_ns = now;
    c->http2->held_bytes = 0;
    sweep_writing(c, now);
    sweep_responses(h2, c, now);
    c->phase = h2->num_streams.pull.open ? CONN_WORKING : CONN_IDLE;
}

static void sweep_last(h2o_http2_conn_t *h2, uint64_t now) {
    struct conn *c = conn_at(h2);
    const struct router *r = c->loop->router;
    if (h2->state != H2O_HTTP2_CONN_STATE_OPEN)
        return;
    if (c->sock->_cb.read != http2_on_read) {
        conn_cut(c, true); /* libh2o stops reading where 512 KiB of answers to frames were not taken */
        return;
    }
    bool draining = atomic_load_explicit(&r->draining, memory_order_relaxed);
    if (c->phase != CONN_IDLE)
        c->since_ns = now;
    else if (draining) /* not before: a client of today's Python drops its answers at a GOAWAY */
        finish(h2, "shutting down");
    else if (r->opts->keep_alive_s > 0 && now > c->since_ns && /* a stream may have ended just now */
             (double)(now - c->since_ns) >= r->opts->keep_alive_s * (double)NS_PER_S)
        finish(h2, "idle");
}

void http2_sweep(struct loop *l, uint64_t now_ns) {
    struct timeval now = now_of(l);
    h2o_linklist_t *all = &l->ctx.http2._conns, *node;
    l->unswept_bytes = 0;
    for (node = all->next; node != all; node = node->next)
        sweep_first(CONTAINER_OF(node, h2o_http2_conn_t, _conns), now_ns);
    (void)H2O_HTTP2_CALLBACKS.foreach_request(&l->ctx, sweep_request, &now);
    for (node = all->next; node != all; node = node->next)
        sweep_last(CONTAINER_OF(node, h2o_http2_conn_t, _conns), now_ns);
}

bool http2_swept(const struct conn *c, uint64_t now_ns) {
    return c->http2 && c->http2->swept_ns == now_ns;
}

size_t http2_held_bytes(const struct conn *c) {
    return c->http2 ? c->http2->held_bytes : 0;
}

void http2_finish(struct loop *l) {
    for (h2o_linklist_t *node = l->ctx.http2._conns.next; node != &l->ctx.http2._conns; node = node->next)
        finish(CONTAINER_OF(node, h2o_http2_conn_t, _conns), "shutting down");
}
