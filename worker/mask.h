/* mask.h: which tokens the grammars of a step's sequences allow, worked out while the model computes.
 *
 * A step: masks_add for each row that samples under a constraint, masks_start, the forward pass,
 * masks_finish; then the jobs hold the masks. Helpers take the jobs one by one; whoever waits in masks_finish
 * helps.
 *
 * A sequence's run follows its output: a job first feeds it the tokens that are new, so a sequence that was
 * resumed, or sampled before its grammar was looked at, needs nothing else. If one token alone is allowed,
 * and after it one alone again, the job follows that chain: the engine then takes the chain as output without
 * a step for each (jump-forward).
 *
 * Threads: the calls belong to the engine's thread. While jobs run, their sequences are the helpers'.
 * Nothing is allocated once the masks of the largest step so far are there, apart from the runs' own needs.
 */
#ifndef WEIR_WORKER_MASK_H
#define WEIR_WORKER_MASK_H

#include "worker/constraint.h"
#include "worker/seq.h"

enum { MASK_FORCED_MAX = 32 };

struct mask_job {
    struct seq *q;
    uint32_t row;         /* of the step */
    const uint32_t *mask; /* [words of the vocabulary] after masks_finish; NULL: all are allowed */
    struct err why;       /* rc not RC_OK: no mask can be had */
    uint32_t n_forced;    /* tokens that must come next, the one to be sampled included; 0: not known */
    uint32_t forced[MASK_FORCED_MAX];
    uint64_t ns; /* it took */
};

struct masks;
/* masks_new: for steps of at most n_rows_max rows. eos_ids [n_eos_ids]: copied. n_threads may be 0: then all
 * is done in masks_finish. */
struct masks *masks_new(uint32_t n_rows_max, uint32_t n_vocab, const uint32_t *eos_ids, uint32_t n_eos_ids,
                        unsigned n_threads) __attribute__((returns_nonnull));
void masks_free(struct masks *m); /* NULL is allowed */

void masks_add(struct masks *m, struct seq *q, uint32_t row);
void masks_start(struct masks *m);
/* masks_finish: the step's jobs, in order of masks_add; valid until the next masks_add. */
const struct mask_job *masks_finish(struct masks *m, uint32_t *n);

#endif
