/* policy.h: which of the workers that serve a model gets a prompt. Pure.
 *
 *   prefix           the least cost: the prompt's tokens that the worker's prefix cache does not have, and
 * the work that is queued there. So requests go where their prefix is, until the queue there costs more than
 * the prefix saves; then another worker computes it, and both have it. least-load       the least work queued
 *   power-of-two     of two drawn at random, the one with less
 *   round-robin      one after the other
 *   consistent-hash  by a key of the request: the same key, the same worker, as long as that is there and has
 *                    credit (highest random weight: a worker that comes or goes moves its own share of the
 * keys and no other). Without a key: least-load
 *
 * No policy goes beyond a worker's credit (pick.h); among equals the turn decides.
 */
#ifndef WEIR_ROUTER_FLEET_POLICY_H
#define WEIR_ROUTER_FLEET_POLICY_H

#include "router/fleet/pick.h"

enum policy_kind {
    POLICY_PREFIX = 0,
    POLICY_LEAST_LOAD,
    POLICY_POWER_OF_TWO,
    POLICY_ROUND_ROBIN,
    POLICY_CONSISTENT_HASH,
    N_POLICY
};
#define POLICY_CHOICES "prefix|least-load|power-of-two|round-robin|consistent-hash"
/* Why a worker was chosen, for the metrics. */
enum policy_reason {
    ROUTED_ONLY = 0, /* there was no other */
    ROUTED_LOAD,     /* the least work */
    ROUTED_PREFIX,   /* it has the longest part of the prompt */
    ROUTED_SPREAD,   /* another one has more of the prompt, and more to do than that saves */
    ROUTED_TURN,
    ROUTED_HASH,
    N_ROUTED
};
extern const char *const policy_names[N_POLICY], *const policy_reasons[N_ROUTED];
/* policy_of: by its name, which may be NULL; N_POLICY: there is none of that name. */
enum policy_kind policy_of(const char *name);

struct policy {
    enum policy_kind kind;
    uint64_t rng;  /* of power-of-two: the same seed, the same choices */
    uint32_t turn; /* grows with every choice */
};
struct policy_worker {
    const struct pick_load *load;
    uint32_t n_cached; /* tokens of the prompt that are expected in its prefix cache */
    uint64_t id;       /* of consistent-hash: equal for the same worker at every router */
};
struct policy_ask {
    uint32_t n_seqs, n_tokens;
    uint64_t key;
    bool has_key;
};
/* policy_choose: an index into w[n]; -1: none has credit for it. *why is set with the former. */
int policy_choose(struct policy *p, const struct policy_worker *w, size_t n, const struct policy_ask *a,
                  enum policy_reason *why);

#endif
