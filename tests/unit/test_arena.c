#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/arena.h"

static void test_alloc(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a);
    unsigned char *p[2000];
    size_t sizes[2000], sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(p); i++) {
        sizes[i] = i % 100 == 99 ? 100000 + i : i % 37;
        p[i] = arena_alloc(&a, sizes[i]);
        assert_true((uintptr_t)p[i] % 16 == 0);
        memset(p[i], (int)i, sizes[i]);
        sum += sizes[i];
    }
    /* No two overlap: each still holds what was written. */
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        for (size_t k = 0; k < sizes[i]; k += 61)
            assert_int_equal(p[i][k], (unsigned char)i);
    assert_true(a.used_bytes >= sum && a.used_bytes <= sum + ARRAY_LEN(p) * 16);
    arena_fini(&a);
    assert_int_equal(a.used_bytes, 0);
    char *s = arena_strndup(&a, "abcdef", 3); /* usable again */
    assert_string_equal(s, "abc");
    assert_string_equal(arena_strndup(&a, NULL, 0), "");
    const char *z = arena_zalloc(&a, 100, 7);
    for (size_t i = 0; i < 700; i++)
        assert_int_equal(z[i], 0);
    void *big = arena_alloc(&a, 5 * MIB); /* above the largest chunk */
    memset(big, 1, 5 * MIB);
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_alloc)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
