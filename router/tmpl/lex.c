/* lex.c: template text to tokens, with the whitespace rules of trim_blocks and lstrip_blocks. */
#include <errno.h>
#include <stdlib.h>

#include "common/utf8.h"
#include "router/tmpl/ast.h"
#include "router/tmpl/ucd.h"

struct lexer {
    struct tm_compile *c;
    struct str src;
    size_t at;
    uint32_t line;
    size_t cap;
    bool line_starting; /* the text before `at` is empty or ends with a newline */
    char *braces;       /* closing brackets that are due */
    size_t n_braces, cap_braces;
};

static struct tm_token *add(struct lexer *x, enum tm_tok kind, struct str s) {
    struct tm_compile *c = x->c;
    if (c->n_tokens == x->cap) {
        x->cap = MAX(x->cap * 2, (size_t)64);
        struct tm_token *grown = arena_alloc(c->scratch, x->cap * sizeof *grown);
        if (c->n_tokens)
            memcpy(grown, c->tokens, c->n_tokens * sizeof *grown);
        c->tokens = grown;
    }
    struct tm_token *t = &c->tokens[c->n_tokens++];
    *t = (struct tm_token){.kind = kind, .line = x->line, .s = s};
    return t;
}

static void count_lines(struct lexer *x, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        x->line += x->src.p[i] == '\n';
}

/* Moves to `to`, past text that belongs to a tag. */
static void move(struct lexer *x, size_t to) {
    count_lines(x, x->at, to);
    if (to > x->at)
        x->line_starting = x->src.p[to - 1] == '\n';
    x->at = to;
}

static bool has(const struct lexer *x, size_t at, const char *z) {
    size_t n = strlen(z);
    return x->src.n - at >= n && memcmp(x->src.p + at, z, n) == 0;
}

static size_t skip_space(const struct lexer *x, size_t at) {
    while (at < x->src.n) {
        unsigned len;
        uint32_t cp = tm_utf8_get(x->src.p + at, x->src.p + x->src.n, &len);
        if (!tm_is_space(cp))
            break;
        at += len;
    }
    return at;
}

static size_t rstrip(const struct lexer *x, size_t begin, size_t end) {
    while (end > begin) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)x->src.p[at] & 0xc0) == 0x80)
            at--;
        unsigned len;
        if (!tm_is_space(tm_utf8_get(x->src.p + at, x->src.p + end, &len)))
            break;
        end = at;
    }
    return end;
}

/* Where the text before a tag ends: sign is the tag's '-', '+' or 0. */
static size_t strip_before(const struct lexer *x, size_t begin, size_t end, char sign, bool is_var) {
    if (sign == '-')
        return rstrip(x, begin, end);
    if (sign == '+' || is_var)
        return end;
    size_t nl = end;
    while (nl > begin && x->src.p[nl - 1] != '\n')
        nl--;
    if ((nl > begin || x->line_starting) && skip_space(x, nl) >= end)
        return nl;
    return end;
}

/* `{%- raw -%}` at `at`: where its body begins, or 0. */
static size_t raw_begin(const struct lexer *x, size_t at) {
    at += 2;
    if (has(x, at, "-") || has(x, at, "+"))
        at++;
    at = skip_space(x, at);
    if (!has(x, at, "raw"))
        return 0;
    at = skip_space(x, at + 3);
    if (has(x, at, "-%}"))
        return skip_space(x, at + 3);
    return has(x, at, "%}") ? at + 2 : 0;
}

/* The end of a tag whose closing delimiter z may stand at `at`, preceded by '-' or '+': 0 if not. */
static size_t tag_end(const struct lexer *x, size_t at, const char *z, bool trim, bool plus) {
    size_t n = strlen(z);
    if (has(x, at, "-") && has(x, at + 1, z))
        return skip_space(x, at + 1 + n);
    if (plus && has(x, at, "+") && has(x, at + 1, z))
        return at + 1 + n;
    if (!has(x, at, z))
        return 0;
    at += n;
    return trim && at < x->src.n && x->src.p[at] == '\n' ? at + 1 : at;
}

static void add_data(struct lexer *x, size_t begin, size_t end) {
    if (end > begin)
        add(x, TOK_DATA, (struct str){x->src.p + begin, end - begin});
}

static char sign_at(const struct lexer *x, size_t at) {
    return at < x->src.n && (x->src.p[at] == '-' || x->src.p[at] == '+') ? x->src.p[at] : 0;
}

static void lex_raw(struct lexer *x, size_t body) {
    move(x, body);
    if (body == x->src.n) /* Jinja lets an empty rest pass, here and in comments */
        return;
    for (size_t at = body;; at++) {
        const char *p = at < x->src.n ? memchr(x->src.p + at, '{', x->src.n - at) : NULL;
        if (!p)
            tm_compile_fail(x->c, x->line, "Missing end of raw directive");
        at = (size_t)(p - x->src.p);
        if (!has(x, at, "{%"))
            continue;
        char sign = sign_at(x, at + 2);
        size_t word = skip_space(x, at + 2 + (sign != 0));
        if (!has(x, word, "endraw"))
            continue;
        size_t end = tag_end(x, skip_space(x, word + 6), "%}", true, true);
        if (!end)
            continue;
        add_data(x, body, strip_before(x, body, at, sign, false));
        move(x, end);
        return;
    }
}

static void lex_comment(struct lexer *x) {
    if (x->at == x->src.n)
        return;
    for (size_t at = x->at; at < x->src.n; at++) {
        size_t end = tag_end(x, at, "#}", true, true);
        if (end) {
            move(x, end);
            return;
        }
    }
    tm_compile_fail(x->c, x->line, "Missing end of comment tag");
}

/* ---- inside tags ---- */

static bool is_digit(char ch, int base) {
    int v = ch >= '0' && ch <= '9'                 ? ch - '0'
            : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10
                                                   : 99;
    return v < base;
}

/* Digits with single underscores between them: the end. */
static size_t digits(const struct lexer *x, size_t at, int base) {
    while (at < x->src.n && (is_digit(x->src.p[at], base) ||
                             (x->src.p[at] == '_' && at + 1 < x->src.n && is_digit(x->src.p[at + 1], base))))
        at++;
    return at;
}

static size_t float_end(const struct lexer *x) {
    const char *p = x->src.p;
    if (x->at > 0 && p[x->at - 1] == '.')
        return 0;
    size_t at = digits(x, x->at, 10), end = 0;
    if (at + 1 < x->src.n && p[at] == '.' && is_digit(p[at + 1], 10))
        end = at = digits(x, at + 1, 10);
    if (at < x->src.n && (p[at] | 32) == 'e') {
        size_t exp = at + 1 + (sign_at(x, at + 1) != 0);
        if (exp < x->src.n && is_digit(p[exp], 10))
            end = digits(x, exp, 10);
    }
    return end;
}

static size_t int_end(const struct lexer *x, int *base) {
    const char *p = x->src.p + x->at;
    size_t left = x->src.n - x->at;
    *base = 10;
    if (*p != '0')
        return digits(x, x->at, 10);
    char b = left > 1 ? (char)(p[1] | 32) : 0;
    int want = b == 'x' ? 16 : b == 'o' ? 8 : b == 'b' ? 2 : 0;
    size_t skip = left > 2 && p[2] == '_' ? 3 : 2;
    if (want && left > skip && is_digit(p[skip], want)) {
        *base = want;
        return digits(x, x->at + skip, want);
    }
    size_t at = x->at + 1; /* 0, 00 or 0_0; other digits behind it are another token */
    while (at < x->src.n && (x->src.p[at] == '0' || (has(x, at, "_0"))))
        at += x->src.p[at] == '_' ? 2 : 1;
    return at;
}

/* The digits between begin and end without underscores and without a base prefix. */
static char *plain_digits(struct lexer *x, size_t begin, size_t end) {
    char *z = arena_alloc(x->c->scratch, end - begin + 1);
    size_t n = 0;
    for (size_t i = begin; i < end; i++)
        if (x->src.p[i] != '_')
            z[n++] = x->src.p[i];
    z[n] = 0;
    return z;
}

static void lex_number(struct lexer *x) {
    size_t end = float_end(x);
    if (end) {
        struct tm_token *t = add(x, TOK_FLOAT, (struct str){x->src.p + x->at, end - x->at});
        t->f = strtod(plain_digits(x, x->at, end), NULL);
        move(x, end);
        return;
    }
    int base;
    end = int_end(x, &base);
    struct tm_token *t = add(x, TOK_INT, (struct str){x->src.p + x->at, end - x->at});
    char *z = plain_digits(x, x->at, end);
    errno = 0;
    t->i = strtoll(base == 10 ? z : z + 2, NULL, base);
    if (errno)
        tm_compile_fail(x->c, x->line, "integer literal does not fit in 64 bits");
    move(x, end);
}

static bool hex_value(const char *p, const char *end, unsigned n, uint32_t *out) {
    if ((size_t)(end - p) < n)
        return false;
    *out = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!is_digit(p[i], 16))
            return false;
        *out = *out * 16 + (uint32_t)(p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    }
    return true;
}

/* One escape sequence behind a backslash at p: writes its bytes; returns where it ends. */
static const char *unescape(struct lexer *x, const char *p, const char *end, char **out) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *at = *p ? strchr(from, *p) : NULL;
    if (at) {
        *(*out)++ = to[at - from];
        return p + 1;
    }
    if (*p == '\n')
        return p + 1;
    uint32_t cp = 0;
    if (*p >= '0' && *p <= '7') {
        const char *stop = MIN(p + 3, end);
        for (; p < stop && *p >= '0' && *p <= '7'; p++)
            cp = cp * 8 + (uint32_t)(*p - '0');
    } else if (*p == 'x' || *p == 'u' || *p == 'U') {
        unsigned n = *p == 'x' ? 2 : *p == 'u' ? 4 : 8;
        if (!hex_value(p + 1, end, n, &cp) || cp > 0x10ffff)
            tm_compile_fail(x->c, x->line, "truncated or invalid \\%c escape in a string", *p);
        if (cp >= 0xd800 && cp < 0xe000)
            tm_compile_fail(x->c, x->line, "a string escape names half of a surrogate pair");
        p += 1 + n;
    } else if (*p == 'N') {
        tm_compile_fail(x->c, x->line, "\\N escapes are not supported");
    } else {
        *(*out)++ = '\\'; /* an unknown escape stands for itself */
        return p;
    }
    *out += utf8_encode(cp, *out);
    return p;
}

static void lex_string(struct lexer *x) {
    char quote = x->src.p[x->at];
    const char *p = x->src.p + x->at + 1, *end = x->src.p + x->src.n, *begin = p;
    while (p < end && *p != quote)
        p += *p == '\\' && p + 1 < end ? 2 : 1;
    if (p >= end)
        tm_compile_fail(x->c, x->line, "unexpected char %s: a string without an end",
                        quote == '"' ? "'\"'" : "\"'\"");
    struct str s = {begin, (size_t)(p - begin)};
    if (s.n && memchr(s.p, '\\', s.n)) {
        char *text = arena_alloc(x->c->a, s.n), *out = text;
        for (const char *q = begin; q < p;) {
            if (*q == '\\')
                q = unescape(x, q + 1, p, &out);
            else
                *out++ = *q++;
        }
        s = (struct str){text, (size_t)(out - text)};
    }
    add(x, TOK_STRING, s);
    move(x, (size_t)(p + 1 - x->src.p));
}

static void lex_name(struct lexer *x) {
    size_t at = x->at;
    uint32_t want = UCD_ID_START;
    while (at < x->src.n) {
        unsigned len;
        uint32_t cp = tm_utf8_get(x->src.p + at, x->src.p + x->src.n, &len);
        if (!(tm_ucd(cp)->flags & want))
            break;
        want = UCD_ID_CONTINUE;
        at += len;
    }
    if (at == x->at)
        tm_compile_fail(x->c, x->line, "unexpected char in a tag, byte %u",
                        (unsigned)(unsigned char)x->src.p[at]);
    add(x, TOK_NAME, (struct str){x->src.p + x->at, at - x->at});
    move(x, at);
}

static const struct {
    const char *z;
    enum tm_tok kind;
} operators[] = {{"//", TOK_FLOORDIV}, {"**", TOK_POW},     {"==", TOK_EQ},    {"!=", TOK_NE},
                 {">=", TOK_GE},       {"<=", TOK_LE},      {"+", TOK_ADD},    {"-", TOK_SUB},
                 {"/", TOK_DIV},       {"*", TOK_MUL},      {"%", TOK_MOD},    {"~", TOK_TILDE},
                 {"[", TOK_LBRACKET},  {"]", TOK_RBRACKET}, {"(", TOK_LPAREN}, {")", TOK_RPAREN},
                 {"{", TOK_LBRACE},    {"}", TOK_RBRACE},   {">", TOK_GT},     {"<", TOK_LT},
                 {"=", TOK_ASSIGN},    {".", TOK_DOT},      {":", TOK_COLON},  {"|", TOK_PIPE},
                 {",", TOK_COMMA},     {";", TOK_SEMICOLON}};

static void balance(struct lexer *x, char ch) {
    const char *open = "([{", *close = ")]}", *at = strchr(open, ch);
    if (at) {
        if (x->n_braces == x->cap_braces) {
            x->cap_braces = MAX(x->cap_braces * 2, (size_t)32);
            char *grown = arena_alloc(x->c->scratch, x->cap_braces);
            if (x->n_braces)
                memcpy(grown, x->braces, x->n_braces);
            x->braces = grown;
        }
        x->braces[x->n_braces++] = close[at - open];
    } else if (strchr(close, ch)) {
        if (x->n_braces == 0)
            tm_compile_fail(x->c, x->line, "unexpected '%c'", ch);
        if (x->braces[--x->n_braces] != ch)
            tm_compile_fail(x->c, x->line, "unexpected '%c', expected '%c'", ch, x->braces[x->n_braces]);
    }
}

static void lex_operator(struct lexer *x) {
    for (size_t i = 0; i < ARRAY_LEN(operators); i++) {
        if (!has(x, x->at, operators[i].z))
            continue;
        size_t n = strlen(operators[i].z);
        if (n == 1)
            balance(x, operators[i].z[0]);
        add(x, operators[i].kind, (struct str){x->src.p + x->at, n});
        move(x, x->at + n);
        return;
    }
    lex_name(x);
}

/* The inside of a tag up to its end. The end is only seen where brackets balance. */
static void lex_tag(struct lexer *x, const char *close, bool is_block) {
    x->n_braces = 0;
    while (x->at < x->src.n) {
        char ch = x->src.p[x->at];
        size_t end = x->n_braces == 0 ? tag_end(x, x->at, close, is_block, is_block) : 0;
        if (end) {
            add(x, is_block ? TOK_BLOCK_END : TOK_VAR_END, (struct str){x->src.p + x->at, 2});
            move(x, end);
            return;
        }
        size_t spaces = skip_space(x, x->at);
        if (spaces > x->at)
            move(x, spaces);
        else if (ch >= '0' && ch <= '9')
            lex_number(x);
        else if (ch == '"' || ch == '\'')
            lex_string(x);
        else
            lex_operator(x);
    }
}

void tm_lex(struct tm_compile *c, struct str text) {
    struct lexer x = {.c = c, .src = text, .line = 1, .line_starting = true};
    size_t begin = 0;
    while (begin < text.n) {
        const char *p = x.at < text.n ? memchr(text.p + x.at, '{', text.n - x.at) : NULL;
        size_t at = p ? (size_t)(p - text.p) : text.n;
        bool is_tag = at + 1 < text.n && (p[1] == '%' || p[1] == '{' || p[1] == '#');
        if (p && !is_tag) {
            count_lines(&x, x.at, at + 1);
            x.at = at + 1;
            continue;
        }
        char sign = p ? sign_at(&x, at + 2) : 0;
        add_data(&x, begin, p ? strip_before(&x, begin, at, sign, p[1] == '{') : at);
        move(&x, at);
        if (!p)
            break;
        size_t raw = p[1] == '%' ? raw_begin(&x, at) : 0;
        if (raw) {
            lex_raw(&x, raw);
        } else {
            size_t inside = at + 2 + (sign != 0);
            if (p[1] == '#') {
                move(&x, inside);
                lex_comment(&x);
            } else {
                add(&x, p[1] == '%' ? TOK_BLOCK_BEGIN : TOK_VAR_BEGIN, (struct str){p, 2});
                move(&x, inside);
                lex_tag(&x, p[1] == '%' ? "%}" : "}}", p[1] == '%');
            }
        }
        begin = x.at;
    }
    add(&x, TOK_EOF, (struct str){0});
}
