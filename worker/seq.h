/* seq.h: a request and its sequences, as the scheduler and the engine see them.
 *
 * A request (struct req) asks for n samples of one prompt; each sample is a sequence (struct seq). The wire
 * thread makes a request with req_new and hands it to engine_submit; from then on it belongs to the engine's
 * thread, which frees it when its last sequence has ended. The request with its copied inputs is one heap
 * block, its sequences and digests another. A sequence's output buffer is taken when it is first admitted and
 * is as long as its output can get, so that decoding allocates nothing.
 *
 * No backend header here: the scheduler runs in a simulator.
 */
#ifndef WEIR_WORKER_SEQ_H
#define WEIR_WORKER_SEQ_H

#include "common/base.h"
#include "common/err.h"
#include "worker/pooler.h"

enum { KV_GROUPS_MAX = 4, SEQ_NO_SEAT = UINT32_MAX };
#define SEQ_NO_TOKEN UINT32_MAX

enum finish_reason { FINISH_NONE = 0, FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR, N_FINISH };

struct sample_bias; /* worker/backend.h */
struct sample_seen;
struct seq;
struct constraint; /* worker/constraint.h */
struct beam;       /* worker/beam.h */
struct weir_lp;    /* worker/plugin/weir_plugin.h */
struct gram_run;   /* common/gram/gram.h */

/* req_resume: the output that a sample has already sent (replay after a worker was lost). */
struct req_resume {
    uint32_t sample;
    const uint32_t *tokens; /* [n_tokens] */
    uint32_t n_tokens;      /* less than max_tokens */
};

/* prompt_logprob: what is known of prompt[i], given the tokens before it. Entry 0 of a list is empty. */
struct prompt_logprob {
    uint32_t id;
    float logprob;
    uint32_t rank; /* from 1 */
};

/* req_word: a word that must not come, as ids. */
struct req_word {
    const uint32_t *ids; /* [n], n at least 1 */
    uint32_t n;
    uint32_t *fail; /* [n] worker/words.c's */
};

/* req_proc: a logits processor and its arguments, JSON texts. */
struct req_proc {
    const struct weir_lp *lp;
    const char *args, *kwargs;
};

/* req_kv: what a Submit says of KV transfers (worker/kvx). */
struct req_kv {
    bool offer; /* another worker will decode: keep the prompt's blocks for it under a lease */
    bool pull;  /* the prompt's blocks are to be had from another worker; what is missing below makes that impossible */
    bool early; /* pull: its prefill may not have been heard of there yet */
    struct id128 transfer, engine; /* of the other side; zero: not said. offer: the transfer to offer; zero: a new one */
    char host[46];                 /* IP address of the other side; "": not said */
    uint32_t port;                 /* 0: not said */
    const uint32_t *blocks;        /* [n_blocks] of the other side's; none: not said */
    uint32_t n_blocks;
    uint32_t n_tokens; /* that are to be had there; 0: not said */
};
/* kv_offer: what came of req_kv.offer: goes out with the request's end. */
struct kv_offer {
    struct id128 transfer;
    double expiry_unix_s;
    const uint32_t *blocks; /* [n_blocks] of the first group */
    uint32_t n_blocks;
};

/* req: what a Submit asks for. The first part is the caller's, immutable once submitted. */
struct req {
    struct id128 id;       /* internal id, minted by the router; unique among live requests of one router */
    uint32_t router;       /* index of the connection it came from, < engine_opts.n_routers_max */
    uint32_t router_epoch; /* of that index's reuse */
    uint64_t stream;       /* the router's handle of sample 0; sample k is stream + k */
    uint32_t n_samples;    /* sequences sharing the prompt; 1 .. SEQ_SAMPLES_MAX */
    int32_t priority;      /* lower runs earlier; has no effect under SCHED_FCFS */
    bool tagged;           /* it says whose it is: */
    struct id128 tenant;   /* all zero without */
    uint64_t arrival_ns;   /* monotonic clock, at the worker's link */
    uint64_t deadline_ns;  /* the engine gives up then; 0: never */

    const uint32_t *prompt; /* [n_prompt], at least 1 */
    uint32_t n_prompt;
    const struct req_resume *resume; /* [n_resume] each sample once at most, in order of sample */
    uint32_t n_resume;
    uint8_t domain[16]; /* digest of revision, adapter, media and salt: prefix blocks start from it */
    bool cache_read, cache_write; /* prefix cache; ignored where the engine has none */

    uint32_t max_tokens; /* of output, resumed tokens included; 0: compute the prompt only */
    uint32_t min_tokens;
    bool ignore_eos;
    const uint32_t *stop_ids; /* [n_stop_ids] any order; the model's EOS ids are added by the engine unless
                                 ignore_eos */
    uint32_t n_stop_ids;

    float temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty;
    uint32_t top_k;
    uint64_t seed;                  /* of sample 0; sample k uses seed + k */
    const struct sample_bias *bias; /* [n_bias] sorted by id, unique */
    uint32_t n_bias;
    const uint32_t *allowed; /* [n_allowed_words] bitset over the vocabulary; NULL: all */
    uint32_t n_allowed_words;
    struct req_word *words; /* [n_words] */
    uint32_t n_words;
    struct req_proc *procs; /* [n_procs] in the order they run */
    uint32_t n_procs;
    const char *xargs; /* JSON text for them; NULL if there are none */

    bool beams; /* beam search: the samples are the hypotheses, best first */
    float length_penalty;
    bool want_raw; /* raw log-probabilities of the tokens too, whatever logprobs_mode says */

    int32_t n_logprobs;        /* -1: none; else top N beside the sampled one */
    int32_t n_prompt_logprobs; /* -1: none; else top N beside the prompt's own */

    struct constraint *constraint; /* held, from req_new on req's own; NULL: none */
    const uint32_t *starts_after; /* [n_starts_after] it holds for what follows the first of these; none: from
                                     the start */
    uint32_t n_starts_after;

    struct pool_ask pool;       /* kind POOL_NONE: a generation; else max_tokens is 0 and n_samples 1 */
    const uint8_t *token_types; /* [n_prompt]; NULL: all 0 */
    struct req_kv kv;

    /* The engine's, from here on. Zero when the caller fills the struct. */
    struct seq *seqs;     /* [n_samples] */
    struct id128 *hashes; /* [n_hashes] names of the prompt's full blocks */
    uint32_t n_hashes;
    uint32_t *stops; /* [n_stops] ids that end a sample, sorted, unique */
    uint32_t n_stops;
    uint32_t *word_fails;     /* memory of the words' tables */
    struct sample_seen *seen; /* [n_seen] the prompt's ids, sorted, unique; NULL without penalties */
    uint32_t n_seen;
    struct req *hash_next;                  /* chain of the engine's table of live requests */
    struct req *prev, *next;                /* the engine's list of live requests */
    uint32_t n_live;                        /* sequences that have not ended */
    uint32_t n_cached;                      /* prompt tokens taken from the prefix cache on first admission */
    uint64_t admitted_ns;                   /* first admission of any sample; 0: none yet */
    uint64_t prefilled_ns;                  /* the prompt was computed; 0: not yet */
    uint64_t serial;                        /* order of submission */
    uint64_t fair, fair_cost;               /* worker/fair.h: its start tag, and what it is expected to cost */
    bool arrived;                           /* both are known */
    struct prompt_logprob *prompt_logprobs; /* [n_prompt]; NULL unless asked for and admitted */
    uint32_t *prompt_top_ids;               /* [n_prompt][n_prompt_logprobs] best first */
    float *prompt_top_logprobs;             /* [n_prompt][n_prompt_logprobs] */
    uint32_t n_prompt_done;                 /* leading entries of prompt_logprobs that are known */
    bool prompt_reported;
    struct pool_state *pool_state; /* of a pooling request that has begun */
    struct beam *beam;             /* a beam search's state; NULL: none */
    bool compiling;                /* on the engine's list of requests whose constraint is being compiled */
    struct req *compile_next;
    struct kvx_lease *lease; /* of its blocks, while it runs; NULL: none */
    struct kvx_pull *pull;   /* that fetches blocks for it, or has, until it is admitted; NULL: none */
    bool pulling;            /* the scheduler has not seen it */
    uint64_t pull_ns;        /* from arrival until it was no longer; 0: it never was */
    struct kv_offer *offer;  /* NULL: none. One block of memory */
};
enum { SEQ_SAMPLES_MAX = 4096 };

/* req_new: a deep copy of src in one heap block; all arrays come along. Call req_prepare next (engine_submit
 * does). src's pointers need only live for the call. Sizes were checked by the caller. */
struct req *req_new(const struct req *src) __attribute__((returns_nonnull));
/* req_prepare: makes sequences, block names, stop set and seen list; heavy for long prompts, so it runs on
 * the submitting thread. eos_ids are the model's. Called once. */
void req_prepare(struct req *r, const uint32_t *eos_ids, uint32_t n_eos_ids, bool with_hashes);
/* req_free: frees r and its sequences; NULL is allowed. */
void req_free(struct req *r);
/* req_stops_at: token is in the request's stop set. */
bool req_stops_at(const struct req *r, uint32_t token);
/* req_penalises: some penalty of r is on. */
bool req_penalises(const struct req *r);

/* A sequence is NEW until the scheduler has it, or, of a beam search, while it has nothing to do; PENDING while it
 * hangs on an earlier sample that computes the prompt for it, WAITING in the queue, RUNNING with a seat (block tables), ENDED at last. Preemption leads
 * from RUNNING to WAITING. */
enum seq_state { SEQ_NEW = 0, SEQ_PENDING, SEQ_WAITING, SEQ_RUNNING, SEQ_ENDED };

/* seq: one sample. Known tokens are the prompt and the output; computed ones have their K and V in the cache
 * and are always a prefix of the known. It wants computed == known; when a step gets there, it samples. */
struct seq {
    struct req *req;
    uint32_t sample;
    enum seq_state state;
    enum finish_reason finish;
    struct seq *fork_next; /* PENDING samples that hang on this one, in order */

    uint32_t *out;      /* [max_tokens] NULL before the first admission, unless resumed */
    uint32_t n_out;     /* output tokens known */
    uint32_t n_resumed; /* of them, known when it came */
    uint32_t n_computed;
    struct sample_seen *seen; /* [n_seen], room for all that can come; NULL without penalties */
    uint32_t n_seen;
    uint32_t *word_had;   /* [n_words] of each word; behind it the list of banned ids. NULL without words */
    struct gram_run *run; /* of the request's constraint, from the first sampled token on (worker/mask.h) */
    uint32_t n_run;       /* leading output tokens it has seen */
    bool run_on;          /* the constraint holds already */
    bool run_ended;       /* an end token was taken */

    /* the scheduler's */
    uint32_t seat;                  /* row of the block tables */
    uint32_t at;                    /* place in the waiting heap or in the running list */
    uint32_t n_blocks;              /* entries of its tables, the same in each group */
    uint32_t n_gone[KV_GROUPS_MAX]; /* leading entries given back or never held (windows) */
    uint32_t n_named;               /* leading full blocks offered to the prefix cache */
    struct id128 chain;             /* name of block n_named - 1; zero for none */
    uint32_t n_preempted;
    bool first_sent; /* its first output event is out */
    bool parked;     /* of a beam: its row was computed, and it waits for the others' */
    void **lp_state;      /* [req.n_procs] states of its logits processors; NULL: none made */
    uint32_t n_lp;        /* of them, made */
    uint32_t lp_made;     /* n_preempted when they were made */

    bool guessed;      /* the last output token is on the device only; out has 0 in its place */
    uint32_t from_row; /* the row of the step under way that it is sampled from */

    /* of the step being planned */
    uint32_t step_tokens;            /* to compute; 0: not in this step */
    uint32_t cow_src[KV_GROUPS_MAX]; /* block to copy from before writing; KV_NO_BLOCK: none */
};

/* seq_known: tokens of the prompt and the output. */
static inline uint32_t seq_known(const struct seq *s) {
    return s->req->n_prompt + s->n_out;
}
/* seq_token: the i-th known token. */
static inline uint32_t seq_token(const struct seq *s, uint32_t i) {
    return i < s->req->n_prompt ? s->req->prompt[i] : s->out[i - s->req->n_prompt];
}
/* seq_copy_tokens: known tokens [from, from + n) to dst. */
void seq_copy_tokens(const struct seq *s, uint32_t from, uint32_t n, uint32_t *dst);
/* seq_block_name: the name of its full block number `block`, given the name of the one before. */
struct id128 seq_block_name(const struct seq *s, uint32_t block, struct id128 parent);
/* seq_ready: takes the buffers that its output needs; before its first admission. Does nothing the second
 * time. */
void seq_ready(struct seq *s);
/* seq_accept: appends a sampled token and says whether it ends the sequence: stop ids first, then the token
 * limit (api.md 8.6.1) and the context of max_len tokens. */
enum finish_reason seq_accept(struct seq *s, uint32_t token, uint32_t max_len);
/* seq_wants_prompt_rows: logprobs of the prompt are wanted and not all known: it has to be computed, not
 * looked up. */
bool seq_wants_prompt_rows(const struct seq *s);
/* seq_prompt_only: it ends when the prompt is computed, without sampling. */
static inline bool seq_prompt_only(const struct seq *s) {
    return s->req->max_tokens == 0;
}
/* seq_order: the scheduler's order, (priority, fairness, arrival, serial, sample); negative if a comes first.
 * Priorities count only if by_priority. */
int seq_order(const struct seq *a, const struct seq *b, bool by_priority);

#endif
