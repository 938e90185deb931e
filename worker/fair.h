/* fair.h: a fair order among tenants for the requests that wait here, whatever router they came through.
 *
 * Each router is fair to its own tenants (router/fleet/vtc.h); what several of them send to one worker meets
 * here. A request gets a start tag when it comes: where its tenant's last one ended, or FAIR_BURST before the
 * present, whichever is later; and the tenant's end moves on by what the request is expected to cost. The
 * lowest tag is served first, and the present is the highest tag served so far (start-time fair queueing;
 * Goyal, Vin and Cheng, 1996). So a tenant that sends ten times as much stands in line behind itself; and one
 * that keeps below its share comes first with a few requests at once, as it would where nobody floods. A tag
 * never changes: it is a part of the scheduler's order, which must stand still for preemption. When a request
 * ends, its tenant's end is corrected by what it did cost. Costs are in tokens: 1 for one of the prompt that
 * is computed, FAIR_OUT for one of output.
 *
 * Until a tagged request comes nothing is kept and every tag is 0. The table holds FAIR_TENANTS; where there
 * are more, of some the one whose end is nearest is forgotten. Pure; the engine's thread only.
 */
#ifndef WEIR_WORKER_FAIR_H
#define WEIR_WORKER_FAIR_H

#include "common/base.h"

enum {
    FAIR_WAYS = 8,
    FAIR_SETS = 256,
    FAIR_TENANTS = FAIR_WAYS * FAIR_SETS,
    FAIR_OUT = 2,
    FAIR_OUT_FIRST = 64,
    FAIR_BURST = 4096
};

struct fair_tenant {
    struct id128 tag;
    uint64_t end;  /* 0: a free place */
    uint64_t last; /* tag given: those of a tenant never fall, so its requests stay in order */
};
struct fair {
    bool on;
    uint64_t now;
    double out_mean; /* tokens of output of a sequence, of all tenants; a moving mean */
    struct fair_tenant t[FAIR_SETS][FAIR_WAYS];
};

void fair_init(struct fair *f);
/* fair_arrive: the start tag of a request of n_in prompt tokens and n_seqs sequences of at most out_max
 * tokens of output each; *cost: what it is expected to cost. tagged false: it names no tenant, and those who
 * name none are one. */
uint64_t fair_arrive(struct fair *f, bool tagged, struct id128 tag, uint32_t n_in, uint32_t n_seqs,
                     uint32_t out_max, uint64_t *cost);
/* fair_serve: a request with that tag runs. */
void fair_serve(struct fair *f, uint64_t start);
/* fair_end: it cost n_in computed tokens of its prompt and n_out of output, in n_seqs sequences (0: of no
 * measure for others), where `cost` was expected. */
void fair_end(struct fair *f, struct id128 tag, uint64_t cost, uint32_t n_in, uint64_t n_out,
              uint32_t n_seqs);

#endif
