/* pattern_reader.h: what the files that read the text of a pattern share. Nobody else includes it. */
#ifndef WEIR_COMMON_TEXT_PATTERN_READER_H
#define WEIR_COMMON_TEXT_PATTERN_READER_H

#include "common/text/pattern_impl.h"

struct pat_reader {
    struct pat_tree *t;
    struct str re;
    size_t at;
    unsigned depth;
    bool no_case, dot_all; /* (?i), (?m) */
    struct err *e;
    enum rc rc;
    /* The literal characters before here that stand alone, the last one last; 0: none. */
    uint32_t before[2];
};

/* pat_bad (RC_INVALID), pat_lacks (RC_UNSUPPORTED): the first error counts; the caller unwinds as soon as it
 * sees rc. */
PRINTF_LIKE(2, 3) void pat_bad(struct pat_reader *x, const char *fmt, ...);
PRINTF_LIKE(2, 3) void pat_lacks(struct pat_reader *x, const char *fmt, ...);

static inline bool pat_more(const struct pat_reader *x) {
    return x->at < x->re.n;
}
static inline bool pat_looking_at(const struct pat_reader *x, const char *z) {
    return str_starts((struct str){x->re.p + x->at, x->re.n - x->at}, str_of(z));
}
static inline bool pat_take(struct pat_reader *x, const char *z) {
    bool yes = pat_looking_at(x, z);
    x->at += yes ? strlen(z) : 0;
    return yes;
}
static inline uint32_t pat_take_char(struct pat_reader *x) {
    size_t len;
    uint32_t cp = uni_decode(x->re.p + x->at, &len);
    x->at += len;
    return cp;
}

/* ---- pattern_class.c: behind the backslash, false: another escape ---- */

/* pat_take_code: \x41, \x{1F600}, \u0041, \n and the like. */
bool pat_take_code(struct pat_reader *x, uint32_t *cp);
/* pat_take_kind: \w, \d, \s, \h, \p and their opposites. */
bool pat_take_kind(struct pat_reader *x, bool bracket, struct pat_set *s);

/* pat_take_class: a class from [ to ] joins out. outermost: it stands in no other. */
void pat_take_class(struct pat_reader *x, struct pat_set *out, bool outermost);

#endif
