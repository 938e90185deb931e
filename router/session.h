/* session.h: an inference request from its arrival to its last byte.
 *
 * preparing (a job on the pool) -> dispatching (prompt after prompt gets a worker, or waits for one) ->
 * running (outputs become text) -> over. The client may leave, a worker may go, and time may run out in any
 * of them; the end is one function, which aborts what workers still do. What is out with other threads (the
 * job, a ticket in the fleet's line) keeps the session's memory until it is back, and nothing else of it.
 *
 * Threads: the loop's; a session never leaves it. The job on the pool has copies.
 */
#ifndef WEIR_ROUTER_SESSION_H
#define WEIR_ROUTER_SESSION_H

#include "router/admit.h"
#include "router/core.h"

/* session_begin: takes the request; every check up to the body's content is done. suffix: a valid
 * X-Request-Id, or empty. Takes over what a holds. */
void session_begin(h2o_req_t *req, enum gen_route route, struct str suffix, const struct admitted *a);

/* What the fleet posts (fleet.h). */
bool session_on_batch(struct loop *l, struct loop_msg *m);
bool session_on_reject(struct loop *l, struct loop_msg *m);
bool session_on_pool(struct loop *l, struct loop_msg *m);
bool session_on_slow(struct loop *l, struct loop_msg *m);
bool session_on_lost(struct loop *l, struct loop_msg *m);

/* session_flush_touched: sends what outputs have added, stream after stream, until there is none or the time
 * is over: a stream that waits gets what is added meanwhile with the same write. */
void session_flush_touched(struct loop *l, uint64_t end_ns);
/* session_end_all: every session ends with 503, as a drain that has run out of time does. */
void session_end_all(struct loop *l);
/* session_refused: the error, counted, of a request that may not wait. */
void session_refused(struct router *r, enum refusal why, struct err *e);
/* session_unavailable: the error of a request that no worker can take, with what the launcher knows. */
void session_unavailable(struct router *r, struct err *e);

#endif
