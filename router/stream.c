#include "router/stream.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "router/api/error.h"
#include "router/conn.h"
#include "router/http2.h"
#include "router/reply.h"
#include "router/trace/tracer.h"

enum {
    KEEP_BYTES = 16 * 1024, /* of a buffer between two sends */
    CHUNK_HEAD_BYTES = 18,  /* 16 hexadecimal digits and CR LF */
};

static void gone(struct stream *s) {
    void *owner = s->owner;
    s->owner = NULL;
    if (!owner)
        return;
    rmetrics_count(loop_of(s->req)->router->metrics, PM_DISCONNECTS, 1);
    s->on_gone(owner);
}

/* The request's memory is being freed: its last byte was sent, or its connection is closed. */
static void dispose(void *p) {
    struct stream *s = p;
    gone(s);
    if (UNLIKELY(s->trace != NULL)) {
        s->trace->end_ns = s->trace->stage[TRACE_SEND].end_ns = clock_ns();
        tracer_add(loop_of(s->req)->router->tracer, s->trace);
    }
    *(s->prev ? &s->prev->next : &s->conn->streams) = s->next;
    if (s->next)
        s->next->prev = s->prev;
    if (s->inference)
        atomic_fetch_sub(&loop_of(s->req)->router->n_inference, 1);
    buf_fini(&s->pending);
    buf_fini(&s->inflight);
}

struct buf *stream_out(struct stream *s) {
    if (s->pending.len == 0) {
        buf_reserve(&s->pending, CHUNK_HEAD_BYTES);
        s->pending.len = CHUNK_HEAD_BYTES;
    }
    return &s->pending;
}

/* n_bytes: of a buffer, without the room at its begin. */
static size_t n_bytes(const struct buf *b) {
    return b->len ? b->len - CHUNK_HEAD_BYTES : 0;
}

bool stream_waits(const struct stream *s) {
    return n_bytes(&s->pending) > 0;
}

/* frame: the bytes of b as they go out: with a chunk's head and tail, and behind the last chunk the end of
 * all. */
static h2o_iovec_t frame(const struct stream *s, struct buf *b) {
    size_t n = n_bytes(b), at = CHUNK_HEAD_BYTES;
    if (s->chunked && n) {
        b->data[--at] = '\n';
        b->data[--at] = '\r';
        for (size_t v = n; v; v >>= 4)
            b->data[--at] = "0123456789abcdef"[v & 15];
        buf_add(b, "\r\n", 2);
    }
    if (s->chunked && s->finishing)
        buf_add(b, "0\r\n\r\n", 5);
    return h2o_iovec_init(b->data + at, b->len - at);
}

/* clear: everything in b was sent. */
static void clear(struct buf *b) {
    b->len = 0;
    if (b->cap > KEEP_BYTES)
        buf_fini(b);
}

/* send_now: nothing is in flight. Between the head and the end the bytes go straight into the socket; what it
 * does not take, and every error, is h2o's, which then waits for the client. */
static void send_now(struct stream *s) {
    h2o_req_t *req = s->req;
    struct buf *b = stream_out(s);
    if (req->version < 0x200) { /* HTTP/2 counts what it sends, when it does */
        req->bytes_counted_by_ostream = 1; /* bytes_sent is of the body, without its framing */
        req->bytes_sent += n_bytes(b);
    }
    h2o_iovec_t v = frame(s, b);
    if (s->direct && s->started && !s->finishing) {
        ssize_t n = send(s->conn->fd, v.base, v.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n == (ssize_t)v.len) {
            clear(b);
            return;
        }
        if (n > 0) {
            v.base += n;
            v.len -= (size_t)n;
        }
    }
    struct buf empty = s->inflight;
    s->inflight = *b;
    *b = empty;
    if (!s->started) {
        s->started = true;
        h2o_start_response(req, &s->super);
    }
    s->sending = true;
    h2o_send(req, &v, v.len ? 1 : 0, s->finishing ? H2O_SEND_STATE_FINAL : H2O_SEND_STATE_IN_PROGRESS);
}

static void proceed(h2o_generator_t *self, h2o_req_t *req) {
    struct stream *s = CONTAINER_OF(self, struct stream, super);
    (void)req;
    LOOP_WATCH_BEGIN();
    s->sending = false;
    clear(&s->inflight);
    if (stream_waits(s) || s->finishing)
        send_now(s);
    LOOP_WATCH_END("stream proceed");
}

struct stream *stream_new(h2o_req_t *req, bool inference, void *owner, void (*on_gone)(void *owner)) {
    struct stream *s = h2o_mem_alloc_shared(&req->pool, sizeof *s, dispose);
    *s = (struct stream){.super = {.proceed = proceed},
                         .req = req,
                         .conn = conn_of(req),
                         .next = conn_of(req)->streams,
                         .owner = owner,
                         .on_gone = on_gone,
                         .inference = inference};
    CHECK(!s->next || s->conn->http2);
    if (s->next)
        s->next->prev = s;
    s->conn->streams = s;
    if (inference)
        atomic_fetch_add(&loop_of(req)->router->n_inference, 1);
    return s;
}

void stream_events(struct stream *s, struct str suffix) {
    h2o_req_t *req = s->req;
    CHECK(!s->events);
    s->events = true;
    req->res.status = 200;
    req->res.reason = api_reason(200);
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
                   H2O_STRLIT("text/event-stream; charset=utf-8"));
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CACHE_CONTROL, NULL, H2O_STRLIT("no-cache"));
    reply_header(req, "x-accel-buffering", STR_LIT("no"));
    reply_id_header(req, suffix);
    s->chunked = req->version == 0x101;
    s->direct = req->version < 0x200 && !s->conn->sock->ssl;
    if (s->chunked) /* with this header h2o makes no chunks of its own */
        h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_TRANSFER_ENCODING, NULL,
                       H2O_STRLIT("chunked"));
    /* HTTP/1.0 has no chunks: the end of the connection is the end of the body. */
    if (req->version < 0x101 || atomic_load_explicit(&loop_of(req)->router->draining, memory_order_relaxed))
        req->http1_is_persistent = 0;
}

bool stream_flush(struct stream *s) {
    CHECK(s->events && !s->finishing);
    if (!s->sending) {
        if (stream_waits(s))
            send_now(s);
        return true;
    }
    const struct router_limits *limit = &loop_of(s->req)->router->opts->limit;
    if (n_bytes(&s->pending) + n_bytes(&s->inflight) <= limit->stream_buffer_bytes)
        return true;
    rmetrics_count(loop_of(s->req)->router->metrics, PM_SLOW_CLIENTS, 1);
    s->owner = NULL;
    s->finishing = true;
    s->req->http1_is_persistent = 0;
    if (s->conn->http2)
        http2_reset(s->req); /* may free it here */
    else
        conn_cut(s->conn, true); /* the write in flight fails, and h2o frees the request */
    return false;
}

void stream_finish(struct stream *s) {
    CHECK(s->events && !s->finishing);
    s->owner = NULL;
    s->finishing = true;
    if (!s->sending)
        send_now(s);
}

h2o_req_t *stream_take(struct stream *s) {
    CHECK(!s->started && !s->finishing);
    s->owner = NULL;
    if (s->events) {
        s->events = s->chunked = s->direct = false;
        s->req->res.headers.size = 0;
    }
    s->finishing = true;
    return s->req;
}

void stream_client_gone(struct stream *s) {
    if (!s->owner)
        return; /* the answer is on its way to a client that has closed its sending side */
    h2o_req_t *req = s->req;
    bool sending = s->sending, started = s->started;
    gone(s);
    conn_cut(s->conn, true);
    req->http1_is_persistent = 0;
    s->finishing = true;
    if (sending)
        return; /* the write fails, or was done already and proceed comes */
    if (!started) {
        req->res.status = 499; /* nobody reads it; for the metrics */
        req->res.reason = "Client Closed Request";
        req->res.content_length = 0;
        req->res.headers.size = 0;
        s->started = true;
        h2o_start_response(req, &s->super);
    }
    s->sending = true;
    h2o_send(req, NULL, 0, H2O_SEND_STATE_FINAL);
}
