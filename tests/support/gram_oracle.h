/* gram_oracle.h: grammars made up by a seed, and what they mean, found the naive way.
 *
 * Shares nothing with the engine: expressions become nondeterministic automata and then tables by subset
 * construction, with complement and product for NOT and AND; rules are run by Earley's algorithm as in the
 * text book, a set for each byte, every item compared with every other. Slow, and meant to be read.
 */
#ifndef WEIR_TESTS_SUPPORT_GRAM_ORACLE_H
#define WEIR_TESTS_SUPPORT_GRAM_ORACLE_H

#include "common/gram/ir.h"

struct oracle;

/* oracle_new: a grammar of the seed, and the same given to the engine's builders, not sealed: *start is its
 * start symbol. NULL: it came out too large. */
struct oracle *oracle_new(uint64_t seed, struct gram *g, uint32_t *start);
void oracle_free(struct oracle *o);
/* oracle_empty: no string is of it. */
bool oracle_empty(const struct oracle *o);

/* The text so far: bytes are put behind it or cut off. */
void oracle_push(struct oracle *o, const char *s, size_t n);
void oracle_cut(struct oracle *o, size_t n_bytes);
size_t oracle_length(const struct oracle *o);
/* oracle_prefix: some string of the grammar starts with the text; oracle_complete: the text is one. */
bool oracle_prefix(const struct oracle *o);
bool oracle_complete(const struct oracle *o);

/* oracle_over: the naive way has become too costly: what it says counts no more. */
bool oracle_over(const struct oracle *o);

/* oracle_vocab: byte strings in the alphabet of these grammars: every byte of it, partial characters too, and
 * merges of them by seed. Returns n of them, one after another in *bytes, to be freed with the array. */
struct str *oracle_vocab(uint64_t seed, size_t n, char **bytes);
/* oracle_random: the generator's next number below n. */
uint32_t oracle_random(uint64_t *state, uint32_t n);

#endif
