/* select.h: the best of many, in linear time and without sorting them: keys as sample_key() makes them. */
#ifndef WEIR_WORKER_CPU_SELECT_H
#define WEIR_WORKER_CPU_SELECT_H

#include "common/base.h"

enum { SELECT_BITS = 11, SELECT_BUCKETS = 1 << SELECT_BITS };

/* select_key: of n > 0 unique keys, in ascending order, the first at which the running sum of weights reaches
 * `target`; every weight is 1 where `weights` is NULL. The sum of all must reach it. room: [n]. At most 6
 * passes, each over what the one before could not decide. */
uint64_t select_key(const uint64_t *keys, const uint64_t *weights, uint32_t n, uint64_t target,
                    uint32_t *room);

/* select_sort: ascending, in place, without allocating. */
void select_sort(uint64_t *keys, uint32_t n);

#endif
