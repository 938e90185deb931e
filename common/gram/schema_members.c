/* The members of an object as productions.
 *
 * Names come in order, each at most once; then extra keys, right-recursive so that the engine knows each key
 * before the next (ir.h). A state is the next name, whether a member has been written yet, and, where
 * minProperties or maxProperties matter, how many. */
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema_object.h"

enum { MEMBERS_LOOSE_MAX = 6 }; /* each subset of them is a state */

struct member {
    uint32_t key, value; /* symbols; key with its colon */
    bool required;
};

struct members {
    struct object *o;
    struct member *m; /* in this order */
    size_t n;
    struct cell *cell; /* extra keys, in any order */
    size_t n_cells;
    struct member *loose; /* names that no `properties` declares: at any place behind those in order */
    size_t n_loose;
    bool open;         /* there are extra keys without end */
    uint32_t must;     /* the loose ones that must come, as bits */
    uint32_t cap;      /* counts above it are alike */
    uint32_t min, max; /* what is left to be counted; max SCHEMA_INF: nothing */
    uint32_t *extra;   /* [1 << n_loose][cap + 1] rules: what follows a member once the names are through, by
                        * the loose keys that have come */
};

static bool may_end(const struct members *w, uint32_t count) {
    return count >= w->min;
}

static uint32_t count_on(const struct members *w, uint32_t count) {
    return MIN(count + 1, w->cap);
}

static bool may_grow(const struct members *w, uint32_t count) {
    return w->max == SCHEMA_INF || count < w->max;
}

static uint32_t extra_at(const struct members *w, uint32_t came, uint32_t count) {
    return w->extra[(size_t)came * (w->cap + 1) + count];
}

/* one_extra: productions of one more extra key, behind `comma` or, if that is UINT32_MAX, in first place. */
static void one_extra(struct members *w, uint32_t rule, uint32_t comma, uint32_t came, uint32_t count) {
    struct schema *s = w->o->s;
    struct gram *g = s->g;
    size_t skip = comma == UINT32_MAX;
    if (!may_grow(w, count))
        return;
    for (size_t i = 0; i < w->n_cells; i++) {
        uint32_t key = gram_term(g, jt_quoted(g, w->cell[i].rx), TERM_UNIQUE);
        uint32_t parts[] = {comma, key, s->t_colon, w->cell[i].value, extra_at(w, came, count_on(w, count))};
        schema_prod(s, rule, parts + skip, 5 - skip);
    }
    for (size_t i = 0; i < w->n_loose; i++) {
        if (came >> i & 1)
            continue;
        uint32_t next = extra_at(w, came | 1u << i, count_on(w, count));
        uint32_t parts[] = {comma, w->loose[i].key, w->loose[i].value, next};
        schema_prod(s, rule, parts + skip, 4 - skip);
    }
}

static void extra_rules(struct members *w) {
    struct schema *s = w->o->s;
    uint32_t all = (1u << w->n_loose) - 1;
    size_t n = ((size_t)all + 1) * (w->cap + 1);
    w->extra = arena_alloc(&s->mem, n * sizeof *w->extra);
    for (size_t i = 0; i < n; i++)
        w->extra[i] = schema_rule(s, "members", 0);
    for (uint32_t came = 0; came <= all; came++)
        for (uint32_t c = 0; c <= w->cap; c++) {
            if ((came & w->must) == w->must && may_end(w, c))
                schema_prod(s, extra_at(w, came, c), &s->t_close_obj, 1);
            one_extra(w, extra_at(w, came, c), s->t_comma, came, c);
        }
}

/* rules: from the last name back to the first. next[c] and now[c]: what follows c members; *first: the state
 * in which none has been written, UINT32_MAX if nothing can follow it. */
static enum rc rules(struct members *w, uint32_t *first, struct err *e) {
    struct schema *s = w->o->s;
    uint32_t *next = w->extra, start = UINT32_MAX;
    if (w->n_cells || w->n_loose) {
        start = schema_rule(s, "members", 0);
        one_extra(w, start, UINT32_MAX, 0, 0);
    }
    for (size_t i = w->n; i-- > 0;) {
        const struct member *m = &w->m[i];
        uint32_t *now = arena_alloc(&s->mem, (w->cap + 1) * sizeof *now);
        uint32_t before = schema_rule(s, "members", 0);
        if (may_grow(w, 0))
            schema_prod(s, before, (uint32_t[]){m->key, m->value, next[count_on(w, 0)]}, 3);
        if (!m->required && start != UINT32_MAX)
            schema_prod(s, before, &start, 1);
        start = before;
        for (uint32_t c = 0; c <= w->cap; c++) {
            /* No more than i members stand before name i. */
            now[c] = c > i ? UINT32_MAX : schema_rule(s, "members", 0);
            if (c > i)
                continue;
            if (may_grow(w, c))
                schema_prod(s, now[c], (uint32_t[]){s->t_comma, m->key, m->value, next[count_on(w, c)]}, 4);
            if (!m->required)
                schema_prod(s, now[c], &next[c], 1);
        }
        next = now;
        enum rc rc = schema_step(s, w->cap + 1, e);
        if (rc)
            return rc;
    }
    *first = start;
    return RC_OK;
}

/* place: among the names in order; or, a name that no `properties` declares, among those in any order: by
 * itself, or, if it need not come and there are other extra keys, as one of those. */
static void place(struct members *w, const struct name *name, uint32_t value) {
    struct schema *s = w->o->s;
    bool loose = w->loose && !name->declared;
    if (loose && !name->required && w->open) {
        w->cell[w->n_cells++] = (struct cell){.rx = rx_bytes(s->g, name->body), .value = value};
        return;
    }
    uint32_t key = rx_cat(s->g, jt_quoted(s->g, rx_bytes(s->g, name->body)), s->rx_colon);
    struct member m = {gram_term(s->g, key, 0), value, name->required};
    if (!loose) {
        w->m[w->n++] = m;
        return;
    }
    w->must |= (uint32_t)name->required << w->n_loose;
    w->loose[w->n_loose++] = m;
}

/* names: those that may come, with their symbols; *none: one that must come cannot. */
static enum rc names(struct members *w, bool *none, struct err *e) {
    struct object *o = w->o;
    struct schema *s = o->s;
    size_t n_loose = 0;
    w->open = w->n_cells > 0;
    for (size_t i = 0; i < o->n_names; i++)
        n_loose += !o->name[i].declared && !o->name[i].absent && (o->name[i].required || !w->open);
    w->m = arena_alloc(&s->mem, (o->n_names + 1) * sizeof *w->m);
    if (n_loose <= MEMBERS_LOOSE_MAX)
        w->loose = arena_alloc(&s->mem, (n_loose + 1) * sizeof *w->loose);
    for (size_t i = 0; i < o->n_names; i++) {
        struct name *name = &o->name[i];
        struct lits l;
        uint32_t value;
        enum rc rc = object_key(o, name, &l, e);
        if (!rc)
            rc = schema_sym(s, l.v, l.n, &value, e);
        if (rc)
            return rc;
        if (value == SYM_NONE) {
            name->absent = true;
            *none = *none || name->required;
            if (name->required)
                schema_hint(s, name->node, "required", "no value is possible for \"%.60s\"", name->key);
            continue;
        }
        place(w, name, value);
    }
    return RC_OK;
}

/* broken: FACT_EXTRA: is there, must there be, a key that the node does not declare? *skip: there can be
 * none, so the branch is empty. */
static enum rc broken(const struct members *w, const struct fact *f, bool *skip, struct err *e) {
    const struct object *o = w->o;
    const struct schema_node *n = o->s->nodes[f->node];
    bool value = n->kind == NODE_VALUE;
    const json_t *map = value ? n->j : json_object_get(n->j, "properties");
    bool any = !value && !json_is_false(json_object_get(n->j, "additionalProperties"));
    any = any || json_object_size(json_object_get(n->j, "patternProperties"));
    bool some = w->n_cells > 0;
    for (size_t i = 0; i < o->n_names; i++) {
        const struct name *name = &o->name[i];
        if (name->absent || (name->key && json_object_get(map, name->key)))
            continue;
        if (name->required && !any)
            return RC_OK;
        some = true;
    }
    if (some)
        return schema_fail(o->s, f->node, f->text, e, "cannot be negated here (not, if, oneOf)");
    *skip = true;
    return RC_OK;
}

/* counts: whether minProperties and maxProperties still say anything, once the names are known. */
static enum rc counts(struct members *w, struct err *e) {
    struct object *o = w->o;
    w->min = o->min > o->n_required ? o->min : 0;
    w->max = o->max < w->n + w->n_loose || (w->n_cells && o->max != SCHEMA_INF) ? o->max : SCHEMA_INF;
    /* One member at least: leaving out {} says it. */
    if (w->min == 1 && w->max == SCHEMA_INF)
        w->min = 0;
    if (w->min > SCHEMA_COUNT_MAX)
        return schema_fail(o->s, o->min_node, "minProperties", e, "asks for more than %d members",
                           SCHEMA_COUNT_MAX);
    w->cap = w->max != SCHEMA_INF ? w->max : w->min;
    if ((uint64_t)(w->cap + 1) * ((MIN(w->n, w->cap) + 1) + (1u << w->n_loose)) > SCHEMA_STATES_MAX)
        return schema_fail(o->s, o->min_node, w->max != SCHEMA_INF ? "maxProperties" : "minProperties", e,
                           "needs more than %d counts of members", SCHEMA_STATES_MAX);
    return RC_OK;
}

static enum rc write_members(struct members *w, uint32_t rule, struct err *e) {
    struct object *o = w->o;
    struct schema *s = o->s;
    uint32_t first;
    enum rc rc = counts(w, e);
    if (rc)
        return rc;
    if (o->n_required == 0 && o->min == 0)
        schema_prod(s, rule, &s->t_empty_obj, 1);
    if (w->max == 0 || w->n + w->n_cells + w->n_loose == 0)
        return RC_OK;
    extra_rules(w);
    rc = rules(w, &first, e);
    if (rc || first == UINT32_MAX)
        return rc;
    uint32_t object = schema_rule(s, "object", w->n_cells ? RULE_SCOPE : 0);
    schema_prod(s, object, (uint32_t[]){s->t_open_obj, first}, 2);
    schema_prod(s, rule, &object, 1);
    return RC_OK;
}

enum rc schema_object(struct schema *s, uint32_t rule, const struct branch *b, struct err *e) {
    struct object o;
    struct members w = {.o = &o};
    bool none = false;
    enum rc rc = object_gather(s, b, &o, e);
    if (rc || o.min > o.max || o.n_required > o.max)
        return rc;
    w.cell = arena_alloc(&s->mem, (SCHEMA_CELLS_MAX + o.n_names) * sizeof *w.cell);
    rc = object_cells(&o, w.cell, &w.n_cells, e);
    if (!rc)
        rc = names(&w, &none, e);
    for (const struct fact *f = b->facts; f && !rc && !none; f = f->next) {
        if (f->kind == FACT_UNSAID)
            rc = schema_fail(s, f->node, f->text, e, "cannot be negated (not, if, oneOf)");
        else if (f->kind == FACT_EXTRA)
            rc = broken(&w, f, &none, e);
    }
    return rc || none ? rc : write_members(&w, rule, e);
}
