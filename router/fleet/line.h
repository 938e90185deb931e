/* line.h: the line of a model's requests that wait for a worker, and who comes next.
 *
 * Order: requests that were with a worker already and have lost it come first, in order of arrival. Then by
 * (priority, fairness, arrival): the lowest priority; among tenants with such requests the one with the least
 * counter (vtc.h); of its requests the first that came. With one tenant and one priority that is a plain
 * line.
 *
 * A ticket that leaves for a worker is charged to its tenant, whether it waited or not; what it then costs in
 * truth is told by line_prompt, line_said and line_end. Every call takes O(log n). Pure; not thread-safe.
 */
#ifndef WEIR_ROUTER_FLEET_LINE_H
#define WEIR_ROUTER_FLEET_LINE_H

#include "router/fleet/vtc.h"

/* line_ticket: the first part is the owner's. */
struct line_ticket {
    struct id128 tenant;
    int32_t priority;
    bool again; /* it had a worker, and lost it */
    uint64_t arrival_ns;
    uint32_t n_tokens; /* of the prompt: what the line's length in tokens is made of */
    /* the line's */
    uint64_t serial;
    struct vtc_tenant *of; /* held while it waits */
    struct heap_node node;
    struct line_ticket *prev, *next; /* all that wait, as they came */
    bool waits;
};

struct line {
    struct vtc vtc;
    struct heap order; /* of tenants, by the first of their tickets */
    struct heap again; /* of tickets */
    struct line_ticket *first, *last;
    uint32_t n;
    uint64_t n_tokens, n_serials;
};

void line_init(struct line *l, uint32_t n_tenants_max, double in_weight, double out_weight);
/* line_fini: nobody waits, and every bill is closed. */
void line_fini(struct line *l);

void line_add(struct line *l, struct line_ticket *t);
void line_remove(struct line *l, struct line_ticket *t);
/* line_next: NULL: nobody waits. */
struct line_ticket *line_next(const struct line *l);
/* line_of: what a tenant has: requests that wait, the tokens of their prompts, sequences at workers. */
struct line_has {
    uint64_t n, n_tokens, n_seqs;
};
struct line_has line_of(const struct line *l, struct id128 tenant);

/* line_room: what the workers of the model together grant this router, and how much of it is taken. */
struct line_room {
    uint64_t seqs, seqs_taken, tokens, tokens_taken; /* tokens: of prompts */
};
/* line_holds_back: where tenants are told apart: t is not to have what is left of the room yet, because its
 * tenant has so much of it: more than LINE_SHARE times what would be left (the same dynamic threshold as
 * refuse.h's). So there is always some for who has nothing there, who then need not wait for another's end.
 */
enum { LINE_SHARE = 4 };
bool line_holds_back(const struct line *l, const struct line_ticket *t, uint32_t n_seqs, uint32_t n_prompt,
                     const struct line_room *room);
/* line_open: t, which does not wait, goes to a worker. A ticket that had one already is not charged for its
 * prompt again. */
void line_open(struct line *l, const struct line_ticket *t, const struct vtc_load *load,
               struct vtc_bill *bill);
/* line_prompt, line_said, line_end: vtc_in, vtc_out, vtc_close. */
void line_prompt(struct line *l, struct vtc_bill *bill, uint32_t n_in);
void line_said(struct line *l, struct vtc_bill *bill, uint32_t n);
void line_end(struct line *l, struct vtc_bill *bill, bool lost);

#endif
