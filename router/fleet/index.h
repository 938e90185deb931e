/* index.h: which worker's prefix cache can find which block: names of blocks (common/hash) to sets of
 * workers.
 *
 * Fed by what workers tell of their caches (kvfeed.h), asked for every prompt. A worker is a slot, a bit in
 * the sets. One that is gone leaves at once, but its slot is used again only when index_sweep has been over
 * all entries; there are more slots than a router has workers, so that those which return need not wait.
 *
 * Memory: an entry has 64 bytes; all that is ever used is reserved at the start, and touched as it fills.
 * When it is full the entry that was stored or asked for longest ago goes, the tail of a prefix before its
 * head. What went is only a prediction too low.
 *
 * Threads: none of its own; the caller locks. Time: index_match is linear in the blocks that some worker has,
 * the rest in the names given. Tables are keyed with a seed, which should be random: clients choose the
 * names.
 */
#ifndef WEIR_ROUTER_FLEET_INDEX_H
#define WEIR_ROUTER_FLEET_INDEX_H

#include "common/base.h"

enum { INDEX_SLOTS = 288, INDEX_BYTES_MIN = 4096 };
#define INDEX_NO_SLOT UINT32_MAX

struct prefix_index;
/* index_new: bytes_max, at least INDEX_BYTES_MIN, holds all of it. */
struct prefix_index *index_new(size_t bytes_max, uint64_t seed);
void index_free(struct prefix_index *x);

/* index_join: a slot without blocks; INDEX_NO_SLOT: all are taken, or being swept. index_leave: its blocks
 * are forgotten. */
uint32_t index_join(struct prefix_index *x);
void index_leave(struct prefix_index *x, uint32_t slot);
/* index_stored: the worker can find these n blocks, the head of a prefix before its tail. index_removed: it
 * cannot any more. What was known already, or is not known, does no harm. */
void index_stored(struct prefix_index *x, uint32_t slot, const struct id128 *names, size_t n);
void index_removed(struct prefix_index *x, uint32_t slot, const struct id128 *names, size_t n);
/* index_match: out[slot] is how many of the leading blocks names[0 .. n) the worker has; 0 for slots that are
 * not in use. */
void index_match(struct prefix_index *x, const struct id128 *names, uint32_t n, uint32_t out[INDEX_SLOTS]);
/* index_sweep: looks at n more entries for workers that left. False: there is nothing to do. */
bool index_sweep(struct prefix_index *x, uint32_t n);

struct index_stats {
    uint32_t n_entries, n_entries_max;
    uint64_t n_evicted; /* for want of room, since the start */
};
struct index_stats index_stats(const struct prefix_index *x);
/* index_check: CHECKs what must hold. O(entries). */
void index_check(const struct prefix_index *x);

#endif
