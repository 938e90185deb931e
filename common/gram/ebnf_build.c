/* ebnf_build.c: from the tree of a grammar's text to expressions and rules.
 *
 * Every rule must be defined and derive something. What the start rule needs is then built from the leaves up
 * (Tarjan's components: a rule comes after all it refers to, unless they refer back): a rule that does not
 * recurse and is made of expressions alone becomes one expression, which runs as an automaton; the rest
 * become productions. Lark's %ignore is part of each terminal: it may follow any, and begin the text.
 */
#include "common/gram/ebnf.h"

#include <stdlib.h>

/* A rule whose expression is larger or deeper than this is a terminal of its own and not copied into others.
 */
enum { INLINE_STATES_MAX = 2000, INLINE_NESTING_MAX = 100 };

struct part {
    bool is_rx;
    uint32_t id; /* expression or symbol */
    uint32_t n_states, nesting;
};

struct builder {
    struct ebnf *b;
    uint32_t ignore; /* expression of what may follow a terminal; RX_EMPTY: nothing */
    uint32_t *stack; /* Tarjan: rules without component yet */
    uint32_t n_stack, n_order;
};

static enum rc bad_rule(struct ebnf *b, const struct eb_rule *r, const char *what) {
    return eb_bad(b, r->at, "\"%.*s\" %s", (int)MIN(r->name.n, 80), r->name.p, what);
}

/* ---- what derives something ---------------------------------------------------------------------- */

/* wait_of: how many children must derive something first; 0: it does by itself. */
static uint32_t wait_of(const struct ebnf *b, const struct eb_node *n) {
    uint32_t count = 0;
    switch (n->kind) {
    case EB_SYM:
        return 0;
    case EB_RX:
        return n->id == RX_NONE;
    case EB_REP:
        return n->min > 0;
    case EB_REF:
    case EB_ALT:
        return 1;
    case EB_SEQ:
        for (uint32_t c = n->id; c != EB_NIL; c = b->nodes[c].next)
            count++;
        return count;
    }
    return 1;
}

/* found: node derives something; what follows from that goes on the list. */
static void found(struct ebnf *b, uint32_t node, uint32_t *list, uint32_t *n) {
    const struct eb_node *at = &b->nodes[node];
    if (at->parent != EB_NIL) {
        struct eb_node *up = &b->nodes[at->parent];
        if (up->n_wait && --up->n_wait == 0)
            list[(*n)++] = at->parent;
    } else if (at->rule != EB_NIL && !b->rules[at->rule].productive) {
        b->rules[at->rule].productive = true;
        for (uint32_t r = b->rules[at->rule].refs; r != EB_NIL; r = b->nodes[r].next_ref)
            if (b->nodes[r].n_wait && --b->nodes[r].n_wait == 0)
                list[(*n)++] = r;
    }
}

static enum rc check_rules(struct ebnf *b) {
    for (uint32_t i = 0; i < b->n_rules; i++)
        if (b->rules[i].body == EB_NIL)
            return bad_rule(b, &b->rules[i], "is not defined");
    uint32_t *list = xreallocarray(NULL, b->n_nodes + 1, sizeof *list), n = 0;
    for (uint32_t i = 0; i < b->n_nodes; i++)
        if ((b->nodes[i].n_wait = wait_of(b, &b->nodes[i])) == 0)
            list[n++] = i;
    while (n)
        found(b, list[--n], list, &n);
    free(list);
    for (uint32_t i = 0; i < b->n_rules; i++)
        if (!b->rules[i].productive)
            return bad_rule(b, &b->rules[i], "derives no string");
    return RC_OK;
}

/* ---- from nodes to parts ------------------------------------------------------------------------- */

static uint32_t part_symbol(struct builder *w, const struct part *p) {
    return p->is_rx ? gram_term(w->b->g, p->id, 0) : p->id;
}

static uint32_t add_states(uint32_t a, uint32_t b) {
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* token: a terminal where a rule uses it. */
static struct part token(struct builder *w, uint32_t rx, uint32_t n_states, uint32_t nesting) {
    struct part p = {true, rx, n_states, nesting};
    if (w->ignore != RX_EMPTY && rx != RX_EMPTY) {
        p.id = rx_cat(w->b->g, rx, w->ignore);
        p.n_states = add_states(n_states, 1);
        p.nesting++;
    }
    return p;
}

/* A list of parts in which neighbouring expressions are one. */
struct parts {
    struct part *p;
    size_t n, cap;
};

static void parts_add(struct parts *l, struct part p) {
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 8;
        l->p = xreallocarray(l->p, l->cap, sizeof *l->p);
    }
    l->p[l->n++] = p;
}

/* parts_join: from the right, so that a list of expressions costs one step each. */
static void parts_join(struct builder *w, struct parts *l) {
    size_t kept = l->n;
    for (size_t i = l->n; i-- > 0;) {
        if (kept < l->n && l->p[i].is_rx && l->p[kept].is_rx) {
            l->p[kept].id = rx_cat(w->b->g, l->p[i].id, l->p[kept].id);
            l->p[kept].n_states = add_states(l->p[kept].n_states, l->p[i].n_states);
            l->p[kept].nesting = MAX(l->p[kept].nesting, l->p[i].nesting + 1);
        } else {
            l->p[--kept] = l->p[i];
        }
    }
    l->n -= kept;
    memmove(l->p, l->p + kept, l->n * sizeof *l->p);
}

static void parts_prod(struct builder *w, uint32_t rule, const struct parts *l) {
    uint32_t *ids = xreallocarray(NULL, l->n + 1, sizeof *ids);
    for (size_t i = 0; i < l->n; i++)
        ids[i] = part_symbol(w, &l->p[i]);
    gram_prod(w->b->g, rule, ids, l->n);
    free(ids);
}

static enum rc lower(struct builder *w, uint32_t node, bool in_terminal, struct part *out);

static enum rc lower_list(struct builder *w, uint32_t node, bool in_terminal, struct parts *out) {
    for (uint32_t c = w->b->nodes[node].id; c != EB_NIL; c = w->b->nodes[c].next) {
        struct part p;
        enum rc rc = lower(w, c, in_terminal, &p);
        if (rc)
            return rc;
        parts_add(out, p);
    }
    return RC_OK;
}

static enum rc lower_seq(struct builder *w, uint32_t node, bool in_terminal, struct parts *out) {
    enum rc rc = lower_list(w, node, in_terminal, out);
    if (rc == RC_OK)
        parts_join(w, out);
    return rc;
}

/* alternatives_join: the expressions among them become one, the first. */
static void alternatives_join(struct builder *w, struct parts *l) {
    uint32_t *ids = xreallocarray(NULL, l->n + 1, sizeof *ids), n_states = 0, nesting = 0;
    size_t n_ids = 0, kept = 1;
    for (size_t i = 0; i < l->n; i++) {
        if (l->p[i].is_rx) {
            ids[n_ids++] = l->p[i].id;
            n_states = add_states(n_states, l->p[i].n_states);
            nesting = MAX(nesting, l->p[i].nesting + 1);
        }
    }
    if (n_ids > 1) {
        struct parts out = {0};
        parts_add(&out, (struct part){true, rx_alt_n(w->b->g, ids, n_ids), n_states, nesting});
        for (size_t i = 0; i < l->n; i++)
            if (!l->p[i].is_rx)
                parts_add(&out, l->p[i]);
        kept = out.n;
        memcpy(l->p, out.p, kept * sizeof *out.p);
        l->n = kept;
        free(out.p);
    }
    free(ids);
}

/* productions: of a rule from the node that is its body. */
static enum rc productions(struct builder *w, uint32_t rule, uint32_t node) {
    struct parts l = {0};
    struct part one;
    enum rc rc;
    const struct eb_node *n = &w->b->nodes[node];
    if (n->kind == EB_SEQ) {
        rc = lower_seq(w, node, false, &l);
        if (rc == RC_OK)
            parts_prod(w, rule, &l);
    } else if (n->kind != EB_ALT) {
        if ((rc = lower(w, node, false, &one)) == RC_OK)
            parts_prod(w, rule, &(struct parts){&one, 1, 1});
    } else {
        /* Each alternative that is a list becomes a production itself; the rest are lowered and joined. */
        rc = RC_OK;
        for (uint32_t c = n->id; c != EB_NIL && rc == RC_OK; c = w->b->nodes[c].next) {
            struct parts seq = {0};
            if (w->b->nodes[c].kind == EB_SEQ) {
                rc = lower_seq(w, c, false, &seq);
                if (rc == RC_OK && seq.n == 1)
                    parts_add(&l, seq.p[0]);
                else if (rc == RC_OK)
                    parts_prod(w, rule, &seq);
            } else if ((rc = lower(w, c, false, &one)) == RC_OK) {
                parts_add(&l, one);
            }
            free(seq.p);
        }
        if (rc == RC_OK)
            alternatives_join(w, &l);
        for (size_t i = 0; i < l.n && rc == RC_OK; i++)
            parts_prod(w, rule, &(struct parts){&l.p[i], 1, 1});
    }
    free(l.p);
    return rc;
}

static enum rc lower_rep(struct builder *w, uint32_t node, bool in_terminal, struct part *out) {
    struct ebnf *b = w->b;
    uint32_t min = b->nodes[node].min, max = b->nodes[node].max;
    struct part p;
    enum rc rc = lower(w, b->nodes[node].id, in_terminal, &p);
    if (rc)
        return rc;
    const struct gram_limits *limits = gram_limits_of(b->g);
    uint32_t bound = max == RX_INF ? min : max;
    uint64_t n_states = (uint64_t)p.n_states * MAX(bound, 1);
    bool small = n_states <= limits->regex_states && bound <= limits->regex_repeat;
    if (p.is_rx && (small || p.id == RX_EMPTY))
        *out = (struct part){true, rx_repeat(b->g, p.id, min, max), (uint32_t)n_states, p.nesting + 1};
    else if (in_terminal)
        return err_set(
            b->e, RC_INVALID, NULL,
            "grammar: a terminal with its repeats written out is longer than %u (--max-regex-states), or a "
            "bound is above %u (--max-regex-repeat)",
            limits->regex_states, limits->regex_repeat);
    else
        *out = (struct part){false, gram_repeat(b->g, part_symbol(w, &p), EB_NIL, min, max), 0, 0};
    return RC_OK;
}

/* lower: recursion is bounded by the depth of groups (ebnf.h): three calls a level. */
static enum rc lower(struct builder *w, uint32_t node, bool in_terminal, struct part *out) {
    struct ebnf *b = w->b;
    const struct eb_node *n = &b->nodes[node];
    struct parts l = {0};
    enum rc rc = RC_OK;
    if (n->kind == EB_RX) {
        *out = in_terminal ? (struct part){true, n->id, n->n_states, n->nesting}
                           : token(w, n->id, n->n_states, n->nesting);
    } else if (n->kind == EB_SYM) {
        *out = (struct part){false, n->id, 0, 0};
        if (w->ignore != RX_EMPTY) {
            struct part pair[2] = {*out, {true, w->ignore, 1, 0}};
            out->id = gram_rule(b->g, (struct str){NULL, 0}, 0);
            parts_prod(w, out->id, &(struct parts){pair, 2, 2});
        }
    } else if (n->kind == EB_REF) {
        const struct eb_rule *r = &b->rules[n->id];
        *out = (struct part){r->is_rx && r->terminal >= in_terminal, r->sym, r->n_states, r->nesting};
        if (r->is_rx && r->terminal && !in_terminal)
            *out = token(w, r->sym, r->n_states, r->nesting);
    } else if (n->kind == EB_REP) {
        rc = lower_rep(w, node, in_terminal, out);
    } else {
        rc = n->kind == EB_SEQ ? lower_seq(w, node, in_terminal, &l) : lower_list(w, node, in_terminal, &l);
        if (rc == RC_OK && n->kind == EB_ALT)
            alternatives_join(w, &l);
        if (rc == RC_OK && l.n == 1) {
            *out = l.p[0];
        } else if (rc == RC_OK) {
            *out = (struct part){false, gram_rule(b->g, (struct str){NULL, 0}, 0), 0, 0};
            if (n->kind == EB_SEQ)
                parts_prod(w, out->id, &l);
            for (size_t i = 0; i < l.n && n->kind == EB_ALT; i++)
                parts_prod(w, out->id, &(struct parts){&l.p[i], 1, 1});
        }
    }
    free(l.p);
    if (rc == RC_OK && in_terminal && !out->is_rx)
        return err_set(b->e, RC_INVALID, NULL, "grammar: a terminal uses a rule");
    return rc;
}

/* ---- components ---------------------------------------------------------------------------------- */

static bool refers_to_itself(const struct ebnf *b, uint32_t rule) {
    for (uint32_t i = b->rules[rule].node0; i < b->rules[rule].node1; i++)
        if (b->nodes[i].kind == EB_REF && b->nodes[i].id == rule)
            return true;
    return false;
}

static enum rc build_alone(struct builder *w, uint32_t rule) {
    struct ebnf *b = w->b;
    struct part p;
    enum rc rc = lower(w, b->rules[rule].body, b->rules[rule].terminal, &p);
    if (rc)
        return rc;
    struct eb_rule *r = &b->rules[rule];
    r->is_rx =
        p.is_rx && (r->terminal || (p.n_states <= INLINE_STATES_MAX && p.nesting <= INLINE_NESTING_MAX));
    r->sym = r->is_rx ? p.id : part_symbol(w, &p);
    r->n_states = r->is_rx ? p.n_states : 0;
    r->nesting = r->is_rx ? p.nesting : 0;
    return RC_OK;
}

/* build_component: the rules on Tarjan's stack down to `root` refer to each other and to what is built. */
static enum rc build_component(struct builder *w, uint32_t root) {
    struct ebnf *b = w->b;
    uint32_t from = w->n_stack;
    do
        b->rules[w->stack[--from]].on_stack = false;
    while (w->stack[from] != root);
    const uint32_t *members = w->stack + from;
    uint32_t n = w->n_stack - from;
    w->n_stack = from;
    if (n == 1 && !refers_to_itself(b, root))
        return build_alone(w, root);
    for (uint32_t i = 0; i < n; i++) {
        struct eb_rule *r = &b->rules[members[i]];
        if (r->terminal)
            return bad_rule(b, r, "is a terminal defined by itself");
        r->sym = gram_rule(b->g, r->name, 0);
    }
    for (uint32_t i = 0; i < n; i++) {
        enum rc rc = productions(w, b->rules[members[i]].sym, b->rules[members[i]].body);
        if (rc)
            return rc;
    }
    return RC_OK;
}

struct visit {
    uint32_t rule, node; /* node: the next one to look at */
};

static void visit_begin(struct builder *w, struct visit *v, uint32_t rule) {
    struct eb_rule *r = &w->b->rules[rule];
    r->order = r->low = ++w->n_order;
    r->on_stack = true;
    w->stack[w->n_stack++] = rule;
    *v = (struct visit){rule, r->node0};
}

/* visit_next: moves to the next reference; false at the end of the rule. */
static bool visit_next(struct builder *w, struct visit *v, uint32_t *to) {
    struct eb_rule *r = &w->b->rules[v->rule];
    while (v->node < r->node1) {
        const struct eb_node *n = &w->b->nodes[v->node];
        if (n->kind != EB_REF) {
            v->node++;
            continue;
        }
        const struct eb_rule *callee = &w->b->rules[n->id];
        if (callee->order && callee->on_stack)
            r->low = MIN(r->low, callee->low);
        v->node++;
        if (!callee->order) {
            v->node--; /* look again when it is known */
            *to = n->id;
            return true;
        }
    }
    return false;
}

static enum rc build_rule(struct builder *w, uint32_t start) {
    struct ebnf *b = w->b;
    if (b->rules[start].order)
        return RC_OK;
    struct visit *path = xreallocarray(NULL, b->n_rules, sizeof *path);
    size_t depth = 1;
    enum rc rc = RC_OK;
    visit_begin(w, &path[0], start);
    while (depth > 0 && rc == RC_OK) {
        uint32_t to;
        if (visit_next(w, &path[depth - 1], &to)) {
            visit_begin(w, &path[depth++], to);
            continue;
        }
        const struct eb_rule *r = &b->rules[path[--depth].rule];
        if (r->low == r->order)
            rc = build_component(w, path[depth].rule);
    }
    free(path);
    return rc;
}

/* build_ignore: what %ignore names, any number of times. */
static enum rc build_ignore(struct builder *w, uint32_t node0, uint32_t node) {
    struct ebnf *b = w->b;
    for (uint32_t i = node0; i < b->n_nodes; i++) {
        bool mine = b->nodes[i].kind == EB_REF;
        uint32_t top = i;
        while (mine && b->nodes[top].parent != EB_NIL)
            top = b->nodes[top].parent;
        enum rc rc = mine && top == node ? build_rule(w, b->nodes[i].id) : RC_OK;
        if (rc)
            return rc;
    }
    struct part p;
    enum rc rc = lower(w, node, true, &p);
    if (rc == RC_OK)
        w->ignore = rx_repeat(b->g, p.id, 0, RX_INF);
    return rc;
}

enum rc eb_build(struct ebnf *b, struct str start, uint32_t *sym) {
    uint32_t n_named = b->n_rules, root = eb_rule_of(b, start, 0);
    if (root == n_named)
        return err_set(b->e, RC_INVALID, NULL, "grammar: there is no rule \"%.*s\", the start", (int)start.n,
                       start.p);
    enum rc rc = check_rules(b);
    struct builder w = {.b = b, .ignore = RX_EMPTY};
    w.stack = xreallocarray(NULL, b->n_rules, sizeof *w.stack);
    if (rc == RC_OK && b->ignore != EB_NIL)
        rc = build_ignore(&w, 0, b->ignore);
    if (rc == RC_OK)
        rc = build_rule(&w, root);
    free(w.stack);
    if (rc)
        return rc;
    const struct eb_rule *r = &b->rules[root];
    struct part parts[2] = {{true, w.ignore, 1, 0}, {r->is_rx, r->sym, r->n_states, r->nesting}};
    if (r->is_rx) {
        *sym = gram_term(b->g, rx_cat(b->g, w.ignore, r->sym), 0);
    } else if (w.ignore == RX_EMPTY) {
        *sym = r->sym;
    } else {
        *sym = gram_rule(b->g, start, 0);
        parts_prod(&w, *sym, &(struct parts){parts, 2, 2});
    }
    return RC_OK;
}
