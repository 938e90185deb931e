#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/conf_parts.h"
#include "common/json.h"
#include "common/utf8.h"

/* A reader of flat mappings: the part of YAML that configuration files of flags use. Anything else of YAML
 * (nesting, anchors, tags, block text) is refused with its line, never misread. */

void conf_file_free(struct conf_file *f) {
    for (size_t i = 0; i < f->n; i++) {
        free(f->pairs[i].key);
        for (size_t k = 0; k < f->pairs[i].value.n; k++)
            free(f->pairs[i].value.texts[k]);
        free(f->pairs[i].value.texts);
    }
    free(f->pairs);
    *f = (struct conf_file){0};
}

static struct conf_pair *add_pair(struct conf_file *f, const char *key, size_t n, size_t line) {
    f->pairs = xreallocarray(f->pairs, f->n + 1, sizeof *f->pairs);
    f->pairs[f->n] = (struct conf_pair){.key = xstrndup(key, n), .line = line};
    return &f->pairs[f->n++];
}

static enum rc at_line(size_t line, const char *what, struct err *e) {
    return err_set(e, RC_INVALID, NULL, "line %zu: %s", line, what);
}

/* ---- JSON ------------------------------------------------------------------------------------------- */

static enum rc json_scalar(struct conf_value *out, const char *key, const json_t *v, struct err *e) {
    struct buf b = {0};
    if (json_is_string(v)) {
        if (strlen(json_string_value(v)) != json_string_length(v))
            return err_set(e, RC_INVALID, key, "%.60s: a string with a NUL", key);
        buf_add(&b, json_string_value(v), json_string_length(v));
    } else {
        jw_json(&b, v);
    }
    conf_value_add(out, buf_cstr(&b), b.len);
    buf_fini(&b);
    return RC_OK;
}

static enum rc parse_json(struct str text, struct conf_file *out, struct err *e) {
    json_t *root, *v, *item;
    const char *key;
    size_t i;
    enum rc rc = json_parse(text, NULL, &root, e);
    if (rc)
        return rc;
    json_object_foreach(root, key, v) {
        struct conf_pair *p = add_pair(out, key, strlen(key), 1);
        if (json_is_null(v))
            continue;
        p->value.is_bool = json_is_boolean(v);
        p->value.is_list = json_is_array(v);
        if (json_is_array(v)) {
            json_array_foreach(v, i, item) if (!rc) rc = json_scalar(&p->value, key, item, e);
        } else if (!rc) {
            rc = json_scalar(&p->value, key, v, e);
        }
    }
    json_decref(root);
    return rc;
}

/* ---- YAML ------------------------------------------------------------------------------------------- */

static struct str trim(struct str s) {
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = (struct str){s.p + 1, s.n - 1};
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t' || s.p[s.n - 1] == '\r'))
        s.n--;
    return s;
}

/* is_comment: '#' at the start or behind a blank. */
static bool is_comment(struct str s, size_t at) {
    return s.p[at] == '#' && (at == 0 || s.p[at - 1] == ' ' || s.p[at - 1] == '\t');
}

/* read_quoted: s begins with a quote; *used is behind the closing one. */
static enum rc read_quoted(struct str s, size_t line, struct buf *out, size_t *used, struct err *e) {
    char quote = s.p[0];
    for (size_t i = 1; i < s.n; i++) {
        char c = s.p[i];
        if (c == quote && quote == '\'' && i + 1 < s.n && s.p[i + 1] == '\'') {
            buf_addc(out, *(s.p + i++));
        } else if (c == quote) {
            *used = i + 1;
            return RC_OK;
        } else if (c == '\\' && quote == '"') {
            static const char from[] = "nrt\"\\/", to[] = "\n\r\t\"\\/";
            const char *k = i + 1 < s.n ? memchr(from, s.p[i + 1], sizeof from - 1) : NULL;
            if (!k)
                return at_line(line, "an escape that is not supported in double quotes", e);
            buf_addc(out, to[k - from]);
            i++;
        } else {
            buf_addc(out, c);
        }
    }
    return at_line(line, "a quote that is not closed", e);
}

/* read_plain: unquoted text up to a comment or one of `ends`. */
static struct str read_plain(struct str s, const char *ends, size_t *used) {
    size_t i = 0;
    while (i < s.n && !is_comment(s, i) && !(*ends && strchr(ends, s.p[i])))
        i++;
    *used = i;
    return trim((struct str){s.p, i});
}

static bool is_word(struct str s, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s.n == strlen(words[i]) && strncasecmp(s.p, words[i], s.n) == 0)
            return true;
    return false;
}

/* read_scalar: one value at the front of s; *used is behind it. */
static enum rc read_scalar(struct str s, const char *ends, size_t line, struct conf_value *out, size_t *used,
                           struct err *e) {
    static const char *const bools[] = {"true", "false", "yes", "no", "on", "off"};
    static const char *const nulls[] = {"null", "~"};
    if (s.n && (s.p[0] == '"' || s.p[0] == '\'')) {
        struct buf b = {0};
        enum rc rc = read_quoted(s, line, &b, used, e);
        if (!rc)
            conf_value_add(out, buf_cstr(&b), b.len);
        buf_fini(&b);
        return rc;
    }
    if (s.n && strchr("&*!|>%@`", s.p[0]))
        return at_line(line, "only plain, quoted and [list] values are supported; put quotes around this one",
                       e);
    struct str v = read_plain(s, ends, used);
    if (!*ends)
        out->is_bool = is_word(v, bools, ARRAY_LEN(bools));
    if (v.n && !is_word(v, nulls, ARRAY_LEN(nulls)))
        conf_value_add(out, v.p, v.n);
    return RC_OK;
}

static bool only_comment(struct str rest) {
    struct str t = trim(rest);
    return t.n == 0 || t.p[0] == '#';
}

static enum rc read_flow_list(struct str s, size_t line, struct conf_value *out, struct err *e) {
    size_t at = 1, used;
    out->is_list = true;
    for (;;) {
        while (at < s.n && (s.p[at] == ' ' || s.p[at] == '\t'))
            at++;
        if (at < s.n && s.p[at] == ']')
            break;
        enum rc rc = read_scalar((struct str){s.p + at, s.n - at}, ",]", line, out, &used, e);
        if (rc)
            return rc;
        at += used;
        while (at < s.n && (s.p[at] == ' ' || s.p[at] == '\t'))
            at++;
        if (at < s.n && s.p[at] == ',')
            at++;
        else if (at >= s.n || s.p[at] != ']')
            return at_line(line, "a list that does not end with ']' on its line", e);
    }
    return only_comment((struct str){s.p + at + 1, s.n - at - 1}) ? RC_OK
                                                                  : at_line(line, "text behind a list", e);
}

static enum rc read_value(struct str s, size_t line, struct conf_value *out, struct err *e) {
    size_t used;
    if (s.n && s.p[0] == '[')
        return read_flow_list(s, line, out, e);
    if (s.n && s.p[0] == '{') { /* JSON text for a JSON flag, which checks it */
        conf_value_add(out, s.p, s.n);
        return RC_OK;
    }
    enum rc rc = read_scalar(s, "", line, out, &used, e);
    if (!rc && !only_comment((struct str){s.p + used, s.n - used}))
        rc = at_line(line, "text behind a value", e);
    return rc;
}

/* read_pair: KEY: VALUE. */
static enum rc read_pair(struct str s, size_t line, struct conf_file *out, struct err *e) {
    struct buf key = {0};
    size_t colon = 0;
    enum rc rc = RC_OK;
    if (s.p[0] == '"' || s.p[0] == '\'') {
        rc = read_quoted(s, line, &key, &colon, e);
    } else {
        while (colon < s.n &&
               !(s.p[colon] == ':' && (colon + 1 == s.n || s.p[colon + 1] == ' ' || s.p[colon + 1] == '\t')))
            colon++;
        struct str k = trim((struct str){s.p, colon});
        buf_add_str(&key, k);
    }
    while (colon < s.n && (s.p[colon] == ' ' || s.p[colon] == '\t'))
        colon++;
    if (!rc && (colon >= s.n || s.p[colon] != ':' || key.len == 0))
        rc = at_line(line, "expected KEY: VALUE", e);
    if (!rc) {
        struct conf_pair *p = add_pair(out, buf_cstr(&key), key.len, line);
        rc = read_value(trim((struct str){s.p + colon + 1, s.n - colon - 1}), line, &p->value, e);
    }
    buf_fini(&key);
    return rc;
}

/* read_item: - VALUE, of the pair above. */
static enum rc read_item(struct str s, size_t line, struct conf_file *out, struct err *e) {
    struct conf_pair *p = out->n ? &out->pairs[out->n - 1] : NULL;
    if (!p || (p->value.n && !p->value.is_list))
        return at_line(line, "a list item that belongs to no key", e);
    struct conf_value item = {0};
    enum rc rc = read_value(trim((struct str){s.p + 1, s.n - 1}), line, &item, e);
    p->value.is_list = true;
    if (!rc && item.n != 1)
        rc = at_line(line, "a list item is one value", e);
    for (size_t i = 0; i < item.n; i++) {
        if (!rc)
            conf_value_add(&p->value, item.texts[i], strlen(item.texts[i]));
        free(item.texts[i]);
    }
    free(item.texts);
    return rc;
}

static enum rc read_line(struct str raw, size_t line, struct conf_file *out, struct err *e) {
    struct str s = trim(raw);
    if (s.n == 0 || s.p[0] == '#' || (line == 1 && str_eqz(s, "---")))
        return RC_OK;
    if (s.p[0] == '-' && (s.n == 1 || s.p[1] == ' ' || s.p[1] == '\t'))
        return read_item(s, line, out, e);
    if (s.p != raw.p)
        return at_line(line, "nested mappings are not supported: write the value as JSON text in braces", e);
    return read_pair(s, line, out, e);
}

enum rc conf_file_parse(struct str text, struct conf_file *out, struct err *e) {
    struct conf_file f = {0};
    enum rc rc = RC_OK;
    if (text.n > CONF_FILE_BYTES_MAX || !utf8_valid(text.p, text.n) || (text.n && memchr(text.p, 0, text.n)))
        return err_set(e, RC_INVALID, NULL, "not UTF-8 text of at most %d bytes", CONF_FILE_BYTES_MAX);
    if (str_starts(text, STR_LIT("\xEF\xBB\xBF")))
        text = (struct str){text.p + 3, text.n - 3};
    size_t first = 0;
    while (first < text.n && isspace((unsigned char)text.p[first]))
        first++;
    if (first < text.n && text.p[first] == '{') {
        rc = parse_json(text, &f, e);
    } else {
        size_t line = 1;
        for (size_t at = 0; at < text.n && !rc; line++) {
            const char *nl = memchr(text.p + at, '\n', text.n - at);
            size_t n = nl ? (size_t)(nl - text.p) - at : text.n - at;
            rc = read_line((struct str){text.p + at, n}, line, &f, e);
            at += n + 1;
        }
    }
    if (rc)
        conf_file_free(&f);
    else
        *out = f;
    return rc;
}

enum rc conf_file_read(const char *path, struct conf_file *out, struct err *e) {
    struct buf b = {0};
    struct err why;
    FILE *f = fopen(path, "re");
    if (!f)
        return err_io(e, path);
    size_t n = fread(buf_reserve(&b, CONF_FILE_BYTES_MAX + 1), 1, CONF_FILE_BYTES_MAX + 1, f);
    b.len = n;
    enum rc rc = ferror(f) ? err_io(e, path) : RC_OK;
    fclose(f);
    if (!rc && conf_file_parse(buf_str(&b), out, &why) != RC_OK)
        rc = err_set(e, why.rc, why.param, "%.300s: %.300s", path, why.msg);
    buf_fini(&b);
    return rc;
}
