/* vtc.h: what each tenant of a model has had: virtual token counters (Sheng et al., "Fairness in Serving
 * Large Language Models", 2024).
 *
 * A counter is a sum of costs: tokens of prompts that had to be computed and tokens of output, each times its
 * weight. Among tenants that wait, the one with the least counter comes next. A request is charged when a
 * worker gets it, with what is expected of it: its uncached tokens, and as many tokens of output as the
 * tenant's have had of late. What then comes replaces what was expected, token by token, and what does not
 * come is given back when the request ends.
 *
 * Who did not wait gains nothing by it: a tenant that begins to wait is lifted to the least of those that
 * wait already, or, if nobody does, to the one who was served last (of those, to the one who had most). Both
 * without what is only expected of running requests: a newcomer comes before one whose requests run now, and
 * no refund ever puts it behind.
 *
 * The number of tenants is bounded: beyond it the one that is longest out of use is forgotten (and lifted as
 * a new one if it returns); if all are in use the new ones share a counter. Find, charge and lift take O(log
 * n). Pure; not thread-safe.
 */
#ifndef WEIR_ROUTER_FLEET_VTC_H
#define WEIR_ROUTER_FLEET_VTC_H

#include "router/fleet/heap.h"

enum { VTC_TENANTS_MAX = 1 << 16, VTC_OUT_FIRST = 64 };

struct vtc_tenant {
    struct id128 tag;  /* all zero: who has no name */
    double counter;    /* with what is expected */
    double expected;   /* of that, neither come nor given back yet */
    double out_mean;   /* tokens of output of a sequence; a moving mean */
    uint32_t n_seqs;   /* at workers */
    uint64_t n_prompt; /* tokens there that are not known to be computed */
    uint32_t n_held;   /* by what waits and what runs; 0: in the list of those that may be forgotten */
    bool joined;       /* it waits */
    struct vtc_tenant *chain, *prev, *next;
    struct heap_node settled; /* of vtc.settled, while it waits */
    /* The line's (line.h): */
    struct heap_node order;
    struct heap tickets;
    uint32_t n_waiting;
    uint64_t n_waiting_tokens;
};

struct vtc {
    double in_weight, out_weight; /* of a token; above 0 */
    uint32_t n, n_max;
    uint32_t mask;                      /* buckets - 1 */
    struct vtc_tenant **buckets;        /* chains by tag */
    struct vtc_tenant *oldest, *newest; /* out of use, in this order */
    struct vtc_tenant *shared;          /* by those who find no room; NULL: nobody ever did */
    struct heap settled;                /* who waits, by counter without what is expected */
    double served;                      /* the most of that that anybody had when served */
};

/* vtc_bill: what a request was charged with and has not had yet. All zero: nothing. */
struct vtc_bill {
    struct vtc_tenant *tenant;        /* held; NULL: no bill */
    double in_left, out_left;         /* expected, in cost */
    bool in_known;                    /* the prompt is computed */
    bool says;                        /* it has output */
    uint32_t n_seqs, n_prompt, n_out; /* sequences; tokens of the prompt; of output so far */
};

void vtc_init(struct vtc *v, uint32_t n_max, double in_weight, double out_weight);
/* vtc_fini: nobody holds a tenant. */
void vtc_fini(struct vtc *v);

/* vtc_find: the counter that vtc_hold would give, if there is one already. vtc_hold: found or made, and held.
 * vtc_drop: gives a hold back; t stays at least until the next vtc_hold. */
struct vtc_tenant *vtc_find(const struct vtc *v, struct id128 tag);
struct vtc_tenant *vtc_hold(struct vtc *v, struct id128 tag);
void vtc_drop(struct vtc *v, struct vtc_tenant *t);
/* vtc_join: it begins to wait. vtc_leave: it does not any more. */
void vtc_join(struct vtc *v, struct vtc_tenant *t);
void vtc_leave(struct vtc *v, struct vtc_tenant *t);
/* vtc_lift: it is served without having waited; nobody waits. */
void vtc_lift(struct vtc *v, struct vtc_tenant *t);

/* vtc_load: what a worker gets. */
struct vtc_load {
    uint32_t n_seqs, n_prompt; /* sequences, and tokens of the prompt that they share */
    uint32_t n_in;             /* of these, to be computed and paid */
    uint32_t out_max;          /* tokens that each sequence may say */
};
/* vtc_open: a worker gets it, of t. *bill holds t. */
void vtc_open(struct vtc *v, struct vtc_tenant *t, const struct vtc_load *load, struct vtc_bill *bill);
/* vtc_in: the prompt is computed; n_in tokens of it had to be. Later calls do nothing. vtc_out: n more tokens
 * of output have come. */
void vtc_in(struct vtc *v, struct vtc_bill *bill, uint32_t n_in);
void vtc_out(struct vtc *v, struct vtc_bill *bill, uint32_t n);
/* vtc_close: nothing more comes. lost: not the tenant's doing: what it was charged for the prompt goes back
 * if that was not computed; else it stays, so that requests which are given up early are not free. *bill
 * becomes zero. */
void vtc_close(struct vtc *v, struct vtc_bill *bill, bool lost);

#endif
