/* tags.c: structural tags, both shapes of api.md 9.5.
 *
 * Free text that ends at the first trigger is exact: it is what ends in the trigger and holds no trigger that
 * ends earlier. The same for any_text before the end of its tag. Rules are left-recursive over the tags, so
 * that a long text with many tags does not nest.
 * Recursion follows the nesting of the JSON, which is at most TAGS_DEPTH_MAX.
 */
#include "common/gram/tags.h"

#include "common/gram/regex.h"

#include <stdlib.h>

/* ---- formats ------------------------------------------------------------------------------------- */

static enum rc add_format(struct tags *t, const json_t *f, struct str stop, uint32_t *sym);

/* inner_failed: an error of another front end, told with the pointer of the place. */
static enum rc inner_failed(struct tags *t, const struct err *inner) {
    buf_addz(&t->path, inner->param);
    return err_set(t->e, inner->rc, buf_cstr(&t->path), "%s", inner->msg);
}

static enum rc add_schema(struct tags *t, const json_t *o, const char *key, uint32_t *sym) {
    const json_t *schema = json_object_get(o, key);
    if (!json_is_object(schema) && !json_is_boolean(schema))
        return tags_bad(t, key, "must be a JSON schema");
    struct err inner = {0};
    size_t was = tags_path_down(t, key);
    if (gram_add_json_schema(t->g, schema, t->o, sym, &inner))
        return inner_failed(t, &inner);
    tags_path_up(t, was);
    return RC_OK;
}

static enum rc add_text(struct tags *t, const json_t *f, const char *key, uint32_t *sym) {
    struct str text;
    enum rc rc = tags_want_string(t, f, key, true, &text);
    if (rc)
        return rc;
    struct err inner = {0};
    bool regex = key[0] == 'p';
    if (key[0] == 'v')
        *sym = gram_term(t->g, text.n ? rx_bytes(t->g, text) : RX_EMPTY, 0);
    else if ((regex ? gram_add_regex : gram_add_ebnf)(t->g, text, sym, &inner)) {
        tags_path_down(t, key);
        return inner_failed(t, &inner);
    }
    return RC_OK;
}

/* any_text: the expression of its text, and of what it must not hold (`stop` included). */
static enum rc any_text(struct tags *t, const json_t *f, struct str stop, uint32_t *rx) {
    static const char *const keys[] = {"type", "excludes", NULL};
    enum rc rc = tags_want_only(t, f, keys);
    if (rc)
        return rc;
    const json_t *list = json_object_get(f, "excludes");
    if (list && !json_is_null(list) && !json_is_array(list))
        return tags_bad(t, "excludes", "must be a list of strings");
    size_t n = json_array_size(list);
    if (n > gram_limits_of(t->g)->n_choices)
        return tags_bad(t, "excludes", "is a list of too many members (--max-choices)");
    struct str *s = xreallocarray(NULL, n + 1, sizeof *s);
    for (size_t i = 0; i < n && rc == RC_OK; i++) {
        const json_t *v = json_array_get(list, i);
        s[i] = (struct str){json_string_value(v), json_string_length(v)};
        if (!s[i].n)
            rc = tags_bad(t, "excludes", "must be a list of strings that are not empty");
    }
    if (rc == RC_OK)
        *rx = tags_rx_without(t->g, tags_rx_strings(t->g, s, n, stop));
    free(s);
    return rc;
}

/* add_ending: a format with the end of its tag behind it. Where text of any kind comes last it ends with the
 * first `end`, exactly. */
static enum rc add_ending(struct tags *t, const json_t *f, struct str end, uint32_t *sym) {
    enum rc rc;
    uint32_t rx, close = gram_term(t->g, end.n ? rx_bytes(t->g, end) : RX_EMPTY, 0);
    if (end.n && json_is_object(f) && tags_is_type(f, "any_text")) {
        if ((rc = any_text(t, f, (struct str){NULL, 0}, &rx)))
            return rc;
        uint32_t text = rx_bytes(t->g, end);
        rx = rx_and(t->g, rx_cat(t->g, rx, text), tags_rx_first_at_end(t, text));
        *sym = gram_term(t->g, rx, 0);
        return RC_OK;
    }
    uint32_t content;
    if ((rc = add_format(t, f, end, &content)))
        return rc;
    *sym = tags_add_pair(t->g, tags_new_rule(t->g), content, close);
    return RC_OK;
}

enum rc tags_add_body(struct tags *t, const struct tag *tag, size_t n_matched, uint32_t *sym) {
    struct str rest = {tag->begin.p + n_matched, tag->begin.n - n_matched};
    uint32_t inner;
    enum rc rc;
    if (tag->schema) {
        uint32_t content;
        if ((rc = add_schema(t, tag->content, "schema", &content)))
            return rc;
        inner = tags_add_pair(t->g, tags_new_rule(t->g), content,
                              gram_term(t->g, tag->end.n ? rx_bytes(t->g, tag->end) : RX_EMPTY, 0));
    } else {
        size_t was = tags_path_down(t, "content");
        if ((rc = add_ending(t, tag->content, tag->end, &inner)))
            return rc;
        tags_path_up(t, was);
    }
    *sym = rest.n ? tags_add_pair(t->g, tags_new_rule(t->g), gram_term(t->g, rx_bytes(t->g, rest), 0), inner)
                  : inner;
    return RC_OK;
}

enum rc tags_read_tag(struct tags *t, const json_t *o, bool schema, struct tag *tag) {
    static const char *const new_keys[] = {"type", "begin", "content", "end", NULL};
    static const char *const old_keys[] = {"begin", "schema", "end", NULL};
    if (!json_is_object(o))
        return tags_bad(t, NULL, "must be an object");
    enum rc rc = tags_want_only(t, o, schema ? old_keys : new_keys);
    if (rc == RC_OK && !schema && json_object_get(o, "type") && !tags_is_type(o, "tag"))
        rc = tags_bad(t, "type", "must be \"tag\" here");
    if (rc == RC_OK)
        rc = tags_want_string(t, o, "begin", true, &tag->begin);
    if (rc == RC_OK)
        rc = tags_want_string(t, o, "end", true, &tag->end);
    if (rc)
        return rc;
    tag->schema = schema;
    tag->content = schema ? o : json_object_get(o, "content");
    return RC_OK;
}

enum rc tags_add_tag(struct tags *t, const json_t *o, uint32_t *sym) {
    struct tag tag = {0};
    enum rc rc = tags_read_tag(t, o, false, &tag);
    return rc ? rc : tags_add_body(t, &tag, 0, sym);
}

static enum rc add_elements(struct tags *t, const json_t *f, bool sequence, struct str stop, uint32_t *sym) {
    static const char *const keys[] = {"type", "elements", NULL};
    const json_t *list;
    enum rc rc = tags_want_only(t, f, keys);
    if (rc == RC_OK)
        rc = tags_want_list(t, f, "elements", &list);
    if (rc)
        return rc;
    size_t n = json_array_size(list);
    uint32_t *parts = xreallocarray(NULL, n, sizeof *parts);
    for (size_t i = 0; i < n && rc == RC_OK; i++) {
        size_t was = tags_path_index(t, "elements", i);
        if ((rc = add_format(t, json_array_get(list, i), stop, &parts[i])) == RC_OK)
            tags_path_up(t, was);
    }
    if (rc == RC_OK) {
        *sym = tags_new_rule(t->g);
        if (sequence)
            gram_prod(t->g, *sym, parts, n);
        for (size_t i = 0; i < n && !sequence; i++)
            gram_prod(t->g, *sym, &parts[i], 1);
    }
    free(parts);
    return rc;
}

static enum rc add_simple(struct tags *t, const json_t *f, const char *key, uint32_t *sym) {
    const char *const keys[] = {"type", key, NULL};
    enum rc rc = tags_want_only(t, f, keys);
    if (rc)
        return rc;
    return key[0] == 'j' ? add_schema(t, f, key, sym) : add_text(t, f, key, sym);
}

static enum rc add_kind(struct tags *t, const json_t *f, struct str stop, uint32_t *sym) {
    uint32_t rx;
    if (tags_is_type(f, "const_string"))
        return add_simple(t, f, "value", sym);
    if (tags_is_type(f, "json_schema"))
        return add_simple(t, f, "json_schema", sym);
    if (tags_is_type(f, "regex"))
        return add_simple(t, f, "pattern", sym);
    if (tags_is_type(f, "grammar"))
        return add_simple(t, f, "grammar", sym);
    if (tags_is_type(f, "sequence") || tags_is_type(f, "or"))
        return add_elements(t, f, tags_is_type(f, "sequence"), stop, sym);
    if (tags_is_type(f, "tag"))
        return tags_add_tag(t, f, sym);
    if (tags_is_type(f, "triggered_tags"))
        return tags_triggered(t, f, false, stop, sym);
    if (tags_is_type(f, "tags_with_separator"))
        return tags_separated(t, f, sym);
    if (!tags_is_type(f, "any_text"))
        return tags_bad(
            t, "type",
            "must be one of const_string, any_text, json_schema, regex, grammar, sequence, or, tag, "
            "triggered_tags, tags_with_separator");
    enum rc rc = any_text(t, f, stop, &rx);
    if (rc == RC_OK)
        *sym = gram_term(t->g, rx, 0);
    return rc;
}

/* add_format: stop: the end of the tag around it, which text of any kind may not hold. */
static enum rc add_format(struct tags *t, const json_t *f, struct str stop, uint32_t *sym) {
    if (!json_is_object(f))
        return tags_bad(t, NULL, "must be an object with a \"type\"");
    if (t->depth == TAGS_DEPTH_MAX)
        return tags_bad(t, NULL, "nests too deep");
    t->depth++;
    enum rc rc = add_kind(t, f, stop, sym);
    t->depth--;
    return rc;
}

enum rc gram_add_tags(struct gram *g, const json_t *tags, const struct gram_options *o, uint32_t *sym,
                      struct err *e) {
    static const char *const keys[] = {"type", "format", NULL};
    struct tags t = {.g = g, .o = o, .e = e};
    t.any_char = rx_any_char(g);
    enum rc rc;
    if (!json_is_object(tags)) {
        rc = tags_bad(&t, NULL, "a structural tag must be an object");
    } else if (json_object_get(tags, "type") && !tags_is_type(tags, "structural_tag")) {
        rc = tags_bad(&t, "type", "must be \"structural_tag\"");
    } else if (!json_object_get(tags, "format")) {
        rc = tags_triggered(&t, tags, true, (struct str){NULL, 0}, sym);
    } else if ((rc = tags_want_only(&t, tags, keys)) == RC_OK) {
        tags_path_down(&t, "format");
        rc = add_format(&t, json_object_get(tags, "format"), (struct str){NULL, 0}, sym);
    }
    buf_fini(&t.path);
    return rc;
}
