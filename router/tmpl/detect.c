/* detect.c: whether a template walks over the parts of a message's content (api.md 10.3.1).
 *
 * Every name of the template may stand for the messages, a message or a message's content; what it
 * may stand for grows with each pass over the tree until nothing is added. Scopes are ignored, so an
 * alias made anywhere counts everywhere.
 */
#include "router/tmpl/ast.h"

enum { IS_MESSAGES = 1, IS_MESSAGE = 2, IS_CONTENT = 4, BUCKETS = 1024, PASSES_MAX = 8 };

struct name {
    struct name *next;
    struct str s;
    unsigned is;
    const struct tm_func *macro; /* the last macro of that name */
};

struct detect {
    struct arena *a;
    struct name *buckets[BUCKETS];
    bool changed, found;
};

static struct name *name_of(struct detect *d, struct str s) {
    struct name **b = &d->buckets[tm_hash_bytes(s.p, s.n) % BUCKETS];
    for (struct name *n = *b; n; n = n->next)
        if (str_eq(n->s, s))
            return n;
    struct name *n = arena_zalloc(d->a, 1, sizeof *n);
    *n = (struct name){.next = *b, .s = s, .is = str_eqz(s, "messages") ? IS_MESSAGES : 0};
    *b = n;
    return n;
}

static unsigned meaning(struct detect *d, const struct tm_node *n);

static unsigned meanings(struct detect *d, struct tm_nodes list) {
    unsigned is = 0;
    for (uint32_t i = 0; i < list.n; i++)
        is |= meaning(d, list.v[i]);
    return is;
}

/* What an element of a thing is. */
static unsigned element(unsigned is) {
    return is & IS_MESSAGES ? IS_MESSAGE : 0;
}

/* obj[key], obj.key or obj.get(key) */
static unsigned item(unsigned is, const struct tm_node *key) {
    bool content = key->kind == N_CONST && key->konst.kind == V_STR &&
                   str_eqz((struct str){key->konst.s->p, key->konst.s->n}, "content");
    return element(is) | (content && is & IS_MESSAGE ? IS_CONTENT : 0);
}

static unsigned meaning_call(struct detect *d, const struct tm_node *n) {
    const struct tm_node *f = n->call.obj;
    if (f->kind != N_GETATTR || n->call.args.pos.n == 0)
        return 0;
    struct str name = {f->item.name->p, f->item.name->n};
    return str_eqz(name, "get") ? item(meaning(d, f->item.obj), n->call.args.pos.v[0]) : 0;
}

static unsigned meaning(struct detect *d, const struct tm_node *n) {
    if (!n)
        return 0;
    switch ((enum tm_nk)n->kind) {
    case N_NAME:
        return name_of(d, n->name.name)->is;
    case N_COND:
        return meaning(d, n->cond.then) | meaning(d, n->cond.other);
    case N_OR:
    case N_AND:
        return meanings(d, n->items);
    case N_LIST: /* [first] + rest */
        return meanings(d, n->items) & IS_MESSAGE ? IS_MESSAGES : 0;
    case N_ARITH:
        return meanings(d, n->chain.operands);
    case N_GETATTR: {
        unsigned is = meaning(d, n->item.obj);
        return is & IS_MESSAGE && n->item.name->n == 7 && memcmp(n->item.name->p, "content", 7) == 0
                   ? IS_CONTENT
                   : 0;
    }
    case N_GETITEM: {
        unsigned is = meaning(d, n->item.obj);
        return n->item.key->kind == N_SLICE ? is : item(is, n->item.key);
    }
    case N_FILTER: {
        unsigned is = meaning(d, n->call.obj);
        return str_eqz(n->call.name, "first") || str_eqz(n->call.name, "last") ? element(is) | (is & ~1u)
                                                                               : is;
    }
    case N_TEST:
        return meaning(d, n->call.obj);
    case N_CALL:
        return meaning_call(d, n);
    default:
        return 0;
    }
}

static void add(struct detect *d, struct str name, unsigned is) {
    struct name *n = name_of(d, name);
    if (is & ~n->is) {
        n->is |= is;
        d->changed = true;
    }
}

static void assign(struct detect *d, const struct tm_node *target, unsigned is) {
    if (target->kind == N_NAME)
        add(d, target->name.name, is);
}

/* f(message): the macro's parameters stand for its arguments. */
static void pass_args(struct detect *d, const struct tm_node *call) {
    if (call->call.obj->kind != N_NAME)
        return;
    const struct tm_func *f = name_of(d, call->call.obj->name.name)->macro;
    const struct tm_call_args *args = &call->call.args;
    for (uint32_t i = 0; f && i < MIN(args->pos.n, f->n_params); i++)
        assign(d, f->params[i], meaning(d, args->pos.v[i]));
    for (uint32_t i = 0; f && i < args->n_kw; i++)
        add(d, args->kw[i].name, meaning(d, args->kw[i].value));
}

static bool visit(const struct tm_node *n, void *arg) {
    struct detect *d = arg;
    switch ((enum tm_nk)n->kind) {
    case N_FOR: {
        unsigned is = meaning(d, n->loop.iter);
        d->found = d->found || is & IS_CONTENT;
        assign(d, n->loop.target, element(is));
        break;
    }
    case N_SET:
        if (n->set.target->kind == N_TUPLE && n->set.value->kind == N_TUPLE) {
            for (uint32_t i = 0; i < MIN(n->set.target->items.n, n->set.value->items.n); i++)
                assign(d, n->set.target->items.v[i], meaning(d, n->set.value->items.v[i]));
        } else {
            assign(d, n->set.target, meaning(d, n->set.value));
        }
        break;
    case N_WITH:
        for (uint32_t i = 0; i < n->with.targets.n; i++)
            assign(d, n->with.targets.v[i], meaning(d, n->with.values.v[i]));
        break;
    case N_MACRO:
        name_of(d, n->macro.func->name)->macro = n->macro.func;
        break;
    case N_CALL:
        pass_args(d, n);
        break;
    default:
        break;
    }
    return !d->found;
}

bool tm_detect_openai(struct tm_nodes body, struct arena *scratch) {
    struct detect *d = arena_zalloc(scratch, 1, sizeof *d);
    d->a = scratch;
    d->changed = true;
    for (int i = 0; i < PASSES_MAX && d->changed && !d->found; i++) {
        d->changed = false;
        tm_walk_all(body, visit, d);
    }
    return d->found;
}
