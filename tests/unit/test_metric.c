/* threads: tsan */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/metric.h"

static void test_exposition(void **state) {
    (void)state;
    struct metrics *r = metrics_new();
    static const char *const labels[] = {"model", "state"};
    static const double buckets[] = {0.001, 0.5, 1, 2.5};
    struct metric_family *c = metric_family(r, METRIC_COUNTER, "vllm:requests_total", "vllm:reqs_total",
                                            "Counts\nwith \\ and \"quotes\".", labels, 2, NULL, 0);
    struct metric_family *g =
        metric_family(r, METRIC_GAUGE, "weir_ready_seconds", NULL, "Seconds.", NULL, 0, NULL, 0);
    struct metric_family *h =
        metric_family(r, METRIC_HISTOGRAM, "lat_seconds", NULL, "Latency.", labels, 1, buckets, 4);
    struct metric_family *s = metric_family(r, METRIC_SUMMARY, "size_bytes", NULL, "Size.", NULL, 0, NULL, 0);
    metric_add(metric_at(c, (struct str[]){STR_LIT("a\"b\\c\nd"), STR_LIT("x\xFFy")}), 2);
    metric_add(metric_at(c, (struct str[]){STR_LIT("é"), STR_LIT("")}), 0.25);
    metric_add(metric_at(c, (struct str[]){STR_LIT("é"), STR_LIT("")}), 1e17);
    metric_set(metric_at(g, NULL), -INFINITY);
    struct metric *m = metric_at(h, (struct str[]){STR_LIT("m")});
    static const double seen[] = {0, 0.001, 0.0011, 1, 2.5, 2.6, 1e9};
    for (size_t i = 0; i < ARRAY_LEN(seen); i++)
        metric_observe(m, seen[i]);
    metric_observe(metric_at(s, NULL), 10);
    metric_observe(metric_at(s, NULL), 0.5);
    struct buf b = {0};
    metrics_write(r, &b);
    assert_string_equal(buf_cstr(&b),
                        "# HELP vllm:requests_total Counts\\nwith \\\\ and \"quotes\".\n"
                        "# TYPE vllm:requests_total counter\n"
                        "vllm:requests_total{model=\"a\\\"b\\\\c\\nd\",state=\"x\xEF\xBF\xBDy\"} 2\n"
                        "vllm:requests_total{model=\"é\",state=\"\"} 1e17\n"
                        "# HELP vllm:reqs_total Counts\\nwith \\\\ and \"quotes\".\n"
                        "# TYPE vllm:reqs_total counter\n"
                        "vllm:reqs_total{model=\"a\\\"b\\\\c\\nd\",state=\"x\xEF\xBF\xBDy\"} 2\n"
                        "vllm:reqs_total{model=\"é\",state=\"\"} 1e17\n"
                        "# HELP weir_ready_seconds Seconds.\n"
                        "# TYPE weir_ready_seconds gauge\n"
                        "weir_ready_seconds -Inf\n"
                        "# HELP lat_seconds Latency.\n"
                        "# TYPE lat_seconds histogram\n"
                        "lat_seconds_bucket{model=\"m\",le=\"0.001\"} 2\n"
                        "lat_seconds_bucket{model=\"m\",le=\"0.5\"} 3\n"
                        "lat_seconds_bucket{model=\"m\",le=\"1.0\"} 4\n"
                        "lat_seconds_bucket{model=\"m\",le=\"2.5\"} 5\n"
                        "lat_seconds_bucket{model=\"m\",le=\"+Inf\"} 7\n"
                        "lat_seconds_sum{model=\"m\"} 1000000006.1021\n"
                        "lat_seconds_count{model=\"m\"} 7\n"
                        "# HELP size_bytes Size.\n"
                        "# TYPE size_bytes summary\n"
                        "size_bytes_sum 10.5\n"
                        "size_bytes_count 2\n");
    buf_fini(&b);
    metrics_free(r);
    metrics_free(NULL);
}

static void test_set_counts(void **state) {
    (void)state;
    struct metrics *r = metrics_new();
    static const double buckets[] = {1, 8};
    struct metric_family *h = metric_family(r, METRIC_HISTOGRAM, "t", "u", "T.", NULL, 0, buckets, 2);
    metric_set_counts(metric_at(h, NULL), (uint64_t[]){5, 0, 2}, 3, 99.5);
    struct buf b = {0};
    metrics_write(r, &b);
    assert_non_null(strstr(
        buf_cstr(&b),
        "t_bucket{le=\"1.0\"} 5\nt_bucket{le=\"8.0\"} 5\nt_bucket{le=\"+Inf\"} 7\nt_sum 99.5\nt_count 7\n"));
    assert_non_null(strstr(buf_cstr(&b), "u_bucket{le=\"+Inf\"} 7\nu_sum 99.5\nu_count 7\n"));
    assert_true(metric_value(metric_at(h, NULL)) == 99.5);
    buf_fini(&b);
    metrics_free(r);
}

/* Clients cannot make series without end: from the 1001st label set on they share one. */
static void test_bound(void **state) {
    (void)state;
    struct metrics *r = metrics_new();
    static const char *const labels[] = {"who"};
    struct metric_family *c = metric_family(r, METRIC_COUNTER, "c_total", NULL, "C.", labels, 1, NULL, 0);
    char name[32];
    struct metric *first = NULL, *other = NULL;
    for (int i = 0; i < METRIC_SERIES_MAX + 500; i++) {
        snprintf(name, sizeof name, "w%d", i);
        struct metric *m = metric_at(c, (struct str[]){str_of(name)});
        metric_add(m, 1);
        if (i == 0)
            first = m;
        if (i == METRIC_SERIES_MAX)
            other = m;
        if (i > METRIC_SERIES_MAX)
            assert_ptr_equal(m, other);
    }
    assert_ptr_equal(metric_at(c, (struct str[]){STR_LIT("w0")}), first);
    assert_true(metric_value(other) == 500);
    struct buf b = {0};
    metrics_write(r, &b);
    assert_non_null(strstr(buf_cstr(&b), "c_total{who=\"other\"} 500\n"));
    /* A long value is cut at a character. */
    metrics_free(r);
    r = metrics_new();
    c = metric_family(r, METRIC_COUNTER, "c_total", NULL, "C.", labels, 1, NULL, 0);
    char *big = xmalloc(1 << 20);
    memset(big, 'x', 1 << 20);
    memcpy(big + 255, "é", 2);
    metric_add(metric_at(c, &(struct str){big, 1 << 20}), 1);
    b.len = 0;
    metrics_write(r, &b);
    assert_true(b.len < 400);
    assert_non_null(strstr(buf_cstr(&b), "xxx\"} 1\n"));
    free(big);
    buf_fini(&b);
    metrics_free(r);
}

struct shared {
    struct metrics *r;
    struct metric_family *counter, *histogram;
};
enum { N_THREADS = 4, N_EACH = 5000 };

static void *update(void *arg) {
    struct shared *s = arg;
    for (int i = 0; i < N_EACH; i++) {
        metric_add(metric_at(s->counter, (struct str[]){i % 2 ? STR_LIT("odd") : STR_LIT("even")}), 1);
        metric_observe(metric_at(s->histogram, NULL), i % 4);
    }
    return NULL;
}

/* Updates from several threads beside scrapes: nothing is lost, and each scrape's _count is its +Inf bucket.
 */
static void test_threads(void **state) {
    (void)state;
    static const char *const labels[] = {"kind"};
    static const double buckets[] = {0, 1, 2};
    struct shared s = {.r = metrics_new()};
    s.counter = metric_family(s.r, METRIC_COUNTER, "c_total", NULL, "C.", labels, 1, NULL, 0);
    s.histogram = metric_family(s.r, METRIC_HISTOGRAM, "h", NULL, "H.", NULL, 0, buckets, 3);
    pthread_t t[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++)
        pthread_create(&t[i], NULL, update, &s);
    struct buf b = {0};
    for (int i = 0; i < 20; i++) {
        unsigned long long inf, count;
        b.len = 0;
        metrics_write(s.r, &b);
        assert_int_equal(sscanf(strstr(buf_cstr(&b), "+Inf\"}"), "+Inf\"} %llu", &inf), 1);
        assert_int_equal(sscanf(strstr(buf_cstr(&b), "h_count"), "h_count %llu", &count), 1);
        assert_int_equal(inf, count);
    }
    for (size_t i = 0; i < N_THREADS; i++)
        pthread_join(t[i], NULL);
    assert_true(metric_value(metric_at(s.counter, (struct str[]){STR_LIT("odd")})) == N_THREADS * N_EACH / 2);
    b.len = 0;
    metrics_write(s.r, &b);
    assert_non_null(strstr(
        buf_cstr(&b), "h_bucket{le=\"0.0\"} 5000\nh_bucket{le=\"1.0\"} 10000\nh_bucket{le=\"2.0\"} 15000\n"));
    assert_non_null(strstr(buf_cstr(&b), "h_sum 30000\nh_count 20000\n"));
    buf_fini(&b);
    metrics_free(s.r);
}

static double read_series(const char *text, const char *name) {
    char line[100];
    double v = -1;
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(text, line);
    if (!at)
        fail_msg("no %s", name);
    assert_int_equal(sscanf(at + strlen(line), "%lf", &v), 1);
    return v;
}

static void test_process(void **state) {
    (void)state;
    struct buf b = {0};
    metrics_write_process(&b);
    const char *text = buf_cstr(&b);
    assert_true(read_series(text, "process_cpu_seconds_total") >= 0);
    assert_true(read_series(text, "process_resident_memory_bytes") > 100000);
    assert_true(read_series(text, "process_virtual_memory_bytes") >=
                read_series(text, "process_resident_memory_bytes"));
    assert_true(read_series(text, "process_start_time_seconds") > 1.6e9);
    double fds = read_series(text, "process_open_fds");
    assert_true(fds >= 3 && fds <= read_series(text, "process_max_fds"));
    FILE *f = fopen("/dev/null", "r");
    struct buf again = {0};
    metrics_write_process(&again);
    assert_true(read_series(buf_cstr(&again), "process_open_fds") == fds + 1);
    fclose(f);
    buf_fini(&b);
    buf_fini(&again);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exposition), cmocka_unit_test(test_set_counts), cmocka_unit_test(test_bound),
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
