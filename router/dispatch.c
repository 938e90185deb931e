/* Prompts to workers: choosing, waiting, submitting, giving credit back, trying again. */
#include <stdio.h>
#include <stdlib.h>

#include "router/session_private.h"

/* ---- a leg ------------------------------------------------------------------------------------------- */

void leg_prefilled(struct leg *g) {
    if (g->credit_tokens == 0)
        return;
    fleet_release(g->s->loop->router->fleet, g->worker, 0, g->credit_tokens);
    g->credit_tokens = 0;
}

static void tell_abort(struct leg *g, bool whole, uint32_t k) {
    Weir__Abort m = WEIR__ABORT__INIT;
    m.has_request_id = m.has_whole = m.has_stream = true;
    m.request_id = (ProtobufCBinaryData){sizeof g->id.b, g->id.b};
    m.whole = whole;
    m.stream = g->handle + k;
    /* A full queue to a worker means that it does not read: cut, it frees everything of ours. */
    if (link_send(g->worker->conn, LINK_CONTROL, WEIR__ENVELOPE__BODY_ABORT, &m) == RC_AGAIN)
        link_cut(g->worker->conn, "it does not read its aborts");
}

void leg_close(struct leg *g, bool abort) {
    struct loop *l = g->s->loop;
    CHECK(g->state == LEG_SUBMITTED);
    if (abort)
        tell_abort(g, true, 0);
    fleet_release(l->router->fleet, g->worker, g->n_live, g->credit_tokens);
    g->n_live = g->credit_tokens = 0;
    slots_del(&l->slots, g->handle);
    worker_drop(g->worker);
    g->worker = NULL;
    g->state = LEG_OVER;
}

void leg_choice_over(struct leg *g, uint32_t k) {
    CHECK(!g->choices[k].finished && g->n_live > 0);
    g->choices[k].finished = true;
    if (g->n_live == 1) {
        leg_close(g, false);
    } else {
        g->n_live--;
        fleet_release(g->s->loop->router->fleet, g->worker, 1, 0);
    }
}

void leg_cut(struct leg *g, uint32_t k) {
    tell_abort(g, g->n_live == 1, k);
    leg_choice_over(g, k);
}

/* submit: false: the worker's connection is gone (its credit is given back), or no handle is left. */
static bool submit(struct leg *g, struct worker *w) {
    struct session *s = g->s;
    struct loop *l = s->loop;
    struct gen_submit scratch;
    enum rc rc = RC_CLOSED;
    uint32_t n_tokens = s->req->prompts[g->prompt].n_ids;
    fill_random(g->id.b, sizeof g->id.b);
    g->handle = slots_put(&l->slots, g);
    if (g->handle) {
        gen_submit(s->req, g->prompt, &scratch);
        scratch.m.has_request_id = true;
        scratch.m.request_id = (ProtobufCBinaryData){sizeof g->id.b, g->id.b};
        scratch.m.has_stream = true;
        scratch.m.stream = g->handle;
        rc = link_queue(w->conn, LINK_DATA, WEIR__ENVELOPE__BODY_SUBMIT, &scratch.m);
        loop_push_later(l, w->conn);
    }
    if (rc != RC_OK) {
        if (rc == RC_AGAIN)
            link_cut(w->conn, "it does not read its requests");
        if (g->handle)
            slots_del(&l->slots, g->handle);
        fleet_release(l->router->fleet, w, s->req->n_samples, n_tokens);
        worker_drop(w);
        return false;
    }
    g->state = LEG_SUBMITTED;
    g->worker = w;
    g->n_live = s->req->n_samples;
    g->credit_tokens = n_tokens;
    s->n_new--;
    if (!s->metrics) {
        s->metrics_worker = worker_hold(w);
        s->metrics = &w->metrics;
    }
    return true;
}

/* ---- the request's legs, one after the other --------------------------------------------------------- */

static void fail_unavailable(struct session *s) {
    struct err e;
    rmetrics_reject(s->loop->router->metrics, REJECT_NO_WORKER, 503);
    session_unavailable(s->loop->router, &e);
    session_fail(s, &e, RETRY_AFTER_LOADING_S);
}

static void fail_full(struct session *s) {
    struct router *r = s->loop->router;
    struct err e;
    rmetrics_reject(r->metrics, REJECT_QUEUE_FULL, 429);
    err_set(&e, RC_OVERLOAD, NULL, "Too many requests are waiting: %lld (--max-queued-requests)",
            (long long)r->opts->limit.queued_requests);
    session_fail(s, &e, fleet_retry_after_s(r->fleet));
}

/* next_leg: submits one leg or asks for a worker. True: there is more to do at once. The session may be over
 * afterwards. */
static bool next_leg(struct session *s) {
    struct leg *g = s->legs;
    while (g->state != LEG_NEW)
        g++;
    if (g->n_tries++ == LEG_TRIES_MAX) {
        fail_unavailable(s);
        return false;
    }
    s->ticket_leg = g;
    s->ticket.model = s->req->model;
    s->ticket.n_seqs = s->req->n_samples;
    s->ticket.n_tokens = s->req->prompts[g->prompt].n_ids;
    switch (fleet_acquire(s->loop->router->fleet, &s->ticket, s->n_new < s->n_legs)) {
    case RC_OK:
        (void)submit(g, s->ticket.worker); /* if not, the leg is still new, and has its next try */
        return s->n_new > 0;
    case RC_AGAIN:
        s->ticket_out = true;
        return false;
    case RC_OVERLOAD:
        fail_full(s);
        return false;
    default:
        fail_unavailable(s);
        return false;
    }
}

static bool work_step(struct loop *l, struct loop_msg *m) {
    struct session *s = CONTAINER_OF(m, struct session, work);
    (void)l;
    if (!s->over && !s->ticket_out && s->n_new > 0 && next_leg(s))
        return false;
    s->work_queued = false;
    session_maybe_free(s);
    return true;
}

static void go_on(struct session *s) {
    if (s->work_queued || s->ticket_out || s->n_new == 0)
        return;
    s->work_queued = true;
    loop_queue(s->loop, &s->work);
}

/* on_ticket: the line's answer. */
static bool on_ticket(struct loop *l, struct loop_msg *m) {
    struct session *s = CONTAINER_OF(m, struct session, ticket.msg);
    struct worker *w = s->ticket.worker;
    s->ticket_out = false;
    if (s->over) {
        if (w) {
            fleet_release(l->router->fleet, w, s->ticket.n_seqs, s->ticket.n_tokens);
            worker_drop(w);
        }
        session_maybe_free(s);
        return true;
    }
    if (!w) {
        fail_unavailable(s);
        return true;
    }
    s->wait_us = MAX(s->wait_us, (clock_ns() - s->ticket.queued_ns) / NS_PER_US);
    (void)submit(s->ticket_leg, w);
    go_on(s);
    return true;
}

void dispatch_start(struct session *s) {
    const struct gen_req *r = s->req;
    CHECK(r->n_samples >= 1 && r->n_samples <= HANDLE_SAMPLES_MAX && r->n_prompts >= 1);
    s->n_legs = s->n_new = r->n_prompts;
    s->legs = xcalloc(s->n_legs, sizeof *s->legs);
    for (uint32_t i = 0; i < s->n_legs; i++)
        s->legs[i] = (struct leg){.s = s, .prompt = i, .choices = xcalloc(r->n_samples, sizeof(struct choice))};
    s->work.step = work_step;
    s->ticket.loop = s->loop->index;
    s->ticket.msg.step = on_ticket;
    go_on(s);
}

bool leg_retry(struct leg *g) {
    struct session *s = g->s;
    if (g->touched || g->n_tries >= LEG_TRIES_MAX)
        return false;
    leg_close(g, false);
    g->state = LEG_NEW;
    s->n_new++;
    go_on(s);
    return true;
}
