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

/* add_members: Sequences in Sequences are no deeper than the file may be. */
static enum rc add_members(const json_t *part, const char *path, const char *list, struct tok_members *out,
                           struct err *e) {
    if (strcmp(tok_type(part), "Sequence") != 0) {
        if (out->n == TOK_MEMBERS_MAX)
            return tok_bad(e, path, "more than %d steps", TOK_MEMBERS_MAX);
        struct tok_member *m = &out->at[out->n++];
        m->v = part;
        snprintf(m->path, sizeof m->path, "%s", path);
        return RC_OK;
    }
    const json_t *members = json_object_get(part, list);
    enum rc rc = json_is_array(members) ? RC_OK : tok_bad(e, path, "%s must be an array", list);
    for (size_t i = 0; i < json_array_size(members) && !rc; i++) {
        char own[TOK_MEMBER_PATH_MAX];
        int n = snprintf(own, sizeof own, "%s.%s[%zu]", path, list, i);
        if (n >= (int)sizeof own)
            return tok_bad(e, path, "Sequences in one another deeper than a path of %zu characters", sizeof own);
        rc = add_members(json_array_get(members, i), own, list, out, e);
    }
    return rc;
}

enum rc tok_members(const json_t *part, const char *name, const char *list, struct tok_members *out,
                    struct err *e) {
    out->n = 0;
    return tok_absent(part) ? RC_OK : add_members(part, name, list, out, e);
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

enum rc tok_compile(struct str re, const char *path, struct pattern **out, struct err *e) {
    struct err why;
    enum rc rc = pattern_new(out, re, &why);
    if (rc)
        return rc == RC_UNSUPPORTED ? tok_unsupported(e, path, "%s", why.msg) : tok_bad(e, path, "%s", why.msg);
    return RC_OK;
}
