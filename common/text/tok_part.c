/* tok_part.c: what the readers of tokenizer.json's parts share. */
#include "common/text/tok_impl.h"

#include "common/utf8.h"

#include <stdio.h>

bool tok_absent(const json_t *v) {
    return !v || json_is_null(v);
}

const char *tok_type(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "(none)";
}

const json_t *tok_member(const json_t *part, const char *name, const char *list, size_t i, char *path,
                         size_t size) {
    if (strcmp(tok_type(part), "Sequence") != 0) {
        snprintf(path, size, "%s", name);
        return i == 0 ? part : NULL;
    }
    snprintf(path, size, "%s.%s[%zu]", name, list, i);
    return json_array_get(json_object_get(part, list), i);
}

enum rc tok_flag(const json_t *m, const char *key, const char *path, bool fallback, bool *out,
                 struct err *e) {
    const json_t *v = json_object_get(m, key);
    if (v && !json_is_boolean(v))
        return tok_bad(e, path, "%s must be true or false", key);
    *out = v ? json_is_true(v) : fallback;
    return RC_OK;
}

enum rc tok_text(const json_t *m, const char *key, const char *path, size_t n_min, struct str *out,
                 struct err *e) {
    const json_t *v = json_object_get(m, key);
    if (!json_is_string(v) || json_string_length(v) < n_min)
        return tok_bad(e, path, "%s must be a string%s", key, n_min ? " that is not empty" : "");
    *out = (struct str){json_string_value(v), json_string_length(v)};
    return RC_OK;
}

enum rc tok_one_char(const json_t *m, const char *key, const char *path, struct str *out, struct err *e) {
    const json_t *v = json_object_get(m, key);
    struct str s = {json_string_value(v), json_string_length(v)};
    if (!json_is_string(v) || utf8_count(s.p, s.n) != 1)
        return tok_bad(e, path, "%s must be one character", key);
    *out = s;
    return RC_OK;
}

enum rc tok_pattern(const json_t *m, const char *path, struct str *out, bool *regex, struct err *e) {
    const json_t *pattern = json_object_get(m, "pattern"), *v = json_object_get(pattern, "String");
    *regex = !v;
    if (!v)
        v = json_object_get(pattern, "Regex");
    if (!json_is_string(v) || json_string_length(v) == 0)
        return tok_bad(e, path, "pattern must hold a String or a Regex that is not empty");
    *out = (struct str){json_string_value(v), json_string_length(v)};
    return RC_OK;
}
