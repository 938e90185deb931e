/* The ways to break a schema: one keyword fails. Keywords of other types cannot fail; a `type` that leaves
 * out arrays or objects never comes here, as every such value breaks it. */
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"

struct deny {
    struct schema *s;
    uint32_t node;
    const json_t *j;
    const struct option *out;
};

static void way(struct deny *d, const struct todo *t) {
    d->out = option_add(d->s, t, d->out);
}

static void way_fact(struct deny *d, struct fact f) {
    f.node = d->node;
    way(d, todo_fact(d->s, f, NULL));
}

static enum rc sub(struct deny *d, const json_t *j, const char *keyword, const char *key, uint32_t *lit,
                   struct err *e) {
    return schema_sub(d->s, d->node, j, keyword, key, lit, e);
}

static enum rc sub_at(struct deny *d, const char *keyword, size_t i, uint32_t *lit, struct err *e) {
    char index[24];
    snprintf(index, sizeof index, "%zu", i);
    return sub(d, json_array_get(json_object_get(d->j, keyword), i), keyword, index, lit, e);
}

/* key_breaks: the key is there and its value does not meet lit. */
static const struct todo *key_breaks(struct deny *d, const char *key, uint32_t lit) {
    struct fact there = {.kind = FACT_REQUIRED, .text = key, .node = d->node};
    struct fact is = {.kind = FACT_KEY_IS, .text = key, .lit = lit_not(lit), .node = d->node};
    return todo_fact(d->s, there, todo_fact(d->s, is, NULL));
}

static const struct todo *item_breaks(struct deny *d, size_t i, uint32_t lit) {
    struct fact there = {.kind = FACT_MIN, .count = (uint32_t)i + 1, .node = d->node};
    struct fact is = {.kind = FACT_ITEM_IS, .count = (uint32_t)i, .lit = lit_not(lit), .node = d->node};
    return todo_fact(d->s, there, todo_fact(d->s, is, NULL));
}

/* ---- keywords in place -------------------------------------------------------------------------- */

static enum rc deny_one_of(struct deny *d, enum want want, struct err *e) {
    size_t n = json_array_size(json_object_get(d->j, "oneOf"));
    const struct todo *none = NULL;
    const bool *shares;
    uint32_t a, b;
    enum rc rc = RC_OK;
    if (!n)
        return RC_OK;
    rc = schema_shares(d->s, want, d->node, &shares, e);
    for (size_t i = n; !rc && i-- > 0;) {
        rc = sub_at(d, "oneOf", i, &a, e);
        none = todo_lit(d->s, lit_not(a), none);
        for (size_t k = i + 1; !rc && k < n; k++) {
            if (!shares[i * n + k])
                continue;
            rc = sub_at(d, "oneOf", k, &b, e);
            way(d, todo_lit(d->s, a, todo_lit(d->s, b, NULL)));
        }
    }
    way(d, none);
    return rc;
}

static enum rc deny_if(struct deny *d, struct err *e) {
    static const char *const names[] = {"then", "else"};
    const json_t *cond = json_object_get(d->j, "if"), *v;
    uint32_t c, lit;
    enum rc rc = cond ? sub(d, cond, "if", NULL, &c, e) : RC_OK;
    for (size_t i = 0; cond && !rc && i < 2; i++) {
        if (!(v = json_object_get(d->j, names[i])))
            continue;
        rc = sub(d, v, names[i], NULL, &lit, e);
        way(d, todo_lit(d->s, i ? lit_not(c) : c, todo_lit(d->s, lit_not(lit), NULL)));
    }
    return rc;
}

static enum rc deny_in_place(struct deny *d, enum want want, struct err *e) {
    const json_t *v;
    uint32_t lit;
    enum rc rc = RC_OK;
    if ((v = json_object_get(d->j, "not")) && !(rc = sub(d, v, "not", NULL, &lit, e)))
        way(d, todo_lit(d->s, lit, NULL));
    for (size_t i = 0; !rc && i < json_array_size(json_object_get(d->j, "allOf")); i++)
        if (!(rc = sub_at(d, "allOf", i, &lit, e)))
            way(d, todo_lit(d->s, lit_not(lit), NULL));
    const struct todo *none = NULL;
    size_t n = json_array_size(json_object_get(d->j, "anyOf"));
    for (size_t i = n; !rc && i-- > 0;)
        if (!(rc = sub_at(d, "anyOf", i, &lit, e)))
            none = todo_lit(d->s, lit_not(lit), none);
    if (n)
        way(d, none);
    if (!rc)
        rc = deny_one_of(d, want, e);
    return rc ? rc : deny_if(d, e);
}

/* deny_values: enum and const: none of their arrays, of their objects. */
static void deny_values(struct deny *d, enum want want) {
    const json_t *list = json_object_get(d->j, "enum"), *value = json_object_get(d->j, "const");
    json_type type = want == WANT_ARRAY ? JSON_ARRAY : JSON_OBJECT;
    const struct todo *none = NULL;
    for (size_t i = json_array_size(list); i-- > 0;) {
        const json_t *v = json_array_get(list, i);
        if (json_typeof(v) == type)
            none = todo_lit(d->s, lit_not(schema_value(d->s, d->node, v)), none);
    }
    if (list)
        way(d, none);
    if (value)
        way(d, todo_lit(d->s, lit_not(schema_value(d->s, d->node, value)), NULL));
}

/* ---- arrays ------------------------------------------------------------------------------------- */

static void deny_counts(struct deny *d, const char *min, const char *max) {
    const struct schema_node *n = d->s->nodes[d->node];
    uint32_t count;
    if (schema_count(n, min, &count) && count)
        way_fact(d, (struct fact){.kind = FACT_MAX, .count = count - 1});
    if (schema_count(n, max, &count))
        way_fact(d, (struct fact){.kind = FACT_MIN, .count = count + 1});
}

/* deny_items: items and prefixItems in both their forms. */
static enum rc deny_items(struct deny *d, struct err *e) {
    const json_t *items = json_object_get(d->j, "items");
    const char *list = json_object_get(d->j, "prefixItems") ? "prefixItems" : "items";
    const char *rest = json_is_array(items) ? "additionalItems" : "items";
    const json_t *v = json_object_get(d->j, list);
    size_t n = json_array_size(v);
    uint32_t lit;
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && !rc; i++)
        if (!(rc = sub_at(d, list, i, &lit, e)))
            way(d, item_breaks(d, i, lit));
    v = json_object_get(d->j, rest);
    if (rc || !v || (json_is_array(items) && strcmp(list, "prefixItems") == 0))
        return rc;
    rc = sub(d, v, rest, NULL, &lit, e);
    way_fact(
        d,
        (struct fact){
            .kind = FACT_CONTAINS, .lit = lit_not(lit), .count = 1, .most = SCHEMA_INF, .from = (uint32_t)n});
    return rc;
}

static enum rc deny_array(struct deny *d, struct err *e) {
    const struct schema_node *n = d->s->nodes[d->node];
    const json_t *v = json_object_get(d->j, "contains");
    uint32_t lit, min = 1, max;
    deny_counts(d, "minItems", "maxItems");
    enum rc rc = deny_items(d, e);
    if (!rc && v && !(rc = sub(d, v, "contains", NULL, &lit, e))) {
        (void)schema_count(n, "minContains", &min);
        if (min)
            way_fact(d, (struct fact){.kind = FACT_CONTAINS, .lit = lit, .most = min - 1});
        if (schema_count(n, "maxContains", &max))
            way_fact(d,
                     (struct fact){.kind = FACT_CONTAINS, .lit = lit, .count = max + 1, .most = SCHEMA_INF});
    }
    if (json_is_true(json_object_get(d->j, "uniqueItems")))
        way_fact(d, (struct fact){.kind = FACT_UNSAID, .text = "uniqueItems"});
    return rc;
}

/* ---- objects ------------------------------------------------------------------------------------ */

static enum rc deny_dependents(struct deny *d, const char *keyword, struct err *e) {
    const char *key;
    json_t *v, *name;
    size_t i;
    uint32_t lit;
    enum rc rc = RC_OK;
    json_object_foreach(json_object_get(d->j, keyword), key, v) {
        struct fact there = {.kind = FACT_REQUIRED, .text = key, .node = d->node};
        json_array_foreach(v, i, name) {
            struct fact absent = {.kind = FACT_ABSENT, .text = json_string_value(name)};
            way(d, todo_fact(d->s, there, todo_fact(d->s, absent, NULL)));
        }
        if (json_is_array(v) || rc || (rc = sub(d, v, keyword, key, &lit, e)))
            continue;
        way(d, todo_fact(d->s, there, todo_lit(d->s, lit_not(lit), NULL)));
    }
    return rc;
}

static enum rc deny_object(struct deny *d, struct err *e) {
    const char *key;
    json_t *v;
    size_t i;
    uint32_t lit;
    enum rc rc = RC_OK;
    deny_counts(d, "minProperties", "maxProperties");
    json_array_foreach(json_object_get(d->j, "required"), i, v)
        way_fact(d, (struct fact){.kind = FACT_ABSENT, .text = json_string_value(v)});
    json_object_foreach(json_object_get(d->j, "properties"), key, v) {
        if (rc || (rc = sub(d, v, "properties", key, &lit, e)))
            return rc;
        if (lit != LIT_TRUE)
            way(d, key_breaks(d, key, lit));
    }
    static const char *const others[] = {"additionalProperties", "patternProperties", "propertyNames"};
    for (i = 0; i < ARRAY_LEN(others); i++) {
        v = json_object_get(d->j, others[i]);
        if (v && !json_is_true(v) && !(json_is_object(v) && !json_object_size(v)))
            way_fact(d, (struct fact){.kind = i ? FACT_UNSAID : FACT_EXTRA, .text = others[i]});
    }
    static const char *const dependents[] = {"dependentRequired", "dependentSchemas", "dependencies"};
    for (i = 0; i < ARRAY_LEN(dependents) && !rc; i++)
        rc = deny_dependents(d, dependents[i], e);
    return rc;
}

/* ---- entry -------------------------------------------------------------------------------------- */

enum rc schema_deny(struct schema *s, enum want want, uint32_t node, const struct option **out,
                    struct err *e) {
    const struct schema_node *n = s->nodes[node];
    struct deny d = {.s = s, .node = node, .j = n->j};
    const json_t *ref = schema_ref_of(n);
    uint32_t lit;
    enum rc rc = ref ? schema_ref(s, node, ref, &lit, e) : RC_OK;
    if (rc)
        return rc;
    if (ref)
        way(&d, todo_lit(s, lit_not(lit), NULL));
    if (!schema_only_ref(s, n)) {
        rc = deny_in_place(&d, want, e);
        deny_values(&d, want);
        if (!rc)
            rc = want == WANT_ARRAY ? deny_array(&d, e) : deny_object(&d, e);
    }
    if (!rc)
        *out = d.out;
    return rc;
}

const struct option *schema_deny_value(struct schema *s, enum want want, uint32_t node) {
    struct deny d = {.s = s, .node = node, .j = s->nodes[node]->j};
    const char *key;
    json_t *v;
    size_t i;
    if (want == WANT_OBJECT) {
        way_fact(&d, (struct fact){.kind = FACT_EXTRA, .text = "const"});
        json_object_foreach((json_t *)(uintptr_t)d.j, key, v) {
            way_fact(&d, (struct fact){.kind = FACT_ABSENT, .text = key});
            way(&d, key_breaks(&d, key, schema_value(s, node, v)));
        }
        return d.out;
    }
    size_t n = json_array_size(d.j);
    way_fact(&d, (struct fact){.kind = FACT_MIN, .count = (uint32_t)n + 1});
    if (n)
        way_fact(&d, (struct fact){.kind = FACT_MAX, .count = (uint32_t)n - 1});
    json_array_foreach(d.j, i, v) way(&d, item_breaks(&d, i, schema_value(s, node, v)));
    return d.out;
}
