/* ebnf.h: grammars written as text, between their parsers (GBNF, Lark) and the builder of rules; private to
 * ebnf*.c.
 *
 * A parser makes a tree of nodes for each rule; names become rules when they are first met and get a body
 * when they are defined. The builder then checks the whole and makes expressions of all that does not
 * recurse, and productions of the rest. Limits: text_bytes of the grammar; groups nest at most EB_DEPTH_MAX
 * deep, which bounds C recursion.
 */
#ifndef WEIR_COMMON_GRAM_EBNF_H
#define WEIR_COMMON_GRAM_EBNF_H

#include "common/buf.h"
#include "common/gram/front.h"
#include "common/gram/regex.h"

enum { EB_DEPTH_MAX = 128, EB_REPEAT_MAX = 100000 };
#define EB_NIL UINT32_MAX

enum eb_kind { EB_RX, EB_REF, EB_SYM, EB_SEQ, EB_ALT, EB_REP };

struct eb_node {
    enum eb_kind kind;
    uint32_t id;   /* RX: the expression; REF: the rule; SYM: a symbol of the grammar; else the first child */
    uint32_t next; /* the next child of the parent */
    uint32_t parent;   /* EB_NIL: the body of `rule` */
    uint32_t rule;     /* EB_NIL, or the rule whose body it is */
    uint32_t min, max; /* REP; max RX_INF */
    uint32_t n_states; /* RX: its size */
    uint32_t nesting;  /* RX: how deep, at most */
    uint32_t next_ref; /* REF: another one of the same rule */
    uint32_t n_wait;   /* builder: what must still derive something before this does */
};

struct eb_rule {
    struct str name;       /* borrowed from the text */
    uint32_t body;         /* node; EB_NIL: not defined */
    size_t at;             /* where it is defined, or first used */
    uint32_t node0, node1; /* its nodes are [node0, node1) */
    uint32_t refs;         /* list of REF nodes to it */
    bool terminal;         /* Lark's capitals */
    bool productive, recursive;
    /* The builder's: */
    uint32_t order, low; /* Tarjan: 0 is not visited; low */
    bool on_stack, done, is_rx;
    uint32_t sym;      /* a rule's symbol, or its expression if is_rx */
    uint32_t n_states; /* of the expression */
    uint32_t nesting;  /* likewise */
};

struct ebnf {
    struct gram *g;
    const struct gram_options *options; /* of %json; may be NULL */
    struct str text;
    size_t at;      /* the parser's place */
    unsigned depth; /* of groups */
    struct eb_node *nodes;
    uint32_t n_nodes, cap_nodes;
    struct eb_rule *rules;
    uint32_t n_rules, cap_rules;
    uint32_t *slots; /* names: open addressing, index + 1 */
    uint32_t n_slots;
    uint32_t ignore; /* %ignore: node of an ALT, or EB_NIL */
    struct err *e;
};

/* eb_bad: RC_INVALID "grammar line N: ..." of the byte at `at`. */
enum rc eb_bad(struct ebnf *b, size_t at, const char *fmt, ...) PRINTF_LIKE(3, 4);
uint32_t eb_line(const struct ebnf *b, size_t at);
static inline char eb_peek(const struct ebnf *b, size_t ahead) {
    return b->at + ahead < b->text.n ? b->text.p[b->at + ahead] : 0;
}
static inline bool eb_more(const struct ebnf *b) {
    return b->at < b->text.n;
}

uint32_t eb_rule_of(struct ebnf *b, struct str name, size_t at); /* finds or makes it; at: here */
/* eb_rule_begin, _end: around the making of the nodes of its body. Defined twice: RC_INVALID. */
MUST_USE enum rc eb_rule_begin(struct ebnf *b, uint32_t rule, size_t at);
void eb_rule_end(struct ebnf *b, uint32_t rule, uint32_t body);

uint32_t eb_node_rx(struct ebnf *b, uint32_t rx, uint32_t n_states);
uint32_t eb_node_ref(struct ebnf *b, uint32_t rule);
uint32_t eb_node_sym(struct ebnf *b, uint32_t sym);
uint32_t eb_node_rep(struct ebnf *b, uint32_t child, uint32_t min, uint32_t max);
/* A list under construction; it becomes one node, or its only member. */
struct eb_list {
    uint32_t first, last, n;
};
void eb_list_add(struct ebnf *b, struct eb_list *l, uint32_t node);
uint32_t eb_list_node(struct ebnf *b, enum eb_kind kind, const struct eb_list *l);

/* Pieces of text that both dialects have. All stand behind what they took. */
MUST_USE enum rc eb_take_string(struct ebnf *b, char quote, struct buf *out); /* at the opening quote */
MUST_USE enum rc eb_take_class(struct ebnf *b, uint32_t *node);               /* at '[' */
/* eb_take_braces: {m}, {m,}, {,n}, {m,n}; at '{'. */
MUST_USE enum rc eb_take_braces(struct ebnf *b, uint32_t *min, uint32_t *max);
MUST_USE enum rc eb_take_number(struct ebnf *b, uint32_t *out);
/* eb_check_repeat: both bounds in order and at most EB_REPEAT_MAX. */
MUST_USE enum rc eb_check_repeat(struct ebnf *b, size_t at, uint32_t min, uint32_t max);
uint32_t eb_node_string(struct ebnf *b, struct str s, bool icase);

MUST_USE enum rc eb_parse_gbnf(struct ebnf *b);
MUST_USE enum rc eb_parse_lark(struct ebnf *b);
/* eb_build: checks all rules and builds what `start` needs. */
MUST_USE enum rc eb_build(struct ebnf *b, struct str start, uint32_t *sym);

#endif
