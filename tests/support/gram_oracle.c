#include "tests/support/gram_oracle.h"
#include "tests/support/gram_table.h"

#include <stdlib.h>

enum {
    N_TERMS = 6,
    N_RULES = 16,
    N_PRODS = 80,
    N_PARTS = 8,
    N_AST = 400,
    N_TEXT = 256,
    N_KEYSETS = 4000,
    N_KEYS = 40,
    N_ITEMS = 250
};

struct keyset {
    uint16_t begin[N_KEYS], end[N_KEYS]; /* in the text */
    uint32_t n;
};
struct prod {
    uint32_t rule, n;
    int part[N_PARTS]; /* a rule, or -1 - terminal */
    bool kept;
};
struct item {
    uint16_t prod, dot, origin, keys_in, keys;
};
struct set {
    struct item *item;
    uint32_t n, cap;
    uint32_t n_keysets;
    uint16_t *state; /* [position][N_TERMS] of a terminal begun at each earlier position */
};

struct oracle {
    uint64_t seed;
    struct ast ast[N_AST];
    uint32_t n_ast;
    struct table term[N_TERMS];
    bool unique[N_TERMS], scope[N_RULES], productive[N_RULES];
    uint32_t n_terms, n_rules, n_prods;
    struct prod prod[N_PRODS];
    char text[N_TEXT];
    size_t n_text;
    struct set set[N_TEXT + 1];
    struct keyset *keysets;
    uint32_t n_keysets;
    bool over; /* of a limit: answers are worthless */
};

static const char *const alphabet[] = {
    "a", "b", "c", "1", "{", "\"", ",", " ", "\xC3\xA9", "\xC3\xA8", "\xE6\xBC\xA2", "\xF0\x9F\x98\x80"};
static const uint32_t code_points[] = {'a', 'b', 'c', '1', '{', '"', ',', ' ', 0xE9, 0xE8, 0x6F22, 0x1F600};

uint32_t oracle_random(uint64_t *state, uint32_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}

/* ---- made-up expressions, and the same for the engine ------------------------------------------- */

static struct ast *node(struct oracle *o, enum ast_kind kind) {
    CHECK(o->n_ast < N_AST);
    o->ast[o->n_ast] = (struct ast){.kind = kind};
    return &o->ast[o->n_ast++];
}

static const struct ast *leaf(struct oracle *o) {
    uint64_t *r = &o->seed;
    uint32_t kind = oracle_random(r, 20);
    struct ast *x;
    if (kind < 11) {
        static const struct str words[] = {STR_LIT("a"),
                                           STR_LIT("b"),
                                           STR_LIT("ab"),
                                           STR_LIT("abc"),
                                           STR_LIT("\""),
                                           STR_LIT("{"),
                                           STR_LIT(","),
                                           STR_LIT(" "),
                                           STR_LIT("1"),
                                           STR_LIT("\xC3\xA9"),
                                           STR_LIT("a,b"),
                                           STR_LIT("{\""),
                                           STR_LIT("ba\xE6\xBC\xA2"),
                                           STR_LIT("aaa")};
        x = node(o, AST_BYTES);
        x->bytes = words[oracle_random(r, ARRAY_LEN(words))];
    } else if (kind < 18) {
        x = node(o, AST_CLASS);
        x->n_cp = oracle_random(r, 5);
        x->negated = x->n_cp == 0 || oracle_random(r, 4) == 0;
        for (uint32_t i = 0; i < x->n_cp; i++)
            x->cp[i] = code_points[oracle_random(r, ARRAY_LEN(code_points))];
    } else {
        x = node(o, kind == 18 ? AST_ANY : oracle_random(r, 6) ? AST_EMPTY : AST_NONE);
    }
    return x;
}

static const struct ast *expression(struct oracle *o, unsigned depth) {
    uint64_t *r = &o->seed;
    uint32_t kind = oracle_random(r, 20);
    if (depth == 0 || kind < 4 || o->n_ast > N_AST - 60)
        return leaf(o);
    struct ast *x = node(o, kind < 10    ? AST_CAT
                            : kind < 13  ? AST_ALT
                            : kind < 17  ? AST_REP
                            : kind == 17 ? AST_AND
                                         : AST_NOT);
    if (x->kind == AST_NOT && oracle_random(r, 2))
        x->kind = AST_AND;
    x->a = expression(o, depth - 1);
    if (x->kind == AST_REP) {
        x->min = oracle_random(r, 3);
        x->max = oracle_random(r, 3) ? x->min + oracle_random(r, oracle_random(r, 6) ? 4 : 14) : UINT32_MAX;
    } else if (x->kind != AST_NOT) {
        x->b = expression(o, depth - 1);
    }
    if (x->kind == AST_AND && oracle_random(r, 2)) { /* what exclusion looks like */
        struct ast *no = node(o, AST_NOT);
        no->a = x->b;
        x->b = no;
    }
    return x;
}

static uint32_t to_engine(struct oracle *o, struct gram *g, const struct ast *x) {
    struct rx_range ranges[8];
    uint32_t a = 0;
    switch (x->kind) {
    case AST_NONE:
        return RX_NONE;
    case AST_EMPTY:
        return RX_EMPTY;
    case AST_ANY:
        return RX_ANY;
    case AST_BYTES:
        return rx_bytes(g, x->bytes);
    case AST_CLASS:
        for (uint32_t i = 0; i < x->n_cp; i++)
            ranges[i] = (struct rx_range){x->cp[i], x->cp[i]};
        return rx_class(g, ranges, x->n_cp, x->negated);
    case AST_ALT:
        if (x->a->kind == AST_BYTES && x->b->kind == AST_BYTES)
            return rx_choice(g, (struct str[]){x->a->bytes, x->b->bytes}, 2);
        a = to_engine(o, g, x->a);
        return rx_alt(g, a, to_engine(o, g, x->b));
    case AST_CAT:
        a = to_engine(o, g, x->a);
        return rx_cat(g, a, to_engine(o, g, x->b));
    case AST_AND:
        a = to_engine(o, g, x->a);
        return rx_and(g, a, to_engine(o, g, x->b));
    case AST_NOT:
        return rx_not(g, to_engine(o, g, x->a));
    case AST_REP:
        return rx_repeat(g, to_engine(o, g, x->a), x->min, x->max);
    }
    return RX_NONE;
}

/* ---- made-up rules ----------------------------------------------------------------------------- */

static void add_prod(struct oracle *o, uint32_t rule, const int *part, uint32_t n) {
    CHECK(o->n_prods < N_PRODS && n <= N_PARTS);
    struct prod *p = &o->prod[o->n_prods++];
    *p = (struct prod){.rule = rule, .n = n, .kept = true};
    memcpy(p->part, part, n * sizeof *part);
}

/* add_repeat: a rule for part repeated, written out: one production for each count, or a left-recursive one
 * where there is no bound; and the engine's. */
static void add_repeat(struct oracle *o, struct gram *g, uint32_t rule, uint32_t *sym, int part, int between,
                       const uint32_t *terms) {
    uint32_t min = oracle_random(&o->seed, 3), max = min + oracle_random(&o->seed, 3);
    bool inf = oracle_random(&o->seed, 3) == 0, joined = between != 0;
    for (uint32_t n = min; n <= (inf ? MAX(min, 1u) : max); n++) {
        int parts[N_PARTS];
        uint32_t k = 0;
        for (uint32_t i = 0; i < n && k + 2 <= N_PARTS; i++) {
            if (i && joined)
                parts[k++] = between;
            parts[k++] = part;
        }
        add_prod(o, rule, parts, k);
    }
    if (inf && joined)
        add_prod(o, rule, (int[]){(int)rule + 1000, between, part},
                 3); /* 1000: of the non-empty ones, below */
    else if (inf)
        add_prod(o, rule, (int[]){(int)rule, part}, 2);
    uint32_t s = part < 0 ? terms[-1 - part] : sym[part];
    uint32_t b = !joined ? UINT32_MAX : between < 0 ? terms[-1 - between] : sym[between];
    sym[rule] = gram_repeat(g, s, b, min, inf ? RX_INF : max);
}

static int any_part(struct oracle *o, uint32_t n_rules) {
    return oracle_random(&o->seed, 5) < 3 ? -1 - (int)oracle_random(&o->seed, o->n_terms)
                                          : (int)oracle_random(&o->seed, n_rules);
}

static void make_rules(struct oracle *o, struct gram *g, const uint32_t *terms, bool keys, uint32_t *start) {
    uint32_t sym[N_RULES], n_plain = 1 + oracle_random(&o->seed, 5);
    uint32_t n_repeat = keys ? 0 : oracle_random(&o->seed, 3);
    o->n_rules = n_plain;
    for (uint32_t i = 0; i < n_plain; i++) {
        o->scope[i] = keys && oracle_random(&o->seed, 3) == 0;
        sym[i] = gram_rule(g, str_of("r"), o->scope[i] ? RULE_SCOPE : 0);
    }
    for (uint32_t k = 0; k < n_repeat; k++) {
        uint32_t rule = o->n_rules;
        uint32_t first = o->n_prods;
        int part, between = oracle_random(&o->seed, 2) ? -1 - (int)oracle_random(&o->seed, o->n_terms) : 0;
        do
            part = any_part(o, rule);
        while (part >= 0 && sym[part] == UINT32_MAX);
        o->n_rules++;
        add_repeat(o, g, rule, sym, part, between, terms);
        /* Joined without a bound: rule -> "" (if min is 0) | some; some -> part ... | some between part. */
        bool split = false;
        for (uint32_t i = first; i < o->n_prods; i++)
            split = split || (o->prod[i].n && o->prod[i].part[0] == (int)rule + 1000);
        if (!split)
            continue;
        uint32_t some = o->n_rules++;
        sym[some] = UINT32_MAX; /* nobody else uses it */
        for (uint32_t i = first; i < o->n_prods; i++) {
            if (o->prod[i].n && o->prod[i].part[0] == (int)rule + 1000)
                o->prod[i].part[0] = (int)some;
            if (o->prod[i].n)
                o->prod[i].rule = some;
        }
        add_prod(o, rule, (int[]){(int)some}, 1);
    }
    for (uint32_t i = 0; i < n_plain; i++)
        for (uint32_t k = 1 + oracle_random(&o->seed, 3); k > 0; k--) {
            int part[N_PARTS];
            uint32_t n = oracle_random(&o->seed, 5), ids[N_PARTS];
            for (uint32_t j = 0; j < n; j++) {
                do
                    part[j] = any_part(o, o->n_rules);
                while (part[j] >= 0 && sym[part[j]] == UINT32_MAX);
                ids[j] = part[j] < 0 ? terms[-1 - part[j]] : sym[part[j]];
            }
            add_prod(o, i, part, n);
            gram_prod(g, sym[i], ids, n);
        }
    *start = sym[0];
}

static void find_productive(struct oracle *o) {
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < o->n_prods; i++) {
            bool all = true;
            for (uint32_t j = 0; j < o->prod[i].n; j++) {
                int p = o->prod[i].part[j];
                all = all && (p < 0 ? o->term[-1 - p].live[0] : o->productive[p]);
            }
            o->prod[i].kept = all;
            if (all && !o->productive[o->prod[i].rule])
                o->productive[o->prod[i].rule] = more = true;
        }
    }
}

/* ---- Earley ------------------------------------------------------------------------------------ */

static struct str key_at(const struct oracle *o, const struct keyset *k, uint32_t i) {
    return (struct str){o->text + k->begin[i], (size_t)(k->end[i] - k->begin[i])};
}

static bool keyset_has(const struct oracle *o, uint32_t keys, struct str s) {
    const struct keyset *k = &o->keysets[keys];
    for (uint32_t i = 0; i < k->n; i++)
        if (str_eq(key_at(o, k, i), s))
            return true;
    return false;
}

static bool keyset_within(const struct oracle *o, uint32_t a, uint32_t b) {
    for (uint32_t i = 0; i < o->keysets[a].n; i++)
        if (!keyset_has(o, b, key_at(o, &o->keysets[a], i)))
            return false;
    return true;
}

static uint16_t keyset_add(struct oracle *o, uint32_t keys, size_t begin, size_t end) {
    if (o->n_keysets == N_KEYSETS || o->keysets[keys].n == N_KEYS) {
        o->over = true;
        return (uint16_t)keys;
    }
    struct keyset *k = &o->keysets[o->n_keysets];
    *k = o->keysets[keys];
    k->begin[k->n] = (uint16_t)begin;
    k->end[k->n++] = (uint16_t)end;
    for (uint32_t i = 0; i < o->n_keysets; i++)
        if (o->keysets[i].n == k->n && keyset_within(o, i, o->n_keysets))
            return (uint16_t)i;
    return (uint16_t)o->n_keysets++;
}

static bool add_item(struct oracle *o, struct set *s, struct item it) {
    for (uint32_t i = s->n; i-- > 0;)
        if (memcmp(&s->item[i], &it, sizeof it) == 0)
            return false;
    if (s->n == N_ITEMS)
        o->over = true;
    if (o->over)
        return false;
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 32;
        s->item = xreallocarray(s->item, s->cap, sizeof *s->item);
    }
    s->item[s->n++] = it;
    return true;
}

static bool complete_item(struct oracle *o, struct set *s, struct item it) {
    uint32_t rule = o->prod[it.prod].rule;
    const struct set *from = &o->set[it.origin];
    bool more = false;
    for (uint32_t i = 0; i < from->n; i++) {
        struct item w = from->item[i];
        const struct prod *p = &o->prod[w.prod];
        if (w.dot < p->n && p->part[w.dot] == (int)rule && it.keys_in == (o->scope[rule] ? 0 : w.keys)) {
            w.dot++;
            more |= add_item(o, s, w);
        }
    }
    return more;
}

static void close_set(struct oracle *o, size_t at) {
    struct set *s = &o->set[at];
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < s->n; i++) {
            struct item it = s->item[i];
            const struct prod *p = &o->prod[it.prod];
            if (it.dot == p->n) {
                more |= complete_item(o, s, it);
            } else if (p->part[it.dot] >= 0) {
                uint32_t rule = (uint32_t)p->part[it.dot];
                uint16_t keys = o->scope[rule] ? 0 : it.keys;
                for (uint32_t k = 0; k < o->n_prods; k++)
                    if (o->prod[k].rule == rule && o->prod[k].kept)
                        more |= add_item(o, s, (struct item){(uint16_t)k, 0, (uint16_t)at, keys, keys});
            } else if (o->term[-1 - p->part[it.dot]].accept[0]) {
                it.dot++;
                more |= add_item(o, s, it);
            }
        }
    }
    s->n_keysets = o->n_keysets;
}

static void push_byte(struct oracle *o, uint8_t b) {
    CHECK(o->n_text < N_TEXT);
    o->text[o->n_text++] = (char)b;
    size_t at = o->n_text;
    struct set *s = &o->set[at];
    s->n = 0;
    s->state = xreallocarray(s->state, (at + 1) * N_TERMS, sizeof *s->state);
    for (size_t i = 0; i <= at; i++)
        for (uint32_t t = 0; t < o->n_terms; t++)
            s->state[i * N_TERMS + t] =
                i == at ? 0 : o->term[t].next[o->set[at - 1].state[i * N_TERMS + t]][b];
    for (size_t i = 0; i < at; i++)
        for (uint32_t k = 0; k < o->set[i].n; k++) {
            struct item it = o->set[i].item[k];
            const struct prod *p = &o->prod[it.prod];
            if (it.dot == p->n || p->part[it.dot] >= 0)
                continue;
            uint32_t t = (uint32_t)(-1 - p->part[it.dot]);
            if (!o->term[t].accept[s->state[i * N_TERMS + t]])
                continue;
            struct str text = {o->text + i, at - i};
            if (o->unique[t]) {
                if (keyset_has(o, it.keys, text))
                    continue;
                it.keys = keyset_add(o, it.keys, i, at);
            }
            it.dot++;
            add_item(o, s, it);
        }
    close_set(o, at);
}

void oracle_push(struct oracle *o, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        push_byte(o, (uint8_t)s[i]);
}

void oracle_cut(struct oracle *o, size_t n_bytes) {
    CHECK(n_bytes <= o->n_text);
    o->n_text = n_bytes;
    o->n_keysets = o->set[n_bytes].n_keysets;
}

bool oracle_over(const struct oracle *o) {
    return o->over;
}

size_t oracle_length(const struct oracle *o) {
    return o->n_text;
}

bool oracle_complete(const struct oracle *o) {
    const struct set *s = &o->set[o->n_text];
    for (uint32_t i = 0; i < s->n; i++) {
        const struct prod *p = &o->prod[s->item[i].prod];
        if (p->rule == 0 && s->item[i].dot == p->n && s->item[i].origin == 0)
            return true;
    }
    return false;
}

/* new_key_left: from state q with `s` matched so far, some string is accepted that is none of the keys. */
static bool new_key_left(const struct oracle *o, const struct table *t, uint32_t q, uint32_t keys, char *s,
                         size_t n) {
    if (!t->live[q])
        return false;
    if (t->accept[q] && !keyset_has(o, keys, (struct str){s, n}))
        return true;
    bool in = false;
    for (uint32_t i = 0; i < o->keysets[keys].n; i++)
        in = in || str_starts(key_at(o, &o->keysets[keys], i), (struct str){s, n});
    if (!in)
        return true;
    for (unsigned b = 0; b < 256; b++) {
        s[n] = (char)b;
        if (new_key_left(o, t, t->next[q][b], keys, s, n + 1))
            return true;
    }
    return false;
}

bool oracle_prefix(const struct oracle *o) {
    const struct set *s = &o->set[o->n_text];
    if (oracle_complete(o))
        return true;
    for (size_t i = 0; i <= o->n_text; i++)
        for (uint32_t k = 0; k < o->set[i].n; k++) {
            struct item it = o->set[i].item[k];
            const struct prod *p = &o->prod[it.prod];
            if (it.dot == p->n || p->part[it.dot] >= 0)
                continue;
            uint32_t t = (uint32_t)(-1 - p->part[it.dot]), q = s->state[i * N_TERMS + t];
            char text[2 * N_TEXT];
            memcpy(text, o->text + i, o->n_text - i);
            if (o->unique[t] ? new_key_left(o, &o->term[t], q, it.keys, text, o->n_text - i)
                             : o->term[t].live[q])
                return true;
        }
    return false;
}

bool oracle_empty(const struct oracle *o) {
    return !o->productive[0];
}

static void begin(struct oracle *o) {
    struct set *s = &o->set[0];
    s->state = xcalloc(N_TERMS, sizeof *s->state);
    o->n_keysets = 1; /* the empty one */
    for (uint32_t k = 0; k < o->n_prods; k++)
        if (o->prod[k].rule == 0 && o->prod[k].kept)
            add_item(o, s, (struct item){(uint16_t)k, 0, 0, 0, 0});
    close_set(o, 0);
}

struct oracle *oracle_new(uint64_t seed, struct gram *g, uint32_t *start) {
    struct oracle *o = xcalloc(1, sizeof *o);
    uint32_t terms[N_TERMS];
    bool keys, ok = true;
    o->seed = seed * 0x9e3779b97f4a7c15u + 1;
    o->keysets = xcalloc(N_KEYSETS, sizeof *o->keysets);
    keys = oracle_random(&o->seed, 4) == 0;
    o->n_terms = 1 + oracle_random(&o->seed, N_TERMS - 1);
    bool regex = oracle_random(&o->seed, 5) == 0; /* one expression and nothing else */
    if (regex)
        o->n_terms = 1;
    for (uint32_t i = 0; i < o->n_terms; i++) {
        const struct ast *x;
        o->unique[i] = keys && !regex && i < 2;
        if (o->unique[i]) { /* endlessly many keys, none empty */
            struct ast *rep = node(o, AST_REP), *c = node(o, AST_CLASS);
            c->cp[0] = 'a';
            c->cp[1] = i ? 0xE9 : 'b';
            c->n_cp = 1 + oracle_random(&o->seed, 2);
            *rep = (struct ast){
                .kind = AST_REP, .a = c, .min = 1 + oracle_random(&o->seed, 2), .max = UINT32_MAX};
            x = rep;
        } else {
            x = expression(o, regex ? 4 : 1 + oracle_random(&o->seed, 2));
        }
        ok = ok && table_of(x, &o->term[i]);
        if (!ok)
            break;
        terms[i] = gram_term(g, to_engine(o, g, x), o->unique[i] ? TERM_UNIQUE : 0);
    }
    if (!ok) {
        oracle_free(o);
        return NULL;
    }
    if (regex) {
        o->n_rules = 1;
        add_prod(o, 0, (int[]){-1}, 1);
        *start = terms[0];
    } else {
        make_rules(o, g, terms, keys, start);
    }
    find_productive(o);
    begin(o);
    return o;
}

void oracle_free(struct oracle *o) {
    if (!o)
        return;
    for (uint32_t i = 0; i < N_TERMS; i++)
        table_free(&o->term[i]);
    for (size_t i = 0; i <= N_TEXT; i++) {
        free(o->set[i].item);
        free(o->set[i].state);
    }
    free(o->keysets);
    free(o);
}

struct str *oracle_vocab(uint64_t seed, size_t n, char **bytes) {
    struct str *v = xcalloc(n, sizeof *v);
    char *at = *bytes = xmalloc(n * 32);
    bool seen[256] = {false};
    size_t m = 0;
    for (size_t i = 0; i < ARRAY_LEN(alphabet); i++)
        for (const char *s = alphabet[i]; *s && m < n; s++) {
            if (seen[(uint8_t)*s])
                continue;
            seen[(uint8_t)*s] = true;
            *at = *s;
            v[m++] = (struct str){at++, 1};
        }
    while (m < n) { /* joins two of before, or a letter and one: doubles may come up, as in real ones */
        struct str a = v[oracle_random(&seed, (uint32_t)m)], b = v[oracle_random(&seed, (uint32_t)m)];
        if (a.n + b.n > 16)
            continue;
        memcpy(at, a.p, a.n);
        memcpy(at + a.n, b.p, b.n);
        v[m++] = (struct str){at, a.n + b.n};
        at += a.n + b.n;
    }
    return v;
}
