#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"
#include "common/gram/schema_keyword.h"

/* ---- three-valued parts ------------------------------------------------------------------------- */

static enum part part_and(enum part a, enum part b) {
    if (a == PART_NONE || b == PART_NONE)
        return PART_NONE;
    return a == PART_ALL ? b : b == PART_ALL ? a : PART_SOME;
}

static enum part part_not(enum part a) {
    return a == PART_SOME ? a : a == PART_ALL ? PART_NONE : PART_ALL;
}

static const struct scalar everything = {.null_ = true,
                                         .true_ = true,
                                         .false_ = true,
                                         .num = {.kind = SET_ALL, .number = true},
                                         .str = {.kind = SET_ALL},
                                         .arr = PART_ALL,
                                         .obj = PART_ALL};
static const struct scalar nothing = {.num = {.kind = SET_NONE, .number = true, .whole = true},
                                      .str = {.kind = SET_NONE, .whole = true}};

static struct scalar not_of(struct schema *s, const struct scalar *a) {
    return (struct scalar){!a->null_,           !a->true_,        !a->false_,      vset_not(s, a->num),
                           vset_not(s, a->str), part_not(a->arr), part_not(a->obj)};
}

struct scalar scalar_and(struct schema *s, const struct scalar *a, const struct scalar *b) {
    return (struct scalar){a->null_ && b->null_,        a->true_ && b->true_,        a->false_ && b->false_,
                           vset_and(s, a->num, b->num), vset_and(s, a->str, b->str), part_and(a->arr, b->arr),
                           part_and(a->obj, b->obj)};
}

static struct scalar or_of(struct schema *s, const struct scalar *a, const struct scalar *b) {
    return (struct scalar){a->null_ || b->null_,
                           a->true_ || b->true_,
                           a->false_ || b->false_,
                           vset_or(s, a->num, b->num),
                           vset_or(s, a->str, b->str),
                           part_not(part_and(part_not(a->arr), part_not(b->arr))),
                           part_not(part_and(part_not(a->obj), part_not(b->obj)))};
}

/* ---- leaves ------------------------------------------------------------------------------------- */

static struct scalar of_type(struct schema *s, const char *type) {
    struct scalar out = nothing;
    switch (type[0]) {
    case 'n':
        if (type[2] == 'l')
            out.null_ = true;
        else
            out.num = everything.num;
        break;
    case 'b':
        out.true_ = out.false_ = true;
        break;
    case 's':
        out.str = everything.str;
        break;
    case 'i':
        out.num = number_whole(s);
        break;
    case 'o':
        out.obj = PART_ALL;
        break;
    default:
        out.arr = PART_ALL;
        break;
    }
    return out;
}

static struct scalar of_types(struct schema *s, const json_t *v) {
    struct scalar out = nothing;
    if (json_is_string(v))
        return of_type(s, json_string_value(v));
    size_t i;
    const json_t *name;
    json_array_foreach(v, i, name) {
        struct scalar one = of_type(s, json_string_value(name));
        out = or_of(s, &out, &one);
    }
    return out;
}

static struct scalar of_value(struct schema *s, const json_t *v) {
    struct scalar out = nothing;
    switch (json_typeof(v)) {
    case JSON_NULL:
        out.null_ = true;
        break;
    case JSON_TRUE:
        out.true_ = true;
        break;
    case JSON_FALSE:
        out.false_ = true;
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        out.num = vset_of_value(s, v);
        break;
    case JSON_STRING:
        out.str = vset_of_value(s, v);
        break;
    case JSON_ARRAY:
        out.arr = PART_SOME;
        break;
    case JSON_OBJECT:
        out.obj = PART_SOME;
        break;
    }
    return out;
}

/* of_values: [lo, hi) of an enum, by halves, so that merging sorted lists stays n log n. */
static struct scalar of_values(struct schema *s, const json_t *list, size_t lo, size_t hi) {
    if (lo >= hi)
        return nothing;
    if (hi - lo == 1)
        return of_value(s, json_array_get(list, lo));
    struct scalar a = of_values(s, list, lo, (lo + hi) / 2), b = of_values(s, list, (lo + hi) / 2, hi);
    return or_of(s, &a, &b);
}

static enum rc strings_of(struct schema *s, uint32_t node, bool strings, struct scalar *out, struct err *e) {
    const struct schema_node *n = s->nodes[node];
    const json_t *v;
    uint32_t rx, min = 0, max = RX_INF;
    struct err why;
    bool has_min = schema_count(n, "minLength", &min), has_max = schema_count(n, "maxLength", &max);
    if (has_min && min > SCHEMA_COUNT_MAX)
        return schema_fail(s, node, "minLength", e, "is more than %d", SCHEMA_COUNT_MAX);
    if (has_min && has_max && min > max)
        out->str = vset_none(false);
    else if ((has_min && min) || has_max)
        out->str = vset_and(s, out->str, vset_rx(false, jt_length(s->g, min, has_max ? max : RX_INF)));
    if ((v = json_object_get(n->j, "pattern"))) {
        struct str p = {json_string_value(v), json_string_length(v)};
        if (rx_parse_in(s->g, p, true, jt_one_of, &rx, &why))
            return schema_fail(s, node, "pattern", e, "%.300s", why.msg);
        out->str = vset_and(s, out->str, vset_rx(false, rx));
    }
    v = json_object_get(n->j, "format");
    if (v && strings) {
        if (!format_rx(s->g, json_string_value(v), &rx))
            return schema_fail(s, node, "format", e, "\"%.60s\" is not supported", json_string_value(v));
        out->str = vset_and(s, out->str, vset_rx(false, rx));
    }
    return RC_OK;
}

static enum rc numbers_of(struct schema *s, uint32_t node, struct scalar *out, struct err *e) {
    const json_t *j = s->nodes[node]->j, *v;
    static const struct {
        const char *name;
        bool low, open;
    } bounds[] = {{"minimum", true, false},
                  {"exclusiveMinimum", true, true},
                  {"maximum", false, false},
                  {"exclusiveMaximum", false, true}};
    struct str none = {NULL, 0};
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        v = json_object_get(j, bounds[i].name);
        if (!v)
            continue;
        struct str plain = number_plain(s, v);
        out->num = vset_and(s, out->num,
                            bounds[i].low ? number_range(s, plain, bounds[i].open, none, false)
                                          : number_range(s, none, false, plain, bounds[i].open));
    }
    v = json_object_get(j, "multipleOf");
    if (!v || out->num.kind == SET_NONE)
        return RC_OK;
    struct vset multiple;
    enum rc rc = number_multiple(s, node, v, &multiple, e);
    if (!rc)
        out->num = vset_and(s, out->num, multiple);
    return rc;
}

/* idle: a keyword that every array, every object meets. */
static bool idle(const char *keyword, const json_t *v) {
    if (json_is_boolean(v) && strcmp(keyword, "uniqueItems") == 0)
        return json_is_false(v);
    /* An empty `properties` closes an object all the same, and additionalProperties opens it. */
    if (strcmp(keyword, "contains") == 0 || strcmp(keyword, "properties") == 0 ||
        strcmp(keyword, "additionalProperties") == 0)
        return false;
    return json_is_true(v) || (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0);
}

/* members_of: keywords that some arrays, some objects do not meet. */
static void members_of(const json_t *j, struct scalar *out) {
    static const char *const of_arrays[] = {"items",    "prefixItems", "contains",
                                            "minItems", "maxItems",    "uniqueItems"};
    static const char *const of_objects[] = {
        "properties",    "patternProperties", "additionalProperties", "propertyNames",    "required",
        "minProperties", "maxProperties",     "dependentRequired",    "dependentSchemas", "dependencies"};
    for (size_t i = 0; i < ARRAY_LEN(of_arrays); i++) {
        const json_t *v = json_object_get(j, of_arrays[i]);
        if (v && !idle(of_arrays[i], v))
            out->arr = part_and(out->arr, PART_SOME);
    }
    for (size_t i = 0; i < ARRAY_LEN(of_objects); i++) {
        const json_t *v = json_object_get(j, of_objects[i]);
        if (v && !idle(of_objects[i], v))
            out->obj = part_and(out->obj, PART_SOME);
    }
}

/* ---- keywords in place -------------------------------------------------------------------------- */

static enum rc sub_of(struct schema *s, uint32_t node, const json_t *j, const char *keyword, const char *key,
                      struct scalar *out, struct err *e) {
    uint32_t lit;
    enum rc rc = schema_sub(s, node, j, keyword, key, &lit, e);
    return rc ? rc : schema_scalar(s, lit, out, e);
}

enum fold { FOLD_ALL, FOLD_ANY, FOLD_ONE };

/* fold: allOf, anyOf, oneOf. For oneOf: `none` and `one` are what none and one of the members so far has. */
static enum rc fold(struct schema *s, uint32_t node, const char *keyword, enum fold how, struct scalar *out,
                    struct err *e) {
    const json_t *list = json_object_get(s->nodes[node]->j, keyword), *v;
    size_t i;
    if (!list)
        return RC_OK;
    struct scalar one = how == FOLD_ALL ? everything : nothing, none = everything;
    json_array_foreach(list, i, v) {
        struct scalar m;
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        enum rc rc = sub_of(s, node, v, keyword, index, &m, e);
        if (rc)
            return rc;
        if (how == FOLD_ALL) {
            one = scalar_and(s, &one, &m);
        } else if (how == FOLD_ANY) {
            one = or_of(s, &one, &m);
        } else {
            struct scalar others = not_of(s, &m);
            struct scalar first = scalar_and(s, &none, &m), before = scalar_and(s, &one, &others);
            one = or_of(s, &before, &first);
            none = scalar_and(s, &none, &others);
        }
    }
    *out = scalar_and(s, out, &one);
    return RC_OK;
}

static enum rc conditional(struct schema *s, uint32_t node, struct scalar *out, struct err *e) {
    const json_t *j = s->nodes[node]->j, *cond = json_object_get(j, "if");
    const json_t *then = json_object_get(j, "then"), *other = json_object_get(j, "else");
    struct scalar c, t = everything, o = everything;
    if (!cond || (!then && !other))
        return RC_OK;
    enum rc rc = sub_of(s, node, cond, "if", NULL, &c, e);
    if (!rc && then)
        rc = sub_of(s, node, then, "then", NULL, &t, e);
    if (!rc && other)
        rc = sub_of(s, node, other, "else", NULL, &o, e);
    if (rc)
        return rc;
    struct scalar yes = scalar_and(s, &c, &t), no = not_of(s, &c);
    no = scalar_and(s, &no, &o);
    yes = or_of(s, &yes, &no);
    *out = scalar_and(s, out, &yes);
    return RC_OK;
}

/* dependents: they say nothing about scalars, but may lead back here. */
static enum rc dependents(struct schema *s, uint32_t node, const char *keyword, struct err *e) {
    const json_t *map = json_object_get(s->nodes[node]->j, keyword);
    const char *key;
    json_t *v;
    struct scalar unused;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        enum rc rc = json_is_array(v) ? RC_OK : sub_of(s, node, v, keyword, key, &unused, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}

static enum rc in_place(struct schema *s, uint32_t node, struct scalar *out, struct err *e) {
    const struct schema_node *n = s->nodes[node];
    const json_t *v;
    struct scalar sub;
    enum rc rc = RC_OK;
    if ((v = schema_ref_of(n))) {
        uint32_t lit;
        rc = schema_ref(s, node, v, &lit, e);
        if (!rc)
            rc = schema_scalar(s, lit, &sub, e);
        if (rc)
            return rc;
        *out = scalar_and(s, out, &sub);
        if (schema_only_ref(s, n))
            return RC_OK;
    }
    if ((v = json_object_get(n->j, "not"))) {
        rc = sub_of(s, node, v, "not", NULL, &sub, e);
        if (rc)
            return rc;
        sub = not_of(s, &sub);
        *out = scalar_and(s, out, &sub);
    }
    if ((rc = fold(s, node, "allOf", FOLD_ALL, out, e)) || (rc = fold(s, node, "anyOf", FOLD_ANY, out, e)) ||
        (rc = fold(s, node, "oneOf", FOLD_ONE, out, e)) || (rc = conditional(s, node, out, e)) ||
        (rc = dependents(s, node, "dependentSchemas", e)) || (rc = dependents(s, node, "dependencies", e)))
        return rc;
    return RC_OK;
}

/* own: what the node's own leaves say. */
static enum rc own(struct schema *s, uint32_t node, struct scalar *out, struct err *e) {
    const struct schema_node *n = s->nodes[node];
    const json_t *v;
    struct scalar part;
    if (schema_only_ref(s, n))
        return RC_OK;
    if ((v = json_object_get(n->j, "type"))) {
        part = of_types(s, v);
        *out = scalar_and(s, out, &part);
    }
    bool strings = out->str.kind != SET_NONE;
    if ((v = json_object_get(n->j, "enum"))) {
        part = of_values(s, v, 0, json_array_size(v));
        *out = scalar_and(s, out, &part);
    }
    if ((v = json_object_get(n->j, "const"))) {
        part = of_value(s, v);
        *out = scalar_and(s, out, &part);
    }
    members_of(n->j, out);
    enum rc rc = strings_of(s, node, strings, out, e);
    return rc ? rc : numbers_of(s, node, out, e);
}

static enum rc compute(struct schema *s, uint32_t node, struct scalar *out, struct err *e) {
    enum rc rc = schema_check(s, node, e);
    *out = everything;
    if (!rc)
        rc = own(s, node, out, e);
    if (!rc)
        rc = in_place(s, node, out, e);
    if (!rc)
        rc = vset_settle(s, &out->str, node, "", e);
    if (!rc)
        rc = vset_settle(s, &out->num, node, "", e);
    return rc ? rc : schema_step(s, 4, e);
}

enum rc schema_scalar(struct schema *s, uint32_t lit, struct scalar *out, struct err *e) {
    enum rc rc = schema_plain(s, &lit, e);
    if (rc)
        return rc;
    struct schema_node *n = s->nodes[lit / 2];
    if (lit / 2 == 0) {
        *out = lit == LIT_TRUE ? everything : nothing;
        return RC_OK;
    }
    if (!n->scalar) {
        if (n->evaluating)
            return schema_fail(s, lit / 2, "$ref", e, "leads back to itself without a property or an item");
        if (s->depth == SCHEMA_DEPTH_MAX)
            return schema_fail(s, lit / 2, "", e, "more than %d schemas refer to one another in place",
                               SCHEMA_DEPTH_MAX);
        struct scalar *mine = arena_zalloc(&s->mem, 1, sizeof *mine);
        n->evaluating = true;
        s->depth++;
        if (n->kind == NODE_VALUE)
            *mine = of_value(s, n->j);
        else
            rc = compute(s, lit / 2, mine, e);
        s->depth--;
        n->evaluating = false;
        if (rc)
            return rc;
        n->scalar = mine;
    }
    *out = lit_negated(lit) ? not_of(s, n->scalar) : *n->scalar;
    return RC_OK;
}

enum rc schema_scalar_all(struct schema *s, const uint32_t *lits, size_t n, struct scalar *out,
                          struct err *e) {
    *out = everything;
    for (size_t i = 0; i < n; i++) {
        struct scalar one;
        enum rc rc = schema_scalar(s, lits[i], &one, e);
        if (rc)
            return rc;
        *out = scalar_and(s, out, &one);
    }
    uint32_t node = n ? lits[0] / 2 : 0;
    enum rc rc = vset_settle(s, &out->str, node, "", e);
    return rc ? rc : vset_settle(s, &out->num, node, "", e);
}
