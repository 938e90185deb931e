#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/json.h"

static json_t *parse(struct str text) {
    struct err e = {0};
    json_t *v = NULL;
    enum rc rc = json_parse(text, NULL, &v, &e);
    if (rc)
        fail_msg("%.*s: %s", (int)text.n, text.p, e.msg);
    return v;
}

static void test_accepts(void **state) {
    (void)state;
    static const struct str texts[] = {
        STR_LIT("{}"),
        STR_LIT(" [ ] "),
        STR_LIT("null"),
        STR_LIT("-0"),
        STR_LIT("1e308"),
        STR_LIT("1E-999"),
        STR_LIT("\xEF\xBB\xBF{\"a\":1}"),
        STR_LIT("\"\\u0000\""),
        STR_LIT("\"\\ud83d\\ude00\\/\""),
        STR_LIT("\"\xEF\xBF\xBF\""),
        STR_LIT("[1,\r\n\t2]"),
        STR_LIT("9223372036854775807"),
        STR_LIT("\"a\x7F\""),
        STR_LIT("[[],{},[{}]]"),
        STR_LIT("-9223372036854775808"),
        STR_LIT("[0.5,1e+2,2E2]"),
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        json_decref(parse(texts[i]));
}

static void test_refuses(void **state) {
    (void)state;
    static const struct str texts[] = {
        STR_LIT(""),
        STR_LIT("  "),
        STR_LIT("\xEF\xBB\xBF"),
        STR_LIT("{"),
        STR_LIT("["),
        STR_LIT("]"),
        STR_LIT("{]"),
        STR_LIT("[1,]"),
        STR_LIT("{\"a\":1,}"),
        STR_LIT("[,1]"),
        STR_LIT("[1 2]"),
        STR_LIT("{\"a\" 1}"),
        STR_LIT("{1:2}"),
        STR_LIT("{\"a\":}"),
        STR_LIT("{\"a\"}"),
        STR_LIT("{a:1}"),
        STR_LIT("{'a':1}"),
        STR_LIT("nul"),
        STR_LIT("nulls"),
        STR_LIT("NaN"),
        STR_LIT("Infinity"),
        STR_LIT("-Infinity"),
        STR_LIT("[NaN]"),
        STR_LIT("True"),
        STR_LIT("{} {}"),
        STR_LIT("1 x"),
        STR_LIT("01"),
        STR_LIT("-"),
        STR_LIT("+1"),
        STR_LIT("1."),
        STR_LIT(".5"),
        STR_LIT("1e"),
        STR_LIT("1e+"),
        STR_LIT("0x1"),
        STR_LIT("1e400"),
        STR_LIT("-1e400"),
        STR_LIT("{\"ignored\":[1e400]}"),
        STR_LIT("\"a"),
        STR_LIT("\"\\"),
        STR_LIT("\"\\x\""),
        STR_LIT("\"\\u12\""),
        STR_LIT("\"\\u12G4\""),
        STR_LIT("\"\\ud800\""),
        STR_LIT("\"\\udc00\""),
        STR_LIT("\"\\ud800\\u0041\""),
        STR_LIT("\"\\ud800\\ud800\""),
        STR_LIT("\"\n\""),
        STR_LIT("\"\0\""),
        STR_LIT("\0"),
        STR_LIT("{}\0"),
        STR_LIT("\"\xFF\""),
        STR_LIT("\"\xC0\xAF\""),
        STR_LIT("\"\xED\xA0\x80\""),
        STR_LIT("\"\xC3\""),
        STR_LIT("{\0}"),
        STR_LIT("[\"\xE2\x82\"]"),
        STR_LIT("\xFF\xFE{\0}\0"),
        STR_LIT("/**/1"),
        STR_LIT("[1]]"),
        STR_LIT("{\"a\":1}}"),
        STR_LIT("\"\\\0\""),
        STR_LIT("\xC2\xA0"
                "1"),
        STR_LIT("{\"a\\u0000b\":1}"),
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct err e = {0};
        json_t *v = NULL;
        if (json_parse(texts[i], NULL, &v, &e) != RC_INVALID)
            fail_msg("accepted: %.*s", (int)texts[i].n, texts[i].p);
        assert_null(v);
        assert_non_null(strstr(e.msg, "JSON decode error: "));
        assert_non_null(strstr(e.msg, " at line "));
    }
    /* Every prefix of a text that must be closed is malformed. */
    struct str text =
        STR_LIT("{\"k\\u00e9\":[1.5e3,-2,true,null,{\"a\":\"\xE2\x82\xAC\\n\"}],\"z\":18446744073709551616}");
    for (size_t n = 0; n < text.n; n++)
        assert_int_equal(json_scan((struct str){text.p, n}, NULL, NULL), RC_INVALID);
    json_decref(parse(text));
}

static void test_position(void **state) {
    (void)state;
    struct err e;
    assert_int_equal(json_scan(STR_LIT("{\n \"a\": tru}"), NULL, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "line 2 column 7 (byte 8)"));
}

static char *repeat(const char *s, size_t times) {
    struct buf b = {0};
    for (size_t i = 0; i < times; i++)
        buf_addz(&b, s);
    return buf_take(&b);
}

static void test_depth(void **state) {
    (void)state;
    struct err e;
    for (int object = 0; object < 2; object++) {
        for (size_t depth = 64; depth <= 65; depth++) {
            char *open = repeat(object ? "{\"a\":" : "[", depth), *close = repeat(object ? "}" : "]", depth);
            struct buf b = {0};
            buf_addf(&b, "%s%s%s", open, object ? "1" : "", close);
            assert_int_equal(json_scan(buf_str(&b), NULL, &e), depth == 64 ? RC_OK : RC_INVALID);
            buf_fini(&b);
            free(open);
            free(close);
        }
        assert_non_null(strstr(e.msg, "64"));
        assert_non_null(strstr(e.msg, "--max-json-depth"));
        char *deep = repeat(object ? "{\"a\":" : "[", 1000000);
        assert_int_equal(json_scan(str_of(deep), NULL, &e), RC_INVALID);
        /* A limit set too high is cut to what jansson's recursion bears. */
        struct json_limits high = {.depth_max = SIZE_MAX, .nodes_max = SIZE_MAX};
        assert_int_equal(json_scan(str_of(deep), &high, &e), RC_INVALID);
        assert_non_null(strstr(e.msg, "2048"));
        free(deep);
    }
    char *open = repeat("[", 2048), *close = repeat("]", 2048);
    struct buf b = {0};
    buf_addf(&b, "%s%s", open, close);
    struct json_limits high = {.depth_max = SIZE_MAX, .nodes_max = SIZE_MAX};
    json_t *v;
    assert_int_equal(json_parse(buf_str(&b), &high, &v, &e), RC_OK);
    struct buf again = {0};
    jw_json(&again, v);
    assert_true(str_eq(buf_str(&again), buf_str(&b)));
    json_decref(v);
    buf_fini(&b);
    buf_fini(&again);
    free(open);
    free(close);
}

static void test_nodes(void **state) {
    (void)state;
    struct json_limits l = {.depth_max = 4, .nodes_max = 3};
    struct err e;
    assert_int_equal(json_scan(STR_LIT("[1,[]]"), &l, &e), RC_OK);
    assert_int_equal(json_scan(STR_LIT("{\"a\":1,\"b\":2}"), &l, &e), RC_OK); /* keys do not count */
    assert_int_equal(json_scan(STR_LIT("[1,2,3]"), &l, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "more than 3 values"));
    assert_non_null(strstr(e.msg, "--max-json-nodes"));
}

static void test_keys(void **state) {
    (void)state;
    struct json_limits l = {.depth_max = 4, .nodes_max = 100, .keys_max = 2};
    struct err e;
    struct str fits = STR_LIT("{\"a\":{\"a\":1,\"b\":2},\"b\":[{\"a\":1,\"b\":2},{\"c\":3}]}");
    struct str over = STR_LIT("{\"a\":{\"a\":1,\"b\":2},\"b\":{\"c\":3},\"c\":1}");
    assert_int_equal(json_scan(fits, &l, &e), RC_OK);
    /* behind a level that was closed the count goes on where it was */
    assert_int_equal(json_scan(over, &l, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "more than 2 keys (--max-json-keys)"));
    assert_int_equal(json_scan(STR_LIT("{\"a\":1,\"a\":1,\"a\":1}"), &l, &e), RC_INVALID);
    l.keys_max = 0;
    assert_int_equal(json_scan(STR_LIT("{\"a\":1,\"b\":1,\"c\":1}"), &l, &e), RC_OK);
}

/* Hostile shapes: each is read or refused in time linear in its bytes. */
static void test_hostile_linear(void **state) {
    (void)state;
    uint64_t start = clock_ns();
    struct buf b = {0};
    buf_addc(&b, '{');
    for (int i = 0; i < 300000; i++)
        buf_addf(&b, "%s\"k%d\":%d", i ? "," : "", i % 2 ? 7 : i, i);
    buf_addc(&b, '}');
    json_decref(parse(buf_str(&b)));
    b.len = 0;
    char *digits = repeat("1", 1 << 20);
    buf_addf(&b, "[0.%s,\"%s\"]", digits, digits);
    json_decref(parse(buf_str(&b)));
    b.len = 0;
    buf_addf(&b, "[%s]", digits);
    assert_int_equal(json_scan(buf_str(&b), NULL, NULL), RC_INVALID);
    b.len = 0;
    for (int i = 0; i < 1 << 20; i++)
        buf_addc(&b, "\"\\\n["[i & 3]);
    assert_int_equal(json_scan(buf_str(&b), NULL, NULL), RC_INVALID);
    free(digits);
    buf_fini(&b);
    assert_true(clock_ns() - start < 20 * NS_PER_S); /* a square would take hours */
}

static void test_numbers(void **state) {
    (void)state;
    json_t *v = parse(
        STR_LIT("{\"a\":18446744073709551616,\"s\":\"18446744073709551616 \\\" 99999999999999999999\","
                "\"b\":-9223372036854775809,\"c\":9223372036854775807,\"d\":[99999999999999999999,1]}"));
    assert_true(json_is_real(json_object_get(v, "a")));
    assert_true(json_real_value(json_object_get(v, "a")) == 0x1p64);
    assert_string_equal(json_string_value(json_object_get(v, "s")),
                        "18446744073709551616 \" 99999999999999999999");
    assert_true(json_real_value(json_object_get(v, "b")) < -0x1p63); /* stays outside int64 */
    assert_int_equal(json_integer_value(json_object_get(v, "c")), INT64_MAX);
    assert_true(json_real_value(json_array_get(json_object_get(v, "d"), 0)) == 1e20);
    json_decref(v);

    /* The largest double, written as an integer, and the first integer that rounds to infinity. */
    struct buf b = {0};
    buf_addf(&b, "%.0f", 0x1.fffffffffffffp1023);
    v = parse(buf_str(&b));
    assert_true(json_real_value(v) == 0x1.fffffffffffffp1023);
    json_decref(v);
    static const char limit[] = "1797693134862315807937289714053034150799341327100378269361737789804449682927"
                                "647509466490179775872070963"
                                "3028641669288791094655554785194040263065748867150582068190890200070838367627"
                                "385484581771153176447573027"
                                "0069855571366959622842914819860834936475292719074168444365510704342711559699"
                                "508093042880177904174497792";
    assert_int_equal(json_scan(str_of(limit), NULL, NULL), RC_INVALID);
    buf_fini(&b);
}

static void test_duplicates(void **state) {
    (void)state;
    json_t *v = parse(STR_LIT("{\"model\":\"a\",\"mod\\u0065l\":\"b\"}"));
    assert_string_equal(json_string_value(json_object_get(v, "model")), "b");
    assert_int_equal(json_object_size(v), 1);
    json_decref(v);
}

/* One getter against a table of values: the ones taken and their result, and the ones refused. */
static void test_int(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int64_t want;
    } good[] = {{"5", 5},
                {"5.0", 5},
                {"\"5\"", 5},
                {"\"5.0\"", 5},
                {"\"-5e1\"", -50},
                {"true", 1},
                {"false", 0},
                {"-0.0", 0},
                {"\"9223372036854775807\"", INT64_MAX},
                {"-9223372036854775808", INT64_MIN},
                {"-9223372036854775808.0", INT64_MIN}};
    static const char *const bad[] = {"5.5",
                                      "\"\"",
                                      "\"5.5\"",
                                      "\" 5\"",
                                      "\"5 \"",
                                      "\"0x5\"",
                                      "\"05\"",
                                      "\"five\"",
                                      "[]",
                                      "{}",
                                      "9223372036854775808",
                                      "1e308",
                                      "\"1e400\"",
                                      "\"-18446744073709551616\"",
                                      "\"5\\u0000\"",
                                      "\"+5\"",
                                      "\"NaN\"",
                                      "-9223372036854777856",
                                      /* rounds to the end of the range, but is beyond it */
                                      "-9223372036854775809",
                                      "\"-9223372036854775809\"",
                                      "\"9223372036854775808\""};
    for (size_t i = 0; i < ARRAY_LEN(good) + ARRAY_LEN(bad); i++) {
        bool ok = i < ARRAY_LEN(good);
        struct buf b = {0};
        buf_addf(&b, "{\"k\":%s}", ok ? good[i].json : bad[i - ARRAY_LEN(good)]);
        json_t *obj = parse(buf_str(&b));
        int64_t out = 77;
        bool present = false;
        struct err e = {0};
        enum rc rc = json_get_int(obj, "a.0", "k", &out, &present, &e);
        if (rc != (ok ? RC_OK : RC_INVALID))
            fail_msg("%s: rc %d %s", buf_cstr(&b), (int)rc, e.msg);
        assert_true(present);
        assert_int_equal(out, ok ? good[i].want : 77);
        if (!ok) {
            assert_string_equal(e.param, "a.0.k");
            assert_non_null(strstr(e.msg, "a.0.k must be "));
        }
        json_decref(obj);
        buf_fini(&b);
    }
}

static void test_int_beyond(void **state) {
    (void)state;
    json_t *obj = parse(STR_LIT("{\"hi\":18446744073709551616,\"lo\":-1e300}"));
    int64_t v;
    struct err e;
    assert_int_equal(json_get_int(obj, "", "hi", &v, NULL, &e), RC_INVALID);
    assert_string_equal(e.msg, "hi must be less_than_equal 9223372036854775807");
    assert_int_equal(json_get_int(obj, "", "lo", &v, NULL, &e), RC_INVALID);
    assert_string_equal(e.msg, "lo must be greater_than_equal -9223372036854775808");
    json_decref(obj);
}

static void test_float_bool(void **state) {
    (void)state;
    json_t *obj = parse(STR_LIT("{\"f\":[1,1.5,\"1e2\",true,\"\",\"inf\",\"nan\",\"1e400\",\" 1\",{},[]],"
                                "\"b\":[true,0,1,1.0,\"TRUE\",\"f\",\"Yes\",\"n\",\"oN\",\"0\",2,0.5,\"\","
                                "\"tru\",\"y\\u0000\",{},[]]}"));
    static const double f_want[] = {1, 1.5, 100, 1};
    static const int b_want[] = {1, 0, 1, 1, 1, 0, 1, 0, 1, 0};
    const json_t *item;
    size_t i;
    json_array_foreach(json_object_get(obj, "f"), i, item) {
        json_t *o = json_pack("{s:O}", "k", item);
        double d = -1;
        bool ok = json_get_float(o, "", "k", &d, NULL, NULL) == RC_OK;
        assert_int_equal(ok, i < ARRAY_LEN(f_want));
        assert_true(d == (ok ? f_want[i] : -1.0));
        json_decref(o);
    }
    json_array_foreach(json_object_get(obj, "b"), i, item) {
        json_t *o = json_pack("{s:O}", "k", item);
        for (int before = 0; before < 2; before++) {
            bool v = before;
            bool ok = json_get_bool(o, "", "k", &v, NULL, NULL) == RC_OK;
            assert_int_equal(ok, i < ARRAY_LEN(b_want));
            assert_int_equal(v, ok ? b_want[i] : before);
        }
        json_decref(o);
    }
    json_decref(obj);
}

static void test_others(void **state) {
    (void)state;
    json_t *obj = parse(STR_LIT("{\"s\":\"a\\u0000b\",\"l\":[1],\"o\":{},\"n\":null,\"i\":1,\"t\":true}"));
    struct str s = {0};
    const json_t *v = NULL;
    struct err e;
    bool present = true;
    assert_int_equal(json_get_str(obj, "", "s", &s, NULL, &e), RC_OK);
    assert_true(str_eq(s, STR_LIT("a\0b")));
    assert_int_equal(json_get_list(obj, "", "l", &v, NULL, &e), RC_OK);
    assert_int_equal(json_array_size(v), 1);
    assert_int_equal(json_get_object(obj, "", "o", &v, NULL, &e), RC_OK);
    assert_true(json_is_object(v));
    for (int absent = 0; absent < 2; absent++) {
        const char *key = absent ? "none" : "n";
        int64_t i = 7;
        assert_int_equal(json_get_int(obj, "", key, &i, &present, &e), RC_OK);
        assert_false(present);
        assert_int_equal(i, 7);
    }
    static const char *const not_str[] = {"l", "o", "i", "t"};
    for (size_t i = 0; i < ARRAY_LEN(not_str); i++) {
        assert_int_equal(json_get_str(obj, "", not_str[i], &s, NULL, &e), RC_INVALID);
        assert_string_equal(e.param, not_str[i]);
        assert_non_null(strstr(e.msg, "must be a string"));
    }
    assert_int_equal(json_get_list(obj, "", "o", &v, NULL, &e), RC_INVALID);
    assert_int_equal(json_get_object(obj, "", "l", &v, NULL, &e), RC_INVALID);
    json_decref(obj);
}

static void test_range(void **state) {
    (void)state;
    struct err e;
    assert_int_equal(json_range_int("n", 1, 1, 128, &e), RC_OK);
    assert_int_equal(json_range_int("n", 0, 1, 128, &e), RC_INVALID);
    assert_string_equal(e.msg, "n must be greater_than_equal 1, not 0");
    assert_string_equal(e.param, "n");
    assert_int_equal(json_range_int("n", 129, 1, 128, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "less_than_equal 128"));
    assert_int_equal(json_range_float("top_p", 0, 0, true, 1, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "greater_than 0"));
    assert_int_equal(json_range_float("top_p", 1, 0, true, 1, &e), RC_OK);
    assert_int_equal(json_range_float("top_p", NAN, 0, false, 1, &e), RC_INVALID);
    assert_int_equal(json_range_float("top_p", 1.5, 0, true, 1, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "less_than_equal 1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),    cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_position),   cmocka_unit_test(test_depth),
        cmocka_unit_test(test_keys),       cmocka_unit_test(test_nodes),      cmocka_unit_test(test_hostile_linear),
        cmocka_unit_test(test_numbers),    cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_int),        cmocka_unit_test(test_int_beyond),
        cmocka_unit_test(test_float_bool), cmocka_unit_test(test_others),
        cmocka_unit_test(test_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
