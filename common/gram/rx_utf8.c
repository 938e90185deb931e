#include "common/gram/engine.h"

/* Strings, and classes of code points as bytes. */

static uint32_t byte_set(struct gram *g, unsigned lo, unsigned hi) {
    struct rx_set s = {{0}};
    for (unsigned b = lo; b <= hi; b++)
        set_put(&s, b);
    return rx_set_id(g, &s);
}

uint32_t rx_bytes(struct gram *g, struct str s) {
    uint32_t r = RX_EMPTY;
    for (size_t i = s.n; i > 0 && !gram_over(g); i--) {
        struct rx_set one = {{0}};
        set_put(&one, (uint8_t)s.p[i - 1]);
        r = rx_mk_cat(g, rx_mk_set(g, &one), r);
    }
    return r;
}

/* ---- classes ----------------------------------------------------------------------------------- */

/* tail_any: n continuation bytes. */
static uint32_t tail_any(struct gram *g, unsigned n) {
    uint32_t r = RX_EMPTY;
    for (unsigned i = 0; i < n; i++) {
        struct rx_set s = g->rx.set[byte_set(g, 0x80, 0xBF)];
        r = rx_mk_cat(g, rx_mk_set(g, &s), r);
    }
    return r;
}

/* tail: the continuation bytes of those code points of the sorted, disjoint ranges that lie in
 * [base, base + 64^n). */
static uint32_t tail(struct gram *g, const struct rx_range *r, size_t n_r, uint32_t base, unsigned n) {
    uint32_t span = 1u << (6 * n), last = base + span - 1;
    size_t lo = 0, hi = n_r; /* the first range that ends at base or later */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (r[mid].hi < base)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == n_r || r[lo].lo > last)
        return RX_NONE;
    if (r[lo].lo <= base && r[lo].hi >= last)
        return tail_any(g, n);
    uint32_t at = g->rx.n_tmp;
    for (unsigned i = 0; i < 64; i++) {
        uint32_t t = tail(g, r + lo, n_r - lo, base + (span >> 6) * i, n - 1);
        if (t != RX_NONE) {
            rx_push(g, byte_set(g, 0x80 + i, 0x80 + i));
            rx_push(g, t);
        }
    }
    return rx_mk_switch(g, at, false);
}

/* heads: the branches of all code points of ranges that take 1 + n bytes, led by lo to hi. */
static void heads(struct gram *g, const struct rx_range *r, size_t n_r, unsigned lo, unsigned hi,
                  unsigned bits, unsigned n) {
    for (unsigned b = lo; b <= hi; b++) {
        uint32_t t = tail(g, r, n_r, (uint32_t)(b & bits) << (6 * n), n);
        if (t != RX_NONE) {
            rx_push(g, byte_set(g, b, b));
            rx_push(g, t);
        }
    }
}

static int cmp_range(const void *a, const void *b) {
    struct rx_range x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x.lo > y.lo) - (x.lo < y.lo);
}

/* tidy: sorted, disjoint, not touching; the complement if asked; without surrogates; cut at the borders of
 * encoded lengths. out has room for 2 * n + 8. */
static size_t tidy(struct rx_range *in, size_t n, bool negated, struct rx_range *out) {
    static const uint32_t cut[] = {0, 0x80, 0x800, 0xD800, 0xE000, 0x10000, 0x110000};
    size_t m = 0, k = 0;
    qsort(in, n, sizeof *in, cmp_range);
    for (size_t i = 0; i < n; i++) {
        if (in[i].lo > in[i].hi || in[i].lo > 0x10FFFF)
            continue;
        uint32_t hi = MIN(in[i].hi, 0x10FFFFu);
        if (m && in[i].lo <= in[m - 1].hi + 1)
            in[m - 1].hi = MAX(in[m - 1].hi, hi);
        else
            in[m++] = (struct rx_range){in[i].lo, hi};
    }
    uint32_t from = 0;
    if (negated) { /* the gaps, in place: gap i lies before range i */
        for (size_t i = 0; i < m; i++) {
            struct rx_range r = in[i];
            if (r.lo > from)
                in[k++] = (struct rx_range){from, r.lo - 1};
            from = r.hi + 1;
        }
        if (from <= 0x10FFFF)
            in[k++] = (struct rx_range){from, 0x10FFFF};
        m = k;
    }
    k = 0;
    size_t c = 0;
    for (size_t i = 0; i < m; i++)
        for (uint32_t lo = in[i].lo; lo <= in[i].hi;) {
            while (cut[c + 1] <= lo)
                c++;
            uint32_t hi = MIN(in[i].hi, cut[c + 1] - 1);
            if (cut[c] != 0xD800)
                out[k++] = (struct rx_range){lo, hi};
            lo = hi + 1;
        }
    return k;
}

/* class_memo_of: where a class of these ranges would be kept; NULL: nowhere. */
static struct class_memo *class_memo_of(struct gram *g, const struct rx_range *r, size_t n) {
    uint64_t h = n;
    if (n == 0 || n > ARRAY_LEN(g->rx.class_memo[0].range))
        return NULL;
    for (size_t i = 0; i < n; i++)
        h = mix(mix(h, r[i].lo), r[i].hi);
    return &g->rx.class_memo[(h >> 20) % CLASS_MEMO];
}

uint32_t rx_class(struct gram *g, const struct rx_range *ranges, size_t n, bool negated) {
    if (n > g->limit.n_rx)
        gram_set_over(g, "too many ranges in a class");
    if (!gram_spend(g, (int64_t)n * 10))
        return RX_NONE;
    struct rx_range *in = xmalloc((n + 1) * sizeof *in), *r = xmalloc((n + 1 + 8) * sizeof *r);
    if (n)
        memcpy(in, ranges, n * sizeof *in);
    size_t m = tidy(in, n, negated, r), base = g->rx.n_tmp, i = 0;
    struct class_memo *memo = class_memo_of(g, r, m);
    if (memo && memo->n == m && memcmp(memo->range, r, m * sizeof *r) == 0) {
        free(in);
        free(r);
        return memo->rx;
    }
    struct class_memo made = {.n = (uint32_t)m};
    if (memo)
        memcpy(made.range, r, m * sizeof *r);
    struct rx_set ascii = {{0}};
    for (; i < m && r[i].lo < 0x80; i++)
        for (uint32_t b = r[i].lo; b <= r[i].hi; b++)
            set_put(&ascii, b);
    if (i) {
        rx_push(g, rx_set_id(g, &ascii));
        rx_push(g, RX_EMPTY);
    }
    size_t two = i;
    while (i < m && r[i].lo < 0x800)
        i++;
    heads(g, r + two, i - two, 0xC2, 0xDF, 0x1F, 1);
    size_t three = i;
    while (i < m && r[i].lo < 0x10000)
        i++;
    heads(g, r + three, i - three, 0xE0, 0xEF, 0x0F, 2);
    heads(g, r + i, m - i, 0xF0, 0xF4, 0x07, 3);
    free(in);
    free(r);
    made.rx = rx_mk_switch(g, (uint32_t)base, false);
    if (memo && !g->fail)
        *memo = made;
    return made.rx;
}
