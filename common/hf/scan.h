/* scan.h: reads JSON text in one pass without building a tree.
 *
 * For headers of weight files: up to 100 MB, from files nobody vouches for, of a known form. The caller asks
 * for what must come next; nothing is allocated but decoded strings, in the caller's arena. Time is linear,
 * nesting is a counter. The text may change while it is read (a mapped file): results may then be nonsense,
 * accesses stay within the text.
 *
 * Every function returns false at the first fault and leaves its reason, a literal, in `why`. One thread.
 */
#ifndef WEIR_COMMON_HF_SCAN_H
#define WEIR_COMMON_HF_SCAN_H

#include "common/arena.h"

enum { SCAN_DEPTH_MAX = 64 };

struct scan {
    const char *begin, *at, *end;
    const char *why;
};

void scan_init(struct scan *s, struct str text);
/* scan_eat: skips white space and consumes c; scan_peek: whether c comes next, without consuming it. */
MUST_USE bool scan_eat(struct scan *s, char c);
MUST_USE bool scan_peek(struct scan *s, char c);
/* scan_string: a string, unescaped and NUL-terminated in the arena; valid UTF-8, without NUL bytes. */
MUST_USE bool scan_string(struct scan *s, struct arena *a, struct str *out);
/* scan_u64: a whole number from 0 to 2^64 - 1, digits only. */
MUST_USE bool scan_u64(struct scan *s, uint64_t *out);
/* scan_skip: any one value, nested SCAN_DEPTH_MAX deep at most. Strings are not checked for UTF-8. */
MUST_USE bool scan_skip(struct scan *s);
/* scan_end: only white space is left. */
MUST_USE bool scan_end(struct scan *s);
/* scan_offset: bytes read so far, for messages. */
size_t scan_offset(const struct scan *s);

/* scan_member: steps through an object whose '{' has been eaten. *first is true before the first member and
 * false afterwards. Returns true with *more set: either a key was read, with its colon, or the object has
 * ended. */
MUST_USE bool scan_member(struct scan *s, struct arena *a, bool *first, bool *more, struct str *key);

#endif
