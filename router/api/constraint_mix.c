/* constraint_mix.c: a constraint together with what may stand beside it: calls of the model's own (api.md 9.1.4),
 * and reasoning in front (9.2.3). Where the end of the reasoning is a token, the worker waits for it; else all of
 * it becomes one structural tag. */
#include "router/api/constraint.h"

/* ---- the constraint as a format (api.md 9.5.2) ------------------------------------------------------------ */

static void add_member(struct buf *b, const char *type, const char *key, struct str text) {
    buf_addf(b, "{\"type\":\"%s\",\"%s\":", type, key);
    jw_str(b, text);
    buf_addc(b, '}');
}

static void add_schema(struct buf *b, struct str schema) {
    buf_addz(b, "{\"type\":\"json_schema\",\"json_schema\":");
    buf_add_str(b, schema);
    buf_addc(b, '}');
}

static void add_choices(struct buf *b, const json_t *list) {
    size_t i;
    const json_t *v;
    buf_addz(b, "{\"type\":\"or\",\"elements\":[");
    json_array_foreach(list, i, v) {
        buf_addz(b, i ? "," : "");
        if (json_string_length(v))
            add_member(b, "const_string", "value", (struct str){json_string_value(v), json_string_length(v)});
        else
            add_member(b, "regex", "pattern", (struct str){"", 0});
    }
    buf_addz(b, "]}");
}

/* add_tags: either shape of structural tags. */
static void add_tags(struct buf *b, const json_t *tags) {
    const json_t *format = json_object_get(tags, "format"), *s;
    size_t i;
    if (format) {
        jw_json(b, format);
        return;
    }
    buf_addz(b, "{\"type\":\"triggered_tags\",\"triggers\":");
    jw_json(b, json_object_get(tags, "triggers"));
    buf_addz(b, ",\"tags\":[");
    json_array_foreach(json_object_get(tags, "structures"), i, s) {
        buf_addz(b, i ? ",{\"begin\":" : "{\"begin\":");
        jw_json(b, json_object_get(s, "begin"));
        buf_addz(b, ",\"end\":");
        jw_json(b, json_object_get(s, "end"));
        buf_addz(b, ",\"content\":{\"type\":\"json_schema\",\"json_schema\":");
        jw_json(b, json_object_get(s, "schema"));
        buf_addz(b, "}}");
    }
    buf_addz(b, "]}");
}

/* add_own: r->constraint, which is known to be good. */
static void add_own(struct buf *b, const struct gen_req *r) {
    struct str text = r->constraint.text;
    struct err e = {0};
    json_t *json = NULL;
    switch (r->constraint.kind) {
    case GRAM_JSON_SCHEMA:
        add_schema(b, text);
        return;
    case GRAM_REGEX:
        add_member(b, "regex", "pattern", text);
        return;
    case GRAM_EBNF:
        add_member(b, "grammar", "grammar", text);
        return;
    default:
        CHECK(json_parse(text, &json_limits_default, &json, &e) == RC_OK);
        (r->constraint.kind == GRAM_CHOICE ? add_choices : add_tags)(b, json);
        json_decref(json);
    }
}

/* ---- calls ------------------------------------------------------------------------------------------------ */

/* shape: how a parser's calls are written. */
struct shape {
    const char *open, *close;             /* around all of them */
    const char *begin, *middle, *end;     /* of one: its name stands behind begin */
    const char *separator;
};

static void add_text(struct buf *b, const char *key, const char *z1, struct str name, const char *z2) {
    struct buf s = {0};
    buf_addz(&s, z1);
    buf_add_str(&s, name);
    buf_addz(&s, z2);
    buf_addf(b, "\"%s\":", key);
    jw_str(b, buf_str(&s));
    buf_fini(&s);
}

static struct str name_of(const json_t *tool) {
    const json_t *v = json_object_get(json_object_get(tool, "function"), "name");
    return (struct str){json_string_value(v), json_string_length(v)};
}

static json_t *properties_of(const json_t *tool) {
    return json_object_get(json_object_get(json_object_get(tool, "function"), "parameters"), "properties");
}

/* json_args: by the tool's schema. */
static void json_args(struct buf *b, const json_t *tool) {
    struct buf schema = {0};
    tool_schema(tool, &schema);
    add_schema(b, buf_str(&schema));
    buf_fini(&schema);
}

static bool is_word(const char *s) {
    bool good = *s && !(*s >= '0' && *s <= '9');
    for (; *s; s++)
        good &= (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '_';
    return good;
}

/* python_args: literals as values of the tool's parameters. */
static void python_args(struct buf *b, const json_t *tool) {
    struct buf g = {0};
    const char *bar = "";
    json_t *properties = properties_of(tool);
    buf_addz(&g, "key ::= ");
    for (void *it = json_object_iter(properties); it; it = json_object_iter_next(properties, it))
        if (is_word(json_object_iter_key(it))) {
            buf_addf(&g, "%s\"%s\"", bar, json_object_iter_key(it));
            bar = " | ";
        }
    if (*bar)
        buf_addz(&g, "\nroot ::= (pair (\", \" pair)*)?\npair ::= key \"=\" value\n"
                     "value ::= string | number | \"True\" | \"False\" | \"None\" | list | dict\n"
                     "list ::= \"[\" (value (\", \" value)*)? \"]\"\n"
                     "dict ::= \"{\" (member (\", \" member)*)? \"}\"\nmember ::= string \": \" value\n"
                     "string ::= \"\\\"\" dchar* \"\\\"\" | \"'\" schar* \"'\"\n"
                     "dchar ::= [^\"\\\\\\n] | \"\\\\\" [\\\\\"'nt]\nschar ::= [^'\\\\\\n] | \"\\\\\" [\\\\\"'nt]\n"
                     "number ::= \"-\"? (\"0\" | [1-9] [0-9]*) (\".\" [0-9]+)?\n");
    if (*bar)
        add_member(b, "grammar", "grammar", buf_str(&g));
    else
        add_member(b, "regex", "pattern", (struct str){"", 0});
    buf_fini(&g);
}

/* tag_args: a block for each parameter, of any text. */
static void tag_args(struct buf *b, const json_t *tool) {
    json_t *properties = properties_of(tool);
    const char *comma = "";
    if (!json_object_size(properties)) {
        add_member(b, "regex", "pattern", (struct str){"", 0});
        return;
    }
    buf_addz(b, "{\"type\":\"tags_with_separator\",\"separator\":\"\",\"tags\":[");
    for (void *it = json_object_iter(properties); it; it = json_object_iter_next(properties, it)) {
        buf_addf(b, "%s{", comma);
        add_text(b, "begin", "<parameter=", str_of(json_object_iter_key(it)), ">\n");
        buf_addz(b, ",\"content\":{\"type\":\"any_text\"},\"end\":\"\\n</parameter>\\n\"}");
        comma = ",";
    }
    buf_addz(b, "]}");
}

static void add_const(struct buf *b, const char *z) {
    add_member(b, "const_string", "value", str_of(z));
}

static void add_shape(struct buf *b, const struct shape *s, const json_t *tools,
                      void (*args)(struct buf *b, const json_t *tool)) {
    size_t i;
    const json_t *tool;
    if (s->open) {
        buf_addz(b, "{\"type\":\"sequence\",\"elements\":[");
        add_const(b, s->open);
        buf_addc(b, ',');
    }
    buf_addz(b, "{\"type\":\"tags_with_separator\",\"at_least_one\":true,");
    add_text(b, "separator", s->separator, (struct str){"", 0}, "");
    buf_addz(b, ",\"tags\":[");
    json_array_foreach(tools, i, tool) {
        buf_addz(b, i ? ",{" : "{");
        add_text(b, "begin", s->begin, name_of(tool), s->middle);
        buf_addc(b, ',');
        add_text(b, "end", s->end, (struct str){"", 0}, "");
        buf_addz(b, ",\"content\":");
        args(b, tool);
        buf_addc(b, '}');
    }
    buf_addz(b, "]}");
    if (s->open) {
        buf_addc(b, ',');
        add_const(b, s->close);
        buf_addz(b, "]}");
    }
}

/* add_calls: one or more calls, in the ways that models write them. */
static void add_calls(struct buf *b, enum parse_tools kind, const json_t *tools) {
    static const char args[] = "\", \"arguments\": ", parameters[] = "\", \"parameters\": ", object[] = "{\"name\": \"";
    static const struct shape shapes[N_TOOLS_PARSER][2] = {
        [TOOLS_PARSER_HERMES] = {{NULL, NULL, "<tool_call>\n{\"name\": \"", args, "}\n</tool_call>", "\n"},
                                 {NULL, NULL, "<tool_call>{\"name\": \"", args, "}</tool_call>", ""}},
        [TOOLS_PARSER_LLAMA3_JSON] = {{NULL, NULL, object, parameters, "}", "; "}},
        [TOOLS_PARSER_LLAMA4_JSON] = {{NULL, NULL, object, parameters, "}", "; "}},
        [TOOLS_PARSER_PYTHONIC] = {{"[", "]", "", "(", ")", ", "}},
        [TOOLS_PARSER_LLAMA4_PYTHONIC] = {{"[", "]", "", "(", ")", ", "}},
        [TOOLS_PARSER_MISTRAL] = {{"[TOOL_CALLS][", "]", object, args, "}", ", "},
                                  {NULL, NULL, "[TOOL_CALLS]", "[ARGS]", "", ""}},
        [TOOLS_PARSER_JAMBA] = {{"<tool_calls>[", "]</tool_calls>", object, args, "}", ", "}},
        [TOOLS_PARSER_QWEN3_CODER] = {{NULL, NULL, "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>", "\n"}},
    };
    bool python = kind == TOOLS_PARSER_PYTHONIC || kind == TOOLS_PARSER_LLAMA4_PYTHONIC;
    for (size_t i = 0; i < 2 && shapes[kind][i].begin; i++) {
        buf_addz(b, i ? "," : "");
        add_shape(b, &shapes[kind][i], tools,
                  python                             ? python_args
                  : kind == TOOLS_PARSER_QWEN3_CODER ? tag_args
                                                     : json_args);
    }
}

/* ---- reasoning in front ------------------------------------------------------------------------------------ */

/* add_reasoning: free text that ends with the first of the marks. */
static void add_reasoning(struct buf *b, const struct str *close, size_t n) {
    buf_addz(b, "{\"type\":\"or\",\"elements\":[");
    for (size_t i = 0; i < n; i++) {
        buf_addz(b, i ? "," : "");
        buf_addz(b, "{\"type\":\"tag\",\"begin\":\"\",\"content\":{\"type\":\"any_text\",\"excludes\":[");
        for (size_t k = 0, some = 0; k < n; k++)
            if (k != i) {
                buf_addz(b, some++ ? "," : "");
                jw_str(b, close[k]);
            }
        buf_addz(b, "]},\"end\":");
        jw_str(b, close[i]);
        buf_addc(b, '}');
    }
    buf_addz(b, "]}");
}

/* add_thinking: inner behind the reasoning, and, where the reasoning needs a mark to begin, inner alone. */
static void add_thinking(struct buf *b, const struct gen_req *r, struct str inner) {
    const struct parse_opts *o = &r->parse.o;
    const struct str *open, *close;
    size_t n = parse_reasoning_marks(o->reasoning, &open, &close);
    bool may_begin = parse_reasoning_begins(o);
    if (may_begin) {
        buf_addz(b, "{\"type\":\"or\",\"elements\":[");
        buf_add_str(b, inner);
        buf_addc(b, ',');
    }
    buf_addz(b, "{\"type\":\"sequence\",\"elements\":[");
    if (may_begin) {
        buf_addz(b, "{\"type\":\"or\",\"elements\":[");
        for (size_t i = 0; i < n; i++) {
            buf_addz(b, i ? "," : "");
            add_member(b, "const_string", "value", open[i]);
        }
        buf_addz(b, "]},");
    }
    add_reasoning(b, close, n);
    buf_addc(b, ',');
    buf_add_str(b, inner);
    buf_addz(b, may_begin ? "]}]}" : "]}");
}

/* waits_for: the token that ends the reasoning, where the worker can wait for it: where reasoning comes for sure, or
 * begins with a token that no grammar sees. */
static bool waits_for(const struct gen_req *r, uint32_t *id) {
    const struct str *open, *close;
    uint32_t first;
    const struct tok *t = r->model->tok;
    if (parse_reasoning_marks(r->parse.o.reasoning, &open, &close) > 1 || !tok_find(t, close[0], id))
        return false;
    return !parse_reasoning_begins(&r->parse.o) || tok_is_special(t, *id) ||
           (tok_find(t, open[0], &first) && tok_is_special(t, first));
}

void constraint_mix(const json_t *tools, struct gen_req *r) {
    struct buf b = {0}, inner = {0};
    bool wait = r->parse.o.reasoning && waits_for(r, &r->constraint.starts_after);
    bool think = r->parse.o.reasoning && !wait;
    r->constraint.starts_later = wait;
    if (!think && !r->parse.auto_tools)
        return;
    if (r->parse.auto_tools) {
        buf_addz(&inner, "{\"type\":\"or\",\"elements\":[");
        add_own(&inner, r);
        buf_addc(&inner, ',');
        add_calls(&inner, r->parse.o.tools, tools);
        buf_addz(&inner, "]}");
    } else {
        add_own(&inner, r);
    }
    buf_addz(&b, "{\"type\":\"structural_tag\",\"format\":");
    if (think)
        add_thinking(&b, r, buf_str(&inner));
    else
        buf_add_str(&b, buf_str(&inner));
    buf_addc(&b, '}');
    r->constraint.kind = GRAM_STRUCTURAL_TAG;
    r->constraint.text = (struct str){arena_strndup(&r->arena, b.data, b.len), b.len};
    buf_fini(&b);
    buf_fini(&inner);
}
