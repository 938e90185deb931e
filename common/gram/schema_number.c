#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"

/* ---- numbers as text -------------------------------------------------------------------------------------
 */

struct str number_text(struct schema *s, const json_t *j) {
    struct buf b = {0};
    if (json_is_integer(j))
        jw_i64(&b, json_integer_value(j));
    else
        jw_f64(&b, json_real_value(j));
    struct str out = {arena_strndup(&s->mem, b.data, b.len), b.len};
    buf_fini(&b);
    return out;
}

/* plain_of: digits with a decimal point `point` digits from the left, as a number without exponent; no zeros
 * in front and at the end of the fraction. */
static void plain_of(bool neg, struct str digits, long point, struct buf *b) {
    size_t skip = 0;
    while (skip < digits.n && digits.p[skip] == '0')
        skip++;
    while (digits.n > skip && digits.p[digits.n - 1] == '0')
        digits.n--;
    if (skip == digits.n) {
        buf_addc(b, '0');
        return;
    }
    if (neg)
        buf_addc(b, '-');
    if (point <= (long)skip)
        buf_addc(b, '0');
    for (long at = MIN(point, (long)skip); at < (long)digits.n || at < point; at++) {
        if (at == point)
            buf_addc(b, '.');
        if (at >= (long)skip || at >= point)
            buf_addc(b, at >= (long)skip && at < (long)digits.n ? digits.p[at] : '0');
    }
}

struct str number_plain(struct schema *s, const json_t *j) {
    struct str text = number_text(s, j);
    struct buf digits = {0}, out = {0};
    size_t i = text.n && text.p[0] == '-';
    long point = -1;
    for (; i < text.n && (text.p[i] | 0x20) != 'e'; i++) {
        if (text.p[i] == '.')
            point = (long)digits.len;
        else
            buf_addc(&digits, text.p[i]);
    }
    if (point < 0)
        point = (long)digits.len;
    if (i < text.n)
        point += strtol(text.p + i + 1, NULL, 10);
    plain_of(text.p[0] == '-', buf_str(&digits), point, &out);
    struct str plain = {arena_strndup(&s->mem, out.data, out.len), out.len};
    buf_fini(&digits);
    buf_fini(&out);
    return plain;
}

/* ---- comparison with a bound ------------------------------------------------------------------------------
 */

/* A bound's digits: whole part without zeros in front (or "0"), fraction without zeros at the end. */
struct bound {
    const char *d, *f;
    size_t n, m;
};

static struct bound bound_of(struct str plain) {
    if (plain.n && plain.p[0] == '-')
        plain = (struct str){plain.p + 1, plain.n - 1};
    const char *point = memchr(plain.p, '.', plain.n);
    struct bound b = {.d = plain.p, .n = point ? (size_t)(point - plain.p) : plain.n};
    if (point) {
        b.f = point + 1;
        b.m = plain.n - b.n - 1;
    }
    return b;
}

static uint32_t any_digits(struct gram *g) {
    return jt_digits(g, '0', '9', 0, RX_INF);
}

static uint32_t any_fraction(struct gram *g) {
    return jt_opt(g, rx_cat(g, jt_lit(g, "."), jt_digits(g, '0', '9', 1, RX_INF)));
}

/* not_zero: digits of which one is not 0. */
static uint32_t not_zero(struct gram *g) {
    return rx_cat(g, any_digits(g), rx_cat(g, jt_digits(g, '1', '9', 1, 1), any_digits(g)));
}

/* digit_then: one digit in [first, last], if there is one, then e. */
static uint32_t digit_then(struct gram *g, char first, char last, uint32_t e) {
    return first > last ? RX_NONE : rx_cat(g, jt_digits(g, first, last, 1, 1), e);
}

/* above_fraction: what may stand behind an equal whole part so that the number is above the bound, or equal
 * to it if `equal`. Built from the last digit on, as each digit either decides or is equal. */
static uint32_t above_fraction(struct gram *g, const struct bound *b, bool equal) {
    if (b->m == 0)
        return equal ? any_fraction(g) : rx_cat(g, jt_lit(g, "."), not_zero(g));
    uint32_t e = equal ? any_digits(g) : not_zero(g);
    for (size_t i = b->m; i-- > 0;)
        e = rx_alt(g, digit_then(g, (char)(b->f[i] + 1), '9', any_digits(g)),
                   digit_then(g, b->f[i], b->f[i], e));
    return rx_cat(g, jt_lit(g, "."), e);
}

static uint32_t below_fraction(struct gram *g, const struct bound *b, bool equal) {
    uint32_t zeros = jt_digits(g, '0', '0', 0, RX_INF);
    if (b->m == 0)
        return equal ? jt_opt(g, rx_cat(g, jt_lit(g, "."), rx_cat(g, jt_lit(g, "0"), zeros))) : RX_NONE;
    uint32_t e = equal ? zeros : RX_NONE;
    for (size_t i = b->m; i-- > 0;) {
        e = rx_alt(g, digit_then(g, '0', (char)(b->f[i] - 1), any_digits(g)),
                   digit_then(g, b->f[i], b->f[i], e));
        if (i) /* it may also end here: what is left of the bound is more than nothing */
            e = jt_opt(g, e);
    }
    return jt_opt(g, rx_cat(g, jt_lit(g, "."), e));
}

/* beyond: numbers without sign on one side of a bound that is not negative. */
static uint32_t beyond(struct gram *g, const struct bound *b, bool above, bool equal) {
    uint32_t e = above ? above_fraction(g, b, equal) : below_fraction(g, b, equal);
    uint32_t fraction = any_fraction(g);
    for (size_t i = b->n; i-- > 0;) {
        char low = i == 0 && b->n > 1 ? '1' : '0';
        uint32_t rest =
            rx_cat(g, jt_digits(g, '0', '9', (uint32_t)(b->n - 1 - i), (uint32_t)(b->n - 1 - i)), fraction);
        uint32_t decided = above ? digit_then(g, (char)(b->d[i] + 1), '9', rest)
                                 : digit_then(g, low, (char)(b->d[i] - 1), rest);
        e = rx_alt(g, decided, digit_then(g, b->d[i], b->d[i], e));
    }
    if (above) {
        uint32_t more = jt_digits(g, '0', '9', (uint32_t)b->n, RX_INF);
        return rx_alt(g, e, rx_cat(g, digit_then(g, '1', '9', more), fraction));
    }
    if (b->n == 1)
        return e;
    uint32_t fewer = digit_then(g, '1', '9', jt_digits(g, '0', '9', 0, (uint32_t)(b->n - 2)));
    return rx_alt(g, e, rx_cat(g, rx_alt(g, jt_lit(g, "0"), fewer), fraction));
}

/* unsigned_all: every number without sign and exponent. */
static uint32_t unsigned_all(struct gram *g) {
    uint32_t whole = rx_alt(g, jt_lit(g, "0"), digit_then(g, '1', '9', any_digits(g)));
    return rx_cat(g, whole, any_fraction(g));
}

/* one_side: numbers on one side of a bound of any sign. */
static uint32_t one_side(struct gram *g, struct str plain, bool above, bool equal) {
    struct bound b = bound_of(plain);
    bool neg = plain.p[0] == '-', zero = str_eqz(plain, "0");
    uint32_t minus = jt_lit(g, "-");
    if (zero) {
        uint32_t zeros = rx_cat(g, jt_opt(g, minus), beyond(g, &b, false, true));
        uint32_t side = beyond(g, &b, true, false);
        uint32_t strict = above ? side : rx_cat(g, minus, side);
        return equal ? rx_alt(g, strict, zeros) : strict;
    }
    if (neg != above) {
        /* Away from zero: same sign as the bound. */
        uint32_t far = beyond(g, &b, true, equal);
        return neg ? rx_cat(g, minus, far) : far;
    }
    /* Towards zero and over it: all of the other sign too. */
    uint32_t near = beyond(g, &b, false, equal);
    return neg ? rx_alt(g, unsigned_all(g), rx_cat(g, minus, near))
               : rx_alt(g, near, rx_cat(g, minus, unsigned_all(g)));
}

static void need_digits(struct vset *out, struct str plain) {
    struct bound b = bound_of(plain);
    out->n_int = MAX(out->n_int, b.n > JT_INT_DIGITS - 1 ? (uint32_t)b.n + 1 : 0);
    out->n_frac = MAX(out->n_frac, b.m > JT_FRAC_DIGITS - 1 ? (uint32_t)b.m + 1 : 0);
}

struct vset number_range(struct schema *s, struct str lo, bool lo_open, struct str hi, bool hi_open) {
    struct gram *g = s->g;
    uint32_t e = 0;
    struct vset digits = {0};
    bool any = false;
    if (lo.p) {
        e = one_side(g, lo, true, !lo_open);
        need_digits(&digits, lo);
        any = true;
    }
    if (hi.p) {
        uint32_t other = one_side(g, hi, false, !hi_open);
        e = any ? rx_and(g, e, other) : other;
        need_digits(&digits, hi);
        any = true;
    }
    if (!any)
        return vset_all(true);
    struct vset out = vset_rx(true, e);
    out.n_int = digits.n_int;
    out.n_frac = digits.n_frac;
    return out;
}

struct vset number_whole(struct schema *s) {
    struct gram *g = s->g;
    uint32_t zeros = jt_opt(g, rx_cat(g, jt_lit(g, "."), jt_digits(g, '0', '0', 1, RX_INF)));
    struct vset out = vset_rx(true, rx_cat(g, jt_plain(g, RX_INF, 0), zeros));
    out.whole = true;
    return out;
}

/* ---- multiples ---------------------------------------------------------------------------------- */

/* multiples: of step / 10^scale. A step that ends in zeros asks for zeros at the end of the whole part, which
 * needs no remainder. */
static uint32_t multiples(struct gram *g, uint32_t step, uint32_t zeros, uint32_t scale) {
    uint32_t fraction = scale || !zeros ? RX_INF : 0;
    uint32_t e = rx_and(g, jt_plain(g, RX_INF, fraction), rx_multiple(g, step, scale));
    if (!zeros)
        return e;
    uint32_t none = rx_cat(g, jt_opt(g, jt_lit(g, "-")), jt_lit(g, "0"));
    e = rx_alt(g, none, rx_cat(g, e, jt_digits(g, '0', '0', zeros, zeros)));
    return rx_cat(g, e, jt_opt(g, rx_cat(g, jt_lit(g, "."), jt_digits(g, '0', '0', 1, RX_INF))));
}

enum rc number_multiple(struct schema *s, uint32_t node, const json_t *m, struct vset *out, struct err *e) {
    struct str plain = number_plain(s, m);
    struct bound b = bound_of(plain);
    uint32_t zeros = 0, step = 0, scale = (uint32_t)b.m;
    while (!scale && zeros + 1 < b.n && b.d[b.n - 1 - zeros] == '0')
        zeros++;
    /* The digits without the point and the zeros at either end are step. */
    for (size_t i = 0; i < plain.n - zeros && step <= NUMBER_STEP_MAX; i++)
        if (plain.p[i] != '.')
            step = step * 10 + (uint32_t)(plain.p[i] - '0');
    if (step > NUMBER_STEP_MAX || scale > NUMBER_SCALE_MAX || zeros > NUMBER_SCALE_MAX)
        return schema_fail(s, node, "multipleOf", e,
                           "%.60s has too many digits: at most %d behind the point, and at most %d without "
                           "the point and zeros at either end",
                           plain.p, NUMBER_SCALE_MAX, NUMBER_STEP_MAX);
    struct vset r = vset_rx(true, multiples(s->g, step, zeros, scale));
    r.n_frac = scale > JT_FRAC_DIGITS ? scale : 0;
    *out = r;
    return RC_OK;
}
