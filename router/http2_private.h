/* http2_private.h: the two halves of http2.h: http2.c (how a connection begins, what is read, streams) and
 * http2_sweep.c (what ends them). The one place that includes libh2o's internal header. */
#ifndef WEIR_ROUTER_HTTP2_PRIVATE_H
#define WEIR_ROUTER_HTTP2_PRIVATE_H

#include <h2o/version.h>

#include "router/http2.h"

#include <h2o/http2.h>
#include <h2o/http2_internal.h>

#include "router/h2guard.h"

_Static_assert(H2O_LIBRARY_VERSION_MAJOR == 0 && H2O_LIBRARY_VERSION_MINOR == 13 &&
                   H2O_LIBRARY_VERSION_PATCH == 5,
               "http2.c knows the connections of libh2o 2.2.5");

/* A response under way, in its request's memory. */
struct sending {
    struct sending *next, **at;
    h2o_req_t *req;
    uint64_t n_bytes, since_ns; /* bytes sent, and since when as many */
};

/* What a connection has beside libh2o's part of it, which may be freed earlier: TLS says goodbye without it.
 */
struct http2 {
    h2o_socket_cb read; /* libh2o's */
    struct h2guard guard;
    struct sending *sending;
    uint64_t swept_ns, write_since_ns;
    size_t held_bytes;
    size_t fresh_bytes; /* of DATA, come since bodies were looked at */
};

static inline struct timeval now_of(struct loop *l) {
    return *h2o_get_timestamp(&l->ctx, NULL, NULL);
}

static inline struct conn *conn_at(h2o_http2_conn_t *h2) {
    return h2->sock->on_close.data;
}

static inline h2o_http2_stream_t *stream_at(h2o_req_t *req) {
    return CONTAINER_OF(req, h2o_http2_stream_t, req);
}

/* http2.c */
/* http2_on_read: stands before libh2o's own callback. */
void http2_on_read(h2o_socket_t *sock, const char *err);

/* http2_sweep.c */
/* http2_reset_stream: code is one of libh2o's, below zero; what is told to the client. */
void http2_reset_stream(h2o_http2_conn_t *h2, h2o_http2_stream_t *st, int code);
/* http2_goaway: told, and no more than told. */
void http2_goaway(h2o_http2_conn_t *h2, int code, const char *why);

#endif
