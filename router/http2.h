/* http2.h: what libh2o 2.2.5 does not do for an HTTP/2 connection (--http2).
 *
 * libh2o speaks the protocol; a connection comes to it by ALPN over TLS, or in clear text when the client's
 * first bytes are HTTP/2's (an Upgrade of HTTP/1.1 is not offered). Between the socket and libh2o stand the
 * counts of h2guard.h: above them the connection is ended with GOAWAY. Once a second a sweep ends streams
 * whose body does not come in --body-timeout, or whose client lets no byte flow for --write-timeout,
 * connections that are idle or take nothing, and at a drain those without requests. One stream's end touches
 * no other. A body over --max-body-bytes is dropped as it comes, and its stream answered 413 at its end:
 * libh2o would have told the client to try again.
 *
 * This is the one place that looks into libh2o's connection and stream, by the header that the package
 * installs; the build refuses another version.
 *
 * Threads: the loop's.
 */
#ifndef WEIR_ROUTER_HTTP2_H
#define WEIR_ROUTER_HTTP2_H

#include "router/conn.h"

/* http2_conf: after the host of r->conf is set up, whether or not --http2 is given. */
void http2_conf(struct router *r, h2o_hostconf_t *host);

/* http2_open: in place of h2o_accept: finds out what a new connection speaks. */
void http2_open(struct conn *c);
/* http2_close: the socket is closed; frees c->http2. */
void http2_close(struct conn *c);

struct rawhead;
/* http2_head: what rawhead_scan would have found. */
void http2_head(const h2o_req_t *req, struct rawhead *out);
/* http2_check_body: RC_TOO_LARGE above --max-body-bytes. */
bool http2_check_body(h2o_req_t *req, struct err *e);
/* http2_ended: a stream is being freed, its answer sent or not. */
void http2_ended(h2o_req_t *req);
/* http2_reset: ends one stream: its client is told, its memory is freed now, or when what is on its way to
 * the socket is there. Not from within a callback of libh2o for this connection. */
void http2_reset(h2o_req_t *req);

/* http2_sweep: every connection of the loop that speaks HTTP/2; once a second, or when much has come in. */
void http2_sweep(struct loop *l, uint64_t now_ns);
/* http2_swept: whether that sweep has met c, which then needs no other. */
bool http2_swept(const struct conn *c, uint64_t now_ns);
/* http2_held_bytes: of request bodies, at the last sweep. */
size_t http2_held_bytes(const struct conn *c);
/* http2_give_back: at the end of the loop's thread, when its connections are closed: memory that libh2o keeps
 * for the thread's next ones. */
void http2_give_back(struct loop *l);
/* http2_finish: GOAWAY to all; each connection closes with its last answer. May be called again. */
void http2_finish(struct loop *l);

#endif
