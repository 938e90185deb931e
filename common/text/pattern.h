/* pattern.h: the regular expressions of tokenizer.json, as Hugging Face tokenizers read them: Oniguruma's syntax
 * for Ruby, and that library's Unicode (class_tab.h).
 *
 * Why an engine of our own: a backtracking library has inputs that take time without end, and its classes are of
 * another Unicode. Here a search remembers where each state of the program failed, once it has taken long, so
 * that all searches of a text together take time linear in it. A pattern is immutable once built; any thread.
 *
 * Not there, refused by name: back references, calls, conditions, absent groups, \G \K \R \X \y, look-behind
 * of no fixed length, repetition without a bound of what may be empty, (?x), possessive repetition of
 * more than a character, and letters that would match several (ss and U+00DF) where case does not count.
 */
#ifndef WEIR_COMMON_TEXT_PATTERN_H
#define WEIR_COMMON_TEXT_PATTERN_H

#include "common/err.h"

enum {
    PATTERN_BYTES_MAX = 16 << 10,
    PATTERN_DEPTH_MAX = 48,         /* groups in groups */
    PATTERN_REPEAT_MAX = 1000,      /* {n} */
    PATTERN_INSTS_MAX = 8192,       /* of the program; repeats are copies */
    PATTERN_STATES_MAX = 512,       /* those that branch */
    PATTERN_SETS_MAX = 256,         /* classes */
    PATTERN_MEMO_BYTES_MAX = 64 << 20,
};

struct pattern;

/* pattern_new: RC_INVALID: not a pattern; RC_UNSUPPORTED: one that is not supported. The message says what and
 * where. re is not referenced afterwards. */
MUST_USE enum rc pattern_new(struct pattern **out, struct str re, struct err *e);
void pattern_free(struct pattern *m); /* NULL is fine */

/* The matches of one text, from left to right. */
struct pattern_frame;
struct pattern_run;
struct pattern_scan {
    const struct pattern *m;
    const char *p;
    size_t n;
    size_t at;          /* where the next search starts; above n: there is none */
    size_t last_end;    /* of the last match; SIZE_MAX: there was none */
    uint64_t n_steps;   /* taken so far */
    uint64_t n_steps_mark, n_steps_max; /* from the first on, marks are kept; from the second on, all fails */
    bool exhausted;
    uint64_t *memo;     /* two bits a state and position: failed, succeeded; NULL until it took long */
    size_t memo_origin, memo_n; /* the positions it covers */
    struct pattern_run *runs;   /* with memo: of each possessive loop, the last run */
    struct pattern_frame *stack;
    size_t n_stack, cap_stack;
};
/* pattern_scan_init: n bytes of valid UTF-8, borrowed. */
void pattern_scan_init(struct pattern_scan *s, const struct pattern *m, const char *p, size_t n);
void pattern_scan_fini(struct pattern_scan *s);
/* pattern_next: the next match, p[*begin, *end). An empty match right behind a match does not count, and the
 * search goes on a character later: Hugging Face's rule. false: no more. */
bool pattern_next(struct pattern_scan *s, size_t *begin, size_t *end);

#endif
