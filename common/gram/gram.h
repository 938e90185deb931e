/* gram.h: running a grammar over tokens: which may come next, and is this the end.
 *
 * A vocabulary is made once per tokenizer: one flat byte trie of all tokens and precomputed slices. A run is
 * the state of one output: it takes tokens and gives masks. Masks are exact on bytes: a token is allowed if
 * and only if the bytes so far, followed by the token's, are a prefix of some string of the language (partial
 * characters included); an end token if and only if the bytes so far are a string of it.
 *
 * Threads: a vocabulary is immutable. A sealed grammar may be used by many runs on many threads at once (what
 * they build lazily is shared under locks of its own). A run belongs to one thread at a time.
 * Limits: of the grammar (ir.h): fuel for each mask, memory for all that is cached.
 */
#ifndef WEIR_COMMON_GRAM_GRAM_H
#define WEIR_COMMON_GRAM_GRAM_H

#include "common/gram/ir.h"
#include "common/text/tok.h"

#include <stdatomic.h>

/* gram_budget: what several grammars take together. Above `most` each gives back, before its next mask, what
 * it can build again. */
struct gram_budget {
    _Atomic size_t bytes;
    size_t most;
};
/* gram_share: counts g in b until it is freed. Once, after it is sealed and before it has runs. */
void gram_share(struct gram *g, struct gram_budget *b);

struct gram_vocab;
struct gram_run;

/* gram_vocab_new: of a tokenizer's tokens; n_vocab is the model's (bits of a mask; ids the tokenizer does not
 * know are never allowed). Special tokens are never allowed, but the n_eos end tokens are at an end. */
struct gram_vocab *gram_vocab_new(const struct tok *t, uint32_t n_vocab, const uint32_t *eos, size_t n_eos)
    __attribute__((returns_nonnull));
/* gram_vocab_of: the same of plain byte strings, an empty one being a hole; for tests and tools. Copied. */
struct gram_vocab *gram_vocab_of(const struct str *tokens, uint32_t n_vocab, const uint32_t *eos,
                                 size_t n_eos) __attribute__((returns_nonnull));
void gram_vocab_free(struct gram_vocab *v);
static inline size_t gram_mask_words(uint32_t n_vocab) {
    return ((size_t)n_vocab + 31) / 32;
}

/* gram_run_new: at the start of the text. Holds g; borrows v (NULL: bytes only). */
struct gram_run *gram_run_new(struct gram *g, const struct gram_vocab *v) __attribute__((returns_nonnull));
void gram_run_free(struct gram_run *r);

/* gram_run_mask: writes [gram_mask_words] words, bit i of word i / 32 for id i. RC_OVERLOAD when fuel or
 * memory ran out: the run is unchanged and the request should end with an error. */
MUST_USE enum rc gram_run_mask(struct gram_run *r, uint32_t *mask, struct err *e);
/* gram_run_accept: takes one token. RC_INVALID: not allowed here; the run is unchanged. An end token ends the
 * run. */
MUST_USE enum rc gram_run_accept(struct gram_run *r, uint32_t token, struct err *e);
/* gram_run_bytes: the same for bytes; *n_taken, if not NULL, is how many led to a possible prefix. */
MUST_USE enum rc gram_run_bytes(struct gram_run *r, struct str s, size_t *n_taken, struct err *e);
/* gram_run_may_end: the text so far is complete. gram_run_must_end: and nothing can follow. */
bool gram_run_may_end(const struct gram_run *r);
bool gram_run_must_end(const struct gram_run *r);
/* gram_run_forced: the longest run of bytes that every continuation starts with (at most cap; 0 if the text
 * may end here). Returns how many. */
size_t gram_run_forced(struct gram_run *r, char *out, size_t cap);

#endif
