/* Reasoning parsers: every text whole, in bytes, cut anywhere and in random pieces joins to the same. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/parse_join.h"

#define expect(o, text, want) assert_true(join_gives(o, text, want))

static void test_deepseek_r1(void **state) {
    (void)state;
    const struct parse_opts o = {.reasoning = REASONING_DEEPSEEK_R1};
    expect(&o, "<think>a</think>b", "a|b|");
    expect(&o, "a</think>b", "a|b|");
    expect(&o, "</think>b", "|b|");
    expect(&o, "<think></think>", "||");
    expect(&o, "", "||");
    expect(&o, " \n<think>\na\n</think>\n\nb", " \n\na\n|\n\nb|");
    expect(&o, "a", "a||");
    expect(&o, "<think>a</thin", "a</thin||");
    expect(&o, "<thin", "<thin||");
    expect(&o, " ", " ||");
    expect(&o, "a<think>b</think>c", "a<think>b|c|"); /* not at the start: text */
    expect(&o, "<think><think>a</think>b", "<think>a|b|");
    expect(&o, "a</think>b</think>c<think>", "a|b</think>c<think>|");
    expect(&o, "a<</think>b", "a<|b|");
    expect(&o, "<</think>b", "<|b|");
    expect(&o, "a</</think>b", "a</|b|");
    expect(&o, "gr\xc3\xbc\xc3\x9f</think>\xe2\x82\xac", "gr\xc3\xbc\xc3\x9f|\xe2\x82\xac|");
}

static void test_qwen3(void **state) {
    (void)state;
    const struct parse_opts o = {.reasoning = REASONING_QWEN3}, in = {.reasoning = REASONING_QWEN3, .in_reasoning = true};
    expect(&o, "<think>a</think>b", "a|b|");
    expect(&o, "\n<think>a</think>b", "\na|b|");
    expect(&o, "a", "|a|");
    expect(&o, "a</think>b", "|a</think>b|");
    expect(&o, "a<think>b</think>c", "|a<think>b</think>c|");
    expect(&o, "<think>a", "a||");
    expect(&o, "<think", "|<think|");
    expect(&o, " <thx<think>", "| <thx<think>|");
    expect(&o, " \n ", "| \n |");
    expect(&o, "<<think>a</think>b", "|<<think>a</think>b|");
    expect(&in, "a</think>b", "a|b|");
    expect(&in, "<think>a</think>b", "a|b|");
}

static void test_granite(void **state) {
    (void)state;
    const struct parse_opts o = {.reasoning = REASONING_GRANITE};
    expect(&o, "Here is my thought process: a Here is my response: b", " a | b|");
    expect(&o, "Here's my thought process:a\nHere's my response:b", "a\n|b|");
    expect(&o, "Here is my thought process:aHere's my response:b", "a|b|");
    expect(&o, "Here is my response: b", "|Here is my response: b|");
    expect(&o, "Here it is", "|Here it is|");
    expect(&o, "Here is my thought process: Here is my resp", " Here is my resp||");
    expect(&o, "Here is my thought process: HereHere is my response:b", " Here|b|");
}

/* A mark that is a special token comes as a byte of its own. */
static void test_hidden(void **state) {
    (void)state;
    const struct parse_opts r1 = {.reasoning = REASONING_DEEPSEEK_R1}, q = {.reasoning = REASONING_QWEN3};
    expect(&r1, "\xf8" "a\xf9" "b\xf8" "c", "a|bc|");
    expect(&r1, "a<th\xf9" "b", "a<th|b|");
    expect(&q, "\xf8" "a\xf9" "b\xf9", "a|b|");
    expect(&q, "a\xf8" "b\xf9" "c", "|abc|");
    expect(&q, "\xfe\xf8" "a\xf9" "b", "a|b|");
}

static void test_names(void **state) {
    (void)state;
    enum parse_reasoning r;
    enum parse_tools t;
    assert_true(parse_reasoning_find("granite", &r));
    assert_int_equal(r, REASONING_GRANITE);
    assert_false(parse_reasoning_find("glm45", &r));
    assert_true(parse_tools_find("hermes", &t));
    assert_int_equal(t, TOOLS_PARSER_HERMES);
    assert_false(parse_tools_find("", &t));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deepseek_r1), cmocka_unit_test(test_qwen3), cmocka_unit_test(test_granite),
        cmocka_unit_test(test_hidden),      cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
