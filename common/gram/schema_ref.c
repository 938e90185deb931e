/* schema_ref.c: where references lead. */
#include <stdlib.h>

#include "common/gram/schema.h"
#include "common/gram/schema_keyword.h"

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
        if (*word && json_is_object(at) && schema_seen(s, at, NODE_SCHEMA, &node)) {
            parent = node;
            words = word;
        }
    }
    if (!at)
        return schema_fail(s, from, "$ref", e, "\"#%.100s\" leads nowhere", pointer);
    if (!json_is_object(at) && !json_is_boolean(at))
        return schema_fail(s, from, "$ref", e, "\"#%.100s\" is no schema", pointer);
    if (schema_simple(at, lit))
        return RC_OK;
    if (!schema_seen(s, at, NODE_SCHEMA, &node)) {
        struct str rest = {arena_strndup(&s->mem, words, strlen(words)), strlen(words)};
        node = schema_node_add(s, at, NODE_SCHEMA, parent, s->nodes[parent]->base, rest);
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
        struct str whole = schema_uri_join(s, s->resources[base].uri, head);
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
