/* pattern_class.c: escapes and classes of a pattern. Recursion is as deep as classes are, PATTERN_DEPTH_MAX.
 */
#include "common/text/pattern_reader.h"

#include "common/text/class_tab.h"

#include <stdarg.h>
#include <stdio.h>

static void fail(struct pat_reader *x, enum rc rc, const char *fmt, va_list ap) {
    char why[200];
    if (x->rc)
        return;
    vsnprintf(why, sizeof why, fmt, ap);
    x->rc = err_set(x->e, rc, NULL, "the pattern %.*s%s: %s, at byte %zu", (int)MIN(x->re.n, (size_t)300),
                    x->re.p, x->re.n > 300 ? "..." : "", why, x->at);
}
void pat_bad(struct pat_reader *x, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail(x, RC_INVALID, fmt, ap);
    va_end(ap);
}
void pat_lacks(struct pat_reader *x, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail(x, RC_UNSUPPORTED, fmt, ap);
    va_end(ap);
}

/* fold_set: of what stands in brackets; several letters that match one of its characters would count, too. */
static void fold_set(struct pat_reader *x, struct pat_set *s, bool negated) {
    for (size_t i = 0; i < CLASS_N_LONG_FOLDS && !negated; i++)
        if (pat_set_has(s, class_long_folds[i].cp))
            pat_lacks(x, "where case does not count, a class with U+%04X is not supported",
                      (unsigned)class_long_folds[i].cp);
    pat_set_fold(s);
}

/* ---- escapes ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

/* take_hex: n_min to n_max digits. */
static uint32_t take_hex(struct pat_reader *x, size_t n_min, size_t n_max) {
    uint32_t v = 0;
    size_t n = 0;
    for (int d; n < n_max && pat_more(x) && (d = hex_digit(x->re.p[x->at])) >= 0; n++, x->at++)
        v = v << 4 | (uint32_t)d;
    if (n < n_min)
        pat_bad(x, "too short a number");
    if (v > UNI_MAX || (v >= 0xD800 && v < 0xE000))
        pat_bad(x, "a number that is no character");
    return v;
}

bool pat_take_code(struct pat_reader *x, uint32_t *cp) {
    static const char names[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1B";
    char c = x->re.p[x->at];
    const char *known = strchr(names, c);
    if (known && c) {
        x->at++;
        *cp = (uint8_t)codes[known - names];
    } else if (pat_take(x, "x{")) {
        *cp = take_hex(x, 1, 8);
        if (!pat_take(x, "}"))
            pat_bad(x, "\\x{ without an end");
    } else if (pat_take(x, "x")) {
        *cp = take_hex(x, 1, 2);
        if (*cp > 0x7F)
            pat_lacks(x, "a byte that is no character");
    } else if (pat_take(x, "u")) {
        *cp = take_hex(x, 4, 4);
    } else if ((uint8_t)c >= 0x80 || !((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))) {
        *cp = pat_take_char(x);
    } else {
        return false;
    }
    return true;
}

/* take_property: \p{L}, \p{^L}, \P{L}, behind the p. */
static void take_property(struct pat_reader *x, bool negated, struct pat_set *s) {
    const char *end = pat_take(x, "{") ? memchr(x->re.p + x->at, '}', x->re.n - x->at) : NULL;
    if (!end) {
        pat_lacks(x, "\\p without {");
        return;
    }
    negated ^= pat_take(x, "^");
    struct str name = {x->re.p + x->at, (size_t)(end - x->re.p) - x->at};
    if (!pat_set_named(s, name, false))
        pat_lacks(x, "the property %.*s is not known", (int)MIN(name.n, (size_t)60), name.p);
    x->at += name.n + 1;
    if (negated)
        pat_set_negate(s);
}

bool pat_take_kind(struct pat_reader *x, bool bracket, struct pat_set *s) {
    static const char *const kinds[][2] = {{"w", "word"}, {"d", "digit"}, {"s", "space"}, {"h", "xdigit"}};
    if (pat_take(x, "p") || pat_take(x, "P")) {
        take_property(x, x->re.p[x->at - 1] == 'P', s);
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        char c = x->re.p[x->at];
        if ((c | 0x20) != kinds[i][0][0])
            continue;
        x->at++;
        CHECK(pat_set_named(s, str_of(kinds[i][1]), bracket));
        if (c != kinds[i][0][0])
            pat_set_negate(s);
        return true;
    }
    return false;
}

/* ---- classes in brackets ---- */

/* take_posix: [:alpha:] at the place of its bracket; false: it is none. */
static bool take_posix(struct pat_reader *x, struct pat_set *s) {
    size_t at = x->at + 2;
    if (!pat_looking_at(x, "[:"))
        return false;
    bool negated = at < x->re.n && x->re.p[at] == '^';
    size_t begin = at += negated;
    while (at < x->re.n && (x->re.p[at] | 0x20) >= 'a' && (x->re.p[at] | 0x20) <= 'z')
        at++;
    if (at + 1 >= x->re.n || x->re.p[at] != ':' || x->re.p[at + 1] != ']')
        return false;
    if (!pat_set_named(s, (struct str){x->re.p + begin, at - begin}, true))
        pat_bad(x, "[:%.*s:] is not known", (int)MIN(at - begin, (size_t)40), x->re.p + begin);
    if (negated)
        pat_set_negate(s);
    x->at = at + 2;
    return true;
}

/* take_member: one part of a class: a set, which goes to s, or a character: true. */
static bool take_member(struct pat_reader *x, struct pat_set *s, uint32_t *cp) {
    if (pat_looking_at(x, "[")) {
        if (!take_posix(x, s))
            pat_take_class(x, s, false);
        return false;
    }
    if (!pat_take(x, "\\")) {
        *cp = pat_take_char(x);
        return true;
    }
    if (!pat_more(x)) {
        pat_bad(x, "a backslash at the end");
        return false;
    }
    if (pat_take(x, "b"))
        *cp = '\b';
    else if (pat_take_kind(x, true, s))
        return false;
    else if (!pat_take_code(x, cp))
        pat_lacks(x, "\\%c in a class is not supported", x->re.p[x->at]);
    return true;
}

/* take_range: cp, or cp-high. */
static void take_range(struct pat_reader *x, uint32_t cp, struct pat_set *s) {
    struct pat_set none = {0};
    uint32_t high = cp;
    bool dash = pat_looking_at(x, "-") && !pat_looking_at(x, "-]") && !pat_looking_at(x, "-&&") &&
                x->at + 1 < x->re.n;
    if (dash) {
        x->at++;
        if (pat_looking_at(x, "[") || !take_member(x, &none, &high))
            pat_bad(x, "a range that ends in a class");
        pat_set_fini(&none);
    }
    if (high < cp)
        pat_bad(x, "a range that ends before it begins");
    if (x->rc)
        return;
    pat_set_add(s, cp, high);
    /* [a-c-e]: this - is a character, and so Oniguruma has it; [a-c-] is clear to all. */
    if (dash && pat_looking_at(x, "-") && !pat_looking_at(x, "-]"))
        pat_lacks(x, "a - behind a range is not supported");
}

void pat_take_class(struct pat_reader *x, struct pat_set *out, bool outermost) {
    struct pat_set all = {0}, part = {0};
    bool met = false, first = true;
    if (++x->depth > PATTERN_DEPTH_MAX)
        pat_bad(x, "deeper than %d groups", PATTERN_DEPTH_MAX);
    x->at++;
    bool negated = pat_take(x, "^");
    for (; !x->rc && pat_more(x) && (first || !pat_looking_at(x, "]")); first = false) {
        struct pat_set s = {0};
        uint32_t cp;
        if (first && pat_looking_at(x, "]") && !memchr(x->re.p + x->at + 1, ']', x->re.n - x->at - 1)) {
            pat_bad(x, "an empty class");
        } else if (pat_take(x, "&&")) { /* binds weaker than all else */
            if (met)
                pat_set_meet(&all, &part);
            else
                pat_set_join(&all, &part);
            met = true;
            pat_set_fini(&part);
        } else if (take_member(x, &s, &cp)) {
            if (!x->rc)
                take_range(x, cp, &s);
        } else if (pat_looking_at(x, "-") && !pat_looking_at(x, "-]") && !pat_looking_at(x, "-&&")) {
            pat_bad(x, "a range that begins in a class");
        }
        pat_set_join(&part, &s);
        pat_set_fini(&s);
    }
    if (met)
        pat_set_meet(&all, &part);
    else
        pat_set_join(&all, &part);
    pat_set_fini(&part);
    if (!pat_take(x, "]"))
        pat_bad(x, "a class without an end");
    if (outermost && x->no_case)
        fold_set(x, &all, negated);
    if (negated)
        pat_set_negate(&all);
    x->depth--;
    pat_set_join(out, &all);
    pat_set_fini(&all);
}
