/* gram_table.h: expressions as tables, for the oracle: subset construction, product, complement. */
#ifndef WEIR_TESTS_SUPPORT_GRAM_TABLE_H
#define WEIR_TESTS_SUPPORT_GRAM_TABLE_H

#include "common/base.h"

/* A complete automaton over bytes; state 0 is the start. */
struct table {
    uint16_t (*next)[256];
    bool *accept, *live;
    uint32_t n;
};

enum ast_kind {
    AST_NONE,
    AST_EMPTY,
    AST_ANY,
    AST_BYTES,
    AST_CLASS,
    AST_CAT,
    AST_ALT,
    AST_AND,
    AST_NOT,
    AST_REP
};
struct ast {
    enum ast_kind kind;
    const struct ast *a, *b;
    struct str bytes; /* AST_BYTES */
    uint32_t cp[8];   /* AST_CLASS: code points */
    uint32_t n_cp;
    bool negated;
    uint32_t min, max; /* AST_REP; max UINT32_MAX: no bound */
};

/* table_of: false if it would have more than a few hundred states. */
bool table_of(const struct ast *x, struct table *t);
void table_free(struct table *t);

#endif
