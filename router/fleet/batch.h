/* batch.h: one StepOutputs of a worker, checked and split by owning loop.
 *
 * Runs on a link's thread, once a step, while the message is borrowed. What comes out belongs to the loops:
 * one batch each, an array of entries in the order in which they are worked off: first notes, each behind its
 * prompt's rows, some at a time, then tokens (a
 * finish rides on the last token of its stream), then finishes without a token.
 */
#ifndef WEIR_ROUTER_FLEET_BATCH_H
#define WEIR_ROUTER_FLEET_BATCH_H

#include "common/err.h"
#include "proto/weir.pb-c.h"
#include "router/inbox.h"

enum { BATCH_ENTRIES_MAX = 65536 }; /* tokens, firsts or finishes of one step; more cuts the worker */

/* ENTRY_NAN: a log-probability of this token cannot be printed; the request fails, the worker stays. */
enum { ENTRY_FIRST = 1, ENTRY_TOKEN = 2, ENTRY_LOGPROB = 4, ENTRY_FINISH = 8, ENTRY_NAN = 16, ENTRY_PROMPT = 32 };
/* batch_row: one token of a prompt. An ENTRY_PROMPT has BATCH_ROWS_MAX of them at most, and fewer if they have
 * many alternatives, so that none of them keeps its loop for long. */
enum { BATCH_ROWS_MAX = 64, BATCH_ROW_TOPS_MAX = 512 };
struct batch_row {
    float logprob;
    uint32_t rank;          /* 0: the first token, of which nothing is known */
    uint32_t top_at, n_top; /* into batch.top_ids and top_logprobs */
};
struct kv_reply; /* router/api/kv_params.h */
struct batch_entry {
    uint64_t stream;
    uint32_t token, rank;
    float logprob, raw_logprob;
    uint32_t top_at, n_top;                       /* into batch.top_ids and top_logprobs; of an ENTRY_PROMPT,
                                                     into batch.rows */
    uint32_t cached_tokens, queue_us, prefill_us, transfer_us; /* ENTRY_FIRST */
    uint32_t stop_id, status, n_preempted;        /* ENTRY_FINISH */
    uint8_t flags, reason;                        /* reason: Weir__Finish__Reason */
    bool eos, has_stop_id;
    const struct kv_reply *kv; /* ENTRY_FINISH: blocks that are kept; in the batch's memory; NULL: none */
    const char *message; /* of an ERROR, in the batch's memory, UTF-8, at most 200 bytes; or NULL */
};

struct worker;
struct batch {
    struct loop_msg msg;
    struct worker *worker; /* held; set by the fleet */
    size_t bytes;          /* of the allocation */
    uint32_t n, at;        /* entries, and the next one to work off */
    struct batch_entry *entries;
    struct batch_row *rows;
    uint32_t *top_ids;
    float *top_logprobs;
};

/* What a worker may say at all. */
struct batch_limits {
    uint32_t n_loops, vocab_size, n_top_max;
};

/* batch_split: out[n_loops] gets a batch or NULL per loop (one allocation each, free()). RC_PROTO: a message
 * no correct worker sends (columns of different lengths, a token outside the vocabulary, an index outside its
 * table); nothing is allocated then. *n_foreign counts entries whose handle names no loop; they are left out.
 */
MUST_USE enum rc batch_split(const Weir__StepOutputs *m, const struct batch_limits *l, struct batch **out,
                             uint32_t *n_foreign, struct err *e);

#endif
