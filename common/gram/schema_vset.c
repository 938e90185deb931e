#include <stdlib.h>

#include "common/gram/schema.h"

struct vset vset_none(bool number) {
    return (struct vset){.kind = SET_NONE, .number = number, .whole = true};
}

struct vset vset_all(bool number) {
    return (struct vset){.kind = SET_ALL, .number = number};
}

struct vset vset_rx(bool number, uint32_t rx) {
    if (rx == RX_NONE)
        return vset_none(number);
    return (struct vset){.kind = SET_RX, .number = number, .rx = rx};
}

/* universe: all canonical spellings. */
static uint32_t universe(struct schema *s, bool number) {
    return number ? jt_plain(s->g, RX_INF, RX_INF) : jt_any(s->g);
}

/* spellings: of a number, all without exponent: more zeros behind the point change nothing, and a zero has
 * two signs. */
static uint32_t spellings(struct schema *s, struct str plain) {
    struct gram *g = s->g;
    uint32_t zeros = jt_digits(g, '0', '0', 1, RX_INF);
    uint32_t e = rx_bytes(g, plain);
    if (str_eqz(plain, "0"))
        e = rx_cat(g, jt_opt(g, jt_lit(g, "-")), e);
    if (plain.n && memchr(plain.p, '.', plain.n))
        return rx_cat(g, e, jt_opt(g, zeros));
    return rx_cat(g, e, jt_opt(g, rx_cat(g, jt_lit(g, "."), zeros)));
}

static uint32_t choice_of(struct schema *s, const struct vset *a, bool text) {
    struct str *all = arena_alloc(&s->mem, (a->n + 1) * sizeof *all);
    for (size_t i = 0; i < a->n; i++)
        all[i] = text ? a->item[i].text : a->item[i].key;
    return rx_choice(s->g, all, a->n);
}

uint32_t vset_rx_of(struct schema *s, const struct vset *a) {
    switch (a->kind) {
    case SET_NONE:
        return RX_NONE;
    case SET_ALL:
        return universe(s, a->number);
    case SET_RX:
        return a->rx;
    case SET_LIST:
        break;
    }
    if (!a->number)
        return choice_of(s, a, false);
    uint32_t *each = arena_alloc(&s->mem, (a->n + 1) * sizeof *each);
    for (size_t i = 0; i < a->n; i++)
        each[i] = spellings(s, a->item[i].key);
    return rx_alt_n(s->g, each, a->n);
}

static int by_key(const void *a, const void *b) {
    const struct vset_item *x = a, *y = b;
    int order = memcmp(x->key.p, y->key.p, MIN(x->key.n, y->key.n));
    return order ? order : (x->key.n > y->key.n) - (x->key.n < y->key.n);
}

/* in_list: lists are sorted by key. */
static bool in_list(const struct vset *a, struct str key) {
    struct vset_item want = {.key = key};
    return a->n && bsearch(&want, a->item, a->n, sizeof want, by_key) != NULL;
}

bool vset_has(struct schema *s, const struct vset *a, struct str key) {
    if (a->kind == SET_LIST)
        return in_list(a, key);
    return a->kind == SET_ALL || (a->kind == SET_RX && rx_matches(s->g, a->rx, key));
}

/* filter: the members of a list that b has. */
static struct vset filter(struct schema *s, struct vset a, const struct vset *b) {
    struct vset_item *keep = arena_alloc(&s->mem, (a.n + 1) * sizeof *keep);
    size_t n = 0;
    for (size_t i = 0; i < a.n; i++)
        if (vset_has(s, b, a.item[i].key))
            keep[n++] = a.item[i];
    s->steps += a.n;
    a.item = keep;
    a.n = n;
    if (!n)
        a.kind = SET_NONE;
    return a;
}

static void keep_digits(struct vset *out, const struct vset *a, const struct vset *b) {
    out->n_int = MAX(a->n_int, b->n_int);
    out->n_frac = MAX(a->n_frac, b->n_frac);
}

struct vset vset_and(struct schema *s, struct vset a, struct vset b) {
    if (a.kind == SET_NONE || b.kind == SET_ALL)
        return a;
    if (b.kind == SET_NONE || a.kind == SET_ALL)
        return b;
    if (a.kind == SET_LIST)
        return filter(s, a, &b);
    if (b.kind == SET_LIST)
        return filter(s, b, &a);
    struct vset out = vset_rx(a.number, rx_and(s->g, a.rx, b.rx));
    out.whole = a.whole || b.whole;
    keep_digits(&out, &a, &b);
    return out;
}

/* merge: two sorted lists. */
static struct vset merge(struct schema *s, const struct vset *a, const struct vset *b) {
    struct vset out = *a;
    struct vset_item *all = arena_alloc(&s->mem, (a->n + b->n) * sizeof *all);
    size_t i = 0, j = 0, n = 0;
    while (i < a->n || j < b->n) {
        int order = i == a->n ? 1 : j == b->n ? -1 : by_key(&a->item[i], &b->item[j]);
        all[n++] = order <= 0 ? a->item[i] : b->item[j];
        i += order <= 0;
        j += order >= 0;
    }
    s->steps += n;
    out.item = all;
    out.n = n;
    return out;
}

struct vset vset_or(struct schema *s, struct vset a, struct vset b) {
    if (a.kind == SET_NONE || b.kind == SET_ALL)
        return b;
    if (b.kind == SET_NONE || a.kind == SET_ALL)
        return a;
    if (a.kind == SET_LIST && b.kind == SET_LIST)
        return merge(s, &a, &b);
    struct vset out = vset_rx(a.number, rx_alt(s->g, vset_rx_of(s, &a), vset_rx_of(s, &b)));
    out.whole = a.whole && b.whole;
    keep_digits(&out, &a, &b);
    return out;
}

struct vset vset_not(struct schema *s, struct vset a) {
    if (a.kind == SET_NONE)
        return vset_all(a.number);
    if (a.kind == SET_ALL)
        return vset_none(a.number);
    struct vset out = vset_rx(a.number, rx_and(s->g, universe(s, a.number), rx_not(s->g, vset_rx_of(s, &a))));
    keep_digits(&out, &a, &a);
    return out;
}

enum rc vset_settle(struct schema *s, struct vset *a, uint32_t node, const char *keyword, struct err *e) {
    bool none;
    struct err why;
    if (a->kind != SET_RX)
        return RC_OK;
    if (rx_is_none(s->g, a->rx, &none, &why))
        return schema_fail(s, node, keyword, e, "too complex to tell whether any %s fits: %.200s",
                           a->number ? "number" : "string", why.msg);
    if (none)
        *a = vset_none(a->number);
    return RC_OK;
}

/* number_output: the spellings that are written: few digits, no fraction of whole numbers. */
static uint32_t number_output(struct schema *s, const struct vset *a, bool unique) {
    struct gram *g = s->g;
    uint32_t n_int = MAX(a->n_int, JT_INT_DIGITS), n_frac = MAX(a->n_frac, JT_FRAC_DIGITS);
    uint32_t plain = jt_plain(g, n_int, a->whole ? 0 : n_frac);
    uint32_t e = a->kind == SET_ALL ? plain : rx_and(g, a->rx, plain);
    if (a->kind == SET_RX && a->rx == number_whole(s).rx)
        e = plain;
    if (!unique)
        return e;
    /* No zeros at the end of a fraction, and no -0. */
    uint32_t frac = rx_cat(g, jt_digits(g, '0', '9', 0, RX_INF), jt_digits(g, '1', '9', 1, 1));
    uint32_t one = rx_cat(g, jt_plain(g, RX_INF, 0), jt_opt(g, rx_cat(g, jt_lit(g, "."), frac)));
    return rx_and(g, e, rx_and(g, one, rx_not(g, jt_lit(g, "-0"))));
}

uint32_t vset_output(struct schema *s, const struct vset *a, bool unique) {
    if (a->kind == SET_NONE)
        return RX_NONE;
    if (a->kind == SET_LIST) {
        uint32_t all = choice_of(s, a, true);
        return a->number ? all : jt_quoted(s->g, all);
    }
    if (a->kind == SET_ALL && !unique)
        return a->number ? jt_free_number(s->g) : jt_free_string(s->g);
    return a->number ? number_output(s, a, unique) : jt_quoted(s->g, vset_rx_of(s, a));
}

struct vset vset_of_value(struct schema *s, const json_t *j) {
    struct vset_item *item = arena_alloc(&s->mem, sizeof *item);
    struct vset out = {.kind = SET_LIST, .number = json_is_number(j), .item = item, .n = 1};
    if (out.number) {
        *item = (struct vset_item){number_plain(s, j), number_text(s, j)};
        return out;
    }
    struct buf b = {0};
    jt_spell(&b, (struct str){json_string_value(j), json_string_length(j)});
    item->key = (struct str){arena_strndup(&s->mem, b.len ? b.data : "", b.len), b.len};
    item->text = item->key;
    buf_fini(&b);
    return out;
}
