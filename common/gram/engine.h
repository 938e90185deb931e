/* engine.h: what the files of the grammar engine share. Nobody else includes it.
 *
 * From the bottom up:
 *   rx       expressions as hash-consed nodes (rx_pool.c, rx.c, rx_utf8.c, rx_trie.c) and their derivatives
 *            (derive.c). A node's children have smaller ids than it has.
 *   dfa      states of terminals: a state is an expression that is not empty of strings, with a row of
 *            transitions by byte class, found when first asked for (dfa.c).
 *   ctx      what is to happen when a terminal or a rule has matched: a set of edges (place in a production,
 *            keys so far, ctx of the rule that the production belongs to). It is the stack of the parser, as
 *            a graph; equal sets have equal ids (ctx_pool.c, ctx.c). A rule in last place hands on its caller's
 *            edges, so that right recursion takes no stack; left recursion is a cycle (a group of ctx made at
 *            once).
 *   config   the state after a byte: a set of threads (dfa state, ctx, key text), and whether the text may
 *            end (config.c). Transitions by byte class are kept in rows too.
 * All of it is shared by the runs of a grammar and guarded by its mutex; when memory is short, what no run
 * refers to is dropped (gc.c).
 *
 * Fuel and memory: `fail` is set when either runs out; whoever keeps a result looks at it first.
 */
#ifndef WEIR_COMMON_GRAM_ENGINE_H
#define WEIR_COMMON_GRAM_ENGINE_H

#include "common/gram/ir.h"
#include "common/gram/table.h"

#include <pthread.h>
#include <stdatomic.h>

enum rx_kind { K_NONE, K_EMPTY, K_SET, K_CAT, K_ALT, K_AND, K_NOT, K_REP, K_SWITCH, K_MULTIPLE };
/* RX_LIVE: matches something; RX_DEAD: nothing; else unknown. RX_PLAIN: no complement, intersection or
 * multiple inside. RX_COUNTS: a repeat with a finite bound inside. */
enum { RX_NULLABLE = 1, RX_LIVE = 2, RX_DEAD = 4, RX_PLAIN = 8, RX_COUNTS = 16 };
enum { RX_ALL = 3 }; /* any bytes, UTF-8 or not; inside only */
enum { RX_DEPTH_MAX = 600, RX_REPEAT_MIN_MAX = 1 << 16 };

struct rx_node {
    uint8_t kind, flags;
    uint16_t depth;  /* of recursion of a derivative; the right spine of K_CAT is free */
    uint16_t height; /* of a tree of K_CAT, for balance */
    uint32_t a, b, c;
    /* K_SET: a a set. K_CAT: a then b. K_NOT: a. K_REP: a, from b to c times.
     * K_ALT, K_AND: b ids at list[a], sorted. K_SWITCH: b pairs (set, id) at list[a], sets disjoint, in order
     * of their lowest byte, no two ids equal; c: 1 if the empty string is of it too.
     * K_MULTIPLE: what is left of a number that is a multiple (rx_multiple.c): a the step, b the remainder so
     * far, c where in the number. */
    uint64_t
        name[2]; /* a hash of the whole expression under a secret of the process: the same in any grammar */
};
struct rx_set {
    uint64_t w[4];
};

struct rx_memo {
    uint32_t rx, byte, to;
};
enum { RX_MEMO = 1 << 12 };

/* A class made lately, by its ranges: schemas ask for the same few again and again. */
struct class_memo {
    struct rx_range range[8];
    uint32_t n, rx; /* n 0: free */
};
enum { CLASS_MEMO = 16 };

struct rx_pool {
    struct rx_node *node;
    struct rx_set *set;
    uint32_t *list;
    uint32_t n, cap, n_sets, cap_sets, n_list, cap_list;
    uint32_t n_base, n_base_sets; /* of the sealed grammar; what is above may be collected */
    struct itab nodes, sets;
    uint32_t *tmp; /* a stack of ids for what is being put together */
    uint32_t n_tmp, cap_tmp;
    uint32_t *mark; /* visits: mark[id] == epoch */
    uint32_t cap_mark, epoch;
    struct rx_memo *memo;                     /* derivatives seen lately, direct mapped */
    struct class_memo class_memo[CLASS_MEMO]; /* of a grammar not sealed yet */
    uint32_t any_char;
    uint8_t class_of[256]; /* bytes that no expression tells apart share a class; set by gram_seal */
    uint8_t class_byte[256];
    uint32_t n_classes;
};

struct gram_sym {
    uint32_t name;  /* offset into names, of a rule */
    uint32_t rx;    /* of a terminal */
    uint32_t first; /* rule, sealed: its productions are start[first .. first + n) */
    uint32_t n;
    uint32_t rank; /* rule, sealed: callers at the same place of the text have lower or equal rank */
    uint8_t is_term, flags;
    bool productive, nullable, uses_keys, in_cycle; /* in_cycle: left recursive with others or itself */
};
enum { PART_END = UINT32_MAX };

struct gram_prod {
    uint32_t rule, first, n; /* parts[first .. first + n) */
};

struct dfa_state {
    uint32_t rx;
    bool accept;
};
struct dfa {
    struct dfa_state *state; /* 0: not known yet; 1: dead */
    uint32_t *next;          /* [n][n_classes] */
    uint32_t *of_rx;         /* [nodes] state of an expression, 0: none yet */
    uint32_t n, cap, cap_next, cap_of_rx;
};
enum { STATE_UNKNOWN = 0, STATE_DEAD = 1 };

/* edge: go on at `at` (an index of places[]) with `keys` (an expression: those seen; RX_NONE: none) and, at
 * the end of the production, return to ctx. */
struct edge {
    uint32_t at, keys, ctx;
};
struct ctx {
    uint32_t first, n;       /* edges */
    uint32_t group, n_group; /* a cycle: the first of its group, and how many; else itself and 1 */
    uint32_t ret;            /* config after a return to it, 0: not known yet */
};
struct thread {
    uint32_t q, ctx, text;
};
struct config {
    uint32_t first, n; /* threads, sorted */
    bool accept;
    bool keyed; /* some thread has a text: what it leads to depends on the keys before */
};
struct text_node {
    uint32_t prev, byte;
};
enum { CTX_NONE = 0, CTX_ROOT = 1, AT_ACCEPT = 0 };
/* A thread of a terminal without TERM_UNIQUE has TEXT_NONE; one whose key nobody asks for later TEXT_LAST. */
enum { TEXT_NONE = 0, TEXT_LAST = 1, TEXT_EMPTY = 2 };

struct ctx_pool {
    struct ctx *ctx;
    struct edge *edge;
    uint32_t n, cap, n_edges, cap_edges;
    struct itab tab;
};
struct config_pool {
    struct config *config; /* 0: not known; 1: dead */
    struct thread *thread;
    uint32_t *next; /* [n][n_classes] */
    uint32_t n, cap, n_threads, cap_threads, cap_next;
    struct itab tab;
    struct text_node *text;
    uint32_t n_texts, cap_texts;
    struct itab texts;
    struct thread *step; /* scratch of a step */
    uint32_t n_step, cap_step;
};

/* Whether the parts from a place on can match under some keys; see keys.c. */
struct key_memo {
    uint32_t at, keys, is;
};
struct key_pool {
    struct key_memo *memo;
    uint32_t n, cap;
    struct itab tab;
    bool leans; /* what was just asked met a question in progress */
};

struct gram_budget;
struct closure; /* scratch of ctx.c */

struct gram {
    atomic_uint n_holds;
    pthread_mutex_t lock; /* all below, once sealed */
    struct gram_limits limit;
    size_t bytes; /* memory of all tables */
    int64_t fuel;
    const char *over; /* a limit of building that was passed, in words */
    bool fail, sealed;
    struct rx_pool rx;
    struct gram_sym *sym;
    struct gram_prod *prod;
    uint32_t *part;
    char *names;
    uint32_t n_syms, cap_syms, n_prods, cap_prods, n_parts, cap_parts, n_names, cap_names;
    /* sealed: */
    uint32_t start;
    uint32_t *place;      /* productions' parts, each production closed by PART_END; place[0] is AT_ACCEPT */
    bool *place_keys;     /* from here to the end keys are used */
    uint32_t *prod_place; /* [productions kept] first place, by rule */
    uint32_t n_places, n_kept;
    struct dfa dfa;
    struct ctx_pool ctx;
    struct config_pool cfg;
    struct key_pool keys;
    struct closure *closure;
    struct mask_cache *masks; /* mask.c; NULL until the first mask */
    struct gram_run *runs;    /* all of this grammar, for gc */
    size_t gc_at;             /* bytes from which on to collect */
    size_t gc_soon;           /* the same while the budget is passed */
    struct gram_budget *budget;
    size_t told; /* of bytes, in the budget's sum */
    uint32_t config_start;
};

/* gram_spend: takes fuel; false, and fail set, when there is none. */
static inline bool gram_spend(struct gram *g, int64_t units) {
    g->fuel -= units;
    if (UNLIKELY(g->fuel < 0))
        g->fail = true;
    return !g->fail;
}
/* gram_set_over: a limit of building was passed; the first one is told. */
void gram_set_over(struct gram *g, const char *what);
/* gram_room: whether the tables may grow by so many bytes; false, and fail set, if not. */
static inline bool gram_room(struct gram *g, size_t more) {
    if (LIKELY(g->bytes + more <= g->limit.memory_bytes))
        return true;
    gram_set_over(g, "it takes too much memory");
    return false;
}

/* ---- rx.c: expressions ---- */
void rx_pool_init(struct gram *g);
void rx_pool_fini(struct gram *g);
/* rx_node_id: the id of node x, an old one if there is one; `list` (of K_ALT, K_AND and K_SWITCH; else NULL) is
 * copied when it is new. RX_NONE once a limit is passed. */
uint32_t rx_node_id(struct gram *g, struct rx_node x, const uint32_t *list);
uint32_t rx_mk_set(struct gram *g, const struct rx_set *s);
uint32_t rx_mk_cat(struct gram *g, uint32_t a, uint32_t b);
/* rx_mk_alt, rx_mk_and: of the ids tmp[base .. n_tmp), which are taken off. */
uint32_t rx_mk_alt(struct gram *g, uint32_t base);
uint32_t rx_mk_and(struct gram *g, uint32_t base);
uint32_t rx_mk_not(struct gram *g, uint32_t a);
uint32_t rx_mk_rep(struct gram *g, uint32_t a, uint32_t min, uint32_t max);
/* rx_mk_switch: of pairs (set, id) in tmp[base .. n_tmp), sets disjoint; taken off. */
uint32_t rx_mk_switch(struct gram *g, uint32_t base, bool nullable);
uint32_t rx_mk_multiple(struct gram *g, uint32_t step, uint32_t rest, uint32_t place);
uint32_t rx_set_id(struct gram *g, const struct rx_set *s);
void rx_push(struct gram *g, uint32_t id);
/* rx_visit: a new round of marks; rx_mark: true the first time in a round. */
void rx_visit(struct gram *g);
bool rx_mark(struct gram *g, uint32_t rx);
/* rx_rehash: after ids have changed. */
void rx_rehash(struct gram *g);

static inline bool rx_nullable(const struct gram *g, uint32_t rx) {
    return g->rx.node[rx].flags & RX_NULLABLE;
}
static inline bool set_has(const struct rx_set *s, unsigned b) {
    return s->w[b >> 6] >> (b & 63) & 1;
}
static inline void set_put(struct rx_set *s, unsigned b) {
    s->w[b >> 6] |= 1ull << (b & 63);
}

/* ---- rx_trie.c ---- */
/* rx_trie_add: the choice `trie` (RX_NONE or made by rx_choice or this) and one string more. */
uint32_t rx_trie_add(struct gram *g, uint32_t trie, const char *s, size_t n);

/* ---- rx_multiple.c ---- */
bool rx_multiple_nullable(const struct rx_node *x);
uint32_t rx_multiple_derive(struct gram *g, const struct rx_node *x, unsigned byte);

/* ---- rx_clamp.c ---- */
/* rx_count_max: the largest finite bound of a repeat in rx; 0: none. */
uint32_t rx_count_max(const struct gram *g, uint32_t rx);
/* rx_clamp: an expression, of RX_PLAIN rx, with counts above n written as "more than n": it matches all that
 * rx does, and tells the same prefixes and strings of up to n bytes. */
uint32_t rx_clamp(struct gram *g, uint32_t rx, uint32_t n);

/* ---- derive.c ---- */
uint32_t rx_derive(struct gram *g, uint32_t rx, unsigned byte);
/* rx_is_live: some string matches. False when fuel ran out (fail). */
bool rx_is_live(struct gram *g, uint32_t rx);
/* rx_first: puts into s at least every byte that a string of rx may begin with. */
void rx_first(const struct gram *g, uint32_t rx, struct rx_set *s);
/* rx_classes: bytes that none of the expressions tells apart share a class; returns how many. */
uint32_t rx_classes(struct gram *g, const uint32_t *rx, size_t n, uint8_t class_of[256],
                    uint8_t class_byte[256]);

/* ---- dfa.c ---- */
void dfa_init(struct gram *g);
void dfa_fini(struct gram *g);
/* dfa_of: the state of an expression: STATE_DEAD if it has no string, STATE_UNKNOWN on fail. */
uint32_t dfa_of(struct gram *g, uint32_t rx);
uint32_t dfa_step_slow(struct gram *g, uint32_t q, uint32_t cls);
static inline uint32_t dfa_step(struct gram *g, uint32_t q, uint32_t cls) {
    uint32_t to = g->dfa.next[(size_t)q * g->rx.n_classes + cls];
    return LIKELY(to) ? to : dfa_step_slow(g, q, cls);
}

/* ---- ctx_pool.c ---- */
enum { CTX_LOCAL = 1u << 31 }; /* of an edge's ctx: a place in its own group */
/* ctx_tidy: sorts edges and drops doubles; returns how many are left. */
uint32_t ctx_tidy(struct edge *e, uint32_t n);
/* ctx_intern: a group of n ctx that may refer to each other as CTX_LOCAL + place. Member i has the edges
 * out[end[i - 1] .. end[i]), tidied. Returns the id of the first, 0 on fail. */
uint32_t ctx_intern(struct gram *g, const struct edge *out, const uint32_t *end, uint32_t n);
/* ctx_rehash: after ids have changed. */
void ctx_rehash(struct gram *g);

/* ---- ctx.c ---- */
void ctx_init(struct gram *g);
void ctx_fini(struct gram *g);
/* ctx_return: the config after all that ctx stands for has been told of a match; 0 on fail. */
uint32_t ctx_return(struct gram *g, uint32_t ctx);
/* ctx_add_key: the ctx whose edges also know `text` as a key. */
uint32_t ctx_add_key(struct gram *g, uint32_t ctx, uint32_t text);
/* ctx_union: the ctx of all edges of two; 0 on fail. */
uint32_t ctx_union(struct gram *g, uint32_t a, uint32_t b);
/* ctx_start: the config before the first byte; 0 on fail. */
uint32_t ctx_start(struct gram *g);
/* ctx_trim: gives scratch memory back. */
void ctx_trim(struct gram *g);

/* ---- keys.c ---- */
/* keys_viable: the parts from `at` to the end of the production can match something although `keys` are
 * taken. */
bool keys_viable(struct gram *g, uint32_t at, uint32_t keys);
void keys_forget(struct gram *g);

/* ---- config.c ---- */
void config_init(struct gram *g);
void config_fini(struct gram *g);
/* config_intern: of n threads in any order; threads of equal state and text become one. */
uint32_t config_intern(struct gram *g, struct thread *t, uint32_t n, bool accept);
/* config_text: a key text and one byte more. */
uint32_t config_text(struct gram *g, uint32_t prev, unsigned byte);
/* config_step_slow: after one byte of a class; STATE_DEAD if none can follow, STATE_UNKNOWN on fail. */
uint32_t config_step_slow(struct gram *g, uint32_t config, uint32_t cls);
static inline uint32_t config_step(struct gram *g, uint32_t config, uint32_t cls) {
    uint32_t to = g->cfg.next[(size_t)config * g->rx.n_classes + cls];
    return LIKELY(to) ? to : config_step_slow(g, config, cls);
}

/* ---- mask.c ---- */
/* mask_forget: drops all masks kept; the ids they go by are about to change. */
void mask_forget(struct gram *g);

/* ---- gc.c ---- */
/* gram_gc: drops what no run of the grammar refers to; ids held across it are void, runs' configs follow. */
void gram_gc(struct gram *g);

#endif
