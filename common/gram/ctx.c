#include "common/gram/engine.h"

/* The parser's stack as a graph, and the closure after a terminal has matched (Earley 1970, with the origin
 * of an item replaced by the set of items that wait for it).
 *
 * A closure works on items (place, keys, ctx). The ctx of rules predicted here are under construction
 * ("locals", marked CTX_LOCAL) while it runs, since more callers may turn up; they are interned at the end,
 * callers before callees (gram_sym.rank). An item in last place adds no edge but hands on those of its own
 * ctx ("alias"). */

enum { ALIAS = UINT32_MAX - 1, NO_EDGE = UINT32_MAX };

struct local_edge {
    uint32_t at, keys, ctx; /* at ALIAS: all edges of ctx; ctx may be CTX_LOCAL */
    uint32_t next;
};
struct local { /* of a rule with keys */
    uint32_t rule, keys, edges;
    uint32_t ctx;  /* once interned; CTX_LOCAL + place while its cycle is put together */
    uint32_t mark; /* of the member being collected, for cycles of aliases */
};
struct start { /* a terminal that is to begin here */
    uint32_t term, keys, edges;
    uint32_t text; /* TEXT_EMPTY: its text becomes a key of what follows */
};
struct seen {
    uint32_t a, b, c, epoch, value;
};

struct closure {
    struct edge *item; /* work, in order of discovery */
    struct local_edge *edge;
    struct local *local;
    struct start *start;
    struct edge *out; /* edges of the ctx being put together */
    struct thread *thread;
    struct seen *seen;
    uint32_t *order, *member_end;
    uint32_t n_items, cap_items, n_edges, cap_edges, n_locals, cap_locals, n_starts, cap_starts, n_out,
        cap_out, n_threads, cap_threads, cap_seen, n_seen, epoch, cap_order, cap_member_end;
    bool accept;
};

/* ---- a set of triples, emptied by a new epoch ---------------------------------------------------- */

static struct seen *seen_slot(struct closure *c, uint32_t x, uint32_t y, uint32_t z) {
    uint32_t mask = c->cap_seen - 1, i = (uint32_t)(mix(mix(mix(1, x), y), z) >> 20) & mask;
    while (c->seen[i].epoch == c->epoch && (c->seen[i].a != x || c->seen[i].b != y || c->seen[i].c != z))
        i = (i + 1) & mask;
    return &c->seen[i];
}

/* seen_get: the value of a triple; new ones get `fresh`, and *is_new is set. */
static uint32_t seen_get(struct gram *g, uint32_t x, uint32_t y, uint32_t z, uint32_t fresh, bool *is_new) {
    struct closure *c = g->closure;
    if (c->n_seen * 2 >= c->cap_seen) {
        struct seen *old = c->seen;
        uint32_t n_old = c->cap_seen;
        c->cap_seen = n_old ? n_old * 2 : 256;
        c->seen = xcalloc(c->cap_seen, sizeof *c->seen);
        g->bytes += (c->cap_seen - n_old) * sizeof *c->seen;
        for (uint32_t i = 0; i < n_old; i++)
            if (old[i].epoch == c->epoch)
                *seen_slot(c, old[i].a, old[i].b, old[i].c) = old[i];
        free(old);
    }
    struct seen *s = seen_slot(c, x, y, z);
    *is_new = s->epoch != c->epoch;
    if (*is_new) {
        *s = (struct seen){x, y, z, c->epoch, fresh};
        c->n_seen++;
    }
    return s->value;
}

/* ---- edges of the ctx being put together ---------------------------------------------------------- */

static void push_out(struct gram *g, struct edge e) {
    struct closure *c = g->closure;
    c->out = table_grow(c->out, &c->cap_out, (size_t)c->n_out + 1, sizeof *c->out, &g->bytes);
    c->out[c->n_out++] = e;
}

static void push_edges_of(struct gram *g, uint32_t ctx) {
    const struct ctx *x = &g->ctx.ctx[ctx];
    for (uint32_t i = 0; i < x->n; i++)
        push_out(g, g->ctx.edge[x->first + i]);
}

/* intern_out: the ctx of out[]. */
static uint32_t intern_out(struct gram *g) {
    struct closure *c = g->closure;
    uint32_t n = ctx_tidy(c->out, c->n_out);
    return ctx_intern(g, c->out, &n, 1);
}

uint32_t ctx_union(struct gram *g, uint32_t a, uint32_t b) {
    g->closure->n_out = 0;
    push_edges_of(g, a);
    push_edges_of(g, b);
    return intern_out(g);
}

/* ---- closure ----------------------------------------------------------------------------------- */

static void add_item(struct gram *g, uint32_t at, uint32_t keys, uint32_t ctx) {
    struct closure *c = g->closure;
    bool is_new;
    seen_get(g, at, keys, ctx, 0, &is_new);
    if (!is_new || !keys_viable(g, at, keys))
        return;
    c->item = table_grow(c->item, &c->cap_items, (size_t)c->n_items + 1, sizeof *c->item, &g->bytes);
    c->item[c->n_items++] = (struct edge){at, keys, ctx};
}

/* wait: the item behind `at` waits for what `list` belongs to. */
static void wait_behind(struct gram *g, uint32_t *list, uint32_t at, uint32_t keys, uint32_t ctx) {
    struct closure *c = g->closure;
    struct local_edge e = {at, keys, ctx, *list};
    if (g->place[at] == PART_END)
        e.at = ALIAS;
    c->edge = table_grow(c->edge, &c->cap_edges, (size_t)c->n_edges + 1, sizeof *c->edge, &g->bytes);
    *list = c->n_edges;
    c->edge[c->n_edges++] = e;
}

enum { SEEN_RULE = UINT32_MAX, SEEN_TERM = UINT32_MAX - 1 }; /* SEEN_TERM - text, at most 2 less */

static uint32_t local_of(struct gram *g, uint32_t rule, uint32_t keys) {
    struct closure *c = g->closure;
    bool is_new;
    uint32_t i = seen_get(g, SEEN_RULE, rule, keys, c->n_locals, &is_new);
    if (!is_new)
        return i;
    c->local = table_grow(c->local, &c->cap_locals, (size_t)i + 1, sizeof *c->local, &g->bytes);
    c->local[c->n_locals++] = (struct local){rule, keys, NO_EDGE, 0, 0};
    const struct gram_sym *s = &g->sym[rule];
    for (uint32_t k = 0; k < s->n; k++) {
        uint32_t at = g->prod_place[s->first + k];
        add_item(g, at, g->place_keys[at] ? keys : RX_NONE, CTX_LOCAL | i);
    }
    return i;
}

static uint32_t start_of(struct gram *g, uint32_t term, uint32_t keys, uint32_t text) {
    struct closure *c = g->closure;
    bool is_new;
    uint32_t i = seen_get(g, SEEN_TERM - text, term, keys, c->n_starts, &is_new);
    if (is_new) {
        c->start = table_grow(c->start, &c->cap_starts, (size_t)i + 1, sizeof *c->start, &g->bytes);
        c->start[c->n_starts++] = (struct start){term, keys, NO_EDGE, text};
    }
    return i;
}

static void process(struct gram *g, struct edge it) {
    struct closure *c = g->closure;
    uint32_t sym = g->place[it.at];
    if (it.at == AT_ACCEPT) {
        c->accept = true;
        return;
    }
    if (sym == PART_END) {
        /* A local rule that matched nothing: its callers have stepped over it already. */
        if (!(it.ctx & CTX_LOCAL))
            for (uint32_t i = 0; i < g->ctx.ctx[it.ctx].n; i++) {
                struct edge e = g->ctx.edge[g->ctx.ctx[it.ctx].first + i];
                add_item(g, e.at, e.keys, e.ctx);
            }
        return;
    }
    const struct gram_sym *s = &g->sym[sym];
    uint32_t next = it.at + 1, keys = g->place_keys[next] ? it.keys : RX_NONE;
    if (s->nullable)
        add_item(g, next, keys, it.ctx);
    if (s->is_term) {
        bool unique = s->flags & TERM_UNIQUE;
        uint32_t text = !unique ? TEXT_NONE : g->place_keys[next] ? TEXT_EMPTY : TEXT_LAST;
        uint32_t i = start_of(g, sym, unique ? it.keys : RX_NONE, text);
        wait_behind(g, &c->start[i].edges, next, keys, it.ctx);
    } else {
        bool inherits = s->uses_keys && !(s->flags & RULE_SCOPE);
        uint32_t i = local_of(g, sym, inherits ? it.keys : RX_NONE);
        wait_behind(g, &c->local[i].edges, next, keys, it.ctx);
    }
}

/* push_list: the edges of a list into out[], with locals of lower rank resolved. */
static void push_list(struct gram *g, uint32_t list) {
    struct closure *c = g->closure;
    for (uint32_t i = list; i != NO_EDGE; i = c->edge[i].next) {
        struct local_edge e = c->edge[i];
        if (e.ctx & CTX_LOCAL)
            e.ctx = c->local[e.ctx & ~CTX_LOCAL].ctx;
        if (e.at == ALIAS)
            push_edges_of(g, e.ctx);
        else
            push_out(g, (struct edge){e.at, e.keys, e.ctx});
    }
}

/* push_member: the same for local `i` of a cycle, whose members are not interned yet: edges to them are
 * written CTX_LOCAL + place in the cycle, as their ctx says; aliases among them are followed. The list of
 * members to follow is kept on rx.tmp. */
static void push_member(struct gram *g, uint32_t i) {
    struct closure *c = g->closure;
    uint32_t base = g->rx.n_tmp, self = i;
    rx_push(g, i);
    c->local[i].mark = self + 1;
    while (g->rx.n_tmp > base) {
        uint32_t m = g->rx.tmp[--g->rx.n_tmp];
        for (uint32_t k = c->local[m].edges; k != NO_EDGE && gram_spend(g, 1); k = c->edge[k].next) {
            struct local_edge e = c->edge[k];
            uint32_t to = e.ctx & ~CTX_LOCAL;
            if (e.ctx & CTX_LOCAL)
                e.ctx = c->local[to].ctx;
            if ((e.ctx & CTX_LOCAL) && e.at == ALIAS) {
                if (c->local[to].mark != self + 1) {
                    c->local[to].mark = self + 1;
                    rx_push(g, to);
                }
            } else if (e.at == ALIAS) {
                push_edges_of(g, e.ctx);
            } else {
                push_out(g, (struct edge){e.at, e.keys, e.ctx});
            }
        }
    }
}

static void intern_cycle(struct gram *g, uint32_t first, uint32_t n) {
    struct closure *c = g->closure;
    c->n_out = 0;
    for (uint32_t j = 0; j < n; j++)
        c->local[c->order[first + j]].ctx = CTX_LOCAL | j;
    c->member_end = table_grow(c->member_end, &c->cap_member_end, n, sizeof *c->member_end, &g->bytes);
    for (uint32_t j = 0; j < n && gram_spend(g, 2 * (int64_t)n); j++) {
        uint32_t from = c->n_out;
        push_member(g, c->order[first + j]);
        c->n_out = from + ctx_tidy(c->out + from, c->n_out - from);
        c->member_end[j] = c->n_out;
    }
    uint32_t id = g->fail ? 0 : ctx_intern(g, c->out, c->member_end, n);
    for (uint32_t j = 0; j < n; j++)
        c->local[c->order[first + j]].ctx = id + j;
}

/* before: callers first; among equals an order that does not depend on how they were found. */
static bool before(const struct gram *g, uint32_t a, uint32_t b) {
    const struct local *x = &g->closure->local[a], *y = &g->closure->local[b];
    if (g->sym[x->rule].rank != g->sym[y->rule].rank)
        return g->sym[x->rule].rank < g->sym[y->rule].rank;
    return x->rule != y->rule ? x->rule < y->rule : x->keys < y->keys;
}

/* sort_order: heap sort of order[0 .. n). */
static void sift(const struct gram *g, uint32_t *v, uint32_t i, uint32_t n) {
    for (;;) {
        uint32_t k = 2 * i + 1;
        if (k >= n)
            return;
        if (k + 1 < n && before(g, v[k], v[k + 1]))
            k++;
        if (!before(g, v[i], v[k]))
            return;
        uint32_t t = v[i];
        v[i] = v[k];
        v[k] = t;
        i = k;
    }
}
static void sort_order(const struct gram *g, uint32_t *v, uint32_t n) {
    for (uint32_t i = n / 2; i-- > 0;)
        sift(g, v, i, n);
    for (uint32_t m = n; m-- > 1;) {
        uint32_t t = v[0];
        v[0] = v[m];
        v[m] = t;
        sift(g, v, 0, m);
    }
}

static void intern_locals(struct gram *g) {
    struct closure *c = g->closure;
    c->order = table_grow(c->order, &c->cap_order, c->n_locals, sizeof *c->order, &g->bytes);
    for (uint32_t i = 0; i < c->n_locals; i++)
        c->order[i] = i;
    sort_order(g, c->order, c->n_locals);
    for (uint32_t i = 0, n = 1; i < c->n_locals && !g->fail; i += n, n = 1) {
        struct local *l = &c->local[c->order[i]];
        const struct gram_sym *s = &g->sym[l->rule];
        if (s->in_cycle) {
            while (i + n < c->n_locals && g->sym[c->local[c->order[i + n]].rule].rank == s->rank)
                n++;
            intern_cycle(g, i, n);
        } else {
            c->n_out = 0;
            push_list(g, l->edges);
            l->ctx = intern_out(g);
        }
    }
}

/* begin: the threads of the terminals that are to begin here. */
static void begin_threads(struct gram *g) {
    struct closure *c = g->closure;
    for (uint32_t i = 0; i < c->n_starts && !g->fail; i++) {
        struct start *s = &c->start[i];
        uint32_t rx = g->sym[s->term].rx;
        if (s->keys != RX_NONE) {
            uint32_t base = g->rx.n_tmp;
            rx_push(g, rx);
            rx_push(g, rx_mk_not(g, s->keys));
            rx = rx_mk_and(g, base);
        }
        uint32_t q = dfa_of(g, rx);
        if (q <= STATE_DEAD || g->dfa.state[q].rx == RX_EMPTY)
            continue;
        c->n_out = 0;
        push_list(g, s->edges);
        uint32_t ctx = intern_out(g);
        c->thread =
            table_grow(c->thread, &c->cap_threads, (size_t)c->n_threads + 1, sizeof *c->thread, &g->bytes);
        c->thread[c->n_threads++] = (struct thread){q, ctx, s->text};
    }
}

static uint32_t close_items(struct gram *g) {
    struct closure *c = g->closure;
    for (uint32_t i = 0; i < c->n_items && gram_spend(g, 6) && g->bytes <= g->limit.memory_bytes; i++)
        process(g, c->item[i]);
    if (g->bytes > g->limit.memory_bytes)
        g->fail = true;
    if (!g->fail)
        intern_locals(g);
    if (!g->fail)
        begin_threads(g);
    return g->fail ? 0 : config_intern(g, c->thread, c->n_threads, c->accept);
}

static void open_closure(struct gram *g) {
    struct closure *c = g->closure;
    c->n_items = c->n_edges = c->n_locals = c->n_starts = c->n_threads = c->n_seen = 0;
    c->accept = false;
    if (++c->epoch == 0) {
        memset(c->seen, 0, c->cap_seen * sizeof *c->seen);
        c->epoch = 1;
    }
}

uint32_t ctx_return(struct gram *g, uint32_t ctx) {
    if (g->ctx.ctx[ctx].ret)
        return g->ctx.ctx[ctx].ret;
    open_closure(g);
    for (uint32_t i = 0; i < g->ctx.ctx[ctx].n; i++) {
        struct edge e = g->ctx.edge[g->ctx.ctx[ctx].first + i];
        add_item(g, e.at, e.keys, e.ctx);
    }
    uint32_t config = close_items(g);
    g->ctx.ctx[ctx].ret = config;
    return config;
}

uint32_t ctx_start(struct gram *g) {
    struct edge done = {AT_ACCEPT, RX_NONE, CTX_NONE};
    uint32_t one = 1;
    if (g->ctx.n == 0) {
        g->ctx.ctx = table_grow(g->ctx.ctx, &g->ctx.cap, 1, sizeof *g->ctx.ctx, &g->bytes);
        g->ctx.ctx[g->ctx.n++] = (struct ctx){.n_group = 1}; /* CTX_NONE */
    }
    uint32_t root = ctx_intern(g, &done, &one, 1);
    if (!root)
        return 0;
    CHECK(root == CTX_ROOT);
    open_closure(g);
    uint32_t i = local_of(g, g->start, RX_NONE);
    struct local_edge e = {ALIAS, RX_NONE, CTX_ROOT, NO_EDGE};
    g->closure->edge =
        table_grow(g->closure->edge, &g->closure->cap_edges, 1, sizeof *g->closure->edge, &g->bytes);
    g->closure->edge[0] = e;
    g->closure->n_edges = 1;
    g->closure->local[i].edges = 0;
    g->closure->accept = g->sym[g->start].nullable;
    return close_items(g);
}

uint32_t ctx_add_key(struct gram *g, uint32_t ctx, uint32_t text) {
    struct buf_text {
        char *p;
        uint32_t n;
    } s = {NULL, 0};
    for (uint32_t t = text; t != TEXT_EMPTY; t = g->cfg.text[t].prev)
        s.n++;
    s.p = xmalloc((size_t)s.n + 1);
    for (uint32_t t = text, i = s.n; t != TEXT_EMPTY; t = g->cfg.text[t].prev)
        s.p[--i] = (char)g->cfg.text[t].byte;
    g->closure->n_out = 0;
    push_edges_of(g, ctx);
    for (uint32_t i = 0; i < g->closure->n_out; i++)
        g->closure->out[i].keys = rx_trie_add(g, g->closure->out[i].keys, s.p, s.n);
    free(s.p);
    return g->fail ? 0 : intern_out(g);
}

void ctx_init(struct gram *g) {
    g->closure = xcalloc(1, sizeof *g->closure);
    g->bytes += sizeof *g->closure;
}

#define TRIM(field, cap) c->field = table_trim(c->field, &c->cap, 0, sizeof *c->field, &g->bytes)
void ctx_trim(struct gram *g) {
    struct closure *c = g->closure;
    TRIM(item, cap_items);
    TRIM(edge, cap_edges);
    TRIM(local, cap_locals);
    TRIM(start, cap_starts);
    TRIM(out, cap_out);
    TRIM(thread, cap_threads);
    TRIM(seen, cap_seen);
    TRIM(order, cap_order);
    TRIM(member_end, cap_member_end);
    c->n_seen = 0;
}

void ctx_fini(struct gram *g) {
    free(g->ctx.ctx);
    free(g->ctx.edge);
    itab_fini(&g->ctx.tab, &g->bytes);
    if (g->closure)
        ctx_trim(g);
    free(g->closure);
}
