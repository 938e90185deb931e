/* threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "common/blob.h"

static void test_contents(void **state) {
    (void)state;
    struct blob *b = blob_new("a\0b", 3);
    assert_true(str_eq(blob_str(b), STR_LIT("a\0b")));
    assert_int_equal(b->data[3], 0);
    blob_drop(blob_hold(b));
    assert_true(str_eq(blob_str(b), STR_LIT("a\0b")));
    blob_drop(b);
    b = blob_new(NULL, 0);
    assert_int_equal(blob_str(b).n, 0);
    blob_drop(b);
    blob_drop(NULL);
    assert_int_equal(blob_str(NULL).n, 0);
}

static void *hold_and_drop(void *arg) {
    struct blob *b = arg;
    for (int i = 0; i < 20000; i++) {
        struct blob *again = blob_hold(b);
        assert_int_equal(again->data[0], 'x');
        blob_drop(again);
    }
    blob_drop(b);
    return NULL;
}

/* The last of several threads frees it, exactly once: the sanitizers are the judges. */
static void test_threads(void **state) {
    (void)state;
    struct blob *b = blob_new_uninit(1);
    b->data[0] = 'x';
    pthread_t t[4];
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        blob_hold(b);
        pthread_create(&t[i], NULL, hold_and_drop, b);
    }
    blob_drop(b);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        pthread_join(t[i], NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_contents), cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
