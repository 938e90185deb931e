/* parse_expr.c: expressions. One function per level of precedence, lowest first. */
#include "router/tmpl/ast.h"

/* Makes n at least one higher than child, within the bound on nesting. */
static void rise(struct tm_compile *c, struct tm_node *n, const struct tm_node *child) {
    if (!child || n->depth > child->depth)
        return;
    n->depth = (uint16_t)(child->depth + 1);
    if (n->depth > c->limits->depth_max)
        tm_compile_fail(c, n->line, "expression is nested deeper than %u (--max-template-depth)",
                        c->limits->depth_max);
}

static void rise_all(struct tm_compile *c, struct tm_node *n, struct tm_nodes children) {
    for (uint32_t i = 0; i < children.n; i++)
        rise(c, n, children.v[i]);
}

static struct tm_node *konst(struct tm_compile *c, uint32_t line, struct tm_val v) {
    struct tm_node *n = tm_node_new(c, N_CONST, line);
    n->konst = v;
    return n;
}

/* A string of the template, complete so that threads need not write to it. */
static struct tm_str *konst_str(struct tm_compile *c, struct str s) {
    struct tm_str *t = arena_zalloc(c->a, 1, sizeof *t);
    t->p = s.p ? s.p : "";
    t->n = s.n;
    for (size_t i = 0; i < s.n; i++)
        t->n_cp += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    tm_str_hash(t);
    return t;
}

static struct tm_node *parse_string(struct tm_compile *c) {
    const struct tm_token *t = tm_next(c);
    struct str s = t->s;
    if (tm_peek(c)->kind == TOK_STRING) { /* adjacent strings are one */
        struct buf joined = {0};
        buf_add_str(&joined, s);
        while (tm_peek(c)->kind == TOK_STRING)
            buf_add_str(&joined, tm_next(c)->s);
        s = (struct str){arena_strndup(c->a, joined.data, joined.len), joined.len};
        buf_fini(&joined);
    }
    return konst(c, t->line, tm_of_str(konst_str(c, s)));
}

static struct tm_node *parse_name(struct tm_compile *c, bool with_namespace) {
    const struct tm_token *t = tm_next(c);
    if (str_eqz(t->s, "true") || str_eqz(t->s, "True"))
        return konst(c, t->line, tm_bool(true));
    if (str_eqz(t->s, "false") || str_eqz(t->s, "False"))
        return konst(c, t->line, tm_bool(false));
    if (str_eqz(t->s, "none") || str_eqz(t->s, "None"))
        return konst(c, t->line, TM_NONE);
    struct tm_node *n = tm_node_new(c, N_NAME, t->line);
    n->name.name = t->s;
    if (with_namespace && tm_skip(c, TOK_DOT)) {
        n->kind = N_NSREF;
        n->name.attr = tm_expect(c, TOK_NAME)->s;
    }
    return n;
}

static struct tm_node *parse_list(struct tm_compile *c) {
    struct tm_node *n = tm_node_new(c, N_LIST, tm_next(c)->line);
    while (tm_peek(c)->kind != TOK_RBRACKET) {
        if (n->items.n)
            tm_expect(c, TOK_COMMA);
        if (tm_peek(c)->kind == TOK_RBRACKET)
            break;
        tm_nodes_add(c, &n->items, tm_parse_expr(c, true));
    }
    tm_expect(c, TOK_RBRACKET);
    rise_all(c, n, n->items);
    return n;
}

static struct tm_node *parse_dict(struct tm_compile *c) {
    struct tm_node *n = tm_node_new(c, N_DICT, tm_next(c)->line);
    while (tm_peek(c)->kind != TOK_RBRACE) {
        if (n->items.n)
            tm_expect(c, TOK_COMMA);
        if (tm_peek(c)->kind == TOK_RBRACE)
            break;
        tm_nodes_add(c, &n->items, tm_parse_expr(c, true));
        tm_expect(c, TOK_COLON);
        tm_nodes_add(c, &n->items, tm_parse_expr(c, true));
    }
    tm_expect(c, TOK_RBRACE);
    rise_all(c, n, n->items);
    return n;
}

static struct tm_node *parse_primary(struct tm_compile *c, bool with_namespace) {
    const struct tm_token *t = tm_peek(c);
    struct tm_node *n;
    switch (t->kind) {
    case TOK_NAME:
        return parse_name(c, with_namespace);
    case TOK_STRING:
        return parse_string(c);
    case TOK_INT:
        return konst(c, t->line, tm_int(tm_next(c)->i));
    case TOK_FLOAT:
        return konst(c, t->line, tm_float(tm_next(c)->f));
    case TOK_LPAREN:
        tm_next(c);
        n = tm_parse_tuple(c, TUPLE_PARENS, NULL);
        tm_expect(c, TOK_RPAREN);
        return n;
    case TOK_LBRACKET:
        return parse_list(c);
    case TOK_LBRACE:
        return parse_dict(c);
    default:
        tm_unexpected(c, t, NULL);
    }
}

static bool tuple_ends(const struct tm_compile *c, const char *end_name) {
    enum tm_tok k = tm_peek(c)->kind;
    return k == TOK_VAR_END || k == TOK_BLOCK_END || k == TOK_RPAREN || (end_name && tm_at_name(c, end_name));
}

struct tm_node *tm_parse_tuple(struct tm_compile *c, unsigned flags, const char *end_name) {
    uint32_t line = tm_peek(c)->line;
    struct tm_nodes items = {0};
    bool is_tuple = false;
    tm_nest_enter(c, line);
    for (;;) {
        if (items.n)
            tm_expect(c, TOK_COMMA);
        if (tuple_ends(c, end_name))
            break;
        tm_nodes_add(c, &items,
                     flags & TUPLE_TARGET ? parse_primary(c, flags & TUPLE_NAMESPACE)
                                          : tm_parse_expr(c, !(flags & TUPLE_NO_COND)));
        if (tm_peek(c)->kind != TOK_COMMA)
            break;
        is_tuple = true;
    }
    c->nest--;
    if (!is_tuple && items.n)
        return items.v[0];
    if (!is_tuple && !(flags & TUPLE_PARENS))
        tm_unexpected(c, tm_peek(c), "an expression");
    struct tm_node *n = tm_node_new(c, N_TUPLE, line);
    n->items = items;
    rise_all(c, n, items);
    return n;
}

static struct tm_node *parse_subscribed(struct tm_compile *c) {
    uint32_t line = tm_peek(c)->line;
    struct tm_node *part[3] = {0};
    if (tm_peek(c)->kind != TOK_COLON) {
        part[0] = tm_parse_expr(c, true);
        if (tm_peek(c)->kind != TOK_COLON)
            return part[0];
    }
    for (int i = 1; i < 3 && tm_skip(c, TOK_COLON); i++) {
        enum tm_tok k = tm_peek(c)->kind;
        if (k != TOK_COLON && k != TOK_RBRACKET && k != TOK_COMMA)
            part[i] = tm_parse_expr(c, true);
    }
    struct tm_node *n = tm_node_new(c, N_SLICE, line);
    n->slice.start = part[0];
    n->slice.stop = part[1];
    n->slice.step = part[2];
    for (int i = 0; i < 3; i++)
        rise(c, n, part[i]);
    return n;
}

static struct tm_node *parse_subscript(struct tm_compile *c, struct tm_node *obj) {
    const struct tm_token *t = tm_next(c);
    struct tm_node *n = tm_node_new(c, N_GETITEM, t->line);
    n->item.obj = obj;
    rise(c, n, obj);
    if (t->kind == TOK_DOT) {
        const struct tm_token *attr = tm_next(c);
        if (attr->kind == TOK_NAME) {
            n->kind = N_GETATTR;
            n->item.name = konst_str(c, attr->s);
        } else if (attr->kind == TOK_INT) {
            n->item.key = konst(c, attr->line, tm_int(attr->i));
        } else {
            tm_compile_fail(c, attr->line, "expected name or number");
        }
        return n;
    }
    struct tm_nodes keys = {0};
    while (tm_peek(c)->kind != TOK_RBRACKET) {
        if (keys.n)
            tm_expect(c, TOK_COMMA);
        tm_nodes_add(c, &keys, parse_subscribed(c));
    }
    tm_expect(c, TOK_RBRACKET);
    if (keys.n == 1) {
        n->item.key = keys.v[0];
    } else {
        n->item.key = tm_node_new(c, N_TUPLE, t->line);
        n->item.key->items = keys;
        rise_all(c, n->item.key, keys);
        for (uint32_t i = 0; i < keys.n; i++)
            if (keys.v[i]->kind == N_SLICE)
                tm_compile_fail(c, t->line, "a slice cannot stand among several subscripts");
    }
    rise(c, n, n->item.key);
    return n;
}

static void add_kw(struct tm_compile *c, struct tm_call_args *args, struct str name, struct tm_node *value) {
    for (uint32_t i = 0; i < args->n_kw; i++)
        if (str_eq(args->kw[i].name, name))
            tm_compile_fail(c, value->line, "keyword argument repeated: %.*s", (int)MIN(name.n, (size_t)60),
                            name.p);
    if ((args->n_kw & (args->n_kw - 1)) == 0) { /* full at every power of two */
        struct tm_kw *grown = arena_alloc(c->a, MAX(args->n_kw * 2, 2u) * sizeof *grown);
        if (args->n_kw)
            memcpy(grown, args->kw, args->n_kw * sizeof *grown);
        args->kw = grown;
    }
    args->kw[args->n_kw++] = (struct tm_kw){name, value};
}

enum { CALL_KW_MAX = 256 };

static struct tm_call_args parse_args(struct tm_compile *c, struct tm_node *owner) {
    struct tm_call_args args = {0};
    uint32_t line = tm_expect(c, TOK_LPAREN)->line;
    bool comma = false, ok = true;
    while (tm_peek(c)->kind != TOK_RPAREN) {
        if (comma) {
            tm_expect(c, TOK_COMMA);
            if (tm_peek(c)->kind == TOK_RPAREN)
                break;
        }
        comma = true;
        struct tm_node *value;
        if (tm_skip(c, TOK_MUL)) {
            ok = !args.star && !args.star2;
            args.star = value = tm_parse_expr(c, true);
        } else if (tm_skip(c, TOK_POW)) {
            ok = !args.star2;
            args.star2 = value = tm_parse_expr(c, true);
        } else if (tm_peek(c)->kind == TOK_NAME && c->tokens[c->at + 1].kind == TOK_ASSIGN) {
            struct str name = tm_next(c)->s;
            tm_next(c);
            value = tm_parse_expr(c, true);
            ok = !args.star2 && args.n_kw < CALL_KW_MAX;
            add_kw(c, &args, name, value);
        } else {
            ok = !args.star && !args.star2 && !args.n_kw;
            value = tm_parse_expr(c, true);
            tm_nodes_add(c, &args.pos, value);
        }
        if (!ok)
            tm_compile_fail(c, line, "invalid syntax for function call expression");
        rise(c, owner, value);
    }
    tm_expect(c, TOK_RPAREN);
    return args;
}

static struct tm_node *parse_call(struct tm_compile *c, struct tm_node *obj) {
    struct tm_node *n = tm_node_new(c, N_CALL, tm_peek(c)->line);
    n->call.obj = obj;
    rise(c, n, obj);
    n->call.args = parse_args(c, n);
    return n;
}

static struct tm_node *parse_postfix(struct tm_compile *c, struct tm_node *n) {
    for (;;) {
        enum tm_tok k = tm_peek(c)->kind;
        if (k == TOK_DOT || k == TOK_LBRACKET)
            n = parse_subscript(c, n);
        else if (k == TOK_LPAREN)
            n = parse_call(c, n);
        else
            return n;
    }
}

/* A filter's or test's name: names joined by dots. */
static struct str parse_dotted(struct tm_compile *c) {
    struct str name = tm_expect(c, TOK_NAME)->s;
    if (tm_peek(c)->kind != TOK_DOT)
        return name;
    struct buf b = {0};
    buf_add_str(&b, name);
    bool ok = true;
    while (ok && tm_skip(c, TOK_DOT)) {
        buf_addc(&b, '.');
        ok = tm_peek(c)->kind == TOK_NAME;
        if (ok)
            buf_add_str(&b, tm_next(c)->s);
    }
    name = (struct str){arena_strndup(c->a, b.data, b.len), b.len};
    buf_fini(&b);
    if (!ok)
        tm_unexpected(c, tm_peek(c), "a name");
    return name;
}

struct tm_node *tm_parse_filters(struct tm_compile *c, struct tm_node *obj, bool bare) {
    while (bare || tm_peek(c)->kind == TOK_PIPE) {
        if (!bare)
            tm_next(c);
        bare = false;
        struct tm_node *n = tm_node_new(c, N_FILTER, tm_peek(c)->line);
        n->call.name = parse_dotted(c);
        n->call.obj = obj;
        rise(c, n, obj);
        if (tm_peek(c)->kind == TOK_LPAREN)
            n->call.args = parse_args(c, n);
        obj = n;
    }
    return obj;
}

static struct tm_node *parse_test(struct tm_compile *c, struct tm_node *obj) {
    struct tm_node *n = tm_node_new(c, N_TEST, tm_next(c)->line);
    bool negated = tm_skip_name(c, "not");
    n->call.name = parse_dotted(c);
    n->call.obj = obj;
    rise(c, n, obj);
    enum tm_tok k = tm_peek(c)->kind;
    if (k == TOK_LPAREN) {
        n->call.args = parse_args(c, n);
    } else if ((k == TOK_NAME || k == TOK_STRING || k == TOK_INT || k == TOK_FLOAT || k == TOK_LBRACKET ||
                k == TOK_LBRACE) &&
               !tm_at_name(c, "else") && !tm_at_name(c, "or") && !tm_at_name(c, "and")) {
        if (tm_at_name(c, "is"))
            tm_compile_fail(c, n->line, "You cannot chain multiple tests with is");
        struct tm_node *arg = parse_postfix(c, parse_primary(c, false));
        tm_nodes_add(c, &n->call.args.pos, arg);
        rise(c, n, arg);
    }
    if (!negated)
        return n;
    struct tm_node *not = tm_node_new(c, N_NOT, n->line);
    not ->operand = n;
    rise(c, not, n);
    return not ;
}

static struct tm_node *parse_unary(struct tm_compile *c, bool with_filter) {
    const struct tm_token *t = tm_peek(c);
    struct tm_node *n;
    if (t->kind == TOK_SUB || t->kind == TOK_ADD) {
        tm_next(c);
        tm_nest_enter(c, t->line);
        n = tm_node_new(c, t->kind == TOK_SUB ? N_NEG : N_POS, t->line);
        n->operand = parse_unary(c, false);
        rise(c, n, n->operand);
        c->nest--;
    } else {
        n = parse_primary(c, false);
    }
    n = parse_postfix(c, n);
    while (with_filter) {
        enum tm_tok k = tm_peek(c)->kind;
        if (k == TOK_PIPE)
            n = tm_parse_filters(c, n, false);
        else if (tm_at_name(c, "is"))
            n = parse_test(c, n);
        else if (k == TOK_LPAREN)
            n = parse_call(c, n);
        else
            break;
    }
    return n;
}

/* One more operand of a chain of operators of the same level, evaluated from the left. */
static struct tm_node *chain(struct tm_compile *c, struct tm_node *n, enum tm_nk kind, enum tm_tok op,
                             uint32_t line, struct tm_node *right) {
    if (n->kind != kind || n->op == 0) { /* op is set while the chain is being made */
        struct tm_node *left = n;
        n = tm_node_new(c, kind, line);
        n->op = 1;
        tm_nodes_add(c, &n->chain.operands, left);
        rise(c, n, left);
    }
    uint32_t n_ops = n->chain.operands.n - 1;
    if ((n_ops & (n_ops - 1)) == 0) {
        uint8_t *grown = arena_alloc(c->a, MAX(n_ops * 2, 2u));
        if (n_ops)
            memcpy(grown, n->chain.ops, n_ops);
        n->chain.ops = grown;
    }
    n->chain.ops[n_ops] = (uint8_t)op;
    tm_nodes_add(c, &n->chain.operands, right);
    rise(c, n, right);
    return n;
}

static struct tm_node *parse_pow(struct tm_compile *c) {
    uint32_t line = tm_peek(c)->line;
    struct tm_node *n = parse_unary(c, true);
    while (tm_skip(c, TOK_POW))
        n = chain(c, n, N_ARITH, TOK_POW, line, parse_unary(c, true));
    if (n->kind == N_ARITH)
        n->op = 0;
    return n;
}

static struct tm_node *parse_math2(struct tm_compile *c) {
    uint32_t line = tm_peek(c)->line;
    struct tm_node *n = parse_pow(c);
    for (;;) {
        enum tm_tok k = tm_peek(c)->kind;
        if (k != TOK_MUL && k != TOK_DIV && k != TOK_FLOORDIV && k != TOK_MOD)
            break;
        tm_next(c);
        n = chain(c, n, N_ARITH, k, line, parse_pow(c));
    }
    if (n->kind == N_ARITH)
        n->op = 0;
    return n;
}

static struct tm_node *parse_concat(struct tm_compile *c) {
    struct tm_node *first = parse_math2(c);
    if (tm_peek(c)->kind != TOK_TILDE)
        return first;
    struct tm_node *n = tm_node_new(c, N_CONCAT, first->line);
    tm_nodes_add(c, &n->items, first);
    while (tm_skip(c, TOK_TILDE))
        tm_nodes_add(c, &n->items, parse_math2(c));
    rise_all(c, n, n->items);
    return n;
}

static struct tm_node *parse_math1(struct tm_compile *c) {
    uint32_t line = tm_peek(c)->line;
    struct tm_node *n = parse_concat(c);
    for (;;) {
        enum tm_tok k = tm_peek(c)->kind;
        if (k != TOK_ADD && k != TOK_SUB)
            break;
        tm_next(c);
        n = chain(c, n, N_ARITH, k, line, parse_concat(c));
    }
    if (n->kind == N_ARITH)
        n->op = 0;
    return n;
}

static struct tm_node *parse_compare(struct tm_compile *c) {
    uint32_t line = tm_peek(c)->line;
    struct tm_node *n = parse_math1(c);
    for (;;) {
        enum tm_tok k = tm_peek(c)->kind;
        if (k >= TOK_EQ && k <= TOK_LE) {
            tm_next(c);
        } else if (tm_skip_name(c, "in")) {
            k = TOK_IN;
        } else if (tm_at_name(c, "not") && c->tokens[c->at + 1].kind == TOK_NAME &&
                   str_eqz(c->tokens[c->at + 1].s, "in")) {
            tm_next(c);
            tm_next(c);
            k = TOK_NOT_IN;
        } else {
            break;
        }
        n = chain(c, n, N_COMPARE, k, line, parse_math1(c));
    }
    if (n->kind == N_COMPARE)
        n->op = 0;
    return n;
}

static struct tm_node *parse_not(struct tm_compile *c) {
    if (!tm_at_name(c, "not"))
        return parse_compare(c);
    struct tm_node *n = tm_node_new(c, N_NOT, tm_next(c)->line);
    tm_nest_enter(c, n->line);
    n->operand = parse_not(c);
    c->nest--;
    rise(c, n, n->operand);
    return n;
}

static struct tm_node *parse_and(struct tm_compile *c) {
    struct tm_node *first = parse_not(c);
    if (!tm_at_name(c, "and"))
        return first;
    struct tm_node *n = tm_node_new(c, N_AND, first->line);
    tm_nodes_add(c, &n->items, first);
    while (tm_skip_name(c, "and"))
        tm_nodes_add(c, &n->items, parse_not(c));
    rise_all(c, n, n->items);
    return n;
}

static struct tm_node *parse_or(struct tm_compile *c) {
    struct tm_node *first = parse_and(c);
    if (!tm_at_name(c, "or"))
        return first;
    struct tm_node *n = tm_node_new(c, N_OR, first->line);
    tm_nodes_add(c, &n->items, first);
    while (tm_skip_name(c, "or"))
        tm_nodes_add(c, &n->items, parse_and(c));
    rise_all(c, n, n->items);
    return n;
}

struct tm_node *tm_parse_expr(struct tm_compile *c, bool with_cond) {
    uint32_t line = tm_peek(c)->line;
    tm_nest_enter(c, line);
    struct tm_node *n = parse_or(c);
    while (with_cond && tm_skip_name(c, "if")) {
        struct tm_node *cond = tm_node_new(c, N_COND, line);
        cond->cond.then = n;
        cond->cond.test = parse_or(c);
        if (tm_skip_name(c, "else"))
            cond->cond.other = tm_parse_expr(c, true);
        rise(c, cond, cond->cond.then);
        rise(c, cond, cond->cond.test);
        rise(c, cond, cond->cond.other);
        n = cond;
    }
    c->nest--;
    return n;
}
