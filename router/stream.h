/* stream.h: the answer to a request that is not answered at once: a body later, or events one by one.
 *
 * A stream lives in its request's memory: from the handler until the last byte is out or the client is gone,
 * whichever comes first. Its owner is told of a departure once, and must let go of the stream then; after
 * stream_finish or a reply the owner has no stream any more. h2o allows one send in flight: what is written
 * meanwhile gathers and goes out together. What an event costs is mostly its write, so chunks of HTTP/1.1 are
 * framed here, around the bytes in one buffer, and between an answer's head and its end they go straight to
 * the socket; h2o gets what the socket does not take.
 *
 * A stream of HTTP/2 is one of several on its connection, and ends alone; nothing of it goes past h2o.
 *
 * Threads: the request's loop.
 */
#ifndef WEIR_ROUTER_STREAM_H
#define WEIR_ROUTER_STREAM_H

#include "router/core.h"

struct conn;
struct trace_record;

struct stream {
    h2o_generator_t super;
    h2o_req_t *req;
    struct conn *conn;
    struct stream *prev, *next; /* of the connection */
    void *owner; /* NULL: nobody waits for it any more */
    void (*on_gone)(void *owner);
    struct trace_record *trace; /* of its request, which is over; NULL: none */
    struct buf pending, inflight; /* each begins with room for a chunk's head */
    bool inference; /* counted by /load */
    bool events;    /* the headers of an event stream are set */
    bool started, sending, finishing;
    bool chunked; /* HTTP/1.1: the length is not known beforehand */
    bool direct;  /* what the socket carries is what is written here: HTTP/1, no TLS */
};

/* stream_new: on_gone(owner) comes if the client leaves before the answer was finished; not from within
 * stream_new. */
struct stream *stream_new(h2o_req_t *req, bool inference, void *owner, void (*on_gone)(void *owner));

/* stream_events: makes it an event stream (api.md 2.9); the status line goes out with the first flush that
 * has bytes. */
void stream_events(struct stream *s, struct str suffix);
/* stream_out: where events are appended. It changes with every flush. */
struct buf *stream_out(struct stream *s);
/* stream_waits: whether something was appended and is not on its way. */
bool stream_waits(const struct stream *s);
/* stream_flush: sends what was appended unless a send is in flight. False: more than --max-stream-buffer
 * waits for this client; its connection is cut, or its stream of HTTP/2 reset, and the owner, which is not told, must end what feeds the
 * stream. */
bool stream_flush(struct stream *s);
/* stream_finish: flushes and ends an event stream. The owner has no stream any more. */
void stream_finish(struct stream *s);
/* stream_take: for a whole reply (reply.h) instead: the request, free of its owner. Not after the first flush
 * of events. */
h2o_req_t *stream_take(struct stream *s);

/* stream_client_gone: conn.c: the client will not read the answer. */
void stream_client_gone(struct stream *s);

#endif
