#include "common/gram/engine.h"

/* Sets of edges by what they hold: equal ones have one id. What refers to itself is interned as a group. */

static int cmp_edge(const struct edge *x, const struct edge *y) {
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    if (x->keys != y->keys)
        return x->keys < y->keys ? -1 : 1;
    return (x->ctx > y->ctx) - (x->ctx < y->ctx);
}
static int cmp_edge_q(const void *a, const void *b) {
    struct edge x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return cmp_edge(&x, &y);
}

uint32_t ctx_tidy(struct edge *e, uint32_t n) {
    if (n > 16)
        qsort(e, n, sizeof *e, cmp_edge_q);
    else
        for (uint32_t i = 1; i < n; i++) {
            struct edge x = e[i];
            uint32_t j = i;
            for (; j && cmp_edge(&e[j - 1], &x) > 0; j--)
                e[j] = e[j - 1];
            e[j] = x;
        }
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!m || cmp_edge(&e[m - 1], &e[i]))
            e[m++] = e[i];
    return m;
}

/* mix_edge: an edge to a member of the group [group, group + n) counts by its place there. */
static uint64_t mix_edge(uint64_t h, const struct edge *e, uint32_t group, uint32_t n) {
    uint32_t to = e->ctx >= group && e->ctx < group + n ? CTX_LOCAL | (e->ctx - group) : e->ctx;
    return mix(mix(mix(h, e->at), e->keys), to);
}

void ctx_rehash(struct gram *g) {
    struct ctx_pool *p = &g->ctx;
    itab_clear(&p->tab, &g->bytes);
    for (uint32_t i = CTX_ROOT; i < p->n; i += p->ctx[i].n_group) {
        uint64_t h = p->ctx[i].n_group;
        for (uint32_t m = 0; m < p->ctx[i].n_group; m++)
            for (uint32_t k = 0; k < p->ctx[i + m].n; k++)
                h = mix_edge(h, &p->edge[p->ctx[i + m].first + k], i, p->ctx[i].n_group);
        itab_add(&p->tab, (uint32_t)(h >> 20), i, &g->bytes);
    }
}

uint32_t ctx_intern(struct gram *g, const struct edge *out, const uint32_t *end, uint32_t n) {
    struct ctx_pool *p = &g->ctx;
    uint64_t h = n;
    uint32_t n_out = end[n - 1], at = UINT32_MAX, id;
    for (uint32_t i = 0; i < n_out; i++)
        h = mix_edge(h, &out[i], 0, 0);
    uint32_t hash = (uint32_t)(h >> 20);
    if (!gram_spend(g, 8 + n_out))
        return 0;
    while ((id = itab_find(&p->tab, hash, &at)) != UINT32_MAX) {
        bool same = p->ctx[id].n_group == n;
        for (uint32_t i = 0, j = 0; same && i < n; i++) {
            const struct ctx *c = &p->ctx[id + i];
            same = c->n == end[i] - j;
            for (uint32_t k = 0; same && k < c->n; k++, j++) {
                const struct edge *e = &p->edge[c->first + k];
                uint32_t to = out[j].ctx & CTX_LOCAL ? id + (out[j].ctx & ~CTX_LOCAL) : out[j].ctx;
                same = e->at == out[j].at && e->keys == out[j].keys && e->ctx == to;
            }
        }
        if (same)
            return id;
    }
    if (!gram_room(g, table_more(p->cap, (size_t)p->n + n, sizeof *p->ctx) + itab_more(&p->tab) +
                          table_more(p->cap_edges, (size_t)p->n_edges + n_out, sizeof *p->edge)))
        return 0;
    id = p->n;
    p->ctx = table_grow(p->ctx, &p->cap, (size_t)p->n + n, sizeof *p->ctx, &g->bytes);
    p->edge = table_grow(p->edge, &p->cap_edges, (size_t)p->n_edges + n_out, sizeof *p->edge, &g->bytes);
    for (uint32_t i = 0, j = 0; i < n; i++) {
        p->ctx[p->n++] = (struct ctx){.first = p->n_edges, .n = end[i] - j, .group = id, .n_group = n};
        for (; j < end[i]; j++) {
            struct edge e = out[j];
            if (e.ctx & CTX_LOCAL)
                e.ctx = id + (e.ctx & ~CTX_LOCAL);
            p->edge[p->n_edges++] = e;
        }
    }
    itab_add(&p->tab, hash, id, &g->bytes);
    return id;
}
