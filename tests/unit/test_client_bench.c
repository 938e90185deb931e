/* The load of weir bench: its plan is a function of the seed, its histogram is as exact as it says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "router/client/bench.h"

enum { N = 20000 };

static int cmp_u64(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void test_hist(void **state) {
    (void)state;
    struct hist *h = xcalloc(1, sizeof *h);
    uint64_t *v = xcalloc(N, sizeof *v);
    assert_int_equal(hist_quantile(h, 0.5), 0);
    for (int i = 0; i < N; i++) {
        v[i] = (uint64_t)exp((double)rand() / RAND_MAX * 43); /* 1 ns to 150 years */
        hist_add(h, v[i]);
    }
    qsort(v, N, sizeof *v, cmp_u64);
    for (int q = 0; q <= 1000; q++) {
        size_t rank = (size_t)ceil(q / 1000.0 * N);
        double want = (double)v[rank ? rank - 1 : 0], got = (double)hist_quantile(h, q / 1000.0);
        assert_true(fabs(got - want) <= want * 0.004);
    }
    hist_add(h, UINT64_MAX);
    assert_true(h->max == UINT64_MAX && h->n == N + 1);
    free(v);
    free(h);
}

static void test_plan(void **state) {
    (void)state;
    struct bench_opts o = {
        .shape = SHAPE_SHAREGPT, .n_prompts = N, .rate = 50, .n_total_max = 1500, .seed = 5};
    struct bench_item *a = xcalloc(N, sizeof *a), *b = xcalloc(N, sizeof *b);
    bench_plan(&o, a);
    bench_plan(&o, b);
    assert_memory_equal(a, b, N * sizeof *a);
    unsigned n_below_in = 0, n_below_out = 0;
    for (int i = 0; i < N; i++) {
        assert_in_range(a[i].n_input, BENCH_LENGTH_MIN, BENCH_LENGTH_MAX);
        assert_true(a[i].n_output >= BENCH_LENGTH_MIN && a[i].n_input + a[i].n_output <= 1500);
        assert_true(i == 0 ? a[i].due_ns == 0 : a[i].due_ns >= a[i - 1].due_ns);
        n_below_in += a[i].n_input < BENCH_INPUT_MEDIAN;
        n_below_out += a[i].n_output < BENCH_OUTPUT_MEDIAN;
    }
    assert_true(fabs(n_below_in / (double)N - 0.5) < 0.02 && fabs(n_below_out / (double)N - 0.5) < 0.02);
    assert_true(fabs((double)a[N - 1].due_ns / 1e9 - N / 50.0) < N / 50.0 * 0.04); /* over 5 sigma */
    o.seed = 6;
    bench_plan(&o, b);
    assert_memory_not_equal(a, b, N * sizeof *a);
    free(a);
    free(b);
}

/* prompt_of: of the request's body; the caller frees it. */
static char *prompt_of(const struct bench_opts *o, const struct bench_fit *fit,
                       const struct bench_item *item) {
    struct buf body = {0};
    json_t *root = NULL;
    struct err e;
    bench_body(o, fit, item, &body);
    assert_int_equal(json_parse(buf_str(&body), NULL, &root, &e), RC_OK);
    assert_int_equal(json_integer_value(json_object_get(root, "max_tokens")), item->n_output);
    char *prompt = xstrdup(json_string_value(json_object_get(root, "prompt")));
    json_decref(root);
    buf_fini(&body);
    return prompt;
}

static size_t n_words(const char *text) {
    size_t n = 1;
    for (; *text; text++)
        n += *text == ' ';
    return n;
}

static void test_prefix(void **state) {
    (void)state;
    struct bench_opts o = {.model = "m",
                           .shape = SHAPE_PREFIX,
                           .n_prompts = 5,
                           .n_input = 40,
                           .n_output = 9,
                           .n_prefix = 110,
                           .n_prefixes = 2,
                           .temperature = NAN};
    struct bench_fit fit = {.base = 10, .per_word = 2, .known = true};
    struct bench_item items[5];
    char *prompts[5];
    bench_plan(&o, items);
    for (int i = 0; i < 5; i++) {
        prompts[i] = prompt_of(&o, &fit, &items[i]);
        assert_int_equal(n_words(prompts[i]),
                         70); /* (110 + 40 - 10) / 2, of which (110 - 10) / 2 are shared */
    }
    for (int i = 2; i < 5; i++) {
        size_t same = 0, words = 0;
        for (; prompts[i][same] == prompts[i % 2][same]; same++)
            words += prompts[i][same] == ' ';
        assert_in_range(words, 50, 53); /* the first words behind the prefix may be the same by chance */
    }
    assert_true(strcmp(prompts[0], prompts[1]) != 0);
    for (int i = 0; i < 5; i++)
        free(prompts[i]);
}

int main(void) {
    srand(1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hist), cmocka_unit_test(test_plan),
                                       cmocka_unit_test(test_prefix)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
