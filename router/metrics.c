#include "router/metrics.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/version.h"

/* Bucket bounds of api.md 20.2. */
static const double buckets_a[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                   1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double buckets_b[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                   .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double buckets_c[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                   30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double buckets_tokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                        2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
static const double buckets_n[] = {1, 2, 5, 10, 20};
static const double buckets_iteration[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
static const double buckets_bytes[] = {1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20,       1 << 22,
                                       1 << 24, 1 << 26, 1 << 28, 1 << 30, 4294967296.0};
static const double buckets_fine[] = {.00001, .0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5};

struct spec {
    const char *name, *alias, *help;
    const double *buckets;
    size_t n_buckets;
};
#define HIST(name, alias, help, b)                                                                           \
    { name, alias, help, b, ARRAY_LEN(b) }

static const struct spec hist_spec[N_EH] = {
    [EH_TTFT] = HIST("vllm:time_to_first_token_seconds", NULL, "Acceptance to first token.", buckets_a),
    [EH_INTER_TOKEN] = HIST("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds",
                            "Time between two tokens of a sequence.", buckets_b),
    [EH_PER_TOKEN] = HIST("vllm:request_time_per_output_token_seconds", NULL,
                          "Mean time of a request's tokens after the first.", buckets_b),
    [EH_E2E] = HIST("vllm:e2e_request_latency_seconds", NULL, "Acceptance to last token.", buckets_c),
    [EH_QUEUE] = HIST("vllm:request_queue_time_seconds", NULL, "Waiting, in router and worker.", buckets_c),
    [EH_INFERENCE] = HIST("vllm:request_inference_time_seconds", NULL, "Prefill and decode.", buckets_c),
    [EH_PREFILL] =
        HIST("vllm:request_prefill_time_seconds", NULL, "First scheduled to first token.", buckets_c),
    [EH_DECODE] = HIST("vllm:request_decode_time_seconds", NULL, "First token to last.", buckets_c),
    [EH_PROMPT_TOKENS] =
        HIST("vllm:request_prompt_tokens", NULL, "Prompt tokens of a request.", buckets_tokens),
    [EH_GENERATION_TOKENS] =
        HIST("vllm:request_generation_tokens", NULL, "Tokens generated for a request.", buckets_tokens),
    [EH_MAX_GENERATION_TOKENS] = HIST("vllm:request_max_num_generation_tokens", NULL,
                                      "Tokens of a request's longest choice.", buckets_tokens),
    [EH_PARAM_MAX_TOKENS] =
        HIST("vllm:request_params_max_tokens", NULL, "Token limit of a request.", buckets_tokens),
    [EH_PARAM_N] = HIST("vllm:request_params_n", NULL, "Choices of each prompt.", buckets_n),
};

static const struct {
    const char *name, *alias, *help;
    enum metric_type type;
} stat_spec[N_ES] = {
    [ES_RUNNING] = {"vllm:num_requests_running", NULL, "Sequences in the running batch.", METRIC_GAUGE},
    [ES_WAITING] = {"vllm:num_requests_waiting", NULL, "Sequences waiting in the worker.", METRIC_GAUGE},
    [ES_KV_USAGE] = {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc",
                     "Share of KV blocks in use, 0 to 1.", METRIC_GAUGE},
    [ES_PREFIX_QUERIES] = {"vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total",
                           "Prompt tokens looked up in the prefix cache.", METRIC_COUNTER},
    [ES_PREFIX_HITS] = {"vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total",
                        "Prompt tokens found there.", METRIC_COUNTER},
    [ES_PREEMPTIONS] = {"vllm:num_preemptions_total", NULL, "Sequences preempted.", METRIC_COUNTER},
    [ES_PROMPT_TOKENS] = {"vllm:prompt_tokens_total", NULL, "Prompt tokens processed.", METRIC_COUNTER},
    [ES_GENERATED_TOKENS] = {"vllm:generation_tokens_total", NULL, "Tokens generated.", METRIC_COUNTER},
    [ES_CACHED_TOKENS] = {"vllm:prompt_tokens_cached_total", NULL, "Prompt tokens served from the cache.",
                          METRIC_COUNTER},
};

enum { N_METHOD = 4, N_STATUS = 5, N_REJECT_STATUS = 4 };
static const char *const method_names[N_METHOD] = {"GET", "POST", "OPTIONS", "other"};
static const char *const status_names[N_STATUS] = {"2xx", "3xx", "4xx", "5xx", "other"};
struct http_series {
    _Atomic(struct metric *) requests, seconds, bytes_in, bytes_out;
};

struct rmetrics {
    struct metrics *reg;
    struct metric_family *hist[N_EH], *stat[N_ES], *success, *iteration, *cache_config;
    struct metric_family *http_requests, *http_seconds, *http_in, *http_out;
    struct metric_family *workers, *queue_depth, *queue_tokens, *queue_tenants, *queue_wait, *rejected, *decisions,
        *ready_seconds;
    _Atomic(struct metric *) reject[N_REJECT][N_REJECT_STATUS]; /* those beyond one a reason on first use */
    struct metric *spans[N_SPAN_END], *retry[2], *failover[2], *remote[2]; /* [1]: it went well */
    struct metric *plain[N_PM], *masks[MASK_KINDS], *index_blocks, *index_evicted;
    struct metric *kv_times, *kv_sizes, *kv_failed, *kv_expired, *kv_leases, *kv_fallbacks[KV_FALLBACKS];
    struct metric_family *computed;
    struct metric_family *prefix_predicted, *prefix_actual, *prefix_drift;
    struct metric *decision[N_POLICY][N_ROUTED]; /* of the policy in force; set once, before any request */
    struct http_series *http; /* [n_routes + 1][N_METHOD][N_STATUS], filled on first use */
};

static const char *const engine_labels[] = {"model_name", "engine"};

static struct metric_family *labelled(struct rmetrics *m, enum metric_type type, const char *name,
                                      const char *alias, const char *help, const char *const *labels,
                                      size_t n) {
    return metric_family(m->reg, type, name, alias, help, labels, n, NULL, 0);
}

static struct metric *plain(struct rmetrics *m, enum metric_type type, const char *name, const char *help) {
    bool hist = type == METRIC_HISTOGRAM;
    struct metric_family *f = metric_family(m->reg, type, name, NULL, help, NULL, 0,
                                            hist ? buckets_fine : NULL, hist ? ARRAY_LEN(buckets_fine) : 0);
    return metric_at(f, NULL);
}

/* reserved: series of the specification that nothing in this build can move; they exist with their zeros. And
 * those of grammars. */
static void reserved(struct rmetrics *m) {
    static const char *const lora[] = {"model_name", "engine", "max_lora", "running_lora_adapters",
                                       "waiting_lora_adapters"};
    static const char *const kind[] = {"kind"};
    static const char *const grammars[] = {"json", "regex", "grammar", "choice", "structural_tag"};
    struct str none[5] = {STR_LIT(""), STR_LIT("0"), STR_LIT("0"), STR_LIT(""), STR_LIT("")};
    metric_at(labelled(m, METRIC_GAUGE, "vllm:lora_requests_info", NULL,
                       "LoRA adapters: none in this version.", lora, 5),
              none);
    struct metric_family *compile =
        metric_family(m->reg, METRIC_HISTOGRAM, "weir_grammar_compile_seconds", NULL,
                      "Time to compile a grammar.", kind, 1, buckets_fine, ARRAY_LEN(buckets_fine));
    struct metric_family *mask =
        metric_family(m->reg, METRIC_HISTOGRAM, "weir_grammar_mask_seconds", NULL,
                      "Time to compute a token mask.", kind, 1, buckets_fine, ARRAY_LEN(buckets_fine));
    for (size_t i = 0; i < ARRAY_LEN(grammars); i++) {
        struct str v = str_of(grammars[i]);
        m->plain[PM_COMPILE_JSON + i] = metric_at(compile, &v);
        m->masks[i] = metric_at(mask, &v);
    }
}

static void register_kv(struct rmetrics *m) {
    static const char *const reason[] = {"reason"};
    static const char *const reasons[KV_FALLBACKS] = {"params", "busy", "refused", "mismatch", "network", "protocol"};
    m->kv_times = plain(m, METRIC_HISTOGRAM, "vllm:nixl_xfer_time_seconds", "Time of KV transfers.");
    m->kv_sizes = metric_at(metric_family(m->reg, METRIC_HISTOGRAM, "vllm:nixl_bytes_transferred", NULL,
                                          "Bytes of KV transfers.", NULL, 0, buckets_bytes, ARRAY_LEN(buckets_bytes)),
                            NULL);
    m->kv_failed =
        plain(m, METRIC_COUNTER, "vllm:nixl_num_failed_transfers_total", "KV transfers that failed.");
    m->kv_expired = plain(m, METRIC_COUNTER, "vllm:nixl_num_kv_expired_reqs_total", "KV leases that ran out.");
    struct metric_family *fallbacks = labelled(m, METRIC_COUNTER, "weir_kv_transfer_fallbacks_total", NULL,
                                               "KV transfers replaced by a prefill.", reason, 1);
    for (size_t i = 0; i < KV_FALLBACKS; i++) {
        struct str v = str_of(reasons[i]);
        m->kv_fallbacks[i] = metric_at(fallbacks, &v);
    }
    struct str none = STR_LIT("");
    m->kv_leases = metric_at(labelled(m, METRIC_GAUGE, "weir_kv_leases", NULL, "KV leases held.", reason, 1), &none);
}

static void register_http(struct rmetrics *m) {
    static const char *const labels[] = {"method", "handler", "status"};
    m->http_requests = labelled(m, METRIC_COUNTER, "http_requests_total", NULL, "Responses.", labels, 3);
    m->http_seconds = metric_family(m->reg, METRIC_HISTOGRAM, "http_request_duration_seconds", NULL,
                                    "Acceptance to last byte.", labels, 3, buckets_a, ARRAY_LEN(buckets_a));
    m->http_in =
        labelled(m, METRIC_SUMMARY, "http_request_size_bytes", NULL, "Bytes of request bodies.", labels, 3);
    m->http_out =
        labelled(m, METRIC_SUMMARY, "http_response_size_bytes", NULL, "Bytes of response bodies.", labels, 3);
    m->http = xcalloc((n_routes + 1) * N_METHOD * N_STATUS, sizeof *m->http);
}

/* both: a counter of what went well and what did not. */
static void both(struct rmetrics *m, const char *name, const char *help, struct metric *out[2]) {
    static const char *const outcome[] = {"outcome"};
    struct metric_family *f = labelled(m, METRIC_COUNTER, name, NULL, help, outcome, 1);
    for (int i = 0; i < 2; i++) {
        struct str v = i ? STR_LIT("ok") : STR_LIT("failed");
        out[i] = metric_at(f, &v);
    }
}

static const char *const reject_statuses[N_REJECT_STATUS] = {"413", "429", "503", "other"};
static const char *const reject_reasons[N_REJECT] = {[REJECT_QUEUE_FULL] = "queue_full",
                                                     [REJECT_QUEUE_TIMEOUT] = "queue_timeout",
                                                     [REJECT_NO_WORKER] = "no_worker",
                                                     [REJECT_DRAINING] = "draining",
                                                     [REJECT_LIMIT] = "limit"};

static struct metric *series(_Atomic(struct metric *) *at, struct metric_family *f, const struct str *labels) {
    struct metric *s = atomic_load_explicit(at, memory_order_acquire);
    if (!s) {
        s = metric_at(f, labels);
        atomic_store_explicit(at, s, memory_order_release);
    }
    return s;
}

static struct metric *rejected(struct rmetrics *m, enum reject_reason reason, int status) {
    int k = status == 413 ? 0 : status == 429 ? 1 : status == 503 ? 2 : 3;
    struct str v[2] = {str_of(reject_reasons[reason]), str_of(reject_statuses[k])};
    return series(&m->reject[reason][k], m->rejected, v);
}

static void register_own(struct rmetrics *m) {
    static const char *const model_state[] = {"model", "state"}, *const model[] = {"model"},
                             *const reason_status[] = {"reason", "status"},
                             *const policy_reason[] = {"policy", "reason"},
                             *const version_backend[] = {"version", "backend"};
    m->workers =
        labelled(m, METRIC_GAUGE, "weir_workers", NULL, "Workers known to this router.", model_state, 2);
    m->queue_depth =
        labelled(m, METRIC_GAUGE, "weir_queue_depth", NULL, "Requests waiting in this router.", model, 1);
    m->queue_tokens = labelled(m, METRIC_GAUGE, "weir_queue_tokens", NULL,
                               "Tokens of the prompts that wait in this router.", model, 1);
    m->queue_tenants =
        labelled(m, METRIC_GAUGE, "weir_queue_tenants", NULL, "Tenants whose requests wait in this router.", model, 1);
    m->queue_wait = metric_family(m->reg, METRIC_HISTOGRAM, "weir_queue_wait_seconds", NULL,
                                  "Waiting in this router.", model, 1, buckets_a, ARRAY_LEN(buckets_a));
    m->rejected =
        labelled(m, METRIC_COUNTER, "weir_rejected_total", NULL, "Requests refused.", reason_status, 2);
    m->decisions = labelled(m, METRIC_COUNTER, "weir_route_decisions_total", NULL, "Choices of a worker.",
                            policy_reason, 2);
    m->prefix_predicted = labelled(m, METRIC_COUNTER, "weir_prefix_predicted_tokens_total", NULL,
                                   "Cached tokens the router expected.", model, 1);
    m->prefix_actual = labelled(m, METRIC_COUNTER, "weir_prefix_actual_tokens_total", NULL,
                                "Cached tokens workers reported.", model, 1);
    m->prefix_drift = labelled(m, METRIC_COUNTER, "weir_prefix_drift_tokens_total", NULL,
                               "Tokens by which the router was wrong, either way.", model, 1);
    m->index_blocks = plain(m, METRIC_GAUGE, "weir_prefix_index_blocks", "Blocks in the index of prefixes.");
    m->index_evicted = plain(m, METRIC_COUNTER, "weir_prefix_index_evicted_total",
                             "Blocks that left the index for want of room.");
    both(m, "weir_remote_prefills_total", "Prompts given to another worker than the one that decodes.", m->remote);
    both(m, "weir_retries_total", "Requests given to a second worker.", m->retry);
    both(m, "weir_failovers_total", "Streams carried on by another worker.", m->failover);
    static const char *const outcome[] = {"outcome"}, *const ends[N_SPAN_END] = {"sent", "dropped", "failed"};
    struct metric_family *spans =
        labelled(m, METRIC_COUNTER, "weir_otlp_spans_total", NULL, "Spans for the collector of traces.", outcome, 1);
    for (int i = 0; i < N_SPAN_END; i++) {
        struct str v = str_of(ends[i]);
        m->spans[i] = metric_at(spans, &v);
    }
    m->ready_seconds = labelled(m, METRIC_GAUGE, "weir_ready_seconds", NULL, "A worker's start to ready.",
                                version_backend, 2);
    struct str build[2] = {STR_LIT(WEIR_VERSION), STR_LIT("router")};
    metric_set(metric_at(labelled(m, METRIC_GAUGE, "weir_build_info", NULL, "The build.", version_backend, 2),
                         build),
               1);
    metric_at(m->ready_seconds, build);
    m->plain[PM_DISCONNECTS] =
        plain(m, METRIC_COUNTER, "weir_client_disconnects_total", "Clients that left before their answer.");
    m->plain[PM_SLOW_CLIENTS] =
        plain(m, METRIC_COUNTER, "weir_slow_client_aborts_total", "Clients cut for reading too slowly.");
    m->plain[PM_TEMPLATE_SECONDS] =
        plain(m, METRIC_HISTOGRAM, "weir_template_seconds", "Time to render a chat template.");
    m->plain[PM_TOKENIZE_SECONDS] =
        plain(m, METRIC_HISTOGRAM, "weir_tokenize_seconds", "Time to tokenise a request.");
    m->plain[PM_HEDGES] = plain(m, METRIC_COUNTER, "weir_hedges_total",
                                "Requests taken from a worker that made no progress, before it was lost.");
    m->plain[PM_DROPPED_OUTPUTS] = plain(m, METRIC_COUNTER, "weir_dropped_outputs_total",
                                         "Outputs of workers for streams that are gone.");
    for (int i = 0; i < N_REJECT; i++)
        rejected(m, (enum reject_reason)i, i == REJECT_QUEUE_FULL ? 429 : i == REJECT_LIMIT ? 413 : 503);
    rejected(m, REJECT_LIMIT, 429); /* of a key, by requests or tokens a minute */
}

struct rmetrics *rmetrics_new(void) {
    static const char *const success[] = {"model_name", "engine", "finished_reason"};
    static const char *const config[] = {"engine",         "block_size",
                                         "cache_dtype",    "gpu_memory_utilization",
                                         "num_gpu_blocks", "enable_prefix_caching"};
    struct rmetrics *m = xcalloc(1, sizeof *m);
    m->reg = metrics_new();
    for (int i = 0; i < N_ES; i++)
        m->stat[i] = labelled(m, stat_spec[i].type, stat_spec[i].name, stat_spec[i].alias, stat_spec[i].help,
                              engine_labels, 2);
    for (int i = 0; i < N_EH; i++)
        m->hist[i] =
            metric_family(m->reg, METRIC_HISTOGRAM, hist_spec[i].name, hist_spec[i].alias, hist_spec[i].help,
                          engine_labels, 2, hist_spec[i].buckets, hist_spec[i].n_buckets);
    m->iteration = metric_family(m->reg, METRIC_HISTOGRAM, "vllm:iteration_tokens_total", NULL,
                                 "Tokens of an engine step.", engine_labels, 2, buckets_iteration,
                                 ARRAY_LEN(buckets_iteration));
    m->success =
        labelled(m, METRIC_COUNTER, "vllm:request_success_total", NULL, "Requests that ended.", success, 3);
    m->cache_config =
        labelled(m, METRIC_GAUGE, "vllm:cache_config_info", NULL, "The KV cache of an engine.", config, 6);
    m->computed = labelled(m, METRIC_COUNTER, "weir_computed_tokens_total", NULL,
                           "Tokens put through the model: prompts' that were not cached or fetched, and outputs'.",
                           engine_labels, 2);
    register_http(m);
    register_own(m);
    register_kv(m);
    reserved(m);
    return m;
}

void rmetrics_free(struct rmetrics *m) {
    if (!m)
        return;
    metrics_free(m->reg);
    free(m->http);
    free(m);
}

void rmetrics_engine(struct rmetrics *m, struct str model, unsigned engine, struct engine_metrics *out) {
    static const char *const reasons[N_FINISHED] = {"stop", "length", "abort", "error"};
    char number[16];
    snprintf(number, sizeof number, "%u", engine);
    struct str v[3] = {model, str_of(number)};
    for (int i = 0; i < N_EH; i++)
        out->hist[i] = metric_at(m->hist[i], v);
    for (int i = 0; i < N_ES; i++)
        out->stat[i] = metric_at(m->stat[i], v);
    for (int i = 0; i < N_FINISHED; i++) {
        v[2] = str_of(reasons[i]);
        out->finished[i] = metric_at(m->success, v);
    }
    out->iteration_tokens = metric_at(m->iteration, v);
    out->computed = metric_at(m->computed, v);
    out->queue_depth = metric_at(m->queue_depth, &model);
    out->queue_tokens = metric_at(m->queue_tokens, &model);
    out->queue_tenants = metric_at(m->queue_tenants, &model);
    out->queue_wait = metric_at(m->queue_wait, &model);
    out->prefix_predicted = metric_at(m->prefix_predicted, &model);
    out->prefix_actual = metric_at(m->prefix_actual, &model);
    out->prefix_drift = metric_at(m->prefix_drift, &model);
    static const char *const states[] = {"loading", "ready", "draining", "stalled", "dead"};
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        struct str w[2] = {model, str_of(states[i])};
        metric_at(m->workers, w);
    }
}

void rmetrics_load(const struct engine_metrics *e, const Weir__Load *l) {
    metric_set(e->stat[ES_RUNNING], l->running);
    metric_set(e->stat[ES_WAITING], l->waiting);
    metric_set(e->stat[ES_KV_USAGE], l->kv_total_blocks ? (double)l->kv_used_blocks / l->kv_total_blocks : 0);
    metric_set(e->stat[ES_PREFIX_QUERIES], (double)l->prefix_queries);
    metric_set(e->stat[ES_PREFIX_HITS], (double)l->prefix_hits);
    metric_set(e->stat[ES_CACHED_TOKENS], (double)l->prefix_hits);
    metric_set(e->stat[ES_PREEMPTIONS], (double)l->preemptions);
    metric_set(e->stat[ES_PROMPT_TOKENS], (double)l->prompt_tokens);
    metric_set(e->stat[ES_GENERATED_TOKENS], (double)l->generated_tokens);
    metric_set(e->computed, (double)l->computed_tokens);
    if (l->n_iteration_tokens == ARRAY_LEN(buckets_iteration) + 1)
        metric_set_counts(e->iteration_tokens, l->iteration_tokens, l->n_iteration_tokens,
                          (double)l->iteration_tokens_sum);
}

void rmetrics_masks(struct rmetrics *m, struct mask_times *seen, const Weir__Load *l) {
    struct mask_times now;
    if (l->n_mask_times != MASK_KINDS * MASK_BUCKETS || l->n_mask_ns != MASK_KINDS)
        return; /* a worker that does not report them */
    memcpy(now.counts, l->mask_times, sizeof now.counts);
    memcpy(now.ns, l->mask_ns, sizeof now.ns);
    for (size_t k = 0; k < MASK_KINDS; k++) {
        uint64_t more[MASK_BUCKETS];
        bool anew = now.ns[k] < seen->ns[k]; /* the worker has started again */
        for (size_t i = 0; i < MASK_BUCKETS; i++)
            anew = anew || now.counts[k][i] < seen->counts[k][i];
        for (size_t i = 0; i < MASK_BUCKETS; i++)
            more[i] = now.counts[k][i] - (anew ? 0 : seen->counts[k][i]);
        metric_add_counts(m->masks[k], more, MASK_BUCKETS,
                          (double)(now.ns[k] - (anew ? 0 : seen->ns[k])) / 1e9);
    }
    *seen = now;
}

/* more_of: what is new in counts. */
static void more_of(const uint64_t *now, uint64_t *seen, size_t n, uint64_t *more) {
    for (size_t i = 0; i < n; i++) {
        more[i] = now[i] - seen[i];
        seen[i] = now[i];
    }
}

static bool fell(const uint64_t *now, const uint64_t *seen, size_t n) {
    bool anew = false;
    for (size_t i = 0; i < n; i++)
        anew |= now[i] < seen[i];
    return anew;
}

void rmetrics_kv(struct rmetrics *m, struct kv_seen *seen, const Weir__Load *l) {
    uint64_t more[KV_BUCKETS];
    _Static_assert((int)KV_FALLBACKS <= (int)KV_BUCKETS, "room for either");
    if (!l) {
        metric_add(m->kv_leases, -(double)seen->leases);
        seen->leases = 0;
        return;
    }
    if (l->n_kv_times != KV_BUCKETS || l->n_kv_sizes != KV_BUCKETS || l->n_kv_fallbacks != KV_FALLBACKS)
        return; /* a worker that moves nothing */
    bool anew = l->kv_ns < seen->ns || l->kv_bytes < seen->bytes || l->kv_failed < seen->failed ||
                l->kv_expired < seen->expired || fell(l->kv_times, seen->times, KV_BUCKETS) ||
                fell(l->kv_sizes, seen->sizes, KV_BUCKETS) || fell(l->kv_fallbacks, seen->fallbacks, KV_FALLBACKS);
    if (anew)
        *seen = (struct kv_seen){.leases = seen->leases};
    more_of(l->kv_times, seen->times, KV_BUCKETS, more);
    metric_add_counts(m->kv_times, more, KV_BUCKETS, (double)(l->kv_ns - seen->ns) / 1e9);
    more_of(l->kv_sizes, seen->sizes, KV_BUCKETS, more);
    metric_add_counts(m->kv_sizes, more, KV_BUCKETS, (double)(l->kv_bytes - seen->bytes));
    more_of(l->kv_fallbacks, seen->fallbacks, KV_FALLBACKS, more);
    for (size_t i = 0; i < KV_FALLBACKS; i++)
        metric_add(m->kv_fallbacks[i], (double)more[i]);
    metric_add(m->kv_failed, (double)(l->kv_failed - seen->failed));
    metric_add(m->kv_expired, (double)(l->kv_expired - seen->expired));
    metric_add(m->kv_leases, (double)l->kv_leases - (double)seen->leases);
    seen->ns = l->kv_ns;
    seen->bytes = l->kv_bytes;
    seen->failed = l->kv_failed;
    seen->expired = l->kv_expired;
    seen->leases = l->kv_leases;
}

void rmetrics_cache_config(struct rmetrics *m, unsigned engine, const Weir__WorkerInfo *w) {
    char number[16], block[16], blocks[16], share[32];
    snprintf(number, sizeof number, "%u", engine);
    snprintf(block, sizeof block, "%u", w->block_tokens);
    snprintf(blocks, sizeof blocks, "%u", w->n_blocks);
    snprintf(share, sizeof share, "%g", w->has_gpu_memory_utilization ? w->gpu_memory_utilization : 0.0);
    struct str v[6] = {
        str_of(number), str_of(block),  str_of(w->kv_dtype ? w->kv_dtype : "auto"),
        str_of(share),  str_of(blocks), w->prefix_caching ? STR_LIT("True") : STR_LIT("False")};
    metric_set(metric_at(m->cache_config, v), 1);
    struct str r[2] = {str_of(w->version ? w->version : WEIR_VERSION), str_of(w->device ? w->device : "")};
    metric_set(metric_at(m->ready_seconds, r), w->ready_ms / 1000.0);
}

void rmetrics_workers(struct rmetrics *m, struct str model, const char *state, unsigned n) {
    struct str v[2] = {model, str_of(state)};
    metric_set(metric_at(m->workers, v), n);
}

void rmetrics_reject(struct rmetrics *m, enum reject_reason reason, int status) {
    metric_add(rejected(m, reason, status), 1);
}

void rmetrics_spans(struct rmetrics *m, enum span_end how, uint64_t n) {
    metric_add(m->spans[how], (double)n);
}

void rmetrics_remote_prefill(struct rmetrics *m, bool ok) {
    metric_add(m->remote[ok], 1);
}

void rmetrics_retry(struct rmetrics *m, bool ok) {
    metric_add(m->retry[ok], 1);
}

void rmetrics_failover(struct rmetrics *m, bool ok) {
    metric_add(m->failover[ok], 1);
}

void rmetrics_count(struct rmetrics *m, enum plain_metric which, double v) {
    if (which >= PM_TEMPLATE_SECONDS && which <= PM_COMPILE_TAG)
        metric_observe(m->plain[which], v);
    else
        metric_add(m->plain[which], v);
}

void rmetrics_policy(struct rmetrics *m, enum policy_kind policy) {
    for (int i = 0; i < N_ROUTED; i++) {
        struct str labels[2] = {str_of(policy_names[policy]), str_of(policy_reasons[i])};
        m->decision[policy][i] = metric_at(m->decisions, labels);
    }
}

void rmetrics_decision(struct rmetrics *m, enum policy_kind policy, enum policy_reason why) {
    metric_add(m->decision[policy][why], 1);
}

void rmetrics_index(struct rmetrics *m, uint32_t n_blocks, double n_evicted) {
    metric_set(m->index_blocks, n_blocks);
    metric_set(m->index_evicted, n_evicted);
}

void rmetrics_http(struct rmetrics *m, const struct route *route, struct str method, int status,
                   double seconds, size_t bytes_in, size_t bytes_out) {
    if (status == 0 || (route && route->flags & ROUTE_QUIET))
        return;
    size_t r = route ? (size_t)(route - routes) : n_routes;
    size_t k = route_method(method) == METHOD_GET    ? 0
               : route_method(method) == METHOD_POST ? 1
               : str_eqz(method, "OPTIONS")          ? 2
                                                     : 3;
    size_t c = status >= 200 && status < 600 ? (size_t)status / 100 - 2 : N_STATUS - 1;
    struct http_series *s = &m->http[(r * N_METHOD + k) * N_STATUS + c];
    struct str labels[3] = {str_of(method_names[k]), str_of(route ? route->label : "none"),
                            str_of(status_names[c])};
    metric_add(series(&s->requests, m->http_requests, labels), 1);
    metric_observe(series(&s->seconds, m->http_seconds, labels), seconds);
    metric_observe(series(&s->bytes_in, m->http_in, labels), (double)bytes_in);
    metric_observe(series(&s->bytes_out, m->http_out, labels), (double)bytes_out);
}

void rmetrics_write(struct rmetrics *m, struct str model, struct buf *out) {
    struct engine_metrics first;
    rmetrics_engine(m, model, 0, &first);
    metrics_write(m->reg, out);
    metrics_write_process(out);
}
