/* regex_parts.h: what the files of the regex parser share; nobody else includes it.
 *
 * Anchors are exact: a piece is four languages, by what its anchors demand of the text around it, and the
 * operations on pieces work the demands out. In a whole match the text around is empty, so all four count; in
 * a search each is extended by any text on the sides where nothing is demanded.
 */
#ifndef WEIR_COMMON_GRAM_REGEX_PARTS_H
#define WEIR_COMMON_GRAM_REGEX_PARTS_H

#include "common/gram/regex.h"

/* Bits of a demand: nothing before (a '^'), nothing behind (a '$'). */
enum { AT_START = 1, AT_END = 2, N_DEMANDS = 4 };

struct rx_piece {
    uint32_t rx[N_DEMANDS]; /* RX_NONE: no string with this demand */
    bool empty[N_DEMANDS];  /* the empty string is one of them */
    uint32_t n_states;      /* characters of the pattern with its repeats written out; saturates */
};

struct rx_piece rx_piece_of(uint32_t rx, bool empty, uint32_t n_states);
struct rx_piece rx_piece_anchor(unsigned demand);
struct rx_piece rx_piece_cat(struct gram *g, const struct rx_piece *a, const struct rx_piece *b);
struct rx_piece rx_piece_alt(struct gram *g, const struct rx_piece *a, size_t n);
bool rx_piece_has_anchor(const struct rx_piece *a);
/* rx_piece_repeat: with an anchor inside, only 0 or 1 to 1 or without bound. */
struct rx_piece rx_piece_repeat(struct gram *g, const struct rx_piece *a, uint32_t min, uint32_t max);
/* rx_piece_whole, rx_piece_search: the piece as a whole text; any: one character of any text. */
uint32_t rx_piece_whole(struct gram *g, const struct rx_piece *a);
uint32_t rx_piece_search(struct gram *g, const struct rx_piece *a, uint32_t any);

struct rx_parser {
    struct gram *g;
    const struct gram_limits *limits;
    struct str s;
    size_t at;
    struct rx_syntax how; /* flags change with groups */
    const char *what;     /* the text, for messages: "pattern" */
    struct err *e;
};

/* rx_bad: RC_INVALID "WHAT offset N: ..." of the character at byte `at`. */
enum rc rx_bad(struct rx_parser *p, size_t at, const char *fmt, ...) PRINTF_LIKE(3, 4);
static inline bool rx_more(const struct rx_parser *p) {
    return p->at < p->s.n;
}
static inline char rx_peek(const struct rx_parser *p, size_t ahead) {
    return p->at + ahead < p->s.n ? p->s.p[p->at + ahead] : 0;
}
/* rx_take_char: the code point here; the parser stands behind it. The text is valid UTF-8 and not at its end.
 */
uint32_t rx_take_char(struct rx_parser *p);

/* rx_take_escape: at '\'. One character (*one) or a class, added to the set. Anchors are not its business. */
MUST_USE enum rc rx_take_escape(struct rx_parser *p, bool in_class, struct rx_set *set, bool *one,
                                uint32_t *cp);
/* rx_take_class: at '['; the set is complete, negated if it says so. */
MUST_USE enum rc rx_take_class(struct rx_parser *p, struct rx_set *set);

#endif
