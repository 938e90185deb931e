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

static uint32_t node_add(struct schema *s, const json_t *j, enum node_kind kind, uint32_t parent,
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

/* seen: the node of a subschema that is known already. */
static bool seen(struct schema *s, const json_t *j, enum node_kind kind, uint32_t *node) {
    if (!s->cap_table)
        return false;
    *node = s->node_table[slot_of(s, j, kind)];
    return *node != 0;
}

/* simple: schemas that are no nodes of their own. */
static bool simple(const json_t *j, uint32_t *lit) {
    *lit = json_is_false(j) ? LIT_FALSE : LIT_TRUE;
    return json_is_boolean(j) || (json_is_object(j) && json_object_size(j) == 0);
}

enum rc schema_sub(struct schema *s, uint32_t parent, const json_t *j, const char *keyword, const char *key,
                   uint32_t *lit, struct err *e) {
    uint32_t node;
    if (simple(j, lit))
        return RC_OK;
    if (!json_is_object(j))
        return schema_fail(s, parent, keyword, e, "must be a schema, not %s", json_kind(j));
    if (!seen(s, j, NODE_SCHEMA, &node))
        node = node_add(s, j, NODE_SCHEMA, parent, s->nodes[parent]->base, words_of(s, keyword, key));
    *lit = node * 2;
    return schema_step(s, 1, e);
}

uint32_t schema_value(struct schema *s, uint32_t parent, const json_t *j) {
    uint32_t node;
    if (!seen(s, j, NODE_VALUE, &node))
        node = node_add(s, j, NODE_VALUE, parent, s->nodes[parent]->base, (struct str){NULL, 0});
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

/* uri_join: RFC 3986 5.2 without dot segments, which stay as they are and then match nothing. */
static struct str uri_join(struct schema *s, struct str base, struct str ref) {
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
        uri = uri_join(s, s->resources[n->base].uri, uri);
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
    (void)node_add(s, NULL, NODE_SCHEMA, UINT32_MAX, 0, (struct str){NULL, 0});
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
    uint32_t node = node_add(s, doc, NODE_SCHEMA, UINT32_MAX, 0, (struct str){NULL, 0});
    add_resource(s, node, (struct str){"", 0});
    *root = json_object_size(doc) ? node * 2 : LIT_TRUE;
    return walk(s, node, 0, e);
}

/* ---- references ------------------------------------------------------------------------------------------
 */

static int hex_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* unescape: percent signs of a fragment; what is no escape stays. */
static void unescape(struct str in, struct buf *out) {
    for (size_t i = 0; i < in.n; i++) {
        int hi = i + 2 < in.n && in.p[i] == '%' ? hex_of(in.p[i + 1]) : -1;
        int lo = hi >= 0 ? hex_of(in.p[i + 2]) : -1;
        buf_addc(out, lo >= 0 ? (char)(hi * 16 + lo) : in.p[i]);
        if (lo >= 0)
            i += 2;
    }
}

/* step_into: the member of j that one word of a pointer names, or NULL. */
static const json_t *step_into(const json_t *j, const char *word, size_t n) {
    if (json_is_array(j)) {
        if (n == 0 || n > 9 || strspn(word, "0123456789") < n || (n > 1 && word[0] == '0'))
            return NULL;
        return json_array_get(j, (size_t)strtoul(word, NULL, 10));
    }
    struct buf key = {0};
    for (size_t i = 0; i < n; i++) {
        bool tilde = word[i] == '~' && i + 1 < n && (word[i + 1] == '0' || word[i + 1] == '1');
        buf_addc(&key, !tilde ? word[i] : word[i + 1] == '0' ? '~' : '/');
        i += tilde;
    }
    const json_t *v = json_object_get(j, buf_cstr(&key));
    buf_fini(&key);
    return v;
}

/* by_pointer: the subschema at a pointer from the root of a resource. Subschemas on the way are nodes by
 * now, if they are in places where schemas are; so the last one with a node is the parent. */
static enum rc by_pointer(struct schema *s, uint32_t from, uint32_t base, const char *pointer, uint32_t *lit,
                          struct err *e) {
    const json_t *at = s->resources[base].root;
    uint32_t parent = s->resources[base].node, node;
    const char *word = pointer, *words = pointer;
    while (*word && at) {
        word++;
        size_t n = strcspn(word, "/");
        at = step_into(at, word, n);
        word += n;
        if (*word && json_is_object(at) && seen(s, at, NODE_SCHEMA, &node)) {
            parent = node;
            words = word;
        }
    }
    if (!at)
        return schema_fail(s, from, "$ref", e, "\"#%.100s\" leads nowhere", pointer);
    if (!json_is_object(at) && !json_is_boolean(at))
        return schema_fail(s, from, "$ref", e, "\"#%.100s\" is no schema", pointer);
    if (simple(at, lit))
        return RC_OK;
    if (!seen(s, at, NODE_SCHEMA, &node)) {
        struct str rest = {arena_strndup(&s->mem, words, strlen(words)), strlen(words)};
        node = node_add(s, at, NODE_SCHEMA, parent, s->nodes[parent]->base, rest);
    }
    *lit = node * 2;
    return RC_OK;
}

static enum rc by_name(struct schema *s, uint32_t from, uint32_t base, struct str fragment, uint32_t *lit,
                       struct err *e) {
    for (size_t i = 0; i < s->n_anchors; i++)
        if (s->anchors[i].base == base && str_eq(s->anchors[i].name, fragment)) {
            *lit = s->anchors[i].node * 2;
            return RC_OK;
        }
    return schema_fail(s, from, "$ref", e, "\"#%.*s\" leads nowhere", (int)MIN(fragment.n, 100), fragment.p);
}

enum rc schema_ref(struct schema *s, uint32_t node, const json_t *ref, uint32_t *lit, struct err *e) {
    struct str uri = {json_string_value(ref), json_string_length(ref)};
    struct str head = {uri.p, strcspn(uri.p, "#")};
    uint32_t base = s->nodes[node]->base;
    enum rc rc = schema_step(s, 1 + s->n_anchors / 8 + s->n_resources / 8, e);
    if (rc)
        return rc;
    if (head.n) {
        struct str whole = uri_join(s, s->resources[base].uri, head);
        size_t i = 0;
        while (i < s->n_resources && !str_eq(s->resources[i].uri, whole))
            i++;
        if (i == s->n_resources)
            return schema_fail(s, node, "$ref", e,
                               "\"%.100s\" is outside of this schema; only local "
                               "references are supported",
                               uri.p);
        base = (uint32_t)i;
    }
    struct buf fragment = {0};
    unescape((struct str){uri.p + head.n, uri.n - head.n}, &fragment);
    const char *f = buf_cstr(&fragment);
    f += *f == '#';
    if (!*f)
        *lit = s->resources[base].node * 2;
    else if (*f == '/')
        rc = by_pointer(s, node, base, f, lit, e);
    else
        rc = by_name(s, node, base, str_of(f), lit, e);
    buf_fini(&fragment);
    return rc;
}

const json_t *schema_ref_of(const struct schema_node *n) {
    const json_t *ref = json_object_get(n->j, "$ref");
    if (!ref)
        ref = json_object_get(n->j, "$dynamicRef");
    return ref ? ref : json_object_get(n->j, "$recursiveRef");
}

bool schema_ref_static(const struct schema *s, const struct schema_node *n, const char *keyword) {
    if (strcmp(keyword, "$ref") == 0)
        return true;
    const char *ref = json_string_value(json_object_get(n->j, keyword));
    const char *name = strchr(ref, '#') ? strchr(ref, '#') + 1 : "";
    size_t n_same = 0;
    for (size_t i = 0; i < s->n_anchors; i++)
        n_same += s->anchors[i].dynamic && str_eqz(s->anchors[i].name, name);
    return json_object_get(n->j, keyword) == schema_ref_of(n) &&
           (keyword[1] == 'd' ? n_same <= 1 : s->n_resources == 1);
}

/* plain_step: one step; *lit stays if there is none. */
static enum rc plain_step(struct schema *s, uint32_t *lit, struct err *e) {
    uint32_t node = *lit / 2, to;
    const struct schema_node *n = s->nodes[node];
    enum rc rc = schema_check(s, node, e);
    if (rc)
        return rc;
    const json_t *ref = schema_ref_of(n), *no = json_object_get(n->j, "not");
    bool only_ref = schema_only_ref(s, n);
    if (!ref == !no && !only_ref)
        return RC_OK;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)n->j, key, v) {
        enum keyword_kind kind = schema_keyword(key);
        if (kind != KW_NOTE && kind != KW_DEFS && v != ref && v != no && !only_ref)
            return RC_OK;
    }
    if (ref)
        rc = schema_ref(s, node, ref, &to, e);
    else
        rc = schema_sub(s, node, no, "not", NULL, &to, e);
    if (!rc)
        *lit = to ^ (*lit & 1) ^ (ref ? 0 : 1);
    return rc;
}

enum rc schema_plain(struct schema *s, uint32_t *lit, struct err *e) {
    uint32_t start = *lit / 2, sign = *lit & 1, at = start * 2;
    if (start == 0 || s->nodes[start]->kind == NODE_VALUE)
        return RC_OK;
    for (size_t hops = 0; s->nodes[start]->plain == SCHEMA_INF; hops++) {
        uint32_t before = at;
        enum rc rc = at / 2 && s->nodes[at / 2]->kind == NODE_SCHEMA ? plain_step(s, &at, e) : RC_OK;
        if (!rc)
            rc = schema_step(s, 1, e);
        if (rc)
            return rc;
        if (hops > s->n_nodes)
            return schema_fail(s, start, "$ref", e, "leads back to itself");
        if (at == before)
            s->nodes[start]->plain = at;
    }
    *lit = s->nodes[start]->plain ^ sign;
    return RC_OK;
}
