/* attr.c: obj.name and obj[key], as Python's objects behind Jinja's immutable sandbox answer. */
#include <inttypes.h>
#include <stdio.h>

#include "router/tmpl/ast.h"

const struct tm_callable *tm_table_find(const struct tm_callable *table, struct str name) {
    for (; table->name; table++)
        if (table->name[0] == (name.n ? name.p[0] : 0) && str_eqz(name, table->name))
            return table;
    return NULL;
}

const struct tm_callable *tm_method(struct tm_val obj, struct str name) {
    const struct tm_callable *m = NULL;
    switch ((enum tm_kind)obj.kind) {
    case V_STR:
        return tm_table_find(tm_str_methods, name);
    case V_LIST:
        m = tm_table_find(tm_list_methods, name); /* fall through */
    case V_TUPLE:
    case V_RANGE:
        return m ? m : tm_table_find(tm_seq_methods, name);
    case V_DICT:
        return tm_table_find(tm_dict_methods, name);
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        return tm_table_find(tm_num_methods, name);
    case V_CYCLER:
        return tm_table_find(tm_cycler_methods, name);
    case V_LOOP:
        return tm_table_find(tm_loop_methods, name);
    default:
        return NULL;
    }
}

static struct tm_val unsafe(struct tm_run *r, struct tm_val obj, struct str name) {
    struct tm_val v = tm_undef(r, NULL, name, tm_type_name(obj));
    v.u->unsafe = true;
    return v;
}

static struct tm_val macro_attr(struct tm_run *r, const struct tm_macro *m, struct str name) {
    const struct tm_func *f = m->func;
    if (str_eqz(name, "name"))
        return f->name.n ? tm_str(r, f->name.p, f->name.n, FROM_TEMPLATE) : TM_NONE;
    if (str_eqz(name, "caller"))
        return tm_bool(f->caller_slot >= 0 || f->explicit_caller);
    if (str_eqz(name, "catch_kwargs"))
        return tm_bool(f->kwargs_slot >= 0);
    if (str_eqz(name, "catch_varargs"))
        return tm_bool(f->varargs_slot >= 0);
    if (!str_eqz(name, "arguments"))
        return TM_MISSING;
    struct tm_val names = tm_list(r, V_TUPLE, f->n_params);
    for (uint32_t i = 0; i < f->n_params; i++) {
        struct str s = f->params[i]->name.name;
        names.l->v[i] = tm_str(r, s.p, s.n, FROM_TEMPLATE);
    }
    return names;
}

static struct tm_val num_attr(struct tm_val v, struct str name) {
    int64_t i;
    bool is_int = tm_as_int(v, &i);
    if (str_eqz(name, "real") || (is_int && str_eqz(name, "numerator")))
        return is_int ? tm_int(i) : v;
    if (str_eqz(name, "imag"))
        return is_int ? tm_int(0) : tm_float(0);
    return is_int && str_eqz(name, "denominator") ? tm_int(1) : TM_MISSING;
}

static struct tm_val range_attr(const struct tm_range *g, struct str name) {
    return str_eqz(name, "start")  ? tm_int(g->start)
           : str_eqz(name, "stop") ? tm_int(g->stop)
           : str_eqz(name, "step") ? tm_int(g->step)
                                   : TM_MISSING;
}

/* Attributes that are not methods; V_MISSING: none of that name. */
static struct tm_val plain_attr(struct tm_run *r, struct tm_val obj, struct str name) {
    switch ((enum tm_kind)obj.kind) {
    case V_NS:
        return tm_dict_getz(r, obj.ns->d, name);
    case V_LOOP:
        return tm_loop_attr(r, obj.loop, name);
    case V_MACRO:
        return macro_attr(r, obj.macro, name);
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        return num_attr(obj, name);
    case V_RANGE:
        return range_attr(obj.range, name);
    case V_TUPLE:
        if (obj.l->group && (str_eqz(name, "grouper") || str_eqz(name, "list")))
            return obj.l->v[name.p[0] == 'l'];
        return TM_MISSING;
    case V_CYCLER:
        if (str_eqz(name, "current"))
            return obj.cycler->v[obj.cycler->at];
        return str_eqz(name, "pos") ? tm_int((int64_t)obj.cycler->at) : TM_MISSING;
    case V_FUNC:
        if (obj.func->name[0] == 'd' && str_eqz(name, "fromkeys"))
            return (struct tm_val){.kind = V_FUNC, .func = &tm_dict_fromkeys};
        return TM_MISSING;
    default:
        return TM_MISSING;
    }
}

/* Python's getattr() behind the sandbox; V_MISSING: no such attribute. */
static struct tm_val attr(struct tm_run *r, struct tm_val obj, struct str name) {
    bool hidden = name.n > 4 && memcmp(name.p, "__", 2) == 0 && memcmp(name.p + name.n - 2, "__", 2) == 0;
    if (hidden && !(obj.kind == V_UNDEF && obj.u->unsafe))
        return unsafe(r, obj, name);
    if (obj.kind == V_UNDEF)
        tm_fail_undef(r, obj);
    const struct tm_callable *m = tm_method(obj, name);
    if (!m)
        return plain_attr(r, obj, name);
    if (!m->fn && m->n_min)
        tm_fail(r, "'%s.%s' is not available in chat templates", tm_type_name(obj), m->name);
    if (!m->fn)
        return unsafe(r, obj, name);
    struct tm_bound *b = tm_alloc(r, sizeof *b);
    *b = (struct tm_bound){obj, m};
    return (struct tm_val){.kind = V_METHOD, .bound = b};
}

struct tm_val tm_getattr(struct tm_run *r, struct tm_val obj, struct tm_str *name) {
    struct str s = {name->p, name->n};
    struct tm_val v = attr(r, obj, s);
    if (v.kind == V_MISSING && obj.kind == V_DICT)
        v = tm_dict_get(r, obj.d, tm_of_str(name), NULL);
    return v.kind == V_MISSING ? tm_undef(r, NULL, s, tm_type_name(obj)) : v;
}

/* obj[i] of a sequence; V_MISSING: out of range. */
static struct tm_val seq_at(struct tm_run *r, struct tm_val obj, int64_t i) {
    int64_t len = tm_length(r, obj);
    if (i < 0)
        i += len;
    if (i < 0 || i >= len)
        return TM_MISSING;
    switch ((enum tm_kind)obj.kind) {
    case V_STR: {
        size_t at = tm_str_at(r, obj.s, i), end = at + 1;
        while (end < obj.s->n && ((unsigned char)obj.s->p[end] & 0xc0) == 0x80)
            end++;
        return tm_str_sub(r, obj.s, at, end);
    }
    case V_RANGE:
        return tm_int(obj.range->start + i * obj.range->step);
    default:
        return tm_items(r, obj)->v[i];
    }
}

static struct tm_val no_item(struct tm_run *r, struct tm_val obj, struct tm_val key) {
    if (key.kind == V_STR)
        return tm_undef(r, NULL, (struct str){key.s->p, key.s->n}, tm_type_name(obj));
    char *hint = tm_alloc(r, 80);
    if (key.kind == V_INT)
        snprintf(hint, 80, "%s object has no element %" PRId64, tm_type_name(obj), key.i);
    else
        snprintf(hint, 80, "%s object has no element of type %s", tm_type_name(obj), tm_type_name(key));
    return tm_undef(r, hint, (struct str){0}, NULL);
}

struct tm_val tm_getitem(struct tm_run *r, struct tm_val obj, struct tm_val key) {
    struct tm_val v = TM_MISSING;
    int64_t i;
    switch ((enum tm_kind)obj.kind) {
    case V_UNDEF:
        tm_fail_undef(r, obj);
    case V_DICT:
        v = tm_dict_get(r, obj.d, key, NULL);
        break;
    case V_STR:
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
        if (tm_as_int(key, &i))
            v = seq_at(r, obj, i);
        break;
    default:
        break;
    }
    if (v.kind == V_MISSING && key.kind == V_STR)
        v = attr(r, obj, (struct str){key.s->p, key.s->n});
    return v.kind == V_MISSING ? no_item(r, obj, key) : v;
}

struct tm_val tm_attr_path(struct tm_run *r, struct tm_val obj, struct tm_val path, struct tm_val dflt) {
    if (path.kind == V_NONE || path.kind == V_MISSING)
        return obj;
    bool has_default = dflt.kind != V_MISSING && dflt.kind != V_NONE;
    if (path.kind != V_STR) {
        obj = tm_getitem(r, obj, path);
        return has_default && obj.kind == V_UNDEF ? dflt : obj;
    }
    const struct tm_str *s = path.s;
    for (size_t at = 0; at <= s->n;) {
        const char *dot = memchr(s->p + at, '.', s->n - at);
        size_t end = dot ? (size_t)(dot - s->p) : s->n;
        int64_t index = 0;
        bool digits = end > at;
        for (size_t i = at; i < end && digits; i++) {
            digits = s->p[i] >= '0' && s->p[i] <= '9' && index < INT64_MAX / 10 - 10;
            index = digits ? index * 10 + (s->p[i] - '0') : 0;
        }
        obj = tm_getitem(r, obj, digits ? tm_int(index) : tm_str_sub(r, s, at, end));
        if (has_default && obj.kind == V_UNDEF)
            obj = dflt;
        at = end + 1;
    }
    return obj;
}
