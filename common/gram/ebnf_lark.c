/* ebnf_lark.c: Lark grammars, start rule "start".
 *
 * What has no meaning for the set of texts is read and dropped: priorities, the prefixes ? and !, aliases.
 * The longest match of Lark's lexer is none of ours: every way to cut the text into terminals counts. Line
 * breaks mean nothing, for a rule ends where the next begins: NAME ":" or "%".
 */
#include "common/gram/ebnf.h"

#include "common/json.h"
#include "common/utf8.h"

#define DECIMAL "(?:[0-9]+\\.[0-9]*|\\.[0-9]+)"
#define FLOAT "(?:[0-9]+[eE][+-]?[0-9]+|" DECIMAL "(?:[eE][+-]?[0-9]+)?)"
#define NUMBER "(?:" FLOAT "|[0-9]+)"

/* The terminals of "%import common": what their names mean, as patterns. */
static const struct {
    const char *name, *pattern;
} common_terminals[] = {
    {"DIGIT", "[0-9]"},
    {"HEXDIGIT", "[0-9A-Fa-f]"},
    {"INT", "[0-9]+"},
    {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", DECIMAL},
    {"FLOAT", FLOAT},
    {"SIGNED_FLOAT", "[+-]?" FLOAT},
    {"NUMBER", NUMBER},
    {"SIGNED_NUMBER", "[+-]?" NUMBER},
    {"ESCAPED_STRING", "\"(?:[^\"\\\\\\n]|\\\\[^\\n])*\""},
    {"LCASE_LETTER", "[a-z]"},
    {"UCASE_LETTER", "[A-Z]"},
    {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"},
    {"CNAME", "[A-Za-z_][A-Za-z_0-9]*"},
    {"WS_INLINE", "[ \\t]+"},
    {"WS", "[ \\t\\f\\r\\n]+"},
    {"CR", "\\r"},
    {"LF", "\\n"},
    {"NEWLINE", "(?:\\r?\\n)+"},
    {"SH_COMMENT", "#[^\\n]*"},
    {"CPP_COMMENT", "//[^\\n]*"},
    {"C_COMMENT", "/\\*(?:[^*]|\\*+[^*/])*\\*+/"},
    {"SQL_COMMENT", "--[^\\n]*"},
};

static void skip_line(struct ebnf *b) {
    while (eb_more(b) && eb_peek(b, 0) != '\n')
        b->at++;
}

static void skip_blanks(struct ebnf *b) {
    while (eb_peek(b, 0) == ' ' || eb_peek(b, 0) == '\t')
        b->at++;
}

static void skip_space(struct ebnf *b) {
    for (;;) {
        char c = eb_peek(b, 0);
        if (eb_more(b) && (c == ' ' || c == '\t' || c == '\r' || c == '\n'))
            b->at++;
        else if (c == '#' || (c == '/' && eb_peek(b, 1) == '/'))
            skip_line(b);
        else
            return;
    }
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* name_at: the name at byte `at`; empty if there is none. */
static struct str name_at(const struct ebnf *b, size_t at) {
    size_t end = at;
    if (end < b->text.n && is_letter(b->text.p[end]))
        while (end < b->text.n &&
               (is_letter(b->text.p[end]) || (b->text.p[end] >= '0' && b->text.p[end] <= '9')))
            end++;
    return (struct str){b->text.p + at, end - at};
}

static bool is_terminal_name(struct str name) {
    size_t i = 0;
    while (i < name.n && name.p[i] == '_')
        i++;
    return i < name.n && name.p[i] >= 'A' && name.p[i] <= 'Z';
}

/* peek_definition: the name that is defined here, with the length of all up to its ':'; empty if none is. */
static struct str peek_definition(const struct ebnf *b, size_t *len) {
    size_t at = b->at;
    while (at < b->text.n && (b->text.p[at] == '?' || b->text.p[at] == '!'))
        at++;
    struct str name = name_at(b, at), none = {NULL, 0};
    if (!name.n)
        return none;
    at += name.n;
    if (at < b->text.n && b->text.p[at] == '.') { /* a priority */
        at++;
        if (at < b->text.n && b->text.p[at] == '-')
            at++;
        size_t digits = at;
        while (at < b->text.n && b->text.p[at] >= '0' && b->text.p[at] <= '9')
            at++;
        if (at == digits)
            return none;
    }
    while (at < b->text.n && (b->text.p[at] == ' ' || b->text.p[at] == '\t'))
        at++;
    if (at >= b->text.n || b->text.p[at] != ':')
        return none;
    *len = at + 1 - b->at;
    return name;
}

static bool at_statement(const struct ebnf *b) {
    size_t len;
    return !eb_more(b) || peek_definition(b, &len).n > 0;
}

/* ---- atoms --------------------------------------------------------------------------------------- */

static enum rc take_alternatives(struct ebnf *b, uint32_t *node);

static enum rc take_group(struct ebnf *b, uint32_t *node) {
    size_t start = b->at++;
    bool optional = b->text.p[start] == '[';
    if (b->depth == EB_DEPTH_MAX)
        return eb_bad(b, start, "groups nest more than %d deep", EB_DEPTH_MAX);
    b->depth++;
    enum rc rc = take_alternatives(b, node);
    b->depth--;
    if (rc)
        return rc;
    if (eb_peek(b, 0) != (optional ? ']' : ')'))
        return eb_bad(b, start, "a group without closing '%c'", optional ? ']' : ')');
    b->at++;
    if (optional)
        *node = eb_node_rep(b, *node, 0, 1);
    return RC_OK;
}

/* one_char: the only character of s. */
static bool one_char(struct str s, uint32_t *cp) {
    size_t len;
    int32_t c = s.n ? utf8_decode(s.p, s.n, &len) : -1;
    if (c < 0 || len != s.n)
        return false;
    *cp = (uint32_t)c;
    return true;
}

/* take_range: behind the first string, at "..". */
static enum rc take_range(struct ebnf *b, struct str first, uint32_t *node) {
    size_t start = b->at;
    struct buf last = {0};
    struct rx_set set = {0};
    uint32_t lo = 0, hi = 0;
    b->at += 2;
    skip_blanks(b);
    enum rc rc = RC_OK;
    if (eb_peek(b, 0) != '"')
        rc = eb_bad(b, start, "a range needs a string at both ends");
    else
        rc = eb_take_string(b, '"', &last);
    if (rc == RC_OK && (!one_char(first, &lo) || !one_char(buf_str(&last), &hi) || hi < lo))
        rc = eb_bad(b, start, "a range needs one character at each end, in order");
    if (rc == RC_OK) {
        rx_set_add(&set, lo, hi);
        *node = eb_node_rx(b, rx_set_expr(b->g, &set), 1);
    }
    rx_set_fini(&set);
    buf_fini(&last);
    return rc;
}

static enum rc take_literal(struct ebnf *b, uint32_t *node) {
    struct buf text = {0};
    enum rc rc = eb_take_string(b, '"', &text);
    if (rc == RC_OK) {
        bool icase = eb_peek(b, 0) == 'i' && !is_letter(eb_peek(b, 1));
        b->at += icase;
        if (eb_peek(b, 0) == '.' && eb_peek(b, 1) == '.')
            rc = take_range(b, buf_str(&text), node);
        else
            *node = eb_node_string(b, buf_str(&text), icase);
    }
    buf_fini(&text);
    return rc;
}

/* add_pattern: a node of a pattern; what is wrong in it is told with the grammar's line. */
static enum rc add_pattern(struct ebnf *b, size_t start, struct str pattern, const struct rx_syntax *how,
                           uint32_t *node) {
    struct err inner = {0};
    uint32_t rx;
    if (rx_parse_as(b->g, pattern, how, &rx, &inner))
        return eb_bad(b, start, "%s", inner.msg);
    *node = eb_node_rx(b, rx, (uint32_t)MIN(pattern.n, UINT32_MAX));
    for (size_t i = 0; i < pattern.n; i++)
        b->nodes[*node].nesting += 3 * (pattern.p[i] == '('); /* repeat, alternative, sequence */
    return RC_OK;
}

static enum rc take_pattern(struct ebnf *b, uint32_t *node) {
    size_t start = b->at++;
    while (eb_more(b) && eb_peek(b, 0) != '/' && eb_peek(b, 0) != '\n')
        b->at += eb_peek(b, 0) == '\\' && b->at + 1 < b->text.n ? 2 : 1;
    if (eb_peek(b, 0) != '/')
        return eb_bad(b, start, "a pattern without closing '/'");
    struct str pattern = {b->text.p + start + 1, b->at - start - 1};
    struct rx_syntax how = {.no_anchors = true};
    for (b->at++; is_letter(eb_peek(b, 0)); b->at++) {
        char c = eb_peek(b, 0);
        if (c == 'i')
            how.icase = true;
        else if (c == 's')
            how.dotall = true;
        else if (c != 'm' && c != 'u') /* m is about anchors, of which there are none; u is always on */
            return eb_bad(b, b->at, "pattern flag %c is not supported", c);
    }
    return add_pattern(b, start, pattern, &how, node);
}

/* take_json: %json with a schema behind it. */
static enum rc take_json(struct ebnf *b, uint32_t *node) {
    size_t start = b->at, depth = 0, at;
    bool string = false;
    b->at += 5;
    skip_space(b);
    for (at = b->at; at < b->text.n; at++) {
        char c = b->text.p[at];
        if (string && c == '\\')
            at++;
        else if (c == '"')
            string = !string;
        else if (!string && (c == '{' || c == '['))
            depth++;
        else if (!string && (c == '}' || c == ']') && (depth == 0 || --depth == 0))
            break;
    }
    if (eb_peek(b, 0) != '{' || at >= b->text.n)
        return eb_bad(b, start, "%%json needs a schema, an object, behind it");
    json_t *schema;
    struct err inner = {0};
    uint32_t sym;
    struct str text = {b->text.p + b->at, at + 1 - b->at};
    if (json_parse(text, &json_limits_default, &schema, &inner))
        return eb_bad(b, start, "%%json: %s", inner.msg);
    enum rc rc = gram_add_json_schema(b->g, schema, b->options, &sym, &inner);
    json_decref(schema);
    if (rc)
        return eb_bad(b, start, "%%json: %s%s%s", inner.param, *inner.param ? ": " : "", inner.msg);
    b->at = at + 1;
    *node = eb_node_sym(b, sym);
    return RC_OK;
}

static enum rc take_atom(struct ebnf *b, uint32_t *node) {
    char c = eb_peek(b, 0);
    if (c == '"')
        return take_literal(b, node);
    if (c == '/')
        return take_pattern(b, node);
    if (c == '(' || c == '[')
        return take_group(b, node);
    struct str name = name_at(b, b->at);
    if (name.n) {
        uint32_t rule = eb_rule_of(b, name, b->at);
        b->at += name.n;
        *node = eb_node_ref(b, rule);
        return RC_OK;
    }
    if (c == '%' && str_starts((struct str){b->text.p + b->at, b->text.n - b->at}, STR_LIT("%json")))
        return take_json(b, node);
    if (c == '<')
        return eb_bad(b, b->at, "tokens in angle brackets are not supported; write their text as a string");
    if (c == '\'')
        return eb_bad(b, b->at, "strings are written with double quotes");
    if (c == '*' || c == '+' || c == '?' || c == '~' || c == '{')
        return eb_bad(b, b->at, "nothing to repeat before '%c'", c);
    return eb_bad(b, b->at, (uint8_t)c < 0x80 && c > ' ' ? "unexpected '%c'" : "unexpected character", c);
}

/* ---- expressions --------------------------------------------------------------------------------- */

/* take_tilde: ~ n or ~ n..m */
static enum rc take_tilde(struct ebnf *b, uint32_t *min, uint32_t *max) {
    size_t start = b->at++;
    skip_blanks(b);
    enum rc rc = eb_take_number(b, min);
    if (rc)
        return rc;
    *max = *min;
    if (eb_peek(b, 0) == '.' && eb_peek(b, 1) == '.') {
        b->at += 2;
        skip_blanks(b);
        if ((rc = eb_take_number(b, max)))
            return rc;
    }
    return eb_check_repeat(b, start, *min, *max);
}

static enum rc take_repeats(struct ebnf *b, uint32_t *node) {
    for (unsigned n = 0;; n++) {
        size_t before = b->at;
        skip_space(b);
        uint32_t min = 0, max = RX_INF;
        char c = eb_peek(b, 0);
        if ((c != '*' && c != '+' && c != '?' && c != '~' && c != '{') || at_statement(b))
            return RC_OK; /* a '?' may begin the next rule */
        if (n == 4)
            return eb_bad(b, b->at, "too many repeats of one element");
        enum rc rc = RC_OK;
        if (c == '{') {
            char next = eb_peek(b, 1);
            if (b->at == before && next != ',' && !(next >= '0' && next <= '9'))
                return eb_bad(b, b->at, "templates are not supported");
            rc = eb_take_braces(b, &min, &max);
        } else if (c == '~') {
            rc = take_tilde(b, &min, &max);
        } else {
            b->at++;
            min = c == '+';
            max = c == '?' ? 1 : RX_INF;
        }
        if (rc)
            return rc;
        *node = eb_node_rep(b, *node, min, max);
    }
}

static bool ends_sequence(const struct ebnf *b) {
    char c = eb_peek(b, 0);
    if (c == '%')
        return !str_starts((struct str){b->text.p + b->at, b->text.n - b->at}, STR_LIT("%json"));
    return c == '|' || c == ')' || c == ']' || (c == '-' && eb_peek(b, 1) == '>') || at_statement(b);
}

static enum rc take_sequence(struct ebnf *b, uint32_t *node) {
    struct eb_list list = {0};
    for (skip_space(b); !ends_sequence(b); skip_space(b)) {
        uint32_t one = EB_NIL;
        enum rc rc = take_atom(b, &one);
        if (rc == RC_OK)
            rc = take_repeats(b, &one);
        if (rc)
            return rc;
        eb_list_add(b, &list, one);
    }
    *node = eb_list_node(b, EB_SEQ, &list);
    if (eb_peek(b, 0) == '-') { /* an alias, the name of a tree node */
        size_t start = b->at;
        b->at += 2;
        skip_blanks(b);
        struct str name = name_at(b, b->at);
        if (!name.n)
            return eb_bad(b, start, "a name is missing behind ->");
        b->at += name.n;
        skip_space(b);
    }
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

/* ---- statements ---------------------------------------------------------------------------------- */

/* define_common: terminal `as` is the common one of that name. */
static enum rc define_common(struct ebnf *b, size_t at, struct str name, struct str as) {
    for (size_t i = 0; i < ARRAY_LEN(common_terminals); i++) {
        if (!str_eqz(name, common_terminals[i].name))
            continue;
        uint32_t rule = eb_rule_of(b, as, at), node;
        struct rx_syntax how = {.no_anchors = true};
        enum rc rc = eb_rule_begin(b, rule, at);
        b->rules[rule].terminal = true;
        if (rc == RC_OK)
            rc = add_pattern(b, at, str_of(common_terminals[i].pattern), &how, &node);
        if (rc == RC_OK)
            eb_rule_end(b, rule, node);
        return rc;
    }
    return eb_bad(b, at, "%%import: there is no common.%.*s", (int)MIN(name.n, 60), name.p);
}

/* take_import_list: (A, B), behind "common". */
static enum rc take_import_list(struct ebnf *b, size_t start) {
    b->at++;
    for (;;) {
        skip_space(b);
        struct str name = name_at(b, b->at);
        if (!name.n)
            return eb_bad(b, start, "%%import: a name is missing");
        enum rc rc = define_common(b, start, name, name);
        if (rc)
            return rc;
        b->at += name.n;
        skip_space(b);
        char c = eb_peek(b, 0);
        b->at++;
        if (c == ')')
            return RC_OK;
        if (c != ',')
            return eb_bad(b, start, "%%import: a list without closing ')'");
    }
}

static enum rc take_import(struct ebnf *b, size_t start) {
    skip_blanks(b);
    struct str module = name_at(b, b->at);
    if (!str_eqz(module, "common"))
        return eb_bad(b, start, "%%import: only the module common is supported");
    b->at += module.n;
    skip_blanks(b);
    if (eb_peek(b, 0) == '(')
        return take_import_list(b, start);
    struct str name = {NULL, 0};
    if (eb_peek(b, 0) == '.')
        name = name_at(b, b->at + 1);
    if (!name.n)
        return eb_bad(b, start, "%%import: common.NAME is expected");
    b->at += 1 + name.n;
    struct str as = name;
    skip_blanks(b);
    if (eb_peek(b, 0) == '-' && eb_peek(b, 1) == '>') {
        b->at += 2;
        skip_blanks(b);
        as = name_at(b, b->at);
        if (!as.n || !is_terminal_name(as))
            return eb_bad(b, start, "%%import: a name in capitals is missing behind ->");
        b->at += as.n;
    }
    return define_common(b, start, name, as);
}

/* take_ignore: what may stand between any two terminals; several are alternatives. */
static enum rc take_ignore(struct ebnf *b) {
    uint32_t node;
    enum rc rc = take_alternatives(b, &node);
    if (rc)
        return rc;
    struct eb_list both = {0};
    if (b->ignore != EB_NIL)
        eb_list_add(b, &both, b->ignore);
    eb_list_add(b, &both, node);
    b->ignore = eb_list_node(b, EB_ALT, &both);
    return RC_OK;
}

static enum rc take_directive(struct ebnf *b) {
    size_t start = b->at++;
    struct str name = name_at(b, b->at);
    b->at += name.n;
    if (str_eqz(name, "import"))
        return take_import(b, start);
    if (str_eqz(name, "ignore"))
        return take_ignore(b);
    return eb_bad(b, start, "%%%.*s is not supported", (int)MIN(name.n, 60), name.n ? name.p : "");
}

static enum rc take_rule(struct ebnf *b) {
    size_t len = 0, start = b->at;
    struct str name = peek_definition(b, &len);
    if (!name.n) {
        struct str word = name_at(b, b->at);
        if (word.n && b->at + word.n < b->text.n && b->text.p[b->at + word.n] == '{')
            return eb_bad(b, start, "templates are not supported");
        return eb_bad(b, start, "a rule \"name: ...\" or a %%directive is expected here");
    }
    uint32_t rule = eb_rule_of(b, name, start), body;
    enum rc rc = eb_rule_begin(b, rule, start);
    if (rc)
        return rc;
    b->rules[rule].terminal = is_terminal_name(name);
    b->at += len;
    if ((rc = take_alternatives(b, &body)))
        return rc;
    char c = eb_peek(b, 0);
    if (eb_more(b) && (c == ')' || c == ']'))
        return eb_bad(b, b->at, "a '%c' that closes nothing", c);
    eb_rule_end(b, rule, body);
    return RC_OK;
}

enum rc eb_parse_lark(struct ebnf *b) {
    for (skip_space(b); eb_more(b); skip_space(b)) {
        enum rc rc = eb_peek(b, 0) == '%' ? take_directive(b) : take_rule(b);
        if (rc)
            return rc;
    }
    return RC_OK;
}
