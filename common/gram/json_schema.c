#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"

/* A conjunction of literals and its rule. */
struct schema_conj {
    struct schema_conj *next_work;
    uint32_t *lits; /* sorted, plain, no LIT_TRUE */
    size_t n;
    uint32_t sym;
    struct scalar scalar;
};

void schema_hint(struct schema *s, uint32_t node, const char *keyword, const char *fmt, ...) {
    if (s->hint.msg[0])
        return;
    char why[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    (void)schema_fail(s, node, keyword, &s->hint, "%s", why);
}

/* ---- conjunctions ------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* normal: plain literals, sorted, each once. *none: two of them cannot be met at once. */
static enum rc normal(struct schema *s, const uint32_t *lits, size_t n, struct lits *out, bool *none,
                      struct err *e) {
    *out = (struct lits){0};
    *none = false;
    for (size_t i = 0; i < n; i++) {
        uint32_t lit = lits[i];
        enum rc rc = schema_plain(s, &lit, e);
        if (rc)
            return rc;
        *none = *none || lit == LIT_FALSE;
        if (lit != LIT_TRUE)
            lits_add(s, out, lit);
    }
    if (out->n > 1)
        qsort(out->v, out->n, sizeof *out->v, by_id);
    size_t m = 0;
    for (size_t i = 0; i < out->n; i++) {
        if (m && out->v[i] == lit_not(out->v[m - 1]))
            *none = true;
        if (!m || out->v[i] != out->v[m - 1])
            out->v[m++] = out->v[i];
    }
    out->n = m;
    return schema_step(s, 1 + n, e);
}

uint32_t scalar_output(struct schema *s, const struct scalar *sc, bool unique) {
    uint32_t alt[5];
    size_t n = 0;
    if (sc->null_)
        alt[n++] = jt_lit(s->g, "null");
    if (sc->true_)
        alt[n++] = jt_lit(s->g, "true");
    if (sc->false_)
        alt[n++] = jt_lit(s->g, "false");
    if (sc->num.kind != SET_NONE)
        alt[n++] = vset_output(s, &sc->num, unique);
    if (sc->str.kind != SET_NONE)
        alt[n++] = vset_output(s, &sc->str, unique);
    return rx_alt_n(s->g, alt, n);
}

static bool scalar_none(const struct scalar *sc) {
    return !sc->null_ && !sc->true_ && !sc->false_ && sc->num.kind == SET_NONE && sc->str.kind == SET_NONE;
}

enum rc schema_void(struct schema *s, const uint32_t *lits, size_t n, bool *yes, struct err *e) {
    struct lits l;
    struct scalar sc;
    enum rc rc = normal(s, lits, n, &l, yes, e);
    if (rc || *yes)
        return rc;
    rc = schema_scalar_all(s, l.v, l.n, &sc, e);
    *yes = !rc && sc.arr == PART_NONE && sc.obj == PART_NONE && scalar_none(&sc);
    return rc;
}

static size_t slot_of(const struct schema *s, const uint32_t *lits, size_t n) {
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = (h ^ lits[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
    size_t at = (size_t)h & (s->cap_conj - 1);
    for (; s->conj_table[at]; at = (at + 1) & (s->cap_conj - 1)) {
        const struct schema_conj *c = s->conj_table[at];
        if (c->n == n && (n == 0 || memcmp(c->lits, lits, n * sizeof *lits) == 0))
            break;
    }
    return at;
}

static void grow(struct schema *s) {
    struct schema_conj **old = s->conj_table;
    size_t n_old = s->cap_conj;
    if (s->n_conj * 2 < s->cap_conj)
        return;
    s->cap_conj = MAX(64, s->cap_conj * 2);
    s->conj_table = xcalloc(s->cap_conj, sizeof(void *));
    for (size_t i = 0; i < n_old; i++)
        if (old[i])
            s->conj_table[slot_of(s, old[i]->lits, old[i]->n)] = old[i];
    free(old);
}

/* make: the symbol of a new conjunction: a terminal if its values are scalars, or else a rule whose
 * productions come later, from the work list. */
static enum rc make(struct schema *s, struct schema_conj *c, struct err *e) {
    enum rc rc = schema_scalar_all(s, c->lits, c->n, &c->scalar, e);
    const struct scalar *sc = &c->scalar;
    if (rc)
        return rc;
    if (sc->arr != PART_NONE || sc->obj != PART_NONE) {
        c->sym = schema_rule(s, "value", 0);
        if (s->work_last)
            s->work_last->next_work = c;
        else
            s->work = c;
        s->work_last = c;
        return RC_OK;
    }
    c->sym = SYM_NONE;
    if (!scalar_none(sc))
        c->sym = gram_term(s->g, scalar_output(s, sc, false), 0);
    return RC_OK;
}

enum rc schema_sym(struct schema *s, const uint32_t *lits, size_t n, uint32_t *sym, struct err *e) {
    struct lits l;
    bool none;
    enum rc rc = normal(s, lits, n, &l, &none, e);
    if (rc)
        return rc;
    if (none) {
        *sym = SYM_NONE;
        return RC_OK;
    }
    grow(s);
    size_t at = slot_of(s, l.v, l.n);
    if (!s->conj_table[at]) {
        struct schema_conj *c = arena_zalloc(&s->mem, 1, sizeof *c);
        c->lits = l.v;
        c->n = l.n;
        rc = make(s, c, e);
        if (rc)
            return rc;
        /* Nothing has been added meanwhile: make goes no deeper than scalars. */
        s->conj_table[at] = c;
        s->n_conj++;
    }
    *sym = s->conj_table[at]->sym;
    return RC_OK;
}

/* any_of_kind: the rule of all arrays, of all objects. */
static enum rc any_of_kind(struct schema *s, enum want want, uint32_t *sym, struct err *e) {
    static const struct branch all = {NULL, NULL};
    if (!s->any[want]) {
        s->any[want] = schema_rule(s, want_name(want), 0) + 1;
        uint32_t rule = s->any[want] - 1;
        enum rc rc = want == WANT_ARRAY ? schema_array(s, rule, &all, e) : schema_object(s, rule, &all, e);
        if (rc)
            return rc;
    }
    *sym = s->any[want] - 1;
    return RC_OK;
}

static enum rc fill_kind(struct schema *s, const struct schema_conj *c, enum want want, struct err *e) {
    enum part part = want == WANT_ARRAY ? c->scalar.arr : c->scalar.obj;
    struct branch *b = NULL;
    uint32_t sym;
    enum rc rc = RC_OK;
    if (part == PART_ALL) {
        rc = any_of_kind(s, want, &sym, e);
        if (!rc)
            schema_prod(s, c->sym, &sym, 1);
        return rc;
    }
    bool done = part == PART_NONE;
    if (!done)
        rc = schema_listed(s, want, c->lits, c->n, c->sym, &done, e);
    if (!rc && !done)
        rc = schema_expand(s, want, c->lits, c->n, &b, e);
    for (; b && !rc; b = b->next)
        rc = want == WANT_ARRAY ? schema_array(s, c->sym, b, e) : schema_object(s, c->sym, b, e);
    return rc;
}

static enum rc fill(struct schema *s, const struct schema_conj *c, struct err *e) {
    if (!scalar_none(&c->scalar)) {
        uint32_t term = gram_term(s->g, scalar_output(s, &c->scalar, false), 0);
        schema_prod(s, c->sym, &term, 1);
    }
    enum rc rc = fill_kind(s, c, WANT_ARRAY, e);
    if (!rc)
        rc = fill_kind(s, c, WANT_OBJECT, e);
    return rc ? rc : schema_step(s, 1, e);
}

/* ---- whitespace --------------------------------------------------------------------------------- */

static enum rc whitespace(struct schema *s, uint32_t *rx, struct err *e) {
    static const struct rx_range chars[] = {{' ', ' '}, {'\t', '\n'}, {'\r', '\r'}};
    struct gram *g = s->g;
    uint32_t one = rx_class(g, chars, ARRAY_LEN(chars), false);
    struct str p = s->options->whitespace_pattern;
    bool none = false;
    struct err why = {0};
    *rx = RX_EMPTY;
    if (s->options->no_whitespace)
        return RC_OK;
    *rx = rx_repeat(g, one, 0, 32);
    if (!p.p)
        return RC_OK;
    enum rc rc = rx_parse(g, p, false, rx, &why);
    if (!rc)
        rc = rx_is_none(g, rx_and(g, *rx, rx_not(g, rx_repeat(g, one, 0, RX_INF))), &none, &why);
    if (rc)
        return err_set(e, RC_INVALID, "whitespace_pattern", "whitespace_pattern: %.300s", why.msg);
    if (!none)
        return err_set(e, RC_INVALID, "whitespace_pattern",
                       "whitespace_pattern must match JSON whitespace only: spaces, tabs, line ends");
    rc = rx_is_none(g, *rx, &none, &why);
    if (rc || none)
        return err_set(e, RC_INVALID, "whitespace_pattern", "whitespace_pattern matches nothing");
    return RC_OK;
}

static enum rc punctuation(struct schema *s, struct err *e) {
    struct gram *g = s->g;
    uint32_t ws, space;
    enum rc rc = whitespace(s, &ws, e);
    if (rc)
        return rc;
    space = s->options->no_whitespace ? jt_opt(g, jt_lit(g, " ")) : ws;
    s->rx_gap[0] = ws;
    s->rx_gap[1] = space;
    s->rx_colon = rx_cat(g, ws, rx_cat(g, jt_lit(g, ":"), space));
    s->t_colon = gram_term(g, s->rx_colon, 0);
    s->t_comma = gram_term(g, rx_cat(g, ws, rx_cat(g, jt_lit(g, ","), space)), 0);
    s->t_open_obj = gram_term(g, rx_cat(g, jt_lit(g, "{"), ws), 0);
    s->t_close_obj = gram_term(g, rx_cat(g, ws, jt_lit(g, "}")), 0);
    s->t_empty_obj = gram_term(g, rx_cat(g, jt_lit(g, "{"), rx_cat(g, ws, jt_lit(g, "}"))), 0);
    s->t_open_arr = gram_term(g, rx_cat(g, jt_lit(g, "["), ws), 0);
    s->t_close_arr = gram_term(g, rx_cat(g, ws, jt_lit(g, "]")), 0);
    s->t_empty_arr = gram_term(g, rx_cat(g, jt_lit(g, "["), rx_cat(g, ws, jt_lit(g, "]"))), 0);
    return RC_OK;
}

/* ---- entry -------------------------------------------------------------------------------------- */

static enum rc build(struct schema *s, const json_t *doc, uint32_t *sym, struct err *e) {
    uint32_t root;
    enum rc rc = punctuation(s, e);
    if (!rc)
        rc = schema_load(s, doc, &root, e);
    if (!rc)
        rc = schema_sym(s, &root, 1, sym, e);
    while (!rc && s->work) {
        struct schema_conj *c = s->work;
        s->work = c->next_work;
        if (!s->work)
            s->work_last = NULL;
        rc = fill(s, c, e);
    }
    if (!rc && (*sym == SYM_NONE || !schema_productive(s, *sym)))
        return err_set(e, RC_INVALID, NULL, "JSON Schema: no value satisfies it%s%s",
                       s->hint.msg[0] ? ": " : "", s->hint.msg);
    return rc;
}

enum rc gram_add_json_schema(struct gram *g, const struct json_t *schema, const struct gram_options *o,
                             uint32_t *sym, struct err *e) {
    static const struct gram_options defaults = {0};
    const struct gram_limits *limits = gram_limits_of(g);
    struct schema s = {.g = g, .options = o ? o : &defaults};
    uint32_t out;
    s.n_nodes_max = limits->n_nodes;
    s.n_choices_max = limits->n_choices;
    arena_init(&s.mem);
    enum rc rc = build(&s, schema, &out, e);
    arena_fini(&s.mem);
    free(s.nodes);
    free(s.node_table);
    free(s.resources);
    free(s.anchors);
    free(s.conj_table);
    free(s.log);
    free(s.is_rule);
    if (!rc)
        *sym = out;
    return rc;
}
