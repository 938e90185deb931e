#include "common/hf/scan.h"

#include "common/utf8.h"

static bool fail(struct scan *s, const char *why) {
    if (!s->why)
        s->why = why;
    return false;
}

static void skip_space(struct scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

void scan_init(struct scan *s, struct str text) {
    *s = (struct scan){.begin = text.p, .at = text.p, .end = text.p + text.n};
}

size_t scan_offset(const struct scan *s) {
    return (size_t)(s->at - s->begin);
}

bool scan_peek(struct scan *s, char c) {
    skip_space(s);
    return s->at < s->end && *s->at == c;
}

bool scan_eat(struct scan *s, char c) {
    if (!scan_peek(s, c))
        return fail(s, c == '{'   ? "an object must come here"
                       : c == '[' ? "a list must come here"
                       : c == ':' ? "a colon must come here"
                       : c == '}' ? "a comma or the end of the object must come here"
                       : c == ']' ? "a comma or the end of the list must come here"
                                  : "a comma must come here");
    s->at++;
    return true;
}

bool scan_end(struct scan *s) {
    skip_space(s);
    return s->at == s->end || fail(s, "text after the end of the JSON value");
}

/* raw_string: the bytes between the quotes, escapes untouched. */
static bool raw_string(struct scan *s, struct str *out) {
    skip_space(s);
    if (s->at == s->end || *s->at != '"')
        return fail(s, "a string must come here");
    const char *p = ++s->at;
    while (p < s->end && *p != '"') {
        if ((unsigned char)*p < 0x20)
            return fail(s, "a control character in a string");
        p += *p == '\\' ? 2 : 1;
    }
    if (p >= s->end)
        return fail(s, "a string without end");
    *out = (struct str){s->at, (size_t)(p - s->at)};
    s->at = p + 1;
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* hex4: four hex digits at p (n bytes left), or -1. */
static int32_t hex4(const char *p, size_t n) {
    int32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        int d = i < n ? hex_digit(p[i]) : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* unescape_u: the code point of \uXXXX (p points behind the u), with its low surrogate if it needs one; -1 if
 * there is none. *used: bytes consumed. */
static int32_t unescape_u(const char *p, size_t n, size_t *used) {
    int32_t cp = hex4(p, n);
    *used = 4;
    if (cp < 0xD800 || cp > 0xDFFF)
        return cp;
    if (cp > 0xDBFF || n < 10 || p[4] != '\\' || p[5] != 'u')
        return -1;
    int32_t low = hex4(p + 6, n - 6);
    if (low < 0xDC00 || low > 0xDFFF)
        return -1;
    *used = 10;
    return 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
}

/* unescape: decodes raw into out, which has room for raw.n bytes: no escape is shorter than what it stands
 * for. Returns the length, or SIZE_MAX. */
static size_t unescape(struct str raw, char *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t n = 0;
    for (size_t i = 0; i < raw.n;) {
        char c = raw.p[i++];
        if (c != '\\') {
            out[n++] = c;
            continue;
        }
        if (i == raw.n)
            return SIZE_MAX;
        c = raw.p[i++];
        if (c == 'u') {
            size_t used;
            int32_t cp = unescape_u(raw.p + i, raw.n - i, &used);
            if (cp <= 0)
                return SIZE_MAX;
            n += utf8_encode((uint32_t)cp, out + n);
            i += used;
            continue;
        }
        const char *at = c ? strchr(from, c) : NULL;
        if (!at)
            return SIZE_MAX;
        out[n++] = to[at - from];
    }
    return n;
}

bool scan_string(struct scan *s, struct arena *a, struct str *out) {
    struct str raw;
    if (!raw_string(s, &raw))
        return false;
    char *text = arena_alloc(a, raw.n + 1);
    size_t n = unescape(raw, text);
    if (n == SIZE_MAX)
        return fail(s, "an escape that means nothing, or a NUL, in a string");
    if (!utf8_valid(text, n))
        return fail(s, "a string that is not UTF-8");
    text[n] = 0;
    *out = (struct str){text, n};
    return true;
}

bool scan_u64(struct scan *s, uint64_t *out) {
    skip_space(s);
    uint64_t v = 0;
    const char *p = s->at;
    while (p < s->end && *p >= '0' && *p <= '9') {
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return fail(s, "a number above 2^64");
        p++;
    }
    if (p == s->at)
        return fail(s, p < s->end && *p == '-' ? "a negative number" : "a whole number must come here");
    if (p < s->end && (*p == '.' || (*p | 0x20) == 'e'))
        return fail(s, "a number that is not written as a whole one");
    if (*s->at == '0' && p - s->at > 1)
        return fail(s, "a number with leading zeros");
    s->at = p;
    *out = v;
    return true;
}

/* skip_word: a number, true, false or null; checked only as far as where it ends. */
static bool skip_word(struct scan *s) {
    const char *p = s->at;
    while (p < s->end && ((*p >= '0' && *p <= '9') || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z') ||
                          *p == '-' || *p == '+' || *p == '.'))
        p++;
    if (p == s->at)
        return fail(s, "a value must come here");
    s->at = p;
    return true;
}

bool scan_skip(struct scan *s) {
    char open[SCAN_DEPTH_MAX];
    unsigned depth = 0;
    for (;;) {
        struct str ignored;
        skip_space(s);
        bool value_done = true;
        if (s->at == s->end)
            return fail(s, "a value must come here");
        if (*s->at == '{' || *s->at == '[') {
            if (depth == SCAN_DEPTH_MAX)
                return fail(s, "values nested too deep");
            open[depth++] = *s->at++;
            char closing = open[depth - 1] == '{' ? '}' : ']';
            if (scan_peek(s, closing)) {
                s->at++;
                depth--;
            } else {
                value_done = false;
            }
        } else if (*s->at == '"' ? !raw_string(s, &ignored) : !skip_word(s)) {
            return false;
        }
        /* After a value: close what ends here, or go to the next member. */
        while (value_done && depth > 0 && !scan_peek(s, ',')) {
            if (!scan_eat(s, open[depth - 1] == '{' ? '}' : ']'))
                return false;
            depth--;
        }
        if (depth == 0)
            return true;
        if (value_done && !scan_eat(s, ','))
            return false;
        if (open[depth - 1] == '{' && (!raw_string(s, &ignored) || !scan_eat(s, ':')))
            return false;
    }
}

bool scan_member(struct scan *s, struct arena *a, bool *first, bool *more, struct str *key) {
    bool was_first = *first;
    *first = false;
    *more = false;
    if (scan_peek(s, '}')) {
        s->at++;
        return true;
    }
    if (!was_first && !scan_eat(s, ','))
        return false;
    if (!scan_string(s, a, key) || !scan_eat(s, ':'))
        return false;
    *more = true;
    return true;
}
