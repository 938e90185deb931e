/* split.h: whether a prompt is to be computed by another worker than the one that goes on with it. Pure.
 *
 * Costs are microseconds, as measured here: what a token of prefill takes at a worker, and what a transfer adds behind the
 * last of them (the rest of it travels while the prefill runs). Until something is known a token takes as long as another,
 * and a transfer as long as SPLIT_TAIL_TOKENS of them.
 *
 * A worker that only decodes is spared prefills: one there costs SPLIT_SPARED times its time, since everybody who decodes
 * there waits for it. So it computes a prompt itself if those who prefill have that much more to do, and short ones always.
 */
#ifndef WEIR_ROUTER_FLEET_SPLIT_H
#define WEIR_ROUTER_FLEET_SPLIT_H

#include "common/base.h"

enum {
    SPLIT_TAIL_TOKENS = 64,
    SPLIT_SPARED = 4,
    SPLIT_SAMPLE_TOKENS = 32, /* fewer tell nothing of what one takes */
    SPLIT_STALE_S = 10,
    SPLIT_MAX = 48 /* prompts under way at a worker of either kind; a worker reads, and is read by, 64 at a time */
};

enum worker_role { WORKER_BOTH = 0, WORKER_PREFILL, WORKER_DECODE, N_WORKER_ROLE };
extern const char *const worker_roles[N_WORKER_ROLE];
/* worker_role_of: by its name, which may be NULL: BOTH, as for one that this build does not know. */
enum worker_role worker_role_of(const char *name);

/* split_rate: a moving average; us 0: nothing is known. What is old is known no more: a worker that was slow once, and is
 * asked for nothing since, would never be seen to be fast again. */
struct split_rate {
    double us;
    uint64_t at_ns; /* the last time that it was measured */
};
/* split_learn: n tokens, or transfers, took us in all. split_at: what is known of it by now. */
void split_learn(struct split_rate *r, uint32_t n, double us, uint64_t now_ns);
struct split_rate split_at(struct split_rate r, uint64_t now_ns);

struct split_side {
    enum worker_role role;
    uint32_t n_compute;     /* tokens of the prompt that it would have to compute */
    uint64_t queued_tokens; /* ahead of it there (pick_cost) */
    struct split_rate token;
};
/* split_cost: until the prompt is computed there, in us, or in tokens if `known` is false. */
double split_cost(const struct split_side *s, bool known);
/* split_pays: of a prompt of which at least n_min tokens are to be computed where it is decoded; n_min 0: never. */
bool split_pays(const struct split_side *decode, const struct split_side *prefill, struct split_rate tail, uint32_t n_min);

#endif
