/* regex.c: patterns: groups, alternatives, repeats, flags. The stack is on the heap: no C recursion. */
#include "common/gram/regex_parts.h"

#include "common/gram/front.h"
#include "common/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum rc rx_bad(struct rx_parser *p, size_t at, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return err_set(p->e, RC_INVALID, NULL, "%s offset %zu: %s", p->what, utf8_count(p->s.p, at), what);
}

/* A group that is open. Its alternatives so far are pieces[first_alt .. first_item), the parts of the one
 * being read pieces[first_item ..): the parts of a group above begin where those of the one below end. */
struct rx_group {
    size_t at; /* of its '(' */
    size_t first_alt, first_item;
    bool icase, dotall; /* flags outside, to be restored */
};

struct rx_work {
    struct rx_parser p;
    struct rx_piece *pieces;
    size_t n_pieces, cap_pieces;
    struct rx_group groups[RX_GROUPS_MAX + 1];
    size_t depth; /* of the innermost group; 0: the whole pattern */
    bool can_repeat;
};

static void push(struct rx_work *w, struct rx_piece piece, bool can_repeat) {
    if (w->n_pieces == w->cap_pieces) {
        w->cap_pieces = w->cap_pieces ? w->cap_pieces * 2 : 64;
        w->pieces = xreallocarray(w->pieces, w->cap_pieces, sizeof *w->pieces);
    }
    w->pieces[w->n_pieces++] = piece;
    w->can_repeat = can_repeat;
}

static uint32_t set_expr(struct rx_work *w, struct rx_set *s) {
    rx_set_tidy(s);
    return s->n ? w->p.how.one_of(w->p.g, s->r, s->n, false) : RX_NONE;
}

static void push_set(struct rx_work *w, struct rx_set *s) {
    push(w, rx_piece_of(set_expr(w, s), false, 1), true);
}

static void push_char(struct rx_work *w, uint32_t cp) {
    struct rx_set s = {0};
    rx_set_add(&s, cp, cp);
    if (w->p.how.icase)
        rx_set_fold(&s);
    push_set(w, &s);
    rx_set_fini(&s);
}

static void push_dot(struct rx_work *w) {
    struct rx_set s = {0};
    if (!w->p.how.dotall) {
        rx_set_add(&s, '\n', '\n');
        if (w->p.how.search) {
            rx_set_add(&s, '\r', '\r');
            rx_set_add(&s, 0x2028, 0x2029);
        }
    }
    rx_set_negate(&s);
    push_set(w, &s);
    rx_set_fini(&s);
}

/* end_alternative: the parts of the alternative being read become one piece. From the right: a list that is
 * built from its end costs one step a part. */
static void end_alternative(struct rx_work *w) {
    struct rx_group *group = &w->groups[w->depth];
    struct rx_piece all = rx_piece_of(RX_EMPTY, true, 0);
    while (w->n_pieces > group->first_item) {
        struct rx_piece *last = &w->pieces[--w->n_pieces];
        all = all.rx[0] == RX_EMPTY && !rx_piece_has_anchor(&all) ? *last : rx_piece_cat(w->p.g, last, &all);
    }
    push(w, all, false);
    group->first_item = w->n_pieces;
}

/* end_group: its alternatives become one piece, the last on the stack. */
static void end_group(struct rx_work *w) {
    end_alternative(w);
    struct rx_group *group = &w->groups[w->depth];
    size_t n = w->n_pieces - group->first_alt;
    struct rx_piece one =
        n == 1 ? w->pieces[group->first_alt] : rx_piece_alt(w->p.g, w->pieces + group->first_alt, n);
    w->n_pieces = group->first_alt;
    push(w, one, true);
}

/* ---- groups ------------------------------------------------------------------------------------- */

/* take_flags: behind "(?", at flags: "i)" holds for the rest of the pattern and only at its front, "i:" for
 * the group. *scoped: the latter. */
static enum rc take_flags(struct rx_work *w, size_t start, bool *scoped) {
    struct rx_parser *p = &w->p;
    bool on = true;
    for (; rx_more(p); p->at++) {
        char c = rx_peek(p, 0);
        if (c == 'i')
            p->how.icase = on;
        else if (c == 's')
            p->how.dotall = on;
        else if (c == '-' && on)
            on = false;
        else if (c == ':' || c == ')')
            break;
        else if (c == 'm' || c == 'x' || c == 'a' || c == 'u' || c == 'L')
            return rx_bad(p, start, "flag %c is not supported; i and s are", c);
        else
            return rx_bad(p, start, "unknown kind of group");
    }
    if (!rx_more(p))
        return rx_bad(p, start, "a group without closing ')'");
    *scoped = rx_peek(p, 0) == ':';
    if (!*scoped && (start != 0 || !on))
        return rx_bad(p, start, "flags for the whole pattern stand at its front");
    p->at++;
    return RC_OK;
}

/* take_name: behind "(?<" or "(?P<": the name and its '>'. */
static enum rc take_name(struct rx_parser *p, size_t start) {
    size_t at = p->at;
    while (at < p->s.n && p->s.p[at] != '>' && p->s.p[at] != ')')
        at++;
    if (at == p->at || at >= p->s.n || p->s.p[at] != '>')
        return rx_bad(p, start, "a group's name is missing or not closed by '>'");
    p->at = at + 1;
    return RC_OK;
}

/* open_special: behind "(?". *opens: a group begins; else it was a comment or flags. */
static enum rc open_special(struct rx_work *w, size_t start, bool *opens) {
    struct rx_parser *p = &w->p;
    char c = rx_peek(p, 0), next = rx_peek(p, 1);
    *opens = true;
    if (c == ':') {
        p->at++;
        return RC_OK;
    }
    if (c == '=' || c == '!' || (c == '<' && (next == '=' || next == '!')))
        return rx_bad(p, start, "look-around is not supported");
    if (c == '<' || (c == 'P' && next == '<')) {
        p->at += c == '<' ? 1 : 2;
        return take_name(p, start);
    }
    if (c == 'P' && (next == '=' || next == '>'))
        return rx_bad(p, start,
                      next == '=' ? "back-references are not supported" : "recursion is not supported");
    if (c == '>')
        return rx_bad(p, start, "atomic groups are not supported");
    if (c == '(')
        return rx_bad(p, start, "conditional groups are not supported");
    if (c == '#') {
        const char *end = memchr(p->s.p + p->at, ')', p->s.n - p->at);
        if (!end)
            return rx_bad(p, start, "a comment without closing ')'");
        p->at = (size_t)(end - p->s.p) + 1;
        *opens = false;
        return RC_OK;
    }
    return take_flags(w, start, opens);
}

static enum rc open_group(struct rx_work *w) {
    struct rx_parser *p = &w->p;
    size_t start = p->at++;
    struct rx_group group = {.at = start, .icase = p->how.icase, .dotall = p->how.dotall};
    bool opens = true, could_repeat = w->can_repeat;
    if (rx_peek(p, 0) == '?') {
        p->at++;
        enum rc rc = open_special(w, start, &opens);
        if (rc)
            return rc;
    }
    if (!opens) {
        w->can_repeat = could_repeat;
        return RC_OK;
    }
    if (w->depth == RX_GROUPS_MAX)
        return rx_bad(p, start, "groups nest more than %d deep", RX_GROUPS_MAX);
    group.first_alt = group.first_item = w->n_pieces;
    w->groups[++w->depth] = group;
    w->can_repeat = false;
    return RC_OK;
}

static enum rc close_group(struct rx_work *w) {
    struct rx_parser *p = &w->p;
    if (w->depth == 0)
        return rx_bad(p, p->at, "a ')' that closes nothing");
    end_group(w);
    p->how.icase = w->groups[w->depth].icase;
    p->how.dotall = w->groups[w->depth].dotall;
    w->depth--;
    p->at++;
    return RC_OK;
}

/* ---- repeats ------------------------------------------------------------------------------------ */

/* take_number: decimal digits from byte *at on; saturates; false if there is none. */
static bool take_number(const struct rx_parser *p, size_t *at, uint32_t *out) {
    size_t from = *at;
    uint64_t v = 0;
    for (; *at < p->s.n && p->s.p[*at] >= '0' && p->s.p[*at] <= '9'; ++*at)
        v = MIN(v * 10 + (uint64_t)(p->s.p[*at] - '0'), UINT32_MAX - 1);
    *out = (uint32_t)v;
    return *at > from;
}

/* read_braces: {m}, {m,}, {,n} or {m,n} at the parser's place; *end behind it. False: the '{' is a character.
 */
static bool read_braces(const struct rx_parser *p, uint32_t *min, uint32_t *max, size_t *end) {
    size_t at = p->at + 1;
    bool has_min = take_number(p, &at, min);
    if (!has_min)
        *min = 0;
    *max = *min;
    if (at < p->s.n && p->s.p[at] == ',') {
        at++;
        if (!take_number(p, &at, max)) {
            *max = RX_INF;
            if (!has_min)
                return false;
        }
    } else if (!has_min) {
        return false;
    }
    *end = at + 1;
    return at < p->s.n && p->s.p[at] == '}';
}

static enum rc take_repeat(struct rx_work *w, uint32_t min, uint32_t max, size_t end) {
    struct rx_parser *p = &w->p;
    size_t start = p->at;
    p->at = end;
    if (!w->can_repeat)
        return rx_bad(p, start, "nothing to repeat here");
    if (max != RX_INF && max < min)
        return rx_bad(p, start, "a repeat of at least %u and at most %u times", min, max);
    uint32_t bound = max == RX_INF ? min : max;
    if (bound > p->limits->regex_repeat)
        return rx_bad(p, start, "the repeat bound %u is above the limit of %u (--max-regex-repeat)", bound,
                      p->limits->regex_repeat);
    if (rx_peek(p, 0) == '?') /* lazy: which match is found first, not which texts match */
        p->at++;
    else if (rx_peek(p, 0) == '+')
        return rx_bad(p, p->at, "possessive repeats are not supported");
    struct rx_piece *last = &w->pieces[w->n_pieces - 1];
    if (rx_piece_has_anchor(last) && !(min <= 1 && (max == 1 || max == RX_INF)))
        return rx_bad(p, start, "an anchor inside a counted repeat is not supported");
    *last = rx_piece_repeat(p->g, last, min, max);
    if (last->n_states > p->limits->regex_states)
        return rx_bad(p, start,
                      "with its repeats written out the pattern is longer than %u (--max-regex-states)",
                      p->limits->regex_states);
    w->can_repeat = false;
    return RC_OK;
}

/* ---- the pattern -------------------------------------------------------------------------------- */

static enum rc take_anchor(struct rx_work *w, unsigned demand, size_t n) {
    struct rx_parser *p = &w->p;
    if (p->how.no_anchors)
        return rx_bad(p, p->at, "anchors are not supported here");
    p->at += n;
    push(w, rx_piece_anchor(demand), false);
    return RC_OK;
}

static enum rc take_backslash(struct rx_work *w) {
    char c = rx_peek(&w->p, 1);
    if (c == 'A' || c == 'Z' || c == 'z')
        return take_anchor(w, c == 'A' ? AT_START : AT_END, 2);
    struct rx_set s = {0};
    bool one;
    uint32_t cp = 0;
    enum rc rc = rx_take_escape(&w->p, false, &s, &one, &cp);
    if (rc == RC_OK && one) {
        push_char(w, cp);
    } else if (rc == RC_OK) {
        if (w->p.how.icase)
            rx_set_fold(&s);
        push_set(w, &s);
    }
    rx_set_fini(&s);
    return rc;
}

static enum rc take_bracket(struct rx_work *w) {
    struct rx_set s = {0};
    enum rc rc = rx_take_class(&w->p, &s);
    if (rc == RC_OK)
        push_set(w, &s);
    rx_set_fini(&s);
    return rc;
}

static enum rc take_one(struct rx_work *w) {
    struct rx_parser *p = &w->p;
    uint32_t min, max;
    size_t end;
    switch (rx_peek(p, 0)) {
    case '(':
        return open_group(w);
    case ')':
        return close_group(w);
    case '|':
        end_alternative(w);
        p->at++;
        return RC_OK;
    case '*':
        return take_repeat(w, 0, RX_INF, p->at + 1);
    case '+':
        return take_repeat(w, 1, RX_INF, p->at + 1);
    case '?':
        return take_repeat(w, 0, 1, p->at + 1);
    case '{':
        if (read_braces(p, &min, &max, &end))
            return take_repeat(w, min, max, end);
        break;
    case '^':
        return take_anchor(w, AT_START, 1);
    case '$':
        return take_anchor(w, AT_END, 1);
    case '.':
        p->at++;
        push_dot(w);
        return RC_OK;
    case '[':
        return take_bracket(w);
    case '\\':
        return take_backslash(w);
    default:
        break;
    }
    push_char(w, rx_take_char(p));
    return RC_OK;
}

static uint32_t finish(struct rx_work *w) {
    struct gram *g = w->p.g;
    struct rx_piece *all = &w->pieces[0];
    if (!w->p.how.search)
        return rx_piece_whole(g, all);
    struct rx_set s = {0};
    rx_set_negate(&s);
    uint32_t any = set_expr(w, &s);
    rx_set_fini(&s);
    return rx_piece_search(g, all, any);
}

enum rc rx_parse_as(struct gram *g, struct str pattern, const struct rx_syntax *how, uint32_t *rx,
                    struct err *e) {
    const struct gram_limits *limits = gram_limits_of(g);
    if (pattern.n > limits->regex_bytes)
        return err_set(e, RC_INVALID, NULL, "the pattern is longer than %u bytes (--max-regex-bytes)",
                       limits->regex_bytes);
    if (!utf8_valid(pattern.p, pattern.n))
        return err_set(e, RC_INVALID, NULL, "the pattern is no valid UTF-8");
    struct rx_work *w = xcalloc(1, sizeof *w);
    w->p = (struct rx_parser){.g = g, .limits = limits, .s = pattern, .how = *how, .what = "pattern", .e = e};
    if (!w->p.how.one_of)
        w->p.how.one_of = rx_class;
    enum rc rc = RC_OK;
    while (rc == RC_OK && rx_more(&w->p)) {
        rc = take_one(w);
        if (rc == RC_OK && gram_over(g))
            rc = rx_bad(&w->p, w->p.at, "the grammar is larger than its limits allow");
    }
    if (rc == RC_OK && w->depth > 0)
        rc = rx_bad(&w->p, w->groups[w->depth].at, "a group without closing ')'");
    if (rc == RC_OK) {
        end_group(w);
        if (w->pieces[0].n_states > limits->regex_states)
            rc = rx_bad(&w->p, 0,
                        "with its repeats written out the pattern is longer than %u (--max-regex-states)",
                        limits->regex_states);
        else
            *rx = finish(w);
    }
    free(w->pieces);
    free(w);
    return rc;
}

enum rc rx_parse(struct gram *g, struct str pattern, bool search, uint32_t *rx, struct err *e) {
    struct rx_syntax how = {.search = search};
    return rx_parse_as(g, pattern, &how, rx, e);
}

enum rc rx_parse_in(struct gram *g, struct str pattern, bool search, rx_one_of *one_of, uint32_t *rx,
                    struct err *e) {
    struct rx_syntax how = {.search = search, .one_of = one_of};
    return rx_parse_as(g, pattern, &how, rx, e);
}

enum rc gram_add_regex(struct gram *g, struct str pattern, uint32_t *sym, struct err *e) {
    struct rx_syntax how = {0};
    uint32_t rx;
    enum rc rc = rx_parse_as(g, pattern, &how, &rx, e);
    if (rc == RC_OK)
        *sym = gram_term(g, rx, 0);
    return rc;
}
