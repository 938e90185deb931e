/* conn.h: what h2o does not watch of a connection: its client leaving while a request waits, idle time apart
 * from body time, writes that make no progress, and bytes held in input buffers.
 *
 * h2o stops reading while a request is worked on, so it learns of a client's departure only by writing. Each
 * connection's descriptor is therefore registered, edge-triggered, for EPOLLRDHUP in an epoll of the loop's
 * own; bytes of pipelined requests do not fool it. Events carry a handle and not a pointer: a process that is
 * being started holds the descriptors until its exec, so one may come for a connection that is closed here.
 * The rest is a sweep once a second. A connection is ended by shutting its descriptor down: h2o finds out by
 * itself and frees everything in its own order.
 *
 * Threads: the loop's.
 */
#ifndef WEIR_ROUTER_CONN_H
#define WEIR_ROUTER_CONN_H

#include "router/core.h"

struct http2;

struct conn {
    struct loop *loop;
    struct conn *prev, *next;
    h2o_socket_t *sock;
    int fd;
    uint64_t watch; /* its handle in loop.watched */
    struct stream *streams; /* requests being worked on, told when the client leaves; one unless HTTP/2 */
    struct http2 *http2;    /* NULL: HTTP/1, or not known yet */
    bool opening;           /* what it speaks is being found out (http2.h) */
    bool busy;              /* between a request's arrival at a handler and its last byte */
    bool gone;              /* the client will send no more */
    bool cut;
    uint64_t since_ns; /* idle, or receiving, or without progress in writing, since then */
    enum { CONN_IDLE = 0, CONN_RECEIVING, CONN_WORKING, CONN_WRITING } phase;
    uint64_t acked_bytes; /* of TCP, when last seen to move */
    int linger_fd;        /* a duplicate that outlives h2o's close; -1: none */
};

/* conn_open: takes over a freshly accepted socket. */
void conn_open(struct loop *l, h2o_socket_t *sock);
/* conn_refuse: over --max-connections: 503 and close; with TLS close alone. */
void conn_refuse(struct loop *l, h2o_socket_t *sock);
struct conn *conn_of(const h2o_req_t *req);
/* conn_cut: ends the connection without ceremony. reset: what waits in the kernel to be sent is thrown away,
 * too. */
void conn_cut(struct conn *c, bool reset);
/* conn_linger: the response under way will be the last, and unread input may be waiting: after h2o has closed
 * its side, what the client still sends is read and dropped for a short while, so that a reset does not
 * overtake the response. Nothing for HTTP/2, whose connections outlive responses. */
void conn_linger(struct conn *c);
/* conn_done: the request's last byte was sent. */
void conn_done(struct conn *c);
/* conn_acked: a number that changes while the client reads: bytes acknowledged; of a Unix socket, those in
 * it. */
uint64_t conn_acked(const struct conn *c);
/* conn_sweep: once a second. */
void conn_sweep(struct loop *l);
/* conn_watch_ready: the loop's watch_fd is readable. */
void conn_watch_ready(struct loop *l);

#endif
