/* What a session tells the tracer: the trace it belongs to, and when it was in which stage. */
#include <stdio.h>
#include <stdlib.h>

#include "router/session_private.h"
#include "router/trace/tracer.h"

/* find: the only header of a name; of several, none. */
static struct str find(const h2o_req_t *req, const char *name) {
    ssize_t i = h2o_find_header_by_str(&req->headers, name, strlen(name), -1);
    if (i < 0 || h2o_find_header_by_str(&req->headers, name, strlen(name), i) >= 0)
        return (struct str){0};
    return str_of_iovec(req->headers.entries[i].value);
}

/* join: all headers of a name, with commas between them; empty if that is longer than room. */
static struct str join(const h2o_req_t *req, const char *name, char *room, size_t size) {
    size_t n = 0;
    for (ssize_t i = -1; (i = h2o_find_header_by_str(&req->headers, name, strlen(name), i)) >= 0;) {
        struct str v = str_of_iovec(req->headers.entries[i].value);
        if (v.n + 1 > size - n)
            return (struct str){0};
        if (n)
            room[n++] = ',';
        memcpy(room + n, v.p, v.n);
        n += v.n;
    }
    return (struct str){room, n};
}

void session_trace_begin(struct session *s, const h2o_req_t *req) {
    const struct router *r = s->loop->router;
    char room[TRACE_STATE_BYTES_MAX + 1];
    struct str path = str_of_iovec(req->input.path);
    if (!r->tracer && !r->opts->log_requests)
        return;
    s->trace = trace_begin(r->tracer, find(req, "traceparent"), join(req, "tracestate", room, sizeof room));
    if (!s->trace)
        return;
    if (!s->trace->from.sampled && !r->opts->log_requests) {
        free(s->trace);
        s->trace = NULL;
        return;
    }
    s->trace->begin_ns = s->begin_ns;
    snprintf(s->trace->route, sizeof s->trace->route, "%.*s", (int)MIN(req->input.query_at, path.n), path.p);
}

void session_trace_prepared(struct session *s) {
    struct trace_record *t = s->trace;
    const struct gen_req *q = s->req;
    if (!t)
        return;
    t->stage[TRACE_QUEUE].begin_ns = clock_ns();
    if (q->template_ns) {
        t->stage[TRACE_TEMPLATE].begin_ns = q->encode_ns;
        t->stage[TRACE_TEMPLATE].end_ns = q->encode_ns + q->template_ns;
    }
    t->stage[TRACE_TOKENISE].begin_ns = q->encode_ns + q->template_ns;
    t->stage[TRACE_TOKENISE].end_ns = q->encode_ns + q->template_ns + q->tokenize_ns;
}

void session_trace_id(const struct session *s, char out[33]) {
    out[0] = '\0';
    for (size_t i = 0; s->trace && i < sizeof s->trace->from.trace.b; i++)
        snprintf(out + 2 * i, 3, "%02x", s->trace->from.trace.b[i]);
}

/* fill_stages: what workers have said are lengths of time: they are put before the first token. */
static void fill_stages(const struct session *s, struct trace_record *t, uint64_t now) {
    uint64_t waited_ns = s->wait_us * NS_PER_US, prefill_ns = s->prefill_us * NS_PER_US;
    uint64_t queued_ns = t->stage[TRACE_QUEUE].begin_ns, taken_ns;
    if (!queued_ns)
        return; /* it was never prepared */
    if (s->first_ns) {
        taken_ns = MAX(s->first_ns - MIN(prefill_ns, s->first_ns), queued_ns);
        t->first_ns = s->first_ns;
        t->stage[TRACE_DECODE].begin_ns = s->first_ns;
        t->stage[TRACE_DECODE].end_ns = MAX(s->last_ns, s->first_ns);
    } else {
        taken_ns = s->metrics ? MIN(queued_ns + waited_ns, now) : now;
    }
    t->stage[TRACE_QUEUE].end_ns = taken_ns;
    if (s->transfer_us && s->first_ns) { /* it began with the prompt's arrival at the worker */
        t->stage[TRACE_TRANSFER].begin_ns = MAX(taken_ns - MIN(s->transfer_queue_us * NS_PER_US, taken_ns), queued_ns);
        t->stage[TRACE_TRANSFER].end_ns = MIN(t->stage[TRACE_TRANSFER].begin_ns + s->transfer_us * NS_PER_US, taken_ns);
    }
    if (s->metrics) {
        t->stage[TRACE_PREFILL].begin_ns = taken_ns;
        t->stage[TRACE_PREFILL].end_ns = s->first_ns ? MAX(s->first_ns, taken_ns) : now;
    }
}

static void fill_request(const struct session *s, struct trace_record *t) {
    static const char *const operations[N_GEN_ROUTE] = {
        [GEN_COMPLETIONS] = "text_completion", [GEN_CHAT] = "chat",   [GEN_EMBEDDINGS] = "embeddings",
        [GEN_POOLING] = "pooling",             [GEN_CLASSIFY] = "classify", [GEN_SCORE] = "score",
        [GEN_RERANK] = "rerank"};
    const struct gen_req *q = s->req;
    session_client_id(s, t->id, sizeof t->id);
    t->operation = operations[s->route];
    if (!q)
        return;
    struct gen_counts c = gen_run_counts(s->run);
    snprintf(t->model_asked, sizeof t->model_asked, "%.*s", (int)q->model_name.n, q->model_name.p);
    snprintf(t->model, sizeof t->model, "%s", q->model->facts.names[0]);
    t->generates = !q->pool;
    t->temperature = (double)q->s.temperature;
    t->top_p = (double)q->s.top_p;
    t->top_k = q->s.top_k;
    t->n = q->n;
    t->max_tokens = q->prompts[0].max_tokens;
    t->prompt_tokens = c.prompt_tokens;
    t->cached_tokens = c.cached_tokens;
    t->completion_tokens = c.completion_tokens;
    t->n_sequences = q->n_prompts * q->n_samples;
    for (uint32_t i = 0; i < s->n_legs; i++) {
        t->n_replays += s->legs[i].n_replays;
        t->n_hedges += s->legs[i].n_hedges;
    }
    for (size_t i = 0; s->n_legs && s->metrics && i < sizeof s->legs[0].id.b; i++)
        snprintf(t->internal_id + 2 * i, 3, "%02x", s->legs[0].id.b[i]);
    if (s->metrics_worker)
        t->worker = s->metrics_worker->engine;
}

void session_trace_end(struct session *s, int status, const char *reason) {
    struct trace_record *t = s->trace;
    uint64_t now = clock_ns();
    s->trace = NULL;
    if (!t)
        return;
    if (!t->from.sampled) {
        free(t);
        return;
    }
    t->status = status;
    t->http_status = s->stream && s->stream->started ? 200 : status;
    t->end = reason;
    t->end_ns = now;
    fill_stages(s, t, now);
    fill_request(s, t);
    if (s->stream) { /* which ends it with the answer's last byte */
        t->stage[TRACE_SEND].begin_ns = now;
        s->stream->trace = t;
    } else {
        tracer_add(s->loop->router->tracer, t);
    }
}
