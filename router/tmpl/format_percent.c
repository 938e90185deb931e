/* format_percent.c: "..." % args. */
#include <math.h>

#include "router/tmpl/format.h"

struct percent {
    struct tm_run *r;
    const char *p, *end;
    struct tm_val args;
    bool tuple, mapping, markup, used;
    size_t at;
};

static struct tm_val next_arg(struct percent *k) {
    const struct tm_list *l = k->tuple ? tm_items(k->r, k->args) : NULL;
    if (k->tuple ? k->at >= l->n : k->used)
        tm_fail(k->r, "not enough arguments for format string");
    k->used = true;
    return k->tuple ? l->v[k->at++] : k->args;
}

static struct tm_val key_arg(struct percent *k) {
    const char *begin = ++k->p;
    int depth = 1;
    while (k->p < k->end && depth > 0) {
        depth += *k->p == '(' ? 1 : *k->p == ')' ? -1 : 0;
        k->p++;
    }
    if (depth > 0)
        tm_fail(k->r, "incomplete format key");
    if (k->args.kind != V_DICT)
        tm_fail(k->r, "format requires a mapping");
    struct tm_val v = tm_dict_getz(k->r, k->args.d, (struct str){begin, (size_t)(k->p - 1 - begin)});
    if (v.kind == V_MISSING)
        tm_fail(k->r, "format key is missing in the mapping");
    return v;
}

static int64_t number(struct percent *k, int64_t max) {
    int64_t n = 0;
    if (k->p < k->end && *k->p == '*') {
        k->p++;
        n = tm_need_int(k->r, next_arg(k), "format width");
        return n > max || n < -max ? max + 1 : n;
    }
    for (; k->p < k->end && *k->p >= '0' && *k->p <= '9'; k->p++)
        n = n > max ? n : n * 10 + (*k->p - '0');
    return n;
}

static void put_percent(struct percent *k, struct tm_spec *s, struct tm_val v) {
    struct tm_run *r = k->r;
    int64_t i;
    switch (s->type) {
    case 's':
    case 'r':
    case 'a': {
        struct tm_cap outer = tm_cap_begin(r);
        if (s->type == 's')
            tm_put_val(r, v);
        else
            tm_put_repr(r, v);
        struct tm_val text = tm_cap_end(r, outer);
        if (k->markup && !(s->type == 's' && v.kind == V_STR && v.s->markup))
            text = tm_escape(r, text);
        tm_put_padded(r, s, text.s, s->align == '<' ? '<' : '>');
        return;
    }
    case 'c':
        s->precision = -1;
        tm_put_char(r, s, v);
        return;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        if (v.kind == V_FLOAT && strchr("diu", s->type)) {
            if (!(fabs(v.f) < 9.2e18))
                tm_fail(r, "integer overflow: integers of templates have 64 bits");
            v = tm_int((int64_t)v.f);
        }
        if (!tm_as_int(v, &i))
            tm_fail(r, "%%%c format: a number is required, not %s", s->type, tm_type_name(v));
        tm_put_int(r, s, i, true);
        return;
    default:
        if (!tm_is_num(v))
            tm_fail(r, "%%%c format: a real number is required, not %s", s->type, tm_type_name(v));
        tm_put_float(r, s, tm_as_double(v));
    }
}

static void put_conversion(struct percent *k) {
    struct tm_run *r = k->r;
    struct tm_spec s = {.precision = -1};
    struct tm_val v = TM_MISSING;
    if (k->p < k->end && *k->p == '(')
        v = key_arg(k);
    for (; k->p < k->end && *k->p && strchr("-+ #0", *k->p); k->p++) {
        s.align = *k->p == '-' ? '<' : s.align;
        s.sign = *k->p == '+' || (*k->p == ' ' && s.sign != '+') ? *k->p : s.sign;
        s.alt = s.alt || *k->p == '#';
        s.zero = s.zero || *k->p == '0';
    }
    s.width = number(k, TM_WIDTH_MAX);
    if (s.width < 0) {
        s.align = '<';
        s.width = -s.width;
    }
    if (k->p < k->end && *k->p == '.') {
        k->p++;
        int64_t precision = number(k, INT32_MAX - 1);
        s.precision = (int)MAX(MIN(precision, (int64_t)INT32_MAX - 1), (int64_t)0);
    }
    while (k->p < k->end && *k->p && strchr("hlL", *k->p))
        k->p++;
    if (k->p == k->end)
        tm_fail(r, "incomplete format");
    s.type = *k->p++;
    if (s.type == '%') {
        tm_putc(r, '%');
        return;
    }
    if (!s.type || !strchr("sracdiuxXoeEfFgG", s.type))
        tm_fail(r, "unsupported format character");
    if (s.width > TM_WIDTH_MAX || (s.precision > TM_PRECISION_MAX && !strchr("sra", s.type)))
        tm_fail(r, "a format's width or precision is too large");
    if (s.align == '<')
        s.zero = false;
    put_percent(k, &s, v.kind == V_MISSING ? next_arg(k) : v);
}

struct tm_val tm_str_percent(struct tm_run *r, struct tm_str *fmt, struct tm_val args) {
    struct percent k = {.r = r, .p = fmt->p, .end = fmt->p + fmt->n, .args = args, .markup = fmt->markup};
    k.tuple = args.kind == V_TUPLE;
    k.mapping = args.kind == V_DICT || args.kind == V_LIST;
    struct tm_cap outer = tm_cap_begin(r);
    tm_step_bytes(r, fmt->n * 2);
    while (k.p < k.end) {
        const char *pct = memchr(k.p, '%', (size_t)(k.end - k.p));
        const char *stop = pct ? pct : k.end;
        tm_put_sub(r, fmt, (size_t)(k.p - fmt->p), (size_t)(stop - fmt->p));
        k.p = stop;
        if (!pct)
            break;
        k.p++;
        tm_step(r, 1);
        put_conversion(&k);
    }
    if (k.tuple ? k.at < args.l->n : !k.used && !k.mapping)
        tm_fail(r, "not all arguments converted during string formatting");
    return tm_str_as(r, tm_cap_end(r, outer), fmt->markup);
}
