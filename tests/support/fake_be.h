/* fake_be.h: a device without arithmetic, for tests of the engine.
 *
 * A cache slot holds a hash of the token and position written to it; a row of logits is a hash over all slots
 * that an attention layer would read for it, through the block tables. What is sampled depends on that hash,
 * the seed and the position. So a wrong block, table, position or row gives wrong tokens, and fake_expect
 * says which are right. Blocks can be moved to another such device if a group has one layer, one head and one
 * dimension in f32: a slot's hash is then what its K and V would be.
 */
#ifndef WEIR_TESTS_SUPPORT_FAKE_BE_H
#define WEIR_TESTS_SUPPORT_FAKE_BE_H

#include <stdatomic.h>

#include "worker/backend.h"
#include "worker/seq.h"

enum { FAKE_VOCAB = 100 };

/* fake_device: shared with the engine's thread: atomics only. */
struct fake_device {
    atomic_uint step_us; /* a step sleeps that long */
    atomic_int fail_in;  /* steps until wait fails, counting down; 0: it never does */
    atomic_int nan_in;   /* steps until the rows are not numbers */
    atomic_bool ranked;  /* alternatives are the best ones, best first; else ids from 0 on */
    atomic_uint n_steps, n_tokens_max, n_seqs_max; /* seen so far */
    atomic_uint n_copied;
    atomic_uint n_ahead; /* waits for a step that another was enqueued behind */
};

extern const struct be_ops fake_ops;
/* fake_ahead_ops: of a device that runs ahead: results come at the wait for them, and not before. */
extern const struct be_ops fake_ahead_ops;
struct be *fake_open(struct fake_device *d);
void fake_close(struct be *b);
/* fake_forward: an engine_model's, with the be as its argument. */
void fake_forward(void *be, const struct batch *b);

/* fake_expect: the first n output tokens of a sample; returns how many there are up to an end by stop id or
 * max_tokens. */
uint32_t fake_expect(const struct req *r, uint32_t sample, const uint32_t *stops, uint32_t n_stops,
                     uint32_t *out, uint32_t n);
/* fake_logprob: what the device reports for a token at output position or prompt position pos, given known
 * tokens. */
float fake_logprob(const uint32_t *known, uint32_t n_known, uint32_t window, uint32_t token);

#endif
