/* fleet.h: the workers this router knows, the models they serve, and who may submit where.
 *
 * A worker is a connection: it appears when one comes up, and a connection that ends is a worker that is
 * gone. Its model's tokenizer and templates are fetched from it once per revision and built on the pool; from
 * then on the model stays known, with or without workers. A prompt gets a worker by fleet_acquire: a ready one
 * within its credit, by --policy; else it waits here, in its model's line (line.h), and its loop is told when
 * its turn has come.
 *
 * Threads: every function from any thread; one mutex, held for some hundred nanoseconds, never across a send.
 * Answers come to loops as messages (inbox.h).
 */
#ifndef WEIR_ROUTER_FLEET_FLEET_H
#define WEIR_ROUTER_FLEET_FLEET_H

#include "common/link/link.h"
#include "common/pool.h"
#include "router/api/kv_params.h"
#include "router/api/model_info.h"
#include "router/fleet/batch.h"
#include "router/fleet/line.h"
#include "router/fleet/pick.h"
#include "router/fleet/refuse.h"
#include "router/fleet/split.h"
#include "router/metrics.h"
#include "router/router.h"

struct fleet;

enum { FLEET_WORKERS_MAX = 256, FLEET_MODELS_MAX = 64 };

/* worker: what loops may look at: fixed once it is ready. */
struct worker {
    _Atomic uint32_t n_refs;
    _Atomic unsigned n_slow_out; /* fleet_slow messages that loops have not worked off */
    struct link_conn *conn; /* held */
    unsigned engine;        /* the label of its metrics, and its place in the table */
    struct engine_metrics metrics;
    struct worker_state *state; /* the fleet's */
    char kv_engine[33], kv_host[46]; /* KV transfers: "" without */
    uint32_t kv_port;                /* where it keeps blocks for others; 0: nowhere */
    bool kv_pulls;                   /* it fetches them */
    enum worker_role role;
};
struct worker *worker_hold(struct worker *w);
void worker_drop(struct worker *w);

/* A prompt's request for a worker. The owner fills the first part; model must stay held until the answer. */
struct fleet_ticket {
    struct loop_msg msg; /* step: the owner's; posted to `loop` when a queued ticket is answered */
    unsigned loop;
    struct model_info *model;
    struct line_ticket line; /* tenant, priority, arrival, again, tokens */
    uint32_t n_seqs, n_tokens;
    uint32_t n_out_max; /* tokens that each sequence may say */
    const struct worker *avoid; /* taken only if there is no other; only compared. NULL: none */
    uint64_t until_ns;          /* while no worker serves the model it waits until then; past: not at all */
    const struct id128 *blocks; /* [n_blocks] names of the prompt's blocks that may be cached; none: not known */
    uint32_t n_blocks;
    uint64_t key; /* for --policy consistent-hash */
    bool has_key;
    bool strict; /* neither `avoid` nor a worker in doubt, not even if there is no other */
    /* the answer */
    struct worker *worker; /* held, its credit taken; NULL after a post: no worker is left */
    uint32_t n_cached;     /* tokens of the prompt that are expected in its prefix cache */
    bool predicted;        /* n_cached says something */
    struct vtc_bill bill;  /* of what it was charged; the owner's until fleet_bill_end or fleet_give_back */
    enum refusal refused;  /* with RC_OVERLOAD: why */
    /* the fleet's */
    struct fleet_model *queue; /* NULL: not queued */
    uint64_t queued_ns;
};

struct fleet_opts {
    const struct router_opts *opts;
    struct str secret;
    const struct link_tls *tls; /* NULL: none */
    struct pool *pool;
    struct rmetrics *metrics;
    unsigned n_loops;
    void *arg;
    /* post: to a loop's inbox. post_counted: likewise, for what a worker may say any number of times; false:
     * too many bytes of it wait for the loop, and the worker is cut. */
    void (*post)(void *arg, unsigned loop, struct loop_msg *m);
    bool (*post_counted)(void *arg, unsigned loop, struct loop_msg *m, size_t n_bytes);
    /* What loops do with batches, rejects and lost workers. */
    bool (*on_batch)(struct loop *l, struct loop_msg *m);
    bool (*on_reject)(struct loop *l, struct loop_msg *m);
    bool (*on_lost)(struct loop *l, struct loop_msg *m);
    bool (*on_pool)(struct loop *l, struct loop_msg *m);
    bool (*on_slow)(struct loop *l, struct loop_msg *m);
    void (*on_change)(void *arg); /* fleet_progress would say something new */
    _Atomic bool *moves_kv;       /* set for good with the first worker that moves KV blocks; NULL: not wanted */
};

/* A Submit that was refused; posted to every loop, since only the owner knows the request's id. free(). */
struct fleet_reject {
    struct loop_msg msg;
    struct worker *worker; /* held */
    struct id128 id;
    uint32_t status, cursor; /* cursor: the loop's place in its scan */
    char message[256], param[96];
};
/* What a worker made of one text; posted to the loop that owns the stream. One allocation; free(). */
struct fleet_pooled {
    struct loop_msg msg;
    struct worker *worker; /* held */
    size_t bytes;          /* of the allocation */
    uint64_t stream;
    uint32_t rows, cols;
    uint32_t status; /* 0: done; else why not */
    char message[200];
    float data[]; /* [rows][cols] */
};
/* A worker that is gone; posted to every loop after everything it said. free(). */
struct fleet_lost {
    struct loop_msg msg;
    struct worker *worker; /* held */
    uint64_t last_ns;      /* when it was last heard of */
    uint32_t cursor;
};

/* A worker that makes no progress (--hedge-after), and is not gone: its requests may go on elsewhere. Posted to every
 * loop, again while it has some; the receiver counts n_slow_out down. free(). */
struct fleet_slow {
    struct loop_msg msg;
    struct worker *worker; /* held */
    uint32_t cursor;
};

struct fleet *fleet_new(const struct fleet_opts *o);
/* fleet_stop: closes every connection; no callback and no post comes afterwards, but jobs may still be in the
 * pool. */
void fleet_stop(struct fleet *f);
/* fleet_free: after fleet_stop and after the pool is gone. */
void fleet_free(struct fleet *f);

/* fleet_dial: keeps a connection to url, until fleet_undial was called as often. The worker that is there then gets
 * nothing new, finishes what it has, for --worker-drain-timeout at most, and is let go; the rest is replayed. */
MUST_USE enum rc fleet_dial(struct fleet *f, const char *url, struct err *e);
void fleet_undial(struct fleet *f, const char *url);
/* fleet_is_up: whether the worker dialled at url has said hello and was not cut off or lost since. */
bool fleet_is_up(struct fleet *f, const char *url);
/* fleet_is_ready: likewise, and it takes requests. */
bool fleet_is_ready(struct fleet *f, const char *url);

/* fleet_find_model: by served name; empty: the first model. Held, or NULL. *serving: whether a worker could
 * take work for it. */
struct model_info *fleet_find_model(struct fleet *f, struct str name, bool *serving);
/* fleet_knows_model: whether there is one at all. Without the lock. */
bool fleet_knows_model(const struct fleet *f);
/* fleet_models: up to max, held, in the order in which they appeared. */
size_t fleet_models(struct fleet *f, struct model_info **out, size_t max);

/* fleet_acquire: RC_OK: t->worker. RC_AGAIN: queued, the answer comes as t->msg. RC_OVERLOAD: it would wait,
 * and too much does already, here or at the workers: --max-queued-requests, --max-queued-tokens,
 * --max-queue-wait. RC_UNAVAILABLE: no ready worker serves the model, and t does not wait for one. begun: a part
 * of its request is at a worker, or was, so that it waits whatever the limits. */
MUST_USE enum rc fleet_acquire(struct fleet *f, struct fleet_ticket *t, bool begun);
/* fleet_acquire_other: for a request that has a worker, t->avoid: t->worker is another one, in no doubt, with room for
 * it now. False: there is none; nothing is queued. */
MUST_USE bool fleet_acquire_other(struct fleet *f, struct fleet_ticket *t);
/* fleet_set_tenants: whether requests say whose they are (line_ticket.tenant), so that none may fill the line. */
void fleet_set_tenants(struct fleet *f, bool on);
/* fleet_refuses: what fleet_acquire would say to a request of the tenant's, whatever its model and length. */
enum refusal fleet_refuses(struct fleet *f, struct id128 tenant);
/* fleet_cancel: true: t was taken out of the line. False: it was not in it, so its answer has been posted. */
bool fleet_cancel(struct fleet *f, struct fleet_ticket *t);
/* fleet_release: gives credit back: sequences that ended, prompt tokens that were prefilled, and of these n_cached,
 * as the ticket said. May let the line move. */
void fleet_release(struct fleet *f, struct worker *w, uint32_t n_seqs, uint32_t n_tokens, uint32_t n_cached);
/* fleet_give_back: an answered ticket is of no use: its credit and its bill. */
void fleet_give_back(struct fleet *f, struct worker *w, struct fleet_ticket *t);
/* What a request at w costs its tenant (line.h): the tokens of its prompt that had to be computed, tokens of output,
 * and the end, with the last n of them. lost: it goes on elsewhere, or never began. */
void fleet_bill_prompt(struct fleet *f, struct worker *w, struct vtc_bill *bill, uint32_t n_computed);
void fleet_bill_said(struct fleet *f, struct worker *w, struct vtc_bill *bill, uint32_t n);
void fleet_bill_end(struct fleet *f, struct worker *w, struct vtc_bill *bill, uint32_t n, bool lost);
/* fleet_cached: of a prompt whose prefill is over: the tokens that were expected in the prefix cache, and those that
 * were there. */
void fleet_cached(struct fleet *f, const struct worker *w, uint32_t n_predicted, uint32_t n_actual);
/* fleet_unusable: w's connection took no Submit: it is not offered again. */
void fleet_unusable(struct fleet *f, struct worker *w);
/* fleet_kv_known: whether a worker of this router keeps blocks there. */
bool fleet_kv_known(struct fleet *f, const char *host, uint32_t port);
/* fleet_split: another worker that is to compute the prompt of t, which decode was given for: held, with credit for one
 * sequence and t->n_tokens tokens, of which *n_cached are expected in its cache. Nothing of the prompt counts as queued at
 * decode any more (t->n_cached). NULL: it is better computed there. */
struct worker *fleet_split(struct fleet *f, struct fleet_ticket *t, struct worker *decode, uint32_t *n_cached);
/* fleet_split_end: such a choice, of these two, is over. Its credit is apart from that. */
void fleet_split_end(struct fleet *f, struct worker *decode, struct worker *prefill);
/* What such choices are made by: fleet_prefilled: w has computed so many tokens of a prompt in so long. fleet_transferred:
 * from the end of a prefill elsewhere to the first token. */
void fleet_prefilled(struct fleet *f, struct worker *w, uint32_t n_computed, uint32_t us);
void fleet_transferred(struct fleet *f, uint64_t ns);
/* fleet_end_transfer: nobody will fetch what a client has named: whoever keeps it is told, by a worker. */
void fleet_end_transfer(struct fleet *f, const struct kv_params *p);
/* fleet_has_other: whether another ready worker serves w's model. */
bool fleet_has_other(struct fleet *f, const struct worker *w);
/* fleet_replay_ns: how long a request waits for another worker when it has lost its own (--replay-timeout). By
 * default not at all where there is one worker's address alone: nobody else can be hoped for, and a restart takes
 * as long as the model takes to load. */
uint64_t fleet_replay_ns(struct fleet *f);
/* fleet_done: a request that a worker had taken ended; feeds the completion rate behind Retry-After. */
void fleet_done(struct fleet *f);
unsigned fleet_retry_after_s(struct fleet *f);

/* fleet_health: whether some worker is ready and makes progress; else *why (up to n bytes) says what is the
 * matter. */
bool fleet_health(struct fleet *f, char *why, size_t n);
void fleet_progress(struct fleet *f, struct router_progress *out);
/* fleet_first_name: the first served name known, for labels; "" before any. Copied to out. */
void fleet_first_name(struct fleet *f, struct buf *out);
/* fleet_gauges: brings the gauges of workers and lines up to date, before a scrape. */
void fleet_gauges(struct fleet *f);
/* fleet_workers_write: the body of GET /weir/workers (api.md 15.4.3). */
void fleet_workers_write(struct fleet *f, struct buf *out);
/* fleet_reset: tells every ready worker to forget its prefix cache. RC_OK: r->msg is posted to r->loop when all
 * have answered, or after some seconds; r->ok: all have done it. RC_AGAIN: another reset is under way.
 * RC_UNAVAILABLE: there is no worker. */
struct fleet_reset {
    struct loop_msg msg; /* step: the owner's */
    unsigned loop;
    bool ok;
    unsigned n_left; /* the fleet's */
};
MUST_USE enum rc fleet_reset(struct fleet *f, struct fleet_reset *r);
/* fleet_tick: once a second: rates. */
void fleet_tick(struct fleet *f);
/* fleet_cut_silent: several times a second: answers those who have waited long enough for a worker of a model that
 * has none, and cuts off workers that have not been heard of for too long. Their
 * requests end as if they had died, within two seconds of the last word; a late answer finds no connection.
 * Likewise one that does not deliver its model's files: other workers of the model wait for them. */
void fleet_cut_silent(struct fleet *f);

#endif
