/* regex_piece.c: concatenation, alternatives and repeats of pieces with anchors. */
#include "common/gram/regex_parts.h"

#include <stdlib.h>

static const struct rx_piece piece_none = {{RX_NONE, RX_NONE, RX_NONE, RX_NONE}, {false}, 0};

static uint32_t states_add(uint32_t a, uint32_t b) {
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

struct rx_piece rx_piece_of(uint32_t rx, bool empty, uint32_t n_states) {
    struct rx_piece p = piece_none;
    p.rx[0] = rx;
    p.empty[0] = empty;
    p.n_states = n_states;
    return p;
}

struct rx_piece rx_piece_anchor(unsigned demand) {
    struct rx_piece p = piece_none;
    p.rx[demand] = RX_EMPTY;
    p.empty[demand] = true;
    return p;
}

bool rx_piece_has_anchor(const struct rx_piece *a) {
    return a->rx[1] != RX_NONE || a->rx[2] != RX_NONE || a->rx[3] != RX_NONE;
}

static void piece_join(struct gram *g, struct rx_piece *p, unsigned demand, uint32_t rx, bool empty) {
    p->rx[demand] = p->rx[demand] == RX_NONE ? rx : rx_alt(g, p->rx[demand], rx);
    p->empty[demand] |= empty;
}

struct rx_piece rx_piece_cat(struct gram *g, const struct rx_piece *a, const struct rx_piece *b) {
    struct rx_piece out = piece_none;
    out.n_states = states_add(a->n_states, b->n_states);
    for (unsigned i = 0; i < N_DEMANDS; i++) {
        for (unsigned k = 0; k < N_DEMANDS; k++) {
            uint32_t left = a->rx[i], right = b->rx[k];
            if (left == RX_NONE || right == RX_NONE)
                continue;
            /* Nothing behind the left side: the right side is empty. The same the other way round. */
            if (i & AT_END) {
                if (!b->empty[k])
                    continue;
                right = RX_EMPTY;
            }
            if (k & AT_START) {
                if (!a->empty[i])
                    continue;
                left = RX_EMPTY;
            }
            piece_join(g, &out, i | k, rx_cat(g, left, right), a->empty[i] && b->empty[k]);
        }
    }
    return out;
}

struct rx_piece rx_piece_alt(struct gram *g, const struct rx_piece *a, size_t n) {
    struct rx_piece out = piece_none;
    uint32_t *ids = xreallocarray(NULL, n + 1, sizeof *ids);
    for (unsigned k = 0; k < N_DEMANDS; k++) {
        size_t n_ids = 0;
        for (size_t i = 0; i < n; i++) {
            if (a[i].rx[k] != RX_NONE)
                ids[n_ids++] = a[i].rx[k];
            out.empty[k] |= a[i].empty[k];
        }
        if (n_ids)
            out.rx[k] = n_ids == 1 ? ids[0] : rx_alt_n(g, ids, n_ids);
    }
    for (size_t i = 0; i < n; i++)
        out.n_states = states_add(out.n_states, a[i].n_states);
    free(ids);
    return out;
}

/* piece_star: any number of times. Of the rounds, only the first that is not empty can stand at the start and
 * only the last at the end; rounds that are empty but demand something add nothing to those that do not. */
static struct rx_piece piece_star(struct gram *g, const struct rx_piece *a) {
    struct rx_piece out = piece_none;
    uint32_t plain = rx_repeat(g, a->rx[0], 0, RX_INF);
    out.n_states = a->n_states;
    piece_join(g, &out, 0, plain, true);
    if (a->rx[AT_START] != RX_NONE)
        piece_join(g, &out, AT_START, rx_cat(g, a->rx[AT_START], plain), a->empty[AT_START]);
    if (a->rx[AT_END] != RX_NONE)
        piece_join(g, &out, AT_END, rx_cat(g, plain, a->rx[AT_END]), a->empty[AT_END]);
    unsigned both = AT_START | AT_END;
    if (a->rx[both] != RX_NONE)
        piece_join(g, &out, both, a->rx[both], a->empty[both]);
    if (a->rx[AT_START] != RX_NONE && a->rx[AT_END] != RX_NONE)
        piece_join(g, &out, both, rx_cat(g, a->rx[AT_START], rx_cat(g, plain, a->rx[AT_END])),
                   a->empty[AT_START] && a->empty[AT_END]);
    return out;
}

struct rx_piece rx_piece_repeat(struct gram *g, const struct rx_piece *a, uint32_t min, uint32_t max) {
    if (!rx_piece_has_anchor(a)) {
        uint64_t times = max == RX_INF ? MAX(min, 1) : max;
        uint64_t n = (uint64_t)a->n_states * times;
        return rx_piece_of(rx_repeat(g, a->rx[0], min, max), min == 0 || a->empty[0],
                           n > UINT32_MAX ? UINT32_MAX : (uint32_t)n);
    }
    CHECK(min <= 1 && (max == 1 || max == RX_INF));
    if (max == RX_INF) {
        struct rx_piece star = piece_star(g, a);
        return min ? rx_piece_cat(g, a, &star) : star;
    }
    struct rx_piece either[2] = {rx_piece_of(RX_EMPTY, true, 0), *a};
    return min ? *a : rx_piece_alt(g, either, 2);
}

uint32_t rx_piece_whole(struct gram *g, const struct rx_piece *a) {
    return rx_piece_has_anchor(a) ? rx_alt_n(g, a->rx, N_DEMANDS) : a->rx[0];
}

uint32_t rx_piece_search(struct gram *g, const struct rx_piece *a, uint32_t any) {
    uint32_t rest = rx_repeat(g, any, 0, RX_INF), out[N_DEMANDS];
    for (unsigned k = 0; k < N_DEMANDS; k++) {
        out[k] = a->rx[k];
        if (out[k] == RX_NONE)
            continue;
        if (!(k & AT_END))
            out[k] = rx_cat(g, out[k], rest);
        if (!(k & AT_START))
            out[k] = rx_cat(g, rest, out[k]);
    }
    return rx_alt_n(g, out, N_DEMANDS);
}
