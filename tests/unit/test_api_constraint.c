/* Structured output and tools: what the fields become, what is refused, and how calls are told
 * (api.md 9.1, 11.1). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "common/gram/gram.h"
#include "common/json.h"
#include "tests/support/api_fixture.h"

static int setup(void **state) {
    struct api_fixture *f = xcalloc(1, sizeof *f);
    struct err e = {0};
    api_fixture_init(f);
    *state = f;
    return api_fixture_open(f, &e) ? -1 : 0;
}

static int teardown(void **state) {
    api_fixture_fini(*state);
    free(*state);
    return 0;
}

/* body: with ' for ". */
static enum rc prepare(struct api_fixture *f, enum gen_route route, const char *fields, struct gen_req **r,
                       struct err *e) {
    struct buf b = {0};
    *e = (struct err){0};
    *r = NULL;
    buf_addz(&b, route == GEN_CHAT ? "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                                   : "{\"prompt\":\"a\",");
    for (; *fields; fields++)
        buf_addc(&b, *fields == '\'' ? '"' : *fields);
    buf_addc(&b, '}');
    enum rc rc = gen_prepare(&f->env, route, buf_str(&b), STR_LIT("x"), r, e);
    buf_fini(&b);
    return rc;
}

static void expect(struct api_fixture *f, const char *fields, enum gram_kind kind, const char *text,
                   const char *options) {
    for (enum gen_route route = GEN_COMPLETIONS; route <= GEN_CHAT; route++) {
        struct gen_req *r;
        struct err e;
        if (prepare(f, route, fields, &r, &e))
            fail_msg("%s: %s", fields, e.msg);
        assert_int_equal(r->constraint.kind, kind);
        if (kind)
            assert_string_equal(r->constraint.text.p, text);
        if (options)
            assert_string_equal(r->constraint.options.p, options);
        struct gen_submit s;
        gen_submit(r, 0, &s);
        assert_true(!!s.m.constraint == !!kind);
        if (kind) {
            assert_int_equal(s.m.constraint->kind, kind);
            assert_string_equal(s.m.constraint->text, text);
        }
        gen_req_free(r);
    }
}

static void refuse(struct api_fixture *f, const char *fields, const char *param, const char *says) {
    struct gen_req *r;
    struct err e;
    if (prepare(f, GEN_CHAT, fields, &r, &e) != RC_INVALID)
        fail_msg("%s is taken", fields);
    if (strcmp(e.param, param) != 0 || !strstr(e.msg, says))
        fail_msg("%s: \"%s\" \"%s\", not \"%s\" \"%s\"", fields, e.param, e.msg, param, says);
}

static void test_fields(void **state) {
    struct api_fixture *f = *state;
    expect(f, "'n':1", 0, NULL, NULL);
    expect(f, "'response_format':{'type':'text'}", 0, NULL, NULL);
    expect(f, "'response_format':{'type':'json_object'}", GRAM_JSON_SCHEMA, "{\"type\":\"object\"}", NULL);
    expect(f,
           "'response_format':{'type':'json_schema','json_schema':{'name':'n','schema':{'const':1},'strict':"
           "false}}",
           GRAM_JSON_SCHEMA, "{\"const\":1}", NULL);
    expect(f, "'response_format':{'type':'structural_tag','format':{'type':'any_text'}}", GRAM_STRUCTURAL_TAG,
           "{\"type\":\"structural_tag\",\"format\":{\"type\":\"any_text\"}}", NULL);
    expect(f, "'guided_json':{'type':'integer'}", GRAM_JSON_SCHEMA, "{\"type\":\"integer\"}", NULL);
}

static void test_texts(void **state) {
    struct api_fixture *f = *state;
    expect(f, "'guided_json':'true'", GRAM_JSON_SCHEMA, "true", NULL);
    expect(f, "'guided_regex':'a+','guided_decoding_backend':'xgrammar'", GRAM_REGEX, "a+", NULL);
    expect(f, "'guided_choice':['x','\u00e9']", GRAM_CHOICE, "[\"x\",\"\u00e9\"]", NULL);
    expect(f, "'guided_grammar':'root ::= [a]'", GRAM_EBNF, "root ::= [a]", NULL);
    expect(f, "'structural_tag':{'format':{'type':'any_text'}}", GRAM_STRUCTURAL_TAG,
           "{\"format\":{\"type\":\"any_text\"}}", NULL);
    expect(f, "'structured_outputs':{'regex':'b','disable_fallback':true,'json':null}", GRAM_REGEX, "b",
           NULL);
    expect(f, "'structured_outputs':{'choice':['b']}", GRAM_CHOICE, "[\"b\"]", NULL);
    expect(f, "'structured_outputs':{'grammar':'root ::= [a]'}", GRAM_EBNF, "root ::= [a]", NULL);
    expect(f, "'structured_outputs':{'json_object':true}", GRAM_JSON_SCHEMA, "{\"type\":\"object\"}", NULL);
    expect(f, "'structured_outputs':{'structural_tag':{'format':{'type':'any_text'}}}", GRAM_STRUCTURAL_TAG,
           "{\"format\":{\"type\":\"any_text\"}}", NULL);
    expect(f,
           "'structured_outputs':{'json':{'const':1},'disable_any_whitespace':true,'disable_additional_"
           "properties':true,"
           "'whitespace_pattern':' '}",
           GRAM_JSON_SCHEMA, "{\"const\":1}",
           "{\"whitespace_pattern\":\" "
           "\",\"disable_any_whitespace\":true,\"disable_additional_properties\":true}");
    expect(f, "'guided_json':{'const':1},'guided_whitespace_pattern':'[ ]?'", GRAM_JSON_SCHEMA,
           "{\"const\":1}", "{\"whitespace_pattern\":\"[ ]?\"}");
}

static void test_refusals(void **state) {
    struct api_fixture *f = *state;
    refuse(f, "'guided_regex':'a','guided_choice':['a']", "guided_choice", "guided_regex and guided_choice");
    refuse(f, "'guided_regex':'a','structured_outputs':{'regex':'a'}", "structured_outputs.regex",
           "guided_regex and");
    refuse(f, "'structured_outputs':{'regex':'a','json':{}}", "structured_outputs.regex",
           "structured_outputs.json and");
    refuse(f, "'response_format':{'type':'json_object'},'guided_regex':'a'", "guided_regex",
           "response_format and");
    refuse(f, "'structured_outputs':{}", "structured_outputs", "must have one of");
    refuse(f, "'structured_outputs':{'json_object':false}", "structured_outputs", "must have one of");
    refuse(f, "'structured_outputs':{'jsn':{}}", "structured_outputs", "jsn is not known");
    refuse(f, "'response_format':{}", "response_format.type", "must be one of");
    refuse(f, "'response_format':{'type':'yaml'}", "response_format.type", "must be one of");
    refuse(f, "'response_format':{'type':'json_schema'}", "response_format.json_schema", "is missing");
    refuse(f, "'response_format':{'type':'json_schema','json_schema':{'schema':{}}}",
           "response_format.json_schema.name", "is missing");
    refuse(f, "'response_format':{'type':'json_schema','json_schema':{'name':'n'}}",
           "response_format.json_schema.schema", "must be a JSON schema");
    refuse(f, "'guided_json':7", "guided_json", "must be an object or its JSON text");
    refuse(f, "'guided_json':'{'", "guided_json", "JSON");
    refuse(f, "'guided_json':{'type':'strin'}", "guided_json", "guided_json: /type: ");
    refuse(f, "'guided_json':{'properties':{'a':{'minimum':'x'}}}", "guided_json",
           "guided_json: /properties/a/minimum: ");
    refuse(f,
           "'response_format':{'type':'json_schema','json_schema':{'name':'n','strict':true,'schema':{'type':"
           "7}}}",
           "response_format.json_schema.schema", "/type: ");
    refuse(f, "'guided_json':false", "guided_json", "object");
    refuse(f, "'guided_json':{'minLength':5,'maxLength':3,'type':'string'}", "guided_json", "");
    refuse(f, "'guided_regex':'(a'", "guided_regex", "guided_regex: pattern offset 0: ");
    refuse(f, "'guided_regex':'a\\u0000'", "guided_regex", "U+0000");
    refuse(f, "'guided_choice':[]", "guided_choice", "not empty");
    refuse(f, "'guided_choice':['a','b','a']", "guided_choice", "twice");
    refuse(f, "'guided_choice':['a',7]", "guided_choice.1", "must be a string");
    refuse(f, "'guided_grammar':'root ::= x'", "guided_grammar", "line 1: \"x\" is not defined");
    refuse(f, "'guided_decoding_backend':'llama'", "guided_decoding_backend",
           "must be one of auto, xgrammar");
    refuse(f, "'guided_json':{},'guided_whitespace_pattern':'x'", "guided_json", "");
    refuse(f, "'structural_tag':{'format':{'type':'html'}}", "structural_tag",
           "structural_tag: /format: type");
}

/* What was compiled is not compiled again, and what is bad is bad twice. */
static void test_again(void **state) {
    struct api_fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        expect(f, "'guided_regex':'x{3}'", GRAM_REGEX, "x{3}", NULL);
        refuse(f, "'guided_regex':'x(3'", "guided_regex", "without closing");
    }
}

#define TOOL(name, parameters)                                                                               \
    "{'type':'function','function':{'name':'" name "','parameters':" parameters "}}"
#define TWO                                                                                                  \
    "'tools':[" TOOL("f", "{'type':'object','properties':{'x':{'$ref':'#/$defs/"                             \
                          "t'}},'$defs':{'t':{'const':1}}}") "," TOOL(                                       \
        "g-2", "{'properties':{'x':{'$ref':'#/$defs/t'}},'$defs':{'t':{'const':2}}}") "]"

static bool takes(const struct gen_req *r, const char *text) {
    struct gram *g;
    struct err e = {0};
    assert_int_equal(
        gram_compile(&g, r->constraint.kind, r->constraint.text, r->constraint.options, NULL, &e), RC_OK);
    struct gram_run *run = gram_run_new(g, NULL);
    bool yes = gram_run_bytes(run, str_of(text), NULL, &e) == RC_OK && gram_run_may_end(run);
    gram_run_free(run);
    gram_drop(g);
    return yes;
}

static void test_tools(void **state) {
    struct api_fixture *f = *state;
    struct gen_req *r;
    struct err e;
    assert_int_equal(prepare(f, GEN_CHAT, TWO ",'tool_choice':'none'", &r, &e), RC_OK);
    assert_int_equal(r->constraint.kind, 0);
    assert_int_equal(r->tools_mode, TOOLS_NONE);
    gen_req_free(r);
    assert_int_equal(prepare(f, GEN_CHAT,
                             TWO ",'tool_choice':'required','response_format':{'type':'json_object'}", &r,
                             &e),
                     RC_OK);
    assert_int_equal(r->tools_mode, TOOLS_REQUIRED);
    assert_true(takes(r, "[{\"name\": \"f\", \"parameters\": {\"x\":1}}]"));
    assert_true(
        takes(r, "[{\"name\": \"g-2\", \"parameters\": {\"x\":2}}, {\"name\": \"f\", \"parameters\": {}}]"));
    assert_false(takes(r, "[{\"name\": \"f\", \"parameters\": {\"x\":2}}]")); /* each with its own $defs */
    assert_false(takes(r, "[]"));
    gen_req_free(r);
    assert_int_equal(
        prepare(f, GEN_CHAT, TWO ",'tool_choice':{'type':'function','function':{'name':'g-2'}}", &r, &e),
        RC_OK);
    assert_int_equal(r->tools_mode, TOOLS_NAMED);
    assert_true(takes(r, "{\"x\":2}"));
    assert_false(takes(r, "{\"x\":1}"));
    gen_req_free(r);
    assert_int_equal(
        prepare(f, GEN_CHAT,
                "'tools':[{'type':'function','function':{'name':'h'}}],'tool_choice':{'type':'function',"
                "'function':{'name':'h'}}",
                &r, &e),
        RC_OK);
    assert_true(takes(r, "{}"));
    assert_false(takes(r, "{\"a\":1}"));
    gen_req_free(r);
}

static void test_tool_refusals(void **state) {
    struct api_fixture *f = *state;
    refuse(f, "'tools':[]", "tools", "must not be empty");
    refuse(f, "'tools':[7]", "tools.0", "must be an object");
    refuse(f, "'tools':[{'type':'function'}]", "tools.0.function", "a tool is");
    refuse(f, "'tools':[{'type':'code','function':{'name':'f'}}]", "tools.0.type", "a tool is");
    refuse(f, "'tools':[{'type':'function','function':{}}]", "tools.0.function.name", "1 to 64");
    refuse(f, "'tools':[" TOOL("", "{}") "]", "tools.0.function.name", "1 to 64");
    refuse(f, "'tools':[" TOOL("a b", "{}") "]", "tools.0.function.name", "1 to 64");
    refuse(f, "'tools':[" TOOL("a\\n", "{}") "]", "tools.0.function.name", "1 to 64");
    refuse(f, "'tools':[" TOOL("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "{}") "]",
           "tools.0.function.name", "1 to 64");
    refuse(f, "'tools':[" TOOL("f", "[]") "]", "tools.0.function.parameters", "");
    refuse(f, "'tools':[" TOOL("f", "{}") "," TOOL("f", "{}") "]", "tools", "two functions are called \"f\"");
    refuse(f, TWO, "tool_choice", "--enable-auto-tool-choice and --tool-call-parser");
    refuse(f, TWO ",'tool_choice':'auto'", "tool_choice", "--enable-auto-tool-choice and --tool-call-parser");
    refuse(f, TWO ",'tool_choice':'some'", "tool_choice", "must be none, auto, required");
    refuse(f, TWO ",'tool_choice':7", "tool_choice", "a string or an object");
    refuse(f, TWO ",'tool_choice':{}", "tool_choice", "must be none, auto, required");
    refuse(f, TWO ",'tool_choice':{'type':'function','function':{'name':'z'}}", "tool_choice.function.name",
           "no tool \"z\"");
    refuse(f, "'tool_choice':'required'", "tool_choice", "needs tools");
    refuse(f, "'tool_choice':{'type':'function','function':{'name':'z'}}", "tool_choice", "needs tools");
    refuse(f, TWO ",'tool_choice':'required','guided_regex':'a'", "guided_regex", "required tool_choice");
    refuse(f, "'tools':[" TOOL("f", "{'type':7}") "],'tool_choice':'required'", "tools",
           "/format/elements/1/tags/0/content/json_schema/type");
    f->opts.limit.tools = 1;
    refuse(f, TWO, "tools", "less_than_equal 1 (--max-tools)");
    f->opts.limit.tools = 256;
}

/* ---- calls ------------------------------------------------------------------------------------------- */

static const struct gen_finish LENGTH = {.reason = GEN_LENGTH}, STOP = {.reason = GEN_STOP};

/* run_calls: the text byte by byte. Streamed: the deltas put together, in the form of the whole answer. */
static json_t *run_calls(struct api_fixture *f, const char *fields, bool stream, const char *text,
                         const struct gen_finish *finish) {
    struct gen_req *r;
    struct err e;
    struct buf out = {0}, all = {0};
    buf_addf(&all, "%s,'stream':%s", fields, stream ? "true" : "false");
    if (prepare(f, GEN_CHAT, buf_cstr(&all), &r, &e))
        fail_msg("%s", e.msg);
    struct gen_run *g = gen_run_new(r);
    for (const char *p = text; *p; p++) {
        struct gen_token t = {.id = (uint8_t)*p};
        gen_on_step(g, 0, &t, NULL, &out);
    }
    gen_on_step(g, 0, NULL, finish, &out);
    assert_int_equal(gen_on_end(g, &out, &e), RC_OK);
    json_t *answer;
    if (!stream) {
        answer = json_loadb(out.data, out.len, 0, NULL);
    } else {
        answer = json_pack("{s:[{s:{s:s,s:[]},s:n}]}", "choices", "message", "content", "", "tool_calls",
                           "finish_reason");
        json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
        json_t *calls = json_object_get(json_object_get(choice, "message"), "tool_calls");
        for (char *line = strtok((char *)(uintptr_t)buf_cstr(&out), "\n"); line; line = strtok(NULL, "\n")) {
            json_t *chunk = json_loads(line + strlen("data: "), 0, NULL);
            json_t *c = json_array_get(json_object_get(chunk, "choices"), 0);
            json_t *finished = json_object_get(c, "finish_reason");
            if (json_is_string(finished))
                json_object_set(choice, "finish_reason", finished);
            size_t i;
            json_t *d;
            json_array_foreach(json_object_get(json_object_get(c, "delta"), "tool_calls"), i, d) {
                size_t index = (size_t)json_integer_value(json_object_get(d, "index"));
                json_t *fn = json_object_get(d, "function");
                if (index == json_array_size(calls)) {
                    assert_non_null(json_object_get(d, "id"));
                    json_array_append(calls, d);
                    continue;
                }
                assert_null(json_object_get(d, "id"));
                json_t *whole = json_object_get(json_array_get(calls, index), "function");
                char *joined = NULL;
                assert_true(asprintf(&joined, "%s%s", json_string_value(json_object_get(whole, "arguments")),
                                     json_string_value(json_object_get(fn, "arguments"))) >= 0);
                json_object_set_new(whole, "arguments", json_string(joined));
                free(joined);
            }
            json_decref(chunk);
        }
    }
    assert_non_null(answer);
    gen_run_free(g);
    buf_fini(&out);
    buf_fini(&all);
    return answer;
}

static void expect_calls(struct api_fixture *f, const char *fields, const char *text,
                         const struct gen_finish *finish, const char *reason, const char *const *want) {
    for (int stream = 0; stream < 2; stream++) {
        json_t *answer = run_calls(f, fields, stream, text, finish);
        json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
        json_t *message = json_object_get(choice, "message"), *calls = json_object_get(message, "tool_calls");
        assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")), reason);
        assert_string_equal(json_string_value(json_object_get(message, "content")), "");
        size_t n = 0;
        for (; want[2 * n]; n++) {
            json_t *call = json_array_get(calls, n), *fn = json_object_get(call, "function");
            assert_string_equal(json_string_value(json_object_get(call, "type")), "function");
            assert_int_equal(strlen(json_string_value(json_object_get(call, "id"))),
                             strlen("chatcmpl-tool-") + 32);
            assert_string_equal(json_string_value(json_object_get(fn, "name")), want[2 * n]);
            assert_string_equal(json_string_value(json_object_get(fn, "arguments")), want[2 * n + 1]);
        }
        assert_int_equal(json_array_size(calls), n);
        json_decref(answer);
    }
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_calls(void **state) {
    struct api_fixture *f = *state;
    const char *required = TWO ",'tool_choice':'required'";
    const char *named = TWO ",'tool_choice':{'type':'function','function':{'name':'f'}}";
    expect_calls(f, required, "[{\"name\": \"f\", \"parameters\": {\"x\" :\n 1}}]", &STOP, "tool_calls",
                 LIST("f", "{\"x\":1}"));
    expect_calls(
        f, required,
        "[{\"name\": \"g-2\", \"parameters\": {}}, {\"name\": \"f\", \"parameters\": {\"a\": \"}]\\\"{\"}}]",
        &STOP, "tool_calls", LIST("g-2", "{}", "f", "{\"a\":\"}]\\\"{\"}"));
    expect_calls(f, required,
                 "[{\"name\": \"f\", \"parameters\": [\"\\u00e9\\ud83d\\ude00\\u0001\\/\\n\\\\\"]}]", &STOP,
                 "tool_calls", LIST("f", "[\"\u00e9\U0001F600\\u0001/\\n\\\\\"]"));
    expect_calls(f, required, "[{\"name\": \"f\", \"parameters\": {\"a\": \"b\\u00", &LENGTH, "length",
                 LIST("f", "{\"a\":\"b"));
    expect_calls(f, required, "[{\"name\": \"g-", &LENGTH, "length", ((const char *const[]){NULL}));
    expect_calls(f, named, "{\"x\" : 1 }", &STOP, "stop", LIST("f", "{\"x\" : 1 }"));
    expect_calls(f, named, "{\"x\"", &LENGTH, "length", LIST("f", "{\"x\""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tools, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tool_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
