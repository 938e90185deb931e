/* tags_parts.c: members of structural tags, and the expressions of free text. */
#include "common/gram/tags.h"
#include "common/utf8.h"

#include <stdlib.h>

enum rc tags_bad(struct tags *t, const char *key, const char *what) {
    return err_set(t->e, RC_INVALID, buf_cstr(&t->path), "%s%s%s", key ? key : "", key ? " " : "", what);
}

size_t tags_path_down(struct tags *t, const char *key) {
    size_t was = t->path.len;
    buf_addf(&t->path, "/%s", key);
    return was;
}

size_t tags_path_index(struct tags *t, const char *key, size_t i) {
    size_t was = t->path.len;
    buf_addf(&t->path, "/%s/%zu", key, i);
    return was;
}

void tags_path_up(struct tags *t, size_t was) {
    t->path.len = was;
}

/* ---- members ------------------------------------------------------------------------------------- */

enum rc tags_want_string(struct tags *t, const json_t *o, const char *key, bool empty_ok, struct str *out) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return tags_bad(t, key, "must be a string");
    *out = (struct str){json_string_value(v), json_string_length(v)};
    return out->n || empty_ok ? RC_OK : tags_bad(t, key, "must not be empty");
}

enum rc tags_want_list(struct tags *t, const json_t *o, const char *key, const json_t **out) {
    const json_t *v = json_object_get(o, key);
    if (!json_is_array(v) || json_array_size(v) == 0)
        return tags_bad(t, key, "must be a list that is not empty");
    if (json_array_size(v) > gram_limits_of(t->g)->n_choices)
        return tags_bad(t, key, "is a list of too many members (--max-choices)");
    *out = v;
    return RC_OK;
}

enum rc tags_want_bool(struct tags *t, const json_t *o, const char *key, bool *out) {
    const json_t *v = json_object_get(o, key);
    *out = json_is_true(v);
    return !v || json_is_boolean(v) ? RC_OK : tags_bad(t, key, "must be a boolean");
}

/* want_only: no member but those of the list, which NULL ends. */
enum rc tags_want_only(struct tags *t, const json_t *o, const char *const *keys) {
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
            return tags_bad(t, name, "is not supported here");
        }
    }
    return RC_OK;
}

bool tags_is_type(const json_t *f, const char *type) {
    const char *have = json_string_value(json_object_get(f, "type"));
    return have && strcmp(have, type) == 0;
}

/* ---- free text ----------------------------------------------------------------------------------- */

uint32_t tags_rx_without(struct gram *g, uint32_t strings) {
    return strings == RX_NONE ? RX_ANY : rx_not(g, rx_cat(g, RX_ANY, rx_cat(g, strings, RX_ANY)));
}

uint32_t tags_rx_first_at_end(struct tags *t, uint32_t strings) {
    uint32_t more = rx_cat(t->g, t->any_char, RX_ANY);
    return rx_not(t->g, rx_cat(t->g, RX_ANY, rx_cat(t->g, strings, more)));
}

uint32_t tags_rx_strings(struct gram *g, const struct str *s, size_t n, struct str also) {
    struct str *all = xreallocarray(NULL, n + 1, sizeof *all);
    if (n)
        memcpy(all, s, n * sizeof *all);
    if (also.n)
        all[n++] = also;
    uint32_t rx = n ? rx_choice(g, all, n) : RX_NONE;
    free(all);
    return rx;
}

uint32_t tags_add_pair(struct gram *g, uint32_t rule, uint32_t a, uint32_t b) {
    uint32_t parts[2] = {a, b};
    gram_prod(g, rule, parts, 2);
    return rule;
}

uint32_t tags_new_rule(struct gram *g) {
    return gram_rule(g, (struct str){NULL, 0}, 0);
}
