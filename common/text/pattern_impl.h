/* pattern_impl.h: the inside of pattern.h: sets of characters, the tree of a pattern, its program. */
#ifndef WEIR_COMMON_TEXT_PATTERN_IMPL_H
#define WEIR_COMMON_TEXT_PATTERN_IMPL_H

#include "common/text/pattern.h"
#include "common/text/uni.h"

/* ---- sets of characters (pattern_set.c) ---- */

struct pat_range {
    uint32_t low, high; /* both belong to it */
};
/* A set while it is put together: sorted, disjoint, not touching. */
struct pat_set {
    struct pat_range *v;
    size_t n, cap;
};
void pat_set_fini(struct pat_set *s);
void pat_set_add(struct pat_set *s, uint32_t low, uint32_t high);
void pat_set_join(struct pat_set *s, const struct pat_set *other);
void pat_set_meet(struct pat_set *s, const struct pat_set *other);
void pat_set_negate(struct pat_set *s);
bool pat_set_has(const struct pat_set *s, uint32_t cp);
/* pat_set_fold: adds what its characters match where case does not count. */
void pat_set_fold(struct pat_set *s);
/* pat_set_named: adds the characters of a category, a script, or a class such as alpha; case, spaces, - and _ do
 * not count. bracket: as in [:name:], which differs for punct. false: there is none. */
bool pat_set_named(struct pat_set *s, struct str name, bool bracket);
/* pat_set_word: \w as it is outside brackets: there, Oniguruma knows some more of Latin-1. */
void pat_set_word(struct pat_set *s);
/* pat_fold_of: the other characters that cp matches where case does not count; NULL if there are none. */
const uint32_t *pat_fold_of(uint32_t cp);

/* A set to search in: by block of 256 characters. */
struct pat_class {
    bool ascii[128];
    uint8_t index[(UNI_MAX + 1) >> 8 | 1]; /* the block's place */
    uint8_t (*blocks)[32];                 /* owned */
};
/* pat_class_init: false: more than 255 blocks differ. */
bool pat_class_init(struct pat_class *c, const struct pat_set *s);
static inline bool pat_class_has(const struct pat_class *c, uint32_t cp) {
    if (LIKELY(cp < 128))
        return c->ascii[cp];
    return c->blocks[c->index[cp >> 8]][(cp & 255) >> 3] >> (cp & 7) & 1;
}

/* ---- the tree (pattern_parse.c) ---- */

enum pat_node_kind {
    PAT_EMPTY,
    PAT_CHAR,   /* cp */
    PAT_SET,    /* set */
    PAT_CAT,    /* children, one after another */
    PAT_ALT,    /* the first of its children that matches */
    PAT_REPEAT, /* child: min to max times */
    PAT_ATOMIC, /* child: what it matched first stays */
    PAT_LOOK,   /* child matches here (behind: before here), or does not (negated) */
    PAT_ASSERT, /* assert */
};
enum pat_assert { PAT_TEXT_BEGIN, PAT_TEXT_END, PAT_TEXT_END_NEWLINE, PAT_LINE_BEGIN, PAT_LINE_END, PAT_EDGE,
                  PAT_NO_EDGE };
enum pat_greed { PAT_GREEDY, PAT_LAZY, PAT_POSSESSIVE };
enum { PAT_NONE = UINT32_MAX, PAT_NO_MAX = UINT32_MAX, PAT_NODES_MAX = 8192 };

struct pat_node {
    enum pat_node_kind kind;
    uint32_t child, last, next; /* PAT_NONE */
    uint32_t cp, set, min, max;
    enum pat_greed greed;
    enum pat_assert assert;
    bool behind, negated;
};
struct pat_tree {
    struct pat_node *nodes;
    uint32_t n_nodes;
    struct pat_set sets[PATTERN_SETS_MAX];
    uint32_t n_sets;
    uint32_t root;
};
MUST_USE enum rc pat_parse(struct pat_tree *t, struct str re, struct err *e); /* pat_tree_fini in any case */
void pat_tree_fini(struct pat_tree *t);

/* ---- the program (pattern_comp.c) ---- */

enum pat_op {
    PAT_OP_CHAR,   /* x */
    PAT_OP_SET,    /* class x */
    PAT_OP_SPLIT,  /* on at x; if that fails, at y */
    PAT_OP_JUMP,   /* x */
    PAT_OP_LOOP,   /* any number of class x, greed */
    PAT_OP_LOOK,   /* the program behind it, up to ACCEPT, y characters back if behind; on at x */
    PAT_OP_ATOMIC, /* the program behind it; on at x where it ended */
    PAT_OP_ASSERT, /* x */
    PAT_OP_ACCEPT,
};
struct pat_inst {
    uint8_t op, greed;
    bool behind, negated;
    uint16_t state; /* of those that branch: number in the memo */
    uint32_t x, y;
};
struct pattern {
    struct pat_inst *insts;
    uint32_t n_insts, n_states;
    struct pat_class *classes; /* [n_classes] */
    uint32_t n_classes;
    struct pat_class word; /* for \b */
    bool first[256]; /* bytes that a match may start with */
    bool any_first;  /* or it may be empty, or nothing is known */
};

#endif
