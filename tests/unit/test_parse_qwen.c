/* qwen3_coder: tags, and values typed by the schema. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/parse_join.h"

#define expect(o, text, want) assert_true(join_gives(o, text, want))
#define NAMED(s) {s, sizeof(s) - 1}

/* sorted */
static const struct parse_type types[] = {
    {NAMED("f"), NAMED("a"), PARSE_ARRAY},
    {NAMED("f"), NAMED("any"), PARSE_ANY},
    {NAMED("f"), NAMED("b"), PARSE_BOOLEAN},
    {NAMED("f"), NAMED("i"), PARSE_INTEGER},
    {NAMED("f"), NAMED("in"), PARSE_INTEGER | PARSE_NULL},
    {NAMED("f"), NAMED("n"), PARSE_NUMBER},
    {NAMED("f"), NAMED("o"), PARSE_OBJECT},
    {NAMED("f"), NAMED("s"), PARSE_STRING},
    {NAMED("g"), NAMED("s"), PARSE_INTEGER},
};
static const struct parse_opts opts = {
    .tools = TOOLS_PARSER_QWEN3_CODER, .types = types, .n_types = ARRAY_LEN(types)};

#define F(inside) "<tool_call>\n<function=f>\n" inside "</function>\n</tool_call>"
#define P(key, text) "<parameter=" key ">\n" text "\n</parameter>\n"

static void test_calls(void **state) {
    (void)state;
    const struct parse_opts *o = &opts;
    expect(o, "hello", "|hello|");
    expect(o, F(""), "||f({})\n");
    expect(o, F(P("s", "x")), "||f({\"s\": \"x\"})\n");
    expect(o, F(P("s", "a\n\"b\"\\\n") P("i", "3")), "||f({\"s\": \"a\\n\\\"b\\\"\\\\\\n\", \"i\": 3})\n");
    expect(o, "I will.\n" F("") "\n" F(P("s", "y")) "\n", "|I will.\n|f({})\nf({\"s\": \"y\"})\n");
    expect(o, F("") " so", "| so|f({})\n");
    expect(o, F("<parameter=s>x</parameter>"), "||f({\"s\": \"x\"})\n"); /* without the newlines */
    expect(o, F(P("s", "")), "||f({\"s\": \"\"})\n");
    expect(o, F(P("s", "\n\nx\n\n")), "||f({\"s\": \"\\n\\nx\\n\\n\"})\n");
    expect(o, F(P("s", "<p>a < b</p> </parameter </fun")), "||f({\"s\": \"<p>a < b</p> </parameter </fun\"})\n");
    expect(o, F(P("new \"key\"", "7")), "||f({\"new \\\"key\\\"\": \"7\"})\n"); /* not in the schema: text */
    expect(o, "<function=f>" P("i", "1") "</function>", "||f({\"i\": 1})\n"); /* no outer tag */
    expect(o, "<tool_call><function=f><parameter=s>x<parameter=i>\n2\n</function></tool_call>",
           "||f({\"s\": \"x\", \"i\": 2})\n"); /* no closing tags */
    expect(o, "<tool_call><function=f></tool_call>!", "|!|f({})\n");
    expect(o, "<tool_call><function=f><parameter=s>x</parameter><function=g></function></tool_call>",
           "||f({\"s\": \"x\"})\ng({})\n");
    expect(o, "\xfa<function=f></function>\xfb.", "|.|f({})\n");
    expect(o, "<tool_call><function=g>" P("s", "5") "</function></tool_call>", "||g({\"s\": 5})\n");
}

static void test_types(void **state) {
    (void)state;
    static const struct {
        const char *key, *text, *json;
    } rows[] = {
        {"i", "12", "12"}, {"i", " -3 ", "-3"}, {"i", "3.5", "\"3.5\""}, {"i", "x", "\"x\""}, {"i", "null", "null"},
        {"in", "None", "null"}, {"n", "3", "3"}, {"n", "1e5", "1e5"}, {"n", "1.", "1.0"}, {"b", "true", "true"},
        {"b", "False", "false"}, {"b", "yes", "\"yes\""}, {"a", "[1, 2]", "[1, 2]"}, {"a", "['x', None]", "[\"x\", null]"},
        {"a", "{}", "\"{}\""}, {"o", "{\"k\": [\n1]}", "{\"k\": [\n1]}"}, {"o", "{'k': True}", "{\"k\": true}"},
        {"o", "{broken", "\"{broken\""}, {"o", "", "\"\""}, {"s", "null", "\"null\""}, {"s", "1", "\"1\""},
        {"any", "1", "1"}, {"any", "text", "\"text\""}, {"any", "null", "null"}, {"any", "\"q\"", "\"\\\"q\\\"\""},
        {"any", "[1], [2]", "\"[1], [2]\""}, {"i", "1, 2", "\"1, 2\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf text = {0}, want = {0};
        buf_addf(&text, "<tool_call><function=f><parameter=%s>\n%s\n</parameter></function></tool_call>", rows[i].key, rows[i].text);
        buf_addf(&want, "||f({\"%s\": %s})\n", rows[i].key, rows[i].json);
        expect(&opts, buf_cstr(&text), buf_cstr(&want));
        buf_fini(&text);
        buf_fini(&want);
    }
}

static void test_broken(void **state) {
    (void)state;
    const struct parse_opts *o = &opts;
    static const char *const plain[] = {
        "<tool_call>", "<tool_call></tool_call>", "<tool_call>x</tool_call>", "<tool_call><function=f", "<tool_call><function=f>",
        "<tool_call><function=>", "<function=a b>", "<tool_call><function=f>x</function>", "<tool_call><function=f><parameter=s",
        "<tool_call>{\"name\": \"f\"}</tool_call>", "<tool_call><tool_call>", "</tool_call>", "</function>", "<parameter=s>x</parameter>",
        "<function=f<function=",
    };
    for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
        struct buf want = {0};
        buf_addf(&want, "|%s|", plain[i]);
        expect(o, plain[i], buf_cstr(&want));
        buf_fini(&want);
    }
    expect(o, "<tool_call><tool_call><function=f></function>", "|<tool_call>|f({})\n");
    expect(o, "<tool_call><function=f><parameter=s>\nhalf", "||f({\"s\": \"half)\n");
    expect(o, "<tool_call><function=f><parameter=i>\n12", "||f({\"i\": )\n"); /* a number may go on */
    expect(o, "<tool_call><function=f><parameter=s>x</parameter>oops</function></tool_call>", "|oops</function>|f({\"s\": \"x\")\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_calls), cmocka_unit_test(test_types), cmocka_unit_test(test_broken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
