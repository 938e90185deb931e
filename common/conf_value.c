#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "common/conf_parts.h"
#include "common/json.h"

enum { MERGE_DEPTH_MAX = 16 };

void conf_value_add(struct conf_value *v, const char *text, size_t n) {
    v->texts = xreallocarray(v->texts, v->n + 1, sizeof *v->texts);
    v->texts[v->n++] = xstrndup(text, n);
}

static bool is_text(enum conf_kind k) {
    return k == CONF_STR || k == CONF_JSON || k == CONF_ENUM;
}

void conf_clear(const struct conf_flag *f, void *opts) {
    void *place = conf_place(f, opts);
    if (is_text(f->kind)) {
        free(*(char **)place);
        *(char **)place = NULL;
    } else if (f->kind == CONF_LIST) {
        struct conf_list *l = place;
        for (size_t i = 0; i < l->n; i++)
            free(l->v[i]);
        free(l->v);
        *l = (struct conf_list){0};
    }
}

static enum rc bad(const char *name, const char *want, const char *text, struct err *e) {
    return err_set(e, RC_INVALID, name, "--%s must be %s, not \"%.100s\"", name, want, text);
}

static enum rc check_bounds(const struct conf_flag *f, const char *name, double v, const char *text,
                            struct err *e) {
    if ((f->min == 0 && f->max == 0) || (v >= f->min && v <= f->max))
        return RC_OK;
    if (f->min == f->max)
        return err_set(e, RC_INVALID, name, "--%s must be %.15g in this build, not %.60s", name, f->min,
                       text);
    return err_set(e, RC_INVALID, name, "--%s must be between %.15g and %.15g, not %.60s", name, f->min,
                   f->max, text);
}

static bool parse_int(const char *text, int64_t *out) {
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || digits[strspn(digits, "0123456789")])
        return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

static bool parse_float(const char *text, double *out) {
    if (!*text || text[strspn(text, "0123456789+-.eE")])
        return false;
    char *end;
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

/* parse_size: digits, perhaps with a fraction before a suffix; the result is whole. */
static bool parse_size(const char *text, uint64_t *out) {
    static const struct {
        const char *suffix;
        uint64_t unit;
    } units[] = {
        {"", 1},           {"k", 1000},       {"m", 1000000},      {"g", 1000000000},   {"K", 1ull << 10},
        {"M", 1ull << 20}, {"G", 1ull << 30}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}};
    size_t n = strspn(text, "0123456789"), n_fraction = 0;
    uint64_t whole = 0, unit = 0;
    const char *suffix = text + n;
    if (n == 0 || n > 19)
        return false;
    for (size_t i = 0; i < n; i++)
        whole = whole * 10 + (uint64_t)(text[i] - '0');
    if (*suffix == '.') {
        n_fraction = strspn(suffix + 1, "0123456789");
        suffix += 1 + n_fraction;
        if (n_fraction == 0 || n_fraction > 9)
            return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (strcmp(suffix, units[i].suffix) == 0)
            unit = units[i].unit;
    if (unit == 0 || (unit == 1 && n_fraction) || __builtin_mul_overflow(whole, unit, &whole))
        return false;
    double fraction = n_fraction ? strtod(text + n, NULL) * (double)unit : 0;
    return !__builtin_add_overflow(whole, (uint64_t)fraction, out) && *out <= INT64_MAX;
}

static bool parse_bool(const char *text, bool *out) {
    static const char *const words[] = {"false", "true", "off", "on", "no", "yes", "0", "1"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcasecmp(text, words[i]) == 0) {
            *out = i % 2;
            return true;
        }
    return false;
}

bool conf_is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *at = choices; n > 0; at++) {
        size_t len = strcspn(at, "|");
        if (len == n && memcmp(at, text, n) == 0)
            return true;
        at += len;
        if (!*at)
            break;
    }
    return false;
}

static enum rc set_json(char **place, const char *name, const char *text, struct err *e) {
    struct err why;
    json_t *v;
    if (json_parse(str_of(text), NULL, &v, &why) != RC_OK)
        return err_set(e, RC_INVALID, name, "--%s: %.300s", name, why.msg);
    json_decref(v);
    free(*place);
    *place = xstrdup(text);
    return RC_OK;
}

enum rc conf_set(const struct conf_flag *f, void *opts, const char *name, const char *text, struct err *e) {
    void *place = conf_place(f, opts);
    enum rc rc;
    int64_t i;
    uint64_t u;
    double d;
    bool b;
    switch (f->kind) {
    case CONF_BOOL:
        if (!parse_bool(text, &b))
            return bad(name, "true or false", text, e);
        *(bool *)place = b;
        return RC_OK;
    case CONF_INT:
        if (!parse_int(text, &i))
            return bad(name, "an integer", text, e);
        rc = check_bounds(f, name, (double)i, text, e);
        if (!rc)
            *(int64_t *)place = i;
        return rc;
    case CONF_SIZE:
        if (!parse_size(text, &u))
            return bad(name, "a size (digits; k, m, g or K, M, G, KiB, MiB, GiB may follow)", text, e);
        rc = check_bounds(f, name, (double)u, text, e);
        if (!rc)
            *(uint64_t *)place = u;
        return rc;
    case CONF_FLOAT:
        if (!parse_float(text, &d))
            return bad(name, "a number", text, e);
        rc = check_bounds(f, name, d, text, e);
        if (!rc)
            *(double *)place = d;
        return rc;
    case CONF_ENUM:
        if (!conf_is_choice(f->choices, text))
            return err_set(e, RC_INVALID, name, "--%s must be one of %.200s, not \"%.100s\"", name,
                           f->choices, text);
        /* fall through */
    case CONF_STR:
        free(*(char **)place);
        *(char **)place = xstrdup(text);
        return RC_OK;
    case CONF_LIST: {
        struct conf_list *l = place;
        l->v = xreallocarray(l->v, l->n + 1, sizeof *l->v);
        l->v[l->n++] = xstrdup(text);
        return RC_OK;
    }
    case CONF_JSON:
        return set_json(place, name, text, e);
    case CONF_IGNORED:
    case CONF_REFUSED:
        break;
    }
    CHECK(!"a flag without a place");
}

enum rc conf_check(enum conf_kind kind, const char *name, const char *text, struct err *e) {
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double d;
        char *text;
        struct conf_list list;
    } place = {0};
    const struct conf_flag f = {.name = name, .kind = kind == CONF_ENUM ? CONF_STR : kind};
    CHECK(kind != CONF_IGNORED && kind != CONF_REFUSED);
    enum rc rc = conf_set(&f, &place, name, text, e);
    conf_clear(&f, &place);
    return rc;
}

enum rc conf_merge(const struct conf_flag *f, void *opts, const char *path, const char *text, struct err *e) {
    char **place = conf_place(f, opts);
    struct json_limits flat = {.depth_max = 48, .nodes_max = 100000};
    json_t *root = NULL, *at, *value = NULL;
    CHECK(f->kind == CONF_JSON);
    if (*place && json_parse(str_of(*place), NULL, &root, NULL) != RC_OK)
        root = NULL;
    if (!root)
        root = json_object();
    /* What reads as JSON is that; anything else is a string. */
    if (json_parse(str_of(text), &flat, &value, NULL) != RC_OK)
        value = json_string(text);
    enum rc rc = RC_OK;
    if (!value)
        rc = bad(f->name, "UTF-8", "...", e);
    at = root;
    for (unsigned depth = 0; !rc; depth++) {
        size_t n = strcspn(path, ".");
        char key[CONF_NAME_BYTES_MAX + 1];
        if (n == 0 || n > CONF_NAME_BYTES_MAX || depth == MERGE_DEPTH_MAX) {
            rc = err_set(e, RC_INVALID, f->name, "--%s.%.80s: a path is 1 to %d names of at most %d bytes",
                         f->name, path, MERGE_DEPTH_MAX, CONF_NAME_BYTES_MAX);
        } else if (!json_is_object(at)) {
            rc = err_set(e, RC_INVALID, f->name, "--%s.%.80s: the value there is no object", f->name, path);
        } else {
            memcpy(key, path, n);
            key[n] = 0;
            path += n + (path[n] == '.');
            if (!path[0] && path[-1] != '.') {
                if (json_object_set(at, key, value) != 0)
                    rc = bad(f->name, "UTF-8", key, e);
                break;
            }
            json_t *next = json_object_get(at, key);
            if (!next && json_object_set_new(at, key, next = json_object()) != 0)
                rc = bad(f->name, "UTF-8", key, e);
            at = next;
        }
    }
    if (!rc) {
        struct buf b = {0};
        jw_json(&b, root);
        free(*place);
        *place = buf_take(&b);
    }
    json_decref(value);
    json_decref(root);
    return rc;
}
