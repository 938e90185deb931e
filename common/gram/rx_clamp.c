#include "common/gram/engine.h"

/* Counts that a token cannot reach. Within n bytes a repeat takes at most n copies that are not empty; so a
 * bound above n is never met, and a minimum above n never reached. Without complement or intersection around
 * it, a prefix stays alive just as before. Recursion goes as deep as node.depth says. */

uint32_t rx_count_max(const struct gram *g, uint32_t rx) {
    uint32_t max = 0;
    for (;;) {
        const struct rx_node *x = &g->rx.node[rx];
        if (!(x->flags & RX_COUNTS))
            return max;
        switch ((enum rx_kind)x->kind) {
        case K_CAT:
            max = MAX(max, rx_count_max(g, x->a));
            rx = x->b;
            break;
        case K_REP:
            max = MAX(max, x->c == RX_INF ? x->b : x->c);
            rx = x->a;
            break;
        case K_ALT:
            for (uint32_t i = 0; i < x->b; i++)
                max = MAX(max, rx_count_max(g, g->rx.list[x->a + i]));
            return max;
        default:
            return max;
        }
    }
}

uint32_t rx_clamp(struct gram *g, uint32_t rx, uint32_t n) {
    uint32_t base = g->rx.n_tmp;
    struct rx_node x = g->rx.node[rx];
    if (!(x.flags & RX_COUNTS))
        return rx;
    if (x.kind == K_REP) {
        uint32_t a = rx_clamp(g, x.a, n);
        return rx_mk_rep(g, a, MIN(x.b, n + 1), x.c > n ? RX_INF : x.c);
    }
    if (x.kind == K_ALT) {
        for (uint32_t i = 0; i < x.b; i++)
            rx_push(g, rx_clamp(g, g->rx.list[x.a + i], n));
        return rx_mk_alt(g, base);
    }
    if (x.kind != K_CAT)
        return rx;
    for (; g->rx.node[rx].kind == K_CAT; rx = g->rx.node[rx].b) /* the right spine may be long */
        rx_push(g, rx_clamp(g, g->rx.node[rx].a, n));
    rx = rx_clamp(g, rx, n);
    while (g->rx.n_tmp > base)
        rx = rx_mk_cat(g, g->rx.tmp[--g->rx.n_tmp], rx);
    return rx;
}
