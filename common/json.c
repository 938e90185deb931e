#include "common/json.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "common/json_scan.h"

/* ---- parsing ---------------------------------------------------------------------------------------- */

/* A random seed, so that no client can choose keys that collide in jansson's tables. */
static void seed_tables(void) {
    size_t seed = 0;
    while (seed == 0)
        fill_random(&seed, sizeof seed);
    json_object_seed(seed);
}

/* The next double below -2^63. Integers just below int64 round up to -2^63, which would bring them back into
 * its range. */
#define BELOW_INT64 "-9223372036854777856.0"

/* widen_ints: a copy of well-formed text in which integers beyond int64 end in ".0". Jansson refuses such an
 * integer but reads the same digits as a double, which is what the specification asks for. */
static void widen_ints(struct str text, struct buf *out) {
    size_t at = 0, copied = 0;
    bool in_string = false;
    buf_reserve(out, text.n + 64);
    while (at < text.n) {
        char c = text.p[at];
        if (in_string) {
            in_string = c != '"';
            at += c == '\\' ? 2 : 1;
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            size_t len, begin = at;
            double value;
            bool big = json_number_scan(text.p + at, text.n - at, &len, NULL) == JSON_NUMBER_BIG;
            at += len;
            if (!big)
                continue;
            (void)json_number_scan(text.p + begin, len, &len, &value);
            bool edge = value == -0x1p63;
            buf_add(out, text.p + copied, (edge ? begin : at) - copied);
            buf_addz(out, edge ? BELOW_INT64 : ".0");
            copied = at;
        } else {
            in_string = c == '"';
            at++;
        }
    }
    buf_add(out, text.p + copied, text.n - copied);
}

enum rc json_parse(struct str text, const struct json_limits *l, json_t **out, struct err *e) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct json_seen seen;
    enum rc rc = json_scan_seen(text, l, &seen, e);
    if (rc)
        return rc;
    pthread_once(&once, seed_tables);
    if (str_starts(text, STR_LIT("\xEF\xBB\xBF")))
        text = (struct str){text.p + 3, text.n - 3};
    struct buf wide = {0};
    if (seen.n_big) {
        widen_ints(text, &wide);
        text = buf_str(&wide);
    }
    json_error_t why;
    json_t *v = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    buf_fini(&wide);
    /* What the scan let through and jansson does not take: "\u0000" inside a key. */
    if (!v)
        return err_set(e, RC_INVALID, NULL, "JSON decode error: %.100s at line %d column %d (byte %d)",
                       why.text, why.line, why.column, why.position);
    *out = v;
    return RC_OK;
}

/* ---- getters ---------------------------------------------------------------------------------------- */

const char *json_kind(const json_t *v) {
    if (!v)
        return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "list";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    case JSON_NULL:
        return "null";
    }
    return "value";
}

static void join(char out[160], const char *path, const char *key) {
    snprintf(out, 160, "%s%s%s", path, *path ? "." : "", key);
}

/* member: the value, or NULL if it is absent or null. */
static const json_t *member(const json_t *obj, const char *key, bool *present) {
    const json_t *v = json_object_get(obj, key);
    if (v && json_is_null(v))
        v = NULL;
    if (present)
        *present = v != NULL;
    return v;
}

static enum rc wrong_kind(const char *path, const char *key, const char *want, const json_t *v,
                          struct err *e) {
    char param[160];
    join(param, path, key);
    return err_set(e, RC_INVALID, param, "%s must be %s, not %s", param, want,
                   json_is_real(v) ? "this number" : json_kind(v));
}

static enum rc beyond_int64(const char *path, const char *key, bool negative, struct err *e) {
    char param[160];
    join(param, path, key);
    if (negative)
        return err_set(e, RC_INVALID, param, "%s must be greater_than_equal %lld", param,
                       (long long)INT64_MIN);
    return err_set(e, RC_INVALID, param, "%s must be less_than_equal %lld", param, (long long)INT64_MAX);
}

/* number_text: a string that is one JSON number and nothing else. */
static enum json_number number_text(const json_t *v, double *value) {
    size_t n = json_string_length(v), len;
    enum json_number kind = json_number_scan(json_string_value(v), n, &len, value);
    return len == n ? kind : JSON_NUMBER_BAD;
}

enum rc json_get_int(const json_t *obj, const char *path, const char *key, int64_t *out, bool *present,
                     struct err *e) {
    const json_t *v = member(obj, key, present);
    double d;
    if (!v)
        return RC_OK;
    switch (json_typeof(v)) {
    case JSON_INTEGER:
        *out = json_integer_value(v);
        return RC_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = json_is_true(v);
        return RC_OK;
    case JSON_REAL:
        d = json_real_value(v);
        break;
    case JSON_STRING:
        switch (number_text(v, &d)) {
        case JSON_NUMBER_INT:
            *out = strtoll(json_string_value(v), NULL, 10);
            return RC_OK;
        case JSON_NUMBER_REAL:
            break;
        case JSON_NUMBER_BIG:
        case JSON_NUMBER_INFINITE:
            return beyond_int64(path, key, json_string_value(v)[0] == '-', e);
        case JSON_NUMBER_BAD:
            return wrong_kind(path, key, "an integer", v, e);
        }
        break;
    default:
        return wrong_kind(path, key, "an integer", v, e);
    }
    if (d != trunc(d))
        return wrong_kind(path, key, "an integer", v, e);
    if (!(d >= -0x1p63 && d < 0x1p63))
        return beyond_int64(path, key, d < 0, e);
    *out = (int64_t)d;
    return RC_OK;
}

enum rc json_get_float(const json_t *obj, const char *path, const char *key, double *out, bool *present,
                       struct err *e) {
    const json_t *v = member(obj, key, present);
    if (!v)
        return RC_OK;
    double d;
    if (json_is_number(v)) {
        d = json_number_value(v);
    } else if (json_is_boolean(v)) {
        d = json_is_true(v);
    } else if (json_is_string(v)) {
        enum json_number kind = number_text(v, &d);
        if (kind == JSON_NUMBER_BAD || kind == JSON_NUMBER_INFINITE)
            return wrong_kind(path, key, "a finite number", v, e);
    } else {
        return wrong_kind(path, key, "a number", v, e);
    }
    *out = d;
    return RC_OK;
}

enum rc json_get_bool(const json_t *obj, const char *path, const char *key, bool *out, bool *present,
                      struct err *e) {
    static const struct {
        struct str word;
        bool value;
    } words[] = {{STR_LIT("true"), true},   {STR_LIT("t"), true},    {STR_LIT("yes"), true},
                 {STR_LIT("y"), true},      {STR_LIT("on"), true},   {STR_LIT("1"), true},
                 {STR_LIT("false"), false}, {STR_LIT("f"), false},   {STR_LIT("no"), false},
                 {STR_LIT("n"), false},     {STR_LIT("off"), false}, {STR_LIT("0"), false}};
    const json_t *v = member(obj, key, present);
    if (!v)
        return RC_OK;
    if (json_is_boolean(v)) {
        *out = json_is_true(v);
        return RC_OK;
    }
    if (json_is_number(v) && (json_number_value(v) == 0.0 || json_number_value(v) == 1.0)) {
        *out = json_number_value(v) == 1.0;
        return RC_OK;
    }
    if (json_is_string(v))
        for (size_t i = 0; i < ARRAY_LEN(words); i++)
            if (json_string_length(v) == words[i].word.n &&
                strncasecmp(json_string_value(v), words[i].word.p, words[i].word.n) == 0) {
                *out = words[i].value;
                return RC_OK;
            }
    return wrong_kind(path, key, "a boolean", v, e);
}

enum rc json_get_str(const json_t *obj, const char *path, const char *key, struct str *out, bool *present,
                     struct err *e) {
    const json_t *v = member(obj, key, present);
    if (!v)
        return RC_OK;
    if (!json_is_string(v))
        return wrong_kind(path, key, "a string", v, e);
    *out = (struct str){json_string_value(v), json_string_length(v)};
    return RC_OK;
}

enum rc json_get_list(const json_t *obj, const char *path, const char *key, const json_t **out, bool *present,
                      struct err *e) {
    const json_t *v = member(obj, key, present);
    if (!v)
        return RC_OK;
    if (!json_is_array(v))
        return wrong_kind(path, key, "a list", v, e);
    *out = v;
    return RC_OK;
}

enum rc json_get_object(const json_t *obj, const char *path, const char *key, const json_t **out,
                        bool *present, struct err *e) {
    const json_t *v = member(obj, key, present);
    if (!v)
        return RC_OK;
    if (!json_is_object(v))
        return wrong_kind(path, key, "an object", v, e);
    *out = v;
    return RC_OK;
}

enum rc json_range_int(const char *param, int64_t v, int64_t lo, int64_t hi, struct err *e) {
    if (v < lo)
        return err_set(e, RC_INVALID, param, "%s must be greater_than_equal %lld, not %lld", param,
                       (long long)lo, (long long)v);
    if (v > hi)
        return err_set(e, RC_INVALID, param, "%s must be less_than_equal %lld, not %lld", param,
                       (long long)hi, (long long)v);
    return RC_OK;
}

enum rc json_range_float(const char *param, double v, double lo, bool lo_open, double hi, struct err *e) {
    if (lo_open ? !(v > lo) : !(v >= lo))
        return err_set(e, RC_INVALID, param, "%s must be %s %g, not %g", param,
                       lo_open ? "greater_than" : "greater_than_equal", lo, v);
    if (!(v <= hi))
        return err_set(e, RC_INVALID, param, "%s must be less_than_equal %g, not %g", param, hi, v);
    return RC_OK;
}
