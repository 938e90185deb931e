/* sched.h: which tokens of which sequences are computed in the next step, and in which blocks.
 *
 * Continuous batching: a step holds one token of every decoding sequence, then prompt chunks of those that
 * are still prefilling, then newcomers, up to a budget of tokens. Sequences share blocks by reference:
 * through the prefix cache, and between samples of a request, which are forked from the first when its prompt
 * is computed; a shared block is copied before it is written.
 *
 * Order is (priority, fairness between tenants, arrival), the same for admission and preemption. When blocks run out, the running
 * sequence that comes last in that order gives up all of its blocks and waits again; later it recomputes
 * prompt and output so far, and goes on as if nothing had happened. Nothing starves under FCFS: the
 * unfinished sequence that comes first is never preempted, and gets at least one token in each step once it
 * has a seat: seats are limited to three quarters of the budget, so that decodes leave room. A newcomer is
 * admitted only if blocks for all its known tokens are there, beside what prefilling ones still need and one
 * more for everyone running: this keeps preemption rare.
 *
 * A step: sched_plan; the caller computes it; sched_computed; then for each sampled row seq_accept and, if
 * that ends the sequence, sched_end. Aborts come between steps, by sched_end. A caller whose device runs ahead
 * plans a step before it knows the tokens of the one in front: sequences then have a guess for their last token, and
 * one that ends between sched_plan and sched_computed is passed over there.
 *
 * Pure: no clock, no device, no randomness, so that it runs in a simulator. The engine's thread only.
 * Planning allocates nothing, apart from the output buffers of newly admitted sequences and a waiting queue
 * that outgrows its largest length so far.
 */
#ifndef WEIR_WORKER_SCHED_H
#define WEIR_WORKER_SCHED_H

#include "worker/fair.h"
#include "worker/kv.h"
#include "worker/prefix.h"
#include "worker/seq.h"

enum sched_policy { SCHED_FCFS = 0, SCHED_PRIORITY };

struct sched_opts {
    const struct kv_group *groups; /* [n_groups] copied; 0 for models without a cache */
    uint32_t n_groups;
    uint32_t max_len;             /* tokens of the longest sequence; every group's pool holds one at least */
    uint32_t n_seqs_max;          /* running at once */
    uint32_t token_budget;        /* tokens of a step, >= 1 */
    uint32_t n_rows_max;          /* rows of logits of a step, >= seats */
    uint32_t long_prefill_tokens; /* most prompt tokens of one sequence in a step; 0: no limit */
    enum sched_policy policy;
    /* A prompt is computed in one step or not begun, but for those whose log-probabilities are asked for, which rows may
     * not suffice for: token_budget >= max_len. */
    bool whole_prompts;
    bool prefix_cache;
    uint64_t prefix_seed;
    uint32_t n_events_max; /* see prefix_init */
};

/* plan_entry: tokens [start, start + n_tokens) of a sequence, at token `at` of the batch. */
struct plan_entry {
    struct seq *seq;
    uint32_t start, n_tokens, at;
    bool prefill; /* not just the one token sampled last */
};
/* plan_row: a row of logits, of batch token `token`. The rows to sample come first. A forked sample's row
 * names the token of the sequence that computed the prompt. */
struct plan_row {
    struct seq *seq;
    uint32_t token;
    uint32_t prompt_at; /* 0: sample from it; else it predicts prompt[prompt_at] */
};
struct plan_copy {
    uint32_t group, src, dst; /* blocks; all copies happen before anything is computed, in any order */
};
struct plan_fork {
    struct seq *from, *seq; /* seq shares all blocks of from */
};

/* step_plan: owned by the scheduler, valid until the next sched_plan or sched_end. */
struct step_plan {
    uint32_t n_entries, n_tokens, n_prefill_tokens;
    uint32_t n_rows, n_sample_rows, n_copies, n_forks;
    struct plan_entry *entries; /* [n_seqs_max] */
    struct plan_row *rows;      /* [n_rows_max] */
    struct plan_copy *copies;   /* [n_seqs_max * n_groups] sorted by group */
    struct plan_fork *forks;    /* [n_seqs_max] */
};

struct sched {
    struct sched_opts opts;
    struct kv_group group[KV_GROUPS_MAX];
    struct kv_pool pool[KV_GROUPS_MAX];
    struct prefix prefix;
    uint32_t n_seats, n_seats_free;
    uint32_t *seats_free;           /* [n_seats] stack */
    uint32_t n_table;               /* row stride of the block tables: blocks of max_len tokens */
    uint32_t *table[KV_GROUPS_MAX]; /* [n_seats][n_table] block or KV_NO_BLOCK */
    struct seq **running;           /* [n_running] in order */
    uint32_t n_running;
    struct seq **waiting; /* [n_waiting] heap, first in order at the top */
    uint32_t n_waiting, n_waiting_max;
    uint32_t n_pending; /* samples that hang on others */
    uint32_t n_unsettled; /* the caller's: running sequences whose last row is computed, and its token not taken yet */
    uint32_t n_kept[KV_GROUPS_MAX]; /* holds that are no sequence's */
    uint64_t n_preemptions;
    uint64_t next_serial;
    struct fair *fair;
    struct id128 *names; /* [n_table] scratch of admission */
    struct step_plan plan;
    /* of the step being planned */
    uint32_t tokens_left, rows_left;
    uint32_t reserved[KV_GROUPS_MAX]; /* blocks that running sequences lack for their known tokens */
};

/* sched_init: CHECKs that the options fit together; sched_fits tells beforehand whether a pool is large
 * enough. */
void sched_init(struct sched *s, const struct sched_opts *o);
/* sched_fini: every sequence has ended. */
void sched_fini(struct sched *s);
/* sched_blocks_needed: blocks of a group that one sequence of n_tokens takes at most, computed in chunks of
 * n_chunk. */
uint32_t sched_blocks_needed(const struct kv_group *g, uint32_t n_tokens, uint32_t n_chunk);

/* sched_arrive: a prepared request gets its place among tenants; sched_add does it for one that has none yet.
 * sched_left: r is over, every sample of it: what it has cost its tenant is known. */
void sched_arrive(struct sched *s, struct req *r);
void sched_left(struct sched *s, const struct req *r);
/* sched_add: all samples of a prepared request join the queue, but those that have ended already. */
void sched_add(struct sched *s, struct req *r);
/* sched_end: the sequence ends now, in whatever state it is, and holds nothing any more. seq->finish is the
 * caller's. A sequence that others hang on leaves them to the next of them. */
void sched_end(struct sched *s, struct seq *q);
/* sched_plan: the next step. Empty only if there is nothing to do. now_ns stamps first admissions. */
const struct step_plan *sched_plan(struct sched *s, uint64_t now_ns);
/* sched_computed: the planned step was computed: its full blocks become findable. Before any seq_accept. */
void sched_computed(struct sched *s);
/* Beam searches (sched_beam.c). Of such a request sched_add takes the first sequence alone. Between steps:
 * sched_park: q, whose row was computed, waits for the others of its search; it may lose what it holds meanwhile.
 * sched_drop: q, which has not ended, holds nothing any more and is not known here.
 * sched_fork: q, which is not known here, becomes a parked copy of `from`, which is parked.
 * sched_unpark: q goes on with one more token. */
void sched_park(struct sched *s, struct seq *q);
void sched_drop(struct sched *s, struct seq *q);
void sched_fork(struct sched *s, const struct seq *from, struct seq *q);
void sched_unpark(struct sched *s, struct seq *q, uint32_t token);

/* Holds that are no sequence's, of KV transfers (sched_blocks.c). All together leave room for one sequence of max_len
 * tokens, so that whoever comes first can always run.
 * sched_keep_room: holds of the group that there may still be.
 * sched_keep: one more hold of a block that is used or idle; there is room.
 * sched_keep_new: a block, held; KV_NO_BLOCK: all are used at the moment. There is room.
 * sched_unkeep: such a hold ends. */
uint32_t sched_keep_room(const struct sched *s, uint32_t group);
void sched_keep(struct sched *s, uint32_t group, uint32_t block);
uint32_t sched_keep_new(struct sched *s, uint32_t group);
void sched_unkeep(struct sched *s, uint32_t group, uint32_t block);

/* sched_reset_prefix: forgets what is cached. */
void sched_reset_prefix(struct sched *s);

/* sched_table: the row of block numbers of a running sequence. Entries in front of a window are KV_NO_BLOCK.
 */
static inline uint32_t *sched_table(const struct sched *s, uint32_t group, const struct seq *q) {
    return s->table[group] + (size_t)q->seat * s->n_table;
}
/* sched_idle: nothing runs or waits. */
static inline bool sched_idle(const struct sched *s) {
    return s->n_running == 0 && s->n_waiting == 0;
}
/* sched_check: CHECKs every invariant between holds and tables. O(blocks + running * table): tests, and when
 * idle. */
void sched_check(const struct sched *s);

#endif
