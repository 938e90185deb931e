/* weir-worker --selftest, over the emulated device and over the CPU. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/device.h"
#include "worker/selftest.h"

/* In place of the worker's: the emulated device is linked, not loaded. */
enum rc device_ops(const char *device, const struct be_ops **out, struct err *e) {
    (void)e;
    *out = strcmp(device, "cuda") ? &cpu_ops : be_plugin_ops(BE_ABI);
    return RC_OK;
}

static void passes(const char *device, enum dtype t) {
    struct err e = {0};
    int n_failed = -1;
    assert_int_equal(selftest(device, t, stdout, &n_failed, &e), RC_OK);
    assert_int_equal(n_failed, 0);
}

static void every_operation_keeps_its_bound(void **state) {
    (void)state;
    passes("cpu", DT_NONE);
    passes("cuda", DT_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_operation_keeps_its_bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
