#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/buf.h"
#include "common/gram/front.h"
#include "common/gram/gram.h"

#include <stdlib.h>

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NOTHING ((const char *const[]){NULL})

static bool takes(struct gram *g, const char *text) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e = {0};
    bool yes = gram_run_bytes(r, str_of(text), NULL, &e) == RC_OK && gram_run_may_end(r);
    gram_run_free(r);
    return yes;
}

static void expect(const char *text, const char *const *yes, const char *const *no) {
    struct gram *g;
    struct err e = {0};
    if (gram_compile(&g, GRAM_EBNF, str_of(text), (struct str){0}, NULL, &e) != RC_OK)
        fail_msg("%s: %.200s", e.msg, text);
    for (size_t i = 0; yes[i]; i++)
        if (!takes(g, yes[i]))
            fail_msg("refuses \"%s\": %.200s", yes[i], text);
    for (size_t i = 0; no[i]; i++)
        if (takes(g, no[i]))
            fail_msg("takes \"%s\": %.200s", no[i], text);
    gram_drop(g);
}

static void refuse(const char *text, const char *message) {
    struct gram *g = NULL;
    struct err e = {0};
    if (gram_compile(&g, GRAM_EBNF, str_of(text), (struct str){0}, NULL, &e) != RC_INVALID)
        fail_msg("%s\nis taken", text);
    if (!strstr(e.msg, message))
        fail_msg("%s\n\"%s\", not \"%s\"", text, e.msg, message);
    assert_null(g);
}

static void test_gbnf(void **state UNUSED) {
    expect("root ::= \"yes\" | 'no'", LIST("yes", "no"), LIST("", "ye", "yesno"));
    expect("root ::= [a-c]+ [^a-c\\n]? \".\" # a comment\n", LIST("ab.", "cX."), LIST(".", "a\n.", "abXX."));
    expect("root ::= greet-ing (\", \" name){1,2} \"!\"\n"
           "greet-ing ::=\n  \"hi\"\n  | \"hello\"\n"
           "name ::= [A-Z] [a-z]*\n",
           LIST("hi, Ann!", "hello, A, Bob!"), LIST("hi!", "hi, ann!", "hi, A, B, C!"));
    expect("root ::= \"\\x41\\u00e9\\U0001F600\\n\\t\\\"\\\\\"", LIST("A\u00e9\U0001F600\n\t\"\\"), NOTHING);
    expect("root ::= . .", LIST("ab", "\n\u00e9"), LIST("a", "abc"));
    expect("root ::= \"a\"{3} \"b\"{2,} \"c\"{0,1} \"d\"{,2}", LIST("aaabb", "aaabbbbcdd"),
           LIST("aab", "aaabbccdd"));
    expect("root ::= \"a\" | ", LIST("a", ""), LIST("b"));
    expect("root ::= (\"a\"\n|\n\"b\"\n)*", LIST("", "abba"), LIST("c"));
    expect("root::=\"a\" b\nb::=\"b\"", LIST("ab"), LIST("a"));
    expect("root ::= [\\]\\-\\\\^]", LIST("]", "-", "\\", "^"), LIST("a"));
}

static void test_recursion(void **state UNUSED) {
    expect("root ::= \"(\" root \")\" | \"\"", LIST("", "()", "((()))"), LIST("(", "())"));
    expect("root ::= expr\nexpr ::= expr [-+] term | term\nterm ::= [0-9]+ | \"(\" expr \")\"",
           LIST("1", "1+2-3", "(1+2)-(3)"), LIST("", "1+", "(1", "1--2"));
    expect("root ::= a\na ::= b | \"x\"\nb ::= a \"y\" | c\nc ::= a \"z\"", LIST("x", "xy", "xzy"),
           LIST("y", "xx"));
    /* Rules that derive themselves without taking anything. */
    expect("root ::= root | \"a\" | root root", LIST("a", "aaa"), LIST("", "b"));
    expect("root ::= (\"\")* e*\ne ::= \"\" | e e", LIST(""), LIST("a"));
    expect("root ::= even\neven ::= \"\" | \"a\" odd\nodd ::= \"a\" even", LIST("", "aa", "aaaa"),
           LIST("a", "aaa"));
    expect("root ::= s\ns ::= \"a\" s \"b\" | \"ab\"", LIST("ab", "aaabbb"), LIST("aab", "abab"));
}

/* Each would be an expression of millions of places if it were written out. */
static void test_large(void **state UNUSED) {
    struct buf b = {0};
    buf_addz(&b, "root ::= ");
    for (int i = 0; i < 2000; i++)
        buf_addf(&b, "%s\"word%d\"", i ? " | " : "", i);
    expect(buf_cstr(&b), LIST("word0", "word1999", "word77"), LIST("word2000", "word"));
    b.len = 0;
    buf_addz(&b, "root ::= r0\n");
    for (int i = 0; i < 3000; i++)
        buf_addf(&b, "r%d ::= \"a\" | \"b\" r%d\n", i, i + 1);
    buf_addz(&b, "r3000 ::= \"c\"\n");
    expect(buf_cstr(&b), LIST("a", "bba"), LIST("c", "bb"));
    b.len = 0;
    buf_addz(&b, "root ::= r0\n"); /* doubles with each rule */
    for (int i = 0; i < 40; i++)
        buf_addf(&b, "r%d ::= r%d r%d\n", i, i + 1, i + 1);
    buf_addz(&b, "r40 ::= \"a\"?\n");
    expect(buf_cstr(&b), LIST("", "aaa"), LIST("b"));
    buf_fini(&b);
    expect("root ::= [ab]{0,100000}", LIST("", "abba"), LIST("c"));
    expect("root ::= (\"x\" root \"y\" | \"z\"){2,3}", LIST("zz", "zzz", "xzzyz"), LIST("z", "xzyz"));
}

static void test_gbnf_refusals(void **state UNUSED) {
    refuse("root ::= nothing", "line 1: \"nothing\" is not defined");
    refuse("a ::= \"x\"", "no rule \"root\"");
    refuse("root ::= \"a\"\nroot ::= \"b\"", "line 2: \"root\" is defined twice");
    refuse("root ::= \"a", "without closing \"");
    refuse("root ::= \"a\nb\"", "line 1: a string without");
    refuse("root ::= [a", "grammar offset 9: a class without");
    refuse("root ::= [z-a]", "backwards");
    refuse("root ::= (\"a\"", "line 1: a group without closing");
    refuse("root ::= \"a\")", "closes nothing");
    refuse("root ::= *", "nothing to repeat");
    refuse("root ::= \"a\"{2,1}", "at least 2");
    refuse("root ::= \"a\"{1000000000}", "limit of 100000");
    refuse("root ::= \"a\"{", "number is missing");
    refuse("root ::= \"a\"????????", "too many repeats");
    refuse("root ::= <think>", "angle brackets");
    refuse("root ::= (?=\"a\")", "look-ahead");
    refuse("root ::= \"\\q\"", "unknown escape");
    refuse("root ::= \"\\d\"", "inside a string");
    refuse("root ::= \"a\" ; \"b\"", "unexpected ';'");
    refuse("root ::= root", "\"root\" derives no string");
    refuse("root ::= \"a\" | b\nb ::= \"x\" c\nc ::= b \"y\"", "derives no string");
    refuse("\"a\" root ::= \"b\"", "expected here");
    refuse("root ::= \"\xff\"", "UTF-8");
    struct buf b = {0};
    buf_addz(&b, "root ::= ");
    for (int i = 0; i < 100000; i++)
        buf_addc(&b, '(');
    refuse(buf_cstr(&b), "nest more than");
    for (int i = 0; i < 200000; i++)
        buf_addc(&b, 'a');
    refuse(buf_cstr(&b), "--max-schema-bytes");
    buf_fini(&b);
}

static void test_lark(void **state UNUSED) {
    expect("start: \"yes\" | \"no\"", LIST("yes", "no"), LIST("", "yesno"));
    expect("// comment\nstart: greeting name+ \"!\" # another\n"
           "greeting: \"hi\"i\n        | \"hello\"\n"
           "name: \" \" NAME\nNAME.2: /[A-Z][a-z]*/\n",
           LIST("hi Ann!", "HI A Bo!", "hello X!"), LIST("hi ann!", "HELLO X!", "hi!"));
    expect("start: [\"-\"] DIGIT~2..3 [\".\" DIGIT~1]\nDIGIT: \"0\"..\"9\"", LIST("12", "-123", "12.3"),
           LIST("1", "1234", "12."));
    expect("?start: sum\n?sum: product\n  | sum \"+\" product -> add\n!product: atom | product \"*\" atom\n"
           "atom: NUMBER -> number\n  | \"(\" sum \")\"\n%import common.NUMBER\n%import common.WS_INLINE\n"
           "%ignore WS_INLINE\n",
           LIST("1+2*3", " 1 + ( 2 *3 ) ", "1e5", "1.5+.5"), LIST("", "1+", "1\n+2"));
    expect("start: \"a\"{2,3} B{2}\nB: \"b\"", LIST("aabb", "aaabb"), LIST("abb", "aab"));
    expect("start: A A\nA: \"x\" _B\n_B: /y/i", LIST("xyxY"), LIST("xy"));
    expect("start: \"\\x41\\u00e9\\n\\\"\"", LIST("A\u00e9\n\""), NOTHING);
    expect("start: \"a::=b\"", LIST("a::=b"), LIST("b"));
    expect("start: /a\\/b/ /./s", LIST("a/b\n"), LIST("a/b"));
    expect("start: \"{\" [pair (\",\" pair)*] \"}\"\npair: ESCAPED_STRING \":\" value\n"
           "value: ESCAPED_STRING | SIGNED_NUMBER | start | \"true\"\n%import common (ESCAPED_STRING, "
           "SIGNED_NUMBER)\n"
           "%import common.WS -> SPACE\n%ignore SPACE\n%ignore /#[^\\n]*\\n/",
           LIST("{}", "{\"a\": 1, \"b\": {\"c\" : -2.5e3}}", "{ # note\n }", "{\"a\\\"b\":\"\"}"),
           LIST("{", "{\"a\"}", "{\"a\" 1}", "{\"a\":1,}"));
    expect("start: \"a\"\n?b: \"x\"?\n?c: b\n", LIST("a"), LIST("ax"));
}

static void test_common(void **state UNUSED) {
    static const struct {
        const char *name, *yes, *no;
    } cases[] = {
        {"DIGIT", "7", "77"},
        {"HEXDIGIT", "f", "g"},
        {"INT", "042", "-1"},
        {"SIGNED_INT", "-42", "4.2"},
        {"DECIMAL", "4.", "."},
        {"FLOAT", "1e-5", "15"},
        {"SIGNED_FLOAT", "+.5", "5"},
        {"NUMBER", "15", "-15"},
        {"SIGNED_NUMBER", "-1.5E3", "E3"},
        {"LCASE_LETTER", "a", "A"},
        {"UCASE_LETTER", "A", "a"},
        {"LETTER", "z", "1"},
        {"WORD", "word", "w0rd"},
        {"CNAME", "_a1", "1a"},
        {"WS_INLINE", " \t", "\n"},
        {"WS", "\n \f", "a"},
        {"CR", "\r", "\n"},
        {"LF", "\n", "\r"},
        {"NEWLINE", "\r\n\n", "\r"},
        {"SH_COMMENT", "# a", "# a\n"},
        {"CPP_COMMENT", "// a", "/ a"},
        {"SQL_COMMENT", "-- a", "a"},
        {"C_COMMENT", "/* a ** \n */", "/* */ */"},
        {"ESCAPED_STRING", "\"a\\\"\\\\\"", "\"a\"b\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        buf_addf(&b, "start: %s\n%%import common.%s\n", cases[i].name, cases[i].name);
        expect(buf_cstr(&b), LIST(cases[i].yes), LIST(cases[i].no));
        buf_fini(&b);
    }
}

static void test_lark_refusals(void **state UNUSED) {
    refuse("start: missing", "line 1: \"missing\" is not defined");
    refuse("begin: \"x\"", "no rule \"start\"");
    refuse("start: \"a\"\nstart: \"b\"", "line 2: \"start\" is defined twice");
    refuse("start: list{\"a\"}\nlist{x}: x", "templates are not supported");
    refuse("list{x}: x\nstart: \"a\"", "templates are not supported");
    refuse("start: A\nA: \"a\" A | \"b\"", "terminal defined by itself");
    refuse("start: A\nA: b\nb: \"x\" b \"y\" | \"z\"", "terminal uses a rule");
    refuse("start: /(?!x)y/", "line 1: pattern offset 0: look-around");
    refuse("start: /a$/", "anchors");
    refuse("start: /a/x", "flag x");
    refuse("start: /a", "without closing '/'");
    refuse("start: 'a'", "double quotes");
    refuse("start: \"ab\"..\"c\"", "one character");
    refuse("start: \"a\"..", "both ends");
    refuse("start: (\"a\"", "without closing ')'");
    refuse("start: [\"a\"", "without closing ']'");
    refuse("start: \"a\")", "closes nothing");
    refuse("start: \"a\"~3..2", "at least 3");
    refuse("start: \"a\"~", "number is missing");
    refuse("%import python.NAME\nstart: NAME", "only the module common");
    refuse("%import common.NAME\nstart: NAME", "no common.NAME");
    refuse("%declare X\nstart: X", "%declare is not supported");
    refuse("start: <|tool|>", "angle brackets");
    refuse("start: \"a\" -> ", "behind ->");
    refuse("start: start \"a\"", "derives no string");
    refuse("hello", "expected here");
    refuse("", "no rule \"start\"");
    refuse("start: \"a\"\n%ignore rule\nrule: start", "terminal uses a rule");
    refuse("start: %json {\"type\"", "%json needs a schema");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gbnf),          cmocka_unit_test(test_recursion), cmocka_unit_test(test_large),
        cmocka_unit_test(test_gbnf_refusals), cmocka_unit_test(test_lark),      cmocka_unit_test(test_common),
        cmocka_unit_test(test_lark_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
