#include "router/fleet/vtc.h"

#include <stdlib.h>

static double settled(const struct vtc_tenant *t) {
    return t->counter - t->expected;
}

static bool settled_before(struct heap_node *a, struct heap_node *b) {
    return settled(CONTAINER_OF(a, struct vtc_tenant, settled)) <
           settled(CONTAINER_OF(b, struct vtc_tenant, settled));
}

void vtc_init(struct vtc *v, uint32_t n_max, double in_weight, double out_weight) {
    uint32_t n_buckets = 16;
    CHECK(n_max >= 1 && n_max <= VTC_TENANTS_MAX && in_weight > 0 && out_weight > 0);
    while (n_buckets < n_max)
        n_buckets *= 2;
    *v =
        (struct vtc){.in_weight = in_weight, .out_weight = out_weight, .n_max = n_max, .mask = n_buckets - 1};
    v->buckets = xcalloc(n_buckets, sizeof(struct vtc_tenant *));
    heap_init(&v->settled, settled_before);
}

static void tenant_free(struct vtc_tenant *t) {
    if (!t)
        return;
    CHECK(t->n_held == 0 && !t->joined);
    heap_fini(&t->tickets);
    free(t);
}

void vtc_fini(struct vtc *v) {
    for (uint32_t i = 0; i <= v->mask; i++) {
        for (struct vtc_tenant *t = v->buckets[i], *next; t; t = next) {
            next = t->chain;
            tenant_free(t);
        }
    }
    tenant_free(v->shared);
    free(v->buckets);
    heap_fini(&v->settled);
}

/* ---- the table --------------------------------------------------------------------------------------- */

/* place: where the tag's tenant hangs, or would. Tags are digests, so their own bits spread them. */
static struct vtc_tenant **place(const struct vtc *v, struct id128 tag) {
    uint64_t h;
    memcpy(&h, tag.b, sizeof h);
    struct vtc_tenant **p = &v->buckets[h & v->mask];
    while (*p && !id128_eq((*p)->tag, tag))
        p = &(*p)->chain;
    return p;
}

/* is_full: whoever is not in the table finds no room there. */
static bool is_full(const struct vtc *v) {
    return v->n == v->n_max && !v->oldest;
}

struct vtc_tenant *vtc_find(const struct vtc *v, struct id128 tag) {
    struct vtc_tenant *t = *place(v, tag);
    return t || !is_full(v) ? t : v->shared;
}

static void list_remove(struct vtc *v, struct vtc_tenant *t) {
    *(t->prev ? &t->prev->next : &v->oldest) = t->next;
    *(t->next ? &t->next->prev : &v->newest) = t->prev;
    t->prev = t->next = NULL;
}

static struct vtc_tenant *tenant_new(struct id128 tag) {
    struct vtc_tenant *t = xcalloc(1, sizeof *t);
    t->tag = tag;
    t->out_mean = VTC_OUT_FIRST;
    return t;
}

struct vtc_tenant *vtc_hold(struct vtc *v, struct id128 tag) {
    struct vtc_tenant *t = *place(v, tag);
    if (!t && is_full(v)) {
        if (!v->shared)
            v->shared = tenant_new((struct id128){{0}});
        t = v->shared;
    } else if (!t) {
        if (v->n == v->n_max) {
            struct vtc_tenant *old = v->oldest;
            list_remove(v, old);
            *place(v, old->tag) = old->chain;
            tenant_free(old);
            v->n--;
        }
        t = tenant_new(tag);
        *place(v, tag) = t;
        v->n++;
    } else if (t->n_held == 0) {
        list_remove(v, t);
    }
    t->n_held++;
    return t;
}

void vtc_drop(struct vtc *v, struct vtc_tenant *t) {
    CHECK(t->n_held > 0);
    if (--t->n_held > 0 || t == v->shared)
        return;
    t->prev = v->newest;
    *(v->newest ? &v->newest->next : &v->oldest) = t;
    v->newest = t;
}

/* ---- counters ---------------------------------------------------------------------------------------- */

static void lift_to(struct vtc_tenant *t, double level) {
    if (settled(t) < level)
        t->counter = level + t->expected;
}

void vtc_join(struct vtc *v, struct vtc_tenant *t) {
    struct heap_node *least = heap_top(&v->settled);
    CHECK(!t->joined);
    lift_to(t, least ? settled(CONTAINER_OF(least, struct vtc_tenant, settled)) : v->served);
    t->joined = true;
    heap_push(&v->settled, &t->settled);
}

void vtc_leave(struct vtc *v, struct vtc_tenant *t) {
    CHECK(t->joined);
    heap_remove(&v->settled, &t->settled);
    t->joined = false;
}

void vtc_lift(struct vtc *v, struct vtc_tenant *t) {
    CHECK(!t->joined);
    lift_to(t, v->served);
}

static void moved(struct vtc *v, struct vtc_tenant *t) {
    if (t->joined)
        heap_moved(&v->settled, &t->settled);
}

void vtc_open(struct vtc *v, struct vtc_tenant *t, const struct vtc_load *load, struct vtc_bill *bill) {
    double n_out = t->out_mean < load->out_max ? t->out_mean : load->out_max;
    v->served = MAX(v->served, settled(t));
    *bill = (struct vtc_bill){.tenant = t,
                              .in_left = load->n_in * v->in_weight,
                              .out_left = load->n_seqs * n_out * v->out_weight,
                              .says = load->out_max > 0,
                              .n_seqs = load->n_seqs,
                              .n_prompt = load->n_prompt};
    t->n_held++;
    t->n_seqs += load->n_seqs;
    t->n_prompt += load->n_prompt;
    t->counter += bill->in_left + bill->out_left;
    t->expected += bill->in_left + bill->out_left;
    moved(v, t);
}

void vtc_in(struct vtc *v, struct vtc_bill *bill, uint32_t n_in) {
    struct vtc_tenant *t = bill->tenant;
    if (!t || bill->in_known)
        return;
    bill->in_known = true;
    t->n_prompt -= bill->n_prompt;
    t->counter += n_in * v->in_weight - bill->in_left;
    t->expected -= bill->in_left;
    bill->in_left = 0;
    moved(v, t);
}

void vtc_out(struct vtc *v, struct vtc_bill *bill, uint32_t n) {
    struct vtc_tenant *t = bill->tenant;
    if (!t || n == 0)
        return;
    double cost = n * v->out_weight, paid = cost < bill->out_left ? cost : bill->out_left;
    bill->n_out += n;
    bill->out_left -= paid;
    t->expected -= paid;
    t->counter += cost - paid;
    moved(v, t);
}

void vtc_close(struct vtc *v, struct vtc_bill *bill, bool lost) {
    struct vtc_tenant *t = bill->tenant;
    if (!t)
        return;
    t->counter -= bill->out_left + (lost ? bill->in_left : 0);
    t->expected -= bill->out_left + bill->in_left;
    t->n_seqs -= bill->n_seqs;
    t->n_prompt -= bill->in_known ? 0 : bill->n_prompt;
    if (!lost && bill->says)
        t->out_mean += ((double)bill->n_out / bill->n_seqs - t->out_mean) / 8;
    if (t->n_held == 1)
        t->expected = 0; /* sums of fractions leave a crumb */
    moved(v, t);
    *bill = (struct vtc_bill){0};
    vtc_drop(v, t);
}
