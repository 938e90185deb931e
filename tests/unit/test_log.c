#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"

static char out[8192];
static int saved_fd, pipe_fds[2];

/* Standard error goes into a pipe while a line is logged. */
static void begin(void) {
    assert_int_equal(pipe(pipe_fds), 0);
    saved_fd = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
}
static const char *end(void) {
    dup2(saved_fd, STDERR_FILENO);
    close(saved_fd);
    close(pipe_fds[1]);
    size_t n = 0;
    for (ssize_t k; (k = read(pipe_fds[0], out + n, sizeof out - 1 - n)) > 0;)
        n += (size_t)k;
    out[n] = 0;
    close(pipe_fds[0]);
    return out;
}

static void test_line(void **state) {
    (void)state;
    struct id128 id = {{0xAB, 1}};
    log_set_name("router");
    begin();
    LOG(LOG_INFO, "worker ready", F_STR("model", "tiny"), F_STR("path", "a b"), F_I64("i", -5),
        F_U64("u", UINT64_MAX), F_F64("s", 0.25), F_ID("id", id), F_STR("none", NULL));
    LOG(LOG_DEBUG, "not shown");
    LOG(LOG_ERROR, "bare");
    const char *text = end();
    int y, mo, d, h, mi, ms, at = 0;
    assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%*2d.%3dZ %n", &y, &mo, &d, &h, &mi, &ms, &at), 6);
    assert_true(y > 2020 && at > 0);
    const char *first = text + at, *nl = strchr(text, '\n');
    static const char want[] =
        "info  router worker ready model=tiny path=\"a b\" i=-5 u=18446744073709551615 s=0.25 "
        "id=ab010000000000000000000000000000 none=\"\"";
    assert_non_null(nl);
    assert_int_equal(nl - first, strlen(want));
    assert_memory_equal(first, want, strlen(want));
    assert_null(strstr(text, "not shown"));
    assert_non_null(strstr(nl, "error router bare\n"));
}

/* A client's bytes cannot start a line of their own, nor end their quotes, nor send codes to a terminal. */
static void test_forging(void **state) {
    (void)state;
    begin();
    LOG(LOG_WARN, "m", F_STR("v", "x\n2026-01-01T00:00:00.000Z info forged \"\\\x1B[31m\x7F\xFF"),
        F_STR("w", "a=b"));
    const char *text = end();
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_non_null(strstr(
        text, "v=\"x\\x0a2026-01-01T00:00:00.000Z info forged \\\"\\\\\\x1b[31m\\x7f\\xff\" w=\"a=b\"\n"));
}

static void test_long(void **state) {
    (void)state;
    char big[6000];
    memset(big, 'y', sizeof big);
    begin();
    LOG(LOG_WARN, "m", F_BYTES("v", big, sizeof big), F_BYTES("w", big, sizeof big),
        F_BYTES("x", big, sizeof big), F_BYTES("y", big, sizeof big), F_BYTES("z", big, sizeof big));
    const char *text = end();
    assert_true(strlen(text) <= 2048);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_non_null(strstr(text, "yyy\"... w="));
}

static void test_levels(void **state) {
    (void)state;
    enum log_level l;
    assert_true(log_parse_level("warn", &l) && l == LOG_WARN);
    assert_true(log_parse_level("warning", &l) && l == LOG_WARN);
    assert_true(log_parse_level("debug", &l) && l == LOG_DEBUG);
    assert_false(log_parse_level("loud", &l));
    log_set_level(LOG_ERROR);
    assert_false(log_on(LOG_WARN));
    assert_true(log_on(LOG_ERROR));
    log_set_level(LOG_INFO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_line), cmocka_unit_test(test_forging),
                                       cmocka_unit_test(test_long), cmocka_unit_test(test_levels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
