/* filters_seq.c: filters about sequences and mappings. */
#include "router/tmpl/ast.h"

#define FILTER(name)                                                                                         \
    static struct tm_val name(struct tm_run *r, struct tm_val self, UNUSED const struct tm_val *p,           \
                              UNUSED const struct tm_args *args)

static bool given(struct tm_val v) {
    return v.kind != V_MISSING && v.kind != V_NONE;
}

static bool flag(struct tm_run *r, struct tm_val v) {
    return v.kind != V_MISSING && tm_truth(r, v);
}

FILTER(f_length) {
    int64_t n = tm_length(r, self);
    if (n < 0)
        tm_fail(r, "object of type '%s' has no len()", tm_type_name(self));
    return tm_int(n);
}

/* p: default_value, boolean */
FILTER(f_default) {
    if (self.kind == V_UNDEF || (flag(r, p[1]) && !tm_truth(r, self)))
        return p[0].kind == V_MISSING ? tm_strz(r, "") : p[0];
    return self;
}

FILTER(f_first) {
    struct tm_val v;
    if (tm_iter_next(r, tm_iter_open(r, self), &v))
        return v;
    return tm_undef(r, "No first item, sequence was empty.", (struct str){0}, NULL);
}

static struct tm_val reversed(struct tm_run *r, struct tm_val v) {
    struct tm_iter *it = tm_alloc(r, sizeof *it);
    it->kind = IT_REVERSED;
    it->at = 0;
    it->list = tm_to_list(r, v, V_LIST).l;
    return tm_iter_val(it);
}

FILTER(f_last) {
    if (self.kind == V_ITER || self.kind == V_LOOP || !tm_iterable(self))
        tm_fail(r, "'%s' object is not reversible", tm_type_name(self));
    if (self.kind == V_LIST || self.kind == V_TUPLE || self.kind == V_STR || self.kind == V_RANGE) {
        int64_t n = tm_length(r, self);
        if (n > 0)
            return tm_getitem(r, self, tm_int(n - 1));
    }
    struct tm_val v;
    if (tm_iter_next(r, reversed(r, self).it, &v))
        return v;
    return tm_undef(r, "No last item, sequence was empty.", (struct str){0}, NULL);
}

FILTER(f_list) {
    return tm_to_list(r, self, V_LIST);
}

FILTER(f_reverse) {
    if (self.kind == V_STR)
        return tm_slice(r, self, TM_NONE, TM_NONE, tm_int(-1));
    if (!tm_iterable(self))
        tm_fail(r, "argument must be iterable");
    struct tm_val it = reversed(r, self);
    if (self.kind != V_ITER)
        return it; /* spent after one pass, as reversed() is */
    struct tm_list *l = tm_list(r, V_LIST, it.it->list->n).l;
    for (size_t i = 0; i < l->n; i++)
        l->v[i] = it.it->list->v[l->n - 1 - i];
    return (struct tm_val){.kind = V_LIST, .l = l};
}

FILTER(f_items) {
    struct tm_iter *it = tm_alloc(r, sizeof *it);
    it->at = 0;
    if (self.kind == V_UNDEF) {
        it->kind = IT_ARRAY;
        it->list = tm_list(r, V_LIST, 0).l;
        return tm_iter_val(it);
    }
    if (self.kind != V_DICT)
        tm_fail(r, "Can only get item pairs from a mapping.");
    it->kind = IT_DICT;
    it->view = (struct tm_view){self.d, VIEW_ITEMS};
    tm_entries(r, self.d);
    return tm_iter_val(it);
}

/* ---- lazy filters ---- */

static struct tm_iter *pipe_new(struct tm_run *r, enum tm_iter_kind kind, struct tm_val source) {
    struct tm_iter *it = tm_zalloc(r, 1, sizeof *it);
    it->kind = kind;
    it->pipe.source = source;
    return it;
}

static struct tm_val nothing(struct tm_run *r) {
    return tm_iter_val(tm_iter_open(r, tm_list(r, V_LIST, 0)));
}

static const struct tm_kwarg *keyword(const struct tm_args *args, const char *name) {
    for (size_t i = 0; i < args->n_kw; i++)
        if (str_eqz(args->kw[i].name, name))
            return &args->kw[i];
    return NULL;
}

static struct tm_args without(const struct tm_args *args, size_t n) {
    struct tm_args rest = *args;
    if (n)
        rest.v += n; /* there may be no list at all */
    rest.n -= n;
    return rest;
}

/* f_unknown: the filter of a name that there is none of, which map calls for each element: no elements, no
 * error, as in Jinja. */
FILTER(f_unknown) {
    const struct tm_str *name = args->v[0].s;
    (void)self;
    (void)p;
    tm_fail(r, "No filter named '%.*s'.", (int)MIN(name->n, (size_t)60), name->p);
}

FILTER(f_map) {
    static const struct tm_callable unknown = {"?", f_unknown, 0, TM_VARARGS, {0}};
    if (!tm_truth(r, self))
        return nothing(r);
    struct tm_iter *it = pipe_new(r, IT_MAP, self);
    const struct tm_kwarg *attr = keyword(args, "attribute"), *dflt = keyword(args, "default");
    if (args->n == 0 && attr) {
        if (args->n_kw != 1u + (dflt != NULL))
            tm_fail(r, "map: unexpected keyword argument");
        it->pipe.attr = attr->v;
        if (dflt)
            it->pipe.dflt = dflt->v;
        return tm_iter_val(it);
    }
    if (args->n == 0)
        tm_fail(r, "map requires a filter argument");
    struct tm_str *name = tm_need_str(r, args->v[0], "a filter's name");
    it->pipe.filter = tm_filter_find((struct str){name->p, name->n});
    it->pipe.args = it->pipe.filter ? without(args, 1) : *args;
    if (!it->pipe.filter)
        it->pipe.filter = &unknown;
    return tm_iter_val(it);
}

static struct tm_val select_by(struct tm_run *r, struct tm_val v, const struct tm_args *args, bool negate,
                               bool attr) {
    if (!tm_truth(r, v))
        return nothing(r);
    struct tm_iter *it = pipe_new(r, IT_SELECT, v);
    it->pipe.negate = negate;
    if (attr) {
        if (args->n == 0)
            tm_fail(r, "Missing parameter for attribute name");
        it->pipe.attr = args->v[0];
    }
    size_t used = attr;
    if (args->n > used) {
        struct tm_str *name = tm_need_str(r, args->v[used++], "a test's name");
        it->pipe.test = tm_test_find((struct str){name->p, name->n});
        if (!it->pipe.test)
            tm_fail(r, "No test named '%.*s'.", (int)MIN(name->n, (size_t)60), name->p);
    }
    it->pipe.args = without(args, used);
    return tm_iter_val(it);
}

FILTER(f_select) {
    return select_by(r, self, args, false, false);
}
FILTER(f_reject) {
    return select_by(r, self, args, true, false);
}
FILTER(f_selectattr) {
    return select_by(r, self, args, false, true);
}
FILTER(f_rejectattr) {
    return select_by(r, self, args, true, true);
}

/* p: case_sensitive, attribute */
FILTER(f_unique) {
    struct tm_iter *it = pipe_new(r, IT_UNIQUE, self);
    it->pipe.case_sensitive = flag(r, p[0]);
    it->pipe.attr = given(p[1]) ? p[1] : TM_MISSING;
    it->pipe.seen = tm_dict_new(r, 0);
    return tm_iter_val(it);
}

static struct tm_val part(struct tm_run *r, const struct tm_list *l, size_t begin, size_t end, size_t n,
                          struct tm_val fill) {
    struct tm_val out = tm_list(r, V_LIST, n);
    for (size_t i = 0; i < n; i++)
        out.l->v[i] = begin + i < end ? l->v[begin + i] : fill;
    return out;
}

static struct tm_val make_batch(struct tm_run *r, struct tm_val source, const struct tm_args *args) {
    const struct tm_list *l = tm_to_list(r, source, V_LIST).l;
    int64_t size = tm_need_int(r, args->v[0], "linecount");
    struct tm_vec out = {0};
    size_t step = size <= 0 ? 1 : (size_t)size;
    if (size <= 0 && l->n)
        tm_fail(r, "batch: linecount must be positive");
    for (size_t at = 0; at < l->n; at += step) {
        size_t end = MIN(at + step, l->n), n = given(args->v[1]) ? step : end - at;
        tm_step(r, n);
        tm_vec_add(r, &out, part(r, l, at, end, n, args->v[1]));
        if (end == l->n)
            break;
    }
    return tm_vec_list(r, &out, V_LIST);
}

static struct tm_val make_slice(struct tm_run *r, struct tm_val source, const struct tm_args *args) {
    const struct tm_list *l = tm_to_list(r, source, V_LIST).l;
    int64_t slices = tm_need_int(r, args->v[0], "slices");
    struct tm_vec out = {0};
    if (slices == 0)
        tm_fail(r, "integer division or modulo by zero");
    size_t at = 0;
    for (int64_t i = 0; i < slices; i++) {
        bool longer = i < (int64_t)l->n % slices;
        size_t n = l->n / (size_t)slices + longer;
        tm_step(r, n + 1);
        bool fill = given(args->v[1]) && !longer;
        tm_vec_add(r, &out, part(r, l, at, at + n, n + fill, args->v[1]));
        at += n;
    }
    return tm_vec_list(r, &out, V_LIST);
}

static struct tm_val defer(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                           struct tm_val (*make)(struct tm_run *, struct tm_val, const struct tm_args *)) {
    struct tm_iter *it = tm_zalloc(r, 1, sizeof *it);
    it->kind = IT_DEFERRED;
    it->deferred.make = make;
    it->deferred.source = self;
    it->deferred.args.v = tm_alloc(r, 2 * sizeof *p);
    it->deferred.args.n = 2;
    it->deferred.args.v[0] = p[0];
    it->deferred.args.v[1] = p[1];
    return tm_iter_val(it);
}

FILTER(f_batch) {
    return defer(r, self, p, make_batch);
}
FILTER(f_slice) {
    return defer(r, self, p, make_slice);
}

/* ---- order ---- */

static struct tm_val fold(struct tm_run *r, struct tm_val v, bool case_sensitive) {
    return v.kind == V_STR && !case_sensitive ? tm_str_case(r, v.s, CASE_LOWER) : v;
}

/* "a,b.c": the list of those attributes; anything else: a list of one. */
static struct tm_val sort_key(struct tm_run *r, struct tm_val item, struct tm_val attr, bool case_sensitive) {
    struct tm_vec key = {0};
    if (attr.kind != V_STR || !memchr(attr.s->p, ',', attr.s->n)) {
        tm_vec_add(r, &key, fold(r, tm_attr_path(r, item, attr, TM_MISSING), case_sensitive));
        return tm_vec_list(r, &key, V_LIST);
    }
    for (size_t at = 0; at <= attr.s->n;) {
        const char *comma = memchr(attr.s->p + at, ',', attr.s->n - at);
        size_t end = comma ? (size_t)(comma - attr.s->p) : attr.s->n;
        struct tm_val one = tm_attr_path(r, item, tm_str_sub(r, attr.s, at, end), TM_MISSING);
        tm_vec_add(r, &key, fold(r, one, case_sensitive));
        at = end + 1;
    }
    return tm_vec_list(r, &key, V_LIST);
}

/* p: reverse, case_sensitive, attribute */
FILTER(f_sort) {
    struct tm_val from = tm_to_list(r, self, V_LIST), out = tm_list(r, V_LIST, from.l->n);
    struct tm_val *keys = tm_alloc(r, from.l->n * sizeof *keys);
    for (size_t i = 0; i < from.l->n; i++) {
        keys[i] = sort_key(r, from.l->v[i], p[2], flag(r, p[1]));
        out.l->v[i] = from.l->v[i];
    }
    tm_sort(r, keys, out.l->v, from.l->n, flag(r, p[0]));
    return out;
}

/* p: case_sensitive, by, reverse */
FILTER(f_dictsort) {
    bool by_value = false;
    if (p[1].kind != V_MISSING) {
        struct tm_str *by = tm_need_str(r, p[1], "by");
        by_value = str_eqz((struct str){by->p, by->n}, "value");
        if (!by_value && !str_eqz((struct str){by->p, by->n}, "key"))
            tm_fail(r, "You can only sort by either \"key\" or \"value\"");
    }
    if (self.kind == V_UNDEF)
        tm_fail_undef(r, self);
    if (self.kind != V_DICT)
        tm_fail(r, "dictsort needs a mapping, not %s", tm_type_name(self));
    const struct tm_dict *d = tm_entries(r, self.d);
    struct tm_val out = tm_list(r, V_LIST, d->n), *keys = tm_alloc(r, d->n * sizeof *keys);
    for (size_t i = 0; i < d->n; i++) {
        keys[i] = fold(r, by_value ? d->e[i].value : d->e[i].key, flag(r, p[0]));
        out.l->v[i] = tm_tuple2(r, d->e[i].key, d->e[i].value);
    }
    tm_sort(r, keys, out.l->v, d->n, flag(r, p[2]));
    return out;
}

/* p: case_sensitive, attribute */
static struct tm_val extreme(struct tm_run *r, struct tm_val self, const struct tm_val *p, bool max) {
    struct tm_iter *it = tm_iter_open(r, self);
    struct tm_val best = TM_MISSING, best_key = TM_MISSING, v;
    while (tm_iter_next(r, it, &v)) {
        struct tm_val key = fold(r, tm_attr_path(r, v, p[1], TM_MISSING), flag(r, p[0]));
        if (best.kind == V_MISSING ||
            (max ? tm_less(r, best_key, key, ">") : tm_less(r, key, best_key, "<"))) {
            best = v;
            best_key = key;
        }
    }
    if (best.kind == V_MISSING)
        return tm_undef(r, "No aggregated item, sequence was empty.", (struct str){0}, NULL);
    return best;
}

FILTER(f_min) {
    return extreme(r, self, p, false);
}
FILTER(f_max) {
    return extreme(r, self, p, true);
}

/* p: attribute, start */
FILTER(f_sum) {
    struct tm_val sum = p[1].kind == V_MISSING ? tm_int(0) : p[1], v;
    if (sum.kind == V_STR)
        tm_fail(r, "sum() can't sum strings");
    struct tm_iter *it = tm_iter_open(r, self);
    while (tm_iter_next(r, it, &v))
        sum = tm_arith(r, TOK_ADD, sum, tm_attr_path(r, v, p[0], TM_MISSING));
    return sum;
}

/* p: attribute, default, case_sensitive */
FILTER(f_groupby) {
    struct tm_val items = tm_to_list(r, self, V_LIST), copy = tm_list(r, V_LIST, items.l->n);
    size_t n = items.l->n;
    struct tm_val *keys = tm_alloc(r, n * sizeof *keys);
    bool sensitive = flag(r, p[2]);
    for (size_t i = 0; i < n; i++) {
        keys[i] = fold(r, tm_attr_path(r, items.l->v[i], p[0], p[1]), sensitive);
        copy.l->v[i] = items.l->v[i];
    }
    tm_sort(r, keys, copy.l->v, n, false);
    struct tm_vec groups = {0};
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && tm_eq(r, keys[begin], keys[end]); end++)
            ;
        struct tm_val key = sensitive ? keys[begin] : tm_attr_path(r, copy.l->v[begin], p[0], p[1]);
        struct tm_val group = tm_tuple2(r, key, part(r, copy.l, begin, end, end - begin, TM_NONE));
        group.l->group = true;
        tm_vec_add(r, &groups, group);
    }
    return tm_vec_list(r, &groups, V_LIST);
}

/* ---- other ---- */

FILTER(f_attr) {
    struct tm_str *name = tm_need_str(r, p[0], "attribute name");
    /* Only real attributes: items of a dict do not count. */
    if (self.kind == V_DICT && !tm_method(self, (struct str){name->p, name->n}))
        return tm_undef(r, NULL, (struct str){name->p, name->n}, tm_type_name(self));
    return tm_getattr(r, self, name);
}

FILTER(f_tojson) {
    struct tm_cap outer = tm_cap_begin(r);
    tm_put_json(r, self, p);
    return tm_cap_end(r, outer);
}

FILTER(f_xmlattr) {
    if (self.kind != V_DICT)
        tm_fail(r, "xmlattr needs a mapping");
    bool space = p[0].kind == V_MISSING || tm_truth(r, p[0]);
    const struct tm_dict *d = tm_entries(r, self.d);
    struct tm_cap outer = tm_cap_begin(r);
    bool first = true;
    for (size_t i = 0; i < d->n; i++) {
        if (d->e[i].value.kind == V_NONE || d->e[i].value.kind == V_UNDEF)
            continue;
        const struct tm_str *key = tm_need_str(r, d->e[i].key, "attribute name");
        for (size_t k = 0; k < key->n; k++)
            if (!key->p[k] ? false : strchr(" \t\n\r\f\v/>=", key->p[k]) != NULL)
                tm_fail(r, "Invalid character in attribute name");
        if (!first || space)
            tm_putc(r, ' ');
        first = false;
        tm_put_val(r, tm_escape(r, d->e[i].key));
        tm_putz(r, "=\"");
        tm_put_val(r, tm_escape(r, d->e[i].value));
        tm_putc(r, '"');
    }
    return tm_cap_end(r, outer);
}

const struct tm_callable tm_filters_seq[] = {
    {"tojson", f_tojson, 0, 4, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"length", f_length, 0, 0, {0}},
    {"count", f_length, 0, 0, {0}},
    {"default", f_default, 0, 2, {"default_value", "boolean"}},
    {"d", f_default, 0, 2, {"default_value", "boolean"}},
    {"first", f_first, 0, 0, {0}},
    {"last", f_last, 0, 0, {0}},
    {"list", f_list, 0, 0, {0}},
    {"map", f_map, 0, TM_VARARGS, {0}},
    {"select", f_select, 0, TM_VARARGS, {0}},
    {"reject", f_reject, 0, TM_VARARGS, {0}},
    {"selectattr", f_selectattr, 0, TM_VARARGS, {0}},
    {"rejectattr", f_rejectattr, 0, TM_VARARGS, {0}},
    {"items", f_items, 0, 0, {0}},
    {"dictsort", f_dictsort, 0, 3, {"case_sensitive", "by", "reverse"}},
    {"sort", f_sort, 0, 3, {"reverse", "case_sensitive", "attribute"}},
    {"unique", f_unique, 0, 2, {"case_sensitive", "attribute"}},
    {"reverse", f_reverse, 0, 0, {0}},
    {"min", f_min, 0, 2, {"case_sensitive", "attribute"}},
    {"max", f_max, 0, 2, {"case_sensitive", "attribute"}},
    {"sum", f_sum, 0, 2, {"attribute", "start"}},
    {"groupby", f_groupby, 1, 3, {"attribute", "default", "case_sensitive"}},
    {"batch", f_batch, 1, 2, {"linecount", "fill_with"}},
    {"slice", f_slice, 1, 2, {"slices", "fill_with"}},
    {"attr", f_attr, 1, 1, {"name"}},
    {"xmlattr", f_xmlattr, 0, 1, {"autospace"}},
    {"pprint", NULL, 0, 0, {0}},
    {"random", NULL, 0, 0, {0}},
    {"striptags", NULL, 0, 0, {0}},
    {"urlize", NULL, 0, 0, {0}},
    {"wordwrap", NULL, 0, 0, {0}},
    {NULL, NULL, 0, 0, {0}}};

const struct tm_callable *tm_filter_find(struct str name) {
    const struct tm_callable *f = tm_table_find(tm_filters_seq, name);
    return f ? f : tm_table_find(tm_filters_str, name);
}
