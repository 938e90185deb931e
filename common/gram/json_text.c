#include "common/gram/json_text.h"

#include <stdio.h>
#include <stdlib.h>

#define CODE_MAX 0x10FFFFu

/* ---- characters --------------------------------------------------------------------------------- */

static bool needs_escape(uint32_t c) {
    return c < 0x20 || c == '"' || c == '\\';
}

/* escape: of a code point that needs one; returns its length, at most 6. */
static size_t escape(uint32_t c, char out[8]) {
    static const char shorts[] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\'};
    if (c < sizeof shorts && shorts[c]) {
        out[0] = '\\';
        out[1] = shorts[c];
        return 2;
    }
    return (size_t)snprintf(out, 8, "\\u%04x", c & 0xFFFF);
}

void jt_spell(struct buf *b, struct str s) {
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (!needs_escape(c))
            continue;
        char e[8];
        buf_add(b, s.p + from, i - from);
        buf_add(b, e, escape(c, e));
        from = i + 1;
    }
    buf_add(b, s.p + from, s.n - from);
}

static int by_lo(const void *a, const void *b) {
    const struct rx_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* normal: sorted, disjoint, not negated; out has room for n + 1. Returns how many. */
static size_t normal(const struct rx_range *ranges, size_t n, bool negated, struct rx_range *out) {
    struct rx_range *in = xreallocarray(NULL, n + 1, sizeof *in);
    size_t m = 0, k = 0;
    for (size_t i = 0; i < n; i++)
        if (ranges[i].lo <= ranges[i].hi && ranges[i].lo <= CODE_MAX)
            in[m++] = (struct rx_range){ranges[i].lo, MIN(ranges[i].hi, CODE_MAX)};
    qsort(in, m, sizeof *in, by_lo);
    for (size_t i = 0; i < m; i++) {
        if (k && in[i].lo <= in[k - 1].hi + 1)
            in[k - 1].hi = MAX(in[k - 1].hi, in[i].hi);
        else
            in[k++] = in[i];
    }
    if (!negated) {
        memcpy(out, in, k * sizeof *in);
        free(in);
        return k;
    }
    size_t w = 0;
    uint32_t next = 0;
    for (size_t i = 0; i < k; i++) {
        if (in[i].lo > next)
            out[w++] = (struct rx_range){next, in[i].lo - 1};
        next = in[i].hi + 1;
    }
    if (next <= CODE_MAX)
        out[w++] = (struct rx_range){next, CODE_MAX};
    free(in);
    return w;
}

static bool holds(const struct rx_range *r, size_t n, uint32_t c) {
    for (size_t i = 0; i < n && r[i].lo <= c; i++)
        if (c <= r[i].hi)
            return true;
    return false;
}

uint32_t jt_one_of(struct gram *g, const struct rx_range *ranges, size_t n, bool negated) {
    struct rx_range *r = xreallocarray(NULL, n + 1, sizeof *r);
    n = normal(ranges, n, negated, r);
    /* What stands for itself: the ranges without the 34 characters that do not. */
    struct rx_range *plain = xreallocarray(NULL, n + 3, sizeof *plain);
    size_t n_plain = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t lo = MAX(r[i].lo, 0x20u);
        static const uint32_t holes[] = {'"', '\\'};
        for (size_t h = 0; h < 2; h++) {
            if (holes[h] < lo || holes[h] > r[i].hi)
                continue;
            if (holes[h] > lo)
                plain[n_plain++] = (struct rx_range){lo, holes[h] - 1};
            lo = holes[h] + 1;
        }
        if (lo <= r[i].hi)
            plain[n_plain++] = (struct rx_range){lo, r[i].hi};
    }
    uint32_t alt[40];
    size_t n_alt = 0;
    if (n_plain)
        alt[n_alt++] = rx_class(g, plain, n_plain, false);
    struct str escaped[34];
    char text[34][8];
    size_t n_escaped = 0;
    for (uint32_t c = 0; c <= '\\'; c++)
        if (needs_escape(c) && holds(r, n, c)) {
            size_t len = escape(c, text[n_escaped]);
            escaped[n_escaped] = (struct str){text[n_escaped], len};
            n_escaped++;
        }
    if (n_escaped)
        alt[n_alt++] = rx_choice(g, escaped, n_escaped);
    free(plain);
    free(r);
    return rx_alt_n(g, alt, n_alt);
}

/* ---- strings ------------------------------------------------------------------------------------ */

uint32_t jt_length(struct gram *g, uint32_t min, uint32_t max) {
    return rx_repeat(g, jt_one_of(g, NULL, 0, true), min, max);
}

uint32_t jt_any(struct gram *g) {
    return jt_length(g, 0, RX_INF);
}

uint32_t jt_quoted(struct gram *g, uint32_t body) {
    uint32_t quote = jt_lit(g, "\"");
    return rx_cat(g, quote, rx_cat(g, body, quote));
}

static uint32_t class_of(struct gram *g, const char *chars) {
    struct rx_range r[32];
    size_t n = 0;
    for (; chars[0]; chars += 2)
        r[n++] = (struct rx_range){(unsigned char)chars[0], (unsigned char)chars[1]};
    return rx_class(g, r, n, false);
}

uint32_t jt_free_string(struct gram *g) {
    static const struct rx_range controls[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    uint32_t hex = class_of(g, "09afAF"), hex2 = rx_cat(g, hex, hex), hex3 = rx_cat(g, hex, hex2);
    uint32_t d = class_of(g, "ddDD");
    /* The four digits: not D800 to DFFF, or one of each half in order. */
    uint32_t single = rx_alt(g, rx_cat(g, class_of(g, "09acACefEF"), hex3),
                             rx_cat(g, d, rx_cat(g, class_of(g, "07"), hex2)));
    uint32_t high = rx_cat(g, d, rx_cat(g, class_of(g, "89abAB"), hex2));
    uint32_t low = rx_cat(g, d, rx_cat(g, class_of(g, "cfCF"), hex2));
    uint32_t pair = rx_cat(g, high, rx_cat(g, jt_lit(g, "\\u"), low));
    uint32_t coded = rx_cat(g, jt_lit(g, "u"), rx_alt(g, single, pair));
    uint32_t behind = rx_alt(g, class_of(g, "\"\"\\\\//bbffnnrrtt"), coded);
    uint32_t one =
        rx_alt(g, rx_class(g, controls, ARRAY_LEN(controls), true), rx_cat(g, jt_lit(g, "\\"), behind));
    return jt_quoted(g, rx_repeat(g, one, 0, RX_INF));
}

/* ---- numbers ------------------------------------------------------------------------------------ */

uint32_t jt_digits(struct gram *g, char first, char last, uint32_t lo, uint32_t hi) {
    struct rx_range r = {(unsigned char)first, (unsigned char)last};
    return rx_repeat(g, rx_class(g, &r, 1, false), lo, hi);
}

uint32_t jt_plain(struct gram *g, uint32_t n_int, uint32_t n_frac) {
    uint32_t rest = jt_digits(g, '0', '9', 0, n_int == RX_INF ? RX_INF : n_int - 1);
    uint32_t whole = rx_alt(g, jt_lit(g, "0"), rx_cat(g, jt_digits(g, '1', '9', 1, 1), rest));
    uint32_t e = rx_cat(g, jt_opt(g, jt_lit(g, "-")), whole);
    if (n_frac)
        e = rx_cat(g, e, jt_opt(g, rx_cat(g, jt_lit(g, "."), jt_digits(g, '0', '9', 1, n_frac))));
    return e;
}

uint32_t jt_free_number(struct gram *g) {
    uint32_t e = rx_alt(g, jt_lit(g, "e"), jt_lit(g, "E"));
    uint32_t sign = jt_opt(g, rx_alt(g, jt_lit(g, "+"), jt_lit(g, "-")));
    uint32_t exponent = rx_cat(g, e, rx_cat(g, sign, jt_digits(g, '0', '9', 1, JT_EXP_DIGITS)));
    return rx_cat(g, jt_plain(g, JT_INT_DIGITS, JT_FRAC_DIGITS), jt_opt(g, exponent));
}
