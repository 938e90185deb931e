#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "common/buf.h"

static void test_add(void **state) {
    (void)state;
    struct buf b = {0};
    buf_add(&b, NULL, 0);
    assert_null(b.data);
    assert_string_equal(buf_cstr(&b), "");
    buf_addz(&b, "ab");
    buf_addc(&b, 'c');
    buf_add(&b, "d\0e", 3);
    buf_addu64(&b, 0);
    buf_addu64(&b, UINT64_MAX);
    buf_add_str(&b, STR_LIT("!"));
    assert_true(str_eq(buf_str(&b), STR_LIT("abcd\0e018446744073709551615!")));
    buf_drop(&b, 6);
    buf_drop(&b, 0);
    assert_string_equal(buf_cstr(&b), "018446744073709551615!");
    buf_drop(&b, b.len);
    assert_int_equal(b.len, 0);
    buf_fini(&b);
    assert_null(b.data);
}

/* Formatted text of every length around the room that is there. */
static void test_format(void **state) {
    (void)state;
    for (int n = 0; n < 300; n++) {
        struct buf b = {0};
        buf_addf(&b, "%0*d|", n, 7);
        buf_addf(&b, "%s", "");
        assert_int_equal(b.len, (n < 1 ? 1 : n) + 1);
        assert_int_equal(b.data[b.len - 1], '|');
        assert_int_equal(b.data[b.len - 2], '7');
        buf_fini(&b);
    }
}

static void test_take(void **state) {
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 1000; i++)
        buf_addf(&b, "%d,", i);
    size_t n = b.len;
    char *p = buf_take(&b);
    assert_int_equal(strlen(p), n);
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    free(p);
    p = buf_take(&b);
    assert_string_equal(p, "");
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_add), cmocka_unit_test(test_format),
                                       cmocka_unit_test(test_take)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
