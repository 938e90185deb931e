/* schema_says.c: what a node of a schema says of an array or an object: facts, and keywords that stand in
 * place. */
#include <stdio.h>

#include "common/gram/schema_expand.h"

void says_fact(struct expand *x, struct state *st, struct fact f) {
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

void says_value(struct expand *x, struct state *st, uint32_t node) {
    const json_t *j = x->s->nodes[node]->j;
    says_fact(x, st, (struct fact){.kind = FACT_SHAPE, .node = node});
    if (x->want == WANT_ARRAY) {
        uint32_t n = (uint32_t)json_array_size(j);
        says_fact(x, st, (struct fact){.kind = FACT_MIN, .count = n, .node = node});
        says_fact(x, st, (struct fact){.kind = FACT_MAX, .count = n});
        return;
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
        says_fact(x, st, (struct fact){.kind = FACT_REQUIRED, .text = key, .node = node});
}

static enum rc array_facts(struct expand *x, struct state *st, uint32_t node, struct err *e) {
    struct schema *s = x->s;
    const struct schema_node *n = s->nodes[node];
    uint32_t count, lit;
    if (schema_count(n, "minItems", &count))
        says_fact(x, st, (struct fact){.kind = FACT_MIN, .count = count, .node = node});
    if (schema_count(n, "maxItems", &count))
        says_fact(x, st, (struct fact){.kind = FACT_MAX, .count = count});
    if (json_object_get(n->j, "items") || json_object_get(n->j, "prefixItems"))
        says_fact(x, st, (struct fact){.kind = FACT_SHAPE, .node = node});
    if (json_is_true(json_object_get(n->j, "uniqueItems")))
        says_fact(x, st, (struct fact){.kind = FACT_UNIQUE, .node = node});
    const json_t *v = json_object_get(n->j, "contains");
    if (!v)
        return RC_OK;
    enum rc rc = schema_sub(s, node, v, "contains", NULL, &lit, e);
    if (rc)
        return rc;
    struct fact f = {.kind = FACT_CONTAINS, .node = node, .lit = lit, .count = 1, .most = SCHEMA_INF};
    (void)schema_count(n, "minContains", &f.count);
    (void)schema_count(n, "maxContains", &f.most);
    says_fact(x, st, f);
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
        says_fact(x, st, (struct fact){.kind = FACT_MIN, .count = count, .node = node});
    if (schema_count(n, "maxProperties", &count))
        says_fact(x, st, (struct fact){.kind = FACT_MAX, .count = count});
    if (json_object_get(n->j, "properties") || json_object_get(n->j, "patternProperties") ||
        json_object_get(n->j, "additionalProperties"))
        says_fact(x, st, (struct fact){.kind = FACT_SHAPE, .node = node});
    json_array_foreach(json_object_get(n->j, "required"), i, v)
        says_fact(x, st, (struct fact){.kind = FACT_REQUIRED, .text = json_string_value(v), .node = node});
    if ((v = json_object_get(n->j, "propertyNames"))) {
        rc = schema_sub(s, node, v, "propertyNames", NULL, &lit, e);
        if (!rc)
            says_fact(x, st, (struct fact){.kind = FACT_NAMES, .lit = lit, .node = node});
    }
    if (!rc)
        rc = dependencies(s, node, "dependentRequired", &st->todo, e);
    if (!rc)
        rc = dependencies(s, node, "dependentSchemas", &st->todo, e);
    return rc ? rc : dependencies(s, node, "dependencies", &st->todo, e);
}

/* ---- keywords in place -------------------------------------------------------------------------- */

enum rc says_member(struct schema *s, uint32_t node, const char *keyword, size_t i, uint32_t *lit,
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
            if (shares[i * n + k] && !(rc = says_member(s, node, keyword, k, &lit, e)))
                t = todo_lit(s, lit_not(lit), t);
        if (!rc)
            rc = says_member(s, node, keyword, i, &lit, e);
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

enum rc says_schema(struct expand *x, struct state *st, uint32_t node, struct err *e) {
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
            if (!(rc = says_member(s, node, "allOf", i, &lit, e)))
                st->todo = todo_lit(s, lit, st->todo);
        values(x, node, &st->todo);
    }
    if (!rc && ref && !(rc = schema_ref(s, node, ref, &lit, e)))
        st->todo = todo_lit(s, lit, st->todo);
    return rc;
}
