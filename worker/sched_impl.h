/* sched_impl.h: the scheduler's parts, for each other only: queues (sched_queue.c), blocks (sched_blocks.c),
 * planning (sched.c).
 */
#ifndef WEIR_WORKER_SCHED_IMPL_H
#define WEIR_WORKER_SCHED_IMPL_H

#include "worker/sched.h"

/* ---- queues: the waiting heap and the sorted list of running sequences; both keep seq->at
 * ------------------- */

void queue_push(struct sched *s, struct seq *q);   /* to waiting */
void queue_remove(struct sched *s, struct seq *q); /* from waiting */
void running_insert(struct sched *s, struct seq *q);
void running_remove(struct sched *s, struct seq *q);

/* seat_take: q runs, with no blocks yet. seat_leave: it gives up everything and is in no list. */
void seat_take(struct sched *s, struct seq *q);
void seat_leave(struct sched *s, struct seq *q);
/* sched_preempt: q gives up everything, also what this step had planned for it, and waits in its old place. */
void sched_preempt(struct sched *s, struct seq *q);
/* sched_evict_parked: parked sequences give up what they hold. Returns whether there were any. */
bool sched_evict_parked(struct sched *s);

/* ---- blocks
 * --------------------------------------------------------------------------------------------------- */

/* blocks_adopt: q, which has a seat and nothing else, holds the cached blocks named s->names[0 .. n). */
void blocks_adopt(struct sched *s, struct seq *q, uint32_t n);
/* blocks_share: q, which has a seat and nothing else, holds what `from` holds. */
void blocks_share(struct sched *s, const struct seq *from, struct seq *q);
/* blocks_release: q holds nothing any more. */
void blocks_release(struct sched *s, struct seq *q);
/* blocks_slide: gives back what lies in front of the windows of all queries to come. */
void blocks_slide(struct sched *s, struct seq *q);
/* blocks_room: how many tokens behind the computed ones q can write with blocks that are there now, at most
 * `want`. */
uint32_t blocks_room(const struct sched *s, const struct seq *q, uint32_t want);
/* blocks_grow: takes the blocks for n more tokens, n <= blocks_room, and copies of shared ones that they are
 * written to. */
void blocks_grow(struct sched *s, struct seq *q, uint32_t n);
/* blocks_lacking: blocks of the group that q still needs for its known tokens. */
uint32_t blocks_lacking(const struct sched *s, const struct seq *q, uint32_t group);

/* sched_chunk_max: most tokens of one sequence in a step. */
uint32_t sched_chunk_max(const struct sched *s);

static inline uint32_t blocks_of(uint32_t n_tokens) {
    return (n_tokens + KV_TOKENS - 1) / KV_TOKENS;
}

#endif
