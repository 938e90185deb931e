/* A branch of facts about objects as productions: declared keys in order, then extra keys that do not repeat.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema_object.h"

/* ---- names -------------------------------------------------------------------------------------- */

static size_t slot_of(const struct object *o, struct str body) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < body.n; i++)
        h = (h ^ (unsigned char)body.p[i]) * 0x100000001B3u;
    size_t at = (size_t)(h ^ h >> 29) & (o->n_table - 1);
    while (o->table[at] && !str_eq(o->name[o->table[at] - 1].body, body))
        at = (at + 1) & (o->n_table - 1);
    return at;
}

static struct name *add_body(struct object *o, struct str body, const char *key) {
    if (o->n_names * 2 >= o->n_table) {
        o->n_table = MAX(8, o->n_table * 2);
        o->table = arena_zalloc(&o->s->mem, o->n_table, sizeof *o->table);
        struct name *more = arena_zalloc(&o->s->mem, o->n_table / 2 + 1, sizeof *more);
        if (o->n_names)
            memcpy(more, o->name, o->n_names * sizeof *more);
        o->name = more;
        for (uint32_t i = 0; i < o->n_names; i++)
            o->table[slot_of(o, o->name[i].body)] = i + 1;
    }
    size_t at = slot_of(o, body);
    if (!o->table[at]) {
        o->name[o->n_names] = (struct name){.body = body, .key = key};
        o->table[at] = (uint32_t)++o->n_names;
    }
    return &o->name[o->table[at] - 1];
}

static struct name *add_name(struct object *o, const char *key) {
    struct buf b = {0};
    jt_spell(&b, str_of(key));
    struct str body = {arena_strndup(&o->s->mem, b.len ? b.data : "", b.len), b.len};
    buf_fini(&b);
    return add_body(o, body, key);
}

static void declare(struct object *o, const json_t *map) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, key, v) add_name(o, key)->declared = true;
}

/* ---- facts -------------------------------------------------------------------------------------- */

static void gather_shape(struct object *o, uint32_t node) {
    const struct schema_node *n = o->s->nodes[node];
    o->n_shapes++;
    if (n->kind == NODE_VALUE) {
        declare(o, n->j);
        return;
    }
    const json_t *properties = json_object_get(n->j, "properties");
    declare(o, properties);
    o->declares = o->declares || properties;
    o->opens = o->opens || json_object_get(n->j, "additionalProperties");
}

static enum rc gather_names(struct object *o, uint32_t lit, struct err *e) {
    struct scalar sc;
    enum rc rc = schema_scalar(o->s, lit, &sc, e);
    if (rc)
        return rc;
    o->keys = vset_and(o->s, o->keys, sc.str);
    return RC_OK;
}

enum rc object_gather(struct schema *s, const struct branch *b, struct object *o, struct err *e) {
    enum rc rc = RC_OK;
    *o = (struct object){.s = s, .b = b, .max = SCHEMA_INF, .keys = vset_all(false)};
    for (const struct fact *f = b->facts; f; f = f->next)
        if (f->kind == FACT_SHAPE)
            gather_shape(o, f->node);
    for (const struct fact *f = b->facts; f && !rc; f = f->next) {
        struct name *name;
        switch (f->kind) {
        case FACT_REQUIRED:
            name = add_name(o, f->text);
            o->n_required += !name->required;
            name->required = true;
            name->node = f->node;
            break;
        case FACT_ABSENT:
            add_name(o, f->text)->absent = true;
            break;
        case FACT_KEY_IS:
            (void)add_name(o, f->text);
            break;
        case FACT_NAMES:
            rc = gather_names(o, f->lit, e);
            o->names_node = f->node;
            break;
        case FACT_MIN:
            if (f->count > o->min)
                o->min_node = f->node;
            o->min = MAX(o->min, f->count);
            break;
        case FACT_MAX:
            o->max = MIN(o->max, f->count);
            break;
        default:
            break;
        }
    }
    o->closed = s->options->no_additional_properties ? o->n_shapes > 0 : o->declares && !o->opens;
    if (!rc)
        rc = vset_settle(s, &o->keys, o->names_node, "propertyNames", e);
    for (size_t i = 0; !rc && o->keys.kind == SET_LIST && i < o->keys.n; i++)
        (void)add_body(o, o->keys.item[i].key, NULL);
    if (!rc && o->n_names > SCHEMA_NAMES_MAX)
        return schema_fail(s, b->facts ? b->facts->node : 0, "properties", e,
                           "%zu names on one object; at most %d are supported", o->n_names, SCHEMA_NAMES_MAX);
    return rc ? rc : schema_step(s, o->n_names, e);
}

/* ---- what the value of a key must meet ---------------------------------------------------------- */

enum rc object_pattern(struct object *o, uint32_t node, const char *pattern, uint32_t *rx, struct err *e) {
    struct err why;
    enum rc rc = rx_parse_in(o->s->g, str_of(pattern), true, jt_one_of, rx, &why);
    if (rc)
        rc = schema_fail(o->s, node, "patternProperties", e, "\"%.60s\": %.300s", pattern, why.msg);
    return rc;
}

/* shape_key: of one node; *matched: one of its patterns has the key. */
static enum rc shape_key(struct object *o, uint32_t node, const struct name *name, struct lits *out,
                         bool *matched, struct err *e) {
    struct schema *s = o->s;
    const struct schema_node *n = s->nodes[node];
    const json_t *v;
    const char *pattern;
    json_t *sub;
    uint32_t lit, rx;
    if (n->kind == NODE_VALUE) {
        v = name->key ? json_object_get(n->j, name->key) : NULL;
        lits_add(s, out, v ? schema_value(s, node, v) : LIT_FALSE);
        return RC_OK;
    }
    bool here = false;
    v = name->key ? json_object_get(json_object_get(n->j, "properties"), name->key) : NULL;
    if (v) {
        enum rc rc = schema_sub(s, node, v, "properties", name->key, &lit, e);
        if (rc)
            return rc;
        lits_add(s, out, lit);
        here = true;
    }
    json_object_foreach(json_object_get(n->j, "patternProperties"), pattern, sub) {
        enum rc rc = object_pattern(o, node, pattern, &rx, e);
        if (!rc)
            rc = schema_step(s, 1, e);
        if (!rc && rx_matches(s->g, rx, name->body)) {
            rc = schema_sub(s, node, sub, "patternProperties", pattern, &lit, e);
            lits_add(s, out, lit);
            here = *matched = true;
        }
        if (rc)
            return rc;
    }
    v = here ? NULL : json_object_get(n->j, "additionalProperties");
    if (!v)
        return RC_OK;
    enum rc rc = schema_sub(s, node, v, "additionalProperties", NULL, &lit, e);
    lits_add(s, out, s->options->no_additional_properties ? LIT_FALSE : lit);
    return rc;
}

enum rc object_key(struct object *o, const struct name *name, struct lits *out, struct err *e) {
    bool matched = false;
    *out = (struct lits){0};
    if (name->absent || !vset_has(o->s, &o->keys, name->body))
        lits_add(o->s, out, LIT_FALSE);
    for (const struct fact *f = o->b->facts; f; f = f->next) {
        enum rc rc = RC_OK;
        if (f->kind == FACT_SHAPE)
            rc = shape_key(o, f->node, name, out, &matched, e);
        else if (f->kind == FACT_KEY_IS && name->key && strcmp(f->text, name->key) == 0)
            lits_add(o->s, out, f->lit);
        if (rc)
            return rc;
    }
    if (o->closed && !name->declared && !matched)
        lits_add(o->s, out, LIT_FALSE);
    return schema_step(o->s, 1, e);
}

enum rc object_dead(struct schema *s, const struct branch *b, bool *dead, struct err *e) {
    struct object o;
    enum rc rc = object_gather(s, b, &o, e);
    if (rc)
        return rc;
    *dead = o.min > o.max || o.n_required > o.max;
    for (size_t i = 0; i < o.n_names && !*dead; i++) {
        struct lits l;
        if (!o.name[i].required)
            continue;
        rc = object_key(&o, &o.name[i], &l, e);
        if (!rc)
            rc = schema_void(s, l.v, l.n, dead, e);
        if (rc)
            return rc;
        if (*dead)
            schema_hint(s, o.name[i].node, "required", "no value is possible for \"%.60s\"", o.name[i].key);
    }
    return RC_OK;
}

/* ---- extra keys --------------------------------------------------------------------------------- */

/* A pattern of a node, numbered over all nodes of the branch. */
struct pattern {
    uint32_t node, rx, lit;
};

/* split: tells keys that match a pattern from those that do not. */
static enum rc split(struct object *o, struct cell *cell, size_t *n, const struct pattern *p, size_t index,
                     struct err *e) {
    struct gram *g = o->s->g;
    size_t before = *n;
    for (size_t i = 0; i < before; i++) {
        bool none;
        uint32_t in = rx_and(g, cell[i].rx, p->rx), out = rx_and(g, cell[i].rx, rx_not(g, p->rx));
        struct err why;
        if (rx_is_none(g, in, &none, &why))
            return schema_fail(o->s, p->node, "patternProperties", e, "too complex: %.200s", why.msg);
        if (none)
            continue;
        if (*n == SCHEMA_CELLS_MAX)
            return schema_fail(o->s, p->node, "patternProperties", e,
                               "tells more than %d kinds of keys apart", SCHEMA_CELLS_MAX);
        if (rx_is_none(g, out, &none, &why))
            return schema_fail(o->s, p->node, "patternProperties", e, "too complex: %.200s", why.msg);
        if (!none) {
            cell[*n] = (struct cell){.rx = out, .patterns = cell[i].patterns};
            ++*n;
        }
        cell[i].rx = in;
        cell[i].patterns |= (uint64_t)1 << index;
    }
    return RC_OK;
}

static enum rc patterns_of(struct object *o, struct pattern *p, size_t *n, struct err *e) {
    const char *text;
    json_t *v;
    for (const struct fact *f = o->b->facts; f; f = f->next) {
        const struct schema_node *node = o->s->nodes[f->node];
        if (f->kind != FACT_SHAPE || node->kind == NODE_VALUE)
            continue;
        json_object_foreach(json_object_get(node->j, "patternProperties"), text, v) {
            if (*n == 64)
                return schema_fail(o->s, f->node, "patternProperties", e,
                                   "more than 64 patterns on one object are not supported");
            struct pattern *new = &p[*n];
            new->node = f->node;
            enum rc rc = object_pattern(o, f->node, text, &new->rx, e);
            if (!rc)
                rc = schema_sub(o->s, f->node, v, "patternProperties", text, &new->lit, e);
            if (rc)
                return rc;
            ++*n;
        }
    }
    return RC_OK;
}

/* cell_lits: what values of a cell's keys must meet. */
static enum rc cell_lits(struct object *o, const struct cell *cell, const struct pattern *p,
                         size_t n_patterns, struct lits *out, struct err *e) {
    struct schema *s = o->s;
    bool closed = o->closed && !cell->patterns;
    *out = (struct lits){0};
    if (closed)
        lits_add(s, out, LIT_FALSE);
    for (const struct fact *f = o->b->facts; f; f = f->next) {
        if (f->kind != FACT_SHAPE)
            continue;
        const struct schema_node *node = s->nodes[f->node];
        bool here = false;
        for (size_t i = 0; i < n_patterns; i++)
            if (p[i].node == f->node && cell->patterns >> i & 1) {
                lits_add(s, out, p[i].lit);
                here = true;
            }
        const json_t *v = json_object_get(node->j, "additionalProperties");
        uint32_t lit = LIT_TRUE;
        if (node->kind == NODE_VALUE) {
            lit = LIT_FALSE;
        } else if (!here && v) {
            enum rc rc = schema_sub(s, f->node, v, "additionalProperties", NULL, &lit, e);
            if (rc)
                return rc;
            lit = s->options->no_additional_properties ? LIT_FALSE : lit;
        }
        lits_add(s, out, lit);
    }
    return schema_step(s, n_patterns, e);
}

/* name_cell: a cell of few keys becomes names, so that it cannot run out of keys unnoticed. */
static enum rc name_cell(struct object *o, const struct cell *cell, bool *few, struct err *e) {
    struct str *members;
    uint32_t n;
    enum rc rc = set_members(o->s, cell->rx, &members, &n, e);
    *few = !rc && n != SCHEMA_INF;
    for (uint32_t i = 0; *few && i < n; i++)
        (void)add_body(o, members[i], NULL);
    return rc;
}

enum rc object_cells(struct object *o, struct cell *cell, size_t *n, struct err *e) {
    struct schema *s = o->s;
    struct pattern *p = arena_alloc(&s->mem, 64 * sizeof *p);
    size_t n_patterns = 0, n_all = 1;
    *n = 0;
    if (o->keys.kind == SET_NONE || o->keys.kind == SET_LIST)
        return RC_OK; /* every key is a name */
    enum rc rc = patterns_of(o, p, &n_patterns, e);
    if (rc || (o->closed && !n_patterns))
        return rc;
    struct str *names = arena_alloc(&s->mem, (o->n_names + 1) * sizeof *names);
    for (size_t i = 0; i < o->n_names; i++)
        names[i] = o->name[i].body;
    uint32_t rx = vset_rx_of(s, &o->keys);
    if (o->n_names)
        rx = rx_and(s->g, rx, rx_not(s->g, rx_choice(s->g, names, o->n_names)));
    struct cell *all = arena_zalloc(&s->mem, SCHEMA_CELLS_MAX + 1, sizeof *all);
    all[0].rx = rx;
    for (size_t i = 0; i < n_patterns && !rc; i++)
        rc = split(o, all, &n_all, &p[i], i, e);
    bool special = n_patterns || o->keys.kind == SET_RX;
    for (size_t i = 0; i < n_all && !rc; i++) {
        struct lits l;
        bool few = false;
        if (special)
            rc = name_cell(o, &all[i], &few, e);
        if (rc || few)
            continue;
        rc = cell_lits(o, &all[i], p, n_patterns, &l, e);
        if (!rc)
            rc = schema_sym(s, l.v, l.n, &all[i].value, e);
        if (!rc && all[i].value != SYM_NONE)
            cell[(*n)++] = all[i];
    }
    return rc;
}
