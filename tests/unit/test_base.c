#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"

static void test_str(void **state) {
    (void)state;
    assert_true(str_eq(STR_LIT("ab"), str_of("ab")));
    assert_false(str_eq(STR_LIT("ab"), STR_LIT("ac")));
    assert_false(str_eq(STR_LIT("ab"), STR_LIT("abc")));
    assert_false(str_eq(STR_LIT("a\0b"), STR_LIT("a\0c")));
    assert_true(str_eq((struct str){0}, STR_LIT("")));
    assert_true(str_eqz(STR_LIT("x"), "x"));
    assert_int_equal(str_of(NULL).n, 0);
    assert_true(str_starts(STR_LIT("--port"), STR_LIT("--")));
    assert_true(str_starts(STR_LIT(""), (struct str){0}));
    assert_false(str_starts(STR_LIT("-"), STR_LIT("--")));
}

static void test_id(void **state) {
    (void)state;
    struct id128 a = {{1}}, b = a;
    assert_true(id128_eq(a, b));
    b.b[15] = 1;
    assert_false(id128_eq(a, b));
}

static void test_alloc(void **state) {
    (void)state;
    char *p = xcalloc(100, 3);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(p[i], 0);
    memset(p, 'x', 300);
    p = xrealloc(p, 3000);
    assert_int_equal(p[299], 'x');
    free(p);
    free(xmalloc(0));
    free(xcalloc(0, 8));
    p = xstrndup("abc", 2);
    assert_string_equal(p, "ab");
    free(p);
    p = xstrdup("");
    assert_string_equal(p, "");
    free(p);
}

/* dies: runs fn in a child; the signal that ended it, or 0. */
static int dies(void (*fn)(void)) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        fn();
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void fails(void) {
    CHECK(1 + 1 == 3);
}
static void holds(void) {
    CHECK(1 + 1 == 2);
}
static void overflows(void) {
    volatile size_t huge = SIZE_MAX / 2;
    free(xreallocarray(NULL, huge, 3));
}

static void test_check(void **state) {
    (void)state;
    assert_int_equal(dies(fails), SIGABRT);
    assert_int_equal(dies(holds), 0);
    assert_int_equal(dies(overflows), SIGABRT);
}

static void test_random_and_clock(void **state) {
    (void)state;
    uint8_t a[64] = {0}, b[64] = {0};
    fill_random(a, sizeof a);
    fill_random(b, sizeof b);
    assert_true(memcmp(a, b, sizeof a) != 0);
    uint64_t t = clock_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t next = clock_ns();
        assert_true(next >= t);
        t = next;
    }
    assert_true(clock_unix_s() > 1600000000);
    assert_true(clock_unix() >= (double)clock_unix_s() - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_str),
        cmocka_unit_test(test_id),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_random_and_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
