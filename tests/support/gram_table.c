#include "tests/support/gram_table.h"

#include "common/utf8.h"

#include <stdlib.h>

enum { N_NFA = 1024, N_DFA = 400, N_EDGES = 8192 };

/* A nondeterministic automaton: edges with a range of bytes, or lo > hi for none. */
struct nfa_edge {
    uint16_t from, to;
    uint16_t lo, hi;
};
struct nfa {
    struct nfa_edge edge[N_EDGES];
    uint32_t n_states, n_edges;
    bool over;
};
struct frag {
    uint16_t in, out;
};

static uint16_t state(struct nfa *n) {
    if (n->n_states + 1 >= N_NFA)
        n->over = true;
    else
        n->n_states++;
    return (uint16_t)(n->n_states - 1);
}

static void edge(struct nfa *n, uint16_t from, uint16_t to, unsigned lo, unsigned hi) {
    if (n->n_edges == N_EDGES)
        n->over = true;
    else
        n->edge[n->n_edges++] = (struct nfa_edge){from, to, (uint16_t)lo, (uint16_t)hi};
}

static void jump(struct nfa *n, uint16_t from, uint16_t to) {
    edge(n, from, to, 1, 0);
}

/* any_char: the well-formed sequences of the Unicode standard, table 3-7. */
static void any_char(struct nfa *n, uint16_t from, uint16_t to) {
    static const uint8_t row[][8] = {
        {0x00, 0x7F},
        {0xC2, 0xDF, 0x80, 0xBF},
        {0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF},
        {0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF},
        {0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF},
        {0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF},
        {0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
        {0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
        {0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF},
    };
    for (size_t r = 0; r < ARRAY_LEN(row); r++) {
        uint16_t at = from;
        for (unsigned k = 0; k < 8 && (k == 0 || row[r][k + 1]); k += 2) {
            uint16_t next = k == 6 || !row[r][k + 3] ? to : state(n);
            edge(n, at, next, row[r][k], row[r][k + 1]);
            at = next;
            if (next == to)
                break;
        }
    }
}

static struct frag build(struct nfa *n, const struct ast *x);

/* embed: a table as part of a larger automaton. */
static struct frag embed(struct nfa *n, const struct table *t) {
    struct frag f = {0, 0};
    uint16_t first = (uint16_t)n->n_states;
    for (uint32_t i = 0; i < t->n; i++)
        state(n);
    f.in = first;
    f.out = state(n);
    if (n->over)
        return f;
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->accept[i])
            jump(n, (uint16_t)(first + i), f.out);
        for (unsigned b = 0; b < 256;) {
            unsigned lo = b, to = t->next[i][b];
            while (b < 256 && t->next[i][b] == to)
                b++;
            if (t->live[to])
                edge(n, (uint16_t)(first + i), (uint16_t)(first + to), lo, b - 1);
        }
    }
    return f;
}

/* combine: of a and b, with: accepted by a and b (both) or by a and not b. */
static bool combine(const struct table *a, const struct table *b, bool both, struct table *out);

static struct frag build_table(struct nfa *n, const struct ast *x) {
    static const struct ast any = {.kind = AST_ANY};
    static const struct ast one = {.kind = AST_CLASS, .negated = true};
    struct ast positive = *x;
    positive.negated = false;
    const struct ast *left = x->kind == AST_AND ? x->a : x->kind == AST_NOT ? &any : &one;
    const struct ast *right = x->kind == AST_AND ? x->b : x->kind == AST_NOT ? x->a : &positive;
    struct table a = {0}, b = {0}, c = {0};
    struct frag f = {0, 0};
    if (table_of(left, &a) && table_of(right, &b) && combine(&a, &b, x->kind == AST_AND, &c))
        f = embed(n, &c);
    else
        n->over = true;
    table_free(&a);
    table_free(&b);
    table_free(&c);
    return f;
}

static struct frag build_rep(struct nfa *n, const struct ast *x) {
    uint16_t in = state(n), at = in, out = state(n);
    for (uint32_t i = 0; i < x->min; i++) {
        struct frag f = build(n, x->a);
        jump(n, at, f.in);
        at = f.out;
    }
    if (x->max == UINT32_MAX) {
        struct frag f = build(n, x->a);
        uint16_t loop = state(n);
        jump(n, at, loop);
        jump(n, loop, f.in);
        jump(n, f.out, loop);
        at = loop;
    } else {
        for (uint32_t i = x->min; i < x->max; i++) {
            struct frag f = build(n, x->a);
            jump(n, at, f.in);
            jump(n, at, out);
            at = f.out;
        }
    }
    jump(n, at, out);
    return (struct frag){in, out};
}

static struct frag build(struct nfa *n, const struct ast *x) {
    if (n->over)
        return (struct frag){0, 0};
    if (x->kind == AST_AND || x->kind == AST_NOT || (x->kind == AST_CLASS && x->negated && x->n_cp))
        return build_table(n, x);
    if (x->kind == AST_REP)
        return build_rep(n, x);
    struct frag f = {state(n), 0}, a, b;
    f.out = state(n);
    switch (x->kind) {
    case AST_EMPTY:
        jump(n, f.in, f.out);
        break;
    case AST_ANY: /* a loop of its own, which nothing leads back into */
        jump(n, f.in, f.out);
        any_char(n, f.out, f.out);
        break;
    case AST_BYTES: {
        uint16_t at = f.in;
        for (size_t i = 0; i < x->bytes.n; i++) {
            uint16_t next = state(n);
            edge(n, at, next, (uint8_t)x->bytes.p[i], (uint8_t)x->bytes.p[i]);
            at = next;
        }
        jump(n, at, f.out);
        break;
    }
    case AST_CLASS:
        if (x->negated)
            any_char(n, f.in, f.out);
        for (uint32_t i = 0; i < x->n_cp; i++) {
            char s[4];
            size_t len = utf8_encode(x->cp[i], s);
            uint16_t at = f.in;
            for (size_t k = 0; k < len; k++) {
                uint16_t next = k + 1 == len ? f.out : state(n);
                edge(n, at, next, (uint8_t)s[k], (uint8_t)s[k]);
                at = next;
            }
        }
        break;
    case AST_CAT:
        a = build(n, x->a);
        b = build(n, x->b);
        jump(n, f.in, a.in);
        jump(n, a.out, b.in);
        jump(n, b.out, f.out);
        break;
    case AST_ALT:
        a = build(n, x->a);
        b = build(n, x->b);
        jump(n, f.in, a.in);
        jump(n, f.in, b.in);
        jump(n, a.out, f.out);
        jump(n, b.out, f.out);
        break;
    default:
        break; /* AST_NONE: no way through */
    }
    return f;
}

static void find_live(struct table *t) {
    bool more = true;
    t->live = xcalloc(t->n, 1);
    memcpy(t->live, t->accept, t->n);
    while (more) {
        more = false;
        for (uint32_t i = 0; i < t->n; i++)
            for (unsigned b = 0; b < 256 && !t->live[i]; b++)
                if (t->live[t->next[i][b]])
                    t->live[i] = more = true;
    }
}

static void table_alloc(struct table *t) {
    t->next = xcalloc(N_DFA, sizeof *t->next);
    t->accept = xcalloc(N_DFA, 1);
}

struct subset {
    uint64_t w[N_NFA / 64];
};

static void follow_jumps(const struct nfa *n, struct subset *s) {
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < n->n_edges; i++) {
            const struct nfa_edge *e = &n->edge[i];
            if (e->lo > e->hi && (s->w[e->from / 64] >> (e->from % 64) & 1) &&
                !(s->w[e->to / 64] >> (e->to % 64) & 1)) {
                s->w[e->to / 64] |= 1ull << (e->to % 64);
                more = true;
            }
        }
    }
}

static bool find_subset(struct subset *all, uint32_t *n, const struct subset *s, uint16_t *id) {
    for (uint32_t i = 0; i < *n; i++)
        if (memcmp(&all[i], s, sizeof *s) == 0) {
            *id = (uint16_t)i;
            return true;
        }
    if (*n == N_DFA)
        return false;
    all[*n] = *s;
    *id = (uint16_t)(*n)++;
    return true;
}

static bool determinise(const struct nfa *n, struct frag f, struct table *t) {
    struct subset *all = xcalloc(N_DFA, sizeof *all), s;
    uint16_t id;
    bool ok = true, cut[257] = {false};
    cut[0] = cut[256] = true;
    for (uint32_t i = 0; i < n->n_edges; i++)
        if (n->edge[i].lo <= n->edge[i].hi)
            cut[n->edge[i].lo] = cut[n->edge[i].hi + 1] = true;
    table_alloc(t);
    memset(&s, 0, sizeof s);
    s.w[f.in / 64] |= 1ull << (f.in % 64);
    follow_jumps(n, &s);
    find_subset(all, &t->n, &s, &id);
    for (uint32_t i = 0; ok && i < t->n; i++) {
        t->accept[i] = all[i].w[f.out / 64] >> (f.out % 64) & 1;
        for (unsigned lo = 0, hi; ok && lo < 256; lo = hi) {
            for (hi = lo + 1; !cut[hi]; hi++) {
            }
            memset(&s, 0, sizeof s);
            for (uint32_t k = 0; k < n->n_edges; k++) {
                const struct nfa_edge *e = &n->edge[k];
                if (e->lo <= lo && lo <= e->hi && (all[i].w[e->from / 64] >> (e->from % 64) & 1))
                    s.w[e->to / 64] |= 1ull << (e->to % 64);
            }
            follow_jumps(n, &s);
            ok = find_subset(all, &t->n, &s, &id);
            for (unsigned b = lo; ok && b < hi; b++)
                t->next[i][b] = id;
        }
    }
    free(all);
    if (ok)
        find_live(t);
    return ok;
}

static bool combine(const struct table *a, const struct table *b, bool both, struct table *t) {
    uint32_t pair[N_DFA][2] = {{0, 0}};
    table_alloc(t);
    t->n = 1;
    for (uint32_t i = 0; i < t->n; i++) {
        t->accept[i] = a->accept[pair[i][0]] && b->accept[pair[i][1]] == both;
        for (unsigned c = 0; c < 256; c++) {
            uint32_t x = a->next[pair[i][0]][c], y = b->next[pair[i][1]][c], k = 0;
            while (k < t->n && (pair[k][0] != x || pair[k][1] != y))
                k++;
            if (k == N_DFA)
                return false;
            if (k == t->n) {
                pair[k][0] = x;
                pair[k][1] = y;
                t->n++;
            }
            t->next[i][c] = (uint16_t)k;
        }
    }
    find_live(t);
    return true;
}

bool table_of(const struct ast *x, struct table *t) {
    struct nfa *n = xcalloc(1, sizeof *n);
    *t = (struct table){0};
    struct frag f = build(n, x);
    bool ok = !n->over && determinise(n, f, t);
    free(n);
    return ok;
}

void table_free(struct table *t) {
    free(t->next);
    free(t->accept);
    free(t->live);
    *t = (struct table){0};
}
