#include "common/gram/engine.h"
#include "common/gram/gram.h"

/* Symbols and productions as they are built; sharing; limits. */
struct gram *gram_new(const struct gram_limits *limits) {
    struct gram *g = xcalloc(1, sizeof *g);
    if (limits)
        g->limit = *limits;
    struct gram_limits *l = &g->limit;
    l->n_rx = l->n_rx ? l->n_rx : 1u << 20;
    l->n_symbols = l->n_symbols ? l->n_symbols : 1u << 18;
    l->n_parts = l->n_parts ? l->n_parts : 1u << 20;
    l->memory_bytes = l->memory_bytes ? l->memory_bytes : 64 * MIB;
    l->compile_fuel = l->compile_fuel ? l->compile_fuel : 50000000;
    l->mask_fuel = l->mask_fuel ? l->mask_fuel : 5000000;
    l->text_bytes = l->text_bytes ? l->text_bytes : 256 * KIB;
    l->n_nodes = l->n_nodes ? l->n_nodes : 32768;
    l->n_choices = l->n_choices ? l->n_choices : 4096;
    l->regex_bytes = l->regex_bytes ? l->regex_bytes : 16 * KIB;
    l->regex_repeat = l->regex_repeat ? l->regex_repeat : 1024;
    l->regex_states = l->regex_states ? l->regex_states : 100000;
    atomic_init(&g->n_holds, 1);
    CHECK(pthread_mutex_init(&g->lock, NULL) == 0);
    g->bytes = sizeof *g;
    g->fuel = (int64_t)MIN(l->compile_fuel, (uint64_t)INT64_MAX);
    rx_pool_init(g);
    return g;
}

const struct gram_limits *gram_limits_of(const struct gram *g) {
    return &g->limit;
}

void gram_set_over(struct gram *g, const char *what) {
    if (!g->over && !g->fail)
        g->over = what;
    g->fail = true;
}

bool gram_over(const struct gram *g) {
    return g->fail;
}

struct gram *gram_hold(struct gram *g) {
    atomic_fetch_add_explicit(&g->n_holds, 1, memory_order_relaxed);
    return g;
}

void gram_drop(struct gram *g) {
    if (!g || atomic_fetch_sub_explicit(&g->n_holds, 1, memory_order_acq_rel) != 1)
        return;
    CHECK(!g->runs);
    if (g->budget)
        atomic_fetch_sub_explicit(&g->budget->bytes, g->told, memory_order_relaxed);
    mask_forget(g);
    keys_forget(g);
    ctx_fini(g);
    config_fini(g);
    dfa_fini(g);
    rx_pool_fini(g);
    free(g->sym);
    free(g->prod);
    free(g->part);
    free(g->names);
    free(g->place);
    free(g->place_keys);
    free(g->prod_place);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

size_t gram_bytes(const struct gram *g) {
    struct gram *unlocked = (struct gram *)(uintptr_t)g;
    pthread_mutex_lock(&unlocked->lock);
    size_t n = g->bytes;
    pthread_mutex_unlock(&unlocked->lock);
    return n;
}

static uint32_t add_symbol(struct gram *g, struct gram_sym s) {
    CHECK(!g->sealed);
    if (g->n_syms >= g->limit.n_symbols) {
        gram_set_over(g, "too many rules and terminals");
        if (g->n_syms > 0)
            return g->n_syms - 1;
    }
    g->sym = table_grow(g->sym, &g->cap_syms, (size_t)g->n_syms + 1, sizeof *g->sym, &g->bytes);
    g->sym[g->n_syms] = s;
    gram_spend(g, 4);
    if (g->bytes > g->limit.memory_bytes)
        gram_set_over(g, "it takes too much memory");
    return g->n_syms++;
}

uint32_t gram_rule(struct gram *g, struct str name, unsigned flags) {
    uint32_t at = g->n_names, n = (uint32_t)MIN(name.n, (size_t)128);
    if (!g->fail) {
        g->names = table_grow(g->names, &g->cap_names, (size_t)at + n + 1, 1, &g->bytes);
        if (n)
            memcpy(g->names + at, name.p, n);
        g->names[at + n] = '\0';
        g->n_names += n + 1;
    } else {
        at = 0;
    }
    return add_symbol(g, (struct gram_sym){.name = at, .flags = (uint8_t)flags});
}

uint32_t gram_term(struct gram *g, uint32_t rx, unsigned flags) {
    CHECK(rx < g->rx.n);
    return add_symbol(g, (struct gram_sym){.rx = rx, .flags = (uint8_t)flags, .is_term = true});
}

void gram_prod(struct gram *g, uint32_t rule, const uint32_t *parts, size_t n) {
    CHECK(!g->sealed && rule < g->n_syms && (g->fail || !g->sym[rule].is_term));
    if (n >= g->limit.n_parts - g->n_parts || g->n_prods >= g->limit.n_parts)
        gram_set_over(g, "the productions are too long or too many");
    if (!gram_spend(g, 4 + (int64_t)n))
        return;
    g->part = table_grow(g->part, &g->cap_parts, (size_t)g->n_parts + n, sizeof *g->part, &g->bytes);
    g->prod = table_grow(g->prod, &g->cap_prods, (size_t)g->n_prods + 1, sizeof *g->prod, &g->bytes);
    g->prod[g->n_prods++] = (struct gram_prod){rule, g->n_parts, (uint32_t)n};
    for (size_t i = 0; i < n; i++) {
        CHECK(parts[i] < g->n_syms);
        g->part[g->n_parts++] = parts[i];
    }
}

/* ---- repeats ----------------------------------------------------------------------------------- */

/* A count of copies and the rules for it: `all` derives exactly n copies, `some` one to n. The counts that
 * halving leads to are at most two for each power of two. */
struct copies {
    uint32_t n, all, some;
};
struct repeat {
    uint32_t part, between;
    struct copies memo[160];
    size_t n_memo;
};

static void prod_joined(struct gram *g, const struct repeat *r, uint32_t rule, uint32_t a, uint32_t b) {
    if (r->between == UINT32_MAX)
        gram_prod(g, rule, (uint32_t[]){a, b}, 2);
    else
        gram_prod(g, rule, (uint32_t[]){a, r->between, b}, 3);
}

/* memo_of: recursion is as deep as n has bits. */
static struct copies *memo_of(struct repeat *r, uint32_t n) {
    for (size_t i = 0; i < r->n_memo; i++)
        if (r->memo[i].n == n)
            return &r->memo[i];
    CHECK(r->n_memo < ARRAY_LEN(r->memo));
    r->memo[r->n_memo] = (struct copies){n, UINT32_MAX, UINT32_MAX};
    return &r->memo[r->n_memo++];
}

static uint32_t copies_all(struct gram *g, struct repeat *r, uint32_t n) {
    struct copies *m = memo_of(r, n);
    if (m->all != UINT32_MAX)
        return m->all;
    if (n == 1)
        return m->all = r->part;
    m->all = gram_rule(g, (struct str){NULL, 0}, 0);
    uint32_t a = copies_all(g, r, n / 2), b = copies_all(g, r, n - n / 2);
    prod_joined(g, r, m->all, a, b);
    return m->all;
}

static uint32_t copies_some(struct gram *g, struct repeat *r, uint32_t n) {
    struct copies *m = memo_of(r, n);
    if (m->some != UINT32_MAX)
        return m->some;
    if (n == 1)
        return m->some = r->part;
    m->some = gram_rule(g, (struct str){NULL, 0}, 0);
    uint32_t few = copies_some(g, r, n / 2), all = copies_all(g, r, n / 2),
             more = copies_some(g, r, n - n / 2);
    gram_prod(g, m->some, &few, 1);
    prod_joined(g, r, m->some, all, more);
    return m->some;
}

uint32_t gram_repeat(struct gram *g, uint32_t part, uint32_t between, uint32_t min, uint32_t max) {
    struct repeat r = {.part = part, .between = between};
    uint32_t top = gram_rule(g, (struct str){NULL, 0}, 0), body = part;
    if (min > max)
        return top; /* nothing */
    if (min == 0)
        gram_prod(g, top, NULL, 0);
    if (max == 0)
        return top;
    uint32_t least = MAX(min, 1u);
    if (max == RX_INF) { /* body: one or more, recursive on the right */
        uint32_t more = gram_rule(g, (struct str){NULL, 0}, 0);
        body = gram_rule(g, (struct str){NULL, 0}, 0);
        gram_prod(g, body, (uint32_t[]){part, more}, 2);
        gram_prod(g, more, NULL, 0);
        if (between == UINT32_MAX)
            gram_prod(g, more, &body, 1);
        else
            gram_prod(g, more, (uint32_t[]){between, body}, 2);
    } else {
        body = copies_some(g, &r, max - least + 1);
    }
    if (least == 1)
        gram_prod(g, top, &body, 1);
    else
        prod_joined(g, &r, top, copies_all(g, &r, least - 1), body);
    return top;
}
