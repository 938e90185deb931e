#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/gram/front.h"
#include "common/gram/gram.h"

#include <stdlib.h>

static enum rc compile(enum gram_kind kind, const char *text, const char *options, struct gram **g,
                       struct err *e) {
    *e = (struct err){0};
    return gram_compile(g, kind, str_of(text), str_of(options), NULL, e);
}

static bool takes(struct gram *g, const char *text) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e = {0};
    bool yes = gram_run_bytes(r, str_of(text), NULL, &e) == RC_OK && gram_run_may_end(r);
    gram_run_free(r);
    return yes;
}

static void refuse(enum gram_kind kind, const char *text, const char *options, const char *message) {
    struct gram *g = NULL;
    struct err e;
    if (compile(kind, text, options, &g, &e) != RC_INVALID)
        fail_msg("%.100s is taken", text);
    if (!strstr(e.msg, message))
        fail_msg("%.100s: \"%s\", not \"%s\"", text, e.msg, message);
    assert_null(g);
}

static void test_kinds(void **state UNUSED) {
    static const struct {
        enum gram_kind kind;
        const char *text, *yes, *no;
    } cases[] = {
        {GRAM_JSON_SCHEMA, "{\"type\":\"integer\"}", "12", "x"},
        {GRAM_JSON_SCHEMA, "true", "[1]", "]"},
        {GRAM_REGEX, "a+", "aa", "b"},
        {GRAM_EBNF, "root ::= \"a\" root | \"b\"", "aab", "a"},
        {GRAM_CHOICE, "[\"yes\",\"no\",\"\"]", "no", "n"},
        {GRAM_CHOICE, "[\"a\\u0000b\"]", "", ""},
        {GRAM_STRUCTURAL_TAG, "{\"format\":{\"type\":\"const_string\",\"value\":\"x\"}}", "x", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct gram *g;
        struct err e;
        if (compile(cases[i].kind, cases[i].text, "", &g, &e) != RC_OK)
            fail_msg("%s: %s", cases[i].text, e.msg);
        if (*cases[i].yes)
            assert_true(takes(g, cases[i].yes));
        assert_false(takes(g, cases[i].no));
        gram_drop(g);
    }
}

static void test_options(void **state UNUSED) {
    struct gram *g;
    struct err e;
    const char *schema = "{\"type\":\"array\",\"items\":{\"const\":1}}";
    assert_int_equal(compile(GRAM_JSON_SCHEMA, schema, "{\"disable_any_whitespace\":true}", &g, &e), RC_OK);
    assert_true(takes(g, "[1, 1]"));
    assert_false(takes(g, "[ 1,  1]"));
    gram_drop(g);
    assert_int_equal(compile(GRAM_JSON_SCHEMA, schema, "{\"whitespace_pattern\":\"[ ]?\"}", &g, &e), RC_OK);
    assert_true(takes(g, "[ 1, 1 ]"));
    assert_false(takes(g, "[\n1]"));
    gram_drop(g);
    refuse(GRAM_JSON_SCHEMA, schema, "{\"whitespace_pattern\":\"x\"}", "");
    refuse(GRAM_JSON_SCHEMA, schema, "[]", "must be an object");
    refuse(GRAM_JSON_SCHEMA, schema, "{\"disable_any_whitespace\":7}", "disable_any_whitespace");
    refuse(GRAM_JSON_SCHEMA, schema, "{", "JSON");
}

static void test_refusals(void **state UNUSED) {
    struct gram *g = NULL;
    struct err e = {0};
    assert_int_equal(gram_compile(&g, (enum gram_kind)9, STR_LIT("a"), (struct str){0}, NULL, &e),
                     RC_INVALID);
    refuse(GRAM_CHOICE, "[]", "", "not empty");
    refuse(GRAM_CHOICE, "{}", "", "not empty");
    refuse(GRAM_CHOICE, "[1]", "", "member 0");
    refuse(GRAM_CHOICE, "[", "", "JSON");
    refuse(GRAM_JSON_SCHEMA, "", "", "JSON");
    refuse(GRAM_JSON_SCHEMA, "false", "", "");
    refuse(GRAM_REGEX, "[^\\s\\S]", "", "");
    refuse(GRAM_STRUCTURAL_TAG, "[]", "", "object");
}

/* reliability.md G01, G02, G06: refused or right, within a second and 64 MiB. */
static void test_hostile(void **state UNUSED) {
    static const char *const patterns[] = {"(a+)+$",
                                           "(a|a)*b",
                                           "(.{1,1000}){1,1000}",
                                           "a{1000000}",
                                           "(a?){1000}a{1000}",
                                           "((a{0,100}){0,100}){0,10}",
                                           "(x+x+)+y",
                                           ".*.*.*.*.*.*.*.*=.*"};
    struct buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(patterns) + 4; i++) {
        enum gram_kind kind = GRAM_REGEX;
        b.len = 0;
        if (i < ARRAY_LEN(patterns))
            buf_addz(&b, patterns[i]);
        else if (i == ARRAY_LEN(patterns)) /* 1 MiB of alternatives */
            for (int k = 0; k < 1 << 19; k++)
                buf_addz(&b, "a|");
        else if (i == ARRAY_LEN(patterns) + 1)
            for (int k = 0; k < 100000; k++)
                buf_addc(&b, '(');
        else { /* many rules: left-recursive, empty, in a ring */
            kind = GRAM_EBNF;
            buf_addz(&b, "root ::= r0\n");
            for (int k = 0; k < 6000; k++)
                buf_addf(&b, i % 2 ? "r%d ::= r%d | \"\"\n" : "r%d ::= r%d \"a\" | \"b\"\n", k,
                         (k + 1) % 6000);
        }
        struct gram *g = NULL;
        struct err e = {0};
        uint64_t start_ns = clock_ns();
        enum rc rc = gram_compile(&g, kind, buf_str(&b), (struct str){0}, NULL, &e);
        assert_true(rc == RC_OK || (rc == RC_INVALID && *e.msg));
        if (rc == RC_OK) {
            struct gram_run *r = gram_run_new(g, NULL);
            for (int k = 0; k < 64; k++) /* running it stays within its budget, too */
                if (gram_run_bytes(r, STR_LIT("a"), NULL, &e) != RC_OK)
                    break;
            gram_run_free(r);
            assert_true(gram_bytes(g) <= 64 * MIB);
        }
        gram_drop(g);
        uint64_t ms = (clock_ns() - start_ns) / NS_PER_MS;
#ifndef WEIR_SANITIZE
        if (ms > 1000)
            fail_msg("%.40s: %u ms", b.data, (unsigned)ms);
#else
        (void)ms;
#endif
    }
    buf_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
