/* Templates of requests are kept within bounds, and live as long as they are held. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "router/tmpl/cache.h"

static struct tmpl_held hold(struct tmpl_cache *c, const char *text) {
    struct tmpl_held h = {0};
    struct err e = {0};
    if (tmpl_cache_hold(c, str_of(text), &h, &e))
        fail_msg("%s: %s", text, e.msg);
    return h;
}

/* renders: a held template says this. */
static void renders(const struct tmpl_held *h, const char *want) {
    struct tmpl_out out = {0};
    struct err e = {0};
    struct arena a;
    arena_init(&a);
    if (tmpl_render(h->t, NULL, 0, 1, &a, &out, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(buf_cstr(&out.text), want);
    tmpl_out_fini(&out);
    arena_fini(&a);
}

static void test_found_again(void **state UNUSED) {
    struct tmpl_cache *c = tmpl_cache_new(&tmpl_limits_default);
    struct tmpl_held a = hold(c, "A{{ 1 + 1 }}"), b = hold(c, "B"), again = hold(c, "A{{ 1 + 1 }}");
    assert_true(a.fresh && b.fresh && !again.fresh);
    assert_ptr_equal(a.t, again.t);
    assert_ptr_not_equal(a.t, b.t);
    tmpl_cache_drop(c, &a);
    renders(&again, "A2");
    tmpl_cache_drop(c, &again);
    tmpl_cache_drop(c, &again); /* of nothing: no harm */
    tmpl_cache_drop(c, &b);
    assert_int_equal(tmpl_cache_count(c), 2);
    tmpl_cache_free(c);
    tmpl_cache_free(NULL);
}

static void test_errors_are_not_kept(void **state UNUSED) {
    struct tmpl_limits limits = tmpl_limits_default;
    limits.template_bytes_max = 16;
    struct tmpl_cache *c = tmpl_cache_new(&limits);
    struct tmpl_held h = {0};
    struct err e = {0};
    assert_int_equal(tmpl_cache_hold(c, STR_LIT("{% for %}"), &h, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "(line 1)"));
    assert_int_equal(tmpl_cache_hold(c, STR_LIT("12345678901234567"), &h, &e), RC_INVALID);
    assert_non_null(strstr(e.msg, "limit of 16"));
    assert_null(h.t);
    assert_int_equal(tmpl_cache_count(c), 0);
    tmpl_cache_free(c);
}

/* The oldest goes first; what is held stays usable when it has gone. */
static void test_number_is_bounded(void **state UNUSED) {
    struct tmpl_cache *c = tmpl_cache_new(&tmpl_limits_default);
    struct tmpl_held first = hold(c, "first"), second = hold(c, "second");
    char text[32];
    for (int i = 0; i < TMPL_CACHE_MAX; i++) {
        struct tmpl_held again = hold(c, "second"); /* in use all along */
        tmpl_cache_drop(c, &again);
        snprintf(text, sizeof text, "number %d", i);
        struct tmpl_held h = hold(c, text);
        tmpl_cache_drop(c, &h);
        assert_true(tmpl_cache_count(c) <= TMPL_CACHE_MAX);
    }
    assert_int_equal(tmpl_cache_count(c), TMPL_CACHE_MAX);
    struct tmpl_held other = hold(c, "first"), same = hold(c, "second");
    assert_true(other.fresh && !same.fresh);
    renders(&first, "first");
    tmpl_cache_drop(c, &first);
    tmpl_cache_drop(c, &second);
    tmpl_cache_drop(c, &other);
    tmpl_cache_drop(c, &same);
    tmpl_cache_free(c);
}

/* long_template: as long as may be, of something that takes much more memory than text, and unique. */
static char *long_template(int i) {
    struct buf b = {0};
    buf_addf(&b, "{# %d #}", i);
    while (b.len + 6 <= tmpl_limits_default.template_bytes_max)
        buf_addz(&b, "{{x}}y");
    return buf_take(&b);
}

static void test_memory_is_bounded(void **state UNUSED) {
    struct tmpl_cache *c = tmpl_cache_new(&tmpl_limits_default);
    size_t n_bytes = 0, n = 0;
    for (int i = 0; i < 6; i++) {
        char *text = long_template(i);
        struct tmpl_held h = hold(c, text);
        size_t took = tmpl_bytes(h.t);
        assert_true(took > tmpl_limits_default.template_bytes_max && took < 256 * MIB);
        if (took <= TMPL_CACHE_BYTES_MAX / 4) {
            n_bytes += took;
            n++;
        }
        tmpl_cache_drop(c, &h);
        free(text);
    }
    assert_true(tmpl_cache_count(c) <= n);
    assert_true(n == 0 || tmpl_cache_count(c) * (n_bytes / n) <= TMPL_CACHE_BYTES_MAX);
    tmpl_cache_free(c);
}

enum { N_THREADS = 4, N_ROUNDS = 300 };

static void *churn(void *arg) {
    struct tmpl_cache *c = arg;
    char text[32];
    for (int i = 0; i < N_ROUNDS; i++) {
        struct tmpl_held h = {0};
        struct err e;
        snprintf(text, sizeof text, "t%d", i * 7 % (TMPL_CACHE_MAX + 20));
        CHECK(tmpl_cache_hold(c, str_of(text), &h, &e) == RC_OK && h.t);
        tmpl_cache_drop(c, &h);
    }
    return NULL;
}

static void test_threads(void **state UNUSED) {
    struct tmpl_cache *c = tmpl_cache_new(&tmpl_limits_default);
    pthread_t threads[N_THREADS];
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, c), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(tmpl_cache_count(c) <= TMPL_CACHE_MAX);
    tmpl_cache_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_again),       cmocka_unit_test(test_errors_are_not_kept),
        cmocka_unit_test(test_number_is_bounded), cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
