/* ops.c: truth, equality, order, membership, length and slices. */
#include <math.h>

#include "router/tmpl/val.h"

bool tm_is_num(struct tm_val v) {
    return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT;
}

bool tm_as_int(struct tm_val v, int64_t *out) {
    if (v.kind != V_INT && v.kind != V_BOOL)
        return false;
    *out = v.kind == V_INT ? v.i : v.b;
    return true;
}

double tm_as_double(struct tm_val v) {
    return v.kind == V_FLOAT ? v.f : v.kind == V_INT ? (double)v.i : v.b;
}

int64_t tm_need_int(struct tm_run *r, struct tm_val v, const char *what) {
    int64_t i;
    if (v.kind == V_UNDEF)
        tm_fail_undef(r, v);
    if (!tm_as_int(v, &i))
        tm_fail(r, "%s must be an integer, not %s", what, tm_type_name(v));
    return i;
}

struct tm_str *tm_need_str(struct tm_run *r, struct tm_val v, const char *what) {
    if (v.kind == V_UNDEF)
        tm_fail_undef(r, v);
    if (v.kind != V_STR)
        tm_fail(r, "%s must be a string, not %s", what, tm_type_name(v));
    return v.s;
}

int64_t tm_length(struct tm_run *r, struct tm_val v) {
    switch ((enum tm_kind)v.kind) {
    case V_UNDEF:
        return 0;
    case V_STR:
        return tm_str_len(r, v.s);
    case V_LIST:
    case V_TUPLE:
        return (int64_t)v.l->n;
    case V_DICT:
        return (int64_t)tm_entries(r, v.d)->n;
    case V_VIEW:
        return (int64_t)tm_entries(r, v.view->d)->n;
    case V_RANGE:
        return v.range->n;
    case V_LOOP:
        return tm_loop_attr(r, v.loop, STR_LIT("length")).i;
    default:
        return -1;
    }
}

bool tm_truth(struct tm_run *r, struct tm_val v) {
    switch ((enum tm_kind)v.kind) {
    case V_MISSING:
    case V_UNDEF:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.b;
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    case V_STR:
        return v.s->n != 0;
    case V_DICT:
        return v.d->lazy ? json_object_size(v.d->lazy) != 0 : v.d->n != 0;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
    case V_RANGE:
    case V_LOOP:
        return tm_length(r, v) != 0;
    default:
        return true;
    }
}

bool tm_same(struct tm_val a, struct tm_val b) {
    if (a.kind != b.kind)
        return false;
    switch ((enum tm_kind)a.kind) {
    case V_NONE:
        return true;
    case V_BOOL:
        return a.b == b.b;
    case V_INT:
        return a.i == b.i;
    case V_FLOAT:
        return memcmp(&a.f, &b.f, sizeof a.f) == 0;
    case V_STR: /* Python shares equal constants */
        return a.s->n == b.s->n && memcmp(a.s->p, b.s->p, a.s->n) == 0;
    default:
        return a.p == b.p;
    }
}

/* <0, 0, >0, or 2 when not comparable (NaN). Exact for 64-bit integers: long double holds them. */
static int num_cmp(struct tm_val a, struct tm_val b) {
    int64_t x, y;
    if (tm_as_int(a, &x) && tm_as_int(b, &y))
        return x < y ? -1 : x > y;
    long double f = a.kind == V_FLOAT ? (long double)a.f : (long double)(tm_as_int(a, &x) ? x : 0);
    long double g = b.kind == V_FLOAT ? (long double)b.f : (long double)(tm_as_int(b, &y) ? y : 0);
    return f < g ? -1 : f > g ? 1 : f == g ? 0 : 2;
}

static bool eq_list(struct tm_run *r, struct tm_val a, struct tm_val b) {
    if (a.l->n != b.l->n)
        return false;
    const struct tm_list *x = tm_items(r, a), *y = tm_items(r, b);
    bool same = true;
    tm_enter(r);
    for (size_t i = 0; same && i < x->n; i++)
        same = tm_eq(r, x->v[i], y->v[i]);
    tm_leave(r);
    return same;
}

static bool eq_dict(struct tm_run *r, struct tm_dict *a, struct tm_dict *b) {
    const struct tm_dict *x = tm_entries(r, a);
    if (x->n != tm_entries(r, b)->n)
        return false;
    bool same = true;
    tm_enter(r);
    for (size_t i = 0; same && i < x->n; i++) {
        struct tm_val other = tm_dict_get(r, b, x->e[i].key, NULL);
        same = other.kind != V_MISSING && tm_eq(r, x->e[i].value, other);
    }
    tm_leave(r);
    return same;
}

/* Views of keys and of items compare as sets. */
static bool eq_view(struct tm_run *r, const struct tm_view *a, const struct tm_view *b) {
    if (a->kind == VIEW_VALUES || a->kind != b->kind)
        return a == b;
    if (a->kind == VIEW_ITEMS)
        return eq_dict(r, a->d, b->d);
    const struct tm_dict *x = tm_entries(r, a->d);
    bool same = x->n == tm_entries(r, b->d)->n;
    for (size_t i = 0; same && i < x->n; i++)
        same = tm_dict_get(r, b->d, x->e[i].key, NULL).kind != V_MISSING;
    return same;
}

static bool eq_range(const struct tm_range *a, const struct tm_range *b) {
    return a->n == b->n && (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

bool tm_eq(struct tm_run *r, struct tm_val a, struct tm_val b) {
    tm_step(r, 1);
    if (tm_is_num(a) && tm_is_num(b))
        return num_cmp(a, b) == 0;
    if (a.kind != b.kind)
        return false;
    switch ((enum tm_kind)a.kind) {
    case V_UNDEF:
    case V_NONE:
        return true;
    case V_STR:
        if (a.s->n != b.s->n || a.s->p == b.s->p)
            return a.s->n == b.s->n;
        tm_step_bytes(r, a.s->n);
        return memcmp(a.s->p, b.s->p, a.s->n) == 0;
    case V_LIST:
    case V_TUPLE:
        return a.l == b.l || eq_list(r, a, b);
    case V_DICT:
        return a.d == b.d || eq_dict(r, a.d, b.d);
    case V_VIEW:
        return eq_view(r, a.view, b.view);
    case V_RANGE:
        return eq_range(a.range, b.range);
    case V_METHOD:
        return a.bound->m == b.bound->m && tm_same(a.bound->self, b.bound->self);
    default:
        return a.p == b.p;
    }
}

static bool less_list(struct tm_run *r, struct tm_val a, struct tm_val b, const char *op) {
    const struct tm_list *x = tm_items(r, a), *y = tm_items(r, b);
    size_t n = MIN(x->n, y->n), i = 0;
    tm_enter(r);
    while (i < n && tm_eq(r, x->v[i], y->v[i]))
        i++;
    bool less = i < n ? tm_less(r, x->v[i], y->v[i], op) : x->n < y->n;
    tm_leave(r);
    return less;
}

bool tm_less(struct tm_run *r, struct tm_val a, struct tm_val b, const char *op) {
    tm_step(r, 1);
    if (a.kind == V_UNDEF || b.kind == V_UNDEF)
        tm_fail_undef(r, a.kind == V_UNDEF ? a : b);
    if (tm_is_num(a) && tm_is_num(b))
        return num_cmp(a, b) == -1;
    if (a.kind == V_STR && b.kind == V_STR) {
        size_t n = MIN(a.s->n, b.s->n);
        tm_step_bytes(r, n);
        int c = n ? memcmp(a.s->p, b.s->p, n) : 0;
        return c < 0 || (c == 0 && a.s->n < b.s->n);
    }
    if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE))
        return less_list(r, a, b, op);
    tm_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, tm_type_name(a), tm_type_name(b));
}

bool tm_le(struct tm_run *r, struct tm_val a, struct tm_val b, const char *op) {
    if (tm_is_num(a) && tm_is_num(b))
        return num_cmp(a, b) <= 0;
    return !tm_less(r, b, a, op); /* strings and lists have a total order */
}

static bool range_has(struct tm_val item, const struct tm_range *g) {
    struct tm_val v = item;
    if (v.kind == V_FLOAT && v.f == floor(v.f) && fabs(v.f) < 9e18)
        v = tm_int((int64_t)v.f);
    int64_t i;
    if (!tm_as_int(v, &i) || g->n == 0)
        return false;
    int64_t last = g->start + (g->n - 1) * g->step;
    return i >= MIN(g->start, last) && i <= MAX(g->start, last) && (i - g->start) % g->step == 0;
}

bool tm_contains(struct tm_run *r, struct tm_val box, struct tm_val item) {
    bool ok = true;
    switch ((enum tm_kind)box.kind) {
    case V_STR: {
        struct tm_str *s = tm_need_str(r, item, "the left operand of 'in' with a string");
        tm_step_bytes(r, box.s->n);
        return s->n == 0 || (box.s->n && memmem(box.s->p, box.s->n, s->p, s->n) != NULL);
    }
    case V_VIEW:
        if (box.view->kind != VIEW_KEYS)
            break;
        box.d = box.view->d; /* fall through */
    case V_DICT: {
        struct tm_val v = tm_dict_get(r, box.d, item, &ok);
        if (!ok)
            tm_fail(r, "unhashable type: '%s'", tm_type_name(item));
        return v.kind != V_MISSING;
    }
    case V_RANGE:
        return range_has(item, box.range);
    default:
        break;
    }
    if (!tm_iterable(box))
        tm_fail(r, "argument of type '%s' is not iterable", tm_type_name(box));
    struct tm_iter *it = tm_iter_open(r, box);
    struct tm_val v;
    while (tm_iter_next(r, it, &v))
        if (tm_eq(r, v, item))
            return true;
    return false;
}

/* ---- slices ---- */

static int64_t clip(int64_t i, int64_t len, int64_t lo, int64_t hi) {
    if (i < 0)
        i = i < -len ? lo : i + len;
    return MIN(MAX(i, lo), hi);
}

struct span {
    int64_t start, stop, step, n;
};

/* The items start, start + step, ... that a slice of something of this length names. */
static struct span span_of(struct tm_run *r, int64_t len, struct tm_val a, struct tm_val b, struct tm_val c) {
    int64_t step = c.kind == V_NONE ? 1 : tm_need_int(r, c, "slice index");
    if (step == 0)
        tm_fail(r, "slice step cannot be zero");
    step = MAX(step, -INT64_MAX);
    int64_t lo = step > 0 ? 0 : -1, hi = step > 0 ? len : len - 1;
    int64_t start =
        a.kind == V_NONE ? (step > 0 ? lo : hi) : clip(tm_need_int(r, a, "slice index"), len, lo, hi);
    int64_t stop =
        b.kind == V_NONE ? (step > 0 ? hi : lo) : clip(tm_need_int(r, b, "slice index"), len, lo, hi);
    int64_t n = 0;
    if (step > 0 && stop > start)
        n = (stop - start - 1) / step + 1;
    else if (step < 0 && start > stop)
        n = (start - stop - 1) / -step + 1;
    return (struct span){start, stop, step, n};
}

static struct tm_val slice_str(struct tm_run *r, struct tm_str *s, struct span sp) {
    if (sp.n <= 0)
        return tm_str_as(r, tm_str(r, "", 0, FROM_TEMPLATE), s->markup);
    if (sp.step == 1)
        return tm_str_sub(r, s, tm_str_at(r, s, sp.start), tm_str_at(r, s, sp.start + sp.n));
    tm_step(r, (uint64_t)sp.n);
    struct tm_cap outer = tm_cap_begin(r);
    size_t at = tm_str_at(r, s, sp.start);
    for (int64_t i = 0; i < sp.n; i++) {
        size_t end = at + 1;
        while (end < s->n && ((unsigned char)s->p[end] & 0xc0) == 0x80)
            end++;
        tm_put_sub(r, s, at, end);
        if (i + 1 == sp.n)
            break;
        if ((size_t)s->n_cp == s->n) {
            at = (size_t)((int64_t)at + sp.step);
            continue;
        }
        for (int64_t k = 0; k < (sp.step > 0 ? sp.step : -sp.step); k++) {
            do
                at += sp.step > 0 ? 1 : (size_t)-1;
            while (at < s->n && ((unsigned char)s->p[at] & 0xc0) == 0x80);
        }
    }
    return tm_str_as(r, tm_cap_end(r, outer), s->markup);
}

struct tm_val tm_slice(struct tm_run *r, struct tm_val v, struct tm_val start, struct tm_val stop,
                       struct tm_val step) {
    if (v.kind == V_UNDEF)
        tm_fail_undef(r, v);
    bool ok = v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_RANGE;
    if (!ok)
        tm_fail(r, "'%s' object cannot be sliced", tm_type_name(v));
    struct span sp = span_of(r, tm_length(r, v), start, stop, step);
    if (v.kind == V_STR)
        return slice_str(r, v.s, sp);
    if (v.kind == V_RANGE) {
        /* At most 100,000 items, but steps may be huge. */
        struct tm_range *g = tm_alloc(r, sizeof *g), from = *v.range;
        bool over = __builtin_mul_overflow(from.step, sp.step, &g->step) ||
                    __builtin_mul_overflow(from.step, sp.stop, &g->stop) ||
                    __builtin_add_overflow(from.start, g->stop, &g->stop) ||
                    __builtin_mul_overflow(from.step, sp.start, &g->start) ||
                    __builtin_add_overflow(from.start, g->start, &g->start);
        if (over)
            tm_fail(r, "integer overflow: integers of templates have 64 bits");
        g->n = sp.n;
        return (struct tm_val){.kind = V_RANGE, .range = g};
    }
    const struct tm_list *l = tm_items(r, v);
    tm_step(r, (uint64_t)sp.n / 8);
    struct tm_val out = tm_list(r, (enum tm_kind)v.kind, (size_t)sp.n);
    for (int64_t i = 0; i < sp.n; i++)
        out.l->v[i] = l->v[sp.start + i * sp.step];
    return out;
}
