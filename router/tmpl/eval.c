/* eval.c: expressions. Each kind that needs locals has a function of its own, so that the frame of
 * tm_eval, which nests, stays small. */
#include "router/tmpl/ast.h"

static struct tm_val *slot_of(struct tm_run *r, struct tm_ref ref) {
    struct tm_act *a = r->act;
    for (unsigned i = ref.hops; i; i--)
        a = a->up;
    return &a->slots[ref.slot];
}

static struct tm_val eval_name(struct tm_run *r, const struct tm_node *n) {
    struct tm_val v = *slot_of(r, n->name.ref);
    return v.kind == V_MISSING ? tm_undef(r, NULL, n->name.name, NULL) : v;
}

static struct tm_val eval_list(struct tm_run *r, const struct tm_node *n) {
    struct tm_val out = tm_list(r, n->kind == N_LIST ? V_LIST : V_TUPLE, n->items.n);
    for (uint32_t i = 0; i < n->items.n; i++)
        out.l->v[i] = tm_eval(r, n->items.v[i]);
    return out;
}

static struct tm_val eval_dict(struct tm_run *r, const struct tm_node *n) {
    struct tm_dict *d = tm_dict_new(r, n->items.n / 2);
    for (uint32_t i = 0; i < n->items.n; i += 2) {
        struct tm_val key = tm_eval(r, n->items.v[i]);
        struct tm_val value = tm_eval(r, n->items.v[i + 1]);
        if (!tm_dict_set(r, d, key, value))
            tm_fail(r, "unhashable type: '%s'", tm_type_name(key));
    }
    return (struct tm_val){.kind = V_DICT, .d = d};
}

static bool compare(struct tm_run *r, int op, struct tm_val a, struct tm_val b) {
    switch (op) {
    case TOK_EQ:
        return tm_eq(r, a, b);
    case TOK_NE:
        return !tm_eq(r, a, b);
    case TOK_LT:
        return tm_less(r, a, b, "<");
    case TOK_GT:
        return tm_less(r, b, a, ">");
    case TOK_LE:
        return tm_le(r, a, b, "<=");
    case TOK_GE:
        return tm_le(r, b, a, ">=");
    case TOK_IN:
        return tm_contains(r, b, a);
    default:
        return !tm_contains(r, b, a);
    }
}

static struct tm_val eval_compare(struct tm_run *r, const struct tm_node *n) {
    struct tm_val left = tm_eval(r, n->chain.operands.v[0]);
    for (uint32_t i = 1; i < n->chain.operands.n; i++) {
        struct tm_val right = tm_eval(r, n->chain.operands.v[i]);
        r->line = n->line;
        if (!compare(r, n->chain.ops[i - 1], left, right))
            return tm_bool(false);
        left = right;
    }
    return tm_bool(true);
}

static struct tm_val eval_arith(struct tm_run *r, const struct tm_node *n) {
    struct tm_val left = tm_eval(r, n->chain.operands.v[0]);
    for (uint32_t i = 1; i < n->chain.operands.n; i++) {
        struct tm_val right = tm_eval(r, n->chain.operands.v[i]);
        r->line = n->line;
        left = tm_arith(r, n->chain.ops[i - 1], left, right);
    }
    return left;
}

static struct tm_val eval_concat(struct tm_run *r, const struct tm_node *n) {
    if (n->items.n == 2) { /* may grow its left operand in place */
        struct tm_val a = tm_to_str(r, tm_eval(r, n->items.v[0]));
        struct tm_val b = tm_to_str(r, tm_eval(r, n->items.v[1]));
        return tm_str_append(r, a.s, b.s);
    }
    struct tm_val *v = tm_alloc(r, n->items.n * sizeof *v);
    for (uint32_t i = 0; i < n->items.n; i++)
        v[i] = tm_eval(r, n->items.v[i]);
    struct tm_val out = tm_to_str(r, v[0]);
    bool grows = out.s->tail != NULL;
    if (grows) {
        for (uint32_t i = 1; i < n->items.n; i++)
            out = tm_str_append(r, out.s, tm_to_str(r, v[i]).s);
        return out;
    }
    struct tm_cap outer = tm_cap_begin(r);
    for (uint32_t i = 0; i < n->items.n; i++)
        tm_put_val(r, v[i]);
    return tm_cap_end(r, outer);
}

static struct tm_val eval_logic(struct tm_run *r, const struct tm_node *n) {
    struct tm_val v = TM_NONE;
    for (uint32_t i = 0; i < n->items.n; i++) {
        v = tm_eval(r, n->items.v[i]);
        if (tm_truth(r, v) == (n->kind == N_OR))
            break;
    }
    return v;
}

static struct tm_val eval_cond(struct tm_run *r, const struct tm_node *n) {
    if (tm_truth(r, tm_eval(r, n->cond.test)))
        return tm_eval(r, n->cond.then);
    if (n->cond.other)
        return tm_eval(r, n->cond.other);
    return tm_undef(r, "the inline if-expression evaluated to false and no else section was defined",
                    (struct str){0}, NULL);
}

static struct tm_val eval_item(struct tm_run *r, const struct tm_node *n) {
    struct tm_val obj = tm_eval(r, n->item.obj);
    const struct tm_node *k = n->item.key;
    if (k->kind != N_SLICE) {
        struct tm_val key = tm_eval(r, k);
        r->line = n->line;
        return tm_getitem(r, obj, key);
    }
    struct tm_val part[3];
    const struct tm_node *from[3] = {k->slice.start, k->slice.stop, k->slice.step};
    for (int i = 0; i < 3; i++)
        part[i] = from[i] ? tm_eval(r, from[i]) : TM_NONE;
    r->line = n->line;
    return tm_slice(r, obj, part[0], part[1], part[2]);
}

/* ---- calls ---- */

static void add_star(struct tm_run *r, struct tm_args *args, struct tm_val more) {
    struct tm_val list = tm_to_list(r, more, V_LIST);
    struct tm_val *v = tm_alloc(r, (args->n + list.l->n) * sizeof *v);
    tm_step(r, args->n + list.l->n);
    if (args->n)
        memcpy(v, args->v, args->n * sizeof *v);
    if (list.l->n)
        memcpy(v + args->n, list.l->v, list.l->n * sizeof *v);
    args->v = v;
    args->n += list.l->n;
}

static void add_star2(struct tm_run *r, struct tm_args *args, struct tm_val more) {
    if (more.kind == V_UNDEF)
        tm_fail_undef(r, more);
    if (more.kind != V_DICT)
        tm_fail(r, "argument after ** must be a mapping, not %s", tm_type_name(more));
    const struct tm_dict *d = tm_entries(r, more.d);
    struct tm_kwarg *kw = tm_alloc(r, (args->n_kw + d->n) * sizeof *kw);
    tm_step(r, (args->n_kw + 1) * d->n);
    if (args->n_kw)
        memcpy(kw, args->kw, args->n_kw * sizeof *kw);
    size_t n = args->n_kw;
    for (size_t i = 0; i < d->n; i++) {
        struct tm_str *s = tm_need_str(r, d->e[i].key, "a keyword");
        for (size_t j = 0; j < args->n_kw; j++)
            if (str_eq(args->kw[j].name, (struct str){s->p, s->n}))
                tm_fail(r, "got multiple values for a keyword argument");
        kw[n++] = (struct tm_kwarg){{s->p, s->n}, d->e[i].value};
    }
    args->kw = kw;
    args->n_kw = n;
}

static struct tm_args eval_args(struct tm_run *r, const struct tm_call_args *a) {
    struct tm_args args = {.n = a->pos.n, .n_kw = a->n_kw};
    if (args.n) {
        args.v = tm_alloc(r, args.n * sizeof *args.v);
        for (uint32_t i = 0; i < a->pos.n; i++)
            args.v[i] = tm_eval(r, a->pos.v[i]);
    }
    if (args.n_kw) {
        args.kw = tm_alloc(r, args.n_kw * sizeof *args.kw);
        for (uint32_t i = 0; i < a->n_kw; i++)
            args.kw[i] = (struct tm_kwarg){a->kw[i].name, tm_eval(r, a->kw[i].value)};
    }
    if (a->star)
        add_star(r, &args, tm_eval(r, a->star));
    if (a->star2)
        add_star2(r, &args, tm_eval(r, a->star2));
    return args;
}

static void add_caller(struct tm_run *r, struct tm_args *args, struct tm_val caller) {
    struct tm_kwarg *kw = tm_alloc(r, (args->n_kw + 1) * sizeof *kw);
    for (size_t i = 0; i < args->n_kw; i++) {
        if (str_eqz(args->kw[i].name, "caller"))
            tm_fail(r, "got multiple values for keyword argument 'caller'");
        kw[i] = args->kw[i];
    }
    kw[args->n_kw++] = (struct tm_kwarg){STR_LIT("caller"), caller};
    args->kw = kw;
}

struct tm_val tm_eval_call(struct tm_run *r, const struct tm_node *n, struct tm_val caller) {
    const struct tm_node *f = n->call.obj;
    struct tm_val self = TM_NONE, callee = TM_MISSING;
    const struct tm_callable *m = NULL;
    if (f->kind == N_GETATTR) { /* no need to make a bound method */
        self = tm_eval(r, f->item.obj);
        m = tm_method(self, (struct str){f->item.name->p, f->item.name->n});
        if (!m || !m->fn) {
            m = NULL;
            r->line = f->line;
            callee = tm_getattr(r, self, f->item.name);
        }
    } else {
        callee = tm_eval(r, f);
    }
    struct tm_args args = eval_args(r, &n->call.args);
    if (caller.kind != V_MISSING)
        add_caller(r, &args, caller);
    r->line = n->line;
    return m ? tm_call_def(r, m, self, &args) : tm_call(r, callee, &args);
}

static struct tm_val eval_filter(struct tm_run *r, const struct tm_node *n) {
    struct tm_val v = n->call.obj ? tm_eval(r, n->call.obj) : r->block;
    if (!n->call.def) {
        r->line = n->line;
        tm_fail(r, "No %s named '%.*s' found.", n->kind == N_FILTER ? "filter" : "test",
                (int)MIN(n->call.name.n, (size_t)60), n->call.name.p);
    }
    struct tm_args args = eval_args(r, &n->call.args);
    r->line = n->line;
    if (n->kind == N_TEST)
        return tm_bool(tm_call_test(r, n->call.def, v, &args));
    return tm_call_def(r, n->call.def, v, &args);
}

static struct tm_val eval_unary(struct tm_run *r, const struct tm_node *n) {
    struct tm_val v = tm_eval(r, n->operand);
    r->line = n->line;
    if (n->kind == N_NOT)
        return tm_bool(!tm_truth(r, v));
    if (n->kind == N_NEG)
        return tm_negate(r, v);
    if (v.kind == V_UNDEF)
        tm_fail_undef(r, v);
    if (!tm_is_num(v))
        tm_fail(r, "bad operand type for unary +: '%s'", tm_type_name(v));
    return v.kind == V_BOOL ? tm_int(v.b) : v;
}

static struct tm_val eval(struct tm_run *r, const struct tm_node *n) {
    switch ((enum tm_nk)n->kind) {
    case N_CONST:
        return n->konst;
    case N_NAME:
        return eval_name(r, n);
    case N_TUPLE:
    case N_LIST:
        return eval_list(r, n);
    case N_DICT:
        return eval_dict(r, n);
    case N_COND:
        return eval_cond(r, n);
    case N_OR:
    case N_AND:
        return eval_logic(r, n);
    case N_COMPARE:
        return eval_compare(r, n);
    case N_ARITH:
        return eval_arith(r, n);
    case N_CONCAT:
        return eval_concat(r, n);
    case N_NOT:
    case N_NEG:
    case N_POS:
        return eval_unary(r, n);
    case N_GETATTR: {
        struct tm_val obj = tm_eval(r, n->item.obj);
        r->line = n->line;
        return tm_getattr(r, obj, n->item.name);
    }
    case N_GETITEM:
        return eval_item(r, n);
    case N_CALL:
        return tm_eval_call(r, n, TM_MISSING);
    case N_FILTER:
    case N_TEST:
        return eval_filter(r, n);
    default:
        CHECK(!"an expression");
        return TM_NONE;
    }
}

struct tm_val tm_eval(struct tm_run *r, const struct tm_node *n) {
    tm_step(r, 1);
    tm_enter(r);
    struct tm_val v = eval(r, n);
    tm_leave(r);
    return v;
}

/* ---- assignment ---- */

static void assign_attr(struct tm_run *r, const struct tm_node *n, struct tm_val v) {
    struct tm_val ns = eval_name(r, n);
    if (n->name.attr.p[0] == '_')
        tm_fail(r, "a namespace cannot have attributes that begin with an underscore");
    struct tm_str *key = tm_str(r, n->name.attr.p, n->name.attr.n, FROM_TEMPLATE).s;
    tm_dict_set(r, ns.ns->d, tm_of_str(key), v);
}

void tm_assign(struct tm_run *r, const struct tm_node *target, struct tm_val v) {
    if (target->kind == N_NAME) {
        *slot_of(r, target->name.ref) = v;
        return;
    }
    if (target->kind == N_NSREF) {
        assign_attr(r, target, v);
        return;
    }
    if (!tm_iterable(v))
        tm_fail(r, "cannot unpack non-iterable %s object", tm_type_name(v));
    struct tm_iter *it = tm_iter_open(r, v);
    struct tm_val *items = tm_alloc(r, target->items.n * sizeof *items), more;
    for (uint32_t i = 0; i < target->items.n; i++)
        if (!tm_iter_next(r, it, &items[i]))
            tm_fail(r, "not enough values to unpack (expected %u, got %u)", target->items.n, i);
    if (tm_iter_next(r, it, &more))
        tm_fail(r, "too many values to unpack (expected %u)", target->items.n);
    for (uint32_t i = 0; i < target->items.n; i++)
        tm_assign(r, target->items.v[i], items[i]);
}

/* Every namespace of a target must be one before anything is assigned. */
void tm_check_target(struct tm_run *r, const struct tm_node *target) {
    if (target->kind == N_NSREF && slot_of(r, target->name.ref)->kind != V_NS)
        tm_fail(r, "cannot assign attribute on non-namespace object");
    for (uint32_t i = 0; target->kind == N_TUPLE && i < target->items.n; i++)
        tm_check_target(r, target->items.v[i]);
}
