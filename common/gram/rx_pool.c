#include "common/gram/engine.h"

/* The pool of nodes: hash-consed, each with its flags, its depth and a name that does not depend on ids. */

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

uint32_t rx_node_id(struct gram *g, struct rx_node x, const uint32_t *list) {
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
    CHECK(rx_node_id(g, (struct rx_node){.kind = K_NONE}, NULL) == RX_NONE);
    CHECK(rx_node_id(g, (struct rx_node){.kind = K_EMPTY}, NULL) == RX_EMPTY);
    /* RX_ANY repeats what is built after it: its node is filled in at the end. Base nodes stay for ever, so
     * that the order of ids does not matter to gc. */
    CHECK(rx_node_id(g, (struct rx_node){.kind = K_REP, .b = 1, .c = 1}, NULL) == RX_ANY);
    CHECK(rx_node_id(g, (struct rx_node){.kind = K_NOT, .a = RX_NONE}, NULL) == RX_ALL);
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
