/* The patterns of tokenizers: what Oniguruma matches (asked of Hugging Face tokenizers 0.23.3), what is refused,
 * and time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/buf.h"
#include "common/text/pattern.h"

#include <stdio.h>
#include <stdlib.h>

/* matches: all of them, each in brackets. */
static void matches(const char *re, const char *text, const char *want) {
    struct pattern *m = NULL;
    struct pattern_scan s;
    struct err e;
    struct buf got = {0};
    size_t begin, end;
    if (pattern_new(&m, str_of(re), &e))
        fail_msg("%s", e.msg);
    pattern_scan_init(&s, m, text, strlen(text));
    while (pattern_next(&s, &begin, &end))
        buf_addf(&got, "[%.*s]", (int)(end - begin), text + begin);
    pattern_scan_fini(&s);
    if (strcmp(buf_cstr(&got), want) != 0)
        fail_msg("%s on \"%s\": wanted %s, got %s", re, text, want, buf_cstr(&got));
    buf_fini(&got);
    pattern_free(m);
}

static void test_matches(void **state UNUSED) {
    matches("a.b", "a\nb axb", "[axb]");
    matches("(?m:a.b)", "a\nb", "[a\nb]");
    matches("a|ab", "ab", "[a]");
    matches("(?:ab|a)(?:c|bcd)(?:d*)", "abcd", "[abcd]");
    matches("a{,2}", "aaab", "[aa][a][]");
    matches("a{1,", "a{1,", "[a{1,]");
    matches("a{2}+", "aaaaa", "[aaaa]");
    matches("a++a|a", "aaa", "[a][a][a]");
    matches("a*?b", "aab", "[aab]");
    matches("a?", "ba", "[][a]"); /* no empty match right behind a match */
    matches("^b|b$", "ab\nb", "[b][b]");
    matches("\\Ab|b\\z", "ab\nb", "[b]");
    matches("a\\Z", "a\n", "[a]");
    matches("\\bfoo\\b", "foo food foo", "[foo][foo]");
    matches("(?<=ab|c)d", "abd cd d", "[d][d]");
    matches("(?<!ab|c)d", "abd cd d", "[d]");
    matches("\\d{1,3}(?=(?:\\d{3})*\\b)", "1234567", "[1][234][567]");
    matches("(?>ab|a)b", "abb ab", "[abb]");
    matches("\\s+(?!\\S)|\\s+", "a  b  ", "[ ][ ][  ]");
    matches("\\h+", "fab xyz 09", "[fab][09]");
    matches("[^]]+", "ab]c", "[ab][c]");
    matches("[]a]+", "b]a", "[]a]");
    matches("[\\w&&[^a-c]]+", "abcdef", "[def]");
    matches("[(a|[bc])]+", "xa|b)", "[a|b)]");
    matches("[[:punct:]]+", "a$+<.,", "[$+<.,]");
    matches("\\p{Punct}+", "a$+<.,", "[.,]");
    matches("\\p{Han}+", "a\xE6\xBC\xA2\xE5\xAD\x97z", "[\xE6\xBC\xA2\xE5\xAD\x97]");
    matches("\\p{^L}+|\\p{lu}", "aB12", "[B][12]");
    matches("(?i:'s|'re)", "'S 'rE '\xC5\xBF", "['S]['rE]['\xC5\xBF]");
    matches("a(?i)b|c", "aBaC", "[aB][aC]"); /* the flag takes the alternatives behind it in */
    matches("(?i:[^k])", "kK\xE2\x84\xAAx", "[x]");
    matches("\\w", "\xC2\xB2", "[\xC2\xB2]"); /* but not in brackets */
    matches("[\\w]", "\xC2\xB2", "");
    matches("(?#nothing)\\x41\\u0042\\x{43}", "ABC", "[ABC]");
    matches("(?<name>a)(?'other'b)", "ab", "[ab]");
}

static void refused(const char *re, enum rc want, const char *why) {
    struct pattern *m = NULL;
    struct err e = {0};
    enum rc rc = pattern_new(&m, str_of(re), &e);
    if (rc != want || !strstr(e.msg, why))
        fail_msg("%s: wanted %s (%s), got %s: %s", re, rc_name(want), why, rc_name(rc), e.msg);
    assert_null(m);
}

static void test_refused(void **state UNUSED) {
    refused("(a", RC_INVALID, "without an end");
    refused("a)", RC_INVALID, "without a (");
    refused("*", RC_INVALID, "nothing to repeat");
    refused("a|{2}", RC_INVALID, "nothing to repeat");
    refused("[", RC_INVALID, "without an end");
    refused("[]", RC_INVALID, "empty class");
    refused("[z-a]", RC_INVALID, "before it begins");
    refused("[a-\\d]", RC_INVALID, "ends in a class");
    refused("[\\d-z]", RC_INVALID, "begins in a class");
    refused("[[:alpah:]]", RC_INVALID, "not known");
    refused("\\", RC_INVALID, "backslash");
    refused("\\x{110000}", RC_INVALID, "no character");
    refused("\\x{D800}", RC_INVALID, "no character");
    refused("a{1001}", RC_INVALID, "repeats");
    refused("(?:(?:a{1000}){1000}){1000}", RC_INVALID, "too large");
    refused("a{1}{1}{1}{1}{1}", RC_INVALID, "repeats of one part");
    refused("(a)\\1", RC_UNSUPPORTED, "\\1");
    refused("\\Ga", RC_UNSUPPORTED, "\\G");
    refused("\\p{Klingon}", RC_UNSUPPORTED, "Klingon");
    refused("(?:a*)*", RC_UNSUPPORTED, "may be empty");
    refused("(?:a|b?)+", RC_UNSUPPORTED, "may be empty");
    refused("(?:ab)++", RC_UNSUPPORTED, "possessive");
    refused("(?>a+b)", RC_UNSUPPORTED, "atomic");
    refused("(?<=a+)b", RC_UNSUPPORTED, "look-behind");
    refused("(?x: a)", RC_UNSUPPORTED, "group");
    refused("(?(1)a|b)", RC_UNSUPPORTED, "group");
    refused("(?~a)", RC_UNSUPPORTED, "group");
    refused("(?i:stress)", RC_UNSUPPORTED, "U+FB05");
    refused("a{2}?", RC_UNSUPPORTED, "{n}?");
    refused("a{3,2}", RC_UNSUPPORTED, "before it begins");
    struct buf deep = {0};
    for (int i = 0; i < 5000; i++)
        buf_addc(&deep, '(');
    refused(buf_cstr(&deep), RC_INVALID, "deeper");
    deep.len = 0;
    for (int i = 0; i < PATTERN_BYTES_MAX + 1; i++)
        buf_addc(&deep, 'a');
    refused(buf_cstr(&deep), RC_INVALID, "limit");
    buf_fini(&deep);
}

/* Inputs on which a search that only backtracks takes time without end, or in the square of the length: steps are
 * counted, so that no clock is needed. */
static void test_steps(void **state UNUSED) {
    static const struct {
        const char *re, *unit, *end;
    } cases[] = {
        {"(?:a|a)+b", "a", "c"},         {"(?:a+)+b", "a", "c"},           {"(?:a+b?)+c", "ab", "d"},
        {"a+b", "a", ""},                {"a++b", "a", ""},                {"(?=a*b)a", "a", "b"},
        {"(?=(?:a|a)*b)a", "a", "c"},    {".*x", "a", ""},                 {"(?:.*x|a)", "a", ""},
        {"\\s+$", " ", "a"},             {"a*?b", "a", ""},                {"(?=(?:[ab]+,)*x)a", "ab,", "y"},
        {"(?>a|b)(?:a|b)+c", "ab", ""},  {"(?<=a)a+b", "a", ""},           {"(?:a{1,8}){1,8}b", "a", ""},
        {"(?=.*(?=.*z))a", "a", "z"},    {"(?:\\w+\\s?)+$", "word ", "!"}, {"a(?!.*b)", "a", "b"},
    };
    enum { N_BYTES = 20000, STEPS_A_BYTE_MAX = 1000 };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pattern *m;
        struct pattern_scan s;
        struct buf text = {0};
        size_t begin, end;
        assert_int_equal(pattern_new(&m, str_of(cases[i].re), NULL), RC_OK);
        while (text.len < N_BYTES)
            buf_addz(&text, cases[i].unit);
        buf_addz(&text, cases[i].end);
        pattern_scan_init(&s, m, text.data, text.len);
        while (pattern_next(&s, &begin, &end))
            ;
        if (s.n_steps / text.len > STEPS_A_BYTE_MAX || s.exhausted)
            fail_msg("%s: %llu steps for %zu bytes", cases[i].re, (unsigned long long)s.n_steps, text.len);
        pattern_scan_fini(&s);
        pattern_free(m);
        buf_fini(&text);
    }
}

/* Marks change nothing but time: each pattern on texts made at random, with and without them. */
static void test_marks(void **state UNUSED) {
    static const char *const patterns[] = {
        "(?:a|ab|b)+c", "(?=(?:a|b)*c)[ab]+", "a*?(?:b|c)+a", "(?>a|b)(?:ab?)*c", "(?<!a)(?:b+|a)*c|b",
        "[ab]+(?!c)|.", "(?:a+b?)+$", "(?=.*c)a|b+", "\\b(?:a|b)+?\\b", "(?:(?:a|b){1,3}c?)+a",
    };
    uint32_t seed = 7;
    struct pattern *built[ARRAY_LEN(patterns)];
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++)
        assert_int_equal(pattern_new(&built[i], str_of(patterns[i]), NULL), RC_OK);
    for (size_t round = 0; round < 3000; round++) {
        const struct pattern *m = built[round % ARRAY_LEN(patterns)];
        struct pattern_scan plain, marked;
        char text[48];
        size_t n = 0, at[2][2];
        for (size_t k = 0; k < sizeof text; k++, n++) {
            seed = seed * 1664525u + 1013904223u;
            text[k] = "aaabbc \n"[seed >> 29];
        }
        pattern_scan_init(&plain, m, text, n);
        pattern_scan_init(&marked, m, text, n);
        for (bool a = true, b = true; a || b;) {
            marked.n_steps += 1 << 16; /* as if it had taken long */
            a = pattern_next(&plain, &at[0][0], &at[0][1]);
            b = pattern_next(&marked, &at[1][0], &at[1][1]);
            assert_int_equal(a, b);
            if (a)
                assert_memory_equal(at[0], at[1], sizeof at[0]);
        }
        assert_false(marked.exhausted);
        pattern_scan_fini(&plain);
        pattern_scan_fini(&marked);
    }
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++)
        pattern_free(built[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
