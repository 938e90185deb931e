#include "router/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/log.h"
#include "router/api/error.h"
#include "router/conn.h"
#include "router/fleet/policy.h"
#include "router/offload.h"
#include "router/reply.h"
#include "router/reqlog.h"
#include "router/session_private.h"

static struct str suffix_of(const struct session *s) {
    return str_of(s->suffix);
}

void session_unavailable(struct router *r, struct err *e) {
    char why[400], note[256];
    pthread_mutex_lock(&r->note_lock);
    memcpy(note, r->note, sizeof note);
    pthread_mutex_unlock(&r->note_lock);
    if (atomic_load(&r->draining))
        snprintf(why, sizeof why, "the server is shutting down");
    else if (fleet_health(r->fleet, why, sizeof why))
        snprintf(why, sizeof why, "no worker serves this model");
    err_set(e, RC_UNAVAILABLE, NULL, "The service is not ready: %s%s%s", why, note[0] ? "; " : "", note);
}

void session_refused(struct router *r, enum refusal why, struct err *e) {
    const struct router_opts *o = r->opts;
    rmetrics_reject(r->metrics, REJECT_QUEUE_FULL, 429);
    switch (why) {
    case REFUSE_TOKENS:
        err_set(e, RC_OVERLOAD, NULL, "Too many tokens are waiting: %lld (--max-queued-tokens)",
                (long long)o->limit.queued_tokens);
        break;
    case REFUSE_WAIT:
        err_set(e, RC_OVERLOAD, NULL, "The request would have to wait longer than %g s (--max-queue-wait)",
                o->max_queue_wait_s);
        break;
    default:
        err_set(e, RC_OVERLOAD, NULL, "Too many requests are waiting: %lld (--max-queued-requests)",
                (long long)o->limit.queued_requests);
    }
}

/* ---- the end ----------------------------------------------------------------------------------------- */

static void enlist(struct session *s, struct session **first) {
    s->prev = NULL;
    s->next = *first;
    if (s->next)
        s->next->prev = s;
    *first = s;
}

static void unlist(struct session *s, struct session **first) {
    *(s->prev ? &s->prev->next : first) = s->next;
    if (s->next)
        s->next->prev = s->prev;
}

void session_maybe_free(struct session *s) {
    if (!s->over || s->job_out || s->ticket_out || s->work_queued)
        return;
    CHECK(!s->stream && !s->run);
    unlist(s, &s->loop->ended);
    for (uint32_t i = 0; i < s->n_legs; i++)
        free(s->legs[i].choices);
    free(s->legs);
    free(s);
}

void session_touch(struct session *s) {
    struct loop *l = s->loop;
    if (s->touched)
        return;
    s->touched = true;
    s->touched_prev = l->touched_last;
    s->touched_next = NULL;
    *(l->touched_last ? &l->touched_last->touched_next : &l->touched_first) = s;
    l->touched_last = s;
}

static void untouch(struct session *s) {
    struct loop *l = s->loop;
    if (!s->touched)
        return;
    s->touched = false;
    *(s->touched_prev ? &s->touched_prev->touched_next : &l->touched_first) = s->touched_next;
    *(s->touched_next ? &s->touched_next->touched_prev : &l->touched_last) = s->touched_prev;
}

/* log_outputs: what the choices said so far, and no longer kept. */
static void log_outputs(struct session *s) {
    size_t bytes_max = (size_t)s->loop->router->opts->max_log_len;
    if (!s->logged)
        return;
    for (uint32_t i = 0; i < s->n_legs * s->req->n; i++) {
        if (s->logged[i].n)
            reqlog_output(s->req, suffix_of(s), i, &s->logged[i], bytes_max);
        tok_ids_fini(&s->logged[i]);
    }
    free(s->logged);
    s->logged = NULL;
}

static void end(struct session *s) {
    struct loop *l = s->loop;
    CHECK(!s->over);
    s->over = true;
    h2o_timeout_unlink(&s->queue_entry);
    h2o_timeout_unlink(&s->request_entry);
    h2o_timeout_unlink(&s->keepalive_entry);
    untouch(s);
    if (s->ticket_out && fleet_cancel(l->router->fleet, &s->ticket))
        s->ticket_out = false;
    for (uint32_t i = 0; i < s->n_legs; i++) {
        if (s->legs[i].state == LEG_SUBMITTED)
            leg_close(&s->legs[i], true);
        for (uint32_t k = 0; k < s->req->n_samples; k++)
            choice_forget(&s->legs[i].choices[k]);
    }
    unlist(s, &l->sessions);
    enlist(s, &l->ended);
    s->stream = NULL;
    CHECK(!s->logged); /* log_end comes before every end */
    if (s->req && s->req->kv.pull && !s->kv_given)
        fleet_end_transfer(l->router->fleet, &s->req->kv);
    gen_run_free(s->run);
    s->run = NULL;
    s->req = NULL;
    if (s->metrics)
        fleet_done(l->router->fleet); /* refusals say nothing of how fast the line moves */
    quota_drop(s->who.quota);
    s->who.quota = NULL;
    worker_drop(s->metrics_worker);
    s->metrics_worker = NULL;
    s->metrics = NULL;
    session_maybe_free(s);
}

/* log_request: one line for each request, with its ids: the client's, the internal one, the trace's. */
static void log_request(const struct session *s, int status, const char *reason) {
    if (!s->loop->router->opts->log_requests)
        return;
    struct gen_counts c = s->run ? gen_run_counts(s->run) : (struct gen_counts){0};
    struct id128 none = {{0}}, id = s->n_legs ? s->legs[0].id : none;
    char trace[33];
    session_trace_id(s, trace);
    LOG(LOG_INFO, "request", F_STR("id", s->suffix), F_ID("internal", id), F_STR("trace", trace),
        F_STR("route", gen_route_word(s->route)),
        F_BYTES("model", s->req ? s->req->model_name.p : "", s->req ? s->req->model_name.n : 0),
        F_I64("status", status), F_STR("end", reason), F_U64("prompt_tokens", c.prompt_tokens),
        F_U64("cached_tokens", c.cached_tokens), F_U64("completion_tokens", c.completion_tokens),
        F_F64("seconds", (double)(clock_ns() - s->begin_ns) * 1e-9));
}

/* log_end: before the answer goes out, so that who has it finds the log complete. */
static void log_end(struct session *s, int status, const char *reason) {
    log_outputs(s);
    log_request(s, status, reason);
    session_trace_end(s, status, reason);
}

static void count_end(const struct session *s, enum finished how) {
    if (s->metrics)
        metric_add(s->metrics->finished[how], 1);
}

void session_fail(struct session *s, const struct err *e, unsigned retry_after_s) {
    struct stream *st = s->stream;
    count_end(s, FINISHED_ERROR);
    log_end(s, api_status(e->rc), "error");
    if (st && st->started) {
        gen_error_event(e, stream_out(st));
        stream_finish(st);
    } else if (st) {
        reply_error(stream_take(st), e, retry_after_s, suffix_of(s));
    }
    end(s);
}

/* on_gone: the stream's owner callback: the client has left. */
static void on_gone(void *owner) {
    struct session *s = owner;
    s->stream = NULL;
    s->left = true;
    count_end(s, FINISHED_ABORT);
    log_end(s, 499, "client left");
    end(s);
}

static void observe(const struct session *s, enum engine_hist h, double v) {
    metric_observe(s->metrics->hist[h], v);
}

static void observe_end(const struct session *s) {
    if (!s->metrics)
        return;
    const struct gen_req *r = s->req;
    struct gen_counts c = gen_run_counts(s->run);
    uint32_t longest = 0, n_choices = s->n_legs * r->n_samples;
    for (uint32_t i = 0; i < s->n_legs; i++) {
        for (uint32_t k = 0; k < r->n_samples; k++)
            longest = MAX(longest, s->legs[i].choices[k].n_tokens);
    }
    double decode_s = s->last_ns > s->first_ns ? (double)(s->last_ns - s->first_ns) * 1e-9 : 0;
    double prefill_s = s->prefill_us * 1e-6;
    observe(s, EH_E2E, (double)(clock_ns() - s->begin_ns) * 1e-9);
    observe(s, EH_QUEUE, s->wait_us * 1e-6);
    observe(s, EH_PREFILL, prefill_s);
    observe(s, EH_DECODE, decode_s);
    observe(s, EH_INFERENCE, prefill_s + decode_s);
    if (c.completion_tokens > n_choices)
        observe(s, EH_PER_TOKEN, decode_s / ((double)c.completion_tokens / n_choices - 1 + 1e-9));
    observe(s, EH_PROMPT_TOKENS, c.prompt_tokens);
    observe(s, EH_GENERATION_TOKENS, c.completion_tokens);
    observe(s, EH_MAX_GENERATION_TOKENS, longest);
    observe(s, EH_PARAM_MAX_TOKENS, r->prompts[0].max_tokens);
    observe(s, EH_PARAM_N, r->n);
}

void session_complete(struct session *s) {
    struct err e;
    struct stream *st = s->stream;
    bool streaming = s->req->stream;
    struct buf body = {0};
    if (gen_on_end(s->run, streaming ? stream_out(st) : &body, &e) != RC_OK) {
        buf_fini(&body);
        session_fail(s, &e, 0);
        return;
    }
    observe_end(s);
    log_end(s, 200, "done");
    if (streaming) {
        if (!st->events)
            stream_events(st, suffix_of(s));
        stream_finish(st);
    } else {
        reply_json(stream_take(st), 200, &body, suffix_of(s));
    }
    end(s);
}

void session_abort(struct session *s) {
    const struct gen_finish finish = {.reason = GEN_ABORT};
    struct err e;
    if (!s->run) {
        s->abort_asked = true;
        return;
    }
    for (uint32_t i = 0; i < s->n_legs; i++) {
        if (s->legs[i].state == LEG_SUBMITTED)
            leg_close(&s->legs[i], true);
    }
    struct buf *sse = s->req->stream ? stream_out(s->stream) : NULL;
    for (uint32_t i = 0; !s->req->pool && i < s->req->n_prompts * s->req->n; i++)
        (void)gen_on_step(s->run, i, NULL, &finish, sse);
    count_end(s, FINISHED_ABORT);
    if (gen_run_done(s->run)) {
        session_complete(s);
        return;
    }
    /* What has no choices has no way to say how they ended. */
    err_set(&e, RC_UNAVAILABLE, NULL, "The request was aborted by the operator");
    session_fail(s, &e, 0);
}

/* flush: sends what has gathered. The session is over afterwards if its client reads too slowly. */
static void flush(struct session *s) {
    struct stream *st = s->stream;
    untouch(s);
    if (!st || !stream_waits(st))
        return;
    if (!st->events)
        stream_events(st, suffix_of(s));
    if (h2o_timeout_is_linked(&s->keepalive_entry)) {
        h2o_timeout_unlink(&s->keepalive_entry);
        h2o_timeout_link(s->loop->ctx.loop, &s->loop->keepalive, &s->keepalive_entry);
    }
    if (!stream_flush(st)) {
        s->stream = NULL;
        count_end(s, FINISHED_ABORT);
        log_end(s, 200, "client reads too slowly");
        end(s);
    }
}

void session_flush_touched(struct loop *l, uint64_t end_ns) {
    enum { FLUSHES_PER_CLOCK = 4 };
    for (unsigned k = 1; l->touched_first; k++) {
        flush(l->touched_first);
        if (k % FLUSHES_PER_CLOCK == 0 && clock_ns() >= end_ns)
            return;
    }
}

void session_end_all(struct loop *l) {
    struct err e;
    err_set(&e, RC_UNAVAILABLE, NULL, "The server is shutting down");
    while (l->sessions)
        session_fail(l->sessions, &e, RETRY_AFTER_LOADING_S);
}

/* ---- what operators see ------------------------------------------------------------------------------ */

void session_client_id(const struct session *s, char *out, size_t size) {
    static const char *const prefixes[N_GEN_ROUTE] = {"cmpl",     "chatcmpl", "embd",  "pool",
                                                      "classify", "score",    "rerank"};
    if (s->req)
        snprintf(out, size, "%.*s", (int)s->req->id.n, s->req->id.p);
    else
        snprintf(out, size, "%s-%s", prefixes[s->route], s->suffix);
}

/* state_word: where a request is. "prefill" is its time at a worker before the first token, the worker's own queue
 * included; "ending": it is over, and what was out when it ended (a job, a place in the line) is not back yet. */
static const char *state_word(const struct session *s) {
    return s->over                 ? "ending"
           : !s->run               ? "preparing"
           : s->n_new == s->n_legs ? "queue"
           : s->first_ns == 0      ? "prefill"
                                   : "decode";
}

void session_describe(const struct session *s, struct buf *out) {
    char id[GEN_ID_BYTES_MAX + 64], internal[2 * sizeof(struct id128) + 1] = "";
    const struct leg *g = s->n_legs ? &s->legs[0] : NULL;
    struct gen_counts c = s->run ? gen_run_counts(s->run) : (struct gen_counts){0};
    session_client_id(s, id, sizeof id);
    for (size_t i = 0; g && g->handle && i < sizeof g->id.b; i++)
        snprintf(internal + 2 * i, 3, "%02x", g->id.b[i]);
    buf_addz(out, "{\"id\":");
    jw_strz(out, id);
    buf_addz(out, ",\"internal_id\":");
    jw_strz(out, internal[0] ? internal : NULL);
    buf_addz(out, ",\"route\":");
    jw_strz(out, gen_route_word(s->route));
    buf_addz(out, ",\"model\":");
    if (s->req)
        jw_str(out, s->req->model_name);
    else
        jw_strz(out, NULL);
    buf_addf(out, ",\"state\":\"%s\",\"client_gone\":%s,\"worker\":", state_word(s), s->left ? "true" : "false");
    if (g && g->worker)
        jw_u64(out, g->worker->engine);
    else
        jw_strz(out, NULL);
    buf_addz(out, ",\"prefill_worker\":");
    if (g && g->prefill)
        jw_u64(out, g->prefill->worker->engine);
    else
        jw_strz(out, NULL);
    buf_addf(out, ",\"age_s\":%.3f,\"prompt_tokens\":%u,\"output_tokens\":%u}",
             (double)(clock_ns() - s->begin_ns) * 1e-9, c.prompt_tokens, c.completion_tokens);
}

/* ---- timers ------------------------------------------------------------------------------------------ */

static void on_queue_timeout(h2o_timeout_entry_t *entry) {
    struct session *s = CONTAINER_OF(entry, struct session, queue_entry);
    struct err e;
    if (s->metrics)
        return; /* a worker has had it */
    rmetrics_reject(s->loop->router->metrics, REJECT_QUEUE_TIMEOUT, 503);
    err_set(&e, RC_UNAVAILABLE, NULL, "The request waited for a worker longer than --queue-timeout");
    session_fail(s, &e, fleet_retry_after_s(s->loop->router->fleet));
}

static void on_request_timeout(h2o_timeout_entry_t *entry) {
    struct session *s = CONTAINER_OF(entry, struct session, request_entry);
    struct err e;
    err_set(&e, RC_TIMEOUT, NULL, "The request took longer than --request-timeout");
    session_fail(s, &e, 0);
}

static void on_keepalive(h2o_timeout_entry_t *entry) {
    struct session *s = CONTAINER_OF(entry, struct session, keepalive_entry);
    h2o_timeout_link(s->loop->ctx.loop, &s->loop->keepalive, &s->keepalive_entry);
    buf_addz(stream_out(s->stream), ": keep-alive\n\n");
    flush(s);
}

/* ---- the beginning ----------------------------------------------------------------------------------- */

/* may_go_on: what only the body tells: its priority, and its tokens against the key's limit. False: it is over. */
static bool may_go_on(struct session *s) {
    struct err e;
    unsigned retry_after_s = 0;
    uint64_t n_tokens = 0;
    for (uint32_t i = 0; i < s->req->n_prompts; i++)
        n_tokens += s->req->prompts[i].n_ids;
    s->priority = s->who.has_priority ? s->who.priority : s->req->priority;
    if (s->priority && !s->req->model->facts.priority_scheduling)
        err_set(&e, RC_INVALID, "priority", "priority needs a server with --scheduling-policy priority");
    else if (admit_prompt(s->loop->router, &s->who, n_tokens, &e, &retry_after_s))
        return true;
    session_fail(s, &e, retry_after_s);
    return false;
}

/* on_prepared: the job is back. */
static void on_prepared(struct loop *l, void *owner, struct gen_req *req, const struct err *e,
                        const char *asked_id) {
    struct session *s = owner;
    s->job_out = false;
    if (s->over) {
        if (req && req->kv.pull)
            fleet_end_transfer(l->router->fleet, &req->kv);
        if (req)
            gen_req_free(req);
        session_maybe_free(s);
        return;
    }
    if (!req) {
        if (!s->suffix[0])
            snprintf(s->suffix, sizeof s->suffix, "%s", asked_id);
        if (e->rc == RC_UNAVAILABLE)
            rmetrics_reject(l->router->metrics, REJECT_NO_WORKER, 503);
        session_fail(s, e, e->rc == RC_UNAVAILABLE ? RETRY_AFTER_LOADING_S : 0);
        return;
    }
    rmetrics_count(l->router->metrics, PM_TEMPLATE_SECONDS, (double)req->template_ns * 1e-9);
    rmetrics_count(l->router->metrics, PM_TOKENIZE_SECONDS, (double)req->tokenize_ns * 1e-9);
    if (req->compile_ns)
        rmetrics_count(l->router->metrics,
                       (enum plain_metric)(PM_COMPILE_JSON + (int)req->constraint.kind - 1),
                       (double)req->compile_ns * 1e-9);
    /* The id is PREFIX-SUFFIX. */
    const char *dash = memchr(req->id.p, '-', req->id.n);
    size_t at = dash ? (size_t)(dash - req->id.p) + 1 : 0;
    snprintf(s->suffix, sizeof s->suffix, "%.*s", (int)(req->id.n - at), req->id.p + at);
    s->run = gen_run_new(req);
    s->req = gen_run_req(s->run);
    if (!may_go_on(s))
        return;
    session_trace_prepared(s);
    const struct router_opts *o = l->router->opts;
    if (UNLIKELY(o->log_requests))
        reqlog_prompt(s->req, suffix_of(s), (size_t)o->max_log_len);
    if (UNLIKELY(o->log_outputs) && !s->req->pool)
        s->logged = xcalloc((size_t)s->req->n_prompts * s->req->n, sizeof *s->logged);
    if (s->abort_asked) {
        session_abort(s);
        return;
    }
    if (s->req->stream && l->router->opts->sse_keepalive_s > 0)
        h2o_timeout_link(l->ctx.loop, &l->keepalive, &s->keepalive_entry);
    dispatch_start(s);
}

static void to_pool(struct session *s, struct str body) {
    struct router *r = s->loop->router;
    struct err e;
    s->job_out = offload_prepare(s->loop, s, on_prepared, s->route, body, suffix_of(s));
    if (s->job_out)
        return;
    err_set(&e, RC_OVERLOAD, NULL, "Too many requests are waiting");
    rmetrics_reject(r->metrics, REJECT_QUEUE_FULL, 429);
    session_fail(s, &e, fleet_retry_after_s(r->fleet));
}

/* prepare_step: what the pool does for longer bodies, as a piece of the backlog. */
static bool prepare_step(struct loop *l, struct loop_msg *m) {
    struct session *s = CONTAINER_OF(m, struct session, work);
    s->work_queued = false;
    if (s->over) {
        session_maybe_free(s);
        return true;
    }
    struct str body = str_of_iovec(s->stream->req->entity);
    if (!offload_prepare_here(l, s, on_prepared, s->route, body, suffix_of(s)))
        to_pool(s, body);
    return true;
}

/* set_key: what consistent hashing goes by, if the client says it. */
static void set_key(struct session *s, const h2o_req_t *req) {
    const struct router_opts *o = s->loop->router->opts;
    if (policy_of(o->policy) != POLICY_CONSISTENT_HASH)
        return;
    struct str name = str_of(o->hash_header);
    for (size_t i = 0; i < req->headers.size && !s->has_key; i++) {
        const h2o_header_t *h = &req->headers.entries[i];
        s->has_key = h->value.len && h->name->len == name.n && !strncasecmp(h->name->base, name.p, name.n);
        if (s->has_key)
            s->key = hash_fast(h->value.base, h->value.len, 0);
    }
}

void session_begin(h2o_req_t *req, enum gen_route route, struct str suffix, const struct admitted *a) {
    struct loop *l = loop_of(req);
    struct router *r = l->router;
    struct session *s = xcalloc(1, sizeof *s);
    s->loop = l;
    s->route = route;
    s->who = *a;
    s->begin_ns = clock_ns();
    snprintf(s->suffix, sizeof s->suffix, "%.*s", (int)suffix.n, suffix.p ? suffix.p : "");
    s->queue_entry.cb = on_queue_timeout;
    s->request_entry.cb = on_request_timeout;
    s->keepalive_entry.cb = on_keepalive;
    enlist(s, &l->sessions);
    s->stream = stream_new(req, true, s, on_gone);
    set_key(s, req);
    session_trace_begin(s, req);
    if (r->opts->queue_timeout_s > 0)
        h2o_timeout_link(l->ctx.loop, &l->queue_timeout, &s->queue_entry);
    if (r->opts->request_timeout_s > 0)
        h2o_timeout_link(l->ctx.loop, &l->request_timeout, &s->request_entry);
    if (conn_of(req)->gone) {
        stream_client_gone(s->stream);
        return;
    }
    if (offload_here(l, req->entity.len)) {
        s->work.step = prepare_step;
        s->work_queued = true;
        loop_queue(l, &s->work);
    } else {
        to_pool(s, str_of_iovec(req->entity));
    }
}
