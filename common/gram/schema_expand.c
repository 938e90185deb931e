#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema_expand.h"

/* ---- lists -------------------------------------------------------------------------------------- */

const struct todo *todo_lit(struct schema *s, uint32_t lit, const struct todo *next) {
    struct todo *t = arena_zalloc(&s->mem, 1, sizeof *t);
    *t = (struct todo){.next = next, .kind = TODO_LIT, .lit = lit};
    return t;
}

const struct todo *todo_fact(struct schema *s, struct fact f, const struct todo *next) {
    struct todo *t = arena_zalloc(&s->mem, 1, sizeof *t);
    *t = (struct todo){.next = next, .kind = TODO_FACT, .fact = f};
    return t;
}

const struct todo *todo_choice(struct schema *s, const struct option *o, const struct todo *next) {
    struct todo *t = arena_zalloc(&s->mem, 1, sizeof *t);
    *t = (struct todo){.next = next, .kind = TODO_CHOICE, .options = o};
    return t;
}

const struct option *option_add(struct schema *s, const struct todo *todo, const struct option *next) {
    struct option *o = arena_alloc(&s->mem, sizeof *o);
    *o = (struct option){next, todo};
    return o;
}

void lits_add(struct schema *s, struct lits *l, uint32_t lit) {
    if (l->n == l->cap) {
        size_t cap = MAX(8, l->cap * 2);
        uint32_t *v = arena_alloc(&s->mem, cap * sizeof *v);
        if (l->n)
            memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = lit;
}

static enum rc part_of(struct expand *x, uint32_t lit, enum part *out, struct err *e) {
    struct scalar sc;
    enum rc rc = schema_scalar(x->s, lit, &sc, e);
    if (!rc)
        *out = x->want == WANT_ARRAY ? sc.arr : sc.obj;
    return rc;
}

/* ---- the search --------------------------------------------------------------------------------- */

static enum rc take_lit(struct expand *x, struct state *st, uint32_t lit, struct err *e) {
    struct schema *s = x->s;
    enum part part;
    enum rc rc = schema_plain(s, &lit, e);
    if (!rc)
        rc = part_of(x, lit, &part, e);
    if (rc)
        return rc;
    st->dead = part == PART_NONE;
    if (part != PART_SOME)
        return RC_OK;
    for (const struct todo *d = st->done; d; d = d->next) {
        s->steps++;
        if (d->lit == lit)
            return RC_OK;
        if (d->lit == lit_not(lit)) {
            st->dead = true;
            return RC_OK;
        }
    }
    st->done = todo_lit(s, lit, st->done);
    bool value = s->nodes[lit / 2]->kind == NODE_VALUE;
    const struct option *o;
    if (!lit_negated(lit)) {
        if (value)
            says_value(x, st, lit / 2);
        return value ? schema_step(s, 1, e) : says_schema(x, st, lit / 2, e);
    }
    if (value)
        o = schema_deny_value(s, x->want, lit / 2);
    else if ((rc = schema_deny(s, x->want, lit / 2, &o, e)))
        return rc;
    st->todo = todo_choice(s, o, st->todo);
    return schema_step(s, 1, e);
}

/* weigh: 0: the option has no value for sure, 2: every value, 1: neither. */
static enum rc weigh(struct expand *x, const struct todo *t, int *out, struct err *e) {
    *out = 2;
    for (; t && *out; t = t->next) {
        enum part part = PART_SOME;
        enum rc rc = t->kind == TODO_LIT ? part_of(x, t->lit, &part, e) : RC_OK;
        if (rc)
            return rc;
        *out = part == PART_NONE ? 0 : part == PART_SOME ? 1 : *out;
    }
    return RC_OK;
}

/* branch_out: a state for each option of a choice that may have values; none if one of them has all. */
static enum rc branch_out(struct expand *x, struct state *st, const struct option *all, struct err *e) {
    struct state *made = NULL, **tail = &made;
    for (const struct option *o = all; o; o = o->next) {
        int weight;
        enum rc rc = weigh(x, o->todo, &weight, e);
        if (!rc)
            rc = schema_step(x->s, 1, e);
        if (rc)
            return rc;
        if (weight == 2) {
            st->next = x->open;
            x->open = st;
            return RC_OK;
        }
        if (weight == 0)
            continue;
        struct state *new = arena_alloc(&x->s->mem, sizeof *new);
        *new = *st;
        new->todo = o->todo;
        *tail = new;
        tail = &new->next;
    }
    *tail = x->open;
    x->open = made ? made : x->open;
    return RC_OK;
}

static enum rc finish(struct expand *x, const struct state *st, struct err *e) {
    struct schema *s = x->s;
    struct branch *b = arena_zalloc(&s->mem, 1, sizeof *b);
    for (const struct fact *f = st->facts; f; f = f->next) {
        struct fact *copy = arena_alloc(&s->mem, sizeof *copy);
        *copy = *f;
        copy->next = b->facts;
        b->facts = copy;
        s->steps++;
    }
    bool dead = false;
    enum rc rc = x->want == WANT_OBJECT ? object_dead(s, b, &dead, e) : array_dead(s, b, &dead, e);
    if (rc || dead)
        return rc;
    if (++x->n_branches > SCHEMA_BRANCHES_MAX)
        return err_set(e, RC_INVALID, NULL,
                       "JSON Schema: too complex: more than %d combinations of anyOf, oneOf, if and not "
                       "for one %s",
                       SCHEMA_BRANCHES_MAX, want_name(x->want));
    if (x->last)
        x->last->next = b;
    else
        x->first = b;
    x->last = b;
    return schema_step(s, 1, e);
}

/* turn: the queue's newer half becomes its older one. */
static void turn(struct schema *s, struct state *st) {
    for (; st->late; st->late = st->late->next)
        st->choices = todo_choice(s, st->late->options, st->choices);
}

static enum rc advance(struct expand *x, struct state *st, struct err *e) {
    enum rc rc = RC_OK;
    while (!rc && st->todo && !st->dead) {
        const struct todo *t = st->todo;
        st->todo = t->next;
        switch (t->kind) {
        case TODO_LIT:
            rc = take_lit(x, st, t->lit, e);
            break;
        case TODO_FACT:
            says_fact(x, st, t->fact);
            break;
        case TODO_CHOICE:
            st->late = todo_choice(x->s, t->options, st->late);
            break;
        }
    }
    if (rc || st->dead)
        return rc;
    if (!st->choices)
        turn(x->s, st);
    const struct todo *choice = st->choices;
    if (!choice)
        return finish(x, st, e);
    st->choices = choice->next;
    return branch_out(x, st, choice->options, e);
}

enum rc schema_expand(struct schema *s, enum want want, const uint32_t *lits, size_t n, struct branch **out,
                      struct err *e) {
    struct expand x = {.s = s, .want = want};
    struct state *first = arena_zalloc(&s->mem, 1, sizeof *first);
    enum rc rc = RC_OK;
    if (s->depth == SCHEMA_DEPTH_MAX)
        return err_set(e, RC_INVALID, NULL, "JSON Schema: oneOf is nested deeper than %d", SCHEMA_DEPTH_MAX);
    s->depth++;
    for (size_t i = n; i-- > 0;)
        first->todo = todo_lit(s, lits[i], first->todo);
    x.open = first;
    while (!rc && x.open) {
        struct state *st = x.open;
        x.open = st->next;
        rc = advance(&x, st, e);
    }
    s->depth--;
    if (!rc)
        *out = x.first;
    return rc;
}

/* told_apart: two members, plain, have a key that one of them requires and that no value fits in both. It
 * finds what schema_expand finds, at less cost, where members name their kind in a key. */
static enum rc told_apart(struct schema *s, const uint32_t pair[2], bool *yes, struct err *e) {
    const json_t *a = s->nodes[pair[0] / 2]->j, *b = s->nodes[pair[1] / 2]->j, *name;
    const json_t *in_a = json_object_get(a, "properties"), *in_b = json_object_get(b, "properties");
    size_t i, n_a = json_array_size(json_object_get(a, "required"));
    size_t n_b = json_array_size(json_object_get(b, "required"));
    *yes = false;
    for (i = 0; i < n_a + n_b && !*yes; i++) {
        name = i < n_a ? json_array_get(json_object_get(a, "required"), i)
                       : json_array_get(json_object_get(b, "required"), i - n_a);
        const char *key = json_string_value(name);
        const json_t *v = json_object_get(in_a, key), *w = json_object_get(in_b, key);
        uint32_t lits[2];
        if (!v || !w)
            continue;
        enum rc rc = schema_sub(s, pair[0] / 2, v, "properties", key, &lits[0], e);
        if (!rc)
            rc = schema_sub(s, pair[1] / 2, w, "properties", key, &lits[1], e);
        if (!rc)
            rc = schema_void(s, lits, 2, yes, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}

/* overlap: it cannot be ruled out that a value meets both. */
static enum rc overlap(struct schema *s, enum want want, uint32_t pair[2], bool *yes, struct err *e) {
    struct branch *b;
    bool apart = false;
    enum rc rc = schema_plain(s, &pair[0], e);
    if (!rc)
        rc = schema_plain(s, &pair[1], e);
    if (!rc && want == WANT_OBJECT && !lit_negated(pair[0]) && !lit_negated(pair[1]))
        rc = told_apart(s, pair, &apart, e);
    *yes = false;
    if (rc || apart)
        return rc;
    rc = schema_expand(s, want, pair, 2, &b, e);
    *yes = !rc && b;
    return rc;
}

enum rc schema_shares(struct schema *s, enum want want, uint32_t node, const bool **out, struct err *e) {
    struct schema_node *n = s->nodes[node];
    size_t n_members = json_array_size(json_object_get(n->j, "oneOf"));
    if (n_members > SCHEMA_ONE_OF_MAX)
        return schema_fail(s, node, "oneOf", e, "has %zu members; at most %d are supported", n_members,
                           SCHEMA_ONE_OF_MAX);
    bool *shares = arena_zalloc(&s->mem, n_members * n_members, 1);
    for (size_t i = 0; i < n_members && !n->shares[want]; i++)
        for (size_t k = i + 1; k < n_members; k++) {
            uint32_t pair[2];
            bool yes;
            enum rc rc = says_member(s, node, "oneOf", i, &pair[0], e);
            if (!rc)
                rc = says_member(s, node, "oneOf", k, &pair[1], e);
            if (!rc)
                rc = overlap(s, want, pair, &yes, e);
            if (rc)
                return rc;
            shares[i * n_members + k] = shares[k * n_members + i] = yes;
        }
    if (!n->shares[want])
        n->shares[want] = shares;
    *out = n->shares[want];
    return RC_OK;
}
