/* A branch of facts about arrays as productions. */
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"

struct array {
    struct schema *s;
    const struct branch *b;
    uint32_t n_prefix; /* items from here on are alike */
    uint32_t min, max;
    uint32_t node;     /* for messages */
    uint32_t min_node; /* who says min */
    bool unique;
    uint32_t unique_node;
    const struct fact **counted; /* FACT_CONTAINS that need counting */
    size_t n_counted;
};

/* list_of: the schemas by position of a node, their keyword, and the keyword of the rest. */
static const json_t *list_of(const json_t *j, const char **list, const char **rest) {
    const json_t *prefix = json_object_get(j, "prefixItems"), *items = json_object_get(j, "items");
    *list = prefix ? "prefixItems" : "items";
    *rest = prefix || !json_is_array(items) ? "items" : "additionalItems";
    if (prefix && json_is_array(items))
        *rest = ""; /* the old form of items beside the new one says nothing */
    return prefix ? prefix : json_is_array(items) ? items : NULL;
}

static void gather(struct schema *s, const struct branch *b, struct array *a) {
    *a = (struct array){.s = s, .b = b, .max = SCHEMA_INF, .unique_node = UINT32_MAX};
    const char *list, *rest;
    size_t n_facts = 0;
    for (const struct fact *f = b->facts; f; f = f->next)
        n_facts++;
    a->counted = arena_alloc(&s->mem, (n_facts + 1) * sizeof(void *));
    s->steps += n_facts;
    for (const struct fact *f = b->facts; f; f = f->next) {
        const struct schema_node *n = s->nodes[f->node];
        if (f->node)
            a->node = f->node;
        switch (f->kind) {
        case FACT_SHAPE: {
            const json_t *v = n->kind == NODE_VALUE ? n->j : list_of(n->j, &list, &rest);
            a->n_prefix = MAX(a->n_prefix, (uint32_t)json_array_size(v));
            break;
        }
        case FACT_MIN:
            if (f->count > a->min)
                a->min_node = f->node;
            a->min = MAX(a->min, f->count);
            break;
        case FACT_MAX:
            a->max = MIN(a->max, f->count);
            break;
        case FACT_UNIQUE:
            a->unique = true;
            a->unique_node = f->node;
            break;
        case FACT_ITEM_IS:
            a->n_prefix = MAX(a->n_prefix, f->count + 1);
            break;
        case FACT_CONTAINS:
            a->n_prefix = MAX(a->n_prefix, f->from);
            if (f->count) {
                uint64_t least = (uint64_t)f->from + f->count;
                if (least > a->min)
                    a->min_node = f->node;
                a->min = (uint32_t)MAX(a->min, MIN(least, SCHEMA_INF - 1));
            }
            if (f->count || (f->most && f->most != SCHEMA_INF))
                a->counted[a->n_counted++] = f;
            break;
        default:
            break;
        }
    }
}

static enum rc shape_item(struct array *a, uint32_t node, uint32_t at, struct lits *out, struct err *e) {
    struct schema *s = a->s;
    const struct schema_node *n = s->nodes[node];
    const char *list, *rest;
    char index[24];
    uint32_t lit;
    if (n->kind == NODE_VALUE) {
        const json_t *v = json_array_get(n->j, at);
        lits_add(s, out, v ? schema_value(s, node, v) : LIT_FALSE);
        return RC_OK;
    }
    const json_t *v = json_array_get(list_of(n->j, &list, &rest), at);
    snprintf(index, sizeof index, "%u", at);
    if (!v && !(v = json_object_get(n->j, rest)))
        return RC_OK;
    bool one = json_array_get(list_of(n->j, &list, &rest), at) == v;
    enum rc rc = schema_sub(s, node, v, one ? list : rest, one ? index : NULL, &lit, e);
    if (!rc)
        lits_add(s, out, lit);
    return rc;
}

/* item_lits: what the item at an index must meet; n_prefix stands for all after the prefix. */
static enum rc item_lits(struct array *a, uint32_t at, struct lits *out, struct err *e) {
    *out = (struct lits){0};
    for (const struct fact *f = a->b->facts; f; f = f->next) {
        enum rc rc = RC_OK;
        if (f->kind == FACT_SHAPE)
            rc = shape_item(a, f->node, at, out, e);
        else if (f->kind == FACT_ITEM_IS && f->count == at)
            lits_add(a->s, out, f->lit);
        else if (f->kind == FACT_CONTAINS && !f->count && !f->most && at >= f->from)
            lits_add(a->s, out, lit_not(f->lit));
        if (rc)
            return rc;
    }
    return schema_step(a->s, 1, e);
}

static enum rc item_void(struct array *a, uint32_t at, bool *yes, struct err *e) {
    struct lits l;
    enum rc rc = item_lits(a, at, &l, e);
    return rc ? rc : schema_void(a->s, l.v, l.n, yes, e);
}

enum rc array_dead(struct schema *s, const struct branch *b, bool *dead, struct err *e) {
    struct array a;
    gather(s, b, &a);
    *dead = a.min > a.max;
    for (uint32_t i = 0; !*dead && i < MIN(a.min, a.n_prefix + 1); i++) {
        enum rc rc = item_void(&a, i, dead, e);
        if (rc)
            return rc;
    }
    return RC_OK;
}

/* ---- plain arrays ------------------------------------------------------------------------------- */

/* sequence: items by position, then the rest, between the brackets. */
static enum rc sequence(struct array *a, uint32_t rule, struct err *e) {
    struct schema *s = a->s;
    struct lits l;
    uint32_t n = MIN(a->n_prefix, a->max), rest = SYM_NONE;
    uint32_t *sym = arena_alloc(&s->mem, ((size_t)n + 1) * sizeof *sym);
    enum rc rc = RC_OK;
    for (uint32_t i = 0; i < n && !rc; i++) {
        rc = item_lits(a, i, &l, e);
        if (!rc)
            rc = schema_sym(s, l.v, l.n, &sym[i], e);
        if (!rc && sym[i] == SYM_NONE)
            a->max = n = i;
    }
    if (!rc && a->max > n)
        rc = item_lits(a, n, &l, e);
    if (!rc && a->max > n)
        rc = schema_sym(s, l.v, l.n, &rest, e);
    if (rc)
        return rc;
    if (rest == SYM_NONE)
        a->max = MIN(a->max, n);
    if (a->min > a->max)
        return RC_OK;
    if (a->min == 0)
        schema_prod(s, rule, &s->t_empty_arr, 1);
    if (a->max == 0)
        return RC_OK;
    uint32_t more = UINT32_MAX;
    if (a->max > n)
        more =
            schema_repeat(s, rest, a->min > n ? a->min - n : 1, a->max == SCHEMA_INF ? RX_INF : a->max - n);
    if (n == 0) {
        schema_prod(s, rule, (uint32_t[]){s->t_open_arr, more, s->t_close_arr}, 3);
        return RC_OK;
    }
    /* tail: what follows n items, n - 1 items, ... */
    uint32_t tail = schema_rule(s, "items", 0);
    if (n >= a->min)
        schema_prod(s, tail, &s->t_close_arr, 1);
    if (more != UINT32_MAX)
        schema_prod(s, tail, (uint32_t[]){s->t_comma, more, s->t_close_arr}, 3);
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t before = schema_rule(s, "items", 0);
        if (i >= a->min)
            schema_prod(s, before, &s->t_close_arr, 1);
        schema_prod(s, before, (uint32_t[]){s->t_comma, sym[i], tail}, 3);
        tail = before;
    }
    schema_prod(s, rule, (uint32_t[]){s->t_open_arr, sym[0], tail}, 3);
    return schema_step(s, n, e);
}

/* ---- arrays with counts: contains, uniqueItems -------------------------------------------------- */

/* A state is how many items there are, up to n_items where that no longer matters, and how many met each
 * `contains`, up to cap where that no longer matters. */
struct counts {
    struct array *a;
    uint32_t n_items;
    uint32_t *cap;
    uint32_t *rule; /* per state; 0: not met yet. Rule ids are kept plus 1 */
    uint32_t *work;
    size_t n_states, n_work;
};

static uint32_t *state_of(struct counts *c, uint32_t at, const uint32_t *met) {
    size_t i = at;
    for (size_t k = 0; k < c->a->n_counted; k++)
        i = i * (c->cap[k] + 1) + met[k];
    if (!c->rule[i]) {
        c->rule[i] = schema_rule(c->a->s, "items", 0) + 1;
        c->work[c->n_work++] = (uint32_t)i;
    }
    return &c->rule[i];
}

/* item_sym: a symbol for an item; of unique ones a terminal that is not repeated. */
static enum rc item_sym(struct array *a, const struct lits *l, uint32_t *sym, struct err *e) {
    struct scalar sc;
    if (!a->unique)
        return schema_sym(a->s, l->v, l->n, sym, e);
    enum rc rc = schema_scalar_all(a->s, l->v, l->n, &sc, e);
    if (rc)
        return rc;
    if (sc.arr != PART_NONE || sc.obj != PART_NONE)
        return schema_fail(a->s, a->unique_node, "uniqueItems", e,
                           "is supported where items are null, booleans, numbers and strings only");
    uint32_t rx = scalar_output(a->s, &sc, true);
    *sym = rx == RX_NONE ? SYM_NONE : gram_term(a->s->g, rx, TERM_UNIQUE);
    return RC_OK;
}

/* few: the size of an item's set is no more than n: so n items before it may have used all of it up. */
static enum rc few(struct array *a, uint32_t at, uint32_t n, bool *yes, uint32_t *size, struct err *e) {
    struct lits l;
    struct scalar sc;
    enum rc rc = item_lits(a, at, &l, e);
    if (!rc)
        rc = schema_scalar_all(a->s, l.v, l.n, &sc, e);
    if (!rc)
        rc = scalar_size(a->s, &sc, size, e);
    *yes = !rc && *size <= n;
    return rc;
}

/* fit_unique: bounds the array by the number of different items, so that it cannot get stuck. */
static enum rc fit_unique(struct array *a, struct err *e) {
    uint32_t size;
    bool yes;
    if (!a->unique)
        return RC_OK;
    for (uint32_t i = 0; i < MIN(a->n_prefix, a->max); i++) {
        enum rc rc = few(a, i, i, &yes, &size, e);
        if (rc)
            return rc;
        if (yes && size == 0)
            a->max = i;
        else if (yes)
            return schema_fail(a->s, a->unique_node, "uniqueItems", e,
                               "is not supported where item %u has only %u different values", i, size);
    }
    if (a->max <= a->n_prefix)
        return RC_OK;
    enum rc rc = few(a, a->n_prefix, a->max - 1, &yes, &size, e);
    if (rc || !yes)
        return rc;
    if (a->n_prefix == 0 || size == 0)
        a->max = MAX(a->n_prefix, size);
    else
        return schema_fail(
            a->s, a->unique_node, "uniqueItems", e,
            "is not supported where the items behind prefixItems have only %u different values", size);
    return RC_OK;
}

/* step: all ways to go on with one item from a state. way: bit k set: the item meets contains k. */
static enum rc step(struct counts *c, uint32_t from, bool first, uint32_t at, const uint32_t *met,
                    struct err *e) {
    struct array *a = c->a;
    struct schema *s = a->s;
    for (uint32_t way = 0; way < 1u << a->n_counted; way++) {
        uint32_t next[8], sym;
        struct lits l;
        bool skip = false;
        enum rc rc = item_lits(a, MIN(at, a->n_prefix), &l, e);
        for (size_t k = 0; k < a->n_counted && !rc; k++) {
            const struct fact *f = a->counted[k];
            bool meets = way >> k & 1, counts = at >= f->from, open = f->most == SCHEMA_INF;
            next[k] = met[k] + meets;
            /* With no upper bound a miss is no claim; and once there are enough, nothing counts. */
            if (meets && (!counts || met[k] == c->cap[k]))
                skip = true;
            if (meets || (counts && !open))
                lits_add(s, &l, meets ? f->lit : lit_not(f->lit));
        }
        if (!rc && !skip)
            rc = item_sym(a, &l, &sym, e);
        if (!rc)
            rc = schema_step(s, 1, e);
        if (rc)
            return rc;
        if (skip || sym == SYM_NONE)
            continue;
        uint32_t to = *state_of(c, MIN(at + 1, c->n_items), next) - 1;
        schema_prod(s, from, (uint32_t[]){first ? s->t_open_arr : s->t_comma, sym, to}, 3);
    }
    return RC_OK;
}

static bool enough(const struct array *a, uint32_t at, const uint32_t *met) {
    for (size_t k = 0; k < a->n_counted; k++)
        if (met[k] < a->counted[k]->count)
            return false;
    return at >= a->min;
}

/* plan: how many states; RC_INVALID if they are too many. */
static enum rc plan(struct counts *c, struct err *e) {
    struct array *a = c->a;
    const char *keyword = a->n_counted ? "contains" : "uniqueItems";
    uint32_t node = a->n_counted ? a->counted[0]->node : a->unique_node;
    c->n_items = a->max != SCHEMA_INF ? a->max : MAX(MAX(a->min, a->n_prefix), 1);
    uint64_t n = (uint64_t)c->n_items + 1;
    if (a->n_counted > 4)
        return schema_fail(a->s, node, keyword, e, "more than 4 of them on one array are not supported");
    c->cap = arena_zalloc(&a->s->mem, a->n_counted + 1, sizeof *c->cap);
    for (size_t k = 0; k < a->n_counted && n <= SCHEMA_STATES_MAX; k++) {
        c->cap[k] = a->counted[k]->most == SCHEMA_INF ? a->counted[k]->count : a->counted[k]->most;
        n *= (uint64_t)c->cap[k] + 1;
    }
    if (n > SCHEMA_STATES_MAX)
        return schema_fail(a->s, node, keyword, e, "needs more than %d counts of items", SCHEMA_STATES_MAX);
    c->n_states = (size_t)n;
    c->rule = arena_zalloc(&a->s->mem, c->n_states, sizeof *c->rule);
    c->work = arena_zalloc(&a->s->mem, c->n_states, sizeof *c->work);
    return RC_OK;
}

static enum rc counted(struct array *a, uint32_t rule, struct err *e) {
    struct schema *s = a->s;
    struct counts c = {.a = a};
    uint32_t met[8] = {0};
    enum rc rc = fit_unique(a, e);
    if (rc || a->min > a->max)
        return rc;
    rc = plan(&c, e);
    if (!rc && enough(a, 0, met))
        schema_prod(s, rule, &s->t_empty_arr, 1);
    if (!rc && a->max > 0) {
        /* A rule of its own: keys that may not repeat are those of this array. */
        uint32_t scope = schema_rule(s, "array", a->unique ? RULE_SCOPE : 0);
        schema_prod(s, rule, &scope, 1);
        rc = step(&c, scope, true, 0, met, e);
    }
    while (!rc && c.n_work) {
        uint32_t i = c.work[--c.n_work], at = i, self = c.rule[i] - 1;
        for (size_t k = a->n_counted; k-- > 0;) {
            met[k] = at % (c.cap[k] + 1);
            at /= c.cap[k] + 1;
        }
        if (enough(a, at, met))
            schema_prod(s, self, &s->t_close_arr, 1);
        if (at < a->max)
            rc = step(&c, self, false, at, met, e);
    }
    return rc;
}

enum rc schema_array(struct schema *s, uint32_t rule, const struct branch *b, struct err *e) {
    struct array a;
    gather(s, b, &a);
    if (a.min > SCHEMA_COUNT_MAX && a.min <= a.max)
        return schema_fail(s, a.min_node, "minItems", e, "asks for more than %d items", SCHEMA_COUNT_MAX);
    for (const struct fact *f = b->facts; f; f = f->next)
        if (f->kind == FACT_UNSAID)
            return schema_fail(s, f->node, f->text, e, "cannot be negated (not, if, oneOf)");
    if (a.max <= 1)
        a.unique = false;
    return a.n_counted || a.unique ? counted(&a, rule, e) : sequence(&a, rule, e);
}
