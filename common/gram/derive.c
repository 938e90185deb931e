#include "common/gram/engine.h"

/* Derivatives: what may follow a byte. Recursion goes as deep as node.depth says, at most RX_DEPTH_MAX. */

static uint32_t derive(struct gram *g, uint32_t rx, unsigned byte);

static uint32_t derive_switch(const struct gram *g, const struct rx_node *x, unsigned byte) {
    const struct rx_pool *p = &g->rx;
    for (uint32_t i = 0; i < x->b; i++)
        if (set_has(&p->set[p->list[x->a + 2 * i]], byte))
            return p->list[x->a + 2 * i + 1];
    return RX_NONE;
}

/* derive_cat: along the right spine as far as the left sides may be empty. */
static uint32_t derive_cat(struct gram *g, uint32_t rx, unsigned byte) {
    uint32_t base = g->rx.n_tmp;
    for (;;) {
        struct rx_node x = g->rx.node[rx];
        if (x.kind != K_CAT || !gram_spend(g, 2)) {
            rx_push(g, derive(g, rx, byte));
            break;
        }
        rx_push(g, rx_mk_cat(g, derive(g, x.a, byte), x.b));
        if (!rx_nullable(g, x.a))
            break;
        rx = x.b;
    }
    return rx_mk_alt(g, base);
}

static uint32_t derive_list(struct gram *g, const struct rx_node *x, unsigned byte) {
    uint32_t base = g->rx.n_tmp;
    for (uint32_t i = 0; i < x->b; i++) {
        uint32_t d = derive(g, g->rx.list[x->a + i], byte);
        if (d == RX_NONE && x->kind == K_AND) {
            g->rx.n_tmp = base;
            return RX_NONE;
        }
        rx_push(g, d);
    }
    return x->kind == K_AND ? rx_mk_and(g, base) : rx_mk_alt(g, base);
}

static uint32_t derive(struct gram *g, uint32_t rx, unsigned byte) {
    struct rx_node x = g->rx.node[rx];
    switch ((enum rx_kind)x.kind) {
    case K_NONE:
    case K_EMPTY:
        return RX_NONE;
    case K_SET:
        return set_has(&g->rx.set[x.a], byte) ? RX_EMPTY : RX_NONE;
    case K_SWITCH:
        return derive_switch(g, &x, byte);
    case K_MULTIPLE:
        return rx_multiple_derive(g, &x, byte);
    default:
        break;
    }
    if (!gram_spend(g, 3))
        return RX_NONE;
    if (!g->rx.memo) {
        g->rx.memo = xcalloc(RX_MEMO, sizeof *g->rx.memo);
        g->bytes += RX_MEMO * sizeof *g->rx.memo;
    }
    size_t slot = mix(rx, byte) % RX_MEMO;
    const struct rx_memo *m = &g->rx.memo[slot];
    if (m->rx == rx && m->byte == byte)
        return m->to;
    uint32_t to;
    if (x.kind == K_CAT) {
        to = derive_cat(g, rx, byte);
    } else if (x.kind == K_NOT) {
        to = rx_mk_not(g, derive(g, x.a, byte));
    } else if (x.kind == K_REP) {
        /* Of a nullable a: b is 0, and the copies that are not empty may as well come first. */
        uint32_t d = derive(g, x.a, byte);
        to = d == RX_NONE
                 ? d
                 : rx_mk_cat(g, d, rx_mk_rep(g, x.a, x.b ? x.b - 1 : 0, x.c == RX_INF ? x.c : x.c - 1));
    } else {
        to = derive_list(g, &x, byte);
    }
    if (!g->fail)
        g->rx.memo[slot] = (struct rx_memo){rx, byte, to};
    return to;
}

uint32_t rx_derive(struct gram *g, uint32_t rx, unsigned byte) {
    return derive(g, rx, byte);
}

void rx_first(const struct gram *g, uint32_t rx, struct rx_set *s) {
    const struct rx_pool *p = &g->rx;
    for (;;) {
        const struct rx_node *x = &p->node[rx];
        switch ((enum rx_kind)x->kind) {
        case K_NONE:
        case K_EMPTY:
            return;
        case K_SET:
            for (int w = 0; w < 4; w++)
                s->w[w] |= p->set[x->a].w[w];
            return;
        case K_CAT:
            rx_first(g, x->a, s);
            if (!rx_nullable(g, x->a))
                return;
            rx = x->b;
            break;
        case K_REP:
            rx = x->a;
            break;
        case K_ALT:
            for (uint32_t i = 0; i < x->b; i++)
                rx_first(g, p->list[x->a + i], s);
            return;
        case K_SWITCH:
            for (uint32_t i = 0; i < x->b; i++)
                for (int w = 0; w < 4; w++)
                    s->w[w] |= p->set[p->list[x->a + 2 * i]].w[w];
            return;
        case K_AND: { /* of the first member that is not a complement */
            uint32_t i = 0;
            while (i < x->b && p->node[p->list[x->a + i]].kind == K_NOT)
                i++;
            if (i < x->b) {
                rx = p->list[x->a + i];
                break;
            }
        } /* fall through */
        case K_NOT:
            memset(s, 0xFF, sizeof *s);
            return;
        case K_MULTIPLE:
            for (const char *c = "0123456789-."; *c; c++)
                set_put(s, (unsigned char)*c);
            return;
        }
    }
}

/* ---- classes of bytes -------------------------------------------------------------------------- */

/* split: refines the classes by a set. */
static uint32_t split(uint8_t class_of[256], uint32_t n, const struct rx_set *s) {
    uint32_t n_in[256] = {0}, n_all[256] = {0};
    int fresh[256];
    for (unsigned b = 0; b < 256; b++) {
        n_all[class_of[b]]++;
        n_in[class_of[b]] += set_has(s, b);
    }
    for (uint32_t c = 0, before = n; c < before; c++)
        fresh[c] = n_in[c] && n_in[c] < n_all[c] ? (int)n++ : -1;
    for (unsigned b = 0; b < 256; b++)
        if (set_has(s, b) && fresh[class_of[b]] >= 0)
            class_of[b] = (uint8_t)fresh[class_of[b]];
    return n;
}

/* split_number: every byte of a plain number by itself. */
static uint32_t split_number(uint8_t class_of[256], uint32_t n) {
    for (const char *c = "0123456789-."; *c && n < 256; c++) {
        struct rx_set one = {{0}};
        set_put(&one, (unsigned char)*c);
        n = split(class_of, n, &one);
    }
    return n;
}

/* visit: pushes rx if it has not been seen in this round. */
static void visit(struct gram *g, uint32_t rx) {
    if (rx_mark(g, rx))
        rx_push(g, rx);
}

uint32_t rx_classes(struct gram *g, const uint32_t *rx, size_t n, uint8_t class_of[256],
                    uint8_t class_byte[256]) {
    struct rx_pool *p = &g->rx;
    uint32_t base = p->n_tmp, n_classes = 1;
    uint8_t *seen = xcalloc(p->n_sets + 1, 1);
    memset(class_of, 0, 256);
    rx_visit(g);
    for (size_t i = 0; i < n; i++)
        visit(g, rx[i]);
    while (p->n_tmp > base && gram_spend(g, 1)) {
        struct rx_node x = p->node[p->tmp[--p->n_tmp]];
        uint32_t set = UINT32_MAX;
        switch ((enum rx_kind)x.kind) {
        case K_NONE:
        case K_EMPTY:
            break;
        case K_SET:
            set = x.a;
            break;
        case K_CAT:
            visit(g, x.b); /* fall through */
        case K_NOT:
        case K_REP:
            visit(g, x.a);
            break;
        case K_ALT:
        case K_AND:
            for (uint32_t i = 0; i < x.b; i++)
                visit(g, p->list[x.a + i]);
            break;
        case K_SWITCH:
            for (uint32_t i = 0; i < x.b; i++) {
                visit(g, p->list[x.a + 2 * i + 1]);
                set = p->list[x.a + 2 * i];
                if (!seen[set] && n_classes < 256)
                    n_classes = split(class_of, n_classes, &p->set[set]);
                seen[set] = 1;
            }
            set = UINT32_MAX;
            break;
        case K_MULTIPLE:
            n_classes = split_number(class_of, n_classes);
            break;
        }
        if (set != UINT32_MAX && !seen[set] && n_classes < 256) {
            n_classes = split(class_of, n_classes, &p->set[set]);
            seen[set] = 1;
        }
    }
    p->n_tmp = base;
    free(seen);
    for (unsigned b = 256; b-- > 0;)
        class_byte[class_of[b]] = (uint8_t)b;
    return n_classes;
}

/* ---- emptiness --------------------------------------------------------------------------------- */

struct search {
    uint32_t rx, cls; /* the class to try next */
};

static void set_flag(struct gram *g, uint32_t rx, unsigned flag) {
    g->rx.node[rx].flags |= (uint8_t)flag;
}

/* search_live: depth first through the derivatives of rx until one is known to match something. If all have
 * been seen and none does, all are dead. */
static bool search_live(struct gram *g, uint32_t rx, const uint8_t *class_byte, uint32_t n_classes) {
    struct search *s = NULL;
    uint32_t n = 0, cap = 0, base = g->rx.n_tmp;
    size_t scratch = 0;
    bool live = false;
    rx_visit(g);
    rx_mark(g, rx);
    rx_push(g, rx);
    s = table_grow(s, &cap, 1, sizeof *s, &scratch);
    s[n++] = (struct search){rx, 0};
    while (n && !live && gram_spend(g, 4) && gram_room(g, scratch)) {
        struct search *top = &s[n - 1];
        if (top->cls == n_classes) {
            n--;
            continue;
        }
        uint32_t to = rx_derive(g, top->rx, class_byte[top->cls++]);
        if (g->fail)
            break;
        unsigned flags = g->rx.node[to].flags;
        live = flags & RX_LIVE;
        if (live || (flags & RX_DEAD) || !rx_mark(g, to))
            continue;
        rx_push(g, to);
        s = table_grow(s, &cap, (size_t)n + 1, sizeof *s, &scratch);
        s[n++] = (struct search){to, 0};
    }
    if (live) {
        for (uint32_t i = 0; i < n; i++)
            set_flag(g, s[i].rx, RX_LIVE);
    } else if (n) {
        g->fail = true;
    } else {
        for (uint32_t i = base; i < g->rx.n_tmp; i++)
            set_flag(g, g->rx.tmp[i], RX_DEAD);
    }
    g->rx.n_tmp = base;
    free(s);
    return live;
}

bool rx_is_live(struct gram *g, uint32_t rx) {
    unsigned flags = g->rx.node[rx].flags;
    if (flags & (RX_LIVE | RX_DEAD))
        return flags & RX_LIVE;
    if (g->sealed)
        return search_live(g, rx, g->rx.class_byte, g->rx.n_classes);
    uint8_t class_of[256], class_byte[256];
    uint32_t n = rx_classes(g, &rx, 1, class_of, class_byte);
    return !g->fail && search_live(g, rx, class_byte, n);
}

enum rc rx_is_none(struct gram *g, uint32_t a, bool *none, struct err *e) {
    bool live = rx_is_live(g, a);
    if (gram_over(g))
        return err_set(e, RC_INVALID, NULL,
                       "it takes too long to find out whether an expression matches "
                       "anything");
    *none = !live;
    return RC_OK;
}
