/* io.h: one end of a connection, for a thread that waits: nng's byte streams with time limits.
 *
 * Threads: one at a time sends and receives; any may stop it, after which every call returns RC_CLOSED.
 */
#ifndef WEIR_WORKER_KVX_IO_H
#define WEIR_WORKER_KVX_IO_H

#include <nng/nng.h>
#include <pthread.h>

#include "common/link/secure.h"
#include "worker/kvx/wire.h"

struct kvx_io {
    pthread_mutex_t mu;
    nng_aio *aio;
    nng_stream *s;             /* under mu */
    nng_stream_dialer *dialer; /* under mu; lives as long as the stream */
    bool stopped;              /* under mu */
};

/* kvx_io_init: without a stream. RC_IO: no memory in nng. kvx_io_take: the stream of an accepted connection. */
MUST_USE enum rc kvx_io_init(struct kvx_io *io, struct err *e);
void kvx_io_take(struct kvx_io *io, nng_stream *s);
/* kvx_io_dial: host is an IP address; tls NULL: in clear text. Blocks, up to ms. RC_CLOSED, RC_TIMEOUT, RC_IO, RC_INVALID. */
MUST_USE enum rc kvx_io_dial(struct kvx_io *io, const char *host, uint32_t port, const struct link_tls *tls, unsigned ms,
                             struct err *e);
/* kvx_url: of an endpoint, to out. */
enum { KVX_URL_BYTES = KVX_HOST_BYTES + 24 };
void kvx_url(const char *host, uint32_t port, const struct link_tls *tls, char out[KVX_URL_BYTES]);
/* kvx_io_send: all of it; ms are for each piece that the system takes. kvx_io_recv: exactly n bytes; RC_TIMEOUT: nothing
 * came for ms. */
MUST_USE enum rc kvx_io_send(struct kvx_io *io, const void *p, size_t n, unsigned ms, struct err *e);
MUST_USE enum rc kvx_io_recv(struct kvx_io *io, void *p, size_t n, unsigned ms, struct err *e);
/* kvx_io_frame: the next frame's head, and its body into `body` unless it is DATA. */
MUST_USE enum rc kvx_io_frame(struct kvx_io *io, struct buf *body, struct kvx_head *head, unsigned ms, struct err *e);
/* kvx_io_stop: any thread, any number of times. */
void kvx_io_stop(struct kvx_io *io);
void kvx_io_fini(struct kvx_io *io);

#endif
