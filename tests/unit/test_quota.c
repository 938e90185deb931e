/* Requests and tokens a minute of a key, and the lines of the key file that say them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/clock.h"
#include "router/keyfile.h"

static const uint64_t start = 5 * NS_PER_S;

static void test_requests(void **state) {
    (void)state;
    struct quota *q = quota_new((struct quota_limits){.requests = 60}, start);
    unsigned wait = 0;
    for (int i = 0; i < 60; i++)
        assert_int_equal(quota_request(q, start, &wait), QUOTA_OK);
    assert_int_equal(quota_request(q, start, &wait), QUOTA_REQUESTS);
    assert_int_equal(wait, 1);
    /* One comes back each second, whatever was asked meanwhile; tokens are not counted. */
    assert_int_equal(quota_request(q, start + NS_PER_S / 2, &wait), QUOTA_REQUESTS);
    assert_int_equal(quota_request(q, start + NS_PER_S, &wait), QUOTA_OK);
    assert_int_equal(quota_request(q, start + NS_PER_S, &wait), QUOTA_REQUESTS);
    assert_int_equal(quota_prompt(q, start, UINT64_MAX, &wait), QUOTA_OK);
    /* No more than a minute's worth is kept; and a clock that another thread has read earlier takes nothing.
     */
    for (int i = 0; i < 60; i++)
        assert_int_equal(quota_request(q, start + 3600 * NS_PER_S, &wait), QUOTA_OK);
    assert_int_equal(quota_request(q, start, &wait), QUOTA_REQUESTS);
    quota_drop(q);
}

static void test_tokens(void **state) {
    (void)state;
    struct quota *q = quota_new((struct quota_limits){.tokens = 6000}, start);
    unsigned wait = 0;
    assert_int_equal(quota_request(q, start, &wait), QUOTA_OK);
    assert_int_equal(quota_prompt(q, start, 5000, &wait), QUOTA_OK);
    assert_int_equal(quota_prompt(q, start, 1500, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 5); /* 500 are lacking, 100 come a second */
    assert_int_equal(quota_request(q, start, &wait), QUOTA_OK);
    /* What is said is taken in any case, and owed. */
    quota_output(q, start, 1500);
    assert_int_equal(quota_request(q, start, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 6); /* 501 */
    assert_int_equal(quota_request(q, start + 5 * NS_PER_S, &wait), QUOTA_TOKENS);
    assert_int_equal(quota_request(q, start + 6 * NS_PER_S, &wait), QUOTA_OK);
    quota_output(q, start + 6 * NS_PER_S, 1000000);
    assert_int_equal(quota_request(q, start + 6 * NS_PER_S, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 60); /* no longer, whatever is owed */
    quota_drop(q);
    /* More than a minute's worth in one request: once the bucket is full. */
    q = quota_new((struct quota_limits){.tokens = 6000}, start);
    assert_int_equal(quota_prompt(q, start, 9000, &wait), QUOTA_OK);
    assert_int_equal(quota_prompt(q, start + 30 * NS_PER_S, 9000, &wait), QUOTA_TOKENS);
    assert_int_equal(wait, 60);
    assert_int_equal(quota_prompt(q, start + 90 * NS_PER_S, 9000, &wait), QUOTA_OK);
    quota_drop(q);
}

/* Asked as often as can be for an hour, with what each turns out to say, it gives its limit. */
static void test_average(void **state) {
    (void)state;
    struct quota *q = quota_new((struct quota_limits){.requests = 100, .tokens = 10000}, start);
    uint64_t n = 0, n_tokens = 0;
    unsigned wait = 0;
    for (uint64_t t = 0; t < 3600 * 10; t++) {
        uint64_t now = start + t * (NS_PER_S / 10), prompt = 50 + t % 100;
        if (quota_request(q, now, &wait) != QUOTA_OK)
            continue;
        n++;
        if (quota_prompt(q, now, prompt, &wait) != QUOTA_OK)
            continue;
        quota_output(q, now, 2 * prompt);
        n_tokens += 3 * prompt;
    }
    assert_true(n <= 61 * 100);
    assert_true(n_tokens >= 60 * 10000 && n_tokens <= 61 * 10000 + 450);
    quota_drop(q);
    q = quota_new((struct quota_limits){.requests = 100}, start);
    n = 0;
    for (uint64_t t = 0; t < 3600 * 10; t++)
        n += quota_request(q, start + t * (NS_PER_S / 10), &wait) == QUOTA_OK;
    assert_true(n >= 61 * 100 - 2 && n <= 61 * 100);
    quota_drop(q);
}

static void test_change(void **state) {
    (void)state;
    struct quota *q = quota_new((struct quota_limits){.requests = 100}, start), *again = quota_hold(q);
    unsigned wait = 0;
    quota_change(q, (struct quota_limits){.requests = 10, .tokens = 50}, start);
    assert_true(quota_read(q).requests == 10 && quota_read(q).tokens == 50);
    for (int i = 0; i < 10; i++)
        assert_int_equal(quota_request(q, start, &wait), QUOTA_OK);
    assert_int_equal(quota_request(q, start, &wait), QUOTA_REQUESTS);
    assert_int_equal(wait, 6);
    /* More from now on, but not for what is past. */
    quota_change(q, (struct quota_limits){.requests = 600}, start);
    assert_int_equal(quota_request(q, start, &wait), QUOTA_REQUESTS);
    assert_int_equal(quota_request(q, start + NS_PER_S / 10, &wait), QUOTA_OK);
    quota_change(q, (struct quota_limits){0, 0}, start);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(quota_request(q, start, &wait), QUOTA_OK);
    quota_drop(q);
    quota_drop(again);
    quota_drop(NULL);
}

static void test_lines(void **state) {
    (void)state;
    struct quota_limits l;
    struct str key;
    struct err e;
    static const struct {
        const char *line, *key;
        uint32_t requests, tokens;
    } good[] = {
        {"", "", 0, 0},
        {" \t\r", "", 0, 0},
        {"# sk-one rpm=x", "", 0, 0},
        {" #", "", 0, 0},
        {"sk-one", "sk-one", 0, 0},
        {"  sk-one \r", "sk-one", 0, 0},
        {"sk-one rpm=60", "sk-one", 60, 0},
        {"sk-one\ttpm=1  rpm=1000000000\r", "sk-one", 1000000000, 1},
        {"rpm=5", "rpm=5", 0, 0}, /* a key may look like that */
        {"rpm=5 rpm=07", "rpm=5", 7, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(keyfile_line(str_of(good[i].line), &key, &l, &e), RC_OK);
        assert_true(str_eqz(key, good[i].key) && l.requests == good[i].requests &&
                    l.tokens == good[i].tokens);
    }
    static const char *const bad[] = {
        "sk-one two",
        "sk-one rpm",
        "sk-one rpm=",
        "sk-one rpm=0",
        "sk-one rpm=1000000001",
        "sk-one rpm=-1",
        "sk-one rpm=1x",
        "sk-one rpm=1.5",
        "sk-one RPM=1",
        "sk-one rpm=1 rpm=2",
        "sk-one tpm=1 tpm=1",
        "sk-one rpm=1,tpm=2",
        "sk-\x01",
        "sk-\xc3\xa9",
        "sk-one rpm=99999999999999999999",
        "sk-one # not this",
        "sk-one rpm = 1",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(keyfile_line(str_of(bad[i]), &key, &l, &e), RC_INVALID);
        assert_null(strstr(e.msg, "sk-"));
    }
    char longest[KEYFILE_KEY_BYTES_MAX + 2];
    memset(longest, 'k', sizeof longest);
    assert_int_equal(keyfile_line((struct str){longest, KEYFILE_KEY_BYTES_MAX}, &key, &l, &e), RC_OK);
    assert_int_equal(keyfile_line((struct str){longest, KEYFILE_KEY_BYTES_MAX + 1}, &key, &l, &e),
                     RC_INVALID);
    assert_int_equal(keyfile_line((struct str){"sk\0one", 6}, &key, &l, &e), RC_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_tokens), cmocka_unit_test(test_average),
        cmocka_unit_test(test_change),   cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
