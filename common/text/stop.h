/* stop.h: stop strings over streamed text (api.md 8.6).
 *
 * Text goes in as it is decoded; what can no longer be part of a match comes out. The longest tail
 * that is a proper prefix of some stop string is held back. One thread at a time. Linear time in
 * text times the number of stop strings (Knuth-Morris-Pratt per string).
 */
#ifndef WEIR_COMMON_TEXT_STOP_H
#define WEIR_COMMON_TEXT_STOP_H

#include "common/buf.h"

struct stop_set; /* the strings and their failure tables; immutable, shared by the choices of a request */
struct stop {
    const struct stop_set *set; /* NULL: no stop strings */
    struct buf held;            /* text not yet released */
    uint32_t *state;            /* [n] characters matched so far of each string */
    bool include;               /* keep the matched text */
};

struct stop_set *stop_set_new(const struct str *strings, size_t n); /* copies; NULL when n is 0 */
void stop_set_free(struct stop_set *s);
void stop_init(struct stop *s, const struct stop_set *set, bool include);
void stop_fini(struct stop *s);
/* stop_push: feeds a step's text; appends what is released to out. counts is false while fewer than
 * min_tokens are out: text is scanned and released, matches that end in it are not taken. Returns
 * the index of the string that matched (the first in request order within one call), else -1. After a
 * match out holds the text up to the match (with it, when included), the rest is dropped. */
int stop_push(struct stop *s, const char *text, size_t n, bool counts, struct buf *out);
/* stop_flush: at the finish, releases what is held. */
void stop_flush(struct stop *s, struct buf *out);

#endif
