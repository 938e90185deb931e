/* gram_vocab.h: a made-up vocabulary of the size and the mixture of a real one.
 *
 * Every byte; numbers to 999; runs of white space and of signs, as code and JSON have them; words made of
 * syllables, bare, with a space before, capital; words in Cyrillic, Greek and Chinese, and pieces of their
 * characters. By a fixed seed, so that figures can be compared.
 */
#ifndef WEIR_TESTS_SUPPORT_GRAM_VOCAB_H
#define WEIR_TESTS_SUPPORT_GRAM_VOCAB_H

#include "common/gram/gram.h"

/* made_vocab: n tokens, those of the last 256 ids empty but for the end token, n - 1. Free the result and
 * *bytes. */
struct str *made_vocab(uint32_t n, char **bytes);

#endif
