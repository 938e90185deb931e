/* literal.c: a Python literal, a byte at a time, as JSON (docs.python.org/3/reference/lexical_analysis.html): what
 * json.dumps writes, without ASCII escaping. JSON itself is read as well. */
#include <stdlib.h>

#include "router/parse/private.h"

enum {
    VALUE = 0, /* one is next, or, in a container, its end */
    OPENING,   /* behind one quote */
    OPENING_2, /* behind two: the empty string, or the beginning of a triple quote */
    STRING,
    ESCAPE,
    CLOSED, /* behind a string: another may go on with it */
    SCALAR,
    COLON, /* behind a key */
    AFTER, /* behind a member */
};

void literal_start(struct literal *l) {
    l->state = VALUE;
    l->depth = 0;
    l->n_scalar = l->n_escape = 0;
    l->high = 0;
}

static bool in_key(const struct literal *l) {
    return l->depth && l->is_dict[l->depth - 1] && l->is_key[l->depth - 1];
}

/* comma: in front of a member. */
static void comma(struct literal *l, struct buf *out) {
    if (!l->depth || (l->is_dict[l->depth - 1] && !l->is_key[l->depth - 1]))
        return;
    if (l->some[l->depth - 1])
        buf_addz(out, ", ");
    l->some[l->depth - 1] = true;
}

/* member_done: a value, or a key, is complete. */
static enum literal_step member_done(struct literal *l) {
    if (!l->depth)
        return LITERAL_DONE;
    l->state = in_key(l) ? COLON : AFTER;
    return LITERAL_MORE;
}

/* ---- strings -------------------------------------------------------------------------------------------- */

static void high_out(struct literal *l, struct buf *out) {
    if (l->high)
        json_char(l->high, out); /* alone: U+FFFD */
    l->high = 0;
}

static void code_out(struct literal *l, uint32_t cp, struct buf *out) {
    if (l->high && cp >= 0xDC00 && cp < 0xE000) {
        uint32_t high = l->high;
        l->high = 0;
        json_char(0x10000 + ((high - 0xD800) << 10) + (cp - 0xDC00), out);
        return;
    }
    high_out(l, out);
    if (cp >= 0xD800 && cp < 0xDC00)
        l->high = cp;
    else
        json_char(cp <= 0x10FFFF ? cp : 0xD800, out);
}

static void string_out(struct literal *l, char c, struct buf *out) {
    high_out(l, out);
    json_byte(c, out);
}

/* escape_byte: l->escape has what follows the backslash so far, without c. False: c is not part of it. */
static bool escape_byte(struct literal *l, char c, struct buf *out) {
    static const char from[] = "abfnrtv\\'\"/", to[] = "\a\b\f\n\r\t\v\\'\"/";
    size_t n = l->n_escape;
    char kind = n ? l->escape[0] : c;
    const char *at = kind ? strchr(from, kind) : NULL;
    size_t want = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (n == 0) {
        if (at) {
            code_out(l, (unsigned char)to[at - from], out);
        } else if (want || (c >= '0' && c <= '7')) {
            l->escape[l->n_escape++] = c;
            return true;
        } else if (c != '\n') { /* no escape: both stay; at the end of a line, neither does */
            string_out(l, '\\', out);
            string_out(l, c, out);
        }
        l->state = STRING;
        return true;
    }
    bool hex = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
    bool more = want ? hex && n < want + 1 : c >= '0' && c <= '7' && n < 3;
    if (more)
        l->escape[l->n_escape++] = c;
    bool full = want ? l->n_escape == want + 1 : l->n_escape == 3;
    if (more && !full)
        return true;
    l->escape[l->n_escape] = 0;
    if (want && !full) { /* too short: as it was written */
        string_out(l, '\\', out);
        for (size_t i = 0; i < l->n_escape; i++)
            string_out(l, l->escape[i], out);
    } else {
        unsigned long cp = strtoul(l->escape + (want ? 1 : 0), NULL, want ? 16 : 8);
        code_out(l, cp > 0x10FFFF ? 0xDFFF : (uint32_t)cp, out);
    }
    l->n_escape = 0;
    l->state = STRING;
    return more;
}

static void string_byte(struct literal *l, char c, struct buf *out) {
    if (c == l->quote) {
        if (++l->n_closing == l->n_quotes)
            l->state = CLOSED;
        return;
    }
    for (; l->n_closing; l->n_closing--)
        string_out(l, l->quote, out);
    if (c != '\\') {
        string_out(l, c, out);
        return;
    }
    l->n_escape = 0;
    l->state = ESCAPE;
}

static void quote_open(struct literal *l, char c) {
    l->quote = c;
    l->n_quotes = 1;
    l->n_closing = 0;
    l->state = OPENING;
}

/* opening: the byte behind one or two quotes. False: it is not part of the string. */
static bool opening(struct literal *l, char c, struct buf *out) {
    bool same = c == l->quote;
    if (l->state == OPENING && same) {
        l->state = OPENING_2;
    } else if (l->state == OPENING) {
        l->state = STRING;
        string_byte(l, c, out);
    } else if (same) {
        l->n_quotes = 3;
        l->state = STRING;
    } else {
        l->state = CLOSED;
        return false;
    }
    return true;
}

/* ---- scalars -------------------------------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static size_t digits(const char **p, struct buf *to) {
    size_t n = 0;
    for (; is_digit(**p) || (**p == '_' && n && is_digit((*p)[1])); (*p)++)
        if (**p != '_') {
            buf_addc(to, **p);
            n++;
        }
    return n;
}

/* number: as JSON. False: it is none. */
static bool number(const char *p, struct buf *to) {
    if (*p == '-')
        buf_addc(to, *p);
    if (*p == '-' || *p == '+')
        p++;
    if (p[0] == '0' && (p[1] | 0x20) >= 'a') {
        char kind = (char)(p[1] | 0x20), *end;
        int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
        unsigned long long v = base && strlen(p) <= 18 && p[2] != '-' && p[2] != '+' ? strtoull(p + 2, &end, base) : 0;
        if (!base || strlen(p) > 18 || p[2] == '-' || p[2] == '+' || end == p + 2 || *end)
            return false;
        buf_addu64(to, v);
        return true;
    }
    size_t at = to->len, n = digits(&p, to), n_fraction = 0;
    if (n > 1 && to->data[at] == '0')
        return false;
    if (*p == '.') {
        p++;
        buf_addz(to, n ? "." : "0.");
        n_fraction = digits(&p, to);
        if (!n_fraction)
            buf_addc(to, '0');
    }
    if (!n && !n_fraction)
        return false;
    if ((*p | 0x20) == 'e') {
        buf_addc(to, *p++);
        if (*p == '-' || *p == '+')
            buf_addc(to, *p++);
        if (!digits(&p, to))
            return false;
    }
    return !*p;
}

static enum literal_step scalar_end(struct literal *l, struct buf *out) {
    static const char *const words[][2] = {{"True", "true"},   {"true", "true"}, {"False", "false"},
                                           {"false", "false"}, {"None", "null"}, {"null", "null"}};
    struct buf json = {0};
    const char *quote = in_key(l) ? "\"" : "";
    bool good = false;
    l->scalar[l->n_scalar] = 0;
    for (size_t i = 0; i < ARRAY_LEN(words) && !good; i++)
        if ((good = strcmp(l->scalar, words[i][0]) == 0))
            buf_addz(&json, words[i][1]);
    if (!good)
        good = number(l->scalar, &json);
    if (good) {
        comma(l, out);
        buf_addf(out, "%s%s%s", quote, buf_cstr(&json), quote);
    }
    buf_fini(&json);
    return good ? member_done(l) : LITERAL_BAD;
}

static bool scalar_char(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("_.+-", c));
}

/* ---- containers ----------------------------------------------------------------------------------------- */

static enum literal_step value_byte(struct literal *l, char c, struct buf *out) {
    bool closes = l->depth && c == (l->is_dict[l->depth - 1] ? '}' : ']') && (!l->is_dict[l->depth - 1] || in_key(l));
    if (is_space(c))
        return LITERAL_MORE;
    if (closes) {
        buf_addc(out, c);
        l->depth--;
        return member_done(l);
    }
    if (c == '"' || c == '\'') {
        comma(l, out);
        buf_addc(out, '"');
        quote_open(l, c);
    } else if (c == '[' || c == '{') {
        if (l->depth == LITERAL_DEPTH_MAX || in_key(l))
            return LITERAL_BAD;
        comma(l, out);
        buf_addc(out, c);
        l->is_dict[l->depth] = l->is_key[l->depth] = c == '{';
        l->some[l->depth++] = false;
    } else if (scalar_char(c)) {
        l->n_scalar = 1;
        l->scalar[0] = c;
        l->state = SCALAR;
    } else {
        return LITERAL_BAD;
    }
    return LITERAL_MORE;
}

/* after: behind a member of a container, or a key. */
static enum literal_step after(struct literal *l, char c, struct buf *out) {
    bool dict = l->is_dict[l->depth - 1];
    if (is_space(c))
        return LITERAL_MORE;
    if (l->state == COLON) {
        if (c != ':')
            return LITERAL_BAD;
        buf_addz(out, ": ");
        l->is_key[l->depth - 1] = false;
        l->state = VALUE;
    } else if (c == ',') {
        l->is_key[l->depth - 1] = dict;
        l->state = VALUE;
    } else if (c == (dict ? '}' : ']')) {
        buf_addc(out, c);
        l->depth--;
        return member_done(l);
    } else {
        return LITERAL_BAD;
    }
    return LITERAL_MORE;
}

/* closed: behind a string. */
static enum literal_step closed(struct literal *l, char c, struct buf *out) {
    if (is_space(c))
        return LITERAL_MORE;
    if (c == '"' || c == '\'') {
        quote_open(l, c);
        return LITERAL_MORE;
    }
    high_out(l, out);
    buf_addc(out, '"');
    return member_done(l) == LITERAL_DONE ? LITERAL_OVER : after(l, c, out);
}

enum literal_step literal_byte(struct literal *l, char c, struct buf *out) {
    switch (l->state) {
    case OPENING:
    case OPENING_2:
        return opening(l, c, out) ? LITERAL_MORE : closed(l, c, out);
    case STRING:
        string_byte(l, c, out);
        return LITERAL_MORE;
    case ESCAPE:
        if (!escape_byte(l, c, out))
            string_byte(l, c, out);
        return LITERAL_MORE;
    case CLOSED:
        return closed(l, c, out);
    case SCALAR: {
        if (scalar_char(c)) {
            if (l->n_scalar + 1 >= LITERAL_SCALAR_MAX)
                return LITERAL_BAD;
            l->scalar[l->n_scalar++] = c;
            return LITERAL_MORE;
        }
        enum literal_step step = scalar_end(l, out);
        return step == LITERAL_DONE ? LITERAL_OVER : step == LITERAL_BAD ? step : after(l, c, out);
    }
    case VALUE:
        return value_byte(l, c, out);
    default:
        return after(l, c, out);
    }
}

enum literal_step literal_end(struct literal *l, struct buf *out) {
    enum literal_step step = l->depth ? LITERAL_BAD : literal_byte(l, ',', out);
    return step == LITERAL_OVER ? LITERAL_DONE : LITERAL_BAD;
}
