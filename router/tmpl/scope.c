/* scope.c: where variables live.
 *
 * Scopes follow Jinja's own compiler: loops, macros, call, filter, set and with blocks open one; `if`
 * does not. On entry a scope copies an outer variable it will assign to, or looks up one it only
 * reads; assignments never reach the outer scope. Macros, call blocks and recursive loops are
 * functions: they have their own activation and see the activation around their definition.
 *
 * First the names of a scope are collected without entering inner scopes (collect_*), then its tree
 * is visited, names get slots, and inner scopes are treated likewise (bind_*).
 */
#include "router/tmpl/ast.h"

enum { SLOTS_MAX = 20000, BUCKETS = 64 };

struct func {
    struct func *up;
    uint32_t n_slots;
    bool in_loop; /* break and continue have a loop to act on */
};

struct sym {
    struct sym *next; /* of the bucket */
    struct sym *next_load;
    struct tm_load load;
};

struct scope {
    struct scope *up;
    struct func *func;
    struct sym *buckets[BUCKETS];
    struct sym *first, **last;
    uint32_t n;
    unsigned in_branch;
    bool soft; /* inside an if: an unknown filter fails only when reached */
};

struct res {
    struct tm_compile *c;
};

static void scope_init(struct scope *s, struct scope *up, struct func *f) {
    *s = (struct scope){.up = up, .func = f};
    s->last = &s->first;
}

static struct sym *find_own(const struct scope *s, struct str name) {
    struct sym *y = s->buckets[tm_hash_bytes(name.p, name.n) % BUCKETS];
    while (y && !str_eq(y->load.name, name))
        y = y->next;
    return y;
}

static struct sym *find(const struct scope *s, struct str name, const struct scope **where) {
    for (; s; s = s->up) {
        struct sym *y = find_own(s, name);
        if (y) {
            *where = s;
            return y;
        }
    }
    return NULL;
}

static struct tm_ref ref_from(const struct func *from, const struct func *to, uint16_t slot) {
    struct tm_ref ref = {0, slot};
    for (; from != to; from = from->up)
        ref.hops++;
    return ref;
}

static struct sym *define(struct res *x, struct scope *s, struct str name, enum tm_load_kind kind) {
    struct sym *y = arena_zalloc(x->c->a, 1, sizeof *y);
    if (s->func->n_slots >= SLOTS_MAX)
        tm_compile_fail(x->c, 1, "template has too many variables");
    y->load = (struct tm_load){.kind = kind, .slot = (uint16_t)s->func->n_slots++, .name = name};
    struct sym **b = &s->buckets[tm_hash_bytes(name.p, name.n) % BUCKETS];
    y->next = *b;
    *b = y;
    *s->last = y;
    s->last = &y->next_load;
    s->n++;
    return y;
}

static void note_load(struct res *x, struct scope *s, struct str name) {
    const struct scope *where;
    if (!find(s, name, &where))
        define(x, s, name, LOAD_RESOLVE);
}

static void note_store(struct res *x, struct scope *s, struct str name) {
    const struct scope *where;
    if (find_own(s, name))
        return;
    struct sym *outer = find(s->up, name, &where);
    struct sym *y = define(x, s, name, outer ? LOAD_ALIAS : s->in_branch ? LOAD_RESOLVE : LOAD_UNDEFINED);
    if (outer)
        y->load.src = ref_from(s->func, where->func, outer->load.slot);
}

static uint16_t note_param(struct res *x, struct scope *s, struct str name) {
    struct sym *y = find_own(s, name);
    if (!y)
        y = define(x, s, name, LOAD_PARAM);
    y->load.kind = LOAD_PARAM;
    return y->load.slot;
}

/* ---- collecting the names of a scope ---- */

struct collector {
    struct res *x;
    struct scope *s;
};

static bool collect_name(const struct tm_node *n, void *arg) {
    struct collector *k = arg;
    if (n->kind == N_NSREF || (n->kind == N_NAME && n->name.ctx == CTX_LOAD))
        note_load(k->x, k->s, n->name.name);
    else if (n->kind == N_NAME && n->name.ctx == CTX_STORE)
        note_store(k->x, k->s, n->name.name);
    else if (n->kind == N_NAME)
        note_param(k->x, k->s, n->name.name);
    return true;
}

/* The names of an expression or a target. */
static void collect_expr(struct res *x, struct scope *s, const struct tm_node *n) {
    struct collector k = {x, s};
    tm_walk(n, collect_name, &k);
}

static void collect_exprs(struct res *x, struct scope *s, struct tm_nodes list) {
    for (uint32_t i = 0; i < list.n; i++)
        collect_expr(x, s, list.v[i]);
}

static void collect_body(struct res *x, struct scope *s, struct tm_nodes body);

static void collect(struct res *x, struct scope *s, const struct tm_node *n) {
    switch ((enum tm_nk)n->kind) {
    case N_PRINT:
        collect_expr(x, s, n->operand);
        break;
    case N_FOR:
        collect_expr(x, s, n->loop.iter);
        break;
    case N_IF:
        for (uint32_t i = 0; i < n->cases.n_branches; i++) {
            /* The first test always runs; everything behind it may not. */
            s->in_branch += i > 0;
            collect_expr(x, s, n->cases.branches[i].test);
            s->in_branch -= i > 0;
            s->in_branch++;
            collect_body(x, s, n->cases.branches[i].body);
            s->in_branch--;
        }
        break;
    case N_SET:
        collect_expr(x, s, n->set.value);
        collect_expr(x, s, n->set.target);
        break;
    case N_SETBLOCK:
        collect_expr(x, s, n->block.target);
        break;
    case N_FILTERBLOCK:
        collect_expr(x, s, n->block.filter);
        break;
    case N_MACRO:
        note_store(x, s, n->macro.func->name);
        break;
    case N_CALLBLOCK:
        collect_expr(x, s, n->macro.call);
        break;
    case N_WITH:
        collect_exprs(x, s, n->with.values);
        break;
    default:
        break;
    }
}

static void collect_body(struct res *x, struct scope *s, struct tm_nodes body) {
    for (uint32_t i = 0; i < body.n; i++)
        collect(x, s, body.v[i]);
}

static void collect_target_params(struct res *x, struct scope *s, const struct tm_node *target) {
    if (target->kind == N_NAME) {
        note_param(x, s, target->name.name);
        return;
    }
    for (uint32_t i = 0; i < target->items.n; i++)
        collect_target_params(x, s, target->items.v[i]);
}

static struct tm_scope scope_done(struct res *x, const struct scope *s) {
    struct tm_scope out = {arena_alloc(x->c->a, s->n * sizeof *out.loads), 0};
    for (const struct sym *y = s->first; y; y = y->next_load)
        out.loads[out.n_loads++] = y->load;
    return out;
}

/* ---- giving slots ---- */

static void bind_expr(struct res *x, struct scope *s, struct tm_node *n);
static void bind_body(struct res *x, struct scope *s, struct tm_nodes body);

static void bind_exprs(struct res *x, struct scope *s, struct tm_nodes list) {
    for (uint32_t i = 0; i < list.n; i++)
        bind_expr(x, s, list.v[i]);
}

static void bind_args(struct res *x, struct scope *s, const struct tm_call_args *args) {
    bind_exprs(x, s, args->pos);
    for (uint32_t i = 0; i < args->n_kw; i++)
        bind_expr(x, s, args->kw[i].value);
    bind_expr(x, s, args->star);
    bind_expr(x, s, args->star2);
}

static void bind_def(struct res *x, struct scope *s, struct tm_node *n) {
    int len = (int)MIN(n->call.name.n, (size_t)60);
    if (n->kind == N_FILTER) {
        const struct tm_callable *f = tm_filter_find(n->call.name);
        if (f && !f->fn)
            tm_compile_fail(x->c, n->line, "filter '%s' is not available in chat templates", f->name);
        if (!f && !s->soft)
            tm_compile_fail(x->c, n->line, "No filter named '%.*s'.", len, n->call.name.p);
        n->call.def = f;
    } else {
        n->call.def = tm_test_find(n->call.name);
        if (!n->call.def && !s->soft)
            tm_compile_fail(x->c, n->line, "No test named '%.*s'.", len, n->call.name.p);
    }
}

static void bind_name(struct scope *s, struct tm_node *n) {
    const struct scope *where;
    struct sym *y = find(s, n->name.name, &where);
    CHECK(y); /* collected before */
    n->name.ref = ref_from(s->func, where->func, y->load.slot);
}

static void bind_expr(struct res *x, struct scope *s, struct tm_node *n) {
    if (!n)
        return;
    switch ((enum tm_nk)n->kind) {
    case N_NAME:
    case N_NSREF:
        bind_name(s, n);
        break;
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
    case N_OR:
    case N_AND:
    case N_CONCAT:
        bind_exprs(x, s, n->items);
        break;
    case N_COND: {
        bool soft = s->soft;
        s->soft = true;
        bind_expr(x, s, n->cond.test);
        bind_expr(x, s, n->cond.then);
        bind_expr(x, s, n->cond.other);
        s->soft = soft;
        break;
    }
    case N_COMPARE:
    case N_ARITH:
        bind_exprs(x, s, n->chain.operands);
        break;
    case N_NOT:
    case N_NEG:
    case N_POS:
        bind_expr(x, s, n->operand);
        break;
    case N_GETATTR:
    case N_GETITEM:
        bind_expr(x, s, n->item.obj);
        bind_expr(x, s, n->item.key);
        break;
    case N_SLICE:
        bind_expr(x, s, n->slice.start);
        bind_expr(x, s, n->slice.stop);
        bind_expr(x, s, n->slice.step);
        break;
    case N_FILTER:
    case N_TEST:
        bind_def(x, s, n); /* fall through */
    case N_CALL:
        bind_expr(x, s, n->call.obj);
        bind_args(x, s, &n->call.args);
        break;
    default:
        break;
    }
}

/* Whether a name is read below nodes before anything there assigns it. */
struct asked {
    const char *name;
    bool yes;
};
static bool asks(const struct tm_node *n, void *arg) {
    struct asked *k = arg;
    if (n->kind == N_NAME && str_eqz(n->name.name, k->name)) {
        k->yes = n->name.ctx == CTX_LOAD;
        return false;
    }
    return true;
}
static bool body_asks(struct tm_nodes body, const char *name) {
    struct asked k = {name, false};
    tm_walk_all(body, asks, &k);
    return k.yes;
}

static bool no_loop_store(const struct tm_node *n, void *arg) {
    struct res *x = arg;
    if (n->kind == N_NAME && n->name.ctx == CTX_STORE && str_eqz(n->name.name, "loop"))
        tm_compile_fail(x->c, n->line, "Can't assign to special loop variable in for-loop");
    return true;
}

static struct tm_node *clone_target(struct res *x, const struct tm_node *n) {
    struct tm_node *d = tm_node_new(x->c, (enum tm_nk)n->kind, n->line);
    *d = *n;
    if (n->kind == N_TUPLE) {
        d->items = (struct tm_nodes){0};
        for (uint32_t i = 0; i < n->items.n; i++)
            tm_nodes_add(x->c, &d->items, clone_target(x, n->items.v[i]));
    }
    return d;
}

static void bind_for_test(struct res *x, struct scope *s, struct func *f, struct tm_node *n) {
    struct scope test;
    scope_init(&test, s, f);
    n->loop.test_target = clone_target(x, n->loop.target);
    collect_target_params(x, &test, n->loop.test_target);
    collect_expr(x, &test, n->loop.test);
    bind_expr(x, &test, n->loop.test_target);
    bind_expr(x, &test, n->loop.test);
    n->loop.test_scope = scope_done(x, &test);
}

static void bind_for(struct res *x, struct scope *s, struct tm_node *n) {
    tm_walk(n, no_loop_store, x);
    bind_expr(x, s, n->loop.iter);
    n->loop.extended = n->loop.recursive || body_asks(n->loop.body, "loop");
    struct func inner = {.up = s->func};
    struct func *f = n->loop.recursive ? &inner : s->func;
    struct scope body, other;
    scope_init(&body, s, f);
    bool in_loop = f->in_loop;
    f->in_loop = true;
    if (n->loop.extended)
        n->loop.loop_slot = note_param(x, &body, STR_LIT("loop"));
    collect_target_params(x, &body, n->loop.target);
    collect_body(x, &body, n->loop.body);
    bind_expr(x, &body, n->loop.target);
    bind_body(x, &body, n->loop.body);
    n->loop.scope = scope_done(x, &body);
    f->in_loop = in_loop;
    scope_init(&other, s, f);
    collect_body(x, &other, n->loop.other);
    bind_body(x, &other, n->loop.other);
    n->loop.other_scope = scope_done(x, &other);
    if (n->loop.test)
        bind_for_test(x, s, f, n);
    n->loop.n_slots = (uint16_t)inner.n_slots;
}

static void bind_func(struct res *x, struct scope *s, struct tm_node *n) {
    struct tm_func *f = n->macro.func;
    struct func inner = {.up = s->func};
    struct scope body;
    scope_init(&body, s, &inner);
    for (uint32_t i = 0; i < f->n_params; i++) {
        note_param(x, &body, f->params[i]->name.name);
        f->explicit_caller = f->explicit_caller || str_eqz(f->params[i]->name.name, "caller");
    }
    bool caller = body_asks(f->body, "caller");
    if (caller && f->explicit_caller) {
        for (uint32_t i = 0; i + f->defaults.n < f->n_params; i++)
            if (str_eqz(f->params[i]->name.name, "caller"))
                tm_compile_fail(x->c, n->line,
                                "the special \"caller\" argument must be omitted or be given a default");
    }
    struct {
        const char *name;
        int32_t *slot;
    } special[] = {{"caller", &f->caller_slot}, {"kwargs", &f->kwargs_slot}, {"varargs", &f->varargs_slot}};
    for (size_t i = 0; i < ARRAY_LEN(special); i++)
        if (body_asks(f->body, special[i].name) && !find_own(&body, str_of(special[i].name)))
            *special[i].slot = note_param(x, &body, str_of(special[i].name));
    collect_exprs(x, &body, f->defaults);
    collect_body(x, &body, f->body);
    for (uint32_t i = 0; i < f->n_params; i++)
        bind_expr(x, &body, f->params[i]);
    bind_exprs(x, &body, f->defaults);
    bind_body(x, &body, f->body);
    f->scope = scope_done(x, &body);
    f->n_slots = (uint16_t)inner.n_slots;
}

static void bind_with(struct res *x, struct scope *s, struct tm_node *n) {
    struct scope inner;
    bind_exprs(x, s, n->with.values);
    scope_init(&inner, s, s->func);
    for (uint32_t i = 0; i < n->with.targets.n; i++)
        collect_target_params(x, &inner, n->with.targets.v[i]);
    collect_body(x, &inner, n->with.body);
    bind_exprs(x, &inner, n->with.targets);
    bind_body(x, &inner, n->with.body);
    n->with.scope = scope_done(x, &inner);
}

static void bind_block(struct res *x, struct scope *s, struct tm_node *n) {
    struct scope inner;
    scope_init(&inner, s, s->func);
    collect_body(x, &inner, n->block.body);
    collect_expr(x, &inner, n->block.filter);
    bind_body(x, &inner, n->block.body);
    bind_expr(x, &inner, n->block.filter);
    bind_expr(x, s, n->block.target);
    n->block.scope = scope_done(x, &inner);
}

static void bind_if(struct res *x, struct scope *s, struct tm_node *n) {
    bool soft = s->soft;
    s->soft = true;
    for (uint32_t i = 0; i < n->cases.n_branches; i++) {
        bind_expr(x, s, n->cases.branches[i].test);
        bind_body(x, s, n->cases.branches[i].body);
    }
    s->soft = soft;
}

static void bind(struct res *x, struct scope *s, struct tm_node *n) {
    const struct scope *where;
    switch ((enum tm_nk)n->kind) {
    case N_PRINT:
        bind_expr(x, s, n->operand);
        break;
    case N_FOR:
        bind_for(x, s, n);
        break;
    case N_IF:
        bind_if(x, s, n);
        break;
    case N_SET:
        bind_expr(x, s, n->set.value);
        bind_expr(x, s, n->set.target);
        break;
    case N_SETBLOCK:
    case N_FILTERBLOCK:
        bind_block(x, s, n);
        break;
    case N_MACRO:
        bind_func(x, s, n);
        n->macro.ref = (struct tm_ref){0, find(s, n->macro.func->name, &where)->load.slot};
        break;
    case N_CALLBLOCK:
        bind_func(x, s, n);
        bind_expr(x, s, n->macro.call);
        break;
    case N_WITH:
        bind_with(x, s, n);
        break;
    case N_BREAK:
    case N_CONTINUE:
        if (!s->func->in_loop)
            tm_compile_fail(x->c, n->line, "'%s' outside loop", n->kind == N_BREAK ? "break" : "continue");
        break;
    default:
        break;
    }
}

static void bind_body(struct res *x, struct scope *s, struct tm_nodes body) {
    for (uint32_t i = 0; i < body.n; i++)
        bind(x, s, body.v[i]);
}

void tm_resolve(struct tm_compile *c, struct tmpl *t) {
    struct res x = {c};
    struct func root = {0};
    struct scope s;
    scope_init(&s, NULL, &root);
    collect_body(&x, &s, t->body);
    bind_body(&x, &s, t->body);
    t->scope = scope_done(&x, &s);
    t->n_slots = (uint16_t)root.n_slots;
}
