/* regex_set.c: sets of code points: arithmetic, Unicode properties, letter case. */
#include "common/gram/regex.h"

#include "common/gram/regex_tab.h"

#include <stdlib.h>

enum { CP_MAX = 0x10FFFF, TIDY_ABOVE = 4096 };

void rx_set_fini(struct rx_set *s) {
    free(s->r);
    *s = (struct rx_set){0};
}

void rx_set_add(struct rx_set *s, uint32_t lo, uint32_t hi) {
    CHECK(lo <= hi && hi <= CP_MAX);
    /* A class of many \p{...} stays as small as its union: what is tidy has at most a few thousand ranges. */
    if (s->n == s->cap && s->n - s->n_tidy > TIDY_ABOVE)
        rx_set_tidy(s);
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8;
        s->r = xreallocarray(s->r, s->cap, sizeof *s->r);
    }
    s->r[s->n++] = (struct rx_range){lo, hi};
}

static int range_order(const void *a, const void *b) {
    const struct rx_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void rx_set_tidy(struct rx_set *s) {
    if (s->n_tidy == s->n)
        return;
    qsort(s->r, s->n, sizeof *s->r, range_order);
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (kept && s->r[i].lo <= s->r[kept - 1].hi + 1)
            s->r[kept - 1].hi = MAX(s->r[kept - 1].hi, s->r[i].hi);
        else
            s->r[kept++] = s->r[i];
    }
    s->n = s->n_tidy = kept;
}

void rx_set_negate(struct rx_set *s) {
    rx_set_tidy(s);
    struct rx_set out = {0};
    uint32_t next = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->r[i].lo > next)
            rx_set_add(&out, next, s->r[i].lo - 1);
        next = s->r[i].hi + 1;
    }
    if (next <= CP_MAX)
        rx_set_add(&out, next, CP_MAX);
    out.n_tidy = out.n;
    rx_set_fini(s);
    *s = out;
}

/* ---- letter case -------------------------------------------------------------------------------- */

/* orbit_from: the first entry of the table at or after a code point. */
static size_t orbit_from(uint32_t cp) {
    size_t lo = 0, hi = RXT_N_ORBITS;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (rxt_orbits[mid].cp < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void fold_one(struct rx_set *s, const struct rxt_orbit *o) {
    for (uint32_t cp = o->next; cp != o->cp; cp = rxt_orbits[orbit_from(cp)].next)
        rx_set_add(s, cp, cp);
}

void rx_set_fold(struct rx_set *s) {
    rx_set_tidy(s);
    struct rx_set more = {0};
    for (size_t i = 0; i < s->n; i++)
        for (size_t o = orbit_from(s->r[i].lo); o < RXT_N_ORBITS && rxt_orbits[o].cp <= s->r[i].hi; o++)
            fold_one(&more, &rxt_orbits[o]);
    for (size_t i = 0; i < more.n; i++)
        rx_set_add(s, more.r[i].lo, more.r[i].hi);
    rx_set_fini(&more);
    rx_set_tidy(s);
}

/* ---- properties --------------------------------------------------------------------------------- */

enum { NAME_MAX_BYTES = 48 };

/* plain_name: in capitals, without spaces, '-' and '_'; false if it is none. */
static bool plain_name(struct str s, char out[NAME_MAX_BYTES]) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == ' ' || c == '_' || c == '-')
            continue;
        if (n + 1 == NAME_MAX_BYTES || (unsigned char)c >= 0x80)
            return false;
        out[n++] = c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
    }
    out[n] = 0;
    return n > 0;
}

static int name_order(const void *key, const void *entry) {
    return strcmp(key, ((const struct rxt_name *)entry)->name);
}

static const struct rxt_name *name_find(const char *name, const struct rxt_name *table, size_t n) {
    return bsearch(name, table, n, sizeof *table, name_order);
}

/* add_runs: the runs whose value is in the mask (values below 32), or is `value` if the mask is 0. */
static void add_runs(struct rx_set *s, const uint32_t *runs, size_t n, uint32_t mask, uint32_t value) {
    for (size_t i = 0; i < n; i++) {
        uint32_t v = runs[i] & 0xFF, lo = runs[i] >> 8;
        uint32_t hi = i + 1 < n ? (runs[i + 1] >> 8) - 1 : CP_MAX;
        if (mask ? mask >> v & 1 : v == value)
            rx_set_add(s, lo, hi);
    }
}

static bool add_binary(struct rx_set *s, const char *name) {
    for (size_t i = 0; i < RXT_N_BINARY; i++) {
        const struct rxt_binary *b = &rxt_binary[i];
        if (strcmp(b->name, name) != 0)
            continue;
        for (uint32_t k = 0; k < b->n; k += 2)
            rx_set_add(s, rxt_edges[b->at + k], k + 1 < b->n ? rxt_edges[b->at + k + 1] - 1 : CP_MAX);
        return true;
    }
    return false;
}

static bool add_named(struct rx_set *s, struct str name) {
    char key[NAME_MAX_BYTES], value[NAME_MAX_BYTES];
    const char *eq = name.n ? memchr(name.p, '=', name.n) : NULL;
    struct str left = {name.p, eq ? (size_t)(eq - name.p) : 0};
    struct str right = eq ? (struct str){eq + 1, name.n - left.n - 1} : name;
    if (!plain_name(right, value) || (eq && !plain_name(left, key)))
        return false;
    bool category = !eq || !strcmp(key, "GC") || !strcmp(key, "GENERALCATEGORY");
    bool script = !eq || !strcmp(key, "SC") || !strcmp(key, "SCRIPT");
    const struct rxt_name *found;
    if (category && (found = name_find(value, rxt_category_names, RXT_N_CATEGORY_NAMES))) {
        add_runs(s, rxt_category_runs, RXT_N_CATEGORY_RUNS, found->value, 0);
        return true;
    }
    if (script && (found = name_find(value, rxt_script_names, RXT_N_SCRIPT_NAMES))) {
        add_runs(s, rxt_script_runs, RXT_N_SCRIPT_RUNS, 0, found->value);
        return true;
    }
    if (eq)
        return false;
    if (!strcmp(value, "ANY") || !strcmp(value, "ASCII")) {
        rx_set_add(s, 0, value[1] == 'N' ? CP_MAX : 0x7F);
        return true;
    }
    return add_binary(s, value);
}

bool rx_set_property(struct rx_set *s, struct str name, bool negated) {
    struct rx_set own = {0};
    bool known = add_named(&own, name);
    if (known && negated)
        rx_set_negate(&own);
    for (size_t i = 0; i < own.n; i++)
        rx_set_add(s, own.r[i].lo, own.r[i].hi);
    rx_set_fini(&own);
    return known;
}

/* ---- expressions --------------------------------------------------------------------------------- */

uint32_t rx_set_expr(struct gram *g, struct rx_set *s) {
    rx_set_tidy(s);
    return s->n ? rx_class(g, s->r, s->n, false) : RX_NONE;
}

uint32_t rx_any_char(struct gram *g) {
    static const struct rx_range all = {0, CP_MAX};
    return rx_class(g, &all, 1, false);
}
