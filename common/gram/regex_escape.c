/* regex_escape.c: what stands behind a backslash, and classes in brackets. */
#include "common/gram/regex_parts.h"

#include "common/utf8.h"

#include <stdlib.h>

uint32_t rx_take_char(struct rx_parser *p) {
    size_t len;
    int32_t cp = utf8_decode(p->s.p + p->at, p->s.n - p->at, &len);
    CHECK(cp >= 0);
    p->at += len;
    return (uint32_t)cp;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* take_hex: exactly n digits. False: there are fewer, and the parser has not moved. */
static bool take_hex(struct rx_parser *p, unsigned n, uint32_t *out) {
    uint32_t v = 0;
    for (unsigned i = 0; i < n; i++) {
        int d = hex_value(rx_peek(p, i));
        if (d < 0)
            return false;
        v = v << 4 | (uint32_t)d;
    }
    p->at += n;
    *out = v;
    return true;
}

/* take_code: behind \x, \u or \U, at byte `start` the backslash. */
static enum rc take_code(struct rx_parser *p, size_t start, char kind, uint32_t *out) {
    uint32_t cp, low;
    if (kind == 'u' && rx_peek(p, 0) == '{') {
        size_t at = p->at + 1;
        cp = 0;
        while (at < p->s.n && hex_value(p->s.p[at]) >= 0 && cp <= 0x10FFFF)
            cp = cp << 4 | (uint32_t)hex_value(p->s.p[at++]);
        if (at == p->at + 1 || at >= p->s.n || p->s.p[at] != '}' || cp > 0x10FFFF)
            return rx_bad(p, start, "\\u{...} needs a code point of at most 10FFFF in hexadecimal digits");
        p->at = at + 1;
    } else if (!take_hex(p, kind == 'x' ? 2 : kind == 'u' ? 4 : 8, &cp)) {
        return rx_bad(p, start, "\\%c needs %d hexadecimal digits", kind,
                      kind == 'x'   ? 2
                      : kind == 'u' ? 4
                                    : 8);
    }
    if (kind == 'u' && cp >= 0xD800 && cp < 0xDC00 && rx_peek(p, 0) == '\\' && rx_peek(p, 1) == 'u') {
        size_t back = p->at;
        p->at += 2;
        if (take_hex(p, 4, &low) && low >= 0xDC00 && low < 0xE000)
            cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
        else
            p->at = back;
    }
    if (cp > 0x10FFFF)
        return rx_bad(p, start, "there is no code point above 10FFFF");
    if (cp >= 0xD800 && cp < 0xE000)
        return rx_bad(p, start, "a surrogate alone is no character");
    *out = cp;
    return RC_OK;
}

static void add_space(struct rx_set *s) {
    static const struct rx_range spaces[] = {
        {0x09, 0x0D},     {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    for (size_t i = 0; i < ARRAY_LEN(spaces); i++)
        rx_set_add(s, spaces[i].lo, spaces[i].hi);
}

/* add_shorthand: \d \w \s and, in capitals, all else. */
static void add_shorthand(struct rx_parser *p, struct rx_set *out, char kind) {
    struct rx_set s = {0};
    if (kind == 's' || kind == 'S') {
        add_space(&s);
    } else {
        rx_set_add(&s, '0', '9');
        if (kind == 'w' || kind == 'W') {
            rx_set_add(&s, 'A', 'Z');
            rx_set_add(&s, 'a', 'z');
            rx_set_add(&s, '_', '_');
            if (p->how.icase)
                rx_set_fold(&s);
        }
    }
    if (kind < 'a')
        rx_set_negate(&s);
    for (size_t i = 0; i < s.n; i++)
        rx_set_add(out, s.r[i].lo, s.r[i].hi);
    rx_set_fini(&s);
}

/* take_property: behind \p or \P. */
static enum rc take_property(struct rx_parser *p, size_t start, bool negated, struct rx_set *out) {
    struct str name = {p->s.p + p->at, 1};
    if (rx_peek(p, 0) == '{') {
        const char *end = memchr(p->s.p + p->at, '}', p->s.n - p->at);
        if (!end)
            return rx_bad(p, start, "\\p{ has no closing brace");
        name = (struct str){p->s.p + p->at + 1, (size_t)(end - p->s.p) - p->at - 1};
        p->at = (size_t)(end - p->s.p) + 1;
        if (name.n && name.p[0] == '^') { /* \p{^L} is \P{L} */
            negated = !negated;
            name = (struct str){name.p + 1, name.n - 1};
        }
    } else if (rx_more(p)) {
        rx_take_char(p);
    } else {
        return rx_bad(p, start, "\\p needs the name of a property in braces");
    }
    if (!rx_set_property(out, name, negated))
        return rx_bad(p, start, "unknown Unicode property \"%.*s\"", (int)MIN(name.n, 60), name.p);
    return RC_OK;
}

/* control_of: the character of a letter's escape; -1 if it has none. */
static int control_of(char c, bool in_class) {
    switch (c) {
    case 'a':
        return 7;
    case 'b':
        return in_class ? 8 : -1;
    case 't':
        return 9;
    case 'n':
        return 10;
    case 'v':
        return 11;
    case 'f':
        return 12;
    case 'r':
        return 13;
    default:
        return -1;
    }
}

/* refuse_escape: says what a letter or digit stands for that is not supported. */
static enum rc refuse_escape(struct rx_parser *p, size_t start, char c) {
    if (c >= '0' && c <= '9')
        return rx_bad(p, start,
                      c == '0' ? "octal escapes are not supported" : "back-references are not supported");
    if (c == 'k')
        return rx_bad(p, start, "back-references are not supported");
    if (c == 'b' || c == 'B')
        return rx_bad(p, start, "word boundaries are not supported");
    return rx_bad(p, start, "unknown escape \\%c", c);
}

enum rc rx_take_escape(struct rx_parser *p, bool in_class, struct rx_set *set, bool *one, uint32_t *cp) {
    size_t start = p->at++;
    if (!rx_more(p))
        return rx_bad(p, start, "a backslash ends the pattern");
    char c = rx_peek(p, 0);
    *one = true;
    if (strchr("dDwWsS", c) && c) {
        *one = false;
        add_shorthand(p, set, c);
        p->at++;
        return RC_OK;
    }
    if (c == 'p' || c == 'P') {
        *one = false;
        p->at++;
        return take_property(p, start, c == 'P', set);
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        p->at++;
        return take_code(p, start, c, cp);
    }
    char next = rx_peek(p, 1);
    if (c == '0' && !(next >= '0' && next <= '9')) {
        p->at++;
        *cp = 0;
        return RC_OK;
    }
    if (c == 'c' && ((next | 0x20) >= 'a' && (next | 0x20) <= 'z')) {
        p->at += 2;
        *cp = (uint32_t)next & 31;
        return RC_OK;
    }
    int control = control_of(c, in_class);
    if (control >= 0) {
        p->at++;
        *cp = (uint32_t)control;
        return RC_OK;
    }
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        return refuse_escape(p, start, c);
    *cp = rx_take_char(p); /* any other character stands for itself */
    return RC_OK;
}

/* take_member: one member of a class: a character, or an escape that is a set of its own. */
static enum rc take_member(struct rx_parser *p, struct rx_set *set, bool *one, uint32_t *cp) {
    if (rx_peek(p, 0) == '\\')
        return rx_take_escape(p, true, set, one, cp);
    if (rx_peek(p, 0) == '[' && rx_peek(p, 1) == ':')
        return rx_bad(p, p->at,
                      "classes such as [:alpha:] are not supported; a '[' in a class is written \\[");
    *one = true;
    *cp = rx_take_char(p);
    return RC_OK;
}

enum rc rx_take_class(struct rx_parser *p, struct rx_set *set) {
    size_t start = p->at++;
    bool negated = rx_peek(p, 0) == '^';
    p->at += negated;
    if (rx_peek(p, 0) == ']')
        return rx_bad(p, start, "an empty class; a ']' as its first member is written \\]");
    for (;;) {
        if (!rx_more(p))
            return rx_bad(p, start, "a class without closing ']'");
        if (rx_peek(p, 0) == ']')
            break;
        size_t from = p->at;
        bool one, to_one;
        uint32_t lo = 0, hi = 0;
        enum rc rc = take_member(p, set, &one, &lo);
        if (rc)
            return rc;
        bool range = one && rx_peek(p, 0) == '-' && p->at + 1 < p->s.n && rx_peek(p, 1) != ']';
        if (!range) {
            if (one)
                rx_set_add(set, lo, lo);
            continue;
        }
        p->at++;
        if ((rc = take_member(p, set, &to_one, &hi)))
            return rc;
        if (!to_one)
            return rx_bad(p, from, "a range needs a character at both ends");
        if (hi < lo)
            return rx_bad(p, from, "a range that runs backwards");
        rx_set_add(set, lo, hi);
    }
    p->at++;
    if (p->how.icase)
        rx_set_fold(set);
    if (negated)
        rx_set_negate(set);
    return RC_OK;
}
