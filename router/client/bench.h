/* bench.h: the load of `weir bench serve`: what is sent, how it is sent, what is measured.
 *
 * bench_load plans requests, bench_run sends them and measures, bench_report tells. All on one thread.
 *
 * Times are in ns of the monotonic clock. A request's time begins when it is due: in an open loop that is its
 * arrival, even if the client sends it later because all its connections are taken. A connection serves one
 * request, so connecting is part of the time.
 */
#ifndef WEIR_ROUTER_CLIENT_BENCH_H
#define WEIR_ROUTER_CLIENT_BENCH_H

#include "router/client/api.h"

enum {
    BENCH_CONNECTIONS_MAX = 1024,
    BENCH_REASONS_MAX = 16,
    /* The log-normal lengths of --shape sharegpt: exp(N(ln MEDIAN, SIGMA)), cut to LENGTH_MIN..LENGTH_MAX. */
    BENCH_INPUT_MEDIAN = 90,
    BENCH_OUTPUT_MEDIAN = 140,
    BENCH_LENGTH_MIN = 4,
    BENCH_LENGTH_MAX = 1024
};
#define BENCH_INPUT_SIGMA 1.2
#define BENCH_OUTPUT_SIGMA 0.9

struct bench_opts {
    const char *url, *key, *model;
    bool chat; /* the endpoint; else completions */
    enum bench_shape { SHAPE_FIXED, SHAPE_SHAREGPT, SHAPE_PREFIX } shape;
    int64_t n_prompts, n_concurrent;        /* n_concurrent: of the closed loop */
    double rate;                            /* arrivals a second; 0: closed loop */
    int64_t n_input, n_output, n_total_max; /* tokens */
    int64_t n_prefix, n_prefixes;           /* tokens of a shared prefix; how many prefixes */
    uint64_t seed;
    double timeout_s, temperature; /* temperature: NAN for the server's */
    bool ignore_eos;
    uint64_t goal_ns[3]; /* goodput: of TTFT, TPOT, end to end; 0: none */
};

/* bench_item: one request to come. */
struct bench_item {
    uint64_t seed;              /* of its words */
    uint64_t due_ns;            /* after the start; open loop only */
    uint32_t n_input, n_output; /* tokens; n_input with the prefix */
    uint32_t n_prefix, prefix;  /* tokens that it shares with those of the same prefix */
};

/* bench_fit: prompt tokens = base + per_word x words, as the server counts them. */
struct bench_fit {
    double base, per_word;
    bool known; /* false: the server gives no usage, and a word counts as a token */
};

/* bench_plan: n_prompts items, a pure function of the options. */
void bench_plan(const struct bench_opts *o, struct bench_item *items);
/* bench_fit_words: asks the server twice, for an answer of one token. Blocks. */
MUST_USE enum rc bench_fit_words(const struct bench_opts *o, const struct target *t, struct bench_fit *fit,
                                 struct err *e);
/* bench_body: the request's JSON, a stream with usage. */
void bench_body(const struct bench_opts *o, const struct bench_fit *fit, const struct bench_item *item,
                struct buf *out);

/* hist: a histogram of times in ns, in fixed memory: percentiles within 0.4 %, mean and maximum exact. */
enum { HIST_SUB = 256, HIST_BUCKETS = 58 * HIST_SUB };
struct hist {
    uint64_t n, max;
    double sum;
    uint32_t buckets[HIST_BUCKETS];
};
void hist_add(struct hist *h, uint64_t ns);
/* hist_quantile: the smallest value that a share q (0 to 1) of all do not exceed; 0 if there are none. */
uint64_t hist_quantile(const struct hist *h, double q);

enum { TIME_TTFT, TIME_TPOT, TIME_ITL, TIME_E2E, N_TIMES };
struct bench_result {
    struct hist times[N_TIMES];
    uint64_t n_done, n_failed, n_good; /* requests; n_good met every goal */
    uint64_t n_without_usage;          /* of n_done: tokens were counted by events instead */
    uint64_t n_late;                   /* open loop: sent over 10 ms after they were due */
    int64_t n_prompt, n_completion;    /* tokens of those done; n_prompt without the ones without usage */
    uint64_t took_ns;
    unsigned n_open_max; /* requests under way at once, at most */
    struct {
        char text[256];
        uint64_t n;
    } reasons[BENCH_REASONS_MAX]; /* of failures; the last place is for all others */
    unsigned n_reasons;
};

/* bench_run: sends every item and measures; blocks. Failed requests are no error of the run. */
MUST_USE enum rc bench_run(const struct bench_opts *o, const struct target *t, const struct bench_fit *fit,
                           const struct bench_item *items, struct bench_result *r, struct err *e);

/* bench_report_json, bench_report_table: append one JSON object with a line end; a table for people. */
void bench_report_json(const struct bench_opts *o, const struct bench_fit *fit, const struct bench_result *r,
                       struct buf *out);
void bench_report_table(const struct bench_opts *o, const struct bench_fit *fit, const struct bench_result *r,
                        struct buf *out);

#endif
