/* repr.c: the text of values: str(), repr(), JSON and HTML escapes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "router/tmpl/ast.h"
#include "router/tmpl/ucd.h"

/* The shortest digits that read back as f, laid out as Python does. */
size_t tm_float_repr(char out[TM_FLOAT_MAX], double f) {
    if (!isfinite(f))
        return (size_t)snprintf(out, TM_FLOAT_MAX, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    char e[40];
    int precision = 0;
    do
        snprintf(e, sizeof e, "%.*e", precision, f);
    while (strtod(e, NULL) != f && ++precision < 17);
    char *exp_at = strchr(e, 'e');
    int exp = atoi(exp_at + 1);
    if (exp >= -4 && exp < 16) {
        int n = snprintf(out, TM_FLOAT_MAX, "%.*f", MAX(precision - exp, 0), f);
        if (!strchr(out, '.'))
            n += snprintf(out + n, TM_FLOAT_MAX - (size_t)n, ".0");
        return (size_t)n;
    }
    *exp_at = 0;
    return (size_t)snprintf(out, TM_FLOAT_MAX, "%se%c%02d", e, exp < 0 ? '-' : '+', abs(exp));
}

/* ---- repr of strings ---- */

static void put_repr_run(struct tm_run *r, struct str s, bool client, char quote) {
    const char *p = s.p, *end = s.p + s.n, *plain = p;
    while (p < end) {
        unsigned len;
        uint32_t cp = tm_utf8_get(p, end, &len);
        char esc[16];
        const char *with = NULL;
        if (cp == (unsigned char)quote || cp == '\\')
            snprintf(esc, sizeof esc, "\\%c", (char)cp), with = esc;
        else if (cp == '\n')
            with = "\\n";
        else if (cp == '\r')
            with = "\\r";
        else if (cp == '\t')
            with = "\\t";
        else if (!(tm_ucd(cp)->flags & UCD_PRINTABLE))
            snprintf(esc, sizeof esc,
                     cp < 0x100     ? "\\x%02x"
                     : cp < 0x10000 ? "\\u%04x"
                                    : "\\U%08x",
                     cp),
                with = esc;
        if (with) {
            tm_put_from(r, plain, (size_t)(p - plain), client);
            tm_put_from(r, with, strlen(with), client);
            plain = p + len;
        }
        p += len;
    }
    tm_put_from(r, plain, (size_t)(p - plain), client);
}

static void put_repr_str(struct tm_run *r, const struct tm_str *s) {
    bool single = s->n && memchr(s->p, '\'', s->n), dbl = s->n && memchr(s->p, '"', s->n);
    char quote = single && !dbl ? '"' : '\'';
    tm_step_bytes(r, s->n * 4);
    if (s->markup)
        tm_putz(r, "Markup(");
    tm_putc(r, quote);
    for (size_t at = 0; at < s->n;) {
        bool client;
        struct str run = tm_run_next(s, &at, &client);
        put_repr_run(r, run, client, quote);
    }
    tm_putc(r, quote);
    if (s->markup)
        tm_putc(r, ')');
}

/* ---- containers ---- */

static void put_list(struct tm_run *r, struct tm_val v) {
    const struct tm_list *l = tm_items(r, v);
    tm_enter(r);
    tm_putc(r, v.kind == V_LIST ? '[' : '(');
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            tm_putz(r, ", ");
        tm_put_repr(r, l->v[i]);
    }
    if (v.kind == V_TUPLE && l->n == 1)
        tm_putc(r, ',');
    tm_putc(r, v.kind == V_LIST ? ']' : ')');
    tm_leave(r);
}

static void put_dict(struct tm_run *r, struct tm_dict *dict) {
    const struct tm_dict *d = tm_entries(r, dict);
    tm_enter(r);
    tm_putc(r, '{');
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            tm_putz(r, ", ");
        tm_put_repr(r, d->e[i].key);
        tm_putz(r, ": ");
        tm_put_repr(r, d->e[i].value);
    }
    tm_putc(r, '}');
    tm_leave(r);
}

static void put_range(struct tm_run *r, const struct tm_range *g) {
    if (g->step == 1)
        tm_putf(r, "range(%" PRId64 ", %" PRId64 ")", g->start, g->stop);
    else
        tm_putf(r, "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", g->start, g->stop, g->step);
}

/* Things whose text in Python is an address or an implementation detail get a stable name. */
static void put_opaque(struct tm_run *r, struct tm_val v) {
    switch ((enum tm_kind)v.kind) {
    case V_VIEW:
        tm_putf(r, "%s(", tm_type_name(v));
        tm_put_repr(r, tm_to_list(r, v, V_LIST));
        tm_putc(r, ')');
        break;
    case V_NS:
        tm_putz(r, "<Namespace ");
        put_dict(r, v.ns->d);
        tm_putc(r, '>');
        break;
    case V_LOOP:
        tm_putf(r, "<LoopContext %" PRId64 "/", v.loop->index0 + 1);
        tm_put_val(r, tm_loop_attr(r, v.loop, STR_LIT("length")));
        tm_putc(r, '>');
        break;
    case V_MACRO:
        if (v.macro->func->name.n == 0) {
            tm_putz(r, "<Macro anonymous>");
        } else {
            tm_putz(r, "<Macro '");
            tm_put(r, v.macro->func->name.p, v.macro->func->name.n);
            tm_putz(r, "'>");
        }
        break;
    case V_FUNC:
        tm_putf(r, "<function %s>", v.func->name);
        break;
    case V_METHOD:
        tm_putf(r, "<built-in method %s of %s object>", v.bound->m->name, tm_type_name(v.bound->self));
        break;
    default:
        tm_putf(r, "<%s object>", tm_type_name(v));
    }
}

void tm_put_repr(struct tm_run *r, struct tm_val v) {
    tm_step(r, 1);
    if (v.kind == V_STR)
        put_repr_str(r, v.s);
    else if (v.kind == V_UNDEF)
        tm_putz(r, "Undefined");
    else
        tm_put_val(r, v);
}

void tm_put_val(struct tm_run *r, struct tm_val v) {
    switch ((enum tm_kind)v.kind) {
    case V_STR:
        tm_put_str(r, v.s);
        break;
    case V_UNDEF:
        break;
    case V_NONE:
        tm_putz(r, "None");
        break;
    case V_BOOL:
        tm_putz(r, v.b ? "True" : "False");
        break;
    case V_INT:
        tm_putf(r, "%" PRId64, v.i);
        break;
    case V_FLOAT: {
        char text[TM_FLOAT_MAX];
        tm_put(r, text, tm_float_repr(text, v.f));
        break;
    }
    case V_LIST:
    case V_TUPLE:
        put_list(r, v);
        break;
    case V_DICT:
        put_dict(r, v.d);
        break;
    case V_RANGE:
        put_range(r, v.range);
        break;
    default:
        put_opaque(r, v);
    }
}

struct tm_val tm_to_str(struct tm_run *r, struct tm_val v) {
    if (v.kind == V_STR)
        return tm_str_as(r, v, false);
    struct tm_cap outer = tm_cap_begin(r);
    tm_put_val(r, v);
    return tm_cap_end(r, outer);
}

struct tm_val tm_soft_str(struct tm_run *r, struct tm_val v) {
    return v.kind == V_STR ? v : tm_to_str(r, v);
}

struct tm_val tm_escape(struct tm_run *r, struct tm_val v) {
    if (v.kind == V_STR && v.s->markup)
        return v;
    struct tm_val s = tm_to_str(r, v);
    struct tm_cap outer = tm_cap_begin(r);
    tm_step_bytes(r, s.s->n * 2);
    for (size_t at = 0; at < s.s->n;) {
        bool client;
        struct str run = tm_run_next(s.s, &at, &client);
        const char *plain = run.p, *end = run.p + run.n;
        for (const char *p = run.p; p < end; p++) {
            const char *with = *p == '&'    ? "&amp;"
                               : *p == '<'  ? "&lt;"
                               : *p == '>'  ? "&gt;"
                               : *p == '"'  ? "&#34;"
                               : *p == '\'' ? "&#39;"
                                            : NULL;
            if (!with)
                continue;
            tm_put_from(r, plain, (size_t)(p - plain), client);
            tm_put_from(r, with, strlen(with), client);
            plain = p + 1;
        }
        tm_put_from(r, plain, (size_t)(end - plain), client);
    }
    return tm_str_as(r, tm_cap_end(r, outer), true);
}
