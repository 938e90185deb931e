/* compile.c: the whole of a constraint, as it travels, to a sealed grammar. */
#include "common/gram/front.h"
#include "common/json.h"

#include <stdlib.h>

static const struct json_limits json_bounds = {.depth_max = 64, .nodes_max = 1 << 20};

static enum rc read_options(struct str text, json_t **json, struct gram_options *o, struct err *e) {
    if (!text.n)
        return RC_OK;
    enum rc rc = json_parse(text, &json_bounds, json, e);
    if (rc)
        return rc;
    if (!json_is_object(*json))
        return err_set(e, RC_INVALID, NULL, "the options of a constraint must be an object");
    if (!(rc = json_get_str(*json, "", "whitespace_pattern", &o->whitespace_pattern, NULL, e)) &&
        !(rc = json_get_bool(*json, "", "disable_any_whitespace", &o->no_whitespace, NULL, e)))
        rc = json_get_bool(*json, "", "disable_additional_properties", &o->no_additional_properties, NULL, e);
    return rc;
}

static enum rc add_choice(struct gram *g, const json_t *list, uint32_t *sym, struct err *e) {
    size_t n = json_array_size(list), max = gram_limits_of(g)->n_choices;
    if (n == 0)
        return err_set(e, RC_INVALID, NULL, "a choice must be a list of strings that is not empty");
    if (n > max)
        return err_set(e, RC_INVALID, NULL, "a choice of %zu strings; at most %zu (--max-choices)", n, max);
    struct str *s = xreallocarray(NULL, n, sizeof *s);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && rc == RC_OK; i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_string(v))
            s[i] = (struct str){json_string_value(v), json_string_length(v)};
        else
            rc = err_set(e, RC_INVALID, NULL, "member %zu of a choice must be a string", i);
    }
    if (rc == RC_OK)
        *sym = gram_term(g, rx_choice(g, s, n), 0);
    free(s);
    return rc;
}

static enum rc add_text(struct gram *g, enum gram_kind kind, struct str text, const struct gram_options *o,
                        uint32_t *sym, struct err *e) {
    if (kind == GRAM_REGEX)
        return gram_add_regex(g, text, sym, e);
    if (kind == GRAM_EBNF)
        return gram_add_ebnf(g, text, sym, e);
    uint32_t max = gram_limits_of(g)->text_bytes;
    if (text.n > max)
        return err_set(e, RC_INVALID, NULL, "%zu bytes of text; at most %u (--max-schema-bytes)", text.n,
                       max);
    json_t *json = NULL;
    enum rc rc = json_parse(text, &json_bounds, &json, e);
    if (rc)
        return rc;
    if (kind == GRAM_CHOICE)
        rc = add_choice(g, json, sym, e);
    else if (kind == GRAM_STRUCTURAL_TAG)
        rc = gram_add_tags(g, json, o, sym, e);
    else
        rc = gram_add_json_schema(g, json, o, sym, e);
    json_decref(json);
    return rc;
}

enum rc gram_compile(struct gram **out, enum gram_kind kind, struct str text, struct str options_json,
                     const struct gram_limits *limits, struct err *e) {
    if (kind < GRAM_JSON_SCHEMA || kind > GRAM_STRUCTURAL_TAG)
        return err_set(e, RC_INVALID, NULL, "unknown kind of constraint");
    struct gram_options o = {.limits = limits};
    json_t *options = NULL;
    uint32_t sym;
    struct gram *g = gram_new(limits);
    enum rc rc = read_options(options_json, &options, &o, e);
    if (rc == RC_OK)
        rc = add_text(g, kind, text, &o, &sym, e);
    if (rc == RC_OK)
        rc = gram_seal(g, sym, kind == GRAM_EBNF, e);
    if (rc == RC_OK)
        *out = gram_hold(g);
    gram_drop(g);
    json_decref(options);
    return rc;
}
