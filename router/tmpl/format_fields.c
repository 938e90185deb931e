/* format_fields.c: "...".format(...). */
#include <inttypes.h>
#include <stdlib.h>

#include "router/tmpl/format.h"

struct fields {
    struct tm_run *r;
    const struct tm_str *fmt;
    const struct tm_args *args;
    int64_t next; /* automatic numbering; -1: the fields have numbers of their own */
    bool numbered;
};

static bool is_align(char c) {
    return c == '<' || c == '>' || c == '=' || c == '^';
}

static struct tm_spec parse_spec(struct tm_run *r, struct tm_str *text) {
    struct tm_spec s = {.precision = -1};
    const char *p = text->p, *end = p + text->n;
    size_t first = text->n ? tm_str_at(r, text, MIN(tm_str_len(r, text), (int64_t)1)) : 0;
    if (first < text->n && is_align(p[first])) {
        s.fill = tm_str_sub(r, text, 0, first).s;
        s.align = p[first];
        p += first + 1;
    } else if (p < end && is_align(*p)) {
        s.align = *p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) {
        s.sign = *p++;
    }
    if (p < end && *p == '#') {
        s.alt = true;
        p++;
    }
    if (p < end && *p == '0') {
        s.zero = true;
        p++;
    }
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        s.width = s.width > TM_WIDTH_MAX ? s.width : s.width * 10 + (*p - '0');
    if (p < end && (*p == ',' || *p == '_'))
        s.group = *p++;
    if (p < end && *p == '.') {
        s.precision = 0;
        const char *begin = ++p;
        for (; p < end && *p >= '0' && *p <= '9'; p++)
            s.precision = s.precision > (1 << 24) ? s.precision : s.precision * 10 + (*p - '0');
        if (p == begin)
            tm_fail(r, "Format specifier missing precision");
    }
    if (p < end)
        s.type = *p++;
    if (p != end || (s.type && !strchr("bcdeEfFgGnosxX%", s.type)))
        tm_fail(r, "Invalid format specifier");
    if (s.width > TM_WIDTH_MAX)
        tm_fail(r, "a format's width is too large");
    if (s.group && s.type && strchr(s.group == ',' ? "bcnosxX" : "cns", s.type))
        tm_fail(r, "Cannot specify '%c' with '%c'.", s.group, s.type);
    if (s.group && s.zero)
        tm_fail(r, "zero padding of grouped digits is not supported");
    return s;
}

static void put_formatted(struct tm_run *r, struct tm_val v, struct tm_str *text) {
    int64_t i;
    if (text->n == 0) {
        tm_put_val(r, v);
        return;
    }
    struct tm_spec s = parse_spec(r, text);
    if (v.kind == V_STR) {
        if ((s.type && s.type != 's') || s.sign || s.alt || s.align == '=' || s.group)
            tm_fail(r, "format specifier is not one for a string");
        static const struct tm_str zero = {.p = "0", .n = 1, .n_cp = 1};
        if (s.zero && !s.fill)
            s.fill = &zero;
        tm_put_padded(r, &s, v.s, s.align ? s.align : '<');
        return;
    }
    if (!tm_is_num(v))
        tm_fail(r, "unsupported format string passed to %s.__format__", tm_type_name(v));
    bool as_int = tm_as_int(v, &i) && (!s.type || strchr("bcdnoxX", s.type));
    if (s.precision > TM_PRECISION_MAX || (as_int && s.precision >= 0))
        tm_fail(r, "Precision not allowed or too large in format specifier");
    if (as_int && s.type == 'c' && (s.sign || s.alt))
        tm_fail(r, "a sign or '#' is not allowed with format specifier 'c'");
    if (as_int && s.type == 'c')
        tm_put_char(r, &s, v);
    else if (as_int)
        tm_put_int(r, &s, i, false);
    else if (s.type && strchr("bcdosxX", s.type))
        tm_fail(r, "Unknown format code '%c' for object of type '%s'", s.type, tm_type_name(v));
    else
        tm_put_float(r, &s, tm_as_double(v));
}

static bool all_digits(struct str s, int64_t *out) {
    *out = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || i > 9)
            return false;
        *out = *out * 10 + (s.p[i] - '0');
    }
    return s.n > 0;
}

static struct tm_val first_value(struct fields *f, struct str name) {
    struct tm_run *r = f->r;
    int64_t i;
    bool number = all_digits(name, &i);
    if (name.n == 0 || number) {
        if (name.n == 0 ? f->numbered : f->next > 0)
            tm_fail(r, "cannot mix manual field specification and automatic field numbering");
        if (name.n == 0)
            i = f->next++;
        else
            f->numbered = true;
        if ((size_t)i >= f->args->n)
            tm_fail(r, "Replacement index %" PRId64 " out of range", i);
        return f->args->v[i];
    }
    for (size_t k = 0; k < f->args->n_kw; k++)
        if (str_eq(f->args->kw[k].name, name))
            return f->args->kw[k].v;
    tm_fail(r, "format: no argument '%.*s'", (int)MIN(name.n, (size_t)60), name.p);
}

/* name.attr[key]... */
static struct tm_val field_value(struct fields *f, struct str name) {
    struct tm_run *r = f->r;
    size_t at = 0;
    while (at < name.n && name.p[at] != '.' && name.p[at] != '[')
        at++;
    struct tm_val v = first_value(f, (struct str){name.p, at});
    while (at < name.n) {
        bool is_attr = name.p[at] == '.';
        if (!is_attr && name.p[at] != '[')
            tm_fail(r, "Only '.' or '[' may follow ']' in format field specifier");
        size_t begin = ++at;
        while (at < name.n && (is_attr ? name.p[at] != '.' && name.p[at] != '[' : name.p[at] != ']'))
            at++;
        struct str part = {name.p + begin, at - begin};
        if (part.n == 0 || (!is_attr && at == name.n))
            tm_fail(r, "Empty attribute in format string");
        int64_t i;
        struct tm_val key = tm_str(r, part.p, part.n, FROM_TEMPLATE);
        if (is_attr)
            v = tm_getattr(r, v, key.s);
        else
            v = tm_getitem(r, v, all_digits(part, &i) ? tm_int(i) : key);
        at += !is_attr;
    }
    return v;
}

static void put_fields(struct fields *f, size_t begin, size_t end, int depth);

/* The field between braces at [begin, end). */
static void put_field(struct fields *f, size_t begin, size_t end, int depth) {
    struct tm_run *r = f->r;
    const char *p = f->fmt->p;
    size_t name_end = begin, brackets = 0;
    while (name_end < end && (brackets || (p[name_end] != '!' && p[name_end] != ':'))) {
        brackets = p[name_end] == '[' ? 1 : p[name_end] == ']' ? 0 : brackets;
        name_end++;
    }
    size_t at = name_end;
    char conv = 0;
    if (at < end && p[at] == '!') {
        if (at + 1 >= end || (at + 2 < end && p[at + 2] != ':'))
            tm_fail(r, "expected ':' after conversion specifier");
        conv = p[at + 1];
        at += 2;
    }
    struct tm_val v = field_value(f, (struct str){p + begin, name_end - begin});
    struct tm_cap outer = tm_cap_begin(r);
    if (at < end)
        put_fields(f, at + 1, end, depth + 1);
    struct tm_val spec = tm_cap_end(r, outer);
    if (conv == 's') {
        v = tm_to_str(r, v);
    } else if (conv == 'r' || conv == 'a') {
        outer = tm_cap_begin(r);
        tm_put_repr(r, v);
        v = tm_cap_end(r, outer);
    } else if (conv) {
        tm_fail(r, "Unknown conversion specifier '%c'", conv);
    }
    if (!f->fmt->markup) {
        put_formatted(r, v, spec.s);
        return;
    }
    outer = tm_cap_begin(r);
    put_formatted(r, v, spec.s);
    struct tm_val text = tm_cap_end(r, outer);
    tm_put_val(r, v.kind == V_STR && v.s->markup ? text : tm_escape(r, text));
}

static void put_fields(struct fields *f, size_t begin, size_t end, int depth) {
    struct tm_run *r = f->r;
    const char *p = f->fmt->p;
    if (depth > 2)
        tm_fail(r, "Max string recursion exceeded");
    for (size_t at = begin; at < end;) {
        size_t plain = at;
        while (at < end && p[at] != '{' && p[at] != '}')
            at++;
        tm_put_sub(r, f->fmt, plain, at);
        if (at == end)
            break;
        if (at + 1 < end && p[at + 1] == p[at]) {
            tm_put_sub(r, f->fmt, at, at + 1);
            at += 2;
            continue;
        }
        if (p[at] == '}')
            tm_fail(r, "Single '}' encountered in format string");
        size_t open = ++at, nest = 1;
        for (; at < end && nest; at++)
            nest += p[at] == '{' ? 1 : p[at] == '}' ? (size_t)-1 : 0;
        if (nest)
            tm_fail(r, "expected '}' before end of string");
        tm_step(r, 1);
        put_field(f, open, at - 1, depth);
    }
}

struct tm_val tm_str_format(struct tm_run *r, struct tm_str *fmt, const struct tm_args *args) {
    struct fields f = {.r = r, .fmt = fmt, .args = args};
    struct tm_cap outer = tm_cap_begin(r);
    tm_step_bytes(r, fmt->n * 2);
    put_fields(&f, 0, fmt->n, 1);
    return tm_str_as(r, tm_cap_end(r, outer), fmt->markup);
}
