/* iter.c: iteration, lists from it, sorting. Generators of filters compute an item when it is asked for,
 * and are spent after one pass, as in Python. */
#include "router/tmpl/val.h"

bool tm_iterable(struct tm_val v) {
    switch ((enum tm_kind)v.kind) {
    case V_UNDEF:
    case V_STR:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_VIEW:
    case V_RANGE:
    case V_ITER:
        return true;
    default:
        return false;
    }
}

struct tm_iter *tm_iter_open(struct tm_run *r, struct tm_val v) {
    if (v.kind == V_ITER)
        return v.it;
    static const struct tm_list none = {0};
    struct tm_iter *it = tm_alloc(r, sizeof *it);
    it->at = 0;
    switch ((enum tm_kind)v.kind) {
    case V_UNDEF:
        it->kind = IT_ARRAY;
        it->list = &none;
        break;
    case V_LIST:
    case V_TUPLE:
        it->kind = IT_ARRAY;
        it->list = tm_items(r, v);
        break;
    case V_STR:
        it->kind = IT_STR;
        it->s = v.s;
        break;
    case V_DICT:
    case V_VIEW:
        it->kind = IT_DICT;
        it->view = v.kind == V_VIEW ? *v.view : (struct tm_view){v.d, VIEW_KEYS};
        tm_entries(r, it->view.d);
        break;
    case V_RANGE:
        it->kind = IT_RANGE;
        it->range = v.range;
        break;
    default:
        tm_fail(r, "'%s' object is not iterable", tm_type_name(v));
    }
    return it;
}

static bool dict_next(struct tm_run *r, struct tm_iter *it, struct tm_val *out) {
    const struct tm_dict *d = it->view.d;
    if (it->at >= d->n)
        return false;
    const struct tm_entry *e = &d->e[it->at++];
    *out = it->view.kind == VIEW_KEYS     ? e->key
           : it->view.kind == VIEW_VALUES ? e->value
                                          : tm_tuple2(r, e->key, e->value);
    return true;
}

static bool str_next(struct tm_run *r, struct tm_iter *it, struct tm_val *out) {
    const struct tm_str *s = it->s;
    if (it->at >= s->n)
        return false;
    size_t end = it->at + 1;
    while (end < s->n && ((unsigned char)s->p[end] & 0xc0) == 0x80)
        end++;
    *out = tm_str_sub(r, s, it->at, end);
    out->s->markup = false;
    it->at = end;
    return true;
}

/* The item as the filter's attribute argument sees it. */
static struct tm_val pipe_view(struct tm_run *r, const struct tm_iter *it, struct tm_val v) {
    return it->pipe.attr.kind == V_MISSING ? v : tm_attr_path(r, v, it->pipe.attr, it->pipe.dflt);
}

static bool pipe_next(struct tm_run *r, struct tm_iter *it, struct tm_val *out) {
    struct tm_val v;
    if (!it->pipe.from)
        it->pipe.from = tm_iter_open(r, it->pipe.source);
    while (tm_iter_next(r, it->pipe.from, &v)) {
        struct tm_val seen = pipe_view(r, it, v);
        if (it->kind == IT_MAP) {
            *out = it->pipe.filter ? tm_call_def(r, it->pipe.filter, seen, &it->pipe.args) : seen;
            return true;
        }
        *out = v;
        if (it->kind == IT_SELECT) {
            bool yes =
                it->pipe.test ? tm_call_test(r, it->pipe.test, seen, &it->pipe.args) : tm_truth(r, seen);
            if (yes != it->pipe.negate)
                return true;
            continue;
        }
        if (seen.kind == V_STR && !it->pipe.case_sensitive)
            seen = tm_str_case(r, seen.s, CASE_LOWER);
        bool ok;
        if (tm_dict_get(r, it->pipe.seen, seen, &ok).kind != V_MISSING)
            continue;
        if (!ok)
            tm_fail(r, "unhashable type: '%s'", tm_type_name(seen));
        tm_dict_set(r, it->pipe.seen, seen, TM_NONE);
        return true;
    }
    return false;
}

static bool deferred_next(struct tm_run *r, struct tm_iter *it, struct tm_val *out) {
    if (!it->deferred.list)
        it->deferred.list = it->deferred.make(r, it->deferred.source, &it->deferred.args).l;
    if (it->at >= it->deferred.list->n)
        return false;
    *out = it->deferred.list->v[it->at++];
    return true;
}

bool tm_iter_next(struct tm_run *r, struct tm_iter *it, struct tm_val *out) {
    tm_step(r, 1);
    switch (it->kind) {
    case IT_ARRAY:
        if (it->at >= it->list->n)
            return false;
        *out = it->list->v[it->at++];
        return true;
    case IT_REVERSED:
        if (it->at >= it->list->n)
            return false;
        *out = it->list->v[it->list->n - ++it->at];
        return true;
    case IT_STR:
        return str_next(r, it, out);
    case IT_DICT:
        return dict_next(r, it, out);
    case IT_RANGE:
        if (it->at >= (size_t)it->range->n)
            return false;
        *out = tm_int(it->range->start + (int64_t)it->at++ * it->range->step);
        return true;
    case IT_MAP:
    case IT_SELECT:
    case IT_UNIQUE: {
        tm_enter(r); /* generators of generators */
        bool more = pipe_next(r, it, out);
        tm_leave(r);
        return more;
    }
    case IT_DEFERRED: {
        tm_enter(r);
        bool more = deferred_next(r, it, out);
        tm_leave(r);
        return more;
    }
    case IT_FOR_TEST:
        return tm_for_test(r, it, out);
    }
    CHECK(!"an iterator");
    return false;
}

struct tm_val tm_to_list(struct tm_run *r, struct tm_val v, enum tm_kind kind) {
    if (v.kind == V_LIST || v.kind == V_TUPLE) { /* contents never change, so they are shared */
        const struct tm_list *l = tm_items(r, v);
        struct tm_list *copy = tm_alloc(r, sizeof *copy);
        *copy = (struct tm_list){.v = l->v, .n = l->n};
        return (struct tm_val){.kind = (uint8_t)kind, .l = copy};
    }
    struct tm_vec x = {0};
    struct tm_iter *it = tm_iter_open(r, v);
    struct tm_val item;
    while (tm_iter_next(r, it, &item))
        tm_vec_add(r, &x, item);
    return tm_vec_list(r, &x, kind);
}

/* ---- sorting: stable, by `<` alone ---- */

struct pair {
    struct tm_val key, val;
};

static void merge(struct tm_run *r, struct pair *a, struct pair *tmp, size_t n, bool reverse) {
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    merge(r, a, tmp, half, reverse);
    merge(r, a + half, tmp, n - half, reverse);
    while (i < half && j < n) {
        bool take_right = reverse ? tm_less(r, a[i].key, a[j].key, "<") : tm_less(r, a[j].key, a[i].key, "<");
        tmp[k++] = take_right ? a[j++] : a[i++];
    }
    while (i < half)
        tmp[k++] = a[i++];
    memcpy(a, tmp, k * sizeof *a); /* the rest of the right half is in place */
}

void tm_sort(struct tm_run *r, struct tm_val *keys, struct tm_val *vals, size_t n, bool reverse) {
    if (n == 0)
        return;
    struct pair *a = tm_alloc(r, 2 * n * sizeof *a);
    for (size_t i = 0; i < n; i++)
        a[i] = (struct pair){keys[i], vals[i]};
    merge(r, a, a + n, n, reverse);
    for (size_t i = 0; i < n; i++) {
        keys[i] = a[i].key;
        vals[i] = a[i].val;
    }
}
