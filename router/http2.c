#include "router/http2_private.h"

#include <stdlib.h>

#include "common/log.h"
#include "router/rawhead.h"

enum {
    FRESH_BYTES_MAX = 1 << 20,    /* of bodies on a connection, before they are looked at */
    DROPPED_BYTES_MAX = 64 << 20, /* of a body over the limit, before its stream is reset */
    UNSWEPT_BYTES_MAX = 64 << 20, /* of bodies, before memory is counted again */
};

/* ---- floods ---------------------------------------------------------------------------------------- */

static void log_fault(struct loop *l, enum h2guard_fault fault) {
    uint64_t now = clock_ns();
    if (now - l->h2_logged_ns < NS_PER_S) /* whoever floods comes again */
        return;
    l->h2_logged_ns = now;
    LOG(LOG_WARN, "an HTTP/2 connection is cut off", F_STR("reason", h2guard_reason(fault)));
}

/* cut_off: from within the reading of its bytes: what was read is not looked at. */
static void cut_off(h2o_http2_conn_t *h2, enum h2guard_fault fault) {
    struct conn *c = conn_at(h2);
    const char *why = h2guard_reason(fault);
    log_fault(c->loop, fault);
    if (h2o_socket_is_writing(h2->sock))
        conn_cut(c, true); /* else its last write is waited for */
    else
        http2_goaway(h2, H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM, why);
    c->http2->read(h2->sock, why);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static const char dropped_name[] = "weir.dropped";

static size_t *dropped(h2o_req_t *req, bool make) {
    h2o_iovec_t *v = h2o_req_getenv(req, dropped_name, sizeof dropped_name - 1, make);
    return v ? &v->len : NULL;
}

/* drop_body: what is there of a body over the limit. */
static void drop_body(h2o_http2_conn_t *h2, h2o_http2_stream_t *st) {
    size_t *n = dropped(&st->req, true);
    *n += st->_req_body->size;
    h2o_buffer_dispose(&st->_req_body);
    h2o_buffer_init(&st->_req_body, &h2o_socket_buffer_prototype);
    st->_expected_content_length = SIZE_MAX; /* libh2o would miss the bytes */
    if (*n > DROPPED_BYTES_MAX)
        http2_reset_stream(h2, st, H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM);
}

/* look_at_body: of each stream of the loop. */
static int look_at_body(h2o_req_t *req, void *arg) {
    const struct router *r = arg;
    h2o_http2_stream_t *st = stream_at(req);
    if (st->state == H2O_HTTP2_STREAM_STATE_RECV_BODY &&
        (st->_req_body->size > r->opts->limit.body_bytes || (st->_req_body->size && dropped(req, false))))
        drop_body((h2o_http2_conn_t *)req->conn, st);
    return 0;
}

/* http2_on_read: before libh2o: counts, and drops what it is not to see. */
void http2_on_read(h2o_socket_t *sock, const char *err) {
    h2o_http2_conn_t *h2 = sock->data;
    struct conn *c = sock->on_close.data;
    struct http2 *h = c->http2;
    struct loop *l = c->loop;
    struct router *r = l->router;
    LOOP_WATCH_BEGIN();
    if (h->fresh_bytes > FRESH_BYTES_MAX) {
        h->fresh_bytes = 0;
        (void)H2O_HTTP2_CALLBACKS.foreach_request(&l->ctx, look_at_body, r);
    }
    if (!err && h2->state == H2O_HTTP2_CONN_STATE_OPEN) {
        size_t n = sock->input->size, data_bytes;
        enum h2guard_fault fault = h2guard_scan(&h->guard, sock->input->bytes, &n, clock_ns(), &data_bytes);
        sock->input->size = n;
        if (fault != H2GUARD_OK) {
            cut_off(h2, fault);
            return;
        }
        h->fresh_bytes += data_bytes;
        l->unswept_bytes += data_bytes;
        if (l->unswept_bytes > UNSWEPT_BYTES_MAX)
            conn_sweep(l);
    } else if (!err) {
        /* It closes when its answers are out. libh2o loops without end over some frames by then. */
        h2o_buffer_consume(&sock->input, sock->input->size);
    }
    l->ctx.globalconf = &r->conf_http2;
    h->read(sock, err);
    l->ctx.globalconf = &r->conf;
    LOOP_WATCH_END("HTTP/2 input");
}

/* ---- the begin --------------------------------------------------------------------------------------- */

static void begin_http1(struct conn *c) {
    c->opening = false;
    h2o_http1_accept(&c->loop->accept, c->sock, now_of(c->loop));
}

/* keep_recycled: output buffers that are done with go to a list of libh2o's, of which only an empty buffer
 * knows. */
static void keep_recycled(struct loop *l, const h2o_http2_conn_t *h2) {
    CHECK(!h2->_write.buf->bytes);
    l->h2_recycled = &CONTAINER_OF(h2->_write.buf, h2o_buffer_prototype_t, _initial_buf)->allocator;
}

void http2_give_back(struct loop *l) {
    while (l->h2_recycled && l->h2_recycled->cnt)
        free(h2o_mem_alloc_recycle(l->h2_recycled, 0));
    l->h2_recycled = NULL;
}

/* begin_http2: libh2o would read at once what is there. */
static void begin_http2(struct conn *c) {
    h2o_socket_t *sock = c->sock;
    h2o_buffer_t *early = sock->input;
    c->opening = false;
    c->http2 = xcalloc(1, sizeof *c->http2);
    h2o_buffer_init(&sock->input, &h2o_socket_buffer_prototype);
    h2o_http2_accept(&c->loop->accept, sock, now_of(c->loop));
    keep_recycled(c->loop, sock->data);
    h2o_buffer_dispose(&sock->input);
    sock->input = early;
    c->http2->read = sock->_cb.read;
    h2o_socket_read_start(sock, http2_on_read);
    if (early->size)
        http2_on_read(sock, NULL);
}

static void on_first_bytes(h2o_socket_t *sock, const char *err) {
    struct conn *c = sock->data;
    if (err) {
        h2o_socket_close(sock);
        return;
    }
    if (!h2guard_preface(sock->input->bytes, sock->input->size))
        begin_http1(c);
    else if (sock->input->size >= H2GUARD_PREFACE_BYTES)
        begin_http2(c);
}

static void on_handshake(h2o_socket_t *sock, const char *err) {
    struct conn *c = sock->data;
    if (err) {
        h2o_socket_close(sock);
        return;
    }
    h2o_iovec_t chosen = h2o_socket_ssl_get_selected_protocol(sock);
    if (h2o_memis(chosen.base, chosen.len, H2O_STRLIT("h2")))
        begin_http2(c);
    else
        begin_http1(c);
}

void http2_open(struct conn *c) {
    c->sock->data = c;
    c->opening = true;
    if (c->loop->accept.ssl_ctx)
        h2o_socket_ssl_handshake(c->sock, c->loop->accept.ssl_ctx, NULL, on_handshake);
    else
        h2o_socket_read_start(c->sock, on_first_bytes);
}

void http2_close(struct conn *c) {
    CHECK(!c->http2 || !c->http2->sending);
    free(c->http2);
    c->http2 = NULL;
}

/* ---- a stream ---------------------------------------------------------------------------------------- */

void http2_head(const h2o_req_t *req, struct rawhead *out) {
    *out = (struct rawhead){.bytes = req->input.method.len + req->input.path.len + req->input.authority.len,
                            .n_headers = (unsigned)req->headers.size,
                            .host = str_of_iovec(req->input.authority)};
    for (size_t i = 0; i < req->headers.size; i++) {
        const h2o_header_t *h = &req->headers.entries[i];
        out->bytes += h->name->len + h->value.len + 4; /* ": " and CR LF */
    }
}

bool http2_check_body(h2o_req_t *req, struct err *e) {
    struct loop *l = loop_of(req);
    const struct router_limits *limit = &l->router->opts->limit;
    if (req->entity.len <= limit->body_bytes && !dropped(req, false))
        return true;
    rmetrics_reject(l->router->metrics, REJECT_LIMIT, 413);
    err_set(e, RC_TOO_LARGE, NULL, "The request body is over %llu bytes (--max-body-bytes)",
            (unsigned long long)limit->body_bytes);
    return false;
}

/* is_early: whether the client has not had the whole answer. */
static bool is_early(const h2o_req_t *req) {
    if (req->res.status == 0 || req->_generator)
        return true;
    return req->res.content_length != SIZE_MAX && req->bytes_sent < req->res.content_length &&
           !h2o_memis(req->input.method.base, req->input.method.len, H2O_STRLIT("HEAD"));
}

void http2_ended(h2o_req_t *req) {
    struct conn *c = conn_of(req);
    h2o_http2_conn_t *h2 = (h2o_http2_conn_t *)req->conn;
    if (c->cut || h2->state == H2O_HTTP2_CONN_STATE_IS_CLOSING || !is_early(req))
        return;
    enum h2guard_fault fault = h2guard_early(&c->http2->guard, clock_ns());
    if (fault == H2GUARD_OK)
        return;
    log_fault(c->loop, fault);
    conn_cut(c, true); /* libh2o is at work on it */
}

static void sending_dispose(void *p) {
    struct sending *s = p;
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
}

/* on_response: a filter that every response passes, libh2o's own among them. */
static void on_response(h2o_filter_t *self, h2o_req_t *req, h2o_ostream_t **slot) {
    (void)self;
    if (req->version >= 0x200) {
        struct http2 *h = conn_of(req)->http2;
        struct sending *s = h2o_mem_alloc_shared(&req->pool, sizeof *s, sending_dispose);
        *s = (struct sending){.next = h->sending, .at = &h->sending, .req = req, .since_ns = clock_ns()};
        if (s->next)
            s->next->at = &s->next;
        h->sending = s;
    }
    h2o_setup_next_ostream(req, slot);
}

/* ---- configuration ----------------------------------------------------------------------------------- */

void http2_conf(struct router *r, h2o_hostconf_t *host) {
    const struct router_opts *o = r->opts;
    r->conf.http1.upgrade_to_http2 = 0;
    if (!o->http2)
        return;
    host->http2.push_preload = 0;
    host->http2.reprioritize_blocking_assets = 0;
    /* As with HTTP/1: a backstop behind the sweep. libh2o counts a body on its way as idle. */
    r->conf.http2.idle_timeout = r->conf.http1.req_timeout;
    h2o_filter_t *f = h2o_create_filter(&host->fallback_path, sizeof *f);
    f->on_setup_ostream = on_response;
    r->conf_http2 = r->conf;
    r->conf_http2.max_request_entity_size = SIZE_MAX; /* look_at_bodies has the limit */
}
