/* json_text.h: JSON's spelling of strings and numbers, as expressions.
 *
 * Where a string is constrained, it is spelled in one way only, the canonical one: '"' and '\' behind a
 * backslash, U+0008, 9, A, C and D as \b \t \n \f \r, other controls as \u00xx in small letters, every other
 * character by itself. That makes the spelling a code: what holds for texts holds for their spellings, so
 * unions, intersections and complements (within jt_any) may be taken on either side. Where it is free, all of
 * JSON's spellings are allowed.
 *
 * No state; threads as the grammar's. "Body": the text between the quotes.
 */
#ifndef WEIR_COMMON_GRAM_JSON_TEXT_H
#define WEIR_COMMON_GRAM_JSON_TEXT_H

#include "common/buf.h"
#include "common/gram/ir.h"

/* Digits of numbers that no keyword bounds (api.md 9.3.6). */
enum { JT_INT_DIGITS = 20, JT_FRAC_DIGITS = 20, JT_EXP_DIGITS = 3 };

/* jt_one_of: the canonical spelling of one code point of a class; as rx_class, and n 0 negated is any. It is
 * the alphabet to give rx_parse_in. */
uint32_t jt_one_of(struct gram *g, const struct rx_range *ranges, size_t n, bool negated);
/* jt_any: canonical bodies of all strings. */
uint32_t jt_any(struct gram *g);
/* jt_length: canonical bodies of min to max code points; max RX_INF: no bound. */
uint32_t jt_length(struct gram *g, uint32_t min, uint32_t max);
/* jt_spell: appends the canonical body of s, which is UTF-8. */
void jt_spell(struct buf *b, struct str s);
/* jt_quoted: body between quotes. */
uint32_t jt_quoted(struct gram *g, uint32_t body);
/* jt_free_string: any string in any spelling, quotes included; no half of a surrogate pair. */
uint32_t jt_free_string(struct gram *g);

/* jt_digits: lo to hi decimal digits in [first, last]. */
uint32_t jt_digits(struct gram *g, char first, char last, uint32_t lo, uint32_t hi);
/* jt_free_number: any number within the digits above. */
uint32_t jt_free_number(struct gram *g);
/* jt_plain: numbers without an exponent, of at most n_int and n_frac digits (RX_INF: no bound; n_frac 0: no
 * fraction). */
uint32_t jt_plain(struct gram *g, uint32_t n_int, uint32_t n_frac);
/* jt_opt: e or nothing. */
static inline uint32_t jt_opt(struct gram *g, uint32_t e) {
    return rx_alt(g, e, RX_EMPTY);
}
/* jt_lit: a literal. */
static inline uint32_t jt_lit(struct gram *g, const char *z) {
    return rx_bytes(g, str_of(z));
}

#endif
