/* How many members a set has, if they are few: so that items that may not repeat cannot run out unnoticed. */
#include "common/gram/schema.h"

enum { LONG = 12 }; /* sets with longer members count as large, unless they are lists */

struct walk {
    struct schema *s;
    uint32_t rx;
    char text[LONG + 1];
    uint32_t n;
    struct str *out; /* [SCHEMA_FEW_MAX + 1], or NULL: only counted */
};

/* none: no member begins with w->text[0 .. n). */
static enum rc none(struct walk *w, size_t n, bool *yes, struct err *e) {
    struct gram *g = w->s->g;
    uint32_t begins = rx_cat(g, rx_bytes(g, (struct str){w->text, n}), RX_ANY);
    enum rc rc = rx_is_none(g, rx_and(g, w->rx, begins), yes, e);
    return rc ? rc : schema_step(w->s, 1, e);
}

static void take(struct walk *w, size_t n) {
    if (w->out)
        w->out[w->n] = (struct str){arena_strndup(&w->s->mem, w->text, n), n};
    w->n++;
}

/* walk: depth first over the members, in ASCII. At most LONG deep. */
static enum rc walk(struct walk *w, size_t n, struct err *e) {
    if (rx_matches(w->s->g, w->rx, (struct str){w->text, n}))
        take(w, n);
    for (char c = ' '; n < LONG && c <= '~' && w->n <= SCHEMA_FEW_MAX; c++) {
        bool yes;
        w->text[n] = c;
        enum rc rc = none(w, n + 1, &yes, e);
        if (!rc && !yes)
            rc = walk(w, n + 1, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}

/* short_ones: few enough to be counted: no member is longer than LONG, or beyond ASCII. */
static enum rc short_ones(struct schema *s, uint32_t rx, bool *yes, struct err *e) {
    static const struct rx_range ascii = {' ', '~'};
    struct gram *g = s->g;
    uint32_t few = rx_repeat(g, rx_class(g, &ascii, 1, false), 0, LONG);
    return rx_is_none(g, rx_and(g, rx, rx_not(g, few)), yes, e);
}

enum rc set_members(struct schema *s, uint32_t rx, struct str **out, uint32_t *n, struct err *e) {
    struct walk w = {.s = s, .rx = rx};
    bool few;
    enum rc rc = short_ones(s, rx, &few, e);
    *n = SCHEMA_INF;
    if (rc || !few)
        return rc;
    w.out = arena_alloc(&s->mem, (SCHEMA_FEW_MAX + 1 + LONG) * sizeof *w.out);
    rc = walk(&w, 0, e);
    if (!rc && w.n <= SCHEMA_FEW_MAX) {
        *n = w.n;
        *out = w.out;
    }
    return rc;
}

/* count: SCHEMA_INF if there are many. */
static enum rc count(struct schema *s, const struct vset *a, uint32_t *n, struct err *e) {
    struct str *members;
    *n = a->kind == SET_NONE ? 0 : SCHEMA_INF;
    if (a->kind == SET_LIST)
        *n = (uint32_t)a->n;
    if (a->kind != SET_RX)
        return RC_OK;
    return set_members(s, a->number ? vset_output(s, a, true) : a->rx, &members, n, e);
}

enum rc scalar_size(struct schema *s, const struct scalar *sc, uint32_t *n, struct err *e) {
    uint32_t numbers, strings;
    *n = SCHEMA_INF;
    if (sc->arr != PART_NONE || sc->obj != PART_NONE)
        return RC_OK;
    enum rc rc = count(s, &sc->num, &numbers, e);
    if (!rc)
        rc = count(s, &sc->str, &strings, e);
    if (!rc && numbers != SCHEMA_INF && strings != SCHEMA_INF)
        *n = numbers + strings + sc->null_ + sc->true_ + sc->false_;
    return rc;
}
