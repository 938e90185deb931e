/* session_private.h: the pieces of a session: session.c (life), dispatch.c (prompts to workers), outputs.c
 * (workers' answers), replay.c (prompts to another worker, with what has been said of the answer), prefill.c (prompts that
 * another worker computes), session_trace.c. */
#ifndef WEIR_ROUTER_SESSION_PRIVATE_H
#define WEIR_ROUTER_SESSION_PRIVATE_H

#include "router/session.h"
#include "router/stream.h"

enum { LEG_REFUSALS_MAX = 3, RETRY_AFTER_LOADING_S = 5, CHOICE_TAIL = 8, LEG_BILL_TOKENS = 32 };

/* choice: one sample of one prompt. One cache line: the newest of its tokens lie in it, and go to `ids` eight
 * at a time, so that keeping them for a replay costs an output next to nothing. */
struct choice {
    uint64_t last_ns; /* its newest token */
    uint32_t *ids;    /* its leading tokens, whole eights of them; freed with its end */
    uint32_t n_tokens, cap;
    uint32_t n_repeat; /* tokens that come once more, from the beginning: compared and dropped (beam search) */
    bool finished, begun; /* begun: its First has come */
    uint32_t tail[CHOICE_TAIL]; /* token i, of those not in ids, is tail[i % 8] */
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
    uint32_t credit_tokens; /* tokens to be prefilled, while that is not known to be over */
    uint32_t n_cached;      /* of these, expected in the worker's prefix cache */
    bool predicted;         /* n_cached says something */
    uint32_t n_refusals;    /* by workers that had no room after all */
    uint32_t n_replays;     /* workers lost */
    uint32_t n_hedges;      /* workers that it was taken from, and that may be there still */
    const struct worker *avoid; /* the last one that it was with; not held, only compared */
    uint64_t until_ns;      /* after a loss: another worker must be found by then */
    uint32_t n_shown;       /* cached tokens, as its client is told */
    bool touched;           /* something of it has reached the run */
    uint32_t n_unbilled;    /* tokens of output that its tenant has not been charged with yet */
    struct choice *choices; /* [n] */
    struct vtc_bill bill;   /* while submitted: what its tenant was charged */
    struct leg *prefill;    /* its prompt is computed by another worker, in this leg (prefill.c); NULL: it is not */
    /* of such a leg, which has neither choices nor a bill: */
    struct leg *decode;     /* the one it is for; NULL: it is none */
    struct worker *decoding; /* held: who goes on with it */
    struct id128 transfer;
    bool kept;              /* it is over, and its worker keeps the blocks */
    uint32_t n_here, n_found; /* tokens that were expected in the decoding side's cache, and found in this one's */
    uint64_t done_ns;
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
    uint64_t key; /* of the --hash-header; has_key: it came */
    bool has_key;
    bool over;
    bool left; /* the client has: that is why it is over */
    bool kv_given; /* a worker fetches, or has, what the client's kv_transfer_params name */
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
    uint64_t transfer_us, transfer_queue_us; /* KV blocks were fetched in that time, of that at the worker's queue; 0: none were */
    struct engine_metrics
        *metrics; /* of the worker that took the first prompt; lives as long as the worker is held */
    struct worker *metrics_worker; /* held for that */
    struct trace_record *trace;    /* NULL: nobody wants to know */
    struct admitted who;
    int32_t priority; /* lower runs earlier; once prepared */
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
/* session_trace.c: nothing without a tracer, or the log of requests. begin: with the headers; prepared: the request is
 * known and goes into the line; end: with log_end. session_trace_id: 32 hexadecimal digits, or "". */
void session_trace_begin(struct session *s, const h2o_req_t *req);
void session_trace_prepared(struct session *s);
void session_trace_id(const struct session *s, char out[33]);
void session_trace_end(struct session *s, int status, const char *reason);
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
/* leg_prompt_done: its prompt is computed, but for n_cached tokens: its tenant is charged with that. leg_said: a token
 * of output has come; they are charged some at a time, since that takes the fleet's lock. */
void leg_prompt_done(struct leg *g, uint32_t n_cached);
void leg_bill(struct leg *g);
static inline void leg_said(struct leg *g) {
    if (UNLIKELY(++g->n_unbilled == LEG_BILL_TOKENS))
        leg_bill(g);
}
/* leg_close: nothing more is expected; with `abort` the worker is told. */
void leg_close(struct leg *g, bool abort);
/* leg_hedge: gives the leg to another worker that has room for it now, with the tokens it has; its own, which makes no
 * progress, is told, and what that one may yet say of it is dropped. False: it stays. The session may be over
 * afterwards. */
bool leg_hedge(struct leg *g);
/* leg_again: takes the leg from its worker, which is told if `abort`, and gives it to another one soon. */
void leg_again(struct leg *g, bool abort);

/* leg_tell_abort: of a sample, or of all of it. leg_fill_tag: whose it is. */
void leg_tell_abort(struct leg *g, bool whole, uint32_t k);
void leg_fill_tag(struct session *s, Weir__Submit *m);

/* prefill.c */
/* prefill_begin: gives the prompt of a leg that is about to be submitted to w to another worker, if that pays: then g->prefill
 * is that leg, and *out says where w will find the blocks. */
bool prefill_begin(struct leg *g, struct worker *w, struct gen_submit *out);
/* prefill_end: g->prefill, if there is one, is over; its worker frees what it has. Before g's own worker changes. */
void prefill_end(struct leg *g);
/* prefill_failed: p's worker will not do it: the decoding one computes the prompt. p is gone. */
void prefill_failed(struct leg *p);
/* prefill_on_entry: p's worker says something. False: it is nothing that is wanted. */
bool prefill_on_entry(struct leg *p, const struct batch_entry *t);
/* prefill_first: g's first token is here; the prefill is over. Returns the cached tokens, as clients know them. */
uint32_t prefill_first(struct leg *g, uint32_t n_cached, uint32_t prefill_us);

/* replay.c */
/* leg_replay: its worker is gone, last heard of at last_ns, or is ending: the leg goes to another worker, with
 * the tokens it has. False: it may not (--no-replay, --max-replays), or nobody is left; the leg is as it was. */
bool leg_replay(struct leg *g, uint64_t last_ns, bool abort);
/* leg_seqs, leg_tokens: what submitting it takes of a worker's credit. */
uint32_t leg_seqs(const struct leg *g);
uint32_t leg_tokens(const struct leg *g);
/* replay_fill: adds to a leg's Submit what its samples have said. The result is to be freed after packing. */
void *replay_fill(struct leg *g, struct gen_submit *out);
/* choice_keep: a token of a sample. choice_id: the i-th. choice_forget: frees them. */
void choice_spill(struct choice *c);
static inline void choice_keep(struct choice *c, uint32_t id) {
    c->tail[c->n_tokens % CHOICE_TAIL] = id;
    if (UNLIKELY(++c->n_tokens % CHOICE_TAIL == 0))
        choice_spill(c);
}
uint32_t choice_id(const struct choice *c, uint32_t i);
void choice_forget(struct choice *c);

#endif
