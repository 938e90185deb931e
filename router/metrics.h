/* metrics.h: the router's series (api.md 20.2, 20.3): one registry, and the handles that hot paths keep.
 *
 * Threads: any. Everything is registered in rmetrics_new; series of an engine exist from the moment its index
 * and model are known, and for engine "0" from the first scrape.
 */
#ifndef WEIR_ROUTER_METRICS_H
#define WEIR_ROUTER_METRICS_H

#include "common/metric.h"
#include "proto/weir.pb-c.h"
#include "router/fleet/policy.h"
#include "router/route.h"

enum finished { FINISHED_STOP = 0, FINISHED_LENGTH, FINISHED_ABORT, FINISHED_ERROR, N_FINISHED };

/* Histograms of one engine that a session fills. */
enum engine_hist {
    EH_TTFT = 0,
    EH_INTER_TOKEN,
    EH_PER_TOKEN, /* of a request: decode time over its tokens but the first */
    EH_E2E,
    EH_QUEUE,
    EH_INFERENCE,
    EH_PREFILL,
    EH_DECODE,
    EH_PROMPT_TOKENS,
    EH_GENERATION_TOKENS,
    EH_MAX_GENERATION_TOKENS,
    EH_PARAM_MAX_TOKENS,
    EH_PARAM_N,
    N_EH
};
/* Gauges and counters of one engine that its Load reports fill. */
enum engine_stat {
    ES_RUNNING = 0,
    ES_WAITING,
    ES_KV_USAGE,
    ES_PREFIX_QUERIES,
    ES_PREFIX_HITS,
    ES_PREEMPTIONS,
    ES_PROMPT_TOKENS,
    ES_GENERATED_TOKENS,
    ES_CACHED_TOKENS,
    N_ES
};
struct engine_metrics {
    struct metric *hist[N_EH], *stat[N_ES], *finished[N_FINISHED];
    struct metric *iteration_tokens;
    struct metric *computed;
    struct metric *queue_depth, *queue_wait; /* of the model */
    struct metric *queue_tokens, *queue_tenants; /* likewise: of prompts that wait, and who they are of */
    struct metric *prefix_predicted, *prefix_actual, *prefix_drift; /* likewise; tokens */
};

enum reject_reason {
    REJECT_QUEUE_FULL = 0,
    REJECT_QUEUE_TIMEOUT,
    REJECT_NO_WORKER,
    REJECT_DRAINING,
    REJECT_LIMIT,
    N_REJECT
};

struct rmetrics;
struct rmetrics *rmetrics_new(void);
void rmetrics_free(struct rmetrics *m);
/* rmetrics_engine: fills *out with the series of one engine. Takes the registry's lock: once a worker, not
 * once a request. */
void rmetrics_engine(struct rmetrics *m, struct str model, unsigned engine, struct engine_metrics *out);
/* rmetrics_load: a worker's report into its series. */
void rmetrics_load(const struct engine_metrics *e, const Weir__Load *l);
/* mask_times: what a worker has reported of its masks so far, by kind of constraint. */
enum { MASK_KINDS = 5, MASK_BUCKETS = 12 };
struct mask_times {
    uint64_t counts[MASK_KINDS][MASK_BUCKETS], ns[MASK_KINDS];
};
/* rmetrics_masks: adds what a report says beyond *seen to the series of all workers; *seen follows. */
void rmetrics_masks(struct rmetrics *m, struct mask_times *seen, const Weir__Load *l);
/* kv_seen: what a worker has reported of KV transfers so far. */
enum { KV_BUCKETS = 12, KV_FALLBACKS = 6 };
struct kv_seen {
    uint64_t times[KV_BUCKETS], sizes[KV_BUCKETS], fallbacks[KV_FALLBACKS];
    uint64_t ns, bytes, failed, expired;
    uint32_t leases;
};
/* rmetrics_kv: adds what a report says beyond *seen to the series of all workers; *seen follows. l NULL: the worker is gone,
 * and its leases with it. */
void rmetrics_kv(struct rmetrics *m, struct kv_seen *seen, const Weir__Load *l);
/* rmetrics_cache_config: vllm:cache_config_info and weir_ready_seconds of a worker that is ready. */
void rmetrics_cache_config(struct rmetrics *m, unsigned engine, const Weir__WorkerInfo *info);
/* rmetrics_workers: how many workers a model has in a state ("ready", "loading" ...). */
void rmetrics_workers(struct rmetrics *m, struct str model, const char *state, unsigned n);
void rmetrics_reject(struct rmetrics *m, enum reject_reason reason, int status);
/* rmetrics_http: one response. route NULL: unknown path. method is the client's; status 0: it left before
 * there was one, and nothing is counted. */
void rmetrics_http(struct rmetrics *m, const struct route *route, struct str method, int status,
                   double seconds, size_t bytes_in, size_t bytes_out);

/* Counters and histograms without labels. */
enum plain_metric {
    PM_DISCONNECTS = 0,
    PM_SLOW_CLIENTS,
    PM_TEMPLATE_SECONDS,
    PM_TOKENIZE_SECONDS,
    PM_COMPILE_JSON, /* weir_grammar_compile_seconds by kind, in the order of enum gram_kind */
    PM_COMPILE_REGEX,
    PM_COMPILE_GRAMMAR,
    PM_COMPILE_CHOICE,
    PM_COMPILE_TAG,
    PM_HEDGES,          /* requests taken from a worker that made no progress */
    PM_DROPPED_OUTPUTS, /* outputs of workers whose stream is gone */
    N_PM
};
void rmetrics_count(struct rmetrics *m, enum plain_metric which,
                    double v);                               /* adds, or observes a histogram */
/* rmetrics_policy: makes the series of the policy in force, before any request. rmetrics_decision:
 * weir_route_decisions_total; under the fleet's lock, so it makes none. */
void rmetrics_policy(struct rmetrics *m, enum policy_kind policy);
void rmetrics_decision(struct rmetrics *m, enum policy_kind policy, enum policy_reason why);
/* rmetrics_index: how many blocks the index of prefixes holds, and how many had to go for want of room so far. */
void rmetrics_index(struct rmetrics *m, uint32_t n_blocks, double n_evicted);
/* rmetrics_spans: weir_otlp_spans_total: taken by the collector, dropped because too many waited, or not delivered. */
enum span_end { SPAN_SENT = 0, SPAN_DROPPED, SPAN_FAILED, N_SPAN_END };
void rmetrics_spans(struct rmetrics *m, enum span_end how, uint64_t n);
void rmetrics_retry(struct rmetrics *m, bool ok);            /* weir_retries_total */
void rmetrics_remote_prefill(struct rmetrics *m, bool ok);   /* weir_remote_prefills_total */
void rmetrics_failover(struct rmetrics *m, bool ok);         /* weir_failovers_total */
/* rmetrics_write: the whole exposition. model names engine 0 if no worker has come yet. */
void rmetrics_write(struct rmetrics *m, struct str model, struct buf *out);

#endif
