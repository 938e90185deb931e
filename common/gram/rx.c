#include "common/gram/engine.h"

/* Nodes: hash-consed, put together by constructors that keep a normal form, so that the derivatives of an
 * expression are finitely many (Brzozowski 1964; Owens, Reppy and Turon 2009). */

void rx_push(struct gram *g, uint32_t id) {
    struct rx_pool *p = &g->rx;
    p->tmp = table_grow(p->tmp, &p->cap_tmp, (size_t)p->n_tmp + 1, sizeof *p->tmp, &g->bytes);
    p->tmp[p->n_tmp++] = id;
}

void rx_visit(struct gram *g) {
    struct rx_pool *p = &g->rx;
    if (++p->epoch == 0) {
        memset(p->mark, 0, p->cap_mark * sizeof *p->mark);
        p->epoch = 1;
    }
}

bool rx_mark(struct gram *g, uint32_t rx) {
    struct rx_pool *p = &g->rx;
    if (rx >= p->cap_mark) {
        uint32_t old = p->cap_mark;
        if (!gram_room(g, table_more(old, p->n, sizeof *p->mark)))
            return false;
        p->mark = table_grow(p->mark, &p->cap_mark, p->n, sizeof *p->mark, &g->bytes);
        memset(p->mark + old, 0, (p->cap_mark - old) * sizeof *p->mark);
    }
    if (p->mark[rx] == p->epoch)
        return false;
    p->mark[rx] = p->epoch;
    return true;
}

static uint32_t hash_set(const struct rx_set *s) {
    uint64_t h = 1;
    for (int i = 0; i < 4; i++)
        h = mix(h, s->w[i]);
    return (uint32_t)(h >> 16);
}

uint32_t rx_set_id(struct gram *g, const struct rx_set *s) {
    struct rx_pool *p = &g->rx;
    uint32_t hash = hash_set(s), at = UINT32_MAX, id;
    while ((id = itab_find(&p->sets, hash, &at)) != UINT32_MAX)
        if (memcmp(&p->set[id], s, sizeof *s) == 0)
            return id;
    p->set = table_grow(p->set, &p->cap_sets, (size_t)p->n_sets + 1, sizeof *p->set, &g->bytes);
    p->set[p->n_sets] = *s;
    itab_add(&p->sets, hash, p->n_sets, &g->bytes);
    return p->n_sets++;
}

/* ---- one node ---------------------------------------------------------------------------------- */

static bool has_list(enum rx_kind kind) {
    return kind == K_ALT || kind == K_AND || kind == K_SWITCH;
}
static uint32_t n_list(const struct rx_node *x) {
    return x->kind == K_SWITCH ? 2 * x->b : x->b;
}

/* equal: is node id the same as x, whose list (if it has one) is at `list`? */
static bool equal(const struct rx_pool *p, uint32_t id, const struct rx_node *x, const uint32_t *list) {
    const struct rx_node *y = &p->node[id];
    if (y->kind != x->kind || y->b != x->b || y->c != x->c)
        return false;
    if (!has_list((enum rx_kind)x->kind))
        return y->a == x->a;
    return memcmp(&p->list[y->a], list, n_list(x) * sizeof *list) == 0;
}

static uint32_t hash_node(const struct rx_node *x, const uint32_t *list) {
    uint64_t h = mix(mix(x->kind, x->b), x->c);
    if (has_list((enum rx_kind)x->kind))
        for (uint32_t i = 0; i < n_list(x); i++)
            h = mix(h, list[i]);
    else
        h = mix(h, x->a);
    return (uint32_t)(h >> 16);
}

/* describe: flags, depth and height from the children. */
static void describe(const struct rx_pool *p, struct rx_node *x, const uint32_t *list) {
    const struct rx_node *n = p->node;
    unsigned any = 0, all = 0xFF, depth = 0, step = x->kind == K_SWITCH ? 2 : 1;
    for (uint32_t i = 0; has_list((enum rx_kind)x->kind) && i < x->b; i++) {
        const struct rx_node *y = &n[list[i * step + step - 1]];
        any |= y->flags;
        all &= y->flags;
        depth = MAX(depth, y->depth);
    }
    unsigned inside = (all & RX_PLAIN) | (any & RX_COUNTS);
    switch ((enum rx_kind)x->kind) {
    case K_NONE:
        x->flags = RX_DEAD | RX_PLAIN;
        return;
    case K_EMPTY:
        x->flags = RX_LIVE | RX_NULLABLE | RX_PLAIN;
        return;
    case K_SET:
        x->flags = RX_LIVE | RX_PLAIN;
        return;
    case K_CAT:
        x->flags = (uint8_t)((n[x->a].flags & n[x->b].flags & (RX_NULLABLE | RX_LIVE | RX_PLAIN)) |
                             ((n[x->a].flags | n[x->b].flags) & RX_COUNTS));
        x->depth = (uint16_t)MAX(n[x->a].depth + 1, n[x->b].depth);
        if (n[x->a].kind != K_SET || n[x->b].height)
            x->height = (uint16_t)(1 + MAX(n[x->a].height, n[x->b].height));
        return;
    case K_REP:
        x->flags = n[x->a].flags & (RX_LIVE | RX_PLAIN | RX_COUNTS);
        if (x->b == 0 || (n[x->a].flags & RX_NULLABLE))
            x->flags |= RX_LIVE | RX_NULLABLE;
        if (x->b > 1 || x->c != RX_INF)
            x->flags |= RX_COUNTS;
        x->depth = (uint16_t)(n[x->a].depth + 1);
        return;
    case K_NOT:
        x->flags = n[x->a].flags & RX_NULLABLE ? 0 : RX_LIVE | RX_NULLABLE;
        x->depth = (uint16_t)(n[x->a].depth + 1);
        return;
    case K_ALT:
        x->flags = (uint8_t)((any & (RX_NULLABLE | RX_LIVE)) | inside);
        x->depth = (uint16_t)(depth + 1);
        return;
    case K_AND:
        x->flags = all & RX_NULLABLE ? RX_NULLABLE | RX_LIVE : 0;
        x->depth = (uint16_t)(depth + 1);
        return;
    case K_SWITCH: /* its derivatives are its children: no recursion */
        x->flags = (uint8_t)((x->c ? RX_NULLABLE | RX_LIVE : any & RX_LIVE) | inside);
        x->depth = (uint16_t)depth;
        return;
    case K_MULTIPLE:
        x->flags = rx_multiple_nullable(x) ? RX_LIVE | RX_NULLABLE : RX_LIVE;
        return;
    }
}

/* secret: so that nobody can make up two expressions of one name. */
static pthread_once_t secret_once = PTHREAD_ONCE_INIT;
static uint64_t secret[2];
static void make_secret(void) {
    fill_random(secret, sizeof secret);
}

/* name: from the names of the children, not their ids. The order of alternatives does not matter. */
static void give_name(const struct rx_pool *p, struct rx_node *x, const uint32_t *list) {
    bool has_a = x->kind == K_CAT || x->kind == K_NOT || x->kind == K_REP;
    for (int i = 0; i < 2; i++) {
        uint64_t h = mix(mix(secret[i], x->kind), x->c), sum = 0;
        if (x->kind == K_MULTIPLE)
            h = mix(mix(h, x->a), x->b);
        if (has_a)
            h = mix(mix(h, p->node[x->a].name[i]), x->kind == K_CAT ? p->node[x->b].name[i] : x->b);
        for (int w = 0; x->kind == K_SET && w < 4; w++)
            h = mix(h, p->set[x->a].w[w]);
        for (uint32_t k = 0; k < x->b && (x->kind == K_ALT || x->kind == K_AND); k++)
            sum += mix(secret[i], p->node[list[k]].name[i]);
        for (uint32_t k = 0; k < x->b && x->kind == K_SWITCH; k++) {
            for (int w = 0; w < 4; w++)
                h = mix(h, p->set[list[2 * k]].w[w]);
            h = mix(h, p->node[list[2 * k + 1]].name[i]);
        }
        x->name[i] = mix(h, sum);
    }
}

/* node: the id of a node; `list` is copied when it is new. */
static uint32_t node(struct gram *g, struct rx_node x, const uint32_t *list) {
    struct rx_pool *p = &g->rx;
    uint32_t hash = hash_node(&x, list), at = UINT32_MAX, id;
    gram_spend(g, 4 + (has_list((enum rx_kind)x.kind) ? n_list(&x) : 0));
    while ((id = itab_find(&p->nodes, hash, &at)) != UINT32_MAX)
        if (equal(p, id, &x, list))
            return id;
    if (g->fail)
        return RX_NONE;
    if (!g->sealed && p->n >= g->limit.n_rx) {
        gram_set_over(g, "too many expressions");
        return RX_NONE;
    }
    uint32_t n = has_list((enum rx_kind)x.kind) ? n_list(&x) : 0;
    if (!gram_room(g, table_more(p->cap, (size_t)p->n + 1, sizeof *p->node) + itab_more(&p->nodes) +
                          table_more(p->cap_list, (size_t)p->n_list + n, sizeof *p->list)))
        return RX_NONE;
    describe(p, &x, list);
    give_name(p, &x, list);
    if (x.depth > RX_DEPTH_MAX) {
        gram_set_over(g, "an expression is nested too deeply");
        return RX_NONE;
    }
    if (has_list((enum rx_kind)x.kind)) {
        p->list = table_grow(p->list, &p->cap_list, (size_t)p->n_list + n, sizeof *p->list, &g->bytes);
        memcpy(p->list + p->n_list, list, n * sizeof *list);
        x.a = p->n_list;
        p->n_list += n;
    }
    p->node = table_grow(p->node, &p->cap, (size_t)p->n + 1, sizeof *p->node, &g->bytes);
    p->node[p->n] = x;
    itab_add(&p->nodes, hash, p->n, &g->bytes);
    return p->n++;
}

/* ---- constructors ------------------------------------------------------------------------------ */

uint32_t rx_mk_set(struct gram *g, const struct rx_set *s) {
    if (!(s->w[0] | s->w[1] | s->w[2] | s->w[3]))
        return RX_NONE;
    return node(g, (struct rx_node){.kind = K_SET, .a = rx_set_id(g, s)}, NULL);
}

uint32_t rx_mk_cat(struct gram *g, uint32_t a, uint32_t b) {
    if (a == RX_NONE || b == RX_NONE)
        return RX_NONE;
    if (a == RX_EMPTY)
        return b;
    if (b == RX_EMPTY)
        return a;
    return node(g, (struct rx_node){.kind = K_CAT, .a = a, .b = b}, NULL);
}

uint32_t rx_mk_not(struct gram *g, uint32_t a) {
    if (g->rx.node[a].kind == K_NOT)
        return g->rx.node[a].a;
    return node(g, (struct rx_node){.kind = K_NOT, .a = a}, NULL);
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
    return node(g, (struct rx_node){.kind = K_REP, .a = a, .b = min, .c = max}, NULL);
}

uint32_t rx_mk_multiple(struct gram *g, uint32_t step, uint32_t rest, uint32_t place) {
    return node(g, (struct rx_node){.kind = K_MULTIPLE, .a = step, .b = rest, .c = place}, NULL);
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
                          : node(g, (struct rx_node){.kind = K_ALT, .b = n}, &p->tmp[base]);
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
                          : node(g, (struct rx_node){.kind = K_AND, .b = n}, &p->tmp[base]);
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
        r = node(g, (struct rx_node){.kind = K_SWITCH, .b = n, .c = nullable}, &p->tmp[base]);
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

/* ---- the pool ---------------------------------------------------------------------------------- */

void rx_rehash(struct gram *g) {
    struct rx_pool *p = &g->rx;
    itab_clear(&p->nodes, &g->bytes);
    itab_clear(&p->sets, &g->bytes);
    for (uint32_t i = 0; i < p->n_sets; i++)
        itab_add(&p->sets, hash_set(&p->set[i]), i, &g->bytes);
    for (uint32_t i = 0; i < p->n; i++) {
        const struct rx_node *x = &p->node[i];
        itab_add(&p->nodes, hash_node(x, has_list((enum rx_kind)x->kind) ? &p->list[x->a] : NULL), i,
                 &g->bytes);
    }
}

void rx_pool_init(struct gram *g) {
    struct rx_pool *p = &g->rx;
    CHECK(pthread_once(&secret_once, make_secret) == 0);
    CHECK(node(g, (struct rx_node){.kind = K_NONE}, NULL) == RX_NONE);
    CHECK(node(g, (struct rx_node){.kind = K_EMPTY}, NULL) == RX_EMPTY);
    /* RX_ANY repeats what is built after it: its node is filled in at the end. Base nodes stay for ever, so
     * that the order of ids does not matter to gc. */
    CHECK(node(g, (struct rx_node){.kind = K_REP, .b = 1, .c = 1}, NULL) == RX_ANY);
    CHECK(node(g, (struct rx_node){.kind = K_NOT, .a = RX_NONE}, NULL) == RX_ALL);
    p->any_char = rx_class(g, NULL, 0, true);
    struct rx_node any = {.kind = K_REP, .a = p->any_char, .b = 0, .c = RX_INF};
    describe(p, &any, NULL);
    give_name(p, &any, NULL);
    p->node[RX_ANY] = any;
    rx_rehash(g);
}

void rx_pool_fini(struct gram *g) {
    struct rx_pool *p = &g->rx;
    free(p->node);
    free(p->set);
    free(p->list);
    free(p->tmp);
    free(p->mark);
    free(p->memo);
    itab_fini(&p->nodes, &g->bytes);
    itab_fini(&p->sets, &g->bytes);
}
