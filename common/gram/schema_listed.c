/* Arrays and objects that a schema lists by value, in enum or const: written out and put into a trie, so that
 * thousands of them take little more than their text. */
#include <stdlib.h>

#include "common/gram/schema.h"
#include "common/gram/schema_keyword.h"

/* In a spelling these bytes, which none has otherwise, stand for schema.rx_gap: rx_choice_gaps fills them in.
 */
enum { GAP_ANY = 0, GAP_BEHIND = 1 };

/* Where one number begins another, the trie has alternatives; they must not nest too deeply. Values with more
 * numbers than this go the way of other schemas. */
enum { NUMBERS_MAX = 200 };

struct listed {
    struct schema *s;
    struct buf text;
    uint32_t n_numbers; /* in one value */
};

static void put_gap(struct listed *l, char gap) {
    if (l->s->rx_gap[(uint8_t)gap] != RX_EMPTY)
        buf_addc(&l->text, gap);
}

static void put_sign(struct listed *l, char sign) {
    put_gap(l, GAP_ANY);
    buf_addc(&l->text, sign);
    put_gap(l, GAP_BEHIND);
}

static void put_string(struct listed *l, struct str s) {
    buf_addc(&l->text, '"');
    jt_spell(&l->text, s);
    buf_addc(&l->text, '"');
}

/* put_value: as deep as JSON input may be nested. */
static void put_value(struct listed *l, const json_t *v) {
    const char *key;
    json_t *member;
    size_t i;
    bool first = true;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        buf_addc(&l->text, '{');
        put_gap(l, GAP_ANY);
        json_object_foreach((json_t *)(uintptr_t)v, key, member) {
            if (!first)
                put_sign(l, ',');
            first = false;
            put_string(l, str_of(key));
            put_sign(l, ':');
            put_value(l, member);
        }
        if (!first)
            put_gap(l, GAP_ANY);
        buf_addc(&l->text, '}');
        return;
    case JSON_ARRAY:
        buf_addc(&l->text, '[');
        put_gap(l, GAP_ANY);
        json_array_foreach(v, i, member) {
            if (i)
                put_sign(l, ',');
            put_value(l, member);
        }
        if (i)
            put_gap(l, GAP_ANY);
        buf_addc(&l->text, ']');
        return;
    case JSON_STRING:
        put_string(l, (struct str){json_string_value(v), json_string_length(v)});
        return;
    case JSON_INTEGER:
    case JSON_REAL:
        l->n_numbers++;
        buf_add_str(&l->text, number_text(l->s, v));
        return;
    case JSON_TRUE:
        buf_addz(&l->text, "true");
        return;
    case JSON_FALSE:
        buf_addz(&l->text, "false");
        return;
    case JSON_NULL:
        buf_addz(&l->text, "null");
        return;
    }
}

/* says_more: some keyword beside enum or const may forbid an array or an object that they list. */
static bool says_more(const json_t *j) {
    const char *key;
    json_t *v;
    size_t n_lists = 0;
    json_object_foreach((json_t *)(uintptr_t)j, key, v) {
        switch (schema_keyword(key)) {
        case KW_ENUM:
        case KW_CONST:
            n_lists++;
            break;
        case KW_NOTE:
        case KW_DEFS:
        case KW_TYPE: /* that the values meet it, their part of the scalar tells */
        case KW_NUMBER:
        case KW_STEP:
        case KW_STRING:
            break;
        default:
            return true;
        }
    }
    return n_lists != 1;
}

/* put_all: the values of one kind, each at [at[i], at[i + 1]) of the text. False: some value is not for here.
 */
static bool put_all(struct listed *l, const json_t *values, json_type type, size_t *at, size_t *n) {
    size_t i;
    const json_t *v;
    *n = 0;
    json_array_foreach(values, i, v) {
        if (json_typeof(v) != type)
            continue;
        l->n_numbers = 0;
        at[(*n)++] = l->text.len;
        put_value(l, v);
        if (l->n_numbers > NUMBERS_MAX)
            return false;
    }
    at[*n] = l->text.len;
    return true;
}

enum rc schema_listed(struct schema *s, enum want want, const uint32_t *lits, size_t n, uint32_t rule,
                      bool *done, struct err *e) {
    *done = false;
    if (n != 1 || lit_negated(lits[0]))
        return RC_OK;
    const struct schema_node *node = s->nodes[lits[0] / 2];
    if (node->kind != NODE_SCHEMA || says_more(node->j))
        return RC_OK;
    json_t *one = json_object_get(node->j, "const"), *values = json_object_get(node->j, "enum");
    values = values ? json_incref(values) : json_pack("[O]", one);
    size_t n_values = json_array_size(values);
    size_t *at = xreallocarray(NULL, n_values + 1, sizeof *at);
    struct listed l = {.s = s};
    if (put_all(&l, values, want == WANT_ARRAY ? JSON_ARRAY : JSON_OBJECT, at, &n_values)) {
        struct str *v = xreallocarray(NULL, n_values + 1, sizeof *v);
        for (size_t i = 0; i < n_values; i++)
            v[i] = (struct str){l.text.data + at[i], at[i + 1] - at[i]};
        uint32_t term = gram_term(s->g, rx_choice_gaps(s->g, v, n_values, s->rx_gap), 0);
        schema_prod(s, rule, &term, 1);
        free(v);
        *done = true;
    }
    json_decref(values);
    buf_fini(&l.text);
    free(at);
    return schema_step(s, n_values, e);
}
