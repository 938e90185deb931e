#include "common/gram/engine.h"

/* Constructors, which keep a normal form, so that the derivatives of an expression are finitely many
 * (Brzozowski 1964; Owens, Reppy and Turon 2009), and builders on top of them. */

/* ---- constructors ------------------------------------------------------------------------------ */

uint32_t rx_mk_set(struct gram *g, const struct rx_set *s) {
    if (!(s->w[0] | s->w[1] | s->w[2] | s->w[3]))
        return RX_NONE;
    return rx_node_id(g, (struct rx_node){.kind = K_SET, .a = rx_set_id(g, s)}, NULL);
}

uint32_t rx_mk_cat(struct gram *g, uint32_t a, uint32_t b) {
    if (a == RX_NONE || b == RX_NONE)
        return RX_NONE;
    if (a == RX_EMPTY)
        return b;
    if (b == RX_EMPTY)
        return a;
    return rx_node_id(g, (struct rx_node){.kind = K_CAT, .a = a, .b = b}, NULL);
}

uint32_t rx_mk_not(struct gram *g, uint32_t a) {
    if (g->rx.node[a].kind == K_NOT)
        return g->rx.node[a].a;
    return rx_node_id(g, (struct rx_node){.kind = K_NOT, .a = a}, NULL);
}

uint32_t rx_mk_rep(struct gram *g, uint32_t a, uint32_t min, uint32_t max) {
    if (max == 0 || a == RX_EMPTY)
        return RX_EMPTY;
    if (min > max)
        return RX_NONE;
    if (a == RX_NONE)
        return min ? RX_NONE : RX_EMPTY;
    if (rx_nullable(g, a))
        min = 0;
    if (min == 1 && max == 1)
        return a;
    return rx_node_id(g, (struct rx_node){.kind = K_REP, .a = a, .b = min, .c = max}, NULL);
}

uint32_t rx_mk_multiple(struct gram *g, uint32_t step, uint32_t rest, uint32_t place) {
    return rx_node_id(g, (struct rx_node){.kind = K_MULTIPLE, .a = step, .b = rest, .c = place}, NULL);
}

static int cmp_u32(const void *a, const void *b) {
    uint32_t x, y;
    memcpy(&x, a, 4);
    memcpy(&y, b, 4);
    return (x > y) - (x < y);
}

static void sort_u32(uint32_t *v, uint32_t n) {
    if (n > 24) {
        qsort(v, n, sizeof *v, cmp_u32);
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        uint32_t x = v[i], j = i;
        for (; j && v[j - 1] > x; j--)
            v[j] = v[j - 1];
        v[j] = x;
    }
}

/* flatten: tmp[base ..): members that are of `kind` themselves are replaced by theirs, sets by their union
 * (K_ALT) or intersection (K_AND); sorted, no doubles, no unit. False: the zero of the kind is among them. */
static bool flatten(struct gram *g, uint32_t base, enum rx_kind kind) {
    struct rx_pool *p = &g->rx;
    uint32_t unit = kind == K_ALT ? RX_NONE : RX_ALL, zero = kind == K_ALT ? RX_ALL : RX_NONE;
    uint32_t end = p->n_tmp, n = base;
    struct rx_set sets = {{0}};
    uint32_t n_sets = 0, one_set = 0;
    for (uint32_t i = base; i < end; i++) {
        uint32_t x = p->tmp[i];
        if (p->node[x].kind == kind) {
            uint32_t first = p->node[x].a, count = p->node[x].b;
            for (uint32_t j = 0; j < count; j++)
                rx_push(g, p->list[first + j]);
        } else {
            rx_push(g, x);
        }
    }
    for (uint32_t i = end; i < p->n_tmp; i++) {
        uint32_t x = p->tmp[i];
        if (x == zero)
            return false;
        if (p->node[x].kind == K_SET) {
            const struct rx_set *s = &p->set[p->node[x].a];
            for (int w = 0; w < 4; w++)
                sets.w[w] = !n_sets ? s->w[w] : kind == K_ALT ? sets.w[w] | s->w[w] : sets.w[w] & s->w[w];
            n_sets++;
            one_set = x;
        } else if (x != unit) {
            p->tmp[n++] = x; /* n <= i: each member was pushed once */
        }
    }
    p->n_tmp = n;
    if (n_sets) {
        uint32_t s = n_sets == 1 ? one_set : rx_mk_set(g, &sets);
        if (s == RX_NONE && kind == K_AND)
            return false;
        rx_push(g, s);
    }
    sort_u32(p->tmp + base, p->n_tmp - base);
    n = base;
    for (uint32_t i = base; i < p->n_tmp; i++)
        if (i == base || p->tmp[i] != p->tmp[i - 1])
            p->tmp[n++] = p->tmp[i];
    p->n_tmp = n;
    return true;
}

static uint32_t drop_tmp(struct gram *g, uint32_t base, uint32_t result) {
    g->rx.n_tmp = base;
    return result;
}

uint32_t rx_mk_alt(struct gram *g, uint32_t base) {
    struct rx_pool *p = &g->rx;
    if (p->n_tmp == base + 1)
        return drop_tmp(g, base, p->tmp[base]);
    if (!flatten(g, base, K_ALT))
        return drop_tmp(g, base, RX_ALL);
    uint32_t n = p->n_tmp - base;
    /* RX_EMPTY is the second lowest id and RX_NONE is gone: it stands first. */
    if (n > 1 && p->tmp[base] == RX_EMPTY)
        for (uint32_t i = 1; i < n; i++)
            if (rx_nullable(g, p->tmp[base + i])) {
                memmove(&p->tmp[base], &p->tmp[base + 1], --n * sizeof *p->tmp);
                break;
            }
    uint32_t r = n == 0   ? RX_NONE
                 : n == 1 ? p->tmp[base]
                          : rx_node_id(g, (struct rx_node){.kind = K_ALT, .b = n}, &p->tmp[base]);
    return drop_tmp(g, base, r);
}

uint32_t rx_mk_and(struct gram *g, uint32_t base) {
    struct rx_pool *p = &g->rx;
    if (p->n_tmp == base + 1)
        return drop_tmp(g, base, p->tmp[base]);
    if (!flatten(g, base, K_AND))
        return drop_tmp(g, base, RX_NONE);
    uint32_t n = p->n_tmp - base;
    bool nullable = true;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = p->tmp[base + i];
        nullable = nullable && rx_nullable(g, x);
        if (p->node[x].kind == K_NOT && bsearch(&p->node[x].a, &p->tmp[base], n, sizeof *p->tmp, cmp_u32))
            return drop_tmp(g, base, RX_NONE);
    }
    if (n && p->tmp[base] == RX_EMPTY)
        return drop_tmp(g, base, nullable ? RX_EMPTY : RX_NONE);
    uint32_t r = n == 0   ? RX_ALL
                 : n == 1 ? p->tmp[base]
                          : rx_node_id(g, (struct rx_node){.kind = K_AND, .b = n}, &p->tmp[base]);
    return drop_tmp(g, base, r);
}

static unsigned set_lowest(const struct rx_set *s) {
    for (unsigned w = 0; w < 4; w++)
        if (s->w[w])
            return w * 64 + (unsigned)__builtin_ctzll(s->w[w]);
    return 256;
}

/* merge_pairs: joins pairs with equal ids and orders by lowest byte; at most 256 pairs, since sets are
 * disjoint and not empty. Returns how many are left. */
static uint32_t merge_pairs(struct gram *g, uint32_t base) {
    struct rx_pool *p = &g->rx;
    uint32_t set[256], to[256], n = 0;
    uint32_t by_id[256];
    CHECK(p->n_tmp - base <= 512);
    for (uint32_t i = base; i < p->n_tmp; i += 2)
        if (p->tmp[i + 1] != RX_NONE) {
            uint32_t j = n++;
            for (; j && p->tmp[by_id[j - 1] + 1] > p->tmp[i + 1]; j--)
                by_id[j] = by_id[j - 1];
            by_id[j] = i;
        }
    uint32_t m = 0;
    for (uint32_t i = 0; i < n;) {
        struct rx_set s = {{0}};
        uint32_t id = p->tmp[by_id[i] + 1], first = i;
        for (; i < n && p->tmp[by_id[i] + 1] == id; i++)
            for (int w = 0; w < 4; w++)
                s.w[w] |= p->set[p->tmp[by_id[i]]].w[w];
        uint32_t sid = i == first + 1 ? p->tmp[by_id[first]] : rx_set_id(g, &s), j = m++;
        unsigned low = set_lowest(&p->set[sid]);
        for (; j && set_lowest(&p->set[set[j - 1]]) > low; j--) {
            set[j] = set[j - 1];
            to[j] = to[j - 1];
        }
        set[j] = sid;
        to[j] = id;
    }
    p->n_tmp = base;
    for (uint32_t i = 0; i < m; i++) {
        rx_push(g, set[i]);
        rx_push(g, to[i]);
    }
    return m;
}

uint32_t rx_mk_switch(struct gram *g, uint32_t base, bool nullable) {
    struct rx_pool *p = &g->rx;
    uint32_t n = merge_pairs(g, base), r;
    if (n == 0) {
        r = nullable ? RX_EMPTY : RX_NONE;
    } else if (n == 1 && !nullable) {
        uint32_t to = p->tmp[base + 1];
        struct rx_set s = p->set[p->tmp[base]];
        r = rx_mk_cat(g, rx_mk_set(g, &s), to);
    } else {
        r = rx_node_id(g, (struct rx_node){.kind = K_SWITCH, .b = n, .c = nullable}, &p->tmp[base]);
    }
    return drop_tmp(g, base, r);
}

/* ---- builders ---------------------------------------------------------------------------------- */

uint32_t rx_cat(struct gram *g, uint32_t a, uint32_t b) {
    /* Kept in balance as an AVL tree is, so that a chain put together from the left is not deep. A height of
     * 0 is one part, or a plain string. */
    const struct rx_node *x = &g->rx.node[a];
    if (a == RX_NONE || b == RX_NONE || a == RX_EMPTY || b == RX_EMPTY || x->kind != K_CAT ||
        x->height <= g->rx.node[b].height + 1)
        return rx_mk_cat(g, a, b);
    uint32_t left = x->a, right = rx_cat(g, x->b, b);
    const struct rx_node *r = &g->rx.node[right];
    if (r->kind == K_CAT && r->height > g->rx.node[left].height + 1) {
        uint32_t ra = r->a, rb = r->b;
        const struct rx_node *ral = &g->rx.node[ra];
        if (ral->kind == K_CAT && ral->height > g->rx.node[rb].height) {
            uint32_t raa = ral->a, rab = ral->b;
            return rx_mk_cat(g, rx_mk_cat(g, left, raa), rx_mk_cat(g, rab, rb));
        }
        return rx_mk_cat(g, rx_mk_cat(g, left, ra), rb);
    }
    return rx_mk_cat(g, left, right);
}

uint32_t rx_alt(struct gram *g, uint32_t a, uint32_t b) {
    return rx_alt_n(g, (uint32_t[]){a, b}, 2);
}

uint32_t rx_alt_n(struct gram *g, const uint32_t *a, size_t n) {
    uint32_t base = g->rx.n_tmp;
    for (size_t i = 0; i < n && !gram_over(g); i++) {
        if (a[i] == RX_ANY)
            return drop_tmp(g, base, RX_ANY);
        rx_push(g, a[i]);
    }
    return rx_mk_alt(g, base);
}

uint32_t rx_and(struct gram *g, uint32_t a, uint32_t b) {
    struct rx_pool *p = &g->rx;
    uint32_t base = p->n_tmp, n_text = 0;
    rx_push(g, a);
    rx_push(g, b);
    if (!flatten(g, base, K_AND))
        return drop_tmp(g, base, RX_NONE);
    /* Builders' expressions match UTF-8 only, and so does each member that is not a bare complement: then
     * RX_ANY says nothing new. */
    for (uint32_t i = base; i < p->n_tmp; i++)
        n_text += p->tmp[i] != RX_ANY && p->node[p->tmp[i]].kind != K_NOT;
    uint32_t n = base;
    for (uint32_t i = base; i < p->n_tmp; i++)
        if (!n_text || p->tmp[i] != RX_ANY)
            p->tmp[n++] = p->tmp[i];
    p->n_tmp = n;
    return rx_mk_and(g, base);
}

uint32_t rx_not(struct gram *g, uint32_t a) {
    if (a == RX_NONE)
        return RX_ANY;
    if (a == RX_ANY)
        return RX_NONE;
    uint32_t base = g->rx.n_tmp;
    rx_push(g, RX_ANY);
    rx_push(g, rx_mk_not(g, a));
    return rx_mk_and(g, base);
}

uint32_t rx_repeat(struct gram *g, uint32_t a, uint32_t min, uint32_t max) {
    const struct rx_node *x = &g->rx.node[a];
    if (min != RX_INF && min > RX_REPEAT_MIN_MAX && max >= min && a != RX_NONE && !rx_nullable(g, a)) {
        gram_set_over(g, "a repeat asks for more than 65536 copies");
        return RX_NONE;
    }
    if (x->kind == K_REP && min <= max && max > 0) {
        /* (a{i,j}){min,max} is a{i*min,j*max} when the ranges of counts leave no gap. */
        uint64_t i = x->b, j = x->c, k = MAX(min, 1u);
        bool dense = j == RX_INF || min == max || j * k + 1 >= i * (k + 1);
        if (min == 0 && i > 1)
            dense = false;
        uint64_t lo = i * min, hi = j == RX_INF || max == RX_INF ? RX_INF : MIN(j * max, (uint64_t)RX_INF);
        if (dense && lo <= RX_REPEAT_MIN_MAX && (hi == RX_INF) == (j == RX_INF || max == RX_INF))
            return rx_mk_rep(g, x->a, (uint32_t)lo, (uint32_t)hi);
    }
    return rx_mk_rep(g, a, min, max);
}

bool rx_matches(struct gram *g, uint32_t a, struct str s) {
    for (size_t i = 0; i < s.n && a != RX_NONE; i++)
        a = rx_derive(g, a, (uint8_t)s.p[i]);
    return rx_nullable(g, a);
}
