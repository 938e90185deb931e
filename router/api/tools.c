/* tools.c: the tools of a chat, who must be called, and the grammar of such calls (api.md 7.1, 11.1). */
#include <stdio.h>
#include <stdlib.h>

#include "router/api/constraint.h"

enum { TOOL_NAME_MAX = 64 };

/* good_name: as OpenAI's, and '.', '/', ':' for names with parts. */
static bool good_name(struct str s) {
    if (s.n == 0 || s.n > TOOL_NAME_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr("_-./:", c)) ||
            !c)
            return false;
    }
    return true;
}

static const json_t *function_of(const json_t *tool) {
    return json_object_get(tool, "function");
}

static struct str name_of(const json_t *tool) {
    const json_t *v = json_object_get(function_of(tool), "name");
    return (struct str){json_string_value(v), json_string_length(v)};
}

static enum rc check_tool(const json_t *tool, size_t i, struct err *e) {
    char path[48], param[96];
    struct str type = {0}, s = {0};
    const json_t *f = NULL, *parameters = NULL;
    bool named = false;
    snprintf(path, sizeof path, "tools.%zu", i);
    enum rc rc = json_get_str(tool, path, "type", &type, NULL, e);
    if (!rc)
        rc = json_get_object(tool, path, "function", &f, NULL, e);
    if (rc)
        return rc;
    snprintf(param, sizeof param, "%s.%s", path, f ? "type" : "function");
    if (!str_eqz(type, "function") || !f)
        return err_set(e, RC_INVALID, param, "%s: a tool is {\"type\": \"function\", \"function\": {...}}",
                       param);
    snprintf(param, sizeof param, "%s.function", path);
    if ((rc = json_get_str(f, param, "name", &s, &named, e)) ||
        (rc = json_get_str(f, param, "description", &type, NULL, e)) ||
        (rc = json_get_object(f, param, "parameters", &parameters, NULL, e)))
        return rc;
    snprintf(param, sizeof param, "%s.function.name", path);
    if (!named || !good_name(s))
        return err_set(e, RC_INVALID, param,
                       "%s must have 1 to %d letters, digits, '_', '-', '.', '/' or ':'", param,
                       TOOL_NAME_MAX);
    return RC_OK;
}

static int name_order(const void *pa, const void *pb) {
    const struct str *a = pa, *b = pb;
    int d = memcmp(a->p, b->p, MIN(a->n, b->n));
    return d ? d : (a->n > b->n) - (a->n < b->n);
}

enum rc tools_check(const json_t *tools, struct err *e) {
    if (!tools)
        return RC_OK;
    size_t n = json_array_size(tools);
    if (n == 0)
        return err_set(e, RC_INVALID, "tools", "tools must not be empty");
    enum rc rc = RC_OK;
    for (size_t i = 0; i < n && !rc; i++)
        rc = check_tool(json_array_get(tools, i), i, e);
    if (rc)
        return rc;
    struct str *names = xreallocarray(NULL, n, sizeof *names);
    for (size_t i = 0; i < n; i++)
        names[i] = name_of(json_array_get(tools, i));
    qsort(names, n, sizeof *names, name_order);
    for (size_t i = 1; i < n && !rc; i++)
        if (str_eq(names[i], names[i - 1]))
            rc = err_set(e, RC_INVALID, "tools", "tools: two functions are called \"%.*s\"", (int)names[i].n,
                         names[i].p);
    free(names);
    return rc;
}

/* ---- tool_choice ------------------------------------------------------------------------------------ */

static enum rc read_named(const json_t *tools, json_t *choice, struct gen_req *r, struct err *e) {
    struct str type = {0}, name = {0};
    const json_t *f = NULL;
    enum rc rc = json_get_str(choice, "tool_choice", "type", &type, NULL, e);
    if (!rc)
        rc = json_get_object(choice, "tool_choice", "function", &f, NULL, e);
    if (!rc && (!str_eqz(type, "function") || !f))
        rc = err_set(e, RC_INVALID, "tool_choice",
                     "tool_choice must be none, auto, required or {\"type\": \"function\", \"function\": "
                     "{\"name\": ...}}");
    if (!rc)
        rc = json_get_str(f, "tool_choice.function", "name", &name, NULL, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        if (!str_eq(name_of(json_array_get(tools, i)), name))
            continue;
        r->tools_mode = TOOLS_NAMED;
        r->tool_name = (struct str){arena_strndup(&r->arena, name.p, name.n), name.n};
        return RC_OK;
    }
    struct str shown = api_quote(name);
    return err_set(e, RC_INVALID, "tool_choice.function.name", "tool_choice: there is no tool \"%.*s\"",
                   (int)shown.n, shown.n ? shown.p : "");
}

enum rc tools_read(const struct field_values *v, const struct router_opts *o, struct gen_req *r,
                   struct err *e) {
    enum rc rc = tools_check(v->tools, e);
    if (rc)
        return rc;
    json_t *c = v->tool_choice;
    r->parse.one_call = o->enforce_parallel_calls && v->parallel_tool_calls.set && !v->parallel_tool_calls.v;
    struct str word = {json_string_value(c), json_string_length(c)};
    if (c && !json_is_string(c) && !json_is_object(c))
        return err_set(e, RC_INVALID, "tool_choice", "tool_choice must be a string or an object, not %s",
                       json_kind(c));
    if (json_is_object(c) && v->tools)
        return read_named(v->tools, c, r, e);
    if (str_eqz(word, "none") || (!c && !v->tools))
        return RC_OK;
    if ((!c || str_eqz(word, "auto")) && !(o->auto_tool_choice && o->tool_call_parser))
        return err_set(e, RC_INVALID, "tool_choice",
                       "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set; "
                       "none, required and a named function work without");
    if (!v->tools)
        return err_set(e, RC_INVALID, "tool_choice", "tool_choice needs tools, unless it is none");
    if (!c || str_eqz(word, "auto")) {
        r->parse.auto_tools = true;
        return RC_OK;
    }
    if (str_eqz(word, "required")) {
        r->tools_mode = TOOLS_REQUIRED;
        return RC_OK;
    }
    return err_set(e, RC_INVALID, "tool_choice",
                   "tool_choice must be none, auto, required or {\"type\": \"function\", \"function\": "
                   "{\"name\": ...}}");
}

/* ---- the grammar of calls --------------------------------------------------------------------------- */

static const json_t *find_tool(const json_t *tools, struct str name) {
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (str_eq(name_of(json_array_get(tools, i)), name))
            return json_array_get(tools, i);
    return NULL;
}

/* None: an object without members. */
void tool_schema(const json_t *tool, struct buf *b) {
    const json_t *p = json_object_get(function_of(tool), "parameters");
    if (p && !json_is_null(p))
        jw_json(b, p);
    else
        buf_addz(b, "{\"type\":\"object\",\"properties\":{}}");
}

/* A required call is an array of {name, parameters}. It is put together from tags around each tool's own
 * schema, not as one schema, so that the $defs of one tool are not those of another. The text between the
 * schemas is fixed; tool_calls.c reads it. */
void tools_constraint(const json_t *tools, struct gen_req *r) {
    struct buf b = {0};
    if (r->tools_mode == TOOLS_NAMED) {
        r->constraint.kind = GRAM_JSON_SCHEMA;
        tool_schema(find_tool(tools, r->tool_name), &b);
    } else {
        r->constraint.kind = GRAM_STRUCTURAL_TAG;
        buf_addz(&b,
                 "{\"type\":\"structural_tag\",\"format\":{\"type\":\"sequence\",\"elements\":["
                 "{\"type\":\"const_string\",\"value\":\"[\"},"
                 "{\"type\":\"tags_with_separator\",\"separator\":\", \",\"at_least_one\":true,"
                 "\"stop_after_first\":");
        jw_bool(&b, r->parse.one_call);
        buf_addz(&b, ",\"tags\":[");
        for (size_t i = 0; i < json_array_size(tools); i++) {
            const json_t *tool = json_array_get(tools, i);
            struct str name = name_of(tool);
            /* The name has no character that JSON escapes. */
            buf_addf(&b, "%s{\"begin\":\"{\\\"name\\\": \\\"%.*s\\\", \\\"parameters\\\": \",\"end\":\"}\",",
                     i ? "," : "", (int)name.n, name.p);
            buf_addz(&b, "\"content\":{\"type\":\"json_schema\",\"json_schema\":");
            tool_schema(tool, &b);
            buf_addz(&b, "}}");
        }
        buf_addz(&b, "]},{\"type\":\"const_string\",\"value\":\"]\"}]}}");
    }
    r->constraint.text = (struct str){arena_strndup(&r->arena, b.data, b.len), b.len};
    buf_fini(&b);
}
