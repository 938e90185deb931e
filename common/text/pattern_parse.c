/* pattern_parse.c: the text of a pattern to its tree. Recursion is as deep as groups are, PATTERN_DEPTH_MAX.
 */
#include "common/text/pattern_reader.h"

#include "common/text/class_tab.h"

#include <stdlib.h>

/* ---- nodes ---- */

static uint32_t node(struct pat_reader *x, struct pat_node own) {
    struct pat_tree *t = x->t;
    if (t->n_nodes == PAT_NODES_MAX) {
        pat_bad(x, "longer than %d parts", PAT_NODES_MAX);
        return 0;
    }
    own.child = own.last = own.next = PAT_NONE;
    t->nodes[t->n_nodes] = own;
    return t->n_nodes++;
}

static void adopt(struct pat_reader *x, uint32_t parent, uint32_t child) {
    struct pat_node *p = &x->t->nodes[parent];
    if (p->last == PAT_NONE)
        p->child = child;
    else
        x->t->nodes[p->last].next = child;
    p->last = child;
}

static uint32_t around(struct pat_reader *x, struct pat_node own, uint32_t child) {
    uint32_t n = node(x, own);
    if (!x->rc)
        adopt(x, n, child);
    return n;
}

/* set_node: the set moves in. */
static uint32_t set_node(struct pat_reader *x, struct pat_set *s) {
    if (x->t->n_sets == PATTERN_SETS_MAX) {
        pat_bad(x, "more than %d classes", PATTERN_SETS_MAX);
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
static void check_long(struct pat_reader *x, uint32_t cp) {
    const uint32_t last[3] = {x->before[0], x->before[1], cp};
    for (size_t i = 0; i < CLASS_N_LONG_FOLDS; i++) {
        const struct class_fold *f = &class_long_folds[i];
        size_t n = f->to[2] ? 3 : 2;
        bool same = true;
        for (size_t k = 0; k < n; k++)
            same &= last[3 - n + k] && folded(f->to[k]) == folded(last[3 - n + k]);
        if (same || f->cp == cp)
            pat_lacks(x, "where case does not count, letters that match U+%04X are not supported",
                      (unsigned)f->cp);
    }
}

static uint32_t char_node(struct pat_reader *x, uint32_t cp) {
    const uint32_t *to = x->no_case ? pat_fold_of(cp) : NULL;
    if (!to)
        return node(x, (struct pat_node){.kind = PAT_CHAR, .cp = cp});
    struct pat_set s = {0};
    pat_set_add(&s, cp, cp);
    pat_set_fold(&s);
    return set_node(x, &s);
}

/* ---- parts ---- */

static uint32_t take_alternatives(struct pat_reader *x);

static uint32_t take_dot(struct pat_reader *x) {
    struct pat_set s = {0};
    pat_set_add(&s, 0, UNI_MAX);
    if (!x->dot_all) {
        pat_set_fini(&s);
        pat_set_add(&s, '\n', '\n');
        pat_set_negate(&s);
    }
    return set_node(x, &s);
}

static uint32_t assert_node(struct pat_reader *x, enum pat_assert a) {
    return node(x, (struct pat_node){.kind = PAT_ASSERT, .assert = a});
}

/* take_escape: behind the backslash; a character that it stands for goes to *literal. */
static uint32_t take_escape(struct pat_reader *x, uint32_t *literal) {
    static const struct {
        char name[2];
        enum pat_assert a;
    } asserts[] = {{"A", PAT_TEXT_BEGIN},
                   {"z", PAT_TEXT_END},
                   {"Z", PAT_TEXT_END_NEWLINE},
                   {"b", PAT_EDGE},
                   {"B", PAT_NO_EDGE}};
    struct pat_set s = {0};
    if (!pat_more(x)) {
        pat_bad(x, "a backslash at the end");
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(asserts); i++)
        if (pat_take(x, asserts[i].name))
            return assert_node(x, asserts[i].a);
    if (pat_take_kind(x, false, &s))
        return set_node(x, &s);
    uint32_t cp;
    if (!pat_take_code(x, &cp)) {
        pat_lacks(x, "\\%c is not supported", x->re.p[x->at]);
        return 0;
    }
    *literal = cp;
    return char_node(x, cp);
}

/* take_flags: behind "(?", up to : or ), the latter not taken; false: there are none. */
static bool take_flags(struct pat_reader *x) {
    bool on = true;
    size_t begin = x->at;
    for (; pat_more(x) && !pat_looking_at(x, ":") && !pat_looking_at(x, ")"); x->at++) {
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
static void take_name(struct pat_reader *x, char end) {
    const char *hit = memchr(x->re.p + x->at, end, x->re.n - x->at);
    if (!hit || hit == x->re.p + x->at)
        pat_bad(x, "a group's name without an end");
    else
        x->at = (size_t)(hit - x->re.p) + 1;
}

/* take_group: behind the parenthesis. rest: it was flags, which hold up to the end of the group around them.
 */
static uint32_t take_group(struct pat_reader *x, bool *rest) {
    struct pat_node own = {.kind = PAT_CAT};
    bool no_case = x->no_case, dot_all = x->dot_all;
    if (++x->depth > PATTERN_DEPTH_MAX)
        pat_bad(x, "deeper than %d groups", PATTERN_DEPTH_MAX);
    if (pat_take(x, "?#")) {
        const char *end = memchr(x->re.p + x->at, ')', x->re.n - x->at);
        if (!end)
            pat_bad(x, "a comment without an end");
        else
            x->at = (size_t)(end - x->re.p) + 1;
        x->depth--;
        return node(x, (struct pat_node){.kind = PAT_EMPTY});
    }
    if (pat_take(x, "?:")) {
    } else if (pat_take(x, "?=")) {
        own = (struct pat_node){.kind = PAT_LOOK};
    } else if (pat_take(x, "?!")) {
        own = (struct pat_node){.kind = PAT_LOOK, .negated = true};
    } else if (pat_take(x, "?<=")) {
        own = (struct pat_node){.kind = PAT_LOOK, .behind = true};
    } else if (pat_take(x, "?<!")) {
        own = (struct pat_node){.kind = PAT_LOOK, .behind = true, .negated = true};
    } else if (pat_take(x, "?>")) {
        own = (struct pat_node){.kind = PAT_ATOMIC};
    } else if (pat_take(x, "?<")) {
        take_name(x, '>');
    } else if (pat_take(x, "?'")) {
        take_name(x, '\'');
    } else if (pat_take(x, "?")) {
        if (!take_flags(x))
            pat_lacks(x, "this kind of group is not supported");
        *rest = pat_looking_at(x, ")");
        x->at++;
    } else if (pat_looking_at(x, "*")) {
        pat_lacks(x, "this kind of group is not supported");
    }
    uint32_t n = x->rc ? 0 : take_alternatives(x);
    x->no_case = no_case;
    x->dot_all = dot_all;
    x->depth--;
    if (!*rest && !pat_take(x, ")"))
        pat_bad(x, "a group without an end");
    return x->rc || own.kind == PAT_CAT ? n : around(x, own, n);
}

static uint32_t take_atom(struct pat_reader *x, uint32_t *literal, bool *rest) {
    struct pat_set s = {0};
    if (pat_looking_at(x, "*") || pat_looking_at(x, "+") || pat_looking_at(x, "?"))
        pat_bad(x, "nothing to repeat");
    if (x->rc)
        return 0;
    if (pat_take(x, "("))
        return take_group(x, rest);
    if (pat_looking_at(x, "[")) {
        pat_take_class(x, &s, true);
        return set_node(x, &s);
    }
    if (pat_take(x, "."))
        return take_dot(x);
    if (pat_take(x, "^"))
        return assert_node(x, PAT_LINE_BEGIN);
    if (pat_take(x, "$"))
        return assert_node(x, PAT_LINE_END);
    if (pat_take(x, "\\"))
        return take_escape(x, literal);
    *literal = pat_take_char(x);
    return char_node(x, *literal);
}

/* ---- repeats ---- */

static bool take_number(struct pat_reader *x, uint32_t *v) {
    size_t begin = x->at;
    *v = 0;
    for (; pat_more(x) && x->re.p[x->at] >= '0' && x->re.p[x->at] <= '9'; x->at++)
        *v = MIN(*v * 10 + (uint32_t)(x->re.p[x->at] - '0'), (uint32_t)PATTERN_REPEAT_MAX + 1);
    return x->at > begin;
}

/* take_interval: {2}, {2,}, {,3}, {2,3}; what else starts with { is a character. */
static bool take_interval(struct pat_reader *x, uint32_t *min, uint32_t *max) {
    size_t begin = x->at;
    if (!pat_take(x, "{"))
        return false;
    bool low = take_number(x, min), comma = pat_take(x, ","), high = comma && take_number(x, max);
    if (!pat_take(x, "}") || (!low && !high)) {
        x->at = begin;
        return false;
    }
    *min = low ? *min : 0;
    if (!comma)
        *max = *min;
    else if (!high)
        *max = PAT_NO_MAX;
    if (*min > PATTERN_REPEAT_MAX || (*max != PAT_NO_MAX && *max > PATTERN_REPEAT_MAX))
        pat_bad(x, "more than %d repeats", PATTERN_REPEAT_MAX);
    else if (*max < *min)
        pat_lacks(x, "an interval that ends before it begins is not supported");
    else if (!comma && pat_looking_at(x, "?"))
        pat_lacks(x, "{n}? is not supported");
    return true;
}

enum { N_REPEATS_MAX = 4 }; /* of repeats; trees stay as deep as groups are */

/* take_repeats: what stands behind an atom. */
static uint32_t take_repeats(struct pat_reader *x, uint32_t n, bool *any) {
    *any = false;
    for (int n_deep = 0; !x->rc; *any = true) {
        struct pat_node own = {.kind = PAT_REPEAT, .max = PAT_NO_MAX};
        bool interval = false;
        if (pat_take(x, "+"))
            own.min = 1;
        else if (pat_take(x, "?"))
            own.max = 1;
        else if (!pat_take(x, "*") && !(interval = take_interval(x, &own.min, &own.max)))
            break;
        if (++n_deep > N_REPEATS_MAX)
            pat_bad(x, "more than %d repeats of one part", N_REPEATS_MAX);
        if (pat_take(x, "?"))
            own.greed = PAT_LAZY;
        else if (!interval && pat_take(x, "+"))
            own.greed = PAT_POSSESSIVE;
        if (!x->rc)
            n = around(x, own, n);
    }
    return n;
}

static uint32_t take_branch(struct pat_reader *x) {
    uint32_t cat = node(x, (struct pat_node){.kind = PAT_CAT});
    x->before[0] = x->before[1] = 0;
    while (!x->rc && pat_more(x) && !pat_looking_at(x, "|") && !pat_looking_at(x, ")")) {
        uint32_t literal = 0, none, unused;
        bool rest = false, repeated = false;
        size_t begin = x->at;
        if (take_interval(x, &none, &unused))
            pat_bad(x, "nothing to repeat");
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

static uint32_t take_alternatives(struct pat_reader *x) {
    uint32_t alt = node(x, (struct pat_node){.kind = PAT_ALT});
    do {
        uint32_t branch = take_branch(x);
        if (!x->rc)
            adopt(x, alt, branch);
    } while (!x->rc && pat_take(x, "|"));
    return alt;
}

enum rc pat_parse(struct pat_tree *t, struct str re, struct err *e) {
    struct pat_reader x = {.t = t, .re = re, .e = e};
    *t = (struct pat_tree){.nodes = xcalloc(PAT_NODES_MAX, sizeof *t->nodes)};
    if (re.n > PATTERN_BYTES_MAX)
        return err_set(e, RC_INVALID, NULL, "a pattern of %zu bytes, the limit is %d", re.n,
                       PATTERN_BYTES_MAX);
    t->root = take_alternatives(&x);
    if (!x.rc && pat_more(&x))
        pat_bad(&x, "a ) without a (");
    return x.rc;
}

void pat_tree_fini(struct pat_tree *t) {
    for (uint32_t i = 0; i < t->n_sets; i++)
        pat_set_fini(&t->sets[i]);
    free(t->nodes);
    *t = (struct pat_tree){0};
}
