#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"

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

/* ---- states ------------------------------------------------------------------------------------- */

/* A branch in the making. All lists are shared with other states and never change. */
struct state {
    struct state *next;
    const struct todo *todo;
    const struct todo *choices, *late; /* a queue: late holds the newest first */
    const struct fact *facts;          /* last first */
    const struct todo *done;           /* literals taken in */
    uint32_t n_absent;
    bool dead;
};

struct expand {
    struct schema *s;
    enum want want;
    struct state *open; /* states to go on with */
    struct branch *first, *last;
    size_t n_branches;
};

static enum rc part_of(struct expand *x, uint32_t lit, enum part *out, struct err *e) {
    struct scalar sc;
    enum rc rc = schema_scalar(x->s, lit, &sc, e);
    if (!rc)
        *out = x->want == WANT_ARRAY ? sc.arr : sc.obj;
    return rc;
}

static void add_fact(struct expand *x, struct state *st, struct fact f) {
    enum fact_kind against = f.kind == FACT_ABSENT ? FACT_REQUIRED : FACT_ABSENT;
    if (f.kind == FACT_ABSENT || (f.kind == FACT_REQUIRED && st->n_absent))
        for (const struct fact *p = st->facts; p; p = p->next)
            if (p->kind == against && strcmp(p->text, f.text) == 0)
                st->dead = true;
    st->n_absent += f.kind == FACT_ABSENT;
    struct fact *own = arena_alloc(&x->s->mem, sizeof *own);
    *own = f;
    own->next = st->facts;
    st->facts = own;
}

/* ---- what a node says --------------------------------------------------------------------------- */

/* value_facts: equals this array, this object. */
static void value_facts(struct expand *x, struct state *st, uint32_t node) {
    const json_t *j = x->s->nodes[node]->j;
    add_fact(x, st, (struct fact){.kind = FACT_SHAPE, .node = node});
    if (x->want == WANT_ARRAY) {
        uint32_t n = (uint32_t)json_array_size(j);
        add_fact(x, st, (struct fact){.kind = FACT_MIN, .count = n, .node = node});
        add_fact(x, st, (struct fact){.kind = FACT_MAX, .count = n});
        return;
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
        add_fact(x, st, (struct fact){.kind = FACT_REQUIRED, .text = key, .node = node});
}

static enum rc array_facts(struct expand *x, struct state *st, uint32_t node, struct err *e) {
    struct schema *s = x->s;
    const struct schema_node *n = s->nodes[node];
    uint32_t count, lit;
    if (schema_count(n, "minItems", &count))
        add_fact(x, st, (struct fact){.kind = FACT_MIN, .count = count, .node = node});
    if (schema_count(n, "maxItems", &count))
        add_fact(x, st, (struct fact){.kind = FACT_MAX, .count = count});
    if (json_object_get(n->j, "items") || json_object_get(n->j, "prefixItems"))
        add_fact(x, st, (struct fact){.kind = FACT_SHAPE, .node = node});
    if (json_is_true(json_object_get(n->j, "uniqueItems")))
        add_fact(x, st, (struct fact){.kind = FACT_UNIQUE, .node = node});
    const json_t *v = json_object_get(n->j, "contains");
    if (!v)
        return RC_OK;
    enum rc rc = schema_sub(s, node, v, "contains", NULL, &lit, e);
    if (rc)
        return rc;
    struct fact f = {.kind = FACT_CONTAINS, .node = node, .lit = lit, .count = 1, .most = SCHEMA_INF};
    (void)schema_count(n, "minContains", &f.count);
    (void)schema_count(n, "maxContains", &f.most);
    add_fact(x, st, f);
    return RC_OK;
}

/* depend: "if this key is there, then ...": without the key, or with it and what it asks for. */
static const struct todo *depend(struct schema *s, uint32_t node, const char *key, const struct todo *asks,
                                 const struct todo *next) {
    struct fact absent = {.kind = FACT_ABSENT, .text = key};
    struct fact there = {.kind = FACT_REQUIRED, .text = key, .node = node};
    const struct option *o = option_add(s, todo_fact(s, there, asks), NULL);
    return todo_choice(s, option_add(s, todo_fact(s, absent, NULL), o), next);
}

static enum rc dependencies(struct schema *s, uint32_t node, const char *keyword, const struct todo **todo,
                            struct err *e) {
    const json_t *map = json_object_get(s->nodes[node]->j, keyword);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        const struct todo *asks = NULL;
        uint32_t lit;
        if (json_is_array(v)) {
            for (size_t i = json_array_size(v); i-- > 0;) {
                const char *name = json_string_value(json_array_get(v, i));
                asks = todo_fact(s, (struct fact){.kind = FACT_REQUIRED, .text = name, .node = node}, asks);
            }
        } else {
            enum rc rc = schema_sub(s, node, v, keyword, key, &lit, e);
            if (rc)
                return rc;
            asks = todo_lit(s, lit, NULL);
        }
        *todo = depend(s, node, key, asks, *todo);
    }
    return RC_OK;
}

static enum rc object_facts(struct expand *x, struct state *st, uint32_t node, struct err *e) {
    struct schema *s = x->s;
    const struct schema_node *n = s->nodes[node];
    const json_t *v;
    uint32_t count, lit;
    size_t i;
    enum rc rc = RC_OK;
    if (schema_count(n, "minProperties", &count))
        add_fact(x, st, (struct fact){.kind = FACT_MIN, .count = count, .node = node});
    if (schema_count(n, "maxProperties", &count))
        add_fact(x, st, (struct fact){.kind = FACT_MAX, .count = count});
    if (json_object_get(n->j, "properties") || json_object_get(n->j, "patternProperties") ||
        json_object_get(n->j, "additionalProperties"))
        add_fact(x, st, (struct fact){.kind = FACT_SHAPE, .node = node});
    json_array_foreach(json_object_get(n->j, "required"), i, v)
        add_fact(x, st, (struct fact){.kind = FACT_REQUIRED, .text = json_string_value(v), .node = node});
    if ((v = json_object_get(n->j, "propertyNames"))) {
        rc = schema_sub(s, node, v, "propertyNames", NULL, &lit, e);
        if (!rc)
            add_fact(x, st, (struct fact){.kind = FACT_NAMES, .lit = lit, .node = node});
    }
    if (!rc)
        rc = dependencies(s, node, "dependentRequired", &st->todo, e);
    if (!rc)
        rc = dependencies(s, node, "dependentSchemas", &st->todo, e);
    return rc ? rc : dependencies(s, node, "dependencies", &st->todo, e);
}

/* ---- keywords in place -------------------------------------------------------------------------- */

static enum rc member(struct schema *s, uint32_t node, const char *keyword, size_t i, uint32_t *lit,
                      struct err *e) {
    char index[24];
    snprintf(index, sizeof index, "%zu", i);
    const json_t *list = json_object_get(s->nodes[node]->j, keyword);
    return schema_sub(s, node, json_array_get(list, i), keyword, index, lit, e);
}

/* any_of: a choice between the members of anyOf; of oneOf too, each without those others that share a value
 * with it. */
static enum rc any_of(struct expand *x, uint32_t node, const char *keyword, const struct todo **todo,
                      struct err *e) {
    struct schema *s = x->s;
    const json_t *list = json_object_get(s->nodes[node]->j, keyword);
    const struct option *o = NULL;
    const bool *shares = NULL;
    enum rc rc = RC_OK;
    size_t n = json_array_size(list);
    if (!list)
        return RC_OK;
    if (keyword[0] == 'o')
        rc = schema_shares(s, x->want, node, &shares, e);
    for (size_t i = n; !rc && i-- > 0;) {
        const struct todo *t = NULL;
        uint32_t lit;
        for (size_t k = n; shares && !rc && k-- > 0;)
            if (shares[i * n + k] && !(rc = member(s, node, keyword, k, &lit, e)))
                t = todo_lit(s, lit_not(lit), t);
        if (!rc)
            rc = member(s, node, keyword, i, &lit, e);
        if (!rc)
            rc = schema_step(s, 1 + (shares ? n : 0), e);
        if (!rc)
            o = option_add(s, todo_lit(s, lit, t), o);
    }
    if (!rc)
        *todo = todo_choice(s, o, *todo);
    return rc;
}

static enum rc if_then_else(struct schema *s, uint32_t node, const struct todo **todo, struct err *e) {
    const json_t *j = s->nodes[node]->j, *cond = json_object_get(j, "if");
    const json_t *then = json_object_get(j, "then"), *other = json_object_get(j, "else");
    uint32_t c, t = LIT_TRUE, o = LIT_TRUE;
    if (!cond || (!then && !other))
        return RC_OK;
    enum rc rc = schema_sub(s, node, cond, "if", NULL, &c, e);
    if (!rc && then)
        rc = schema_sub(s, node, then, "then", NULL, &t, e);
    if (!rc && other)
        rc = schema_sub(s, node, other, "else", NULL, &o, e);
    if (rc)
        return rc;
    const struct option *no = option_add(s, todo_lit(s, lit_not(c), todo_lit(s, o, NULL)), NULL);
    *todo = todo_choice(s, option_add(s, todo_lit(s, c, todo_lit(s, t, NULL)), no), *todo);
    return RC_OK;
}

/* values: a choice between the arrays or objects of enum and const. */
static void values(struct expand *x, uint32_t node, const struct todo **todo) {
    struct schema *s = x->s;
    const json_t *j = s->nodes[node]->j, *list = json_object_get(j, "enum");
    const json_t *value = json_object_get(j, "const");
    json_type type = x->want == WANT_ARRAY ? JSON_ARRAY : JSON_OBJECT;
    const struct option *o = NULL;
    for (size_t i = json_array_size(list); i-- > 0;) {
        const json_t *v = json_array_get(list, i);
        if (json_typeof(v) == type)
            o = option_add(s, todo_lit(s, schema_value(s, node, v), NULL), o);
    }
    if (list)
        *todo = todo_choice(s, o, *todo);
    if (value)
        *todo = todo_lit(s, schema_value(s, node, value), *todo);
}

/* positive: takes a node apart: its facts now, what stands in place to be done, in the order of the names
 * below. */
static enum rc positive(struct expand *x, struct state *st, uint32_t node, struct err *e) {
    struct schema *s = x->s;
    const struct schema_node *n = s->nodes[node];
    const json_t *ref = schema_ref_of(n), *v;
    bool only_ref = schema_only_ref(s, n);
    uint32_t lit;
    enum rc rc = RC_OK;
    if (!only_ref) {
        rc = x->want == WANT_ARRAY ? array_facts(x, st, node, e) : object_facts(x, st, node, e);
        if (!rc)
            rc = if_then_else(s, node, &st->todo, e);
        if (!rc)
            rc = any_of(x, node, "oneOf", &st->todo, e);
        if (!rc)
            rc = any_of(x, node, "anyOf", &st->todo, e);
        if (!rc && (v = json_object_get(n->j, "not")) && !(rc = schema_sub(s, node, v, "not", NULL, &lit, e)))
            st->todo = todo_lit(s, lit_not(lit), st->todo);
        for (size_t i = json_array_size(json_object_get(n->j, "allOf")); !rc && i-- > 0;)
            if (!(rc = member(s, node, "allOf", i, &lit, e)))
                st->todo = todo_lit(s, lit, st->todo);
        values(x, node, &st->todo);
    }
    if (!rc && ref && !(rc = schema_ref(s, node, ref, &lit, e)))
        st->todo = todo_lit(s, lit, st->todo);
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
            value_facts(x, st, lit / 2);
        return value ? schema_step(s, 1, e) : positive(x, st, lit / 2, e);
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
            add_fact(x, st, t->fact);
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
            enum rc rc = member(s, node, "oneOf", i, &pair[0], e);
            if (!rc)
                rc = member(s, node, "oneOf", k, &pair[1], e);
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
