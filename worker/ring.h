/* ring.h: words from one process to several, through memory that they share.
 *
 * One writer and up to RING_READERS_MAX readers, each of which reads every word. The writer waits for the
 * slowest reader where the ring is full, so what is written may be longer than the ring. Whoever waits spins
 * at most 20 us (not at all with may_spin false: ranks outnumber cores) and then sleeps on a futex.
 *
 * Threads: one at a time may write, one for each reader may read. Waits end when *stop, a word in memory that
 * the processes share, is no longer 0; they look at it every 100 ms.
 */
#ifndef WEIR_WORKER_RING_H
#define WEIR_WORKER_RING_H

#include "common/base.h"

enum { RING_READERS_MAX = 31 };

struct ring_shared;
struct ring {
    struct ring_shared *s;
    uint32_t *data; /* [n_words] */
    uint32_t n_words, n_readers;
    const uint32_t *stop;
    bool may_spin;
};

/* ring_bytes: of the shared memory of a ring of n_words, a power of two. ring_init: memory is zero, or in use
 * by others, on a line of 64 bytes. */
size_t ring_bytes(uint32_t n_words);
void ring_init(struct ring *r, void *memory, uint32_t n_words, uint32_t n_readers, const uint32_t *stop,
               bool may_spin);
/* ring_write: n words. false: stopped. */
MUST_USE bool ring_write(struct ring *r, const uint32_t *words, size_t n);
/* ring_read: the next n words of that reader. false: stopped. */
MUST_USE bool ring_read(struct ring *r, uint32_t reader, uint32_t *words, size_t n);

#endif
