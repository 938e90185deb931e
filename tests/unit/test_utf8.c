#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/utf8.h"

/* Every scalar value survives encode and decode; everything else of 21 bits is refused as text. */
static void test_all_code_points(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        if (cp >= 0xD800 && cp <= 0xDFFF)
            continue;
        char s[4];
        size_t n = utf8_encode(cp, s), len;
        assert_int_equal(utf8_decode(s, n, &len), (int32_t)cp);
        assert_int_equal(len, n);
        assert_true(utf8_valid(s, n));
        assert_int_equal(utf8_count(s, n), 1);
        if (n > 1) { /* cut short: one maximal subpart */
            assert_int_equal(utf8_decode(s, n - 1, &len), -1);
            assert_int_equal(len, n - 1);
            assert_false(utf8_valid(s, n - 1));
        }
    }
}

/* The substitutions that Python's bytes.decode("utf-8", "replace") makes, by the lengths of the parts. */
static void test_maximal_subparts(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        size_t lens[8];
    } cases[] = {
        {"\x80", 1, {1}},
        {"\xC0\xAF", 2, {1, 1}}, /* overlong */
        {"\xC1\xBF", 2, {1, 1}},
        {"\xE0\x80\xAF", 3, {1, 1, 1}},
        {"\xE0\xA0", 2, {2}},
        {"\xED\xA0\x80", 3, {1, 1, 1}}, /* a surrogate */
        {"\xF0\x80\x80\xAF", 4, {1, 1, 1, 1}},
        {"\xF4\x90\x80\x80", 4, {1, 1, 1, 1}},      /* above U+10FFFF */
        {"\xF1\x80\x80\xE1\x80\xC2", 6, {3, 2, 1}}, /* Unicode 15, table 3-8 */
        {"\xF5\xFF", 2, {1, 1}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t at = 0;
        for (size_t k = 0; at < cases[i].n; k++) {
            size_t len;
            assert_int_equal(utf8_decode(cases[i].bytes + at, cases[i].n - at, &len), -1);
            assert_int_equal(len, cases[i].lens[k]);
            at += len;
        }
        assert_false(utf8_valid(cases[i].bytes, cases[i].n));
    }
}

/* A bad byte is found at every offset of the words that the fast path skips. */
static void test_valid_offsets(void **state) {
    (void)state;
    char text[40];
    for (size_t bad = 0; bad < sizeof text; bad++) {
        memset(text, 'a', sizeof text);
        assert_true(utf8_valid(text, sizeof text));
        text[bad] = '\xFF';
        assert_false(utf8_valid(text, sizeof text));
        assert_true(utf8_valid(text, bad));
    }
    assert_true(utf8_valid(NULL, 0));
}

static void test_cut(void **state) {
    (void)state;
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"; /* a é € 😀 z, at 0 1 3 6 10 */
    static const size_t want[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
    for (size_t max = 0; max < ARRAY_LEN(want); max++)
        assert_int_equal(utf8_cut(text, sizeof text - 1, max), want[max]);
    assert_int_equal(utf8_count(text, sizeof text - 1), 5);
    /* Not text: the cut still comes within four bytes, so a loop over it makes progress. */
    assert_int_equal(utf8_cut("\x80\x80\x80\x80\x80\x80\x80\x80", 8, 6), 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_code_points),
        cmocka_unit_test(test_maximal_subparts),
        cmocka_unit_test(test_valid_offsets),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
