/* words.h: words that must not come: which tokens would complete one (api.md 8.5).
 *
 * A word is a list of token ids. Its last one is banned whenever the output ends in those before it. Each
 * sequence keeps, for every word, how much of it the output ends in (Knuth, Morris and Pratt, 1977), so that a
 * token costs a few steps a word on average, however long words are.
 *
 * The engine's thread only, but words_prepare, which runs where the request is submitted.
 */
#ifndef WEIR_WORKER_WORDS_H
#define WEIR_WORKER_WORDS_H

#include "worker/seq.h"

/* words_prepare: the failure tables of r's words; once. */
void words_prepare(struct req *r);
/* words_note: q, which has words, accepted that token. */
void words_note(struct seq *q, uint32_t token);
/* words_banned: the ids that q's next token may not be, sorted, unique: those that complete a word, and the
 * stop ids if with_stops. *n: how many. Valid until the next call or the end of q. The first call allocates. */
const uint32_t *words_banned(struct seq *q, bool with_stops, uint32_t *n);

#endif
