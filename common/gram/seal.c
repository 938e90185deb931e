#include "common/gram/engine.h"

/* From what was built to what runs: useless rules are dropped, and what the parser asks of a symbol at each
 * step is found out once. Everything here is linear in the size of the grammar. */

struct seal {
    struct gram *g;
    uint32_t *occ;       /* productions in which a symbol occurs, once for each part: occ[occ_of[s] ..) */
    uint32_t *occ_of;    /* [n_syms + 1] */
    uint32_t *need;      /* [n_prods] */
    uint32_t *work;      /* [max(n_syms, n_prods) + 1] */
    uint32_t *prods;     /* productions by rule: prods[prods_of[r] ..) */
    uint32_t *prods_of;  /* [n_syms + 1] */
    bool *has, *reached; /* [n_syms] */
    bool *kept;          /* [n_prods] */
};

/* index_by: counting sort. key(i) of n items into of[n_keys + 1] and list. */
static void index_prods(struct seal *s) {
    struct gram *g = s->g;
    for (uint32_t i = 0; i < g->n_prods; i++)
        s->prods_of[g->prod[i].rule + 1]++;
    for (uint32_t i = 0; i < g->n_parts; i++)
        s->occ_of[g->part[i] + 1]++;
    for (uint32_t i = 0; i < g->n_syms; i++) {
        s->prods_of[i + 1] += s->prods_of[i];
        s->occ_of[i + 1] += s->occ_of[i];
    }
    /* Filled from the back, so that of[key] ends at the first of its own. */
    uint32_t *at_prod = xcalloc(g->n_syms + 1, sizeof *at_prod),
             *at_occ = xcalloc(g->n_syms + 1, sizeof *at_occ);
    for (uint32_t i = 0; i < g->n_prods; i++) {
        const struct gram_prod *p = &g->prod[i];
        s->prods[s->prods_of[p->rule] + at_prod[p->rule]++] = i;
        for (uint32_t j = 0; j < p->n; j++) {
            uint32_t part = g->part[p->first + j];
            s->occ[s->occ_of[part] + at_occ[part]++] = i;
        }
    }
    free(at_prod);
    free(at_occ);
}

/* reach: marks what start leads to, through the productions kept. */
static void reach(struct seal *s) {
    struct gram *g = s->g;
    uint32_t n = 0;
    memset(s->reached, 0, g->n_syms);
    s->reached[g->start] = true;
    s->work[n++] = g->start;
    while (n) {
        uint32_t x = s->work[--n];
        for (uint32_t i = s->prods_of[x]; i < s->prods_of[x + 1]; i++) {
            const struct gram_prod *p = &g->prod[s->prods[i]];
            for (uint32_t j = 0; s->kept[s->prods[i]] && j < p->n; j++)
                if (!s->reached[g->part[p->first + j]]) {
                    s->reached[g->part[p->first + j]] = true;
                    s->work[n++] = g->part[p->first + j];
                }
        }
    }
}

/* spread: has[] of terminals is given; a rule has it if one of its productions kept has it in all parts
 * (any: in one part; then it does not come up from a rule with a scope of its own). */
static void spread(struct seal *s, bool any) {
    struct gram *g = s->g;
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_syms; i++)
        if (s->has[i])
            s->work[n++] = i;
    for (uint32_t i = 0; i < g->n_prods; i++) {
        s->need[i] = any ? 1 : g->prod[i].n;
        if (!s->need[i] && s->kept[i] && !s->has[g->prod[i].rule]) {
            s->has[g->prod[i].rule] = true;
            s->work[n++] = g->prod[i].rule;
        }
    }
    while (n) {
        uint32_t x = s->work[--n];
        if (any && !g->sym[x].is_term && (g->sym[x].flags & RULE_SCOPE))
            continue;
        for (uint32_t i = s->occ_of[x]; i < s->occ_of[x + 1]; i++) {
            uint32_t p = s->occ[i], rule = g->prod[p].rule;
            if (s->kept[p] && s->need[p] && --s->need[p] == 0 && !s->has[rule]) {
                s->has[rule] = true;
                s->work[n++] = rule;
            }
        }
    }
}

static enum rc over(struct gram *g, struct err *e) {
    return err_set(e, RC_INVALID, NULL, "%s", g->over ? g->over : "it takes too long to compile");
}

/* find_productive: which symbols derive strings; productions that do not are dropped. */
static enum rc find_productive(struct seal *s, bool strict, struct err *e) {
    struct gram *g = s->g;
    memset(s->kept, 1, g->n_prods);
    reach(s);
    for (uint32_t i = 0; i < g->n_syms; i++) {
        s->has[i] = s->reached[i] && g->sym[i].is_term && rx_is_live(g, g->sym[i].rx);
        if (g->fail)
            return over(g, e);
        if (s->has[i] && (g->sym[i].flags & TERM_UNIQUE) && rx_nullable(g, g->sym[i].rx))
            return err_set(e, RC_INVALID, NULL, "a key that may be empty text cannot be kept unique");
    }
    spread(s, false);
    for (uint32_t i = 0; i < g->n_syms; i++) {
        g->sym[i].productive = s->has[i];
        if (strict && !s->has[i] && s->reached[i] && !g->sym[i].is_term)
            return err_set(e, RC_INVALID, NULL, "rule \"%s\" derives no string", g->names + g->sym[i].name);
    }
    if (!s->has[g->start])
        return err_set(e, RC_INVALID, NULL, "no text can satisfy this");
    for (uint32_t i = 0; i < g->n_prods; i++)
        for (uint32_t j = 0; j < g->prod[i].n; j++)
            s->kept[i] = s->kept[i] && s->has[g->part[g->prod[i].first + j]];
    reach(s);
    for (uint32_t i = 0; i < g->n_prods; i++)
        s->kept[i] = s->kept[i] && s->reached[g->prod[i].rule];
    return RC_OK;
}

static void find_properties(struct seal *s) {
    struct gram *g = s->g;
    for (uint32_t i = 0; i < g->n_syms; i++)
        s->has[i] = g->sym[i].is_term && rx_nullable(g, g->sym[i].rx);
    spread(s, false);
    for (uint32_t i = 0; i < g->n_syms; i++) {
        g->sym[i].nullable = s->has[i];
        s->has[i] = s->reached[i] && g->sym[i].is_term && (g->sym[i].flags & TERM_UNIQUE);
    }
    spread(s, true);
    for (uint32_t i = 0; i < g->n_syms; i++)
        g->sym[i].uses_keys = s->has[i];
}

/* lay_places: productions kept, rule by rule, each closed by PART_END. */
static void lay_places(struct seal *s) {
    struct gram *g = s->g;
    uint32_t n_kept = 0, n_places = 1;
    for (uint32_t i = 0; i < g->n_prods; i++) {
        n_kept += s->kept[i];
        n_places += s->kept[i] ? g->prod[i].n + 1 : 0;
    }
    g->place = xreallocarray(NULL, n_places, sizeof *g->place);
    g->place_keys = xcalloc(n_places, 1);
    g->prod_place = xreallocarray(NULL, n_kept + 1, sizeof *g->prod_place);
    g->bytes += n_places * (sizeof *g->place + 1) + (n_kept + 1) * sizeof *g->prod_place;
    g->place[AT_ACCEPT] = PART_END;
    g->n_places = 1;
    for (uint32_t r = 0; r < g->n_syms; r++) {
        g->sym[r].first = g->n_kept;
        for (uint32_t i = s->prods_of[r]; i < s->prods_of[r + 1]; i++) {
            const struct gram_prod *p = &g->prod[s->prods[i]];
            if (!s->kept[s->prods[i]])
                continue;
            g->prod_place[g->n_kept++] = g->n_places;
            if (p->n)
                memcpy(g->place + g->n_places, g->part + p->first, p->n * sizeof *g->place);
            g->n_places += p->n;
            g->place[g->n_places++] = PART_END;
            for (uint32_t k = g->n_places - 1; k-- > g->n_places - 1 - p->n;) {
                const struct gram_sym *y = &g->sym[g->place[k]];
                bool own = y->uses_keys && (y->is_term || !(y->flags & RULE_SCOPE));
                g->place_keys[k] = own || g->place_keys[k + 1];
            }
        }
        g->sym[r].n = g->n_kept - g->sym[r].first;
    }
}

/* ---- ranks: strongly connected components of "may begin with" (Tarjan, without recursion) -------- */

struct walk {
    uint32_t rule, prod, at; /* the next part to look at */
};
struct tarjan {
    uint32_t *index, *low, *stack;
    bool *on_stack;
    struct walk *walk;
    uint32_t n_index, n_stack, n_walk, n_done;
};

/* next_callee: the next rule that a walk's rule may begin with; UINT32_MAX at the end. */
static uint32_t next_callee(const struct gram *g, struct walk *w) {
    const struct gram_sym *r = &g->sym[w->rule];
    while (w->prod < r->n) {
        uint32_t sym = g->place[w->at];
        if (sym == PART_END || (g->sym[sym].is_term && !g->sym[sym].nullable)) {
            if (++w->prod < r->n)
                w->at = g->prod_place[r->first + w->prod];
            continue;
        }
        w->at++;
        if (!g->sym[sym].nullable) { /* a rule: nothing behind it is at the beginning */
            if (++w->prod < r->n)
                w->at = g->prod_place[r->first + w->prod];
        }
        if (!g->sym[sym].is_term)
            return sym;
    }
    return UINT32_MAX;
}

static void enter(const struct gram *g, struct tarjan *t, uint32_t rule) {
    t->index[rule] = t->low[rule] = ++t->n_index;
    t->stack[t->n_stack++] = rule;
    t->on_stack[rule] = true;
    uint32_t at = g->sym[rule].n ? g->prod_place[g->sym[rule].first] : 0;
    t->walk[t->n_walk++] = (struct walk){rule, 0, at};
}

static void close_component(struct gram *g, struct tarjan *t, uint32_t root) {
    uint32_t x, size = 0;
    do {
        x = t->stack[--t->n_stack];
        t->on_stack[x] = false;
        g->sym[x].rank = t->n_done;
        size++;
    } while (x != root);
    if (size > 1)
        for (uint32_t i = 0; i < size; i++)
            g->sym[t->stack[t->n_stack + i]].in_cycle = true;
    t->n_done++;
}

static void find_ranks(struct gram *g) {
    uint32_t n = g->n_syms;
    struct tarjan t = {.index = xcalloc(n, sizeof(uint32_t)),
                       .low = xcalloc(n, sizeof(uint32_t)),
                       .stack = xcalloc(n, sizeof(uint32_t)),
                       .on_stack = xcalloc(n, 1),
                       .walk = xcalloc(n, sizeof(struct walk))};
    for (uint32_t i = 0; i < n; i++) {
        if (g->sym[i].is_term || t.index[i])
            continue;
        enter(g, &t, i);
        while (t.n_walk) {
            struct walk *w = &t.walk[t.n_walk - 1];
            uint32_t to = next_callee(g, w), rule = w->rule;
            if (to == UINT32_MAX) {
                if (t.low[rule] == t.index[rule])
                    close_component(g, &t, rule);
                t.n_walk--;
                if (t.n_walk) {
                    uint32_t up = t.walk[t.n_walk - 1].rule;
                    t.low[up] = MIN(t.low[up], t.low[rule]);
                }
            } else if (!t.index[to]) {
                enter(g, &t, to);
            } else if (t.on_stack[to]) {
                t.low[rule] = MIN(t.low[rule], t.index[to]);
                g->sym[rule].in_cycle = g->sym[rule].in_cycle || to == rule;
            }
        }
    }
    /* Components come callees first: turned round, so that callers have the lower rank. */
    for (uint32_t i = 0; i < n; i++)
        g->sym[i].rank = t.n_done - g->sym[i].rank;
    free(t.index);
    free(t.low);
    free(t.stack);
    free(t.on_stack);
    free(t.walk);
}

static void find_classes(struct seal *s) {
    struct gram *g = s->g;
    struct rx_pool *p = &g->rx;
    uint32_t *rx = xcalloc(g->n_syms, sizeof *rx), n = 0;
    bool unique = false;
    for (uint32_t i = 0; i < g->n_syms; i++)
        if (s->reached[i] && g->sym[i].is_term) {
            rx[n++] = g->sym[i].rx;
            unique = unique || (g->sym[i].flags & TERM_UNIQUE);
        }
    p->n_classes = rx_classes(g, rx, n, p->class_of, p->class_byte);
    if (unique) { /* keys can be any bytes */
        p->n_classes = 256;
        for (unsigned b = 0; b < 256; b++)
            p->class_of[b] = p->class_byte[b] = (uint8_t)b;
    }
    free(rx);
}

enum rc gram_seal(struct gram *g, uint32_t start, bool strict, struct err *e) {
    CHECK(!g->sealed);
    if (g->fail)
        return over(g, e);
    CHECK(start < g->n_syms);
    if (g->sym[start].is_term) {
        uint32_t rule = gram_rule(g, (struct str){NULL, 0}, 0);
        gram_prod(g, rule, &start, 1);
        start = rule;
    }
    g->start = start;
    gram_spend(g, 8 * ((int64_t)g->n_syms + g->n_parts + g->n_prods));
    if (g->fail)
        return over(g, e);
    size_t n = (size_t)g->n_syms + 2, m = (size_t)g->n_prods + 1;
    struct seal s = {.g = g,
                     .occ = xcalloc(g->n_parts + 1, sizeof(uint32_t)),
                     .occ_of = xcalloc(n, sizeof(uint32_t)),
                     .need = xcalloc(m, sizeof(uint32_t)),
                     .work = xcalloc(n + m, sizeof(uint32_t)),
                     .prods = xcalloc(m, sizeof(uint32_t)),
                     .prods_of = xcalloc(n, sizeof(uint32_t)),
                     .has = xcalloc(n, 1),
                     .reached = xcalloc(n, 1),
                     .kept = xcalloc(m, 1)};
    index_prods(&s);
    enum rc rc = find_productive(&s, strict, e);
    if (rc)
        goto out;
    find_properties(&s);
    lay_places(&s);
    find_ranks(g);
    find_classes(&s);
    g->rx.n_base = g->rx.n;
    g->rx.n_base_sets = g->rx.n_sets;
    g->gc_at = g->limit.memory_bytes / 4 * 3;
    g->sealed = true;
    dfa_init(g);
    config_init(g);
    ctx_init(g);
    g->config_start = ctx_start(g);
    if (g->fail)
        rc = over(g, e);
out:
    free(s.occ);
    free(s.occ_of);
    free(s.need);
    free(s.work);
    free(s.prods);
    free(s.prods_of);
    free(s.has);
    free(s.reached);
    free(s.kept);
    return rc;
}
