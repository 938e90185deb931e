/* The router's series: all of the specification's from the first scrape, and those that are sums over workers. */
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

/* Every series of api.md 20.2 and 20.3, both spellings of what has two, with its type; nothing has happened yet. */
static void test_names(void **state) {
    static const struct {
        const char *type, *names;
    } families[] = {
        {"gauge", "vllm:num_requests_running vllm:num_requests_waiting vllm:kv_cache_usage_perc "
                  "vllm:gpu_cache_usage_perc vllm:lora_requests_info weir_workers weir_queue_depth weir_kv_leases "
                  "weir_build_info weir_ready_seconds"},
        {"counter",
         "vllm:prefix_cache_queries_total vllm:prefix_cache_hits_total vllm:gpu_prefix_cache_queries_total "
         "vllm:gpu_prefix_cache_hits_total vllm:num_preemptions_total vllm:prompt_tokens_total "
         "vllm:generation_tokens_total vllm:prompt_tokens_cached_total vllm:request_success_total "
         "vllm:nixl_num_failed_transfers_total vllm:nixl_num_kv_expired_reqs_total weir_rejected_total "
         "weir_route_decisions_total weir_prefix_predicted_tokens_total weir_prefix_actual_tokens_total "
         "weir_retries_total weir_failovers_total weir_remote_prefills_total weir_client_disconnects_total "
         "weir_slow_client_aborts_total "
         "weir_kv_transfer_fallbacks_total"},
        {"histogram",
         "vllm:request_prompt_tokens vllm:request_generation_tokens vllm:request_max_num_generation_tokens "
         "vllm:request_params_max_tokens vllm:request_params_n vllm:iteration_tokens_total "
         "vllm:time_to_first_token_seconds vllm:inter_token_latency_seconds vllm:time_per_output_token_seconds "
         "vllm:request_time_per_output_token_seconds vllm:e2e_request_latency_seconds "
         "vllm:request_queue_time_seconds vllm:request_inference_time_seconds vllm:request_prefill_time_seconds "
         "vllm:request_decode_time_seconds vllm:nixl_xfer_time_seconds vllm:nixl_bytes_transferred "
         "weir_queue_wait_seconds weir_grammar_compile_seconds weir_grammar_mask_seconds weir_template_seconds "
         "weir_tokenize_seconds"},
    };
    (void)state;
    struct rmetrics *m = rmetrics_new();
    struct buf b = {0};
    rmetrics_policy(m, POLICY_LEAST_LOAD);
    rmetrics_write(m, STR_LIT("model"), &b);
    buf_addc(&b, '\0');
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        for (const char *p = families[i].names; *p;) {
            size_t n = strcspn(p, " ");
            char type[100], series[100];
            snprintf(type, sizeof type, "\n# TYPE %.*s %s\n", (int)n, p, families[i].type);
            snprintf(series, sizeof series, "\n%.*s%s", (int)n, p, i == 2 ? "_count" : "");
            const char *at = strstr(b.data, type);
            if (!at || !(at = strstr(at + strlen(type) - 1, series)) || !strchr("{ ", at[strlen(series)]))
                fail_msg("no series of the %s %.*s", families[i].type, (int)n, p);
            p += n + (p[n] == ' ');
        }
    }
    buf_fini(&b);
    rmetrics_free(m);
}

static void test_refusals(void **state) {
    (void)state;
    struct rmetrics *m = rmetrics_new();
    expect(m, "\nweir_rejected_total{reason=\"queue_full\",status=\"429\"} 0\n");
    rmetrics_reject(m, REJECT_QUEUE_FULL, 429);
    rmetrics_reject(m, REJECT_QUEUE_FULL, 503);
    rmetrics_reject(m, REJECT_QUEUE_FULL, 503);
    rmetrics_reject(m, REJECT_LIMIT, 431);
    rmetrics_retry(m, true);
    rmetrics_failover(m, false);
    expect(m, "\nweir_rejected_total{reason=\"queue_full\",status=\"429\"} 1\n");
    expect(m, "\nweir_rejected_total{reason=\"queue_full\",status=\"503\"} 2\n");
    expect(m, "\nweir_rejected_total{reason=\"limit\",status=\"other\"} 1\n");
    expect(m, "\nweir_retries_total{outcome=\"ok\"} 1\n");
    expect(m, "\nweir_failovers_total{outcome=\"failed\"} 1\n");
    rmetrics_policy(m, POLICY_ROUND_ROBIN);
    rmetrics_decision(m, POLICY_ROUND_ROBIN, ROUTED_TURN);
    expect(m, "\nweir_route_decisions_total{policy=\"round-robin\",reason=\"turn\"} 1\n");
    rmetrics_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_masks), cmocka_unit_test(test_names),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests_name("rmetrics", tests, NULL, NULL);
}
