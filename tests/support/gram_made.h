/* gram_made.h: constraints made up by a seed, as requests carry them: a schema, a pattern, a grammar.
 *
 * Together they use every keyword and every construct that is supported; some of them have no text or cross a
 * limit, and are refused. */
#ifndef WEIR_TESTS_SUPPORT_GRAM_MADE_H
#define WEIR_TESTS_SUPPORT_GRAM_MADE_H

#include "common/buf.h"
#include "common/gram/front.h"

/* gram_made: puts the text of the seed's constraint behind what b holds: GRAM_JSON_SCHEMA, GRAM_REGEX or
 * GRAM_EBNF. */
void gram_made(uint64_t seed, enum gram_kind kind, struct buf *b);

#endif
