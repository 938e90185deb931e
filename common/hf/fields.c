#include "common/hf/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/json.h"

enum { CONFIG_BYTES_MAX = 1 << 20 };

const json_t *field_get(const struct fields *f, const char *key) {
    const json_t *v = json_object_get(f->obj, key);
    return json_is_null(v) ? NULL : v;
}

enum rc field_bad(const struct fields *f, const char *key, const char *fmt, ...) {
    char why[400], param[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    snprintf(param, sizeof param, "%s%s", f->prefix, key);
    return err_set(f->e, RC_INVALID, param, "%s: %s: %s", f->file, param, why);
}

/* whole: v as a whole number; false if it is none. */
static bool whole(const json_t *v, int64_t *out) {
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    double d = json_real_value(v); /* 0 for other kinds */
    if (!json_is_real(v) || !(fabs(d) < 9e15) || d != floor(d))
        return false;
    *out = (int64_t)d;
    return true;
}

enum rc field_u32(const struct fields *f, const char *key, uint32_t lo, uint32_t hi, uint32_t *out) {
    const json_t *v = field_get(f, key);
    int64_t n;
    if (!v)
        return RC_OK;
    if (!whole(v, &n))
        return field_bad(f, key, "a whole number is needed, not a %s", json_kind(v));
    if (n < (int64_t)lo || n > (int64_t)hi)
        return field_bad(f, key, "must be from %u to %u, got %lld", lo, hi, (long long)n);
    *out = (uint32_t)n;
    return RC_OK;
}

enum rc field_f64(const struct fields *f, const char *key, double lo, bool lo_open, double hi, double *out) {
    const json_t *v = field_get(f, key);
    if (!v)
        return RC_OK;
    if (!json_is_number(v))
        return field_bad(f, key, "a number is needed, not a %s", json_kind(v));
    double d = json_number_value(v);
    if (!(d >= lo && d <= hi) || (lo_open && d == lo))
        return field_bad(f, key, "must be %s %g and at most %g, got %g", lo_open ? "above" : "at least", lo,
                         hi, d);
    *out = d;
    return RC_OK;
}

enum rc field_bool(const struct fields *f, const char *key, bool *out) {
    const json_t *v = field_get(f, key);
    if (!v)
        return RC_OK;
    if (!json_is_boolean(v))
        return field_bad(f, key, "true or false is needed, not a %s", json_kind(v));
    *out = json_is_true(v);
    return RC_OK;
}

enum rc field_str(const struct fields *f, const char *key, const char **out) {
    const json_t *v = field_get(f, key);
    if (!v)
        return RC_OK;
    if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
        return field_bad(f, key, "a text is needed, not a %s",
                         json_is_string(v) ? "text with NUL" : json_kind(v));
    *out = json_string_value(v);
    return RC_OK;
}

enum rc field_ids(const struct fields *f, const char *key, uint32_t n_vocab, uint32_t *out, uint32_t max,
                  uint32_t *n) {
    const json_t *v = field_get(f, key);
    if (!v)
        return RC_OK;
    bool list = json_is_array(v);
    size_t count = list ? json_array_size(v) : 1;
    if (count == 0 || count > max)
        return field_bad(f, key, "1 to %u ids are needed, got %zu", max, count);
    uint32_t n_out = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = list ? json_array_get(v, i) : v;
        if (!json_is_integer(id))
            return field_bad(f, key, "a token id or a list of them is needed, not a %s", json_kind(id));
        json_int_t x = json_integer_value(id);
        if (x < 0 || x >= (json_int_t)n_vocab)
            return field_bad(f, key, "id %lld is not in the vocabulary of %u", (long long)x, n_vocab);
        bool seen = false;
        for (uint32_t k = 0; k < n_out; k++)
            seen |= out[k] == (uint32_t)x;
        if (!seen)
            out[n_out++] = (uint32_t)x;
    }
    *n = n_out;
    return RC_OK;
}

enum rc fields_parse(const char *file, struct str text, json_t **out, struct err *e) {
    if (text.n > CONFIG_BYTES_MAX)
        return err_set(e, RC_TOO_LARGE, NULL, "%s: %zu bytes, at most %d", file, text.n, CONFIG_BYTES_MAX);
    struct err why = {0};
    json_t *obj;
    enum rc rc = json_parse(text, &json_limits_default, &obj, &why);
    if (rc)
        return err_set(e, rc, why.param, "%s: %s", file, why.msg);
    if (!json_is_object(obj)) {
        rc = err_set(e, RC_INVALID, NULL, "%s: an object is needed, not a %s", file, json_kind(obj));
        json_decref(obj);
        return rc;
    }
    *out = obj;
    return RC_OK;
}
