/* ast.h: the syntax tree of a template, and how it is made: lex, parse, scope.
 *
 * Everything lives in the template's arena and is immutable once compiled, so threads share it.
 * Compilation fails by a jump to its entry (tm_compile_fail): the only thing to undo is the arena.
 * Nesting is bounded while parsing, so no later walk of the tree needs a bound of its own.
 */
#ifndef WEIR_ROUTER_TMPL_AST_H
#define WEIR_ROUTER_TMPL_AST_H

#include <setjmp.h>

#include "router/tmpl/tmpl.h"
#include "router/tmpl/val.h"

enum tm_tok {
    TOK_EOF,
    TOK_DATA,
    TOK_VAR_BEGIN,
    TOK_VAR_END,
    TOK_BLOCK_BEGIN,
    TOK_BLOCK_END,
    TOK_NAME,
    TOK_STRING,
    TOK_INT,
    TOK_FLOAT,
    TOK_ADD,
    TOK_SUB,
    TOK_MUL,
    TOK_DIV,
    TOK_FLOORDIV,
    TOK_MOD,
    TOK_POW,
    TOK_TILDE,
    TOK_LBRACKET,
    TOK_RBRACKET,
    TOK_LPAREN,
    TOK_RPAREN,
    TOK_LBRACE,
    TOK_RBRACE,
    TOK_EQ,
    TOK_NE,
    TOK_GT,
    TOK_GE,
    TOK_LT,
    TOK_LE,
    TOK_IN,
    TOK_NOT_IN,
    TOK_ASSIGN,
    TOK_DOT,
    TOK_COLON,
    TOK_PIPE,
    TOK_COMMA,
    TOK_SEMICOLON
};

struct tm_token {
    enum tm_tok kind;
    uint32_t line;
    struct str s; /* data, name, decoded string; the spelling of an operator */
    union {
        int64_t i;
        double f;
    };
};

enum tm_nk {
    /* expressions */
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT,
    N_COND,
    N_OR,
    N_AND,
    N_NOT,
    N_COMPARE,
    N_ARITH,
    N_CONCAT,
    N_NEG,
    N_POS,
    N_GETATTR,
    N_GETITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NSREF,
    /* statements */
    N_DATA,
    N_PRINT,
    N_FOR,
    N_IF,
    N_SET,
    N_SETBLOCK,
    N_MACRO,
    N_CALLBLOCK,
    N_FILTERBLOCK,
    N_WITH,
    N_BREAK,
    N_CONTINUE
};

enum tm_ctx { CTX_LOAD, CTX_STORE, CTX_PARAM };

struct tm_node;
struct tm_nodes {
    struct tm_node **v;
    uint32_t n, cap;
};

/* Where a variable lives: `hops` functions outwards, then a slot of that function's activation. */
struct tm_ref {
    uint16_t hops, slot;
};

/* What happens to a slot when its scope is entered. */
enum tm_load_kind { LOAD_PARAM, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEFINED };
struct tm_load {
    enum tm_load_kind kind;
    uint16_t slot;
    struct tm_ref src; /* LOAD_ALIAS */
    struct str name;   /* LOAD_RESOLVE: a variable or global of that name */
};
struct tm_scope {
    struct tm_load *loads;
    uint32_t n_loads;
};

struct tm_kw {
    struct str name;
    struct tm_node *value;
};
struct tm_call_args {
    struct tm_nodes pos;
    struct tm_kw *kw;
    uint32_t n_kw;
    struct tm_node *star, *star2; /* *args, **kwargs */
};

/* The body of a macro or of a call block. */
struct tm_func {
    struct str name;         /* empty: a call block */
    struct tm_node **params; /* N_NAME */
    uint32_t n_params;
    struct tm_nodes defaults; /* of the last parameters */
    struct tm_nodes body;
    struct tm_scope scope;
    uint16_t n_slots;
    int32_t caller_slot, kwargs_slot, varargs_slot; /* -1: the body does not ask for it */
    bool explicit_caller;                           /* a parameter is called `caller` */
};

struct tm_branch {
    struct tm_node *test; /* NULL: else */
    struct tm_nodes body;
};

struct tm_node {
    uint8_t kind;   /* enum tm_nk */
    uint8_t op;     /* the parser's own: a chain that may still grow */
    uint16_t depth; /* height of the expression */
    uint32_t line;
    union {
        struct tm_val konst; /* N_CONST */
        struct {
            struct str name;
            enum tm_ctx ctx;
            struct tm_ref ref;
            struct str attr; /* N_NSREF: name.attr */
        } name;
        struct tm_nodes items; /* N_TUPLE, N_LIST, N_DICT (key, value, ...), N_OR, N_AND, N_CONCAT */
        struct {
            struct tm_node *test, *then, *other; /* other may be NULL */
        } cond;
        struct {
            struct tm_nodes operands;
            uint8_t *ops; /* [operands.n - 1] enum tm_tok, between operands: N_COMPARE, N_ARITH */
        } chain;
        struct tm_node *operand; /* N_NOT, N_NEG, N_POS, N_PRINT */
        struct {
            struct tm_node *obj;
            struct tm_str *name; /* N_GETATTR */
            struct tm_node *key; /* N_GETITEM */
        } item;
        struct {
            struct tm_node *start, *stop, *step; /* each may be NULL */
        } slice;
        struct {
            struct tm_node *obj; /* callee, or what is filtered or tested; NULL: the block's text */
            struct str name;
            const void *def; /* struct tm_filter or struct tm_test; NULL: fails when reached */
            struct tm_call_args args;
        } call;
        struct str data; /* N_DATA */
        struct {
            struct tm_node *target, *iter, *test;
            struct tm_node *test_target; /* the target's names in the test's own scope */
            struct tm_nodes body, other;
            struct tm_scope scope, test_scope, other_scope;
            bool recursive, extended; /* extended: the body mentions `loop` */
            uint16_t loop_slot, n_slots;
        } loop;
        struct {
            struct tm_branch *branches;
            uint32_t n_branches;
        } cases;
        struct {
            struct tm_node *target, *value; /* N_SET */
        } set;
        struct {
            struct tm_node *target, *filter; /* N_SETBLOCK; N_FILTERBLOCK has no target */
            struct tm_nodes body;
            struct tm_scope scope;
        } block;
        struct {
            struct tm_func *func;
            struct tm_ref ref;    /* N_MACRO: where its value goes */
            struct tm_node *call; /* N_CALLBLOCK; NULL: a generation block */
        } macro;
        struct {
            struct tm_nodes targets, values, body;
            struct tm_scope scope;
        } with;
    };
};

/* A compilation in progress. */
struct tm_compile {
    struct arena *a;       /* the template's */
    struct arena *scratch; /* tokens and the like, until the tree is made */
    const struct tmpl_limits *limits;
    struct err *e;
    jmp_buf fail;
    struct tm_token *tokens; /* ends with TOK_EOF */
    size_t n_tokens, at;
    unsigned nest;
};

struct tmpl {
    struct arena a;
    struct str source;
    struct tmpl_limits limits;
    struct tm_nodes body;
    struct tm_scope scope;
    uint16_t n_slots;
    bool openai_content;
};

NORETURN void tm_compile_fail(struct tm_compile *c, uint32_t line, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* tm_lex: fills c->tokens from normalised text ("\n" line ends, one trailing newline dropped). */
void tm_lex(struct tm_compile *c, struct str text);
/* tm_parse: the whole template. */
struct tm_nodes tm_parse(struct tm_compile *c);
/* tm_resolve: gives every name its slot, checks filters, tests and loop controls. */
void tm_resolve(struct tm_compile *c, struct tmpl *t);
/* tm_detect_openai: api.md 10.3.1 on the tree. */
bool tm_detect_openai(struct tm_nodes body, struct arena *scratch);

/* Parts of the parser shared between its two files. */
struct tm_node *tm_node_new(struct tm_compile *c, enum tm_nk kind, uint32_t line);
void tm_nodes_add(struct tm_compile *c, struct tm_nodes *list, struct tm_node *n);
void tm_nest_enter(struct tm_compile *c, uint32_t line);
const struct tm_token *tm_peek(const struct tm_compile *c);
const struct tm_token *tm_next(struct tm_compile *c);
const struct tm_token *tm_expect(struct tm_compile *c, enum tm_tok kind);
bool tm_at_name(const struct tm_compile *c, const char *name);
bool tm_skip(struct tm_compile *c, enum tm_tok kind);
bool tm_skip_name(struct tm_compile *c, const char *name);
NORETURN void tm_unexpected(struct tm_compile *c, const struct tm_token *t, const char *wanted);

enum { TUPLE_NO_COND = 1, TUPLE_PARENS = 2, TUPLE_TARGET = 4, TUPLE_NAMESPACE = 8 };
/* tm_parse_tuple: one expression, or a tuple when commas follow; end_name ends it too (may be NULL). */
struct tm_node *tm_parse_tuple(struct tm_compile *c, unsigned flags, const char *end_name);
struct tm_node *tm_parse_expr(struct tm_compile *c, bool with_cond);
/* tm_parse_filters: `|name(...)...` applied to obj (NULL: a block's text). bare: the first has no pipe. */
struct tm_node *tm_parse_filters(struct tm_compile *c, struct tm_node *obj, bool bare);

/* tm_walk: calls fn on every node below (and including) n, in the order of the language's own tree:
 * targets before values, parameters before bodies. Stops when fn returns false. */
bool tm_walk(const struct tm_node *n, bool (*fn)(const struct tm_node *n, void *arg), void *arg);
bool tm_walk_all(struct tm_nodes list, bool (*fn)(const struct tm_node *n, void *arg), void *arg);

#endif
