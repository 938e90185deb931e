/* pick.h: which worker gets a prompt: the least loaded one that has credit for it. Pure. */
#ifndef WEIR_ROUTER_FLEET_PICK_H
#define WEIR_ROUTER_FLEET_PICK_H

#include "common/base.h"

/* What counts of a worker. Credits are what this router may have submitted and not yet finished; absent
 * credit (0) takes nothing. */
struct pick_load {
    uint32_t n_seqs, n_tokens; /* in flight from this router: sequences, prompt tokens not yet prefilled */
    uint32_t n_cached;         /* of n_tokens, those that are expected in its prefix cache */
    uint32_t credit_seqs, credit_tokens;
};
/* pick_fits: whether one more prompt stays within the credit. What alone is above the whole credit fits an
 * idle worker: it would wait for ever otherwise, and the worker decides. */
bool pick_fits(const struct pick_load *w, uint32_t n_seqs, uint32_t n_tokens);
/* pick_cost: what to compare: prompt tokens ahead that have to be computed, and PICK_SEQ_TOKENS for each running sequence, which slows
 * every step a little. */
enum { PICK_SEQ_TOKENS = 64 };
uint64_t pick_cost(const struct pick_load *w);
/* pick_least: the index of the cheapest that fits, the first one from `start` on among equals (round robin by
 * the caller); -1: none fits. */
int pick_least(const struct pick_load *const *w, size_t n, size_t start, uint32_t n_seqs, uint32_t n_tokens);

#endif
