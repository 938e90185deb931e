/* gram_check.h: one made-up grammar walked at random, the engine held against the oracle at each step. */
#ifndef WEIR_TESTS_SUPPORT_GRAM_CHECK_H
#define WEIR_TESTS_SUPPORT_GRAM_CHECK_H

#include "common/gram/gram.h"

enum { GRAM_CHECK_VOCAB = 260, GRAM_CHECK_EOS = 250 };

/* gram_check: masks, end, forced bytes and refusals of the grammar of `seed` along a walk of `n_steps`
 * tokens. `v` is of `tokens`. Returns NULL if all is well, else what is not; *walked tells whether there was
 * anywhere to go. */
const char *gram_check(uint64_t seed, const struct gram_vocab *v, const struct str *tokens, unsigned n_steps,
                       bool *walked);

#endif
