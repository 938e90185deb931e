/* format.c: numbers and texts with a width. */
#include "router/tmpl/format.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "common/utf8.h"

enum { DIGITS_MAX = 512 };

/* A sign, a prefix and digits, padded. With '=' the padding stands between sign and digits. */
static void put_number(struct tm_run *r, const struct tm_spec *s, bool negative, const char *prefix,
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

void tm_put_int(struct tm_run *r, const struct tm_spec *s, int64_t v, bool percent_style) {
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

void tm_put_float(struct tm_run *r, const struct tm_spec *s, double f) {
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

void tm_put_padded(struct tm_run *r, const struct tm_spec *s, struct tm_str *text, char align) {
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

void tm_put_char(struct tm_run *r, const struct tm_spec *s, struct tm_val v) {
    char out[4];
    int64_t cp;
    if (v.kind == V_STR && tm_str_len(r, v.s) == 1) {
        tm_put_padded(r, s, v.s, s->align == '<' ? '<' : '>');
        return;
    }
    if (!tm_as_int(v, &cp))
        tm_fail(r, "%%c requires an integer or a single character");
    if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        tm_fail(r, "%%c argument is not a character");
    struct tm_str text = {.p = out, .n = utf8_encode((uint32_t)cp, out), .n_cp = 1};
    tm_put_padded(r, s, &text, s->align == '<' ? '<' : '>');
}
