/* slots.h: stream handles: a worker's short name for a sample, and the table that turns it back into a leg.
 *
 * A handle is 64 bits: generation (24), loop (8), slot (24), sample (8). Sample k of a prompt is handle + k
 * (weir.proto, Submit.stream). The generation changes each time a slot is used again, so that what a worker
 * says late about a stream that is gone finds nothing. Slots are reused oldest first, which makes a
 * generation's return (after 2^24 uses of one slot) rarer still.
 *
 * Threads: a table belongs to one loop. handle_loop and the like are pure.
 */
#ifndef WEIR_ROUTER_SLOTS_H
#define WEIR_ROUTER_SLOTS_H

#include "common/base.h"

enum { HANDLE_SAMPLES_MAX = 256, HANDLE_LOOPS_MAX = 256, SLOTS_MAX = 1 << 24 };

static inline uint32_t handle_sample(uint64_t h) {
    return (uint32_t)(h & 0xff);
}
static inline uint32_t handle_slot(uint64_t h) {
    return (uint32_t)(h >> 8 & 0xffffff);
}
static inline uint32_t handle_loop(uint64_t h) {
    return (uint32_t)(h >> 32 & 0xff);
}
static inline uint32_t handle_generation(uint64_t h) {
    return (uint32_t)(h >> 40);
}
static inline uint64_t handle_make(uint32_t generation, uint32_t loop, uint32_t slot) {
    return (uint64_t)generation << 40 | (uint64_t)loop << 32 | (uint64_t)slot << 8;
}

struct slot {
    void *p; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};
struct slots {
    struct slot *v;
    uint32_t n, cap, n_used;
    uint32_t free_first, free_last; /* UINT32_MAX: none */
    uint32_t loop;
};

void slots_init(struct slots *s, uint32_t loop);
void slots_fini(struct slots *s);
/* slots_put: the handle of sample 0; 0 if all SLOTS_MAX are taken. */
uint64_t slots_put(struct slots *s, void *p);
/* slots_get: NULL for a stale, foreign or made-up handle. The sample is not looked at. */
void *slots_get(const struct slots *s, uint64_t handle);
void slots_del(struct slots *s, uint64_t handle);

#endif
