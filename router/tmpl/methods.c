/* methods.c: the methods of lists, tuples, ranges, dicts, numbers, loops and cyclers. */
#include <math.h>

#include "router/tmpl/val.h"

#define METHOD(name)                                                                                         \
    static struct tm_val name(UNUSED struct tm_run *r, UNUSED struct tm_val self,                            \
                              UNUSED const struct tm_val *p, UNUSED const struct tm_args *args)

METHOD(seq_count) {
    struct tm_iter *it = tm_iter_open(r, self);
    struct tm_val v;
    int64_t n = 0;
    while (tm_iter_next(r, it, &v))
        n += tm_eq(r, v, p[0]);
    return tm_int(n);
}

METHOD(seq_index) {
    int64_t len = tm_length(r, self), at = 0;
    int64_t from = p[1].kind == V_MISSING ? 0 : tm_need_int(r, p[1], "start");
    int64_t to = p[2].kind == V_MISSING ? len : tm_need_int(r, p[2], "stop");
    from = from < 0 ? MAX(from + len, (int64_t)0) : from;
    to = to < 0 ? MAX(to + len, (int64_t)0) : to;
    struct tm_iter *it = tm_iter_open(r, self);
    struct tm_val v;
    for (; tm_iter_next(r, it, &v) && at < to; at++)
        if (at >= from && tm_eq(r, v, p[0]))
            return tm_int(at);
    tm_fail(r, "the value is not in the %s", tm_type_name(self));
}

METHOD(list_copy) {
    return tm_to_list(r, self, V_LIST);
}

const struct tm_callable tm_seq_methods[] = {
    {"count", seq_count, 1, 1, {""}}, {"index", seq_index, 1, 3, {""}}, {NULL, NULL, 0, 0, {0}}};
const struct tm_callable tm_list_methods[] = {{"copy", list_copy, 0, 0, {0}}, {"append", NULL, 0, 0, {0}},
                                              {"clear", NULL, 0, 0, {0}},     {"pop", NULL, 0, 0, {0}},
                                              {"reverse", NULL, 0, 0, {0}},   {"insert", NULL, 0, 0, {0}},
                                              {"sort", NULL, 0, 0, {0}},      {"extend", NULL, 0, 0, {0}},
                                              {"remove", NULL, 0, 0, {0}},    {NULL, NULL, 0, 0, {0}}};

/* ---- dicts ---- */

static struct tm_val view(struct tm_run *r, struct tm_val self, enum tm_view_kind kind) {
    struct tm_view *v = tm_alloc(r, sizeof *v);
    *v = (struct tm_view){self.d, kind};
    tm_entries(r, self.d);
    return (struct tm_val){.kind = V_VIEW, .view = v};
}

METHOD(dict_keys) {
    return view(r, self, VIEW_KEYS);
}
METHOD(dict_values) {
    return view(r, self, VIEW_VALUES);
}
METHOD(dict_items) {
    return view(r, self, VIEW_ITEMS);
}

METHOD(dict_get) {
    bool ok;
    struct tm_val v = tm_dict_get(r, self.d, p[0], &ok);
    if (!ok)
        tm_fail(r, "unhashable type: '%s'", tm_type_name(p[0]));
    return v.kind != V_MISSING ? v : p[1].kind == V_MISSING ? TM_NONE : p[1];
}

METHOD(dict_copy) {
    const struct tm_dict *from = tm_entries(r, self.d);
    struct tm_dict *d = tm_dict_new(r, from->n);
    tm_step(r, from->n);
    for (size_t i = 0; i < from->n; i++)
        tm_dict_set(r, d, from->e[i].key, from->e[i].value);
    return (struct tm_val){.kind = V_DICT, .d = d};
}

METHOD(dict_fromkeys) {
    return tm_call_def(r, &tm_dict_fromkeys, TM_NONE, args);
}

const struct tm_callable tm_dict_methods[] = {
    {"items", dict_items, 0, 0, {0}},   {"keys", dict_keys, 0, 0, {0}},
    {"values", dict_values, 0, 0, {0}}, {"get", dict_get, 1, 2, {""}},
    {"copy", dict_copy, 0, 0, {0}},     {"fromkeys", dict_fromkeys, 0, TM_VARARGS, {0}},
    {"clear", NULL, 0, 0, {0}},         {"pop", NULL, 0, 0, {0}},
    {"popitem", NULL, 0, 0, {0}},       {"setdefault", NULL, 0, 0, {0}},
    {"update", NULL, 0, 0, {0}},        {NULL, NULL, 0, 0, {0}}};

/* ---- numbers ---- */

METHOD(num_is_integer) {
    if (self.kind != V_FLOAT)
        tm_fail(r, "'int' object has no attribute 'is_integer'");
    return tm_bool(isfinite(self.f) && self.f == floor(self.f));
}

METHOD(num_bit_length) {
    int64_t i;
    if (!tm_as_int(self, &i))
        tm_fail(r, "'float' object has no attribute 'bit_length'");
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    return tm_int(u ? 64 - __builtin_clzll(u) : 0);
}

METHOD(num_conjugate) {
    return self.kind == V_BOOL ? tm_int(self.b) : self;
}

const struct tm_callable tm_num_methods[] = {{"is_integer", num_is_integer, 0, 0, {0}},
                                             {"bit_length", num_bit_length, 0, 0, {0}},
                                             {"conjugate", num_conjugate, 0, 0, {0}},
                                             {"bit_count", NULL, 1, 0, {0}},
                                             {"as_integer_ratio", NULL, 1, 0, {0}},
                                             {"to_bytes", NULL, 1, 0, {0}},
                                             {"from_bytes", NULL, 1, 0, {0}},
                                             {"hex", NULL, 1, 0, {0}},
                                             {"fromhex", NULL, 1, 0, {0}},
                                             {NULL, NULL, 0, 0, {0}}};

/* ---- loops and cyclers ---- */

METHOD(loop_cycle) {
    if (args->n == 0 || args->n_kw)
        tm_fail(r, "no items for cycling given");
    int64_t n = (int64_t)args->n;
    return args->v[(self.loop->index0 % n + n) % n];
}

METHOD(loop_changed) {
    if (args->n_kw)
        tm_fail(r, "changed() takes no keyword arguments");
    struct tm_val now = tm_list(r, V_TUPLE, args->n);
    if (args->n)
        memcpy(now.l->v, args->v, args->n * sizeof *args->v);
    if (self.loop->changed.kind == V_TUPLE && tm_eq(r, self.loop->changed, now))
        return tm_bool(false);
    self.loop->changed = now;
    return tm_bool(true);
}

METHOD(cycler_next) {
    struct tm_val v = self.cycler->v[self.cycler->at];
    self.cycler->at = (self.cycler->at + 1) % self.cycler->n;
    return v;
}

METHOD(cycler_reset) {
    self.cycler->at = 0;
    return TM_NONE;
}

const struct tm_callable tm_loop_methods[] = {{"cycle", loop_cycle, 0, TM_VARARGS, {0}},
                                              {"changed", loop_changed, 0, TM_VARARGS, {0}},
                                              {NULL, NULL, 0, 0, {0}}};
const struct tm_callable tm_cycler_methods[] = {
    {"next", cycler_next, 0, 0, {0}}, {"reset", cycler_reset, 0, 0, {0}}, {NULL, NULL, 0, 0, {0}}};
