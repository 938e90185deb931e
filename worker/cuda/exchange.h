/* exchange.h: what the ranks of a group give each other through memory that all of their devices reach: our own
 * all-reduce, with what follows it, and the gather of logits. For messages so small that the time of a round trip counts.
 *
 * A rank's region: flags, then two slots for what it gives, then two for what it has summed up. A block of a kernel has
 * rows of its own and meets the block of the same number on the other ranks, by flags that count exchanges. Slots
 * alternate: a slot is written again two exchanges later, and who has met the others in the exchange between knows that
 * their kernels in front have ended, so nobody reads it any more.
 *
 * A sum is made in f32 in the order of ranks and rounded to the type of activations once, whichever of the two ways it
 * goes: in one step every rank reads all slots; in two, a rank sums a part of the columns of all, and then all read the
 * sums. So all ranks have the same bits, and the choice of the way changes none.
 *
 * A rank that waits looks at two words of the host, `stop` and `failed`: when one is set it waits no more, then or later,
 * and what it computes means nothing. Kernels are launched in the same order on all ranks, in graphs or not.
 */
#ifndef WEIR_WORKER_CUDA_EXCHANGE_H
#define WEIR_WORKER_CUDA_EXCHANGE_H

#include "worker/cuda/norm.cuh"
#include "worker/cuda/product.h"

enum { EXCHANGE_RANKS = 8, EXCHANGE_BLOCKS = 64, EXCHANGE_FLAG_BYTES = 2 * EXCHANGE_BLOCKS * EXCHANGE_RANKS * 4 };

struct exchange {
    unsigned char *region[EXCHANGE_RANKS];
    uint32_t rank, n_ranks;
    uint32_t *state;              /* on this device: exchanges that are over, blocks of this one that are, given up */
    uint32_t *mark;               /* of the host: exchanges that this rank has come to */
    const uint32_t *stop, *failed; /* of the host; failed may be NULL */
    size_t slot_bytes;            /* a multiple of 256 */
};
enum { EXCHANGE_STATE_WORDS = 4 };

static inline size_t exchange_region_bytes(size_t slot_bytes) {
    return EXCHANGE_FLAG_BYTES + 4 * slot_bytes;
}

/* exchange_sum: y = add + act(sum over ranks of in + bias), [n][cols]; then normed = norm(y), where normed is not NULL.
 * in may be y. n * cols elements fit a slot. */
struct exchange_sum {
    const void *in, *add; /* add NULL: none */
    void *y, *normed;
    const float *bias;    /* NULL: none */
    enum act_kind act;
    struct dnorm norm;
    uint32_t n, cols;
    bool two; /* steps */
};
void exchange_sum(struct be *b, const struct exchange *x, const struct exchange_sum *s);

/* exchange_gather: columns [col0, col0 + cols) of n rows of f32 from every rank, to all. pitch: at least the largest
 * cols of any rank, alike on all. exchange_gather_rows: how many rows fit. */
struct exchange_gather {
    float *out;        /* [n][stride] */
    const float *part; /* [n][cols] */
    uint32_t n, cols, col0, stride, pitch;
};
uint32_t exchange_gather_rows(size_t slot_bytes, uint32_t pitch);
void exchange_gather(struct be *b, const struct exchange *x, const struct exchange_gather *g);

/* exchange_note: counts an exchange that the library makes. */
void exchange_note(struct be *b, const struct exchange *x);

#endif
