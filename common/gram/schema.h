/* schema.h: the parts of the JSON Schema front end; gram_add_json_schema (front.h) is json_schema.c.
 *
 * How a schema becomes a grammar:
 * - schema_doc.c, schema_ref.c: the document: subschemas by place, their checks, $id, $anchor and $ref
 * - schema_vset.c: sets of strings and of numbers, closed under and, or, not: exact
 * - schema_scalar.c: for each subschema the null, booleans, numbers and strings it accepts, as sets; and
 *   whether it accepts no, some or all arrays and objects
 * - schema_expand.c, schema_deny.c: for arrays and objects: a conjunction of subschemas, some negated, as a
 *   list of branches without in-place keywords; each branch is a list of facts
 * - schema_array.c, schema_object.c: a branch as productions; schema_listed.c: values given one by one
 * - schema_prod.c: the productions, and which rules derive a text at all
 * - json_schema.c: conjunctions with memo, a work list instead of recursion
 *
 * A literal is a node (a subschema, or a value of enum or const) or its negation. A value's rule is made once
 * per set of literals, so recursive schemas are recursive rules.
 *
 * Threads: one. Ownership: everything lives in the arena of one call. Limits: nodes and members of an enum by
 * gram_limits; steps, branches and memory below; recursion by SCHEMA_DEPTH_MAX.
 */
#ifndef WEIR_COMMON_GRAM_SCHEMA_H
#define WEIR_COMMON_GRAM_SCHEMA_H

#include "common/arena.h"
#include "common/gram/front.h"
#include "common/gram/json_text.h"
#include "common/json.h"

enum {
    SCHEMA_DEPTH_MAX = 256,     /* of in-place keywords and $ref behind one another */
    SCHEMA_BRANCHES_MAX = 4096, /* of one conjunction */
    SCHEMA_STEPS_MAX = 4000000, /* of one schema; a step is well below a microsecond */
    SCHEMA_COUNT_MAX = 1 << 16, /* minItems, minLength, minProperties: more is beyond any output */
    SCHEMA_STATES_MAX = 16384,  /* of counting: contains, minProperties beside optional properties ... */
    SCHEMA_ONE_OF_MAX = 256,
    SCHEMA_NAMES_MAX = 4096, /* of one object */
    SCHEMA_FEW_MAX = 256,    /* values of a set that is counted */
    SCHEMA_CELLS_MAX = 64,   /* kinds of extra keys that patternProperties tell apart */
};
#define SCHEMA_ARENA_MAX (16 * MIB)
#define SCHEMA_INF UINT32_MAX

/* ---- the document (schema_doc.c, schema_ref.c) ---------------------------------------------------------------- */

enum { LIT_TRUE = 0, LIT_FALSE = 1 }; /* node 0 accepts everything */
static inline uint32_t lit_not(uint32_t lit) {
    return lit ^ 1;
}
static inline bool lit_negated(uint32_t lit) {
    return lit & 1;
}

enum node_kind { NODE_SCHEMA, NODE_VALUE };

struct schema_node {
    const json_t *j; /* NODE_SCHEMA: an object; NODE_VALUE: the value */
    enum node_kind kind;
    uint32_t parent;  /* UINT32_MAX: the root */
    uint32_t base;    /* the resource that its references start from */
    struct str words; /* of its JSON pointer, behind the parent's: "/properties/a" */
    bool checked;
    uint32_t plain;  /* schema_plain of it, or SCHEMA_INF: not known yet */
    bool evaluating; /* schema_scalar is at work on it: meeting it again is a loop */
    const struct scalar *scalar;
    const bool *shares[2]; /* schema_shares, once known */
};

struct schema_resource {
    const json_t *root;
    uint32_t node;
    struct str uri; /* "" if it has none */
};

struct schema_anchor {
    uint32_t base;
    struct str name;
    uint32_t node;
    bool dynamic;
};

struct schema_conj; /* json_schema.c */

struct schema {
    struct gram *g;
    struct arena mem;
    const struct gram_options *options;
    struct schema_node **nodes; /* they stay where they are */
    size_t n_nodes, cap_nodes;
    size_t n_nodes_max, n_choices_max;
    uint32_t *node_table; /* open addressing over j and kind; 0 is empty */
    size_t cap_table;
    struct schema_resource *resources;
    size_t n_resources;
    struct schema_anchor *anchors;
    size_t n_anchors;
    bool old_refs; /* drafts up to 7: keywords beside $ref do not count */
    uint64_t steps;
    unsigned depth;
    struct schema_conj *work, *work_last; /* conjunctions whose rules are still to be filled */
    struct schema_conj **conj_table;
    size_t n_conj, cap_conj;
    uint32_t t_open_obj, t_close_obj, t_empty_obj, t_open_arr, t_close_arr, t_empty_arr, t_comma, t_colon;
    uint32_t rx_colon;
    uint32_t rx_gap[2]; /* what may stand between two tokens; behind a comma or a colon */
    uint32_t any[2];    /* rules of all arrays, all objects, plus 1; 0: not made yet */
    uint32_t *log;      /* schema_prod.c: the productions so far */
    uint8_t *is_rule;
    size_t n_log, cap_log, cap_is_rule;
    struct err hint; /* why a branch was dropped: for the message when none is left */
};

/* schema_load: reads the whole document: every subschema's place, $id and anchors. *root is its literal. */
MUST_USE enum rc schema_load(struct schema *s, const json_t *doc, uint32_t *root, struct err *e);
/* schema_sub: the literal of a subschema j found at `words` below node `parent`. Booleans and {} are LIT_TRUE
 * and LIT_FALSE. RC_INVALID: j is no schema. */
MUST_USE enum rc schema_sub(struct schema *s, uint32_t parent, const json_t *j, const char *keyword,
                            const char *key, uint32_t *lit, struct err *e);
/* schema_value: the literal of "equals this value"; j lives as long as the document. */
uint32_t schema_value(struct schema *s, uint32_t parent, const json_t *j);
/* schema_seen: the node of a subschema that is known already. schema_simple: schemas that are no nodes of their own.
 * schema_node_add: words: what its pointer has behind its parent's; base: its resource. */
bool schema_seen(struct schema *s, const json_t *j, enum node_kind kind, uint32_t *node);
bool schema_simple(const json_t *j, uint32_t *lit);
uint32_t schema_node_add(struct schema *s, const json_t *j, enum node_kind kind, uint32_t parent, uint32_t base,
                         struct str words);
/* schema_uri_join: RFC 3986 5.2 without dot segments, which stay as they are and then match nothing. */
struct str schema_uri_join(struct schema *s, struct str base, struct str ref);
/* schema_ref: where a $ref of this node leads. */
MUST_USE enum rc schema_ref(struct schema *s, uint32_t node, const json_t *ref, uint32_t *lit, struct err *e);
/* schema_plain: follows a literal that is nothing but a $ref, or nothing but `not`. */
MUST_USE enum rc schema_plain(struct schema *s, uint32_t *lit, struct err *e);
/* schema_check: keywords of a node, once: known or annotations, and of the right kind. */
MUST_USE enum rc schema_check(struct schema *s, uint32_t node, struct err *e);
/* schema_fail: RC_INVALID that names keyword and place. */
enum rc schema_fail(const struct schema *s, uint32_t node, const char *keyword, struct err *e,
                    const char *fmt, ...) PRINTF_LIKE(5, 6);
/* schema_hint: keeps the first reason for which something was left out. */
void schema_hint(struct schema *s, uint32_t node, const char *keyword, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* schema_step: counts work; RC_INVALID above the limits. */
MUST_USE enum rc schema_step(struct schema *s, uint64_t n, struct err *e);
/* schema_count: a keyword's non-negative whole number, at most SCHEMA_INF - 1; false if it is absent. */
bool schema_count(const struct schema_node *n, const char *keyword, uint32_t *out);
/* schema_ref_of: the node's reference, or NULL: $ref, and $recursiveRef and $dynamicRef where they mean it.
 */
const json_t *schema_ref_of(const struct schema_node *n);
/* schema_ref_static: a reference that leads to the same place from wherever it is met. */
bool schema_ref_static(const struct schema *s, const struct schema_node *n, const char *keyword);
/* schema_only_ref: what stands beside $ref does not count. */
static inline bool schema_only_ref(const struct schema *s, const struct schema_node *n) {
    return s->old_refs && json_object_get(n->j, "$ref");
}

/* ---- sets (schema_vset.c) ----------------------------------------------------------------------- */

enum vset_kind { SET_NONE, SET_ALL, SET_LIST, SET_RX };

struct vset_item {
    struct str key;  /* the canonical spelling: a JSON body, or a number without exponent */
    struct str text; /* what is written: the same body, or the number as it was given */
};

/* A set of strings (of canonical bodies) or of numbers. An expression in it holds, of all numbers without
 * exponent, exactly the spellings of its members, however many digits; so the three operations are exact. */
struct vset {
    enum vset_kind kind;
    bool number;
    bool whole; /* numbers: every member is whole, and is written without a fraction */
    uint32_t rx;
    const struct vset_item *item;
    size_t n;
    uint32_t n_int, n_frac; /* numbers: digits that bounds need, if more than the defaults */
};

struct vset vset_none(bool number);
struct vset vset_all(bool number);
struct vset vset_rx(bool number, uint32_t rx);
struct vset vset_and(struct schema *s, struct vset a, struct vset b);
struct vset vset_or(struct schema *s, struct vset a, struct vset b);
struct vset vset_not(struct schema *s, struct vset a);
/* vset_has: key is a canonical spelling. */
bool vset_has(struct schema *s, const struct vset *a, struct str key);
/* vset_settle: a set whose expression matches nothing becomes SET_NONE. */
MUST_USE enum rc vset_settle(struct schema *s, struct vset *a, uint32_t node, const char *keyword,
                             struct err *e);
/* vset_rx_of: the members as an expression: all canonical spellings. */
uint32_t vset_rx_of(struct schema *s, const struct vset *a);
/* vset_output: what may be written, quotes included; RX_NONE for none. unique: one spelling per member. */
uint32_t vset_output(struct schema *s, const struct vset *a, bool unique);
/* vset_of_value: the one string or number. */
struct vset vset_of_value(struct schema *s, const json_t *j);

/* ---- leaves of strings and numbers (schema_leaf.c, schema_number.c, schema_format.c) --------------------
 */

/* number_range: numbers from lo to hi (plain spellings; NULL p: no bound), which may be left out themselves.
 */
struct vset number_range(struct schema *s, struct str lo, bool lo_open, struct str hi, bool hi_open);
/* number_whole: the whole numbers. */
struct vset number_whole(struct schema *s);
/* number_multiple: of m, which is above 0; RC_INVALID if its digits are more than these. */
enum { NUMBER_STEP_MAX = 10000, NUMBER_SCALE_MAX = 30 };
MUST_USE enum rc number_multiple(struct schema *s, uint32_t node, const json_t *m, struct vset *out,
                                 struct err *e);
/* number_plain: a JSON number without exponent, its shortest; in the arena. */
struct str number_plain(struct schema *s, const json_t *j);
/* number_text: as it is written out. */
struct str number_text(struct schema *s, const json_t *j);
/* format_rx: canonical bodies of a format; false if it is not known. */
bool format_rx(struct gram *g, const char *name, uint32_t *rx);

/* ---- scalars (schema_scalar.c) ------------------------------------------------------------------ */

enum part { PART_NONE, PART_SOME, PART_ALL };

struct scalar {
    bool null_, true_, false_;
    struct vset num, str;
    enum part arr, obj;
};

/* schema_scalar: of a literal; memoised. RC_INVALID: a check failed, or it refers to itself in place. */
MUST_USE enum rc schema_scalar(struct schema *s, uint32_t lit, struct scalar *out, struct err *e);
struct scalar scalar_and(struct schema *s, const struct scalar *a, const struct scalar *b);
/* scalar_output: what may be written, as an expression; unique: one spelling per value. */
uint32_t scalar_output(struct schema *s, const struct scalar *sc, bool unique);
/* scalar_size: how many values there are; SCHEMA_INF: more than SCHEMA_FEW_MAX. Arrays and objects count as
 * infinitely many. */
MUST_USE enum rc scalar_size(struct schema *s, const struct scalar *sc, uint32_t *n, struct err *e);
/* set_members: the members of a set of strings, as bodies in the arena, if they are at most SCHEMA_FEW_MAX;
 * else *n is SCHEMA_INF. */
MUST_USE enum rc set_members(struct schema *s, uint32_t rx, struct str **out, uint32_t *n, struct err *e);
/* schema_scalar_all: of all literals at once. */
MUST_USE enum rc schema_scalar_all(struct schema *s, const uint32_t *lits, size_t n, struct scalar *out,
                                   struct err *e);

/* ---- branches (schema_expand.c, schema_deny.c) ----------------------------------------------------------
 */

enum want { WANT_ARRAY, WANT_OBJECT };

enum fact_kind {
    FACT_SHAPE,     /* node: its array or object keywords that look at members, or its value */
    FACT_MIN,       /* count: members at least; node: who says so */
    FACT_MAX,       /* count: members at most */
    FACT_REQUIRED,  /* key; node */
    FACT_ABSENT,    /* key */
    FACT_KEY_IS,    /* key, lit: its value, if it is there */
    FACT_NAMES,     /* lit: every key */
    FACT_UNIQUE,    /* node */
    FACT_ITEM_IS,   /* count, lit: the item at that index, if it is there */
    FACT_ITEMS_ARE, /* lit: every item */
    FACT_CONTAINS,  /* lit, count to most: how many items; from: the first index that counts */
    FACT_UNSAID,    /* node, keyword: cannot be put in a grammar: an error if the branch has values */
    FACT_EXTRA,     /* node, keyword: some key that the node does not declare breaks it */
};

struct fact {
    const struct fact *next;
    enum fact_kind kind;
    uint32_t node, lit, count, most, from;
    const char *text; /* key or keyword */
};

/* What is still to be done in a branch: a literal, a fact, or a choice between lists of them. */
enum todo_kind { TODO_LIT, TODO_FACT, TODO_CHOICE };
struct todo {
    const struct todo *next;
    enum todo_kind kind;
    uint32_t lit;
    struct fact fact;
    const struct option *options;
};
struct option {
    const struct option *next;
    const struct todo *todo;
};

struct branch {
    struct branch *next;
    const struct fact *facts; /* in order */
};

/* schema_expand: the branches of a conjunction, for arrays or for objects. None: *out is NULL. */
MUST_USE enum rc schema_expand(struct schema *s, enum want want, const uint32_t *lits, size_t n,
                               struct branch **out, struct err *e);
/* schema_deny: the ways to break a schema node, as a choice. */
MUST_USE enum rc schema_deny(struct schema *s, enum want want, uint32_t node, const struct option **out,
                             struct err *e);
/* schema_deny_value: the ways to differ from an array or object. */
const struct option *schema_deny_value(struct schema *s, enum want want, uint32_t node);
/* schema_shares: which members of a oneOf may share an array, an object: [n][n], n its members. */
MUST_USE enum rc schema_shares(struct schema *s, enum want want, uint32_t node, const bool **out,
                               struct err *e);

const struct todo *todo_lit(struct schema *s, uint32_t lit, const struct todo *next);
const struct todo *todo_fact(struct schema *s, struct fact f, const struct todo *next);
const struct todo *todo_choice(struct schema *s, const struct option *o, const struct todo *next);
const struct option *option_add(struct schema *s, const struct todo *todo, const struct option *next);

/* ---- rules (json_schema.c, schema_array.c, schema_object.c) ---------------------------------------------
 */

#define SYM_NONE UINT32_MAX /* no value */

/* schema_sym: the symbol of all values that meet these literals; SYM_NONE if it is clear at once that none
 * does. lits is sorted and plain on return of schema_conj_lits. */
MUST_USE enum rc schema_sym(struct schema *s, const uint32_t *lits, size_t n, uint32_t *sym, struct err *e);
/* schema_void: it is clear at once that no value meets these literals. */
MUST_USE enum rc schema_void(struct schema *s, const uint32_t *lits, size_t n, bool *yes, struct err *e);

MUST_USE enum rc schema_array(struct schema *s, uint32_t rule, const struct branch *b, struct err *e);
MUST_USE enum rc schema_object(struct schema *s, uint32_t rule, const struct branch *b, struct err *e);
/* array_dead, object_dead: clearly without values, for a contradiction in counts, or in an item or a key that
 * must be there: no use in keeping the branch. */
MUST_USE enum rc array_dead(struct schema *s, const struct branch *b, bool *dead, struct err *e);
MUST_USE enum rc object_dead(struct schema *s, const struct branch *b, bool *dead, struct err *e);

/* schema_listed: if all there is to say about arrays, or objects, under these literals is a list of values,
 * puts them into the rule and sets *done; else *done is false and the rule is as it was. */
MUST_USE enum rc schema_listed(struct schema *s, enum want want, const uint32_t *lits, size_t n,
                               uint32_t rule, bool *done, struct err *e);

/* ---- productions (schema_prod.c): as of ir.h, and remembered ------------------------------------ */

uint32_t schema_rule(struct schema *s, const char *name, unsigned flags);
void schema_prod(struct schema *s, uint32_t rule, const uint32_t *parts, size_t n);
/* schema_repeat: with commas between. */
uint32_t schema_repeat(struct schema *s, uint32_t part, uint32_t min, uint32_t max);
/* schema_productive: a symbol that derives some text. */
bool schema_productive(struct schema *s, uint32_t sym);

static inline const char *want_name(enum want w) {
    return w == WANT_ARRAY ? "array" : "object";
}
/* Literals that grow in the arena. */
struct lits {
    uint32_t *v;
    size_t n, cap;
};
void lits_add(struct schema *s, struct lits *l, uint32_t lit);

#endif
