/* engine.h: the loop that turns requests into tokens.
 *
 * One engine drives one device from one thread of its own. Other threads put commands into its bounded inbox;
 * at the top of each step it takes them all, lets the scheduler plan, runs the model, samples, and reports
 * the step's outputs in one call, grouped by router.
 *
 * Threads: engine_submit, engine_abort, engine_drop_router, engine_control, engine_drain and engine_stats_get
 * may be called from any thread; they take a mutex for well under a microsecond and never wait for a step.
 * The callbacks run on the engine's thread, must be quick, and may not call engine_stop. Commands of one
 * thread are taken in order.
 *
 * Ownership: a submitted request is the engine's. What a callback receives is borrowed until it returns.
 *
 * A device failure is final: every request ends with FINISH_ERROR, on_failed is called, and submissions are
 * refused.
 */
#ifndef WEIR_WORKER_ENGINE_H
#define WEIR_WORKER_ENGINE_H

#include "common/err.h"
#include "worker/backend.h"
#include "worker/constraint.h"
#include "worker/kv_walk.h"
#include "worker/kvx/config.h"
#include "worker/sched.h"
#include "worker/seq.h"

struct engine;

/* ---- what comes out --------------------------------------------------------------------------- */

/* first_out: goes with the first event of each sample that got a token. */
struct first_out {
    uint32_t n_prompt;
    uint32_t n_cached;   /* prompt tokens taken from the prefix cache */
    uint64_t queue_ns;   /* arrival to first scheduled */
    uint64_t prefill_ns; /* first scheduled to first token */
    uint64_t transfer_ns; /* of queue_ns, in which its KV blocks were fetched; 0: none were */
    /* of the prompt, [n_prompt], entry 0 empty; NULL unless asked for; with the first event of the request
     * only */
    const struct prompt_logprob *prompt;
    const uint32_t *prompt_top_ids;   /* [n_prompt][n_prompt_top] */
    const float *prompt_top_logprobs; /* [n_prompt][n_prompt_top] */
    uint32_t n_prompt_top;
};

/* token_out: one sampled token, an end, or both. */
struct token_out {
    const struct req *req; /* its caller's part may be read */
    uint64_t stream;       /* req->stream + sample */
    uint32_t sample;
    uint32_t token;            /* SEQ_NO_TOKEN: an end without a token (abort, error, prompt only) */
    uint32_t index;            /* of the token in the sample's output, resumed ones included */
    enum finish_reason finish; /* FINISH_NONE: more will come */
    uint32_t stop_id;          /* FINISH_STOP: the token that ended it */
    bool eos;                  /* FINISH_STOP by the model's primary end token */
    const char *message;       /* FINISH_ERROR */
    uint32_t status;           /* FINISH_ERROR: HTTP status */
    uint32_t n_preempted;      /* with the end */
    bool has_logprob;
    float logprob, raw_logprob;
    uint32_t rank; /* of the token among the raw logits, from 1 */
    uint32_t n_top;
    const uint32_t *top_ids;       /* [n_top] best first */
    const float *top_logprobs;     /* [n_top] */
    const struct first_out *first; /* NULL: not the first */
    const float *pool;             /* [pool_rows][pool_cols] of a pooling request that is done; else NULL */
    uint32_t pool_rows, pool_cols;
};

/* router_out: the events of one router. */
struct router_out {
    uint32_t router, router_epoch;
    uint32_t n_tokens;
    const struct token_out *tokens;
};

/* step_out: everything of one step. Ends of requests that were taken out between steps come along. */
struct step_out {
    uint64_t step;
    uint32_t n_routers;
    const struct router_out *routers;
    /* changes of the prefix cache since the last call, if engine_opts.kv_events: see worker/prefix.h */
    const struct prefix_event *kv_events;
    uint32_t n_kv_events;
    uint64_t first_kv_event; /* number of the first; a gap to the last one's means that some were lost */
    /* a piece of a snapshot that a router asked for (worker/kv_walk.h), behind the events above; NULL: none */
    const struct kv_piece *kv_piece;
};


enum { ENGINE_ITER_BUCKETS = 14, ENGINE_MASK_KINDS = 5, ENGINE_MASK_BUCKETS = 12 };
extern const uint32_t engine_iter_bounds[ENGINE_ITER_BUCKETS - 1]; /* 1, 8, 16, 32 ... 16384; then infinity */

/* Why a request computed its prompt although it was to have been fetched. */
enum kvx_fallback {
    KVX_FALL_PARAMS = 0, /* what it said of the other side is incomplete, or this worker does not fetch */
    KVX_FALL_BUSY,
    KVX_FALL_REFUSED,
    KVX_FALL_MISMATCH, /* of another prompt, model or cache */
    KVX_FALL_NETWORK,
    KVX_FALL_PROTOCOL,
    N_KVX_FALLBACK
};
enum { KVX_BUCKETS = 12 };
struct kvx_stats {
    uint32_t n_leases;              /* now */
    uint64_t n_failed, n_expired;   /* pulls; leases */
    uint64_t n_served;              /* leases whose reader had all it needed */
    uint64_t fallbacks[N_KVX_FALLBACK];
    uint64_t times[KVX_BUCKETS], ns;      /* pulls that brought something, in the buckets of Load.kv_times */
    uint64_t sizes[KVX_BUCKETS], n_bytes; /* the same, in those of Load.kv_sizes */
};

/* engine_stats: a consistent snapshot. Counters grow from the engine's start. */
struct engine_stats {
    uint32_t running, waiting; /* sequences */
    uint32_t kv_used_blocks,
        kv_total_blocks;    /* held by sequences, over all groups; cached and idle ones are not used */
    uint32_t queued_tokens; /* known but not computed, of waiting sequences */
    uint64_t steps;
    uint64_t prefix_queries, prefix_hits; /* tokens */
    uint64_t preemptions;
    uint64_t prompt_tokens; /* of requests whose prompt is computed */
    uint64_t prompt_tokens_cached;
    uint64_t generated_tokens;
    uint64_t computed_tokens;                       /* rows put through the model */
    uint64_t finished[N_FINISH];                    /* sequences by reason */
    uint64_t iteration_tokens[ENGINE_ITER_BUCKETS]; /* steps by tokens prefilled plus tokens sampled; not
                                                       cumulative */
    uint64_t iteration_tokens_sum;
    /* Masks by kind of constraint and by the time they took, in the buckets of Load.mask_times; and that
     * time. */
    uint64_t mask_times[ENGINE_MASK_KINDS][ENGINE_MASK_BUCKETS], mask_ns[ENGINE_MASK_KINDS];
    uint64_t step_done_ns; /* monotonic time the last step ended, or the engine woke up; 0: nothing pending */
    uint32_t step_tokens;  /* rows of the step being computed; 0: none */
    bool failed;
    struct kvx_stats kvx;
};

/* ---- what goes in ----------------------------------------------------------------------------- */

/* engine_model: what computes a batch up to its logits. The real one is model_forward. */
struct engine_model {
    void (*forward)(void *arg, const struct batch *b);
    void *arg;
    /* hidden: final hidden states of tokens [row0, row0 + n) of the last batch, [n][hidden]; waits. NULL: the
     * model does not pool. */
    void (*hidden)(void *arg, uint32_t row0, uint32_t n, float *dst);
    /* gathers: as model_gathers: `hidden` is about a batch's rows where it has some */
    bool gathers;
    /* copies: told of blocks that are about to be copied, before the forward pass that follows; NULL: not
     * wanted. */
    void (*copies)(void *arg, uint32_t group, const struct be_copy *copies, uint32_t n);
};

struct engine_opts {
    const struct be_ops *ops; /* device, opened; outlives the engine. The engine makes its KV pools */
    struct be *be;
    struct engine_model model;
    const struct cache_group_spec *groups; /* [n_groups] as model_groups gives them; copied */
    uint32_t n_groups;
    uint32_t n_blocks[BE_GROUPS_MAX]; /* of each group, see engine_size_pools */
    const struct pooler *pooler;      /* outlives the engine; NULL: pooling requests are refused */
    uint32_t hidden;                  /* floats of a hidden state, with a pooler */
    bool bidirectional;               /* an encoder: attention both ways, whole prompts, no groups */
    uint32_t n_vocab;
    uint32_t max_len;      /* effective context, tokens */
    uint32_t n_tokens_max; /* rows the device and the model were opened for */
    uint32_t n_rows_max;   /* rows of logits at once, likewise; at least n_seqs_max */
    uint32_t n_seqs_max;   /* sequences running at once (--max-num-seqs) */
    uint32_t token_budget; /* tokens of a step (--max-num-batched-tokens); 0: what 200 ms compute, measured */
    uint32_t n_cpu_threads;       /* for measuring: threads of this process that compute; 0: a device does */
    uint32_t long_prefill_tokens; /* most prompt tokens of one sequence in a step; 0: no such limit */
    bool whole_prompts;           /* see sched_opts; then there is no such limit */
    uint32_t n_requests_max;      /* live at once, waiting ones included: engine_submit refuses more */
    uint32_t n_routers_max;       /* router indices */
    enum sched_policy policy;
    bool prefix_cache;
    bool kv_events;
    const uint32_t *eos_ids; /* [n_eos_ids] of the model, the primary one first; copied */
    uint32_t n_eos_ids;
    uint32_t n_top_max;     /* largest n_logprobs and n_prompt_logprobs accepted */
    uint32_t logprobs_mode; /* enum be_logprobs_mode */
    struct constraints
        *constraints;        /* of requests' grammars; outlives the engine; NULL: such requests are refused */
    unsigned n_mask_threads; /* that work out masks during the forward pass, beside the engine's */
    const struct kvx_opts *kvx; /* KV blocks go to and come from other workers; copied. NULL: they do not */

    void *arg; /* of the callbacks */
    void (*on_step)(void *arg, const struct step_out *out);
    /* on_control: a command of engine_control is done. NULL: not wanted. */
    void (*on_control)(void *arg, uint32_t router, uint32_t router_epoch, uint64_t id, bool ok);
    /* on_drained: engine_drain was called and nothing is left. Once. NULL: not wanted. */
    void (*on_drained)(void *arg);
    /* on_failed: the device failed, after every request was ended. Once. NULL: not wanted. */
    void (*on_failed)(void *arg, const char *message);
};

/* engine_size_pools: shares `bytes` of device memory among the groups: as many blocks each, but a window
 * group no more than n_seqs_max sequences can hold, twice over for the prefix cache. Writes
 * n_blocks[n_groups]; RC_INVALID if not one sequence of max_len tokens fits, with what would be needed.
 * Fields read: ops, be, groups, n_groups, max_len, n_tokens_max, n_seqs_max. */
MUST_USE enum rc engine_size_pools(const struct engine_opts *o, uint64_t bytes, uint32_t *n_blocks,
                                   struct err *e);

/* engine_new: makes the pools and all buffers, and measures the token budget if asked (well under a second);
 * no thread yet. RC_INVALID: limits that do not fit together; RC_UNSUPPORTED: a cache group it cannot serve;
 * RC_IO: no memory. */
MUST_USE enum rc engine_new(struct engine **out, const struct engine_opts *o, struct err *e);
/* engine_start: the thread. */
MUST_USE enum rc engine_start(struct engine *e, struct err *err);
/* engine_stop: ends what is left with FINISH_ABORT, joins the thread. Blocks for the step under way. */
void engine_stop(struct engine *e);
/* engine_free: after engine_stop, or instead of engine_start. NULL is allowed. */
void engine_free(struct engine *e);

/* engine_kvx_port: where this engine's blocks are to be had; 0: nowhere. */
uint32_t engine_kvx_port(const struct engine *e);

/* engine_seats: sequences that run at once: n_seqs_max, or three quarters of the token budget if that is
 * less. */
uint32_t engine_seats(const struct engine *e);
/* engine_token_budget: the step's budget in force, after measuring. */
uint32_t engine_token_budget(const struct engine *e);

/* engine_submit: takes r over on RC_OK only. RC_INVALID: out of limits (names the field); RC_OVERLOAD:
 * n_requests_max live requests, or the inbox is full; RC_UNAVAILABLE: draining, stopped or failed. Prepares r
 * on the calling thread: hashes the prompt. */
MUST_USE enum rc engine_submit(struct engine *e, struct req *r, struct err *err);

/* engine_abort: ends one sample (by stream) or all of request `id` of that router with FINISH_ABORT, which is
 * reported. Of unknown ones, which have ended, the blocks kept for other workers are let go (a whole request's). RC_AGAIN: the inbox is full; RC_UNAVAILABLE: the
 * engine is stopping. */
MUST_USE enum rc engine_abort(struct engine *e, uint32_t router, uint32_t router_epoch, struct id128 id,
                              bool whole, uint64_t stream);
/* engine_abort_pull: request `id` waits no longer for KV blocks from elsewhere: it computes its prompt. As above. */
MUST_USE enum rc engine_abort_pull(struct engine *e, uint32_t router, uint32_t router_epoch, struct id128 id);
/* engine_end_transfer: nobody will fetch what v names: who keeps it is told, if it can be. Any thread. */
void engine_end_transfer(struct engine *e, const struct req_kv *v);
/* engine_drop_router: that connection is gone; all its requests of this epoch and earlier ones end
 * unreported. The index may be reused at once, with a larger epoch. */
void engine_drop_router(struct engine *e, uint32_t router, uint32_t router_epoch);
/* engine_control: RESET_PREFIX_CACHE: on_control reports with `id`. KV_SNAPSHOT: pieces of it come with the next
 * steps, or at once if there are none (kv_piece); without kv_events nothing comes. RC_AGAIN as above. */
enum engine_control { ENGINE_RESET_PREFIX_CACHE = 1, ENGINE_KV_SNAPSHOT };
MUST_USE enum rc engine_control(struct engine *e, enum engine_control kind, uint32_t router,
                                uint32_t router_epoch, uint64_t id);
/* engine_drain: from now on submissions are refused; what is there finishes. */
void engine_drain(struct engine *e);

/* engine_stats_get: a snapshot, at most a step old. */
void engine_stats_get(struct engine *e, struct engine_stats *out);

#endif
