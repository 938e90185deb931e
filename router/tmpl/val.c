/* val.c: making values; lists and dicts; conversion of JSON, one level at a time when it is reached. */
#include "router/tmpl/val.h"

void *tm_alloc(struct tm_run *r, size_t n) {
    if (UNLIKELY(n > r->arena_bytes_max || r->a->used_bytes > r->arena_bytes_max - n))
        tm_fail(r, "template ran out of its budget of memory, which follows --max-template-output");
    return arena_alloc(r->a, n);
}

void *tm_zalloc(struct tm_run *r, size_t count, size_t size) {
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        tm_fail(r, "template ran out of its budget of memory, which follows --max-template-output");
    void *p = tm_alloc(r, n);
    memset(p, 0, n);
    return p;
}

struct tm_val tm_str(struct tm_run *r, const char *p, size_t n, enum tm_origin origin) {
    struct tm_str *s = tm_alloc(r, sizeof *s);
    *s =
        (struct tm_str){.p = p ? p : "", .n = n, .n_cp = -1, .origin = (uint8_t)(n ? origin : FROM_TEMPLATE)};
    return tm_of_str(s);
}

struct tm_val tm_strz(struct tm_run *r, const char *z) {
    return tm_str(r, z, strlen(z), FROM_TEMPLATE);
}

struct tm_val tm_list(struct tm_run *r, enum tm_kind kind, size_t n) {
    struct tm_list *l = tm_alloc(r, sizeof *l);
    if (n > SIZE_MAX / sizeof *l->v)
        tm_fail(r, "template ran out of its budget of memory, which follows --max-template-output");
    *l = (struct tm_list){.v = tm_alloc(r, n * sizeof *l->v), .n = n};
    for (size_t i = 0; i < n; i++)
        l->v[i] = TM_NONE;
    return (struct tm_val){.kind = (uint8_t)kind, .l = l};
}

struct tm_val tm_tuple2(struct tm_run *r, struct tm_val a, struct tm_val b) {
    struct tm_val t = tm_list(r, V_TUPLE, 2);
    t.l->v[0] = a;
    t.l->v[1] = b;
    return t;
}

struct tm_val tm_undef(struct tm_run *r, const char *hint, struct str name, const char *owner) {
    struct tm_undef *u = tm_alloc(r, sizeof *u);
    *u = (struct tm_undef){.hint = hint, .name = name, .owner = owner};
    return (struct tm_val){.kind = V_UNDEF, .u = u};
}

struct tm_val tm_iter_val(struct tm_iter *it) {
    return (struct tm_val){.kind = V_ITER, .it = it};
}

struct tm_val tm_from_json(struct tm_run *r, const json_t *j, bool client) {
    struct tm_val v = {0};
    switch (json_typeof(j)) {
    case JSON_NULL:
        return TM_NONE;
    case JSON_TRUE:
        return tm_bool(true);
    case JSON_FALSE:
        return tm_bool(false);
    case JSON_INTEGER:
        return tm_int(json_integer_value(j));
    case JSON_REAL:
        return tm_float(json_real_value(j));
    case JSON_STRING:
        return tm_str(r, json_string_value(j), json_string_length(j), client ? FROM_CLIENT : FROM_TEMPLATE);
    case JSON_ARRAY:
        v.kind = V_LIST;
        v.l = tm_zalloc(r, 1, sizeof *v.l);
        v.l->lazy = j;
        v.l->n = json_array_size(j);
        v.l->client = client;
        return v;
    case JSON_OBJECT:
        v.kind = V_DICT;
        v.d = tm_zalloc(r, 1, sizeof *v.d);
        v.d->lazy = j;
        v.d->client = client;
        return v;
    }
    CHECK(!"a JSON type");
    return v;
}

const char *tm_type_name(struct tm_val v) {
    static const char *const names[] = {[V_UNDEF] = "Undefined",  [V_NONE] = "NoneType",
                                        [V_BOOL] = "bool",        [V_INT] = "int",
                                        [V_FLOAT] = "float",      [V_STR] = "str",
                                        [V_LIST] = "list",        [V_TUPLE] = "tuple",
                                        [V_DICT] = "dict",        [V_RANGE] = "range",
                                        [V_ITER] = "generator",   [V_NS] = "Namespace",
                                        [V_LOOP] = "LoopContext", [V_MACRO] = "Macro",
                                        [V_FUNC] = "function",    [V_METHOD] = "builtin_function_or_method",
                                        [V_CYCLER] = "Cycler",    [V_JOINER] = "Joiner"};
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    return v.kind == V_VIEW ? views[v.view->kind] : names[v.kind];
}

void tm_vec_add(struct tm_run *r, struct tm_vec *x, struct tm_val v) {
    if (x->n == x->cap) {
        x->cap = MAX(x->cap * 2, (size_t)8);
        struct tm_val *grown = tm_alloc(r, x->cap * sizeof *grown);
        if (x->n)
            memcpy(grown, x->v, x->n * sizeof *grown);
        x->v = grown;
    }
    x->v[x->n++] = v;
}

struct tm_val tm_vec_list(struct tm_run *r, const struct tm_vec *x, enum tm_kind kind) {
    struct tm_list *l = tm_alloc(r, sizeof *l);
    *l = (struct tm_list){.v = x->v, .n = x->n};
    return (struct tm_val){.kind = (uint8_t)kind, .l = l};
}

const struct tm_list *tm_items(struct tm_run *r, struct tm_val v) {
    struct tm_list *l = v.l;
    if (!l->lazy)
        return l;
    tm_step(r, l->n / 8);
    l->v = tm_alloc(r, l->n * sizeof *l->v);
    for (size_t i = 0; i < l->n; i++)
        l->v[i] = tm_from_json(r, json_array_get(l->lazy, i), l->client);
    l->lazy = NULL;
    return l;
}

/* ---- dicts ---- */

enum { DICT_INDEX_MIN = 12 }; /* smaller ones are searched one by one */

static uint32_t hash_u64(uint64_t x) {
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(x >> 32) | 1;
}

/* Equal keys hash equal, numbers of different types too. False: a list or the like. */
static bool hash_val(struct tm_run *r, struct tm_val v, uint32_t *out) {
    tm_step(r, 1); /* tuples may share their parts, so their size says nothing of the work */
    switch ((enum tm_kind)v.kind) {
    case V_STR:
        *out = tm_str_hash(v.s);
        return true;
    case V_BOOL:
    case V_INT:
    case V_FLOAT: {
        double f = tm_as_double(v);
        uint64_t bits;
        f = f == 0 ? 0 : f; /* -0.0 */
        memcpy(&bits, &f, sizeof bits);
        *out = hash_u64(bits);
        return true;
    }
    case V_TUPLE: {
        uint32_t h = 7;
        tm_enter(r);
        for (size_t i = 0; i < v.l->n; i++) {
            uint32_t one;
            if (!hash_val(r, tm_items(r, v)->v[i], &one)) {
                tm_leave(r);
                return false;
            }
            h = hash_u64((uint64_t)h << 32 | one);
        }
        tm_leave(r);
        *out = h;
        return true;
    }
    case V_LIST:
    case V_DICT:
    case V_VIEW:
        return false;
    case V_UNDEF:
    case V_NONE:
        *out = v.kind + 1u;
        return true;
    default:
        *out = hash_u64((uint64_t)(uintptr_t)v.p);
        return true;
    }
}

struct tm_dict *tm_dict_new(struct tm_run *r, size_t cap) {
    struct tm_dict *d = tm_zalloc(r, 1, sizeof *d);
    if (cap) {
        d->e = tm_zalloc(r, cap, sizeof *d->e);
        d->cap = cap;
    }
    return d;
}

static bool key_is(struct tm_run *r, const struct tm_entry *e, struct tm_val key, uint32_t hash) {
    if (e->hash != hash)
        return false;
    if (e->key.kind == V_STR && key.kind == V_STR)
        return e->key.s->n == key.s->n && memcmp(e->key.s->p, key.s->p, key.s->n) == 0;
    return tm_eq(r, e->key, key);
}

static struct tm_entry *lookup(struct tm_run *r, const struct tm_dict *d, struct tm_val key, uint32_t hash) {
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (key_is(r, &d->e[i], key, hash))
                return &d->e[i];
        return NULL;
    }
    for (size_t at = hash & (d->n_index - 1); d->index[at]; at = (at + 1) & (d->n_index - 1))
        if (key_is(r, &d->e[d->index[at] - 1], key, hash))
            return &d->e[d->index[at] - 1];
    return NULL;
}

static void index_add(struct tm_dict *d, size_t i) {
    size_t at = d->e[i].hash & (d->n_index - 1);
    while (d->index[at])
        at = (at + 1) & (d->n_index - 1);
    d->index[at] = (uint32_t)(i + 1);
}

static void insert(struct tm_run *r, struct tm_dict *d, struct tm_val key, struct tm_val value,
                   uint32_t hash) {
    if (d->n == d->cap) {
        d->cap = MAX(d->cap * 2, (size_t)4);
        struct tm_entry *grown = tm_alloc(r, d->cap * sizeof *grown);
        if (d->n)
            memcpy(grown, d->e, d->n * sizeof *grown);
        d->e = grown;
    }
    d->e[d->n++] = (struct tm_entry){key, value, hash};
    if (d->index && d->n * 2 <= d->n_index) {
        index_add(d, d->n - 1);
    } else if (d->n > DICT_INDEX_MIN) {
        d->n_index = d->n_index ? d->n_index * 4 : 64;
        d->index = tm_zalloc(r, d->n_index, sizeof *d->index);
        for (size_t i = 0; i < d->n; i++)
            index_add(d, i);
    }
}

const struct tm_dict *tm_entries(struct tm_run *r, struct tm_dict *d) {
    if (!d->lazy)
        return d;
    const json_t *j = d->lazy;
    d->lazy = NULL;
    d->cap = json_object_size(j);
    tm_step(r, d->cap / 8);
    d->e = tm_alloc(r, d->cap * sizeof *d->e);
    const char *name;
    size_t n;
    json_t *value;
    json_object_keylen_foreach((json_t *)(uintptr_t)j, name, n, value) { /* iteration does not change it */
        struct tm_val key = tm_str(r, name, n, d->client ? FROM_CLIENT : FROM_TEMPLATE);
        insert(r, d, key, tm_from_json(r, value, d->client), tm_str_hash(key.s));
    }
    return d;
}

bool tm_dict_set(struct tm_run *r, struct tm_dict *d, struct tm_val key, struct tm_val value) {
    uint32_t hash;
    tm_entries(r, d);
    if (!hash_val(r, key, &hash))
        return false;
    struct tm_entry *e = lookup(r, d, key, hash);
    if (e)
        e->value = value;
    else
        insert(r, d, key, value, hash);
    return true;
}

struct tm_val tm_dict_get(struct tm_run *r, struct tm_dict *d, struct tm_val key, bool *hashable) {
    uint32_t hash;
    tm_entries(r, d);
    bool ok = hash_val(r, key, &hash);
    if (hashable)
        *hashable = ok;
    struct tm_entry *e = ok ? lookup(r, d, key, hash) : NULL;
    return e ? e->value : TM_MISSING;
}

struct tm_val tm_dict_getz(struct tm_run *r, struct tm_dict *d, struct str name) {
    struct tm_str s = {.p = name.p, .n = name.n};
    return tm_dict_get(r, d, tm_of_str(&s), NULL);
}
