/* The second look at a request's head. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "router/rawhead.h"

static enum rawhead_fault check(const char *text) {
    struct rawhead h;
    assert_true(rawhead_scan(text, strlen(text), &h));
    return rawhead_check(&h, 1000, 5);
}

static void test_faults(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum rawhead_fault want;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", RAWHEAD_OK},
        {"\r\nGET / HTTP/1.1\r\nHost: a.b:80\r\n\r\n", RAWHEAD_OK},
        {"GET / HTTP/1.1\nHost: [::1]:8\n\n", RAWHEAD_OK},
        {"GET / HTTP/1.1\r\nHost:\r\n\r\n", RAWHEAD_OK},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", RAWHEAD_HOST},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", RAWHEAD_HOST},
        {"GET / HTTP/1.1\r\nhost: a\r\nHOST: a\r\n\r\n", RAWHEAD_HOST},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", RAWHEAD_OK},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n", RAWHEAD_LENGTH_REPEATED},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\nX: y\r\nCONTENT-LENGTH : 2\r\n\r\n",
         RAWHEAD_LENGTH_REPEATED},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", RAWHEAD_LENGTH_AND_TE},
        {"GET / HTTP/1.1\r\nTransfer-Encoding: a\r\nTransfer-Encoding: chunked\r\n\r\n",
         RAWHEAD_LENGTH_AND_TE},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\n 2\r\n\r\n", RAWHEAD_FOLDED},
        {"GET / HTTP/1.1\r\nX: 1\r\n\t2\r\n\r\n", RAWHEAD_OK},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\nX: 1\r\n 2\r\n\r\n", RAWHEAD_OK},
        {"GET / HTTP/1.1\r\na:1\r\nb:1\r\nc:1\r\nd:1\r\ne:1\r\nf:1\r\n\r\n", RAWHEAD_TOO_MANY},
        {"GET / HTTP/1.1\r\nX-Content-Length: 1\r\nContent-Length: 2\r\n\r\nContent-Length: 3\r\n\r\n",
         RAWHEAD_OK},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum rawhead_fault got = check(cases[i].text);
        if (got != cases[i].want)
            print_error("%s\n", cases[i].text);
        assert_int_equal(got, cases[i].want);
    }
}

static void test_sizes(void **state) {
    (void)state;
    const char text[] = "GET / HTTP/1.1\r\nHost: abc \t\r\n\r\nbody";
    struct rawhead h;
    for (size_t n = 0; n < sizeof text - 1 - 4; n++)
        assert_false(rawhead_scan(text, n, &h));
    assert_true(rawhead_scan(text, sizeof text - 1, &h));
    assert_int_equal(h.bytes, sizeof text - 1 - 4);
    assert_int_equal(h.n_headers, 1);
    assert_true(str_eqz(h.host, "abc"));
    assert_int_equal(rawhead_check(&h, h.bytes, 1), RAWHEAD_OK);
    assert_int_equal(rawhead_check(&h, h.bytes - 1, 1), RAWHEAD_TOO_LARGE);
    assert_int_equal(rawhead_check(&h, h.bytes, 0), RAWHEAD_TOO_MANY);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_faults), cmocka_unit_test(test_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
