/* parse.c: statements. Each parse_* begins behind its tag's name. */
#include <stdarg.h>
#include <stdio.h>

#include "router/tmpl/ast.h"

void tm_compile_fail(struct tm_compile *c, uint32_t line, const char *fmt, ...) {
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    err_set(c->e, RC_INVALID, NULL, "%s (line %u)", msg, line);
    longjmp(c->fail, 1);
}

struct tm_node *tm_node_new(struct tm_compile *c, enum tm_nk kind, uint32_t line) {
    struct tm_node *n = arena_zalloc(c->a, 1, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

void tm_nodes_add(struct tm_compile *c, struct tm_nodes *list, struct tm_node *n) {
    if (list->n == list->cap) {
        list->cap = MAX(list->cap * 2, 4u);
        struct tm_node **grown = arena_alloc(c->a, list->cap * sizeof *grown);
        if (list->n)
            memcpy(grown, list->v, list->n * sizeof *grown);
        list->v = grown;
    }
    list->v[list->n++] = n;
}

void tm_nest_enter(struct tm_compile *c, uint32_t line) {
    if (++c->nest > 2 * c->limits->depth_max) /* a parenthesis takes two levels */
        tm_compile_fail(c, line, "template is nested deeper than %u (--max-template-depth)",
                        c->limits->depth_max);
}

const struct tm_token *tm_peek(const struct tm_compile *c) {
    return &c->tokens[c->at];
}

const struct tm_token *tm_next(struct tm_compile *c) {
    const struct tm_token *t = &c->tokens[c->at];
    if (t->kind != TOK_EOF)
        c->at++;
    return t;
}

static const char *tok_name(enum tm_tok k) {
    static const char *const names[] = {[TOK_EOF] = "end of template",
                                        [TOK_DATA] = "text",
                                        [TOK_VAR_BEGIN] = "{{",
                                        [TOK_VAR_END] = "}}",
                                        [TOK_BLOCK_BEGIN] = "{%",
                                        [TOK_BLOCK_END] = "%}",
                                        [TOK_NAME] = "a name",
                                        [TOK_STRING] = "a string",
                                        [TOK_INT] = "an integer",
                                        [TOK_FLOAT] = "a float",
                                        [TOK_LPAREN] = "(",
                                        [TOK_RPAREN] = ")",
                                        [TOK_LBRACKET] = "[",
                                        [TOK_RBRACKET] = "]",
                                        [TOK_RBRACE] = "}",
                                        [TOK_COMMA] = ",",
                                        [TOK_COLON] = ":",
                                        [TOK_ASSIGN] = "=",
                                        [TOK_PIPE] = "|"};
    return (size_t)k < ARRAY_LEN(names) && names[k] ? names[k] : "an operator";
}

void tm_unexpected(struct tm_compile *c, const struct tm_token *t, const char *wanted) {
    struct str s = t->s;
    if (s.n > 60)
        s.n = 60;
    const char *got = t->kind == TOK_DATA || s.n == 0 ? tok_name(t->kind) : "";
    if (*got)
        s.n = 0;
    if (wanted)
        tm_compile_fail(c, t->line, "expected %s, got '%s%.*s'", wanted, got, (int)s.n, s.p ? s.p : "");
    tm_compile_fail(c, t->line, "unexpected '%s%.*s'", got, (int)s.n, s.p ? s.p : "");
}

const struct tm_token *tm_expect(struct tm_compile *c, enum tm_tok kind) {
    const struct tm_token *t = tm_peek(c);
    if (t->kind != kind)
        tm_unexpected(c, t, tok_name(kind));
    return tm_next(c);
}

bool tm_at_name(const struct tm_compile *c, const char *name) {
    const struct tm_token *t = tm_peek(c);
    return t->kind == TOK_NAME && str_eqz(t->s, name);
}

bool tm_skip(struct tm_compile *c, enum tm_tok kind) {
    if (tm_peek(c)->kind != kind)
        return false;
    tm_next(c);
    return true;
}

bool tm_skip_name(struct tm_compile *c, const char *name) {
    if (!tm_at_name(c, name))
        return false;
    tm_next(c);
    return true;
}

/* ---- bodies ---- */

static struct tm_node *parse_statement(struct tm_compile *c);

/* Statements until a tag named by one of ends (NULL-terminated; NULL: the end of the template). The
 * name of that tag is the current token afterwards. */
static struct tm_nodes parse_until(struct tm_compile *c, const char *const *ends, const char *tag,
                                   uint32_t line) {
    struct tm_nodes body = {0};
    tm_nest_enter(c, line);
    for (;;) {
        const struct tm_token *t = tm_next(c);
        struct tm_node *n;
        switch (t->kind) {
        case TOK_EOF:
            if (ends)
                tm_compile_fail(c, t->line, "unexpected end of template: the '%s' of line %u needs '%s'", tag,
                                line, ends[0]);
            c->nest--;
            return body;
        case TOK_DATA:
            n = tm_node_new(c, N_DATA, t->line);
            n->data = t->s;
            break;
        case TOK_VAR_BEGIN:
            n = tm_node_new(c, N_PRINT, t->line);
            n->operand = tm_parse_tuple(c, 0, NULL);
            tm_expect(c, TOK_VAR_END);
            break;
        default: /* TOK_BLOCK_BEGIN: the lexer puts nothing else between tags */
            for (const char *const *e = ends; e && *e; e++) {
                if (tm_at_name(c, *e)) {
                    c->nest--;
                    return body;
                }
            }
            n = parse_statement(c);
            tm_expect(c, TOK_BLOCK_END);
        }
        if (n)
            tm_nodes_add(c, &body, n);
    }
}

/* The body behind a tag: an optional colon, the tag's end, statements. */
static struct tm_nodes parse_body(struct tm_compile *c, const char *const *ends, const char *tag,
                                  uint32_t line) {
    tm_skip(c, TOK_COLON);
    tm_expect(c, TOK_BLOCK_END);
    return parse_until(c, ends, tag, line);
}

static struct tm_nodes parse_whole(struct tm_compile *c, const char *end, const char *tag, uint32_t line) {
    const char *const ends[] = {end, NULL};
    struct tm_nodes body = parse_body(c, ends, tag, line);
    tm_next(c);
    return body;
}

static void set_ctx(struct tm_compile *c, struct tm_node *n, enum tm_ctx ctx) {
    if (n->kind == N_NAME || n->kind == N_NSREF) {
        n->name.ctx = ctx;
    } else if (n->kind == N_TUPLE) {
        for (uint32_t i = 0; i < n->items.n; i++)
            set_ctx(c, n->items.v[i], ctx);
    } else {
        tm_compile_fail(c, n->line, "can't assign to %s",
                        n->kind == N_CONST ? "a constant" : "an expression");
    }
}

static struct tm_node *parse_target(struct tm_compile *c, bool with_namespace, const char *end_name) {
    struct tm_node *n = tm_parse_tuple(c, TUPLE_TARGET | (with_namespace ? TUPLE_NAMESPACE : 0), end_name);
    set_ctx(c, n, CTX_STORE);
    return n;
}

static struct tm_node *parse_target_name(struct tm_compile *c) {
    const struct tm_token *t = tm_expect(c, TOK_NAME);
    struct tm_node *n = tm_node_new(c, N_NAME, t->line);
    n->name.name = t->s;
    n->name.ctx = CTX_STORE;
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < ARRAY_LEN(constants); i++)
        if (str_eqz(t->s, constants[i]))
            tm_compile_fail(c, t->line, "can't assign to '%s'", constants[i]);
    return n;
}

/* ---- statements ---- */

static struct tm_node *parse_for(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_FOR, line);
    n->loop.target = parse_target(c, false, "in");
    if (!tm_skip_name(c, "in"))
        tm_unexpected(c, tm_peek(c), "'in'");
    n->loop.iter = tm_parse_tuple(c, TUPLE_NO_COND, "recursive");
    if (tm_skip_name(c, "if"))
        n->loop.test = tm_parse_expr(c, true);
    n->loop.recursive = tm_skip_name(c, "recursive");
    static const char *const ends[] = {"endfor", "else", NULL};
    n->loop.body = parse_body(c, ends, "for", line);
    if (str_eqz(tm_next(c)->s, "else"))
        n->loop.other = parse_whole(c, "endfor", "for", line);
    return n;
}

static struct tm_node *parse_if(struct tm_compile *c, uint32_t line) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    struct tm_node *n = tm_node_new(c, N_IF, line);
    uint32_t cap = 0;
    for (bool more = true; more;) {
        if (n->cases.n_branches == cap) {
            cap = MAX(cap * 2, 2u);
            struct tm_branch *grown = arena_zalloc(c->a, cap, sizeof *grown);
            if (n->cases.n_branches)
                memcpy(grown, n->cases.branches, n->cases.n_branches * sizeof *grown);
            n->cases.branches = grown;
        }
        struct tm_branch *b = &n->cases.branches[n->cases.n_branches++];
        bool is_else = n->cases.n_branches > 1 && str_eqz(c->tokens[c->at - 1].s, "else");
        if (is_else) {
            b->body = parse_whole(c, "endif", "if", line);
            break;
        }
        b->test = tm_parse_tuple(c, TUPLE_NO_COND, NULL);
        b->body = parse_body(c, ends, "if", line);
        more = !str_eqz(tm_next(c)->s, "endif");
    }
    return n;
}

static struct tm_node *parse_set(struct tm_compile *c, uint32_t line) {
    struct tm_node *target = parse_target(c, true, NULL);
    struct tm_node *n = tm_node_new(c, N_SET, line);
    if (tm_skip(c, TOK_ASSIGN)) {
        n->set.target = target;
        n->set.value = tm_parse_tuple(c, 0, NULL);
        return n;
    }
    n->kind = N_SETBLOCK;
    n->block.target = target;
    n->block.filter = tm_parse_filters(c, NULL, false);
    n->block.body = parse_whole(c, "endset", "set", line);
    return n;
}

static struct tm_func *func_new(struct tm_compile *c) {
    struct tm_func *f = arena_zalloc(c->a, 1, sizeof *f);
    f->caller_slot = f->kwargs_slot = f->varargs_slot = -1;
    return f;
}

static void parse_signature(struct tm_compile *c, struct tm_func *f) {
    struct tm_nodes params = {0};
    tm_expect(c, TOK_LPAREN);
    while (tm_peek(c)->kind != TOK_RPAREN) {
        if (params.n)
            tm_expect(c, TOK_COMMA);
        struct tm_node *p = parse_target_name(c);
        p->name.ctx = CTX_PARAM;
        for (uint32_t i = 0; i < params.n; i++)
            if (str_eq(params.v[i]->name.name, p->name.name))
                tm_compile_fail(c, p->line, "duplicate parameter in a signature");
        if (tm_skip(c, TOK_ASSIGN))
            tm_nodes_add(c, &f->defaults, tm_parse_expr(c, true));
        else if (f->defaults.n)
            tm_compile_fail(c, p->line, "non-default argument follows default argument");
        tm_nodes_add(c, &params, p);
        if (params.n > 250)
            tm_compile_fail(c, p->line, "too many parameters");
    }
    tm_expect(c, TOK_RPAREN);
    f->params = params.v;
    f->n_params = params.n;
}

static struct tm_node *parse_macro(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_MACRO, line);
    struct tm_func *f = n->macro.func = func_new(c);
    f->name = parse_target_name(c)->name.name;
    parse_signature(c, f);
    f->body = parse_whole(c, "endmacro", "macro", line);
    return n;
}

static struct tm_node *parse_call_block(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_CALLBLOCK, line);
    n->macro.func = func_new(c);
    if (tm_peek(c)->kind == TOK_LPAREN)
        parse_signature(c, n->macro.func);
    n->macro.call = tm_parse_expr(c, true);
    if (n->macro.call->kind != N_CALL)
        tm_compile_fail(c, line, "expected call");
    n->macro.func->body = parse_whole(c, "endcall", "call", line);
    return n;
}

/* A generation block is a call block around Hugging Face's tracker, which returns what it renders. */
static struct tm_node *parse_generation(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_CALLBLOCK, line);
    n->macro.func = func_new(c);
    n->macro.func->body = parse_whole(c, "endgeneration", "generation", line);
    return n;
}

static struct tm_node *parse_filter_block(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_FILTERBLOCK, line);
    n->block.filter = tm_parse_filters(c, NULL, true);
    n->block.body = parse_whole(c, "endfilter", "filter", line);
    return n;
}

static struct tm_node *parse_with(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_WITH, line);
    while (tm_peek(c)->kind != TOK_BLOCK_END && tm_peek(c)->kind != TOK_COLON) {
        if (n->with.targets.n)
            tm_expect(c, TOK_COMMA);
        struct tm_node *target = parse_target(c, false, NULL);
        set_ctx(c, target, CTX_PARAM);
        tm_nodes_add(c, &n->with.targets, target);
        tm_expect(c, TOK_ASSIGN);
        tm_nodes_add(c, &n->with.values, tm_parse_expr(c, true));
    }
    n->with.body = parse_whole(c, "endwith", "with", line);
    return n;
}

/* `print a, b` writes several values one after the other. */
static struct tm_node *parse_print(struct tm_compile *c, uint32_t line) {
    struct tm_node *n = tm_node_new(c, N_PRINT, line);
    struct tm_nodes items = {0};
    while (tm_peek(c)->kind != TOK_BLOCK_END) {
        if (items.n)
            tm_expect(c, TOK_COMMA);
        tm_nodes_add(c, &items, tm_parse_expr(c, true));
    }
    if (items.n == 0)
        return NULL;
    n->operand = items.v[0];
    if (items.n > 1) {
        n->operand = tm_node_new(c, N_CONCAT, line);
        n->operand->items = items;
    }
    return n;
}

static struct tm_node *parse_leaf(struct tm_compile *c, enum tm_nk kind, uint32_t line) {
    return tm_node_new(c, kind, line);
}

static struct tm_node *parse_break(struct tm_compile *c, uint32_t line) {
    return parse_leaf(c, N_BREAK, line);
}

static struct tm_node *parse_continue(struct tm_compile *c, uint32_t line) {
    return parse_leaf(c, N_CONTINUE, line);
}

static const struct {
    const char *name;
    struct tm_node *(*parse)(struct tm_compile *c, uint32_t line); /* NULL: exists in Jinja, refused here */
} tags[] = {{"if", parse_if},
            {"for", parse_for},
            {"set", parse_set},
            {"macro", parse_macro},
            {"generation", parse_generation},
            {"call", parse_call_block},
            {"filter", parse_filter_block},
            {"with", parse_with},
            {"print", parse_print},
            {"break", parse_break},
            {"continue", parse_continue},
            {"include", NULL},
            {"import", NULL},
            {"from", NULL},
            {"extends", NULL},
            {"block", NULL},
            {"autoescape", NULL}};

static struct tm_node *parse_statement(struct tm_compile *c) {
    const struct tm_token *t = tm_peek(c);
    if (t->kind != TOK_NAME)
        tm_compile_fail(c, t->line, "tag name expected");
    for (size_t i = 0; i < ARRAY_LEN(tags); i++) {
        if (!str_eqz(t->s, tags[i].name))
            continue;
        if (!tags[i].parse)
            tm_compile_fail(c, t->line, "tag '%s' is not available in chat templates", tags[i].name);
        tm_next(c);
        return tags[i].parse(c, t->line);
    }
    tm_compile_fail(c, t->line, "Encountered unknown tag '%.*s'", (int)MIN(t->s.n, (size_t)60), t->s.p);
}

struct tm_nodes tm_parse(struct tm_compile *c) {
    return parse_until(c, NULL, NULL, 1);
}
