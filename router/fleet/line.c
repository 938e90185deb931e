#include "router/fleet/line.h"

static struct line_ticket *ticket_at(struct heap_node *n) {
    return CONTAINER_OF(n, struct line_ticket, node);
}

static bool earlier(const struct line_ticket *a, const struct line_ticket *b) {
    return a->arrival_ns != b->arrival_ns ? a->arrival_ns < b->arrival_ns : a->serial < b->serial;
}

static bool again_before(struct heap_node *a, struct heap_node *b) {
    return earlier(ticket_at(a), ticket_at(b));
}

static bool ticket_before(struct heap_node *a, struct heap_node *b) {
    const struct line_ticket *x = ticket_at(a), *y = ticket_at(b);
    return x->priority != y->priority ? x->priority < y->priority : earlier(x, y);
}

/* tenant_before: by its first ticket's priority, its counter, its first ticket's arrival. */
static bool tenant_before(struct heap_node *a, struct heap_node *b) {
    struct vtc_tenant *s = CONTAINER_OF(a, struct vtc_tenant, order),
                      *t = CONTAINER_OF(b, struct vtc_tenant, order);
    const struct line_ticket *x = ticket_at(heap_top(&s->tickets)), *y = ticket_at(heap_top(&t->tickets));
    if (x->priority != y->priority)
        return x->priority < y->priority;
    return s->counter != t->counter ? s->counter < t->counter : earlier(x, y);
}

void line_init(struct line *l, uint32_t n_tenants_max, double in_weight, double out_weight) {
    *l = (struct line){.n = 0};
    vtc_init(&l->vtc, n_tenants_max, in_weight, out_weight);
    heap_init(&l->order, tenant_before);
    heap_init(&l->again, again_before);
}

void line_fini(struct line *l) {
    CHECK(l->n == 0);
    heap_fini(&l->order);
    heap_fini(&l->again);
    vtc_fini(&l->vtc);
}

/* ---- waiting ----------------------------------------------------------------------------------------- */

/* tenant_add, tenant_remove: a ticket among its tenant's, and the tenant among those that wait. */
static void tenant_add(struct line *l, struct line_ticket *t) {
    struct vtc_tenant *of = t->of;
    if (of->tickets.n == 0) {
        heap_init(&of->tickets, ticket_before);
        heap_push(&of->tickets, &t->node);
        vtc_join(&l->vtc, of);
        heap_push(&l->order, &of->order);
        return;
    }
    heap_push(&of->tickets, &t->node);
    heap_moved(&l->order, &of->order);
}

static void tenant_remove(struct line *l, struct line_ticket *t) {
    struct vtc_tenant *of = t->of;
    if (of->tickets.n == 1) {
        heap_remove(&l->order, &of->order);
        vtc_leave(&l->vtc, of);
        heap_remove(&of->tickets, &t->node);
        heap_fini(&of->tickets);
        return;
    }
    heap_remove(&of->tickets, &t->node);
    heap_moved(&l->order, &of->order);
}

void line_add(struct line *l, struct line_ticket *t) {
    CHECK(!t->waits);
    t->waits = true;
    t->serial = l->n_serials++;
    t->of = vtc_hold(&l->vtc, t->tenant);
    if (t->again)
        heap_push(&l->again, &t->node);
    else
        tenant_add(l, t);
    t->prev = l->last;
    t->next = NULL;
    *(l->last ? &l->last->next : &l->first) = t;
    l->last = t;
    l->n++;
    l->n_tokens += t->n_tokens;
    t->of->n_waiting++;
    t->of->n_waiting_tokens += t->n_tokens;
}

void line_remove(struct line *l, struct line_ticket *t) {
    CHECK(t->waits);
    t->waits = false;
    if (t->again)
        heap_remove(&l->again, &t->node);
    else
        tenant_remove(l, t);
    *(t->prev ? &t->prev->next : &l->first) = t->next;
    *(t->next ? &t->next->prev : &l->last) = t->prev;
    l->n--;
    l->n_tokens -= t->n_tokens;
    t->of->n_waiting--;
    t->of->n_waiting_tokens -= t->n_tokens;
    vtc_drop(&l->vtc, t->of);
    t->of = NULL;
}

struct line_ticket *line_next(const struct line *l) {
    struct heap_node *n = heap_top(&l->again);
    if (n)
        return ticket_at(n);
    n = heap_top(&l->order);
    return n ? ticket_at(heap_top(&CONTAINER_OF(n, struct vtc_tenant, order)->tickets)) : NULL;
}

struct line_has line_of(const struct line *l, struct id128 tenant) {
    const struct vtc_tenant *t = vtc_find(&l->vtc, tenant);
    return t ? (struct line_has){t->n_waiting, t->n_waiting_tokens, t->n_seqs} : (struct line_has){0, 0, 0};
}

/* ---- what it costs ----------------------------------------------------------------------------------- */

static void moved(struct line *l, struct vtc_tenant *t) {
    if (t && t->joined)
        heap_moved(&l->order, &t->order);
}

static bool is_much(uint64_t own, uint64_t more, uint64_t all, uint64_t taken) {
    return own && (taken + more > all || own + more > LINE_SHARE * (all - taken - more));
}

bool line_holds_back(const struct line *l, const struct line_ticket *t, uint32_t n_seqs, uint32_t n_prompt,
                     const struct line_room *room) {
    const struct vtc_tenant *of = vtc_find(&l->vtc, t->tenant);
    return of && !t->again &&
           (is_much(of->n_seqs, n_seqs, room->seqs, room->seqs_taken) ||
            is_much(of->n_prompt, n_prompt, room->tokens, room->tokens_taken));
}

void line_open(struct line *l, const struct line_ticket *t, const struct vtc_load *load,
               struct vtc_bill *bill) {
    CHECK(!t->waits);
    struct vtc_tenant *of = vtc_hold(&l->vtc, t->tenant);
    struct vtc_load x = *load;
    if (l->order.n == 0)
        vtc_lift(&l->vtc, of);
    if (t->again)
        x.n_in = 0;
    vtc_open(&l->vtc, of, &x, bill);
    if (t->again)
        vtc_in(&l->vtc, bill, 0);
    moved(l, of);
    vtc_drop(&l->vtc, of);
}

void line_prompt(struct line *l, struct vtc_bill *bill, uint32_t n_in) {
    vtc_in(&l->vtc, bill, n_in);
    moved(l, bill->tenant);
}

void line_said(struct line *l, struct vtc_bill *bill, uint32_t n) {
    vtc_out(&l->vtc, bill, n);
    moved(l, bill->tenant);
}

void line_end(struct line *l, struct vtc_bill *bill, bool lost) {
    struct vtc_tenant *t = bill->tenant;
    vtc_close(&l->vtc, bill, lost);
    moved(l, t);
}
