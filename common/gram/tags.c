/* tags.c: structural tags, both shapes of api.md 9.5.
 *
 * Free text that ends at the first trigger is exact: it is what ends in the trigger and holds no trigger that
 * ends earlier. The same for any_text before the end of its tag. Rules are left-recursive over the tags, so
 * that a long text with many tags does not nest.
 * Recursion follows the nesting of the JSON, which is at most TAGS_DEPTH_MAX.
 */
#include "common/gram/front.h"
#include "common/gram/regex.h"
#include "common/json.h"
#include "common/utf8.h"

#include <stdlib.h>

enum { TAGS_DEPTH_MAX = 64 };

struct tags {
    struct gram *g;
    const struct gram_options *o;
    struct buf path; /* JSON pointer of what is being read */
    unsigned depth;
    uint32_t any_char;
    struct err *e;
};

/* A tag's place in the language: what opens it (behind the trigger that has been matched, if any), what it
 * holds, what closes it. */
struct tag {
    struct str begin, end;
    const json_t *content;
    bool schema; /* content is a JSON schema, not a format */
    size_t at;   /* its index, for pointers */
};

static enum rc bad(struct tags *t, const char *key, const char *what) {
    return err_set(t->e, RC_INVALID, buf_cstr(&t->path), "%s%s%s", key ? key : "", key ? " " : "", what);
}

static size_t path_down(struct tags *t, const char *key) {
    size_t was = t->path.len;
    buf_addf(&t->path, "/%s", key);
    return was;
}

static size_t path_index(struct tags *t, const char *key, size_t i) {
    size_t was = t->path.len;
    buf_addf(&t->path, "/%s/%zu", key, i);
    return was;
}

static void path_up(struct tags *t, size_t was) {
    t->path.len = was;
}

/* ---- members ------------------------------------------------------------------------------------- */

static enum rc want_string(struct tags *t, const json_t *o, const char *key, bool empty_ok, struct str *out) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return bad(t, key, "must be a string");
    *out = (struct str){json_string_value(v), json_string_length(v)};
    return out->n || empty_ok ? RC_OK : bad(t, key, "must not be empty");
}

static enum rc want_list(struct tags *t, const json_t *o, const char *key, const json_t **out) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_array(v) || json_array_size(v) == 0)
        return bad(t, key, "must be a list that is not empty");
    if (json_array_size(v) > gram_limits_of(t->g)->n_choices)
        return bad(t, key, "is a list of too many members (--max-choices)");
    *out = v;
    return RC_OK;
}

static enum rc want_bool(struct tags *t, const json_t *o, const char *key, bool *out) {
    const json_t *v = json_object_get(o, key);
    *out = json_is_true(v);
    return !v || json_is_boolean(v) ? RC_OK : bad(t, key, "must be a boolean");
}

/* want_only: no member but those of the list, which NULL ends. */
static enum rc want_only(struct tags *t, const json_t *o, const char *const *keys) {
    const char *key;
    const json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], key) != 0)
            i++;
        if (!keys[i]) {
            char name[64];
            size_t n = utf8_cut(key, strlen(key), sizeof name - 1);
            memcpy(name, key, n);
            name[n] = 0;
            return bad(t, name, "is not supported here");
        }
    }
    return RC_OK;
}

/* ---- free text ----------------------------------------------------------------------------------- */

/* rx_without: text in which none of s occurs. */
static uint32_t rx_without(struct gram *g, uint32_t strings) {
    return strings == RX_NONE ? RX_ANY : rx_not(g, rx_cat(g, RX_ANY, rx_cat(g, strings, RX_ANY)));
}

/* rx_first_at_end: text in which none of the strings ends before the end of the text. */
static uint32_t rx_first_at_end(struct tags *t, uint32_t strings) {
    uint32_t more = rx_cat(t->g, t->any_char, RX_ANY);
    return rx_not(t->g, rx_cat(t->g, RX_ANY, rx_cat(t->g, strings, more)));
}

static uint32_t rx_strings(struct gram *g, const struct str *s, size_t n, struct str also) {
    struct str *all = xreallocarray(NULL, n + 1, sizeof *all);
    if (n)
        memcpy(all, s, n * sizeof *all);
    if (also.n)
        all[n++] = also;
    uint32_t rx = n ? rx_choice(g, all, n) : RX_NONE;
    free(all);
    return rx;
}

static uint32_t add_pair(struct gram *g, uint32_t rule, uint32_t a, uint32_t b) {
    uint32_t parts[2] = {a, b};
    gram_prod(g, rule, parts, 2);
    return rule;
}

static uint32_t new_rule(struct gram *g) {
    return gram_rule(g, (struct str){NULL, 0}, 0);
}

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
        return bad(t, key, "must be a JSON schema");
    struct err inner = {0};
    size_t was = path_down(t, key);
    if (gram_add_json_schema(t->g, schema, t->o, sym, &inner))
        return inner_failed(t, &inner);
    path_up(t, was);
    return RC_OK;
}

static enum rc add_text(struct tags *t, const json_t *f, const char *key, uint32_t *sym) {
    struct str text;
    enum rc rc = want_string(t, f, key, true, &text);
    if (rc)
        return rc;
    struct err inner = {0};
    bool regex = key[0] == 'p';
    if (key[0] == 'v')
        *sym = gram_term(t->g, text.n ? rx_bytes(t->g, text) : RX_EMPTY, 0);
    else if ((regex ? gram_add_regex : gram_add_ebnf)(t->g, text, sym, &inner)) {
        path_down(t, key);
        return inner_failed(t, &inner);
    }
    return RC_OK;
}

/* any_text: the expression of its text, and of what it must not hold (`stop` included). */
static enum rc any_text(struct tags *t, const json_t *f, struct str stop, uint32_t *rx) {
    static const char *const keys[] = {"type", "excludes", NULL};
    enum rc rc = want_only(t, f, keys);
    if (rc)
        return rc;
    const json_t *list = json_object_get(f, "excludes");
    if (list && !json_is_null(list) && !json_is_array(list))
        return bad(t, "excludes", "must be a list of strings");
    size_t n = json_array_size(list);
    if (n > gram_limits_of(t->g)->n_choices)
        return bad(t, "excludes", "is a list of too many members (--max-choices)");
    struct str *s = xreallocarray(NULL, n + 1, sizeof *s);
    for (size_t i = 0; i < n && rc == RC_OK; i++) {
        const json_t *v = json_array_get(list, i);
        s[i] = (struct str){json_string_value(v), json_string_length(v)};
        if (!s[i].n)
            rc = bad(t, "excludes", "must be a list of strings that are not empty");
    }
    if (rc == RC_OK)
        *rx = rx_without(t->g, rx_strings(t->g, s, n, stop));
    free(s);
    return rc;
}

static bool is_type(const json_t *f, const char *type) {
    const char *have = json_string_value(json_object_get(f, "type"));
    return have && strcmp(have, type) == 0;
}

/* add_ending: a format with the end of its tag behind it. Where text of any kind comes last it ends with the
 * first `end`, exactly. */
static enum rc add_ending(struct tags *t, const json_t *f, struct str end, uint32_t *sym) {
    enum rc rc;
    uint32_t rx, close = gram_term(t->g, end.n ? rx_bytes(t->g, end) : RX_EMPTY, 0);
    if (end.n && json_is_object(f) && is_type(f, "any_text")) {
        if ((rc = any_text(t, f, (struct str){NULL, 0}, &rx)))
            return rc;
        uint32_t text = rx_bytes(t->g, end);
        rx = rx_and(t->g, rx_cat(t->g, rx, text), rx_first_at_end(t, text));
        *sym = gram_term(t->g, rx, 0);
        return RC_OK;
    }
    uint32_t content;
    if ((rc = add_format(t, f, end, &content)))
        return rc;
    *sym = add_pair(t->g, new_rule(t->g), content, close);
    return RC_OK;
}

/* add_body: a tag without what of its begin has been matched already. */
static enum rc add_body(struct tags *t, const struct tag *tag, size_t n_matched, uint32_t *sym) {
    struct str rest = {tag->begin.p + n_matched, tag->begin.n - n_matched};
    uint32_t inner;
    enum rc rc;
    if (tag->schema) {
        uint32_t content;
        if ((rc = add_schema(t, tag->content, "schema", &content)))
            return rc;
        inner = add_pair(t->g, new_rule(t->g), content,
                         gram_term(t->g, tag->end.n ? rx_bytes(t->g, tag->end) : RX_EMPTY, 0));
    } else {
        size_t was = path_down(t, "content");
        if ((rc = add_ending(t, tag->content, tag->end, &inner)))
            return rc;
        path_up(t, was);
    }
    *sym = rest.n ? add_pair(t->g, new_rule(t->g), gram_term(t->g, rx_bytes(t->g, rest), 0), inner) : inner;
    return RC_OK;
}

static enum rc read_tag(struct tags *t, const json_t *o, bool schema, struct tag *tag) {
    static const char *const new_keys[] = {"type", "begin", "content", "end", NULL};
    static const char *const old_keys[] = {"begin", "schema", "end", NULL};
    if (!json_is_object(o))
        return bad(t, NULL, "must be an object");
    enum rc rc = want_only(t, o, schema ? old_keys : new_keys);
    if (rc == RC_OK && !schema && json_object_get(o, "type") && !is_type(o, "tag"))
        rc = bad(t, "type", "must be \"tag\" here");
    if (rc == RC_OK)
        rc = want_string(t, o, "begin", true, &tag->begin);
    if (rc == RC_OK)
        rc = want_string(t, o, "end", true, &tag->end);
    if (rc)
        return rc;
    tag->schema = schema;
    tag->content = schema ? o : json_object_get(o, "content");
    return RC_OK;
}

static enum rc add_tag(struct tags *t, const json_t *o, uint32_t *sym) {
    struct tag tag = {0};
    enum rc rc = read_tag(t, o, false, &tag);
    return rc ? rc : add_body(t, &tag, 0, sym);
}

/* ---- tags behind triggers ------------------------------------------------------------------------ */

struct triggered {
    struct str *triggers; /* sorted */
    size_t n_triggers;
    struct tag *tags;
    size_t n_tags;
    const char *list; /* the tags' member, for pointers */
    bool at_least_one, stop_after_first;
    struct str stop; /* the end of the tag around all this; free text does not hold it */
};

static int str_order(const void *a, const void *b) {
    const struct str *x = a, *y = b;
    int d = memcmp(x->p, y->p, MIN(x->n, y->n));
    return d ? d : (x->n > y->n) - (x->n < y->n);
}

static enum rc read_triggers(struct tags *t, const json_t *o, struct triggered *d) {
    const json_t *list;
    enum rc rc = want_list(t, o, "triggers", &list);
    if (rc)
        return rc;
    d->triggers = xreallocarray(NULL, json_array_size(list), sizeof *d->triggers);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        struct str s = {json_string_value(v), json_string_length(v)};
        if (!s.n)
            return bad(t, "triggers", "must be strings that are not empty");
        d->triggers[d->n_triggers++] = s;
    }
    qsort(d->triggers, d->n_triggers, sizeof *d->triggers, str_order);
    /* In this order a string that begins others stands directly before one of them. */
    for (size_t i = 1; i < d->n_triggers; i++)
        if (str_starts(d->triggers[i], d->triggers[i - 1]))
            return bad(t, "triggers", "must not begin with one another");
    return RC_OK;
}

static enum rc read_tags(struct tags *t, const json_t *o, bool schema, struct triggered *d) {
    const json_t *list;
    enum rc rc = want_list(t, o, d->list, &list);
    if (rc)
        return rc;
    d->tags = xcalloc(json_array_size(list), sizeof *d->tags);
    for (; d->n_tags < json_array_size(list); d->n_tags++) {
        size_t was = path_index(t, d->list, d->n_tags);
        d->tags[d->n_tags].at = d->n_tags;
        if ((rc = read_tag(t, json_array_get(list, d->n_tags), schema, &d->tags[d->n_tags])))
            return rc;
        path_up(t, was);
    }
    return RC_OK;
}

/* trigger_of: the trigger that s begins with; n_triggers if there is none. No trigger begins another one, so
 * it is the last that is not behind s in order. */
static size_t trigger_of(const struct triggered *d, struct str s) {
    size_t lo = 0, hi = d->n_triggers;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (str_order(&d->triggers[mid], &s) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo && str_starts(s, d->triggers[lo - 1]) ? lo - 1 : d->n_triggers;
}

/* add_items: to rule `item`, for each tag: free text up to its trigger, then the rest of the tag. */
static enum rc add_items(struct tags *t, const struct triggered *d, uint32_t item) {
    struct gram *g = t->g;
    uint32_t all = rx_strings(g, d->triggers, d->n_triggers, d->stop), ends = rx_first_at_end(t, all);
    uint32_t *bodies = xreallocarray(NULL, d->n_triggers, sizeof *bodies);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < d->n_triggers; i++)
        bodies[i] = RX_INF;
    for (size_t i = 0; i < d->n_tags && rc == RC_OK; i++) {
        const struct tag *tag = &d->tags[i];
        size_t was = path_index(t, d->list, tag->at), k = trigger_of(d, tag->begin);
        if (k == d->n_triggers) {
            rc = bad(t, "begin", "does not start with any of the triggers");
            break;
        }
        uint32_t sym;
        if ((rc = add_body(t, tag, d->triggers[k].n, &sym)))
            break;
        path_up(t, was);
        if (bodies[k] == RX_INF) {
            bodies[k] = new_rule(g);
            uint32_t until = rx_and(g, rx_cat(g, RX_ANY, rx_bytes(g, d->triggers[k])), ends);
            add_pair(g, item, gram_term(g, until, 0), bodies[k]);
        }
        gram_prod(g, bodies[k], &sym, 1);
    }
    free(bodies);
    return rc;
}

static enum rc add_triggered(struct tags *t, const struct triggered *d, uint32_t *sym) {
    struct gram *g = t->g;
    uint32_t item = new_rule(g), start = new_rule(g), items;
    enum rc rc = add_items(t, d, item);
    if (rc)
        return rc;
    uint32_t text = gram_term(g, rx_without(g, rx_strings(g, d->triggers, d->n_triggers, d->stop)), 0);
    if (d->stop_after_first) {
        gram_prod(g, start, &item, 1);
        if (!d->at_least_one)
            gram_prod(g, start, &text, 1);
    } else {
        items = new_rule(g);
        gram_prod(g, items, &item, d->at_least_one ? 1 : 0);
        add_pair(g, items, items, item);
        add_pair(g, start, items, text);
    }
    *sym = start;
    return RC_OK;
}

static enum rc add_triggered_tags(struct tags *t, const json_t *o, bool legacy, struct str stop,
                                  uint32_t *sym) {
    static const char *const new_keys[] = {"type",         "triggers",         "tags",
                                           "at_least_one", "stop_after_first", NULL};
    static const char *const old_keys[] = {"type", "structures", "triggers", NULL};
    struct triggered d = {.list = legacy ? "structures" : "tags", .stop = stop};
    enum rc rc = want_only(t, o, legacy ? old_keys : new_keys);
    if (rc == RC_OK)
        rc = want_bool(t, o, "at_least_one", &d.at_least_one);
    if (rc == RC_OK)
        rc = want_bool(t, o, "stop_after_first", &d.stop_after_first);
    if (rc == RC_OK)
        rc = read_triggers(t, o, &d);
    if (rc == RC_OK)
        rc = read_tags(t, o, legacy, &d);
    if (rc == RC_OK)
        rc = add_triggered(t, &d, sym);
    free(d.triggers);
    free(d.tags);
    return rc;
}

static enum rc add_separated_tags(struct tags *t, const json_t *o, uint32_t *sym) {
    static const char *const keys[] = {"type", "tags", "separator", "at_least_one", "stop_after_first", NULL};
    bool one, stop;
    struct str separator;
    const json_t *list;
    enum rc rc = want_only(t, o, keys);
    if (rc == RC_OK)
        rc = want_bool(t, o, "at_least_one", &one);
    if (rc == RC_OK)
        rc = want_bool(t, o, "stop_after_first", &stop);
    if (rc == RC_OK)
        rc = want_string(t, o, "separator", true, &separator);
    if (rc == RC_OK)
        rc = want_list(t, o, "tags", &list);
    if (rc)
        return rc;
    uint32_t any = new_rule(t->g);
    for (size_t i = 0; i < json_array_size(list); i++) {
        uint32_t tag;
        size_t was = path_index(t, "tags", i);
        if ((rc = add_tag(t, json_array_get(list, i), &tag)))
            return rc;
        path_up(t, was);
        gram_prod(t->g, any, &tag, 1);
    }
    uint32_t between = separator.n ? gram_term(t->g, rx_bytes(t->g, separator), 0) : UINT32_MAX;
    *sym = gram_repeat(t->g, any, between, one, stop ? 1 : RX_INF);
    return RC_OK;
}

static enum rc add_elements(struct tags *t, const json_t *f, bool sequence, struct str stop, uint32_t *sym) {
    static const char *const keys[] = {"type", "elements", NULL};
    const json_t *list;
    enum rc rc = want_only(t, f, keys);
    if (rc == RC_OK)
        rc = want_list(t, f, "elements", &list);
    if (rc)
        return rc;
    size_t n = json_array_size(list);
    uint32_t *parts = xreallocarray(NULL, n, sizeof *parts);
    for (size_t i = 0; i < n && rc == RC_OK; i++) {
        size_t was = path_index(t, "elements", i);
        if ((rc = add_format(t, json_array_get(list, i), stop, &parts[i])) == RC_OK)
            path_up(t, was);
    }
    if (rc == RC_OK) {
        *sym = new_rule(t->g);
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
    enum rc rc = want_only(t, f, keys);
    if (rc)
        return rc;
    return key[0] == 'j' ? add_schema(t, f, key, sym) : add_text(t, f, key, sym);
}

static enum rc add_kind(struct tags *t, const json_t *f, struct str stop, uint32_t *sym) {
    uint32_t rx;
    if (is_type(f, "const_string"))
        return add_simple(t, f, "value", sym);
    if (is_type(f, "json_schema"))
        return add_simple(t, f, "json_schema", sym);
    if (is_type(f, "regex"))
        return add_simple(t, f, "pattern", sym);
    if (is_type(f, "grammar"))
        return add_simple(t, f, "grammar", sym);
    if (is_type(f, "sequence") || is_type(f, "or"))
        return add_elements(t, f, is_type(f, "sequence"), stop, sym);
    if (is_type(f, "tag"))
        return add_tag(t, f, sym);
    if (is_type(f, "triggered_tags"))
        return add_triggered_tags(t, f, false, stop, sym);
    if (is_type(f, "tags_with_separator"))
        return add_separated_tags(t, f, sym);
    if (!is_type(f, "any_text"))
        return bad(t, "type",
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
        return bad(t, NULL, "must be an object with a \"type\"");
    if (t->depth == TAGS_DEPTH_MAX)
        return bad(t, NULL, "nests too deep");
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
        rc = bad(&t, NULL, "a structural tag must be an object");
    } else if (json_object_get(tags, "type") && !is_type(tags, "structural_tag")) {
        rc = bad(&t, "type", "must be \"structural_tag\"");
    } else if (!json_object_get(tags, "format")) {
        rc = add_triggered_tags(&t, tags, true, (struct str){NULL, 0}, sym);
    } else if ((rc = want_only(&t, tags, keys)) == RC_OK) {
        path_down(&t, "format");
        rc = add_format(&t, json_object_get(tags, "format"), (struct str){NULL, 0}, sym);
    }
    buf_fini(&t.path);
    return rc;
}
