/* front.h: from what a request says to a sealed grammar.
 *
 * Each call checks everything at once, names what is wrong (err.param: a JSON pointer or "pattern offset N"
 * text in the message, see each), and costs at most the limits' fuel and memory. Used by the router, which
 * answers 400, and by the worker, which trusts nobody and compiles again.
 */
#ifndef WEIR_COMMON_GRAM_FRONT_H
#define WEIR_COMMON_GRAM_FRONT_H

#include "common/gram/ir.h"

struct json_t;

struct gram_options {
    struct str whitespace_pattern;    /* {NULL, 0}: the default of api.md 9.3.4 */
    bool no_whitespace;               /* disable_any_whitespace */
    bool no_additional_properties;    /* disable_additional_properties */
    const struct gram_limits *limits; /* NULL: defaults */
};

/* Into a grammar under construction: what comes back is a symbol (terminal or rule). They are how structural
 * tags and tools nest one kind in another. RC_INVALID names keyword and JSON pointer, or the offset in the
 * pattern. */
MUST_USE enum rc gram_add_json_schema(struct gram *g, const struct json_t *schema,
                                      const struct gram_options *o, uint32_t *sym, struct err *e);
MUST_USE enum rc gram_add_regex(struct gram *g, struct str pattern, uint32_t *sym, struct err *e);
MUST_USE enum rc gram_add_ebnf(struct gram *g, struct str text, uint32_t *sym, struct err *e);
/* rx_parse: a pattern as an expression, anchored at both ends; `search`: as JSON Schema's "pattern", which
 * matches anywhere unless ^ or $ say otherwise. */
MUST_USE enum rc rx_parse(struct gram *g, struct str pattern, bool search, uint32_t *rx, struct err *e);
/* rx_parse_in: the same in another alphabet: one_of makes the expression that spells one code point of a class
 * (ranges, n and negated as of rx_class; n 0 and negated: any code point). Every literal, class, escape and dot
 * of the pattern, and what `search` adds at the ends, is built by it; nothing else may match text. JSON Schema
 * uses it for patterns over the escaped text of JSON strings. rx_parse is rx_parse_in with rx_class. */
typedef uint32_t rx_one_of(struct gram *g, const struct rx_range *ranges, size_t n, bool negated);
MUST_USE enum rc rx_parse_in(struct gram *g, struct str pattern, bool search, rx_one_of *one_of, uint32_t *rx,
                             struct err *e);
/* gram_add_tags: both shapes of api.md 9.5. */
MUST_USE enum rc gram_add_tags(struct gram *g, const struct json_t *tags, const struct gram_options *o,
                               uint32_t *sym, struct err *e);

/* gram_compile: the whole of a constraint as the wire carries it (proto Constraint): kind, text and
 * options_json. JSON_SCHEMA: text is the schema; CHOICE: a JSON list of strings; STRUCTURAL_TAG: its object.
 * options_json:
 * {"whitespace_pattern", "disable_any_whitespace", "disable_additional_properties"} or empty. */
enum gram_kind { GRAM_JSON_SCHEMA = 1, GRAM_REGEX, GRAM_EBNF, GRAM_CHOICE, GRAM_STRUCTURAL_TAG };
MUST_USE enum rc gram_compile(struct gram **out, enum gram_kind kind, struct str text,
                              struct str options_json, const struct gram_limits *limits, struct err *e);

#endif
