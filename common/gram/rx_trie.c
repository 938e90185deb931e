#include "common/gram/engine.h"

/* Tries: choices of strings as expressions, built from their ends so that equal tails are shared. */

/* open_trie: pushes the branches of a trie's node; tells whether the empty string is of it. */
static bool open_trie(struct gram *g, uint32_t trie) {
    struct rx_node x = g->rx.node[trie];
    switch ((enum rx_kind)x.kind) {
    case K_EMPTY:
        return true;
    case K_SET:
        rx_push(g, x.a);
        rx_push(g, RX_EMPTY);
        return false;
    case K_CAT:
        rx_push(g, g->rx.node[x.a].a);
        rx_push(g, x.b);
        return false;
    case K_SWITCH:
        for (uint32_t i = 0; i < 2 * x.b; i++)
            rx_push(g, g->rx.list[x.a + i]);
        return x.c;
    default:
        return false;
    }
}

/* child: takes `byte` out of the branches tmp[base ..) and returns what it led to. */
static uint32_t take_branch(struct gram *g, uint32_t base, unsigned byte) {
    struct rx_pool *p = &g->rx;
    for (uint32_t i = base; i < p->n_tmp; i += 2) {
        struct rx_set s = p->set[p->tmp[i]];
        if (!set_has(&s, byte))
            continue;
        uint32_t to = p->tmp[i + 1];
        s.w[byte >> 6] &= ~(1ull << (byte & 63));
        if (s.w[0] | s.w[1] | s.w[2] | s.w[3]) {
            p->tmp[i] = rx_set_id(g, &s);
        } else {
            p->tmp[i] = p->tmp[p->n_tmp - 2];
            p->tmp[i + 1] = p->tmp[p->n_tmp - 1];
            p->n_tmp -= 2;
        }
        return to;
    }
    return RX_NONE;
}

uint32_t rx_trie_add(struct gram *g, uint32_t trie, const char *s, size_t n) {
    /* Down along s, remembering the nodes; then up again, a new node for each. */
    uint32_t path = g->rx.n_tmp, at = trie;
    for (size_t i = 0; i < n && gram_spend(g, 4); i++) {
        rx_push(g, at);
        uint32_t base = g->rx.n_tmp;
        open_trie(g, at);
        at = take_branch(g, base, (uint8_t)s[i]);
        g->rx.n_tmp = base;
    }
    if (g->fail) {
        g->rx.n_tmp = path;
        return trie;
    }
    uint32_t base = g->rx.n_tmp;
    open_trie(g, at);
    at = rx_mk_switch(g, base, true);
    for (size_t i = n; i > 0; i--) {
        uint32_t up = g->rx.tmp[path + i - 1];
        struct rx_set one = {{0}};
        set_put(&one, (uint8_t)s[i - 1]);
        base = g->rx.n_tmp;
        bool nullable = open_trie(g, up);
        take_branch(g, base, (uint8_t)s[i - 1]);
        rx_push(g, rx_set_id(g, &one));
        rx_push(g, at);
        at = rx_mk_switch(g, base, nullable);
    }
    g->rx.n_tmp = path;
    return at;
}

static int cmp_str(const void *a, const void *b) {
    struct str x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    size_t n = MIN(x.n, y.n);
    int c = n ? memcmp(x.p, y.p, n) : 0;
    return c ? c : (x.n > y.n) - (x.n < y.n);
}

/* A node of the path to the string added last: its branches so far but for the last byte's. */
struct level {
    uint32_t *pair; /* (set, id) */
    uint32_t n, cap;
    uint32_t gap[RX_GAPS]; /* what follows a gap here; RX_NONE: there is none */
    uint8_t byte;          /* of the open branch */
    bool nullable;
};

/* take_level: the expression of a level that is complete; it is empty afterwards. */
static uint32_t take_level(struct gram *g, struct level *l, const uint32_t *gaps) {
    uint32_t base = g->rx.n_tmp;
    for (uint32_t i = 0; i < l->n; i++)
        rx_push(g, l->pair[i]);
    uint32_t rx = rx_mk_switch(g, base, l->nullable);
    for (uint32_t i = 0; i < RX_GAPS; i++) {
        if (l->gap[i] != RX_NONE)
            rx = rx_alt(g, rx, rx_mk_cat(g, gaps[i], l->gap[i]));
        l->gap[i] = RX_NONE;
    }
    l->n = 0;
    l->nullable = false;
    return rx;
}

/* close_level: level d + 1 is complete: it becomes the target of level d's open branch. */
static void close_level(struct gram *g, struct level *l, const uint32_t *gaps, size_t *n_bytes) {
    uint32_t id = take_level(g, &l[1], gaps);
    if (gaps && l->byte < RX_GAPS) {
        l->gap[l->byte] = id;
        return;
    }
    struct rx_set one = {{0}};
    set_put(&one, l->byte);
    l->pair = table_grow(l->pair, &l->cap, l->n + 2, sizeof *l->pair, n_bytes);
    l->pair[l->n++] = rx_set_id(g, &one);
    l->pair[l->n++] = id;
}

uint32_t rx_choice_gaps(struct gram *g, const struct str *s, size_t n, const uint32_t *gaps) {
    size_t longest = 0, scratch = 0, depth = 0;
    for (size_t i = 0; i < n; i++) {
        longest = MAX(longest, s[i].n);
        if (!gram_spend(g, 8 + (int64_t)s[i].n))
            break;
    }
    if (n > g->limit.n_rx || longest > g->limit.n_rx)
        gram_set_over(g, "too many or too long strings to choose from");
    if (gram_over(g) || n == 0)
        return RX_NONE;
    struct str *v = xreallocarray(NULL, n, sizeof *v);
    struct level *l = xcalloc(longest + 1, sizeof *l);
    memcpy(v, s, n * sizeof *v);
    qsort(v, n, sizeof *v, cmp_str);
    for (size_t i = 0; i < n; i++) {
        size_t common = 0;
        while (common < depth && common < v[i].n && l[common].byte == (uint8_t)v[i].p[common])
            common++;
        while (depth > common)
            close_level(g, &l[--depth], gaps, &scratch);
        for (; depth < v[i].n; depth++)
            l[depth].byte = (uint8_t)v[i].p[depth];
        l[depth].nullable = true;
    }
    while (depth > 0)
        close_level(g, &l[--depth], gaps, &scratch);
    uint32_t r = take_level(g, &l[0], gaps);
    for (size_t i = 0; i <= longest; i++)
        free(l[i].pair);
    free(l);
    free(v);
    return r;
}

uint32_t rx_choice(struct gram *g, const struct str *s, size_t n) {
    return rx_choice_gaps(g, s, n, NULL);
}
