/* format.c: "..." % args and "...".format(...). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/utf8.h"
#include "router/tmpl/val.h"

enum { WIDTH_MAX = 1 << 24, PRECISION_MAX = 100, DIGITS_MAX = 512 };

struct spec {
    const struct tm_str *fill; /* NULL: a space */
    char align;                /* '<' '>' '^' '=', or 0 */
    char sign;                 /* '+' ' ' '-', or 0 */
    bool alt, zero;
    char group; /* ',' '_', or 0 */
    int64_t width;
    int precision; /* -1: none */
    char type;     /* 0: none */
};

/* A sign, a prefix and digits, padded. With '=' the padding stands between sign and digits. */
static void put_number(struct tm_run *r, const struct spec *s, bool negative, const char *prefix,
                       const char *digits) {
    static const struct tm_str zero = {.p = "0", .n = 1, .n_cp = 1}, space = {.p = " ", .n = 1, .n_cp = 1};
    char head[8];
    snprintf(head, sizeof head, "%s%s",
             negative         ? "-"
             : s->sign == '+' ? "+"
             : s->sign == ' ' ? " "
                              : "",
             prefix);
    int64_t pad = s->width - (int64_t)(strlen(head) + strlen(digits));
    pad = MAX(pad, (int64_t)0);
    char align = s->align ? s->align : s->zero ? '=' : '>';
    const struct tm_str *fill = s->fill ? s->fill : s->zero ? &zero : &space;
    int64_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    int64_t right = align == '<' ? pad : align == '^' ? pad - left : 0;
    tm_put_fill(r, fill, left);
    tm_putz(r, head);
    if (align == '=')
        tm_put_fill(r, fill, pad);
    tm_putz(r, digits);
    tm_put_fill(r, fill, right);
}

/* Digits of the integer part in threes, or fours for bases that are powers of two. */
static void group_digits(char *out, size_t cap, const char *digits, char sep, size_t by) {
    size_t n = strspn(digits, by == 4 ? "0123456789abcdefABCDEF" : "0123456789"), len = 0;
    for (size_t i = 0; digits[i] && len + 2 < cap; i++) {
        if (i && i < n && (n - i) % by == 0)
            out[len++] = sep;
        out[len++] = digits[i];
    }
    out[len] = 0;
}

static void put_int(struct tm_run *r, const struct spec *s, int64_t v, bool percent_style) {
    char digits[DIGITS_MAX], grouped[DIGITS_MAX];
    const char *prefix = "";
    uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
    if (s->type == 'x' || s->type == 'X') {
        snprintf(digits, sizeof digits, s->type == 'x' ? "%" PRIx64 : "%" PRIX64, u);
        prefix = s->alt ? s->type == 'x' ? "0x" : "0X" : "";
    } else if (s->type == 'o') {
        snprintf(digits, sizeof digits, "%" PRIo64, u);
        prefix = s->alt ? "0o" : "";
    } else if (s->type == 'b') {
        int bits = u ? 64 - __builtin_clzll(u) : 1;
        for (int i = 0; i < bits; i++)
            digits[i] = (char)('0' + (u >> (bits - 1 - i) & 1));
        digits[bits] = 0;
        prefix = s->alt ? "0b" : "";
    } else {
        snprintf(digits, sizeof digits, "%" PRIu64, u);
    }
    int len = (int)strlen(digits);
    if (percent_style && s->precision > len) {
        memmove(digits + s->precision - len, digits, (size_t)len + 1);
        memset(digits, '0', (size_t)(s->precision - len));
    }
    if (s->group) {
        group_digits(grouped, sizeof grouped, digits, s->group, s->type && strchr("xXob", s->type) ? 4 : 3);
        put_number(r, s, v < 0, prefix, grouped);
        return;
    }
    put_number(r, s, v < 0, prefix, digits);
}

/* d.ddde+dd without trailing zeros of the fraction, unless keep. */
static void exp_digits(char *out, size_t cap, double f, int precision, bool keep) {
    char text[DIGITS_MAX];
    snprintf(text, sizeof text, keep ? "%#.*e" : "%.*e", precision, f);
    char *e = strchr(text, 'e'), *end = e;
    while (!keep && strchr(text, '.') && (end[-1] == '0' || end[-1] == '.'))
        if (*--end == '.')
            break;
    snprintf(out, cap, "%.*s%s", (int)(end - text), text, e);
}

static void put_float(struct tm_run *r, const struct spec *s, double f) {
    char digits[DIGITS_MAX], grouped[DIGITS_MAX], format[16];
    char type = s->type;
    int precision = s->precision;
    double a = fabs(f);
    bool force_exp = false;
    if (type == '%') {
        a *= 100;
        type = 'f';
    }
    if (!isfinite(a)) {
        bool upper = type == 'E' || type == 'F' || type == 'G';
        snprintf(digits, sizeof digits, "%s", isnan(a) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
    } else if (!type && precision < 0) {
        char text[TM_FLOAT_MAX];
        tm_float_repr(text, a);
        snprintf(digits, sizeof digits, "%s", text);
    } else {
        if (!type) { /* like g, but 1e+01 for 10 with two digits, so that fixed numbers keep a fraction */
            snprintf(digits, sizeof digits, "%.*e", MAX(precision - 1, 0), a);
            int exp = atoi(strchr(digits, 'e') + 1);
            force_exp = exp == MAX(precision, 1) - 1;
        }
        snprintf(format, sizeof format, s->alt ? "%%#.*%c" : "%%.*%c", !type || type == 'n' ? 'g' : type);
        int n = snprintf(digits, sizeof digits, format, precision < 0 ? 6 : precision, a);
        if (n < 0 || (size_t)n >= sizeof digits)
            tm_fail(r, "a formatted number is too long");
        if (force_exp)
            exp_digits(digits, sizeof digits, a, MAX(precision - 1, 0), s->alt);
        else if (!type && !strpbrk(digits, ".e"))
            snprintf(digits + n, sizeof digits - (size_t)n, ".0");
    }
    if (s->type == '%')
        strcat(digits, "%");
    bool negative = signbit(f) && !isnan(f);
    if (s->group) {
        group_digits(grouped, sizeof grouped, digits, s->group, 3);
        put_number(r, s, negative, "", grouped);
        return;
    }
    put_number(r, s, negative, "", digits);
}

static void put_padded(struct tm_run *r, const struct spec *s, struct tm_str *text, char align) {
    struct tm_val v = tm_of_str(text);
    if (s->precision >= 0 && tm_str_len(r, text) > s->precision)
        v = tm_str_sub(r, text, 0, tm_str_at(r, text, s->precision));
    static const struct tm_str space = {.p = " ", .n = 1, .n_cp = 1};
    const struct tm_str *fill = s->fill ? s->fill : &space;
    int64_t pad = MAX(s->width - tm_str_len(r, v.s), (int64_t)0);
    int64_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0;
    tm_put_fill(r, fill, left);
    tm_put_str(r, v.s);
    tm_put_fill(r, fill, pad - left);
}

/* ---- percent ---- */

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

static void put_char(struct tm_run *r, const struct spec *s, struct tm_val v) {
    char out[4];
    int64_t cp;
    if (v.kind == V_STR && tm_str_len(r, v.s) == 1) {
        put_padded(r, s, v.s, s->align == '<' ? '<' : '>');
        return;
    }
    if (!tm_as_int(v, &cp))
        tm_fail(r, "%%c requires an integer or a single character");
    if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        tm_fail(r, "%%c argument is not a character");
    struct tm_str text = {.p = out, .n = utf8_encode((uint32_t)cp, out), .n_cp = 1};
    put_padded(r, s, &text, s->align == '<' ? '<' : '>');
}

static void put_percent(struct percent *k, struct spec *s, struct tm_val v) {
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
        put_padded(r, s, text.s, s->align == '<' ? '<' : '>');
        return;
    }
    case 'c':
        s->precision = -1;
        put_char(r, s, v);
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
        put_int(r, s, i, true);
        return;
    default:
        if (!tm_is_num(v))
            tm_fail(r, "%%%c format: a real number is required, not %s", s->type, tm_type_name(v));
        put_float(r, s, tm_as_double(v));
    }
}

static void put_conversion(struct percent *k) {
    struct tm_run *r = k->r;
    struct spec s = {.precision = -1};
    struct tm_val v = TM_MISSING;
    if (k->p < k->end && *k->p == '(')
        v = key_arg(k);
    for (; k->p < k->end && *k->p && strchr("-+ #0", *k->p); k->p++) {
        s.align = *k->p == '-' ? '<' : s.align;
        s.sign = *k->p == '+' || (*k->p == ' ' && s.sign != '+') ? *k->p : s.sign;
        s.alt = s.alt || *k->p == '#';
        s.zero = s.zero || *k->p == '0';
    }
    s.width = number(k, WIDTH_MAX);
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
    if (s.width > WIDTH_MAX || (s.precision > PRECISION_MAX && !strchr("sra", s.type)))
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

/* ---- str.format ---- */

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

static struct spec parse_spec(struct tm_run *r, struct tm_str *text) {
    struct spec s = {.precision = -1};
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
        s.width = s.width > WIDTH_MAX ? s.width : s.width * 10 + (*p - '0');
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
    if (s.width > WIDTH_MAX)
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
    struct spec s = parse_spec(r, text);
    if (v.kind == V_STR) {
        if ((s.type && s.type != 's') || s.sign || s.alt || s.align == '=' || s.group)
            tm_fail(r, "format specifier is not one for a string");
        static const struct tm_str zero = {.p = "0", .n = 1, .n_cp = 1};
        if (s.zero && !s.fill)
            s.fill = &zero;
        put_padded(r, &s, v.s, s.align ? s.align : '<');
        return;
    }
    if (!tm_is_num(v))
        tm_fail(r, "unsupported format string passed to %s.__format__", tm_type_name(v));
    bool as_int = tm_as_int(v, &i) && (!s.type || strchr("bcdnoxX", s.type));
    if (s.precision > PRECISION_MAX || (as_int && s.precision >= 0))
        tm_fail(r, "Precision not allowed or too large in format specifier");
    if (as_int && s.type == 'c' && (s.sign || s.alt))
        tm_fail(r, "a sign or '#' is not allowed with format specifier 'c'");
    if (as_int && s.type == 'c')
        put_char(r, &s, v);
    else if (as_int)
        put_int(r, &s, i, false);
    else if (s.type && strchr("bcdosxX", s.type))
        tm_fail(r, "Unknown format code '%c' for object of type '%s'", s.type, tm_type_name(v));
    else
        put_float(r, &s, tm_as_double(v));
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
