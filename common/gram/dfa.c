#include "common/gram/engine.h"

/* States of terminals, made when first reached. A state that no string can complete is STATE_DEAD. */

static uint32_t add_state(struct gram *g, uint32_t rx) {
    struct dfa *d = &g->dfa;
    uint32_t q = d->n, width = g->rx.n_classes;
    d->state = table_grow(d->state, &d->cap, (size_t)q + 1, sizeof *d->state, &g->bytes);
    d->next = table_grow(d->next, &d->cap_next, (size_t)(q + 1) * width, sizeof *d->next, &g->bytes);
    struct rx_set first = {{0}};
    rx_first(g, rx, &first);
    for (uint32_t c = 0; c < width; c++)
        d->next[(size_t)q * width + c] = set_has(&first, g->rx.class_byte[c]) ? STATE_UNKNOWN : STATE_DEAD;
    d->state[q] = (struct dfa_state){.rx = rx, .accept = rx_nullable(g, rx)};
    d->n++;
    return q;
}

void dfa_init(struct gram *g) {
    add_state(g, RX_NONE); /* STATE_UNKNOWN */
    uint32_t dead = add_state(g, RX_NONE);
    CHECK(dead == STATE_DEAD);
    for (uint32_t c = 0; c < g->rx.n_classes; c++)
        g->dfa.next[(size_t)dead * g->rx.n_classes + c] = STATE_DEAD;
}

void dfa_fini(struct gram *g) {
    struct dfa *d = &g->dfa;
    g->bytes -= d->cap * sizeof *d->state + (d->cap_next + (size_t)d->cap_of_rx) * sizeof(uint32_t);
    free(d->state);
    free(d->next);
    free(d->of_rx);
    *d = (struct dfa){0};
}

uint32_t dfa_of(struct gram *g, uint32_t rx) {
    struct dfa *d = &g->dfa;
    if (g->fail)
        return STATE_UNKNOWN;
    if (rx >= d->cap_of_rx) {
        uint32_t old = d->cap_of_rx;
        if (!gram_room(g, table_more(old, g->rx.n, sizeof *d->of_rx)))
            return STATE_UNKNOWN;
        d->of_rx = table_grow(d->of_rx, &d->cap_of_rx, g->rx.n, sizeof *d->of_rx, &g->bytes);
        memset(d->of_rx + old, 0, (d->cap_of_rx - old) * sizeof *d->of_rx);
    }
    if (d->of_rx[rx])
        return d->of_rx[rx];
    bool live = rx_is_live(g, rx);
    size_t n = (size_t)d->n + 1;
    if (g->fail || !gram_room(g, table_more(d->cap, n, sizeof *d->state) +
                                     table_more(d->cap_next, n * g->rx.n_classes, sizeof *d->next)))
        return STATE_UNKNOWN;
    return d->of_rx[rx] = live ? add_state(g, rx) : STATE_DEAD;
}

uint32_t dfa_step_slow(struct gram *g, uint32_t q, uint32_t cls) {
    uint32_t rx = rx_derive(g, g->dfa.state[q].rx, g->rx.class_byte[cls]);
    uint32_t to = dfa_of(g, rx);
    if (to)
        g->dfa.next[(size_t)q * g->rx.n_classes + cls] = to;
    return to;
}
