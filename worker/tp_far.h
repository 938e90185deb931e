/* tp_far.h: the ranks on other hosts, on both sides of their connections (tp_wire.h); for tp.c and tp_rank.c only.
 *
 * Rank 0 listens; a rank that was started with --leader comes and proves itself. For each, rank 0 has two threads: one
 * reads, one is the rank's hands in the memory of the group (be_ops.stand_call). Plans are sent by the thread that makes
 * them. A rank that has come is watched as those of this host are: its connection, its beats, its seat in tp_shared.
 *
 * On the other host a thread reads, and one beats. When the connection ends, or rank 0 is silent for long, the process
 * ends: it has nothing to save.
 */
#ifndef WEIR_WORKER_TP_FAR_H
#define WEIR_WORKER_TP_FAR_H

#include "worker/tp_impl.h"

/* ---- rank 0 ------------------------------------------------------------------------------------- */

struct tp_far;
struct tp_far_opts {
    uint32_t first, n_ranks; /* ranks [first, n_ranks) are on other hosts */
    const struct tp_far_config *config;
    const struct be_ops *ops;
    struct be_config be; /* of any rank, with the group */
    struct tp_shared *s;
    int events; /* an eventfd that is written when a rank is gone */
    unsigned silent_ms;
};
/* tp_far_open: listens. RC_INVALID, RC_IO: it cannot. */
MUST_USE enum rc tp_far_open(struct tp_far **out, const struct tp_far_opts *o, struct err *e);
int tp_far_port(const struct tp_far *f);
/* tp_far_here: whether that rank has come. tp_far_gone: and its connection has ended; why. */
bool tp_far_here(struct tp_far *f, uint32_t rank);
bool tp_far_gone(struct tp_far *f, uint32_t rank, char *why, size_t n);
/* tp_far_beat: to all; the watching thread's. tp_far_tell: a message of n words to all. */
void tp_far_beat(struct tp_far *f);
void tp_far_tell(struct tp_far *f, const uint32_t *words, size_t n);
/* tp_far_over: tells all that the group is over, and why; nothing waits for them any more. */
void tp_far_over(struct tp_far *f, const char *why);
/* tp_far_close: waits ms for ranks that were told to stop, and ends what is left. NULL is fine. */
void tp_far_close(struct tp_far *f, unsigned ms);

/* ---- a rank on another host --------------------------------------------------------------------- */

struct tp_far_rank;
/* tp_far_join: dials until rank 0 is there. RC_INVALID, RC_UNAUTHORIZED: it was refused, and why. */
MUST_USE enum rc tp_far_join(struct tp_far_rank **out, const struct tp_far_config *c, uint32_t rank, unsigned silent_ms,
                             struct err *e);
const struct be_far *tp_far_meets(struct tp_far_rank *r);
/* tp_far_group: memory of a group of its own. NULL: no memory. */
struct be_group *tp_far_group(struct tp_far_rank *r, size_t bytes);
/* tp_far_say: TPW_LOADED, or TPW_REFUSED with why. */
void tp_far_say(struct tp_far_rank *r, enum tp_wire_type type, const char *why);
/* tp_far_next: the next plan: its words, on the heap. */
uint32_t *tp_far_next(struct tp_far_rank *r, size_t *n);
/* tp_far_done: rank 0 has said that it is over: what becomes of the connection is no matter. */
void tp_far_done(struct tp_far_rank *r);

#endif
