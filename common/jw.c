#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json_scan.h"
#include "common/utf8.h"

/* ---- strings ---------------------------------------------------------------------------------------- */

static void put_control(struct buf *b, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    static const char shorts[0x20] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    if (c < 0x20 && shorts[c]) {
        buf_add(b, (char[]){'\\', shorts[c]}, 2);
    } else if (c >= 0x20) { /* '"' and '\\' */
        buf_add(b, (char[]){'\\', (char)c}, 2);
    } else {
        buf_add(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    }
}

void jw_str(struct buf *b, struct str s) {
    buf_reserve(b, s.n + 2);
    buf_addc(b, '"');
    size_t from = 0, i = 0;
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            i++;
            continue;
        }
        size_t len = 1;
        bool escape = c < 0x80;
        if (!escape && utf8_decode(s.p + i, s.n - i, &len) >= 0) {
            i += len;
            continue;
        }
        buf_add(b, s.p + from, i - from);
        if (escape)
            put_control(b, c);
        else
            buf_addz(b, UTF8_REPLACEMENT);
        i += len;
        from = i;
    }
    if (from < s.n) /* the empty slice has no address to add to */
        buf_add(b, s.p + from, s.n - from);
    buf_addc(b, '"');
}

void jw_strz(struct buf *b, const char *z) {
    if (z)
        jw_str(b, str_of(z));
    else
        buf_addz(b, "null");
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

/* decimal: 0.d1d2d3... is not used; the value is d1.d2d3... * 10^exp10. */
struct decimal {
    char digits[20]; /* '0' to '9', no trailing zeros, at least one */
    int n, exp10;
};

static void trim(struct decimal *d) {
    while (d->n > 1 && d->digits[d->n - 1] == '0')
        d->n--;
}

/* decimal_of: v > 0 correctly rounded to n digits. */
static struct decimal decimal_of(double v, int n) {
    char text[40];
    struct decimal d = {.n = n};
    int len = snprintf(text, sizeof text, "%.*e", n - 1, v);
    CHECK(len > 0 && len < (int)sizeof text);
    int at = 0;
    char *p = text;
    for (; *p && *p != 'e'; p++)
        if (*p != '.')
            d.digits[at++] = *p;
    CHECK(at == n);
    d.exp10 = atoi(p + 1);
    trim(&d);
    return d;
}

/* decimal_next: the next larger decimal of n digits. */
static struct decimal decimal_next(struct decimal d, int n) {
    while (d.n < n)
        d.digits[d.n++] = '0';
    int i = n - 1;
    while (i >= 0 && d.digits[i] == '9')
        d.digits[i--] = '0';
    if (i >= 0) {
        d.digits[i]++;
    } else {
        d.digits[0] = '1';
        d.exp10++;
    }
    trim(&d);
    return d;
}

static const char *decimal_text(const struct decimal *d, char text[40]) {
    snprintf(text, 40, "%.*se%d", d->n, d->digits, d->exp10 - (d->n - 1));
    return text;
}

static bool reads_as(const struct decimal *d, double v, bool single) {
    char text[40];
    decimal_text(d, text);
    return single ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v;
}

/* shortest: the fewest digits that read back as v. The closest decimal of n digits is the one to try, but at
 * a power of two the gap below is half the gap above, so there the next larger one may do when the closest
 * does not. Starting at FLT_DIG or DBL_DIG digits is enough for normal numbers: shorter ones come out of that
 * with zeros, which are trimmed. */
static struct decimal shortest(double v, bool single) {
    int most = single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;
    bool normal = v >= (single ? (double)FLT_MIN : DBL_MIN);
    for (int n = !normal ? 1 : single ? FLT_DIG : DBL_DIG;; n++) {
        struct decimal d = decimal_of(v, n);
        if (n >= most || reads_as(&d, v, single))
            return d;
        struct decimal up = decimal_next(d, n);
        if (reads_as(&up, v, single))
            return up;
    }
}

/* put_number: plain notation from 1e-5 up to 1e16, else with an exponent; always with a '.' or an 'e'. */
static void put_number(struct buf *b, double v, bool single) {
    if (signbit(v))
        buf_addc(b, '-');
    v = fabs(v);
    if (v == 0) {
        buf_addz(b, "0.0");
        return;
    }
    struct decimal d = shortest(v, single);
    if (d.exp10 < -5 || d.exp10 >= 16) {
        buf_addc(b, d.digits[0]);
        if (d.n > 1)
            buf_addc(b, '.');
        buf_add(b, d.digits + 1, (size_t)d.n - 1);
        buf_addf(b, "e%d", d.exp10);
    } else if (d.exp10 < 0) {
        buf_add(b, "0.0000", (size_t)(1 - d.exp10));
        buf_add(b, d.digits, (size_t)d.n);
    } else {
        for (int i = 0; i <= d.exp10; i++)
            buf_addc(b, i < d.n ? d.digits[i] : '0');
        buf_addc(b, '.');
        if (d.n > d.exp10 + 1)
            buf_add(b, d.digits + d.exp10 + 1, (size_t)(d.n - d.exp10 - 1));
        else
            buf_addc(b, '0');
    }
}

void jw_f32(struct buf *b, float v) {
    CHECK(!isnan(v));
    if (isinf(v))
        v = v < 0 ? -9999.0f : FLT_MAX;
    put_number(b, v, true);
}

void jw_f64(struct buf *b, double v) {
    CHECK(!isnan(v));
    if (isinf(v))
        v = v < 0 ? -9999.0 : DBL_MAX;
    put_number(b, v, false);
}

void jw_u64(struct buf *b, uint64_t v) {
    buf_addu64(b, v);
}

void jw_i64(struct buf *b, int64_t v) {
    if (v < 0)
        buf_addc(b, '-');
    buf_addu64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* ---- trees ------------------------------------------------------------------------------------------ */

/* put_tree: recursion is bounded: json_parse lets nothing deeper through, and a tree built in C is checked
 * here. */
static void put_tree(struct buf *b, const json_t *v, unsigned depth) {
    CHECK(depth <= JSON_DEPTH_MAX);
    const char *key, *comma = "";
    json_t *tree = (json_t *)(uintptr_t)v, *item; /* jansson's iterators want it without const */
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        buf_addc(b, '{');
        json_object_foreach(tree, key, item) {
            buf_addz(b, comma);
            jw_strz(b, key);
            buf_addc(b, ':');
            put_tree(b, item, depth + 1);
            comma = ",";
        }
        buf_addc(b, '}');
        break;
    case JSON_ARRAY:
        buf_addc(b, '[');
        json_array_foreach(v, i, item) {
            buf_addz(b, comma);
            put_tree(b, item, depth + 1);
            comma = ",";
        }
        buf_addc(b, ']');
        break;
    case JSON_STRING:
        jw_str(b, (struct str){json_string_value(v), json_string_length(v)});
        break;
    case JSON_INTEGER:
        jw_i64(b, json_integer_value(v));
        break;
    case JSON_REAL:
        jw_f64(b, json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        jw_bool(b, json_is_true(v));
        break;
    case JSON_NULL:
        buf_addz(b, "null");
        break;
    }
}

void jw_json(struct buf *b, const json_t *v) {
    put_tree(b, v, 0);
}
