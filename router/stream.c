#include "router/stream.h"

#include <stdlib.h>

#include "router/api/error.h"
#include "router/conn.h"
#include "router/reply.h"

enum { KEEP_BYTES = 16 * 1024 }; /* of a buffer between two sends */

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
    if (s->conn->waiting == s)
        s->conn->waiting = NULL;
    if (s->inference)
        atomic_fetch_sub(&loop_of(s->req)->router->n_inference, 1);
    buf_fini(&s->pending);
    buf_fini(&s->inflight);
}

static void send_now(struct stream *s) {
    struct buf empty = s->inflight;
    empty.len = 0;
    s->inflight = s->pending;
    s->pending = empty;
    if (!s->started) {
        s->started = true;
        h2o_start_response(s->req, &s->super);
    }
    s->sending = true;
    h2o_iovec_t v = h2o_iovec_init(s->inflight.data, s->inflight.len);
    h2o_send(s->req, &v, v.len ? 1 : 0, s->finishing ? H2O_SEND_STATE_FINAL : H2O_SEND_STATE_IN_PROGRESS);
}

static void proceed(h2o_generator_t *self, h2o_req_t *req) {
    struct stream *s = CONTAINER_OF(self, struct stream, super);
    (void)req;
    LOOP_WATCH_BEGIN();
    s->sending = false;
    s->inflight.len = 0;
    if (s->inflight.cap > KEEP_BYTES)
        buf_fini(&s->inflight);
    if (s->pending.len || s->finishing)
        send_now(s);
    LOOP_WATCH_END("stream proceed");
}

struct stream *stream_new(h2o_req_t *req, bool inference, void *owner, void (*on_gone)(void *owner)) {
    struct stream *s = h2o_mem_alloc_shared(&req->pool, sizeof *s, dispose);
    *s = (struct stream){.super = {.proceed = proceed},
                         .req = req,
                         .conn = conn_of(req),
                         .owner = owner,
                         .on_gone = on_gone,
                         .inference = inference};
    CHECK(!s->conn->waiting);
    s->conn->waiting = s;
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
    /* HTTP/1.0 has no chunks: the end of the connection is the end of the body. */
    if (req->version < 0x101 || atomic_load_explicit(&loop_of(req)->router->draining, memory_order_relaxed))
        req->http1_is_persistent = 0;
}

bool stream_flush(struct stream *s) {
    CHECK(s->events && !s->finishing);
    if (!s->sending) {
        if (s->pending.len)
            send_now(s);
        return true;
    }
    if (s->pending.len + s->inflight.len <= loop_of(s->req)->router->opts->limit.stream_buffer_bytes)
        return true;
    rmetrics_count(loop_of(s->req)->router->metrics, PM_SLOW_CLIENTS, 1);
    s->owner = NULL;
    s->finishing = true;
    s->req->http1_is_persistent = 0;
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
        s->events = false;
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
