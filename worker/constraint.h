/* constraint.h: the grammars of requests in a worker: compiled on helper threads, cached by content.
 *
 * A constraint is asked for by what the wire says of it. The first to ask starts its compilation; whoever
 * asks meanwhile or later gets the same one. A request holds its constraint; when nobody does it stays in the
 * cache, the one unused longest being dropped first once all together take more than the cache may. Those in
 * use are bounded in sum too: above the bound they give back what they can build again, and a constraint that
 * is not there yet is refused.
 *
 * Threads: constraint_get, _drop, _state from any thread, under a mutex for microseconds. The vocabulary's
 * trie is built by the first helper, after which compilations go through.
 */
#ifndef WEIR_WORKER_CONSTRAINT_H
#define WEIR_WORKER_CONSTRAINT_H

#include "common/gram/front.h"
#include "common/gram/gram.h"

struct constraints;
struct constraint;

struct constraints_opts {
    struct tok_files tokenizer; /* copied; read by a helper */
    uint32_t n_vocab;           /* bits of a mask */
    const uint32_t *eos_ids;    /* [n_eos_ids] end tokens; copied */
    uint32_t n_eos_ids;
    struct gram_limits limits; /* of each grammar */
    size_t cache_bytes;        /* of grammars that nobody holds */
    size_t use_bytes;          /* of grammars that are held, from which on no new one is taken; 0: no bound */
    unsigned n_threads;        /* that compile; 0: one */
};

struct constraints *constraints_new(const struct constraints_opts *o) __attribute__((returns_nonnull));
/* constraints_free: every constraint was dropped; waits for compilations under way. NULL is allowed. */
void constraints_free(struct constraints *cs);
/* constraints_on_done: called on a helper's thread whenever a compilation is over. Set before the first get;
 * NULL to stop the calls (waits for one under way). */
void constraints_on_done(struct constraints *cs, void (*done)(void *arg), void *arg);
/* constraints_bytes: memory of all cached grammars, as of when they were last let go. */
size_t constraints_bytes(struct constraints *cs);

/* constraint_get: holds it. RC_INVALID: an unknown kind, or text over its limit; RC_OVERLOAD: too many wait
 * to be compiled, or those in use take too much memory. */
MUST_USE enum rc constraint_get(struct constraints *cs, enum gram_kind kind, struct str text,
                                struct str options_json, struct constraint **out, struct err *e);
void constraint_drop(struct constraint *c); /* NULL is allowed */
enum constraint_state { CONSTRAINT_PENDING = 0, CONSTRAINT_READY, CONSTRAINT_FAILED };
/* constraint_state: *why, for FAILED, belongs to c. */
enum constraint_state constraint_state(const struct constraint *c, const struct err **why);
enum gram_kind constraint_kind(const struct constraint *c);
/* constraint_run: a run at the start of the text; c is READY and stays held for the run's life. */
struct gram_run *constraint_run(struct constraint *c) __attribute__((returns_nonnull));

#endif
