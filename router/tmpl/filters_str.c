/* filters_str.c: filters about text and numbers. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "router/tmpl/ast.h"
#include "router/tmpl/ucd.h"

#define FILTER(name)                                                                                         \
    static struct tm_val name(struct tm_run *r, struct tm_val self, UNUSED const struct tm_val *p,           \
                              UNUSED const struct tm_args *args)

static bool given(struct tm_val v) {
    return v.kind != V_MISSING && v.kind != V_NONE;
}

FILTER(f_upper) {
    return tm_str_case(r, tm_soft_str(r, self).s, CASE_UPPER);
}
FILTER(f_lower) {
    return tm_str_case(r, tm_soft_str(r, self).s, CASE_LOWER);
}
FILTER(f_capitalize) {
    return tm_str_case(r, tm_soft_str(r, self).s, CASE_CAPITALIZE);
}
FILTER(f_title) {
    return tm_str_as(r, tm_str_case(r, tm_soft_str(r, self).s, CASE_TITLE_FILTER), false);
}
FILTER(f_trim) {
    return tm_str_strip(r, tm_soft_str(r, self).s, p[0], true, true);
}
FILTER(f_string) {
    return tm_soft_str(r, self);
}
FILTER(f_safe) {
    return tm_str_as(r, tm_to_str(r, self), true);
}
FILTER(f_escape) {
    return tm_escape(r, self);
}
FILTER(f_forceescape) {
    return tm_escape(r, tm_to_str(r, self));
}

FILTER(f_center) {
    int64_t width = p[0].kind == V_MISSING ? 80 : tm_need_int(r, p[0], "width");
    return tm_str_pad(r, tm_soft_str(r, self).s, width, NULL, '^');
}

FILTER(f_replace) {
    int64_t count = given(p[2]) ? tm_need_int(r, p[2], "replace count") : -1;
    return tm_str_replace(r, tm_to_str(r, self).s, tm_to_str(r, p[0]).s, tm_to_str(r, p[1]).s, count);
}

FILTER(f_join) {
    struct tm_val sep = p[0].kind == V_MISSING ? tm_strz(r, "") : tm_to_str(r, p[0]);
    return tm_join(r, sep.s, self, given(p[1]) ? p[1] : TM_MISSING, true);
}

FILTER(f_format) {
    if (args->n && args->n_kw)
        tm_fail(r, "can't handle positional and keyword arguments at the same time");
    struct tm_str *fmt = tm_soft_str(r, self).s;
    if (args->n_kw) {
        struct tm_dict *d = tm_dict_new(r, args->n_kw);
        for (size_t i = 0; i < args->n_kw; i++)
            tm_dict_set(r, d, tm_str(r, args->kw[i].name.p, args->kw[i].name.n, FROM_TEMPLATE),
                        args->kw[i].v);
        return tm_str_percent(r, fmt, (struct tm_val){.kind = V_DICT, .d = d});
    }
    struct tm_list list = {.v = args->v, .n = args->n};
    return tm_str_percent(r, fmt, (struct tm_val){.kind = V_TUPLE, .l = &list});
}

/* p: width, first, blank */
FILTER(f_indent) {
    struct tm_str *s = tm_need_str(r, self, "indent's value");
    bool first = p[1].kind != V_MISSING && tm_truth(r, p[1]),
         blank = p[2].kind != V_MISSING && tm_truth(r, p[2]);
    struct tm_cap outer = tm_cap_begin(r);
    if (p[0].kind == V_STR) {
        tm_put_str(r, p[0].s);
    } else {
        static const struct tm_str space = {.p = " ", .n = 1, .n_cp = 1};
        tm_put_fill(r, &space, p[0].kind == V_MISSING ? 4 : tm_need_int(r, p[0], "width"));
    }
    struct tm_str *by = tm_cap_end(r, outer).s;
    struct tm_str newline = {.p = "\n", .n = 1, .n_cp = 1};
    struct tm_val lines = tm_str_lines(r, tm_str_append(r, s, &newline).s, false);
    outer = tm_cap_begin(r);
    for (size_t i = 0; i < lines.l->n; i++) {
        struct tm_str *line = lines.l->v[i].s;
        if (i)
            tm_putc(r, '\n');
        if (i ? line->n || blank : first)
            tm_put_str(r, by);
        tm_put_str(r, line);
    }
    return tm_str_as(r, tm_cap_end(r, outer), s->markup);
}

/* p: length, killwords, end, leeway */
FILTER(f_truncate) {
    int64_t length = p[0].kind == V_MISSING ? 255 : tm_need_int(r, p[0], "length");
    struct tm_str *end = p[2].kind == V_MISSING ? tm_strz(r, "...").s : tm_need_str(r, p[2], "end");
    int64_t leeway = given(p[3]) ? tm_need_int(r, p[3], "leeway") : 5, n_end = tm_str_len(r, end);
    if (length < n_end || leeway < 0)
        tm_fail(r, "truncate: expected length >= %" PRId64 " and leeway >= 0", n_end);
    int64_t n = tm_length(r, self);
    if (n >= 0 && (n <= length || n - length <= leeway))
        return self; /* a short list too */
    struct tm_str *s = tm_need_str(r, self, "truncate's value");
    struct tm_val cut = tm_str_sub(r, s, 0, tm_str_at(r, s, length - n_end));
    if (p[1].kind == V_MISSING || !tm_truth(r, p[1])) {
        const char *space = memrchr(cut.s->p, ' ', cut.s->n);
        if (space)
            cut = tm_str_sub(r, cut.s, 0, (size_t)(space - cut.s->p));
    }
    return tm_arith(r, TOK_ADD, cut, tm_of_str(end));
}

FILTER(f_wordcount) {
    const struct tm_str *s = tm_soft_str(r, self).s;
    const char *end = s->p + s->n;
    unsigned len;
    int64_t n = 0;
    bool in_word = false;
    tm_step_bytes(r, s->n * 4);
    for (const char *q = s->p; q < end; q += len) {
        uint32_t cp = tm_utf8_get(q, end, &len);
        bool word = cp == '_' || tm_ucd(cp)->flags & (UCD_ALPHA | UCD_DECIMAL | UCD_DIGIT | UCD_NUMERIC);
        n += word && !in_word;
        in_word = word;
    }
    return tm_int(n);
}

static void put_quoted(struct tm_run *r, struct tm_val v, bool query) {
    static const char plain[] = "-._~/";
    const struct tm_str *s = tm_to_str(r, v).s;
    tm_step_bytes(r, s->n * 4);
    for (size_t at = 0; at < s->n;) {
        bool client;
        struct str run = tm_run_next(s, &at, &client);
        for (size_t i = 0; i < run.n; i++) {
            char ch = run.p[i], esc[4];
            bool alnum = (ch >= '0' && ch <= '9') || ((ch | 32) >= 'a' && (ch | 32) <= 'z');
            if (alnum || (ch && strchr(plain, ch) && !(query && ch == '/'))) {
                tm_put_from(r, &ch, 1, client);
            } else if (query && ch == ' ') {
                tm_put_from(r, "+", 1, client);
            } else {
                snprintf(esc, sizeof esc, "%%%02X", (unsigned char)ch);
                tm_put_from(r, esc, 3, client);
            }
        }
    }
}

FILTER(f_urlencode) {
    struct tm_cap outer = tm_cap_begin(r);
    if (self.kind == V_STR || !tm_iterable(self)) {
        put_quoted(r, self, false);
        return tm_cap_end(r, outer);
    }
    struct tm_view all = {self.d, VIEW_ITEMS};
    struct tm_iter *it =
        tm_iter_open(r, self.kind == V_DICT ? (struct tm_val){.kind = V_VIEW, .view = &all} : self);
    struct tm_val pair;
    for (bool first = true; tm_iter_next(r, it, &pair); first = false) {
        pair = tm_to_list(r, pair, V_TUPLE);
        if (pair.l->n != 2)
            tm_fail(r, "urlencode: items must be pairs");
        if (!first)
            tm_putc(r, '&');
        put_quoted(r, pair.l->v[0], true);
        tm_putc(r, '=');
        put_quoted(r, pair.l->v[1], true);
    }
    return tm_cap_end(r, outer);
}

/* ---- numbers ---- */

/* The value of a decimal digit of any script: they come in runs of ten that begin with zero. */
static unsigned digit_value(uint32_t cp) {
    unsigned before = 0;
    while (before < 50 && tm_ucd(cp - before - 1)->flags & UCD_DECIMAL)
        before++;
    return before % 10;
}

static bool is_hex(char ch) {
    return isxdigit((unsigned char)ch);
}

/* The text of a number as Python's int() and float() read it: stripped, digits of other scripts as ASCII,
 * single underscores between digits dropped. False: something else. At most cap bytes. */
static bool number_text(struct tm_run *r, const struct tm_str *s, char *out, size_t cap) {
    const struct tm_str *t = tm_str_strip(r, s, TM_NONE, true, true).s;
    const char *p = t->p, *end = t->p + t->n;
    size_t n = 0;
    if (t->n == 0 || t->n >= cap)
        return false;
    while (p < end) {
        unsigned len;
        uint32_t cp = tm_utf8_get(p, end, &len);
        p += len;
        if (cp >= 0x80 && tm_ucd(cp)->flags & UCD_DECIMAL)
            cp = '0' + digit_value(cp);
        if (cp >= 0x80 || cp == 0)
            return false;
        out[n++] = (char)cp;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool between =
            i > 0 && i + 1 < n && (is_hex(out[i - 1]) || strchr("xXoO", out[i - 1])) && is_hex(out[i + 1]);
        if (out[i] == '_' && !between)
            return false;
        if (out[i] != '_')
            out[kept++] = out[i];
    }
    out[kept] = 0;
    return true;
}

static bool parse_float(struct tm_run *r, const struct tm_str *s, double *out) {
    char text[512], *end;
    if (!number_text(r, s, text, sizeof text))
        return false;
    const char *p = text + (*text == '-' || *text == '+');
    bool word = strcasecmp(p, "inf") == 0 || strcasecmp(p, "infinity") == 0 || strcasecmp(p, "nan") == 0;
    if (!word && (p[strspn(p, "0123456789.eE+-")] || strspn(p, "eE") || p[0] == '-' || p[0] == '+'))
        return false;
    *out = strtod(text, &end);
    return *end == 0 && end != text;
}

/* 0: not a number; 1: it is; fails when it does not fit. */
static bool parse_int(struct tm_run *r, const struct tm_str *s, int base, int64_t *out) {
    char text[512], *end;
    if (!number_text(r, s, text, sizeof text))
        return false;
    bool negative = *text == '-';
    char *p = text + (*text == '-' || *text == '+');
    static const struct {
        char letter;
        int base;
    } prefixes[] = {{'x', 16}, {'o', 8}, {'b', 2}};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        if (p[0] == '0' && (p[1] | 32) == prefixes[i].letter && (base == 0 || base == prefixes[i].base) &&
            isalnum((unsigned char)p[2])) {
            base = prefixes[i].base;
            p += 2;
        }
    }
    if (base == 0) {
        base = 10;
        if (p[0] == '0' && p[strspn(p, "0")] != 0)
            return false;
    }
    if (!isalnum((unsigned char)*p))
        return false;
    errno = 0;
    unsigned long long u = strtoull(p, &end, base);
    if (*end)
        return false;
    if (errno || u > (unsigned long long)INT64_MAX + negative)
        tm_fail(r, "integer overflow: integers of templates have 64 bits");
    *out = negative ? (int64_t)-u : (int64_t)u;
    return true;
}

/* p: default, base */
FILTER(f_int) {
    struct tm_val dflt = p[0].kind == V_MISSING ? tm_int(0) : p[0];
    int64_t i;
    double f;
    if (self.kind == V_UNDEF)
        tm_fail_undef(r, self);
    if (tm_as_int(self, &i))
        return tm_int(i);
    if (self.kind == V_STR) {
        int64_t base = 10; /* with one that is no number, the text is read as a float */
        bool ok_base = p[1].kind == V_MISSING ||
                       (tm_as_int(p[1], &base) && (base == 0 || (base >= 2 && base <= 36)));
        if (ok_base && parse_int(r, self.s, (int)base, &i))
            return tm_int(i);
        if (!parse_float(r, self.s, &f) || !isfinite(f))
            return dflt;
    } else if (self.kind == V_FLOAT) {
        f = self.f;
        if (isinf(f))
            tm_fail(r, "cannot convert float infinity to integer");
        if (isnan(f))
            return dflt;
    } else {
        return dflt;
    }
    if (!(fabs(f) < 9.2e18))
        tm_fail(r, "integer overflow: integers of templates have 64 bits");
    return tm_int((int64_t)f);
}

FILTER(f_float) {
    double f;
    if (self.kind == V_UNDEF)
        tm_fail_undef(r, self);
    if (tm_is_num(self))
        return tm_float(tm_as_double(self));
    if (self.kind == V_STR && parse_float(r, self.s, &f))
        return tm_float(f);
    return p[0].kind == V_MISSING ? tm_float(0) : p[0];
}

FILTER(f_abs) {
    int64_t i;
    if (self.kind == V_FLOAT)
        return tm_float(fabs(self.f));
    if (self.kind == V_UNDEF)
        tm_fail_undef(r, self);
    if (!tm_as_int(self, &i))
        tm_fail(r, "bad operand type for abs(): '%s'", tm_type_name(self));
    return i < 0 ? tm_negate(r, tm_int(i)) : tm_int(i);
}

/* round() of an integer to a negative number of digits: half to even. */
static struct tm_val round_int(struct tm_run *r, int64_t v, int64_t digits) {
    if (digits >= 0)
        return tm_int(v);
    if (digits < -18)
        return tm_int(0);
    int64_t unit = 1;
    for (; digits < 0; digits++)
        unit *= 10;
    struct tm_val rest = tm_arith(r, TOK_MOD, tm_int(v), tm_int(unit));
    struct tm_val down = tm_arith(r, TOK_SUB, tm_int(v), rest);
    bool up = rest.i > unit - rest.i || (rest.i == unit - rest.i && (down.i / unit) % 2 != 0);
    return up ? tm_arith(r, TOK_ADD, down, tm_int(unit)) : down;
}

/* The whole number f >= 0 without its last `drop` digits, rounded half to even, as text "digits" "e" drop. */
static double round_whole(double f, bool has_fraction, size_t drop) {
    char digits[400], text[420];
    int n = snprintf(digits, sizeof digits, "0%.0f", f);
    if ((size_t)n <= drop)
        return 0;
    size_t keep = (size_t)n - drop;
    char next = digits[keep];
    bool rest = has_fraction || digits[keep + 1 + strspn(digits + keep + 1, "0")] != 0;
    bool up = next > '5' || (next == '5' && (rest || (digits[keep - 1] - '0') % 2));
    for (size_t i = keep; up && i-- > 0;) {
        up = digits[i] == '9';
        digits[i] = up ? '0' : (char)(digits[i] + 1);
    }
    snprintf(text, sizeof text, "%.*se%d", (int)keep, digits, (int)drop);
    return strtod(text, NULL);
}

static double round_float(struct tm_run *r, double v, int64_t digits) {
    char text[700];
    if (!isfinite(v) || digits > 320)
        return v;
    if (digits < -310)
        return copysign(0, v);
    if (digits >= 0) { /* printf rounds the exact value half to even, as Python does */
        snprintf(text, sizeof text, "%.*f", (int)digits, v);
        return strtod(text, NULL);
    }
    double whole = floor(fabs(v)), out = round_whole(whole, fabs(v) > whole, (size_t)-digits);
    if (isinf(out))
        tm_fail(r, "rounded value too large to represent");
    return copysign(out, v);
}

/* p: precision, method */
FILTER(f_round) {
    int64_t digits = p[0].kind == V_MISSING ? 0 : tm_need_int(r, p[0], "precision"), i;
    struct str method = STR_LIT("common");
    if (p[1].kind != V_MISSING) {
        const struct tm_str *m = tm_need_str(r, p[1], "method");
        method = (struct str){m->p, m->n};
    }
    bool ceiling = str_eqz(method, "ceil");
    if (!ceiling && !str_eqz(method, "floor") && !str_eqz(method, "common"))
        tm_fail(r, "method must be common, ceil or floor");
    if (self.kind == V_UNDEF)
        tm_fail_undef(r, self);
    if (!tm_is_num(self))
        tm_fail(r, "type %s doesn't define __round__ method", tm_type_name(self));
    if (str_eqz(method, "common"))
        return tm_as_int(self, &i) ? round_int(r, i, digits) : tm_float(round_float(r, self.f, digits));
    struct tm_val scale = tm_arith(r, TOK_POW, tm_int(10), tm_int(digits));
    struct tm_val scaled = tm_arith(r, TOK_MUL, self, scale);
    if (scaled.kind == V_FLOAT) {
        double whole = ceiling ? ceil(scaled.f) : floor(scaled.f);
        if (!(fabs(whole) < 9.2e18))
            tm_fail(r, "integer overflow: integers of templates have 64 bits");
        scaled = tm_int((int64_t)whole);
    }
    return tm_arith(r, TOK_DIV, scaled, scale);
}

FILTER(f_filesizeformat) {
    static const char *const units[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
                                            {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    bool binary = p[0].kind != V_MISSING && tm_truth(r, p[0]);
    double base = binary ? 1024 : 1000, bytes;
    if (self.kind == V_UNDEF)
        tm_fail_undef(r, self);
    if (tm_is_num(self))
        bytes = tm_as_double(self);
    else if (self.kind != V_STR || !parse_float(r, self.s, &bytes))
        tm_fail(r, "filesizeformat needs a number");
    if (!isfinite(bytes))
        tm_fail(r, "filesizeformat needs a finite number");
    struct tm_cap outer = tm_cap_begin(r);
    if (bytes == 1) {
        tm_putz(r, "1 Byte");
    } else if (bytes < base) {
        tm_putf(r, "%.0f Bytes", trunc(bytes) == 0 ? 0 : trunc(bytes));
    } else {
        int i = 0;
        double unit = base * base;
        for (; i < 7 && bytes >= unit; i++)
            unit *= base;
        tm_putf(r, "%.1f %s", base * bytes / unit, units[binary][i]);
    }
    return tm_cap_end(r, outer);
}

const struct tm_callable tm_filters_str[] = {
    {"trim", f_trim, 0, 1, {"chars"}},
    {"upper", f_upper, 0, 0, {0}},
    {"lower", f_lower, 0, 0, {0}},
    {"capitalize", f_capitalize, 0, 0, {0}},
    {"title", f_title, 0, 0, {0}},
    {"replace", f_replace, 2, 3, {"old", "new", "count"}},
    {"join", f_join, 0, 2, {"d", "attribute"}},
    {"string", f_string, 0, 0, {0}},
    {"safe", f_safe, 0, 0, {0}},
    {"escape", f_escape, 0, 0, {0}},
    {"e", f_escape, 0, 0, {0}},
    {"forceescape", f_forceescape, 0, 0, {0}},
    {"indent", f_indent, 0, 3, {"width", "first", "blank"}},
    {"center", f_center, 0, 1, {"width"}},
    {"format", f_format, 0, TM_VARARGS, {0}},
    {"truncate", f_truncate, 0, 4, {"length", "killwords", "end", "leeway"}},
    {"wordcount", f_wordcount, 0, 0, {0}},
    {"urlencode", f_urlencode, 0, 0, {0}},
    {"int", f_int, 0, 2, {"default", "base"}},
    {"float", f_float, 0, 1, {"default"}},
    {"abs", f_abs, 0, 0, {0}},
    {"round", f_round, 0, 2, {"precision", "method"}},
    {"filesizeformat", f_filesizeformat, 0, 1, {"binary"}},
    {NULL, NULL, 0, 0, {0}}};
