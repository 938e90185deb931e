#include "router/fleet/split.h"

#include "common/clock.h"

const char *const worker_roles[N_WORKER_ROLE] = {"both", "prefill", "decode"};

enum worker_role worker_role_of(const char *name) {
    int k = N_WORKER_ROLE - 1;
    while (k > 0 && !(name && !strcmp(worker_roles[k], name)))
        k--;
    return (enum worker_role)k;
}

struct split_rate split_at(struct split_rate r, uint64_t now_ns) {
    return now_ns - r.at_ns < SPLIT_STALE_S * NS_PER_S ? r : (struct split_rate){0};
}

void split_learn(struct split_rate *r, uint32_t n, double us, uint64_t now_ns) {
    const double one = us / MAX(n, 1u);
    if (n == 0 || !(one >= 0))
        return;
    *r = split_at(*r, now_ns);
    r->us = r->us > 0 ? r->us + (one - r->us) / 8 : MAX(one, 1e-3);
    r->at_ns = now_ns;
}

double split_cost(const struct split_side *s, bool known) {
    const double n = (double)s->n_compute + (double)s->queued_tokens;
    return known ? n * s->token.us : n;
}

bool split_pays(const struct split_side *decode, const struct split_side *prefill, struct split_rate tail, uint32_t n_min) {
    /* Between two that do both there is nothing to spare: the policy has taken the better one. */
    if (n_min == 0 || decode->n_compute < n_min || decode->role == WORKER_PREFILL || prefill->role == WORKER_DECODE ||
        (decode->role == WORKER_BOTH && prefill->role == WORKER_BOTH))
        return false;
    const bool known = decode->token.us > 0 && prefill->token.us > 0;
    double here = split_cost(decode, known), there = split_cost(prefill, known);
    there += !known ? SPLIT_TAIL_TOKENS : tail.us > 0 ? tail.us : SPLIT_TAIL_TOKENS * prefill->token.us;
    if (decode->role == WORKER_DECODE)
        here *= SPLIT_SPARED;
    return there < here;
}
