/* ebnf.c: grammars written as text: the tree, the pieces both dialects share, and which dialect it is. */
#include "common/gram/ebnf.h"

#include "common/gram/regex_parts.h"
#include "common/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

uint32_t eb_line(const struct ebnf *b, size_t at) {
    uint32_t line = 1;
    for (size_t i = 0; i < at && i < b->text.n; i++)
        line += b->text.p[i] == '\n';
    return line;
}

enum rc eb_bad(struct ebnf *b, size_t at, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return err_set(b->e, RC_INVALID, NULL, "grammar line %u: %s", eb_line(b, at), what);
}

/* ---- rules by name ------------------------------------------------------------------------------ */

static uint32_t name_hash(struct str s) {
    uint32_t h = 2166136261u; /* FNV-1a; at most as many names as the text has bytes */
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 16777619u;
    return h;
}

static uint32_t *name_slot(struct ebnf *b, struct str name) {
    uint32_t at = name_hash(name) & (b->n_slots - 1);
    while (b->slots[at] && !str_eq(b->rules[b->slots[at] - 1].name, name))
        at = (at + 1) & (b->n_slots - 1);
    return &b->slots[at];
}

static void names_grow(struct ebnf *b) {
    free(b->slots);
    b->n_slots = b->n_slots ? b->n_slots * 2 : 64;
    b->slots = xcalloc(b->n_slots, sizeof *b->slots);
    for (uint32_t i = 0; i < b->n_rules; i++)
        *name_slot(b, b->rules[i].name) = i + 1;
}

uint32_t eb_rule_of(struct ebnf *b, struct str name, size_t at) {
    if (b->n_rules * 2 >= b->n_slots)
        names_grow(b);
    uint32_t *slot = name_slot(b, name);
    if (*slot)
        return *slot - 1;
    if (b->n_rules == b->cap_rules) {
        b->cap_rules = b->cap_rules ? b->cap_rules * 2 : 32;
        b->rules = xreallocarray(b->rules, b->cap_rules, sizeof *b->rules);
    }
    *slot = b->n_rules + 1;
    b->rules[b->n_rules] = (struct eb_rule){.name = name, .at = at, .body = EB_NIL, .refs = EB_NIL};
    return b->n_rules++;
}

enum rc eb_rule_begin(struct ebnf *b, uint32_t rule, size_t at) {
    struct eb_rule *r = &b->rules[rule];
    if (r->body != EB_NIL)
        return eb_bad(b, at, "\"%.*s\" is defined twice", (int)MIN(r->name.n, 80), r->name.p);
    r->node0 = b->n_nodes;
    r->at = at;
    return RC_OK;
}

void eb_rule_end(struct ebnf *b, uint32_t rule, uint32_t body) {
    b->rules[rule].node1 = b->n_nodes;
    b->rules[rule].body = body;
    b->nodes[body].rule = rule;
}

/* ---- nodes -------------------------------------------------------------------------------------- */

static uint32_t node_add(struct ebnf *b, enum eb_kind kind, uint32_t id) {
    if (b->n_nodes == b->cap_nodes) {
        b->cap_nodes = b->cap_nodes ? b->cap_nodes * 2 : 256;
        b->nodes = xreallocarray(b->nodes, b->cap_nodes, sizeof *b->nodes);
    }
    b->nodes[b->n_nodes] = (struct eb_node){
        .kind = kind, .id = id, .next = EB_NIL, .parent = EB_NIL, .rule = EB_NIL, .next_ref = EB_NIL};
    return b->n_nodes++;
}

uint32_t eb_node_rx(struct ebnf *b, uint32_t rx, uint32_t n_states) {
    uint32_t node = node_add(b, EB_RX, rx);
    b->nodes[node].n_states = n_states;
    return node;
}

uint32_t eb_node_ref(struct ebnf *b, uint32_t rule) {
    uint32_t node = node_add(b, EB_REF, rule);
    b->nodes[node].next_ref = b->rules[rule].refs;
    b->rules[rule].refs = node;
    return node;
}

uint32_t eb_node_sym(struct ebnf *b, uint32_t sym) {
    return node_add(b, EB_SYM, sym);
}

uint32_t eb_node_rep(struct ebnf *b, uint32_t child, uint32_t min, uint32_t max) {
    uint32_t node = node_add(b, EB_REP, child);
    b->nodes[node].min = min;
    b->nodes[node].max = max;
    b->nodes[child].parent = node;
    return node;
}

void eb_list_add(struct ebnf *b, struct eb_list *l, uint32_t node) {
    if (l->n++)
        b->nodes[l->last].next = node;
    else
        l->first = node;
    l->last = node;
}

uint32_t eb_list_node(struct ebnf *b, enum eb_kind kind, const struct eb_list *l) {
    if (l->n == 0)
        return eb_node_rx(b, RX_EMPTY, 0);
    if (l->n == 1)
        return l->first;
    uint32_t node = node_add(b, kind, l->first);
    for (uint32_t c = l->first; c != EB_NIL; c = b->nodes[c].next)
        b->nodes[c].parent = node;
    return node;
}

uint32_t eb_node_string(struct ebnf *b, struct str s, bool icase) {
    uint32_t n = (uint32_t)utf8_count(s.p, s.n);
    if (!icase)
        return eb_node_rx(b, s.n ? rx_bytes(b->g, s) : RX_EMPTY, n);
    uint32_t rx = RX_EMPTY;
    for (size_t end = s.n; end > 0;) { /* from the end: a step a character */
        size_t at = end - 1, len;
        while (((uint8_t)s.p[at] & 0xC0) == 0x80)
            at--;
        struct rx_set set = {0};
        uint32_t cp = (uint32_t)utf8_decode(s.p + at, end - at, &len);
        rx_set_add(&set, cp, cp);
        rx_set_fold(&set);
        rx = rx_cat(b->g, rx_set_expr(b->g, &set), rx);
        rx_set_fini(&set);
        end = at;
    }
    return eb_node_rx(b, rx, n);
}

/* ---- pieces of text ------------------------------------------------------------------------------ */

static struct rx_parser rx_parser_here(struct ebnf *b) {
    return (struct rx_parser){
        .g = b->g, .limits = gram_limits_of(b->g), .s = b->text, .at = b->at, .what = "grammar", .e = b->e};
}

enum rc eb_take_string(struct ebnf *b, char quote, struct buf *out) {
    size_t start = b->at++;
    while (eb_more(b) && eb_peek(b, 0) != quote) {
        if (eb_peek(b, 0) == '\n')
            break;
        if (eb_peek(b, 0) != '\\') {
            buf_addc(out, b->text.p[b->at++]);
            continue;
        }
        struct rx_parser p = rx_parser_here(b);
        struct rx_set set = {0};
        bool one;
        uint32_t cp = 0;
        size_t at = b->at;
        enum rc rc = rx_take_escape(&p, true, &set, &one, &cp);
        rx_set_fini(&set);
        if (rc)
            return rc;
        if (!one)
            return eb_bad(b, at, "a class such as \\d inside a string");
        b->at = p.at;
        char utf8[4];
        buf_add(out, utf8, utf8_encode(cp, utf8));
    }
    if (eb_peek(b, 0) != quote)
        return eb_bad(b, start, "a string without closing %c", quote);
    b->at++;
    return RC_OK;
}

enum rc eb_take_class(struct ebnf *b, uint32_t *node) {
    struct rx_parser p = rx_parser_here(b);
    struct rx_set set = {0};
    enum rc rc = rx_take_class(&p, &set);
    if (rc == RC_OK) {
        b->at = p.at;
        *node = eb_node_rx(b, rx_set_expr(b->g, &set), 1);
    }
    rx_set_fini(&set);
    return rc;
}

enum rc eb_take_number(struct ebnf *b, uint32_t *out) {
    size_t start = b->at;
    uint32_t v = 0;
    for (; eb_peek(b, 0) >= '0' && eb_peek(b, 0) <= '9'; b->at++)
        v = MIN(v * 10 + (uint32_t)(eb_peek(b, 0) - '0'), EB_REPEAT_MAX + 1);
    if (b->at == start)
        return eb_bad(b, start, "a number is missing");
    *out = v;
    return RC_OK;
}

enum rc eb_check_repeat(struct ebnf *b, size_t at, uint32_t min, uint32_t max) {
    if (min > EB_REPEAT_MAX || (max != RX_INF && max > EB_REPEAT_MAX))
        return eb_bad(b, at, "a repeat bound above the limit of %d", EB_REPEAT_MAX);
    if (max < min)
        return eb_bad(b, at, "a repeat of at least %u and at most %u times", min, max);
    return RC_OK;
}

static void skip_blanks(struct ebnf *b) {
    while (eb_peek(b, 0) == ' ' || eb_peek(b, 0) == '\t')
        b->at++;
}

enum rc eb_take_braces(struct ebnf *b, uint32_t *min, uint32_t *max) {
    size_t start = b->at++;
    enum rc rc;
    *min = 0;
    skip_blanks(b);
    bool has_min = eb_peek(b, 0) != ',';
    if (has_min && (rc = eb_take_number(b, min)))
        return rc;
    *max = *min;
    skip_blanks(b);
    if (eb_peek(b, 0) == ',') {
        b->at++;
        skip_blanks(b);
        *max = RX_INF;
        if ((!has_min || eb_peek(b, 0) != '}') && (rc = eb_take_number(b, max)))
            return rc;
        skip_blanks(b);
    }
    if (eb_peek(b, 0) != '}')
        return eb_bad(b, start, "a repeat without closing '}'");
    b->at++;
    return eb_check_repeat(b, start, *min, *max);
}

/* ---- the whole ----------------------------------------------------------------------------------- */

/* is_gbnf: whether some line begins with NAME ::=, so that "::=" in a string of a Lark grammar is none. */
static bool is_gbnf(struct str s) {
    for (size_t at = 0; at < s.n;) {
        const char *nl = memchr(s.p + at, '\n', s.n - at);
        size_t end = nl ? (size_t)(nl - s.p) : s.n;
        while (at < end && strchr(" \t\r", s.p[at]) && s.p[at])
            at++;
        size_t name = at;
        while (at < end && !strchr(" \t\r:\"'/#", s.p[at]))
            at++;
        bool named = at > name;
        while (at < end && strchr(" \t\r", s.p[at]) && s.p[at])
            at++;
        if (named && end - at >= 3 && memcmp(s.p + at, "::=", 3) == 0)
            return true;
        at = end + 1;
    }
    return false;
}

enum rc gram_add_ebnf(struct gram *g, struct str text, uint32_t *sym, struct err *e) {
    const struct gram_limits *limits = gram_limits_of(g);
    if (text.n > limits->text_bytes)
        return err_set(e, RC_INVALID, NULL, "the grammar is longer than %u bytes (--max-schema-bytes)",
                       limits->text_bytes);
    if (!utf8_valid(text.p, text.n))
        return err_set(e, RC_INVALID, NULL, "the grammar is no valid UTF-8");
    struct ebnf b = {.g = g, .text = text, .ignore = EB_NIL, .e = e};
    bool gbnf = is_gbnf(text);
    enum rc rc = gbnf ? eb_parse_gbnf(&b) : eb_parse_lark(&b);
    if (rc == RC_OK)
        rc = eb_build(&b, gbnf ? STR_LIT("root") : STR_LIT("start"), sym);
    free(b.nodes);
    free(b.rules);
    free(b.slots);
    return rc;
}
