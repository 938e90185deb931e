/* The GPUs of workers beside each other (router/launch_gpus.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "router/launch_gpus.h"

static void expect(const char *all, unsigned i, unsigned n_ranks, const char *want) {
    struct buf b = {0};
    struct err e;
    enum rc rc = launch_gpus(&b, all, i, n_ranks, &e);
    assert_int_equal(rc, want ? RC_OK : RC_INVALID);
    assert_string_equal(buf_cstr(&b), want ? want : "");
    buf_fini(&b);
}

static void test_parts(void **state) {
    (void)state;
    expect(NULL, 0, 1, "0");
    expect(NULL, 3, 2, "6,7");
    expect("4", 0, 1, "4");
    expect("4,1,GPU-7e,MIG-2", 0, 2, "4,1");
    expect("4,1,GPU-7e,MIG-2", 1, 2, "GPU-7e,MIG-2");
    expect("4,1,GPU-7e,MIG-2", 2, 2, NULL);
    expect("4,1,2", 1, 2, NULL);
    expect("4,,2", 1, 1, NULL); /* CUDA sees nothing behind an empty entry */
    expect("", 0, 1, NULL);
    expect(",", 0, 1, NULL);
}

static void test_environ(void **state) {
    (void)state;
    char home[] = "HOME=/x", old[] = "CUDA_VISIBLE_DEVICES=0,1", like[] = "CUDA_VISIBLE_DEVICES_X=7";
    char *env[] = {home, old, like, NULL};
    struct buf line = {0};
    char **got = launch_environ(env, &line, STR_LIT("1"));
    assert_ptr_equal(got[0], home);
    assert_ptr_equal(got[1], like);
    assert_string_equal(got[2], "CUDA_VISIBLE_DEVICES=1");
    assert_null(got[3]);
    free(got);
    buf_fini(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts), cmocka_unit_test(test_environ)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
