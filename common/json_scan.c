#include "common/json_scan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/utf8.h"

const struct json_limits json_limits_default = {.depth_max = 64, .nodes_max = 1 << 20};

/* A scanner of the whole grammar of RFC 8259. It keeps a bit and a count for each open level (array or object),
 * so that it needs neither recursion nor memory, and jansson only ever sees well-formed text within the limits. */
struct scan {
    const char *p;
    size_t n, at;
    size_t depth, n_nodes, n_big;
    const struct json_limits *limits;
    struct err *e;
    uint64_t is_object[JSON_DEPTH_MAX / 64];
    uint32_t n_keys[JSON_DEPTH_MAX]; /* of the objects among the open levels */
};

/* malformed: the position as line and column (both from 1; columns count bytes) and as an offset. */
static enum rc malformed(const struct scan *s, size_t at, const char *what) {
    size_t line = 1, start = 0;
    for (size_t i = 0; i < MIN(at, s->n); i++)
        if (s->p[i] == '\n') {
            line++;
            start = i + 1;
        }
    return err_set(s->e, RC_INVALID, NULL, "JSON decode error: %s at line %zu column %zu (byte %zu)", what,
                   line, at - start + 1, at);
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

static size_t skip_digits(const char *p, size_t n, size_t at) {
    while (at < n && p[at] >= '0' && p[at] <= '9')
        at++;
    return at;
}

/* number_value: strtod on a terminated copy; long numbers, which only an attacker sends, take memory for a
 * moment. */
static double number_value(const char *p, size_t n) {
    char small[64], *text = n < sizeof small ? small : xmalloc(n + 1);
    memcpy(text, p, n);
    text[n] = 0;
    double v = strtod(text, NULL);
    if (text != small)
        free(text);
    return v;
}

static bool fits_int64(const char *p, size_t n) {
    char text[24];
    if (n >= sizeof text)
        return false;
    memcpy(text, p, n);
    text[n] = 0;
    errno = 0;
    (void)strtoll(text, NULL, 10);
    return errno != ERANGE;
}

enum json_number json_number_scan(const char *p, size_t n, size_t *len, double *value) {
    size_t at = n > 0 && p[0] == '-', first = at;
    bool is_int = true, may_overflow;
    at = skip_digits(p, n, at);
    *len = at;
    if (at == first)
        return JSON_NUMBER_BAD;
    if (p[first] == '0' && at > first + 1) {
        *len = first + 1;
        return JSON_NUMBER_BAD;
    }
    size_t n_digits = at - first;
    may_overflow = n_digits > 300;
    if (at < n && p[at] == '.') {
        is_int = false;
        size_t from = ++at;
        at = skip_digits(p, n, at);
        *len = at;
        if (at == from)
            return JSON_NUMBER_BAD;
    }
    if (at < n && (p[at] == 'e' || p[at] == 'E')) {
        is_int = false;
        may_overflow = true;
        at++;
        if (at < n && (p[at] == '+' || p[at] == '-'))
            at++;
        size_t from = at;
        at = skip_digits(p, n, at);
        *len = at;
        if (at == from)
            return JSON_NUMBER_BAD;
    }
    *len = at;
    if (value || may_overflow) {
        double v = number_value(p, at);
        if (!isfinite(v))
            return JSON_NUMBER_INFINITE;
        if (value)
            *value = v;
    }
    if (!is_int)
        return JSON_NUMBER_REAL;
    return n_digits < 19 || fits_int64(p, at) ? JSON_NUMBER_INT : JSON_NUMBER_BIG;
}

/* ---- strings ---------------------------------------------------------------------------------------- */

static int hex4(const struct scan *s, size_t at) {
    int v = 0;
    if (s->n - at < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        char c = s->p[at + i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* scan_escape: at is behind the backslash. */
static enum rc scan_escape(struct scan *s) {
    if (s->at >= s->n)
        return malformed(s, s->at, "unterminated string");
    char c = s->p[s->at];
    if (c != 'u') {
        if (!c || !strchr("\"\\/bfnrt", c))
            return malformed(s, s->at, "invalid escape");
        s->at++;
        return RC_OK;
    }
    int unit = hex4(s, s->at + 1);
    if (unit < 0)
        return malformed(s, s->at, "invalid \\u escape");
    s->at += 5;
    if (unit < 0xD800 || unit > 0xDFFF)
        return RC_OK;
    int low = unit <= 0xDBFF && s->n - s->at >= 6 && s->p[s->at] == '\\' && s->p[s->at + 1] == 'u'
                  ? hex4(s, s->at + 2)
                  : -1;
    if (low < 0xDC00 || low > 0xDFFF)
        return malformed(s, s->at - 6, "unpaired surrogate escape");
    s->at += 6;
    return RC_OK;
}

static enum rc scan_string(struct scan *s) {
    size_t start = s->at++;
    while (s->at < s->n) {
        unsigned char c = (unsigned char)s->p[s->at];
        if (c == '"') {
            s->at++;
            return RC_OK;
        }
        if (c == '\\') {
            s->at++;
            enum rc rc = scan_escape(s);
            if (rc)
                return rc;
        } else if (c < 0x20) {
            return malformed(s, s->at, "control character in string");
        } else if (c < 0x80) {
            s->at++;
        } else {
            size_t len;
            if (utf8_decode(s->p + s->at, s->n - s->at, &len) < 0)
                return malformed(s, s->at, "invalid UTF-8");
            s->at += len;
        }
    }
    return malformed(s, start, "unterminated string");
}

/* ---- structure -------------------------------------------------------------------------------------- */

static void skip_space(struct scan *s) {
    while (s->at < s->n &&
           (s->p[s->at] == ' ' || s->p[s->at] == '\n' || s->p[s->at] == '\t' || s->p[s->at] == '\r'))
        s->at++;
}

static bool in_object(const struct scan *s) {
    return s->is_object[(s->depth - 1) / 64] >> ((s->depth - 1) % 64) & 1;
}

static enum rc open_level(struct scan *s, bool object) {
    size_t depth_max = MIN(s->limits->depth_max, (size_t)JSON_DEPTH_MAX);
    if (s->depth >= depth_max)
        return err_set(s->e, RC_INVALID, NULL, "JSON is nested deeper than %zu levels (--max-json-depth)",
                       depth_max);
    uint64_t bit = (uint64_t)1 << (s->depth % 64), *word = &s->is_object[s->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    s->n_keys[s->depth] = 0;
    s->depth++;
    s->at++;
    return RC_OK;
}

static enum rc scan_number(struct scan *s) {
    size_t len;
    switch (json_number_scan(s->p + s->at, s->n - s->at, &len, NULL)) {
    case JSON_NUMBER_BAD:
        return malformed(s, s->at + len, "invalid number");
    case JSON_NUMBER_INFINITE:
        return malformed(s, s->at, "number too large");
    case JSON_NUMBER_BIG:
        s->n_big++;
        break;
    case JSON_NUMBER_INT:
    case JSON_NUMBER_REAL:
        break;
    }
    s->at += len;
    return RC_OK;
}

static enum rc scan_word(struct scan *s) {
    static const struct str words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_starts((struct str){s->p + s->at, s->n - s->at}, words[i])) {
            s->at += words[i].n;
            return RC_OK;
        }
    return malformed(s, s->at, "expected a value");
}

/* scan_key: a string and its colon. */
static enum rc scan_key(struct scan *s) {
    skip_space(s);
    if (s->at >= s->n || s->p[s->at] != '"')
        return malformed(s, s->at, "expected a string as key");
    size_t keys_max = s->limits->keys_max; /* a table of very many keys takes seconds to build */
    if (++s->n_keys[s->depth - 1] > keys_max && keys_max)
        return err_set(s->e, RC_INVALID, NULL, "a JSON object has more than %zu keys (--max-json-keys)",
                       keys_max);
    enum rc rc = scan_string(s);
    if (rc)
        return rc;
    skip_space(s);
    if (s->at >= s->n || s->p[s->at] != ':')
        return malformed(s, s->at, "expected ':'");
    s->at++;
    return RC_OK;
}

/* scan_value: one scalar, or the opening of a container (*opened). */
static enum rc scan_value(struct scan *s, bool *opened) {
    *opened = false;
    skip_space(s);
    if (s->at >= s->n)
        return malformed(s, s->at, s->n_nodes ? "unexpected end" : "empty text");
    if (s->n_nodes >= s->limits->nodes_max)
        return err_set(s->e, RC_INVALID, NULL, "JSON has more than %zu values (--max-json-nodes)",
                       s->limits->nodes_max);
    s->n_nodes++;
    char c = s->p[s->at];
    if (c == '{' || c == '[') {
        *opened = true;
        return open_level(s, c == '{');
    }
    if (c == '"')
        return scan_string(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return scan_number(s);
    return scan_word(s);
}

/* close_levels: after a value: closes what ends here, and stops behind a comma or at the end of the text.
 * *more: another value must come (in an object its key was read). fresh: the level was opened just now, so it
 * may close at once. */
static enum rc close_levels(struct scan *s, bool fresh, bool *more) {
    *more = true;
    for (;; fresh = false) {
        skip_space(s);
        if (s->depth == 0) {
            *more = false;
            return s->at == s->n ? RC_OK : malformed(s, s->at, "trailing data");
        }
        bool object = in_object(s);
        if (s->at < s->n && s->p[s->at] == (object ? '}' : ']')) {
            s->at++;
            s->depth--;
            continue;
        }
        if (!fresh) {
            if (s->at >= s->n || s->p[s->at] != ',')
                return malformed(s, s->at, object ? "expected ',' or '}'" : "expected ',' or ']'");
            s->at++;
        }
        return object ? scan_key(s) : RC_OK;
    }
}

enum rc json_scan_seen(struct str text, const struct json_limits *l, struct json_seen *seen, struct err *e) {
    struct scan s; /* 8 KiB of it are counts, which open_level sets */
    s.p = text.p;
    s.n = text.n;
    s.at = s.depth = s.n_nodes = s.n_big = 0;
    s.limits = l ? l : &json_limits_default;
    s.e = e;
    if (str_starts(text, STR_LIT("\xEF\xBB\xBF")))
        s.at = 3;
    for (bool more = true; more;) {
        bool opened;
        enum rc rc = scan_value(&s, &opened);
        if (!rc)
            rc = close_levels(&s, opened, &more);
        if (rc)
            return rc;
    }
    if (seen)
        *seen = (struct json_seen){.n_big = s.n_big, .n_nodes = s.n_nodes};
    return RC_OK;
}

enum rc json_scan(struct str text, const struct json_limits *l, struct err *e) {
    return json_scan_seen(text, l, NULL, e);
}
