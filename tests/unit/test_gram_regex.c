#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/gram/regex.h"

#include <stdio.h>
#include <stdlib.h>

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NOTHING ((const char *const[]){NULL})

static void expect_in(const char *pattern, const struct rx_syntax *how, const char *const *yes,
                      const char *const *no) {
    struct gram *g = gram_new(NULL);
    struct err e = {0};
    uint32_t rx;
    if (rx_parse_as(g, str_of(pattern), how, &rx, &e) != RC_OK)
        fail_msg("/%s/: %s", pattern, e.msg);
    for (size_t i = 0; yes[i]; i++)
        if (!rx_matches(g, rx, str_of(yes[i])))
            fail_msg("/%s/ refuses \"%s\"", pattern, yes[i]);
    for (size_t i = 0; no[i]; i++)
        if (rx_matches(g, rx, str_of(no[i])))
            fail_msg("/%s/ takes \"%s\"", pattern, no[i]);
    gram_drop(g);
}

static void whole(const char *pattern, const char *const *yes, const char *const *no) {
    expect_in(pattern, &(struct rx_syntax){0}, yes, no);
}

static void search(const char *pattern, const char *const *yes, const char *const *no) {
    expect_in(pattern, &(struct rx_syntax){.search = true}, yes, no);
}

static void refuse(const char *pattern, size_t offset, const char *word) {
    struct gram *g = gram_new(NULL);
    struct err e = {0};
    uint32_t rx;
    char want[64];
    snprintf(want, sizeof want, "pattern offset %zu: ", offset);
    if (rx_parse(g, str_of(pattern), false, &rx, &e) != RC_INVALID)
        fail_msg("/%s/ is taken", pattern);
    if (strncmp(e.msg, want, strlen(want)) != 0 || !strstr(e.msg, word))
        fail_msg("/%s/: \"%s\", not \"%s... %s\"", pattern, e.msg, want, word);
    gram_drop(g);
}

static void test_literals(void **state UNUSED) {
    whole("", LIST(""), LIST("a"));
    whole("abc", LIST("abc"), LIST("", "ab", "abcd", "xabc"));
    whole("a|b|", LIST("a", "b", ""), LIST("ab"));
    whole("h\u00e9\u20ac\U0001F600", LIST("h\u00e9\u20ac\U0001F600"), LIST("he"));
    whole("a{b}{,x}{1,y}", LIST("a{b}{,x}{1,y}"), LIST("ab"));
    whole("]}", LIST("]}"), LIST("]"));
    whole("x-y/z", LIST("x-y/z"), LIST("xyz"));
}

static void test_escapes(void **state UNUSED) {
    whole("\\.\\*\\/\\-\\\\\\\"\\_", LIST(".*/-\\\"_"), LIST("a"));
    whole("\\n\\t\\r\\f\\v\\a", LIST("\n\t\r\f\v\a"), LIST("nt"));
    whole("\\x41\\u00e9\\u{1F600}\\uD83D\\uDE00\\U0001F601\\cJ",
          LIST("A\u00e9\U0001F600\U0001F600\U0001F601\n"), LIST("A"));
    whole("\\d\\w\\s", LIST("5_ ", "0a\u00a0", "9Z\ufeff"), LIST("a_ ", "\u0665a ", "5\u00e9 "));
    whole("\\D\\W\\S", LIST("a-b", "\u0665\u00e9\u00e9"), LIST("5-b", "aab", "a- "));
    whole("[\\b]", LIST("\b"), LIST("b"));
    whole("\u00e9\\\u00e9", LIST("\u00e9\u00e9"), LIST("\u00e9"));
}

static void test_classes(void **state UNUSED) {
    whole("[a-c]", LIST("a", "b", "c"), LIST("d", "", "ab"));
    whole("[^a-c]", LIST("d", "\u00e9", "\n", "\U0010FFFF"), LIST("a", ""));
    whole("[-a]", LIST("-", "a"), LIST("b"));
    whole("[a-]", LIST("-", "a"), LIST("b"));
    whole("[\\w-]", LIST("-", "a"), LIST("."));
    whole("[\\]\\-\\\\^]", LIST("]", "-", "\\", "^"), LIST("a"));
    whole("[[]", LIST("["), LIST("]"));
    whole("[.*+]", LIST(".", "*"), LIST("a"));
    whole("[\\u00e0-\\u00ff]", LIST("\u00e9"), LIST("e"));
    whole("[^\\d]", LIST("a"), LIST("1"));
    whole("[^\\S ]", LIST("\t"), LIST(" ", "a"));
    whole(".", LIST("a", "\r", "\u2028", "\U0010FFFF"), LIST("\n", ""));
    search("^.$", LIST("a", "\u00e9"), LIST("\n", "\r", "\u2028", "ab"));
}

static void test_properties(void **state UNUSED) {
    whole("\\p{L}\\p{Lu}\\P{L}\\pN", LIST("\u00e9\u0416-7"), LIST("\u00e9\u0436-7", "aBc7"));
    whole("\\p{Script=Greek}\\p{Greek}\\p{sc=Cyrl}", LIST("\u03b1\u03b2\u0436"), LIST("ab\u0436"));
    whole("\\p{gc=Uppercase_Letter}\\p{Letter}", LIST("A\u4e00"), LIST("a\u4e00"));
    whole("\\p{White_Space}\\p{Alphabetic}\\p{ASCII}", LIST(" ax"), LIST("aax", " a\u00e9"));
    whole("[\\p{L}\\p{N}_]+", LIST("\u00e9\u0665_"), LIST("", "-"));
    whole("\\p{^L}[^\\P{L}]", LIST("1a"), LIST("aa", "11"));
    whole("\\p{Any}", LIST("\n", "\U0010FFFF"), LIST(""));
}

static void test_repeats(void **state UNUSED) {
    whole("a*", LIST("", "a", "aaaa"), LIST("b", "ab"));
    whole("a+?b??", LIST("a", "aab"), LIST("", "b"));
    whole("(ab){2,3}", LIST("abab", "ababab"), LIST("ab", "abababab"));
    whole("a{3}b{2,}c{,2}", LIST("aaabb", "aaabbbcc"), LIST("aabb", "aaabbccc"));
    whole("(a|bc)*d", LIST("d", "abcad"), LIST("abd"));
    whole("(a*)*", LIST("", "aaa"), LIST("b"));
    whole("(a+)+$", LIST("a", "aaaa"), LIST("", "ab"));
    whole("(a|a)*b", LIST("b", "aab"), LIST("a"));
    whole("a{0}", LIST(""), LIST("a"));
    whole("a{1024}", NOTHING, LIST("a"));
}

static void test_groups(void **state UNUSED) {
    whole("(?:a)(?<n>b)(?P<m>c)(?#no d)e", LIST("abce"), LIST("abcde"));
    whole("(?i)straSSe", LIST("STRASSE", "strasse", "stra\u017fse"), LIST("strase"));
    whole("(?i:a)b", LIST("Ab", "ab"), LIST("aB"));
    whole("(?i)[^k]", LIST("a"), LIST("K", "k", "\u212a"));
    whole("(?i)\\u00e9[\u0430-\u0431]", LIST("\u00c9\u0411"), LIST("e\u0411"));
    whole("(?s).(?-s:.)", LIST("\na"), LIST("\n\n"));
    whole("((a)|(?:b))c", LIST("ac", "bc"), LIST("c"));
    whole("()", LIST(""), LIST("a"));
    whole("(|a)b", LIST("b", "ab"), LIST("a"));
}

/* Anchors count where they are true and nowhere else. */
static void test_anchors(void **state UNUSED) {
    whole("^abc$", LIST("abc"), LIST("ab"));
    whole("(^a|^b)c$", LIST("ac", "bc"), LIST("c"));
    whole("a^b", NOTHING, LIST("ab", "a", "b", ""));
    whole("a$b", NOTHING, LIST("ab"));
    whole("(a|^)b", LIST("ab", "b"), LIST("a", "aab"));
    whole("x*^y", LIST("y"), LIST("xy"));
    whole("a($|b)", LIST("a", "ab"), LIST("b"));
    whole("^$", LIST(""), LIST("a"));
    whole("$^", LIST(""), LIST("a"));
    whole("(^a|b)*", LIST("", "a", "ab", "abb", "bb"), LIST("ba", "aba", "aa"));
    whole("(a|b$)*", LIST("", "a", "aab", "b"), LIST("ba", "bb"));
    whole("(^a$)+", LIST("a"), LIST("aa", ""));
    whole("\\Aab\\Z", LIST("ab"), LIST("b"));
    search("b", LIST("b", "abc", "\nb\n"), LIST("", "ac"));
    search("^b", LIST("b", "bc"), LIST("ab"));
    search("b$", LIST("b", "ab"), LIST("bc", "b\n"));
    search("^b$", LIST("b"), LIST("ab", "bc"));
    search("^a|c$", LIST("ab", "bc", "a", "c"), LIST("b", "ba", "cb"));
    search("(^|x)b", LIST("b", "axb", "bx"), LIST("ab"));
    search("", LIST("", "anything"), NOTHING);
    search("\\d{3}", LIST("123", "a123b"), LIST("12"));
}

static void test_refusals(void **state UNUSED) {
    refuse("(", 0, "without closing ')'");
    refuse("ab(c", 2, "without closing ')'");
    refuse("a)", 1, "closes nothing");
    refuse("[", 0, "without closing ']'");
    refuse("[a", 0, "without closing ']'");
    refuse("[]a]", 0, "empty class");
    refuse("[^]", 0, "empty class");
    refuse("[z-a]", 1, "backwards");
    refuse("[a-\\d]", 1, "both ends");
    refuse("[[:alpha:]]", 1, "[:alpha:]");
    refuse("a{2,1}", 1, "at least 2 and at most 1");
    refuse("*a", 0, "nothing to repeat");
    refuse("a**", 2, "nothing to repeat");
    refuse("a|+", 2, "nothing to repeat");
    refuse("^*", 1, "nothing to repeat");
    refuse("(?:+)", 3, "nothing to repeat");
    refuse("a{2}{3}", 4, "nothing to repeat");
    refuse("a++", 2, "possessive");
    refuse("\u00e9(?=a)", 1, "look-around");
    refuse("(?!a)", 0, "look-around");
    refuse("(?<=a)", 0, "look-around");
    refuse("(?<!a)", 0, "look-around");
    refuse("(a)\\1", 3, "back-references");
    refuse("(?P<n>a)(?P=n)", 8, "back-references");
    refuse("\\k<n>", 0, "back-references");
    refuse("a\\b", 1, "word boundaries");
    refuse("\\B", 0, "word boundaries");
    refuse("(?>a)", 0, "atomic");
    refuse("(?(1)a)", 0, "conditional");
    refuse("(?<>a)", 0, "name");
    refuse("(?<n", 0, "name");
    refuse("(?m)^a", 0, "flag m");
    refuse("a(?i)b", 1, "front");
    refuse("(?q)", 0, "unknown kind");
    refuse("(?#", 0, "comment");
    refuse("\\", 0, "ends the pattern");
    refuse("\\q", 0, "unknown escape \\q");
    refuse("\\012", 0, "octal");
    refuse("\\x4", 0, "hexadecimal");
    refuse("\\u12", 0, "hexadecimal");
    refuse("\\u{}", 0, "hexadecimal");
    refuse("\\u{110000}", 0, "10FFFF");
    refuse("\\uD800", 0, "surrogate");
    refuse("\\p{Klingon}", 0, "Klingon");
    refuse("\\p{sc=L}", 0, "sc=L");
    refuse("\\p{L", 0, "closing brace");
    refuse("\\p", 0, "name of a property");
    refuse("a{1000000}", 1, "--max-regex-repeat");
    refuse("(.{1,1000}){1,1000}", 11, "--max-regex-states");
    refuse("(^a){2}", 4, "anchor inside a counted repeat");
}

static void test_limits(void **state UNUSED) {
    struct gram *g = gram_new(NULL);
    struct err e = {0};
    uint32_t rx;
    size_t n = 16 * KIB;
    char *text = xmalloc(n + 1);
    memset(text, 'a', n + 1);
    assert_int_equal(rx_parse(g, (struct str){text, n + 1}, false, &rx, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "--max-regex-bytes"));
    assert_int_equal(rx_parse(g, (struct str){text, n}, false, &rx, &e), RC_OK);
    assert_true(rx_matches(g, rx, (struct str){text, n}));
    memset(text, '(', n);
    assert_int_equal(rx_parse(g, (struct str){text, n}, false, &rx, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "nest more than"));
    for (size_t i = 0; i < n; i++)
        text[i] = i % 2 ? '|' : (char)('a' + i % 26);
    assert_int_equal(rx_parse(g, (struct str){text, n}, false, &rx, &e), RC_OK);
    assert_true(rx_matches(g, rx, str_of("c")));
    assert_int_equal(rx_parse(g, STR_LIT("a\xff"), false, &rx, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "UTF-8"));
    /* A class of many properties stays as small as its union. */
    n = 0;
    text[n++] = '[';
    while (n + 6 < 16 * KIB) {
        memcpy(text + n, "\\p{L}", 5);
        n += 5;
    }
    text[n++] = ']';
    assert_int_equal(rx_parse(g, (struct str){text, n}, false, &rx, &e), RC_OK);
    assert_true(rx_matches(g, rx, str_of("\u00e9")));
    free(text);
    gram_drop(g);
}

/* An alphabet of another: every character of the pattern, and what a search adds, goes through it. */
static uint32_t doubled(struct gram *g, const struct rx_range *ranges, size_t n, bool negated) {
    uint32_t once = rx_class(g, ranges, n, negated);
    return rx_cat(g, rx_bytes(g, STR_LIT("<")), rx_cat(g, once, rx_bytes(g, STR_LIT(">"))));
}

static void test_alphabet(void **state UNUSED) {
    struct gram *g = gram_new(NULL);
    struct err e = {0};
    uint32_t rx;
    assert_int_equal(rx_parse_in(g, STR_LIT("^a[bc].\\d"), true, doubled, &rx, &e), RC_OK);
    assert_true(rx_matches(g, rx, str_of("<a><c><x><1>")));
    assert_true(rx_matches(g, rx, str_of("<a><c><x><1><y><\u00e9>")));
    assert_false(rx_matches(g, rx, str_of("<a><c><x><1>y")));
    assert_false(rx_matches(g, rx, str_of("acx1")));
    gram_drop(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),   cmocka_unit_test(test_escapes),  cmocka_unit_test(test_classes),
        cmocka_unit_test(test_properties), cmocka_unit_test(test_repeats),  cmocka_unit_test(test_groups),
        cmocka_unit_test(test_anchors),    cmocka_unit_test(test_refusals), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_alphabet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
