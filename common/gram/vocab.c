#include "common/gram/lex.h"

#include <stdlib.h>

/* Building the trie: ids in the order of their bytes, then one pass. */

enum { DEPTH_MAX = 1 << 12 }; /* longer tokens are never allowed */

struct entry {
    const char *p;
    uint32_t n, id;
};

static int cmp_entry(const void *a, const void *b) {
    struct entry x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    int c = memcmp(x.p, y.p, MIN(x.n, y.n));
    if (c)
        return c;
    return x.n != y.n ? (x.n > y.n) - (x.n < y.n) : (x.id > y.id) - (x.id < y.id);
}

static size_t common_prefix(const struct entry *a, const struct entry *b) {
    size_t n = MIN(a->n, b->n), i = 0;
    while (i < n && a->p[i] == b->p[i])
        i++;
    return i;
}

/* close_nodes: the path shrinks to n nodes. */
static void close_nodes(struct gram_vocab *v, const uint32_t *open, size_t *depth, size_t n) {
    for (; *depth > n; --*depth) {
        struct vocab_node *x = &v->node[open[*depth]];
        x->end = v->n_nodes;
        x->reach = MAX(x->reach, (uint8_t)MIN(*depth, (size_t)255));
        if (*depth > 1)
            v->node[open[*depth - 1]].reach = MAX(v->node[open[*depth - 1]].reach, x->reach);
    }
}

static void build_trie(struct gram_vocab *v, const struct entry *e, uint32_t n) {
    size_t n_nodes = 0;
    for (uint32_t i = 0; i < n; i++)
        n_nodes += e[i].n - (i ? common_prefix(&e[i - 1], &e[i]) : 0);
    CHECK(n_nodes < UINT32_MAX);
    v->node = xreallocarray(NULL, n_nodes + 1, sizeof *v->node);
    uint32_t *open = xreallocarray(NULL, DEPTH_MAX + 1, sizeof *open); /* the path to the last entry */
    size_t depth = 0;
    for (uint32_t i = 0; i < n; i++) {
        size_t shared = i ? common_prefix(&e[i - 1], &e[i]) : 0;
        close_nodes(v, open, &depth, shared);
        for (; depth < e[i].n;) {
            open[depth + 1] = v->n_nodes;
            v->node[v->n_nodes] = (struct vocab_node){
                .token = NO_TOKEN, .byte = (uint8_t)e[i].p[depth], .depth = (uint16_t)(depth + 1)};
            v->n_nodes++;
            depth++;
        }
        v->depth_max = MAX(v->depth_max, e[i].n);
        struct vocab_node *last = &v->node[open[depth]];
        if (last->token == NO_TOKEN) {
            last->token = e[i].id;
        } else { /* ids rise: behind those of the same bytes */
            uint32_t t = last->token;
            while (v->same[t] != NO_TOKEN)
                t = v->same[t];
            v->same[t] = e[i].id;
        }
    }
    close_nodes(v, open, &depth, 0);
    free(open);
}

struct gram_vocab *gram_vocab_of(const struct str *tokens, uint32_t n_vocab, const uint32_t *eos,
                                 size_t n_eos) {
    struct gram_vocab *v = xcalloc(1, sizeof *v);
    v->cache = lex_cache_new();
    struct entry *e = xreallocarray(NULL, (size_t)n_vocab + 1, sizeof *e);
    size_t n_bytes = 0;
    uint32_t n = 0;
    v->n_vocab = n_vocab;
    v->offset = xreallocarray(NULL, (size_t)n_vocab + 1, sizeof *v->offset);
    v->same = xreallocarray(NULL, (size_t)n_vocab + 1, sizeof *v->same);
    v->is_eos = xcalloc((size_t)n_vocab + 1, 1);
    v->eos = xreallocarray(NULL, n_eos + 1, sizeof *v->eos);
    for (size_t i = 0; i < n_eos; i++)
        if (eos[i] < n_vocab && !v->is_eos[eos[i]]) {
            v->is_eos[eos[i]] = true;
            v->eos[v->n_eos++] = eos[i];
        }
    for (uint32_t i = 0; i < n_vocab; i++) {
        v->offset[i] = (uint32_t)n_bytes;
        v->same[i] = NO_TOKEN;
        n_bytes += v->is_eos[i] || tokens[i].n > DEPTH_MAX ? 0 : tokens[i].n;
        CHECK(n_bytes < UINT32_MAX);
    }
    v->offset[n_vocab] = (uint32_t)n_bytes;
    v->bytes = xmalloc(n_bytes + 1);
    for (uint32_t i = 0; i < n_vocab; i++) {
        struct str s = vocab_token(v, i);
        if (!s.n)
            continue;
        memcpy(v->bytes + v->offset[i], tokens[i].p, s.n);
        e[n++] = (struct entry){s.p, (uint32_t)s.n, i};
    }
    qsort(e, n, sizeof *e, cmp_entry);
    build_trie(v, e, n);
    free(e);
    return v;
}

struct gram_vocab *gram_vocab_new(const struct tok *t, uint32_t n_vocab, const uint32_t *eos, size_t n_eos) {
    struct str *s = xcalloc((size_t)n_vocab + 1, sizeof *s);
    uint32_t known = MIN(n_vocab, tok_vocab_size(t));
    for (uint32_t i = 0; i < known; i++)
        if (!tok_is_special(t, i))
            s[i] = tok_bytes(t, i);
    struct gram_vocab *v = gram_vocab_of(s, n_vocab, eos, n_eos);
    free(s);
    return v;
}

void gram_vocab_free(struct gram_vocab *v) {
    if (!v)
        return;
    lex_cache_free(v->cache);
    free(v->node);
    free(v->same);
    free(v->offset);
    free(v->bytes);
    free(v->eos);
    free(v->is_eos);
    free(v);
}
