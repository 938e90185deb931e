/* What CORS headers say, for flags and requests as they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "router/cors.h"

static struct cors *make(const char *origins, const char *methods, const char *headers, bool credentials) {
    struct cors *c;
    struct err e;
    char *texts[3] = {0};
    const char *given[3] = {origins, methods, headers};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        texts[i] = given[i] ? xstrdup(given[i]) : NULL;
    struct router_opts o = {.allowed_origins = texts[0],
                            .allowed_methods = texts[1],
                            .allowed_headers = texts[2],
                            .allow_credentials = credentials};
    assert_int_equal(cors_new(&c, &o, &e), RC_OK);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free(texts[i]);
    return c;
}

static void expect(struct str got, const char *want) {
    if (!str_eqz(got, want))
        fail_msg("\"%.*s\" is not \"%s\"", (int)got.n, got.p ? got.p : "", want);
}

static void test_defaults(void **state) {
    (void)state;
    struct cors *c = make(NULL, NULL, NULL, false);
    expect(cors_allow(c, STR_LIT("https://a.example")), "*");
    assert_false(cors_varies(c));
    assert_false(cors_credentials(c));
    expect(cors_methods(c), "GET, HEAD, POST, OPTIONS");
    expect(cors_headers(c, STR_LIT("authorization, content-type")), "authorization, content-type");
    expect(cors_headers(c, (struct str){0}), "");
    cors_free(c);
}

static void test_lists(void **state) {
    (void)state;
    struct cors *c =
        make("[\"https://a.example\",\"null\"]", "[\"POST\",\"GET\"]", "[\"Authorization\"]", false);
    expect(cors_allow(c, STR_LIT("https://a.example")), "https://a.example");
    expect(cors_allow(c, STR_LIT("null")), "null");
    static const char *const others[] = {
        "https://a.example.evil", "https://a.exampl", "http://a.example", "https://A.example", "*", ""};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        expect(cors_allow(c, str_of(others[i])), "");
    assert_true(cors_varies(c));
    expect(cors_methods(c), "POST, GET");
    expect(cors_headers(c, STR_LIT("x-other")), "Authorization");
    cors_free(c);
    c = make("[]", NULL, NULL, false);
    expect(cors_allow(c, STR_LIT("https://a.example")), "");
    cors_free(c);
}

static void test_credentials(void **state) {
    (void)state;
    struct cors *c = make("[\"*\"]", NULL, NULL, true);
    expect(cors_allow(c, STR_LIT("https://a.example")), "https://a.example");
    assert_true(cors_varies(c) && cors_credentials(c));
    cors_free(c);
}

/* What is echoed can end no header and begin none. */
static void test_hostile(void **state) {
    (void)state;
    struct cors *c = make(NULL, NULL, NULL, true);
    static const char *const origins[] = {"a b", "a\r\nx: y", "a\x01", "\xc3\xa9", "a,b"};
    for (size_t i = 0; i < ARRAY_LEN(origins); i++)
        expect(cors_allow(c, str_of(origins[i])), "");
    static const char *const asked[] = {"a\r\nx: y", "a: b", "a;b", "\"a\"", "\xc3\xa9", "a/b"};
    for (size_t i = 0; i < ARRAY_LEN(asked); i++)
        expect(cors_headers(c, str_of(asked[i])), "");
    expect(cors_headers(c, (struct str){"a\0b", 3}), "");
    char large[5000];
    memset(large, 'a', sizeof large);
    expect(cors_allow(c, (struct str){large, sizeof large}), "");
    expect(cors_headers(c, (struct str){large, sizeof large}), "");
    cors_free(c);
}

static void test_bad_flags(void **state) {
    (void)state;
    static const char *const bad[] = {"\"*\"",          "{}",       "[1]", "[\"\"]", "[\"a b\"]",
                                      "[\"a\\r\\nb\"]", "[\"a,b\"]"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *text = xstrdup(bad[i]);
        struct router_opts o = {.allowed_headers = text};
        struct cors *c;
        struct err e;
        assert_int_equal(cors_new(&c, &o, &e), RC_INVALID);
        assert_non_null(strstr(e.msg, "--allowed-headers"));
        free(text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults), cmocka_unit_test(test_lists),
                                       cmocka_unit_test(test_credentials), cmocka_unit_test(test_hostile),
                                       cmocka_unit_test(test_bad_flags)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
