/* regex.h: patterns as expressions, for the front ends: the parser behind rx_parse with its settings, sets of
 * code points.
 *
 * The language: ECMA-262's (2024, flag u) without look-around, back-references and word boundaries, with what
 * Python's re writes differently where that is no contradiction: (?P<name>...), (?#...), (?i) and (?s) at the
 * front or for a group, \A, \Z, \UXXXXXXXX, {,n}, and '{' for itself where no repeat can be read. \d \w \s
 * are ECMA's: ASCII digits, ASCII letters with '_', and ECMA's white space. What the two read in
 * contradicting ways ([] and [^], octal and unknown escapes, possessive repeats) is refused.
 *
 * Threads: none of its own. Limits: those of the grammar (ir.h); groups nest at most RX_GROUPS_MAX deep.
 */
#ifndef WEIR_COMMON_GRAM_REGEX_H
#define WEIR_COMMON_GRAM_REGEX_H

#include "common/gram/front.h"

enum { RX_GROUPS_MAX = 200 };

struct rx_syntax {
    rx_one_of *one_of; /* of the alphabet (front.h); NULL: rx_class */
    bool search;       /* matches anywhere unless anchored; and '.' is no line terminator of ECMA's */
    bool icase;        /* flag i: letters of any case */
    bool dotall;       /* flag s: '.' is any character; without it, any but a line feed */
    bool no_anchors;   /* ^ and $ are refused: the pattern is a part of something longer */
};

/* rx_parse_as: rx_parse (front.h) with settings. RC_INVALID: "pattern offset N: ...", N in characters. */
MUST_USE enum rc rx_parse_as(struct gram *g, struct str pattern, const struct rx_syntax *how, uint32_t *rx,
                             struct err *e);

/* ---- sets of code points ---------------------------------------------------------------------- */

struct rx_set {
    struct rx_range *r;
    size_t n, cap;
    size_t n_tidy; /* the first n_tidy ranges are sorted, apart and not adjacent */
};

void rx_set_fini(struct rx_set *s);
void rx_set_add(struct rx_set *s, uint32_t lo, uint32_t hi);
void rx_set_tidy(struct rx_set *s);   /* sorts and joins all */
void rx_set_negate(struct rx_set *s); /* tidies, too; of 0 to 0x10FFFF */
void rx_set_fold(struct rx_set *s);   /* adds the other cases of its letters; tidies, too */
/* rx_set_property: adds what \p{name} holds. False if there is no such property. Name: of a general category,
 * of a script ("Greek", "Script=Greek", "sc=Grek"), or of one of the yes-or-no properties of the table. */
bool rx_set_property(struct rx_set *s, struct str name, bool negated);

/* rx_set_expr: one character of the set, which is tidied; in plain text. */
uint32_t rx_set_expr(struct gram *g, struct rx_set *s);
/* rx_any_char: one character, any. */
uint32_t rx_any_char(struct gram *g);

#endif
