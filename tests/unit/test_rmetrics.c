/* The router's series that are sums over workers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "router/metrics.h"

#include <stdio.h>
#include <string.h>

static void expect(struct rmetrics *m, const char *line) {
    struct buf b = {0};
    rmetrics_write(m, STR_LIT("model"), &b);
    buf_addc(&b, '\0');
    if (!strstr(b.data, line))
        fail_msg("no line %s", line);
    buf_fini(&b);
}

/* report: of a worker that has made n regex masks of 40 us, and one JSON mask of 20 s. */
static void report(struct rmetrics *m, struct mask_times *seen, uint64_t n) {
    Weir__Load l = WEIR__LOAD__INIT;
    uint64_t times[MASK_KINDS * MASK_BUCKETS] = {0}, ns[MASK_KINDS] = {0};
    times[0 * MASK_BUCKETS + 11] = 1;
    ns[0] = 20000000000;
    times[1 * MASK_BUCKETS + 1] = n;
    ns[1] = n * 40000;
    l.mask_times = times;
    l.n_mask_times = MASK_KINDS * MASK_BUCKETS;
    l.mask_ns = ns;
    l.n_mask_ns = MASK_KINDS;
    rmetrics_masks(m, seen, &l);
}

static void test_masks(void **state) {
    (void)state;
    struct rmetrics *m = rmetrics_new();
    struct mask_times a = {0}, b = {0};
    expect(m, "\nweir_grammar_mask_seconds_count{kind=\"regex\"} 0\n");
    report(m, &a, 5);
    report(m, &a, 5); /* nothing new */
    report(m, &a, 7);
    expect(m, "\nweir_grammar_mask_seconds_bucket{kind=\"regex\",le=\"0.0001\"} 7\n");
    expect(m, "\nweir_grammar_mask_seconds_count{kind=\"regex\"} 7\n");
    expect(m, "\nweir_grammar_mask_seconds_bucket{kind=\"json\",le=\"5.0\"} 0\n");
    expect(m, "\nweir_grammar_mask_seconds_sum{kind=\"json\"} 20\n");
    report(m, &b, 10); /* another worker */
    expect(m, "\nweir_grammar_mask_seconds_count{kind=\"regex\"} 17\n");
    report(m, &a, 3); /* the first one has started again */
    expect(m, "\nweir_grammar_mask_seconds_count{kind=\"regex\"} 20\n");
    expect(m, "\nweir_grammar_mask_seconds_count{kind=\"json\"} 2\n");
    Weir__Load old = WEIR__LOAD__INIT; /* a worker that does not know the fields */
    rmetrics_masks(m, &b, &old);
    expect(m, "\nweir_grammar_mask_seconds_count{kind=\"regex\"} 20\n");
    rmetrics_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks)};
    return cmocka_run_group_tests_name("rmetrics", tests, NULL, NULL);
}
