#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "common/err.h"
#include "common/utf8.h"

static void test_set(void **state) {
    (void)state;
    struct err e;
    assert_int_equal(err_set(&e, RC_INVALID, "a.b", "%s is %d", "x", 5), RC_INVALID);
    assert_int_equal(e.rc, RC_INVALID);
    assert_string_equal(e.param, "a.b");
    assert_string_equal(e.msg, "x is 5");
    assert_int_equal(err_set(&e, RC_TIMEOUT, NULL, "late"), RC_TIMEOUT);
    assert_string_equal(e.param, "");
    assert_int_equal(err_set(NULL, RC_IO, "p", "%d", 1), RC_IO);
    errno = ENOENT;
    assert_int_equal(err_io(&e, "/x"), RC_IO);
    assert_string_equal(e.msg, "/x: No such file or directory");
}

/* Text too long is cut between characters, for every length of character and every place of the cut. */
static void test_cut(void **state) {
    (void)state;
    static const char *const chars[] = {"x", "é", "€", "😀"};
    for (size_t k = 0; k < 4; k++)
        for (size_t shift = 0; shift < 4; shift++) {
            struct err e;
            char text[1400] = "aaa";
            size_t n = shift;
            for (; n < 1300; n += strlen(chars[k]))
                memcpy(text + n, chars[k], strlen(chars[k]) + 1);
            err_set(&e, RC_INVALID, text, "%s", text);
            assert_true(utf8_valid(e.msg, strlen(e.msg)));
            assert_true(utf8_valid(e.param, strlen(e.param)));
            assert_true(strlen(e.msg) > sizeof e.msg - 5 && strlen(e.param) > sizeof e.param - 5);
            assert_memory_equal(e.msg, text, strlen(e.msg));
        }
}

static void test_names(void **state) {
    (void)state;
    for (int i = 0; i < N_RC; i++) {
        assert_non_null(rc_name((enum rc)i));
        for (int k = 0; k < i; k++)
            assert_string_not_equal(rc_name((enum rc)i), rc_name((enum rc)k));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_set), cmocka_unit_test(test_cut),
                                       cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
