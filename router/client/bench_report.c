/* What a run was and what it measured, for people and for programs. */
#include <math.h>
#include <stdio.h>

#include "common/clock.h"
#include "router/client/bench.h"

static const char *const shapes[] = {
    [SHAPE_FIXED] = "fixed", [SHAPE_SHAREGPT] = "sharegpt", [SHAPE_PREFIX] = "prefix"};
static const char *const times[] = {
    [TIME_TTFT] = "ttft", [TIME_TPOT] = "tpot", [TIME_ITL] = "itl", [TIME_E2E] = "e2e"};

static double per_s(double n, const struct bench_result *r) {
    return r->took_ns ? n / ((double)r->took_ns / 1e9) : 0;
}

static double mean_ms(const struct hist *h) {
    return h->n ? h->sum / (double)h->n / 1e6 : 0;
}

static double quantile_ms(const struct hist *h, double q) {
    return (double)hist_quantile(h, q) / 1e6;
}

static bool has_goal(const struct bench_opts *o) {
    return o->goal_ns[0] || o->goal_ns[1] || o->goal_ns[2];
}

/* ---- JSON --------------------------------------------------------------------------------------- */

/* number: with a comma before it; six digits behind the point are a nanosecond of a millisecond. */
static void number(struct buf *out, const char *key, double v) {
    buf_addf(out, ",\"%s\":%.6g", key, v);
}

static void count(struct buf *out, const char *key, int64_t v) {
    buf_addf(out, ",\"%s\":%lld", key, (long long)v);
}

static void json_load(const struct bench_opts *o, const struct bench_fit *fit, struct buf *out) {
    buf_addz(out, "{\"url\":");
    jw_strz(out, o->url);
    buf_addz(out, ",\"model\":");
    jw_strz(out, o->model);
    buf_addf(out, ",\"endpoint\":\"%s\",\"shape\":\"%s\"", o->chat ? "chat" : "completions",
             shapes[o->shape]);
    count(out, "seed", (int64_t)o->seed);
    count(out, "num_prompts", o->n_prompts);
    if (o->rate > 0)
        number(out, "request_rate", o->rate);
    else
        count(out, "concurrency", o->n_concurrent);
    if (o->shape != SHAPE_SHAREGPT) {
        count(out, "input_len", o->n_input);
        count(out, "output_len", o->n_output);
    }
    if (o->shape == SHAPE_PREFIX) {
        count(out, "prefix_len", o->n_prefix);
        count(out, "n_prefixes", o->n_prefixes);
    }
    if (fit->known)
        number(out, "tokens_per_word", fit->per_word);
}

static void json_times(const struct hist *h, const char *name, struct buf *out) {
    buf_addf(out, ",\"%s_ms\":{\"n\":%llu", name, (unsigned long long)h->n);
    number(out, "mean", mean_ms(h));
    number(out, "p50", quantile_ms(h, 0.5));
    number(out, "p90", quantile_ms(h, 0.9));
    number(out, "p99", quantile_ms(h, 0.99));
    number(out, "max", (double)h->max / 1e6);
    buf_addc(out, '}');
}

void bench_report_json(const struct bench_opts *o, const struct bench_fit *fit, const struct bench_result *r,
                       struct buf *out) {
    json_load(o, fit, out);
    number(out, "duration_s", (double)r->took_ns / 1e9);
    count(out, "completed", (int64_t)r->n_done);
    count(out, "failed", (int64_t)r->n_failed);
    count(out, "without_usage", (int64_t)r->n_without_usage);
    count(out, "sent_late", (int64_t)r->n_late);
    count(out, "connections_max", r->n_open_max);
    count(out, "input_tokens", r->n_prompt);
    count(out, "output_tokens", r->n_completion);
    number(out, "requests_per_s", per_s((double)r->n_done, r));
    number(out, "output_tokens_per_s", per_s((double)r->n_completion, r));
    number(out, "total_tokens_per_s", per_s((double)(r->n_prompt + r->n_completion), r));
    for (int i = 0; i < N_TIMES; i++)
        json_times(&r->times[i], times[i], out);
    if (has_goal(o)) {
        buf_addz(out, ",\"goodput\":{\"goals_ms\":{");
        const char *comma = "";
        for (int i = 0; i < 3; i++)
            if (o->goal_ns[i]) {
                buf_addf(out, "%s\"%s\":%.6g", comma, times[i == 2 ? TIME_E2E : i],
                         (double)o->goal_ns[i] / 1e6);
                comma = ",";
            }
        buf_addf(out, "},\"requests\":%llu", (unsigned long long)r->n_good);
        number(out, "requests_per_s", per_s((double)r->n_good, r));
        buf_addc(out, '}');
    }
    buf_addz(out, ",\"failures\":{");
    for (unsigned i = 0; i < r->n_reasons; i++) {
        buf_addz(out, i ? "," : "");
        jw_strz(out, r->reasons[i].text);
        buf_addf(out, ":%llu", (unsigned long long)r->reasons[i].n);
    }
    buf_addz(out, "}}\n");
}

/* ---- the table ---------------------------------------------------------------------------------- */

static void table_load(const struct bench_opts *o, struct buf *out) {
    buf_addf(out, "%lld requests to %s, %s, of %s\n", (long long)o->n_prompts, o->url,
             o->chat ? "chat" : "completions", o->model);
    if (o->rate > 0)
        buf_addf(out, "open loop: %g arrivals a second", o->rate);
    else
        buf_addf(out, "closed loop: %lld at once", (long long)o->n_concurrent);
    if (o->shape == SHAPE_SHAREGPT)
        buf_addz(out, "; lengths like ShareGPT's");
    else
        buf_addf(out, "; %lld tokens in, at most %lld out", (long long)o->n_input, (long long)o->n_output);
    if (o->shape == SHAPE_PREFIX)
        buf_addf(out, ", behind %lld prefixes of %lld tokens", (long long)o->n_prefixes,
                 (long long)o->n_prefix);
    buf_addf(out, "; seed %llu\n\n", (unsigned long long)o->seed);
}

static void table_notes(const struct bench_fit *fit, const struct bench_result *r, struct buf *out) {
    if (!fit->known)
        buf_addz(out, "note: the server counts no prompt tokens, so a word of a prompt was taken for one\n");
    if (r->n_without_usage)
        buf_addf(out, "note: %llu answers told no usage; of them, events with text were counted as tokens\n",
                 (unsigned long long)r->n_without_usage);
    if (r->n_late)
        buf_addf(out,
                 "note: %llu requests were sent over 10 ms after they were due; the wait is in their times\n",
                 (unsigned long long)r->n_late);
}

void bench_report_table(const struct bench_opts *o, const struct bench_fit *fit, const struct bench_result *r,
                        struct buf *out) {
    static const char *const titles[] = {[TIME_TTFT] = "time to first token",
                                         [TIME_TPOT] = "time per output token",
                                         [TIME_ITL] = "inter-token latency",
                                         [TIME_E2E] = "end to end"};
    struct buf raw = {0};
    table_load(o, &raw);
    buf_addf(&raw, "%-24s%llu completed, %llu failed, in %.2f s\n", "requests", (unsigned long long)r->n_done,
             (unsigned long long)r->n_failed, (double)r->took_ns / 1e9);
    buf_addf(&raw, "%-24s%lld in, %lld out\n", "tokens", (long long)r->n_prompt, (long long)r->n_completion);
    buf_addf(&raw, "%-24s%.2f requests, %.1f output tokens, %.1f tokens in all\n", "throughput per second",
             per_s((double)r->n_done, r), per_s((double)r->n_completion, r),
             per_s((double)(r->n_prompt + r->n_completion), r));
    if (has_goal(o))
        buf_addf(&raw, "%-24s%.2f requests per second met every goal: %llu of %llu\n", "goodput",
                 per_s((double)r->n_good, r), (unsigned long long)r->n_good,
                 (unsigned long long)(r->n_done + r->n_failed));
    buf_addf(&raw, "\n%-24s%10s%10s%10s%10s%10s\n", "ms", "mean", "p50", "p90", "p99", "max");
    for (int i = 0; i < N_TIMES; i++) {
        const struct hist *h = &r->times[i];
        buf_addf(&raw, "%-24s%10.2f%10.2f%10.2f%10.2f%10.2f\n", titles[i], mean_ms(h), quantile_ms(h, 0.5),
                 quantile_ms(h, 0.9), quantile_ms(h, 0.99), (double)h->max / 1e6);
    }
    if (r->n_failed)
        buf_addz(&raw, "\nfailures\n");
    for (unsigned i = 0; i < r->n_reasons; i++)
        buf_addf(&raw, "%10llu  %s\n", (unsigned long long)r->reasons[i].n, r->reasons[i].text);
    buf_addc(&raw, '\n');
    table_notes(fit, r, &raw);
    clean_text(out, buf_str(&raw)); /* the model's name and the reasons are the server's words */
    buf_fini(&raw);
}
