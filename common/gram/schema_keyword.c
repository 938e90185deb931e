#include "common/gram/schema_keyword.h"

#include <stdlib.h>

/* In the order of strcmp. */
static const struct keyword {
    const char *name;
    enum keyword_kind kind;
} keywords[] = {
    {"$defs", KW_DEFS},
    {"$dynamicRef", KW_REF},
    {"$recursiveRef", KW_REF},
    {"$ref", KW_REF},
    {"additionalItems", KW_SCHEMA},
    {"additionalProperties", KW_SCHEMA},
    {"allOf", KW_SCHEMAS},
    {"anyOf", KW_SCHEMAS},
    {"const", KW_CONST},
    {"contains", KW_SCHEMA},
    {"definitions", KW_DEFS},
    {"dependencies", KW_DEPENDS},
    {"dependentRequired", KW_NAMES_MAP},
    {"dependentSchemas", KW_SCHEMA_MAP},
    {"else", KW_SCHEMA},
    {"enum", KW_ENUM},
    {"exclusiveMaximum", KW_NUMBER},
    {"exclusiveMinimum", KW_NUMBER},
    {"format", KW_STRING},
    {"if", KW_SCHEMA},
    {"items", KW_ITEMS},
    {"maxContains", KW_COUNT},
    {"maxItems", KW_COUNT},
    {"maxLength", KW_COUNT},
    {"maxProperties", KW_COUNT},
    {"maximum", KW_NUMBER},
    {"minContains", KW_COUNT},
    {"minItems", KW_COUNT},
    {"minLength", KW_COUNT},
    {"minProperties", KW_COUNT},
    {"minimum", KW_NUMBER},
    {"multipleOf", KW_STEP},
    {"not", KW_SCHEMA},
    {"oneOf", KW_SCHEMAS},
    {"pattern", KW_STRING},
    {"patternProperties", KW_SCHEMA_MAP},
    {"prefixItems", KW_SCHEMAS},
    {"properties", KW_SCHEMA_MAP},
    {"propertyNames", KW_SCHEMA},
    {"required", KW_NAMES},
    {"then", KW_SCHEMA},
    {"type", KW_TYPE},
    {"unevaluatedItems", KW_REFUSED},
    {"unevaluatedProperties", KW_REFUSED},
    {"uniqueItems", KW_BOOL},
};

static int by_name(const void *key, const void *k) {
    return strcmp(key, ((const struct keyword *)k)->name);
}

enum keyword_kind schema_keyword(const char *name) {
    const struct keyword *k = bsearch(name, keywords, ARRAY_LEN(keywords), sizeof *keywords, by_name);
    return k ? k->kind : KW_NOTE;
}

static bool is_schema(const json_t *j) {
    return json_is_object(j) || json_is_boolean(j);
}

static bool all_strings(const json_t *list) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        if (!json_is_string(v))
            return false;
    }
    return json_is_array(list);
}

static bool all_schemas(const json_t *list) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        if (!is_schema(v))
            return false;
    }
    return json_is_array(list);
}

static bool is_count(const json_t *j) {
    if (json_is_integer(j))
        return json_integer_value(j) >= 0;
    double d = json_number_value(j);
    return json_is_real(j) && d >= 0 && (d >= 0x1p53 || d == (double)(uint64_t)d);
}

static bool is_type(const json_t *j) {
    static const char *const names[] = {"null", "boolean", "string", "number", "integer", "object", "array"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (json_is_string(j) && strcmp(json_string_value(j), names[i]) == 0)
            return true;
    return false;
}

static bool all_types(const json_t *list) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        if (!is_type(v))
            return false;
    }
    return json_array_size(list) > 0;
}

/* map_fits: the values of an object, by the kind of keyword. */
static bool map_fits(enum keyword_kind kind, const json_t *map) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) {
        bool list = kind != KW_SCHEMA_MAP && all_strings(v);
        bool schema = kind != KW_NAMES_MAP && is_schema(v);
        if (!list && !schema)
            return false;
    }
    return json_is_object(map);
}

/* wanted: NULL if the value fits, or else what it must be. */
static const char *wanted(enum keyword_kind kind, const json_t *v) {
    switch (kind) {
    case KW_NOTE:
    case KW_DEFS:
    case KW_CONST:
        return NULL;
    case KW_REFUSED:
    case KW_SCHEMA:
        return is_schema(v) ? NULL : "a schema";
    case KW_SCHEMAS:
        return all_schemas(v) && json_array_size(v) ? NULL : "a list of schemas, not empty";
    case KW_SCHEMA_MAP:
        return map_fits(kind, v) ? NULL : "an object of schemas";
    case KW_ITEMS:
        return is_schema(v) || all_schemas(v) ? NULL : "a schema or a list of schemas";
    case KW_COUNT:
        return is_count(v) ? NULL : "a whole number, 0 or more";
    case KW_NUMBER:
        return json_is_number(v) ? NULL : "a number";
    case KW_STEP:
        return json_is_number(v) && json_number_value(v) > 0 ? NULL : "a number above 0";
    case KW_REF:
    case KW_STRING:
        return json_is_string(v) ? NULL : "a string";
    case KW_BOOL:
        return json_is_boolean(v) ? NULL : "a boolean";
    case KW_NAMES:
        return all_strings(v) ? NULL : "a list of strings";
    case KW_NAMES_MAP:
        return map_fits(kind, v) ? NULL : "an object of lists of strings";
    case KW_DEPENDS:
        return map_fits(kind, v) ? NULL : "an object of schemas and lists of strings";
    case KW_TYPE:
        return is_type(v) || all_types(v) ? NULL : "the name of a JSON type or a list of such names";
    case KW_ENUM:
        return json_is_array(v) ? NULL : "a list";
    }
    return NULL;
}

/* means_nothing: an unevaluated keyword that forbids nothing. */
static bool means_nothing(const json_t *v) {
    return json_is_true(v) || (json_is_object(v) && json_object_size(v) == 0);
}

enum rc schema_check(struct schema *s, uint32_t node, struct err *e) {
    struct schema_node *n = s->nodes[node];
    if (n->checked || n->kind == NODE_VALUE)
        return RC_OK;
    n->checked = true;
    bool only_ref = schema_only_ref(s, n);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)n->j, key, v) {
        enum keyword_kind kind = schema_keyword(key);
        if (only_ref && strcmp(key, "$ref") != 0)
            continue;
        const char *want = wanted(kind, v);
        if (want)
            return schema_fail(s, node, key, e, "must be %s, not %s", want, json_kind(v));
        if (kind == KW_REFUSED && !means_nothing(v))
            return schema_fail(s, node, key, e, "is not supported");
        if (kind == KW_REF && !schema_ref_static(s, n, key))
            return schema_fail(s, node, key, e, "depends on how it is reached, which is not supported");
        if (kind == KW_ENUM && json_array_size(v) > s->n_choices_max)
            return schema_fail(s, node, key, e, "has %zu members; at most %zu are allowed (--max-choices)",
                               json_array_size(v), s->n_choices_max);
    }
    return schema_step(s, json_object_size(n->j), e);
}

bool schema_count(const struct schema_node *n, const char *keyword, uint32_t *out) {
    const json_t *v = json_object_get(n->j, keyword);
    if (!v)
        return false;
    double d = json_number_value(v);
    *out = d >= (double)(SCHEMA_INF - 1) ? SCHEMA_INF - 1 : (uint32_t)d;
    return true;
}
