#include "common/gram/lex.h"

#include <stdlib.h>

/* ---- what all grammars of a vocabulary share ----------------------------------------------------- */

enum { CACHE_BYTES = 48 << 20 };
/* Most tokens are no longer than this, and few are as short as that: see count_clamp. */
enum { CLAMP_MAX = 20, CLAMP_MIN = 4 };

struct lex_cache {
    pthread_mutex_t lock;
    struct lex **entry;
    struct itab tab;
    uint32_t n, cap;
    size_t bytes; /* of the entries and the table */
};

struct lex_cache *lex_cache_new(void) {
    struct lex_cache *c = xcalloc(1, sizeof *c);
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
    return c;
}

struct lex *lex_hold(struct lex *x) {
    atomic_fetch_add_explicit(&x->n_holds, 1, memory_order_relaxed);
    return x;
}

void lex_drop(struct lex *x) {
    if (atomic_fetch_sub_explicit(&x->n_holds, 1, memory_order_acq_rel) != 1)
        return;
    free(x->in);
    free(x->ends);
    free(x);
}

void lex_cache_free(struct lex_cache *c) {
    for (uint32_t i = 0; i < c->n; i++)
        lex_drop(c->entry[i]);
    itab_fini(&c->tab, &c->bytes);
    free(c->entry);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

size_t lex_bytes(const struct gram_vocab *v, const struct lex *x) {
    size_t n_in = x->dense ? gram_mask_words(v->n_vocab) : x->n_in;
    return sizeof *x + (n_in + x->n_ends) * sizeof(uint32_t);
}

static struct lex *cache_find(struct lex_cache *c, const uint64_t name[2]) {
    struct lex *found = NULL;
    uint32_t at = UINT32_MAX, id;
    pthread_mutex_lock(&c->lock);
    while (!found && (id = itab_find(&c->tab, (uint32_t)name[0], &at)) != UINT32_MAX)
        if (memcmp(c->entry[id]->name, name, sizeof c->entry[id]->name) == 0)
            found = lex_hold(c->entry[id]);
    if (found)
        found->used = true;
    pthread_mutex_unlock(&c->lock);
    return found;
}

/* cache_sweep: drops what was not used since the last sweep. */
static void cache_sweep(struct lex_cache *c, const struct gram_vocab *v) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        struct lex *x = c->entry[i];
        if (x->used) {
            x->used = false;
            c->entry[n++] = x;
        } else {
            c->bytes -= lex_bytes(v, x);
            lex_drop(x);
        }
    }
    c->n = n;
    itab_clear(&c->tab, &c->bytes);
    for (uint32_t i = 0; i < n; i++)
        itab_add(&c->tab, (uint32_t)c->entry[i]->name[0], i, &c->bytes);
}

static void cache_add(struct lex_cache *c, const struct gram_vocab *v, struct lex *x) {
    pthread_mutex_lock(&c->lock);
    if (c->bytes > CACHE_BYTES)
        cache_sweep(c, v);
    c->entry = table_grow(c->entry, &c->cap, (size_t)c->n + 1, sizeof *c->entry, &c->bytes);
    c->entry[c->n] = lex_hold(x);
    c->bytes += lex_bytes(v, x);
    itab_add(&c->tab, (uint32_t)x->name[0], c->n++, &c->bytes);
    pthread_mutex_unlock(&c->lock);
}

/* ---- finding it --------------------------------------------------------------------------------- */

struct build {
    uint32_t *mask; /* tokens inside */
    uint32_t *ends;
    uint32_t n_ends, cap_ends;
    size_t bytes;
};

static void add_end(struct build *b, uint32_t node) {
    b->ends = table_grow(b->ends, &b->cap_ends, (size_t)b->n_ends + 1, sizeof *b->ends, &b->bytes);
    b->ends[b->n_ends++] = node;
}

static struct lex *finish(struct build *b, const struct gram_vocab *v, const uint64_t name[2]) {
    struct lex *x = xcalloc(1, sizeof *x);
    size_t n_words = gram_mask_words(v->n_vocab);
    memcpy(x->name, name, sizeof x->name);
    atomic_init(&x->n_holds, 1);
    for (size_t i = 0; i < n_words; i++)
        for (uint32_t w = b->mask[i]; w; w &= w - 1)
            x->n_in++;
    x->dense = x->n_in > LEX_SPARSE_MAX;
    if (x->dense) {
        x->in = b->mask;
        b->mask = NULL;
    } else {
        x->in = xreallocarray(NULL, (size_t)x->n_in + 1, sizeof *x->in);
        for (size_t i = 0, n = 0; i < n_words; i++)
            for (uint32_t w = b->mask[i]; w; w &= w - 1)
                x->in[n++] = (uint32_t)(i * 32) + (uint32_t)__builtin_ctz(w);
    }
    x->n_ends = b->n_ends;
    x->ends = xreallocarray(b->ends, (size_t)b->n_ends + 1, sizeof *b->ends);
    b->ends = NULL;
    return x;
}

/* walk_all: the whole trie with one state for each depth. */
static bool walk_all(struct gram *g, const struct gram_vocab *v, uint32_t q, struct build *b) {
    uint32_t *stack = xreallocarray(NULL, v->depth_max + 1, sizeof *stack);
    bool ok = gram_spend(g, v->n_nodes / 16);
    stack[0] = q;
    for (uint32_t i = 0; ok && i < v->n_nodes;) {
        const struct vocab_node *x = &v->node[i];
        uint32_t to = dfa_step(g, stack[x->depth - 1], g->rx.class_of[x->byte]);
        if (to == STATE_DEAD) {
            i = x->end;
            continue;
        }
        ok = to != STATE_UNKNOWN;
        stack[x->depth] = to;
        if (ok && x->token != NO_TOKEN)
            vocab_set(v, x->token, b->mask);
        if (ok && g->dfa.state[to].accept && x->end > i + 1)
            add_end(b, i);
        i++;
    }
    free(stack);
    return ok;
}

/* exclusion: is rx an intersection with complements? Then *base is what is left without them. */
static bool exclusion(struct gram *g, uint32_t rx, uint32_t *base) {
    struct rx_node x = g->rx.node[rx];
    uint32_t from = g->rx.n_tmp;
    if (x.kind != K_AND)
        return false;
    for (uint32_t i = 0; i < x.b; i++) {
        uint32_t m = g->rx.list[x.a + i];
        if (g->rx.node[m].kind != K_NOT)
            rx_push(g, m);
    }
    uint32_t n = g->rx.n_tmp - from;
    if (n == 0 || n == x.b) {
        g->rx.n_tmp = from;
        return false;
    }
    *base = rx_mk_and(g, from);
    return !g->fail;
}

/* subtract: q is within `base`, whose lex is known, and the same for up to n bytes: only where the two differ
 * is the trie looked at. */
static bool subtract(struct gram *g, const struct gram_vocab *v, uint32_t q, uint32_t base, uint32_t n,
                     const struct lex *of, struct build *b) {
    uint32_t(*stack)[2] = xreallocarray(NULL, v->depth_max + 1, sizeof *stack), next_end = 0;
    bool ok = true;
    if (of->dense)
        memcpy(b->mask, of->in, gram_mask_words(v->n_vocab) * sizeof *b->mask);
    for (uint32_t i = 0; !of->dense && i < of->n_in; i++)
        b->mask[of->in[i] / 32] |= 1u << (of->in[i] % 32);
    stack[0][0] = q;
    stack[0][1] = base;
    for (uint32_t i = 0; ok && i < v->n_nodes;) {
        const struct vocab_node *x = &v->node[i];
        uint32_t cls = g->rx.class_of[x->byte], end = x->end, to = STATE_DEAD, was = STATE_DEAD;
        bool same = x->reach <= n;
        if (!same) {
            to = dfa_step(g, stack[x->depth - 1][0], cls);
            was = dfa_step(g, stack[x->depth - 1][1], cls);
            same = to == was;
        }
        ok = to != STATE_UNKNOWN && was != STATE_UNKNOWN && gram_spend(g, 2);
        if (ok && !same && to != STATE_DEAD)
            end = i + 1;
        while (next_end < of->n_ends && of->ends[next_end] < end) { /* those of the nodes done with */
            uint32_t node = of->ends[next_end++];
            if (same || (to != STATE_DEAD && node == i && g->dfa.state[to].accept))
                add_end(b, node);
        }
        if (to == STATE_DEAD && was != STATE_DEAD)
            for (uint32_t k = i; k < end; k++)
                for (uint32_t t = v->node[k].token; t != NO_TOKEN; t = v->same[t])
                    b->mask[t / 32] &= ~(1u << (t % 32));
        if (end == i + 1) {
            stack[x->depth][0] = to;
            stack[x->depth][1] = was;
        }
        i = end;
    }
    free(stack);
    return ok;
}

/* count_clamp: up to which length of tokens the counts in rx are to be let go; 0: not at all. */
static uint32_t count_clamp(const struct gram *g, uint32_t rx) {
    if (!(g->rx.node[rx].flags & RX_PLAIN))
        return 0;
    uint32_t n = MIN(rx_count_max(g, rx), CLAMP_MAX + 1u);
    return n > CLAMP_MIN ? n - 1 : 0;
}

struct lex *lex_of(struct gram *g, const struct gram_vocab *v, uint32_t q) {
    uint32_t rx = g->dfa.state[q].rx;
    uint64_t name[2];
    memcpy(name, g->rx.node[rx].name, sizeof name);
    struct lex *x = cache_find(v->cache, name);
    if (x)
        return x;
    struct build b = {.mask = xcalloc(gram_mask_words(v->n_vocab) + 1, sizeof *b.mask)};
    uint32_t n = count_clamp(g, rx), base_rx = n ? rx_clamp(g, rx, n) : rx;
    bool excludes = base_rx == rx && exclusion(g, rx, &base_rx), ok;
    if (base_rx != rx) {
        uint32_t base = dfa_of(g, base_rx);
        struct lex *of = base > STATE_DEAD ? lex_of(g, v, base) : NULL;
        ok = of && subtract(g, v, q, base, excludes ? 0 : n, of, &b);
        if (of)
            lex_drop(of);
    } else {
        ok = !g->fail && walk_all(g, v, q, &b);
    }
    if (ok)
        x = finish(&b, v, name);
    if (x && !excludes)
        cache_add(v->cache, v, x);
    free(b.mask);
    free(b.ends);
    return x;
}
