#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/gram/schema.h"
#include "common/gram/schema_keyword.h"

/* ---- errors and budget -------------------------------------------------------------------------- */

/* add_pointer: the node's JSON pointer. */
static void add_pointer(const struct schema *s, uint32_t node, struct buf *b) {
    uint32_t path[SCHEMA_DEPTH_MAX];
    size_t n = 0;
    for (uint32_t at = node; at != UINT32_MAX && n < ARRAY_LEN(path); at = s->nodes[at]->parent)
        path[n++] = at;
    while (n)
        buf_add_str(b, s->nodes[path[--n]]->words);
}

enum rc schema_fail(const struct schema *s, uint32_t node, const char *keyword, struct err *e,
                    const char *fmt, ...) {
    char why[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    struct buf at = {0};
    add_pointer(s, node, &at);
    if (*keyword)
        buf_addf(&at, "/%.60s", keyword);
    enum rc rc = err_set(e, RC_INVALID, buf_cstr(&at), "JSON Schema keyword \"%.60s\" at \"%.160s\": %s",
                         keyword, buf_cstr(&at), why);
    buf_fini(&at);
    return rc;
}

enum rc schema_step(struct schema *s, uint64_t n, struct err *e) {
    s->steps += n;
    if (s->steps > SCHEMA_STEPS_MAX)
        return err_set(e, RC_INVALID, NULL, "JSON Schema: too complex: more than %d steps of work",
                       SCHEMA_STEPS_MAX);
    if (s->mem.used_bytes > SCHEMA_ARENA_MAX)
        return err_set(e, RC_INVALID, NULL, "JSON Schema: too complex: more than %zu MiB of memory",
                       SCHEMA_ARENA_MAX / MIB);
    if (gram_over(s->g))
        return err_set(e, RC_INVALID, NULL,
                       "JSON Schema: too complex: the grammar passes its limits of size or memory");
    return RC_OK;
}

/* ---- nodes -------------------------------------------------------------------------------------- */

static size_t slot_of(const struct schema *s, const json_t *j, enum node_kind kind) {
    uint64_t h = ((uint64_t)(uintptr_t)j >> 4) * 2 + (uint64_t)kind;
    h *= 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(h >> 32) & (s->cap_table - 1);
    for (; s->node_table[at]; at = (at + 1) & (s->cap_table - 1)) {
        const struct schema_node *n = s->nodes[s->node_table[at]];
        if (n->j == j && n->kind == kind)
            break;
    }
    return at;
}

static void grow(struct schema *s) {
    if (s->n_nodes == s->cap_nodes) {
        s->cap_nodes = MAX(64, s->cap_nodes * 2);
        s->nodes = xreallocarray(s->nodes, s->cap_nodes, sizeof *s->nodes);
    }
    if (s->n_nodes * 2 < s->cap_table)
        return;
    free(s->node_table);
    s->cap_table = MAX(128, s->cap_table * 2);
    s->node_table = xcalloc(s->cap_table, sizeof *s->node_table);
    for (uint32_t i = 1; i < s->n_nodes; i++)
        s->node_table[slot_of(s, s->nodes[i]->j, s->nodes[i]->kind)] = i;
}

uint32_t schema_node_add(struct schema *s, const json_t *j, enum node_kind kind, uint32_t parent,
                         uint32_t base, struct str words) {
    grow(s);
    struct schema_node *n = arena_zalloc(&s->mem, 1, sizeof *n);
    *n = (struct schema_node){.j = j, .kind = kind, .parent = parent, .base = base, .words = words};
    n->plain = SCHEMA_INF;
    uint32_t id = (uint32_t)s->n_nodes++;
    s->nodes[id] = n;
    if (id)
        s->node_table[slot_of(s, j, kind)] = id;
    return id;
}

static void add_escaped(struct buf *b, const char *word) {
    for (; *word; word++) {
        if (*word == '~' || *word == '/')
            buf_addz(b, *word == '~' ? "~0" : "~1");
        else
            buf_addc(b, *word);
    }
}

/* words_of: "/keyword/key"; key may be NULL. */
static struct str words_of(struct schema *s, const char *keyword, const char *key) {
    struct buf b = {0};
    buf_addc(&b, '/');
    add_escaped(&b, keyword);
    if (key) {
        buf_addc(&b, '/');
        add_escaped(&b, key);
    }
    struct str words = {arena_strndup(&s->mem, b.data, b.len), b.len};
    buf_fini(&b);
    return words;
}

bool schema_seen(struct schema *s, const json_t *j, enum node_kind kind, uint32_t *node) {
    if (!s->cap_table)
        return false;
    *node = s->node_table[slot_of(s, j, kind)];
    return *node != 0;
}

bool schema_simple(const json_t *j, uint32_t *lit) {
    *lit = json_is_false(j) ? LIT_FALSE : LIT_TRUE;
    return json_is_boolean(j) || (json_is_object(j) && json_object_size(j) == 0);
}

enum rc schema_sub(struct schema *s, uint32_t parent, const json_t *j, const char *keyword, const char *key,
                   uint32_t *lit, struct err *e) {
    uint32_t node;
    if (schema_simple(j, lit))
        return RC_OK;
    if (!json_is_object(j))
        return schema_fail(s, parent, keyword, e, "must be a schema, not %s", json_kind(j));
    if (!schema_seen(s, j, NODE_SCHEMA, &node))
        node = schema_node_add(s, j, NODE_SCHEMA, parent, s->nodes[parent]->base, words_of(s, keyword, key));
    *lit = node * 2;
    return schema_step(s, 1, e);
}

uint32_t schema_value(struct schema *s, uint32_t parent, const json_t *j) {
    uint32_t node;
    if (!schema_seen(s, j, NODE_VALUE, &node))
        node = schema_node_add(s, j, NODE_VALUE, parent, s->nodes[parent]->base, (struct str){NULL, 0});
    return node * 2;
}

/* ---- the walk over the document --------------------------------------------------------------------------
 */

static enum rc walk(struct schema *s, uint32_t node, unsigned depth, struct err *e);

static void add_resource(struct schema *s, uint32_t node, struct str uri) {
    s->resources = xreallocarray(s->resources, s->n_resources + 1, sizeof *s->resources);
    s->resources[s->n_resources] = (struct schema_resource){s->nodes[node]->j, node, uri};
    s->nodes[node]->base = (uint32_t)s->n_resources++;
}

static void add_anchor(struct schema *s, uint32_t node, const char *name, bool dynamic) {
    if ((s->n_anchors & (s->n_anchors + 63)) == 0 || s->n_anchors % 64 == 0)
        s->anchors = xreallocarray(s->anchors, s->n_anchors + 64, sizeof *s->anchors);
    s->anchors[s->n_anchors++] = (struct schema_anchor){s->nodes[node]->base, str_of(name), node, dynamic};
}

/* has_scheme: an absolute URI. */
static bool has_scheme(struct str u) {
    for (size_t i = 0; i < u.n; i++) {
        char c = u.p[i];
        if (c == ':')
            return i > 0;
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (i && ((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.'))))
            return false;
    }
    return false;
}

struct str schema_uri_join(struct schema *s, struct str base, struct str ref) {
    size_t keep = 0;
    if (!ref.n)
        return base;
    if (!has_scheme(ref) && has_scheme(base)) {
        const char *colon = memchr(base.p, ':', base.n);
        size_t path = (size_t)(colon - base.p) + 1;
        if (str_starts((struct str){base.p + path, base.n - path}, STR_LIT("//")))
            for (path += 2; path < base.n && base.p[path] != '/';)
                path++;
        if (str_starts(ref, STR_LIT("//")))
            keep = (size_t)(colon - base.p) + 1;
        else if (ref.p[0] == '/')
            keep = path;
        else
            for (keep = base.n; keep > path && base.p[keep - 1] != '/';)
                keep--;
    } else if (!has_scheme(ref)) {
        for (keep = base.n; keep > 0 && ref.p[0] != '/' && base.p[keep - 1] != '/';)
            keep--;
    }
    struct buf b = {0};
    buf_add(&b, base.p, keep);
    buf_add_str(&b, ref);
    struct str out = {arena_strndup(&s->mem, b.data, b.len), b.len};
    buf_fini(&b);
    return out;
}

/* read_names: $id and the anchors of a node. */
static void read_names(struct schema *s, uint32_t node) {
    const struct schema_node *n = s->nodes[node];
    const char *id = json_string_value(json_object_get(n->j, "$id"));
    if (schema_only_ref(s, n))
        return;
    if (id && id[0] == '#' && id[1]) {
        add_anchor(s, node, id + 1, false);
    } else if (id && id[0] && id[0] != '#') {
        struct str uri = {id, strcspn(id, "#")};
        uri = schema_uri_join(s, s->resources[n->base].uri, uri);
        if (node == 1)
            s->resources[0].uri = uri;
        else
            add_resource(s, node, uri);
    }
    const char *anchor = json_string_value(json_object_get(n->j, "$anchor"));
    if (anchor)
        add_anchor(s, node, anchor, false);
    anchor = json_string_value(json_object_get(n->j, "$dynamicAnchor"));
    if (anchor)
        add_anchor(s, node, anchor, true);
}

static enum rc walk_one(struct schema *s, uint32_t parent, const json_t *j, const char *keyword,
                        const char *key, unsigned depth, struct err *e) {
    uint32_t lit;
    enum rc rc = RC_OK;
    if (!json_is_object(j) || !json_object_size(j))
        return rc;
    rc = schema_sub(s, parent, j, keyword, key, &lit, e);
    return rc ? rc : walk(s, lit / 2, depth, e);
}

/* walk: registers the node's subschemas. Ends at the nodes' limit, so before any cost that counts. */
static enum rc walk(struct schema *s, uint32_t node, unsigned depth, struct err *e) {
    const json_t *j = s->nodes[node]->j;
    const char *key, *name;
    json_t *v, *sub;
    size_t i;
    enum rc rc = RC_OK;
    if (depth > SCHEMA_DEPTH_MAX)
        return schema_fail(s, node, "", e, "nested deeper than %d", SCHEMA_DEPTH_MAX);
    if (s->n_nodes > s->n_nodes_max)
        return err_set(e, RC_INVALID, NULL, "JSON Schema: more than %zu schema nodes (--max-schema-nodes)",
                       s->n_nodes_max);
    read_names(s, node);
    json_object_foreach((json_t *)(uintptr_t)j, key, v) {
        switch (schema_keyword(key)) {
        case KW_SCHEMA:
        case KW_REFUSED:
            rc = walk_one(s, node, v, key, NULL, depth + 1, e);
            break;
        case KW_SCHEMAS:
        case KW_ITEMS:
            if (json_is_object(v))
                rc = walk_one(s, node, v, key, NULL, depth + 1, e);
            json_array_foreach(v, i, sub) {
                char index[24];
                snprintf(index, sizeof index, "%zu", i);
                if (!rc)
                    rc = walk_one(s, node, sub, key, index, depth + 1, e);
            }
            break;
        case KW_DEFS:
        case KW_SCHEMA_MAP:
        case KW_DEPENDS:
            json_object_foreach(v, name, sub) {
                if (!rc)
                    rc = walk_one(s, node, sub, key, name, depth + 1, e);
            }
            break;
        default:
            break;
        }
        if (rc)
            return rc;
    }
    return RC_OK;
}

enum rc schema_load(struct schema *s, const json_t *doc, uint32_t *root, struct err *e) {
    /* Node 0, which accepts everything, is never looked up. */
    (void)schema_node_add(s, NULL, NODE_SCHEMA, UINT32_MAX, 0, (struct str){NULL, 0});
    if (json_is_boolean(doc)) {
        *root = json_is_true(doc) ? LIT_TRUE : LIT_FALSE;
        return RC_OK;
    }
    if (!json_is_object(doc))
        return err_set(e, RC_INVALID, NULL, "JSON Schema: must be an object or a boolean, not %s",
                       json_kind(doc));
    const char *draft = json_string_value(json_object_get(doc, "$schema"));
    s->old_refs =
        draft && (strstr(draft, "draft-07") || strstr(draft, "draft-06") || strstr(draft, "draft-04"));
    uint32_t node = schema_node_add(s, doc, NODE_SCHEMA, UINT32_MAX, 0, (struct str){NULL, 0});
    add_resource(s, node, (struct str){"", 0});
    *root = json_object_size(doc) ? node * 2 : LIT_TRUE;
    return walk(s, node, 0, e);
}
