/* call.c: binding arguments; calling functions, methods, macros; the functions every template sees. */
#include <stdio.h>
#include <time.h>

#include "router/tmpl/ast.h"

/* ---- functions and methods of this engine ---- */

static void bind(struct tm_run *r, const struct tm_callable *c, const struct tm_args *args,
                 struct tm_val *p) {
    if (args->n > c->n_max)
        tm_fail(r, "%s takes at most %u arguments (%zu given)", c->name, c->n_max, args->n);
    for (size_t i = 0; i < TM_PARAMS_MAX; i++)
        p[i] = i < args->n ? args->v[i] : TM_MISSING;
    for (size_t k = 0; k < args->n_kw; k++) {
        size_t i = 0;
        while (i < c->n_max && !(c->params[i] && c->params[i][0] && str_eqz(args->kw[k].name, c->params[i])))
            i++;
        struct str name = args->kw[k].name;
        if (i == c->n_max)
            tm_fail(r, "%s got an unexpected keyword argument '%.*s'", c->name, (int)MIN(name.n, (size_t)60),
                    name.p);
        if (p[i].kind != V_MISSING)
            tm_fail(r, "%s got multiple values for argument '%s'", c->name, c->params[i]);
        p[i] = args->kw[k].v;
    }
    for (size_t i = 0; i < c->n_min; i++)
        if (p[i].kind == V_MISSING)
            tm_fail(r, "%s needs at least %u arguments", c->name, c->n_min);
}

struct tm_val tm_call_def(struct tm_run *r, const struct tm_callable *c, struct tm_val self,
                          const struct tm_args *args) {
    struct tm_val p[TM_PARAMS_MAX];
    if (!c->fn)
        tm_fail(r, "'%s' is not available in chat templates", c->name);
    if (c->n_max == TM_VARARGS)
        return c->fn(r, self, NULL, args);
    bind(r, c, args, p);
    return c->fn(r, self, p, args);
}

bool tm_call_test(struct tm_run *r, const struct tm_test *t, struct tm_val v, const struct tm_args *args) {
    struct tm_val p = TM_MISSING;
    if (args->n)
        p = args->v[0];
    else if (args->n_kw == 1 && t->param && str_eqz(args->kw[0].name, t->param))
        p = args->kw[0].v;
    if (args->n + args->n_kw != t->n_args || (t->n_args && p.kind == V_MISSING))
        tm_fail(r, "test '%s' takes %u arguments", t->name, t->n_args);
    return t->fn(r, v, &p);
}

/* ---- macros ---- */

static struct tm_kwarg *take_kw(struct tm_run *r, struct tm_kwarg *kw, size_t n, struct str name) {
    tm_step(r, n / 8);
    for (size_t i = 0; i < n; i++)
        if (kw[i].v.kind != V_MISSING && str_eq(kw[i].name, name))
            return &kw[i];
    return NULL;
}

/* Puts arguments into the slots of act; what is left of the keywords is kept in kw as not V_MISSING. */
static void macro_params(struct tm_run *r, const struct tm_func *f, struct tm_act *act,
                         const struct tm_args *args, struct tm_kwarg *kw) {
    bool found_caller = args->n >= f->n_params ? f->explicit_caller : false;
    for (uint32_t i = 0; i < f->n_params; i++) {
        struct tm_val v = TM_MISSING;
        struct str name = f->params[i]->name.name;
        if (i < args->n) {
            v = args->v[i];
        } else {
            struct tm_kwarg *k = take_kw(r, kw, args->n_kw, name);
            if (k) {
                v = k->v;
                k->v = TM_MISSING;
            }
            found_caller = found_caller || str_eqz(name, "caller");
        }
        act->slots[f->params[i]->name.ref.slot] = v;
    }
    if (f->caller_slot >= 0 && !found_caller) {
        struct tm_kwarg *k = take_kw(r, kw, args->n_kw, STR_LIT("caller"));
        act->slots[f->caller_slot] =
            k && k->v.kind != V_NONE ? k->v : tm_undef(r, "No caller defined", STR_LIT("caller"), NULL);
        if (k)
            k->v = TM_MISSING;
    }
}

static void macro_rest(struct tm_run *r, const struct tm_func *f, struct tm_act *act,
                       const struct tm_args *args, struct tm_kwarg *kw) {
    struct tm_dict *rest = f->kwargs_slot >= 0 ? tm_dict_new(r, args->n_kw) : NULL;
    const char *name = f->name.n ? f->name.p : "caller";
    int len = f->name.n ? (int)MIN(f->name.n, (size_t)60) : 6;
    for (size_t i = 0; i < args->n_kw; i++) {
        if (kw[i].v.kind == V_MISSING)
            continue;
        if (!rest)
            tm_fail(r, "macro '%.*s' takes no keyword argument '%.*s'", len, name,
                    (int)MIN(kw[i].name.n, (size_t)60), kw[i].name.p);
        tm_dict_set(r, rest, tm_str(r, kw[i].name.p, kw[i].name.n, FROM_TEMPLATE), kw[i].v);
    }
    if (rest)
        act->slots[f->kwargs_slot] = (struct tm_val){.kind = V_DICT, .d = rest};
    size_t extra = args->n > f->n_params ? args->n - f->n_params : 0;
    if (f->varargs_slot >= 0) {
        struct tm_val t = tm_list(r, V_TUPLE, extra);
        for (size_t i = 0; i < extra; i++)
            t.l->v[i] = args->v[f->n_params + i];
        act->slots[f->varargs_slot] = t;
    } else if (extra) {
        tm_fail(r, "macro '%.*s' takes not more than %u argument(s)", len, name, f->n_params);
    }
}

struct tm_val tm_call_macro(struct tm_run *r, const struct tm_macro *m, const struct tm_args *args) {
    const struct tm_func *f = m->func;
    if (r->calls >= r->t->limits.depth_max)
        tm_fail(r, "template calls are nested deeper than %u (--max-template-depth)", r->t->limits.depth_max);
    struct tm_act *act = tm_alloc(r, sizeof *act + f->n_slots * sizeof act->slots[0]);
    act->up = m->act;
    for (size_t i = 0; i < f->n_slots; i++)
        act->slots[i] = TM_MISSING;
    struct tm_kwarg *kw = tm_alloc(r, args->n_kw * sizeof *kw);
    if (args->n_kw)
        memcpy(kw, args->kw, args->n_kw * sizeof *kw);
    macro_params(r, f, act, args, kw);
    macro_rest(r, f, act, args, kw);

    struct tm_act *caller = r->act;
    uint32_t line = r->line;
    struct tm_cap outer = tm_cap_begin(r);
    r->act = act;
    r->calls++;
    tm_scope_enter(r, (const struct tm_scope *)&f->scope);
    for (uint32_t i = 0; i < f->n_params; i++) {
        struct tm_val *slot = &act->slots[f->params[i]->name.ref.slot];
        uint32_t first = f->n_params - f->defaults.n;
        if (slot->kind == V_MISSING && i >= first)
            *slot = tm_eval(r, f->defaults.v[i - first]);
        else if (slot->kind == V_MISSING)
            *slot = tm_undef(r, "parameter was not provided", f->params[i]->name.name, NULL);
    }
    tm_exec(r, &f->body);
    r->calls--;
    r->act = caller;
    r->line = line;
    return tm_cap_end(r, outer);
}

struct tm_val tm_call(struct tm_run *r, struct tm_val f, const struct tm_args *args) {
    switch ((enum tm_kind)f.kind) {
    case V_UNDEF:
        tm_fail_undef(r, f);
    case V_FUNC:
        return tm_call_def(r, f.func, TM_NONE, args);
    case V_METHOD:
        return tm_call_def(r, f.bound->m, f.bound->self, args);
    case V_MACRO:
        return tm_call_macro(r, f.macro, args);
    case V_LOOP:
        if (args->n != 1 || args->n_kw)
            tm_fail(r, "loop() takes one argument");
        return tm_loop_call(r, f.loop, args->v[0]);
    case V_JOINER:
        if (args->n || args->n_kw)
            tm_fail(r, "a joiner takes no arguments");
        if (f.joiner->used)
            return f.joiner->sep;
        f.joiner->used = true;
        return tm_strz(r, "");
    default:
        tm_fail(r, "'%s' object is not callable", tm_type_name(f));
    }
}

/* ---- functions of every template ---- */

typedef struct tm_val call_fn(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                              const struct tm_args *args);

static struct tm_val raise_exception(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                                     const struct tm_args *args) {
    (void)self, (void)args;
    struct tm_str *s = tm_to_str(r, p[0]).s;
    tm_fail(r, "%.*s", (int)MIN(s->n, (size_t)400), s->p);
}

static void put_time(struct tm_run *r, const struct tm *when, const char *spec, size_t n, bool client) {
    char format[64], text[1024];
    if (n >= sizeof format)
        tm_fail(r, "strftime_now: a conversion is too long");
    memcpy(format, spec, n);
    format[n] = 0;
    size_t len = strftime(text, sizeof text, format, when);
    tm_put_from(r, text, len, client);
}

/* Python's own %f, %z and %Z (microseconds are 0, the time has no zone); the rest is strftime's. Each
 * conversion is done by itself, so that text between them, NUL too, stays as it is. */
static struct tm_val strftime_now(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                                  const struct tm_args *args) {
    (void)self, (void)args;
    struct tm_str *s = tm_need_str(r, p[0], "strftime_now's format");
    time_t t = r->now_unix_s ? (time_t)r->now_unix_s : time(NULL);
    struct tm when;
    localtime_r(&t, &when);
    bool client = s->origin != FROM_TEMPLATE;
    struct tm_cap outer = tm_cap_begin(r);
    tm_step_bytes(r, s->n * 64);
    for (size_t at = 0; at < s->n;) {
        const char *pct = memchr(s->p + at, '%', s->n - at);
        size_t end = pct ? (size_t)(pct - s->p) : s->n;
        tm_put_sub(r, s, at, end);
        at = end;
        if (!pct)
            break;
        end++;
        while (end < s->n && strchr("_-0^#EO", s->p[end]) && s->p[end])
            end++;
        if (end == s->n) {
            tm_put_sub(r, s, at, end);
            break;
        }
        char conv = s->p[end++];
        if (conv == 'f')
            tm_put_from(r, "000000", 6, client);
        else if (conv == '%')
            tm_put_from(r, "%", 1, client);
        else if ((unsigned char)conv >= 0x80 || (conv >= '0' && conv <= '9') || conv == 0)
            tm_fail(r, "strftime_now: invalid conversion");
        else if (conv != 'z' && conv != 'Z')
            put_time(r, &when, s->p + at, end - at, client);
        at = end;
    }
    return tm_cap_end(r, outer);
}

enum { RANGE_MAX = 100000 };

static struct tm_val range(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                           const struct tm_args *args) {
    (void)self, (void)args;
    int64_t a = tm_need_int(r, p[0], "range() argument");
    struct tm_range g = {0, a, 1, 0};
    if (p[1].kind != V_MISSING) {
        g.start = a;
        g.stop = tm_need_int(r, p[1], "range() argument");
    }
    if (p[2].kind != V_MISSING)
        g.step = tm_need_int(r, p[2], "range() argument");
    if (g.step == 0)
        tm_fail(r, "range() arg 3 must not be zero");
    uint64_t span = g.step > 0 ? (uint64_t)g.stop - (uint64_t)g.start : (uint64_t)g.start - (uint64_t)g.stop;
    uint64_t step = g.step > 0 ? (uint64_t)g.step : -(uint64_t)g.step;
    bool any = g.step > 0 ? g.stop > g.start : g.start > g.stop;
    uint64_t n = any ? (span - 1) / step + 1 : 0;
    if (n > RANGE_MAX)
        tm_fail(r, "Range too big. The sandbox blocks ranges larger than %d.", RANGE_MAX);
    g.n = (int64_t)n;
    struct tm_range *out = tm_alloc(r, sizeof *out);
    *out = g;
    return (struct tm_val){.kind = V_RANGE, .range = out};
}

static void fill(struct tm_run *r, struct tm_dict *d, struct tm_val from) {
    if (from.kind == V_DICT) {
        const struct tm_dict *e = tm_entries(r, from.d);
        tm_step(r, e->n);
        for (size_t i = 0; i < e->n; i++)
            tm_dict_set(r, d, e->e[i].key, e->e[i].value);
        return;
    }
    struct tm_iter *it = tm_iter_open(r, from);
    struct tm_val pair;
    while (tm_iter_next(r, it, &pair)) {
        pair = tm_to_list(r, pair, V_TUPLE);
        if (pair.l->n != 2)
            tm_fail(r, "dict: an element has length %zu; 2 is required", pair.l->n);
        if (!tm_dict_set(r, d, pair.l->v[0], pair.l->v[1]))
            tm_fail(r, "unhashable type: '%s'", tm_type_name(pair.l->v[0]));
    }
}

static struct tm_val dict(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                          const struct tm_args *args) {
    (void)self, (void)p;
    struct tm_dict *d = tm_dict_new(r, 0);
    if (args->n > 1)
        tm_fail(r, "dict expected at most 1 argument, got %zu", args->n);
    if (args->n)
        fill(r, d, args->v[0]);
    for (size_t i = 0; i < args->n_kw; i++)
        tm_dict_set(r, d, tm_str(r, args->kw[i].name.p, args->kw[i].name.n, FROM_TEMPLATE), args->kw[i].v);
    return (struct tm_val){.kind = V_DICT, .d = d};
}

static struct tm_val fromkeys(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                              const struct tm_args *args) {
    (void)self, (void)args;
    struct tm_dict *d = tm_dict_new(r, 0);
    struct tm_iter *it = tm_iter_open(r, p[0]);
    struct tm_val key;
    while (tm_iter_next(r, it, &key))
        if (!tm_dict_set(r, d, key, p[1].kind == V_MISSING ? TM_NONE : p[1]))
            tm_fail(r, "unhashable type: '%s'", tm_type_name(key));
    return (struct tm_val){.kind = V_DICT, .d = d};
}
const struct tm_callable tm_dict_fromkeys = {"fromkeys", fromkeys, 1, 2, {"", ""}};

static struct tm_val namespace(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                               const struct tm_args *args) {
    struct tm_ns *ns = tm_alloc(r, sizeof *ns);
    ns->d = dict(r, self, p, args).d;
    for (size_t i = 0; i < ns->d->n; i++) {
        struct tm_val key = ns->d->e[i].key;
        if (key.kind == V_STR && key.s->n && key.s->p[0] == '_')
            tm_fail(r, "a namespace cannot have attributes that begin with an underscore");
    }
    return (struct tm_val){.kind = V_NS, .ns = ns};
}

static struct tm_val cycler(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                            const struct tm_args *args) {
    (void)self, (void)p;
    if (args->n == 0 || args->n_kw)
        tm_fail(r, "at least one item has to be provided to cycler");
    struct tm_cycler *c = tm_alloc(r, sizeof *c);
    *c = (struct tm_cycler){.v = args->v, .n = args->n};
    return (struct tm_val){.kind = V_CYCLER, .cycler = c};
}

static struct tm_val joiner(struct tm_run *r, struct tm_val self, const struct tm_val *p,
                            const struct tm_args *args) {
    (void)self, (void)args;
    struct tm_joiner *j = tm_alloc(r, sizeof *j);
    *j = (struct tm_joiner){.sep = p[0].kind == V_MISSING ? tm_strz(r, ", ") : p[0]};
    return (struct tm_val){.kind = V_JOINER, .p = j};
}

const struct tm_callable tm_functions[] = {{"raise_exception", raise_exception, 1, 1, {"message"}},
                                           {"strftime_now", strftime_now, 1, 1, {"format"}},
                                           {"range", range, 1, 3, {"", "", ""}},
                                           {"namespace", namespace, 0, TM_VARARGS, {0}},
                                           {"dict", dict, 0, TM_VARARGS, {0}},
                                           {"cycler", cycler, 0, TM_VARARGS, {0}},
                                           {"joiner", joiner, 0, 1, {"sep"}},
                                           {NULL, NULL, 0, 0, {0}}};
