/* pool.h: threads for work that would hold up a loop: parsing, templates, tokenising.
 *
 * Two classes: fast jobs (up to about a millisecond) always find a thread, slow ones (media, large prompts)
 * may use all but one. A job never touches what belongs to a loop; it hands its result back through a
 * mailbox.
 */
#ifndef WEIR_COMMON_POOL_H
#define WEIR_COMMON_POOL_H

#include "common/base.h"

enum pool_class { POOL_FAST = 0, POOL_SLOW };
struct pool;
struct pool_job {
    void (*run)(struct pool_job *job); /* embeds the job; frees or passes it on itself */
    struct pool_job *next;             /* the pool's */
};

struct pool *pool_new(unsigned n_threads, size_t queue_max);
/* pool_free: runs what is queued, then ends the threads. */
void pool_free(struct pool *p);
/* pool_submit: any thread. False: the queue of that class is full. */
MUST_USE bool pool_submit(struct pool *p, enum pool_class cls, struct pool_job *job);
size_t pool_queued(const struct pool *p);

#endif
