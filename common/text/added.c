#include "common/text/added.h"

#include <stdlib.h>

enum { BLOCK_MIN = 32768 };

static inline uint32_t edge_hash(uint32_t from, uint8_t byte) {
    return (uint32_t)((((uint64_t)from << 8 | byte) * 0x9E3779B97F4A7C15u) >> 32);
}

static uint32_t edge_get(const struct added *a, uint32_t from, uint8_t byte) {
    if (from == 0)
        return a->root[byte];
    uint32_t i = edge_hash(from, byte) & a->edges_mask;
    for (; a->edges[i].from != ADDED_NONE; i = (i + 1) & a->edges_mask)
        if (a->edges[i].from == from && a->edges[i].byte == byte)
            return a->edges[i].to;
    return 0;
}

static void edge_put(struct added_edge *edges, uint32_t mask, struct added_edge e) {
    uint32_t i = edge_hash(e.from, e.byte) & mask;
    while (edges[i].from != ADDED_NONE)
        i = (i + 1) & mask;
    edges[i] = e;
}

/* edges_grow: keeps the table at most half full. */
static void edges_grow(struct added *a) {
    uint32_t n_old = a->edges ? a->edges_mask + 1 : 0, n_new = n_old ? n_old * 2 : 64;
    struct added_edge *edges = xreallocarray(NULL, n_new, sizeof *edges);
    for (uint32_t i = 0; i < n_new; i++)
        edges[i].from = ADDED_NONE;
    for (uint32_t i = 0; i < n_old; i++)
        if (a->edges[i].from != ADDED_NONE)
            edge_put(edges, n_new - 1, a->edges[i]);
    free(a->edges);
    a->edges = edges;
    a->edges_mask = n_new - 1;
}

/* node_add: a new node behind from by byte, which has none yet. The number of edges in the table is
 * below that of nodes. */
static uint32_t node_add(struct added *a, uint32_t from, uint8_t byte) {
    uint32_t to = a->n_nodes++;
    if ((to & (to - 1)) == 0) /* full at each power of two */
        a->nodes = xreallocarray(a->nodes, (size_t)to * 2, sizeof *a->nodes);
    a->nodes[to] = (struct added_node){0, ADDED_NONE, 0};
    if (from == 0) {
        a->root[byte] = to;
        return to;
    }
    if (a->n_nodes > (a->edges_mask + 1) / 2)
        edges_grow(a);
    edge_put(a->edges, a->edges_mask, (struct added_edge){from, to, byte});
    return to;
}

/* step: the state after one more byte to the left. */
static inline uint32_t step(const struct added *a, uint32_t node, uint8_t byte) {
    for (;;) {
        uint32_t to = edge_get(a, node, byte);
        if (to || node == 0)
            return to;
        node = a->nodes[node].fail;
    }
}

/* link_nodes: failure links level by level. Nodes of one token are numbered in a row, but a level
 * spans tokens: so depth by depth, walking each token's path as far as its cursor has come. */
static void link_nodes(struct added *a) {
    uint32_t *cursor = xcalloc(a->n_tokens, sizeof *cursor);
    bool *linked = xcalloc(a->n_nodes, sizeof *linked);
    uint32_t *alive = xreallocarray(NULL, a->n_tokens, sizeof *alive), n_alive = a->n_tokens;
    for (uint32_t i = 0; i < n_alive; i++)
        alive[i] = i;
    for (size_t depth = 0; n_alive > 0; depth++) {
        uint32_t keep = 0;
        for (uint32_t k = 0; k < n_alive; k++) {
            uint32_t t = alive[k];
            struct str s = a->tokens[t].content;
            uint8_t byte = (uint8_t)s.p[s.n - 1 - depth];
            uint32_t from = cursor[t], to = edge_get(a, from, byte);
            struct added_node *node = &a->nodes[to];
            if (!linked[to]) {
                linked[to] = true;
                node->fail = from == 0 ? 0 : step(a, a->nodes[from].fail, byte);
                const struct added_node *fail = &a->nodes[node->fail];
                node->link = fail->token != ADDED_NONE ? node->fail : fail->link;
            }
            cursor[t] = to;
            if (depth + 1 < s.n)
                alive[keep++] = t;
        }
        n_alive = keep;
    }
    free(cursor);
    free(linked);
    free(alive);
}

void added_init(struct added *a, struct added_token *tokens, uint32_t n_tokens) {
    *a = (struct added){.tokens = tokens, .n_tokens = n_tokens};
    if (n_tokens == 0)
        return;
    edges_grow(a);
    a->nodes = xmalloc(sizeof *a->nodes);
    a->nodes[a->n_nodes++] = (struct added_node){0, ADDED_NONE, 0};
    for (uint32_t t = 0; t < n_tokens; t++) {
        struct str s = tokens[t].content;
        uint32_t node = 0;
        a->token_n_max = MAX(a->token_n_max, s.n);
        for (size_t i = s.n; i-- > 0;) {
            uint32_t to = edge_get(a, node, (uint8_t)s.p[i]);
            node = to ? to : node_add(a, node, (uint8_t)s.p[i]);
        }
        CHECK(node != 0 && a->nodes[node].token == ADDED_NONE);
        a->nodes[node].token = t;
    }
    link_nodes(a);
}

void added_fini(struct added *a) {
    free(a->tokens);
    free(a->nodes);
    free(a->edges);
    *a = (struct added){0};
}

void added_scan_init(struct added_scan *s, const struct added *a, const char *p, size_t n,
                     const struct tok_mark *marks, size_t n_marks) {
    *s = (struct added_scan){.a = a, .p = p, .n = n, .marks = marks, .n_marks = n_marks};
}

void added_scan_fini(struct added_scan *s) {
    free(s->hits);
}

/* fill: runs the automaton over the next block, starting a token's length behind its end. */
static void fill(struct added_scan *s) {
    const struct added *a = s->a;
    size_t begin = s->block_end, size = MAX((size_t)BLOCK_MIN, 4 * a->token_n_max);
    size_t end = s->n - begin < size ? s->n : begin + size;
    size_t from = s->n - end < a->token_n_max ? s->n : end + a->token_n_max;
    const uint8_t *p = (const uint8_t *)s->p;
    uint32_t node = 0;
    for (size_t i = from; i > begin;) {
        i--;
        if (node == 0 && !a->root[p[i]])
            continue;
        node = step(a, node, p[i]);
        if (i >= end || (a->nodes[node].token == ADDED_NONE && !a->nodes[node].link))
            continue;
        if (s->n_hits == s->cap) {
            s->cap = MAX(s->cap * 2, (size_t)64);
            s->hits = xreallocarray(s->hits, s->cap, sizeof *s->hits);
        }
        s->hits[s->n_hits++] = (struct added_hit){i, node};
    }
    s->block_end = end;
}

/* allowed: whether a token may match at [begin, end). Hits come from left to right, so marks that end
 * before begin are done with. */
static bool allowed(struct added_scan *s, const struct added_token *t, size_t begin, size_t end) {
    if (!t->special)
        return true;
    while (s->n_marks && s->marks->end <= begin) {
        s->marks++;
        s->n_marks--;
    }
    return !s->n_marks || s->marks->begin >= end;
}

bool added_next(struct added_scan *s, struct added_match *m) {
    const struct added *a = s->a;
    if (!a->n_tokens)
        return false;
    for (;;) {
        while (s->n_hits) {
            struct added_hit hit = s->hits[--s->n_hits];
            if (hit.at < s->resume)
                continue;
            uint32_t node = a->nodes[hit.node].token != ADDED_NONE ? hit.node : a->nodes[hit.node].link;
            for (; node; node = a->nodes[node].link) {
                const struct added_token *t = &a->tokens[a->nodes[node].token];
                size_t end = hit.at + t->content.n;
                if (!allowed(s, t, hit.at, end))
                    continue;
                *m = (struct added_match){t, hit.at, end};
                s->resume = end;
                return true;
            }
        }
        if (s->block_end == s->n)
            return false;
        fill(s);
    }
}
