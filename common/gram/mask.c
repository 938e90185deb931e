#include "common/gram/lex.h"
#include "common/gram/run.h"

#include <stdlib.h>

/* Masks. A token is allowed if one of the config's threads can take it. Either it lies inside that thread's
 * terminal as a whole, which the lex of its state knows; or the terminal ends at some node of the trie above
 * the token, and what follows there is the same for all those nodes: the config after a return to the
 * thread's ctx. From there on the subtree is walked config by config.
 *
 * Masks found are kept by config: a lex to begin with, and ids on top of it. */

struct kept {
    uint32_t config;
    struct lex *base; /* NULL: none; dense if not */
    uint32_t *extra;  /* ids; or a whole mask */
    uint32_t n_extra;
    bool whole;
};
struct mask_cache {
    const struct gram_vocab *v;
    struct lex **lex; /* [states] NULL: not known yet */
    uint32_t cap_lex;
    struct kept *kept;
    uint32_t n, cap;
    struct itab tab;
};

void mask_forget(struct gram *g) {
    struct mask_cache *c = g->masks;
    if (!c)
        return;
    for (uint32_t i = 0; i < c->cap_lex; i++)
        if (c->lex[i]) {
            g->bytes -= lex_bytes(c->v, c->lex[i]);
            lex_drop(c->lex[i]);
        }
    for (uint32_t i = 0; i < c->n; i++) {
        g->bytes -= c->kept[i].n_extra * sizeof(uint32_t);
        free(c->kept[i].extra);
        if (c->kept[i].base)
            lex_drop(c->kept[i].base);
    }
    itab_fini(&c->tab, &g->bytes);
    g->bytes -= c->cap_lex * sizeof *c->lex + c->cap * sizeof *c->kept + sizeof *c;
    free(c->lex);
    free(c->kept);
    free(c);
    g->masks = NULL;
}

static struct mask_cache *cache_for(struct gram *g, const struct gram_vocab *v) {
    if (g->masks && g->masks->v != v)
        mask_forget(g);
    if (!g->masks) {
        g->masks = xcalloc(1, sizeof *g->masks);
        g->masks->v = v;
        g->bytes += sizeof *g->masks;
    }
    return g->masks;
}

/* state_lex: of a state, kept with the grammar; borrowed, NULL on fail. */
static struct lex *state_lex(struct gram *g, uint32_t q) {
    struct mask_cache *c = g->masks;
    if (q >= c->cap_lex) {
        uint32_t old = c->cap_lex;
        if (!gram_room(g, table_more(old, g->dfa.n, sizeof *c->lex)))
            return NULL;
        c->lex = table_grow(c->lex, &c->cap_lex, g->dfa.n, sizeof *c->lex, &g->bytes);
        memset(c->lex + old, 0, (c->cap_lex - old) * sizeof *c->lex);
    }
    if (!c->lex[q]) {
        struct lex *x = lex_of(g, c->v, q);
        if (x && !gram_room(g, lex_bytes(c->v, x))) {
            lex_drop(x);
            x = NULL;
        }
        if (!x)
            return NULL;
        c->lex[q] = x;
        g->bytes += lex_bytes(c->v, x);
    }
    return c->lex[q];
}

/* ---- walking ------------------------------------------------------------------------------------ */

enum walk_rc { WALK_OK, WALK_FAIL, WALK_KEYED };

/* walk: sets the bits of all tokens of the nodes [from, to), siblings and their subtrees whose parent stands
 * at config. WALK_KEYED: with `stop_keyed`, a key began on the way. */
static enum walk_rc walk(struct gram *g, const struct gram_vocab *v, uint32_t from, uint32_t to,
                         uint32_t config, bool stop_keyed, uint32_t *stack, uint32_t *mask) {
    if (from >= to)
        return WALK_OK;
    stack[v->node[from].depth - 1u] = config;
    for (uint32_t i = from; i < to;) {
        const struct vocab_node *x = &v->node[i];
        uint32_t c = config_step(g, stack[x->depth - 1], g->rx.class_of[x->byte]);
        if (c == STATE_DEAD) {
            i = x->end;
            continue;
        }
        if (c == STATE_UNKNOWN || !gram_spend(g, 1))
            return WALK_FAIL;
        if (stop_keyed && g->cfg.config[c].keyed)
            return WALK_KEYED;
        stack[x->depth] = c;
        vocab_set(v, x->token, mask);
        i++;
    }
    return WALK_OK;
}

/* key_text: the text of a thread and the bytes that lead to a node. */
static uint32_t key_text(struct gram *g, const struct gram_vocab *v, uint32_t text, uint32_t node) {
    uint32_t n = v->node[node].depth, at = node;
    while (v->node[at].token == NO_TOKEN)
        at++; /* a leaf has a token */
    for (uint32_t i = 0; i < n; i++)
        text = config_text(g, text, (uint8_t)vocab_token(v, v->node[at].token).p[i]);
    return text;
}

/* after_end: what one thread allows below a node where its terminal ends. */
static bool after_end(struct gram *g, const struct gram_vocab *v, struct thread t, uint32_t node,
                      uint32_t ret, uint32_t *stack, uint32_t *mask) {
    const struct vocab_node *x = &v->node[node];
    bool tracked = t.text >= TEXT_EMPTY;
    enum walk_rc rc = WALK_KEYED;
    /* Which key it was only matters to a key that begins within the same token. */
    if (!tracked || !g->cfg.config[ret].keyed)
        rc = walk(g, v, node + 1, x->end, ret, tracked, stack, mask);
    if (rc == WALK_KEYED) {
        uint32_t ctx = ctx_add_key(g, t.ctx, key_text(g, v, t.text, node));
        ret = ctx ? ctx_return(g, ctx) : STATE_UNKNOWN;
        if (ret == STATE_DEAD)
            return true;
        rc = ret ? walk(g, v, node + 1, x->end, ret, false, stack, mask) : WALK_FAIL;
    }
    return rc == WALK_OK;
}

static void add_lex(const struct gram_vocab *v, const struct lex *x, uint32_t *mask) {
    if (x->dense)
        for (size_t i = 0, n = gram_mask_words(v->n_vocab); i < n; i++)
            mask[i] |= x->in[i];
    else
        for (uint32_t i = 0; i < x->n_in; i++)
            mask[x->in[i] / 32] |= 1u << (x->in[i] % 32);
}

/* ends_mask: what one thread allows behind the ends of its terminal. */
static bool ends_mask(struct gram *g, const struct gram_vocab *v, struct thread t, const struct lex *x,
                      uint32_t *stack, uint32_t *mask) {
    if (x->n_ends == 0)
        return true;
    uint32_t ret = ctx_return(g, t.ctx);
    if (ret == STATE_UNKNOWN)
        return false;
    if (ret == STATE_DEAD || g->cfg.config[ret].n == 0)
        return true;
    for (uint32_t i = 0; i < x->n_ends; i++)
        if (!after_end(g, v, t, x->ends[i], ret, stack, mask))
            return false;
    return true;
}

/* ---- keeping ------------------------------------------------------------------------------------ */

static void write_kept(const struct gram_vocab *v, const struct kept *k, uint32_t *mask) {
    size_t n_words = gram_mask_words(v->n_vocab);
    if (k->whole) {
        memcpy(mask, k->extra, n_words * sizeof *mask);
        return;
    }
    if (k->base)
        memcpy(mask, k->base->in, n_words * sizeof *mask);
    else
        memset(mask, 0, n_words * sizeof *mask);
    for (uint32_t i = 0; i < k->n_extra; i++)
        mask[k->extra[i] / 32] |= 1u << (k->extra[i] % 32);
}

/* beyond: the tokens of mask that base (NULL: none) lacks, in order; their number. out NULL: they are only counted. Mostly
 * there are few, so 256 are looked at together. */
static size_t beyond(const uint32_t *mask, const uint32_t *base, size_t n_words, uint32_t *out) {
    enum { WORDS = 8 };
    size_t n = 0;
    for (size_t i = 0, m; i < n_words; i += m) {
        uint64_t any = 1, in[WORDS / 2], not_in[WORDS / 2] = {0};
        m = MIN(n_words - i, (size_t)WORDS);
        if (m == WORDS) {
            memcpy(in, mask + i, sizeof in);
            if (base)
                memcpy(not_in, base + i, sizeof not_in);
            any = (in[0] & ~not_in[0]) | (in[1] & ~not_in[1]) | (in[2] & ~not_in[2]) | (in[3] & ~not_in[3]);
        }
        for (size_t k = i; any && k < i + m; k++)
            for (uint32_t w = base ? mask[k] & ~base[k] : mask[k]; w; w &= w - 1) {
                if (out)
                    out[n] = (uint32_t)(k * 32) + (uint32_t)__builtin_ctz(w);
                n++;
            }
    }
    return n;
}

static void keep(struct gram *g, const struct gram_vocab *v, uint32_t config, struct lex *base,
                 const uint32_t *mask) {
    struct mask_cache *c = g->masks;
    const size_t n_words = gram_mask_words(v->n_vocab), n = beyond(mask, base ? base->in : NULL, n_words, NULL);
    struct kept k = {.config = config, .whole = n >= n_words};
    k.n_extra = (uint32_t)(k.whole ? n_words : n);
    if (g->bytes + k.n_extra * sizeof *k.extra + itab_more(&c->tab) +
            table_more(c->cap, (size_t)c->n + 1, sizeof *c->kept) >
        g->limit.memory_bytes)
        return; /* right all the same; the next byte makes room */
    k.extra = xreallocarray(NULL, (size_t)k.n_extra + 1, sizeof *k.extra);
    if (k.whole) {
        memcpy(k.extra, mask, n_words * sizeof *mask);
    } else {
        k.base = base ? lex_hold(base) : NULL;
        (void)beyond(mask, base ? base->in : NULL, n_words, k.extra);
    }
    g->bytes += k.n_extra * sizeof *k.extra;
    c->kept = table_grow(c->kept, &c->cap, (size_t)c->n + 1, sizeof *c->kept, &g->bytes);
    c->kept[c->n] = k;
    itab_add(&c->tab, (uint32_t)mix(1, config), c->n++, &g->bytes);
}

bool mask_of(struct gram *g, const struct gram_vocab *v, uint32_t config, uint32_t *stack, uint32_t *mask) {
    struct mask_cache *c = cache_for(g, v);
    struct lex *base = NULL;
    uint32_t at = UINT32_MAX, id;
    while ((id = itab_find(&c->tab, (uint32_t)mix(1, config), &at)) != UINT32_MAX)
        if (c->kept[id].config == config) {
            write_kept(v, &c->kept[id], mask);
            return true;
        }
    uint32_t n = g->cfg.config[config].n;
    for (uint32_t i = 0; i < n; i++) {
        struct lex *x = state_lex(g, g->cfg.thread[g->cfg.config[config].first + i].q);
        if (!x)
            return false;
        if (x->dense && (!base || x->n_in > base->n_in))
            base = x;
    }
    write_kept(v, &(struct kept){.base = base}, mask);
    for (uint32_t i = 0; i < n; i++) {
        struct thread t = g->cfg.thread[g->cfg.config[config].first + i];
        struct lex *x = state_lex(g, t.q);
        if (x != base)
            add_lex(v, x, mask);
        if (!ends_mask(g, v, t, x, stack, mask))
            return false;
    }
    for (size_t i = 0; g->cfg.config[config].accept && i < v->n_eos; i++)
        mask[v->eos[i] / 32] |= 1u << (v->eos[i] % 32);
    keep(g, v, config, base, mask);
    return true;
}
