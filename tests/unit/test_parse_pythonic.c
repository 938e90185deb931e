/* Python literals as JSON, and calls that are written with them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "router/parse/private.h"
#include "tests/support/parse_join.h"

#define expect(o, text, want) assert_true(join_gives(o, text, want))

static void literal(const char *text, const char *want) {
    struct literal l;
    struct buf out = {0};
    literal_start(&l);
    enum literal_step step = LITERAL_MORE;
    size_t i = 0, n = strlen(text);
    for (; i < n && step == LITERAL_MORE; i++)
        step = literal_byte(&l, text[i], &out);
    if (step == LITERAL_MORE)
        step = literal_end(&l, &out);
    if (!want) {
        if (step == LITERAL_DONE && i == n)
            fail_msg("%s is taken as %s", text, buf_cstr(&out));
    } else if (step != LITERAL_DONE || i != n || strcmp(buf_cstr(&out), want) != 0) {
        fail_msg("%s gives %s (%d), not %s", text, buf_cstr(&out), step, want);
    }
    buf_fini(&out);
}

static void test_literals(void **state) {
    (void)state;
    literal("1", "1");
    literal("-1", "-1");
    literal("+2", "2");
    literal("1_000", "1000");
    literal("1.5e-3", "1.5e-3");
    literal("1.", "1.0");
    literal(".5", "0.5");
    literal("-.5E+2", "-0.5E+2");
    literal("0", "0");
    literal("0.0", "0.0");
    literal("0x1F", "31");
    literal("0b101", "5");
    literal("0o17", "15");
    literal("123456789012345678901234567890", "123456789012345678901234567890");
    literal("True", "true");
    literal("None", "null");
    literal("false", "false");
    literal(" [ 1 , 2,] ", NULL);
    literal(" [ 1 , 2,]", "[1, 2]");
    literal("[]", "[]");
    literal("{}", "{}");
    literal("{'a': 1, \"b\": [True, None], 3: 'x', True: 2}", "{\"a\": 1, \"b\": [true, null], \"3\": \"x\", \"true\": 2}");
    literal("{\"a\": {\"b\": []}, }", "{\"a\": {\"b\": []}}");
    literal("'it\"s'", "\"it\\\"s\"");
    literal("''", "\"\"");
    literal("'a' 'b'\"c\"", "\"abc\"");
    literal("['a' 'b', '']", "[\"ab\", \"\"]");
    literal("'''a'b''c\n'''", "\"a'b''c\\n\"");
    literal("\"\"\"\"\"\"", "\"\"");
    literal("'\\n\\t\\\\\\'\\x41\\u20ac\\U0001F600\\101\\0'", "\"\\n\\t\\\\'A\xe2\x82\xac\xf0\x9f\x98\x80" "A\\u0000\"");
    literal("'\\ud83d\\ude00|\\ud83d|\\ude00'", "\"\xf0\x9f\x98\x80|\xef\xbf\xbd|\xef\xbf\xbd\"");
    literal("'\\q\\x4'", "\"\\\\q\\\\x4\"");
    literal("'a\\\nb'", "\"ab\"");
    literal("'\\7z\\8'", "\"\\u0007z\\\\8\"");
    literal("'\\UFFFFFFFF'", "\"\xef\xbf\xbd\"");
    literal("\"\xc3\xbc\\/\"", "\"\xc3\xbc/\"");
    static const char *const bad[] = {"", "f", "1+2", "01", "1__0", "1_", "--1", "0x", "0xfffffffffffffffffffff", "1e", ".",
                                      "5j", "nan", "'a", "'a' 1", "(1)", "{1, 2}", "{'a'}", "{'a': }", "[1 2]", "[", "[1}", "{[1]: 2}",
                                      "x'1'", "[,]", "{,}", "{'a':1 'b':2}", "'''a''"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        literal(bad[i], NULL);
    struct buf deep = {0};
    for (int i = 0; i < LITERAL_DEPTH_MAX; i++)
        buf_addc(&deep, '[');
    for (int i = 0; i < LITERAL_DEPTH_MAX; i++)
        buf_addc(&deep, ']');
    char *text = buf_take(&deep);
    literal(text, text);
    buf_addf(&deep, "[%s]", text);
    literal(buf_cstr(&deep), NULL);
    buf_fini(&deep);
    free(text);
}

static void test_pythonic(void **state) {
    (void)state;
    static const enum parse_tools kinds[] = {TOOLS_PARSER_PYTHONIC, TOOLS_PARSER_LLAMA4_PYTHONIC};
    static const char *const plain[] = {
        "hello", "[", "[1]", "[1, 2]", "[f]", "[f](x)", "[f(x)]", "[f(1)]", "[f(a)]", "[f(a=1", "[f(a=1+2)]", "[f(a=g())]",
        "f(a=1)", "x[f(a=1)]", "[[f(a=1)]]", "[f (a=1)]", "[f.()", "[f(a==1)]", "a [link](http://x) b", "[f(a=)]", "[f()",
        "[f(a=b)]", "[f(a", "[f(,)]", "[]", "[ ]", "[f(a=1;)]", "[f(a=1 + 2)]", "[f(a=-1 -1)]", "[f(a=(1, 2))]",
    };
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        const struct parse_opts own = {.tools = kinds[k]}, *o = &own;
        for (size_t i = 0; i < ARRAY_LEN(plain); i++) {
            struct buf want = {0};
            buf_addf(&want, "|%s|", plain[i]);
            expect(o, plain[i], buf_cstr(&want));
            buf_fini(&want);
        }
        expect(o, "[f(a=1)]", "||f({\"a\": 1})\n");
        expect(o, "[f()]", "||f({})\n");
        expect(o, "[f()](u)", "|(u)|f({})\n");
        expect(o, "[f(a=1), g(b=\"x\"), h()]\n", "||f({\"a\": 1})\ng({\"b\": \"x\"})\nh({})\n");
        expect(o, "[f(a=[1, {'k': None}], b = -2.5 , c='it\\'s',)]", "||f({\"a\": [1, {\"k\": null}], \"b\": -2.5, \"c\": \"it's\"})\n");
        expect(o, "[ns.f(a={}),]", "||ns.f({\"a\": {}})\n");
        expect(o, "Let me see. [f(a=1)]", "|Let me see. |f({\"a\": 1})\n");
        expect(o, "[f(a=1)] done", "| done|f({\"a\": 1})\n");
        expect(o, "[f(a=1)]\n[g(a=2)]", "||f({\"a\": 1})\ng({\"a\": 2})\n");
        expect(o, "[f(a='x", "||f({\"a\": \"x)\n");
        expect(o, "[f(a='x', b", "||f({\"a\": \"x\")\n");
        expect(o, "[f(a=1), ", "||f({\"a\": 1})\n");
        expect(o, "[f(a=1), g(b", "|, g(b|f({\"a\": 1})\n");
        expect(o, "[f(a='x' + 'y')]", "|+ 'y')]|f({\"a\": \"x)\n"); /* breaks off: partial */
        expect(o, "[f(a=\"[g(b=1)]\")]", "||f({\"a\": \"[g(b=1)]\"})\n");
    }
    const struct parse_opts own = {.tools = TOOLS_PARSER_LLAMA4_PYTHONIC}, *o = &own;
    expect(o, "<|python_start|>[f(a=1)]<|python_end|>", "||f({\"a\": 1})\n");
    expect(o, "\xfa[f(a=1)]\xfc x", "| x|f({\"a\": 1})\n");
    expect(o, "x[<|python_start|> [f(a=1)]", "|x[|f({\"a\": 1})\n");
    expect(o, "<|python_start|>print(1)<|python_end|>", "|<|python_start|>print(1)<|python_end|>|");
    expect(o, "\xfaprint(1)\xfc", "|print(1)|");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_literals), cmocka_unit_test(test_pythonic)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
