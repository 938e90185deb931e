#include "router/api/fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/utf8.h"

enum { QUOTE_BYTES = 200, LOG_UNKNOWN_MAX = 8 };

struct str api_quote(struct str s) {
    return s.n > QUOTE_BYTES ? (struct str){s.p, utf8_cut(s.p, s.n, QUOTE_BYTES)} : s;
}

enum rc api_field_limit(const char *param, const char *what, size_t n, int64_t max, const char *flag,
                        struct err *e) {
    if (max >= 0 && n <= (size_t)max)
        return RC_OK;
    return err_set(e, RC_INVALID, param, "%s: %zu %s given, must be less_than_equal %lld (%s)", param, n,
                   what, (long long)max, flag);
}

enum rc api_field_int(const json_t *list, size_t i, const char *path, int64_t *out, struct err *e) {
    json_t *v = json_array_get(list, i);
    if (LIKELY(json_is_integer(v))) {
        *out = json_integer_value(v);
        return RC_OK;
    }
    char key[24];
    snprintf(key, sizeof key, "%zu", i);
    json_t *obj = json_object(); /* the getters know members only */
    CHECK(obj && json_object_set(obj, key, v) == 0);
    bool present;
    enum rc rc = json_get_int(obj, path, key, out, &present, e);
    json_decref(obj);
    if (rc || present)
        return rc;
    char param[160];
    snprintf(param, sizeof param, "%s.%s", path, key);
    return err_set(e, RC_INVALID, param, "%s must be an integer, not null", param);
}

static const struct field *find(unsigned route, const char *name, size_t n) {
    for (const struct field *f = api_fields, *end = f + n_api_fields; f < end; f++)
        if (f->name[0] == name[0] && (f->on & route) && strlen(f->name) == n && !memcmp(f->name, name, n))
            return f;
    return NULL;
}

static int64_t bound(double v) {
    return v >= 0x1p63 ? INT64_MAX : v <= -0x1p63 ? INT64_MIN : (int64_t)v;
}

static enum rc check_int(const struct field *f, int64_t v, const struct router_limits *limits,
                         struct err *e) {
    int64_t lo = bound(f->lo), hi = bound(f->hi);
    if (f->limit) {
        memcpy(&hi, (const char *)limits + f->limit - 1, sizeof hi);
        if (hi == -1) /* --max-logprobs -1: -1 stands for all */
            return json_range_int(f->name, v, -1, INT64_MAX, e);
        if (v > hi)
            return err_set(e, RC_INVALID, f->name, "%s must be less_than_equal %lld (%s)", f->name,
                           (long long)hi, f->flag);
    } else if (f->lo == 0 && f->hi == 0) {
        return RC_OK;
    }
    return json_range_int(f->name, v, lo, hi, e);
}

static enum rc read_value(const struct field *f, json_t *body, const struct router_limits *limits,
                          void *place, struct err *e) {
    enum rc rc = RC_OK;
    const json_t *v = NULL;
    switch (f->kind) {
    case FIELD_BOOL: {
        struct opt_bool *o = place;
        return json_get_bool(body, "", f->name, &o->v, &o->set, e);
    }
    case FIELD_INT: {
        struct opt_int *o = place;
        rc = json_get_int(body, "", f->name, &o->v, &o->set, e);
        return rc || !o->set ? rc : check_int(f, o->v, limits, e);
    }
    case FIELD_FLOAT: {
        struct opt_float *o = place;
        rc = json_get_float(body, "", f->name, &o->v, &o->set, e);
        if (rc || !o->set || (f->lo == 0 && f->hi == 0))
            return rc;
        return json_range_float(f->name, o->v, f->lo, f->lo_open, f->hi, e);
    }
    case FIELD_STR: {
        struct opt_str *o = place;
        return json_get_str(body, "", f->name, &o->v, &o->set, e);
    }
    case FIELD_LIST:
        rc = json_get_list(body, "", f->name, &v, NULL, e);
        break;
    case FIELD_OBJECT:
        rc = json_get_object(body, "", f->name, &v, NULL, e);
        break;
    case FIELD_ANY:
        break;
    }
    if (rc)
        return rc;
    json_t *own = json_object_get(body, f->name); /* the same value, not const */
    if (own && !json_is_null(own))
        *(json_t **)place = own;
    return RC_OK;
}

/* check_kind: a field without effect still has a kind. */
static enum rc check_kind(const struct field *f, json_t *body, const struct router_limits *limits,
                          struct err *e) {
    union {
        struct opt_bool b;
        struct opt_int i;
        struct opt_float d;
        struct opt_str s;
        json_t *json;
    } unused = {0};
    return read_value(f, body, limits, &unused, e);
}

/* covers: whether every member of dflt is equal in v; other values must be equal as a whole. */
static bool covers(const json_t *v, const json_t *dflt) {
    if (!json_is_object(v) || !json_is_object(dflt) || json_object_size(dflt) == 0)
        return json_equal(v, dflt);
    void *it = json_object_iter((json_t *)(uintptr_t)dflt);
    for (; it; it = json_object_iter_next((json_t *)(uintptr_t)dflt, it))
        if (!json_equal(json_object_get(v, json_object_iter_key(it)), json_object_iter_value(it)))
            return false;
    return true;
}

/* refuse: RC_OK if the value is null or neutral. best_of, whose neutral value is `n`, comes when all was
 * read. */
static enum rc refuse(const struct field *f, json_t *body, const struct field_values *v, struct err *e) {
    json_t *value = json_object_get(body, f->name);
    if (!value || json_is_null(value))
        return RC_OK;
    enum rc rc = RC_OK;
    bool same = false;
    if (f->kind == FIELD_BOOL) {
        bool b = false;
        rc = json_get_bool(body, "", f->name, &b, NULL, e);
        same = b == !strcmp(f->dflt, "true");
    } else if (f->kind == FIELD_INT) {
        int64_t i = 0, n = v->n.set ? v->n.v : 1;
        rc = json_get_int(body, "", f->name, &i, NULL, e);
        same = !strcmp(f->dflt, "n") ? i == n : strcmp(f->dflt, "null") && i == strtoll(f->dflt, NULL, 10);
    } else if (f->kind == FIELD_FLOAT) {
        double d = 0;
        rc = json_get_float(body, "", f->name, &d, NULL, e);
        same = d == strtod(f->dflt, NULL);
    } else {
        json_t *dflt = json_loads(f->dflt, JSON_DECODE_ANY, NULL);
        CHECK(dflt);
        same = covers(value, dflt);
        json_decref(dflt);
    }
    if (rc || same)
        return rc;
    if (f->meaning)
        return err_set(e, RC_INVALID, f->name, "%s", f->meaning);
    return err_set(e, RC_INVALID, f->name, "%s is not supported in this build", f->name);
}

enum rc api_fields_read(unsigned route, json_t *body, const struct router_limits *limits,
                        struct field_values *v, struct err *e) {
    memset(v, 0, sizeof *v);
    size_t n_unknown = 0;
    const struct field *best_of = NULL;
    for (void *it = json_object_iter(body); it; it = json_object_iter_next(body, it)) {
        const char *name = json_object_iter_key(it);
        size_t n_name = json_object_iter_key_len(it);
        const struct field *f = find(route, name, n_name);
        if (!f) {
            if (n_unknown++ < LOG_UNKNOWN_MAX) {
                struct str shown = api_quote((struct str){name, n_name});
                LOG(LOG_DEBUG, "unknown field ignored", F_BYTES("field", shown.p, shown.n));
            }
            continue;
        }
        enum rc rc = RC_OK;
        if (f->rule == FIELD_READ)
            rc = read_value(f, body, limits, (char *)v + f->place, e);
        else if (f->rule == FIELD_IGNORED)
            rc = check_kind(f, body, limits, e);
        else if (f->rule == FIELD_REFUSED && !strcmp(f->dflt, "n"))
            best_of = f;
        else if (f->rule == FIELD_REFUSED)
            rc = refuse(f, body, v, e);
        if (rc)
            return rc;
    }
    return best_of ? refuse(best_of, body, v, e) : RC_OK;
}
