/* batch.h: a step's plan written out as the flat arrays that a backend reads.
 *
 * Pure: the simulator reads the same arrays to check that every token lands where later tokens look for it.
 * The engine's thread only; all memory is taken by batch_init, for the largest step.
 */
#ifndef WEIR_WORKER_BATCH_H
#define WEIR_WORKER_BATCH_H

#include "worker/sched.h"

/* batch_arrays: see struct batch of worker/backend.h for what each array means. Sequences are the plan's
 * entries, in order. */
struct batch_arrays {
    uint32_t n_tokens, n_seqs, n_rows, n_groups;
    uint32_t table_stride;          /* of this step: no longer than its longest row */
    uint32_t *tokens;               /* [n_tokens] */
    int32_t *pos;                   /* [n_tokens] */
    uint32_t *seq_start;            /* [n_seqs + 1] */
    uint32_t *kv_len;               /* [n_seqs] */
    uint32_t *table[KV_GROUPS_MAX]; /* [n_seqs][table_stride] 0 where nothing is looked at */
    uint32_t *slot[KV_GROUPS_MAX];  /* [n_tokens] */
    uint32_t *rows;                 /* [n_rows] */
    uint8_t *types;                 /* [n_tokens] token types */
    bool has_types;                 /* some are not 0 */
    uint32_t *from_row;             /* [n_tokens] */
    bool has_guesses;               /* some of from_row are not 0 */
};

/* batch_init: room for steps of s. */
void batch_init(struct batch_arrays *b, const struct sched *s);
void batch_fini(struct batch_arrays *b);
/* batch_build: from the plan of s, which must not be empty. */
void batch_build(struct batch_arrays *b, const struct sched *s, const struct step_plan *p);

#endif
