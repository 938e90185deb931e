/* exchange.h: one request and its answer, on a connection of its own, without blocking.
 *
 * The owner starts it, waits until its descriptor is ready for what exchange_wants says, and calls
 * exchange_step; or has exchange_run do both. An answer of 200 that is an event stream is handed over event
 * by event; any other is gathered, up to EXCHANGE_BODY_BYTES_MAX. What a server can make it hold is bounded:
 * a line, an event, such a body. One thread.
 */
#ifndef WEIR_ROUTER_CLIENT_EXCHANGE_H
#define WEIR_ROUTER_CLIENT_EXCHANGE_H

#include <signal.h>

#include "router/client/http.h"
#include "router/client/sse.h"
#include "router/client/target.h"

enum { EXCHANGE_BODY_BYTES_MAX = 4 << 20 };

struct exchange {
    struct http_resp resp;
    struct buf body; /* of an answer that is no event stream */
    bool done;       /* the answer is complete, or its consumer has enough */
    /* private */
    const struct target *target;
    int fd, phase;
    struct ssl_st *ssl;
    bool wants_write; /* TLS asked to */
    struct buf out;
    size_t n_sent;
    struct sse sse;
    bool (*on_event)(void *arg, struct str data);
    void *arg;
};

/* exchange_start: connects, to send `request` (taken over, also on failure). on_event gets the data of each
 * event, which holds during the call; false: enough, the rest is not wanted. It must not touch the exchange.
 * NULL: events are a body like any other. */
MUST_USE enum rc exchange_start(struct exchange *x, const struct target *t, struct buf *request,
                                bool (*on_event)(void *arg, struct str data), void *arg, struct err *e);
/* exchange_step: does what can be done without blocking, and no more than about 256 KiB of it. RC_OK: look at
 * x->done. An error is the end of the exchange: close it. */
MUST_USE enum rc exchange_step(struct exchange *x, struct err *e);
/* exchange_wants: POLLIN, POLLOUT or both. */
short exchange_wants(const struct exchange *x);
/* exchange_run: steps until done; blocks. RC_TIMEOUT after limit_ms. If stop is given, RC_AGAIN as soon as it
 * is not 0; the signals that set it must be blocked, and `during` is the mask to wait with. */
MUST_USE enum rc exchange_run(struct exchange *x, int64_t limit_ms, const volatile sig_atomic_t *stop,
                              const sigset_t *during, struct err *e);
/* exchange_close: also of one that could not be started, or of all zeros. */
void exchange_close(struct exchange *x);

#endif
