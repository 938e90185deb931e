/* pattern_parse.c: the text of a pattern to its tree. Recursion is as deep as groups are, PATTERN_DEPTH_MAX. */
#include "common/text/pattern_impl.h"

#include "common/text/class_tab.h"
#include "common/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct parser {
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

/* bad, lacks: the first error counts; the caller unwinds as soon as it sees rc. */
static void fail(struct parser *x, enum rc rc, const char *fmt, va_list ap) {
    char why[200];
    if (x->rc)
        return;
    vsnprintf(why, sizeof why, fmt, ap);
    x->rc = err_set(x->e, rc, NULL, "the pattern %.*s%s: %s, at byte %zu", (int)MIN(x->re.n, (size_t)300), x->re.p,
                    x->re.n > 300 ? "..." : "", why, x->at);
}
PRINTF_LIKE(2, 3) static void bad(struct parser *x, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail(x, RC_INVALID, fmt, ap);
    va_end(ap);
}
PRINTF_LIKE(2, 3) static void lacks(struct parser *x, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fail(x, RC_UNSUPPORTED, fmt, ap);
    va_end(ap);
}

static bool more(const struct parser *x) {
    return x->at < x->re.n;
}
static bool looking_at(const struct parser *x, const char *z) {
    return str_starts((struct str){x->re.p + x->at, x->re.n - x->at}, str_of(z));
}
static bool take(struct parser *x, const char *z) {
    bool yes = looking_at(x, z);
    x->at += yes ? strlen(z) : 0;
    return yes;
}
static uint32_t take_char(struct parser *x) {
    size_t len;
    uint32_t cp = uni_decode(x->re.p + x->at, &len);
    x->at += len;
    return cp;
}

/* ---- nodes ---- */

static uint32_t node(struct parser *x, struct pat_node own) {
    struct pat_tree *t = x->t;
    if (t->n_nodes == PAT_NODES_MAX) {
        bad(x, "longer than %d parts", PAT_NODES_MAX);
        return 0;
    }
    own.child = own.last = own.next = PAT_NONE;
    t->nodes[t->n_nodes] = own;
    return t->n_nodes++;
}

static void adopt(struct parser *x, uint32_t parent, uint32_t child) {
    struct pat_node *p = &x->t->nodes[parent];
    if (p->last == PAT_NONE)
        p->child = child;
    else
        x->t->nodes[p->last].next = child;
    p->last = child;
}

static uint32_t around(struct parser *x, struct pat_node own, uint32_t child) {
    uint32_t n = node(x, own);
    if (!x->rc)
        adopt(x, n, child);
    return n;
}

/* set_node: the set moves in. */
static uint32_t set_node(struct parser *x, struct pat_set *s) {
    if (x->t->n_sets == PATTERN_SETS_MAX) {
        bad(x, "more than %d classes", PATTERN_SETS_MAX);
        pat_set_fini(s);
        return 0;
    }
    x->t->sets[x->t->n_sets] = *s;
    *s = (struct pat_set){0};
    return node(x, (struct pat_node){.kind = PAT_SET, .set = x->t->n_sets++});
}

/* ---- case ---- */

/* folded: one of the characters that are the same where case does not count. */
static uint32_t folded(uint32_t cp) {
    const uint32_t *to = pat_fold_of(cp);
    for (size_t i = 0; to && i < 3 && to[i]; i++)
        cp = MIN(cp, to[i]);
    return cp;
}

/* check_long: whether the literal characters up to cp would match one character together. */
static void check_long(struct parser *x, uint32_t cp) {
    const uint32_t last[3] = {x->before[0], x->before[1], cp};
    for (size_t i = 0; i < CLASS_N_LONG_FOLDS; i++) {
        const struct class_fold *f = &class_long_folds[i];
        size_t n = f->to[2] ? 3 : 2;
        bool same = true;
        for (size_t k = 0; k < n; k++)
            same &= last[3 - n + k] && folded(f->to[k]) == folded(last[3 - n + k]);
        if (same || f->cp == cp)
            lacks(x, "where case does not count, letters that match U+%04X are not supported", (unsigned)f->cp);
    }
}

static uint32_t char_node(struct parser *x, uint32_t cp) {
    const uint32_t *to = x->no_case ? pat_fold_of(cp) : NULL;
    if (!to)
        return node(x, (struct pat_node){.kind = PAT_CHAR, .cp = cp});
    struct pat_set s = {0};
    pat_set_add(&s, cp, cp);
    pat_set_fold(&s);
    return set_node(x, &s);
}

/* fold_set: of what stands in brackets; several letters that match one of its characters would count, too. */
static void fold_set(struct parser *x, struct pat_set *s, bool negated) {
    for (size_t i = 0; i < CLASS_N_LONG_FOLDS && !negated; i++)
        if (pat_set_has(s, class_long_folds[i].cp))
            lacks(x, "where case does not count, a class with U+%04X is not supported",
                  (unsigned)class_long_folds[i].cp);
    pat_set_fold(s);
}

/* ---- escapes ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* take_hex: n_min to n_max digits. */
static uint32_t take_hex(struct parser *x, size_t n_min, size_t n_max) {
    uint32_t v = 0;
    size_t n = 0;
    for (int d; n < n_max && more(x) && (d = hex_digit(x->re.p[x->at])) >= 0; n++, x->at++)
        v = v << 4 | (uint32_t)d;
    if (n < n_min)
        bad(x, "too short a number");
    if (v > UNI_MAX || (v >= 0xD800 && v < 0xE000))
        bad(x, "a number that is no character");
    return v;
}

/* take_code: \x41, \x{1F600}, \u0041, \n and the like behind the backslash. false: another escape. */
static bool take_code(struct parser *x, uint32_t *cp) {
    static const char names[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1B";
    char c = x->re.p[x->at];
    const char *known = strchr(names, c);
    if (known && c) {
        x->at++;
        *cp = (uint8_t)codes[known - names];
    } else if (take(x, "x{")) {
        *cp = take_hex(x, 1, 8);
        if (!take(x, "}"))
            bad(x, "\\x{ without an end");
    } else if (take(x, "x")) {
        *cp = take_hex(x, 1, 2);
        if (*cp > 0x7F)
            lacks(x, "a byte that is no character");
    } else if (take(x, "u")) {
        *cp = take_hex(x, 4, 4);
    } else if ((uint8_t)c >= 0x80 || !((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))) {
        *cp = take_char(x);
    } else {
        return false;
    }
    return true;
}

/* take_property: \p{L}, \p{^L}, \P{L}, behind the p. */
static void take_property(struct parser *x, bool negated, struct pat_set *s) {
    const char *end = take(x, "{") ? memchr(x->re.p + x->at, '}', x->re.n - x->at) : NULL;
    if (!end) {
        lacks(x, "\\p without {");
        return;
    }
    negated ^= take(x, "^");
    struct str name = {x->re.p + x->at, (size_t)(end - x->re.p) - x->at};
    if (!pat_set_named(s, name, false))
        lacks(x, "the property %.*s is not known", (int)MIN(name.n, (size_t)60), name.p);
    x->at += name.n + 1;
    if (negated)
        pat_set_negate(s);
}

/* take_kind: \w, \d, \s, \h, \p and their opposites, behind the backslash. false: another escape. */
static bool take_kind(struct parser *x, bool bracket, struct pat_set *s) {
    static const char *const kinds[][2] = {{"w", "word"}, {"d", "digit"}, {"s", "space"}, {"h", "xdigit"}};
    if (take(x, "p") || take(x, "P")) {
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

static void take_class(struct parser *x, struct pat_set *out, bool outermost);

/* take_posix: [:alpha:] at the place of its bracket; false: it is none. */
static bool take_posix(struct parser *x, struct pat_set *s) {
    size_t at = x->at + 2;
    if (!looking_at(x, "[:"))
        return false;
    bool negated = at < x->re.n && x->re.p[at] == '^';
    size_t begin = at += negated;
    while (at < x->re.n && (x->re.p[at] | 0x20) >= 'a' && (x->re.p[at] | 0x20) <= 'z')
        at++;
    if (at + 1 >= x->re.n || x->re.p[at] != ':' || x->re.p[at + 1] != ']')
        return false;
    if (!pat_set_named(s, (struct str){x->re.p + begin, at - begin}, true))
        bad(x, "[:%.*s:] is not known", (int)MIN(at - begin, (size_t)40), x->re.p + begin);
    if (negated)
        pat_set_negate(s);
    x->at = at + 2;
    return true;
}

/* take_member: one part of a class: a set, which goes to s, or a character: true. */
static bool take_member(struct parser *x, struct pat_set *s, uint32_t *cp) {
    if (looking_at(x, "[")) {
        if (!take_posix(x, s))
            take_class(x, s, false);
        return false;
    }
    if (!take(x, "\\")) {
        *cp = take_char(x);
        return true;
    }
    if (!more(x)) {
        bad(x, "a backslash at the end");
        return false;
    }
    if (take(x, "b"))
        *cp = '\b';
    else if (take_kind(x, true, s))
        return false;
    else if (!take_code(x, cp))
        lacks(x, "\\%c in a class is not supported", x->re.p[x->at]);
    return true;
}

/* take_range: cp, or cp-high. */
static void take_range(struct parser *x, uint32_t cp, struct pat_set *s) {
    struct pat_set none = {0};
    uint32_t high = cp;
    bool dash = looking_at(x, "-") && !looking_at(x, "-]") && !looking_at(x, "-&&") && x->at + 1 < x->re.n;
    if (dash) {
        x->at++;
        if (looking_at(x, "[") || !take_member(x, &none, &high))
            bad(x, "a range that ends in a class");
        pat_set_fini(&none);
    }
    if (high < cp)
        bad(x, "a range that ends before it begins");
    if (x->rc)
        return;
    pat_set_add(s, cp, high);
    /* [a-c-e]: this - is a character, and so Oniguruma has it; [a-c-] is clear to all. */
    if (dash && looking_at(x, "-") && !looking_at(x, "-]"))
        lacks(x, "a - behind a range is not supported");
}

/* take_class: from [ to ]. */
static void take_class(struct parser *x, struct pat_set *out, bool outermost) {
    struct pat_set all = {0}, part = {0};
    bool met = false, first = true;
    if (++x->depth > PATTERN_DEPTH_MAX)
        bad(x, "deeper than %d groups", PATTERN_DEPTH_MAX);
    x->at++;
    bool negated = take(x, "^");
    for (; !x->rc && more(x) && (first || !looking_at(x, "]")); first = false) {
        struct pat_set s = {0};
        uint32_t cp;
        if (first && looking_at(x, "]") && !memchr(x->re.p + x->at + 1, ']', x->re.n - x->at - 1)) {
            bad(x, "an empty class");
        } else if (take(x, "&&")) { /* binds weaker than all else */
            if (met)
                pat_set_meet(&all, &part);
            else
                pat_set_join(&all, &part);
            met = true;
            pat_set_fini(&part);
        } else if (take_member(x, &s, &cp)) {
            if (!x->rc)
                take_range(x, cp, &s);
        } else if (looking_at(x, "-") && !looking_at(x, "-]") && !looking_at(x, "-&&")) {
            bad(x, "a range that begins in a class");
        }
        pat_set_join(&part, &s);
        pat_set_fini(&s);
    }
    if (met)
        pat_set_meet(&all, &part);
    else
        pat_set_join(&all, &part);
    pat_set_fini(&part);
    if (!take(x, "]"))
        bad(x, "a class without an end");
    if (outermost && x->no_case)
        fold_set(x, &all, negated);
    if (negated)
        pat_set_negate(&all);
    x->depth--;
    pat_set_join(out, &all);
    pat_set_fini(&all);
}

/* ---- parts ---- */

static uint32_t take_alternatives(struct parser *x);

static uint32_t take_dot(struct parser *x) {
    struct pat_set s = {0};
    pat_set_add(&s, 0, UNI_MAX);
    if (!x->dot_all) {
        pat_set_fini(&s);
        pat_set_add(&s, '\n', '\n');
        pat_set_negate(&s);
    }
    return set_node(x, &s);
}

static uint32_t assert_node(struct parser *x, enum pat_assert a) {
    return node(x, (struct pat_node){.kind = PAT_ASSERT, .assert = a});
}

/* take_escape: behind the backslash; a character that it stands for goes to *literal. */
static uint32_t take_escape(struct parser *x, uint32_t *literal) {
    static const struct {
        char name[2];
        enum pat_assert a;
    } asserts[] = {{"A", PAT_TEXT_BEGIN}, {"z", PAT_TEXT_END}, {"Z", PAT_TEXT_END_NEWLINE}, {"b", PAT_EDGE},
                   {"B", PAT_NO_EDGE}};
    struct pat_set s = {0};
    if (!more(x)) {
        bad(x, "a backslash at the end");
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(asserts); i++)
        if (take(x, asserts[i].name))
            return assert_node(x, asserts[i].a);
    if (take_kind(x, false, &s))
        return set_node(x, &s);
    uint32_t cp;
    if (!take_code(x, &cp)) {
        lacks(x, "\\%c is not supported", x->re.p[x->at]);
        return 0;
    }
    *literal = cp;
    return char_node(x, cp);
}

/* take_flags: behind "(?", up to : or ), the latter not taken; false: there are none. */
static bool take_flags(struct parser *x) {
    bool on = true;
    size_t begin = x->at;
    for (; more(x) && !looking_at(x, ":") && !looking_at(x, ")"); x->at++) {
        char c = x->re.p[x->at];
        if (c == '-')
            on = false;
        else if (c == 'i')
            x->no_case = on;
        else if (c == 'm')
            x->dot_all = on;
        else if (c != 'x' || on)
            return false;
    }
    return x->at > begin;
}

/* take_name: a group's name, which nothing here refers to. */
static void take_name(struct parser *x, char end) {
    const char *hit = memchr(x->re.p + x->at, end, x->re.n - x->at);
    if (!hit || hit == x->re.p + x->at)
        bad(x, "a group's name without an end");
    else
        x->at = (size_t)(hit - x->re.p) + 1;
}

/* take_group: behind the parenthesis. rest: it was flags, which hold up to the end of the group around them. */
static uint32_t take_group(struct parser *x, bool *rest) {
    struct pat_node own = {.kind = PAT_CAT};
    bool no_case = x->no_case, dot_all = x->dot_all;
    if (++x->depth > PATTERN_DEPTH_MAX)
        bad(x, "deeper than %d groups", PATTERN_DEPTH_MAX);
    if (take(x, "?#")) {
        const char *end = memchr(x->re.p + x->at, ')', x->re.n - x->at);
        if (!end)
            bad(x, "a comment without an end");
        else
            x->at = (size_t)(end - x->re.p) + 1;
        x->depth--;
        return node(x, (struct pat_node){.kind = PAT_EMPTY});
    }
    if (take(x, "?:")) {
    } else if (take(x, "?=")) {
        own = (struct pat_node){.kind = PAT_LOOK};
    } else if (take(x, "?!")) {
        own = (struct pat_node){.kind = PAT_LOOK, .negated = true};
    } else if (take(x, "?<=")) {
        own = (struct pat_node){.kind = PAT_LOOK, .behind = true};
    } else if (take(x, "?<!")) {
        own = (struct pat_node){.kind = PAT_LOOK, .behind = true, .negated = true};
    } else if (take(x, "?>")) {
        own = (struct pat_node){.kind = PAT_ATOMIC};
    } else if (take(x, "?<")) {
        take_name(x, '>');
    } else if (take(x, "?'")) {
        take_name(x, '\'');
    } else if (take(x, "?")) {
        if (!take_flags(x))
            lacks(x, "this kind of group is not supported");
        *rest = looking_at(x, ")");
        x->at++;
    } else if (looking_at(x, "*")) {
        lacks(x, "this kind of group is not supported");
    }
    uint32_t n = x->rc ? 0 : take_alternatives(x);
    x->no_case = no_case;
    x->dot_all = dot_all;
    x->depth--;
    if (!*rest && !take(x, ")"))
        bad(x, "a group without an end");
    return x->rc || own.kind == PAT_CAT ? n : around(x, own, n);
}

static uint32_t take_atom(struct parser *x, uint32_t *literal, bool *rest) {
    struct pat_set s = {0};
    if (looking_at(x, "*") || looking_at(x, "+") || looking_at(x, "?"))
        bad(x, "nothing to repeat");
    if (x->rc)
        return 0;
    if (take(x, "("))
        return take_group(x, rest);
    if (looking_at(x, "[")) {
        take_class(x, &s, true);
        return set_node(x, &s);
    }
    if (take(x, "."))
        return take_dot(x);
    if (take(x, "^"))
        return assert_node(x, PAT_LINE_BEGIN);
    if (take(x, "$"))
        return assert_node(x, PAT_LINE_END);
    if (take(x, "\\"))
        return take_escape(x, literal);
    *literal = take_char(x);
    return char_node(x, *literal);
}

/* ---- repeats ---- */

static bool take_number(struct parser *x, uint32_t *v) {
    size_t begin = x->at;
    *v = 0;
    for (; more(x) && x->re.p[x->at] >= '0' && x->re.p[x->at] <= '9'; x->at++)
        *v = MIN(*v * 10 + (uint32_t)(x->re.p[x->at] - '0'), (uint32_t)PATTERN_REPEAT_MAX + 1);
    return x->at > begin;
}

/* take_interval: {2}, {2,}, {,3}, {2,3}; what else starts with { is a character. */
static bool take_interval(struct parser *x, uint32_t *min, uint32_t *max) {
    size_t begin = x->at;
    if (!take(x, "{"))
        return false;
    bool low = take_number(x, min), comma = take(x, ","), high = comma && take_number(x, max);
    if (!take(x, "}") || (!low && !high)) {
        x->at = begin;
        return false;
    }
    *min = low ? *min : 0;
    if (!comma)
        *max = *min;
    else if (!high)
        *max = PAT_NO_MAX;
    if (*min > PATTERN_REPEAT_MAX || (*max != PAT_NO_MAX && *max > PATTERN_REPEAT_MAX))
        bad(x, "more than %d repeats", PATTERN_REPEAT_MAX);
    else if (*max < *min)
        lacks(x, "an interval that ends before it begins is not supported");
    else if (!comma && looking_at(x, "?"))
        lacks(x, "{n}? is not supported");
    return true;
}

enum { N_REPEATS_MAX = 4 }; /* of repeats; trees stay as deep as groups are */

/* take_repeats: what stands behind an atom. */
static uint32_t take_repeats(struct parser *x, uint32_t n, bool *any) {
    *any = false;
    for (int n_deep = 0; !x->rc; *any = true) {
        struct pat_node own = {.kind = PAT_REPEAT, .max = PAT_NO_MAX};
        bool interval = false;
        if (take(x, "+"))
            own.min = 1;
        else if (take(x, "?"))
            own.max = 1;
        else if (!take(x, "*") && !(interval = take_interval(x, &own.min, &own.max)))
            break;
        if (++n_deep > N_REPEATS_MAX)
            bad(x, "more than %d repeats of one part", N_REPEATS_MAX);
        if (take(x, "?"))
            own.greed = PAT_LAZY;
        else if (!interval && take(x, "+"))
            own.greed = PAT_POSSESSIVE;
        if (!x->rc)
            n = around(x, own, n);
    }
    return n;
}

static uint32_t take_branch(struct parser *x) {
    uint32_t cat = node(x, (struct pat_node){.kind = PAT_CAT});
    x->before[0] = x->before[1] = 0;
    while (!x->rc && more(x) && !looking_at(x, "|") && !looking_at(x, ")")) {
        uint32_t literal = 0, none, unused;
        bool rest = false, repeated = false;
        size_t begin = x->at;
        if (take_interval(x, &none, &unused))
            bad(x, "nothing to repeat");
        uint32_t n = take_atom(x, &literal, &rest);
        if (!rest && !x->rc)
            n = take_repeats(x, n, &repeated);
        if (x->rc)
            break;
        if (repeated)
            literal = 0;
        if (literal && x->no_case)
            check_long(x, literal);
        bool comment = str_starts((struct str){x->re.p + begin, x->at - begin}, STR_LIT("(?#"));
        if (!comment) {
            x->before[0] = x->before[1];
            x->before[1] = literal;
        }
        adopt(x, cat, n);
    }
    return cat;
}

static uint32_t take_alternatives(struct parser *x) {
    uint32_t alt = node(x, (struct pat_node){.kind = PAT_ALT});
    do {
        uint32_t branch = take_branch(x);
        if (!x->rc)
            adopt(x, alt, branch);
    } while (!x->rc && take(x, "|"));
    return alt;
}

enum rc pat_parse(struct pat_tree *t, struct str re, struct err *e) {
    struct parser x = {.t = t, .re = re, .e = e};
    *t = (struct pat_tree){.nodes = xcalloc(PAT_NODES_MAX, sizeof *t->nodes)};
    if (re.n > PATTERN_BYTES_MAX)
        return err_set(e, RC_INVALID, NULL, "a pattern of %zu bytes, the limit is %d", re.n, PATTERN_BYTES_MAX);
    t->root = take_alternatives(&x);
    if (!x.rc && more(&x))
        bad(&x, "a ) without a (");
    return x.rc;
}

void pat_tree_fini(struct pat_tree *t) {
    for (uint32_t i = 0; i < t->n_sets; i++)
        pat_set_fini(&t->sets[i]);
    free(t->nodes);
    *t = (struct pat_tree){0};
}
