/* Parsers of calls as JSON. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/parse_join.h"

#define expect(o, text, want) assert_true(join_gives(o, text, want))

static const struct parse_opts hermes = {.tools = TOOLS_PARSER_HERMES};
#define CALL(args) "<tool_call>{\"name\": \"f\", \"arguments\": " args "}</tool_call>"

static void test_hermes(void **state) {
    (void)state;
    const struct parse_opts *o = &hermes;
    expect(o, "", "||");
    expect(o, "hello", "|hello|");
    expect(o, CALL("{\"a\": 1}"), "||f({\"a\": 1})\n");
    expect(o, "<tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call>", "||f({})\n");
    expect(o, "Let me see.\n" CALL("{}"), "|Let me see.\n|f({})\n");
    expect(o, CALL("{}") "\n" CALL("{\"b\":[1,{}]}") "\n", "||f({})\nf({\"b\":[1,{}]})\n");
    expect(o, CALL("{}") "\nand\n" CALL("{}") " so ", "|\nand\n so |f({})\nf({})\n");
    expect(o, CALL("{\"a\": \"</tool_call> }\\\"{\"}"), "||f({\"a\": \"</tool_call> }\\\"{\"})\n");
    expect(o, CALL("{\"a\": \"\xe2\x82\xac\\u20ac\\n\"}"), "||f({\"a\": \"\xe2\x82\xac\\u20ac\\n\"})\n");
    expect(o, CALL("{\"a\": \"x\ny\tz\"}"), "||f({\"a\": \"x\\ny\\tz\"})\n"); /* no JSON, but what was meant is clear */
    expect(o, "<tool_call>{\"name\": \"f\"}</tool_call>", "||f({})\n");
    expect(o, CALL("null"), "||f({})\n");
    expect(o, CALL("\"{\\\"a\\\": \\\"\\u00fc\\\"}\""), "||f({\"a\": \"\xc3\xbc\"})\n");
    expect(o, CALL("\"\""), "||f({})\n");
    expect(o, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "||f({\"a\": 1})\n");
    expect(o, "<tool_call>{\"name\": \"f\", \"parameters\": {\"a\": 1}}</tool_call>", "||f({\"a\": 1})\n");
    expect(o, "<tool_call>{\"id\": [1, \"}\"], \"name\": \"f\", \"x\": 1.5e3, \"arguments\": {}, \"y\": null }</tool_call>",
           "||f({})\n");
    expect(o, "<tool_call>{\"name\": \"\\u0066\\ud83d\\ude00\", \"arguments\": {}}</tool_call>", "||f\xf0\x9f\x98\x80({})\n");
    /* two objects in one pair of marks */
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n{\"name\": \"g\", \"arguments\": {}}</tool_call>x",
           "|x|f({})\ng({})\n");
    /* no closing mark */
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {}}", "||f({})\n");
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {}}<tool_call>{\"name\": \"g\", \"arguments\": {}}", "||f({})\ng({})\n");
}

/* What is no call stays as it was; a call that is cut or breaks off stays partial. */
static void test_hermes_broken(void **state) {
    (void)state;
    const struct parse_opts *o = &hermes;
    static const char *const plain[] = {
        "<tool_call>", "<tool_call", "a <tool_call> b", "</tool_call>", "<tool_call></tool_call>",
        "<tool_call>not json</tool_call>", "<tool_call>{}</tool_call>", "<tool_call>{\"name\": \"f\"",
        "<tool_call>{\"name\": \"f\", \"arguments\": </tool_call>", "<tool_call>{\"name\": 1}</tool_call>",
        "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>", "<tool_call>[{\"name\": \"f\"}]</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>", "<tool_call>{\"name\" \"f\"}</tool_call>",
        "<tool_call>{name: \"f\"}</tool_call>", "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
        "<tool_call>{\"name\": \"f\\q\", \"arguments\": {}}</tool_call>", "<tool_call>{\"name\": \"f\",}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"no\"}</tool_call>", "<<<<tool_call>><tool_call>",
        "<tool_call>\n\n  ", "<tool_call><tool_call><tool_call>", "<tool_call> x",
    };
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        struct buf want = {0};
        buf_addf(&want, "|%s|", plain[i]);
        expect(o, plain[i], buf_cstr(&want));
        buf_fini(&want);
    }
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"x", "||f({\"a\": \"x)\n");
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {", "||f({)\n");
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1</tool_call>b", "|b|f({\"a\": 1)\n");
    expect(o, CALL("{\"a\": [1}"), "||f({\"a\": [1}})\n"); /* brackets are counted only */
    expect(o, "<tool_call>{\"name\": \"f\", \"arguments\": {}}}</tool_call>", "|}|f({})\n");
    /* a first attempt fails, the second does not */
    expect(o, "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "|<tool_call>|f({})\n");
    expect(o, "<tool_call>{\"x<tool_call>\": 1}</tool_call>" CALL("{}"),
           "|<tool_call>{\"x<tool_call>\": 1}</tool_call>|f({})\n");
}

static void test_hidden(void **state) {
    (void)state;
    const struct parse_opts *o = &hermes;
    expect(o, "a\xfa{\"name\": \"f\", \"arguments\": {\"a\": 1}}\xfb", "|a|f({\"a\": 1})\n");
    expect(o, "\xfa" "no\xfb", "|no|");
    expect(o, "a\xfb\xff<tool\xf8_call>", "|a<tool_call>|");
}

static void test_after_reasoning(void **state) {
    (void)state;
    const struct parse_opts o = {.tools = TOOLS_PARSER_HERMES, .reasoning = REASONING_QWEN3};
    expect(&o, "<think>" CALL("{}") "</think>\n\n" CALL("{\"a\":2}"), CALL("{}") "|\n\n|f({\"a\":2})\n");
    expect(&o, CALL("{\"a\":\"<think>\"}"), "||f({\"a\":\"<think>\"})\n");
    expect(&o, "<think>a<tool_call>", "a<tool_call>||");
}

#define OBJECT(name, args) "{\"name\": \"" name "\", \"parameters\": " args "}"

static void test_llama(void **state) {
    (void)state;
    static const enum parse_tools kinds[] = {TOOLS_PARSER_LLAMA3_JSON, TOOLS_PARSER_LLAMA4_JSON};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        const struct parse_opts own = {.tools = kinds[k]}, *o = &own;
        static const char *const plain[] = {
            "hello", "{", "{}", "{\"a\": 1}", "{\"name\": \"Ann\", \"age\": 3}", "{\"name\": \"f\"}", "[1, {}]",
            "f() { return 1; }", "<|python_tag|>", "<|python_tag|>print(1)", "<|python_tag", "{\"parameters\": {}}",
            "{\"x\": " OBJECT("f", "{}") "}", "[" OBJECT("f", "{}") "]", "`" OBJECT("f", "{}") "`", "a; b", ";",
            "{\"name\": \"f\", \"parameters\": 1}", "{\"name\": \"f\", \"parameters\": [1]}",
        };
        for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
            struct buf want = {0};
            buf_addf(&want, "|%s|", plain[i]);
            expect(o, plain[i], buf_cstr(&want));
            buf_fini(&want);
        }
        expect(o, OBJECT("f", "{\"a\": [1, {\"b\": \"}\"}]}"), "||f({\"a\": [1, {\"b\": \"}\"}]})\n");
        expect(o, "{\"name\": \"f\", \"arguments\": {}}", "||f({})\n");
        expect(o, "{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", "||f({})\n");
        expect(o, OBJECT("f", "{}") "; " OBJECT("g", "{\"x\":1}") ";", "||f({})\ng({\"x\":1})\n");
        expect(o, OBJECT("f", "{}") "\n" OBJECT("g", "{}"), "||f({})\ng({})\n");
        expect(o, OBJECT("f", "{}") "; done", "|; done|f({})\n");
        expect(o, "<|python_tag|>" OBJECT("f", "{}"), "||f({})\n");
        expect(o, "<|python_tag|> {\"name\": \"f\"}", "||f({})\n");
        expect(o, "Hm. <|python_tag|>" OBJECT("f", "{}"), "|Hm. |f({})\n");
        expect(o, "\xfa" OBJECT("f", "{}"), "||f({})\n");
        expect(o, "\xfaprint", "|print|");
        expect(o, "Call: " OBJECT("f", "{}"), "|Call: " OBJECT("f", "{}") "|"); /* as a member of JSON */
        expect(o, "I call:\n" OBJECT("f", "{}"), "|I call:\n|f({})\n");
        expect(o, "Here it is\n" OBJECT("f", "{}"), "|Here it is\n|f({})\n");
        expect(o, OBJECT("f", "{\"a\": 1"), "||f({\"a\": 1})\n");
        expect(o, "{\"name\": \"f\", \"parameters\": {\"a\": ", "||f({\"a\": )\n");
        expect(o, OBJECT("f", "{}") "; {\"no\": 1}", "|; {\"no\": 1}|f({})\n");
    }
}

static void test_mistral(void **state) {
    (void)state;
    const struct parse_opts own = {.tools = TOOLS_PARSER_MISTRAL}, *o = &own;
    static const char *const plain[] = {
        "hello", "[TOOL_CALLS]", "[TOOL_CALLS", "[1]", "[TOOL_CALLS][]", "[TOOL_CALLS] [1]", "[TOOL_CALLS]f", "[TOOL_CALLS]f()",
        "[TOOL_CALLS]f g{}", "[TOOL_CALLS]f[ARGS]", "[TOOL_CALLS]f[ARGS][1]", "[TOOL_CALLS][ARGS]{}", "[TOOL_CALLS]f[ARGS",
        "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": 1}]", "[ARGS]f{}", "[TOOL_CALLS]f[CALL_ID]x", "[[TOOL_CALLS",
        "[TOOL_CALLS]f[TO", "[TOOL_CALLS]f[[", "[TOOL_CALLS]f[CALL_ID]a[CALL_ID]b",
    };
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        struct buf want = {0};
        buf_addf(&want, "|%s|", plain[i]);
        expect(o, plain[i], buf_cstr(&want));
        buf_fini(&want);
    }
    expect(o, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "||f({\"a\": 1})\n");
    expect(o, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}, {\"name\":\"g\",\"arguments\":{}, \"id\":\"abcdefghi\"}]", "||f({})\ng({})\n");
    expect(o, "[TOOL_CALLS]{\"name\":\"f\",\"arguments\":{}}", "||f({})\n");
    expect(o, "hm [TOOL_CALLS]get_it{\"a\": [\"}\"]}", "|hm |get_it({\"a\": [\"}\"]})\n");
    expect(o, "[TOOL_CALLS]f[ARGS]{\"a\": 1}", "||f({\"a\": 1})\n");
    expect(o, "[TOOL_CALLS]f [ARGS] {\"a\": 1} ", "||f({\"a\": 1})\n");
    expect(o, "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{}", "||f({})\n");
    expect(o, "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g{\"b\":2}", "||f({})\ng({\"b\":2})\n");
    expect(o, "[TOOL_CALLS]f[ARGS]{}\nso", "|\nso|f({})\n");
    expect(o, "[TOOL_CALLS]f{\"a\": \"x", "||f({\"a\": \"x)\n");
    expect(o, "[TOOL_CALLS]a[TOOL_CALLS]f{}", "|[TOOL_CALLS]a|f({})\n");
    expect(o, "[TOOL_CALLS]a[[TOOL_CALLS]f{}", "|[TOOL_CALLS]a[|f({})\n");
    expect(o, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}, oops]", "|, oops]|f({})\n");
    expect(o, "a\xfa" "f\xfb{}\xfag\xfc" "1\xfb{}", "|a|f({})\ng({})\n");
    expect(o, "\xfa\xfa" "f{}", "||f({})\n");
    expect(o, "\xfa" "f\xfa" "g{}", "|f|g({})\n");
}

static void test_jamba(void **state) {
    (void)state;
    const struct parse_opts own = {.tools = TOOLS_PARSER_JAMBA}, *o = &own;
    static const char *const plain[] = {"<tool_calls>[]</tool_calls>", "<tool_calls>", "<tool_call>{}</tool_call>", "<tool_calls>[1]</tool_calls>"};
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        struct buf want = {0};
        buf_addf(&want, "|%s|", plain[i]);
        expect(o, plain[i], buf_cstr(&want));
        buf_fini(&want);
    }
    expect(o, "x <tool_calls>[\n  {\"name\": \"f\", \"arguments\": {\"a\": 1}},\n {\"name\": \"g\", \"arguments\": {}}\n]</tool_calls>",
           "|x |f({\"a\": 1})\ng({})\n");
    expect(o, " <tool_calls>{\"name\": \"f\"}</tool_calls> y", "|  y|f({})\n");
}

/* Where calls must come first, content that does not begin with one has none. */
static void test_calls_first(void **state) {
    (void)state;
    for (size_t t = 0; t < N_TOOLS_PARSER; t++) {
        const struct parse_opts own = {.tools = (enum parse_tools)t, .calls_first = true}, *o = &own;
        expect(o, "a " CALL("{}") " [f(a=1)] <function=f></function> [TOOL_CALLS]f{} <tool_calls>[", "|a " CALL("{}")
               " [f(a=1)] <function=f></function> [TOOL_CALLS]f{} <tool_calls>[|");
    }
    const struct parse_opts own = {.tools = TOOLS_PARSER_HERMES, .calls_first = true}, *o = &own;
    expect(o, "\n" CALL("{}") "x" CALL("{}"), "|\nx|f({})\nf({})\n");
    expect(o, "<tool_call>{}" CALL("{}"), "|<tool_call>{}" CALL("{}") "|");
    expect(o, "<tool_cal <tool_call", "|<tool_cal <tool_call|");
    expect(o, "x<tool_call", "|x<tool_call|");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hermes),          cmocka_unit_test(test_hermes_broken), cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_after_reasoning), cmocka_unit_test(test_llama),         cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_jamba),           cmocka_unit_test(test_calls_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
