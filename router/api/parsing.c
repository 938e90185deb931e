/* parsing.c: how the output of a chat will be taken apart (api.md 11): which parsers, in which state they start,
 * and which tokens are marks to them. */
#include <stdlib.h>

#include "router/api/constraint.h"

enum { TAIL_IDS = 16 /* of the prompt: what a template may put behind its last header */ };

/* thinking_off: by the template's variables (api.md 11.3.2). The request's win over the server's. */
static bool thinking_off(const struct gen_req *r, const json_t *kwargs) {
    static const char *const names[] = {"enable_thinking", "thinking"};
    bool off = false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const json_t *v = json_object_get(kwargs, names[i]);
        if (!v)
            v = json_object_get(r->model->default_kwargs, names[i]);
        off |= json_is_false(v);
    }
    return off;
}

/* ---- what parameters may be, for parsers that read them as text -------------------------------------------- */

static unsigned type_word(const json_t *word) {
    static const struct {
        const char *name;
        unsigned type;
    } words[] = {{"string", PARSE_STRING},   {"integer", PARSE_INTEGER}, {"number", PARSE_NUMBER},
                 {"boolean", PARSE_BOOLEAN}, {"object", PARSE_OBJECT},   {"array", PARSE_ARRAY},
                 {"null", PARSE_NULL}};
    for (size_t i = 0; json_is_string(word) && i < ARRAY_LEN(words); i++)
        if (!strcmp(json_string_value(word), words[i].name))
            return words[i].type;
    return PARSE_ANY;
}

/* types_of: of a schema: its type or types, those of its branches, or of its values. Nothing said of it: a
 * string. */
static unsigned types_of(const json_t *schema, unsigned depth) {
    static const char *const branches[] = {"anyOf", "oneOf", "allOf"};
    const json_t *type = json_object_get(schema, "type"), *member;
    unsigned types = 0;
    size_t i;
    if (type && !json_is_array(type))
        return type_word(type);
    json_array_foreach(type, i, member)
        types |= type_word(member);
    if (types)
        return types;
    if (json_object_get(schema, "$ref") || depth > 8)
        return PARSE_ANY;
    for (size_t k = 0; k < ARRAY_LEN(branches); k++)
        json_array_foreach(json_object_get(schema, branches[k]), i, member)
            types |= types_of(member, depth + 1);
    json_array_foreach(json_object_get(schema, "enum"), i, member)
        types |= json_is_string(member) ? PARSE_STRING : PARSE_ANY;
    return types ? types : PARSE_STRING;
}

static struct str keep(struct arena *a, const char *z) {
    size_t n = strlen(z);
    return (struct str){arena_strndup(a, z, n), n};
}

/* read_types: of the parameters of all tools. */
static void read_types(const json_t *tools, struct gen_req *r) {
    size_t n = 0, i;
    const json_t *tool;
    json_array_foreach(tools, i, tool)
        n += json_object_size(
            json_object_get(json_object_get(json_object_get(tool, "function"), "parameters"), "properties"));
    struct parse_type *types = arena_zalloc(&r->arena, n + 1, sizeof *types);
    n = 0;
    json_array_foreach(tools, i, tool) {
        const json_t *f = json_object_get(tool, "function");
        json_t *properties = json_object_get(json_object_get(f, "parameters"), "properties");
        struct str name = keep(&r->arena, json_string_value(json_object_get(f, "name")));
        for (void *it = json_object_iter(properties); it; it = json_object_iter_next(properties, it))
            types[n++] = (struct parse_type){name, keep(&r->arena, json_object_iter_key(it)),
                                             types_of(json_object_iter_value(it), 0)};
    }
    if (n)
        qsort(types, n, sizeof *types, parse_type_order);
    r->parse.o.types = types;
    r->parse.o.n_types = n;
}

/* ---- where it starts -------------------------------------------------------------------------------------- */

static bool ends_in(struct str text, struct str mark) {
    while (text.n && strchr(" \t\r\n", text.p[text.n - 1]))
        text.n--;
    return text.n >= mark.n && !memcmp(text.p + text.n - mark.n, mark.p, mark.n);
}

/* read_tail: whether the prompt leaves the reasoning open, or has ended it already. */
static void read_tail(struct gen_req *r) {
    struct parse_opts *o = &r->parse.o;
    const struct gen_prompt *p = &r->prompts[0];
    const struct str *open, *close;
    size_t n_tail = MIN(p->n_ids, (uint32_t)TAIL_IDS), n = parse_reasoning_marks(o->reasoning, &open, &close);
    struct buf tail = {0};
    bool ended = false;
    detok_all(r->model->tok, p->ids + p->n_ids - n_tail, n_tail, false, &tail);
    for (size_t i = 0; i < n; i++) {
        o->in_reasoning |= ends_in(buf_str(&tail), open[i]);
        ended |= ends_in(buf_str(&tail), close[i]);
    }
    buf_fini(&tail);
    if (ended)
        o->reasoning = REASONING_NONE;
}

/* find_marks: those that are special tokens, which text does not show. */
static void find_marks(struct gen_req *r) {
    struct str marks[PARSE_MARKS_MAX];
    const struct tok *t = r->model->tok;
    uint32_t id;
    parse_marks(&r->parse.o, marks);
    for (size_t i = 0; i < PARSE_MARKS_MAX && r->skip_special; i++)
        if (marks[i].n && tok_find(t, marks[i], &id) && tok_is_special(t, id)) {
            r->parse.mark_ids[r->parse.n_marks] = id;
            r->parse.mark_bytes[r->parse.n_marks++] = PARSE_MARK_BYTE(i);
        }
}

void parsing_set(const struct field_values *v, const struct router_opts *o, struct gen_req *r) {
    struct parse_opts *p = &r->parse.o;
    if (o->tool_call_parser && r->parse.auto_tools)
        CHECK(parse_tools_find(o->tool_call_parser, &p->tools));
    if (p->tools == TOOLS_PARSER_QWEN3_CODER)
        read_types(v->tools, r);
    if (o->reasoning_parser && !thinking_off(r, v->chat_template_kwargs)) {
        CHECK(parse_reasoning_find(o->reasoning_parser, &p->reasoning));
        read_tail(r);
    }
    r->parse.on = p->tools || p->reasoning;
    r->parse.counts_reasoning = o->reasoning_parser != NULL;
    r->parse.drop_reasoning = v->include_reasoning.set && !v->include_reasoning.v;
    r->parse.short_ids = o->tool_call_parser && !strcmp(o->tool_call_parser, "mistral");
    find_marks(r);
    p->calls_first = r->constraint.kind && r->parse.auto_tools;
    if (r->constraint.kind)
        constraint_mix(v->tools, r);
}
