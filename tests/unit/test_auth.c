/* API keys: what a header may say, what a file may hold, and reading it again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"
#include "router/auth.h"

static char path[64];

static void write_file(const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_path(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-auth-%d", (int)getpid());
    return 0;
}

static int drop_path(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

static bool allows(struct auth *a, const char *value) {
    return auth_allows(a, str_of(value), NULL);
}

static void test_no_keys(void **state) {
    (void)state;
    struct auth *a = (struct auth *)1;
    struct err e;
    assert_int_equal(auth_new(&a, &(struct conf_list){0}, NULL, &e), RC_OK);
    assert_null(a);
    auth_free(a);
}

static void test_headers(void **state) {
    (void)state;
    char *v[] = {(char[]){"sk-one"}, (char[]){"sk-two"}};
    struct conf_list keys = {v, 2};
    struct auth *a;
    struct err e;
    assert_int_equal(auth_new(&a, &keys, NULL, &e), RC_OK);
    static const char *const good[] = {"Bearer sk-one", "Bearer sk-two", "bearer sk-one", "BEARER   sk-two"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(allows(a, good[i]));
    static const char *const bad[] = {"",
                                      "Bearer",
                                      "Bearer ",
                                      "Bearer  ",
                                      "sk-one",
                                      " Bearer sk-one",
                                      "Bearersk-one",
                                      "Bearer\tsk-one",
                                      "Basic sk-one",
                                      "Bearer sk-on",
                                      "Bearer sk-one ",
                                      "Bearer sk-onee",
                                      "Bearer k-one",
                                      "Bearer SK-ONE",
                                      "Bearer sk-one,sk-two",
                                      "Bearer sk-onesk-two",
                                      "Bearer \xc3\xa9"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(allows(a, bad[i]));
    assert_false(auth_allows(a, (struct str){"Bearer sk-one\0", 14}, NULL));
    assert_false(auth_allows(a, (struct str){NULL, 0}, NULL));
    struct buf huge = {0};
    buf_addz(&huge, "Bearer ");
    for (int i = 0; i < 1 << 20; i++)
        buf_addc(&huge, 'x');
    assert_false(auth_allows(a, buf_str(&huge), NULL));
    buf_fini(&huge);
    auth_free(a);
}

/* Every prefix of a key and every changed byte is refused: what is compared is a digest, all of it. */
static void test_near_misses(void **state) {
    (void)state;
    char key[] = "sk-0123456789abcdefghijklmnopqrstuvwxyz", *v[] = {key}, text[64];
    struct conf_list keys = {v, 1};
    struct auth *a;
    struct err e;
    assert_int_equal(auth_new(&a, &keys, NULL, &e), RC_OK);
    for (size_t n = 0; n < sizeof key - 1; n++) {
        snprintf(text, sizeof text, "Bearer %.*s", (int)n, key);
        assert_false(allows(a, text));
        snprintf(text, sizeof text, "Bearer %s", key);
        text[7 + n] ^= 1;
        assert_false(allows(a, text));
    }
    auth_free(a);
}

static void test_file(void **state) {
    (void)state;
    struct conf_list none = {0};
    struct auth *a;
    struct err e;
    size_t n = 0;
    write_file("# for the team\n\n  sk-one  \r\n\t# sk-comment\nsk-two");
    assert_int_equal(auth_new(&a, &none, path, &e), RC_OK);
    assert_true(allows(a, "Bearer sk-one") && allows(a, "Bearer sk-two"));
    assert_false(allows(a, "Bearer sk-comment") || allows(a, "Bearer #"));

    write_file("sk-three\n");
    assert_int_equal(auth_reload(a, &n, &e), RC_OK);
    assert_int_equal(n, 1);
    assert_true(allows(a, "Bearer sk-three"));
    assert_false(allows(a, "Bearer sk-one"));

    /* A file that lost its keys, or went away, opens the server to nobody. */
    static const char *const broken[] = {"", "# none\n", "sk-four\na key with blanks\n", "sk-\x7f\n"};
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        write_file(broken[i]);
        assert_int_equal(auth_reload(a, &n, &e), RC_INVALID);
        assert_null(strstr(e.msg, "blanks\n"));
        assert_null(strstr(e.msg, "sk-four"));
    }
    unlink(path);
    assert_int_equal(auth_reload(a, &n, &e), RC_INVALID);
    assert_true(allows(a, "Bearer sk-three"));
    assert_false(allows(a, "Bearer sk-four"));
    auth_free(a);
}

static void test_start_up(void **state) {
    (void)state;
    struct auth *a;
    struct err e;
    char *empty[] = {(char[]){""}}, *blank[] = {(char[]){"a b"}};
    assert_int_equal(auth_new(&a, &(struct conf_list){empty, 1}, NULL, &e), RC_INVALID);
    assert_int_equal(auth_new(&a, &(struct conf_list){blank, 1}, NULL, &e), RC_INVALID);
    assert_null(strstr(e.msg, "a b"));
    assert_int_equal(auth_new(&a, &(struct conf_list){0}, "/nowhere/keys", &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "/nowhere/keys"));
    assert_int_equal(auth_new(&a, &(struct conf_list){0}, "/tmp", &e), RC_INVALID);
    write_file("sk-one\nsk-\x01\n");
    assert_int_equal(auth_new(&a, &(struct conf_list){0}, path, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "line 2"));
    struct buf many = {0};
    for (int i = 0; i <= AUTH_KEYS_MAX; i++)
        buf_addf(&many, "k%d\n", i);
    write_file(buf_cstr(&many));
    buf_fini(&many);
    assert_int_equal(auth_new(&a, &(struct conf_list){0}, path, &e), RC_INVALID);
}

static void test_open_paths(void **state) {
    (void)state;
    static const char *const open[] = {"/", "/health", "/livez", "/readyz", "/ping", "/version", "/load"};
    static const char *const closed[] = {"",   "/v1/models", "/health/",      "/healthz",  "/openapi.json",
                                         "//", "/Health",    "/v1/../health", "/metrics/", "/tokenize",
                                         "*"};
    for (size_t i = 0; i < ARRAY_LEN(open); i++)
        assert_true(auth_open(str_of(open[i]), false));
    for (size_t i = 0; i < ARRAY_LEN(closed); i++)
        assert_false(auth_open(str_of(closed[i]), true));
    assert_true(auth_open(STR_LIT("/metrics"), true));
    assert_false(auth_open(STR_LIT("/metrics"), false));
}

/* Who a key is: the same wherever it is read, and nobody else; and what it may have, which a reload does not give
 * anew. */
static void test_who(void **state) {
    (void)state;
    char *flag[] = {(char[]){"sk-two"}};
    struct conf_list none = {0}, two = {flag, 1};
    struct auth *a, *b;
    struct auth_key one, other, key;
    struct err e;
    size_t n;
    unsigned wait;
    write_file("sk-one rpm=2\nsk-two\nsk-three rpm=5 tpm=70\nsk-three rpm=3\n");
    assert_int_equal(auth_new(&a, &none, path, &e), RC_OK);
    assert_int_equal(auth_new(&b, &two, path, &e), RC_OK);
    assert_true(auth_count(a) == 3 && auth_count(b) == 3);
    assert_true(auth_allows(a, STR_LIT("Bearer sk-two"), &one) && auth_allows(b, STR_LIT("Bearer sk-two"), &other));
    assert_true(id128_eq(one.tenant, other.tenant) && !one.quota && !other.quota);
    assert_true(auth_allows(a, STR_LIT("Bearer sk-one"), &other));
    assert_false(id128_eq(one.tenant, other.tenant));
    assert_true(auth_allows(b, STR_LIT("Bearer sk-three"), &key));
    assert_true(quota_read(key.quota).requests == 3 && quota_read(key.quota).tokens == 70);
    quota_drop(key.quota);
    auth_free(b);

    assert_int_equal(quota_request(other.quota, 1, &wait), QUOTA_OK);
    assert_false(auth_changed(a));
    write_file("sk-zero rpm=1\nsk-one rpm=3\n");
    assert_true(auth_changed(a));
    assert_int_equal(auth_reload(a, &n, &e), RC_OK);
    assert_false(auth_changed(a));
    assert_true(auth_allows(a, STR_LIT("Bearer sk-one"), &key));
    assert_ptr_equal(key.quota, other.quota);
    assert_int_equal(quota_read(key.quota).requests, 3);
    assert_int_equal(quota_request(key.quota, 1, &wait), QUOTA_OK);
    assert_int_equal(quota_request(key.quota, 1, &wait), QUOTA_REQUESTS);
    quota_drop(key.quota);
    write_file("sk-one\n");
    assert_int_equal(auth_reload(a, &n, &e), RC_OK);
    assert_true(auth_allows(a, STR_LIT("Bearer sk-one"), &key));
    assert_null(key.quota);
    assert_true(auth_allows(a, STR_LIT("Bearer sk-one"), NULL));
    auth_free(a);
    assert_int_equal(quota_read(other.quota).requests, 3); /* a request still has it */
    quota_drop(other.quota);
    unlink(path);
}

struct race {
    struct auth *a;
    _Atomic bool over;
};

static void *ask(void *arg) {
    struct race *r = arg;
    struct auth_key key;
    while (!atomic_load(&r->over)) {
        assert_true(auth_allows(r->a, STR_LIT("Bearer sk-steady"), &key));
        quota_drop(key.quota);
    }
    return NULL;
}

/* A key in both versions of the file is allowed throughout. threads: tsan */
static void test_reload_under_load(void **state) {
    (void)state;
    struct conf_list none = {0};
    struct race r = {0};
    struct err e;
    size_t n;
    pthread_t t[2];
    write_file("sk-steady\n");
    assert_int_equal(auth_new(&r.a, &none, path, &e), RC_OK);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, ask, &r), 0);
    for (int i = 0; i < 200; i++) {
        write_file(i % 2 ? "sk-steady rpm=9\n" : i % 4 ? "sk-other\nsk-steady\n" : "sk-other\nsk-steady rpm=10\n");
        assert_int_equal(auth_reload(r.a, &n, &e), RC_OK);
    }
    atomic_store(&r.over, true);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_join(t[i], NULL);
    auth_free(r.a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_keys),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_near_misses),
        cmocka_unit_test_setup_teardown(test_file, make_path, drop_path),
        cmocka_unit_test_setup_teardown(test_start_up, make_path, drop_path),
        cmocka_unit_test(test_open_paths),
        cmocka_unit_test_setup_teardown(test_who, make_path, drop_path),
        cmocka_unit_test_setup_teardown(test_reload_under_load, make_path, drop_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
