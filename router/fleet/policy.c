#include "router/fleet/policy.h"

#include "common/hash.h"

const char *const policy_names[N_POLICY] = {"prefix", "least-load", "power-of-two", "round-robin",
                                            "consistent-hash"};
const char *const policy_reasons[N_ROUTED] = {"only", "load", "prefix", "spread", "turn", "hash"};

enum policy_kind policy_of(const char *name) {
    int k = 0;
    while (k < N_POLICY && !(name && !strcmp(policy_names[k], name)))
        k++;
    return (enum policy_kind)k;
}

static bool fits(const struct policy_worker *w, const struct policy_ask *a) {
    return pick_fits(w->load, a->n_seqs, a->n_tokens);
}

/* cheapest: by queued work and, if the prompt counts, what of it is to be computed. From the turn on, so that
 * equals take turns. */
static int cheapest(const struct policy *p, const struct policy_worker *w, size_t n,
                    const struct policy_ask *a, bool with_prompt) {
    int best = -1;
    uint64_t least = 0;
    for (size_t k = 0; k < n; k++) {
        size_t i = (p->turn + k) % n;
        uint64_t cost = pick_cost(w[i].load) + (with_prompt ? a->n_tokens - w[i].n_cached : 0);
        if ((best >= 0 && cost >= least) || !fits(&w[i], a))
            continue;
        best = (int)i;
        least = cost;
    }
    return best;
}

static int by_prefix(const struct policy *p, const struct policy_worker *w, size_t n,
                     const struct policy_ask *a, enum policy_reason *why) {
    int i = cheapest(p, w, n, a, true);
    uint32_t most = 0;
    for (size_t k = 0; k < n; k++)
        most = MAX(most, w[k].n_cached);
    *why = most == 0 || i < 0 ? ROUTED_LOAD : w[i].n_cached == most ? ROUTED_PREFIX : ROUTED_SPREAD;
    return i;
}

/* of_two: two different ones of those that have credit. */
static int of_two(struct policy *p, const struct policy_worker *w, size_t n, const struct policy_ask *a) {
    uint32_t n_fit = 0, at = 0;
    int first = -1, second = -1;
    for (size_t i = 0; i < n; i++)
        n_fit += fits(&w[i], a);
    if (n_fit == 0)
        return -1;
    p->rng += 0x9e3779b97f4a7c15ull;
    uint64_t r = hash_u64(p->rng);
    uint32_t one = (uint32_t)(r >> 32) % n_fit, two = n_fit > 1 ? (uint32_t)r % (n_fit - 1) : one;
    two += n_fit > 1 && two >= one;
    for (size_t i = 0; i < n; i++) {
        if (!fits(&w[i], a))
            continue;
        first = at == one ? (int)i : first;
        second = at == two ? (int)i : second;
        at++;
    }
    return pick_cost(w[second].load) < pick_cost(w[first].load) ? second : first;
}

static int in_turn(const struct policy *p, const struct policy_worker *w, size_t n,
                   const struct policy_ask *a) {
    for (size_t k = 0; k < n; k++) {
        size_t i = (p->turn + k) % n;
        if (fits(&w[i], a))
            return (int)i;
    }
    return -1;
}

static int by_key(const struct policy_worker *w, size_t n, const struct policy_ask *a) {
    int best = -1;
    uint64_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t weight = hash_u64(a->key ^ hash_u64(w[i].id));
        if ((best >= 0 && weight <= most) || !fits(&w[i], a))
            continue;
        best = (int)i;
        most = weight;
    }
    return best;
}

int policy_choose(struct policy *p, const struct policy_worker *w, size_t n, const struct policy_ask *a,
                  enum policy_reason *why) {
    int i;
    enum policy_kind kind = p->kind == POLICY_CONSISTENT_HASH && !a->has_key ? POLICY_LEAST_LOAD : p->kind;
    for (size_t k = 0; k < n; k++)
        CHECK(w[k].n_cached <= a->n_tokens);
    switch (kind) {
    case POLICY_PREFIX:
        i = by_prefix(p, w, n, a, why);
        break;
    case POLICY_POWER_OF_TWO:
        i = of_two(p, w, n, a);
        *why = ROUTED_LOAD;
        break;
    case POLICY_ROUND_ROBIN:
        i = in_turn(p, w, n, a);
        *why = ROUTED_TURN;
        break;
    case POLICY_CONSISTENT_HASH:
        i = by_key(w, n, a);
        *why = ROUTED_HASH;
        break;
    default:
        i = cheapest(p, w, n, a, false);
        *why = ROUTED_LOAD;
    }
    if (i >= 0 && n == 1)
        *why = ROUTED_ONLY;
    p->turn += i >= 0;
    return i;
}
