#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"

static const char *f32_text(struct buf *b, float v) {
    b->len = 0;
    jw_f32(b, v);
    return buf_cstr(b);
}

static const char *f64_text(struct buf *b, double v) {
    b->len = 0;
    jw_f64(b, v);
    return buf_cstr(b);
}

static void test_f32_known(void **state) {
    (void)state;
    static const struct {
        float v;
        const char *want;
    } cases[] = {
        {0.0f, "0.0"},
        {-0.0f, "-0.0"},
        {1.0f, "1.0"},
        {-1.5f, "-1.5"},
        {0.1f, "0.1"},
        {1.0f / 3, "0.33333334"},
        {-0.0012345679f, "-0.001234568"},
        {16777216.0f, "16777216.0"},
        {123456.0f, "123456.0"},
        {1e15f, "1000000000000000.0"},
        {1e16f, "1e16"},
        {FLT_MAX, "3.4028235e38"},
        {FLT_MIN, "1.1754944e-38"},
        {1e-45f, "1e-45"},
        {0.00001f, "0.00001"},
        {0.000001f, "1e-6"},
        {-INFINITY, "-9999.0"},
        {0x1p-44f, "5.684342e-14"},
        {0x1p87f, "1.5474251e26"},
        {9.5367431640625e-7f, "9.536743e-7"},
    };
    struct buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(f32_text(&b, cases[i].v), cases[i].want);
    buf_fini(&b);
}

static size_t significant(const char *text) {
    size_t n = 0, zeros = 0;
    for (const char *p = text; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') {
            if (*p == '0') {
                zeros += n > 0;
            } else {
                n += zeros + 1;
                zeros = 0;
            }
        }
    return n ? n : 1;
}

/* Exhaustive in the sense of strides: it reads back, it is legal JSON, and no shorter decimal reads back.
 * Below n significant digits, a decimal that reads as v must be one of the two neighbours of v, so only these
 * are tried. */
static void test_f32_shortest(void **state) {
    (void)state;
    struct buf b = {0};
    for (uint64_t i = 1; i < 0x7F800000u; i += i % 977 == 0 ? 0x800000 - (i & 0x7FFFFF) : 30011) {
        uint32_t bits = (uint32_t)i;
        float v;
        memcpy(&v, &bits, sizeof v);
        const char *text = f32_text(&b, v);
        assert_true(strtof(text, NULL) == v);
        assert_int_equal(json_scan(buf_str(&b), NULL, NULL), RC_OK);
        assert_true(strpbrk(text, ".e") != NULL);
        size_t n = significant(text);
        if (n == 1)
            continue;
        char shorter[40];
        snprintf(shorter, sizeof shorter, "%.*e", (int)n - 2, (double)v);
        assert_true(strtof(shorter, NULL) != v);
    }
    /* Every power of two, where the gaps differ. */
    for (int k = -149; k < 128; k++) {
        float v = ldexpf(1.0f, k);
        assert_true(strtof(f32_text(&b, v), NULL) == v);
    }
    buf_fini(&b);
}

static void test_f64(void **state) {
    (void)state;
    static const struct {
        double v;
        const char *want;
    } cases[] = {{0.1, "0.1"},
                 {1e22, "1e22"},
                 {5e-324, "5e-324"},
                 {DBL_MAX, "1.7976931348623157e308"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1e15, "1000000000000000.0"},
                 {0.7, "0.7"},
                 {-2.5, "-2.5"},
                 {9007199254740993.0, "9007199254740992.0"},
                 {9.5367431640625e-07, "9.5367431640625e-7"}};
    struct buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_string_equal(f64_text(&b, cases[i].v), cases[i].want);
        assert_true(strtod(b.data, NULL) == cases[i].v);
    }
    uint64_t bits = 1;
    for (int i = 0; i < 20000; i++) {
        bits = bits * 6364136223846793005ull + 1442695040888963407ull;
        double v;
        memcpy(&v, &bits, sizeof v);
        if (isfinite(v))
            assert_true(strtod(f64_text(&b, v), NULL) == v);
    }
    buf_fini(&b);
}

static void test_ints(void **state) {
    (void)state;
    struct buf b = {0};
    jw_i64(&b, INT64_MIN);
    buf_addc(&b, ' ');
    jw_i64(&b, -1);
    buf_addc(&b, ' ');
    jw_i64(&b, INT64_MAX);
    buf_addc(&b, ' ');
    jw_u64(&b, UINT64_MAX);
    buf_addc(&b, ' ');
    jw_bool(&b, false);
    assert_string_equal(buf_cstr(&b),
                        "-9223372036854775808 -1 9223372036854775807 18446744073709551615 false");
    buf_fini(&b);
}

static void test_str(void **state) {
    (void)state;
    struct buf b = {0};
    jw_str(&b, STR_LIT("a\"b\\c\n\r\t\b\f\x01\x1F\x7F/é€😀\0z"));
    assert_string_equal(buf_cstr(&b), "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0001\\u001f\x7F/é€😀\\u0000z\"");
    b.len = 0;
    jw_str(&b, STR_LIT("\xFFok\xE2\x82"
                       "x\xED\xA0\x80"));
    assert_string_equal(buf_cstr(&b), "\"\xEF\xBF\xBDok\xEF\xBF\xBDx\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    b.len = 0;
    jw_strz(&b, NULL);
    jw_str(&b, (struct str){0});
    assert_string_equal(buf_cstr(&b), "null\"\"");
    /* All byte pairs give legal JSON. */
    for (int i = 0; i < 0x10000; i++) {
        char pair[2] = {(char)(i >> 8), (char)i};
        b.len = 0;
        jw_str(&b, (struct str){pair, 2});
        assert_int_equal(json_scan(buf_str(&b), NULL, NULL), RC_OK);
    }
    buf_fini(&b);
}

static void test_tree(void **state) {
    (void)state;
    struct str text = STR_LIT("{\"z\":[1,0.1,true,false,null,\"é\\n\"],\"a\":{\"k\":{}},\"big\":1e300}");
    json_t *v;
    assert_int_equal(json_parse(text, NULL, &v, NULL), RC_OK);
    struct buf b = {0};
    jw_json(&b, v);
    assert_string_equal(buf_cstr(&b), text.p);
    json_decref(v);
    buf_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_known), cmocka_unit_test(test_f32_shortest), cmocka_unit_test(test_f64),
        cmocka_unit_test(test_ints),      cmocka_unit_test(test_str),          cmocka_unit_test(test_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
