/* exec.c: statements. */
#include "router/tmpl/ast.h"

void tm_enter(struct tm_run *r) {
    if (UNLIKELY(++r->depth > 8 * r->t->limits.depth_max))
        tm_fail(r, "template evaluation is nested deeper than %u levels, 8 times --max-template-depth",
                8 * r->t->limits.depth_max);
}

struct tm_val tm_var(struct tm_run *r, struct str name) {
    for (size_t i = r->n_vars; i-- > 0;) { /* later ones win */
        if (!str_eqz(name, r->vars[i].name))
            continue;
        if (r->var_vals[i].kind == V_MISSING)
            r->var_vals[i] = tm_from_json(r, r->vars[i].value, r->vars[i].client);
        return r->var_vals[i];
    }
    const struct tm_callable *f = tm_table_find(tm_functions, name);
    return f ? (struct tm_val){.kind = V_FUNC, .func = f} : TM_MISSING;
}

void tm_scope_enter(struct tm_run *r, const struct tm_scope *s) {
    tm_step(r, s->n_loads / 4);
    for (uint32_t i = 0; i < s->n_loads; i++) {
        const struct tm_load *l = &s->loads[i];
        struct tm_val *slot = &r->act->slots[l->slot];
        if (l->kind == LOAD_RESOLVE) {
            *slot = tm_var(r, l->name);
        } else if (l->kind == LOAD_UNDEFINED) {
            *slot = TM_MISSING;
        } else if (l->kind == LOAD_ALIAS) {
            const struct tm_act *a = r->act;
            for (unsigned h = l->src.hops; h; h--)
                a = a->up;
            *slot = a->slots[l->src.slot];
        }
    }
}

static void scope_leave(struct tm_run *r, const struct tm_scope *s) {
    for (uint32_t i = 0; i < s->n_loads; i++)
        r->act->slots[s->loads[i].slot] = TM_MISSING;
}

/* ---- loops ---- */

bool tm_for_test(struct tm_run *r, struct tm_iter *it, struct tm_val *out) {
    const struct tm_node *n = it->for_test.loop;
    struct tm_act *act = r->act;
    bool found = false;
    tm_enter(r);
    while (!found && tm_iter_next(r, it->for_test.from, out)) {
        r->act = it->for_test.act;
        tm_assign(r, n->loop.test_target, *out);
        found = tm_truth(r, tm_eval(r, n->loop.test));
        if (found && n->loop.test_target->kind == N_TUPLE) /* unpacked and packed again */
            *out = tm_to_list(r, *out, V_TUPLE);
        r->act = act;
    }
    tm_leave(r);
    return found;
}

static bool loop_next(struct tm_run *r, struct tm_loop *l, struct tm_val *out) {
    struct tm_val v = l->after;
    if (v.kind == V_MISSING && !tm_iter_next(r, l->it, &v))
        return false;
    l->after = TM_MISSING;
    l->index0++;
    l->before = l->current;
    l->current = v;
    *out = v;
    return true;
}

static struct tm_val loop_peek(struct tm_run *r, struct tm_loop *l) {
    if (l->after.kind == V_MISSING && !tm_iter_next(r, l->it, &l->after))
        l->after = TM_MISSING;
    return l->after;
}

static int64_t loop_length(struct tm_run *r, struct tm_loop *l) {
    if (l->length < 0 && l->it->kind != IT_FOR_TEST)
        l->length = tm_length(r, l->iterable);
    if (l->length < 0) { /* a generator: what is left of it is kept */
        struct tm_val rest = tm_to_list(r, tm_iter_val(l->it), V_LIST);
        l->it = tm_iter_open(r, rest);
        l->length = (int64_t)rest.l->n + l->index0 + 1 + (l->after.kind != V_MISSING);
    }
    return l->length;
}

struct tm_val tm_loop_attr(struct tm_run *r, struct tm_loop *l, struct str name) {
    if (str_eqz(name, "index0"))
        return tm_int(l->index0);
    if (str_eqz(name, "index"))
        return tm_int(l->index0 + 1);
    if (str_eqz(name, "first"))
        return tm_bool(l->index0 == 0);
    if (str_eqz(name, "last"))
        return tm_bool(loop_peek(r, l).kind == V_MISSING);
    if (str_eqz(name, "length"))
        return tm_int(loop_length(r, l));
    if (str_eqz(name, "revindex"))
        return tm_int(loop_length(r, l) - l->index0);
    if (str_eqz(name, "revindex0"))
        return tm_int(loop_length(r, l) - l->index0 - 1);
    if (str_eqz(name, "depth"))
        return tm_int(l->depth0 + 1);
    if (str_eqz(name, "depth0"))
        return tm_int(l->depth0);
    if (str_eqz(name, "previtem"))
        return l->index0 == 0 ? tm_undef(r, "there is no previous item", (struct str){0}, NULL) : l->before;
    if (str_eqz(name, "nextitem")) {
        struct tm_val v = loop_peek(r, l);
        return v.kind == V_MISSING ? tm_undef(r, "there is no next item", (struct str){0}, NULL) : v;
    }
    return TM_MISSING;
}

static struct tm_iter *loop_source(struct tm_run *r, const struct tm_node *n, struct tm_val iterable) {
    struct tm_iter *it = tm_iter_open(r, iterable);
    if (!n->loop.test)
        return it;
    tm_scope_enter(r, &n->loop.test_scope);
    struct tm_iter *filtered = tm_alloc(r, sizeof *filtered);
    filtered->kind = IT_FOR_TEST;
    filtered->at = 0;
    filtered->for_test.from = it;
    filtered->for_test.loop = n;
    filtered->for_test.act = r->act;
    return filtered;
}

/* One loop over an iterable, in the current activation. */
static enum tm_flow run_loop(struct tm_run *r, const struct tm_node *n, struct tm_val iterable,
                             int64_t depth0, struct tm_act *defined_in) {
    struct tm_loop *l = NULL;
    struct tm_iter *it = loop_source(r, n, iterable);
    if (n->loop.extended) {
        l = tm_alloc(r, sizeof *l);
        *l = (struct tm_loop){.iterable = iterable,
                              .it = it,
                              .index0 = -1,
                              .length = -1,
                              .depth0 = depth0,
                              .recursive = n->loop.recursive ? n : NULL,
                              .act = defined_in};
        r->act->slots[n->loop.loop_slot] = (struct tm_val){.kind = V_LOOP, .loop = l};
    }
    bool ran = false;
    struct tm_val v;
    while (l ? loop_next(r, l, &v) : tm_iter_next(r, it, &v)) {
        r->line = n->line;
        tm_assign(r, n->loop.target, v);
        tm_scope_enter(r, &n->loop.scope);
        enum tm_flow flow = tm_exec(r, &n->loop.body);
        if (flow == FLOW_BREAK)
            break;
        ran = ran || flow == FLOW_ON; /* Jinja's own test: an iteration that ended early does not count */
    }
    scope_leave(r, &n->loop.scope);
    if (ran || n->loop.other.n == 0)
        return FLOW_ON;
    tm_scope_enter(r, &n->loop.other_scope);
    enum tm_flow flow = tm_exec(r, &n->loop.other);
    scope_leave(r, &n->loop.other_scope);
    return flow;
}

/* A recursive loop is a function: every level has variables of its own. */
static void run_recursive(struct tm_run *r, const struct tm_node *n, struct tm_val iterable, int64_t depth0,
                          struct tm_act *defined_in) {
    if (r->calls >= r->t->limits.depth_max)
        tm_fail(r, "template calls are nested deeper than %u (--max-template-depth)", r->t->limits.depth_max);
    struct tm_act *act = tm_alloc(r, sizeof *act + n->loop.n_slots * sizeof act->slots[0]), *caller = r->act;
    act->up = defined_in;
    for (size_t i = 0; i < n->loop.n_slots; i++)
        act->slots[i] = TM_MISSING;
    r->act = act;
    r->calls++;
    run_loop(r, n, iterable, depth0, defined_in);
    r->calls--;
    r->act = caller;
}

struct tm_val tm_loop_call(struct tm_run *r, struct tm_loop *l, struct tm_val iterable) {
    if (!l->recursive)
        tm_fail(r, "The loop must have the 'recursive' marker to be called recursively.");
    struct tm_cap outer = tm_cap_begin(r);
    run_recursive(r, l->recursive, iterable, l->depth0 + 1, l->act);
    return tm_cap_end(r, outer);
}

static enum tm_flow exec_for(struct tm_run *r, const struct tm_node *n) {
    struct tm_val iterable = tm_eval(r, n->loop.iter);
    r->line = n->line;
    if (!n->loop.recursive)
        return run_loop(r, n, iterable, 0, NULL);
    run_recursive(r, n, iterable, 0, r->act);
    return FLOW_ON;
}

/* ---- the other statements ---- */

static enum tm_flow exec_if(struct tm_run *r, const struct tm_node *n) {
    for (uint32_t i = 0; i < n->cases.n_branches; i++) {
        const struct tm_branch *b = &n->cases.branches[i];
        if (!b->test || tm_truth(r, tm_eval(r, b->test)))
            return tm_exec(r, &b->body);
    }
    return FLOW_ON;
}

static void exec_print(struct tm_run *r, const struct tm_node *n) {
    if (n->operand->kind != N_CONCAT) {
        tm_put_val(r, tm_eval(r, n->operand));
        return;
    }
    const struct tm_nodes *items = &n->operand->items; /* no need to make one string of them */
    for (uint32_t i = 0; i < items->n; i++)
        tm_put_val(r, tm_eval(r, items->v[i]));
}

static void put_text(struct tm_run *r, struct tm_val v) {
    if (v.kind != V_STR)
        tm_fail(r, "a block's result must be a string, not %s", tm_type_name(v));
    tm_put_str(r, v.s);
}

/* set and filter blocks */
static enum tm_flow exec_block(struct tm_run *r, const struct tm_node *n) {
    struct tm_cap outer = tm_cap_begin(r);
    tm_scope_enter(r, &n->block.scope);
    enum tm_flow flow = tm_exec(r, &n->block.body);
    if (flow != FLOW_ON) {
        tm_cap_drop(r, outer);
        return flow;
    }
    struct tm_val v = tm_cap_end(r, outer);
    if (n->block.filter) {
        r->block = v;
        v = tm_eval(r, n->block.filter);
    }
    r->line = n->line;
    if (n->kind == N_FILTERBLOCK)
        put_text(r, v);
    else
        tm_assign(r, n->block.target, v);
    scope_leave(r, &n->block.scope);
    return FLOW_ON;
}

static struct tm_val macro_val(struct tm_run *r, const struct tm_func *f) {
    struct tm_macro *m = tm_alloc(r, sizeof *m);
    *m = (struct tm_macro){f, r->act};
    return (struct tm_val){.kind = V_MACRO, .macro = m};
}

static void exec_call_block(struct tm_run *r, const struct tm_node *n) {
    struct tm_val caller = macro_val(r, n->macro.func);
    if (n->macro.call) {
        put_text(r, tm_eval_call(r, n->macro.call, caller));
        return;
    }
    static const struct tm_args none = {0};
    put_text(r, tm_call_macro(r, caller.macro, &none));
}

static enum tm_flow exec_with(struct tm_run *r, const struct tm_node *n) {
    struct tm_val *v = tm_alloc(r, n->with.values.n * sizeof *v);
    for (uint32_t i = 0; i < n->with.values.n; i++)
        v[i] = tm_eval(r, n->with.values.v[i]);
    tm_scope_enter(r, &n->with.scope);
    for (uint32_t i = 0; i < n->with.values.n; i++)
        tm_assign(r, n->with.targets.v[i], v[i]);
    enum tm_flow flow = tm_exec(r, &n->with.body);
    scope_leave(r, &n->with.scope);
    return flow;
}

static enum tm_flow exec_one(struct tm_run *r, const struct tm_node *n) {
    switch ((enum tm_nk)n->kind) {
    case N_DATA:
        tm_put(r, n->data.p, n->data.n);
        return FLOW_ON;
    case N_PRINT:
        exec_print(r, n);
        return FLOW_ON;
    case N_FOR:
        return exec_for(r, n);
    case N_IF:
        return exec_if(r, n);
    case N_SET: {
        tm_check_target(r, n->set.target);
        struct tm_val v = tm_eval(r, n->set.value);
        r->line = n->line;
        tm_assign(r, n->set.target, v);
        return FLOW_ON;
    }
    case N_SETBLOCK:
    case N_FILTERBLOCK:
        return exec_block(r, n);
    case N_MACRO:
        r->act->slots[n->macro.ref.slot] = macro_val(r, n->macro.func);
        return FLOW_ON;
    case N_CALLBLOCK:
        exec_call_block(r, n);
        return FLOW_ON;
    case N_WITH:
        return exec_with(r, n);
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        CHECK(!"a statement");
        return FLOW_ON;
    }
}

enum tm_flow tm_exec(struct tm_run *r, const struct tm_nodes *body) {
    enum tm_flow flow = FLOW_ON;
    tm_enter(r);
    for (uint32_t i = 0; i < body->n && flow == FLOW_ON; i++) {
        tm_step(r, 1);
        r->line = body->v[i]->line;
        flow = exec_one(r, body->v[i]);
    }
    tm_leave(r);
    return flow;
}
