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

/* check_word: whether v is one of f->words. */
static enum rc check_word(const struct field *f, struct str v, struct err *e) {
    char shown[128];
    size_t n = 0;
    for (const char *w = f->words; *w;) {
        size_t len = strcspn(w, "|");
        if (v.n == len && !memcmp(v.p, w, len))
            return RC_OK;
        n += (size_t)snprintf(shown + n, sizeof shown - n, "%s%.*s", n ? ", " : "", (int)len, w);
        CHECK(n < sizeof shown);
        w += len + (w[len] == '|');
    }
    return err_set(e, RC_INVALID, f->name, "%s must be one of %s", f->name, shown);
}

int64_t api_field_max(const struct field *f, const struct router_limits *limits) {
    int64_t max;
    memcpy(&max, (const char *)limits + f->limit - 1, sizeof max);
    return max;
}

/* get_elem: member `key` of obj, of the kind that f's elements have. */
static enum rc get_elem(const struct field *f, const json_t *obj, const char *key, struct err *e) {
    static const char *const kinds[] = {"a boolean", "an integer", "a number",
                                        "a string",  "a list",     "an object"};
    union {
        bool b;
        int64_t i;
        double d;
        struct str s;
        const json_t *json;
    } unused;
    bool present = false;
    enum rc rc = RC_OK;
    switch ((enum field_kind)(f->elem - 1)) {
    case FIELD_BOOL:
        rc = json_get_bool(obj, f->name, key, &unused.b, &present, e);
        break;
    case FIELD_INT:
        rc = json_get_int(obj, f->name, key, &unused.i, &present, e);
        break;
    case FIELD_FLOAT:
        rc = json_get_float(obj, f->name, key, &unused.d, &present, e);
        break;
    case FIELD_STR:
        rc = json_get_str(obj, f->name, key, &unused.s, &present, e);
        break;
    case FIELD_LIST:
        rc = json_get_list(obj, f->name, key, &unused.json, &present, e);
        break;
    case FIELD_OBJECT:
        rc = json_get_object(obj, f->name, key, &unused.json, &present, e);
        break;
    case FIELD_ANY:
        return RC_OK;
    }
    if (rc || present)
        return rc;
    char param[160];
    snprintf(param, sizeof param, "%s.%s", f->name, key);
    return err_set(e, RC_INVALID, param, "%s must be %s, not null", param, kinds[f->elem - 1]);
}

/* check_elems: of a list the elements, of an object the members. */
static enum rc check_elems(const struct field *f, json_t *v, struct err *e) {
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && json_is_array(v) && i < json_array_size(v); i++) {
        json_t *x = json_array_get(v, i);
        if (f->elem == 1 + FIELD_INT ? json_is_integer(x) : f->elem == 1 + FIELD_OBJECT && json_is_object(x))
            continue;
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        json_t *obj = json_object(); /* the getters know members only */
        CHECK(obj && json_object_set(obj, key, x) == 0);
        rc = get_elem(f, obj, key, e);
        json_decref(obj);
    }
    for (void *it = json_object_iter(v); !rc && it; it = json_object_iter_next(v, it))
        rc = get_elem(f, v, json_object_iter_key(it), e);
    return rc;
}

/* check_entries: how many, and of which kind. */
static enum rc check_entries(const struct field *f, json_t *v, const struct router_limits *limits,
                             struct err *e) {
    size_t n = json_is_array(v) ? json_array_size(v) : json_object_size(v);
    enum rc rc = RC_OK;
    if (f->limit)
        rc = api_field_limit(f->name, "entries", n, api_field_max(f, limits), f->flag, e);
    return rc || !f->elem ? rc : check_elems(f, v, e);
}

static int64_t bound(double v) {
    return v >= 0x1p63 ? INT64_MAX : v <= -0x1p63 ? INT64_MIN : (int64_t)v;
}

static enum rc check_int(const struct field *f, int64_t v, const struct router_limits *limits,
                         struct err *e) {
    int64_t lo = bound(f->lo), hi = bound(f->hi);
    if (f->limit) {
        hi = api_field_max(f, limits);
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
        rc = json_get_str(body, "", f->name, &o->v, &o->set, e);
        return rc || !o->set || !f->words ? rc : check_word(f, o->v, e);
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
    if (!own || json_is_null(own))
        return RC_OK;
    *(json_t **)place = own;
    return check_entries(f, own, limits, e);
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

/* refuse: RC_OK if the value is null or neutral. */
static enum rc refuse(const struct field *f, json_t *body, struct err *e) {
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
        int64_t i = 0;
        rc = json_get_int(body, "", f->name, &i, NULL, e);
        same = strcmp(f->dflt, "null") && i == strtoll(f->dflt, NULL, 10);
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
        else
            rc = refuse(f, body, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}

enum rc api_fields_required(unsigned route, const json_t *body, struct err *e) {
    for (const struct field *f = api_fields, *end = f + n_api_fields; f < end; f++) {
        if (!f->required || !(f->on & route))
            continue;
        const json_t *v = json_object_get(body, f->name);
        if (!v || json_is_null(v))
            return err_set(e, RC_INVALID, f->name, "%s is required", f->name);
    }
    return RC_OK;
}
