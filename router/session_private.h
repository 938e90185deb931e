/* session_private.h: the pieces of a session: session.c (life), dispatch.c (prompts to workers), outputs.c
 * (workers' answers). */
#ifndef WEIR_ROUTER_SESSION_PRIVATE_H
#define WEIR_ROUTER_SESSION_PRIVATE_H

#include "router/session.h"
#include "router/stream.h"

enum { LEG_TRIES_MAX = 3, RETRY_AFTER_LOADING_S = 5 };

/* choice: one sample of one prompt. */
struct choice {
    bool finished;
    uint32_t n_tokens;
    uint64_t last_ns; /* its newest token */
};

/* leg: one prompt of a request, at one worker. */
struct leg {
    struct session *s;
    uint32_t prompt;
    enum { LEG_NEW = 0, LEG_SUBMITTED, LEG_OVER } state;
    struct id128 id;        /* minted for each try */
    uint64_t handle;        /* of sample 0 */
    struct worker *worker;  /* held while submitted */
    uint32_t n_live;        /* samples not finished */
    uint32_t credit_tokens; /* prompt tokens whose prefill is not known to be over */
    uint32_t n_tries;
    bool touched;           /* something of it has reached the run: it cannot begin again elsewhere */
    struct choice *choices; /* [n] */
};

struct session {
    struct loop *loop;
    struct session *prev, *next;
    struct stream *stream;     /* NULL: the client is gone, or the answer is complete */
    struct gen_run *run;       /* NULL until prepared */
    const struct gen_req *req; /* the run's */
    struct leg *legs;          /* [n_prompts] */
    uint32_t n_legs, n_new;    /* legs still to be submitted */
    struct tok_ids *logged;    /* [n_prompts * n] tokens for the log; NULL without --enable-log-outputs */
    enum gen_route route;
    bool over;
    bool abort_asked; /* while it was being prepared */
    uint64_t round;   /* of the last round that visited it (admin.c) */
    bool touched; /* in the loop's list */
    struct session *touched_prev, *touched_next;
    bool job_out, ticket_out, work_queued; /* each keeps the memory */
    struct loop_msg work; /* preparing, if it is done here, and then dispatching, bit by bit */
    struct fleet_ticket ticket;
    struct leg *ticket_leg;
    h2o_timeout_entry_t queue_entry, request_entry, keepalive_entry;
    uint64_t begin_ns, first_ns, last_ns, wait_us, prefill_us;
    struct engine_metrics
        *metrics; /* of the worker that took the first prompt; lives as long as the worker is held */
    struct worker *metrics_worker; /* held for that */
    char suffix[129];              /* of the client-visible id, once known */
};

/* session.c */
/* session_fail: the end with an error: a reply, or an event and [DONE] once bytes are out. */
void session_fail(struct session *s, const struct err *e, unsigned retry_after_s);
/* session_complete: every choice has finished. */
void session_complete(struct session *s);
/* session_touch: what was added to its stream goes out with the slice of work under way or a later one. */
void session_touch(struct session *s);
void session_maybe_free(struct session *s);
/* session_abort: an operator's: every choice that runs ends with "abort". The session is over afterwards, or as soon
 * as it is prepared. */
void session_abort(struct session *s);
/* session_client_id: the client-visible id, as far as it is known yet; cut at size. */
void session_client_id(const struct session *s, char *out, size_t size);
/* session_describe: an object of GET /debug/requests. */
void session_describe(const struct session *s, struct buf *out);

/* dispatch.c */
void dispatch_start(struct session *s);
/* leg_choice_over: a sample has finished or was cut; gives its credit back, and closes the leg after the
 * last. */
void leg_choice_over(struct leg *g, uint32_t k);
/* leg_cut: a stop string ended a sample: the worker is told, and it is over. */
void leg_cut(struct leg *g, uint32_t k);
/* leg_prefilled: gives the prompt's credit back, once. */
void leg_prefilled(struct leg *g);
/* leg_close: nothing more is expected; with `abort` the worker is told. */
void leg_close(struct leg *g, bool abort);
/* leg_retry: its worker is gone: to another one, if nothing of it has been used yet. False: it cannot. */
bool leg_retry(struct leg *g);

#endif
