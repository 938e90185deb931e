#include "router/fleet/refuse.h"

#include <math.h>

enum { RETRY_AFTER_MIN_S = 1, RETRY_AFTER_MAX_S = 60 };
static const double rate_min = 0.01; /* requests a second; below it nothing can be said */

/* is_over: of `limit` `all` are taken, `own` of them by the one who asks. */
static bool is_over(uint64_t limit, uint64_t all, uint64_t own, bool tenants) {
    return all >= limit || (tenants && own >= REFUSE_SHARE * (limit - all));
}

enum refusal refuse_why(const struct refuse_limits *limits, const struct refuse_now *now, uint64_t n_tokens) {
    if (is_over(limits->requests, now->n, now->own, limits->tenants))
        return REFUSE_REQUESTS;
    uint64_t more = n_tokens ? n_tokens - 1 : 0; /* the last token of the limit may be taken */
    if (now->n_tokens &&
        is_over(limits->tokens, now->n_tokens + more, now->own_tokens + more, limits->tenants))
        return REFUSE_TOKENS;
    if (limits->wait_s <= 0 || now->done_per_s < rate_min)
        return REFUSE_NOT;
    /* Tenants take turns, so of each at most as many come first as the asking one has, and one more. */
    double ahead = (double)now->n;
    if (limits->tenants)
        ahead = fmin(ahead, (double)(now->own + 1) * MAX(now->n_tenants, 1u));
    return ahead / now->done_per_s > limits->wait_s ? REFUSE_WAIT : REFUSE_NOT;
}

unsigned refuse_retry_s(uint64_t n, double done_per_s) {
    double s = done_per_s > rate_min ? ceil((double)n / done_per_s) : RETRY_AFTER_MAX_S;
    return (unsigned)fmin(fmax(s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S);
}
