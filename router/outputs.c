/* What workers answer: outputs, refusals, and their disappearance. Pieces of the loop's backlog (inbox.h). */
#include <stdlib.h>

#include "router/api/error.h"
#include "router/reqlog.h"
#include "router/session_private.h"

enum { SCAN_SLOTS = 64 }; /* of the table in one step */

/* ---- outputs ------------------------------------------------------------------------------------------ */

static void on_first(struct leg *g, uint32_t k, const struct batch_entry *t) {
    struct session *s = g->s;
    /* Of several samples each has a First; the prompt was computed once. */
    const uint32_t n_cached = g->credit_tokens ? prefill_first(g, t->cached_tokens, t->prefill_us) : g->n_shown;
    g->n_shown = n_cached;
    leg_prompt_done(g, n_cached); /* first: the credit may go to whoever comes next */
    leg_prefilled(g);
    if (g->choices[k].begun)
        return; /* it goes on where another worker had begun: usage tells what that one found cached */
    g->choices[k].begun = true;
    if (g->predicted) {
        g->predicted = false; /* the other samples share what the first has found */
        fleet_cached(s->loop->router->fleet, g->worker, g->n_cached, t->cached_tokens);
    }
    s->wait_us = MAX(s->wait_us, t->queue_us);
    s->prefill_us = MAX(s->prefill_us, t->prefill_us);
    if (t->transfer_us > s->transfer_us) {
        s->transfer_us = t->transfer_us;
        s->transfer_queue_us = t->queue_us;
    }
    gen_on_first(s->run, g->prompt * s->req->n_samples + k,
                 &(struct gen_first){.cached_tokens = n_cached});
}

static void fail_internal(struct session *s, const char *why) {
    struct err e;
    err_set(&e, RC_INTERNAL, NULL, "%s", why);
    session_fail(s, &e, 0);
}

static void fail_unavailable(struct session *s, const char *why) {
    struct err e;
    err_set(&e, RC_UNAVAILABLE, NULL, "%s", why);
    session_fail(s, &e, RETRY_AFTER_LOADING_S);
}

/* on_prompt: some rows of a prompt's log-probabilities. */
static void on_prompt(struct leg *g, const struct batch *b, const struct batch_entry *t) {
    struct gen_prompt_row rows[BATCH_ROWS_MAX];
    struct err e;
    CHECK(t->n_top <= ARRAY_LEN(rows));
    for (uint32_t i = 0; i < t->n_top; i++) {
        const struct batch_row *x = &b->rows[t->top_at + i];
        rows[i] = (struct gen_prompt_row){.logprob = x->logprob,
                                          .rank = x->rank,
                                          .top_ids = b->top_ids + x->top_at,
                                          .top_logprobs = b->top_logprobs + x->top_at,
                                          .n_top = x->n_top};
    }
    if (gen_on_prompt(g->s->run, g->prompt, rows, t->n_top, &e) != RC_OK)
        session_fail(g->s, &e, 0);
}

static void observe_token(struct session *s, struct choice *c) {
    uint64_t now = s->loop->now_ns;
    if (s->first_ns == 0) {
        s->first_ns = now;
        metric_observe(s->metrics->hist[EH_TTFT], (double)(now - s->begin_ns) * 1e-9);
    }
    if (c->n_tokens)
        metric_observe(s->metrics->hist[EH_INTER_TOKEN], (double)(now - c->last_ns) * 1e-9);
    c->last_ns = s->last_ns = now;
}

/* fail_of: the error of a Finish ERROR; a worker's status is only believed if it is one of the table's. */
static void fail_of(struct session *s, const struct batch_entry *t) {
    struct err e;
    enum rc rc = t->status >= 400 && t->status < 600 ? api_rc_of_status((int)t->status) : RC_INTERNAL;
    err_set(&e, rc, NULL, "%s", t->message ? t->message : "The worker could not complete the request");
    session_fail(s, &e, rc == RC_UNAVAILABLE ? RETRY_AFTER_LOADING_S : 0);
}

/* finish_of: false: the session failed. */
static bool finish_of(struct session *s, const struct batch_entry *t, struct gen_finish *out) {
    *out = (struct gen_finish){0};
    switch (t->reason) {
    case WEIR__FINISH__REASON__STOP:
        out->reason = GEN_STOP;
        out->has_stop_id = t->has_stop_id && !t->eos;
        out->stop_id = t->stop_id;
        break;
    case WEIR__FINISH__REASON__LENGTH:
        out->reason = GEN_LENGTH;
        break;
    default:
        fail_of(s, t);
        return false;
    }
    if (s->metrics)
        metric_add(s->metrics->finished[out->reason == GEN_STOP ? FINISHED_STOP : FINISHED_LENGTH], 1);
    return true;
}

/* lose: the leg's worker is gone, last heard of at last_ns; or it is ending, and must be told that the rest of the
 * leg is not its any more. */
static void lose(struct leg *g, uint64_t last_ns, bool abort, const char *why) {
    struct session *s = g->s;
    struct rmetrics *m = s->loop->router->metrics;
    bool touched = g->touched;
    bool ok = leg_replay(g, last_ns, abort);
    if (touched)
        rmetrics_failover(m, ok);
    else
        rmetrics_retry(m, ok);
    if (ok)
        return;
    leg_close(g, abort);
    fail_unavailable(s, why);
}

/* worker_ends: a finish that says nothing of the request: nobody here asked for an ABORT, so the worker is
 * ending; and an error of 503 is its device's. */
static bool worker_ends(const struct batch_entry *t) {
    return t->flags & ENTRY_FINISH &&
           (t->reason == WEIR__FINISH__REASON__ABORT ||
            (t->reason == WEIR__FINISH__REASON__ERROR && t->status == 503));
}

/* repeated: a beam search that began anew says again what it has said. False: it says something else. */
static bool repeated(struct choice *c, const struct batch_entry *t) {
    if (t->flags & ENTRY_FINISH || choice_id(c, c->n_tokens - c->n_repeat) != t->token)
        return false;
    c->n_repeat--;
    return true;
}

/* on_entry: false: it belongs to nothing that is live here. */
static bool on_entry(struct loop *l, const struct batch *b, const struct batch_entry *t) {
    struct leg *g = slots_get(&l->slots, t->stream);
    uint32_t k = handle_sample(t->stream);
    if (g && g->decode)
        return g->worker == b->worker && k == 0 && prefill_on_entry(g, t);
    if (!g || g->worker != b->worker || k >= g->s->req->n_samples || g->choices[k].finished)
        return false;
    struct session *s = g->s;
    struct choice *c = &g->choices[k];
    if (UNLIKELY(c->n_repeat > 0) && t->flags & (ENTRY_TOKEN | ENTRY_FINISH)) {
        leg_prefilled(g);
        if (!repeated(c, t))
            fail_unavailable(s, "The worker that served the request was lost");
        return true;
    }
    if (t->flags & ENTRY_TOKEN && c->n_tokens >= s->req->prompts[g->prompt].max_tokens) {
        link_cut(g->worker->conn, "more tokens than were asked for");
        return false;
    }
    if (UNLIKELY(worker_ends(t))) {
        lose(g, l->now_ns, true,
             t->message ? t->message : "The worker stopped before the request was complete");
        return true;
    }
    g->touched = true;
    if (t->flags & ENTRY_FIRST) {
        on_first(g, k, t);
        return true;
    }
    if (t->flags & ENTRY_NAN) {
        fail_internal(s, "The model gave a log-probability that is not a number");
        return true;
    }
    if (t->flags & ENTRY_PROMPT) {
        on_prompt(g, b, t);
        return true;
    }
    struct gen_token token = {.id = t->token,
                              .logprob = t->logprob,
                              .raw_logprob = t->raw_logprob,
                              .rank = t->rank,
                              .top_ids = b->top_ids + t->top_at,
                              .top_logprobs = b->top_logprobs + t->top_at,
                              .n_top = t->n_top};
    struct gen_finish finish;
    bool has_token = t->flags & ENTRY_TOKEN, has_finish = t->flags & ENTRY_FINISH;
    if (has_finish && !finish_of(s, t, &finish))
        return true;
    if ((has_token && (s->req->logprobs || s->req->sums) && !(t->flags & ENTRY_LOGPROB)) ||
        (s->req->n_prompt_top >= 0 && !gen_prompt_known(s->run, g->prompt))) {
        fail_internal(s, "The worker left out a log-probability");
        return true;
    }
    if (has_token) {
        leg_prefilled(g);
        observe_token(s, c);
        choice_keep(c, token.id);
        leg_said(g);
        if (UNLIKELY(s->logged))
            reqlog_token(&s->logged[g->prompt * s->req->n + k], token.id,
                         (size_t)l->router->opts->max_log_len);
    }
    if (UNLIKELY(t->kv != NULL) && has_finish && g->prompt == 0)
        gen_on_kv(s->run, g->id, t->kv);
    struct buf *sse = s->req->stream ? stream_out(s->stream) : NULL;
    enum gen_action action = gen_on_step(s->run, g->prompt * s->req->n_samples + k, has_token ? &token : NULL,
                                         has_finish ? &finish : NULL, sse);
    if (has_finish) {
        leg_choice_over(g, k);
    } else if (action == GEN_CUT) {
        metric_add(s->metrics->finished[FINISHED_STOP], 1);
        leg_cut(g, k);
    }
    if (gen_run_done(s->run))
        session_complete(s);
    else if (s->req->stream)
        session_touch(s);
    return true;
}

/* warm: a stream has its turn every some milliseconds, and nothing of it is in the caches by then: its memory
 * is called for some entries ahead, each pointer once what it lies in has come. */
static void warm(const struct loop *l, const struct batch *b) {
    const struct leg *g = b->at + 3 < b->n ? slots_get(&l->slots, b->entries[b->at + 3].stream) : NULL;
    if (g)
        __builtin_prefetch(g);
    g = b->at + 2 < b->n ? slots_get(&l->slots, b->entries[b->at + 2].stream) : NULL;
    if (g) {
        __builtin_prefetch(g->s);
        __builtin_prefetch((const char *)g->s + 64);
        __builtin_prefetch(g->choices);
    }
    g = b->at + 1 < b->n ? slots_get(&l->slots, b->entries[b->at + 1].stream) : NULL;
    if (g) {
        __builtin_prefetch(g->s->stream);
        __builtin_prefetch(g->s->run);
        __builtin_prefetch(g->s->req);
    }
}

bool session_on_batch(struct loop *l, struct loop_msg *m) {
    struct batch *b = CONTAINER_OF(m, struct batch, msg);
    warm(l, b);
    if (b->at < b->n && !on_entry(l, b, &b->entries[b->at]))
        rmetrics_count(l->router->metrics, PM_DROPPED_OUTPUTS, 1);
    if (++b->at < b->n)
        return false;
    atomic_fetch_sub(&l->backlog_bytes, b->bytes);
    worker_drop(b->worker);
    free(b);
    return true;
}

/* ---- pooled outputs ----------------------------------------------------------------------------------- */

/* pooled: false: it belongs to nothing that is live here. */
static bool pooled(struct loop *l, const struct fleet_pooled *x) {
    struct leg *g = slots_get(&l->slots, x->stream);
    if (!g || g->worker != x->worker || !g->s->req->pool)
        return false;
    struct session *s = g->s;
    struct err e;
    leg_prefilled(g);
    if (x->status == 503) { /* the worker's trouble, not the request's */
        lose(g, l->now_ns, true, x->message[0] ? x->message : "The worker could not complete the request");
    } else if (x->status) {
        enum rc rc = x->status >= 400 && x->status < 600 ? api_rc_of_status((int)x->status) : RC_INTERNAL;
        err_set(&e, rc, NULL, "%s", x->message[0] ? x->message : "The worker could not complete the request");
        session_fail(s, &e, rc == RC_UNAVAILABLE ? RETRY_AFTER_LOADING_S : 0);
    } else if (gen_on_pool(s->run, g->prompt, x->rows, x->cols, x->data, &e) != RC_OK) {
        session_fail(s, &e, 0);
    } else {
        metric_add(s->metrics->finished[FINISHED_STOP], 1);
        leg_choice_over(g, 0);
        if (gen_run_done(s->run))
            session_complete(s);
    }
    return true;
}

bool session_on_pool(struct loop *l, struct loop_msg *m) {
    struct fleet_pooled *x = CONTAINER_OF(m, struct fleet_pooled, msg);
    if (!pooled(l, x))
        rmetrics_count(l->router->metrics, PM_DROPPED_OUTPUTS, 1);
    atomic_fetch_sub(&l->backlog_bytes, x->bytes);
    worker_drop(x->worker);
    free(x);
    return true;
}

/* ---- refusals ------------------------------------------------------------------------------------------ */

static void refuse(struct leg *g, const struct fleet_reject *r) {
    struct session *s = g->s;
    enum rc rc = r->status >= 400 && r->status < 600 ? api_rc_of_status((int)r->status) : RC_INTERNAL;
    struct err e;
    /* It was full or draining by the time: another one may have room, and for this one it is no mark. */
    if ((rc == RC_UNAVAILABLE || rc == RC_OVERLOAD) && g->n_refusals++ < LEG_REFUSALS_MAX &&
        fleet_has_other(s->loop->router->fleet, g->worker)) {
        rmetrics_retry(s->loop->router->metrics, true);
        leg_again(g, false);
        return;
    }
    s->kv_given &= g->prompt != 0; /* it was not taken */
    err_set(&e, rc, r->param, "%s", r->message);
    leg_close(g, false);
    session_fail(s, &e, rc == RC_UNAVAILABLE || rc == RC_OVERLOAD ? RETRY_AFTER_LOADING_S : 0);
}

bool session_on_reject(struct loop *l, struct loop_msg *m) {
    struct fleet_reject *r = CONTAINER_OF(m, struct fleet_reject, msg);
    uint32_t end = MIN(r->cursor + SCAN_SLOTS, l->slots.n);
    for (; r->cursor < end; r->cursor++) {
        struct leg *g = l->slots.v[r->cursor].p;
        if (g && g->worker == r->worker && id128_eq(g->id, r->id)) {
            if (g->decode)
                prefill_failed(g);
            else
                refuse(g, r);
            r->cursor = l->slots.n;
            break;
        }
    }
    if (r->cursor < l->slots.n)
        return false;
    atomic_fetch_sub(&l->backlog_bytes, sizeof *r);
    worker_drop(r->worker);
    free(r);
    return true;
}

/* ---- a worker that makes no progress ------------------------------------------------------------------- */

bool session_on_slow(struct loop *l, struct loop_msg *m) {
    struct fleet_slow *x = CONTAINER_OF(m, struct fleet_slow, msg);
    uint32_t end = MIN(x->cursor + SCAN_SLOTS, l->slots.n);
    while (x->cursor < end) {
        struct leg *g = l->slots.v[x->cursor++].p;
        if (g && g->worker == x->worker && g->decode) {
            prefill_failed(g);
            return false;
        }
        if (g && g->worker == x->worker) {
            if (leg_hedge(g))
                rmetrics_count(l->router->metrics, PM_HEDGES, 1);
            return false;
        }
    }
    if (x->cursor < l->slots.n)
        return false;
    atomic_fetch_sub(&x->worker->n_slow_out, 1);
    worker_drop(x->worker);
    free(x);
    return true;
}

/* ---- a worker that is gone --------------------------------------------------------------------------- */

bool session_on_lost(struct loop *l, struct loop_msg *m) {
    struct fleet_lost *x = CONTAINER_OF(m, struct fleet_lost, msg);
    uint32_t end = MIN(x->cursor + SCAN_SLOTS, l->slots.n);
    while (x->cursor < end) {
        struct leg *g = l->slots.v[x->cursor++].p;
        if (g && g->worker == x->worker && g->decode) {
            prefill_failed(g);
            return false;
        }
        if (g && g->worker == x->worker) {
            lose(g, x->last_ns, false, "The worker that served the request was lost");
            return false;
        }
    }
    if (x->cursor < l->slots.n)
        return false;
    worker_drop(x->worker);
    free(x);
    return true;
}
