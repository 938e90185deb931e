/* The grammar engine by hand-made cases: expressions, rules, runs over bytes. What random grammars say is in
 * test_gram_oracle.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/gram/gram.h"

#include <stdio.h>
#include <stdlib.h>

#define S(text) STR_LIT(text)

static uint32_t range(struct gram *g, uint32_t lo, uint32_t hi) {
    return rx_class(g, &(struct rx_range){lo, hi}, 1, false);
}
static uint32_t lit(struct gram *g, const char *s) {
    return rx_bytes(g, str_of(s));
}
static uint32_t term(struct gram *g, const char *s) {
    return gram_term(g, lit(g, s), 0);
}

/* fate: 'n' if s is no prefix, 'p' if it is one but not complete, 'c' complete and may go on, 'e' complete.
 */
static char fate(struct gram *g, struct str s) {
    struct gram_run *r = gram_run_new(g, NULL);
    struct err e = {0};
    size_t n;
    enum rc rc = gram_run_bytes(r, s, &n, &e);
    char c = rc == RC_OVERLOAD      ? '!'
             : rc                   ? 'n'
             : !gram_run_may_end(r) ? 'p'
             : gram_run_must_end(r) ? 'e'
                                    : 'c';
    assert_true(rc == RC_OK ? n == s.n : n < s.n);
    gram_run_free(r);
    return c;
}
#define assert_fate(g, text, want) assert_int_equal(fate(g, S(text)), want)

static void seal(struct gram *g, uint32_t start) {
    struct err e = {0};
    if (gram_seal(g, start, true, &e))
        fail_msg("%s", e.msg);
}

static void test_bytes_and_classes(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    assert_true(rx_matches(g, lit(g, "abc"), S("abc")));
    assert_false(rx_matches(g, lit(g, "abc"), S("ab")));
    assert_true(rx_matches(g, RX_EMPTY, S("")));
    assert_false(rx_matches(g, RX_NONE, S("")));
    static const struct rx_range some[] = {{'x', 'z'},       {'a', 'c'},       {0xE9, 0xE9},
                                           {0x4E00, 0x9FFF}, {0xD000, 0xF000}, {0x1F600, 0x1F64F},
                                           {0x7F, 0x81}};
    for (int negated = 0; negated < 2; negated++) {
        uint32_t rx = rx_class(g, some, ARRAY_LEN(some), negated);
        for (uint32_t cp = 0; cp <= 0x10FFFF; cp += cp < 0x3000 ? 1 : 97) {
            bool in = negated;
            for (size_t i = 0; i < ARRAY_LEN(some); i++)
                if (cp >= some[i].lo && cp <= some[i].hi)
                    in = !negated;
            char s[4];
            size_t n = 0;
            if (cp < 0x80) {
                s[n++] = (char)cp;
            } else if (cp < 0x800) {
                s[n++] = (char)(0xC0 | cp >> 6);
                s[n++] = (char)(0x80 | (cp & 63));
            } else if (cp < 0x10000) {
                s[n++] = (char)(0xE0 | cp >> 12);
                s[n++] = (char)(0x80 | (cp >> 6 & 63));
                s[n++] = (char)(0x80 | (cp & 63));
            } else {
                s[n++] = (char)(0xF0 | cp >> 18);
                s[n++] = (char)(0x80 | (cp >> 12 & 63));
                s[n++] = (char)(0x80 | (cp >> 6 & 63));
                s[n++] = (char)(0x80 | (cp & 63));
            }
            if (cp >= 0xD800 && cp < 0xE000)
                in = false;
            if (rx_matches(g, rx, (struct str){s, n}) != in)
                fail_msg("U+%04X, negated %d", cp, negated);
        }
        assert_false(rx_matches(g, rx, S("\xC0\x80")));
        assert_false(rx_matches(g, rx, S("\xF4\x90\x80\x80")));
        assert_false(rx_matches(g, rx, S("\x80")));
    }
    gram_drop(g);
}

static void test_operators(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    uint32_t az = range(g, 'a', 'z'), word = rx_repeat(g, az, 2, 4);
    assert_false(rx_matches(g, word, S("a")));
    assert_true(rx_matches(g, word, S("abcd")));
    assert_false(rx_matches(g, word, S("abcde")));
    uint32_t other = rx_and(g, word, rx_not(g, rx_choice(g, (struct str[]){S("if"), S("else"), S("i")}, 3)));
    assert_true(rx_matches(g, other, S("iff")));
    assert_false(rx_matches(g, other, S("if")));
    assert_false(rx_matches(g, other, S("else")));
    assert_true(rx_matches(g, rx_not(g, word), S("\xC3\xA9")));
    assert_false(rx_matches(g, rx_not(g, word), S("\xC3")));
    assert_int_equal(rx_not(g, rx_not(g, RX_ANY)), RX_ANY);
    assert_int_equal(rx_alt(g, lit(g, "a"), lit(g, "b")), range(g, 'a', 'b'));
    uint32_t nest = rx_repeat(g, rx_repeat(g, az, 1, 1000), 1, 1000);
    assert_true(rx_matches(g, nest, S("abcdefgh")));
    bool none;
    struct err e;
    assert_int_equal(rx_is_none(g, rx_and(g, word, rx_repeat(g, az, 5, RX_INF)), &none, &e), RC_OK);
    assert_true(none);
    assert_int_equal(rx_is_none(g, other, &none, &e), RC_OK);
    assert_false(none);
    assert_int_equal(
        rx_is_none(g, rx_and(g, rx_repeat(g, az, 40, RX_INF), rx_not(g, rx_repeat(g, az, 0, 60))), &none, &e),
        RC_OK);
    assert_false(none);
    uint32_t left = RX_EMPTY;
    for (int i = 0; i < 5000; i++)
        left = rx_cat(g, left, rx_alt(g, lit(g, "xy"), lit(g, "z")));
    assert_false(gram_over(g));
    assert_int_equal(gram_seal(g, gram_term(g, left, 0), true, &e), RC_OK);
    gram_drop(g);
}

static void test_choice(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    static const struct str s[] = {S("blue"), S("b"), S("black"), S(""), S("red"), S("blue"), S("green")};
    uint32_t rx = rx_choice(g, s, ARRAY_LEN(s));
    for (size_t i = 0; i < ARRAY_LEN(s); i++)
        assert_true(rx_matches(g, rx, s[i]));
    assert_false(rx_matches(g, rx, S("bl")));
    assert_false(rx_matches(g, rx, S("greens")));
    gram_drop(g);
}

static void test_lists(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    /* value -> digit | "[" "]" | "[" list "]"; list -> value | value "," list */
    uint32_t value = gram_rule(g, S("value"), 0), list = gram_rule(g, S("list"), 0);
    uint32_t digit = gram_term(g, range(g, '0', '9'), 0), open = term(g, "["), shut = term(g, "]"),
             comma = term(g, ",");
    gram_prod(g, value, &digit, 1);
    gram_prod(g, value, (uint32_t[]){open, shut}, 2);
    gram_prod(g, value, (uint32_t[]){open, list, shut}, 3);
    gram_prod(g, list, &value, 1);
    gram_prod(g, list, (uint32_t[]){value, comma, list}, 3);
    seal(g, value);
    assert_fate(g, "1", 'e');
    assert_fate(g, "", 'p');
    assert_fate(g, "[[1,2],[],3]", 'e');
    assert_fate(g, "[[1,2],[],3", 'p');
    assert_fate(g, "[1,]", 'n');
    assert_fate(g, "]", 'n');
    gram_drop(g);
}

static void test_left_recursion(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    /* e -> e "+" t | t; t -> t "*" f | f; f -> "x" | "(" e ")"; and a hidden one: s -> n s "y" | e; n -> ""
     */
    uint32_t ex = gram_rule(g, S("e"), 0), t = gram_rule(g, S("t"), 0), f = gram_rule(g, S("f"), 0),
             s = gram_rule(g, S("s"), 0), n = gram_rule(g, S("n"), 0);
    gram_prod(g, ex, (uint32_t[]){ex, term(g, "+"), t}, 3);
    gram_prod(g, ex, &t, 1);
    gram_prod(g, t, (uint32_t[]){t, term(g, "*"), f}, 3);
    gram_prod(g, t, &f, 1);
    gram_prod(g, f, (uint32_t[]){term(g, "x")}, 1);
    gram_prod(g, f, (uint32_t[]){term(g, "("), ex, term(g, ")")}, 3);
    gram_prod(g, s, (uint32_t[]){n, s, term(g, "y")}, 3);
    gram_prod(g, s, &ex, 1);
    gram_prod(g, n, NULL, 0);
    seal(g, s);
    assert_fate(g, "x+x*x", 'c');
    assert_fate(g, "(x+x)*(x)yyy", 'c');
    assert_fate(g, "(x+x)*", 'p');
    assert_fate(g, "x+x*x)", 'n');
    assert_fate(g, "xyx", 'n');
    gram_drop(g);
}

static void test_repeat_rules(void **state) {
    (void)state;
    for (uint32_t min = 0; min < 12; min++)
        for (uint32_t max = min; max <= 13; max++)
            for (int sep = 0; sep < 2; sep++) {
                struct gram *g = gram_new(NULL);
                uint32_t a = term(g, "a"), comma = term(g, ",");
                uint32_t r = gram_repeat(g, a, sep ? comma : UINT32_MAX, min, max == 13 ? RX_INF : max);
                seal(g, r);
                char text[64];
                size_t n = 0;
                for (uint32_t k = 0; k <= 15; k++) {
                    bool in = k >= min && (k <= max || max == 13), pre = k <= max || max == 13;
                    char c = fate(g, (struct str){text, n});
                    if ((c == 'c' || c == 'e') != in || (c != 'n') != pre)
                        fail_msg("min %u max %u sep %d k %u: %c", min, max, sep, k, c);
                    if (sep && k)
                        text[n++] = ',';
                    text[n++] = 'a';
                }
                gram_drop(g);
            }
}

static void test_unique_keys(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    /* object -> "{" "}" | "{" members "}"; members -> key ":" value rest; rest -> "" | "," members */
    uint32_t object = gram_rule(g, S("object"), RULE_SCOPE), members = gram_rule(g, S("members"), 0),
             rest = gram_rule(g, S("rest"), 0), value = gram_rule(g, S("value"), 0);
    uint32_t key = gram_term(g, rx_repeat(g, range(g, 'a', 'b'), 1, RX_INF), TERM_UNIQUE);
    gram_prod(g, object, (uint32_t[]){term(g, "{"), term(g, "}")}, 2);
    gram_prod(g, object, (uint32_t[]){term(g, "{"), members, term(g, "}")}, 3);
    gram_prod(g, members, (uint32_t[]){key, term(g, ":"), value, rest}, 4);
    gram_prod(g, rest, NULL, 0);
    gram_prod(g, rest, (uint32_t[]){term(g, ","), members}, 2);
    gram_prod(g, value, (uint32_t[]){term(g, "1")}, 1);
    gram_prod(g, value, &object, 1);
    seal(g, object);
    assert_fate(g, "{a:1,b:1}", 'e');
    assert_fate(g, "{a:1,a:", 'n');
    assert_fate(g, "{a:1,ab:1,a", 'p');
    assert_fate(g, "{a:1,ab:1,aba:1}", 'e');
    assert_fate(g, "{a:{a:1,b:{a:1}},b:{a:1}}", 'e');
    assert_fate(g, "{a:{a:1,b:{a:1}},a:", 'n');
    gram_drop(g);
}

static void test_keys_run_out(void **state) {
    (void)state;
    struct gram *g = gram_new(NULL);
    uint32_t object = gram_rule(g, S("object"), RULE_SCOPE), members = gram_rule(g, S("members"), 0),
             rest = gram_rule(g, S("rest"), 0);
    uint32_t key = gram_term(g, range(g, 'a', 'b'), TERM_UNIQUE);
    gram_prod(g, object, (uint32_t[]){term(g, "{"), members, term(g, "}")}, 3);
    gram_prod(g, members, (uint32_t[]){key, term(g, ":1"), rest}, 3);
    gram_prod(g, rest, NULL, 0);
    gram_prod(g, rest, (uint32_t[]){term(g, ","), members}, 2);
    seal(g, object);
    assert_fate(g, "{a:1,", 'p');
    assert_fate(g, "{a:1,b:1}", 'e');
    assert_fate(g, "{a:1,b:1,", 'n'); /* nothing could follow the comma */
    gram_drop(g);
}

static void test_refusals(void **state) {
    (void)state;
    struct err e = {0};
    struct gram *g = gram_new(NULL);
    uint32_t a = gram_rule(g, S("loop"), 0);
    gram_prod(g, a, (uint32_t[]){term(g, "x"), a}, 2);
    assert_int_equal(gram_seal(g, a, false, &e), RC_INVALID);
    gram_drop(g);
    g = gram_new(NULL);
    a = gram_rule(g, S("loop"), 0);
    uint32_t s = gram_rule(g, S("s"), 0);
    gram_prod(g, a, (uint32_t[]){term(g, "x"), a}, 2);
    gram_prod(g, s, &a, 1);
    gram_prod(g, s, (uint32_t[]){term(g, "y")}, 1);
    assert_int_equal(gram_seal(g, s, true, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "loop"));
    gram_drop(g);
    /* Not strict: the part that leads nowhere is no prefix either. */
    g = gram_new(NULL);
    a = gram_rule(g, S("loop"), 0);
    s = gram_rule(g, S("s"), 0);
    gram_prod(g, a, (uint32_t[]){term(g, "x"), a}, 2);
    gram_prod(g, s, &a, 1);
    gram_prod(g, s, (uint32_t[]){term(g, "y")}, 1);
    assert_int_equal(gram_seal(g, s, false, &e), RC_OK);
    assert_fate(g, "x", 'n');
    assert_fate(g, "y", 'e');
    gram_drop(g);
    g = gram_new(NULL);
    assert_int_equal(gram_seal(g, gram_term(g, rx_repeat(g, lit(g, "a"), 1000000, 1000000), 0), true, &e),
                     RC_INVALID);
    gram_drop(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_and_classes),
        cmocka_unit_test(test_operators),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_left_recursion),
        cmocka_unit_test(test_repeat_rules),
        cmocka_unit_test(test_unique_keys),
        cmocka_unit_test(test_keys_run_out),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("gram_engine", tests, NULL, NULL);
}
