/* lex.h: what a vocabulary is to one expression; for the engine's own files.
 *
 * Of the tokens that one terminal can take from some state on: which lie inside it as a whole, and at which
 * nodes of the trie, with more below, it may end. That depends on the state's expression and the vocabulary
 * only, not on the grammar around it; so it is kept by the vocabulary under the expression's name and shared
 * by all grammars: text in JSON strings, digits, white space are found once.
 *
 * Threads: a lex is immutable; lex_cache has a lock of its own, taken after a grammar's.
 */
#ifndef WEIR_COMMON_GRAM_LEX_H
#define WEIR_COMMON_GRAM_LEX_H

#include "common/gram/vocab.h"

struct lex {
    uint64_t name[2];
    atomic_uint n_holds;
    uint32_t n_in;   /* tokens inside */
    uint32_t n_ends; /* nodes at which it may end, in order, that have children */
    uint32_t *in;    /* dense: a mask; else ids */
    uint32_t *ends;
    bool dense;
    bool used; /* since the cache last looked; under its lock */
};

enum { LEX_SPARSE_MAX = 1024 };

/* lex_of: of a state; NULL on fail. The caller holds it. */
struct lex *lex_of(struct gram *g, const struct gram_vocab *v, uint32_t q);
struct lex *lex_hold(struct lex *x);
void lex_drop(struct lex *x);
size_t lex_bytes(const struct gram_vocab *v, const struct lex *x);

struct lex_cache *lex_cache_new(void);
void lex_cache_free(struct lex_cache *c);

#endif
