#include "router/api/constraint.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/hash.h"

/* What has been found in the body so far. */
struct ask {
    const char *field; /* NULL: no constraint */
    enum gram_kind kind;
    struct str text;    /* borrowed from the body, or in the arena */
    const json_t *json; /* instead of text: to be written out */
};

static enum rc claim(struct ask *a, const char *field, enum gram_kind kind, struct err *e) {
    if (a->field)
        return err_set(e, RC_INVALID, field, "%s and %s cannot be used together: one constraint per request",
                       a->field, field);
    a->field = field;
    a->kind = kind;
    return RC_OK;
}

static enum rc claim_text(struct ask *a, const char *field, enum gram_kind kind, struct str text,
                          struct err *e) {
    a->text = text;
    a->json = NULL;
    if (text.n && memchr(text.p, 0, text.n))
        return err_set(e, RC_INVALID, field, "%s must not hold the character U+0000", field);
    return claim(a, field, kind, e);
}

static struct str text_of(const json_t *v) {
    return (struct str){json_string_value(v), json_string_length(v)};
}

/* claim_json: an object, or its text. */
static enum rc claim_json(struct ask *a, const char *field, enum gram_kind kind, const json_t *v,
                          struct err *e) {
    if (json_is_string(v))
        return claim_text(a, field, kind, text_of(v), e);
    if (!json_is_object(v))
        return err_set(e, RC_INVALID, field, "%s must be an object or its JSON text, not %s", field,
                       json_kind(v));
    a->json = v;
    return claim(a, field, kind, e);
}

static int str_order(const void *pa, const void *pb) {
    const struct str *a = pa, *b = pb;
    int d = memcmp(a->p, b->p, MIN(a->n, b->n));
    return d ? d : (a->n > b->n) - (a->n < b->n);
}

static enum rc claim_choice(struct ask *a, const char *field, const json_t *list, struct err *e) {
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0)
        return err_set(e, RC_INVALID, field, "%s must be a list of strings that is not empty", field);
    struct str *s = xreallocarray(NULL, n, sizeof *s);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && rc == RC_OK; i++) {
        const json_t *v = json_array_get(list, i);
        s[i] = text_of(v);
        if (!json_is_string(v)) {
            char param[64];
            snprintf(param, sizeof param, "%s.%zu", field, i);
            rc = err_set(e, RC_INVALID, param, "%s must be a string, not %s", param, json_kind(v));
        }
    }
    if (rc == RC_OK) {
        qsort(s, n, sizeof *s, str_order);
        for (size_t i = 1; i < n && rc == RC_OK; i++)
            if (str_eq(s[i], s[i - 1]))
                rc = err_set(e, RC_INVALID, field, "%s must not hold a string twice", field);
    }
    free(s);
    a->json = list;
    return rc ? rc : claim(a, field, GRAM_CHOICE, e);
}

static enum rc claim_object(struct ask *a, const char *field, struct err *e) {
    return claim_text(a, field, GRAM_JSON_SCHEMA, STR_LIT("{\"type\":\"object\"}"), e);
}

/* ---- the fields ------------------------------------------------------------------------------------- */

static enum rc read_json_schema(struct ask *a, json_t *format, struct err *e) {
    static const char path[] = "response_format.json_schema";
    const json_t *js = NULL;
    struct str name;
    bool named = false;
    enum rc rc = json_get_object(format, "response_format", "json_schema", &js, NULL, e);
    if (rc)
        return rc;
    if (!js)
        return err_set(e, RC_INVALID, path, "%s is missing: the type json_schema needs it", path);
    if ((rc = json_get_str(js, path, "name", &name, &named, e)))
        return rc;
    if (!named || !name.n)
        return err_set(e, RC_INVALID, "response_format.json_schema.name", "%s.name is missing", path);
    const json_t *schema = json_object_get(js, "schema");
    if (!json_is_object(schema) && !json_is_boolean(schema))
        return err_set(e, RC_INVALID, "response_format.json_schema.schema", "%s.schema must be a JSON schema",
                       path);
    a->json = schema;
    return claim(a, "response_format.json_schema.schema", GRAM_JSON_SCHEMA, e);
}

static enum rc read_response_format(struct ask *a, json_t *format, struct err *e) {
    struct str type = {0};
    enum rc rc = json_get_str(format, "response_format", "type", &type, NULL, e);
    if (rc)
        return rc;
    if (str_eqz(type, "text"))
        return RC_OK;
    if (str_eqz(type, "json_object"))
        return claim_object(a, "response_format", e);
    if (str_eqz(type, "json_schema"))
        return read_json_schema(a, format, e);
    if (str_eqz(type, "structural_tag"))
        return claim_json(a, "response_format", GRAM_STRUCTURAL_TAG, format, e);
    return err_set(e, RC_INVALID, "response_format.type",
                   "response_format.type must be one of text, json_object, json_schema, structural_tag");
}

/* read_outputs: structured_outputs, of which one member is the constraint. */
static enum rc read_outputs(struct ask *a, json_t *o, struct err *e) {
    static const char *const known[] = {"json",
                                        "regex",
                                        "choice",
                                        "grammar",
                                        "json_object",
                                        "structural_tag",
                                        "disable_any_whitespace",
                                        "disable_additional_properties",
                                        "whitespace_pattern",
                                        "disable_fallback"};
    struct ask own = {0};
    struct str s;
    bool present = false, object = false;
    enum rc rc = RC_OK;
    for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
        size_t i = 0;
        while (i < ARRAY_LEN(known) && strcmp(known[i], json_object_iter_key(it)) != 0)
            i++;
        if (i == ARRAY_LEN(known)) {
            struct str shown = api_quote(str_of(json_object_iter_key(it)));
            return err_set(e, RC_INVALID, "structured_outputs", "structured_outputs.%.*s is not known",
                           (int)shown.n, shown.p);
        }
    }
    const json_t *json = json_object_get(o, "json"), *choice = json_object_get(o, "choice"),
                 *tag = json_object_get(o, "structural_tag");
    if (json && !json_is_null(json))
        rc = claim_json(&own, "structured_outputs.json", GRAM_JSON_SCHEMA, json, e);
    if (!rc && !(rc = json_get_str(o, "structured_outputs", "regex", &s, &present, e)) && present)
        rc = claim_text(&own, "structured_outputs.regex", GRAM_REGEX, s, e);
    if (!rc && choice && !json_is_null(choice))
        rc = claim_choice(&own, "structured_outputs.choice", choice, e);
    if (!rc && !(rc = json_get_str(o, "structured_outputs", "grammar", &s, &present, e)) && present)
        rc = claim_text(&own, "structured_outputs.grammar", GRAM_EBNF, s, e);
    if (!rc && !(rc = json_get_bool(o, "structured_outputs", "json_object", &object, NULL, e)) && object)
        rc = claim_object(&own, "structured_outputs.json_object", e);
    if (!rc && tag && !json_is_null(tag))
        rc = claim_json(&own, "structured_outputs.structural_tag", GRAM_STRUCTURAL_TAG, tag, e);
    if (rc)
        return rc;
    if (!own.field)
        return err_set(
            e, RC_INVALID, "structured_outputs",
            "structured_outputs must have one of json, regex, choice, grammar, json_object, structural_tag");
    if ((rc = claim(a, own.field, own.kind, e)))
        return rc;
    *a = own;
    return RC_OK;
}

static enum rc read_fields(struct ask *a, const struct field_values *v, struct err *e) {
    enum rc rc = RC_OK;
    if (v->response_format)
        rc = read_response_format(a, v->response_format, e);
    if (!rc && v->guided_json)
        rc = claim_json(a, "guided_json", GRAM_JSON_SCHEMA, v->guided_json, e);
    if (!rc && v->guided_regex.set)
        rc = claim_text(a, "guided_regex", GRAM_REGEX, v->guided_regex.v, e);
    if (!rc && v->guided_choice)
        rc = claim_choice(a, "guided_choice", v->guided_choice, e);
    if (!rc && v->guided_grammar.set)
        rc = claim_text(a, "guided_grammar", GRAM_EBNF, v->guided_grammar.v, e);
    if (!rc && v->structural_tag)
        rc = claim_json(a, "structural_tag", GRAM_STRUCTURAL_TAG, v->structural_tag, e);
    if (!rc && v->structured_outputs)
        rc = read_outputs(a, v->structured_outputs, e);
    return rc;
}

/* ---- the constraint --------------------------------------------------------------------------------- */

static struct str keep(struct arena *a, struct str s) {
    return (struct str){arena_strndup(a, s.p ? s.p : "", s.n), s.n};
}

/* read_options: what shapes the text of JSON, as the worker's compiler reads it. */
static enum rc read_options(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                            struct err *e) {
    struct str pattern = v->guided_whitespace.v;
    bool has_pattern = v->guided_whitespace.set, present, tight = o->no_json_whitespace,
         closed = o->no_additional_properties;
    enum rc rc = RC_OK;
    if (v->structured_outputs) {
        struct str own;
        rc = json_get_str(v->structured_outputs, "structured_outputs", "whitespace_pattern", &own, &present,
                          e);
        if (!rc && present) {
            pattern = own;
            has_pattern = true;
        }
        if (!rc)
            rc = json_get_bool(v->structured_outputs, "structured_outputs", "disable_any_whitespace", &tight,
                               NULL, e);
        if (!rc)
            rc = json_get_bool(v->structured_outputs, "structured_outputs", "disable_additional_properties",
                               &closed, NULL, e);
    }
    if (rc || !(has_pattern || tight || closed))
        return rc;
    struct buf b = {0};
    const char *comma = "{";
    if (has_pattern) {
        buf_addz(&b, "{\"whitespace_pattern\":");
        jw_str(&b, pattern);
        comma = ",";
    }
    if (tight) {
        buf_addf(&b, "%s\"disable_any_whitespace\":true", comma);
        comma = ",";
    }
    if (closed)
        buf_addf(&b, "%s\"disable_additional_properties\":true", comma);
    buf_addc(&b, '}');
    r->constraint.options = keep(&r->arena, buf_str(&b));
    buf_fini(&b);
    return RC_OK;
}

enum rc constraint_read(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                        struct err *e) {
    struct ask a = {0};
    enum rc rc = read_fields(&a, v, e);
    if (!rc)
        rc = read_options(v, o, r, e);
    if (rc)
        return rc;
    if (r->tools_mode != TOOLS_NONE) {
        if (a.field && !str_starts(str_of(a.field), STR_LIT("response_format")))
            return err_set(e, RC_INVALID, a.field, "%s cannot be used with a named or required tool_choice",
                           a.field);
        r->constraint.field = r->tools_mode == TOOLS_NAMED ? "tool_choice" : "tools";
        tools_constraint(v->tools, r);
        return RC_OK;
    }
    if (!a.field)
        return RC_OK;
    struct buf b = {0};
    if (a.json)
        jw_json(&b, a.json);
    r->constraint.field = a.field;
    r->constraint.kind = a.kind;
    r->constraint.text = keep(&r->arena, a.json ? buf_str(&b) : a.text);
    buf_fini(&b);
    return RC_OK;
}

/* ---- is it any good --------------------------------------------------------------------------------- */

static struct id128 digest_of(const struct gen_req *r) {
    uint8_t sum[32];
    struct id128 id;
    struct buf b = {0};
    buf_addf(&b, "%d %zu ", (int)r->constraint.kind, r->constraint.options.n);
    buf_add_str(&b, r->constraint.options);
    buf_add_str(&b, r->constraint.text);
    hash_sha256(b.data, b.len, sum);
    buf_fini(&b);
    memcpy(id.b, sum, sizeof id.b);
    return id;
}

enum rc constraint_check(struct gen_env *env, struct gen_req *r, struct err *e) {
    if (!r->constraint.kind)
        return RC_OK;
    struct id128 id = digest_of(r);
    uint64_t half[2];
    memcpy(half, id.b, sizeof half);
    /* Halves of two digests in one slot would have to be this digest's: nothing needs a lock. */
    struct gen_good *slot = &env->good[half[0] % ARRAY_LEN(env->good)];
    if (atomic_load(&slot->half[0]) == half[0] && atomic_load(&slot->half[1]) == half[1])
        return RC_OK;
    struct gram *g = NULL;
    struct err why = {0};
    uint64_t start_ns = clock_ns();
    struct gram_limits limits = grammar_flags_limits(&env->opts->grammar);
    enum rc rc =
        gram_compile(&g, r->constraint.kind, r->constraint.text, r->constraint.options, &limits, &why);
    gram_drop(g);
    r->compile_ns = clock_ns() - start_ns;
    if (rc != RC_OK) {
        const char *at = why.param, *sep = *why.param ? ": " : "";
        return err_set(e, RC_INVALID, r->constraint.field, "%s: %s%s%s", r->constraint.field, at, sep,
                       why.msg);
    }
    atomic_store(&slot->half[0], half[0]);
    atomic_store(&slot->half[1], half[1]);
    return RC_OK;
}
