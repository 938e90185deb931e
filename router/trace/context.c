#include "router/trace/context.h"

#include <stdlib.h>

/* ---- W3C Trace Context ------------------------------------------------------------------------------- */

/* lower_hex: -1: none. The specification wants lower case. */
static int lower_hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* read_hex: n bytes from 2 n digits. False: something else is there. */
static bool read_hex(const char *p, uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int hi = lower_hex(p[2 * i]), lo = lower_hex(p[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool all_zero(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

bool trace_parent_read(struct str s, struct trace_context *out) {
    enum { TRACE_AT = 3, PARENT_AT = 36, FLAGS_AT = 53, BYTES = 55 };
    struct trace_context c = {.has_parent = true};
    uint8_t version, flags;
    if (s.n < BYTES || !read_hex(s.p, &version, 1) || version == 0xff || s.p[TRACE_AT - 1] != '-' ||
        s.p[PARENT_AT - 1] != '-' || s.p[FLAGS_AT - 1] != '-')
        return false;
    if (s.n > BYTES && (version == 0 || s.p[BYTES] != '-'))
        return false;
    if (!read_hex(s.p + TRACE_AT, c.trace.b, sizeof c.trace.b) || !read_hex(s.p + PARENT_AT, c.parent, sizeof c.parent) ||
        !read_hex(s.p + FLAGS_AT, &flags, 1))
        return false;
    if (all_zero(c.trace.b, sizeof c.trace.b) || all_zero(c.parent, sizeof c.parent))
        return false;
    c.sampled = flags & 1;
    *out = c;
    return true;
}

/* member_good: key=value of tracestate: a key of lower-case letters, digits and _-*@/, at most 256 of them; a value of
 * at most 256 printable characters without comma and equals sign, and no blank at its end. */
static bool member_good(const char *p, size_t n) {
    size_t k = 0;
    while (k < n && ((p[k] >= 'a' && p[k] <= 'z') || (p[k] >= '0' && p[k] <= '9') || (k && p[k] && strchr("_-*@/", p[k]))))
        k++;
    if (k == 0 || k > 256 || k >= n || p[k] != '=' || n - k - 1 == 0 || n - k - 1 > 256 || p[n - 1] == ' ')
        return false;
    for (size_t i = k + 1; i < n; i++)
        if (p[i] < ' ' || p[i] > '~' || p[i] == '=')
            return false;
    return true;
}

bool trace_state_good(struct str s) {
    size_t n_members = 0;
    if (s.n == 0 || s.n > TRACE_STATE_BYTES_MAX)
        return false;
    for (size_t at = 0; at <= s.n;) {
        const char *comma = at < s.n ? memchr(s.p + at, ',', s.n - at) : NULL;
        size_t end = comma ? (size_t)(comma - s.p) : s.n, from = at, to = end;
        while (from < to && (s.p[from] == ' ' || s.p[from] == '\t'))
            from++;
        while (to > from && (s.p[to - 1] == ' ' || s.p[to - 1] == '\t'))
            to--;
        /* Empty members are allowed: they come of joining headers. */
        if (to > from && (++n_members > TRACE_STATE_MEMBERS_MAX || !member_good(s.p + from, to - from)))
            return false;
        at = end + 1;
    }
    return n_members > 0;
}

/* ---- lists of the environment ------------------------------------------------------------------------ */

static int any_hex(char c) {
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : lower_hex(c);
}

/* decode: %XX, at most s.n bytes. NULL: a bad escape, or a control character. */
static char *decode(struct str s) {
    char *out = xmalloc(s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        int c = (unsigned char)s.p[i];
        if (c == '%') {
            int hi = i + 2 < s.n ? any_hex(s.p[i + 1]) : -1, lo = hi < 0 ? -1 : any_hex(s.p[i + 2]);
            c = lo < 0 ? 0 : hi << 4 | lo;
            i += 2;
        }
        if (c < ' ' || c == 0x7f) {
            free(out);
            return NULL;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return out;
}

static struct str trim(struct str s) {
    while (s.n && (*s.p == ' ' || *s.p == '\t'))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

static bool read_pair(struct str s, struct trace_pair *out) {
    const char *equals = s.n ? memchr(s.p, '=', s.n) : NULL;
    if (!equals || s.n > TRACE_PAIR_BYTES_MAX)
        return false;
    struct str key = trim((struct str){s.p, (size_t)(equals - s.p)});
    struct str value = trim((struct str){equals + 1, s.n - (size_t)(equals - s.p) - 1});
    if (key.n == 0)
        return false;
    out->key = decode(key);
    out->value = out->key ? decode(value) : NULL;
    if (!out->value)
        free(out->key);
    return out->value != NULL;
}

bool trace_pairs_read(const char *text, struct trace_pairs *out) {
    struct str rest = str_of(text);
    out->n = 0;
    while (rest.n) {
        const char *comma = memchr(rest.p, ',', rest.n);
        struct str piece = {rest.p, comma ? (size_t)(comma - rest.p) : rest.n};
        rest = comma ? (struct str){comma + 1, rest.n - piece.n - 1} : (struct str){0};
        if (trim(piece).n == 0)
            continue;
        if (out->n == TRACE_PAIRS_MAX || !read_pair(piece, &out->v[out->n])) {
            trace_pairs_fini(out);
            return false;
        }
        out->n++;
    }
    return true;
}

void trace_pairs_fini(struct trace_pairs *p) {
    for (size_t i = 0; i < p->n; i++) {
        free(p->v[i].key);
        free(p->v[i].value);
    }
    p->n = 0;
}

const char *trace_pairs_get(const struct trace_pairs *p, const char *key) {
    for (size_t i = p->n; i-- > 0;)
        if (!strcmp(p->v[i].key, key))
            return p->v[i].value;
    return NULL;
}
