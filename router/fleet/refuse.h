/* refuse.h: whether one more request may wait, by how many do, by their tokens, and by how long it would
 * take. Pure.
 *
 * Where tenants are told apart one of them alone never fills the line: it may have at most REFUSE_SHARE times
 * the room that is left (a dynamic threshold, Choudhury and Hahne, "Dynamic Queue Length Thresholds", 1998):
 * alone four fifths of the whole, beside a second one four ninths, and there is always room for who has
 * nothing in it.
 */
#ifndef WEIR_ROUTER_FLEET_REFUSE_H
#define WEIR_ROUTER_FLEET_REFUSE_H

#include "common/base.h"

enum { REFUSE_SHARE = 4 };

struct refuse_limits {
    uint64_t requests, tokens;
    double wait_s; /* 0: no limit */
    bool tenants;  /* are told apart */
};
/* What waits now: in all, and of the one who asks. */
struct refuse_now {
    uint64_t n, n_tokens, own, own_tokens;
    uint32_t n_tenants; /* that wait */
    double done_per_s;  /* requests that end, of late; 0: not known */
};
enum refusal { REFUSE_NOT = 0, REFUSE_REQUESTS, REFUSE_TOKENS, REFUSE_WAIT };

/* refuse_why: for a request of n_tokens. One that is larger than the whole limit may wait alone. */
enum refusal refuse_why(const struct refuse_limits *limits, const struct refuse_now *now, uint64_t n_tokens);
/* refuse_retry_s: what Retry-After says while n wait (api.md 3.2): their number over the rate, 1 to 60. */
unsigned refuse_retry_s(uint64_t n, double done_per_s);

#endif
