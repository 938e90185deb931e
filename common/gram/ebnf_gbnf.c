/* ebnf_gbnf.c: grammars with "::=" and the start rule "root".
 *
 * Rules end where the next one begins (a name with "::="), so line breaks mean nothing. An empty alternative
 * is the empty string.
 */
#include "common/gram/ebnf.h"

static void skip_space(struct ebnf *b) {
    for (;;) {
        char c = eb_peek(b, 0);
        if (eb_more(b) && (c == ' ' || c == '\t' || c == '\r' || c == '\n')) {
            b->at++;
        } else if (c == '#') {
            while (eb_more(b) && eb_peek(b, 0) != '\n')
                b->at++;
        } else {
            return;
        }
    }
}

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* peek_name: the name at the parser's place, empty if there is none; *defines: "::=" follows. */
static struct str peek_name(struct ebnf *b, bool *defines) {
    size_t start = b->at, end = start;
    while (end < b->text.n && is_name_char(b->text.p[end]))
        end++;
    b->at = end;
    skip_space(b);
    *defines = eb_peek(b, 0) == ':' && eb_peek(b, 1) == ':' && eb_peek(b, 2) == '=';
    b->at = start;
    return (struct str){b->text.p + start, end - start};
}

static enum rc take_alternatives(struct ebnf *b, uint32_t *node);

static enum rc take_group(struct ebnf *b, uint32_t *node) {
    size_t start = b->at++;
    if (b->depth == EB_DEPTH_MAX)
        return eb_bad(b, start, "groups nest more than %d deep", EB_DEPTH_MAX);
    if (eb_peek(b, 0) == '=' || eb_peek(b, 0) == '!' || eb_peek(b, 0) == '?')
        return eb_bad(b, start, "look-ahead is not supported");
    b->depth++;
    enum rc rc = take_alternatives(b, node);
    b->depth--;
    if (rc)
        return rc;
    if (eb_peek(b, 0) != ')')
        return eb_bad(b, start, "a group without closing ')'");
    b->at++;
    return RC_OK;
}

static enum rc take_literal(struct ebnf *b, uint32_t *node) {
    struct buf text = {0};
    enum rc rc = eb_take_string(b, eb_peek(b, 0), &text);
    if (rc == RC_OK)
        *node = eb_node_string(b, buf_str(&text), false);
    buf_fini(&text);
    return rc;
}

static enum rc take_element(struct ebnf *b, uint32_t *node) {
    char c = eb_peek(b, 0);
    bool defines;
    if (c == '"' || c == '\'')
        return take_literal(b, node);
    if (c == '[')
        return eb_take_class(b, node);
    if (c == '(')
        return take_group(b, node);
    if (c == '.') {
        *node = eb_node_rx(b, rx_any_char(b->g), 1);
        b->at++;
        return RC_OK;
    }
    if (c == '<')
        return eb_bad(b, b->at, "tokens in angle brackets are not supported; write their text as a string");
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return eb_bad(b, b->at, "nothing to repeat before '%c'", c);
    struct str name = peek_name(b, &defines);
    if (!name.n)
        return eb_bad(b, b->at, (uint8_t)c < 0x80 && c > ' ' ? "unexpected '%c'" : "unexpected character", c);
    uint32_t rule = eb_rule_of(b, name, b->at);
    b->at += name.n;
    *node = eb_node_ref(b, rule);
    return RC_OK;
}

/* take_repeats: * + ? {m,n} behind an element; several apply one after another. */
static enum rc take_repeats(struct ebnf *b, uint32_t *node) {
    for (unsigned n = 0;; n++) {
        skip_space(b);
        uint32_t min = 0, max = RX_INF;
        char c = eb_peek(b, 0);
        if (c != '*' && c != '+' && c != '?' && c != '{')
            return RC_OK;
        if (n == 4)
            return eb_bad(b, b->at, "too many repeats of one element");
        if (c == '{') {
            enum rc rc = eb_take_braces(b, &min, &max);
            if (rc)
                return rc;
        } else {
            b->at++;
            min = c == '+';
            max = c == '?' ? 1 : RX_INF;
        }
        *node = eb_node_rep(b, *node, min, max);
    }
}

static enum rc take_sequence(struct ebnf *b, uint32_t *node) {
    struct eb_list list = {0};
    for (;;) {
        skip_space(b);
        char c = eb_peek(b, 0);
        bool defines;
        if (!eb_more(b) || c == '|' || c == ')')
            break;
        if (is_name_char(c) && peek_name(b, &defines).n && defines)
            break;
        uint32_t one = EB_NIL;
        enum rc rc = take_element(b, &one);
        if (rc == RC_OK)
            rc = take_repeats(b, &one);
        if (rc)
            return rc;
        eb_list_add(b, &list, one);
    }
    *node = eb_list_node(b, EB_SEQ, &list);
    return RC_OK;
}

static enum rc take_alternatives(struct ebnf *b, uint32_t *node) {
    struct eb_list list = {0};
    for (;;) {
        uint32_t one = EB_NIL;
        enum rc rc = take_sequence(b, &one);
        if (rc)
            return rc;
        eb_list_add(b, &list, one);
        if (gram_over(b->g))
            return eb_bad(b, b->at, "the grammar is larger than its limits allow");
        if (eb_peek(b, 0) != '|')
            break;
        b->at++;
    }
    *node = eb_list_node(b, EB_ALT, &list);
    return RC_OK;
}

enum rc eb_parse_gbnf(struct ebnf *b) {
    for (skip_space(b); eb_more(b); skip_space(b)) {
        bool defines;
        size_t start = b->at;
        struct str name = peek_name(b, &defines);
        if (!name.n || !defines)
            return eb_bad(b, start, "a rule NAME ::= ... is expected here");
        uint32_t rule = eb_rule_of(b, name, start), body;
        enum rc rc = eb_rule_begin(b, rule, start);
        if (rc)
            return rc;
        b->at += name.n;
        skip_space(b);
        b->at += 3;
        if ((rc = take_alternatives(b, &body)))
            return rc;
        if (eb_more(b) && eb_peek(b, 0) == ')')
            return eb_bad(b, b->at, "a ')' that closes nothing");
        eb_rule_end(b, rule, body);
    }
    return RC_OK;
}
