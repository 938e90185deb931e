/* walk.c: every node of a tree, in a fixed order. Recursion is bounded by the parser's limits. */
#include "router/tmpl/ast.h"

typedef bool walk_fn(const struct tm_node *n, void *arg);

bool tm_walk_all(struct tm_nodes list, walk_fn *fn, void *arg) {
    for (uint32_t i = 0; i < list.n; i++)
        if (!tm_walk(list.v[i], fn, arg))
            return false;
    return true;
}

static bool walk_args(const struct tm_call_args *args, walk_fn *fn, void *arg) {
    if (!tm_walk_all(args->pos, fn, arg))
        return false;
    for (uint32_t i = 0; i < args->n_kw; i++)
        if (!tm_walk(args->kw[i].value, fn, arg))
            return false;
    return tm_walk(args->star, fn, arg) && tm_walk(args->star2, fn, arg);
}

static bool walk_func(const struct tm_func *f, walk_fn *fn, void *arg) {
    for (uint32_t i = 0; i < f->n_params; i++)
        if (!tm_walk(f->params[i], fn, arg))
            return false;
    return tm_walk_all(f->defaults, fn, arg) && tm_walk_all(f->body, fn, arg);
}

static bool walk_if(const struct tm_node *n, walk_fn *fn, void *arg) {
    for (uint32_t i = 0; i < n->cases.n_branches; i++) {
        const struct tm_branch *b = &n->cases.branches[i];
        if (!tm_walk(b->test, fn, arg) || !tm_walk_all(b->body, fn, arg))
            return false;
    }
    return true;
}

static bool walk_statement(const struct tm_node *n, walk_fn *fn, void *arg) {
    switch ((enum tm_nk)n->kind) {
    case N_PRINT:
        return tm_walk(n->operand, fn, arg);
    case N_FOR:
        return tm_walk(n->loop.target, fn, arg) && tm_walk(n->loop.iter, fn, arg) &&
               tm_walk_all(n->loop.body, fn, arg) && tm_walk_all(n->loop.other, fn, arg) &&
               tm_walk(n->loop.test, fn, arg);
    case N_IF:
        return walk_if(n, fn, arg);
    case N_SET:
        return tm_walk(n->set.target, fn, arg) && tm_walk(n->set.value, fn, arg);
    case N_SETBLOCK:
    case N_FILTERBLOCK:
        return tm_walk(n->block.target, fn, arg) && tm_walk(n->block.filter, fn, arg) &&
               tm_walk_all(n->block.body, fn, arg);
    case N_MACRO:
        return walk_func(n->macro.func, fn, arg);
    case N_CALLBLOCK:
        return tm_walk(n->macro.call, fn, arg) && walk_func(n->macro.func, fn, arg);
    case N_WITH:
        return tm_walk_all(n->with.targets, fn, arg) && tm_walk_all(n->with.values, fn, arg) &&
               tm_walk_all(n->with.body, fn, arg);
    default:
        return true; /* N_DATA, N_BREAK, N_CONTINUE */
    }
}

bool tm_walk(const struct tm_node *n, walk_fn *fn, void *arg) {
    if (!n)
        return true;
    if (!fn(n, arg))
        return false;
    switch ((enum tm_nk)n->kind) {
    case N_CONST:
    case N_NAME:
    case N_NSREF:
        return true;
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
    case N_OR:
    case N_AND:
    case N_CONCAT:
        return tm_walk_all(n->items, fn, arg);
    case N_COND:
        return tm_walk(n->cond.test, fn, arg) && tm_walk(n->cond.then, fn, arg) &&
               tm_walk(n->cond.other, fn, arg);
    case N_COMPARE:
    case N_ARITH:
        return tm_walk_all(n->chain.operands, fn, arg);
    case N_NOT:
    case N_NEG:
    case N_POS:
        return tm_walk(n->operand, fn, arg);
    case N_GETATTR:
    case N_GETITEM:
        return tm_walk(n->item.obj, fn, arg) && tm_walk(n->item.key, fn, arg);
    case N_SLICE:
        return tm_walk(n->slice.start, fn, arg) && tm_walk(n->slice.stop, fn, arg) &&
               tm_walk(n->slice.step, fn, arg);
    case N_CALL:
    case N_FILTER:
    case N_TEST:
        return tm_walk(n->call.obj, fn, arg) && walk_args(&n->call.args, fn, arg);
    default:
        return walk_statement(n, fn, arg);
    }
}
