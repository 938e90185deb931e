/* The route table: exact paths, methods, names in paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "router/route.h"

static void test_find(void **state) {
    (void)state;
    assert_int_equal(route_find(STR_LIT("/v1/chat/completions"))->id, ROUTE_CHAT);
    assert_int_equal(route_find(STR_LIT("/v1/models"))->id, ROUTE_MODELS);
    assert_int_equal(route_find(STR_LIT("/v1/models/a/b"))->id, ROUTE_MODEL);
    assert_int_equal(route_find(STR_LIT("/v2/rerank"))->id, ROUTE_RERANK);
    assert_int_equal(route_find(STR_LIT("/openapi.json"))->id, ROUTE_OPENAPI);
    static const char *const none[] = {"",
                                       "*",
                                       "/v1/models/",
                                       "/v1/chat/completions/",
                                       "/V1/models",
                                       "//v1/models",
                                       "/v1/../v1/models",
                                       "/%761/models",
                                       "/healthz",
                                       "/v1/chat"};
    for (size_t i = 0; i < ARRAY_LEN(none); i++)
        assert_null(route_find(str_of(none[i])));
    for (size_t i = 0; i < n_routes; i++) {
        for (size_t k = 0; k < i; k++)
            assert_false(str_eq(routes[i].path, routes[k].path));
    }
}

static void test_methods(void **state) {
    (void)state;
    assert_int_equal(route_method(STR_LIT("HEAD")), METHOD_GET);
    assert_int_equal(route_method(STR_LIT("get")), 0);
    assert_int_equal(route_method(STR_LIT("PUT")), 0);
    assert_string_equal(route_allow(route_find(STR_LIT("/v1/completions"))), "POST, OPTIONS");
    assert_string_equal(route_allow(route_find(STR_LIT("/health"))), "GET, HEAD, OPTIONS");
    assert_string_equal(route_allow(route_find(STR_LIT("/ping"))), "GET, HEAD, POST, OPTIONS");
}

static void test_names(void **state) {
    (void)state;
    static const struct {
        const char *path, *name; /* NULL: refused */
    } cases[] = {{"/v1/models/m", "m"},           {"/v1/models/org/m", "org/m"},
                 {"/v1/models/org%2Fm", "org/m"}, {"/v1/models/%c3%A9", "\xc3\xa9"},
                 {"/v1/models/a%0", NULL},        {"/v1/models/%", NULL},
                 {"/v1/models/a%zz", NULL},       {"/v1/models/a%00b", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str path = str_of(cases[i].path);
        struct buf b = {0};
        bool ok = route_name(route_find(path), path, &b);
        assert_int_equal(ok, cases[i].name != NULL);
        if (ok)
            assert_string_equal(buf_cstr(&b), cases[i].name);
        buf_fini(&b);
    }
}

static void test_root(void **state) {
    (void)state;
    static const struct {
        const char *given, *root; /* root NULL: refused */
    } cases[] = {{NULL, ""},        {"", ""},          {"/", ""},           {"api", "/api"},
                 {"/api", "/api"},  {"/api/", "/api"}, {"//api//", "/api"}, {"a/b-c", "/a/b-c"},
                 {"a//b", NULL},    {"a b", NULL},     {"a?b", NULL},       {"a%20", NULL},
                 {"\xc3\xa9", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *root = NULL;
        struct err e;
        assert_int_equal(route_root(cases[i].given, &root, &e), cases[i].root ? RC_OK : RC_INVALID);
        if (cases[i].root)
            assert_string_equal(root, cases[i].root);
        free(root);
    }
    static const char *const paths[][2] = {{"/api/health", "/health"},
                                           {"/api/", "/"},
                                           {"/api", "/api"},
                                           {"/apihealth", "/apihealth"},
                                           {"/health", "/health"},
                                           {"/api/api/x", "/api/x"},
                                           {"/API/health", "/API/health"},
                                           {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        assert_true(str_eqz(route_strip(str_of(paths[i][0]), STR_LIT("/api")), paths[i][1]));
        assert_true(str_eqz(route_strip(str_of(paths[i][0]), STR_LIT("")), paths[i][0]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_find), cmocka_unit_test(test_methods),
                                       cmocka_unit_test(test_names), cmocka_unit_test(test_root)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
