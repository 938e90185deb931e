/* engine_impl.h: the engine's parts, for each other only: inbox (engine_inbox.c), events and statistics
 * (engine_out.c), start and sizing (engine_new.c), the loop (engine.c).
 */
#ifndef WEIR_WORKER_ENGINE_IMPL_H
#define WEIR_WORKER_ENGINE_IMPL_H

#include <pthread.h>

#include "worker/batch.h"
#include "worker/engine.h"
#include "worker/mask.h"
#include "worker/sample.h"

/* ---- inbox
 * ---------------------------------------------------------------------------------------------------- */

enum cmd_kind { CMD_SUBMIT = 1, CMD_ABORT, CMD_CONTROL };
struct cmd {
    enum cmd_kind kind;
    uint32_t router, router_epoch;
    struct req *req;             /* SUBMIT: owned */
    struct id128 id;             /* ABORT */
    bool whole;                  /* ABORT */
    bool transfer;               /* ABORT: only what it fetches */
    uint64_t stream;             /* ABORT */
    uint64_t control_id;         /* CONTROL */
    enum engine_control control; /* CONTROL */
};

/* inbox: shared by all threads; everything under its lock. */
struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct cmd *in, *out; /* [n_max] being filled; being read by the engine */
    uint32_t n_in, n_max;
    uint32_t *drop_below;        /* [n_routers] epochs below it are gone; 0: none */
    bool dropped;                /* some of drop_below is news */
    bool poked;                  /* a constraint was compiled */
    uint32_t n_live, n_live_max; /* requests taken over and not yet freed */
    uint64_t n_wide;             /* alternatives that those of them which want many get in a step */
    bool draining, stopping, failed;
};
/* req_wide: what r counts for n_wide: its alternatives of a step if they are more than ENGINE_TOP_NARROW,
 * else 0. All narrow requests together fit a message (4096 sequences of 1024), so only wide ones are counted.
 */
enum { ENGINE_TOP_NARROW = 1024, ENGINE_WIDE_MAX = 2 << 20 };
static inline uint64_t req_wide(const struct req *r) {
    return r->n_logprobs > ENGINE_TOP_NARROW ? (uint64_t)r->n_samples * (uint32_t)r->n_logprobs : 0;
}
void inbox_init(struct inbox *b, uint32_t n_live_max, uint32_t n_routers);
void inbox_fini(struct inbox *b);
/* inbox_poke: inbox_take returns, with nothing perhaps. Any thread. */
void inbox_poke(struct inbox *b);
/* inbox_take: moves everything to b->out and to drop_below [n_routers] (0: not dropped); returns how many
 * commands. Sleeps until there is something or the engine is to stop, or until until_ns; 0: not at all. */
uint32_t inbox_take(struct inbox *b, uint64_t until_ns, uint32_t *drop_below, uint32_t n_routers, bool *dropped);

/* ---- the engine
 * ----------------------------------------------------------------------------------------------- */

/* flight: a step that was enqueued and whose tokens have not been taken yet. Its buffers change places with the
 * engine's (rows, results, top_ids, top_logprobs, row_jobs). */
struct flight {
    bool on;
    uint32_t n_rows, n_tokens, n_prefill_tokens;
    struct seq **seqs; /* [n_rows] each row's; one that ended meanwhile is still there */
    struct sample_row *rows;
    struct sample_out *results;
    uint32_t *top_ids;
    float *top_logprobs;
    size_t n_top_room;
    const struct mask_job **row_jobs;
};

struct engine {
    struct engine_opts opts; /* groups and eos_ids point to the copies below */
    struct cache_group_spec groups[BE_GROUPS_MAX];
    uint32_t *eos_ids;
    struct be_kv *kv[BE_GROUPS_MAX];
    struct inbox inbox;
    pthread_t thread;
    bool started;

    /* The engine's thread, from here on. */
    struct sched sched;
    struct batch_arrays arrays;
    struct req *live;     /* list, newest first */
    struct req **buckets; /* [n_buckets] chains by id */
    uint32_t n_buckets;
    uint64_t hash_seed;
    struct req *ended;         /* to be freed after the report; linked by next */
    struct req *ended_before;  /* reported, and free once the step under way is over */
    struct flight flight;
    uint64_t next_deadline_ns; /* the earliest of all live requests, or earlier; UINT64_MAX: none */
    uint32_t *drop_below;      /* [n_routers_max] what inbox_take brought */
    bool drained_told, failed;
    struct req *searched;  /* list of beam searches that are over and being reported, oldest first */
    struct req *compiling; /* list of requests whose constraint is not compiled yet; the scheduler has not
                              seen them */

    /* of a step, sized for the largest */
    struct sample_row *rows;             /* [n_rows_max] */
    struct sample_out *results;          /* [n_rows_max] sampled rows first, as in the plan */
    struct op_row_logprobs *prompt_rows; /* [n_rows_max] */
    struct be_copy *copies;              /* [seats] */
    uint32_t *top_ids;                   /* [n_top_room] of the sampled rows, one behind the other */
    float *top_logprobs;                 /* [n_top_room] */
    size_t n_top_room;
    struct sample_out *raw_results; /* [n_rows_max] raw log-probabilities beside another mode's */
    struct proc_row *proc_rows;     /* [n_proc_rows] of rows that processors change */
    uint32_t n_proc_rows, n_proc_rows_max;
    float *proc_logits;               /* [n_proc_rows_max][2][n_vocab] as they were, and as they are */
    float *beam_logits;               /* [n_vocab] of one row; NULL until it is needed */
    bool extra;                       /* some row of the step has processors, or wants raw values */
    struct masks *masks;              /* NULL without constraints */
    const struct mask_job **row_jobs; /* [n_rows_max] of the sampled rows; NULL: no constraint */
    float *hidden;                    /* [token budget][hidden] of one entry; NULL without a pooler */
    uint8_t *kinds;                   /* [seats] ATTN_BIDIRECTIONAL each; NULL: all causal */

    /* events of the step, in order of arising; then sorted by router */
    struct token_out *events, *sorted; /* [n_events_max] */
    uint32_t n_events, n_events_max;
    struct first_out *firsts; /* [n_rows_max + seats] */
    uint32_t n_firsts;
    struct router_out *routers;     /* [n_routers_max] */
    uint32_t *router_counts;        /* [n_routers_max] */
    struct prefix_event *kv_events; /* [ENGINE_KV_EVENTS] */
    struct kv_walks kv_walks;       /* for no routers without kv_events */

    struct kvx *kvx; /* KV transfers (engine_kvx.h); NULL: there are none */
    struct engine_stats stats; /* the engine's own copy */
    pthread_mutex_t stats_lock;
    struct engine_stats stats_out; /* under stats_lock */
};
enum { ENGINE_KV_EVENTS = 4096 };

/* ---- events and statistics
 * ------------------------------------------------------------------------------------ */

/* out_event: a new event of q, to be filled in; valid until the next call. */
struct token_out *out_event(struct engine *e, const struct seq *q);
/* out_first: q's first event gets what goes with it. */
void out_first(struct engine *e, struct token_out *t, struct seq *q, uint64_t now_ns);
/* out_forget: takes back events of a router's connections below that epoch. */
void out_forget(struct engine *e, uint32_t router, uint32_t epoch);
/* out_flush: reports and frees what ended. */
void out_flush(struct engine *e);
/* stats_publish: takes the gauges down and makes the statistics visible. */
void stats_publish(struct engine *e, uint32_t step_tokens, uint64_t now_ns);
/* stats_mask: counts a mask by the time it took. */
void stats_mask(struct engine_stats *s, enum gram_kind kind, uint64_t ns);
/* stats_iteration: counts a step by the tokens it prefilled and sampled. */
void stats_iteration(struct engine_stats *s, uint32_t n_tokens);

/* ---- logits processors (engine_procs.c) */

/* procs_before: of a step's rows, before they are sampled. procs_after: once they are, what is reported of
 * the raw logits; false: the device failed. procs_failed: why a row's processors failed; NULL: they did not.
 */
void procs_before(struct engine *e, const struct step_plan *p);
MUST_USE bool procs_after(struct engine *e, const struct step_plan *p, char *why);
const char *procs_failed(const struct engine *e, uint32_t row, uint32_t *status);

/* ---- steps that overlap (engine_flight.c) */

/* flight_may: nothing of the next step depends on more of this one's tokens than their embeddings. flight_start: the
 * planned step, which is enqueued, stays under way. flight_land: its tokens are there, and are taken. */
bool flight_may(const struct engine *e, const struct step_plan *p);
void flight_start(struct engine *e, const struct step_plan *p);
void flight_land(struct engine *e, uint64_t now_ns);
/* engine_take_token: row i of the step is q's. */
void engine_take_token(struct engine *e, struct seq *q, uint32_t i, uint64_t now_ns);

/* ---- pooling (engine_pool.c) */

/* engine_pool_rows: the tokens whose hidden states are wanted become the built batch's rows, where that leaves some out.
 * Of a model that gathers (engine_model). */
void engine_pool_rows(struct engine *e, const struct step_plan *p);
/* engine_pool: the planned step's hidden states go to the requests that they belong to. */
void engine_pool(struct engine *e, const struct step_plan *p);

/* ---- beam searches (engine_beam.c) */

/* beams_take: row i of the step is of a live hypothesis. */
void beams_take(struct engine *e, struct seq *q, uint32_t i);
/* beams_report: events of searches that are over, as many as a step may have. */
void beams_report(struct engine *e, uint64_t now_ns);
/* beams_forget: r, which ends, is on no list any more. */
void beams_forget(struct engine *e, struct req *r);
/* What they report in a step: alternatives count as tokens. */
enum { BEAM_FIRSTS_MAX = 512, BEAM_EVENTS_MAX = 4096, BEAM_TOPS_STEP_MAX = 65536 };

/* engine_end_all: every sample of r that has not ended. r lives until out_flush. */
void engine_end_all(struct engine *e, struct req *r, enum finish_reason why, const char *message,
                    uint32_t status, bool quiet);
extern const char engine_nan_message[];
/* engine_end: q ends; reported unless quiet. message and status are FINISH_ERROR's. */
void engine_end(struct engine *e, struct seq *q, enum finish_reason why, const char *message, uint32_t status,
                bool quiet);
/* engine_release: a new request is the scheduler's, once its constraint is compiled. */
void engine_release(struct engine *e, struct req *r);
/* engine_fail: the device is gone: everything ends. */
void engine_fail(struct engine *e, const char *message);
/* engine_main: the thread. */
void *engine_main(void *arg);
/* engine_measure: the token budget that takes 200 ms. Before the thread runs. */
MUST_USE enum rc engine_measure(struct engine *e, uint32_t *budget, struct err *err);

#endif
