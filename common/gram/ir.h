/* ir.h: a grammar as the front ends build it: regular expressions over bytes, and rules over them.
 *
 * Meaning, exactly: a terminal stands for every byte string of its expression; a production for the
 * concatenation of its parts; the grammar for what its start symbol derives. There is no longest match and no
 * lexer to please: every split of the text into terminals counts. Text is UTF-8; classes are of code points
 * and become byte automata inside. An expression matches valid UTF-8 only, complement included.
 *
 * Keys that may not repeat: a terminal with TERM_UNIQUE may not match a string that a TERM_UNIQUE terminal
 * has matched before in the same scope. A scope opens with each instance of a rule with RULE_SCOPE and is
 * inherited by the rules it predicts, in order of the text: what a part of a production has matched directly
 * is known to the parts after it (and to what they derive), what a rule below it has matched is not handed
 * back up. So members of an object are right-recursive: members -> key ":" value rest; rest -> "" | ","
 * members.
 *
 * Keys that run out: a production is given up as soon as one of its keys has no string left. One that must
 * match two or more keys yet, of an expression with fewer strings left than that, is noticed too late: front
 * ends do not build such.
 *
 * Threads: a grammar is built by one thread. Sealed, it is immutable and may be shared (gram.h).
 * Limits: struct gram_limits, checked as it grows: a builder that went over them keeps returning valid ids
 * and gram_seal says RC_INVALID; so front ends need not look at each call, but must bound their own loops
 * (gram_over tells).
 * Expressions are hash-consed: equal ones have equal ids. Ids are only valid in their own grammar.
 */
#ifndef WEIR_COMMON_GRAM_IR_H
#define WEIR_COMMON_GRAM_IR_H

#include "common/err.h"

struct gram;

struct gram_limits {
    uint32_t n_rx;         /* distinct expressions; 0: 1 << 20 */
    uint32_t n_symbols;    /* rules and terminals; 0: 1 << 18 */
    uint32_t n_parts;      /* parts of all productions; 0: 1 << 20 */
    size_t memory_bytes;   /* of the grammar and what running it caches; 0: 64 MiB */
    uint64_t compile_fuel; /* units of about 10 ns; 0: 50 million */
    uint64_t mask_fuel;    /* of one mask; 0: 5 million */
    /* Of what front ends read (api.md 18). */
    uint32_t text_bytes;   /* schema, grammar or tag text; 0: 256 KiB (--max-schema-bytes) */
    uint32_t n_nodes;      /* schema nodes after $ref; 0: 32,768 (--max-schema-nodes) */
    uint32_t n_choices;    /* members of a choice or an enum; 0: 4096 (--max-choices) */
    uint32_t regex_bytes;  /* 0: 16 KiB (--max-regex-bytes) */
    uint32_t regex_repeat; /* 0: 1024 (--max-regex-repeat) */
    uint32_t regex_states; /* places in a pattern, repeats written out; 0: 100,000 (--max-regex-states) */
};

/* gram_new: an empty grammar; limits may be NULL for the defaults. */
struct gram *gram_new(const struct gram_limits *limits) __attribute__((returns_nonnull));
/* gram_limits_of: its limits, defaults filled in. */
const struct gram_limits *gram_limits_of(const struct gram *g);
/* gram_over: a limit was passed; what is built from now on is lost anyway. */
bool gram_over(const struct gram *g);

/* ---- expressions ------------------------------------------------------------------------------ */

enum { RX_NONE = 0, RX_EMPTY = 1, RX_ANY = 2 }; /* no string; the empty string; any text, empty included */
#define RX_INF UINT32_MAX

struct rx_range {
    uint32_t lo, hi; /* code points, both included; surrogates inside are left out */
};

uint32_t rx_bytes(struct gram *g, struct str s); /* this string; s is UTF-8 */
/* rx_class: one code point of the ranges (sorted or not, may overlap); negated: any other. */
uint32_t rx_class(struct gram *g, const struct rx_range *ranges, size_t n, bool negated);
/* rx_cat: cheapest when a long chain is put together from its end; from its front it takes n log n nodes. */
uint32_t rx_cat(struct gram *g, uint32_t a, uint32_t b);
uint32_t rx_alt(struct gram *g, uint32_t a, uint32_t b);
uint32_t rx_alt_n(struct gram *g, const uint32_t *a, size_t n); /* of many: balanced */
uint32_t rx_and(struct gram *g, uint32_t a, uint32_t b);        /* intersection */
uint32_t rx_not(struct gram *g, uint32_t a);                    /* any text that a does not match */
uint32_t rx_repeat(struct gram *g, uint32_t a, uint32_t min, uint32_t max); /* max RX_INF: no bound */
/* rx_choice: one of n strings; a trie, for long enums. */
uint32_t rx_choice(struct gram *g, const struct str *s, size_t n);
/* rx_choice_gaps: the same with holes: where a string has byte i, below RX_GAPS, any string of gaps[i]
 * [RX_GAPS] stands. */
enum { RX_GAPS = 2 };
uint32_t rx_choice_gaps(struct gram *g, const struct str *s, size_t n, const uint32_t *gaps);
/* rx_multiple: numbers in digits, "-" or nothing in front, "." and digits behind or not, whose value is a
 * multiple of step / 10^scale; step from 1 to RX_STEP_MAX, scale at most RX_SCALE_MAX. Leading zeros are not
 * looked at: intersect it with the spellings wanted. */
enum { RX_STEP_MAX = 1 << 20, RX_SCALE_MAX = 60 };
uint32_t rx_multiple(struct gram *g, uint32_t step, uint32_t scale);
/* rx_is_none: provably or by search matches nothing. RC_INVALID when fuel ran out before that was known. */
MUST_USE enum rc rx_is_none(struct gram *g, uint32_t a, bool *none, struct err *e);
/* rx_matches: the whole of s is of a. For front ends' own checks and for tests. */
bool rx_matches(struct gram *g, uint32_t a, struct str s);

/* ---- symbols ---------------------------------------------------------------------------------- */

enum { RULE_SCOPE = 1, TERM_UNIQUE = 2 };

/* gram_rule: a new rule, without productions yet; name is for messages, copied, may be empty. */
uint32_t gram_rule(struct gram *g, struct str name, unsigned flags);
/* gram_term: the terminal of an expression. With TERM_UNIQUE the expression must spell each key in one way
 * only, and not match the empty string. */
uint32_t gram_term(struct gram *g, uint32_t rx, unsigned flags);
/* gram_prod: rule -> parts, in order; n 0: the empty string. */
void gram_prod(struct gram *g, uint32_t rule, const uint32_t *parts, size_t n);
/* gram_repeat: a rule that derives min to max times `part`, with `between` (UINT32_MAX: nothing) between two;
 * its size grows with the logarithm of the bounds. */
uint32_t gram_repeat(struct gram *g, uint32_t part, uint32_t between, uint32_t min, uint32_t max);

/* gram_seal: the start symbol; the end of building. RC_INVALID: a limit was passed, or a rule reachable from
 * start derives no string and `strict` is on (names the rule), or start derives none (always). */
MUST_USE enum rc gram_seal(struct gram *g, uint32_t start, bool strict, struct err *e);

/* Sharing: gram_new gives one hold; gram_drop of the last frees it. gram_drop(NULL) is fine. */
struct gram *gram_hold(struct gram *g);
void gram_drop(struct gram *g);
/* gram_bytes: memory it occupies now, caches included. */
size_t gram_bytes(const struct gram *g);

#endif
